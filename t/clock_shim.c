/*
 * t/clock_shim.c
 *
 * A library for LD_PRELOAD: the clock of the process is ahead by the seconds
 * that the file $CLOCK_AHEAD tells, which may be negative.  Clocks that nobody
 * can set, CLOCK_MONOTONIC for one, are not changed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long
seconds_ahead(void)
{
	int			save_errno = errno;
	FILE	   *file = fopen(getenv("CLOCK_AHEAD"), "re");
	long		seconds = 0;

	if (file != NULL)
	{
		if (fscanf(file, "%ld", &seconds) != 1)
			seconds = 0;
		fclose(file);
	}
	errno = save_errno;
	return seconds;
}

int
gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	__typeof__(&gettimeofday) really = (__typeof__(&gettimeofday)) dlsym(RTLD_NEXT, "gettimeofday");
	int			rc = really(now, zone);

	if (rc == 0)
		now->tv_sec += seconds_ahead();
	return rc;
}

int
clock_gettime(clockid_t clock, struct timespec *now)
{
	__typeof__(&clock_gettime) really = (__typeof__(&clock_gettime)) dlsym(RTLD_NEXT, "clock_gettime");
	int			rc = really(clock, now);

	if (rc == 0 && clock == CLOCK_REALTIME)
		now->tv_sec += seconds_ahead();
	return rc;
}
