/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The settings, and a snapshot of them that nobody writes to.
 *
 * A run reads its settings (audio_cleanup.*) once.  A SET or a reload during the run does not
 * change the snapshot.
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
#include "src/pg/session.h"

typedef struct KeyRules KeyRules;

typedef enum FileAge
{
	FILE_AGE_NEWEST,			/* the newest of mtime, ctime and birth time */
	FILE_AGE_MTIME
} FileAge;

typedef struct Settings
{
	const char *upload_dir;		/* absolute path, or the name of a bucket */
	int			orphaned_file_retention_hours;
	int			failed_session_retention_days;
	int			file_age;		/* a FileAge */
	KeyRules   *rules;			/* rules of matching: see names/rules.h */
	bool		recurse;
	bool		remove_empty_dirs;
	int			max_delete_percent;
	int			writer_wait;	/* milliseconds */
	int			report_limit;	/* entries of a list in a result */
	int			batch_size;		/* files that one transaction records at most */
	int			backup_retention_days;
	const char *backup_dir;		/* absolute path; "": the trash is in the
								 * upload directory, or no backups are kept */
	int			history_retention_days; /* 0: for ever */
	bool		search_unregistered;
	int			max_run_minutes;	/* limit for a run in batches; 0: no limit */
	int			source_timeout; /* seconds that a background worker reads the
								 * sources at a time; 0: no limit */
	int			files_per_second;	/* files deleted in a second; 0: no limit */
	int			abort_uploads_after_days;	/* -1: never */
} Settings;

/*
 * The settings of a run, and the extension.  Most functions about files need
 * the settings and the extension.
 */
typedef struct Context
{
	const Settings *settings;
	const Extension *extension;
} Context;

/*
 * Defines all settings. _PG_init() calls this once.  Raises an ERROR if a
 * client has set one of the settings when it connected.
 */
extern void settings_define(void);

/*
 * Finds a setting that the server has for this session and that cannot be
 * used, so that its default is in force: as session_find_unusable() does, and
 * among the environment variables of the older service, where nothing else
 * gives the setting a value.  Returns its name, or NULL if there is none.
 * Needs SPI.
 */
extern const char *settings_find_unusable(void);

/*
 * Returns the settings in force now, allocated in the current memory context.
 * Does not need SPI.
 */
extern const Settings *settings_snapshot(void);

/* The settings of the built-in schedule. */
typedef struct Schedule
{
	int			hour;			/* -1: never */
	pg_tz	   *zone;
	const char *zone_name;
	bool		on_startup;		/* clean once when the server has started */
	int			clock_offset;	/* seconds that the clock is ahead; in tests
								 * only */
	List	   *databases;		/* of char * */
} Schedule;

/*
 * Returns the settings of the schedule in force now, allocated in the current
 * memory context.  Does not need SPI.
 */
extern Schedule *settings_schedule(void);

/*
 * Returns the current time by the clock of `schedule`, which tests may set
 * ahead.  Never raises an ERROR.
 */
extern TimestampTz settings_now(const Schedule *schedule);

/* Returns whether `name` is in `names`, a List of char *.  Never raises an ERROR. */
extern bool settings_is_listed(List *names, const char *name);

/*
 * Returns the settings of an earlier run, allocated in the current memory
 * context.  The directories and the rules of matching come from `upload_dir`
 * (absolute) and `recorded` (cleanup_runs.settings).  All other settings have
 * the values in force now.  Does not need SPI.
 */
extern const Settings *settings_of_run(const char *upload_dir, Jsonb *recorded);

/*
 * The member that is added to the recorded settings of a run: the UUID that
 * names the run's folder in the backup directory.
 */
#define SETTINGS_BACKUP_OWNER	"backup_owner"

/*
 * Returns that member of `recorded`, palloc'd, or NULL if the run had its
 * trash in the upload directory.  Does not need SPI.
 */
extern const char *settings_backup_owner(Jsonb *recorded);

/*
 * Returns `text`, or if it is not valid in the encoding of the database a copy in
 * the current memory context, with \xNN for each byte that is not ASCII.  Does
 * not need SPI.
 */
extern const char *settings_showable(const char *text);

/*
 * Returns all settings as cleanup_config() shows them, in the current memory
 * context.  Does not need SPI.
 */
extern Jsonb *settings_to_jsonb(void);

#endif							/* AUDIO_CLEANUP_SETTINGS_H */
