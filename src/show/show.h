/*-------------------------------------------------------------------------
 *
 * show/show.h
 *	  Looks and explains; deletes nothing.
 *
 * Every function connects to SPI itself.  Any failure is an ERROR, unless a
 * comment says otherwise.  Functions with `rows` put the rows of a result,
 * with the descriptor `desc`, into that tuplestore.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SHOW_H
#define AUDIO_CLEANUP_SHOW_H

#include "access/tupdesc.h"
#include "fmgr.h"
#include "utils/jsonb.h"
#include "utils/tuplestore.h"

#include "src/plan/plan.h"
#include "src/text/json_build.h"

/* ---------------------------------------------------------------- dashboard --- */

/*
 * Adds what a plan has found to the object that an SQL function turns into
 * words: whether there was a survey, its figures, and the brakes.
 */
extern void show_add_findings(JsonBuilder *json, const PlanFindings *found);

/*
 * Returns one self-contained page of HTML in ASCII, allocated in the current
 * memory context.  Looks at the upload directory as cleanup_status() does.  An
 * error of the look becomes part of the page.  Changes nothing.
 */
extern char *dashboard_page(void);

/* ------------------------------------------------------------------- doctor --- */

/*
 * Examines the installation.  Puts a row (check_name, status, detail, hint)
 * for each finding; the status is "ok", "warning" or "error".  Changes
 * nothing.
 */
extern void doctor_examine(Tuplestorestate *rows, TupleDesc desc);

/* ------------------------------------------------------------------ explain --- */

/*
 * Returns why a file is kept or condemned, as the object of
 * cleanup_explain(), allocated in the current memory context.  `file` is a
 * path relative to the upload directory, or an absolute path below that
 * directory.  Any other path is an ERROR.
 */
extern Jsonb *explain_file(const char *file);

/* ------------------------------------------------------------------ metrics --- */

/*
 * Puts a row (name, labels, value, help, type) for each figure.
 * Reads no source and walks no directory, so the call costs little.  A figure
 * that is not known is left out.  A missing directory is no ERROR.
 */
extern void metrics_collect(Tuplestorestate *rows, TupleDesc desc);

/*
 * These functions add the files, or the runs, that an UPDATE has ended to
 * cleanup_totals.  `fcinfo` is the call of a trigger of cleanup_files or
 * cleanup_runs; any other call is an ERROR.
 */
extern void metrics_count_files(FunctionCallInfo fcinfo);
extern void metrics_count_runs(FunctionCallInfo fcinfo);

/* ------------------------------------------------------------------ missing --- */

/*
 * Puts a row (source, status, file_references, missing, examples) for each
 * source and status.  Raises an ERROR if the directory or a source cannot be
 * read completely.  Changes nothing, and works on a standby.
 */
extern void missing_files(Tuplestorestate *rows, TupleDesc desc);

#endif							/* AUDIO_CLEANUP_SHOW_H */
