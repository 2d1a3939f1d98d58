/*-------------------------------------------------------------------------
 *
 * mail/send.h
 *	  Sending one mail now, by the settings.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_MAILER_H
#define AUDIO_CLEANUP_MAILER_H

#include "src/mail/settings.h"
#include "src/mail/smtp.h"
#include "src/mail/message.h"

typedef struct MailerResult
{
	MailOutcome outcome;
	const char *error;			/* in the database's encoding; NULL: none */
	const bool *refused;		/* of each recipient; NULL: none */
} MailerResult;

/*
 * Sends the message, and waits for the outcome, a minute at most.  Interrupts
 * are served, and end the call with their ERROR; a failure to send is a
 * result.  Sets `from` by the settings.  Touches no table; the caller should
 * hold no lock that others may want.
 */
extern MailerResult *mailer_send(const MailSettings *settings, Message *message);

/* Returns why the password file cannot be used, NULL if it can or if no user is set. */
extern const char *mailer_check_secret(const MailSettings *settings);

#endif							/* AUDIO_CLEANUP_MAILER_H */
