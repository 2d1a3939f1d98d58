/*-------------------------------------------------------------------------
 *
 * show/show.h
 *	  Looks and explains; deletes nothing.
 *
 * Every function connects to SPI itself, except metrics_count_files() and
 * metrics_count_runs().  Any failure is an ERROR, unless a comment says
 * otherwise.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SHOW_H
#define AUDIO_CLEANUP_SHOW_H

#include "access/tupdesc.h"
#include "utils/jsonb.h"
#include "utils/tuplestore.h"

/* ---------------------------------------------------------------- dashboard --- */

/*
 * Returns one self-contained page of HTML in ASCII, allocated in the current
 * memory context.  Looks at the upload directory as cleanup_status() does.  An
 * error of the look becomes part of the page.  Changes nothing.
 */
extern char *dashboard_page(void);

/* ------------------------------------------------------------------- doctor --- */

/* Receives one finding.  `status` is "ok", "warning" or "error"; `hint` may be NULL. */
typedef void (*DoctorSink) (const char *check, const char *status, const char *detail,
							const char *hint, void *arg);

/*
 * Examines the installation, and calls sink(check, status, detail, hint, arg)
 * for each finding.  Changes nothing.
 */
extern void doctor_examine(DoctorSink sink, void *arg);

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
 * Puts a row (name, labels, value, help, type) into `rows` for each figure.
 * Reads no source and walks no directory, so the call costs little.  A figure
 * that is not known is left out.  A missing directory is no ERROR.
 */
extern void metrics_collect(Tuplestorestate *rows);

/*
 * These functions add the files, or the runs, that an UPDATE has ended to
 * cleanup_totals.  The triggers on cleanup_files and cleanup_runs call these
 * functions, with SPI, and with the transition tables registered.
 */
extern void metrics_count_files(void);
extern void metrics_count_runs(void);

/* ------------------------------------------------------------------ missing --- */

/*
 * Puts a row (source, status, file_references, missing, examples) with the
 * descriptor `desc` into `result` for each source and status.  Raises an
 * ERROR if the directory or a source cannot be read completely.  Changes
 * nothing, and works on a standby.
 */
extern void missing_files(Tuplestorestate *result, TupleDesc desc);

#endif							/* AUDIO_CLEANUP_SHOW_H */
