/*-------------------------------------------------------------------------
 *
 * explain.c
 *	  Why is this one file kept, or condemned?
 *
 * The verdict comes from the same functions as that of a run; what is added
 * are the rows that refer to the file, found by comparing each reference
 * with it.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "src/explain.h"
#include "src/json_build.h"
#include "src/match.h"
#include "src/plan.h"
#include "src/sources.h"

/* so many referring rows are shown; the rest is counted */
#define ROWS_SHOWN	10

typedef struct Reference
{
	const char *source;
	const char *column;
	const char *session;
	const char *value;
	bool		failed;
} Reference;

typedef struct Search
{
	const KeyRules *rules;
	const char *path;
	MemoryContext context;
	bool		judging;
	List	   *references;
	int64		count;
	int64		failed;			/* of them in failed sessions that are due */
} Search;

static void
add_reference(Search *search, const SourceRow *row, int column, bool failed)
{
	MemoryContext caller = MemoryContextSwitchTo(search->context);
	Reference  *reference = palloc(sizeof(Reference));

	reference->source = row->source->name;
	reference->column = row->source->columns[column];
	reference->session = row->session ? pstrdup(row->session) : NULL;
	reference->value = pnstrdup(row->values[column], row->lengths[column]);
	reference->failed = failed;
	search->references = lappend(search->references, reference);
	MemoryContextSwitchTo(caller);
}

static bool
look_at_row(const SourceRow *row, void *arg)
{
	Search	   *search = arg;
	int			i;

	CHECK_FOR_INTERRUPTS();
	for (i = 0; i < row->source->n_columns; i++)
	{
		if (row->values[i] == NULL ||
			key_compare(search->rules, row->values[i], row->lengths[i],
						search->path) == KEY_NO_MATCH)
			continue;
		search->count++;
		if (list_length(search->references) < ROWS_SHOWN)
			add_reference(search, row, i, false);
	}
	return true;
}

/* The same rows, but only failed ones have a session here. */
static bool
count_failed_row(const SourceRow *row, void *arg)
{
	Search	   *search = arg;
	ListCell   *lc;
	int			i;

	if (row->session == NULL)
		return true;
	for (i = 0; i < row->source->n_columns; i++)
		if (row->values[i] != NULL &&
			key_compare(search->rules, row->values[i], row->lengths[i],
						search->path) != KEY_NO_MATCH)
			search->failed++;
	foreach(lc, search->references)
	{
		Reference  *reference = lfirst(lc);

		if (reference->source == row->source->name && reference->session != NULL &&
			strcmp(reference->session, row->session) == 0)
			reference->failed = true;
	}
	return true;
}

static void
find_references(const CleanupPlan *plan, Search *search)
{
	TimestampTz failed_before = plan_failed_before(plan->settings);
	ListCell   *lc;

	foreach(lc, plan->sources)
	{
		sources_read(lfirst(lc), SCAN_NAMING, failed_before, look_at_row, search);
		sources_read(lfirst(lc), SCAN_JUDGING, failed_before, count_failed_row, search);
	}
}

static bool
has_parent_component(const char *path)
{
	const char *p = path;

	while ((p = strstr(p, "..")) != NULL)
	{
		if ((p == path || p[-1] == '/') && (p[2] == '\0' || p[2] == '/'))
			return true;
		p += 2;
	}
	return false;
}

/* The path as it is seen from the upload directory. */
static const char *
relative_path(const Settings *settings, const char *file)
{
	size_t		len = strlen(settings->upload_dir);

	if (*file == '\0' || strlen(file) >= STORE_PATH_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the name of a file must have 1 to %d bytes", STORE_PATH_MAX - 1)));
	if (strncmp(file, settings->upload_dir, len) == 0 && file[len] == '/')
		file += len + 1;
	if (*file == '/' || has_parent_component(file))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("file \"%s\" is not below the upload directory \"%s\"",
						file, settings->upload_dir),
				 errhint("Name it by its path relative to the upload directory.")));
	return file;
}

typedef struct Verdict
{
	const char *verdict;		/* "kept", "condemned" or "unknown" */
	char	   *reason;
} Verdict;

static Verdict
kept(char *reason)
{
	Verdict		verdict = {"kept", reason};

	return verdict;
}

static Verdict
condemned(char *reason)
{
	Verdict		verdict = {"condemned", reason};

	return verdict;
}

static char *
age_reason(const CleanupPlan *plan, const char *what)
{
	return psprintf("%s the retention of %d hours", what,
					plan->settings->orphaned_file_retention_hours);
}

static Verdict
judge_file(const CleanupPlan *plan, const Search *search, FileResult found,
		   const FileIdentity *identity, bool pending)
{
	if (found.outcome == FILE_VANISHED)
		return kept("there is no such file");
	if (found.outcome == FILE_NOT_REGULAR)
		return kept("it is not a regular file");
	if (found.outcome != FILE_OK)
		return kept(psprintf("could not %s: %s", found.action, strerror(found.errnum)));
	if (pending)
		return condemned("an earlier run has condemned it, and it is still to be dealt with");
	if (!key_is_audio(&plan->settings->rules, search->path))
		return kept("its extension is not one of audio_cleanup.audio_extensions");
	if (search->count > search->failed)
		return kept(psprintf("%lld row(s) refer to it", (long long) (search->count - search->failed)));
	if (search->failed > 0)
		return condemned(psprintf("only failed sessions refer to it, failed longer ago than %d days",
								  plan->settings->failed_session_retention_days));
	if (!plan_is_old(plan->settings, identity))
		return kept(age_reason(plan, "no row refers to it, but it is younger than"));
	return condemned(age_reason(plan, "no row refers to it, and it is older than"));
}

static Jsonb *
reference_to_jsonb(const Reference *reference)
{
	JsonBuilder json;

	json_begin(&json);
	json_add_text(&json, "source", reference->source);
	json_add_text(&json, "column", reference->column);
	json_add_text(&json, "session", reference->session);
	json_add_text(&json, "value", reference->value);
	json_add_boolean(&json, "failed", reference->failed);
	return json_end(&json);
}

/*
 * Without the directory or the sources there is nothing to say; that a run
 * would be refused for another reason is part of the answer.
 */
static void
raise_unless_readable(const CleanupPlan *plan)
{
	ListCell   *lc;

	foreach(lc, plan->brakes)
	{
		const Brake *brake = lfirst(lc);

		if (strcmp(brake->name, "claim") != 0 && strcmp(brake->name, "clock") != 0)
			brake_raise(brake);
	}
}

static void
add_blocked_by(JsonBuilder *json, const CleanupPlan *plan)
{
	ListCell   *lc;

	if (plan->brakes == NIL)
		return;
	json_begin_array(json, "blocked_by");
	foreach(lc, plan->brakes)
		json_add_element(json, ((const Brake *) lfirst(lc))->name);
	json_end_array(json);
}

static Jsonb *
make_explanation(const CleanupPlan *plan, const Search *search, Verdict verdict, FileResult found,
				 const FileIdentity *identity)
{
	JsonBuilder json;
	ListCell   *lc;

	json_begin(&json);
	json_add_text(&json, "file", search->path);
	json_add_boolean(&json, "exists", found.outcome == FILE_OK);
	json_add_text(&json, "verdict", verdict.verdict);
	json_add_text(&json, "reason", verdict.reason);
	json_begin_array(&json, "references");
	foreach(lc, search->references)
		json_add_object_element(&json, reference_to_jsonb(lfirst(lc)));
	json_end_array(&json);
	json_add_integer(&json, "reference_count", search->count);
	if (found.outcome == FILE_OK)
	{
		int64		time_us = plan_file_time(plan->settings, identity) / 1000;
		TimestampTz modified = time_us - (TimestampTz) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;

		json_add_integer(&json, "size", identity->size);
		json_add_text(&json, "dated", timestamptz_to_str(modified));
		json_add_decimal(&json, "age_hours",
						 (double) (GetCurrentTimestamp() - modified) / USECS_PER_HOUR, 2);
	}
	json_add_integer(&json, "retention_hours", plan->settings->orphaned_file_retention_hours);
	add_blocked_by(&json, plan);
	return json_end(&json);
}

/* Pending already?  A match of this one file tells, as it tells a run. */
static bool
is_pending(const CleanupPlan *plan, const char *path)
{
	Match	   *match = match_begin(&plan->settings->rules);
	bool		pending;

	match_add(match, path);
	match_run(match, plan->extension, NIL, MATCH_PROTECT, 0, false);
	pending = match_count_pending(match) > 0;
	match_end(match);
	return pending;
}

static Jsonb *
explain(CleanupPlan *plan, const char *file)
{
	Search		search = {.context = CurrentMemoryContext};
	FileIdentity identity;
	FileResult	found;

	search.rules = &plan->settings->rules;
	search.path = relative_path(plan->settings, file);
	plan_open(plan);
	raise_unless_readable(plan);
	find_references(plan, &search);
	found = store_identify(plan->store, search.path, &identity);
	return make_explanation(plan, &search,
							judge_file(plan, &search, found, &identity,
									   is_pending(plan, search.path)),
							found, &identity);
}

Jsonb *
explain_file(const char *file)
{
	MemoryContext caller = CurrentMemoryContext;
	CleanupPlan *plan;
	Jsonb	   *jsonb;
	Jsonb	   *copy;

	SPI_connect();
	plan = plan_begin(CLEAN_ALL, true, false);
	MemoryContextSwitchTo(plan->context);
	jsonb = explain(plan, file);
	copy = MemoryContextAlloc(caller, VARSIZE(jsonb));
	memcpy(copy, jsonb, VARSIZE(jsonb));
	MemoryContextSwitchTo(caller);
	plan_end(plan);
	SPI_finish();
	return copy;
}
