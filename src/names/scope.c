/*-------------------------------------------------------------------------
 *
 * names/scope.c
 *	  The names that exist: their keys, a filter, and their ends.
 *
 * A key of a reference is first looked up in the filter.  The filter is small
 * enough for the processor's cache, and excludes most keys that no file has.
 * Then the key is looked up in the index, which has all keys.  The filter is
 * made when it is first needed, and so is no larger than necessary.  If there
 * are too many keys for their memory, only the filter is left.
 *
 * The index is a hash table of the numbers of keys.  Its cost is the wait for
 * memory, so several keys are added at a time, and their places are fetched
 * meanwhile.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include <limits.h>

#ifdef FRONTEND
#include "common/fe_memutils.h"
#endif
#include "port/pg_bitutils.h"

#include "src/names/private.h"

#define PLACES_MIN			64
#define KEYS_MAX			(1024 * 1024)	/* bytes */
#define FILTER_BITS_PER_KEY 32
#define FILTER_MIN			64	/* bytes */
#define FILTER_MAX			(1024 * 1024)

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

/* Enlarges an array of the scope, or makes a new one. */
static void *
scope_enlarge(KeyScope *scope, void *array, size_t bytes)
{
	if (array == NULL)
		return scope_alloc(scope, bytes);
#ifdef FRONTEND
	return repalloc(array, bytes);
#else
	return repalloc_huge(array, bytes);
#endif
}

static void
scope_free(void *array)
{
	if (array != NULL)
		pfree(array);
}


/* ----------------------------------------------------------------- index --- */

/*
 * Returns the first place to look for a key.  Anybody may choose names:
 * without a secret seed, somebody could choose a million names with one
 * place.
 */
static inline size_t
first_place(const KeyScope *scope, uint64 key)
{
	return (key * (scope->seed | 1)) >> scope->place_shift;
}

/* Returns the place of the key, or the free place where the key belongs. */
static inline size_t
find_place(const KeyScope *scope, uint64 key)
{
	size_t		place = first_place(scope, key);

	while (scope->places[place] != 0 && scope->keys[scope->places[place] - 1] != key)
		place = (place + 1) & (scope->n_places - 1);
	return place;
}

void
scope_fetch(const KeyScope *scope, uint64 key)
{
	if (scope->places != NULL)
		__builtin_prefetch(&scope->places[first_place(scope, key)]);
}

int64
key_number(const KeyScope *scope, uint64 key)
{
	return scope->places == NULL ? -1 : (int64) scope->places[find_place(scope, key)] - 1;
}

/* Returns the number of keys that fit into the memory that the places and the shared keys leave. */
static size_t
keys_that_fit(const KeyScope *scope, size_t places, size_t shared)
{
	size_t		max = scope->keys_max > 0 ? scope->keys_max : KEYS_MAX;
	size_t		taken = places * sizeof(*scope->places) + shared * sizeof(*scope->shared);

	return (max - Min(max, taken)) / (sizeof(*scope->keys) + sizeof(*scope->owners));
}

/*
 * Makes room for more keys, three for four places.  Returns false if there is
 * no memory for them.
 */
static bool
enlarge_index(KeyScope *scope)
{
	size_t		places = Max(scope->n_places * 2, PLACES_MIN);
	size_t		keys = Min(places / 4 * 3, keys_that_fit(scope, places, scope->shared_size));
	size_t		i;

	if (keys < scope->n_keys + KEY_PENDING || keys >= UINT32_MAX)
		return false;
	scope->keys = scope_enlarge(scope, scope->keys, keys * sizeof(*scope->keys));
	scope->owners = scope_enlarge(scope, scope->owners, keys * sizeof(*scope->owners));
	scope->keys_size = keys;
	scope_free(scope->places);
	scope->n_places = places;
	scope->place_shift = 64 - pg_leftmost_one_pos64(places);
	scope->places = scope_alloc(scope, places * sizeof(*scope->places));
	memset(scope->places, 0, places * sizeof(*scope->places));
	for (i = 0; i < scope->n_keys; i++)
		scope->places[find_place(scope, scope->keys[i])] = (uint32) (i + 1);
	return true;
}

/* Records another file for a key that a file has already.  Returns false if there is no room. */
static bool
share_key(KeyScope *scope, uint32 number, uint32 file)
{
	if (scope->owners[number] == file)
		return true;
	if (scope->n_shared == scope->shared_size)
	{
		size_t		size = Max(scope->shared_size * 2, PLACES_MIN);

		if (keys_that_fit(scope, scope->n_places, size) < scope->keys_size)
			return false;
		scope->shared = scope_enlarge(scope, scope->shared, size * sizeof(*scope->shared));
		scope->shared_size = size;
	}
	scope->shared[scope->n_shared].number = number;
	scope->shared[scope->n_shared++].file = file;
	return true;
}

/* Adds a key of a file to the index.  Returns false if there is no room. */
static bool
put_key(KeyScope *scope, uint64 key, uint32 file)
{
	size_t		place = find_place(scope, key);

	if (scope->places[place] != 0)
		return share_key(scope, scope->places[place] - 1, file);
	scope->keys[scope->n_keys] = key;
	scope->owners[scope->n_keys++] = file;
	scope->places[place] = (uint32) scope->n_keys;
	return true;
}

static void
forget_keys(KeyScope *scope)
{
	scope_free(scope->places);
	scope_free(scope->keys);
	scope_free(scope->owners);
	scope_free(scope->shared);
	scope->places = scope->owners = NULL;
	scope->keys = NULL;
	scope->shared = NULL;
}

static void
forget_filter(KeyScope *scope)
{
	scope_free(scope->filter);
	scope->filter = NULL;
}

void
key_forget_scope(KeyScope *scope)
{
	forget_keys(scope);
	forget_filter(scope);
}

void
key_each_file(KeyScope *scope, KeyFileSink sink, void *arg)
{
	size_t		i;

	scope_settle(scope);
	for (i = 0; !scope->too_many && i < scope->n_keys; i++)
		sink(i, scope->keys[i], scope->owners[i], arg);
	for (i = 0; !scope->too_many && i < scope->n_shared; i++)
		sink(scope->shared[i].number, scope->keys[scope->shared[i].number], scope->shared[i].file, arg);
}


/* ---------------------------------------------------------------- filter --- */

static inline void
add_to_filter(KeyScope *scope, uint64 key)
{
	uint64		bit = key & scope->filter_mask;

	scope->filter[bit / 8] |= 1 << (bit % 8);
}

/* Makes the filter of the existing keys, with room for `keys` keys. */
static void
make_filter(KeyScope *scope, size_t keys)
{
	uint64		most = scope->filter_max > 0 ? scope->filter_max : FILTER_MAX;
	uint64		wanted = (uint64) keys * FILTER_BITS_PER_KEY / BITS_PER_BYTE;
	uint64		bytes = UINT64CONST(1) << pg_leftmost_one_pos64(Max(Min(wanted, most), FILTER_MIN));
	size_t		i;

	scope->filter = scope_alloc(scope, bytes);
	memset(scope->filter, 0, bytes);
	scope->filter_mask = bytes * BITS_PER_BYTE - 1;
	for (i = 0; i < scope->n_keys; i++)
		add_to_filter(scope, scope->keys[i]);
}

/* Gives up the keys, because there is no room for another one, and leaves the filter only. */
static void
leave_keys(KeyScope *scope)
{
	forget_filter(scope);
	make_filter(scope, SIZE_MAX / FILTER_BITS_PER_KEY);
	forget_keys(scope);
	scope->too_many = true;
}

/* Adds the pending keys to the index or the filter. */
static void
put_pending(KeyScope *scope)
{
	int			i = 0;

	if (!scope->too_many && scope->n_keys + scope->n_pending > scope->keys_size && !enlarge_index(scope))
		leave_keys(scope);
	while (!scope->too_many && i < scope->n_pending)
	{
		if (put_key(scope, scope->pending[i].key, scope->pending[i].file))
			i++;
		else
			leave_keys(scope);
	}
	for (; i < scope->n_pending; i++)
		add_to_filter(scope, scope->pending[i].key);
	scope->n_pending = 0;
}

void
scope_settle(KeyScope *scope)
{
	if (scope->n_pending > 0)
		put_pending(scope);
	if (scope->filter == NULL)
		make_filter(scope, scope->n_keys);
}

bool
scope_has_key(const KeyScope *scope, uint64 key)
{
	return !filter_lacks(scope, key) && (scope->too_many || key_number(scope, key) >= 0);
}

static void
add_key(KeyScope *scope, uint64 key)
{
	/* an existing filter was made for fewer keys */
	if (!scope->too_many)
		forget_filter(scope);
	if (scope->n_pending == KEY_PENDING)
		put_pending(scope);
	scope->pending[scope->n_pending].key = key;
	scope->pending[scope->n_pending++].file = scope->n_files;
	scope_fetch(scope, key);
}

/* Notes the end of a name.  A name of one letter may end behind any other letter. */
static void
note_end(uint8 *ends, const char *text, size_t len)
{
	int			first = len > 1 ? (unsigned char) text[len - 2] : 0;
	int			last = len > 1 ? first : UCHAR_MAX;

	for (; first <= last; first++)
	{
		unsigned	n = end_number((char) first, text[len - 1]);

		ends[n / 8] |= 1 << (n % 8);
	}
}

static void
note_length(KeyScope *scope, size_t len)
{
	if (len >= KEY_LENGTHS)
		len = 0;
	scope->lengths[len / 8] |= 1 << (len % 8);
}

static void
add_to_scope(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	KeyScope   *scope = arg;

	if (len == 0)
		return;
	add_key(scope, key);
	scope->longest = Max(scope->longest, len);
	note_length(scope, len);
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
	key_of_file(rules, path, KEY_ALL_FAMILIES, add_to_scope, scope);
	scope->n_files++;
}
