/*-------------------------------------------------------------------------
 *
 * ledger/files.c
 *	  Rows of cleanup_files: a file is condemned, and what becomes of it.
 *
 * The state of a file only ever goes forward: pending -> trashed -> deleted,
 * or to skipped, failed, or by restoring to restored (or back to trashed, if
 * its name is taken).  Every UPDATE names the state that it
 * expects, so that a row which somebody else has moved on is left alone.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "src/ledger/ledger.h"
#include "src/pg/role.h"
#include "src/pg/sql.h"

static const char *const take_failed_files =
"UPDATE @extschema@.cleanup_files f SET run_id = $1, state = 'pending', error = NULL,"
"  condemned_at = pg_catalog.clock_timestamp(), finished_at = NULL,"
"  due_at = now() + pg_catalog.make_interval(days => $2),"
"  reason = CASE WHEN c.source IS NULL THEN 'orphan' ELSE 'failed_session' END,"
"  source = c.source, session_id = c.session, ctime_ns = c.ctime_ns, space = c.space"
" FROM cleanup_condemned c"
" WHERE f.state = 'failed' AND f.reason <> 'unknown' AND f.file = c.path COLLATE \"C\""
"  AND f.inode = c.inode AND f.size = c.size AND f.mtime_ns = c.mtime_ns"
"  AND EXISTS (SELECT FROM @extschema@.cleanup_runs o, @extschema@.cleanup_runs r"
"   WHERE o.run_id = f.run_id AND r.run_id = $1 AND o.claim = r.claim)"
"  AND NOT EXISTS (SELECT FROM @extschema@.cleanup_files n"
"   WHERE n.state = 'failed' AND n.reason <> 'unknown' AND n.file = f.file AND n.file_id > f.file_id)";

/*
 * The rows of files that have failed before become rows of this run.  Returns
 * whether there are any.
 */
static bool
take_failed(const Extension *extension, int64 run_id, int backup_days)
{
	const SqlParameter parameters[] = {SQL_INT8(run_id), SQL_INT4(backup_days)};

	if (!owner_finds(extension, 0, NULL,
					 "SELECT FROM @extschema@.cleanup_files WHERE state = 'failed' LIMIT 1"))
		return false;
	return owner_query(extension, lengthof(parameters), parameters, take_failed_files) > 0;
}

void
ledger_add_files(const Extension *extension, int64 run_id, Condemned *condemned, int backup_days)
{
	const SqlParameter of_files[] = {SQL_INT8(run_id), SQL_INT4(backup_days)};
	const SqlParameter of_run[] = {
		SQL_INT8(run_id), SQL_INT8(condemned->n_orphans), SQL_INT8(condemned->n_sessions),
		SQL_INT8(condemned->n_files)
	};
	bool		again;

	sql_show_tuplestore("cleanup_condemned", condemned->files, condemned->files_desc);
	again = take_failed(extension, run_id, backup_days);
	owner_query(extension, lengthof(of_files), of_files,
				psprintf("INSERT INTO @extschema@.cleanup_files (run_id, file, reason, source, session_id, size, space,"
						 "  modified_at, due_at, inode, mtime_ns, ctime_ns, btime_ns)"
						 " SELECT $1, c.path, CASE WHEN c.source IS NULL THEN 'orphan' ELSE 'failed_session' END,"
						 "  c.source, c.session, c.size, c.space, pg_catalog.to_timestamp(c.mtime_ns / 1e9),"
						 "  now() + pg_catalog.make_interval(days => $2),"
						 "  c.inode, c.mtime_ns, c.ctime_ns, c.btime_ns"
						 " FROM cleanup_condemned c %s",
						 again ? "WHERE NOT EXISTS (SELECT FROM @extschema@.cleanup_files f"
						 " WHERE f.run_id = $1 AND f.state = 'pending' AND f.file = c.path COLLATE \"C\")" : ""));
	sql_hide_tuplestore("cleanup_condemned");
	owner_query(extension, lengthof(of_run), of_run,
				"UPDATE @extschema@.cleanup_runs SET orphaned_files = orphaned_files + $2,"
				" failed_sessions = failed_sessions + $3, files = files + $4 WHERE run_id = $1");
}

LedgerFile *
ledger_files(const Extension *extension, int64 run_id, LedgerKind kind, int64 after,
			 int limit, int *n)
{
	const SqlParameter parameters[] = {SQL_INT8(run_id), SQL_INT8(after), SQL_INT4(limit)};
	static const char *const conditions[] = {
		[LEDGER_PENDING] = "state = 'pending'",
		[LEDGER_DUE] = "state = 'trashed' AND due_at <= clock_timestamp()",
		[LEDGER_RESTORABLE] = "state IN ('trashed', 'pending')",
		[LEDGER_RESTORING] = "state = 'restoring'",
	};
	LedgerFile *files;
	int			i;

	*n = owner_query(extension, lengthof(parameters), parameters,
					 psprintf("SELECT file_id, file, inode, size, mtime_ns, ctime_ns, btime_ns, condemned_at,"
							  " source, session_id, error, restore_as, state = 'pending' OR due_at <= clock_timestamp(),"
							  " due_at > condemned_at, space, state <> 'pending'"
							  " FROM @extschema@.cleanup_files WHERE run_id = $1 AND file_id > $2 AND %s"
							  " ORDER BY file_id LIMIT $3", conditions[kind]));
	files = palloc0(sizeof(LedgerFile) * Max(*n, 1));
	for (i = 0; i < *n; i++)
	{
		files[i].file_id = DatumGetInt64(sql_value(i, 1));
		files[i].path = sql_text(i, 2);
		files[i].identity.inode = (uint64) DatumGetInt64(sql_value(i, 3));
		files[i].identity.size = DatumGetInt64(sql_value(i, 4));
		files[i].identity.mtime_ns = DatumGetInt64(sql_value(i, 5));
		files[i].identity.ctime_ns = DatumGetInt64(sql_value(i, 6));
		files[i].identity.btime_ns = DatumGetInt64(sql_value(i, 7));
		files[i].condemned_at = DatumGetTimestampTz(sql_value(i, 8));
		files[i].source = sql_text(i, 9);
		files[i].session = sql_text(i, 10);
		files[i].note = sql_text(i, 11);
		files[i].restore_as = sql_text(i, 12);
		files[i].unsettled = DatumGetBool(sql_value(i, 13));
		files[i].is_backup = DatumGetBool(sql_value(i, 14));
		files[i].identity.space = DatumGetInt64(sql_value(i, 15));
		files[i].identity.captured = DatumGetBool(sql_value(i, 16));
	}
	SPI_freetuptable(SPI_tuptable);
	return files;
}

int64 *
ledger_still_due(const Extension *extension, int64 run_id, int64 first, int64 last, int *n)
{
	const SqlParameter parameters[] = {SQL_INT8(run_id), SQL_INT8(first), SQL_INT8(last)};
	int64	   *due;

	*n = owner_numbers(extension, lengthof(parameters), parameters,
					   "SELECT f.file_id FROM @extschema@.cleanup_files f WHERE f.run_id = $1"
					   " AND f.file_id BETWEEN $2 AND $3 AND f.state = 'trashed' AND f.due_at <= clock_timestamp()"
					   " AND NOT EXISTS (SELECT FROM @extschema@.cleanup_holds h WHERE h.file = f.file)"
					   " ORDER BY f.file_id", &due);
	return due;
}

static const SqlColumn record_columns[] = {
	{"file_id", INT8OID}, {"state", TEXTOID}, {"error", TEXTOID}, {"freed", INT8OID}, {"restore_as", TEXTOID}
};

/* What is to be recorded, as a relation of which the planner knows the size. */
static Tuplestorestate *
store_records(const LedgerFile *files, int n, TupleDesc desc)
{
	Tuplestorestate *store = tuplestore_begin_heap(true, false, work_mem);
	int			i;

	for (i = 0; i < n; i++)
	{
		const LedgerFile *file = &files[i];
		Datum		values[5];
		bool		nulls[5] = {false, false, file->error == NULL, false, file->restore_as == NULL};

		if (file->new_state == NULL)
			continue;
		values[0] = Int64GetDatum(file->file_id);
		values[1] = CStringGetTextDatum(file->new_state);
		values[2] = file->error ? CStringGetTextDatum(file->error) : (Datum) 0;
		values[3] = Int64GetDatum(file->freed);
		values[4] = file->restore_as ? CStringGetTextDatum(file->restore_as) : (Datum) 0;
		tuplestore_putvalues(store, desc, values, nulls);
	}
	return store;
}

/*
 * The bounds let an index range be read, whatever the planner thinks of the
 * join.  A backup that somebody wants is not destroyed soon because its
 * name turns out to be taken.
 */
void
ledger_record(const Extension *extension, const LedgerFile *files, int n)
{
	const SqlParameter parameters[] = {
		SQL_INT8(files[0].file_id), SQL_INT8(files[n - 1].file_id)
	};
	TupleDesc	desc = sql_row_desc(lengthof(record_columns), record_columns);
	Tuplestorestate *store = store_records(files, n, desc);
	ActingAs	saved;

	role_act_as(extension->owner, &saved);
	role_join_by_hash();
	sql_show_tuplestore("cleanup_records", store, desc);
	owner_query(extension, lengthof(parameters), parameters,
				"UPDATE @extschema@.cleanup_files f SET state = u.state, error = u.error,"
				"  freed = CASE WHEN u.state = 'deleted' THEN u.freed END,"
				"  finished_at = CASE WHEN u.state NOT IN ('trashed', 'restoring') THEN pg_catalog.clock_timestamp() END,"
				"  restore_as = u.restore_as,"
				"  due_at = CASE WHEN u.state = 'restoring' OR u.state = 'trashed' AND u.error IS NOT NULL"
				"   THEN greatest(f.due_at, now() + '30 days') ELSE f.due_at END"
				" FROM cleanup_records u"
				" WHERE f.file_id = u.file_id AND f.state IN ('pending', 'trashed', 'restoring')"
				"  AND f.file_id BETWEEN $1 AND $2");
	sql_hide_tuplestore("cleanup_records");
	tuplestore_end(store);
	role_stop_acting(&saved);
}

void
ledger_expired(const Extension *extension, int limit, LedgerExpired *expired)
{
	const SqlParameter parameters[] = {SQL_INT4(limit)};
	int			n;
	int			i;

	memset(expired, 0, sizeof(*expired));
	n = owner_query(extension, lengthof(parameters), parameters,
					"SELECT file, pg_catalog.count(*) OVER (), least(pg_catalog.sum(space) OVER (), " LEDGER_MAX_BYTES ")::bigint"
					" FROM @extschema@.cleanup_files WHERE state = 'trashed' AND due_at <= clock_timestamp()"
					" ORDER BY file LIMIT $1");
	for (i = 0; i < n; i++)
		expired->files = lappend(expired->files, sql_text(i, 1));
	if (n > 0)
	{
		expired->n_files = DatumGetInt64(sql_value(0, 2));
		expired->bytes = DatumGetInt64(sql_value(0, 3));
	}
	SPI_freetuptable(SPI_tuptable);
}
