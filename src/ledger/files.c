/*-------------------------------------------------------------------------
 *
 * ledger/files.c
 *	  Rows of cleanup_files: condemned files, and their states.
 *
 * CONTRIBUTING.md draws the states of a file.  cleanup_runs.captured_up_to
 * records once, for all files without backup, that the files are in the trash:
 * these files go from pending to deleted.  A pending file with an error is not
 * in the trash.  Every UPDATE names the states that it expects, and so does
 * not change a row that another process has brought to its end.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "src/ledger/ledger.h"
#include "src/pg/sql.h"

/*
 * A condition that is true if the condemned file c is the file of the row f, which
 * has failed in an earlier run than $1.
 */
#define HAS_FAILED_BEFORE \
	"f.state = 'failed' AND f.reason <> 'unknown' AND f.upload_id IS NULL AND f.file = c.path COLLATE \"C\"" \
	" AND f.inode = c.inode AND f.size = c.size AND f.mtime_ns = c.mtime_ns" \
	" AND EXISTS (SELECT FROM @extschema@.cleanup_runs o, @extschema@.cleanup_runs r" \
	"  WHERE o.run_id = f.run_id AND r.run_id = $1 AND o.claim = r.claim)" \
	" AND NOT EXISTS (SELECT FROM @extschema@.cleanup_files n" \
	"  WHERE n.state = 'failed' AND n.reason <> 'unknown' AND n.upload_id IS NULL AND n.file = f.file AND n.file_id > f.file_id)"

/*
 * A file is `of_cleared` if it is an orphan because the earlier run has cleared
 * its session.
 */
static const char *const take_failed_files =
"UPDATE @extschema@.cleanup_files f SET run_id = $1, state = 'pending', error = coalesce(f.error, 'it has failed before'),"
"  condemned_at = $3, finished_at = NULL, due_at = $3 + pg_catalog.make_interval(days => $2),"
"  reason = CASE WHEN c.source IS NULL AND NOT c.of_cleared THEN 'orphan' ELSE 'failed_session' END,"
"  source = CASE WHEN c.of_cleared THEN f.source ELSE c.source END,"
"  session_id = CASE WHEN c.of_cleared THEN f.session_id ELSE c.session END,"
"  ctime_ns = c.ctime_ns, space = c.space"
" FROM (SELECT f.run_id, f.file_id, c.source, c.session, c.ctime_ns, c.space, c.source IS NULL AND k.run_id IS NOT NULL AS of_cleared"
"  FROM cleanup_condemned c JOIN @extschema@.cleanup_files f ON " HAS_FAILED_BEFORE
"  LEFT JOIN (SELECT DISTINCT run_id, source, session_id FROM @extschema@.cleanup_cleared) k"
"   ON k.run_id = f.run_id AND k.source = f.source AND k.session_id = f.session_id) c"
" WHERE f.state = 'failed' AND f.run_id = c.run_id AND f.file_id = c.file_id";

static const char *const take_cleared_values =
"INSERT INTO @extschema@.cleanup_cleared (run_id, source, session_id, key_columns, row_key, column_name, value)"
" SELECT DISTINCT $1, k.source, k.session_id, k.key_columns, k.row_key, k.column_name, k.value"
" FROM cleanup_condemned c JOIN @extschema@.cleanup_files f ON " HAS_FAILED_BEFORE
" JOIN @extschema@.cleanup_cleared k ON k.run_id = f.run_id AND k.source = f.source AND k.session_id = f.session_id"
" WHERE c.source IS NULL";

void
ledger_add_files(const Extension *extension, int64 run_id, Condemned *condemned, int backup_days)
{
	const SqlParameter parameters[] = {
		SQL_INT8(run_id), SQL_INT4(backup_days), SQL_VALUE(TIMESTAMPTZOID, TimestampTzGetDatum(GetCurrentTimestamp()))
	};
	bool		again;

	sql_show_tuplestore("cleanup_condemned", condemned->files, condemned->files_desc);

	/*
	 * The rows of files that have failed before become rows of this run.  The
	 * run that has failed may have cleared the session of such a file: the
	 * file stays a file of that session, and the cleared values come along,
	 * because a restore of the file must find them.
	 */
	again = owner_finds(extension, 0, NULL, "SELECT FROM @extschema@.cleanup_files WHERE state = 'failed' LIMIT 1");
	if (again && backup_days > 0)
		owner_query_by_hash(extension, 1, parameters, take_cleared_values);
	again = again && owner_query_by_hash(extension, 3, parameters, take_failed_files) > 0;

	/*
	 * all rows have one time: each later time would widen the range in the
	 * BRIN index.  The days of a backup begin then, and not with a
	 * transaction that may have begun days ago.
	 */
	owner_query_by_hash(extension, 3, parameters,
						psprintf("INSERT INTO @extschema@.cleanup_files (run_id, file, reason, source, session_id, size, space,"
								 "  condemned_at, modified_at, due_at, inode, mtime_ns, ctime_ns, btime_ns)"
								 " SELECT $1, c.path, CASE WHEN c.source IS NULL THEN 'orphan' ELSE 'failed_session' END,"
								 "  c.source, c.session, c.size, c.space, $3, pg_catalog.to_timestamp(c.mtime_ns / 1e9::float8),"
								 "  $3 + pg_catalog.make_interval(days => $2),"
								 "  c.inode, c.mtime_ns, c.ctime_ns, c.btime_ns"
								 " FROM cleanup_condemned c %s",
								 again ? "WHERE NOT EXISTS (SELECT FROM @extschema@.cleanup_files f"
								 " WHERE f.run_id = $1 AND f.state = 'pending' AND f.file = c.path COLLATE \"C\")" : ""));
	owner_query(extension,
				SQL_ARGS(SQL_INT8(run_id), SQL_INT8(condemned->n_orphans), SQL_INT8(condemned->n_sessions),
						 SQL_INT8(condemned->n_files)),
				"UPDATE @extschema@.cleanup_runs SET orphaned_files = orphaned_files + $2,"
				" failed_sessions = failed_sessions + $3, files = files + $4 WHERE run_id = $1");
}

#define CAPTURED_UP_TO	"(SELECT coalesce(r.captured_up_to, 0) FROM @extschema@.cleanup_runs r WHERE r.run_id = $1)"
#define IS_TRASHED \
	"(f.state = 'trashed' OR f.state = 'pending' AND f.upload_id IS NULL AND f.error IS NULL AND f.file_id <= " CAPTURED_UP_TO ")"

static const char *const conditions[] = {
	[LEDGER_PENDING] = "f.state = 'pending' AND f.upload_id IS NULL AND (f.error IS NOT NULL OR f.file_id > " CAPTURED_UP_TO ")",
	[LEDGER_TRASHED] = IS_TRASHED,
	[LEDGER_DUE] = IS_TRASHED " AND f.due_at <= clock_timestamp()",
	[LEDGER_RESTORABLE] = "f.state IN ('trashed', 'pending') AND f.upload_id IS NULL",
	[LEDGER_RESTORING] = "f.state = 'restoring'",
	[LEDGER_RETURNING] = "f.state IN ('restoring', 'restored') AND f.session_id IS NOT NULL AND f.source IS NOT NULL",
	[LEDGER_UPLOADS] = "f.state = 'pending' AND f.upload_id IS NOT NULL",
};

/* Returns the statement that reads the files of run $1 that are of this kind, and for which the condition `which` is true. */
static char *
select_files(LedgerKind kind, const char *which)
{
	return psprintf("SELECT f.file_id, f.file, f.inode, f.size, f.mtime_ns, f.ctime_ns, f.btime_ns, f.condemned_at,"
					" f.source, f.session_id, f.error, f.restore_as, f.state = 'pending' OR f.due_at <= clock_timestamp(),"
					" f.due_at > f.condemned_at, f.space, " IS_TRASHED " OR f.state = 'restoring',"
					" f.file IN (SELECT h.file FROM @extschema@.cleanup_holds h), f.upload_id"
					" FROM @extschema@.cleanup_files f WHERE f.run_id = $1 AND %s AND %s", conditions[kind], which);
}

/* Returns the `n` files that such a statement has read. */
static LedgerFile *
read_files(int n)
{
	LedgerFile *files;

	files = MemoryContextAllocExtended(CurrentMemoryContext, sizeof(LedgerFile) * Max(n, 1),
									   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < n; i++)
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
		files[i].is_held = DatumGetBool(sql_value(i, 17));
		files[i].upload_id = sql_text(i, 18);
	}
	/* ten thousand rows must not lie beside what the step makes of them */
	SPI_freetuptable(SPI_tuptable);
	return files;
}

LedgerFile *
ledger_files(const Extension *extension, int64 run_id, LedgerKind kind, int64 after,
			 int limit, int *n)
{
	*n = owner_query_in_order(extension, SQL_ARGS(SQL_INT8(run_id), SQL_INT8(after), SQL_INT4(limit)),
							  select_files(kind, "f.file_id > $2 ORDER BY f.file_id LIMIT $3"));
	return read_files(*n);
}

/* The bounds make the planner read a range of the key's index, and not all files of the run. */
LedgerFile *
ledger_pick(const Extension *extension, int64 run_id, LedgerKind kind, const int64 *file_ids, int n_ids, int *n)
{
	*n = owner_query(extension,
					 SQL_ARGS(SQL_INT8(run_id), SQL_INT8S(file_ids, n_ids),
							  SQL_INT8(n_ids > 0 ? file_ids[0] : 0),
							  SQL_INT8(n_ids > 0 ? file_ids[n_ids - 1] : 0)),
					 select_files(kind, "f.file_id = ANY ($2) AND f.file_id BETWEEN $3 AND $4 ORDER BY f.file_id"));
	return read_files(*n);
}

static const SqlColumn record_columns[] = {
	{"file_id", INT8OID}, {"state", TEXTOID}, {"error", TEXTOID}, {"freed", INT8OID}, {"restore_as", TEXTOID}
};

static void
add_record(Tuplestorestate *records, TupleDesc desc, const LedgerFile *file)
{
	Datum		values[] = {
		Int64GetDatum(file->file_id), CStringGetTextDatum(file->new_state),
		file->error ? CStringGetTextDatum(file->error) : (Datum) 0, Int64GetDatum(file->freed),
		file->restore_as ? CStringGetTextDatum(file->restore_as) : (Datum) 0
	};
	bool		nulls[] = {false, false, file->error == NULL, false, file->restore_as == NULL};

	tuplestore_putvalues(records, desc, values, nulls);
}

/*
 * The changes are a relation whose size the planner knows.  The bounds on
 * file_id make the planner read a range of an index, even if it misjudges the
 * join.  A backup that somebody wants to restore is kept for 30 more days if
 * its name turns out to be taken.
 */
static const char *const update_files =
"UPDATE @extschema@.cleanup_files f SET state = u.state, error = u.error,"
"  freed = CASE WHEN u.state = 'deleted' THEN u.freed END, size = CASE WHEN f.upload_id IS NULL THEN f.size ELSE u.freed END,"
"  finished_at = CASE WHEN u.state NOT IN ('pending', 'trashed', 'restoring') THEN pg_catalog.clock_timestamp() END,"
"  restore_as = u.restore_as,"
"  due_at = CASE WHEN u.state = 'restoring' OR u.state = 'trashed' AND u.error IS NOT NULL"
"   THEN greatest(f.due_at, now() + '30 days') ELSE f.due_at END"
" FROM cleanup_records u"
" WHERE f.run_id = $1 AND f.file_id = u.file_id AND f.state IN ('pending', 'trashed', 'restoring')"
"  AND f.file_id BETWEEN $2 AND $3";

void
ledger_record(const Extension *extension, int64 run_id, const LedgerFile *files, int n)
{
	Tuplestorestate *records = tuplestore_begin_heap(true, false, work_mem);
	TupleDesc	desc = sql_row_desc(lengthof(record_columns), record_columns);
	int64		first = 0;
	int64		last = 0;

	for (int i = 0; i < n; i++)
		if (files[i].new_state != NULL)
		{
			add_record(records, desc, &files[i]);
			first = first == 0 ? files[i].file_id : first;
			last = files[i].file_id;
		}
	if (first != 0)
	{
		sql_show_tuplestore("cleanup_records", records, desc);
		owner_query_by_hash(extension, SQL_ARGS(SQL_INT8(run_id), SQL_INT8(first), SQL_INT8(last)), update_files);
	}
	tuplestore_end(records);
}

bool
ledger_is_settled(const Extension *extension, int64 run_id)
{
	return owner_finds(extension, SQL_ARGS(SQL_INT8(run_id)),
					   "SELECT WHERE NOT EXISTS (SELECT FROM @extschema@.cleanup_files WHERE run_id = $1 AND state = 'pending')"
					   " AND NOT EXISTS (SELECT FROM @extschema@.cleanup_files WHERE run_id = $1"
					   "  AND state NOT IN ('deleted', 'skipped', 'pending') AND state IN ('trashed', 'restoring'))");
}

#define EXPIRED \
	" FROM @extschema@.cleanup_files f JOIN @extschema@.cleanup_runs r ON r.run_id = f.run_id" \
	" WHERE f.state = 'trashed' AND f.due_at <= clock_timestamp() AND r.claim = $1::uuid" \
	" AND coalesce(r.settings ->> 'backup_dir', '') <> ALL ($2)"

void
ledger_expired(const Extension *extension, const char *claim, List *out_of_reach, int limit, LedgerExpired *expired)
{
	const SqlParameter parameters[] = {SQL_TEXT(claim), SQL_TEXTS(out_of_reach), SQL_INT4(limit)};

	owner_query(extension, 2, parameters,
				"SELECT pg_catalog.count(*), " LEDGER_SUM_OF("f.space") EXPIRED);
	expired->n_files = DatumGetInt64(sql_value(0, 1));
	expired->bytes = DatumGetInt64(sql_value(0, 2));
	expired->files = owner_texts(extension, lengthof(parameters), parameters,
								 "SELECT f.file" EXPIRED " ORDER BY f.file LIMIT $3");
}
