/*-------------------------------------------------------------------------
 *
 * store/bucket/walk.c
 *	  The files of a bucket, page by page.
 *
 * A list of a bucket is in the order of its keys, and there are no folders:
 * what belongs to nobody of ours is told by the text of a key, as it is in a
 * directory.  A key that could be no path there ("a//b", "../a", "a/") is
 * passed over: rows would name it in many ways.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "src/store/bucket/bucket.h"

typedef struct BucketWalk
{
	WalkBase	base;
	Bucket	   *bucket;
	bool		recurse;
	bool		is_last;		/* the page is the last one */
	int			errnum;			/* not 0 once the walk has failed */
	MemoryContext page;			/* of what follows */
	char	  **keys;
	int			n;
	int			next;
	char		token[BUCKET_TOKEN_SIZE];	/* of the next page */
} BucketWalk;

static BucketWalk *
begin_walk(Bucket *bucket, bool recurse)
{
	BucketWalk *walk = palloc0(sizeof(BucketWalk));

	walk->base.driver = &bucket_driver;
	walk->bucket = bucket;
	walk->recurse = recurse;
	walk->page = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup page", ALLOCSET_DEFAULT_SIZES);
	return walk;
}

TreeWalk *
bucket_walk_begin(FileStore *store, bool recurse)
{
	return (TreeWalk *) begin_walk(bucket_of(store), recurse);
}

/* See bucket_trash_runs(). */
TreeWalk *
bucket_walk_begin_trash(FileStore *store, int64 run_id)
{
	BucketWalk *walk = begin_walk(bucket_of(store), true);

	walk->is_last = true;
	return (TreeWalk *) walk;
}

/* Other calls may come before the next page: the answer does not last. */
static void
keep_page(BucketWalk *walk, const BucketAnswer *answer)
{
	MemoryContext caller = MemoryContextSwitchTo(walk->page);
	int			i;

	MemoryContextReset(walk->page);
	walk->keys = palloc(sizeof(char *) * Max(answer->n_entries, 1));
	for (i = 0; i < answer->n_entries; i++)
		walk->keys[i] = pstrdup(answer->entries[i].key);
	walk->n = answer->n_entries;
	walk->next = 0;
	walk->is_last = !answer->truncated;
	strlcpy(walk->token, answer->next_token, sizeof(walk->token));
	MemoryContextSwitchTo(caller);
}

/* Parameters of a query come in the order of their names. */
static bool
make_query(const BucketWalk *walk, char *query, size_t size)
{
	query[0] = '\0';
	if (walk->token[0] != '\0')
	{
		strlcat(query, "continuation-token=", size);
		if (!bucket_encode(query, size, walk->token))
			return false;
		strlcat(query, "&", size);
	}
	if (!walk->recurse)
		strlcat(query, "delimiter=%2F&", size);
	strlcat(query, "encoding-type=url&list-type=2&max-keys=1000&prefix=", size);
	return bucket_encode(query, size, walk->bucket->prefix);
}

static int
turn_page(BucketWalk *walk)
{
	char		query[3 * (BUCKET_TOKEN_SIZE + BUCKET_KEY_MAX) + 128];
	const BucketCall call = {"GET", NULL, query};
	const BucketAnswer *answer;
	int			errnum;

	if (!make_query(walk, query, sizeof(query)))
		return bucket_note(walk->bucket, ENAMETOOLONG, strerror(ENAMETOOLONG));
	if ((errnum = bucket_call(walk->bucket, &call, &answer)) != 0)
		return errnum;
	/* a token that comes twice would have the same page come for ever */
	if (answer->status != 200 || (answer->truncated && (answer->next_token[0] == '\0' ||
														strcmp(answer->next_token, walk->token) == 0)))
		return bucket_note(walk->bucket, EIO, answer->error[0] ? answer->error : "the list cannot be continued");
	keep_page(walk, answer);
	return 0;
}

/* Could it be a path in a directory? */
static bool
is_plain(const char *path)
{
	const char *part = path;

	if (strlen(path) >= STORE_PATH_MAX)
		return false;
	for (;;)
	{
		size_t		n = strcspn(part, "/");

		if (n == 0 || (n <= 2 && strspn(part, ".") >= n))
			return false;
		if (part[n] == '\0')
			return true;
		part += n + 1;
	}
}

static WalkReason
judge(const char *path, bool recurse, size_t *len)
{
	WalkReason	reason = is_plain(path) ? store_judge_walk(path, recurse, len) : WALK_NOT_PLAIN;

	if (reason == WALK_NOT_PLAIN)
		*len = strlen(path);
	else if (reason == WALK_REACHED)
		*len = 0;
	return reason;
}

WalkStep
bucket_walk_next(TreeWalk *base, const char **path)
{
	BucketWalk *walk = (BucketWalk *) base;
	size_t		prefix = strlen(walk->bucket->prefix);
	size_t		len;

	*path = NULL;
	while (walk->errnum == 0)
	{
		while (walk->next < walk->n)
		{
			const char *key = walk->keys[walk->next++];

			if (strncmp(key, walk->bucket->prefix, prefix) != 0)
				continue;
			*path = key + prefix;
			if (judge(*path, walk->recurse, &len) == WALK_REACHED)
				return WALK_FILE;
		}
		*path = NULL;
		if (walk->is_last)
			return WALK_END;
		walk->errnum = turn_page(walk);
	}
	return WALK_FAILED;
}

const char *
bucket_walk_failure(TreeWalk *base, int *errnum, const char **action)
{
	*errnum = ((BucketWalk *) base)->errnum;
	*action = "list";
	return ".";
}

void
bucket_walk_end(TreeWalk *base)
{
	MemoryContextDelete(((BucketWalk *) base)->page);
	pfree(base);
}

WalkReason
bucket_walk_why_not(FileStore *store, const char *path, bool recurse, size_t *len)
{
	return judge(path, recurse, len);
}
