/*-------------------------------------------------------------------------
 *
 * store/bucket/remove.c
 *	  Removes versions, and makes the markers that hide a file.
 *
 * Many keys go in one request, which S3 calls DeleteObjects, as XML.  Each key
 * comes back with its own answer.  A key that no XML can hold, or that XML
 * would change, has a request of its own.
 *
 * The removal of a version may be repeated.  A marker must be made only once:
 * a second marker would lie above the first marker, and not above the file.
 * So a request that makes markers is never repeated, and the caller looks at
 * the versions.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "src/store/bucket/bucket.h"

/* limits of one request, in keys and bytes */
#define GROUP_KEYS		1000
#define GROUP_BYTES		(512 * 1024)

/* further attempts to remove a version that a busy server has not removed */
#define MAX_TRIES		5

static bool
is_gone_code(const char *code)
{
	return strcmp(code, "NoSuchKey") == 0 || strcmp(code, "NoSuchVersion") == 0;
}

bool
bucket_says_gone(const BucketAnswer *answer)
{
	return answer->status == 404 && is_gone_code(answer->code);
}

/* Returns 0 or an errno for the answer to a deletion of one thing, or with `alone` false of several things. */
static int
errno_of_deletion(Bucket *bucket, const BucketAnswer *answer, bool alone)
{
	if (answer->status >= 300 && !(alone && bucket_says_gone(answer)))
		return bucket_note(bucket, EIO, answer->error);
	return 0;
}

int
bucket_remove_version(Bucket *bucket, const char *key, const char *version)
{
	const BucketCall call = {.method = "DELETE",.key = key,.query = {{"versionId", version}}};
	const BucketAnswer *answer;
	int			errnum;

	if (version[0] == '\0')
		return bucket_note(bucket, EINVAL, "the server gave no version id");
	errnum = bucket_call(bucket, &call, &answer);
	return errnum != 0 ? errnum : errno_of_deletion(bucket, answer, true);
}

bool
bucket_rest_if_listed_again(char removed[BUCKET_ID_SIZE], const char *listed, int *tries)
{
	if (strcmp(removed, listed) == 0)
	{
		if (*tries == MAX_TRIES)
			return false;
		/* an interrupt that is pending ends the next request */
		(void) bucket_rest((*tries)++);
		return true;
	}
	*tries = 0;
	strlcpy(removed, listed, BUCKET_ID_SIZE);
	return true;
}


/* ------------------------------------------------------------------ groups --- */

/* The removals of one request, which stand side by side. */
typedef struct RemovalGroup
{
	int			first;
	int			n;
	bool		alone;			/* one removal, by a request of its own */
	StringInfoData body;
	char		md5[BUCKET_MD5_SIZE];
	const char *headers[2];		/* the second is NULL, the end */
} RemovalGroup;

struct BucketRemoving
{
	Bucket	   *bucket;
	BucketRemoval *removals;
	int			n;
	bool		is_stopped;		/* the lease is over */
	int			next;
	int			busy;			/* groups that are on their way */
	int			group_size;
	RemovalGroup *groups;		/* by lane */
};

/* Returns whether XML can hold the key unchanged. */
static bool
fits_xml(const char *key)
{
	int			length = (int) strlen(key);
	const unsigned char *c;

	if (pg_encoding_verifymbstr(PG_UTF8, key, length) != length)
		return false;
	for (c = (const unsigned char *) key; *c != '\0'; c++)
	{
		if (*c < 0x20 || *c == 0x7F)
			return false;
		/* U+FFFE and U+FFFF are no characters */
		if (c[0] == 0xEF && c[1] == 0xBF && c[2] >= 0xBE)
			return false;
	}
	return true;
}

static void
append_removal(StringInfo body, const BucketRemoval *removal)
{
	appendStringInfoString(body, "<Object>");
	bucket_append_element(body, "Key", removal->key);
	if (removal->version != NULL)
		bucket_append_element(body, "VersionId", removal->version);
	appendStringInfoString(body, "</Object>");
}

/*
 * A version without an id is to be alone, and is refused there: among others,
 * a server may take it for no version, and make a marker.
 */
static bool
is_to_be_alone(const BucketRemoving *removing, int i)
{
	const BucketRemoval *removal = &removing->removals[i];

	return removing->group_size == 1 || !fits_xml(removal->key) ||
		(removal->version != NULL && removal->version[0] == '\0');
}

/* Makes the call for one removal.  Returns false if its version has no id. */
static bool
call_alone(RemovalGroup *group, const BucketRemoval *removal, BucketCall *call)
{
	const BucketCall alone = {
		.method = "DELETE",.key = removal->key,.query = {{"versionId", removal->version}},
		.once = removal->version == NULL,.leased = true
	};

	*call = alone;
	group->alone = true;
	group->n = 1;
	return removal->version == NULL || removal->version[0] != '\0';
}

/* Makes the call for a group of removals.  Returns false if there is no MD5. */
static bool
call_together(BucketRemoving *removing, RemovalGroup *group, BucketCall *call)
{
	const BucketRemoval *first = &removing->removals[group->first];
	BucketCall	together = {
		.method = "POST",.query = {{"delete", ""}},.headers = group->headers,
		.once = first->version == NULL,.leased = true
	};

	group->alone = false;
	group->n = 0;
	if (group->body.data == NULL)
		initStringInfo(&group->body);
	resetStringInfo(&group->body);
	appendStringInfoString(&group->body, "<Delete>");
	while (group->n < removing->group_size && group->first + group->n < removing->n &&
		   group->body.len < GROUP_BYTES && !is_to_be_alone(removing, group->first + group->n))
		append_removal(&group->body, first + group->n++);
	appendStringInfoString(&group->body, "</Delete>");
	group->headers[0] = group->md5;
	together.body = group->body.data;
	*call = together;
	return bucket_md5_header(group->body.data, group->md5);
}

static bool
next_group(void *arg, int lane, BucketCall *call)
{
	BucketRemoving *removing = arg;
	RemovalGroup *group = &removing->groups[lane];
	bool		made;

	removing->is_stopped = bucket_lease_is_older(removing->bucket, LEASE_OVER_SECONDS);
	while (removing->next < removing->n && !removing->is_stopped)
	{
		BucketRemoval *removal = &removing->removals[removing->next];

		group->first = removing->next;
		made = is_to_be_alone(removing, group->first) ? call_alone(group, removal, call) :
			call_together(removing, group, call) || call_alone(group, removal, call);
		removing->next += group->n;
		if (made)
		{
			removing->busy++;
			return true;
		}
		removal->again = false;
		removal->errnum = bucket_note(removing->bucket, EINVAL, "the server gave no version id");
	}
	return false;
}


/* ----------------------------------------------------------------- answers --- */

/*
 * Returns the errno for the code of a key, and notes the code; 0 for success.
 */
static int
errno_of_key(Bucket *bucket, const char *code)
{
	if (*code == '\0' || is_gone_code(code))
		return 0;
	return bucket_note(bucket, strcmp(code, "AccessDenied") == 0 ? EACCES :
					   strcmp(code, "SlowDown") == 0 || strcmp(code, "InternalError") == 0 ||
					   strcmp(code, "ServiceUnavailable") == 0 ? EAGAIN : EIO, code);
}

static bool
is_about(const BucketEntry *entry, const BucketRemoval *removal)
{
	return strcmp(entry->key, removal->key) == 0 &&
		(removal->version == NULL || entry->version[0] == '\0' || strcmp(entry->version, removal->version) == 0);
}

static void
take_outcome(Bucket *bucket, const BucketEntry *entry, BucketRemoval *removal)
{
	removal->errnum = errno_of_key(bucket, entry->code);
	removal->again = removal->errnum == EAGAIN;
	if (removal->errnum == 0 && removal->version == NULL && entry->version[0] != '\0')
		removal->marker = pstrdup(entry->version);
}

/*
 * Takes the answers to a group.  As a rule the answers come in the order of
 * the request.
 */
static void
take_entries(Bucket *bucket, const BucketAnswer *answer, BucketRemoval *removals, int n)
{
	int			at = 0;

	for (int i = 0; i < n; i++)
	{
		removals[i].errnum = EAGAIN;
		removals[i].again = true;
	}
	for (int i = 0; i < answer->n_entries; i++)
	{
		int			looked;

		for (looked = 0; looked < n && !is_about(&answer->entries[i], &removals[at]); looked++)
			at = (at + 1) % n;
		if (looked == n)
			continue;
		take_outcome(bucket, &answer->entries[i], &removals[at]);
		at = (at + 1) % n;
	}
}

/*
 * Returns whether the server may still carry out the request later: there was
 * no answer, or a gateway in between has answered, which knows no code of S3.
 */
static bool
may_come_late(int errnum, const BucketAnswer *answer)
{
	if (errnum == ETIMEDOUT)
		return true;
	if (answer == NULL || (errnum != EIO && errnum != EAGAIN))
		return false;
	return answer->status == 0 || answer->status == 502 || answer->status == 504 ||
		(answer->status >= 500 && answer->code[0] == '\0');
}

/*
 * Takes the failure of a request.  EAGAIN without an answer means that the
 * lease had no time for the request.
 */
static void
take_failure(BucketRemoval *removals, int n, int errnum, const BucketAnswer *answer)
{
	bool		is_doubtful = may_come_late(errnum, answer);

	for (int i = 0; i < n; i++)
	{
		removals[i].errnum = errnum;
		removals[i].again = errnum == EAGAIN && answer == NULL;
		removals[i].is_doubtful = is_doubtful;
	}
}

static void
take_group(void *arg, int lane, int errnum, const BucketAnswer *answer)
{
	BucketRemoving *removing = arg;
	const RemovalGroup *group = &removing->groups[lane];
	BucketRemoval *first = &removing->removals[group->first];

	removing->busy--;
	if (errnum == 0)
		errnum = errno_of_deletion(removing->bucket, answer, group->alone);
	if (errnum != 0)
		take_failure(first, group->n, errnum, answer);
	else if (!group->alone)
		take_entries(removing->bucket, answer, first, group->n);
	else
	{
		first->errnum = 0;
		first->again = false;
		if (first->version == NULL && answer->version[0] != '\0')
			first->marker = pstrdup(answer->version);
	}
}


/* ------------------------------------------------------------------- rounds --- */

static bool
is_removed(const void *arg)
{
	const BucketRemoving *removing = arg;

	return removing->busy == 0 && (removing->next == removing->n || removing->is_stopped);
}

BucketRemoving *
bucket_begin_removing(Bucket *bucket, BucketRemoval *removals, int n, BucketCalls *calls)
{
	BucketRemoving *removing = palloc0(sizeof(BucketRemoving));

	removing->bucket = bucket;
	removing->removals = removals;
	removing->n = n;
	for (int i = 0; i < n; i++)
	{
		removals[i].errnum = EAGAIN;
		removals[i].again = true;
		removals[i].is_doubtful = false;
		removals[i].marker = NULL;
	}
	removing->group_size = Min((n + bucket->n_parallel - 1) / bucket->n_parallel, GROUP_KEYS);
	removing->groups = palloc0(sizeof(RemovalGroup) * bucket->n_parallel);
	*calls = (BucketCalls)
	{
		next_group, take_group, is_removed, removing
	};
	return removing;
}

void
bucket_end_removing(BucketRemoving *removing, int errnum)
{
	/* some of the requests may have been on their way */
	for (int i = 0; errnum != 0 && i < removing->n; i++)
		if (removing->removals[i].again)
		{
			removing->removals[i].errnum = errnum;
			removing->removals[i].is_doubtful = true;
		}
	for (int i = 0; i < removing->bucket->n_parallel; i++)
		if (removing->groups[i].body.data != NULL)
			pfree(removing->groups[i].body.data);
	pfree(removing->groups);
	pfree(removing);
}

static int
remove_once(Bucket *bucket, BucketRemoval *removals, int n)
{
	BucketCalls calls;
	BucketRemoving *removing = bucket_begin_removing(bucket, removals, n, &calls);
	int			errnum = bucket_call_many(bucket, &calls);

	bucket_end_removing(removing, errnum);
	return errnum;
}

/*
 * Copies the removals of versions that a busy server has not made to `left`,
 * and their indexes to `which`.  Returns their number.
 */
static int
select_left(const BucketRemoval *removals, int n, BucketRemoval *left, int *which)
{
	int			n_left = 0;

	for (int i = 0; i < n; i++)
	{
		if (!removals[i].again || removals[i].version == NULL)
			continue;
		which[n_left] = i;
		left[n_left++] = removals[i];
	}
	return n_left;
}

int
bucket_remove_many(Bucket *bucket, BucketRemoval *removals, int n)
{
	BucketRemoval *left;
	int		   *which;
	int			n_left;
	int			errnum;

	if (n == 0)
		return 0;
	errnum = remove_once(bucket, removals, n);
	left = palloc(sizeof(BucketRemoval) * n);
	which = palloc(sizeof(int) * n);
	for (int try = 0; errnum == 0 && try < MAX_TRIES; try++)
	{
		n_left = select_left(removals, n, left, which);
		if (n_left == 0)
			break;
		if (!bucket_rest(try))
			errnum = bucket_note(bucket, EINTR, NULL);
		else
			errnum = bucket_stay_leased(bucket).errnum;
		if (errnum == 0)
			errnum = remove_once(bucket, left, n_left);
		for (int i = 0; errnum == 0 && i < n_left; i++)
			removals[which[i]] = left[i];
	}
	pfree(left);
	pfree(which);
	return errnum;
}
