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
	StoreFile  *file;			/* its outcome is set when the item is settled */
	char	   *key;			/* with the prefix */
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
	int64		run_id;
	StoreFile  *files;
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
	item->file->result = result;
	item->in_hand = false;
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
	item->in_hand = true;
	if (errnum != 0)
		settle(item, fail(errnum, "could not accept path"));
}

static void
begin_many(Many *many, FileStore *store, int64 run_id, StoreFile *files, int n)
{
	memset(many, 0, sizeof(*many));
	many->bucket = bucket_of(store);
	many->run_id = run_id;
	many->context = AllocSetContextCreate(many->bucket->context, "audio_cleanup files", ALLOCSET_DEFAULT_SIZES);
	many->caller = MemoryContextSwitchTo(many->context);
	many->files = files;
	many->n = n;
	many->items = palloc_extended(sizeof(Item) * Max(n, 1), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < n; i++)
		begin_item(many, &many->items[i], &files[i]);
	qsort(many->items, n, sizeof(Item), compare_items);
}

static void
end_many(Many *many)
{
	MemoryContextSwitchTo(many->caller);
	MemoryContextDelete(many->context);
}

/*
 * Returns whether the item is one of those that a step, or a result, is for.
 * For a removal, sets *version to the id of the version to be removed, or
 * leaves NULL for a new marker.
 */
typedef bool (*Pick) (const Item *item, const char **version);

static bool
pick_in_hand(const Item *item, const char **version)
{
	return item->in_hand;
}

static bool
is_any(const Many *many, Pick pick)
{
	const char *version;

	for (int i = 0; i < many->n; i++)
		if (pick(&many->items[i], &version))
			return true;
	return false;
}

/* Gives this result to all items that are picked. */
static void
settle_all(Many *many, Pick pick, FileResult result)
{
	const char *version;

	for (int i = 0; i < many->n; i++)
		if (pick(&many->items[i], &version))
			settle(&many->items[i], result);
}

/*
 * Returns whether there is the lease that a change needs, by the result of
 * taking or keeping the lease.  Without the lease, the items in hand fail.
 */
static bool
is_leased(Many *many, FileResult lease)
{
	if (lease.outcome != FILE_OK)
		settle_all(many, pick_in_hand, lease);
	return lease.outcome == FILE_OK;
}


/* ------------------------------------------------------------------- steps --- */

/*
 * A step that items go through: their versions are listed, and look() gets the
 * versions of each; or versions are removed and markers made, and take() gets
 * the outcome of each; or, without the two functions, the manifest is written.
 */
typedef struct Step
{
	Pick		pick;
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
	BucketCalls calls;
	BucketManifest *manifest;	/* NULL: no manifest is being written */
	BucketRemoving *removing;	/* NULL: no removal is under way */
	BucketRemoval *removals;
} Portion;

static Item *
item_of(const Portion *portion, int number)
{
	return &portion->many->items[portion->numbers[number]];
}

/*
 * Picks the items that the step is for, with their removals if the step is one.
 * Returns their number.
 */
static int
pick_items(Portion *portion, const Step *step)
{
	portion->step = step;
	portion->n_picked = 0;
	portion->numbers = palloc_extended(sizeof(int) * Max(portion->n, 1), MCXT_ALLOC_HUGE);
	portion->removals = palloc_extended(sizeof(BucketRemoval) * Max(portion->n, 1), MCXT_ALLOC_HUGE);
	for (int i = portion->first; i < portion->first + portion->n; i++)
	{
		const char *version = NULL;

		if (!step->pick(&portion->many->items[i], &version))
			continue;
		portion->removals[portion->n_picked] = (BucketRemoval)
		{
			.key = portion->many->items[i].key,.version = version
		};
		portion->numbers[portion->n_picked++] = i;
	}
	return portion->n_picked;
}

/*
 * Takes the versions of an item.  A file that is to be put back, and whose
 * newest version the server fails to show, is odd.
 */
static void
take_versions(void *arg, int ask, int errnum, const KeyVersions *versions)
{
	const Portion *portion = arg;
	Item	   *item = item_of(portion, ask);

	if (errnum == 0)
		portion->step->look(portion->many, item, versions);
	else if (portion->many->puts_back && versions->none_is_current)
		item->is_odd = true;
	else
		settle(item, fail(errnum, "could not list versions of file"));
}

static void
begin_listing(Portion *portion)
{
	VersionsAsk *asks = palloc_extended(sizeof(VersionsAsk) * portion->n_picked, MCXT_ALLOC_HUGE);

	for (int i = 0; i < portion->n_picked; i++)
		asks[i] = (VersionsAsk)
	{
		item_of(portion, i)->key, item_of(portion, i)->file->expected
	};
	portion->calls = bucket_list_many(portion->many->bucket, asks, portion->n_picked, portion->step->per_key,
									  take_versions, portion);
}

static void
begin_manifest(Portion *portion)
{
	ManifestFile *files = palloc(sizeof(ManifestFile) * portion->n_picked);

	for (int i = 0; i < portion->n_picked; i++)
		files[i] = item_of(portion, i)->seen;
	portion->manifest = bucket_begin_manifest(portion->many->bucket, portion->many->run_id, files, portion->n_picked,
											  &portion->calls);
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
	for (int i = 0; i < portion->n_picked && errnum != 0; i++)
		settle(item_of(portion, i), fail(errnum, "could not write manifest"));
}

static void
pass_removals(const Portion *portion)
{
	for (int i = 0; i < portion->n_picked; i++)
		portion->step->take(portion->many, item_of(portion, i), &portion->removals[i]);
}

/* Begins a step of the portion.  Returns false if the step is for none of its items. */
static bool
enter_step(Portion *portion, const Step *step)
{
	MemoryContext caller;
	bool		begun;

	if (portion->context == NULL)
		portion->context = AllocSetContextCreate(portion->many->context, "audio_cleanup step of files",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(portion->context);
	caller = MemoryContextSwitchTo(portion->context);
	begun = pick_items(portion, step) > 0;
	if (begun && step->look != NULL)
		begin_listing(portion);
	else if (begun && step->take == NULL)
		begin_manifest(portion);
	else if (begun)
		portion->removing = bucket_begin_removing(portion->many->bucket, portion->removals, portion->n_picked,
												  &portion->calls);
	MemoryContextSwitchTo(caller);
	return begun;
}

/* Ends the step that was begun, if any. */
static void
leave_step(Portion *portion, int errnum)
{
	if (portion->manifest != NULL)
		end_manifest(portion);
	else if (portion->removing != NULL)
	{
		bucket_end_removing(portion->removing, errnum);
		portion->removing = NULL;
		pass_removals(portion);
	}
}

static bool
advance(void *arg, int number, BucketCalls *calls)
{
	const Many *many = arg;
	Portion    *portion = &many->portions[number];

	leave_step(portion, 0);
	while (portion->n_begun < many->n_steps)
		if (enter_step(portion, &many->steps[portion->n_begun++]))
		{
			*calls = portion->calls;
			return true;
		}
	MemoryContextReset(portion->context);
	return false;
}

/*
 * Leads all items through these steps, in portions.  Returns 0; or an errno,
 * which then is the result of the items that are still in hand.
 */
static int
go_way(Many *many, const Step *steps, int n_steps, const char *action)
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
	for (int i = 0; i < n && errnum != 0; i++)
		leave_step(&many->portions[i], errnum);
	if (errnum != 0)
		settle_all(many, pick_in_hand, fail(errnum, action));
	return errnum;
}

/*
 * Takes one step with all items together.  Removals that a busy server has not
 * made are tried again.  Returns 0 or an errno: if the versions could not be
 * listed, it is the result of the items in hand.
 */
static int
take_step(Many *many, const Step *step)
{
	Portion		all = {.many = many,.n = many->n};
	int			errnum;

	if (step->look == NULL)
	{
		if (pick_items(&all, step) == 0)
			return 0;
		errnum = bucket_remove_many(many->bucket, all.removals, all.n_picked);
		pass_removals(&all);
		return errnum;
	}
	errnum = enter_step(&all, step) ? bucket_call_many(many->bucket, &all.calls) : 0;
	if (errnum != 0)
		settle_all(many, pick_in_hand, fail(errnum, "could not list versions of file"));
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
	bucket_identify_entry(&versions->entries[0], &many->bucket->expected[item->file - many->files].identity);
	settle(item, come_to(FILE_OK));
}

static int
compare_expected(const void *a, const void *b)
{
	return strcmp(((const ExpectedFile *) a)->path, ((const ExpectedFile *) b)->path);
}

void
bucket_expect(FileStore *store, const char *const *paths, int n)
{
	static const Step step = {pick_in_hand, UNCOVERED, take_identity};
	Bucket	   *bucket = bucket_of(store);
	StoreFile  *files;
	Many		many;

	if (bucket->expected != NULL)
		pfree(bucket->expected);
	bucket->expected = NULL;
	bucket->n_expected = 0;
	if (n == 0)
		return;
	bucket->expected = MemoryContextAllocExtended(bucket->context, sizeof(ExpectedFile) * n,
												  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	files = palloc_extended(sizeof(StoreFile) * n, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < n; i++)
		files[i].path = paths[i];
	begin_many(&many, store, 0, files, n);
	/* EINTR only tells of a pending interrupt, which the caller will serve */
	(void) take_step(&many, &step);
	end_many(&many);
	for (int i = 0; i < n; i++)
	{
		bucket->expected[i].path = paths[i];
		bucket->expected[i].result = files[i].result;
	}
	pfree(files);
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
		HASHCTL		control = {.keysize = sizeof(uint64),.entrysize = sizeof(uint64),.hcxt = bucket->context};

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
take_condemned(Many *many, Item *item, const KeyVersions *versions)
{
	const BucketEntry *newest = &versions->entries[0];

	item->file->place = bucket_place_of(versions);
	if (item->file->place != PLACE_UPLOAD)
	{
		settle(item, come_to(FILE_OK));
		return;
	}
	item->is_null = strcmp(newest->version, "null") == 0;
	item->seen = (ManifestFile)
	{
		.path = item->file->path,
			.version = MemoryContextStrdup(many->context, newest->version),
			.etag = MemoryContextStrdup(many->context, newest->etag),
			.size = newest->size,
			.modified = newest->modified
	};
}

static bool
pick_null(const Item *item, const char **version)
{
	return item->in_hand && item->is_null;
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

	if (!is_any(many, pick_null))
		return;
	errnum = bucket_reach((FileStore *) many->bucket);
	if (errnum == 0 && !many->bucket->enabled)
		errnum = bucket_note(many->bucket, ENOTSUP, "the bucket keeps no versions");
	if (errnum != 0)
		settle_all(many, pick_null, fail(errnum, "could not delete safely"));
}

/* A file of version "null" is left for later, because the bucket is asked right before its removal. */
static bool
pick_unmarked(const Item *item, const char **version)
{
	return item->in_hand && !item->is_null;
}

/*
 * Items whose markers the server did not refuse stay in hand, to be verified.  Requests
 * that were on their way when the drain was asked to stop are left to the next drain.
 */
static void
take_marked(Many *many, Item *item, const BucketRemoval *removal)
{
	item->marker = removal->marker;
	item->made = removal->errnum == 0;
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
take_verified(Many *many, Item *item, const KeyVersions *versions)
{
	int			at = find_marker(item, versions);

	item->version = NULL;
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

static bool
pick_no_stranger(const Item *item, const char **version)
{
	return item->in_hand && item->version == NULL;
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
	static const Step step = {pick_stranger,.take = take_uncovered};
	FileResult	kept;

	if (!is_any(many, pick_stranger))
		return;
	kept = bucket_stay_leased(many->bucket);
	if (kept.outcome != FILE_OK)
	{
		settle_all(many, pick_no_stranger, kept);
		kept = bucket_keep_lease(many->bucket);
	}
	if (kept.outcome == FILE_OK)
		(void) take_step(many, &step);
	settle_all(many, pick_stranger, fail(EAGAIN, "could not put back file"));
}

/*
 * Hides the files that are left, all together, in several attempts if need be.
 */
static void
hide_left(Many *many)
{
	static const Step mark = {pick_in_hand,.take = take_marked};
	static const Step verify = {pick_in_hand, COVERED, take_verified};
	int			errnum = EIO;

	for (int try = 0; try <= MAX_TRIES && is_any(many, pick_in_hand); try++)
	{
		if (!bucket_rest(try))
		{
			errnum = bucket_note(many->bucket, EINTR, NULL);
			break;
		}
		if (!is_leased(many, bucket_stay_leased(many->bucket)))
			return;
		check_null_versions(many);
		(void) take_step(many, &mark);
		if (take_step(many, &verify) != 0)
			return;
		show_strangers(many);
	}
	settle_all(many, pick_in_hand, fail(errnum, "could not delete file"));
}

static void
hide_all(Many *many)
{
	static const Step steps[] = {
		{pick_in_hand, UNCOVERED, take_condemned},
		{pick_in_hand},			/* the manifest */
		{pick_unmarked,.take = take_marked},
		{pick_in_hand, COVERED, take_verified},
		{pick_stranger,.take = take_uncovered}
	};

	if (go_way(many, steps, lengthof(steps), "could not delete file") != 0)
		return;
	show_strangers(many);
	hide_left(many);
}

/* Destroys the items in hand in their place, because there is no trash. */
static void
destroy_unversioned(Many *many)
{
	static const Step step = {pick_in_hand};
	Portion		all = {.many = many,.n = many->n};
	int			n = pick_items(&all, &step);
	ConditionalDelete *files = palloc_extended(sizeof(ConditionalDelete) * Max(n, 1), MCXT_ALLOC_HUGE);

	for (int i = 0; i < n; i++)
	{
		const Item *item = item_of(&all, i);

		files[i] = (ConditionalDelete)
		{
			.key = item->key,.etag = item->seen.etag,.modified = item->seen.modified
		};
	}
	bucket_delete_conditionally(many->bucket, files, n);
	for (int i = 0; i < n; i++)
	{
		settle(item_of(&all, i), files[i].result);
		item_of(&all, i)->file->destroyed = files[i].result.outcome == FILE_OK;
	}
}

static void
capture_all(Many *many, bool for_good)
{
	static const Step step = {pick_in_hand, UNCOVERED, take_condemned};

	if (!many->bucket->conditional)
		hide_all(many);
	else if (take_step(many, &step) != 0)
		return;
	else if (for_good)
		destroy_unversioned(many);
	else
		settle_all(many, pick_in_hand, fail(bucket_note(many->bucket, ENOTSUP, "the bucket keeps no versions"),
											"could not back up file"));
}

/* Removes markers that a killed process has left above strangers. */
static void
mend(Many *many)
{
	for (int i = 0; i < many->n; i++)
	{
		StoreFile  *file = many->items[i].file;
		int			errnum;

		if (file->place != PLACE_UNFINISHED)
			continue;
		file->place = bucket_locate((FileStore *) many->bucket, many->run_id, file->path, file->expected, true, &errnum);
		if (file->place == PLACE_UNKNOWN)
			file->result = fail(errnum, "could not put back file");
	}
}

void
bucket_capture_many(FileStore *store, int64 run_id, StoreFile *files, int n, bool for_good)
{
	Many		many;

	if (n == 0)
		return;
	begin_many(&many, store, run_id, files, n);
	if (is_leased(&many, bucket_keep_lease(many.bucket)))
	{
		capture_all(&many, for_good);
		mend(&many);
	}
	end_many(&many);
}


/* ----------------------------------------------------------------- destroy --- */

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

/*
 * A busy server is asked again, and the next drain finds that a file whose
 * answer was lost is gone.
 */
static void
take_destroyed(Many *many, Item *item, const BucketRemoval *removal)
{
	if (removal->errnum == 0)
	{
		settle(item, come_to(FILE_OK));
		item->file->freed = item->file->expected->size;
	}
	else if (!removal->again)
		settle(item, fail(removal->errnum, "could not delete file"));
}

/*
 * Picks the markers of versions that are gone.  A marker that stays does no
 * harm.
 */
static bool
pick_bare_marker(const Item *item, const char **version)
{
	*version = item->marker;
	return item->marker != NULL && !item->in_hand && item->file->result.outcome != FILE_FAILED;
}

static void
take_bared(Many *many, Item *item, const BucketRemoval *removal)
{
	if (!removal->again)
		item->marker = NULL;
}

static void
destroy_all(Many *many)
{
	static const Step steps[] = {
		{pick_in_hand, COVERED, take_doomed},
		{pick_doomed_version,.take = take_destroyed},
		{pick_bare_marker,.take = take_bared}
	};
	static const Step again = {pick_doomed,.take = take_destroyed};

	if (go_way(many, steps, lengthof(steps), "could not delete file") != 0)
		return;
	if (is_any(many, pick_in_hand) && is_leased(many, bucket_stay_leased(many->bucket)))
	{
		check_null_versions(many);
		settle_all(many, pick_in_hand, fail(take_step(many, &again) == EINTR ? EINTR : EAGAIN, "could not delete file"));
	}
	(void) take_step(many, &steps[2]);
}

StoreUnlinks *
bucket_destroy_begin(FileStore *store, int64 run_id, StoreFile *files, int n)
{
	Many		many;

	begin_many(&many, store, run_id, files, n);
	if (is_leased(&many, bucket_keep_lease(many.bucket)))
		destroy_all(&many);
	end_many(&many);
	return NULL;
}


/* ------------------------------------------------------------------ locate --- */

static void
take_located(Many *many, Item *item, const KeyVersions *versions)
{
	item->file->place = bucket_place_of(versions);
	settle(item, come_to(FILE_OK));
}

void
bucket_locate_many(FileStore *store, int64 run_id, StoreFile *files, int n)
{
	static const Step steps[] = {{pick_in_hand, COVERED, take_located}};
	Many		many;

	if (n == 0)
		return;
	begin_many(&many, store, run_id, files, n);
	(void) go_way(&many, steps, lengthof(steps), "could not list versions of file");
	end_many(&many);
}


/* ---------------------------------------------------------------- put back --- */

/* An odd item is not looked at: the file is put back by itself. */
static bool
pick_even(const Item *item, const char **version)
{
	return item->in_hand && !item->is_odd;
}

/* Finds the one marker right above a file.  A file with more markers is odd, and is put back by itself. */
static void
take_hidden(Many *many, Item *item, const KeyVersions *versions)
{
	if (!bucket_is_captured(versions))
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
 * Takes the result of a removal of a marker.  A busy server is asked again.
 * An item whose marker is gone has no `version` any more.
 */
static void
take_shown(Many *many, Item *item, const BucketRemoval *removal)
{
	if (removal->errnum == 0)
		item->version = NULL;
	else if (!removal->again)
		settle(item, fail(removal->errnum, "could not put back file"));
}

static bool
pick_uncovered(const Item *item, const char **version)
{
	return item->in_hand && !item->is_odd && item->version == NULL;
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
		item->is_odd = true;
}

static void
show_all(Many *many)
{
	static const Step steps[] = {
		{pick_even, COVERED, take_hidden},
		{pick_cover,.take = take_shown},
		{pick_uncovered, UNCOVERED, take_seen}
	};

	if (go_way(many, steps, lengthof(steps), "could not put back file") != 0 ||
		!is_any(many, pick_cover) || !is_leased(many, bucket_stay_leased(many->bucket)))
		return;
	(void) take_step(many, &steps[1]);
	(void) take_step(many, &steps[2]);
}

/* Puts odd files back, one after the other. */
static void
put_back_odd(Many *many)
{
	for (int i = 0; i < many->n; i++)
	{
		Item	   *item = &many->items[i];
		const StoreFile *file = item->file;

		if (!item->in_hand)
			continue;
		settle(item, item->is_odd ?
			   bucket_put_back_as((FileStore *) many->bucket, many->run_id, file->path, file->as, file->expected) :
			   fail(EAGAIN, "could not put back file"));
		if (file->result.errnum == EINTR)
			settle_all(many, pick_in_hand, file->result);
	}
}

void
bucket_put_back_many(FileStore *store, int64 run_id, StoreFile *files, int n)
{
	Many		many;

	if (n == 0)
		return;
	begin_many(&many, store, run_id, files, n);
	many.puts_back = true;
	for (int i = 0; i < n; i++)
		many.items[i].is_odd = strcmp(many.items[i].file->path, many.items[i].file->as) != 0;
	if (is_leased(&many, bucket_keep_lease(many.bucket)))
		show_all(&many);
	put_back_odd(&many);
	end_many(&many);
}
