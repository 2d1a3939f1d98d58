/*-------------------------------------------------------------------------
 *
 * mail/outbox.c
 *	  Mails that wait to be sent: SQL on cleanup_mail, and the start of a worker.
 *
 * The transaction that ends a run inserts the row of the mail, so the row
 * exists if and only if the run has ended.  The row has no text: the text is
 * composed from the run's own rows when the mail is sent.
 *
 * Before the worker talks to a server, it records the mail as tried, and
 * commits.  So a mail on which the worker dies is not tried again at once.
 * The price: if the worker is killed, the mail is delayed by a minute.  If the
 * worker is killed between the server's "ok" and our commit, the mail is sent
 * twice, with the same Message-ID.
 *
 * A background worker sends the mails.  A transaction starts the worker just
 * before the commit, and the worker waits for the end of that transaction.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "src/mail/outbox.h"
#include "src/pg/at_end.h"
#include "src/pg/sql.h"
#include "src/pg/worker.h"

StaticAssertDecl(sizeof(OutboxCall) <= BGW_EXTRALEN, "a call must fit into bgw_extra");

/* delays after the first, the second and the third try, and after each later try */
#define DELAYS			"'{1 min,5 min,30 min}'::interval[]"
#define LAST_DELAY		"'2 hours'::interval"
#define GIVE_UP_AFTER	"'2 days'::interval"

/* age at which a row that is done is deleted */
#define FORGET_AFTER	"'30 days'::interval"


/* ------------------------------------------------------------ whom to call --- */

/* Starts a mail worker.  If no slot is free, the next run or the next night starts one. */
static void
start_mail_worker(void)
{
	BackgroundWorker worker;
	OutboxCall	call = {MyDatabaseId, GetTopTransactionIdIfAny()};

	worker_describe(&worker, "cleanup_mail_worker_main", "audio_cleanup mail");
	memcpy(worker.bgw_extra, &call, sizeof(call));
	if (!RegisterDynamicBackgroundWorker(&worker, NULL))
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("mail is sent later: no background worker is free"),
				 errhint("You might need to increase max_worker_processes.")));
}

static AtEnd wish;
static AtEndList wishes = {.before_commit = start_mail_worker};

void
outbox_wake(const Extension *extension)
{
	if (mail_settings_off(mail_settings_snapshot()) != NULL)
		return;
	if (owner_finds(extension, 0, NULL, "SELECT FROM @extschema@.cleanup_mail WHERE next_try_at <= clock_timestamp() LIMIT 1"))
		at_end_add(&wishes, &wish);
}


/* ----------------------------------------------------------------- putting --- */

#define IS_PROBLEM	"(r.status IN ('failed', 'blocked', 'interrupted') OR r.errors > 0)"
#define HAS_CHANGES	"(r.deleted > 0 OR EXISTS (SELECT FROM @extschema@.cleanup_files f" \
	" WHERE f.run_id = r.run_id AND f.state = 'trashed'))"

void
outbox_put(const Extension *extension, int64 run_id)
{
	const MailSettings *settings = mail_settings_snapshot();

	if (mail_settings_off(settings) != NULL)
		return;
	owner_query(extension,
				SQL_ARGS(SQL_INT8(run_id), SQL_BOOL(settings->on == MAIL_ON_ALWAYS), SQL_BOOL(settings->on >= MAIL_ON_CHANGES)),
				"INSERT INTO @extschema@.cleanup_mail (run_id) SELECT r.run_id FROM @extschema@.cleanup_runs r"
				" WHERE r.run_id = $1 AND r.finished_at IS NOT NULL"
				" AND ($2 OR " IS_PROBLEM " OR $3 AND " HAS_CHANGES ")"
				" ON CONFLICT DO NOTHING");
	outbox_wake(extension);
}


/* ----------------------------------------------------------------- sending --- */

/* Returns the addresses as a text[], except the refused addresses.  `refused` may be NULL. */
static Datum
make_array(const char *const *addresses, int n, const bool *refused)
{
	List	   *taken = NIL;

	for (int i = 0; i < n; i++)
		if (refused == NULL || !refused[i])
			taken = lappend(taken, (char *) addresses[i]);
	return sql_text_array(taken);
}

/*
 * The mails for which the condition holds, without the mails whose rows
 * another process has locked: no lock on one mail delays the other mails.
 */
#define UNLOCKED_MAILS(condition) \
	"(SELECT u.run_id FROM @extschema@.cleanup_mail u WHERE " condition " FOR UPDATE SKIP LOCKED)"

/* Counts one more try, which begins now. */
#define TRIED \
	" tries = m.tries + 1," \
	" next_try_at = clock_timestamp() + coalesce((" DELAYS ")[m.tries + 1], " LAST_DELAY ")"

OutboxMail *
outbox_take(const Extension *extension, const MailSettings *settings)
{
	OutboxMail *mail = NULL;

	if (owner_query(extension,
					SQL_ARGS(SQL_VALUE(TEXTARRAYOID, make_array(settings->to, settings->n_to, NULL))),
					"UPDATE @extschema@.cleanup_mail m SET" TRIED
					" WHERE m.run_id = " UNLOCKED_MAILS("u.next_try_at <= clock_timestamp()"
														" ORDER BY u.next_try_at, u.run_id LIMIT 1")
					" RETURNING m.run_id, m.created_at,"
					"  ARRAY(SELECT a.address FROM unnest($1) WITH ORDINALITY a(address, n)"
					"   WHERE a.address <> ALL (m.sent_to) ORDER BY a.n)") > 0)
	{
		mail = palloc(sizeof(OutboxMail));
		mail->run_id = DatumGetInt64(sql_value(0, 1));
		mail->created_at = DatumGetTimestampTz(sql_value(0, 2));
		mail->to = sql_texts(sql_value(0, 3), &mail->n_to);
	}
	return mail;
}

void
outbox_sent(const Extension *extension, const OutboxMail *mail, const bool *refused,
			const char *error)
{
	owner_query(extension,
				SQL_ARGS(SQL_INT8(mail->run_id), SQL_VALUE(TEXTARRAYOID, make_array(mail->to, mail->n_to, refused)),
						 SQL_TEXT(error), SQL_INT4(mail->n_to)),
				"UPDATE @extschema@.cleanup_mail SET sent_to = sent_to || $2, error = $3,"
				" sent_at = CASE WHEN cardinality($2) = $4 THEN clock_timestamp() END,"
				" next_try_at = CASE WHEN cardinality($2) < $4 THEN next_try_at END"
				" WHERE run_id = $1");
}

void
outbox_failed(const Extension *extension, const OutboxMail *mail, const char *error, bool all_due)
{
	const SqlParameter parameters[] = {SQL_INT8(mail->run_id), SQL_TEXT(error)};

	owner_query(extension, lengthof(parameters), parameters,
				"UPDATE @extschema@.cleanup_mail SET error = $2 WHERE run_id = $1");
	if (all_due)
		owner_query(extension, lengthof(parameters), parameters,
					"UPDATE @extschema@.cleanup_mail m SET error = $2," TRIED
					" WHERE m.run_id IN " UNLOCKED_MAILS("u.next_try_at <= clock_timestamp() AND u.run_id <> $1"));
}

void
outbox_give_up(const Extension *extension)
{
	int			n;

	n = owner_query(extension, 0, NULL,
					"UPDATE @extschema@.cleanup_mail SET next_try_at = NULL"
					" WHERE run_id IN " UNLOCKED_MAILS("u.tries > 0 AND u.next_try_at > u.created_at + " GIVE_UP_AFTER)
					" RETURNING run_id, tries, error");
	for (int i = 0; i < n; i++)
		ereport(WARNING,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("gave up sending the mail about run %lld after %d tries",
						(long long) DatumGetInt64(sql_value(i, 1)), DatumGetInt32(sql_value(i, 2))),
				 sql_is_null(i, 3) ? 0 : errdetail_internal("%s", sql_text(i, 3)),
				 errhint("Call cleanup_check() and cleanup_send_test_mail().")));
}

void
outbox_forget(const Extension *extension)
{
	owner_query(extension, 0, NULL, "DELETE FROM @extschema@.cleanup_mail WHERE run_id IN "
				UNLOCKED_MAILS("u.next_try_at IS NULL AND u.created_at < now() - " FORGET_AFTER));
}


/* ----------------------------------------------------------------- looking --- */

TimestampTz
outbox_next(const Extension *extension)
{
	return DatumGetTimestampTz(owner_value(extension, 0, NULL, "SELECT min(next_try_at) FROM @extschema@.cleanup_mail"));
}
