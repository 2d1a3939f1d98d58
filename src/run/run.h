/*-------------------------------------------------------------------------
 *
 * run/run.h
 *	  A run from beginning to end: plan, record, carry out, report.
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

/* What a preview is a preview of: that decides what would stand in its way. */
typedef enum RunPreview
{
	PREVIEW_OF_STATUS,			/* the next night's run; with the report of
								 * cleanup_status() */
	PREVIEW_OF_CALL,			/* a run in the transaction of the caller */
	PREVIEW_OF_RUN				/* a run that commits in batches */
} RunPreview;

/* cleanup_status() and the dry runs: decides, and changes nothing. */
extern Jsonb *run_preview(CleanWhat what, bool force, RunPreview of);

/*
 * Makes a real run in the current transaction: the condemned files leave the
 * directory when that commits.
 */
extern Jsonb *run_in_transaction(CleanWhat what, bool force, const char *trigger);

/*
 * For a procedure that may commit, before anything else: begins a new
 * transaction in READ COMMITTED, if default_transaction_isolation has given
 * the current one an older snapshot for all its statements.
 */
extern void run_take_read_committed(void);

/*
 * CALL cleanup_run(), in a context that is not atomic: a run in batches, after
 * which old history is forgotten.
 */
extern Jsonb *run_procedure(bool force);

/* A run in batches, as it is asked for. */
typedef struct RunRequest
{
	CleanWhat	what;
	bool		force;
	const char *trigger;		/* as in cleanup_runs */
	int32		scheduled_for;	/* LEDGER_NO_DAY, or the day of the schedule */
	void		(*commit) (void);	/* commits, begins a transaction, and
									 * leaves SPI connected and the current
									 * memory context what it was */
	int64		run_id;			/* set when it is recorded that the run has
								 * begun; 0 before */
} RunRequest;

/*
 * A real run that commits in batches, with SPI connected, and in a memory
 * context that outlives the transactions.  That it begins is committed before
 * it does, and why it was refused or failed, before the ERROR.  Returns what
 * has become of the files.
 */
extern Jsonb *run_in_batches(RunRequest *request);

/* cleanup_claim_upload_dir(): makes this database the directory's owner. */
extern void run_take_over(void);

#endif							/* AUDIO_CLEANUP_RUN_H */
