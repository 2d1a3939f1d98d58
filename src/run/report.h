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

/* cleanup_status(): {"success", "message", "potential_cleanup"} */
extern Jsonb *report_status(CleanupPlan *plan);

/*
 * The cleaning calls: {"success", "message", "result", ...} for what was
 * condemned: the plan's survey (dry run), or what plan_condemn() returned.
 * run_id 0 means that there was no run.
 */
extern Jsonb *report_condemned(CleanupPlan *plan, Condemned *condemned, int64 run_id);

/* cleanup_run(): the same, for what has become of the files of the run. */
extern Jsonb *report_outcome(CleanupPlan *plan, int64 run_id);

#endif							/* AUDIO_CLEANUP_REPORT_H */
