/*-------------------------------------------------------------------------
 *
 * run/report.c
 *	  The JSON contract: what the SQL functions return.
 *
 * Lists are cut at audio_cleanup.report_limit, counts never are.  Lists are
 * sorted, so that two reports can be compared.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "src/ledger/ledger.h"
#include "src/pg/sql.h"
#include "src/run/report.h"
#include "src/sources/sources.h"
#include "src/text/json_build.h"

/* What a result is made of: of a run what the ledger knows, or the same. */
typedef LedgerOutcome Outcome;

static void
add_list(JsonBuilder *json, const char *key, const List *list)
{
	ListCell   *lc;

	json_begin_array(json, key);
	foreach(lc, list)
		json_add_element(json, lfirst(lc));
	json_end_array(json);
}

/* Exactly eight keys. */
static Jsonb *
make_result(const Outcome *outcome, bool dry_run)
{
	JsonBuilder json;

	json_begin(&json);
	add_list(&json, "orphaned_files_deleted", outcome->orphans);
	json_add_integer(&json, "orphaned_files_count", outcome->n_orphans);
	add_list(&json, "failed_sessions_cleaned", outcome->sessions);
	json_add_integer(&json, "failed_sessions_count", outcome->n_sessions);
	json_add_decimal(&json, "total_space_freed_mb",
					 (double) outcome->bytes / (1024 * 1024), 2);
	add_list(&json, "errors", outcome->errors);
	json_add_integer(&json, "error_count", outcome->n_errors);
	json_add_boolean(&json, "dry_run", dry_run);
	return json_end(&json);
}

static bool
is_truncated(const Outcome *outcome)
{
	return list_length(outcome->orphans) < outcome->n_orphans ||
		list_length(outcome->sessions) < outcome->n_sessions ||
		list_length(outcome->errors) < outcome->n_errors;
}

static const char *
message(const CleanupPlan *plan)
{
	const char *what = "Full cleanup";

	if (plan->what == CLEAN_ORPHANS)
		what = "Orphaned file cleanup";
	else if (plan->what == CLEAN_FAILED)
		what = "Failed session cleanup";
	return psprintf("%s completed%s", what, plan->dry_run ? " (dry run)" : "");
}

/* Why a real run would be refused, by name. */
static void
add_blocked_by(JsonBuilder *json, const CleanupPlan *plan)
{
	ListCell   *lc;

	if (plan->brakes == NIL && plan->notes == NIL)
		return;
	json_begin_array(json, "blocked_by");
	foreach(lc, plan->brakes)
		json_add_element(json, ((Brake *) lfirst(lc))->name);
	foreach(lc, plan->notes)
		json_add_element(json, ((Brake *) lfirst(lc))->name);
	json_end_array(json);
}

/* Advice that is no error. */
static void
add_warnings(JsonBuilder *json, const CleanupPlan *plan)
{
	if (plan->warnings != NIL)
		add_list(json, "warnings", plan->warnings);
}

static Jsonb *
make_envelope(const CleanupPlan *plan, const Outcome *outcome, const char *text,
			  const char *result_key, int64 run_id)
{
	JsonBuilder json;

	json_begin(&json);
	json_add_boolean(&json, "success", outcome->n_errors == 0);
	json_add_text(&json, "message", text);
	json_add_jsonb(&json, result_key, make_result(outcome, plan->dry_run));
	if (run_id != 0)
		json_add_integer(&json, "run_id", run_id);
	if (is_truncated(outcome))
		json_add_boolean(&json, "lists_truncated", true);
	if (plan->healed > 0)
		json_add_integer(&json, "healed", plan->healed);
	add_blocked_by(&json, plan);
	add_warnings(&json, plan);
	return json_end(&json);
}


/* --------------------------------------------------------- what is condemned --- */

static List *
append_limited(const CleanupPlan *plan, List *list, const char *text)
{
	if (list_length(list) < plan->settings->report_limit)
		list = lappend(list, pstrdup(text));
	return list;
}

typedef struct SessionList
{
	const CleanupPlan *plan;
	List	   *sessions;
} SessionList;

static void
add_session(int source, const char *session, void *arg)
{
	SessionList *list = arg;

	list->sessions = append_limited(list->plan, list->sessions, sources_session_id(session));
}

/* The first orphans by name; the executor keeps no more than it returns. */
static void
read_orphans(const CleanupPlan *plan, Condemned *condemned, Outcome *outcome)
{
	const SqlParameter parameters[] = {SQL_INT8(plan->settings->report_limit)};
	int			n;
	int			i;

	sql_show_tuplestore("cleanup_condemned", condemned->files, condemned->files_desc);
	n = owner_query(plan->extension, lengthof(parameters), parameters,
					"SELECT c.path FROM cleanup_condemned c WHERE c.source IS NULL"
					" ORDER BY c.path COLLATE \"C\" LIMIT $1");
	for (i = 0; i < n; i++)
		outcome->orphans = lappend(outcome->orphans, sql_text(i, 1));
	SPI_freetuptable(SPI_tuptable);
	sql_hide_tuplestore("cleanup_condemned");
}

static void
add_brakes(const CleanupPlan *plan, Outcome *outcome, List *brakes)
{
	ListCell   *lc;

	foreach(lc, brakes)
		outcome->errors = append_limited(plan, outcome->errors, brake_text(lfirst(lc)));
	outcome->n_errors += list_length(brakes);
}

/* Errors met on the way, and in a dry run the brakes that a real run meets. */
static void
read_errors(const CleanupPlan *plan, Outcome *outcome)
{
	ListCell   *lc;

	add_brakes(plan, outcome, plan->brakes);
	add_brakes(plan, outcome, plan->notes);
	foreach(lc, plan->errors)
		outcome->errors = append_limited(plan, outcome->errors, lfirst(lc));
	outcome->n_errors += plan->error_count;
}

static void
read_condemned(const CleanupPlan *plan, Condemned *condemned, Outcome *outcome)
{
	SessionList list = {plan, NIL};

	memset(outcome, 0, sizeof(*outcome));
	if (condemned != NULL)
	{
		read_orphans(plan, condemned, outcome);
		condemned_scan_sessions(condemned, add_session, &list);
		outcome->sessions = list.sessions;
		outcome->n_orphans = condemned->n_orphans;
		outcome->n_sessions = condemned->n_sessions;
		outcome->bytes = condemned->bytes;
	}
	read_errors(plan, outcome);
}

Jsonb *
report_status(CleanupPlan *plan)
{
	Outcome		outcome;

	read_condemned(plan, plan->condemned, &outcome);
	return make_envelope(plan, &outcome, "Cleanup status retrieved", "potential_cleanup", 0);
}

Jsonb *
report_condemned(CleanupPlan *plan, Condemned *condemned, int64 run_id)
{
	Outcome		outcome;

	read_condemned(plan, condemned, &outcome);
	return make_envelope(plan, &outcome, message(plan), "result", run_id);
}


/* ------------------------------------------------------------ what has become --- */

Jsonb *
report_outcome(CleanupPlan *plan, int64 run_id)
{
	Outcome		outcome;

	memset(&outcome, 0, sizeof(outcome));
	if (run_id != 0)
		ledger_outcome(plan->extension, run_id, plan->settings->report_limit, &outcome);
	read_errors(plan, &outcome);
	return make_envelope(plan, &outcome, message(plan), "result", run_id);
}
