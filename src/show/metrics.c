/*-------------------------------------------------------------------------
 *
 * show/metrics.c
 *	  Figures for a monitoring system, with names in the style of Prometheus.
 *
 * A counter may only grow, or the rates computed from it are wrong.  But the
 * history shrinks when it is pruned.  So cleanup_totals has the counters, and
 * triggers add to the counters in every transaction that ends a file or a run.
 * There are few counters, so reading them costs little, however long the
 * history is.
 *
 * Gauges are counted when somebody asks, by partial indexes on the rows that
 * are not finished or lie in the trash: see cleanup_metrics_rows() in the
 * extension's script.  This file finds out the state of the upload directory,
 * which SQL cannot know.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "executor/tstoreReceiver.h"

#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/plan/plan.h"
#include "src/show/show.h"

/* --------------------------------------------------------------- counters --- */

/*
 * Adds values to cleanup_totals, for a trigger.  The query `ended` sees the rows
 * before and after an UPDATE as two tables, and returns (name, label, value),
 * with any number of rows for one name and label.
 */
static void
add_to_totals(FunctionCallInfo fcinfo, const char *ended)
{
	Extension  *extension;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function can only be called as a trigger")));
	SPI_connect();
	if (SPI_register_trigger_data((TriggerData *) fcinfo->context) != SPI_OK_TD_REGISTER)
		elog(ERROR, "could not register the rows of a trigger");
	extension = extension_lookup(false);
	/* one order for all transactions, so that no two wait for each other */
	owner_query_by_hash(extension, 0, NULL,
						psprintf("INSERT INTO @extschema@.cleanup_totals AS t (name, label, value)"
								 " SELECT e.name, e.label, sum(e.value) FROM (%s) e"
								 " GROUP BY e.name, e.label HAVING sum(e.value) > 0 ORDER BY e.name, e.label"
								 " ON CONFLICT (name, label) DO UPDATE SET value = t.value + excluded.value", ended));
	SPI_finish();
}

/* Counts each file once, because a file ends once. */
void
metrics_count_files(FunctionCallInfo fcinfo)
{
	add_to_totals(fcinfo,
				  "SELECT v.name, n.reason AS label, v.value"
				  " FROM cleanup_new n JOIN cleanup_old o ON o.file_id = n.file_id,"
				  "  LATERAL (VALUES ('files_' || n.state, 1),"
				  "   ('bytes_freed', CASE WHEN n.state = 'deleted' THEN n.freed END)) v(name, value)"
				  " WHERE n.state <> o.state AND n.state IN ('deleted', 'skipped', 'restored', 'failed')");
}

void
metrics_count_runs(FunctionCallInfo fcinfo)
{
	add_to_totals(fcinfo,
				  "SELECT v.name, v.label, v.value"
				  " FROM cleanup_new n JOIN cleanup_old o ON o.run_id = n.run_id,"
				  "  LATERAL (VALUES ('runs', n.status, 1), ('failed_sessions', '', n.failed_sessions)) v(name, label, value)"
				  " WHERE n.finished_at IS NOT NULL AND o.finished_at IS NULL");
}


/* --------------------------------------------------------------------- rows --- */

void
metrics_collect(Tuplestorestate *rows, TupleDesc desc)
{
	const Settings *settings = settings_snapshot();
	FileStore  *store = store_open(settings->upload_dir);
	bool		is_up = store != NULL && store_reach(store) == 0;
	int64		available = 0;
	int64		size = 0;
	bool		is_known = is_up && store_space(store, &available, &size) == 0;
	int64		uploads = 0;
	volatile bool has_uploads = false;
	DestReceiver *receiver = CreateDestReceiver(DestTuplestore);

	PG_TRY();
	{
		has_uploads = is_up && plan_count_uploads(store, settings, &uploads);
	}
	PG_FINALLY();
	{
		store_close(store);
	}
	PG_END_TRY();
	SetTuplestoreDestReceiverParams(receiver, rows, CurrentMemoryContext, false, NULL, NULL);
	SPI_connect();
	owner_query_into(extension_lookup(false),
					 SQL_ARGS(SQL_BOOL(is_up), SQL_INT8_IF(is_known, available), SQL_INT8_IF(is_known, size),
							  SQL_INT8_IF(has_uploads, uploads)),
					 "SELECT * FROM @extschema@.cleanup_metrics_rows($1, $2, $3, $4)", receiver);
	SPI_finish();
	receiver->rDestroy(receiver);
}
