/*-------------------------------------------------------------------------
 *
 * night/firing.h
 *	  When does a daily run fire?
 *
 * A schedule is an hour of a clock on some wall.  The firing of day D is the
 * first instant at which that clock shows D hour:00:00 or anything later:
 *
 *	an hour that is skipped		fires when the clock skips it, even if that
 *								takes it into the next day
 *	an hour that comes twice	fires the first time only
 *	a date that never was		does not fire: the clock went from the day
 *								before it to the day after
 *
 * So every date there was fires exactly once, at a time of its own: from one
 * firing to the next both `day` and `at` grow.
 *
 * Whoever remembers the last `day` he has seen to runs at most once a day,
 * whatever happens to the clock; who remembers only `at` does not, because
 * another time zone gives the same day another instant.
 *
 * Pure functions: no SQL, no settings, no errors raised, no memory.  They do
 * not know the time zone, nor what time it is: both are arguments, and the
 * same arguments give the same answer.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SCHEDULE_H
#define AUDIO_CLEANUP_SCHEDULE_H

/* the hour of a schedule that never fires */
#define SCHEDULE_NEVER		(-1)

typedef struct WallClock
{
	int			year;
	int			month;			/* 1-12 */
	int			day;			/* 1-31 */
	int			hour;
	int			minute;
	int			second;
} WallClock;

/*
 * What does a clock on the wall show at `seconds` since 1970-01-01 UTC?
 * False if it cannot be told.  It is asked about some days around `now`.
 */
typedef bool (*WallClockAt) (int64 seconds, void *zone, WallClock *clock);

typedef struct Firing
{
	int64		at;				/* seconds since 1970-01-01 UTC */
	int32		day;			/* the date on the wall that it belongs to, in
								 * days since 1970-01-01 */
} Firing;

/*
 * The last firing of the daily schedule at `hour` (0-23) that is not after
 * `now`.  False, and *firing untouched, if there is none: the hour is
 * SCHEDULE_NEVER or no hour at all, or the clock cannot tell.
 */
extern bool schedule_last(int64 now, int hour, WallClockAt clock, void *zone,
						  Firing *firing);

/* The first one after `now`; false as above. */
extern bool schedule_next(int64 now, int hour, WallClockAt clock, void *zone,
						  Firing *firing);

#endif							/* AUDIO_CLEANUP_SCHEDULE_H */
