/*-------------------------------------------------------------------------
 *
 * night/timetable.h
 *	  When the built-in schedule fires, and what this database knows of it.
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

/* The moment at which the schedule fires for one day, and that day. */
typedef struct Firing
{
	TimestampTz at;
	DateADT		day;			/* in the time zone of the schedule */
} Firing;

/*
 * Set *firing to the last firing of `schedule` that is not after `now`, or to
 * the first one after `now`.  They return false, and leave *firing alone, if
 * the schedule has no hour.
 */
extern bool timetable_last(const Schedule *schedule, TimestampTz now, Firing *firing);
extern bool timetable_next(const Schedule *schedule, TimestampTz now, Firing *firing);

/*
 * Returns since when this database is cleaned by `schedule`.  If hour or time
 * zone are not those that were noted last, or with `is_new`, that is now, and
 * is noted.  Needs SPI.
 */
extern TimestampTz timetable_note(const Extension *extension, const Schedule *schedule,
								  bool is_new);

/* Returns whether the run of `day` has begun.  Needs SPI. */
extern bool timetable_has_run(const Extension *extension, DateADT day);

/* Returns whether there has been a run at the start of this server.  Needs SPI. */
extern bool timetable_has_started(const Extension *extension);

/* The result of cleanup_next_run(). */
typedef struct NextRun
{
	bool		is_known;
	TimestampTz at;
	const char *reason;			/* why then, or why never */
	const char *zone_name;
} NextRun;

/* Returns when the schedule cleans this database next.  Needs SPI. */
extern NextRun timetable_next_run(const Extension *extension);

#endif							/* AUDIO_CLEANUP_TIMETABLE_H */
