/*-------------------------------------------------------------------------
 *
 * store/bucket/manifest.c
 *	  Lists of the versions that a run has captured, as objects of ours.
 *
 * A delete marker does not say who has made it.  After a point-in-time
 * recovery the rows of the last runs are lost, and only the bucket can tell
 * which markers these runs have made.  So before the first marker of a portion
 * is made, the files of the portion are written into an object, a manifest:
 *
 *	<prefix>/.audio_cleanup/trash/<run>/<second>-<number>
 *
 * A manifest has the form in which the server lists versions, and is read by
 * the same code.  The keys of a manifest are paths below the prefix.  The
 * second comes from the server's clock.  The second stands in the name because
 * a copy of a manifest has another date.
 *
 * A manifest lists the files that were going to be captured.  A file of the
 * list lies in the trash if a marker lies right above its version, and if the
 * marker is neither older than the manifest nor much younger: a file that was
 * put back, and that the application has deleted later on, does not count.
 *
 * The manifests of a run are removed when none of its files lies in the trash
 * any more.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "pgtime.h"
#include "utils/memutils.h"

#include "src/pg/compat.h"
#include "src/store/bucket/bucket.h"

#define TRASH_PATH		STORE_PRIVATE_DIR "/" STORE_TRASH_DIR "/"

/*
 * the markers of a portion are made at most MARKER_SECONDS after its manifest;
 * and the clock of one server may be SKEW_SECONDS behind the clock of another
 */
#define MARKER_SECONDS	3600
#define SKEW_SECONDS	300


static void
manifest_key(const Bucket *bucket, int64 run_id, const char *name, char key[BUCKET_KEY_MAX + 1])
{
	char		path[128];

	snprintf(path, sizeof(path), TRASH_PATH INT64_FORMAT "/%s", run_id, name);
	bucket_own_key(bucket, path, key);
}


/* ----------------------------------------------------------------- writing --- */

static void
append_file(StringInfo body, const SeenFile *file)
{
	char		path[3 * BUCKET_KEY_MAX + 1] = "";
	pg_time_t	modified = file->modified;
	char		date[32];

	(void) pg_strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", pg_gmtime(&modified));
	(void) bucket_encode(path, sizeof(path), file->path, false);
	appendStringInfo(body, "<Version><Key>%s</Key>", path);
	bucket_append_element(body, "VersionId", file->version);
	bucket_append_element(body, "ETag", file->etag);
	appendStringInfo(body, "<Size>" INT64_FORMAT "</Size><LastModified>%s</LastModified></Version>\n", file->size, date);
}

void
bucket_write_manifest(Bucket *bucket, int64 run_id, const SeenFile *files, int n,
					  BucketTake take, void *arg, BucketCalls *calls)
{
	char		name[64];
	char	   *key = MemoryContextAlloc(calls->context, BUCKET_KEY_MAX + 1);
	StringInfoData body;
	BucketCall	call = {.method = "PUT",.key = key,.leased = true};

	snprintf(name, sizeof(name), "%012lld-%016llx", (long long) bucket->date, bucket_random());
	manifest_key(bucket, run_id, name, key);
	initStringInfo(&body);
	appendStringInfoString(&body, "<ListVersionsResult>\n<EncodingType>url</EncodingType>\n");
	for (int i = 0; i < n; i++)
		append_file(&body, &files[i]);
	appendStringInfoString(&body, "</ListVersionsResult>\n");
	call.body = body.data;
	bucket_add_call(calls, &call, take, arg);
}


/* ------------------------------------------------------------------- lists --- */

/*
 * Returns 0, or EIO if a key of the answer does not begin with the prefix that
 * was asked for: what such a server lists must not be read, and not be removed.
 */
static int
check_keys(Bucket *bucket, const BucketAnswer *answer, const char *prefix)
{
	for (int i = 0; i < answer->n_entries; i++)
		if (strncmp(answer->entries[i].key, prefix, strlen(prefix)) != 0)
			return bucket_note(bucket, EIO, "the list has a key that was not asked for");
	return 0;
}

/*
 * Sets *keys to the keys (char *) of the objects below a prefix, or with
 * `folders` to the folders right below the prefix.  Returns 0; or an errno, and
 * then *keys may have some of them.
 */
static int
list_keys(Bucket *bucket, const char *prefix, bool folders, List **keys)
{
	char		token[BUCKET_TOKEN_SIZE] = "";
	const BucketAnswer *answer;
	int			errnum;

	*keys = NIL;
	do
	{
		const BucketCall call = bucket_list_call(token, folders, prefix, NULL);

		if ((errnum = bucket_call(bucket, &call, &answer)) != 0 ||
			(errnum = bucket_check_list(bucket, answer, token)) != 0 ||
			(errnum = check_keys(bucket, answer, prefix)) != 0)
			return errnum;
		for (int i = 0; i < answer->n_entries; i++)
			if (answer->entries[i].is_prefix == folders)
				*keys = lappend(*keys, pstrdup(answer->entries[i].key));
		strlcpy(token, answer->next_token, sizeof(token));
	} while (answer->truncated);
	return 0;
}

/* Returns the number that stands in `name` before a "/", as we write it; or 0. */
static int64
parse_run_folder(const char *name)
{
	char	   *end;
	int64		run_id;

	if (*name < '1' || *name > '9')
		return 0;
	errno = 0;
	run_id = strtoll(name, &end, 10);
	return errno == 0 && strcmp(end, "/") == 0 ? run_id : 0;
}

int
bucket_trash_runs(FileStore *store, int64 *runs, int max)
{
	Bucket	   *bucket = bucket_of(store);
	char		prefix[BUCKET_KEY_MAX + 1];
	List	   *keys = NIL;
	int			n = 0;
	int			errnum;

	bucket_own_key(bucket, TRASH_PATH, prefix);
	errnum = list_keys(bucket, prefix, true, &keys);
	foreach_ptr(const char, key, keys)
	{
		int64		run_id = parse_run_folder(key + strlen(prefix));

		if (run_id > 0 && n++ < max)
			runs[n - 1] = run_id;
	}
	list_free_deep(keys);
	errno = errnum;
	return errnum == 0 ? n : -1;
}


/* ----------------------------------------------------------------- walking --- */

struct TrashWalk
{
	Bucket	   *bucket;
	MemoryContext page;			/* has the files of one manifest */
	int			errnum;			/* of the list of manifests */
	List	   *manifests;		/* keys (char *) of manifests still to be read */
	VersionsAsk *files;			/* files of the manifest */
	bool	   *in_trash;		/* whether each of them lies in the trash */
	int			n;
	int			next;
	int			unseen_errnum;	/* of a file that could not be looked at, or
								 * 0; */
	const char *unseen;			/* its key */
	int64		written;		/* when the manifest was written, by the clock
								 * of the server */
};

TrashWalk *
bucket_begin_trash(Bucket *bucket, int64 run_id, MemoryContext context)
{
	MemoryContext caller = MemoryContextSwitchTo(context);
	TrashWalk  *walk = palloc0(sizeof(TrashWalk));
	char		prefix[BUCKET_KEY_MAX + 1];

	manifest_key(bucket, run_id, "", prefix);
	walk->bucket = bucket;
	walk->errnum = list_keys(bucket, prefix, false, &walk->manifests);
	walk->page = AllocSetContextCreate(context, "audio_cleanup files of a manifest", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(caller);
	return walk;
}

/*
 * Puts `name`, of a manifest or a file, behind the text of a failure with
 * `errnum`.  Returns `errnum`.
 */
static int
note_about(Bucket *bucket, int errnum, const char *name)
{
	char		text[BUCKET_ERROR_SIZE + 64];

	/* an interrupt, or want of memory, is not about an object */
	if (errnum == EINTR || errnum == ENOMEM)
		return errnum;
	snprintf(text, sizeof(text), "%s (%s)", store_error_text((FileStore *) bucket, errnum), name);
	/* a name may have any bytes, and an error may not */
	for (char *c = text; *c != '\0'; c++)
		if (*c < 0x20 || *c > 0x7E)
			*c = '?';
	return bucket_note(bucket, errnum, text);
}

/* Notes a file whose version has our marker right above it. */
static void
take_place(void *arg, int ask, int errnum, const KeyVersions *versions)
{
	TrashWalk  *walk = arg;
	const BucketEntry *marker;

	if (errnum != 0)
	{
		walk->unseen_errnum = errnum;
		walk->unseen = walk->files[ask].key;
	}
	if (errnum != 0 || !bucket_is_captured(versions))
		return;
	marker = &versions->entries[versions->at - 1];
	walk->in_trash[ask] = marker->modified >= walk->written - SKEW_SECONDS &&
		marker->modified <= walk->written + MARKER_SECONDS;
}

static int
compare_asks(const void *a, const void *b)
{
	return strcmp(((const VersionsAsk *) a)->key, ((const VersionsAsk *) b)->key);
}

/*
 * Asks where the files of the manifest in `answer` are.  Returns 0; or an
 * errno, also if one of the files could not be looked at: nobody knows whether
 * that file lies in the trash.
 */
static int
locate_files(TrashWalk *walk, const BucketAnswer *answer)
{
	FileIdentity *identities = palloc0(sizeof(FileIdentity) * Max(answer->n_entries, 1));
	char		key[BUCKET_KEY_MAX + 1];
	BucketCalls calls = {CurrentMemoryContext};
	int			errnum;

	walk->files = palloc0(sizeof(VersionsAsk) * Max(answer->n_entries, 1));
	walk->in_trash = palloc0(sizeof(bool) * Max(answer->n_entries, 1));
	for (int i = 0; i < answer->n_entries; i++)
	{
		if (bucket_key(walk->bucket, answer->entries[i].key, key) != 0)
			continue;
		bucket_identify_entry(&answer->entries[i], &identities[walk->n]);
		walk->files[walk->n].key = pstrdup(key);
		walk->files[walk->n].expected = &identities[walk->n];
		walk->n++;
	}
	qsort(walk->files, walk->n, sizeof(VersionsAsk), compare_asks);
	bucket_list_many(walk->bucket, walk->files, walk->n, 2, take_place, walk, &calls);
	errnum = bucket_call_many(walk->bucket, &calls);
	if (errnum == 0 && walk->unseen_errnum != 0)
		errnum = note_about(walk->bucket, walk->unseen_errnum, walk->unseen);
	return errnum;
}

static int
read_manifest(TrashWalk *walk, const char *key)
{
	const BucketCall call = {.method = "GET",.key = key};
	const BucketAnswer *answer;
	MemoryContext caller;
	char	   *end;
	int			errnum;

	MemoryContextReset(walk->page);
	walk->n = walk->next = 0;
	/* its name begins with the second in which it was written */
	walk->written = strtoll(strrchr(key, '/') + 1, &end, 10);
	if (*end != '-')
		return 0;
	errnum = bucket_call(walk->bucket, &call, &answer);
	if (errnum == 0 && answer->status == 404 && strcmp(answer->code, "NoSuchKey") == 0)
		return 0;
	if (errnum == 0 && answer->status != 200)
		errnum = bucket_note(walk->bucket, EIO, answer->error);
	if (errnum != 0)
		return note_about(walk->bucket, errnum, strrchr(key, '/') + 1);
	caller = MemoryContextSwitchTo(walk->page);
	errnum = locate_files(walk, answer);
	MemoryContextSwitchTo(caller);
	return errnum;
}

int
bucket_next_in_trash(TrashWalk *walk, const char **path)
{
	int			errnum = walk->errnum;

	*path = NULL;
	walk->bucket->in_trash = NULL;
	while (errnum == 0)
	{
		while (walk->next < walk->n && !walk->in_trash[walk->next])
			walk->next++;
		if (walk->next < walk->n)
		{
			*path = walk->bucket->in_trash = walk->files[walk->next].key + strlen(walk->bucket->prefix);
			walk->bucket->in_trash_identity = *walk->files[walk->next++].expected;
			return 0;
		}
		if (walk->manifests == NIL)
			return 0;
		errnum = read_manifest(walk, linitial(walk->manifests));
		walk->manifests = list_delete_first(walk->manifests);
	}
	return errnum;
}

void
bucket_end_trash(TrashWalk *walk)
{
	walk->bucket->in_trash = NULL;
}


/* -------------------------------------------------------------- forgetting --- */

/* Reads one page of the versions of the manifests of a run.  Returns 0 or an errno. */
static int
list_manifests(Bucket *bucket, int64 run_id, const BucketAnswer **answer)
{
	char		prefix[BUCKET_KEY_MAX + 1] = "";
	const BucketCall call = bucket_versions_call(prefix);
	int			errnum;

	manifest_key(bucket, run_id, "", prefix);
	errnum = bucket_ask(bucket, &call, answer);
	return errnum ? errnum : check_keys(bucket, *answer, prefix);
}

/* Copies the removals from the answer, which does not outlive the next call. */
static BucketRemoval *
take_removals(const BucketAnswer *answer)
{
	BucketRemoval *removals = palloc0(sizeof(BucketRemoval) * answer->n_entries);

	for (int i = 0; i < answer->n_entries; i++)
	{
		removals[i].key = pstrdup(answer->entries[i].key);
		removals[i].version = pstrdup(answer->entries[i].version);
	}
	return removals;
}

/* What became of a page of manifests. */
typedef struct RemovedPage
{
	bool		failed;			/* some cannot be removed */
	bool		busy;			/* for some the server had no time */
} RemovedPage;

static void
take_removed(void *arg, int i, const BucketRemoval *removal)
{
	RemovedPage *page = arg;

	page->busy |= removal->again;
	page->failed |= removal->errnum != 0 && !removal->again;
}

/*
 * Removes one page of the manifests of a run.  Returns whether some may be
 * left; *tries counts the pages for which the server had no time, from 0.
 */
static bool
remove_manifests(Bucket *bucket, int64 run_id, int *tries)
{
	BucketCalls calls = {CurrentMemoryContext};
	RemovedPage page = {false};
	const BucketAnswer *answer;
	bool		more;

	if (list_manifests(bucket, run_id, &answer) != 0 || answer->n_entries == 0)
		return false;
	more = answer->truncated;
	bucket_remove_many(bucket, take_removals(answer), answer->n_entries, take_removed, &page, &calls);
	if (bucket_keep_lease(bucket).outcome != FILE_OK || bucket_call_many(bucket, &calls) != 0 || page.failed)
		return false;
	return page.busy ? ++*tries < BUCKET_TRIES && bucket_rest(*tries) : more;
}

static bool
is_trash_empty(Bucket *bucket, int64 run_id, MemoryContext context)
{
	TrashWalk  *walk = bucket_begin_trash(bucket, run_id, context);
	const char *path;
	int			errnum = bucket_next_in_trash(walk, &path);

	bucket_end_trash(walk);
	return errnum == 0 && path == NULL;
}

/*
 * Ignores a failure of the network or the server: the pass before the next run
 * finds a manifest that stays.
 */
void
bucket_forget_run(FileStore *store, int64 run_id, bool look)
{
	Bucket	   *bucket = bucket_of(store);
	MemoryContext context;
	MemoryContext caller;
	int			tries = 0;

	/* a bucket in which nothing can be put back has no manifests */
	if (bucket->conditional)
		return;
	context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup manifests", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(context);
	while ((!look || is_trash_empty(bucket, run_id, context)) && remove_manifests(bucket, run_id, &tries))
		MemoryContextReset(context);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}


/* ------------------------------------------------------------- renumbering --- */

/* Copies a manifest, in the server, to the run `as`.  Returns 0 or an errno. */
static int
copy_manifest(Bucket *bucket, const char *key, int64 as)
{
	char		target[BUCKET_KEY_MAX + 1];
	const BucketAnswer *answer;

	manifest_key(bucket, as, strrchr(key, '/') + 1, target);
	return bucket_copy(bucket, key, NULL, target, false, &answer);
}

int
bucket_renumber_trash(FileStore *store, int64 run_id, int64 as)
{
	Bucket	   *bucket = bucket_of(store);
	char		prefix[BUCKET_KEY_MAX + 1];
	List	   *keys = NIL;
	int			errnum;

	manifest_key(bucket, run_id, "", prefix);
	errnum = list_keys(bucket, prefix, false, &keys);
	if (errnum == 0)
		errnum = bucket_keep_lease(bucket).errnum;
	foreach_ptr(const char, key, keys)
		if (errnum == 0)
		errnum = copy_manifest(bucket, key, as);
	if (errnum == 0)
		bucket_forget_run(store, run_id, false);
	list_free_deep(keys);
	return errnum;
}
