/*-------------------------------------------------------------------------
 *
 * mail/smtp.h
 *	  Handing a mail to an SMTP server, by libcurl, in steps.
 *
 * This is the interface of a library of its own, audio_cleanup_mail (see
 * audio_cleanup_mail.c), which is loaded when it is needed; nothing is linked
 * with these functions: mail_library() hands them out.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_MAIL_H
#define AUDIO_CLEANUP_MAIL_H

typedef struct MailServer
{
	const char *url;			/* smtp://host:port or smtps://host:port */
	bool		tls;			/* smtp:// must be upgraded by STARTTLS; else
								 * it is plain, and `user` must be NULL */
	const char *user;			/* NULL: no authentication */
	const char *password;
	const char *ca_file;		/* NULL: the system's certificates */
	int			connect_seconds;
	int			total_seconds;
} MailServer;

typedef struct MailItem
{
	const char *from;
	const char *const *to;
	int			n_to;
	const char *const *headers; /* see message_headers() */
	const char *text;			/* UTF-8, lines end with \n */
	const char *html;			/* the text as a page of HTML */
} MailItem;

typedef enum MailOutcome
{
	MAIL_SENT,					/* to those who were not refused */
	MAIL_REFUSED,				/* the server wants not this mail */
	MAIL_UNREACHABLE			/* the server has not seen the mail */
} MailOutcome;

#define MAIL_ERROR_SIZE		512

typedef struct MailResult
{
	MailOutcome outcome;
	char		error[MAIL_ERROR_SIZE]; /* printable ASCII; empty: none */
	bool	   *refused;		/* of each of `to` */
} MailResult;

typedef struct Mail Mail;

/*
 * Begin.  `server` and `item` must last until the end.  `is_stopped` is asked
 * at least once a second where libcurl itself waits; it may be called with
 * any locks held by libcurl, and should look at flags only.  NULL: no memory.
 * The process must ignore SIGPIPE.
 */
extern Mail *mail_begin(const MailServer *server, const MailItem *item, bool (*is_stopped) (void));

/*
 * Works on the mail, for about `ms` milliseconds or until a signal comes.
 * Returns false when the work is over; then there is a result, until
 * mail_end().
 */
extern bool mail_step(Mail *mail, int ms);
extern const MailResult *mail_result(const Mail *mail);

/* Frees the mail, at any time; a mail that is not sent yet is not sent. */
extern void mail_end(Mail *mail);

typedef struct MailLibrary
{
	Mail	   *(*begin) (const MailServer *server, const MailItem *item, bool (*is_stopped) (void));
	bool		(*step) (Mail *mail, int ms);
	const MailResult *(*result) (const Mail *mail);
	void		(*end) (Mail *mail);
} MailLibrary;

#define MAIL_LIBRARY	"audio_cleanup_mail"
#define MAIL_FUNCTION	"audio_cleanup_mail_library"

#endif							/* AUDIO_CLEANUP_MAIL_H */
