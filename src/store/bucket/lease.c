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
 * In a bucket that keeps no versions, or on a server that does not know
 * "If-None-Match", an object is written if nobody has it, and read again when
 * whoever might have looked before us must have written his own, on a server that
 * is as slow for him as it was for us: the last one to write has it, and the
 * others see that.  Such a lease is not given back, but
 * renewed as long as we work, and then it ends.
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
#include "common/pg_prng.h"
#include "portability/instr_time.h"
#include "utils/timestamp.h"

#include "src/store/bucket/bucket.h"

#define CLAIM_PATH		STORE_PRIVATE_DIR "/claim"
#define LEASE_PATH		STORE_PRIVATE_DIR "/lease"

/* a lease ends so long after it was put, and is renewed long before */
#define LEASE_SECONDS	60
#define RENEW_SECONDS	20
#define SAFE_SECONDS	40

/* who writes looks again so long after that, or twice as long as the write has taken; but if that is too long, he has lost */
#define SETTLE_MS		2000
#define LONGEST_WRITE_MS	30000

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
	return *errnum == 0 && (answer->status == 404 || strncmp(answer->body, holder, strlen(holder)) == 0);
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



/* -------------------------------------------------- without versions --- */

/* What an object of ours holds.  Returns 0 or an errno; an answer of 404 is "". */
static int
read_object(Bucket *bucket, const char *key, const BucketAnswer **answer)
{
	const BucketCall call = {.method = "GET",.key = key,.raw = true};
	int			errnum = bucket_call(bucket, &call, answer);

	if (errnum == 0 && (*answer)->status != 200 && (*answer)->status != 404)
		errnum = bucket_note(bucket, EIO, (*answer)->error);
	return errnum;
}

static int
put_object(Bucket *bucket, const char *key, const char *text)
{
	const BucketCall call = {.method = "PUT",.key = key,.body = text};
	const BucketAnswer *answer;
	int			errnum = bucket_call(bucket, &call, &answer);

	return errnum == 0 && answer->status != 200 ? bucket_note(bucket, EIO, answer->error) : errnum;
}

/*
 * Writes an object that nobody had at `looked`, and finds out whether it is
 * ours.  FILE_OK, FILE_OCCUPIED, FILE_FAILED.
 */
static FileResult
write_and_see(Bucket *bucket, const char *key, const char *text, instr_time looked, const char *action)
{
	const BucketAnswer *answer;
	instr_time	took;
	int			errnum = put_object(bucket, key, text);
	int			took_ms;

	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, looked);
	took_ms = (int) INSTR_TIME_GET_MILLISEC(took);
	if (errnum == 0 && took_ms > LONGEST_WRITE_MS)
		return give_up(bucket, EAGAIN, action, "the server is too slow to tell who was first");
	if (errnum == 0 && !bucket_sleep(Max(SETTLE_MS, 2 * took_ms)))
		errnum = bucket_note(bucket, EINTR, strerror(EINTR));
	if (errnum == 0)
		errnum = read_object(bucket, key, &answer);
	if (errnum != 0)
		return fail(errnum, action);
	return come_to(answer->status == 200 && strcmp(answer->body, text) == 0 ? FILE_OK : FILE_OCCUPIED);
}

/* May the lease be written: is it ours, or nobody's, or has it ended? */
static bool
is_free(const Bucket *bucket, const BucketAnswer *answer, const char *holder)
{
	return answer->status == 404 || strncmp(answer->body, holder, strlen(holder)) == 0 ||
		bucket->date - answer->modified > LEASE_SECONDS;
}

static FileResult
renew_plain_lease(Bucket *bucket, const char *key)
{
	static const char action[] = "take the lease";
	char		holder[64];
	const BucketAnswer *answer;
	instr_time	looked;
	FileResult	result;
	bool		is_held = bucket->lease[0] != '\0';
	int			errnum;

	name_holder(holder);
	if (!is_held)
		snprintf(bucket->lease, sizeof(bucket->lease), "%s-%016llx", holder,
				 (unsigned long long) pg_prng_uint64(&pg_global_prng_state));
	INSTR_TIME_SET_CURRENT(looked);
	errnum = read_object(bucket, key, &answer);
	if (errnum != 0)
		result = fail(errnum, action);
	else if (is_held && strcmp(answer->body, bucket->lease) == 0)
	{
		errnum = put_object(bucket, key, bucket->lease);
		result = errnum == 0 ? come_to(FILE_OK) : fail(errnum, action);
	}
	else if (!is_free(bucket, answer, holder))
		result = come_to(FILE_OCCUPIED);
	else
		result = write_and_see(bucket, key, bucket->lease, looked, action);
	if (result.outcome == FILE_OK)
		bucket->leased_at = looked;
	else
		bucket->lease[0] = '\0';
	return result;
}


/* ------------------------------------------------------------------- lease --- */

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
	if (!bucket->enabled && (errnum = bucket_prove(bucket)) != 0)
		return fail(errnum, "try a deletion");
	if (!bucket->enabled && !bucket->conditional)
		return give_up(bucket, ENOTSUP, "delete safely", "the bucket keeps no versions");
	if (!bucket->enabled)
		return renew_plain_lease(bucket, key);
	bucket->conditional = false;
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

/* In seconds. */
static double
lease_age(const Bucket *bucket)
{
	instr_time	elapsed;

	INSTR_TIME_SET_CURRENT(elapsed);
	INSTR_TIME_SUBTRACT(elapsed, bucket->leased_at);
	return INSTR_TIME_GET_DOUBLE(elapsed);
}

bool
bucket_lease_ends(const Bucket *bucket)
{
	return bucket->lease[0] == '\0' || lease_age(bucket) > SAFE_SECONDS;
}

FileResult
bucket_keep_lease(Bucket *bucket)
{
	FileResult	result;

	if (bucket->lease[0] != '\0' && lease_age(bucket) < RENEW_SECONDS)
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

	/* of a plain one nobody could tell whether it is still ours */
	if (bucket->conditional)
		return;
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

/* The server does not know If-None-Match. */
static FileResult
claim_by_reading(Bucket *bucket, const char *key, const char *text)
{
	static const char action[] = "write claim";
	const BucketAnswer *answer;
	instr_time	looked;
	int			errnum;

	INSTR_TIME_SET_CURRENT(looked);
	errnum = read_object(bucket, key, &answer);
	if (errnum != 0)
		return fail(errnum, action);
	if (answer->status != 404)
		return come_to(FILE_OCCUPIED);
	return write_and_see(bucket, key, text, looked, action);
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
	if (answer->status == 501)
		return claim_by_reading(bucket, key, text);
	if (answer->status == 412 || answer->status == 409)
		return come_to(FILE_OCCUPIED);
	return answer->status == 200 ? come_to(FILE_OK) : give_up(bucket, EIO, "write claim", answer->error);
}
