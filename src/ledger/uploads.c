/*-------------------------------------------------------------------------
 *
 * ledger/uploads.c
 *	  Rows of cleanup_files about uploads that were begun and never completed.
 *
 * Such a row goes from pending to deleted, skipped or failed, and is never in
 * the trash.  Every query about files leaves out the rows that have an
 * upload_id.  files.c reads and records these rows, too.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"


#include "src/ledger/ledger.h"
#include "src/pg/sql.h"

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
	int64	   *begun = palloc(sizeof(int64) * list_length(uploads));
	List	   *paths = NIL;
	List	   *ids = NIL;
	int64		n = 0;

	foreach_ptr(const StoreUpload, upload, uploads)
	{
		begun[list_length(paths)] = upload->begun_ns / 1000;
		paths = lappend(paths, unconstify(char *, upload->path));
		ids = lappend(ids, unconstify(char *, upload->id));
	}
	if (paths != NIL)
	{
		const SqlParameter parameters[] = {
			SQL_INT8(run_id), SQL_TEXT(claim), SQL_TEXTS(paths),
			SQL_TEXTS(ids), SQL_INT8S(begun, list_length(paths))
		};

		n = owner_query(extension, lengthof(parameters), parameters, take_failed_uploads);
		n += owner_query(extension, lengthof(parameters), parameters, add_uploads);
	}
	if (n > 0)
		owner_query(extension, SQL_ARGS(SQL_INT8(run_id), SQL_INT8(n)),
					"UPDATE @extschema@.cleanup_runs SET files = files + $2 WHERE run_id = $1");
	return n;
}
