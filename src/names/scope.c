/*-------------------------------------------------------------------------
 *
 * names/scope.c
 *	  The names that exist: a filter of their keys, and how they end.
 *
 * The keys are a list until there are too many of them, so that the filter,
 * which is made of the list when it is first asked for, is no larger than
 * needed: a small one stays in the processor's cache.
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

#define LISTED_KEYS_MAX		65536
#define FILTER_BITS_PER_KEY 32
#define FILTER_MIN			64	/* bytes */
#define FILTER_MAX			(1024 * 1024)

/* Memory of the scope, zeroed. */
static void *
scope_alloc(KeyScope *scope, size_t bytes)
{
#ifdef FRONTEND
	return palloc0(bytes);
#else
	if (scope->context == NULL)
		scope->context = CurrentMemoryContext;
	return MemoryContextAllocExtended(scope->context, bytes, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
#endif
}

static inline void
add_to_filter(KeyScope *scope, uint64 key)
{
	uint64		bit = key & scope->filter_mask;

	scope->filter[bit / 8] |= 1 << (bit % 8);
}

/* Makes the filter of the listed keys, with room for `keys`. */
static void
make_filter(KeyScope *scope, size_t keys)
{
	uint64		most = scope->filter_max > 0 ? scope->filter_max : FILTER_MAX;
	uint64		wanted = (uint64) keys * FILTER_BITS_PER_KEY / BITS_PER_BYTE;
	uint64		bytes = UINT64CONST(1) << pg_leftmost_one_pos64(Max(Min(wanted, most), FILTER_MIN));
	size_t		i;

	scope->filter = scope_alloc(scope, bytes);
	scope->filter_mask = bytes * BITS_PER_BYTE - 1;
	for (i = 0; i < scope->n_hashes; i++)
		add_to_filter(scope, scope->hashes[i]);
}

void
scope_make_filter(KeyScope *scope)
{
	if (scope->filter == NULL)
		make_filter(scope, scope->n_hashes);
}

bool
scope_has_key(const KeyScope *scope, uint64 key)
{
	size_t		i;

	for (i = 0; scope->hashes != NULL && i < scope->n_hashes; i++)
		if (scope->hashes[i] == key)
			return true;
	return scope->hashes == NULL && !filter_lacks(scope, key);
}

void
key_forget_scope(KeyScope *scope)
{
	if (scope->hashes != NULL)
		pfree(scope->hashes);
	if (scope->filter != NULL)
		pfree(scope->filter);
	scope->hashes = NULL;
	scope->filter = NULL;
}

static void
add_to_list(KeyScope *scope, uint64 key)
{
	if (scope->n_hashes == scope->hashes_size)
	{
		scope->hashes_size = Max(scope->hashes_size * 2, 16);
		scope->hashes = scope->hashes == NULL ? scope_alloc(scope, scope->hashes_size * sizeof(uint64)) :
			repalloc(scope->hashes, scope->hashes_size * sizeof(uint64));
	}
	scope->hashes[scope->n_hashes++] = key;
}

static void
add_key(KeyScope *scope, uint64 key)
{
	bool		listed = scope->hashes != NULL || scope->filter == NULL;

	if (listed && scope->filter != NULL)
	{
		/* that was made for fewer keys */
		pfree(scope->filter);
		scope->filter = NULL;
	}
	if (listed && scope->n_hashes < LISTED_KEYS_MAX)
	{
		add_to_list(scope, key);
		return;
	}
	if (listed)
	{
		make_filter(scope, SIZE_MAX / FILTER_BITS_PER_KEY);
		pfree(scope->hashes);
		scope->hashes = NULL;
	}
	add_to_filter(scope, key);
}

/* Of a name of one letter, any letter may stand before that. */
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
add_to_scope(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	KeyScope   *scope = arg;

	if (len == 0)
		return;
	add_key(scope, key);
	scope->longest = Max(scope->longest, len);
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
}
