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

#include "common/base64.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "src/mail/message.h"

/*
 * bytes of text in an encoded word: RFC 2047 limits the word to 75 characters,
 * and its line to 76
 */
#define WORD_BYTES			36
#define WORD_SIZE			(WORD_BYTES / 3 * 4 + 1)

/* longest subject that is not encoded */
#define PLAIN_MAX			900

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
 * Returns whether the text may be a header without encoding.  Spaces at its
 * ends would be lost, and a long line may be refused (RFC 5322).
 */
static bool
is_plain_header(const char *text)
{
	size_t		length = strlen(text);

	if (length > PLAIN_MAX || strstr(text, "=?") != NULL || *text == ' ' || (length > 0 && text[length - 1] == ' '))
		return false;
	for (; *text != '\0'; text++)
		if (*text < 0x20 || *text > 0x7e)
			return false;
	return true;
}

/* Returns the number of bytes of an encoded word, which does not end within a character. */
static int
word_length(const char *text)
{
	int			length = 0;

	while (text[length] != '\0')
	{
		int			next = strnlen(text + length, pg_utf_mblen((const unsigned char *) text + length));

		if (length + next > WORD_BYTES)
			break;
		length += next;
	}
	return length;
}

static char *
make_subject(const char *text)
{
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoString(&out, "Subject: ");
	if (is_plain_header(text))
		appendStringInfoString(&out, text);
	else
		for (int length; *text != '\0'; text += length)
		{
			char		word[WORD_SIZE];

			length = word_length(text);
			word[pg_b64_encode((const void *) text, length, word, sizeof(word) - 1)] = '\0';
			appendStringInfo(&out, "%s=?UTF-8?B?%s?=", out.data[out.len - 1] == '=' ? "\r\n " : "", word);
		}
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
