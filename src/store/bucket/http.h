/*-------------------------------------------------------------------------
 *
 * store/bucket/http.h
 *	  Requests to an S3-compatible server, several at a time, by libcurl, in
 *	  steps; the answers are read by libxml2.
 *
 * The functions are the interface of a library of its own,
 * audio_cleanup_bucket (see audio_cleanup_bucket.c), which is loaded when a
 * bucket is opened.  No other library is linked with the functions:
 * audio_cleanup_bucket_library_1_1() returns pointers to the functions.  The
 * functions allocate all that lasts by malloc(), and raise no ERROR of their own.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_BUCKET_HTTP_H
#define AUDIO_CLEANUP_BUCKET_HTTP_H

#include <time.h>

#include "src/pg/time.h"

#define BUCKET_ERROR_SIZE	256
#define BUCKET_TOKEN_SIZE	2048	/* of a continuation token or a key marker */
#define BUCKET_ID_SIZE		256 /* of a version id, with its NUL */
#define BUCKET_BODY_SIZE	16384	/* of an object of ours, or of an answer
									 * with keys, with its NUL */

/* Keys that sign requests. */
typedef struct BucketKeys
{
	char		access_key[256];
	char		secret_key[256];
	char		token[8192];	/* of a session, or "" */
	int64		expires;		/* seconds since 1970; 0: never, or not known */
} BucketKeys;

typedef struct BucketRequest
{
	const char *method;			/* GET, HEAD, POST, PUT or DELETE */
	const char *url;			/* encoded; of a signed request, the query is
								 * sorted, and each parameter has a "=" */
	const char *const *headers; /* "name: value", the name in small letters,
								 * NULL at the end; may be NULL */
	const char *body;			/* NULL: none */
	const BucketKeys *keys;		/* NULL: the request is not signed */
	const char *region;			/* of the signature */
	const char *ca_file;		/* NULL: the system's certificates */
	int			timeout_ms;
	bool		raw;			/* the answer is an object, and no XML; of a
								 * request that is not signed, also the answer
								 * that tells an error */
	bool		once;			/* libcurl must not repeat the request */
} BucketRequest;

/*
 * An entry of an answer: an object, a version of an object, a delete marker,
 * an unfinished upload, a part of an upload, or the outcome of one removal of
 * several.
 */
typedef struct BucketEntry
{
	char	   *key;			/* decoded; of a part: "" */
	char		version[BUCKET_ID_SIZE];	/* id of the version, of the
											 * upload, or of the marker that
											 * was made */
	char		etag[BUCKET_ID_SIZE];
	int64		size;
	int64		modified;		/* seconds since 1970; of an upload: begun */
	bool		is_marker;
	bool		is_latest;
	bool		is_prefix;		/* the key is the beginning of several keys */
	bool		is_dated;		/* the entry must have a date: an object, a
								 * version, a marker or a part */
	char		code[64];		/* code of the error of this key; "": no error */
} BucketEntry;

/* How far a request came. */
typedef enum BucketFailure
{
	BUCKET_ANSWERED,
	BUCKET_NO_NAME,				/* the name of the server is not known */
	BUCKET_NO_TLS,				/* the server's certificate is not accepted,
								 * or the server does not speak TLS */
	BUCKET_NO_ANSWER
} BucketFailure;

typedef struct BucketAnswer
{
	int			status;			/* of HTTP; 0: there was no whole answer */
	BucketFailure failure;		/* BUCKET_ANSWERED, or why there is no answer */
	bool		timed_out;
	char		error[BUCKET_ERROR_SIZE];	/* printable ASCII; "": no error */
	char		code[64];		/* S3's code of an error; "": no error */
	int64		date;			/* by the clock of the server, seconds since
								 * 1970; 0: not told */
	char		version[BUCKET_ID_SIZE];	/* id of the version or marker
											 * that the request made or
											 * removed */
	char		etag[BUCKET_ID_SIZE];	/* of an object, with its quotes */
	int64		modified;		/* likewise, seconds since 1970; 0: not told */
	char		versioning[16]; /* of a bucket: "Enabled", "Suspended", "" */
	BucketEntry *entries;
	int			n_entries;
	bool		truncated;		/* the list goes on: */
	char		next_token[BUCKET_TOKEN_SIZE];
	char		next_key[BUCKET_TOKEN_SIZE];	/* decoded */
	char		next_version[BUCKET_ID_SIZE];
	char		body[BUCKET_BODY_SIZE]; /* of a raw answer, NUL-terminated;
										 * may hold keys */
} BucketAnswer;

typedef struct BucketSession BucketSession;

/* A value that is looked for in the answer of a service that gives keys. */
typedef struct BucketValue
{
	const char *name;
	char	   *value;			/* set, NUL-terminated */
	size_t		size;			/* room for the value, in bytes */
	bool		found;			/* set */
} BucketValue;

/*
 * Returns `seconds` (since 1970), cut to the range whose nanoseconds an int64
 * can hold.
 */
static inline int64
http_limit_time(int64 seconds)
{
	return Min(Max(seconds, 0), UNIX_SECONDS_MAX);
}

/*
 * Returns the time of a text such as "2026-11-28T05:38:29Z", in seconds since
 * 1970, without a fraction of the second.  Returns 0 if the text is no such
 * time: UTC must be written as "Z" or "+00:00", and nothing may follow.
 */
static inline int64
http_parse_time(const char *text)
{
	static const char form[] = "0000-00-00T00:00:00";
	struct tm	tm = {0};
	const char *rest;
	int			second;
	int			day;
	int64		seconds;

	for (size_t i = 0; i < sizeof(form) - 1; i++)
		if (form[i] == '0' ? text[i] < '0' || text[i] > '9' : text[i] != form[i])
			return 0;
	rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (rest == NULL || tm.tm_sec > 60)
		return 0;
	if (*rest == '.')
	{
		size_t		digits = strspn(rest + 1, "0123456789");

		if (digits == 0)
			return 0;
		rest += 1 + digits;
	}
	if (strcmp(rest, "Z") != 0 && strcmp(rest, "+00:00") != 0)
		return 0;
	/* a server whose time_t has 32 bits does not live to see that day */
	if (sizeof(time_t) < sizeof(int64) && tm.tm_year > 2037 - 1900)
		return UNIX_SECONDS_MAX;
	day = tm.tm_mday;
	second = tm.tm_sec;
	tm.tm_sec = 0;
	seconds = (int64) timegm(&tm);
	/* timegm() makes the first of May of the 31st of April */
	return tm.tm_mday == day && seconds >= 0 ? http_limit_time(seconds + second) : 0;
}

typedef struct BucketLibrary
{
	/*
	 * Opens a session with so many lanes, which keeps its connections.
	 * Returns NULL for want of memory.
	 */
	BucketSession *(*open) (int lanes);
	void		(*close) (BucketSession *session);

	/*
	 * Begins a request in the lane `lane` (from 0), which must be free.  The
	 * request must last until end(), but its keys only during the call.
	 * Returns false for want of memory.
	 */
	bool		(*begin) (BucketSession *session, int lane, const BucketRequest *request);

	/*
	 * Works on the requests of all lanes, for about `ms` milliseconds, or
	 * until a request is over or a signal comes.
	 */
	void		(*step) (BucketSession *session, int ms);

	/*
	 * Returns the answer to the last request of the lane, which lasts until
	 * the next begin() there; NULL if that request is not over.
	 */
	const BucketAnswer *(*answer) (BucketSession *session, int lane);

	/*
	 * Ends the request of the lane.  Gives up a request that is not over,
	 * with its connection.
	 */
	void		(*end) (BucketSession *session, int lane);

	/*
	 * Reads an XML document, and looks for `n` values right below the first
	 * element `parent`.  Returns false if `xml` is no such document, or a
	 * value has no room.
	 */
	bool		(*find_values) (const char *xml, const char *parent, BucketValue *values, int n);
} BucketLibrary;

#define BUCKET_LIBRARY	"audio_cleanup_bucket"
#define BUCKET_FUNCTION "audio_cleanup_bucket_library_1_1"

/* The functions of the library: see BucketLibrary. */
extern BucketSession *http_open(int lanes);
extern void http_close(BucketSession *session);
extern bool http_begin(BucketSession *session, int lane, const BucketRequest *request);
extern void http_step(BucketSession *session, int ms);
extern const BucketAnswer *http_answer(BucketSession *session, int lane);
extern void http_end(BucketSession *session, int lane);

#endif							/* AUDIO_CLEANUP_BUCKET_HTTP_H */
