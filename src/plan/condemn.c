/*-------------------------------------------------------------------------
 *
 * plan/condemn.c
 *	  The second look, after which a file is condemned.
 *
 * What looked like an orphan in the survey is looked at once more when every
 * transaction that was writing to a source has ended, under a snapshot taken
 * after that: so a row that was in flight protects its file too.  No file is
 * touched here.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "src/pg/lock.h"
#include "src/pg/progress.h"
#include "src/pg/sql.h"
#include "src/plan/private.h"
#include "src/plan/recheck.h"
#include "src/sources/cleared.h"
#include "src/sources/sources.h"

/* so many rows a preview tries to clear of each source */
#define MAX_TRIED_ROWS			10


/* ------------------------------------------------------------------- clear --- */

typedef struct Clearing
{
	int			source;
	ArrayBuildState *sessions;
} Clearing;

static void
gather_session(int source, const char *session, void *arg)
{
	Clearing   *clearing = arg;

	if (source == clearing->source)
		clearing->sessions = accumArrayResult(clearing->sessions, CStringGetTextDatum(session),
											  false, TEXTOID, CurrentMemoryContext);
}

typedef struct ClearingTry
{
	const CleanupPlan *plan;
	const Source *source;
	Datum		sessions;		/* text[] */
	bool		cleared;
} ClearingTry;

/* As long as the audio can come back, so can what refers to it. */
static void
clear_source(void *arg)
{
	ClearingTry *try = arg;
	const CleanupPlan *plan = try->plan;

	if (plan->dry_run)
	{
		sources_try_clearing(try->source, try->sessions, MAX_TRIED_ROWS);
		try->cleared = true;
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_ROLLBACK), errmsg("a dry run takes back what it tries")));
	}
	if (plan->context.settings->backup_retention_days > 0)
		cleared_remember(plan->context.extension, plan->run_id, try->source, try->sessions);
	sources_clear(try->source, try->sessions);
	try->cleared = true;
}

/* Says once in a run that a source cannot be cleared, and why. */
static void
note_unclearable(CleanupPlan *plan, const Source *source, const char *message, const char *detail,
				 const char *hint)
{
	MemoryContext caller;
	const char *advice = hint && strstr(hint, "on_failed") ? "" : "Correct that, or register the source with on_failed => 'keep'.";

	plan_add_error(plan, psprintf("the failed sessions of source %s are left alone, because they cannot be cleared: %s%s%s (%s%s%s)",
								  source->name, message, detail ? ": " : "", detail ? detail : "",
								  hint ? hint : "", hint && advice[0] != '\0' ? " " : "", advice));
	caller = MemoryContextSwitchTo(plan->memory);
	plan->unclearable = lappend_oid(plan->unclearable, source->relid);
	MemoryContextSwitchTo(caller);
}

static bool
can_try_clearing(void)
{
	return !XactReadOnly && !RecoveryInProgress() && !IsolationUsesXactSnapshot();
}

/* Where it cannot be tried, something can be told all the same. */
static bool
look_at_clearing(CleanupPlan *plan, const Source *source)
{
	Brake	   *brake = sources_check_clearing(source);

	if (brake != NULL)
		note_unclearable(plan, source, brake->message, brake->detail, brake->hint);
	return brake == NULL;
}

/*
 * In a subtransaction: constraints and triggers of the table may object, and
 * that is an error of this source alone.  A dry run tries, and takes it back.
 */
static bool
try_clearing(CleanupPlan *plan, const Source *source, ArrayBuildState *sessions)
{
	ClearingTry try = {plan, source, makeArrayResult(sessions, CurrentMemoryContext), false};
	ErrorData  *error;

	if (list_member_oid(plan->unclearable, source->relid))
		return false;
	if (plan->dry_run && !can_try_clearing())
		return look_at_clearing(plan, source);
	error = sql_try(clear_source, &try);
	if (!try.cleared)
		note_unclearable(plan, source, error->message, error->detail, error->hint);
	return try.cleared;
}

Condemned *
plan_clear_sessions(CleanupPlan *plan, Condemned *condemned, List *sources)
{
	ListCell   *lc;

	foreach(lc, sources)
	{
		Source	   *source = lfirst(lc);
		Clearing	clearing = {source->number, NULL};

		if (!source->clear)
			continue;
		condemned_scan_sessions(condemned, gather_session, &clearing);
		if (clearing.sessions != NULL && !try_clearing(plan, source, clearing.sessions))
			condemned = condemned_without_source(condemned, source->number, source->name);
	}
	return condemned;
}


/* ----------------------------------------------------------------- condemn --- */

static bool
is_same_session(const CondemnedFile *a, const CondemnedFile *b)
{
	return a->session != NULL && b->session != NULL &&
		strcmp(a->session, b->session) == 0 && strcmp(a->source, b->source) == 0;
}

/*
 * Feed the next files of the survey into a match; false if there are none.
 * A session's files stay together, because its columns may be cleared.
 */
static bool
take_next(CleanupPlan *plan, int64 limit, Match *match)
{
	CondemnedFile last = {NULL, NULL, NULL};

	if (!plan->has_next)
		plan->has_next = condemned_next(plan->found.condemned, &plan->next);
	while (plan->has_next &&
		   (match_count(match) < limit || is_same_session(&last, &plan->next)))
	{
		CHECK_FOR_INTERRUPTS();
		match_add(match, plan->next.path);
		condemned_free_texts(&last);
		last = plan->next;
		plan->has_next = condemned_next(plan->found.condemned, &plan->next);
	}
	condemned_free_texts(&last);
	return match_count(match) > 0;
}

/* Rows of a source that could not be cleared protect their files from then on, whatever their status. */
static void
forget_unclearable(const CleanupPlan *plan, List *sources)
{
	ListCell   *lc;

	foreach(lc, sources)
		if (list_member_oid(plan->unclearable, ((Source *) lfirst(lc))->relid))
		((Source *) lfirst(lc))->status_column = NULL;
}

Condemned *
plan_condemn(CleanupPlan *plan, int64 run_id, int64 limit)
{
	MemoryContext caller = MemoryContextSwitchTo(plan->memory);
	TimestampTz failed_before = plan_failed_before(plan->context.settings);
	int			guc_level = lock_limit_waits(plan->context.settings->writer_wait);
	Match	   *match = plan_begin_match(plan->context.settings, plan_claim(plan));
	Condemned  *condemned = NULL;
	Brake	   *found;

	plan->run_id = run_id;
	plan_limit_reading(plan->context.settings, limit != PG_INT64_MAX);
	if (take_next(plan, limit, match))
	{
		List	   *sources = recheck_load_sources(plan->context.extension, &found);

		forget_unclearable(plan, sources);
		plan->looked_at_ns = plan_now_ns();
		progress_set_phase(PHASE_WAITING);
		if (found == NULL)
			recheck_wait_for_writers(&plan->context, sources, &found);
		if (found != NULL)
			plan_apply_brake(plan, found);
		progress_set_phase(PHASE_CONDEMNING);
		match_run(match, plan->context.extension, sources,
				  (plan->what & CLEAN_FAILED) != 0 ? MATCH_JUDGE_LOCKED : MATCH_PROTECT,
				  failed_before, false);
		condemned = condemned_begin(false);
		plan_judge(plan, match, condemned);
		condemned = plan_clear_sessions(plan, condemned, sources);

		/*
		 * the survey's count, without those that did not stand the second
		 * look
		 */
		progress_add(PROGRESS_CONDEMNED, condemned->n_files - match_count(match));
	}
	match_end(match);
	lock_end_limit(guc_level);
	MemoryContextSwitchTo(caller);
	return condemned;
}
