/*-------------------------------------------------------------------------
 *
 * audio_cleanup_bucket.c
 *	  The third library: S3 by libcurl and libxml2, for the processes that talk
 *	  to a bucket.
 *
 * Why it is a library by itself, audio_cleanup_mail.c tells: what libcurl
 * brings with it should be in no process that does not need it.  It has no
 * _PG_init, and gives away one table of functions, which
 * src/store/bucket/request.c asks for by load_external_function().
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

#include "src/pg/compat.h"
#include "src/store/bucket/http.h"

COMPAT_MODULE_MAGIC;

extern PGDLLEXPORT const BucketLibrary *audio_cleanup_bucket_library(void);

const BucketLibrary *
audio_cleanup_bucket_library(void)
{
	static const BucketLibrary library = {
		http_open, http_close, http_begin, http_step, http_is_over, http_answer, http_end
	};

	return &library;
}
