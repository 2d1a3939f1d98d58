/*-------------------------------------------------------------------------
 *
 * pg/extension.h
 *	  The extension as the server knows it: where it was created, who owns
 *	  it, acting as another role, and the lock that makes runs single.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_EXTENSION_H
#define AUDIO_CLEANUP_EXTENSION_H

#include "storage/lock.h"

#define EXTENSION_NAME	"audio_cleanup"

typedef struct Extension
{
	Oid			oid;
	Oid			owner;
	Oid			namespace_oid;
} Extension;

/*
 * Look the extension up in the current database.  With missing_ok NULL is
 * returned where it is not installed, else that is an ERROR.  ERROR also if
 * the extension has another version than this library, which would not know
 * its tables.  Needs SPI connected; the result is allocated in the current
 * memory context.
 */
extern Extension *extension_lookup(bool missing_ok);

/* Returns the name of the extension's schema as of now, quoted as an identifier. */
extern const char *extension_schema(const Extension *extension);

/* Returns the OID of the table or sequence `name` of the extension; ERROR if it has none. */
extern Oid	extension_relation(const Extension *extension, const char *name);

typedef struct ActingAs
{
	Oid			user;
	int			security_context;
	int			guc_level;
} ActingAs;

/*
 * Act as `role` in a security-restricted operation with a safe search_path,
 * until extension_stop_acting().  An ERROR in between needs no clean-up:
 * transaction abort restores user and settings.  No transaction may be
 * committed in between.
 */
extern void extension_act_as(Oid role, ActingAs *saved);

/* While acting: hash joins only, for working sets without statistics. */
extern void extension_join_by_hash(void);

/*
 * While acting: no index may answer for a table (a corrupt one would hide
 * rows), row_security off (a policy that would hide rows is an error), and
 * hash joins only.
 */
extern void extension_read_carefully(void);

/*
 * No lock is waited for longer than this, unless lock_timeout is shorter
 * still.  Returns the level to pass to extension_end_limit(); an ERROR in
 * between needs no clean-up.
 */
extern int	extension_limit_lock_waits(int wait_ms);
extern void extension_end_limit(int guc_level);
extern void extension_stop_acting(const ActingAs *saved);

/*
 * Keep DROP EXTENSION waiting until the end of the transaction, before any of
 * our tables is locked: it locks them in an order of its own.  Returns false
 * if the extension was dropped before; ERROR if it was updated.  Needs SPI
 * connected.
 */
extern bool extension_guard(const Extension *extension);

/*
 * Take the lock under which at most one process of this database condemns or
 * deals with files, and then extension_guard().  Waits at most `wait_ms`
 * milliseconds, then ERROR lock_not_available, which names the holder.
 * With `session` it outlives the transaction, unless that aborts.
 */
extern void extension_lock_run(const Extension *extension, int wait_ms, bool session);

/*
 * The same until the end of the transaction, however long it takes; with one
 * active snapshot, which is exchanged.  Returns false if the extension was
 * dropped meanwhile.
 */
extern bool extension_await_run(const Extension *extension);
extern void extension_unlock_run(const Extension *extension);

/*
 * Queue up as the one process that waits for the run lock to drain: false if
 * another one waits already.  To be given up when the run lock is had.  For
 * background workers: every run that commits starts one, and two are enough.
 */
extern bool extension_queue_up(const Extension *extension);
extern void extension_leave_queue(const Extension *extension);

/*
 * Locks of those who send mail: one sends at a time, and one waits to try
 * again.  Not to be waited for; until they are given back, or the process ends.
 */
typedef enum MailLock
{
	MAIL_LOCK_SENDING,
	MAIL_LOCK_WAITING
} MailLock;

extern bool extension_try_mail_lock(const Extension *extension, MailLock which);
extern void extension_release_mail_lock(const Extension *extension, MailLock which);

/*
 * Lock a relation against changes of its definition (AccessShareLock) until
 * the end of the transaction.  Waits as long as lock_timeout allows, then
 * ERROR lock_not_available, which names relation and holder.
 */
extern void extension_lock_relation(Oid relid);

/*
 * Wait until every transaction that may write to one of the relations, as of
 * now, has ended.  Bounded and failing likewise.  VACUUM, ANALYZE and CREATE
 * INDEX CONCURRENTLY, which write no rows, are not waited for.
 */
extern void extension_wait_for_writers(List *relation_oids, int wait_ms);

#endif							/* AUDIO_CLEANUP_EXTENSION_H */
