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
 * Unicode: both sides are decomposed (PostgreSQL's own tables), case folded
 * letter by letter in the C.UTF-8 locale of the C library, and composed (NFC).
 * In this order, because many a letter exists composed in one case only.  It
 * is no full case folding ("SS" is not the German sharp s); two names that it
 * confuses are both kept.
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

/*
 * No component of a path is longer: 255 letters, each of which may come as
 * three letters of three bytes.  What is longer is not folded, because putting
 * marks into order takes time that grows with the square of their number.
 */
#define COMPONENT_MAX		(255 * 9)

#define MAX_UTF8_LETTER		4

/* So often what is percent-encoded is decoded. */
#define DECODINGS_MAX		2

/* Between these may stand the names of a list, of JSON, of a query. */
#define SEPARATORS			"\"',;&=|{}[]<>:"

/* Where an application that was set up with the defaults keeps its audio. */
#define USUAL_UPLOAD_DIR	"uploads/audio"
#define DOT_ABOVE			0x0307

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
	bool		exact;			/* nothing folded, nothing guessed */
	bool		rooted;			/* it was a URL, or an absolute path */
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

/* Not isspace() and the like, which may see letters in bytes of UTF-8. */
static inline bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static inline bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
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

/*
 * One letter in lower case, where the C library knows it.  By way of upper
 * case, which unites what lower case keeps apart: the sigma at the end of a
 * word and the other, i with a dot and without.
 */
static pg_wchar
fold_letter(pg_wchar c)
{
	locale_t	locale = folding_locale();

	if (c < 0x80)
		return (pg_wchar) fold_ascii((char) c);
	if (locale == (locale_t) 0)
		return c;
	return (pg_wchar) towlower_l(towupper_l((wint_t) c, locale), locale);
}

/* Fold decomposed letters in place; the dot of a capital I goes as well. */
static void
fold_letters(pg_wchar *letters)
{
	pg_wchar	previous = 0;
	pg_wchar   *out = letters;

	for (; *letters != 0; letters++)
	{
		pg_wchar	c = fold_letter(*letters);

		if (c == DOT_ABOVE && previous == 'i')
			continue;
		*out++ = previous = c;
	}
	*out = 0;
}

/*
 * Fold valid UTF-8 in place.  Returns the new length; a text that would
 * outgrow `room` is left as it was.
 */
static size_t
fold_unicode(char *text, size_t len, size_t room)
{
	pg_wchar   *letters = (pg_wchar *) palloc((len + 1) * sizeof(pg_wchar));
	pg_wchar   *decomposed;
	pg_wchar   *composed;
	unsigned char *folded;
	size_t		n = 0;
	size_t		out = 0;
	size_t		i;

	for (i = 0; i < len; i += pg_utf_mblen((unsigned char *) text + i))
		letters[n++] = utf8_to_unicode((unsigned char *) text + i);
	letters[n] = 0;

	decomposed = unicode_normalize(UNICODE_NFD, letters);
	fold_letters(decomposed);
	composed = unicode_normalize(UNICODE_NFC, decomposed);
	folded = (unsigned char *) palloc(room + MAX_UTF8_LETTER);
	for (n = 0; composed[n] != 0 && out <= room; n++)
	{
		unicode_to_utf8(composed[n], folded + out);
		out += pg_utf_mblen(folded + out);
	}
	if (out <= room)
	{
		memcpy(text, folded, out);
		len = out;
	}
	pfree(folded);
	pfree(composed);
	pfree(decomposed);
	pfree(letters);
	return len;
}

/*
 * Case folded and composed, as far as the encoding is known: one component,
 * because what is wrong with one must not keep the others from being folded.
 */
static size_t
fold_component(const KeyRules *rules, char *text, size_t len, size_t room)
{
	bool		ascii = true;
	size_t		i;

	for (i = 0; i < len; i++)
	{
		if (IS_HIGHBIT_SET(text[i]))
			ascii = false;
		else
			text[i] = fold_ascii(text[i]);
	}
	if (!ascii && rules->utf8 && len <= COMPONENT_MAX && is_valid_utf8(text, len))
		return fold_unicode(text, len, room);
	return len;
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

/*
 * `to_come`: so many bytes of the text are still to be appended.  There is
 * room for any path that exists; what is longer may be folded in part.
 */
static void
append_component(const KeyRules *rules, bool exact, Canonical *path,
				 const char *component, size_t len, size_t to_come)
{
	char	   *place;

	if (path->components++ > 0)
		path->text[path->len++] = '/';
	place = path->text + path->len;
	memcpy(place, component, len);
	if (!exact)
		len = fold_component(rules, place, len, REFERENCE_MAX - path->len - to_come);
	path->len += len;
}

/*
 * Fill `path` with the components of `text`: "", "." gone, ".." resolved by
 * the letters alone (nothing on disk is asked), folded unless `exact`.  `len`
 * is at most REFERENCE_MAX, so the result fits.
 */
static void
canonicalise(const KeyRules *rules, bool exact, const char *text, size_t len,
			 Canonical *path)
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
			append_component(rules, exact, path, text, n, end - text - n);
		text += n + 1;
	}
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
length_without_suffix(const KeyRules *rules, bool exact, const char *stem,
					  size_t len, const char *suffix)
{
	char		folded[COMPONENT_MAX];
	size_t		n = strlen(suffix);

	if (n == 0 || n > sizeof(folded))
		return 0;
	memcpy(folded, suffix, n);
	if (!exact)
		n = fold_component(rules, folded, n, sizeof(folded));
	if (len <= n || pg_strncasecmp(stem + len - n, folded, n) != 0 ||
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
emit_file(const KeyRules *rules, bool exact, const char *path, int families,
		  KeySink sink, void *arg)
{
	Canonical	file;
	size_t		stem;
	int			i;

	canonicalise(rules, exact, path, Min(strlen(path), REFERENCE_MAX), &file);
	emit_file_path(file.text, file.len, KEY_PATH, KEY_TAIL, families, sink, arg);

	if ((families & ~(KEY_PATH | KEY_TAIL)) == 0)
		return;
	stem = find_dot(file.text, file.len);
	emit_file_path(file.text, stem, KEY_STEM, KEY_STEM_TAIL, families, sink, arg);

	for (i = 0; i < rules->n_suffixes; i++)
	{
		size_t		len = length_without_suffix(rules, exact, file.text, stem,
												rules->suffixes[i]);

		if (len > 0)
			emit_file_path(file.text, len, KEY_DERIVED, KEY_DERIVED_TAIL,
						   families, sink, arg);
	}
}

void
key_of_file(const KeyRules *rules, const char *path, int families,
			KeySink sink, void *arg)
{
	emit_file(rules, false, path, families, sink, arg);
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

/* The last component of a path. */
static const char *
last_component(const char *path, size_t *len)
{
	size_t		i = *len;

	while (i > 0 && path[i - 1] != '/')
		i--;
	*len -= i;
	return path + i;
}

/*
 * May what stands in a reference before the path of a file be the upload
 * directory?  In "archive/a.mp3" it may not: that is no reference to "a.mp3",
 * whatever it protects.  A URL or an absolute path may be seen from another
 * machine, but what its query holds is another path than its own.
 */
static bool
may_be_upload_dir(const Emitter *emitter, const char *prefix, size_t len)
{
	const char *upload_dir = emitter->rules->upload_dir;
	size_t		dir_len;
	size_t		name_len = len;
	const char *name = last_component(prefix, &name_len);
	const char *dir_name;

	if (len == 0 || upload_dir == NULL ||
		(len == strlen(USUAL_UPLOAD_DIR) && memcmp(prefix, USUAL_UPLOAD_DIR, len) == 0))
		return true;
	dir_len = strlen(upload_dir);
	dir_name = last_component(upload_dir, &dir_len);
	if (name_len == dir_len && memcmp(name, dir_name, name_len) == 0)
		return true;
	return emitter->rooted && memchr(prefix, '?', len) == NULL &&
		memchr(prefix, '#', len) == NULL;
}

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
		if (!emitter->exact || may_be_upload_dir(emitter, text, i > 0 ? i - 1 : 0))
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
	size_t		dot;

	if (path->components == 0)
		return;
	emit_reference_path(emitter, path->text, path->len, path->components,
						KEY_PATH, KEY_TAIL);
	stem = length_without_audio_extension(emitter->rules, path->text, path->len);
	if (stem == path->len)
		emit_reference_path(emitter, path->text, path->len, path->components,
							KEY_STEM, KEY_STEM_TAIL);
	if (!emitter->scope->derived)
		return;
	emit_reference_path(emitter, path->text, stem, path->components,
						KEY_DERIVED, KEY_DERIVED_TAIL);
	/* an id with a dot, or the film "talk.mkv"?  To keep, both. */
	dot = find_dot(path->text, stem);
	if (dot < stem && stem == path->len && !emitter->exact)
		emit_reference_path(emitter, path->text, dot, path->components,
							KEY_DERIVED, KEY_DERIVED_TAIL);
}

/* Take "scheme://host" or a drive letter off the front; was there any? */
static bool
skip_scheme_and_host(const char **text, size_t *len)
{
	const char *p = *text;
	const char *end = p + *len;

	if (p == end || !is_letter(*p))
		return false;
	while (p < end && (is_letter(*p) || (*p >= '0' && *p <= '9') ||
					   *p == '+' || *p == '-' || *p == '.'))
		p++;
	if (p == end || *p != ':')
		return false;
	p++;
	if (end - p >= 2 && (p[0] == '/' || p[0] == '\\') && (p[1] == '/' || p[1] == '\\'))
		for (p += 2; p < end && *p != '/' && *p != '\\';)
			p++;
	else if (p - *text != 2 && pg_strncasecmp(*text, "file:", 5) != 0)
		return false;			/* "ab:c.mp3" is a name with a colon */
	*len = end - p;
	*text = p;
	return true;
}

/* Were there any? */
static bool
trim_spaces(const char **text, size_t *len)
{
	size_t		before = *len;

	while (*len > 0 && is_space(**text))
	{
		(*text)++;
		(*len)--;
	}
	while (*len > 0 && is_space((*text)[*len - 1]))
		(*len)--;
	return *len < before;
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

	canonicalise(emitter->rules, emitter->exact, text, len, &path);
	emit_canonical(emitter, &path);
	if (memchr(text, '\\', len) != NULL)
	{
		char		slashed[REFERENCE_MAX];

		for (i = 0; i < len; i++)
			slashed[i] = text[i] == '\\' ? '/' : text[i];
		canonicalise(emitter->rules, emitter->exact, slashed, len, &path);
		emit_canonical(emitter, &path);
	}
}

/* One reading with the spaces around it, and without them. */
static void
emit_spaced_reading(Emitter *emitter, const char *text, size_t len)
{
	emit_path_reading(emitter, text, len);
	if (trim_spaces(&text, &len))
		emit_path_reading(emitter, text, len);
}

/* One reading as it stands, percent-decoded, and decoded once more. */
static void
emit_escaped_reading(Emitter *emitter, const char *text, size_t len)
{
	char		decoded[REFERENCE_MAX];
	int			i;

	emit_spaced_reading(emitter, text, len);
	for (i = 0; i < DECODINGS_MAX && memchr(text, '%', len) != NULL; i++)
	{
		/* in place the second time: what is written is behind what is read */
		size_t		n = decode_percent(text, len, decoded);

		if (n == len)
			break;
		emit_spaced_reading(emitter, decoded, n);
		text = decoded;
		len = n;
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
			letters[c] = strchr("%?#\\+" SEPARATORS, c) ? 0 : (unsigned char) fold_ascii((char) c);
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

/* A "+" may stand for a space. */
static void
emit_form_reading(Emitter *emitter, const char *text, size_t len)
{
	char		spaced[REFERENCE_MAX];
	size_t		i;

	emit_escaped_reading(emitter, text, len);
	if (memchr(text, '+', len) == NULL)
		return;
	for (i = 0; i < len; i++)
		spaced[i] = text[i] == '+' ? ' ' : text[i];
	emit_escaped_reading(emitter, spaced, len);
}

/*
 * What stands between separators, each for itself.  The whole has been read,
 * but as a form.
 */
static void
emit_pieces(Emitter *emitter, const char *text, size_t len)
{
	const char *end = text + len;
	const char *start = text;
	const char *p;

	for (p = text; p <= end; p++)
	{
		if (p < end && (*p == '\0' || strchr(SEPARATORS "?#", *p) == NULL))
			continue;
		if (p > start && (p - start < (ptrdiff_t) len || memchr(text, '+', len) != NULL))
			emit_form_reading(emitter, start, p - start);
		start = p + 1;
	}
}

/* To the letter, because even a name that looks like a URL may be a file. */
static void
emit_hosted_reading(Emitter *emitter, const char *text, size_t len)
{
	emit_url_reading(emitter, text, len);
	if (skip_scheme_and_host(&text, &len))
	{
		bool		rooted = emitter->rooted;

		emitter->rooted = true;
		emit_url_reading(emitter, text, len);
		emitter->rooted = rooted;
	}
}

/* All readings of at most REFERENCE_MAX bytes. */
static void
emit_readings(Emitter *emitter, const char *text, size_t len)
{
	emit_hosted_reading(emitter, text, len);
	if (trim_spaces(&text, &len))
		emit_hosted_reading(emitter, text, len);
	if (!emitter->exact)
		emit_pieces(emitter, text, len);
}

static void
emit_reference(Emitter *emitter, const char *text, size_t len)
{
	Canonical	path;

	/* a leading slash says nothing: a path matches by its tail */
	if (len > 1 && text[0] == '/')
		emitter->rooted = true;
	if (len > 1 && text[0] == '/' && text[1] != '/')
	{
		text++;
		len--;
	}
	if (!emitter->exact && read_plain(text, len, &path))
	{
		emit_canonical(emitter, &path);
		return;
	}

	if (len > REFERENCE_MAX)
		trim_spaces(&text, &len);
	if (len <= REFERENCE_MAX)
		emit_readings(emitter, text, len);
	else if (!emitter->exact)
	{
		/* the path of a URL with a huge query, and the end of anything */
		emit_readings(emitter, text, REFERENCE_MAX);
		emit_readings(emitter, text + len - REFERENCE_MAX, REFERENCE_MAX);
	}
}

void
key_of_reference(const KeyRules *rules, const KeyScope *scope,
				 const char *reference, size_t len, KeySink sink, void *arg)
{
	Emitter		emitter = {rules, scope, false, false, sink, arg};

	emit_reference(&emitter, reference, len);
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
	bool		exact;
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
	emit_file(comparison->rules, comparison->exact, comparison->path, family,
			  compare_with_file_key, comparison);
}

/* The families in which reference and file have keys in common. */
static int
families_in_common(const KeyRules *rules, bool exact, const char *reference,
				   size_t len, const char *path)
{
	KeyScope	scope = {0, false};
	Comparison	comparison = {rules, exact, path, 0, 0, NULL, 0};
	Emitter		emitter = {rules, &scope, exact, false, compare_with_reference_key, &comparison};

	key_widen_scope(rules, path, &scope);
	emit_reference(&emitter, reference, len);
	return comparison.families;
}

KeyMatch
key_compare(const KeyRules *rules, const char *reference, size_t len,
			const char *path)
{
	const int	strict = KEY_PATH | KEY_STEM | KEY_DERIVED;
	int			families = families_in_common(rules, false, reference, len, path);

	if (families == 0)
		return KEY_NO_MATCH;
	if ((families & strict) != 0 &&
		(families_in_common(rules, true, reference, len, path) & strict) != 0)
		return KEY_STRICT_MATCH;
	return KEY_LOOSE_MATCH;
}
