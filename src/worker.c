/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  Background workers.
 *
 * The drain worker is started by a transaction that is about to commit.  It
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

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#include "src/claim.h"
#include "src/drain.h"
#include "src/ledger.h"
#include "src/worker.h"

/* Files that wait for a writer are looked at again so often, for an hour. */
#define RETRY_MS	10000
#define MAX_TRIES	360

/*
 * Settings that a DBA made for the sessions of users, with ALTER DATABASE or
 * in postgresql.conf, must not keep us from our work; as in autovacuum.
 */
static void
override_settings(void)
{
	static const char *const settings[][2] = {
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"session_replication_role", "origin"}
	};
	int			i;

	for (i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/* Begin and end a transaction of our own, with SPI. */
static void
begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
commit(void)
{
	PopActiveSnapshot();
	SPI_finish();
	CommitTransactionCommand();
	pgstat_report_stat(false);
}

/* Under the run lock; NULL if the extension is gone by now. */
static Extension *
begin_locked(MemoryContext context)
{
	MemoryContext caller;
	Extension  *extension;

	begin();
	caller = MemoryContextSwitchTo(context);
	extension = extension_lookup(true);
	MemoryContextSwitchTo(caller);
	if (extension == NULL || !extension_guard(extension))
		return NULL;
	extension_lock_run(extension, -1, false);
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
			if (drain != NULL)
				break;
		}
	}
	MemoryContextSwitchTo(caller);
	commit();
	return drain;
}

/* Returns whether something had to be put off because of writers. */
static bool
drain_run(Drain *drain, MemoryContext context)
{
	bool		more;

	pgstat_report_activity(STATE_RUNNING,
						   psprintf("draining run %lld", (long long) drain->run_id));
	do
	{
		CHECK_FOR_INTERRUPTS();
		if (begin_locked(context) == NULL)
			more = false;
		else
			more = drain_step(drain, true);
		commit();
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
		if (drain_run(drain, context))
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

	begin();
	caller = MemoryContextSwitchTo(context);
	extension = extension_lookup(true);
	MemoryContextSwitchTo(caller);
	if (extension != NULL && extension_guard(extension) && extension_queue_up(extension))
	{
		extension_lock_run(extension, -1, false);
		extension_leave_queue(extension);
		claim_confirm_all(extension);
		mine = true;
	}
	commit();
	return mine;
}

void
cleanup_drain_worker_main(Datum database)
{
	MemoryContext context;
	int			tries = 0;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);
	override_settings();

	context = AllocSetContextCreate(TopMemoryContext, "audio_cleanup drain",
									ALLOCSET_DEFAULT_SIZES);
	if (!wait_for_turn(context))
		return;
	while (drain_all(context) && ++tries < MAX_TRIES)
	{
		/* a long transaction is writing; nobody waits for us meanwhile */
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 RETRY_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}
