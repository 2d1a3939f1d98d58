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

#include "src/drain/heal.h"
#include "src/guard/location.h"
#include "src/run/run.h"

/*
 * Puts back files that should not be in the trash (see heal.h).  HEAL_STRAYS
 * must come before run_record(), because a run that was lost may have had the
 * number that the new run would get.  Returns the number of files.
 */
extern int64 run_heal(const CleanupPlan *plan, HealWhat what);

/*
 * Records the beginning of a run with this trigger, for the day
 * `scheduled_for` or LEDGER_NO_DAY.  Returns its run_id.
 */
extern int64 run_record(const CleanupPlan *plan, const char *trigger, int32 scheduled_for,
						bool batches);

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
 * Records the errors that the plan has met, which are about none of the run's
 * files: the run ends as 'failed'.  Must be called when all files have been
 * seen.
 */
extern void run_record_errors(const CleanupPlan *plan, int64 run_id);

#endif							/* AUDIO_CLEANUP_RUN_PRIVATE_H */
