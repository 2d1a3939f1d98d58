/*-------------------------------------------------------------------------
 *
 * store/bucket/walk.c
 *	  Walks the files of a bucket, page by page.
 *
 * The list of a bucket is in the order of its keys, and a bucket has no
 * folders.  The text of a key alone tells whether the walk passes over the
 * key; a walk of a directory has the same rules.  A key that could be no path
 * in a directory ("a//b", "../a", "a/") is passed over, too, because rows
 * would name it in many ways.
 *
 * A page tells where the next page begins, so pages of one range come one
 * after the other.  If the keys have folders, the walk reads several ranges
 * side by side, which begin at folders.  One request for each level finds
 * folders, until there are several.  The folders are a hint only: a range ends
 * where the next range begins, whatever lies in the range.  The next page of
 * each range is on its way while the caller deals with the files of this page.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "src/store/bucket/bucket.h"

/* levels of folders at which ranges may begin */
#define MAX_LEVELS		4
/* keys and folders of a page, at most */
#define PAGE_KEYS		1000


/* The keys from `after` to `end`, both exclusive. */
typedef struct WalkRange
{
	int			lane;			/* the lane of its pages */
	const char *after;			/* NULL: from the first key of the prefix */
	const char *end;			/* NULL: to the last key */
	bool		on_its_way;		/* the next page is on its way */
	bool		is_last;		/* there is no further page */
	MemoryContext page;			/* has the keys */
	char	  **keys;
	int			n;
	int			next;
	char		last[BUCKET_KEY_MAX + 1];	/* the last key of the pages
											 * before, or "" */
	char		token[BUCKET_TOKEN_SIZE];	/* of the next page */
} WalkRange;

typedef struct BucketWalk
{
	WalkBase	base;
	Bucket	   *bucket;
	MemoryContext context;		/* has all that the walk allocates */
	bool		recurse;
	int			errnum;			/* not 0 once the walk has failed */
	WalkRange	ranges[BUCKET_PAGES];
	int			n_ranges;
	int			current;		/* range whose files are passed on */
	TrashWalk  *trash;			/* walk of the files that a run has captured;
								 * NULL: the walk is of the bucket */
} BucketWalk;


/* ------------------------------------------------------------------- pages --- */

BucketCall
bucket_list_call(const char *token, bool folders, const char *prefix, const char *after)
{
	bool		goes_on = token[0] != '\0';
	const BucketCall call = {
		.method = "GET",
		.query = {
			{"continuation-token", goes_on ? token : NULL}, {"delimiter", folders ? "/" : NULL}, {"encoding-type", "url"},
			{"list-type", "2"}, {"max-keys", "1000"}, {"prefix", prefix}, {"start-after", goes_on ? NULL : after}
		}
	};

	return call;
}

int
bucket_check_list(Bucket *bucket, const BucketAnswer *answer, const char *token)
{
	/* with a token that comes twice, the list would never end */
	if (answer->status == 200 &&
		!(answer->truncated && (answer->next_token[0] == '\0' || strcmp(answer->next_token, token) == 0)))
		return 0;
	return bucket_note(bucket, EIO, answer->error[0] ? answer->error : "the list cannot be continued");
}

static int
send_for_page(BucketWalk *walk, WalkRange *range)
{
	const BucketCall call = bucket_list_call(range->token, !walk->recurse, walk->bucket->prefix, range->after);
	int			errnum = bucket_begin_call(walk->bucket, range->lane, &call);

	range->on_its_way = errnum == 0;
	return errnum;
}

/*
 * Returns whether the walk has come behind this key already: a server may
 * ignore "start-after", and begin each range at the first key, or tell a key
 * twice.  A file that came twice would be condemned twice.
 */
static bool
is_behind(const WalkRange *range, const char *key)
{
	return (range->after != NULL && strcmp(key, range->after) <= 0) || strcmp(key, range->last) == 0;
}

/* Copies the keys of a page, because the answer does not outlive other calls. */
static void
keep_page(WalkRange *range, const BucketAnswer *answer)
{
	MemoryContext caller = MemoryContextSwitchTo(range->page);

	MemoryContextReset(range->page);
	range->keys = palloc(sizeof(char *) * Max(answer->n_entries, 1));
	range->n = range->next = 0;
	range->is_last = !answer->truncated;
	for (int i = 0; i < answer->n_entries; i++)
	{
		const BucketEntry *entry = &answer->entries[i];

		if (entry->is_prefix || is_behind(range, entry->key))
			continue;
		if (range->end != NULL && strcmp(entry->key, range->end) >= 0)
		{
			range->is_last = true;
			break;
		}
		range->keys[range->n++] = pstrdup(entry->key);
		strlcpy(range->last, entry->key, sizeof(range->last));
	}
	strlcpy(range->token, answer->next_token, sizeof(range->token));
	MemoryContextSwitchTo(caller);
}

/*
 * Waits for the next page, and asks for the page after that page.  Returns 0
 * or an errno.
 */
static int
turn_page(BucketWalk *walk, WalkRange *range)
{
	const BucketAnswer *answer;
	int			errnum = range->on_its_way ? 0 : send_for_page(walk, range);

	if (errnum == 0)
		errnum = bucket_finish_call(walk->bucket, range->lane, &answer);
	range->on_its_way = false;
	if (errnum == 0)
		errnum = bucket_check_list(walk->bucket, answer, range->token);
	if (errnum != 0)
		return errnum;
	keep_page(range, answer);
	return range->is_last ? 0 : send_for_page(walk, range);
}


/* ------------------------------------------------------------------ ranges --- */

static WalkRange *
add_range(BucketWalk *walk, const char *after, const char *end)
{
	WalkRange  *range = &walk->ranges[walk->n_ranges];

	range->lane = BUCKET_PAGE_LANE + walk->n_ranges++;
	range->page = AllocSetContextCreate(walk->context, "audio_cleanup page", ALLOCSET_DEFAULT_SIZES);
	range->after = after;
	range->end = end;
	return range;
}

/*
 * Sets `folders` to the folders below `prefix` that one page has, and *n to their
 * number.  Returns 0 or an errno.
 */
static int
find_folders(BucketWalk *walk, const char *prefix, char *folders[PAGE_KEYS], int *n)
{
	const BucketCall call = bucket_list_call("", true, prefix, NULL);
	const BucketAnswer *answer;
	int			errnum = bucket_ask(walk->bucket, &call, &answer);

	*n = 0;
	if (errnum != 0)
		return errnum;
	/* hidden folders, such as our own, are not walked */
	for (int i = 0; i < answer->n_entries && *n < PAGE_KEYS; i++)
		if (answer->entries[i].is_prefix && strncmp(answer->entries[i].key, prefix, strlen(prefix)) == 0 &&
			answer->entries[i].key[strlen(prefix)] != '.')
			folders[(*n)++] = MemoryContextStrdup(walk->context, answer->entries[i].key);
	return 0;
}

/*
 * Divides the bucket into ranges that begin at folders.  Returns 0 or an
 * errno.  A range begins behind the name of its first folder, "a/": a key of
 * that name is passed over anyway.
 */
static int
divide(BucketWalk *walk)
{
	char	  **folders = MemoryContextAlloc(walk->context, sizeof(char *) * PAGE_KEYS);
	const char *prefix = walk->bucket->prefix;
	const char *after = NULL;
	int			n_ranges;
	int			n = 0;

	for (int level = 0; walk->recurse && n <= 1 && level < MAX_LEVELS; level++)
	{
		int			errnum = find_folders(walk, prefix, folders, &n);

		if (errnum != 0)
			return errnum;
		if (n == 1)
			prefix = folders[0];
		else if (n == 0)
			break;
	}
	n_ranges = Min(n, Min(BUCKET_PAGES, walk->bucket->n_parallel));
	for (int i = 1; i < n_ranges; i++)
	{
		const char *border = folders[n * i / n_ranges];

		(void) add_range(walk, after, border);
		after = border;
	}
	(void) add_range(walk, after, NULL);
	return 0;
}

TreeWalk *
bucket_walk_begin(FileStore *store, bool recurse, int64 run_id)
{
	BucketWalk *walk = palloc0(sizeof(BucketWalk));

	walk->base.driver = &bucket_driver;
	walk->bucket = bucket_of(store);
	walk->recurse = recurse;
	walk->context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup walk of a bucket",
										  ALLOCSET_DEFAULT_SIZES);
	if (run_id != 0)
	{
		walk->trash = bucket_begin_trash(walk->bucket, run_id, walk->context);
		return (TreeWalk *) walk;
	}
	/* an ERROR may have ended a walk before */
	for (int i = 0; i < BUCKET_PAGES; i++)
		bucket_drop_call(walk->bucket, BUCKET_PAGE_LANE + i);
	walk->errnum = divide(walk);
	for (int i = 0; walk->errnum == 0 && i < walk->n_ranges; i++)
		walk->errnum = send_for_page(walk, &walk->ranges[i]);
	return (TreeWalk *) walk;
}

static void
pass_turn(BucketWalk *walk)
{
	walk->current = (walk->current + 1) % walk->n_ranges;
}

/* Returns the range whose files come next, which has files or further pages; NULL at the end. */
static WalkRange *
next_range(BucketWalk *walk)
{
	for (int tried = 0; tried < walk->n_ranges; tried++)
	{
		WalkRange  *range = &walk->ranges[walk->current];

		if (range->next < range->n || !range->is_last)
			return range;
		pass_turn(walk);
	}
	return NULL;
}


/* -------------------------------------------------------------------- walk --- */

/* Returns whether the text could be a path in a directory. */
static bool
is_plain_path(const char *path)
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
	WalkReason	reason = is_plain_path(path) ? store_judge_walk(path, recurse, len) : WALK_NOT_PLAIN;

	if (reason == WALK_NOT_PLAIN)
		*len = strlen(path);
	else if (reason == WALK_REACHED)
		*len = 0;
	return reason;
}

/* Returns whether the path is the claim of a folder, and cuts the path to that folder. */
static bool
cut_claim(char *path)
{
	static const char claim[] = "/" STORE_PRIVATE_DIR "/claim";
	size_t		len = strlen(path);
	size_t		n = strlen(claim);

	if (len <= n || strcmp(path + len - n, claim) != 0)
		return false;
	path[len - n] = '\0';
	return true;
}

/* Passes on the files that a run has captured. */
static WalkStep
next_in_trash(BucketWalk *walk, const char **path)
{
	size_t		len;

	while (walk->errnum == 0)
	{
		walk->errnum = bucket_next_in_trash(walk->trash, path);
		if (walk->errnum == 0 && *path == NULL)
			return WALK_END;

		/*
		 * only this extension should write manifests; a manifest of somebody
		 * else can still name only files that a walk would reach
		 */
		if (walk->errnum == 0 && judge(*path, true, &len) == WALK_REACHED)
			return WALK_FILE;
	}
	return WALK_FAILED;
}

WalkStep
bucket_walk_next(TreeWalk *base, const char **path)
{
	BucketWalk *walk = (BucketWalk *) base;
	size_t		prefix = strlen(walk->bucket->prefix);
	WalkRange  *range;
	char	   *key;
	size_t		len;

	*path = NULL;
	if (walk->trash != NULL)
		return next_in_trash(walk, path);
	while (walk->errnum == 0)
	{
		if ((range = next_range(walk)) == NULL)
			return WALK_END;
		if (range->next == range->n)
		{
			walk->errnum = turn_page(walk, range);
			continue;
		}
		key = range->keys[range->next++];
		/* meanwhile the next page of this range comes */
		if (range->next == range->n)
			pass_turn(walk);
		if (strncmp(key, walk->bucket->prefix, prefix) != 0)
			continue;
		*path = key + prefix;
		if (judge(*path, walk->recurse, &len) == WALK_REACHED)
			return WALK_FILE;
		if (walk->recurse && cut_claim(key + prefix) && judge(*path, true, &len) == WALK_REACHED)
			return WALK_CLAIMED;
	}
	return WALK_FAILED;
}

const char *
bucket_walk_failure(TreeWalk *base, int *errnum, const char **failure)
{
	*errnum = ((BucketWalk *) base)->errnum;
	*failure = "could not list";
	return ".";
}

void
bucket_walk_end(TreeWalk *base)
{
	BucketWalk *walk = (BucketWalk *) base;

	for (int i = 0; i < walk->n_ranges; i++)
		if (walk->ranges[i].on_its_way)
			bucket_drop_call(walk->bucket, walk->ranges[i].lane);
	if (walk->trash != NULL)
		bucket_end_trash(walk->trash);
	MemoryContextDelete(walk->context);
	pfree(walk);
}

WalkReason
bucket_walk_why_not(FileStore *store, const char *path, bool recurse, size_t *len)
{
	return judge(path, recurse, len);
}
