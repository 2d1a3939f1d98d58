/*-------------------------------------------------------------------------
 *
 * store/bucket/bucket.h
 *	  The parts of an open bucket that the files of this folder share.
 *
 * How a file of a bucket dies, and comes back, if the bucket keeps versions:
 *
 *	captured	a delete marker lies right above the version that was
 *				condemned: nobody sees the file, and no byte was copied
 *	put back	the marker is removed
 *	destroyed	that version is removed, and the marker if nothing is left
 *				below it
 *
 * No server can be relied on to make a marker only "if this still is the
 * newest version".  So a capture makes its marker first, and then looks which
 * version lies right below the marker.  If that is not the condemned version,
 * the file is called a stranger, and the marker is removed again.
 *
 * In a bucket that keeps no versions there is no trash: a file is destroyed in
 * its place, by a request that names its ETag; see conditional.c.
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

#include "lib/ilist.h"
#include "lib/stringinfo.h"

#include "src/store/bucket/http.h"
#include "src/store/driver.h"

/* longest key of an object, in bytes */
#define BUCKET_KEY_MAX		1024

/* a URL: scheme, host and bucket, two keys and a token of which each byte is escaped, names of parameters */
#define BUCKET_URL_SIZE		(512 + 3 * (2 * BUCKET_KEY_MAX + BUCKET_TOKEN_SIZE) + 512)

/* The last texts about failures, one for each errno: see store_error_text(). */
#define BUCKET_ERRORS	8

typedef struct BucketError
{
	int			errnum;			/* 0: none */
	char		text[BUCKET_ERROR_SIZE + 64];
} BucketError;

/* A parameter of a query, not encoded; without a value it is left out. */
typedef struct BucketParameter
{
	const char *name;
	const char *value;
} BucketParameter;

/* A request to the server of the bucket, and its repetitions. */
typedef struct BucketCall
{
	const char *method;
	const char *key;			/* with the prefix; NULL: the bucket itself */
	BucketParameter query[8];	/* sorted by name, NULL as name at the end */
	const char *const *headers; /* see http.h */
	const char *body;
	bool		raw;			/* see http.h */
	bool		once;			/* not to be repeated, except with renewed
								 * keys: the caller finds out whether the
								 * server has carried out the request */
	bool		leased;			/* made only while we have the lease: see
								 * lease.c */
} BucketCall;

/*
 * Lanes for requests: one lane for bucket_call(), one for requests for keys,
 * some lanes for the pages of a walk, and all others for many requests.
 */
#define BUCKET_OWN_LANE		0
#define BUCKET_KEY_LANE		1
#define BUCKET_PAGE_LANE	2
#define BUCKET_PAGES		4
#define BUCKET_FIRST_LANE	(BUCKET_PAGE_LANE + BUCKET_PAGES)

/* further attempts to do what a busy server has not done */
#define BUCKET_TRIES		5

typedef struct BucketLane
{
	int			number;
	BucketCall	call;
	BucketRequest request;
	int			keys_number;	/* number of the keys that have signed the
								 * request */
	int			tries;
	bool		in_flight;
	bool		rests;			/* the server had no time for the request,
								 * which */
	int64		rests_until_ms; /* is repeated at this time */
	bool		is_expired;		/* the request was given up, because the lease
								 * was over */
	char		url[BUCKET_URL_SIZE];
} BucketLane;

typedef struct Bucket
{
	StoreBase	base;
	MemoryContext context;		/* in which the bucket was opened */
	const BucketLibrary *library;
	BucketSession *session;		/* NULL: the bucket could not be opened, */
	int			open_errnum;	/* for this reason: see bucket_note() */
	char		name[64];
	char		root[256];		/* URL of the bucket, without a "/" at the end */
	char		prefix[BUCKET_KEY_MAX]; /* of our keys: "" or ".../" */
	char		region[128];
	char		ca_file[MAXPGPATH]; /* "": the system's certificates */
	int			timeout_ms;		/* of one request */
	/* set by bucket_reach() and bucket_prove() */
	bool		enabled;		/* the bucket kept versions when we asked
								 * last; */
	bool		suspended;		/* or the bucket kept versions once; */
	bool		conditional;	/* or never, but the server has proven that it
								 * honours If-Match: see conditional.c */
	BucketError errors[BUCKET_ERRORS];
	unsigned int next_error;	/* counts the texts that were forgotten */
	int64		date;			/* the server's time at its last answer,
								 * seconds since 1970 */
	/* see keys.c */
	int			key_source;
	BucketKeys	keys;
	int			keys_number;	/* how often the keys have changed */
	int			n_parallel;		/* requests that may be on their way at a time */
	int			n_descriptors;	/* number of descriptors that were acquired */
	BucketLane *lanes;
	struct HTAB *doubtful;		/* digests of keys that the server may yet
								 * delete, or NULL: see many.c */
	/* see lease.c */
	char		lease[BUCKET_ID_SIZE];	/* version or content of our lease, or
										 * "" */
	int64		leased_at;		/* when the lease was asked for: see
								 * time_monotonic_us() */
	/* the file that a walk of the trash has passed on, or NULL */
	const char *in_trash;
	FileIdentity in_trash_identity;
	struct Many *expected;		/* files that were looked at beforehand: see
								 * store_expect(); or NULL */
} Bucket;

static inline Bucket *
bucket_of(FileStore *store)
{
	return (Bucket *) store;
}

/* The driver of buckets, and its functions: see driver.h. */
extern const StoreDriver bucket_driver;

#define STORE_OWN(type, name, parameters, ...) extern type bucket_##name parameters;
#define STORE_BOTH STORE_OWN
#define STORE_WALK STORE_OWN
#define STORE_LOCAL(...)
#define STORE_BUCKET STORE_OWN
#include "src/store/driver_list.h"


/* ----------
 * request.c
 * ----------
 */

/*
 * The functions of this folder raise no ERROR of their own, but allocate
 * memory.  An errno that a function returns has a text: see bucket_note().
 * EINTR means that an interrupt is pending, which the caller serves.
 */

/*
 * Makes a request, waits for the answer, and repeats the request if the server
 * had no time for it.  Returns 0, also for an answer that says 404, 409, 412
 * or 501; or an errno.  Sets *answer, which lasts until the next
 * bucket_call(), or the next leased call.  Does not change *answer if no
 * request was made; if the call was stopped, *answer may become NULL.
 *
 * A leased call renews the lease if necessary.  EBUSY, if the lease was lost;
 * or, with NULL as *answer, if the lease ended before the call was over:
 * EAGAIN, or ETIMEDOUT for a call with `once` whose request was on its way.
 */
extern int	bucket_call(Bucket *bucket, const BucketCall *call, const BucketAnswer **answer);

/* Does the work of bucket_call(), but returns EIO also for an answer with another status than 200. */
extern int	bucket_ask(Bucket *bucket, const BucketCall *call, const BucketAnswer **answer);

/*
 * Copies the version `version` of `key`, or with NULL the newest version, to
 * the key `target`, in the server.  `once`: see BucketCall.  Returns 0 or an
 * errno, and sets *answer, as bucket_call() does.
 *
 * The copy of a large file may take longer than a lease.  So the call is not
 * leased: a copy hides nothing, and deletes nothing.
 */
extern int	bucket_copy(Bucket *bucket, const char *key, const char *version, const char *target, bool once,
						const BucketAnswer **answer);

/* Gets the outcome of a call, with the values that bucket_call() would return; with an errnum, `answer` may be NULL. */
typedef void (*BucketTake) (void *arg, int errnum, const BucketAnswer *answer);

/* A queue of calls.  All is 0 at first except the memory context. */
typedef struct BucketCalls
{
	MemoryContext context;		/* has the memory of the calls */
	dlist_head	waiting;		/* calls that were not begun */
	int			n_open;			/* calls whose outcome was not taken */
} BucketCalls;

/*
 * Adds a call to the queue; a BucketTake of a call of this queue may do so,
 * too.  The texts of the call must last until its outcome was taken.
 */
extern void bucket_add_call(BucketCalls *calls, const BucketCall *call, BucketTake take, void *arg);

/*
 * Makes the calls of the queue, bucket->n_parallel at a time at most.  Returns
 * 0 when the outcomes of all have been taken; or an errno, and then the
 * outcomes of calls that were on their way, or not begun, are not taken.
 */
extern int	bucket_call_many(Bucket *bucket, BucketCalls *calls);

/*
 * Leads `n` portions of files through stages.  advance() is called when no call
 * of the portion is open, first at its beginning: adds the calls of the next
 * stage, and returns false if there is no further stage.  Stages of several
 * portions are under way at a time; earlier portions go first.  Returns 0 when
 * all portions are at their end; or an errno, as bucket_call_many().
 */
typedef bool (*BucketAdvance) (void *arg, int portion, BucketCalls *calls);
extern int	bucket_run_pipeline(Bucket *bucket, int n, BucketAdvance advance, void *arg);

/*
 * bucket_begin_call() begins a call in the lane `lane`.  Later
 * bucket_finish_call() waits for the answer, or bucket_drop_call() drops the
 * call.  The first two functions return as bucket_call() does.  The texts of a
 * call must last until the call is finished or dropped.
 */
extern int	bucket_begin_call(Bucket *bucket, int lane, const BucketCall *call);
extern int	bucket_finish_call(Bucket *bucket, int lane, const BucketAnswer **answer);
extern void bucket_drop_call(Bucket *bucket, int lane);

/* Rests after the try `try` (from 0), longer each time.  Returns false if an interrupt is pending. */
extern bool bucket_rest(int try);

/* Sleeps for `ms` milliseconds.  Returns false if an interrupt is pending. */
extern bool bucket_sleep(int ms);

/*
 * Appends `text`, encoded, to the text `target` of `size` bytes; a "/" is not
 * encoded in a path.  Returns false if there is no room.
 */
extern bool bucket_encode(char *target, size_t size, const char *text, bool is_path);

/*
 * Appends the parameters, encoded, to the text `target`, with `before` before
 * the first of them.  Returns false if there is no room.
 */
extern bool bucket_encode_query(char *target, size_t size, const BucketParameter *parameters, const char *before);

/* Appends the XML element `name`, with `text` as its content, to `body`. */
extern void bucket_append_element(StringInfo body, const char *name, const char *text);

/* Returns a number for names that no other process has, to be printed by "%016llx". */
extern unsigned long long bucket_random(void);

/* Returns the first 64 bits of the SHA-256 of a text. */
extern uint64 bucket_digest(const char *text);

/*
 * Makes a request that is not signed.  Returns 0 if the request is over, with
 * an answer or without, and sets *answer, which lasts until the next
 * bucket_fetch(); else returns ENOMEM or EINTR.
 */
extern int	bucket_fetch(Bucket *bucket, const BucketRequest *request, const BucketAnswer **answer);

/* Sets `header` to "content-md5: ..." for `body`.  Returns false if there is no MD5 (FIPS). */
#define BUCKET_MD5_SIZE 48
extern bool bucket_md5_header(const char *body, char header[BUCKET_MD5_SIZE]);

/*
 * Notes `error`, or with NULL the text of the system, as the text of the last
 * failure with `errnum`, for store_error_text().  Returns `errnum`.
 */
extern int	bucket_note(Bucket *bucket, int errnum, const char *error);


/* ----------
 * keys.c
 * ----------
 */

/*
 * Finds out where the keys come from, and reads keys of a file or of the
 * environment; all other keys are fetched by the first call.  Does not use the
 * network.  Returns NULL, or a text that says what is wrong.
 */
extern const char *bucket_find_keys(Bucket *bucket);

/* Returns a static text for people that says where the keys come from. */
extern const char *bucket_describe_keys(const Bucket *bucket);

/*
 * Makes sure that the bucket has keys which do not expire soon: fetches new
 * keys if necessary.  Returns 0 or an errno.
 */
extern int	bucket_have_keys(Bucket *bucket);

/*
 * Returns whether the answer says that the keys have expired, and the bucket
 * has other keys now, so that the request may be repeated.  `used` is the
 * number of the keys that have signed the request.
 */
extern bool bucket_renew_keys(Bucket *bucket, const BucketAnswer *answer, int used);


/* ----------
 * open.c
 * ----------
 */

/*
 * Sets `key` to the key of the file `path`: the prefix, and the path.  Returns
 * 0, or ENAMETOOLONG or EINVAL.
 */
extern int	bucket_key(Bucket *bucket, const char *path, char key[BUCKET_KEY_MAX + 1]);

/* Sets `key` to the key of an object of ours: the longest prefix leaves room for its path. */
extern void bucket_own_key(const Bucket *bucket, const char *path, char key[BUCKET_KEY_MAX + 1]);


/* ----------
 * versions.c
 * ----------
 */

/* The versions and markers of one key, newest first; at most 1000 are looked at. */
typedef struct KeyVersions
{
	const BucketEntry *entries; /* valid until the next call */
	int			n;
	int			at;				/* index of the expected file, or -1 */
	bool		more;			/* there are older versions than these */
	bool		none_is_current;	/* the server does not show the newest
									 * version */
} KeyVersions;

/*
 * Sets *versions to the versions of `key`, and finds `expected` (or NULL)
 * among these versions.  Returns 0 or an errno: EFBIG if there are more than
 * 1000, and `expected` is not among the first.
 */
extern int	bucket_list_versions(Bucket *bucket, const char *key, const FileIdentity *expected,
								 KeyVersions *versions);

/* Returns the index of a version or marker in the list, or -1. */
extern int	bucket_find_version(const KeyVersions *versions, const char *id);

/*
 * Returns the call for the versions of the keys that begin with `prefix`, a
 * thousand at most.
 */
extern BucketCall bucket_versions_call(const char *prefix);

/* Sets *identity to the identity of a version. */
extern void bucket_identify_entry(const BucketEntry *entry, FileIdentity *identity);

/* A key whose versions are asked for, and the file that is expected among them, or NULL. */
typedef struct VersionsAsk
{
	const char *key;
	const FileIdentity *expected;
} VersionsAsk;

/* Gets the versions of the key asks[ask], which last until the sink returns; or an errno. */
typedef void (*VersionsSink) (void *arg, int ask, int errnum, const KeyVersions *versions);

/*
 * Adds the calls to `calls` that list the versions of `n` keys, which come in
 * ascending order.  `per_key` is the usual number of versions and markers of a
 * key: the pages of a list are as large as this number needs; with 0, each key is
 * asked for by its name.  The sink is called once for each key, in any order.
 */
extern void bucket_list_many(Bucket *bucket, const VersionsAsk *asks, int n, int per_key,
							 VersionsSink sink, void *arg, BucketCalls *calls);


/* ----------
 * remove.c
 * ----------
 */

/*
 * Removes the version or marker `version` of `key`.  `leased`: see BucketCall.
 * Returns 0, also if there is no such version, or an errno.
 */
extern int	bucket_remove_version(Bucket *bucket, const char *key, const char *version, bool leased);

/* The version that was removed last, "" at first, and how often a list still had this version. */
typedef struct RemovedVersion
{
	char		version[BUCKET_ID_SIZE];
	int			tries;
} RemovedVersion;

/*
 * Removes the version `listed`, which a list has, as bucket_remove_version()
 * does.  A list may still have a version that the server has removed: rests
 * then, and returns EIO if that happens too often.  `listed` may be a part of
 * the list, which does not outlive the call.
 */
extern int	bucket_remove_listed(Bucket *bucket, const char *key, const char *listed, bool leased,
								 RemovedVersion *removed);

/*
 * Returns whether the answer to a deletion says that the object, or the
 * version, is not there.  A status 404 alone may come from a proxy, or mean
 * something else.
 */
extern bool bucket_says_gone(const BucketAnswer *answer);

/* A version or marker to be removed, or a marker to be made. */
typedef struct BucketRemoval
{
	const char *key;
	const char *version;		/* version or marker to be removed; NULL: a
								 * marker is to be made for the key */
	int			errnum;			/* set: 0, also if the version was gone; after
								 * EAGAIN, EIO and ETIMEDOUT the removal may
								 * have been done, after another errno it was
								 * not done */
	bool		is_doubtful;	/* set: the server may still do the removal
								 * later */
	bool		again;			/* set: the server, or the lease, had no time
								 * for this removal */
	const char *marker;			/* set: id of the marker that was made, which
								 * lasts until the sink returns; NULL if the
								 * server did not say */
} BucketRemoval;

/* Gets the outcome of removals[i]. */
typedef void (*RemovalSink) (void *arg, int i, const BucketRemoval *removal);

/*
 * Adds the calls to `calls` that make `n` removals under the lease, each once,
 * many by one request.  The sink is called once for each removal whose call was
 * made, in any order, maybe at once.
 */
extern void bucket_remove_many(Bucket *bucket, BucketRemoval *removals, int n,
							   RemovalSink sink, void *arg, BucketCalls *calls);


/* ----------
 * lease.c
 * ----------
 */

/*
 * Takes or renews the lease, so that no other process works on the bucket.
 * Must be called before each change in the bucket, and before the versions are
 * listed that are to be changed.  FILE_OK; FILE_FAILED, with EBUSY if another
 * process has the lease.
 */
extern FileResult bucket_keep_lease(Bucket *bucket);

/*
 * Renews the lease, if necessary, in the midst of a change.  Fails with EBUSY
 * also if the lease has ended: another process may have had the lease in
 * between, so what was listed before may not be true any more.
 */
extern FileResult bucket_stay_leased(Bucket *bucket);

/*
 * A lease ends LEASE_SECONDS after it was put.  No leased request is sent after
 * LEASE_SAFE_SECONDS, and the requests that are still on their way are given up
 * after LEASE_OVER_SECONDS: the rest is for a server that still works on such a
 * request.
 */
#define LEASE_SECONDS		60
#define LEASE_SAFE_SECONDS	40
#define LEASE_OVER_SECONDS	55

/* Returns whether there is no lease, or a lease that was put more than so many seconds ago. */
extern bool bucket_lease_is_older(const Bucket *bucket, int seconds);


/* ----------
 * files.c
 * ----------
 */

/* Returns whether the newest version is a file, and not a marker. */
static inline bool
bucket_is_present(const KeyVersions *versions)
{
	return versions->n > 0 && !versions->entries[0].is_marker;
}

/* Returns whether a marker lies right above the expected file. */
static inline bool
bucket_is_captured(const KeyVersions *versions)
{
	return versions->at > 0 && versions->entries[versions->at - 1].is_marker;
}


/* ----------
 * manifest.c
 * ----------
 */

/* A file that is going to be captured; `modified` in seconds since 1970. */
typedef struct SeenFile
{
	const char *path;
	const char *version;
	const char *etag;
	int64		size;
	int64		modified;
} SeenFile;

/*
 * Adds the call to `calls` that writes the files which the run `run_id` is
 * going to capture into the bucket.  `take` gets its outcome:
 * with an errnum, or without status 200, no file of the manifest may be
 * captured.
 */
extern void bucket_write_manifest(Bucket *bucket, int64 run_id, const SeenFile *files, int n,
								  BucketTake take, void *arg, BucketCalls *calls);

/*
 * A walk of the files that a run has captured; `context` has its memory.
 * bucket_next_in_trash() sets *path to the path of the next file, or NULL at
 * the end, and returns 0; or an errno, if not all files that lie in the trash
 * could be found.
 */
typedef struct TrashWalk TrashWalk;

extern TrashWalk *bucket_begin_trash(Bucket *bucket, int64 run_id, MemoryContext context);
extern int	bucket_next_in_trash(TrashWalk *walk, const char **path);
extern void bucket_end_trash(TrashWalk *walk);


/* ----------
 * conditional.c
 * ----------
 */

/*
 * Adds the call to `calls` that deletes a file, under the lease, if the file
 * still has the ETag and the date that were seen.  Sets *result when the answer
 * has come: FILE_OK, FILE_REPLACED, FILE_FAILED.
 */
extern void bucket_delete_conditionally(Bucket *bucket, const char *key, const SeenFile *seen, FileResult *result,
										BucketCalls *calls);


/* ----------
 * many.c
 * ----------
 */

/*
 * Returns whether the server may still delete this key later, because it gave
 * no answer to the request.
 */
extern bool bucket_is_doubtful(const Bucket *bucket, const char *key);

/* Returns whether store_expect() has looked at the path.  If so, sets *identity and *result to what was found. */
extern bool bucket_has_expected(Bucket *bucket, const char *path, FileIdentity *identity, FileResult *result);


/* ----------
 * walk.c
 * ----------
 */

/*
 * Returns the call for a page of the list of the keys that begin with `prefix`;
 * with `folders`, of the keys and folders right below the prefix.  The page
 * follows the page that has told the `token`.  With "" as `token`, the page
 * begins behind the key `after`, or with NULL at the beginning.
 */
extern BucketCall bucket_list_call(const char *token, bool folders, const char *prefix, const char *after);

/*
 * Returns 0, or EIO if the answer to a call with this `token` is no page of a
 * list, or does not say where the list goes on.
 */
extern int	bucket_check_list(Bucket *bucket, const BucketAnswer *answer, const char *token);

#endif							/* AUDIO_CLEANUP_BUCKET_H */
