/*-------------------------------------------------------------------------
 *
 * drain/drain.h
 *	  Carries out, and records, what committed runs have condemned.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_DRAIN_H
#define AUDIO_CLEANUP_DRAIN_H

#include "src/drain/pace.h"
#include "src/guard/brake.h"
#include "src/guard/location.h"
#include "src/ledger/ledger.h"
#include "src/settings.h"
#include "src/store/store.h"

typedef struct Drain Drain;

/*
 * Opens the directory of a run for somebody who restores its files, in his
 * transaction.  NULL, and *brake, if the directory cannot be opened or is not
 * ours.  Needs SPI, as all of these.
 */
extern Drain *drain_open(const Extension *extension, const LedgerWork *work, Brake **brake);
extern void drain_end(Drain *drain);

/*
 * Returns the open directory of the run, where its files are, and by which
 * rules they were matched.
 */
extern FileStore *drain_store(const Drain *drain);
extern const KeyRules *drain_rules(const Drain *drain);
extern const Place *drain_place(const Drain *drain);

/*
 * Returns whether a file of its size and mtime is at this path, for what is in
 * the trash no more.  The answer will be durable.
 */
extern bool drain_is_found_at(const Drain *drain, const char *path, const LedgerFile *file);

/* Returns for people where the run's captured files lie, below the upload directory or not. */
extern const char *drain_trash_path(const Place *place, int64 run_id);

/*
 * How the transactions of a drain begin and end.  begin() takes the run lock,
 * and returns false if nothing may be done any more; commit() commits.
 */
typedef struct DrainTransactions
{
	bool		(*begin) (void *arg);
	void		(*commit) (void *arg);
	void	   *arg;
} DrainTransactions;

/*
 * Deals with the files of a run, in steps of about half a second (of two where
 * the disk is slow to sync) besides the reading of the sources, each a
 * transaction: whoever waits for a lock of ours gets it.  begin() was called; the last thing that is called is commit().
 * With `pace` not NULL that pace holds, and the drain ends when it is over.
 * With `finish` false the run itself is not marked as done.  Returns whether
 * files wait for a writer.  If the directory cannot be opened, or is not ours,
 * a WARNING says so, and the rows stay as they are.
 */
extern bool drain_run(const Extension *extension, const LedgerWork *work, const Pace *pace,
					  bool finish, const DrainTransactions *transactions);

/*
 * Marks a run as done, and writes its line into the server log, if none of its
 * files is left to be dealt with.  Returns whether this call did so.
 */
extern bool drain_finish_run(const Extension *extension, int64 run_id);

/*
 * Before a run in somebody's transaction: brings forward what earlier,
 * committed runs have left undone.  What has happened is recorded; what is
 * still to be done to files is done when the transaction commits, because
 * its own changes, which may be rolled back, decide about them too.  The
 * caller has the run lock.
 */
extern void drain_in_transaction(const Extension *extension);

#endif							/* AUDIO_CLEANUP_DRAIN_H */
