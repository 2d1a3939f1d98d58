/*-------------------------------------------------------------------------
 *
 * mail/message.c
 *	  A mail as it goes over the wire: RFC 5322 and MIME.
 *
 * Names of files and texts of errors are in it, which anybody may have made
 * up.  So nothing of it can be anything but text: a header is one line of
 * printable ASCII, encoded (RFC 2047) where it was not; a part is
 * quoted-printable, in which "=_" cannot come up, with which the boundary
 * begins, nor a line that is too long or begins with a dot.
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

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "src/mail/message.h"

#define BOUNDARY		"=_audio_cleanup"

#define LINE_MAX_OF_PARTS	76	/* RFC 2045 */
#define LINE_MAX_OF_HEADERS	76	/* RFC 2047 */
#define WORD_MAX			75	/* an encoded word */
#define WORD_BEGIN			"=?UTF-8?Q?"
#define WORD_END			"?="

/* RFC 5321 */
#define ADDRESS_MAX			254
#define LOCAL_PART_MAX		64

static const char hex_digits[] = "0123456789ABCDEF";


/* --------------------------------------------------------------- addresses --- */

static bool
is_alphanumeric(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* Words of these characters with a dot between each two. */
static bool
is_dotted(const char *s, size_t length, const char *others)
{
	bool		after_dot = true;
	size_t		i;

	for (i = 0; i < length; i++)
	{
		if (s[i] == '.' ? after_dot : !is_alphanumeric(s[i]) && strchr(others, s[i]) == NULL)
			return false;
		after_dot = s[i] == '.';
	}
	return !after_dot;
}

bool
message_is_address(const char *address)
{
	const char *at = strrchr(address, '@');

	return at != NULL && at - address <= LOCAL_PART_MAX && strlen(address) <= ADDRESS_MAX &&
		is_dotted(address, at - address, "!#$%&'*+-/=?^_`{|}~") &&
		is_dotted(at + 1, strlen(at + 1), "-");
}


/* ----------------------------------------------------------------- headers --- */

/* Bytes of the next character; 1 for what is no UTF-8, and *valid is false. */
static int
character_length(const char *s, bool *valid)
{
	int			length = pg_utf_mblen((const unsigned char *) s);

	*valid = strnlen(s, length) == length && pg_utf8_islegal((const unsigned char *) s, length);
	return *valid ? length : 1;
}

/* Returns whether the text may stand in a header as it is; spaces at its ends would be lost. */
static bool
is_plain(const char *text)
{
	if (*text == ' ' || (*text != '\0' && text[strlen(text) - 1] == ' '))
		return false;
	for (; *text != '\0'; text++)
		if (*text < 0x20 || *text > 0x7e)
			return false;
	return true;
}

/* A character within an encoded word. */
static void
put_in_word(StringInfo out, const char *s, int length)
{
	for (int i = 0; i < length; i++)
	{
		unsigned char c = s[i];

		if (is_alphanumeric(c) || c == '-' || c == '/')
			appendStringInfoChar(out, c);
		else if (c == ' ')
			appendStringInfoChar(out, '_');
		else
			appendStringInfo(out, "=%c%c", hex_digits[c >> 4], hex_digits[c & 15]);
	}
}

/* Encoded words, none longer than allowed, none ending within a character. */
static void
put_encoded(StringInfo out, const char *text, int column)
{
	int			room = Min(WORD_MAX, LINE_MAX_OF_HEADERS - column) - (int) strlen(WORD_END);
	StringInfoData word;

	initStringInfo(&word);
	appendStringInfoString(&word, WORD_BEGIN);
	while (*text != '\0')
	{
		bool		valid;
		int			length = character_length(text, &valid);
		int			before = word.len;

		put_in_word(&word, valid && (length > 1 || (*text >= 0x20 && *text != 0x7f)) ? text : "?", length);
		if (word.len > room)
		{
			word.data[before] = '\0';
			appendStringInfo(out, "%s" WORD_END "\r\n ", word.data);
			resetStringInfo(&word);
			appendStringInfoString(&word, WORD_BEGIN);
			room = WORD_MAX - strlen(WORD_END);
			continue;
		}
		text += length;
	}
	appendStringInfo(out, "%s" WORD_END, word.data);
	pfree(word.data);
}

static void
put_text_header(StringInfo out, const char *name, const char *text)
{
	int			column = strlen(name) + 2;

	appendStringInfo(out, "%s: ", name);
	if (is_plain(text) && strstr(text, "=?") == NULL &&
		column + strlen(text) <= LINE_MAX_OF_HEADERS)
		appendStringInfoString(out, text);
	else
		put_encoded(out, text, column);
	appendStringInfoString(out, "\r\n");
}

static void
put_recipients(StringInfo out, const char *const *to, int n_to)
{
	for (int i = 0; i < n_to; i++)
		appendStringInfo(out, "%s%s", i == 0 ? "To: " : ",\r\n ", to[i]);
	appendStringInfoString(out, "\r\n");
}

static void
put_headers(StringInfo out, const Message *message)
{
	appendStringInfo(out, "Date: %s\r\nFrom: audio_cleanup <%s>\r\n", message->date, message->from);
	put_recipients(out, message->to, message->n_to);
	appendStringInfo(out, "Message-ID: <%s>\r\n", message->id);
	put_text_header(out, "Subject", message->subject);
	/* or an absence note would answer us (RFC 3834) */
	appendStringInfoString(out, "Auto-Submitted: auto-generated\r\n"
						   "MIME-Version: 1.0\r\n"
						   "Content-Type: multipart/alternative; boundary=\"" BOUNDARY "\"\r\n");
}


/* ------------------------------------------------------------------- parts --- */

/*
 * Returns whether the character at `s` may stand as it is: a blank at the end
 * of a line, or a dot at its beginning, might be lost on the way.
 */
static bool
may_stand(const char *s, int column)
{
	char		c = *s;

	if (c == ' ' || c == '\t')
		return s[1] != '\n' && s[1] != '\0';
	if (c == '.')
		return column > 0;
	return c >= 0x21 && c <= 0x7e && c != '=';
}

static void
put_quoted_printable(StringInfo out, const char *text)
{
	int			column = 0;

	for (; *text != '\0'; text++)
	{
		bool		plain = may_stand(text, column);
		unsigned char c = *text;

		if (c == '\n')
		{
			appendStringInfoString(out, "\r\n");
			column = 0;
			continue;
		}
		/* there must be room for the "=" of a soft line break */
		if (column + (plain ? 1 : 3) > LINE_MAX_OF_PARTS - 1)
		{
			appendStringInfoString(out, "=\r\n");
			column = 0;
			plain = may_stand(text, column);
		}
		if (plain)
			appendStringInfoChar(out, c);
		else
			appendStringInfo(out, "=%c%c", hex_digits[c >> 4], hex_digits[c & 15]);
		column += plain ? 1 : 3;
	}
}

static void
put_part(StringInfo out, const char *type, const char *text)
{
	appendStringInfo(out, "\r\n--" BOUNDARY "\r\n"
					 "Content-Type: %s; charset=utf-8\r\n"
					 "Content-Transfer-Encoding: quoted-printable\r\n\r\n", type);
	put_quoted_printable(out, text);
}

char *
message_build(const Message *message, size_t *length)
{
	StringInfoData out;

	initStringInfo(&out);
	put_headers(&out, message);
	put_part(&out, "text/plain", message->text);
	put_part(&out, "text/html", message->html);
	appendStringInfoString(&out, "\r\n--" BOUNDARY "--\r\n");
	*length = out.len;
	return out.data;
}
