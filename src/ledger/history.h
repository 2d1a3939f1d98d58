/*-------------------------------------------------------------------------
 *
 * ledger/history.h
 *	  Forgets old runs and their files.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_HISTORY_H
#define AUDIO_CLEANUP_HISTORY_H

#include "src/pg/extension.h"

/*
 * Forgets the next portion of the history that is older than
 * audio_cleanup.history_retention_days.  Returns whether more of that history
 * may be left.  The caller repeats the call until the result is false, each
 * time in a transaction of its own, and without the run lock.  A failure is a
 * WARNING, not an ERROR: no cleanup fails because of the history.  Needs SPI.
 */
extern bool history_prune(const Extension *extension);

#endif							/* AUDIO_CLEANUP_HISTORY_H */
