/*-------------------------------------------------------------------------
 *
 * store/locate.c
 *	  Finds out where a file is now.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <sys/stat.h>

#include "src/store/private.h"

/*
 * Looks for the file in the trash `in`, or with NULL for `in` at its own
 * place.
 *
 * The process that renamed the file may have died before it could fsync the
 * folder of the file, or the folders on the way.  So the folders are marked
 * here for an fsync, also if the file is not found: "not found" is an answer,
 * too.  A file that is found in the trash is not looked for at its place,
 * because a file system that journals a rename never keeps only one half of
 * the rename, and an fsync is by far the most expensive call here.
 */
static FileResult
search(const StoreJob *job, Trash *in)
{
	FileIdentity found;
	FileResult	result;
	Folder	   *folder = in != NULL ? store_reach_trash(job, in, DIR_SYNC, &result) :
	store_reach_home(job->store, &job->where, DIR_SYNC, &result);

	if (folder == NULL)
		return result;
	folder->dirty = true;
	return store_recognize(folder, job->where.name, job->expected, false, &found);
}

/*
 * Deals with another file in the trash, when no file is at its place: a
 * capture died between the rename and the verification.  With `mend` the file
 * is put back, because somebody may need the file; without, the outcome is
 * FILE_OCCUPIED.  A folder is no such file: this extension has probably made
 * the folder for files that were captured below.
 */
static FileResult
rescue_stranger(const StoreJob *job, Trash *from, bool mend)
{
	FileLook	look;
	FileResult	result;
	Folder	   *trash = store_reach_trash(job, from, 0, &result);

	if (trash == NULL)
		return result;
	if (store_look(trash->fd, job->where.name, &look) != 0)
		return fail(errno, "could not stat file");
	if (S_ISDIR(look.mode))
		return come_to(FILE_VANISHED);
	return mend ? store_return_stranger(job, trash) : come_to(FILE_OCCUPIED);
}

/*
 * Locates a file whose trash is on the file system of the upload directory, so
 * that the file is in one place only.  `in` is the trash.
 */
static FilePlace
locate(const StoreJob *job, Trash *in, bool mend, int *errnum)
{
	static const FilePlace places[] = {
		[FILE_OK] = PLACE_UPLOAD,
		[FILE_VANISHED] = PLACE_NOWHERE,
		[FILE_NOT_REGULAR] = PLACE_OTHER,
		[FILE_REPLACED] = PLACE_OTHER,
		[FILE_OCCUPIED] = PLACE_UNFINISHED,
		[FILE_NO_SPACE] = PLACE_UNKNOWN,
		[FILE_FAILED] = PLACE_UNKNOWN,
	};
	FileResult	trash = search(job, in);
	FileResult	home;

	*errnum = trash.errnum;
	if (trash.outcome == FILE_OK)
		return PLACE_TRASH;
	if (trash.errnum != 0)
		return PLACE_UNKNOWN;

	home = search(job, NULL);
	if (trash.outcome != FILE_VANISHED && home.outcome == FILE_VANISHED)
		home = rescue_stranger(job, in, mend);
	*errnum = home.errnum;
	return places[home.outcome];
}

/*
 * Ends a capture that was killed when the original was in the passage.  If the
 * copy is in the trash (`copied`), the original is unlinked; if not, the
 * original is put back.
 */
static FilePlace
leave_passage(const StoreJob *job, bool copied, int *errnum)
{
	Trash	   *passage = &job->store->passage;
	FileResult	result;
	Folder	   *folder;
	int64		freed;

	if (!copied)
		result = store_put_back_from(job, passage, &job->where);
	else if ((folder = store_reach_trash(job, passage, 0, &result)) != NULL)
		result = store_unlink(folder, job->where.name, job->expected, false, &freed);

	if (result.outcome == FILE_OK)
		return copied ? PLACE_TRASH : PLACE_UPLOAD;
	*errnum = result.errnum != 0 ? result.errnum : EEXIST;
	return PLACE_UNKNOWN;
}

/*
 * Locates a file whose captures are copies.  The original counts, at its place
 * or in the passage.  Without an original the copy counts, whatever file has
 * the name by now.
 */
static FilePlace
locate_copied(const StoreJob *job, bool mend, int *errnum)
{
	FileResult	copy = search(job, &job->store->trash);
	bool		copied = copy.outcome == FILE_OK;
	FilePlace	original;

	*errnum = copy.errnum;
	if (copy.errnum != 0)
		return PLACE_UNKNOWN;
	original = locate(job, &job->store->passage, mend, errnum);
	if (original == PLACE_TRASH)
		return mend ? leave_passage(job, copied, errnum) : PLACE_UNFINISHED;
	if (copied && (original == PLACE_NOWHERE || original == PLACE_OTHER))
		return PLACE_TRASH;
	return original;
}

FilePlace
local_locate(FileStore *store, int64 run_id, const char *path,
			 const FileIdentity *expected, bool mend, int *errnum)
{
	StoreJob	job;

	*errnum = store_begin(&job, store, run_id, path, expected).errnum;
	if (*errnum != 0)
		return PLACE_UNKNOWN;
	return local_is_quick(store) ? locate(&job, &store->trash, mend, errnum) :
		locate_copied(&job, mend, errnum);
}
