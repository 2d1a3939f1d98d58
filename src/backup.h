/*-------------------------------------------------------------------------
 *
 * backup.h
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

#include "src/extension.h"
#include "src/file_ops.h"

typedef struct Backup
{
	int64		file_id;
	int64		run_id;
	TimestampTz expires_at;
} Backup;

/*
 * The newest backup of a file, recorded as one already or not; or NULL.  Needs
 * SPI, as all of these do.
 */
extern Backup *backup_find(const Extension *extension, const char *upload_dir, const char *path);

/* Is there any backup of this directory? */
extern bool backup_exist(const Extension *extension, const char *upload_dir);

typedef void (*BackupSink) (int64 file_id, const char *path, void *arg);

/* Of each file the newest of these, by file_id. */
extern void backup_scan(const Extension *extension, const char *upload_dir,
						BackupSink sink, void *arg);

/*
 * Mark those of them to be put back by the next drain, with the reason for it
 * (a text for people).  Returns how many still were backups.
 */
extern int64 backup_mark_restoring(const Extension *extension, const int64 *file_ids, int n,
								   const char *reason);

/* The places in which runs of this directory have put their files. */
typedef struct BackupPlace
{
	const char *upload_dir;
	Jsonb	   *settings;		/* of one of those runs */
} BackupPlace;

extern List *backup_places(const Extension *extension, const char *upload_dir);

/* Which of these runs are not known?  Sorts them to the front; returns how many. */
extern int	backup_unknown_runs(const Extension *extension, int64 *runs, int n);

/* Is there a row for this file of that run? */
extern bool backup_is_recorded(const Extension *extension, int64 run_id, const char *path);

/*
 * Record what was found in the trash without a row: a run of which only its
 * number is known, which is not given away again, and a file of it, restored
 * or still a backup.
 */
extern void backup_record_run(const Extension *extension, int64 run_id, const char *upload_dir,
							  Jsonb *settings);
extern void backup_record_file(const Extension *extension, int64 run_id, const char *path,
							   const FileIdentity *identity, bool restored, const char *error);

#endif							/* AUDIO_CLEANUP_BACKUP_H */
