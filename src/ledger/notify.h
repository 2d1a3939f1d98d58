/*-------------------------------------------------------------------------
 *
 * ledger/notify.h
 *	  Notifies listeners (LISTEN) that a run has finished.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_NOTIFY_H
#define AUDIO_CLEANUP_NOTIFY_H

#include "src/pg/extension.h"

/*
 * Makes the commit of the current transaction notify listeners how the run
 * `run_id` has ended.  Does nothing if the run has not ended.  A rollback to
 * an earlier savepoint takes the notice back, and PREPARE TRANSACTION notifies
 * nobody.  Needs SPI; any failure is an ERROR.
 */
extern void notify_run(const Extension *extension, int64 run_id);

#endif							/* AUDIO_CLEANUP_NOTIFY_H */
