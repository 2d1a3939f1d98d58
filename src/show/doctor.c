/*-------------------------------------------------------------------------
 *
 * show/doctor.c
 *	  cleanup_check(): what is wrong with this installation?
 *
 * Whatever would stop a run is found by making the survey of a dry run, so
 * that doctor and run cannot disagree.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "postmaster/bgworker_internals.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "src/mail/outbox.h"
#include "src/mail/send.h"
#include "src/night/pg_cron.h"
#include "src/night/timetable.h"
#include "src/pg/progress.h"
#include "src/pg/sql.h"
#include "src/plan/plan.h"
#include "src/plan/unregistered.h"
#include "src/show/doctor.h"
#include "src/sources/sources.h"

/* so many names are shown */
#define EXAMPLES_SHOWN	3

/* so long the statuses of a source are looked through */
#define STATUS_SEARCH_MS	500

typedef struct Examination
{
	DoctorSink	sink;
	void	   *arg;
} Examination;

static void
say(const Examination *examination, const char *check, const char *status,
	const char *detail, const char *hint)
{
	examination->sink(check, status, detail, hint, examination->arg);
}

static void
say_brakes(const Examination *examination, const CleanupPlan *plan)
{
	ListCell   *lc;

	foreach(lc, plan->brakes)
	{
		const Brake *brake = lfirst(lc);
		const char *detail = brake->detail ? psprintf("%s. %s", brake->message, brake->detail)
		: brake->message;

		say(examination, brake->name, "error", detail, brake->hint);
	}
	foreach(lc, plan->errors)
		say(examination, "file", "warning", lfirst(lc), "Rename or remove the file by hand.");
}

static bool
has_brake(const CleanupPlan *plan, const char *name)
{
	ListCell   *lc;

	foreach(lc, plan->brakes)
		if (strcmp(((const Brake *) lfirst(lc))->name, name) == 0)
		return true;
	return false;
}

static void
check_directory(const Examination *examination, const CleanupPlan *plan)
{
	if (!has_brake(plan, "upload_dir"))
		say(examination, "upload_dir", "ok",
			psprintf("\"%s\" can be read and written", plan->settings->upload_dir), NULL);
}

static void
check_claim(const Examination *examination, const CleanupPlan *plan)
{
	if (plan->claim == NULL || plan->claim->brake != NULL)
		return;
	if (plan->claim->state == CLAIM_OURS)
		say(examination, "claim", "ok", "the upload directory belongs to this database", NULL);
	else
		say(examination, "claim", "ok", "nobody has claimed the upload directory; the first run will", NULL);
}

static void
check_sources(const Examination *examination, const CleanupPlan *plan)
{
	ListCell   *lc;

	if (has_brake(plan, "source") || has_brake(plan, "no_source"))
		return;
	foreach(lc, plan->sources)
		say(examination, "source", "ok",
			psprintf("%s can be read as its owner", ((const Source *) lfirst(lc))->name), NULL);
}

static void
check_references(const Examination *examination, const CleanupPlan *plan)
{
	const char *detail = psprintf("%lld of %lld audio files are referred to by %lld rows; a run would delete %lld",
								  (long long) plan->files_referenced,
								  (long long) plan->files_seen, (long long) plan->rows_seen,
								  (long long) plan->condemned->n_files);

	if (plan->files_seen > 0 && plan->files_referenced == 0 && plan->rows_seen > 0)
		say(examination, "references", "warning", detail,
			"Do the registered columns hold the names of these files? cleanup_explain() shows it for one.");
	else
		say(examination, "references", "ok", detail, NULL);
}

/* A source on its own: a column that was mistaken stands out. */
static void
check_each_source(const Examination *examination, const CleanupPlan *plan)
{
	ListCell   *lc;

	foreach(lc, plan->sources)
	{
		const Source *source = lfirst(lc);
		const MatchCounts *counts = &plan->counts[source->number];

		say(examination, "source_references", "ok",
			psprintf("%s has %lld rows and refers to %lld of the files", source->name,
					 (long long) counts->rows, (long long) counts->files),
			NULL);
	}
}

/*
 * That nothing has failed yet is no finding where nobody has chosen the
 * statuses, unless the column cannot have that value.
 */
static bool
has_chosen_statuses(const Source *source)
{
	int			n;
	const char **statuses = sources_copy_texts(source->failed_statuses, &n);
	AttrNumber	column = get_attnum(source->relid, source->status_column);

	return n != 1 || strcmp(statuses[0], "failed") != 0 ||
		get_typtype(getBaseType(get_atttype(source->relid, column))) == TYPTYPE_ENUM;
}

/* Failed sessions that are never found: a status was renamed, or misspelt. */
static void
check_statuses(const Examination *examination, const CleanupPlan *plan)
{
	ListCell   *cell;
	ListCell   *lc;

	foreach(cell, plan->sources)
	{
		const Source *source = lfirst(cell);

		if (source->status_column == NULL || !has_chosen_statuses(source))
			continue;
		foreach(lc, sources_strange_statuses(source, STATUS_SEARCH_MS))
			say(examination, "failed_statuses", "warning", lfirst(lc),
				"Register the source anew with the statuses that mean failure.");
	}
}

/* Names that match in no source: one look often tells what was forgotten. */
static void
check_unmatched(const Examination *examination, const CleanupPlan *plan)
{
	int64		unmatched = plan->files_seen - plan->files_referenced;
	CondemnedFile file;
	char	   *examples = NULL;
	int			n = 0;

	if (unmatched == 0)
		return;
	condemned_rewind(plan->condemned);
	while (n < EXAMPLES_SHOWN && condemned_next(plan->condemned, &file))
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

static void
check_preload(const Examination *examination)
{
	const char *libraries = GetConfigOption("shared_preload_libraries", false, false);

	say(examination, "preload", "ok",
		strstr(libraries, EXTENSION_NAME) != NULL ? "the library is preloaded"
		: "the library is not preloaded: there is no built-in schedule and no cleanup_progress",
		NULL);
}

static char *
describe_next_run(const NextRun *next)
{
	if (next->is_known)
		return psprintf("the built-in schedule cleans this database next at %s (%s, %s)",
						timestamptz_to_str(next->at), next->reason, next->zone_name);
	return psprintf("the built-in schedule does not clean this database: %s", next->reason);
}

/* Both would run: the second finds nothing, or waits for the first. */
static void
say_twice(const Examination *examination, const CronJob *job)
{
	say(examination, "pg_cron", "warning",
		psprintf("job %lld of pg_cron (%s) cleans database \"%s\", and so does the built-in schedule",
				 (long long) job->id, job->schedule, job->database),
		psprintf("Call cron.unschedule(%lld), or take the database off audio_cleanup.databases.",
				 (long long) job->id));
}

static void
check_schedule(const Examination *examination, const CleanupPlan *plan)
{
	const Schedule *schedule = settings_schedule();
	NextRun		next = timetable_next_run(plan->extension);
	ListCell   *lc;

	say(examination, "schedule", "ok", describe_next_run(&next), NULL);
	foreach(lc, cron_jobs(plan->extension, schedule->databases))
	{
		const CronJob *job = lfirst(lc);

		if (progress_is_shared() && schedule->hour >= 0 && job->is_listed)
			say_twice(examination, job);
		else if (job->is_here)
			say(examination, "pg_cron", "ok",
				psprintf("job %lld of pg_cron (%s) cleans this database",
						 (long long) job->id, job->schedule), NULL);
	}
}

/* The commonest way to lose files: a table that was forgotten. */
static void
check_unregistered(const Examination *examination, CleanupPlan *plan)
{
	ListCell   *lc;

	foreach(lc, unregistered_search(plan, false))
		say(examination, "unregistered", "warning", lfirst(lc),
			"If it refers to files, register it with cleanup_add_source().");
}

static void
check_settings(const Examination *examination, const CleanupPlan *plan)
{
	if (plan->settings->orphaned_file_retention_hours == 0)
		say(examination, "settings", "warning",
			"orphaned_file_retention_hours is 0: a file is an orphan as soon as it is uploaded",
			"Leave the application the time that it needs to commit its row.");
	if (plan->settings->file_age == FILE_AGE_MTIME)
		say(examination, "settings", "warning",
			"file_age is mtime: a file that was copied with its old time stamp is old at once",
			"The default, newest, gives restored and moved files their grace period.");
}

static void
check_outstanding(const Examination *examination, const CleanupPlan *plan)
{
	int64		pending;
	int64		due;

	/* backups that have expired wait for the next night */
	owner_query(plan->extension, 0, NULL,
				"SELECT count(*) FILTER (WHERE state IN ('pending', 'restoring')),"
				" count(*) FILTER (WHERE state = 'trashed' AND due_at <= clock_timestamp()"
				"  - CASE WHEN due_at > condemned_at THEN interval '25 hours' ELSE interval '0' END)"
				" FROM @extschema@.cleanup_files WHERE state IN ('pending', 'restoring', 'trashed')"
				" AND condemned_at < now() - interval '1 minute'");
	pending = DatumGetInt64(sql_value(0, 1));
	due = DatumGetInt64(sql_value(0, 2));
	SPI_freetuptable(SPI_tuptable);

	if (pending + due > 0)
		say(examination, "outstanding", "warning",
			psprintf("%lld files are still to be captured or restored and %lld to be deleted since more than a minute",
					 (long long) pending, (long long) due),
			"The next run takes them up. If they stay, see the server log.");
	else
		say(examination, "outstanding", "ok", "no file of an earlier run is waiting", NULL);
}

/* Said only where there are any, or should be. */
static void
check_backups(const Examination *examination, const CleanupPlan *plan)
{
	int64		backups;
	int64		stuck;
	double		mib;

	owner_query(plan->extension, 0, NULL,
				"SELECT count(*), count(*) FILTER (WHERE error IS NOT NULL),"
				" coalesce(pg_catalog.sum(size), 0)::float8 / 1048576"
				" FROM @extschema@.cleanup_files WHERE state = 'trashed' AND due_at > condemned_at");
	backups = DatumGetInt64(sql_value(0, 1));
	stuck = DatumGetInt64(sql_value(0, 2));
	mib = DatumGetFloat8(sql_value(0, 3));
	SPI_freetuptable(SPI_tuptable);

	if (stuck > 0)
		say(examination, "backups", "warning",
			psprintf("%lld backed-up files are needed again, and could not be put back",
					 (long long) stuck),
			"See cleanup_files, column error; cleanup_restore(file, restore_as) puts one back under another name.");
	else if (backups > 0 || plan->settings->backup_retention_days > 0)
		say(examination, "backups", "ok",
			psprintf("%lld backed-up files hold %.2f MiB; new ones are kept for %d days",
					 (long long) backups, mib, plan->settings->backup_retention_days), NULL);
}

/* What may be wrong with it before a server is asked. */
static const char *
find_mail_error(const MailSettings *settings)
{
	const char *error = mail_settings_lack(settings);

	return error ? error : mailer_check_secret(settings);
}

static void
check_undelivered(const Examination *examination, const CleanupPlan *plan)
{
	OutboxState state;

	outbox_look(plan->extension, &state);
	if (state.waiting + state.given_up > 0)
		say(examination, "mail", "warning",
			psprintf("mails that wait to be sent again: %lld, that were given up: %lld; %s",
					 (long long) state.waiting, (long long) state.given_up,
					 state.error ? state.error : "the process that sent them was ended"),
			"SELECT cleanup_send_test_mail() tries it now; cleanup_mail has a row for each.");
}

static void
check_mail(const Examination *examination, const CleanupPlan *plan)
{
	const MailSettings *settings = mail_settings_snapshot();
	const char *off = mail_settings_off(settings);
	const char *error = off ? NULL : find_mail_error(settings);

	if (off != NULL)
		say(examination, "mail", "ok", psprintf("no mail is sent: %s", off), NULL);
	else if (error != NULL)
		say(examination, "mail", "error", psprintf("no mail can be sent: %s", error),
			"Mail waits for two days; SELECT cleanup_send_test_mail() shows whether it goes.");
	else
	{
		say(examination, "mail", "ok",
			psprintf("mail about %s goes to %d address%s by %s", mail_settings_about(settings),
					 settings->n_to, settings->n_to == 1 ? "" : "es", settings->url), NULL);
		check_undelivered(examination, plan);
	}
}

static void
check_workers(const Examination *examination)
{
	if (max_worker_processes == 0)
		say(examination, "workers", "warning",
			"max_worker_processes is 0: deleted files give back their space only with the next call",
			"Raise max_worker_processes.");
	else
		say(examination, "workers", "ok",
			psprintf("max_worker_processes is %d; one is needed for a moment after a run",
					 max_worker_processes), NULL);
}

static void
examine(const Examination *examination, CleanupPlan *plan)
{
	plan_survey(plan, false);

	say_brakes(examination, plan);
	check_directory(examination, plan);
	check_claim(examination, plan);
	check_sources(examination, plan);
	if (plan->surveyed)
	{
		check_references(examination, plan);
		check_each_source(examination, plan);
		check_statuses(examination, plan);
		check_unmatched(examination, plan);
		check_unregistered(examination, plan);
	}
	check_settings(examination, plan);
	check_outstanding(examination, plan);
	check_backups(examination, plan);
	check_mail(examination, plan);
	check_workers(examination);
	check_preload(examination);
	check_schedule(examination, plan);
}

void
doctor_examine(DoctorSink sink, void *arg)
{
	Examination examination = {sink, arg};
	CleanupPlan *plan;

	SPI_connect();
	plan = plan_begin(CLEAN_ALL, true, false);
	PG_TRY();
	{
		examine(&examination, plan);
	}
	PG_FINALLY();
	{
		plan_end(plan);
	}
	PG_END_TRY();
	SPI_finish();
}
