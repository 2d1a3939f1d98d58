/*-------------------------------------------------------------------------
 *
 * drain/strays.h
 *	  Files in the trash that belong to no row.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_STRAYS_H
#define AUDIO_CLEANUP_STRAYS_H

#include "src/settings.h"

/*
 * Puts back, with the commit, what the trash of the upload directory with this
 * claim (a UUID) has of runs that this database does not know, because it was
 * set back to a time before them.  With `each_file`, also files that a run of
 * that number does not know: the directory was another database's, whose
 * folder in the backup directory was `owner` (or NULL).  Returns how many
 * files.  Needs SPI and the run lock.
 */
extern int64 strays_put_back(const Context *context, const char *claim, const char *owner,
							 bool each_file);

#endif							/* AUDIO_CLEANUP_STRAYS_H */
