/*-------------------------------------------------------------------------
 *
 * run/report.h
 *	  The JSON contract: the results of the SQL functions.
 *
 * The envelope and the eight keys of a result come from the HTTP service that
 * this extension replaces, because applications pass results through.
 *
 * Every function that returns a report needs SPI, and allocates the report in
 * the current memory context.  A failure is an ERROR.
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

/* Returns the result of cleanup_status(): {"success", "message", "potential_cleanup"}. */
extern Jsonb *report_status(const CleanupPlan *plan);

/*
 * Returns the result of a cleaning call: {"success", "message", "result",
 * ...}. `condemned` is the plan's survey (dry run), or the set of
 * plan_condemn(). `uploads` is the number of uploads that were never completed
 * and are ended.  run_id 0 means that there was no run.  `healed` is the
 * number of backups that are put back because they are needed again.
 */
extern Jsonb *report_condemned(const CleanupPlan *plan, Condemned *condemned, int64 uploads,
							   int64 run_id, int64 healed);

/*
 * Returns the result of cleanup_run(), with the outcome of the run's files.
 * `healed` is the number of backups that are put back.
 */
extern Jsonb *report_outcome(const CleanupPlan *plan, int64 run_id, int64 healed);

/* Adds "blocked_by", the names of the brakes, if there are any. */
extern void report_add_blocked_by(JsonBuilder *json, const PlanFindings *found);

/*
 * Appends a copy of `text` to `list`, unless the list has `limit` texts
 * already.  Returns the list.
 */
extern List *report_append(List *list, int limit, const char *text);

#endif							/* AUDIO_CLEANUP_REPORT_H */
