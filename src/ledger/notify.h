/*-------------------------------------------------------------------------
 *
 * ledger/notify.h
 *	  Telling those who LISTEN that a run is finished.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_NOTIFY_H
#define AUDIO_CLEANUP_NOTIFY_H

#include "src/pg/extension.h"

/*
 * Lets the commit of the current transaction, and of the subtransactions
 * around, notify listeners how the run ended; does nothing if the run has not
 * ended.  A transaction that is prepared tells nobody.  Needs SPI.
 */
extern void notify_run(const Extension *extension, int64 run_id);

#endif							/* AUDIO_CLEANUP_NOTIFY_H */
