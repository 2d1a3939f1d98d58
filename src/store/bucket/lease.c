/*-------------------------------------------------------------------------
 *
 * store/bucket/lease.c
 *	  The claim of a bucket, and the lease on the bucket: two objects of ours.
 *
 * The claim is written by "If-None-Match: *", so that one of two databases
 * gets the bucket.
 *
 * The lease takes the place of a lock on a file.  The lease ends by itself,
 * because a process that dies cannot give the lease back.  A process that
 * wants the lease puts a version of one object, and lists the versions of that
 * object.  The oldest version has the lease; a later process removes its own
 * version again.  To renew the lease, a process puts a new version, and
 * removes its old one; if another version is the oldest by then, the lease is
 * lost.  Only the clock of the server dates a version, and tells its age.
 *
 * In a bucket that keeps no versions, a process writes an object if no other
 * process has written it, waits, and reads the object again.  The last process
 * to write has the lease, and all other processes see the new content.  The
 * wait is long enough for any other process that looked before our write: in
 * that time its write has ended, if the server is equally slow for both
 * processes.  Such a lease is not given back.  The process renews the lease
 * during its work, and later the lease ends.  A claim is written in this way,
 * too, on a server that does not know "If-None-Match", or ignores it.
 *
 * No change may reach the server after another process has got the lease.  So
 * each request that changes files is leased: each of its tries begins while the
 * lease is in force, and is given up before the lease ends.  A lease that has
 * ended is not taken again in the midst of a change, because another process
 * may have had the lease meanwhile, and the bucket may be claimed by another
 * database.
 *
 * Only a process that changes something in the bucket has the lease.  A
 * transaction that merely plans looks whether another process has the lease.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "utils/timestamp.h"

#include "src/store/bucket/bucket.h"

#define CLAIM_PATH		STORE_PRIVATE_DIR "/claim"
#define LEASE_PATH		STORE_PRIVATE_DIR "/lease"

/* a lease is renewed after this time */
#define RENEW_SECONDS	20

/*
 * write_and_see() waits SETTLE_MS, or twice as long as the write has taken; a
 * longer write than LONGEST_WRITE_MS fails
 */
#define SETTLE_MS		2000
#define LONGEST_WRITE_MS	30000

/* Sets `holder` to the name of this server, which changes when the server starts. */
static void
name_holder(char holder[64])
{
	snprintf(holder, 64, UINT64_FORMAT "-" INT64_FORMAT, GetSystemIdentifier(), (int64) PgStartTime);
}

/*
 * Returns whether the version was put by this server, or is gone.  One process
 * of this server works in the bucket at a time, so the process that has put
 * the version does not need the version any more.  Sets *errnum if the owner
 * of the version cannot be told.
 */
static bool
is_lease_ours(Bucket *bucket, const char *key, const char *version, int *errnum)
{
	const BucketCall call = {.method = "GET",.key = key,.query = {{"versionId", version}},.raw = true};
	const BucketAnswer *answer;
	char		holder[64];

	*errnum = bucket_call(bucket, &call, &answer);
	name_holder(holder);
	/* a version that is gone does no harm */
	return *errnum == 0 && (bucket_says_gone(answer) || strncmp(answer->body, holder, strlen(holder)) == 0);
}

/*
 * Goes through the versions of the lease, from the oldest version to `own`, or
 * with "" to the newest.  With `remove`, removes versions that are not in
 * force; without, looks only at the oldest version.  FILE_OK if no version of
 * another server is in force, FILE_OCCUPIED, FILE_FAILED.
 */
static FileResult
judge_others(Bucket *bucket, const char *key, const char *own, bool remove)
{
	static const char failure[] = "could not look at the lease";
	KeyVersions versions;
	BucketEntry oldest;
	RemovedVersion removed = {""};
	int			errnum;

	for (;;)
	{
		if ((errnum = bucket_list_versions(bucket, key, NULL, &versions)) != 0)
			return fail(errnum, failure);
		if (versions.n == 0)
			return *own == '\0' ? come_to(FILE_OK) : fail(bucket_note(bucket, ESTALE, "the lease was lost"), failure);
		oldest = versions.entries[versions.n - 1];
		if (strcmp(oldest.version, own) == 0)
			return come_to(FILE_OK);
		if (!oldest.is_marker && bucket->date - oldest.modified <= LEASE_SECONDS &&
			!is_lease_ours(bucket, key, oldest.version, &errnum))
			return errnum == 0 ? come_to(FILE_OCCUPIED) : fail(errnum, failure);
		/* younger versions do not have the lease */
		if (!remove)
			return come_to(FILE_OK);
		if ((errnum = bucket_remove_listed(bucket, key, oldest.version, false, &removed)) != 0)
			return fail(errnum, failure);
	}
}

/* Writes an object of ours.  Returns 0 or an errno. */
static int
put_object(Bucket *bucket, const char *key, const char *text, const BucketAnswer **answer)
{
	const BucketCall call = {.method = "PUT",.key = key,.body = text};

	return bucket_ask(bucket, &call, answer);
}

/* Puts a version of the lease: `version`. */
static FileResult
put_lease(Bucket *bucket, const char *key, char version[BUCKET_ID_SIZE])
{
	char		holder[64];
	const BucketAnswer *answer;
	int			errnum;

	name_holder(holder);
	errnum = put_object(bucket, key, holder, &answer);
	if (errnum == 0 && answer->version[0] == '\0')
		errnum = bucket_note(bucket, EIO, "the server gave no version id");
	if (errnum != 0)
		return fail(errnum, "could not take the lease");
	strlcpy(version, answer->version, BUCKET_ID_SIZE);
	return come_to(FILE_OK);
}

static double
seconds_since(int64 since)
{
	return (double) (time_monotonic_us() - since) / USECS_PER_SEC;
}

/* Returns the age of the lease in seconds. */
static double
lease_age(const Bucket *bucket)
{
	return seconds_since(bucket->leased_at);
}


/* -------------------------------------------------- without versions --- */

/*
 * Reads an object of ours.  Returns 0, also if there is no such object (status
 * 404), or an errno, also if a proxy has answered with a bare status 404.
 */
static int
read_object(Bucket *bucket, const char *key, const BucketAnswer **answer)
{
	const BucketCall call = {.method = "GET",.key = key,.raw = true};
	int			errnum = bucket_call(bucket, &call, answer);

	if (errnum == 0 && (*answer)->status != 200 && !bucket_says_gone(*answer))
		errnum = bucket_note(bucket, EIO, (*answer)->error);
	return errnum;
}

/*
 * Writes an object that nobody had at the time `looked`, and finds out whether
 * this process was the last to write: see above.  FILE_OK, FILE_OCCUPIED,
 * FILE_FAILED.
 */
static FileResult
write_and_see(Bucket *bucket, const char *key, const char *text, int64 looked, const char *failure)
{
	const BucketAnswer *answer;
	int			errnum = put_object(bucket, key, text, &answer);
	int			took_ms = (int) ((time_monotonic_us() - looked) / 1000);

	if (errnum == 0 && took_ms > LONGEST_WRITE_MS)
		return fail(bucket_note(bucket, EAGAIN, "the server is too slow to tell who was first"), failure);
	if (errnum == 0 && !bucket_sleep(Max(SETTLE_MS, 2 * took_ms)))
		errnum = bucket_note(bucket, EINTR, NULL);
	if (errnum == 0)
		errnum = read_object(bucket, key, &answer);
	if (errnum != 0)
		return fail(errnum, failure);
	return come_to(answer->status == 200 && strcmp(answer->body, text) == 0 ? FILE_OK : FILE_OCCUPIED);
}

/*
 * Returns whether the lease may be written: the lease is ours, or nobody's, or
 * has ended.  A lease of which the server tells no date has not ended.
 */
static bool
is_free(const Bucket *bucket, const BucketAnswer *answer, const char *holder)
{
	return answer->status == 404 || strncmp(answer->body, holder, strlen(holder)) == 0 ||
		(answer->modified != 0 && bucket->date - answer->modified > LEASE_SECONDS);
}

/* Takes or renews the lease in a bucket without versions. */
static FileResult
renew_plain_lease(Bucket *bucket, const char *key)
{
	static const char failure[] = "could not take the lease";
	char		holder[64];
	const BucketAnswer *answer;
	int64		looked = time_monotonic_us();
	FileResult	result;
	bool		is_held = bucket->lease[0] != '\0' && lease_age(bucket) < LEASE_SECONDS;
	int			errnum;

	name_holder(holder);
	if (!is_held)
		snprintf(bucket->lease, sizeof(bucket->lease), "%s-%016llx", holder, bucket_random());
	errnum = read_object(bucket, key, &answer);
	if (errnum != 0)
		result = fail(errnum, failure);
	else if (is_held && strcmp(answer->body, bucket->lease) == 0)
	{
		errnum = put_object(bucket, key, bucket->lease, &answer);

		/*
		 * a lease that was renewed too late may have been taken by another
		 * process before
		 */
		result = errnum != 0 ? fail(errnum, failure) :
			come_to(lease_age(bucket) < LEASE_SECONDS ? FILE_OK : FILE_OCCUPIED);
	}
	else if (!is_free(bucket, answer, holder))
		result = answer->modified != 0 ? come_to(FILE_OCCUPIED) :
			fail(bucket_note(bucket, EIO, "the server does not tell when the lease was written"), failure);
	else
		result = write_and_see(bucket, key, bucket->lease, looked, failure);
	if (result.outcome == FILE_OK)
		bucket->leased_at = looked;
	else
		bucket->lease[0] = '\0';
	return result;
}


/* ------------------------------------------------------------------- lease --- */

/*
 * Puts one more version of the lease, and removes that version again: a process
 * that can hide files, and cannot remove markers, could not show a file again
 * that is needed.  FILE_OK, FILE_FAILED.
 */
static FileResult
try_removal(Bucket *bucket, const char *key)
{
	char		version[BUCKET_ID_SIZE];
	FileResult	result = put_lease(bucket, key, version);
	int			errnum;

	if (result.outcome != FILE_OK)
		return result;
	errnum = bucket_remove_version(bucket, key, version, false);
	return errnum == 0 ? result : fail(errnum, "could not remove a version of the lease");
}

/* Takes or renews the lease.  FILE_OK, FILE_OCCUPIED, FILE_FAILED. */
static FileResult
renew_lease(Bucket *bucket)
{
	char		key[BUCKET_KEY_MAX + 1];
	char		version[BUCKET_ID_SIZE];
	int64		now = time_monotonic_us();
	bool		proven;
	FileResult	result = {FILE_OK};
	int			errnum = bucket_reach((FileStore *) bucket);

	bucket_own_key(bucket, LEASE_PATH, key);
	if (errnum != 0)
		return fail(errnum, "could not ask for versioning");
	if (!bucket->enabled && (errnum = bucket_prove((FileStore *) bucket, &proven)) != 0)
		return fail(errnum, "could not try a deletion");
	if (!bucket->enabled && !proven)
		return fail(bucket_note(bucket, ENOTSUP, "the bucket keeps no versions"), "could not delete safely");
	if (!bucket->enabled)
		return renew_plain_lease(bucket, key);
	bucket->conditional = false;

	/*
	 * a version of the lease that is not in force, and stays, would be one
	 * more each time, and the list of versions has its limit
	 */
	if (bucket->lease[0] == '\0')
		result = judge_others(bucket, key, "", true);
	if (result.outcome != FILE_OK)
		return result;
	result = put_lease(bucket, key, version);
	if (result.outcome == FILE_OK && bucket->lease[0] == '\0')
		result = try_removal(bucket, key);
	else if (result.outcome == FILE_OK && (errnum = bucket_remove_version(bucket, key, bucket->lease, false)) != 0)
		result = fail(errnum, "could not renew the lease");
	if (result.outcome == FILE_OK)
		result = judge_others(bucket, key, version, true);
	bucket->lease[0] = '\0';
	if (result.outcome == FILE_OK)
	{
		strlcpy(bucket->lease, version, sizeof(bucket->lease));
		bucket->leased_at = now;
	}
	else if (result.outcome == FILE_OCCUPIED)
		(void) bucket_remove_version(bucket, key, version, false);
	return result;
}

bool
bucket_lease_is_older(const Bucket *bucket, int seconds)
{
	return bucket->lease[0] == '\0' || lease_age(bucket) > seconds;
}

FileResult
bucket_keep_lease(Bucket *bucket)
{
	FileResult	result;

	if (bucket->lease[0] != '\0' && lease_age(bucket) < RENEW_SECONDS)
		return come_to(FILE_OK);
	result = renew_lease(bucket);
	if (result.outcome == FILE_OCCUPIED)
		return fail(bucket_note(bucket, EBUSY, "another server works on the bucket"), "could not take the lease");
	return result;
}

FileResult
bucket_stay_leased(Bucket *bucket)
{
	int64		held_since = bucket->leased_at;
	FileResult	result = come_to(FILE_OK);

	if (bucket->lease[0] != '\0' && lease_age(bucket) < LEASE_SECONDS)
		result = bucket_keep_lease(bucket);
	if (result.outcome == FILE_OK && bucket->lease[0] != '\0' && seconds_since(held_since) < LEASE_SECONDS)
		return result;
	/* the lease ends by itself; without a lease, the rest of the change fails */
	bucket->lease[0] = '\0';
	return result.outcome != FILE_OK ? result :
		fail(bucket_note(bucket, EBUSY, "the lease ended before the work on the bucket was done"), "could not keep the lease");
}

/*
 * Only looks whether another process has the lease: the first change takes the
 * lease.
 */
FileResult
bucket_lock(FileStore *store)
{
	Bucket	   *bucket = bucket_of(store);
	char		key[BUCKET_KEY_MAX + 1];

	bucket_own_key(bucket, LEASE_PATH, key);
	return bucket->lease[0] != '\0' ? come_to(FILE_OK) : judge_others(bucket, key, "", false);
}

/* Asks the network only if there is a lease. */
void
bucket_unlock(FileStore *store)
{
	Bucket	   *bucket = bucket_of(store);
	char		key[BUCKET_KEY_MAX + 1];

	/* nobody could tell whether a lease without versions is still ours */
	if (bucket->conditional)
		return;
	bucket_own_key(bucket, LEASE_PATH, key);
	if (bucket->lease[0] != '\0')
		(void) bucket_remove_version(bucket, key, bucket->lease, false);
	bucket->lease[0] = '\0';
}


/* ------------------------------------------------------------------- claim --- */

FileResult
bucket_read_claim(FileStore *store, char text[STORE_CLAIM_MAX])
{
	Bucket	   *bucket = bucket_of(store);
	char		key[BUCKET_KEY_MAX + 1];
	const BucketAnswer *answer;
	int			errnum;

	text[0] = '\0';
	bucket_own_key(bucket, CLAIM_PATH, key);
	errnum = read_object(bucket, key, &answer);
	if (errnum != 0)
		return fail(errnum, "could not read claim");
	if (answer->status == 404)
		return come_to(FILE_VANISHED);
	strlcpy(text, answer->body, STORE_CLAIM_MAX);
	return come_to(FILE_OK);
}

/* Writes the claim on a server that does not know If-None-Match. */
static FileResult
claim_by_reading(Bucket *bucket, const char *key, const char *text)
{
	static const char failure[] = "could not write claim";
	const BucketAnswer *answer;
	int64		looked = time_monotonic_us();
	int			errnum = read_object(bucket, key, &answer);

	if (errnum != 0)
		return fail(errnum, failure);
	if (answer->status != 404)
		return come_to(FILE_OCCUPIED);
	return write_and_see(bucket, key, text, looked, failure);
}

static bool
is_refused(const BucketAnswer *answer)
{
	return answer->status == 412 || answer->status == 409;
}

/*
 * Finds out, after the claim was written by "If-None-Match: *", whether the
 * server honours this header: the server must refuse the same request now.  A
 * server that ignores the header may have replaced the claim of somebody else.
 */
static FileResult
try_claim_again(Bucket *bucket, const BucketCall *call, int64 looked)
{
	static const char failure[] = "could not write claim";
	const BucketAnswer *answer;
	int			errnum = bucket_call(bucket, call, &answer);

	if (errnum != 0)
		return fail(errnum, failure);
	return is_refused(answer) ? come_to(FILE_OK) : write_and_see(bucket, call->key, call->body, looked, failure);
}

FileResult
bucket_write_claim(FileStore *store, const char *text, bool replace)
{
	static const char *const absent[] = {"if-none-match: *", NULL};
	Bucket	   *bucket = bucket_of(store);
	char		key[BUCKET_KEY_MAX + 1];
	const BucketCall call = {.method = "PUT",.key = key,.body = text,.headers = replace ? NULL : absent};
	const BucketAnswer *answer;
	int64		looked = time_monotonic_us();
	int			errnum;

	bucket_own_key(bucket, CLAIM_PATH, key);
	errnum = bucket_call(bucket, &call, &answer);
	if (errnum != 0)
		return fail(errnum, "could not write claim");
	if (answer->status == 501)
		return claim_by_reading(bucket, key, text);
	if (is_refused(answer))
		return come_to(FILE_OCCUPIED);
	if (answer->status == 200 && !replace)
		return try_claim_again(bucket, &call, looked);
	return answer->status == 200 ? come_to(FILE_OK) : fail(bucket_note(bucket, EIO, answer->error), "could not write claim");
}
