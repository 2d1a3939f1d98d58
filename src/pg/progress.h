/*-------------------------------------------------------------------------
 *
 * pg/progress.h
 *	  How far is the run that this process makes, for others to see.
 *
 * With the library in shared_preload_libraries the figures are in shared
 * memory, one slot for each run under way.  Without it they are in this
 * process only, and the caller of cleanup_run() is told by INFO messages.
 *
 * A process has at most one run under way; what calls itself again (a view
 * that cleans up) is part of the outer one.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_PROGRESS_H
#define AUDIO_CLEANUP_PROGRESS_H

#include "datatype/timestamp.h"

typedef enum ProgressPhase
{
	PHASE_STARTING,
	PHASE_WALKING,				/* the upload directory */
	PHASE_MATCHING,				/* rows against files */
	PHASE_JUDGING,				/* files without a reference, and failed
								 * sessions */
	PHASE_WAITING,				/* for transactions that write to a source */
	PHASE_CONDEMNING,
	PHASE_CAPTURING,			/* into the trash */
	PHASE_DELETING,
	PHASE_LAST = PHASE_DELETING
} ProgressPhase;

typedef enum ProgressCounter
{
	PROGRESS_WALKED,			/* audio files seen */
	PROGRESS_MATCHED,			/* of these, referred to by a row */
	PROGRESS_CONDEMNED,			/* files to be dealt with, as known so far */
	PROGRESS_DONE,				/* of these, dealt with */
	PROGRESS_BYTES,				/* given back to the file system */
	PROGRESS_COUNTERS
} ProgressCounter;

/* Asks for shared memory; called once, from _PG_init(). */
extern void progress_init(void);

/*
 * Begins a run; the run is over when `context` is reset or deleted, by an
 * ERROR too, or when the process ends. `trigger` is one of
 * cleanup_runs.trigger.  With `tell` the client gets INFO messages where there
 * is no shared memory.
 */
extern void progress_begin(MemoryContext context, const char *trigger, bool dry_run, bool tell);

/* Set figures of the run under way; without one they do nothing. */
extern void progress_set_run(int64 run_id);
extern void progress_set_phase(ProgressPhase phase);
extern void progress_set(ProgressCounter counter, int64 value);
extern void progress_add(ProgressCounter counter, int64 increment);

/*
 * Counts a file as done, if run_id is that of the run under way: other runs
 * are drained on the way.
 */
extern void progress_add_done(int64 run_id, int64 bytes);

/*
 * Does what is due between two files: takes interrupts, notices the death of
 * the postmaster in a background worker, and tells the client now and then.
 */
extern void progress_tick(void);

/* longest name of a trigger, and its NUL */
#define PROGRESS_TRIGGER_MAX	16

/* A run under way, as others see it. */
typedef struct ProgressView
{
	int			pid;
	Oid			database;
	int64		run_id;			/* 0: not known yet */
	char		trigger[PROGRESS_TRIGGER_MAX];
	bool		dry_run;
	const char *phase;
	int64		counters[PROGRESS_COUNTERS];
	TimestampTz started_at;
	TimestampTz now;
	int64		remaining_us;	/* estimate; -1: none */
} ProgressView;

/* Calls look(view, arg) for each run under way in the cluster. */
extern void progress_look(void (*look) (const ProgressView *view, void *arg), void *arg);

/* Returns whether there is shared memory. */
extern bool progress_is_shared(void);

#endif							/* AUDIO_CLEANUP_PROGRESS_H */
