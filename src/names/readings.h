/*-------------------------------------------------------------------------
 *
 * names/readings.h
 *	  What a text says when what is escaped in it is decoded.
 *
 * Pure functions: no SQL, no settings, no errors raised but out of memory.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_READINGS_H
#define AUDIO_CLEANUP_READINGS_H

typedef void (*ReadingSink) (const char *text, size_t len, void *arg);

/*
 * Passes `len` bytes of `text` to `sink` as they are, and then in each other
 * reading: percent-decoded (also twice), HTML entities decoded (also twice),
 * escapes of JSON, PHP, C and the shell decoded (also twice), doubled quotes
 * as one, "+" as a space, backslashes as slashes, and "." and ".." of paths
 * resolved; also several of these one after another.  A reading comes once.
 */
extern void readings_of(const char *text, size_t len, ReadingSink sink, void *arg);

/*
 * Percent-decodes `len` bytes of `text` into `out`, which has room for `len`
 * and may be `text` itself.  Returns the new length.
 */
extern size_t readings_decode_percent(const char *text, size_t len, char *out);

#endif							/* AUDIO_CLEANUP_READINGS_H */
