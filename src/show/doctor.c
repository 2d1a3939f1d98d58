/*-------------------------------------------------------------------------
 *
 * show/doctor.c
 *	  cleanup_check(): finds mistakes of the installation.
 *
 * cleanup_check() makes the survey of a dry run, which finds everything that
 * would stop a run.  So cleanup_check() and a run cannot disagree.  This file
 * looks, and cleanup_check_findings() in the extension's script says what the look
 * means.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
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
say_finding(const StoreFinding *finding, void *arg)
{
	say(arg, finding->check, finding->is_fine ? "ok" : "error", finding->detail, finding->hint);
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
 * Adds the sources, each with the number of its rows and files, so that a wrong
 * column is noticed; and with statuses for which no failed session is ever
 * found, because they were renamed, or written wrong.
 */
static void
add_sources(JsonBuilder *json, const PlanFindings *found)
{
	json_begin_array(json, "sources");
	foreach_ptr(const Source, source, found->sources)
	{
		JsonBuilder element;

		json_begin(&element);
		json_add_text(&element, "name", source->name);
		if (found->surveyed)
		{
			json_add_integer(&element, "rows", found->counts[source->number].rows);
			json_add_integer(&element, "files", found->counts[source->number].files);
			if (source->status_column != NULL && has_chosen_statuses(source))
				json_add_list(&element, "statuses", sources_strange_statuses(source, STATUS_SEARCH_MS));
		}
		json_add_jsonb(json, NULL, json_end(&element));
	}
	json_end_array(json);
}

/*
 * Returns names that match in no source.  A look at these names often tells
 * what was forgotten.
 */
static char *
find_unmatched(const PlanFindings *found)
{
	StringInfoData examples;
	CondemnedFile file;
	int			n = 0;

	initStringInfo(&examples);
	condemned_rewind(found->condemned);
	while (found->files_seen > found->files_referenced && n < EXAMPLES_SHOWN && condemned_next(found->condemned, &file))
		if (file.source == NULL)
			appendStringInfo(&examples, "%s\"%s\"", n++ > 0 ? ", " : ", for instance ", file.path);
	return examples.data;
}

/*
 * Adds the files, and the uploads that were never completed: their parts are
 * paid for, and nobody sees the parts.
 */
static void
add_survey(JsonBuilder *json, const PlanFindings *found, int upload_days)
{
	json_add_integer(json, "rows_seen", found->rows_seen);
	json_add_integer(json, "condemned", found->condemned->n_files);
	json_add_text(json, "unmatched", find_unmatched(found));
	json_add_list(json, "warnings", found->warnings);
	json_add_integer(json, "uploads", found->n_uploads);
	json_add_text(json, "uploads_error", found->uploads_error);
	json_add_text(json, "oldest_upload", timestamptz_to_str(found->oldest_upload));
	json_add_integer(json, "uploads_to_end", list_length(found->old_uploads));
	/* no run ends uploads, and nobody is likely to complete the oldest one */
	json_add_boolean(json, "uploads_forgotten",
					 upload_days < 0 && found->oldest_upload < GetCurrentTimestamp() - OLD_UPLOAD_DAYS * USECS_PER_DAY);
}

/* Adds what is known about mail without asking the mail server. */
static void
add_mail(JsonBuilder *json)
{
	const MailSettings *settings = mail_settings_snapshot();
	const char *off = mail_settings_off(settings);
	const char *error = off ? NULL : mail_settings_lack(settings);

	if (off == NULL && error == NULL)
		error = mailer_check_secret(settings);
	json_add_text(json, "mail_off", off);
	json_add_text(json, "mail_error", error);
	json_add_integer(json, "mail_addresses", settings->n_to);
}

/* Adds when the built-in schedule cleans this database. */
static void
add_schedule(JsonBuilder *json, const Extension *extension)
{
	NextRun		next = timetable_next_run(extension);

	json_add_text(json, "next_run", next.is_known ? timestamptz_to_str(next.at) : NULL);
	json_add_text(json, "next_run_reason", next.reason);
	json_add_text(json, "timezone", next.zone_name);
}

static Jsonb *
take_look(const Examination *examination)
{
	const PlanFindings *found = examination->found;
	const Context *context = examination->context;
	JsonBuilder json;

	json_begin(&json);
	show_add_findings(&json, found);
	json_add_text(&json, "upload_dir", settings_showable(context->settings->upload_dir));
	if (found->claim != NULL && found->claim->brake == NULL)
		json_add_boolean(&json, "is_ours", found->claim->state == CLAIM_OURS);
	json_add_list(&json, "errors", found->errors);
	add_sources(&json, found);
	if (found->surveyed)
		add_survey(&json, found, context->settings->abort_uploads_after_days);
	add_mail(&json);
	add_schedule(&json, context->extension);
	return json_end(&json);
}

/* Reports what the look means, and the findings about our own tables and the settings. */
static void
say_look(const Examination *examination)
{
	int			n = owner_query(examination->context->extension,
								SQL_ARGS(SQL_VALUE(JSONBOID, JsonbPGetDatum(take_look(examination)))),
								"SELECT check_name, status, detail, hint FROM @extschema@.cleanup_check_findings($1)");

	for (int i = 0; i < n; i++)
		say(examination, sql_text(i, 1), sql_text(i, 2), sql_text(i, 3), sql_text(i, 4));
}

/*
 * Reports the jobs of pg_cron that clean this database, or a database of the
 * built-in schedule.  The table of jobs must be a member of the extension
 * pg_cron: if pg_cron is not installed, anybody may create a schema of that
 * name.
 */
static void
say_cron_jobs(void *arg)
{
	const Examination *examination = arg;
	const Schedule *schedule = settings_schedule();
	bool		is_scheduled = progress_is_shared() && schedule->hour >= 0;
	Oid			pg_cron = get_extension_oid("pg_cron", true);
	int			n;

	if (!OidIsValid(pg_cron))
		return;
	n = sql_query_members(pg_cron, SQL_ARGS(SQL_TEXTS(is_scheduled ? schedule->databases : NIL)),
						  "SELECT jobid, schedule, database, database OPERATOR(pg_catalog.=) ANY ($1)"
						  " FROM cron.job WHERE active AND command OPERATOR(pg_catalog.~*) E'" OUR_CALLS "'"
						  " AND (database OPERATOR(pg_catalog.=) pg_catalog.current_database()"
						  "  OR database OPERATOR(pg_catalog.=) ANY ($1)) ORDER BY jobid");
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

static Jsonb *
examine(CleanupPlan *plan, void *arg)
{
	Examination *examination = arg;
	const PlanFindings *found = plan_findings(plan);
	ActingAs	saved;

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
	if (found->surveyed)
		plan_advise(plan);
	say_look(examination);
	role_act_as(examination->context->extension->owner, &saved);

	/*
	 * the table may not be readable, or have other columns because of its
	 * version
	 */
	(void) sql_try(say_cron_jobs, examination);
	role_stop_acting(&saved);
	return NULL;
}

void
doctor_examine(Tuplestorestate *rows, TupleDesc desc)
{
	Examination examination = {rows, desc};

	(void) plan_call(CLEAN_ALL, true, false, examine, &examination);
}
