/*-------------------------------------------------------------------------
 *
 * names/private.h
 *	  Declarations that only the files of names/ share.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_NAMES_PRIVATE_H
#define AUDIO_CLEANUP_NAMES_PRIVATE_H

#include "mb/pg_wchar.h"

#include "src/names/file_key.h"
#include "src/names/rules.h"

#define HASH_FACTOR			UINT64CONST(0x9E3779B97F4A7C15)

/* Longest extension that tells anything, in bytes. */
#define EXTENSION_MAX		10

/* A normalised path. */
typedef struct Canonical
{
	size_t		len;
	char		text[KEY_STRICT_MAX + 1];
} Canonical;

/* The parameters with which the keys of a file are made. */
typedef struct KeyMaker
{
	const KeyRules *rules;
	bool		exact;			/* make keys of the exact letters, without
								 * folding */
	int			families;		/* mask of the families that are wanted */
	KeySink		sink;
	void	   *arg;
} KeyMaker;

/* Returns whether `c` is a space. isspace() may see spaces in bytes of UTF-8. */
static inline bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/*
 * Adds a letter to the hash of a key.  The hash goes backwards through the
 * text of the key, so that a search that goes backwards adds one letter at
 * each step.
 */
static inline uint64
extend_hash(uint64 hash, char c)
{
	return hash * HASH_FACTOR + (unsigned char) c + 1;
}

static inline uint64
mix_hash(uint64 hash)
{
	hash ^= hash >> 32;
	hash *= UINT64CONST(0xD6E8FEB86659FD93);
	hash ^= hash >> 32;
	hash *= UINT64CONST(0xD6E8FEB86659FD93);
	return hash ^ hash >> 32;
}

/* Returns the key of a hash. 0 is no key. */
static inline uint64
key_of_mixed(KeyFamily family, uint64 mixed)
{
	uint64		key = mixed ^ (uint64) family * HASH_FACTOR;

	return key != 0 ? key : 1;
}

static inline void
set_bit(uint8 *bits, uint64 number)
{
	bits[number / 8] |= 1 << (number % 8);
}

static inline bool
has_bit(const uint8 *bits, uint64 number)
{
	return (bits[number / 8] & (1 << (number % 8))) != 0;
}

/* Returns whether no file of the scope has this key.  The scope must be settled. */
static inline bool
filter_lacks(const KeyScope *scope, uint64 key)
{
	return !has_bit(scope->filter, key & scope->filter_mask);
}

static inline unsigned
end_number(char last_but_one, char last)
{
	return ((unsigned char) last * 67 + (unsigned char) last_but_one) % KEY_ENDS;
}

/*
 * Returns whether the first `len` bytes of `text` may end with a name.
 * `ends` has the ends of all names.
 */
static inline bool
may_end(const uint8 *ends, const char *text, size_t len)
{
	return len < 2 || has_bit(ends, end_number(text[len - 2], text[len - 1]));
}

/*
 * fold.c
 *
 * `utf8` tells whether a text is UTF-8; if not, only its ASCII is folded.
 */

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

/* readings.c */

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

/* path.c */

/*
 * Fills `path` with the components of the first `len` bytes of `text`,
 * KEY_STRICT_MAX at most.  "" and "." are left out, ".." is resolved without
 * asking the disk, and unless `exact`, the components are folded.
 */
extern void path_normalise(const KeyRules *rules, bool exact, const char *text, size_t len,
						   Canonical *path);

/* Returns the place at which the last component of the first `len` bytes of `text` begins. */
extern size_t path_last_component(const char *text, size_t len);

/* Returns the place of the dot of the last component's extension, or `len`. */
extern size_t path_find_dot(const char *text, size_t len);

/*
 * Returns whether the `len` bytes of `text` behind a dot are an extension of
 * audio, whether files with that extension are cleaned or not.
 */
extern bool path_is_extension(const KeyRules *rules, const char *text, size_t len);

/*
 * Returns the length of `text` without its extension, if the extension is one
 * of audio, else `len`.
 */
extern size_t path_stem_length(const KeyRules *rules, const char *text, size_t len);

/* file_key.c */

/* Calls the maker's sink for the keys of the file `path`. */
extern void keys_of_path(const KeyMaker *maker, const char *path);

/* scope.c */

/* Adds the pending keys to the index and the filter, before keys are looked up. */
extern void scope_settle(KeyScope *scope);

/* Starts to fetch the memory of the index for this key. */
extern void scope_fetch(const KeyScope *scope, uint64 key);

/* strict.c */

/*
 * Returns whether the value of `len` bytes names the file `path` letter for
 * letter.  `scope` must have this file only.
 */
extern bool names_strictly(const KeyRules *rules, const KeyScope *scope, const char *value,
						   size_t len, const char *path);

#endif							/* AUDIO_CLEANUP_NAMES_PRIVATE_H */
