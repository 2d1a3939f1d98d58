/*-------------------------------------------------------------------------
 *
 * fuzz_file_key.c
 *	  Runs libFuzzer against file_key.c: any reference, any file.
 *
 *		make -C unit fuzz FUZZ_SECONDS=300
 *		unit/fuzz_file_key unit/crash-...		runs one input again
 *
 * The first byte of an input says how: bit 0 not UTF-8, bit 1 no suffixes, bit
 * 2 any extension, bit 3 the file is the end of the reference, bit 7 the
 * reference is repeated, bits 4 to 6 how often (as a power of two).  The rest
 * is the reference and, behind the last newline, the file; a NUL ends a name,
 * as on disk.
 *
 * The test also checks that the keys and the texts agree, and that a path
 * protects its own file, with a directory and a query, too, and between quotes
 * anywhere in the reference.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <limits.h>

#include "mb/pg_wchar.h"

#include "src/names/file_key.h"
#include "src/names/rules.h"
#include "src/store/store.h"

#define DEEPER_FILE			"1/2/3/4/5/6/7/8/x_processed.mp3"
#define REPEATED_MAX		(3 * KEY_WINDOW)	/* more than a window */

typedef struct KeySet
{
	int			n;
	int			size;
	uint64	   *keys;
} KeySet;

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *extensions[] = {"mp3", "wav"};
static char *suffixes[] = {"_processed", "_\303\234", "_x"};
static char *prefixes[] = {"thumb_", "\303\234"};
static char *folders[] = {"index.m3u8", "_hls"};

static KeySet of_reference;
static KeySet of_file;

static bool
is_valid_utf8(const char *text, size_t len)
{
	while (len > 0)
	{
		int			step = pg_utf_mblen((const unsigned char *) text);

		if ((size_t) step > len || !pg_utf8_islegal((const unsigned char *) text, step))
			return false;
		text += step;
		len -= step;
	}
	return true;
}

static void
fail(const char *what)
{
	fprintf(stderr, "%s\n", what);
	abort();
}

static void
collect(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	KeySet	   *set = arg;

	if (text != NULL && len == 0 && set == &of_reference)
		fail("an empty key of a reference");
	if (set->n == set->size)
	{
		set->size = set->size * 2 + 64;
		set->keys = realloc(set->keys, set->size * sizeof(uint64));
	}
	set->keys[set->n++] = key;
}

static int
compare_keys(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return (x > y) - (x < y);
}

static bool
keys_intersect(const KeyRules *rules, const char *reference, size_t len,
			   const char *file, bool wider)
{
	KeyScope	scope = {.keys_expected = key_count_most(rules, file) + key_count_most(rules, DEEPER_FILE)};

	key_widen_scope(rules, file, &scope);
	of_reference.n = of_file.n = 0;
	if (wider)
	{
		key_widen_scope(rules, DEEPER_FILE, &scope);
		key_of_many(rules, &scope, reference, len, collect, &of_reference);
		key_of_many_end(&scope, collect, &of_reference);
	}
	else
		key_of_reference(rules, &scope, reference, len, collect, &of_reference);
	key_forget_scope(&scope);
	key_of_file(rules, file, KEY_ALL_FAMILIES, collect, &of_file);
	if (of_file.n > 0)
		qsort(of_file.keys, of_file.n, sizeof(uint64), compare_keys);
	for (int i = 0; i < of_reference.n; i++)
		if (bsearch(&of_reference.keys[i], of_file.keys, of_file.n, sizeof(uint64), compare_keys))
			return true;
	return false;
}

/* Returns whether a walk could yield the path. */
static bool
is_walked_path(const char *file)
{
	size_t		len = strlen(file);

	return len > 0 && len < STORE_PATH_MAX && file[0] != '/' && file[len - 1] != '/' &&
		strstr(file, "//") == NULL &&
		strncmp(file, "./", 2) != 0 && strncmp(file, "../", 3) != 0 &&
		strstr(file, "/./") == NULL && strstr(file, "/../") == NULL &&
		strcmp(strrchr(file, '/') ? strrchr(file, '/') : file, "/.") != 0 &&
		strcmp(strrchr(file, '/') ? strrchr(file, '/') : file, "/..") != 0 &&
		strcmp(file, ".") != 0 && strcmp(file, "..") != 0;
}

static void
check_own_paths(const KeyRules *rules, const char *file)
{
	static const char *const formats[] = {
		"/srv/up/%s", "%s?x=1#t", "https://host/d/%s?sig=a/b", "x/../%s", " %s\n",
	};

	if (key_compare(rules, file, strlen(file), file) != KEY_STRICT_MATCH)
		fail("a path does not strictly mean itself");
	for (int i = 0; i < lengthof(formats); i++)
	{
		char	   *reference = psprintf(formats[i], file);

		/* eight of "?" and "#" are tried, and spaces are part of a name */
		if (strcspn(file, "?# \t\n\v\f\r") == strlen(file) &&
			key_compare(rules, reference, strlen(reference), file) == KEY_NO_MATCH)
			fail(reference);
		pfree(reference);
	}
}

/* The file is found between quotes, at any place of the reference. */
static void
check_found(const KeyRules *rules, const char *reference, size_t len, const char *file)
{
	size_t		file_len = strlen(file);
	char	   *value;

	if (file_len > NAME_MAX || (rules->utf8 && !is_valid_utf8(file, file_len)))
		return;
	value = pg_malloc(2 * len + file_len + 2);
	memcpy(value, reference, len);
	value[len] = '"';
	memcpy(value + len + 1, file, file_len);
	value[len + file_len + 1] = '"';
	memcpy(value + len + file_len + 2, reference, len);
	if (key_compare(rules, value, 2 * len + file_len + 2, file) == KEY_NO_MATCH)
		fail("a name between quotes is not found");
	pg_free(value);
}

static void
check_pair(const KeyRules *rules, const char *reference, size_t len, const char *file)
{
	bool		matches = key_compare(rules, reference, len, file) != KEY_NO_MATCH;

	if (keys_intersect(rules, reference, len, file, false) != matches)
		fail("the keys and the texts disagree");

	/*
	 * a longer reference is cut into windows, at places that depend on the
	 * names of the scope
	 */
	if (len <= KEY_WINDOW && keys_intersect(rules, reference, len, file, true) != matches)
		fail("the keys for a wider scope and the texts disagree");
	(void) key_is_audio(rules, file);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	KeyRules	rules = {
		.n_extensions = lengthof(extensions),.extensions = extensions,
		.n_suffixes = lengthof(suffixes),.suffixes = suffixes,
		.n_prefixes = lengthof(prefixes),.prefixes = prefixes,.folders = folders,.utf8 = true
	};
	char	   *text;
	char	   *file;
	char	   *reference;
	size_t		len;
	int			times;

	if (size < 1 || size > STORE_PATH_MAX)
		return 0;
	rules.utf8 = (data[0] & 1) == 0;
	if (data[0] & 2)
		rules.n_suffixes = 0;
	else
		rules.n_folders = lengthof(folders);
	if (data[0] & 4)
		rules.n_extensions = 0;
	rules.upload_dir = size % 2 ? "/srv/up" : NULL;
	times = (data[0] & 0x80) ? 1 << ((data[0] >> 4) & 7) : 1;

	text = pg_malloc(size);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	file = text + size - 1;
	while (file > text && file[-1] != '\n')
		file--;
	len = file > text ? file - 1 - text : size - 1;
	if (data[0] & 8)
		len = size - 1;

	/*
	 * the memory is exactly as long as the reference, so that a read behind
	 * its end is noticed
	 */
	times = len > 0 ? Min(times, Max(REPEATED_MAX / len, 1)) : 1;
	reference = pg_malloc(len * times + 1);
	for (int i = 0; i < times; i++)
		memcpy(reference + i * len, text, len);
	reference = pg_realloc(reference, Max(len * times, 1));

	check_pair(&rules, reference, len * times, file);
	if (is_walked_path(file))
	{
		check_own_paths(&rules, file);
		check_found(&rules, reference, len * times, file);
	}
	pg_free(reference);
	pg_free(text);
	return 0;
}
