/*-------------------------------------------------------------------------
 *
 * mail/send.h
 *	  Sends one mail now, by the settings.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_MAILER_H
#define AUDIO_CLEANUP_MAILER_H

#include "src/mail/settings.h"
#include "src/mail/smtp.h"

/*
 * Sends `message` by `settings`, and waits for the outcome, a minute at most.
 * Sets the members `from` and `headers`.  Returns the result, allocated in the current memory
 * context; a failure to send is a result, not an ERROR.  Takes interrupts,
 * which end the call with an ERROR.  Does not need SPI and reads no table.
 * The caller should hold no lock that other processes may want.
 */
extern MailResult *mailer_send(const MailSettings *settings, Message *message);

/*
 * Returns why the password file of `settings` cannot be used, palloc'd, or
 * NULL if the file can be used, or if no user is set.  Does not need SPI.
 */
extern const char *mailer_check_secret(const MailSettings *settings);

#endif							/* AUDIO_CLEANUP_MAILER_H */
