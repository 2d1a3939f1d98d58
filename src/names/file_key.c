/*-------------------------------------------------------------------------
 *
 * names/file_key.c
 *	  Keys of files, and the names that stand in references.
 *
 * The hazard here is a reference that is not understood: the file it names
 * would look like an orphan.  So a reference is not taken apart at separators,
 * each of which may be a letter of a name.  It is searched for names that
 * exist: from each place where a name can end, find_before() goes backwards,
 * extends a hash of the reversed text letter by letter, and asks the filter of
 * the scope at each place where a name can begin.  That costs about as many
 * steps as the longest name has letters, for each end; ends are few, because
 * the last two letters of all names are known.
 *
 * Where a name can begin and end is a matter of the letters beside it, and
 * marked once for each reading (mark_begins(), mark_ends()).  In doubt it can.
 *
 * The common case, an ASCII name or path without anything special, must cost
 * about as much as hashing it, because it is done for every row of every
 * source: one pass over the bytes finds out whether anything is special.  What
 * it finds is what the search would find.
 *
 * What condemns is another matter: there the whole reference must be the path
 * of the file, to the letter.  The readings of an Emitter are for that alone.
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
#include <limits.h>

#ifdef FRONTEND
#include "common/fe_memutils.h"
#endif
#include "port/pg_bitutils.h"

#include "src/names/file_key.h"
#include "src/names/fold.h"
#include "src/names/readings.h"
#include "src/store/store.h"

/*
 * A reference longer than this is looked at from its end: no path on disk
 * has more than STORE_PATH_MAX bytes, percent-encoding triples them.
 */
#define REFERENCE_MAX		(4 * STORE_PATH_MAX)

StaticAssertDecl(REFERENCE_MAX == KEY_STRICT_MAX, "file_key.h says how long a path may be");

/* A long value is searched in windows of so many bytes, which overlap. */
#define WINDOW				(256 * 1024)

/* So many bytes of a value may stand for one of a name: "%25C3", "\\\\u00e9". */
#define ESCAPE_MAX			12

/* A window ends at a blank, if there is one among so many bytes. */
#define BLANK_SEARCH		1024

/* So many keys are kept as a list, that their filter be no larger than needed. */
#define LISTED_KEYS_MAX		65536
#define FILTER_BITS_PER_KEY 32
#define FILTER_MIN			64	/* bytes */
#define FILTER_MAX			(1024 * 1024)

#define HASH_FACTOR			UINT64CONST(0x9E3779B97F4A7C15)
#define HOST_MAX			255
#define EXTENSION_MAX		10

/* So many "?" and "#" of a reference are tried as the end of its path. */
#define CUTS_MAX			8

/* So often what is percent-encoded is decoded. */
#define DECODINGS_MAX		2

/* Where an application that was set up with the defaults keeps its audio. */
#define USUAL_UPLOAD_DIR	"uploads/audio"

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

/* The readings of a reference that may condemn: nothing folded, nothing guessed. */
typedef struct Emitter
{
	const KeyRules *rules;
	int			depth;			/* components of the file */
	bool		derived;		/* is it a derived one? */
	bool		rooted;			/* the reference was a URL, or an absolute
								 * path */
	KeySink		sink;
	void	   *arg;
} Emitter;

/* A search for names in one reference. */
typedef struct Finder
{
	const KeyRules *rules;
	KeyScope   *scope;
	KeySink		sink;
	void	   *arg;
	const char *text;			/* the reading that is searched, folded */
	size_t		len;
	uint8	   *classes;		/* a FoldClass for each letter */
	uint8	   *edges;			/* before each letter, and at the end: EDGE_* */
} Finder;

void		(*key_pause) (void) = NULL;


/* ---------------------------------------------------------------- text --- */

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
		len = fold_component(rules->utf8, place, len, REFERENCE_MAX - path->len - to_come);
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
	char		folded[FOLD_COMPONENT_MAX];
	size_t		n = strlen(suffix);

	if (n == 0 || n > sizeof(folded))
		return 0;
	memcpy(folded, suffix, n);
	if (!exact)
		n = fold_component(rules->utf8, folded, n, sizeof(folded));
	if (len <= n || pg_strncasecmp(stem + len - n, folded, n) != 0 ||
		stem[len - n - 1] == '/')
		return 0;
	return len - n;
}

/* Do the first `len` bytes of a text of any length end with an extension of audio? */
static bool
ends_with_extension(const KeyRules *rules, const char *text, size_t len)
{
	size_t		n = Min(len, EXTENSION_MAX + 2);

	return length_without_audio_extension(rules, text + len - n, n) < n;
}


/* ----------------------------------------------------------------- keys --- */

static inline uint64
extend_hash(uint64 hash, char c)
{
	return hash * HASH_FACTOR + (unsigned char) c + 1;
}

static inline uint64
mix_hash(uint64 hash)
{
	hash ^= hash >> 32;
	hash *= UINT64CONST(0xD6E8FEB86659FD93);
	hash ^= hash >> 32;
	hash *= UINT64CONST(0xD6E8FEB86659FD93);
	return hash ^ hash >> 32;
}

static inline uint64
key_of_mixed(KeyFamily family, uint64 mixed)
{
	return mixed ^ (uint64) family * HASH_FACTOR;
}

uint64
key_hash(KeyFamily family, const char *text, size_t len)
{
	uint64		hash = 0;

	while (len > 0)
		hash = extend_hash(hash, text[--len]);
	return key_of_mixed(family, mix_hash(hash));
}

/* The whole path in one family, every shorter tail of it in the other. */
static void
emit_file_path(const char *text, size_t len, KeyFamily whole, KeyFamily tail,
			   int families, KeySink sink, void *arg)
{
	uint64		hash = 0;
	size_t		i;

	if ((families & (whole | tail)) == 0)
		return;
	for (i = len; i > 0; i--)
	{
		if (text[i - 1] == '/' && (families & tail))
			sink(tail, key_of_mixed(tail, mix_hash(hash)), text + i, len - i, arg);
		hash = extend_hash(hash, text[i - 1]);
	}
	if (families & whole)
		sink(whole, key_of_mixed(whole, mix_hash(hash)), text, len, arg);
}

static void
emit_derived(const char *text, size_t len, int families, KeySink sink, void *arg)
{
	emit_file_path(text, len, KEY_DERIVED, KEY_DERIVED_TAIL, families, sink, arg);
}

/* "d/thumb_abc" lives with "d/abc". */
static void
emit_without_prefix(const KeyRules *rules, bool exact, const Canonical *file, size_t stem,
					const char *prefix, int families, KeySink sink, void *arg)
{
	char		folded[FOLD_COMPONENT_MAX];
	Canonical	original;
	size_t		n = strlen(prefix);
	size_t		name = stem;

	if (n == 0 || n > sizeof(folded))
		return;
	memcpy(folded, prefix, n);
	if (!exact)
		n = fold_component(rules->utf8, folded, n, sizeof(folded));
	while (name > 0 && file->text[name - 1] != '/')
		name--;
	if (stem - name <= n || pg_strncasecmp(file->text + name, folded, n) != 0)
		return;
	memcpy(original.text, file->text, name);
	memcpy(original.text + name, file->text + name + n, stem - name - n);
	emit_derived(original.text, stem - n, families, sink, arg);
}

/* Every file in the folder of "d/index.m3u8", or below, lives with it. */
static void
emit_with_manifest(const Canonical *file, size_t folder, const char *manifest, int families,
				   KeySink sink, void *arg)
{
	Canonical	path;
	size_t		n = strlen(manifest);
	size_t		begin = folder;

	if (folder + 1 + n > REFERENCE_MAX)
		return;
	memcpy(path.text, file->text, folder);
	path.text[folder] = '/';
	memcpy(path.text + folder + 1, manifest, n);
	path.len = folder + 1 + n;
	if (families & KEY_PATH)
		sink(KEY_PATH, key_hash(KEY_PATH, path.text, path.len), path.text, path.len, arg);
	/* not the bare name, which would mean all of them */
	while (begin > 0 && (families & KEY_TAIL))
	{
		begin--;
		if (path.text[begin] == '/')
			sink(KEY_TAIL, key_hash(KEY_TAIL, path.text + begin + 1, path.len - begin - 1),
				 path.text + begin + 1, path.len - begin - 1, arg);
	}
}

/* What lives in the folder of an id, or of its manifest. */
static void
emit_of_folder(const KeyRules *rules, bool exact, const Canonical *file, size_t folder,
			   int families, KeySink sink, void *arg)
{
	int			i;

	emit_derived(file->text, folder, families, sink, arg);
	for (i = 0; i < rules->n_folders; i++)
	{
		const char *name = rules->folders[i];
		size_t		len;

		if (name[0] != '\0' && strchr(name + 1, '.') != NULL)
			emit_with_manifest(file, folder, name, families, sink, arg);
		else if ((len = length_without_suffix(rules, exact, file->text, folder, name)) > 0)
			emit_derived(file->text, len, families, sink, arg);
	}
}

static void
emit_file(const KeyRules *rules, bool exact, const char *path, int families,
		  KeySink sink, void *arg)
{
	Canonical	file;
	size_t		stem;
	size_t		folder;
	int			i;

	canonicalise(rules, exact, path, Min(strlen(path), REFERENCE_MAX), &file);
	emit_file_path(file.text, file.len, KEY_PATH, KEY_TAIL, families, sink, arg);

	stem = find_dot(file.text, file.len);
	emit_file_path(file.text, stem, KEY_STEM, KEY_STEM_TAIL, families, sink, arg);

	for (i = 0; i < rules->n_suffixes; i++)
	{
		size_t		len = length_without_suffix(rules, exact, file.text, stem,
												rules->suffixes[i]);

		if (len > 0)
			emit_derived(file.text, len, families, sink, arg);
	}
	for (i = 0; i < rules->n_prefixes; i++)
		emit_without_prefix(rules, exact, &file, stem, rules->prefixes[i], families, sink, arg);
	for (folder = file.len; rules->n_folders > 0 && folder > 1; folder--)
		if (file.text[folder - 1] == '/')
			emit_of_folder(rules, exact, &file, folder - 1, families, sink, arg);
}

void
key_of_file(const KeyRules *rules, const char *path, int families,
			KeySink sink, void *arg)
{
	emit_file(rules, false, path, families, sink, arg);
}


/* ---------------------------------------------------------------- scope --- */

static inline void
add_to_filter(KeyScope *scope, uint64 key)
{
	uint64		bit = key & scope->filter_mask;

	scope->filter[bit / 8] |= 1 << (bit % 8);
}

static inline bool
filter_lacks(const KeyScope *scope, uint64 key)
{
	uint64		bit = key & scope->filter_mask;

	return (scope->filter[bit / 8] & (1 << (bit % 8))) == 0;
}

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

/* Makes the filter, with so many bits for each key as there is room for. */
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

/* The filter is made when it is asked for, but for one that is of the largest size. */
static void
add_hash(KeyScope *scope, uint64 key)
{
	if (scope->hashes == NULL && scope->filter != NULL)
	{
		add_to_filter(scope, key);
		return;
	}
	if (scope->filter != NULL)
	{
		pfree(scope->filter);
		scope->filter = NULL;
	}
	if (scope->n_hashes == LISTED_KEYS_MAX)
	{
		make_filter(scope, SIZE_MAX / FILTER_BITS_PER_KEY);
		pfree(scope->hashes);
		scope->hashes = NULL;
		add_to_filter(scope, key);
		return;
	}
	if (scope->n_hashes == scope->hashes_size)
	{
		scope->hashes_size = Max(scope->hashes_size * 2, 16);
		scope->hashes = scope->hashes == NULL ? scope_alloc(scope, scope->hashes_size * sizeof(uint64)) :
			repalloc(scope->hashes, scope->hashes_size * sizeof(uint64));
	}
	scope->hashes[scope->n_hashes++] = key;
}

static inline unsigned
end_number(char last_but_one, char last)
{
	return ((unsigned char) last * 67 + (unsigned char) last_but_one) % KEY_ENDS;
}

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

/* May the first `len` bytes of a text end with a name of the scope? */
static inline bool
may_end(const uint8 *ends, const char *text, size_t len)
{
	unsigned	n;

	if (len < 2)
		return true;
	n = end_number(text[len - 2], text[len - 1]);
	return (ends[n / 8] & (1 << (n % 8))) != 0;
}

static void
add_to_scope(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	KeyScope   *scope = arg;

	if (len == 0)
		return;
	add_hash(scope, key);
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


/* ----------------------------------------------------- an ordinary value --- */

/*
 * What an ordinary letter of an ordinary reference is folded to; 0 for what
 * wants a closer look: whatever cannot continue a name, and "%".
 */
static const unsigned char *
plain_letters(void)
{
	static unsigned char letters[256];

	if (letters['a'] == 0)
	{
		int			c;

		for (c = '-'; c <= 'z'; c++)
			if (isalnum(c) || strchr("-_./", c) != NULL)
				letters[c] = (unsigned char) fold_ascii((char) c);
	}
	return letters;
}

/*
 * The ordinary reference: one path of ASCII, nothing to trim, decode or
 * resolve, and nothing in it that could be a name but its last component.
 * Folds into `path` and returns true, or returns false at the first sight of
 * anything else.
 */
static bool
read_plain(const char *text, size_t len, Canonical *path)
{
	const unsigned char *letters = plain_letters();
	size_t		i;
	size_t		dot = 0;		/* behind the last one of the component */
	unsigned char previous = '/';

	if (len == 0 || len >= STORE_PATH_MAX)
		return false;
	path->components = 1;
	for (i = 0; i < len; i++)
	{
		unsigned char c = letters[(unsigned char) text[i]];

		if (c == 0)
			return false;
		if (c <= '/')			/* one of "-./" */
		{
			if (c == '-' ? dot > 0 : previous == '/' || previous == '.')
				return false;	/* "//", "./", "..", ".x", "x.y-z" */
			if (c == '/' && dot > 0)
				return false;	/* "x.y/" */
			dot = c == '.' ? i + 1 : dot;
			path->components += (c == '/');
		}
		else if (c == '_' && dot > 0)
			return false;
		path->text[i] = (char) c;
		previous = c;
	}
	path->len = len;
	return isalnum(previous);
}

/* Passes on the families in which some file may have a key of this hash. */
static inline void
emit_found(KeyScope *scope, uint64 mixed, const char *text, size_t len, int families,
		   KeySink sink, void *arg)
{
	int			family;

	for (family = KEY_PATH; family <= families; family <<= 1)
		if ((families & family) && !filter_lacks(scope, key_of_mixed(family, mixed)))
			sink(family, key_of_mixed(family, mixed), text, len, arg);
}

/*
 * A reference of `components` components is the tail of deeper files, and
 * has the paths of others as its own tails.
 */
static void
emit_plain_path(KeyScope *scope, const char *text, size_t len, int components, int whole,
				int tail, KeySink sink, void *arg)
{
	int			wanted = Min(components, scope->depth);
	uint64		hash = 0;
	size_t		i = len;

	while (wanted > 0)
	{
		for (; i > 0 && text[i - 1] != '/'; i--)
			hash = extend_hash(hash, text[i - 1]);
		emit_found(scope, mix_hash(hash), text + i, len - i,
				   i == 0 && components < scope->depth ? whole | tail : whole, sink, arg);
		if (i == 0)
			break;
		hash = extend_hash(hash, text[--i]);
		wanted--;
	}
}

static void
emit_plain(const KeyRules *rules, KeyScope *scope, const Canonical *path, KeySink sink, void *arg)
{
	size_t		stem = length_without_audio_extension(rules, path->text, path->len);
	size_t		dot = scope->derived ? find_dot(path->text, path->len) : path->len;
	int			derived = scope->derived ? KEY_DERIVED : 0;

	if (stem < path->len)
		emit_plain_path(scope, path->text, path->len, path->components,
						KEY_PATH, KEY_TAIL, sink, arg);
	else
		emit_plain_path(scope, path->text, path->len, path->components,
						KEY_PATH | KEY_STEM | derived,
						KEY_TAIL | KEY_STEM_TAIL | derived << 1, sink, arg);
	/* an id with a dot, or the film "talk.mkv"?  To keep, both. */
	if (path->len - dot - 1 <= EXTENSION_MAX && dot < path->len)
		emit_plain_path(scope, path->text, dot, path->components,
						KEY_DERIVED, KEY_DERIVED_TAIL, sink, arg);
}


/* ------------------------------------------------------------ any value --- */

/* What can be at a place between two letters, or at an end of the text. */
#define EDGE_BEGIN			0x01	/* a name begins */
#define EDGE_BEGIN_MARKED	0x02	/* it does, if it ends likewise: "_name_" */
#define EDGE_ROOT			0x04	/* ... without a folder before it */
#define EDGE_END			0x08	/* a name or a stem ends */
#define EDGE_END_MARKED		0x10
#define EDGE_END_NAME		0x20	/* a name ends, but no stem */
#define EDGE_END_STEM		0x40	/* a stem ends, and an extension follows */

#define CLASS_INSIDE		0xFF	/* in the middle of a letter */

static inline bool
is_word(uint8 c)
{
	return c == FOLD_LATIN || c == FOLD_OTHER;
}

static inline bool
is_host_letter(char c)
{
	return isalnum((unsigned char) c) || IS_HIGHBIT_SET(c) ||
		(c != '\0' && strchr(".-_:@%~", c) != NULL);
}

/* Length of a numbered entity as "&#233;", which is a letter in another reading; or 0. */
static size_t
entity_length(const char *text, size_t len)
{
	size_t		i = 2;

	if (len < 4 || text[0] != '&' || text[1] != '#')
		return 0;
	while (i < len && i < EXTENSION_MAX && isalnum((unsigned char) text[i]))
		i++;
	return i > 2 && i < len && text[i] == ';' ? i + 1 : 0;
}

/* Length of "\\c3\\a9", a letter of two bytes as PHP writes it, or 0. */
static size_t
hex_escape_length(const char *text, size_t len)
{
	return len >= 6 && strchr("cdCD", text[1]) != NULL && isxdigit((unsigned char) text[2]) &&
		text[3] == '\\' && strchr("89abAB", text[4]) != NULL && isxdigit((unsigned char) text[5]) ? 6 : 0;
}

/* Length of "\\u00e9", "\\303" or "\\c3\\a9", likewise, where it means no ASCII; or 0. */
static size_t
escape_length(const char *text, size_t len)
{
	size_t		n = len > 1 && text[1] == 'u' ? 6 : 4;
	size_t		i;

	if (hex_escape_length(text, len) > 0)
		return hex_escape_length(text, len);
	if (len < n || (n == 4 && (text[1] < '2' || text[1] > '3')) ||
		(n == 6 && strncmp(text + 2, "00", 2) == 0 && text[4] < '8'))
		return 0;
	for (i = 2; i < n; i++)
		if (n == 6 ? !isxdigit((unsigned char) text[i]) : text[i] < '0' || text[i] > '7')
			return 0;
	return n;
}

static void
classify_letters(Finder *finder)
{
	size_t		i = 0;

	while (i < finder->len)
	{
		char		c = finder->text[i];
		size_t		entity;
		int			step;

		if (!IS_HIGHBIT_SET(c) && c != '&' && c != '\\')
		{
			finder->classes[i++] = fold_ascii_classes[(unsigned char) c];
			continue;
		}
		entity = c == '&' ? entity_length(finder->text + i, finder->len - i) :
			c == '\\' ? escape_length(finder->text + i, finder->len - i) : 0;
		if (entity > 0)
		{
			memset(finder->classes + i, FOLD_LATIN, entity);
			i += entity;
			continue;
		}
		finder->classes[i] = fold_class(finder->rules->utf8, finder->text + i,
										finder->len - i, &step);
		memset(finder->classes + i + 1, CLASS_INSIDE, step - 1);
		i += step;
	}
}

/* Does a letter that ends a name, or nothing, stand before a place? */
static bool
breaks_before(const Finder *finder, size_t place)
{
	while (place > 0 && finder->classes[place - 1] == CLASS_INSIDE)
		place--;
	return place == 0 || finder->classes[place - 1] == FOLD_BREAK;
}

/*
 * Does no folder stand before a name that begins behind slashes, which begin
 * at `slashes`?  The host of a URL is none.
 */
static bool
is_root(const Finder *finder, size_t slashes)
{
	const char *text = finder->text;
	size_t		dots = slashes;
	size_t		host = slashes;

	if (breaks_before(finder, slashes))
		return true;
	while (dots > 0 && slashes - dots < 2 && text[dots - 1] == '.')
		dots--;
	if (dots < slashes && breaks_before(finder, dots))
		return true;
	while (host > 0 && slashes - host < HOST_MAX && is_host_letter(text[host - 1]))
		host--;
	return host < slashes && host > 1 && text[host - 1] == '/' && text[host - 2] == '/';
}

/* Can a name begin behind the letter at `before`, which is next to `here`? */
static uint8
begin_at(const Finder *finder, size_t before, size_t here, size_t marks)
{
	const uint8 *classes = finder->classes;

	switch (classes[before])
	{
		case FOLD_BREAK:
		case FOLD_SLASH:
			return EDGE_BEGIN;
		case FOLD_DOT:
			return before > 0 && finder->text[before - 1] == '.' ? EDGE_BEGIN : 0;
		case FOLD_MARK:
			if (breaks_before(finder, marks) || classes[marks - 1] == FOLD_SLASH)
				return EDGE_BEGIN_MARKED;
			return 0;
		default:
			return here < finder->len && is_word(classes[here]) &&
				classes[here] != classes[before] ? EDGE_BEGIN : 0;
	}
}

static void
mark_begins(Finder *finder)
{
	const char *text = finder->text;
	size_t		before = 0;		/* the letter before this place */
	size_t		marks = 0;		/* where the marks before this place begin */
	size_t		slashes = 0;
	size_t		i;

	finder->edges[0] = EDGE_BEGIN | EDGE_ROOT;
	for (i = 1; i <= finder->len; i++)
	{
		if (i < finder->len && finder->classes[i] == CLASS_INSIDE)
			continue;
		if (finder->classes[before] == FOLD_MARK &&
			!(before > 0 && finder->classes[before - 1] == FOLD_MARK))
			marks = before;
		if ((text[before] == '/' || text[before] == '\\') &&
			!(before > 0 && (text[before - 1] == '/' || text[before - 1] == '\\')))
			slashes = before;
		finder->edges[i] = begin_at(finder, before, i, marks);
		if (finder->edges[i] != 0 &&
			((text[before] != '/' && text[before] != '\\') || is_root(finder, slashes)))
			finder->edges[i] |= EDGE_ROOT;
		before = i;
	}
}

/* What is known of the text behind a place, from its end on. */
typedef struct Ahead
{
	size_t		not_slash;		/* the first place behind slashes */
	size_t		not_mark;
	size_t		not_word;
	bool		no_extension;	/* the word ahead ends without one */
} Ahead;

static void
look_ahead(const Finder *finder, Ahead *ahead, size_t here)
{
	uint8		c = here < finder->len ? finder->classes[here] : FOLD_BREAK;
	uint8		next = here + 1 < finder->len ? finder->classes[here + 1] : FOLD_BREAK;

	if (c != FOLD_SLASH)
		ahead->not_slash = here;
	if (c != FOLD_MARK)
		ahead->not_mark = here;
	if (!is_word(c))
		ahead->not_word = here;
	if (c == FOLD_DOT)
		ahead->no_extension = !is_word(next);
	else if (c == FOLD_BREAK || c == FOLD_SLASH)
		ahead->no_extension = true;
}

static inline bool
ends_text(const Finder *finder, size_t place)
{
	return place >= finder->len || finder->classes[place] == FOLD_BREAK;
}

/* Can a name end before the letter at `here`?  `before` is the one before it. */
static uint8
end_at(const Finder *finder, const Ahead *ahead, size_t before, size_t here, size_t after_dot)
{
	const uint8 *classes = finder->classes;

	if (ends_text(finder, here))
		return EDGE_END;
	switch (classes[here])
	{
		case FOLD_SLASH:
			return ends_text(finder, ahead->not_slash) ? EDGE_END : EDGE_END_NAME;
		case FOLD_MARK:
			if (ends_text(finder, ahead->not_mark) || classes[ahead->not_mark] == FOLD_SLASH)
				return EDGE_END_MARKED;
			/* "the abc.mp3-file", but not "abc.mp3-copy.mp3" */
			return finder->text[here] == '-' && ahead->no_extension &&
				is_word(classes[here + 1]) && !isdigit((unsigned char) finder->text[here + 1]) ?
				EDGE_END_NAME : 0;
		case FOLD_DOT:
			if (ends_text(finder, here + 1) || classes[here + 1] == FOLD_DOT ||
				classes[here + 1] == FOLD_SLASH)
				return EDGE_END;
			return after_dot > here + 1 && after_dot - here <= EXTENSION_MAX + 1 &&
				(finder->edges[after_dot] & EDGE_END) ? EDGE_END_STEM : 0;
		default:
			return is_word(classes[before]) && classes[before] != classes[here] ? EDGE_END : 0;
	}
}

static void
mark_ends(Finder *finder)
{
	Ahead		ahead = {finder->len, finder->len, finder->len, true};
	size_t		here = finder->len;

	while (here > 0)
	{
		size_t		before = here - 1;
		size_t		after_dot = ahead.not_word; /* behind the letter `here` */

		while (finder->classes[before] == CLASS_INSIDE)
			before--;
		look_ahead(finder, &ahead, here);
		finder->edges[here] |= end_at(finder, &ahead, before, here, after_dot);
		here = before;
	}
}

/* Asks for all names that end before `end`. */
static void
find_before(Finder *finder, size_t end, int families)
{
	KeyScope   *scope = finder->scope;
	const char *text = finder->text;
	size_t		stop = end > scope->longest ? end - scope->longest : 0;
	bool		marked = (finder->edges[end] & (EDGE_END | EDGE_END_NAME | EDGE_END_STEM)) == 0;
	uint8		wanted = marked ? EDGE_BEGIN_MARKED : EDGE_BEGIN;
	int			tails = KEY_TAIL | KEY_STEM_TAIL | KEY_DERIVED_TAIL;
	uint64		hash = 0;
	size_t		i;

	for (i = end; i > stop;)
	{
		hash = extend_hash(hash, text[--i]);
		if ((finder->edges[i] & wanted) == 0 || (marked && text[i - 1] != text[end]))
			continue;
		emit_found(scope, mix_hash(hash), text + i, end - i,
				   finder->edges[i] & EDGE_ROOT ? families : families & ~tails,
				   finder->sink, finder->arg);
	}
}

/* The families of which names may end before `end`. */
static int
families_ending(const Finder *finder, size_t end)
{
	const KeyScope *scope = finder->scope;
	uint8		edge = finder->edges[end];
	int			families = 0;
	bool		derived = scope->derived;

	if ((edge & (EDGE_END | EDGE_END_MARKED | EDGE_END_NAME)) &&
		may_end(scope->name_ends, finder->text, end))
		families |= KEY_PATH | KEY_TAIL;
	if ((edge & (EDGE_END | EDGE_END_MARKED | EDGE_END_STEM)) &&
		may_end(scope->stem_ends, finder->text, end))
	{
		if (edge & EDGE_END_STEM)
			families |= derived ? KEY_DERIVED | KEY_DERIVED_TAIL : 0;
		else if (!ends_with_extension(finder->rules, finder->text, end))
			families |= KEY_STEM | KEY_STEM_TAIL | (derived ? KEY_DERIVED | KEY_DERIVED_TAIL : 0);
	}
	return families;
}

static void
search_reading(const char *text, size_t len, void *arg)
{
	Finder	   *finder = arg;
	char	   *folded = fold_text(finder->rules->utf8, text, len, &finder->len);
	size_t		end;

	if (key_pause != NULL)
		key_pause();
	finder->text = folded;
	finder->classes = palloc(finder->len + 1);
	finder->edges = palloc0(finder->len + 1);
	classify_letters(finder);
	mark_begins(finder);
	mark_ends(finder);
	for (end = 1; end <= finder->len; end++)
	{
		int			families;

		if (end < finder->len && finder->classes[end] == CLASS_INSIDE)
			continue;
		families = families_ending(finder, end);
		if (families != 0)
			find_before(finder, end, families);
	}
	pfree(finder->edges);
	pfree(finder->classes);
	pfree(folded);
}

/*
 * A place near `place`, not before `first`, where a text may be cut: behind a
 * blank, if there is one, or at least not in the middle of a letter.
 */
static size_t
place_to_cut(const Finder *finder, const char *text, size_t first, size_t place)
{
	size_t		stop = place - first > BLANK_SEARCH ? place - BLANK_SEARCH : first;
	size_t		i;

	for (i = place; i > stop; i--)
		if (is_space(text[i - 1]))
			return i;
	for (i = place; finder->rules->utf8 && i > stop && ((unsigned char) text[i] & 0xC0) == 0x80;)
		i--;
	return i > first ? i : place;
}

static void
search_value(Finder *finder, const char *text, size_t len)
{
	size_t		overlap = Min(finder->scope->longest * ESCAPE_MAX + BLANK_SEARCH, WINDOW / 2);
	size_t		begin = 0;

	while (len - begin > WINDOW)
	{
		size_t		end = place_to_cut(finder, text, begin, begin + WINDOW);

		readings_of(text + begin, end - begin, search_reading, finder);
		begin = place_to_cut(finder, text, begin, end - overlap);
	}
	readings_of(text + begin, len - begin, search_reading, finder);
}

void
key_of_reference(const KeyRules *rules, KeyScope *scope,
				 const char *reference, size_t len, KeySink sink, void *arg)
{
	Finder		finder = {.rules = rules,.scope = scope,.sink = sink,.arg = arg};
	Canonical	path;

	if (len == 0 || scope->longest == 0)
		return;
	if (scope->filter == NULL)
		make_filter(scope, scope->n_hashes);
	/* a leading slash says nothing: a path matches by its tail */
	if (len > 1 && reference[0] == '/' && reference[1] != '/' ?
		read_plain(reference + 1, len - 1, &path) : read_plain(reference, len, &path))
		emit_plain(rules, scope, &path, sink, arg);
	else
		search_value(&finder, reference, len);
}

bool
key_may_refer(const KeyRules *rules, const char *reference, size_t len)
{
	size_t		i = 0;
	int			step;

	for (; i < len; i += step)
		if (is_word(fold_class(rules->utf8, reference + i, len - i, &step)))
			return true;
	return false;
}


/* ------------------------------------------------------------ to condemn --- */

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

static void
emit_exact_path(Emitter *emitter, const char *text, size_t len, int components, KeyFamily whole)
{
	int			wanted = Min(components, emitter->depth);
	size_t		i = len;

	while (len > 0 && wanted > 0)
	{
		while (i > 0 && text[i - 1] != '/')
			i--;
		if (may_be_upload_dir(emitter, text, i > 0 ? i - 1 : 0))
			emitter->sink(whole, 0, text + i, len - i, emitter->arg);
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
	emit_exact_path(emitter, path->text, path->len, path->components, KEY_PATH);
	stem = length_without_audio_extension(emitter->rules, path->text, path->len);
	if (stem == path->len)
		emit_exact_path(emitter, path->text, path->len, path->components, KEY_STEM);
	if (emitter->derived)
		emit_exact_path(emitter, path->text, stem, path->components, KEY_DERIVED);
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

/* One reading, with backslashes as they are and as slashes. */
static void
emit_path_reading(Emitter *emitter, const char *text, size_t len)
{
	Canonical	path;
	size_t		i;

	canonicalise(emitter->rules, true, text, len, &path);
	emit_canonical(emitter, &path);
	if (memchr(text, '\\', len) != NULL)
	{
		char		slashed[REFERENCE_MAX];

		for (i = 0; i < len; i++)
			slashed[i] = text[i] == '\\' ? '/' : text[i];
		canonicalise(emitter->rules, true, slashed, len, &path);
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
		size_t		n = readings_decode_percent(text, len, decoded);

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
}

static void
emit_reference(Emitter *emitter, const char *text, size_t len)
{
	if (len > 1 && text[0] == '/')
		emitter->rooted = true;
	if (len > 1 && text[0] == '/' && text[1] != '/')
	{
		text++;
		len--;
	}
	if (len > REFERENCE_MAX)
		trim_spaces(&text, &len);
	if (len <= REFERENCE_MAX)
		emit_readings(emitter, text, len);
}


/* ------------------------------------------------------------ comparison --- */

typedef struct Comparison
{
	const KeyRules *rules;
	const char *path;
	bool		found;
	KeyFamily	family;			/* the reference's key that is looked for */
	uint64		key;
	const char *text;
	size_t		len;
} Comparison;

static void
compare_key(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	Comparison *comparison = arg;

	if (family == comparison->family && key == comparison->key)
		comparison->found = true;
}

/* A key of the reference: is it one of the file's? */
static void
look_for_key(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	Comparison *comparison = arg;

	comparison->family = family;
	comparison->key = key;
	if (!comparison->found)
		emit_file(comparison->rules, false, comparison->path, family, compare_key, comparison);
}

static void
compare_text(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	Comparison *comparison = arg;

	if (family == comparison->family && len == comparison->len &&
		memcmp(text, comparison->text, len) == 0)
		comparison->found = true;
}

static void
look_for_text(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	Comparison *comparison = arg;

	comparison->family = family;
	comparison->text = text;
	comparison->len = len;
	if (!comparison->found)
		emit_file(comparison->rules, true, comparison->path, family, compare_text, comparison);
}

KeyMatch
key_compare(const KeyRules *rules, const char *reference, size_t len,
			const char *path)
{
	KeyScope	scope = {0};
	Comparison	loose = {.rules = rules,.path = path};
	Comparison	strict = {.rules = rules,.path = path};
	Emitter		emitter = {rules, 0, false, false, look_for_text, &strict};

	key_widen_scope(rules, path, &scope);
	key_of_reference(rules, &scope, reference, len, look_for_key, &loose);
	key_forget_scope(&scope);
	if (!loose.found)
		return KEY_NO_MATCH;
	emitter.depth = scope.depth;
	emitter.derived = scope.derived;
	emit_reference(&emitter, reference, len);
	return strict.found ? KEY_STRICT_MATCH : KEY_LOOSE_MATCH;
}
