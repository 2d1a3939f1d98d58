/*-------------------------------------------------------------------------
 *
 * pg/sql.h
 *	  Runs a statement of our own through SPI, in one call.
 *
 * Each statement is checked: nobody may have changed the meaning of its names.
 *
 * Unlike SPI's own functions, these functions do not change the current
 * memory context.  Results are allocated in the current memory context.
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

/* A parameter of a statement: its type, its value, and whether it is NULL. */
typedef struct SqlParameter
{
	Oid			type;
	Datum		value;
	bool		isnull;
} SqlParameter;

#define SQL_VALUE(type, datum)	{type, datum, false}
#define SQL_INT8(v)		{INT8OID, Int64GetDatum(v), false}
#define SQL_INT8_IF(known, v)	{INT8OID, Int64GetDatum(v), !(known)}
#define SQL_INT4(v)		{INT4OID, Int32GetDatum(v), false}
#define SQL_BOOL(v)		{BOOLOID, BoolGetDatum(v), false}
#define SQL_OID(type, v)	{type, ObjectIdGetDatum(v), false}
#define SQL_TEXT(v)		{TEXTOID, (v) ? CStringGetTextDatum(v) : (Datum) 0, (v) == NULL}

/* arrays: of `n` numbers, and of lists of OIDs and of char * */
#define SQL_INT8S(values, n)	{INT8ARRAYOID, sql_int8_array(values, n), false}
#define SQL_OIDS(list)	{OIDARRAYOID, sql_oid_array(list), false}
#define SQL_TEXTS(list)	{TEXTARRAYOID, sql_text_array(list), false}

/* Makes the two arguments `n` and `parameters` of the calls below from the parameters listed. */
#define SQL_ARGS(...) \
	lengthof(((const SqlParameter[]) {__VA_ARGS__})), (const SqlParameter[]) {__VA_ARGS__}

/*
 * Returns the `n` numbers `values` as a bigint[], for a parameter of type
 * INT8ARRAYOID.  Does not need SPI.
 */
extern Datum sql_int8_array(const int64 *values, int n);

/* Returns the OIDs of the list as an oid[], for a parameter of type OIDARRAYOID.  Does not need SPI. */
extern Datum sql_oid_array(const List *oids);

/*
 * Returns `texts`, a List of char *, as a text[], for a parameter of type
 * TEXTARRAYOID.  Does not need SPI.
 */
extern Datum sql_text_array(const List *texts);

/*
 * Returns the elements of the text[] `array` as C strings, and sets *n to
 * their number.  Raises an ERROR if an element is NULL.  Does not need SPI.
 */
extern const char **sql_texts(Datum array, int *n);

/* A column of rows that the extension makes itself. */
typedef struct SqlColumn
{
	const char *name;
	Oid			type;
} SqlColumn;

/*
 * Returns the descriptor of rows of the `n` columns, ready for use.  All
 * descriptors must be made here, because the server's version tells how to
 * finish one.  Does not need SPI.
 */
extern TupleDesc sql_row_desc(int n, const SqlColumn *columns);

/*
 * Every statement of this extension goes through one of the calls below.  Each
 * call says which relations and functions the text may name.  The relations
 * and functions are checked by OID when the text has been analyzed and its
 * relations are locked, before the statement is planned or run: somebody may
 * have renamed a schema and put another schema in its place.  A statement that
 * names another relation or function is an ERROR insufficient_privilege.
 * Every statement may name the relations and functions of pg_catalog.
 *
 * All calls take `n` parameters $1 ... and need SPI.  A call that returns an
 * int returns the number of rows; the rows are in SPI_tuptable until the next
 * such call or SPI_finish().  Each statement takes its own snapshot, so the
 * caller needs no active snapshot.  Any failure is an ERROR.
 */

/* Installs the hook that checks statements. _PG_init() calls this once.  Does not need SPI. */
extern void sql_init(void);

/* Returns `sql`, with each `mark` replaced by `name`.  Does not need SPI. */
extern char *sql_replace(const char *sql, const char *mark, const char *name);

/*
 * Returns `sql`, with each @extschema@ replaced by the name that the schema
 * of `extension` has now, quoted.  Does not need SPI.
 */
extern char *sql_name_schema(const Extension *extension, const char *sql);

/*
 * Executes `sql` as the current role.  The text may name only relations and
 * functions of pg_catalog.
 */
extern int	sql_query(int n, const SqlParameter *parameters, const char *sql);

/* Does the work of sql_query() under the latest snapshot, in a REPEATABLE READ transaction too. */
extern int	sql_query_latest(int n, const SqlParameter *parameters, const char *sql);

/* A statement that is planned once in a session, for any values of its parameters; `plan` is NULL at first. */
typedef struct SqlKept
{
	const char *sql;
	SPIPlanPtr	plan;
} SqlKept;

/* Does the work of sql_query_latest() for a statement that is kept. */
extern int	sql_query_kept(SqlKept *kept, int n, const SqlParameter *parameters);

/*
 * Executes `sql` as the current role.  The text may also name members of the
 * extension with OID `member_of`.
 */
extern int	sql_query_members(Oid member_of, int n, const SqlParameter *parameters, const char *sql);

/*
 * Executes `sql` as the owner of `extension`: all statements on our own
 * tables go through here.  As in the extension's script, the text says
 * @extschema@ for the schema of the extension, because that schema may have
 * been renamed.  The text may name members of the extension.
 */
extern int	owner_query(const Extension *extension, int n, const SqlParameter *parameters,
						const char *sql);

/*
 * Does the work of owner_query() for a statement that joins many rows with
 * many.  The planner may know nothing about the rows yet, and must not choose
 * nested loops, which take the square of the time.
 */
extern int	owner_query_by_hash(const Extension *extension, int n, const SqlParameter *parameters,
								const char *sql);

/*
 * Does the work of owner_query() for a page of rows in the order of an index.
 * The planner may know nothing about the rows yet, and must not sort all rows
 * for each page.
 */
extern int	owner_query_in_order(const Extension *extension, int n, const SqlParameter *parameters,
								 const char *sql);

/*
 * Does the work of owner_query(), but sends the rows to `receiver`, and not to
 * SPI_tuptable.
 */
extern void owner_query_into(const Extension *extension, int n, const SqlParameter *parameters,
							 const char *sql, DestReceiver *receiver);

/*
 * Does the work of owner_query() for a SELECT, by an index if there is one.
 * Returns whether there is a row.
 */
extern bool owner_finds(const Extension *extension, int n, const SqlParameter *parameters,
						const char *sql);

/*
 * Does the work of owner_query().  Returns a copy of the first column of the
 * first row; 0 if the column is NULL, or if there is no row.
 */
extern Datum owner_value(const Extension *extension, int n, const SqlParameter *parameters,
						 const char *sql);

/* Does the work of owner_query() for a SELECT.  Returns the first column as a List of char *. */
extern List *owner_texts(const Extension *extension, int n, const SqlParameter *parameters,
						 const char *sql);

/*
 * Executes `sql` on a user's table, as the current role.  The text must name
 * no relation except the relation with OID `relation`, and no functions except
 * functions of pg_catalog.  Triggers, policies and rules of the relation are
 * not checked, and may name other relations and functions.
 */
extern int	sql_query_on(Oid relation, int n, const SqlParameter *parameters, const char *sql);

/*
 * Must be called in PG_CATCH().  Makes `context` the current memory context,
 * and forgets the error.  Returns a copy of the error in `context`, with all
 * texts of the error.  Does not need SPI.
 */
extern ErrorData *sql_catch(MemoryContext context);

/*
 * Raises the caught error `error` anew.  The memory of `error` may be freed
 * at any time later.  Does not need SPI.
 */
pg_noreturn extern void sql_rethrow(ErrorData *error);

/*
 * Returns whether the texts of `error` may show the content of rows, or of a
 * user mapping.  Such errors are the errors of a value that cannot be read or
 * is no name, of a constraint, of code in a procedural language (with any
 * SQLSTATE), and of a connection to another server.  Never raises an ERROR;
 * does not need SPI.
 */
extern bool sql_tells_of_rows(const ErrorData *error);

/*
 * Removes the texts that may show the content of rows from an error for which
 * sql_tells_of_rows() is true.  The SQLSTATE stays.  Does not need SPI.
 */
extern void sql_hide_rows(ErrorData *error);

/*
 * Calls work(arg) in a subtransaction.  Returns NULL, or the error that ended
 * the subtransaction, after a rollback.  An error that the statement has not
 * caused is raised again as an ERROR: a cancel or shutdown (class 57), out of
 * memory or disk (53), an I/O error (58), corruption (XX).  Does not need
 * SPI.
 */
extern ErrorData *sql_try(void (*work) (void *arg), void *arg);

/* Does what sql_try() does, but returns every error. */
extern ErrorData *sql_try_all(void (*work) (void *arg), void *arg);

/* Returns whether sql_try() does not raise the error again. */
extern bool sql_is_of_statement(const ErrorData *error);

/*
 * Does what sql_try() does, in a subtransaction that is always rolled back: no
 * lock and no row outlives the subtransaction.  A connection to SPI that
 * work() makes ends with the subtransaction.
 */
extern ErrorData *sql_undo(void (*work) (void *arg), void *arg);

/*
 * sql_value() returns the value of a column (from 1) of a row (from 0) of
 * SPI_tuptable, or 0 for NULL. sql_is_null() returns whether the value is
 * NULL.  The value of a type that is passed by reference points into
 * SPI_tuptable.
 */
extern Datum sql_value(int row, int column);
extern bool sql_is_null(int row, int column);

/* Returns the column as text, or NULL for NULL. */
extern char *sql_text(int row, int column);

/* Returns a copy of the column, an array that is not NULL. */
extern Datum sql_array(int row, int column);

/*
 * Makes the rows of the tuplestore `store` visible to statements as a
 * relation `name`, until the next call with that name or SPI_finish().  No
 * statement may name the relation when `store` or `desc` has been freed.  Needs
 * SPI; any failure is an ERROR.
 */
extern void sql_show_tuplestore(const char *name, Tuplestorestate *store, TupleDesc desc);

#endif							/* AUDIO_CLEANUP_SQL_H */
