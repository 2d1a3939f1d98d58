/*-------------------------------------------------------------------------
 *
 * drain/at_commit.h
 *	  Work on files that the commit of the current transaction does.
 *
 * The work is forgotten if the transaction, or the subtransaction that has
 * asked for the work, rolls back; also at PREPARE TRANSACTION.  The rows in
 * cleanup_files tell what is to be done, and the next run drains these rows.
 * Any failure before the commit is an ERROR.
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

/* files that the commit callback itself captures or puts back, at most */
#define AT_COMMIT_FILES	10000

/*
 * Captures the first AT_COMMIT_FILES of these files of the run `run_id`.  Their
 * rows must be in cleanup_files already.  Makes the commit synchronous.
 */
extern void at_commit_capture(const Place *place, int64 run_id, Condemned *condemned);

/* Returns whether the commit of the current transaction will capture files of this run. */
extern bool at_commit_has_run(int64 run_id);

/* Returns whether the commit of the current transaction will capture or destroy files of this run. */
extern bool at_commit_takes_from(int64 run_id);

/* Returns whether the commit of the current transaction will destroy the backup of the file `path`. */
extern bool at_commit_destroys(const char *path);

/*
 * Writes the claim `text`, with `replace` over another claim, before any file
 * is captured.  If the claim cannot be written, no file is captured: the files
 * stay pending.  Starts a worker, see at_commit_start_worker().
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
	AT_COMMIT_REMOVE_FOLDERS	/* the paths are paths of folders: see
								 * store_remove_folders() */
} AtCommitAction;

/*
 * Makes the commit do this work on the file `path` of the run `run_id` in
 * `place`.  `as` is the name under which the file is put back, or NULL.  All
 * arguments are copied.  Makes the commit synchronous, which does the actions of a
 * run in the order in which the first file of each was added.
 */
extern void at_commit_add(const Place *place, int64 run_id, AtCommitAction action, const char *path,
						  const char *as, const FileIdentity *identity);

/*
 * Makes the commit start a background worker, which drains all runs of this
 * database that have files left.  The worker waits for the run lock that this
 * transaction has.
 */
extern void at_commit_start_worker(void);

/*
 * Starts that worker at once, for a run that has failed between two
 * transactions.  A WARNING says so if no worker is free.
 */
extern void at_commit_start_worker_now(void);

#endif							/* AUDIO_CLEANUP_AT_COMMIT_H */
