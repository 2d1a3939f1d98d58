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

/* Returns whether the copy is to be given up.  NULL stands for never. */
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
 * writing.  Returns 0 when the copy was fsynced, read back and compared.  Else
 * returns an errno, EINTR if stop() said so, and sets *failure to a static
 * text (see FileResult); the content of `to` is of no use then.
 */
extern int	copy_make(int from, const FileLook *look, int to, CopyStop stop,
					  const char **failure);

/*
 * Sets *same to whether the files `a` and `b` hold the same `size` bytes, and
 * no more.  Returns 0 or an errno, EINTR if stop() said so.
 */
extern int	copy_compare(int a, int b, int64 size, CopyStop stop, bool *same);

#endif							/* AUDIO_CLEANUP_FILE_COPY_H */
