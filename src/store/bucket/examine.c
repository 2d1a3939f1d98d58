/*-------------------------------------------------------------------------
 *
 * store/bucket/examine.c
 *	  Examines each step on the way to a bucket, for cleanup_check().
 *
 * Each step needs the steps before, so the first step that fails is the last
 * step that is told.  One request tells several steps: an answer shows that
 * the server was found, that its certificate was accepted, and so on.  The
 * texts come from libcurl, or are the code and message of the server; no text
 * holds a key.  No request is repeated.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "src/store/bucket/bucket.h"

#define CANARY_PATH		STORE_PRIVATE_DIR "/canary"

/* seconds after which a canary that a dead process has left is removed */
#define CANARY_SECONDS	60

#define BRING_KEYS "Bring new keys: those of a session end with it."
#define CORRECT_KEYS "Correct the keys (audio_cleanup.s3_credentials_file, or the environment of the server), or audio_cleanup.s3_region."
#define SEE_RIGHTS "docs/buckets.md has the rights that are needed."

typedef struct Examiner
{
	Bucket	   *bucket;
	StoreFindingSink sink;
	void	   *arg;
} Examiner;

/* Passes on the finding that a step is fine.  Returns true. */
static bool
fine(const Examiner *examiner, const char *check, const char *detail)
{
	const StoreFinding finding = {check, true, detail, NULL};

	examiner->sink(&finding, examiner->arg);
	return true;
}

/* Passes on the finding that a step is wrong.  Returns false. */
static bool
wrong(const Examiner *examiner, const char *check, const char *detail, const char *hint)
{
	const StoreFinding finding = {check, false, detail, hint};

	examiner->sink(&finding, examiner->arg);
	return false;
}

/*
 * Returns the text of the answer, or the text of the errno if there is no
 * answer.
 */
static const char *
words(const Examiner *examiner, int errnum, const BucketAnswer *answer)
{
	if (answer != NULL && answer->error[0] != '\0')
		return pstrdup(answer->error);
	return pstrdup(store_error_text((FileStore *) examiner->bucket, errnum));
}

/* Examines whether the server was found, and a safe connection made. */
static bool
examine_connection(const Examiner *examiner, const BucketAnswer *answer)
{
	const char *root = examiner->bucket->root;
	const char *begin = strstr(root, "://") + 3;
	const char *host = pnstrdup(begin, strcspn(begin, "/"));

	if (answer->failure == BUCKET_NO_NAME)
		return wrong(examiner, "s3_name", psprintf("the name of the server %s is not known: %s", host, answer->error),
					 "Correct audio_cleanup.s3_endpoint or s3_region, or the resolver of this machine. Without s3_path_style the name of the bucket is a part of it.");
	fine(examiner, "s3_name", psprintf("the name of the server %s is known", host));
	if (answer->failure == BUCKET_NO_TLS)
		return wrong(examiner, "s3_tls", psprintf("there is no safe connection: %s", answer->error),
					 "Set audio_cleanup.s3_ca_file if the server has a certificate of your own. Its name must be in the certificate, and the certificate must be valid today.");
	if (answer->failure != BUCKET_ANSWERED)
		return wrong(examiner, "s3_tls", psprintf("the server does not answer: %s", answer->error),
					 "Is audio_cleanup.s3_endpoint right, does the server run, and does no firewall stand between? See also audio_cleanup.s3_timeout.");
	return fine(examiner, "s3_tls", strncmp(root, "https:", 6) == 0 ? "the certificate of the server is accepted" :
				"plain HTTP, on this machine");
}

/* The codes of a server that does not accept a signature. */
static const struct
{
	const char *code;
	const char *hint;			/* NULL: the clocks differ */
}			refusals[] = {
	{"ExpiredToken", BRING_KEYS},
	{"ExpiredTokenException", BRING_KEYS},
	{"SignatureDoesNotMatch", CORRECT_KEYS},
	{"InvalidAccessKeyId", CORRECT_KEYS},
	{"InvalidToken", CORRECT_KEYS},
	{"InvalidClientTokenId", CORRECT_KEYS},
	{"AuthorizationHeaderMalformed", CORRECT_KEYS},
	{"InvalidSecurity", CORRECT_KEYS},
	{"RequestTimeTooSkewed"},
	{"RequestExpired"}
};

/* Examines whether the server accepts our keys, and whether the clocks agree. */
static bool
examine_signature(const Examiner *examiner, const BucketAnswer *answer)
{
	int64		skew = examiner->bucket->date != 0 ? examiner->bucket->date - (int64) time(NULL) : 0;

	for (int i = 0; i < lengthof(refusals); i++)
	{
		if (strcmp(answer->code, refusals[i].code) != 0)
			continue;
		if (refusals[i].hint != NULL)
			return wrong(examiner, "s3_signature", answer->error, refusals[i].hint);
		fine(examiner, "s3_signature", "the server knows the key");
		return wrong(examiner, "s3_clock", answer->error, "Set the clock of this machine right.");
	}
	fine(examiner, "s3_signature", "the server accepts the signature");
	if (llabs((long long) skew) > STORE_MAX_SKEW_SECONDS)
		return wrong(examiner, "s3_clock", psprintf("the clock of the server differs by %lld seconds", (long long) skew),
					 "Synchronize the clocks of both machines.");
	return fine(examiner, "s3_clock", psprintf("the clock of the server differs by %lld seconds", (long long) skew));
}

static bool
examine_bucket(const Examiner *examiner, int errnum, const BucketAnswer *answer)
{
	const Bucket *bucket = examiner->bucket;

	if (strcmp(answer->code, "NoSuchBucket") == 0)
		return wrong(examiner, "s3_bucket", psprintf("there is no bucket \"%s\": %s", bucket->name, answer->error),
					 "Make it, or correct audio_cleanup.upload_dir, s3_endpoint or s3_region.");
	if (errnum != 0 || answer->status != 200)
		return wrong(examiner, "s3_bucket", psprintf("bucket \"%s\" cannot be asked whether it keeps versions: %s", bucket->name,
													 answer->error[0] ? answer->error : "there is no such answer"),
					 answer->status == 301 || answer->status == 307 ?
					 "The bucket is elsewhere: correct audio_cleanup.s3_region or s3_endpoint." :
					 "The user needs s3:GetBucketVersioning; " SEE_RIGHTS);
	fine(examiner, "s3_bucket", psprintf("there is a bucket \"%s\"", bucket->name));
	if (strcmp(answer->versioning, "Enabled") == 0)
		return fine(examiner, "s3_versioning", "the bucket keeps versions");
	if (answer->versioning[0] != '\0')
		return wrong(examiner, "s3_versioning", "the bucket keeps versions no more",
					 "Turn versioning on for the bucket.");
	return fine(examiner, "s3_versioning", "the bucket keeps no versions, so no deleted file can be put back");
}

/* Makes a request.  Returns whether the answer says 2xx or `or_status`; else sets *error. */
static bool
try_call(const Examiner *examiner, const BucketCall *call, int or_status, const char **error)
{
	const BucketAnswer *answer = NULL;
	int			errnum = bucket_call(examiner->bucket, call, &answer);

	*error = NULL;
	if (errnum == 0 && (answer->status < 300 || answer->status == or_status))
		return true;
	*error = words(examiner, errnum, answer);
	return false;
}

static bool
examine_list(const Examiner *examiner, bool keeps_versions)
{
	const char *prefix = examiner->bucket->prefix;
	BucketCall	list = bucket_list_call("", false, prefix, NULL);
	BucketCall	list_versions = bucket_versions_call(prefix);
	const char *error;

	list.once = list_versions.once = true;
	if (!try_call(examiner, &list, 0, &error))
		return wrong(examiner, "s3_list", psprintf("files cannot be listed: %s", error),
					 "The user needs s3:ListBucket; " SEE_RIGHTS);
	if (!keeps_versions)
		return fine(examiner, "s3_list", "files can be listed");
	if (!try_call(examiner, &list_versions, 0, &error))
		return wrong(examiner, "s3_list", psprintf("versions of files cannot be listed: %s", error),
					 "The user needs s3:ListBucketVersions; " SEE_RIGHTS);
	return fine(examiner, "s3_list", "files and their versions can be listed");
}

static bool
examine_claim(const Examiner *examiner)
{
	char		key[BUCKET_KEY_MAX + 1];
	const BucketCall call = {.method = "GET",.key = key,.raw = true,.once = true};
	const char *error;

	bucket_own_key(examiner->bucket, STORE_PRIVATE_DIR "/claim", key);
	if (!try_call(examiner, &call, 404, &error))
		return wrong(examiner, "s3_claim", psprintf("the claim of the bucket cannot be read: %s", error),
					 "The user needs s3:GetObject, and s3:ListBucket to see that there is none; " SEE_RIGHTS);
	return fine(examiner, "s3_claim", "the claim of the bucket can be read; see \"claim\"");
}

bool
bucket_examine(FileStore *store, StoreFindingSink sink, void *arg)
{
	const BucketCall call = {.method = "GET",.query = {{"versioning", ""}},.once = true};
	const Examiner examiner = {bucket_of(store), sink, arg};
	const BucketAnswer *answer = NULL;
	BucketAnswer *copy;
	int			errnum = bucket_call(examiner.bucket, &call, &answer);
	bool		is_fine;

	if (errnum == EINTR)
		return false;
	/* no request was sent */
	if (answer == NULL)
		return wrong(&examiner, "s3_credentials", words(&examiner, errnum, NULL),
					 "See audio_cleanup.s3_credentials_file; docs/buckets.md says where else keys may come from.");
	fine(&examiner, "s3_credentials", bucket_describe_keys(examiner.bucket));
	/* the answer lasts only until the next request */
	copy = palloc(sizeof(BucketAnswer));
	memcpy(copy, answer, sizeof(BucketAnswer));
	copy->entries = NULL;
	copy->n_entries = 0;
	is_fine = examine_connection(&examiner, copy) && examine_signature(&examiner, copy) &&
		examine_bucket(&examiner, errnum, copy) &&
		examine_list(&examiner, copy->versioning[0] != '\0') && examine_claim(&examiner);
	pfree(copy);
	return is_fine;
}


/* ------------------------------------------------------------------ canary --- */

/*
 * Removes versions that earlier canaries have left, so that a user who may not
 * delete does not leave another canary each time.  Returns 0 or an errno.
 */
static int
remove_leftovers(Bucket *bucket, const char *key)
{
	KeyVersions versions;
	RemovedVersion removed = {""};
	int			errnum;

	for (;;)
	{
		const BucketEntry *oldest;

		if ((errnum = bucket_list_versions(bucket, key, NULL, &versions)) != 0 || versions.n == 0)
			return errnum;
		oldest = &versions.entries[versions.n - 1];
		if (bucket->date - oldest->modified <= CANARY_SECONDS)
			return 0;
		if ((errnum = bucket_remove_listed(bucket, key, oldest->version, false, &removed)) != 0)
			return errnum;
	}
}

/*
 * Checks that the marker lies above the version (`present`), or that both are
 * gone.  Other processes may examine at the same time, so other versions do
 * not matter.  Returns 0 or an errno.
 */
static int
expect_versions(Bucket *bucket, const char *key, const char *version, const char *marker, bool present)
{
	KeyVersions versions;
	int			errnum = bucket_list_versions(bucket, key, NULL, &versions);
	int			at;
	int			marker_at;

	if (errnum != 0)
		return errnum;
	at = bucket_find_version(&versions, version);
	marker_at = bucket_find_version(&versions, marker);
	if (present && (marker_at < 0 || at < marker_at || !versions.entries[marker_at].is_marker))
		return bucket_note(bucket, EIO, "a delete makes no marker above the version that it hides");
	if (!present && (at >= 0 || marker_at >= 0))
		return bucket_note(bucket, EIO, "what was deleted is still there");
	return 0;
}

/*
 * Makes a request that changes the canary, and sets `version` to the version
 * that the request has made.  Returns 0 or an errno.
 */
static int
change(Bucket *bucket, const char *method, const char *key, const char *body, char version[BUCKET_ID_SIZE])
{
	const BucketCall call = {.method = method,.key = key,.body = body,.once = true};
	const BucketAnswer *answer;
	int			errnum = bucket_call(bucket, &call, &answer);

	if (errnum == 0 && (answer->status >= 300 || answer->version[0] == '\0'))
		errnum = bucket_note(bucket, EIO, answer->error[0] ? answer->error : "the server gave no version id");
	if (errnum == 0)
		strlcpy(version, answer->version, BUCKET_ID_SIZE);
	return errnum;
}

/* Writes, hides, shows and removes a canary.  Returns 0; or an errno, and sets *failure to a static text. */
static int
try_canary(Bucket *bucket, const char *key, const char **failure)
{
	char		version[BUCKET_ID_SIZE];
	char		marker[BUCKET_ID_SIZE];
	int			errnum;

	*failure = "an object of our own could not be deleted for good";
	if ((errnum = remove_leftovers(bucket, key)) != 0)
		return errnum;
	*failure = "an object of our own could not be written";
	if ((errnum = change(bucket, "PUT", key, "audio_cleanup canary\n", version)) != 0)
		return errnum;
	*failure = "an object of our own could not be deleted";
	if ((errnum = change(bucket, "DELETE", key, NULL, marker)) != 0 ||
		(errnum = expect_versions(bucket, key, version, marker, true)) != 0)
		return errnum;
	*failure = "an object of our own could not be deleted for good";
	if ((errnum = bucket_remove_version(bucket, key, marker, false)) != 0 ||
		(errnum = bucket_remove_version(bucket, key, version, false)) != 0)
		return errnum;
	return expect_versions(bucket, key, version, marker, false);
}

/* Tells whether the server of a bucket without versions honours the condition of a deletion. */
static bool
examine_conditions(const Examiner *examiner)
{
	bool		proven;
	int			errnum = bucket_prove((FileStore *) examiner->bucket, &proven);

	if (errnum == EINTR)
		return false;
	if (errnum != 0)
		return wrong(examiner, "s3_delete", psprintf("a deletion could not be tried: %s", words(examiner, errnum, NULL)),
					 "The user needs s3:PutObject, s3:GetObject and s3:DeleteObject; " SEE_RIGHTS);
	if (!proven)
		return wrong(examiner, "s3_delete", "the server deletes an object whatever its ETag is: it cannot be told to delete only the file that is meant",
					 "Turn versioning on for the bucket.");
	return fine(examiner, "s3_delete", "the server deletes an object only if it has the ETag that is meant");
}

/* Examines whether files can be deleted, in the way of this bucket. */
static bool
examine_deletion(const Examiner *examiner)
{
	char		key[BUCKET_KEY_MAX + 1];
	const char *failure;
	int			errnum;

	if (!examiner->bucket->enabled)
		return examine_conditions(examiner);
	bucket_own_key(examiner->bucket, CANARY_PATH, key);
	errnum = try_canary(examiner->bucket, key, &failure);
	if (errnum == EINTR)
		return false;
	if (errnum != 0)
		return wrong(examiner, "s3_delete", psprintf("%s: %s", failure, words(examiner, errnum, NULL)),
					 "The user needs s3:PutObject, s3:DeleteObject and s3:DeleteObjectVersion; " SEE_RIGHTS);
	return fine(examiner, "s3_delete", "an object of our own was written, deleted, put back and deleted for good");
}

/* ------------------------------------------------------------------- names --- */

/*
 * Looks for an object in the list of objects, and for its version in the list
 * of versions unless `version` is "".  Returns 0, or an errno if a list does
 * not have the key as it is.
 */
static int
look_for_name(Bucket *bucket, const char *key, const char *version)
{
	const BucketCall call = bucket_list_call("", false, key, NULL);
	const BucketAnswer *answer;
	KeyVersions versions;
	bool		is_listed = false;
	int			errnum = bucket_ask(bucket, &call, &answer);

	for (int i = 0; errnum == 0 && i < answer->n_entries; i++)
		is_listed |= strcmp(answer->entries[i].key, key) == 0;
	if (is_listed && version[0] != '\0')
	{
		errnum = bucket_list_versions(bucket, key, NULL, &versions);
		is_listed = errnum == 0 && bucket_find_version(&versions, version) >= 0;
	}
	if (errnum == 0 && !is_listed)
		errnum = bucket_note(bucket, EIO, "the list has another name than the object");
	return errnum;
}

/*
 * Examines whether a list gives back a name as it is: servers differ in how
 * they encode a blank and a plus.
 */
static bool
examine_names(const Examiner *examiner)
{
	Bucket	   *bucket = examiner->bucket;
	char		path[64];
	char		key[BUCKET_KEY_MAX + 1];
	char		version[BUCKET_ID_SIZE] = "";
	const BucketCall put = {.method = "PUT",.key = key,.body = "audio_cleanup canary\n"};
	const BucketCall delete = {.method = "DELETE",.key = key};
	const BucketAnswer *answer;
	int			errnum;

	/* several processes may examine at the same time */
	snprintf(path, sizeof(path), "%s a+b %016llx", CANARY_PATH, bucket_random());
	bucket_own_key(bucket, path, key);
	errnum = bucket_ask(bucket, &put, &answer);
	if (errnum == 0)
	{
		strlcpy(version, answer->version, sizeof(version));
		errnum = look_for_name(bucket, key, version);
		/* the step before has shown that this works */
		if (bucket->enabled)
			(void) bucket_remove_version(bucket, key, version, false);
		else if (errnum != EINTR)
			(void) bucket_call(bucket, &delete, &answer);
	}
	if (errnum == EINTR)
		return false;
	if (errnum != 0)
		return wrong(examiner, "s3_names", psprintf("an object of our own whose name has a blank and a plus is not listed as it is: %s",
													words(examiner, errnum, NULL)),
					 "Files with such names are not found, and not cleaned. Does a proxy change the answers of the server?");
	return fine(examiner, "s3_names", "a name with a blank and a plus is listed as it is");
}

bool
bucket_examine_canary(FileStore *store, StoreFindingSink sink, void *arg)
{
	const Examiner examiner = {bucket_of(store), sink, arg};

	return examine_deletion(&examiner) && examine_names(&examiner);
}
