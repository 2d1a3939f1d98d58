/*-------------------------------------------------------------------------
 *
 * store/copy_out.c
 *	  A file goes into a trash of another file system: it is copied, then removed.
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

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/store/copy.h"
#include "src/store/private.h"

FileResult
store_open_to_copy(const Folder *dir, const char *name,
				   const FileIdentity *expected, OpenFile *file)
{
	FileResult	result;

	result = store_recognize(dir, name, expected, true, &file->look.identity);
	if (result.outcome != FILE_OK)
		return result;
	file->fd = openat(dir->fd, name, O_RDONLY | COPY_FLAGS);
	if (file->fd < 0)
		return errno == ENOENT ? come_to(FILE_VANISHED) :
			errno == ELOOP ? come_to(FILE_NOT_REGULAR) : fail(errno, "open file");

	if (store_look(file->fd, "", &file->look) != 0)
		result = fail(errno, "stat file");
	else if (!S_ISREG(file->look.mode))
		result = come_to(FILE_NOT_REGULAR);
	else if (!store_is_expected(dir, &file->look.identity, expected, true))
		result = come_to(FILE_REPLACED);
	if (result.outcome != FILE_OK)
		close(file->fd);
	return result;
}

/*
 * Has nobody touched it since it was opened?  Here ctime counts whatever the
 * number of links, and is the only thing that tells a write with the time set
 * back.
 */
static bool
is_untouched(const OpenFile *file)
{
	FileLook	now;

	return store_look(file->fd, "", &now) == 0 &&
		store_same_file(&now.identity, &file->look.identity, false) &&
		now.identity.ctime_ns == file->look.identity.ctime_ns;
}

/* Make an empty file in the workshop; a copy that was cut short makes way. */
static int
create_copy(int workshop)
{
	const int	flags = O_RDWR | O_CREAT | O_EXCL | COPY_FLAGS;
	int			fd = openat(workshop, COPY_NAME, flags, S_IRUSR | S_IWUSR);

	if (fd < 0 && errno == EEXIST && unlinkat(workshop, COPY_NAME, 0) == 0)
		fd = openat(workshop, COPY_NAME, flags, S_IRUSR | S_IWUSR);
	return fd;
}

/* Copy an open file into the empty file `copy`.  FILE_REPLACED: it changed meanwhile. */
FileResult
store_fill_copy(FileStore *store, const OpenFile *original, int copy)
{
	const char *action;
	int			errnum = copy_make(original->fd, &original->look, copy, store->stop, &action);

	if (errnum != EINTR && !is_untouched(original))
		return come_to(FILE_REPLACED);
	return errnum != 0 ? fail_or_no_space(errnum, action) : come_to(FILE_OK);
}

/*
 * Copy a file into the workshop.  FILE_OK: the copy is complete, and open as
 * *copy.  Else nothing of it is left; FILE_REPLACED: the original changed.
 */
FileResult
store_make_copy(FileStore *store, const OpenFile *original, int workshop, int *copy)
{
	FileResult	result;

	*copy = create_copy(workshop);
	if (*copy < 0)
		return fail_or_no_space(errno, "create copy of file");
	result = store_fill_copy(store, original, *copy);
	if (result.outcome != FILE_OK)
	{
		(void) unlinkat(workshop, COPY_NAME, 0);
		close(*copy);
	}
	return result;
}

/* Is it really our copy that has that name? */
static bool
is_in_place(const Folder *dir, const char *name, int copy)
{
	FileLook	named;
	FileLook	opened;

	return store_look(dir->fd, name, &named) == 0 &&
		store_look(copy, "", &opened) == 0 &&
		store_same_file(&named.identity, &opened.identity, false);
}

/*
 * A copy with that name is in the trash: left by a capture that was killed
 * before it could remove the original.  Is it good?  A bad one will be
 * replaced: the original is there.
 */
static FileResult
judge_copy(FileStore *store, const Folder *trash, const char *name,
		   const OpenFile *original, bool *good)
{
	OpenFile	copy;
	FileResult	result = store_open_to_copy(trash, name, &original->look.identity, &copy);
	int			errnum;

	*good = false;
	if (result.outcome == FILE_REPLACED || result.outcome == FILE_NOT_REGULAR)
		return fail(EEXIST, "rename file");
	if (result.outcome == FILE_FAILED)
		return result;
	if (result.outcome == FILE_VANISHED)
		return come_to(FILE_OK);
	errnum = copy_compare(original->fd, copy.fd, original->look.identity.size,
						  store->stop, good);
	close(copy.fd);
	/* what cannot be read is as bad as what differs */
	return errnum == EINTR ? fail(EINTR, "verify copy of file") : come_to(FILE_OK);
}

/* Have the finished copy of an open file in the trash, durably. */
static FileResult
copy_into_trash(FileStore *store, Folder *trash, const char *name,
				const OpenFile *original, bool *made)
{
	FileLook	look;
	bool		found = store_look(trash->fd, name, &look) == 0;
	bool		good = false;
	const char *action;
	FileResult	result = {FILE_OK, 0, NULL};
	int			workshop;
	int			copy;
	int			rc;

	*made = false;
	if (found)
		result = judge_copy(store, trash, name, original, &good);
	if (result.outcome != FILE_OK || good)
		return result;

	workshop = store_descend(store, store->trash.base, store->trash.path, DIR_TRUST, &action);
	if (workshop < 0)
		return fail(errno, action);
	result = store_make_copy(store, original, workshop, &copy);
	if (result.outcome == FILE_OK)
	{
		rc = found ? renameat(workshop, COPY_NAME, trash->fd, name) :
			store_rename_into_trash(workshop, COPY_NAME, trash->fd, name);
		if (rc != 0)
		{
			result = fail_or_no_space(errno, "rename copy of file");
			(void) unlinkat(workshop, COPY_NAME, 0);
		}
		else if (!is_in_place(trash, name, copy))
			result = fail(EBUSY, "rename copy of file");
		else
			*made = true;
		store_mark_dirty(store, trash);
		close(copy);
	}
	close(workshop);
	return result;
}

/*
 * The copy is made: capture the original into the passage, to see once more,
 * and for the last time, that it is what was copied, and unlink it.  On a disk
 * without room for the passage it is unlinked where it is.
 */
static FileResult
remove_original(FileStore *store, int64 run_id, const FilePath *where,
				const FileIdentity *expected)
{
	FileResult	result = {FILE_NO_SPACE, EXDEV, NULL};
	Folder	   *passage = NULL;
	Folder	   *home;
	int64		freed;

	/* a file that cannot be renamed into the trash cannot pass through it */
	if (!store_is_quick(store))
		result = store_capture_by_rename(store, &store->passage, run_id, where, expected, &passage);
	if (result.outcome == FILE_OK && unlinkat(passage->fd, where->name, 0) != 0)
	{
		result = fail(errno, "remove file");
		(void) store_return_stranger(store, run_id, where, passage);
	}
	if (result.outcome != FILE_NO_SPACE)
		return result;
	home = store_reach_home(store, where, 0, &result);
	return home == NULL ? result :
		store_unlink(store, home, where->name, expected, true, &freed);
}

/*
 * The original was not removed: is its copy of no use?  If something else has
 * its name by now, or nothing, then the file is not ours to keep; but a copy
 * that was found, somebody may have made who removed the original since.  If
 * it could not be removed, then it must be seen to be there.
 */
static bool
is_needless(FileStore *store, const FilePath *where, const FileIdentity *expected,
			FileOutcome outcome, bool made)
{
	FileIdentity found;
	FileResult	result;
	Folder	   *home;

	if (outcome != FILE_FAILED)
		return made;
	home = store_reach_home(store, where, 0, &result);
	return home != NULL &&
		store_recognize(home, where->name, expected, false, &found).outcome == FILE_OK;
}

static void
discard_copy(FileStore *store, int64 run_id, const FilePath *where)
{
	FileResult	ignored;
	Folder	   *trash = store_reach_trash(store, &store->trash, run_id, where, 0, &ignored);

	if (trash != NULL && unlinkat(trash->fd, where->name, 0) == 0)
		store_mark_dirty(store, trash);
}

static FileResult
try_copy_out(FileStore *store, int64 run_id, const FilePath *where,
			 const FileIdentity *expected, bool *made)
{
	OpenFile	original;
	FileResult	result;
	Folder	   *trash;
	Folder	   *home = store_reach_home(store, where, 0, &result);
	int			errnum;

	*made = false;
	if (home == NULL)
		return result;
	/* before gigabytes are copied in vain */
	if (faccessat(home->fd, ".", W_OK | X_OK, AT_EACCESS) != 0)
		return fail(errno, "rename file");
	result = store_open_to_copy(home, where->name, expected, &original);
	if (result.outcome != FILE_OK)
		return result;
	/* whoever made the directories may not have fsynced them */
	trash = store_reach_trash(store, &store->trash, run_id, where, DIR_MAKE | DIR_SYNC, &result);
	if (trash != NULL)
		store_note_mode(home, trash, where);
	if (trash != NULL)
		result = copy_into_trash(store, trash, where->name, &original, made);
	close(original.fd);
	if (trash == NULL || result.outcome != FILE_OK)
		return result;
	store_mark_dirty(store, trash);
	errnum = store_sync_now(store, trash, &store->trash.run, store->trash.base);
	return errnum == 0 ? result : fail(errnum, "fsync directory");
}

/* Copy, then remove. */
FileResult
store_copy_out(FileStore *store, int64 run_id, const FilePath *where,
			   const FileIdentity *expected)
{
	FileResult	result;
	bool		made;
	int			attempt = 1;

	if (!store->durable)
		return fail(EXDEV, "rename file");
	do
		result = try_copy_out(store, run_id, where, expected, &made);
	while (store_is_stale(store, &result, attempt++));
	if (result.outcome != FILE_OK)
		return result;

	result = remove_original(store, run_id, where, expected);
	if (result.outcome != FILE_OK &&
		is_needless(store, where, expected, result.outcome, made))
		discard_copy(store, run_id, where);
	return result;
}
