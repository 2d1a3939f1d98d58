/*-------------------------------------------------------------------------
 *
 * mail/message.c
 *	  The headers of a mail: RFC 5322.
 *
 * A subject may hold names and texts of anybody.  A header is printable ASCII.
 * Any other text is encoded (RFC 2047), so that no text can begin another
 * header.  libcurl makes the MIME parts of a mail: see smtp.c.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "src/pg/base.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "src/mail/message.h"

#define LINE_MAX_OF_HEADERS	76	/* limit of RFC 2047 */
#define WORD_MAX			75	/* limit of an encoded word */
#define WORD_BEGIN			"=?UTF-8?Q?"
#define WORD_END			"?="

/* limits of RFC 5321 */
#define ADDRESS_MAX			254
#define LOCAL_PART_MAX		64


/* --------------------------------------------------------------- addresses --- */

static bool
is_alphanumeric(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/*
 * Returns whether the text consists of words with one dot between each two.
 * A word has letters, digits and `others`.
 */
static bool
is_dotted(const char *s, size_t length, const char *others)
{
	bool		after_dot = true;

	for (size_t i = 0; i < length; i++)
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

/*
 * Returns the number of bytes of the next character.  For a byte that is not
 * UTF-8, returns 1 and sets *valid to false.
 */
static int
character_length(const char *s, bool *valid)
{
	int			length = pg_utf_mblen((const unsigned char *) s);

	*valid = strnlen(s, length) == length && pg_utf8_islegal((const unsigned char *) s, length);
	return *valid ? length : 1;
}

/* Returns whether the text may be a header without encoding.  Spaces at its ends would be lost. */
static bool
is_plain_header(const char *text)
{
	if (*text == ' ' || (*text != '\0' && text[strlen(text) - 1] == ' '))
		return false;
	for (; *text != '\0'; text++)
		if (*text < 0x20 || *text > 0x7e)
			return false;
	return true;
}

/* Writes a character within an encoded word. */
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
			appendStringInfo(out, "=%02X", c);
	}
}

/*
 * Writes encoded words.  No word is longer than RFC 2047 allows, and no word
 * ends within a character.
 */
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
make_subject(const char *text)
{
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoString(&out, "Subject: ");
	if (is_plain_header(text) && strstr(text, "=?") == NULL && out.len + strlen(text) <= LINE_MAX_OF_HEADERS)
		appendStringInfoString(&out, text);
	else
		put_encoded(&out, text, out.len);
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
		make_subject(message->subject),

		/*
		 * without this header, an absence note would answer the mail (RFC
		 * 3834)
		 */
		"Auto-Submitted: auto-generated",
		NULL
	};

	return memcpy(palloc(sizeof(headers)), headers, sizeof(headers));
}
