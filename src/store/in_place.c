/*-------------------------------------------------------------------------
 *
 * store/in_place.c
 *	  Looks at a file or folder at its own place, and removes the file or
 *	  folder.
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

/* Returns the open folder of `path`, and sets *where; else NULL, and sets *result. */
static Folder *
reach_path(FileStore *store, const char *path, int flags, FilePath *where, FileResult *result)
{
	*result = store_split_path(path, where);
	return result->outcome == FILE_OK ? store_reach_home(store, where, flags, result) : NULL;
}

FileResult
local_identify(FileStore *store, const char *path, bool durably, FileIdentity *identity)
{
	FilePath	where;
	FileResult	result;
	Folder	   *home = reach_path(store, path, durably ? DIR_SYNC : 0, &where, &result);

	if (home == NULL)
		return result;
	home->dirty |= durably;
	return store_recognize(home, where.name, NULL, false, identity);
}

/* Looks at the rights in the folder. */
static void
learn_access(Folder *folder)
{
	FileLook	look;

	folder->access_known = true;
	folder->access_errno = faccessat(folder->fd, ".", W_OK | X_OK, AT_EACCESS) == 0 ? 0 : errno;
	folder->is_sticky = store_look_at_file(folder->fd, "", &look) == 0 &&
		(look.mode & S_ISVTX) != 0 && look.owner != geteuid();
}

int
local_check_folder(FileStore *store, const char *path)
{
	FilePath	where;
	FileResult	result;
	Folder	   *folder = reach_path(store, path, 0, &where, &result);
	FileLook	look;

	if (folder == NULL)
		return result.errnum;
	if (!folder->access_known)
		learn_access(folder);

	/*
	 * from a sticky folder only the owner of a file, or of the folder,
	 * removes the file
	 */
	if (folder->access_errno == 0 && folder->is_sticky &&
		store_look_at_file(folder->fd, where.name, &look) == 0 && look.owner != geteuid())
		return EPERM;
	return folder->access_errno;
}

/*
 * Unlinks a file that was not captured.  Only this function, and the end of
 * remove_original(), do so.  There is no system call that unlinks an inode, so
 * if another file takes the name between two system calls, that file is
 * removed instead.  On a disk without room for a directory entry nothing
 * better is possible.
 */
FileResult
local_destroy_in_place(FileStore *store, const char *path,
					   const FileIdentity *expected, int64 *freed)
{
	FilePath	where;
	FileResult	result;
	Folder	   *home = reach_path(store, path, 0, &where, &result);

	*freed = 0;
	return home == NULL ? result : store_unlink(home, where.name, expected, true, freed);
}

/*
 * Removes an empty folder.  Returns false if the folder stays: the folder is
 * not empty, is hidden, is on another volume, or is no folder.
 */
static bool
remove_folder(FileStore *store, const char *path)
{
	FilePath	where;
	FileLook	look;
	FileResult	ignored;
	Folder	   *parent = reach_path(store, path, 0, &where, &ignored);

	if (parent == NULL || where.name[0] == '.' ||
		store_look(parent->fd, where.name, &look) != 0 || !S_ISDIR(look.mode) ||
		!store_same_volume(&look.volume, &store->root.volume) ||
		unlinkat(parent->fd, where.name, AT_REMOVEDIR) != 0)
		return false;
	parent->dirty = true;
	return true;
}

int
local_remove_folders(FileStore *store, const char *path)
{
	char		folder[STORE_PATH_MAX];
	char	   *slash;
	int			n = 0;

	if (strlcpy(folder, path, sizeof(folder)) >= sizeof(folder))
		return 0;
	while (remove_folder(store, folder))
	{
		n++;
		slash = strrchr(folder, '/');
		if (slash == NULL)
			break;
		*slash = '\0';
	}
	return n;
}
