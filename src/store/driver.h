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
 * Each function has the contract of its namesake store_*() or walk_*().  A
 * function for which a kind of upload directory has nothing to do is NULL:
 * driver.c has the result for this case.
 */
typedef struct StoreDriver
{
	bool		acts_at_commit; /* see store_acts_at_commit() */
	bool		has_folders;	/* see store_has_folders() */
	int			together;		/* see store_together() */

	/* NULL for a directory, which is within reach when it is open */
	int			(*reach) (FileStore *store);
	bool		(*can_undo) (FileStore *store);
	int			(*prove) (FileStore *store, bool *proven);
	const char *(*error_text) (FileStore *store, int errnum);
	void		(*expect) (FileStore *store, const char *const *paths, int n);
	bool		(*examine) (FileStore *store, StoreFindingSink sink, void *arg);
	bool		(*examine_canary) (FileStore *store, StoreFindingSink sink, void *arg);
	int			(*list_uploads) (FileStore *store, StoreUploadSink sink, void *arg);
	FileResult	(*end_upload) (FileStore *store, const char *path, const char *id,
							   int64 quiet_since_ns, int64 *freed);

	/*
	 * NULL for a bucket: a bucket has no folders and no size; only a request
	 * could tell whether a bucket is writable; and every confirmed change is
	 * durable
	 */
	int			(*check_writable) (FileStore *store);
	int			(*check_folder) (FileStore *store, const char *path);
	bool		(*is_quick) (const FileStore *store);
	int			(*space) (FileStore *store, int64 *free_bytes, int64 *size_bytes);
	int			(*remove_folders) (FileStore *store, const char *path);
	void		(*tidy) (FileStore *store, int64 run_id);
	int			(*sync) (FileStore *store);
	int			(*lock_holder) (FileStore *store);

	/*
	 * NULL for a directory, which keeps nothing of a run except the files in
	 * the trash
	 */
	void		(*forget_run) (FileStore *store, int64 run_id, bool look);

	/* never NULL */
	void		(*close) (FileStore *store);
	FileResult	(*set_backup_dir) (FileStore *store, const char *path, const char *owner);
	FileResult	(*clock) (FileStore *store, int64 *now_ns);
	FileResult	(*identify) (FileStore *store, const char *path, bool durably,
							 FileIdentity *identity);
	FileResult	(*capture) (FileStore *store, int64 run_id, const char *path, bool by_copy,
							const FileIdentity *expected);
	void		(*capture_many) (FileStore *store, int64 run_id, StoreCondemned *files, int n,
								 bool for_good);
	FilePlace	(*locate) (FileStore *store, int64 run_id, const char *path,
						   const FileIdentity *expected, bool mend, int *errnum);
	/* NULL: the files are located one after the other */
	void		(*locate_many) (FileStore *store, int64 run_id, StoreLocated *files, int n);
	void		(*put_back_many) (FileStore *store, int64 run_id, StoreReturned *files, int n);
	FileResult	(*put_back) (FileStore *store, int64 run_id, const char *path, const char *as,
							 const FileIdentity *expected);
	FileResult	(*identify_captured) (FileStore *store, int64 run_id, const char *path,
									  FileIdentity *identity);
	FileResult	(*destroy) (FileStore *store, int64 run_id, const char *path,
							const FileIdentity *expected, int64 *freed);
	StoreUnlinks *(*destroy_begin) (FileStore *store, int64 run_id, StoreDoomed *files, int n);
	/* NULL: the files are destroyed when destroy_begin() returns */
	void		(*destroy_end) (FileStore *store, StoreUnlinks *unlinks);
	FileResult	(*destroy_in_place) (FileStore *store, const char *path,
									 const FileIdentity *expected, int64 *freed);
	int			(*trash_runs) (FileStore *store, int64 *runs, int max);
	int			(*renumber_trash) (FileStore *store, int64 run_id, int64 as);

	FileResult	(*read_claim) (FileStore *store, char text[STORE_CLAIM_MAX]);
	FileResult	(*write_claim) (FileStore *store, const char *text, bool replace);
	FileResult	(*lock) (FileStore *store);
	void		(*unlock) (FileStore *store);

	TreeWalk   *(*walk_begin) (FileStore *store, bool recurse);
	TreeWalk   *(*walk_begin_trash) (FileStore *store, int64 run_id);
	WalkStep	(*walk_next) (TreeWalk *walk, const char **path);
	const char *(*walk_failure) (TreeWalk *walk, int *errnum, const char **failure);
	void		(*walk_end) (TreeWalk *walk);
	WalkReason	(*walk_why_not) (FileStore *store, const char *path, bool recurse, size_t *len);
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
