/*-------------------------------------------------------------------------
 *
 * run/report.c
 *	  The JSON contract: the results of the SQL functions.
 *
 * Lists are cut at audio_cleanup.report_limit, counts never are.  Lists are
 * sorted, so that two reports can be compared.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/binaryheap.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "src/ledger/ledger.h"
#include "src/run/report.h"
#include "src/sources/sources.h"
#include "src/text/json_build.h"
#include "src/text/list.h"

/* Makes the result, which has exactly eight keys. */
static Jsonb *
make_result(const LedgerOutcome *outcome, bool dry_run)
{
	JsonBuilder json;

	json_begin(&json);
	json_add_list(&json, "orphaned_files_deleted", outcome->orphans);
	json_add_integer(&json, "orphaned_files_count", outcome->n_orphans);
	json_add_list(&json, "failed_sessions_cleaned", outcome->sessions);
	json_add_integer(&json, "failed_sessions_count", outcome->n_sessions);
	json_add_decimal(&json, "total_space_freed_mb",
					 (double) outcome->bytes / (1024 * 1024), 2);
	json_add_list(&json, "errors", outcome->errors);
	json_add_integer(&json, "error_count", outcome->n_errors);
	json_add_boolean(&json, "dry_run", dry_run);
	return json_end(&json);
}

static const char *
message(const CleanupPlan *plan)
{
	const char *what = "Full cleanup";

	if (plan_what(plan) == CLEAN_ORPHANS)
		what = "Orphaned file cleanup";
	else if (plan_what(plan) == CLEAN_FAILED)
		what = "Failed session cleanup";
	return psprintf("%s completed%s", what, plan_is_preview(plan) ? " (dry run)" : "");
}

void
report_add_blocked_by(JsonBuilder *json, const PlanFindings *found)
{
	if (found->brakes == NIL && found->notes == NIL)
		return;
	json_begin_array(json, "blocked_by");
	foreach_ptr(const Brake, brake, found->brakes)
		json_add_text(json, NULL, brake->name);
	foreach_ptr(const Brake, note, found->notes)
		json_add_text(json, NULL, note->name);
	json_end_array(json);
}

static Jsonb *
make_envelope(const CleanupPlan *plan, const LedgerOutcome *outcome, const char *text,
			  const char *result_key, int64 run_id, int64 healed, int64 pending)
{
	const PlanFindings *found = plan_findings(plan);
	JsonBuilder json;

	json_begin(&json);
	json_add_boolean(&json, "success", outcome->n_errors == 0);
	json_add_text(&json, "message", text);
	json_add_jsonb(&json, result_key, make_result(outcome, plan_is_preview(plan)));
	if (run_id != 0)
		json_add_integer(&json, "run_id", run_id);
	if (pending > 0)
		json_add_integer(&json, "pending", pending);
	if (found->n_uploads >= 0)
		json_add_integer(&json, "unfinished_uploads", found->n_uploads);
	if (found->n_uploads >= 0 && plan_context(plan)->settings->abort_uploads_after_days > 0)
		json_add_integer(&json, "uploads_ended", outcome->n_uploads);
	if (list_length(outcome->orphans) < outcome->n_orphans ||
		list_length(outcome->sessions) < outcome->n_sessions ||
		list_length(outcome->errors) < outcome->n_errors)
		json_add_boolean(&json, "lists_truncated", true);
	if (healed > 0)
		json_add_integer(&json, "healed", healed);
	report_add_blocked_by(&json, found);
	if (found->warnings != NIL)
		json_add_list(&json, "warnings", found->warnings);
	return json_end(&json);
}


/* --------------------------------------------------------- what is condemned --- */

List *
report_append(List *list, int limit, const char *text)
{
	return list_length(list) < limit ? lappend(list, pstrdup(text)) : list;
}

static void
add_session(int source, const char *session, void *arg)
{
	LedgerOutcome *outcome = arg;

	outcome->sessions = report_append(outcome->sessions, outcome->limit, sources_session_id(session));
}

/* For a heap with the last name on top, and for the order of names. */
static int
compare_texts(Datum a, Datum b, void *arg)
{
	return strcmp(DatumGetPointer(a), DatumGetPointer(b));
}

/* Reads the first orphans by name, by a heap that keeps as many as the report shows. */
static void
read_orphans(Condemned *condemned, LedgerOutcome *outcome)
{
	int			limit = (int) Min((int64) outcome->limit, condemned->n_orphans);
	binaryheap *first = binaryheap_allocate(Max(limit, 1), compare_texts, NULL);
	CondemnedFile file;

	condemned_rewind(condemned);
	while (condemned_next(condemned, &file))
	{
		char	   *last = first->bh_size > 0 ? DatumGetPointer(binaryheap_first(first)) : NULL;

		CHECK_FOR_INTERRUPTS();
		if (file.source == NULL && first->bh_size < limit)
			binaryheap_add(first, CStringGetDatum(pstrdup(file.path)));
		else if (file.source == NULL && last != NULL && strcmp(file.path, last) < 0)
		{
			binaryheap_replace_first(first, CStringGetDatum(pstrdup(file.path)));
			pfree(last);
		}
		condemned_free_texts(&file);
	}
	for (int i = 0; i < first->bh_size; i++)
		outcome->orphans = lappend(outcome->orphans, DatumGetPointer(first->bh_nodes[i]));
	list_sort(outcome->orphans, list_compare_texts);
	binaryheap_free(first);
}

static void
add_brakes(LedgerOutcome *outcome, List *brakes)
{
	foreach_ptr(const Brake, brake, brakes)
		outcome->errors = report_append(outcome->errors, outcome->limit, brake_text(brake));
	outcome->n_errors += list_length(brakes);
}

/* Reads the errors that the plan met, and in a dry run the brakes that a real run would meet. */
static void
read_errors(const PlanFindings *found, LedgerOutcome *outcome)
{
	add_brakes(outcome, found->brakes);
	add_brakes(outcome, found->notes);
	foreach_ptr(char, error, found->errors)
		outcome->errors = report_append(outcome->errors, outcome->limit, error);
	outcome->n_errors += found->n_errors;
}

/* Returns the outcome of the files in `condemned` (or NULL), and of `uploads` uploads that are ended. */
static LedgerOutcome
read_condemned(const CleanupPlan *plan, Condemned *condemned, int64 uploads)
{
	LedgerOutcome outcome = {.limit = plan_context(plan)->settings->report_limit,.n_uploads = uploads};

	if (condemned != NULL)
	{
		read_orphans(condemned, &outcome);
		condemned_scan_sessions(condemned, add_session, &outcome);
		outcome.n_orphans = condemned->n_orphans;
		outcome.n_sessions = condemned->n_sessions;
		outcome.bytes = condemned->bytes;
	}
	read_errors(plan_findings(plan), &outcome);
	return outcome;
}

Jsonb *
report_status(const CleanupPlan *plan)
{
	const PlanFindings *found = plan_findings(plan);
	const LedgerOutcome outcome = read_condemned(plan, found->condemned, list_length(found->old_uploads));

	return make_envelope(plan, &outcome, "Cleanup status retrieved", "potential_cleanup", 0, 0, 0);
}

Jsonb *
report_condemned(const CleanupPlan *plan, Condemned *condemned, int64 uploads, int64 run_id, int64 healed)
{
	const LedgerOutcome outcome = read_condemned(plan, condemned, uploads);
	int64		pending = 0;

	/*
	 * a worker deals with files after the commit that the commit itself
	 * cannot deal with
	 */
	if (!plan_is_preview(plan) && !store_acts_at_commit(plan_findings(plan)->store))
		pending = (condemned != NULL ? condemned->n_files : 0) + uploads;
	return make_envelope(plan, &outcome, message(plan), "result", run_id, healed, pending);
}

Jsonb *
report_outcome(const CleanupPlan *plan, int64 run_id, int64 healed)
{
	LedgerOutcome outcome = {.limit = plan_context(plan)->settings->report_limit};

	ledger_outcome(plan_context(plan)->extension, run_id, &outcome);
	read_errors(plan_findings(plan), &outcome);
	return make_envelope(plan, &outcome, message(plan), "result", run_id, healed, 0);
}
