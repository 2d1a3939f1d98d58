/*-------------------------------------------------------------------------
 *
 * pg/access.h
 *	  Who may look and who may clean: grants in two levels.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_ACCESS_H
#define AUDIO_CLEANUP_ACCESS_H

#include "src/pg/extension.h"

/*
 * Grant `role` the level "viewer" or "operator" (which includes the former);
 * one that had more keeps no more than that.  As the caller, who must be
 * allowed to grant.  Needs SPI.
 */
extern void access_grant(const Extension *extension, Oid role, const char *level);
extern void access_revoke(const Extension *extension, Oid role);

#endif							/* AUDIO_CLEANUP_ACCESS_H */
