/*-------------------------------------------------------------------------
 *
 * run/purge.h
 *	  cleanup_purge_backups(): destroys backups that have expired.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_PURGE_H
#define AUDIO_CLEANUP_PURGE_H

#include "utils/jsonb.h"

/*
 * Makes the commit of the transaction destroy the backups that have expired,
 * except backups that are needed again.  Returns the report, in the current
 * memory context.  SPI must not be connected; any failure is an ERROR.
 */
extern Jsonb *purge_backups(void);

#endif							/* AUDIO_CLEANUP_PURGE_H */
