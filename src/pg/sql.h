/*-------------------------------------------------------------------------
 *
 * pg/sql.h
 *	  What the server gives us: a statement of our own, run through SPI in a
 *	  line, and nobody else's.
 *
 * Unlike SPI's own, these functions leave the current memory context alone.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SQL_H
#define AUDIO_CLEANUP_SQL_H

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "nodes/params.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "src/pg/compat.h"
#include "src/pg/extension.h"

/* A parameter: its type, and its value (for a NULL: isnull). */
typedef struct SqlParameter
{
	Oid			type;
	Datum		value;
	bool		isnull;
} SqlParameter;

#define SQL_VALUE(type, datum)	{type, datum, false}
#define SQL_INT8(v)		{INT8OID, Int64GetDatum(v), false}
#define SQL_INT4(v)		{INT4OID, Int32GetDatum(v), false}
#define SQL_BOOL(v)		{BOOLOID, BoolGetDatum(v), false}
#define SQL_OID(type, v)	{type, ObjectIdGetDatum(v), false}
#define SQL_TEXT(v)		{TEXTOID, (v) ? CStringGetTextDatum(v) : (Datum) 0, (v) == NULL}

/* The two arguments `n` and `parameters` of the calls below, made of some parameters. */
#define SQL_ARGS(...) \
	lengthof(((const SqlParameter[]) {__VA_ARGS__})), (const SqlParameter[]) {__VA_ARGS__}

/* Returns the `n` numbers as a bigint[], for a parameter of type INT8ARRAYOID. */
extern Datum sql_int8_array(const int64 *values, int n);

/* Returns the texts (char *) as a text[], for a parameter of type TEXTARRAYOID. */
extern Datum sql_text_array(const List *texts);

/* Returns the elements of a text[] as an array of C strings, and sets *n to their number. */
extern const char **sql_texts(Datum array, int *n);

/* A column of rows of our own making. */
typedef struct SqlColumn
{
	const char *name;
	Oid			type;
} SqlColumn;

/*
 * Makes the descriptor of rows of the `n` columns, ready for use, in the
 * current memory context.  There is no other way to make one: what it takes
 * to finish one depends on the server's version.
 */
extern TupleDesc sql_row_desc(int n, const SqlColumn *columns);

/*
 * Every statement of this extension goes through one of the calls below.
 * Each says which relations and functions its text may name, and that is
 * checked by OID when the text has been analyzed and its relations are
 * locked, before anything is planned or run: somebody may have renamed a
 * schema and put another one in its place.  What is named otherwise is an
 * ERROR insufficient_privilege.  pg_catalog's may always be named.
 *
 * All take `n` parameters $1 ... and need SPI.  Those that return a number
 * return the number of rows; the rows are in SPI_tuptable and are to be freed
 * with SPI_freetuptable().  Each statement sees a snapshot of its own, so none
 * need be active.  Any failure is an ERROR.
 */

/* Installs the hook that checks; once, when the library is loaded. */
extern void sql_init(void);

/* Returns `sql` with the name that the schema of `extension` has now, quoted, for each @extschema@. */
extern char *sql_name_schema(const Extension *extension, const char *sql);

/* Executes `sql` as the current role; it may name pg_catalog's only. */
extern int	sql_query(int n, const SqlParameter *parameters, const char *sql);

/* As sql_query(), under the latest snapshot, in a REPEATABLE READ transaction too. */
extern int	sql_query_latest(int n, const SqlParameter *parameters, const char *sql);

/* A statement that is planned once in a session, for any values of its parameters; `plan` is NULL at first. */
typedef struct SqlKept
{
	const char *sql;
	SPIPlanPtr	plan;
} SqlKept;

/* As sql_query_latest(), of a statement that is kept. */
extern int	sql_query_kept(SqlKept *kept, int n, const SqlParameter *parameters);

/* Executes `sql` as the current role; it may name members of the extension with OID `member_of` too. */
extern int	sql_query_members(Oid member_of, int n, const SqlParameter *parameters, const char *sql);

/*
 * Executes `sql`, as the one door to our own tables does, as the owner of
 * `extension`.  The text says @extschema@ where the schema of the extension is
 * meant, whatever that is called by now, as the extension's script does.
 */
extern int	owner_query(const Extension *extension, int n, const SqlParameter *parameters,
						const char *sql);

/* As owner_query(), but the rows go to `receiver` and nowhere else. */
extern void owner_query_into(const Extension *extension, int n, const SqlParameter *parameters,
							 const char *sql, DestReceiver *receiver);

/* As owner_query(), for a SELECT: returns whether there is a row. */
extern bool owner_finds(const Extension *extension, int n, const SqlParameter *parameters,
						const char *sql);

/*
 * As owner_query(): returns the first column of the first row, copied into the
 * current memory context; 0 for NULL, or without a row.
 */
extern Datum owner_value(const Extension *extension, int n, const SqlParameter *parameters,
						 const char *sql);

/* As owner_query(), for a SELECT: returns the first column as a List of char *. */
extern List *owner_texts(const Extension *extension, int n, const SqlParameter *parameters,
						 const char *sql);

/*
 * As owner_query(): puts the first column, bigint, into an array in the
 * current memory context.  Returns how many there are.
 */
extern int	owner_numbers(const Extension *extension, int n, const SqlParameter *parameters,
						  const char *sql, int64 **numbers);

/*
 * Executes `sql` on somebody's table, as the current role: the text must name
 * the relation with OID `relation` and no other one, and functions of
 * pg_catalog only.  What triggers, policies and rules of that relation name is
 * not checked here.
 */
extern int	sql_query_on(Oid relation, int n, const SqlParameter *parameters, const char *sql);

/*
 * Returns, in PG_CATCH(), a copy of the error that was caught, with all it
 * points into, in the memory context `context`, which becomes the current one;
 * and forgets the error.
 */
extern ErrorData *sql_catch(MemoryContext context);

/* Raises a caught error anew.  What it points into may go at any time. */
pg_noreturn extern void sql_rethrow(ErrorData *error);

/*
 * Returns whether the texts of an error may tell what stands in rows: those of
 * a value that cannot be read, of a constraint, or of a RAISE.
 */
extern bool sql_tells_of_rows(const ErrorData *error);

/* Takes out of such an error what may tell of rows; its SQLSTATE stays. */
extern void sql_hide_rows(ErrorData *error);

/*
 * Calls work(arg) in a subtransaction.  Returns NULL, or the error that ended
 * it, after a rollback.  An error that is none of the statement's is passed on
 * as an ERROR: a cancel or shutdown (class 57), out of memory or disk (53), an
 * I/O error (58), corruption (XX).
 */
extern ErrorData *sql_try(void (*work) (void *arg), void *arg);

/* Returns a column (from 1) of a row (from 0) of SPI_tuptable; 0 or NULL for NULL. */
extern Datum sql_value(int row, int column);
extern bool sql_is_null(int row, int column);

/* Returns the column as text in the current memory context, NULL for NULL. */
extern char *sql_text(int row, int column);

/*
 * Makes a tuplestore visible to statements as a relation of this name, until
 * sql_hide_tuplestore() or SPI_finish().
 */
extern void sql_show_tuplestore(const char *name, Tuplestorestate *store, TupleDesc desc);
extern void sql_hide_tuplestore(const char *name);

#endif							/* AUDIO_CLEANUP_SQL_H */
