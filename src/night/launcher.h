/*-------------------------------------------------------------------------
 *
 * night/launcher.h
 *	  Knows when, and starts the process that cleans.
 *
 * The launcher is a background worker that knows the schedule, and starts a
 * night worker for each database that is to be cleaned.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_LAUNCHER_H
#define AUDIO_CLEANUP_LAUNCHER_H

#include "postmaster/bgworker.h"

#include "src/night/timetable.h"

/* The order to a night worker, in its bgw_extra. */
typedef struct NightJob
{
	uint64		number;			/* number of this try; later tries have higher
								 * numbers */
	Firing		firing;			/* the last firing */
	bool		first_look;		/* first look at this database or schedule:
								 * drain the runs that are not finished, and
								 * catch up a missed run */
	bool		server_started; /* the server has just started */
	int			slot;			/* slot for launcher_report_busy() */
	bool		delay_told;		/* the log has the reason for trying again */
	char		database[NAMEDATALEN];
} NightJob;

StaticAssertDecl(sizeof(NightJob) <= BGW_EXTRALEN, "a job must fit into bgw_extra");

/* Registers the launcher if the library is being preloaded. _PG_init() calls this once. */
extern void launcher_init(void);

/*
 * Tells the launcher to try `job` again, because another run or a lock is in
 * the way.  Never raises an ERROR; does not need SPI.  Only a night worker
 * may call this.
 */
extern void launcher_report_busy(const NightJob *job);

/* The main functions of the two workers.  The night worker finds its job in bgw_extra. */
extern PGDLLEXPORT void cleanup_launcher_main(Datum unused);
extern PGDLLEXPORT void cleanup_night_worker_main(Datum unused);

#endif							/* AUDIO_CLEANUP_LAUNCHER_H */
