/*-------------------------------------------------------------------------
 *
 * plan/unregistered.h
 *	  Does a column that nobody registered hold names of condemned files?
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_UNREGISTERED_H
#define AUDIO_CLEANUP_UNREGISTERED_H

#include "nodes/pg_list.h"

#include "src/plan/plan.h"

/*
 * Look for a sample of the orphans of a survey in the columns of all ordinary
 * tables of the database that are text, json, jsonb or an array of text, for a
 * second at most.  Returns a list of texts (char *), a column each; NIL where
 * nothing was found.  What cannot be read is passed over.
 *
 * With `everything` each column is told, for the server's log and the brake of
 * an unattended run: "does a column that nobody registered hold names that
 * would go?"  Without it only those that the session's user may read anyway;
 * superusers and the extension's owner see all.
 *
 * Changes nothing, raises no error of its own.  Needs SPI.
 */
extern List *unregistered_search(CleanupPlan *plan, bool everything);

#endif							/* AUDIO_CLEANUP_UNREGISTERED_H */
