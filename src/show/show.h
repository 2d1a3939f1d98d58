/*-------------------------------------------------------------------------
 *
 * show/show.h
 *	  Looks and explains; deletes nothing.
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
 * Returns one self-contained page of HTML in ASCII, in the current memory
 * context.  Looks at the upload directory as cleanup_status() does; an error
 * there becomes part of the page.  Changes nothing.
 */
extern char *dashboard_page(void);

/* ------------------------------------------------------------------- doctor --- */

/* One finding; status is "ok", "warning" or "error"; hint may be NULL. */
typedef void (*DoctorSink) (const char *check, const char *status, const char *detail,
							const char *hint, void *arg);

/* Examines the installation, and calls sink(..., arg) for each finding.  Changes nothing. */
extern void doctor_examine(DoctorSink sink, void *arg);

/* ------------------------------------------------------------------ explain --- */

/*
 * Returns why a file is kept or condemned, as the object of cleanup_explain().
 * `file` is a path relative to the upload directory, or an absolute one below
 * it; ERROR for any other path.
 */
extern Jsonb *explain_file(const char *file);

/* ------------------------------------------------------------------ metrics --- */

/*
 * Puts a row (name, labels, value, help, type) into `rows` for each figure.
 * Cheap: reads no source and walks no directory.  A figure that is not known is
 * left out; a directory that is missing is no ERROR.
 */
extern void metrics_collect(Tuplestorestate *rows);

/*
 * For the triggers on cleanup_files and cleanup_runs: add the files, or runs,
 * that an UPDATE has brought to their end to cleanup_totals.
 */
extern void metrics_count_files(void);
extern void metrics_count_runs(void);

/* ------------------------------------------------------------------ missing --- */

/*
 * Puts a row (source, status, file_references, missing, examples) into `result`
 * for each source and status.  ERROR if the directory or a source cannot be
 * read whole.  Changes nothing; works on a standby.
 */
extern void missing_files(Tuplestorestate *result, TupleDesc desc);

#endif							/* AUDIO_CLEANUP_SHOW_H */
