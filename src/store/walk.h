/*-------------------------------------------------------------------------
 *
 * store/walk.h
 *	  A bounded walk of the upload directory by descriptors.
 *
 * A walk yields the relative path of every regular file, in no order to rely
 * on.  The walk passes over names that begin with a dot, files and folders
 * alike, because such names are private to their maker; and over the folders
 * of a NAS, a synchroniser or an operating system (WALK_FOREIGN).  A walk
 * never follows a symlink, and never crosses a mount point.  A walk opens no
 * file and, if readdir() tells the type, calls stat() for no file.  A walk
 * takes the memory of one path, of a portion of names, and of one open
 * directory for each level.
 *
 * A directory that cannot be read is a failure, with two exceptions: a
 * directory on another device or mount, and "lost+found" at the top, which
 * belongs to fsck and exists if the upload directory is a disk of its own.
 *
 * The walk of a bucket reads its list page by page: see bucket/walk.c.
 *
 * A walk is an iterator and not a callback, so that the caller may be
 * interrupted between two files and still close the walk.  A walk knows no
 * policy and no SQL.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_TREE_WALK_H
#define AUDIO_CLEANUP_TREE_WALK_H

#include "src/store/store.h"

/*
 * deepest nesting of directories that is walked; a deeper directory is a
 * failure
 */
#define WALK_MAX_DEPTH		64

typedef struct TreeWalk TreeWalk;

typedef enum WalkStep
{
	WALK_FILE,					/* `path` is the next regular file */
	WALK_CLAIMED,				/* `path` is a folder below the upload
								 * directory that has, or seems to have, a
								 * claim of its own */
	WALK_END,					/* all was seen */
	WALK_FAILED					/* a directory could not be read: nothing may
								 * be concluded from the files seen so far */
} WalkStep;

/*
 * Begins a walk of an open store; without `recurse`, of the upload directory
 * itself and no folder below it.  With a `run_id` other than 0, begins a walk
 * of the trash of that run, which yields the paths of the captured files, or
 * nothing if the run has no trash.  The walk is allocated in the current
 * memory context.  May ask the server of a bucket for first pages.  Never
 * fails: walk_next() reports a failure.
 */
extern TreeWalk *walk_begin(FileStore *store, bool recurse, int64 run_id);

/*
 * Moves on to the next file.  With WALK_FILE and WALK_CLAIMED, sets *path to
 * the relative path of the file or folder; the text is in the walk, and is
 * valid until the next call.  The files of a claimed folder are returned, too,
 * and may come before the folder.
 */
extern WalkStep walk_next(TreeWalk *walk, const char **path);

/*
 * Returns, after WALK_FAILED, the directory that could not be read: its
 * relative path, or "." for the upload directory itself.  Sets *errnum to the
 * errno, and *failure to a static text ("could not open directory", "could not
 * read directory", ...: see FileResult).
 */
extern const char *walk_failure(TreeWalk *walk, int *errnum, const char **failure);

/*
 * Returns whether the walk has come by a symlink or a mount: a file may have
 * other paths than the one that the walk has told.
 */
extern bool walk_has_links(const TreeWalk *walk);

/* Why a walk does not come to a file. */
typedef enum WalkReason
{
	WALK_REACHED,				/* the walk comes to the file, or would if the
								 * file existed */
	WALK_HIDDEN,				/* the name of the file, or of a folder on the
								 * way, begins with a dot */
	WALK_FOREIGN,				/* a folder on the way belongs to a NAS, a
								 * synchroniser or an operating system */
	WALK_NOT_RECURSIVE,			/* the file is in a folder, and folders are
								 * not looked into */
	WALK_TOO_DEEP,				/* beyond WALK_MAX_DEPTH */
	WALK_SYMLINK,				/* the file, or a folder on the way, is a
								 * symlink */
	WALK_MOUNT,					/* another file system, or another part of
								 * this file system, is mounted on the file or
								 * a folder on the way */
	WALK_SUBVOLUME,				/* a folder on the way is a subvolume of its
								 * own */
	WALK_NOT_A_FILE,			/* a directory, FIFO, socket or device */
	WALK_NOT_PLAIN				/* a key of a bucket that could be no path of
								 * a directory: "a//b", "../a", "a/" */
} WalkReason;

/*
 * Returns why a walk with this `recurse` does not come to the file `path`, or
 * WALK_REACHED.  Sets *len to the length of the part of `path` that is to
 * blame, 0 for WALK_REACHED.  Opens folders and looks, and changes nothing.  A
 * name that cannot be looked at counts as reached, because the walk itself
 * will fail at that name.  In a bucket the path itself tells: no server is
 * asked.
 */
extern WalkReason walk_why_not(FileStore *store, const char *path, bool recurse, size_t *len);

/*
 * Returns the reason as a static text for people, which follows "it is not
 * looked into: "; NULL for WALK_REACHED.
 */
extern const char *walk_reason_text(WalkReason reason);

/* Closes and frees the walk, at any time.  NULL is allowed. */
extern void walk_end(TreeWalk *walk);

#endif							/* AUDIO_CLEANUP_TREE_WALK_H */
