/*-------------------------------------------------------------------------
 *
 * guard/brake.h
 *	  Brakes, claims and holds: the reasons why nothing may be deleted now.
 *
 * A brake is one of these reasons.  A real run raises its first brake as an
 * ERROR; a dry run collects and reports all brakes.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_BRAKE_H
#define AUDIO_CLEANUP_BRAKE_H

#include "src/pg/compat.h"

typedef struct Brake
{
	const char *name;			/* for "blocked_by", as in "no_source" */
	int			sqlstate;
	const char *message;
	const char *detail;			/* may be NULL */
	const char *hint;			/* may be NULL */
} Brake;

/*
 * Returns a brake of these texts, allocated in the current memory context.
 * `name`, `message`, `detail` (or NULL) and `hint` (or NULL) are not copied:
 * these texts must outlive the brake.  `sqlstate` is the errcode of the ERROR
 * that brake_raise() raises.  Needs no SPI, as all functions here.
 */
extern Brake *brake_make(const char *name, int sqlstate, const char *message,
						 const char *detail, const char *hint);

/* Raises the brake as an ERROR. */
pg_noreturn extern void brake_raise(const Brake *brake);

/* Raises the brake as an ERROR, unless `brake` is NULL. */
extern void brake_raise_if(const Brake *brake);

/* Returns "name: message. detail hint" in one line, palloc'd, for a list of errors. */
extern char *brake_text(const Brake *brake);

#endif							/* AUDIO_CLEANUP_BRAKE_H */
