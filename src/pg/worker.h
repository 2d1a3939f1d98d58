/*-------------------------------------------------------------------------
 *
 * pg/worker.h
 *	  What our background workers have in common.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_WORKER_H
#define AUDIO_CLEANUP_WORKER_H

#include "postmaster/bgworker.h"

/* Fill in what all workers share; `main` is the name of a function. */
extern void worker_describe(BackgroundWorker *worker, const char *main, const char *type);

/* Signals; to be called first. */
extern void worker_receive_signals(void);

/* After the connection: settings made for users are not for us. */
extern void worker_override_settings(void);

/* Begin and end a transaction, with SPI and a snapshot. */
extern void worker_begin(void);
extern void worker_commit(void);

/* Between two transactions: interrupts, and a reload of the configuration. */
extern void worker_look_up(void);

#endif							/* AUDIO_CLEANUP_WORKER_H */
