/*-------------------------------------------------------------------------
 *
 * plan/recheck.c
 *	  Finds out which files that were condemned before are needed now.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "src/pg/lock.h"
#include "src/pg/sql.h"
#include "src/pg/time.h"
#include "src/plan/private.h"
#include "src/sources/sources.h"

Brake *
recheck_wait_for_writers(const Context *context, bool own_transaction, List **sources)
{
	/* cleanup_hold() writes a row, too */
	List	   *tables = list_make1_oid(extension_relation(context->extension, "cleanup_holds"));
	List	   *brakes;
	Brake	   *brake;

	*sources = sources_load(context->extension);
	brakes = sources_check_all(*sources);
	if (brakes != NIL)
		return linitial(brakes);

	/*
	 * the check must come first, because the planning of a query may read on
	 * another server
	 */
	brake = sources_wait_remotely(*sources, own_transaction, context->settings->writer_wait);
	foreach_ptr(const Source, source, *sources)
	{
		List	   *read;

		if (brake == NULL && (brake = sources_probe(source, &read)) == NULL)
			tables = list_concat_unique_oid(tables, read);
	}
	if (brake == NULL)
		lock_wait_for_writers(tables, context->settings->writer_wait);
	return brake;
}

/* A look at files that were condemned before. */
typedef struct Recheck
{
	const Context *context;
	Match	   *match;
	MatchMode	mode;
	bool		own_transaction;
	const char *part;			/* the name of the brake if it fails now */
	Brake	   *brake;
	int64	   *match_us;
} Recheck;

static void
look_again(void *arg)
{
	Recheck    *recheck = arg;
	const Context *context = recheck->context;
	int			limit = lock_limit_waits(context->settings->writer_wait);
	List	   *sources;
	int64		began;

	recheck->brake = recheck_wait_for_writers(context, recheck->own_transaction, &sources);
	lock_end_limit(limit);
	if (recheck->brake != NULL)
		return;
	recheck->part = "source";
	began = time_monotonic_us();
	match_run(recheck->match, context->extension, sources, recheck->mode,
			  plan_failed_before(context->settings), true);
	*recheck->match_us = time_monotonic_us() - began;
}

/*
 * A failure becomes a brake and no ERROR, because other files can still be
 * dealt with.  So does a reading for which the time is up; but the cancel of a
 * person is passed on.
 */
Brake *
plan_recheck(const Context *context, Match *match, bool own_transaction, bool lock,
			 int64 *match_us)
{
	Recheck		recheck = {
		context, match, lock ? MATCH_JUDGE_LOCKED : MATCH_JUDGE, own_transaction, "writers", NULL, match_us
	};
	ErrorData  *error;

	plan_limit_reading(context->settings, true);
	error = sql_try_all(look_again, &recheck);
	if (error == NULL)
		return recheck.brake;
	if (!sql_is_of_statement(error) && !sources_gave_up(error))
		sql_rethrow(error);
	return brake_make(recheck.part, error->sqlerrcode, error->message, error->detail, error->hint);
}
