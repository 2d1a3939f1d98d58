/*-------------------------------------------------------------------------
 *
 * mail/worker.h
 *	  The background worker that sends the mails of a database.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_MAIL_WORKER_H
#define AUDIO_CLEANUP_MAIL_WORKER_H

/* Main function; what it is started with is in bgw_extra, see outbox.h. */
extern PGDLLEXPORT void cleanup_mail_worker_main(Datum unused);

#endif							/* AUDIO_CLEANUP_MAIL_WORKER_H */
