/*-------------------------------------------------------------------------
 *
 * pg/worker.h
 *	  Functions that all our background workers use.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_WORKER_H
#define AUDIO_CLEANUP_WORKER_H

#include "postmaster/bgworker.h"

#include "src/pg/extension.h"

/*
 * Fills in the fields of `worker` that all our workers share.  `main` is the
 * name of the worker's function, `type` its name for people.  Never raises an
 * ERROR; does not need SPI.
 */
extern void worker_describe(BackgroundWorker *worker, const char *main, const char *type);

/*
 * Installs the handlers of signals, connects to the database with the name
 * `name` or, if `name` is NULL, with the OID `database`, and overrides settings
 * that were made for the sessions of users.  A worker calls this first.
 */
extern void worker_connect(const char *name, Oid database);

/*
 * worker_begin() begins a transaction, with SPI and a snapshot.
 * worker_commit() commits the transaction.  A failure is an ERROR, which ends
 * the worker unless the worker catches it.
 */
extern void worker_begin(void);
extern void worker_commit(void);

/*
 * Does the work of worker_begin().  Returns the extension, which is allocated
 * in `context`, or, if `context` is NULL, lives as long as the transaction;
 * returns NULL if the extension is gone.
 */
extern Extension *worker_begin_in(MemoryContext context);

/*
 * Takes interrupts, and reloads the configuration if the postmaster has asked
 * for a reload.  Must be called between two transactions.
 */
extern void worker_look_up(void);

/*
 * Must be called in PG_CATCH().  Makes `context` the current memory context,
 * writes the error to the server log, and rolls the transaction back.
 */
extern void worker_give_up(MemoryContext context);

#endif							/* AUDIO_CLEANUP_WORKER_H */
