/*-------------------------------------------------------------------------
 *
 * drain/at_commit.c
 *	  What is done to files when the current transaction commits.
 *
 * A transaction that condemned files carries their names and identities in
 * memory, a Batch for each run and subtransaction.  ROLLBACK forgets them.
 * At XACT_EVENT_COMMIT the commit record is on disk (ForceSyncCommit) and the
 * callback renames the files into the trash.  It may do system calls and
 * nothing else: an ERROR there is a PANIC.  What it achieves or fails to
 * achieve it does not tell anybody; whoever drains finds out by looking.
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
#include "src/guard/location.h"
#include "src/pg/extension.h"
#include "src/pg/worker.h"
#include "src/store/claim_file.h"

typedef enum BatchAction
{
	BATCH_CLAIM,				/* the only path is the text of the claim */
	BATCH_CLAIM_REPLACING,
	BATCH_CAPTURE,
	BATCH_DESTROY,
	BATCH_PUT_BACK,
	BATCH_REMOVE_FOLDERS
} BatchAction;

/*
 * An upload directory with its trash, open: however many runs have batches,
 * the descriptors of it are needed once.
 */
typedef struct Place
{
	struct Place *next;
	MemoryContext context;		/* below TopMemoryContext; holds all of it */
	int			references;		/* batches */
	const char *upload_dir;
	const char *backup_dir;
	const char *backup_owner;	/* "" for NULL */
	FileStore  *store;
} Place;

typedef struct BatchFile
{
	const char *path;
	const char *as;				/* to put back */
	FileIdentity identity;
} BatchFile;

/* What is to be done with the files of one run at commit. */
struct Batch
{
	struct Batch *next;
	MemoryContext context;		/* below TopMemoryContext; holds all of it */
	SubTransactionId subxact;
	Oid			extension;
	BatchAction action;
	int64		run_id;
	Place	   *place;			/* NULL only while the batch is made */
	int			n;
	int			room;
	BatchFile  *files;
};

static Batch *batches = NULL;	/* of the current transaction, newest first */
static Place *places = NULL;	/* of all batches, and those being made */
static SubTransactionId worker_wanted = InvalidSubTransactionId;


/* ----------------------------------------------------------------- batches --- */

static const char *
owner_of(const Settings *settings)
{
	return settings->backup_owner != NULL ? settings->backup_owner : "";
}

static Place *
find_place(const Settings *settings)
{
	Place	   *place;

	for (place = places; place != NULL; place = place->next)
		if (strcmp(place->upload_dir, settings->upload_dir) == 0 &&
			strcmp(place->backup_dir, settings->backup_dir) == 0 &&
			strcmp(place->backup_owner, owner_of(settings)) == 0)
			return place;
	return NULL;
}

/* Commit-safe. */
static void
close_place(Place *place)
{
	Place	  **link;

	for (link = &places; *link != NULL; link = &(*link)->next)
		if (*link == place)
		{
			*link = place->next;
			break;
		}
	store_close(place->store);
	MemoryContextDelete(place->context);
}

/* What is wrong with the place becomes an ERROR. */
static void
open_store(Place *place, const Settings *settings)
{
	MemoryContext caller = MemoryContextSwitchTo(place->context);
	Brake	   *brake;

	place->upload_dir = pstrdup(settings->upload_dir);
	place->backup_dir = pstrdup(settings->backup_dir);
	place->backup_owner = pstrdup(owner_of(settings));
	place->store = store_open(settings->upload_dir);
	MemoryContextSwitchTo(caller);
	if (place->store == NULL)
		brake_raise(location_brake(settings->upload_dir, "open upload directory", errno));
	if ((brake = location_set_backup_dir(place->store, settings)) != NULL)
		brake_raise(brake);
}

static Place *
open_place(const Settings *settings)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "audio_cleanup place",
												  ALLOCSET_SMALL_SIZES);
	Place	   *place = MemoryContextAllocZero(context, sizeof(Place));

	place->context = context;
	PG_TRY();
	{
		open_store(place, settings);
	}
	PG_CATCH();
	{
		close_place(place);
		PG_RE_THROW();
	}
	PG_END_TRY();
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
		close_place(batch->place);
	batch->place = NULL;
}

/*
 * An empty batch.  It is complete, and in the list,
 * only when link_batch() was called: an ERROR while it is filled leaves
 * nothing behind but its context, which goes with the caller's.
 */
static Batch *
make_batch(const Settings *settings, int64 run_id, BatchAction action)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContextCallback *callback = MemoryContextAllocZero(context, sizeof(MemoryContextCallback));
	Batch	   *batch = MemoryContextAllocZero(context, sizeof(Batch));
	Place	   *place;
	Brake	   *brake;

	callback->func = leave_place;
	callback->arg = batch;
	MemoryContextRegisterResetCallback(context, callback);
	batch->context = context;
	batch->extension = get_extension_oid(EXTENSION_NAME, false);
	batch->action = action;
	batch->run_id = run_id;
	place = find_place(settings);
	if (place == NULL)
		place = open_place(settings);
	place->references++;
	batch->place = place;
	/* until it is carried out or forgotten; this process has it already */
	if ((brake = claim_lock(place->store, settings->upload_dir, 0)) != NULL)
		brake_raise(brake);
	return batch;
}

static void
make_room(Batch *batch)
{
	int			room = Max(batch->room * 2, 64);

	if (batch->n < batch->room)
		return;
	batch->files = batch->files == NULL ?
		MemoryContextAllocHuge(batch->context, sizeof(BatchFile) * room) :
		repalloc_huge(batch->files, sizeof(BatchFile) * room);
	batch->room = room;
}

static void
add_to_batch(Batch *batch, const char *path, const FileIdentity *identity)
{
	BatchFile  *file;

	make_room(batch);
	file = &batch->files[batch->n];
	file->path = MemoryContextStrdup(batch->context, path);
	file->as = NULL;
	file->identity = *identity;
	batch->n++;
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

/*
 * Commit-safe.  A shutdown need not wait for the last of them: what is left
 * is pending, and found by the next drain.  So are files that must be copied:
 * a commit does not wait for gigabytes.
 */
static void
carry_out_batch(Batch *batch)
{
	FileStore  *store = batch->place->store;
	int64		freed;
	int			i;

	if ((batch->action == BATCH_CAPTURE || batch->action == BATCH_PUT_BACK) && !store_is_quick(store))
		return;

	/* whoever records it will look again, and fsync */
	store_set_durable(store, false);
	for (i = 0; i < batch->n && !ProcDiePending; i++)
	{
		const BatchFile *file = &batch->files[i];

		if (batch->action == BATCH_CAPTURE)
			(void) store_capture(store, batch->run_id, file->path, &file->identity);
		else if (batch->action == BATCH_PUT_BACK)
			(void) store_put_back_as(store, batch->run_id, file->path, file->as, &file->identity);
		else if (batch->action == BATCH_REMOVE_FOLDERS)
			(void) store_remove_folders(store, file->path);
		else
			(void) store_destroy(store, batch->run_id, file->path, &file->identity, &freed);
	}
}

void
at_commit_capture(const Settings *settings, int64 run_id, Condemned *condemned)
{
	int			n = (int) Min(condemned->n_files, AT_COMMIT_FILES);
	MemoryContext scratch;
	MemoryContext caller;
	CondemnedFile file;
	Batch	   *batch;

	if (n == 0)
		return;
	batch = make_batch(settings, run_id, BATCH_CAPTURE);
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

bool
at_commit_has_run(int64 run_id)
{
	const Batch *batch;

	for (batch = batches; batch != NULL; batch = batch->next)
		if (batch->action == BATCH_CAPTURE && batch->run_id == run_id)
			return true;
	return false;
}

bool
at_commit_takes_from(int64 run_id)
{
	const Batch *batch;

	for (batch = batches; batch != NULL; batch = batch->next)
		if ((batch->action == BATCH_CAPTURE || batch->action == BATCH_DESTROY) &&
			batch->run_id == run_id)
			return true;
	return false;
}

void
at_commit_claim(const Settings *settings, const char *text, bool replace)
{
	const FileIdentity none = {0};
	Batch	   *batch = make_batch(settings, 0, replace ? BATCH_CLAIM_REPLACING : BATCH_CLAIM);

	add_to_batch(batch, text, &none);
	link_batch(batch);
	/* which sees that it is there, and remembers that */
	at_commit_start_worker();
}

Batch *
at_commit_begin(const Settings *settings, int64 run_id, AtCommitAction action)
{
	static const BatchAction actions[] = {
		[AT_COMMIT_CAPTURE] = BATCH_CAPTURE,
		[AT_COMMIT_DESTROY] = BATCH_DESTROY,
		[AT_COMMIT_PUT_BACK] = BATCH_PUT_BACK,
		[AT_COMMIT_REMOVE_FOLDERS] = BATCH_REMOVE_FOLDERS,
	};

	return make_batch(settings, run_id, actions[action]);
}

void
at_commit_add(Batch *batch, const char *path, const FileIdentity *identity)
{
	add_to_batch(batch, path, identity);
}

void
at_commit_add_as(Batch *batch, const char *path, const char *as, const FileIdentity *identity)
{
	add_to_batch(batch, path, identity);
	batch->files[batch->n - 1].as = MemoryContextStrdup(batch->context, as);
}

void
at_commit_end(Batch *batch)
{
	if (batch->n > 0)
		link_batch(batch);
	else
		forget_batch(batch);
}

void
at_commit_start_worker(void)
{
	if (worker_wanted == InvalidSubTransactionId)
		worker_wanted = GetCurrentSubTransactionId();
}


/* --------------------------------------------------------------- callbacks --- */

/* Where there is no free slot the next call takes over: a WARNING says so. */
void
at_commit_start_worker_now(void)
{
	BackgroundWorker worker;

	worker_describe(&worker, "cleanup_drain_worker_main", "audio_cleanup drain");
	worker.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId);

	if (!RegisterDynamicBackgroundWorker(&worker, NULL))
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker is free to finish this cleanup"),
				 errdetail("The files leave the directory now; their space is given back by the next cleanup call."),
				 errhint("You might need to increase max_worker_processes.")));
}

static bool
is_claim(const Batch *batch)
{
	return batch->action == BATCH_CLAIM || batch->action == BATCH_CLAIM_REPLACING;
}

/* Written now, or before: two runs in one transaction both want it. */
static bool
write_claim(Batch *batch)
{
	const char *wanted = batch->files[0].path;
	char		found[STORE_CLAIM_MAX];
	FileResult	result = store_write_claim(batch->place->store, wanted,
										   batch->action == BATCH_CLAIM_REPLACING);

	if (result.outcome == FILE_OCCUPIED)
		return store_read_claim(batch->place->store, found).outcome == FILE_OK &&
			strcmp(found, wanted) == 0;
	return result.outcome == FILE_OK;
}

/*
 * The claim of a directory comes before its files, whatever the list says.
 * Somebody else may have been quicker: then the files are not ours to touch.
 */
static bool
write_claims(void)
{
	bool		written = true;
	Batch	   *batch;

	for (batch = batches; batch != NULL; batch = batch->next)
		if (is_claim(batch) && !write_claim(batch))
			written = false;
	return written;
}

static void
end_batches(bool commit)
{
	bool		carry_out = commit && write_claims();

	while (batches != NULL)
	{
		Batch	   *batch = batches;

		/* off the list first: nothing may make it run twice */
		batches = batch->next;
		if (carry_out && !is_claim(batch))
			carry_out_batch(batch);
		forget_batch(batch);
	}
	worker_wanted = InvalidSubTransactionId;
}

/*
 * DROP EXTENSION in the same transaction has taken the rows with it: then
 * nobody would know what became of the files.
 */
static void
forget_orphaned_batches(void)
{
	Oid			extension = get_extension_oid(EXTENSION_NAME, true);
	Batch	  **link = &batches;

	while (*link != NULL)
	{
		Batch	   *batch = *link;

		if (batch->extension == extension)
			link = &batch->next;
		else
		{
			*link = batch->next;
			forget_batch(batch);
		}
	}
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			/* the last chance for anything that may fail */
			if (batches != NULL)
				forget_orphaned_batches();
			if (worker_wanted != InvalidSubTransactionId)
				at_commit_start_worker_now();
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
at_commit_init(void)
{
	RegisterXactCallback(at_transaction_event, NULL);
	RegisterSubXactCallback(at_subtransaction_event, NULL);
}
