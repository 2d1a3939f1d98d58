/*-------------------------------------------------------------------------
 *
 * names/fold.c
 *	  Folds texts: without case, and with one form of each letter.
 *
 * Unicode: a text is decomposed (by PostgreSQL's own tables), case folded
 * letter by letter in the C.UTF-8 locale of the C library, and then composed
 * (NFC).  The order matters, because some letters are composed in one case
 * only.  Folding is not full case folding: "SS" is not folded like the
 * German sharp s.  If folding makes two names equal, both files are kept.
 *
 * A long text is folded in stretches.  A stretch ends before a letter that
 * cannot be composed with the letter before it, so that a name is folded in
 * the same way at any place in a text.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include <locale.h>
#include <wctype.h>

#include "common/unicode_norm.h"
#include "lib/stringinfo.h"

#include "src/names/private.h"

#define MAX_UTF8_LETTER		4
#define DOT_ABOVE			0x0307

/* A stretch ends at the first good place behind this many bytes. */
#define STRETCH				256
/*
 * A stretch ends at any place behind this many bytes.  Such a text consists
 * of marks only and is no name, and to sort marks takes time that grows with
 * the square of their number.  Somebody may write a megabyte of marks.
 */
#define STRETCH_MAX			512

typedef struct LetterRange
{
	pg_wchar	first;
	pg_wchar	last;
} LetterRange;


/* --------------------------------------------------------------- letters --- */

static bool
is_in_ranges(pg_wchar c, const LetterRange *ranges, int n)
{
	for (int i = 0; i < n && c >= ranges[i].first; i++)
		if (c <= ranges[i].last)
			return true;
	return false;
}

/* Spaces of any width, and invisible marks. */
static const LetterRange blanks[] = {
	{0x0085, 0x0085}, {0x00A0, 0x00A0}, {0x00AD, 0x00AD}, {0x061C, 0x061C}, {0x1680, 0x1680},
	{0x180E, 0x180E}, {0x2000, 0x200F}, {0x2028, 0x202F}, {0x205F, 0x2069}, {0x3000, 0x3000},
	{0xFEFF, 0xFEFF}
};

/* Marks of punctuation, and pictures. */
static const LetterRange punctuation[] = {
	{0x0080, 0x00A9}, {0x00AB, 0x00B4}, {0x00B6, 0x00B9}, {0x00BB, 0x00BF}, {0x00D7, 0x00D7},
	{0x00F7, 0x00F7}, {0x037E, 0x037E}, {0x0387, 0x0387}, {0x055A, 0x055F}, {0x0589, 0x058A},
	{0x05BE, 0x05BE}, {0x05F3, 0x05F4}, {0x060C, 0x060D}, {0x061B, 0x061F}, {0x066A, 0x066D},
	{0x06D4, 0x06D4}, {0x0964, 0x0965}, {0x0E4F, 0x0E4F}, {0x0E5A, 0x0E5B}, {0x104A, 0x104F},
	{0x10FB, 0x10FB}, {0x1360, 0x1368}, {0x17D4, 0x17DA}, {0x1800, 0x180A}, {0x2010, 0x2027},
	{0x2030, 0x205E}, {0x20A0, 0x20CF}, {0x2190, 0x2BFF}, {0x2E00, 0x2E7F}, {0x3001, 0x3004},
	{0x3007, 0x3020}, {0x3030, 0x3030}, {0x303D, 0x303F}, {0x30A0, 0x30A0}, {0x30FB, 0x30FB},
	{0xFD3E, 0xFD3F}, {0xFE10, 0xFE1F}, {0xFE30, 0xFE6F}, {0xFF01, 0xFF0F}, {0xFF1A, 0xFF20},
	{0xFF3B, 0xFF40}, {0xFF5B, 0xFF65}, {0xFFE0, 0xFFFF}, {0x1F000, 0x1FAFF}
};

/* Letters that are written together with letters of ASCII. */
static const LetterRange latin_letters[] = {
	{0x00AA, 0x02FF}, {0x0300, 0x036F}, {0x1AB0, 0x1AFF}, {0x1D00, 0x1EFF}, {0x2070, 0x209C},
	{0x20D0, 0x20FF}, {0x2100, 0x218F}, {0x2C60, 0x2C7F}, {0xA720, 0xA7FF}, {0xAB30, 0xAB6F},
	{0xFB00, 0xFB06}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}, {0x1D400, 0x1D7FF}, {0xE0100, 0xE01EF}
};

/* Letters that are never composed with the letter before them. */
static const LetterRange sure_starts[] = {
	{0x0020, 0x007E}, {0x00A0, 0x02FF}, {0x0391, 0x03CE}, {0x0400, 0x0481}, {0x05D0, 0x05EA},
	{0x0621, 0x064A}, {0x0904, 0x0939}, {0x0E01, 0x0E30}, {0x0E81, 0x0EB0}, {0x0F40, 0x0F6C},
	{0x1000, 0x102A}, {0x10A0, 0x10FF}, {0x1200, 0x135A}, {0x1780, 0x17B3}, {0x2010, 0x2027}, {0x3000, 0x3029},
	{0x3041, 0x3096}, {0x30A1, 0x30FB}, {0x3400, 0x9FFF}, {0xAC00, 0xD7A3}, {0xFF01, 0xFF5E},
	{0x1F000, 0x1FAFF}, {0x20000, 0x3FFFF}
};

#define B	FOLD_BREAK
#define L	FOLD_LATIN
#define M	FOLD_MARK
#define D	FOLD_DOT
#define S	FOLD_SLASH

/* Letters, digits and "%" are part of a name. */
const uint8 fold_ascii_classes[128] = {
	B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B,
	B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B,
	B, B, B, B, B, L, B, B, B, B, B, B, B, M, D, S,
	L, L, L, L, L, L, L, L, L, L, B, B, B, B, B, B,
	B, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L,
	L, L, L, L, L, L, L, L, L, L, L, B, B, B, B, M,
	B, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L,
	L, L, L, L, L, L, L, L, L, L, L, B, B, B, M, B
};

#undef B
#undef L
#undef M
#undef D
#undef S

FoldClass
fold_class(bool utf8, const char *text, size_t len, int *step)
{
	pg_wchar	c;

	*step = 1;
	if (!IS_HIGHBIT_SET(*text))
		return fold_ascii_classes[(unsigned char) *text];

	/*
	 * the byte may be a quote or a blank: in such a database only ASCII names
	 * are judged
	 */
	if (!utf8)
		return FOLD_BREAK;
	if ((*step = (int) utf8_letter_length(text, len)) == 0)
	{
		*step = 1;
		return FOLD_LATIN;
	}
	c = utf8_to_unicode((const unsigned char *) text);
	if (is_in_ranges(c, blanks, lengthof(blanks)) || is_in_ranges(c, punctuation, lengthof(punctuation)))
		return FOLD_BREAK;
	return is_in_ranges(c, latin_letters, lengthof(latin_letters)) ? FOLD_LATIN : FOLD_OTHER;
}


/* --------------------------------------------------------------- folding --- */

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

/*
 * Returns the letter in lower case, if the C library knows it.  The letter is
 * made upper case first, because upper case has one letter where lower case
 * has two: both forms of the sigma, and i with and without a dot.
 */
static pg_wchar
fold_letter(pg_wchar c)
{
	locale_t	locale = folding_locale();

	if (c < 0x80)
		return (pg_wchar) fold_ascii((char) c);
	if (is_in_ranges(c, blanks, lengthof(blanks)))
		return ' ';
	if (locale == (locale_t) 0)
		return c;
	return (pg_wchar) towlower_l(towupper_l((wint_t) c, locale), locale);
}

/* Folds decomposed letters in place.  The dot of a capital I is removed, too. */
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

/* Appends valid UTF-8 to `out`, folded. */
static void
append_folded(StringInfo out, const char *text, size_t len)
{
	pg_wchar   *letters = (pg_wchar *) palloc((len + 1) * sizeof(pg_wchar));
	pg_wchar   *decomposed;
	pg_wchar   *composed;
	unsigned char letter[MAX_UTF8_LETTER + 1];
	size_t		n = 0;

	for (size_t i = 0; i < len; i += pg_utf_mblen((const unsigned char *) text + i))
		letters[n++] = utf8_to_unicode((const unsigned char *) text + i);
	letters[n] = 0;

	decomposed = unicode_normalize(UNICODE_NFD, letters);
	fold_letters(decomposed);
	composed = unicode_normalize(UNICODE_NFC, decomposed);
	for (n = 0; composed[n] != 0; n++)
	{
		unicode_to_utf8(composed[n], letter);
		appendBinaryStringInfo(out, (const char *) letter, pg_utf_mblen(letter));
	}
	pfree(composed);
	pfree(decomposed);
	pfree(letters);
}

/* Returns the length of the stretch of valid letters at `text` that are folded together. */
static size_t
stretch_length(const char *text, size_t len)
{
	size_t		i = 0;

	while (i < len && i < STRETCH_MAX)
	{
		size_t		step = utf8_letter_length(text + i, len - i);

		if (step == 0 || text[i] == '\0')
			break;
		if (i >= STRETCH && is_in_ranges(utf8_to_unicode((const unsigned char *) text + i), sure_starts, lengthof(sure_starts)))
			break;
		if (i > 0 && step == 1 && i + 1 < len && !IS_HIGHBIT_SET(text[i + 1]))
			break;				/* only ASCII follows, for which there is a
								 * faster way */
		i += step;
	}
	return i;
}

char *
fold_text(bool utf8, const char *text, size_t len, size_t *folded_len)
{
	StringInfoData folded;
	size_t		i = 0;

	initStringInfo(&folded);
	enlargeStringInfo(&folded, (int) len);
	while (i < len)
	{
		size_t		stretch;

		if (!IS_HIGHBIT_SET(text[i]) && !(i + 1 < len && IS_HIGHBIT_SET(text[i + 1])))
		{
			appendStringInfoCharMacro(&folded, fold_ascii(text[i]));
			i++;
			continue;
		}
		stretch = utf8 ? stretch_length(text + i, len - i) : 0;
		if (stretch == 0)
			appendStringInfoCharMacro(&folded, fold_ascii(text[i]));
		else
			append_folded(&folded, text + i, stretch);
		i += Max(stretch, 1);
	}
	*folded_len = folded.len;
	return folded.data;
}

/* The loop has no branch for each letter, so that the processor takes many letters at once. */
bool
fold_ascii_text(const char *text, size_t len, char *folded)
{
	unsigned char all = 0;

	for (size_t i = 0; i < len; i++)
	{
		all |= (unsigned char) text[i];
		folded[i] = fold_ascii(text[i]);
	}
	return !IS_HIGHBIT_SET(all);
}

size_t
fold_component(bool utf8, char *text, size_t len, size_t room)
{
	char	   *folded;
	size_t		folded_len;

	if (fold_ascii_text(text, len, text) || !utf8)
		return len;
	folded = fold_text(utf8, text, len, &folded_len);
	if (folded_len <= room)
	{
		len = folded_len;
		memcpy(text, folded, len);
	}
	pfree(folded);
	return len;
}
