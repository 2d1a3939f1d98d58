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
bucket_key(Bucket *bucket, const char *path, char key[BUCKET_KEY_MAX + 1])
{
	if (*path == '\0')
		return bucket_note(bucket, EINVAL, NULL);
	strlcpy(key, bucket->prefix, BUCKET_KEY_MAX + 1);
	if (strlcat(key, path, BUCKET_KEY_MAX + 1) > BUCKET_KEY_MAX)
		return bucket_note(bucket, ENAMETOOLONG, NULL);
	return 0;
}

void
bucket_own_key(const Bucket *bucket, const char *path, char key[BUCKET_KEY_MAX + 1])
{
	snprintf(key, BUCKET_KEY_MAX + 1, "%s%s", bucket->prefix, path);
}


/* ----------------------------------------------------------------- opening --- */

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
	const char *error = bucket_find_keys(bucket);

	bucket->open_errnum = EACCES;
	if (error == NULL && (bucket->library = library_load(BUCKET_LIBRARY, BUCKET_FUNCTION, &error)) != NULL)
	{
		bucket->open_errnum = EMFILE;
		error = "too many files are open";
		if (acquire_lanes(bucket))
		{
			bucket->lanes = palloc0(sizeof(BucketLane) * (BUCKET_FIRST_LANE + bucket->n_parallel));
			bucket->session = bucket->library->open(BUCKET_FIRST_LANE + bucket->n_parallel);
			if (bucket->session == NULL)
			{
				bucket->open_errnum = ENOMEM;
				error = "libcurl could not be initialized";
				store_release_descriptors(bucket->n_descriptors);
			}
		}
	}
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
	bucket->context = CurrentMemoryContext;
	bucket->n_parallel = 1;
	strlcpy(bucket->region, bucket_options.region, sizeof(bucket->region));
	strlcpy(bucket->ca_file, bucket_options.ca_file, sizeof(bucket->ca_file));
	bucket->timeout_ms = bucket_options.timeout_ms;
	name_bucket(bucket, url);
	open_session(bucket);
	return (FileStore *) bucket;
}

/*
 * Closes the bucket without using the network.  A lease that was not given
 * back, because of an ERROR, ends by itself; this server may take it again at
 * once.  A callback of the context in which the bucket was opened may close the
 * bucket.  The contexts below that context are gone by then, so the bucket has
 * no context of its own, and does not destroy its hash table, which goes with
 * that context.
 */
void
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
	explicit_bzero(&bucket->keys, sizeof(bucket->keys));
	pfree(bucket);
}


/* ------------------------------------------------ what a bucket can do --- */

int
bucket_reach(FileStore *store)
{
	Bucket	   *bucket = bucket_of(store);
	const BucketCall call = {"GET",.query = {{"versioning", ""}}};
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

bool
bucket_can_undo(FileStore *store)
{
	return bucket_of(store)->enabled;
}

const char *
bucket_error_text(FileStore *store, int errnum)
{
	const Bucket *bucket = bucket_of(store);

	for (int i = 0; i < BUCKET_ERRORS; i++)
		if (errnum != 0 && bucket->errors[i].errnum == errnum && bucket->errors[i].text[0] != '\0')
			return bucket->errors[i].text;
	return strerror(errnum);
}

/* Returns the date of the server's last answer. */
FileResult
bucket_clock(FileStore *store, int64 *now_ns)
{
	const Bucket *bucket = bucket_of(store);

	*now_ns = bucket->date * NS_PER_SECOND;
	return bucket->date != 0 ? come_to(FILE_OK) : fail(ENOTSUP, "could not ask the time");
}

const StoreDriver bucket_driver = {
	.is_local = false,
	.together = 3920,

#define STORE_OWN(type, name, ...) .name = bucket_##name,
#define STORE_BOTH STORE_OWN
#define STORE_WALK STORE_OWN
#define STORE_LOCAL(...)
#define STORE_BUCKET STORE_OWN
#include "src/store/driver_list.h"
};
