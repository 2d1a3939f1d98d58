/*-------------------------------------------------------------------------
 *
 * night/firing.c
 *	  The firings of a daily schedule, found by looking at the clock.
 *
 * All that is known of the time zone is what its clock shows when asked, so a
 * firing is searched for.  What the clock shows is counted in seconds as if
 * it were UTC; while the difference to the true time, the offset, is the same
 * at both ends of a step, the clock is taken to have run evenly in between,
 * and where it differs, the step is cut at the very second of the transition.
 * Beware of asking only whether the clock shows the time yet: at a fall-back
 * it may have shown it for a moment between two looks, and that is when the
 * firing was.
 *
 * What the search relies on: no two transitions within a step (in all of
 * tzdata there are never two within three days), and offsets of OFFSET_MAX
 * at most.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "src/night/firing.h"

#define HOUR_SECONDS	INT64CONST(3600)
#define DAY_SECONDS		INT64CONST(86400)

/* What a timestamp of PostgreSQL has room for, and no year 0. */
#define YEAR_MIN		1
#define YEAR_MAX		294276

/* Instants in those years, and no arithmetic on them comes near overflow. */
#define INSTANT_MIN		INT64CONST(-62135596800)	/* 0001-01-01 00:00:00 */
#define INSTANT_MAX		INT64CONST(9224318015999)	/* 294276-12-31 23:59:59 */

/* All zones of tzdata are closer to UTC; what POSIX allows in TZ is not. */
#define OFFSET_USUAL	(16 * HOUR_SECONDS)
#define OFFSET_MAX		(7 * DAY_SECONDS)

#define STEP			HOUR_SECONDS

/* What has more transitions within a search is no clock; there is one, if any. */
#define TRANSITIONS_MAX	8

/*
 * Firings are looked for this many days from what the clock shows.  One would
 * do, but for dates that never were and for dates that came twice.
 */
#define DAYS_AROUND		4

typedef struct Wall
{
	int			hour;			/* of the schedule */
	WallClockAt clock;
	void	   *zone;
} Wall;

/* An instant, and what the clock shows then, as if it were UTC. */
typedef struct Look
{
	int64		at;
	int64		shown;
} Look;

typedef enum DayResult
{
	DAY_FIRES,
	DAY_DOES_NOT_FIRE,			/* there is no such day */
	DAY_UNKNOWN					/* the clock cannot tell */
} DayResult;

/* Days since 1970-01-01 of a date of the Gregorian calendar. */
static int64
days_of_date(int year, int month, int day)
{
	/* of years that begin in March, so that the leap day is the last */
	int			march_year = year - (month <= 2);
	int			march_month = month > 2 ? month - 3 : month + 9;

	return (int64) march_year * 365 + march_year / 4 - march_year / 100 + march_year / 400 +
		(march_month * 153 + 2) / 5 + day - 1 - 719468;
}

static int64
day_of(int64 shown)
{
	return shown / DAY_SECONDS - (shown % DAY_SECONDS < 0);
}

static bool
is_sane(const WallClock *clock)
{
	return clock->year >= YEAR_MIN && clock->year <= YEAR_MAX &&
		clock->month >= 1 && clock->month <= 12 &&
		clock->day >= 1 && clock->day <= 31 &&
		clock->hour >= 0 && clock->hour <= 23 &&
		clock->minute >= 0 && clock->minute <= 59 &&
		clock->second >= 0 && clock->second <= 60;
}

static bool
look(const Wall *wall, int64 at, Look *result)
{
	WallClock	clock = {0};

	if (!wall->clock(at, wall->zone, &clock) || !is_sane(&clock))
		return false;
	result->at = at;
	/* a leap second is not yet the next minute */
	result->shown = days_of_date(clock.year, clock.month, clock.day) * DAY_SECONDS +
		clock.hour * HOUR_SECONDS + clock.minute * 60 + Min(clock.second, 59);
	return true;
}

static int64
offset_of(const Look *look_at)
{
	return look_at->shown - look_at->at;
}

/*
 * Move `to` back to the first instant at which the offset is not that of
 * `from` any more; if there is none, leave it alone.
 */
static bool
cut_at_transition(const Wall *wall, const Look *from, Look *to)
{
	int64		low = from->at;

	while (offset_of(to) != offset_of(from) && to->at - low > 1)
	{
		Look		middle;

		if (!look(wall, low + (to->at - low) / 2, &middle))
			return false;
		if (offset_of(&middle) == offset_of(from))
			low = middle.at;
		else
			*to = middle;
	}
	return true;
}

/* An instant before the clock shows `shown` for the first time. */
static bool
look_before(const Wall *wall, int64 shown, Look *result)
{
	int64		at;

	for (at = shown - OFFSET_USUAL; at >= shown - OFFSET_MAX - OFFSET_USUAL; at -= OFFSET_USUAL)
	{
		if (!look(wall, at, result))
			return false;
		if (result->shown < shown)
			return true;
	}
	return false;
}

/* The first instant at which the clock shows `shown` or anything later. */
static bool
find_first(const Wall *wall, int64 shown, Look *first)
{
	Look		from;
	Look		to;
	int			transitions = 0;

	if (!look_before(wall, shown, &from))
		return false;
	for (; from.at <= shown + OFFSET_MAX; from = to)
	{
		int64		ahead = shown - from.shown;

		if (!look(wall, from.at + STEP, &to) || !cut_at_transition(wall, &from, &to))
			return false;
		if (ahead < to.at - from.at)
		{
			first->at = from.at + ahead;
			first->shown = shown;
			return true;
		}
		if (to.shown >= shown)
		{
			*first = to;
			return true;
		}
		if (offset_of(&to) != offset_of(&from) && ++transitions > TRANSITIONS_MAX)
			return false;
	}
	return false;
}

/*
 * Does a day fire that was over when the clock first showed its hour?  Not if
 * it had not begun either: then it never was.  Nor if that instant is the
 * firing of a later day, which takes a clock that skips a day at noon.
 */
static DayResult
judge_skipped_hour(const Wall *wall, int64 day, int64 shown)
{
	Look		midnight;

	if (shown >= (day + 1) * DAY_SECONDS + wall->hour * HOUR_SECONDS)
		return DAY_DOES_NOT_FIRE;
	if (!find_first(wall, day * DAY_SECONDS, &midnight))
		return DAY_UNKNOWN;
	return day_of(midnight.shown) == day ? DAY_FIRES : DAY_DOES_NOT_FIRE;
}

static DayResult
find_firing(const Wall *wall, int64 day, Firing *firing)
{
	Look		first;

	if (!find_first(wall, day * DAY_SECONDS + wall->hour * HOUR_SECONDS, &first))
		return DAY_UNKNOWN;
	firing->at = first.at;
	firing->day = (int32) day;
	return day_of(first.shown) == day ? DAY_FIRES :
		judge_skipped_hour(wall, day, first.shown);
}

/* The date that the clock shows; false if there can be no firing. */
static bool
find_today(const Wall *wall, int64 now, int64 *day)
{
	Look		look_now;

	if (wall->hour < 0 || wall->hour > 23 ||
		now < INSTANT_MIN || now > INSTANT_MAX || !look(wall, now, &look_now))
		return false;
	*day = day_of(look_now.shown);
	return true;
}

/*
 * Days later than today may have fired, if the clock went back over midnight
 * since.
 */
bool
schedule_last(int64 now, int hour, WallClockAt clock, void *zone, Firing *firing)
{
	const Wall	wall = {hour, clock, zone};
	int64		today;
	int64		day;

	if (!find_today(&wall, now, &today))
		return false;
	for (day = today + DAYS_AROUND; day >= today - DAYS_AROUND; day--)
	{
		Firing		found;
		DayResult	result = find_firing(&wall, day, &found);

		if (result == DAY_UNKNOWN)
			return false;
		if (result == DAY_FIRES && found.at <= now)
		{
			*firing = found;
			return true;
		}
	}
	return false;
}

/* Of the days before today every one has fired. */
bool
schedule_next(int64 now, int hour, WallClockAt clock, void *zone, Firing *firing)
{
	const Wall	wall = {hour, clock, zone};
	int64		today;
	int64		day;

	if (!find_today(&wall, now, &today))
		return false;
	for (day = today; day <= today + DAYS_AROUND; day++)
	{
		Firing		found;
		DayResult	result = find_firing(&wall, day, &found);

		if (result == DAY_UNKNOWN)
			return false;
		if (result == DAY_FIRES && found.at > now)
		{
			*firing = found;
			return true;
		}
	}
	return false;
}
