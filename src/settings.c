/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  The audio_cleanup.* settings.
 *
 * What decides about files is PGC_SUSET: ALTER DATABASE ... SET works, and a
 * user cannot shorten a retention.  What the launcher reads is PGC_SIGHUP.
 *
 * A variable of the postmaster's environment, named as in the HTTP service
 * that this extension replaces, is the built-in default of its setting; any
 * other source of a value goes before it.  An unusable one is ignored with a
 * warning, because the documented default is the careful one.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <limits.h>
#include <sys/stat.h>

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/guc_tables.h"
#include "utils/varlena.h"

#include "src/mail/settings.h"
#include "src/pg/compat.h"
#include "src/settings.h"
#include "src/text/json_build.h"

/* a century; more is a typing error, and keeps the arithmetic in range */
#define MAX_DAYS	36500
#define MAX_HOURS	(MAX_DAYS * 24)

/* longest extension of a file, in bytes */
#define MAX_EXTENSION	32

#define DEFAULT_EXTENSIONS \
	"mp3, wav, wave, m4a, m4b, mp4, aac, ogg, oga, opus, flac, webm, weba, wma, " \
	"amr, aif, aiff, aifc, caf, 3gp, mka, mpga, mp2, spx, au, gsm, dss, ds2"

static const struct config_enum_entry file_age_options[] = {
	{"newest", FILE_AGE_NEWEST, false},
	{"mtime", FILE_AGE_MTIME, false},
	{NULL, 0, false}
};

static char *upload_dir;
static int	orphaned_file_retention_hours;
static int	failed_session_retention_days;
static bool auto_cleanup_on_startup;
static int	cleanup_schedule_hour;
static char *schedule_timezone;
static char *databases;
static int	file_age;
static char *audio_extensions;
static char *derived_suffixes;
static char *derived_prefixes;
static char *derived_folders;
static bool recurse;
static bool remove_empty_dirs;
static int	max_delete_percent;
static int	writer_wait;
static int	report_limit;
static int	batch_size;
static int	backup_retention_days;
static char *backup_dir;
static int	history_retention_days;
static bool search_unregistered;
static int	max_run_minutes;
static int	source_timeout;
static int	files_per_second;
static int	debug_clock_offset;


/* ---------------------------------------------------------------- lists --- */

/*
 * Next entry of a list separated by commas or white space; NULL at its end.
 * *cursor moves on; the entry is palloc'd.
 */
static char *
next_entry(const char **cursor)
{
	const char *p = *cursor;
	const char *start;

	while (*p == ',' || isspace((unsigned char) *p))
		p++;
	start = p;
	while (*p != '\0' && *p != ',' && !isspace((unsigned char) *p))
		p++;
	*cursor = p;
	return p > start ? pnstrdup(start, p - start) : NULL;
}

/* Entries of a list in lower case. */
static char **
split_list(const char *list, int *n)
{
	char	  **entries = palloc(sizeof(char *) * (strlen(list) / 2 + 1));
	char	   *entry;

	*n = 0;
	while ((entry = next_entry(&list)) != NULL)
		entries[(*n)++] = asc_tolower(entry, strlen(entry));
	return entries;
}

/* Likewise, without the dot; "*" has none. */
static char **
split_extensions(const char *list, int *n)
{
	char	  **entries = split_list(list, n);
	int			i;

	for (i = 0; i < *n; i++)
	{
		if (entries[i][0] == '.')
			entries[i]++;
		if (strcmp(entries[i], "*") == 0)
			*n = 0;
	}
	return entries;
}


/* --------------------------------------------------------------- checks --- */

static bool
check_upload_dir(char **newval, void **extra, GucSource source)
{
	if (**newval == '\0')
	{
		GUC_check_errdetail("The upload directory must be named.");
		return false;
	}
	if (strlen(*newval) >= MAXPGPATH)
	{
		GUC_check_errdetail("The path is longer than %d bytes.", MAXPGPATH - 1);
		return false;
	}
	return true;
}

static bool
check_backup_dir(char **newval, void **extra, GucSource source)
{
	if (**newval != '\0' && !is_absolute_path(*newval))
	{
		GUC_check_errdetail("The backup directory must be named by an absolute path.");
		GUC_check_errhint("Leave it empty to keep backups in the upload directory.");
		return false;
	}
	if (strlen(*newval) >= MAXPGPATH)
	{
		GUC_check_errdetail("The path is longer than %d bytes.", MAXPGPATH - 1);
		return false;
	}
	return true;
}

static bool
check_name_parts(char **newval, void **extra, GucSource source)
{
	if (strchr(*newval, '/') != NULL)
	{
		GUC_check_errdetail("It is a list of parts of file names, which hold no \"/\".");
		return false;
	}
	return true;
}

/* Can this be what stands behind the last dot of a name?  It may have its dot. */
static bool
is_extension(const char *entry)
{
	const char *bare = entry[0] == '.' ? entry + 1 : entry;
	const char *p;

	for (p = bare; *p != '\0'; p++)
		if (*p == '.' || *p == '/' || *p == '\\' || *p == '*' || *p == '?' || iscntrl((unsigned char) *p))
			return false;
	return p > bare && p - bare <= MAX_EXTENSION;
}

/* An empty list of extensions would read as "any", which nobody means. */
static bool
check_extensions(char **newval, void **extra, GucSource source)
{
	const char *cursor = *newval;
	int			n = 0;
	char	   *entry;

	for (; (entry = next_entry(&cursor)) != NULL; n++)
	{
		if (strcmp(entry, "*") != 0 && !is_extension(entry))
		{
			GUC_check_errdetail("\"%s\" is not the extension of a file.", entry);
			GUC_check_errhint("Write what stands behind the last dot of a name, as in \"mp3, wav\"; \"*\" means any file.");
			return false;
		}
		pfree(entry);
	}
	if (n == 0)
	{
		GUC_check_errdetail("At least one extension must be named.");
		GUC_check_errhint("\"*\" means any file.");
	}
	return n > 0;
}

static bool
check_timezone_name(char **newval, void **extra, GucSource source)
{
	if (*newval != NULL && **newval != '\0' && pg_tzset(*newval) == NULL)
	{
		GUC_check_errdetail("It is not the name of a time zone.");
		return false;
	}
	return true;
}

/* Names of databases, quoted where they hold a comma or a space. */
static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*newval);
	List	   *names;
	ListCell   *lc;
	bool		valid = SplitGUCList(copy, ',', &names);

	if (!valid)
		GUC_check_errdetail("List syntax is invalid.");
	foreach(lc, names)
		if (strlen(lfirst(lc)) >= NAMEDATALEN)
	{
		GUC_check_errdetail("\"%s\" is too long for the name of a database.", (char *) lfirst(lc));
		valid = false;
	}
	list_free(names);
	pfree(copy);
	return valid;
}


/* --------------------------------------------------------- environment --- */

static const char *
environment_text(const char *name, const char *fallback)
{
	const char *value = getenv(name);

	if (value == NULL || *value == '\0')
		return fallback;
	if (strlen(value) >= MAXPGPATH)
	{
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("ignoring environment variable \"%s\": its value is too long", name)));
		return fallback;
	}
	return value;
}

static int
environment_integer(const char *name, int fallback, int min, int max)
{
	const char *value = getenv(name);
	int			number;

	if (value == NULL || *value == '\0')
		return fallback;
	if (!parse_int(value, &number, 0, NULL) || number < min || number > max)
	{
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("ignoring environment variable \"%s\": \"%s\" is not a number from %d to %d",
						name, value, min, max)));
		return fallback;
	}
	return number;
}

static bool
environment_boolean(const char *name, bool fallback)
{
	const char *value = getenv(name);
	bool		result;

	if (value == NULL || *value == '\0')
		return fallback;
	if (!parse_bool(value, &result))
	{
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("ignoring environment variable \"%s\": \"%s\" is not a boolean",
						name, value)));
		return fallback;
	}
	return result;
}


/* ----------------------------------------------------------- definitions --- */

static void
define_integer(const char *name, const char *description, int *variable,
			   int value, int min, int max, GucContext context, int flags)
{
	DefineCustomIntVariable(name, description, NULL, variable, value, min, max,
							context, flags, NULL, NULL, NULL);
}

static void
define_boolean(const char *name, const char *description, bool *variable,
			   bool value, GucContext context)
{
	DefineCustomBoolVariable(name, description, NULL, variable, value,
							 context, 0, NULL, NULL, NULL);
}

static void
define_text(const char *name, const char *description, char **variable,
			const char *value, GucContext context, GucStringCheckHook check)
{
	DefineCustomStringVariable(name, description, NULL, variable, value,
							   context, 0, check, NULL, NULL);
}

/* What decides which files go. */
static void
define_policy(void)
{
	define_text("audio_cleanup.upload_dir",
				"Directory of the uploaded audio; relative to the data directory.",
				&upload_dir, environment_text("UPLOAD_DIR", "uploads/audio"),
				PGC_SUSET, check_upload_dir);
	define_integer("audio_cleanup.orphaned_file_retention_hours",
				   "Hours that a file without a reference is left alone.",
				   &orphaned_file_retention_hours,
				   environment_integer("ORPHANED_FILE_RETENTION_HOURS", 24, 0, MAX_HOURS),
				   0, MAX_HOURS, PGC_SUSET, 0);
	define_integer("audio_cleanup.failed_session_retention_days",
				   "Days that the audio of a failed session is kept.",
				   &failed_session_retention_days,
				   environment_integer("FAILED_SESSION_RETENTION_DAYS", 7, 0, MAX_DAYS),
				   0, MAX_DAYS, PGC_SUSET, 0);
	DefineCustomEnumVariable("audio_cleanup.file_age",
							 "Which time stamp tells the age of a file.",
							 "newest: of modification, inode change and birth; "
							 "mtime: modification, as ls -l shows it.",
							 &file_age, FILE_AGE_NEWEST, file_age_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	define_text("audio_cleanup.audio_extensions",
				"Extensions of the files that may be cleaned; * means any.",
				&audio_extensions, DEFAULT_EXTENSIONS, PGC_SUSET, check_extensions);
	define_text("audio_cleanup.derived_suffixes",
				"Suffixes of files that live and die with the one they are made from.",
				&derived_suffixes, "_processed", PGC_SUSET, check_name_parts);
	define_text("audio_cleanup.derived_prefixes",
				"Prefixes of files that live and die with the one they are made from.",
				&derived_prefixes, "", PGC_SUSET, check_name_parts);
	define_text("audio_cleanup.derived_folders",
				"Manifests, and ends of the names of folders, whose folders live and die with them.",
				&derived_folders, "", PGC_SUSET, check_name_parts);
	define_boolean("audio_cleanup.recurse",
				   "Clean subdirectories of the upload directory as well.",
				   &recurse, true, PGC_SUSET);
	define_boolean("audio_cleanup.remove_empty_dirs",
				   "Remove folders that a run has emptied.",
				   &remove_empty_dirs, false, PGC_SUSET);
	define_integer("audio_cleanup.max_delete_percent",
				   "A run that would delete a larger share of the files is refused: from 100 files on, or from 10 if nobody attends the run.",
				   &max_delete_percent, 50, 0, 100, PGC_SUSET, 0);
	define_integer("audio_cleanup.writer_wait",
				   "How long a run waits for writers in flight and for another run.",
				   &writer_wait, 10000, 0, INT_MAX / 1000, PGC_SUSET, GUC_UNIT_MS);
}

/* What decides how it goes and what is told of it. */
static void
define_conduct(void)
{
	define_integer("audio_cleanup.report_limit",
				   "Lists in a result are cut at so many entries; counts never are.",
				   &report_limit, 10000, 0, 1000000, PGC_SUSET, 0);
	define_boolean("audio_cleanup.search_unregistered",
				   "Look for names of condemned files in columns that are not registered.",
				   &search_unregistered, true, PGC_SUSET);
	define_integer("audio_cleanup.batch_size",
				   "Files that cleanup_run() condemns in one transaction.",
				   &batch_size, 10000, 1, 1000000, PGC_SUSET, 0);
	define_integer("audio_cleanup.backup_retention_days",
				   "Days that a cleaned file can be restored; 0 keeps no backup.",
				   &backup_retention_days, 0, 0, MAX_DAYS, PGC_SUSET, 0);
	define_text("audio_cleanup.backup_dir",
				"Directory of the backups; empty is a folder in the upload directory.",
				&backup_dir, "", PGC_SUSET, check_backup_dir);
	define_integer("audio_cleanup.history_retention_days",
				   "Days that the history of runs and files is kept; 0 keeps it for ever.",
				   &history_retention_days, 365, 0, MAX_DAYS, PGC_SUSET, 0);
	define_integer("audio_cleanup.max_run_minutes",
				   "A run in batches stops after so many minutes; 0 is no limit.",
				   &max_run_minutes, 0, 0, MAX_HOURS * 60, PGC_SUSET, GUC_UNIT_MIN);
	define_integer("audio_cleanup.source_timeout",
				   "How long a background worker reads the sources at a time; 0 is no limit.",
				   &source_timeout, 1800, 0, INT_MAX / 1000, PGC_SUSET, GUC_UNIT_S);
	define_integer("audio_cleanup.files_per_second",
				   "Files that are deleted in a second at most; 0 is no limit.",
				   &files_per_second, 0, 0, 1000000, PGC_SUSET, 0);
}

/* What the launcher reads. */
static void
define_schedule(void)
{
	define_boolean("audio_cleanup.auto_cleanup_on_startup",
				   "Clean once when the server has started.",
				   &auto_cleanup_on_startup,
				   environment_boolean("AUTO_CLEANUP_ON_STARTUP", false), PGC_SIGHUP);
	define_integer("audio_cleanup.cleanup_schedule_hour",
				   "Hour of the day at which cleaning starts; -1 is never.",
				   &cleanup_schedule_hour,
				   environment_integer("CLEANUP_SCHEDULE_HOUR", 3, -1, 23),
				   -1, 23, PGC_SIGHUP, 0);
	define_text("audio_cleanup.timezone",
				"Time zone of cleanup_schedule_hour; empty is log_timezone.",
				&schedule_timezone, "", PGC_SIGHUP, check_timezone_name);
	define_text("audio_cleanup.databases",
				"Databases in which cleaning is scheduled, separated by commas.",
				&databases, "", PGC_SIGHUP, check_databases);
	define_integer("audio_cleanup.debug_clock_offset",
				   "Seconds by which the schedule's clock is ahead; for tests.",
				   &debug_clock_offset, 0, INT_MIN, INT_MAX, PGC_SIGHUP,
				   GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL);
}

/*
 * Until the library is loaded, a setting of ours is a placeholder that anybody
 * may set.  One that a client sent with its connection has taken the place of
 * what postgresql.conf or ALTER DATABASE says; when the server refuses it on
 * loading, the built-in default would be what is left.
 */
static void
refuse_client_settings(void)
{
	int			n;
	struct config_generic **variables = compat_get_guc_variables(&n);
	int			i;

	for (i = 0; i < n; i++)
		if (pg_strncasecmp(variables[i]->name, "audio_cleanup.", strlen("audio_cleanup.")) == 0 &&
			variables[i]->reset_source == PGC_S_CLIENT &&
			variables[i]->reset_scontext != PGC_SUSET && variables[i]->reset_scontext != PGC_SU_BACKEND)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("parameter \"%s\" cannot be set by the client", variables[i]->name),
					 errhint("Connect without it in the connection options or PGOPTIONS.")));
}

void
settings_define(void)
{
	refuse_client_settings();
	define_policy();
	define_conduct();
	define_schedule();
	mail_settings_define();
	MarkGUCPrefixReserved("audio_cleanup");
}


/* ------------------------------------------------------------- snapshots --- */

/* A rule of an earlier run, or what is in force now. */
static const char *
recorded_text(Jsonb *recorded, const char *key, const char *now)
{
	const char *text = recorded != NULL ? json_get_text(recorded, key) : NULL;

	return text != NULL ? text : now;
}

static void
set_rules(KeyRules *rules, Jsonb *recorded)
{
	rules->extensions = split_extensions(recorded_text(recorded, "audio_extensions", audio_extensions),
										 &rules->n_extensions);
	rules->suffixes = split_list(recorded_text(recorded, "derived_suffixes", derived_suffixes),
								 &rules->n_suffixes);
	rules->prefixes = split_list(recorded_text(recorded, "derived_prefixes", derived_prefixes),
								 &rules->n_prefixes);
	rules->folders = split_list(recorded_text(recorded, "derived_folders", derived_folders),
								&rules->n_folders);
	rules->utf8 = GetDatabaseEncoding() == PG_UTF8;
}

static const char *
absolute_upload_dir(void)
{
	char		path[MAXPGPATH * 2];

	if (is_absolute_path(upload_dir))
		strlcpy(path, upload_dir, sizeof(path));
	else
		snprintf(path, sizeof(path), "%s/%s", DataDir, upload_dir);
	canonicalize_path(path);
	return pstrdup(path);
}

/* Where files are kept for so many days. */
static const char *
used_backup_dir(const char *dir, int days)
{
	char	   *path;

	if (dir == NULL || *dir == '\0' || days == 0)
		return "";
	path = pstrdup(dir);
	canonicalize_path(path);
	return path;
}

Settings *
settings_snapshot(void)
{
	Settings   *settings = palloc0(sizeof(Settings));

	settings->upload_dir = absolute_upload_dir();
	settings->orphaned_file_retention_hours = orphaned_file_retention_hours;
	settings->failed_session_retention_days = failed_session_retention_days;
	settings->file_age = (FileAge) file_age;
	settings->recurse = recurse;
	settings->remove_empty_dirs = remove_empty_dirs;
	settings->max_delete_percent = max_delete_percent;
	settings->writer_wait = writer_wait;
	settings->report_limit = report_limit;
	settings->batch_size = batch_size;
	settings->backup_retention_days = backup_retention_days;
	settings->backup_dir = used_backup_dir(backup_dir, backup_retention_days);
	settings->history_retention_days = history_retention_days;
	settings->search_unregistered = search_unregistered;
	settings->max_run_minutes = max_run_minutes;
	settings->source_timeout = source_timeout;
	settings->files_per_second = files_per_second;
	set_rules(&settings->rules, NULL);
	settings->rules.upload_dir = settings->upload_dir;
	return settings;
}

bool
settings_is_listed(List *names, const char *name)
{
	ListCell   *lc;

	foreach(lc, names)
		if (strcmp(lfirst(lc), name) == 0)
		return true;
	return false;
}

/* A name that comes twice is one. */
static List *
database_names(void)
{
	List	   *names = NIL;
	List	   *all;
	ListCell   *lc;

	/* the check hook has seen that it can be read */
	(void) SplitGUCList(pstrdup(databases), ',', &all);
	foreach(lc, all)
		if (!settings_is_listed(names, lfirst(lc)))
		names = lappend(names, lfirst(lc));
	return names;
}

Schedule *
settings_schedule(void)
{
	Schedule   *schedule = palloc(sizeof(Schedule));
	const char *name = *schedule_timezone ? schedule_timezone : pg_get_timezone_name(log_timezone);

	schedule->hour = cleanup_schedule_hour;
	schedule->zone_name = pstrdup(name);
	schedule->zone = *schedule_timezone ? pg_tzset(schedule_timezone) : log_timezone;
	schedule->on_startup = auto_cleanup_on_startup;
	schedule->clock_offset = debug_clock_offset;
	schedule->databases = database_names();
	return schedule;
}

TimestampTz
settings_now(const Schedule *schedule)
{
	return GetCurrentTimestamp() + (TimestampTz) schedule->clock_offset * USECS_PER_SEC;
}

static bool
has_folder(const char *dir, const char *owner)
{
	struct stat st;

	return *dir != '\0' && stat(psprintf("%s/%s", dir, owner), &st) == 0 && S_ISDIR(st.st_mode);
}

/*
 * The backup directory of a run was called `recorded`.  Where it is not, and
 * the present one has the folder of the owner, it was moved there.
 */
static const char *
find_backup_dir(const char *recorded, const char *owner, int days)
{
	const char *then = used_backup_dir(recorded, days);
	const char *now = used_backup_dir(backup_dir, days);

	if (owner == NULL || *then == '\0' || has_folder(then, owner) || !has_folder(now, owner))
		return then;
	return now;
}

Settings *
settings_of_run(const char *run_upload_dir, Jsonb *recorded)
{
	Settings   *settings = settings_snapshot();

	settings->upload_dir = pstrdup(run_upload_dir);
	settings->failed_session_retention_days =
		json_get_integer(recorded, "failed_session_retention_days", failed_session_retention_days);
	settings->backup_retention_days =
		json_get_integer(recorded, "backup_retention_days", backup_retention_days);
	settings->backup_owner = json_get_text(recorded, SETTINGS_BACKUP_OWNER);
	settings->backup_dir = find_backup_dir(json_get_text(recorded, "backup_dir"), settings->backup_owner,
										   settings->backup_retention_days);
	settings->remove_empty_dirs = json_get_boolean(recorded, "remove_empty_dirs", false);
	set_rules(&settings->rules, recorded);
	settings->rules.upload_dir = settings->upload_dir;
	return settings;
}

Jsonb *
settings_to_jsonb(void)
{
	JsonBuilder json;

	json_begin(&json);
	json_add_integer(&json, "failed_session_retention_days", failed_session_retention_days);
	json_add_integer(&json, "orphaned_file_retention_hours", orphaned_file_retention_hours);
	json_add_text(&json, "upload_dir", upload_dir);
	json_add_boolean(&json, "auto_cleanup_on_startup", auto_cleanup_on_startup);
	json_add_integer(&json, "cleanup_schedule_hour", cleanup_schedule_hour);

	json_add_text(&json, "upload_dir_absolute", absolute_upload_dir());
	json_add_text(&json, "timezone", *schedule_timezone ? schedule_timezone :
				  pg_get_timezone_name(log_timezone));
	json_add_text(&json, "databases", databases);
	json_add_text(&json, "file_age", file_age == FILE_AGE_MTIME ? "mtime" : "newest");
	json_add_text(&json, "audio_extensions", audio_extensions);
	json_add_text(&json, "derived_suffixes", derived_suffixes);
	json_add_text(&json, "derived_prefixes", derived_prefixes);
	json_add_text(&json, "derived_folders", derived_folders);
	json_add_boolean(&json, "recurse", recurse);
	json_add_boolean(&json, "remove_empty_dirs", remove_empty_dirs);
	json_add_integer(&json, "max_delete_percent", max_delete_percent);
	json_add_integer(&json, "writer_wait_ms", writer_wait);
	json_add_integer(&json, "report_limit", report_limit);
	json_add_boolean(&json, "search_unregistered", search_unregistered);
	json_add_integer(&json, "batch_size", batch_size);
	json_add_integer(&json, "backup_retention_days", backup_retention_days);
	json_add_text(&json, "backup_dir", backup_dir);
	json_add_integer(&json, "history_retention_days", history_retention_days);
	json_add_integer(&json, "max_run_minutes", max_run_minutes);
	json_add_integer(&json, "source_timeout_s", source_timeout);
	json_add_integer(&json, "files_per_second", files_per_second);
	mail_settings_add_to(&json);
	return json_end(&json);
}
