/*-------------------------------------------------------------------------
 *
 * mail/worker.c
 *	  The background worker that sends the mails of a database.
 *
 * A mail takes four steps: a transaction takes the mail from the outbox, a
 * second transaction composes the mail, the worker talks to the mail server
 * outside of any transaction, and a last transaction records the outcome.
 * Nobody waits for these steps, and a mail that cannot be composed does not
 * delay other mails.
 *
 * One process of a database sends at a time.  A worker that finds another
 * worker sending ends, and no mail is lost: the other worker looks into the
 * outbox once more after it has given back the lock.  If the mail server
 * cannot be reached, one worker stays for ten minutes to try again.  After
 * that the mails wait for the worker that the next run or the next night
 * starts.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "src/mail/compose.h"
#include "src/mail/outbox.h"
#include "src/mail/send.h"
#include "src/pg/lock.h"
#include "src/pg/sql.h"
#include "src/pg/time.h"
#include "src/pg/worker.h"

#define STAY_MS		600000

/* look again after this time, because other workers may have put off mails that are due earlier */
#define LOOK_MS		60000

/* another worker is sending the mails that are due */
#define BUSY_MS		1000

/* A mail on its way. */
typedef struct Delivery
{
	MemoryContext context;
	MailSettings *settings;
	OutboxMail *mail;
	const Extension *extension;
	Message    *message;		/* NULL: there is nothing to send */
	MailResult *result;			/* NULL: nothing was sent */
} Delivery;


/* ------------------------------------------------------------------- turns --- */

/* Begins a transaction.  Returns NULL if the extension is gone. */
static Extension *
begin_mail_step(void)
{
	Extension  *extension;

	worker_look_up();
	extension = worker_begin_in(NULL);
	return extension != NULL && lock_extension(extension) ? extension : NULL;
}

/*
 * Takes the next mail into the delivery's memory context.  Returns false if no
 * mail is due.
 */
static bool
take(Delivery *delivery)
{
	Extension  *extension = begin_mail_step();
	MemoryContext caller = MemoryContextSwitchTo(delivery->context);

	delivery->mail = NULL;
	delivery->message = NULL;
	delivery->result = NULL;
	delivery->settings = mail_settings_snapshot();
	if (extension != NULL && mail_settings_off(delivery->settings) == NULL)
		delivery->mail = outbox_take(extension, delivery->settings);
	MemoryContextSwitchTo(caller);
	worker_commit();
	return delivery->mail != NULL;
}

static void
compose(void *arg)
{
	Delivery   *delivery = arg;
	MemoryContext caller = MemoryContextSwitchTo(delivery->context);

	delivery->message = mail_report_make(delivery->extension, delivery->mail, delivery->settings);
	MemoryContextSwitchTo(caller);
}

/*
 * Composes the mail.  There is no message if the run was forgotten, or if all
 * recipients have the mail.
 */
static void
make_up(Delivery *delivery)
{
	MemoryContext caller;
	ErrorData  *error;

	if (delivery->mail->n_to == 0)
		return;
	delivery->extension = begin_mail_step();
	caller = MemoryContextSwitchTo(delivery->context);
	if (delivery->extension != NULL && (error = sql_try(compose, delivery)) != NULL)
	{
		delivery->message = NULL;
		delivery->result = palloc0(sizeof(MailResult));
		delivery->result->outcome = MAIL_REFUSED;
		delivery->result->error = error->message;
	}
	MemoryContextSwitchTo(caller);
	worker_commit();
}

static void
send_it(Delivery *delivery)
{
	MemoryContext caller;

	if (delivery->message == NULL)
		return;
	caller = MemoryContextSwitchTo(delivery->context);
	pgstat_report_activity(STATE_RUNNING, psprintf("sending the mail about run %lld",
												   (long long) delivery->mail->run_id));
	delivery->result = mailer_send(delivery->settings, delivery->message);
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextSwitchTo(caller);
}

static void
record(const Delivery *delivery)
{
	static const MailResult nothing = {MAIL_SENT};
	const MailResult *result = delivery->result ? delivery->result : &nothing;
	Extension  *extension;

	if (result->error != NULL)
		ereport(LOG,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not send the mail about run %lld: %s",
						(long long) delivery->mail->run_id, result->error)));
	extension = begin_mail_step();
	if (extension != NULL)
	{
		if (result->outcome == MAIL_SENT)
			outbox_sent(extension, delivery->mail, result->refused, result->error);
		else
			outbox_failed(extension, delivery->mail, result->error,
						  result->outcome == MAIL_UNREACHABLE);
		outbox_give_up(extension);
	}
	worker_commit();
}

/* Returns whether there was a mail to be sent. */
static bool
send_all(MemoryContext context)
{
	Delivery	delivery = {context};
	bool		any = false;

	for (; take(&delivery); any = true)
	{
		make_up(&delivery);
		send_it(&delivery);
		record(&delivery);
		MemoryContextReset(context);
	}
	return any;
}


/* ------------------------------------------------------------------- order --- */

/* Takes a lock on the mails of this database.  Returns false if another process has the lock. */
static bool
try_mail_lock(LockName which)
{
	Extension  *extension = begin_mail_step();
	bool		mine = extension != NULL && lock_try(extension, which);

	if (mine && which == LOCK_SENDING)
	{
		outbox_give_up(extension);
		outbox_forget(extension);
	}
	worker_commit();
	return mine;
}

static void
unlock(LockName which)
{
	Extension  *extension = begin_mail_step();

	if (extension != NULL)
		lock_release(extension, which);
	worker_commit();
}

/*
 * Returns the milliseconds until a mail is due; 0 if a mail is due now, -1 if
 * no mail waits, or if mail is switched off.
 */
static long
time_to_next(void)
{
	Extension  *extension = begin_mail_step();
	TimestampTz due_at = 0;
	long		ms = -1;

	if (extension != NULL && mail_settings_off(mail_settings_snapshot()) == NULL)
		due_at = outbox_next(extension);
	if (due_at != 0)
		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), due_at);
	worker_commit();
	return ms;
}

/*
 * Sends mails until no mail is due, or until the row of each mail that is due
 * is locked.  Returns false if another process is sending.
 */
static bool
send_due(MemoryContext context)
{
	bool		any;

	do
	{
		if (!try_mail_lock(LOCK_SENDING))
			return false;
		any = send_all(context);
		unlock(LOCK_SENDING);
	} while (any && time_to_next() == 0);
	return true;
}

/*
 * Waits for mails to become due, and sends the mails, for some time.  Only one
 * process waits; any other process returns at once.
 */
static void
keep_trying(MemoryContext context)
{
	int64		end = time_monotonic_us() + STAY_MS * INT64CONST(1000);
	long		ms;

	if (!try_mail_lock(LOCK_SENDING_NEXT))
		return;
	while ((ms = time_to_next()) >= 0 && time_monotonic_us() < end)
	{
		if (ms == 0)
			(void) send_due(context);
		pgstat_report_activity(STATE_IDLE, "waiting to try again");
		lock_nap(Min(Max(ms, BUSY_MS), LOOK_MS), "AudioCleanupMailWait");
		pgstat_report_activity(STATE_IDLE, NULL);
	}
	unlock(LOCK_SENDING_NEXT);
}

/*
 * Waits for the end of the transaction that started this worker.  If that
 * transaction aborts, no mail is due.
 */
static void
wait_for_caller(TransactionId xid)
{
	if (!TransactionIdIsValid(xid))
		return;
	StartTransactionCommand();

	/*
	 * the commit may move files on a slow disk; the end of the transaction
	 * ends this limit
	 */
	(void) lock_limit_waits(-1);
	XactLockTableWait(xid, NULL, NULL, XLTW_None);
	CommitTransactionCommand();
}

void
cleanup_mail_worker_main(Datum unused)
{
	OutboxCall	call;
	MemoryContext context;

	memcpy(&call, MyBgworkerEntry->bgw_extra, sizeof(call));
	worker_connect(NULL, call.database);
	context = AllocSetContextCreate(TopMemoryContext, "audio_cleanup mail",
									ALLOCSET_DEFAULT_SIZES);
	wait_for_caller(call.xid);
	if (send_due(context))
		keep_trying(context);
}
