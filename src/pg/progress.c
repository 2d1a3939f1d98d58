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
#include "src/pg/progress.h"
#include "src/pg/shmem.h"
#include "src/pg/time.h"

/* runs that are visible at a time; further runs are not visible */
#define PROGRESS_SLOTS		64

#define TELL_EVERY_US		(5 * USECS_PER_SEC)

/* longest name of a trigger, with its NUL */
#define TRIGGER_MAX			16

typedef struct ProgressSlot
{
	/* the owner writes these under the lock */
	int			pid;			/* 0: free */
	Oid			database;
	char		trigger[TRIGGER_MAX];
	bool		dry_run;
	TimestampTz started_at;

	/* the owner writes these at any time */
	pg_atomic_uint64 run_id;
	pg_atomic_uint32 phase;
	pg_atomic_uint64 work_began;	/* time when the first file was moved or
									 * deleted; 0: not yet */
	pg_atomic_uint64 counters[PROGRESS_COUNTERS];
} ProgressSlot;

/* The figures of a slot, read once. */
typedef struct ProgressView
{
	int			pid;
	Oid			database;
	int64		run_id;			/* 0: not known yet */
	char		trigger[TRIGGER_MAX];
	bool		dry_run;
	const char *phase;
	int64		counters[PROGRESS_COUNTERS];
	TimestampTz started_at;
	TimestampTz now;
	int64		remaining_us;	/* estimated microseconds that remain; -1: not
								 * known */
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
	slot->pid = 0;
	pg_atomic_init_u64(&slot->run_id, 0);
	pg_atomic_init_u32(&slot->phase, PHASE_STARTING);
	pg_atomic_init_u64(&slot->work_began, 0);
	for (int i = 0; i < PROGRESS_COUNTERS; i++)
		pg_atomic_init_u64(&slot->counters[i], 0);
}

static void
attach_slots(void *memory, bool is_new)
{
	slots = memory;
	slots_lock = shmem_lock();
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
		mine->pid = 0;
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
		if (slots[i].pid == 0)
			mine = &slots[i];
	clear_slot(mine);
	mine->pid = MyProcPid;
	mine->database = MyDatabaseId;
	strlcpy(mine->trigger, trigger, sizeof(mine->trigger));
	mine->dry_run = dry_run;
	mine->started_at = GetCurrentTimestamp();
	if (slots != NULL)
		LWLockRelease(slots_lock);
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	tell_client = tell && slots == NULL;
	told_at = time_monotonic_us();
}


/* ----------------------------------------------------------------- figures --- */

void
progress_set_run(int64 run_id)
{
	if (mine != NULL)
		pg_atomic_write_u64(&mine->run_id, (uint64) run_id);
}

void
progress_set_phase(ProgressPhase phase)
{
	if (mine == NULL || pg_atomic_read_u32(&mine->phase) == (uint32) phase)
		return;
	if (phase > PHASE_WAITING && pg_atomic_read_u64(&mine->work_began) == 0)
		pg_atomic_write_u64(&mine->work_began, (uint64) GetCurrentTimestamp());
	pg_atomic_write_u32(&mine->phase, (uint32) phase);
}

void
progress_set(ProgressCounter counter, int64 value)
{
	if (mine != NULL)
		pg_atomic_write_u64(&mine->counters[counter], (uint64) value);
}

/* Adds without an atomic addition, because no other process writes to the slot. */
void
progress_add(ProgressCounter counter, int64 increment)
{
	if (mine != NULL)
		pg_atomic_write_u64(&mine->counters[counter],
							pg_atomic_read_u64(&mine->counters[counter]) + (uint64) increment);
}

void
progress_add_done(int64 run_id, int64 bytes)
{
	if (mine == NULL || (int64) pg_atomic_read_u64(&mine->run_id) != run_id)
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
estimate_remaining(ProgressSlot *slot, const ProgressView *view)
{
	int64		condemned = view->counters[PROGRESS_CONDEMNED];
	int64		done = view->counters[PROGRESS_DONE];
	TimestampTz began = (TimestampTz) pg_atomic_read_u64(&slot->work_began);

	if (began == 0 || done <= 0 || done > condemned)
		return -1;
	return (int64) ((double) (view->now - began) * (double) (condemned - done) / (double) done);
}

static void
read_slot(ProgressSlot *slot, ProgressView *view)
{
	uint32		phase = pg_atomic_read_u32(&slot->phase);

	view->pid = slot->pid;
	view->database = slot->database;
	view->run_id = (int64) pg_atomic_read_u64(&slot->run_id);
	strlcpy(view->trigger, slot->trigger, sizeof(view->trigger));
	view->dry_run = slot->dry_run;
	view->phase = phase_names[Min(phase, PHASE_LAST)];
	for (int i = 0; i < PROGRESS_COUNTERS; i++)
		view->counters[i] = (int64) pg_atomic_read_u64(&slot->counters[i]);
	view->started_at = slot->started_at;
	view->now = GetCurrentTimestamp();
	view->remaining_us = estimate_remaining(slot, view);
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
	char	   *database = get_database_name(view->database);
	Datum		values[14];
	bool		nulls[14] = {false};

	values[0] = Int32GetDatum(view->pid);
	values[1] = DirectFunctionCall1(namein, CStringGetDatum(database ? database : ""));
	values[2] = Int64GetDatum(view->run_id);
	nulls[2] = view->run_id == 0;
	values[3] = CStringGetTextDatum(view->trigger);
	values[4] = BoolGetDatum(view->dry_run);
	values[5] = CStringGetTextDatum(view->phase);
	for (int i = 0; i < PROGRESS_COUNTERS; i++)
		values[6 + i] = Int64GetDatum(view->counters[i]);
	values[11] = TimestampTzGetDatum(view->started_at);
	values[12] = make_interval_us(view->now - view->started_at);
	values[13] = make_interval_us(view->remaining_us);
	nulls[13] = view->remaining_us < 0;
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
		if (slots[i].pid != 0)
			read_slot(&slots[i], &views[n++]);
	LWLockRelease(slots_lock);
	for (int i = 0; i < n; i++)
		put_view(&views[i], rows, desc);
}

void
progress_tick(void)
{
	ProgressView view;

	CHECK_FOR_INTERRUPTS();
	if (MyBackendType == B_BG_WORKER && !PostmasterIsAlive())
		proc_exit(1);
	if (mine == NULL || !tell_client || time_monotonic_us() - told_at < TELL_EVERY_US)
		return;
	told_at = time_monotonic_us();
	read_slot(mine, &view);
	ereport(INFO,
			(errmsg("cleanup run is in phase \"%s\": %lld files walked, %lld matched, %lld condemned, %lld done, %.2f MiB freed",
					view.phase, (long long) view.counters[PROGRESS_WALKED],
					(long long) view.counters[PROGRESS_MATCHED],
					(long long) view.counters[PROGRESS_CONDEMNED],
					(long long) view.counters[PROGRESS_DONE],
					(double) view.counters[PROGRESS_BYTES] / (1024 * 1024))));
}
