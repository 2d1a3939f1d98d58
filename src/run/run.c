/*-------------------------------------------------------------------------
 *
 * run/run.c
 *	  A run from beginning to end: plan, record, carry out, report.
 *
 * There are two kinds of real run.  One takes place in somebody's
 * transaction and is part of it: nothing happens on disk before COMMIT, and a
 * worker does what is left then.  The other is its own master: it commits
 * after each batch and drains it at once, so it can say at the end what has
 * become of the files, and what it did is kept if it is cut short.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "tcop/pquery.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "src/drain/at_commit.h"
#include "src/drain/drain.h"
#include "src/drain/heal.h"
#include "src/ledger/history.h"
#include "src/ledger/ledger.h"
#include "src/ledger/notify.h"
#include "src/mail/outbox.h"
#include "src/pg/lock.h"
#include "src/pg/progress.h"
#include "src/pg/sql.h"
#include "src/plan/unregistered.h"
#include "src/run/report.h"
#include "src/run/run.h"

/* A result must outlive SPI. */
static Jsonb *
copy_to(MemoryContext context, Jsonb *jsonb)
{
	Jsonb	   *copy = MemoryContextAlloc(context, VARSIZE(jsonb));

	memcpy(copy, jsonb, VARSIZE(jsonb));
	return copy;
}

static void
connect(int options)
{
	int			rc = SPI_connect_ext(options);

	if (rc != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI: %s", SPI_result_code_string(rc));
}

void
run_take_read_committed(void)
{
	if (!IsolationUsesXactSnapshot())
		return;
	connect(SPI_OPT_NONATOMIC);
	/* before its first snapshot a transaction may change its mind */
	SPI_commit();
	(void) set_config_option("transaction_isolation", "read committed", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	SPI_finish();
	EnsurePortalSnapshotExists();
}

/* Who asked: seen through SECURITY DEFINER functions of the application. */
static const char *
requester(void)
{
	return GetUserNameFromId(GetOuterUserId(), false);
}

static int64
begin_run(const CleanupPlan *plan, const char *trigger, int32 scheduled_for, bool batches)
{
	LedgerRun	run = {
		.what = plan_what_text(plan->what),
		.trigger = trigger,
		.requested_by = requester(),
		.batches = batches,
		.scheduled_for = scheduled_for,
		.upload_dir = plan->settings->upload_dir,
		.settings = settings_to_jsonb(),
	};

	return ledger_begin_run(plan->extension, &run);
}

/*
 * The first run of a database in an unclaimed directory claims it.  Now it is
 * known whose folder of a backup directory is used: that of the claim, because
 * several databases, or several directories of one, may share it.
 */
static void
claim_directory(CleanupPlan *plan)
{
	const char *upload_dir = plan->settings->upload_dir;
	const char *uuid = plan->claim->uuid;
	char	   *text;

	switch (plan->claim->state)
	{
		case CLAIM_OURS:
			claim_confirm(plan->extension, plan->claim, upload_dir);
			break;
		case CLAIM_FREE:
			text = claim_take(plan->extension, upload_dir, NULL, false, &uuid);
			at_commit_claim(plan->settings, text, false);
			break;
		case CLAIM_UNWRITTEN:
			at_commit_claim(plan->settings, claim_text(uuid), false);
			break;
		case CLAIM_FOREIGN:
			brake_raise(plan->claim->brake);
	}
	plan->settings->backup_owner = MemoryContextStrdup(plan->context, uuid);
}

static void
record_claim(const CleanupPlan *plan, int64 run_id)
{
	const char *uuid = plan->settings->backup_owner;

	ledger_set_claim(plan->extension, run_id, uuid, *plan->settings->backup_dir != '\0' ? uuid : NULL);
}

Jsonb *
run_preview(CleanWhat what, bool force, bool status)
{
	MemoryContext caller = CurrentMemoryContext;
	CleanupPlan *plan;
	Jsonb	   *volatile result = NULL;

	connect(0);
	plan = plan_begin(what, true, force);
	PG_TRY();
	{
		progress_begin(plan->context, "sql", true, false);
		plan_check_transaction(plan);
		plan_survey(plan, false);
		if (status)
			plan->warnings = unregistered_search(plan, false);
		result = copy_to(caller, status ? report_status(plan) :
						 report_condemned(plan, plan->condemned, 0));
	}
	PG_FINALLY();
	{
		plan_end(plan);
	}
	PG_END_TRY();
	SPI_finish();
	return result;
}

/* Before a run gets its number, which a run that was lost may have had. */
static void
heal(CleanupPlan *plan)
{
	plan->healed = heal_directory(plan->extension, plan->settings);
	if (plan->healed > 0)
		at_commit_start_worker();
}

static Jsonb *
condemn_in_transaction(CleanupPlan *plan, const char *trigger, MemoryContext caller)
{
	Condemned  *condemned;
	Jsonb	   *result;
	int64		run_id;

	progress_begin(plan->context, trigger, false, false);
	plan_check_transaction(plan);
	lock_run(plan->extension, plan->settings->writer_wait, false);
	heal(plan);
	drain_in_transaction(plan->extension);

	plan_survey(plan, false);
	claim_directory(plan);
	run_id = plan->run_id = begin_run(plan, trigger, LEDGER_NO_DAY, false);
	record_claim(plan, run_id);
	condemned = plan_condemn(plan, PG_INT64_MAX);
	progress_set_run(run_id);
	if (condemned != NULL && condemned->n_files > 0)
	{
		ledger_add_files(plan->extension, run_id, condemned,
						 plan->settings->backup_retention_days);
		at_commit_capture(plan->settings, run_id, condemned);
		at_commit_start_worker();
	}
	else
		drain_finish_run(plan->extension, run_id);

	result = copy_to(caller, report_condemned(plan, condemned, run_id));
	if (condemned != NULL)
		condemned_end(condemned);
	return result;
}

/*
 * A transaction that has failed keeps its memory, and with it the lock of the
 * directory and the row in cleanup_progress, until the client says ROLLBACK.
 */
Jsonb *
run_in_transaction(CleanWhat what, bool force, const char *trigger)
{
	MemoryContext caller = CurrentMemoryContext;
	CleanupPlan *plan;
	Jsonb	   *volatile result = NULL;

	connect(0);
	plan = plan_begin(what, false, force);
	PG_TRY();
	{
		result = condemn_in_transaction(plan, trigger, caller);
	}
	PG_FINALLY();
	{
		plan_end(plan);
	}
	PG_END_TRY();
	SPI_finish();
	return result;
}


/* ----------------------------------------------------------------- batches --- */

/* A run in batches, with what its transactions share. */
typedef struct BatchRun
{
	CleanupPlan *plan;
	int64		run_id;
	Pace		pace;
	bool		more;			/* the survey has further files */
} BatchRun;

/* At the beginning of each transaction, before any of our tables is used. */
static void
require_extension(const BatchRun *run)
{
	if (!lock_extension(run->plan->extension))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" was dropped during a cleanup run", EXTENSION_NAME)));
}

/*
 * Drain one run, committing after each step.  What has to wait for a writer
 * is left to a worker, which waits longer than a caller wants to.
 */
static void
drain_run(const BatchRun *run, const LedgerWork *work, bool finish)
{
	Drain	   *drain;

	require_extension(run);
	drain = drain_begin(run->plan->extension, work, false);
	if (drain == NULL)
		return;
	drain->pace = run->pace;
	PG_TRY();
	{
		bool		more;

		do
		{
			TimestampTz began = GetCurrentTimestamp();

			require_extension(run);
			more = drain_step(drain, finish);
			SPI_commit_and_chain();
			drain_rest(drain, began);
		} while (more && !pace_is_over(&run->pace));
		if (drain->put_off && finish)
			at_commit_start_worker_now();
	}
	PG_FINALLY();
	{
		drain_end(drain);
	}
	PG_END_TRY();
}

/* A run that was ended before it condemned a file needs no directory to be over. */
static void
finish_empty_run(const BatchRun *run, const LedgerWork *work)
{
	require_extension(run);
	drain_finish_run(run->plan->extension, work->run_id);
	SPI_commit_and_chain();
}

/* The run itself, or the others before it. */
static void
drain_runs(const BatchRun *run, bool own, bool finish)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup drain",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	ListCell   *lc;

	require_extension(run);
	foreach(lc, ledger_unfinished_runs(run->plan->extension, own ? run->run_id : 0))
	{
		const LedgerWork *work = lfirst(lc);

		if (!own && work->run_id != run->run_id && work->files == 0)
			finish_empty_run(run, work);
		else if (own == (work->run_id == run->run_id))
			drain_run(run, work, finish);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

static const char *
status_of(const CleanupPlan *plan, const ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		return "interrupted";
	/* giving up waiting for a writer is in doubt, too */
	if (plan->blocked || error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		return "blocked";
	return "failed";
}

static char *
error_text(const ErrorData *error)
{
	return error->detail ? psprintf("%s: %s", error->message, error->detail) :
		pstrdup(error->message);
}

/*
 * Call work(run), which is undone if it ends in an ERROR; then the reason is
 * committed before the ERROR goes on.
 */
static void
attempt(BatchRun *run, void (*work) (void *arg))
{
	ErrorData  *volatile error = NULL;

	require_extension(run);
	PG_TRY();
	{
		error = sql_try(work, run);
	}
	PG_CATCH();
	{
		/* a cancel, passed on after the rollback */
		error = sql_catch(run->plan->context);
	}
	PG_END_TRY();
	if (error == NULL)
		return;
	ledger_cut_short(run->plan->extension, run->run_id, status_of(run->plan, error),
					 error_text(error));
	notify_run(run->plan->extension, run->run_id);
	outbox_put(run->plan->extension, run->run_id);
	SPI_commit_and_chain();
	sql_rethrow(error);
}

static void
survey(void *arg)
{
	BatchRun   *run = arg;

	plan_survey(run->plan, true);
	claim_directory(run->plan);
	record_claim(run->plan, run->run_id);
}

/* The next files are captured when this is committed. */
static void
condemn_batch(void *arg)
{
	BatchRun   *run = arg;
	CleanupPlan *plan = run->plan;
	Condemned  *condemned;

	/* a first run has found no claim that could be locked; now there is one */
	plan_hold_directory(plan);
	if (plan->claim->state != CLAIM_OURS)
		brake_raise(brake_make("claim", ERRCODE_OBJECT_IN_USE,
							   psprintf("the claim of upload directory \"%s\" could not be written",
										plan->settings->upload_dir),
							   NULL, NULL));
	condemned = plan_condemn(plan, plan->settings->batch_size);
	run->more = condemned != NULL;
	if (condemned == NULL)
		return;
	if (condemned->n_files > 0)
	{
		ledger_add_files(plan->extension, run->run_id, condemned,
						 plan->settings->backup_retention_days);
		at_commit_capture(plan->settings, run->run_id, condemned);
	}
	condemned_end(condemned);
}

/* The caller is told, too. */
static void
stop_in_time(const BatchRun *run)
{
	MemoryContext caller = MemoryContextSwitchTo(run->plan->context);
	char	   *text = psprintf("stopped after %d minutes (audio_cleanup.max_run_minutes); the next run goes on",
								run->pace.max_run_minutes);

	run->plan->warnings = lappend(run->plan->warnings, text);
	ledger_cut_short(run->plan->extension, run->run_id, "interrupted", text);
	notify_run(run->plan->extension, run->run_id);
	outbox_put(run->plan->extension, run->run_id);
	MemoryContextSwitchTo(caller);
}

/* At least one batch a run, however long the survey took. */
static void
run_batches(BatchRun *run)
{
	do
	{
		attempt(run, condemn_batch);
		SPI_commit_and_chain();
		if (run->more)
			drain_runs(run, true, false);
	} while (run->more && !pace_is_over(&run->pace));

	require_extension(run);
	if (run->more)
		stop_in_time(run);
	else
		ledger_end_batches(run->plan->extension, run->run_id);
	SPI_commit_and_chain();
}

/* Under the run lock, which outlives the transactions. */
static int64
run_to_end(CleanupPlan *plan, RunRequest *request)
{
	BatchRun	run = {plan, 0, pace_begin(plan->settings), false};
	int			guc_level;

	plan_limit_reading(plan->settings, true);
	heal(plan);
	/* who begins by night has others waiting behind him */
	guc_level = lock_limit_waits(plan->settings->writer_wait);
	run.run_id = begin_run(plan, request->trigger, request->scheduled_for, true);
	lock_end_limit(guc_level);
	SPI_commit_and_chain();
	request->run_id = plan->run_id = run.run_id;
	progress_set_run(run.run_id);

	drain_runs(&run, false, true);
	attempt(&run, survey);
	SPI_commit_and_chain();
	run_batches(&run);
	drain_runs(&run, true, true);
	return run.run_id;
}

/* After all locks are given back: nobody waits for that. */
static void
prune_history(void)
{
	Extension  *extension = extension_lookup(true);
	bool		more = extension != NULL;

	while (more)
	{
		CHECK_FOR_INTERRUPTS();
		more = history_prune(extension);
		SPI_commit_and_chain();
	}
}

Jsonb *
run_in_batches(RunRequest *request)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile int64 run_id = 0;
	CleanupPlan *plan;
	Jsonb	   *result;

	connect(SPI_OPT_NONATOMIC);
	plan = plan_begin(request->what, false, request->force);
	progress_begin(plan->context, request->trigger, false, true);
	PG_TRY();
	{
		plan_check_transaction(plan);
		lock_run(plan->extension, plan->settings->writer_wait, true);
		run_id = run_to_end(plan, request);
	}
	PG_CATCH();
	{
		/* what was committed before is not left lying about */
		lock_release(plan->extension, LOCK_RUN);
		if (request->run_id != 0 && (!plan->blocked || plan->surveyed))
			at_commit_start_worker_now();

		/*
		 * A procedure's portal stays until the next command of its session:
		 * neither temporary files nor the directory's lock are to wait for it
		 */
		plan_end(plan);
		PG_RE_THROW();
	}
	PG_END_TRY();
	lock_release(plan->extension, LOCK_RUN);
	result = copy_to(caller, report_outcome(plan, run_id));
	plan_end(plan);
	if (!request->leave_history)
		prune_history();
	SPI_finish();
	return result;
}


/* ------------------------------------------------------------------- claim --- */

/*
 * Taken over from somebody, the directory holds files that this database has
 * not seen before: they are new to it.  A claim that cannot be read could not
 * be written either.
 */
static void
take_over(CleanupPlan *plan)
{
	const char *upload_dir = plan->settings->upload_dir;
	const Claim *claim = plan->claim;
	bool		foreign = claim->state == CLAIM_FOREIGN;
	const char *uuid;

	if (claim->state == CLAIM_OURS)
	{
		claim_confirm(plan->extension, claim, upload_dir);
		ereport(NOTICE,
				(errmsg("upload directory \"%s\" belongs to this database already", upload_dir)));
		return;
	}
	if (foreign && claim->brake->sqlstate == ERRCODE_IO_ERROR)
		brake_raise(claim->brake);
	/* not in the middle of somebody's run */
	plan_lock_directory(plan);
	at_commit_claim(plan->settings,
					claim_take(plan->extension, upload_dir, claim->found, foreign, &uuid), foreign);
	plan->settings->claim = uuid;
	/* what they had in the trash, or we on a timeline that has ended */
	if (foreign)
		(void) heal_strays(plan->extension, plan->settings, claim->found, true);
}

void
run_claim(void)
{
	CleanupPlan *plan;

	connect(0);
	plan = plan_begin(CLEAN_ALL, false, false);
	PG_TRY();
	{
		plan_check_transaction(plan);
		lock_run(plan->extension, plan->settings->writer_wait, false);
		plan_open_directory(plan);
		take_over(plan);
	}
	PG_FINALLY();
	{
		plan_end(plan);
	}
	PG_END_TRY();
	SPI_finish();
}
