/*-------------------------------------------------------------------------
 *
 * plan/recheck.h
 *	  Before files are looked at again: load the sources anew, and wait for writers.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_RECHECK_H
#define AUDIO_CLEANUP_RECHECK_H

#include "src/guard/brake.h"
#include "src/settings.h"

/*
 * Loads and checks the sources: the last look may be a transaction ago.
 * *brake becomes the first thing that is wrong, or NULL.
 */
extern List *recheck_load_sources(const Extension *extension, Brake **brake);

/*
 * Waits until every transaction that may write to one of these sources, or
 * hold a file, has ended; for at most writer_wait, here and on other servers,
 * and then ERROR.  *brake is set if a source cannot be relied on.
 * `own_transaction` as in sources_wait_remotely().
 */
extern void recheck_wait_for_writers(const Context *context, List *sources, bool own_transaction,
									 Brake **brake);

#endif							/* AUDIO_CLEANUP_RECHECK_H */
