/*-------------------------------------------------------------------------
 *
 * store/destroy.c
 *	  Unlinks captured files for good.
 *
 * The file was verified when it was captured, and lies in a folder where only
 * this OS user can make, rename or remove a name.  So nobody has exchanged the
 * file.  But the folder may not be the folder that the row means:
 *
 * - The folder is opened by the usual rules: step by step, no symlink, no
 *	 mount point, each step ours alone.
 *
 * - The name is looked at once, right before its unlink.  The disk may be of
 *	 another day than the row (restored, failed over, run numbers used again on
 *	 another timeline); an administrator may have put a file there; and a
 *	 process that has had the file open since before the capture may have
 *	 written into it.  In each of these cases the file is not the file that was
 *	 condemned, and stays.
 *
 * A second look would tell nothing new.  Between the look and the unlink of a
 * file, other files of its folder may be unlinked: see ring.c.
 *
 * A large file is unlinked at once.  To shorten the file in slices first, by
 * ftruncate(), would take the end of the file from somebody who still plays
 * it.  On file systems with extents (ext4, xfs, btrfs) slices gain nothing:
 * the unlink of 1 GiB took 27 ms in a test, and fsyncs of other processes took
 * no longer meanwhile.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <unistd.h>

#include "src/store/private.h"

/*
 * Looks at the file that is to be unlinked from the folder `dir`: *found.
 * Sets *freed to the bytes that the unlink will give back.
 */
static FileResult
look_before_unlink(Folder *dir, const char *name, const FileIdentity *expected, bool with_ctime,
				   FileIdentity *found, int64 *freed)
{
	FileResult	result = store_recognize(dir, name, expected, with_ctime, found);

	/* if the file is gone already, an unlink of ours may not be durable yet */
	dir->dirty = true;
	*freed = result.outcome == FILE_OK ? store_space_of(found) : 0;
	return result;
}

FileResult
store_unlink(Folder *dir, const char *name, const FileIdentity *expected,
			 bool with_ctime, int64 *freed)
{
	FileIdentity found;
	FileResult	result = look_before_unlink(dir, name, expected, with_ctime, &found, freed);

	if (result.outcome != FILE_OK || unlinkat(dir->fd, name, 0) == 0)
		return result;
	*freed = 0;
	return vanished_or_failed(errno, "could not remove file");
}

/*
 * Returns the result of a look at a captured file, in which a folder counts as
 * another file.
 */
static FileResult
as_captured(FileResult result)
{
	return result.outcome == FILE_NOT_REGULAR ? come_to(FILE_REPLACED) : result;
}

FileResult
local_destroy(FileStore *store, int64 run_id, const char *path,
			  const FileIdentity *expected, int64 *freed)
{
	StoreJob	job;
	FileResult	result;
	Folder	   *trash = store_reach_captured(&job, store, run_id, path, expected, &result);

	*freed = 0;
	return trash == NULL ? result :
		as_captured(store_unlink(trash, job.where.name, expected, false, freed));
}

/*
 * Looks at the file, and fills *call with the unlink of the file.  Returns 1,
 * or 0 if no call is left to do.  A file with several links is unlinked at
 * once: otherwise the link counts of two names of one file would not tell the
 * freed bytes.
 */
static int
add_unlink(Folder *trash, const char *name, StoreDoomed *file, StoreCall *call)
{
	FileIdentity found;

	*call = (StoreCall)
	{
		.fd = trash->fd,.name = name,.file = file
	};
	file->result = as_captured(look_before_unlink(trash, name, file->expected, false,
												  &found, &file->freed));
	if (file->result.outcome != FILE_OK)
		return 0;
	if (found.nlink <= 1)
		return 1;
	if (unlinkat(trash->fd, name, 0) != 0)
		file->result = vanished_or_failed(errno, "could not remove file");
	return 0;
}

/*
 * Destroys the first of the files, and the following files that lie in the
 * same folder.  Returns the number of files.
 */
static int
destroy_together(FileStore *store, int64 run_id, StoreDoomed *files, int n)
{
	StoreCall	calls[STORE_TOGETHER];
	FilePath	where;
	StoreJob	job;
	Folder	   *trash = store_reach_captured(&job, store, run_id, files[0].path, NULL, &files[0].result);
	int			n_calls = 0;
	int			done;

	if (trash == NULL)
		return 1;
	for (done = 0; done < n && n_calls < STORE_TOGETHER; done++)
	{
		files[done].result = store_split_path(files[done].path, &where);
		if (files[done].result.outcome != FILE_OK)
			continue;
		if (strcmp(where.dir, job.where.dir) != 0)
			break;
		n_calls += add_unlink(trash, where.name, &files[done], &calls[n_calls]);
	}
	store_call_together(store, calls, n_calls);
	for (int i = 0; i < n_calls; i++)
	{
		if (calls[i].errnum == 0)
			continue;
		calls[i].file->result = vanished_or_failed(calls[i].errnum, "could not remove file");
		calls[i].file->freed = 0;
	}
	return done;
}

void
local_destroy_many(FileStore *store, int64 run_id, StoreDoomed *files, int n)
{
	for (int i = 0; i < n; i++)
		files[i].freed = 0;
	for (int i = 0; i < n;)
		i += destroy_together(store, run_id, files + i, n - i);
}
