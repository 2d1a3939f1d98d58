/*-------------------------------------------------------------------------
 *
 * store/bucket/many.c
 *	  Looks at, captures and destroys many files of a bucket at a time.
 *
 * bucket.h says what happens to each file.  Here the requests are those of many
 * files: the versions of all are read first, then all markers are made, and the
 * versions of all are read again.  If that is cut short, each file is in a
 * state of its own, which bucket_locate() tells.
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

/* One file of many. */
typedef struct Item
{
	char	   *key;			/* with the prefix; NULL: `result` says why */
	const char *path;
	const FileIdentity *expected;	/* or NULL */
	int			number;			/* index in the caller's array */
	FileResult	result;
	bool		in_hand;		/* something is still to be done */
	const char *version;		/* version or marker to be removed; before a
								 * capture: "null", see check_null_versions() */
	const char *marker;			/* marker that we have made, NULL: unknown; or
								 * that is to be removed */
	bool		made;			/* a marker was made, though we may not know
								 * its id */
	FileOutcome outcome;		/* outcome when `version` is removed */
	const char *etag;			/* without versions: ETag, */
	int64		modified;		/* and date, seconds since 1970 */
} Item;

typedef struct Many
{
	Bucket	   *bucket;
	MemoryContext context;		/* has all of this */
	MemoryContext caller;
	Item	   *items;			/* sorted by key */
	int			n;
	int		   *asked;			/* indexes of the items that are listed */
	StoreCondemned *condemned;	/* of a capture */
} Many;


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
	many->asked = palloc_extended(sizeof(int) * n, MCXT_ALLOC_HUGE);
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

/* Gives all files that are still in hand this result. */
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

/* Gives the item its result: nothing is to be done any more. */
static void
settle(Item *item, FileResult result)
{
	item->result = result;
	item->in_hand = false;
}

/* Takes or renews the lease before a change.  Returns false, and fails all files, if that is not possible. */
static bool
begin_change(Many *many)
{
	FileResult	result = bucket_keep_lease(many->bucket);

	if (result.outcome != FILE_OK)
		fail_all(many, result);
	return result.outcome == FILE_OK;
}

/*
 * Lists the versions of all files in hand.  The sink gets `many`, and the
 * number that item_of_ask() takes.  Returns 0; or an errno, and fails all files.
 */
static int
list_all(Many *many, VersionsSink sink)
{
	VersionsAsk *asks = palloc_extended(sizeof(VersionsAsk) * many->n, MCXT_ALLOC_HUGE);
	int			n = 0;
	int			errnum;

	for (int i = 0; i < many->n; i++)
	{
		Item	   *item = &many->items[i];

		if (!item->in_hand)
			continue;
		asks[n] = (VersionsAsk)
		{
			item->key, item->expected
		};
		many->asked[n++] = i;
	}
	errnum = bucket_list_many(many->bucket, asks, n, sink, many);
	pfree(asks);
	if (errnum != 0)
		fail_all(many, fail(errnum, "could not list versions of file"));
	return errnum;
}

static Item *
item_of_ask(const Many *many, int ask)
{
	return &many->items[many->asked[ask]];
}


/* ---------------------------------------------------------------- identity --- */

static void
take_identity(void *arg, int ask, int errnum, const KeyVersions *versions)
{
	Many	   *many = arg;
	Item	   *item = item_of_ask(many, ask);
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
	/* if an interrupt is pending, the caller serves it */
	(void) list_all(&many, take_identity);
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


/* ----------------------------------------------------------------- removal --- */

/* Removals, and the indexes of their items. */
typedef struct Removals
{
	BucketRemoval *list;
	int		   *items;
	int			n;
} Removals;

static void
begin_removals(const Many *many, Removals *removals)
{
	removals->list = palloc_extended(sizeof(BucketRemoval) * many->n, MCXT_ALLOC_HUGE);
	removals->items = palloc_extended(sizeof(int) * many->n, MCXT_ALLOC_HUGE);
	removals->n = 0;
}

static void
add_removal(const Many *many, Removals *removals, int i, const char *version)
{
	removals->items[removals->n] = i;
	removals->list[removals->n++] = (BucketRemoval)
	{
		.key = many->items[i].key,.version = version
	};
}

/* Removes the `version` of all files in hand.  Settles those that fail, with this failure. */
static void
remove_versions(Many *many, const char *failure)
{
	Removals	removals;
	int			errnum;

	begin_removals(many, &removals);
	for (int i = 0; i < many->n; i++)
		if (many->items[i].in_hand)
			add_removal(many, &removals, i, many->items[i].version);
	errnum = bucket_remove_many(many->bucket, removals.list, removals.n, true);
	for (int i = 0; i < removals.n; i++)
	{
		Item	   *item = &many->items[removals.items[i]];

		if (removals.list[i].errnum != 0)
			settle(item, fail(errnum ? errnum : removals.list[i].errnum, failure));
	}
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

/* Finds out where a condemned file is; it stays in hand if it is to be captured. */
static void
take_place(void *arg, int ask, int errnum, const KeyVersions *versions)
{
	Many	   *many = arg;
	Item	   *item = item_of_ask(many, ask);
	StoreCondemned *file = &many->condemned[item->number];

	if (errnum != 0)
	{
		settle(item, fail(errnum, "could not list versions of file"));
		return;
	}
	if (versions->at == 0)
	{
		file->place = PLACE_UPLOAD;
		item->version = strcmp(versions->entries[0].version, "null") == 0 ? "null" : NULL;
		if (many->bucket->conditional)
		{
			item->etag = MemoryContextStrdup(many->context, versions->entries[0].etag);
			item->modified = versions->entries[0].modified;
		}
		return;
	}
	if (bucket_is_captured(versions))
		file->place = PLACE_TRASH;
	else if (bucket_hides_stranger(versions))
		file->place = PLACE_UNFINISHED;
	else
		file->place = bucket_is_present(versions) ? PLACE_OTHER : PLACE_NOWHERE;
	settle(item, come_to(FILE_OK));
}

/*
 * In a bucket that keeps versions no more, a marker would replace the version
 * "null", for good.  So if files have such a version, the bucket is asked right
 * before whether it keeps versions.
 */
static void
check_null_versions(Many *many)
{
	FileResult	result = come_to(FILE_OK);
	int			errnum;
	int			i;

	for (i = 0; i < many->n; i++)
		if (many->items[i].in_hand && many->items[i].version != NULL)
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
		if (many->items[i].in_hand && many->items[i].version != NULL)
			settle(&many->items[i], result);
}

/* Makes the markers of all files in hand.  Those that the server has not refused stay in hand, to be verified. */
static void
make_markers(Many *many)
{
	Removals	removals;

	begin_removals(many, &removals);
	for (int i = 0; i < many->n; i++)
		if (many->items[i].in_hand)
			add_removal(many, &removals, i, NULL);

	/*
	 * if the call was stopped, the next drain looks at what was on its way
	 */
	(void) bucket_remove_many(many->bucket, removals.list, removals.n, true);
	for (int i = 0; i < removals.n; i++)
	{
		const BucketRemoval *removal = &removals.list[i];
		Item	   *item = &many->items[removals.items[i]];

		item->marker = removal->marker;
		item->made = removal->errnum == 0;
		if (removal->is_doubtful)
			doubt(many->bucket, item->key);
		if (removal->errnum != 0 && removal->errnum != EIO && removal->errnum != ETIMEDOUT &&
			removal->errnum != EAGAIN)
			settle(item, fail(removal->errnum, "could not delete file"));
	}
}

/*
 * Returns the index of the marker that we have made, or -1.  If its id is not
 * known, because Swift tells no ids, it is the marker above the expected file,
 * if any; or the only one above a stranger, if a marker was made.
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
 * none will come later.
 */
static void
take_verified(void *arg, int ask, int errnum, const KeyVersions *versions)
{
	Many	   *many = arg;
	Item	   *item = item_of_ask(many, ask);
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

/* Removes the markers above strangers, and settles these.  Returns how many files have no marker yet. */
static int
uncover_strangers(Many *many)
{
	int			left = 0;

	for (int i = 0; i < many->n; i++)
	{
		Item	   *item = &many->items[i];
		int			errnum;

		if (!item->in_hand)
			continue;
		if (item->version == NULL)
		{
			left++;
			continue;
		}
		errnum = bucket_remove_version(many->bucket, item->key, item->version);
		settle(item, errnum == 0 ? come_to(item->outcome) : fail(errnum, "could not put back file"));
	}
	return left;
}

/* Captures all files in hand by markers, and verifies them. */
static void
hide_all(Many *many)
{
	int			errnum = EIO;

	for (int try = 0;; try++)
	{
		/* the lists may have taken long */
		if (!begin_change(many))
			return;
		make_markers(many);
		if (list_all(many, take_verified) != 0 || uncover_strangers(many) == 0)
			return;
		if (try == MAX_TRIES)
			break;
		if (!bucket_rest(try))
		{
			errnum = bucket_note(many->bucket, EINTR, strerror(EINTR));
			break;
		}
	}
	fail_all(many, fail(errnum, "could not delete file"));
}

/* Destroys all files in hand at their place, because there is no trash. */
static void
destroy_in_place(Many *many)
{
	ConditionalDelete *files = palloc_extended(sizeof(ConditionalDelete) * many->n, MCXT_ALLOC_HUGE);
	int			n = 0;

	for (int i = 0; i < many->n; i++)
	{
		const Item *item = &many->items[i];

		if (!item->in_hand)
			continue;
		many->asked[n] = i;
		files[n++] = (ConditionalDelete)
		{
			.key = item->key,.etag = item->etag,.modified = item->modified
		};
	}
	bucket_delete_conditionally(many->bucket, files, n);
	for (int i = 0; i < n; i++)
	{
		Item	   *item = &many->items[many->asked[i]];

		settle(item, files[i].result);
		many->condemned[item->number].destroyed = files[i].result.outcome == FILE_OK;
	}
}

static void
capture_all(Many *many, bool for_good)
{
	const FileResult no_trash = {FILE_FAILED, ENOTSUP, "could not back up file"};

	if (!many->bucket->conditional)
	{
		check_null_versions(many);
		hide_all(many);
	}
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
	for (int i = 0; i < n; i++)
	{
		files[i].place = PLACE_UNKNOWN;
		files[i].destroyed = false;
		add_item(&many, files[i].path, files[i].expected);
	}
	qsort(many.items, n, sizeof(Item), compare_items);
	if (begin_change(&many) && list_all(&many, take_place) == 0)
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
 * below.  Above an older version the marker stays: without the marker that
 * version would be seen again.
 */
static void
take_doomed(void *arg, int ask, int errnum, const KeyVersions *versions)
{
	Many	   *many = arg;
	Item	   *item = item_of_ask(many, ask);
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
		if (is_last)
			item->marker = MemoryContextStrdup(many->context, versions->entries[versions->at - 1].version);
	}
}

/* Removes the markers of versions that are gone.  A marker that stays does no harm. */
static void
remove_markers(Many *many)
{
	Removals	removals;

	begin_removals(many, &removals);
	for (int i = 0; i < many->n; i++)
	{
		const Item *item = &many->items[i];

		if (item->marker != NULL && item->result.outcome != FILE_FAILED)
			add_removal(many, &removals, i, item->marker);
	}
	(void) bucket_remove_many(many->bucket, removals.list, removals.n, true);
}

void
bucket_destroy_many(FileStore *store, int64 run_id, StoreDoomed *files, int n)
{
	Many		many;

	begin_many(&many, store, n);
	for (int i = 0; i < n; i++)
	{
		files[i].freed = 0;
		add_item(&many, files[i].path, files[i].expected);
	}
	qsort(many.items, n, sizeof(Item), compare_items);
	if (begin_change(&many) && list_all(&many, take_doomed) == 0 && begin_change(&many))
	{
		remove_versions(&many, "could not delete file");
		for (int i = 0; i < n; i++)
			if (many.items[i].in_hand)
				settle(&many.items[i], come_to(FILE_OK));
		remove_markers(&many);
	}
	for (int i = 0; i < n; i++)
	{
		StoreDoomed *file = &files[many.items[i].number];

		file->result = many.items[i].result;
		if (file->result.outcome == FILE_OK)
			file->freed = file->expected->size;
	}
	end_many(&many);
}

FileResult
bucket_destroy(FileStore *store, int64 run_id, const char *path, const FileIdentity *expected, int64 *freed)
{
	StoreDoomed file = {path,.expected = expected};

	bucket_destroy_many(store, run_id, &file, 1);
	*freed = file.freed;
	return file.result;
}
