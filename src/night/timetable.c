/*-------------------------------------------------------------------------
 *
 * night/timetable.c
 *	  The times of the built-in schedule, and what this database has recorded.
 *
 * A row in cleanup_runs records that the run for a day has begun.  A missed
 * run is caught up only if the schedule was in force at the time of the run:
 * a database in which the extension is installed at noon has not missed the
 * run of this morning.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/datetime.h"

#include "src/night/timetable.h"
#include "src/pg/compat.h"
#include "src/pg/progress.h"
#include "src/pg/sql.h"

/* number of days among which a day without a run is searched */
#define MAX_DAYS_AHEAD	8


/* ---------------------------------------------------------------- firings --- */

static DateADT
day_at(const Schedule *schedule, TimestampTz time)
{
	pg_time_t	seconds = timestamptz_to_time_t(time);
	struct pg_tm *tm = pg_localtime(&seconds, schedule->zone);

	return date2j(tm->tm_year + 1900, tm->tm_mon + 1, tm->tm_mday) - POSTGRES_EPOCH_JDATE;
}

/*
 * Returns the time at which the schedule fires for `day`.  The server's rules
 * decide about an hour that the clocks skip (the schedule fires at the moment
 * of the skip) or show twice (the schedule fires the second time).  A day that
 * was skipped as a whole has the time of the following day.
 */
static Firing
firing_of(const Schedule *schedule, DateADT day)
{
	Firing		firing = {.day = day};
	struct pg_tm tm = {.tm_hour = schedule->hour};
	int			offset;

	j2date(day + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
	offset = DetermineTimeZoneOffset(&tm, schedule->zone);
	(void) tm2timestamp(&tm, 0, &offset, &firing.at);
	return firing;
}

/* Searches back from tomorrow.  If a day was skipped, the search goes back beyond yesterday. */
Firing
timetable_last(const Schedule *schedule, TimestampTz now)
{
	DateADT		day = day_at(schedule, now) + 1;
	Firing		firing = {.at = DT_NOBEGIN};

	if (schedule->hour >= 0)
		while ((firing = firing_of(schedule, day)).at > now)
			day--;
	return firing;
}

/*
 * Searches forward from yesterday, whose hour may have been skipped together
 * with midnight.  A day that was skipped has the time of the following day,
 * and the following day counts.
 */
Firing
timetable_next(const Schedule *schedule, TimestampTz now)
{
	DateADT		day = day_at(schedule, now) - 1;
	Firing		firing = {.at = DT_NOEND};

	if (schedule->hour < 0)
		return firing;
	while ((firing = firing_of(schedule, day)).at <= now)
		day++;
	return timetable_last(schedule, firing.at);
}


/* ----------------------------------------------------------------- tables --- */

TimestampTz
timetable_note(const Extension *extension, const Schedule *schedule, bool is_new)
{
	return DatumGetTimestampTz(owner_value(extension,
										   SQL_ARGS(SQL_INT4(schedule->hour), SQL_TEXT(schedule->zone_name),
													SQL_VALUE(TIMESTAMPTZOID, TimestampTzGetDatum(settings_now(schedule))),
													SQL_BOOL(is_new)),
										   "INSERT INTO @extschema@.cleanup_schedule AS s (schedule_hour, timezone, since)"
										   " VALUES ($1, $2, $3)"
										   " ON CONFLICT (only_row) DO UPDATE SET schedule_hour = $1, timezone = $2,"
										   "  since = CASE WHEN s.schedule_hour = $1 AND s.timezone = $2 AND NOT $4"
										   "   THEN LEAST(s.since, $3) ELSE $3 END"
										   " RETURNING since"));
}

bool
timetable_has_run(const Extension *extension, DateADT day)
{
	return owner_finds(extension, SQL_ARGS(SQL_VALUE(DATEOID, DateADTGetDatum(day))),
					   "SELECT FROM @extschema@.cleanup_runs WHERE scheduled_for = $1 LIMIT 1");
}

bool
timetable_has_started(const Extension *extension)
{
	return owner_finds(extension, SQL_ARGS(SQL_VALUE(TIMESTAMPTZOID, TimestampTzGetDatum(PgStartTime))),
					   "SELECT FROM @extschema@.cleanup_runs WHERE trigger = 'startup' AND started_at >= $1 LIMIT 1");
}


/* --------------------------------------------------------------- next run --- */

static const char *
why_never(const Schedule *schedule)
{
	if (!progress_is_shared())
		return "audio_cleanup is not in shared_preload_libraries";
	if (RecoveryInProgress())
		return "the server is in recovery; the schedule begins with its promotion";
	if (!settings_is_listed(schedule->databases, get_database_name(MyDatabaseId)))
		return psprintf("database \"%s\" is not in audio_cleanup.databases",
						get_database_name(MyDatabaseId));
	if (schedule->hour < 0)
		return "audio_cleanup.cleanup_schedule_hour is -1";
	return NULL;
}

/* Finds the next day without a run.  A day that has a run does not run again, even if the clock was set back. */
NextRun
timetable_next_run(const Extension *extension)
{
	Schedule   *schedule = settings_schedule();
	NextRun		next = {false, 0, why_never(schedule), schedule->zone_name};
	Firing		firing = {.at = settings_now(schedule)};

	if (next.reason != NULL)
		return next;
	for (int i = 0; i < MAX_DAYS_AHEAD && !next.is_known; i++)
	{
		firing = timetable_next(schedule, firing.at);
		next.is_known = !timetable_has_run(extension, firing.day);
	}
	next.at = firing.at;
	next.reason = next.is_known ? psprintf("every day at %02d:00", schedule->hour) :
		"the next days have run already; the clock may have been set back";
	return next;
}
