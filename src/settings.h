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
	const char *backup_owner;	/* whose folder in it, see claim_directory()
								 * in run.c; NULL: not known (yet) */
	int			history_retention_days; /* 0: for ever */
	bool		search_unregistered;
	int			max_run_minutes;	/* of a run in batches; 0: no limit */
	int			source_timeout; /* seconds that a background worker reads
								 * sources at a time; 0: no limit */
	int			files_per_second;	/* deleted; 0: no limit */
	const char *claim;			/* UUID of the claim of the upload directory:
								 * a fact about it, as the next; NULL: none,
								 * or not asked for */
	int64		grace_from_ns;	/* no file counts as older than that: a fact
								 * about the directory, see claim.h; 0: none */
} Settings;

/* Define the settings.  To be called once, from _PG_init(). */
extern void settings_define(void);

/* The settings in force now, allocated in the current memory context. */
extern Settings *settings_snapshot(void);

/* What the launcher goes by. */
typedef struct Schedule
{
	int			hour;			/* -1: never */
	pg_tz	   *zone;
	const char *zone_name;
	bool		on_startup;		/* clean when the server has started */
	int			clock_offset;	/* seconds; in tests only */
	List	   *databases;		/* of char * */
} Schedule;

/* The settings of the schedule in force now, likewise. */
extern Schedule *settings_schedule(void);

/* Returns the time by the clock of `schedule`, which tests may set off. */
extern TimestampTz settings_now(const Schedule *schedule);

/* Is the database in the list? */
extern bool settings_is_listed(List *databases, const char *name);

/*
 * The settings that an earlier run was made with: those in force now, but
 * for the directories and the rules of matching, which come from `recorded`
 * (cleanup_runs.settings) and `upload_dir` (absolute).
 */
extern Settings *settings_of_run(const char *upload_dir, Jsonb *recorded);

/* Added to what is recorded of a run: its backup_owner. */
#define SETTINGS_BACKUP_OWNER	"backup_owner"

/* All of the settings as cleanup_config() shows them. */
extern Jsonb *settings_to_jsonb(void);

#endif							/* AUDIO_CLEANUP_SETTINGS_H */
