/*-------------------------------------------------------------------------
 *
 * drain/heal.c
 *	  Putting back what should not be in the trash.
 *
 * There are two kinds.  A backup that somebody needs again has a row: it is
 * marked there, and the drain does the rest, as for a restore.  A stray has
 * none: after a point-in-time recovery, or a failover that lost the last
 * transactions, the trash holds files of runs that never were.  Whether they
 * are wanted is not known, so they get rows now, and go back with the commit,
 * as backups do.  Two things do not wait for it, and are not undone: a folder
 * of the trash gets the number of a run of ours; and what has a name that no
 * row can hold is put back at once.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "src/drain/at_commit.h"
#include "src/drain/drain.h"
#include "src/drain/heal.h"
#include "src/guard/claim.h"
#include "src/guard/location.h"
#include "src/ledger/backups.h"
#include "src/ledger/ledger.h"
#include "src/pg/lock.h"
#include "src/pg/sql.h"
#include "src/plan/match.h"
#include "src/plan/plan.h"
#include "src/sources/sources.h"
#include "src/store/walk.h"


/* ----------------------------------------------------------------- backups --- */

/* The backups of a directory, by the numbers that the match gives them. */
typedef struct Backups
{
	Match	   *match;
	int64	   *file_ids;
	int			n;
	int			room;
} Backups;

static void
add_backup(int64 file_id, const char *path, void *arg)
{
	Backups    *backups = arg;

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

/*
 * Where a file has the name by now, it is that file which is needed.  Returns
 * how many of them are left.
 */
static int
drop_replaced(const Extension *extension, FileStore *store, int64 *needed, int n)
{
	BackupFile *files;
	int			newest = backup_newest(extension, needed, n, &files);
	int			left = 0;
	int			i;

	for (i = 0; i < newest; i++)
	{
		FileIdentity found;

		CHECK_FOR_INTERRUPTS();
		if (store_identify(store, files[i].path, &found).outcome == FILE_VANISHED)
			needed[left++] = files[i].file_id;
	}
	return left;
}

static int64
mark_needed(const Extension *extension, FileStore *store, const Backups *backups)
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
			n = drop_replaced(extension, store, needed, n);
		if (n > 0)
			marked += backup_mark_restoring(extension, needed, n, reasons[i]);
	}
	pfree(needed);
	return marked;
}

static int64
match_backups(const Extension *extension, const Settings *settings, FileStore *store,
			  List *sources)
{
	Backups		backups = {match_begin(settings->rules), palloc(sizeof(int64) * 1024), 0, 1024};
	int64		marked;

	match_set_claim(backups.match, settings->claim);
	backup_scan(extension, settings->claim, add_backup, &backups);
	match_run(backups.match, extension, sources, MATCH_JUDGE, plan_failed_before(settings), true);
	marked = mark_needed(extension, store, &backups);
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
	int			limit = lock_limit_waits(healing->settings->writer_wait);
	List	   *sources = sources_load(healing->extension);

	if (sources_check_all(sources) == NIL)
		healing->healed = match_backups(healing->extension, healing->settings, healing->store,
										sources);
	lock_end_limit(limit);
}

/* A backup waits until tomorrow as well: nothing of this is an ERROR. */
static int64
try_healing_backups(const Extension *extension, const Settings *settings, FileStore *store)
{
	Healing		healing = {extension, settings, store, 0};
	ErrorData  *error;

	if (!backup_exist(extension, settings->claim))
		return 0;
	error = sql_try(heal_backups, &healing);
	if (error != NULL)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("audio_cleanup could not find out which backups are needed again: %s",
						error->message)));
	else if (healing.healed > 0)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg_plural("audio_cleanup puts %lld backed-up file back, because it is needed again",
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
	Batch	   *batch;			/* what is put back by the commit itself */
	int			in_batch;
	int64		put_back;
} Strays;

static void
record_stray(Strays *strays, int64 run_id, const char *path, const FileIdentity *identity)
{
	FileIdentity captured = *identity;

	/*
	 * no row of ours tells that it was verified; but it is the one we saw
	 * there
	 */
	captured.captured = true;
	strays->put_back++;
	backup_record_file(strays->extension, run_id, path, identity, "restoring",
					   psprintf("it was in the trash of run %lld, which this database does not know",
								(long long) run_id));
	if (store_is_quick(strays->store) && strays->in_batch++ < AT_COMMIT_FILES)
		at_commit_add_as(strays->batch, path, path, &captured);
}

/* A name that the database cannot write: the row is for people. */
static void
put_unreadable_back(Strays *strays, int64 run_id, const char *path, const FileIdentity *identity)
{
	FileResult	result = store_put_back(strays->store, run_id, path, identity);
	const char *name = plan_escape_name(path);

	if (result.outcome == FILE_OK)
	{
		strays->put_back++;
		backup_record_file(strays->extension, run_id, name, identity, "restored",
						   "it was in the trash of a run that this database does not know");
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("audio_cleanup put file \"%s\" back: it was in the trash of run %lld, which this database does not know",
						name, (long long) run_id)));
		return;
	}
	backup_record_file(strays->extension, run_id, name, identity, "failed",
					   result.outcome == FILE_OCCUPIED ? "its name is taken" : strerror(result.errnum));
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("audio_cleanup could not put file \"%s\" back: it lies in %s, of a run that this database does not know",
					name, drain_trash_path(strays->settings, run_id)),
			 errhint("Its name is not valid in the encoding of this database: move it by hand.")));
}

static void
put_stray_back(Strays *strays, int64 run_id, const char *path, bool each_file)
{
	bool		readable = plan_is_readable_name(strays->settings, path);
	FileIdentity identity;

	if (store_identify_captured(strays->store, run_id, path, &identity).outcome != FILE_OK)
		return;
	if (each_file && backup_is_recorded(strays->extension, run_id,
										readable ? path : plan_escape_name(path), &identity))
		return;
	if (readable)
		record_stray(strays, run_id, path, &identity);
	else
		put_unreadable_back(strays, run_id, path, &identity);
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
		put_stray_back(strays, run_id, path, each_file);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
}

static void
empty_run(Strays *strays, int64 run_id, bool each_file)
{
	TreeWalk   *walk = walk_begin_trash(strays->store, run_id);

	strays->batch = at_commit_begin(strays->settings, run_id, AT_COMMIT_PUT_BACK);
	PG_TRY();
	{
		walk_strays(strays, walk, run_id, each_file);
	}
	PG_FINALLY();
	{
		walk_end(walk);
	}
	PG_END_TRY();
	at_commit_end(strays->batch);
	store_tidy(strays->store, run_id);
}

static void
empty_unknown_run(Strays *strays, int64 run_id)
{
	backup_record_run(strays->extension, run_id, strays->settings, strays->recorded);
	if (strays->settings->backup_owner != NULL)
		ledger_set_claim(strays->extension, run_id, strays->settings->claim,
						 strays->settings->backup_owner);
	empty_run(strays, run_id, false);
}

/*
 * A run of ours has this number, in another directory: its rows say where
 * files are, so those of the other one need rows of a run of their own.
 */
static void
renumber_run(Strays *strays, int64 run_id)
{
	int64		as = backup_new_run(strays->extension);
	int			errnum = store_renumber_trash(strays->store, run_id, as);

	if (errnum == 0)
		empty_unknown_run(strays, as);
	else
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("audio_cleanup leaves files in %s, of a run that this database does not know: %s",
						drain_trash_path(strays->settings, run_id), strerror(errnum))));
}

/* Sets *n; an array of the runs that have a trash. */
static int64 *
list_runs(const Strays *strays, int *n)
{
	int			room = store_trash_runs(strays->store, NULL, 0);
	int64	   *runs = palloc(sizeof(int64) * Max(room, 1));

	*n = Max(Min(room, store_trash_runs(strays->store, runs, room)), 0);
	return runs;
}

static void
look_through_runs(Strays *strays, bool each_file)
{
	int			n;
	int64	   *runs = list_runs(strays, &n);
	int			i;

	if (n == 0)
		return;
	n = backup_unknown_runs(strays->extension, runs, n);
	for (i = 0; i < n; i++)
		empty_unknown_run(strays, runs[i]);
	if (!each_file)
		return;

	/* new numbers are beyond all that have been seen by now */
	runs = list_runs(strays, &n);
	n = backup_runs_elsewhere(strays->extension, strays->settings->claim, runs, n);
	for (i = 0; i < n; i++)
		renumber_run(strays, runs[i]);
	runs = list_runs(strays, &n);
	for (i = 0; i < n; i++)
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
heal_strays(const Extension *extension, const Settings *settings, const char *owner, bool each_file)
{
	Settings	own = *settings;
	Strays		strays = {extension, &own, NULL, settings_to_jsonb(), NULL, 0, 0};
	ListCell   *lc;

	/* of a run that was lost, no row tells where it has put its files */
	own.backup_owner = owner;
	if (owner != NULL && *own.backup_dir != '\0')
		look_through_place(&strays, each_file);
	/* what every run without a backup directory has used */
	own.backup_dir = "";
	own.backup_owner = NULL;
	look_through_place(&strays, each_file);
	foreach(lc, backup_places(extension, settings->claim))
	{
		Settings   *place;

		strays.recorded = lfirst(lc);
		strays.settings = place = settings_of_run(settings->upload_dir, strays.recorded);
		place->claim = settings->claim;
		look_through_place(&strays, each_file);
	}
	if (strays.put_back > 0)
		at_commit_start_worker();
	return strays.put_back;
}

/* Of a directory that is ours, and locked. */
static int64
heal(const Extension *extension, const Settings *settings, FileStore *store, const Claim *claim)
{
	Settings	of_claim = *settings;

	of_claim.claim = claim->uuid;
	claim_confirm(extension, claim, settings->upload_dir);
	return heal_strays(extension, &of_claim, NULL, false) +
		try_healing_backups(extension, &of_claim, store);
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
		Claim	   *claim = claim_check(store, extension, settings->upload_dir);

		if (claim->state == CLAIM_OURS &&
			claim_lock(store, settings->upload_dir, settings->writer_wait) == NULL)
			healed = heal(extension, settings, store, claim);
	}
	PG_FINALLY();
	{
		store_close(store);
	}
	PG_END_TRY();
	return healed;
}
