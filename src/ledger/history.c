/*-------------------------------------------------------------------------
 *
 * ledger/history.c
 *	  Forgets old runs and their files.
 *
 * A row is forgotten only if nobody will need the row again:
 *
 *	-	A run that is not finished, or that has files which are still to be dealt
 *		with or lie in the trash, is work, not history.
 *	-	A file that was put back begins a new retention, which its row records.
 *		A file that was a backup has its history from the day on which the backup
 *		expired.
 *	-	The next run tries failed files again, so their rows stay until such a
 *		run has ended.  A file that could not be put back lies in the trash, and
 *		only its row knows where.
 *	-	The schedule needs the rows of the last days to know which days have
 *		run, and the row of the run at this server's start to know that there
 *		was such a run.
 *	-	The newest run, and the newest run that was done, show the present state.
 *
 * The files of a run are forgotten before the run itself, in portions.  If the
 * process is killed in between, the run has fewer files, and the next call
 * goes on with that run.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/date.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "src/ledger/ledger.h"
#include "src/pg/lock.h"
#include "src/pg/sql.h"
#include "src/settings.h"
#include "src/store/store.h"

/* numbers of files and runs that one transaction forgets at most */
#define PRUNE_FILES		10000
#define PRUNE_RUNS		1000

/* days of the schedule that the launcher may ask for */
#define SCHEDULE_DAYS	8

typedef struct Pruning
{
	const Extension *extension;
	const Settings *settings;
	bool		more;
} Pruning;

/*
 * Returns a bigint[] of the oldest runs to be forgotten, with about as many
 * files as one transaction takes; 0 if there are no such runs.
 */
static Datum
find_runs(const Pruning *pruning)
{
	const Settings *settings = pruning->settings;
	int			orphan_days = settings->orphaned_file_retention_hours / HOURS_PER_DAY + 1;

	/*
	 * the row of a file that was put back may protect the file for so many
	 * days
	 */
	int			restored_days = Max(settings->history_retention_days, Max(settings->failed_session_retention_days, orphan_days));
	DateADT		first_day = (DateADT) (settings_now(settings_schedule()) / USECS_PER_DAY) - SCHEDULE_DAYS;

	owner_query(pruning->extension,
				SQL_ARGS(SQL_INT4(settings->history_retention_days), SQL_VALUE(DATEOID, DateADTGetDatum(first_day)),
						 SQL_VALUE(TIMESTAMPTZOID, TimestampTzGetDatum(PgStartTime)),
						 SQL_TEXT("%" STORE_PRIVATE_DIR "/%"), SQL_INT4(PRUNE_RUNS), SQL_INT4(PRUNE_FILES),
						 SQL_INT4(restored_days)),
				"SELECT array_agg(o.run_id) FROM (SELECT r.run_id,"
				"  sum(r.files) OVER (ORDER BY r.run_id) - r.files AS files_before"
				" FROM @extschema@.cleanup_runs r"
				" WHERE r.finished_at < now() - make_interval(days => $1"
				"   + coalesce((r.settings ->> 'backup_retention_days')::int, 0))"
				"  AND (r.scheduled_for IS NULL OR r.scheduled_for < $2)"
				"  AND NOT (r.trigger = 'startup' AND r.started_at >= $3)"
				"  AND r.run_id < (SELECT max(n.run_id) FROM @extschema@.cleanup_runs n)"
				"  AND r.run_id IS DISTINCT FROM"
				"   (SELECT max(d.run_id) FROM @extschema@.cleanup_runs d WHERE d.status = 'done')"
				"  AND NOT EXISTS (SELECT FROM @extschema@.cleanup_files p WHERE p.run_id = r.run_id AND p.state = 'pending')"
				"  AND NOT EXISTS (SELECT FROM @extschema@.cleanup_files f WHERE f.run_id = r.run_id"
				"   AND f.state NOT IN ('deleted', 'skipped', 'pending')"
				"   AND CASE f.state"
				"    WHEN 'restored' THEN f.finished_at IS NULL OR f.finished_at >= now() - make_interval(days => $7)"
				"    WHEN 'failed' THEN f.error LIKE $4 OR NOT EXISTS"
				"     (SELECT FROM @extschema@.cleanup_runs l WHERE l.run_id > r.run_id"
				"      AND coalesce(l.claim::text, l.upload_dir) = coalesce(r.claim::text, r.upload_dir) AND l.what IN ('all', r.what)"
				"      AND l.status IN ('done', 'failed') AND (l.message IS NULL OR l.other_errors > 0))"
				"    ELSE true END)"
				" ORDER BY r.run_id LIMIT $5) o WHERE o.files_before < $6");
	return sql_is_null(0, 1) ? (Datum) 0 : sql_array(0, 1);
}

/* Deletes rows.  Rows that another process is deleting are skipped. */
static void
forget_some(void *arg)
{
	Pruning    *pruning = arg;
	const Extension *extension = pruning->extension;
	int			limit = lock_limit_waits(pruning->settings->writer_wait);
	Datum		runs = lock_extension(extension) ? find_runs(pruning) : 0;

	if (runs != 0)
	{
		const SqlParameter parameters[] = {{INT8ARRAYOID, runs, false}, SQL_INT4(PRUNE_FILES)};
		int			n;

		n = owner_query(extension, 2, parameters,
						"DELETE FROM @extschema@.cleanup_files WHERE (run_id, file_id) IN (SELECT f.run_id, f.file_id"
						" FROM @extschema@.cleanup_files f WHERE f.run_id = ANY ($1)"
						" LIMIT $2 FOR UPDATE SKIP LOCKED)");
		n += owner_query(extension, 1, parameters,
						 "DELETE FROM @extschema@.cleanup_cleared c WHERE c.run_id = ANY ($1)"
						 " AND NOT EXISTS (SELECT FROM @extschema@.cleanup_files f WHERE f.run_id = c.run_id)");
		n += owner_query(extension, 1, parameters,
						 "DELETE FROM @extschema@.cleanup_runs WHERE run_id IN (SELECT r.run_id"
						 " FROM @extschema@.cleanup_runs r WHERE r.run_id = ANY ($1)"
						 " AND NOT EXISTS (SELECT FROM @extschema@.cleanup_files f WHERE f.run_id = r.run_id)"
						 " FOR UPDATE SKIP LOCKED)");
		pruning->more = n > 0;
	}
	lock_end_limit(limit);
}

bool
history_prune(const Extension *extension)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup history",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Pruning		pruning = {extension, settings_snapshot(), false};
	ErrorData  *error = NULL;

	if (pruning.settings->history_retention_days > 0)
		error = sql_try(forget_some, &pruning);
	if (error != NULL)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not forget old history: %s", error->message)));
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return error == NULL && pruning.more;
}
