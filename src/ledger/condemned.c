/*-------------------------------------------------------------------------
 *
 * ledger/condemned.c
 *	  The files that a run condemns.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/int.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "src/ledger/condemned.h"
#include "src/pg/sql.h"
#include "src/pg/texts.h"

static const SqlColumn file_columns[] = {
	{"path", TEXTOID}, {"source", TEXTOID}, {"session", TEXTOID},
	{"inode", INT8OID}, {"size", INT8OID}, {"mtime_ns", INT8OID},
	{"ctime_ns", INT8OID}, {"btime_ns", INT8OID}, {"links", INT8OID},
	{"space", INT8OID}
};

#define FILE_COLUMNS	lengthof(file_columns)

static const SqlColumn session_columns[] = {{"source", INT4OID}, {"session", TEXTOID}};

Condemned *
condemned_begin(bool interxact, bool is_preview)
{
	Condemned  *condemned = palloc0(sizeof(Condemned));

	condemned->interxact = interxact;
	condemned->files_desc = sql_row_desc(lengthof(file_columns), file_columns);
	condemned->sessions_desc = sql_row_desc(lengthof(session_columns), session_columns);
	condemned->slot = MakeSingleTupleTableSlot(condemned->files_desc, &TTSOpsMinimalTuple);
	condemned->files = tuplestore_begin_heap(true, interxact, work_mem);
	condemned->sessions = tuplestore_begin_heap(true, interxact, work_mem);
	if (is_preview && !interxact)
		condemned->orphans = texts_begin(work_mem);
	return condemned;
}

void
condemned_end(Condemned *condemned)
{
	tuplestore_end(condemned->files);
	tuplestore_end(condemned->sessions);
	if (condemned->orphans != NULL)
		texts_end(condemned->orphans);
	ExecDropSingleTupleTableSlot(condemned->slot);
	pfree(condemned);
}

static void
store_file(Condemned *condemned, const CondemnedFile *file)
{
	Datum		values[FILE_COLUMNS];
	bool		nulls[FILE_COLUMNS] = {false, file->source == NULL, file->source == NULL};

	values[0] = CStringGetTextDatum(file->path);
	values[1] = nulls[1] ? (Datum) 0 : CStringGetTextDatum(file->source);
	values[2] = nulls[2] ? (Datum) 0 : CStringGetTextDatum(file->session);
	values[3] = Int64GetDatum((int64) file->identity.inode);
	values[4] = Int64GetDatum(file->identity.size);
	values[5] = Int64GetDatum(file->identity.mtime_ns);
	values[6] = Int64GetDatum(file->identity.ctime_ns);
	values[7] = Int64GetDatum(file->identity.btime_ns);
	values[8] = Int64GetDatum((int64) file->identity.nlink);
	values[9] = Int64GetDatum(store_space_of(&file->identity));
	tuplestore_putvalues(condemned->files, condemned->files_desc, values, nulls);
	for (int i = 0; i < 3; i++)
		if (!nulls[i])
			pfree(DatumGetPointer(values[i]));
}

void
condemned_add_file(Condemned *condemned, const CondemnedFile *file)
{
	if (condemned->orphans != NULL && file->source == NULL)
		texts_add(condemned->orphans, file->path);
	else
		store_file(condemned, file);
	condemned->n_files++;
	condemned->n_orphans += file->source == NULL;
	if (pg_add_s64_overflow(condemned->bytes, store_space_of(&file->identity), &condemned->bytes))
		condemned->bytes = PG_INT64_MAX;
}

void
condemned_add_session(Condemned *condemned, int source, const char *session)
{
	Datum		values[] = {Int32GetDatum(source), CStringGetTextDatum(session)};
	bool		nulls[] = {false, false};

	tuplestore_putvalues(condemned->sessions, condemned->sessions_desc, values, nulls);
	pfree(DatumGetPointer(values[1]));
	condemned->n_sessions++;
}

void
condemned_rewind(Condemned *condemned)
{
	tuplestore_rescan(condemned->files);
	if (condemned->orphans != NULL)
		texts_rewind(condemned->orphans);
}

static char *
slot_string(TupleTableSlot *slot, int column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

static int64
slot_int8(TupleTableSlot *slot, int column)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(slot, column, &isnull));
}

bool
condemned_next(Condemned *condemned, CondemnedFile *file)
{
	TupleTableSlot *slot = condemned->slot;
	const char *orphan;

	memset(file, 0, sizeof(*file));
	if (tuplestore_gettupleslot(condemned->files, true, false, slot))
	{
		file->path = slot_string(slot, 1);
		file->source = slot_string(slot, 2);
		file->session = slot_string(slot, 3);
		file->identity.inode = (uint64) slot_int8(slot, 4);
		file->identity.size = slot_int8(slot, 5);
		file->identity.mtime_ns = slot_int8(slot, 6);
		file->identity.ctime_ns = slot_int8(slot, 7);
		file->identity.btime_ns = slot_int8(slot, 8);
		file->identity.nlink = (uint32) slot_int8(slot, 9);
		file->identity.space = slot_int8(slot, 10);
	}
	else if (condemned->orphans != NULL && (orphan = texts_next(condemned->orphans)) != NULL)
		file->path = pstrdup(orphan);
	ExecClearTuple(slot);
	return file->path != NULL;
}

void
condemned_free_texts(CondemnedFile *file)
{
	if (file->path != NULL)
		pfree((char *) file->path);
	if (file->source != NULL)
	{
		pfree((char *) file->source);
		pfree((char *) file->session);
	}
}

void
condemned_scan_sessions(Condemned *condemned, SessionSink sink, void *arg)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(condemned->sessions_desc, &TTSOpsMinimalTuple);

	tuplestore_rescan(condemned->sessions);
	while (tuplestore_gettupleslot(condemned->sessions, true, false, slot))
	{
		bool		isnull;
		char	   *session = slot_string(slot, 2);

		sink(DatumGetInt32(slot_getattr(slot, 1, &isnull)), session, arg);
		pfree(session);
	}
	ExecDropSingleTupleTableSlot(slot);
}
