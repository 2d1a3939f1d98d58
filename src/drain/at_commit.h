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
#include "src/settings.h"

/* So many files of a run are captured by the commit callback itself. */
#define AT_COMMIT_FILES	10000

/*
 * Capture the first AT_COMMIT_FILES of these files.  Makes the commit a
 * synchronous one.  Their rows are in cleanup_files already.
 */
extern void at_commit_capture(const Settings *settings, int64 run_id, Condemned *condemned);

/* Does the current transaction wait to capture files of this run? */
extern bool at_commit_has_run(int64 run_id);

/* Does it wait to capture or destroy files of this run? */
extern bool at_commit_takes_from(int64 run_id);

/*
 * Write this claim, replacing another one or not, before any file is
 * captured.  If that fails, none is: they stay pending.
 */
extern void at_commit_claim(const Settings *settings, const char *text, bool replace);

/* Capture, destroy, or put back, one file after another: begin, add, and end. */
typedef struct Batch Batch;

typedef enum AtCommitAction
{
	AT_COMMIT_CAPTURE,
	AT_COMMIT_DESTROY,
	AT_COMMIT_PUT_BACK,
	AT_COMMIT_REMOVE_FOLDERS	/* the paths are those of folders: see
								 * store_remove_folders() */
} AtCommitAction;

extern Batch *at_commit_begin(const Settings *settings, int64 run_id, AtCommitAction action);
extern void at_commit_add(Batch *batch, const char *path, const FileIdentity *identity);
extern void at_commit_add_as(Batch *batch, const char *path, const char *as,
							 const FileIdentity *identity); /* to put back */
extern void at_commit_end(Batch *batch);

/*
 * Start a background worker of this database, which drains what is left to be
 * done.  It waits for the run lock that this transaction holds.
 */
extern void at_commit_start_worker(void);

/* The same at once, for a run that has failed between two transactions. */
extern void at_commit_start_worker_now(void);

/* Register the transaction callbacks.  To be called once, from _PG_init(). */
extern void at_commit_init(void);

#endif							/* AUDIO_CLEANUP_AT_COMMIT_H */
