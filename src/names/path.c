/*-------------------------------------------------------------------------
 *
 * names/path.c
 *	  The parts of a path: its components, its extension.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include "src/names/private.h"

/* Extensions of audio, which tell whether a name has an extension, whatever files are cleaned. */
static const char *const known_extensions[] = {
	"3gp", "aac", "aif", "aifc", "aiff", "alac", "amr", "ape", "au", "caf",
	"dss", "ds2", "flac", "gsm", "m4a", "m4b", "m4p", "mka", "mov", "mp2",
	"mp3", "mp4", "mpeg", "mpg", "mpga", "oga", "ogg", "ogv", "opus", "ra",
	"ram", "snd", "spx", "wav", "wave", "weba", "webm", "wma", "wv"
};

size_t
path_last_component(const char *text, size_t len)
{
	while (len > 0 && text[len - 1] != '/')
		len--;
	return len;
}

/*
 * Appends a component to the path.  `to_come` is the number of bytes of the
 * text that are still to be appended.  There is room for any path that
 * exists; a longer path may be folded in part only.
 */
static void
append_component(const KeyRules *rules, bool exact, Canonical *path,
				 const char *component, size_t len, size_t to_come)
{
	char	   *place;

	if (path->len > 0)
		path->text[path->len++] = '/';
	place = path->text + path->len;
	memcpy(place, component, len);
	if (!exact)
		len = fold_component(rules->utf8, place, len, KEY_STRICT_MAX - path->len - to_come);
	path->len += len;
}

void
path_normalise(const KeyRules *rules, bool exact, const char *text, size_t len, Canonical *path)
{
	const char *end = text + len;

	path->len = 0;
	while (text < end)
	{
		const char *slash = memchr(text, '/', end - text);
		size_t		n = (slash ? slash : end) - text;

		/* ".." above the root stays at the root */
		if (n == 2 && text[0] == '.' && text[1] == '.')
			path->len = Max(path_last_component(path->text, path->len), 1) - 1;
		else if (n > 0 && !(n == 1 && text[0] == '.'))
			append_component(rules, exact, path, text, n, end - text - n);
		text += n + 1;
	}
}

/* Returns false for two letters of ASCII that differ, which is quick. */
static inline bool
may_be_same(char a, char b)
{
	return fold_ascii(a) == fold_ascii(b) || IS_HIGHBIT_SET(a) || IS_HIGHBIT_SET(b);
}

static bool
is_in_list(const char *const *list, int n, const char *text, size_t len)
{
	for (int i = 0; i < n; i++)
		if ((len == 0 || may_be_same(list[i][0], text[0])) &&
			strlen(list[i]) == len && pg_strncasecmp(list[i], text, len) == 0)
			return true;
	return false;
}

static bool
is_cleaned_extension(const KeyRules *rules, const char *text, size_t len)
{
	return is_in_list((const char *const *) rules->extensions, rules->n_extensions, text, len);
}

size_t
path_find_dot(const char *text, size_t len)
{
	for (size_t i = len; i > 0 && text[i - 1] != '/'; i--)
		if (text[i - 1] == '.')
			return i > 1 && text[i - 2] != '/' ? i - 1 : len;
	return len;
}

bool
path_is_extension(const KeyRules *rules, const char *text, size_t len)
{
	return is_cleaned_extension(rules, text, len) ||
		is_in_list(known_extensions, lengthof(known_extensions), text, len);
}

size_t
path_stem_length(const KeyRules *rules, const char *text, size_t len)
{
	size_t		dot = path_find_dot(text, len);

	return dot < len && path_is_extension(rules, text + dot + 1, len - dot - 1) ? dot : len;
}

bool
key_is_audio(const KeyRules *rules, const char *path)
{
	size_t		len = strlen(path);
	size_t		dot = path_find_dot(path, len);

	return rules->n_extensions == 0 ||
		(dot < len && is_cleaned_extension(rules, path + dot + 1, len - dot - 1));
}
