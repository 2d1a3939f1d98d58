/*-------------------------------------------------------------------------
 *
 * plan/condemn.c
 *	  The second look, after which a file is condemned.
 *
 * A file that looked like an orphan in the survey is looked at once more.
 * Before this second look, every transaction that is writing to a source must
 * end; then a new snapshot is taken.  So a row that is not yet committed in
 * the survey protects its file, too.  Where no transaction has ended since the
 * survey began to read, the new snapshot would show what the survey has seen,
 * and the sources are not read again.  No file is touched here.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/array.h"

#include "src/pg/lock.h"
#include "src/pg/progress.h"
#include "src/pg/sql.h"
#include "src/plan/private.h"
#include "src/sources/cleared.h"
#include "src/sources/sources.h"


/* ------------------------------------------------------------------- clear --- */

/* A try to clear the sessions of all sources. */
typedef struct Clearing
{
	CleanupPlan *plan;
	Condemned  *condemned;
	List	   *sources;
	const Source *source;		/* the source being cleared, */
	List	   *sessions;		/* and its sessions (char *) */
	bool		cleared;
} Clearing;

/* Adds a session of the source being cleared, if the session may be cleared now. */
static void
gather_session(int source, const char *session, void *arg)
{
	Clearing   *clearing = arg;

	if (source == clearing->source->number &&
		!judge_deferred(clearing->plan, clearing->source->name, sources_session_id(session), HASH_FIND))
		clearing->sessions = lappend(clearing->sessions, pstrdup(session));
}

/*
 * Clears the sessions (char *) of one source.  If there are backups, records
 * the cleared references, because the audio can come back.
 */
static void
clear_source(const CleanupPlan *plan, const Source *source, List *sessions)
{
	if (!plan->dry_run && plan->context.settings->backup_retention_days > 0)
		cleared_remember(plan->context.extension, plan->run_id, source, sessions);
	sources_clear(source, sessions, plan->dry_run);
}

static void
clear_all(void *arg)
{
	Clearing   *clearing = arg;

	foreach_ptr(const Source, source, clearing->sources)
	{
		clearing->source = source;
		clearing->sessions = NIL;
		if (source->clear)
			condemned_scan_sessions(clearing->condemned, gather_session, clearing);
		if (clearing->sessions != NIL)
			clear_source(clearing->plan, source, clearing->sessions);
	}
	clearing->cleared = true;
	if (clearing->plan->dry_run)
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_ROLLBACK), errmsg("a dry run takes back what it tries")));
}

/* Returns a text that says that a source cannot be cleared, and why. */
static char *
unclearable_text(const Source *source, const char *message, const char *detail, const char *hint)
{
	static const char *const keep = "Correct that, or register the source with on_failed => 'keep'.";
	char	   *text = psprintf("the failed sessions of source %s are left alone, because they cannot be cleared: %s",
								source->name, message);

	if (detail != NULL)
		text = psprintf("%s: %s", text, detail);
	if (hint == NULL)
		hint = keep;
	else if (strstr(hint, "on_failed") == NULL)
		hint = psprintf("%s %s", hint, keep);
	return psprintf("%s (%s)", text, hint);
}

/*
 * Adds the error that a source cannot be cleared, as a text and as a text for
 * the history, or NULL.  Notes the source, so that the error comes once in a
 * run.
 */
static void
note_unclearable(CleanupPlan *plan, const Source *source, const char *text, const char *to_record)
{
	plan_add_error(plan, text, to_record);
	plan->unclearable = lappend_oid(plan->unclearable, source->relid);
}

/*
 * Notes, without a try, the sources that cannot be cleared.  Returns false if
 * there are such sources.
 */
static bool
look_at_clearing(CleanupPlan *plan, List *sources)
{
	bool		can_clear = true;

	foreach_ptr(const Source, source, sources)
	{
		Brake	   *brake = sources_check_clearing(source);

		if (brake != NULL)
			note_unclearable(plan, source, unclearable_text(source, brake->message, brake->detail, brake->hint), NULL);
		can_clear &= brake == NULL;
	}
	return can_clear;
}

/*
 * Notes the error that has ended a try to clear a source.  The caller may see
 * more of the error than the readers of the history.
 */
static void
note_clearing_error(CleanupPlan *plan, const Source *source, ErrorData *error)
{
	bool		is_public = sources_hide_rows(source, error, false) || !sql_tells_of_rows(error);
	char	   *text = unclearable_text(source, error->message, error->detail, error->hint);

	if (!is_public)
		sql_hide_rows(error);
	note_unclearable(plan, source, text,
					 is_public ? NULL : unclearable_text(source, error->message, error->detail, error->hint));
}

/*
 * Clears the sessions of all sources, or of none: if the session of one source
 * keeps a file, the row of another source must not be cleared.  The clearing
 * is done in a subtransaction, because constraints and triggers of a table may
 * raise an error, which concerns its source alone.  A dry run clears, and
 * takes the clearing back.  Returns false if a source could not be cleared;
 * then the files must be judged again.
 */
static bool
clear_sessions(CleanupPlan *plan, Condemned *condemned, List *sources)
{
	Clearing	clearing = {plan, condemned, sources};
	ErrorData  *error;

	if (condemned->n_sessions == 0)
		return true;
	if (plan->dry_run && (XactReadOnly || RecoveryInProgress() || IsolationUsesXactSnapshot()))
		return look_at_clearing(plan, sources);
	error = sql_try(clear_all, &clearing);
	if (!clearing.cleared)
		note_clearing_error(plan, clearing.source, error);
	return clearing.cleared;
}

/* Makes the rows of sources that could not be cleared protect their files, whatever their status. */
static void
forget_unclearable(const CleanupPlan *plan, List *sources)
{
	foreach_ptr(Source, source, sources)
		if (list_member_oid(plan->unclearable, source->relid))
		source->status_column = NULL;
}

void
condemn_matched(CleanupPlan *plan, Match **match, List *sources, MatchMode mode, Condemned **condemned)
{
	bool		interxact = (*condemned)->interxact;
	TimestampTz failed_before = plan_failed_before(plan->context.settings);

	/* a real run clears when it condemns, and not in the survey */
	bool		clear = plan->dry_run || mode == MATCH_JUDGE_LOCKED;
	bool		again;

	for (again = false;; again = true)
	{
		forget_unclearable(plan, sources);
		match_run(*match, plan->context.extension, sources,
				  (plan->what & CLEAN_FAILED) != 0 ? mode : MATCH_PROTECT, failed_before, false);
		progress_set_phase(mode == MATCH_JUDGE ? PHASE_JUDGING : PHASE_CONDEMNING);
		judge_files(plan, *match, *condemned, !clear, again);
		if (!clear || clear_sessions(plan, *condemned, sources))
			return;
		condemned_end(*condemned);
		*condemned = NULL;
		*condemned = condemned_begin(interxact, plan->dry_run);
		*match = match_begin_again(*match);

		/*
		 * a source that was slow to clear has not used up the time of the
		 * other sources
		 */
		plan_limit_reading(plan->context.settings, plan->in_batches);
	}
}


/* ----------------------------------------------------------------- condemn --- */

static bool
is_same_session(const CondemnedFile *a, const CondemnedFile *b)
{
	return a->session != NULL && b->session != NULL &&
		strcmp(a->session, b->session) == 0 && strcmp(a->source, b->source) == 0;
}

/* Returns whether the columns of the file's session are cleared when the file is condemned. */
static bool
is_of_cleared_source(const CleanupPlan *plan, const CondemnedFile *file)
{
	if (file->source == NULL)
		return false;
	foreach_ptr(const Source, source, plan->found.sources)
		if (strcmp(source->name, file->source) == 0)
		return source->clear;
	return false;
}

/*
 * Adds the next files of the survey to the match.  Returns false if no file is
 * left.  `limit` is for files whose sessions are cleared, which come first:
 * each batch of such files reads the sources again.  The files of a session
 * stay together.
 */
static bool
take_next(CleanupPlan *plan, int64 limit, Match *match)
{
	CondemnedFile last = {NULL, NULL, NULL};
	int64		cleared = 0;

	if (!plan->found.has_more)
		plan->found.has_more = condemned_next(plan->found.condemned, &plan->next);
	while (plan->found.has_more && (cleared < limit || is_same_session(&last, &plan->next)))
	{
		CHECK_FOR_INTERRUPTS();
		cleared += is_of_cleared_source(plan, &plan->next) ? 1 : 0;
		match_add(match, plan->next.path);
		BufFileWrite(plan->seen, &plan->next.identity, sizeof(FileIdentity));
		if (plan->next.session != NULL)
			(void) judge_deferred(plan, plan->next.source, plan->next.session, HASH_REMOVE);
		condemned_free_texts(&last);
		last = plan->next;
		plan->found.has_more = condemned_next(plan->found.condemned, &plan->next);
	}
	condemned_free_texts(&last);
	return match_count(match) > 0;
}

Condemned *
plan_condemn(CleanupPlan *plan, int64 run_id, int64 limit)
{
	int			guc_level = lock_limit_waits(plan->context.settings->writer_wait);
	Match	   *match = match_begin(plan->context.settings, plan_claim(plan));
	Condemned  *condemned = NULL;

	match_any_folder(match, plan->has_links);
	if (plan->found.condemned->n_sessions == 0)
		match_none_referred(match, plan->found.transactions_ended);
	plan->run_id = run_id;
	plan->in_batches = limit != PG_INT64_MAX;
	plan_limit_reading(plan->context.settings, plan->in_batches);
	plan->seen = BufFileCreateTemp(false);
	if (take_next(plan, limit, match))
	{
		List	   *sources;

		plan->looked_at_ns = plan_now_ns();
		progress_set_phase(PHASE_WAITING);
		plan_apply_brake(plan, recheck_wait_for_writers(&plan->context, plan->in_batches, &sources));
		progress_set_phase(PHASE_CONDEMNING);
		condemned = condemned_begin(false, false);
		condemn_matched(plan, &match, sources, MATCH_JUDGE_LOCKED, &condemned);

		/*
		 * the survey has counted these files; not all of them are condemned
		 * now
		 */
		progress_add(PROGRESS_CONDEMNED, condemned->n_files - match_count(match));
	}
	BufFileClose(plan->seen);
	plan->seen = NULL;
	match_end(match);
	lock_end_limit(guc_level);
	return condemned;
}
