/*-------------------------------------------------------------------------
 *
 * store/bucket/many.c
 *	  Looks at, captures and destroys many files of a bucket at a time.
 *
 * bucket.h says what happens to each file.  Here one request serves many
 * files, and portions of files go through stages (bucket_run_pipeline()):
 *
 *	capture		the versions are read, and written into a manifest; the markers
 *				are made, the versions are read again, and the markers that hide
 *				a stranger are removed
 *	destroy		the versions are read, they are removed, and then the markers
 *	put back	the versions are read, the markers are removed, and the versions
 *				are read again
 *
 * Work that a busy server has left undone is tried again afterwards, for all
 * portions together.  If the work is cut short, each file is in a state of its
 * own, which bucket_locate() tells.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "src/store/bucket/bucket.h"

/*
 * entries of a file in a list of versions, as a rule: without a marker, and
 * with a marker
 */
#define UNCOVERED	1
#define COVERED		2

/* a file is asked for by its name */
#define BY_NAME		0

/* What is to be done next for a file, in the order of the way of a file.  Several of these are a set. */
typedef enum Todo
{
	NOTHING = 0,				/* the file has its result */
	BARE = 1 << 0,				/* likewise; a marker is to be removed, which
								 * does no harm if it stays */
	LOOK = 1 << 1,				/* its versions are to be listed */
	RECORD = 1 << 2,			/* the manifest is to be written */
	CHANGE = 1 << 3,			/* the version `version` is to be removed, or
								 * without `version` a marker to be made */
	CHANGE_NULL = 1 << 4,		/* likewise, of a file of version "null": see
								 * check_null_versions() */
	VERIFY = 1 << 5,			/* its versions are to be listed again */
	SHOW = 1 << 6,				/* the marker `version` is to be removed */
	ALONE = 1 << 7				/* the file is to be put back by itself */
} Todo;

#define IN_HAND		(~BARE)

/* A file of the call. */
typedef struct Item
{
	StoreFile  *file;			/* its outcome is set when the item is settled */
	char	   *key;			/* with the prefix */
	int			todo;			/* of type Todo */
	const char *version;		/* version or marker that is to be removed */
	const char *marker;			/* marker that was made, NULL: unknown; or the
								 * marker above a version that is to be
								 * removed, if nothing is left below it */
	bool		made;			/* a marker was made, which may be unknown */
	FileOutcome outcome;		/* outcome when a stranger is shown */
	SeenFile	seen;			/* the version to be captured */
	FileIdentity identity;		/* see bucket_expect() */
	FileResult	result;			/* likewise */
} Item;

typedef struct Many
{
	Bucket	   *bucket;
	MemoryContext context;		/* has the memory of the call */
	MemoryContext caller;
	int64		run_id;
	Item	   *items;			/* sorted by key */
	int			n;
	bool		puts_back;
	const struct Step *steps;	/* see go_way() */
	int			n_steps;
	struct Portion *portions;
} Many;


/* ------------------------------------------------------------------- items --- */

static int
compare_items(const void *a, const void *b)
{
	const char *first = ((const Item *) a)->key;
	const char *second = ((const Item *) b)->key;

	return strcmp(first ? first : "", second ? second : "");
}

/* Gives the item its result: the work for the item is over. */
static void
settle(Item *item, FileResult result)
{
	/* a stranger that could not be shown is still hidden */
	if (result.outcome == FILE_FAILED && item->file->place == PLACE_OTHER)
		item->file->place = PLACE_UNKNOWN;
	item->file->result = result;
	item->todo = NOTHING;
}

static void
begin_item(Many *many, Item *item, StoreFile *file)
{
	char		key[BUCKET_KEY_MAX + 1];
	int			errnum = bucket_key(many->bucket, file->path, key);

	file->place = PLACE_UNKNOWN;
	file->destroyed = false;
	file->freed = 0;
	file->result = fail(EINTR, "could not list versions of file");
	item->file = file;
	if (errnum == 0)
		item->key = pstrdup(key);
	item->todo = LOOK;
	if (errnum != 0)
		settle(item, fail(errnum, "could not accept path"));
}

static Many *
begin_many(FileStore *store, int64 run_id, StoreFile *files, int n)
{
	Bucket	   *bucket = bucket_of(store);
	MemoryContext context = AllocSetContextCreate(bucket->context, "audio_cleanup files", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Many	   *many = palloc0(sizeof(Many));

	many->bucket = bucket;
	many->run_id = run_id;
	many->context = context;
	many->caller = caller;
	many->n = n;
	many->items = palloc_extended(sizeof(Item) * Max(n, 1), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < n; i++)
		begin_item(many, &many->items[i], &files[i]);
	qsort(many->items, n, sizeof(Item), compare_items);
	return many;
}

static void
end_many(Many *many)
{
	MemoryContextSwitchTo(many->caller);
	MemoryContextDelete(many->context);
}

static bool
is_any(const Many *many, int todo)
{
	for (int i = 0; i < many->n; i++)
		if (many->items[i].todo & todo)
			return true;
	return false;
}

/* Gives this result to all items with one of these things to do. */
static void
settle_all(Many *many, int todo, FileResult result)
{
	for (int i = 0; i < many->n; i++)
		if (many->items[i].todo & todo)
			settle(&many->items[i], result);
}

/* Keeps the id of a version as what is to be removed, or as a marker. */
static const char *
keep_id(const Many *many, const BucketEntry *entry)
{
	return MemoryContextStrdup(many->context, entry->version);
}

/*
 * Returns whether there is the lease that a change needs, by the result of
 * taking or keeping the lease.  Without the lease, the items in hand fail.
 */
static bool
is_leased(Many *many, FileResult lease)
{
	if (lease.outcome != FILE_OK)
		settle_all(many, IN_HAND, lease);
	return lease.outcome == FILE_OK;
}


/* ------------------------------------------------------------------- steps --- */

/*
 * A step that the items go through which have its thing to do: their versions
 * are listed, and look() gets the versions of each; or versions are removed and
 * markers made, and take() gets the outcome of each; or, without the two
 * functions, the manifest is written.
 */
typedef struct Step
{
	int			todo;
	int			per_key;		/* entries of a key in the list, as a rule */
	void		(*look) (Many *many, Item *item, const KeyVersions *versions);
	void		(*take) (Many *many, Item *item, const BucketRemoval *removal);
} Step;

/*
 * Items of a portion.  If each item has one entry, the list of a portion fits
 * into one page, with a little room.
 */
#define PORTION			980

/* Items that stand side by side, and the step that they go through. */
typedef struct Portion
{
	Many	   *many;
	int			first;
	int			n;
	int			n_begun;		/* steps that were begun */
	const Step *step;
	MemoryContext context;		/* has the memory of the step; NULL before the
								 * first step */
	int		   *numbers;		/* numbers of the items that the step is for */
	int			n_picked;
} Portion;

static Item *
item_of(const Portion *portion, int number)
{
	return &portion->many->items[portion->numbers[number]];
}

/*
 * Takes the versions of an item.  A file that is to be put back, and whose
 * newest version the server fails to show, is put back by itself.
 */
static void
take_versions(void *arg, int ask, int errnum, const KeyVersions *versions)
{
	const Portion *portion = arg;
	Item	   *item = item_of(portion, ask);

	if (errnum == 0)
		portion->step->look(portion->many, item, versions);
	else if (portion->many->puts_back && versions->none_is_current)
		item->todo = ALONE;
	else
		settle(item, fail(errnum, "could not list versions of file"));
}

static void
begin_listing(Portion *portion, BucketCalls *calls)
{
	VersionsAsk *asks = palloc(sizeof(VersionsAsk) * portion->n_picked);

	for (int i = 0; i < portion->n_picked; i++)
		asks[i] = (VersionsAsk)
	{
		item_of(portion, i)->key, item_of(portion, i)->file->expected
	};
	bucket_list_many(portion->many->bucket, asks, portion->n_picked, portion->step->per_key,
					 take_versions, portion, calls);
}

/* If the manifest could not be written, its items are not captured. */
static void
take_manifest(void *arg, int errnum, const BucketAnswer *answer)
{
	const Portion *portion = arg;

	if (errnum == 0 && answer->status != 200)
		errnum = bucket_note(portion->many->bucket, EIO, answer->error);
	for (int i = 0; i < portion->n_picked; i++)
	{
		Item	   *item = item_of(portion, i);

		item->todo = strcmp(item->seen.version, "null") == 0 ? CHANGE_NULL : CHANGE;
		if (errnum != 0)
			settle(item, fail(errnum, "could not write manifest"));
	}
}

static void
begin_manifest(Portion *portion, BucketCalls *calls)
{
	SeenFile   *files = palloc(sizeof(SeenFile) * portion->n_picked);

	for (int i = 0; i < portion->n_picked; i++)
		files[i] = item_of(portion, i)->seen;
	bucket_write_manifest(portion->many->bucket, portion->many->run_id, files, portion->n_picked,
						  take_manifest, portion, calls);
}

static void
take_removal(void *arg, int i, const BucketRemoval *removal)
{
	const Portion *portion = arg;

	portion->step->take(portion->many, item_of(portion, i), removal);
}

static void
begin_removals(Portion *portion, BucketCalls *calls)
{
	BucketRemoval *removals = palloc(sizeof(BucketRemoval) * portion->n_picked);

	for (int i = 0; i < portion->n_picked; i++)
		removals[i] = (BucketRemoval)
	{
		.key = item_of(portion, i)->key,.version = item_of(portion, i)->version
	};
	bucket_remove_many(portion->many->bucket, removals, portion->n_picked, take_removal, portion, calls);
}

/* Begins a step of the portion.  Returns false if the step is for none of its items. */
static bool
enter_step(Portion *portion, const Step *step, BucketCalls *calls)
{
	MemoryContext caller;

	if (portion->context == NULL)
		portion->context = AllocSetContextCreate(portion->many->context, "audio_cleanup step of files",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(portion->context);
	calls->context = portion->context;
	caller = MemoryContextSwitchTo(portion->context);
	portion->step = step;
	portion->n_picked = 0;
	portion->numbers = palloc(sizeof(int) * portion->n);
	for (int i = portion->first; i < portion->first + portion->n; i++)
		if (portion->many->items[i].todo & step->todo)
			portion->numbers[portion->n_picked++] = i;
	if (portion->n_picked > 0 && step->look != NULL)
		begin_listing(portion, calls);
	else if (portion->n_picked > 0 && step->take != NULL)
		begin_removals(portion, calls);
	else if (portion->n_picked > 0)
		begin_manifest(portion, calls);
	MemoryContextSwitchTo(caller);
	return portion->n_picked > 0;
}

static bool
advance(void *arg, int number, BucketCalls *calls)
{
	const Many *many = arg;
	Portion    *portion = &many->portions[number];

	while (portion->n_begun < many->n_steps)
		if (enter_step(portion, &many->steps[portion->n_begun++], calls))
			return true;
	MemoryContextReset(portion->context);
	return false;
}

/* Notes that the server may delete this key later on, because it gave no answer to the request. */
static void
doubt(Bucket *bucket, const char *key)
{
	uint64		digest = bucket_digest(key);

	if (bucket->doubtful == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(uint64),.entrysize = sizeof(uint64),.hcxt = bucket->context};

		bucket->doubtful = hash_create("audio_cleanup keys in doubt", 64, &control,
									   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	(void) hash_search(bucket->doubtful, &digest, HASH_ENTER, NULL);
}

/* After calls were cut short, some of the markers to be made may have been on their way. */
static void
doubt_markers(Many *many)
{
	for (int i = 0; i < many->n; i++)
		if (many->items[i].todo == CHANGE && many->items[i].version == NULL)
			doubt(many->bucket, many->items[i].key);
}

/* Leads all items through these steps, in portions.  Returns 0 or an errno. */
static int
take_steps(Many *many, const Step *steps, int n_steps)
{
	int			n = (many->n + PORTION - 1) / PORTION;
	int			errnum;

	many->steps = steps;
	many->n_steps = n_steps;
	many->portions = palloc0(sizeof(Portion) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		many->portions[i].many = many;
		many->portions[i].first = i * PORTION;
		many->portions[i].n = Min(PORTION, many->n - i * PORTION);
	}
	errnum = bucket_run_pipeline(many->bucket, n, advance, many);
	if (errnum != 0)
		doubt_markers(many);
	return errnum;
}

/* Takes the steps.  An errno is the result of the items that are still in hand. */
static int
go_way(Many *many, const Step *steps, int n_steps, const char *action)
{
	int			errnum = take_steps(many, steps, n_steps);

	if (errnum != 0)
		settle_all(many, IN_HAND, fail(errnum, action));
	return errnum;
}

/*
 * Takes one step, and once more with the items that a busy server has left,
 * several times.  Returns 0 or an errno: if the versions could not be listed, it
 * is the result of the items in hand.
 */
static int
take_step(Many *many, const Step *step)
{
	int			errnum = 0;

	for (int try = 0; errnum == 0 && try <= BUCKET_TRIES && is_any(many, step->todo); try++)
	{
		if (try > 0)
			errnum = bucket_rest(try - 1) ? bucket_stay_leased(many->bucket).errnum : bucket_note(many->bucket, EINTR, NULL);
		if (errnum == 0)
			errnum = take_steps(many, step, 1);
	}
	if (errnum != 0 && step->look != NULL)
		settle_all(many, IN_HAND, fail(errnum, "could not list versions of file"));
	return errnum;
}


/* ---------------------------------------------------------------- identity --- */

static void
take_identity(Many *many, Item *item, const KeyVersions *versions)
{
	if (!bucket_is_present(versions))
	{
		settle(item, come_to(FILE_VANISHED));
		return;
	}
	bucket_identify_entry(&versions->entries[0], &item->identity);
	settle(item, come_to(FILE_OK));
}

void
bucket_expect(FileStore *store, const char *const *paths, int n)
{
	static const Step step = {LOOK, UNCOVERED, take_identity};
	Bucket	   *bucket = bucket_of(store);
	Many	   *many;
	StoreFile  *files;

	if (bucket->expected != NULL)
		MemoryContextDelete(bucket->expected->context);
	bucket->expected = NULL;
	if (n == 0)
		return;
	files = palloc_extended(sizeof(StoreFile) * n, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < n; i++)
		files[i].path = paths[i];
	many = begin_many(store, 0, files, n);
	/* EINTR only tells of a pending interrupt, which the caller will serve */
	(void) take_step(many, &step);
	for (int i = 0; i < n; i++)
		many->items[i].result = many->items[i].file->result;
	MemoryContextSwitchTo(many->caller);
	pfree(files);
	bucket->expected = many;
}

bool
bucket_has_expected(Bucket *bucket, const char *path, FileIdentity *identity, FileResult *result)
{
	char		key[BUCKET_KEY_MAX + 1];
	const Item	wanted = {.key = key};
	const Item *known = NULL;

	if (bucket->expected != NULL && bucket_key(bucket, path, key) == 0)
		known = bsearch(&wanted, bucket->expected->items, bucket->expected->n, sizeof(Item), compare_items);
	if (known == NULL)
		return false;
	*identity = known->identity;
	*result = known->result;
	return true;
}


/* ----------------------------------------------------------------- capture --- */

bool
bucket_is_doubtful(const Bucket *bucket, const char *key)
{
	uint64		digest;

	if (bucket->doubtful == NULL)
		return false;
	digest = bucket_digest(key);
	return hash_search(bucket->doubtful, &digest, HASH_FIND, NULL) != NULL;
}

/*
 * Returns whether a marker hides another version than the expected version: a
 * capture was killed before it could verify the file.
 */
static bool
hides_stranger(const KeyVersions *versions)
{
	for (int i = 1; i < versions->at; i++)
		if (versions->entries[i].is_marker)
			return false;
	return versions->at > 1 && versions->entries[0].is_marker;
}

/* Returns the place of the expected file, by the versions of its key. */
static FilePlace
place_of(const KeyVersions *versions)
{
	if (versions->at == 0)
		return PLACE_UPLOAD;
	if (bucket_is_captured(versions))
		return PLACE_TRASH;
	if (hides_stranger(versions))
		return PLACE_UNFINISHED;
	return bucket_is_present(versions) ? PLACE_OTHER : PLACE_NOWHERE;
}

/*
 * Finds out where a condemned file is.  A file that is to be captured stays in
 * hand, and so does a marker that a killed process has left above a stranger.
 */
static void
take_condemned(Many *many, Item *item, const KeyVersions *versions)
{
	const BucketEntry *newest = &versions->entries[0];

	item->file->place = place_of(versions);
	if (item->file->place == PLACE_UNFINISHED)
	{
		item->file->place = PLACE_OTHER;
		item->outcome = FILE_OK;
		item->version = keep_id(many, newest);
		item->todo = SHOW;
		return;
	}
	if (item->file->place != PLACE_UPLOAD)
	{
		settle(item, come_to(FILE_OK));
		return;
	}
	item->todo = RECORD;
	item->seen = (SeenFile)
	{
		.path = item->file->path,
			.version = keep_id(many, newest),
			.etag = MemoryContextStrdup(many->context, newest->etag),
			.size = newest->size,
			.modified = newest->modified
	};
}

/*
 * Asks the bucket whether it keeps versions, if files have the version "null",
 * right before the marker is made, or the version is removed.  In a bucket that
 * no longer keeps versions, every file that is written gets the version "null",
 * and a marker would replace that version for good.
 */
static void
check_null_versions(Many *many)
{
	int			errnum;

	if (!is_any(many, CHANGE_NULL))
		return;
	errnum = bucket_reach((FileStore *) many->bucket);
	if (errnum == 0 && !many->bucket->enabled)
		errnum = bucket_note(many->bucket, ENOTSUP, "the bucket keeps no versions");
	if (errnum != 0)
		settle_all(many, CHANGE_NULL, fail(errnum, "could not delete safely"));
	for (int i = 0; i < many->n; i++)
		if (many->items[i].todo == CHANGE_NULL)
			many->items[i].todo = CHANGE;
}

/*
 * Items whose markers the server did not refuse stay in hand, to be verified.  Requests
 * that were on their way when the drain was asked to stop are left to the next drain.
 */
static void
take_marked(Many *many, Item *item, const BucketRemoval *removal)
{
	item->todo = VERIFY;
	item->made = removal->errnum == 0;
	item->marker = removal->marker ? MemoryContextStrdup(many->context, removal->marker) : NULL;
	if (removal->is_doubtful)
		doubt(many->bucket, item->key);
	if (removal->errnum != 0 && removal->errnum != EIO && removal->errnum != ETIMEDOUT &&
		removal->errnum != EAGAIN && removal->errnum != EINTR)
		settle(item, fail(removal->errnum, "could not delete file"));
}

/*
 * Returns the index of the marker that we have made, or -1.  If the id of that
 * marker is not known, because Swift tells no ids, the marker above the
 * expected file is taken, if any; or the only marker above a stranger, if a
 * marker was made.
 */
static int
find_marker(const Item *item, const KeyVersions *versions)
{
	int			at;

	if (item->marker == NULL && bucket_is_captured(versions))
		return versions->at - 1;
	if (item->marker == NULL)
		return item->made && hides_stranger(versions) ? 0 : -1;
	at = bucket_find_version(versions, item->marker);

	/*
	 * while versioning is suspended, a new file takes the id "null" of our
	 * marker
	 */
	return at >= 0 && versions->entries[at].is_marker ? at : -1;
}

/*
 * Verifies a capture: the expected version must lie right below the marker.
 * If another version lies there, the marker is to be removed; if there is no
 * marker, and no marker will come later, another one is to be made.
 */
static void
take_verified(Many *many, Item *item, const KeyVersions *versions)
{
	int			at = find_marker(item, versions);

	if (at >= 0 && versions->at == at + 1)
		settle(item, come_to(FILE_OK));
	else if (at >= 0)
	{
		item->outcome = at + 1 < versions->n && !versions->entries[at + 1].is_marker ?
			FILE_REPLACED : FILE_VANISHED;
		item->version = keep_id(many, &versions->entries[at]);
		item->todo = SHOW;
	}
	else if (item->marker != NULL || versions->at != 0 || bucket_is_doubtful(many->bucket, item->key))
		settle(item, fail(bucket_note(many->bucket, EIO, "the server has made no delete marker"), "could not delete file"));
	else
		item->todo = strcmp(item->seen.version, "null") == 0 ? CHANGE_NULL : CHANGE;
}

/* A busy server is asked again, and a lost lease is taken again. */
static void
take_uncovered(Many *many, Item *item, const BucketRemoval *removal)
{
	if (removal->errnum == 0)
		settle(item, come_to(item->outcome));
	else if (!removal->again && removal->errnum != EBUSY)
		settle(item, fail(removal->errnum, "could not put back file"));
}

/*
 * Shows the strangers that are still hidden.  The markers above the strangers
 * are ours, whichever process had the lease meanwhile; but without the lease all
 * other items in hand fail.  Fails the strangers that a busy server does not
 * show.
 */
static void
show_strangers(Many *many)
{
	static const Step step = {SHOW,.take = take_uncovered};
	FileResult	kept;

	if (!is_any(many, SHOW))
		return;
	kept = bucket_stay_leased(many->bucket);
	if (kept.outcome != FILE_OK)
	{
		settle_all(many, IN_HAND & ~SHOW, kept);
		kept = bucket_keep_lease(many->bucket);
	}
	if (kept.outcome == FILE_OK)
		(void) take_step(many, &step);
	settle_all(many, SHOW, fail(EAGAIN, "could not put back file"));
}

static const Step hiding[] = {
	{LOOK, UNCOVERED, take_condemned},
	{RECORD},
	{CHANGE,.take = take_marked},
	{VERIFY, COVERED, take_verified},
	{SHOW,.take = take_uncovered}
};

/*
 * Hides the files that are left, all together, in several attempts if need be.
 */
static void
hide_left(Many *many)
{
	int			errnum = EIO;
	int			stopped;

	for (int try = 0; try <= BUCKET_TRIES && is_any(many, IN_HAND); try++)
	{
		if (!bucket_rest(try))
		{
			errnum = bucket_note(many->bucket, EINTR, NULL);
			break;
		}
		if (!is_leased(many, bucket_stay_leased(many->bucket)))
			return;
		check_null_versions(many);
		/* a marker that may have been made must not be made again */
		if ((stopped = take_step(many, &hiding[2])) != 0 || (stopped = take_step(many, &hiding[3])) != 0)
		{
			errnum = stopped;
			break;
		}
		show_strangers(many);
	}
	settle_all(many, IN_HAND, fail(errnum, "could not delete file"));
}

static void
hide_all(Many *many)
{
	if (go_way(many, hiding, lengthof(hiding), "could not delete file") != 0)
		return;
	show_strangers(many);
	hide_left(many);
}

/* Destroys the files that were seen in their place, because there is no trash. */
static void
destroy_unversioned(Many *many)
{
	BucketCalls calls = {many->context};
	int			errnum;

	for (int i = 0; i < many->n; i++)
		if (many->items[i].todo == RECORD)
		{
			many->items[i].file->result = fail(EAGAIN, "could not delete file");
			bucket_delete_conditionally(many->bucket, many->items[i].key, &many->items[i].seen,
										&many->items[i].file->result, &calls);
		}
	errnum = bucket_stay_leased(many->bucket).errnum;
	if (errnum == 0)
		errnum = bucket_call_many(many->bucket, &calls);
	for (int i = 0; i < many->n; i++)
		if (many->items[i].todo == RECORD)
		{
			StoreFile  *file = many->items[i].file;

			settle(&many->items[i], errnum != 0 && file->result.errnum == EAGAIN ?
				   fail(errnum, "could not delete file") : file->result);
			file->destroyed = file->result.outcome == FILE_OK;
		}
	/* a marker has come since the bucket was found to keep no versions */
	settle_all(many, IN_HAND, fail(EAGAIN, "could not delete file"));
}

static void
capture_all(Many *many, bool for_good)
{
	if (!many->bucket->conditional)
		hide_all(many);
	else if (take_step(many, &hiding[0]) != 0)
		return;
	else if (for_good)
		destroy_unversioned(many);
	else
		settle_all(many, IN_HAND, fail(bucket_note(many->bucket, ENOTSUP, "the bucket keeps no versions"),
									   "could not back up file"));
}

void
bucket_capture_many(FileStore *store, int64 run_id, StoreFile *files, int n, bool for_good)
{
	Many	   *many;

	if (n == 0)
		return;
	many = begin_many(store, run_id, files, n);
	if (is_leased(many, bucket_keep_lease(many->bucket)))
		capture_all(many, for_good);
	end_many(many);
}


/* ----------------------------------------------------------------- destroy --- */

/* Has the marker removed of a version that is gone.  A marker that stays does no harm. */
static void
settle_bare(Item *item, FileResult result)
{
	settle(item, result);
	item->version = item->marker;
	if (item->marker != NULL)
		item->todo = BARE;
}

/*
 * Finds the version to be removed; and its marker, if no other version lies
 * below.  Above an older version the marker stays: without the marker the
 * older version would be seen again.
 */
static void
take_doomed(Many *many, Item *item, const KeyVersions *versions)
{
	bool		is_last = versions->n == versions->at + 1 && !versions->more;

	/*
	 * a process that was killed after it removed the last version has left
	 * the marker
	 */
	if (versions->n == 1 && versions->entries[0].is_marker)
	{
		item->marker = keep_id(many, &versions->entries[0]);
		settle_bare(item, come_to(FILE_VANISHED));
	}
	else if (!bucket_is_captured(versions))
		settle(item, come_to(FILE_VANISHED));
	else
	{
		item->version = keep_id(many, &versions->entries[versions->at]);
		item->todo = strcmp(item->version, "null") == 0 ? CHANGE_NULL : CHANGE;
		if (is_last)
			item->marker = keep_id(many, &versions->entries[versions->at - 1]);
	}
}

/*
 * A busy server is asked again, and the next drain finds that a file whose
 * answer was lost is gone.
 */
static void
take_destroyed(Many *many, Item *item, const BucketRemoval *removal)
{
	if (removal->errnum == 0)
	{
		settle_bare(item, come_to(FILE_OK));
		item->file->freed = item->file->expected->size;
	}
	else if (!removal->again)
		settle(item, fail(removal->errnum, "could not delete file"));
}

static void
take_bared(Many *many, Item *item, const BucketRemoval *removal)
{
	if (!removal->again)
		item->todo = NOTHING;
}

static void
destroy_all(Many *many)
{
	static const Step steps[] = {
		{LOOK, COVERED, take_doomed},
		{CHANGE,.take = take_destroyed},
		{BARE,.take = take_bared}
	};

	if (go_way(many, steps, lengthof(steps), "could not delete file") != 0)
		return;
	if (is_any(many, IN_HAND) && is_leased(many, bucket_stay_leased(many->bucket)))
	{
		check_null_versions(many);
		settle_all(many, IN_HAND, fail(take_step(many, &steps[1]) == EINTR ? EINTR : EAGAIN, "could not delete file"));
	}
	(void) take_step(many, &steps[2]);
}

StoreUnlinks *
bucket_destroy_begin(FileStore *store, int64 run_id, StoreFile *files, int n)
{
	Many	   *many = begin_many(store, run_id, files, n);

	if (is_leased(many, bucket_keep_lease(many->bucket)))
		destroy_all(many);
	end_many(many);
	return NULL;
}


/* ------------------------------------------------------------------ locate --- */

static void
take_located(Many *many, Item *item, const KeyVersions *versions)
{
	item->file->place = place_of(versions);
	settle(item, come_to(FILE_OK));
}

FilePlace
bucket_locate(FileStore *store, int64 run_id, const char *path, const FileIdentity *expected,
			  bool mend, int *errnum)
{
	static const Step locating = {LOOK, BY_NAME, take_located};
	static const Step mending = {LOOK, BY_NAME, take_condemned};
	StoreFile	file = {path,.expected = expected};
	Many	   *many = begin_many(store, run_id, &file, 1);

	(void) take_step(many, &locating);
	/* what was listed before the lease was taken may not be true any more */
	if (mend && file.place == PLACE_UNFINISHED)
	{
		file.place = PLACE_UNKNOWN;
		many->items[0].todo = LOOK;
		if (is_leased(many, bucket_keep_lease(many->bucket)) && take_step(many, &mending) == 0)
			show_strangers(many);
	}
	end_many(many);
	*errnum = file.result.errnum;
	return file.place;
}

void
bucket_locate_many(FileStore *store, int64 run_id, StoreFile *files, int n)
{
	static const Step locating = {LOOK, COVERED, take_located};
	Many	   *many;

	if (n == 0)
		return;
	many = begin_many(store, run_id, files, n);
	(void) go_way(many, &locating, 1, "could not list versions of file");
	end_many(many);
}


/* ---------------------------------------------------------------- put back --- */

/* Finds the one marker right above a file.  A file with more markers is put back by itself. */
static void
take_hidden(Many *many, Item *item, const KeyVersions *versions)
{
	if (!bucket_is_captured(versions))
		settle(item, come_to(FILE_VANISHED));
	else if (bucket_is_present(versions))
		settle(item, come_to(FILE_OCCUPIED));
	else
	{
		item->todo = versions->at > 1 ? ALONE : SHOW;
		item->version = keep_id(many, &versions->entries[0]);
	}
}

/* Takes the result of a removal of a marker.  A busy server is asked again. */
static void
take_shown(Many *many, Item *item, const BucketRemoval *removal)
{
	if (removal->errnum == 0)
		item->todo = VERIFY;
	else if (!removal->again)
		settle(item, fail(removal->errnum, "could not put back file"));
}

static void
take_seen(Many *many, Item *item, const KeyVersions *versions)
{
	if (versions->at == 0)
		settle(item, come_to(FILE_OK));
	else if (versions->at < 0)
		settle(item, come_to(FILE_VANISHED));
	else if (bucket_is_present(versions))
		settle(item, come_to(FILE_OCCUPIED));
	else
		item->todo = ALONE;
}

static void
show_all(Many *many)
{
	static const Step steps[] = {
		{LOOK, COVERED, take_hidden},
		{SHOW,.take = take_shown},
		{VERIFY, UNCOVERED, take_seen}
	};

	if (go_way(many, steps, lengthof(steps), "could not put back file") != 0 ||
		!is_any(many, SHOW) || !is_leased(many, bucket_stay_leased(many->bucket)))
		return;
	(void) take_step(many, &steps[1]);
	(void) take_step(many, &steps[2]);
}

/* Puts files back by themselves, one after the other. */
static void
put_back_alone(Many *many)
{
	for (int i = 0; i < many->n; i++)
	{
		Item	   *item = &many->items[i];
		const StoreFile *file = item->file;

		if (item->todo == NOTHING)
			continue;
		settle(item, item->todo == ALONE ?
			   bucket_put_back_as((FileStore *) many->bucket, many->run_id, file->path, file->as, file->expected) :
			   fail(EAGAIN, "could not put back file"));
		if (file->result.errnum == EINTR)
			settle_all(many, IN_HAND, file->result);
	}
}

void
bucket_put_back_many(FileStore *store, int64 run_id, StoreFile *files, int n)
{
	Many	   *many;

	if (n == 0)
		return;
	many = begin_many(store, run_id, files, n);
	many->puts_back = true;
	for (int i = 0; i < n; i++)
		if (many->items[i].todo == LOOK && strcmp(many->items[i].file->path, many->items[i].file->as) != 0)
			many->items[i].todo = ALONE;
	if (is_leased(many, bucket_keep_lease(many->bucket)))
		show_all(many);
	put_back_alone(many);
	end_many(many);
}
