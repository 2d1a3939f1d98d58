/*-------------------------------------------------------------------------
 *
 * names/file_key.h
 *	  Decides whether a text names a file. Pure functions.
 *
 * This header has the rules by which a reference protects a file.
 *
 * A reference is the text that an application wrote into a column: a bare
 * name, a path, a URL, a list of these, a document that mentions names.  A
 * file is a path relative to the upload directory.  A file has *keys*, and a
 * reference has the keys of all names that it may contain.  A reference
 * protects a file if and only if the two have a key in common.  Because every
 * rule is an equality of keys, the match over millions of rows is a hash join.
 *
 *	family		a file "d/abc_processed.mp3" has	matched by
 *	PATH		its path							that path, in whatever folder
 *	TAIL		every shorter tail of its path		that tail, without a folder before it
 *	STEM[_TAIL]	path, tails without the extension	these, with no extension behind
 *	DERIVED[_TAIL]	stems without the suffix		these, with any extension or none
 *
 * A reference is not parsed, but searched for the names of files.  A whole
 * word of the reference is a name if a file has that name, whatever letters
 * are in the name.  So only existing names are searched for: KeyScope knows
 * the files.  The reference is searched in several readings (percent-decoded,
 * without HTML's entities, and more: see readings_of()).  A wrong reading can
 * only keep a file too long.  A collision of the 64-bit hashes of keys can do
 * no more, either.  A caller that condemns a file because of a match must call
 * key_compare(), which compares the texts.
 *
 * The functions are pure: no function uses SQL or a setting, and the only
 * ERROR is out of memory, unless key_pause() raises an ERROR.  Memory is
 * allocated in the current memory context, except the memory of a scope.
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

/* The families of the tails of these families of whole paths. */
#define KEY_TAILS_OF(families)	((families) << 1)

#define KEY_ENDS			8192
#define KEY_LENGTHS			256

/* No file has a longer name or path. */
#define KEY_PATH_MAX		4096

/*
 * A longer value never names a file strictly (see key_compare()):
 * percent-encoding triples the bytes of a path.
 */
#define KEY_STRICT_MAX		(4 * KEY_PATH_MAX)

/* The settings about names: see rules.h. */
typedef struct KeyRules KeyRules;

#define KEY_PENDING			16

/*
 * All files that are matched together.  Only the first five members are set by
 * the caller; all other members begin as zeros.
 */
typedef struct KeyScope
{
	struct MemoryContextData *context;	/* context of the scope's memory;
										 * NULL: the current one when the
										 * first file is added */
	size_t		filter_max;		/* limit for the filter in bytes; 0: a MiB */
	size_t		keys_max;		/* limit for the keys in bytes; 0: a MiB */
	size_t		keys_expected;	/* number of keys that may come, see
								 * key_count_most(); of more keys, the filter
								 * alone knows */
	uint64		seed;			/* a number that nobody can guess; with 0,
								 * somebody can choose names that make the
								 * search slow */
	bool		any_folder;		/* set by the caller: a reference means all
								 * files of its name, whatever folders stand
								 * before the name, because a symlink or a
								 * mount may lead to the files */
	uint32		n_files;
	int			depth;			/* number of components of the deepest path */
	bool		derived;		/* whether any file is derived from another
								 * file */
	size_t		longest;		/* length of the longest key in bytes */
	bool		too_many;		/* the keys need more than keys_max, or were
								 * not expected, and only the filter knows
								 * them */

	/* an index of the keys; the number of a key is its place */
	size_t		n_keys;
	size_t		n_places;
	uint64	   *places;			/* NULL: no key has come, or too_many */

	/* keys that are on the way into the index */
	int			n_pending;
	struct
	{
		uint64		key;
		uint32		file;
	}			pending[KEY_PENDING];

	/* keys of references that are looked up later: see key_of_many() */
	int			n_asked;
	int			n_let_through;	/* keys that the filter has let through */
	struct KeyAsked
	{
		KeyFamily	family;
		uint64		key;
	}			asked[KEY_PENDING],
				let_through[KEY_PENDING];

	uint64		filter_mask;	/* number of the filter's bits, which is a
								 * power of two, minus one */
	uint8	   *filter;			/* one bit for a key; NULL: no key has come */

	/* the ends of names and of stems, by a hash of their last two letters */
	uint8		name_ends[KEY_ENDS / 8];
	uint8		stem_ends[KEY_ENDS / 8];

	/* the lengths of keys in bytes; bit 0 stands for all greater lengths */
	uint8		lengths[KEY_LENGTHS / 8];
} KeyScope;

/*
 * Called now and then while a long value is searched, unless NULL.  May raise
 * an ERROR: the server takes interrupts here.
 */
extern void (*key_pause) (void);

/* Receives each key of a file or a reference.  `text` has `len` bytes and no NUL at its end. */
typedef void (*KeySink) (KeyFamily family, uint64 key, const char *text, size_t len, void *arg);

typedef enum KeyMatch
{
	KEY_NO_MATCH,
	KEY_LOOSE_MATCH,			/* enough to keep the file */
	KEY_STRICT_MATCH			/* the reference names exactly this file,
								 * letter for letter: enough to condemn the
								 * file as well */
} KeyMatch;

/*
 * Returns whether the extension of the file `path` is the extension of files
 * that may be cleaned.
 */
extern bool key_is_audio(const KeyRules *rules, const char *path);

/* Adds the file `path`, with all its keys, to `scope`. */
extern void key_widen_scope(const KeyRules *rules, const char *path, KeyScope *scope);

/* Frees the memory of the scope. */
extern void key_forget_scope(KeyScope *scope);

/* Returns a number that is not less than that of the keys of the file at `path`. */
extern size_t key_count_most(const KeyRules *rules, const char *path);

/*
 * Returns the number, below n_places, of a key that key_of_reference() has
 * found; -1 if there are too_many keys.  The numbers change with each file that
 * is added.
 */
extern int64 key_number(const KeyScope *scope, uint64 key);

typedef void (*KeyNumberSink) (int64 number, int64 file, bool is_shared, void *arg);

/*
 * Calls sink(number, file, is_shared, arg) for each key, with the first file
 * that has it.  `file` is the number of the file, from 0 in the order in which
 * files were added.  `is_shared` says that other files have the key, too.  Does
 * nothing if there are too_many keys.
 */
extern void key_each_number(KeyScope *scope, KeyNumberSink sink, void *arg);

/*
 * Calls `sink` for the keys of the file `path` that belong to one of the
 * families in the mask `families`.
 */
extern void key_of_file(const KeyRules *rules, const char *path, int families,
						KeySink sink, void *arg);

/*
 * Calls `sink` for the keys of a reference of `len` bytes that some file of
 * the scope has.  A key may come more than once.  With too_many keys, a key
 * may also come that no file has.
 */
extern void key_of_reference(const KeyRules *rules, KeyScope *scope,
							 const char *reference, size_t len,
							 KeySink sink, void *arg);

/*
 * Returns whether the reference of `len` bytes has a key that some file of the
 * scope has.  With too_many keys, the result may be true although no file has
 * such a key.
 */
extern bool key_refers(const KeyRules *rules, KeyScope *scope,
					   const char *reference, size_t len);

/*
 * Calls `sink` for the keys of a reference, as key_of_reference() does, but
 * for some of them only at a later call, or at key_of_many_end().  The texts
 * of such late keys are NULL.  The function is for many references one after
 * another, with one sink and argument: no reference has to wait for memory.
 */
extern void key_of_many(const KeyRules *rules, KeyScope *scope,
						const char *reference, size_t len,
						KeySink sink, void *arg);
extern void key_of_many_end(KeyScope *scope, KeySink sink, void *arg);

/*
 * Returns whether the reference has a letter or a digit.  Without one, a
 * reference means nothing.
 */
extern bool key_may_refer(const KeyRules *rules, const char *reference, size_t len);

/*
 * Returns whether the reference of `len` bytes means the file `path`.
 * Compares the texts, and not only their hashes.
 */
extern KeyMatch key_compare(const KeyRules *rules, const char *reference,
							size_t len, const char *path);

#endif							/* AUDIO_CLEANUP_FILE_KEY_H */
