/*-------------------------------------------------------------------------
 *
 * night/timetable.h
 *	  When the built-in schedule fires, and what this database knows of it.
 *
 * schedule.h has the arithmetic; here are the settings, the server's time
 * zones and clock, and the tables.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_TIMETABLE_H
#define AUDIO_CLEANUP_TIMETABLE_H

#include "datatype/timestamp.h"

#include "src/night/firing.h"
#include "src/pg/extension.h"
#include "src/settings.h"

/* The last firing not after `now`, and the next one after it; false: never. */
extern bool timetable_last(const Schedule *schedule, TimestampTz now, Firing *firing);
extern bool timetable_next(const Schedule *schedule, TimestampTz now, Firing *firing);

extern TimestampTz timetable_time(const Firing *firing);

/* The firing's day as a PostgreSQL date. */
extern int32 timetable_day(const Firing *firing);

/*
 * Since when is this database cleaned by this schedule?  If hour or time zone
 * are not those that were noted last, or with `is_new`: since now, which is
 * noted.  Needs SPI.
 */
extern TimestampTz timetable_note(const Extension *extension, const Schedule *schedule,
								  bool is_new);

/* Has the run of that day (a PostgreSQL date) begun?  Needs SPI. */
extern bool timetable_has_run(const Extension *extension, int32 day);

/* Has there been a run at the start of this server?  Needs SPI. */
extern bool timetable_has_started(const Extension *extension);

/* What cleanup_next_run() says. */
typedef struct NextRun
{
	bool		is_known;
	TimestampTz at;
	const char *reason;			/* why then, or why never */
	const char *zone_name;
} NextRun;

extern NextRun timetable_next_run(const Extension *extension);

#endif							/* AUDIO_CLEANUP_TIMETABLE_H */
