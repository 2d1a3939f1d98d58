/*-------------------------------------------------------------------------
 *
 * ledger/notify.c
 *	  Notifies listeners (LISTEN) that a run has finished.
 *
 * A transaction that has executed NOTIFY cannot be prepared, but a run must
 * not stop its caller from using PREPARE TRANSACTION.  So the notices are
 * kept here, and become a NOTIFY only just before the commit:
 * XACT_EVENT_PRE_COMMIT comes before the server writes the transaction's
 * notifications into the queue, and never comes for a transaction that is
 * prepared.
 *
 * If a listener does not end its transaction, the server's queue becomes full.
 * Every transaction that notifies then fails.  A run must not fail because of
 * the queue, so a run does not notify when the queue is nearly full.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/async.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "src/ledger/ledger.h"
#include "src/pg/at_end.h"
#include "src/pg/sql.h"

#define CHANNEL		"audio_cleanup"

/* fraction of the server's queue; a run does not notify when more is used */
#define MAX_QUEUE_USAGE	0.9

typedef struct Notice
{
	AtEnd		at_end;
	char	   *payload;
} Notice;

static void send_notices(void);

/* the notices are allocated in the transaction's memory, and need no forget() */
static AtEndList notices = {.before_commit = send_notices};

void
notify_run(const Extension *extension, int64 run_id)
{
	Datum		payload = owner_value(extension, SQL_ARGS(SQL_INT8(run_id)),
									  "SELECT jsonb_build_object('run_id', run_id, 'status', status, 'trigger', trigger,"
									  " 'files', files, 'deleted', deleted, 'bytes', bytes, 'errors', errors)::text"
									  " FROM @extschema@.cleanup_runs WHERE run_id = $1 AND finished_at IS NOT NULL");
	Notice	   *notice;

	if (payload == 0)
		return;
	notice = MemoryContextAllocZero(TopTransactionContext, sizeof(Notice));
	notice->payload = MemoryContextStrdup(TopTransactionContext, TextDatumGetCString(payload));
	at_end_add(&notices, &notice->at_end);
}

static void
send_notices(void)
{
	dlist_iter	iter;

	if (DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0)) >= MAX_QUEUE_USAGE)
	{
		ereport(WARNING,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("no notification is sent about this cleanup, because the notification queue is nearly full"),
				 errhint("End the transaction of the session that listens and does not read.")));
		return;
	}
	dlist_foreach(iter, &notices.entries)
		Async_Notify(CHANNEL, dlist_container(Notice, at_end.node, iter.cur)->payload);
}
