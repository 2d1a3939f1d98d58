/*-------------------------------------------------------------------------
 *
 * store/bucket/plain.c
 *	  Requests for keys, which are not signed: to the metadata service of the
 *	  machine, to the service for its containers, or to a token service.
 *
 * libcurl is used as in http.c.  No request goes through a proxy or follows a
 * redirect, because its answer is a secret.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "src/pg/curl.h"
#include "src/store/bucket/http.h"

struct PlainFetch
{
	CURLM	   *multi;
	CURL	   *easy;
	struct curl_slist *headers;
	PlainAnswer *answer;
	size_t		length;			/* of the answer's text */
	char		curl_error[CURL_ERROR_SIZE];
};

static size_t
take_text(char *data, size_t size, size_t n, void *arg)
{
	PlainFetch *fetch = arg;
	size_t		length = size * n;

	if (fetch->length + length >= sizeof(fetch->answer->text))
		return 0;				/* no keys are that long */
	memcpy(fetch->answer->text +fetch->length, data, length);
	fetch->length += length;
	fetch->answer->text[fetch->length] = '\0';
	return length;
}

static void
set_options(const PlainFetch *fetch, const PlainRequest *request)
{
	CURL	   *easy = fetch->easy;

	libcurl_set_rules(easy, "http,https", CURLPROTO_HTTP | CURLPROTO_HTTPS, request->ca_file);
	curl_easy_setopt(easy, CURLOPT_URL, request->url);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long) request->timeout_ms);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long) request->timeout_ms);
	if (request->body != NULL)
		curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, request->body);
	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, fetch->headers);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, fetch->curl_error);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_text);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, fetch);
}

static bool
add_headers(PlainFetch *fetch, const char *const *headers)
{
	for (; headers != NULL && *headers != NULL; headers++)
		if (!libcurl_append(&fetch->headers, *headers))
			return false;
	return true;
}

PlainFetch *
plain_begin(const PlainRequest *request, PlainAnswer *answer)
{
	PlainFetch *fetch = calloc(1, sizeof(PlainFetch));

	if (fetch == NULL)
		return NULL;
	memset(answer, 0, sizeof(*answer));
	fetch->answer = answer;
	fetch->multi = libcurl_make_multi();
	fetch->easy = curl_easy_init();
	if (fetch->multi == NULL || fetch->easy == NULL || !add_headers(fetch, request->headers))
	{
		plain_end(fetch);
		return NULL;
	}
	set_options(fetch, request);
	if (curl_multi_add_handle(fetch->multi, fetch->easy) == CURLM_OK)
		return fetch;
	plain_end(fetch);
	return NULL;
}

static void
take_answer(PlainFetch *fetch, CURLcode code)
{
	PlainAnswer *answer = fetch->answer;
	const char *said = code == CURLE_WRITE_ERROR ? "the answer is too long" :
	fetch->curl_error[0] ? fetch->curl_error : curl_easy_strerror(code);
	long		status = 0;

	curl_easy_getinfo(fetch->easy, CURLINFO_RESPONSE_CODE, &status);
	if (code == CURLE_OK)
		answer->status = (int) status;
	else
		libcurl_copy_printable(answer->error, sizeof(answer->error), said, strlen(said));
}

bool
plain_step(PlainFetch *fetch, int ms)
{
	sigset_t	signals;
	int			running;
	int			waiting;
	CURLMsg    *message;
	CURLMcode	code = libcurl_work(fetch->multi, &running, &signals);

	if (code == CURLM_OK && running > 0)
	{
		(void) curl_multi_poll(fetch->multi, NULL, 0, ms, NULL);
		return true;
	}
	message = curl_multi_info_read(fetch->multi, &waiting);
	take_answer(fetch, message != NULL && message->msg == CURLMSG_DONE ?
				message->data.result : CURLE_FAILED_INIT);
	return false;
}

void
plain_end(PlainFetch *fetch)
{
	if (fetch->easy != NULL && fetch->multi != NULL)
		curl_multi_remove_handle(fetch->multi, fetch->easy);
	curl_easy_cleanup(fetch->easy);
	curl_multi_cleanup(fetch->multi);
	curl_slist_free_all(fetch->headers);
	free(fetch);
}
