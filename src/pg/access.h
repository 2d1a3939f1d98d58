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
 * Grants `role` the level "viewer", or "operator", which includes the former,
 * and takes back what the role had beyond that.  Grants as the caller: ERROR if
 * he may not, or if there is no such level.  Needs SPI.
 */
extern void access_grant(const Extension *extension, Oid role, const char *level);

/* Takes back from `role`, as the caller, all that access_grant() gave.  Needs SPI. */
extern void access_revoke(const Extension *extension, Oid role);

#endif							/* AUDIO_CLEANUP_ACCESS_H */
