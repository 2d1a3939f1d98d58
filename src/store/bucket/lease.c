/*-------------------------------------------------------------------------
 *
 * store/bucket/lease.c
 *	  The claim of a bucket, and the lease on it: two objects of ours.
 *
 * The claim is written by "If-None-Match: *", so that of two databases one
 * gets the bucket.
 *
 * The lease takes the place of a lock on a file.  It ends by itself, since a
 * process that dies cannot give it back.  Each who wants it puts a version of
 * one object, and lists its versions: the oldest one has the lease, and who
 * comes later removes his own again.  To renew it is to put a new version,
 * and to remove the old one: if another's is the oldest by then, the lease is
 * lost.  A version is dated and judged by the clock of the server alone.
 *
 * Only the process that changes something in the bucket has the lease.  A
 * transaction that merely plans looks whether somebody else has it.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "portability/instr_time.h"
#include "utils/timestamp.h"

#include "src/store/bucket/bucket.h"

#define CLAIM_PATH		STORE_PRIVATE_DIR "/claim"
#define LEASE_PATH		STORE_PRIVATE_DIR "/lease"

/* a lease ends so long after it was put, and is renewed long before */
#define LEASE_SECONDS	60
#define RENEW_SECONDS	20

/* The holder's name is that of this server, as long as the server runs. */
static void
name_holder(char holder[64])
{
	snprintf(holder, 64, UINT64_FORMAT "-" INT64_FORMAT, GetSystemIdentifier(), (int64) PgStartTime);
}

static FileResult
give_up(Bucket *bucket, int errnum, const char *action, const char *error)
{
	if (error != NULL)
		(void) bucket_note(bucket, errnum, error);
	return fail(errnum, action);
}

/* Is the version of a server that runs on?  Of our own, another process has it no more: there is one at a time. */
static bool
is_ours(Bucket *bucket, const char *key, const char *version, int *errnum)
{
	char		query[3 * BUCKET_ID_SIZE + 16] = "versionId=";
	const BucketCall call = {.method = "GET",.key = key,.query = query,.raw = true};
	const BucketAnswer *answer;
	char		holder[64];

	if (!bucket_encode(query, sizeof(query), version))
		return false;
	*errnum = bucket_call(bucket, &call, &answer);
	name_holder(holder);
	/* one that is gone is in nobody's way */
	return *errnum == 0 && (answer->status == 404 || strcmp(answer->body, holder) == 0);
}

/*
 * Goes through the versions of the lease from the oldest one up to `own`, or
 * with "" up to the newest.  Returns the outcome: FILE_OK if none of them is
 * in force.  With `remove`, those are removed that are not.
 */
static FileResult
judge_others(Bucket *bucket, const char *key, const char *own, bool remove)
{
	static const char action[] = "look at the lease";
	KeyVersions versions;
	BucketEntry oldest;
	int			errnum;

	for (;;)
	{
		if ((errnum = bucket_list_versions(bucket, key, NULL, &versions)) != 0)
			return fail(errnum, action);
		if (versions.n == 0)
			return *own == '\0' ? come_to(FILE_OK) : give_up(bucket, ESTALE, action, "the lease was lost");
		oldest = versions.entries[versions.n - 1];
		if (strcmp(oldest.version, own) == 0)
			return come_to(FILE_OK);
		if (!oldest.is_marker && bucket->date - oldest.modified <= LEASE_SECONDS &&
			!is_ours(bucket, key, oldest.version, &errnum))
			return errnum == 0 ? come_to(FILE_OCCUPIED) : fail(errnum, action);
		/* whoever only looks need not look further */
		if (!remove)
			return come_to(FILE_OK);
		if ((errnum = bucket_remove_version(bucket, key, oldest.version)) != 0)
			return fail(errnum, action);
	}
}

static FileResult
put_lease(Bucket *bucket, const char *key, char version[BUCKET_ID_SIZE])
{
	char		holder[64];
	const BucketCall call = {.method = "PUT",.key = key,.body = holder};
	const BucketAnswer *answer;
	int			errnum;

	name_holder(holder);
	errnum = bucket_call(bucket, &call, &answer);
	if (errnum != 0)
		return fail(errnum, "take the lease");
	if (answer->status != 200 || answer->version[0] == '\0')
		return give_up(bucket, EIO, "take the lease",
					   answer->error[0] ? answer->error : "the server gave no version id");
	strlcpy(version, answer->version, BUCKET_ID_SIZE);
	return come_to(FILE_OK);
}

static FileResult
renew_lease(Bucket *bucket)
{
	char		key[BUCKET_KEY_MAX + 1];
	char		version[BUCKET_ID_SIZE];
	instr_time	now;
	FileResult	result;
	int			errnum = bucket_key(bucket, LEASE_PATH, key);

	INSTR_TIME_SET_CURRENT(now);
	if (errnum == 0)
		errnum = bucket_ask_versioning(bucket);
	if (errnum != 0)
		return fail(errnum, "ask for versioning");
	if (!bucket->enabled)
		return give_up(bucket, ENOTSUP, "delete safely", "the bucket keeps no versions");
	result = put_lease(bucket, key, version);
	if (result.outcome == FILE_OK && bucket->lease[0] != '\0' &&
		(errnum = bucket_remove_version(bucket, key, bucket->lease)) != 0)
		result = fail(errnum, "renew the lease");
	if (result.outcome == FILE_OK)
		result = judge_others(bucket, key, version, true);
	bucket->lease[0] = '\0';
	if (result.outcome == FILE_OK)
	{
		strlcpy(bucket->lease, version, sizeof(bucket->lease));
		bucket->leased_at = now;
	}
	else if (result.outcome == FILE_OCCUPIED)
		(void) bucket_remove_version(bucket, key, version);
	return result;
}

FileResult
bucket_keep_lease(Bucket *bucket)
{
	FileResult	result;
	instr_time	elapsed;

	INSTR_TIME_SET_CURRENT(elapsed);
	INSTR_TIME_SUBTRACT(elapsed, bucket->leased_at);
	if (bucket->lease[0] != '\0' && INSTR_TIME_GET_DOUBLE(elapsed) < RENEW_SECONDS)
		return come_to(FILE_OK);
	result = renew_lease(bucket);
	if (result.outcome == FILE_OCCUPIED)
		return give_up(bucket, EBUSY, "take the lease", "another server works on the bucket");
	return result;
}

/* The lease itself is taken by the first change. */
FileResult
bucket_lock(FileStore *store)
{
	Bucket	   *bucket = bucket_of(store);
	char		key[BUCKET_KEY_MAX + 1];
	int			errnum = bucket_key(bucket, LEASE_PATH, key);

	if (errnum != 0)
		return fail(errnum, "look at the lease");
	return bucket->lease[0] != '\0' ? come_to(FILE_OK) : judge_others(bucket, key, "", false);
}

/* Asks the network only if there was a change. */
void
bucket_unlock(FileStore *store)
{
	Bucket	   *bucket = bucket_of(store);
	char		key[BUCKET_KEY_MAX + 1];

	if (bucket->lease[0] != '\0' && bucket_key(bucket, LEASE_PATH, key) == 0)
		(void) bucket_remove_version(bucket, key, bucket->lease);
	bucket->lease[0] = '\0';
}


/* ------------------------------------------------------------------- claim --- */

FileResult
bucket_read_claim(FileStore *store, char text[STORE_CLAIM_MAX])
{
	Bucket	   *bucket = bucket_of(store);
	char		key[BUCKET_KEY_MAX + 1];
	const BucketCall call = {.method = "GET",.key = key,.raw = true};
	const BucketAnswer *answer;
	int			errnum = bucket_key(bucket, CLAIM_PATH, key);

	text[0] = '\0';
	if (errnum == 0)
		errnum = bucket_call(bucket, &call, &answer);
	if (errnum != 0)
		return fail(errnum, "read claim");
	if (answer->status == 404)
		return come_to(FILE_VANISHED);
	if (answer->status != 200)
		return give_up(bucket, EIO, "read claim", answer->error);
	strlcpy(text, answer->body, STORE_CLAIM_MAX);
	return come_to(FILE_OK);
}

FileResult
bucket_write_claim(FileStore *store, const char *text, bool replace)
{
	static const char *const absent[] = {"If-None-Match: *", NULL};
	Bucket	   *bucket = bucket_of(store);
	char		key[BUCKET_KEY_MAX + 1];
	const BucketCall call = {.method = "PUT",.key = key,.body = text,.headers = replace ? NULL : absent};
	const BucketAnswer *answer;
	int			errnum = bucket_key(bucket, CLAIM_PATH, key);

	if (errnum == 0)
		errnum = bucket_call(bucket, &call, &answer);
	if (errnum != 0)
		return fail(errnum, "write claim");
	if (answer->status == 412 || answer->status == 409)
		return come_to(FILE_OCCUPIED);
	return answer->status == 200 ? come_to(FILE_OK) : give_up(bucket, EIO, "write claim", answer->error);
}
