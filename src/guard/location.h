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

/*
 * Returns a brake if `path` (absolute) is missing, is no directory, is the
 * root of the file system, contains PostgreSQL's files or lies among them.
 */
extern Brake *location_check(const char *path);

/* The brake for a directory on which `action` failed with `errnum`. */
extern Brake *location_brake(const char *path, const char *action, int errnum);

/*
 * The same for the backup directory, if there is one: a brake if it is
 * missing, not ours alone, in the upload directory, or where an upload
 * directory must not be either; with `to_write`, if it is not writable.
 */
extern Brake *location_check_backup_dir(const Settings *settings, bool to_write);

/*
 * Let the store of a run have its trash where these settings say, after the
 * checks above.  A run without a backup_owner has it in the upload directory.
 */
extern Brake *location_set_backup_dir(FileStore *store, const Settings *settings);

/*
 * A file as a person names it, as a path relative to the upload directory in
 * its plainest form; ERROR if it is not below that.
 */
extern const char *location_relative(const Settings *settings, const char *file);

/*
 * May the file `own` be put back as `as` (both as location_relative() returns
 * them)?  ERROR if not: whoever may restore files must not be able to write
 * code, configuration, or anything that somebody else would take for such.
 */
extern void location_check_restored(const Settings *settings, const char *own, const char *as);

#endif							/* AUDIO_CLEANUP_LOCATION_H */
