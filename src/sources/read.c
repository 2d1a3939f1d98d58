/*-------------------------------------------------------------------------
 *
 * sources/read.c
 *	  Reading the registered sources.
 *
 * A source is read as its owner, by a query without a condition, which yields every
 * row.  The meaning of a row is decided here, from the texts that the output
 * functions of its types write, and not by a cast or an operator that a user has
 * made.  Rows stream through a DestReceiver, so that one row at a time is in memory.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_inherits.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "src/pg/compat.h"
#include "src/pg/role.h"
#include "src/pg/session.h"
#include "src/pg/sql.h"
#include "src/pg/time.h"
#include "src/sources/citus.h"
#include "src/sources/query.h"
#include "src/sources/sources.h"

/* limits of sources_sample(): rows of a table, and bytes of a value as stored */
#define SAMPLED_ROWS	20000
#define SAMPLED_BYTES	65536

typedef struct Reading
{
	DestReceiver pub;
	const Source *source;
	SourceScan	scan;
	TimestampTz failed_before;
	SourceSink	sink;
	void	   *arg;

	int64		until;			/* see query_run_in_box() */

	Snapshot	snapshot;
	SourceQuery *query;
	int			id;				/* indexes of these columns; -1: not read */
	int			status;
	int			failed_at;
	char	  **statuses;
	int			n_statuses;
	Datum		timezone;
	ValueWriter *writers;
	int64		n_rows;
	MemoryContext row_context;
	SourceRow	row;
} Reading;


/* --------------------------------------------------------------- columns --- */

static bool
needs_failed(const Reading *reading)
{
	return (reading->scan == SCAN_JUDGING || reading->scan == SCAN_LOCKING_FAILED) &&
		reading->source->status_column != NULL;
}

/* Adds a column to the `*n` columns.  Returns its index, or -1 if `name` is NULL. */
static int
add_column(const char *name, const char **columns, int *n)
{
	if (name == NULL)
		return -1;
	columns[*n] = name;
	return (*n)++;
}

static SourceQuery *
build_query(Reading *reading)
{
	const Source *source = reading->source;
	const char **columns = palloc(sizeof(char *) * (source->n_columns + 3));
	int			n = source->n_columns;
	bool		failed = needs_failed(reading);

	memcpy(columns, source->columns, sizeof(char *) * n);
	reading->id = add_column(failed || reading->scan == SCAN_NAMING ? source->id_column : NULL, columns, &n);
	reading->status = add_column(failed || reading->scan == SCAN_STATUS ? source->status_column : NULL, columns, &n);
	reading->failed_at = add_column(failed ? source->failed_at_column : NULL, columns, &n);
	return query_build(source, columns, n, failed || reading->scan == SCAN_NAMING || reading->scan == SCAN_PLACES);
}


/* ------------------------------------------------------------------ rows --- */

static const char *
text_in_slot(Reading *reading, TupleTableSlot *slot, int column, size_t *length)
{
	*length = 0;
	if (column < 0 || slot->tts_isnull[column])
		return NULL;
	return value_text(&reading->writers[column], slot->tts_values[column], length);
}

static bool
has_failed_status(Reading *reading, TupleTableSlot *slot)
{
	size_t		length;
	const char *status = text_in_slot(reading, slot, reading->status, &length);

	for (int i = 0; status != NULL && i < reading->n_statuses; i++)
		if (strlen(reading->statuses[i]) == length && memcmp(reading->statuses[i], status, length) == 0)
			return true;
	return false;
}

/*
 * Returns the moment of a time without a zone, in the time zone of the source.  A
 * time so early or so late that the zone could lead out of range becomes infinite.
 */
static TimestampTz
local_to_timestamptz(const Reading *reading, Timestamp local)
{
	if (local < MIN_TIMESTAMP + 2 * USECS_PER_DAY)
		return DT_NOBEGIN;
	if (local >= END_TIMESTAMP - 2 * USECS_PER_DAY)
		return DT_NOEND;
	return DatumGetTimestampTz(DirectFunctionCall2(timestamp_zone, reading->timezone,
												   TimestampGetDatum(local)));
}

/* Returns midnight of a date.  A date that no timestamp reaches becomes infinite. */
static Timestamp
midnight_of(DateADT date)
{
	double		midnight = date2timestamp_no_overflow(date);

	if (midnight < MIN_TIMESTAMP)
		return DT_NOBEGIN;
	if (midnight >= END_TIMESTAMP)
		return DT_NOEND;
	return (Timestamp) midnight;
}

static TimestampTz
moment_of(const Reading *reading, Datum value)
{
	switch (reading->source->failed_at_type)
	{
		case TIMESTAMPTZOID:
			return DatumGetTimestampTz(value);
		case TIMESTAMPOID:
			return local_to_timestamptz(reading, DatumGetTimestamp(value));
		case DATEOID:
			return local_to_timestamptz(reading, midnight_of(DatumGetDateADT(value)));
	}
	elog(ERROR, "unexpected type %u of a time", reading->source->failed_at_type);
}

static bool
is_failed(Reading *reading, TupleTableSlot *slot)
{
	return needs_failed(reading) && !slot->tts_isnull[reading->failed_at] &&
		has_failed_status(reading, slot) &&
		moment_of(reading, slot->tts_values[reading->failed_at]) < reading->failed_before;
}

/* Appends the key of the row to the session.  The columns of a key are NOT NULL. */
static void
append_key(Reading *reading, TupleTableSlot *slot, StringInfo session)
{
	int			first = reading->query->n_columns;
	List	   *values = NIL;

	for (int i = 0; i < list_length(reading->query->key); i++)
	{
		size_t		length;
		const char *text = text_in_slot(reading, slot, first + i, &length);

		if (text == NULL)
			elog(ERROR, "a column of the key of source %s is NULL", reading->source->name);
		values = lappend(values, pnstrdup(text, length));
	}
	place_append_key(session, key_text(values));
}

static void
append_places(Reading *reading, TupleTableSlot *slot, StringInfo session)
{
	int			first = reading->query->n_columns;
	int			n = list_length(reading->query->bases);

	if (reading->query->key != NIL)
	{
		append_key(reading, slot, session);
		return;
	}
	for (int i = first; i < first + 2 * n; i += 2)
		place_append(session, DatumGetObjectId(slot->tts_values[i]),
					 (ItemPointer) DatumGetPointer(slot->tts_values[i + 1]));
}

/* Returns the session of the row, or NULL.  A row without an id is no session. */
static const char *
name_row(Reading *reading, TupleTableSlot *slot)
{
	StringInfoData session;
	size_t		length;
	const char *id;

	if (reading->scan == SCAN_REFERENCES ||
		((reading->scan == SCAN_JUDGING || reading->scan == SCAN_LOCKING_FAILED) && !is_failed(reading, slot)))
		return NULL;
	id = text_in_slot(reading, slot, reading->scan == SCAN_STATUS ? reading->status : reading->id, &length);
	if (id == NULL && reading->scan != SCAN_PLACES)
		return NULL;
	initStringInfo(&session);
	if (id != NULL)
		appendBinaryStringInfo(&session, id, (int) length);
	if (reading->scan != SCAN_STATUS)
	{
		append_places(reading, slot, &session);
		place_end(&session, length);
	}
	return session.data;
}

static bool
is_too_long(const Reading *reading, TupleTableSlot *slot, int column)
{
	return reading->source->sampled > 0 && TupleDescAttr(slot->tts_tupleDescriptor, column)->attlen == -1 &&
		toast_datum_size(slot->tts_values[column]) > SAMPLED_BYTES;
}

static bool
pass_row(Reading *reading, TupleTableSlot *slot)
{
	SourceRow  *row = &reading->row;

	slot_getallattrs(slot);
	row->session = name_row(reading, slot);
	if (row->session == NULL && reading->scan == SCAN_LOCKING_FAILED)
		return true;
	for (int i = 0; i < reading->source->n_columns; i++)
		row->values[i] = slot->tts_isnull[i] || is_too_long(reading, slot, i) ? NULL
			: text_in_slot(reading, slot, i, &row->lengths[i]);
	reading->n_rows++;
	return reading->sink(row, reading->arg) &&
		(reading->source->sampled == 0 || reading->n_rows < SAMPLED_ROWS);
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	Reading    *reading = (Reading *) self;
	MemoryContext caller = MemoryContextSwitchTo(reading->row_context);
	bool		more = pass_row(reading, slot);

	MemoryContextSwitchTo(caller);
	MemoryContextReset(reading->row_context);
	return more;
}

static void
start_receiving(DestReceiver *self, int operation, TupleDesc desc)
{
	Reading    *reading = (Reading *) self;

	reading->writers = palloc(sizeof(ValueWriter) * desc->natts);
	for (int i = 0; i < desc->natts; i++)
		value_begin(&reading->writers[i], TupleDescAttr(desc, i)->atttypid);
}


/* --------------------------------------------------------------- reading --- */

/* Prepares receiver, statuses, time zone and buffers for the rows, in the current memory context. */
static void
prepare_rows(Reading *reading)
{
	const Source *source = reading->source;

	reading->pub = *None_Receiver;
	reading->pub.receiveSlot = receive_row;
	reading->pub.rStartup = start_receiving;
	if (needs_failed(reading))
		reading->statuses = (char **) sql_texts(source->failed_statuses, &reading->n_statuses);
	reading->timezone = CStringGetTextDatum(source->timezone ? source->timezone : "UTC");
	reading->row_context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup row",
												 ALLOCSET_SMALL_SIZES);
	reading->row.source = source;
	reading->row.values = palloc0(sizeof(char *) * Max(source->n_columns, 1));
	reading->row.lengths = palloc0(sizeof(size_t) * Max(source->n_columns, 1));
}

static void
run_query(void *arg)
{
	Reading    *reading = arg;

	query_run(reading->query, reading->snapshot, reading->sink ? &reading->pub : NULL);
}

/* Acts as the owner of the source, with the settings with which the source is read, until role_stop_acting(). */
static void
act_as_owner(const Source *source, ActingAs *saved)
{
	role_act_as(source->owner, saved);
	role_read_without_indexes();
	if (get_rel_relkind(source->relid) == RELKIND_VIEW)
		session_use_server_settings();
}

/*
 * Raises an ERROR if the rows of the query cannot be locked.  The owner of a view
 * must have the right to lock the tables of other owners below the view.
 */
static void
check_lockable(const SourceQuery *query)
{
	const Source *source = query->source;

	if (query->bases == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the rows of source %s cannot be locked", source->name),
				 errdetail("Failed sessions are judged under a lock, and a row of this view does not come from one row of each table below it."),
				 errhint("Register the view without a status_column, or one that shows the rows of its tables one by one.")));
	foreach_oid(relid, query->bases)
		if (relid != source->relid &&
			pg_class_aclcheck(relid, source->owner, ACL_UPDATE) != ACLCHECK_OK &&
			pg_attribute_aclcheck_all(relid, source->owner, ACL_UPDATE, ACLMASK_ANY) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of source %s may not lock rows of %s", source->name, sources_name(relid)),
				 errdetail("Role \"%s\" lacks the UPDATE privilege.", GetUserNameFromId(source->owner, true))));
}

/*
 * Reads the rows in the box, again if a function had to be compiled anew.
 * Rows that were passed on cannot be taken back: then there is an ERROR, and
 * the next reading succeeds.
 */
static void
read_in_box(Reading *reading)
{
	while (!query_run_in_box(reading->source, reading->until, run_query, reading))
	{
		CHECK_FOR_INTERRUPTS();
		if (reading->n_rows > 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("this session has called a function of source %s before", reading->source->name),
					 errdetail("It may have taken types of the session for those that it means."),
					 errhint("Call again: the function is compiled anew.")));
	}
}

Snapshot
sources_take_snapshot(void)
{
	CommandCounterIncrement();
	return RegisterSnapshot(GetLatestSnapshot());
}

/*
 * Reads the rows that the snapshot sees.  A snapshot is new, at any isolation
 * level: with the snapshot of a long REPEATABLE READ transaction, a preview
 * would show files as orphans although newer rows refer to these files.
 */
static void
read_rows(Reading *reading, Snapshot snapshot)
{
	Snapshot	mine = snapshot == InvalidSnapshot ? sources_take_snapshot() : InvalidSnapshot;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup source",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	ActingAs	saved;

	act_as_owner(reading->source, &saved);
	prepare_rows(reading);
	trust_look_for_shadow();
	reading->snapshot = mine != InvalidSnapshot ? mine : snapshot;
	reading->query = build_query(reading);
	brake_raise_if(trust_check_query(reading->query));
	if (reading->scan == SCAN_LOCKING_FAILED)
		check_lockable(reading->query);
	if (reading->source->sampled > 0)
		query_sample(reading->query, reading->source->sampled);
	remote_note_reading(reading->query);
	citus_prepare();
	/* a row is found again by the text of its key */
	if (reading->query->key != NIL || reading->scan == SCAN_PLACES)
		key_write_plainly();
	read_in_box(reading);
	citus_check_unmoved(reading->query);
	role_stop_acting(&saved);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	if (mine != InvalidSnapshot)
		UnregisterSnapshot(mine);
}

void
sources_read(Snapshot snapshot, const Source *source, SourceScan scan, TimestampTz failed_before,
			 SourceSink sink, void *arg)
{
	Reading		reading = {.source = source,.scan = scan,.failed_before = failed_before,.sink = sink,.arg = arg};

	read_rows(&reading, snapshot);
}

uint64
sources_transactions_ended(void)
{
	return GetLatestSnapshot()->snapXactCompletionCount;
}

/* Returns whether the relation, which the session has locked, is a table of the server's own kind, or has no rows itself. */
static bool
is_stored_here(Oid relid)
{
	Relation	rel;
	bool		is_heap;

	if (get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
		return true;
	if (get_rel_relkind(relid) != RELKIND_RELATION)
		return false;
	rel = relation_open(relid, NoLock);
	is_heap = rel->rd_tableam == GetHeapamTableAmRoutine();
	relation_close(rel, NoLock);
	return is_heap;
}

bool
sources_are_stored_here(List *sources)
{
	foreach_ptr(const Source, source, sources)
	{
		List	   *tables = find_all_inheritors(source->relid, AccessShareLock, NULL);

		foreach_oid(relid, tables)
			if (!is_stored_here(relid))
			return false;
		if (citus_has_any(tables))
			return false;
	}
	return true;
}


/* --------------------------------------------------------------- locking --- */

/* The failed rows of a source (session and values) that are still to be locked. */
typedef struct FailedRows
{
	const Source *source;
	TupleDesc	desc;
	Tuplestorestate *store;
	SourceSink	is_wanted;
	SourceSink	sink;			/* gets the rows that were locked */
	void	   *arg;			/* of these two */
	Snapshot	snapshot;		/* with which the rows were read */
	Reading    *by_key;			/* the reading that locks rows on other nodes,
								 * by their key; NULL: rows are locked at
								 * their places */
	char	   *sql;			/* statement of that reading */
} FailedRows;

static bool
store_row(const SourceRow *row, void *arg)
{
	FailedRows *failed = arg;
	int			n = row->source->n_columns;
	Datum	   *values = palloc(sizeof(Datum) * (n + 1));
	bool	   *nulls = palloc0(sizeof(bool) * (n + 1));

	if (!failed->is_wanted(row, failed->arg))
		return true;
	values[0] = CStringGetTextDatum(row->session);
	for (int i = 0; i < n; i++)
	{
		nulls[i + 1] = row->values[i] == NULL;
		if (!nulls[i + 1])
			values[i + 1] = PointerGetDatum(cstring_to_text_with_len(row->values[i], (int) row->lengths[i]));
	}
	tuplestore_putvalues(failed->store, failed->desc, values, nulls);
	return true;
}

static TupleDesc
failed_row_desc(const Source *source)
{
	SqlColumn  *columns = palloc_array(SqlColumn, source->n_columns + 1);

	for (int i = 0; i <= source->n_columns; i++)
		columns[i] = (SqlColumn)
	{
		"", TEXTOID
	};
	return sql_row_desc(source->n_columns + 1, columns);
}

static char *
locking_statement(const SourceQuery *query)
{
	StringInfoData sql;

	initStringInfo(&sql);
	foreach_ptr(const TargetEntry, target, query->query->targetList)
		appendStringInfo(&sql, "%ss.%s", sql.len > 0 ? ", " : "SELECT ", quote_identifier(target->resname));
	appendStringInfo(&sql, " FROM %s AS s WHERE %s FOR UPDATE SKIP LOCKED", query->source->name,
					 key_condition(query->key, 1));
	return sql.data;
}

/*
 * Locks the row with this key, and passes the row on if its session still is a
 * failed session.
 */
static bool
lock_by_key(const FailedRows *failed, const char *session)
{
	Reading    *reading = failed->by_key;
	List	   *key = reading->query->key;
	Oid			table = failed->source->relid;
	bool		more = true;

	if (sql_query_on(table, list_length(key), key_parameters(table, key, place_key(session)), failed->sql) == 1)
	{
		TupleTableSlot *slot = MakeSingleTupleTableSlot(SPI_tuptable->tupdesc, &TTSOpsHeapTuple);

		ExecStoreHeapTuple(SPI_tuptable->vals[0], slot, false);
		start_receiving(&reading->pub, CMD_SELECT, SPI_tuptable->tupdesc);
		more = pass_row(reading, slot);
		ExecDropSingleTupleTableSlot(slot);
	}
	return more;
}

/*
 * Tries to lock the rows of a session at its places, one row of each table,
 * and passes a session on whose rows are locked.  Returns whether to go on.
 */
static bool
lock_at_places(const FailedRows *failed, const char *session, TupleTableSlot *slot)
{
	int			n = failed->source->n_columns;
	SourceRow	row = {failed->source, session, palloc(sizeof(char *) * n), palloc0(sizeof(size_t) * n)};
	SourcePlace place;
	int			n_places;

	for (n_places = 0; place_of_session(session, n_places, &place); n_places++)
		if (!place_lock(&place, failed->snapshot))
			return true;
	slot_getallattrs(slot);
	for (int i = 0; i < n; i++)
	{
		text	   *value = slot->tts_isnull[i + 1] ? NULL : DatumGetTextPP(slot->tts_values[i + 1]);

		row.values[i] = value ? VARDATA_ANY(value) : NULL;
		row.lengths[i] = value ? VARSIZE_ANY_EXHDR(value) : 0;
	}
	return n_places == 0 || failed->sink(&row, failed->arg);
}

static void
lock_failed_rows(void *arg)
{
	const FailedRows *failed = arg;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(failed->desc, &TTSOpsMinimalTuple);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup row",
													  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(row_context);
	bool		more = true;

	while (more && tuplestore_gettupleslot(failed->store, true, false, slot))
	{
		bool		isnull;
		char	   *session = TextDatumGetCString(slot_getattr(slot, 1, &isnull));

		CHECK_FOR_INTERRUPTS();
		more = failed->by_key != NULL ? lock_by_key(failed, session) : lock_at_places(failed, session, slot);
		/* a tuple that comes from disk lies in the context of the row */
		ExecClearTuple(slot);
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(row_context);
	ExecDropSingleTupleTableSlot(slot);
}

static void
lock_rows_in_time(void *arg)
{
	query_limit_time(((FailedRows *) arg)->source, 0, "gave up locking rows of source %s: the time for it is up",
					 "Find out why a node of Citus is slow.", lock_failed_rows, arg);
}

static void
lock_rows_by_rules(void *arg)
{
	const TrustRules rules = {.role = ((FailedRows *) arg)->source->owner};

	trust_run(&rules, lock_rows_in_time, arg);
}

/*
 * Locks rows on other nodes one by one, because Citus does not lock rows of
 * several shards in one statement.  Leaves out rows that another transaction
 * has locked.  Because of the subtransaction of sql_try(), Citus takes the
 * statement for one of several, and keeps the lock until the transaction ends.
 */
static void
lock_keyed_rows(FailedRows *failed, TimestampTz failed_before)
{
	Reading		reading = {.source = failed->source,.scan = SCAN_LOCKING_FAILED,.failed_before = failed_before,
	.sink = failed->sink,.arg = failed->arg};
	ErrorData  *error;
	ActingAs	saved;

	act_as_owner(failed->source, &saved);
	citus_prepare();
	prepare_rows(&reading);
	reading.query = build_query(&reading);
	failed->by_key = &reading;
	failed->sql = locking_statement(reading.query);
	key_write_plainly();

	/*
	 * each row is found by its key; a row that a broken index does not show
	 * is not locked, and its file is kept
	 */
	role_set_for_now("enable_indexscan", "on");
	error = sql_try(lock_rows_by_rules, failed);
	if (error != NULL)
		query_raise(failed->source, error);
	role_stop_acting(&saved);
}

/*
 * Reads failed rows first, and then locks each row at its place: the locking
 * only touches tables, and runs no code of users.  A row that has changed in
 * between is left out, like a row that another transaction has locked.  The
 * snapshot keeps VACUUM from giving the place of a row to another row.
 */
void
sources_lock_failed(const Source *source, TimestampTz failed_before, SourceSink is_wanted, SourceSink sink, void *arg)
{
	FailedRows	failed = {.source = source,.is_wanted = is_wanted,.sink = sink,.arg = arg};

	if (source->status_column == NULL)
		return;
	failed.desc = failed_row_desc(source);
	failed.store = tuplestore_begin_heap(false, false, work_mem);
	failed.snapshot = sources_take_snapshot();
	sources_read(failed.snapshot, source, SCAN_LOCKING_FAILED, failed_before, store_row, &failed);
	if (citus_has_any(list_make1_oid(source->relid)))
		lock_keyed_rows(&failed, failed_before);
	else
		lock_failed_rows(&failed);
	tuplestore_end(failed.store);
	UnregisterSnapshot(failed.snapshot);
}


/* ------------------------------------------------------------- interface --- */

void
sources_sample(const Source *table, double rows, int64 deadline, SourceSink sink, void *arg)
{
	Source		sampled = *table;
	Reading		reading = {.source = &sampled,.scan = SCAN_REFERENCES,.sink = sink,.arg = arg,.until = deadline};

	/*
	 * for Citus, a sample would save nothing: all rows come from the nodes
	 * before the first row is seen
	 */
	if (citus_has_any(list_make1_oid(table->relid)))
		return;
	sampled.sampled = rows > SAMPLED_ROWS ? 100.0 * SAMPLED_ROWS / rows : 100;
	read_rows(&reading, InvalidSnapshot);
}

SourceQuery *
source_build_query(const Source *source, bool with_places, Brake **brake)
{
	SourceQuery *query;
	ActingAs	saved;

	act_as_owner(source, &saved);
	query = query_build(source, source->columns, source->n_columns, with_places);
	if (brake != NULL && *brake == NULL)
		*brake = trust_check_query(query);
	role_stop_acting(&saved);
	return query;
}

typedef struct Probe
{
	const Source *source;
	List	   *tables;
	Brake	   *brake;
} Probe;

/* Begins to read, and ends before the first row. */
static void
try_reading(void *arg)
{
	Probe	   *probe = arg;
	SourceQuery *query = source_build_query(probe->source, false, &probe->brake);

	probe->tables = query->tables;
	if (probe->brake == NULL)
		probe->brake = remote_examine(query);
	if (probe->brake == NULL)
		sources_read(InvalidSnapshot, probe->source, SCAN_REFERENCES, 0, NULL, NULL);
}

Brake *
sources_probe(const Source *source, List **tables)
{
	Probe		probe = {source};
	ErrorData  *error = sql_try(try_reading, &probe);

	if (tables != NULL)
		*tables = probe.tables;
	if (error == NULL)
		return probe.brake;

	/*
	 * if the box has hidden the content of rows, its message names the source
	 */
	return source_brake(error->sqlerrcode, sql_tells_of_rows(error) ? error->message :
						psprintf("could not read source %s: %s", source->name, error->message),
						error->detail);
}

void
sources_try_locking(const Source *source)
{
	if (source->status_column != NULL)
		check_lockable(source_build_query(source, true, NULL));
}


/* -------------------------------------------------------------- statuses --- */

typedef struct StatusSearch
{
	List	   *missing;		/* statuses (char *) that were not seen yet */
	bool		any_row;
	int64		deadline;		/* by time_monotonic_us() */
	bool		late;
} StatusSearch;

static bool
look_for_status(const SourceRow *row, void *arg)
{
	StatusSearch *search = arg;

	search->any_row = true;
	for (int i = list_length(search->missing) - 1; row->session != NULL && i >= 0; i--)
		if (strcmp(list_nth(search->missing, i), row->session) == 0)
			search->missing = list_delete_nth_cell(search->missing, i);
	search->late = time_monotonic_us() > search->deadline;
	return search->missing != NIL && !search->late;
}

/* Reads the statuses, and no column of files.  Returns whether the search came to its end and found any row. */
static bool
look_for_statuses(const Source *source, StatusSearch *search)
{
	Source		statuses = *source;

	statuses.n_columns = 0;
	sources_read(InvalidSnapshot, &statuses, SCAN_STATUS, 0, look_for_status, search);
	return search->any_row && !search->late;
}

List *
sources_strange_statuses(const Source *source, int max_ms)
{
	StatusSearch search = {.deadline = time_monotonic_us() + (int64) max_ms * 1000};
	List	   *found = NIL;
	Oid			type;

	if (source->status_column == NULL)
		return NIL;
	type = getBaseType(get_atttype(source->relid, get_attnum(source->relid, source->status_column)));
	foreach_ptr(char, status, key_names(source->failed_statuses))
	{
		if (type_is_enum(type) && !SearchSysCacheExists2(ENUMTYPOIDNAME, ObjectIdGetDatum(type), CStringGetDatum(status)))
			found = lappend(found, psprintf("column \"%s\" of source %s can never be \"%s\": its type %s has no such label",
											source->status_column, source->name, status, format_type_be(type)));
		else
			search.missing = lappend(search.missing, status);
	}
	if (search.missing == NIL || !look_for_statuses(source, &search))
		return found;
	foreach_ptr(const char, status, search.missing)
		found = lappend(found, psprintf("no row of source %s has the status \"%s\" in column \"%s\"",
										source->name, status, source->status_column));
	return found;
}
