/*-------------------------------------------------------------------------
 *
 * mail/compose.h
 *	  Composes the mail about a run.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_MAIL_REPORT_H
#define AUDIO_CLEANUP_MAIL_REPORT_H

#include "src/mail/outbox.h"
#include "src/mail/send.h"
#include "src/pg/extension.h"

/*
 * Returns the mail about the run of `mail`, to the recipients that lack it,
 * allocated in the current memory context.  The member `from` is not set.
 * Returns NULL if the run is not known any more.  Needs SPI; any failure is
 * an ERROR.
 */
extern Message *mail_report_make(const Extension *extension, const OutboxMail *mail,
								 const MailSettings *settings);

/*
 * Sends the mail of cleanup_send_test_mail() now, to all recipients.  Waits
 * for the mail server, a minute at most.  Returns a text for the caller,
 * palloc'd.  Raises an ERROR if the server did not accept the mail.  SPI must
 * not be connected.
 */
extern char *mail_report_send_test(void);

#endif							/* AUDIO_CLEANUP_MAIL_REPORT_H */
