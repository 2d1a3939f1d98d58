/*-------------------------------------------------------------------------
 *
 * names/readings.h
 *	  The readings of a text: its meanings with escapes decoded.
 *
 * The functions are pure: no function uses SQL or a setting, and the only
 * ERROR is out of memory.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_READINGS_H
#define AUDIO_CLEANUP_READINGS_H

typedef void (*ReadingSink) (const char *text, size_t len, void *arg);

/*
 * Calls `sink` with `len` bytes of `text` as they are, and then with each
 * other reading: percent-decoded (also twice), HTML entities decoded (also
 * twice), escapes of JSON, PHP, C and the shell decoded (also twice), doubled
 * quotes as one quote, "+" as a space, backslashes as slashes, and "." and
 * ".." of paths resolved; also with several of these steps one after another.
 * If a text has too many readings, `sink` gets some of the readings, and the
 * text with all escapes decoded.
 */
extern void readings_of(const char *text, size_t len, ReadingSink sink, void *arg);

/*
 * Percent-decodes `len` bytes of `text` into `out`, which has room for `len`
 * and may be `text` itself.  Returns the new length.
 */
extern size_t readings_decode_percent(const char *text, size_t len, char *out);

/* Returns the number that the `digits` hexadecimal digits at `text`, which ends at `end`, mean; or -1. */
extern int	readings_hex_number(const char *text, const char *end, int digits);

#endif							/* AUDIO_CLEANUP_READINGS_H */
