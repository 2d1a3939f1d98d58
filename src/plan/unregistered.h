/*-------------------------------------------------------------------------
 *
 * plan/unregistered.h
 *	  Looks for columns that nobody registered and that hold names of condemned files.
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
 * Looks for a sample of the orphans of a surveyed plan in the columns of all
 * ordinary tables of the database that are text, json, jsonb or an array of
 * text.  Returns a List of texts for people (char *), one for each column with
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

#endif							/* AUDIO_CLEANUP_UNREGISTERED_H */
