/*-------------------------------------------------------------------------
 *
 * store/bucket/bucket.h
 *	  What the files of this folder share of an open bucket.
 *
 * How a file of a bucket dies, and comes back.  The bucket must keep versions.
 *
 *	captured	a delete marker lies right above the version that was
 *				condemned: nobody sees the file, and not a byte was copied
 *	put back	the marker is removed
 *	destroyed	that version is removed, and the marker if nothing is left
 *				below it
 *
 * A request names a version or nothing: no server can be relied on to delete
 * "if it still is that version".  So a capture makes its marker first, and
 * then looks which version lies right below it.  If it is not the one that
 * was condemned, the marker goes again.
 *
 * Private to this folder.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_BUCKET_H
#define AUDIO_CLEANUP_BUCKET_H

#include <errno.h>

#include "portability/instr_time.h"

#include "src/store/bucket/http.h"
#include "src/store/driver.h"

/* longest key of an object, in bytes */
#define BUCKET_KEY_MAX		1024

/* a URL: scheme, host and bucket, a key of which each byte is escaped, a query */
#define BUCKET_URL_SIZE		(512 + 3 * BUCKET_KEY_MAX + 3 * BUCKET_TOKEN_SIZE + 512)

/* One that is known beforehand: see store_expect(). */
typedef struct ExpectedFile
{
	const char *path;
	FileResult	result;
	FileIdentity identity;
} ExpectedFile;

typedef struct Bucket
{
	StoreBase	base;
	const BucketLibrary *library;
	BucketSession *session;		/* NULL: `error` says why */
	int			open_errnum;	/* then */
	char		name[64];
	char		root[256];		/* URL of the bucket, without a "/" at the end */
	char		prefix[BUCKET_KEY_MAX]; /* of our keys: "" or ".../" */
	bool		enabled;		/* versions are kept, when we asked last */
	char		error[BUCKET_ERROR_SIZE + 64];	/* of the last failure, */
	int			error_errnum;	/* which came with this errno */
	int64		date;			/* the server's clock, when it last spoke */
	char		doubtful[BUCKET_KEY_MAX + 1];	/* the server may yet delete
												 * this one: see files.c */
	/* see keys.c */
	int			key_source;
	uint64		key_digest;		/* of the keys of the session */
	/* see lease.c */
	char		lease[BUCKET_ID_SIZE];	/* version of our lease, or "" */
	instr_time	leased_at;		/* when it was asked for */
	/* see store_expect() */
	int			n_expected;
	ExpectedFile *expected;		/* by path */
} Bucket;

static inline Bucket *
bucket_of(FileStore *store)
{
	return (Bucket *) store;
}

extern const StoreDriver bucket_driver;


/* ----------
 * request.c
 * ----------
 */

/* What is asked of the key `key`, which has the prefix, or with NULL of the bucket itself. */
typedef struct BucketCall
{
	const char *method;
	const char *key;
	const char *query;			/* sorted, encoded, each with "="; or NULL */
	const char *const *headers; /* see http.h */
	const char *body;
	bool		raw;			/* see http.h */
	bool		once;			/* not to be repeated: whoever asks finds out
								 * whether the server has done it */
} BucketCall;

/*
 * Asks, and waits for the answer; repeats what the server had no time for.
 * Returns 0, also for an answer that says 404, 409 or 412; or an errno, and
 * bucket->error says more: EINTR if somebody wants us to stop.  *answer lasts
 * until the next call.
 */
extern int	bucket_call(Bucket *bucket, const BucketCall *call, const BucketAnswer **answer);

/* Rests before the try `try` + 1, longer each time.  Returns false if somebody wants us to stop. */
extern bool bucket_rest(int try);

/* Appends `text` to the query, encoded.  Returns false if there is no room. */
extern bool bucket_encode(char *query, size_t size, const char *text);

/* Appends "/bucket/key?versionId=..." to a header, encoded.  Returns false if there is no room. */
extern bool bucket_encode_source(const Bucket *bucket, char *header, size_t size, const char *key,
								 const char *version);

/* Returns the first 64 bits of the SHA-256 of a text. */
extern uint64 bucket_digest(const char *text);

/*
 * Makes a request that is not signed.  Returns 0 if it is over, which the
 * answer says more of; ENOMEM; EINTR if somebody wants us to stop.
 */
extern int	bucket_fetch(Bucket *bucket, const PlainRequest *request, PlainAnswer *answer);

/* Notes what failed; returns `errnum`. */
extern int	bucket_note(Bucket *bucket, int errnum, const char *error);


/* ----------
 * keys.c
 * ----------
 */

typedef struct BucketKeys
{
	char		access_key[256];
	char		secret_key[256];
	char		token[8192];	/* of a session, or "" */
	int64		expires;		/* seconds since 1970; 0: never, or not known */
} BucketKeys;

/*
 * Finds out where the keys come from, and reads them if they are at hand: else
 * they are fetched by the first call.  Asks nothing of the network.  Returns
 * NULL, or what is wrong.
 */
extern const char *bucket_find_keys(Bucket *bucket, BucketKeys *keys);

/* Returns where the keys come from, a text for people. */
extern const char *bucket_describe_keys(const Bucket *bucket);

/*
 * Makes sure that the session has keys which do not expire soon: fetches new
 * ones if need be.  Returns 0 or an errno: EINTR if somebody wants us to stop.
 */
extern int	bucket_have_keys(Bucket *bucket);

/*
 * Returns whether the answer says that the keys have expired, and the session
 * has got other ones since, so that the request may be repeated.
 */
extern bool bucket_renew_keys(Bucket *bucket, const BucketAnswer *answer);


/* ----------
 * open.c
 * ----------
 */

/* Joins the prefix and a path.  Returns 0, or ENAMETOOLONG or EINVAL. */
extern int	bucket_key(const Bucket *bucket, const char *path, char key[BUCKET_KEY_MAX + 1]);

/* Asks whether the bucket keeps versions.  Returns 0 or an errno. */
extern int	bucket_ask_versioning(Bucket *bucket);


/* ----------
 * versions.c
 * ----------
 */

/* The versions and markers of one key, newest first; at most so many are looked at. */
#define BUCKET_VERSIONS_MAX	1000

typedef struct KeyVersions
{
	const BucketEntry *entries; /* last until the next call */
	int			n;
	int			at;				/* that of the expected file, or -1 */
	bool		more;			/* there are older ones than these */
} KeyVersions;

/*
 * Lists the versions of `key`, and finds `expected` (or NULL) among them.
 * Returns 0 or an errno.
 */
extern int	bucket_list_versions(Bucket *bucket, const char *key, const FileIdentity *expected,
								 KeyVersions *versions);

/* Fills the identity of a version. */
extern void bucket_identify_entry(const BucketEntry *entry, FileIdentity *identity);

/* Removes one version or marker of `key`.  Returns 0, also if there is none, or an errno. */
extern int	bucket_remove_version(Bucket *bucket, const char *key, const char *version);


/* ----------
 * lease.c
 * ----------
 */

/*
 * Makes sure that nobody else works on the bucket, before anything in it is
 * changed.  FILE_OK, FILE_OCCUPIED, FILE_FAILED.
 */
extern FileResult bucket_keep_lease(Bucket *bucket);

extern FileResult bucket_lock(FileStore *store);
extern void bucket_unlock(FileStore *store);
extern FileResult bucket_read_claim(FileStore *store, char text[STORE_CLAIM_MAX]);
extern FileResult bucket_write_claim(FileStore *store, const char *text, bool replace);


/* ----------
 * files.c
 * ----------
 */

extern void bucket_expect(FileStore *store, const char *const *paths, int n);
extern FileResult bucket_identify(FileStore *store, const char *path, bool durably,
								  FileIdentity *identity);
extern FileResult bucket_capture(FileStore *store, int64 run_id, const char *path, bool by_copy,
								 const FileIdentity *expected);
extern FilePlace bucket_locate(FileStore *store, int64 run_id, const char *path,
							   const FileIdentity *expected, bool mend, int *errnum);
extern FileResult bucket_put_back(FileStore *store, int64 run_id, const char *path, const char *as,
								  const FileIdentity *expected);
extern FileResult bucket_identify_captured(FileStore *store, int64 run_id, const char *path,
										   FileIdentity *identity);
extern FileResult bucket_destroy(FileStore *store, int64 run_id, const char *path,
								 const FileIdentity *expected, int64 *freed);
extern void bucket_destroy_many(FileStore *store, int64 run_id, StoreDoomed *files, int n);


/* ----------
 * examine.c
 * ----------
 */

extern bool bucket_examine(FileStore *store, StoreFindingSink sink, void *arg);
extern bool bucket_examine_canary(FileStore *store, StoreFindingSink sink, void *arg);


/* ----------
 * uploads.c
 * ----------
 */

extern int	bucket_list_uploads(FileStore *store, StoreUploadSink sink, void *arg);
extern FileResult bucket_end_upload(FileStore *store, const char *path, const char *id,
									int64 quiet_since_ns, int64 *freed);


/* ----------
 * walk.c
 * ----------
 */

extern TreeWalk *bucket_walk_begin(FileStore *store, bool recurse);
extern TreeWalk *bucket_walk_begin_trash(FileStore *store, int64 run_id);
extern WalkStep bucket_walk_next(TreeWalk *walk, const char **path);
extern const char *bucket_walk_failure(TreeWalk *walk, int *errnum, const char **action);
extern void bucket_walk_end(TreeWalk *walk);
extern WalkReason bucket_walk_why_not(FileStore *store, const char *path, bool recurse, size_t *len);

#endif							/* AUDIO_CLEANUP_BUCKET_H */
