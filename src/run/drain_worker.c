/*-------------------------------------------------------------------------
 *
 * run/drain_worker.c
 *	  The background worker that finishes what committed runs have left.
 *
 * A transaction that is about to commit starts the worker.  The worker waits
 * for the run lock, which the transaction gives back after its commit
 * callback.  So the worker records what the callback has done.  The worker
 * works in steps, each a transaction under the run lock, so that nobody waits
 * for the lock for long.  The worker ends when no work is left.  The worker
 * need not know which run has started the worker.  If the worker dies, the
 * next run drains.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"

#include "src/drain/drain.h"
#include "src/guard/claim.h"
#include "src/pg/lock.h"
#include "src/pg/progress.h"
#include "src/pg/worker.h"
#include "src/run/run.h"

/* Files that wait for a writer are looked at again after this time, for an hour. */
#define RETRY_MS	10000
#define MAX_TRIES	360

/*
 * Begins a transaction under the run lock.  Returns the extension, allocated
 * in `context` or, if `context` is NULL, in the transaction's own context.
 * Returns NULL if the extension is gone.
 */
static Extension *
begin_locked(MemoryContext context)
{
	Extension  *extension;

	worker_look_up();
	extension = worker_begin_in(context);
	return extension != NULL && lock_await_run(extension) ? extension : NULL;
}

static bool
begin_locked_step(void *arg)
{
	if (begin_locked(NULL) != NULL)
		return true;
	worker_commit();
	return false;
}

static void
commit_locked_step(void *arg)
{
	worker_commit();
}

/*
 * Drains a run.  Returns whether something was put off.  An ERROR, which the
 * server log gets, ends only the work on this run, because the files of other
 * runs can still be dealt with.  A cancel ends the worker.
 */
static bool
drain_one(const Extension *extension, const LedgerWork *work, MemoryContext context)
{
	static const DrainTransactions transactions = {begin_locked_step, commit_locked_step, NULL};
	volatile bool put_off = false;

	PG_TRY();
	{
		put_off = drain_run(extension, work, NULL, true, &transactions);
	}
	PG_CATCH();
	{
		if (geterrcode() == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		worker_give_up(context);
	}
	PG_END_TRY();
	return put_off;
}

/*
 * Drains the next run after *after, and sets *after to its number.  Returns
 * false if there is no such run.
 */
static bool
drain_next(MemoryContext context, int64 *after, bool *put_off)
{
	Extension  *extension = begin_locked(context);
	const LedgerWork *next = NULL;

	MemoryContextSwitchTo(context);
	foreach_ptr(const LedgerWork, work, extension ? ledger_unfinished_runs(extension, 0) : NIL)
		if (next == NULL && work->run_id > *after)
		next = work;
	if (next == NULL)
	{
		worker_commit();
		return false;
	}
	*after = next->run_id;
	pgstat_report_activity(STATE_RUNNING, psprintf("draining run %lld", (long long) *after));
	progress_begin(next->trigger, false, false);
	progress_set(PROGRESS_RUN, next->run_id);
	progress_set(PROGRESS_CONDEMNED, next->files);
	*put_off |= drain_one(extension, next, context);
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextReset(context);
	return true;
}

/* Drains all runs once, one at a time.  Returns whether something was put off. */
static bool
drain_all(MemoryContext context)
{
	bool		put_off = false;
	int64		after = 0;

	while (drain_next(context, &after, &put_off))
		;
	MemoryContextReset(context);
	return put_off;
}

/*
 * Waits for the run lock once.  Returns false without waiting if another
 * worker already waits: that worker will drain the runs for which this worker
 * was started.
 */
static bool
wait_for_turn(MemoryContext context)
{
	Extension  *extension = worker_begin_in(context);
	bool		mine = false;

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

	worker_connect(NULL, DatumGetObjectId(database));
	context = AllocSetContextCreate(TopMemoryContext, "audio_cleanup drain",
									ALLOCSET_DEFAULT_SIZES);
	if (!wait_for_turn(context))
		return;
	while (drain_all(context) && ++tries < MAX_TRIES)
	{
		/*
		 * a long transaction is writing; nobody waits for this worker
		 * meanwhile
		 */
		lock_nap(RETRY_MS, "AudioCleanupDrainWait");
		worker_look_up();
	}
}
