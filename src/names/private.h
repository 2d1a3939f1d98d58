/*-------------------------------------------------------------------------
 *
 * names/private.h
 *	  What the files of names/ share, and no other file includes.
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

/* No extension that tells anything is longer. */
#define EXTENSION_MAX		10

/* A normalised path. */
typedef struct Canonical
{
	size_t		len;
	char		text[KEY_STRICT_MAX + 1];
} Canonical;

/* How the keys of a file are made. */
typedef struct KeyMaker
{
	const KeyRules *rules;
	bool		exact;			/* of its very letters, nothing folded */
	int			families;		/* a mask of those that are wanted */
	KeySink		sink;
	void	   *arg;
} KeyMaker;

/* Not isspace(), which may see spaces in bytes of UTF-8. */
static inline bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/*
 * The hash of a key goes backwards through its text, so that a search that
 * goes backwards extends it by one letter at each step.
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

/* No key is 0. */
static inline uint64
key_of_mixed(KeyFamily family, uint64 mixed)
{
	uint64		key = mixed ^ (uint64) family * HASH_FACTOR;

	return key != 0 ? key : 1;
}

/* Has no file of the scope this key?  It is settled. */
static inline bool
filter_lacks(const KeyScope *scope, uint64 key)
{
	uint64		bit = key & scope->filter_mask;

	return (scope->filter[bit / 8] & (1 << (bit % 8))) == 0;
}

static inline unsigned
end_number(char last_but_one, char last)
{
	return ((unsigned char) last * 67 + (unsigned char) last_but_one) % KEY_ENDS;
}

/* May the first `len` bytes of `text` end with a name of which `ends` tells the ends? */
static inline bool
may_end(const uint8 *ends, const char *text, size_t len)
{
	unsigned	n;

	if (len < 2)
		return true;
	n = end_number(text[len - 2], text[len - 1]);
	return (ends[n / 8] & (1 << (n % 8))) != 0;
}

/* May a file have a key of so many bytes? */
static inline bool
may_be_long(const KeyScope *scope, size_t len)
{
	if (len >= KEY_LENGTHS)
		len = 0;
	return (scope->lengths[len / 8] & (1 << (len % 8))) != 0;
}

/* path.c */

/*
 * Fills `path` with the components of `text`, of which `len` bytes are read,
 * KEY_STRICT_MAX at most: "" and "." are left out, ".." is resolved by the
 * letters alone (nothing on disk is asked), and unless `exact` the rest is
 * folded.
 */
extern void path_normalise(const KeyRules *rules, bool exact, const char *text, size_t len,
						   Canonical *path);

/* Returns where the last component of the first `len` bytes of `text` begins. */
extern size_t path_last_component(const char *text, size_t len);

/* Returns where the dot of the extension of the last component is, or `len`. */
extern size_t path_find_dot(const char *text, size_t len);

/* Is this, what stands behind a dot, an extension of audio, be it one that is cleaned or not? */
extern bool path_is_extension(const KeyRules *rules, const char *text, size_t len);

/* Returns the length of `text` without an extension that is one of audio, else `len`. */
extern size_t path_stem_length(const KeyRules *rules, const char *text, size_t len);

/* file_key.c */

/* Passes the keys of the file at `path` to the maker's sink. */
extern void keys_of_path(const KeyMaker *maker, const char *path);

/* scope.c */

/* Makes the scope ready to be asked for keys. */
extern void scope_settle(KeyScope *scope);

/* Has the memory fetched in which the index tells of this key. */
extern void scope_fetch(const KeyScope *scope, uint64 key);

/* Has a file of the scope this key?  With too_many keys: may it have it?  The scope is settled. */
extern bool scope_has_key(const KeyScope *scope, uint64 key);

/* strict.c */

/*
 * Does the value of `len` bytes name the file at `path` to the letter?  The
 * scope is that of this file alone.
 */
extern bool names_strictly(const KeyRules *rules, const KeyScope *scope, const char *value,
						   size_t len, const char *path);

#endif							/* AUDIO_CLEANUP_NAMES_PRIVATE_H */
