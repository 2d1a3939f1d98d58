/*-------------------------------------------------------------------------
 *
 * plan/seen.h
 *	  What the survey has seen of the files that are looked at again.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SEEN_H
#define AUDIO_CLEANUP_SEEN_H

#include "src/store/store.h"

typedef struct Seen Seen;

/* Begins in the current memory context; what does not fit into a block is in a temporary file of the transaction. */
extern Seen *seen_begin(void);

/* Adds the identity of the next file: their numbers are 0, 1, 2 ... */
extern void seen_add(Seen *seen, const FileIdentity *identity);

/* Sets *identity to that of the file with this number. */
extern void seen_get(Seen *seen, int64 number, FileIdentity *identity);

/* Ends it; NULL is allowed. */
extern void seen_end(Seen *seen);

#endif							/* AUDIO_CLEANUP_SEEN_H */
