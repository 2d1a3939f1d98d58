/*-------------------------------------------------------------------------
 *
 * names/find.c
 *	  Finds the names of files in a value.
 *
 * The hazard is a value that is not understood: the file that it names would
 * look like an orphan.  So a value is not split at separators, because each
 * of them may be a letter of a name.  The value is searched for names that
 * exist: from each place where a name can end, find_before() goes backwards,
 * extends a hash of the reversed text letter by letter, and asks the filter
 * of the scope at each place where a name can begin.  For each end, this
 * costs as many steps as the longest name has letters.  There are few ends,
 * because the last two letters of all names are known.
 *
 * The letters beside a place tell whether a name can begin or end there.
 * These places are marked once for each reading (mark_begins(), mark_ends()).
 * In case of doubt a place is marked.  A reading in which nothing ends as
 * names do is not marked at all.
 *
 * The common case is an ASCII name or path without anything special.  This
 * case occurs for every row of every source, so it must cost little more than
 * a hash: one pass over the bytes finds out whether anything is special.  This
 * pass finds the same names as the search.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <ctype.h>

#include "src/names/private.h"

/* A long value is searched in windows of this many bytes, which overlap. */
#ifndef KEY_WINDOW
#define KEY_WINDOW			(256 * 1024)
#endif

/* A window ends at a blank, if there is one within this many bytes. */
#define BLANK_SEARCH		(KEY_WINDOW / 256)

/* Most bytes of a value that can stand for one byte of a name: "%25C3", "\\\\u00e9". */
#define ESCAPE_MAX			12

#define HOST_MAX			255

/* A component of an ordinary reference has no more bytes. */
#define COMPONENT_MAX		256

/* A longer reading gets memory of its own for the search. */
#define SHORT_READING		512

/* A search for names in one value. */
typedef struct Finder
{
	const KeyRules *rules;
	KeyScope   *scope;
	KeySink		sink;
	void	   *arg;
	const char *text;			/* the reading that is being searched, folded */
	size_t		len;
	uint8	   *classes;		/* for each letter a FoldClass */
	uint8	   *edges;			/* for the place before each letter, and for
								 * the end: EDGE_* */
	bool		later;			/* keys that were found are looked up when
								 * their memory has come */
} Finder;

void		(*key_pause) (void) = NULL;


/* ----------------------------------------------------------------- asking --- */

/* Returns whether some file has the key, which the filter has let through; with too_many keys, whether a file may have it. */
static inline bool
is_in_index(const KeyScope *scope, uint64 key)
{
	return scope->too_many || key_number(scope, key) >= 0;
}

/* Looks up the keys that the filter has let through in the index. */
static void
ask_index(Finder *finder)
{
	KeyScope   *scope = finder->scope;

	for (int i = 0; i < scope->n_let_through; i++)
		if (is_in_index(scope, scope->let_through[i].key))
			finder->sink(scope->let_through[i].family, scope->let_through[i].key, NULL, 0, finder->arg);
	scope->n_let_through = 0;
}

static void
ask_filter(Finder *finder)
{
	KeyScope   *scope = finder->scope;

	for (int i = 0; i < scope->n_asked; i++)
	{
		if (filter_lacks(scope, scope->asked[i].key))
			continue;
		if (scope->n_let_through == KEY_PENDING)
			ask_index(finder);
		scope->let_through[scope->n_let_through++] = scope->asked[i];
		scope_fetch(scope, scope->asked[i].key);
	}
	scope->n_asked = 0;
}

/*
 * Keeps a key, which is looked up after some more keys have been found.  The
 * memory of the key's place in the index is fetched meanwhile.
 */
static void
ask_later(Finder *finder, KeyFamily family, uint64 key)
{
	KeyScope   *scope = finder->scope;

	if (scope->n_asked == KEY_PENDING)
		ask_filter(finder);
	scope->asked[scope->n_asked].family = family;
	scope->asked[scope->n_asked++].key = key;
	__builtin_prefetch(&scope->filter[(key & scope->filter_mask) / 8]);
}


/* ----------------------------------------------------- an ordinary value --- */

/*
 * Returns a table of the folded forms of ordinary letters.  The table has 0
 * for a letter that needs a closer look: any letter that cannot be part of a
 * name, and "%".
 */
static const unsigned char *
plain_letters(void)
{
	static unsigned char letters[256];

	if (letters['a'] == 0)
	{
		for (int c = '-'; c <= 'z'; c++)
			if (isalnum(c) || strchr("-_./", c) != NULL)
				letters[c] = (unsigned char) fold_ascii((char) c);
	}
	return letters;
}

/* An ordinary reference, folded, and the parts of its last component. */
typedef struct PlainPath
{
	size_t		len;
	size_t		name;			/* place at which the last component begins */
	size_t		dot;			/* place of the dot of its extension, or `len` */
	uint64		hash;			/* hash of the last component */
	uint64		hash_to_dot;	/* hash of the last component up to that dot */
	char		text[KEY_PATH_MAX];
} PlainPath;

/*
 * Returns powers of the factor of extend_hash().  To multiply in a row would
 * cost more than all other work for a letter.
 */
static const uint64 *
powers_of_factor(void)
{
	static uint64 powers[COMPONENT_MAX];

	if (powers[0] == 0)
		for (size_t i = 0; i < COMPONENT_MAX; i++)
			powers[i] = i == 0 ? 1 : powers[i - 1] * HASH_FACTOR;
	return powers;
}

/*
 * Reads an ordinary reference: one path of ASCII, with nothing to trim, decode
 * or resolve, and with no name inside but its last component.  Folds the
 * reference into `path` and returns true, or returns false at the first letter
 * that is not ordinary.  extend_hash() hashes a component backwards: the
 * result is the sum of the letters, each times a power of the factor, which is
 * computed forwards here.
 */
static bool
read_plain(const char *text, size_t len, PlainPath *path)
{
	const unsigned char *letters = plain_letters();
	const uint64 *powers = powers_of_factor();
	uint64		hash = 0;
	unsigned char previous = '/';

	if (len == 0 || len >= KEY_PATH_MAX)
		return false;
	path->len = path->dot = len;
	path->name = 0;
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = letters[(unsigned char) text[i]];

		if (c == 0 || i - path->name >= COMPONENT_MAX)
			return false;
		path->text[i] = (char) c;
		if (c <= '/')			/* one of "-./" */
		{
			if (c == '-' ? path->dot < len : previous == '/' || previous == '.')
				return false;	/* "//", "./", "..", ".x", "x.y-z" */
			if (c == '/' && path->dot < len)
				return false;	/* "x.y/" */
			if (c == '.')
			{
				path->dot = i;
				path->hash_to_dot = hash;
			}
		}
		else if (c == '_' && path->dot < len)
			return false;
		hash += (c + UINT64CONST(1)) * powers[i - path->name];
		if (c == '/')
		{
			path->name = i + 1;
			hash = 0;
		}
		previous = c;
	}
	path->hash = hash;
	return isalnum(previous);
}

/* Calls the sink for the families in which some file has a key of this hash. */
static inline void
emit_found(Finder *finder, uint64 hash, const char *text, size_t len, int families)
{
	const KeyScope *scope = finder->scope;
	uint64		mixed;

	if (!has_bit(scope->lengths, len < KEY_LENGTHS ? len : 0))
		return;
	mixed = mix_hash(hash);
	for (int family = KEY_PATH; family <= families; family <<= 1)
		if ((families & family) == 0)
			continue;
		else if (finder->later)
			ask_later(finder, family, key_of_mixed(family, mixed));
		else if (!filter_lacks(scope, key_of_mixed(family, mixed)) &&
				 is_in_index(scope, key_of_mixed(family, mixed)))
			finder->sink(family, key_of_mixed(family, mixed), text, len, finder->arg);
}

/*
 * Finds the names of a path.  A value may be the tail of the paths of deeper
 * files, and tails of the value may be paths of other files.  The first `len`
 * bytes of `path` are used; `hash` is the hash of the last component of these
 * bytes.
 */
static void
emit_plain_path(Finder *finder, const PlainPath *path, size_t len, uint64 hash, int whole)
{
	const char *text = path->text;
	size_t		i = path->name;

	for (int depth = 1; depth <= finder->scope->depth; depth++)
	{
		for (; i > 0 && text[i - 1] != '/'; i--)
			hash = extend_hash(hash, text[i - 1]);
		emit_found(finder, hash, text + i, len - i,
				   (i == 0 || finder->scope->any_folder) && depth < finder->scope->depth ? whole | KEY_TAILS_OF(whole) : whole);
		if (i == 0)
			break;
		hash = extend_hash(hash, text[--i]);
	}
}

static void
emit_plain(Finder *finder, const PlainPath *path)
{
	size_t		extension = path->len - Min(path->dot + 1, path->len);
	int			derived = finder->scope->derived ? KEY_DERIVED : 0;

	if (path->dot < path->len && path_is_extension(finder->rules, path->text + path->dot + 1, extension))
		emit_plain_path(finder, path, path->len, path->hash, KEY_PATH);
	else
		emit_plain_path(finder, path, path->len, path->hash, KEY_PATH | KEY_STEM | derived);

	/*
	 * the name is an id with a dot, or the film "talk.mkv": keep the files of
	 * both
	 */
	if (derived != 0 && path->dot < path->len && extension <= EXTENSION_MAX)
		emit_plain_path(finder, path, path->dot, path->hash_to_dot, KEY_DERIVED);
}


/* ------------------------------------------------------------ any value --- */

/* Returns whether the first `len` bytes of a text end with an extension of audio. */
static bool
ends_with_extension(const KeyRules *rules, const char *text, size_t len)
{
	size_t		n = Min(len, EXTENSION_MAX + 2);

	return path_stem_length(rules, text + len - n, n) < n;
}

/* The role of a place between two letters, or at an end of the text. */
#define EDGE_BEGIN			0x01	/* a name can begin */
#define EDGE_BEGIN_MARKED	0x02	/* a name that also ends with a mark can
									 * begin: "_name_" */
#define EDGE_ROOT			0x04	/* no folder stands before the name */
#define EDGE_END			0x08	/* a name or a stem can end */
#define EDGE_END_MARKED		0x10
#define EDGE_END_NAME		0x20	/* a name can end, but no stem */
#define EDGE_END_STEM		0x40	/* a stem can end, and an extension
									 * follows, behind which a name can end */
#define EDGE_END_STEM_MARKED 0x80	/* a name that also begins with a mark can
									 * end */

#define CLASS_INSIDE		0xFF	/* in the middle of a letter */

static inline bool
is_word_letter(uint8 c)
{
	return c == FOLD_LATIN || c == FOLD_OTHER;
}

static inline bool
is_host_letter(char c)
{
	return isalnum((unsigned char) c) || IS_HIGHBIT_SET(c) ||
		(c != '\0' && strchr(".-_:@%~", c) != NULL);
}

/*
 * Returns the length of a numbered entity as "&#233;", which is a letter in
 * another reading; or 0.
 */
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

/*
 * Returns the length of an escape like "\\u00e9", "\\xe9", "\\303" or
 * "\\c3\\a9" (a letter of two bytes in PHP's notation), if the escape does not
 * mean ASCII; or 0.
 */
static size_t
escape_length(const char *text, size_t len)
{
	char		kind = len > 1 ? text[1] : '\0';
	size_t		digits = kind == 'u' ? 4 : kind == 'x' ? 2 : 0;

	if (len >= 6 && strchr("cdCD", kind) != NULL && isxdigit((unsigned char) text[2]) &&
		text[3] == '\\' && strchr("89abAB", text[4]) != NULL && isxdigit((unsigned char) text[5]))
		return 6;
	if (digits > 0)
		return readings_hex_number(text + 2, text + len, (int) digits) >= 0x80 ? 2 + digits : 0;
	return len >= 4 && (kind == '2' || kind == '3') && text[2] >= '0' && text[2] <= '7' &&
		text[3] >= '0' && text[3] <= '7' ? 4 : 0;
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

/* Returns whether a letter that ends a name, or nothing, stands before the place. */
static bool
breaks_before(const Finder *finder, size_t place)
{
	while (place > 0 && finder->classes[place - 1] == CLASS_INSIDE)
		place--;
	return place == 0 || finder->classes[place - 1] == FOLD_BREAK;
}

/*
 * Returns whether no folder stands before a name behind slashes, which begin
 * at `slashes`.  The host of a URL is not a folder.
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

/*
 * Returns whether a name can begin behind the letter at `before`, which is
 * next to `here`, as EDGE_* flags.
 */
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
			return here < finder->len && is_word_letter(classes[here]) &&
				classes[here] != classes[before] ? EDGE_BEGIN : 0;
	}
}

static void
mark_begins(Finder *finder)
{
	const char *text = finder->text;
	size_t		before = 0;		/* place of the letter before this place */
	size_t		marks = 0;		/* place at which the marks before this place
								 * begin */
	size_t		slashes = 0;

	finder->edges[0] = EDGE_BEGIN | EDGE_ROOT;
	for (size_t i = 1; i <= finder->len; i++)
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

/* The state of the text behind a place.  The text is read from its end. */
typedef struct Ahead
{
	size_t		not_slash;		/* the first place behind slashes */
	size_t		not_mark;
	size_t		word_end;		/* the end of the letters of one script behind
								 * the place, or the place */
	bool		no_extension;	/* the word behind the place has no extension */
} Ahead;

/*
 * Moves the state to the place `here`, one letter nearer to the beginning.
 * `behind` is the place of the letter behind that letter.
 */
static void
look_ahead(const Finder *finder, Ahead *ahead, size_t here, size_t behind)
{
	uint8		c = here < finder->len ? finder->classes[here] : FOLD_BREAK;
	uint8		next = here + 1 < finder->len ? finder->classes[here + 1] : FOLD_BREAK;

	if (c != FOLD_SLASH)
		ahead->not_slash = here;
	if (c != FOLD_MARK)
		ahead->not_mark = here;
	if (!is_word_letter(c))
		ahead->word_end = here;
	else if (behind >= finder->len || finder->classes[behind] != c)
		ahead->word_end = behind;
	if (c == FOLD_DOT)
		ahead->no_extension = !is_word_letter(next);
	else if (c == FOLD_BREAK || c == FOLD_SLASH)
		ahead->no_extension = true;
}

static inline bool
ends_text(const Finder *finder, size_t place)
{
	return place >= finder->len || finder->classes[place] == FOLD_BREAK;
}

/*
 * Returns whether a name can end before the letter at `here`, as EDGE_* flags.
 * `before` is the place of the letter before `here`.
 */
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
				is_word_letter(classes[here + 1]) && !isdigit((unsigned char) finder->text[here + 1]) ?
				EDGE_END_NAME : 0;
		case FOLD_DOT:
			if (ends_text(finder, here + 1) || classes[here + 1] == FOLD_DOT ||
				classes[here + 1] == FOLD_SLASH)
				return EDGE_END;
			if (after_dot <= here + 1 || after_dot - here > EXTENSION_MAX + 1)
				return 0;
			if (finder->edges[after_dot] & EDGE_END_MARKED)
				return EDGE_END_STEM_MARKED;
			return finder->edges[after_dot] & (EDGE_END | EDGE_END_NAME) ? EDGE_END_STEM : 0;
		default:
			return is_word_letter(classes[before]) && classes[before] != classes[here] ? EDGE_END : 0;
	}
}

static void
mark_ends(Finder *finder)
{
	Ahead		ahead = {finder->len, finder->len, finder->len, true};
	size_t		here = finder->len;
	size_t		behind = finder->len;

	while (here > 0)
	{
		size_t		before = here - 1;
		size_t		after_dot = ahead.word_end; /* place behind the letter
												 * `here` */

		while (finder->classes[before] == CLASS_INSIDE)
			before--;
		look_ahead(finder, &ahead, here, behind);
		finder->edges[here] |= end_at(finder, &ahead, before, here, after_dot);
		behind = here;
		here = before;
	}
}

/* Returns the place behind the extension that begins with the dot at `dot`. */
static size_t
extension_end(const Finder *finder, size_t dot)
{
	do
		dot++;
	while (dot < finder->len && finder->classes[dot] == FOLD_LATIN);
	return dot;
}

/* Looks up all names of these families, and of their tails, that end before `end`. */
static void
find_before(Finder *finder, size_t end, int families)
{
	KeyScope   *scope = finder->scope;
	const char *text = finder->text;
	size_t		stop = end > scope->longest ? end - scope->longest : 0;
	bool		marked = (finder->edges[end] & (EDGE_END | EDGE_END_NAME | EDGE_END_STEM)) == 0;
	size_t		mark = finder->edges[end] & EDGE_END_STEM_MARKED ? extension_end(finder, end) : end;
	uint8		wanted = marked ? EDGE_BEGIN_MARKED : EDGE_BEGIN;
	uint64		hash = 0;

	for (size_t i = end; i > stop;)
	{
		hash = extend_hash(hash, text[--i]);
		if ((finder->edges[i] & wanted) == 0 || (marked && text[i - 1] != text[mark]))
			continue;
		emit_found(finder, hash, text + i, end - i,
				   (finder->edges[i] & EDGE_ROOT) || scope->any_folder ? families | KEY_TAILS_OF(families) : families);
	}
}

/* Returns the families of whole paths whose names may end before `end`. */
static int
families_ending(const Finder *finder, size_t end)
{
	const KeyScope *scope = finder->scope;
	uint8		edge = finder->edges[end];
	int			derived = scope->derived ? KEY_DERIVED : 0;
	int			families = 0;

	if ((edge & (EDGE_END | EDGE_END_MARKED | EDGE_END_NAME)) &&
		may_end(scope->name_ends, finder->text, end))
		families |= KEY_PATH;
	if ((edge & (EDGE_END | EDGE_END_MARKED | EDGE_END_STEM | EDGE_END_STEM_MARKED)) &&
		may_end(scope->stem_ends, finder->text, end))
	{
		if (edge & (EDGE_END_STEM | EDGE_END_STEM_MARKED))
			families |= derived;
		else if (!ends_with_extension(finder->rules, finder->text, end))
			families |= KEY_STEM | derived;
	}
	return families;
}

/*
 * Returns the first place from `begin` on at which a name or stem may end, or
 * 0 if there is none.  Most values of other columns have nothing that ends
 * like a name.
 */
static size_t
next_end(const Finder *finder, size_t begin)
{
	const KeyScope *scope = finder->scope;

	for (size_t end = begin; end <= finder->len; end++)
		if (may_end(scope->name_ends, finder->text, end) || may_end(scope->stem_ends, finder->text, end))
			return end;
	return 0;
}

/* Searches the folded reading.  `room` has space for two bytes a letter, and two more. */
static void
search_folded(Finder *finder, uint8 *room)
{
	size_t		end = next_end(finder, 1);

	if (end == 0)
		return;
	finder->classes = room;
	finder->edges = room + finder->len + 1;
	memset(finder->edges, 0, finder->len + 1);
	classify_letters(finder);
	mark_begins(finder);
	mark_ends(finder);
	for (; end != 0; end = next_end(finder, end + 1))
	{
		int			families = 0;

		if (end == finder->len || finder->classes[end] != CLASS_INSIDE)
			families = families_ending(finder, end);
		if (families != 0)
			find_before(finder, end, families);
	}
}

/* Searches one reading.  A reading that is short and ASCII, as most are, needs no memory. */
static void
search_reading(const char *text, size_t len, void *arg)
{
	Finder	   *finder = arg;
	char		short_text[SHORT_READING];
	uint8		short_room[2 * SHORT_READING + 2];
	char	   *folded = NULL;
	uint8	   *room = short_room;

	if (key_pause != NULL)
		key_pause();
	finder->text = short_text;
	finder->len = len;
	if (len > SHORT_READING || !fold_ascii_text(text, len, short_text))
		finder->text = folded = fold_text(finder->rules->utf8, text, len, &finder->len);
	if (finder->len > SHORT_READING)
		room = palloc(2 * finder->len + 2);
	search_folded(finder, room);
	if (room != short_room)
		pfree(room);
	if (folded != NULL)
		pfree(folded);
}

/*
 * Returns a place near `place`, and not before `first`, at which a text may
 * be cut: behind a blank, if there is one, or at least not in the middle of a
 * letter.
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
	size_t		overlap = Min(finder->scope->longest * ESCAPE_MAX + BLANK_SEARCH, KEY_WINDOW / 2);
	size_t		begin = 0;

	while (len - begin > KEY_WINDOW)
	{
		size_t		end = place_to_cut(finder, text, begin, begin + KEY_WINDOW);

		readings_of(text + begin, end - begin, search_reading, finder);
		begin = place_to_cut(finder, text, begin, end - overlap);
	}
	readings_of(text + begin, len - begin, search_reading, finder);
}

static void
look_at_value(Finder *finder, const char *value, size_t len)
{
	PlainPath	path;

	if (len == 0 || finder->scope->longest == 0)
		return;
	scope_settle(finder->scope);
	/* a path matches by its tail, so a leading slash has no meaning */
	if (len > 1 && value[0] == '/' && value[1] != '/' ?
		read_plain(value + 1, len - 1, &path) : read_plain(value, len, &path))
		emit_plain(finder, &path);
	else
		search_value(finder, value, len);
}

void
key_of_reference(const KeyRules *rules, KeyScope *scope,
				 const char *reference, size_t len, KeySink sink, void *arg)
{
	Finder		finder = {.rules = rules,.scope = scope,.sink = sink,.arg = arg};

	look_at_value(&finder, reference, len);
}

static void
note_key(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	*(bool *) arg = true;
}

bool
key_refers(const KeyRules *rules, KeyScope *scope, const char *reference, size_t len)
{
	bool		found = false;

	key_of_reference(rules, scope, reference, len, note_key, &found);
	return found;
}

void
key_of_many(const KeyRules *rules, KeyScope *scope,
			const char *reference, size_t len, KeySink sink, void *arg)
{
	Finder		finder = {.rules = rules,.scope = scope,.sink = sink,.arg = arg,.later = true};

	look_at_value(&finder, reference, len);
}

void
key_of_many_end(KeyScope *scope, KeySink sink, void *arg)
{
	Finder		finder = {.scope = scope,.sink = sink,.arg = arg};

	scope_settle(scope);
	ask_filter(&finder);
	ask_index(&finder);
}

bool
key_may_refer(const KeyRules *rules, const char *reference, size_t len)
{
	size_t		i = 0;
	int			step;

	for (; i < len; i += step)
		if (is_word_letter(fold_class(rules->utf8, reference + i, len - i, &step)))
			return true;
	return false;
}
