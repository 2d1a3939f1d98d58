/*-------------------------------------------------------------------------
 *
 * file_key.h
 *	  When does a reference protect a file?  (DESIGN: matching rules)
 *
 * A reference is whatever an application wrote into a column: a bare name, a
 * path, a URL.  A file is a path relative to the upload directory.  Both are
 * turned into *keys*, and a reference protects a file exactly when they have
 * a key in common.  Because every rule is an equality of keys, the match over
 * millions of rows stays a hash join.
 *
 *	family		a file "d/abc_processed.mp3" has	matched by a reference
 *	PATH		its path							whose tail is that path
 *	TAIL		every shorter tail of it			that is that tail
 *	STEM[_TAIL]	the same without the extension		without an audio extension
 *	DERIVED[_TAIL]	the same without the suffix		its extension taken off
 *
 * A reference is read generously: several readings of it (with and without
 * its "?query", percent-decoded and not, backslashes as slashes, literally,
 * and each piece of what looks like a list) each yield keys.  A wrong reading
 * costs nothing but a file kept too long.  So does a collision of the 64-bit
 * hashes of keys; who condemns because of a match, instead of keeping, asks
 * key_compare(), which compares the texts.
 *
 * Pure functions: no SQL, no settings, no errors raised but out of memory.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_FILE_KEY_H
#define AUDIO_CLEANUP_FILE_KEY_H

typedef enum KeyFamily
{
	KEY_PATH = 1 << 0,
	KEY_TAIL = 1 << 1,
	KEY_STEM = 1 << 2,
	KEY_STEM_TAIL = 1 << 3,
	KEY_DERIVED = 1 << 4,
	KEY_DERIVED_TAIL = 1 << 5
} KeyFamily;

#define KEY_ALL_FAMILIES	0x3F

typedef struct KeyRules
{
	int			n_extensions;	/* 0: any file may be cleaned */
	char	  **extensions;		/* lower case, without the dot */
	int			n_suffixes;
	char	  **suffixes;		/* case folded, as in "_processed" */
	bool		utf8;			/* are names UTF-8 (else: bytes)? */
	const char *upload_dir;		/* where the files are, for KEY_STRICT_MATCH;
								 * NULL: anywhere */
} KeyRules;

/*
 * What is known of all files that are matched together; it keeps the number
 * of keys a reference needs at one for a flat directory.
 */
typedef struct KeyScope
{
	int			depth;			/* components of the deepest path */
	bool		derived;		/* is any of them a derived file? */
} KeyScope;

/* Receives each key of a file or a reference; text is not NUL-terminated. */
typedef void (*KeySink) (KeyFamily family, const char *text, size_t len, void *arg);

typedef enum KeyMatch
{
	KEY_NO_MATCH,
	KEY_LOOSE_MATCH,			/* enough to keep the file */
	KEY_STRICT_MATCH			/* the reference names this very file, in
								 * these very letters: enough to condemn it
								 * too */
} KeyMatch;

/* May a file of this name be cleaned at all, by its extension? */
extern bool key_is_audio(const KeyRules *rules, const char *path);

/* Widen `scope` so that it covers the file at `path`. */
extern void key_widen_scope(const KeyRules *rules, const char *path, KeyScope *scope);

/* The keys of the file at `path`, of the families in the mask `families`. */
extern void key_of_file(const KeyRules *rules, const char *path, int families,
						KeySink sink, void *arg);

/* The keys of a reference of `len` bytes; a key may come more than once. */
extern void key_of_reference(const KeyRules *rules, const KeyScope *scope,
							 const char *reference, size_t len,
							 KeySink sink, void *arg);

/* 64-bit hash of a key, the same in every process of a machine. */
extern uint64 key_hash(KeyFamily family, const char *text, size_t len);

/* Does this reference mean this file, by the texts and not their hashes? */
extern KeyMatch key_compare(const KeyRules *rules, const char *reference,
							size_t len, const char *path);

#endif							/* AUDIO_CLEANUP_FILE_KEY_H */
