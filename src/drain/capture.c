/*-------------------------------------------------------------------------
 *
 * drain/capture.c
 *	  Moves condemned files into the trash, or finds that the files are there.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "src/drain/private.h"
#include "src/pg/lock.h"
#include "src/pg/progress.h"
#include "src/pg/time.h"

/* milliseconds after which condemned files are looked at again before they are moved */
#define FRESH_MS	60000

/* The beginning of the error of a pending file that is to be deleted in its place. */
static const char in_place[] = "it is to be deleted in its place";

static bool
goes_in_place(const LedgerFile *file)
{
	return file->note != NULL && strncmp(file->note, in_place, strlen(in_place)) == 0;
}

/*
 * Deletes a file in its place.  No last look can put such a file back.  So the
 * file must have been looked at since its run was committed, and nobody may be
 * making a hold; and an earlier step must have recorded what is to happen,
 * because a drain may be killed before it can record what has happened.
 */
static void
unlink_in_place(Drain *drain, LedgerFile *file, FileResult captured)
{
	FileResult	result;
	int64		freed = 0;

	if (!drain->may_unlink || !goes_in_place(file))
	{
		drain->in_place = drain->waiting = true;
		drain_set_state(file, "pending", psprintf("%s: %s", in_place, drain_failure_text(drain, captured)));
		return;
	}
	if (file->is_held)
	{
		drain_set_state(file, "skipped", "it is held");
		return;
	}
	result = store_destroy_in_place(drain->store, file->path, &file->identity, &freed);
	if (result.outcome == FILE_OK)
		drain_set_destroyed(file, freed);
	else
		drain_set_failed(drain, file, captured);
}

/*
 * The trash cannot take a file if the disk has no room for a new folder or for
 * a copy, or, without backups, if the trash is on another disk.  Without
 * backups, the file is then deleted in its place.  With backups, the file stays
 * in its place.
 */
static void
leave_or_unlink(Drain *drain, LedgerFile *file, FileResult captured)
{
	if (drain->context.settings->backup_retention_days == 0)
		unlink_in_place(drain, file, captured);
	else
	{
		drain_set_state(file, "pending", drain_failure_text(drain, captured));
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("could not back up file \"%s\": %s", file->path, file->error)));
	}
}

static void
set_captured(Drain *drain, LedgerFile *file, FileResult result)
{
	switch (result.outcome)
	{
		case FILE_OK:
			drain_set_state(file, "trashed", NULL);
			break;
		case FILE_VANISHED:
		case FILE_NOT_REGULAR:
			drain_set_state(file, "skipped", "it vanished before it was captured");
			break;
		case FILE_REPLACED:
			drain_set_state(file, "skipped", "it was replaced or changed");
			break;
		case FILE_NO_SPACE:
			leave_or_unlink(drain, file, result);
			break;
		case FILE_OCCUPIED:
		case FILE_FAILED:
			drain_set_failed(drain, file, result);
			break;
	}
}

const char	drain_why_let_live[] = "the directory was taken over after it was condemned";

/*
 * Lets a file live that was condemned before the directory was taken over: by
 * a timeline that has ended, or by the cluster of which this cluster is a
 * copy.  The later work of that timeline or cluster is not known here.  So the
 * file stays in its place; a captured file is put back.
 */
static void
let_live(Drain *drain, LedgerFile *file)
{
	const StoreFile returned = {file->path, file->path, &file->identity,
		.result = store_put_back(drain->store, drain->run_id, file->path, &file->identity)
	};
	const char *why = drain_why_let_live;
	FileResult	result = drain_put_changed_back(drain, &returned, &why);

	if (result.outcome == FILE_FAILED || result.outcome == FILE_NO_SPACE || drain_is_written(drain, file, result))
		drain_set_failed(drain, file, result);
	else if (result.outcome == FILE_OCCUPIED)
		drain_keep_backup(drain, file, drain_why_let_live, drain_name_taken);
	else
		drain_set_state(file, "skipped", why);
}

static bool
was_foreign(const Drain *drain, const LedgerFile *file)
{
	return file->condemned_at < drain->taken_over;
}

bool
drain_lets_live(const Drain *drain, const LedgerFile *file)
{
	return was_foreign(drain, file) && !file->is_backup;
}

/* Sets the state of a pending file that is at this place.  Returns whether the file must be captured. */
static bool
settle_at(Drain *drain, LedgerFile *file, FilePlace place, FileResult result)
{
	switch (place)
	{
		case PLACE_TRASH:
			drain_set_state(file, "trashed", NULL);
			return false;
		case PLACE_NOWHERE:
			if (goes_in_place(file))
				drain_set_destroyed(file, file->identity.space);
			else
				drain_set_state(file, "skipped", "it vanished before it was captured");
			return false;
		case PLACE_OTHER:
			if (!drain_return_changed(drain, file))
				drain_set_state(file, "skipped", "it was replaced or changed");
			return false;
		case PLACE_UNKNOWN:
			drain_set_failed(drain, file, result);
			return false;
		case PLACE_UNFINISHED:
			return false;		/* for the worker, after the commit */
		case PLACE_UPLOAD:
			break;
	}
	return true;
}

/* Finds a pending file, and sets its state.  Returns whether the file must be captured. */
static bool
settle_by_place(Drain *drain, LedgerFile *file)
{
	FileResult	result = {FILE_FAILED, 0, "could not find it"};
	bool		foreign = was_foreign(drain, file);
	const char *why = drain_why_let_live;
	FilePlace	place;

	if (foreign && !drain->at_commit)
	{
		let_live(drain, file);
		return false;
	}
	place = store_locate(drain->store, drain->run_id, file->path, &file->identity,
						 !drain->at_commit, &result.errnum);
	if (!foreign)
		return settle_at(drain, file, place, result);
	/* only the commit of the caller's transaction puts the file back */
	if (place == PLACE_TRASH)
		drain_heal_files(drain, file, &why, 1);
	else if (place != PLACE_UNFINISHED && place != PLACE_UNKNOWN)
		drain_set_state(file, "skipped", why);
	return false;
}

/*
 * Leaves pending files in their places because somebody needs the files now;
 * puts back the files that were captured.  If a capture is a copy, an earlier
 * capture that was cut short may have left a part of a copy: store_put_back()
 * removes that part.  In the transaction of a caller such a row stays pending,
 * for the worker.
 */
static void
let_needed_stay(Drain *drain, LedgerFile *files, const char *const *why, int n)
{
	bool		is_copy = !store_is_quick(drain->store);

	for (int i = 0; i < n; i++)
	{
		LedgerFile *file = &files[i];

		if (!settle_by_place(drain, file))
		{
			if (file->new_state != NULL && strcmp(file->new_state, "trashed") == 0)
				drain_heal_files(drain, file, &why[i], 1);
			continue;
		}
		if (is_copy && drain->at_commit)
			continue;
		if (is_copy)
			(void) store_put_back(drain->store, drain->run_id, file->path, &file->identity);
		drain_set_state(file, "skipped", why[i]);
	}
}

/*
 * Returns whether pending files may be captured without another look.  The
 * files were matched when they were condemned, and the last look puts back
 * each file that somebody needs.  But a file that is needed should not be
 * absent until then.  So there is another look if the files were condemned
 * long ago, or if the commit of their run has not captured the first of these
 * files.
 */
static bool
is_fresh(Drain *drain, const LedgerFile *first)
{
	TimestampTz now = GetCurrentTimestamp();
	int			errnum;

	return first->condemned_at <= now && !TimestampDifferenceExceeds(first->condemned_at, now, FRESH_MS) &&
		store_locate(drain->store, drain->run_id, first->path, &first->identity, false, &errnum) == PLACE_TRASH;
}

static LedgerFile *
read_pending(const Drain *drain, int limit, int *n)
{
	return ledger_files(drain->context.extension, drain->run_id, LEDGER_PENDING, drain->captured_up_to, limit, n);
}

/*
 * Looks at all pending files again.  No file may be captured if the look cannot
 * tell which files are needed.
 */
static void
look_at_pending(Drain *drain)
{
	int64		up_to = 0;

	drain->looked_at_pending = drain_look(drain, LEDGER_PENDING, &up_to, PG_INT64_MAX, let_needed_stay) >= 0;
	if (!drain->looked_at_pending)
		drain->captured_up_to = PG_INT64_MAX;
}

/*
 * Returns whether the store may destroy files when they are captured: a bucket
 * that keeps no versions does so.  No last look can put such a file back.
 */
static bool
destroys_at_once(const Drain *drain)
{
	return !store_acts_at_commit(drain->store) && drain->context.settings->backup_retention_days == 0;
}

/*
 * Keeps holds away until the next files have been read.  Returns false if
 * somebody is making a hold, also after a look that has waited for that.
 */
static bool
keep_holds_away(Drain *drain)
{
	if (lock_against_holds(drain->context.extension))
		return true;
	look_at_pending(drain);
	return lock_against_holds(drain->context.extension);
}

/*
 * Returns the next files that may be captured.  If these files are not fresh,
 * or one of them must be deleted in its place, all pending files are looked at
 * before.
 */
static LedgerFile *
next_files(Drain *drain, int limit, int *n)
{
	/* the first step in a bucket only looks: see drain_capture_step() */
	bool		at_once = drain->may_capture && drain->captured_up_to < PG_INT64_MAX && destroys_at_once(drain);
	bool		kept_away = at_once && keep_holds_away(drain);
	bool		again = true;
	LedgerFile *files;

	/* if holds cannot be kept away, the files wait for the next drain */
	if (at_once && !kept_away)
		drain->captured_up_to = PG_INT64_MAX;
	files = read_pending(drain, limit, n);
	if (*n > 0 && drain->in_place)
	{
		if (!drain->looked_at_pending)
			look_at_pending(drain);
		/* the next look waits for a transaction that is making a hold */
		drain->may_unlink = drain->looked_at_pending && lock_against_holds(drain->context.extension);
		drain->looked_at_pending = drain->may_unlink;
	}
	else if (*n > 0 && !drain->may_capture && !is_fresh(drain, &files[0]))
		look_at_pending(drain);
	else
		again = false;
	drain->may_capture = true;
	if (again)
		files = read_pending(drain, limit, n);
	if (kept_away)
		lock_let_holds(drain->context.extension);
	return files;
}

/* Captures these files by one call. */
static void
capture_now(Drain *drain, LedgerFile *files, int n)
{
	StoreFile  *condemned = palloc(sizeof(StoreFile) * n);
	LedgerFile **file = palloc(sizeof(LedgerFile *) * n);
	int			n_condemned = 0;

	for (int i = 0; i < n; i++)
	{
		if (was_foreign(drain, &files[i]))
		{
			let_live(drain, &files[i]);
			continue;
		}
		if (files[i].is_held && destroys_at_once(drain))
		{
			drain_set_state(&files[i], "skipped", "it is held");
			continue;
		}
		file[n_condemned] = &files[i];
		condemned[n_condemned++] = (StoreFile)
		{
			.path = files[i].path,.expected = &files[i].identity
		};
	}
	store_capture_many(drain->store, drain->run_id, condemned, n_condemned,
					   drain->context.settings->backup_retention_days == 0);
	for (int i = 0; i < n_condemned; i++)
	{
		if (condemned[i].destroyed)
			drain_set_destroyed(file[i], file[i]->identity.space);
		else if (settle_at(drain, file[i], condemned[i].place, condemned[i].result))
			set_captured(drain, file[i], condemned[i].result);
	}
	pfree(condemned);
	pfree(file);
}

/* Captures the first of the files, as many as are captured together.  Returns their number. */
static int
capture_files(Drain *drain, LedgerFile *files, int n)
{
	if (drain->at_commit)
	{
		if (settle_by_place(drain, files))
			at_commit_add(&drain->place, drain->run_id, AT_COMMIT_CAPTURE, files->path, NULL, &files->identity);
		return 1;
	}
	n = Min(n, store_together(drain->store));
	capture_now(drain, files, n);
	return n;
}

/*
 * Records what has become of files.  Without backups, the row of the run says
 * once, for all its pending files up to a file_id, that the files are in the
 * trash.  So a file that is still pending, and not in the trash, needs an
 * error, which excepts it.  The row of a file in the trash gets no new state,
 * unless the row has a note: then the row was excepted before.
 */
static void
record_captured(Drain *drain, LedgerFile *files, int n)
{
	bool		once = !drain->at_commit && drain->context.settings->backup_retention_days == 0;

	for (int i = 0; once && i < n; i++)
	{
		LedgerFile *file = &files[i];

		if (file->new_state == NULL && file->note == NULL)
			drain_set_state(file, "pending", file->error ? file->error : "it is not known where it is");
		else if (file->new_state != NULL && strcmp(file->new_state, "trashed") == 0 &&
				 file->note == NULL && file->error == NULL && !file->is_backup)
			file->new_state = NULL;
	}
	drain_record(drain, files, n);
	if (once)
		ledger_set_captured(drain->context.extension, drain->run_id, files[n - 1].file_id);
}

int
drain_capture_step(Drain *drain, int limit)
{
	int64		began;
	LedgerFile *files;
	bool		looked = drain->may_capture;
	int			n;
	int			i;

	files = next_files(drain, limit, &n);

	/*
	 * the look may have locked rows, which must not stay locked while a
	 * bucket is waited for
	 */
	if (!looked && !store_acts_at_commit(drain->store))
		return 1;
	if (n == 0)
	{
		/* no more files become pending before the next drain */
		drain->captured_up_to = PG_INT64_MAX;
		return 0;
	}
	progress_set_phase(PHASE_CAPTURING);
	/* files that are captured from now on need a last look */
	if (drain->looked)
		ledger_set_looked(drain->context.extension, drain->run_id, false);
	drain->looked = false;
	drain->waiting = false;
	began = time_monotonic_us();
	for (i = 0; i < n && !drain_is_step_over(drain, began);)
	{
		progress_tick();
		i += capture_files(drain, &files[i], n - i);
		drain->captured_up_to = files[i - 1].file_id;
	}
	if (i > 0)
	{
		drain_make_durable(drain);
		record_captured(drain, files, i);
	}
	/* the next step reads the files again that wait */
	if (drain->waiting)
		drain->captured_up_to = 0;
	return n;
}
