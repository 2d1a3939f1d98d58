/*-------------------------------------------------------------------------
 *
 * sources/cleared.c
 *	  Keeps, and writes back, the content of session columns that were cleared.
 *
 * Values are kept in the text form of their type.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "src/names/file_key.h"
#include "src/pg/lock.h"
#include "src/pg/sql.h"
#include "src/sources/cleared.h"
#include "src/text/list.h"

void
cleared_remember(const Extension *extension, int64 run_id, const Source *source, List *sessions)
{
	TupleDesc	desc;
	Tuplestorestate *values = sources_copy_columns(source, sessions, &desc);

	sql_show_tuplestore("cleanup_values", values, desc);
	owner_query(extension, SQL_ARGS(SQL_INT8(run_id), SQL_TEXT(source->name)),
				"INSERT INTO @extschema@.cleanup_cleared"
				"  (run_id, source, session_id, key_columns, row_key, column_name, value)"
				" SELECT $1, $2, v.session_id, v.key_columns, v.row_key, v.column_name, v.value FROM cleanup_values v");
	tuplestore_end(values);
}

/* Values of one column of one source, to be written back. */
typedef struct Refill
{
	const Extension *extension;
	int			wait_ms;
	const char *source;
	const Source *found;		/* the source of that name; NULL until it is
								 * found */
	const char *column;
	Datum		key_columns;	/* text[] */
	Datum		ids;			/* text[], as long as: */
	Datum		row_keys;		/* text[] */
	Datum		values;			/* text[] */
	List	   *sessions;		/* sessions (char *) that were written */
} Refill;

static const Source *
usable_source(List *sources, const char *name)
{
	foreach_ptr(Source, source, sources)
	{
		if (strcmp(source->name, name) == 0 && sources_check(source) == NULL)
			return source;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("source %s is not registered any more, or cannot be used", name)));
}

/*
 * Fills the column, forgets the values that were written, and notes their
 * sessions.  A value stays recorded, for another try, if a trigger or a policy
 * kept it from being written.
 */
static void
refill_column(void *arg)
{
	Refill	   *refill = arg;
	int			limit = lock_limit_waits(refill->wait_ms);
	List	   *written;

	refill->found = usable_source(sources_load(refill->extension), refill->source);
	written = sources_refill(refill->found, refill->column, refill->key_columns, refill->row_keys,
							 refill->values, refill->ids);
	MemoryContextSwitchTo(GetMemoryChunkContext(refill));
	refill->sessions = owner_texts(refill->extension, SQL_ARGS(SQL_TEXTS(written)),
								   "WITH gone AS (DELETE FROM @extschema@.cleanup_cleared WHERE cleared_id = ANY ($1::pg_catalog.uuid[]) RETURNING session_id)"
								   " SELECT DISTINCT session_id FROM gone ORDER BY 1");
	lock_end_limit(limit);
}

/* Completes values of version 1.0, which recorded the session that the source shows as the key of a row. */
static void
complete_keys(const Extension *extension, int64 run_id)
{
	owner_query(extension, SQL_ARGS(SQL_INT8(run_id)),
				"UPDATE @extschema@.cleanup_cleared c"
				" SET key_columns = ARRAY[s.id_column::text], row_key = ARRAY[c.session_id]::text"
				" FROM @extschema@.cleanup_sources s"
				" WHERE c.run_id = $1 AND c.key_columns IS NULL AND s.id_column IS NOT NULL"
				"  AND s.source = pg_catalog.to_regclass(c.source)");
}

/*
 * Adds the IDs of the recorded values of these sessions that may come back.  A
 * value that refers to a file of its session waits until such a file is
 * restored.
 */
static List *
choose_own_values(List *ids, const Extension *extension, const KeyRules *rules, int64 run_id, List *sources, List *sessions)
{
	int			n = owner_query_by_hash(extension, SQL_ARGS(SQL_INT8(run_id), SQL_TEXTS(sources), SQL_TEXTS(sessions)),
										"SELECT c.cleared_id::text, c.value, f.file, f.state IN ('restoring', 'restored')"
										" FROM @extschema@.cleanup_cleared c JOIN @extschema@.cleanup_files f USING (run_id, source, session_id)"
										" WHERE c.run_id = $1 AND f.run_id = $1 AND (c.source, c.session_id) IN"
										"  (SELECT * FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) u)"
										" ORDER BY 1");
	int			i;

	for (int first = 0; first < n; first = i)
	{
		char	   *id = sql_text(first, 1);
		bool		waits = false;
		bool		comes = false;

		for (i = first; i < n && strcmp(sql_text(i, 1), id) == 0; i++)
		{
			char	   *value = sql_text(i, 2);
			char	   *file = sql_text(i, 3);
			bool		refers = key_compare(rules, value, strlen(value), file) != KEY_NO_MATCH;

			CHECK_FOR_INTERRUPTS();
			waits |= refers;
			comes |= refers && DatumGetBool(sql_value(i, 4));
			pfree(value);
			pfree(file);
		}
		if (comes || !waits)
			ids = lappend(ids, id);
	}
	return ids;
}

/*
 * Adds the IDs of the recorded values that refer to one of the files, and whose
 * sessions have no file of their own: if several sessions refer to a file, the
 * row of the file has only one of them.
 */
static List *
choose_shared_values(List *ids, const Extension *extension, const KeyRules *rules, int64 run_id,
					 const LedgerFile *files, int n_files)
{
	KeyScope	scope = {.keys_max = MaxAllocSize,.seed = pg_prng_uint64(&pg_global_prng_state)};
	int			n = owner_query_by_hash(extension, SQL_ARGS(SQL_INT8(run_id)),
										"SELECT c.cleared_id::text, c.value FROM @extschema@.cleanup_cleared c WHERE c.run_id = $1"
										" AND NOT EXISTS (SELECT FROM @extschema@.cleanup_files f"
										"  WHERE f.run_id = $1 AND f.source = c.source AND f.session_id = c.session_id)");

	for (int i = 0; i < n_files && n > 0; i++)
		scope.keys_expected += key_count_most(rules, files[i].path);
	for (int i = 0; i < n_files && n > 0; i++)
		key_widen_scope(rules, files[i].path, &scope);
	for (int i = 0; i < n; i++)
	{
		char	   *value = sql_text(i, 2);

		CHECK_FOR_INTERRUPTS();
		if (key_refers(rules, &scope, value, strlen(value)))
			ids = lappend(ids, sql_text(i, 1));
		pfree(value);
	}
	key_forget_scope(&scope);
	return ids;
}

/* Returns the values with these IDs, grouped by source and column (Refill). */
static List *
query_refills(const Extension *extension, List *ids, int wait_ms)
{
	List	   *refills = NIL;
	int			n = owner_query(extension, SQL_ARGS(SQL_TEXTS(ids)),
								"SELECT c.source, c.column_name::text, coalesce(c.key_columns, '{id}'),"
								"  pg_catalog.array_agg(c.cleared_id::text ORDER BY c.cleared_id),"
								"  pg_catalog.array_agg(coalesce(c.row_key, '') ORDER BY c.cleared_id),"
								"  pg_catalog.array_agg(c.value ORDER BY c.cleared_id)"
								" FROM @extschema@.cleanup_cleared c WHERE c.cleared_id = ANY ($1::pg_catalog.uuid[])"
								" GROUP BY 1, 2, 3 ORDER BY 1, 2, 3");

	for (int i = 0; i < n; i++)
	{
		Refill	   *refill = palloc0(sizeof(Refill));

		refill->extension = extension;
		refill->wait_ms = wait_ms;
		refill->source = sql_text(i, 1);
		refill->column = sql_text(i, 2);
		refill->key_columns = sql_array(i, 3);
		refill->ids = sql_array(i, 4);
		refill->row_keys = sql_array(i, 5);
		refill->values = sql_array(i, 6);
		refills = lappend(refills, refill);
	}
	return refills;
}

/* Returns each of the texts once: several columns may have brought back a session. */
static List *
each_once(List *texts)
{
	List	   *once = NIL;

	list_sort(texts, list_compare_texts);
	foreach_ptr(char, text, texts)
		if (once == NIL || strcmp(llast(once), text) != 0)
		once = lappend(once, text);
	return once;
}

List *
cleared_restore(const Extension *extension, const KeyRules *rules, int64 run_id, const LedgerFile *files, int n,
				int wait_ms, List **errors, int64 *n_errors)
{
	List	   *restored = NIL;
	List	   *sources = NIL;
	List	   *sessions = NIL;
	List	   *ids;

	for (int i = 0; i < n; i++)
	{
		sources = lappend(sources, (char *) files[i].source);
		sessions = lappend(sessions, (char *) files[i].session);
	}
	complete_keys(extension, run_id);
	ids = choose_own_values(NIL, extension, rules, run_id, sources, sessions);
	ids = choose_shared_values(ids, extension, rules, run_id, files, n);
	foreach_ptr(Refill, refill, query_refills(extension, ids, wait_ms))
	{
		ErrorData  *error = sql_try(refill_column, refill);

		if (error != NULL)
		{
			if (refill->found != NULL)
				sources_hide_rows(refill->found, error, false);
			*errors = lappend(*errors, psprintf("column %s of source %s was not restored: %s",
												refill->column, refill->source, error->message));
			(*n_errors)++;
			continue;
		}
		restored = list_concat(restored, refill->sessions);
	}
	return each_once(restored);
}
