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

typedef struct Hold
{
	const char *held_by;
	const char *reason;			/* or NULL */
} Hold;

/* Returns the hold on a file (path relative to the upload directory), or NULL.  Needs SPI. */
extern Hold *hold_find(const Extension *extension, const char *path);

/*
 * Holds a file: no run that looks after the commit of this transaction
 * condemns the file, and a run that is under way waits for the commit.  A hold
 * that is there already gets the new reason.  A NOTICE says if no file has
 * that name.  Needs SPI.
 */
extern void hold_add(const Extension *extension, const Settings *settings, const char *path,
					 const char *reason);

/* Returns false if there was no hold. */
extern bool hold_remove(const Extension *extension, const char *path);

#endif							/* AUDIO_CLEANUP_HOLD_H */
