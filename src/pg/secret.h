/*-------------------------------------------------------------------------
 *
 * pg/secret.h
 *	  Reading a secret from a file that nobody else can read.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SECRET_FILE_H
#define AUDIO_CLEANUP_SECRET_FILE_H

#define SECRET_FILE_MAX		1024

/*
 * Reads the first line of the file `path`, without its end, into `secret`,
 * which has room for `size` bytes.  Refuses a file that belongs to another
 * user, that gives its group or others any right, that is not a regular file,
 * or whose first line is empty or too long.  Returns NULL, or a text that
 * says what is wrong and that has no content of the file.  The text is
 * constant, or strerror()'s.  Never raises an ERROR, and does not need SPI.
 */
extern const char *secret_read(const char *path, char *secret, size_t size);

/* Does the work of secret_read() for the whole file, which must be shorter than `size` bytes. */
extern const char *secret_read_whole(const char *path, char *secret, size_t size);

#endif							/* AUDIO_CLEANUP_SECRET_FILE_H */
