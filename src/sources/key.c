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

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/sources/query.h"


/* ------------------------------------------------------------------ find --- */

List *
key_names(Datum array)
{
	int			n;
	const char **texts = sql_texts(array, &n);
	List	   *names = NIL;

	for (int i = 0; i < n; i++)
		names = lappend(names, unconstify(char *, texts[i]));
	return names;
}

/*
 * Finds the key of table $1.  An expression is no column, and a constraint NOT
 * NULL may be NOT VALID: then the column may still have a NULL.
 */
static SqlKept key_query = {
	"SELECT pg_catalog.array_agg(a.attname::text ORDER BY k.n) FROM pg_catalog.pg_index i"
	" CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n)"
	" LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND a.attnotnull"
	"  AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint c WHERE c.conrelid = a.attrelid AND c.contype = 'n'"
	"   AND c.conkey = ARRAY[a.attnum] AND NOT c.convalidated)"
	" WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND k.n <= i.indnkeyatts"
	" GROUP BY i.indexrelid, i.indisprimary HAVING pg_catalog.count(*) = pg_catalog.count(a.attnum)"
	" ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1",
NULL};

List *
key_find(Oid table)
{
	if (sql_query_kept(&key_query, SQL_ARGS(SQL_OID(OIDOID, table))) == 0)
		return NIL;
	return key_names(sql_value(0, 1));
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
	if (list_member_ptr(values, NULL))
		elog(ERROR, "a column of a key is NULL");
	return OidOutputFunctionCall(F_ARRAY_OUT, sql_text_array(values));
}



/* ------------------------------------------------------------- condition --- */

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
SqlParameter *
key_parameters(Oid table, List *columns, const char *key)
{
	int			n;
	const char **values = sql_texts(OidInputFunctionCall(F_ARRAY_IN, unconstify(char *, key), TEXTOID, -1), &n);
	SqlParameter *parameters = palloc(sizeof(SqlParameter) * Max(n, 1));
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
	return parameters;
}
