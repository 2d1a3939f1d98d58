/*-------------------------------------------------------------------------
 *
 * store/rename.c
 *	  Renames that replace nothing.
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
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/store/private.h"

/*
 * Renames unless `to_name` is taken, in one step.  -1 with errno ENOSYS if
 * that is beyond this file system or kernel.
 */
static int
rename_exclusively(int from, const char *name, int to, const char *to_name)
{
	int			rc = renameat2(from, name, to, to_name, RENAME_NOREPLACE);

	if (rc != 0 && (errno == EINVAL || errno == EOPNOTSUPP))
		errno = ENOSYS;
	return rc;
}

/* Only we create names in the trash, so looking first is good enough. */
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
 * A directory, which cannot be linked, is renamed: that could replace nothing
 * but an empty directory.
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
