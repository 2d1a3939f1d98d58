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

/* What a night worker is to do; it comes in its bgw_extra. */
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

/* Register the launcher, if the library is being preloaded.  From _PG_init(). */
extern void launcher_init(void);

/*
 * The night worker of `job` could not begin, because another run or somebody's
 * lock is in the way: the launcher is to try again.
 */
extern void launcher_report_busy(const NightJob *job);

/* Main function; no argument. */
extern PGDLLEXPORT void cleanup_launcher_main(Datum unused);

#endif							/* AUDIO_CLEANUP_LAUNCHER_H */
