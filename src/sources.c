/*-------------------------------------------------------------------------
 *
 * sources.c
 *	  Reading the registered sources.
 *
 * A source is somebody else's table.  It is read as its owner, by a plain
 * projection without a condition: every row is seen, and what a row means is
 * decided here and not by an operator of the table's making.  Rows stream
 * through a DestReceiver, so that a source of any size costs one row.
 *
 * The hazard is a source that answers with fewer rows than it has.  What can
 * be told beforehand is refused by sources_check() and sources_tables():
 * relations that lose rows at a crash (unlogged), live elsewhere (foreign),
 * are seen by one session (temporary), are stale by design (materialized
 * views) or are filtered by a policy.  What cannot be told is an ERROR of the
 * query itself, and ends the run.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "src/compat.h"
#include "src/sources.h"
#include "src/sql.h"

static const char *const hint_readd =
"Correct the source, or register it anew with cleanup_add_source(), or forget it with cleanup_drop_source().";


/* ------------------------------------------------------------------ load --- */

const char *
sources_name(Oid relid)
{
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		return psprintf("%u", relid);
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), name);
}

static const char **
copy_texts(Datum array, int *n)
{
	Datum	   *elements;
	const char **texts;
	int			i;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, NULL, n);
	texts = palloc(sizeof(char *) * Max(*n, 1));
	for (i = 0; i < *n; i++)
		texts[i] = TextDatumGetCString(elements[i]);
	return texts;
}

static Source *
read_source(int row)
{
	Source	   *source = palloc0(sizeof(Source));

	source->number = row;
	source->relid = DatumGetObjectId(sql_value(row, 1));
	source->name = sources_name(source->relid);
	source->columns = copy_texts(sql_value(row, 2), &source->n_columns);
	source->id_column = sql_text(row, 3);
	source->status_column = sql_text(row, 4);
	source->failed_statuses = PointerGetDatum(DatumGetArrayTypePCopy(sql_value(row, 5)));
	source->failed_at_column = sql_text(row, 6);
	source->timezone = sql_text(row, 7);
	source->clear = strcmp(sql_text(row, 8), "clear") == 0;
	source->registered_name = sql_text(row, 9);
	return source;
}

List *
sources_load(const Extension *extension)
{
	List	   *sources = NIL;
	int			n;
	int			i;

	n = owner_query(extension, 0, NULL,
					"SELECT source, file_columns, id_column::text, status_column::text,"
					" failed_statuses, failed_at_column::text, timezone, on_failed, source_name"
					" FROM @extschema@.cleanup_sources ORDER BY added_at, source::pg_catalog.oid");
	for (i = 0; i < n; i++)
		sources = lappend(sources, read_source(i));
	SPI_freetuptable(SPI_tuptable);
	return sources;
}


/* ----------------------------------------------------------------- check --- */

static Brake *
source_brake(int sqlstate, char *message, char *detail)
{
	return brake_make("source", sqlstate, message, detail, (char *) hint_readd);
}

static Brake *
check_relation(const Source *source, Relation rel)
{
	char		kind = rel->rd_rel->relkind;

	if (strcmp(source->name, source->registered_name) != 0)
		return source_brake(ERRCODE_UNDEFINED_TABLE,
							psprintf("source %s was registered as %s", source->name,
									 source->registered_name),
							"It was renamed or moved since, perhaps to make room for another table of that name.");
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		return source_brake(ERRCODE_WRONG_OBJECT_TYPE,
							psprintf("source %s is temporary", source->name),
							"Other sessions, the background worker among them, do not see its rows.");
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		return source_brake(ERRCODE_WRONG_OBJECT_TYPE,
							psprintf("source %s is unlogged", source->name),
							"After a crash it is empty, and every file would look like an orphan.");
	if (kind == RELKIND_FOREIGN_TABLE)
		return source_brake(ERRCODE_WRONG_OBJECT_TYPE,
							psprintf("source %s is a foreign table", source->name),
							"Its transactions cannot be waited for.");
	if (kind == RELKIND_MATVIEW)
		return source_brake(ERRCODE_WRONG_OBJECT_TYPE,
							psprintf("source %s is a materialized view", source->name),
							"It does not show what was written since it was refreshed.");
	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE && kind != RELKIND_VIEW)
		return source_brake(ERRCODE_WRONG_OBJECT_TYPE,
							psprintf("source %s is not a table or view", source->name), NULL);
	return NULL;
}

/* Type of a column, domains looked through; InvalidOid without the column. */
static Oid
column_type(Oid relid, const char *column)
{
	AttrNumber	attnum = get_attnum(relid, column);

	if (attnum <= 0)
		return InvalidOid;
	return getBaseType(get_atttype(relid, attnum));
}

static bool
is_text_like(Oid type)
{
	char		category;
	bool		preferred;

	if (!OidIsValid(type))
		return false;
	get_type_category_preferred(type, &category, &preferred);
	return category == TYPCATEGORY_STRING && type != CHAROID;
}

static Brake *
check_column(const Source *source, const char *column)
{
	AttrNumber	attnum = get_attnum(source->relid, column);

	if (attnum <= 0)
		return source_brake(ERRCODE_UNDEFINED_COLUMN,
							psprintf("column \"%s\" of source %s does not exist", column, source->name),
							"It was dropped or renamed after the source was registered.");
	if (pg_class_aclcheck(source->relid, source->owner, ACL_SELECT) != ACLCHECK_OK &&
		pg_attribute_aclcheck(source->relid, attnum, source->owner, ACL_SELECT) != ACLCHECK_OK)
		return source_brake(ERRCODE_INSUFFICIENT_PRIVILEGE,
							psprintf("the owner of source %s may not read its column \"%s\"", source->name, column),
							psprintf("Role \"%s\" lacks the SELECT privilege.", GetUserNameFromId(source->owner, true)));
	return NULL;
}

static Brake *
check_file_column(const Source *source, const char *column)
{
	Brake	   *brake = check_column(source, column);

	if (brake == NULL && !is_text_like(column_type(source->relid, column)))
		return source_brake(ERRCODE_DATATYPE_MISMATCH,
							psprintf("column \"%s\" of source %s does not hold text", column, source->name),
							psprintf("It is of type %s. A view can turn it into text.",
									 format_type_be(get_atttype(source->relid, get_attnum(source->relid, column)))));
	return brake;
}

static Brake *
check_failed_columns(Source *source)
{
	Brake	   *brake;

	if (source->id_column && (brake = check_column(source, source->id_column)) != NULL)
		return brake;
	if (source->status_column == NULL)
		return NULL;
	if ((brake = check_column(source, source->status_column)) != NULL ||
		(brake = check_column(source, source->failed_at_column)) != NULL)
		return brake;
	source->failed_at_type = column_type(source->relid, source->failed_at_column);
	if (source->failed_at_type != TIMESTAMPOID && source->failed_at_type != TIMESTAMPTZOID &&
		source->failed_at_type != DATEOID)
		return source_brake(ERRCODE_DATATYPE_MISMATCH,
							psprintf("column \"%s\" of source %s is not a time",
									 source->failed_at_column, source->name),
							"It must be a timestamp, with or without time zone, or a date.");
	return NULL;
}

static Brake *
check_owner(const Source *source)
{
	if (!compat_may_use_schema(get_rel_namespace(source->relid), source->owner))
		return source_brake(ERRCODE_INSUFFICIENT_PRIVILEGE,
							psprintf("the owner of source %s may not use its schema", source->name),
							psprintf("Role \"%s\" lacks the USAGE privilege.", GetUserNameFromId(source->owner, true)));
	if (check_enable_rls(source->relid, source->owner, true) == RLS_ENABLED)
		return source_brake(ERRCODE_INSUFFICIENT_PRIVILEGE,
							psprintf("row-level security hides rows of source %s from its own owner", source->name),
							"A hidden row could refer to a file. The table is set to FORCE ROW LEVEL SECURITY.");
	return NULL;
}

Brake *
sources_check(Source *source)
{
	Relation	rel;
	Brake	   *brake;
	int			i;

	extension_lock_relation(source->relid);
	rel = try_relation_open(source->relid, NoLock);
	if (rel == NULL)
		return source_brake(ERRCODE_UNDEFINED_TABLE,
							psprintf("source with OID %u no longer exists", source->relid),
							"It was dropped after it was registered.");
	source->owner = rel->rd_rel->relowner;
	brake = check_relation(source, rel);
	relation_close(rel, NoLock);

	if (brake == NULL)
		brake = check_owner(source);
	for (i = 0; brake == NULL && i < source->n_columns; i++)
		brake = check_file_column(source, source->columns[i]);
	if (brake == NULL)
		brake = check_failed_columns(source);
	return brake;
}

List *
sources_check_all(List *sources)
{
	List	   *brakes = NIL;
	ListCell   *lc;

	if (sources == NIL)
		return list_make1(brake_make("no_source", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
									 "no source is registered",
									 "Without one, every file would look like an orphan.",
									 "Register the tables that refer to files: SELECT cleanup_add_source('sessions');"));
	foreach(lc, sources)
	{
		Brake	   *brake = sources_check(lfirst(lc));

		if (brake != NULL)
			brakes = lappend(brakes, brake);
	}
	return brakes;
}


/* --------------------------------------------------------------- queries --- */

/* Parameters of every query on a source: statuses, cutoff, zone, sessions. */
#define N_PARAMETERS	4

static Oid	parameter_types[N_PARAMETERS] = {TEXTARRAYOID, TIMESTAMPTZOID, TEXTOID, TEXTARRAYOID};

static char *
failed_condition(const Source *source)
{
	const char *status = quote_identifier(source->status_column);
	const char *failed_at = quote_identifier(source->failed_at_column);
	char	   *since;

	if (source->failed_at_type == TIMESTAMPTZOID)
		since = psprintf("s.%s::pg_catalog.timestamptz", failed_at);
	else
		since = psprintf("pg_catalog.timezone($3, s.%s::pg_catalog.timestamp)", failed_at);
	return psprintf("(s.%s::pg_catalog.text COLLATE pg_catalog.\"C\""
					" OPERATOR(pg_catalog.=) ANY ($1) AND %s OPERATOR(pg_catalog.<) $2)",
					status, since);
}

static bool
has_failed_sessions(const Source *source)
{
	return source->status_column != NULL && source->id_column != NULL;
}

static char *
session_expression(const Source *source, SourceScan scan)
{
	if (scan == SCAN_STATUS && source->status_column != NULL)
		return psprintf("s.%s::pg_catalog.text", quote_identifier(source->status_column));
	if (scan == SCAN_REFERENCES || scan == SCAN_STATUS || source->id_column == NULL ||
		(scan == SCAN_JUDGING && !has_failed_sessions(source)))
		return "NULL::pg_catalog.text";
	if (scan == SCAN_JUDGING)
		return psprintf("CASE WHEN %s THEN s.%s::pg_catalog.text END",
						failed_condition(source), quote_identifier(source->id_column));
	return psprintf("s.%s::pg_catalog.text", quote_identifier(source->id_column));
}

/* SELECT column, ..., session FROM source */
static char *
reading_query(const Source *source, SourceScan scan)
{
	StringInfoData sql;
	int			i;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (i = 0; i < source->n_columns; i++)
		appendStringInfo(&sql, "s.%s::pg_catalog.text, ", quote_identifier(source->columns[i]));
	appendStringInfo(&sql, "%s FROM %s AS s", session_expression(source, scan), source->name);
	if (scan == SCAN_LOCKING_FAILED)
		appendStringInfo(&sql, " WHERE %s FOR UPDATE OF s SKIP LOCKED", failed_condition(source));
	return sql.data;
}

static ParamListInfo
make_parameters(const Source *source, TimestampTz failed_before, Datum sessions)
{
	Datum		values[N_PARAMETERS];
	ParamListInfo parameters = makeParamList(N_PARAMETERS);
	int			i;

	values[0] = source->failed_statuses ? source->failed_statuses
		: PointerGetDatum(construct_empty_array(TEXTOID));
	values[1] = TimestampTzGetDatum(failed_before);
	values[2] = CStringGetTextDatum(source->timezone ? source->timezone : "UTC");
	values[3] = sessions ? sessions : PointerGetDatum(construct_empty_array(TEXTOID));
	for (i = 0; i < N_PARAMETERS; i++)
	{
		parameters->params[i].value = values[i];
		parameters->params[i].isnull = false;
		parameters->params[i].pflags = PARAM_FLAG_CONST;
		parameters->params[i].ptype = parameter_types[i];
	}
	return parameters;
}

static SqlSource
statement_on(const Source *source, const char *sql)
{
	SqlSource	statement = {source->relid, sql, N_PARAMETERS, parameter_types, NULL, NULL};

	return statement;
}


/* --------------------------------------------------------------- reading --- */

typedef struct SourceReceiver
{
	DestReceiver pub;
	SourceSink	sink;
	void	   *arg;
	MemoryContext row_context;
	SourceRow	row;
} SourceReceiver;

static void
start_receiving(DestReceiver *self, int operation, TupleDesc desc)
{
}

static void
stop_receiving(DestReceiver *self)
{
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	SourceReceiver *receiver = (SourceReceiver *) self;
	SourceRow  *row = &receiver->row;
	int			n = row->source->n_columns;
	MemoryContext caller = MemoryContextSwitchTo(receiver->row_context);
	bool		more;
	int			i;

	slot_getallattrs(slot);
	for (i = 0; i < n; i++)
	{
		text	   *value;

		row->values[i] = NULL;
		if (slot->tts_isnull[i])
			continue;
		value = DatumGetTextPP(slot->tts_values[i]);
		row->values[i] = VARDATA_ANY(value);
		row->lengths[i] = VARSIZE_ANY_EXHDR(value);
	}
	row->session = slot->tts_isnull[n] ? NULL : TextDatumGetCString(slot->tts_values[n]);
	more = receiver->sink(row, receiver->arg);

	MemoryContextSwitchTo(caller);
	MemoryContextReset(receiver->row_context);
	return more;
}

static SourceReceiver *
make_receiver(const Source *source, SourceSink sink, void *arg)
{
	SourceReceiver *receiver = palloc0(sizeof(SourceReceiver));

	receiver->pub.receiveSlot = receive_row;
	receiver->pub.rStartup = start_receiving;
	receiver->pub.rShutdown = stop_receiving;
	receiver->pub.rDestroy = stop_receiving;
	receiver->pub.mydest = DestNone;
	receiver->sink = sink;
	receiver->arg = arg;
	receiver->row_context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup row",
												  ALLOCSET_SMALL_SIZES);
	receiver->row.source = source;
	receiver->row.values = palloc0(sizeof(char *) * source->n_columns);
	receiver->row.lengths = palloc0(sizeof(size_t) * source->n_columns);
	return receiver;
}

/* Tells which source was being read when an ERROR came from inside of it. */
static void
add_error_context(void *arg)
{
	errcontext("reading source %s as its owner", ((const Source *) arg)->name);
}

static void
execute(const Source *source, const char *sql, ParamListInfo parameters,
		bool read_only, DestReceiver *receiver)
{
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = add_error_context,
		.arg = (void *) source,
	};
	SqlSource	statement;

	error_context_stack = &callback;
	statement = statement_on(source, sql);
	(void) source_query_into(&statement, parameters, read_only, receiver);
	error_context_stack = callback.previous;
}

/* Under the snapshot of this instant, unless rows are to be locked. */
static void
read_rows(const Source *source, const char *sql, bool locking, TimestampTz failed_before,
		  SourceSink sink, void *arg)
{
	SourceReceiver *receiver = make_receiver(source, sink, arg);
	ActingAs	saved;

	extension_act_as(source->owner, &saved);
	extension_read_carefully();

	/*
	 * Whatever the isolation level: a preview in a long REPEATABLE READ
	 * transaction would show as orphans what has been referred to since.
	 */
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	execute(source, sql, make_parameters(source, failed_before, 0), !locking,
			&receiver->pub);
	PopActiveSnapshot();
	extension_stop_acting(&saved);
	MemoryContextDelete(receiver->row_context);
}

void
sources_read(const Source *source, SourceScan scan, TimestampTz failed_before,
			 SourceSink sink, void *arg)
{
	if (scan != SCAN_LOCKING_FAILED || has_failed_sessions(source))
		read_rows(source, reading_query(source, scan), scan == SCAN_LOCKING_FAILED,
				  failed_before, sink, arg);
}

static bool
ignore_row(const SourceRow *row, void *arg)
{
	return false;
}

static void
probe(void *arg)
{
	const Source *source = arg;

	read_rows(source, psprintf("%s LIMIT 0", reading_query(source, SCAN_REFERENCES)), false, 0,
			  ignore_row, NULL);
}

Brake *
sources_probe(const Source *source)
{
	ErrorData  *error = sql_try(probe, (void *) source);

	if (error == NULL)
		return NULL;
	return source_brake(error->sqlerrcode,
						psprintf("could not read source %s: %s", source->name, error->message),
						error->detail);
}

void
sources_sample(const Source *table, double rows, int64 max_rows, int max_bytes,
			   SourceSink sink, void *arg)
{
	StringInfoData sql;
	int			i;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (i = 0; i < table->n_columns; i++)
		appendStringInfo(&sql, "CASE WHEN pg_catalog.pg_column_size(s.%1$s) <= %2$d"
						 " THEN s.%1$s::pg_catalog.text END, ",
						 quote_identifier(table->columns[i]), max_bytes);
	appendStringInfo(&sql, "NULL::pg_catalog.text FROM ONLY %s AS s", table->name);
	if (rows > max_rows)
		appendStringInfo(&sql, " TABLESAMPLE SYSTEM (%f)", 100.0 * max_rows / rows);
	appendStringInfo(&sql, " LIMIT %lld", (long long) max_rows);
	read_rows(table, sql.data, false, 0, sink, arg);
}

void
sources_clear(const Source *source, TimestampTz failed_before, Datum sessions)
{
	StringInfoData sql;
	ActingAs	saved;
	int			i;

	initStringInfo(&sql);
	appendStringInfo(&sql, "UPDATE %s AS s SET ", source->name);
	for (i = 0; i < source->n_columns; i++)
		appendStringInfo(&sql, "%s%s = NULL", i > 0 ? ", " : "",
						 quote_identifier(source->columns[i]));
	appendStringInfo(&sql, " WHERE s.%s::pg_catalog.text COLLATE pg_catalog.\"C\""
					 " OPERATOR(pg_catalog.=) ANY ($4) AND %s",
					 quote_identifier(source->id_column), failed_condition(source));

	extension_act_as(source->owner, &saved);
	execute(source, sql.data, make_parameters(source, failed_before, sessions), false, NULL);
	extension_stop_acting(&saved);
}


/* SELECT id, column, value, one row a column, of the rows that sources_clear() clears */
static char *
copying_query(const Source *source)
{
	StringInfoData sql;
	int			i;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT s.%s::pg_catalog.text, c.column_name, c.value FROM %s AS s, LATERAL (VALUES ",
					 quote_identifier(source->id_column), source->name);
	for (i = 0; i < source->n_columns; i++)
		appendStringInfo(&sql, "%s(%s::pg_catalog.text, s.%s::pg_catalog.text)", i > 0 ? ", " : "",
						 quote_literal_cstr(source->columns[i]), quote_identifier(source->columns[i]));
	appendStringInfo(&sql, ") c(column_name, value) WHERE c.value IS NOT NULL"
					 " AND s.%s::pg_catalog.text COLLATE pg_catalog.\"C\""
					 " OPERATOR(pg_catalog.=) ANY ($4) AND %s",
					 quote_identifier(source->id_column), failed_condition(source));
	return sql.data;
}

Tuplestorestate *
sources_copy_columns(const Source *source, TimestampTz failed_before, Datum sessions,
					 TupleDesc *desc)
{
	Tuplestorestate *store = tuplestore_begin_heap(true, false, work_mem);
	DestReceiver *receiver = CreateTuplestoreDestReceiver();
	ActingAs	saved;

	*desc = CreateTemplateTupleDesc(3);
	TupleDescInitEntry(*desc, 1, "session_id", TEXTOID, -1, 0);
	TupleDescInitEntry(*desc, 2, "column_name", TEXTOID, -1, 0);
	TupleDescInitEntry(*desc, 3, "value", TEXTOID, -1, 0);
	SetTuplestoreDestReceiverParams(receiver, store, CurrentMemoryContext, false, NULL, NULL);

	extension_act_as(source->owner, &saved);
	execute(source, copying_query(source), make_parameters(source, failed_before, sessions), false, receiver);
	extension_stop_acting(&saved);
	receiver->rDestroy(receiver);
	return store;
}

Datum
sources_refill(const Source *source, const char *column, Datum sessions, Datum values)
{
	static Oid	types[] = {TEXTARRAYOID, TEXTARRAYOID};
	SqlSource	statement = {source->relid, NULL, lengthof(types), types, NULL, NULL};
	ParamListInfo parameters = makeParamList(lengthof(types));
	AttrNumber	attnum = get_attnum(source->relid, column);
	Oid			type;
	int32		typmod;
	Oid			collation;
	ArrayBuildState *refilled = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	ActingAs	saved;
	int			n;
	int			i;

	if (attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("source %s has no column \"%s\" any more", source->name, column)));
	/* "character" without its length would be one letter */
	get_atttypetypmodcoll(source->relid, attnum, &type, &typmod, &collation);
	extension_act_as(source->owner, &saved);
	statement.sql = psprintf("UPDATE %1$s AS s SET %2$s = v.value::%3$s"
							 " FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) v(session_id, value)"
							 " WHERE s.%4$s::pg_catalog.text COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.=) v.session_id"
							 " AND s.%2$s IS NULL RETURNING v.session_id",
							 source->name, quote_identifier(column),
							 format_type_extended(type, typmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY),
							 quote_identifier(source->id_column));
	for (i = 0; i < lengthof(types); i++)
	{
		parameters->params[i].ptype = types[i];
		parameters->params[i].value = i == 0 ? sessions : values;
		parameters->params[i].isnull = false;
		parameters->params[i].pflags = PARAM_FLAG_CONST;
	}
	n = (int) source_query_into(&statement, parameters, false, NULL);
	extension_stop_acting(&saved);
	for (i = 0; i < n; i++)
		refilled = accumArrayResult(refilled, CStringGetTextDatum(sql_text(i, 1)), false, TEXTOID,
									CurrentMemoryContext);
	SPI_freetuptable(SPI_tuptable);
	return makeArrayResult(refilled, CurrentMemoryContext);
}

static void
ignore_plan(CachedPlan *plan, void *arg)
{
}

void
sources_try_locking(const Source *source)
{
	SqlSource	statement;
	ActingAs	saved;

	if (!has_failed_sessions(source))
		return;
	extension_act_as(source->owner, &saved);
	PushActiveSnapshot(GetTransactionSnapshot());
	statement = statement_on(source, reading_query(source, SCAN_LOCKING_FAILED));
	source_plan(&statement, ignore_plan, NULL);
	PopActiveSnapshot();
	extension_stop_acting(&saved);
}


/* ---------------------------------------------------------------- tables --- */

static Brake *
check_table_below(const Source *source, Oid relid)
{
	char		persistence = get_rel_persistence(relid);
	char		kind = get_rel_relkind(relid);

	if (persistence != RELPERSISTENCE_PERMANENT || kind == RELKIND_FOREIGN_TABLE ||
		kind == RELKIND_MATVIEW)
		return source_brake(ERRCODE_WRONG_OBJECT_TYPE,
							psprintf("source %s reads %s, which cannot be relied on",
									 source->name, sources_name(relid)),
							"Unlogged and temporary tables, foreign tables and materialized views may lack rows.");
	return NULL;
}

/* Tables of the plan's range table, partitions and views' tables included. */
static List *
collect_tables(const Source *source, PlannedStmt *statement, Brake **brake)
{
	List	   *tables = NIL;
	ListCell   *lc;

	foreach(lc, statement->rtable)
	{
		RangeTblEntry *rte = lfirst(lc);

		if (rte->rtekind != RTE_RELATION || get_rel_relkind(rte->relid) == RELKIND_VIEW)
			continue;
		if (*brake == NULL)
			*brake = check_table_below(source, rte->relid);
		tables = list_append_unique_oid(tables, rte->relid);
	}
	return tables;
}

typedef struct TableSearch
{
	const Source *source;
	List	   *tables;
	Brake	   *brake;
} TableSearch;

static void
look_for_tables(CachedPlan *plan, void *arg)
{
	TableSearch *search = arg;
	ListCell   *lc;

	foreach(lc, plan->stmt_list)
		search->tables = list_concat_unique_oid(search->tables,
												collect_tables(search->source, lfirst(lc), &search->brake));
}

List *
sources_tables(const Source *source, Brake **brake)
{
	SqlSource	statement = statement_on(source, reading_query(source, SCAN_REFERENCES));
	TableSearch search = {source, NIL, *brake};
	ActingAs	saved;

	extension_act_as(source->owner, &saved);
	extension_read_carefully();
	PushActiveSnapshot(GetTransactionSnapshot());
	source_plan(&statement, look_for_tables, &search);
	PopActiveSnapshot();
	extension_stop_acting(&saved);
	*brake = search.brake;
	return search.tables;
}
