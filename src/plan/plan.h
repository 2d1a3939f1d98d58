/*-------------------------------------------------------------------------
 *
 * plan/plan.h
 *	  walk -> match -> brakes -> condemn: what a run decides.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_PLAN_H
#define AUDIO_CLEANUP_PLAN_H

#include "src/guard/brake.h"
#include "src/guard/claim.h"
#include "src/ledger/condemned.h"
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

typedef struct CleanupPlan
{
	MemoryContext context;		/* of everything below */
	CleanWhat	what;
	bool		dry_run;
	bool		force;			/* override the counting brakes */
	Settings   *settings;
	Extension  *extension;
	FileStore  *store;			/* NULL if it could not be opened */
	Claim	   *claim;			/* NULL without a store */
	List	   *sources;		/* of Source */
	MatchCounts *counts;		/* of each of them, if surveyed */
	List	   *brakes;			/* of Brake: why a real run would be refused */
	List	   *notes;			/* the same, of this transaction only: a dry
								 * run looks nevertheless */
	bool		blocked;		/* there was a brake */
	List	   *errors;			/* of char *, at most report_limit */
	List	   *closed_folders; /* of char *: a preview has seen that nothing
								 * can be removed from them */
	int64		error_count;
	List	   *warnings;		/* of char *: advice for a report */
	int64		looked_at_ns;	/* when the current match began */
	bool		surveyed;		/* no brake kept us from looking */
	int64		files_seen;		/* audio files in the directory */
	int64		files_referenced;
	int64		rows_seen;
	Condemned  *condemned;		/* by the survey */
	int64		run_id;			/* 0 before it is recorded */
	List	   *unclearable;	/* OIDs of sources that could not be cleared */
	struct HTAB *deferred;		/* sessions that must not be cleared before
								 * files of theirs have come; or NULL */
	int64		healed;			/* backups that are put back */
	bool		has_next;		/* plan_condemn() has looked one file ahead: */
	CondemnedFile next;
} CleanupPlan;

/*
 * Begin a plan in a memory context of its own below the current one.  It
 * holds descriptors; whoever deletes the context, an ERROR included, closes
 * them too.  Needs SPI, as the following do.
 */
extern CleanupPlan *plan_begin(CleanWhat what, bool dry_run, bool force);
extern void plan_end(CleanupPlan *plan);

/*
 * Refuse a real run in a transaction in which there can be none: in recovery,
 * read-only, or with a snapshot that is not of this instant.  A dry run notes
 * it.
 */
extern void plan_check_transaction(CleanupPlan *plan);

/*
 * Returns whether nobody is there who could look and cancel: this process is a
 * background worker, ours or somebody's, or a connection of pg_cron.
 */
extern bool plan_is_unattended(void);

/*
 * From now on the sources are read for so long that a run ends in time (see
 * max_run_minutes, of a run in batches), and in a background worker no longer
 * than source_timeout; until it is called again, or the plan ends.
 */
extern void plan_limit_reading(const Settings *settings, bool in_batches);

/*
 * Open the directory and look whose it is, without applying that brake.
 */
extern void plan_open_directory(CleanupPlan *plan);

/*
 * Keep other runs out of the open directory until the plan ends, and those
 * who hand their work on to the commit, until that is done.
 */
extern void plan_lock_directory(CleanupPlan *plan);

/* The same, and see that the directory is still ours. */
extern void plan_hold_directory(CleanupPlan *plan);

/*
 * Open the directory, look whose it is, and load the sources; what is wrong
 * becomes a brake.  A real run locks the directory.
 */
extern void plan_open(CleanupPlan *plan);

/*
 * plan_open(), then walk the directory, match, and judge.  A dry run collects brakes; a real
 * run raises the first one.  With `interxact` the outcome may be used beyond
 * the end of the transaction.
 */
extern void plan_survey(CleanupPlan *plan, bool interxact);

/*
 * For a look at an open plan's directory that decides nothing: pass every file
 * to `sink`, whatever its extension, but those whose name is not valid in the
 * database's encoding.  Forgets the plan's brakes.  ERROR if it cannot be read whole.
 */
typedef void (*PlanWalkSink) (const char *path, void *arg);

extern void plan_walk(CleanupPlan *plan, PlanWalkSink sink, void *arg);

/*
 * Condemn the next (at most `limit`) files of the survey: wait for writers,
 * match those few again under a fresh snapshot, with the rows of failed
 * sessions locked, clear the columns of sessions where that is asked for.
 * Returns what stood the second look, NULL when the survey is exhausted.
 * Must be called under the run lock.
 */
extern Condemned *plan_condemn(CleanupPlan *plan, int64 limit);

/*
 * Of these files (paths), which are needed: referred to by anybody who is no
 * failed session, or held?  Returns why for each, or NULL.  For files that were condemned before.  Waits for writers.
 * *brake is set, and nothing said, if the sources cannot be read, or writers
 * could not be waited for.  *match_us becomes the time that the reading took,
 * without the waiting.
 */
extern const char **plan_recheck(const Settings *settings, const Extension *extension,
								 const char *const *paths, int n, Brake **brake,
								 int64 *match_us);

/* Is the file old enough to be an orphan, now? */
extern bool plan_is_old(const Settings *settings, const FileIdentity *identity);

/* The time stamp, in nanoseconds since 1970, that tells the file's age. */
extern int64 plan_file_time(const Settings *settings, const FileIdentity *identity);

/* A session that failed before this is due now. */
extern TimestampTz plan_failed_before(const Settings *settings);

/* "orphaned_files", "failed_sessions" or "all" */
extern const char *plan_what_text(CleanWhat what);

/*
 * Can the name be judged?  Its letters must be known: valid UTF-8 in a UTF-8
 * database; elsewhere ASCII, because it is not known how the rest is written
 * on disk.
 */
extern bool plan_is_readable_name(const Settings *settings, const char *path);

/* A name in ASCII, without loss: \xHH for what is not printable or a "\". */
extern char *plan_escape_name(const char *name);

#endif							/* AUDIO_CLEANUP_PLAN_H */
