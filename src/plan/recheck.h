/*-------------------------------------------------------------------------
 *
 * plan/recheck.h
 *	  Loads the sources anew, and waits for writers, before files are looked at again.
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
 * Loads the sources, and checks each, because the last look may be a
 * transaction ago.  Returns a List of Source, and sets *brake to the first
 * brake, or NULL.  Needs SPI.
 */
extern List *recheck_load_sources(const Extension *extension, Brake **brake);

/*
 * Waits until every transaction that may write to one of these sources, or that
 * may hold a file, has ended, on this server and on others: at most writer_wait,
 * then raises an ERROR.  Sets *brake to a brake if a source cannot be relied on,
 * else to NULL.  `own_transaction`: see sources_wait_remotely().  Needs SPI.
 */
extern void recheck_wait_for_writers(const Context *context, List *sources, bool own_transaction,
									 Brake **brake);

#endif							/* AUDIO_CLEANUP_RECHECK_H */
