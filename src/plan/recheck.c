/*-------------------------------------------------------------------------
 *
 * plan/recheck.c
 *	  Which of the files that were condemned before are needed by now?
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
recheck_wait_for_writers(const Context *context, List *sources, Brake **brake)
{
	/* whoever holds a file writes, too */
	List	   *tables = list_make1_oid(extension_relation(context->extension, "cleanup_holds"));
	ListCell   *lc;

	foreach(lc, sources)
	{
		if (*brake == NULL)
			*brake = sources_probe(lfirst(lc));
		if (*brake == NULL)
			tables = list_concat_unique_oid(tables, sources_tables(lfirst(lc), brake));
	}
	if (*brake == NULL)
		lock_wait_for_writers(tables, context->settings->writer_wait);
}

typedef struct Waiting
{
	const Context *context;
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
		recheck_wait_for_writers(waiting->context, waiting->sources, &waiting->brake);
	lock_end_limit(limit);
}

const char **
plan_recheck(const Context *context, const char *claim, const char *const *paths, int n,
			 Brake **brake, int64 *match_us)
{
	const char **why = palloc0(sizeof(char *) * n);
	Waiting		waiting = {context, NIL, NULL};
	ErrorData  *error;
	TimestampTz began;
	Match	   *match;
	int			i;

	plan_limit_reading(context->settings, true);
	*match_us = 0;
	/* giving up is no ERROR here: other files can be dealt with */
	error = sql_try(try_waiting, &waiting);
	*brake = error == NULL ? waiting.brake :
		brake_make("writers", error->sqlerrcode, error->message, error->detail, error->hint);
	if (*brake != NULL)
		return why;
	began = GetCurrentTimestamp();
	match = plan_begin_match(context->settings, claim);
	for (i = 0; i < n; i++)
		match_add(match, paths[i]);
	match_run(match, context->extension, waiting.sources, MATCH_JUDGE_LOCKED,
			  plan_failed_before(context->settings), true);
	for (i = 0; i < n; i++)
		why[i] = match_why_needed(match, i);
	match_end(match);
	*match_us = GetCurrentTimestamp() - began;
	return why;
}
