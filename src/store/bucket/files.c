/*-------------------------------------------------------------------------
 *
 * store/bucket/files.c
 *	  What becomes of a file of a bucket: see bucket.h.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "src/store/bucket/bucket.h"

/* so often a marker is tried again that a busy server has not made */
#define MAX_TRIES	5

/* One file that something is done to. */
typedef struct Job
{
	Bucket	   *bucket;
	const FileIdentity *expected;
	char		key[BUCKET_KEY_MAX + 1];
	KeyVersions versions;
} Job;

static FileResult
list(Job *job)
{
	int			errnum = bucket_list_versions(job->bucket, job->key, job->expected, &job->versions);

	return errnum == 0 ? come_to(FILE_OK) : fail(errnum, "list versions of file");
}

/* Fills `job`, and lists the versions of its file. */
static FileResult
begin(Job *job, FileStore *store, const char *path, const FileIdentity *expected)
{
	int			errnum;

	job->bucket = bucket_of(store);
	job->expected = expected;
	errnum = bucket_key(job->bucket, path, job->key);
	if (errnum == 0)
		return list(job);
	return fail(bucket_note(job->bucket, errnum, strerror(errnum)), "accept path");
}

/* begin(), for somebody who will change something. */
static FileResult
begin_change(Job *job, FileStore *store, const char *path, const FileIdentity *expected)
{
	FileResult	result = bucket_keep_lease(bucket_of(store));

	return result.outcome == FILE_OK ? begin(job, store, path, expected) : result;
}

/* Is there a file under the name now? */
static bool
is_present(const Job *job)
{
	return job->versions.n > 0 && !job->versions.entries[0].is_marker;
}

/* Does a marker lie right above the file that is expected? */
static bool
is_captured(const Job *job)
{
	return job->versions.at > 0 && job->versions.entries[job->versions.at - 1].is_marker;
}

static FileResult
remove_version(Job *job, const char *version, const char *action)
{
	char		copy[BUCKET_ID_SIZE];
	int			errnum;

	/* the list does not outlive the call */
	strlcpy(copy, version, sizeof(copy));
	errnum = bucket_remove_version(job->bucket, job->key, copy);
	return errnum == 0 ? come_to(FILE_OK) : fail(errnum, action);
}


/*
 * Destroys a captured version.  The marker goes with the last version below
 * it.  Above an older one it stays, for without it that one would be seen
 * again.
 */
static FileResult
destroy(Job *job, int64 *freed)
{
	const KeyVersions *versions = &job->versions;
	char		marker[BUCKET_ID_SIZE];
	bool		is_last;
	FileResult	result;

	if (!is_captured(job))
		return come_to(FILE_VANISHED);
	strlcpy(marker, versions->entries[versions->at - 1].version, sizeof(marker));
	is_last = versions->n == versions->at + 1 && !versions->more;
	result = remove_version(job, versions->entries[versions->at].version, "delete file");
	if (result.outcome != FILE_OK)
		return result;
	*freed = job->expected->size;
	if (is_last)
		(void) remove_version(job, marker, "delete file");
	return result;
}


/* ---------------------------------------------------------------- identity --- */

static FileResult
look(Bucket *bucket, const char *path, FileIdentity *identity)
{
	Job			job;
	FileResult	result = begin(&job, (FileStore *) bucket, path, NULL);

	if (result.outcome != FILE_OK)
		return result;
	if (!is_present(&job))
		return come_to(FILE_VANISHED);
	bucket_identify_entry(&job.versions.entries[0], identity);
	return result;
}

static int
compare_expected(const void *a, const void *b)
{
	return strcmp(((const ExpectedFile *) a)->path, ((const ExpectedFile *) b)->path);
}

void
bucket_expect(FileStore *store, const char *const *paths, int n)
{
	Bucket	   *bucket = bucket_of(store);
	int			i;

	if (bucket->expected != NULL)
		pfree(bucket->expected);
	bucket->expected = NULL;
	bucket->n_expected = 0;
	if (n == 0)
		return;
	bucket->expected = MemoryContextAllocHuge(GetMemoryChunkContext(bucket), sizeof(ExpectedFile) * n);
	for (i = 0; i < n; i++)
	{
		ExpectedFile *file = &bucket->expected[i];

		file->path = paths[i];
		file->result = look(bucket, paths[i], &file->identity);
		/* there will be an interrupt to be served */
		if (file->result.errnum == EINTR)
			break;
	}
	bucket->n_expected = i;
	qsort(bucket->expected, bucket->n_expected, sizeof(ExpectedFile), compare_expected);
}

/* A file that has another version by now is told when it is captured. */
FileResult
bucket_identify(FileStore *store, const char *path, bool durably, FileIdentity *identity)
{
	Bucket	   *bucket = bucket_of(store);
	const ExpectedFile wanted = {.path = path};
	const ExpectedFile *known = NULL;

	if (bucket->n_expected > 0 && !durably)
		known = bsearch(&wanted, bucket->expected, bucket->n_expected, sizeof(ExpectedFile), compare_expected);
	if (known == NULL)
		return look(bucket, path, identity);
	*identity = known->identity;
	return known->result;
}

FileResult
bucket_identify_captured(FileStore *store, int64 run_id, const char *path, FileIdentity *identity)
{
	Job			job;
	FileResult	result = begin(&job, store, path, NULL);
	const BucketEntry *entries;

	if (result.outcome != FILE_OK)
		return result;
	entries = job.versions.entries;
	if (job.versions.n < 2 || !entries[0].is_marker || entries[1].is_marker)
		return strcmp(job.bucket->doubtful, job.key) != 0 ? come_to(FILE_VANISHED) :
			fail(bucket_note(job.bucket, EIO, "it is not known whether the server has deleted it"), "delete file");
	bucket_identify_entry(&entries[1], identity);
	return result;
}


/* ----------------------------------------------------------------- capture --- */

/*
 * Makes a marker.  *marker becomes its version id, or "" if the server did not
 * say that it was made; then the versions tell whether it was.  A second one
 * is not made blindly: it would lie above the first one, and not above the file.
 */
static FileResult
make_marker(Job *job, char marker[BUCKET_ID_SIZE])
{
	const BucketCall call = {.method = "DELETE",.key = job->key,.once = true};
	const BucketAnswer *answer;
	int			errnum = bucket_call(job->bucket, &call, &answer);

	marker[0] = '\0';
	/* without an answer, the request may even be carried out later on */
	if (errnum == ETIMEDOUT || (errnum == EIO && answer->status == 0))
		strlcpy(job->bucket->doubtful, job->key, sizeof(job->bucket->doubtful));
	if (errnum == EIO || errnum == ETIMEDOUT || errnum == EAGAIN)
		return come_to(FILE_OK);
	if (errnum != 0)
		return fail(errnum, "delete file");
	strlcpy(marker, answer->version, BUCKET_ID_SIZE);
	return come_to(FILE_OK);
}

/* Without its id, the marker is the one above the file that was expected, if any. */
static int
find_marker(const Job *job, const char *marker)
{
	int			i;

	if (*marker == '\0')
		return is_captured(job) ? job->versions.at - 1 : -1;
	for (i = 0; i < job->versions.n; i++)
		if (job->versions.entries[i].is_marker && strcmp(job->versions.entries[i].version, marker) == 0)
			return i;
	return -1;
}

/*
 * Which version lies right below the marker?  A stranger gets rid of it.
 * *missing tells that there is no marker, and that none will come.
 */
static FileResult
verify(Job *job, const char *marker, bool *missing)
{
	FileResult	result = list(job);
	FileOutcome outcome;
	int			at;

	if (result.outcome != FILE_OK)
		return result;
	at = find_marker(job, marker);
	*missing = *marker == '\0' && job->versions.at == 0 && strcmp(job->bucket->doubtful, job->key) != 0;
	if (at < 0)
		return fail(bucket_note(job->bucket, EIO, "the server has made no delete marker"), "delete file");
	if (job->versions.at == at + 1)
		return come_to(FILE_OK);
	outcome = at + 1 < job->versions.n && !job->versions.entries[at + 1].is_marker ?
		FILE_REPLACED : FILE_VANISHED;
	result = remove_version(job, job->versions.entries[at].version, "put back file");
	return result.outcome == FILE_OK ? come_to(outcome) : result;
}

static FileResult
hide(Job *job)
{
	char		marker[BUCKET_ID_SIZE];
	FileResult	result;
	bool		missing;
	int			try = 0;

	do
	{
		missing = false;
		result = make_marker(job, marker);
		if (result.outcome == FILE_OK)
			result = verify(job, marker, &missing);
	} while (missing && try < MAX_TRIES && bucket_rest(try++));
	return result;
}

/*
 * In a bucket that keeps versions no more, a marker would take the place of
 * the version "null", for good.  So that is asked for, for a file of which it
 * would be true, right before.
 */
static FileResult
check_null_version(Job *job)
{
	int			errnum = bucket_ask_versioning(job->bucket);

	if (errnum == 0 && !job->bucket->enabled)
		errnum = bucket_note(job->bucket, ENOTSUP, "the bucket keeps no versions");
	return errnum == 0 ? come_to(FILE_OK) : fail(errnum, "delete safely");
}

FileResult
bucket_capture(FileStore *store, int64 run_id, const char *path, bool by_copy, const FileIdentity *expected)
{
	Job			job;
	FileResult	result = begin_change(&job, store, path, expected);

	if (result.outcome != FILE_OK)
		return result;
	if (!is_present(&job))
		return come_to(FILE_VANISHED);
	if (job.versions.at != 0)
		return come_to(FILE_REPLACED);
	if (strcmp(job.versions.entries[0].version, "null") == 0)
		result = check_null_version(&job);
	return result.outcome == FILE_OK ? hide(&job) : result;
}


/* ------------------------------------------------------------------ locate --- */

/*
 * A capture was killed before it could verify if its marker hides another
 * version than the one that was expected, which still is there.
 */
static bool
hides_stranger(const Job *job)
{
	int			i;

	for (i = 1; i < job->versions.at; i++)
		if (job->versions.entries[i].is_marker)
			return false;
	return job->versions.at > 1 && job->versions.entries[0].is_marker;
}

static FilePlace
rescue_stranger(Job *job, bool mend, int *errnum)
{
	FileResult	result;

	if (!mend)
		return PLACE_UNFINISHED;
	result = bucket_keep_lease(job->bucket);
	/* which has asked for another list */
	if (result.outcome == FILE_OK)
		result = list(job);
	if (result.outcome == FILE_OK && hides_stranger(job))
		result = remove_version(job, job->versions.entries[0].version, "put back file");
	*errnum = result.errnum;
	return result.outcome == FILE_OK ? PLACE_OTHER : PLACE_UNKNOWN;
}

FilePlace
bucket_locate(FileStore *store, int64 run_id, const char *path, const FileIdentity *expected,
			  bool mend, int *errnum)
{
	Job			job;
	FileResult	result = begin(&job, store, path, expected);

	*errnum = result.errnum;
	if (result.outcome != FILE_OK)
		return PLACE_UNKNOWN;
	if (job.versions.at == 0)
		return PLACE_UPLOAD;
	if (is_captured(&job))
		return PLACE_TRASH;
	if (hides_stranger(&job))
		return rescue_stranger(&job, mend, errnum);
	return is_present(&job) ? PLACE_OTHER : PLACE_NOWHERE;
}


/* ---------------------------------------------------------------- put back --- */

/* Removes what hides the file: our marker, and those of who deleted what was not there. */
static FileResult
unhide(Job *job)
{
	FileResult	result = come_to(FILE_OK);

	while (result.outcome == FILE_OK && job->versions.at > 0)
	{
		if (is_present(job))
			return come_to(FILE_OCCUPIED);
		result = remove_version(job, job->versions.entries[0].version, "put back file");
		if (result.outcome == FILE_OK)
			result = list(job);
	}
	if (result.outcome == FILE_OK && job->versions.at < 0)
		return come_to(FILE_VANISHED);
	return result;
}

/* Copies the version that is expected to the key of `target`, in the server. */
static FileResult
copy_version(const Job *job, const Job *target, char version[BUCKET_ID_SIZE])
{
	char		source[BUCKET_URL_SIZE] = "x-amz-copy-source: ";
	const char *const headers[] = {source, NULL};
	const BucketCall call = {.method = "PUT",.key = target->key,.headers = headers,.once = true};
	const BucketAnswer *answer;
	int			errnum;

	if (!bucket_encode_source(job->bucket, source, sizeof(source), job->key,
							  job->versions.entries[job->versions.at].version))
		return fail(bucket_note(job->bucket, ENAMETOOLONG, strerror(ENAMETOOLONG)), "copy file");
	errnum = bucket_call(job->bucket, &call, &answer);
	if (errnum != 0)
		return fail(errnum, "copy file");
	/* an error may come with the status of a success */
	if (answer->status != 200 || answer->code[0] != '\0' || answer->version[0] == '\0')
		return fail(bucket_note(job->bucket, EIO, answer->error[0] ? answer->error : answer->code), "copy file");
	strlcpy(version, answer->version, BUCKET_ID_SIZE);
	return come_to(FILE_OK);
}

/* Is our copy whole, and has nobody written a file of that name meanwhile? */
static FileResult
verify_copy(Job *target, const char *version, const FileIdentity *expected)
{
	FileResult	result = list(target);
	const KeyVersions *versions = &target->versions;
	bool		is_first;

	if (result.outcome != FILE_OK)
		return result;
	is_first = versions->n > 0 && strcmp(versions->entries[0].version, version) == 0 &&
		(versions->n == 1 || versions->entries[1].is_marker);
	if (is_first && versions->entries[0].size == expected->size)
		return result;
	result = remove_version(target, version, "copy file");
	return result.outcome == FILE_OK ? come_to(FILE_OCCUPIED) : result;
}

/* A bucket cannot rename: the version is copied, and then destroyed. */
static FileResult
copy_back(Job *job, const char *as)
{
	Job			target;
	char		version[BUCKET_ID_SIZE];
	int64		freed;
	FileResult	result = begin(&target, (FileStore *) job->bucket, as, NULL);

	if (result.outcome != FILE_OK)
		return result;
	if (is_present(&target))
		return come_to(FILE_OCCUPIED);
	/* the list does not outlive the call */
	result = list(job);
	if (result.outcome == FILE_OK && !is_captured(job))
		return come_to(FILE_VANISHED);
	if (result.outcome == FILE_OK)
		result = copy_version(job, &target, version);
	if (result.outcome == FILE_OK)
		result = verify_copy(&target, version, job->expected);
	if (result.outcome == FILE_OK)
		result = list(job);
	return result.outcome == FILE_OK ? destroy(job, &freed) : result;
}

FileResult
bucket_put_back(FileStore *store, int64 run_id, const char *path, const char *as,
				const FileIdentity *expected)
{
	Job			job;
	FileResult	result = begin_change(&job, store, path, expected);

	if (result.outcome != FILE_OK)
		return result;
	if (!is_captured(&job))
		return come_to(FILE_VANISHED);
	return strcmp(path, as) == 0 ? unhide(&job) : copy_back(&job, as);
}


/* ----------------------------------------------------------------- destroy --- */

FileResult
bucket_destroy(FileStore *store, int64 run_id, const char *path, const FileIdentity *expected, int64 *freed)
{
	Job			job;
	FileResult	result = begin_change(&job, store, path, expected);

	*freed = 0;
	/* whoever was killed behind its last version has left the marker */
	if (result.outcome == FILE_OK && job.versions.n == 1 && job.versions.entries[0].is_marker)
		(void) remove_version(&job, job.versions.entries[0].version, "delete file");
	return result.outcome == FILE_OK ? destroy(&job, freed) : result;
}

/* One after the other, each with a last look at its versions. */
void
bucket_destroy_many(FileStore *store, int64 run_id, StoreDoomed *files, int n)
{
	int			i;

	for (i = 0; i < n; i++)
		files[i].result = bucket_destroy(store, run_id, files[i].path, files[i].expected, &files[i].freed);
}
