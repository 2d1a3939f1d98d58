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
