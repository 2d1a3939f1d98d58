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

#include "utils/timestamp.h"

#include "src/pg/lock.h"
#include "src/pg/sql.h"
#include "src/plan/private.h"
#include "src/plan/recheck.h"
#include "src/sources/sources.h"

List *
recheck_load_sources(const Extension *extension, Brake **brake)
{
	List	   *sources = sources_load(extension);
	List	   *brakes = sources_check_all(sources);

	*brake = brakes == NIL ? NULL : linitial(brakes);
	return sources;
}

void
recheck_wait_for_writers(const Context *context, List *sources, bool own_transaction, Brake **brake)
{
	/* cleanup_hold() writes a row, too */
	List	   *tables = list_make1_oid(extension_relation(context->extension, "cleanup_holds"));

	/*
	 * the check must come first, because the planning of a query may read on
	 * another server
	 */
	*brake = sources_wait_remotely(sources, own_transaction, context->settings->writer_wait);
	foreach_ptr(const Source, source, sources)
	{
		if (*brake == NULL)
			*brake = sources_probe(source);
		if (*brake == NULL)
			tables = list_concat_unique_oid(tables, sources_tables(source, brake));
	}
	if (*brake == NULL)
		lock_wait_for_writers(tables, context->settings->writer_wait);
}

typedef struct Waiting
{
	const Context *context;
	bool		own_transaction;
	List	   *sources;
	Brake	   *brake;
} Waiting;

static void
try_waiting(void *arg)
{
	Waiting    *waiting = arg;
	int			limit = lock_limit_waits(waiting->context->settings->writer_wait);

	waiting->sources = recheck_load_sources(waiting->context->extension, &waiting->brake);
	if (waiting->brake == NULL)
		recheck_wait_for_writers(waiting->context, waiting->sources, waiting->own_transaction, &waiting->brake);
	lock_end_limit(limit);
}

Brake *
plan_recheck(const Context *context, Match *match, bool own_transaction, bool lock,
			 int64 *match_us)
{
	Waiting		waiting = {context, own_transaction, NIL, NULL};
	ErrorData  *error;
	TimestampTz began;

	plan_limit_reading(context->settings, true);

	/*
	 * a failure is no ERROR here, because other files can still be dealt with
	 */
	error = sql_try(try_waiting, &waiting);
	if (error != NULL)
		return brake_make("writers", error->sqlerrcode, error->message, error->detail, error->hint);
	if (waiting.brake != NULL)
		return waiting.brake;
	began = GetCurrentTimestamp();
	match_run(match, context->extension, waiting.sources, lock ? MATCH_JUDGE_LOCKED : MATCH_JUDGE,
			  plan_failed_before(context->settings), true);
	*match_us = GetCurrentTimestamp() - began;
	return NULL;
}
