/*-------------------------------------------------------------------------
 *
 * ledger/backups.h
 *	  Rows of the files in the trash.
 *
 * Every function needs SPI and acts as the owner of the extension.  Any
 * failure is an ERROR.  Results are allocated in the current memory context.
 * `claim` names a directory: the UUID of the directory's claim.  If `claim` is
 * NULL, there are no backups.  `path` is relative to that directory.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_BACKUP_H
#define AUDIO_CLEANUP_BACKUP_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

#include "src/pg/extension.h"
#include "src/store/store.h"

typedef struct Backup
{
	int64		file_id;
	const char *path;
	int64		run_id;
	TimestampTz expires_at;
} Backup;

/*
 * Returns the newest backup of the file `path`, or NULL.  The file may be on
 * its way into the trash.
 */
extern Backup *backup_find(const Extension *extension, const char *claim, const char *path);

/*
 * Returns whether a later run than `run_id` has condemned a file of the name
 * `path` that is not destroyed yet.
 */
extern bool backup_has_newer(const Extension *extension, const char *claim, int64 run_id,
							 const char *path);

/* Returns whether the directory has any backup; with a `claim` that is NULL, whether any directory has one. */
extern bool backup_exist(const Extension *extension, const char *claim);

typedef void (*BackupSink) (int64 file_id, const char *path, void *arg);

/*
 * Calls sink(file_id, path, arg) for each backup of the directory, in the
 * order of file_id.  Takes interrupts.
 */
extern void backup_scan(const Extension *extension, const char *claim,
						BackupSink sink, void *arg);

/*
 * Picks, from the `n` backups `file_ids`, each backup whose name no newer file
 * has in the trash, or on its way into the trash or out of the trash.  Sets
 * *files to an array of these backups, and returns their number.
 */
extern int	backup_newest(const Extension *extension, const int64 *file_ids, int n,
						  Backup **files);

/*
 * Marks the `n` backups `file_ids` to be put back by the next drain, with the
 * reason `reason` (a text for people).  Returns how many of the files still
 * were backups.
 */
extern int64 backup_mark_restoring(const Extension *extension, const int64 *file_ids, int n,
								   const char *reason);

/*
 * Returns the settings (Jsonb *) of runs of the directory, one for each place
 * outside of the directory where runs have put files; with `in_use` only for
 * places that have files now, by their rows.
 */
extern List *backup_places(const Extension *extension, const char *claim, bool in_use);

/* Returns whether a run has files in the folder of `owner` in `backup_dir`, by their rows. */
extern bool backup_exist_at(const Extension *extension, const char *backup_dir, const char *owner);

typedef enum BackupRuns
{
	RUNS_UNKNOWN,				/* runs without a row */
	RUNS_ELSEWHERE,				/* runs that have a row, but of another
								 * directory */
	RUNS_SETTLED				/* runs of the directory, of which no file is
								 * or will be in the trash */
} BackupRuns;

/*
 * Returns an array of those of the *n runs `runs` that are such runs, and sets
 * *n to their number.
 */
extern int64 *backup_pick_runs(const Extension *extension, BackupRuns which, const char *claim,
							   const int64 *runs, int *n);

/* Returns the last number that was taken from the sequence of runs, or the first one. */
extern int64 backup_last_run(const Extension *extension);

/* Takes and returns the next number of the sequence of runs. */
extern int64 backup_new_run(const Extension *extension);

/*
 * Returns whether a row expects the file `path` of this `identity` in the
 * trash of the run `run_id`.  Compares size and modification time only,
 * because a copy has another inode.
 */
extern bool backup_is_recorded(const Extension *extension, int64 run_id, const char *path,
							   const FileIdentity *identity);

/*
 * These functions record files that were found in the trash without a row.
 * backup_record_run() inserts the run `run_id`, of which nothing but the
 * number and `recorded` (cleanup_runs.settings) is known, and makes sure that
 * no later run gets that number. backup_record_file() inserts a file of that
 * run with its state: restored, restoring (to be put back), or failed.
 * `error` is a text for people, or NULL.
 */
extern void backup_record_run(const Extension *extension, int64 run_id, const char *upload_dir,
							  const char *claim, Jsonb *recorded);
extern void backup_record_file(const Extension *extension, int64 run_id, const char *path,
							   const FileIdentity *identity, const char *state, const char *error);

#endif							/* AUDIO_CLEANUP_BACKUP_H */
