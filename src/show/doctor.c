/*-------------------------------------------------------------------------
 *
 * show/doctor.c
 *	  cleanup_check(): finds mistakes of the installation.
 *
 * cleanup_check() makes the survey of a dry run, which finds everything that
 * would stop a run.  So cleanup_check() and a run cannot disagree.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "src/mail/send.h"
#include "src/night/timetable.h"
#include "src/pg/progress.h"
#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/plan/plan.h"
#include "src/show/show.h"
#include "src/sources/sources.h"

/* number of names that are shown */
#define EXAMPLES_SHOWN	3

/* limit for the search for the statuses of one source */
#define STATUS_SEARCH_MS	500

/* for use in E'', which has one meaning under any standard_conforming_strings */
#define OUR_CALLS "\\\\mcleanup_(run|all|orphaned_files|failed_sessions)\\\\M"

/* an upload that was begun so long ago is hardly under way */
#define OLD_UPLOAD_DAYS 7

typedef struct Examination
{
	Tuplestorestate *rows;
	TupleDesc	desc;
	const Context *context;
	const PlanFindings *found;
} Examination;

/* Adds a finding.  `hint` may be NULL. */
static void
say(const Examination *examination, const char *check, const char *status,
	const char *detail, const char *hint)
{
	Datum		values[] = {
		CStringGetTextDatum(check), CStringGetTextDatum(status), CStringGetTextDatum(detail),
		hint ? CStringGetTextDatum(hint) : (Datum) 0
	};
	bool		nulls[] = {false, false, false, hint == NULL};

	tuplestore_putvalues(examination->rows, examination->desc, values, nulls);
}

static void
say_brakes(const Examination *examination)
{
	foreach_ptr(const Brake, brake, examination->found->brakes)
	{
		const char *detail = brake->detail ? psprintf("%s. %s", brake->message, brake->detail)
		: brake->message;

		say(examination, brake->name, "error", detail, brake->hint);
	}
	foreach_ptr(const char, error, examination->found->errors)
		say(examination, "file", "warning", error, "Rename or remove the file by hand.");
}

static void
say_finding(const StoreFinding *finding, void *arg)
{
	say(arg, finding->check, finding->is_fine ? "ok" : "error", finding->detail, finding->hint);
}

/* Returns whether one of the brakes has one of the names. */
static bool
has_brake(const PlanFindings *found, const char *name, const char *or_name)
{
	foreach_ptr(const Brake, brake, found->brakes)
		if (strcmp(brake->name, name) == 0 || strcmp(brake->name, or_name) == 0)
		return true;
	return false;
}

/* Tells what is well with the directory, its claim and the sources. */
static void
say_well(const Examination *examination)
{
	const PlanFindings *found = examination->found;

	if (!has_brake(found, "upload_dir", ""))
		say(examination, "upload_dir", "ok",
			psprintf("\"%s\" can be read and written", examination->context->settings->upload_dir), NULL);
	if (found->claim != NULL && found->claim->brake == NULL)
		say(examination, "claim", "ok",
			found->claim->state == CLAIM_OURS ? "the upload directory belongs to this database" :
			"nobody has claimed the upload directory; the first run will", NULL);
	if (has_brake(found, "source", "no_source"))
		return;
	foreach_ptr(const Source, source, found->sources)
		say(examination, "source", "ok", psprintf("%s can be read as its owner", source->name), NULL);
}

/* Reports the references, and each source by itself, so that a wrong column is noticed. */
static void
check_references(const Examination *examination)
{
	const PlanFindings *found = examination->found;
	bool		useless = found->files_seen > 0 && found->files_referenced == 0 && found->rows_seen > 0;

	say(examination, "references", useless ? "warning" : "ok",
		psprintf("%lld of %lld audio files are referred to by %lld rows; a run would delete %lld",
				 (long long) found->files_referenced, (long long) found->files_seen,
				 (long long) found->rows_seen, (long long) found->condemned->n_files),
		useless ? "Check that the registered columns hold the names of these files; cleanup_explain() shows what it finds for one file." : NULL);
	foreach_ptr(const Source, source, found->sources)
		say(examination, "source_references", "ok",
			psprintf("%s has %lld rows and refers to %lld of the files", source->name,
					 (long long) found->counts[source->number].rows, (long long) found->counts[source->number].files),
			NULL);
}

/*
 * Returns whether somebody has chosen the failed_statuses.  With the default,
 * a source without a failed row is no finding, unless the column cannot have
 * the value "failed".
 */
static bool
has_chosen_statuses(const Source *source)
{
	int			n;
	const char **statuses = sql_texts(source->failed_statuses, &n);
	AttrNumber	column = get_attnum(source->relid, source->status_column);

	return n != 1 || strcmp(statuses[0], "failed") != 0 ||
		get_typtype(getBaseType(get_atttype(source->relid, column))) == TYPTYPE_ENUM;
}

/*
 * Reports statuses for which no failed session is ever found: a status was
 * renamed, or written wrong.
 */
static void
check_statuses(const Examination *examination)
{
	foreach_ptr(const Source, source, examination->found->sources)
	{
		if (source->status_column == NULL || !has_chosen_statuses(source))
			continue;
		foreach_ptr(const char, strange, sources_strange_statuses(source, STATUS_SEARCH_MS))
			say(examination, "failed_statuses", "warning", strange,
				"Register the source anew with the statuses that mean failure.");
	}
}

/*
 * Reports names that match in no source.  A look at these names often tells
 * what was forgotten.
 */
static void
check_unmatched(const Examination *examination)
{
	int64		unmatched = examination->found->files_seen - examination->found->files_referenced;
	CondemnedFile file;
	char	   *examples = NULL;
	int			n = 0;

	if (unmatched == 0)
		return;
	condemned_rewind(examination->found->condemned);
	while (n < EXAMPLES_SHOWN && condemned_next(examination->found->condemned, &file))
		if (file.source == NULL)
		{
			examples = examples ? psprintf("%s, \"%s\"", examples, file.path)
				: psprintf("\"%s\"", file.path);
			n++;
		}
	say(examination, "unmatched", "ok",
		psprintf("%lld of the files match in no source%s%s", (long long) unmatched,
				 examples ? ", for instance " : "", examples ? examples : ""),
		NULL);
}

/*
 * Reports uploads that were never completed: their parts are paid for, and
 * nobody sees the parts.
 */
static void
check_uploads(const Examination *examination)
{
	const PlanFindings *found = examination->found;
	int			days = examination->context->settings->abort_uploads_after_days;

	/* no run ends uploads, and nobody is likely to complete the oldest one */
	bool		forgotten = days < 0 && found->oldest_upload < GetCurrentTimestamp() - OLD_UPLOAD_DAYS * USECS_PER_DAY;

	if (found->uploads_error != NULL)
		say(examination, "uploads", days > 0 ? "error" : "warning", found->uploads_error,
			"The user of the bucket needs the rights of docs/buckets.md.");
	else if (found->n_uploads == 0)
		say(examination, "uploads", "ok", "no upload waits to be completed", NULL);
	else if (found->n_uploads > 0)
		say(examination, "uploads", forgotten ? "warning" : "ok",
			psprintf("%lld uploads were begun and are not completed, the oldest at %s; a run would end %d",
					 (long long) found->n_uploads, timestamptz_to_str(found->oldest_upload),
					 list_length(found->old_uploads)),
			days > 0 ? NULL : "audio_cleanup.s3_abort_uploads_after_days ends those that are older.");
}

/*
 * Reports the jobs of pg_cron that clean this database, or a database of the
 * built-in schedule.  The table of jobs is looked up as a member of the
 * extension pg_cron: if pg_cron is not installed, anybody may create a schema
 * of that name.
 */
static void
say_cron_jobs(void *arg)
{
	const Examination *examination = arg;
	const Schedule *schedule = settings_schedule();
	bool		is_scheduled = progress_is_shared() && schedule->hour >= 0;
	int			n;

	if (sql_query(0, NULL,
				  "SELECT e.oid, pg_catalog.format('%I.job', n.nspname) FROM pg_catalog.pg_extension e"
				  " JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass"
				  "  AND d.refobjid = e.oid AND d.deptype = 'e'"
				  "  AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
				  " JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'r'"
				  " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
				  " WHERE e.extname = 'pg_cron' AND c.relname = 'job'") == 0)
		return;
	n = sql_query_members(DatumGetObjectId(sql_value(0, 1)),
						  SQL_ARGS(SQL_TEXTS(is_scheduled ? schedule->databases : NIL)),
						  psprintf("SELECT jobid, schedule, database, database OPERATOR(pg_catalog.=) ANY ($1)"
								   " FROM %s WHERE active AND command OPERATOR(pg_catalog.~*) E'" OUR_CALLS "'"
								   " AND (database OPERATOR(pg_catalog.=) pg_catalog.current_database()"
								   "  OR database OPERATOR(pg_catalog.=) ANY ($1)) ORDER BY jobid",
								   sql_text(0, 2)));
	for (int i = 0; i < n; i++)
	{
		long long	job = DatumGetInt64(sql_value(i, 1));

		/* the second run finds nothing, or waits for the first */
		if (DatumGetBool(sql_value(i, 4)))
			say(examination, "pg_cron", "warning",
				psprintf("job %lld of pg_cron (%s) cleans database \"%s\", and so does the built-in schedule",
						 job, sql_text(i, 2), sql_text(i, 3)),
				psprintf("Call cron.unschedule(%lld), or remove the database from audio_cleanup.databases.", job));
		else
			say(examination, "pg_cron", "ok",
				psprintf("job %lld of pg_cron (%s) cleans this database", job, sql_text(i, 2)), NULL);
	}
}

/* Reports whether the library is preloaded, and what cleans this database by night. */
static void
check_schedule(Examination *examination)
{
	const Extension *extension = examination->context->extension;
	const char *libraries = GetConfigOption("shared_preload_libraries", false, false);
	NextRun		next = timetable_next_run(extension);
	ActingAs	saved;

	say(examination, "preload", "ok",
		strstr(libraries, EXTENSION_NAME) != NULL ? "the library is preloaded"
		: "the library is not preloaded: there is no built-in schedule and no cleanup_progress",
		NULL);
	say(examination, "schedule", "ok",
		next.is_known ? psprintf("the built-in schedule cleans this database next at %s (%s, %s)",
								 timestamptz_to_str(next.at), next.reason, next.zone_name)
		: psprintf("the built-in schedule does not clean this database: %s", next.reason), NULL);
	role_act_as(extension->owner, &saved);

	/*
	 * the table may not be readable, or have other columns because of its
	 * version
	 */
	(void) sql_try(say_cron_jobs, examination);
	role_stop_acting(&saved);
}

/* Reports on mail.  Returns whether mail is sent. */
static bool
check_mail(const Examination *examination)
{
	const MailSettings *settings = mail_settings_snapshot();
	const char *off = mail_settings_off(settings);
	const char *error = off ? NULL : mail_settings_lack(settings);

	/* without asking the mail server */
	if (off == NULL && error == NULL)
		error = mailer_check_secret(settings);
	if (off != NULL)
		say(examination, "mail", "ok", psprintf("no mail is sent: %s", off), NULL);
	else if (error != NULL)
		say(examination, "mail", "error", psprintf("no mail can be sent: %s", error),
			"A mail waits for two days; SELECT cleanup_send_test_mail() shows whether mail can be sent.");
	else
		say(examination, "mail", "ok",
			psprintf("mail about %s goes to %d address%s by %s", mail_settings_about(settings),
					 settings->n_to, settings->n_to == 1 ? "" : "es", settings->url), NULL);
	return off == NULL && error == NULL;
}

/* Reports the findings about our own tables and the settings. */
static void
check_tables(const Examination *examination, bool sends_mail)
{
	int			n = owner_query(examination->context->extension,
								SQL_ARGS(SQL_INT4(examination->context->settings->backup_retention_days), SQL_BOOL(sends_mail)),
								"SELECT check_name, status, detail, hint FROM @extschema@.cleanup_check_rows($1, $2)");

	for (int i = 0; i < n; i++)
		say(examination, sql_text(i, 1), sql_text(i, 2), sql_text(i, 3), sql_text(i, 4));
}

static Jsonb *
examine(CleanupPlan *plan, void *arg)
{
	Examination *examination = arg;
	const PlanFindings *found = plan_findings(plan);

	examination->context = plan_context(plan);
	examination->found = found;
	plan_survey(plan, false);

	/*
	 * a canary is written only if the directory is open and no other database
	 * has claimed it, and not in a read-only transaction
	 */
	if (found->store != NULL && store_examine(found->store, say_finding, examination) &&
		found->claim != NULL && found->claim->brake == NULL && !XactReadOnly)
		(void) store_examine_canary(found->store, say_finding, examination);
	/* somebody wants the examination to stop */
	CHECK_FOR_INTERRUPTS();
	say_brakes(examination);
	say_well(examination);
	if (found->surveyed)
	{
		check_references(examination);
		check_statuses(examination);
		check_unmatched(examination);
		plan_advise(plan);

		/*
		 * tables that may have been forgotten: the most common way to lose
		 * files
		 */
		foreach_ptr(const char, warning, found->warnings)
			say(examination, "unregistered", "warning", warning,
				"If it refers to files, register it with cleanup_add_source().");
		check_uploads(examination);
	}
	check_tables(examination, check_mail(examination));
	check_schedule(examination);
	return NULL;
}

void
doctor_examine(Tuplestorestate *rows, TupleDesc desc)
{
	Examination examination = {rows, desc};

	(void) plan_call(CLEAN_ALL, true, false, examine, &examination);
}
