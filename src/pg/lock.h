/*-------------------------------------------------------------------------
 *
 * pg/lock.h
 *	  The locks of the extension, with a limit for each wait.
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
 * Limits the wait for each lock to `wait_ms` milliseconds, unless
 * lock_timeout is shorter; or, if `wait_ms` is negative, takes the limit away,
 * which the locks of workers have. lock_end_limit() ends the limit; its parameter is
 * the level that lock_limit_waits() returned.  After an ERROR in between, the
 * abort of the transaction ends the limit.  Neither function needs SPI.
 */
extern int	lock_limit_waits(int wait_ms);
extern void lock_end_limit(int guc_level);

/*
 * Sleeps for `ms` milliseconds, or until the latch of the process is set, and
 * takes interrupts: for who waits for something that wakes nobody.  `event` is
 * the name of the wait event.
 */
extern void lock_nap(long ms, const char *event);

/*
 * Keeps DROP EXTENSION waiting until the end of the transaction, if nobody
 * else locks the extension for longer than some seconds.  Must be called
 * before any of our tables is locked: DROP EXTENSION locks the tables in an
 * order of its own.  Returns false if the extension was dropped before; raises
 * an ERROR if the extension was updated.  Needs SPI.
 */
extern bool lock_extension(const Extension *extension);

/*
 * Takes LOCK_RUN, and then calls lock_extension().  Only the process with
 * LOCK_RUN condemns files of this database, or deals with condemned files.
 * Waits at most `wait_ms` milliseconds, then raises ERROR
 * lock_not_available, which names the holder.  With `session` the lock
 * outlives the transaction, unless the transaction aborts;
 * lock_release(extension, LOCK_RUN) gives the lock back.  The caller must hold
 * no lock that DROP EXTENSION waits for.  Needs SPI.
 */
extern void lock_run(const Extension *extension, int wait_ms, bool session);

/*
 * Takes LOCK_RUN until the end of the transaction, and waits as long as
 * needed.  Needs SPI and one active snapshot, which a new snapshot replaces.
 * Returns false if the extension was dropped meanwhile.
 */
extern bool lock_await_run(const Extension *extension);

/* The locks of the extension.  The numbers are objsubids; DROP EXTENSION uses number 0. */
typedef enum LockName
{
	LOCK_RUN = 1,
	LOCK_QUEUE,					/* the one process that waits for LOCK_RUN to
								 * drain; every run that commits starts a
								 * process, and two are enough */
	LOCK_HOLDS,					/* see lock_for_hold() */
	LOCK_SENDING,				/* the one process that sends mail */
	LOCK_SENDING_NEXT			/* the one process that waits to send again */
} LockName;

/*
 * Takes the lock `name` for the session if it is free.  Returns whether the
 * lock was free.  lock_release(), or the end of the process, gives the lock
 * back.  Does not need SPI.
 */
extern bool lock_try(const Extension *extension, LockName name);

/*
 * Takes LOCK_HOLDS for a transaction that makes a hold, and waits until no
 * transaction has that lock by lock_against_holds(): a hold is committed
 * either before the files that are to be destroyed are read, or after they are
 * gone.  Returns false if those files have been read, and may still be there:
 * their process has called lock_let_holds().  The lock lasts until the end of
 * the transaction.  Does not need SPI.
 */
extern bool lock_for_hold(const Extension *extension);

/*
 * Takes LOCK_HOLDS for a transaction that is going to destroy files, until its
 * end.  Returns false if a transaction that makes a hold has that lock.  Does
 * not need SPI.
 */
extern bool lock_against_holds(const Extension *extension);

/*
 * Changes the lock of lock_against_holds(), after the files that are to be
 * destroyed were read, so that no hold waits for their destruction.  Does not
 * need SPI.
 */
extern void lock_let_holds(const Extension *extension);

/* Gives back the lock `name` of the session, if this process has it.  Does not need SPI. */
extern void lock_release(const Extension *extension, LockName name);

/*
 * Locks the relation `relid` against changes of its definition
 * (AccessShareLock) until the end of the transaction.  Waits as long as
 * lock_timeout allows, then raises ERROR lock_not_available, which names the
 * relation and the holder.  Does not need SPI.
 */
extern void lock_relation(Oid relid);

/*
 * Waits until every transaction has ended that may write to one of the
 * relations now.  Waits at most `wait_ms` milliseconds,
 * then raises ERROR lock_not_available.  Does not wait for VACUUM, ANALYZE
 * and CREATE INDEX CONCURRENTLY, which write no rows.  Does not need SPI.
 */
extern void lock_wait_for_writers(List *relation_oids, int wait_ms);

#endif							/* AUDIO_CLEANUP_LOCK_H */
