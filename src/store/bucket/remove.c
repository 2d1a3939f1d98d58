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
bucket_remove_version(Bucket *bucket, const char *key, const char *version, bool leased)
{
	const BucketCall call = {.method = "DELETE",.key = key,.query = {{"versionId", version}},.leased = leased};
	const BucketAnswer *answer;
	int			errnum;

	if (version[0] == '\0')
		return bucket_note(bucket, EINVAL, "the server gave no version id");
	errnum = bucket_call(bucket, &call, &answer);
	return errnum != 0 ? errnum : errno_of_deletion(bucket, answer, true);
}

int
bucket_remove_listed(Bucket *bucket, const char *key, const char *listed, bool leased, RemovedVersion *removed)
{
	if (strcmp(removed->version, listed) != 0)
		removed->tries = 0;
	else if (removed->tries == BUCKET_TRIES)
		return bucket_note(bucket, EIO, "the server still lists a version that it has removed");
	else
		/* an interrupt that is pending ends the next request */
		(void) bucket_rest(removed->tries++);
	strlcpy(removed->version, listed, sizeof(removed->version));
	return bucket_remove_version(bucket, key, removed->version, leased);
}


/* ------------------------------------------------------------------ groups --- */

/* The removals of one request, which stand side by side. */
typedef struct RemovalGroup
{
	Bucket	   *bucket;
	int			first;			/* number of the first removal */
	BucketRemoval *removals;	/* from the first on */
	int			n;
	bool		alone;			/* one removal, by a request of its own */
	StringInfoData body;
	char		md5[BUCKET_MD5_SIZE];
	const char *headers[2];		/* the second is NULL, the end */
	RemovalSink sink;
	void	   *arg;
} RemovalGroup;

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

/* Returns whether the removal has no version id: a server may take it for no version, and make a marker. */
static bool
lacks_id(const BucketRemoval *removal)
{
	return removal->version != NULL && removal->version[0] == '\0';
}

/*
 * Fills the group with up to `max` removals that one request can make.  Returns
 * false if there is no MD5, or the first removal must be alone.
 */
static bool
fill_group(RemovalGroup *group, int max)
{
	StringInfo	body = &group->body;

	initStringInfo(body);
	appendStringInfoString(body, "<Delete>");
	for (; group->n < max && body->len < GROUP_BYTES; group->n++)
	{
		const BucketRemoval *removal = &group->removals[group->n];

		if (!fits_xml(removal->key) || lacks_id(removal))
			break;
		append_removal(body, removal);
	}
	appendStringInfoString(body, "</Delete>");
	group->headers[0] = group->md5;
	return group->n > 0 && bucket_md5_header(body->data, group->md5);
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
		removal->marker = entry->version;
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
take_group(void *arg, int errnum, const BucketAnswer *answer)
{
	const RemovalGroup *group = arg;
	BucketRemoval *removals = group->removals;

	if (errnum == 0)
		errnum = errno_of_deletion(group->bucket, answer, group->alone);
	if (errnum != 0)
		take_failure(removals, group->n, errnum, answer);
	else if (!group->alone)
		take_entries(group->bucket, answer, removals, group->n);
	else if (removals->version == NULL && answer->version[0] != '\0')
		removals->marker = answer->version;
	for (int i = 0; i < group->n; i++)
		group->sink(group->arg, group->first + i, &removals[i]);
}

/* Adds the call for the removals of the group. */
static void
call_together(RemovalGroup *group, BucketCalls *calls)
{
	const BucketCall call = {
		.method = "POST",.query = {{"delete", ""}},.headers = group->headers,.body = group->body.data,
		.once = group->removals->version == NULL,.leased = true
	};

	bucket_add_call(calls, &call, take_group, group);
}

/* Adds the call for one removal, which fails if its version has no id. */
static void
call_alone(RemovalGroup *group, BucketCalls *calls)
{
	const BucketRemoval *removal = group->removals;
	const BucketCall call = {
		.method = "DELETE",.key = removal->key,.query = {{"versionId", removal->version}},
		.once = removal->version == NULL,.leased = true
	};

	group->alone = true;
	group->n = 1;
	if (lacks_id(removal))
	{
		(void) bucket_note(group->bucket, EINVAL, "the server gave no version id");
		take_group(group, EINVAL, NULL);
	}
	else
		bucket_add_call(calls, &call, take_group, group);
}

void
bucket_remove_many(Bucket *bucket, BucketRemoval *removals, int n,
				   RemovalSink sink, void *arg, BucketCalls *calls)
{
	int			size = Min((n + bucket->n_parallel - 1) / bucket->n_parallel, GROUP_KEYS);
	RemovalGroup *group;

	for (int first = 0; first < n; first += group->n)
	{
		group = MemoryContextAllocZero(calls->context, sizeof(RemovalGroup));
		group->bucket = bucket;
		group->first = first;
		group->removals = &removals[first];
		group->sink = sink;
		group->arg = arg;
		if (size > 1 && fill_group(group, Min(size, n - first)))
			call_together(group, calls);
		else
			call_alone(group, calls);
	}
}
