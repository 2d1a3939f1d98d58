/*-------------------------------------------------------------------------
 *
 * pg/shmem.h
 *	  Pieces of shared memory, for a library that is preloaded.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SHMEM_H
#define AUDIO_CLEANUP_SHMEM_H

#include "storage/lwlock.h"

/*
 * Requests `size` bytes of shared memory under the name `name`, and the one
 * lock of all such pieces, the tranche EXTENSION_NAME.  Must be
 * called by _PG_init() while the library is preloaded.  Each process that
 * starts calls attach(memory, is_new), under a lock.  With `is_new`, attach()
 * must fill the memory.  Never raises an ERROR, and does not need SPI.
 */
extern void shmem_request(const char *name, Size size, void (*attach) (void *memory, bool is_new));

#endif							/* AUDIO_CLEANUP_SHMEM_H */
