/*-------------------------------------------------------------------------
 *
 * plan/counts.c
 *	  Judges whether the figures of a survey point to a mistake.
 *
 * A wrong directory, a wrong column, or a table that is being loaded again looks
 * like a mass of orphans.  The brakes here depend on how many files would go,
 * and on what has changed since the last run.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "src/pg/sql.h"
#include "src/plan/private.h"
#include "src/sources/sources.h"

/* with fewer files, the brake nothing_referenced is off */
#define MIN_FILES_REFERENCED	10

/*
 * With fewer files, the brake max_delete_percent is off: in a small directory
 * most files are orphans now and then, and a person who calls has seen the
 * preview.  In an unattended run ten files are enough.
 */
#define MIN_FILES_PERCENT		100
#define MIN_FILES_UNATTENDED	10

static const char *const force_hint =
"Check audio_cleanup.upload_dir and cleanup_sources. If it is right, call once with force => true.";

static Brake *
count_brake(const char *name, const char *message, const char *detail, const char *hint)
{
	return brake_make(name, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message, detail, hint);
}

/* Returns a brake if too many of all files would go. */
static Brake *
check_whole(const CleanupPlan *plan)
{
	int64		condemned = plan->found.condemned->n_files;
	int			limit = plan->context.settings->max_delete_percent;
	int			min_files = plan_is_unattended() ? MIN_FILES_UNATTENDED : MIN_FILES_PERCENT;
	char	   *figures = psprintf("%lld of %lld files would be deleted; %lld are referred to by %lld rows.",
								   (long long) condemned, (long long) plan->found.files_seen,
								   (long long) plan->found.files_referenced,
								   (long long) plan->found.rows_seen);

	if (plan->found.rows_seen == 0)
		return count_brake("empty_sources", "every registered source is empty", figures, force_hint);
	if (plan->found.files_referenced == 0 && plan->found.files_seen >= MIN_FILES_REFERENCED)
		return count_brake("nothing_referenced",
						   "no file in the upload directory is referred to by any row",
						   figures, force_hint);
	if (plan->found.files_seen >= min_files && condemned * 100 > plan->found.files_seen * limit)
		return count_brake("max_delete_percent",
						   psprintf("more than %d percent of the files would be deleted", limit),
						   figures,
						   "If it is right, call once with force => true, or raise audio_cleanup.max_delete_percent.");
	return NULL;
}


/* ------------------------------------------------------------ since last run --- */

/*
 * Returns a brake if a source had rows at the last run, or protected files, and
 * does so no more.  check_whole() deals with all sources together.  If fewer
 * files would go than the source has protected, then the protected files have
 * gone from the directory before.
 */
static Brake *
check_source(const CleanupPlan *plan, const Source *source)
{
	int64		rows = source->last_rows;
	int64		files = source->last_files;
	const MatchCounts *now = &plan->found.counts[source->number];

	if (rows > 0 && now->rows == 0)
		return count_brake("source_emptied", psprintf("source %s is empty, and was not at the last run", source->name),
						   psprintf("It had %lld rows, which referred to %lld files; %lld files would be deleted.",
									(long long) rows, (long long) files,
									(long long) plan->found.condemned->n_files),
						   "Wait until it is loaded again. If it is right, call once with force => true, or unregister the source with cleanup_drop_source().");
	if (files > 0 && now->files == 0 && plan->found.files_referenced > 0 &&
		plan->found.condemned->n_files >= files)
		return count_brake("source_emptied", psprintf("source %s refers to no file any more", source->name),
						   psprintf("At the last run it referred to %lld files; it has %lld rows, and %lld files would be deleted.",
									(long long) files, (long long) now->rows,
									(long long) plan->found.condemned->n_files),
						   "Look whether its columns mean what they did. If it is right, call once with force => true, or unregister the source with cleanup_drop_source().");
	return NULL;
}

/*
 * The figures of a source that has no rows or files any more stay as they were
 * until check_source() has judged the loss.  check_source() does not judge a
 * run that would delete no file.
 */
void
counts_remember(const CleanupPlan *plan)
{
	bool		judged = plan->force || plan->found.condemned->n_files > 0;

	foreach_ptr(const Source, source, plan->found.sources)
	{
		const MatchCounts *now = &plan->found.counts[source->number];

		owner_query(plan->context.extension,
					SQL_ARGS(SQL_OID(REGCLASSOID, source->relid), SQL_INT8(now->rows), SQL_INT8(now->protected_files),
							 SQL_BOOL(judged)),
					"INSERT INTO @extschema@.cleanup_seen AS s (source, source_rows, source_files, column_numbers)"
					" VALUES ($1, $2, $3, " SOURCES_COLUMN_NUMBERS ") ON CONFLICT (source) DO UPDATE"
					" SET source_rows = CASE WHEN $4 OR $2 > 0 THEN $2 ELSE s.source_rows END,"
					"  source_files = CASE WHEN $4 OR $3 > 0 THEN $3 ELSE s.source_files END,"
					"  column_numbers = excluded.column_numbers,"
					"  seen_at = clock_timestamp()");
	}
}


/* -------------------------------------------------------------- unattended --- */

/*
 * The server log gets the names of the columns; the history does not, because
 * its readers may not be allowed to know of these tables.
 */
static Brake *
check_unregistered(CleanupPlan *plan)
{
	List	   *found = unregistered_search(plan, true);

	if (found == NIL)
		return NULL;
	foreach_ptr(const char, column, found)
		ereport(LOG,
				(errmsg("names of orphaned files stand where nobody registered a source: %s",
						column)));
	return count_brake("unregistered", "a column that is not registered holds names of files that would be deleted",
					   list_length(found) == 1 ?
					   "One column does; the server log, and cleanup_check() of a superuser, name it." :
					   psprintf("%d columns do; the server log, and cleanup_check() of a superuser, name them.",
								list_length(found)),
					   "Register it with cleanup_add_source(), or set audio_cleanup.search_unregistered to off. When somebody calls, this is advice only.");
}

void
counts_check(CleanupPlan *plan)
{
	Brake	   *unregistered;

	if (plan->found.condemned->n_files == 0)
		return;
	unregistered = plan_is_unattended() ? check_unregistered(plan) : NULL;
	if (!plan->force)
	{
		plan_apply_brake(plan, check_whole(plan));
		if (plan->found.rows_seen > 0)
			foreach_ptr(const Source, source, plan->found.sources)
				plan_apply_brake(plan, check_source(plan, source));
	}
	plan_apply_brake(plan, unregistered);
}
