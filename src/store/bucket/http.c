/*-------------------------------------------------------------------------
 *
 * store/bucket/http.c
 *	  Requests to an S3-compatible server, several at a time, by libcurl, in
 *	  steps.
 *
 * pg/curl.h says how libcurl is used in a process of the server, and sign.c
 * signs the requests.  libcurl never has the secret key.  Of an error of the
 * server, the code and the message are kept, which hold no more than the id of
 * the key.  A request for keys is not signed; its answer is a secret, and so no
 * request goes through a proxy or follows a redirect.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "src/pg/curl.h"
#include "src/store/bucket/sign.h"
#include "src/store/bucket/xml.h"

#define CONNECT_MS		10000

/* A lane, in which one request at a time is on its way. */
typedef struct Lane
{
	CURL	   *easy;			/* NULL before the first request */
	const BucketRequest *request;	/* NULL: the lane is free */
	struct curl_slist *headers;
	AnswerReader *reader;
	bool		is_over;
	char		curl_error[CURL_ERROR_SIZE];
	BucketAnswer answer;
} Lane;

struct BucketSession
{
	CURLM	   *multi;
	int			n_lanes;
	Lane		lanes[FLEXIBLE_ARRAY_MEMBER];
};


/* ----------------------------------------------------------------- session --- */

BucketSession *
http_open(int lanes)
{
	BucketSession *session = calloc(1, offsetof(BucketSession, lanes) + sizeof(Lane) * lanes);

	if (session == NULL)
		return NULL;
	session->n_lanes = lanes;
	session->multi = libcurl_init() ? libcurl_make_multi() : NULL;
	if (session->multi == NULL)
	{
		free(session);
		return NULL;
	}

	/*
	 * an idle connection is closed before there are more connections than
	 * lanes
	 */
	curl_multi_setopt(session->multi, CURLMOPT_MAXCONNECTS, (long) lanes);
	return session;
}

static void
close_lane(BucketSession *session, int number)
{
	Lane	   *lane = &session->lanes[number];

	if (lane->request != NULL)
		http_end(session, number);
	xml_free_entries(&lane->answer);
	/* it may hold keys */
	explicit_bzero(&lane->answer, sizeof(lane->answer));
	curl_easy_cleanup(lane->easy);
}

void
http_close(BucketSession *session)
{
	for (int i = 0; i < session->n_lanes; i++)
		close_lane(session, i);
	curl_multi_cleanup(session->multi);
	free(session);
}


/* ------------------------------------------------------------------ answer --- */

/* Returns whether the body is XML, as the body of an error of S3 always is. */
static bool
is_xml(const Lane *lane)
{
	return !lane->request->raw || (lane->request->keys != NULL && lane->answer.status >= 300);
}

static size_t
take_body(char *data, size_t size, size_t n, void *arg)
{
	Lane	   *lane = arg;
	BucketAnswer *answer = &lane->answer;
	size_t		length = size * n;
	size_t		have;
	long		status = 0;

	curl_easy_getinfo(lane->easy, CURLINFO_RESPONSE_CODE, &status);
	answer->status = (int) status;
	if (is_xml(lane))
	{
		if (lane->reader == NULL)
			lane->reader = xml_begin(answer);
		return lane->reader != NULL && xml_read(lane->reader, data, length) ? length : 0;
	}
	have = strlen(answer->body);
	if (have + length >= sizeof(answer->body))
		length = 0;				/* neither our objects nor keys are that long */
	memcpy(answer->body + have, data, length);
	answer->body[have + length] = '\0';
	return length;
}

/* If the line is that of the header `name`, sets `value` to its value, and returns true. */
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
	libcurl_copy_printable(value, size, line + begin, length - begin);
	return true;
}

static size_t
take_header_line(char *line, size_t size, size_t n, void *arg)
{
	Lane	   *lane = arg;
	BucketAnswer *answer = &lane->answer;
	char		date[64];

	if (take_header(line, size * n, "x-amz-version-id:", answer->version, sizeof(answer->version)) ||
		take_header(line, size * n, "etag:", answer->etag, sizeof(answer->etag)))
		return size * n;
	if (take_header(line, size * n, "date:", date, sizeof(date)))
		answer->date = http_limit_time((int64) curl_getdate(date, NULL));
	else if (take_header(line, size * n, "last-modified:", date, sizeof(date)))
		answer->modified = http_limit_time((int64) curl_getdate(date, NULL));
	return size * n;
}

/* Sets the answer's `error` to a text for people if the request has failed. */
static void
describe(Lane *lane, CURLcode code, bool readable)
{
	BucketAnswer *answer = &lane->answer;
	const char *said = code == CURLE_WRITE_ERROR ? "the answer of the server cannot be read" :
	lane->curl_error[0] ? lane->curl_error : curl_easy_strerror(code);
	char		message[BUCKET_ERROR_SIZE];

	/* of a page in HTML, as a proxy sends it, the status says more */
	if (code != CURLE_OK && answer->code[0] == '\0' && !(code == CURLE_WRITE_ERROR && answer->status >= 300))
	{
		libcurl_copy_printable(answer->error, sizeof(answer->error), said, strlen(said));
		return;
	}
	/* an error may come with the status of a success */
	if (answer->status >= 200 && answer->status < 300 && answer->code[0] == '\0')
	{
		if (!readable && answer->error[0] == '\0')
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
take_answer(Lane *lane, CURLcode code)
{
	BucketAnswer *answer = &lane->answer;
	long		status = 0;
	bool		readable = true;

	lane->is_over = true;
	curl_easy_getinfo(lane->easy, CURLINFO_RESPONSE_CODE, &status);
	answer->status = (int) status;
	if (lane->reader != NULL)
	{
		readable = xml_end(lane->reader);
		lane->reader = NULL;
	}
	/* nothing is no list, and no result of many deletions */
	else if (is_xml(lane) && (strcmp(lane->request->method, "GET") == 0 || strcmp(lane->request->method, "POST") == 0))
		readable = false;
	answer->timed_out = code == CURLE_OPERATION_TIMEDOUT;
	answer->failure = failure_of(code);
	describe(lane, code, readable);
	/* nothing may be concluded from half an answer */
	if ((code != CURLE_OK || !readable) && answer->status < 300)
	{
		answer->status = 0;
		xml_free_entries(answer);
	}
}


/* ----------------------------------------------------------------- request --- */

/*
 * Returns the body; "" for a DELETE, because Swift waits for a body unless the
 * request says that there is no body.
 */
static const char *
body_of(const BucketRequest *request)
{
	return request->body == NULL && strcmp(request->method, "DELETE") == 0 ? "" : request->body;
}

static bool
add_headers(Lane *lane)
{
	const BucketRequest *request = lane->request;

	for (int i = 0; request->headers != NULL && request->headers[i] != NULL; i++)
		if (!libcurl_append(&lane->headers, request->headers[i]))
			return false;
	if (request->keys == NULL)
		return true;
	return (body_of(request) == NULL || libcurl_append(&lane->headers, "content-type: text/plain")) &&
		sign_request(&lane->headers, request, time(NULL));
}

static void
set_connection(const Lane *lane)
{
	CURL	   *easy = lane->easy;
	const BucketRequest *request = lane->request;

	libcurl_set_rules(easy, "http,https", CURLPROTO_HTTP | CURLPROTO_HTTPS, request->ca_file);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long) Min(CONNECT_MS, request->timeout_ms));
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long) request->timeout_ms);

	/*
	 * If a connection breaks that libcurl has used before, libcurl sends the
	 * request again by another connection, even if the server has carried the
	 * request out.  If a new connection breaks, libcurl sends nothing again.
	 */
	if (request->once)
		curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
}

static void
set_request(Lane *lane)
{
	CURL	   *easy = lane->easy;
	const BucketRequest *request = lane->request;

	curl_easy_setopt(easy, CURLOPT_PRIVATE, lane);
	curl_easy_setopt(easy, CURLOPT_URL, request->url);
	/* the path was signed as it is */
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	if (strcmp(request->method, "HEAD") == 0)
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	else
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
	if (body_of(request) != NULL)
	{
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) strlen(body_of(request)));
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body_of(request));
	}
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, lane->headers);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, lane->curl_error);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, lane);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header_line);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, lane);
}

bool
http_begin(BucketSession *session, int number, const BucketRequest *request)
{
	Lane	   *lane = &session->lanes[number];

	xml_free_entries(&lane->answer);
	memset(&lane->answer, 0, sizeof(lane->answer));
	lane->curl_error[0] = '\0';
	lane->is_over = false;
	/* an ERROR may have left some of the headers of the request before */
	curl_slist_free_all(lane->headers);
	lane->headers = NULL;
	if (lane->easy == NULL && (lane->easy = curl_easy_init()) == NULL)
		return false;
	lane->request = request;
	/* curl_easy_reset() keeps connections, sessions of TLS and addresses */
	curl_easy_reset(lane->easy);
	if (add_headers(lane))
	{
		set_connection(lane);
		set_request(lane);
		if (curl_multi_add_handle(session->multi, lane->easy) == CURLM_OK)
			return true;
	}
	http_end(session, number);
	return false;
}

/* Takes the answers that have come.  Returns whether a request is over. */
static bool
take_answers(BucketSession *session)
{
	CURLMsg    *message;
	int			waiting;
	bool		any = false;

	while ((message = curl_multi_info_read(session->multi, &waiting)) != NULL)
	{
		char	   *lane;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &lane);
		take_answer((Lane *) lane, message->data.result);
		any = true;
	}
	return any;
}

/* Ends all requests with a failure, because libcurl cannot work on any. */
static void
give_up_all(BucketSession *session)
{
	for (int i = 0; i < session->n_lanes; i++)
		if (session->lanes[i].request != NULL && !session->lanes[i].is_over)
			take_answer(&session->lanes[i], CURLE_FAILED_INIT);
}

void
http_step(BucketSession *session, int ms)
{
	sigset_t	signals;
	int			running;
	CURLMcode	code = libcurl_work(session->multi, &running, &signals);

	if (!take_answers(session) && code == CURLM_OK)
		(void) curl_multi_poll(session->multi, NULL, 0, ms, NULL);
	else if (code != CURLM_OK)
		give_up_all(session);
}

const BucketAnswer *
http_answer(BucketSession *session, int lane)
{
	return session->lanes[lane].is_over ? &session->lanes[lane].answer : NULL;
}

void
http_end(BucketSession *session, int number)
{
	Lane	   *lane = &session->lanes[number];

	curl_multi_remove_handle(session->multi, lane->easy);
	curl_slist_free_all(lane->headers);
	lane->headers = NULL;
	if (lane->reader != NULL)
		(void) xml_end(lane->reader);
	lane->reader = NULL;
	lane->request = NULL;
}
