/*-------------------------------------------------------------------------
 *
 * mail/outbox.h
 *	  Mails that wait to be sent: all SQL on cleanup_mail, and who is called.
 *
 * Every function needs SPI and acts as the owner of the extension.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_OUTBOX_H
#define AUDIO_CLEANUP_OUTBOX_H

#include "datatype/timestamp.h"

#include "src/mail/settings.h"
#include "src/pg/extension.h"

/*
 * Lets a mail about the run wait from the commit of the current transaction
 * on, if the run has ended and the settings want a mail; the commit starts a
 * worker if a mail is due.
 */
extern void outbox_put(const Extension *extension, int64 run_id);

/* Lets the commit of the current transaction start a worker, if a mail is due. */
extern void outbox_wake(const Extension *extension);

/* The order that a mail worker is started with, in its bgw_extra. */
typedef struct OutboxCall
{
	Oid			database;
	TransactionId xid;			/* the calling transaction, to be waited for;
								 * may be invalid */
} OutboxCall;

typedef struct OutboxMail
{
	int64		run_id;
	TimestampTz created_at;
	const char **to;			/* recipients that lack the mail */
	int			n_to;
} OutboxMail;

/*
 * Returns the next mail that is due, oldest first, and counts it as tried: the
 * mail is due again when the delay is over, whatever happens now.  NULL: none
 * is due.  Its recipients are those of `settings` to whom it has not been sent
 * before; there may be none left.
 */
extern OutboxMail *outbox_take(const Extension *extension, const MailSettings *settings);

/* Records that the mail was sent to all recipients but the refused ones; NULL: none was refused. */
extern void outbox_sent(const Extension *extension, const OutboxMail *mail, const bool *refused,
						const char *error);

/*
 * Records that the mail was not sent, and why.  With `all_due` the mails that
 * are due count as tried as well: the server was not reached.
 */
extern void outbox_failed(const Extension *extension, const OutboxMail *mail, const char *error,
						  bool all_due);

/* Gives up the mails that have been tried for long enough, each with a WARNING. */
extern void outbox_give_up(const Extension *extension);

/* Deletes the rows that have been done for some time. */
extern void outbox_forget(const Extension *extension);

/* Returns when the next mail is due, 0 if none waits. */
extern TimestampTz outbox_next(const Extension *extension);

#endif							/* AUDIO_CLEANUP_OUTBOX_H */
