/*-------------------------------------------------------------------------
 *
 * names/fold.h
 *	  Texts without case and without the many forms of a letter.
 *
 * Pure functions: no SQL, no settings, no errors raised but out of memory.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_TEXT_FOLD_H
#define AUDIO_CLEANUP_TEXT_FOLD_H

#include "mb/pg_wchar.h"

/* No component of a path is longer: 255 letters, each of three letters of three bytes. */
#define FOLD_COMPONENT_MAX	(255 * 9)

/* `c` in lower case, if it is a capital letter of ASCII. */
static inline char
fold_ascii(char c)
{
	return (c >= 'A' && c <= 'Z') ? c + ('a' - 'A') : c;
}

/*
 * Folds a text of any length: lower case, composed, no-break spaces and marks
 * that nobody sees as plain spaces.  Returns a new text and sets *folded_len;
 * what is not valid UTF-8 in it, or all of it but ASCII without `utf8`, is left
 * alone.
 */
extern char *fold_text(bool utf8, const char *text, size_t len, size_t *folded_len);

/*
 * Folds `len` bytes of `text` into `folded`, if all of them are ASCII; returns
 * false if not, and then what is in `folded` means nothing.
 */
extern bool fold_ascii_text(const char *text, size_t len, char *folded);

/*
 * Folds `len` bytes of `text`, one component of a path, in place and in the same
 * way.  Returns the new length, `room` at most; a text that would outgrow
 * `room` is folded as ASCII.
 */
extern size_t fold_component(bool utf8, char *text, size_t len, size_t room);

/* The role of a letter of a folded text for the names in the text. */
typedef enum FoldClass
{
	FOLD_BREAK,					/* ends a name: a blank, a quote, a comma ... */
	FOLD_LATIN,					/* goes on with it: letters, digits, "%" */
	FOLD_OTHER,					/* a letter of another script */
	FOLD_MARK,					/* "_", "-" or "~" */
	FOLD_DOT,
	FOLD_SLASH
} FoldClass;

/* The class of each letter of ASCII. */
extern const uint8 fold_ascii_classes[128];

/* Returns the class of the letter at `text`, of which *step bytes are one letter. */
extern FoldClass fold_class(bool utf8, const char *text, size_t len, int *step);

#endif							/* AUDIO_CLEANUP_TEXT_FOLD_H */
