/*-------------------------------------------------------------------------
 *
 * pg/library.h
 *	  Libraries of ours that are loaded only where they are needed.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_PG_LIBRARY_H
#define AUDIO_CLEANUP_PG_LIBRARY_H

/*
 * Loads the library `name` of the server's library folder, and calls its
 * function `function`, which has no parameters and returns the table of the
 * library's other functions.  Returns that table; or NULL, and *error becomes
 * the loader's message, in the current memory context.  The caller has nothing
 * locked or open, so that nothing need be rolled back.
 */
extern const void *library_load(const char *name, const char *function, const char **error);

#endif							/* AUDIO_CLEANUP_PG_LIBRARY_H */
