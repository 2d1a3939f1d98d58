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
#include "src/mail/settings.h"

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
	const char *error;			/* text in the database's encoding, or NULL */
	bool	   *refused;		/* for each element of `to`, whether it was
								 * refused; NULL if nothing was sent */
	char		said[MAIL_ERROR_SIZE];	/* has the `error` of mail_step(), in
										 * printable ASCII */
} MailResult;

typedef struct Mail Mail;

/*
 * Begins to send `message`, by its sender, recipients, headers and texts, to
 * the server of `settings`, with `password` if they have a user.  The result
 * goes to `result`, whose `refused` the caller has set to an array of false.
 * All arguments must last until mail_end().  is_stopped() tells whether to give up; libcurl calls
 * is_stopped() at least once a second while libcurl itself waits.  libcurl may
 * hold locks at that time, so is_stopped() should read flags only.  Returns
 * NULL if there is no memory, or if a password would be sent in the clear.
 * The process must ignore SIGPIPE.
 */
extern Mail *mail_begin(const MailSettings *settings, const char *password, const Message *message,
						bool (*is_stopped) (void), MailResult *result);

/*
 * Works on the mail for about `ms` milliseconds, or until a signal comes.
 * Returns false when the work is over, and the result is set.
 */
extern bool mail_step(Mail *mail, int ms);

/* Ends the work at any time, and frees the mail.  A mail that is not sent yet is never sent. */
extern void mail_end(Mail *mail);

typedef struct MailLibrary
{
	Mail	   *(*begin) (const MailSettings *settings, const char *password, const Message *message,
						  bool (*is_stopped) (void), MailResult *result);
	bool		(*step) (Mail *mail, int ms);
	void		(*end) (Mail *mail);
} MailLibrary;

#define MAIL_LIBRARY	"audio_cleanup_mail"
#define MAIL_FUNCTION	"audio_cleanup_mail_library_1_1"

#endif							/* AUDIO_CLEANUP_SMTP_H */
