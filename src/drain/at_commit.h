/*-------------------------------------------------------------------------
 *
 * drain/at_commit.h
 *	  What is done to files when the current transaction commits.
 *
 * All of it is forgotten if the transaction, or the subtransaction that asked
 * for it, rolls back; at PREPARE TRANSACTION too: the rows in cleanup_files
 * tell what is to be done, and the next run drains them.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_AT_COMMIT_H
#define AUDIO_CLEANUP_AT_COMMIT_H

#include "src/ledger/condemned.h"
#include "src/guard/location.h"
#include "src/store/store.h"

/* So many files of a run are captured by the commit callback itself. */
#define AT_COMMIT_FILES	10000

/*
 * Captures the first AT_COMMIT_FILES of these files.  Makes the commit a
 * synchronous one.  Their rows are in cleanup_files already.
 */
extern void at_commit_capture(const Place *place, int64 run_id, Condemned *condemned);

/* Returns whether the current transaction waits to capture files of this run. */
extern bool at_commit_has_run(int64 run_id);

/* Returns whether the transaction waits to capture or destroy files of this run. */
extern bool at_commit_takes_from(int64 run_id);

/*
 * Writes this claim, replacing another one or not, before any file is
 * captured.  If that fails, none is: they stay pending.
 */
extern void at_commit_claim(const Place *place, const char *text, bool replace);

/* The work to be done on each file of a batch. */
typedef enum AtCommitAction
{
	AT_COMMIT_CLAIM,			/* the only path is the text of the claim */
	AT_COMMIT_CLAIM_REPLACING,
	AT_COMMIT_CAPTURE,
	AT_COMMIT_DESTROY,
	AT_COMMIT_PUT_BACK,
	AT_COMMIT_REMOVE_FOLDERS,	/* the paths are those of folders: see
								 * store_remove_folders() */
	AT_COMMIT_ACTIONS
} AtCommitAction;

/*
 * Begins a batch of a run's files, in the current memory context; adds a file
 * to it, with the name under which it is put back, or NULL; and hands it over
 * to the commit.
 */
typedef struct Batch Batch;

extern Batch *at_commit_begin(const Place *place, int64 run_id, AtCommitAction action);
extern void at_commit_add(Batch *batch, const char *path, const char *as,
						  const FileIdentity *identity);
extern void at_commit_end(Batch *batch);

/*
 * Starts a background worker of this database with the commit; it drains what is left to be
 * done, and waits for the run lock that this transaction holds.
 */
extern void at_commit_start_worker(void);

/* Starts that worker at once, for a run that has failed between two transactions. */
extern void at_commit_start_worker_now(void);

#endif							/* AUDIO_CLEANUP_AT_COMMIT_H */
