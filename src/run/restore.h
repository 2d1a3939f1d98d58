/*-------------------------------------------------------------------------
 *
 * run/restore.h
 *	  Undo: cleanup_restore() and cleanup_purge_backups().
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_RESTORE_H
#define AUDIO_CLEANUP_RESTORE_H

#include "utils/jsonb.h"

/* Restore what a run has cleaned. */
extern Jsonb *restore_run(int64 run_id);

/*
 * Restore the newest backup of a file (as a person names it), under its own
 * name, or another if `as` is not NULL.
 */
extern Jsonb *restore_file(const char *file, const char *as);

/* Destroy what has expired. */
extern Jsonb *restore_purge(void);

#endif							/* AUDIO_CLEANUP_RESTORE_H */
