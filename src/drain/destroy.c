/*-------------------------------------------------------------------------
 *
 * drain/destroy.c
 *	  The last look at files that are due, and their end.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "src/drain/private.h"
#include "src/pg/progress.h"

/* under a pace, files are looked at for the last time so long before */
#define LOOK_AHEAD_SECONDS	5

/*
 * The trash did not have it.  If it is back in its place (the rename was lost
 * in a crash of the machine), it is pending once more; if it is nowhere, we
 * have destroyed it before, and died before that was recorded.  If that
 * cannot be told, the row stays as it is.
 */
void
drain_settle_missing(Drain *drain, LedgerFile *file)
{
	int			errnum;

	switch (store_locate(drain->store, drain->run_id, file->path, &file->identity,
						 !drain->at_commit, &errnum))
	{
		case PLACE_UPLOAD:
			drain_set_state(file, "pending", NULL);
			break;
		case PLACE_NOWHERE:
		case PLACE_OTHER:
			/* somebody has moved it, or the whole disk is of an earlier day */
			if (drain_is_found_at(drain, file->path, file))
				drain_set_state(file, "restored", "it was in its place");
			else
				drain_set_destroyed(file, file->identity.space);
			break;
		case PLACE_TRASH:
		case PLACE_UNFINISHED:
			break;
		case PLACE_UNKNOWN:
			ereport(WARNING,
					(errcode(ERRCODE_WARNING),
					 errmsg("could not find file \"%s\" in the trash of run %lld: %s",
							file->path, (long long) drain->run_id, strerror(errnum))));
			break;
	}
}

/*
 * In somebody's transaction what is recorded as trashed may be rolled back:
 * the file is destroyed at its commit, and found missing by the next drain.
 */
static void
destroy_at_commit(Drain *drain, LedgerFile *file)
{
	int			errnum;

	if (store_locate(drain->store, drain->run_id, file->path, &file->identity,
					 false, &errnum) == PLACE_TRASH)
		drain_do_at_commit(drain, AT_COMMIT_DESTROY, file->path, NULL, &file->identity);
	else
		drain_settle_missing(drain, file);
}

void
drain_destroy_file(Drain *drain, LedgerFile *file)
{
	int64		freed = 0;
	FileResult	result;

	if (drain->at_commit)
	{
		destroy_at_commit(drain, file);
		return;
	}
	result = store_destroy(drain->store, drain->run_id, file->path, &file->identity, &freed);
	if (result.outcome == FILE_OK)
		drain_set_destroyed(file, freed);
	else if (result.outcome == FILE_VANISHED)
		drain_settle_missing(drain, file);
	else
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("could not delete file \"%s\" from the trash of run %lld: %s",
						file->path, (long long) drain->run_id,
						result.outcome == FILE_FAILED ? drain_failure_text(result) :
						"another file is in its place")));
}

/* Copied, because it outlives the step. */
static void
doom_file(Drain *drain, const LedgerFile *file)
{
	LedgerFile *copy = &drain->doomed[drain->n_doomed++];

	*copy = *file;
	copy->path = MemoryContextStrdup(drain->doomed_context, file->path);
}

/* What is needed is put back at once, the rest is to be destroyed. */
static void
heal_or_doom(Drain *drain, LedgerFile *files, int n, const char **needed)
{
	int			i;

	MemoryContextReset(drain->doomed_context);
	drain->doomed = MemoryContextAllocHuge(drain->doomed_context, sizeof(LedgerFile) * n);
	drain->n_doomed = drain->n_destroyed = 0;
	drain->doomed_at = GetCurrentTimestamp();
	for (i = 0; i < n; i++)
		if (needed[i])
			drain_heal_file(drain, &files[i], needed[i]);
		else
			doom_file(drain, &files[i]);
}

/* A last look is good for so long, and a reading of the sources worth it. */
static int
look_seconds(const Drain *drain)
{
	return (int) Min(Max(LOOK_AHEAD_SECONDS, 10 * drain->look_us / USECS_PER_SEC), 3600);
}

/*
 * Between two steps whoever has the run lock may have restored doomed files, and
 * anybody may hold them: that is looked at once more.
 */
static void
spare_saved(Drain *drain)
{
	LedgerFile *doomed = drain->doomed + drain->n_destroyed;
	int			n = drain->n_doomed - drain->n_destroyed;
	int64	   *due;
	int			n_due;
	int			left = 0;
	int			i;
	int			j = 0;

	if (n == 0)
		return;
	due = ledger_still_due(drain->context.extension, drain->run_id, doomed[0].file_id,
						   doomed[n - 1].file_id, &n_due);
	for (i = 0; i < n; i++)
	{
		while (j < n_due && due[j] < doomed[i].file_id)
			j++;
		if (j < n_due && due[j] == doomed[i].file_id)
			doomed[left++] = doomed[i];
		else
			drain->looked_at_up_to = Min(drain->looked_at_up_to, doomed[i].file_id - 1);
	}
	drain->n_doomed = drain->n_destroyed + left;
}

/* As many of the doomed files as the pace allows; returns how many. */
static int
destroy_doomed(Drain *drain)
{
	LedgerFile *files = drain->doomed + drain->n_destroyed;
	int			most = Min(drain->n_doomed - drain->n_destroyed, pace_portion(&drain->pace));
	TimestampTz began = GetCurrentTimestamp();
	int			n = 0;

	if (most == 0)
		return 0;
	if (TimestampDifferenceExceeds(drain->doomed_at, began, 2000 * look_seconds(drain)))
	{
		/* a slow disk: look at the rest again */
		drain->looked_at_up_to = files[0].file_id - 1;
		drain->n_doomed = drain->n_destroyed = 0;
		return 0;
	}
	progress_set_phase(PHASE_DELETING);
	do
	{
		progress_tick();
		drain_destroy_file(drain, &files[n++]);
	} while (n < most && !drain_is_step_over(drain, began));
	drain_make_durable(drain);
	drain_record(drain, files, n);
	drain->n_destroyed += n;
	drain->portion = n;
	return n;
}

/*
 * The last look.  A writer may have begun while the run that condemned these
 * files was looking, too late to be waited for and too early to see that they
 * would go.  He is waited for now, when the files have left the directory and
 * nobody can begin to refer to them any more.  Where files are destroyed
 * slowly, only as many are looked at as will be destroyed in some seconds.
 */
static int
last_look(Drain *drain, int limit)
{
	LedgerFile *files;
	LedgerFile **all;
	const char **needed;
	int			n;
	int			i;

	files = ledger_files(drain->context.extension, drain->run_id, LEDGER_DUE, drain->looked_at_up_to,
						 Min(limit, pace_files_in(&drain->pace, look_seconds(drain))), &n);
	if (n == 0)
		return 0;
	drain->looked_at_up_to = files[n - 1].file_id;
	all = palloc(sizeof(LedgerFile *) * n);
	for (i = 0; i < n; i++)
		all[i] = &files[i];
	if ((needed = drain_recheck(drain, all, n)) == NULL)
		return n;
	heal_or_doom(drain, files, n, needed);
	drain_make_durable(drain);
	drain_record(drain, files, n);
	return n;
}

int
drain_destroy_step(Drain *drain, int limit)
{
	int			n;

	spare_saved(drain);
	n = destroy_doomed(drain);
	if (n == 0 && (n = last_look(drain, limit)) > 0)
		(void) destroy_doomed(drain);
	return n;
}
