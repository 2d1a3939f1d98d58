/*-------------------------------------------------------------------------
 *
 * ledger/runs.c
 *	  Rows of cleanup_runs: a run begins, has work, and ends.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/date.h"

#include "src/ledger/ledger.h"
#include "src/pg/sql.h"

/* the message of a run whose process could not record why it ended */
#define PROCESS_ENDED	"its process ended before all files were dealt with"

int64
ledger_begin_run(const Context *context, const char *what, const char *trigger, int32 scheduled_for, bool batches)
{
	const SqlParameter parameters[] = {
		SQL_TEXT(what), SQL_TEXT(trigger),

		/*
		 * the outer user is visible through SECURITY DEFINER functions of the
		 * application
		 */
		SQL_TEXT(GetUserNameFromId(GetOuterUserId(), false)), SQL_TEXT(batches ? "running" : "pending"),
		SQL_TEXT(settings_showable(context->settings->upload_dir)),
		SQL_VALUE(JSONBOID, JsonbPGetDatum(settings_to_jsonb())),
		{DATEOID, DateADTGetDatum(scheduled_for), scheduled_for == LEDGER_NO_DAY}
	};

	return DatumGetInt64(owner_value(context->extension, lengthof(parameters), parameters,
									 "INSERT INTO @extschema@.cleanup_runs"
									 " (what, trigger, requested_by, status, upload_dir, settings, scheduled_for)"
									 " VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING run_id"));
}

void
ledger_set_claim(const Extension *extension, int64 run_id, const char *claim, const char *backup_owner)
{
	owner_query(extension,
				SQL_ARGS(SQL_INT8(run_id), SQL_TEXT(claim), SQL_TEXT(SETTINGS_BACKUP_OWNER), SQL_TEXT(backup_owner)),
				"UPDATE @extschema@.cleanup_runs SET claim = $2::uuid, settings = CASE WHEN $4 IS NULL"
				"  THEN settings ELSE settings || pg_catalog.jsonb_build_object($3, $4) END"
				" WHERE run_id = $1");
}

bool
ledger_has_work(const Extension *extension, int64 run_id)
{
	return owner_finds(extension, SQL_ARGS(SQL_INT8(run_id)),
					   "SELECT FROM @extschema@.cleanup_files f JOIN @extschema@.cleanup_runs r ON r.run_id = f.run_id"
					   " WHERE f.run_id = $1 AND (f.state IN ('pending', 'restoring') OR f.state = 'trashed'"
					   "  AND (f.due_at <= clock_timestamp() OR r.last_look_at IS NULL)) LIMIT 1");
}

void
ledger_end_search(const Extension *extension, int64 run_id, int64 n, const char *message)
{
	owner_query(extension, SQL_ARGS(SQL_INT8(run_id), SQL_INT8(n), SQL_TEXT(message)),
				"UPDATE @extschema@.cleanup_runs SET other_errors = $2, message = coalesce(message, $3),"
				" status = CASE status WHEN 'running' THEN 'pending' ELSE status END"
				" WHERE run_id = $1 AND ($2 > 0 OR status = 'running')");
}

/*
 * A drain may have finished the run already, because the process of the run no
 * longer held the run lock.  Then only the message changes, which the drain
 * could not know.
 */
bool
ledger_cut_short(const Extension *extension, int64 run_id, const char *status, const char *message)
{
	if (owner_query(extension, SQL_ARGS(SQL_INT8(run_id), SQL_TEXT(status), SQL_TEXT(message)),
					"UPDATE @extschema@.cleanup_runs SET message = $3,"
					" status = CASE WHEN files = 0 OR $2 = 'interrupted' THEN $2 ELSE 'pending' END,"
					" finished_at = CASE WHEN files = 0 THEN pg_catalog.clock_timestamp() END"
					" WHERE run_id = $1 AND status = 'running'") > 0)
		return true;
	owner_query(extension, SQL_ARGS(SQL_INT8(run_id), SQL_TEXT(message), SQL_TEXT(PROCESS_ENDED)),
				"UPDATE @extschema@.cleanup_runs SET message = $2"
				" WHERE run_id = $1 AND status = 'interrupted' AND message = $3");
	return false;
}

void
ledger_set_looked(const Extension *extension, int64 run_id, bool looked)
{
	owner_query(extension, SQL_ARGS(SQL_INT8(run_id), SQL_BOOL(looked)),
				"UPDATE @extschema@.cleanup_runs SET last_look_at = CASE WHEN $2 THEN pg_catalog.clock_timestamp() END"
				" WHERE run_id = $1");
}

void
ledger_set_captured(const Extension *extension, int64 run_id, int64 file_id)
{
	owner_query(extension, SQL_ARGS(SQL_INT8(run_id), SQL_INT8(file_id)),
				"UPDATE @extschema@.cleanup_runs SET captured_up_to = greatest(captured_up_to, $2)"
				" WHERE run_id = $1");
}

static LedgerWork *
read_work(int row)
{
	LedgerWork *work = palloc(sizeof(LedgerWork));

	work->run_id = DatumGetInt64(sql_value(row, 1));
	work->upload_dir = sql_text(row, 2);
	work->settings = DatumGetJsonbPCopy(sql_value(row, 3));
	work->trigger = sql_text(row, 4);
	work->files = DatumGetInt64(sql_value(row, 5));
	work->claim = sql_text(row, 6);
	work->looked = DatumGetBool(sql_value(row, 7));
	return work;
}

/*
 * Selects the columns that read_work() reads.  If a directory was moved, the
 * selected path is the path at which the directory was seen last.
 */
#define SELECT_WORK \
	"SELECT r.run_id, coalesce(c.upload_dir, r.upload_dir), r.settings, r.trigger, r.files, r.claim::text," \
	" r.last_look_at IS NOT NULL" \
	" FROM @extschema@.cleanup_runs r LEFT JOIN @extschema@.cleanup_claims c ON c.uuid = r.claim"

List *
ledger_unfinished_runs(const Extension *extension, int64 only_run)
{
	List	   *runs = NIL;
	int			n;

	n = owner_query(extension, SQL_ARGS(SQL_INT8(only_run)),
					SELECT_WORK
					" WHERE r.run_id IN (SELECT f.run_id FROM @extschema@.cleanup_files f WHERE f.state = 'pending'"
					"  UNION SELECT f.run_id FROM @extschema@.cleanup_files f WHERE f.state = 'restoring'"
					"  UNION SELECT f.run_id FROM @extschema@.cleanup_files f WHERE f.state = 'trashed' AND f.due_at <= clock_timestamp()"
					"  UNION SELECT u.run_id FROM @extschema@.cleanup_runs u WHERE u.finished_at IS NULL)"
					" AND ($1 = 0 OR r.run_id = $1) ORDER BY r.run_id");
	for (int i = 0; i < n; i++)
		runs = lappend(runs, read_work(i));
	return runs;
}

LedgerWork *
ledger_run(const Extension *extension, int64 run_id)
{
	return owner_query(extension, SQL_ARGS(SQL_INT8(run_id)), SELECT_WORK " WHERE r.run_id = $1") > 0 ? read_work(0) : NULL;
}

/* Counts the outcome of the files of run $1, as the relation t. */
#define COUNTS \
	"WITH t AS (SELECT pg_catalog.count(*) FILTER (WHERE state = 'deleted') AS deleted," \
	"  pg_catalog.count(*) FILTER (WHERE state = 'trashed') AS trashed," \
	"  pg_catalog.count(*) FILTER (WHERE state IN ('skipped', 'restored')) AS skipped," \
	"  pg_catalog.count(*) FILTER (WHERE state = 'failed') AS errors," \
	"  pg_catalog.count(*) FILTER (WHERE state IN ('pending', 'restoring')" \
	"    OR state = 'trashed' AND due_at <= clock_timestamp()) AS outstanding," \
	"  " LEDGER_SUM_OF("freed") " AS bytes" \
	" FROM @extschema@.cleanup_files WHERE run_id = $1)"

/*
 * Marks a run as finished.  A run that is still 'running' has lost its
 * process, and becomes 'interrupted'.
 */
static const char *const finish_run =
COUNTS " UPDATE @extschema@.cleanup_runs r SET finished_at = pg_catalog.clock_timestamp(),"
"  status = CASE WHEN r.status IN ('running', 'interrupted') THEN 'interrupted'"
"   WHEN t.errors > 0 OR r.message IS NOT NULL THEN 'failed' ELSE 'done' END,"
"  message = CASE WHEN r.status = 'running' THEN coalesce(r.message,"
"   '" PROCESS_ENDED "') ELSE r.message END,"
"  deleted = t.deleted, skipped = t.skipped, errors = t.errors, bytes = t.bytes"
" FROM t WHERE r.run_id = $1 AND r.finished_at IS NULL AND t.outstanding = 0"
" RETURNING r.requested_by, r.files, r.deleted, t.trashed, r.skipped, r.errors, r.bytes,"
"  extract(epoch FROM r.finished_at - r.started_at)::double precision";

bool
ledger_finish_run(const Extension *extension, int64 run_id)
{
	if (owner_query(extension, SQL_ARGS(SQL_INT8(run_id)), finish_run) == 0)
		return false;
	ereport(LOG,
			(errmsg("cleanup run %lld by \"%s\": %s files condemned, %s deleted, "
					"%s kept as backup, %s skipped, %s failed, %.2f MiB freed, %.3f s",
					(long long) run_id, sql_text(0, 1), sql_text(0, 2), sql_text(0, 3), sql_text(0, 4),
					sql_text(0, 5), sql_text(0, 6), (double) DatumGetInt64(sql_value(0, 7)) / (1024 * 1024),
					DatumGetFloat8(sql_value(0, 8))),
			 errhidestmt(true), errhidecontext(true)));
	return true;
}

static const char *const correct_run =
COUNTS " UPDATE @extschema@.cleanup_runs r SET deleted = t.deleted, skipped = t.skipped,"
"  errors = t.errors, bytes = t.bytes"
" FROM t WHERE r.run_id = $1 AND r.finished_at IS NOT NULL"
"  AND (r.deleted, r.skipped, r.errors, r.bytes)"
"   IS DISTINCT FROM (t.deleted, t.skipped, t.errors, t.bytes)";

/* the states of a file that may still be restored, or be condemned again */
#define MAY_COME_BACK "('pending', 'trashed', 'restoring', 'restored', 'failed')"

void
ledger_correct_run(const Extension *extension, int64 run_id)
{
	const SqlParameter parameters[] = {SQL_INT8(run_id)};

	owner_query(extension, lengthof(parameters), parameters, correct_run);
	/* a session without a file of its own shares the file of another one */
	owner_query_by_hash(extension, lengthof(parameters), parameters,
						"DELETE FROM @extschema@.cleanup_cleared c WHERE c.run_id = $1"
						" AND EXISTS (SELECT FROM @extschema@.cleanup_files f WHERE f.run_id = c.run_id"
						"  AND f.source = c.source AND f.session_id = c.session_id)"
						" AND NOT EXISTS (SELECT FROM @extschema@.cleanup_files f WHERE f.run_id = c.run_id"
						"  AND f.source = c.source AND f.session_id = c.session_id AND f.state IN " MAY_COME_BACK ")");
	owner_query(extension, lengthof(parameters), parameters,
				"DELETE FROM @extschema@.cleanup_cleared c WHERE c.run_id = $1"
				" AND NOT EXISTS (SELECT FROM @extschema@.cleanup_files f WHERE f.run_id = $1"
				"  AND f.source IS NOT NULL AND f.state IN " MAY_COME_BACK ")");
}
