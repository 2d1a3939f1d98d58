/*-------------------------------------------------------------------------
 *
 * sources/cleared.h
 *	  Keeps, and writes back, the content of session columns that were cleared.
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
 * Records the values of the file columns of these sessions (char *) of a source,
 * which the run `run_id` is about to clear: see sources_clear().  Needs SPI; any
 * failure is an ERROR.
 */
extern void cleared_remember(const Extension *extension, int64 run_id, const Source *source,
							 List *sessions);

/*
 * Writes the recorded values back to the columns of the sessions of the `n`
 * files, if the columns still are NULL, and forgets those values.  The run
 * `run_id` condemned the files, which are of the kind LEDGER_RETURNING; an
 * earlier call may have failed to write their columns.  A value that refers to
 * files of its session, by the `rules`, comes back only with one of these
 * files.  Waits for locks at most `wait_ms` milliseconds.  Returns the sessions
 * (char *).  Adds failures to *errors (char *) and *n_errors; a failure does
 * not keep the files from coming back.  Needs SPI.
 */
extern List *cleared_restore(const Extension *extension, const KeyRules *rules, int64 run_id,
							 const LedgerFile *files, int n, int wait_ms, List **errors,
							 int64 *n_errors);

#endif							/* AUDIO_CLEANUP_CLEARED_H */
