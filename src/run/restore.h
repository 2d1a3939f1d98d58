/*-------------------------------------------------------------------------
 *
 * run/restore.h
 *	  cleanup_restore(): puts backups back.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_RESTORE_H
#define AUDIO_CLEANUP_RESTORE_H

#include "utils/jsonb.h"

/*
 * restore_run() puts back the files that the run `run_id` has cleaned.
 * restore_file() puts back the newest backup of `file` (a name as a person
 * writes it), under its own name, or under `as` unless `as` is NULL.  Each
 * function returns the report, in the current memory context.  Each function
 * raises an ERROR if there is no such run or backup, or if the directory is
 * not ours.  SPI must not be connected.
 */
extern Jsonb *restore_run(int64 run_id);
extern Jsonb *restore_file(const char *file, const char *as);

#endif							/* AUDIO_CLEANUP_RESTORE_H */
