/*-------------------------------------------------------------------------
 *
 * store/bucket/sign.c
 *	  Signs requests by AWS Signature Version 4:
 *	  https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
 *
 * libcurl can sign, too (CURLOPT_AWS_SIGV4), but differs by its version:
 * before 8.3 it does not sort the query; versions 8.13 to 8.18 sign a "+" of a
 * query as a blank; versions from 8.14 on cannot sign a path that must be sent
 * unchanged, as for a key with a part "." or ".."; and version 8.23 encodes the
 * access key, so that the server does not know an access key with ":", as those
 * of Swift.  So all requests are signed here, by the hash functions of the
 * server.  All headers of a request are signed.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hmac.h"
#include "lib/stringinfo.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "src/pg/curl.h"
#include "src/store/bucket/hash.h"
#include "src/store/bucket/sign.h"

/* most headers that a request has here */
#define MAX_HEADERS		16

/* A request that is being signed. */
typedef struct Signing
{
	const BucketRequest *request;
	char		date[sizeof("20260101T000000Z")];
	char		scope[128];		/* "20260101/REGION/s3/aws4_request" */
	char		body[PG_SHA256_DIGEST_STRING_LENGTH];	/* hash of the body */
	int			n_headers;
	const char *headers[MAX_HEADERS];	/* sorted by name */
} Signing;


/* ------------------------------------------------------------------ hashes --- */

/* Sets `hex` to the hash of the text.  Returns false without memory. */
static bool
hash(const char *text, size_t len, char hex[PG_SHA256_DIGEST_STRING_LENGTH])
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];

	if (!bucket_hash(PG_SHA256, text, len, digest, sizeof(digest)))
		return false;
	bucket_write_hex(digest, hex);
	return true;
}

/* Sets `digest` to the HMAC; `digest` may be the key. */
static bool
keyed_hash(const void *key, size_t key_len, const char *text, size_t len, uint8 digest[PG_SHA256_DIGEST_LENGTH])
{
	pg_hmac_ctx *context = pg_hmac_create(PG_SHA256);
	bool		done = context != NULL && pg_hmac_init(context, key, key_len) == 0 &&
	pg_hmac_update(context, (const uint8 *) text, len) == 0 &&
	pg_hmac_final(context, digest, PG_SHA256_DIGEST_LENGTH) == 0;

	pg_hmac_free(context);
	return done;
}


/* ----------------------------------------------------------------- headers --- */

/* Appends the header "name: value".  Returns false without memory. */
static bool
append_header(struct curl_slist **list, const char *name, const char *value)
{
	return libcurl_append(list, psprintf("%s: %s", name, value));
}

static size_t
name_length(const char *header)
{
	return strcspn(header, ":");
}

static int
compare_headers(const void *a, const void *b)
{
	const char *x = *(const char *const *) a;
	const char *y = *(const char *const *) b;
	int			cmp = strncmp(x, y, Min(name_length(x), name_length(y)));

	return cmp != 0 ? cmp : (int) name_length(x) - (int) name_length(y);
}

static bool
sort_headers(Signing *signing, const struct curl_slist *list)
{
	for (; list != NULL; list = list->next)
	{
		if (signing->n_headers == MAX_HEADERS)
			return false;
		signing->headers[signing->n_headers++] = list->data;
	}
	qsort(signing->headers, signing->n_headers, sizeof(char *), compare_headers);
	return true;
}

static void
write_names(StringInfo out, const Signing *signing)
{
	for (int i = 0; i < signing->n_headers; i++)
		appendStringInfo(out, "%s%.*s", i > 0 ? ";" : "", (int) name_length(signing->headers[i]), signing->headers[i]);
}


/* --------------------------------------------------------------- signature --- */

/*
 * Sets `hex` to the hash of the request in its canonical form: `path` is what
 * follows the host in the URL.  Returns false without memory.
 */
static bool
hash_request(const Signing *signing, const char *path, char hex[PG_SHA256_DIGEST_STRING_LENGTH])
{
	const char *query = path + strcspn(path, "?");
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfo(&out, "%s\n%.*s\n%s\n", signing->request->method, (int) (query - path), path, *query ? query + 1 : "");
	for (int i = 0; i < signing->n_headers; i++)
	{
		const char *header = signing->headers[i];
		const char *value = header + name_length(header) + 1;

		appendStringInfo(&out, "%.*s%s\n", (int) (value - header), header, value + strspn(value, " "));
	}
	appendStringInfoChar(&out, '\n');
	write_names(&out, signing);
	appendStringInfo(&out, "\n%s", signing->body);
	return hash(out.data, out.len, hex);
}

/* Sets `hex` to the signature of a request with this hash.  Returns false without memory. */
static bool
make_signature(const Signing *signing, char hex[PG_SHA256_DIGEST_STRING_LENGTH])
{
	const char *date = signing->date;
	const BucketRequest *request = signing->request;
	uint8		key[PG_SHA256_DIGEST_LENGTH];
	char		secret[sizeof(request->keys->secret_key) + 4];
	char		text[512];
	bool		done;

	snprintf(secret, sizeof(secret), "AWS4%s", request->keys->secret_key);
	snprintf(text, sizeof(text), "AWS4-HMAC-SHA256\n%s\n%s\n%s", date, signing->scope, hex);
	done = keyed_hash(secret, strlen(secret), date, strcspn(date, "T"), key) &&
		keyed_hash(key, sizeof(key), request->region, strlen(request->region), key) &&
		keyed_hash(key, sizeof(key), "s3", strlen("s3"), key) &&
		keyed_hash(key, sizeof(key), "aws4_request", strlen("aws4_request"), key) &&
		keyed_hash(key, sizeof(key), text, strlen(text), key);
	bucket_write_hex(key, hex);
	explicit_bzero(key, sizeof(key));
	explicit_bzero(secret, sizeof(secret));
	return done;
}

/* Appends the header of the signature.  Returns false without memory. */
static bool
append_signature(struct curl_slist **list, const Signing *signing, const char *hex)
{
	StringInfoData value;

	initStringInfo(&value);
	appendStringInfo(&value, "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=", signing->request->keys->access_key, signing->scope);
	write_names(&value, signing);
	appendStringInfo(&value, ", Signature=%s", hex);
	return append_header(list, "authorization", value.data);
}

static bool
sign(struct curl_slist **list, Signing *signing)
{
	const BucketRequest *request = signing->request;
	const char *token = request->keys->token;
	const char *body = request->body != NULL ? request->body : "";
	const char *host = strstr(request->url, "://") + 3;
	size_t		host_len = strcspn(host, "/?");
	char		hex[PG_SHA256_DIGEST_STRING_LENGTH];

	return hash(body, strlen(body), signing->body) &&
		append_header(list, "host", pnstrdup(host, host_len)) &&
		append_header(list, "x-amz-content-sha256", signing->body) &&
		append_header(list, "x-amz-date", signing->date) &&
		(token[0] == '\0' || append_header(list, "x-amz-security-token", token)) &&
		sort_headers(signing, *list) &&
		hash_request(signing, host + host_len, hex) && make_signature(signing, hex) &&
		append_signature(list, signing, hex);
}

/*
 * The server's hash functions need a resource owner that is not being
 * released.  Between two transactions there is no resource owner, so the
 * functions get an owner of their own.
 */
bool
sign_request(struct curl_slist **headers, const BucketRequest *request, time_t now)
{
	ResourceOwner caller = CurrentResourceOwner;
	ResourceOwner own;
	MemoryContext context;
	MemoryContext former;
	Signing		signing = {request};
	struct tm	utc;
	bool		done;

	if (gmtime_r(&now, &utc) == NULL || strftime(signing.date, sizeof(signing.date), "%Y%m%dT%H%M%SZ", &utc) == 0 ||
		snprintf(signing.scope, sizeof(signing.scope), "%.8s/%s/s3/aws4_request", signing.date, request->region) >= sizeof(signing.scope))
		return false;
	own = CurrentResourceOwner = ResourceOwnerCreate(NULL, "audio_cleanup signature");
	context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup signature", ALLOCSET_SMALL_SIZES);
	former = MemoryContextSwitchTo(context);
	PG_TRY();
	{
		done = sign(headers, &signing);
	}
	PG_CATCH();
	{
		/*
		 * there is no memory: the owner is left, because its release would
		 * call functions of others
		 */
		CurrentResourceOwner = caller;
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(former);
	MemoryContextDelete(context);
	CurrentResourceOwner = caller;
	ResourceOwnerDelete(own);
	return done;
}
