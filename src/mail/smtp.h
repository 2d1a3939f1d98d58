/*-------------------------------------------------------------------------
 *
 * mail/smtp.h
 *	  Hands a mail to an SMTP server, by libcurl, in steps.
 *
 * The functions are the interface of the library audio_cleanup_mail (see
 * audio_cleanup_mail.c), which is loaded when a mail is to be sent.  No other
 * library is linked with these functions: the function MAIL_FUNCTION of the
 * library returns a table of the functions.  No function raises an ERROR,
 * allocates by palloc, or needs SPI.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SMTP_H
#define AUDIO_CLEANUP_SMTP_H

#include "src/mail/message.h"

typedef struct MailServer
{
	const char *url;			/* smtp://host:port or smtps://host:port */
	bool		tls;			/* with smtp://, STARTTLS is required; without
								 * `tls` the connection is plain, and `user`
								 * must be NULL */
	const char *user;			/* NULL: no authentication */
	const char *password;
	const char *ca_file;		/* NULL: the system's certificates */
	int			connect_seconds;
	int			total_seconds;
} MailServer;

typedef enum MailOutcome
{
	MAIL_SENT,					/* sent to all recipients that were not
								 * refused */
	MAIL_REFUSED,				/* the server did not accept the mail */
	MAIL_UNREACHABLE			/* the server was not reached */
} MailOutcome;

#define MAIL_ERROR_SIZE		512

typedef struct MailResult
{
	MailOutcome outcome;
	char		error[MAIL_ERROR_SIZE]; /* printable ASCII; "": there is no
										 * error */
	bool	   *refused;		/* for each element of `to`, whether it was
								 * refused */
} MailResult;

typedef struct Mail Mail;

/*
 * Begins to send `message`, by its sender, recipients, headers and texts, to
 * `server`.  `message` and `server` must last until mail_end().  is_stopped() tells whether to give up; libcurl calls
 * is_stopped() at least once a second while libcurl itself waits.  libcurl may
 * hold locks at that time, so is_stopped() should read flags only.  Returns
 * NULL if there is no memory, or if a password would be sent in the clear.
 * The process must ignore SIGPIPE.
 */
extern Mail *mail_begin(const MailServer *server, const Message *message, bool (*is_stopped) (void));

/*
 * mail_step() works on the mail for about `ms` milliseconds, or until a signal
 * comes.  mail_step() returns false when the work is over.  Then mail_result()
 * returns the result, which is valid until mail_end().
 */
extern bool mail_step(Mail *mail, int ms);
extern const MailResult *mail_result(const Mail *mail);

/* Ends the work at any time, and frees the mail.  A mail that is not sent yet is never sent. */
extern void mail_end(Mail *mail);

typedef struct MailLibrary
{
	Mail	   *(*begin) (const MailServer *server, const Message *message, bool (*is_stopped) (void));
	bool		(*step) (Mail *mail, int ms);
	const MailResult *(*result) (const Mail *mail);
	void		(*end) (Mail *mail);
} MailLibrary;

#define MAIL_LIBRARY	"audio_cleanup_mail"
#define MAIL_FUNCTION	"audio_cleanup_mail_library_1_1"

#endif							/* AUDIO_CLEANUP_SMTP_H */
