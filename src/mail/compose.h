/*-------------------------------------------------------------------------
 *
 * mail/compose.h
 *	  What a mail says.
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
 * Returns the mail about a run, to the recipients that lack it; `from` is left
 * open.  NULL if the run is not known any more.  Needs SPI; palloc'd.
 */
extern Message *mail_report_make(const Extension *extension, const OutboxMail *mail,
								 const MailSettings *settings);

/*
 * Sends the mail of cleanup_send_test_mail() now, to all recipients.  Returns
 * the answer for the caller; ERROR if the mail was not taken.  SPI must not be
 * connected.
 */
extern char *mail_report_send_test(void);

#endif							/* AUDIO_CLEANUP_MAIL_REPORT_H */
