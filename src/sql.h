/*-------------------------------------------------------------------------
 *
 * sql.h
 *	  Running a statement of our own through SPI, in a line.
 *
 * Unlike SPI's own, these functions leave the current memory context alone.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SQL_H
#define AUDIO_CLEANUP_SQL_H

#include "executor/spi.h"
#include "nodes/params.h"
#include "tcop/dest.h"
#include "utils/tuplestore.h"

/* A parameter: its type, and its value (for a NULL: isnull). */
typedef struct SqlParameter
{
	Oid			type;
	Datum		value;
	bool		isnull;
} SqlParameter;

#define SQL_INT8(v)		{INT8OID, Int64GetDatum(v), false}
#define SQL_INT4(v)		{INT4OID, Int32GetDatum(v), false}
#define SQL_BOOL(v)		{BOOLOID, BoolGetDatum(v), false}
#define SQL_TEXT(v)		{TEXTOID, (v) ? CStringGetTextDatum(v) : (Datum) 0, (v) == NULL}

/*
 * Execute one statement with n parameters $1 ...; `format` is printf-like,
 * for names of relations only, never for values.  A result is in SPI_tuptable
 * and to be freed with SPI_freetuptable().  Returns the number of rows.
 * Any failure is an ERROR.  Needs SPI.  Each statement sees a snapshot of its
 * own, so that none need be active, as in a procedure that has committed.
 */
extern int	sql_query(int n, const SqlParameter *parameters,
					  const char *format,...) pg_attribute_printf(3, 4);

/*
 * Prepare a statement with n parameters; and execute it, its rows going to
 * `receiver` (may be NULL) and nowhere else.  With read_only it runs under
 * the active snapshot, else under one of its own.  Needs SPI.
 */
extern SPIPlanPtr sql_prepare(const char *sql, int n, Oid *types);
extern void sql_stream(SPIPlanPtr plan, ParamListInfo parameters, bool read_only,
					   DestReceiver *receiver);

/*
 * Call work(arg) in a subtransaction.  Returns NULL, or the error that ended
 * it, after a rollback; a cancel or shutdown is passed on as an ERROR.
 */
extern ErrorData *sql_try(void (*work) (void *arg), void *arg);

/* A column (from 1) of a row (from 0) of SPI_tuptable; 0 or NULL for NULL. */
extern Datum sql_value(int row, int column);
extern bool sql_is_null(int row, int column);

/* The same as text in the current memory context. */
extern char *sql_text(int row, int column);

/*
 * Make a tuplestore visible to statements as a relation of this name, until
 * sql_hide_tuplestore() or SPI_finish().
 */
extern void sql_show_tuplestore(const char *name, Tuplestorestate *store, TupleDesc desc);
extern void sql_hide_tuplestore(const char *name);

#endif							/* AUDIO_CLEANUP_SQL_H */
