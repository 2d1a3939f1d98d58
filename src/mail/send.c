/*-------------------------------------------------------------------------
 *
 * mail/send.c
 *	  Sends one mail now, by the settings.
 *
 * The first call loads the library that sends (see audio_cleanup_mail.c).  The
 * library works in steps of a fifth of a second.  Interrupts are taken between
 * the steps, so that a shutdown does not wait for a mail server.  libcurl
 * waits for the answer to a whole mail in one step, and meanwhile only calls
 * library_should_stop().  No ERROR may pass through libcurl, but the barrier
 * of a DROP DATABASE must be absorbed.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"

#include "src/mail/send.h"
#include "src/pg/compat.h"
#include "src/pg/library.h"
#include "src/pg/secret.h"

#define STEP_MS				200
#define CONNECT_SECONDS		10
#define TOTAL_SECONDS		60

static MailerResult *
make_failure(const char *error)
{
	MailerResult *result = palloc0(sizeof(MailerResult));

	result->outcome = MAIL_UNREACHABLE;
	result->error = error;
	return result;
}


/* ----------------------------------------------------------------- sending --- */

/* Returns a copy of the result, which outlives the mail. */
static MailerResult *
copy_result(const MailResult *result, int n_to)
{
	MailerResult *copy = palloc0(sizeof(MailerResult));
	bool	   *refused = palloc(Max(n_to, 1));

	memcpy(refused, result->refused, n_to);
	copy->outcome = result->outcome;
	copy->error = *result->error ? pstrdup(result->error) : NULL;
	copy->refused = refused;
	return copy;
}

/*
 * Sends the mail.  The password is only in the buffer `password`, and during
 * the conversation in libcurl.
 */
static MailerResult *
talk_to_server(const MailLibrary *library, const MailServer *server, const Message *message, char *password)
{
	Mail	   *volatile mail = NULL;
	MailerResult *volatile result = NULL;

	if (!AcquireExternalFD())
	{
		explicit_bzero(password, SECRET_FILE_MAX);
		return make_failure("too many files are open");
	}
	pgstat_report_wait_start(compat_wait_event("AudioCleanupSmtp"));
	PG_TRY();
	{
		mail = library->begin(server, message, library_should_stop);
		while (mail != NULL && library->step(mail, STEP_MS))
		{
			CHECK_FOR_INTERRUPTS();
			if (!PostmasterIsAlive())
				proc_exit(1);
		}
		CHECK_FOR_INTERRUPTS();
		result = mail == NULL ? make_failure("libcurl could not be initialized")
			: copy_result(library->result(mail), message->n_to);
	}
	PG_FINALLY();
	{
		pgstat_report_wait_end();
		if (mail != NULL)
			library->end(mail);
		explicit_bzero(password, SECRET_FILE_MAX);
		ReleaseExternalFD();
	}
	PG_END_TRY();
	return result;
}

/*
 * Reads the password of the user, if a user is set.  Returns NULL, or a text
 * that says what is wrong.
 */
static const char *
read_password(const MailSettings *settings, char password[SECRET_FILE_MAX])
{
	const char *error = *settings->user ? secret_read(settings->password_file, password, SECRET_FILE_MAX) : NULL;

	return error ? psprintf("could not read audio_cleanup.smtp_password_file: %s", error) : NULL;
}

const char *
mailer_check_secret(const MailSettings *settings)
{
	char		secret[SECRET_FILE_MAX];
	const char *error = read_password(settings, secret);

	explicit_bzero(secret, sizeof(secret));
	return error;
}

MailerResult *
mailer_send(const MailSettings *settings, Message *message)
{
	const char *error = mail_settings_lack(settings);
	const MailLibrary *library;
	char		password[SECRET_FILE_MAX] = "";
	MailServer	server = {
		.url = settings->url,
		.tls = settings->tls,
		.user = *settings->user ? settings->user : NULL,
		.password = password,
		.ca_file = *settings->ca_file ? settings->ca_file : NULL,
		.connect_seconds = CONNECT_SECONDS,
		.total_seconds = TOTAL_SECONDS,
	};

	if (error != NULL || (library = library_load(MAIL_LIBRARY, MAIL_FUNCTION, &error)) == NULL)
		return make_failure(error);
	message->from = settings->from;
	message->headers = message_headers(message);
	if ((error = read_password(settings, password)) != NULL)
	{
		explicit_bzero(password, sizeof(password));
		return make_failure(error);
	}
	return talk_to_server(library, &server, message, password);
}
