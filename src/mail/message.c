/*-------------------------------------------------------------------------
 *
 * mail/message.c
 *	  The headers of a mail: RFC 5322.
 *
 * A subject may hold names and texts that anybody has made up.  A header is
 * printable ASCII, encoded (RFC 2047) where the text was not, so that no text
 * can begin another header.  The parts of a mail are MIME, which libcurl
 * makes: see smtp.c.
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

static char *
make_text_header(const char *name, const char *text)
{
	int			column = strlen(name) + 2;
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfo(&out, "%s: ", name);
	if (is_plain(text) && strstr(text, "=?") == NULL &&
		column + strlen(text) <= LINE_MAX_OF_HEADERS)
		appendStringInfoString(&out, text);
	else
		put_encoded(&out, text, column);
	return out.data;
}

static char *
make_recipients(const char *const *to, int n_to)
{
	StringInfoData out;

	initStringInfo(&out);
	for (int i = 0; i < n_to; i++)
		appendStringInfo(&out, "%s%s", i == 0 ? "To: " : ",\r\n ", to[i]);
	return out.data;
}

const char **
message_headers(const Message *message)
{
	const char *headers[] = {
		psprintf("Date: %s", message->date),
		psprintf("From: audio_cleanup <%s>", message->from),
		make_recipients(message->to, message->n_to),
		psprintf("Message-ID: <%s>", message->id),
		make_text_header("Subject", message->subject),
		/* or an absence note would answer us (RFC 3834) */
		"Auto-Submitted: auto-generated",
		NULL
	};

	return memcpy(palloc(sizeof(headers)), headers, sizeof(headers));
}
