/*-------------------------------------------------------------------------
 *
 * sources/cleared.h
 *	  What stood in the columns of sessions before they were cleared.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_CLEARED_H
#define AUDIO_CLEANUP_CLEARED_H

#include "nodes/pg_list.h"

#include "src/ledger/ledger.h"
#include "src/sources/sources.h"

/*
 * Remember the file columns of these sessions (text[]) of a source, which a
 * run is about to clear: see sources_clear().  Needs SPI.
 */
extern void cleared_remember(const Extension *extension, int64 run_id, const Source *source,
							 Datum sessions);

/*
 * Of the files that are being restored: write the columns of their sessions
 * again where they still are NULL, and forget them.  Returns the sessions
 * (char *).  What does not work is added to *errors and *n_errors: the files
 * come back all the same.  Needs SPI.
 */
extern List *cleared_restore(const Extension *extension, int64 run_id, const LedgerFile *files,
							 int n, int wait_ms, List **errors, int64 *n_errors);

/*
 * The same of files of the run that were restored earlier, where that was not
 * possible then.
 */
extern List *cleared_retry(const Extension *extension, int64 run_id, int wait_ms,
						   List **errors, int64 *n_errors);

#endif							/* AUDIO_CLEANUP_CLEARED_H */
