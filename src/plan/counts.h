/*-------------------------------------------------------------------------
 *
 * plan/counts.h
 *	  Do the figures of a survey speak of a mistake?
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_COUNTS_H
#define AUDIO_CLEANUP_COUNTS_H

#include "src/plan/plan.h"

/*
 * Returns the brakes (of Brake) that the figures of a surveyed plan put on.
 * plan->force overrides those that count, and not the one of an unattended run
 * that a column which nobody registered holds names of orphans.  Needs SPI.
 */
extern List *counts_check(CleanupPlan *plan);

/*
 * Records for the next run how many rows each source of a surveyed plan has,
 * and how many files they protect; for a real run that no brake has stopped.
 * Needs SPI.
 */
extern void counts_remember(const CleanupPlan *plan);

#endif							/* AUDIO_CLEANUP_COUNTS_H */
