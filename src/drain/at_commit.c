/*-------------------------------------------------------------------------
 *
 * drain/at_commit.c
 *	  Work on files that the commit of the current transaction does.
 *
 * A transaction that has condemned files keeps their names and identities in
 * memory, in Batches.  ROLLBACK forgets the Batches.  At XACT_EVENT_COMMIT the
 * commit record is on disk (ForceSyncCommit), and the callback renames the
 * files into the trash.  The callback may do system calls and nothing else: an
 * ERROR there is a PANIC.  The callback reports nothing; the next drain finds
 * out where the files are.
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

/*
 * An open upload directory with its trash, for all batches in that directory:
 * the descriptors are needed only once.
 */
typedef struct OpenPlace
{
	struct OpenPlace *next;
	MemoryContext context;		/* has the memory of the place; below
								 * TopMemoryContext */
	MemoryContextCallback callback;
	int			references;		/* number of batches */
	Place		place;
	FileStore  *store;
} OpenPlace;

typedef struct BatchFile
{
	const char *path;
	const char *as;				/* name to put the file back under, or NULL */
	FileIdentity identity;
} BatchFile;

/* The work on the files of one run at commit. */
struct Batch
{
	AtEnd		end;
	MemoryContext context;		/* has the memory of the batch; below
								 * TopMemoryContext after at_commit_end() */
	Oid			extension;
	AtCommitAction action;
	int64		run_id;
	OpenPlace  *place;			/* NULL only while the batch is made */
	int			n;
	int			room;
	BatchFile  *files;
};

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
static OpenPlace *places = NULL;	/* places of all batches, also of
									 * unfinished batches */

#define foreach_batch(iter) dlist_foreach(iter, &batches.entries)
#define batch_of(iter) dlist_container(Batch, end.node, (iter).cur)


/* ----------------------------------------------------------------- batches --- */

static OpenPlace *
find_place(const Place *wanted)
{
	const char *owner = wanted->backup_owner ? wanted->backup_owner : "";
	OpenPlace  *place;

	for (place = places; place != NULL; place = place->next)
		if (strcmp(place->place.upload_dir, wanted->upload_dir) == 0 &&
			strcmp(place->place.backup_dir, wanted->backup_dir) == 0 &&
			strcmp(place->place.backup_owner ? place->place.backup_owner : "", owner) == 0)
			break;
	return place;
}

/* Commit-safe.  Ends a place with its memory context. */
static void
close_place(void *arg)
{
	OpenPlace  *place = arg;
	OpenPlace **link = &places;

	while (*link != NULL && *link != place)
		link = &(*link)->next;
	if (*link != NULL)
		*link = place->next;
	store_close(place->store);
}

/* Opens a place.  A failure is an ERROR: then the caller's memory context ends the place. */
static OpenPlace *
open_place(const Place *wanted)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup place",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	OpenPlace  *place = palloc0(sizeof(OpenPlace));
	Brake	   *brake;

	place->context = context;
	place->callback.func = close_place;
	place->callback.arg = place;
	MemoryContextRegisterResetCallback(context, &place->callback);
	place->place.upload_dir = pstrdup(wanted->upload_dir);
	place->place.backup_dir = pstrdup(wanted->backup_dir);
	place->place.backup_owner = wanted->backup_owner ? pstrdup(wanted->backup_owner) : NULL;
	brake = location_open(wanted->upload_dir, &place->store);
	if (brake == NULL)
		brake = location_set_backup_dir(place->store, wanted);
	MemoryContextSwitchTo(caller);
	brake_raise_if(brake);
	MemoryContextSetParent(context, TopMemoryContext);
	place->next = places;
	places = place;
	return place;
}

/* Commit-safe. */
static void
leave_place(void *arg)
{
	Batch	   *batch = arg;

	if (batch->place != NULL && --batch->place->references == 0)
		MemoryContextDelete(batch->place->context);
	batch->place = NULL;
}

/*
 * A batch is in the list only after at_commit_end().  An ERROR before that leaves
 * only the context of the batch, which is deleted with the caller's context.
 */
Batch *
at_commit_begin(const Place *place, int64 run_id, AtCommitAction action)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContextCallback *callback = MemoryContextAllocZero(context, sizeof(MemoryContextCallback));
	Batch	   *batch = MemoryContextAllocZero(context, sizeof(Batch));
	OpenPlace  *open;

	callback->func = leave_place;
	callback->arg = batch;
	MemoryContextRegisterResetCallback(context, callback);
	batch->context = context;
	batch->extension = get_extension_oid(EXTENSION_NAME, false);
	batch->action = action;
	batch->run_id = run_id;
	batch->room = 64;
	batch->files = MemoryContextAlloc(context, sizeof(BatchFile) * batch->room);
	if ((open = find_place(place)) == NULL)
		open = open_place(place);
	open->references++;
	batch->place = open;
	/* the batch keeps the lock, which this process has already, until its end */
	if (store_acts_at_commit(open->store))
		brake_raise_if(claim_lock(open->store, place->upload_dir, 0));
	return batch;
}

void
at_commit_add(Batch *batch, const char *path, const char *as, const FileIdentity *identity)
{
	BatchFile  *file;

	if (batch->n == batch->room)
	{
		batch->room *= 2;
		batch->files = repalloc_huge(batch->files, sizeof(BatchFile) * batch->room);
	}
	file = &batch->files[batch->n++];
	file->path = MemoryContextStrdup(batch->context, path);
	file->as = as ? MemoryContextStrdup(batch->context, as) : NULL;
	file->identity = *identity;
}

void
at_commit_end(Batch *batch)
{
	if (batch->n == 0)
	{
		MemoryContextDelete(batch->context);
		return;
	}
	MemoryContextSetParent(batch->context, TopMemoryContext);
	at_end_add(&batches, &batch->end);
	ForceSyncCommit();
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
	FileStore  *store = batch->place->store;
	int64		freed;

	if (!store_acts_at_commit(store))
		return;
	if ((batch->action == AT_COMMIT_CAPTURE || batch->action == AT_COMMIT_PUT_BACK) && !store_is_quick(store))
		return;

	/* the drain that records the file will look again, and fsync */
	store_set_durable(store, false);
	for (int i = 0; i < batch->n && !ProcDiePending && !ProcSignalBarrierPending; i++)
	{
		const BatchFile *file = &batch->files[i];

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
	Batch	   *batch;

	if (condemned->n_files == 0)
		return;
	batch = at_commit_begin(place, run_id, AT_COMMIT_CAPTURE);
	condemned_rewind(condemned);
	while (batch->n < AT_COMMIT_FILES && condemned_next(condemned, &file))
	{
		at_commit_add(batch, file.path, NULL, &file.identity);
		condemned_free_texts(&file);
	}
	at_commit_end(batch);
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
		const Batch *batch = batch_of(iter);

		for (int i = 0; batch->action == AT_COMMIT_DESTROY && i < batch->n; i++)
			if (strcmp(batch->files[i].path, path) == 0)
				return true;
	}
	return false;
}

void
at_commit_claim(const Place *place, const char *text, bool replace)
{
	const FileIdentity none = {0};
	Batch	   *batch = at_commit_begin(place, 0, replace ? AT_COMMIT_CLAIM_REPLACING : AT_COMMIT_CLAIM);

	at_commit_add(batch, text, NULL, &none);
	at_commit_end(batch);
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
		FileStore  *store = batch->place->store;
		char		found[STORE_CLAIM_MAX];
		FileResult	result;

		if (!is_claim(batch) || !store_acts_at_commit(store))
			continue;
		result = store_write_claim(store, batch->files[0].path, batch->action == AT_COMMIT_CLAIM_REPLACING);
		if (result.outcome != FILE_OK &&
			!(result.outcome == FILE_OCCUPIED && store_read_claim(store, found).outcome == FILE_OK &&
			  strcmp(found, batch->files[0].path) == 0))
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
