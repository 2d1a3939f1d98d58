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
 * A run may have ended: with the commit of the current transaction, a mail
 * about it waits, if the settings want one, and a worker is started if there
 * is something to send.
 */
extern void outbox_put(const Extension *extension, int64 run_id);

/* At the commit start a worker, if a mail is due. */
extern void outbox_wake(const Extension *extension);

/* What a mail worker is started with, in its bgw_extra. */
typedef struct OutboxCall
{
	Oid			database;
	TransactionId xid;			/* who called; to be waited for; may be
								 * invalid */
} OutboxCall;

typedef struct OutboxMail
{
	int64		run_id;
	TimestampTz created_at;
	const char **to;			/* who has not got it yet */
	int			n_to;
} OutboxMail;

/*
 * The next mail that is due, oldest first, as tried: it is due again when the
 * delay is over, whatever happens now.  NULL: none.  Its recipients are those
 * of `settings` to whom it has not been sent before; there may be none left.
 */
extern OutboxMail *outbox_take(const Extension *extension, const MailSettings *settings);

/* It was sent to those who were not refused; `refused` may be NULL for none. */
extern void outbox_sent(const Extension *extension, const OutboxMail *mail, const bool *refused,
						const char *error);

/*
 * It was not.  If that says nothing about this mail, because the server was
 * not reached, then the others that are due were tried as well.
 */
extern void outbox_failed(const Extension *extension, const OutboxMail *mail, const char *error,
						  bool all_due);

/* Those that have been tried for long enough are given up, with a WARNING. */
extern void outbox_give_up(const Extension *extension);

/* Rows that are done are forgotten some time later. */
extern void outbox_forget(const Extension *extension);

/* When is the next one due?  False: none waits. */
extern bool outbox_next(const Extension *extension, TimestampTz *due_at);

/* For cleanup_check(). */
typedef struct OutboxState
{
	int64		waiting;		/* tried, and not sent */
	int64		given_up;		/* of the last week */
	const char *error;			/* the last one; NULL: none */
} OutboxState;

extern void outbox_look(const Extension *extension, OutboxState *state);

#endif							/* AUDIO_CLEANUP_OUTBOX_H */
