/*-------------------------------------------------------------------------
 *
 * store/bucket/conditional.c
 *	  A bucket that keeps no versions: a file is deleted for good, if the file
 *	  still is the condemned file.
 *
 * The deletion needs a server that honours "If-Match" of a DELETE.  Many
 * servers ignore this header, and delete.  So the server must first pass a
 * test with an object of ours, the canary.  With a wrong ETag the server must
 * refuse, and keep the canary; with the right ETag the server must delete the
 * canary.
 *
 * A file is known by its ETag, date and size.  Every such server compares the
 * ETag, and some compare the date, too ("If-Unmodified-Since").  On the other
 * servers, somebody who writes the same bytes once more between our look and
 * the DELETE loses that copy.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "pgtime.h"

#include "src/store/bucket/bucket.h"

#define CANARY_PATH		STORE_PRIVATE_DIR "/canary-"

/* an ETag that no object has */
#define WRONG_ETAG		"\"00000000000000000000000000000000\""

typedef struct Canary
{
	Bucket	   *bucket;
	char		key[BUCKET_KEY_MAX + 1];
	char		text[64];
	char		etag[BUCKET_ID_SIZE];
} Canary;

/* Makes a request about the canary, with If-Match unless `etag` is NULL.  Returns 0 or an errno. */
static int
ask_canary(const Canary *canary, const char *method, const char *etag, const BucketAnswer **answer)
{
	char		header[BUCKET_ID_SIZE + 16];
	const char *const headers[] = {header, NULL};
	const BucketCall call = {
		.method = method,
		.key = canary->key,
		.headers = etag ? headers : NULL,
		.body = strcmp(method, "PUT") == 0 ? canary->text : NULL,
		.raw = strcmp(method, "GET") == 0
	};

	snprintf(header, sizeof(header), "if-match: %s", etag ? etag : "");
	return bucket_call(canary->bucket, &call, answer);
}

/* Writes the canary, and keeps its ETag.  Returns 0 or an errno. */
static int
put(Canary *canary)
{
	const BucketAnswer *answer;
	int			errnum = ask_canary(canary, "PUT", NULL, &answer);

	if (errnum == 0 && (answer->status != 200 || answer->etag[0] == '\0'))
		return bucket_note(canary->bucket, EIO, answer->error[0] ? answer->error : "the server gave no ETag");
	if (errnum == 0)
		strlcpy(canary->etag, answer->etag, sizeof(canary->etag));
	return errnum;
}

/*
 * Deletes the canary by an ETag.  Sets *refused to whether the server has
 * refused the deletion, and *there to whether the canary is still there, and
 * whole.  Returns 0 or an errno.
 */
static int
delete(const Canary *canary, const char *etag, bool *refused, bool *there)
{
	const BucketAnswer *answer;
	int			errnum = ask_canary(canary, "DELETE", etag, &answer);

	if (errnum != 0)
		return errnum;
	*refused = answer->status == 412;
	if (answer->status >= 300 && !*refused)
		return bucket_note(canary->bucket, EIO, answer->error);
	errnum = ask_canary(canary, "GET", NULL, &answer);
	*there = errnum == 0 && answer->status == 200 && strcmp(answer->body, canary->text) == 0;
	return errnum;
}

/* Sets *proven to whether the server has passed the test.  Returns 0 or an errno. */
static int
test_canary(Canary *canary, bool *proven)
{
	bool		refused;
	bool		there;
	int			errnum = put(canary);

	*proven = false;
	if (errnum == 0)
		errnum = delete(canary, WRONG_ETAG, &refused, &there);
	if (errnum != 0 || !refused || !there)
		return errnum;
	errnum = delete(canary, canary->etag, &refused, &there);
	*proven = errnum == 0 && !refused && !there;
	return errnum;
}

int
bucket_prove(FileStore *store, bool *proven)
{
	Bucket	   *bucket = bucket_of(store);
	Canary		canary = {bucket};
	char		path[64];
	const BucketAnswer *answer;
	int			errnum = 0;

	/*
	 * in a bucket that kept versions once, a deletion would show an older
	 * version
	 */
	if (bucket->enabled || bucket->suspended)
		bucket->conditional = false;
	else if (!bucket->conditional)
	{
		/*
		 * a name of its own, because other processes may try their canary at
		 * the same time
		 */
		snprintf(path, sizeof(path), "%s%016llx", CANARY_PATH, bucket_random());
		snprintf(canary.text, sizeof(canary.text), "%016llx", bucket_random());
		bucket_own_key(bucket, path, canary.key);
		errnum = test_canary(&canary, &bucket->conditional);
		if (!bucket->conditional && canary.etag[0] != '\0' && errnum != EINTR)
			(void) ask_canary(&canary, "DELETE", NULL, &answer);
	}
	*proven = bucket->conditional;
	return errnum;
}


/* ------------------------------------------------------------------- files --- */

/* The deletion of a file. */
typedef struct Deletion
{
	Bucket	   *bucket;
	FileResult *result;
	char		etag[BUCKET_ID_SIZE + 16];
	char		date[64];
	const char *headers[3];
} Deletion;

/*
 * Takes the outcome of a deletion.  A file that is gone is a success, because a
 * request is repeated if its answer was lost.
 */
static void
take_deleted(void *arg, int errnum, const BucketAnswer *answer)
{
	const Deletion *deletion = arg;

	if (errnum == 0 && answer->status >= 300 && answer->status != 412 && !bucket_says_gone(answer))
		errnum = bucket_note(deletion->bucket, EIO, answer->error);
	*deletion->result = errnum != 0 ? fail(errnum, "could not delete file") :
		come_to(answer->status == 412 ? FILE_REPLACED : FILE_OK);
}

void
bucket_delete_conditionally(Bucket *bucket, const char *key, const SeenFile *seen, FileResult *result,
							BucketCalls *calls)
{
	Deletion   *deletion = MemoryContextAlloc(calls->context, sizeof(Deletion));
	const BucketCall call = {.method = "DELETE",.key = key,.headers = deletion->headers,.leased = true};
	pg_time_t	modified = seen->modified;

	deletion->bucket = bucket;
	deletion->result = result;
	snprintf(deletion->etag, sizeof(deletion->etag), "if-match: %s", seen->etag);
	(void) pg_strftime(deletion->date, sizeof(deletion->date), "if-unmodified-since: %a, %d %b %Y %H:%M:%S GMT",
					   pg_gmtime(&modified));
	deletion->headers[0] = deletion->etag;
	deletion->headers[1] = deletion->date;
	deletion->headers[2] = NULL;
	bucket_add_call(calls, &call, take_deleted, deletion);
}
