/*-------------------------------------------------------------------------
 *
 * drain/pace.c
 *	  How fast files may be deleted, and when a run has to stop.
 *
 * A portion is what half a second allows, so that the disk gets an even load
 * and a transaction is never kept open for a sleep.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "src/drain/pace.h"
#include "src/pg/compat.h"
#include "src/pg/progress.h"

Pace
pace_begin(const Settings *settings)
{
	Pace		pace = {settings->files_per_second, 0};

	if (settings->max_run_minutes > 0)
		pace.ends_at = GetCurrentTimestamp() + (TimestampTz) settings->max_run_minutes * USECS_PER_MINUTE;
	return pace;
}

bool
pace_is_over(const Pace *pace)
{
	return pace->ends_at != 0 && GetCurrentTimestamp() >= pace->ends_at;
}

int
pace_portion(const Pace *pace)
{
	return pace->files_per_second > 0 ? Max(pace->files_per_second / 2, 1) : INT_MAX;
}

int
pace_files_in(const Pace *pace, int seconds)
{
	if (pace->files_per_second <= 0 || pace->files_per_second > INT_MAX / seconds)
		return INT_MAX;
	return pace->files_per_second * seconds;
}

void
pace_rest(const Pace *pace, int files, TimestampTz began)
{
	int64		most_us = (int64) files * USECS_PER_SEC / Max(pace->files_per_second, 1);
	TimestampTz until;
	long		left;

	if (pace->files_per_second <= 0 || files <= 0)
		return;
	/* a clock that was set back since is not waited for */
	began = Min(began, GetCurrentTimestamp());
	until = began + most_us;
	while ((left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until)) > 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, compat_wait_event("AudioCleanupThrottle"));
		ResetLatch(MyLatch);
		progress_tick();
	}
}
