/*-------------------------------------------------------------------------
 *
 * names/file_key.h
 *	  When does a reference protect a file?  (DESIGN: matching rules)
 *
 * A reference is whatever an application wrote into a column: a bare name, a
 * path, a URL, a list of them, a document that mentions them.  A file is a path
 * relative to the upload directory.  A file has *keys*; a reference has the
 * keys of all names that may stand in it; and a reference protects a file
 * exactly when they have a key in common.  Because every rule is an equality
 * of keys, the match over millions of rows stays a hash join.
 *
 *	family		a file "d/abc_processed.mp3" has	matched by
 *	PATH		its path							that path, in whatever folder
 *	TAIL		every shorter tail of it			that tail, without a folder before it
 *	STEM[_TAIL]	the same without the extension		the same, no extension behind it
 *	DERIVED[_TAIL]	the same without the suffix		the same, with any extension or none
 *
 * Names are found in a reference, not parsed out of it: what stands in it as a
 * whole word is a name if a file has it, whatever is inside the name.  So a
 * reference is only asked for names that exist: KeyScope knows the files.  The
 * reference is searched in several readings (percent-decoded, without HTML's
 * entities ...: see readings.h).  A wrong reading costs nothing but a file
 * kept too long.  So does a collision of the 64-bit hashes of keys; who
 * condemns because of a match, instead of keeping, asks key_compare(), which
 * compares the texts.
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

#define KEY_ENDS			8192
#define KEY_LENGTHS			256

/* A name or path that is longer is none of a file. */
#define KEY_PATH_MAX		4096

/*
 * A value longer than this never names a file strictly (see key_compare()):
 * percent-encoding triples the bytes of a path.
 */
#define KEY_STRICT_MAX		(4 * KEY_PATH_MAX)

/* What the settings say of names: see rules.h. */
typedef struct KeyRules KeyRules;

#define KEY_PENDING			16

/*
 * What is known of all files that are matched together.  Begins as zeros, but
 * for the first five members.
 */
typedef struct KeyScope
{
	struct MemoryContextData *context;	/* of what it allocates; NULL: that
										 * which is current at its first file */
	size_t		filter_max;		/* bytes that its filter may take; 0: a MiB */
	size_t		keys_max;		/* bytes that its keys may take; 0: a MiB */
	size_t		keys_expected;	/* so many may come, see key_count_most(); 0:
								 * that is not known */
	uint64		seed;			/* a number that nobody can guess, or 0: then
								 * names can be made for which it is slow */
	uint32		n_files;
	int			depth;			/* components of the deepest path */
	bool		derived;		/* is any of them a derived file? */
	size_t		longest;		/* bytes of the longest key */
	bool		too_many;		/* for keys_max: nothing but the filter knows
								 * the keys */

	/* an index of the keys; the number of a key is its place */
	size_t		n_keys;
	size_t		n_places;
	uint64	   *places;			/* NULL: not yet made, or too_many */

	/* keys, and their files, of which the index is yet to be made */
	size_t		n_gathered;
	size_t		gathered_size;
	uint64	   *gathered;
	uint32	   *gathered_of;

	/* keys that are on the way into the index */
	int			n_pending;
	struct
	{
		uint64		key;
		uint32		file;
	}			pending[KEY_PENDING];

	/* keys of references that are asked for later; see key_of_many() */
	int			n_asked;
	int			n_let_through;	/* by the filter */
	struct KeyAsked
	{
		KeyFamily	family;
		uint64		key;
	}			asked[KEY_PENDING],
				let_through[KEY_PENDING];

	uint64		filter_mask;	/* number of its bits, a power of two, less
								 * one */
	uint8	   *filter;			/* of one probe; NULL: not yet made */

	/* how names and how stems end, by a hash of their last two letters */
	uint8		name_ends[KEY_ENDS / 8];
	uint8		stem_ends[KEY_ENDS / 8];

	/* how long keys are, in bytes; of all that are longer, bit 0 */
	uint8		lengths[KEY_LENGTHS / 8];
} KeyScope;

/*
 * Is called now and then while a long value is searched, and may raise an
 * error; NULL: nothing is.  The server lets itself be cancelled there.
 */
extern void (*key_pause) (void);

/* Receives each key of a file or a reference; text is not NUL-terminated. */
typedef void (*KeySink) (KeyFamily family, uint64 key, const char *text, size_t len, void *arg);

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

/* Widen `scope` so that it covers the file at `path`, with all its keys. */
extern void key_widen_scope(const KeyRules *rules, const char *path, KeyScope *scope);

/* Free what the scope has allocated. */
extern void key_forget_scope(KeyScope *scope);

/* Returns a number that is not less than that of the keys of the file at `path`. */
extern size_t key_count_most(const KeyRules *rules, const char *path);

/*
 * Returns the number, below n_places, of a key that key_of_reference() has
 * passed on; -1 if there are too_many.  Numbers change with each file that is
 * added.
 */
extern int64 key_number(const KeyScope *scope, uint64 key);

typedef void (*KeyNumberSink) (int64 number, int64 file, bool is_shared, void *arg);

/*
 * Passes on the number of each key, with the first file that has it: its number,
 * in the order in which files were added, from 0.  `is_shared` says that other
 * files have it, too.  Nothing, if there are too_many keys.
 */
extern void key_each_number(KeyScope *scope, KeyNumberSink sink, void *arg);

/* The keys of the file at `path`, of the families in the mask `families`. */
extern void key_of_file(const KeyRules *rules, const char *path, int families,
						KeySink sink, void *arg);

/*
 * The keys of a reference of `len` bytes that some file of the scope has; a
 * key may come more than once, and with too_many keys now and then one comes
 * that no file has.
 */
extern void key_of_reference(const KeyRules *rules, KeyScope *scope,
							 const char *reference, size_t len,
							 KeySink sink, void *arg);

/*
 * Passes on the keys of a reference as key_of_reference() does, but some of
 * them only with a later reference, or at the end; and their texts are NULL.
 * For many references one after another, with the same sink and argument:
 * they need not wait for memory.
 */
extern void key_of_many(const KeyRules *rules, KeyScope *scope,
						const char *reference, size_t len,
						KeySink sink, void *arg);
extern void key_of_many_end(KeyScope *scope, KeySink sink, void *arg);

/* Does the reference hold a letter or a digit, without which it means nothing? */
extern bool key_may_refer(const KeyRules *rules, const char *reference, size_t len);

/* Does this reference mean this file, by the texts and not their hashes? */
extern KeyMatch key_compare(const KeyRules *rules, const char *reference,
							size_t len, const char *path);

#endif							/* AUDIO_CLEANUP_FILE_KEY_H */
