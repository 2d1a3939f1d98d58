/*-------------------------------------------------------------------------
 *
 * mail/message.h
 *	  The headers of a mail: RFC 5322.
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
	const char *id;				/* Message-ID without brackets: ASCII without
								 * spaces */
	const char *date;			/* date in the format of RFC 5322 */
	const char *subject;		/* one line of UTF-8 */
	const char *text;			/* lines of UTF-8, each with \n at its end */
	const char *html;			/* the text as a page of HTML */
	const char *const *headers; /* see message_headers() */
} Message;

/*
 * Returns the headers of `message`, except the headers of MIME, palloc'd, as
 * an array that ends with NULL.  Each header is "Name: value"; a long header
 * is folded by CRLF and a space.  Nothing in the subject can add a header.
 * The caller must have checked `from`, `to` and `id`.  Does not need SPI.
 */
extern const char **message_headers(const Message *message);

/*
 * Returns whether `address` is local@domain in plain ASCII, which is harmless
 * in a header and in an envelope.  Never raises an ERROR; does not need SPI.
 */
extern bool message_is_address(const char *address);

#endif							/* AUDIO_CLEANUP_MESSAGE_H */
