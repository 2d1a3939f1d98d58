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

#include "utils/jsonb.h"

typedef struct Metric
{
	const char *name;
	const char *type;			/* "counter" or "gauge" */
	const char *help;
} Metric;

typedef void (*MetricSink) (const Metric *metric, Jsonb *labels, double value, void *arg);

/*
 * Pass each figure to `sink`.  Cheap: reads no source and walks no directory.
 * What cannot be told is left out; a directory that is missing is no ERROR.
 */
extern void metrics_collect(MetricSink sink, void *arg);

/*
 * Trigger functions on cleanup_files and cleanup_runs: add what an UPDATE has
 * brought to its end to cleanup_totals.
 */
extern void metrics_count_files(void);
extern void metrics_count_runs(void);

#endif							/* AUDIO_CLEANUP_METRICS_H */
