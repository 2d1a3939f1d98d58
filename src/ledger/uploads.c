/*-------------------------------------------------------------------------
 *
 * ledger/uploads.c
 *	  Rows of cleanup_files about uploads that were begun and never completed.
 *
 * Such a row goes from pending to deleted, skipped or failed, and is never in
 * the trash.  Every query about files leaves out the rows that have an
 * upload_id.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/builtins.h"

#include "src/ledger/ledger.h"
#include "src/pg/sql.h"
#include "src/pg/time.h"

/*
 * $1 run_id, $2 claim, $3 paths, $4 upload ids, $5 times of their beginning,
 * in microseconds since 1970
 */
#define UPLOADS \
	"ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5)) u(path, id, begun)"

#define RUNS_OF_CLAIM \
	"(SELECT r.run_id FROM @extschema@.cleanup_runs r WHERE r.claim = $2::uuid)"

/* Makes the row of an upload that has failed before pending again: each upload has one row. */
static const char *const take_failed_uploads =
"UPDATE @extschema@.cleanup_files f SET run_id = $1, state = 'pending', finished_at = NULL,"
"  condemned_at = t.now, due_at = t.now"
" FROM " UPLOADS ", pg_catalog.clock_timestamp() t(now)"
" WHERE f.state = 'failed' AND f.upload_id = u.id AND f.file = u.path COLLATE \"C\""
"  AND f.run_id IN " RUNS_OF_CLAIM
"  AND NOT EXISTS (SELECT FROM @extschema@.cleanup_holds h WHERE h.file = u.path COLLATE \"C\")";

static const char *const add_uploads =
"INSERT INTO @extschema@.cleanup_files (run_id, file, upload_id, reason, size, modified_at, condemned_at, due_at,"
"  inode, mtime_ns, ctime_ns, btime_ns)"
" SELECT $1, u.path, u.id, 'unfinished_upload', 0, pg_catalog.to_timestamp(u.begun / 1e6), t.now, t.now,"
"  0, u.begun * 1000, u.begun * 1000, 0"
" FROM " UPLOADS ", pg_catalog.clock_timestamp() t(now)"
" WHERE NOT EXISTS (SELECT FROM @extschema@.cleanup_files f WHERE f.state = 'pending' AND f.upload_id = u.id"
"   AND f.file = u.path COLLATE \"C\" AND f.run_id IN " RUNS_OF_CLAIM ")"
"  AND NOT EXISTS (SELECT FROM @extschema@.cleanup_holds h WHERE h.file = u.path COLLATE \"C\")";

int64
ledger_add_uploads(const Extension *extension, int64 run_id, const char *claim, List *uploads)
{
	int64	   *begun = palloc(sizeof(int64) * Max(list_length(uploads), 1));
	List	   *paths = NIL;
	List	   *ids = NIL;
	int64		n = 0;
	int			i = 0;

	foreach_ptr(const LedgerUpload, upload, uploads)
	{
		paths = lappend(paths, unconstify(char *, upload->path));
		ids = lappend(ids, unconstify(char *, upload->upload_id));
		begun[i++] = time_to_unix_us(upload->begun_at);
	}
	if (i > 0)
	{
		const SqlParameter parameters[] = {
			SQL_INT8(run_id), SQL_TEXT(claim), SQL_TEXTS(paths),
			SQL_TEXTS(ids), SQL_INT8S(begun, i)
		};

		n = owner_query(extension, lengthof(parameters), parameters, take_failed_uploads);
		n += owner_query(extension, lengthof(parameters), parameters, add_uploads);
	}
	if (n > 0)
		owner_query(extension, SQL_ARGS(SQL_INT8(run_id), SQL_INT8(n)),
					"UPDATE @extschema@.cleanup_runs SET files = files + $2 WHERE run_id = $1");
	return n;
}

LedgerUpload *
ledger_uploads(const Extension *extension, int64 run_id, int64 after, int limit, int *n)
{
	LedgerUpload *uploads;

	*n = owner_query(extension, SQL_ARGS(SQL_INT8(run_id), SQL_INT8(after), SQL_INT4(limit)),
					 "SELECT f.file_id, f.file, f.upload_id, f.modified_at, f.condemned_at,"
					 " EXISTS (SELECT FROM @extschema@.cleanup_holds h WHERE h.file = f.file)"
					 " FROM @extschema@.cleanup_files f"
					 " WHERE f.run_id = $1 AND f.state = 'pending' AND f.upload_id IS NOT NULL AND f.file_id > $2"
					 " ORDER BY f.file_id LIMIT $3");
	uploads = palloc0(sizeof(LedgerUpload) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		uploads[i].file_id = DatumGetInt64(sql_value(i, 1));
		uploads[i].path = sql_text(i, 2);
		uploads[i].upload_id = sql_text(i, 3);
		uploads[i].begun_at = DatumGetTimestampTz(sql_value(i, 4));
		uploads[i].condemned_at = DatumGetTimestampTz(sql_value(i, 5));
		uploads[i].is_held = DatumGetBool(sql_value(i, 6));
	}
	SPI_freetuptable(SPI_tuptable);
	return uploads;
}

void
ledger_record_uploads(const Extension *extension, int64 run_id, const LedgerUpload *uploads, int n)
{
	int64	   *ids = palloc(sizeof(int64) * Max(n, 1));
	int64	   *freed = palloc(sizeof(int64) * Max(n, 1));
	List	   *states = NIL;
	List	   *errors = NIL;
	int			changed = 0;

	for (int i = 0; i < n; i++)
	{
		if (uploads[i].new_state == NULL)
			continue;
		ids[changed] = uploads[i].file_id;
		freed[changed++] = uploads[i].freed;
		states = lappend(states, unconstify(char *, uploads[i].new_state));
		errors = lappend(errors, uploads[i].error != NULL ? unconstify(char *, uploads[i].error) : "");
	}
	if (changed > 0)
		owner_query(extension,
					SQL_ARGS(SQL_INT8(run_id), SQL_INT8S(ids, changed),
							 SQL_TEXTS(states), SQL_TEXTS(errors),
							 SQL_INT8S(freed, changed)),
					"UPDATE @extschema@.cleanup_files f SET state = u.state, error = nullif(u.error, ''),"
					" finished_at = pg_catalog.clock_timestamp(), size = u.freed, freed = CASE u.state WHEN 'deleted' THEN u.freed END"
					" FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5))"
					"  u(file_id, state, error, freed)"
					" WHERE f.run_id = $1 AND f.file_id = u.file_id AND f.state = 'pending'");
}
