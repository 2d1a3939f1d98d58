/*-------------------------------------------------------------------------
 *
 * store/bucket/sign.h
 *	  Signs requests that libcurl would sign falsely.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_BUCKET_SIGN_H
#define AUDIO_CLEANUP_BUCKET_SIGN_H

#include <curl/curl.h>
#include <time.h>

typedef struct SignKeys
{
	const char *region;
	const char *access_key;
	const char *secret_key;
} SignKeys;

/*
 * Returns whether some version of libcurl signs a request to `url` falsely, or
 * refuses to sign the request: its query has a "+", its path has a part "." or
 * "..", or `access_key` has a character that libcurl would encode, such as ":".
 */
extern bool sign_is_needed(const char *url, const char *access_key);

/*
 * Signs a request by AWS Signature Version 4, at the time `now`.  `url` is
 * encoded as the request is sent; `headers` are all headers of the request
 * except the header of the host, and include x-amz-content-sha256.  Appends
 * the headers of the host, the time and the signature.  Returns the longer
 * list, or NULL without memory: then `headers` is unchanged, or longer.
 */
extern struct curl_slist *sign_request(struct curl_slist *headers, const char *method, const char *url,
									   const SignKeys *keys, time_t now);

#endif							/* AUDIO_CLEANUP_BUCKET_SIGN_H */
