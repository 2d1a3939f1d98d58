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

/* The main function of the worker. bgw_extra has its order, an OutboxCall. */
extern PGDLLEXPORT void cleanup_mail_worker_main(Datum unused);

#endif							/* AUDIO_CLEANUP_MAIL_WORKER_H */
