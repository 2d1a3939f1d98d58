/*-------------------------------------------------------------------------
 *
 * guard/brake.h
 *	  Why nothing may be deleted now: a brake is one reason.
 *
 * A real run raises the first brake it meets as an ERROR; a dry run collects
 * them all and reports them.
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

/* All texts must outlive the brake; it is allocated in the current context. */
extern Brake *brake_make(const char *name, int sqlstate, const char *message,
						 const char *detail, const char *hint);

/* ereport(ERROR) it. */
pg_noreturn extern void brake_raise(const Brake *brake);

/* "message: detail (hint)" in one line, for a list of errors. */
extern char *brake_text(const Brake *brake);

#endif							/* AUDIO_CLEANUP_BRAKE_H */
