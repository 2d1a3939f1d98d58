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
 * The mail about a run, to those who have not got it; `from` is left open.
 * NULL if the run is not known any more.  Needs SPI; palloc'd.
 */
extern Message *mail_report_make(const Extension *extension, const OutboxMail *mail,
								 const MailSettings *settings);

/*
 * cleanup_send_test_mail(): send one now, to all; returns what the server
 * did, or an ERROR says what was wrong.  Without SPI.
 */
extern char *mail_report_send_test(void);

#endif							/* AUDIO_CLEANUP_MAIL_REPORT_H */
