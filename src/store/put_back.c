/*-------------------------------------------------------------------------
 *
 * store/put_back.c
 *	  Puts a captured file back to its place, by a rename or a copy.
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

/*
 * Compares the file that has the name already (the occupant) with the open
 * copy.  FILE_OK if the occupant is the original, which was never removed, or
 * a copy of the copy from an earlier attempt: then the file is back, and only
 * the unlink in the trash is missing.  Else FILE_OCCUPIED or FILE_FAILED.
 */
static FileResult
compare_occupant(FileStore *store, const Folder *home, const char *name,
				 const OpenFile *copy, const FileIdentity *expected)
{
	FileIdentity found;
	OpenFile	occupant;
	FileResult	result = store_recognize(home, name, NULL, false, &found);

	if (result.outcome == FILE_FAILED)
		return result;
	if (result.outcome != FILE_OK || !store_same_copy(&found, expected))
		return come_to(FILE_OCCUPIED);
	result = store_open_to_copy(home, name, &found, &occupant);
	if (result.outcome != FILE_OK)
		return result.outcome == FILE_FAILED ? result : come_to(FILE_OCCUPIED);
	result = copy_compare(copy->fd, occupant.fd, expected->size, store->base.stop);
	close(occupant.fd);
	return result.outcome == FILE_REPLACED ? come_to(FILE_OCCUPIED) : result;
}

/*
 * Puts a copy of the copy into the folder `home`, into which no file can be
 * renamed from another folder: the new copy is made in `home`, and has no name
 * until it is complete.
 */
static FileResult
copy_within_folder(FileStore *store, Folder *home, const char *name, const OpenFile *copy)
{
	char		path[32];
	FileResult	result;
	int			back = openat(home->fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);

	if (back < 0)
		return fail(errno, "could not create copy of file");
	result = store_fill_copy(store, copy, back);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", back);
	if (result.outcome == FILE_OK &&
		linkat(AT_FDCWD, path, home->fd, name, AT_SYMLINK_FOLLOW) != 0)
		result = fail(errno, "could not name copy of file");
	close(back);
	return result;
}

/* Puts a copy of the copy into the folder `home`, under `name`. */
static FileResult
copy_into_place(FileStore *store, Folder *home, const char *name, const OpenFile *copy)
{
	FileResult	result;
	int			workshop = store_open_private(store, true);
	int			back;

	if (workshop < 0)
		return fail(errno, store->failure);
	result = store_make_copy(store, copy, workshop, &back);
	if (result.outcome == FILE_OK)
	{
		if (store_rename_out_of_trash(workshop, COPY_NAME, home->fd, name) != 0)
		{
			result = fail(errno, "could not rename copy of file");
			(void) unlinkat(workshop, COPY_NAME, 0);
		}
		close(back);
	}
	close(workshop);
	if (result.errnum == EXDEV)
		result = copy_within_folder(store, home, name, copy);
	/* FILE_NO_SPACE is no outcome of store_put_back() */
	if (result.outcome == FILE_NO_SPACE)
		result.outcome = FILE_FAILED;
	return result;
}

/* Puts a copy of the open copy back to `target` in the folder `home`, durably. */
static FileResult
copy_back(FileStore *store, Folder *home, const FilePath *target,
		  const OpenFile *copy, const FileIdentity *expected)
{
	FileResult	result = {FILE_FAILED, EEXIST, NULL};
	FileLook	look;

	if (store_look(home->fd, target->name, &look) != 0 && errno == ENOENT)
		result = copy_into_place(store, home, target->name, copy);
	if (result.errnum == EEXIST)
		result = compare_occupant(store, home, target->name, copy, expected);
	if (result.outcome != FILE_OK)
		return result;
	home->dirty = true;
	return store_sync_now(store, home, &store->root, &store->root);
}

/*
 * Puts a file of the folder `trash` back by a copy, and unlinks the file in
 * the trash.
 */
static FileResult
copy_back_from(const StoreJob *job, Folder *trash, const FilePath *target,
			   const FileIdentity *expected)
{
	FileStore  *store = job->store;
	const char *name = job->where.name;
	OpenFile	copy;
	Folder	   *home;
	FileResult	result = store_open_to_copy(trash, name, expected, &copy);

	if (result.outcome == FILE_NOT_REGULAR)
		return come_to(FILE_REPLACED);
	if (result.outcome != FILE_OK)
		return result;
	home = store_reach_target(store, trash, target, DIR_SYNC, &result);
	if (home != NULL)
		result = copy_back(store, home, target, &copy, expected);
	close(copy.fd);
	if (home == NULL || result.outcome != FILE_OK)
		return result;
	if (unlinkat(trash->fd, name, 0) != 0 && errno != ENOENT)
		return fail(errno, "could not remove file");
	trash->dirty = true;
	return result;
}

FileResult
store_copy_stranger_back(const StoreJob *job, Folder *trash)
{
	FileIdentity found;
	FileResult	result = {FILE_FAILED, EXDEV, "could not put back file"};

	if (job->store->base.durable)
		result = store_recognize(trash, job->where.name, NULL, false, &found);
	if (result.outcome == FILE_OK)
		result = copy_back_from(job, trash, &job->where, &found);
	if (result.outcome == FILE_OK)
		return come_to(FILE_REPLACED);
	return result.outcome == FILE_FAILED ? result : fail(EXDEV, "could not put back file");
}

/*
 * Deals with a name that is taken.  If the captured file itself has the name,
 * then an earlier call was killed between link() and unlink(), and the unlink
 * is done now: FILE_OK.  Else FILE_OCCUPIED.
 */
static FileResult
settle_occupied(const StoreJob *job, Folder *trash, Folder *home, const FilePath *target,
				const FileIdentity *captured)
{
	FileIdentity found;
	FileResult	result = store_recognize(home, target->name, NULL, false, &found);

	if (result.outcome != FILE_OK || !store_same_file(&found, captured, false))
		return come_to(FILE_OCCUPIED);
	return unlinkat(trash->fd, job->where.name, 0) == 0 ? result : fail(errno, "could not remove file");
}

FileResult
store_put_back_from(const StoreJob *job, Trash *from, const FilePath *target)
{
	FileStore  *store = job->store;
	const char *name = job->where.name;
	FileIdentity found;
	FileResult	result;
	Folder	   *home;
	Folder	   *trash = store_reach_trash(job, from, 0, &result);

	if (trash == NULL)
		return result;
	result = store_recognize(trash, name, job->expected, false, &found);
	if (result.outcome == FILE_NOT_REGULAR)
		return come_to(FILE_REPLACED);
	if (result.outcome != FILE_OK)
		return result;

	home = store_reach_target(store, trash, target, 0, &result);
	if (home == NULL)
		return result;
	if (store_rename_out_of_trash(trash->fd, name, home->fd, target->name) != 0)
	{
		if (errno == EXDEV && store->base.durable)
			return copy_back_from(job, trash, target, &found);
		if (errno != EEXIST)
			return fail(errno, "could not rename file");
		result = settle_occupied(job, trash, home, target, &found);
	}
	home->dirty = trash->dirty = true;
	return result;
}

/*
 * Puts back a file whose capture was a copy.  A capture that was killed may
 * have left the original in the passage.  Then the original goes back, and
 * copy_back_from() finds that the copy in the trash, if any, is needless.
 */
static FileResult
put_back_copied(const StoreJob *job, const FilePath *target)
{
	FileResult	original = store_put_back_from(job, &job->store->passage, target);
	FileResult	copy;
	Folder	   *trash;

	if (original.outcome == FILE_FAILED)
		return original;
	trash = store_reach_trash(job, &job->store->trash, 0, &copy);
	if (trash != NULL)
		copy = copy_back_from(job, trash, target, job->expected);
	if (copy.outcome == FILE_VANISHED && original.outcome != FILE_REPLACED)
		return original;
	return copy;
}

FileResult
local_put_back_as(FileStore *store, int64 run_id, const char *path, const char *as,
				  const FileIdentity *expected)
{
	StoreJob	job;
	FilePath	target;
	FileResult	result = store_begin(&job, store, run_id, path, expected);
	int			attempt = 1;

	if (result.outcome == FILE_OK)
		result = store_split_path(as, &target);
	if (result.outcome != FILE_OK)
		return result;
	do
		result = local_is_quick(store) ? store_put_back_from(&job, &store->trash, &target) :
			put_back_copied(&job, &target);
	while (store_is_stale(store, &result, attempt++));
	return result;
}
