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
	int64		number;			/* of this launcher's jobs */
	Firing		firing;			/* the last one */
	bool		has_firing;
	bool		first_look;		/* at this database and schedule: drain what
								 * was left, and catch up what was missed */
	bool		server_started; /* just now */
	int			slot;			/* for its report */
	char		database[NAMEDATALEN];
} NightJob;

StaticAssertDecl(sizeof(NightJob) <= BGW_EXTRALEN, "a job must fit into bgw_extra");

/* How it ended. */
typedef enum NightOutcome
{
	NIGHT_FAILED,				/* the worker has said why in the log */
	NIGHT_DONE,
	NIGHT_BUSY					/* another run, or somebody's lock, is in the
								 * way: try again */
} NightOutcome;

/* Register the launcher, if the library is being preloaded.  From _PG_init(). */
extern void launcher_init(void);

/*
 * A night worker reports how its job ended, and the reason (valid in the
 * server's encoding, cut if it is long) if that is NIGHT_BUSY.
 */
extern void launcher_report(const NightJob *job, NightOutcome outcome, const char *reason);

/* Main function; no argument. */
extern PGDLLEXPORT void cleanup_launcher_main(Datum unused);

#endif							/* AUDIO_CLEANUP_LAUNCHER_H */
