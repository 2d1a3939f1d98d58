/*-------------------------------------------------------------------------
 *
 * guard/location.h
 *	  Checks whether a directory is a place where files may be deleted at all.
 *
 * None of these functions needs SPI.  Brakes and paths are allocated in the
 * current memory context; paths are absolute, unless a comment says
 * otherwise.
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

/* The directories of a run. */
typedef struct Place
{
	const char *upload_dir;
	const char *backup_dir;		/* "": the trash is in the upload directory */
	const char *backup_owner;	/* UUID that names the folder of backup_dir
								 * which has the trash; NULL: the trash is in
								 * the upload directory */
} Place;

/*
 * Returns the place that `settings` and `backup_owner` (or NULL) describe.
 * The place points into `settings`.
 */
extern Place location_place(const Settings *settings, const char *backup_owner);

/*
 * Returns the place of a run with the settings `recorded`
 * (cleanup_runs.settings) in the directory `upload_dir`, in the current memory
 * context.
 */
extern Place location_of_run(const char *upload_dir, Jsonb *recorded);

/*
 * Returns a brake if the directory `path` is missing, is no directory, is the
 * root of the file system, contains PostgreSQL's files or lies among these
 * files; else NULL.
 */
extern Brake *location_check(const char *path);

/* Opens the directory `path`, and sets *store.  Returns NULL; or a brake, and *store is NULL. */
extern Brake *location_open(const char *path, FileStore **store);

/*
 * Returns the brake for a failure with the errno `errnum`.  `failure` is the
 * message as it stands before the path, such as "could not open upload
 * directory".
 */
extern Brake *location_brake(const char *path, const char *failure, int errnum);

/*
 * Returns the brake of location_brake() for the directory that is open as
 * `store`, with the error text that the store has.  Takes interrupts.
 */
extern Brake *location_store_brake(FileStore *store, const char *path, const char *failure, int errnum);

/*
 * Returns a brake if the directory `path`, open as `store`, cannot be reached;
 * else NULL.  May wait for the server of a bucket.
 */
extern Brake *location_reach(FileStore *store, const char *path);

/*
 * Returns a brake if a file that is deleted in the upload directory, which was
 * reached, could not be put back; else NULL.  There is no brake if the
 * settings keep no backup, and the server of the bucket can delete a file on
 * the condition that the file has not changed.  With `may_write`, the
 * condition is tried with an object of ours; without, the server is trusted.
 * May wait for the server.
 */
extern Brake *location_check_undo(FileStore *store, const Settings *settings, bool may_write);

/*
 * Returns a brake if the backup directory of `place` is missing, belongs to
 * another user, is writable by other users, lies in the upload directory, or
 * is a place that location_check() refuses.  With `to_write`, returns a brake
 * also if the directory is not writable.  Returns NULL if all is well, or if
 * `place` has no backup directory.
 */
extern Brake *location_check_backup_dir(const Place *place, bool to_write);

/*
 * Returns a brake if the backup directory of `place` lacks the folder in which
 * the backups of the owner lie: another disk is mounted there.  The caller
 * knows that there are backups.  Returns NULL if `place` has no backup directory.
 */
extern Brake *location_check_backups(const Place *place);

/*
 * Makes `store` use the trash that `place` names, after
 * location_check_backup_dir().  Without a backup_owner the trash stays in the
 * upload directory.  Returns NULL, or a brake.
 */
extern Brake *location_set_backup_dir(FileStore *store, const Place *place);

/*
 * Returns the path of the file `file` that a person has named, relative to
 * the upload directory and in its plainest form.  Raises an ERROR if the file
 * is not below the upload directory.
 */
extern const char *location_relative(const Settings *settings, const char *file);

/*
 * Raises an ERROR if the file `own` may not be put back as `as` (both as
 * location_relative() returns them).  A role that may restore files must not
 * be able to write code, configuration, or any other file that a program
 * would trust.
 */
extern void location_check_restored(const Settings *settings, const char *own, const char *as);

#endif							/* AUDIO_CLEANUP_LOCATION_H */
