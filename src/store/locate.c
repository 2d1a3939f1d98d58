/*-------------------------------------------------------------------------
 *
 * store/locate.c
 *	  Where a file is now.
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

#include <sys/stat.h>

#include "src/store/private.h"

/*
 * Whoever renamed the file may have died before he could fsync the directory
 * it is in, or those on the way that he made.  So all that an answer relies
 * on is marked here; and an absence is an answer too.  What is found in the
 * trash is not looked for at its place: no file system that journals a rename
 * keeps one half of it, and an fsync is by far the dearest call here.
 */
static FileResult
search(FileStore *store, Folder *dir, const FilePath *where,
	   const FileIdentity *expected)
{
	FileIdentity found;

	store_mark_dirty(store, dir);
	return store_recognize(dir, where->name, expected, false, &found);
}

static FileResult
search_trash(FileStore *store, Trash *trash, int64 run_id, const FilePath *where,
			 const FileIdentity *expected)
{
	FileResult	result;
	Folder	   *dir = store_reach_trash(store, trash, run_id, where, DIR_SYNC, &result);

	return dir == NULL ? result : search(store, dir, where, expected);
}

static FileResult
search_home(FileStore *store, const FilePath *where,
			const FileIdentity *expected)
{
	FileResult	result;
	Folder	   *dir = store_reach_home(store, where, DIR_SYNC, &result);

	return dir == NULL ? result : search(store, dir, where, expected);
}

/*
 * Another file is in the trash and none at its place: a capture died between
 * the rename and the verification.  Finish its work, for the file is wanted.
 * A directory, though, is probably ours, made for what was captured below it.
 * FILE_OCCUPIED: all of that is still to be done.
 */
static FileResult
rescue_stranger(FileStore *store, Trash *from, int64 run_id, const FilePath *where, bool mend)
{
	FileLook	look;
	FileResult	result;
	Folder	   *trash = store_reach_trash(store, from, run_id, where, 0, &result);

	if (trash == NULL)
		return result;
	if (store_look(trash->fd, where->name, &look) != 0)
		return fail(errno, "stat file");
	if (S_ISDIR(look.mode))
		return come_to(FILE_VANISHED);
	return mend ? store_return_stranger(store, run_id, where, trash) : come_to(FILE_OCCUPIED);
}

/* What is not in the trash is here, or is not. */
static FilePlace
tell_place(FileOutcome home)
{
	switch (home)
	{
		case FILE_OK:
			return PLACE_UPLOAD;
		case FILE_VANISHED:
			return PLACE_NOWHERE;
		case FILE_REPLACED:
		case FILE_NOT_REGULAR:
			return PLACE_OTHER;
		case FILE_OCCUPIED:
			return PLACE_UNFINISHED;
		default:
			return PLACE_UNKNOWN;
	}
}

/* For a trash on the same file system: the file is in one place only. */
static FilePlace
locate(FileStore *store, Trash *in, int64 run_id, const FilePath *where,
	   const FileIdentity *expected, bool mend, int *errnum)
{
	FileResult	trash;
	FileResult	home;

	trash = search_trash(store, in, run_id, where, expected);
	*errnum = trash.errnum;
	if (trash.outcome == FILE_OK)
		return PLACE_TRASH;
	if (trash.errnum != 0)
		return PLACE_UNKNOWN;

	home = search_home(store, where, expected);
	if (trash.outcome != FILE_VANISHED && home.outcome == FILE_VANISHED)
		home = rescue_stranger(store, in, run_id, where, mend);
	*errnum = home.errnum;
	return tell_place(home.outcome);
}

/*
 * A capture was killed in the passage, which holds the original.  With the
 * copy in the trash only its unlink is missing; without, it goes back.
 */
static FilePlace
leave_passage(FileStore *store, int64 run_id, const FilePath *where,
			  const FileIdentity *expected, bool copied, int *errnum)
{
	FileResult	result;
	Folder	   *passage;
	int64		freed;

	if (!copied)
		result = store_try_put_back(store, &store->passage, run_id, where, where, expected);
	else if ((passage = store_reach_trash(store, &store->passage, run_id, where, 0, &result)) != NULL)
		result = store_unlink(store, passage, where->name, expected, false, &freed);

	if (result.outcome == FILE_OK)
		return copied ? PLACE_TRASH : PLACE_UPLOAD;
	*errnum = result.errnum != 0 ? result.errnum : EEXIST;
	return PLACE_UNKNOWN;
}

/*
 * The original, wherever it is, comes before its copy; but a copy without it
 * is the file, whatever has its name by now.
 */
static FilePlace
locate_copied(FileStore *store, int64 run_id, const FilePath *where,
			  const FileIdentity *expected, bool mend, int *errnum)
{
	FileResult	copy = search_trash(store, &store->trash, run_id, where, expected);
	bool		copied = copy.outcome == FILE_OK;
	FilePlace	original;

	*errnum = copy.errnum;
	if (copy.errnum != 0)
		return PLACE_UNKNOWN;
	original = locate(store, &store->passage, run_id, where, expected, mend, errnum);
	if (original == PLACE_TRASH && !mend)
		return PLACE_UNFINISHED;
	if (original == PLACE_TRASH)
		return leave_passage(store, run_id, where, expected, copied, errnum);
	if (copied && (original == PLACE_NOWHERE || original == PLACE_OTHER))
		return PLACE_TRASH;
	return original;
}

FilePlace
store_locate(FileStore *store, int64 run_id, const char *path,
			 const FileIdentity *expected, bool mend, int *errnum)
{
	FilePath	where;

	*errnum = store_split_path(path, &where);
	if (*errnum != 0)
		return PLACE_UNKNOWN;
	if (!store_is_quick(store))
		return locate_copied(store, run_id, &where, expected, mend, errnum);
	return locate(store, &store->trash, run_id, &where, expected, mend, errnum);
}
