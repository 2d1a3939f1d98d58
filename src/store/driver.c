/*-------------------------------------------------------------------------
 *
 * store/driver.c
 *	  Passes each call on to the kind of upload directory that is open.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include "src/store/lock.h"
#include "src/store/private.h"

#define BUCKET_SCHEME	"s3://"

static inline StoreBase *
base_of(const FileStore *store)
{
	return (StoreBase *) store;
}

static inline const StoreDriver *
driver_of(const FileStore *store)
{
	return base_of(store)->driver;
}

/* Calls a function of the driver; without that function, the value is `otherwise`. */
#define CALL_OR(function, args, otherwise) \
	(driver_of(store)->function != NULL ? driver_of(store)->function args : (otherwise))

static inline const StoreDriver *
walker_of(const TreeWalk *walk)
{
	return ((const WalkBase *) walk)->driver;
}

void
store_release_descriptors(int n)
{
	while (n-- > 0)
		ReleaseExternalFD();
}

bool
store_acquire_descriptors(int n)
{
	for (int acquired = 0; acquired < n; acquired++)
		if (!AcquireExternalFD())
		{
			store_release_descriptors(acquired);
			errno = EMFILE;
			return false;
		}
	return true;
}

bool
store_is_local(const char *name)
{
	return strncmp(name, BUCKET_SCHEME, strlen(BUCKET_SCHEME)) != 0;
}

const char *
store_judge_name(const char *name)
{
#ifndef FRONTEND
	if (!store_is_local(name))
		return bucket_judge_name(name);
#endif
	return NULL;
}

FileStore *
store_open(const char *name)
{
#ifndef FRONTEND
	if (!store_is_local(name))
		return bucket_open(name);
#endif
	return local_open(name);
}

void
store_close(FileStore *store)
{
	if (store != NULL)
		driver_of(store)->close(store);
}

bool
store_acts_at_commit(const FileStore *store)
{
	return driver_of(store)->acts_at_commit;
}

bool
store_has_folders(const FileStore *store)
{
	return driver_of(store)->has_folders;
}

int
store_reach(FileStore *store)
{
	return CALL_OR(reach, (store), 0);
}

bool
store_can_undo(FileStore *store)
{
	return CALL_OR(can_undo, (store), true);
}

int
store_prove(FileStore *store, bool *proven)
{
	*proven = true;
	return CALL_OR(prove, (store, proven), 0);
}

const char *
store_error_text(FileStore *store, int errnum)
{
	return CALL_OR(error_text, (store, errnum), strerror(errnum));
}

void
store_set_stop(FileStore *store, bool (*stop) (void))
{
	base_of(store)->stop = stop;
}

void
store_set_durable(FileStore *store, bool durable)
{
	base_of(store)->durable = durable;
}

int
store_check_writable(FileStore *store)
{
	return CALL_OR(check_writable, (store), 0);
}

int
store_check_folder(FileStore *store, const char *path)
{
	return CALL_OR(check_folder, (store, path), 0);
}

FileResult
store_set_backup_dir(FileStore *store, const char *path, const char *owner)
{
	return driver_of(store)->set_backup_dir(store, path, owner);
}

bool
store_is_quick(const FileStore *store)
{
	return CALL_OR(is_quick, (store), false);
}

int
store_space(FileStore *store, int64 *free_bytes, int64 *size_bytes)
{
	return CALL_OR(space, (store, free_bytes, size_bytes), ENOTSUP);
}

FileResult
store_clock(FileStore *store, int64 *now_ns)
{
	return driver_of(store)->clock(store, now_ns);
}

void
store_expect(FileStore *store, const char *const *paths, int n)
{
	if (driver_of(store)->expect != NULL)
		driver_of(store)->expect(store, paths, n);
}

FileResult
store_identify(FileStore *store, const char *path, FileIdentity *identity)
{
	return driver_of(store)->identify(store, path, false, identity);
}

FileResult
store_identify_durably(FileStore *store, const char *path, FileIdentity *identity)
{
	return driver_of(store)->identify(store, path, true, identity);
}

FileResult
store_capture(FileStore *store, int64 run_id, const char *path, const FileIdentity *expected)
{
	return driver_of(store)->capture(store, run_id, path, !store_is_quick(store), expected);
}

void
store_capture_many(FileStore *store, int64 run_id, StoreCondemned *files, int n, bool for_good)
{
	driver_of(store)->capture_many(store, run_id, files, n, for_good);
}

int
store_together(const FileStore *store)
{
	return driver_of(store)->together;
}

FileResult
store_capture_by_copy(FileStore *store, int64 run_id, const char *path, const FileIdentity *expected)
{
	return driver_of(store)->capture(store, run_id, path, true, expected);
}

FilePlace
store_locate(FileStore *store, int64 run_id, const char *path, const FileIdentity *expected,
			 bool mend, int *errnum)
{
	return driver_of(store)->locate(store, run_id, path, expected, mend, errnum);
}

void
store_locate_many(FileStore *store, int64 run_id, StoreLocated *files, int n)
{
	const StoreDriver *driver = driver_of(store);

	if (driver->locate_many != NULL)
		driver->locate_many(store, run_id, files, n);
	for (int i = 0; i < n && driver->locate_many == NULL; i++)
		files[i].place = driver->locate(store, run_id, files[i].path, files[i].expected, false, &files[i].errnum);
}

void
store_put_back_many(FileStore *store, int64 run_id, StoreReturned *files, int n)
{
	const StoreDriver *driver = driver_of(store);

	if (driver->put_back_many != NULL)
		driver->put_back_many(store, run_id, files, n);
	for (int i = 0; i < n && driver->put_back_many == NULL; i++)
		files[i].result = driver->put_back(store, run_id, files[i].path, files[i].as, files[i].expected);
}

FileResult
store_put_back(FileStore *store, int64 run_id, const char *path, const FileIdentity *expected)
{
	return driver_of(store)->put_back(store, run_id, path, path, expected);
}

FileResult
store_put_back_as(FileStore *store, int64 run_id, const char *path, const char *as,
				  const FileIdentity *expected)
{
	return driver_of(store)->put_back(store, run_id, path, as, expected);
}

FileResult
store_identify_captured(FileStore *store, int64 run_id, const char *path, FileIdentity *identity)
{
	return driver_of(store)->identify_captured(store, run_id, path, identity);
}

FileResult
store_destroy(FileStore *store, int64 run_id, const char *path, const FileIdentity *expected,
			  int64 *freed)
{
	return driver_of(store)->destroy(store, run_id, path, expected, freed);
}

StoreUnlinks *
store_destroy_begin(FileStore *store, int64 run_id, StoreDoomed *files, int n)
{
	return driver_of(store)->destroy_begin(store, run_id, files, n);
}

void
store_destroy_end(FileStore *store, StoreUnlinks *unlinks)
{
	if (driver_of(store)->destroy_end != NULL)
		driver_of(store)->destroy_end(store, unlinks);
}

FileResult
store_destroy_in_place(FileStore *store, const char *path, const FileIdentity *expected, int64 *freed)
{
	return driver_of(store)->destroy_in_place(store, path, expected, freed);
}

int
store_trash_runs(FileStore *store, int64 *runs, int max)
{
	return driver_of(store)->trash_runs(store, runs, max);
}

int
store_renumber_trash(FileStore *store, int64 run_id, int64 as)
{
	return driver_of(store)->renumber_trash(store, run_id, as);
}

void
store_forget_run(FileStore *store, int64 run_id, bool look)
{
	const StoreDriver *driver = driver_of(store);

	if (driver->forget_run != NULL)
		driver->forget_run(store, run_id, look);
}

int
store_remove_folders(FileStore *store, const char *path)
{
	return CALL_OR(remove_folders, (store, path), 0);
}

void
store_tidy(FileStore *store, int64 run_id)
{
	if (driver_of(store)->tidy != NULL)
		driver_of(store)->tidy(store, run_id);
}

int
store_sync(FileStore *store)
{
	return CALL_OR(sync, (store), 0);
}

bool
store_examine(FileStore *store, StoreFindingSink sink, void *arg)
{
	return CALL_OR(examine, (store, sink, arg), true);
}

bool
store_examine_canary(FileStore *store, StoreFindingSink sink, void *arg)
{
	return CALL_OR(examine_canary, (store, sink, arg), true);
}

int
store_list_uploads(FileStore *store, StoreUploadSink sink, void *arg)
{
	return CALL_OR(list_uploads, (store, sink, arg), ENOTSUP);
}

FileResult
store_end_upload(FileStore *store, const char *path, const char *id, int64 quiet_since_ns, int64 *freed)
{
	*freed = 0;
	return CALL_OR(end_upload, (store, path, id, quiet_since_ns, freed), fail(ENOTSUP, "could not end upload"));
}

FileResult
store_read_claim(FileStore *store, char text[STORE_CLAIM_MAX])
{
	return driver_of(store)->read_claim(store, text);
}

FileResult
store_write_claim(FileStore *store, const char *text, bool replace)
{
	return driver_of(store)->write_claim(store, text, replace);
}

FileResult
store_lock(FileStore *store)
{
	return driver_of(store)->lock(store);
}

void
store_unlock(FileStore *store)
{
	driver_of(store)->unlock(store);
}

int
store_lock_holder(FileStore *store)
{
	return CALL_OR(lock_holder, (store), 0);
}

TreeWalk *
walk_begin(FileStore *store, bool recurse)
{
	return driver_of(store)->walk_begin(store, recurse);
}

TreeWalk *
walk_begin_trash(FileStore *store, int64 run_id)
{
	return driver_of(store)->walk_begin_trash(store, run_id);
}

WalkStep
walk_next(TreeWalk *walk, const char **path)
{
	return walker_of(walk)->walk_next(walk, path);
}

const char *
walk_failure(TreeWalk *walk, int *errnum, const char **failure)
{
	return walker_of(walk)->walk_failure(walk, errnum, failure);
}

bool
walk_has_links(const TreeWalk *walk)
{
	return ((const WalkBase *) walk)->has_links;
}

void
walk_end(TreeWalk *walk)
{
	if (walk != NULL)
		walker_of(walk)->walk_end(walk);
}

WalkReason
walk_why_not(FileStore *store, const char *path, bool recurse, size_t *len)
{
	return driver_of(store)->walk_why_not(store, path, recurse, len);
}
