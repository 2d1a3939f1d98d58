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

/* Main function; its job is in bgw_extra, see launcher.h. */
extern PGDLLEXPORT void cleanup_night_worker_main(Datum unused);

#endif							/* AUDIO_CLEANUP_NIGHT_WORKER_H */
