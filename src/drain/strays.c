/*-------------------------------------------------------------------------
 *
 * drain/strays.c
 *	  Puts files back that are in the trash without a row.
 *
 * After a point-in-time recovery, or a failover that lost the last
 * transactions, the trash has files of runs that this database does not know.
 * Nobody knows whether the files are needed.  So the files get rows, and go
 * back with the commit, as backups do.  Two things do not wait for the commit,
 * and are not undone by a rollback: a folder of the trash gets the number of a
 * run of ours, and a file with a name that no row can hold is put back.
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
#include "src/drain/strays.h"
#include "src/guard/location.h"
#include "src/ledger/backups.h"
#include "src/plan/plan.h"
#include "src/store/walk.h"

/* runs that have a trash, as a rule at most */
#define LIST_RUNS	1000

/* runs, at most, that this database can have lost by a recovery to a point in time */
#define MOST_LOST_RUNS	1000000

typedef struct Strays
{
	const Context *context;
	const char *claim;
	bool		each_file;		/* see strays.h */
	Place		place;			/* place of the trash being looked through */
	FileStore  *store;
	Jsonb	   *recorded;		/* the settings that a run in this place
								 * records */
	Batch	   *batch;			/* files that the commit itself puts back */
	int			in_batch;
	bool		has_warned;		/* leave_out_far_runs() has warned */
	int64		put_back;
} Strays;

static void
record_stray(Strays *strays, int64 run_id, const char *path, const FileIdentity *identity)
{
	FileIdentity captured = *identity;

	/*
	 * no row tells that the file was verified, but the file was found in the
	 * trash
	 */
	captured.captured = true;
	strays->put_back++;
	backup_record_file(strays->context->extension, run_id, path, identity, "restoring",
					   psprintf("it was in the trash of run %lld, which this database does not know",
								(long long) run_id));
	if (store_is_quick(strays->store) && strays->in_batch++ < AT_COMMIT_FILES)
		at_commit_add(strays->batch, path, path, &captured);
}

/*
 * Puts a file back at once whose name the database cannot write.  The row of
 * the file is only for people.
 */
static void
put_unreadable_back(Strays *strays, int64 run_id, const char *path, const FileIdentity *identity)
{
	FileResult	result = store_put_back(strays->store, run_id, path, identity);
	const char *name = plan_escape_name(path);

	if (result.outcome == FILE_OK)
	{
		strays->put_back++;
		backup_record_file(strays->context->extension, run_id, name, identity, "restored",
						   "it was in the trash of a run that this database does not know");
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("put file \"%s\" back: it was in the trash of run %lld, which this database does not know",
						name, (long long) run_id)));
		return;
	}
	backup_record_file(strays->context->extension, run_id, name, identity, "failed",
					   result.outcome == FILE_OCCUPIED ? "its name is taken" : store_error_text(strays->store, result.errnum));
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("could not put file \"%s\" back: it lies in %s, of a run that this database does not know",
					name, drain_trash_path(&strays->place, run_id)),
			 errhint("Its name is not valid in the encoding of this database: move it by hand.")));
}

static void
put_stray_back(Strays *strays, int64 run_id, const char *path)
{
	bool		readable = plan_is_readable_name(strays->context->settings, path);
	FileIdentity identity;

	if (store_identify_captured(strays->store, run_id, path, &identity).outcome != FILE_OK)
		return;
	if (strays->each_file && backup_is_recorded(strays->context->extension, run_id,
												readable ? path : plan_escape_name(path), &identity))
		return;
	if (readable)
		record_stray(strays, run_id, path, &identity);
	else
		put_unreadable_back(strays, run_id, path, &identity);
}

static void
walk_strays(Strays *strays, TreeWalk *walk, int64 run_id)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup stray",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);
	const char *path;

	while (walk_next(walk, &path) == WALK_FILE)
	{
		CHECK_FOR_INTERRUPTS();
		put_stray_back(strays, run_id, path);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
}

static void
empty_run(Strays *strays, int64 run_id)
{
	TreeWalk   *walk;

	strays->batch = at_commit_begin(&strays->place, run_id, AT_COMMIT_PUT_BACK);
	walk = walk_begin_trash(strays->store, run_id);
	PG_TRY();
	{
		walk_strays(strays, walk, run_id);
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
	backup_record_run(strays->context->extension, run_id, strays->place.upload_dir, strays->claim,
					  strays->recorded);
	if (strays->place.backup_owner != NULL)
		ledger_set_claim(strays->context->extension, run_id, strays->claim,
						 strays->place.backup_owner);
	empty_run(strays, run_id);
}

/*
 * Gives the trash a new number, because a run of ours in another directory has
 * this number: the rows of that run are not about these files.
 */
static void
renumber_run(Strays *strays, int64 run_id)
{
	int64		as = backup_new_run(strays->context->extension);
	int			errnum = store_renumber_trash(strays->store, run_id, as);

	if (errnum == 0)
		empty_unknown_run(strays, as);
	else
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("files of a run that this database does not know are left in %s: %s",
						drain_trash_path(&strays->place, run_id),
						store_error_text(strays->store, errnum))));
}

/*
 * Leaves out runs whose numbers no lost run of this database can have.  Whoever
 * may write into a bucket can make a folder of any name, and the next run gets
 * a greater number than all that are known.  Returns how many are left.
 */
static int
leave_out_far_runs(Strays *strays, int64 *runs, int n)
{
	int64		last = backup_last_run(strays->context->extension);
	int			near = 0;

	for (int i = 0; i < n; i++)
		if (runs[i] - MOST_LOST_RUNS <= last)
			runs[near++] = runs[i];
		else if (!strays->has_warned)
		{
			strays->has_warned = true;
			ereport(WARNING,
					(errcode(ERRCODE_WARNING),
					 errmsg("files are left in %s", drain_trash_path(&strays->place, runs[i])),
					 errdetail("No run of this database can have had this number.")));
		}
	return near;
}

/* Returns an array of the runs that have a trash, and sets *n to their number. */
static int64 *
list_runs(Strays *strays, int *n)
{
	int			room = LIST_RUNS;
	int64	   *runs = palloc(sizeof(int64) * room);
	int			found = store_trash_runs(strays->store, runs, room);

	if (found > room)
	{
		room = found;
		runs = repalloc_huge(runs, sizeof(int64) * room);
		found = store_trash_runs(strays->store, runs, room);
	}
	*n = leave_out_far_runs(strays, runs, Max(Min(room, found), 0));
	return runs;
}

/* Returns the runs of which, by their rows, no file is in the trash any more. */
static int64 *
settled_runs(const Strays *strays, const int64 *runs, int n, int *n_settled)
{
	int64	   *settled = palloc(sizeof(int64) * n);

	memcpy(settled, runs, sizeof(int64) * n);
	*n_settled = backup_settled_runs(strays->context->extension, strays->claim, settled, n);
	return settled;
}

static void
look_through_runs(Strays *strays)
{
	int			n;
	int64	   *runs = list_runs(strays, &n);
	int64	   *settled;
	int			n_settled;

	if (n == 0)
		return;
	settled = settled_runs(strays, runs, n, &n_settled);
	n = backup_unknown_runs(strays->context->extension, runs, n);
	for (int i = 0; i < n; i++)
		empty_unknown_run(strays, runs[i]);
	if (!strays->each_file)
	{
		for (int i = 0; i < n_settled; i++)
			store_forget_run(strays->store, settled[i], true);
		return;
	}

	/* the list has changed: the new numbers are greater than all before */
	runs = list_runs(strays, &n);
	n = backup_runs_elsewhere(strays->context->extension, strays->claim, runs, n);
	for (int i = 0; i < n; i++)
		renumber_run(strays, runs[i]);
	runs = list_runs(strays, &n);
	for (int i = 0; i < n; i++)
		empty_run(strays, runs[i]);
}

/*
 * Looks through the trash of strays->place.  If the directory cannot be
 * opened, the run itself reports the failure.
 */
static void
look_through_place(Strays *strays)
{
	strays->store = store_open(strays->place.upload_dir);
	if (strays->store == NULL)
		return;
	PG_TRY();
	{
		if (location_set_backup_dir(strays->store, &strays->place) == NULL)
			look_through_runs(strays);
		(void) store_sync(strays->store);
	}
	PG_FINALLY();
	{
		store_close(strays->store);
	}
	PG_END_TRY();
}

int64
strays_put_back(const Context *context, const char *claim, const char *owner, bool each_file)
{
	const Settings *settings = context->settings;
	Strays		strays = {context, claim, each_file};

	strays.recorded = settings_to_jsonb();
	/* no row tells where a lost run has put its files */
	strays.place = location_place(settings, owner);
	if (owner != NULL && *settings->backup_dir != '\0')
		look_through_place(&strays);
	/* the place of every run without a backup directory */
	strays.place.backup_dir = "";
	strays.place.backup_owner = NULL;
	look_through_place(&strays);
	foreach_ptr(Jsonb, recorded, backup_places(context->extension, claim))
	{
		strays.recorded = recorded;
		strays.place = location_place(settings_of_run(settings->upload_dir, recorded),
									  settings_backup_owner(recorded));
		look_through_place(&strays);
	}
	if (strays.put_back > 0)
		at_commit_start_worker();
	return strays.put_back;
}
