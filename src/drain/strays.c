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
 * A run that has a row is known, and nothing looks for its files again.  So a
 * run must not get a row if some of its files could not be found.  A failure
 * ends a take-over with an ERROR.  Before a run a failure is a WARNING, and
 * only the work for that lost run is rolled back: the next run tries again.
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
#include "src/ledger/backups.h"
#include "src/pg/sql.h"
#include "src/plan/plan.h"
#include "src/store/walk.h"

/* runs that have a trash, as a rule at most */
#define LIST_RUNS	1000

/* runs, at most, that this database can have lost by a recovery to a point in time */
#define MOST_LOST_RUNS	1000000

/* characters of a UUID: no folder of the backup directory has another name */
#define UUID_CHARS	36

typedef struct Strays
{
	const Context *context;
	const char *claim;
	bool		each_file;		/* see heal.h */
	Place		place;			/* place of the trash being looked through */
	FileStore  *store;
	int64		run_id;			/* the run whose trash is being looked through */
	Jsonb	   *recorded;		/* the settings that a run in this place
								 * records */
	int			at_commit;		/* files that the commit itself puts back */
	bool		has_warned;		/* leave_out_far_runs() has warned */
	int64		put_back;
} Strays;

/*
 * Raises an ERROR, because files of the lost run could not be found.
 * `failure` stands before the path: see FileResult.  `path` is relative to the
 * trash of the run.  The SQLSTATE is one that sql_try() does not raise again.
 */
pg_noreturn static void
give_up(const Strays *strays, const char *failure, const char *path, int errnum)
{
	const char *text = pstrdup(store_error_text(strays->store, errnum));
	const char *trash = drain_trash_path(&strays->place, strays->run_id);

	CHECK_FOR_INTERRUPTS();
	ereport(ERROR,
			(errcode(errnum == EACCES ? ERRCODE_INSUFFICIENT_PRIVILEGE : ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s \"%s\": %s", failure,
					strcmp(path, ".") == 0 ? trash : psprintf("%s/%s", trash, plan_escape_name(path)), text),
			 errdetail("Files of run %lld, which this database does not know, may lie there.", (long long) strays->run_id),
			 errhint("Repair what cannot be read, or move it away by hand, and try again.")));
}

/*
 * Puts a file back at once whose name the database cannot write.  The row of
 * the file is only for people.
 */
static void
put_unreadable_back(Strays *strays, const char *path, const FileIdentity *identity)
{
	FileResult	result = store_put_back(strays->store, strays->run_id, path, identity);
	const char *name = plan_escape_name(path);

	if (result.outcome == FILE_OK)
	{
		strays->put_back++;
		backup_record_file(strays->context->extension, strays->run_id, name, identity, "restored",
						   "it was in the trash of a run that this database does not know");
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("put file \"%s\" back: it was in the trash of run %lld, which this database does not know",
						name, (long long) strays->run_id)));
		return;
	}
	backup_record_file(strays->context->extension, strays->run_id, name, identity, "failed",
					   result.outcome == FILE_OCCUPIED ? "its name is taken" : store_error_text(strays->store, result.errnum));
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("could not put file \"%s\" back: it lies in %s, of a run that this database does not know",
					name, drain_trash_path(&strays->place, strays->run_id)),
			 errhint("Its name is not valid in the encoding of this database: move it by hand.")));
}

static void
put_stray_back(Strays *strays, const char *path)
{
	bool		readable = plan_is_readable_name(strays->context->settings, path);
	FileIdentity identity;
	FileResult	look = store_identify_captured(strays->store, strays->run_id, path, &identity);

	if (look.outcome == FILE_FAILED)
		give_up(strays, look.failure, path, look.errnum);
	if (look.outcome != FILE_OK)
		return;
	if (strays->each_file && backup_is_recorded(strays->context->extension, strays->run_id,
												readable ? path : plan_escape_name(path), &identity))
		return;
	if (!readable)
	{
		put_unreadable_back(strays, path, &identity);
		return;
	}
	strays->put_back++;
	backup_record_file(strays->context->extension, strays->run_id, path, &identity, "restoring",
					   psprintf("it was in the trash of run %lld, which this database does not know",
								(long long) strays->run_id));

	/*
	 * no row tells that the file was verified, but the file was found in the
	 * trash
	 */
	identity.captured = true;
	if (store_is_quick(strays->store) && strays->at_commit++ < AT_COMMIT_FILES)
		at_commit_add(&strays->place, strays->run_id, AT_COMMIT_PUT_BACK, path, path, &identity);
}

static void
walk_strays(Strays *strays, TreeWalk *walk)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup stray",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);
	const char *failure;
	const char *path;
	WalkStep	step;
	int			errnum;

	while ((step = walk_next(walk, &path)) == WALK_FILE)
	{
		CHECK_FOR_INTERRUPTS();
		put_stray_back(strays, path);
		MemoryContextReset(scratch);
	}
	if (step == WALK_FAILED)
	{
		path = walk_failure(walk, &errnum, &failure);
		give_up(strays, failure, path, errnum);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
}

static void
empty_run(Strays *strays)
{
	TreeWalk   *walk;

	/* 0 would mean the uploads, and no stray */
	Assert(strays->run_id > 0);
	walk = walk_begin(strays->store, true, strays->run_id);
	PG_TRY();
	{
		walk_strays(strays, walk);
	}
	PG_FINALLY();
	{
		walk_end(walk);
	}
	PG_END_TRY();
	store_tidy(strays->store, strays->run_id);
}

static void
empty_unknown_run(void *arg)
{
	Strays	   *strays = arg;

	backup_record_run(strays->context->extension, strays->run_id, strays->place.upload_dir, strays->claim,
					  strays->recorded);
	if (strays->place.backup_owner != NULL)
		ledger_set_claim(strays->context->extension, strays->run_id, strays->claim,
						 strays->place.backup_owner);
	empty_run(strays);
}

/*
 * Empties an unknown run.  In a take-over, any failure is an ERROR.  Before a
 * run, a failure is a WARNING, and the lost run stays unknown.
 */
static void
take_unknown_run(Strays *strays)
{
	int64		put_back = strays->put_back;
	ErrorData  *error = NULL;

	if (strays->each_file)
		empty_unknown_run(strays);
	else
		error = sql_try(empty_unknown_run, strays);
	if (error != NULL)
	{
		strays->put_back = put_back;
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("files of run %lld, which this database does not know, were not put back", (long long) strays->run_id),
				 errdetail_internal("%s", error->message),
				 errhint("Repair what cannot be read, or move it away by hand. The next run tries again.")));
	}
}

static void
forget_run(Strays *strays)
{
	store_forget_run(strays->store, strays->run_id, true);
}

/*
 * Gives the trash a new number, because a run of ours in another directory has
 * this number: the rows of that run are not about these files.
 */
static void
renumber_run(Strays *strays)
{
	int64		as = backup_new_run(strays->context->extension);
	int			errnum = store_renumber_trash(strays->store, strays->run_id, as);

	if (errnum != 0)
		give_up(strays, "could not give another number to", ".", errnum);
	strays->run_id = as;
	empty_unknown_run(strays);
}

/*
 * Leaves out runs whose numbers no lost run of this database can have.  A user
 * who may write into a bucket can make a folder of any name, and the next run
 * gets a greater number than all known runs.  Returns how many runs are left.
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

/*
 * Returns an array of the runs that have a trash, and sets *n to their number.
 * If the runs cannot be listed, a take-over ends with an ERROR; before a run
 * there is a WARNING, and *n is 0.
 */
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
	if (found < 0)
	{
		int			errnum = errno;
		const char *text = pstrdup(store_error_text(strays->store, errnum));

		CHECK_FOR_INTERRUPTS();
		ereport(strays->each_file ? ERROR : WARNING,
				(errcode(errnum == EACCES ? ERRCODE_INSUFFICIENT_PRIVILEGE : ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not list the trash of upload directory \"%s\": %s", strays->place.upload_dir, text),
				 errdetail("Files of runs that this database does not know may lie there."),
				 errnum == EPERM ? errhint("The directory must belong to the OS user of the server, and only this user may write there.") : 0));
	}
	*n = leave_out_far_runs(strays, runs, Max(Min(room, found), 0));
	return runs;
}

/* Calls work() for those of the `n` runs that are such runs. */
static void
for_runs(Strays *strays, BackupRuns which, const int64 *runs, int n, void (*work) (Strays *strays))
{
	const int64 *picked = backup_pick_runs(strays->context->extension, which, strays->claim, runs, &n);

	for (int i = 0; i < n; i++)
	{
		strays->run_id = picked[i];
		work(strays);
	}
}

static void
look_through_runs(Strays *strays)
{
	int			n;
	int64	   *runs = list_runs(strays, &n);

	if (!strays->each_file)
		for_runs(strays, RUNS_SETTLED, runs, n, forget_run);
	for_runs(strays, RUNS_UNKNOWN, runs, n, take_unknown_run);
	if (!strays->each_file)
		return;
	for_runs(strays, RUNS_ELSEWHERE, runs, n, renumber_run);
	/* the list has changed: the new numbers are greater than all before */
	runs = list_runs(strays, &n);
	for (int i = 0; i < n; i++)
	{
		strays->run_id = runs[i];
		empty_run(strays);
	}
}

/*
 * Looks through the trash of strays->place.  A directory that cannot be opened
 * is reported with this level; 0: the run itself reports the failure.
 */
static void
look_through_place(Strays *strays, int elevel)
{
	Brake	   *brake = location_open(strays->place.upload_dir, &strays->store);

	PG_TRY();
	{
		if (brake == NULL)
			brake = location_set_backup_dir(strays->store, &strays->place);
		if (brake == NULL)
		{
			look_through_runs(strays);
			(void) store_sync(strays->store);
		}
		else if (elevel == ERROR)
			brake_raise(brake);
		else if (elevel != 0 && strays->store != NULL)
			ereport(elevel,
					(errcode(brake->sqlstate),
					 errmsg("%s", brake->message),
					 errdetail("Files of runs that this database does not know may lie there.")));
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
	if (owner != NULL && strlen(owner) == UUID_CHARS && *settings->backup_dir != '\0')
		look_through_place(&strays, each_file ? ERROR : 0);
	/* the place of every run without a backup directory */
	strays.place.backup_dir = "";
	strays.place.backup_owner = NULL;
	look_through_place(&strays, each_file ? ERROR : 0);
	foreach_ptr(Jsonb, recorded, backup_places(context->extension, claim, false))
	{
		strays.recorded = recorded;
		strays.place = location_of_run(settings->upload_dir, recorded);
		/* a disk may have been retired when its last backup was gone */
		look_through_place(&strays, each_file ? WARNING : 0);
	}
	if (strays.put_back > 0)
		at_commit_start_worker();
	return strays.put_back;
}
