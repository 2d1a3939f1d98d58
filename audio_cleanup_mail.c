/*-------------------------------------------------------------------------
 *
 * audio_cleanup_mail.c
 *	  The second library: SMTP by libcurl, for the processes that send mail.
 *
 * libcurl brings two dozen other libraries with it.  Some of these libraries
 * begin to work as soon as they are loaded: GnuTLS reads its configuration and
 * seeds its generator.  If audio_cleanup.so were linked with libcurl, all
 * these libraries would be in every backend, and, with audio_cleanup
 * preloaded, in the postmaster.  So src/mail/smtp.c is a library of its own.
 * src/mail/send.c loads the library in the mail worker, and in a session that
 * calls cleanup_send_test_mail().  The library has no _PG_init, and exports
 * one function, which returns a table of functions.
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

extern PGDLLEXPORT const MailLibrary *audio_cleanup_mail_library_1_1(void);

const MailLibrary *
audio_cleanup_mail_library_1_1(void)
{
	static const MailLibrary library = {mail_begin, mail_step, mail_end};

	return &library;
}
