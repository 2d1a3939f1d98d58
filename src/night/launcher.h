/*-------------------------------------------------------------------------
 *
 * night/launcher.h
 *	  The background worker that knows when, and starts one that cleans.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_LAUNCHER_H
#define AUDIO_CLEANUP_LAUNCHER_H

#include "postmaster/bgworker.h"

#include "src/night/timetable.h"

/* The order that a night worker is started with, in its bgw_extra. */
typedef struct NightJob
{
	uint64		number;			/* of this try; later ones are higher */
	Firing		firing;			/* the last one */
	bool		has_firing;
	bool		first_look;		/* at this database and schedule: drain what
								 * was left, and catch up what was missed */
	bool		server_started; /* just now */
	int			slot;			/* for its report */
	bool		delay_told;		/* the log has said why it is tried again */
	char		database[NAMEDATALEN];
} NightJob;

StaticAssertDecl(sizeof(NightJob) <= BGW_EXTRALEN, "a job must fit into bgw_extra");

/* Registers the launcher, if the library is being preloaded; called from _PG_init(). */
extern void launcher_init(void);

/* Tells the launcher to try `job` again, because another run or somebody's lock is in the way. */
extern void launcher_report_busy(const NightJob *job);

/* The main functions of the two workers; the night worker finds its job in bgw_extra. */
extern PGDLLEXPORT void cleanup_launcher_main(Datum unused);
extern PGDLLEXPORT void cleanup_night_worker_main(Datum unused);

#endif							/* AUDIO_CLEANUP_LAUNCHER_H */
