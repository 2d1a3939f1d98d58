/*-------------------------------------------------------------------------
 *
 * drain/at_commit.c
 *	  Work on files that the commit of the current transaction does.
 *
 * A transaction that has condemned files keeps their names and identities in
 * memory, in Batches: one for each run, place and action.  ROLLBACK forgets
 * the Batches.  At XACT_EVENT_COMMIT the commit record is on disk
 * (ForceSyncCommit), and the callback renames the files into the trash.  The
 * callback may do system calls and nothing else: an ERROR there is a PANIC.
 * The callback reports nothing; the next drain finds out where the files are.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "src/drain/at_commit.h"
#include "src/guard/claim.h"
#include "src/pg/at_end.h"
#include "src/pg/worker.h"
#include "src/store/claim_file.h"

typedef struct BatchFile
{
	const char *path;
	const char *as;				/* name to put the file back under, or NULL */
	FileIdentity identity;
} BatchFile;

/* The work on the files of one run at commit. */
typedef struct Batch
{
	AtEnd		end;
	MemoryContext context;		/* has the memory of the batch; below
								 * TopMemoryContext */
	Oid			extension;
	AtCommitAction action;
	int64		run_id;
	Place		place;
	FileStore  *store;			/* the place, open with its trash */
	bool		shares_store;	/* the store belongs to an earlier batch */
	List	   *files;			/* of BatchFile */
} Batch;

static void forget_orphaned_batches(void);
static void carry_out_batches(void);
static void forget_batch(AtEnd *entry);

static AtEndList batches = {
	.before_commit = forget_orphaned_batches,
	.at_commit = carry_out_batches,
	.forget = forget_batch
};
static AtEndList workers = {.before_commit = at_commit_start_worker_now};
static AtEnd worker;			/* the only entry of `workers` */

#define foreach_batch(iter) dlist_foreach(iter, &batches.entries)
#define batch_of(iter) dlist_container(Batch, end.node, (iter).cur)


/* ----------------------------------------------------------------- batches --- */

static bool
is_same_place(const Place *a, const Place *b)
{
	return strcmp(a->upload_dir, b->upload_dir) == 0 && strcmp(a->backup_dir, b->backup_dir) == 0 &&
		strcmp(a->backup_owner ? a->backup_owner : "", b->backup_owner ? b->backup_owner : "") == 0;
}

/* Commit-safe.  Ends a batch with its memory context. */
static void
close_store(void *arg)
{
	Batch	   *batch = arg;

	if (!batch->shares_store)
		store_close(batch->store);
}

/*
 * Opens the place of the batch, or takes the store of an earlier batch: of
 * many runs in one place the descriptors are needed only once.  The earlier
 * batch belongs to the same subtransaction or to one around it, so that no
 * rollback forgets the earlier batch alone.
 */
static void
open_store(Batch *batch)
{
	Brake	   *brake;
	dlist_iter	iter;

	foreach_batch(iter)
	{
		if (batch_of(iter)->extension != batch->extension || !is_same_place(&batch_of(iter)->place, &batch->place))
			continue;
		batch->shares_store = true;
		batch->store = batch_of(iter)->store;
		return;
	}
	brake = location_open(batch->place.upload_dir, &batch->store);
	if (brake == NULL)
		brake = location_set_backup_dir(batch->store, &batch->place);
	brake_raise_if(brake);
}

/* Begins a batch.  An ERROR leaves only its context, which is deleted with the caller's context. */
static Batch *
begin_batch(const Place *place, int64 run_id, AtCommitAction action)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	Batch	   *batch = palloc0(sizeof(Batch));

	callback->func = close_store;
	callback->arg = batch;
	MemoryContextRegisterResetCallback(context, callback);
	batch->context = context;
	batch->extension = get_extension_oid(EXTENSION_NAME, false);
	batch->action = action;
	batch->run_id = run_id;
	batch->place.upload_dir = pstrdup(place->upload_dir);
	batch->place.backup_dir = pstrdup(place->backup_dir);
	batch->place.backup_owner = place->backup_owner ? pstrdup(place->backup_owner) : NULL;
	open_store(batch);
	/* the batch keeps the lock, which this process has already, until its end */
	if (store_acts_at_commit(batch->store))
		brake_raise_if(claim_lock(batch->store, place->upload_dir, 0));
	MemoryContextSwitchTo(caller);
	at_end_add(&batches, &batch->end);
	MemoryContextSetParent(context, TopMemoryContext);
	ForceSyncCommit();
	return batch;
}

static void
add_file(Batch *batch, const char *path, const char *as, const FileIdentity *identity)
{
	MemoryContext caller = MemoryContextSwitchTo(batch->context);
	BatchFile  *file = palloc(sizeof(BatchFile));

	file->path = pstrdup(path);
	file->as = as ? pstrdup(as) : NULL;
	file->identity = *identity;
	batch->files = lappend(batch->files, file);
	MemoryContextSwitchTo(caller);
}

/*
 * Returns the latest such batch of the current subtransaction, or NULL.  Each
 * file asks, so the extension is not looked up: if the transaction has dropped
 * the extension and made it anew, a run may have the number of a former run,
 * and forget_orphaned_batches() leaves its files to the worker.
 */
static Batch *
find_batch(const Place *place, int64 run_id, AtCommitAction action)
{
	dlist_iter	iter;

	dlist_reverse_foreach(iter, &batches.entries)
	{
		Batch	   *batch = batch_of(iter);

		if (batch->run_id == run_id && batch->action == action &&
			batch->end.subxact == GetCurrentSubTransactionId() && is_same_place(&batch->place, place))
			return batch;
	}
	return NULL;
}

void
at_commit_add(const Place *place, int64 run_id, AtCommitAction action, const char *path, const char *as,
			  const FileIdentity *identity)
{
	Batch	   *batch = find_batch(place, run_id, action);

	add_file(batch ? batch : begin_batch(place, run_id, action), path, as, identity);
}

/* Commit-safe: frees, and never allocates. */
static void
forget_batch(AtEnd *entry)
{
	MemoryContextDelete(dlist_container(Batch, end.node, &entry->node)->context);
}

/*
 * Commit-safe.  A shutdown does not wait for the last file, and neither does a
 * barrier, which DROP DATABASE of any database waits for: the remaining files
 * stay pending, and the next drain finds these files.  The next drain also
 * deals with files that must be copied: a commit does not wait for gigabytes.
 */
static void
carry_out_batch(Batch *batch)
{
	FileStore  *store = batch->store;
	int64		freed;

	if (!store_acts_at_commit(store))
		return;
	if ((batch->action == AT_COMMIT_CAPTURE || batch->action == AT_COMMIT_PUT_BACK) && !store_is_quick(store))
		return;

	/* the drain that records the file will look again, and fsync */
	store_set_durable(store, false);
	foreach_ptr(const BatchFile, file, batch->files)
	{
		if (ProcDiePending || ProcSignalBarrierPending)
			break;
		if (batch->action == AT_COMMIT_CAPTURE)
			(void) store_capture(store, batch->run_id, file->path, &file->identity);
		else if (batch->action == AT_COMMIT_PUT_BACK)
			(void) store_put_back_as(store, batch->run_id, file->path, file->as, &file->identity);
		else if (batch->action == AT_COMMIT_REMOVE_FOLDERS)
			(void) store_remove_folders(store, file->path);
		else
			(void) store_destroy(store, batch->run_id, file->path, &file->identity, &freed);
	}
}

void
at_commit_capture(const Place *place, int64 run_id, Condemned *condemned)
{
	CondemnedFile file;

	condemned_rewind(condemned);
	for (int n = 0; n < AT_COMMIT_FILES && condemned_next(condemned, &file); n++)
	{
		at_commit_add(place, run_id, AT_COMMIT_CAPTURE, file.path, NULL, &file.identity);
		condemned_free_texts(&file);
	}
}

static bool
has_batch(int64 run_id, AtCommitAction action)
{
	dlist_iter	iter;

	foreach_batch(iter)
	{
		if (batch_of(iter)->run_id == run_id && batch_of(iter)->action == action)
			return true;
	}
	return false;
}

bool
at_commit_has_run(int64 run_id)
{
	return has_batch(run_id, AT_COMMIT_CAPTURE);
}

bool
at_commit_takes_from(int64 run_id)
{
	return at_commit_has_run(run_id) || has_batch(run_id, AT_COMMIT_DESTROY);
}

bool
at_commit_destroys(const char *path)
{
	dlist_iter	iter;

	foreach_batch(iter)
	{
		if (batch_of(iter)->action != AT_COMMIT_DESTROY)
			continue;
		foreach_ptr(const BatchFile, file, batch_of(iter)->files)
			if (strcmp(file->path, path) == 0)
			return true;
	}
	return false;
}

void
at_commit_claim(const Place *place, const char *text, bool replace)
{
	const FileIdentity none = {0};

	add_file(begin_batch(place, 0, replace ? AT_COMMIT_CLAIM_REPLACING : AT_COMMIT_CLAIM), text, NULL, &none);
	/* the worker sees the claim in the directory, and confirms the claim */
	at_commit_start_worker();
}

void
at_commit_start_worker(void)
{
	at_end_add(&workers, &worker);
}


/* --------------------------------------------------------------- callbacks --- */

/* If no worker is free, the next call of a cleanup finishes the work. */
void
at_commit_start_worker_now(void)
{
	BackgroundWorker drain;

	worker_describe(&drain, "cleanup_drain_worker_main", "audio_cleanup drain");
	drain.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);

	if (!RegisterDynamicBackgroundWorker(&drain, NULL))
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker is free to finish this cleanup"),
				 errdetail("Files may stay in the directory, and take space, until the next cleanup call finishes the work."),
				 errhint("You might need to increase max_worker_processes.")));
}

static bool
is_claim(const Batch *batch)
{
	return batch->action == AT_COMMIT_CLAIM || batch->action == AT_COMMIT_CLAIM_REPLACING;
}

/*
 * Commit-safe.  Writes all claims, which must come before any file.  Returns
 * false if a claim could not be written: another database may have been
 * quicker, and then the files must not be touched.  A claim may be there
 * already, because two runs of one transaction both write the claim.
 */
static bool
write_claims(void)
{
	bool		written = true;
	dlist_iter	iter;

	foreach_batch(iter)
	{
		const Batch *batch = batch_of(iter);
		const BatchFile *claim;
		char		found[STORE_CLAIM_MAX];
		FileResult	result;

		if (!is_claim(batch) || !store_acts_at_commit(batch->store))
			continue;
		claim = linitial(batch->files);
		result = store_write_claim(batch->store, claim->path, batch->action == AT_COMMIT_CLAIM_REPLACING);
		if (result.outcome != FILE_OK &&
			!(result.outcome == FILE_OCCUPIED && store_read_claim(batch->store, found).outcome == FILE_OK &&
			  strcmp(found, claim->path) == 0))
			written = false;
	}
	return written;
}

/* Commit-safe. */
static void
carry_out_batches(void)
{
	dlist_iter	iter;

	if (!write_claims())
		return;
	foreach_batch(iter)
	{
		if (!is_claim(batch_of(iter)))
			carry_out_batch(batch_of(iter));
	}
}

/*
 * Forgets batches if DROP EXTENSION in this transaction has dropped the rows:
 * nobody could find out where the files are.
 */
static void
forget_orphaned_batches(void)
{
	Oid			extension = get_extension_oid(EXTENSION_NAME, true);
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &batches.entries)
	{
		if (batch_of(iter)->extension != extension)
			at_end_forget(&batches, &batch_of(iter)->end);
	}
}
