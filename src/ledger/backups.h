/*-------------------------------------------------------------------------
 *
 * ledger/backups.h
 *	  What is known of the files in the trash: finding them, and marking them
 *	  to be put back.
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
#include "src/settings.h"
#include "src/store/store.h"

typedef struct Backup
{
	int64		file_id;
	int64		run_id;
	TimestampTz expires_at;
} Backup;

/*
 * The directory that is asked about is told by its claim, a UUID; NULL has no
 * backups.  All of these need SPI.
 *
 * The newest backup of a file, recorded as one already or not; or NULL.
 */
extern Backup *backup_find(const Extension *extension, const char *claim, const char *path);

/*
 * Has a later run than `run_id` condemned a file of that name, that is not
 * destroyed yet?
 */
extern bool backup_has_newer(const Extension *extension, const char *claim, int64 run_id,
							 const char *path);

/* Returns whether there is any backup of this directory. */
extern bool backup_exist(const Extension *extension, const char *claim);

typedef void (*BackupSink) (int64 file_id, const char *path, void *arg);

/* Calls sink(file_id, path, arg) for each backup of this directory, by file_id. */
extern void backup_scan(const Extension *extension, const char *claim,
						BackupSink sink, void *arg);

typedef struct BackupFile
{
	int64		file_id;
	const char *path;
} BackupFile;

/*
 * Picks from these backups those of whose name no newer file is in the trash,
 * or on its way into or out of it.  Sets *files to an array of them; returns
 * how many.
 */
extern int	backup_newest(const Extension *extension, const int64 *file_ids, int n,
						  BackupFile **files);

/*
 * Marks these backups to be put back by the next drain, with the reason (a
 * text for people).  Returns how many still were backups.
 */
extern int64 backup_mark_restoring(const Extension *extension, const int64 *file_ids, int n,
								   const char *reason);

/*
 * Settings (Jsonb *) of runs of this directory, one for each place outside of
 * it into which they have put their files.
 */
extern List *backup_places(const Extension *extension, const char *claim);

/* Moves those of these runs that are not known to the front of the array; returns how many. */
extern int	backup_unknown_runs(const Extension *extension, int64 *runs, int n);

/* Moves those that are known, but as runs of another directory, to the front; returns how many. */
extern int	backup_runs_elsewhere(const Extension *extension, const char *claim,
								  int64 *runs, int n);

/* Returns the number of a run to come. */
extern int64 backup_new_run(const Extension *extension);

/* Returns whether a row expects this very file in the trash of that run. */
extern bool backup_is_recorded(const Extension *extension, int64 run_id, const char *path,
							   const FileIdentity *identity);

/*
 * Record files that were found in the trash without a row: a run of which only
 * the number is known, which is not given away again, and a file of that run
 * with its state: restored, restoring (to be put back), or failed.
 */
extern void backup_record_run(const Extension *extension, int64 run_id, const char *upload_dir,
							  const char *claim, Jsonb *recorded);
extern void backup_record_file(const Extension *extension, int64 run_id, const char *path,
							   const FileIdentity *identity, const char *state, const char *error);

#endif							/* AUDIO_CLEANUP_BACKUP_H */
