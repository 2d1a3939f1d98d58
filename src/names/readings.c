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

#include "src/names/private.h"

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
 * Reads "\uD83C\uDFB5", "\u00e9", "\u{e9}", "\U000000e9", or Perl's
 * "\x{e9}".  Returns the number of bytes read, or 0.
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
	n = text[1] == 'u' || text[1] == 'U' || text[1] == 'x' ? read_unicode_escape(text, end, &c) : 0;
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


/*
 * The letters of Windows-1252 that Latin-1 does not have, for the bytes from
 * 0x80 to 0x9F; 0: the byte is no letter.
 */
static const uint16 windows_letters[] = {
	0x20AC, 0, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160, 0x2039, 0x0152, 0, 0x017D, 0,
	0, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0, 0x017E, 0x0178
};

/* Returns the byte that the letter is in Latin-1 or Windows-1252, or -1. */
static int
latin_byte(pg_wchar letter)
{
	for (int i = 0; i < lengthof(windows_letters); i++)
		if (letter == windows_letters[i])
			return 0x80 + i;
	return letter >= 0x80 && letter <= 0xFF ? (int) letter : -1;
}

/*
 * Reads a letter that was encoded twice: a connection has taken the bytes of
 * UTF-8 for letters of Latin-1 or Windows-1252, so that the text has two
 * letters where U+00E9 was meant.
 */
static size_t
read_encoded_twice(const char *text, const char *end, char **out)
{
	const char *next = text;
	char		bytes[4];
	size_t		n = 0;
	size_t		wanted = 1;

	while (n < wanted)
	{
		size_t		len = next < end ? utf8_letter_length(next, end - next) : 0;
		int			byte = len < 2 ? -1 : latin_byte(utf8_to_unicode((const unsigned char *) next));

		if (byte < 0)
			return 0;
		bytes[n++] = (char) byte;
		next += len;
		wanted = pg_utf_mblen((const unsigned char *) bytes);
	}
	if (n < 2 || utf8_letter_length(bytes, n) != n)
		return 0;
	memcpy(*out, bytes, n);
	*out += n;
	return next - text;
}


/* -------------------------------------------------------------- entities --- */

/*
 * The entities of HTML 4, and those of HTML 5 for Latin, Greek and Cyrillic
 * letters, and for ASCII.  Sorted by name.  The list leaves out a name whose
 * letters in lower case are the name of the same letter in lower case.
 */
typedef struct Entity
{
	char		name[9];
	uint16		letter;
} Entity;

static const Entity entities[] = {
	{"Dagger", 0x2021}, {"Gcedil", 0x122}, {"Hat", '^'}, {"Idot", 0x130}, {"NewLine", '\n'}, {"Prime", 0x2033},
	{"Tab", '\t'}, {"Upsi", 0x3D2}, {"Yuml", 0x178}, {"aacute", 0xE1}, {"abreve", 0x103}, {"acirc", 0xE2},
	{"acute", 0xB4}, {"acy", 0x430}, {"aelig", 0xE6}, {"agrave", 0xE0}, {"alefsym", 0x2135}, {"alpha", 0x3B1},
	{"amacr", 0x101}, {"amp", '&'}, {"and", 0x2227}, {"ang", 0x2220}, {"aogon", 0x105}, {"apos", '\''},
	{"aring", 0xE5}, {"ast", '*'}, {"asymp", 0x2248}, {"atilde", 0xE3}, {"auml", 0xE4}, {"bcy", 0x431},
	{"bdquo", 0x201E}, {"bepsi", 0x3F6}, {"beta", 0x3B2}, {"brvbar", 0xA6}, {"bsol", '\\'}, {"bull", 0x2022},
	{"cacute", 0x107}, {"cap", 0x2229}, {"ccaron", 0x10D}, {"ccedil", 0xE7}, {"ccirc", 0x109}, {"cdot", 0x10B},
	{"cedil", 0xB8}, {"cent", 0xA2}, {"chcy", 0x447}, {"chi", 0x3C7}, {"circ", 0x2C6}, {"clubs", 0x2663},
	{"colon", ':'}, {"comma", ','}, {"commat", '@'}, {"cong", 0x2245}, {"copy", 0xA9}, {"crarr", 0x21B5},
	{"cup", 0x222A}, {"curren", 0xA4}, {"dArr", 0x21D3}, {"dagger", 0x2020}, {"darr", 0x2193}, {"dcaron", 0x10F},
	{"dcy", 0x434}, {"deg", 0xB0}, {"delta", 0x3B4}, {"diams", 0x2666}, {"digamma", 0x3DD}, {"divide", 0xF7},
	{"djcy", 0x452}, {"dollar", '$'}, {"dscy", 0x455}, {"dstrok", 0x111}, {"dzcy", 0x45F}, {"eacute", 0xE9},
	{"ecaron", 0x11B}, {"ecirc", 0xEA}, {"ecy", 0x44D}, {"edot", 0x117}, {"egrave", 0xE8}, {"emacr", 0x113},
	{"empty", 0x2205}, {"emsp", 0x2003}, {"eng", 0x14B}, {"ensp", 0x2002}, {"eogon", 0x119}, {"epsi", 0x3B5},
	{"epsilon", 0x3B5}, {"epsiv", 0x3F5}, {"equals", '='}, {"equiv", 0x2261}, {"eta", 0x3B7}, {"eth", 0xF0},
	{"euml", 0xEB}, {"euro", 0x20AC}, {"excl", '!'}, {"exist", 0x2203}, {"fcy", 0x444}, {"fnof", 0x192},
	{"forall", 0x2200}, {"frac12", 0xBD}, {"frac14", 0xBC}, {"frac34", 0xBE}, {"frasl", 0x2044}, {"gamma", 0x3B3},
	{"gammad", 0x3DD}, {"gbreve", 0x11F}, {"gcirc", 0x11D}, {"gcy", 0x433}, {"gdot", 0x121}, {"ge", 0x2265},
	{"gjcy", 0x453}, {"grave", '`'}, {"gt", '>'}, {"hArr", 0x21D4}, {"hardcy", 0x44A}, {"harr", 0x2194},
	{"hcirc", 0x125}, {"hearts", 0x2665}, {"hellip", 0x2026}, {"hstrok", 0x127}, {"iacute", 0xED}, {"icirc", 0xEE},
	{"icy", 0x438}, {"iecy", 0x435}, {"iexcl", 0xA1}, {"igrave", 0xEC}, {"ijlig", 0x133}, {"imacr", 0x12B},
	{"image", 0x2111}, {"imath", 0x131}, {"infin", 0x221E}, {"inodot", 0x131}, {"int", 0x222B}, {"iocy", 0x451},
	{"iogon", 0x12F}, {"iota", 0x3B9}, {"iquest", 0xBF}, {"isin", 0x2208}, {"itilde", 0x129}, {"iukcy", 0x456},
	{"iuml", 0xEF}, {"jcirc", 0x135}, {"jcy", 0x439}, {"jsercy", 0x458}, {"jukcy", 0x454}, {"kappa", 0x3BA},
	{"kappav", 0x3F0}, {"kcedil", 0x137}, {"kcy", 0x43A}, {"kgreen", 0x138}, {"khcy", 0x445}, {"kjcy", 0x45C},
	{"lArr", 0x21D0}, {"lacute", 0x13A}, {"lambda", 0x3BB}, {"lang", 0x2329}, {"laquo", 0xAB}, {"larr", 0x2190},
	{"lbrace", '{'}, {"lbrack", '['}, {"lcaron", 0x13E}, {"lcedil", 0x13C}, {"lceil", 0x2308}, {"lcub", '{'},
	{"lcy", 0x43B}, {"ldquo", 0x201C}, {"le", 0x2264}, {"lfloor", 0x230A}, {"ljcy", 0x459}, {"lmidot", 0x140},
	{"lowast", 0x2217}, {"lowbar", '_'}, {"loz", 0x25CA}, {"lpar", '('}, {"lrm", 0x200E}, {"lsaquo", 0x2039},
	{"lsqb", '['}, {"lsquo", 0x2018}, {"lstrok", 0x142}, {"lt", '<'}, {"macr", 0xAF}, {"mcy", 0x43C},
	{"mdash", 0x2014}, {"micro", 0xB5}, {"middot", 0xB7}, {"minus", 0x2212}, {"mu", 0x3BC}, {"nabla", 0x2207},
	{"nacute", 0x144}, {"napos", 0x149}, {"nbsp", 0xA0}, {"ncaron", 0x148}, {"ncedil", 0x146}, {"ncy", 0x43D},
	{"ndash", 0x2013}, {"ne", 0x2260}, {"ni", 0x220B}, {"njcy", 0x45A}, {"not", 0xAC}, {"notin", 0x2209},
	{"nsub", 0x2284}, {"ntilde", 0xF1}, {"nu", 0x3BD}, {"num", '#'}, {"oacute", 0xF3}, {"ocirc", 0xF4},
	{"ocy", 0x43E}, {"odblac", 0x151}, {"oelig", 0x153}, {"ograve", 0xF2}, {"ohm", 0x3A9}, {"oline", 0x203E},
	{"omacr", 0x14D}, {"omega", 0x3C9}, {"omicron", 0x3BF}, {"oplus", 0x2295}, {"or", 0x2228}, {"ordf", 0xAA},
	{"ordm", 0xBA}, {"oslash", 0xF8}, {"otilde", 0xF5}, {"otimes", 0x2297}, {"ouml", 0xF6}, {"para", 0xB6},
	{"part", 0x2202}, {"pcy", 0x43F}, {"percnt", '%'}, {"period", '.'}, {"permil", 0x2030}, {"perp", 0x22A5},
	{"phi", 0x3C6}, {"phiv", 0x3D5}, {"pi", 0x3C0}, {"piv", 0x3D6}, {"plus", '+'}, {"plusmn", 0xB1},
	{"pound", 0xA3}, {"prime", 0x2032}, {"prod", 0x220F}, {"prop", 0x221D}, {"psi", 0x3C8}, {"quest", '?'},
	{"quot", '"'}, {"rArr", 0x21D2}, {"racute", 0x155}, {"radic", 0x221A}, {"rang", 0x232A}, {"raquo", 0xBB},
	{"rarr", 0x2192}, {"rbrace", '}'}, {"rbrack", ']'}, {"rcaron", 0x159}, {"rcedil", 0x157}, {"rceil", 0x2309},
	{"rcub", '}'}, {"rcy", 0x440}, {"rdquo", 0x201D}, {"real", 0x211C}, {"reg", 0xAE}, {"rfloor", 0x230B},
	{"rho", 0x3C1}, {"rhov", 0x3F1}, {"rlm", 0x200F}, {"rpar", ')'}, {"rsaquo", 0x203A}, {"rsqb", ']'},
	{"rsquo", 0x2019}, {"sacute", 0x15B}, {"sbquo", 0x201A}, {"scaron", 0x161}, {"scedil", 0x15F}, {"scirc", 0x15D},
	{"scy", 0x441}, {"sdot", 0x22C5}, {"sect", 0xA7}, {"semi", ';'}, {"shchcy", 0x449}, {"shcy", 0x448},
	{"shy", 0xAD}, {"sigma", 0x3C3}, {"sigmaf", 0x3C2}, {"sigmav", 0x3C2}, {"sim", 0x223C}, {"softcy", 0x44C},
	{"sol", '/'}, {"spades", 0x2660}, {"sub", 0x2282}, {"sube", 0x2286}, {"sum", 0x2211}, {"sup", 0x2283},
	{"sup1", 0xB9}, {"sup2", 0xB2}, {"sup3", 0xB3}, {"supe", 0x2287}, {"szlig", 0xDF}, {"tau", 0x3C4},
	{"tcaron", 0x165}, {"tcedil", 0x163}, {"tcy", 0x442}, {"there4", 0x2234}, {"theta", 0x3B8}, {"thetasym", 0x3D1},
	{"thetav", 0x3D1}, {"thinsp", 0x2009}, {"thorn", 0xFE}, {"tilde", 0x2DC}, {"times", 0xD7}, {"trade", 0x2122},
	{"tscy", 0x446}, {"tshcy", 0x45B}, {"tstrok", 0x167}, {"uArr", 0x21D1}, {"uacute", 0xFA}, {"uarr", 0x2191},
	{"ubrcy", 0x45E}, {"ubreve", 0x16D}, {"ucirc", 0xFB}, {"ucy", 0x443}, {"udblac", 0x171}, {"ugrave", 0xF9},
	{"umacr", 0x16B}, {"uml", 0xA8}, {"uogon", 0x173}, {"upsi", 0x3C5}, {"upsih", 0x3D2}, {"upsilon", 0x3C5},
	{"uring", 0x16F}, {"utilde", 0x169}, {"uuml", 0xFC}, {"varkappa", 0x3F0}, {"varphi", 0x3D5}, {"varpi", 0x3D6},
	{"varrho", 0x3F1}, {"varsigma", 0x3C2}, {"vartheta", 0x3D1}, {"vcy", 0x432}, {"verbar", '|'}, {"vert", '|'},
	{"wcirc", 0x175}, {"weierp", 0x2118}, {"xi", 0x3BE}, {"yacute", 0xFD}, {"yacy", 0x44F}, {"ycirc", 0x177},
	{"ycy", 0x44B}, {"yen", 0xA5}, {"yicy", 0x457}, {"yucy", 0x44E}, {"yuml", 0xFF}, {"zacute", 0x17A},
	{"zcaron", 0x17E}, {"zcy", 0x437}, {"zdot", 0x17C}, {"zeta", 0x3B6}, {"zhcy", 0x436}, {"zwj", 0x200D},
	{"zwnj", 0x200C}
};

static int
compare_entities(const void *a, const void *b)
{
	return strcmp(((const Entity *) a)->name, ((const Entity *) b)->name);
}

/* Returns the capital of a letter that is in the list, or the letter itself if it has no capital. */
static pg_wchar
capital_of(pg_wchar c)
{
	if ((c >= 0xE0 && c <= 0xFE) || (c >= 0x3B1 && c <= 0x3C9) || (c >= 0x430 && c <= 0x44F))
		return c - 0x20;
	if (c >= 0x451 && c <= 0x45F)
		return c - 0x50;
	return (c >= 0x100 && c <= 0x17F) || c == 0x3DD ? c - 1 : c;
}

static const Entity *
find_entity(const Entity *wanted)
{
	return bsearch(wanted, entities, lengthof(entities), sizeof(Entity), compare_entities);
}

static pg_wchar
named_letter(const char *name, size_t len)
{
	Entity		wanted = {"", 0};
	const Entity *found;

	if (len >= sizeof(wanted.name))
		return 0;
	memcpy(wanted.name, name, len);
	found = find_entity(&wanted);
	if (found != NULL)
		return found->letter;
	/* "&Eacute;" and "&AMP;" */
	(void) fold_ascii_text(name, len, wanted.name);
	found = find_entity(&wanted);
	return found != NULL ? capital_of(found->letter) : 0;
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
	bool		through;		/* decode_through() uses the decoder: "+", and
								 * a backslash in PHP's S:, may mean something
								 * else */
}			decoders[] = {
	{'\\', read_backslash, NULL, NULL, 3, true},
	{'%', read_hex_pair, NULL, NULL, 2, true},
	{'+', read_plus, NULL, NULL, 1, false},
	{'%', read_percent_u, NULL, "%u", 1, true},
	{'&', read_entity, NULL, ";", 2, true},
	{'"', read_doubled, NULL, "\"\"", 1, true},
	{'\'', read_doubled, NULL, "''", 1, true},
	{'\'', read_quoted_quote, NULL, "'\"'\"'", 1, true},
	{'\\', read_hex_pair, NULL, "S:", 1, false},
	{'\xC3', read_encoded_twice, NULL, NULL, 1, true},
	{'\0', NULL, decode_latin, NULL, 1, false},
	{'\\', NULL, decode_slashes, NULL, 1, false},
	{'/', NULL, decode_path, NULL, 1, false},
};

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
	return memmem(text, len, wanted, strlen(wanted)) != NULL;
}

/* Returns whether an escape, a doubled quote, a letter that was encoded twice, or a path to be resolved may begin at `text`. */
static bool
may_begin_decoding(const char *text, const char *begin, const char *end)
{
	char		next = end - text > 1 ? text[1] : '\0';

	switch (*text)
	{
		case '"':
			return next == '"';
		case '\'':
			return next == '\'' || next == '"';
		case '/':
			return next == '.' || (next == '/' && (text == begin || text[-1] != ':'));
		case '\xC3':			/* see read_encoded_twice() */
			return end - text > 2 && IS_HIGHBIT_SET(text[2]);
		default:
			return *text == '\\' || *text == '%' || *text == '&' || *text == '+';
	}
}

/* Returns whether the text has a path that decode_path() may resolve. */
static bool
holds_dots(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (text[i] == '/' && may_begin_decoding(text + i, text, text + len))
			return true;
	return false;
}

static bool
applies(const Reading *reading, int decoder)
{
	return reading->used[decoder] < decoders[decoder].times &&
		(decoders[decoder].decode != NULL || !reading->of_paths) &&
		(decoders[decoder].sign == '\0' || memchr(reading->text, decoders[decoder].sign, reading->len) != NULL) &&
		(decoders[decoder].decode != decode_latin ||
		 pg_encoding_verifymbstr(PG_UTF8, reading->text, (int) reading->len) < (int) reading->len) &&
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

/*
 * Returns whether there is nothing to decode.  One pass is enough; nearly
 * every value comes here.
 */
static bool
is_literal(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char) text[i]) && may_begin_decoding(text + i, text, text + len))
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
			if (decoders[i].through)
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
	Reading		first = {.text = unconstify(char *, text),.len = len};
	Readings   *readings;
	bool		too_many = false;

	if (is_literal(text, len))
	{
		sink(text, len, arg);
		return;
	}
	first.hash = hash_bytes_extended((const unsigned char *) text, (int) len, 0);
	readings = palloc(sizeof(Readings));
	readings->all[0] = first;
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
