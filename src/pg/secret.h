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
 * Reads the first line of the file, without its end, into `secret`.  Refuses a
 * file that belongs to somebody else, that its group or others have any right
 * to, that is no regular file, or whose first line is empty or longer than
 * there is room for.  Returns NULL, or what is wrong: a text of which nothing
 * came from the file.
 */
extern const char *secret_read(const char *path, char *secret, size_t size);

/* secret_read() of the whole file, which must be shorter than `size`. */
extern const char *secret_read_whole(const char *path, char *secret, size_t size);

#endif							/* AUDIO_CLEANUP_SECRET_FILE_H */
