/*-------------------------------------------------------------------------
 *
 * names/scope.c
 *	  The names that exist: their keys, a filter, and their ends.
 *
 * A key of a reference is first looked up in the filter, which is small enough
 * for the processor's cache, and drops most keys that no file has.  A key that
 * the filter lets through is looked up in the index, which knows all keys of
 * files.  If the keys are too many for the memory that they may take, there is
 * no index, but a larger filter.
 *
 * The index is a hash table with linear probing.  A place takes eight bytes:
 * 31 bits of the key, and the number of the first file that has it.  So once
 * in hundreds of millions of questions, a key that no file has is taken for
 * the key of a file.  Such a mistake keeps a file, and for one run only,
 * because the next run has another seed.
 *
 * The cost of the index is waiting for memory.  So several keys are put into
 * the index, or looked up, at a time, and their places are fetched meanwhile.
 * The caller says how many keys will come (keys_expected): the index is made in
 * its full size with the first key.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <limits.h>
#include <sys/mman.h>

#include "port/pg_bitutils.h"

#include "src/names/private.h"

#define KEYS_MAX			(1024 * 1024)	/* bytes */
#define FILTER_BITS_PER_KEY 32
#define FILTER_MIN			64	/* bytes */
#define FILTER_MAX			(1024 * 1024)

#define LARGE_PAGE			(2 * 1024 * 1024)	/* bytes */

/* The content of a place of the index; 0: the place is empty. */
#define PLACE_FILE			UINT64CONST(0xFFFFFFFF) /* the number of the file,
													 * plus one */
#define PLACE_SHARED		(UINT64CONST(1) << 32)	/* other files have the
													 * key, too */
#define PLACE_TAG			33	/* the first bit of the tag of the key */

/* Allocates memory of the scope. */
static void *
scope_alloc(KeyScope *scope, size_t bytes)
{
#ifdef FRONTEND
	return palloc(bytes);
#else
	if (scope->context == NULL)
		scope->context = CurrentMemoryContext;
	return MemoryContextAllocHuge(scope->context, bytes);
#endif
}

/*
 * Asks the kernel for large pages, whose addresses are found faster.  The
 * kernel may refuse.
 */
static void
prefer_large_pages(void *memory, size_t bytes)
{
#ifdef MADV_HUGEPAGE
	char	   *begin = (char *) TYPEALIGN(LARGE_PAGE, memory);
	char	   *end = (char *) TYPEALIGN_DOWN(LARGE_PAGE, (char *) memory + bytes);

	if (begin < end)
		(void) madvise(begin, end - begin, MADV_HUGEPAGE);
#endif
}


/* ----------------------------------------------------------------- index --- */

/*
 * Returns the first place to look for a key.  Anybody may choose names:
 * without a secret seed, somebody could choose a million names that all have
 * the same place.
 */
static inline uint64
scatter(const KeyScope *scope, uint64 key)
{
	return key * (scope->seed | 1);
}

static inline size_t
first_place(const KeyScope *scope, uint64 scattered)
{
	return (size_t) (((scattered >> 32) * scope->n_places) >> 32);
}

/* Returns the place of the key, or the free place where the key belongs. */
static inline size_t
place_of_key(const KeyScope *scope, uint64 key)
{
	uint64		scattered = scatter(scope, key);
	size_t		place = first_place(scope, scattered);
	uint64		tag = scattered << PLACE_TAG >> PLACE_TAG;

	while (scope->places[place] != 0 && scope->places[place] >> PLACE_TAG != tag)
		if (++place == scope->n_places)
			place = 0;
	return place;
}

void
scope_fetch(const KeyScope *scope, uint64 key)
{
	if (scope->places != NULL)
		__builtin_prefetch(&scope->places[first_place(scope, scatter(scope, key))]);
}

int64
key_number(const KeyScope *scope, uint64 key)
{
	size_t		place;

	if (scope->places == NULL)
		return -1;
	place = place_of_key(scope, key);
	return scope->places[place] != 0 ? (int64) place : -1;
}

/*
 * Makes an empty index for the keys that are expected: four places for three
 * keys, and one place that stays free.  Returns false if the `bytes` that the
 * index may take are too few.
 */
static bool
make_index(KeyScope *scope, size_t bytes)
{
	size_t		keys = scope->keys_expected;
	size_t		most = Min(bytes / sizeof(*scope->places), (size_t) UINT32_MAX);

	/* a fuller table is slower, but as exact */
	if (most == 0 || keys > most / 10 * 9)
		return false;
	scope->n_places = Min(keys + keys / 3 + 1, most);
	scope->places = scope_alloc(scope, scope->n_places * sizeof(*scope->places));
	prefer_large_pages(scope->places, scope->n_places * sizeof(*scope->places));
	memset(scope->places, 0, scope->n_places * sizeof(*scope->places));
	scope->n_keys = 0;
	return true;
}

/* Adds a key of a file to the index.  Returns false if there is no room. */
static bool
put_key(KeyScope *scope, uint64 key, uint32 file)
{
	uint64	   *place = &scope->places[place_of_key(scope, key)];

	if (*place == 0)
	{
		if (scope->n_keys + 1 >= scope->n_places)
			return false;
		scope->n_keys++;
		*place = scatter(scope, key) << PLACE_TAG | ((uint64) file + 1);
	}
	else if ((*place & PLACE_FILE) != (uint64) file + 1)
		*place |= PLACE_SHARED;
	return true;
}

static void
forget_index(KeyScope *scope)
{
	if (scope->places != NULL)
		pfree(scope->places);
	scope->places = NULL;
}

void
key_forget_scope(KeyScope *scope)
{
	forget_index(scope);
	if (scope->filter != NULL)
		pfree(scope->filter);
	scope->filter = NULL;
}

void
key_each_number(KeyScope *scope, KeyNumberSink sink, void *arg)
{
	scope_settle(scope);
	for (size_t i = 0; scope->places != NULL && i < scope->n_places; i++)
		if (scope->places[i] != 0)
			sink((int64) i, (int64) (scope->places[i] & PLACE_FILE) - 1, (scope->places[i] & PLACE_SHARED) != 0, arg);
}


/* ---------------------------------------------------------------- filter --- */

/*
 * Makes index and filter for the keys that are expected.  If there is no room
 * for all keys, there is only a filter, which may take half of the index's
 * memory.
 */
static void
begin_keys(KeyScope *scope)
{
	uint64		wanted = (uint64) Min(scope->keys_expected, (size_t) UINT32_MAX) * FILTER_BITS_PER_KEY / BITS_PER_BYTE;
	uint64		most = scope->filter_max > 0 ? scope->filter_max : FILTER_MAX;
	size_t		keys_max = scope->keys_max > 0 ? scope->keys_max : KEYS_MAX;
	uint64		bytes;

	scope->too_many = !make_index(scope, keys_max);
	if (scope->too_many)
		most = Max(most, keys_max / 2);
	bytes = UINT64CONST(1) << pg_leftmost_one_pos64(Max(Min(wanted, most), FILTER_MIN));
	scope->filter = scope_alloc(scope, bytes);
	memset(scope->filter, 0, bytes);
	scope->filter_mask = bytes * BITS_PER_BYTE - 1;
}

void
scope_settle(KeyScope *scope)
{
	for (int i = 0; i < scope->n_pending; i++)
	{
		set_bit(scope->filter, scope->pending[i].key & scope->filter_mask);

		/*
		 * there is no room left, because more keys have come than were
		 * expected
		 */
		if (!scope->too_many && !put_key(scope, scope->pending[i].key, scope->pending[i].file))
		{
			forget_index(scope);
			scope->too_many = true;
		}
	}
	scope->n_pending = 0;
}

static void
put_later(KeyScope *scope, uint64 key, uint32 file)
{
	if (scope->n_pending == KEY_PENDING)
		scope_settle(scope);
	scope->pending[scope->n_pending].key = key;
	scope->pending[scope->n_pending++].file = file;
	scope_fetch(scope, key);
}

/* Notes the end of a name.  A name of one letter may end behind any other letter. */
static void
note_end(uint8 *ends, const char *text, size_t len)
{
	int			first = len > 1 ? (unsigned char) text[len - 2] : 0;
	int			last = len > 1 ? first : UCHAR_MAX;

	for (; first <= last; first++)
		set_bit(ends, end_number((char) first, text[len - 1]));
}

static void
add_scope_key(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	KeyScope   *scope = arg;

	if (len == 0)
		return;
	if (scope->filter == NULL)
		begin_keys(scope);
	put_later(scope, key, scope->n_files);
	scope->longest = Max(scope->longest, len);
	set_bit(scope->lengths, len < KEY_LENGTHS ? len : 0);
	note_end(family & (KEY_PATH | KEY_TAIL) ? scope->name_ends : scope->stem_ends, text, len);
	if (family == KEY_DERIVED)
		scope->derived = true;
}

void
key_widen_scope(const KeyRules *rules, const char *path, KeyScope *scope)
{
	const char *p;
	int			depth = 1;

	for (p = path; *p != '\0'; p++)
		if (*p == '/')
			depth++;
	scope->depth = Max(scope->depth, depth);
	key_of_file(rules, path, KEY_ALL_FAMILIES, add_scope_key, scope);
	scope->n_files++;
}

static void
count_key(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	(*(size_t *) arg)++;
}

/* Returns whether a stem of `len` bytes may end with a suffix of derived files. */
static bool
may_have_suffix(const KeyRules *rules, const char *stem, size_t len)
{
	char		last = len > 0 ? stem[len - 1] : '\0';

	for (int i = 0; i < rules->n_suffixes; i++)
	{
		size_t		n = strlen(rules->suffixes[i]);

		if (n > 0 && (IS_HIGHBIT_SET(last) || IS_HIGHBIT_SET(rules->suffixes[i][n - 1]) ||
					  fold_ascii(last) == fold_ascii(rules->suffixes[i][n - 1])))
			return true;
	}
	return false;
}

/*
 * A file has its path and its tails, as many as components, with and without
 * the extension.  In most cases the last letter tells that the file is not a
 * derived file; otherwise the keys are counted.
 */
size_t
key_count_most(const KeyRules *rules, const char *path)
{
	const char *dot = NULL;
	size_t		components = 1;
	size_t		keys = 0;
	const char *p;

	for (p = path; *p != '\0'; p++)
		if (*p == '/')
		{
			components++;
			dot = NULL;
		}
		else if (*p == '.' && p > path && p[-1] != '/')
			dot = p;
	if (rules->n_prefixes == 0 && rules->n_folders == 0 && !may_have_suffix(rules, path, (dot ? dot : p) - path))
		return 2 * components;
	key_of_file(rules, path, KEY_ALL_FAMILIES, count_key, &keys);
	return keys;
}
