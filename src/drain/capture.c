/*-------------------------------------------------------------------------
 *
 * drain/capture.c
 *	  Moves condemned files into the trash, or finds that they are there.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "src/drain/private.h"
#include "src/pg/progress.h"

static void set_captured(Drain *drain, LedgerFile *file, FileResult result);

/*
 * A disk too full for a rename (into a new directory), or one that renames
 * nothing from this folder into that of the trash, is helped by deleting in
 * place, but only where no backup was promised.  A backup is a copy then.
 */
static void
capture_without_rename(Drain *drain, LedgerFile *file, FileResult captured)
{
	FileResult	result;
	int64		freed = 0;

	if (drain->context.settings->backup_retention_days > 0 && captured.errnum == EXDEV)
	{
		set_captured(drain, file, store_capture_by_copy(drain->store, drain->run_id, file->path,
														&file->identity));
		return;
	}
	if (drain->context.settings->backup_retention_days > 0)
	{
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("could not back up file \"%s\": %s",
						file->path, drain_failure_text(captured))));
		return;
	}
	result = store_destroy_in_place(drain->store, file->path, &file->identity, &freed);
	if (result.outcome == FILE_OK)
		drain_set_destroyed(file, freed);
	else
		drain_set_failed(drain, file, captured);
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
			capture_without_rename(drain, file, result);
			break;
		case FILE_OCCUPIED:
		case FILE_FAILED:
			drain_set_failed(drain, file, result);
			break;
	}
}

static const char why_let_live[] = "the directory was taken over after it was condemned";

/*
 * A row from before the directory was taken over: of the timeline that ended,
 * or of the cluster that this one is a copy of.  What has happened since is
 * not known here, so the file stays, and comes back if it was captured.
 */
static void
let_live(Drain *drain, LedgerFile *file)
{
	FileResult	result = store_put_back(drain->store, drain->run_id, file->path,
										&file->identity);

	if (result.outcome == FILE_FAILED || result.outcome == FILE_NO_SPACE)
		drain_set_failed(drain, file, result);
	else
		drain_set_state(file, "skipped", why_let_live);
}

/* let_live(), but nothing happens to files before the commit. */
static void
let_live_at_commit(Drain *drain, LedgerFile *file, FilePlace place)
{
	if (place == PLACE_TRASH)
		drain_heal_file(drain, file, why_let_live);
	else if (place != PLACE_UNFINISHED && place != PLACE_UNKNOWN)
		drain_set_state(file, "skipped", why_let_live);
}

/* What can be told of a pending file by looking; true if it must be captured. */
static bool
settle_by_place(Drain *drain, LedgerFile *file)
{
	FileResult	result = {FILE_FAILED, 0, "find it"};
	bool		foreign = file->condemned_at < drain->taken_over;
	FilePlace	place;

	if (foreign && !drain->at_commit)
	{
		let_live(drain, file);
		return false;
	}
	place = store_locate(drain->store, drain->run_id, file->path, &file->identity,
						 !drain->at_commit, &result.errnum);
	if (foreign)
	{
		let_live_at_commit(drain, file, place);
		return false;
	}
	switch (place)
	{
		case PLACE_TRASH:
			drain_set_state(file, "trashed", NULL);
			return false;
		case PLACE_NOWHERE:
			drain_set_state(file, "skipped", "it vanished before it was captured");
			return false;
		case PLACE_OTHER:
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

/*
 * A capture that was cut short may have left a copy of it, which is for the
 * worker to remove, after the commit.
 */
static void
let_stay(Drain *drain, LedgerFile *file, const char *why)
{
	if (!store_is_quick(drain->store) && drain->at_commit)
		return;
	if (!store_is_quick(drain->store))
		(void) store_put_back(drain->store, drain->run_id, file->path, &file->identity);
	drain_set_state(file, "skipped", why);
}

/*
 * Files that are still in place were condemned some time ago.  Returns how
 * many were dealt with: those that come after are left as they are.
 */
static int
recheck_and_capture(Drain *drain, LedgerFile **files, int n)
{
	const char **needed = drain_recheck(drain, files, n);
	TimestampTz began = GetCurrentTimestamp();
	int			i;

	if (needed == NULL)
		return n;
	progress_set_phase(PHASE_CAPTURING);
	for (i = 0; i < n && !drain_is_step_over(drain, began); i++)
	{
		progress_tick();
		if (needed[i])
			let_stay(drain, files[i], needed[i]);
		else if (drain->at_commit)
			drain_do_at_commit(drain, AT_COMMIT_CAPTURE, files[i]->path, NULL, &files[i]->identity);
		else
			set_captured(drain, files[i], store_capture(drain->store, drain->run_id, files[i]->path,
														&files[i]->identity));
	}
	return i;
}

/*
 * What was captured at the commit was matched before it: rows may have been
 * committed in between, or been in flight.  Files that are due are looked at
 * once more before they are destroyed; those that stay as a backup, now.
 */
static void
heal_captured(Drain *drain, LedgerFile *files, int n)
{
	LedgerFile **captured = palloc(sizeof(LedgerFile *) * n);
	int			n_captured = 0;
	const char **needed;
	int			i;

	for (i = 0; i < n; i++)
		if (files[i].new_state != NULL && strcmp(files[i].new_state, "trashed") == 0)
			captured[n_captured++] = &files[i];
	if (n_captured == 0)
		return;
	needed = drain_recheck(drain, captured, n_captured);
	for (i = 0; i < n_captured; i++)
	{
		if (needed == NULL)
			captured[i]->new_state = NULL;	/* pending, to be looked at again */
		else if (needed[i])
			drain_heal_file(drain, captured[i], needed[i]);
	}
}

int
drain_capture_step(Drain *drain, int limit)
{
	LedgerFile *files;
	LedgerFile **in_place;
	int			n_in_place = 0;
	int			n_captured;
	int			n;
	int			i;

	files = ledger_files(drain->context.extension, drain->run_id, LEDGER_PENDING, drain->captured_up_to, limit, &n);
	if (n == 0)
		return 0;
	in_place = palloc(sizeof(LedgerFile *) * n);
	for (i = 0; i < n; i++)
	{
		progress_tick();
		if (settle_by_place(drain, &files[i]))
			in_place[n_in_place++] = &files[i];
	}
	if (drain->context.settings->backup_retention_days > 0)
		heal_captured(drain, files, n);
	drain->captured_up_to = files[n - 1].file_id;
	if (n_in_place > 0)
	{
		n_captured = recheck_and_capture(drain, in_place, n_in_place);
		/* the rest comes with the next step */
		if (n_captured < n_in_place)
			drain->captured_up_to = in_place[n_captured]->file_id - 1;
	}
	drain_make_durable(drain);
	drain_record(drain, files, n);
	return n;
}
