/*-------------------------------------------------------------------------
 *
 * run/run.c
 *	  A preview, and a run in the transaction of the caller.
 *
 * The run condemns files in the caller's transaction.  Only the commit of
 * that transaction touches the files: see at_commit.h.
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

#include "src/drain/at_commit.h"
#include "src/drain/drain.h"
#include "src/drain/heal.h"
#include "src/pg/lock.h"
#include "src/pg/progress.h"
#include "src/pg/snapshot.h"
#include "src/run/private.h"
#include "src/run/report.h"

/*
 * The first run of a database in an unclaimed directory claims the directory.
 * The folder in a backup directory has the claim's UUID as its name, because
 * several databases, or several directories of one database, may share the
 * backup directory.
 */
Place
run_claim_directory(const CleanupPlan *plan, int64 run_id)
{
	const Context *context = plan_context(plan);
	const Claim *claim = plan_findings(plan)->claim;
	const char *uuid = claim->uuid;
	const char *text = NULL;
	Place		place;

	switch (claim->state)
	{
		case CLAIM_OURS:
			claim_confirm(context->extension, claim, context->settings->upload_dir);
			break;
		case CLAIM_FREE:
			text = claim_take(context->extension, context->settings->upload_dir, NULL, false, &uuid);
			break;
		case CLAIM_UNWRITTEN:
			text = claim_text(uuid);
			break;
		case CLAIM_FOREIGN:
			brake_raise(claim->brake);
	}
	place = location_place(context->settings, uuid);
	if (text != NULL)
	{
		const Place upload_only = location_place(context->settings, NULL);

		at_commit_claim(&upload_only, text, false);
	}
	ledger_set_claim(context->extension, run_id, uuid, *place.backup_dir != '\0' ? uuid : NULL);
	return place;
}

int64
run_condemn_uploads(const CleanupPlan *plan, int64 run_id)
{
	const PlanFindings *found = plan_findings(plan);

	/*
	 * another process acts on the decision after the commit, so the decision
	 * must be final
	 */
	if (found->old_uploads != NIL)
		ForceSyncCommit();
	return ledger_add_uploads(plan_context(plan)->extension, run_id, found->claim->uuid, found->old_uploads);
}

void
run_end_search(const CleanupPlan *plan, int64 run_id)
{
	const PlanFindings *found = plan_findings(plan);
	int64		more = found->n_errors - 1;
	const char *message = found->first_error;

	if (more > 0)
		message = psprintf("%s (and %lld more error%s)", message, (long long) more, more == 1 ? "" : "s");
	ledger_end_search(plan_context(plan)->extension, run_id, found->n_errors, message);
}


/* ------------------------------------------------------------- in a transaction --- */

static Jsonb *
preview(CleanupPlan *plan, void *arg)
{
	RunPreview	of = *(RunPreview *) arg;

	progress_begin("sql", true, false);
	plan_check_transaction(plan);
	plan_check_nodes(plan, of != PREVIEW_OF_CALL);
	plan_survey(plan, false);
	if (of != PREVIEW_OF_STATUS)
		return report_condemned(plan, plan_findings(plan)->condemned, list_length(plan_findings(plan)->old_uploads), 0, 0);
	plan_advise(plan);
	return report_status(plan);
}

Jsonb *
run_preview(CleanWhat what, bool force, RunPreview of)
{
	return plan_call(what, true, force, preview, &of);
}

static Jsonb *
condemn_in_transaction(CleanupPlan *plan, void *arg)
{
	const Context *context = plan_context(plan);
	Condemned  *condemned;
	Jsonb	   *report;
	Place		place;
	int64		healed;
	int64		run_id;
	int64		uploads;

	progress_begin("sql", false, false);
	plan_check_transaction(plan);
	lock_run(context->extension, context->settings->writer_wait, false);
	plan_check_nodes(plan, false);
	healed = heal_directory(context, HEAL_ALL);
	drain_in_transaction(context->extension);

	plan_survey(plan, false);
	run_id = ledger_begin_run(context, plan_what_text(plan_what(plan)), "sql", LEDGER_NO_DAY, false);
	place = run_claim_directory(plan, run_id);
	condemned = plan_condemn(plan, run_id, PG_INT64_MAX);
	progress_set(PROGRESS_RUN, run_id);
	uploads = run_condemn_uploads(plan, run_id);
	if (condemned != NULL && condemned->n_files > 0)
	{
		ledger_add_files(context->extension, run_id, condemned,
						 context->settings->backup_retention_days);
		at_commit_capture(&place, run_id, condemned);
	}
	run_end_search(plan, run_id);
	if (uploads > 0 || (condemned != NULL && condemned->n_files > 0))
		at_commit_start_worker();
	else
		drain_finish_run(context->extension, run_id);

	report = report_condemned(plan, condemned, uploads, run_id, healed);
	if (condemned != NULL)
		condemned_end(condemned);
	return report;
}

Jsonb *
run_in_transaction(CleanWhat what, bool force)
{
	return plan_call(what, false, force, condemn_in_transaction, NULL);
}


/* ------------------------------------------------------------------ procedure --- */

void
run_take_read_committed(void)
{
	if (!IsolationUsesXactSnapshot())
		return;
	SPI_connect_ext(SPI_OPT_NONATOMIC);

	/*
	 * a transaction may change its isolation level only before its first
	 * snapshot
	 */
	SPI_commit();
	(void) set_config_option("transaction_isolation", "read committed", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	SPI_finish();
	EnsurePortalSnapshotExists();
}

Jsonb *
run_procedure(bool force)
{
	MemoryContext caller = CurrentMemoryContext;
	RunRequest	request = {CLEAN_ALL, force, "sql", LEDGER_NO_DAY, SPI_commit_and_chain};
	Extension  *extension;
	Jsonb	   *volatile report;
	Jsonb	   *copy;

	SPI_connect_ext(SPI_OPT_NONATOMIC);

	/*
	 * the server keeps a snapshot for the result of the CALL until the first
	 * commit
	 */
	SPI_commit_and_chain();
	snapshot_set_call(true);
	PG_TRY();
	{
		report = run_in_batches(&request);
	}
	PG_FINALLY();
	{
		snapshot_set_call(false);
	}
	PG_END_TRY();
	copy = MemoryContextAlloc(caller, VARSIZE(report));
	memcpy(copy, report, VARSIZE(report));

	/*
	 * prune the history after all locks are given back, so that nobody waits
	 * for the pruning
	 */
	extension = extension_lookup(true);
	for (bool more = extension != NULL; more;)
	{
		CHECK_FOR_INTERRUPTS();
		more = history_prune(extension);
		SPI_commit_and_chain();
	}
	SPI_finish();
	return copy;
}
