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
#include "nodes/pg_list.h"
#include "pgtime.h"
#include "utils/jsonb.h"

#include "src/pg/extension.h"

typedef struct KeyRules KeyRules;

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
	KeyRules   *rules;			/* see names/rules.h */
	bool		recurse;
	bool		remove_empty_dirs;
	int			max_delete_percent;
	int			writer_wait;	/* milliseconds */
	int			report_limit;	/* entries of a list */
	int			batch_size;		/* files */
	int			backup_retention_days;
	const char *backup_dir;		/* absolute; "": in the upload directory, as
								 * ever where no backups are kept */
	int			history_retention_days; /* 0: for ever */
	bool		search_unregistered;
	int			max_run_minutes;	/* of a run in batches; 0: no limit */
	int			source_timeout; /* seconds that a background worker reads
								 * sources at a time; 0: no limit */
	int			files_per_second;	/* deleted; 0: no limit */
	int			abort_uploads_after_days;	/* -1: never */
} Settings;

/* The settings of a run. */
typedef struct Context
{
	const Settings *settings;
	const Extension *extension;
} Context;

/* Defines the settings; called once, from _PG_init(). */
extern void settings_define(void);

/* Returns the settings in force now, allocated in the current memory context. */
extern const Settings *settings_snapshot(void);

/* The settings of the built-in schedule. */
typedef struct Schedule
{
	int			hour;			/* -1: never */
	pg_tz	   *zone;
	const char *zone_name;
	bool		on_startup;		/* clean when the server has started */
	int			clock_offset;	/* seconds; in tests only */
	List	   *databases;		/* of char * */
} Schedule;

/* Returns the settings of the schedule in force now, allocated in the current memory context. */
extern Schedule *settings_schedule(void);

/* Returns the time by the clock of `schedule`, which tests may set off. */
extern TimestampTz settings_now(const Schedule *schedule);

/* Returns whether `name` is among the names (char *). */
extern bool settings_is_listed(List *names, const char *name);

/*
 * Returns the settings of an earlier run: those in force now, but for the
 * directories and the rules of matching, which come from `recorded`
 * (cleanup_runs.settings) and `upload_dir` (absolute).
 */
extern const Settings *settings_of_run(const char *upload_dir, Jsonb *recorded);

/*
 * Added to what is recorded of a run: whose folder of the backup directory it
 * used.
 */
#define SETTINGS_BACKUP_OWNER	"backup_owner"

/* Returns that owner; NULL if the run had its trash in the upload directory. */
extern const char *settings_backup_owner(Jsonb *recorded);

/* Returns all settings as cleanup_config() shows them. */
extern Jsonb *settings_to_jsonb(void);

#endif							/* AUDIO_CLEANUP_SETTINGS_H */
