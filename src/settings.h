/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The audio_cleanup.* settings, and a snapshot of them for one run.
 *
 * A run reads its settings once: a SET or a reload in the middle of it
 * changes nothing any more.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SETTINGS_H
#define AUDIO_CLEANUP_SETTINGS_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#include "src/file_key.h"

typedef enum FileAge
{
	FILE_AGE_NEWEST,			/* the newest of mtime, ctime and birth time */
	FILE_AGE_MTIME
} FileAge;

typedef struct Settings
{
	const char *upload_dir;		/* absolute */
	int			orphaned_file_retention_hours;
	int			failed_session_retention_days;
	FileAge		file_age;
	KeyRules	rules;
	bool		recurse;
	int			max_delete_percent;
	int			writer_wait;	/* milliseconds */
	int			report_limit;	/* entries of a list */
	int			batch_size;		/* files */
	int			backup_retention_days;
	bool		search_unregistered;
	int64		grace_from_ns;	/* no file counts as older than that: a fact
								 * about the directory, see claim.h; 0: none */
} Settings;

/* Define the settings.  To be called once, from _PG_init(). */
extern void settings_define(void);

/* The settings in force now, allocated in the current memory context. */
extern Settings *settings_snapshot(void);

/*
 * The settings that an earlier run was made with: those in force now, but
 * for the directory and the rules of matching, which come from `recorded`
 * (cleanup_runs.settings) and `upload_dir` (absolute).
 */
extern Settings *settings_of_run(const char *upload_dir, Jsonb *recorded);

/* All of the settings as cleanup_config() shows them. */
extern Jsonb *settings_to_jsonb(void);

#endif							/* AUDIO_CLEANUP_SETTINGS_H */
