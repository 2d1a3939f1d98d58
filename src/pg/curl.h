/*-------------------------------------------------------------------------
 *
 * pg/curl.h
 *	  What each use of libcurl in a process of the server has in common.
 *
 * Only the libraries of mail and buckets include this header: nothing else is
 * linked with libcurl.
 *
 * libcurl resolves names in a thread, in which no signal must be handled.  So
 * all signals are blocked while libcurl works, and its threads inherit the
 * blocked signals.  libcurl uses no signals for its time limits, takes nothing
 * from the environment of the server, and does not wait for a name server when
 * a transfer is to end.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_CURL_H
#define AUDIO_CLEANUP_CURL_H

#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>

/*
 * Initializes libcurl once in the life of the process.  Returns false if the
 * initialization fails.
 */
static inline bool
libcurl_init(void)
{
	static bool done = false;

	if (!done)
		done = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
	return done;
}

/* Returns a multi handle; NULL: no memory. */
static inline CURLM *
libcurl_make_multi(void)
{
	CURLM	   *multi = curl_multi_init();

#if LIBCURL_VERSION_NUM >= 0x081400
	/* since version 8.20 a handle has its own threads that resolve names */
	if (multi != NULL)
		curl_multi_setopt(multi, CURLMOPT_QUICK_EXIT, 1L);
#endif
	return multi;
}

/*
 * Sets what each transfer has in common.  `protocols` are the names of the
 * protocols that may be used, with commas between them, and `protocol_bits`
 * are the bits of these protocols, for older versions of libcurl.  `ca_file`
 * is the file with the certificates that are trusted; NULL: the system's.
 */
static inline void
libcurl_set_rules(CURL * easy, const char *protocols, long protocol_bits, const char *ca_file)
{
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, protocols);
#else
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS, protocol_bits);
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	if (ca_file != NULL)
		curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
}

/*
 * Lets libcurl work on its transfers, without waiting.  *running becomes the
 * number of transfers that are not over.  *signals keeps the signals that the
 * caller blocks, for callbacks.
 */
static inline CURLMcode
libcurl_work(CURLM * multi, int *running, sigset_t *signals)
{
	sigset_t	all;
	CURLMcode	code;

	*running = 0;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, signals);
	code = curl_multi_perform(multi, running);
	pthread_sigmask(SIG_SETMASK, signals, NULL);
	return code;
}

/* Adds a copy of the line to the list.  Returns false if there is no memory. */
static inline bool
libcurl_append(struct curl_slist **list, const char *line)
{
	struct curl_slist *longer = curl_slist_append(*list, line);

	if (longer != NULL)
		*list = longer;
	return longer != NULL;
}

/*
 * Copies `length` bytes of somebody's text, without a line end, as printable
 * ASCII, cut at `size` - 1: the copy goes into a database of any encoding, and
 * into a log.
 */
static inline void
libcurl_copy_printable(char *target, size_t size, const char *text, size_t length)
{
	while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r'))
		length--;
	length = Min(length, size - 1);
	for (size_t i = 0; i < length; i++)
		target[i] = text[i] >= 0x20 && text[i] <= 0x7e ? text[i] : '?';
	target[length] = '\0';
}

#endif							/* AUDIO_CLEANUP_CURL_H */
