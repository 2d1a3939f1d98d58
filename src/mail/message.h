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
	const char *html;			/* the same for those who like it */
} Message;

/*
 * The whole message, its lines ending with CRLF, palloc'd; sets *length.
 * Whatever is in `subject`, `text` and `html`, it adds no header and no part.
 * `from`, `to` and `id` must have been looked at before.
 */
extern char *message_build(const Message *message, size_t *length);

/* Is it local@domain, plain ASCII, harmless in a header and in an envelope? */
extern bool message_is_address(const char *address);

#endif							/* AUDIO_CLEANUP_MESSAGE_H */
