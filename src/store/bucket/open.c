/*-------------------------------------------------------------------------
 *
 * store/bucket/open.c
 *	  Opens a bucket: its name, its server, and the keys of the requests.
 *
 * Opening does not use the network; store_reach() does.  So a transaction that
 * holds locks can open a bucket, and the commit callback can close the bucket.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/hsearch.h"

#include "src/pg/library.h"
#include "src/store/bucket/bucket.h"
#include "src/store/bucket/options.h"

/*
 * descriptors with which libcurl waits and wakes, besides a connection for
 * each lane
 */
#define DESCRIPTORS		4

#define SCHEME			"s3://"
#define BUCKET_NAME_MAX	63

/*
 * longest prefix, so that the rest of a key has room for names of files and
 * for our own names
 */
#define PREFIX_MAX		512

BucketOptions bucket_options;


/* ------------------------------------------------------------------- names --- */

static bool
is_bucket_name(const char *name, size_t len)
{
	return len >= 3 && len <= BUCKET_NAME_MAX &&
		strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") >= len && isalnum((unsigned char) *name);
}

const char *
bucket_judge_name(const char *url)
{
	const char *name = url + strlen(SCHEME);
	size_t		len = strcspn(name, "/");
	const char *part = name + len;

	if (!is_bucket_name(name, len))
		return "The name of a bucket has 3 to 63 small letters, digits, dots and hyphens.";
	if (strlen(part) > PREFIX_MAX)
		return "The prefix is longer than 512 bytes.";
	while (*part == '/')
	{
		size_t		n = strcspn(++part, "/");

		if (n == 0 || *part == '.')
			return "The parts of a prefix must not be empty, nor begin with a dot.";
		part += n;
	}
	return NULL;
}

/*
 * Returns whether the endpoint may be used without TLS: only on this machine.
 */
const char *
bucket_judge_endpoint(const char *endpoint)
{
	static const char *const loopback[] = {"http://localhost", "http://127.0.0.1", "http://[::1]"};
	const char *host = strstr(endpoint, "://");

	if (*endpoint == '\0')
		return NULL;
	if (host == NULL || strpbrk(host + 3, "/?#@ ") != NULL || strlen(endpoint) > 150)
		return "It must be written as \"https://host\" or \"https://host:port\".";
	if (strncmp(endpoint, "https://", strlen("https://")) == 0)
		return NULL;
	for (int i = 0; i < lengthof(loopback); i++)
	{
		size_t		len = strlen(loopback[i]);

		if (strncmp(endpoint, loopback[i], len) == 0 && (endpoint[len] == '\0' || endpoint[len] == ':'))
			return NULL;
	}
	return "Only a server on this machine (localhost) may be reached without TLS.";
}

/* Sets the names of the bucket, its URL and the prefix of its keys. */
static void
name_bucket(Bucket *bucket, const char *url)
{
	const BucketOptions *options = &bucket_options;
	const char *name = url + strlen(SCHEME);
	int			len = (int) strcspn(name, "/");
	const char *host = strstr(options->endpoint, "://");
	char		aws[128];

	snprintf(bucket->name, sizeof(bucket->name), "%.*s", len, name);
	if (host == NULL)
	{
		snprintf(aws, sizeof(aws), "https://s3.%s.amazonaws.com", options->region);
		host = strstr(aws, "://");
	}
	if (options->path_style)
		snprintf(bucket->root, sizeof(bucket->root), "%s/%.*s",
				 *options->endpoint ? options->endpoint : aws, len, name);
	else
		snprintf(bucket->root, sizeof(bucket->root), "%s://%.*s.%s",
				 *options->endpoint == 'h' && options->endpoint[4] == ':' ? "http" : "https",
				 len, name, host + 3);
	if (name[len] != '\0')
		snprintf(bucket->prefix, sizeof(bucket->prefix), "%s/", name + len + 1);
}

int
bucket_key(const Bucket *bucket, const char *path, char key[BUCKET_KEY_MAX + 1])
{
	if (*path == '\0')
		return EINVAL;
	strlcpy(key, bucket->prefix, BUCKET_KEY_MAX + 1);
	return strlcat(key, path, BUCKET_KEY_MAX + 1) <= BUCKET_KEY_MAX ? 0 : ENAMETOOLONG;
}


/* ----------------------------------------------------------------- opening --- */

/* Returns NULL, and sets *error, if the library cannot be loaded. */
static const BucketLibrary *
load_library(const char **error)
{
	static const BucketLibrary *library = NULL;

	if (library == NULL)
		library = library_load(BUCKET_LIBRARY, BUCKET_FUNCTION, error);
	return library;
}


/*
 * Acquires a descriptor for each lane; if there are too few descriptors, there
 * is one request at a time.
 */
static bool
acquire_lanes(Bucket *bucket)
{
	bucket->n_parallel = bucket_options.requests;
	bucket->n_descriptors = DESCRIPTORS + BUCKET_FIRST_LANE + bucket->n_parallel;
	if (store_acquire_descriptors(bucket->n_descriptors))
		return true;
	bucket->n_parallel = 1;
	bucket->n_descriptors = DESCRIPTORS;
	return store_acquire_descriptors(bucket->n_descriptors);
}

static void
open_session(Bucket *bucket)
{
	BucketKeys	keys;
	const char *error = bucket_find_keys(bucket, &keys);
	const BucketServer server = {
		.region = bucket_options.region,
		.access_key = keys.access_key,
		.secret_key = keys.secret_key,
		.token = keys.token[0] ? keys.token : NULL,
		.ca_file = *bucket_options.ca_file ? bucket_options.ca_file : NULL,
		.timeout_ms = bucket_options.timeout_ms,
		.lanes = BUCKET_FIRST_LANE + bucket_options.requests
	};

	bucket->open_errnum = EACCES;
	if (error == NULL && (bucket->library = load_library(&error)) != NULL)
	{
		bucket->open_errnum = EMFILE;
		error = "too many files are open";
		if (acquire_lanes(bucket))
		{
			bucket->lanes = palloc0(sizeof(BucketLane) * (BUCKET_FIRST_LANE + bucket->n_parallel));
			bucket->session = bucket->library->open(&server);
			if (bucket->session == NULL)
			{
				bucket->open_errnum = ENOMEM;
				error = "libcurl could not be initialized";
				store_release_descriptors(bucket->n_descriptors);
			}
		}
	}
	explicit_bzero(&keys, sizeof(keys));
	if (bucket->session == NULL)
		(void) bucket_note(bucket, bucket->open_errnum, error);
}

/* Opens also a bucket that cannot be used: the first call says why. */
FileStore *
bucket_open(const char *url)
{
	Bucket	   *bucket;

	if (bucket_judge_name(url) != NULL)
	{
		errno = EINVAL;
		return NULL;
	}
	bucket = palloc0(sizeof(Bucket));
	bucket->base.driver = &bucket_driver;
	bucket->n_parallel = 1;
	name_bucket(bucket, url);
	open_session(bucket);
	return (FileStore *) bucket;
}

/*
 * Closes the bucket without using the network.  A lease that was not given
 * back, because of an ERROR, ends by itself; this server may take it again at
 * once.
 */
static void
bucket_close(FileStore *store)
{
	Bucket	   *bucket = bucket_of(store);

	if (bucket->session != NULL)
	{
		bucket->library->close(bucket->session);
		store_release_descriptors(bucket->n_descriptors);
	}
	if (bucket->lanes != NULL)
		pfree(bucket->lanes);
	if (bucket->expected != NULL)
		pfree(bucket->expected);
	if (bucket->doubtful != NULL)
		hash_destroy(bucket->doubtful);
	pfree(bucket);
}


/* ------------------------------------------------ what a bucket can do --- */

int
bucket_ask_versioning(Bucket *bucket)
{
	const BucketCall call = {"GET", NULL, "versioning="};
	const BucketAnswer *answer;
	int			errnum = bucket_ask(bucket, &call, &answer);

	bucket->enabled = bucket->suspended = false;
	if (errnum == 0)
	{
		bucket->enabled = strcmp(answer->versioning, "Enabled") == 0;
		bucket->suspended = !bucket->enabled && answer->versioning[0] != '\0';
	}
	return errnum;
}

static int
bucket_reach(FileStore *store)
{
	return bucket_ask_versioning(bucket_of(store));
}

static bool
bucket_can_undo(FileStore *store)
{
	return bucket_of(store)->enabled;
}

static int
bucket_prove_store(FileStore *store, bool *proven)
{
	Bucket	   *bucket = bucket_of(store);
	int			errnum = bucket_prove(bucket);

	*proven = bucket->conditional;
	return errnum;
}

static const char *
bucket_error_text(FileStore *store, int errnum)
{
	const Bucket *bucket = bucket_of(store);

	for (int i = 0; i < BUCKET_ERRORS; i++)
		if (errnum != 0 && bucket->errors[i].errnum == errnum && bucket->errors[i].text[0] != '\0')
			return bucket->errors[i].text;
	return strerror(errnum);
}

static FileResult
bucket_set_backup_dir(FileStore *store, const char *path, const char *owner)
{
	return fail(bucket_note(bucket_of(store), EINVAL, "a bucket keeps its own backups"), "could not accept path");
}

/* Returns the date of the server's last answer. */
static FileResult
bucket_clock(FileStore *store, int64 *now_ns)
{
	const Bucket *bucket = bucket_of(store);

	*now_ns = bucket->date * NS_PER_SECOND;
	return bucket->date != 0 ? come_to(FILE_OK) : fail(ENOTSUP, "could not ask the time");
}

/*
 * Always fails: a capture makes a marker, and so never fails for want of
 * space.
 */
static FileResult
bucket_destroy_in_place(FileStore *store, const char *path, const FileIdentity *expected, int64 *freed)
{
	return fail(bucket_note(bucket_of(store), ENOTSUP, strerror(ENOTSUP)), "could not delete file");
}

const StoreDriver bucket_driver = {
	.acts_at_commit = false,
	.has_folders = false,
	.together = 3920,
	.close = bucket_close,
	.reach = bucket_reach,
	.can_undo = bucket_can_undo,
	.prove = bucket_prove_store,
	.error_text = bucket_error_text,
	.set_backup_dir = bucket_set_backup_dir,
	.clock = bucket_clock,
	.expect = bucket_expect,
	.identify = bucket_identify,
	.capture = bucket_capture,
	.capture_many = bucket_capture_many,
	.locate = bucket_locate,
	.locate_many = bucket_locate_many,
	.put_back_many = bucket_put_back_many,
	.put_back = bucket_put_back,
	.identify_captured = bucket_identify_captured,
	.destroy = bucket_destroy,
	.destroy_begin = bucket_destroy_begin,
	.destroy_in_place = bucket_destroy_in_place,
	.trash_runs = bucket_trash_runs,
	.renumber_trash = bucket_renumber_trash,
	.forget_run = bucket_forget_run,
	.examine = bucket_examine,
	.examine_canary = bucket_examine_canary,
	.list_uploads = bucket_list_uploads,
	.end_upload = bucket_end_upload,
	.read_claim = bucket_read_claim,
	.write_claim = bucket_write_claim,
	.lock = bucket_lock,
	.unlock = bucket_unlock,
	.walk_begin = bucket_walk_begin,
	.walk_begin_trash = bucket_walk_begin_trash,
	.walk_next = bucket_walk_next,
	.walk_failure = bucket_walk_failure,
	.walk_end = bucket_walk_end,
	.walk_why_not = bucket_walk_why_not
};
