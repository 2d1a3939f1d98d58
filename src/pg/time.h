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

#endif							/* AUDIO_CLEANUP_TIME_H */
