/*-------------------------------------------------------------------------
 *
 * drain/heal.c
 *	  Before a run: puts back files that should not be in the trash.
 *
 * A backup that is needed again has a row.  The row is marked, and the drain
 * puts the file back, as for a restore.  strays.c deals with files without a
 * row.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/integerset.h"
#include "miscadmin.h"

#include "src/drain/at_commit.h"
#include "src/drain/heal.h"
#include "src/guard/claim.h"
#include "src/ledger/backups.h"
#include "src/pg/lock.h"
#include "src/pg/sql.h"
#include "src/plan/plan.h"
#include "src/sources/sources.h"

/* The files that are healed, and the outcome. */
typedef struct Healing
{
	const Context *context;
	const char *claim;
	FileStore  *store;
	Match	   *match;			/* of all backups of the directory */
	IntegerSet *file_ids;		/* of these backups, in their order */
	int64		last_id;		/* the last of them */
	int64		healed;
} Healing;

static void
take_backup(int64 file_id, const char *path, void *arg)
{
	Healing    *healing = arg;

	/*
	 * rows of two runs have the same number if somebody has set the sequence
	 * back; the last look before a file is destroyed goes by runs
	 */
	if (file_id == healing->last_id)
		return;
	healing->last_id = file_id;
	match_add(healing->match, path);
	intset_add_member(healing->file_ids, (uint64) file_id);
}

/*
 * Drops backups whose name another file has now, because the newer file is
 * needed.  Returns how many backups are left.
 */
static int
drop_replaced(const Extension *extension, FileStore *store, int64 *needed, int n)
{
	Backup	   *files;
	int			newest = backup_newest(extension, needed, n, &files);
	int			together = store_together(store);
	const char **paths = palloc(sizeof(char *) * together);
	int			left = 0;

	for (int i = 0; i < newest; i++)
	{
		FileIdentity found;
		int			j;

		if (i % together == 0)
		{
			for (j = 0; j < together && i + j < newest; j++)
				paths[j] = files[i + j].path;
			store_expect(store, paths, j);
		}
		CHECK_FOR_INTERRUPTS();
		if (store_identify(store, files[i].path, false, &found).outcome == FILE_VANISHED)
			needed[left++] = files[i].file_id;
	}
	store_expect(store, NULL, 0);
	pfree(paths);
	return left;
}

/* Marks the backups that are needed again for this reason. */
static void
mark_needed(Healing *healing, const char *reason)
{
	const Extension *extension = healing->context->extension;
	int64	   *needed = MemoryContextAllocHuge(CurrentMemoryContext,
												sizeof(int64) * Max(match_count(healing->match), 1));
	uint64		file_id;
	int			n = 0;

	intset_begin_iterate(healing->file_ids);
	for (int64 number = 0; intset_iterate_next(healing->file_ids, &file_id); number++)
	{
		const char *why = match_why_needed(healing->match, number);

		if (why != NULL && strcmp(why, reason) == 0)
			needed[n++] = (int64) file_id;
	}
	if (n > 0)
		n = drop_replaced(extension, healing->store, needed, n);
	if (n > 0)
		healing->healed += backup_mark_restoring(extension, needed, n, reason);
	pfree(needed);
}

static void
find_needed_backups(void *arg)
{
	Healing    *healing = arg;
	const Context *context = healing->context;
	int			limit = lock_limit_waits(context->settings->writer_wait);
	List	   *sources = sources_load(context->extension);

	if (sources_check_all(sources) == NIL)
	{
		healing->match = match_begin(context->settings, healing->claim);
		healing->file_ids = intset_create();
		plan_limit_reading(context->settings, true);
		backup_scan(context->extension, healing->claim, take_backup, healing);
		match_run(healing->match, context->extension, sources, MATCH_JUDGE,
				  plan_failed_before(context->settings), true);
		mark_needed(healing, "it is referred to again");
		mark_needed(healing, "it is held");
		match_end(healing->match);
	}
	lock_end_limit(limit);
}

/* Marks backups that are needed again.  A failure is a WARNING, because a backup can wait for the next run. */
static int64
try_healing_backups(const Context *context, const char *claim, FileStore *store)
{
	Healing		healing = {context, claim, store};
	ErrorData  *error;

	if (!backup_exist(context->extension, claim))
		return 0;
	error = sql_try(find_needed_backups, &healing);
	if (error != NULL)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not find out which backups are needed again"),
				 errdetail_internal("%s", error->message)));
	else if (healing.healed > 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg_plural("%lld backed-up file is put back, because it is needed again",
							   "%lld backed-up files are put back, because they are needed again",
							   (unsigned long) healing.healed, (long long) healing.healed),
				 errhint("See cleanup_files, states restoring and restored.")));
	return error == NULL ? healing.healed : 0;
}

int64
heal_directory(const Context *context, HealWhat what)
{
	const char *upload_dir = context->settings->upload_dir;
	FileStore  *store = what == HEAL_BACKUPS && !backup_exist(context->extension, NULL) ? NULL : store_open(upload_dir);
	volatile int64 healed = 0;

	if (store == NULL)
		return 0;
	PG_TRY();
	{
		Claim	   *claim = claim_check(store, context->extension, upload_dir);

		if (claim->state == CLAIM_OURS && claim_lock(store, upload_dir, context->settings->writer_wait) == NULL)
		{
			claim_confirm(context->extension, claim, upload_dir);
			if ((what & HEAL_STRAYS) != 0)
				healed += strays_put_back(context, claim->uuid, NULL, false);
			if ((what & HEAL_BACKUPS) != 0)
				healed += try_healing_backups(context, claim->uuid, store);
		}
	}
	PG_FINALLY();
	{
		store_close(store);
	}
	PG_END_TRY();
	if (healed > 0)
		at_commit_start_worker();
	return healed;
}
