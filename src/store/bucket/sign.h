/*-------------------------------------------------------------------------
 *
 * store/bucket/sign.h
 *	  Signs requests by AWS Signature Version 4.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_BUCKET_SIGN_H
#define AUDIO_CLEANUP_BUCKET_SIGN_H

#include <curl/curl.h>
#include <time.h>

#include "src/store/bucket/http.h"

/*
 * Signs `request`, which has keys, by AWS Signature Version 4, at the time
 * `now`.  *headers are the other headers of the request; appends the headers
 * of the host, the time, the hash of the body, the session and the signature.
 * Returns false for want of memory.
 */
extern bool sign_request(struct curl_slist **headers, const BucketRequest *request, time_t now);

#endif							/* AUDIO_CLEANUP_BUCKET_SIGN_H */
