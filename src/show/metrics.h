/*-------------------------------------------------------------------------
 *
 * show/metrics.h
 *	  Figures for a monitoring system, by the names of Prometheus.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_METRICS_H
#define AUDIO_CLEANUP_METRICS_H

#include "utils/tuplestore.h"

/*
 * Puts a row (name, labels, value, help, type) into `rows` for each figure.
 * Cheap: reads no source and walks no directory.  What cannot be told is left
 * out; a directory that is missing is no ERROR.
 */
extern void metrics_collect(Tuplestorestate *rows);

/*
 * Trigger functions on cleanup_files and cleanup_runs: add what an UPDATE has
 * brought to its end to cleanup_totals.
 */
extern void metrics_count_files(void);
extern void metrics_count_runs(void);

#endif							/* AUDIO_CLEANUP_METRICS_H */
