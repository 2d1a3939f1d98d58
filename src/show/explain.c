/*-------------------------------------------------------------------------
 *
 * show/explain.c
 *	  cleanup_explain(): why a file is kept or condemned.
 *
 * The verdict comes from the functions that a run uses.  In addition, each
 * reference is compared with the file to find the rows that refer to the file.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "mb/pg_wchar.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "src/names/file_key.h"
#include "src/guard/hold.h"
#include "src/guard/location.h"
#include "src/ledger/backups.h"
#include "src/pg/lock.h"
#include "src/plan/match.h"
#include "src/plan/plan.h"
#include "src/run/report.h"
#include "src/show/show.h"
#include "src/sources/sources.h"
#include "src/store/walk.h"
#include "src/text/json_build.h"

/* number of referring rows that are shown; further rows are only counted */
#define ROWS_SHOWN	10

/* bytes of a value that are shown */
#define VALUE_SHOWN 10000

typedef struct ExplainReference
{
	const char *source;
	const char *column;
	const char *session;
	const char *value;			/* NULL: the caller may not read the value */
	bool		failed;
} ExplainReference;

typedef struct ExplainSearch
{
	const KeyRules *rules;
	const char *path;
	MemoryContext context;
	const bool *may_show;		/* for each column of the source that is being
								 * read, whether the caller may read it */
	List	   *references;
	int64		count;
	int64		failed;			/* references in failed sessions that are due */
} ExplainSearch;

static const Settings *
settings_of(const CleanupPlan *plan)
{
	return plan_context(plan)->settings;
}

static void
explain_value(ExplainSearch *search, const SourceRow *row, int column)
{
	MemoryContext caller = MemoryContextSwitchTo(search->context);
	ExplainReference *reference = palloc0(sizeof(ExplainReference));

	reference->source = row->source->name;
	reference->column = row->source->columns[column];
	reference->session = row->session ? pstrdup(row->session) : NULL;
	reference->value = !search->may_show[column] ? NULL :
		pnstrdup(row->values[column], pg_mbcliplen(row->values[column], (int) row->lengths[column], VALUE_SHOWN));
	search->references = lappend(search->references, reference);
	MemoryContextSwitchTo(caller);
}

static bool
refers(const ExplainSearch *search, const SourceRow *row, int column)
{
	return row->values[column] != NULL &&
		key_compare(search->rules, row->values[column], row->lengths[column], search->path) != KEY_NO_MATCH;
}

static bool
explain_row(const SourceRow *row, void *arg)
{
	ExplainSearch *search = arg;

	CHECK_FOR_INTERRUPTS();
	for (int i = 0; i < row->source->n_columns; i++)
	{
		if (!refers(search, row, i))
			continue;
		search->count++;
		if (list_length(search->references) < ROWS_SHOWN)
			explain_value(search, row, i);
	}
	return true;
}

/*
 * Counts references of failed sessions.  With SCAN_JUDGING, only the rows of
 * failed sessions have a session.
 */
static bool
count_failed_row(const SourceRow *row, void *arg)
{
	ExplainSearch *search = arg;

	if (row->session == NULL)
		return true;
	for (int i = 0; i < row->source->n_columns; i++)
		search->failed += refers(search, row, i);
	foreach_ptr(ExplainReference, reference, search->references)
	{
		if (reference->source == row->source->name && reference->session != NULL &&
			strcmp(reference->session, row->session) == 0)
			reference->failed = true;
	}
	return true;
}

static void
find_references(const CleanupPlan *plan, ExplainSearch *search)
{
	TimestampTz failed_before = plan_failed_before(settings_of(plan));
	Snapshot	snapshot = sources_take_snapshot();

	foreach_ptr(const Source, source, plan_findings(plan)->sources)
	{
		search->may_show = sources_columns_to_show(source);
		sources_read(snapshot, source, SCAN_NAMING, failed_before, explain_row, search);
		sources_read(snapshot, source, SCAN_JUDGING, failed_before, count_failed_row, search);
	}
	UnregisterSnapshot(snapshot);
}

/* Returns why the file is kept; or why it is condemned, and sets *condemned. */
static const char *
give_verdict(const CleanupPlan *plan, const ExplainSearch *search, FileResult found,
			 const FileIdentity *identity, Match *match, bool *condemned)
{
	const Settings *settings = settings_of(plan);
	const char *kept = hold_find(plan_context(plan)->extension, search->path);
	size_t		len;
	WalkReason	reason = walk_why_not(plan_findings(plan)->store, search->path, settings->recurse, &len);

	/*
	 * A file that is not a regular file is reported below.  A file behind a
	 * symlink or a mount is never found, even if the file exists.
	 */
	if (reason == WALK_NOT_A_FILE || (reason == WALK_SYMLINK && len == strlen(search->path)))
		reason = WALK_REACHED;
	if (reason != WALK_REACHED &&
		(found.outcome != FILE_VANISHED || reason == WALK_SYMLINK || reason == WALK_MOUNT || reason == WALK_SUBVOLUME))
		return psprintf("\"%.*s\" is not looked into: %s", (int) len, search->path,
						walk_reason_text(reason));
	if (found.outcome == FILE_VANISHED)
		return "there is no such file";
	if (found.outcome == FILE_NOT_REGULAR)
		return "it is not a regular file";
	if (found.outcome != FILE_OK)
		return psprintf("%s: %s", found.failure, store_error_text(plan_findings(plan)->store, found.errnum));
	if (kept != NULL)
		return kept;
	*condemned = match_is_pending(match, 0);
	if (*condemned)
		return "an earlier run has condemned it, and it is still to be dealt with";
	kept = match_why_kept(match, 0);
	if (kept != NULL)
		return kept;
	if (!key_is_audio(settings->rules, search->path))
		return "its extension is not one of audio_cleanup.audio_extensions";
	if (search->count > search->failed)
		return psprintf("%lld row(s) refer to it", (long long) (search->count - search->failed));
	*condemned = search->failed > 0;
	if (search->failed > 0)
		return psprintf("only sessions that failed more than %d days ago refer to it",
						settings->failed_session_retention_days);
	/* by more than clocks may differ */
	if (plan_file_time(plan, identity) > GetCurrentTimestamp() + 5 * USECS_PER_MINUTE)
		return "no row refers to it, but its date is in the future";
	*condemned = plan_is_old(plan, identity);
	return psprintf(*condemned ? "no row refers to it, and it is older than the retention of %d hours" :
					"no row refers to it, but it is younger than the retention of %d hours",
					settings->orphaned_file_retention_hours);
}

static Jsonb *
reference_to_jsonb(const ExplainReference *reference)
{
	JsonBuilder json;

	json_begin(&json);
	json_add_text(&json, "source", reference->source);
	json_add_text(&json, "column", reference->column);
	json_add_text(&json, "session", reference->session ? sources_session_id(reference->session) : NULL);
	json_add_text(&json, "value", reference->value);
	json_add_boolean(&json, "failed", reference->failed);
	return json_end(&json);
}

/* Adds the newest backup of the file, which cleanup_restore() would put back. */
static void
add_newest_backup(JsonBuilder *json, const CleanupPlan *plan, const char *path)
{
	const Backup *backup = backup_find(plan_context(plan)->extension, plan_findings(plan)->claim->uuid, path);
	JsonBuilder object;

	if (backup == NULL)
		return;
	json_begin(&object);
	json_add_integer(&object, "run_id", backup->run_id);
	json_add_text(&object, "expires", timestamptz_to_str(backup->expires_at));
	json_add_jsonb(json, "backup", json_end(&object));
}

static Jsonb *
make_explanation(const CleanupPlan *plan, const ExplainSearch *search, FileResult found,
				 const FileIdentity *identity, Match *match)
{
	bool		condemned = false;
	const char *reason = give_verdict(plan, search, found, identity, match, &condemned);
	JsonBuilder json;

	json_begin(&json);
	json_add_text(&json, "file", search->path);
	json_add_boolean(&json, "exists", found.outcome == FILE_OK);
	json_add_text(&json, "verdict", condemned ? "condemned" : "kept");
	json_add_text(&json, "reason", reason);
	json_begin_array(&json, "references");
	foreach_ptr(const ExplainReference, reference, search->references)
		json_add_jsonb(&json, NULL, reference_to_jsonb(reference));
	json_end_array(&json);
	json_add_integer(&json, "reference_count", search->count);
	if (found.outcome == FILE_OK)
	{
		TimestampTz modified = plan_file_time(plan, identity);

		json_add_integer(&json, "size", identity->size);
		json_add_text(&json, "dated", timestamptz_to_str(modified));
		json_add_decimal(&json, "age_hours",
						 (double) (GetCurrentTimestamp() - modified) / USECS_PER_HOUR, 2);
	}
	json_add_integer(&json, "retention_hours", settings_of(plan)->orphaned_file_retention_hours);
	add_newest_backup(&json, plan, search->path);
	report_add_blocked_by(&json, plan_findings(plan));
	return json_end(&json);
}

static Jsonb *
explain(CleanupPlan *plan, void *arg)
{
	const Settings *settings = settings_of(plan);
	ExplainSearch search = {.rules = settings->rules,.context = CurrentMemoryContext};
	FileIdentity identity;
	FileResult	found;
	Match	   *match;
	Jsonb	   *explanation;
	int			limit;

	search.path = location_relative(settings, arg);
	limit = lock_limit_waits(settings->writer_wait);
	plan_open(plan);

	/*
	 * if the directory or a source cannot be read, there is nothing to
	 * explain; any other brake is part of the answer
	 */
	foreach_ptr(const Brake, brake, plan_findings(plan)->brakes)
		if (strcmp(brake->name, "claim") != 0 && strcmp(brake->name, "clock") != 0 && strcmp(brake->name, "settings") != 0)
		brake_raise(brake);
	find_references(plan, &search);
	lock_end_limit(limit);
	found = store_identify(plan_findings(plan)->store, search.path, false, &identity);
	/* the state of the file by a match of this one file, as a run does */
	match = match_begin(settings, plan_findings(plan)->claim->uuid);
	match_add(match, search.path);
	match_run(match, plan_context(plan)->extension, NIL, MATCH_PROTECT, 0, false);
	explanation = make_explanation(plan, &search, found, &identity, match);
	match_end(match);
	return explanation;
}

Jsonb *
explain_file(const char *file)
{
	return plan_call(CLEAN_ALL, true, false, explain, (void *) file);
}
