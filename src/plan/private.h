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
	int64		looked_at_ns;	/* when the current match began */
	int64		run_id;			/* of the run that condemns */
	List	   *unclearable;	/* OIDs of sources that could not be cleared */
	bool		has_next;		/* plan_condemn() has looked one file ahead: */
	CondemnedFile next;
};

/* A real run ends here with an ERROR; a preview remembers the brake, or all of the list. */
extern void plan_apply_brake(CleanupPlan *plan, Brake *brake);
extern void plan_apply_brakes(CleanupPlan *plan, List *brakes);

/* Adds a copy of the text to the errors. */
extern void plan_add_error(CleanupPlan *plan, const char *text);

/* Begins a match by these settings, of the directory with this claim (NULL: none). */
extern Match *plan_begin_match(const Settings *settings, const char *claim);

/* Returns the plan's claim as a UUID, NULL without one. */
extern const char *plan_claim(const CleanupPlan *plan);

/* Returns the server's time in nanoseconds since 1970. */
extern int64 plan_now_ns(void);

/* Looks at the files that matched no row, or failed sessions, and adds those that go to `condemned`. */
extern void plan_judge(CleanupPlan *plan, Match *match, Condemned *condemned);

/*
 * Clears the columns of the failed sessions in `condemned`, where their source
 * asks for that; a preview tries, and takes it back.  Returns what is left:
 * without the sessions, and their files, that could not be cleared.
 */
extern Condemned *plan_clear_sessions(CleanupPlan *plan, Condemned *condemned, List *sources);

#endif							/* AUDIO_CLEANUP_PLAN_PRIVATE_H */
