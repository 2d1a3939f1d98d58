/*-------------------------------------------------------------------------
 *
 * night/night_worker.h
 *	  The background worker that cleans one database by the schedule.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_NIGHT_WORKER_H
#define AUDIO_CLEANUP_NIGHT_WORKER_H

#include "src/run/run.h"

/* What cleanup_run() is to do when the night worker calls it; NULL elsewhere. */
extern RunRequest *night_worker_request(void);

/* Main function; its job is in bgw_extra, see launcher.h. */
extern PGDLLEXPORT void cleanup_night_worker_main(Datum unused);

#endif							/* AUDIO_CLEANUP_NIGHT_WORKER_H */
