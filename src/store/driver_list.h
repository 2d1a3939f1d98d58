/*-------------------------------------------------------------------------
 *
 * store/driver_list.h
 *	  The functions that each kind of upload directory provides, as a list.
 *
 * A file that includes this list defines what becomes of each entry:
 *
 *	STORE_BOTH(type, name, parameters, arguments)
 *		Both kinds have the function.
 *	STORE_LOCAL(type, name, parameters, arguments, otherwise)
 *		Only a directory has the function: a bucket has no folders and no size;
 *		only a request could tell whether a bucket is writable; and every
 *		confirmed change is durable.  The result for a bucket is `otherwise`.
 *	STORE_BUCKET(type, name, parameters, arguments, otherwise)
 *		Only a bucket has the function: a directory is within reach when it is
 *		open, and keeps nothing of a run except the files in the trash.  The
 *		result for a directory is `otherwise`.
 *	STORE_WALK(type, name, parameters, base, arguments)
 *		Both kinds have the function, which is called by its name, walk_*();
 *		`base` is the parameter that has the driver.
 *	STORE_OWN(type, name, parameters)
 *		Both kinds have the function, and driver.c has the function that calls
 *		it.
 *
 * A function has the contract of its namesake store_*(), or of walk_*().
 * driver.h makes a struct of the list, driver.c the functions store_*() and
 * walk_*(), and each kind of upload directory its prototypes and its StoreDriver.  The list
 * has no guard, because it is included several times.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */

/* the store */
STORE_OWN(void, close, (FileStore *store))
STORE_BUCKET(int, reach, (FileStore *store), (store), 0)
STORE_BUCKET(bool, can_undo, (FileStore *store), (store), true)
STORE_BUCKET(int, prove, (FileStore *store, bool *proven), (store, proven), (*proven = true, 0))
STORE_BUCKET(const char *, error_text, (FileStore *store, int errnum), (store, errnum), strerror(errnum))
STORE_LOCAL(int, check_writable, (FileStore *store), (store), 0)
STORE_LOCAL(int, check_folder, (FileStore *store, const char *path), (store, path), 0)
STORE_LOCAL(FileResult, set_backup_dir, (FileStore *store, const char *path, const char *owner),
			(store, path, owner), fail(EINVAL, "could not accept path"))
STORE_LOCAL(bool, is_quick, (const FileStore *store), (store), false)
STORE_LOCAL(int, space, (FileStore *store, int64 *free_bytes, int64 *size_bytes),
			(store, free_bytes, size_bytes), ENOTSUP)
STORE_BOTH(FileResult, clock, (FileStore *store, int64 *now_ns), (store, now_ns))
STORE_LOCAL(int, sync, (FileStore *store), (store), 0)
STORE_BUCKET(bool, examine, (FileStore *store, StoreFindingSink sink, void *arg), (store, sink, arg), true)
STORE_BUCKET(bool, examine_canary, (FileStore *store, StoreFindingSink sink, void *arg),
			 (store, sink, arg), true)

/* files in their places */
STORE_BUCKET(void, expect, (FileStore *store, const char *const *paths, int n), (store, paths, n), (void) 0)
STORE_BOTH(FileResult, identify, (FileStore *store, const char *path, bool durably, FileIdentity *identity),
		   (store, path, durably, identity))
STORE_LOCAL(FileResult, destroy_in_place,
			(FileStore *store, const char *path, const FileIdentity *expected, int64 *freed),
			(store, path, expected, freed), (*freed = 0, fail(ENOTSUP, "could not delete file")))
STORE_LOCAL(int, remove_folders, (FileStore *store, const char *path), (store, path), 0)
STORE_BUCKET(int, list_uploads, (FileStore *store, StoreUploadSink sink, void *arg), (store, sink, arg), ENOTSUP)
STORE_BUCKET(FileResult, end_upload,
			 (FileStore *store, const char *path, const char *id, int64 quiet_since_ns, int64 *freed),
			 (store, path, id, quiet_since_ns, freed), (*freed = 0, fail(ENOTSUP, "could not end upload")))

/* captured files */
STORE_LOCAL(FileResult, capture,
			(FileStore *store, int64 run_id, const char *path, const FileIdentity *expected),
			(store, run_id, path, expected), fail(ENOTSUP, "could not rename file"))
STORE_BOTH(void, capture_many,
		   (FileStore *store, int64 run_id, StoreFile *files, int n, bool for_good),
		   (store, run_id, files, n, for_good))
STORE_BOTH(FilePlace, locate,
		   (FileStore *store, int64 run_id, const char *path, const FileIdentity *expected, bool mend, int *errnum),
		   (store, run_id, path, expected, mend, errnum))
STORE_BOTH(void, locate_many, (FileStore *store, int64 run_id, StoreFile *files, int n),
		   (store, run_id, files, n))
STORE_BOTH(FileResult, put_back_as,
		   (FileStore *store, int64 run_id, const char *path, const char *as, const FileIdentity *expected),
		   (store, run_id, path, as, expected))
STORE_BOTH(void, put_back_many, (FileStore *store, int64 run_id, StoreFile *files, int n),
		   (store, run_id, files, n))
STORE_BOTH(FileResult, identify_captured,
		   (FileStore *store, int64 run_id, const char *path, FileIdentity *identity),
		   (store, run_id, path, identity))
STORE_LOCAL(FileResult, destroy,
			(FileStore *store, int64 run_id, const char *path, const FileIdentity *expected, int64 *freed),
			(store, run_id, path, expected, freed), (*freed = 0, fail(ENOTSUP, "could not delete file")))
STORE_BOTH(StoreUnlinks *, destroy_begin, (FileStore *store, int64 run_id, StoreFile *files, int n),
		   (store, run_id, files, n))
STORE_LOCAL(void, destroy_end, (FileStore *store, StoreUnlinks *unlinks), (store, unlinks), (void) 0)
STORE_BOTH(int, trash_runs, (FileStore *store, int64 *runs, int max), (store, runs, max))
STORE_BOTH(int, renumber_trash, (FileStore *store, int64 run_id, int64 as), (store, run_id, as))
STORE_BUCKET(void, forget_run, (FileStore *store, int64 run_id, bool look), (store, run_id, look), (void) 0)
STORE_LOCAL(void, tidy, (FileStore *store, int64 run_id), (store, run_id), (void) 0)

/* the claim */
STORE_BOTH(FileResult, read_claim, (FileStore *store, char text[STORE_CLAIM_MAX]), (store, text))
STORE_BOTH(FileResult, write_claim, (FileStore *store, const char *text, bool replace), (store, text, replace))
STORE_BOTH(FileResult, lock, (FileStore *store), (store))
STORE_BOTH(void, unlock, (FileStore *store), (store))
STORE_LOCAL(int, lock_holder, (FileStore *store), (store), 0)

/* walks */
STORE_WALK(TreeWalk *, walk_begin, (FileStore *store, bool recurse, int64 run_id), store, (store, recurse, run_id))
STORE_WALK(WalkStep, walk_next, (TreeWalk *walk, const char **path), walk, (walk, path))
STORE_WALK(const char *, walk_failure, (TreeWalk *walk, int *errnum, const char **failure), walk,
		   (walk, errnum, failure))
STORE_WALK(WalkReason, walk_why_not, (FileStore *store, const char *path, bool recurse, size_t *len), store,
		   (store, path, recurse, len))
STORE_OWN(void, walk_end, (TreeWalk *walk))

#undef STORE_BOTH
#undef STORE_LOCAL
#undef STORE_BUCKET
#undef STORE_WALK
#undef STORE_OWN
