/*-------------------------------------------------------------------------
 *
 * names/fold.h
 *	  Folds texts: without case, and with one form of each letter.
 *
 * The functions are pure: no function uses SQL or a setting, and the only
 * ERROR is out of memory.  `utf8` tells whether a text is UTF-8; if not, only
 * its ASCII is folded.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_TEXT_FOLD_H
#define AUDIO_CLEANUP_TEXT_FOLD_H

#include "mb/pg_wchar.h"

/* Limit for a component of a path in bytes: 255 letters, each of three letters of three bytes. */
#define FOLD_COMPONENT_MAX	(255 * 9)

/* Returns `c` in lower case, if it is a capital letter of ASCII, else `c`. */
static inline char
fold_ascii(char c)
{
	return (c >= 'A' && c <= 'Z') ? c + ('a' - 'A') : c;
}

/*
 * Returns the length of the valid letter of UTF-8 at `text`, or 0 if the `len`
 * bytes do not begin with such a letter.
 */
static inline size_t
utf8_letter_length(const char *text, size_t len)
{
	size_t		n = pg_utf_mblen((const unsigned char *) text);

	return n <= len && pg_utf8_islegal((const unsigned char *) text, (int) n) ? n : 0;
}

/*
 * Folds a text of `len` bytes: makes it lower case and composed, and makes
 * no-break spaces and invisible marks plain spaces.  Returns a new text,
 * palloc'd, and sets *folded_len to its length.  Bytes that are not valid
 * UTF-8 stay as they are.
 */
extern char *fold_text(bool utf8, const char *text, size_t len, size_t *folded_len);

/*
 * Folds `len` bytes of `text` into `folded`, if all of these bytes are ASCII.
 * Otherwise returns false, and the content of `folded` is undefined.
 */
extern bool fold_ascii_text(const char *text, size_t len, char *folded);

/*
 * Folds `len` bytes of `text`, one component of a path, in place, as
 * fold_text() does.  Returns the new length, which is at most `room`.  A text
 * that would become longer than `room` is folded as ASCII.
 */
extern size_t fold_component(bool utf8, char *text, size_t len, size_t room);

/* The role of a letter of a folded text for the names in the text. */
typedef enum FoldClass
{
	FOLD_BREAK,					/* a letter that ends a name: a blank, a
								 * quote, a comma */
	FOLD_LATIN,					/* a letter that is part of a name: letters of
								 * ASCII, digits, "%" */
	FOLD_OTHER,					/* a letter of another script */
	FOLD_MARK,					/* "_", "-" or "~" */
	FOLD_DOT,
	FOLD_SLASH
} FoldClass;

/* The class of each letter of ASCII. */
extern const uint8 fold_ascii_classes[128];

/*
 * Returns the class of the letter at `text`, which has at most `len` bytes,
 * and sets *step to the length of the letter in bytes.
 */
extern FoldClass fold_class(bool utf8, const char *text, size_t len, int *step);

#endif							/* AUDIO_CLEANUP_TEXT_FOLD_H */
