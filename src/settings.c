/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  The audio_cleanup.* settings.
 *
 * A setting that decides about files is PGC_SUSET: ALTER DATABASE ... SET
 * works, and an ordinary user cannot shorten a retention.  A setting that the
 * launcher reads is PGC_SIGHUP.
 *
 * A variable of the postmaster's environment, named as in the HTTP service
 * that this extension replaces, is the built-in default of its setting.  Any
 * other source of a value has priority.  A variable with an unusable value is
 * ignored with a warning, because the documented default is the careful one.
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

#include "src/names/rules.h"
#include "src/mail/message.h"
#include "src/mail/settings.h"
#include "src/pg/compat.h"
#include "src/pg/session.h"
#include "src/settings.h"
#include "src/store/bucket/options.h"
#include "src/store/store.h"
#include "src/text/json_build.h"
#include "src/text/list.h"

/* a century; a larger value is a typing error, and could overflow the arithmetic */
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

static const struct config_enum_entry mail_on_options[] = {
	{"never", MAIL_ON_NEVER, false},
	{"problems", MAIL_ON_PROBLEMS, false},
	{"changes", MAIL_ON_CHANGES, false},
	{"always", MAIL_ON_ALWAYS, false},
	{NULL, 0, false}
};

/*
 * The server writes numbers and booleans straight into `current` and
 * `current_schedule`, and settings of mail into `mail_settings`.  A setting
 * that must be converted first has a variable of its own.
 */
static Settings current;
static Schedule current_schedule;
static char *upload_dir;
static char *audio_extensions;
static char *derived_suffixes;
static char *derived_prefixes;
static char *derived_folders;
static char *backup_dir;
static char *schedule_timezone;
static char *databases;


/* ---------------------------------------------------------------- lists --- */

/* Returns the entries of a list in lower case, palloc'd, and sets *n to their number. */
static char **
split_list(const char *list, int *n)
{
	char	  **entries = palloc(sizeof(char *) * (strlen(list) / 2 + 1));
	char	   *entry;

	*n = 0;
	while ((entry = list_next_entry(&list, true)) != NULL)
		entries[(*n)++] = asc_tolower(entry, strlen(entry));
	return entries;
}

/*
 * Returns the extensions of a list in lower case and without the dot, and
 * sets *n to their number, which is 0 for "*".
 */
static char **
split_extensions(const char *list, int *n)
{
	char	  **entries = split_list(list, n);

	for (int i = 0; i < *n; i++)
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
is_short_enough(const char *path)
{
	if (strlen(path) < MAXPGPATH)
		return true;
	GUC_check_errdetail("The path is longer than %d bytes.", MAXPGPATH - 1);
	return false;
}

static bool
check_upload_dir(char **newval, void **extra, GucSource source)
{
	if (**newval == '\0')
		return session_refuse_value("The upload directory must be named.", NULL);
	if (store_judge_name(*newval) != NULL)
		return session_refuse_value(store_judge_name(*newval), "Write a bucket as \"s3://bucket/prefix\".");
	if (store_is_local(*newval) && strstr(*newval, "://") != NULL)
		return session_refuse_value("A URL is no directory.", "Write a bucket as \"s3://bucket/prefix\", and a directory as \"/srv/uploads\".");
	return is_short_enough(*newval);
}

static bool
check_backup_dir(char **newval, void **extra, GucSource source)
{
	if (**newval != '\0' && !is_absolute_path(*newval))
		return session_refuse_value("The backup directory must be named by an absolute path.",
									"Leave it empty to keep backups in the upload directory.");
	return is_short_enough(*newval);
}

static bool
check_absolute(char **newval, void **extra, GucSource source)
{
	if (**newval == '\0' || is_absolute_path(*newval))
		return is_short_enough(*newval);
	return session_refuse_value("The file must be named by an absolute path.", NULL);
}

static bool
check_endpoint(char **newval, void **extra, GucSource source)
{
	const char *wrong = bucket_judge_endpoint(*newval);

	return wrong == NULL || session_refuse_value(wrong, NULL);
}

/*
 * Checks the region of buckets, which becomes a part of a host's name, and of
 * the text that is signed.
 */
static bool
check_region(char **newval, void **extra, GucSource source)
{
	if (**newval != '\0' && strlen(*newval) < 64 &&
		strspn(*newval, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(*newval))
		return true;
	return session_refuse_value("The name of a region has small letters, digits and hyphens.", NULL);
}

static bool
check_name_parts(char **newval, void **extra, GucSource source)
{
	return strchr(*newval, '/') == NULL ||
		session_refuse_value("It is a list of parts of file names, which hold no \"/\".", NULL);
}

/* Checks each entry of a list. */
static bool
check_entries(const char *list, bool by_blanks, bool (*is_valid) (const char *entry), const char *what, const char *hint)
{
	char	   *entry;

	while ((entry = list_next_entry(&list, by_blanks)) != NULL)
	{
		if (!is_valid(entry))
		{
			GUC_check_errdetail("\"%s\" is not %s.", entry, what);
			GUC_check_errhint("%s", hint);
			return false;
		}
		pfree(entry);
	}
	return true;
}

/* Returns whether the text is "*", or can be the extension of a file, with its dot or without. */
static bool
is_file_extension(const char *entry)
{
	const char *bare = entry[0] == '.' ? entry + 1 : entry;
	const char *p;

	if (strcmp(entry, "*") == 0)
		return true;
	for (p = bare; *p != '\0'; p++)
		if (!IS_HIGHBIT_SET(*p) && !isalnum((unsigned char) *p) && strchr("_-+~!", *p) == NULL)
			return false;
	return p > bare && p - bare <= MAX_EXTENSION;
}

/*
 * Refuses an empty list, which would mean "any extension": nobody who writes
 * an empty list wants every file cleaned.
 */
static bool
check_extensions(char **newval, void **extra, GucSource source)
{
	if ((*newval)[strspn(*newval, ", \t\n\v\f\r")] == '\0')
		return session_refuse_value("At least one extension must be named.", "\"*\" means any file.");
	return check_entries(*newval, true, is_file_extension, "the extension of a file",
						 "Write the part of a name behind its last dot, as in \"mp3, wav\"; \"*\" means any file.");
}

static bool
check_recipients(char **newval, void **extra, GucSource source)
{
	return check_entries(*newval, false, message_is_address, "a mail address",
						 "Addresses are separated by commas: dba@example.com, boss@example.com.");
}

static bool
check_sender(char **newval, void **extra, GucSource source)
{
	return **newval == '\0' || message_is_address(*newval) ||
		session_refuse_value("It is not a mail address, such as postgres@db1.example.com.", NULL);
}

static bool
check_mail_server(char **newval, void **extra, GucSource source)
{
	const char *url = *newval;

	if (*url == '\0')
		return true;
	if (pg_strncasecmp(url, "smtp://", 7) != 0 && pg_strncasecmp(url, "smtps://", 8) != 0)
		return session_refuse_value("It must begin with smtp:// or smtps://.", NULL);
	if (strchr(url, '@') != NULL)
		return session_refuse_value("It must not hold a user or a password.",
									"See audio_cleanup.smtp_user and audio_cleanup.smtp_password_file.");
	for (; *url != '\0'; url++)
		if (*url <= ' ' || *url > '~')
			return session_refuse_value("It must be of printable ASCII characters without spaces.", NULL);
	return true;
}

/* Checks smtp_user, which becomes a part of a line of SMTP, encoded or not. */
static bool
check_mail_user(char **newval, void **extra, GucSource source)
{
	for (const char *p = *newval; *p != '\0'; p++)
		if (iscntrl((unsigned char) *p))
			return session_refuse_value("It must not hold control characters.", NULL);
	return true;
}

/* With 0 a run would end uploads that have just begun. */
static bool
check_upload_days(int *newval, void **extra, GucSource source)
{
	return *newval != 0 ||
		session_refuse_value("An upload that is under way would be ended.", "-1 ends no upload; 1 is the shortest time.");
}

static bool
check_timezone_name(char **newval, void **extra, GucSource source)
{
	return **newval == '\0' || pg_tzset(*newval) != NULL ||
		session_refuse_value("It is not the name of a time zone.", NULL);
}

/* Checks a list of names of databases.  A name with a comma or a space is quoted. */
static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*newval);
	List	   *names;
	bool		valid = SplitGUCList(copy, ',', &names);

	if (!valid)
		GUC_check_errdetail("List syntax is invalid.");
	foreach_ptr(char, name, names)
		if (strlen(name) >= NAMEDATALEN)
	{
		GUC_check_errdetail("\"%s\" is too long for the name of a database.", name);
		valid = false;
	}
	list_free(names);
	pfree(copy);
	return valid;
}


/* ----------------------------------------------------------- definitions --- */

/*
 * A setting.  One of `boolean`, `integer` and `text` points to its variable,
 * and tells its type; an integer with `options` is an enum.
 */
typedef struct Definition
{
	const char *name;			/* without "audio_cleanup." */
	const char *description;
	const char *details;		/* more of the description, or NULL */
	const struct config_enum_entry *options;
	bool	   *boolean;
	int		   *integer;
	char	  **text;
	int			value;			/* the default of a boolean or an integer */
	int			min;
	int			max;
	const char *text_value;		/* the default of a text; NULL: empty */
	const char *environment;	/* environment variable that holds another
								 * default */
	const char *shown_as;		/* name in cleanup_config(); NULL: `name` */
	bool		sighup;			/* PGC_SIGHUP, because the launcher reads the
								 * setting */
	int			flags;
	GucStringCheckHook check;
	GucIntCheckHook check_number;
} Definition;

static const Definition definitions[] = {
	/* settings that decide which files go */
	{"upload_dir", "Directory of the uploaded audio; relative to the data directory.",
		.text = &upload_dir,.text_value = "uploads/audio",.environment = "UPLOAD_DIR",
	.check = check_upload_dir},
	{"orphaned_file_retention_hours", "Hours that a file without a reference is left alone.",
		.integer = &current.orphaned_file_retention_hours,.value = 24,.max = MAX_HOURS,
	.environment = "ORPHANED_FILE_RETENTION_HOURS"},
	{"failed_session_retention_days", "Days that the audio of a failed session is kept.",
		.integer = &current.failed_session_retention_days,.value = 7,.max = MAX_DAYS,
	.environment = "FAILED_SESSION_RETENTION_DAYS"},
	{"file_age", "Time stamp that tells the age of a file.",
		.details = "newest: of modification, inode change and birth; mtime: modification, as ls -l shows it.",
	.integer = &current.file_age,.value = FILE_AGE_NEWEST,.options = file_age_options},
	{"audio_extensions", "Extensions of the files that may be cleaned; * means any.",
	.text = &audio_extensions,.text_value = DEFAULT_EXTENSIONS,.check = check_extensions},
	{"derived_suffixes", "Suffixes of files that are kept or cleaned together with the file they are made from.",
	.text = &derived_suffixes,.text_value = "_processed",.check = check_name_parts},
	{"derived_prefixes", "Prefixes of files that are kept or cleaned together with the file they are made from.",
	.text = &derived_prefixes,.check = check_name_parts},
	{"derived_folders", "Names of manifests and suffixes of folders; the files of such a folder are kept or cleaned together with the manifest, or with the file that the folder is named after.",
	.text = &derived_folders,.check = check_name_parts},
	{"recurse", "Clean subdirectories of the upload directory as well.",
	.boolean = &current.recurse,.value = true},
	{"remove_empty_dirs", "Remove folders that a run has emptied.",
	.boolean = &current.remove_empty_dirs},
	{"max_delete_percent", "A run that would delete a larger share of the files is refused: from 100 files on, or from 10 if nobody attends the run.",
	.integer = &current.max_delete_percent,.value = 50,.max = 100},
	{"writer_wait", "How long a run waits for writers in flight and for another run.",
		.integer = &current.writer_wait,.value = 10000,.max = INT_MAX / 1000,.flags = GUC_UNIT_MS,
	.shown_as = "writer_wait_ms"},

	/* settings of how a run works and reports */
	{"report_limit", "Maximum number of entries of a list in a result; counts are always complete.",
	.integer = &current.report_limit,.value = 10000,.max = 1000000},
	{"search_unregistered", "Look for names of condemned files in columns that are not registered.",
	.boolean = &current.search_unregistered,.value = true},
	{"batch_size", "Maximum number of files that one transaction records.",
	.integer = &current.batch_size,.value = 10000,.min = 1,.max = 1000000},
	{"backup_retention_days", "Days that a cleaned file can be restored; 0 keeps no backup.",
	.integer = &current.backup_retention_days,.max = MAX_DAYS},
	{"backup_dir", "Directory of the backups; empty is a folder in the upload directory.",
	.text = &backup_dir,.check = check_backup_dir},
	{"history_retention_days", "Days that the history of runs and files is kept; 0 keeps it for ever.",
	.integer = &current.history_retention_days,.value = 365,.max = MAX_DAYS},
	{"max_run_minutes", "A run in batches stops after this many minutes; 0 is no limit.",
	.integer = &current.max_run_minutes,.max = MAX_HOURS * 60,.flags = GUC_UNIT_MIN},
	{"source_timeout", "How long a background worker reads the sources at a time; 0 is no limit.",
		.integer = &current.source_timeout,.value = 1800,.max = INT_MAX / 1000,.flags = GUC_UNIT_S,
	.shown_as = "source_timeout_s"},
	{"files_per_second", "Maximum number of files that are deleted in a second; 0 is 1000 while other sessions write, else no limit.",
	.integer = &current.files_per_second,.max = 1000000},

	/* settings of buckets */
	{"s3_endpoint", "Server of the bucket, https://host[:port]; empty is AWS.",
		.text = &bucket_options.endpoint,.environment = "AWS_ENDPOINT_URL_S3",
	.check = check_endpoint},
	{"s3_region", "Region of the bucket.",
		.text = &bucket_options.region,.text_value = "us-east-1",.environment = "AWS_REGION",
	.check = check_region},
	{"s3_path_style", "Name the bucket in the path of a request, and not in its host.",
	.boolean = &bucket_options.path_style,.value = true},
	{"s3_credentials_file", "File with aws_access_key_id and aws_secret_access_key; empty is the environment of the server.",
	.text = &bucket_options.credentials_file,.flags = GUC_SUPERUSER_ONLY,.check = check_absolute},
	{"s3_ca_file", "Certificates that the server of the bucket is checked with; empty is the system's.",
	.text = &bucket_options.ca_file,.flags = GUC_SUPERUSER_ONLY,.check = check_absolute},
	{"s3_timeout", "How long one request to a bucket may take.",
		.integer = &bucket_options.timeout_ms,.value = 30000,.min = 100,.max = 600000,.flags = GUC_UNIT_MS,
	.shown_as = "s3_timeout_ms"},
	{"s3_requests", "Requests to a bucket that are on their way at a time, at most.",
	.integer = &bucket_options.requests,.value = 16,.min = 1,.max = 64},

	{"s3_metadata_service", "Ask the metadata service of this machine for keys where nothing else has any.",
	.boolean = &bucket_options.metadata_service},
	{"s3_abort_uploads_after_days", "Days after which an upload to a bucket that was begun and never completed is ended; -1 is never.",
	.integer = &current.abort_uploads_after_days,.value = -1,.min = -1,.max = MAX_DAYS,.check_number = check_upload_days},

	/* settings of mail */
	{"mail_on", "About which runs mail is sent.",
		.details = "problems: failed, blocked, interrupted, or with errors; changes: these, and those by which files went; always: all.",
	.integer = &mail_settings.on,.value = MAIL_ON_PROBLEMS,.options = mail_on_options},
	{"mail_to", "Addresses that mail is sent to, separated by commas; empty sends none.",
	.text = &mail_settings.recipients,.check = check_recipients},
	{"mail_from", "Address that mail comes from.",
	.text = &mail_settings.from,.check = check_sender},
	{"smtp_url", "Mail server: smtp://host:port or smtps://host:port.",
	.text = &mail_settings.url,.check = check_mail_server},
	{"smtp_tls", "Mail goes encrypted, or not at all.",
		.details = "If off, smtp:// is not encrypted, and nobody logs in.",
	.boolean = &mail_settings.tls,.value = true},
	{"smtp_user", "User of the mail server; empty does not log in.",
	.text = &mail_settings.user,.flags = GUC_SUPERUSER_ONLY,.check = check_mail_user},
	{"smtp_password_file", "File whose first line is that user's password.",
	.text = &mail_settings.password_file,.flags = GUC_SUPERUSER_ONLY,.check = check_absolute},
	{"smtp_ca_file", "Certificates by which the mail server's is verified; empty is the system's.",
	.text = &mail_settings.ca_file,.flags = GUC_SUPERUSER_ONLY,.check = check_absolute},

	/* settings that the launcher reads */
	{"auto_cleanup_on_startup", "Clean once when the server has started.",
	.boolean = &current_schedule.on_startup,.environment = "AUTO_CLEANUP_ON_STARTUP",.sighup = true},
	{"cleanup_schedule_hour", "Hour of the day at which cleaning starts; -1 is never.",
		.integer = &current_schedule.hour,.value = 3,.min = -1,.max = 23,
	.environment = "CLEANUP_SCHEDULE_HOUR",.sighup = true},
	{"timezone", "Time zone of cleanup_schedule_hour; empty is log_timezone.",
	.text = &schedule_timezone,.check = check_timezone_name,.sighup = true},
	{"databases", "Databases in which cleaning is scheduled, separated by commas.",
	.text = &databases,.check = check_databases,.sighup = true},
	{"debug_clock_offset", "Seconds by which the schedule's clock is ahead; for tests.",
		.integer = &current_schedule.clock_offset,.min = INT_MIN,.max = INT_MAX,
	.flags = GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL,.sighup = true},
};

/* Makes the environment's value of a setting the built-in default, if the value is usable. */
static void
take_environment(Definition *definition)
{
	const char *value = definition->environment ? getenv(definition->environment) : NULL;
	const char *wrong = NULL;
	char	   *copy;
	void	   *extra = NULL;
	bool		boolean;
	int			number;

	if (value == NULL || *value == '\0')
		return;
	copy = pstrdup(value);
	/* a default that the check refuses would end the server */
	if (definition->text && strlen(value) < MAXPGPATH &&
		(definition->check == NULL || definition->check(&copy, &extra, PGC_S_ENV_VAR)))
		definition->text_value = value;
	else if (definition->text)
		wrong = "its value cannot be used";
	else if (definition->boolean && parse_bool(value, &boolean))
		definition->value = boolean;
	else if (definition->boolean)
		wrong = psprintf("\"%s\" is not a boolean", value);
	else if (parse_int(value, &number, 0, NULL) && number >= definition->min && number <= definition->max)
		definition->value = number;
	else
		wrong = psprintf("\"%s\" is not a number from %d to %d", value, definition->min, definition->max);
	if (wrong != NULL)
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("ignoring environment variable \"%s\": %s", definition->environment, wrong)));
}

/* The server copies the name, but keeps pointers to the other texts. */
static void
define(Definition definition)
{
	const char *name = psprintf("audio_cleanup.%s", definition.name);
	GucContext	context = definition.sighup ? PGC_SIGHUP : PGC_SUSET;

	take_environment(&definition);
	if (definition.boolean)
		DefineCustomBoolVariable(name, definition.description, definition.details, definition.boolean,
								 definition.value, context, definition.flags, NULL, NULL, NULL);
	else if (definition.options)
		DefineCustomEnumVariable(name, definition.description, definition.details, definition.integer,
								 definition.value, definition.options, context, definition.flags, NULL, NULL, NULL);
	else if (definition.integer)
		DefineCustomIntVariable(name, definition.description, NULL, definition.integer,
								definition.value, definition.min, definition.max, context,
								definition.flags, definition.check_number, NULL, NULL);
	else
		DefineCustomStringVariable(name, definition.description, NULL, definition.text,
								   definition.text_value ? definition.text_value : "", context,
								   definition.flags, definition.check, NULL, NULL);
}

/*
 * Raises an ERROR if a client has set one of our settings when it connected.
 * Until the library is loaded, a setting of ours is a placeholder that
 * anybody may set.  A placeholder that the client has set hides the value of
 * postgresql.conf or ALTER DATABASE.  The server refuses that value when the
 * library is loaded, and then the built-in default would be in force.
 */
static void
refuse_client_settings(void)
{
	int			n;
	struct config_generic **variables = compat_get_guc_variables(&n);

	for (int i = 0; i < n; i++)
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
	for (int i = 0; i < lengthof(definitions); i++)
		define(definitions[i]);
	MarkGUCPrefixReserved("audio_cleanup");
}

/* Returns whether nothing but the environment gives the setting a value. */
static bool
is_default(const char *name)
{
	int			n;
	struct config_generic **variables = compat_get_guc_variables(&n);

	for (int i = 0; i < n; i++)
		if (strcmp(variables[i]->name, name) == 0)
			return variables[i]->source == PGC_S_DEFAULT;
	return false;
}

const char *
settings_find_unusable(void)
{
	const char *unusable = session_find_unusable("audio_cleanup.");

	for (int i = 0; i < lengthof(definitions) && unusable == NULL; i++)
	{
		const char *name = psprintf("audio_cleanup.%s", definitions[i].name);
		const char *value = definitions[i].environment != NULL ? getenv(definitions[i].environment) : NULL;

		/* the environment of AWS may be meant for other programs */
		if (strncmp(definitions[i].name, "s3_", 3) == 0)
			continue;
		if (value != NULL && *value != '\0' && is_default(name) && !session_may_set(name, value))
			unusable = definitions[i].environment;
	}
	return unusable;
}


/* ------------------------------------------------------------- snapshots --- */

/*
 * Returns the recorded rule of an earlier run, or `now`, the rule in force, if
 * no rule was recorded.
 */
static const char *
recorded_text(Jsonb *recorded, const char *key, const char *now)
{
	const char *text = recorded != NULL ? json_get_text(recorded, key) : NULL;

	return text != NULL ? text : now;
}

static KeyRules *
make_rules(Jsonb *recorded)
{
	KeyRules   *rules = palloc0(sizeof(KeyRules));

	rules->extensions = split_extensions(recorded_text(recorded, "audio_extensions", audio_extensions),
										 &rules->n_extensions);
	rules->suffixes = split_list(recorded_text(recorded, "derived_suffixes", derived_suffixes),
								 &rules->n_suffixes);
	rules->prefixes = split_list(recorded_text(recorded, "derived_prefixes", derived_prefixes),
								 &rules->n_prefixes);
	rules->folders = split_list(recorded_text(recorded, "derived_folders", derived_folders),
								&rules->n_folders);
	rules->utf8 = GetDatabaseEncoding() == PG_UTF8;
	return rules;
}

static const char *
absolute_upload_dir(void)
{
	char	   *path;

	/* the key of an object may contain "//", which differs from "/" */
	if (!store_is_local(upload_dir))
		return pstrdup(upload_dir);
	path = is_absolute_path(upload_dir) ? pstrdup(upload_dir) : psprintf("%s/%s", DataDir, upload_dir);
	canonicalize_path(path);
	return path;
}

/*
 * Returns the backup directory `dir`; or "" if the trash is in the upload
 * directory, or if the retention of `days` is 0.
 */
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

/* Returns the settings in force, for the upload directory `path` and with the rules of names that were `recorded`. */
static Settings *
make_snapshot(const char *path, Jsonb *recorded)
{
	Settings   *settings = palloc(sizeof(Settings));

	*settings = current;
	settings->backup_dir = used_backup_dir(backup_dir, settings->backup_retention_days);
	settings->upload_dir = path;
	settings->rules = make_rules(recorded);
	settings->rules->upload_dir = path;
	return settings;
}

const Settings *
settings_snapshot(void)
{
	return make_snapshot(absolute_upload_dir(), NULL);
}

bool
settings_is_listed(List *names, const char *name)
{
	foreach_ptr(char, listed, names)
		if (strcmp(listed, name) == 0)
		return true;
	return false;
}

static const char *
zone_name(void)
{
	return *schedule_timezone ? schedule_timezone : pg_get_timezone_name(log_timezone);
}

Schedule *
settings_schedule(void)
{
	Schedule   *schedule = palloc(sizeof(Schedule));

	*schedule = current_schedule;
	schedule->zone_name = pstrdup(zone_name());
	schedule->zone = *schedule_timezone ? pg_tzset(schedule_timezone) : log_timezone;
	/* the check hook has parsed the list before */
	(void) SplitGUCList(pstrdup(databases), ',', &schedule->databases);
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
 * Returns the directory that has the backups of a run, which was called
 * `recorded` at that time.  If `recorded` no longer has the folder of the
 * owner, and the present backup directory has that folder, the backup
 * directory was moved there.
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

const char *
settings_backup_owner(Jsonb *recorded)
{
	return json_get_text(recorded, SETTINGS_BACKUP_OWNER);
}

const Settings *
settings_of_run(const char *run_upload_dir, Jsonb *recorded)
{
	Settings   *settings = make_snapshot(pstrdup(run_upload_dir), recorded);

	settings->failed_session_retention_days =
		json_get_integer(recorded, "failed_session_retention_days", settings->failed_session_retention_days);
	settings->backup_retention_days =
		json_get_integer(recorded, "backup_retention_days", settings->backup_retention_days);
	settings->backup_dir = find_backup_dir(json_get_text(recorded, "backup_dir"),
										   settings_backup_owner(recorded),
										   settings->backup_retention_days);
	settings->remove_empty_dirs = json_get_boolean(recorded, "remove_empty_dirs", false);
	settings->abort_uploads_after_days =
		json_get_integer(recorded, "s3_abort_uploads_after_days", settings->abort_uploads_after_days);
	return settings;
}

const char *
settings_showable(const char *text)
{
	StringInfoData shown;

	if (pg_verifymbstr(text, (int) strlen(text), true))
		return text;
	initStringInfo(&shown);
	for (; *text != '\0'; text++)
		appendStringInfo(&shown, IS_HIGHBIT_SET(*text) ? "\\x%02X" : "%c", (unsigned char) *text);
	return shown.data;
}

Jsonb *
settings_to_jsonb(void)
{
	JsonBuilder json;
	const Definition *definition;

	json_begin(&json);
	for (definition = definitions; definition < definitions + lengthof(definitions); definition++)
	{
		const char *key = definition->shown_as ? definition->shown_as : definition->name;

		if (definition->flags & (GUC_NO_SHOW_ALL | GUC_SUPERUSER_ONLY))
			continue;
		if (definition->boolean)
			json_add_boolean(&json, key, *definition->boolean);
		else if (definition->options)
			json_add_text(&json, key, GetConfigOption(psprintf("audio_cleanup.%s", key), false, false));
		else if (definition->integer)
			json_add_integer(&json, key, *definition->integer);
		else
			json_add_text(&json, key, definition->text == &schedule_timezone ? zone_name() : settings_showable(*definition->text));
	}
	json_add_text(&json, "upload_dir_absolute", settings_showable(absolute_upload_dir()));
	return json_end(&json);
}
