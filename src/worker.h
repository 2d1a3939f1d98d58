/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  Background workers.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_WORKER_H
#define AUDIO_CLEANUP_WORKER_H

/*
 * Start a worker that drains the current database: it waits for the run lock
 * that the caller's transaction holds.  Where there is no free slot, a
 * WARNING.  Safe before commit; not after it.
 */
extern void worker_start_drain(void);

/* Entry point of that worker; the argument is the OID of the database. */
extern PGDLLEXPORT void cleanup_drain_worker_main(Datum database);

#endif							/* AUDIO_CLEANUP_WORKER_H */
