/*-------------------------------------------------------------------------
 *
 * sources/key.c
 *	  Identifies rows by their key.
 *
 * A row of a distributed table is stored on another node, whose places in the
 * table cannot be used here.  So the row is found by the values of its key.  A
 * unique index of such a table includes the distribution column, so a
 * condition on all columns of the key leads to one shard; and in one shard
 * Citus can lock a row.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_index.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/sources/query.h"

/* Number of digits for each byte of a key in a session. */
#define DIGITS_PER_BYTE	3


/* ------------------------------------------------------------------ find --- */

static bool
is_whole_key(Relation rel, Form_pg_index index, HeapTuple tuple)
{
	if (!index->indisunique || !index->indisvalid || !index->indimmediate ||
		!heap_attisnull(tuple, Anum_pg_index_indpred, NULL))
		return false;
	for (int i = 0; i < index->indnkeyatts; i++)
		if (index->indkey.values[i] <= 0 ||
			!TupleDescAttr(RelationGetDescr(rel), index->indkey.values[i] - 1)->attnotnull)
			return false;
	return true;
}

static List *
key_column_names(Relation rel, Form_pg_index index)
{
	List	   *names = NIL;

	for (int i = 0; i < index->indnkeyatts; i++)
		names = lappend(names, pstrdup(NameStr(TupleDescAttr(RelationGetDescr(rel),
															 index->indkey.values[i] - 1)->attname)));
	return names;
}

List *
key_find(Oid table)
{
	Relation	rel = relation_open(table, AccessShareLock);
	List	   *key = NIL;
	bool		is_primary = false;

	foreach_oid(indexrelid, RelationGetIndexList(rel))
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexrelid));
		Form_pg_index index;

		if (!HeapTupleIsValid(tuple))
			continue;
		index = (Form_pg_index) GETSTRUCT(tuple);
		if (!is_primary && (key == NIL || index->indisprimary) && is_whole_key(rel, index, tuple))
		{
			key = key_column_names(rel, index);
			is_primary = index->indisprimary;
		}
		ReleaseSysCache(tuple);
	}
	relation_close(rel, AccessShareLock);
	return key;
}


/* ------------------------------------------------------------------ text --- */

void
key_write_plainly(void)
{
	static const char *const settings[][2] = {
		{"datestyle", "ISO, YMD"}, {"intervalstyle", "postgres"}, {"timezone", "UTC"},
		{"extra_float_digits", "3"}, {"bytea_output", "hex"}
	};

	for (int i = 0; i < lengthof(settings); i++)
		role_set_for_now(settings[i][0], settings[i][1]);
}

char *
key_text(List *values)
{
	return OidOutputFunctionCall(F_ARRAY_OUT, sql_text_array(values));
}

static const char **
key_values(const char *key, int *n)
{
	return sql_texts(OidInputFunctionCall(F_ARRAY_IN, unconstify(char *, key), TEXTOID, -1), n);
}

char *
key_to_digits(const char *key)
{
	StringInfoData digits;

	initStringInfo(&digits);
	for (; *key != '\0'; key++)
		appendStringInfo(&digits, "%0*u", DIGITS_PER_BYTE, (unsigned char) *key);
	return digits.data;
}

char *
key_from_digits(const char *digits)
{
	StringInfoData key;
	int			byte;

	initStringInfo(&key);
	for (; sscanf(digits, "%3d", &byte) == 1; digits += DIGITS_PER_BYTE)
		appendStringInfoChar(&key, (char) byte);
	return key.data;
}


/* ------------------------------------------------------------- condition --- */

/*
 * Returns false for a domain: with a value of the base type, Citus looks for
 * the row in the wrong shard.
 */
bool
key_is_plain(Oid table, List *columns)
{
	foreach_ptr(const char, column, columns)
	{
		Oid			type = get_atttype(table, get_attnum(table, column));

		if (!type_is_enum(type) && (type >= FirstNormalObjectId || type_is_rowtype(type)))
			return false;
	}
	return columns != NIL;
}

char *
key_condition(List *columns, int first)
{
	StringInfoData sql;

	initStringInfo(&sql);
	foreach_ptr(const char, column, columns)
		appendStringInfo(&sql, "%ss.%s OPERATOR(pg_catalog.=) $%d", sql.len > 0 ? " AND " : "",
						 quote_identifier(column), first++);
	return sql.data;
}

/*
 * A value of a domain gets the base type, because the value was checked when
 * it was stored.
 */
void
key_parameters(Oid table, List *columns, const char *key, SqlParameter *parameters)
{
	int			n;
	const char **values = key_values(key, &n);
	int			i = 0;

	if (n != list_length(columns))
		elog(ERROR, "a key of %d values is not that of %d columns", n, list_length(columns));
	foreach_ptr(const char, column, columns)
	{
		AttrNumber	attnum = get_attnum(table, column);
		int32		typmod = -1;
		Oid			type;
		Oid			collation;
		Oid			function;
		Oid			ioparam;

		if (attnum <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("table %s has no column \"%s\"", sources_name(table), column)));
		get_atttypetypmodcoll(table, attnum, &type, &typmod, &collation);
		type = getBaseTypeAndTypmod(type, &typmod);
		getTypeInputInfo(type, &function, &ioparam);
		parameters[i] = (SqlParameter)
		{
			type, OidInputFunctionCall(function, unconstify(char *, values[i]), ioparam, typmod), false
		};
		i++;
	}
}
