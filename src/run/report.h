/*-------------------------------------------------------------------------
 *
 * run/report.h
 *	  The JSON contract: what the SQL functions return.
 *
 * The envelope and the eight keys of a result are those of the HTTP service
 * that this extension replaces; applications pass them through.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_REPORT_H
#define AUDIO_CLEANUP_REPORT_H

#include "utils/jsonb.h"

#include "src/plan/plan.h"
#include "src/text/json_build.h"

/* cleanup_status(): {"success", "message", "potential_cleanup"} */
extern Jsonb *report_status(const CleanupPlan *plan);

/*
 * The cleaning calls: {"success", "message", "result", ...} for what was
 * condemned: the plan's survey (dry run), or what plan_condemn() returned, and
 * so many uploads that were never completed.
 * run_id 0 means that there was no run; `healed` is how many backups are
 * put back, because they are needed again.
 */
extern Jsonb *report_condemned(const CleanupPlan *plan, Condemned *condemned, int64 uploads,
							   int64 run_id, int64 healed);

/* cleanup_run(): likewise, for what has become of the files of the run. */
extern Jsonb *report_outcome(const CleanupPlan *plan, int64 run_id, int64 healed);

/* Adds "blocked_by": the names of the brakes, if there are any. */
extern void report_add_blocked_by(JsonBuilder *json, const PlanFindings *found);

/* Appends a copy of the text to a list that has at most `limit` of them; returns the list. */
extern List *report_append(List *list, int limit, const char *text);

#endif							/* AUDIO_CLEANUP_REPORT_H */
