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
 * file, other files may be looked at and unlinked: see ring.c.
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
#include "src/pg/base.h"

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

struct StoreUnlinks
{
	int			n;
	StoreCall	calls[FLEXIBLE_ARRAY_MEMBER];
};

/*
 * Looks at the file, and begins its unlink, or does the unlink if the file is
 * alone.  A file with several links is unlinked at once: otherwise the link
 * counts of two names of one file would not tell the freed bytes.
 */
static void
begin_unlink(FileStore *store, int64 run_id, StoreFile *file, bool alone, StoreUnlinks *unlinks)
{
	StoreCall  *call = &unlinks->calls[unlinks->n];
	StoreJob	job;
	FileIdentity found;
	Folder	   *trash = store_reach_captured(&job, store, run_id, file->path, NULL, &file->result);

	file->freed = 0;
	if (trash == NULL)
		return;
	*call = (StoreCall)
	{
		.fd = trash->fd,.name = job.where.name,.file = file
	};
	file->result = as_captured(look_before_unlink(trash, call->name, file->expected, false,
												  &found, &file->freed));
	if (file->result.outcome != FILE_OK)
		return;
	unlinks->n++;
	store_begin_call(store, call, alone || found.nlink > 1);
}

StoreUnlinks *
local_destroy_begin(FileStore *store, int64 run_id, StoreFile *files, int n)
{
	StoreUnlinks *unlinks = palloc0(offsetof(StoreUnlinks, calls) + sizeof(StoreCall) * n);

	for (int i = 0; i < n; i++)
		begin_unlink(store, run_id, &files[i], n == 1, unlinks);
	return unlinks;
}

void
local_destroy_end(FileStore *store, StoreUnlinks *unlinks)
{
	store_end_calls(store, unlinks->calls, unlinks->n);
	for (int i = 0; i < unlinks->n; i++)
	{
		StoreCall  *call = &unlinks->calls[i];

		if (call->errnum == 0)
			continue;
		call->file->result = vanished_or_failed(call->errnum, "could not remove file");
		call->file->freed = 0;
	}
	pfree(unlinks);
}
