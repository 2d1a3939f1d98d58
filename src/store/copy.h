/*-------------------------------------------------------------------------
 *
 * store/copy.h
 *	  A copy of a file on another file system that can be relied on.
 *
 * Knows descriptors only: which files, and what becomes of them, is
 * decided by copy_out.c and put_back.c.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_FILE_COPY_H
#define AUDIO_CLEANUP_FILE_COPY_H

#include "src/store/private.h"

/* so much is copied between two questions whether to stop */
#define COPY_CHUNK	(1024 * 1024)

/*
 * Is somebody waiting for us to stop?  NULL: never.
 */
typedef bool (*CopyStop) (void);

/*
 * Reads `size` bytes at `offset`.  Returns how many were read, less than
 * `size` at the end of the file only; -1 with errno.
 */
extern ssize_t copy_read(int fd, char *buffer, size_t size, int64 offset);

/* Writes `size` bytes at `offset`.  Returns 0 or an errno. */
extern int	copy_write(int fd, const char *buffer, size_t size, int64 offset);

/*
 * Makes `to` (open for reading and writing, empty, ours) the same as `from`
 * (open for reading; looked at before: `look`): content, holes, permissions,
 * mtime, and as far as either file system and our rights allow it owner,
 * group, extended attributes and ACLs.  On return it is fsynced, and was read
 * back and compared.  Returns 0, or an errno and *action (static text): EINTR
 * if it was stopped.  What is in `to` then is of no use.
 */
extern int	copy_make(int from, const FileLook *look, int to, CopyStop stop,
					  const char **action);

/*
 * Do both hold the same `size` bytes, and no more?  Returns 0 or an errno,
 * EINTR included.
 */
extern int	copy_compare(int a, int b, int64 size, CopyStop stop, bool *same);

#endif							/* AUDIO_CLEANUP_FILE_COPY_H */
