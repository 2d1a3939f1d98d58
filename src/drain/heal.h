/*-------------------------------------------------------------------------
 *
 * drain/heal.h
 *	  Putting back what should not be in the trash.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_HEAL_H
#define AUDIO_CLEANUP_HEAL_H

#include "src/pg/extension.h"
#include "src/settings.h"

/*
 * Before a run gets its number, and before backups are destroyed: put back,
 * with the commit, what the trash has of runs that this database does not
 * know, because it was set back to a time before them; and mark backups that
 * are needed again, since a row refers to them or somebody holds them: the
 * next drain puts those back.  The directory is noted to be where it is now.  WARNINGs say so.  Does nothing in a directory that is not ours, and
 * leaves it to whoever comes next where the sources cannot be read.  Returns
 * how many files.  Needs SPI and the run lock.
 */
extern int64 heal_directory(const Extension *extension, const Settings *settings);

/*
 * The first half of it, for the directory of settings->claim; with `each_file`, also files that a run of that number
 * does not know: the directory was another database's, whose folder in the
 * backup directory was `owner` (or NULL).
 */
extern int64 heal_strays(const Extension *extension, const Settings *settings, const char *owner,
						 bool each_file);

#endif							/* AUDIO_CLEANUP_HEAL_H */
