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

/* Fills in the fields that all workers share; `main` is the name of a function. */
extern void worker_describe(BackgroundWorker *worker, const char *main, const char *type);

/* Installs the handlers of signals; called first. */
extern void worker_receive_signals(void);

/* Undoes settings that were made for the sessions of users; called after the connection. */
extern void worker_override_settings(void);

/* Begin and end a transaction, with SPI and a snapshot. */
extern void worker_begin(void);
extern void worker_commit(void);

/* Takes interrupts, and reloads the configuration if asked to; between two transactions. */
extern void worker_look_up(void);

#endif							/* AUDIO_CLEANUP_WORKER_H */
