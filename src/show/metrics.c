/*-------------------------------------------------------------------------
 *
 * show/metrics.c
 *	  Figures for a monitoring system, by the names of Prometheus.
 *
 * A counter may only grow, or rates computed from it are nonsense; the
 * history shrinks when it is pruned.  So counters live in cleanup_totals, and
 * triggers add to them when a file or a run comes to its end, in the same
 * transaction and whoever does it.  That makes them as cheap to read as they
 * are few, however long the history.
 *
 * Gauges are counted when somebody asks for them, by partial indexes on what is
 * still to be done or lies in the trash: see cleanup_metrics_rows() in the
 * extension's script.  What that cannot know, the state of the upload
 * directory, is found out here.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/tstoreReceiver.h"

#include "src/pg/extension.h"
#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/plan/plan.h"
#include "src/settings.h"
#include "src/show/show.h"
#include "src/store/store.h"

/* --------------------------------------------------------------- counters --- */

/* `ended` yields (name, label, value), any number of rows of a name and label. */
static void
add_to_totals(const char *ended)
{
	Extension  *extension = extension_lookup(false);
	ActingAs	saved;

	role_act_as(extension->owner, &saved);
	role_join_by_hash();
	/* in order, so that nobody waits for somebody who waits for him */
	owner_query(extension, 0, NULL,
				psprintf("INSERT INTO @extschema@.cleanup_totals AS t (name, label, value)"
						 " SELECT e.name, e.label, sum(e.value) FROM (%s) e"
						 " GROUP BY e.name, e.label HAVING sum(e.value) > 0 ORDER BY e.name, e.label"
						 " ON CONFLICT (name, label) DO UPDATE SET value = t.value + excluded.value", ended));
	role_stop_acting(&saved);
}

/* A file comes to its end once. */
void
metrics_count_files(void)
{
	add_to_totals("SELECT v.name, n.reason AS label, v.value"
				  " FROM cleanup_new n JOIN cleanup_old o ON o.file_id = n.file_id,"
				  "  LATERAL (VALUES ('files_' || n.state, 1),"
				  "   ('bytes_freed', CASE WHEN n.state = 'deleted' THEN n.freed END)) v(name, value)"
				  " WHERE n.state <> o.state AND n.state IN ('deleted', 'skipped', 'restored', 'failed')");
}

void
metrics_count_runs(void)
{
	add_to_totals("SELECT v.name, v.label, v.value"
				  " FROM cleanup_new n JOIN cleanup_old o ON o.run_id = n.run_id,"
				  "  LATERAL (VALUES ('runs', n.status, 1), ('failed_sessions', '', n.failed_sessions)) v(name, label, value)"
				  " WHERE n.finished_at IS NOT NULL AND o.finished_at IS NULL");
}


/* --------------------------------------------------------------------- rows --- */

void
metrics_collect(Tuplestorestate *rows)
{
	const Settings *settings = settings_snapshot();
	FileStore  *store = store_open(settings->upload_dir);
	bool		is_up = store != NULL && store_reach(store) == 0;
	int64		available = 0;
	int64		size = 0;
	bool		is_known = is_up && store_space(store, &available, &size) == 0;
	int64		uploads = 0;
	bool		has_uploads = is_up && plan_count_uploads(store, settings, &uploads);
	DestReceiver *receiver = CreateDestReceiver(DestTuplestore);

	store_close(store);
	SetTuplestoreDestReceiverParams(receiver, rows, CurrentMemoryContext, false, NULL, NULL);
	SPI_connect();
	owner_query_into(extension_lookup(false),
				SQL_ARGS(SQL_BOOL(is_up), {INT8OID, Int64GetDatum(available), !is_known}, {INT8OID, Int64GetDatum(size), !is_known},
						 {INT8OID, Int64GetDatum(uploads), !has_uploads}),
					 "SELECT * FROM @extschema@.cleanup_metrics_rows($1, $2, $3, $4)", receiver);
	SPI_finish();
	receiver->rDestroy(receiver);
}
