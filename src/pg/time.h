/*-------------------------------------------------------------------------
 *
 * pg/time.h
 *	  The time of the system, and that of the server: the latter counts
 *	  microseconds since 2000.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_TIME_H
#define AUDIO_CLEANUP_TIME_H

#include <time.h>

#include "datatype/timestamp.h"

#define NS_PER_SECOND	INT64CONST(1000000000)

/* the last second since 1970 whose nanoseconds an int64 can hold: in the year 2262 */
#define UNIX_SECONDS_MAX	(PG_INT64_MAX / NS_PER_SECOND - 1)

/* microseconds from 1970 to 2000 */
#define UNIX_TO_SERVER_US	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* Returns the server's time for a time in nanoseconds since 1970. */
static inline TimestampTz
time_from_unix_ns(int64 ns)
{
	return ns / 1000 - UNIX_TO_SERVER_US;
}

/* Returns a time of the server in microseconds since 1970. */
static inline int64
time_to_unix_us(TimestampTz time)
{
	return time + UNIX_TO_SERVER_US;
}

/*
 * Returns the microseconds of a clock that nobody sets: for the time that a wait
 * takes, because somebody may set the server's clock meanwhile.  The clock
 * begins at any time, and never tells 0.
 */
static inline int64
time_monotonic_us(void)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000 + 1;
}

#endif							/* AUDIO_CLEANUP_TIME_H */
