/*-------------------------------------------------------------------------
 *
 * pg/shmem.h
 *	  Pieces of shared memory, where the library is preloaded.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SHMEM_H
#define AUDIO_CLEANUP_SHMEM_H

#include "storage/lwlock.h"

/*
 * Asks for `size` bytes under the name `name`; from _PG_init(), while the
 * library is being preloaded.  attach(memory, is_new) is called in each process
 * that starts, under a lock; with `is_new` it has to fill the memory.
 */
extern void shmem_request(const char *name, Size size, void (*attach) (void *memory, bool is_new));

/* Returns the one lock that the extension's shared memory has. */
extern LWLock *shmem_lock(void);

#endif							/* AUDIO_CLEANUP_SHMEM_H */
