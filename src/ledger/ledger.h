/*-------------------------------------------------------------------------
 *
 * ledger/ledger.h
 *	  Our own tables; nobody else writes SQL on them.  Here: runs and their
 *	  files, implemented in runs.c, files.c, uploads.c and
 *	  outcome.c.
 *
 * Every function needs SPI and acts as the owner of the extension.
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

/* No figure stops work: a sum that is too large for a bigint is the largest one. */
#define LEDGER_MAX_BYTES	"9223372036854775807"
#define LEDGER_SUM_OF(column) \
	"least(coalesce(pg_catalog.sum(" column "), 0), " LEDGER_MAX_BYTES ")::bigint"

/* Not a run of the schedule. */
#define LEDGER_NO_DAY	PG_INT32_MIN

/* What is recorded of a run when it begins. */
typedef struct LedgerRun
{
	const char *what;
	const char *trigger;
	const char *requested_by;
	bool		batches;		/* further files may follow */
	int32		scheduled_for;	/* the day of the schedule that this run is
								 * of, as a PostgreSQL date; LEDGER_NO_DAY */
	const char *upload_dir;
	Jsonb	   *settings;
} LedgerRun;

/* Insert a run; returns its id. */
extern int64 ledger_begin_run(const Extension *extension, const LedgerRun *run);

/*
 * To be recorded before the first file of the run: the UUID of the claim whose
 * directory the run is in, and whose folder of the backup directory the files
 * go into (NULL: none).  The claim may change hands, and the backups must
 * still be found.
 */
extern void ledger_set_claim(const Extension *extension, int64 run_id, const char *claim,
							 const char *backup_owner);

/*
 * Insert a row for each condemned file, state pending, and add their numbers
 * to the run.  A file that has failed in an earlier run has a row already,
 * which becomes one of this run.  They are due when `backup_days` are over.  Their file_ids are
 * in the order of the set, so that those captured at commit are the first.
 */
extern void ledger_add_files(const Extension *extension, int64 run_id,
							 Condemned *condemned, int backup_days);

/* A run in batches will get no more files, because all have been seen. */
extern void ledger_end_batches(const Extension *extension, int64 run_id);

/*
 * The same before all were seen, and why (a text for people).  If it has no
 * files yet, then it is over, with this status; else it is when they have been
 * dealt with, as 'failed' or 'interrupted'.
 */
extern void ledger_cut_short(const Extension *extension, int64 run_id, const char *status,
							 const char *message);

/*
 * Records that the files of the run up to this file_id which are pending
 * without an error are known to be in the trash: that need not be said of each
 * of them.
 */
extern void ledger_set_captured(const Extension *extension, int64 run_id, int64 file_id);

/* A run that has files to be dealt with. */
typedef struct LedgerWork
{
	int64		run_id;
	const char *trigger;
	int64		files;			/* condemned so far */
	const char *upload_dir;		/* where its directory is now, as far as known */
	const char *claim;			/* of that directory, a UUID; or NULL */
	Jsonb	   *settings;
	bool		looked;			/* see ledger_set_looked() */
} LedgerWork;

/*
 * Runs, oldest first, that have files pending or due, or that are finished
 * and not marked so.  `only_run` limits it to one run; 0 is all.
 */
extern List *ledger_unfinished_runs(const Extension *extension, int64 only_run);

/* One run, whatever its state; NULL if there is none. */
extern LedgerWork *ledger_run(const Extension *extension, int64 run_id);

/* A row of cleanup_files whose file is to be dealt with. */
typedef struct LedgerFile
{
	int64		file_id;
	const char *path;
	FileIdentity identity;
	TimestampTz condemned_at;
	bool		unsettled;		/* pending or due */
	const char *source;			/* of the failed session, or NULL */
	const char *session;
	const char *note;			/* the row's error by now, or NULL */
	const char *restore_as;		/* NULL: its own name; may be set for
								 * restoring */
	bool		is_backup;		/* it was to be kept for some days */
	bool		is_held;		/* by cleanup_hold() */
	const char *new_state;		/* NULL: leave the row as it is */
	const char *error;			/* NULL: none */
	int64		freed;
} LedgerFile;

typedef enum LedgerKind
{
	LEDGER_PENDING,				/* and not known to be captured */
	LEDGER_TRASHED,				/* pending, and known to be captured, too */
	LEDGER_DUE,					/* trashed, and its days are over */
	LEDGER_RESTORABLE,			/* trashed, due or not; or pending, which may
								 * be so without having been recorded yet */
	LEDGER_RESTORING
} LedgerKind;

/*
 * At most `limit` files of a run, of this kind, with an id greater than
 * `after`, by id.  Sets *n; returns an array.
 */
extern LedgerFile *ledger_files(const Extension *extension, int64 run_id, LedgerKind kind,
								int64 after, int limit, int *n);

/*
 * Of the files of a run with these `n_ids` file_ids, ascending, those that are
 * of this kind, by id.  Sets *n; returns an array.
 */
extern LedgerFile *ledger_pick(const Extension *extension, int64 run_id, LedgerKind kind,
							   const int64 *file_ids, int n_ids, int *n);

/*
 * Records that all files that the run has captured were looked at afterwards,
 * and what somebody needs was put back; or that others have been captured
 * since.
 */
extern void ledger_set_looked(const Extension *extension, int64 run_id, bool looked);

/*
 * Record new_state, error and freed of those files of the run that have a
 * new_state.  They are in the order of their file_id, as ledger_files()
 * returned them.
 */
extern void ledger_record(const Extension *extension, int64 run_id, const LedgerFile *files, int n);

/* An upload that was begun and never completed: a row of cleanup_files, too. */
typedef struct LedgerUpload
{
	int64		file_id;
	const char *path;
	const char *upload_id;
	TimestampTz begun_at;
	TimestampTz condemned_at;
	bool		is_held;		/* by cleanup_hold() */
	const char *new_state;		/* NULL: leave the row as it is */
	const char *error;			/* NULL: none */
	int64		freed;			/* bytes of its parts */
} LedgerUpload;

/*
 * Inserts a row, state pending, for each of these uploads (LedgerUpload *) of
 * the directory with this claim (a UUID), and adds their number to the files
 * of the run.  An upload that could not be ended in an earlier run has a row
 * already, which becomes one of this run; one that another run has not come to
 * yet stays with it, and one whose path is held is left out.  Returns how many
 * rows the run has got.
 */
extern int64 ledger_add_uploads(const Extension *extension, int64 run_id, const char *claim, List *uploads);

/* Returns at most `limit` pending uploads of the run with an id greater than `after`, by id, as an array; sets *n. */
extern LedgerUpload *ledger_uploads(const Extension *extension, int64 run_id, int64 after, int limit, int *n);

/* Records new_state, error and freed of those of the `n` uploads that have a new_state. */
extern void ledger_record_uploads(const Extension *extension, int64 run_id, const LedgerUpload *uploads, int n);

/* Backups that have expired. */
typedef struct LedgerExpired
{
	List	   *files;			/* char *, at most `limit` */
	int64		n_files;
	int64		bytes;
} LedgerExpired;

extern void ledger_expired(const Extension *extension, int limit, LedgerExpired *expired);

/*
 * Bring the figures of a run that has ended up to date, after backups were
 * destroyed or put back, and forget what was kept for the latter.
 */
extern void ledger_correct_run(const Extension *extension, int64 run_id);

/* The figures of a run at its end. */
typedef struct LedgerSummary
{
	const char *requested_by;
	int64		files;
	int64		deleted;
	int64		trashed;
	int64		skipped;
	int64		errors;
	int64		bytes;
	double		seconds;
} LedgerSummary;

/*
 * If none of its files is pending or due any more, mark the run as done or
 * failed; one that was still running in batches, as interrupted: whoever ran
 * it no longer holds the run lock.  Returns whether this call did so, and
 * then fills *summary.
 */
extern bool ledger_finish_run(const Extension *extension, int64 run_id, LedgerSummary *summary);

/* What has become of the files of a run. */
typedef struct LedgerOutcome
{
	List	   *orphans;		/* char *: paths of those that have gone,
								 * sorted */
	int64		n_orphans;
	List	   *sessions;		/* char *: failed sessions whose audio has
								 * gone */
	int64		n_sessions;
	List	   *errors;			/* char *: one for each folder and reason */
	int64		n_errors;
	int64		bytes;			/* given back to the file system */
	int64		n_uploads;		/* begun, never completed, and ended */
} LedgerOutcome;

/* The folders (char *) from which the run has taken files, deepest first. */
extern List *ledger_folders(const Extension *extension, int64 run_id);

/* Lists of at most `limit` entries; counts of all. */
extern void ledger_outcome(const Extension *extension, int64 run_id, int limit,
						   LedgerOutcome *outcome);

#endif							/* AUDIO_CLEANUP_LEDGER_H */
