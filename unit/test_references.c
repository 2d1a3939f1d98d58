/*-------------------------------------------------------------------------
 *
 * test_references.c
 *	  Checks that a name is found, whatever the name holds, and whatever it is
 *	  written into.
 *
 * Each format below is a way in which applications write the names of files
 * into a column.  Random names, with every letter that can be printed, are
 * written in each format, anywhere in texts of up to a megabyte: the file is
 * kept.  Names that only look alike, written in the same ways, keep nothing.
 *
 *		UNIT_SEED=<n>		other names; the seed is printed
 *		test_references --formats	the table of docs/references.md, which must be
 *									that of this program
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres_fe.h"

#include <ctype.h>
#include <unistd.h>

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "src/names/file_key.h"
#include "src/names/rules.h"

#define SEED			20261125
#include "common.h"
#define LONG_TEXT		(1024 * 1024)
#define LONGISH_TEXT	(64 * 1024)
#define NAMES_MAX		1100

static char *extensions[] = {"mp3", "wav", "m4a", "webm"};
static char *suffixes[] = {"_processed"};

static const KeyRules rules = {
	.n_extensions = lengthof(extensions),.extensions = extensions,
	.n_suffixes = lengthof(suffixes),.suffixes = suffixes,.utf8 = true
};


/* ---------------------------------------------------------------- escapes --- */

/* Writes `text` with each letter of `special` behind `escape`. */
static void
put_escaped(StringInfo out, const char *text, const char *special, char escape)
{
	for (; *text != '\0'; text++)
	{
		if (strchr(special, *text) != NULL)
			appendStringInfoChar(out, escape);
		appendStringInfoChar(out, *text);
	}
}

/* Writes each `quote` twice. */
static void
put_doubled(StringInfo out, const char *text, char quote)
{
	for (; *text != '\0'; text++)
	{
		if (*text == quote)
			appendStringInfoChar(out, quote);
		appendStringInfoChar(out, *text);
	}
}

static void
put_percent(StringInfo out, const char *text, const char *safe)
{
	for (; *text != '\0'; text++)
		if (isalnum((unsigned char) *text) || strchr(safe, *text) != NULL)
			appendStringInfoChar(out, *text);
		else
			appendStringInfo(out, "%%%02X", (unsigned char) *text);
}

/* JSON with nothing but ASCII; PHP writes "\/", too. */
static void
put_json(StringInfo out, const char *text)
{
	while (*text != '\0')
	{
		pg_wchar	c = utf8_to_unicode((const unsigned char *) text);

		if (c >= 0x10000)
			appendStringInfo(out, "\\u%04x\\u%04x", 0xD7C0 + (c >> 10), 0xDC00 + (c & 0x3FF));
		else if (c >= 0x80)
			appendStringInfo(out, "\\u%04x", c);
		else
		{
			if (strchr("\"\\/", (char) c) != NULL)
				appendStringInfoChar(out, '\\');
			appendStringInfoChar(out, (char) c);
		}
		text += pg_utf_mblen((const unsigned char *) text);
	}
}

static void
put_html(StringInfo out, const char *text)
{
	for (; *text != '\0'; text++)
		switch (*text)
		{
			case '&':
				appendStringInfoString(out, "&amp;");
				break;
			case '<':
				appendStringInfoString(out, "&lt;");
				break;
			case '>':
				appendStringInfoString(out, "&gt;");
				break;
			case '"':
				appendStringInfoString(out, "&quot;");
				break;
			case '\'':
				appendStringInfoString(out, "&#39;");
				break;
			default:
				appendStringInfoChar(out, *text);
		}
}

static void
put_numbered(StringInfo out, const char *text)
{
	for (; *text != '\0'; text += pg_utf_mblen((const unsigned char *) text))
	{
		pg_wchar	c = utf8_to_unicode((const unsigned char *) text);

		if (c < 0x80 && strchr("&<>\"'", (char) c) == NULL)
			appendStringInfoChar(out, (char) c);
		else
			appendStringInfo(out, "&#x%X;", c);
	}
}

static void
put_octal(StringInfo out, const char *text)
{
	for (; *text != '\0'; text++)
		if (IS_HIGHBIT_SET(*text))
			appendStringInfo(out, "\\%03o", (unsigned char) *text);
		else
		{
			if (*text == '"' || *text == '\\')
				appendStringInfoChar(out, '\\');
			appendStringInfoChar(out, *text);
		}
}

static void
put_hex_pairs(StringInfo out, const char *text)
{
	for (; *text != '\0'; text++)
		if (IS_HIGHBIT_SET(*text) || *text == '\\')
			appendStringInfo(out, "\\%02x", (unsigned char) *text);
		else
			appendStringInfoChar(out, *text);
}

static void
put_backslashes(StringInfo out, const char *text)
{
	for (; *text != '\0'; text++)
		appendStringInfoChar(out, *text == '/' ? '\\' : *text);
}

static void
put_shell_word(StringInfo out, const char *text)
{
	for (; *text != '\0'; text++)
		if (*text == '\'')
			appendStringInfoString(out, "'\\''");
		else
			appendStringInfoChar(out, *text);
}

/* Writes a text unchanged. */
static void
put_text(StringInfo out, const char *text)
{
	appendStringInfoString(out, text);
}

/*
 * Writes letters of ASCII that are in `escaped`, and letters up to U+00FF, by
 * the format `byte`, other letters by `letter`, and letters beyond 16 bits by
 * `large`, or as a pair.
 */
static void
put_code_points(StringInfo out, const char *text, const char *escaped, const char *byte,
				const char *letter, const char *large)
{
	for (const unsigned char *p = (const unsigned char *) text; *p != '\0'; p += pg_utf_mblen(p))
	{
		pg_wchar	c = utf8_to_unicode(p);

		if (c < 0x80)
			appendStringInfo(out, strchr(escaped, (int) c) == NULL ? "%c" : byte, c);
		else if (c < 0x10000)
			appendStringInfo(out, c < 0x100 ? byte : letter, c);
		else if (large != NULL)
			appendStringInfo(out, large, c);
		else
		{
			appendStringInfo(out, letter, 0xD800 + ((c - 0x10000) >> 10));
			appendStringInfo(out, letter, 0xDC00 + ((c - 0x10000) & 0x3FF));
		}
	}
}

static void
put_url_path(StringInfo out, const char *text)
{
	put_percent(out, text, "-_.!~*'()/");
}

static void
put_attribute(StringInfo out, const char *text)
{
	put_percent(out, text, "-_.!~*()");
}

static void
put_component(StringInfo out, const char *text)
{
	put_percent(out, text, "-_.");
}

static void
put_component_twice(StringInfo out, const char *text)
{
	StringInfoData once;

	initStringInfo(&once);
	put_component(&once, text);
	put_component(out, once.data);
	pfree(once.data);
}

static void
put_query(StringInfo out, const char *text)
{
	for (; *text != '\0'; text++)
		if (*text == ' ')
			appendStringInfoChar(out, '+');
		else
		{
			const char	letter[2] = {*text, '\0'};

			put_component(out, letter);
		}
}

static void
put_csv(StringInfo out, const char *text)
{
	put_doubled(out, text, '"');
}

static void
put_quoted(StringInfo out, const char *text)
{
	put_doubled(out, text, '\'');
}

static void
put_json_text(StringInfo out, const char *text)
{
	put_escaped(out, text, "\"\\", '\\');
}

static void
put_shell_escaped(StringInfo out, const char *text)
{
	put_escaped(out, text, " !\"#$&'()*,:;<=>?@[\\]^`{|}~", '\\');
}

static void
put_javascript(StringInfo out, const char *text)
{
	put_code_points(out, text, " !\"#$%&'(),:;<=>?[\\]^`{|}~", "%%%02X", "%%u%04X", NULL);
}

static void
put_python(StringInfo out, const char *text)
{
	put_code_points(out, text, "'\\", "\\x%02x", "\\u%04x", "\\U%08x");
}


/* ---------------------------------------------------------------- formats --- */

/*
 * A blank of Latin-1, whose byte is also a later byte of some letters of
 * UTF-8.
 */
#define LATIN_BLANK "\302\240"

/*
 * In a template: a name; a second name, so that there is a list; the number of
 * bytes of each.  The text of a template with IN_JSON is a text in JSON.
 */
#define NAME	"\1"
#define OTHER	"\2"
#define BYTES	"\3"
#define OTHER_BYTES "\4"
#define IN_JSON "\5"

static const struct
{
	const char *title;
	void		(*put) (StringInfo out, const char *name);	/* writes a name */
	const char *template;
	const char *unsuited;		/* letters that a name must not hold here */
	bool		alone;			/* the format means something as the whole
								 * value only */
	bool		bare;			/* the format puts no folder before the name */
}			formats[] = {
	{"a name or a path", put_text, NAME, "", true, true},
	{"a URL with query and fragment", put_url_path,
	"https://cdn.example.org/audio/" NAME "?sig=ab%2Fcd&exp=1#t=10", "", false, false},
	{"a URL that encodes nothing", put_text, "s3://bucket/audio/" NAME, "", false, false},
	{"a value in the query of a URL", put_query, "https://example.org/play?x=1&file=" NAME "&y=2", "", false, true},
	{"percent-encoded twice", put_component_twice, "https://example.org/login?next=%2Faudio%2F" NAME, "", false, false},
	{"a list separated by `%0A`", put_component, OTHER "%0A" NAME "%0A" OTHER, "", false, true},
	{"a list, one name a line", put_text, OTHER "\r\n" NAME "\n" OTHER, "", false, true},
	{"a list separated by commas or semicolons", put_text, OTHER "," NAME "; " OTHER, "", false, true},
	{"CSV", put_csv, "1,\"" NAME "\",\"" OTHER "\"\r\n", "", false, true},
	{"text with tabs", put_text, "7\t" NAME "\t" OTHER "\t2026-11-25\n", "", false, true},
	{"JSON", put_json_text, "[\"" OTHER "\", \"" NAME "\"]", "", false, true},
	{"JSON with `\\u00e9` and `\\/`", put_json, "{\"audio\":{\"url\":\"https:\\/\\/h\\/" NAME "\"}}", "", false, true},
	{"JSON as a text in JSON", put_json, IN_JSON "{\"audio\":{\"url\":\"https:\\/\\/h\\/" NAME "\"}}", "", false, true},
	{"JSON in JSON in JSON", put_json, IN_JSON IN_JSON "{\"audio\":{\"url\":\"https:\\/\\/h\\/" NAME "\"}}", "", false, true},
	{"JavaScript, `escape()`", put_javascript, "name=" NAME "&n=7", LATIN_BLANK, false, true},
	{"Python, `ascii()`", put_python, "{'file': '" NAME "'}", LATIN_BLANK, false, true},
	{"PHP, `serialize()`", put_text, "a:2:{i:0;s:" BYTES ":\"" NAME "\";i:1;s:" OTHER_BYTES ":\"" OTHER "\";}", "", false, true},
	{"PHP, `S:` with escapes", put_hex_pairs, "a:1:{i:0;S:" BYTES ":\"" NAME "\";}", "", false, true},
	{"YAML", put_text, "files:\n  - " OTHER "\n  - " NAME "\n", "", false, true},
	{"YAML with quotes", put_quoted, "audio: '" NAME "'\nother: \"" OTHER "\"\n", "", false, true},
	{"Markdown, a link", put_text, "# Take\n\n* [listen](/u/" NAME ") **now**\n", "", false, false},
	{"Markdown, emphasis and code", put_text, "see _" NAME "_ and `" OTHER "`", "", false, true},
	{"HTML with entities", put_html, "<p><audio controls src=\"/u/" NAME "\"></audio></p>", "", false, false},
	{"HTML, attributes without quotes", put_attribute, "<audio src=/u/" NAME " controls>", "", false, false},
	{"XML with numbered entities", put_numbered, "<?xml version=\"1.0\"?><take><file>" NAME "</file></take>", "", false, true},
	{"a sentence in English", put_text, "We recorded it again (see " NAME "). The old one was worse.", "", false, true},
	{"a sentence in German", put_text, "Bitte \342\200\236" NAME "\342\200\234 l\303\266schen \342\200\223 danke!", "", false, true},
	{"a sentence in French, with no-break spaces", put_text,
	"\303\211coutez \302\253\302\240" NAME "\302\240\302\273\302\240: c\342\200\231est parfait.", "", false, true},
	{"a sentence in Chinese", put_text,
	"\350\257\267\345\220\254\343\200\212" NAME "\343\200\213\343\200\202\350\260\242\350\260\242", "", false, true},
	{"a sentence in Arabic, with direction marks", put_text,
	"\330\247\331\204\331\205\331\204\331\201 \342\200\216" NAME "\342\200\217\330\214 \330\264\331\203\330\261\330\247", "", false, true},
	{"a path of Windows", put_backslashes, "C:\\Users\\Joe\\uploads\\" NAME, "\\", false, false},
	{"a command of the shell, quoted", put_shell_word, "ffmpeg -i '/srv/up/" NAME "' -y out.x", "", false, false},
	{"a command of the shell, escaped", put_shell_escaped, "rm -f /srv/up/" NAME, "", false, false},
	{"an array of PostgreSQL", put_json_text, "{\"" OTHER "\",\"" NAME "\",NULL}", "", false, true},
	{"a literal of SQL", put_quoted, "UPDATE s SET audio = '" NAME "' WHERE id = 7;", "", false, true},
	{"octal escapes, as git writes them", put_octal, "renamed \"" NAME "\"", "", false, true},
	{"a line of a log", put_text, "2026-11-25T03:00:01Z\tINFO\tupload done file=" NAME " size=17\n", "", false, true},
	{"between a BOM, no-break spaces and a line break", put_text, "\357\273\277\302\240" NAME "\302\240\n", "", false, true},
};

static void
put_format(StringInfo out, int format, const char *name, const char *other)
{
	StringInfoData text;
	int			wraps = 0;

	initStringInfo(&text);
	for (const char *p = formats[format].template; *p != '\0'; p++)
		if (*p == NAME[0])
			formats[format].put(&text, name);
		else if (*p == OTHER[0])
			formats[format].put(&text, other);
		else if (*p == BYTES[0] || *p == OTHER_BYTES[0])
			appendStringInfo(&text, "%d", (int) strlen(*p == BYTES[0] ? name : other));
		else if (*p == IN_JSON[0])
			wraps++;
		else
			appendStringInfoChar(&text, *p);
	/* {"body": "{\"payload\": \"{\\\"audio\\\": ...}\"}"} */
	for (int i = 0; i < wraps; i++)
	{
		StringInfoData inner = text;

		initStringInfo(&text);
		put_text(&text, i == 0 ? "{\"payload\": \"" : "{\"body\": \"");
		put_json_text(&text, inner.data);
		put_text(&text, "\"}");
		pfree(inner.data);
	}
	appendBinaryStringInfo(out, text.data, text.len);
	pfree(text.data);
}


/* ------------------------------------------------------------------ names --- */

static const char *const odd_letters[] = {
	"\303\251", "\303\211", "e\314\201", "\303\244", "\303\237", "\320\226", "\316\251", "\346\227\245",
	"\346\234\254", "\355\225\234", "\327\251", "\330\247", "\360\237\216\265", "\342\200\223", "\302\240",
	"\342\200\231", "\343\200\202",
};

/*
 * Writes a name that begins and ends with a letter, or with a sign that has no
 * other meaning.
 */
static void
put_name(StringInfo out, const char *unsuited)
{
	int			n = 3 + next_random(20);

	appendStringInfo(out, "%c", "abcXYZ019"[next_random(9)]);
	while (n-- > 0)
	{
		char		c = ' ' + next_random('~' - ' ' + 1);

		if (next_random(8) == 0)
		{
			const char *odd = odd_letters[next_random(lengthof(odd_letters))];

			if (strcmp(odd, unsuited) != 0)
				appendStringInfoString(out, odd);
		}
		else if (c != '/' && strchr(unsuited, c) == NULL)
			appendStringInfoChar(out, c);
	}
	appendStringInfo(out, ".%s", extensions[next_random(lengthof(extensions))]);
}

/* Writes a name without a word inside that could be a name. */
static void
put_solid_name(StringInfo out)
{
	int			n = 12 + next_random(12);

	while (n-- > 0)
		appendStringInfoChar(out, "abcdefghijkmnpqrstuvwxyzABCDEFGH2345678"[next_random(39)]);
}


/* ------------------------------------------------------------------ texts --- */

static const char *const words[] = {
	"the", "recording", "of", "Tuesday", "was", "fine;", "l\303\266schen", "\320\277\321\200\320\270\320\262\320\265\321\202",
	"\345\275\225\351\237\263", "100%", "C:\\temp\\x", "a&b", "x=1", "{\"k\":", "[1,2]", "https://example.org/?q=1",
	"\n", "\t", "'quoted'", "\"so\"", "1.5", "v2.0-rc1", "\\n", "&nbsp;", "%20", "--", "...", "_",
};

static void
put_filler(StringInfo out, int bytes)
{
	int			end = out->len + bytes;

	while (out->len < end)
	{
		/* letters beyond ASCII are slow to compose outside the server */
		const char *word = words[next_random(lengthof(words))];

		if (IS_HIGHBIT_SET(*word) && bytes > 10000 && next_random(20) > 0)
			continue;
		appendStringInfo(out, "%s ", word);
	}
	appendStringInfoChar(out, '\n');
}

/* Printable, and not too long. */
static const char *
show(const char *text, int len)
{
	static char buffers[2][700];
	static int	next = 0;
	char	   *buffer = buffers[next++ % 2];
	int			n = 0;

	for (int i = 0; i < len && n < 600; i++)
		n += sprintf(buffer + n, isprint((unsigned char) text[i]) ? "%c" : "\\%03o",
					 (unsigned char) text[i]);
	buffer[n] = '\0';
	return buffer;
}

/* Writes `name` into a text of about `bytes` bytes. */
static void
put_value(StringInfo out, int format, const char *name, const char *other, int bytes)
{
	int			before = bytes > 0 ? next_random(bytes) : 0;

	if (before > 0 && !formats[format].alone)
		put_filler(out, before);
	put_format(out, format, name, other);
	if (bytes > before && !formats[format].alone)
	{
		appendStringInfoChar(out, '\n');
		put_filler(out, bytes - before);
	}
}

/* The longest take their time. */
static int	long_text = LONG_TEXT;

static int
random_size(int round)
{
	static const int sizes[] = {0, 0, 0, 10, 100, 1000};

	return round == 0 ? long_text : next_random(sizes[next_random(lengthof(sizes))] + 1);
}


/* ------------------------------------------------------------------ tests --- */

static void
test_kept(int format, int rounds)
{
	int			lost = 0;

	for (int round = 0; round < rounds; round++)
	{
		StringInfoData path;
		StringInfoData other;
		StringInfoData value;
		bool		folder = next_random(3) == 0;

		initStringInfo(&path);
		initStringInfo(&other);
		initStringInfo(&value);
		if (folder)
			appendStringInfoString(&path, "2024/d 1/");
		put_name(&path, formats[format].unsuited);
		put_name(&other, formats[format].unsuited);
		/* the name alone means a file of that name in every folder */
		put_value(&value, format,
				  folder && formats[format].bare && next_random(2) ? strrchr(path.data, '/') + 1 : path.data,
				  other.data, random_size(round));
		if (key_compare(&rules, value.data, value.len, path.data) == KEY_NO_MATCH && lost++ < 3)
			diag("\"%s\" in: %s", show(path.data, path.len), show(value.data, value.len));
		pfree(path.data);
		pfree(other.data);
		pfree(value.data);
	}
	is(lost, 0, tap_text("kept: %s", formats[format].title));
}

/*
 * Each escape doubles the number of readings, so all of these escapes together
 * make too many readings.
 */
#define ALL_ESCAPES \
	" \\\\\\\\u0026amp;amp;%252520 \"\"x\"\" ''y'' '\"'\"' + //a/../b %u0041 S:\\41 \\303 \\xe9 %E9 \\u00e9 &#233;\n"

/*
 * Checks that escapes beside a name do not use up the reading that the name
 * needs.
 */
static void
test_among_escapes(int format, int rounds)
{
	int			lost = 0;

	for (int round = 0; round < rounds && !formats[format].alone; round++)
	{
		StringInfoData path;
		StringInfoData value;

		initStringInfo(&path);
		initStringInfo(&value);
		/* a name that looks like an escape may be lost */
		put_name(&path, "\\\"'%&+" LATIN_BLANK);
		appendStringInfoString(&value, ALL_ESCAPES);
		put_format(&value, format, path.data, "b.mp3");
		appendStringInfoString(&value, ALL_ESCAPES);
		if (key_compare(&rules, value.data, value.len, path.data) == KEY_NO_MATCH && lost++ < 3)
			diag("\"%s\" in: %s", show(path.data, path.len), show(value.data, value.len));
		pfree(path.data);
		pfree(value.data);
	}
	is(lost, 0, tap_text("kept among escapes: %s", formats[format].title));
}

/*
 * Writes a name that looks like `solid`.mp3, but does not have `solid` as a
 * word.
 */
static void
put_look_alike(StringInfo out, const char *solid)
{
	static const char *const patterns[] = {
		"x%s.mp3", "7%s.mp3", "my-%s.mp3", "my_%s.mp3", "a.%s.mp3", "%sx.mp3", "%s2.mp3", "%s-2.mp3",
		"%s_2.mp3", "%s.2.mp3", "%s.mp3x", "%s.mp3.bak", "%s.mp33", "%s.wav", "%s.mp", "%s.json",
		"%s_processed.mp3", "%s.mp3.wav", "other/%s.mp3", "2023/05/%s.mp3", "\303\251%s.mp3", "%s\303\251.mp3",
	};
	const char *pattern = patterns[next_random(lengthof(patterns))];
	const char *at = strstr(pattern, "%s");

	appendBinaryStringInfo(out, pattern, at - pattern);
	appendStringInfoString(out, solid);
	appendStringInfoString(out, at + 2);
}

static void
test_orphans(int format, int rounds)
{
	int			kept = 0;

	for (int round = 0; round < rounds; round++)
	{
		StringInfoData solid;
		StringInfoData path;
		StringInfoData look_alike;
		StringInfoData value;

		initStringInfo(&solid);
		initStringInfo(&path);
		initStringInfo(&look_alike);
		initStringInfo(&value);
		put_solid_name(&solid);
		appendStringInfo(&path, "2024/05/%s.mp3", solid.data);
		put_look_alike(&look_alike, solid.data);
		put_value(&value, format, look_alike.data, "another_one_of_them.mp3", random_size(round));
		if (key_compare(&rules, value.data, value.len, path.data) != KEY_NO_MATCH && kept++ < 3)
			diag("\"%s\" in: %s", path.data, show(value.data, value.len));
		pfree(solid.data);
		pfree(path.data);
		pfree(look_alike.data);
		pfree(value.data);
	}
	is(kept, 0, tap_text("orphans: %s", formats[format].title));
}

static void
count_key(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	uint64	  **found = arg;

	for (int i = 0; family == KEY_PATH && i < NAMES_MAX; i++)
		if (found[0][i] == key)
			found[1][i] = 1;
}

static void
note_path_key(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	*(uint64 *) arg = key;
}

/* Checks one value with very many names, all of which are names of files. */
static void
test_many_names(void)
{
	static uint64 keys[NAMES_MAX];
	static uint64 hits[NAMES_MAX];
	uint64	   *found[2] = {keys, hits};
	KeyScope	scope = {.keys_expected = 4 * NAMES_MAX};
	StringInfoData value;
	int			missed = 0;

	initStringInfo(&value);
	for (int i = 0; i < NAMES_MAX; i++)
	{
		char	   *name = psprintf("%d, take \"%d\".mp3", i * 7919 + 1000000, i);

		key_widen_scope(&rules, name, &scope);
		key_of_file(&rules, name, KEY_PATH, note_path_key, &keys[i]);
		appendStringInfoString(&value, i == 0 ? "[\"" : "\", \"");
		put_escaped(&value, name, "\"\\", '\\');
		pfree(name);
	}
	appendStringInfoString(&value, "\"]");
	key_of_reference(&rules, &scope, value.data, value.len, count_key, found);
	for (int i = 0; i < NAMES_MAX; i++)
		missed += hits[i] == 0;
	is(missed, 0, tap_text("a list of %d names keeps them all", NAMES_MAX));
	key_forget_scope(&scope);
	pfree(value.data);
}

static void
test_derived(void)
{
	static char *prefixes[] = {"thumb_", "preview_"};
	static char *folders[] = {"index.m3u8", "_hls"};
	static const struct
	{
		const char *reference;
		const char *file;
		KeyMatch	want;
	}			cases[] = {
		{"abc.mp3", "thumb_abc.mp3", KEY_STRICT_MATCH},
		{"abc", "d/preview_abc.wav", KEY_LOOSE_MATCH},
		{"d/abc.mp3", "d/preview_abc.wav", KEY_STRICT_MATCH},
		{"e/abc.mp3", "d/preview_abc.wav", KEY_NO_MATCH},
		{"abc.mp3", "thumbabc.mp3", KEY_NO_MATCH},
		{"abc.mp3", "small_abc.mp3", KEY_NO_MATCH},
		{"thumb_abc.mp3", "abc.mp3", KEY_NO_MATCH},
		{"[\"abc.mp3\"]", "thumb_abc.mp3", KEY_LOOSE_MATCH},
		{"live/abc/index.m3u8", "live/abc/seg1.ts", KEY_STRICT_MATCH},
		{"live/abc/index.m3u8", "live/abc/720p/seg1.ts", KEY_STRICT_MATCH},
		{"https://h/live/abc/index.m3u8?x=1", "abc/seg1.ts", KEY_STRICT_MATCH},
		{"live/abd/index.m3u8", "live/abc/seg1.ts", KEY_NO_MATCH},
		{"live/abc/other.m3u8", "live/abc/seg1.ts", KEY_NO_MATCH},
		{"live/abc/index.m3u8", "seg1.ts", KEY_NO_MATCH},
		{"abc", "abc/seg1.ts", KEY_STRICT_MATCH},
		{"abc.mp3", "abc/seg1.ts", KEY_STRICT_MATCH},
		{"live/abc.mp3", "live/abc/wave/1.json", KEY_STRICT_MATCH},
		{"abc.mp3", "live/abc/1.json", KEY_LOOSE_MATCH},
		{"abc.mp3", "abc_hls/seg1.ts", KEY_STRICT_MATCH},
		{"abc.mp3", "abc_dash/seg1.ts", KEY_NO_MATCH},
		{"ab", "abc/seg1.ts", KEY_NO_MATCH},
		{"see abc.", "abc/seg1.ts", KEY_LOOSE_MATCH},
		{"abc.wav", "thumb_abc.wav.mp3", KEY_STRICT_MATCH},
		{"live/abc.wav", "live/abc.wav/seg1.ts", KEY_STRICT_MATCH},
		{"live/abc.wav", "live/abc.wav_hls/seg1.ts", KEY_STRICT_MATCH},
		{"abc/take.wav", "abc_processed.mp3", KEY_NO_MATCH},
		{"the abc.wav-file", "abc_processed.mp3", KEY_LOOSE_MATCH},
		{"_abc.wav_", "abc_processed.mp3", KEY_LOOSE_MATCH},
		{"_abc.wav", "abc_processed.mp3", KEY_NO_MATCH},
		{"_abc.wav~", "abc_processed.mp3", KEY_NO_MATCH},
		{"abc.wav\343\201\257", "abc_processed.mp3", KEY_LOOSE_MATCH},
		{"abc.wav/..", "abc_processed.mp3", KEY_LOOSE_MATCH},
	};
	KeyRules	with = rules;

	is(key_compare(&with, "abc.mp3", 7, "thumb_abc.mp3"), KEY_NO_MATCH, "no prefix is set");
	is(key_compare(&with, "abc.mp3", 7, "abc/seg1.ts"), KEY_NO_MATCH, "no folder is set");
	with.n_prefixes = lengthof(prefixes);
	with.prefixes = prefixes;
	with.n_folders = lengthof(folders);
	with.folders = folders;
	for (int i = 0; i < lengthof(cases); i++)
		is(key_compare(&with, cases[i].reference, strlen(cases[i].reference), cases[i].file),
		   cases[i].want, tap_text("\"%s\" and \"%s\"", cases[i].reference, cases[i].file));
}

/* Writes some letters that may stand beside a name. */
static void
put_beside(StringInfo out)
{
	static const char *const letters[] = {
		"_", "-", "~", ".", "..", "/", "//", "\\", " ", "\"", "'", "(", ")", ",", "-file", "_x", "\303\251", "\343\201\257", ":",
		"%20", "%22", "&quot;", "\\n", "?", "#", "=", "+", "x", "7", ".bak", "/..", "./", "@", ";", "&", "\302\240",
		"\342\200\216", "\"'\"'\"",
	};

	for (int n = next_random(4); n > 0; n--)
		appendStringInfoString(out, letters[next_random(lengthof(letters))]);
}

/*
 * Checks that a value that keeps a file also keeps the files that are derived
 * from that file.
 */
static void
test_lives_with_original(int rounds)
{
	static char *prefixes[] = {"thumb_"};
	static char *folders[] = {"index.m3u8", "_hls"};
	static const char *const derived[] = {
		"%s%s_processed.mp3", "%s%s.%s_processed.mp3", "%sthumb_%s.mp3", "%sthumb_%s.%s.mp3",
		"%s%s_hls/1.mp3", "%s%s.%s_hls/1.mp3", "%s%s/1.mp3", "%s%s.%s/1.mp3",
	};
	KeyRules	with = rules;
	int			lost = 0;
	int			kept = 0;

	with.n_prefixes = lengthof(prefixes);
	with.prefixes = prefixes;
	with.n_folders = lengthof(folders);
	with.folders = folders;
	for (int round = 0; round < rounds; round++)
	{
		const char *folder = next_random(2) ? "d/e/" : "d/";
		const char *extension = extensions[next_random(lengthof(extensions))];
		StringInfoData stem;
		StringInfoData value;
		char	   *file;
		bool		is_kept;

		initStringInfo(&stem);
		initStringInfo(&value);
		put_name(&stem, "");
		*strrchr(stem.data, '.') = '\0';
		put_beside(&value);
		appendStringInfo(&value, "%s%s.%s", next_random(2) ? folder : "", stem.data, extension);
		put_beside(&value);
		file = psprintf("%s%s.%s", folder, stem.data, extension);
		is_kept = key_compare(&with, value.data, value.len, file) != KEY_NO_MATCH;
		kept += is_kept;
		for (int i = 0; is_kept && i < lengthof(derived); i++)
		{
			char		path[1024];

			snprintf(path, sizeof(path), derived[i], folder, stem.data, extension);
			if (key_compare(&with, value.data, value.len, path) == KEY_NO_MATCH && lost++ < 3)
				diag("\"%s\" in: %s", path, show(value.data, value.len));
		}
		pfree(stem.data);
		pfree(value.data);
		pfree(file);
	}
	is(lost, 0, tap_text("what is derived of files that are kept is kept"));
	ok(kept > rounds / 4, "many files are kept");
}

/*
 * Checks long runs of letters, each of which may belong to the letter before:
 * such runs are folded in pieces.
 */
static void
test_behind_runs(int rounds)
{
	static const char *const runs[] = {
		"\314\201", "\314\201\314\226", "a\314\201", "\341\236\200", "\341\200\200\341\200\255", "\340\246\225\340\246\276",
		"\341\204\222\341\205\241\341\206\253",
	};
	int			lost = 0;

	for (int round = 0; round < rounds; round++)
	{
		const char *run = runs[next_random(lengthof(runs))];
		StringInfoData path;
		StringInfoData value;
		int			n;

		initStringInfo(&path);
		initStringInfo(&value);
		for (n = 1 + next_random(3); n > 0; n--)
			appendStringInfo(&path, "%sx", runs[next_random(lengthof(runs))]);
		appendStringInfoString(&path, ".mp3");
		for (n = next_random(700); n > 0; n--)
			appendStringInfoString(&value, run);
		appendStringInfo(&value, " %s ", path.data);
		for (n = next_random(700); n > 0; n--)
			appendStringInfoString(&value, run);
		if (key_compare(&rules, value.data, value.len, path.data) == KEY_NO_MATCH && lost++ < 3)
			diag("\"%s\" in: %s", show(path.data, path.len), show(value.data, value.len));
		pfree(path.data);
		pfree(value.data);
	}
	is(lost, 0, "names between long runs of marks and letters are found");
}


/* ------------------------------------------------------------------- docs --- */

/* The table of docs/references.md. */
static char *
format_table(void)
{
	StringInfoData table;

	initStringInfo(&table);
	appendStringInfoString(&table, "| format | as in |\n|---|---|\n");
	for (int i = 0; i < lengthof(formats); i++)
	{
		StringInfoData example;
		StringInfoData cell;

		initStringInfo(&example);
		initStringInfo(&cell);
		put_format(&example, i, "Caf\303\251 #1, it's.mp3", "b.mp3");
		for (const char *p = example.data; *p != '\0'; p++)
			switch (*p)
			{
				case '\n':
					appendStringInfoString(&cell, "\342\217\216");
					break;
				case '\t':
					appendStringInfoString(&cell, "\342\207\245");
					break;
				case '\r':
					break;
				case '`':
					appendStringInfoString(&cell, "'");
					break;
				default:
					appendStringInfoChar(&cell, *p);
			}
		appendStringInfo(&table, "| %s | `%s` |\n", formats[i].title, cell.data);
		pfree(example.data);
		pfree(cell.data);
	}
	return table.data;
}

static void
test_docs(void)
{
	static char page[100 * 1024];
	char	   *table = format_table();
	FILE	   *file = fopen("../docs/references.md", "r");

	if (file == NULL)
		file = fopen("docs/references.md", "r");
	if (file == NULL)
	{
		skip("docs/references.md is not here");
		return;
	}
	page[fread(page, 1, sizeof(page) - 1, file)] = '\0';
	fclose(file);
	ok(strstr(page, table) != NULL, "docs/references.md has the table that --formats prints");
	pfree(table);
}

int
main(int argc, char **argv)
{
	const char *setting = getenv("UNIT_FILES");
	const char *seed = getenv("UNIT_SEED");
	int			rounds = setting ? Max(atoi(setting) / 20, 10) : 250;

	if (argc > 1 && strcmp(argv[1], "--formats") == 0)
	{
		fputs(format_table(), stdout);
		return 0;
	}
	tap_begin();
	alarm(900);
	if (seed != NULL && strtoull(seed, NULL, 10) != 0)
		random_state = strtoull(seed, NULL, 10);
	diag("UNIT_SEED=%llu", (unsigned long long) random_state);

	test_docs();
	test_derived();
	test_lives_with_original(20 * rounds);
	test_behind_runs(rounds);
	test_many_names();
	for (int format = 0; format < lengthof(formats); format++)
	{
		long_text = setting == NULL || (format + random_state) % 7 == 0 ? LONG_TEXT : LONGISH_TEXT;
		test_kept(format, rounds);
		test_among_escapes(format, Min(rounds, 25));
		test_orphans(format, rounds);
	}
	return tap_end();
}
