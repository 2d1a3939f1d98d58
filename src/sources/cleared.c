/*-------------------------------------------------------------------------
 *
 * sources/cleared.c
 *	  What stood in the columns of sessions before they were cleared.
 *
 * Values are kept as text, as their type writes and reads it.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "src/pg/lock.h"
#include "src/pg/sql.h"
#include "src/sources/cleared.h"

void
cleared_remember(const Extension *extension, int64 run_id, const Source *source, Datum sessions)
{
	const SqlParameter parameters[] = {SQL_INT8(run_id), SQL_TEXT(source->name)};
	TupleDesc	desc;
	Tuplestorestate *values = sources_copy_columns(source, sessions, &desc);

	sql_show_tuplestore("cleanup_values", values, desc);
	owner_query(extension, lengthof(parameters), parameters,
				"INSERT INTO @extschema@.cleanup_cleared"
				"  (run_id, source, session_id, key_columns, row_key, column_name, value)"
				" SELECT $1, $2, v.session_id, v.key_columns, v.row_key, v.column_name, v.value FROM cleanup_values v");
	sql_hide_tuplestore("cleanup_values");
	tuplestore_end(values);
}

/* One source and column whose values come back. */
typedef struct Refill
{
	const Extension *extension;
	List	   *sources;		/* all that are registered */
	int64		run_id;
	int			wait_ms;
	const char *source;
	const char *column;
	Datum		key_columns;	/* text[] */
	Datum		sessions;		/* text[]; of the same length: */
	Datum		row_keys;		/* text[] */
	Datum		values;			/* text[] */
	bool	   *refilled;		/* those that were written */
} Refill;

static const Source *
find_source(List *sources, const char *name)
{
	ListCell   *lc;

	foreach(lc, sources)
	{
		Source	   *source = lfirst(lc);

		if (strcmp(source->name, name) == 0 && sources_check(source) == NULL)
			return source;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("source %s is not registered any more, or cannot be used", name)));
}

/* The elements of a text[] that belong to those that were written, as a text[]. */
static Datum
pick_refilled(const Refill *refill, Datum array)
{
	Datum	   *elements;
	int			n;
	int			kept = 0;
	int			i;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &n);
	for (i = 0; i < n; i++)
		if (refill->refilled[i])
			elements[kept++] = elements[i];
	return PointerGetDatum(construct_array(elements, kept, TEXTOID, -1, false, TYPALIGN_INT));
}

/* What a trigger or a policy kept from being written may be tried again. */
static void
forget(const Refill *refill)
{
	const SqlParameter parameters[] = {
		SQL_INT8(refill->run_id), SQL_TEXT(refill->source), SQL_TEXT(refill->column),
		{TEXTARRAYOID, refill->key_columns, false},
		{TEXTARRAYOID, pick_refilled(refill, refill->row_keys), false}
	};

	owner_query(refill->extension, lengthof(parameters), parameters,
				"DELETE FROM @extschema@.cleanup_cleared WHERE run_id = $1 AND source = $2 AND column_name = $3"
				" AND key_columns = $4 AND row_key = ANY ($5)");
}

static void
refill_column(void *arg)
{
	Refill	   *refill = arg;
	int			limit = lock_limit_waits(refill->wait_ms);

	refill->refilled = sources_refill(find_source(refill->sources, refill->source), refill->column,
									  refill->key_columns, refill->row_keys, refill->values);
	forget(refill);
	lock_end_limit(limit);
}

/* Of files that are restored, the sessions; as two arrays, sources and sessions. */
static int
gather_sessions(const LedgerFile *files, int n, Datum *sources, Datum *sessions)
{
	Datum	   *source = palloc(sizeof(Datum) * n);
	Datum	   *session = palloc(sizeof(Datum) * n);
	int			found = 0;
	int			i;

	for (i = 0; i < n; i++)
	{
		if (files[i].session == NULL || files[i].source == NULL || files[i].new_state == NULL ||
			strcmp(files[i].new_state, "failed") == 0)
			continue;
		source[found] = CStringGetTextDatum(files[i].source);
		session[found++] = CStringGetTextDatum(files[i].session);
	}
	*sources = PointerGetDatum(construct_array(source, found, TEXTOID, -1, false, TYPALIGN_INT));
	*sessions = PointerGetDatum(construct_array(session, found, TEXTOID, -1, false, TYPALIGN_INT));
	return found;
}

/* Version 1.0 knew a row by the session that the source shows. */
static void
complete_keys(const Extension *extension, int64 run_id)
{
	const SqlParameter parameters[] = {SQL_INT8(run_id)};

	owner_query(extension, lengthof(parameters), parameters,
				"UPDATE @extschema@.cleanup_cleared c"
				" SET key_columns = ARRAY[s.id_column::text], row_key = ARRAY[c.session_id]::text"
				" FROM @extschema@.cleanup_sources s"
				" WHERE c.run_id = $1 AND c.key_columns IS NULL AND s.id_column IS NOT NULL"
				"  AND s.source = pg_catalog.to_regclass(c.source)");
}

/* What is remembered of these sessions, by source and column. */
static int
query_refills(const Extension *extension, int64 run_id, Datum sources, Datum sessions,
			  Refill **refills)
{
	const SqlParameter parameters[] = {
		SQL_INT8(run_id), {TEXTARRAYOID, sources, false}, {TEXTARRAYOID, sessions, false}
	};
	int			n;
	int			i;

	complete_keys(extension, run_id);
	n = owner_query(extension, lengthof(parameters), parameters,
					"SELECT c.source, c.column_name::text, coalesce(c.key_columns, '{id}'),"
					"  pg_catalog.array_agg(c.session_id ORDER BY c.cleared_id),"
					"  pg_catalog.array_agg(coalesce(c.row_key, '') ORDER BY c.cleared_id),"
					"  pg_catalog.array_agg(c.value ORDER BY c.cleared_id)"
					" FROM @extschema@.cleanup_cleared c WHERE c.run_id = $1 AND (c.source, c.session_id) IN"
					"  (SELECT * FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) u)"
					" GROUP BY c.source, c.column_name, c.key_columns"
					" ORDER BY c.source, c.column_name, c.key_columns");
	*refills = palloc0(sizeof(Refill) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		(*refills)[i].extension = extension;
		(*refills)[i].run_id = run_id;
		(*refills)[i].source = sql_text(i, 1);
		(*refills)[i].column = sql_text(i, 2);
		(*refills)[i].key_columns = PointerGetDatum(DatumGetArrayTypePCopy(sql_value(i, 3)));
		(*refills)[i].sessions = PointerGetDatum(DatumGetArrayTypePCopy(sql_value(i, 4)));
		(*refills)[i].row_keys = PointerGetDatum(DatumGetArrayTypePCopy(sql_value(i, 5)));
		(*refills)[i].values = PointerGetDatum(DatumGetArrayTypePCopy(sql_value(i, 6)));
	}
	SPI_freetuptable(SPI_tuptable);
	return n;
}

static List *
add_sessions(List *list, Datum sessions)
{
	Datum	   *elements;
	int			n;
	int			i;

	deconstruct_array(DatumGetArrayTypeP(sessions), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, NULL, &n);
	for (i = 0; i < n; i++)
	{
		char	   *session = TextDatumGetCString(elements[i]);
		ListCell   *lc;

		foreach(lc, list)
			if (strcmp(lfirst(lc), session) == 0)
			break;
		if (lc == NULL)
			list = lappend(list, session);
	}
	return list;
}

static List *
refill_sessions(const Extension *extension, int64 run_id, Datum sources, Datum sessions,
				int wait_ms, List **errors, int64 *n_errors)
{
	List	   *restored = NIL;
	Refill	   *refills;
	int			n_refills = query_refills(extension, run_id, sources, sessions, &refills);
	int			i;

	for (i = 0; i < n_refills; i++)
	{
		ErrorData  *error;

		refills[i].sources = sources_load(extension);
		refills[i].wait_ms = wait_ms;
		error = sql_try(refill_column, &refills[i]);
		if (error == NULL)
			restored = add_sessions(restored, pick_refilled(&refills[i], refills[i].sessions));
		else
		{
			*errors = lappend(*errors, psprintf("column %s of source %s was not restored: %s",
												refills[i].column, refills[i].source, error->message));
			(*n_errors)++;
		}
	}
	return restored;
}

List *
cleared_restore(const Extension *extension, int64 run_id, const LedgerFile *files, int n,
				int wait_ms, List **errors, int64 *n_errors)
{
	Datum		sources;
	Datum		sessions;

	if (gather_sessions(files, n, &sources, &sessions) == 0)
		return NIL;
	return refill_sessions(extension, run_id, sources, sessions, wait_ms, errors, n_errors);
}

List *
cleared_retry(const Extension *extension, int64 run_id, int wait_ms, List **errors, int64 *n_errors)
{
	const SqlParameter parameters[] = {SQL_INT8(run_id)};
	bool		found;
	Datum		sources = (Datum) 0;
	Datum		sessions = (Datum) 0;

	owner_query(extension, lengthof(parameters), parameters,
				"SELECT pg_catalog.array_agg(t.source), pg_catalog.array_agg(t.session_id)"
				" FROM (SELECT c.source, c.session_id FROM @extschema@.cleanup_cleared c"
				"  JOIN @extschema@.cleanup_files f ON f.run_id = c.run_id AND f.source = c.source AND f.session_id = c.session_id"
				"  WHERE c.run_id = $1 AND f.state = 'restored' GROUP BY 1, 2) t");
	found = !sql_is_null(0, 1);
	if (found)
	{
		sources = PointerGetDatum(DatumGetArrayTypePCopy(sql_value(0, 1)));
		sessions = PointerGetDatum(DatumGetArrayTypePCopy(sql_value(0, 2)));
	}
	SPI_freetuptable(SPI_tuptable);
	return found ? refill_sessions(extension, run_id, sources, sessions, wait_ms, errors, n_errors) : NIL;
}
