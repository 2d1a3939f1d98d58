/*-------------------------------------------------------------------------
 *
 * drain/drain.c
 *	  Carrying out, and recording, what committed runs have condemned.
 *
 * The rows of cleanup_files are the only truth.  A drain looks where each
 * file is and brings it one state further; it need not know who condemned it
 * or how far he came, so it is the same after success, a crash, or a
 * COMMIT PREPARED of last week:
 *
 *	1.	pending rows: captured already -> trashed.  Still in place -> matched
 *		against the sources once more, because time has passed, then captured
 *		-> trashed, or skipped.  COMMIT.
 *	2.	due rows: matched a last time, and put back (-> restored) if somebody
 *		needs them; else unlink, -> deleted.  COMMIT.
 *		Before those: rows that somebody wants restored, put back -> restored,
 *		or if their name is taken, trashed as before.  COMMIT.
 *	3.	the run: its figures, and its line in the server log.  COMMIT.
 *
 * Directories are fsynced before a row says that something has happened.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "src/drain/at_commit.h"
#include "src/drain/drain.h"
#include "src/guard/claim.h"
#include "src/guard/location.h"
#include "src/ledger/backups.h"
#include "src/ledger/ledger.h"
#include "src/ledger/notify.h"
#include "src/mail/outbox.h"
#include "src/pg/progress.h"
#include "src/plan/plan.h"
#include "src/store/claim_file.h"
#include "src/store/lock.h"

/* files that are matched together: that reads the sources once */
#define DRAIN_BATCH		10000

/* under a pace, files are looked at for the last time so long before */
#define LOOK_AHEAD_SECONDS	5

/* a step stops when it has worked on files for so long */
#define STEP_MS			500

/* what one call in somebody's transaction brings forward at most */
#define DRAIN_IN_TRANSACTION	10000


/* ---------------------------------------------------------------- capturing --- */

static char *
failure_text(FileResult result)
{
	return psprintf("could not %s: %s", result.action ? result.action : "deal with it",
					strerror(result.errnum));
}

static void
set_state(LedgerFile *file, const char *state, const char *error)
{
	file->new_state = state;
	file->error = error;
}

/* Has a step that began to work on files then worked long enough? */
static bool
is_time_to_commit(TimestampTz began)
{
	return TimestampDifferenceExceeds(began, GetCurrentTimestamp(), STEP_MS);
}

/* A folder in which nothing can be done is told once, and not for each of its files. */
static int
failure_level(Drain *drain, const LedgerFile *file)
{
	const char *slash = strrchr(file->path, '/');
	char	   *folder = psprintf("%.*s: %s", slash ? (int) (slash - file->path) : 0, file->path,
								  file->error);
	bool		told = drain->warned_of != NULL && strcmp(drain->warned_of, folder) == 0;

	if (!told)
	{
		if (drain->warned_of != NULL)
			pfree(drain->warned_of);
		drain->warned_of = MemoryContextStrdup(MemoryContextGetParent(drain->cleared_context), folder);
	}
	pfree(folder);
	return told ? DEBUG1 : WARNING;
}

/* Does anything lie in the trash in the name of the file?  Who cannot tell says yes. */
static bool
lies_in_trash(Drain *drain, const LedgerFile *file)
{
	FileIdentity found;
	int			errnum;

	return store_identify_captured(drain->store, drain->run_id, file->path, &found).outcome != FILE_VANISHED ||
		store_locate(drain->store, drain->run_id, file->path, &file->identity, false, &errnum) == PLACE_UNFINISHED;
}

/*
 * No drain looks at a row that has failed.  So the row fails only if nothing
 * lies in the trash in its name; else it stays as it is, for the next drain.
 */
static void
set_failed(Drain *drain, LedgerFile *file, FileResult result)
{
	/* we were asked to stop while a file was copied: it is as it was */
	if (result.errnum == EINTR)
		CHECK_FOR_INTERRUPTS();
	set_state(file, lies_in_trash(drain, file) ? NULL : "failed", failure_text(result));
	ereport(failure_level(drain, file),
			(errcode(ERRCODE_WARNING),
			 errmsg("audio_cleanup left file \"%s\" where it is: %s", file->path, file->error)));
}

static void
set_destroyed(LedgerFile *file, int64 freed)
{
	file->freed = freed;
	set_state(file, "deleted", NULL);
	ereport(DEBUG1,
			(errmsg("audio_cleanup deleted file \"%s\", %lld bytes freed",
					file->path, (long long) freed)));
}

static void
			set_captured(Drain *drain, LedgerFile *file, FileResult result);

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

	if (drain->settings->backup_retention_days > 0 && captured.errnum == EXDEV)
	{
		set_captured(drain, file, store_capture_by_copy(drain->store, drain->run_id, file->path,
														&file->identity));
		return;
	}
	if (drain->settings->backup_retention_days > 0)
	{
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("audio_cleanup could not back up file \"%s\": %s",
						file->path, failure_text(captured))));
		return;
	}
	result = store_destroy_in_place(drain->store, file->path, &file->identity, &freed);
	if (result.outcome == FILE_OK)
		set_destroyed(file, freed);
	else
		set_failed(drain, file, captured);
}

static void
set_captured(Drain *drain, LedgerFile *file, FileResult result)
{
	switch (result.outcome)
	{
		case FILE_OK:
			set_state(file, "trashed", NULL);
			break;
		case FILE_VANISHED:
		case FILE_NOT_REGULAR:
			set_state(file, "skipped", "it vanished before it was captured");
			break;
		case FILE_REPLACED:
			set_state(file, "skipped", "it was replaced or changed");
			break;
		case FILE_NO_SPACE:
			capture_without_rename(drain, file, result);
			break;
		case FILE_OCCUPIED:
		case FILE_FAILED:
			set_failed(drain, file, result);
			break;
	}
}

static void
capture_file(Drain *drain, LedgerFile *file)
{
	set_captured(drain, file, store_capture(drain->store, drain->run_id, file->path, &file->identity));
}

static void heal_at_commit(Drain *drain, LedgerFile *file, const char *why);

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
		set_failed(drain, file, result);
	else
		set_state(file, "skipped", why_let_live);
}

/* let_live(), but nothing happens to files before the commit. */
static void
let_live_at_commit(Drain *drain, LedgerFile *file, FilePlace place)
{
	if (place == PLACE_TRASH)
		heal_at_commit(drain, file, why_let_live);
	else if (place != PLACE_UNFINISHED && place != PLACE_UNKNOWN)
		set_state(file, "skipped", why_let_live);
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
			set_state(file, "trashed", NULL);
			return false;
		case PLACE_NOWHERE:
			set_state(file, "skipped", "it vanished before it was captured");
			return false;
		case PLACE_OTHER:
			set_state(file, "skipped", "it was replaced or changed");
			return false;
		case PLACE_UNKNOWN:
			set_failed(drain, file, result);
			return false;
		case PLACE_UNFINISHED:
			return false;		/* for the worker, after the commit */
		case PLACE_UPLOAD:
			break;
	}
	return true;
}

/*
 * Which of these files does somebody need by now?  NULL if that cannot be
 * told: they are left as they are.
 */
static const char **
recheck(Drain *drain, LedgerFile **files, int n)
{
	const char **paths = palloc(sizeof(char *) * n);
	Brake	   *brake = NULL;
	const char **needed;
	int			i;

	for (i = 0; i < n; i++)
		paths[i] = files[i]->path;
	needed = plan_recheck(drain->settings, drain->extension, paths, n, &brake, &drain->look_us);
	if (brake == NULL)
		return needed;
	drain->put_off = drain->put_off || strcmp(brake->name, "writers") == 0;
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("audio_cleanup leaves %d condemned files as they are for now", n),
			 errdetail_internal("%s", brake_text(brake))));
	return NULL;
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
	set_state(file, "skipped", why);
}

/*
 * Files that are still in place were condemned some time ago.  Returns how
 * many were dealt with: those that come after are left as they are.
 */
static int
recheck_and_capture(Drain *drain, LedgerFile **files, int n)
{
	const char **needed = recheck(drain, files, n);
	TimestampTz began = GetCurrentTimestamp();
	Batch	   *batch = NULL;
	int			i;

	if (needed == NULL)
		return n;
	if (drain->at_commit)
		batch = at_commit_begin(drain->settings, drain->run_id, AT_COMMIT_CAPTURE);
	progress_set_phase(PHASE_CAPTURING);
	for (i = 0; i < n && (drain->at_commit || !is_time_to_commit(began)); i++)
	{
		progress_tick();
		if (needed[i])
			let_stay(drain, files[i], needed[i]);
		else if (drain->at_commit)
			at_commit_add(batch, files[i]->path, &files[i]->identity);
		else
			capture_file(drain, files[i]);
	}
	if (drain->at_commit)
		at_commit_end(batch);
	return i;
}

static void heal_file(Drain *drain, LedgerFile *file, const char *why);
static void end_healing(Drain *drain);

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
	needed = recheck(drain, captured, n_captured);
	for (i = 0; i < n_captured; i++)
	{
		if (needed == NULL)
			captured[i]->new_state = NULL;	/* pending, to be looked at again */
		else if (needed[i] && drain->at_commit)
			heal_at_commit(drain, captured[i], needed[i]);
		else if (needed[i])
			heal_file(drain, captured[i], needed[i]);
	}
}

/* Before a row says that a rename or an unlink has happened. */
static void
make_durable(Drain *drain)
{
	int			errnum = store_sync(drain->store);

	if (errnum != 0)
		ereport(ERROR,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("could not fsync below upload directory \"%s\": %s",
						drain->settings->upload_dir, strerror(errnum))));
}

/* Is the file's story at its end, for now at least? */
static bool
is_done(const Drain *drain, const LedgerFile *file)
{
	if (file->new_state == NULL || strcmp(file->new_state, "pending") == 0)
		return false;
	return strcmp(file->new_state, "trashed") != 0 || drain->settings->backup_retention_days > 0;
}

/* After what was done is durable. */
static void
record(Drain *drain, const LedgerFile *files, int n)
{
	int			i;

	ledger_record(drain->extension, files, n);
	for (i = 0; i < n; i++)
		if (is_done(drain, &files[i]))
			progress_add_done(drain->run_id, files[i].freed);
}

/* Returns the number of files looked at. */
static int
capture_step(Drain *drain, int limit)
{
	LedgerFile *files;
	LedgerFile **in_place;
	int			n_in_place = 0;
	int			n_captured;
	int			n;
	int			i;

	files = ledger_files(drain->extension, drain->run_id, LEDGER_PENDING, drain->captured, limit, &n);
	if (n == 0)
		return 0;
	in_place = palloc(sizeof(LedgerFile *) * n);
	for (i = 0; i < n; i++)
	{
		progress_tick();
		if (settle_by_place(drain, &files[i]))
			in_place[n_in_place++] = &files[i];
	}
	if (drain->settings->backup_retention_days > 0)
		heal_captured(drain, files, n);
	end_healing(drain);
	drain->captured = files[n - 1].file_id;
	if (n_in_place > 0)
	{
		n_captured = recheck_and_capture(drain, in_place, n_in_place);
		/* the rest comes with the next step */
		if (n_captured < n_in_place)
			drain->captured = in_place[n_captured]->file_id - 1;
	}
	make_durable(drain);
	record(drain, files, n);
	return n;
}


/* --------------------------------------------------------------- destroying --- */

/* A copy has another inode; and nobody else has made one like it. */
bool
drain_is_found_at(Drain *drain, const char *path, const LedgerFile *file)
{
	FileIdentity found;

	return store_identify_durably(drain->store, path, &found).outcome == FILE_OK &&
		store_same_copy(&found, &file->identity);
}

/*
 * The trash did not have it.  If it is back in its place (the rename was lost
 * in a crash of the machine), it is pending once more; if it is nowhere, we
 * have destroyed it before, and died before that was recorded.  If that
 * cannot be told, the row stays as it is.
 */
static void
settle_missing(Drain *drain, LedgerFile *file)
{
	int			errnum;

	switch (store_locate(drain->store, drain->run_id, file->path, &file->identity,
						 !drain->at_commit, &errnum))
	{
		case PLACE_UPLOAD:
			set_state(file, "pending", NULL);
			break;
		case PLACE_NOWHERE:
		case PLACE_OTHER:
			/* somebody has moved it, or the whole disk is of an earlier day */
			if (drain_is_found_at(drain, file->path, file))
				set_state(file, "restored", "it was in its place");
			else
				set_destroyed(file, file->identity.space);
			break;
		case PLACE_TRASH:
		case PLACE_UNFINISHED:
			break;
		case PLACE_UNKNOWN:
			ereport(WARNING,
					(errcode(ERRCODE_WARNING),
					 errmsg("audio_cleanup could not find file \"%s\" in the trash of run %lld: %s",
							file->path, (long long) drain->run_id, strerror(errnum))));
			break;
	}
}

static void
destroy_file(Drain *drain, LedgerFile *file)
{
	int64		freed = 0;
	FileResult	result = store_destroy(drain->store, drain->run_id, file->path,
									   &file->identity, &freed);

	if (result.outcome == FILE_OK)
		set_destroyed(file, freed);
	else if (result.outcome == FILE_VANISHED)
		settle_missing(drain, file);
	else
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("audio_cleanup could not delete file \"%s\" from the trash of run %lld: %s",
						file->path, (long long) drain->run_id,
						result.outcome == FILE_FAILED ? failure_text(result) :
						"another file is in its place")));
}

const char *
drain_trash_path(const Settings *settings, int64 run_id)
{
	if (*settings->backup_dir == '\0' || settings->backup_owner == NULL)
		return psprintf("%s/%s/%lld", STORE_PRIVATE_DIR, STORE_TRASH_DIR, (long long) run_id);
	return psprintf("%s/%s/%lld", settings->backup_dir, settings->backup_owner, (long long) run_id);
}

static const char name_taken[] = "its name is taken";
static const char newer_file[] = "a newer file of that name is in the trash";

/*
 * It stays a backup, for some time at least: there is an obstacle.
 */
static void
keep_backup(Drain *drain, LedgerFile *file, const char *why, const char *obstacle)
{
	set_state(file, "trashed",
			  psprintf("%s, but %s; it lies in %s, and cleanup_restore(file, restore_as) puts it back under another name",
					   why, obstacle, drain_trash_path(drain->settings, drain->run_id)));
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("audio_cleanup could not put file \"%s\" back: %s", file->path, file->error)));
}

/*
 * Somebody needs it: back to its place, unless that is taken.  Of two files
 * that had the name one after the other, the newer one is needed, wherever it
 * is: the older one must not take its place while it is in the trash.
 */
static void
heal_file(Drain *drain, LedgerFile *file, const char *why)
{
	FileResult	result;

	if (backup_has_newer(drain->extension, drain->settings->claim, drain->run_id, file->path))
	{
		keep_backup(drain, file, why, newer_file);
		return;
	}
	result = store_put_back(drain->store, drain->run_id, file->path, &file->identity);
	if (result.outcome == FILE_VANISHED)
		settle_missing(drain, file);
	else if (result.outcome == FILE_OK)
	{
		set_state(file, "restored", why);
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("audio_cleanup put file \"%s\" back: %s", file->path, why)));
	}
	else if (result.outcome == FILE_OCCUPIED && file->is_backup)
		destroy_file(drain, file);	/* its days are over, and who refers to
									 * that name finds a file there */
	else if (result.outcome == FILE_OCCUPIED)
		keep_backup(drain, file, why, name_taken);
	else
		set_failed(drain, file, result);
}

/*
 * In somebody's transaction the row says so first; and with the commit it is
 * put back, by one batch a step: see end_healing().
 */
static void
heal_at_commit(Drain *drain, LedgerFile *file, const char *why)
{
	FileIdentity captured = file->identity;

	if (backup_has_newer(drain->extension, drain->settings->claim, drain->run_id, file->path))
	{
		keep_backup(drain, file, why, newer_file);
		return;
	}
	if (drain->healing == NULL)
		drain->healing = at_commit_begin(drain->settings, drain->run_id, AT_COMMIT_PUT_BACK);
	captured.captured = true;
	set_state(file, "restoring", why);
	at_commit_add_as(drain->healing, file->path, file->path, &captured);
}

static void
end_healing(Drain *drain)
{
	if (drain->healing != NULL)
		at_commit_end(drain->healing);
	drain->healing = NULL;
}

/*
 * The note says why, if nobody has asked for it.  Somebody in whose transaction
 * that is found has nothing to do with it.
 */
static void
set_restored(const Drain *drain, LedgerFile *file)
{
	set_state(file, "restored", file->note);
	if (file->note != NULL)
		ereport(drain->at_commit ? LOG : WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("audio_cleanup put file \"%s\" back: %s", file->path, file->note)));
}

/* What was to be put back is not in the trash: is it done? */
static void
settle_restored(Drain *drain, LedgerFile *file)
{
	const char *target = file->restore_as ? file->restore_as : file->path;

	if (drain_is_found_at(drain, target, file))
		set_restored(drain, file);
	else if (drain_is_found_at(drain, file->path, file))
	{
		/* somebody was quicker, with mv */
		set_restored(drain, file);
		file->restore_as = NULL;
	}
	else if (file->unsettled)
		/* it was due, and we were killed between destroying it and saying so */
		set_state(file, "deleted", "it had been destroyed when it was wanted again");
	else
		set_state(file, "failed", "its backup is gone");
}

static void
put_back_file(Drain *drain, LedgerFile *file)
{
	const char *target = file->restore_as ? file->restore_as : file->path;
	FileResult	result = store_put_back_as(drain->store, drain->run_id, file->path, target,
										   &file->identity);

	if (result.outcome == FILE_OK)
		set_restored(drain, file);
	else if (result.outcome == FILE_OCCUPIED)
	{
		keep_backup(drain, file, file->note ? file->note : "it was to be restored", name_taken);
		file->restore_as = NULL;
	}
	else if (result.outcome == FILE_VANISHED || result.outcome == FILE_REPLACED)
		settle_restored(drain, file);
	else
	{
		set_failed(drain, file, result);
		/* it is safe where it is */
		file->new_state = "trashed";
		file->restore_as = NULL;
	}
}

/*
 * In somebody's transaction they are put back at its commit, which may never
 * come, and recorded by the next drain.
 */
static void
put_back_at_commit(Drain *drain, LedgerFile *files, int n)
{
	Batch	   *batch = at_commit_begin(drain->settings, drain->run_id, AT_COMMIT_PUT_BACK);
	int			errnum;
	int			i;

	for (i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		switch (store_locate(drain->store, drain->run_id, files[i].path, &files[i].identity, false,
							 &errnum))
		{
			case PLACE_TRASH:
				at_commit_add_as(batch, files[i].path,
								 files[i].restore_as ? files[i].restore_as : files[i].path,
								 &files[i].identity);
				break;
			case PLACE_UNKNOWN:
			case PLACE_UNFINISHED:
				break;
			default:
				settle_restored(drain, &files[i]);
		}
	}
	at_commit_end(batch);
}

/*
 * What is to be put back comes first: somebody waits for it.  Returns the
 * number of files looked at.
 */
static int
restore_step(Drain *drain, int limit)
{
	TimestampTz began = GetCurrentTimestamp();
	LedgerFile *files;
	int			n;
	int			i;

	files = ledger_files(drain->extension, drain->run_id, LEDGER_RESTORING, drain->restored, limit, &n);
	if (n == 0)
		return 0;
	if (drain->at_commit)
		put_back_at_commit(drain, files, i = n);
	else
		for (i = 0; i < n && !is_time_to_commit(began); i++)
		{
			progress_tick();
			drain->restored = files[i].file_id;
			put_back_file(drain, &files[i]);
		}
	make_durable(drain);
	record(drain, files, i);
	return i;
}

/*
 * In somebody's transaction what is recorded as trashed may be rolled back:
 * the file is destroyed at its commit, and found missing by the next drain.
 */
static void
destroy_at_commit(Drain *drain, Batch *batch, LedgerFile *file)
{
	int			errnum;

	if (store_locate(drain->store, drain->run_id, file->path, &file->identity,
					 false, &errnum) == PLACE_TRASH)
		at_commit_add(batch, file->path, &file->identity);
	else
		settle_missing(drain, file);
}

/*
 * In somebody's transaction all of it happens at its commit.
 */
static void
destroy_all_at_commit(Drain *drain, LedgerFile *files, int n, const char **needed)
{
	Batch	   *batch = at_commit_begin(drain->settings, drain->run_id, AT_COMMIT_DESTROY);
	int			i;

	for (i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (needed[i])
			heal_at_commit(drain, &files[i], needed[i]);
		else
			destroy_at_commit(drain, batch, &files[i]);
	}
	at_commit_end(batch);
	end_healing(drain);
}

/* Copied, because it outlives the step. */
static void
clear_file(Drain *drain, const LedgerFile *file)
{
	LedgerFile *copy = &drain->cleared[drain->n_cleared++];

	*copy = *file;
	copy->path = MemoryContextStrdup(drain->cleared_context, file->path);
}

/* What is needed is put back at once, the rest is cleared to be destroyed. */
static void
heal_or_clear(Drain *drain, LedgerFile *files, int n, const char **needed)
{
	int			i;

	MemoryContextReset(drain->cleared_context);
	drain->cleared = MemoryContextAllocHuge(drain->cleared_context, sizeof(LedgerFile) * n);
	drain->n_cleared = drain->n_destroyed = 0;
	drain->cleared_at = GetCurrentTimestamp();
	for (i = 0; i < n; i++)
		if (needed[i])
			heal_file(drain, &files[i], needed[i]);
		else
			clear_file(drain, &files[i]);
}

/* A last look is good for so long, and a reading of the sources worth it. */
static int
look_seconds(const Drain *drain)
{
	return (int) Min(Max(LOOK_AHEAD_SECONDS, 10 * drain->look_us / USECS_PER_SEC), 3600);
}

/*
 * Where deleting is slowed down, files are not looked at long before their
 * turn, and yet not so few of them that the sources were read all the time.
 */
static int
look_ahead(const Drain *drain)
{
	return pace_files_in(&drain->pace, look_seconds(drain));
}

/*
 * Between two steps whoever has the run lock may have restored what was
 * cleared to go, and anybody may hold it: that is looked at once more.
 */
static void
spare_saved(Drain *drain)
{
	LedgerFile *cleared = drain->cleared + drain->n_destroyed;
	int			n = drain->n_cleared - drain->n_destroyed;
	int64	   *due;
	int			n_due;
	int			left = 0;
	int			i;
	int			j = 0;

	if (n == 0)
		return;
	due = ledger_still_due(drain->extension, drain->run_id, cleared[0].file_id,
						   cleared[n - 1].file_id, &n_due);
	for (i = 0; i < n; i++)
	{
		while (j < n_due && due[j] < cleared[i].file_id)
			j++;
		if (j < n_due && due[j] == cleared[i].file_id)
			cleared[left++] = cleared[i];
		else
			drain->looked_at = Min(drain->looked_at, cleared[i].file_id - 1);
	}
	drain->n_cleared = drain->n_destroyed + left;
}

/* As many of the cleared files as the pace allows; returns how many. */
static int
destroy_cleared(Drain *drain)
{
	LedgerFile *files = drain->cleared + drain->n_destroyed;
	int			most = Min(drain->n_cleared - drain->n_destroyed, pace_portion(&drain->pace));
	TimestampTz began = GetCurrentTimestamp();
	int			n = 0;

	if (most == 0)
		return 0;
	if (TimestampDifferenceExceeds(drain->cleared_at, began, 2000 * look_seconds(drain)))
	{
		/* a slow disk: look at the rest again */
		drain->looked_at = files[0].file_id - 1;
		drain->n_cleared = drain->n_destroyed = 0;
		return 0;
	}
	progress_set_phase(PHASE_DELETING);
	do
	{
		progress_tick();
		destroy_file(drain, &files[n++]);
	} while (n < most && !is_time_to_commit(began));
	make_durable(drain);
	record(drain, files, n);
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

	files = ledger_files(drain->extension, drain->run_id, LEDGER_DUE, drain->looked_at,
						 Min(limit, look_ahead(drain)), &n);
	if (n == 0)
		return 0;
	drain->looked_at = files[n - 1].file_id;
	all = palloc(sizeof(LedgerFile *) * n);
	for (i = 0; i < n; i++)
		all[i] = &files[i];
	if ((needed = recheck(drain, all, n)) == NULL)
		return n;
	if (drain->at_commit)
		destroy_all_at_commit(drain, files, n, needed);
	else
		heal_or_clear(drain, files, n, needed);
	make_durable(drain);
	record(drain, files, n);
	return n;
}

/* Returns the number of files looked at or destroyed. */
static int
destroy_step(Drain *drain, int limit)
{
	int			n;

	spare_saved(drain);
	n = destroy_cleared(drain);
	if (n == 0 && (n = last_look(drain, limit)) > 0)
		(void) destroy_cleared(drain);
	return n;
}


/* ------------------------------------------------------------------ finishing --- */

bool
drain_finish_run(const Extension *extension, int64 run_id)
{
	LedgerSummary summary;

	if (!ledger_finish_run(extension, run_id, &summary))
	{
		ledger_correct_run(extension, run_id);
		return false;
	}
	notify_run(extension, run_id);
	outbox_put(extension, run_id);
	ereport(LOG,
			(errmsg("audio_cleanup run %lld by \"%s\": %lld files condemned, %lld deleted, "
					"%lld kept as backup, %lld skipped, %lld failed, %.2f MiB freed, %.3f s",
					(long long) run_id, summary.requested_by,
					(long long) summary.files, (long long) summary.deleted,
					(long long) summary.trashed, (long long) summary.skipped,
					(long long) summary.errors, (double) summary.bytes / (1024 * 1024),
					summary.seconds),
			 errhidestmt(true), errhidecontext(true)));
	return true;
}

/* Folders from which the run has taken their last file, if that is wished. */
static void
remove_folders(Drain *drain)
{
	List	   *folders = ledger_folders(drain->extension, drain->run_id);
	const FileIdentity none = {0};
	Batch	   *batch = NULL;
	ListCell   *lc;

	if (drain->at_commit)
		batch = at_commit_begin(drain->settings, drain->run_id, AT_COMMIT_REMOVE_FOLDERS);
	foreach(lc, folders)
	{
		CHECK_FOR_INTERRUPTS();
		if (batch != NULL)
			at_commit_add(batch, lfirst(lc), &none);
		else
			(void) store_remove_folders(drain->store, lfirst(lc));
	}
	if (batch != NULL)
		at_commit_end(batch);
	make_durable(drain);
}

static void
finish_run(Drain *drain)
{
	if (drain_finish_run(drain->extension, drain->run_id) && drain->settings->remove_empty_dirs)
		remove_folders(drain);
}


/*
 * Rows that came with a restored dump or a copied cluster are not ours to
 * carry out.  If the server died before it could write its own claim, that is
 * done now.
 */
static Brake *
check_claim(Drain *drain)
{
	const char *upload_dir = drain->settings->upload_dir;
	Claim	   *claim = claim_check(drain->store, drain->extension, upload_dir);
	FileResult	written = {FILE_OK, 0, NULL};

	if (claim->brake == NULL && drain->claim != NULL && claim->uuid != NULL &&
		strcmp(claim->uuid, drain->claim) != 0)
		return brake_make("claim", ERRCODE_OBJECT_IN_USE,
						  psprintf("upload directory \"%s\" is not the one that the run was made in", upload_dir),
						  "It has another claim of this database: the directories were exchanged, or the one of the run was moved.",
						  "Set audio_cleanup.upload_dir to the directory of the run, and call again.");
	if (claim->state == CLAIM_UNWRITTEN && drain->at_commit)
	{
		/* the twin may be this very transaction's */
		at_commit_claim(drain->settings, claim_text(claim->uuid), false);
		return NULL;
	}
	if (claim->state == CLAIM_UNWRITTEN)
	{
		written = store_write_claim(drain->store, claim_text(claim->uuid), false);
		claim = claim_check(drain->store, drain->extension, upload_dir);
	}
	drain->taken_over = claim->grace_from;
	drain->settings->claim = claim->uuid;
	if (claim->state == CLAIM_OURS)
		claim_confirm(drain->extension, claim, upload_dir);
	else if (claim->brake == NULL)
		claim->brake = brake_make("claim", ERRCODE_OBJECT_IN_USE,
								  psprintf("upload directory \"%s\" is claimed by nobody", upload_dir),
								  written.errnum ? failure_text(written) : NULL, NULL);
	return claim->brake;
}

static void
say_unfinished(int64 run_id, const Brake *brake)
{
	ereport(WARNING,
			(errcode(brake->sqlstate),
			 errmsg("audio_cleanup run %lld is left unfinished", (long long) run_id),
			 errdetail_internal("%s", brake_text(brake))));
}

/*
 * One step at a time: others may begin a run in between, as they may with the
 * run lock.  Giving up is no ERROR here.
 */
static bool
lock_directory(Drain *drain)
{
	Brake	   *brake = claim_lock(drain->store, drain->settings->upload_dir,
								   drain->settings->writer_wait);

	if (brake == NULL)
		return true;
	drain->put_off = true;
	say_unfinished(drain->run_id, brake);
	return false;
}

static bool
is_interrupted(void)
{
	return QueryCancelPending || ProcDiePending;
}

/* Between two steps somebody may have taken the directory over. */
static bool
is_still_ours(Drain *drain)
{
	Brake	   *brake = check_claim(drain);

	if (brake != NULL)
		say_unfinished(drain->run_id, brake);
	return brake == NULL;
}

static Brake *
open_directory(Drain *drain)
{
	const char *upload_dir = drain->settings->upload_dir;
	Brake	   *brake = location_check(upload_dir);

	if (brake == NULL && (drain->store = store_open(upload_dir)) == NULL)
		brake = location_brake(upload_dir, "open upload directory", errno);
	if (brake == NULL)
		brake = check_claim(drain);
	if (brake == NULL)
		brake = location_set_backup_dir(drain->store, drain->settings);
	if (brake == NULL)
		store_set_stop(drain->store, is_interrupted);
	return brake;
}

Drain *
drain_open(const Extension *extension, const LedgerWork *work, bool at_commit, Brake **brake)
{
	Drain	   *drain = palloc0(sizeof(Drain));

	drain->extension = extension;
	drain->run_id = work->run_id;
	drain->claim = work->claim;
	drain->settings = settings_of_run(work->upload_dir, work->settings);
	drain->at_commit = at_commit;
	drain->pace = pace_begin(drain->settings);
	drain->cleared_context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup cleared",
												   ALLOCSET_DEFAULT_SIZES);
	if ((*brake = open_directory(drain)) == NULL)
		return drain;
	drain_end(drain);
	return NULL;
}

Drain *
drain_begin(const Extension *extension, const LedgerWork *work, bool at_commit)
{
	Brake	   *brake;
	Drain	   *drain = drain_open(extension, work, at_commit, &brake);

	if (drain == NULL)
		say_unfinished(work->run_id, brake);
	return drain;
}

void
drain_end(Drain *drain)
{
	store_close(drain->store);
	drain->store = NULL;
	MemoryContextReset(drain->cleared_context);
	drain->n_cleared = drain->n_destroyed = 0;
}

/*
 * Due files before the next pending ones, so that space is given back all the
 * time.  Both are taken by file_id, which capturing does not disturb.
 */
static bool
do_step(Drain *drain, bool finish)
{
	if (restore_step(drain, DRAIN_BATCH) > 0 ||
		destroy_step(drain, DRAIN_BATCH) > 0 || capture_step(drain, DRAIN_BATCH) > 0)
		return true;
	if (finish)
		finish_run(drain);
	store_tidy(drain->store, drain->run_id);
	return false;
}

bool
drain_step(Drain *drain, bool finish)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup step",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	bool		more;

	drain->portion = 0;
	/* what this commits must be on disk before the next step unlinks */
	ForceSyncCommit();
	more = lock_directory(drain) && is_still_ours(drain) && do_step(drain, finish);
	store_unlock(drain->store);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return more;
}

void
drain_rest(Drain *drain, TimestampTz began)
{
	pace_rest(&drain->pace, drain->portion, began);
}

/* At most `limit` files of one run; returns how many there were. */
static int
drain_run_in_transaction(const Extension *extension, const LedgerWork *work, int limit)
{
	Drain	   *drain = drain_begin(extension, work, true);
	volatile int n = 0;

	if (drain == NULL)
		return 0;
	PG_TRY();
	{
		/*
		 * they are destroyed when the commit that calls them trashed is
		 * durable
		 */
		if (lock_directory(drain) && is_still_ours(drain))
		{
			n = restore_step(drain, limit);
			n = Max(n, capture_step(drain, limit));
			/* the rest is for the worker, which can sleep */
			n = Max(n, destroy_step(drain, Min(limit, pace_portion(&drain->pace))));
			finish_run(drain);
			store_tidy(drain->store, drain->run_id);
		}
	}
	PG_FINALLY();
	{
		drain_end(drain);
	}
	PG_END_TRY();
	return n;
}

void
drain_in_transaction(const Extension *extension)
{
	int			left = DRAIN_IN_TRANSACTION;
	ListCell   *lc;

	foreach(lc, ledger_unfinished_runs(extension, 0))
	{
		const LedgerWork *work = lfirst(lc);

		/* an earlier run of this very transaction is not committed yet */
		if (at_commit_has_run(work->run_id))
			continue;
		left -= drain_run_in_transaction(extension, work, left);
		at_commit_start_worker();
		if (left <= 0)
			break;
	}
}
