/*-------------------------------------------------------------------------
 *
 * run/drain_worker.h
 *	  The background worker that finishes what committed runs have left.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_DRAIN_WORKER_H
#define AUDIO_CLEANUP_DRAIN_WORKER_H

/* The main function of the worker.  `database` is the OID of the database. */
extern PGDLLEXPORT void cleanup_drain_worker_main(Datum database);

#endif							/* AUDIO_CLEANUP_DRAIN_WORKER_H */
