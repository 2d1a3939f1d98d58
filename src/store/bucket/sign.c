/*-------------------------------------------------------------------------
 *
 * store/bucket/sign.c
 *	  Signs requests that libcurl would sign falsely.
 *
 * libcurl signs by CURLOPT_AWS_SIGV4.  But versions 8.13 to 8.18 sign a "+" of
 * a query as a blank, so that the server refuses the request; versions from
 * 8.14 on cannot sign a path that must be sent unchanged, as for a key with a
 * part "." or ".."; and version 8.23 encodes the access key, so that the server
 * does not know an access key with ":", as those of Swift.  Debian 13 has 8.14.
 * Such requests are signed here, with any libcurl, by the hash functions of the
 * server:
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hmac.h"
#include "utils/resowner.h"

#include "src/store/bucket/hash.h"
#include "src/store/bucket/sign.h"

/* most headers, and parameters of a query, that a request has here */
#define MAX_PARTS		32

/* a name and its value */
typedef struct Part
{
	const char *name;
	size_t		name_len;
	const char *value;
	size_t		value_len;
} Part;

typedef struct Parts
{
	int			n;
	Part		all[MAX_PARTS];
} Parts;

/* The parts of a URL: scheme://host/path?query */
typedef struct UrlParts
{
	const char *host;
	size_t		host_len;
	const char *path;
	size_t		path_len;
	const char *query;			/* "": none */
} UrlParts;

static void
split_url(const char *url, UrlParts *parts)
{
	const char *host = strstr(url, "://");

	parts->host = host != NULL ? host + 3 : url;
	parts->host_len = strcspn(parts->host, "/?");
	parts->path = parts->host + parts->host_len;
	parts->path_len = strcspn(parts->path, "?");
	parts->query = parts->path + parts->path_len;
	if (*parts->query == '?')
		parts->query++;
}

static bool
has_dot_part(const char *path, size_t len)
{
	const char *end = path + len;

	while (path < end)
	{
		size_t		n = strcspn(++path, "/?");

		if ((n == 1 || n == 2) && strspn(path, ".") >= n)
			return true;
		path += n;
	}
	return false;
}

/* Returns whether the access key has a character that an encoded URL has not. */
static bool
is_to_be_encoded(const char *access_key)
{
	return access_key[strspn(access_key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")] != '\0';
}

bool
sign_is_needed(const char *url, const char *access_key)
{
	UrlParts	parts;

	split_url(url, &parts);
	return strstr(parts.query, "%2B") != NULL || has_dot_part(parts.path, parts.path_len) ||
		is_to_be_encoded(access_key);
}


/* ------------------------------------------------------------------ hashes --- */

/* Sets `digest` to the HMAC; `digest` may be the key. */
static bool
keyed_hash(const void *key, size_t key_len, const char *text, uint8 digest[PG_SHA256_DIGEST_LENGTH])
{
	pg_hmac_ctx *context = pg_hmac_create(PG_SHA256);
	bool		done = context != NULL && pg_hmac_init(context, key, key_len) == 0 &&
	pg_hmac_update(context, (const uint8 *) text, strlen(text)) == 0 &&
	pg_hmac_final(context, digest, PG_SHA256_DIGEST_LENGTH) == 0;

	pg_hmac_free(context);
	return done;
}


/* --------------------------------------------------------- canonical request --- */

static int
compare_bytes(const char *a, size_t a_len, const char *b, size_t b_len)
{
	int			cmp = memcmp(a, b, Min(a_len, b_len));

	return cmp != 0 ? cmp : a_len < b_len ? -1 : a_len > b_len ? 1 : 0;
}

static int
compare_parameters(const void *a, const void *b)
{
	const Part *x = a;
	const Part *y = b;
	int			cmp = compare_bytes(x->name, x->name_len, y->name, y->name_len);

	return cmp != 0 ? cmp : compare_bytes(x->value, x->value_len, y->value, y->value_len);
}

/* Names of headers have no case. */
static int
compare_headers(const void *a, const void *b)
{
	const Part *x = a;
	const Part *y = b;
	int			cmp = pg_strncasecmp(x->name, y->name, Min(x->name_len, y->name_len));

	return cmp != 0 ? cmp : (int) x->name_len - (int) y->name_len;
}

static bool
split_query(const char *query, Parts *parameters)
{
	parameters->n = 0;
	while (*query != '\0')
	{
		size_t		len = strcspn(query, "&");
		Part	   *part = &parameters->all[parameters->n++];

		if (parameters->n == MAX_PARTS)
			return false;
		part->name = query;
		part->name_len = strcspn(query, "=&");
		part->value = query + Min(part->name_len + 1, len);
		part->value_len = query + len - part->value;
		query += len + (query[len] == '&');
	}
	qsort(parameters->all, parameters->n, sizeof(Part), compare_parameters);
	return true;
}

static bool
split_headers(const struct curl_slist *list, Parts *headers)
{
	headers->n = 0;
	for (; list != NULL; list = list->next)
	{
		Part	   *part = &headers->all[headers->n++];

		if (headers->n == MAX_PARTS)
			return false;
		part->name = list->data;
		part->name_len = strcspn(list->data, ":");
		part->value = list->data + part->name_len + (list->data[part->name_len] == ':');
		part->value += strspn(part->value, " ");
		part->value_len = strlen(part->value);
	}
	qsort(headers->all, headers->n, sizeof(Part), compare_headers);
	return true;
}

static void
write_lower(FILE *out, const Part *header)
{
	for (size_t i = 0; i < header->name_len; i++)
		fputc(pg_ascii_tolower((unsigned char) header->name[i]), out);
}

static void
write_signed_names(FILE *out, const Parts *headers)
{
	for (int i = 0; i < headers->n; i++)
	{
		if (i > 0)
			fputc(';', out);
		write_lower(out, &headers->all[i]);
	}
}

static void
write_canonical(FILE *out, const char *method, const UrlParts *url, const Parts *parameters, const Parts *headers)
{
	const Part *body = NULL;

	fprintf(out, "%s\n%.*s\n", method, (int) url->path_len, url->path);
	for (int i = 0; i < parameters->n; i++)
	{
		const Part *part = &parameters->all[i];

		fprintf(out, "%s%.*s=%.*s", i > 0 ? "&" : "", (int) part->name_len, part->name, (int) part->value_len, part->value);
	}
	fputc('\n', out);
	for (int i = 0; i < headers->n; i++)
	{
		const Part *part = &headers->all[i];

		if (part->name_len == strlen("x-amz-content-sha256") && pg_strncasecmp(part->name, "x-amz-content-sha256", part->name_len) == 0)
			body = part;
		write_lower(out, part);
		fprintf(out, ":%s\n", part->value);
	}
	fputc('\n', out);
	write_signed_names(out, headers);
	fprintf(out, "\n%s", body != NULL ? body->value : "UNSIGNED-PAYLOAD");
}

/* Sets `digest` to the hash of the canonical request.  Returns false without memory. */
static bool
hash_request(const char *method, const UrlParts *url, const Parts *headers, uint8 digest[PG_SHA256_DIGEST_LENGTH])
{
	Parts		parameters;
	char	   *text = NULL;
	size_t		len = 0;
	FILE	   *out = split_query(url->query, &parameters) ? open_memstream(&text, &len) : NULL;
	bool		done;

	if (out == NULL)
		return false;
	write_canonical(out, method, url, &parameters, headers);
	done = fclose(out) == 0 && bucket_hash(PG_SHA256, text, len, digest, PG_SHA256_DIGEST_LENGTH);
	free(text);
	return done;
}


/* --------------------------------------------------------------- signature --- */

static bool
make_signature(const SignKeys *keys, const char *day, const char *to_sign, char hex[PG_SHA256_DIGEST_STRING_LENGTH])
{
	uint8		key[PG_SHA256_DIGEST_LENGTH];
	size_t		size = strlen("AWS4") + strlen(keys->secret_key) + 1;
	char	   *secret = malloc(size);
	bool		done = secret != NULL;

	if (!done)
		return false;
	snprintf(secret, size, "AWS4%s", keys->secret_key);
	done = keyed_hash(secret, size - 1, day, key) &&
		keyed_hash(key, sizeof(key), keys->region, key) &&
		keyed_hash(key, sizeof(key), "s3", key) &&
		keyed_hash(key, sizeof(key), "aws4_request", key) &&
		keyed_hash(key, sizeof(key), to_sign, key);
	bucket_write_hex(key, hex);
	explicit_bzero(key, sizeof(key));
	explicit_bzero(secret, size);
	free(secret);
	return done;
}

/* Returns the header of the signature, by malloc(), or NULL without memory. */
static char *
authorize(const struct curl_slist *list, const char *method, const UrlParts *url, const SignKeys *keys, const char *date)
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	char		hex[PG_SHA256_DIGEST_STRING_LENGTH];
	char		day[9];
	char		to_sign[512];
	Parts		headers;
	char	   *text = NULL;
	size_t		len = 0;
	FILE	   *out;

	strlcpy(day, date, sizeof(day));
	if (!split_headers(list, &headers) || !hash_request(method, url, &headers, digest))
		return NULL;
	bucket_write_hex(digest, hex);
	if (snprintf(to_sign, sizeof(to_sign), "AWS4-HMAC-SHA256\n%s\n%s/%s/s3/aws4_request\n%s",
				 date, day, keys->region, hex) >= sizeof(to_sign) ||
		!make_signature(keys, day, to_sign, hex) || (out = open_memstream(&text, &len)) == NULL)
		return NULL;
	fprintf(out, "Authorization: AWS4-HMAC-SHA256 Credential=%s/%s/%s/s3/aws4_request, SignedHeaders=",
			keys->access_key, day, keys->region);
	write_signed_names(out, &headers);
	fprintf(out, ", Signature=%s", hex);
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}

static struct curl_slist *
add_signature(struct curl_slist *headers, const char *method, const UrlParts *url, const SignKeys *keys, const char *date)
{
	char	   *header = authorize(headers, method, url, keys, date);
	struct curl_slist *longer = header != NULL ? curl_slist_append(headers, header) : NULL;

	free(header);
	return longer;
}

/*
 * The server's hash functions need a resource owner that is not being
 * released.  Between two transactions there is no resource owner, so the
 * functions get an owner of their own.
 */
struct curl_slist *
sign_request(struct curl_slist *headers, const char *method, const char *url, const SignKeys *keys, time_t now)
{
	ResourceOwner caller = CurrentResourceOwner;
	ResourceOwner own;
	UrlParts	parts;
	struct tm	utc;
	char		date[sizeof("20260101T000000Z")];
	char		header[1024];
	struct curl_slist *longer;

	split_url(url, &parts);
	if (gmtime_r(&now, &utc) == NULL || strftime(date, sizeof(date), "%Y%m%dT%H%M%SZ", &utc) == 0 ||
		snprintf(header, sizeof(header), "Host: %.*s", (int) parts.host_len, parts.host) >= sizeof(header) ||
		(longer = curl_slist_append(headers, header)) == NULL)
		return NULL;
	snprintf(header, sizeof(header), "x-amz-date: %s", date);
	if (curl_slist_append(longer, header) == NULL)
		return NULL;
	own = CurrentResourceOwner = ResourceOwnerCreate(NULL, "audio_cleanup signature");
	longer = add_signature(longer, method, &parts, keys, date);
	CurrentResourceOwner = caller;
	ResourceOwnerDelete(own);
	return longer;
}
