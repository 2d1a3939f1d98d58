/*-------------------------------------------------------------------------
 *
 * file_key.c
 *	  Normalising references and paths into keys.
 *
 * The hazard here is a reference that is not understood: the file it names
 * would look like an orphan.  So the rule of this file is that a reading is
 * added rather than replaced: whatever a step of normalisation takes away
 * (a query, an escape, a backslash), the reading that left it in place is
 * emitted as well.
 *
 * The common case, an ASCII name or path without anything special, must cost
 * about as much as hashing it, because it is done for every row of every
 * source: one pass over the bytes finds out whether anything is special.
 *
 * Unicode: both sides are composed (NFC, PostgreSQL's own tables) and then
 * lower-cased letter by letter in the C.UTF-8 locale of the C library.  That
 * is no full case folding, and need not be: two names that it confuses are
 * both kept.
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

#include <ctype.h>
#include <locale.h>
#include <wctype.h>

#include "common/hashfn.h"
#include "common/unicode_norm.h"
#include "mb/pg_wchar.h"

#include "src/file_key.h"
#include "src/file_ops.h"

/*
 * A reference longer than this is looked at from its end: no path on disk
 * has more than STORE_PATH_MAX bytes, percent-encoding triples them.
 */
#define REFERENCE_MAX		(4 * STORE_PATH_MAX)

/* So many "?" and "#" of a reference are tried as the end of its path. */
#define CUTS_MAX			8

#define MAX_UTF8_LETTER		4

/* Extensions by which "has no extension" is told, whatever may be cleaned. */
static const char *const known_extensions[] = {
	"3gp", "aac", "aif", "aifc", "aiff", "alac", "amr", "ape", "au", "caf",
	"dss", "ds2", "flac", "gsm", "m4a", "m4b", "m4p", "mka", "mov", "mp2",
	"mp3", "mp4", "mpeg", "mpg", "mpga", "oga", "ogg", "ogv", "opus", "ra",
	"ram", "snd", "spx", "wav", "wave", "weba", "webm", "wma", "wv"
};

/* A normalised path: folded text and its number of components. */
typedef struct Canonical
{
	size_t		len;
	int			components;
	char		text[REFERENCE_MAX + 1];
} Canonical;

typedef struct Emitter
{
	const KeyRules *rules;
	const KeyScope *scope;
	KeySink		sink;
	void	   *arg;
} Emitter;


/* ---------------------------------------------------------------- text --- */

static locale_t
folding_locale(void)
{
	static locale_t locale = (locale_t) 0;
	static bool tried = false;

	if (!tried)
	{
		tried = true;
		locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t) 0);
		if (locale == (locale_t) 0)
			locale = newlocale(LC_CTYPE_MASK, "en_US.UTF-8", (locale_t) 0);
	}
	return locale;
}

static inline char
fold_ascii(char c)
{
	return (c >= 'A' && c <= 'Z') ? c + ('a' - 'A') : c;
}

static bool
is_valid_utf8(const char *text, size_t len)
{
	while (len > 0)
	{
		int			step = pg_utf_mblen((const unsigned char *) text);

		if ((size_t) step > len || *text == '\0' ||
			!pg_utf8_islegal((const unsigned char *) text, step))
			return false;
		text += step;
		len -= step;
	}
	return true;
}

/* One letter in lower case, where the C library knows it. */
static pg_wchar
fold_letter(pg_wchar c)
{
	locale_t	locale = folding_locale();

	if (c < 0x80)
		return (pg_wchar) fold_ascii((char) c);
	return locale ? (pg_wchar) towlower_l((wint_t) c, locale) : c;
}

/*
 * Fold valid UTF-8 in place: NFC, then lower case.  Returns the new length;
 * a text that would outgrow `size` is left as it was, which both sides of a
 * comparison do alike.
 */
static size_t
fold_unicode(char *text, size_t len, size_t size)
{
	pg_wchar   *decoded = (pg_wchar *) palloc((len + 1) * sizeof(pg_wchar));
	pg_wchar   *composed;
	unsigned char *folded;
	size_t		n = 0;
	size_t		out = 0;
	size_t		i;

	for (i = 0; i < len; i += pg_utf_mblen((unsigned char *) text + i))
		decoded[n++] = utf8_to_unicode((unsigned char *) text + i);
	decoded[n] = 0;

	composed = unicode_normalize(UNICODE_NFC, decoded);
	folded = (unsigned char *) palloc(size + MAX_UTF8_LETTER);
	for (n = 0; composed[n] != 0 && out < size; n++)
	{
		unicode_to_utf8(fold_letter(composed[n]), folded + out);
		out += pg_utf_mblen(folded + out);
	}
	if (composed[n] == 0 && out < size)
	{
		memcpy(text, folded, out);
		len = out;
	}
	pfree(folded);
	pfree(composed);
	pfree(decoded);
	return len;
}

/* Case folded and composed, as far as the encoding is known. */
static void
fold_canonical(const KeyRules *rules, Canonical *path)
{
	bool		ascii = true;
	size_t		i;

	for (i = 0; i < path->len; i++)
	{
		if (IS_HIGHBIT_SET(path->text[i]))
			ascii = false;
		else
			path->text[i] = fold_ascii(path->text[i]);
	}
	if (!ascii && rules->utf8 && is_valid_utf8(path->text, path->len))
		path->len = fold_unicode(path->text, path->len, sizeof(path->text));
}

/* Forget the last component; ".." above the root stays at the root. */
static void
drop_last_component(Canonical *path)
{
	while (path->len > 0 && path->text[path->len - 1] != '/')
		path->len--;
	if (path->len > 0)
		path->len--;
	if (path->components > 0)
		path->components--;
}

static void
append_component(Canonical *path, const char *component, size_t len)
{
	if (path->components++ > 0)
		path->text[path->len++] = '/';
	memcpy(path->text + path->len, component, len);
	path->len += len;
}

/*
 * Fill `path` with the components of `text`: "", "." gone, ".." resolved by
 * the letters alone (nothing on disk is asked), folded.  `len` is at most
 * REFERENCE_MAX, so the result fits.
 */
static void
canonicalise(const KeyRules *rules, const char *text, size_t len, Canonical *path)
{
	const char *end = text + len;

	path->len = 0;
	path->components = 0;
	while (text < end)
	{
		const char *slash = memchr(text, '/', end - text);
		size_t		n = (slash ? slash : end) - text;

		if (n == 2 && text[0] == '.' && text[1] == '.')
			drop_last_component(path);
		else if (n > 0 && !(n == 1 && text[0] == '.'))
			append_component(path, text, n);
		text += n + 1;
	}
	fold_canonical(rules, path);
}


/* ------------------------------------------------------------ extension --- */

static bool
is_extension(const KeyRules *rules, const char *text, size_t len)
{
	int			i;

	for (i = 0; i < rules->n_extensions; i++)
		if (strlen(rules->extensions[i]) == len &&
			pg_strncasecmp(rules->extensions[i], text, len) == 0)
			return true;
	return false;
}

static bool
is_known_extension(const char *text, size_t len)
{
	size_t		i;

	for (i = 0; i < lengthof(known_extensions); i++)
		if (strlen(known_extensions[i]) == len &&
			pg_strncasecmp(known_extensions[i], text, len) == 0)
			return true;
	return false;
}

/* Where in `text` the dot of the last component's extension is, or `len`. */
static size_t
find_dot(const char *text, size_t len)
{
	size_t		i = len;

	while (i > 0 && text[i - 1] != '/')
	{
		i--;
		if (text[i] == '.')
			return (i == 0 || text[i - 1] == '/') ? len : i;
	}
	return len;
}

/* Length of `text` without an extension that is one of audio, else `len`. */
static size_t
length_without_audio_extension(const KeyRules *rules, const char *text, size_t len)
{
	size_t		dot = find_dot(text, len);

	if (dot < len &&
		(is_extension(rules, text + dot + 1, len - dot - 1) ||
		 is_known_extension(text + dot + 1, len - dot - 1)))
		return dot;
	return len;
}

bool
key_is_audio(const KeyRules *rules, const char *path)
{
	size_t		len = strlen(path);
	size_t		dot;

	if (rules->n_extensions == 0)
		return true;
	dot = find_dot(path, len);
	return dot < len && is_extension(rules, path + dot + 1, len - dot - 1);
}

/*
 * If the last component of `stem` ends in the suffix, the length without it,
 * else 0.  A name that is nothing but the suffix is derived from nothing.
 */
static size_t
length_without_suffix(const char *stem, size_t len, const char *suffix)
{
	size_t		n = strlen(suffix);

	if (n == 0 || len <= n || memcmp(stem + len - n, suffix, n) != 0 ||
		stem[len - n - 1] == '/')
		return 0;
	return len - n;
}


/* -------------------------------------------------------------- of files --- */

/* The whole path in one family, every shorter tail of it in the other. */
static void
emit_file_path(const char *text, size_t len, KeyFamily whole, KeyFamily tail,
			   int families, KeySink sink, void *arg)
{
	size_t		i;

	if (families & whole)
		sink(whole, text, len, arg);
	if (families & tail)
		for (i = 0; i < len; i++)
			if (text[i] == '/')
				sink(tail, text + i + 1, len - i - 1, arg);
}

static void
canonicalise_file(const KeyRules *rules, const char *path, Canonical *canonical)
{
	/* names on disk are taken as they are, only folded */
	canonical->len = Min(strlen(path), REFERENCE_MAX);
	memcpy(canonical->text, path, canonical->len);
	canonical->components = 0;
	fold_canonical(rules, canonical);
}

void
key_of_file(const KeyRules *rules, const char *path, int families,
			KeySink sink, void *arg)
{
	Canonical	file;
	size_t		stem;
	int			i;

	canonicalise_file(rules, path, &file);
	emit_file_path(file.text, file.len, KEY_PATH, KEY_TAIL, families, sink, arg);

	if ((families & ~(KEY_PATH | KEY_TAIL)) == 0)
		return;
	stem = find_dot(file.text, file.len);
	emit_file_path(file.text, stem, KEY_STEM, KEY_STEM_TAIL, families, sink, arg);

	for (i = 0; i < rules->n_suffixes; i++)
	{
		size_t		len = length_without_suffix(file.text, stem, rules->suffixes[i]);

		if (len > 0)
			emit_file_path(file.text, len, KEY_DERIVED, KEY_DERIVED_TAIL,
						   families, sink, arg);
	}
}

/* A file with keys of a derived family widens the scope; see below. */
static void
notice_derived(KeyFamily family, const char *text, size_t len, void *arg)
{
	(void) family;
	(void) text;
	(void) len;
	((KeyScope *) arg)->derived = true;
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
	if (!scope->derived)
		key_of_file(rules, path, KEY_DERIVED, notice_derived, scope);
}


/* --------------------------------------------------------- of references --- */

/*
 * A reference of `components` components is the tail of deeper files, and
 * has the paths of others as its own tails.
 */
static void
emit_reference_path(Emitter *emitter, const char *text, size_t len, int components,
					KeyFamily whole, KeyFamily tail)
{
	int			wanted = Min(components, emitter->scope->depth);
	size_t		i = len;

	if (len == 0)
		return;
	if (components < emitter->scope->depth)
		emitter->sink(tail, text, len, emitter->arg);
	while (wanted > 0)
	{
		while (i > 0 && text[i - 1] != '/')
			i--;
		emitter->sink(whole, text + i, len - i, emitter->arg);
		if (i == 0)
			break;
		i--;
		wanted--;
	}
}

static void
emit_canonical(Emitter *emitter, const Canonical *path)
{
	size_t		stem;

	if (path->components == 0)
		return;
	emit_reference_path(emitter, path->text, path->len, path->components,
						KEY_PATH, KEY_TAIL);
	stem = length_without_audio_extension(emitter->rules, path->text, path->len);
	if (stem == path->len)
		emit_reference_path(emitter, path->text, path->len, path->components,
							KEY_STEM, KEY_STEM_TAIL);
	if (emitter->scope->derived)
		emit_reference_path(emitter, path->text, stem, path->components,
							KEY_DERIVED, KEY_DERIVED_TAIL);
}

/* Take "scheme://host" or a drive letter off the front. */
static void
skip_scheme_and_host(const char **text, size_t *len)
{
	const char *p = *text;
	const char *end = p + *len;

	if (p == end || !isalpha((unsigned char) *p))
		return;
	while (p < end && (isalnum((unsigned char) *p) || *p == '+' || *p == '-' || *p == '.'))
		p++;
	if (p == end || *p != ':')
		return;
	p++;
	if (end - p >= 2 && (p[0] == '/' || p[0] == '\\') && (p[1] == '/' || p[1] == '\\'))
		for (p += 2; p < end && *p != '/' && *p != '\\';)
			p++;
	else if (p - *text != 2 && pg_strncasecmp(*text, "file:", 5) != 0)
		return;					/* "a:b.mp3" is a name with a colon */
	*len = end - p;
	*text = p;
}

static void
trim_spaces(const char **text, size_t *len)
{
	while (*len > 0 && isspace((unsigned char) **text))
	{
		(*text)++;
		(*len)--;
	}
	while (*len > 0 && isspace((unsigned char) (*text)[*len - 1]))
		(*len)--;
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = fold_ascii(c);
	return (c >= 'a' && c <= 'f') ? c - 'a' + 10 : -1;
}

/* Percent-decode into `out`, which has room for `len` bytes; the new length. */
static size_t
decode_percent(const char *text, size_t len, char *out)
{
	size_t		i;
	size_t		n = 0;

	for (i = 0; i < len; i++)
	{
		int			high = (text[i] == '%' && i + 2 < len) ? hex_value(text[i + 1]) : -1;
		int			low = high >= 0 ? hex_value(text[i + 2]) : -1;

		if (low >= 0 && (high | low) != 0)
		{
			out[n++] = (char) (high << 4 | low);
			i += 2;
		}
		else
			out[n++] = text[i];
	}
	return n;
}

/* One reading, with backslashes as they are and as slashes. */
static void
emit_path_reading(Emitter *emitter, const char *text, size_t len)
{
	Canonical	path;
	size_t		i;

	canonicalise(emitter->rules, text, len, &path);
	emit_canonical(emitter, &path);
	if (memchr(text, '\\', len) != NULL)
	{
		char		slashed[REFERENCE_MAX];

		for (i = 0; i < len; i++)
			slashed[i] = text[i] == '\\' ? '/' : text[i];
		canonicalise(emitter->rules, slashed, len, &path);
		emit_canonical(emitter, &path);
	}
}

/* One reading as it stands, and percent-decoded. */
static void
emit_escaped_reading(Emitter *emitter, const char *text, size_t len)
{
	trim_spaces(&text, &len);
	emit_path_reading(emitter, text, len);
	if (memchr(text, '%', len) != NULL)
	{
		char		decoded[REFERENCE_MAX];
		const char *start = decoded;
		size_t		n = decode_percent(text, len, decoded);

		emit_path_reading(emitter, start, n);
		trim_spaces(&start, &n);
		emit_path_reading(emitter, start, n);
	}
}

/* One reading with its query and fragment, and without them. */
static void
emit_url_reading(Emitter *emitter, const char *text, size_t len)
{
	size_t		cut;
	int			cuts = 0;

	emit_escaped_reading(emitter, text, len);
	for (cut = 0; cut < len && cuts < CUTS_MAX; cut++)
		if (text[cut] == '?' || text[cut] == '#')
		{
			emit_escaped_reading(emitter, text, cut);
			cuts++;
		}
}

/*
 * What an ordinary letter of an ordinary reference is folded to; 0 for what
 * wants a closer look.
 */
static const unsigned char *
plain_letters(void)
{
	static unsigned char letters[256];

	if (letters['a'] == 0)
	{
		int			c;

		for (c = 0x20; c < 0x7F; c++)
			letters[c] = strchr("%?#\\:", c) ? 0 : (unsigned char) fold_ascii((char) c);
	}
	return letters;
}

/*
 * The ordinary reference: ASCII, nothing to trim, decode or resolve.  Folds
 * into `path` and returns true, or returns false at the first sight of
 * anything else.
 */
static bool
read_plain(const char *text, size_t len, Canonical *path)
{
	const unsigned char *letters = plain_letters();
	size_t		i;
	unsigned char previous = '/';

	if (len == 0 || len >= STORE_PATH_MAX || text[0] == ' ' ||
		text[len - 1] == ' ' || text[len - 1] == '/')
		return false;
	path->components = 1;
	for (i = 0; i < len; i++)
	{
		unsigned char c = letters[(unsigned char) text[i]];

		if (c == 0)
			return false;
		if (previous == '/' && (c == '.' || c == '/'))
			return false;		/* "//", "./", "../" */
		path->components += (c == '/');
		path->text[i] = (char) c;
		previous = c;
	}
	path->len = len;
	return true;
}

void
key_of_reference(const KeyRules *rules, const KeyScope *scope,
				 const char *reference, size_t len, KeySink sink, void *arg)
{
	Emitter		emitter = {rules, scope, sink, arg};
	const char *text = reference;
	Canonical	path;

	/* a leading slash says nothing: a path matches by its tail */
	while (len > 1 && text[0] == '/' && text[1] != '/')
	{
		text++;
		len--;
	}
	if (read_plain(text, len, &path))
	{
		emit_canonical(&emitter, &path);
		return;
	}

	if (len > REFERENCE_MAX)
	{
		/* the path of a URL with a huge query, and the end of anything */
		key_of_reference(rules, scope, text, REFERENCE_MAX, sink, arg);
		text += len - REFERENCE_MAX;
		len = REFERENCE_MAX;
	}
	/* to the letter: even a name that looks like a URL may be a file */
	emit_path_reading(&emitter, text, len);
	trim_spaces(&text, &len);
	emit_url_reading(&emitter, text, len);
	skip_scheme_and_host(&text, &len);
	emit_url_reading(&emitter, text, len);
}


/* ------------------------------------------------------------ comparison --- */

uint64
key_hash(KeyFamily family, const char *text, size_t len)
{
	return hash_bytes_extended((const unsigned char *) text, (int) len,
							   (uint64) family);
}

typedef struct Comparison
{
	const KeyRules *rules;
	const char *path;
	int			families;		/* that matched so far */
	KeyFamily	family;			/* the reference's key that is looked for */
	const char *text;
	size_t		len;
} Comparison;

static void
compare_with_file_key(KeyFamily family, const char *text, size_t len, void *arg)
{
	Comparison *comparison = arg;

	if (family == comparison->family && len == comparison->len &&
		memcmp(text, comparison->text, len) == 0)
		comparison->families |= family;
}

static void
compare_with_reference_key(KeyFamily family, const char *text, size_t len, void *arg)
{
	Comparison *comparison = arg;

	comparison->family = family;
	comparison->text = text;
	comparison->len = len;
	key_of_file(comparison->rules, comparison->path, family,
				compare_with_file_key, comparison);
}

static bool
contains(const char *text, size_t len, const char *part, size_t part_len)
{
	size_t		i;

	for (i = 0; i + part_len <= len; i++)
		if (memcmp(text + i, part, part_len) == 0)
			return true;
	return false;
}

/*
 * Does the reference, literally or decoded, hold the file's name in its very
 * letters?  Of a derived file, the name that it is derived from.
 */
static bool
spells_name(const KeyRules *rules, const char *reference, size_t len,
			const char *path, bool derived)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	size_t		n = find_dot(name, strlen(name));
	char		decoded[REFERENCE_MAX];
	int			i;

	for (i = 0; derived && i < rules->n_suffixes; i++)
	{
		size_t		suffix = strlen(rules->suffixes[i]);

		if (n > suffix &&
			pg_strncasecmp(name + n - suffix, rules->suffixes[i], suffix) == 0)
		{
			n -= suffix;
			break;
		}
	}
	if (len > REFERENCE_MAX)
		return false;
	return contains(reference, len, name, n) ||
		contains(decoded, decode_percent(reference, len, decoded), name, n);
}

KeyMatch
key_compare(const KeyRules *rules, const char *reference, size_t len,
			const char *path)
{
	Comparison	comparison = {rules, path, 0, 0, NULL, 0};
	KeyScope	scope = {0, false};
	const int	strict = KEY_PATH | KEY_STEM | KEY_DERIVED;
	bool		derived_only;

	key_widen_scope(rules, path, &scope);
	key_of_reference(rules, &scope, reference, len,
					 compare_with_reference_key, &comparison);
	if (comparison.families == 0)
		return KEY_NO_MATCH;
	derived_only = (comparison.families & (KEY_PATH | KEY_STEM)) == 0;
	if ((comparison.families & strict) != 0 &&
		spells_name(rules, reference, len, path, derived_only))
		return KEY_STRICT_MATCH;
	return KEY_LOOSE_MATCH;
}
