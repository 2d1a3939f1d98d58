/*-------------------------------------------------------------------------
 *
 * heal.c
 *	  Putting back what should not be in the trash.
 *
 * There are two kinds.  A backup that somebody needs again has a row: it is
 * marked there, and the drain does the rest, as for a restore.  A stray has
 * none: after a point-in-time recovery, or a failover that lost the last
 * transactions, the trash holds files of runs that never were.  Whether they
 * are wanted is not known, so they go back, and get rows now.  That is file
 * work before a commit, the only one there is; if it is rolled back, files are
 * where they were before the run that nobody knows.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "src/backup.h"
#include "src/claim.h"
#include "src/drain.h"
#include "src/heal.h"
#include "src/location.h"
#include "src/match.h"
#include "src/plan.h"
#include "src/sources.h"
#include "src/sql.h"
#include "src/tree_walk.h"


/* ----------------------------------------------------------------- backups --- */

/* The backups of a directory, by the numbers that the match gives them. */
typedef struct Backups
{
	FileStore  *store;
	Match	   *match;
	int64	   *file_ids;
	int			n;
	int			room;
} Backups;

static void
add_backup(int64 file_id, const char *path, void *arg)
{
	Backups    *backups = arg;
	FileIdentity found;

	/* whoever refers to that name finds a file there */
	if (store_identify(backups->store, path, &found).outcome != FILE_VANISHED)
		return;
	if (backups->n == backups->room)
	{
		backups->room *= 2;
		backups->file_ids = repalloc_huge(backups->file_ids, sizeof(int64) * backups->room);
	}
	backups->file_ids[backups->n++] = file_id;
	match_add(backups->match, path);
}

/* Of all backups, those that are needed for this reason; returns how many. */
static int
select_needed(const Backups *backups, const char *reason, int64 *needed)
{
	int			n = 0;
	int			i;

	for (i = 0; i < backups->n; i++)
	{
		const char *why = match_why_needed(backups->match, i);

		if (why != NULL && strcmp(why, reason) == 0)
			needed[n++] = backups->file_ids[i];
	}
	return n;
}

static int64
mark_needed(const Extension *extension, const Backups *backups)
{
	static const char *const reasons[] = {"it is referred to again", "it is held"};
	int64	   *needed = MemoryContextAllocHuge(CurrentMemoryContext,
												sizeof(int64) * Max(backups->n, 1));
	int64		marked = 0;
	int			i;

	for (i = 0; i < lengthof(reasons); i++)
	{
		int			n = select_needed(backups, reasons[i], needed);

		if (n > 0)
			marked += backup_mark_restoring(extension, needed, n, reasons[i]);
	}
	pfree(needed);
	return marked;
}

static int64
match_backups(const Extension *extension, const Settings *settings, FileStore *store, List *sources)
{
	Backups		backups = {store, match_begin(&settings->rules), palloc(sizeof(int64) * 1024), 0, 1024};
	int64		marked;

	backup_scan(extension, settings->upload_dir, add_backup, &backups);
	match_run(backups.match, extension, sources, MATCH_JUDGE, plan_failed_before(settings), true);
	marked = mark_needed(extension, &backups);
	match_end(backups.match);
	pfree(backups.file_ids);
	return marked;
}

typedef struct Healing
{
	const Extension *extension;
	const Settings *settings;
	FileStore  *store;
	int64		healed;
} Healing;

static void
heal_backups(void *arg)
{
	Healing    *healing = arg;
	int			limit = extension_limit_lock_waits(healing->settings->writer_wait);
	List	   *sources = sources_load(healing->extension);

	if (sources_check_all(sources) == NIL)
		healing->healed = match_backups(healing->extension, healing->settings, healing->store, sources);
	extension_end_limit(limit);
}

/* A backup waits until tomorrow as well: nothing of this is an ERROR. */
static int64
try_healing_backups(const Extension *extension, const Settings *settings, FileStore *store)
{
	Healing		healing = {extension, settings, store, 0};
	ErrorData  *error;

	if (!backup_exist(extension, settings->upload_dir))
		return 0;
	error = sql_try(heal_backups, &healing);
	if (error != NULL)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("audio_cleanup could not find out which backups are needed again: %s",
						error->message)));
	else if (healing.healed > 0)
		ereport(WARNING,
				(errmsg_plural("audio_cleanup puts %lld backed-up file back, because it is needed again",
							   "audio_cleanup puts %lld backed-up files back, because they are needed again",
							   (unsigned long) healing.healed, (long long) healing.healed),
				 errhint("See cleanup_files, states restoring and restored.")));
	return error == NULL ? healing.healed : 0;
}


/* ------------------------------------------------------------------ strays --- */

typedef struct Strays
{
	const Extension *extension;
	const Settings *settings;	/* of the place that is looked through */
	FileStore  *store;
	Jsonb	   *recorded;		/* the same as a run records them */
	int64		put_back;
} Strays;

static void
put_stray_back(Strays *strays, int64 run_id, const char *path)
{
	FileIdentity identity;
	FileResult	result = store_identify_captured(strays->store, run_id, path, &identity);

	if (result.outcome != FILE_OK)
		return;
	result = store_put_back(strays->store, run_id, path, &identity);
	if (result.outcome == FILE_OK)
	{
		strays->put_back++;
		backup_record_file(strays->extension, run_id, path, &identity, true,
						   "it was in the trash of a run that this database does not know");
		ereport(WARNING,
				(errmsg("audio_cleanup put file \"%s\" back: it was in the trash of run %lld, which this database does not know",
						path, (long long) run_id)));
	}
	else
	{
		backup_record_file(strays->extension, run_id, path, &identity, false,
						   result.outcome == FILE_OCCUPIED ? "its name is taken" : strerror(result.errnum));
		ereport(WARNING,
				(errmsg("audio_cleanup could not put file \"%s\" back: it lies in %s, of a run that this database does not know",
						path, drain_trash_path(strays->settings, run_id)),
				 errhint("cleanup_restore(file, restore_as) puts it back under another name.")));
	}
}

static void
walk_strays(Strays *strays, TreeWalk *walk, int64 run_id, bool each_file)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup stray",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);
	const char *path;

	while (walk_next(walk, &path) == WALK_FILE)
	{
		CHECK_FOR_INTERRUPTS();
		if (!each_file || !backup_is_recorded(strays->extension, run_id, path))
			put_stray_back(strays, run_id, path);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
}

static void
empty_run(Strays *strays, int64 run_id, bool each_file)
{
	TreeWalk   *walk = walk_begin_trash(strays->store, run_id);

	PG_TRY();
	{
		walk_strays(strays, walk, run_id, each_file);
	}
	PG_FINALLY();
	{
		walk_end(walk);
	}
	PG_END_TRY();
	store_tidy(strays->store, run_id);
}

static void
look_through_runs(Strays *strays, bool each_file)
{
	int			n = store_trash_runs(strays->store, NULL, 0);
	int64	   *runs = palloc(sizeof(int64) * Max(n, 1));
	int			known;
	int			unknown;
	int			i;

	n = Min(n, store_trash_runs(strays->store, runs, n));
	if (n <= 0)
		return;
	unknown = backup_unknown_runs(strays->extension, runs, n);
	for (i = 0; i < unknown; i++)
	{
		backup_record_run(strays->extension, runs[i], strays->settings->upload_dir, strays->recorded);
		empty_run(strays, runs[i], false);
	}
	if (!each_file)
		return;
	known = Min(n, store_trash_runs(strays->store, runs, n));
	for (i = 0; i < known; i++)
		empty_run(strays, runs[i], true);
}

/* Whatever is in the way is for the run itself to say. */
static void
look_through_place(Strays *strays, bool each_file)
{
	strays->store = store_open(strays->settings->upload_dir);
	if (strays->store == NULL)
		return;
	PG_TRY();
	{
		if (location_set_backup_dir(strays->store, strays->settings) == NULL)
			look_through_runs(strays, each_file);
		(void) store_sync(strays->store);
	}
	PG_FINALLY();
	{
		store_close(strays->store);
	}
	PG_END_TRY();
}

int64
heal_strays(const Extension *extension, const Settings *settings, bool each_file)
{
	Settings	own = *settings;
	Strays		strays = {extension, &own, NULL, settings_to_jsonb(), 0};
	ListCell   *lc;

	/* what every run without a backup directory has used */
	own.backup_dir = "";
	own.backup_owner = NULL;
	look_through_place(&strays, each_file);
	foreach(lc, backup_places(extension, settings->upload_dir))
	{
		const BackupPlace *place = lfirst(lc);

		strays.settings = settings_of_run(place->upload_dir, place->settings);
		strays.recorded = place->settings;
		look_through_place(&strays, each_file);
	}
	return strays.put_back;
}

int64
heal_directory(const Extension *extension, const Settings *settings)
{
	FileStore  *store = store_open(settings->upload_dir);
	volatile int64 healed = 0;

	if (store == NULL)
		return 0;
	PG_TRY();
	{
		if (claim_check(store, extension, settings->upload_dir)->state == CLAIM_OURS &&
			claim_lock(store, settings->upload_dir, settings->writer_wait) == NULL)
		{
			healed = heal_strays(extension, settings, false);
			healed += try_healing_backups(extension, settings, store);
		}
	}
	PG_FINALLY();
	{
		store_close(store);
	}
	PG_END_TRY();
	return healed;
}
