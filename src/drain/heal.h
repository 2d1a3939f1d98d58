/*-------------------------------------------------------------------------
 *
 * drain/heal.h
 *	  Before a run: puts back files that should not be in the trash.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_HEAL_H
#define AUDIO_CLEANUP_HEAL_H

#include "src/settings.h"

/* What is healed. */
typedef enum HealWhat
{
	HEAL_STRAYS = 1,			/* files without a row; reads no source */
	HEAL_BACKUPS = 2,			/* backups that are needed again; reads the
								 * sources */
	HEAL_ALL = 3
} HealWhat;

/*
 * HEAL_STRAYS: puts back, with the commit, files of runs that this database
 * does not know (see strays_put_back()).  Must be done before a run gets its number.
 * HEAL_BACKUPS: marks backups that are needed again, because a row refers to
 * the file or somebody holds the file; the next drain puts these backups back.
 * Must be done before backups are destroyed.  If the sources cannot be read,
 * leaves the backups to the next run; but if the time for reading is up, the
 * ERROR is passed on.  Limits the time for reading, see plan_limit_reading().
 *
 * Records the path of the directory.  WARNINGs tell the findings.  Does nothing
 * in a directory that is not ours.  Returns how many files are put back; the
 * commit starts a worker if there are any.  Needs SPI and the run lock.  Any
 * failure is an ERROR.
 */
extern int64 heal_directory(const Context *context, HealWhat what);

/*
 * Puts back, with the commit, the files of the trash whose runs this database
 * does not know, because the database was set back to a time before those
 * runs.  `claim` is the claim of the upload directory, a UUID.  With
 * `each_file`, also puts back files that the run of that number does not know,
 * because the directory belonged to another database.  `owner` is the name of
 * that database's folder in the backup directory, or NULL.  Returns how many
 * files are put back.  Needs SPI and the run lock.  With `each_file` any
 * failure is an ERROR.  Without, what cannot be read in the trash is a
 * WARNING: no file of that run is put back, and the run stays unknown.
 */
extern int64 strays_put_back(const Context *context, const char *claim, const char *owner,
							 bool each_file);

#endif							/* AUDIO_CLEANUP_HEAL_H */
