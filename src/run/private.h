/*-------------------------------------------------------------------------
 *
 * run/private.h
 *	  What runs in a transaction and runs in batches have in common.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_RUN_PRIVATE_H
#define AUDIO_CLEANUP_RUN_PRIVATE_H

#include "src/guard/location.h"
#include "src/run/run.h"

/*
 * Puts back what should not be in the trash, before a run gets its number,
 * which a run that was lost may have had.  Returns how many files.
 */
extern int64 run_heal(const CleanupPlan *plan);

/* Records that a run begins; returns its number. */
extern int64 run_record(const CleanupPlan *plan, const char *trigger, int32 scheduled_for,
						bool batches);

/*
 * Claims the plan's directory for this database, if nobody has, and records
 * that the run is in it.  Returns where the run has its files.
 */
extern Place run_claim_directory(const CleanupPlan *plan, int64 run_id);

/*
 * Records the uploads that the survey has found too old as condemned by the
 * run `run_id`; the drain ends them.  The directory is ours.  Returns how many.
 */
extern int64 run_condemn_uploads(const CleanupPlan *plan, int64 run_id);

#endif							/* AUDIO_CLEANUP_RUN_PRIVATE_H */
