/*-------------------------------------------------------------------------
 *
 * drain/drain.c
 *	  Carries out, and records, the work on files that committed runs have
 *	  condemned.
 *
 * Only the rows of cleanup_files say what is to be done.  A drain finds the place
 * of each file, and brings the file one state further, whichever process worked
 * on the file before, and however far that process came: a drain does the same
 * after a success, after a crash, and after a COMMIT PREPARED of last week.  The
 * order of the work is:
 *
 *	1.	Files that a person wants restored are put back (-> restored); if the
 *		name is taken, the file stays in the trash (-> trashed).
 *	2.	Uploads that were never completed are ended (-> deleted, or skipped).
 *		Uploads are no files: the next steps do not concern them.
 *	3.	Pending files are captured (-> trashed, or skipped).  If these files were
 *		condemned long ago, all of them are matched against the sources first.
 *	4.	The last look, when all files are captured: the files are matched once
 *		more, and each file that somebody needs is put back (-> restored).
 *	5.	Files that are due and that nobody needs are unlinked (-> deleted).
 *	6.	The figures of the run are recorded, and the server log gets its line.
 *
 * Each of these steps takes a number of transactions.  But the last look takes
 * one transaction, and reads the sources once, however many files there are;
 * only under a limit of files a second there are several last looks.
 *
 * Directories are fsynced before a row says that something has happened.  The
 * states of a row are drawn in CONTRIBUTING.md.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "src/drain/private.h"
#include "src/guard/claim.h"
#include "src/ledger/backups.h"
#include "src/mail/outbox.h"
#include "src/pg/progress.h"
#include "src/pg/time.h"
#include "src/store/claim_file.h"

/* microseconds after which a step ends; if the last fsync took longer, as long as that fsync, up to a limit */
#define STEP_US			500000
#define STEP_MAX_US		2000000

/* most files that one call in the transaction of a caller deals with */
#define DRAIN_IN_TRANSACTION	10000


/* ---------------------------------------------------------- what the steps share --- */

char *
drain_failure_text(const Drain *drain, FileResult result)
{
	if (result.outcome == FILE_REPLACED)
		return pstrdup("something else has its name in the trash");
	return psprintf("%s: %s", result.failure ? result.failure : "could not deal with it",
					store_error_text(drain->store, result.errnum));
}

void
drain_set_state(LedgerFile *file, const char *state, const char *error)
{
	file->new_state = state;
	file->error = error;
}

bool
drain_is_step_over(const Drain *drain, int64 began)
{
	int64		step_us = Max(STEP_US, Min(drain->sync_us, STEP_MAX_US));

	return !drain->at_commit && time_monotonic_us() - began >= step_us;
}

bool
drain_is_changed(Drain *drain, const LedgerFile *file)
{
	FileIdentity found;

	return store_acts_at_commit(drain->store) &&
		store_identify_captured(drain->store, drain->run_id, file->path, &found).outcome == FILE_OK;
}

bool
drain_lies_in_trash(Drain *drain, const LedgerFile *file)
{
	FileIdentity found;
	int			errnum;

	return store_identify_captured(drain->store, drain->run_id, file->path, &found).outcome != FILE_VANISHED ||
		store_locate(drain->store, drain->run_id, file->path, &file->identity, false, &errnum) == PLACE_UNFINISHED;
}

/*
 * A drain does not read rows that have failed.  So the row becomes "failed" only if
 * the trash has nothing under the name of the file; else the row keeps its state,
 * for the next drain.  A folder and failure that the last WARNING has told of are
 * not told again.
 */
void
drain_set_failed(Drain *drain, LedgerFile *file, FileResult result)
{
	const char *slash = strrchr(file->path, '/');
	int			folder_length = slash ? (int) (slash - file->path) : 0;
	char	   *told;
	bool		is_told;

	/*
	 * the drain was asked to stop while a file was copied: the file has not
	 * changed
	 */
	if (result.errnum == EINTR)
		CHECK_FOR_INTERRUPTS();
	drain_set_state(file, drain_lies_in_trash(drain, file) ? NULL : "failed", drain_failure_text(drain, result));
	told = psprintf("%.*s: %s", folder_length, file->path, file->error);
	is_told = drain->warned_of != NULL && strcmp(drain->warned_of, told) == 0;
	if (!is_told)
	{
		if (drain->warned_of != NULL)
			pfree(drain->warned_of);
		drain->warned_of = MemoryContextStrdup(drain->memory, told);
	}
	ereport(is_told ? DEBUG1 : WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("left file \"%s\" where it is: %s", file->path, file->error)));
}

void
drain_set_destroyed(LedgerFile *file, int64 freed)
{
	file->freed = freed;
	drain_set_state(file, "deleted", NULL);
	ereport(DEBUG1,
			(errmsg("deleted file \"%s\", %lld bytes freed",
					file->path, (long long) freed)));
}

void
drain_make_durable(Drain *drain)
{
	int64		began = time_monotonic_us();
	int			errnum = store_sync(drain->store);

	drain->sync_us = time_monotonic_us() - began;
	if (errnum != 0)
	{
		errno = errnum;
		ereport(ERROR,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("could not fsync below upload directory \"%s\": %m",
						drain->context.settings->upload_dir)));
	}
}

void
drain_record(Drain *drain, const LedgerFile *files, int n)
{
	bool		keeps = drain->context.settings->backup_retention_days > 0;

	ledger_record(drain->context.extension, drain->run_id, files, n);
	for (int i = 0; i < n; i++)
	{
		const char *state = files[i].new_state;

		/* without backups, this drain destroys what is in the trash */
		if (state != NULL && strcmp(state, "pending") != 0 && (keeps || strcmp(state, "trashed") != 0))
			progress_add_done(drain->run_id, files[i].freed);
	}
}

bool
drain_is_found_at(const Drain *drain, const char *path, const LedgerFile *file)
{
	FileIdentity found;

	/*
	 * a file that was captured by a copy has another inode when it is put
	 * back
	 */
	if (store_identify(drain->store, path, true, &found).outcome != FILE_OK)
		return false;
	/* and somebody may have written into the file since it is back */
	return store_same_copy(&found, &file->identity) ||
		(found.inode == file->identity.inode && found.btime_ns != 0 && found.btime_ns == file->identity.btime_ns);
}

const char *
drain_trash_path(const Place *place, int64 run_id)
{
	bool		elsewhere = *place->backup_dir != '\0' && place->backup_owner != NULL;

	return psprintf("%s/%s/%lld", elsewhere ? place->backup_dir : STORE_PRIVATE_DIR,
					elsewhere ? place->backup_owner : STORE_TRASH_DIR, (long long) run_id);
}

FileStore *
drain_store(const Drain *drain)
{
	return drain->store;
}


/* ------------------------------------------------------------------ finishing --- */

bool
drain_finish_run(const Extension *extension, int64 run_id)
{
	if (!ledger_finish_run(extension, run_id))
	{
		ledger_correct_run(extension, run_id);
		return false;
	}
	notify_run(extension, run_id);
	outbox_put(extension, run_id);
	return true;
}

/*
 * Finishes the run if nothing is left to do, and then removes the folders from
 * which the run has taken the last file.  Backups must have had their last look.
 */
static void
finish_run(Drain *drain)
{
	const FileIdentity none = {0};

	if (!drain->looked || !drain_finish_run(drain->context.extension, drain->run_id) ||
		!drain->context.settings->remove_empty_dirs)
		return;
	foreach_ptr(const char, folder, ledger_folders(drain->context.extension, drain->run_id))
	{
		CHECK_FOR_INTERRUPTS();
		if (drain->at_commit)
			at_commit_add(&drain->place, drain->run_id, AT_COMMIT_REMOVE_FOLDERS, folder, NULL, &none);
		else
			(void) store_remove_folders(drain->store, folder);
	}
	drain_make_durable(drain);
}

/*
 * Checks that this database has the claim of the directory: rows that came
 * with a restored dump or a copied cluster must not be carried out.  Writes
 * the claim file if the server died before it could write the file.  Returns
 * NULL, or the brake that forbids the drain.
 */
static Brake *
check_claim(Drain *drain)
{
	const char *upload_dir = drain->context.settings->upload_dir;
	Claim	   *claim = claim_check(drain->store, drain->context.extension, upload_dir);
	FileResult	written = {FILE_OK, 0, NULL};

	if (claim->brake == NULL && drain->run_claim != NULL && claim->uuid != NULL &&
		strcmp(claim->uuid, drain->run_claim) != 0)
		return brake_make("claim", ERRCODE_OBJECT_IN_USE,
						  psprintf("upload directory \"%s\" is not the one that the run was made in", upload_dir),
						  "It has another claim of this database: the directories were exchanged, or the one of the run was moved.",
						  "Set audio_cleanup.upload_dir to the directory of the run, and call again.");
	if (claim->state == CLAIM_UNWRITTEN && !drain->at_commit)
	{
		written = store_write_claim(drain->store, claim_text(claim->uuid), false);
		claim = claim_check(drain->store, drain->context.extension, upload_dir);
	}
	drain->taken_over = claim->grace_from;
	drain->claim = claim->uuid;
	if (claim->state == CLAIM_UNWRITTEN && drain->at_commit)

		/*
		 * the row of the claim may be of this transaction: the file is
		 * written by its commit
		 */
		at_commit_claim(&drain->place, claim_text(claim->uuid), false);
	else if (claim->state == CLAIM_OURS)
		claim_confirm(drain->context.extension, claim, upload_dir);
	else if (claim->brake == NULL)
		claim->brake = brake_make("claim", ERRCODE_OBJECT_IN_USE,
								  psprintf("upload directory \"%s\" is claimed by nobody", upload_dir),
								  written.errnum ? drain_failure_text(drain, written) : NULL, NULL);
	return claim->brake;
}

/* Returns whether there is no brake that keeps the run from being drained now; else a WARNING says so. */
static bool
may_go_on(const Drain *drain, const Brake *brake)
{
	if (brake != NULL)
		ereport(WARNING,
				(errcode(brake->sqlstate),
				 errmsg("run %lld is left unfinished", (long long) drain->run_id),
				 errdetail_internal("%s", brake_text(brake))));
	return brake == NULL;
}

/*
 * Locks the directory for one step: between two steps another process may
 * begin a run, or another database may take the directory over.  Returns
 * false, with a WARNING, if the lock is not free in time, or the directory is
 * not ours any more.
 */
static bool
lock_directory(Drain *drain)
{
	Brake	   *brake = claim_lock(drain->store, drain->context.settings->upload_dir,
								   drain->context.settings->writer_wait);

	if (brake != NULL)
		drain->put_off = true;
	else
		brake = check_claim(drain);
	return may_go_on(drain, brake);
}

Brake *
drain_open(Drain *drain)
{
	const char *upload_dir = drain->context.settings->upload_dir;
	Brake	   *brake = location_check(upload_dir);

	if (brake == NULL)
		brake = location_open(upload_dir, &drain->store);
	if (brake == NULL)
		brake = check_claim(drain);
	if (brake == NULL)
		brake = location_set_backup_dir(drain->store, &drain->place);
	if (brake == NULL && backup_exist_at(drain->context.extension, drain->place.backup_dir, drain->place.backup_owner))
		brake = location_check_backups(&drain->place);
	return brake;
}

Drain *
drain_make(const Extension *extension, const LedgerWork *work, bool at_commit)
{
	Drain	   *drain = palloc0(sizeof(Drain));

	drain->memory = CurrentMemoryContext;
	drain->context.extension = extension;
	drain->context.settings = settings_of_run(work->upload_dir, work->settings);
	drain->place = location_place(drain->context.settings, settings_backup_owner(work->settings));
	drain->run_id = work->run_id;
	drain->run_claim = work->claim;
	drain->looked = work->looked;
	drain->read_ahead = DRAIN_READ;
	drain->together = DRAIN_TOGETHER;
	drain->at_commit = at_commit;
	drain->pace = pace_begin(drain->context.settings);
	return drain;
}

void
drain_end(Drain *drain)
{
	store_close(drain->store);
	drain->store = NULL;
}


/* ------------------------------------------------------------------- draining --- */

/*
 * Makes the first step that finds work.  All files are captured before the
 * first file is destroyed, so one look is enough for all files.  Returns false
 * if no work is left.
 */
static bool
do_step(Drain *drain, bool finish)
{
	int			limit = drain->context.settings->batch_size;

	if (drain_restore_step(drain, limit) > 0 || drain_uploads_step(drain, limit) > 0 || drain_capture_step(drain, limit) > 0 ||
		drain_destroy_step(drain, limit) > 0)
		return true;
	store_tidy(drain->store, drain->run_id);
	if (ledger_is_settled(drain->context.extension, drain->run_id))
		store_forget_run(drain->store, drain->run_id, drain->taken_over != 0);
	if (finish)
		finish_run(drain);
	return false;
}

/*
 * Does the work of one transaction.  Returns false if no work is left.  A file
 * is destroyed only after an earlier transaction has recorded that the file is
 * in the trash.
 */
static bool
make_step(Drain *drain, bool finish)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup step",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	bool		more;

	drain->portion = 0;

	/*
	 * the commit of this step must be on disk before the next step unlinks
	 * files
	 */
	ForceSyncCommit();
	more = lock_directory(drain) && do_step(drain, finish);
	store_unlock(drain->store);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return more;
}

bool
drain_run(const Extension *extension, const LedgerWork *work, const Pace *pace, bool finish,
		  const DrainTransactions *transactions)
{
	Drain	   *drain = drain_make(extension, work, false);
	int64		began;
	bool		more;

	if (pace != NULL)
		drain->pace = *pace;
	PG_TRY();
	{
		bool		begun = may_go_on(drain, drain_open(drain));

		do
		{
			/* who deletes in a bucket holds up nobody who waits for our disk */
			if (begun && store_acts_at_commit(drain->store))
				pace_look_around(&drain->pace);
			began = time_monotonic_us();
			more = begun && make_step(drain, finish);
			pace_note_own_transaction(&drain->pace);
			transactions->commit(transactions->arg);
			pace_rest(&drain->pace, drain->portion, began);
		} while (more && !(pace != NULL && pace_is_over(pace)) &&
				 transactions->begin(transactions->arg));
	}
	PG_FINALLY();
	{
		drain_end(drain);
	}
	PG_END_TRY();
	return drain->put_off;
}

/* Deals with at most `limit` files of one run.  Returns their number. */
static int
drain_run_in_transaction(const Extension *extension, const LedgerWork *work, int limit)
{
	Drain	   *drain = drain_make(extension, work, true);
	volatile int n = 0;

	PG_TRY();
	{
		/*
		 * files are destroyed when the commit that records them as trashed is
		 * durable; work that the commit cannot do is left to the worker
		 */
		if (may_go_on(drain, drain_open(drain)) && store_acts_at_commit(drain->store) && lock_directory(drain))
		{
			n = drain_restore_step(drain, limit);
			n = Max(n, drain_capture_step(drain, limit));
			/* the rest is for the worker, which can sleep */
			n = Max(n, drain_destroy_step(drain, Min(limit, pace_portion(&drain->pace))));
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

	foreach_ptr(const LedgerWork, work, ledger_unfinished_runs(extension, 0))
	{
		/* an earlier run of this very transaction is not committed yet */
		if (at_commit_has_run(work->run_id))
			continue;
		left -= drain_run_in_transaction(extension, work, left);
		at_commit_start_worker();
		if (left <= 0)
			break;
	}
}
