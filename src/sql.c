/*-------------------------------------------------------------------------
 *
 * sql.c
 *	  Running a statement of our own through SPI, in a line.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/resowner.h"

#include "src/sql.h"

#define MAX_PARAMETERS	24

int
sql_query(int n, const SqlParameter *parameters, const char *format,...)
{
	MemoryContext caller = CurrentMemoryContext;
	StringInfoData sql;
	Oid			types[MAX_PARAMETERS];
	Datum		values[MAX_PARAMETERS];
	char		nulls[MAX_PARAMETERS];
	int			rc;
	int			i;

	Assert(n <= MAX_PARAMETERS);
	initStringInfo(&sql);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&sql, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&sql, needed);
	}
	for (i = 0; i < n; i++)
	{
		types[i] = parameters[i].type;
		values[i] = parameters[i].value;
		nulls[i] = parameters[i].isnull ? 'n' : ' ';
	}
	rc = SPI_execute_with_args(sql.data, n, types, values, nulls, false, 0);
	if (rc < 0)
		elog(ERROR, "could not execute \"%s\": %s", sql.data, SPI_result_code_string(rc));
	/* SPI leaves its own context as the current one */
	MemoryContextSwitchTo(caller);
	pfree(sql.data);
	return (int) SPI_processed;
}

void
sql_stream(SPIPlanPtr plan, ParamListInfo parameters, bool read_only, DestReceiver *receiver)
{
	MemoryContext caller = CurrentMemoryContext;
	SPIExecuteOptions options;
	int			rc;

	memset(&options, 0, sizeof(options));
	options.params = parameters;
	options.read_only = read_only;
	options.dest = receiver;
	rc = SPI_execute_plan_extended(plan, &options);
	if (rc < 0)
		elog(ERROR, "could not execute a statement: %s", SPI_result_code_string(rc));
	MemoryContextSwitchTo(caller);
}

SPIPlanPtr
sql_prepare(const char *sql, int n, Oid *types)
{
	MemoryContext caller = CurrentMemoryContext;
	SPIPlanPtr	plan = SPI_prepare(sql, n, types);

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	MemoryContextSwitchTo(caller);
	return plan;
}

ErrorData *
sql_try(void (*work) (void *arg), void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		work(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
		/* the caller's subtransactions must find theirs, not ours */
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
			ReThrowError(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	return error;
}

Datum
sql_value(int row, int column)
{
	bool		isnull;
	Datum		value;

	value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);
	return isnull ? (Datum) 0 : value;
}

bool
sql_is_null(int row, int column)
{
	bool		isnull;

	(void) SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);
	return isnull;
}

char *
sql_text(int row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

void
sql_show_tuplestore(const char *name, Tuplestorestate *store, TupleDesc desc)
{
	EphemeralNamedRelation relation = SPI_palloc(sizeof(EphemeralNamedRelationData));
	MemoryContext caller;
	int			rc;

	/* SPI keeps its list of them in the current context: it must last */
	caller = MemoryContextSwitchTo(GetMemoryChunkContext(relation));
	memset(relation, 0, sizeof(*relation));
	relation->md.name = pstrdup(name);
	relation->md.reliddesc = InvalidOid;
	relation->md.tupdesc = desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = tuplestore_tuple_count(store);
	relation->reldata = store;
	rc = SPI_register_relation(relation);
	if (rc != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register \"%s\": %s", name, SPI_result_code_string(rc));
	MemoryContextSwitchTo(caller);
}

void
sql_hide_tuplestore(const char *name)
{
	(void) SPI_unregister_relation(name);
}
