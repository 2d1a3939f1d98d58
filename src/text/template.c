/*-------------------------------------------------------------------------
 *
 * text/template.c
 *	  Fills a template with values, and escapes every value.
 *
 * The templates are a part of those that mustache calls logic-less.  There is
 * no way to put a value in unescaped.  The templates are our own, so a
 * mistake in a template is an internal error.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "src/text/template.h"

/* The object or element of an array that a section has entered. */
typedef struct Scope
{
	JsonbValue *value;
	const struct Scope *outer;
} Scope;

/* The result, which is HTML in ASCII, or plain text in UTF-8. */
typedef struct Page
{
	StringInfoData text;
	bool		is_html;
} Page;

/* The text between {{ and }}. */
typedef struct Tag
{
	char		kind;			/* '#', '^', '/', or 0 for a value */
	const char *name;
	int			name_length;
	const char *format;			/* the text behind '|'; NULL: there is no
								 * format */
	int			format_length;
	const char *begin;			/* start of "{{" */
	const char *end;			/* end of "}}" */
} Tag;


/* ---------------------------------------------------------------- escaping --- */

/* Returns whether the character is invisible, or misleads a reader. */
static bool
is_invisible(pg_wchar c)
{
	return c < 0x20 || (c >= 0x7f && c <= 0xa0) || c == 0xad || c == 0x61c || c == 0x180e ||
		(c >= 0x2000 && c <= 0x200f) || (c >= 0x2028 && c <= 0x202f) ||
		(c >= 0x205f && c <= 0x206f) || c == 0x3000 || c == 0x3164 ||
		(c >= 0xe000 && c <= 0xf8ff) || (c >= 0xfe00 && c <= 0xfe0f) || c == 0xfeff ||
		(c >= 0xfff0 && c <= 0xfffc) || (c & 0xfffe) == 0xfffe || c >= 0xe0000;
}

static void
put_character(Page *page, pg_wchar c)
{
	StringInfo	out = &page->text;
	unsigned char utf8[4];

	if (page->is_html && (c < 0x80 ? strchr("&<>\"'", (int) c) != NULL : !is_invisible(c)))
		appendStringInfo(out, "&#%u;", c);
	else if (c == '\n')
		appendStringInfoString(out, "\\n");
	else if (c == '\t')
		appendStringInfoString(out, "\\t");
	else if (!is_invisible(c))
	{
		(void) unicode_to_utf8(c, utf8);
		appendBinaryStringInfo(out, (char *) utf8, pg_utf_mblen(utf8));
	}
	else if (c < 0x80)
		appendStringInfo(out, "\\x%02x", c);
	else if (c <= 0xffff)
		appendStringInfo(out, "\\u%04x", c);
	else
		appendStringInfo(out, "\\U%08x", c);
}

/*
 * Writes a text, escaped.  In a database of encoding SQL_ASCII the bytes may
 * be anything: bytes that are not UTF-8 are written as \xNN.
 */
static void
put_text(Page *page, const char *text, int length)
{
	char	   *copy = pnstrdup(text, length);
	const char *utf8 = GetDatabaseEncoding() == PG_SQL_ASCII ? copy :
	pg_server_to_any(copy, length, PG_UTF8);
	const unsigned char *s = (const unsigned char *) utf8;
	int			left = strlen(utf8);

	while (left > 0)
	{
		int			n = pg_encoding_verifymbchar(PG_UTF8, (const char *) s, left);

		if (n > 0)
			put_character(page, utf8_to_unicode(s));
		else
			appendStringInfo(&page->text, "\\x%02x", *s);
		n = Max(n, 1);
		s += n;
		left -= n;
	}
	pfree(copy);
}


/* -------------------------------------------------------------- formatting --- */

/*
 * Writes a size with at least two digits, and without zeros that say nothing:
 * 512 B, 3.1 GiB, 4 GiB, 250 MiB.
 */
static void
put_size(StringInfo out, double bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	int			unit = 0;

	while (bytes >= 1023.5 && unit < lengthof(units) - 1)
	{
		bytes /= 1024;
		unit++;
	}
	bytes = bytes < 9.95 ? rint(bytes * 10) / 10 : rint(bytes);
	appendStringInfo(out, "%.*f %s", bytes == rint(bytes) ? 0 : 1, bytes, units[unit]);
}

/*
 * Writes a number of large units, and the number of small units unless this
 * number is zero.
 */
static void
put_parts(StringInfo out, int64 large, const char *large_unit, int64 small, const char *small_unit)
{
	appendStringInfo(out, "%lld %s", (long long) large, large_unit);
	if (small != 0)
		appendStringInfo(out, " %lld %s", (long long) small, small_unit);
}

static void
put_duration(StringInfo out, double seconds)
{
	int64		whole = (int64) rint(seconds);

	if (seconds < 0.9995)
		appendStringInfo(out, "%.0f ms", seconds * 1000);
	else if (seconds < 59.95)
		appendStringInfo(out, "%.1f s", seconds);
	else if (whole < 3600)
		put_parts(out, whole / 60, "min", whole % 60, "s");
	else if (whole < 2 * 86400)
		put_parts(out, whole / 3600, "h", whole % 3600 / 60, "min");
	else
		appendStringInfo(out, "%lld days", (long long) (whole / 86400));
}

static bool
is_format(const Tag *tag, const char *format)
{
	return tag->format_length == strlen(format) &&
		strncmp(tag->format, format, tag->format_length) == 0;
}

static void
put_number(StringInfo out, Numeric number, const Tag *tag)
{
	double		value = DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(number)));

	if (tag->format == NULL)
		appendStringInfoString(out, DatumGetCString(DirectFunctionCall1(numeric_out,
																		NumericGetDatum(number))));
	else if (is_format(tag, "count"))
		appendStringInfoString(out, TextDatumGetCString(DirectFunctionCall2(numeric_to_char, NumericGetDatum(number),
																			CStringGetTextDatum("FM999,999,999,999,999,999,990"))));
	else if (is_format(tag, "size"))
		put_size(out, value);
	else if (is_format(tag, "duration"))
		put_duration(out, value);
	else if (is_format(tag, "s"))
		appendStringInfoString(out, value == 1 ? "" : "s");
	else
		elog(ERROR, "template: unknown format \"%.*s\"", tag->format_length, tag->format);
}


/* ------------------------------------------------------------------ values --- */

/*
 * Returns the value of the tag in the innermost scope that has a member of
 * that name, or NULL if no scope has such a member.
 */
static JsonbValue *
find_value(const Scope *scope, const Tag *tag)
{
	if (tag->name_length == 1 && tag->name[0] == '.')
		return scope->value;
	for (; scope != NULL; scope = scope->outer)
	{
		JsonbValue *found = NULL;

		if (scope->value->type == jbvBinary &&
			JsonContainerIsObject(scope->value->val.binary.data))
			found = getKeyJsonValueFromContainer(scope->value->val.binary.data, tag->name,
												 tag->name_length, NULL);
		if (found != NULL)
			return found;
	}
	return NULL;
}

static void
put_value(Page *page, const Scope *scope, const Tag *tag)
{
	const JsonbValue *value = find_value(scope, tag);

	if (value == NULL || value->type == jbvBinary)
		elog(ERROR, "template: no value is called \"%.*s\"", tag->name_length, tag->name);
	else if (value->type == jbvString)
		put_text(page, value->val.string.val, value->val.string.len);
	else if (value->type == jbvNumeric)
		put_number(&page->text, value->val.numeric, tag);
	else if (value->type == jbvBool)
		appendStringInfoString(&page->text, value->val.boolean ? "true" : "false");
}

static bool
is_empty(const JsonbValue *value)
{
	if (value == NULL || value->type == jbvNull)
		return true;
	if (value->type == jbvBool)
		return !value->val.boolean;
	if (value->type == jbvString)
		return value->val.string.len == 0;
	if (value->type == jbvNumeric)
		return DatumGetFloat8(DirectFunctionCall1(numeric_float8,
												  NumericGetDatum(value->val.numeric))) == 0;
	return JsonContainerSize(value->val.binary.data) == 0;
}


/* ---------------------------------------------------------------- sections --- */

/* Finds the next tag.  A tag of a section includes the end of its line. */
static bool
next_tag(const char *at, Tag *tag)
{
	const char *close;
	const char *bar;

	memset(tag, 0, sizeof(*tag));
	tag->begin = strstr(at, "{{");
	if (tag->begin == NULL)
		return false;
	tag->name = tag->begin + 2;
	close = strstr(tag->name, "}}");
	if (close == NULL)
		elog(ERROR, "template: \"%.20s\" has no end", tag->begin);
	tag->end = close + 2;
	if (strchr("#^/", tag->name[0]) != NULL)
	{
		tag->kind = *tag->name++;
		tag->end += *tag->end == '\n';
	}
	bar = memchr(tag->name, '|', close - tag->name);
	tag->name_length = (bar ? bar : close) - tag->name;
	tag->format = bar ? bar + 1 : NULL;
	tag->format_length = bar ? close - tag->format : 0;
	return true;
}

static const char *fill(Page *page, const char *at, const Scope *scope, const Tag *section);

/* Fills a section, as often as its value says.  Returns what stands behind the section. */
static const char *
fill_section(Page *page, const Scope *scope, const Tag *section)
{
	JsonbValue *value = scope != NULL ? find_value(scope, section) : NULL;
	Scope		inner = {value, scope};
	const char *behind = NULL;

	if (scope == NULL || is_empty(value) != (section->kind == '^'))
		return fill(page, section->end, NULL, section);
	if (section->kind == '^' || value == NULL || value->type != jbvBinary)
		return fill(page, section->end, scope, section);
	if (!JsonContainerIsArray(value->val.binary.data))
		return fill(page, section->end, &inner, section);
	for (uint32 i = 0; i < JsonContainerSize(value->val.binary.data); i++)
	{
		CHECK_FOR_INTERRUPTS();
		inner.value = getIthJsonbValueFromContainer(value->val.binary.data, i);
		behind = fill(page, section->end, &inner, section);
	}
	return behind;
}

/*
 * Fills what stands from `at` to the end of the section, or, if `section` is
 * NULL, to the end of the template.  Without `scope` passes over the section.
 * Returns what stands behind the section.
 */
static const char *
fill(Page *page, const char *at, const Scope *scope, const Tag *section)
{
	Tag			tag;

	while (next_tag(at, &tag))
	{
		if (scope != NULL)
			appendBinaryStringInfo(&page->text, at, tag.begin - at);
		at = tag.end;
		if (tag.kind == '/')
		{
			if (section == NULL || section->name_length != tag.name_length ||
				strncmp(section->name, tag.name, tag.name_length) != 0)
				elog(ERROR, "template: section \"%.*s\" has no beginning", tag.name_length, tag.name);
			return at;
		}
		if (tag.kind != 0)
			at = fill_section(page, scope, &tag);
		else if (scope != NULL)
			put_value(page, scope, &tag);
	}
	if (section != NULL)
		elog(ERROR, "template: section \"%.*s\" has no end", section->name_length, section->name);
	appendStringInfoString(&page->text, at);
	return NULL;
}

char *
template_fill(const char *template, Jsonb *values, bool is_html)
{
	JsonbValue	root;
	Scope		scope = {&root, NULL};
	Page		page;

	root.type = jbvBinary;
	root.val.binary.data = &values->root;
	root.val.binary.len = VARSIZE(values) - VARHDRSZ;
	page.is_html = is_html;
	initStringInfo(&page.text);
	(void) fill(&page, template, &scope, NULL);
	return page.text.data;
}
