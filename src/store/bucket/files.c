/*-------------------------------------------------------------------------
 *
 * store/bucket/files.c
 *	  Looks at a file of a bucket, and puts a file back: see bucket.h.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "src/store/bucket/bucket.h"

/* attempts to make a server show a file: see show_again() */
#define MAX_TRIES	3

/* A file that a call looks at or changes. */
typedef struct Job
{
	Bucket	   *bucket;
	const FileIdentity *expected;
	char		key[BUCKET_KEY_MAX + 1];
	KeyVersions versions;
} Job;

/* Lists the versions of the file. */
static FileResult
list(Job *job)
{
	int			errnum = bucket_list_versions(job->bucket, job->key, job->expected, &job->versions);

	return errnum == 0 ? come_to(FILE_OK) : fail(errnum, "could not list versions of file");
}

/* Fills `job`, and lists the versions of its file. */
static FileResult
begin(Job *job, FileStore *store, const char *path, const FileIdentity *expected)
{
	int			errnum;

	memset(job, 0, sizeof(*job));
	job->bucket = bucket_of(store);
	job->expected = expected;
	errnum = bucket_key(job->bucket, path, job->key);
	if (errnum == 0)
		return list(job);
	return fail(errnum, "could not accept path");
}

/* Removes the newest version, a marker, under the lease. */
static FileResult
remove_newest(Job *job, RemovedVersion *removed)
{
	int			errnum = bucket_remove_listed(job->bucket, job->key, job->versions.entries[0].version, true, removed);

	return errnum == 0 ? come_to(FILE_OK) : fail(errnum, "could not put back file");
}


/* ---------------------------------------------------------------- identity --- */

/* The answer may be that of store_expect(): a later version is noticed when the file is captured. */
FileResult
bucket_identify(FileStore *store, const char *path, bool durably, FileIdentity *identity)
{
	Job			job;
	FileResult	result;

	if (!durably && bucket_has_expected(bucket_of(store), path, identity, &result))
		return result;
	result = begin(&job, store, path, NULL);
	if (result.outcome != FILE_OK)
		return result;
	if (!bucket_is_present(&job.versions))
		return come_to(FILE_VANISHED);
	bucket_identify_entry(&job.versions.entries[0], identity);
	return result;
}

FileResult
bucket_identify_captured(FileStore *store, int64 run_id, const char *path, FileIdentity *identity)
{
	const Bucket *bucket = bucket_of(store);
	Job			job;
	FileResult	result;
	const BucketEntry *entries;

	if (bucket->in_trash != NULL && strcmp(bucket->in_trash, path) == 0)
	{
		*identity = bucket->in_trash_identity;
		return come_to(FILE_OK);
	}
	result = begin(&job, store, path, NULL);
	if (result.outcome != FILE_OK)
		return result;
	entries = job.versions.entries;
	if (job.versions.n < 2 || !entries[0].is_marker || entries[1].is_marker)
		return !bucket_is_doubtful(job.bucket, job.key) ? come_to(FILE_VANISHED) :
			fail(bucket_note(job.bucket, EIO, "it is not known whether the server has deleted it"), "could not delete file");
	bucket_identify_entry(&entries[1], identity);
	return result;
}


/* ---------------------------------------------------------------- put back --- */

/*
 * Makes the server show the newest version.  Swift removes a marker, and then
 * shows the version below the marker.  If Swift is cut short in between, it
 * never shows a version.  Making and removing another marker lets Swift try
 * again.
 */
static FileResult
show_again(Job *job)
{
	const BucketCall call = {.method = "DELETE",.key = job->key,.once = true,.leased = true};
	const BucketAnswer *answer;
	FileResult	result = {FILE_FAILED, EIO, "could not put back file"};
	RemovedVersion removed = {""};

	for (int try = 0; try < MAX_TRIES && job->versions.none_is_current && job->versions.n > 0; try++)
	{
		int			errnum = bucket_call(job->bucket, &call, &answer);

		if (errnum != 0)
			return fail(errnum, "could not put back file");
		result = list(job);
		if (result.outcome == FILE_OK && job->versions.entries[0].is_marker)
			result = remove_newest(job, &removed);
		if (result.outcome == FILE_OK)
			result = list(job);
	}
	return result;
}

/*
 * Removes the markers above the file: ours, and the markers of clients that
 * deleted the name while the file was hidden.
 */
static FileResult
unhide(Job *job)
{
	FileResult	result = come_to(FILE_OK);
	RemovedVersion removed = {""};

	while (result.outcome == FILE_OK && job->versions.at > 0)
	{
		if (bucket_is_present(&job->versions))
			return come_to(FILE_OCCUPIED);
		result = remove_newest(job, &removed);
		if (result.outcome == FILE_OK)
			result = list(job);
		if (job->versions.none_is_current)
			result = show_again(job);
	}
	if (result.outcome == FILE_OK && job->versions.at < 0)
		return come_to(FILE_VANISHED);
	return result;
}

/* A copy that the server has made, by its answer.  Ceph tells no version id. */
typedef struct Copy
{
	char		version[BUCKET_ID_SIZE];	/* or "" */
	char		etag[BUCKET_ID_SIZE];	/* with quotes or without */
} Copy;

/* Copies the expected version to the key of `target`, in the server. */
static FileResult
copy_version(const Job *job, const Job *target, Copy *copy)
{
	const BucketAnswer *answer;
	int			errnum = bucket_copy(job->bucket, job->key, job->versions.entries[job->versions.at].version,
									 target->key, true, &answer);

	if (errnum != 0)
		return fail(errnum, "could not copy file");
	if (answer->version[0] == '\0' && answer->etag[0] == '\0')
		return fail(bucket_note(job->bucket, EIO, "the server tells nothing of the copy"), "could not copy file");
	strlcpy(copy->version, answer->version, sizeof(copy->version));
	strlcpy(copy->etag, answer->etag, sizeof(copy->etag));
	return come_to(FILE_OK);
}

/* Returns whether both texts are one ETag: some servers leave the quotes out of some answers. */
static bool
is_etag(const char *a, const char *b)
{
	size_t		n;

	a += *a == '"' ? 1 : 0;
	b += *b == '"' ? 1 : 0;
	n = strcspn(a, "\"");
	return n > 0 && n == strcspn(b, "\"") && strncmp(a, b, n) == 0;
}

/* Returns which of the versions above the newest marker is our copy, or -1. */
static int
find_copy(const KeyVersions *versions, const Copy *copy)
{
	for (int i = 0; i < versions->n && !versions->entries[i].is_marker; i++)
		if (copy->version[0] != '\0' ? strcmp(versions->entries[i].version, copy->version) == 0 :
			is_etag(versions->entries[i].etag, copy->etag))
			return i;
	return -1;
}

/* Verifies that our copy is whole, and that nobody has written a file of that name meanwhile. */
static FileResult
verify_copy(Job *target, const Copy *copy, const FileIdentity *expected)
{
	FileResult	result = list(target);
	const KeyVersions *versions = &target->versions;
	int			at;
	int			errnum;

	if (result.outcome != FILE_OK)
		return result;
	at = find_copy(versions, copy);
	if (at < 0)
		return fail(bucket_note(target->bucket, EIO, "the server does not show the copy"), "could not copy file");
	if (at == 0 && (versions->n == 1 || versions->entries[1].is_marker) &&
		versions->entries[0].size == expected->size)
		return result;
	/* the copy is ours, whoever has the lease by now */
	errnum = bucket_remove_version(target->bucket, target->key, versions->entries[at].version, false);
	return errnum == 0 ? come_to(FILE_OCCUPIED) : fail(errnum, "could not copy file");
}

/*
 * Puts a file back under another name, or above other versions of its name.  A
 * bucket cannot rename: the version is copied, and then destroyed.
 */
static FileResult
copy_version_back(Job *job, const char *path, const char *as)
{
	Job			target;
	Copy		copy;
	StoreFile	copied = {path,.expected = job->expected};
	FileResult	result = begin(&target, (FileStore *) job->bucket, as, NULL);

	if (result.outcome != FILE_OK)
		return result;
	if (bucket_is_present(&target.versions))
		return come_to(FILE_OCCUPIED);
	/* the list of the target has replaced the list of the job */
	result = list(job);
	if (result.outcome == FILE_OK && !bucket_is_captured(&job->versions))
		return come_to(FILE_VANISHED);
	if (result.outcome == FILE_OK)
		result = copy_version(job, &target, &copy);
	if (result.outcome == FILE_OK)
		result = verify_copy(&target, &copy, job->expected);
	if (result.outcome == FILE_OK)
	{
		(void) bucket_destroy_begin((FileStore *) job->bucket, 0, &copied, 1);
		result = copied.result;
	}
	return result;
}

/*
 * Returns whether another file of that name lies above the expected file.  If
 * a marker hides that file, somebody has deleted it, and without the marker it
 * would be seen again.
 */
static bool
is_buried(const KeyVersions *versions)
{
	for (int i = 0; i < versions->at; i++)
		if (!versions->entries[i].is_marker)
			return true;
	return false;
}

FileResult
bucket_put_back_as(FileStore *store, int64 run_id, const char *path, const char *as,
				   const FileIdentity *expected)
{
	Job			job;
	FileResult	result = bucket_keep_lease(bucket_of(store));

	if (result.outcome != FILE_OK)
		return result;
	result = begin(&job, store, path, expected);
	if (job.versions.none_is_current && job.versions.at == 0)
		return show_again(&job);
	if (result.outcome != FILE_OK)
		return result;
	if (!bucket_is_captured(&job.versions))
		return come_to(FILE_VANISHED);
	return strcmp(path, as) == 0 && !is_buried(&job.versions) ? unhide(&job) : copy_version_back(&job, path, as);
}
