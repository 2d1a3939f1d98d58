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
 * Has what has expired destroyed when the transaction commits, but for what is
 * needed again.  Returns the report.
 */
extern Jsonb *purge_backups(void);

#endif							/* AUDIO_CLEANUP_PURGE_H */
