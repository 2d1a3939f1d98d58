/*-------------------------------------------------------------------------
 *
 * plan/counts.h
 *	  Judges whether the figures of a survey point to a mistake.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_COUNTS_H
#define AUDIO_CLEANUP_COUNTS_H

#include "src/plan/plan.h"

/*
 * Returns the brakes (Brake) that follow from the figures of a surveyed plan.
 * plan->force overrides the brakes that count.  But plan->force does not
 * override a brake of unattended runs: a column that nobody registered holds
 * names of orphans.  Needs SPI; a failure is an ERROR.
 */
extern List *counts_check(CleanupPlan *plan);

/*
 * Records, for the next run, how many rows each source of a surveyed plan has,
 * and how many files these rows protect.  Must be called in a real run that no
 * brake has stopped.  Needs SPI; a failure is an ERROR.
 */
extern void counts_remember(const CleanupPlan *plan);

#endif							/* AUDIO_CLEANUP_COUNTS_H */
