/*-------------------------------------------------------------------------
 *
 * store/capture.c
 *	  A file goes into the trash by a rename, and is judged there.
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
#include <limits.h>
#include <unistd.h>

#include "src/store/private.h"

/* how often a stranger's other names are tried */
#define MAX_SUFFIXES	16

/* how often a vanished directory is looked for anew */
#define MAX_ATTEMPTS	3

/* Into the trash. */
static FileResult
fail_to_rename(int errnum)
{
	FileResult	result = fail_or_no_space(errnum, "rename file");

	if (errnum == EXDEV)
		result.outcome = FILE_NO_SPACE;
	return result;
}



/*
 * "<name>.audio_cleanup-<run>[-<attempt>]", the name cut where the whole would
 * become too long: something a person who searches for the file will find.
 */
static void
make_spare_name(const char *name, int64 run_id, int attempt, char *spare)
{
	char		suffix[64];
	int			room;

	if (attempt == 1)
		snprintf(suffix, sizeof(suffix), "%s-" INT64_FORMAT,
				 STORE_PRIVATE_DIR, run_id);
	else
		snprintf(suffix, sizeof(suffix), "%s-" INT64_FORMAT "-%d",
				 STORE_PRIVATE_DIR, run_id, attempt);
	room = NAME_MAX - (int) strlen(suffix);
	strlcpy(spare, name, room + 1);
	strlcat(spare, suffix, NAME_MAX + 1);
}

/*
 * What was captured is somebody else's file: back with it, under another name
 * if its own was taken meanwhile, for it may be wanted and must not end in
 * the trash.  Its directory may have been removed, being empty.
 */
FileResult
store_return_stranger(FileStore *store, int64 run_id, const FilePath *where,
					  Folder *trash)
{
	char		spare[NAME_MAX + 1];
	FileResult	result = fail(EEXIST, "put back file");
	int			attempt;

	strlcpy(spare, where->name, sizeof(spare));
	for (attempt = 1; attempt <= MAX_SUFFIXES; attempt++)
	{
		Folder	   *home = store_reach_home(store, where, DIR_MAKE, &result);

		if (home == NULL)
			return result.outcome == FILE_FAILED ? result :
				fail(ENOTDIR, "put back file");
		if (store_rename_out_of_trash(trash->fd, where->name, home->fd, spare) == 0)
		{
			store_mark_dirty(store, home);
			store_mark_dirty(store, trash);
			return come_to(FILE_REPLACED);
		}
		result = fail(errno, "put back file");
		if (errno == EEXIST)
			make_spare_name(where->name, run_id, attempt, spare);
		else if (errno == ENOENT)
			store_leave(store, &store->home);
		else
			break;
	}
	return result.errnum == EXDEV ? store_copy_stranger_back(store, where, trash) : result;
}

static FileResult
try_capture(FileStore *store, Trash *into, int64 run_id, const FilePath *where,
			const FileIdentity *expected, Folder **trash)
{
	FileIdentity found;
	FileResult	result;
	Folder	   *home = store_reach_home(store, where, 0, &result);

	if (home == NULL)
		return result;
	result = store_recognize(home, where->name, expected, true, &found);
	if (result.outcome != FILE_OK)
		return result;
	*trash = store_reach_trash(store, into, run_id, where, DIR_MAKE, &result);
	if (*trash == NULL)
		return result;
	store_note_mode(home, *trash, where);
	if (store_rename_into_trash(home->fd, where->name, (*trash)->fd, where->name) != 0)
		return fail_to_rename(errno);
	store_mark_dirty(store, home);
	store_mark_dirty(store, *trash);
	return come_to(FILE_OK);
}

/*
 * ENOENT, from a call that was to make what is missing, comes from a held
 * directory that was removed: the tidying of another run is enough.
 */
bool
store_is_stale(FileStore *store, const FileResult *result, int attempt)
{
	if (result->outcome != FILE_FAILED || result->errnum != ENOENT ||
		attempt >= MAX_ATTEMPTS)
		return false;
	store_leave_all(store);
	return true;
}

/* Is what we hold now the file that was condemned?  In doubt it is not. */
static FileResult
verify_capture(FileStore *store, int64 run_id, const FilePath *where,
			   const FileIdentity *expected, Folder *trash)
{
	FileIdentity found;
	FileResult	result;
	FileResult	returned;

	result = store_recognize(trash, where->name, expected, false, &found);
	if (result.outcome == FILE_OK || result.outcome == FILE_VANISHED)
		return result;

	returned = store_return_stranger(store, run_id, where, trash);
	if (returned.outcome == FILE_REPLACED && result.outcome == FILE_FAILED)
		return result;
	return returned;
}

/* By a rename, into a trash on the same file system. */
FileResult
store_capture_by_rename(FileStore *store, Trash *into, int64 run_id, const FilePath *where,
						const FileIdentity *expected, Folder **trash)
{
	FileResult	result;
	int			attempt = 1;

	do
		result = try_capture(store, into, run_id, where, expected, trash);
	while (store_is_stale(store, &result, attempt++));

	if (result.outcome != FILE_OK)
		return result;
	return verify_capture(store, run_id, where, expected, *trash);
}

FileResult
store_capture(FileStore *store, int64 run_id, const char *path,
			  const FileIdentity *expected)
{
	FileIdentity exactly = *expected;
	FilePath	where;
	Folder	   *trash = NULL;
	int			errnum = store_split_path(path, &where);

	if (errnum != 0)
		return fail(errnum, "accept path");
	exactly.captured = false;
	if (!store_is_quick(store))
		return store_copy_out(store, run_id, &where, &exactly);
	return store_capture_by_rename(store, &store->trash, run_id, &where, &exactly, &trash);
}

FileResult
store_capture_by_copy(FileStore *store, int64 run_id, const char *path,
					  const FileIdentity *expected)
{
	FileIdentity exactly = *expected;
	FilePath	where;
	FileResult	result;
	int			errnum = store_split_path(path, &where);

	if (errnum != 0)
		return fail(errnum, "accept path");
	exactly.captured = false;
	store->trash.copies = true;
	result = store_copy_out(store, run_id, &where, &exactly);
	store->trash.copies = false;
	return result;
}
