/*-------------------------------------------------------------------------
 *
 * drain/destroy.c
 *	  The last look at the files that a run has captured, and the end of the
 *	  files that are due.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/integerset.h"
#include "miscadmin.h"

#include "src/drain/private.h"
#include "src/pg/lock.h"
#include "src/pg/progress.h"
#include "src/pg/time.h"

/* microseconds that the destruction of a group of files should take */
#define TOGETHER_US			50000

/*
 * least number of files whose states are recorded while other files are being
 * destroyed
 */
#define RECORD_TOGETHER		1000

/* least number of doomed files whose rows are read together */
#define READ_AHEAD			1000

/* seconds in which files are destroyed after their last look */
#define LOOK_SECONDS		3600

/*
 * the least number of such seconds under a limit; if a look takes long, ten
 * times as long as the look
 */
#define LOOK_AHEAD_SECONDS	5

/*
 * A file that is nowhere was destroyed by a drain that died before it could
 * record the destruction.  If the place cannot be told, or somebody has written
 * into the file in the trash, the row does not change.
 */
void
drain_settle_missing(Drain *drain, LedgerFile *file)
{
	int			errnum;
	FilePlace	place = store_locate(drain->store, drain->run_id, file->path, &file->identity,
									 !drain->at_commit, &errnum);

	switch (place)
	{
		case PLACE_UPLOAD:
		case PLACE_NOWHERE:
		case PLACE_OTHER:

			/*
			 * the file is in its place if somebody has moved it there, or if
			 * the disk was restored from a backup
			 */
			if (place == PLACE_UPLOAD || drain_is_found_at(drain, file->path, file))
				drain_set_state(file, "restored", "it was in its place");
			else if (!drain_is_changed(drain, file))
				drain_set_destroyed(file, file->identity.space);
			break;
		case PLACE_TRASH:
		case PLACE_UNFINISHED:
			break;
		case PLACE_UNKNOWN:
			ereport(WARNING,
					(errcode(ERRCODE_WARNING),
					 errmsg("could not find file \"%s\" in the trash of run %lld: %s",
							file->path, (long long) drain->run_id,
							store_error_text(drain->store, errnum))));
			break;
	}
}

/* Sets the state of a file that was to be unlinked. */
static void
settle_destroyed(Drain *drain, LedgerFile *file, FileResult result, int64 freed)
{
	/*
	 * the drain was asked to stop: the next drain finds that a file which was
	 * destroyed nevertheless is missing
	 */
	if (result.errnum == EINTR)
		CHECK_FOR_INTERRUPTS();
	if (result.outcome == FILE_OK)
		drain_set_destroyed(file, freed);
	else if (result.outcome == FILE_VANISHED)
		drain_settle_missing(drain, file);
	else if (result.outcome != FILE_REPLACED || !drain_return_changed(drain, file))
	{
		/* the row of the run no longer speaks for this file */
		if (file->note == NULL)
			drain_set_state(file, "trashed", NULL);
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("could not delete file \"%s\" from the trash of run %lld: %s",
						file->path, (long long) drain->run_id,
						result.outcome == FILE_FAILED ? drain_failure_text(drain, result) :
						"another file is in its place")));
	}
}

/* Files that are destroyed together. */
typedef struct Group
{
	LedgerFile *files;
	int			n;				/* 0: there is no group */
	StoreFile  *doomed;
	StoreUnlinks *unlinks;
} Group;

static Group
begin_group(Drain *drain, LedgerFile *files, int n)
{
	Group		group = {files, n, NULL, NULL};
	int			errnum;

	/*
	 * in the transaction of a caller the row stays "trashed", because of a
	 * rollback; the next drain finds that the file is missing
	 */
	for (int i = 0; drain->at_commit && i < n; i++)
	{
		if (store_locate(drain->store, drain->run_id, files[i].path, &files[i].identity,
						 false, &errnum) == PLACE_TRASH)
			at_commit_add(&drain->place, drain->run_id, AT_COMMIT_DESTROY, files[i].path, NULL, &files[i].identity);
		else
			drain_settle_missing(drain, &files[i]);
	}
	if (drain->at_commit)
		return group;
	group.doomed = palloc(sizeof(StoreFile) * n);
	for (int i = 0; i < n; i++)
		group.doomed[i] = (StoreFile)
	{
		.path = files[i].path,.expected = &files[i].identity
	};
	group.unlinks = store_destroy_begin(drain->store, drain->run_id, group.doomed, n);
	return group;
}

/* Waits until the files of the group are destroyed, and sets their states. */
static void
end_group(Drain *drain, Group *group)
{
	if (group->doomed != NULL)
	{
		store_destroy_end(drain->store, group->unlinks);
		for (int i = 0; i < group->n; i++)
			settle_destroyed(drain, &group->files[i], group->doomed[i].result, group->doomed[i].freed);
		pfree(group->doomed);
	}
	group->n = 0;
}

void
drain_destroy_files(Drain *drain, LedgerFile *files, int n)
{
	Group		group = begin_group(drain, files, n);

	end_group(drain, &group);
}

/*
 * Returns for how many seconds a last look is good.  A look is final for the
 * files that it has seen: the writers of that time have ended, and nobody
 * should begin to refer to a file that is not in its place.  Under a limit,
 * where files are destroyed slowly, there is time to look again for references
 * that are made during the destruction.
 */
static int
look_seconds(const Drain *drain)
{
	if (drain->pace.limit <= 0)
		return LOOK_SECONDS;
	return (int) Min(Max(LOOK_AHEAD_SECONDS, 10 * drain->look_us / USECS_PER_SEC), LOOK_SECONDS);
}

/*
 * Returns whether there are rests between the files of a step: these are for a
 * disk, not for the server of a bucket, and not within a caller's transaction.
 */
static bool
rests_between(const Drain *drain)
{
	return store_acts_at_commit(drain->store) && !drain->at_commit;
}

/* Returns how many of the first files are not held, and may be destroyed together. */
static int
free_in_row(const Drain *drain, const LedgerFile *files, int n)
{
	int			most = Min(n, Max(drain->together, store_together(drain->store)));
	int			i = 0;

	if (rests_between(drain))
		most = Min(most, pace_at_once(&drain->pace));
	while (i < most && !files[i].is_held)
		i++;
	return i;
}

/*
 * Ends the group.  Between two groups the step may end, and interrupts are
 * taken: so a slow disk gets smaller groups.  `*began` is the time at which
 * the group before was over.
 */
static void
end_timed_group(Drain *drain, Group *group, int64 *began)
{
	int			n = group->n;
	int64		now;

	if (n == 0)
		return;
	end_group(drain, group);
	now = time_monotonic_us();
	if (now - *began > 2 * TOGETHER_US)
		drain->together = Max(drain->together / 2, DRAIN_TOGETHER);
	else if (now - *began < TOGETHER_US && n >= drain->together)
		drain->together = Min(2 * drain->together, STORE_TOGETHER);
	*began = now;
}

/*
 * Destroys files until the step is over, and records their states.  While a
 * group is being destroyed, the next group is looked at and begun, and the
 * states of earlier groups are recorded: so the disk need not wait for this
 * process.  Between two steps anybody may have put a hold on a doomed file:
 * the held file is passed over, and is looked at once more.  Returns the
 * number of files dealt with.
 */
static int
destroy_files(Drain *drain, LedgerFile *files, int n)
{
	int64		step_began = time_monotonic_us();
	int64		began = step_began;
	Group		group = {files, 0, NULL, NULL};
	int			recorded = 0;
	int			i = 0;

	progress_set_phase(PHASE_DELETING);
	pace_begin_files(&drain->pace);
	while (i < n && !drain_is_step_over(drain, step_began))
	{
		int			together = free_in_row(drain, &files[i], n - i);
		int			ended = group.n > 0 ? (int) (group.files - files) : i;
		Group		next;

		progress_tick();
		if (together == 0)
		{
			drain->looked_at_up_to = Min(drain->looked_at_up_to, files[i].file_id - 1);
			i++;
			continue;
		}
		next = begin_group(drain, files + i, together);

		/*
		 * a bucket is asked before the transaction has a number, which VACUUM
		 * would wait for
		 */
		if (ended - recorded >= RECORD_TOGETHER && store_acts_at_commit(drain->store))
		{
			drain_record(drain, files + recorded, ended - recorded);
			recorded = ended;
		}
		end_timed_group(drain, &group, &began);
		group = next;
		i += together;
		drain->portion += together;
		if (rests_between(drain))
		{
			if (i < n)
				pace_rest_between(&drain->pace, i, step_began);
			pace_yield(&drain->pace);
		}
	}
	end_timed_group(drain, &group, &began);
	if (i > 0)
	{
		drain_make_durable(drain);
		drain_record(drain, files + recorded, i - recorded);
	}
	return i;
}

/*
 * Destroys as many of the doomed files as the pace allows.  Returns 0 if there
 * are no more.  Between two steps a doomed file may have been restored: it is
 * not among the rows that are due.
 */
static int
destroy_doomed(Drain *drain, int limit)
{
	LedgerFile *files;
	int			good = look_seconds(drain) * (drain->pace.limit > 0 ? 2 : 1);
	int64		last;
	int			read;
	int			n = 0;
	int			done;

	if (drain->destroyed_up_to >= drain->doomed_up_to)
		return 0;

	/*
	 * a transaction that makes a hold has begun since the look: the next look
	 * waits for that transaction
	 */
	if (time_monotonic_us() - drain->looked_at > good * USECS_PER_SEC || !lock_against_holds(drain->context.extension))
	{
		drain->looked_at_up_to = Min(drain->looked_at_up_to, drain->destroyed_up_to);
		drain->doomed_up_to = 0;
		return 0;
	}
	files = ledger_files(drain->context.extension, drain->run_id, LEDGER_DUE, drain->destroyed_up_to,
						 Min(Min(limit, drain->read_ahead), pace_portion(&drain->pace)), &read);
	if (!store_acts_at_commit(drain->store))
		lock_let_holds(drain->context.extension);
	last = read > 0 ? files[read - 1].file_id : drain->doomed_up_to;
	for (int i = 0; i < read; i++)
		if (intset_is_member(drain->doomed, (uint64) files[i].file_id))
			files[n++] = files[i];
	done = destroy_files(drain, files, n);
	if (done == n)
		drain->destroyed_up_to = last;
	else if (done > 0)
		drain->destroyed_up_to = files[done - 1].file_id;
	/* a little more than one step can destroy */
	drain->read_ahead = Max(done + done / 2, READ_AHEAD);
	return read;
}

/*
 * The last look.  A writer may have begun while the run that condemned these
 * files read the sources: too late for the run to wait for the writer, and too
 * early for the writer to find that the files were gone.  This look waits for
 * such writers: all files of the run have left the directory, so that no later
 * transaction should refer to them.  Under a limit of files a second, only as
 * many files are looked at as will be destroyed in look_seconds(); but all files
 * that stay as a backup are looked at now.  Returns the number of files.
 */
static int64
last_look(Drain *drain)
{
	bool		all = drain->pace.limit <= 0 ||
	(!drain->looked && drain->context.settings->backup_retention_days > 0);
	int64		limit = all ? PG_INT64_MAX : pace_files_in(&drain->pace, look_seconds(drain));
	int64		n = drain_look(drain, drain->looked ? LEDGER_DUE : LEDGER_TRASHED, &drain->looked_at_up_to,
							   limit, drain_heal_files);

	drain->looked_at = time_monotonic_us();
	if (n < 0)
		drain->looked_at_up_to = PG_INT64_MAX;	/* not again in this drain */
	else if (n < limit && !drain->looked)
	{
		drain->looked = true;
		if (n > 0)
			ledger_set_looked(drain->context.extension, drain->run_id, true);
	}
	return Max(n, 0);
}

int
drain_destroy_step(Drain *drain, int limit)
{
	int			n = destroy_doomed(drain, limit);

	/*
	 * the look may have locked rows, which must not stay locked while a
	 * bucket is waited for
	 */
	if (n == 0 && last_look(drain) > 0)
		n = store_acts_at_commit(drain->store) ? destroy_doomed(drain, limit) + 1 : 1;
	return n;
}
