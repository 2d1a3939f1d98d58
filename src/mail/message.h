/*-------------------------------------------------------------------------
 *
 * mail/message.h
 *	  What a mail says, and its headers: RFC 5322.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_MESSAGE_H
#define AUDIO_CLEANUP_MESSAGE_H

typedef struct Message
{
	const char *from;			/* an address */
	const char *const *to;		/* addresses */
	int			n_to;
	const char *id;				/* of Message-ID, without brackets: ASCII
								 * without spaces */
	const char *date;			/* as RFC 5322 writes it */
	const char *subject;		/* UTF-8, a line */
	const char *text;			/* UTF-8, lines end with \n */
	const char *html;			/* the text as a page of HTML */
} Message;

/*
 * Returns the headers of the message, all but those of MIME, palloc'd, with a
 * NULL behind the last: "Name: value" each, folded by CRLF and a space where a
 * line would be too long.  Nothing in `subject` adds a header.  `from`, `to`
 * and `id` must have been checked before.
 */
extern const char **message_headers(const Message *message);

/*
 * Returns whether `address` is local@domain in plain ASCII, harmless in a
 * header and in an envelope.
 */
extern bool message_is_address(const char *address);

#endif							/* AUDIO_CLEANUP_MESSAGE_H */
