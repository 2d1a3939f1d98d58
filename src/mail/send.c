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

/*
 * Sends the mail.  The password is only in the buffer `password`, and during
 * the conversation in libcurl.  `refused` is room for result->refused.
 */
static void
talk_to_server(const MailLibrary *library, const MailSettings *settings, char *password, const Message *message,
			   bool *refused, MailResult *result)
{
	Mail	   *volatile mail = NULL;

	if (!AcquireExternalFD())
	{
		result->error = "too many files are open";
		return;
	}
	result->refused = refused;
	pgstat_report_wait_start(compat_wait_event("AudioCleanupSmtp"));
	PG_TRY();
	{
		mail = library->begin(settings, password, message, library_should_stop, result);
		while (mail != NULL && library->step(mail, STEP_MS))
		{
			CHECK_FOR_INTERRUPTS();
			if (!PostmasterIsAlive())
				proc_exit(1);
		}
		CHECK_FOR_INTERRUPTS();
		if (mail == NULL)
			result->error = "libcurl could not be initialized";
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

MailResult *
mailer_send(const MailSettings *settings, Message *message)
{
	MailResult *result = palloc0(sizeof(MailResult));
	const MailLibrary *library = NULL;
	char		password[SECRET_FILE_MAX] = "";
	bool	   *refused = palloc0(sizeof(bool) * Max(message->n_to, 1));

	result->outcome = MAIL_UNREACHABLE;
	result->error = mail_settings_lack(settings);
	if (result->error == NULL)
		library = library_load(MAIL_LIBRARY, MAIL_FUNCTION, &result->error);
	if (library == NULL)
		return result;
	message->from = settings->from;
	message->headers = message_headers(message);

	/*
	 * no memory is allocated from here on: an ERROR would leave the password
	 * in memory
	 */
	result->error = read_password(settings, password);
	if (result->error == NULL)
		talk_to_server(library, settings, password, message, refused, result);
	explicit_bzero(password, sizeof(password));
	return result;
}
