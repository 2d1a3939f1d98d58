/*-------------------------------------------------------------------------
 *
 * run/private.h
 *	  Steps of runs in a transaction and of runs in batches.
 *
 * Every function needs SPI.  Any failure is an ERROR.
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
 * Claims the plan's directory for this database if nobody has claimed it, and
 * records the claim with the run `run_id`.  Returns the directories of the
 * run, with texts in the current memory context.
 */
extern Place run_claim_directory(const CleanupPlan *plan, int64 run_id);

/*
 * Records the uploads that the survey has found too old as condemned by the
 * run `run_id`; the drain ends these uploads.  This database must have claimed
 * the directory.  Returns the number of uploads.
 */
extern int64 run_condemn_uploads(const CleanupPlan *plan, int64 run_id);

/*
 * Records that all files have been seen, and the errors that the plan has met,
 * which are about none of the run's files: a run with errors ends as 'failed'.
 */
extern void run_end_search(const CleanupPlan *plan, int64 run_id);

#endif							/* AUDIO_CLEANUP_RUN_PRIVATE_H */
