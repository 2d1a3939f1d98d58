/*-------------------------------------------------------------------------
 *
 * run/restore.h
 *	  Undo: cleanup_restore().
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_RESTORE_H
#define AUDIO_CLEANUP_RESTORE_H

#include "utils/jsonb.h"

/*
 * Puts back what a run has cleaned, or the newest backup of a file (as a
 * person names it), under its own name, or under `as` if that is not NULL.
 * Return the report.  ERROR if there is no such run or backup, or its
 * directory is not ours.
 */
extern Jsonb *restore_run(int64 run_id);
extern Jsonb *restore_file(const char *file, const char *as);

#endif							/* AUDIO_CLEANUP_RESTORE_H */
