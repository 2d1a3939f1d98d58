/*-------------------------------------------------------------------------
 *
 * mail/outbox.h
 *	  Writes and sends mails about runs; no run waits for a mail server.
 *
 * The outbox has the mails that wait to be sent.  This header has the SQL on
 * cleanup_mail, and the start of a worker.
 *
 * Every function needs SPI and acts as the owner of the extension.  Any
 * failure is an ERROR.
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
 * Inserts a mail about the run `run_id`, if the run has ended and the
 * settings ask for a mail.  If a mail is due, the commit of the current
 * transaction starts a mail worker.
 */
extern void outbox_put(const Extension *extension, int64 run_id);

/* Makes the commit of the current transaction start a mail worker, if a mail is due. */
extern void outbox_wake(const Extension *extension);

/* The main function of the mail worker. bgw_extra has its order, an OutboxCall. */
extern PGDLLEXPORT void cleanup_mail_worker_main(Datum unused);

/* The order to a mail worker, in its bgw_extra. */
typedef struct OutboxCall
{
	Oid			database;
	TransactionId xid;			/* transaction that started the worker, which
								 * waits for its end; may be invalid */
} OutboxCall;

typedef struct OutboxMail
{
	int64		run_id;
	TimestampTz created_at;
	const char **to;			/* recipients that do not have the mail yet */
	int			n_to;
} OutboxMail;

/*
 * Returns the oldest mail that is due, allocated in the current memory
 * context, or NULL.  Counts one more try: the mail is due again after a delay,
 * whatever happens now.  The recipients are the recipients of `settings` to
 * whom the mail was not sent before; there may be no recipient left.
 */
extern OutboxMail *outbox_take(const Extension *extension, const MailSettings *settings);

/*
 * Records that `mail` was sent to all recipients except recipients whose
 * element of `refused` is true.  `refused` is NULL if no recipient was
 * refused.  `error` is the server's text, or NULL.
 */
extern void outbox_sent(const Extension *extension, const OutboxMail *mail, const bool *refused,
						const char *error);

/*
 * Records that `mail` was not sent, and the reason `error`.  With `all_due`
 * the server was not reached, and a try is counted for all mails that are
 * due.
 */
extern void outbox_failed(const Extension *extension, const OutboxMail *mail, const char *error,
						  bool all_due);

/* Gives up the mails that have been tried for two days, each with a WARNING. */
extern void outbox_give_up(const Extension *extension);

/* Deletes the rows of mails that were sent or given up some time ago. */
extern void outbox_forget(const Extension *extension);

/* Returns the time at which the next mail is due; 0 if no mail waits. */
extern TimestampTz outbox_next(const Extension *extension);

#endif							/* AUDIO_CLEANUP_OUTBOX_H */
