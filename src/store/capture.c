/*-------------------------------------------------------------------------
 *
 * store/capture.c
 *	  A file goes into the trash by a rename, and is judged there.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "src/store/private.h"

/* names that are tried for a stranger */
#define MAX_SUFFIXES	16

/* attempts for a call whose folder was removed: see store_is_stale() */
#define MAX_ATTEMPTS	3

/*
 * Makes the name "<name>.audio_cleanup-<run>[-<attempt>]" for a stranger: a
 * person who searches for the file finds the name.  The name of the file is
 * cut if the new name would be too long.
 */
static void
make_spare_name(const StoreJob *job, int attempt, char *spare)
{
	char		suffix[64];

	snprintf(suffix, sizeof(suffix), "%s-" INT64_FORMAT, STORE_PRIVATE_DIR, job->run_id);
	if (attempt > 1)
		snprintf(suffix + strlen(suffix), sizeof(suffix) - strlen(suffix), "-%d", attempt);
	strlcpy(spare, job->where.name, NAME_MAX + 1 - strlen(suffix));
	strlcat(spare, suffix, NAME_MAX + 1);
}

/*
 * Puts the stranger back, because somebody may need it.  The folder of the
 * stranger is made again if somebody has removed the empty folder.
 */
FileResult
store_return_stranger(const StoreJob *job, Folder *trash)
{
	FileStore  *store = job->store;
	char		spare[NAME_MAX + 1];
	FileResult	result = fail(EEXIST, "could not put back file");

	strlcpy(spare, job->where.name, sizeof(spare));
	for (int attempt = 1; attempt <= MAX_SUFFIXES; attempt++)
	{
		Folder	   *home = store_reach_home(store, &job->where, DIR_MAKE, &result);

		if (home == NULL)
			return result.outcome == FILE_FAILED ? result : fail(ENOTDIR, "could not put back file");
		if (store_rename_out_of_trash(trash->fd, job->where.name, home->fd, spare) == 0)
		{
			home->dirty = trash->dirty = true;
			return come_to(FILE_REPLACED);
		}
		result = fail(errno, "could not put back file");
		if (errno == EEXIST)
			make_spare_name(job, attempt, spare);
		else if (errno == ENOENT)
			store_leave(store, &store->home);
		else
			break;
	}
	return result.errnum == EXDEV ? store_copy_stranger_back(job, trash) : result;
}

/* Does the work of store_capture_by_rename() up to the rename. */
static FileResult
try_capture(const StoreJob *job, Trash *into, Folder **trash)
{
	const char *name = job->where.name;
	FileIdentity found;
	FileResult	result;
	Folder	   *home = store_reach_home(job->store, &job->where, 0, &result);

	if (home == NULL)
		return result;
	result = store_recognize(home, name, job->expected, true, &found);
	if (result.outcome != FILE_OK)
		return result;
	*trash = store_reach_trash(job, into, DIR_MAKE, &result);
	if (*trash == NULL)
		return result;
	store_note_mode(home, *trash, &job->where);
	if (store_rename_into_trash(home->fd, name, (*trash)->fd, name) != 0)
	{
		result = fail_or_no_space(errno, "could not rename file");
		if (result.errnum == EXDEV)
			result.outcome = FILE_NO_SPACE;
		return result;
	}
	home->dirty = (*trash)->dirty = true;
	return come_to(FILE_OK);
}

/*
 * A call that makes missing folders fails with ENOENT only if a folder that was
 * kept open has been removed, by the tidying of another run for example.
 */
bool
store_is_stale(FileStore *store, const FileResult *result, int attempt)
{
	if (result->outcome != FILE_FAILED || result->errnum != ENOENT || attempt >= MAX_ATTEMPTS)
		return false;
	store_leave_all(store);
	return true;
}

/*
 * Renames the file, and then verifies the renamed file.  A file that cannot be
 * recognized after the rename is put back as a stranger.
 */
FileResult
store_capture_by_rename(const StoreJob *job, Trash *into, Folder **trash)
{
	FileIdentity found;
	FileResult	result;
	FileResult	returned;
	int			attempt = 1;

	do
		result = try_capture(job, into, trash);
	while (store_is_stale(job->store, &result, attempt++));
	if (result.outcome != FILE_OK)
		return result;

	result = store_recognize(*trash, job->where.name, job->expected, false, &found);
	if (result.outcome == FILE_OK || result.outcome == FILE_VANISHED)
		return result;
	returned = store_return_stranger(job, *trash);
	if (returned.outcome == FILE_REPLACED && result.outcome == FILE_FAILED)
		return result;
	return returned;
}

/* Does the work of local_capture(), by a copy if `by_copy`. */
static FileResult
capture(FileStore *store, int64 run_id, const char *path, const FileIdentity *expected, bool by_copy)
{
	FileIdentity exactly = *expected;
	StoreJob	job;
	FileResult	result = store_begin(&job, store, run_id, path, &exactly);
	Folder	   *trash;

	exactly.captured = false;
	if (result.outcome != FILE_OK)
		return result;
	if (!by_copy)
		return store_capture_by_rename(&job, &store->trash, &trash);
	store->trash.copies = true;
	result = store_copy_out(&job);
	store->trash.copies = false;
	return result;
}

FileResult
local_capture(FileStore *store, int64 run_id, const char *path, const FileIdentity *expected)
{
	return capture(store, run_id, path, expected, !local_is_quick(store));
}

/*
 * Captures a file, or finds where the file is.  A rename needs no search
 * before, because the rename fails if an earlier capture was cut short.  A
 * copy needs a search.
 */
static void
capture_or_locate(FileStore *store, int64 run_id, StoreFile *file, bool for_good)
{
	bool		by_copy = !local_is_quick(store);
	int			errnum;

	file->destroyed = false;
	file->place = PLACE_UPLOAD;
	if (!by_copy)
	{
		file->result = capture(store, run_id, file->path, file->expected, false);
		if (file->result.outcome == FILE_OK)
			return;
		by_copy = file->result.outcome == FILE_NO_SPACE && file->result.errnum == EXDEV && !for_good;
	}
	file->place = local_locate(store, run_id, file->path, file->expected, true, &errnum);
	if (file->place == PLACE_UNKNOWN)
		file->result = fail(errnum, "could not find it");
	else if (file->place == PLACE_UPLOAD && by_copy)
		file->result = capture(store, run_id, file->path, file->expected, true);
}

/* Captures one file after the other: a rename is quick, and a copy may take minutes. */
void
local_capture_many(FileStore *store, int64 run_id, StoreFile *files, int n, bool for_good)
{
	for (int i = 0; i < n; i++)
		capture_or_locate(store, run_id, &files[i], for_good);
}
