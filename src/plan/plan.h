/*-------------------------------------------------------------------------
 *
 * plan/plan.h
 *	  Decides which files go: survey, judge, condemn, recheck.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_PLAN_H
#define AUDIO_CLEANUP_PLAN_H

#include "utils/jsonb.h"

#include "src/guard/brake.h"
#include "src/guard/claim.h"
#include "src/ledger/condemned.h"
#include "src/ledger/ledger.h"
#include "src/pg/extension.h"
#include "src/plan/match.h"
#include "src/settings.h"
#include "src/store/store.h"

typedef enum CleanWhat
{
	CLEAN_ORPHANS = 1,
	CLEAN_FAILED = 2,
	CLEAN_ALL = 3
} CleanWhat;

/* Only the functions below write to a plan. */
typedef struct CleanupPlan CleanupPlan;

/*
 * The findings of a plan so far, for the rooms that act on findings or report
 * them.
 */
typedef struct PlanFindings
{
	List	   *brakes;			/* of Brake: why a real run would be refused */
	List	   *notes;			/* of Brake: why a real run would be refused
								 * in this transaction; a preview goes on */
	bool		blocked;		/* there was a brake */
	List	   *errors;			/* of char *, at most report_limit */
	int64		n_errors;
	const char *first_error;	/* the first error, for the history; or NULL */
	List	   *warnings;		/* of char *: advice */
	FileStore  *store;			/* NULL: the directory could not be opened */
	const Claim *claim;			/* NULL without a store */
	List	   *sources;		/* of Source */
	bool		surveyed;		/* no brake kept the survey from looking; the
								 * figures below are known */
	uint64		transactions_ended; /* on the server, before the survey has
									 * read the sources */
	MatchCounts *counts;		/* the figures of each source, by its number */
	int64		files_seen;		/* audio files in the directory */
	int64		files_referenced;
	int64		rows_seen;
	Condemned  *condemned;		/* files that the survey condemns; NULL before
								 * the survey */
	bool		has_more;		/* plan_condemn() has left files of the survey
								 * to a further call */
	int64		n_uploads;		/* uploads that were begun and not completed;
								 * -1: not known, or no upload is possible */
	TimestampTz oldest_upload;	/* when the oldest such upload was begun; 0:
								 * there is none */
	List	   *old_uploads;	/* of StoreUpload: uploads to be ended */
	const char *uploads_error;	/* why the uploads are not known; or NULL */
} PlanFindings;

/*
 * All functions with a plan need SPI, except plan_call() and the functions
 * that only return a part of the plan.  Any failure is an ERROR.  A brake is
 * an ERROR in a real run; a preview collects brakes in the findings.
 *
 * All functions with a plan must be called in a memory context that lives as
 * long as the plan: that of the plan, as plan_call() does, or that in which the
 * plan was begun.
 */

/*
 * Begins a plan for `what`, in a memory context of its own below the current
 * one.  With `dry_run` the plan is a preview, and changes nothing.  `force`
 * overrides the brakes that count.  plan_end(), or the deletion of that
 * context, as after an ERROR, closes the descriptors of the plan.
 */
extern CleanupPlan *plan_begin(CleanWhat what, bool dry_run, bool force);
extern void plan_end(CleanupPlan *plan);

/*
 * Connects to SPI, begins a plan, calls work(plan, arg) in the plan's memory
 * context, ends the plan, also after an ERROR, and disconnects from SPI.
 * Returns a copy of the result of work() in the current memory context, or NULL
 * for NULL.
 */
typedef Jsonb *(*PlanWork) (CleanupPlan *plan, void *arg);
extern Jsonb *plan_call(CleanWhat what, bool dry_run, bool force, PlanWork work, void *arg);

/* Returns the findings of the plan, which change as the plan goes on. */
extern const PlanFindings *plan_findings(const CleanupPlan *plan);

/* Returns the settings and the extension of the plan. */
extern const Context *plan_context(const CleanupPlan *plan);

/* Each function returns an argument of plan_begin(). */
extern CleanWhat plan_what(const CleanupPlan *plan);
extern bool plan_is_preview(const CleanupPlan *plan);

/* Returns "orphaned_files", "failed_sessions" or "all". */
extern const char *plan_what_text(CleanWhat what);

/* Adds a copy of the text to the warnings. */
extern void plan_add_warning(CleanupPlan *plan, const char *text);

/*
 * Searches for names of condemned files in columns that nobody registered, and
 * sets the warnings to one for each such column.  Must be called after
 * plan_survey().
 */
extern void plan_advise(CleanupPlan *plan);

/*
 * Refuses a real run in a transaction in which no run is possible: in recovery,
 * read-only, or with a snapshot that is not of this instant.  A preview notes
 * the reason.
 */
extern void plan_check_transaction(CleanupPlan *plan);

/*
 * Refuses a real run whose sources have writers on other servers that cannot
 * be waited for: a subscription fills the source; or the rows of the source
 * lie on another server, and the extension has not begun the transaction
 * itself (`own_transaction`).  Another transaction may see the rows as they
 * were earlier.  A preview notes the reason.
 */
extern void plan_check_nodes(CleanupPlan *plan, bool own_transaction);

/*
 * Returns whether no person can look at the run and cancel it: this process is
 * a background worker, of any kind, or serves a connection of pg_cron.
 */
extern bool plan_is_unattended(void);

/*
 * Limits how long the sources are read from now on: to max_run_minutes in a
 * run in batches or an unattended process, and in an unattended process also
 * to source_timeout.  The limit holds until the next call, or the end of the
 * plan.
 */
extern void plan_limit_reading(const Settings *settings, bool in_batches);

/* Opens the directory, and reads its claim.  Another database's claim is no brake here. */
extern void plan_open_directory(CleanupPlan *plan);

/*
 * Locks the open directory, which keeps other runs out until the plan ends,
 * and until the work that is left to the commit is done.
 */
extern void plan_lock_directory(CleanupPlan *plan);

/*
 * Calls plan_lock_directory(), and applies a brake unless the directory still
 * belongs to this database.
 */
extern void plan_lock_own_directory(CleanupPlan *plan);

/*
 * Opens the directory, checks that the directory belongs to this database, and
 * loads and checks the sources.  A real run locks the directory.
 */
extern void plan_open(CleanupPlan *plan);

/*
 * Calls plan_open(), walks the directory, matches and judges its files, and
 * checks the figures.  With `interxact` the findings may be used beyond the end
 * of the transaction.
 */
extern void plan_survey(CleanupPlan *plan, bool interxact);

/*
 * Calls sink(path, arg) for every file in the open directory, whatever its name.
 * The function is for a look that decides nothing: the plan's brakes are
 * forgotten.  ERROR if the directory cannot be read whole.
 */
typedef void (*PlanWalkSink) (const char *path, void *arg);
extern void plan_walk(CleanupPlan *plan, PlanWalkSink sink, void *arg);

/*
 * Sets *n to the number of uploads of audio files below the open directory
 * that were begun and are not completed.  Returns false if no such upload is
 * possible, or if the uploads cannot be counted.
 */
extern bool plan_count_uploads(FileStore *store, const Settings *settings, int64 *n);

/*
 * Condemns the next files of the survey for the run `run_id`: waits for
 * writers, matches those files again under a new snapshot, with the rows of
 * failed sessions locked, and clears the columns of sessions whose source asks
 * for clearing.  After about `limit` files whose sessions are cleared, the
 * rest is left to another call in another transaction, so that rows of a
 * source are not locked for long.  Returns the set of files that are
 * condemned, which may be empty; NULL when the survey has no more files.  The
 * caller has the run lock.
 */
extern Condemned *plan_condemn(CleanupPlan *plan, int64 run_id, int64 limit);

/*
 * Looks again at the files of `match`, which were condemned before: waits for
 * writers, and runs the match.  Then match_why_needed() tells which of the
 * files are needed now.  `own_transaction`: see sources_wait_remotely().  With
 * `lock`, rows of failed sessions that refer to the files stay locked.  Sets
 * *match_us to the microseconds that the reading took, without the waiting.
 * Returns NULL; or a brake if the match was not run to its end, because the
 * sources cannot be read, also not in time, or because writers could not be
 * waited for.  Then nothing but match_end() may be called for the match.
 */
extern Brake *plan_recheck(const Context *context, Match *match, bool own_transaction, bool lock,
						   int64 *match_us);

/* Returns whether the file is old enough to be an orphan now. */
extern bool plan_is_old(const CleanupPlan *plan, const FileIdentity *identity);

/* Returns the time from which the file's age is counted. */
extern TimestampTz plan_file_time(const CleanupPlan *plan, const FileIdentity *identity);

/* Returns the time before which a session must have failed to be due now. */
extern TimestampTz plan_failed_before(const Settings *settings);

/*
 * Returns whether the name of a file can be judged: valid UTF-8 in a UTF-8
 * database; in another database ASCII, because nobody knows how other letters
 * are written on the disk.
 */
extern bool plan_is_readable_name(const Settings *settings, const char *path);

/* Returns the name in ASCII, without loss, palloc'd: \xHH stands for a byte that is not printable, or a "\". */
extern char *plan_escape_name(const char *name);

#endif							/* AUDIO_CLEANUP_PLAN_H */
