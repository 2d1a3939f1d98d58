/*-------------------------------------------------------------------------
 *
 * audio_cleanup_bucket.c
 *	  The third library: S3 by libcurl and libxml2, for the processes that talk
 *	  to a bucket.
 *
 * audio_cleanup_mail.c tells why this is a library of its own: a process that
 * does not need libcurl should not load the libraries that libcurl brings
 * with it.  The library has no _PG_init, and exports one function, which
 * returns a table of functions to src/store/bucket/request.c.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

#include "src/pg/compat.h"
#include "src/store/bucket/http.h"
#include "src/store/bucket/xml.h"

COMPAT_MODULE_MAGIC;

extern PGDLLEXPORT const BucketLibrary *audio_cleanup_bucket_library_1_1(void);

const BucketLibrary *
audio_cleanup_bucket_library_1_1(void)
{
	static const BucketLibrary library = {
		http_open, http_close, http_begin, http_step, http_answer, http_end, xml_find_values
	};

	return &library;
}
