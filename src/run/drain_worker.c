/*-------------------------------------------------------------------------
 *
 * run/drain_worker.c
 *	  The background worker that finishes what committed runs have left.
 *
 * It is started by a transaction that is about to commit.  It
 * waits for the run lock, which that transaction gives back when its commit
 * callback is over, so the order is given: what the callback has done is
 * there to be recorded.  It works in steps, each a transaction under the run
 * lock, so that nobody waits for it for long, and ends when nothing is left.
 * It need not know who started it.  If it dies, the next run drains.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "src/drain/drain.h"
#include "src/guard/claim.h"
#include "src/ledger/ledger.h"
#include "src/pg/compat.h"
#include "src/pg/lock.h"
#include "src/pg/progress.h"
#include "src/pg/worker.h"
#include "src/run/drain_worker.h"

/* Files that wait for a writer are looked at again so often, for an hour. */
#define RETRY_MS	10000
#define MAX_TRIES	360

/*
 * Under the run lock; NULL if the extension is gone by now.  What it returns
 * is in `context`, or with NULL, in the transaction's own.
 */
static Extension *
begin_locked(MemoryContext context)
{
	MemoryContext caller;
	Extension  *extension;

	worker_begin();
	caller = MemoryContextSwitchTo(context ? context : CurrentMemoryContext);
	extension = extension_lookup(true);
	MemoryContextSwitchTo(caller);
	if (extension == NULL || !lock_await_run(extension))
		return NULL;
	return extension;
}

/* The first run after `after` that wants draining, as a Drain; or NULL. */
static Drain *
next_drain(MemoryContext context, int64 *after)
{
	MemoryContext caller;
	Extension  *extension = begin_locked(context);
	Drain	   *drain = NULL;

	caller = MemoryContextSwitchTo(context);
	if (extension != NULL)
	{
		List	   *runs = ledger_unfinished_runs(extension, 0);
		ListCell   *lc;

		foreach(lc, runs)
		{
			LedgerWork *work = lfirst(lc);

			if (work->run_id <= *after)
				continue;
			*after = work->run_id;
			drain = drain_begin(extension, work, false);
			if (drain == NULL)
				continue;
			progress_begin(context, work->trigger, false, false);
			progress_set_run(work->run_id);
			progress_set(PROGRESS_CONDEMNED, work->files);
			break;
		}
	}
	MemoryContextSwitchTo(caller);
	worker_commit();
	return drain;
}

/* Returns whether something had to be put off because of writers. */
static bool
drain_run(Drain *drain)
{
	bool		more;

	pgstat_report_activity(STATE_RUNNING,
						   psprintf("draining run %lld", (long long) drain->run_id));
	do
	{
		TimestampTz began = GetCurrentTimestamp();

		worker_look_up();
		if (begin_locked(NULL) == NULL)
			more = false;
		else
			more = drain_step(drain, true);
		worker_commit();
		drain_rest(drain, began);
	} while (more);
	drain_end(drain);
	pgstat_report_activity(STATE_IDLE, NULL);
	return drain->put_off;
}

/* All runs once, each at a time; returns whether something was put off. */
static bool
drain_all(MemoryContext context)
{
	bool		put_off = false;
	int64		after = 0;
	Drain	   *drain;

	while ((drain = next_drain(context, &after)) != NULL)
	{
		if (drain_run(drain))
			put_off = true;
		MemoryContextReset(context);
	}
	return put_off;
}

/*
 * Wait for the run lock once, unless another worker does so already: then it
 * will see whatever the one that started us has left to be done.
 */
static bool
wait_for_turn(MemoryContext context)
{
	MemoryContext caller;
	Extension  *extension;
	bool		mine = false;

	worker_begin();
	caller = MemoryContextSwitchTo(context);
	extension = extension_lookup(true);
	MemoryContextSwitchTo(caller);
	if (extension != NULL && lock_try(extension, LOCK_QUEUE))
	{
		mine = lock_await_run(extension);
		lock_release(extension, LOCK_QUEUE);
		if (mine)
			claim_confirm_all(extension);
	}
	worker_commit();
	return mine;
}

void
cleanup_drain_worker_main(Datum database)
{
	MemoryContext context;
	int			tries = 0;

	worker_receive_signals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);
	worker_override_settings();

	context = AllocSetContextCreate(TopMemoryContext, "audio_cleanup drain",
									ALLOCSET_DEFAULT_SIZES);
	if (!wait_for_turn(context))
		return;
	while (drain_all(context) && ++tries < MAX_TRIES)
	{
		/* a long transaction is writing; nobody waits for us meanwhile */
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 RETRY_MS, compat_wait_event("AudioCleanupDrainWait"));
		ResetLatch(MyLatch);
		worker_look_up();
	}
}
