/*-------------------------------------------------------------------------
 *
 * guard/hold.h
 *	  Files that are never cleaned.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_HOLD_H
#define AUDIO_CLEANUP_HOLD_H

#include "src/pg/extension.h"
#include "src/settings.h"

/*
 * Returns who holds the file `path` (relative to the upload directory), and
 * why: a text for people in the current memory context; or NULL.  Needs SPI.
 */
extern const char *hold_find(const Extension *extension, const char *path);

/*
 * Holds the file `path` (relative to the upload directory) for `reason` (or
 * NULL).  No run that looks after the commit of this transaction condemns the
 * file, and a run that is under way waits for the commit.  The function waits
 * for a step of a run that is destroying files of a directory.  In a bucket,
 * where such a step waits for a server, a WARNING tells the caller that the
 * file may be among them.  An existing hold gets the new reason.  A NOTICE
 * tells the caller if no file has that name: the server of a bucket is asked
 * before anything is locked.  Needs SPI.
 */
extern void hold_add(const Extension *extension, const Settings *settings, const char *path,
					 const char *reason);

/* Ends the hold on the file `path`.  Returns false if there was no hold.  Needs SPI. */
extern bool hold_remove(const Extension *extension, const char *path);

#endif							/* AUDIO_CLEANUP_HOLD_H */
