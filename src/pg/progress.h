/*-------------------------------------------------------------------------
 *
 * pg/progress.h
 *	  The progress of the run that this process makes, for other sessions to see.
 *
 * If the library is preloaded, the figures are in shared memory, one slot for
 * each run under way.  If not, the figures are in this process only, and INFO
 * messages show the figures to the caller of cleanup_run().
 *
 * A process has at most one run under way.  A run that begins inside another
 * run (a view that cleans up) is part of the outer run.  None of these
 * functions needs SPI.  Only progress_begin(), progress_tick() and
 * progress_look() can raise an ERROR.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_PROGRESS_H
#define AUDIO_CLEANUP_PROGRESS_H

#include "access/tupdesc.h"
#include "utils/tuplestore.h"

typedef enum ProgressPhase
{
	PHASE_STARTING,
	PHASE_WALKING,				/* walks the upload directory */
	PHASE_MATCHING,				/* compares rows with files */
	PHASE_JUDGING,				/* judges files without a reference, and
								 * failed sessions */
	PHASE_WAITING,				/* waits for transactions that write to a
								 * source */
	PHASE_CONDEMNING,
	PHASE_CAPTURING,			/* moves files into the trash */
	PHASE_DELETING
} ProgressPhase;

typedef enum ProgressFigure
{
	PROGRESS_WALKED,			/* audio files seen */
	PROGRESS_MATCHED,			/* files of these that a row refers to */
	PROGRESS_CONDEMNED,			/* files to be deleted or restored, as known
								 * so far */
	PROGRESS_DONE,				/* files of these that are finished */
	PROGRESS_BYTES,				/* bytes given back to the file system */
	PROGRESS_RUN,				/* run_id; 0: not known yet */
	PROGRESS_PHASE,				/* see progress_set_phase() */
	PROGRESS_WORK_BEGAN,		/* time when the first file was moved or
								 * deleted; 0: not yet */
	PROGRESS_FIGURES
} ProgressFigure;

/* Requests the shared memory. _PG_init() calls this once. */
extern void progress_init(void);

/*
 * Begins a run.  The run is over when the current memory context is reset or deleted, by an
 * ERROR too, or when the process ends.  `trigger` is a value of
 * cleanup_runs.trigger.  With `tell` the client gets INFO messages if there
 * is no shared memory.
 */
extern void progress_begin(const char *trigger, bool dry_run, bool tell);

/*
 * These functions set figures of the run under way: its phase, a figure, or an
 * increment of a figure.  Without a run under way the functions do nothing.
 */
extern void progress_set_phase(ProgressPhase phase);
extern void progress_set(ProgressFigure figure, int64 value);
extern void progress_add(ProgressFigure figure, int64 increment);

/*
 * Counts a file of `bytes` bytes as done, if `run_id` is the run under way.
 * The process may drain files of other runs meanwhile.
 */
extern void progress_add_done(int64 run_id, int64 bytes);

/*
 * Does what is due between two files: takes interrupts, notices the death of
 * the postmaster in a background worker, and tells the client now and then.
 * An interrupt is an ERROR.
 */
extern void progress_tick(void);

/*
 * Puts a row of cleanup_progress(), with the descriptor `desc`, into `rows` for
 * each run under way in the cluster.
 */
extern void progress_look(Tuplestorestate *rows, TupleDesc desc);

/* Returns whether the figures are in shared memory. */
extern bool progress_is_shared(void);

#endif							/* AUDIO_CLEANUP_PROGRESS_H */
