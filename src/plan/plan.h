/*-------------------------------------------------------------------------
 *
 * plan/plan.h
 *	  Decides which files go: walk -> match -> brakes -> condemn.
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

/* A plan is made by the functions below; nobody else writes to one. */
typedef struct CleanupPlan CleanupPlan;

/* The findings of a plan so far, for the rooms that act on them or report them. */
typedef struct PlanFindings
{
	List	   *brakes;			/* of Brake: why a real run would be refused */
	List	   *notes;			/* of Brake, because of this transaction only:
								 * a preview looks nevertheless */
	bool		blocked;		/* there was a brake */
	List	   *errors;			/* of char *, at most report_limit */
	int64		n_errors;
	List	   *warnings;		/* of char *: advice */
	FileStore  *store;			/* NULL: the directory could not be opened */
	const Claim *claim;			/* NULL without a store */
	List	   *sources;		/* of Source */
	bool		surveyed;		/* no brake kept the survey from looking: what
								 * follows is known */
	MatchCounts *counts;		/* of each source */
	int64		files_seen;		/* audio files in the directory */
	int64		files_referenced;
	int64		rows_seen;
	Condemned  *condemned;		/* by the survey; NULL before it */
	int64		n_uploads;		/* begun and not completed; -1: not known, or
								 * there can be none */
	TimestampTz oldest_upload;	/* when the oldest of these was begun; 0 */
	List	   *old_uploads;	/* of LedgerUpload: those to be ended */
	const char *uploads_error;	/* why they are not known; or NULL */
} PlanFindings;

/*
 * Begins a plan in a memory context of its own below the current one.  A plan
 * has open descriptors: they are closed by plan_end(), or when that context
 * is deleted, as after an ERROR.  `force` overrides the brakes that count.
 * Needs SPI, as all that follows.
 */
extern CleanupPlan *plan_begin(CleanWhat what, bool dry_run, bool force);
extern void plan_end(CleanupPlan *plan);

/*
 * Connects to SPI, begins a plan, calls work(plan, arg) in the plan's memory
 * context, ends the plan, also after an ERROR, and leaves SPI.  Returns what
 * work() returned, copied into the current memory context; NULL for NULL.
 */
typedef Jsonb *(*PlanWork) (CleanupPlan *plan, void *arg);
extern Jsonb *plan_call(CleanWhat what, bool dry_run, bool force, PlanWork work, void *arg);

/* Returns what the plan has found; the findings change as the plan goes on. */
extern const PlanFindings *plan_findings(const CleanupPlan *plan);

/* Returns the settings and the extension that the plan goes by. */
extern const Context *plan_context(const CleanupPlan *plan);

extern CleanWhat plan_what(const CleanupPlan *plan);
extern bool plan_is_preview(const CleanupPlan *plan);

/* Returns "orphaned_files", "failed_sessions" or "all". */
extern const char *plan_what_text(CleanWhat what);

/* Adds a copy of the text to the warnings. */
extern void plan_add_warning(CleanupPlan *plan, const char *text);

/*
 * Searches for names of condemned files in columns that nobody registered,
 * and adds a warning for each such column.  For a plan that was surveyed.
 */
extern void plan_advise(CleanupPlan *plan);

/*
 * Refuses a real run in a transaction in which there can be none: in recovery,
 * read-only, or with a snapshot that is not of this instant.  A preview notes
 * the reason.
 */
extern void plan_check_transaction(CleanupPlan *plan);

/*
 * Refuses a real run whose sources are written on other servers that cannot be
 * waited for: the table is filled by a subscription, or it is a foreign one and
 * this is no `own_transaction` of the extension, which would see it as it was
 * when somebody read it first.  A preview notes the reason.
 */
extern void plan_check_nodes(CleanupPlan *plan, bool own_transaction);

/*
 * Returns whether nobody is there who could look and cancel: this process is a
 * background worker, ours or somebody's, or a connection of pg_cron.
 */
extern bool plan_is_unattended(void);

/*
 * Limits how long the sources are read from now on: max_run_minutes for a run
 * in batches, and source_timeout in a background worker.  The limit holds
 * until this is called again, or the plan ends.
 */
extern void plan_limit_reading(const Settings *settings, bool in_batches);

/* Opens the directory, and looks whose the directory is without applying that brake. */
extern void plan_open_directory(CleanupPlan *plan);

/*
 * Keeps other runs out of the open directory until the plan ends.  Work that
 * was handed on to the commit keeps them out until that work is done.
 */
extern void plan_lock_directory(CleanupPlan *plan);

/* Calls plan_lock_directory(), and applies a brake unless the directory still is ours. */
extern void plan_lock_own_directory(CleanupPlan *plan);

/*
 * Opens the directory, looks whose it is, and loads the sources; what is wrong
 * becomes a brake.  A real run locks the directory.
 */
extern void plan_open(CleanupPlan *plan);

/*
 * Calls plan_open(), then walks the directory, matches, and judges.  A preview
 * collects brakes; a real run raises the first one.  With `interxact` the
 * outcome may be used beyond the end of the transaction.
 */
extern void plan_survey(CleanupPlan *plan, bool interxact);

/*
 * For a look at an open plan's directory that decides nothing: passes every
 * file to `sink`, whatever its extension, but those whose name is not valid in
 * the database's encoding.  Forgets the plan's brakes.  ERROR if the directory
 * cannot be read whole.
 */
typedef void (*PlanWalkSink) (const char *path, void *arg);
extern void plan_walk(CleanupPlan *plan, PlanWalkSink sink, void *arg);

/*
 * Counts the uploads of audio files below the open directory that were begun
 * and are not completed.  Returns false if there can be none, or if they
 * cannot be counted.
 */
extern bool plan_count_uploads(FileStore *store, const Settings *settings, int64 *n);

/*
 * Condemns the next files of the survey for the run `run_id`: waits for
 * writers, matches those few again under a fresh snapshot, with the rows of
 * failed sessions locked, and clears the columns of sessions where that is
 * asked for.  After about `limit` files whose sessions are cleared the rest is
 * left to another call, and another transaction, so that the rows of a source
 * are not locked for long.  Returns what stood the second look, NULL when the
 * survey is exhausted.  The caller has the run lock.
 */
extern Condemned *plan_condemn(CleanupPlan *plan, int64 run_id, int64 limit);

/* Begins a match by these settings, of the directory with this claim (NULL: none). */
extern Match *plan_begin_match(const Settings *settings, const char *claim);

/*
 * Looks again at files that were condemned before, those of `match`: waits for
 * writers, and runs the match, after which match_why_needed() tells which of
 * the files are needed now, because a row of no failed session refers to them
 * or somebody holds them.  `own_transaction` says that the extension has begun
 * this transaction.  With `lock`, rows of failed sessions that refer to the
 * files stay locked.  *match_us becomes the microseconds that the reading
 * took, without the waiting.  Returns NULL; or why the match was not run: the
 * sources cannot be read, or writers could not be waited for.
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
 * Returns whether the name can be judged.  Its letters must be known: valid
 * UTF-8 in a UTF-8 database; elsewhere ASCII, because it is not known how the
 * rest is written on disk.
 */
extern bool plan_is_readable_name(const Settings *settings, const char *path);

/* Returns the name in ASCII, without loss: \xHH for what is not printable, or a "\". */
extern char *plan_escape_name(const char *name);

#endif							/* AUDIO_CLEANUP_PLAN_H */
