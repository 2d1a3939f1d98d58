/*-------------------------------------------------------------------------
 *
 * guard/location.h
 *	  Is this directory a place where files may be deleted at all?
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_LOCATION_H
#define AUDIO_CLEANUP_LOCATION_H

#include "src/guard/brake.h"
#include "src/settings.h"
#include "src/store/store.h"

/* Where a run has its files. */
typedef struct Place
{
	const char *upload_dir;
	const char *backup_dir;		/* "": the trash is in the upload directory */
	const char *backup_owner;	/* the owner of the folder of backup_dir that
								 * has the trash; NULL: the trash is in the
								 * upload directory */
} Place;

/* Returns the place by these settings, with this owner (or NULL). */
extern Place location_place(const Settings *settings, const char *backup_owner);

/*
 * Returns a brake if `path` (absolute) is missing, is no directory, is the
 * root of the file system, contains PostgreSQL's files or lies among them.
 */
extern Brake *location_check(const char *path);

/* Returns the brake for a directory on which `action` failed with `errnum`. */
extern Brake *location_brake(const char *path, const char *action, int errnum);

/* location_brake() for an action on an open directory, with what its store says of it. */
extern Brake *location_store_brake(FileStore *store, const char *path, const char *action, int errnum);

/*
 * Returns a brake if the open directory `path` cannot be reached, or if what
 * is deleted in it could not be put back, unless the settings keep no backup and
 * a file is deleted only if it is the one that is meant.  With `may_write` that
 * is tried with a file of ours; without, it is taken for granted.
 */
extern Brake *location_reach(FileStore *store, const char *path, const Settings *settings, bool may_write);

/*
 * Returns a brake if there is a backup directory, and the directory is
 * missing, not ours alone, in the upload directory, or where an upload
 * directory must not be either; with `to_write`, if it is not writable.
 */
extern Brake *location_check_backup_dir(const Place *place, bool to_write);

/*
 * Lets the store of a run have its trash where `place` says, after the checks
 * above.  A run without a backup_owner has it in the upload directory.
 */
extern Brake *location_set_backup_dir(FileStore *store, const Place *place);

/*
 * Returns the path of a file that a person has named, relative to the upload
 * directory and in its plainest form; ERROR if the file is not below that
 * directory.
 */
extern const char *location_relative(const Settings *settings, const char *file);

/*
 * Raises an ERROR if the file `own` may not be put back as `as` (both as
 * location_relative() returns them): a role that may restore files must not be
 * able to write code, configuration, or anything that somebody else would take
 * for such.
 */
extern void location_check_restored(const Settings *settings, const char *own, const char *as);

#endif							/* AUDIO_CLEANUP_LOCATION_H */
