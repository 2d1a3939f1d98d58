/*-------------------------------------------------------------------------
 *
 * run/batches.c
 *	  A run that commits in batches.
 *
 * The run commits the files that it condemns, and drains these files in steps.
 * So the run can report the outcome of the files at its end, and the work of a
 * run that is cut short is kept.  The sources are read equally often for a
 * million files and for one file.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "src/drain/at_commit.h"
#include "src/drain/drain.h"
#include "src/drain/heal.h"
#include "src/mail/outbox.h"
#include "src/pg/lock.h"
#include "src/pg/progress.h"
#include "src/pg/sql.h"
#include "src/run/private.h"
#include "src/run/report.h"

/* A run in batches, and the data that its transactions share. */
typedef struct BatchRun
{
	RunRequest *request;
	CleanupPlan *plan;
	const Context *context;
	MemoryContext memory;		/* context that outlives the transactions */
	Place		place;
	Pace		pace;
	int64		healed;
	bool		more;			/* the survey has more files */
} BatchRun;

/*
 * Keeps DROP EXTENSION waiting.  Must be called at the beginning of each
 * transaction, before any of our tables is used.
 */
static void
require_extension(const BatchRun *run)
{
	if (!lock_extension(run->context->extension))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" was dropped during a cleanup run", EXTENSION_NAME)));
}

static bool
begin_batch_step(void *arg)
{
	require_extension(arg);
	return true;
}

static void
commit_batch_step(void *arg)
{
	((const BatchRun *) arg)->request->commit();
}

/*
 * Drains this run, or with `own` false the other runs.  A file that has to wait
 * for a writer is left to a drain worker, which waits longer than a caller
 * should.
 */
static void
drain_runs(BatchRun *run, bool own, bool finish)
{
	const DrainTransactions transactions = {begin_batch_step, commit_batch_step, run};
	int64		run_id = run->request->run_id;
	const Extension *extension = run->context->extension;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup drain",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);

	require_extension(run);
	foreach_ptr(const LedgerWork, work, ledger_unfinished_runs(extension, own ? run_id : 0))
	{
		if (own != (work->run_id == run_id))
			continue;
		require_extension(run);
		if (!own && work->files == 0)
		{
			/*
			 * a run that was ended before it condemned a file needs no
			 * directory
			 */
			drain_finish_run(extension, work->run_id);
			run->request->commit();
		}
		else if (drain_run(extension, work, &run->pace, finish, &transactions) && finish)
			at_commit_start_worker_now();
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

/*
 * Records why the run ends before all files were seen, and notifies listeners
 * and the recipients of mail.  Does nothing if the run has a reason already.
 */
static void
cut_short(const Extension *extension, int64 run_id, const char *status, const char *message)
{
	if (!ledger_cut_short(extension, run_id, status, message))
		return;
	notify_run(extension, run_id);
	outbox_put(extension, run_id);
}

/* Records that the run ends because of `error`.  `blocked`: a brake has refused the run. */
static void
cut_short_by(const Extension *extension, int64 run_id, const ErrorData *error, bool blocked)
{
	const char *status = "failed";

	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		status = "interrupted";
	/* giving up waiting for a writer is a case of doubt, too */
	else if (blocked || error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		status = "blocked";
	cut_short(extension, run_id, status,
			  error->detail ? psprintf("%s: %s", error->message, error->detail) : error->message);
}

void
run_record_failure(const Extension *extension, const RunRequest *request, const ErrorData *error)
{
	cut_short_by(extension, request->run_id, error, false);
	if (request->leaves_work)
		at_commit_start_worker();
}

/*
 * Calls work(run).  If the work ends in an ERROR, rolls the work back, and
 * commits the reason before raising the ERROR again.
 */
static void
attempt(BatchRun *run, void (*work) (void *arg))
{
	ErrorData  *error;

	require_extension(run);
	error = sql_try_all(work, run);
	if (error == NULL)
		return;
	cut_short_by(run->context->extension, run->request->run_id, error, plan_findings(run->plan)->blocked);
	run->request->commit();
	sql_rethrow(error);
}

/* Reads the sources, and so must come after the run is recorded: else nobody would learn why it has ended. */
static void
heal_needed(void *arg)
{
	BatchRun   *run = arg;

	run->healed += heal_directory(run->context, HEAL_BACKUPS);
}

static void
survey_directory(void *arg)
{
	BatchRun   *run = arg;

	plan_limit_reading(run->context->settings, true);
	plan_check_nodes(run->plan, true);
	plan_survey(run->plan, true);
	run->place = run_claim_directory(run->plan, run->request->run_id);
	run->place.backup_owner = MemoryContextStrdup(run->memory, run->place.backup_owner);
}

/* Condemns the next files.  The commit captures these files. */
static void
condemn_batch(void *arg)
{
	BatchRun   *run = arg;
	const Settings *settings = run->context->settings;
	const PlanFindings *found = plan_findings(run->plan);
	int64		run_id = run->request->run_id;
	Condemned  *condemned;

	/*
	 * the first batch of a first run found no claim to lock; now there is a
	 * claim
	 */
	plan_lock_own_directory(run->plan);
	if (found->claim->state == CLAIM_UNWRITTEN)
	{
		/* the commit callback of a bucket may not wait for a network */
		(void) store_write_claim(found->store, claim_text(found->claim->uuid), false);
		plan_lock_own_directory(run->plan);
	}
	if (found->claim->state != CLAIM_OURS)
		brake_raise(brake_make("claim", ERRCODE_OBJECT_IN_USE,
							   psprintf("the claim of upload directory \"%s\" could not be written",
										settings->upload_dir),
							   NULL, NULL));
	if (!run->more)
		(void) run_condemn_uploads(run->plan, run_id);
	condemned = plan_condemn(run->plan, run_id, settings->batch_size);
	run->more = condemned != NULL && found->has_more;
	if (condemned == NULL)
		return;
	if (condemned->n_files > 0)
	{
		ledger_add_files(run->context->extension, run_id, condemned, settings->backup_retention_days);
		at_commit_capture(&run->place, run_id, condemned);
	}
	condemned_end(condemned);
}

/* Condemns at least one batch in every run, even if the survey took all the time. */
static void
condemn_and_drain(BatchRun *run)
{
	const Extension *extension = run->context->extension;
	int64		run_id = run->request->run_id;

	do
	{
		attempt(run, condemn_batch);
		run->request->commit();
	} while (run->more && !pace_is_over(&run->pace));

	drain_runs(run, true, false);
	require_extension(run);
	/* a run that took long may have done everything */
	if (pace_is_over(&run->pace) && (run->more || ledger_has_work(extension, run_id)))
	{
		char	   *text = psprintf("stopped after %d minutes (audio_cleanup.max_run_minutes); the next run goes on",
									run->context->settings->max_run_minutes);

		/* the caller gets a warning, too */
		plan_add_warning(run->plan, text);
		cut_short(extension, run_id, "interrupted", text);
	}
	else
		run_end_search(run->plan, run_id);
	run->request->commit();
}

/* Makes the run, under the run lock, which outlives the transactions. */
static void
run_to_end(BatchRun *run)
{
	RunRequest *request = run->request;
	int			guc_level;
	int64		run_id;

	/* a run that was lost may have had the number that this run would get */
	run->healed = heal_directory(run->context, HEAL_STRAYS);
	/* at night other databases wait for the end of the run */
	guc_level = lock_limit_waits(run->context->settings->writer_wait);
	run_id = ledger_begin_run(run->context, plan_what_text(plan_what(run->plan)), request->trigger,
							  request->scheduled_for, true);
	lock_end_limit(guc_level);
	request->commit();
	request->run_id = run_id;
	progress_set(PROGRESS_RUN, run_id);

	attempt(run, heal_needed);
	request->commit();
	drain_runs(run, false, true);
	attempt(run, survey_directory);
	request->commit();
	condemn_and_drain(run);
	drain_runs(run, true, true);
}

Jsonb *
run_in_batches(RunRequest *request)
{
	CleanupPlan *plan = plan_begin(request->what, false, request->force);
	const Context *context = plan_context(plan);
	BatchRun	run = {request, plan, context, CurrentMemoryContext};
	Jsonb	   *report;

	run.pace = pace_begin(context->settings);
	PG_TRY();
	{
		progress_begin(request->trigger, false, true);
		plan_check_transaction(plan);
		lock_run(context->extension, context->settings->writer_wait, true);
		run_to_end(&run);
	}
	PG_CATCH();
	{
		/* the worker deals with the files of batches that are committed */
		lock_release(context->extension, LOCK_RUN);
		request->leaves_work = request->run_id != 0 &&
			(!plan_findings(plan)->blocked || plan_findings(plan)->surveyed);
		if (request->leaves_work && !request->records_failure)
			at_commit_start_worker_now();

		/*
		 * the portal of a procedure stays until the next command of its
		 * session, but the temporary files and the lock of the directory must
		 * go now
		 */
		plan_end(plan);
		PG_RE_THROW();
	}
	PG_END_TRY();
	lock_release(context->extension, LOCK_RUN);
	report = report_outcome(plan, request->run_id, run.healed);
	plan_end(plan);
	return report;
}
