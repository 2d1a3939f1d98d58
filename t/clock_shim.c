/*
 * t/clock_shim.c
 *
 * A library for LD_PRELOAD.  The file $CLOCK_AHEAD tells two numbers of seconds.
 * By the first one, which may be negative, somebody has set the clock ahead:
 * clocks that nobody can set, CLOCK_MONOTONIC for one, do not tell it.  By the
 * second one all clocks are ahead, as if that time had passed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long
seconds_ahead(int can_be_set)
{
	int			save_errno = errno;
	FILE	   *file = fopen(getenv("CLOCK_AHEAD"), "re");
	long		set = 0;
	long		passed = 0;

	if (file != NULL)
	{
		if (fscanf(file, "%ld %ld", &set, &passed) != 2)
			abort();
		fclose(file);
	}
	errno = save_errno;
	return (can_be_set ? set : 0) + passed;
}

int
gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	__typeof__(&gettimeofday) really = (__typeof__(&gettimeofday)) dlsym(RTLD_NEXT, "gettimeofday");
	int			rc = really(now, zone);

	if (rc == 0)
		now->tv_sec += seconds_ahead(1);
	return rc;
}

int
clock_gettime(clockid_t clock, struct timespec *now)
{
	__typeof__(&clock_gettime) really = (__typeof__(&clock_gettime)) dlsym(RTLD_NEXT, "clock_gettime");
	int			rc = really(clock, now);

	if (rc == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC))
		now->tv_sec += seconds_ahead(clock == CLOCK_REALTIME);
	return rc;
}
