/*-------------------------------------------------------------------------
 *
 * run/run.h
 *	  One run, or its undoing, from beginning to end.
 *
 * Results are reports, allocated in the current memory context.  A brake or a
 * failure is an ERROR.  Functions connect to SPI themselves, unless a comment
 * says otherwise.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_RUN_H
#define AUDIO_CLEANUP_RUN_H

#include "utils/jsonb.h"

#include "src/ledger/ledger.h"
#include "src/plan/plan.h"

/*
 * The run that is previewed.  The kind of run decides about some of the
 * brakes.
 */
typedef enum RunPreview
{
	PREVIEW_OF_STATUS,			/* the next night's run, in a report of
								 * cleanup_status() */
	PREVIEW_OF_CALL,			/* a run in the transaction of the caller */
	PREVIEW_OF_RUN				/* a run that commits in batches */
} RunPreview;

/*
 * Previews a run that cleans `what`, for cleanup_status() and the dry runs.
 * Changes nothing.  With `force`, ignores the brakes that count files.
 * Brakes are part of the report.
 */
extern Jsonb *run_preview(CleanWhat what, bool force, RunPreview of);

/*
 * Makes a real run in the current transaction: the condemned files leave the
 * directory when the transaction commits.
 */
extern Jsonb *run_in_transaction(CleanWhat what, bool force);

/*
 * Begins a new transaction in READ COMMITTED, if
 * default_transaction_isolation has given the current transaction one
 * snapshot for all its statements.  Must be called by a procedure that may
 * commit, before anything else.
 */
extern void run_take_read_committed(void);

/*
 * Makes the run in batches of CALL cleanup_run(), and then forgets old
 * history.  The context of the call must not be atomic.
 */
extern Jsonb *run_procedure(bool force);

/* The order for a run in batches. */
typedef struct RunRequest
{
	CleanWhat	what;
	bool		force;
	const char *trigger;		/* a value of cleanup_runs.trigger */
	int32		scheduled_for;	/* LEDGER_NO_DAY, or the day of the schedule */
	void		(*commit) (void);	/* commits and begins a transaction; must
									 * leave SPI connected and the current
									 * memory context unchanged */
	bool		records_failure;	/* the caller calls run_record_failure() */
	int64		run_id;			/* set when the beginning of the run is
								 * committed; 0 before */
	bool		leaves_work;	/* set if the run has ended by an ERROR, and a
								 * worker has to finish it */
} RunRequest;

/*
 * Makes a real run that commits in batches.  Returns the outcome of its
 * files.  SPI must be connected, and the current memory context must outlive
 * the transactions.  The beginning of the run is committed before the run
 * looks at a file.  If the run is refused or fails, the reason is committed
 * before the ERROR is raised; except if files could not be dealt with, in steps
 * that commit themselves: then a caller that can begin a new transaction calls
 * run_record_failure().
 */
extern Jsonb *run_in_batches(RunRequest *request);

/*
 * Records, in the current transaction, that the run of `request`, with
 * records_failure, has ended by `error`, unless the run has recorded its end
 * itself.  The run must have a run_id.  Starts a worker that finishes the run.  Must be called in a
 * transaction that has begun after the ERROR.  Needs SPI; any failure is an
 * ERROR.
 */
extern void run_record_failure(const Extension *extension, const RunRequest *request, const ErrorData *error);

/* Makes this database the owner of the upload directory, for cleanup_claim_upload_dir(). */
extern void run_take_over(void);

/* The main function of the worker that drains.  `database` is the OID of the database. */
extern PGDLLEXPORT void cleanup_drain_worker_main(Datum database);

/*
 * restore_run() puts back the files that the run `run_id` has cleaned.
 * restore_file() puts back the newest backup of `file` (a name as a person
 * writes it), under its own name, or under `as` unless `as` is NULL.  Each
 * function raises an ERROR if there is no such run or backup, or if the
 * directory is not ours.
 */
extern Jsonb *restore_run(int64 run_id);
extern Jsonb *restore_file(const char *file, const char *as);

/*
 * Makes the commit of the transaction destroy the backups that have expired,
 * except backups that are needed again.
 */
extern Jsonb *purge_backups(void);

#endif							/* AUDIO_CLEANUP_RUN_H */
