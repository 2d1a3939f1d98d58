/*-------------------------------------------------------------------------
 *
 * drain/look.c
 *	  Looks again at files that were condemned: at all files of a run at once.
 *
 * A look reads the sources once, however many files there are.  Beyond
 * work_mem, names and file_ids are kept on disk; the match keeps a few bits of
 * each file in memory.  Files that are needed are dealt with at once.  The
 * other files that are due are doomed: this drain may destroy these files.
 * The outcome of the look is not recorded, so after a crash another drain
 * looks again.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "src/drain/private.h"
#include "src/pg/progress.h"
#include "src/pg/sql.h"
#include "src/plan/plan.h"

/* rows that are read at a time, and needed files that are dealt with at a time */
#define LOOK_ROWS	10000
#define NEEDED_ROWS 1000

/* file_ids, ascending, on disk beyond work_mem */
struct FileIds
{
	MemoryContext context;
	Tuplestorestate *store;
	TupleDesc	desc;
	TupleTableSlot *slot;
};

/* What becomes of a file that nobody needs. */
typedef enum Fate
{
	STAYS,
	IS_DOOMED,
	LIVES						/* see drain_lets_live() */
} Fate;

static const SqlColumn columns[] = {{"file_id", INT8OID}, {"fate", INT4OID}};

/*
 * Returns an empty list.  With `interxact` the list outlives the transaction,
 * and an ERROR: then only end_ids() frees the list.
 */
static FileIds *
begin_ids(MemoryContext parent, bool interxact)
{
	MemoryContext context = AllocSetContextCreate(parent, "audio_cleanup file numbers",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	FileIds    *ids = palloc(sizeof(FileIds));

	ids->context = context;
	ids->store = tuplestore_begin_heap(true, interxact, work_mem);
	ids->desc = sql_row_desc(lengthof(columns), columns);
	ids->slot = MakeSingleTupleTableSlot(ids->desc, &TTSOpsMinimalTuple);
	MemoryContextSwitchTo(caller);
	return ids;
}

static void
end_ids(FileIds *ids)
{
	tuplestore_end(ids->store);
	ExecDropSingleTupleTableSlot(ids->slot);
	MemoryContextDelete(ids->context);
}

static void
add_id(FileIds *ids, int64 file_id, Fate fate)
{
	Datum		values[] = {Int64GetDatum(file_id), Int32GetDatum(fate)};
	bool		nulls[] = {false, false};

	tuplestore_putvalues(ids->store, ids->desc, values, nulls);
}

/* Reads the next file_id.  Returns false at the end. */
static bool
next_id(FileIds *ids, int64 *file_id, Fate *fate)
{
	bool		found = tuplestore_gettupleslot(ids->store, true, false, ids->slot);
	bool		isnull;

	if (found)
	{
		*file_id = DatumGetInt64(slot_getattr(ids->slot, 1, &isnull));
		*fate = DatumGetInt32(slot_getattr(ids->slot, 2, &isnull));
	}
	ExecClearTuple(ids->slot);
	return found;
}


/* -------------------------------------------------------------------- look --- */

typedef struct Look
{
	Drain	   *drain;
	LedgerKind	kind;
	NeededSink	sink;
	Match	   *match;
	FileIds    *ids;			/* of the files of the match, in the order of
								 * the match */
	MemoryContext scratch;
} Look;

static Fate
fate_of(const Look *look, const LedgerFile *file)
{
	if (look->kind == LEDGER_PENDING)
		return STAYS;
	if (drain_lets_live(look->drain, file))
		return LIVES;
	return file->unsettled ? IS_DOOMED : STAYS;
}

/* Adds at most `limit` files after the file_id *up_to to the match.  Sets *up_to to the last file_id. */
static void
add_files(Look *look, int64 *up_to, int64 limit)
{
	Drain	   *drain = look->drain;
	MemoryContext caller = MemoryContextSwitchTo(look->scratch);
	int			n;

	do
	{
		LedgerFile *files = ledger_files(drain->context.extension, drain->run_id, look->kind, *up_to,
										 (int) Min(limit - match_count(look->match), LOOK_ROWS), &n);

		for (int i = 0; i < n; i++)
		{
			progress_tick();
			match_add(look->match, files[i].path);
			add_id(look->ids, files[i].file_id, fate_of(look, &files[i]));
			*up_to = files[i].file_id;
		}
		MemoryContextReset(look->scratch);
	} while (n > 0 && match_count(look->match) < limit);
	MemoryContextSwitchTo(caller);
}

/* Passes needed files to the sink, and records the states that the sink has set. */
static void
deal_with_needed(Look *look, const int64 *file_ids, const char **why, int n)
{
	Drain	   *drain = look->drain;
	MemoryContext caller = MemoryContextSwitchTo(look->scratch);
	int			picked;
	LedgerFile *files = ledger_pick(drain->context.extension, drain->run_id, look->kind, file_ids, n, &picked);
	const char **reasons = palloc(sizeof(char *) * Max(picked, 1));
	int			together = store_together(drain->store);
	int			j = 0;

	for (int i = 0; i < picked; i++)
	{
		while (file_ids[j] < files[i].file_id)
			j++;
		reasons[i] = why[j];
	}
	for (int i = 0; i < picked; i += together)
	{
		progress_tick();
		look->sink(drain, &files[i], &reasons[i], Min(picked - i, together));
	}
	if (picked > 0)
	{
		drain_make_durable(drain);
		drain_record(drain, files, picked);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(look->scratch);
}

/* Passes the needed files to the sink.  Adds the other files that are due to the doomed files. */
static void
part_files(Look *look)
{
	int64		needed[NEEDED_ROWS];
	const char *why[NEEDED_ROWS];
	int			n = 0;
	int64		file_id;
	Fate		fate;

	for (int64 number = 0; next_id(look->ids, &file_id, &fate); number++)
	{
		CHECK_FOR_INTERRUPTS();
		why[n] = match_why_needed(look->match, number);
		if (why[n] == NULL && fate == LIVES)
			why[n] = drain_why_let_live;
		if (why[n] != NULL)
			needed[n++] = file_id;
		else if (fate == IS_DOOMED)
			add_id(look->drain->doomed, file_id, fate);
		if (n == NEEDED_ROWS)
		{
			deal_with_needed(look, needed, why, n);
			n = 0;
		}
	}
	if (n > 0)
		deal_with_needed(look, needed, why, n);
}

int64
drain_look(Drain *drain, LedgerKind kind, int64 *up_to, int64 limit, NeededSink sink)
{
	Look		look = {drain, kind, sink};
	Brake	   *brake = NULL;
	int64		n;

	drain_forget_doomed(drain);
	drain->doomed = begin_ids(drain->memory, true);
	look.match = match_begin(drain->context.settings, drain->claim);
	look.ids = begin_ids(CurrentMemoryContext, false);
	look.scratch = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup look",
										 ALLOCSET_DEFAULT_SIZES);
	add_files(&look, up_to, limit);
	n = match_count(look.match);
	if (n > 0)

		/*
		 * rows are locked only for a disk: nobody should wait for locked rows
		 * while this process waits for a network
		 */
		brake = plan_recheck(&drain->context, look.match, !drain->at_commit, store_acts_at_commit(drain->store),
							 &drain->look_us);
	if (brake == NULL)
		part_files(&look);
	else
	{
		drain->put_off = drain->put_off || strcmp(brake->name, "writers") == 0;
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("%lld condemned files are left as they are for now", (long long) n),
				 errdetail_internal("%s", brake_text(brake))));
	}
	match_end(look.match);
	end_ids(look.ids);
	MemoryContextDelete(look.scratch);
	return brake != NULL ? -1 : n;
}


/* ------------------------------------------------------------------ doomed --- */

void
drain_forget_doomed(Drain *drain)
{
	if (drain->doomed != NULL)
		end_ids(drain->doomed);
	drain->doomed = NULL;
	drain->n_next = 0;
}

int
drain_next_doomed(Drain *drain, int limit)
{
	Fate		fate;

	limit = Min(limit, DRAIN_NEXT);
	while (drain->doomed != NULL && drain->n_next < limit &&
		   next_id(drain->doomed, &drain->next[drain->n_next], &fate))
		drain->n_next++;
	return Min(drain->n_next, limit);
}

void
drain_pass_doomed(Drain *drain, int n)
{
	drain->n_next -= n;
	memmove(drain->next, drain->next + n, sizeof(int64) * drain->n_next);
}
