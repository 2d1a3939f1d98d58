/*-------------------------------------------------------------------------
 *
 * store/bucket/request.c
 *	  Asks the server of a bucket, and waits for its answer.
 *
 * Waiting serves no interrupts, because nothing in a store raises an error; it
 * looks whether there is one, and gives up: EINTR.  The caller then serves it.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/pg_prng.h"
#include "common/sha2.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "storage/procsignal.h"

#include "src/pg/compat.h"
#include "src/store/bucket/bucket.h"

#define STEP_MS		100

/* a busy server is asked again after 0.1, 0.2, 0.4 ... seconds, or half as long */
#define MAX_TRIES	6
#define FIRST_REST_MS	100

int
bucket_note(Bucket *bucket, int errnum, const char *error)
{
	strlcpy(bucket->error, error, sizeof(bucket->error));
	bucket->error_errnum = errnum;
	return errnum;
}


/* ---------------------------------------------------------------- encoding --- */

static bool
is_unreserved(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		c == '-' || c == '.' || c == '_' || c == '~';
}

/* A "/" stays what it is in a path, and in a query is escaped. */
static bool
encode(char *target, size_t size, const char *text, bool is_path)
{
	size_t		length = strlen(target);

	for (; *text != '\0'; text++)
	{
		unsigned char c = *text;
		bool		plain = is_unreserved(c) || (is_path && c == '/');

		if (length + (plain ? 1 : 3) >= size)
			return false;
		if (plain)
			target[length++] = c;
		else
			length += sprintf(target + length, "%%%02X", c);
	}
	target[length] = '\0';
	return true;
}

bool
bucket_encode(char *query, size_t size, const char *text)
{
	return encode(query, size, text, false);
}

bool
bucket_encode_source(const Bucket *bucket, char *header, size_t size, const char *key, const char *version)
{
	strlcat(header, "/", size);
	strlcat(header, bucket->name, size);
	strlcat(header, "/", size);
	return encode(header, size, key, true) &&
		strlcat(header, "?versionId=", size) < size && encode(header, size, version, false);
}

static bool
make_url(const Bucket *bucket, const BucketCall *call, char url[BUCKET_URL_SIZE])
{
	strlcpy(url, bucket->root, BUCKET_URL_SIZE);
	strlcat(url, "/", BUCKET_URL_SIZE);
	if (call->key != NULL && !encode(url, BUCKET_URL_SIZE, call->key, true))
		return false;
	if (call->query == NULL)
		return true;
	strlcat(url, "?", BUCKET_URL_SIZE);
	return strlcat(url, call->query, BUCKET_URL_SIZE) < BUCKET_URL_SIZE;
}

static bool
hash(const char *text, uint8 digest[PG_SHA256_DIGEST_LENGTH])
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);
	bool		done;

	done = context != NULL && pg_cryptohash_init(context) == 0 &&
		pg_cryptohash_update(context, (const uint8 *) text, strlen(text)) == 0 &&
		pg_cryptohash_final(context, digest, PG_SHA256_DIGEST_LENGTH) == 0;
	pg_cryptohash_free(context);
	return done;
}

/* Without a digest, no file is the one that was expected. */
uint64
bucket_digest(const char *text)
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	uint64		value = 0;
	int			i;

	for (i = 0; i < 8 && (i > 0 || hash(text, digest)); i++)
		value = value << 8 | digest[i];
	return value;
}

/* The hash of a body, in hexadecimal. */
static bool
hash_body(const char *body, char hex[PG_SHA256_DIGEST_STRING_LENGTH])
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	int			i;

	if (!hash(body, digest))
		return false;
	for (i = 0; i < PG_SHA256_DIGEST_LENGTH; i++)
		sprintf(hex + 2 * i, "%02x", digest[i]);
	return true;
}


/* ----------------------------------------------------------------- waiting --- */

/* DROP DATABASE elsewhere should not wait for a server of ours. */
static void
pass_barrier(void)
{
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		ProcessProcSignalBarrier();
	}
	PG_CATCH();
	{
		/* the barrier stays pending, and fails again where it can be raised */
		MemoryContextSwitchTo(caller);
		FlushErrorState();
	}
	PG_END_TRY();
}

static bool
is_interrupted(void)
{
	if (ProcSignalBarrierPending)
		pass_barrier();
	if (!PostmasterIsAlive())
		proc_exit(1);
	return QueryCancelPending || ProcDiePending;
}

/* Returns false if somebody wants us to stop. */
static bool
converse(Bucket *bucket, const BucketRequest *request)
{
	bool		stopped = false;

	pgstat_report_wait_start(compat_wait_event("AudioCleanupBucket"));
	while (!stopped && bucket->library->step(bucket->session, STEP_MS))
		stopped = is_interrupted();
	bucket->library->end(bucket->session);
	pgstat_report_wait_end();
	return !stopped;
}

/* Not all who were sent away should come back at once. */
bool
bucket_rest(int try)
{
	int			ms = FIRST_REST_MS << try;
	int			left = ms / 2 + (int) (pg_prng_double(&pg_global_prng_state) * ms / 2);

	for (; left > 0 && !is_interrupted(); left -= STEP_MS)
	{
		(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, Min(left, STEP_MS),
						 compat_wait_event("AudioCleanupBucket"));
	}
	return left <= 0;
}


/* ----------------------------------------------------------------- answers --- */

static bool
is_to_be_repeated(Bucket *bucket, const BucketCall *call, const BucketAnswer *answer)
{
	/* nothing was done with keys that are not accepted any more */
	if (bucket_renew_keys(bucket, answer))
		return true;
	if (call->once || answer->stopped)
		return false;
	return answer->status == 500 || answer->status == 503 || answer->status == 429 || answer->status == 0;
}

static int
errno_of(const BucketAnswer *answer)
{
	switch (answer->status)
	{
		case 0:
			return answer->timed_out ? ETIMEDOUT : EIO;
		case 401:
		case 403:
			return EACCES;
		case 404:
			return ENOENT;
		case 429:
		case 503:
			return EAGAIN;
		default:
			return EIO;
	}
}

/* Does the answer tell something about what was asked for, good or bad? */
static bool
is_answer(const BucketAnswer *answer)
{
	if (answer->status >= 200 && answer->status < 300)
		return true;
	/* HEAD has no code */
	return (answer->status == 404 && strcmp(answer->code, "NoSuchBucket") != 0) ||
		answer->status == 409 || answer->status == 412;
}

int
bucket_call(Bucket *bucket, const BucketCall *call, const BucketAnswer **answer)
{
	char		url[BUCKET_URL_SIZE];
	char		hex[PG_SHA256_DIGEST_STRING_LENGTH];
	BucketRequest request = {call->method, url, call->headers, call->body, hex, call->raw};
	int			try;
	int			errnum;

	if (bucket->session == NULL)
		return bucket->open_errnum;
	if ((errnum = bucket_have_keys(bucket)) != 0)
		return errnum;
	if (!make_url(bucket, call, url))
		return bucket_note(bucket, ENAMETOOLONG, strerror(ENAMETOOLONG));
	if (!hash_body(call->body ? call->body : "", hex))
		return bucket_note(bucket, ENOMEM, strerror(ENOMEM));
	for (try = 0;; try++)
	{
		if (!bucket->library->begin(bucket->session, &request))
			return bucket_note(bucket, ENOMEM, strerror(ENOMEM));
		if (!converse(bucket, &request))
			return bucket_note(bucket, EINTR, strerror(EINTR));
		*answer = bucket->library->answer(bucket->session);
		if (!is_to_be_repeated(bucket, call, *answer) || try == MAX_TRIES - 1)
			break;
		if (!bucket_rest(try))
			return bucket_note(bucket, EINTR, strerror(EINTR));
	}
	if ((*answer)->date != 0)
		bucket->date = (*answer)->date;
	return is_answer(*answer) ? 0 : bucket_note(bucket, errno_of(*answer), (*answer)->error);
}

int
bucket_fetch(Bucket *bucket, const PlainRequest *request, PlainAnswer *answer)
{
	PlainFetch *fetch = bucket->library->fetch_begin(request, answer);
	bool		stopped = false;

	if (fetch == NULL)
		return bucket_note(bucket, ENOMEM, strerror(ENOMEM));
	pgstat_report_wait_start(compat_wait_event("AudioCleanupBucket"));
	while (!stopped && bucket->library->fetch_step(fetch, STEP_MS))
		stopped = is_interrupted();
	bucket->library->fetch_end(fetch);
	pgstat_report_wait_end();
	return stopped ? bucket_note(bucket, EINTR, strerror(EINTR)) : 0;
}
