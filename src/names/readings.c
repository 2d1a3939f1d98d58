/*-------------------------------------------------------------------------
 *
 * names/readings.c
 *	  The readings of a text: its meanings with escapes decoded.
 *
 * A new reading is added, and never replaces another reading, because a name
 * may itself look like an escape.  So each decoder makes a new reading of each
 * existing reading, beginning with the simplest reading, until there is no new
 * reading or there are READINGS_MAX readings.  Then the text is also decoded
 * through: all escapes at once, as often as escapes are left.  Only bytes that
 * are not UTF-8 become longer.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <ctype.h>

#include "common/hashfn.h"
#include "mb/pg_wchar.h"

#include "src/names/fold.h"
#include "src/names/readings.h"

#define READINGS_MAX	48

/* An escape is not nested more often than this. */
#define DECODE_ROUNDS	8

/* Letters before which the path of a ".." cannot begin. */
#define PATH_BREAKS		"\"'`<>=,;|()[]{} \t\r\n"

/*
 * Reads the escape at `text`, writes its meaning to *out, which is at most as
 * long as the escape, and moves *out behind the meaning.  Returns the number
 * of bytes read, or 0 if there is no escape.
 */
typedef size_t (*EscapeReader) (const char *text, const char *end, char **out);

/* Decodes a whole text into `out`, which is twice as large.  Returns the new length. */
typedef size_t (*Decoder) (const char *text, size_t len, char *out);


/* -------------------------------------------------------------- decoders --- */

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int
readings_hex_number(const char *text, const char *end, int digits)
{
	int			number = 0;

	if (end - text < digits)
		return -1;
	for (; digits > 0; digits--)
	{
		int			value = hex_value(*text++);

		if (value < 0)
			return -1;
		number = number << 4 | value;
	}
	return number;
}

/* Writes a letter as UTF-8, unless it is not valid or needs more than `room` bytes. */
static char *
put_letter(char *out, pg_wchar c, size_t room)
{
	unsigned char letter[8];
	int			len;

	if (c == 0 || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
		return out;
	unicode_to_utf8(c, letter);
	len = pg_utf_mblen(letter);
	if ((size_t) len > room)
		return out;
	memcpy(out, letter, len);
	return out + len;
}

/* Decodes each escape that begins with `sign`.  `out` may be `text` itself. */
static size_t
decode_escapes(EscapeReader read_escape, char sign, const char *text, size_t len, char *out)
{
	const char *end = text + len;
	char	   *begin = out;

	while (text < end)
	{
		size_t		n = *text == sign ? read_escape(text, end, &out) : 0;

		if (n == 0)
			*out++ = *text++;
		text += n;
	}
	return out - begin;
}

/* Reads two hexadecimal digits behind one letter: "%C3", or "\\c3" as in PHP's serialized S: */
static size_t
read_hex_pair(const char *text, const char *end, char **out)
{
	int			byte = readings_hex_number(text + 1, end, 2);

	if (byte <= 0)
		return 0;
	*(*out)++ = (char) byte;
	return 3;
}

size_t
readings_decode_percent(const char *text, size_t len, char *out)
{
	return decode_escapes(read_hex_pair, '%', text, len, out);
}

/*
 * Reads four digits behind a sign and "u", or a pair of them: "\uD83C\uDFB5".
 * Returns the number of bytes read, or 0.
 */
static int
read_four_digits(const char *text, const char *end, pg_wchar *c)
{
	int			first = end - text >= 6 && text[1] == 'u' ? readings_hex_number(text + 2, end, 4) : -1;
	int			second;

	if (first <= 0)
		return 0;
	*c = first;
	if (first < 0xD800 || first > 0xDBFF || end - text < 12 || text[6] != text[0] || text[7] != 'u')
		return 6;
	second = readings_hex_number(text + 8, end, 4);
	if (second < 0xDC00 || second > 0xDFFF)
		return 6;
	*c = 0x10000 + ((first & 0x3FF) << 10) + (second & 0x3FF);
	return 12;
}

/* Reads "%u00e9", as JavaScript's escape() writes it. */
static size_t
read_percent_u(const char *text, const char *end, char **out)
{
	pg_wchar	letter = 0;
	int			n = read_four_digits(text, end, &letter);

	*out = put_letter(*out, letter, n);
	return n;
}

/*
 * Reads "\uD83C\uDFB5", "\u00e9", "\u{e9}" or "\U000000e9".  Returns the
 * number of bytes read, or 0.
 */
static int
read_unicode_escape(const char *text, const char *end, pg_wchar *c)
{
	int			n = read_four_digits(text, end, c);
	int			i;

	if (n > 0)
		return n;
	if (text[1] == 'U')
	{
		int			letter = readings_hex_number(text + 2, end, 8);

		*c = Max(letter, 0);
		return letter > 0 ? 10 : 0;
	}
	if (end - text < 5 || text[2] != '{')
		return 0;
	*c = 0;
	for (i = 3; i < 9 && text + i < end && hex_value(text[i]) >= 0; i++)
		*c = *c << 4 | hex_value(text[i]);
	return i > 3 && text + i < end && text[i] == '}' ? i + 1 : 0;
}

/* Returns the number that three octal digits mean, or -1. */
static int
octal_number(const char *text, const char *end)
{
	for (int i = 0; i < 3; i++)
		if (end - text <= i || text[i] < '0' || text[i] > '7')
			return -1;
	return ((text[0] - '0') << 6 | (text[1] - '0') << 3 | (text[2] - '0')) & 0xFF;
}

static char
control_letter(char c)
{
	static const char names[] = "ntrbfv";
	static const char controls[] = "\n\t\r\b\f\v";
	const char *found = c != '\0' ? strchr(names, c) : NULL;

	return found != NULL ? controls[found - names] : c;
}

/* Reads an escape by a backslash, as in JSON, JavaScript, C, PHP, SQL arrays and the shell. */
static size_t
read_backslash(const char *text, const char *end, char **out)
{
	pg_wchar	c = 0;
	int			n;

	if (end - text < 2)
		return 0;
	n = text[1] == 'u' || text[1] == 'U' ? read_unicode_escape(text, end, &c) : 0;
	if (n > 0)
	{
		*out = put_letter(*out, c, n);
		return n;
	}
	n = 4;
	if (text[1] == 'x' && readings_hex_number(text + 2, end, 2) > 0)
		*(*out)++ = (char) readings_hex_number(text + 2, end, 2);
	else if (octal_number(text + 1, end) > 0)
		*(*out)++ = (char) octal_number(text + 1, end);
	else
	{
		*(*out)++ = control_letter(text[1]);
		n = 2;
	}
	return n;
}

/*
 * Reads two quotes as one quote, as in CSV, SQL and YAML, and the four letters
 * '\\'' of the shell as one quote.
 */
static size_t
read_doubled(const char *text, const char *end, char **out)
{
	const char	escaped[] = {*text, '\\', *text, *text};

	*(*out)++ = *text;
	if (end - text >= 4 && memcmp(text, escaped, 4) == 0)
		return 4;
	return end - text >= 2 && text[1] == *text ? 2 : 1;
}

/* Reads '"'"', the other way to write a quote in the shell. */
static size_t
read_quoted_quote(const char *text, const char *end, char **out)
{
	if (end - text < 5 || memcmp(text, "'\"'\"'", 5) != 0)
		return 0;
	*(*out)++ = *text;
	return 5;
}

static size_t
read_plus(const char *text, const char *end, char **out)
{
	*(*out)++ = ' ';
	return 1;
}

/*
 * Makes backslashes slashes.  Several backslashes in a row become one slash,
 * except in "\\\\server".
 */
static size_t
decode_slashes(const char *text, size_t len, char *out)
{
	size_t		n = 0;
	size_t		i = 0;

	while (i < len)
	{
		size_t		run = 0;

		while (i + run < len && (text[i + run] == '\\' || text[i + run] == '/'))
			run++;
		if (run == 0)
			out[n++] = text[i++];
		else if (memchr(text + i, '\\', run) == NULL)
		{
			memcpy(out + n, text + i, run);
			n += run;
		}
		else
		{
			if (run > 1 && (i == 0 || (text[i - 1] != ':' && strchr(PATH_BREAKS, text[i - 1]) != NULL)))
				out[n++] = '/';
			out[n++] = '/';
		}
		i += run;
	}
	return n;
}

/* Resolves a path: "2024//05/./x/../abc.mp3" is "2024/05/abc.mp3". */
static size_t
decode_path(const char *text, size_t len, char *out)
{
	size_t		n = 0;

	for (size_t i = 0; i < len; i++)
	{
		if (text[i] == '/')
		{
			if (n >= 3 && memcmp(out + n - 3, "/..", 3) == 0)
			{
				n -= 3;
				while (n > 0 && out[n - 1] != '/' &&
					   (out[n - 1] == '\0' || strchr(PATH_BREAKS, out[n - 1]) == NULL))
					n--;
				if (n > 0 && out[n - 1] == '/')
					n--;
			}
			else if (n >= 2 && memcmp(out + n - 2, "/.", 2) == 0)
				n -= 2;
			if (n > 0 && out[n - 1] == '/' && !(n > 1 && out[n - 2] == ':'))
				continue;
		}
		out[n++] = text[i];
	}
	return n;
}

static bool
is_utf8(const char *text, size_t len)
{
	const char *end = text + len;
	size_t		n = 1;

	while (text < end && n > 0)
		text += n = utf8_letter_length(text, end - text);
	return n > 0;
}

/* Decodes bytes that are not UTF-8 as letters of Latin-1: "%E9" and "\xe9" mean U+00E9. */
static size_t
decode_latin(const char *text, size_t len, char *out)
{
	const char *end = text + len;
	char	   *begin = out;

	while (text < end)
	{
		size_t		n = utf8_letter_length(text, end - text);

		if (n == 0)
			out = put_letter(out, (unsigned char) *text, 2);
		else
		{
			memcpy(out, text, n);
			out += n;
		}
		text += Max(n, 1);
	}
	return out - begin;
}


/* -------------------------------------------------------------- entities --- */

/* Names of the letters from U+00A0 on, as in HTML 4. */
static const char *const latin_entities[] = {
	"nbsp", "iexcl", "cent", "pound", "curren", "yen", "brvbar", "sect", "uml", "copy", "ordf",
	"laquo", "not", "shy", "reg", "macr", "deg", "plusmn", "sup2", "sup3", "acute", "micro", "para",
	"middot", "cedil", "sup1", "ordm", "raquo", "frac14", "frac12", "frac34", "iquest", "Agrave",
	"Aacute", "Acirc", "Atilde", "Auml", "Aring", "AElig", "Ccedil", "Egrave", "Eacute", "Ecirc",
	"Euml", "Igrave", "Iacute", "Icirc", "Iuml", "ETH", "Ntilde", "Ograve", "Oacute", "Ocirc",
	"Otilde", "Ouml", "times", "Oslash", "Ugrave", "Uacute", "Ucirc", "Uuml", "Yacute", "THORN",
	"szlig", "agrave", "aacute", "acirc", "atilde", "auml", "aring", "aelig", "ccedil", "egrave",
	"eacute", "ecirc", "euml", "igrave", "iacute", "icirc", "iuml", "eth", "ntilde", "ograve",
	"oacute", "ocirc", "otilde", "ouml", "divide", "oslash", "ugrave", "uacute", "ucirc", "uuml",
	"yacute", "thorn", "yuml"
};

static const struct
{
	const char *name;
	pg_wchar	letter;
}			other_entities[] = {
	{"amp", '&'}, {"AMP", '&'}, {"lt", '<'}, {"LT", '<'}, {"gt", '>'}, {"GT", '>'},
	{"quot", '"'}, {"QUOT", '"'}, {"apos", '\''}, {"Tab", '\t'}, {"NewLine", '\n'},
	{"excl", '!'}, {"num", '#'}, {"dollar", '$'}, {"percnt", '%'}, {"lpar", '('}, {"rpar", ')'},
	{"ast", '*'}, {"plus", '+'}, {"comma", ','}, {"period", '.'}, {"sol", '/'}, {"colon", ':'},
	{"semi", ';'}, {"equals", '='}, {"quest", '?'}, {"commat", '@'}, {"lsqb", '['},
	{"lbrack", '['}, {"bsol", '\\'}, {"rsqb", ']'}, {"rbrack", ']'}, {"Hat", '^'},
	{"lowbar", '_'}, {"grave", '`'}, {"lcub", '{'}, {"lbrace", '{'}, {"verbar", '|'},
	{"vert", '|'}, {"rcub", '}'}, {"rbrace", '}'}, {"tilde", 0x2DC}, {"circ", 0x2C6},
	{"OElig", 0x152}, {"oelig", 0x153}, {"Scaron", 0x160}, {"scaron", 0x161}, {"Yuml", 0x178},
	{"fnof", 0x192}, {"ensp", 0x2002}, {"emsp", 0x2003}, {"thinsp", 0x2009}, {"zwnj", 0x200C},
	{"zwj", 0x200D}, {"lrm", 0x200E}, {"rlm", 0x200F}, {"ndash", 0x2013}, {"mdash", 0x2014},
	{"lsquo", 0x2018}, {"rsquo", 0x2019}, {"sbquo", 0x201A}, {"ldquo", 0x201C}, {"rdquo", 0x201D},
	{"bdquo", 0x201E}, {"dagger", 0x2020}, {"Dagger", 0x2021}, {"bull", 0x2022},
	{"hellip", 0x2026}, {"permil", 0x2030}, {"prime", 0x2032}, {"Prime", 0x2033},
	{"lsaquo", 0x2039}, {"rsaquo", 0x203A}, {"euro", 0x20AC}, {"trade", 0x2122},
	{"larr", 0x2190}, {"uarr", 0x2191}, {"rarr", 0x2192}, {"darr", 0x2193}, {"minus", 0x2212}
};

static pg_wchar
named_letter(const char *name, size_t len)
{
	for (size_t i = 0; i < lengthof(other_entities); i++)
		if (strlen(other_entities[i].name) == len && memcmp(other_entities[i].name, name, len) == 0)
			return other_entities[i].letter;
	for (size_t i = 0; i < lengthof(latin_entities); i++)
		if (strlen(latin_entities[i]) == len && memcmp(latin_entities[i], name, len) == 0)
			return 0xA0 + i;
	return 0;
}

/* Returns the letter of "#233" or "#xE9". */
static pg_wchar
numbered_letter(const char *text, size_t len)
{
	bool		hex = len > 1 && (text[1] == 'x' || text[1] == 'X');
	pg_wchar	number = 0;

	for (size_t i = hex ? 2 : 1; i < len; i++)
	{
		int			digit = hex_value(text[i]);

		if (digit < 0 || (!hex && digit > 9) || number > 0x10FFFF)
			return 0;
		number = number * (hex ? 16 : 10) + digit;
	}
	return number;
}

static size_t
read_entity(const char *text, const char *end, char **out)
{
	const char *semicolon = memchr(text, ';', Min(end - text, (ptrdiff_t) 12));
	size_t		n = semicolon != NULL ? semicolon - text - 1 : 0;
	pg_wchar	letter = n == 0 ? 0 : text[1] == '#' ? numbered_letter(text + 1, n) : named_letter(text + 1, n);
	char	   *next = letter != 0 ? put_letter(*out, letter, n + 2) : *out;

	if (next == *out)
		return 0;
	*out = next;
	return n + 2;
}


/* -------------------------------------------------------------- readings --- */

/*
 * The decoders.  If a text has no `sign`, the decoder would change nothing;
 * decode_latin() has no sign.  The decoders of paths are the last ones,
 * because they undo no escape.
 */
static const struct
{
	char		sign;
	EscapeReader read_escape;	/* reads one escape; or NULL */
	Decoder		decode;			/* decodes the whole text; or NULL */
	const char *also;			/* a text that must be there as well; or NULL */
	int			times;
}			decoders[] = {
	{'\\', read_backslash, NULL, NULL, 3},
	{'%', read_hex_pair, NULL, NULL, 2},
	{'+', read_plus, NULL, NULL, 1},
	{'%', read_percent_u, NULL, "%u", 1},
	{'&', read_entity, NULL, ";", 2},
	{'"', read_doubled, NULL, "\"\"", 1},
	{'\'', read_doubled, NULL, "''", 1},
	{'\'', read_quoted_quote, NULL, "'\"'\"'", 1},
	{'\\', read_hex_pair, NULL, "S:", 1},
	{'\0', NULL, decode_latin, NULL, 1},
	{'\\', NULL, decode_slashes, NULL, 1},
	{'/', NULL, decode_path, NULL, 1},
};

/*
 * Returns whether the decoder is for PHP's S:, in which a backslash has
 * another meaning than elsewhere.
 */
static bool
is_for_php(int decoder)
{
	return decoders[decoder].read_escape == read_hex_pair && decoders[decoder].sign == '\\';
}

typedef struct Reading
{
	char	   *text;
	size_t		len;
	uint64		hash;
	bool		of_paths;
	uint8		used[lengthof(decoders)];
} Reading;

typedef struct Readings
{
	int			n;
	Reading		all[READINGS_MAX];
} Readings;

static bool
holds(const char *text, size_t len, const char *wanted)
{
	size_t		n = strlen(wanted);
	const char *end = text + len;

	while ((size_t) (end - text) >= n && (text = memchr(text, wanted[0], end - text)) != NULL)
	{
		if ((size_t) (end - text) < n)
			return false;
		if (memcmp(text, wanted, n) == 0)
			return true;
		text++;
	}
	return false;
}

/* Returns whether the text has a doubled slash that is not part of a URL. */
static bool
holds_doubled_slash(const char *text, size_t len)
{
	for (size_t i = 1; i < len; i++)
		if (text[i] == '/' && text[i - 1] == '/' && !(i > 1 && text[i - 2] == ':'))
			return true;
	return false;
}

/* Returns whether the text has anything that decode_path() would resolve. */
static bool
holds_dots(const char *text, size_t len)
{
	return memchr(text, '/', len) != NULL &&
		(holds_doubled_slash(text, len) || holds(text, len, "/./") || holds(text, len, "/../"));
}

static bool
applies(const Reading *reading, int decoder)
{
	return reading->used[decoder] < decoders[decoder].times &&
		(decoders[decoder].decode != NULL || !reading->of_paths) &&
		(decoders[decoder].sign == '\0' || memchr(reading->text, decoders[decoder].sign, reading->len) != NULL) &&
		(decoders[decoder].decode != decode_latin || !is_utf8(reading->text, reading->len)) &&
		(decoders[decoder].decode != decode_path || holds_dots(reading->text, reading->len)) &&
		(decoders[decoder].also == NULL || holds(reading->text, reading->len, decoders[decoder].also));
}

static bool
is_known(const Readings *readings, const Reading *reading)
{
	for (int i = 0; i < readings->n; i++)
		if (readings->all[i].hash == reading->hash && readings->all[i].len == reading->len)
			return true;
	return false;
}

/* Adds the reading that the decoder makes of `from`, unless it is known. */
static void
add_reading(Readings *readings, const Reading *from, int decoder)
{
	Reading		reading = *from;

	reading.text = palloc(Max(2 * from->len, 1));
	reading.len = decoders[decoder].decode != NULL ? decoders[decoder].decode(from->text, from->len, reading.text) :
		decode_escapes(decoders[decoder].read_escape, decoders[decoder].sign, from->text, from->len, reading.text);
	reading.hash = hash_bytes_extended((const unsigned char *) reading.text, (int) reading.len, 0);
	reading.of_paths |= decoders[decoder].decode == decode_slashes || decoders[decoder].decode == decode_path;
	reading.used[decoder]++;
	if (is_known(readings, &reading))
		pfree(reading.text);
	else
		readings->all[readings->n++] = reading;
}

/* Returns whether an escape, a doubled quote or a path to be resolved begins at `text`. */
static bool
begins_decoding(const char *text, const char *begin, const char *end)
{
	char		next = end - text > 1 ? text[1] : '\0';

	switch (*text)
	{
		case '"':
			return next == '"';
		case '\'':
			return next == '\'' || (next == '"' && end - text > 2 && text[2] == '\'');
		case '/':
			if (next == '/')
				return text == begin || text[-1] != ':';
			return next == '.' && end - text > 2 &&
				(text[2] == '/' || (text[2] == '.' && end - text > 3 && text[3] == '/'));
		default:
			return *text == '\\' || *text == '%' || *text == '&' || *text == '+';
	}
}

/*
 * Returns whether there is nothing to decode.  One pass is enough; nearly
 * every value comes here.
 */
static bool
is_literal(const char *text, size_t len)
{
	const char *end = text + len;
	const char *p;

	for (p = text; p < end; p++)
		if (!isalnum((unsigned char) *p) && begins_decoding(p, text, end))
			return false;
	return true;
}

/*
 * Decodes every escape, in place, until no escape is left.  Returns the new
 * length.
 */
static size_t
decode_through(char *text, size_t len)
{
	size_t		before;
	int			rounds = 0;

	do
	{
		before = len;
		for (int i = 0; i < lengthof(decoders); i++)
			if (decoders[i].read_escape != NULL && decoders[i].read_escape != read_plus &&
				!is_for_php(i))
				len = decode_escapes(decoders[i].read_escape, decoders[i].sign, text, len, text);
	} while (len < before && ++rounds < DECODE_ROUNDS);
	return len;
}

/* The meaning of a `+` in a text whose escapes are all decoded. */
typedef enum PlusSign
{
	PLUS_IS_PLUS,
	PLUS_IS_SPACE,
	PLUS_IS_SPACE_INSIDE,		/* within a text that is percent-encoded */
	PLUS_DECODED_IS_SPACE,
	N_PLUS_SIGNS
} PlusSign;

/*
 * Passes on the text with every escape decoded, first without and then with
 * its paths resolved.
 */
static void
pass_decoded_through(const char *text, size_t len, bool php, PlusSign plus, ReadingSink sink, void *arg)
{
	char	   *decoded = palloc(Max(len, 1));
	char	   *other = palloc(Max(2 * len, 1));

	memcpy(decoded, text, len);
	if (php)
		len = decode_escapes(read_hex_pair, '\\', decoded, len, decoded);
	if (plus == PLUS_IS_SPACE_INSIDE)
		len = readings_decode_percent(decoded, len, decoded);
	if (plus == PLUS_IS_SPACE || plus == PLUS_IS_SPACE_INSIDE)
		len = decode_escapes(read_plus, '+', decoded, len, decoded);
	len = decode_through(decoded, len);
	if (plus == PLUS_DECODED_IS_SPACE)
		len = decode_escapes(read_plus, '+', decoded, len, decoded);
	sink(decoded, len, arg);
	len = decode_slashes(decoded, len, other);
	len = decode_path(other, len, decoded);
	len = decode_latin(decoded, len, other);
	sink(other, len, arg);
	pfree(decoded);
	pfree(other);
}

/*
 * Passes on the readings of a text with every escape decoded, if the text has
 * too many readings.  Somebody else may have written escapes beside a name.
 * The readings of those escapes must not use up the place of the reading that
 * the name needs.  A name that looks like no escape itself is in one of the
 * readings here.
 */
static void
pass_few_readings(const char *text, size_t len, ReadingSink sink, void *arg)
{
	int			n = memchr(text, '+', len) != NULL || holds(text, len, "2B") || holds(text, len, "2b") ? N_PLUS_SIGNS : 1;

	for (int plus = 0; plus < n; plus++)
	{
		pass_decoded_through(text, len, false, plus, sink, arg);
		if (holds(text, len, "S:"))
			pass_decoded_through(text, len, true, plus, sink, arg);
	}
}

void
readings_of(const char *text, size_t len, ReadingSink sink, void *arg)
{
	Readings   *readings;
	bool		too_many = false;

	if (is_literal(text, len))
	{
		sink(text, len, arg);
		return;
	}
	readings = palloc(sizeof(Readings));
	memset(&readings->all[0], 0, sizeof(Reading));
	readings->all[0].text = unconstify(char *, text);
	readings->all[0].len = len;
	readings->all[0].hash = hash_bytes_extended((const unsigned char *) text, (int) len, 0);
	readings->n = 1;
	for (int i = 0; i < readings->n; i++)
	{
		Reading    *reading = &readings->all[i];

		sink(reading->text, reading->len, arg);
		for (int decoder = 0; decoder < lengthof(decoders); decoder++)
			if (!applies(reading, decoder))
				continue;
			else if (readings->n < READINGS_MAX)
				add_reading(readings, reading, decoder);
			else
				too_many = true;
		if (i > 0)
			pfree(reading->text);
	}
	pfree(readings);
	if (too_many)
		pass_few_readings(text, len, sink, arg);
}
