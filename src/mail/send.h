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
 * Send it, and wait for the outcome: a minute at most.  Interrupts are
 * served, and end it with their ERROR; anything else does not.  `from` is that
 * of the settings.  Touches no table; to be called without locks that others
 * may want.
 */
extern MailerResult *mailer_send(const MailSettings *settings, Message *message);

/* What is wrong with the file of the password?  NULL: nothing, or none is needed. */
extern const char *mailer_check_secret(const MailSettings *settings);

#endif							/* AUDIO_CLEANUP_MAILER_H */
