/*-------------------------------------------------------------------------
 *
 * test_schedule.c
 *	  When a daily schedule fires, by the clocks of the world.
 *
 * Tables first, for which the system's own tzdata is the clock; what they say
 * of the past holds for any tzdata of the last years, and what they say of
 * the future holds until a government decides otherwise.  Then clocks that
 * are made up, to be as odd as they can be.  Then properties, from a fixed
 * seed, and a comparison with every second of the days around transitions.
 *
 * All instants are UTC, all days those of the clock on the wall.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <limits.h>
#include <time.h>
#include <unistd.h>

#include "src/night/firing.h"
#include "tap.h"

#define SEED				20260731
#define DAY_SECONDS			86400
#define HOUR_SECONDS		3600

/* more looks at the clock than one question may take */
#define LOOKS_MAX			10000

/* the days around a transition that are compared second by second */
#define WINDOW_DAYS			4
#define WINDOW_SECONDS		(WINDOW_DAYS * DAY_SECONDS)

/* One firing, and whether it is where the neighbouring seconds say it is. */
typedef struct FiringCase
{
	const char *zone;
	int			hour;
	const char *day;
	const char *at;				/* NULL: this day does not fire */
} FiringCase;

/* The firing before and after an instant. */
typedef struct NowCase
{
	const char *zone;
	const char *now;
	int			hour;
	const char *last_at;
	const char *last_day;
	const char *next_at;
	const char *next_day;
} NowCase;

typedef struct Transition
{
	const char *zone;
	const char *at;				/* about */
} Transition;

static const FiringCase firing_cases[] = {
	{"UTC", 0, "1970-01-01", "1970-01-01 00:00:00"},
	{"UTC", 3, "2026-03-29", "2026-03-29 03:00:00"},
	{"UTC", 23, "2026-12-31", "2026-12-31 23:00:00"},
	{"UTC", 0, "2027-01-01", "2027-01-01 00:00:00"},
	{"UTC", 3, "2028-02-28", "2028-02-28 03:00:00"},
	{"UTC", 3, "2028-02-29", "2028-02-29 03:00:00"},
	{"UTC", 3, "2028-03-01", "2028-03-01 03:00:00"},
	{"UTC", 3, "2000-02-29", "2000-02-29 03:00:00"},
	{"UTC", 3, "2100-02-28", "2100-02-28 03:00:00"},
	{"UTC", 3, "2100-03-01", "2100-03-01 03:00:00"},
	{"UTC", 3, "1969-12-31", "1969-12-31 03:00:00"},
	{"UTC", 12, "0001-06-01", "0001-06-01 12:00:00"},
	{"UTC", 12, "9999-12-31", "9999-12-31 12:00:00"},

	/* an hour that is missing, and its neighbours */
	{"Europe/Berlin", 0, "2026-03-29", "2026-03-28 23:00:00"},
	{"Europe/Berlin", 1, "2026-03-29", "2026-03-29 00:00:00"},
	{"Europe/Berlin", 2, "2026-03-28", "2026-03-28 01:00:00"},
	{"Europe/Berlin", 2, "2026-03-29", "2026-03-29 01:00:00"},
	{"Europe/Berlin", 2, "2026-03-30", "2026-03-30 00:00:00"},
	{"Europe/Berlin", 3, "2026-03-29", "2026-03-29 01:00:00"},
	{"Europe/Berlin", 4, "2026-03-29", "2026-03-29 02:00:00"},
	{"Europe/Berlin", 23, "2026-03-29", "2026-03-29 21:00:00"},
	{"America/New_York", 1, "2026-03-08", "2026-03-08 06:00:00"},
	{"America/New_York", 2, "2026-03-08", "2026-03-08 07:00:00"},
	{"America/New_York", 3, "2026-03-08", "2026-03-08 07:00:00"},
	{"America/New_York", 0, "2026-03-09", "2026-03-09 04:00:00"},

	/* an hour that comes twice, and its neighbours */
	{"Europe/Berlin", 1, "2026-10-25", "2026-10-24 23:00:00"},
	{"Europe/Berlin", 2, "2026-10-24", "2026-10-24 00:00:00"},
	{"Europe/Berlin", 2, "2026-10-25", "2026-10-25 00:00:00"},
	{"Europe/Berlin", 2, "2026-10-26", "2026-10-26 01:00:00"},
	{"Europe/Berlin", 3, "2026-10-25", "2026-10-25 02:00:00"},
	{"America/New_York", 0, "2026-11-01", "2026-11-01 04:00:00"},
	{"America/New_York", 1, "2026-11-01", "2026-11-01 05:00:00"},
	{"America/New_York", 2, "2026-11-01", "2026-11-01 07:00:00"},
	{"America/New_York", 23, "2026-11-01", "2026-11-02 04:00:00"},

	/* by half an hour: at 02:00 it is 01:30, and at 02:00 it is 02:30 */
	{"Australia/Lord_Howe", 1, "2026-04-05", "2026-04-04 14:00:00"},
	{"Australia/Lord_Howe", 2, "2026-04-05", "2026-04-04 15:30:00"},
	{"Australia/Lord_Howe", 3, "2026-04-05", "2026-04-04 16:30:00"},
	{"Australia/Lord_Howe", 1, "2026-10-04", "2026-10-03 14:30:00"},
	{"Australia/Lord_Howe", 2, "2026-10-04", "2026-10-03 15:30:00"},
	{"Australia/Lord_Howe", 3, "2026-10-04", "2026-10-03 16:00:00"},

	/* by two hours */
	{"Antarctica/Troll", 1, "2026-03-29", "2026-03-29 01:00:00"},
	{"Antarctica/Troll", 2, "2026-03-29", "2026-03-29 01:00:00"},
	{"Antarctica/Troll", 3, "2026-03-29", "2026-03-29 01:00:00"},
	{"Antarctica/Troll", 1, "2026-10-25", "2026-10-24 23:00:00"},
	{"Antarctica/Troll", 2, "2026-10-25", "2026-10-25 00:00:00"},
	{"Antarctica/Troll", 3, "2026-10-25", "2026-10-25 03:00:00"},

	/* midnight is missing */
	{"America/Havana", 0, "2022-03-13", "2022-03-13 05:00:00"},
	{"America/Havana", 1, "2022-03-13", "2022-03-13 05:00:00"},
	{"America/Havana", 23, "2022-03-12", "2022-03-13 04:00:00"},
	{"America/Havana", 23, "2022-03-13", "2022-03-14 03:00:00"},
	{"Asia/Beirut", 0, "2022-03-27", "2022-03-26 22:00:00"},
	{"Asia/Beirut", 23, "2022-03-26", "2022-03-26 21:00:00"},
	{"America/Santiago", 0, "2022-09-11", "2022-09-11 04:00:00"},
	{"America/Santiago", 23, "2022-09-10", "2022-09-11 03:00:00"},
	{"Atlantic/Azores", 0, "2026-03-29", "2026-03-29 01:00:00"},
	{"Africa/Monrovia", 0, "1972-01-07", "1972-01-07 00:44:30"},
	{"Africa/Monrovia", 1, "1972-01-07", "1972-01-07 01:00:00"},
	{"America/St_Johns", 0, "1993-04-04", "1993-04-04 03:30:00"},
	{"America/St_Johns", 1, "1993-04-04", "1993-04-04 03:31:00"},

	/* midnight, or the hour before it, comes twice */
	{"America/Havana", 0, "2022-11-06", "2022-11-06 04:00:00"},
	{"Asia/Beirut", 23, "2022-10-29", "2022-10-29 20:00:00"},
	{"Asia/Beirut", 0, "2022-10-30", "2022-10-29 22:00:00"},
	{"America/Santiago", 23, "2022-04-02", "2022-04-03 02:00:00"},
	{"America/Santiago", 0, "2022-04-03", "2022-04-03 04:00:00"},
	{"Atlantic/Azores", 0, "2026-10-25", "2026-10-25 00:00:00"},

	/* it had been the 31st for a minute when it was the 30th again */
	{"America/St_Johns", 23, "1993-10-30", "1993-10-31 01:30:00"},
	{"America/St_Johns", 0, "1993-10-31", "1993-10-31 02:30:00"},
	{"America/St_Johns", 1, "1993-10-31", "1993-10-31 04:30:00"},

	/* the missing hour reaches to midnight */
	{"America/Nuuk", 22, "2024-03-30", "2024-03-31 00:00:00"},
	{"America/Nuuk", 23, "2024-03-29", "2024-03-30 01:00:00"},
	{"America/Nuuk", 23, "2024-03-30", "2024-03-31 01:00:00"},
	{"America/Nuuk", 23, "2024-03-31", "2024-04-01 00:00:00"},
	{"America/Nuuk", 0, "2024-03-30", "2024-03-30 02:00:00"},
	{"America/Nuuk", 0, "2024-03-31", "2024-03-31 01:00:00"},
	{"America/Nuuk", 0, "2024-04-01", "2024-04-01 01:00:00"},
	{"America/Nuuk", 23, "2024-10-26", "2024-10-27 00:00:00"},

	/* days that never were */
	{"Pacific/Apia", 0, "2011-12-29", "2011-12-29 10:00:00"},
	{"Pacific/Apia", 0, "2011-12-30", NULL},
	{"Pacific/Apia", 0, "2011-12-31", "2011-12-30 10:00:00"},
	{"Pacific/Apia", 3, "2011-12-30", NULL},
	{"Pacific/Apia", 3, "2011-12-31", "2011-12-30 13:00:00"},
	{"Pacific/Apia", 23, "2011-12-29", "2011-12-30 09:00:00"},
	{"Pacific/Apia", 23, "2011-12-30", NULL},
	{"Pacific/Apia", 23, "2011-12-31", "2011-12-31 09:00:00"},
	{"Pacific/Kwajalein", 0, "1993-08-21", NULL},
	{"Pacific/Kwajalein", 0, "1993-08-22", "1993-08-21 12:00:00"},
	{"Pacific/Kwajalein", 3, "1993-08-20", "1993-08-20 15:00:00"},
	{"Pacific/Kwajalein", 3, "1993-08-21", NULL},
	{"Pacific/Kwajalein", 3, "1993-08-22", "1993-08-21 15:00:00"},
	{"Pacific/Kiritimati", 12, "1994-12-31", NULL},

	/* a day that came twice */
	{"America/Juneau", 3, "1867-10-18", "1867-10-17 11:57:41"},
	{"America/Juneau", 20, "1867-10-18", "1867-10-18 04:57:41"},
	{"America/Juneau", 3, "1867-10-19", "1867-10-18 11:57:41"},
	{"America/Juneau", 20, "1867-10-19", "1867-10-20 04:57:41"},
	{"America/Juneau", 3, "1867-10-20", "1867-10-20 11:57:41"},
	{"Pacific/Kwajalein", 3, "1969-09-30", "1969-09-29 16:00:00"},
	{"Pacific/Kwajalein", 0, "1969-10-01", "1969-10-01 12:00:00"},

	/* far from UTC, and by quarters of an hour */
	{"Asia/Kathmandu", 0, "2026-05-01", "2026-04-30 18:15:00"},
	{"Asia/Kathmandu", 23, "2026-05-01", "2026-05-01 17:15:00"},
	{"Pacific/Chatham", 3, "2026-01-01", "2025-12-31 13:15:00"},
	{"Pacific/Kiritimati", 0, "2026-05-01", "2026-04-30 10:00:00"},
	{"Pacific/Kiritimati", 23, "2026-12-31", "2026-12-31 09:00:00"},
	{"Etc/GMT+12", 0, "2027-01-01", "2027-01-01 12:00:00"},
	{"Etc/GMT+12", 23, "2026-12-31", "2027-01-01 11:00:00"},

	/* by the sun */
	{"Europe/Berlin", 3, "1850-06-01", "1850-06-01 02:06:32"},
	{"Europe/Paris", 0, "1880-02-29", "1880-02-28 23:50:39"},
	{"America/New_York", 11, "1883-11-18", "1883-11-18 15:56:02"},
	{"America/New_York", 12, "1883-11-18", "1883-11-18 16:56:02"},
	{"America/New_York", 13, "1883-11-18", "1883-11-18 18:00:00"},

	{"Europe/Berlin", 3, "2028-02-29", "2028-02-29 02:00:00"},
	{"Europe/Berlin", 0, "2027-01-01", "2026-12-31 23:00:00"},
	{"Europe/Berlin", 23, "2026-12-31", "2026-12-31 22:00:00"},

	/* what only a POSIX TZ can say */
	{"AAA-24", 3, "2026-05-01", "2026-04-30 03:00:00"},
	{"AAA+24", 3, "2026-05-01", "2026-05-02 03:00:00"},
	{"AAA-0:00:01", 3, "2026-05-01", "2026-05-01 02:59:59"},
	{"AAA0BBB,100/0:07:30,200/0:07:30", 0, "2026-04-11", "2026-04-11 00:00:00"},
	{"AAA0BBB-0:05,100/0:07:30,200/0:03:30", 0, "2026-07-20", "2026-07-19 23:55:00"},
};

static const NowCase now_cases[] = {
	{"UTC", "2026-05-01 03:00:00", 3,
	"2026-05-01 03:00:00", "2026-05-01", "2026-05-02 03:00:00", "2026-05-02"},
	{"UTC", "2026-05-01 02:59:59", 3,
	"2026-04-30 03:00:00", "2026-04-30", "2026-05-01 03:00:00", "2026-05-01"},
	{"UTC", "2026-05-01 03:00:01", 3,
	"2026-05-01 03:00:00", "2026-05-01", "2026-05-02 03:00:00", "2026-05-02"},

	/* 01:59:59, 03:00:00 */
	{"Europe/Berlin", "2026-03-29 00:59:59", 2,
	"2026-03-28 01:00:00", "2026-03-28", "2026-03-29 01:00:00", "2026-03-29"},
	{"Europe/Berlin", "2026-03-29 01:00:00", 2,
	"2026-03-29 01:00:00", "2026-03-29", "2026-03-30 00:00:00", "2026-03-30"},

	/* 02:30, 02:00 and 02:30 once more */
	{"Europe/Berlin", "2026-10-25 00:30:00", 2,
	"2026-10-25 00:00:00", "2026-10-25", "2026-10-26 01:00:00", "2026-10-26"},
	{"Europe/Berlin", "2026-10-25 01:00:00", 2,
	"2026-10-25 00:00:00", "2026-10-25", "2026-10-26 01:00:00", "2026-10-26"},
	{"Europe/Berlin", "2026-10-25 01:30:00", 2,
	"2026-10-25 00:00:00", "2026-10-25", "2026-10-26 01:00:00", "2026-10-26"},

	/* it is the 30th, and the 31st has fired */
	{"America/St_Johns", "1993-10-31 02:31:00", 0,
	"1993-10-31 02:30:00", "1993-10-31", "1993-11-01 03:30:00", "1993-11-01"},
	{"America/Juneau", "1867-10-19 04:00:00", 3,
	"1867-10-18 11:57:41", "1867-10-19", "1867-10-20 11:57:41", "1867-10-20"},

	/* it is the 31st, and the 30th fires */
	{"America/Nuuk", "2024-03-31 01:00:00", 23,
	"2024-03-31 01:00:00", "2024-03-30", "2024-04-01 00:00:00", "2024-03-31"},

	/* over a day that never was */
	{"Pacific/Apia", "2011-12-30 09:30:00", 23,
	"2011-12-30 09:00:00", "2011-12-29", "2011-12-31 09:00:00", "2011-12-31"},
	{"Pacific/Apia", "2011-12-30 10:00:00", 12,
	"2011-12-29 22:00:00", "2011-12-29", "2011-12-30 22:00:00", "2011-12-31"},
	{"Pacific/Kwajalein", "1993-08-21 12:00:00", 1,
	"1993-08-20 13:00:00", "1993-08-20", "1993-08-21 13:00:00", "1993-08-22"},
};

/* Compared second by second; the first few under valgrind, too. */
static const Transition transitions[] = {
	{"America/Nuuk", "2024-03-31 01:00:00"},
	{"Pacific/Apia", "2011-12-30 10:00:00"},
	{"Europe/Berlin", "2026-10-25 01:00:00"},
	{"Europe/Berlin", "2026-03-29 01:00:00"},
	{"America/New_York", "1883-11-18 17:00:00"},
	{"America/New_York", "2026-03-08 07:00:00"},
	{"America/New_York", "2026-11-01 06:00:00"},
	{"America/St_Johns", "1993-10-31 02:31:00"},
	{"America/St_Johns", "1988-04-03 03:31:00"},
	{"America/Juneau", "1867-10-19 00:31:13"},
	{"Asia/Manila", "1844-12-31 15:56:00"},
	{"Pacific/Kwajalein", "1969-09-30 13:00:00"},
	{"Pacific/Kwajalein", "1993-08-21 12:00:00"},
	{"Australia/Lord_Howe", "2026-04-04 15:00:00"},
	{"Australia/Lord_Howe", "2026-10-03 15:30:00"},
	{"America/Havana", "2022-03-13 05:00:00"},
	{"Asia/Beirut", "2022-10-29 21:00:00"},
	{"Africa/Monrovia", "1972-01-07 00:44:30"},
	{"Antarctica/Troll", "2026-10-25 01:00:00"},
	{"America/Caracas", "2007-12-09 07:00:00"},
};

static const char *const zones[] = {
	"UTC", "Europe/Berlin", "America/New_York", "America/Nuuk", "Pacific/Apia",
	"Australia/Lord_Howe", "America/Havana", "Asia/Beirut", "America/Santiago",
	"Atlantic/Azores", "Pacific/Kwajalein", "Asia/Kathmandu", "Pacific/Kiritimati",
	"Etc/GMT+12", "Etc/GMT-14", "Africa/Casablanca", "Africa/Cairo", "Africa/Monrovia",
	"America/Asuncion", "America/Caracas", "America/Scoresbysund", "America/St_Johns",
	"Antarctica/Casey", "Antarctica/Troll", "Asia/Amman", "Asia/Gaza", "Asia/Kolkata",
	"Asia/Pyongyang", "Asia/Tehran", "Atlantic/Stanley", "Europe/Dublin", "Europe/Istanbul",
	"Europe/Moscow", "Pacific/Chatham", "Pacific/Easter", "Pacific/Fakaofo", "Pacific/Norfolk",
	"Pacific/Pago_Pago"
};

static bool small = false;


/* ------------------------------------------------------------- helpers --- */

static int64
day_of(int64 seconds)
{
	return seconds / DAY_SECONDS - (seconds % DAY_SECONDS < 0);
}

/* "2026-05-01 03:00:00", or without the time: midnight */
static int64
instant(const char *text)
{
	struct tm	tm;
	int			n;

	memset(&tm, 0, sizeof(tm));
	n = sscanf(text, "%d-%d-%d %d:%d:%d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
			   &tm.tm_hour, &tm.tm_min, &tm.tm_sec);
	if (n != 3 && n != 6)
		abort();
	tm.tm_year -= 1900;
	tm.tm_mon--;
	return timegm(&tm);
}

static int64
day_number(const char *text)
{
	return day_of(instant(text));
}

static const char *
show(int64 seconds)
{
	time_t		value = seconds;
	struct tm	tm;

	if (gmtime_r(&value, &tm) == NULL)
		return "?";
	return tap_text("%04d-%02d-%02d %02d:%02d:%02d", tm.tm_year + 1900, tm.tm_mon + 1,
					tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

static const char *
show_firing(bool fires, const Firing *firing)
{
	return fires ? tap_text("%s of the day %.10s", show(firing->at),
							show((int64) firing->day * DAY_SECONDS)) : "none";
}

static uint64
random_number(uint64 *state)
{
	uint64		z = (*state += UINT64CONST(0x9E3779B97F4A7C15));

	z = (z ^ (z >> 30)) * UINT64CONST(0xBF58476D1CE4E5B9);
	z = (z ^ (z >> 27)) * UINT64CONST(0x94D049BB133111EB);
	return z ^ (z >> 31);
}

/* from `low` to `high`, both included */
static int64
random_between(uint64 *state, int64 low, int64 high)
{
	return low + (int64) (random_number(state) % (uint64) (high - low + 1));
}

/* The clock of the system's time zone database; zone is a TZ. */
static void
enter_zone(const char *zone)
{
	static const char *entered = NULL;

	if (entered != NULL && strcmp(entered, zone) == 0)
		return;
	setenv("TZ", zone, 1);
	tzset();
	entered = zone;
}

static bool
read_zone(int64 seconds, void *zone, WallClock *clock)
{
	time_t		value = seconds;
	struct tm	tm;

	enter_zone(zone);
	if (localtime_r(&value, &tm) == NULL)
		return false;
	clock->year = tm.tm_year + 1900;
	clock->month = tm.tm_mon + 1;
	clock->day = tm.tm_mday;
	clock->hour = tm.tm_hour;
	clock->minute = tm.tm_min;
	clock->second = tm.tm_sec;
	return true;
}

/* What the clock shows, counted as if it were UTC; by the C library alone. */
static int64
shown_in_zone(int64 seconds, const char *zone)
{
	time_t		value = seconds;
	struct tm	tm;

	enter_zone(zone);
	if (localtime_r(&value, &tm) == NULL)
		abort();
	return seconds + tm.tm_gmtoff;
}

static bool
same(const Firing *a, const Firing *b)
{
	return a->at == b->at && a->day == b->day;
}

static bool
is_last(int64 now, int hour, const char *zone, const Firing *want)
{
	Firing		got;
	bool		fires = schedule_last(now, hour, read_zone, unconstify(char *, zone), &got);

	if (fires && same(&got, want))
		return true;
	diag("%s, hour %d: last at %s is %s, want %s", zone, hour, show(now),
		 show_firing(fires, &got), show_firing(true, want));
	return false;
}

static bool
is_next(int64 now, int hour, const char *zone, const Firing *want)
{
	Firing		got;
	bool		fires = schedule_next(now, hour, read_zone, unconstify(char *, zone), &got);

	if (fires && same(&got, want))
		return true;
	diag("%s, hour %d: next at %s is %s, want %s", zone, hour, show(now),
		 show_firing(fires, &got), show_firing(true, want));
	return false;
}


/* -------------------------------------------------------------- tables --- */

/* Without its file a zone would silently be UTC. */
static void
check_zones(void)
{
	int			missing = 0;
	int			i;

	for (i = 0; i < lengthof(zones); i++)
		if (access(tap_text("/usr/share/zoneinfo/%s", zones[i]), R_OK) != 0)
		{
			diag("%s is missing", zones[i]);
			missing++;
		}
	is(missing, 0, "tzdata is installed");
}

/* Seen from the second before, from its own, and from the second after. */
static bool
fires_at(const FiringCase *c)
{
	Firing		want = {instant(c->at), (int32) day_number(c->day)};
	Firing		other;
	void	   *zone = unconstify(char *, c->zone);

	return is_next(want.at - 1, c->hour, c->zone, &want) &&
		is_last(want.at, c->hour, c->zone, &want) &&
		is_last(want.at + 1, c->hour, c->zone, &want) &&
		schedule_last(want.at - 1, c->hour, read_zone, zone, &other) && other.at < want.at &&
		other.day < want.day && is_next(other.at, c->hour, c->zone, &want) &&
		schedule_next(want.at, c->hour, read_zone, zone, &other) && other.at > want.at + 1 &&
		other.day > want.day && is_last(other.at - 1, c->hour, c->zone, &want);
}

/* No firing within three days is of that day. */
static bool
does_not_fire(const FiringCase *c)
{
	int64		day = day_number(c->day);
	Firing		firing = {(day - 3) * DAY_SECONDS, 0};

	while (firing.day <= day)
	{
		if (!schedule_next(firing.at, c->hour, read_zone, unconstify(char *, c->zone), &firing))
			return false;
		if (firing.day == day)
			return false;
	}
	return firing.day == day + 1;
}

static void
test_firings(void)
{
	int			i;

	for (i = 0; i < lengthof(firing_cases); i++)
	{
		const FiringCase *c = &firing_cases[i];

		ok(c->at ? fires_at(c) : does_not_fire(c), "%s %s %02d:00 %s %s", c->zone, c->day, c->hour,
		   c->at ? "fires at" : "never was,", c->at ? c->at : "and does not fire");
	}
}

static void
test_nows(void)
{
	int			i;

	for (i = 0; i < lengthof(now_cases); i++)
	{
		const NowCase *c = &now_cases[i];
		Firing		last = {instant(c->last_at), (int32) day_number(c->last_day)};
		Firing		next = {instant(c->next_at), (int32) day_number(c->next_day)};

		ok(is_last(instant(c->now), c->hour, c->zone, &last) &&
		   is_next(instant(c->now), c->hour, c->zone, &next),
		   "%s at %s, hour %d: %s and %s", c->zone, c->now, c->hour, c->last_at, c->next_at);
	}
}


/* ----------------------------------------------------- made-up clocks --- */

/*
 * A clock with at most one transition.  After so many looks it breaks.
 */
typedef struct Clock
{
	int64		transition;
	int64		before;			/* offsets */
	int64		after;
	int			looks_left;
	int			looks;
} Clock;

static void
set_clock(int64 seconds, WallClock *clock)
{
	time_t		value = seconds;
	struct tm	tm;

	if (gmtime_r(&value, &tm) == NULL)
		abort();
	clock->year = tm.tm_year + 1900;
	clock->month = tm.tm_mon + 1;
	clock->day = tm.tm_mday;
	clock->hour = tm.tm_hour;
	clock->minute = tm.tm_min;
	clock->second = tm.tm_sec;
}

static bool
read_made_up(int64 seconds, void *zone, WallClock *clock)
{
	Clock	   *made_up = zone;

	made_up->looks++;
	if (made_up->looks_left-- <= 0)
		return false;
	set_clock(seconds + (seconds < made_up->transition ? made_up->before : made_up->after), clock);
	return true;
}

static Clock
make_clock(int64 transition, int64 before, int64 after)
{
	Clock		made_up = {transition, before, after, LOOKS_MAX, 0};

	return made_up;
}

/* The definition, for a clock with one transition. */
static bool
fires_by_definition(const Clock *clock, int64 day, int hour, Firing *firing)
{
	int64		shown = day * DAY_SECONDS + hour * HOUR_SECONDS;
	int64		shown_until = clock->transition + clock->before;
	int64		shown_from = clock->transition + clock->after;

	firing->day = (int32) day;
	if (shown < shown_until)
		firing->at = shown - clock->before;
	else
		firing->at = Max(clock->transition, shown - clock->after);
	if (firing->at == clock->transition && shown_from >= shown + DAY_SECONDS)
		return false;			/* it is the next day's */
	return day * DAY_SECONDS < shown_until || (day + 1) * DAY_SECONDS > shown_from;
}

static bool
agrees_with_definition(Clock *clock, int64 now, int hour)
{
	Firing		last = {0, 0};
	Firing		next = {0, 0};
	Firing		got;
	int64		day;

	for (day = day_of(now) - 12; day <= day_of(now) + 12; day++)
	{
		Firing		firing;

		if (!fires_by_definition(clock, day, hour, &firing))
			continue;
		if (firing.at <= now)
			last = firing;
		else if (next.at == 0)
			next = firing;
	}
	clock->looks_left = 2 * LOOKS_MAX;
	if (schedule_last(now, hour, read_made_up, clock, &got) && same(&got, &last) &&
		schedule_next(now, hour, read_made_up, clock, &got) && same(&got, &next))
		return true;
	diag("offset %lld, %lld from %s on; hour %d, now %s: want %s, %s",
		 (long long) clock->before, (long long) clock->after, show(clock->transition), hour,
		 show(now), show_firing(true, &last), show_firing(true, &next));
	return false;
}

static void
test_one_transition(void)
{
	const int	cases = small ? 200 : 20000;
	const int64 base = instant("2026-05-01");
	uint64		state = SEED;
	int			wrong = 0;
	int			i;

	for (i = 0; i < cases && wrong < 5; i++)
	{
		int64		transition = base + random_between(&state, 0, 2 * DAY_SECONDS);
		int64		before = random_between(&state, -12 * HOUR_SECONDS, 12 * HOUR_SECONDS);
		int64		most = i % 3 == 0 ? 30 * HOUR_SECONDS : i % 3 == 1 ? 2 * HOUR_SECONDS : 1000;
		Clock		clock = make_clock(transition, before,
									   before + random_between(&state, -most, most));
		int			hour = (int) random_between(&state, 0, 23);
		int64		now = transition + random_between(&state, -2 * DAY_SECONDS, 2 * DAY_SECONDS);

		if (i % 2 == 0)			/* a firing very near the transition */
		{
			clock.transition -= (clock.transition + before) % HOUR_SECONDS;
			clock.transition += random_between(&state, -3, 3);
			hour = (int) ((clock.transition + before) % DAY_SECONDS / HOUR_SECONDS);
			now = clock.transition + random_between(&state, -3, 3);
		}
		if (clock.after < -16 * HOUR_SECONDS || clock.after > 16 * HOUR_SECONDS)
			clock.after = before;
		wrong += !agrees_with_definition(&clock, now, hour);
	}
	is(wrong, 0, tap_text("%d clocks with one transition anywhere", cases));
}

/* A day that is skipped at noon was there, in halves. */
static void
test_noon_skipped(void)
{
	const int64 noon = instant("2026-05-01 12:00:00");
	int			wrong = 0;
	int			hour;
	int64		now;

	for (hour = 0; hour < 24; hour++)
		for (now = noon - 2 * DAY_SECONDS; now < noon + 2 * DAY_SECONDS; now += 1800)
		{
			Clock		later = make_clock(noon, -10 * HOUR_SECONDS, 14 * HOUR_SECONDS);
			Clock		earlier = make_clock(noon, 14 * HOUR_SECONDS, -10 * HOUR_SECONDS);

			wrong += !agrees_with_definition(&later, now, hour);
			wrong += !agrees_with_definition(&earlier, now, hour);
		}
	is(wrong, 0, "a clock may skip a day, or repeat one, at any hour");
}

static void
test_any_offset(void)
{
	int			wrong = 0;
	int64		offset;

	for (offset = -167 * HOUR_SECONDS; offset <= 167 * HOUR_SECONDS; offset += 1801)
	{
		Clock		clock = make_clock(0, offset, offset);

		wrong += !agrees_with_definition(&clock, instant("2026-05-01 12:34:56"), 3);
		wrong += !agrees_with_definition(&clock, instant("2026-05-01 03:00:00") - offset, 3);
		wrong += !agrees_with_definition(&clock, instant("2026-05-01 02:59:59") - offset, 3);
	}
	is(wrong, 0, "a clock may be a week from UTC");
}

/* Fails at every look there is, one after the other. */
static void
test_broken_clocks(void)
{
	const int64 now = instant("2024-03-31 01:00:00");	/* of Nuuk */
	int			looks;
	int			wrong = 0;
	int			which;

	for (which = 0; which < 2; which++)
		for (looks = 0;; looks++)
		{
			Clock		clock = make_clock(now, -2 * HOUR_SECONDS, -1 * HOUR_SECONDS);
			Firing		firing = {-1, -1};
			bool		fires;

			clock.looks_left = looks;
			fires = which == 0 ? schedule_last(now, 23, read_made_up, &clock, &firing) :
				schedule_next(now, 23, read_made_up, &clock, &firing);
			if (fires)
			{
				ok(looks > 0 && looks < 500 && clock.looks == looks,
				   "%s takes %d looks at the clock", which == 0 ? "last" : "next", looks);
				break;
			}
			if (clock.looks != looks + 1 || firing.at != -1 || firing.day != -1)
				wrong++;
			if (looks > LOOKS_MAX)
				break;
		}
	is(wrong, 0, "a clock that breaks is not looked at again, and nothing is answered");
}

/* What a clock must not show. */
static const WallClock insane[] = {
	{0, 5, 1, 0, 0, 0},
	{-1, 5, 1, 0, 0, 0},
	{294277, 5, 1, 0, 0, 0},
	{INT_MAX, INT_MAX, INT_MAX, INT_MAX, INT_MAX, INT_MAX},
	{INT_MIN, INT_MIN, INT_MIN, INT_MIN, INT_MIN, INT_MIN},
	{2026, 0, 1, 0, 0, 0},
	{2026, 13, 1, 0, 0, 0},
	{2026, 5, 0, 0, 0, 0},
	{2026, 5, 32, 0, 0, 0},
	{2026, 5, 1, -1, 0, 0},
	{2026, 5, 1, 24, 0, 0},
	{2026, 5, 1, 0, 60, 0},
	{2026, 5, 1, 0, -1, 0},
	{2026, 5, 1, 0, 0, 61},
	{2026, 5, 1, 0, 0, -1},
	{0, 0, 0, 0, 0, 0},
};

static bool
show_insane(int64 seconds, void *zone, WallClock *clock)
{
	*clock = *(WallClock *) zone;
	return true;
}

typedef struct OddClock
{
	int			kind;
	int			looks;
	int64		base;
	uint64		state;
} OddClock;

static bool
read_odd(int64 seconds, void *zone, WallClock *clock)
{
	OddClock   *odd = zone;
	int64		base = odd->base;

	odd->looks++;
	switch (odd->kind)
	{
		case 0:					/* stands still */
			set_clock(base, clock);
			break;
		case 1:					/* runs backwards */
			set_clock(base - (seconds - base), clock);
			break;
		case 2:					/* runs at half the speed */
			set_clock(base + (seconds - base) / 2, clock);
			break;
		case 3:					/* and at a thousand times */
			set_clock(base + (seconds - base) * 1000, clock);
			break;
		default:				/* is not one */
			set_clock(random_between(&odd->state, -60000000000, 900000000000), clock);
			break;
	}
	return true;
}

static void
test_odd_clocks(void)
{
	const int64 now = instant("2026-05-01 12:00:00");
	Firing		firing;
	int			wrong = 0;
	int			most = 0;
	int			i;

	for (i = 0; i < lengthof(insane); i++)
	{
		WallClock	clock = insane[i];

		wrong += schedule_last(now, 3, show_insane, &clock, &firing);
		wrong += schedule_next(now, 3, show_insane, &clock, &firing);
	}
	is(wrong, 0, "what no clock can show cannot be told");

	for (i = 0; i < (small ? 5 : 20); i++)
	{
		OddClock	odd = {Min(i, 4), 0, now, SEED + i};

		schedule_last(now, 3, read_odd, &odd, &firing);
		most = Max(most, odd.looks);
		odd.looks = 0;
		schedule_next(now, 3, read_odd, &odd, &firing);
		most = Max(most, odd.looks);
	}
	ok(most < LOOKS_MAX, "no clock, however mad, is looked at more than %d times", LOOKS_MAX);
}

/* 2016 ended with a second 23:59:60, in clocks that show it. */
static bool
read_leap(int64 seconds, void *zone, WallClock *clock)
{
	const int64 leap = instant("2017-01-01 00:00:00");

	set_clock(seconds < leap ? seconds : seconds - 1, clock);
	if (seconds == leap)
		clock->second = 60;
	return true;
}

static void
test_leap_second(void)
{
	const int64 leap = instant("2017-01-01 00:00:00");
	Firing		firing;

	ok(schedule_next(leap - 1, 0, read_leap, NULL, &firing) && firing.at == leap + 1,
	   "a leap second is not yet the next day");
	ok(schedule_last(leap, 0, read_leap, NULL, &firing) && firing.at == leap - DAY_SECONDS &&
	   schedule_last(leap + 1, 0, read_leap, NULL, &firing) && firing.at == leap + 1,
	   "but the second after it is");
}


/* ----------------------------------------------------------- arguments --- */

static void
test_hours(void)
{
	static const int hours[] = {SCHEDULE_NEVER, -2, 24, 25, 100, INT_MAX, INT_MIN};
	const int64 now = instant("2026-05-01 12:00:00");
	int			i;

	for (i = 0; i < lengthof(hours); i++)
	{
		Clock		clock = make_clock(0, 0, 0);
		Firing		firing = {-1, -1};

		ok(!schedule_last(now, hours[i], read_made_up, &clock, &firing) &&
		   !schedule_next(now, hours[i], read_made_up, &clock, &firing) &&
		   clock.looks == 0 && firing.at == -1 && firing.day == -1,
		   "the hour %d never fires", hours[i]);
	}
}

static void
test_extreme_nows(void)
{
	static const int64 nows[] = {
		PG_INT64_MIN, PG_INT64_MIN + 1, PG_INT64_MIN / 2, PG_INT64_MIN / 4, PG_INT64_MIN / 1000,
		PG_INT64_MAX, PG_INT64_MAX - 1, PG_INT64_MAX / 2, PG_INT64_MAX / 4, PG_INT64_MAX / 1000,
		-62135596801, 9224318016000
	};
	Firing		firing;
	int			i;

	for (i = 0; i < lengthof(nows); i++)
	{
		Clock		clock = make_clock(0, 0, 0);

		ok(!schedule_last(nows[i], 3, read_made_up, &clock, &firing) &&
		   !schedule_next(nows[i], 3, read_made_up, &clock, &firing) && clock.looks == 0,
		   "%lld is not an instant", (long long) nows[i]);
	}

	/* near the ends it depends, but it comes to an end */
	for (i = -400; i <= 400; i++)
	{
		schedule_last(-62135596800 + i * HOUR_SECONDS, 3, read_zone, "Europe/Berlin", &firing);
		schedule_next(-62135596800 + i * HOUR_SECONDS, 3, read_zone, "Europe/Berlin", &firing);
		schedule_last(9224318016000 + i * HOUR_SECONDS, 3, read_zone, "Europe/Berlin", &firing);
		schedule_next(9224318016000 + i * HOUR_SECONDS, 3, read_zone, "Europe/Berlin", &firing);
	}
	ok(schedule_last(-62135596800 + 20 * DAY_SECONDS, 3, read_zone, "UTC", &firing) &&
	   firing.at == -62135596800 + 19 * DAY_SECONDS + 3 * HOUR_SECONDS,
	   "the first weeks there are");
	ok(schedule_next(9224318016000 - 20 * DAY_SECONDS, 3, read_zone, "UTC", &firing) &&
	   firing.at == 9224318016000 - 20 * DAY_SECONDS + 3 * HOUR_SECONDS,
	   "the last weeks there are");
}

/* Every date of the calendar's 400 years and some. */
static void
test_calendar(void)
{
	const int64 step = small ? 97 : 1;
	int			wrong = 0;
	int64		day;

	for (day = day_number("1899-12-30"); day <= day_number("2301-03-05"); day += step)
	{
		Clock		clock = make_clock(0, 0, 0);
		Firing		firing;

		if (!schedule_next(day * DAY_SECONDS - 1, 0, read_made_up, &clock, &firing) ||
			firing.day != day || firing.at != day * DAY_SECONDS)
			wrong++;
	}
	is(wrong, 0, "every date of 400 years");
}

/* The same question has the same answer, whatever was asked in between. */
static void
test_purity(void)
{
	enum
	{
		QUESTIONS = 40
	};
	const int64 base = instant("2026-03-20");
	Firing		last[QUESTIONS];
	Firing		next[QUESTIONS];
	int			wrong = 0;
	int			zone;
	int			i;

	for (zone = 0; zone < 5; zone++)
		for (i = 0; i < QUESTIONS / 5; i++)
		{
			void	   *name = unconstify(char *, zones[zone]);
			int			n = zone * (QUESTIONS / 5) + i;

			wrong += !schedule_last(base + i * 100000, i, read_zone, name, &last[n]);
			wrong += !schedule_next(base + i * 100000, i, read_zone, name, &next[n]);
		}

	/* backwards, and each from another zone than the one before */
	for (i = QUESTIONS / 5 - 1; i >= 0; i--)
		for (zone = 0; zone < 5; zone++)
		{
			int			n = zone * (QUESTIONS / 5) + i;

			wrong += !is_next(base + i * 100000, i, zones[zone], &next[n]);
			wrong += !is_last(base + i * 100000, i, zones[zone], &last[n]);
			wrong += !is_last(base + i * 100000, i, zones[zone], &last[n]);
		}
	is(wrong, 0, "an answer depends on nothing but the question");
}


/* ---------------------------------------------------------- properties --- */

/* Was there no date between these, in this zone?  Looks at every hour. */
static bool
follows(const char *zone, const Firing *before, const Firing *after)
{
	int64		at;

	if (after->day <= before->day || after->at <= before->at)
		return false;
	if (after->day == before->day + 1)
		return true;
	for (at = before->at - 2 * DAY_SECONDS; at < after->at + 2 * DAY_SECONDS; at += HOUR_SECONDS)
	{
		int64		day = day_of(shown_in_zone(at, zone));

		if (day > before->day && day < after->day)
			return false;
	}
	return true;
}

static bool
is_consistent(const char *zone, int64 now, int hour)
{
	void	   *name = unconstify(char *, zone);
	Firing		last;
	Firing		next;
	Firing		after;

	return schedule_last(now, hour, read_zone, name, &last) &&
		schedule_next(now, hour, read_zone, name, &next) &&
		schedule_next(next.at, hour, read_zone, name, &after) &&
		last.at <= now && now < next.at &&
		follows(zone, &last, &next) && follows(zone, &next, &after) &&
		is_next(last.at, hour, zone, &next) &&
		is_last(next.at, hour, zone, &next) &&
		is_last(next.at - 1, hour, zone, &last) &&
		is_last(after.at - 1, hour, zone, &next) &&
		shown_in_zone(next.at, zone) >= next.day * (int64) DAY_SECONDS + hour * HOUR_SECONDS &&
		shown_in_zone(next.at - 1, zone) < next.day * (int64) DAY_SECONDS + hour * HOUR_SECONDS;
}

static void
test_random_instants(void)
{
	const int	instants = small ? 3 : 60;
	uint64		state = SEED;
	int			wrong = 0;
	int			zone;
	int			i;

	for (zone = 0; zone < lengthof(zones); zone++)
		for (i = 0; i < instants; i++)
		{
			int64		now = random_between(&state, 0, instant("2100-12-31"));
			int			hour = (int) random_between(&state, 0, 23);

			if (!is_consistent(zones[zone], now, hour))
			{
				diag("%s at %s, hour %d", zones[zone], show(now), hour);
				wrong++;
			}
		}
	is(wrong, 0, tap_text("%d random instants from 1970 to 2100 in each of %d zones",
						  instants, (int) lengthof(zones)));
}

/* Walk from firing to firing through a year: each day, once. */
static int
count_days(const char *zone, int hour, int year)
{
	void	   *name = unconstify(char *, zone);
	int64		first_day = day_number(tap_text("%d-01-01", year));
	int64		end_day = day_number(tap_text("%d-01-01", year + 1));
	Firing		firing = {first_day * DAY_SECONDS - 2 * DAY_SECONDS, 0};
	Firing		previous = {PG_INT64_MIN, PG_INT32_MIN};
	int			n = 0;

	while (schedule_next(firing.at, hour, read_zone, name, &firing))
	{
		if (firing.day >= end_day)
			return n;
		if (firing.day < first_day)
			continue;
		if (firing.at <= previous.at || firing.day <= previous.day)
			return -1;
		previous = firing;
		n++;
	}
	return -1;
}

static void
test_years(void)
{
	uint64		state = SEED;
	int			wrong = 0;
	int			zone;

	for (zone = 0; zone < (small ? 2 : lengthof(zones)); zone++)
	{
		int			hour = (int) random_between(&state, 0, 23);

		wrong += count_days(zones[zone], hour, 2024) != 366;
		wrong += count_days(zones[zone], 2, 2026) != 365;
	}
	is(wrong, 0, "in every zone 2024 has 366 firings, and 2026 has 365");
	is(count_days("America/Nuuk", 23, 2024), 366, "no day of Nuuk is lost");
	is(count_days("America/Havana", 0, 2024), 366, "no day of Havana is lost");
	is(count_days("Pacific/Apia", 0, 2011), 364, "2011 had 364 days in Apia");
	is(count_days("Pacific/Apia", 23, 2011), 364, "at any hour");
	is(count_days("Pacific/Kwajalein", 12, 1993), 364, "1993 had 364 days in Kwajalein");
	is(count_days("Pacific/Kwajalein", 12, 1969), 365, "1969 had 365, one of them twice");
}

/*
 * The firings within a window, by the definition and every second in it.  A
 * day is taken only if the window begins before it and ends after it.
 */
static int
list_firings(const int64 *shown, int64 start, int hour, Firing *list)
{
	int64		day;
	int			n = 0;

	for (day = day_of(shown[0]) + 1; day < day_of(shown[WINDOW_SECONDS - 1]); day++)
	{
		bool		was = false;
		int64		at = -1;
		int			i;

		for (i = 0; i < WINDOW_SECONDS; i++)
		{
			if (at < 0 && shown[i] >= day * DAY_SECONDS + hour * HOUR_SECONDS)
				at = i;
			if (shown[i] >= day * DAY_SECONDS && shown[i] < (day + 1) * DAY_SECONDS)
				was = true;
			if (was && at >= 0)
				break;
		}
		if (was && at >= 0)
		{
			list[n].at = start + at;
			list[n++].day = (int32) day;
		}
	}
	return n;
}

static bool
agrees_between(const char *zone, int hour, const Firing *last, const Firing *next, int64 transition,
			   uint64 *state)
{
	bool		agrees = true;
	int			i;

	for (i = 0; i < 8; i++)
	{
		int64		now = i == 0 ? last->at : i == 1 ? next->at - 1 :
		i < 5 ? transition + random_between(state, -7200, 7200) :
		random_between(state, last->at, next->at - 1);

		if (now >= last->at && now < next->at)
			agrees &= is_last(now, hour, zone, last) && is_next(now, hour, zone, next);
	}
	return agrees;
}

static void
compare_second_by_second(const Transition *transition)
{
	static int64 shown[WINDOW_SECONDS];
	static uint64 state = SEED;
	int64		start = instant(transition->at) - WINDOW_SECONDS / 2;
	int			wrong = 0;
	int			hour;
	int			i;

	for (i = 0; i < WINDOW_SECONDS; i++)
		shown[i] = shown_in_zone(start + i, transition->zone);
	for (hour = 0; hour < 24; hour += small ? 23 : 1)
	{
		Firing		list[WINDOW_DAYS + 2];
		int			n = list_firings(shown, start, hour, list);

		if (n < 2)
			wrong++;
		for (i = 0; i + 1 < n; i++)
			if (!agrees_between(transition->zone, hour, &list[i], &list[i + 1],
								instant(transition->at), &state))
				wrong++;
	}
	ok(wrong == 0 && shown[0] - start != shown[WINDOW_SECONDS - 1] - (start + WINDOW_SECONDS - 1),
	   "%s around %s, second by second", transition->zone, transition->at);
}

int
main(void)
{
	int			i;

	tap_begin();
	alarm(600);
	small = getenv("UNIT_FILES") != NULL;

	diag("random clocks and instants from the seed %d", SEED);
	check_zones();
	test_firings();
	test_nows();

	test_one_transition();
	test_noon_skipped();
	test_any_offset();
	test_broken_clocks();
	test_odd_clocks();
	test_leap_second();

	test_hours();
	test_extreme_nows();
	test_calendar();
	test_purity();

	test_random_instants();
	test_years();
	for (i = 0; i < (small ? 2 : lengthof(transitions)); i++)
		compare_second_by_second(&transitions[i]);
	return tap_end();
}
