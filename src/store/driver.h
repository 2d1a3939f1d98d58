/*-------------------------------------------------------------------------
 *
 * store/driver.h
 *	  What a kind of upload directory has to be able to do.
 *
 * There are two kinds: a directory of this machine (the other files of this
 * folder) and a bucket of an S3-compatible server (bucket/).  store_open()
 * chooses by the name, and nobody above this folder knows which it was.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_STORE_DRIVER_H
#define AUDIO_CLEANUP_STORE_DRIVER_H

#include "src/store/claim_file.h"
#include "src/store/lock.h"
#include "src/store/store.h"
#include "src/store/walk.h"

/*
 * Each function has the contract of its namesake store_*() or walk_*().
 */
typedef struct StoreDriver
{
	bool		acts_at_commit; /* see store_acts_at_commit() */
	bool		has_folders;	/* see store_has_folders() */
	int			together;		/* see store_together() */

	void		(*close) (FileStore *store);
	int			(*reach) (FileStore *store);
	bool		(*can_undo) (FileStore *store);
	int			(*prove) (FileStore *store, bool *proven);
	const char *(*error_text) (FileStore *store, int errnum);
	int			(*check_writable) (FileStore *store);
	int			(*check_folder) (FileStore *store, const char *path);
	FileResult	(*set_backup_dir) (FileStore *store, const char *path, const char *owner);
	bool		(*is_quick) (const FileStore *store);
	int			(*space) (FileStore *store, int64 *free_bytes, int64 *size_bytes);
	FileResult	(*clock) (FileStore *store, int64 *now_ns);

	void		(*expect) (FileStore *store, const char *const *paths, int n);
	FileResult	(*identify) (FileStore *store, const char *path, bool durably,
							 FileIdentity *identity);
	FileResult	(*capture) (FileStore *store, int64 run_id, const char *path, bool by_copy,
							const FileIdentity *expected);
	void		(*capture_many) (FileStore *store, int64 run_id, StoreCondemned *files, int n,
								 bool for_good);
	FilePlace	(*locate) (FileStore *store, int64 run_id, const char *path,
						   const FileIdentity *expected, bool mend, int *errnum);
	/* NULL: one after the other */
	void		(*locate_many) (FileStore *store, int64 run_id, StoreLocated *files, int n);
	void		(*put_back_many) (FileStore *store, int64 run_id, StoreReturned *files, int n);
	FileResult	(*put_back) (FileStore *store, int64 run_id, const char *path, const char *as,
							 const FileIdentity *expected);
	FileResult	(*identify_captured) (FileStore *store, int64 run_id, const char *path,
									  FileIdentity *identity);
	FileResult	(*destroy) (FileStore *store, int64 run_id, const char *path,
							const FileIdentity *expected, int64 *freed);
	void		(*destroy_many) (FileStore *store, int64 run_id, StoreDoomed *files, int n);
	FileResult	(*destroy_in_place) (FileStore *store, const char *path,
									 const FileIdentity *expected, int64 *freed);

	int			(*trash_runs) (FileStore *store, int64 *runs, int max);
	int			(*renumber_trash) (FileStore *store, int64 run_id, int64 as);
	/* NULL: nothing is remembered of a run but its files in the trash */
	void		(*forget_run) (FileStore *store, int64 run_id, bool look);
	int			(*remove_folders) (FileStore *store, const char *path);
	void		(*tidy) (FileStore *store, int64 run_id);
	int			(*sync) (FileStore *store);

	/* NULL: nothing is to be examined */
	bool		(*examine) (FileStore *store, StoreFindingSink sink, void *arg);
	bool		(*examine_canary) (FileStore *store, StoreFindingSink sink, void *arg);

	/* NULL: there are no uploads that could be seen */
	int			(*list_uploads) (FileStore *store, StoreUploadSink sink, void *arg);
	FileResult	(*end_upload) (FileStore *store, const char *path, const char *id,
							   int64 quiet_since_ns, int64 *freed);

	FileResult	(*read_claim) (FileStore *store, char text[STORE_CLAIM_MAX]);
	FileResult	(*write_claim) (FileStore *store, const char *text, bool replace);
	FileResult	(*lock) (FileStore *store);
	void		(*unlock) (FileStore *store);
	int			(*lock_holder) (FileStore *store);

	TreeWalk   *(*walk_begin) (FileStore *store, bool recurse);
	TreeWalk   *(*walk_begin_trash) (FileStore *store, int64 run_id);
	WalkStep	(*walk_next) (TreeWalk *walk, const char **path);
	const char *(*walk_failure) (TreeWalk *walk, int *errnum, const char **action);
	void		(*walk_end) (TreeWalk *walk);
	WalkReason	(*walk_why_not) (FileStore *store, const char *path, bool recurse, size_t *len);
} StoreDriver;

/* What every FileStore begins with. */
typedef struct StoreBase
{
	const StoreDriver *driver;
	bool		durable;		/* see store_set_durable() */
	bool		(*stop) (void); /* see store_set_stop(), or NULL */
} StoreBase;

/* What every TreeWalk begins with. */
typedef struct WalkBase
{
	const StoreDriver *driver;
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
fail(int errnum, const char *action)
{
	return (FileResult)
	{
		FILE_FAILED, errnum, action
	};
}

/* Open a directory of this machine, or a bucket: see store_open(). */
extern FileStore *local_open(const char *path);
extern FileStore *bucket_open(const char *url);

/* Returns NULL, or what is wrong with the name of a bucket: "s3://bucket/prefix". */
extern const char *bucket_judge_name(const char *url);

/* What the text of a path says of a walk, without a look: see walk_why_not(). */
extern WalkReason store_judge_walk(const char *path, bool recurse, size_t *len);

#endif							/* AUDIO_CLEANUP_STORE_DRIVER_H */
