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

/*
 * Puts back, with the commit, files of runs that this database does not know
 * (see strays.h).  Marks backups that are needed again, because a row refers
 * to the file or somebody holds the file; the next drain puts these backups
 * back.  Must be called before a run gets its number, and before backups are
 * destroyed.  Records the path of the directory.  WARNINGs tell the findings.
 * Does nothing in a directory that is not ours.  If the sources cannot be
 * read, leaves the backups to the next run.  Returns how many files are put
 * back.  Needs SPI and the run lock.
 */
extern int64 heal_directory(const Context *context);

#endif							/* AUDIO_CLEANUP_HEAL_H */
