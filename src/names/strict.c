/*-------------------------------------------------------------------------
 *
 * names/strict.c
 *	  Finds out whether a value names exactly this file, letter for letter.
 *
 * The rule for condemning is strict: the whole value must be the path of the
 * file, letter for letter, or a URL or absolute path that ends with that
 * path.  Nothing is folded and nothing is guessed, but the value is read in
 * each way in which an application may have written it.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <ctype.h>

#include "src/names/private.h"

/* Number of "?" and "#" of a value that are tried as the end of its path. */
#define CUTS_MAX			8

/* The directory in which an application with default settings keeps its audio. */
#define USUAL_UPLOAD_DIR	"uploads/audio"

typedef struct Strict
{
	const KeyRules *rules;
	const KeyScope *scope;		/* scope of the file only */
	const char *path;			/* path of the file */
	bool		rooted;			/* the value is a URL, or an absolute path */
	bool		found;

	/* the end of some reading, which is compared with the keys */
	KeyFamily	family;
	const char *text;
	size_t		len;
} Strict;

/*
 * A step of the reading.  The step goes on to the next step twice: with its
 * own work done on the text, and with its own work left out.
 */
typedef void (*Step) (Strict *strict, int step, const char *text, size_t len);

static void read_on(Strict *strict, int step, const char *text, size_t len);


/* --------------------------------------------------------------- compare --- */

/*
 * Returns whether `prefix`, the text before the path of a file in a value, may
 * be the upload directory.  The prefix of "archive/a.mp3" may not: the value
 * does not mean "a.mp3", even if the value protects "a.mp3".  A URL or an
 * absolute path may come from another machine, but a path in the query of a
 * URL is not the URL's own path.
 */
static bool
may_be_upload_dir(const Strict *strict, const char *prefix, size_t len)
{
	const char *dir = strict->rules->upload_dir;
	size_t		name = path_last_component(prefix, len);
	size_t		dir_len;

	if (len == 0 || dir == NULL ||
		(len == strlen(USUAL_UPLOAD_DIR) && memcmp(prefix, USUAL_UPLOAD_DIR, len) == 0))
		return true;
	dir_len = strlen(dir);
	dir += path_last_component(dir, dir_len);
	if (len - name == strlen(dir) && memcmp(prefix + name, dir, len - name) == 0)
		return true;
	return strict->rooted && memchr(prefix, '?', len) == NULL && memchr(prefix, '#', len) == NULL;
}

static void
compare_key(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	Strict	   *strict = arg;

	if (family == strict->family && len == strict->len && memcmp(text, strict->text, len) == 0)
		strict->found = true;
}

/* Looks up each end of the text that begins behind a slash among the keys of the file. */
static void
compare_ends(Strict *strict, const char *text, size_t len, KeyFamily family)
{
	const KeyMaker maker = {strict->rules, true, family, compare_key, strict};
	size_t		i = len;

	for (int depth = 0; len > 0 && depth < strict->scope->depth && !strict->found; depth++)
	{
		i = path_last_component(text, i);
		if (may_be_upload_dir(strict, text, i > 0 ? i - 1 : 0))
		{
			strict->family = family;
			strict->text = text + i;
			strict->len = len - i;
			keys_of_path(&maker, strict->path);
		}
		if (i-- == 0)
			break;
	}
}

static void
compare_path(Strict *strict, int step, const char *text, size_t len)
{
	Canonical	path;
	size_t		stem;

	path_normalise(strict->rules, true, text, len, &path);
	stem = path_stem_length(strict->rules, path.text, path.len);
	compare_ends(strict, path.text, path.len, KEY_PATH);
	if (stem == path.len)
		compare_ends(strict, path.text, path.len, KEY_STEM);
	if (!strict->scope->derived)
		return;
	compare_ends(strict, path.text, stem, KEY_DERIVED);
	if (stem < path.len)
		compare_ends(strict, path.text, path.len, KEY_DERIVED);
}


/* -------------------------------------------------------------- readings --- */

static void
without_spaces(Strict *strict, int step, const char *text, size_t len)
{
	size_t		before = len;

	read_on(strict, step, text, len);
	for (; len > 0 && is_space(*text); len--)
		text++;
	while (len > 0 && is_space(text[len - 1]))
		len--;
	if (len < before)
		read_on(strict, step, text, len);
}

static bool
is_slash(char c)
{
	return c == '/' || c == '\\';
}

/* Returns the length of "scheme://host" or of a drive letter at the beginning, or 0. */
static size_t
host_length(const char *text, size_t len)
{
	size_t		i = 0;

	if (len == 0 || !isalpha((unsigned char) *text) || IS_HIGHBIT_SET(*text))
		return 0;
	while (i < len && !IS_HIGHBIT_SET(text[i]) &&
		   (isalnum((unsigned char) text[i]) || text[i] == '+' || text[i] == '-' || text[i] == '.'))
		i++;
	if (i == len || text[i] != ':')
		return 0;
	i++;
	if (len - i >= 2 && is_slash(text[i]) && is_slash(text[i + 1]))
	{
		for (i += 2; i < len && !is_slash(text[i]);)
			i++;
		return i;
	}
	/* "ab:c.mp3" is a name with a colon */
	return i == 2 || pg_strncasecmp(text, "file:", 5) == 0 ? i : 0;
}

/*
 * Reads the value without its host, and also with its host: a name that looks
 * like a URL may be a file.
 */
static void
without_host(Strict *strict, int step, const char *text, size_t len)
{
	size_t		host = host_length(text, len);
	bool		rooted = strict->rooted;

	read_on(strict, step, text, len);
	if (host == 0)
		return;
	strict->rooted = true;
	read_on(strict, step, text + host, len - host);
	strict->rooted = rooted;
}

static void
without_query(Strict *strict, int step, const char *text, size_t len)
{
	int			cuts = 0;

	read_on(strict, step, text, len);
	for (size_t cut = 0; cut < len && cuts < CUTS_MAX; cut++)
		if (text[cut] == '?' || text[cut] == '#')
		{
			read_on(strict, step, text, cut);
			cuts++;
		}
}

static void
percent_decoded(Strict *strict, int step, const char *text, size_t len)
{
	char		decoded[KEY_STRICT_MAX];
	size_t		n;

	read_on(strict, step, text, len);
	if (memchr(text, '%', len) != NULL && (n = readings_decode_percent(text, len, decoded)) < len)
		read_on(strict, step, decoded, n);
}

static void
with_slashes(Strict *strict, int step, const char *text, size_t len)
{
	char		slashed[KEY_STRICT_MAX];

	read_on(strict, step, text, len);
	if (memchr(text, '\\', len) == NULL)
		return;
	for (size_t i = 0; i < len; i++)
		slashed[i] = text[i] == '\\' ? '/' : text[i];
	read_on(strict, step, slashed, len);
}

/* The steps.  A percent-encoded text is decoded at most twice. */
static const Step steps[] = {
	without_spaces, without_host, without_query, percent_decoded, percent_decoded, without_spaces,
	with_slashes, compare_path
};

static void
read_on(Strict *strict, int step, const char *text, size_t len)
{
	if (!strict->found && len > 0)
		steps[step] (strict, step + 1, text, len);
}

bool
names_strictly(const KeyRules *rules, const KeyScope *scope, const char *value, size_t len, const char *path)
{
	Strict		strict = {.rules = rules,.scope = scope,.path = path};

	if (len > 1 && value[0] == '/')
		strict.rooted = true;
	if (len > 1 && value[0] == '/' && value[1] != '/')
	{
		value++;
		len--;
	}
	for (; len > KEY_STRICT_MAX && is_space(*value); len--)
		value++;
	while (len > KEY_STRICT_MAX && is_space(value[len - 1]))
		len--;
	if (len <= KEY_STRICT_MAX)
		read_on(&strict, 0, value, len);
	return strict.found;
}
