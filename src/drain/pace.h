/*-------------------------------------------------------------------------
 *
 * drain/pace.h
 *	  How fast files may be deleted, and when a run has to stop.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_PACE_H
#define AUDIO_CLEANUP_PACE_H

#include "datatype/timestamp.h"

#include "src/settings.h"

typedef struct Pace
{
	int			files_per_second;	/* 0: no limit */
	TimestampTz ends_at;		/* 0: never */
	int64		wall_us;		/* see pace_yield(): when the last one ended, */
	int64		cpu_us;			/* and the computing time by then */
} Pace;

/* Begins a pace, from now on. */
extern Pace pace_begin(const Settings *settings);

/* Has the run had its time? */
extern bool pace_is_over(const Pace *pace);

/* Returns how many files may be deleted before the next pace_rest(), at least 1. */
extern int	pace_portion(const Pace *pace);

/* Returns how many files may be deleted in so many seconds, at least 1. */
extern int	pace_files_in(const Pace *pace, int seconds);

/*
 * Sleeps until `files`, which were begun at `began`, have taken their time.
 * To be called outside of transactions, or in one that has done nothing yet.
 * Takes interrupts.
 */
extern void pace_rest(const Pace *pace, int files, TimestampTz began);

/*
 * Begins to measure how long this process waits for the disk.  To be called before
 * some files are dealt with.
 */
extern void pace_begin_files(Pace *pace);

/*
 * Rests as long as this process had to wait since pace_begin_files() or the last
 * rest, if that was most of the time: the disk, or the processors, have others
 * to serve.  To be called between files.  Takes interrupts.
 */
extern void pace_yield(Pace *pace);

#endif							/* AUDIO_CLEANUP_PACE_H */
