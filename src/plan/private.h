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

#include "src/plan/plan.h"

struct CleanupPlan
{
	MemoryContext memory;		/* of all that follows */
	CleanWhat	what;
	bool		dry_run;
	bool		force;			/* overrides the counting brakes */
	Context		context;
	PlanFindings found;
	List	   *closed_folders; /* of char *: a preview has seen that nothing
								 * can be removed from them */
	bool		replica;		/* a preview where a source is filled by a
								 * subscription */
	int64		looked_at_ns;	/* when the current match began */
	int64		run_id;			/* of the run that condemns */
	bool		in_batches;		/* as for plan_limit_reading() */
	List	   *unclearable;	/* OIDs of sources that could not be cleared */
	struct HTAB *deferred;		/* sessions that must not be cleared before
								 * files of theirs have come; or NULL */
	struct Seen *seen;			/* of the files of the second look, where they
								 * are not looked at again; or NULL */
	bool		has_next;		/* plan_condemn() has looked one file ahead: */
	CondemnedFile next;
};

/*
 * Apply a brake, or all of a list: a real run ends with an ERROR, a preview
 * remembers the brakes.
 */
extern void plan_apply_brake(CleanupPlan *plan, Brake *brake);
extern void plan_apply_brakes(CleanupPlan *plan, List *brakes);

/* Adds a copy of the text to the errors. */
extern void plan_add_error(CleanupPlan *plan, const char *text);

/*
 * Looks, if this plan is about orphans, which uploads were begun and never
 * completed.  A real run does not ask where none would be ended.
 */
extern void uploads_survey(CleanupPlan *plan);

/* Returns the plan's claim as a UUID, NULL without one. */
extern const char *plan_claim(const CleanupPlan *plan);

/* Returns the server's time in nanoseconds since 1970. */
extern int64 plan_now_ns(void);

/*
 * Looks at the files that matched no row, or failed sessions, and adds those
 * that go to `condemned`.  `in_survey` says that they will be condemned in
 * batches later, and `again` that these files were judged a moment ago, and
 * errors about them are known.
 */
extern void judge_files(CleanupPlan *plan, Match *match, Condemned *condemned, bool in_survey, bool again);

/* Returns whether the session must not be cleared yet, because files of it are still to come. */
extern bool judge_is_deferred(const CleanupPlan *plan, const char *source, const char *session);

/* Ends the deferring of this file's session, whose files come now. */
extern void judge_stop_deferring(const CleanupPlan *plan, const CondemnedFile *file);

/*
 * Runs the match, and judges its files; with `clear` also clears the columns
 * of failed sessions, where their source asks for that, until all of them
 * could be cleared: a preview tries, and takes it back.  Adds the files that go
 * to *condemned, an empty set.  *match and *condemned may become others.
 */
extern void condemn_matched(CleanupPlan *plan, Match **match, List *sources, MatchMode mode,
							TimestampTz failed_before, bool clear, Condemned **condemned);

#endif							/* AUDIO_CLEANUP_PLAN_PRIVATE_H */
