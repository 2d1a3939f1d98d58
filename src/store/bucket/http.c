/*-------------------------------------------------------------------------
 *
 * store/bucket/http.c
 *	  One request to an S3-compatible server, by libcurl, in steps.
 *
 * libcurl in a process of a server that knows no threads is used as for mail:
 * see mail/smtp.c.  Signals are blocked while it works, and its limits of time
 * use none.  A request is signed by libcurl itself (AWS signature, version 4),
 * which before 8.3 does not sort the query: the caller does.
 *
 * The secret key is in the session and in libcurl, and nowhere else; neither
 * shows it.  Of what the server says in an error, its code and its message
 * are kept: neither holds more than the id of the key.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>

#include "src/store/bucket/xml.h"

#define CONNECT_MS		10000

struct BucketSession
{
	CURLM	   *multi;
	CURL	   *easy;
	char	   *scope;			/* "aws:amz:REGION:s3" */
	char	   *access_key;
	char	   *secret_key;
	char	   *token_header;	/* "x-amz-security-token: ...", or NULL */
	char	   *ca_file;		/* or NULL */
	int			timeout_ms;
	sigset_t	signals;		/* of the caller: blocked ones */
	/* of the request */
	const BucketRequest *request;
	struct curl_slist *headers;
	AnswerReader *reader;
	bool		is_over;
	char		curl_error[CURL_ERROR_SIZE];
	BucketAnswer answer;
};

static void
block_signals(BucketSession *session)
{
	sigset_t	all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &session->signals);
}

static void
unblock_signals(const BucketSession *session)
{
	pthread_sigmask(SIG_SETMASK, &session->signals, NULL);
}


/* ----------------------------------------------------------------- session --- */

/* Once in the life of the process. */
static bool
init_library(void)
{
	static bool done = false;

	if (!done)
		done = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
	return done;
}

static char *
join(const char *before, const char *text, const char *after)
{
	size_t		size = strlen(before) + strlen(text) + strlen(after) + 1;
	char	   *joined = malloc(size);

	if (joined != NULL)
		snprintf(joined, size, "%s%s%s", before, text, after);
	return joined;
}

static void
forget(char *secret)
{
	if (secret != NULL)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

BucketSession *
http_open(const BucketServer *server)
{
	BucketSession *session = calloc(1, sizeof(BucketSession));

	if (session == NULL)
		return NULL;
	session->timeout_ms = server->timeout_ms;
	session->scope = join("aws:amz:", server->region, ":s3");
	session->access_key = strdup(server->access_key);
	session->secret_key = strdup(server->secret_key);
	if (server->token != NULL)
		session->token_header = join("x-amz-security-token: ", server->token, "");
	if (server->ca_file != NULL)
		session->ca_file = strdup(server->ca_file);
	if (init_library())
	{
		session->multi = curl_multi_init();
		session->easy = curl_easy_init();
	}
	if (session->scope == NULL || session->access_key == NULL || session->secret_key == NULL ||
		(server->token != NULL && session->token_header == NULL) ||
		(server->ca_file != NULL && session->ca_file == NULL) ||
		session->multi == NULL || session->easy == NULL)
	{
		http_close(session);
		return NULL;
	}
#if LIBCURL_VERSION_NUM >= 0x081400
	/* since then the threads that resolve names are this handle's */
	curl_multi_setopt(session->multi, CURLMOPT_QUICK_EXIT, 1L);
#endif
	return session;
}

bool
http_set_keys(BucketSession *session, const char *access_key, const char *secret_key, const char *token)
{
	char	   *access = strdup(access_key);
	char	   *secret = strdup(secret_key);
	char	   *header = token != NULL ? join("x-amz-security-token: ", token, "") : NULL;

	if (access == NULL || secret == NULL || (token != NULL && header == NULL))
	{
		free(access);
		forget(secret);
		forget(header);
		return false;
	}
	free(session->access_key);
	forget(session->secret_key);
	forget(session->token_header);
	session->access_key = access;
	session->secret_key = secret;
	session->token_header = header;
	return true;
}

void
http_close(BucketSession *session)
{
	if (session->request != NULL)
		http_end(session);
	xml_free_entries(&session->answer);
	if (session->easy != NULL)
		curl_easy_cleanup(session->easy);
	if (session->multi != NULL)
		curl_multi_cleanup(session->multi);
	free(session->scope);
	free(session->access_key);
	forget(session->secret_key);
	forget(session->token_header);
	free(session->ca_file);
	free(session);
}


/* ------------------------------------------------------------------ answer --- */

/* Other methods of HTTP than by a 2xx end in an error that is XML, or empty. */
static bool
is_xml(const BucketSession *session)
{
	return !session->request->raw || session->answer.status >= 300;
}

static size_t
take_body(char *data, size_t size, size_t n, void *arg)
{
	BucketSession *session = arg;
	BucketAnswer *answer = &session->answer;
	size_t		length = size * n;
	size_t		have;
	long		status = 0;

	curl_easy_getinfo(session->easy, CURLINFO_RESPONSE_CODE, &status);
	answer->status = (int) status;
	if (is_xml(session))
	{
		if (session->reader == NULL)
			session->reader = xml_begin(answer);
		return session->reader != NULL && xml_read(session->reader, data, length) ? length : 0;
	}
	have = strlen(answer->body);
	if (have + length >= sizeof(answer->body))
		length = 0;				/* nothing of ours */
	memcpy(answer->body + have, data, length);
	answer->body[have + length] = '\0';
	return length;
}

static bool
take_header(const char *line, size_t length, const char *name, char *value, size_t size)
{
	size_t		begin = strlen(name);

	if (length < begin || pg_strncasecmp(line, name, begin) != 0)
		return false;
	while (begin < length && line[begin] == ' ')
		begin++;
	while (length > begin && (line[length - 1] == '\n' || line[length - 1] == '\r' || line[length - 1] == ' '))
		length--;
	xml_copy_printable(value, size, line + begin, length - begin);
	return true;
}

static size_t
take_header_line(char *line, size_t size, size_t n, void *arg)
{
	BucketSession *session = arg;
	BucketAnswer *answer = &session->answer;
	char		date[64];

	if (!take_header(line, size * n, "x-amz-version-id:", answer->version, sizeof(answer->version)) &&
		take_header(line, size * n, "date:", date, sizeof(date)))
		answer->date = Max((int64) curl_getdate(date, NULL), 0);
	return size * n;
}

/* What went wrong, in words for people. */
static void
describe(BucketSession *session, CURLcode code, bool readable)
{
	BucketAnswer *answer = &session->answer;
	const char *said = code == CURLE_WRITE_ERROR ? "the answer of the server cannot be read" :
	session->curl_error[0] ? session->curl_error : curl_easy_strerror(code);
	char		message[BUCKET_ERROR_SIZE];

	if (code != CURLE_OK && answer->code[0] == '\0')
	{
		xml_copy_printable(answer->error, sizeof(answer->error), said, strlen(said));
		return;
	}
	if (answer->status >= 200 && answer->status < 300)
	{
		if (!readable)
			strlcpy(answer->error, "the answer of the server cannot be read", sizeof(answer->error));
		return;
	}
	strlcpy(message, answer->error, sizeof(message));
	snprintf(answer->error, sizeof(answer->error), "HTTP status %d%s%s%s%s", answer->status,
			 answer->code[0] ? ", " : "", answer->code, message[0] ? ": " : "", message);
}

static BucketFailure
failure_of(CURLcode code)
{
	switch (code)
	{
		case CURLE_OK:
			return BUCKET_ANSWERED;
		case CURLE_COULDNT_RESOLVE_HOST:
			return BUCKET_NO_NAME;
		case CURLE_COULDNT_CONNECT:
			return BUCKET_NO_CONNECTION;
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_CIPHER:
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_INVALIDCERTSTATUS:
			return BUCKET_NO_TLS;
		default:
			return BUCKET_NO_ANSWER;
	}
}

static void
take_answer(BucketSession *session, CURLcode code)
{
	BucketAnswer *answer = &session->answer;
	long		status = 0;
	bool		readable = true;

	curl_easy_getinfo(session->easy, CURLINFO_RESPONSE_CODE, &status);
	answer->status = (int) status;
	if (session->reader != NULL)
	{
		readable = xml_end(session->reader);
		session->reader = NULL;
	}
	answer->timed_out = code == CURLE_OPERATION_TIMEDOUT;
	answer->failure = failure_of(code);
	describe(session, code, readable);
	/* nothing may be concluded from a half of it */
	if ((code != CURLE_OK || !readable) && answer->status < 300)
	{
		answer->status = 0;
		xml_free_entries(answer);
	}
}


/* ----------------------------------------------------------------- request --- */

static bool
add_header(BucketSession *session, const char *header)
{
	struct curl_slist *longer = curl_slist_append(session->headers, header);

	if (longer != NULL)
		session->headers = longer;
	return longer != NULL;
}

static bool
add_headers(BucketSession *session)
{
	char		hash[128];
	int			i;

	snprintf(hash, sizeof(hash), "x-amz-content-sha256: %s", session->request->body_sha256);
	for (i = 0; session->request->headers != NULL && session->request->headers[i] != NULL; i++)
		if (!add_header(session, session->request->headers[i]))
			return false;

	/*
	 * each is signed; libcurl 7.88 would sign one that has no value, and not
	 * send it
	 */
	return add_header(session, hash) &&
		(session->request->body == NULL || add_header(session, "Content-Type: text/plain")) &&
		(session->token_header == NULL || add_header(session, session->token_header));
}

static void
set_connection(const BucketSession *session)
{
	CURL	   *easy = session->easy;

#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS);
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	/* not what the environment of the server says */
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	if (session->ca_file != NULL)
		curl_easy_setopt(easy, CURLOPT_CAINFO, session->ca_file);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long) Min(CONNECT_MS, session->timeout_ms));
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long) session->timeout_ms);
}

static void
set_request(BucketSession *session)
{
	CURL	   *easy = session->easy;
	const BucketRequest *request = session->request;

	curl_easy_setopt(easy, CURLOPT_URL, request->url);
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	if (strcmp(request->method, "HEAD") == 0)
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	else
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
	if (request->body != NULL)
	{
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) strlen(request->body));
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body);
	}
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, session->headers);
	curl_easy_setopt(easy, CURLOPT_AWS_SIGV4, session->scope);
	curl_easy_setopt(easy, CURLOPT_USERNAME, session->access_key);
	curl_easy_setopt(easy, CURLOPT_PASSWORD, session->secret_key);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, session->curl_error);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, session);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header_line);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, session);
}

bool
http_begin(BucketSession *session, const BucketRequest *request)
{
	xml_free_entries(&session->answer);
	memset(&session->answer, 0, sizeof(session->answer));
	session->curl_error[0] = '\0';
	session->is_over = false;
	session->request = request;
	/* connections, sessions of TLS and addresses stay known */
	curl_easy_reset(session->easy);
	if (!add_headers(session))
	{
		http_end(session);
		return false;
	}
	set_connection(session);
	set_request(session);
	if (curl_multi_add_handle(session->multi, session->easy) == CURLM_OK)
		return true;
	http_end(session);
	return false;
}

bool
http_step(BucketSession *session, int ms)
{
	int			running = 0;
	int			waiting;
	CURLMsg    *message;
	CURLMcode	code;

	block_signals(session);
	code = curl_multi_perform(session->multi, &running);
	unblock_signals(session);
	if (code == CURLM_OK && running > 0)
	{
		(void) curl_multi_poll(session->multi, NULL, 0, ms, NULL);
		return true;
	}
	session->is_over = true;
	message = curl_multi_info_read(session->multi, &waiting);
	take_answer(session, message != NULL && message->msg == CURLMSG_DONE ?
				message->data.result : CURLE_FAILED_INIT);
	return false;
}

const BucketAnswer *
http_answer(BucketSession *session)
{
	return &session->answer;
}

void
http_end(BucketSession *session)
{
	session->answer.stopped = !session->is_over;
	curl_multi_remove_handle(session->multi, session->easy);
	curl_slist_free_all(session->headers);
	session->headers = NULL;
	if (session->reader != NULL)
		(void) xml_end(session->reader);
	session->reader = NULL;
	session->request = NULL;
}
