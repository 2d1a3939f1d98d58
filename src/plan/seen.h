/*-------------------------------------------------------------------------
 *
 * plan/seen.h
 *	  The identities that the survey has seen of files that are looked at again.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SEEN_H
#define AUDIO_CLEANUP_SEEN_H

#include "src/store/store.h"

typedef struct Seen Seen;

/*
 * Returns an empty list in the current memory context.  Its content is in a
 * temporary file of the transaction.  A failure to read or write that file is an
 * ERROR.
 */
extern Seen *seen_begin(void);

/* Adds the identity of the next file, whose number is 0, 1, 2 ... */
extern void seen_add(Seen *seen, const FileIdentity *identity);

/* Sets *identity to the identity of the file with this number. */
extern void seen_get(Seen *seen, int64 number, FileIdentity *identity);

/* Frees the list, and its file.  NULL is allowed. */
extern void seen_end(Seen *seen);

#endif							/* AUDIO_CLEANUP_SEEN_H */
