/*-------------------------------------------------------------------------
 *
 * ledger/ledger.h
 *	  The extension's own tables: runs, files, backups, history.
 *
 * This header has the tables of runs and their files: runs.c, files.c,
 * uploads.c, outcome.c, notify.c and history.c implement its functions.  Every
 * function needs SPI and acts as the owner of the extension.  Any failure is an
 * ERROR.  Results are allocated in the current memory context, and lists have
 * elements of char *, unless a comment says otherwise.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_LEDGER_H
#define AUDIO_CLEANUP_LEDGER_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

#include "src/ledger/condemned.h"
#include "src/pg/extension.h"
#include "src/settings.h"

/*
 * A sum that is too large for a bigint becomes the largest bigint, because no
 * figure may stop the work.
 */
#define LEDGER_MAX_BYTES	"9223372036854775807"
#define LEDGER_SUM_OF(column) \
	"least(coalesce(pg_catalog.sum(" column "), 0), " LEDGER_MAX_BYTES ")::bigint"

/* The run was not started by the schedule. */
#define LEDGER_NO_DAY	PG_INT32_MIN

/*
 * Inserts a run of `what`, with the trigger `trigger`, by the outer user, with
 * the settings of `context`.  With `batches` the run works in batches, and
 * further files may follow.  `scheduled_for` is the day of the schedule that
 * this run is for, as a PostgreSQL date, or LEDGER_NO_DAY.  Returns its run_id.
 */
extern int64 ledger_begin_run(const Context *context, const char *what, const char *trigger,
							  int32 scheduled_for, bool batches);

/*
 * Records, before the first file of the run, the UUID `claim` of the claim on
 * the run's directory, and `backup_owner`, the UUID that names the run's
 * folder of the backup directory (NULL: no such folder).  Another database may
 * take the claim later, and the backups must still be found.
 */
extern void ledger_set_claim(const Extension *extension, int64 run_id, const char *claim,
							 const char *backup_owner);

/*
 * Inserts a row in state pending for each condemned file, and adds their
 * numbers to the run.  A file that has failed in an earlier run already has a
 * row, which becomes a row of this run.  The files are due in `backup_days`
 * days.  The file_ids have the order of the set, so that the files that are
 * captured at commit are the first.
 */
extern void ledger_add_files(const Extension *extension, int64 run_id,
							 Condemned *condemned, int backup_days);

/*
 * Returns whether a file of the run is still to be dealt with, or is to be
 * looked at once more before it is kept as a backup.
 */
extern bool ledger_has_work(const Extension *extension, int64 run_id);

/*
 * Records that the run has seen all files, and has met `n` errors that are about
 * none of its files, with `message`, a text for people, or NULL.  A run with
 * such errors ends as 'failed'.  A run in batches gets no more files.
 */
extern void ledger_end_search(const Extension *extension, int64 run_id, int64 n, const char *message);

/*
 * Records that a run in batches gets no more files, although not all files
 * have been seen, and the reason `message` (a text for people).  A run
 * without files is over now, with the status `status`.  Otherwise the run is
 * over when its files have been dealt with, as 'failed' or 'interrupted'.
 * Returns false if the run was over already, or was going to be: then an earlier
 * reason stays.
 */
extern bool ledger_cut_short(const Extension *extension, int64 run_id, const char *status,
							 const char *message);

/*
 * Records that the files of the run up to `file_id` that are pending without
 * an error are in the trash.  So the files need not be recorded one by one.
 */
extern void ledger_set_captured(const Extension *extension, int64 run_id, int64 file_id);

/* A run that has files to be dealt with. */
typedef struct LedgerWork
{
	int64		run_id;
	const char *trigger;
	int64		files;			/* files condemned so far */
	const char *upload_dir;		/* path at which the run's directory was seen
								 * last */
	const char *claim;			/* UUID of the claim on that directory, or
								 * NULL */
	Jsonb	   *settings;
	bool		looked;			/* see ledger_set_looked() */
} LedgerWork;

/*
 * Returns the runs (LedgerWork *) that have files pending or due, or that have
 * no such files and are not marked as finished, oldest first.  Returns only
 * the run `only_run`, unless `only_run` is 0.
 */
extern List *ledger_unfinished_runs(const Extension *extension, int64 only_run);

/*
 * Returns the run `run_id`, whatever its state, or NULL if there is no such
 * run.
 */
extern LedgerWork *ledger_run(const Extension *extension, int64 run_id);

/* A row of cleanup_files whose file is to be moved, destroyed or put back. */
typedef struct LedgerFile
{
	int64		file_id;
	const char *path;
	const char *upload_id;		/* of an upload that was never completed, or
								 * NULL */
	FileIdentity identity;
	TimestampTz condemned_at;
	bool		unsettled;		/* the file is pending or due */
	const char *source;			/* source of the failed session, or NULL */
	const char *session;
	const char *note;			/* error that the row has now, or NULL */
	const char *restore_as;		/* name to put the file back under; NULL: its
								 * own name */
	bool		is_backup;		/* the file was to be kept for some days */
	bool		is_held;		/* cleanup_hold() holds the file */
	const char *new_state;		/* state to be recorded; NULL: the row does
								 * not change */
	const char *error;			/* error to be recorded, or NULL */
	int64		freed;
} LedgerFile;

/* Returns the name under which the file is put back. */
static inline const char *
ledger_target(const LedgerFile *file)
{
	return file->restore_as ? file->restore_as : file->path;
}

typedef enum LedgerKind
{
	LEDGER_PENDING,				/* pending, and not known to be captured */
	LEDGER_TRASHED,				/* in the trash: state trashed, or pending and
								 * known to be captured */
	LEDGER_DUE,					/* trashed, and its days are over */
	LEDGER_RESTORABLE,			/* trashed, due or not; or pending, because a
								 * captured file may not be recorded yet */
	LEDGER_RESTORING,
	LEDGER_RETURNING,			/* of a failed session, and being restored, or
								 * restored */
	LEDGER_UPLOADS				/* pending uploads; all other kinds are files */
} LedgerKind;

/*
 * Returns an array of at most `limit` files of the run that are of the kind
 * `kind` and have a file_id greater than `after`, in the order of file_id.
 * Sets *n to their number.
 */
extern LedgerFile *ledger_files(const Extension *extension, int64 run_id, LedgerKind kind,
								int64 after, int limit, int *n);

/*
 * Returns an array of the files of the kind `kind` among the `n_ids` files
 * `file_ids` (ascending) of the run, in the order of file_id.  Sets *n to
 * their number.
 */
extern LedgerFile *ledger_pick(const Extension *extension, int64 run_id, LedgerKind kind,
							   const int64 *file_ids, int n_ids, int *n);

/* Returns whether no file of the run is to be captured, or lies in the trash, or is to be put back. */
extern bool ledger_is_settled(const Extension *extension, int64 run_id);

/*
 * Records the last look of a run.  With `looked`, all captured files of the
 * run were looked at after their capture, and every file that somebody needs
 * was put back.  Without `looked`, more files have been captured since.
 */
extern void ledger_set_looked(const Extension *extension, int64 run_id, bool looked);

/*
 * Records new_state, error, freed and restore_as of each of the `n` files of
 * the run that has a new_state.  `files` has the order of ledger_files().
 */
extern void ledger_record(const Extension *extension, int64 run_id, const LedgerFile *files, int n);

/*
 * Inserts a row, state pending, for each of these uploads (StoreUpload *) of
 * the directory with this claim (a UUID), and adds their number to the files
 * of the run.  An upload that could not be ended in an earlier run has a row
 * already, which becomes a row of this run.  An upload that another run is
 * still going to end stays with that run.  An upload whose path is held is
 * left out.  Returns how many rows the run has got.
 */
extern int64 ledger_add_uploads(const Extension *extension, int64 run_id, const char *claim, List *uploads);

/* The backups that have expired. */
typedef struct LedgerExpired
{
	List	   *files;			/* paths, at most `limit` */
	int64		n_files;
	int64		bytes;
} LedgerExpired;

/*
 * Sets *expired to the backups of the directory with this claim (a UUID, or
 * NULL: there are none) that have expired, with at most `limit` paths, and
 * without those in the backup directories `out_of_reach`, a list of char *.
 */
extern void ledger_expired(const Extension *extension, const char *claim, List *out_of_reach, int limit,
						   LedgerExpired *expired);

/*
 * Updates the figures of a run that has ended, after backups were destroyed
 * or put back.  Forgets the cleared values of sessions that nobody can
 * restore any more.
 */
extern void ledger_correct_run(const Extension *extension, int64 run_id);

/*
 * Marks the run as finished if none of its files is pending or due any more:
 * as done or failed, or as interrupted if the run was still running in
 * batches, because the process of such a run no longer holds the run lock.
 * Returns whether this call marked the run, and then writes the line of the run
 * into the server log.
 */
extern bool ledger_finish_run(const Extension *extension, int64 run_id);

/* The outcome of a run's files, for its report. */
typedef struct LedgerOutcome
{
	int			limit;			/* entries of each list, at most */
	List	   *orphans;		/* paths of orphans that have gone, sorted */
	int64		n_orphans;
	List	   *sessions;		/* failed sessions whose audio has gone */
	int64		n_sessions;
	List	   *errors;			/* errors, one for each folder and reason */
	int64		n_errors;
	int64		bytes;			/* bytes given back to the file system */
	int64		n_uploads;		/* uploads begun, never completed, and ended */
} LedgerOutcome;

/* Returns the folders from which the run has taken files, deepest first. */
extern List *ledger_folders(const Extension *extension, int64 run_id);

/* Sets the lists of *outcome, which has a limit, and the counts of all. */
extern void ledger_outcome(const Extension *extension, int64 run_id, LedgerOutcome *outcome);

/*
 * Makes the commit of the current transaction notify listeners (LISTEN) how the
 * run `run_id` has ended.  Does nothing if the run has not ended.  A rollback to
 * an earlier savepoint takes the notice back, and PREPARE TRANSACTION notifies
 * nobody.
 */
extern void notify_run(const Extension *extension, int64 run_id);

/*
 * Forgets the next portion of the history that is older than
 * audio_cleanup.history_retention_days.  Returns whether more of that history
 * may be left.  The caller repeats the call until the result is false, each
 * time in a transaction of its own, and without the run lock.  A failure is a
 * WARNING, not an ERROR: no cleanup fails because of the history.
 */
extern bool history_prune(const Extension *extension);

#endif							/* AUDIO_CLEANUP_LEDGER_H */
