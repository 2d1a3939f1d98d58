/*-------------------------------------------------------------------------
 *
 * audio_cleanup_mail.c
 *	  The second library: SMTP by libcurl, for the processes that send mail.
 *
 * libcurl brings two dozen other libraries with it, some of which begin to
 * work as soon as they are loaded (GnuTLS reads its configuration and seeds
 * its generator).  Linked with audio_cleanup.so, all that would be in the
 * postmaster if that is preloaded, and in every backend.  So src/mail/smtp.c is a
 * library by itself, which src/mail/send.c loads by load_external_function() in the
 * mail worker, and in a session that calls cleanup_send_test_mail().  It has
 * no _PG_init, and gives away one table of functions.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

#include "src/mail/smtp.h"
#include "src/pg/compat.h"

COMPAT_MODULE_MAGIC;

extern PGDLLEXPORT const MailLibrary *audio_cleanup_mail_library(void);

const MailLibrary *
audio_cleanup_mail_library(void)
{
	static const MailLibrary library = {mail_begin, mail_step, mail_result, mail_end};

	return &library;
}
