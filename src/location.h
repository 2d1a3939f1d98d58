/*-------------------------------------------------------------------------
 *
 * location.h
 *	  Is this directory a place where files may be deleted at all?
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_LOCATION_H
#define AUDIO_CLEANUP_LOCATION_H

#include "src/brake.h"

/*
 * Returns a brake if `path` (absolute) is missing, is no directory, is the
 * root of the file system, contains PostgreSQL's files or lies among them.
 */
extern Brake *location_check(const char *path);

/* The brake for a directory on which `action` failed with `errnum`. */
extern Brake *location_brake(const char *path, const char *action, int errnum);

#endif							/* AUDIO_CLEANUP_LOCATION_H */
