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
 * Entry point of the worker that at_commit_start_worker() starts; the argument
 * is the OID of the database.
 */
extern PGDLLEXPORT void cleanup_drain_worker_main(Datum database);

#endif							/* AUDIO_CLEANUP_WORKER_H */
