/*-------------------------------------------------------------------------
 *
 * store/bucket/uploads.c
 *	  Lists and ends uploads that were begun in parts, and are not completed.
 *
 * Such an upload is no object: no list of objects has the upload, and its
 * parts cost money until somebody ends the upload.  The server says when an
 * upload was begun, and when each part came.  So an upload that still gets
 * parts is not disturbed.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "src/pg/time.h"
#include "src/store/bucket/bucket.h"

/* parts are numbered from 1 to 10000 */
#define MAX_PARTS		10000

static void
pass_uploads(const Bucket *bucket, const BucketAnswer *answer, StoreUploadSink sink, void *arg)
{
	size_t		prefix = strlen(bucket->prefix);

	for (int i = 0; i < answer->n_entries; i++)
	{
		const BucketEntry *entry = &answer->entries[i];
		const StoreUpload upload = {entry->key + prefix, entry->version, entry->modified * NS_PER_SECOND};

		/*
		 * an upload without an id cannot be ended, and an upload without a
		 * time has no age
		 */
		if (strncmp(entry->key, bucket->prefix, prefix) == 0 && entry->version[0] != '\0' && entry->modified > 0)
			sink(&upload, arg);
	}
}

int
bucket_list_uploads(FileStore *store, StoreUploadSink sink, void *arg)
{
	Bucket	   *bucket = bucket_of(store);
	const BucketAnswer *answer;

	/* the upload after which the page begins */
	char		key[BUCKET_TOKEN_SIZE] = "";
	char		id[BUCKET_ID_SIZE] = "";
	int			errnum;

	for (;;)
	{
		const BucketCall call = {
			.method = "GET",
			.query = {
				{"encoding-type", "url"}, {"key-marker", key[0] ? key : NULL}, {"max-uploads", "1000"},
				{"prefix", bucket->prefix}, {"upload-id-marker", id[0] ? id : NULL}, {"uploads", ""}
			}
		};

		if ((errnum = bucket_ask(bucket, &call, &answer)) != 0)
			return errnum;
		pass_uploads(bucket, answer, sink, arg);
		if (!answer->truncated)
			return 0;
		/* with an equal position the list would never end */
		if (answer->next_key[0] == '\0' || (strcmp(answer->next_key, key) == 0 && strcmp(answer->next_version, id) == 0))
			return bucket_note(bucket, EIO, "the server does not say where its list of uploads goes on");
		strlcpy(key, answer->next_key, sizeof(key));
		strlcpy(id, answer->next_version, sizeof(id));
	}
}

/*
 * Returns whether the answer says that there is no such upload.  A status 404
 * alone may come from a proxy.
 */
static bool
says_ended(const BucketAnswer *answer)
{
	return answer->status == 404 && answer->code[0] != '\0';
}

/*
 * Sets *size to the bytes of all parts of an upload, and *newest to the time
 * when the last part came, in seconds since 1970.  Returns 0; ENOENT if there
 * is no such upload any more; or another errno.
 */
static int
look_at_parts(Bucket *bucket, const char *key, const char *id, int64 *size, int64 *newest)
{
	const BucketAnswer *answer;
	char		after[BUCKET_ID_SIZE] = "";
	int			n = 0;
	int			errnum;

	*size = *newest = 0;
	do
	{
		const BucketCall call = {
			.method = "GET",.key = key,
			.query = {{"max-parts", "1000"}, {"part-number-marker", after[0] ? after : NULL}, {"uploadId", id}}
		};

		if ((errnum = bucket_call(bucket, &call, &answer)) != 0)
			return errnum;
		if (answer->status != 200)
			return says_ended(answer) ? ENOENT : bucket_note(bucket, EIO, answer->error);
		for (int i = 0; i < answer->n_entries; i++)
		{
			*size += answer->entries[i].size;
			*newest = Max(*newest, answer->entries[i].modified);
		}
		n += answer->n_entries;
		if (strlcpy(after, answer->next_token, sizeof(after)) >= sizeof(after) ||
			(answer->truncated && (answer->n_entries == 0 || n > MAX_PARTS)))
			return bucket_note(bucket, EIO, "the server's list of parts does not end");
	} while (answer->truncated);
	return 0;
}

/*
 * Returns whether the server may have carried out a request that failed with
 * this errno.
 */
static bool
is_lost(int errnum)
{
	return errnum == EIO || errnum == ETIMEDOUT || errnum == EAGAIN;
}

FileResult
bucket_end_upload(FileStore *store, const char *path, const char *id, int64 quiet_since_ns, int64 *freed)
{
	static const char failure[] = "could not end upload";
	Bucket	   *bucket = bucket_of(store);
	char		key[BUCKET_KEY_MAX + 1];
	const BucketCall call = {
		.method = "DELETE",.key = key,.query = {{"uploadId", id}},.once = true,.leased = true
	};
	const BucketAnswer *answer;
	FileResult	result = bucket_keep_lease(bucket);
	int64		size;
	int64		again;
	int64		newest;
	int			errnum;

	*freed = 0;
	if (result.outcome != FILE_OK)
		return result;
	errnum = bucket_key(bucket, path, key);
	if (errnum != 0)
		return fail(errnum, "could not accept path");
	errnum = look_at_parts(bucket, key, id, &size, &newest);
	if (errnum == ENOENT)
		return come_to(FILE_VANISHED);
	if (errnum != 0)
		return fail(errnum, "could not list parts of upload");
	if (newest * NS_PER_SECOND > quiet_since_ns)
		return come_to(FILE_REPLACED);
	errnum = bucket_call(bucket, &call, &answer);
	if (errnum == 0 && says_ended(answer))
		return come_to(FILE_VANISHED);
	if (errnum == 0 && answer->status >= 300)
		errnum = bucket_note(bucket, EIO, answer->error);

	/*
	 * after a lost answer, the upload was ended if the server does not know
	 * the upload any more
	 */
	if (errnum != 0 && !(is_lost(errnum) && look_at_parts(bucket, key, id, &again, &newest) == ENOENT))
		return fail(errnum, failure);
	*freed = size;
	return come_to(FILE_OK);
}
