/*-------------------------------------------------------------------------
 *
 * ledger/notify.c
 *	  Telling those who LISTEN that a run is finished.
 *
 * A transaction that has executed NOTIFY cannot be prepared, and a run in
 * somebody's transaction must not take PREPARE TRANSACTION away from him.  So
 * what there is to tell is kept here, and becomes a NOTIFY of the transaction
 * only when it is about to commit: XACT_EVENT_PRE_COMMIT comes before the
 * server writes the transaction's notifications into the queue, and never for
 * one that is prepared.
 *
 * A queue that is full, because some listener does not end its transaction,
 * fails every transaction that notifies.  Ours is not to be among them.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "executor/spi.h"
#include "nodes/pg_list.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "src/ledger/notify.h"
#include "src/pg/sql.h"

#define CHANNEL		"audio_cleanup"

/* fullness of the server's queue from which on we keep silent */
#define MAX_QUEUE_USAGE	0.9

typedef struct Notice
{
	SubTransactionId subxact;
	char	   *payload;
} Notice;

static List *notices = NIL;		/* of this transaction, in its context */

/* How did it end?  NULL: it has not. */
static char *
describe_run(const Extension *extension, int64 run_id)
{
	const SqlParameter parameters[] = {SQL_INT8(run_id)};
	char	   *payload = NULL;

	if (owner_query(extension, lengthof(parameters), parameters,
					"SELECT jsonb_build_object('run_id', run_id, 'status', status, 'trigger', trigger,"
					" 'files', files, 'deleted', deleted, 'bytes', bytes, 'errors', errors)::text"
					" FROM @extschema@.cleanup_runs WHERE run_id = $1 AND finished_at IS NOT NULL") > 0)
		payload = sql_text(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return payload;
}

void
notify_run(const Extension *extension, int64 run_id)
{
	char	   *payload = describe_run(extension, run_id);
	MemoryContext caller;
	Notice	   *notice;

	if (payload == NULL)
		return;
	caller = MemoryContextSwitchTo(TopTransactionContext);
	notice = palloc(sizeof(Notice));
	notice->subxact = GetCurrentSubTransactionId();
	notice->payload = pstrdup(payload);
	notices = lappend(notices, notice);
	MemoryContextSwitchTo(caller);
	pfree(payload);
}

static bool
is_queue_full(void)
{
	if (DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0)) < MAX_QUEUE_USAGE)
		return false;
	ereport(WARNING,
			(errmsg("audio_cleanup does not notify: the server's queue of notifications is nearly full")));
	return true;
}

static void
send_notices(void)
{
	ListCell   *lc;

	if (notices == NIL || is_queue_full())
		return;
	foreach(lc, notices)
		Async_Notify(CHANNEL, ((Notice *) lfirst(lc))->payload);
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			send_notices();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			/* their memory goes with the transaction's */
			notices = NIL;
			break;
		default:
			break;
	}
}

/* A subtransaction's notices become its parent's, or are forgotten. */
static void
at_subtransaction_event(SubXactEvent event, SubTransactionId subxact,
						SubTransactionId parent, void *arg)
{
	ListCell   *lc;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	foreach(lc, notices)
	{
		Notice	   *notice = lfirst(lc);

		if (notice->subxact != subxact)
			continue;
		if (event == SUBXACT_EVENT_ABORT_SUB)
			notices = foreach_delete_current(notices, lc);
		else
			notice->subxact = parent;
	}
}

void
notify_init(void)
{
	RegisterXactCallback(at_transaction_event, NULL);
	RegisterSubXactCallback(at_subtransaction_event, NULL);
}
