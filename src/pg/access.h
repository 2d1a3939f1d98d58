/*-------------------------------------------------------------------------
 *
 * pg/access.h
 *	  Grants in two levels: viewers may look, operators may clean.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_ACCESS_H
#define AUDIO_CLEANUP_ACCESS_H

#include "src/pg/extension.h"

/*
 * Grants the role `role` the level `level`: "viewer", or "operator", which
 * includes "viewer".  Takes back the rights that the role had beyond that
 * level.  Grants as the caller.  Raises an ERROR if the caller may not grant,
 * or if there is no such level.  Needs SPI.
 */
extern void access_grant(const Extension *extension, Oid role, const char *level);

/*
 * Takes back from the role `role`, as the caller, all rights that
 * access_grant() gave.  Needs SPI.
 */
extern void access_revoke(const Extension *extension, Oid role);

#endif							/* AUDIO_CLEANUP_ACCESS_H */
