/*-------------------------------------------------------------------------
 *
 * store/copy_out.c
 *	  Moves a file into a trash on another file system: copies the file, then
 *	  removes the original.
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

FileResult
store_open_to_copy(const Folder *dir, const char *name, const FileIdentity *expected, OpenFile *file)
{
	FileResult	result = store_recognize(dir, name, expected, true, &file->look.identity);

	if (result.outcome != FILE_OK)
		return result;
	file->fd = openat(dir->fd, name, O_RDONLY | COPY_FLAGS);
	if (file->fd < 0)
		return errno == ELOOP ? come_to(FILE_NOT_REGULAR) : vanished_or_failed(errno, "could not open file");

	if (store_look(file->fd, "", &file->look) != 0)
		result = fail(errno, "could not stat file");
	else if (!S_ISREG(file->look.mode))
		result = come_to(FILE_NOT_REGULAR);
	else if (!store_is_expected(dir, &file->look.identity, expected, true))
		result = come_to(FILE_REPLACED);
	if (result.outcome != FILE_OK)
		close(file->fd);
	return result;
}

/*
 * Returns whether nobody has touched the file since it was opened.  The ctime
 * is compared whatever the number of links: only the ctime shows a write after
 * which mtime was set back.
 */
static bool
is_untouched(const OpenFile *file)
{
	FileLook	now;

	return store_look(file->fd, "", &now) == 0 &&
		store_same_file(&now.identity, &file->look.identity, false) &&
		now.identity.ctime_ns == file->look.identity.ctime_ns;
}

FileResult
store_fill_copy(FileStore *store, const OpenFile *original, int copy)
{
	FileResult	result = copy_make(original->fd, &original->look, copy, store->base.stop);

	return result.errnum != EINTR && !is_untouched(original) ? come_to(FILE_REPLACED) : result;
}

/*
 * An unfinished copy of a killed process has the same name, and is removed
 * first.
 */
FileResult
store_make_copy(FileStore *store, const OpenFile *original, int workshop, int *copy)
{
	const int	flags = O_RDWR | O_CREAT | O_EXCL | COPY_FLAGS;
	FileResult	result;

	*copy = openat(workshop, COPY_NAME, flags, S_IRUSR | S_IWUSR);
	if (*copy < 0 && errno == EEXIST && unlinkat(workshop, COPY_NAME, 0) == 0)
		*copy = openat(workshop, COPY_NAME, flags, S_IRUSR | S_IWUSR);
	if (*copy < 0)
		return fail_or_no_space(errno, "could not create copy of file");
	result = store_fill_copy(store, original, *copy);
	if (result.outcome != FILE_OK)
	{
		(void) unlinkat(workshop, COPY_NAME, 0);
		close(*copy);
	}
	return result;
}

/* Returns whether the name is really that of our copy, the descriptor `copy`. */
static bool
is_in_place(const Folder *dir, const char *name, int copy)
{
	FileLook	named;
	FileLook	opened;

	return store_look(dir->fd, name, &named) == 0 && store_look(copy, "", &opened) == 0 &&
		store_same_file(&named.identity, &opened.identity, false);
}

/*
 * Sets *good to whether the file `name` in the trash is a copy of the
 * original, of a capture that was killed before it could remove the original.
 * A bad copy, or a copy that cannot be read, will be replaced, because the
 * original is there.
 */
static FileResult
judge_copy(FileStore *store, const Folder *trash, const char *name,
		   const OpenFile *original, bool *good)
{
	OpenFile	copy;
	FileResult	result = store_open_to_copy(trash, name, &original->look.identity, &copy);

	if (result.outcome == FILE_REPLACED || result.outcome == FILE_NOT_REGULAR)
		return fail(EEXIST, "could not rename file");
	if (result.outcome != FILE_OK)
		return result.outcome == FILE_VANISHED ? come_to(FILE_OK) : result;
	result = copy_compare(original->fd, copy.fd, original->look.identity.size, store->base.stop);
	close(copy.fd);
	*good = result.outcome == FILE_OK;
	return result.errnum == EINTR ? result : come_to(FILE_OK);
}

/* Gives the finished copy its name in the trash; `found` says that a bad copy has that name. */
static FileResult
name_copy(int workshop, int copy, Folder *trash, const char *name, bool found)
{
	int			rc = found ? renameat(workshop, COPY_NAME, trash->fd, name) :
	store_rename_into_trash(workshop, COPY_NAME, trash->fd, name);

	trash->dirty = true;
	if (rc == 0)
		return is_in_place(trash, name, copy) ? come_to(FILE_OK) : fail(EBUSY, "could not rename copy of file");
	rc = errno;
	(void) unlinkat(workshop, COPY_NAME, 0);
	return fail_or_no_space(rc, "could not rename copy of file");
}

/*
 * Puts a finished copy of the open original into the trash, unless the trash
 * has a copy.  Sets *made to true if the call has made the copy.
 */
static FileResult
copy_into_trash(FileStore *store, Folder *trash, const char *name,
				const OpenFile *original, bool *made)
{
	FileLook	look;
	bool		found = store_look(trash->fd, name, &look) == 0;
	bool		good = false;
	FileResult	result = found ? judge_copy(store, trash, name, original, &good) : come_to(FILE_OK);
	int			workshop;
	int			copy;

	if (result.outcome != FILE_OK || good)
		return result;
	workshop = store_open_trash(store, 0);
	if (workshop < 0)
		return fail(errno, store->failure);
	result = store_make_copy(store, original, workshop, &copy);
	if (result.outcome == FILE_OK)
	{
		result = name_copy(workshop, copy, trash, name, found);
		*made = result.outcome == FILE_OK;
		close(copy);
	}
	close(workshop);
	return result;
}

/*
 * Removes the original, of which the copy is made: captures it into the
 * passage, verifies there for the last time that the captured file is the file
 * that was copied, and unlinks the captured file.  If the disk has no room for
 * the passage, unlinks the original at its place.
 */
static FileResult
remove_original(const StoreJob *job)
{
	FileStore  *store = job->store;
	FileResult	result = {FILE_NO_SPACE, EXDEV, NULL};
	Folder	   *passage;
	int64		freed;

	/*
	 * a file that cannot be renamed into the trash cannot be renamed into the
	 * passage either
	 */
	if (!local_is_quick(store))
		result = store_capture_by_rename(job, &store->passage, &passage);
	if (result.outcome == FILE_OK && unlinkat(passage->fd, job->where.name, 0) != 0)
	{
		result = fail(errno, "could not remove file");
		(void) store_return_stranger(job, passage);
	}
	if (result.outcome == FILE_NO_SPACE)
	{
		Folder	   *home = store_reach_home(store, &job->where, 0, &result);

		if (home != NULL)
			result = store_unlink(home, job->where.name, job->expected, true, &freed);
	}
	return result;
}

/*
 * Returns whether the copy is of no use, because the original was not removed.
 * With another outcome than FILE_FAILED, the original is gone, or another file
 * has its name.  Then a copy that this call has `made` must not be kept.  But
 * a copy that was found may belong to another capture, which has removed the
 * original meanwhile.  With FILE_FAILED, the copy is of no use if the original
 * is seen to be there.
 */
static bool
is_needless(const StoreJob *job, FileOutcome outcome, bool made)
{
	FileIdentity found;
	FileResult	result;
	Folder	   *home;

	if (outcome != FILE_FAILED)
		return made;
	home = store_reach_home(job->store, &job->where, 0, &result);
	return home != NULL &&
		store_recognize(home, job->where.name, job->expected, false, &found).outcome == FILE_OK;
}

static void
discard_copy(const StoreJob *job)
{
	FileResult	ignored;
	Folder	   *trash = store_reach_trash(job, &job->store->trash, 0, &ignored);

	if (trash != NULL && unlinkat(trash->fd, job->where.name, 0) == 0)
		trash->dirty = true;
}

/* Puts the copy of the open original into the trash, durably.  `made`: see copy_into_trash(). */
static FileResult
copy_durably(const StoreJob *job, const Folder *home, const OpenFile *original, bool *made)
{
	FileStore  *store = job->store;
	FileResult	result;

	/* the process that made the folders may not have fsynced them */
	Folder	   *trash = store_reach_trash(job, &store->trash, DIR_MAKE | DIR_SYNC, &result);

	if (trash == NULL)
		return result;
	store_note_mode(home, trash, &job->where);
	result = copy_into_trash(store, trash, job->where.name, original, made);
	if (result.outcome != FILE_OK)
		return result;
	trash->dirty = true;
	return store_sync_now(store, trash, &store->trash.run, store->trash.base);
}

/* Makes the copy of the file, durably; the original stays. */
static FileResult
try_copy_out(const StoreJob *job, bool *made)
{
	OpenFile	original;
	FileResult	result;
	Folder	   *home = store_reach_home(job->store, &job->where, 0, &result);

	*made = false;
	if (home == NULL)
		return result;
	/* look now, before gigabytes are copied in vain */
	if (faccessat(home->fd, ".", W_OK | X_OK, AT_EACCESS) != 0)
		return fail(errno, "could not rename file");
	result = store_open_to_copy(home, job->where.name, job->expected, &original);
	if (result.outcome != FILE_OK)
		return result;
	result = copy_durably(job, home, &original, made);
	close(original.fd);
	return result;
}

FileResult
store_copy_out(const StoreJob *job)
{
	FileResult	result;
	bool		made;
	int			attempt = 1;

	if (!job->store->base.durable)
		return fail(EXDEV, "could not rename file");
	do
		result = try_copy_out(job, &made);
	while (store_is_stale(job->store, &result, attempt++));
	if (result.outcome != FILE_OK)
		return result;

	result = remove_original(job);
	if (result.outcome != FILE_OK && is_needless(job, result.outcome, made))
		discard_copy(job);
	return result;
}
