/*-------------------------------------------------------------------------
 *
 * execute.c
 *	  Carrying out what was condemned: after commit, and by draining.
 *
 * The commit callback
 * -------------------
 * A transaction that condemned files carries their names and identities in
 * memory, a Batch for each run and subtransaction.  ROLLBACK forgets them.
 * At XACT_EVENT_COMMIT the commit record is on disk (ForceSyncCommit) and the
 * callback renames the files into the trash.  It may do system calls and
 * nothing else: an ERROR there is a PANIC.  What it achieves or fails to
 * achieve it does not tell anybody; whoever drains finds out by looking.
 *
 * Draining
 * --------
 * The rows of cleanup_files are the only truth.  A drain looks where each
 * file is and brings it one state further; it need not know who condemned it
 * or how far he came, so it is the same after success, a crash, or a
 * COMMIT PREPARED of last week:
 *
 *	1.	pending rows: captured already -> trashed.  Still in place -> matched
 *		against the sources once more, because time has passed, then captured
 *		-> trashed, or skipped.  COMMIT.
 *	2.	due rows: unlink, -> deleted.  COMMIT.
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

#include "src/execute.h"
#include "src/ledger.h"
#include "src/location.h"
#include "src/plan.h"
#include "src/worker.h"

/* files of one step of draining */
#define DRAIN_BATCH		1000

/* what one call in somebody's transaction brings forward at most */
#define DRAIN_IN_TRANSACTION	10000

typedef enum BatchAction
{
	BATCH_CAPTURE,
	BATCH_DESTROY
} BatchAction;

typedef struct BatchFile
{
	const char *path;
	FileIdentity identity;
} BatchFile;

/* What is to be done with the files of one run at commit. */
typedef struct Batch
{
	struct Batch *next;
	MemoryContext context;		/* below TopMemoryContext; holds all of it */
	SubTransactionId subxact;
	BatchAction action;
	int64		run_id;
	FileStore  *store;
	int			n;
	BatchFile	files[FLEXIBLE_ARRAY_MEMBER];
} Batch;

static Batch *batches = NULL;	/* of the current transaction, newest first */
static SubTransactionId worker_wanted = InvalidSubTransactionId;


/* ----------------------------------------------------------------- batches --- */

static void
close_batch_store(void *arg)
{
	store_close(((Batch *) arg)->store);
}

/*
 * An empty batch with room for n files.  It is complete, and in the list,
 * only when link_batch() was called: an ERROR while it is filled leaves
 * nothing behind but its context, which goes with the caller's.
 */
static Batch *
make_batch(const Settings *settings, int64 run_id, BatchAction action, int n)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	Batch	   *batch = palloc0(offsetof(Batch, files) + sizeof(BatchFile) * n);

	callback->func = close_batch_store;
	callback->arg = batch;
	MemoryContextRegisterResetCallback(context, callback);
	batch->context = context;
	batch->action = action;
	batch->run_id = run_id;
	batch->store = store_open(settings->upload_dir);
	if (batch->store == NULL)
		brake_raise(location_brake(settings->upload_dir, "open upload directory", errno));
	MemoryContextSwitchTo(caller);
	return batch;
}

static void
add_to_batch(Batch *batch, const char *path, const FileIdentity *identity)
{
	BatchFile  *file = &batch->files[batch->n++];

	file->path = MemoryContextStrdup(batch->context, path);
	file->identity = *identity;
}

static void
link_batch(Batch *batch)
{
	MemoryContextSetParent(batch->context, TopMemoryContext);
	batch->subxact = GetCurrentSubTransactionId();
	batch->next = batches;
	batches = batch;
	ForceSyncCommit();
}

/* Commit-safe: frees, and never allocates. */
static void
forget_batch(Batch *batch)
{
	MemoryContextDelete(batch->context);
}

/* Commit-safe. */
static void
carry_out_batch(Batch *batch)
{
	int64		freed;
	int			i;

	/* whoever records it will look again, and fsync */
	store_set_durable(batch->store, false);
	for (i = 0; i < batch->n; i++)
	{
		const BatchFile *file = &batch->files[i];

		if (batch->action == BATCH_CAPTURE)
			(void) store_capture(batch->store, batch->run_id, file->path, &file->identity);
		else
			(void) store_destroy(batch->store, batch->run_id, file->path, &file->identity, &freed);
	}
}

void
execute_at_commit(const Settings *settings, int64 run_id, Condemned *condemned)
{
	int			n = (int) Min(condemned->n_files, EXECUTE_AT_COMMIT);
	MemoryContext scratch;
	MemoryContext caller;
	CondemnedFile file;
	Batch	   *batch;

	if (n == 0)
		return;
	batch = make_batch(settings, run_id, BATCH_CAPTURE, n);
	scratch = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup file",
									ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(scratch);
	condemned_rewind(condemned);
	while (batch->n < n && condemned_next(condemned, &file))
	{
		add_to_batch(batch, file.path, &file.identity);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
	link_batch(batch);
}

void
execute_start_worker_at_commit(void)
{
	if (worker_wanted == InvalidSubTransactionId)
		worker_wanted = GetCurrentSubTransactionId();
}


/* --------------------------------------------------------------- callbacks --- */

static void
end_batches(bool commit)
{
	while (batches != NULL)
	{
		Batch	   *batch = batches;

		/* off the list first: nothing may make it run twice */
		batches = batch->next;
		if (commit)
			carry_out_batch(batch);
		forget_batch(batch);
	}
	worker_wanted = InvalidSubTransactionId;
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			/* the last chance for anything that may fail */
			if (worker_wanted != InvalidSubTransactionId)
				worker_start_drain();
			break;
		case XACT_EVENT_COMMIT:
			end_batches(true);
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			/* after COMMIT PREPARED the next run drains the rows */
			end_batches(false);
			break;
		default:
			break;
	}
}

/* A subtransaction's batches become its parent's, or are forgotten. */
static void
at_subtransaction_event(SubXactEvent event, SubTransactionId subxact,
						SubTransactionId parent, void *arg)
{
	Batch	  **link = &batches;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	if (worker_wanted == subxact)
		worker_wanted = event == SUBXACT_EVENT_COMMIT_SUB ? parent : InvalidSubTransactionId;
	while (*link != NULL)
	{
		Batch	   *batch = *link;

		if (batch->subxact == subxact && event == SUBXACT_EVENT_ABORT_SUB)
		{
			*link = batch->next;
			forget_batch(batch);
			continue;
		}
		if (batch->subxact == subxact)
			batch->subxact = parent;
		link = &batch->next;
	}
}

void
execute_init(void)
{
	RegisterXactCallback(at_transaction_event, NULL);
	RegisterSubXactCallback(at_subtransaction_event, NULL);
}


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

static void
set_failed(LedgerFile *file, FileResult result)
{
	set_state(file, "failed", failure_text(result));
	ereport(WARNING,
			(errmsg("audio_cleanup left file \"%s\" where it is: %s", file->path, file->error)));
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

/*
 * A disk too full for a rename (into a new directory) is helped by deleting
 * in place, but only where no backup was promised.
 */
static void
destroy_without_space(Drain *drain, LedgerFile *file, FileResult captured)
{
	FileResult	result;
	int64		freed = 0;

	if (drain->settings->backup_retention_days > 0)
	{
		ereport(WARNING,
				(errmsg("audio_cleanup could not back up file \"%s\": %s",
						file->path, failure_text(captured))));
		return;
	}
	result = store_destroy_in_place(drain->store, file->path, &file->identity, &freed);
	if (result.outcome == FILE_OK)
		set_destroyed(file, freed);
	else
		set_failed(file, captured);
}

static void
capture_file(Drain *drain, LedgerFile *file)
{
	FileResult	result = store_capture(drain->store, drain->run_id, file->path, &file->identity);

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
			set_state(file, "skipped", "it was replaced by another file");
			break;
		case FILE_NO_SPACE:
			destroy_without_space(drain, file, result);
			break;
		case FILE_OCCUPIED:
		case FILE_FAILED:
			set_failed(file, result);
			break;
	}
}

/* What can be told of a pending file by looking; true if it must be captured. */
static bool
settle_by_place(Drain *drain, LedgerFile *file)
{
	FileResult	result = {FILE_FAILED, 0, "find it"};

	switch (store_locate(drain->store, drain->run_id, file->path, &file->identity,
						 &result.errnum))
	{
		case PLACE_TRASH:
			set_state(file, "trashed", NULL);
			return false;
		case PLACE_NOWHERE:
			set_state(file, "skipped", "it vanished before it was captured");
			return false;
		case PLACE_OTHER:
			set_state(file, "skipped", "it was replaced by another file");
			return false;
		case PLACE_UNKNOWN:
			set_failed(file, result);
			return false;
		case PLACE_UPLOAD:
			break;
	}
	return true;
}

/*
 * Files that are still in place were condemned some time ago: somebody may
 * refer to them by now.
 */
static void
recheck_and_capture(Drain *drain, LedgerFile **files, int n)
{
	const char **paths = palloc(sizeof(char *) * n);
	Brake	   *brake = NULL;
	bool	   *needed;
	int			i;

	for (i = 0; i < n; i++)
		paths[i] = files[i]->path;
	needed = plan_recheck(drain->settings, drain->extension, paths, n, &brake);
	if (brake != NULL)
	{
		ereport(WARNING,
				(errmsg("audio_cleanup left %d condemned files where they are", n),
				 errdetail_internal("%s", brake_text(brake))));
		return;
	}
	for (i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (needed[i])
			set_state(files[i], "skipped", "it is referred to again");
		else
			capture_file(drain, files[i]);
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

/* Returns the number of files looked at. */
static int
capture_step(Drain *drain, int limit)
{
	LedgerFile *files;
	LedgerFile **in_place;
	int			n_in_place = 0;
	int			n;
	int			i;

	files = ledger_files(drain->extension, drain->run_id, LEDGER_PENDING, drain->after, limit, &n);
	if (n == 0)
		return 0;
	in_place = palloc(sizeof(LedgerFile *) * n);
	for (i = 0; i < n; i++)
		if (settle_by_place(drain, &files[i]))
			in_place[n_in_place++] = &files[i];
	if (n_in_place > 0)
		recheck_and_capture(drain, in_place, n_in_place);
	make_durable(drain);
	ledger_record(drain->extension, files, n);
	drain->after = files[n - 1].file_id;
	return n;
}


/* --------------------------------------------------------------- destroying --- */

/*
 * The trash does not have it.  If it is back in its place (the rename was
 * lost in a crash of the machine), it is pending once more; else we have
 * destroyed it before, and died before that was recorded.
 */
static void
settle_missing(Drain *drain, LedgerFile *file)
{
	int			errnum;

	if (store_locate(drain->store, drain->run_id, file->path, &file->identity,
					 &errnum) == PLACE_UPLOAD)
		set_state(file, "pending", NULL);
	else
		set_destroyed(file, file->identity.size);
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
				(errmsg("audio_cleanup could not delete file \"%s\" from the trash of run %lld: %s",
						file->path, (long long) drain->run_id,
						result.outcome == FILE_FAILED ? failure_text(result) :
						"another file is in its place")));
}

static int
destroy_step(Drain *drain, int limit)
{
	LedgerFile *files;
	int			n;
	int			i;

	files = ledger_files(drain->extension, drain->run_id, LEDGER_DUE, drain->after, limit, &n);
	if (n == 0)
		return 0;
	for (i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		destroy_file(drain, &files[i]);
	}
	make_durable(drain);
	ledger_record(drain->extension, files, n);
	drain->after = files[n - 1].file_id;
	return n;
}

/*
 * In somebody's transaction what is recorded as trashed may be rolled back:
 * the files are destroyed at its commit, and found missing by the next drain.
 */
static int
destroy_at_commit_step(Drain *drain, int limit)
{
	LedgerFile *files;
	Batch	   *batch;
	int			n;
	int			i;
	int			errnum;

	files = ledger_files(drain->extension, drain->run_id, LEDGER_DUE, drain->after, limit, &n);
	if (n == 0)
		return 0;
	batch = make_batch(drain->settings, drain->run_id, BATCH_DESTROY, n);
	for (i = 0; i < n; i++)
	{
		if (store_locate(drain->store, drain->run_id, files[i].path, &files[i].identity,
						 &errnum) == PLACE_TRASH)
			add_to_batch(batch, files[i].path, &files[i].identity);
		else
			settle_missing(drain, &files[i]);
	}
	make_durable(drain);
	ledger_record(drain->extension, files, n);
	link_batch(batch);
	drain->after = files[n - 1].file_id;
	return n;
}


/* ------------------------------------------------------------------ finishing --- */

void
execute_finish_run(const Extension *extension, int64 run_id)
{
	LedgerSummary summary;

	if (!ledger_finish_run(extension, run_id, &summary))
		return;
	ereport(LOG,
			(errmsg("audio_cleanup run %lld by \"%s\": %lld files condemned, %lld deleted, "
					"%lld kept as backup, %lld skipped, %lld failed, %.2f MiB freed, %.3f s",
					(long long) run_id, summary.requested_by,
					(long long) summary.files, (long long) summary.deleted,
					(long long) summary.trashed, (long long) summary.skipped,
					(long long) summary.errors, (double) summary.bytes / (1024 * 1024),
					summary.seconds),
			 errhidestmt(true), errhidecontext(true)));
}

Drain *
execute_begin_drain(const Extension *extension, int64 run_id, const char *upload_dir,
					Jsonb *settings)
{
	Drain	   *drain = palloc0(sizeof(Drain));

	drain->extension = extension;
	drain->run_id = run_id;
	drain->settings = settings_of_run(upload_dir, settings);
	drain->store = store_open(drain->settings->upload_dir);
	drain->phase = DRAIN_CAPTURE;
	if (drain->store == NULL)
	{
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("audio_cleanup run %lld is left unfinished: could not open upload directory \"%s\": %m",
						(long long) run_id, upload_dir)));
		return NULL;
	}
	return drain;
}

void
execute_end_drain(Drain *drain)
{
	store_close(drain->store);
	drain->store = NULL;
}

static void
next_phase(Drain *drain)
{
	drain->phase++;
	drain->after = 0;
}

static bool
do_step(Drain *drain, bool finish)
{
	if (drain->phase == DRAIN_CAPTURE)
	{
		if (capture_step(drain, DRAIN_BATCH) > 0)
			return true;
		next_phase(drain);
	}
	if (drain->phase == DRAIN_DESTROY)
	{
		if (destroy_step(drain, DRAIN_BATCH) > 0)
			return true;
		next_phase(drain);
	}
	if (drain->phase == DRAIN_FINISH)
	{
		if (finish)
			execute_finish_run(drain->extension, drain->run_id);
		store_tidy(drain->store, drain->run_id);
		next_phase(drain);
	}
	return false;
}

bool
execute_drain_step(Drain *drain, bool finish)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup step",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	bool		more;

	/* what this commits must be on disk before the next step unlinks */
	ForceSyncCommit();
	more = do_step(drain, finish);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return more;
}

/* At most `limit` files of one run; returns how many there were. */
static int
drain_run_in_transaction(const Extension *extension, const LedgerWork *work, int limit)
{
	Drain	   *drain = execute_begin_drain(extension, work->run_id, work->upload_dir,
											work->settings);
	volatile int n = 0;

	if (drain == NULL)
		return 0;
	PG_TRY();
	{
		/* what this very transaction records as trashed is not due before it */
		n = destroy_at_commit_step(drain, limit);
		drain->after = 0;
		n += capture_step(drain, limit - n);
		execute_finish_run(drain->extension, drain->run_id);
		store_tidy(drain->store, drain->run_id);
	}
	PG_FINALLY();
	{
		execute_end_drain(drain);
	}
	PG_END_TRY();
	return n;
}

void
execute_drain_in_transaction(const Extension *extension)
{
	int			left = DRAIN_IN_TRANSACTION;
	ListCell   *lc;

	foreach(lc, ledger_unfinished_runs(extension, 0))
	{
		left -= drain_run_in_transaction(extension, lfirst(lc), left);
		execute_start_worker_at_commit();
		if (left <= 0)
			break;
	}
}
