/*-------------------------------------------------------------------------
 *
 * store/bucket/versions.c
 *	  Lists the versions of keys, and finds the expected file among the
 *	  versions.
 *
 * The versions of one key are asked for by the key.  The versions of many keys
 * are read page by page, because a list is in the order of keys: a page begins
 * right before the next wanted key.  Several ranges of keys are read side by
 * side.  A key that its page does not have is asked for by its name, before
 * the file counts as gone.  If few of the entries of a page are wanted, other
 * keys of the range are asked for one by one, too: for a server, a page of a
 * thousand entries is as much work as six such requests, and a page of ten
 * entries is hardly less work.
 *
 * A file is identified by its version id, which the server gives only once,
 * together with its ETag and time.  ETag and time are needed because all files
 * that are written while a bucket keeps no versions have the id "null".
 * FileIdentity has a digest of the three in `inode`, so that the tables need
 * no column that only a bucket fills.  Before a version is removed, the
 * versions of its key are listed, and so its whole id is known.  The digest
 * has 64 bits of SHA-256.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "src/pg/time.h"
#include "src/store/bucket/bucket.h"

void
bucket_identify_entry(const BucketEntry *entry, FileIdentity *identity)
{
	char		text[2 * BUCKET_ID_SIZE + 32];

	snprintf(text, sizeof(text), "%s\n%s\n" INT64_FORMAT, entry->version, entry->etag, entry->modified);
	memset(identity, 0, sizeof(*identity));
	identity->inode = bucket_digest(text);
	identity->size = identity->space = entry->size;
	identity->nlink = 1;
	identity->mtime_ns = entry->modified * NS_PER_SECOND;
	/* the last moment that a time in whole seconds may mean */
	identity->ctime_ns = identity->mtime_ns + NS_PER_SECOND - 1;
}

/* Returns whether the version is the expected file. */
static bool
is_file(const BucketEntry *entry, const FileIdentity *expected)
{
	FileIdentity found;

	if (entry->is_marker)
		return false;
	bucket_identify_entry(entry, &found);
	return found.inode == expected->inode && found.size == expected->size &&
		found.mtime_ns == expected->mtime_ns;
}

/*
 * Sets `prefix` to the key, cut before a control character: the answer repeats
 * the prefix, and some servers do not encode such a character, which XML cannot
 * hold.  Returns `prefix`.
 */
static const char *
cut_prefix(const char *key, char prefix[BUCKET_KEY_MAX + 1])
{
	size_t		n = 0;

	while (key[n] != '\0' && ((unsigned char) key[n] >= 0x20 || key[n] == '\t' || key[n] == '\n'))
		n++;
	strlcpy(prefix, key, n + 1);
	return prefix;
}

BucketCall
bucket_versions_call(const char *prefix)
{
	const BucketCall call = {
		.method = "GET",
		.query = {{"encoding-type", "url"}, {"max-keys", "1000"}, {"prefix", prefix}, {"versions", ""}}
	};

	return call;
}

/* Sets *versions to the versions of a key, which begin at the entry `first`. */
static void
select_from(const BucketAnswer *answer, int first, const char *key, const FileIdentity *expected,
			KeyVersions *versions)
{
	versions->entries = answer->entries + first;
	versions->n = 0;
	versions->at = -1;
	for (int i = first; i < answer->n_entries && strcmp(answer->entries[i].key, key) == 0; i++)
	{
		if (expected != NULL && versions->at < 0 && is_file(&answer->entries[i], expected))
			versions->at = versions->n;
		versions->n++;
	}
	versions->more = answer->truncated && first + versions->n == answer->n_entries;
	versions->none_is_current = versions->n > 0 && !versions->entries[0].is_latest;
}

/* Returns 0, or an errno if nothing can be concluded from these versions. */
static int
check_versions(Bucket *bucket, const KeyVersions *versions)
{
	if (versions->none_is_current)
		return bucket_note(bucket, EIO, "the server says of none of its versions that it is the latest one");
	/* the version may be on a later page */
	if (versions->more && versions->at < 0)
		return bucket_note(bucket, EFBIG, "its versions are not among the first 1000 of the list");
	return 0;
}

/*
 * Sets *versions to the versions of a key.  The answer may have other keys
 * with that prefix before and behind these versions.  Returns 0 or an errno.
 */
static int
select_versions(Bucket *bucket, const BucketAnswer *answer, const char *key, const FileIdentity *expected,
				KeyVersions *versions)
{
	int			first = 0;

	if (answer->status != 200)
		return bucket_note(bucket, EIO, answer->error);
	while (first < answer->n_entries && strcmp(answer->entries[first].key, key) != 0)
		first++;
	select_from(answer, first, key, expected, versions);
	return check_versions(bucket, versions);
}

int
bucket_list_versions(Bucket *bucket, const char *key, const FileIdentity *expected,
					 KeyVersions *versions)
{
	char		prefix[BUCKET_KEY_MAX + 1];
	const BucketCall call = bucket_versions_call(cut_prefix(key, prefix));
	const BucketAnswer *answer;
	int			errnum;

	memset(versions, 0, sizeof(*versions));
	versions->at = -1;
	if ((errnum = bucket_call(bucket, &call, &answer)) != 0)
		return errnum;
	return select_versions(bucket, answer, key, expected, versions);
}

int
bucket_find_version(const KeyVersions *versions, const char *id)
{
	for (int i = 0; i < versions->n; i++)
		if (strcmp(versions->entries[i].version, id) == 0)
			return i;
	return -1;
}


/* --------------------------------------------------------------- many keys --- */

#define PAGE_MAX		1000

/* number of entries of a page beyond the expected number */
#define PAGE_SPARE		16

/*
 * a page is worth its work if WORTH_A_PAGE of a thousand entries are wanted;
 * else SKIPPED keys are asked for by name before a page is tried again
 */
#define WORTH_A_PAGE	6
#define SKIPPED			32

/* The lists of the versions of many keys. */
typedef struct Listing
{
	Bucket	   *bucket;
	BucketCalls *calls;
	const VersionsAsk *asks;
	double		per_key;		/* entries of the list for each key: the
								 * expected number, then the number of the
								 * last page */
	VersionsSink sink;
	void	   *arg;
} Listing;

/* Keys that are read page by page. */
typedef struct Range
{
	Listing    *listing;
	int			next;
	int			end;
	int			page_size;		/* limit for the entries of a page */
	int			poor;			/* pages in a row that had few of the keys */
	char		marker[BUCKET_KEY_MAX + 1]; /* key behind which the page
											 * begins */
	char		prefix[BUCKET_KEY_MAX + 1];
	char		max_keys[16];	/* page_size, in digits */
} Range;

/* A key that a page has not shown, and that is asked for by name. */
typedef struct MissedKey
{
	Listing    *listing;
	int			ask;
	char		prefix[FLEXIBLE_ARRAY_MEMBER];
} MissedKey;

static void take_page(void *arg, int errnum, const BucketAnswer *answer);

/*
 * Asks for the next page of the range.  The page begins behind the next key
 * without its last character, because few other keys stand between that text
 * and the key.
 */
static void
ask_for_page(Range *range)
{
	Listing    *listing = range->listing;
	const char *key = listing->asks[range->next].key;
	const BucketCall call = {
		.method = "GET",
		.query = {
			{"encoding-type", "url"}, {"key-marker", range->marker}, {"max-keys", range->max_keys},
			{"prefix", range->prefix}, {"versions", ""}
		}
	};
	char		marker[BUCKET_KEY_MAX + 1];
	size_t		n = strlen(key);

	while (n > 0 && ((unsigned char) key[n - 1] & 0xC0) == 0x80)
		n--;
	strlcpy(marker, key, Max(n, 1));
	(void) cut_prefix(marker, range->marker);
	(void) cut_prefix(listing->bucket->prefix, range->prefix);
	range->page_size = (int) Min(listing->per_key * (range->end - range->next) + PAGE_SPARE, PAGE_MAX);
	snprintf(range->max_keys, sizeof(range->max_keys), "%d", range->page_size);
	bucket_add_call(listing->calls, &call, take_page, range);
}

static void
take_missed(void *arg, int errnum, const BucketAnswer *answer)
{
	const MissedKey *missed = arg;
	const Listing *listing = missed->listing;
	const VersionsAsk *ask = &listing->asks[missed->ask];
	KeyVersions versions = {0};

	if (errnum == 0)
		errnum = select_versions(listing->bucket, answer, ask->key, ask->expected, &versions);
	listing->sink(listing->arg, missed->ask, errnum, &versions);
}

static void
ask_by_name(Listing *listing, int ask)
{
	const char *key = listing->asks[ask].key;
	MissedKey  *missed = MemoryContextAlloc(listing->calls->context, offsetof(MissedKey, prefix) + BUCKET_KEY_MAX + 1);
	const BucketCall call = bucket_versions_call(cut_prefix(key, missed->prefix));

	missed->listing = listing;
	missed->ask = ask;
	bucket_add_call(listing->calls, &call, take_missed, missed);
}

/*
 * Passes on the keys that the page has wholly: all but its last key if the
 * list goes on.  Returns the number of keys of the range that the page covers.
 */
static int
go_through(Range *range, const BucketAnswer *answer)
{
	Listing    *listing = range->listing;
	const char *last = answer->truncated ? answer->entries[answer->n_entries - 1].key : NULL;
	int			began = range->next;
	int			entry = 0;

	for (; range->next < range->end; range->next++)
	{
		const VersionsAsk *ask = &listing->asks[range->next];
		KeyVersions versions;

		if (last != NULL && strcmp(ask->key, last) >= 0)
			break;
		while (entry < answer->n_entries && strcmp(answer->entries[entry].key, ask->key) < 0)
			entry++;
		if (entry == answer->n_entries || strcmp(answer->entries[entry].key, ask->key) != 0)
		{
			ask_by_name(listing, range->next);
			continue;
		}
		select_from(answer, entry, ask->key, ask->expected, &versions);
		listing->sink(listing->arg, range->next, check_versions(listing->bucket, &versions), &versions);
	}
	return range->next - began;
}

/*
 * Decides what follows a page that had `n` of the keys.  If the page had no
 * key, other keys lie in between, or the next key has very many versions: the
 * next key is asked for by name.  One poor page may be the end of a dense
 * part.  After two poor pages, the keys lie far apart, and some keys are asked
 * for by name.
 */
static void
skip_poor(Range *range, int n)
{
	int			skip = n == 0 ? 1 : 0;

	range->poor = n * PAGE_MAX < WORTH_A_PAGE * range->page_size ? range->poor + 1 : 0;
	if (range->poor > 1)
		skip = SKIPPED;
	while (skip-- > 0 && range->next < range->end)
		ask_by_name(range->listing, range->next++);
}

static void
take_page(void *arg, int errnum, const BucketAnswer *answer)
{
	Range	   *range = arg;
	Listing    *listing = range->listing;
	const KeyVersions none = {0};
	int			n;

	if (errnum == 0 && answer->status != 200)
		errnum = bucket_note(listing->bucket, EIO, answer->error);
	for (; errnum != 0 && range->next < range->end; range->next++)
		listing->sink(listing->arg, range->next, errnum, &none);
	if (errnum != 0)
		return;
	n = answer->truncated && answer->n_entries == 0 ? 0 : go_through(range, answer);

	/*
	 * the size of a further page is chosen such that it has the rest of the
	 * range
	 */
	if (answer->truncated)
		listing->per_key = Max((double) answer->n_entries / Max(n, 1), 1);
	skip_poor(range, n);
	if (range->next < range->end)
		ask_for_page(range);
}

void
bucket_list_many(Bucket *bucket, const VersionsAsk *asks, int n, int per_key,
				 VersionsSink sink, void *arg, BucketCalls *calls)
{
	Listing    *listing = MemoryContextAlloc(calls->context, sizeof(Listing));
	int			size;

	/*
	 * for a server a page of ten entries is hardly less work than a page of a
	 * thousand
	 */
	size = Max((n + bucket->n_parallel - 1) / bucket->n_parallel, (PAGE_MAX - PAGE_SPARE) / Max(per_key, 1));
	*listing = (Listing)
	{
		bucket, calls, asks, per_key, sink, arg
	};
	for (int i = 0; i < n && per_key == 0; i++)
		ask_by_name(listing, i);
	for (int first = 0; first < n && per_key > 0; first += size)
	{
		Range	   *range = MemoryContextAllocZero(calls->context, sizeof(Range));

		range->listing = listing;
		range->next = first;
		range->end = Min(first + size, n);
		ask_for_page(range);
	}
}
