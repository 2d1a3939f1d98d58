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

#include "src/settings.h"

typedef struct Pace
{
	int			limit;			/* files a second by the settings; 0: no limit */
	int			files_per_second;	/* those of the present step; 0: no limit */
	int64		ends_at;		/* by time_monotonic_us(); 0: never */
	int64		counted_at;		/* the last look around; 0: never */
	uint64		expected_xid;	/* number that the next transaction has if
								 * nobody else has written since */
	int64		busy_at;		/* when others were last seen to write; 0:
								 * never */
	int64		wall_us;		/* time when the measuring began, */
	int64		cpu_us;			/* and the computing time at that moment */
} Pace;

/* Returns a pace by `settings` that begins now. */
extern Pace pace_begin(const Settings *settings);

/* Returns whether the time of the run is over. */
extern bool pace_is_over(const Pace *pace);

/* Notes that the present transaction, if it has a number, is no other session's.  Must be called at its end. */
extern void pace_note_own_transaction(Pace *pace);

/*
 * Finds out whether other sessions write meanwhile: then a pace without a limit
 * is a calm one.  Must be called before each step, and not within a step.
 */
extern void pace_look_around(Pace *pace);

/* Returns how many files may be deleted before the next pace_rest(), at least 1. */
extern int	pace_portion(const Pace *pace);

/* Returns how many files the limit allows in so many seconds, at least 1. */
extern int	pace_files_in(const Pace *pace, int seconds);

/* Returns how many files may be deleted at once: those of a millisecond, at least 1. */
extern int	pace_at_once(const Pace *pace);

/*
 * Sleeps until `files` files, whose deletion began at `began` (by
 * time_monotonic_us()), have taken the time that the pace allows for these
 * files.  Takes interrupts.
 */
extern void pace_rest(Pace *pace, int files, int64 began);

/*
 * Sleeps in the same way, between the files of a portion: shorter, because
 * locks are held.  The pace_rest() after the portion sleeps for the rest of the time.
 */
extern void pace_rest_between(Pace *pace, int files, int64 began);

/*
 * Begins to measure how long this process waits for the disk.  Must be called
 * before files are dealt with.
 */
extern void pace_begin_files(Pace *pace);

/*
 * Rests if this process has waited most of the time since pace_begin_files()
 * or the last rest, because then the disk, or the processors, are busy with
 * other work.  The rest is as long as the wait was too long.  Must be called
 * between files.  Takes interrupts.
 */
extern void pace_yield(Pace *pace);

#endif							/* AUDIO_CLEANUP_PACE_H */
