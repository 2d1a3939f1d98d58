/*-------------------------------------------------------------------------
 *
 * store/trash.c
 *	  Looks at the files of the trash; lists, tidies and renames its folders.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/store/private.h"

/* deeper directories of the trash are left alone by store_tidy() */
#define TIDY_MAX_DEPTH	64

Folder *
store_reach_captured(StoreJob *job, FileStore *store, int64 run_id, const char *path,
					 const FileIdentity *expected, FileResult *result)
{
	*result = store_begin(job, store, run_id, path, expected);
	return result->outcome == FILE_OK ? store_reach_trash(job, &store->trash, 0, result) : NULL;
}

FileResult
local_identify_captured(FileStore *store, int64 run_id, const char *path, FileIdentity *identity)
{
	StoreJob	job;
	FileResult	result;
	Folder	   *trash = store_reach_captured(&job, store, run_id, path, NULL, &result);

	return trash == NULL ? result :
		store_recognize(trash, job.where.name, NULL, false, identity);
}


/* ----------
 * The trash of each run
 * ----------
 */

/* Sets *run_id to the number that a folder has as its name.  Returns false if make_run_path() would not give that name. */
static bool
parse_run(const char *name, int64 *run_id)
{
	char		again[32];

	*run_id = strtoll(name, NULL, 10);
	snprintf(again, sizeof(again), INT64_FORMAT, *run_id);
	return *run_id > 0 && strcmp(name, again) == 0;
}

int
local_trash_runs(FileStore *store, int64 *runs, int max)
{
	struct dirent *entry;
	int64		run_id;
	DIR		   *stream;
	int			errnum;
	int			n = 0;

	if (!AcquireExternalFD())
		return -1;
	stream = store_open_stream(store_open_trash(store, 0));
	if (stream == NULL && errno == ENOENT)
		errno = 0;
	/* after readdir() only errno distinguishes the end from an error */
	while (stream != NULL && (errno = 0, entry = readdir(stream)) != NULL)
		if (parse_run(entry->d_name, &run_id) && n++ < max)
			runs[n - 1] = run_id;
	errnum = errno;
	if (stream != NULL)
		closedir(stream);
	ReleaseExternalFD();
	errno = errnum;
	return errnum == 0 ? n : -1;
}

int
local_renumber_trash(FileStore *store, int64 run_id, int64 as)
{
	char		from[32];
	char		to[32];
	int			errnum = 0;
	int			fd;

	snprintf(from, sizeof(from), INT64_FORMAT, run_id);
	snprintf(to, sizeof(to), INT64_FORMAT, as);
	/* no folder may be kept open under a name that another folder gets */
	store_leave_all(store);
	fd = store_open_trash(store, 0);
	if (fd < 0)
		return errno;
	if (store_rename_into_trash(fd, from, fd, to) != 0)
		errnum = errno;
	else
		store_sync_directory(store, fd);
	close(fd);
	return errnum;
}


/* ----------
 * Tidying
 * ----------
 */

static bool
may_be_directory(const struct dirent *entry)
{
	if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
		return false;
	return entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN;
}

/*
 * Removes the folder `name` of the folder `parent`, below `top`, and the
 * folders below `name`, as far as they are empty.  Errors are ignored, here
 * and in store_tidy(): ENOTEMPTY is the ordinary case, and an empty folder
 * that stays does no harm, and is removed by the next tidying.  So nothing is
 * fsynced, and a trash of very many folders holds up nobody: see
 * store_set_stop().
 */
static void
prune_folder(FileStore *store, Folder *top, int parent, const char *name, int depth)
{
	struct dirent *entry;
	DIR		   *stream;

	if (unlinkat(parent, name, AT_REMOVEDIR) == 0)
		return;
	if (depth >= TIDY_MAX_DEPTH || !AcquireExternalFD())
		return;

	stream = store_open_stream(store_step_down(store, top, parent, name, DIR_TRUST));
	if (stream != NULL)
	{
		while (!is_stopped(store->base.stop) && (entry = readdir(stream)) != NULL)
			if (may_be_directory(entry))
				prune_folder(store, top, dirfd(stream), entry->d_name, depth + 1);
		closedir(stream);
		(void) unlinkat(parent, name, AT_REMOVEDIR);
	}
	ReleaseExternalFD();
}

/* Tidies the trash `name` in the folder `parent`, below `top`: the folder of the run. */
static void
tidy_trash(FileStore *store, Folder *top, int parent, const char *name, int64 run_id)
{
	char		run[32];
	int			trash = store_step_down(store, top, parent, name, DIR_TRUST);

	if (trash < 0)
		return;
	snprintf(run, sizeof(run), INT64_FORMAT, run_id);
	prune_folder(store, top, trash, run, 0);
	/* the rest of a copy that a killed process has left */
	(void) unlinkat(trash, COPY_NAME, 0);
	close(trash);
}

void
local_tidy(FileStore *store, int64 run_id)
{
	int			private;

	store_leave_all(store);

	/*
	 * the folder of the owner stays: the folder tells that the disk is the
	 * right one
	 */
	if (store->backup.fd >= 0)
		tidy_trash(store, &store->backup, store->backup.fd, store->trash.path, run_id);
	private = store_open_private(store, false);
	if (private < 0)
		return;
	tidy_trash(store, &store->root, private, STORE_TRASH_DIR, run_id);
	(void) unlinkat(private, STORE_TRASH_DIR, AT_REMOVEDIR);
	(void) unlinkat(private, COPY_NAME, 0);
	close(private);

	/* the private folder stays while it has a claim */
	(void) unlinkat(store->root.fd, STORE_PRIVATE_DIR, AT_REMOVEDIR);
}
