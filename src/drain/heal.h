/*-------------------------------------------------------------------------
 *
 * drain/heal.h
 *	  Before a run: puts back what should not be in the trash.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_HEAL_H
#define AUDIO_CLEANUP_HEAL_H

#include "src/settings.h"

/*
 * Before a run gets its number, and before backups are destroyed: puts back,
 * with the commit, what the trash has of runs that this database does not
 * know (see strays.h), and marks backups that are needed again, since a row
 * refers to them or somebody holds them: the next drain puts those back.
 * Notes where the directory is now.  WARNINGs say what was found.  Does
 * nothing in a directory that is not ours; leaves the backups to the next run
 * where the sources cannot be read.  Returns how many files are put back.
 * Needs SPI and the run lock.
 */
extern int64 heal_directory(const Context *context);

#endif							/* AUDIO_CLEANUP_HEAL_H */
