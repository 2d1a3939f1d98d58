/*-------------------------------------------------------------------------
 *
 * plan/private.h
 *	  What the files of this room share.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_PLAN_PRIVATE_H
#define AUDIO_CLEANUP_PLAN_PRIVATE_H

#include "storage/buffile.h"
#include "utils/hsearch.h"

#include "src/plan/plan.h"

struct CleanupPlan
{
	MemoryContext memory;		/* has the plan and the memory of the plan */
	CleanWhat	what;
	bool		dry_run;
	bool		force;			/* overrides the brakes that count */
	Context		context;
	PlanFindings found;
	List	   *closed_folders; /* of char *: folders from which no file can
								 * be removed, as a preview has seen */
	bool		replica;		/* a preview, and a subscription fills a
								 * source */
	bool		has_links;		/* see walk_has_links() */
	int64		looked_at_ns;	/* when the current match began */
	int64		run_id;			/* the run that condemns */
	bool		in_batches;		/* see plan_limit_reading() */
	List	   *unclearable;	/* OIDs of sources that could not be cleared */
	HTAB	   *deferred;		/* see judge_deferred(); NULL: no session */
	BufFile    *seen;			/* identities of the files that are condemned
								 * now, as the survey has seen them; NULL in
								 * the survey */
	CondemnedFile next;			/* with has_more: the file that plan_condemn()
								 * has read ahead */
};

/* Applies a brake, or NULL.  A brake is an ERROR in a real run, and a finding in a preview. */
extern void plan_apply_brake(CleanupPlan *plan, Brake *brake);

/*
 * Adds a copy of the text to the errors.  `to_record` is the text for the
 * history, which other roles may read; NULL: the text itself.
 */
extern void plan_add_error(CleanupPlan *plan, const char *text, const char *to_record);

/*
 * Finds the uploads that were begun and not completed, if the plan is about
 * orphans; in a real run, only if old uploads are to be ended.
 */
extern void uploads_survey(CleanupPlan *plan);

/* Returns the plan's claim as a UUID, NULL without one. */
extern const char *plan_claim(const CleanupPlan *plan);

/*
 * Returns the time from which the age of a file or upload of the time `at` is
 * counted: not before the directory was taken over.
 */
extern TimestampTz plan_age_begins(const CleanupPlan *plan, TimestampTz at);

/* Returns the server's time in nanoseconds since 1970. */
extern int64 plan_now_ns(void);

/*
 * Judges the files of the match that no row, or only failed sessions, refer
 * to, and adds the files that go to `condemned`.  `in_survey` says that these
 * files will be condemned in batches later.  `again` says that the files were
 * judged a moment ago, so that their errors are known.
 */
extern void judge_files(CleanupPlan *plan, Match *match, Condemned *condemned, bool in_survey, bool again);

/*
 * Returns whether the session must not be cleared before its own files come.  If
 * several sessions refer to a file, the survey has the file once, with the
 * first of these sessions.  So the file may come in an earlier batch than the
 * other files of a later session.  HASH_ENTER defers the session, and
 * HASH_REMOVE ends that, because its files come now.
 */
extern bool judge_deferred(CleanupPlan *plan, const char *source, const char *session, HASHACTION action);

/*
 * Runs the match, judges its files, and adds the files that go to *condemned,
 * an empty set.  In a preview, or with the mode MATCH_JUDGE_LOCKED, also clears
 * the columns of failed sessions whose source asks for clearing; a preview
 * takes the clearing back.  If a source cannot be cleared, its files
 * are kept, and the match is run again.  *match and *condemned may be replaced.
 */
extern void condemn_matched(CleanupPlan *plan, Match **match, List *sources, MatchMode mode,
							Condemned **condemned);


/* recheck.c */

/*
 * Sets *sources (Source) to the sources, and checks each, because the last look
 * may be a transaction ago.  Then waits until every transaction that may write
 * to one of these sources, or that may hold a file, has ended, on this server
 * and on others: at most writer_wait, then raises an ERROR.  Returns a brake if a
 * source cannot be relied on, else NULL.  `own_transaction`: see
 * sources_wait_remotely().  Needs SPI.
 */
extern Brake *recheck_wait_for_writers(const Context *context, bool own_transaction, List **sources);


/* counts.c */

/*
 * Applies the brakes that follow from the figures of a surveyed plan.
 * plan->force overrides the brakes that count.  But plan->force does not
 * override a brake of unattended runs: a column that nobody registered holds
 * names of orphans.  Needs SPI; a failure is an ERROR.
 */
extern void counts_check(CleanupPlan *plan);

/*
 * Records, for the next run, how many rows each source of a surveyed plan has,
 * and how many files these rows protect.  Must be called in a real run that no
 * brake has stopped.  Needs SPI; a failure is an ERROR.
 */
extern void counts_remember(const CleanupPlan *plan);


/* unregistered.c */

/*
 * Looks for a sample of the orphans of a surveyed plan in the columns of all
 * ordinary tables of the database that are text, json, jsonb, uuid, xml, or an
 * array of these but xml.  Returns a List of texts for people (char *), one for each column with
 * such names.  Tables that cannot be read are passed over.
 *
 * Without `everything`, the search takes a second at most, and returns only
 * columns that the session's user may read anyway; superusers and the
 * extension's owner see all columns.  With `everything`, the search takes ten
 * seconds at most, and returns all columns, for the server log and the brake
 * of an unattended run.
 *
 * Changes nothing, and raises no ERROR of its own.  Needs SPI.
 */
extern List *unregistered_search(CleanupPlan *plan, bool everything);

#endif							/* AUDIO_CLEANUP_PLAN_PRIVATE_H */
