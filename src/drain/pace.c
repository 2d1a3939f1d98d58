/*-------------------------------------------------------------------------
 *
 * drain/pace.c
 *	  How fast files may be deleted, and when a run has to stop.
 *
 * A portion is the number of files that half a second allows.  Its files are
 * deleted few at a time, with short rests between them, so that the disk gets
 * an even load: an fsync of another process waits for a few unlinks at most.
 * After each portion there is a longer rest, without a transaction, and without
 * the lock of the directory.
 *
 * Without a limit there is a calm pace while other sessions write to the server,
 * in any database: their commits wait for the disk behind our writes.
 *
 * Besides, a drain gives way to other processes.  The time that a file takes
 * says little, because it depends on the disk.  But work that finds its blocks
 * in memory and the journal ready computes most of the time.  Work that only
 * waits stands in a queue with other work, and each further call makes that
 * queue longer.  So the drain rests if it has waited longer than WAIT_SHARE
 * times its computing time.  The rest is as long as the wait beyond that time.
 * A quick and idle disk is used in full; a slow or busy disk about half of the
 * time.  Such a rest is short, and may be within a transaction: the rest
 * counts as time of the step.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <sys/resource.h>

#include "access/transam.h"
#include "access/xact.h"

#include "src/drain/pace.h"
#include "src/pg/lock.h"
#include "src/pg/progress.h"
#include "src/pg/time.h"

/* seconds of waiting that are normal for each second of computing */
#define WAIT_SHARE		8

/* time for which files are dealt with before the next decision whether to rest */
#define YIELD_EVERY_US	20000

/* files a second while other sessions write */
#define CALM_FILES_PER_SECOND	1000

/* transactions of others, with a number, that are usual on a quiet server: so many, and so many more a second */
#define QUIET_TRANSACTIONS		8
#define QUIET_PER_SECOND		10

/* least time in which transactions are counted */
#define COUNT_US		50000

/* time for which the pace stays calm after others have written: where the disk stands still, nobody can write */
#define CALM_US			5000000

/* the longest rest: the disk may have stood still for minutes */
#define LONGEST_YIELD_US	200000

Pace
pace_begin(const Settings *settings)
{
	Pace		pace = {settings->files_per_second, settings->files_per_second};

	if (settings->max_run_minutes > 0)
		pace.ends_at = time_monotonic_us() + (int64) settings->max_run_minutes * USECS_PER_MINUTE;
	return pace;
}

bool
pace_is_over(const Pace *pace)
{
	return pace->ends_at != 0 && time_monotonic_us() >= pace->ends_at;
}

void
pace_note_own_transaction(Pace *pace)
{
	pace->expected_xid += TransactionIdIsValid(GetTopTransactionIdIfAny());
}

void
pace_look_around(Pace *pace)
{
	uint64		next_xid = U64FromFullTransactionId(ReadNextFullTransactionId());
	int64		now = time_monotonic_us();
	int64		passed = now - pace->counted_at;
	bool		first = pace->counted_at == 0;
	bool		calm;

	if (pace->limit > 0 || passed < COUNT_US)
		return;
	if (!first && (int64) (next_xid - pace->expected_xid) > QUIET_TRANSACTIONS + QUIET_PER_SECOND * passed / USECS_PER_SEC)
		pace->busy_at = now;
	calm = pace->busy_at != 0 && now - pace->busy_at < CALM_US;
	if (calm != (pace->files_per_second > 0))
		ereport(DEBUG1,
				(calm ? errmsg_internal("deleting at most %d files a second: other sessions write", CALM_FILES_PER_SECOND) :
				 errmsg_internal("deleting files at full speed again")));
	pace->files_per_second = calm ? CALM_FILES_PER_SECOND : 0;
	pace->expected_xid = next_xid;
	pace->counted_at = now;
}

int
pace_portion(const Pace *pace)
{
	return pace->files_per_second > 0 ? Max(pace->files_per_second / 2, 1) : INT_MAX;
}

int
pace_files_in(const Pace *pace, int seconds)
{
	if (pace->limit <= 0 || pace->limit > INT_MAX / seconds)
		return INT_MAX;
	return pace->limit * seconds;
}

int
pace_at_once(const Pace *pace)
{
	return pace->files_per_second > 0 ? Max(pace->files_per_second / 1000, 1) : INT_MAX;
}

static void
sleep_us(int64 us)
{
	int64		until = time_monotonic_us() + us;
	long		left;

	while ((left = (long) ((until - time_monotonic_us() + 999) / 1000)) > 0)
	{
		lock_nap(left, "AudioCleanupThrottle");
		progress_tick();
	}
}

void
pace_rest(Pace *pace, int files, int64 began)
{
	int64		now = time_monotonic_us();
	int64		us = (int64) files * USECS_PER_SEC / Max(pace->files_per_second, 1) - (now - began);

	if (pace->files_per_second <= 0 || us <= 0)
		return;
	sleep_us(us);
	/* nobody has waited for the disk meanwhile */
	pace->wall_us += time_monotonic_us() - now;
}

void
pace_rest_between(Pace *pace, int files, int64 began)
{
	pace_rest(pace, files / 4 * 3 + files % 4 * 3 / 4, began);
}

/*
 * Returns the computing time of all threads of this process, also of the
 * threads of an io_uring.
 */
static int64
cpu_us(void)
{
	struct rusage usage;

	(void) getrusage(RUSAGE_SELF, &usage);
	return (int64) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * USECS_PER_SEC +
		usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

void
pace_begin_files(Pace *pace)
{
	pace->wall_us = time_monotonic_us();
	pace->cpu_us = cpu_us();
}

void
pace_yield(Pace *pace)
{
	int64		took = time_monotonic_us() - pace->wall_us;
	int64		waited;

	if (took < YIELD_EVERY_US)
		return;
	waited = Min(took - WAIT_SHARE * (cpu_us() - pace->cpu_us), LONGEST_YIELD_US);
	if (waited > 0)
	{
		ereport(DEBUG2,
				(errmsg_internal("resting for %d ms: the disk is slow or busy", (int) (waited / 1000))));
		sleep_us(waited);
	}
	pace_begin_files(pace);
}
