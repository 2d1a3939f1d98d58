/*-------------------------------------------------------------------------
 *
 * run.c
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

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "src/at_commit.h"
#include "src/drain.h"
#include "src/ledger.h"
#include "src/report.h"
#include "src/run.h"
#include "src/unregistered.h"

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

/* Who asked: seen through SECURITY DEFINER functions of the application. */
static const char *
requester(void)
{
	return GetUserNameFromId(GetOuterUserId(), false);
}

static int64
begin_run(const CleanupPlan *plan, const char *trigger, bool batches)
{
	LedgerRun	run = {
		.what = plan_what_text(plan->what),
		.trigger = trigger,
		.requested_by = requester(),
		.batches = batches,
		.upload_dir = plan->settings->upload_dir,
		.settings = settings_to_jsonb(),
	};

	return ledger_begin_run(plan->extension, &run);
}

/* The first run of a database in an unclaimed directory claims it. */
static void
claim_directory(const CleanupPlan *plan)
{
	const char *upload_dir = plan->settings->upload_dir;

	switch (plan->claim->state)
	{
		case CLAIM_OURS:
			claim_confirm(plan->extension, plan->claim, upload_dir);
			break;
		case CLAIM_FREE:
			at_commit_claim(plan->settings, claim_take(plan->extension, upload_dir, false), false);
			break;
		case CLAIM_UNWRITTEN:
			at_commit_claim(plan->settings, claim_text(plan->claim->uuid), false);
			break;
		case CLAIM_FOREIGN:
			brake_raise(plan->claim->brake);
	}
}

Jsonb *
run_preview(CleanWhat what, bool force, bool status)
{
	MemoryContext caller = CurrentMemoryContext;
	CleanupPlan *plan;
	Jsonb	   *result;

	connect(0);
	plan = plan_begin(what, true, force);
	plan_check_transaction(plan);
	plan_survey(plan, false);
	if (status)
		plan->warnings = unregistered_search(plan);
	result = copy_to(caller, status ? report_status(plan) :
					 report_condemned(plan, plan->condemned, 0));
	plan_end(plan);
	SPI_finish();
	return result;
}

Jsonb *
run_in_transaction(CleanWhat what, bool force, const char *trigger)
{
	MemoryContext caller = CurrentMemoryContext;
	Condemned  *condemned;
	CleanupPlan *plan;
	Jsonb	   *result;
	int64		run_id;

	connect(0);
	plan = plan_begin(what, false, force);
	plan_check_transaction(plan);
	extension_lock_run(plan->extension, plan->settings->writer_wait, false);
	drain_in_transaction(plan->extension);

	plan_survey(plan, false);
	claim_directory(plan);
	condemned = plan_condemn(plan, PG_INT64_MAX);
	run_id = begin_run(plan, trigger, false);
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
	plan_end(plan);
	SPI_finish();
	return result;
}


/* ----------------------------------------------------------------- batches --- */

/*
 * Drain one run, committing after each step.  What has to wait for a writer
 * is left to a worker, which waits longer than a caller wants to.
 */
static void
drain_run(const Extension *extension, const LedgerWork *work, bool finish)
{
	Drain	   *drain = drain_begin(extension, work, false);

	if (drain == NULL)
		return;
	PG_TRY();
	{
		bool		more;

		do
		{
			more = drain_step(drain, finish);
			SPI_commit();
		} while (more);
		if (drain->put_off && finish)
			at_commit_start_worker_now();
	}
	PG_FINALLY();
	{
		drain_end(drain);
	}
	PG_END_TRY();
}

static void
drain_runs(const Extension *extension, int64 only_run, bool finish)
{
	ListCell   *lc;

	foreach(lc, ledger_unfinished_runs(extension, only_run))
		drain_run(extension, lfirst(lc), finish);
}

/* The next batch: condemn, commit (which captures), drain. */
static bool
run_batch(CleanupPlan *plan, int64 run_id)
{
	Condemned  *condemned = plan_condemn(plan, plan->settings->batch_size);

	if (condemned == NULL)
		return false;
	if (condemned->n_files > 0)
	{
		ledger_add_files(plan->extension, run_id, condemned,
						 plan->settings->backup_retention_days);
		at_commit_capture(plan->settings, run_id, condemned);
	}
	condemned_end(condemned);
	SPI_commit();
	drain_runs(plan->extension, run_id, false);
	return true;
}

/* Under the run lock, which outlives the transactions. */
static int64
run_batches(CleanupPlan *plan, const char *trigger)
{
	int64		run_id;

	drain_runs(plan->extension, 0, true);
	plan_survey(plan, true);
	claim_directory(plan);
	run_id = begin_run(plan, trigger, true);
	SPI_commit();
	while (run_batch(plan, run_id))
		CHECK_FOR_INTERRUPTS();
	ledger_end_batches(plan->extension, run_id);
	SPI_commit();
	drain_runs(plan->extension, run_id, true);
	return run_id;
}

Jsonb *
run_in_batches(CleanWhat what, bool force, const char *trigger)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile int64 run_id = 0;
	CleanupPlan *plan;
	Jsonb	   *result;

	connect(SPI_OPT_NONATOMIC);
	plan = plan_begin(what, false, force);
	plan_check_transaction(plan);
	extension_lock_run(plan->extension, plan->settings->writer_wait, true);
	PG_TRY();
	{
		run_id = run_batches(plan, trigger);
	}
	PG_CATCH();
	{
		/* its temporary files outlive the transaction */
		if (plan->condemned != NULL)
			condemned_end(plan->condemned);
		plan->condemned = NULL;
		/* what was committed before is not left lying about */
		extension_unlock_run(plan->extension);
		at_commit_start_worker_now();
		PG_RE_THROW();
	}
	PG_END_TRY();
	extension_unlock_run(plan->extension);
	result = copy_to(caller, report_outcome(plan, run_id));
	plan_end(plan);
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
take_over(const CleanupPlan *plan)
{
	const char *upload_dir = plan->settings->upload_dir;
	const Claim *claim = plan->claim;
	bool		foreign = claim->state == CLAIM_FOREIGN;

	if (claim->state == CLAIM_OURS)
	{
		ereport(NOTICE,
				(errmsg("upload directory \"%s\" belongs to this database already", upload_dir)));
		return;
	}
	if (foreign && claim->brake->sqlstate == ERRCODE_IO_ERROR)
		brake_raise(claim->brake);
	at_commit_claim(plan->settings, claim_take(plan->extension, upload_dir, foreign), foreign);
}

void
run_claim(void)
{
	CleanupPlan *plan;

	connect(0);
	plan = plan_begin(CLEAN_ALL, false, false);
	plan_check_transaction(plan);
	extension_lock_run(plan->extension, plan->settings->writer_wait, false);
	plan_open_directory(plan);
	take_over(plan);
	plan_end(plan);
	SPI_finish();
}
