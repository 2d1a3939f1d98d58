/*-------------------------------------------------------------------------
 *
 * unregistered.h
 *	  Does a column that nobody registered hold names of condemned files?
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_UNREGISTERED_H
#define AUDIO_CLEANUP_UNREGISTERED_H

#include "nodes/pg_list.h"

#include "src/plan.h"

/*
 * Look for a sample of the orphans of a survey in the text columns of all
 * ordinary tables of the database, for a second at most.  Returns a list of
 * texts, a column each; what cannot be read is passed over.  Changes nothing,
 * raises no error of its own.  Needs SPI.
 */
extern List *unregistered_search(CleanupPlan *plan);

#endif							/* AUDIO_CLEANUP_UNREGISTERED_H */
