/*-------------------------------------------------------------------------
 *
 * ledger/history.h
 *	  Old runs and their files are forgotten.
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
 * audio_cleanup.history_retention_days.  The caller calls again until false is
 * returned, each time in a transaction of its own, outside of the run lock.  A
 * failure is a WARNING: nobody's cleanup fails because of it.  Needs SPI.
 */
extern bool history_prune(const Extension *extension);

#endif							/* AUDIO_CLEANUP_HISTORY_H */
