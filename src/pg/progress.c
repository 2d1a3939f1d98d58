/*-------------------------------------------------------------------------
 *
 * pg/progress.c
 *	  The progress of the run that this process makes, for other sessions to see.
 *
 * A slot belongs to the process that took it; no other process writes to the
 * slot.  Its figures are atomics, and are read one by one: a reader may see a
 * file counted as done whose bytes are not counted yet, which does no harm.
 * The lock protects only the taking and giving back of slots.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "src/pg/compat.h"
#include "src/pg/extension.h"
#include "src/pg/progress.h"
#include "src/pg/shmem.h"
#include "src/pg/time.h"

/* runs that are visible at a time; further runs are not visible */
#define PROGRESS_SLOTS		64

#define TELL_EVERY_US		(5 * USECS_PER_SEC)

/* longest name of a trigger, with its NUL */
#define TRIGGER_MAX			16

/* The run of a slot.  The owner of the slot writes these fields under the lock. */
typedef struct ProgressRun
{
	int			pid;			/* 0: the slot is free */
	Oid			database;
	char		trigger[TRIGGER_MAX];
	bool		dry_run;
	TimestampTz started_at;
} ProgressRun;

typedef struct ProgressSlot
{
	ProgressRun run;
	pg_atomic_uint64 figures[PROGRESS_FIGURES]; /* the owner writes these at
												 * any time */
} ProgressSlot;

/* A slot, read once. */
typedef struct ProgressView
{
	ProgressRun run;
	int64		figures[PROGRESS_FIGURES];
} ProgressView;

static const char *const phase_names[] = {
	[PHASE_STARTING] = "starting",
	[PHASE_WALKING] = "walking",
	[PHASE_MATCHING] = "matching",
	[PHASE_JUDGING] = "judging",
	[PHASE_WAITING] = "waiting for writers",
	[PHASE_CONDEMNING] = "condemning",
	[PHASE_CAPTURING] = "capturing",
	[PHASE_DELETING] = "deleting",
};

static ProgressSlot *slots = NULL;	/* slots in shared memory; NULL if the
									 * library is not preloaded */
static LWLock *slots_lock;
static ProgressSlot private_slot;	/* the slot of a run that has no slot in
									 * shared memory */

static ProgressSlot *mine = NULL;	/* the slot of the run under way */
static bool tell_client = false;
static int64 told_at;			/* by time_monotonic_us() */


/* ----------------------------------------------------------- shared memory --- */

static void
clear_slot(ProgressSlot *slot)
{
	slot->run.pid = 0;
	for (int i = 0; i < PROGRESS_FIGURES; i++)
		pg_atomic_init_u64(&slot->figures[i], 0);
}

static void
attach_slots(void *memory, bool is_new)
{
	slots = memory;
	slots_lock = &GetNamedLWLockTranche(EXTENSION_NAME)->lock;
	for (int i = 0; is_new && i < PROGRESS_SLOTS; i++)
		clear_slot(&slots[i]);
}

void
progress_init(void)
{
	if (process_shared_preload_libraries_in_progress)
		shmem_request("audio_cleanup progress", sizeof(ProgressSlot) * PROGRESS_SLOTS, attach_slots);
}

bool
progress_is_shared(void)
{
	return slots != NULL;
}


/* ------------------------------------------------------------- begin, end --- */

/* Gives the slot back when the context of the run ends. */
static void
give_back_slot(void *arg)
{
	if (mine == NULL)
		return;
	if (mine != &private_slot)
	{
		LWLockAcquire(slots_lock, LW_EXCLUSIVE);
		mine->run.pid = 0;
		LWLockRelease(slots_lock);
	}
	mine = NULL;
}

/* Gives back the slot at FATAL and proc_exit(), which do not reset memory contexts. */
static void
at_process_exit(int code, Datum arg)
{
	give_back_slot(NULL);
}

/* Takes a slot in shared memory, or the private one if there is none, or all are in use. */
void
progress_begin(const char *trigger, bool dry_run, bool tell)
{
	static bool registered = false;
	MemoryContextCallback *callback;

	if (mine != NULL)
		return;
	callback = palloc0(sizeof(MemoryContextCallback));
	callback->func = give_back_slot;
	if (slots != NULL)
	{
		if (!registered)
			before_shmem_exit(at_process_exit, 0);
		registered = true;
		LWLockAcquire(slots_lock, LW_EXCLUSIVE);
	}
	mine = &private_slot;
	for (int i = 0; slots != NULL && mine == &private_slot && i < PROGRESS_SLOTS; i++)
		if (slots[i].run.pid == 0)
			mine = &slots[i];
	clear_slot(mine);
	mine->run.pid = MyProcPid;
	mine->run.database = MyDatabaseId;
	strlcpy(mine->run.trigger, trigger, sizeof(mine->run.trigger));
	mine->run.dry_run = dry_run;
	mine->run.started_at = GetCurrentTimestamp();
	if (slots != NULL)
		LWLockRelease(slots_lock);
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	tell_client = tell && slots == NULL;
	told_at = time_monotonic_us();
}


/* ----------------------------------------------------------------- figures --- */

static int64
get(ProgressSlot *slot, ProgressFigure figure)
{
	return (int64) pg_atomic_read_u64(&slot->figures[figure]);
}

void
progress_set(ProgressFigure figure, int64 value)
{
	if (mine != NULL)
		pg_atomic_write_u64(&mine->figures[figure], (uint64) value);
}

/* Adds without an atomic addition, because no other process writes to the slot. */
void
progress_add(ProgressFigure figure, int64 increment)
{
	if (mine != NULL)
		progress_set(figure, get(mine, figure) + increment);
}

void
progress_set_phase(ProgressPhase phase)
{
	if (mine != NULL && phase > PHASE_WAITING && get(mine, PROGRESS_WORK_BEGAN) == 0)
		progress_set(PROGRESS_WORK_BEGAN, GetCurrentTimestamp());
	progress_set(PROGRESS_PHASE, phase);
}

void
progress_add_done(int64 run_id, int64 bytes)
{
	if (mine == NULL || get(mine, PROGRESS_RUN) != run_id)
		return;
	progress_add(PROGRESS_DONE, 1);
	progress_add(PROGRESS_BYTES, bytes);
}


/* -------------------------------------------------------------------- look --- */

/*
 * Estimates the microseconds that remain if all files take the same time,
 * batches included.  Returns -1 if no file is done yet.
 */
static int64
estimate_remaining(const int64 *figures, TimestampTz now)
{
	int64		condemned = figures[PROGRESS_CONDEMNED];
	int64		done = figures[PROGRESS_DONE];
	TimestampTz began = figures[PROGRESS_WORK_BEGAN];

	if (began == 0 || done <= 0 || done > condemned)
		return -1;
	return (int64) ((double) (now - began) * (double) (condemned - done) / (double) done);
}

static Datum
make_interval_us(int64 us)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = us;
	return IntervalPGetDatum(interval);
}

static void
put_view(const ProgressView *view, Tuplestorestate *rows, TupleDesc desc)
{
	/* the database may have been dropped in this instant */
	char	   *database = get_database_name(view->run.database);
	TimestampTz now = GetCurrentTimestamp();
	int64		remaining_us = estimate_remaining(view->figures, now);
	Datum		values[14];
	bool		nulls[14] = {false};

	values[0] = Int32GetDatum(view->run.pid);
	values[1] = DirectFunctionCall1(namein, CStringGetDatum(database ? database : ""));
	values[2] = Int64GetDatum(view->figures[PROGRESS_RUN]);
	nulls[2] = view->figures[PROGRESS_RUN] == 0;
	values[3] = CStringGetTextDatum(view->run.trigger);
	values[4] = BoolGetDatum(view->run.dry_run);
	values[5] = CStringGetTextDatum(phase_names[view->figures[PROGRESS_PHASE]]);
	for (int i = PROGRESS_WALKED; i <= PROGRESS_BYTES; i++)
		values[6 + i] = Int64GetDatum(view->figures[i]);
	values[11] = TimestampTzGetDatum(view->run.started_at);
	values[12] = make_interval_us(now - view->run.started_at);
	values[13] = make_interval_us(remaining_us);
	nulls[13] = remaining_us < 0;
	tuplestore_putvalues(rows, desc, values, nulls);
}

void
progress_look(Tuplestorestate *rows, TupleDesc desc)
{
	ProgressView *views;
	int			n = 0;

	if (slots == NULL)
		return;
	views = palloc(sizeof(ProgressView) * PROGRESS_SLOTS);
	LWLockAcquire(slots_lock, LW_SHARED);
	for (int i = 0; i < PROGRESS_SLOTS; i++)
	{
		if (slots[i].run.pid == 0)
			continue;
		views[n].run = slots[i].run;
		for (int k = 0; k < PROGRESS_FIGURES; k++)
			views[n].figures[k] = get(&slots[i], k);
		n++;
	}
	LWLockRelease(slots_lock);
	for (int i = 0; i < n; i++)
		put_view(&views[i], rows, desc);
}

void
progress_tick(void)
{
	CHECK_FOR_INTERRUPTS();
	if (MyBackendType == B_BG_WORKER && !PostmasterIsAlive())
		proc_exit(1);
	if (mine == NULL || !tell_client || time_monotonic_us() - told_at < TELL_EVERY_US)
		return;
	told_at = time_monotonic_us();
	ereport(INFO,
			(errmsg("cleanup run is in phase \"%s\": %lld files walked, %lld matched, %lld condemned, %lld done, %.2f MiB freed",
					phase_names[get(mine, PROGRESS_PHASE)], (long long) get(mine, PROGRESS_WALKED),
					(long long) get(mine, PROGRESS_MATCHED),
					(long long) get(mine, PROGRESS_CONDEMNED),
					(long long) get(mine, PROGRESS_DONE),
					(double) get(mine, PROGRESS_BYTES) / (1024 * 1024))));
}
