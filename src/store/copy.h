/*-------------------------------------------------------------------------
 *
 * store/copy.h
 *	  A reliable copy of a file on another file system.
 *
 * The functions know descriptors only: copy_out.c and put_back.c decide which
 * files are copied, and what becomes of the files.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_FILE_COPY_H
#define AUDIO_CLEANUP_FILE_COPY_H

#include "src/store/private.h"

/* bytes that are copied between two calls of stop() */
#define COPY_CHUNK	(1024 * 1024)

/* Returns whether the copy is to be given up: see is_stopped(). */
typedef bool (*CopyStop) (void);

/*
 * Reads `size` bytes at `offset` into `buffer`.  Returns the number of bytes
 * read, less than `size` at the end of the file only; -1 with errno.
 */
extern ssize_t copy_read(int fd, char *buffer, size_t size, int64 offset);

/* Writes `size` bytes at `offset`.  Returns 0 or an errno. */
extern int	copy_write(int fd, const char *buffer, size_t size, int64 offset);

/*
 * Makes the file `to` a copy of the file `from`: content, holes, permissions,
 * mtime, and as far as both file systems and our rights allow it owner, group,
 * extended attributes and ACLs.  `from` is open for reading, and `look` is an
 * earlier look at `from`.  `to` is empty, ours, and open for reading and
 * writing.  FILE_OK: the copy was fsynced, read back and compared.
 * FILE_NO_SPACE, FILE_FAILED (with EINTR if stop() said so): the content of
 * `to` is of no use.
 */
extern FileResult copy_make(int from, const FileLook *look, int to, CopyStop stop);

/*
 * Compares the files `a` and `b`.  FILE_OK: both hold the same `size` bytes,
 * and no more; FILE_REPLACED: they differ; FILE_FAILED, with EINTR if stop()
 * said so.
 */
extern FileResult copy_compare(int a, int b, int64 size, CopyStop stop);

#endif							/* AUDIO_CLEANUP_FILE_COPY_H */
