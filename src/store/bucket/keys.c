/*-------------------------------------------------------------------------
 *
 * store/bucket/keys.c
 *	  The keys that sign requests: where they come from, and when they are renewed.
 *
 * The first configured source of this list is asked, and no other source even
 * if it fails.  The tools of AWS have the same order.
 *
 *	1.	the file audio_cleanup.s3_credentials_file
 *	2.	the environment of the server: AWS_ACCESS_KEY_ID ...
 *	3.	a token service (STS), if the environment names a role and a file
 *		with a web identity token
 *	4.	the service for containers that the environment names
 *	5.	the metadata service of the machine, version 2, if
 *		audio_cleanup.s3_metadata_service is on
 *
 * The first two sources are read whenever a bucket is opened.  Keys of the
 * other sources are valid for some hours.  The first request fetches such
 * keys.  Before the keys expire, or when a server says that they have expired,
 * new keys are fetched.  Fetched keys are kept in the memory of this process,
 * and nowhere else.
 *
 * The services of 4 and 5 give keys to everybody on this machine, by plain
 * HTTP.  So a service is asked only at an address on this machine or its link,
 * which no packet leaves, and never by a name, which could mean another
 * machine.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "src/pg/secret.h"
#include "src/store/bucket/bucket.h"
#include "src/store/bucket/options.h"
#include "src/text/json_build.h"

typedef enum KeySource
{
	KEYS_NOWHERE,
	KEYS_FILE,
	KEYS_ENVIRONMENT,
	KEYS_WEB_IDENTITY,
	KEYS_CONTAINER,
	KEYS_METADATA
} KeySource;

#define METADATA_SERVICE	"http://169.254.169.254"
#define CONTAINER_SERVICE	"http://169.254.170.2"
#define METADATA_PATH		"/latest/meta-data/iam/security-credentials/"
#define TOKEN_SECONDS		"300"

/* a service on this machine or on its link answers at once, or is not there */
#define NEAR_TIMEOUT_MS		2000
#define STS_TIMEOUT_MS		10000

/*
 * keys are renewed this time before they expire, or, if later, when a quarter
 * of their time is left
 */
#define RENEW_SECONDS		300

/*
 * a failed renewal is tried again after this time, while the old keys are
 * valid
 */
#define RETRY_SECONDS		30

/* The keys that this process has fetched last. */
static struct
{
	KeySource	source;
	BucketKeys	keys;
	int64		renew_at;
}			fetched;


/* ------------------------------------------------------------ file, environment --- */

/* Takes the value of a line "name = value".  A blank in the format matches any blanks, or none. */
static void
take_line(BucketKeys *keys, const char *line)
{
	(void) sscanf(line, " aws_access_key_id = %255s", keys->access_key);
	(void) sscanf(line, " aws_secret_access_key = %255s", keys->secret_key);
	(void) sscanf(line, " aws_session_token = %8191s", keys->token);
}

/* Reads the first section of a file as the tools of AWS write it.  Returns NULL, or what is wrong. */
static const char *
read_credentials(const char *path, BucketKeys *keys)
{
	char		text[16384];
	char	   *next = text;
	char	   *line;
	int			sections = 0;
	const char *error = secret_read_whole(path, text, sizeof(text));

	while (error == NULL && (line = strsep(&next, "\n")) != NULL)
	{
		if (*line == '[' && ++sections > 1)
			break;
		take_line(keys, line);
	}
	explicit_bzero(text, sizeof(text));
	if (error != NULL)
		return psprintf("audio_cleanup.s3_credentials_file cannot be used: %s", error);
	if (keys->access_key[0] == '\0' || keys->secret_key[0] == '\0')
		return "audio_cleanup.s3_credentials_file holds no aws_access_key_id and aws_secret_access_key";
	return NULL;
}

static const char *
variable(const char *name)
{
	const char *value = getenv(name);

	return value != NULL ? value : "";
}

static bool
has(const char *name)
{
	return *variable(name) != '\0';
}

static KeySource
find_key_source(void)
{
	if (*bucket_options.credentials_file != '\0')
		return KEYS_FILE;
	if (has("AWS_ACCESS_KEY_ID") && has("AWS_SECRET_ACCESS_KEY"))
		return KEYS_ENVIRONMENT;
	if (has("AWS_WEB_IDENTITY_TOKEN_FILE") && has("AWS_ROLE_ARN"))
		return KEYS_WEB_IDENTITY;
	if (has("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") || has("AWS_CONTAINER_CREDENTIALS_FULL_URI"))
		return KEYS_CONTAINER;
	return bucket_options.metadata_service ? KEYS_METADATA : KEYS_NOWHERE;
}

static bool
are_same(const BucketKeys *a, const BucketKeys *b)
{
	return strcmp(a->access_key, b->access_key) == 0 && strcmp(a->secret_key, b->secret_key) == 0 &&
		strcmp(a->token, b->token) == 0;
}

/* Gives the bucket these keys, unless it has them already. */
static void
set_keys(Bucket *bucket, const BucketKeys *keys)
{
	if (are_same(&bucket->keys, keys))
		return;
	bucket->keys = *keys;
	bucket->keys_number++;
}

const char *
bucket_find_keys(Bucket *bucket)
{
	bucket->key_source = find_key_source();
	switch ((KeySource) bucket->key_source)
	{
		case KEYS_FILE:
			return read_credentials(bucket_options.credentials_file, &bucket->keys);
		case KEYS_NOWHERE:
			return "audio_cleanup.s3_credentials_file is not set, the environment of the server holds no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and audio_cleanup.s3_metadata_service is off";
		case KEYS_ENVIRONMENT:
			strlcpy(bucket->keys.access_key, variable("AWS_ACCESS_KEY_ID"), sizeof(bucket->keys.access_key));
			strlcpy(bucket->keys.secret_key, variable("AWS_SECRET_ACCESS_KEY"), sizeof(bucket->keys.secret_key));
			strlcpy(bucket->keys.token, variable("AWS_SESSION_TOKEN"), sizeof(bucket->keys.token));
			return NULL;
		default:
			return NULL;		/* the first call fetches the keys */
	}
}

/* ------------------------------------------------------------------ addresses --- */

/* Returns whether the address is loopback, link-local, or in the prefix in which AWS has these services. */
static bool
is_near_address(const char *host, bool is_v6)
{
	struct in6_addr v6;
	struct in_addr v4;

	if (is_v6)
		return inet_pton(AF_INET6, host, &v6) == 1 &&
			(IN6_IS_ADDR_LOOPBACK(&v6) || IN6_IS_ADDR_LINKLOCAL(&v6) || memcmp(v6.s6_addr, "\xfd\x00\x0e\xc2", 4) == 0);
	return inet_pton(AF_INET, host, &v4) == 1 &&
		(ntohl(v4.s_addr) >> 24 == 127 || ntohl(v4.s_addr) >> 16 == (169 << 8 | 254));
}

/* Returns whether the URL means a service on this machine or its link, written as an address. */
static bool
is_near(const char *url)
{
	char		host[64];
	const char *begin = strstr(url, "://");
	const char *end;
	bool		is_v6;

	if (begin == NULL || (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0))
		return false;
	begin += 3;
	is_v6 = *begin == '[';
	begin += is_v6;
	end = begin + strcspn(begin, is_v6 ? "]" : ":/");
	if (end - begin >= sizeof(host) || (is_v6 && *end != ']'))
		return false;
	strlcpy(host, begin, end - begin + 1);
	end += is_v6;
	/* only a port may stand between the address and the path */
	if (strspn(end, ":0123456789") != strcspn(end, "/"))
		return false;
	return is_near_address(host, is_v6);
}


/* ------------------------------------------------------------------- answers --- */

/* Returns whether the text is a word of the letters that keys, dates, tokens and names of roles have. */
static bool
is_plain_word(const char *text)
{
	const char *at;

	for (at = text; *at != '\0'; at++)
		if (!isalnum((unsigned char) *at) && strchr("/+=-_.:~%", *at) == NULL)
			return false;
	return at > text;
}

/* Takes values that are strings, and have room, out of the JSON object `text`. */
static void
find_members(const char *text, BucketValue *values, int n)
{
	Jsonb	   *json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));

	for (int i = 0; i < n && JB_ROOT_IS_OBJECT(json); i++)
	{
		char	   *member = json_get_text(json, values[i].name);

		values[i].found = member != NULL && strlcpy(values[i].value, member, values[i].size) < values[i].size;
		if (member != NULL)
			explicit_bzero(member, strlen(member));
	}
	explicit_bzero(json, VARSIZE(json));
}

/*
 * Does the work of find_members() for a text that may be anything: the
 * server's parser raises an ERROR, which no function of a store may do.
 */
static void
read_json(const char *text, BucketValue *values, int n)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context;
	uint32		holdoff = InterruptHoldoffCount;

	/* the parser requires that the text has this database's encoding */
	if (!pg_verifymbstr(text, (int) strlen(text), true))
		return;
	context = AllocSetContextCreate(caller, "audio_cleanup answer", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		find_members(text, values, n);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		FlushErrorState();
		InterruptHoldoffCount = holdoff;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}


/* ------------------------------------------------------------------- fetching --- */

/* A fetch of keys. */
typedef struct Fetching
{
	Bucket	   *bucket;
	const char *service;		/* its name, for people */
	BucketKeys *keys;
	const BucketAnswer *answer; /* to the last request; may hold secrets */
} Fetching;

/* Notes why there are no keys.  Returns an errno. */
static int
lack_keys(Fetching *fetching, const char *why)
{
	char		text[BUCKET_ERROR_SIZE + 64];

	snprintf(text, sizeof(text), "no keys from %s: %s", fetching->service, why);
	return bucket_note(fetching->bucket, EACCES, text);
}

/*
 * Makes a request.  Returns 0 if the answer has status 200; else notes the
 * reason, and returns an errno.
 */
static int
ask_service(Fetching *fetching, const BucketRequest *request)
{
	int			errnum = bucket_fetch(fetching->bucket, request, &fetching->answer);
	char		why[BUCKET_ERROR_SIZE];
	char		code[64];
	BucketValue value = {"Code", code, sizeof(code)};

	if (errnum != 0)
		return errnum;
	if (fetching->answer->status == 200)
		return 0;
	/* only the code of an error is told of the body, which may hold secrets */
	if (!fetching->bucket->library->find_values(fetching->answer->body, "Error", &value, 1) || !is_plain_word(code))
		code[0] = '\0';
	snprintf(why, sizeof(why), "%s%s%s", fetching->answer->error, code[0] ? ", " : "", code);
	return lack_keys(fetching, why);
}

/* Takes keys out of the answer of the service. */
static bool
take_keys(Fetching *fetching)
{
	/* a token service answers by XML, the other services by a JSON object */
	bool		is_xml = fetching->bucket->key_source == KEYS_WEB_IDENTITY;
	BucketKeys *keys = fetching->keys;
	char		expires[64];
	BucketValue values[] = {
		{"AccessKeyId", keys->access_key, sizeof(keys->access_key)},
		{"SecretAccessKey", keys->secret_key, sizeof(keys->secret_key)},
		{is_xml ? "SessionToken" : "Token", keys->token, sizeof(keys->token)},
		{"Expiration", expires, sizeof(expires)}
	};

	if (is_xml)
		(void) fetching->bucket->library->find_values(fetching->answer->body, "Credentials", values, lengthof(values));
	else
		read_json(fetching->answer->body, values, lengthof(values));
	for (int i = 0; i < lengthof(values); i++)
		if (!values[i].found || !is_plain_word(values[i].value))
			return false;
	keys->expires = http_parse_time(expires);
	return keys->expires != 0;
}

/* Makes the request for keys, and takes them; `otherwise` says that the answer has none. */
static int
ask_for_keys(Fetching *fetching, const BucketRequest *request, const char *otherwise)
{
	int			errnum = ask_service(fetching, request);

	return errnum == 0 && !take_keys(fetching) ? lack_keys(fetching, otherwise) : errnum;
}

/* Reads a token from its file, which Kubernetes writes.  Returns NULL, or what is wrong. */
static const char *
read_token(const char *path, char *token, size_t size)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	ssize_t		n;

	if (fd < 0)
		return strerror(errno);
	n = read(fd, token, size - 1);
	close(fd);
	if (n < 0)
		return strerror(errno);
	token[n] = '\0';
	token[strcspn(token, "\r\n")] = '\0';
	return *token == '\0' ? "it is empty" : n == size - 1 ? "it is too long" : NULL;
}

static int
fetch_web_identity(Fetching *fetching)
{
	static const char *const headers[] = {"content-type: application/x-www-form-urlencoded", NULL};
	char		endpoint[160];
	char		url[192];
	char		token[8192];
	char		body[3 * 8192 + 2048] = "";
	const char *error = read_token(variable("AWS_WEB_IDENTITY_TOKEN_FILE"), token, sizeof(token));
	const BucketParameter parameters[] = {
		{"Action", "AssumeRoleWithWebIdentity"},
		{"RoleArn", variable("AWS_ROLE_ARN")},
		{"RoleSessionName", has("AWS_ROLE_SESSION_NAME") ? variable("AWS_ROLE_SESSION_NAME") : "audio_cleanup"},
		{"Version", "2011-06-15"},
		{"WebIdentityToken", token},
		{NULL}
	};
	const BucketRequest request = {
		.method = "POST",.url = url,.headers = headers,.body = body,.raw = true,
		.ca_file = *fetching->bucket->ca_file ? fetching->bucket->ca_file : NULL,.timeout_ms = STS_TIMEOUT_MS
	};
	int			errnum;

	fetching->service = "the token service";
	snprintf(endpoint, sizeof(endpoint), "https://sts.%s.amazonaws.com", fetching->bucket->region);
	if (has("AWS_ENDPOINT_URL_STS"))
		strlcpy(endpoint, variable("AWS_ENDPOINT_URL_STS"), sizeof(endpoint));
	snprintf(url, sizeof(url), "%s/", endpoint);
	if (error != NULL)
		error = psprintf("AWS_WEB_IDENTITY_TOKEN_FILE cannot be read: %s", error);
	else if (bucket_judge_endpoint(endpoint) != NULL)
		error = psprintf("AWS_ENDPOINT_URL_STS cannot be used: %s", bucket_judge_endpoint(endpoint));
	else if (!bucket_encode_query(body, sizeof(body), parameters, ""))
		error = strerror(ENAMETOOLONG);
	errnum = error != NULL ? lack_keys(fetching, error) : ask_for_keys(fetching, &request, "its answer cannot be read");
	explicit_bzero(token, sizeof(token));
	explicit_bzero(body, sizeof(body));
	return errnum;
}

static int
fetch_container(Fetching *fetching)
{
	char		url[512];
	char		header[8192 + 32] = "authorization: ";
	const char *token_file = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
	const char *const headers[] = {header, NULL};
	BucketRequest request = {.method = "GET",.url = url,.raw = true,.timeout_ms = NEAR_TIMEOUT_MS};
	size_t		length = strlen(header);
	const char *error = NULL;
	int			errnum;

	fetching->service = "the service for containers";
	if (has("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"))
		snprintf(url, sizeof(url), "%s%s", CONTAINER_SERVICE, variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"));
	else
		strlcpy(url, variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"), sizeof(url));
	if (!is_near(url))
		return lack_keys(fetching, "its address is neither on this machine nor link-local");
	if (*token_file != '\0')
		error = read_token(token_file, header + length, sizeof(header) - length);
	else
		strlcpy(header + length, variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"), sizeof(header) - length);
	if (header[length] != '\0')
		request.headers = headers;
	errnum = error != NULL ?
		lack_keys(fetching, psprintf("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE cannot be read: %s", error)) :
		ask_for_keys(fetching, &request, "its answer cannot be read");
	explicit_bzero(header, sizeof(header));
	return errnum;
}

/* The service is asked for a token first, then for the name of the role, then for its keys. */
static int
fetch_metadata(Fetching *fetching)
{
	static const char *const ttl[] = {"x-aws-ec2-metadata-token-ttl-seconds: " TOKEN_SECONDS, NULL};
	const char *service = has("AWS_EC2_METADATA_SERVICE_ENDPOINT") ?
	variable("AWS_EC2_METADATA_SERVICE_ENDPOINT") : METADATA_SERVICE;
	int			length = (int) strlen(service) - (*service != '\0' && service[strlen(service) - 1] == '/' ? 1 : 0);
	char		url[512];
	char		role[128];
	char		token[512];
	char		header[600];
	const char *const headers[] = {header, NULL};
	BucketRequest request = {.method = "PUT",.url = url,.headers = ttl,.raw = true,.timeout_ms = NEAR_TIMEOUT_MS};
	bool		fits;
	int			errnum;

	fetching->service = "the metadata service of this machine";
	if (!is_near(service))
		return lack_keys(fetching, "its address is neither on this machine nor link-local");
	snprintf(url, sizeof(url), "%.*s/latest/api/token", length, service);
	if ((errnum = ask_service(fetching, &request)) != 0)
		return errnum;
	if (strlcpy(token, fetching->answer->body, sizeof(token)) >= sizeof(token) || !is_plain_word(token))
		return lack_keys(fetching, "its token cannot be read");
	snprintf(header, sizeof(header), "x-aws-ec2-metadata-token: %s", token);
	request.method = "GET";
	request.headers = headers;
	snprintf(url, sizeof(url), "%.*s%s", length, service, METADATA_PATH);
	if ((errnum = ask_service(fetching, &request)) != 0)
		return fetching->answer != NULL && fetching->answer->status == 404 ?
			lack_keys(fetching, "this machine has no role") : errnum;
	fits = strlcpy(role, fetching->answer->body, sizeof(role)) < sizeof(role);
	role[strcspn(role, "\r\n")] = '\0';
	if (!fits || !is_plain_word(role) || strpbrk(role, "/%:") != NULL)
		return lack_keys(fetching, "the name of the role cannot be read");
	snprintf(url, sizeof(url), "%.*s%s%s", length, service, METADATA_PATH, role);
	errnum = ask_for_keys(fetching, &request, "its answer holds no keys");
	explicit_bzero(token, sizeof(token));
	explicit_bzero(header, sizeof(header));
	return errnum;
}


/* ------------------------------------------------------------------- renewing --- */

/* What the sources have of their own. */
static const struct
{
	const char *text;			/* for people: where the keys come from */
	int			(*fetch) (Fetching *fetching);	/* NULL: the keys are not
												 * fetched */
}			sources[] = {
	[KEYS_NOWHERE] = {"there are no keys"},
	[KEYS_FILE] = {"the keys come from audio_cleanup.s3_credentials_file"},
	[KEYS_ENVIRONMENT] = {"the keys come from the environment of the server"},
	[KEYS_WEB_IDENTITY] = {"the keys come from the token service, for the web identity that the environment names", fetch_web_identity},
	[KEYS_CONTAINER] = {"the keys come from the service for containers that the environment names", fetch_container},
	[KEYS_METADATA] = {"the keys come from the metadata service of this machine", fetch_metadata}
};

const char *
bucket_describe_keys(const Bucket *bucket)
{
	return sources[bucket->key_source].text;
}

static bool
is_fetched(const Bucket *bucket)
{
	return sources[bucket->key_source].fetch != NULL;
}

/* Fetches keys for this process.  Returns 0; or an errno, and then the old keys stay. */
static int
fetch_anew(Bucket *bucket)
{
	BucketKeys	keys = {0};
	Fetching	fetching = {.bucket = bucket,.keys = &keys};
	int			errnum = sources[bucket->key_source].fetch(&fetching);

	if (errnum == 0)
	{
		fetched.source = bucket->key_source;
		fetched.keys = keys;
		fetched.renew_at = keys.expires - Min(RENEW_SECONDS, Max(keys.expires - (int64) time(NULL), 0) / 4);
	}
	explicit_bzero(&keys, sizeof(keys));
	return errnum;
}

int
bucket_have_keys(Bucket *bucket)
{
	int64		now = (int64) time(NULL);
	bool		known = fetched.source == bucket->key_source;
	int			errnum;

	if (!is_fetched(bucket))
		return 0;
	if (!known || now >= fetched.renew_at)
	{
		errnum = fetch_anew(bucket);
		if (errnum == EINTR || (errnum != 0 && !(known && now < fetched.keys.expires)))
			return errnum;
		if (errnum != 0)
			fetched.renew_at = Min(now + RETRY_SECONDS, fetched.keys.expires);
	}
	set_keys(bucket, &fetched.keys);
	return 0;
}

/* Returns whether the answer says that the keys have expired.  Ceph refuses such keys without a reason. */
static bool
has_expired(const Bucket *bucket, const BucketAnswer *answer)
{
	if (strcmp(answer->code, "ExpiredToken") == 0 || strcmp(answer->code, "ExpiredTokenException") == 0)
		return true;
	return answer->status == 403 && is_fetched(bucket) && (int64) time(NULL) >= fetched.keys.expires;
}

bool
bucket_renew_keys(Bucket *bucket, const BucketAnswer *answer, int used)
{
	int			before = bucket->keys_number;
	BucketKeys	keys = {0};

	/* the keys were renewed for another request meanwhile */
	if (used != before)
		return answer->status == 403 || has_expired(bucket, answer);
	if (!has_expired(bucket, answer))
		return false;
	if (is_fetched(bucket))
	{
		/* keys may have been fetched for another bucket of this process */
		if (are_same(&fetched.keys, &bucket->keys) && fetch_anew(bucket) != 0)
			return false;
		set_keys(bucket, &fetched.keys);
	}
	/* somebody may have written new keys to the file */
	else if (bucket->key_source == KEYS_FILE && read_credentials(bucket_options.credentials_file, &keys) == NULL)
		set_keys(bucket, &keys);
	explicit_bzero(&keys, sizeof(keys));
	return bucket->keys_number != before;
}
