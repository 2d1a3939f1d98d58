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
 * Gauges are counted when asked for, by partial indexes on what is still to be
 * done or lies in the trash.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "src/night/timetable.h"
#include "src/pg/extension.h"
#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/settings.h"
#include "src/show/metrics.h"
#include "src/store/store.h"
#include "src/text/json_build.h"

#define PREFIX	"audio_cleanup_"

static const Metric up =
{PREFIX "upload_dir_up", "gauge", "1 if the upload directory can be opened, else 0."};
static const Metric free_bytes =
{PREFIX "upload_dir_free_bytes", "gauge", "Bytes free in the file system of the upload directory."};
static const Metric size_bytes =
{PREFIX "upload_dir_size_bytes", "gauge", "Size of the file system of the upload directory in bytes."};
static const Metric schedule_enabled =
{PREFIX "schedule_enabled", "gauge", "1 if the built-in schedule will clean this database, else 0."};
static const Metric next_run =
{PREFIX "next_run_timestamp_seconds", "gauge", "When the built-in schedule cleans this database next."};

/* The gauges that read_state() selects, in its order. */
static const Metric state[] = {
	{PREFIX "sources", "gauge", "Registered sources."},
	{PREFIX "pending_files", "gauge", "Files that are condemned, or due to be destroyed, and not dealt with yet."},
	{PREFIX "oldest_pending_timestamp_seconds", "gauge", "Since when the oldest of these waits."},
	{PREFIX "backup_files", "gauge", "Files in the trash that can be restored."},
	{PREFIX "backup_bytes", "gauge", "Bytes of these files."},
	{PREFIX "unfinished_runs", "gauge", "Runs that are under way, or have files that are not dealt with yet."},
	{PREFIX "last_success_timestamp_seconds", "gauge", "When the last run that was done without an error ended; 0 if there was none."},
	{PREFIX "blocked", "gauge", "1 if the last run was refused by a brake, else 0."},
	{PREFIX "last_run_timestamp_seconds", "gauge", "When the last run that has ended began."},
	{PREFIX "last_run_duration_seconds", "gauge", "How long it took."},
	{PREFIX "last_run_errors", "gauge", "Files that it could not deal with."}
};

static const Metric last_run_status =
{PREFIX "last_run_status", "gauge", "1 for the status of the last run that has ended, else 0."};

static const char *const statuses[] = {"done", "failed", "interrupted", "blocked", NULL};
static const char *const reasons[] = {"orphan", "failed_session", "unknown", NULL};
static const char *const without[] = {"", NULL};

/* The counters: what cleanup_totals calls them, and the label they have. */
typedef struct Counter
{
	const char *total;
	const char *label;			/* NULL: none */
	const char *const *values;	/* that are known beforehand */
	Metric		metric;
} Counter;

static const Counter counters[] = {
	{"runs", "status", statuses, {PREFIX "runs_total", "counter", "Runs that have ended."}},
	{"failed_sessions", NULL, without, {PREFIX "failed_sessions_total", "counter", "Failed sessions whose audio was condemned."}},
	{"files_deleted", "reason", reasons, {PREFIX "files_deleted_total", "counter", "Files destroyed."}},
	{"bytes_freed", "reason", reasons, {PREFIX "bytes_freed_total", "counter", "Bytes given back to the file system."}},
	{"files_skipped", "reason", reasons, {PREFIX "files_skipped_total", "counter", "Condemned files that were let live: replaced, vanished, or referred to again."}},
	{"files_restored", "reason", reasons, {PREFIX "files_restored_total", "counter", "Files put back from the trash."}},
	{"files_failed", "reason", reasons, {PREFIX "files_failed_total", "counter", "Files that could not be dealt with."}}
};

typedef struct Collector
{
	MetricSink	sink;
	void	   *arg;
	const Extension *extension;
} Collector;

static void
emit(const Collector *collector, const Metric *metric, const char *label, const char *label_value,
	 double value)
{
	JsonBuilder json;

	json_begin(&json);
	if (label != NULL)
		json_add_text(&json, label, label_value);
	collector->sink(metric, json_end(&json), value, collector->arg);
}


/* ---------------------------------------------------------------- counters --- */

/* NULL where nothing was counted yet, which is 0. */
static double
find_total(int n, const char *name, const char *label)
{
	int			i;

	for (i = 0; i < n; i++)
		if (strcmp(sql_text(i, 1), name) == 0 && strcmp(sql_text(i, 2), label) == 0)
			return DatumGetFloat8(sql_value(i, 3));
	return 0;
}

static void
collect_counters(const Collector *collector)
{
	int			n;
	int			i;
	int			v;

	n = owner_query(collector->extension, 0, NULL, "SELECT name, label, value::float8 FROM @extschema@.cleanup_totals");
	for (i = 0; i < lengthof(counters); i++)
		for (v = 0; counters[i].values[v] != NULL; v++)
			emit(collector, &counters[i].metric, counters[i].label, counters[i].values[v],
				 find_total(n, counters[i].total, counters[i].values[v]));
	SPI_freetuptable(SPI_tuptable);
}

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


/* ------------------------------------------------------------------ gauges --- */

/* In the order of state[], then the status; what is NULL cannot be told. */
static void
collect_state(const Collector *collector)
{
	int			i;
	char	   *status;

	owner_query(collector->extension, 0, NULL,
				"WITH waiting AS (SELECT condemned_at AS since FROM @extschema@.cleanup_files WHERE state = 'pending'"
				"  UNION ALL SELECT due_at FROM @extschema@.cleanup_files WHERE state = 'trashed' AND due_at <= clock_timestamp()),"
				" pending AS (SELECT count(*) AS n, extract(epoch FROM min(since)) AS since FROM waiting),"
				" backup AS (SELECT count(*) AS n, coalesce(sum(size), 0) AS bytes FROM @extschema@.cleanup_files"
				"  WHERE state = 'trashed' AND due_at > clock_timestamp()),"
				" success AS (SELECT extract(epoch FROM max(finished_at)) AS at FROM @extschema@.cleanup_runs"
				"  WHERE run_id = (SELECT max(run_id) FROM @extschema@.cleanup_runs WHERE status = 'done')),"
				" last AS (SELECT status, started_at, finished_at, errors FROM @extschema@.cleanup_runs"
				"  WHERE finished_at IS NOT NULL ORDER BY run_id DESC LIMIT 1)"
				" SELECT (SELECT count(*) FROM @extschema@.cleanup_sources)::float8, p.n::float8, p.since::float8,"
				"  b.n::float8, b.bytes::float8,"
				"  (SELECT count(*) FROM @extschema@.cleanup_runs WHERE finished_at IS NULL)::float8,"
				"  coalesce(s.at, 0)::float8, (l.status IS NOT DISTINCT FROM 'blocked')::int::float8,"
				"  extract(epoch FROM l.started_at)::float8, extract(epoch FROM l.finished_at - l.started_at)::float8,"
				"  l.errors::float8, l.status"
				" FROM pending p, backup b, success s LEFT JOIN last l ON true");
	for (i = 0; i < lengthof(state); i++)
		if (!sql_is_null(0, i + 1))
			emit(collector, &state[i], NULL, NULL, DatumGetFloat8(sql_value(0, i + 1)));
	status = sql_text(0, lengthof(state) + 1);
	for (i = 0; status != NULL && statuses[i] != NULL; i++)
		emit(collector, &last_run_status, "status", statuses[i], strcmp(status, statuses[i]) == 0);
	SPI_freetuptable(SPI_tuptable);
}

/* Nothing here raises an error while the directory is open. */
static void
collect_directory(const Collector *collector)
{
	FileStore  *store = store_open(settings_snapshot()->upload_dir);
	bool		is_up = store != NULL;
	int64		available = 0;
	int64		size = 0;
	bool		is_known = is_up && store_space(store, &available, &size) == 0;

	store_close(store);
	emit(collector, &up, NULL, NULL, is_up);
	if (!is_known)
		return;
	emit(collector, &free_bytes, NULL, NULL, (double) available);
	emit(collector, &size_bytes, NULL, NULL, (double) size);
}

static double
unix_time(TimestampTz time)
{
	return (double) time / USECS_PER_SEC +
		(double) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
}

static void
collect_schedule(const Collector *collector)
{
	NextRun		next = timetable_next_run(collector->extension);

	emit(collector, &schedule_enabled, NULL, NULL, next.is_known);
	if (next.is_known)
		emit(collector, &next_run, NULL, NULL, unix_time(next.at));
}

void
metrics_collect(MetricSink sink, void *arg)
{
	Collector	collector = {sink, arg, NULL};

	SPI_connect();
	collector.extension = extension_lookup(false);
	collect_counters(&collector);
	collect_state(&collector);
	collect_schedule(&collector);
	collect_directory(&collector);
	SPI_finish();
}
