/*-------------------------------------------------------------------------
 *
 * store/rename.c
 *	  Renames that replace nothing.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/store/private.h"

/*
 * Renames in one step, unless `to_name` is taken.  Returns 0, or -1 with
 * errno: ENOSYS if this file system or kernel has no such rename.
 */
static int
rename_exclusively(int from, const char *name, int to, const char *to_name)
{
	int			rc = renameat2(from, name, to, to_name, RENAME_NOREPLACE);

	if (rc != 0 && (errno == EINVAL || errno == EOPNOTSUPP))
		errno = ENOSYS;
	return rc;
}

/* Only we make names in the trash, so a look before the rename is enough. */
int
store_rename_into_trash(int from, const char *from_name, int trash, const char *name)
{
	FileLook	look;
	int			rc = rename_exclusively(from, from_name, trash, name);

	if (rc == 0 || errno != ENOSYS)
		return rc;
	if (store_look(trash, name, &look) == 0)
		errno = EEXIST;
	else if (errno == ENOENT)
		return renameat(from, from_name, trash, name);
	return -1;
}

/*
 * A folder, which cannot be linked, is renamed: the rename could replace only
 * an empty folder.
 */
int
store_rename_out_of_trash(int trash, const char *name, int to, const char *to_name)
{
	FileLook	look;
	int			rc = rename_exclusively(trash, name, to, to_name);

	if (rc == 0 || errno != ENOSYS)
		return rc;
	if (store_look(trash, name, &look) != 0)
		return -1;
	if (S_ISDIR(look.mode))
		return renameat(trash, name, to, to_name);
	if (linkat(trash, name, to, to_name, 0) != 0)
		return -1;
	return unlinkat(trash, name, 0);
}
