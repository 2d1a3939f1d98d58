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
 * Loads the library `name` from the server's library folder, and calls its
 * function `function`, which has no parameters and returns the table of the
 * library's other functions.  Returns that table.  Returns NULL if the
 * library cannot be loaded, and sets *error to the loader's message,
 * allocated in the current memory context.  Never raises an ERROR of the
 * loader: nothing is rolled back, so the caller must have nothing locked or
 * open.  Does not need SPI.
 */
extern const void *library_load(const char *name, const char *function, const char **error);

/*
 * Returns whether an interrupt is pending, for a place where no ERROR may be
 * raised: a library that waits for a network calls this function, and so does
 * a store that copies a file.  Absorbs a barrier, so that DROP DATABASE in
 * another session does not wait for that network or copy.  Never raises an
 * ERROR; does not need SPI.
 */
extern bool library_should_stop(void);

#endif							/* AUDIO_CLEANUP_PG_LIBRARY_H */
