/*-------------------------------------------------------------------------
 *
 * night/timetable.h
 *	  The times of the built-in schedule, and what this database has recorded.
 *
 * A failure in the database is an ERROR.  Times are read from the schedule's
 * clock: see settings_now().
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_TIMETABLE_H
#define AUDIO_CLEANUP_TIMETABLE_H

#include "utils/date.h"
#include "utils/timestamp.h"

#include "src/pg/extension.h"
#include "src/settings.h"

/* A time at which the schedule fires, and the day for which it fires. */
typedef struct Firing
{
	TimestampTz at;
	DateADT		day;			/* day in the time zone of the schedule */
} Firing;

/*
 * timetable_last() returns the last firing of `schedule` that is not after
 * `now`, and timetable_next() the first firing after `now`.  If the schedule
 * has no hour, `at` is -infinity, and infinity.  Neither function needs SPI or
 * raises an ERROR.
 */
extern Firing timetable_last(const Schedule *schedule, TimestampTz now);
extern Firing timetable_next(const Schedule *schedule, TimestampTz now);

/*
 * Returns the time since which this database is cleaned by `schedule`.  If
 * the database has recorded another hour or time zone, or with `is_new`, that
 * time is now, and is recorded.  Needs SPI.
 */
extern TimestampTz timetable_note(const Extension *extension, const Schedule *schedule,
								  bool is_new);

/* Returns whether the run for `day` has begun.  Needs SPI. */
extern bool timetable_has_run(const Extension *extension, DateADT day);

/* Returns whether this server has made a run at its start.  Needs SPI. */
extern bool timetable_has_started(const Extension *extension);

/* The result of cleanup_next_run(). */
typedef struct NextRun
{
	bool		is_known;
	TimestampTz at;
	const char *reason;			/* reason for that time, or for never */
	const char *zone_name;
} NextRun;

/*
 * Returns the time at which the schedule cleans this database next, with
 * texts in the current memory context.  Needs SPI.
 */
extern NextRun timetable_next_run(const Extension *extension);

#endif							/* AUDIO_CLEANUP_TIMETABLE_H */
