/*-------------------------------------------------------------------------
 *
 * pg/lock.h
 *	  The locks of the extension, and waiting for them no longer than allowed.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_LOCK_H
#define AUDIO_CLEANUP_LOCK_H

#include "nodes/pg_list.h"

#include "src/pg/extension.h"

/*
 * Limits the wait for each lock: none is waited for longer than `wait_ms`
 * milliseconds, unless lock_timeout is shorter still.  Returns the level to
 * pass to lock_end_limit(); an ERROR in between needs no clean-up.
 */
extern int	lock_limit_waits(int wait_ms);
extern void lock_end_limit(int guc_level);

/*
 * Keeps DROP EXTENSION waiting until the end of the transaction, before any of
 * our tables is locked: DROP EXTENSION locks them in an order of its own.
 * Returns false if the extension was dropped before; ERROR if it was updated.
 * Needs SPI connected.
 */
extern bool lock_extension(const Extension *extension);

/*
 * Takes the lock under which at most one process of this database condemns or
 * deals with files, and then calls lock_extension().  Waits at most `wait_ms`
 * milliseconds, then ERROR lock_not_available, which names the holder.
 * With `session` the lock outlives the transaction, unless that aborts; it is
 * given back by lock_release(extension, LOCK_RUN).
 */
extern void lock_run(const Extension *extension, int wait_ms, bool session);

/*
 * Takes LOCK_RUN until the end of the transaction, however long the wait;
 * needs one active snapshot, which is exchanged.  Returns false if the
 * extension was dropped meanwhile.
 */
extern bool lock_await_run(const Extension *extension);

/* Locks of the extension; the numbers are objsubids, of which DROP EXTENSION takes 0. */
typedef enum LockName
{
	LOCK_RUN = 1,
	LOCK_QUEUE,					/* the one process that waits for LOCK_RUN to
								 * drain: every run that commits starts one,
								 * and two are enough */
	LOCK_SENDING,				/* the one process that sends mail */
	LOCK_SENDING_NEXT			/* the one that waits to try again */
} LockName;

/*
 * Takes a lock for the session, if nobody has it: returns false if somebody
 * has.  To be given back, or by the end of the process.
 */
extern bool lock_try(const Extension *extension, LockName name);

/* Gives back a lock of the session, if this process has it. */
extern void lock_release(const Extension *extension, LockName name);

/*
 * Locks a relation against changes of its definition (AccessShareLock) until
 * the end of the transaction.  Waits as long as lock_timeout allows, then
 * ERROR lock_not_available, which names relation and holder.
 */
extern void lock_relation(Oid relid);

/*
 * Waits until every transaction that may write to one of the relations, as of
 * now, has ended: at most `wait_ms` milliseconds, then ERROR
 * lock_not_available.  VACUUM, ANALYZE and CREATE INDEX CONCURRENTLY, which
 * write no rows, are not waited for.
 */
extern void lock_wait_for_writers(List *relation_oids, int wait_ms);

#endif							/* AUDIO_CLEANUP_LOCK_H */
