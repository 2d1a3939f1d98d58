/*-------------------------------------------------------------------------
 *
 * night/night_worker.c
 *	  The background worker that cleans one database by the schedule.
 *
 * The launcher tells which firing of the schedule has come.  This worker
 * finds out in its database whether there is something to do, because only
 * the database knows what has run.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"

#include "src/drain/at_commit.h"
#include "src/ledger/ledger.h"
#include "src/mail/outbox.h"
#include "src/night/launcher.h"
#include "src/night/timetable.h"
#include "src/pg/lock.h"
#include "src/pg/worker.h"
#include "src/run/run.h"

/*
 * Returns the trigger of the run to be made now, and sets *day to its day.
 * Returns NULL if there is nothing to run.
 */
static const char *
find_trigger(const Extension *extension, const NightJob *job, int32 *day)
{
	const Schedule *schedule = settings_schedule();
	bool		is_new = job->first_look && !job->server_started;
	TimestampTz since = timetable_note(extension, schedule, is_new);
	bool		due = !timetable_has_run(extension, job->firing.day);

	/*
	 * at the first look, a firing was missed only if the schedule was in
	 * force at that time; at -infinity it was not
	 */
	if (job->first_look && due)
		due = !is_new && since < job->firing.at;
	*day = due ? job->firing.day : LEDGER_NO_DAY;
	if (job->server_started && schedule->on_startup && !timetable_has_started(extension))
		return "startup";
	if (!due)
		return NULL;
	return job->first_look ? "catch-up" : "schedule";
}

/* Sets trigger and day of the request.  Returns the extension, allocated in `context`, or NULL. */
static Extension *
look_into_database(const NightJob *job, RunRequest *request, MemoryContext context)
{
	Extension  *extension = worker_begin_in(context);

	/*
	 * do not let the next databases wait for a session that has locked our
	 * tables
	 */
	(void) lock_limit_waits(settings_snapshot()->writer_wait);
	if (extension == NULL || !lock_extension(extension))
		ereport(LOG,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("cannot clean database \"%s\": the extension is not installed there", job->database),
				 errhint("Run CREATE EXTENSION there, or remove the database from audio_cleanup.databases.")));
	else
	{
		request->trigger = find_trigger(extension, job, &request->scheduled_for);
		/* runs that other sessions or a crash have left */
		if (request->trigger == NULL && job->first_look && ledger_unfinished_runs(extension, 0) != NIL)
			at_commit_start_worker();
		outbox_wake(extension);
	}
	worker_commit();
	return extension;
}

static void
commit_and_begin(void)
{
	MemoryContext caller = CurrentMemoryContext;

	worker_commit();
	worker_begin();
	MemoryContextSwitchTo(caller);
}

/* Makes the run, in a memory context that outlives the run's transactions. */
static void
make_run(RunRequest *request, MemoryContext context)
{
	pgstat_report_activity(STATE_RUNNING, psprintf("cleanup run (%s)", request->trigger));
	worker_begin();
	MemoryContextSwitchTo(context);
	(void) run_in_batches(request);
	worker_commit();
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/*
 * Prunes the history whatever the outcome of the run was: otherwise a brake
 * would let the history grow.
 */
static void
prune_history(const Extension *extension)
{
	bool		more;

	pgstat_report_activity(STATE_RUNNING, "pruning the history");
	do
	{
		worker_look_up();
		worker_begin();
		more = history_prune(extension);
		worker_commit();
	} while (more);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* Adds the database to an error, because the log has the lines of several databases. */
static void
add_error_context(void *arg)
{
	errcontext("cleaning database \"%s\" by the schedule of audio_cleanup", (const char *) arg);
}

/*
 * Records why the run has ended, because nobody reads the log by night.  The
 * transaction of the run must have ended.
 */
static void
record_failure(const RunRequest *request, const ErrorData *error, MemoryContext context)
{
	PG_TRY();
	{
		Extension  *extension = worker_begin_in(context);

		if (extension != NULL && lock_extension(extension))
			run_record_failure(extension, request, error);
		worker_commit();
	}
	PG_CATCH();
	{
		worker_give_up(context);
	}
	PG_END_TRY();
}

/*
 * Does the job.  Returns the extension if there was a run whose history is to
 * be pruned, else NULL.
 */
static Extension *
do_job(const NightJob *job, MemoryContext context)
{
	RunRequest	request = {CLEAN_ALL, false, NULL, LEDGER_NO_DAY, commit_and_begin, true};
	Extension  *volatile to_prune = NULL;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		Extension  *extension = look_into_database(job, &request, context);

		if (request.trigger != NULL)
		{
			to_prune = extension;
			make_run(&request, context);
		}
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		/* a lock was not available, before anything was done */
		if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE && request.run_id == 0)
		{
			to_prune = NULL;
			launcher_report_busy(job);
			if (!job->delay_told)
				ereport(LOG,
						(errcode(error->sqlerrcode),
						 errmsg("waiting to clean database \"%s\": %s", job->database, error->message)));
			FlushErrorState();
			AbortCurrentTransaction();
		}
		else
			worker_give_up(context);
	}
	PG_END_TRY();
	if (error != NULL && request.run_id != 0)
		record_failure(&request, error, context);
	return to_prune;
}

void
cleanup_night_worker_main(Datum unused)
{
	MemoryContext context;
	NightJob	job;
	Extension  *to_prune;
	ErrorContextCallback callback = {.callback = add_error_context,.arg = job.database};

	memcpy(&job, MyBgworkerEntry->bgw_extra, sizeof(job));
	error_context_stack = &callback;
	worker_connect(job.database, InvalidOid);
	context = AllocSetContextCreate(TopMemoryContext, "audio_cleanup night",
									ALLOCSET_DEFAULT_SIZES);
	to_prune = do_job(&job, context);
	if (to_prune != NULL)
		prune_history(to_prune);
}
