/*-------------------------------------------------------------------------
 *
 * mail/message.h
 *	  A mail as it goes over the wire: RFC 5322 and MIME.
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
 * Returns the whole message, palloc'd, its lines ending with CRLF; sets
 * *length.  Nothing in `subject`, `text` and `html` adds a header or a part.
 * `from`, `to` and `id` must have been checked before.
 */
extern char *message_build(const Message *message, size_t *length);

/*
 * Returns whether `address` is local@domain in plain ASCII, harmless in a
 * header and in an envelope.
 */
extern bool message_is_address(const char *address);

#endif							/* AUDIO_CLEANUP_MESSAGE_H */
