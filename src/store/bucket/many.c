/*-------------------------------------------------------------------------
 *
 * store/bucket/many.c
 *	  Looks at, captures and destroys many files of a bucket at a time.
 *
 * bucket.h says what happens to each file.  Here one request serves many
 * files, and portions of files go through stages, see pipeline.c:
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

/* further attempts to make a marker that a busy server has not made */
#define MAX_TRIES	5

/*
 * entries of a file in a list of versions, as a rule: without a marker, and
 * with a marker
 */
#define UNCOVERED	1
#define COVERED		2

/* A file of the call. */
typedef struct Item
{
	char	   *key;			/* with the prefix; NULL: `result` says why */
	const char *path;
	const FileIdentity *expected;	/* or NULL */
	int			number;			/* index in the caller's array */
	FileResult	result;
	bool		in_hand;		/* there is still work to do for the file */
	const char *version;		/* version that is to be removed */
	const char *marker;			/* marker that was made, NULL: unknown; or
								 * marker that is to be removed */
	bool		made;			/* a marker was made, which may be unknown */
	FileOutcome outcome;		/* outcome when that removal is done */
	bool		is_null;		/* the file's version is "null" */
	ManifestFile seen;			/* the version to be captured */
	bool		is_odd;			/* the file is to be put back by itself */
} Item;

typedef struct Many
{
	Bucket	   *bucket;
	MemoryContext context;		/* has the memory of the call */
	MemoryContext caller;
	Item	   *items;			/* sorted by key */
	int			n;
	int64		run_id;
	struct Portion *portions;
	StoreCondemned *condemned;	/* of a capture */
	StoreLocated *located;		/* of a look */
} Many;

/* Items that stand side by side, and the requests for the items in hand. */
typedef struct Portion
{
	Many	   *many;
	int			first;
	int			n;
	int			stage;
	BucketListing *listing;		/* NULL: no listing is under way */
	VersionsAsk *asks;
	BucketManifest *manifest;	/* NULL: no manifest is being written */
	BucketRemoving *removing;	/* NULL: no removal is under way */
	BucketRemoval *removals;
	int			n_removals;
	int		   *numbers;		/* numbers of the items that a listing or a
								 * removal is about */
} Portion;


/* ------------------------------------------------------------------- begin --- */

static int
compare_items(const void *a, const void *b)
{
	const char *first = ((const Item *) a)->key;
	const char *second = ((const Item *) b)->key;

	return strcmp(first ? first : "", second ? second : "");
}

static void
begin_many(Many *many, FileStore *store, int n)
{
	memset(many, 0, sizeof(*many));
	many->bucket = bucket_of(store);
	many->context = AllocSetContextCreate(GetMemoryChunkContext(many->bucket), "audio_cleanup files",
										  ALLOCSET_DEFAULT_SIZES);
	many->caller = MemoryContextSwitchTo(many->context);
	many->items = palloc_extended(sizeof(Item) * n, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
}

static void
add_item(Many *many, const char *path, const FileIdentity *expected)
{
	Item	   *item = &many->items[many->n];
	char		key[BUCKET_KEY_MAX + 1];
	int			errnum = bucket_key(many->bucket, path, key);

	item->path = path;
	item->number = many->n++;
	item->expected = expected;
	item->in_hand = errnum == 0;
	if (errnum == 0)
		item->key = pstrdup(key);
	item->result = errnum == 0 ? fail(EINTR, "could not list versions of file") :
		fail(bucket_note(many->bucket, errnum, strerror(errnum)), "could not accept path");
}

static void
end_many(Many *many)
{
	MemoryContextSwitchTo(many->caller);
	MemoryContextDelete(many->context);
}

/* Gives this result to all files that are still in hand. */
static void
fail_all(Many *many, FileResult result)
{
	for (int i = 0; i < many->n; i++)
	{
		if (many->items[i].in_hand)
			many->items[i].result = result;
		many->items[i].in_hand = false;
	}
}

/* Gives the item its result: the work for the item is over. */
static void
settle(Item *item, FileResult result)
{
	item->result = result;
	item->in_hand = false;
}

static bool
is_in_hand(const Many *many)
{
	for (int i = 0; i < many->n; i++)
		if (many->items[i].in_hand)
			return true;
	return false;
}

/*
 * Takes the lease before a change, so that no other process works in the
 * bucket.
 */
static bool
begin_change(Many *many)
{
	FileResult	result = bucket_keep_lease(many->bucket);

	if (result.outcome != FILE_OK)
		fail_all(many, result);
	return result.outcome == FILE_OK;
}

/* Keeps the lease in the midst of a change.  Without the lease, the items in hand fail. */
static bool
go_on(Many *many)
{
	FileResult	result = bucket_stay_leased(many->bucket);

	if (result.outcome != FILE_OK)
		fail_all(many, result);
	return result.outcome == FILE_OK;
}


/* ---------------------------------------------------------------- portions --- */

/*
 * Items of a portion.  If each item has one entry, the list of a portion fits
 * into one page, with a little room.
 */
#define PORTION			980

static Portion
all_items(Many *many)
{
	return (Portion)
	{
		.many = many,.n = many->n
	};
}

static Item *
item_of(const Portion *portion, int number)
{
	return &portion->many->items[portion->numbers[number]];
}

/*
 * Begins to list the versions of all items in hand, of which each has
 * `per_key` as a rule.  The sink gets the portion, and the number of the item
 * among the items in hand.  Returns false if no item is in hand.
 */
static bool
begin_listing(Portion *portion, int per_key, VersionsSink sink)
{
	Many	   *many = portion->many;
	int			n = 0;

	portion->asks = palloc_extended(sizeof(VersionsAsk) * Max(portion->n, 1), MCXT_ALLOC_HUGE);
	portion->numbers = palloc_extended(sizeof(int) * Max(portion->n, 1), MCXT_ALLOC_HUGE);
	for (int i = portion->first; i < portion->first + portion->n; i++)
	{
		const Item *item = &many->items[i];

		if (!item->in_hand)
			continue;
		portion->asks[n] = (VersionsAsk)
		{
			item->key, item->expected
		};
		portion->numbers[n++] = i;
	}
	portion->listing = bucket_begin_listing(many->bucket, portion->asks, n, per_key, sink, portion);
	return n > 0;
}

static void
end_listing(Portion *portion)
{
	bucket_end_listing(portion->listing);
	portion->listing = NULL;
	pfree(portion->asks);
	pfree(portion->numbers);
}

/*
 * Lists the versions of all items in hand.  Returns 0; or an errno, which then
 * is the result of all these items.
 */
static int
list_all(Many *many, int per_key, VersionsSink sink)
{
	Portion		all = all_items(many);
	BucketCalls calls;
	int			errnum = 0;

	if (begin_listing(&all, per_key, sink))
	{
		calls = bucket_listing_calls(all.listing);
		errnum = bucket_call_many(many->bucket, &calls);
	}
	end_listing(&all);
	if (errnum != 0)
		fail_all(many, fail(errnum, "could not list versions of file"));
	return errnum;
}

/*
 * Returns whether a removal is to be made for the item, and sets *version to
 * the id of the version to be removed, or to NULL for a new marker.
 */
typedef bool (*RemovalPick) (const Item *item, const char **version);

/* Collects the removals for the items of a portion.  Returns false if there is no removal. */
static bool
pick_removals(Portion *portion, RemovalPick pick)
{
	portion->removals = palloc_extended(sizeof(BucketRemoval) * Max(portion->n, 1), MCXT_ALLOC_HUGE);
	portion->numbers = palloc_extended(sizeof(int) * Max(portion->n, 1), MCXT_ALLOC_HUGE);
	portion->n_removals = 0;
	for (int i = portion->first; i < portion->first + portion->n; i++)
	{
		const Item *item = &portion->many->items[i];
		const char *version = NULL;

		if (!pick(item, &version))
			continue;
		portion->numbers[portion->n_removals] = i;
		portion->removals[portion->n_removals++] = (BucketRemoval)
		{
			.key = item->key,.version = version
		};
	}
	return portion->n_removals > 0;
}

static void
forget_removals(Portion *portion)
{
	pfree(portion->removals);
	pfree(portion->numbers);
	portion->n_removals = 0;
}

/* A function that takes the results of the removals of a portion. */
typedef void (*RemovalTake) (Portion *portion);

/*
 * Makes these removals for all items, and tries again the removals that a busy
 * server has not made.  Returns 0 or an errno.
 */
static int
remove_all(Many *many, RemovalPick pick, RemovalTake take)
{
	Portion		all = all_items(many);
	int			errnum = 0;

	if (pick_removals(&all, pick))
	{
		errnum = bucket_remove_many(many->bucket, all.removals, all.n_removals);
		take(&all);
	}
	forget_removals(&all);
	return errnum;
}

/*
 * A step that the items of a portion go through: a list, a removal, or the
 * writing of the manifest.
 */
typedef struct Step
{
	int			per_key;		/* of a list */
	VersionsSink sink;			/* NULL: the step is no list */
	RemovalPick pick;			/* NULL: the step is no removal */
	RemovalTake take;
} Step;

typedef struct Way
{
	Many	   *many;
	const Step *steps;
	int			n;
} Way;

static bool
is_step_over(const void *arg)
{
	const Portion *portion = arg;

	if (portion->manifest != NULL)
		return bucket_is_written(portion->manifest);
	return portion->listing != NULL ? bucket_is_listed(portion->listing) : bucket_is_removed(portion->removing);
}

static BucketCalls
calls_of(const Portion *portion)
{
	if (portion->manifest != NULL)
		return bucket_manifest_calls(portion->manifest);
	return portion->listing != NULL ? bucket_listing_calls(portion->listing) : bucket_removing_calls(portion->removing);
}

/*
 * Begins to write the items in hand into a manifest.  Returns false if no item
 * is in hand.
 */
static bool
begin_manifest(Portion *portion)
{
	ManifestFile *files = palloc(sizeof(ManifestFile) * Max(portion->n, 1));
	int			n = 0;

	for (int i = portion->first; i < portion->first + portion->n; i++)
		if (portion->many->items[i].in_hand)
			files[n++] = portion->many->items[i].seen;
	if (n > 0)
		portion->manifest = bucket_begin_manifest(portion->many->bucket, portion->many->run_id, files, n);
	pfree(files);
	return n > 0;
}

/*
 * Ends the manifest.  If the manifest could not be written, its items are not
 * captured.
 */
static void
end_manifest(Portion *portion)
{
	int			errnum = bucket_end_manifest(portion->manifest);

	portion->manifest = NULL;
	for (int i = portion->first; i < portion->first + portion->n && errnum != 0; i++)
		if (portion->many->items[i].in_hand)
			settle(&portion->many->items[i], fail(errnum, "could not write manifest"));
}

static void
end_step(Portion *portion, const Step *step, int errnum)
{
	if (portion->listing != NULL)
		end_listing(portion);
	else if (portion->manifest != NULL)
		end_manifest(portion);
	else if (portion->removing != NULL)
	{
		bucket_end_removing(portion->removing, errnum);
		portion->removing = NULL;
		step->take(portion);
		forget_removals(portion);
	}
}

static bool
begin_step(Portion *portion, const Step *step)
{
	bool		begun;

	if (step->sink != NULL)
		return begin_listing(portion, step->per_key, step->sink);
	if (step->pick == NULL)
		return begin_manifest(portion);
	begun = pick_removals(portion, step->pick);
	portion->removing = bucket_begin_removing(portion->many->bucket, portion->removals, portion->n_removals);
	return begun;
}

static bool
next_from_portion(void *arg, int lane, BucketCall *call)
{
	const BucketCalls calls = calls_of(arg);

	return calls.next(calls.arg, lane, call);
}

static void
take_for_portion(void *arg, int lane, int errnum, const BucketAnswer *answer)
{
	const BucketCalls calls = calls_of(arg);

	calls.take(calls.arg, lane, errnum, answer);
}

static bool
advance(void *arg, int number, BucketStage *stage)
{
	const Way  *way = arg;
	Portion    *portion = &way->many->portions[number];

	if (portion->stage > 0)
		end_step(portion, &way->steps[portion->stage - 1], 0);
	while (portion->stage < way->n)
	{
		const Step *step = &way->steps[portion->stage++];

		if (begin_step(portion, step))
		{
			stage->calls = (BucketCalls)
			{
				next_from_portion, take_for_portion, portion
			};
			stage->is_over = is_step_over;
			return true;
		}
		end_step(portion, step, 0);
	}
	return false;
}

/*
 * Leads all items in hand through these steps, in portions.  Returns 0; or an
 * errno, which then is the result of the items that are still in hand.
 */
static int
go_way(Many *many, const Step *steps, int n_steps, const char *action)
{
	Way			way = {many, steps, n_steps};
	BucketPipeline pipeline = {advance, &way, (many->n + PORTION - 1) / PORTION};
	int			errnum;

	many->portions = palloc0(sizeof(Portion) * Max(pipeline.n, 1));
	for (int i = 0; i < pipeline.n; i++)
	{
		many->portions[i].many = many;
		many->portions[i].first = i * PORTION;
		many->portions[i].n = Min(PORTION, many->n - i * PORTION);
	}
	errnum = bucket_run_pipeline(many->bucket, &pipeline);
	for (int i = 0; i < pipeline.n && errnum != 0; i++)
		if (many->portions[i].stage > 0)
			end_step(&many->portions[i], &steps[many->portions[i].stage - 1], errnum);
	if (errnum != 0)
		fail_all(many, fail(errnum, action));
	return errnum;
}


/* ---------------------------------------------------------------- identity --- */

static void
take_identity(void *arg, int ask, int errnum, const KeyVersions *versions)
{
	const Many *many = ((const Portion *) arg)->many;
	Item	   *item = item_of(arg, ask);
	ExpectedFile *file = &many->bucket->expected[item->number];

	if (errnum != 0)
		settle(item, fail(errnum, "could not list versions of file"));
	else if (!bucket_is_present(versions))
		settle(item, come_to(FILE_VANISHED));
	else
	{
		bucket_identify_entry(&versions->entries[0], &file->identity);
		settle(item, come_to(FILE_OK));
	}
}

static int
compare_expected(const void *a, const void *b)
{
	return strcmp(((const ExpectedFile *) a)->path, ((const ExpectedFile *) b)->path);
}

void
bucket_expect(FileStore *store, const char *const *paths, int n)
{
	Bucket	   *bucket = bucket_of(store);
	Many		many;

	if (bucket->expected != NULL)
		pfree(bucket->expected);
	bucket->expected = NULL;
	bucket->n_expected = 0;
	if (n == 0)
		return;
	bucket->expected = MemoryContextAllocExtended(GetMemoryChunkContext(bucket), sizeof(ExpectedFile) * n,
												  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	begin_many(&many, store, n);
	for (int i = 0; i < n; i++)
		add_item(&many, paths[i], NULL);
	qsort(many.items, n, sizeof(Item), compare_items);
	/* EINTR only tells of a pending interrupt, which the caller will serve */
	(void) list_all(&many, UNCOVERED, take_identity);
	for (int i = 0; i < n; i++)
	{
		ExpectedFile *file = &bucket->expected[many.items[i].number];

		file->path = paths[many.items[i].number];
		file->result = many.items[i].result;
	}
	end_many(&many);
	bucket->n_expected = n;
	qsort(bucket->expected, n, sizeof(ExpectedFile), compare_expected);
}

const ExpectedFile *
bucket_expected(const Bucket *bucket, const char *path)
{
	const ExpectedFile wanted = {.path = path};

	if (bucket->n_expected == 0)
		return NULL;
	return bsearch(&wanted, bucket->expected, bucket->n_expected, sizeof(ExpectedFile), compare_expected);
}


/* ----------------------------------------------------------------- capture --- */

/* Notes that the server may delete this key later on, because it gave no answer to the request. */
static void
doubt(Bucket *bucket, const char *key)
{
	uint64		digest = bucket_digest(key);

	if (bucket->doubtful == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(uint64),.entrysize = sizeof(uint64),
		.hcxt = GetMemoryChunkContext(bucket)};

		bucket->doubtful = hash_create("audio_cleanup keys in doubt", 64, &control,
									   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	(void) hash_search(bucket->doubtful, &digest, HASH_ENTER, NULL);
}

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
 * Finds out where a condemned file is.  A file that is to be captured stays in
 * hand.
 */
static void
take_place(void *arg, int ask, int errnum, const KeyVersions *versions)
{
	const Many *many = ((const Portion *) arg)->many;
	Item	   *item = item_of(arg, ask);
	StoreCondemned *file = &many->condemned[item->number];

	if (errnum != 0)
	{
		settle(item, fail(errnum, "could not list versions of file"));
		return;
	}
	if (bucket_place_of(versions) == PLACE_UPLOAD)
	{
		file->place = PLACE_UPLOAD;
		item->is_null = strcmp(versions->entries[0].version, "null") == 0;
		item->seen = (ManifestFile)
		{
			.path = item->path,
				.version = MemoryContextStrdup(many->context, versions->entries[0].version),
				.etag = MemoryContextStrdup(many->context, versions->entries[0].etag),
				.size = versions->entries[0].size,
				.modified = versions->entries[0].modified
		};
		return;
	}
	file->place = bucket_place_of(versions);
	settle(item, come_to(FILE_OK));
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
	FileResult	result = come_to(FILE_OK);
	int			errnum;
	int			i;

	for (i = 0; i < many->n; i++)
		if (many->items[i].in_hand && many->items[i].is_null)
			break;
	if (i == many->n)
		return;
	errnum = bucket_ask_versioning(many->bucket);
	if (errnum == 0 && !many->bucket->enabled)
		errnum = bucket_note(many->bucket, ENOTSUP, "the bucket keeps no versions");
	if (errnum == 0)
		return;
	result = fail(errnum, "could not delete safely");
	for (; i < many->n; i++)
		if (many->items[i].in_hand && many->items[i].is_null)
			settle(&many->items[i], result);
}

/* A file of version "null" is left for later, because the bucket is asked right before its removal. */
static bool
pick_unmarked(const Item *item, const char **version)
{
	return item->in_hand && !item->is_null;
}

static bool
pick_left(const Item *item, const char **version)
{
	return item->in_hand;
}

/*
 * Items whose markers the server did not refuse stay in hand, to be verified.  Requests
 * that were on their way when the drain was asked to stop are left to the next drain.
 */
static void
take_marked(Portion *portion)
{
	for (int i = 0; i < portion->n_removals; i++)
	{
		const BucketRemoval *removal = &portion->removals[i];
		Item	   *item = item_of(portion, i);

		item->marker = removal->marker;
		item->made = removal->errnum == 0;
		if (removal->is_doubtful)
			doubt(portion->many->bucket, item->key);
		if (removal->errnum != 0 && removal->errnum != EIO && removal->errnum != ETIMEDOUT &&
			removal->errnum != EAGAIN && removal->errnum != EINTR)
			settle(item, fail(removal->errnum, "could not delete file"));
	}
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
	if (item->marker == NULL && bucket_is_captured(versions))
		return versions->at - 1;
	if (item->marker == NULL)
		return item->made && bucket_hides_stranger(versions) ? 0 : -1;
	for (int i = 0; i < versions->n; i++)
		if (versions->entries[i].is_marker && strcmp(versions->entries[i].version, item->marker) == 0)
			return i;
	return -1;
}

/*
 * Verifies a capture: the expected version must lie right below the marker.
 * The item stays in hand if another version lies there, with the marker as
 * `version` to be removed; or, without a `version`, if there is no marker and
 * no marker will come later.
 */
static void
take_verified(void *arg, int ask, int errnum, const KeyVersions *versions)
{
	const Many *many = ((const Portion *) arg)->many;
	Item	   *item = item_of(arg, ask);
	int			at;

	item->version = NULL;
	if (errnum != 0)
	{
		settle(item, fail(errnum, "could not list versions of file"));
		return;
	}
	at = find_marker(item, versions);
	if (at >= 0 && versions->at == at + 1)
		settle(item, come_to(FILE_OK));
	else if (at >= 0)
	{
		item->outcome = at + 1 < versions->n && !versions->entries[at + 1].is_marker ?
			FILE_REPLACED : FILE_VANISHED;
		item->version = MemoryContextStrdup(many->context, versions->entries[at].version);
	}
	else if (item->marker != NULL || versions->at != 0 || bucket_is_doubtful(many->bucket, item->key))
		settle(item, fail(bucket_note(many->bucket, EIO, "the server has made no delete marker"), "could not delete file"));
}

static bool
pick_stranger(const Item *item, const char **version)
{
	*version = item->version;
	return item->in_hand && item->version != NULL;
}

static void
take_uncovered(Portion *portion)
{
	for (int i = 0; i < portion->n_removals; i++)
	{
		int			errnum = portion->removals[i].errnum;
		Item	   *item = item_of(portion, i);

		/* a busy server is asked again, and a lost lease is taken again */
		if (errnum == 0)
			settle(item, come_to(item->outcome));
		else if (!portion->removals[i].again && errnum != EBUSY)
			settle(item, fail(errnum, "could not put back file"));
	}
}

/* Gives this result to the items in hand that are no strangers. */
static void
fail_others(Many *many, FileResult result)
{
	for (int i = 0; i < many->n; i++)
		if (many->items[i].in_hand && many->items[i].version == NULL)
			settle(&many->items[i], result);
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
	FileResult	kept;
	const char *version;
	int			i;

	for (i = 0; i < many->n && !pick_stranger(&many->items[i], &version); i++)
		;
	if (i == many->n)
		return;
	kept = bucket_stay_leased(many->bucket);
	if (kept.outcome != FILE_OK)
	{
		fail_others(many, kept);
		kept = bucket_keep_lease(many->bucket);
	}
	if (kept.outcome == FILE_OK)
		(void) remove_all(many, pick_stranger, take_uncovered);
	for (; i < many->n; i++)
		if (many->items[i].in_hand && many->items[i].version != NULL)
			settle(&many->items[i], fail(EAGAIN, "could not put back file"));
}

/*
 * Hides the files that are left, all together, in several attempts if need be.
 */
static void
hide_left(Many *many)
{
	int			errnum = EIO;

	for (int try = 0; is_in_hand(many); try++)
	{
		if (try > MAX_TRIES)
			break;
		if (!bucket_rest(try))
		{
			errnum = bucket_note(many->bucket, EINTR, strerror(EINTR));
			break;
		}
		if (!go_on(many))
			return;
		check_null_versions(many);
		(void) remove_all(many, pick_left, take_marked);
		if (list_all(many, COVERED, take_verified) != 0)
			return;
		show_strangers(many);
	}
	fail_all(many, fail(errnum, "could not delete file"));
}

static void
hide_all(Many *many)
{
	static const Step steps[] = {
		{UNCOVERED, take_place},
		{0},					/* the manifest */
		{.pick = pick_unmarked,.take = take_marked},
		{COVERED, take_verified},
		{.pick = pick_stranger,.take = take_uncovered}
	};

	if (go_way(many, steps, lengthof(steps), "could not delete file") != 0)
		return;
	show_strangers(many);
	hide_left(many);
}

/* Destroys the items in hand in their place, because there is no trash. */
static void
destroy_in_place(Many *many)
{
	ConditionalDelete *files = palloc_extended(sizeof(ConditionalDelete) * many->n, MCXT_ALLOC_HUGE);
	int		   *numbers = palloc_extended(sizeof(int) * many->n, MCXT_ALLOC_HUGE);
	int			n = 0;

	for (int i = 0; i < many->n; i++)
	{
		const Item *item = &many->items[i];

		if (!item->in_hand)
			continue;
		numbers[n] = i;
		files[n++] = (ConditionalDelete)
		{
			.key = item->key,.etag = item->seen.etag,.modified = item->seen.modified
		};
	}
	bucket_delete_conditionally(many->bucket, files, n);
	for (int i = 0; i < n; i++)
	{
		Item	   *item = &many->items[numbers[i]];

		settle(item, files[i].result);
		many->condemned[item->number].destroyed = files[i].result.outcome == FILE_OK;
	}
}

static void
capture_all(Many *many, bool for_good)
{
	const FileResult no_trash = {FILE_FAILED, ENOTSUP, "could not back up file"};

	if (!many->bucket->conditional)
		hide_all(many);
	else if (list_all(many, UNCOVERED, take_place) != 0)
		return;
	else if (for_good)
		destroy_in_place(many);
	else
	{
		(void) bucket_note(many->bucket, ENOTSUP, "the bucket keeps no versions");
		fail_all(many, no_trash);
	}
}

/* Removes markers that a killed process has left above strangers. */
static void
mend(Many *many, int64 run_id)
{
	for (int i = 0; i < many->n; i++)
	{
		const Item *item = &many->items[i];
		StoreCondemned *file = &many->condemned[item->number];
		int			errnum;

		if (file->place != PLACE_UNFINISHED)
			continue;
		file->place = bucket_locate((FileStore *) many->bucket, run_id, item->path, item->expected,
									true, &errnum);
		if (file->place == PLACE_UNKNOWN)
			many->items[i].result = fail(errnum, "could not put back file");
	}
}

void
bucket_capture_many(FileStore *store, int64 run_id, StoreCondemned *files, int n, bool for_good)
{
	Many		many;

	if (n == 0)
		return;
	begin_many(&many, store, n);
	many.condemned = files;
	many.run_id = run_id;
	for (int i = 0; i < n; i++)
	{
		files[i].place = PLACE_UNKNOWN;
		files[i].destroyed = false;
		add_item(&many, files[i].path, files[i].expected);
	}
	qsort(many.items, n, sizeof(Item), compare_items);
	if (begin_change(&many))
	{
		capture_all(&many, for_good);
		mend(&many, run_id);
	}
	for (int i = 0; i < n; i++)
		files[many.items[i].number].result = many.items[i].result;
	end_many(&many);
}

FileResult
bucket_capture(FileStore *store, int64 run_id, const char *path, bool by_copy, const FileIdentity *expected)
{
	StoreCondemned file = {path,.expected = expected};

	bucket_capture_many(store, run_id, &file, 1, false);
	if (file.place == PLACE_UPLOAD || file.result.outcome == FILE_FAILED)
		return file.result;
	return come_to(file.place == PLACE_OTHER ? FILE_REPLACED : FILE_VANISHED);
}


/* ----------------------------------------------------------------- destroy --- */

/*
 * Finds the version to be removed; and its marker, if no other version lies
 * below.  Above an older version the marker stays: without the marker the
 * older version would be seen again.
 */
static void
take_doomed(void *arg, int ask, int errnum, const KeyVersions *versions)
{
	const Many *many = ((const Portion *) arg)->many;
	Item	   *item = item_of(arg, ask);
	bool		is_last = versions->n == versions->at + 1 && !versions->more;

	if (errnum != 0)
		settle(item, fail(errnum, "could not list versions of file"));

	/*
	 * a process that was killed after it removed the last version has left
	 * the marker
	 */
	else if (versions->n == 1 && versions->entries[0].is_marker)
	{
		settle(item, come_to(FILE_VANISHED));
		item->marker = MemoryContextStrdup(many->context, versions->entries[0].version);
	}
	else if (!bucket_is_captured(versions))
		settle(item, come_to(FILE_VANISHED));
	else
	{
		item->version = MemoryContextStrdup(many->context, versions->entries[versions->at].version);
		item->is_null = strcmp(item->version, "null") == 0;
		if (is_last)
			item->marker = MemoryContextStrdup(many->context, versions->entries[versions->at - 1].version);
	}
}

static bool
pick_doomed(const Item *item, const char **version)
{
	*version = item->version;
	return item->in_hand;
}

/* A file of version "null" is left for later: see check_null_versions(). */
static bool
pick_doomed_version(const Item *item, const char **version)
{
	return pick_doomed(item, version) && !item->is_null;
}

static void
take_destroyed(Portion *portion)
{
	for (int i = 0; i < portion->n_removals; i++)
	{
		const BucketRemoval *removal = &portion->removals[i];

		if (removal->errnum == 0)
			settle(item_of(portion, i), come_to(FILE_OK));

		/*
		 * a busy server is asked again, and the next drain finds that a file
		 * whose answer was lost is gone
		 */
		else if (!removal->again)
			settle(item_of(portion, i), fail(removal->errnum, "could not delete file"));
	}
}

/*
 * Picks the markers of versions that are gone.  A marker that stays does no
 * harm.
 */
static bool
pick_bare_marker(const Item *item, const char **version)
{
	*version = item->marker;
	return item->marker != NULL && !item->in_hand && item->result.outcome != FILE_FAILED;
}

static void
take_bared(Portion *portion)
{
	for (int i = 0; i < portion->n_removals; i++)
		if (!portion->removals[i].again)
			item_of(portion, i)->marker = NULL;
}

static void
destroy_all(Many *many)
{
	static const Step steps[] = {
		{COVERED, take_doomed},
		{.pick = pick_doomed_version,.take = take_destroyed},
		{.pick = pick_bare_marker,.take = take_bared}
	};

	if (go_way(many, steps, lengthof(steps), "could not delete file") != 0)
		return;
	if (is_in_hand(many) && go_on(many))
	{
		check_null_versions(many);
		fail_all(many, fail(remove_all(many, pick_doomed, take_destroyed) == EINTR ? EINTR : EAGAIN, "could not delete file"));
	}
	(void) remove_all(many, pick_bare_marker, take_bared);
}

StoreUnlinks *
bucket_destroy_begin(FileStore *store, int64 run_id, StoreDoomed *files, int n)
{
	Many		many;

	begin_many(&many, store, n);
	for (int i = 0; i < n; i++)
	{
		files[i].freed = 0;
		add_item(&many, files[i].path, files[i].expected);
	}
	qsort(many.items, n, sizeof(Item), compare_items);
	if (begin_change(&many))
		destroy_all(&many);
	for (int i = 0; i < n; i++)
	{
		StoreDoomed *file = &files[many.items[i].number];

		file->result = many.items[i].result;
		if (file->result.outcome == FILE_OK)
			file->freed = file->expected->size;
	}
	end_many(&many);
	return NULL;
}

FileResult
bucket_destroy(FileStore *store, int64 run_id, const char *path, const FileIdentity *expected, int64 *freed)
{
	StoreDoomed file = {path,.expected = expected};

	(void) bucket_destroy_begin(store, run_id, &file, 1);
	*freed = file.freed;
	return file.result;
}


/* ------------------------------------------------------------------ locate --- */

static void
take_located(void *arg, int ask, int errnum, const KeyVersions *versions)
{
	Item	   *item = item_of(arg, ask);
	const Many *many = ((const Portion *) arg)->many;

	if (errnum == 0)
		many->located[item->number].place = bucket_place_of(versions);
	settle(item, errnum == 0 ? come_to(FILE_OK) : fail(errnum, "could not list versions of file"));
}

void
bucket_locate_many(FileStore *store, int64 run_id, StoreLocated *files, int n)
{
	static const Step steps[] = {{COVERED, take_located}};
	Many		many;

	if (n == 0)
		return;
	begin_many(&many, store, n);
	many.located = files;
	for (int i = 0; i < n; i++)
	{
		files[i].place = PLACE_UNKNOWN;
		add_item(&many, files[i].path, files[i].expected);
	}
	qsort(many.items, n, sizeof(Item), compare_items);
	(void) go_way(&many, steps, lengthof(steps), "could not list versions of file");
	for (int i = 0; i < n; i++)
		files[many.items[i].number].errnum = many.items[i].result.errnum;
	end_many(&many);
}


/* ---------------------------------------------------------------- put back --- */

/*
 * Settles a file whose versions could not be listed.  But a file whose newest
 * version the server fails to show is odd, and is put back by itself.
 */
static void
settle_unlisted(Item *item, int errnum, const KeyVersions *versions)
{
	item->is_odd = versions->none_is_current;
	if (!item->is_odd)
		settle(item, fail(errnum, "could not list versions of file"));
}

/* Finds the one marker right above a file.  A file with more markers is odd, and is put back by itself. */
static void
take_hidden(void *arg, int ask, int errnum, const KeyVersions *versions)
{
	const Many *many = ((const Portion *) arg)->many;
	Item	   *item = item_of(arg, ask);

	if (item->is_odd)
		return;
	if (errnum != 0)
		settle_unlisted(item, errnum, versions);
	else if (!bucket_is_captured(versions))
		settle(item, come_to(FILE_VANISHED));
	else if (bucket_is_present(versions))
		settle(item, come_to(FILE_OCCUPIED));
	else if (versions->at > 1)
		item->is_odd = true;
	else
		item->version = MemoryContextStrdup(many->context, versions->entries[0].version);
}

static bool
pick_cover(const Item *item, const char **version)
{
	*version = item->version;
	return item->in_hand && !item->is_odd && item->version != NULL;
}

/*
 * Takes the results of a removal of markers.  A busy server is asked again.
 * An item whose marker is gone has no `version` any more.
 */
static void
take_shown(Portion *portion)
{
	for (int i = 0; i < portion->n_removals; i++)
	{
		const BucketRemoval *removal = &portion->removals[i];
		Item	   *item = item_of(portion, i);

		if (removal->errnum == 0)
			item->version = NULL;
		else if (!removal->again)
			settle(item, fail(removal->errnum, "could not put back file"));
	}
}

static void
take_seen(void *arg, int ask, int errnum, const KeyVersions *versions)
{
	Item	   *item = item_of(arg, ask);

	if (item->is_odd || item->version != NULL)
		return;
	if (errnum != 0)
		settle_unlisted(item, errnum, versions);
	else if (versions->at == 0)
		settle(item, come_to(FILE_OK));
	else if (versions->at < 0)
		settle(item, come_to(FILE_VANISHED));
	else if (bucket_is_present(versions))
		settle(item, come_to(FILE_OCCUPIED));
	else
		item->is_odd = true;
}

static void
show_all(Many *many)
{
	static const Step steps[] = {
		{COVERED, take_hidden},
		{.pick = pick_cover,.take = take_shown},
		{UNCOVERED, take_seen}
	};

	const char *version;
	int			i;

	if (go_way(many, steps, lengthof(steps), "could not put back file") != 0)
		return;
	for (i = 0; i < many->n && !pick_cover(&many->items[i], &version); i++)
		;
	if (i == many->n || !go_on(many))
		return;
	(void) remove_all(many, pick_cover, take_shown);
	(void) list_all(many, UNCOVERED, take_seen);
}

/* Puts odd files back, one after the other. */
static void
put_back_odd(Many *many, int64 run_id, const StoreReturned *files)
{
	for (int i = 0; i < many->n; i++)
	{
		Item	   *item = &many->items[i];
		const StoreReturned *file = &files[item->number];

		if (!item->in_hand)
			continue;
		settle(item, item->is_odd ?
			   bucket_put_back((FileStore *) many->bucket, run_id, file->path, file->as, file->expected) :
			   fail(EAGAIN, "could not put back file"));
		if (item->result.errnum == EINTR)
			fail_all(many, item->result);
	}
}

void
bucket_put_back_many(FileStore *store, int64 run_id, StoreReturned *files, int n)
{
	Many		many;

	if (n == 0)
		return;
	begin_many(&many, store, n);
	for (int i = 0; i < n; i++)
	{
		add_item(&many, files[i].path, files[i].expected);
		many.items[i].is_odd = strcmp(files[i].path, files[i].as) != 0;
	}
	qsort(many.items, n, sizeof(Item), compare_items);
	if (begin_change(&many))
		show_all(&many);
	put_back_odd(&many, run_id, files);
	for (int i = 0; i < n; i++)
		files[many.items[i].number].result = many.items[i].result;
	end_many(&many);
}
