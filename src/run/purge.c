/*-------------------------------------------------------------------------
 *
 * run/purge.c
 *	  cleanup_purge_backups(): destroys backups that have expired.
 *
 * The rows of the expired backups, committed days ago, are the order to
 * destroy the files.  The drain finds out which backups are needed again, and
 * puts these back before it destroys any other backup.  The report tells of the
 * backups of the present directory.  The drain goes on with the work in other
 * directories of this database, too, as far as these can be reached.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "src/drain/at_commit.h"
#include "src/drain/drain.h"
#include "src/drain/heal.h"
#include "src/ledger/backups.h"
#include "src/pg/lock.h"
#include "src/run/run.h"
#include "src/text/json_build.h"

static Jsonb *
make_purge_report(const LedgerExpired *expired, int64 healed)
{
	JsonBuilder result;
	JsonBuilder json;

	json_begin(&result);
	json_add_list(&result, "backups_purged", expired->files);
	json_add_integer(&result, "backups_count", expired->n_files);
	json_add_decimal(&result, "total_space_freed_mb", (double) expired->bytes / (1024 * 1024), 2);
	json_begin(&json);
	json_add_boolean(&json, "success", true);
	json_add_text(&json, "message", "Expired backups purged");
	json_add_jsonb(&json, "result", json_end(&result));
	json_add_integer(&json, "healed", healed);
	if (expired->n_files > list_length(expired->files))
		json_add_boolean(&json, "lists_truncated", true);
	return json_end(&json);
}

/* Returns the backup directories, a list of char *, whose backups cannot be reached, and are not purged. */
static List *
list_out_of_reach(CleanupPlan *plan)
{
	const Context *context = plan_context(plan);
	List	   *paths = NIL;

	foreach_ptr(Jsonb, recorded, backup_places(context->extension, plan_findings(plan)->claim->uuid, true))
	{
		const Place place = location_of_run(context->settings->upload_dir, recorded);

		if (location_check_backup_dir(&place, true) != NULL || location_check_backups(&place) != NULL)
			paths = lappend(paths, unconstify(char *, place.backup_dir));
	}
	return paths;
}

static Jsonb *
purge(CleanupPlan *plan, void *arg)
{
	const Context *context = plan_context(plan);
	LedgerExpired expired;
	int64		healed;

	plan_check_transaction(plan);
	lock_run(context->extension, context->settings->writer_wait, false);
	plan_open_directory(plan);
	plan_lock_own_directory(plan);
	healed = heal_directory(context, HEAL_ALL);
	ledger_expired(context->extension, plan_findings(plan)->claim->uuid, list_out_of_reach(plan),
				   context->settings->report_limit, &expired);
	drain_in_transaction(context->extension);
	at_commit_start_worker();
	return make_purge_report(&expired, healed);
}

Jsonb *
purge_backups(void)
{
	return plan_call(CLEAN_ALL, false, false, purge, NULL);
}
