/*-------------------------------------------------------------------------
 *
 * night/timetable.c
 *	  When the built-in schedule fires, and what this database knows of it.
 *
 * That the run of a day has begun is known by its row in cleanup_runs.  A
 * missed run is caught up only where the schedule was in force when it should
 * have been: who installs the extension at noon did not miss this morning's.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/timestamp.h"

#include "src/night/timetable.h"
#include "src/pg/compat.h"
#include "src/pg/progress.h"
#include "src/pg/sql.h"

#define EPOCH_DAYS	(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)

/* days looked ahead for one that has not run */
#define MAX_DAYS_AHEAD	8


/* ----------------------------------------------------------------- clocks --- */

static int64
unix_seconds(TimestampTz time)
{
	return time / USECS_PER_SEC - (time % USECS_PER_SEC < 0) + EPOCH_DAYS * INT64CONST(86400);
}

static bool
wall_clock(int64 seconds, void *zone, WallClock *clock)
{
	pg_time_t	time = seconds;
	struct pg_tm *tm = pg_localtime(&time, zone);

	if (tm == NULL)
		return false;
	clock->year = tm->tm_year + 1900;
	clock->month = tm->tm_mon + 1;
	clock->day = tm->tm_mday;
	clock->hour = tm->tm_hour;
	clock->minute = tm->tm_min;
	clock->second = tm->tm_sec;
	return true;
}

bool
timetable_last(const Schedule *schedule, TimestampTz now, Firing *firing)
{
	return schedule_last(unix_seconds(now), schedule->hour, wall_clock, schedule->zone, firing);
}

bool
timetable_next(const Schedule *schedule, TimestampTz now, Firing *firing)
{
	return schedule_next(unix_seconds(now), schedule->hour, wall_clock, schedule->zone, firing);
}

TimestampTz
timetable_time(const Firing *firing)
{
	return (firing->at - EPOCH_DAYS * INT64CONST(86400)) * USECS_PER_SEC;
}

int32
timetable_day(const Firing *firing)
{
	return firing->day - EPOCH_DAYS;
}


/* ----------------------------------------------------------------- tables --- */

TimestampTz
timetable_note(const Extension *extension, const Schedule *schedule, bool is_new)
{
	const SqlParameter parameters[] = {
		SQL_INT4(schedule->hour), SQL_TEXT(schedule->zone_name),
		{TIMESTAMPTZOID, TimestampTzGetDatum(settings_now(schedule)), false},
		SQL_BOOL(is_new)
	};
	TimestampTz since;

	owner_query(extension, lengthof(parameters), parameters,
				"INSERT INTO @extschema@.cleanup_schedule AS s (schedule_hour, timezone, since)"
				" VALUES ($1, $2, $3)"
				" ON CONFLICT (only_row) DO UPDATE SET schedule_hour = $1, timezone = $2,"
				"  since = CASE WHEN s.schedule_hour = $1 AND s.timezone = $2 AND NOT $4"
				"   THEN LEAST(s.since, $3) ELSE $3 END"
				" RETURNING since");
	since = DatumGetTimestampTz(sql_value(0, 1));
	SPI_freetuptable(SPI_tuptable);
	return since;
}

static bool
has_run(const Extension *extension, const char *condition, SqlParameter parameter)
{
	bool		has;

	has = owner_query(extension, 1, &parameter,
					  psprintf("SELECT 1 FROM @extschema@.cleanup_runs WHERE %s LIMIT 1", condition)) > 0;
	SPI_freetuptable(SPI_tuptable);
	return has;
}

bool
timetable_has_run(const Extension *extension, int32 day)
{
	SqlParameter parameter = {DATEOID, DateADTGetDatum(day), false};

	return has_run(extension, "scheduled_for = $1", parameter);
}

bool
timetable_has_started(const Extension *extension)
{
	SqlParameter parameter = {TIMESTAMPTZOID, TimestampTzGetDatum(PgStartTime), false};

	return has_run(extension, "trigger = 'startup' AND started_at >= $1", parameter);
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

/* A day that has run already does not run again, whatever the clock says. */
static bool
find_day(const Extension *extension, const Schedule *schedule, Firing *firing)
{
	TimestampTz after = settings_now(schedule);
	int			i;

	for (i = 0; i < MAX_DAYS_AHEAD; i++)
	{
		if (!timetable_next(schedule, after, firing))
			return false;
		if (!timetable_has_run(extension, timetable_day(firing)))
			return true;
		after = timetable_time(firing);
	}
	return false;
}

NextRun
timetable_next_run(const Extension *extension)
{
	Schedule   *schedule = settings_schedule();
	NextRun		next = {false, 0, why_never(schedule), schedule->zone_name};
	Firing		firing;

	if (next.reason == NULL && find_day(extension, schedule, &firing))
	{
		next.is_known = true;
		next.at = timetable_time(&firing);
		next.reason = psprintf("every day at %02d:00", schedule->hour);
	}
	else if (next.reason == NULL)
		next.reason = "the days to come have run already: was the clock set back?";
	return next;
}
