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
 * does not know (see strays.h).  Must be done before a run gets its number.
 * HEAL_BACKUPS: marks backups that are needed again, because a row refers to
 * the file or somebody holds the file; the next drain puts these backups back.
 * Must be done before backups are destroyed.  If the sources cannot be read,
 * leaves the backups to the next run; but if the time for reading is up, the
 * ERROR is passed on.  Limits the time for reading, see plan_limit_reading().
 *
 * Records the path of the directory.  WARNINGs tell the findings.  Does nothing
 * in a directory that is not ours.  Returns how many files are put back.  Needs
 * SPI and the run lock.  Any failure is an ERROR.
 */
extern int64 heal_directory(const Context *context, HealWhat what);

#endif							/* AUDIO_CLEANUP_HEAL_H */
