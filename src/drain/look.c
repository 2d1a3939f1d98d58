/*-------------------------------------------------------------------------
 *
 * drain/look.c
 *	  Looks again at files that were condemned: at all files of a run at once.
 *
 * A look reads the sources once, however many files there are.  Beyond
 * work_mem, names are kept on disk; a few bits of each file are kept in memory.
 * Files that are needed are dealt with at once.  The other files that are due
 * are doomed: this drain may destroy these files.  The outcome of the look is
 * not recorded, so after a crash another drain looks again.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/integerset.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "src/drain/private.h"
#include "src/pg/progress.h"
#include "src/plan/plan.h"

/* rows that are read at a time, and needed files that are dealt with at a time */
#define LOOK_ROWS	10000
#define NEEDED_ROWS 1000

typedef struct Look
{
	Drain	   *drain;
	LedgerKind	kind;
	NeededSink	sink;
	Match	   *match;
	IntegerSet *file_ids;		/* of the files of the match, in the order of
								 * the match */
	IntegerSet *living;			/* those that drain_lets_live() lets live, */
	IntegerSet *due;			/* and the other files that are due */
	MemoryContext scratch;
} Look;

/* Adds a file to the look.  The file_ids must ascend. */
static void
add_file(Look *look, const LedgerFile *file)
{
	match_add(look->match, file->path);
	intset_add_member(look->file_ids, (uint64) file->file_id);
	if (look->kind == LEDGER_PENDING)
		return;
	if (drain_lets_live(look->drain, file))
		intset_add_member(look->living, (uint64) file->file_id);
	else if (file->unsettled)
		intset_add_member(look->due, (uint64) file->file_id);
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
			add_file(look, &files[i]);
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
	uint64		file_id;

	intset_begin_iterate(look->file_ids);
	for (int64 number = 0; intset_iterate_next(look->file_ids, &file_id); number++)
	{
		CHECK_FOR_INTERRUPTS();
		why[n] = match_why_needed(look->match, number);
		if (why[n] == NULL && intset_is_member(look->living, file_id))
			why[n] = drain_why_let_live;
		if (why[n] != NULL)
			needed[n++] = (int64) file_id;
		else if (intset_is_member(look->due, file_id))
		{
			intset_add_member(look->drain->doomed, file_id);
			look->drain->doomed_up_to = (int64) file_id;
		}
		if (n == NEEDED_ROWS)
		{
			deal_with_needed(look, needed, why, n);
			n = 0;
		}
	}
	if (n > 0)
		deal_with_needed(look, needed, why, n);
}

/* Forgets the doomed files, and lets further doomed files come after the file_id `after`. */
static void
begin_doomed(Drain *drain, int64 after)
{
	MemoryContext context = AllocSetContextCreate(drain->memory, "audio_cleanup doomed files",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);

	if (drain->doomed != NULL)
		MemoryContextDelete(GetMemoryChunkContext(drain->doomed));
	drain->doomed = intset_create();
	drain->doomed_up_to = drain->destroyed_up_to = after;
	MemoryContextSwitchTo(caller);
}

int64
drain_look(Drain *drain, LedgerKind kind, int64 *up_to, int64 limit, NeededSink sink)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup look",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Look		look = {drain, kind, sink};
	Brake	   *brake = NULL;
	int64		n;

	begin_doomed(drain, *up_to);
	look.match = match_begin(drain->context.settings, drain->claim);
	look.file_ids = intset_create();
	look.living = intset_create();
	look.due = intset_create();
	look.scratch = AllocSetContextCreate(context, "audio_cleanup files", ALLOCSET_DEFAULT_SIZES);
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
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return brake != NULL ? -1 : n;
}
