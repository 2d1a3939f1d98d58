/*-------------------------------------------------------------------------
 *
 * store/driver.h
 *	  The functions that each kind of upload directory provides.
 *
 * There are two kinds: a directory of this machine (the other files of this
 * folder) and a bucket of an S3-compatible server (bucket/).  store_open()
 * chooses by the name; store_is_local() and store_acts_at_commit() tell the
 * other rooms which kind is open, in the few places that must know.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_STORE_DRIVER_H
#define AUDIO_CLEANUP_STORE_DRIVER_H

#include "src/store/claim_file.h"
#include "src/store/store.h"
#include "src/store/walk.h"

/*
 * A function that this kind of upload directory does not have is NULL: see
 * driver_list.h.
 */
typedef struct StoreDriver
{
	bool		is_local;		/* see store_acts_at_commit() */
	int			together;		/* see store_together() */

#define STORE_OWN(type, name, parameters, ...) type (*name) parameters;
#define STORE_BOTH STORE_OWN
#define STORE_WALK STORE_OWN
#define STORE_LOCAL STORE_OWN
#define STORE_BUCKET STORE_OWN
#include "src/store/driver_list.h"
} StoreDriver;

/* The beginning of every FileStore. */
typedef struct StoreBase
{
	const StoreDriver *driver;
	bool		durable;		/* see store_set_durable() */
	bool		(*stop) (void); /* see store_set_stop(), or NULL */
} StoreBase;

/* The beginning of every TreeWalk. */
typedef struct WalkBase
{
	const StoreDriver *driver;
	bool		has_links;		/* see walk_has_links() */
} WalkBase;

/* Results */

static inline FileResult
come_to(FileOutcome outcome)
{
	return (FileResult)
	{
		outcome, 0, NULL
	};
}

static inline FileResult
fail(int errnum, const char *failure)
{
	return (FileResult)
	{
		FILE_FAILED, errnum, failure
	};
}

/*
 * Acquires `n` descriptors of the server's limit.  Returns false with errno
 * EMFILE, and acquires no descriptor, if there are too few.  store_open() and
 * store_set_backup_dir() acquire all descriptors that the store may need,
 * because AcquireExternalFD() may do more than the commit callback allows.
 */
extern bool store_acquire_descriptors(int n);

/* Gives `n` descriptors back.  Commit-safe. */
extern void store_release_descriptors(int n);

/* Each function opens a store of its kind: see store_open(). */
extern FileStore *local_open(const char *path);
extern FileStore *bucket_open(const char *url);

/* Returns NULL, or what is wrong with the name "s3://bucket/prefix" of a bucket: see store_judge_name(). */
extern const char *bucket_judge_name(const char *url);

/*
 * Returns the reason that the text of `path` alone tells, and sets *len, as
 * walk_why_not() does.
 */
extern WalkReason store_judge_walk(const char *path, bool recurse, size_t *len);

#endif							/* AUDIO_CLEANUP_STORE_DRIVER_H */
