/*-------------------------------------------------------------------------
 *
 * execute.h
 *	  Carrying out what was condemned: after commit, and by draining.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_EXECUTE_H
#define AUDIO_CLEANUP_EXECUTE_H

#include "src/condemned.h"
#include "src/extension.h"
#include "src/settings.h"

/* So many files of a run are captured by the commit callback itself. */
#define EXECUTE_AT_COMMIT	10000

/*
 * Have the first EXECUTE_AT_COMMIT of these files captured when the current
 * transaction has committed, and forgotten if it, or the subtransaction,
 * rolls back.  Makes the commit a synchronous one.  Their rows are in
 * cleanup_files already.
 */
extern void execute_at_commit(const Settings *settings, int64 run_id, Condemned *condemned);

/*
 * Have a background worker of this database started when the current
 * transaction commits, to drain what it leaves to be done.  Where there is no
 * free slot, a WARNING says so.
 */
extern void execute_start_worker_at_commit(void);

/* One step of draining a run; see execute_drain_step(). */
typedef enum DrainPhase
{
	DRAIN_CAPTURE,				/* pending -> trashed (skipped, failed) */
	DRAIN_DESTROY,				/* due -> deleted */
	DRAIN_FINISH,				/* the run itself */
	DRAIN_DONE
} DrainPhase;

typedef struct Drain
{
	const Extension *extension;
	int64		run_id;
	Settings   *settings;		/* the run's */
	FileStore  *store;
	DrainPhase	phase;
	int64		after;			/* file_id up to which the phase has come */
} Drain;

/*
 * Begin draining a run in the current memory context.  Returns NULL, with a
 * WARNING, if its directory cannot be opened: its rows stay as they are.
 */
extern Drain *execute_begin_drain(const Extension *extension, int64 run_id,
								  const char *upload_dir, Jsonb *settings);
extern void execute_end_drain(Drain *drain);

/*
 * Deal with the next files of the run.  Must be called under the run lock,
 * with SPI, and the transaction must be committed before the next step:
 * nothing is destroyed that was not recorded as trashed by a commit before.
 * With `finish` false the run itself is not marked as done.  Returns false
 * when there is nothing left to do.
 */
extern bool execute_drain_step(Drain *drain, bool finish);

/*
 * Mark a run as done, and write its line into the server log, if none of its
 * files is left to be dealt with.  Needs SPI.
 */
extern void execute_finish_run(const Extension *extension, int64 run_id);

/*
 * Before a run in somebody's transaction: bring forward what earlier,
 * committed runs have left undone.  Files are captured and recorded now, and
 * destroyed when the transaction commits.  Needs SPI and the run lock.
 */
extern void execute_drain_in_transaction(const Extension *extension);

/* Register the transaction callbacks.  To be called once, from _PG_init(). */
extern void execute_init(void);

#endif							/* AUDIO_CLEANUP_EXECUTE_H */
