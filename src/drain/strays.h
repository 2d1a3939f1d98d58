/*-------------------------------------------------------------------------
 *
 * drain/strays.h
 *	  Puts files back that are in the trash without a row.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_STRAYS_H
#define AUDIO_CLEANUP_STRAYS_H

#include "src/settings.h"

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

#endif							/* AUDIO_CLEANUP_STRAYS_H */
