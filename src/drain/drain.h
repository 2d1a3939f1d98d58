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
 * drain_make() returns a drain of a run, in the current memory context; with
 * `at_commit` for work in the transaction of a caller, whose commit alone
 * touches files.  drain_open() opens the directory of the run.  Returns NULL, or
 * a brake if the directory cannot be opened or is not ours.  drain_end() closes
 * the directory; the caller of drain_open() calls drain_end(), also after an
 * ERROR.  Needs SPI, as drain_run(), drain_finish_run() and
 * drain_in_transaction().
 */
extern Drain *drain_make(const Extension *extension, const LedgerWork *work, bool at_commit);
extern Brake *drain_open(Drain *drain);
extern void drain_end(Drain *drain);

/* Returns the open directory of the run. */
extern FileStore *drain_store(const Drain *drain);

/*
 * Returns whether `path` is this file, by its inode and birth time, or a file
 * with the size and mtime of `file`: for a file that is not in the trash any
 * more.  The next store_sync() makes the answer durable.
 */
extern bool drain_is_found_at(const Drain *drain, const char *path, const LedgerFile *file);

/*
 * Returns whether the trash has a file under the name of `file`; the caller
 * knows that it has not the size and mtime of `file`: somebody has written into
 * the file.
 */
extern bool drain_is_changed(Drain *drain, const LedgerFile *file);

/*
 * Returns the folder that has the captured files of the run, a text for people,
 * palloc'd: relative to the upload directory, or absolute in the backup
 * directory.
 */
extern const char *drain_trash_path(const Place *place, int64 run_id);

/*
 * The functions that begin and end the transactions of a drain.  begin()
 * begins a transaction, and takes the run lock.  If the drain must end,
 * begin() returns false, and no transaction is open.  commit() commits the
 * transaction.
 */
typedef struct DrainTransactions
{
	bool		(*begin) (void *arg);
	void		(*commit) (void *arg);
	void	   *arg;
} DrainTransactions;

/*
 * Deals with the files of a run in steps.  Each step is a transaction of about
 * half a second (two seconds if the disk is slow to sync), besides the reading
 * of the sources, so that other processes get the locks.  begin() must have
 * been called; the last call is commit().  If `pace` is not NULL, the drain
 * goes by this pace, and ends when its time is over; else by the settings of
 * the run.  With `finish` the run is marked as done at its end.  Returns
 * whether files wait for a writer, so that the drain should be repeated later.
 * If the directory cannot be opened, or is not ours, a WARNING says so, and
 * the rows do not change.
 */
extern bool drain_run(const Extension *extension, const LedgerWork *work, const Pace *pace,
					  bool finish, const DrainTransactions *transactions);

/*
 * Marks a run as done, notifies listeners and the recipients of mail, and
 * writes its line into the server log, if all of its files have been dealt
 * with.  Returns whether this call marked the run.  Corrects the figures of a
 * run that was done before.
 */
extern bool drain_finish_run(const Extension *extension, int64 run_id);

/*
 * Continues, before a run in the transaction of the caller, the work that
 * earlier, committed runs have left.  Records what has happened to files.  The
 * commit of the transaction does the remaining work on the files, because
 * changes of this transaction, which may be rolled back, decide about these
 * files, too.  The caller has the run lock.
 */
extern void drain_in_transaction(const Extension *extension);

#endif							/* AUDIO_CLEANUP_DRAIN_H */
