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
 * Remembers the values of the file columns of these sessions (text[]) of a
 * source, which a run is about to clear: see sources_clear().  Needs SPI.
 */
extern void cleared_remember(const Extension *extension, int64 run_id, const Source *source,
							 Datum sessions);

/*
 * Writes what stood in the columns of the sessions of `files` (`n`, which the
 * run `run_id` condemned and which are being restored, and so recorded) where
 * the columns still are NULL, and forgets that.  A value that refers to files
 * of its session, by the `rules`, comes back with one of these only.  Waits
 * for locks `wait_ms` milliseconds.  Returns the sessions (char *).  What does
 * not work is added to *errors (char *) and *n_errors: the files come back all
 * the same.  Needs SPI.
 */
extern List *cleared_restore(const Extension *extension, const KeyRules *rules, int64 run_id,
							 const LedgerFile *files, int n, int wait_ms, List **errors,
							 int64 *n_errors);

/*
 * Does as cleared_restore(), for the files of the run that were restored
 * earlier, where their columns could not be written then.
 */
extern List *cleared_retry(const Extension *extension, const KeyRules *rules, int64 run_id,
						   int wait_ms, List **errors, int64 *n_errors);

#endif							/* AUDIO_CLEANUP_CLEARED_H */
