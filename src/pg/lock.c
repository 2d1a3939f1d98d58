/*-------------------------------------------------------------------------
 *
 * pg/lock.c
 *	  The locks of the extension, with a limit for each wait.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "src/pg/compat.h"
#include "src/pg/lock.h"
#include "src/pg/role.h"
#include "src/pg/snapshot.h"
#include "src/pg/time.h"

/* A DROP EXTENSION that nobody holds up ends in this time. */
#define EXTENSION_WAIT_MS	5000
#define EXTENSION_POLL_MS	50
/* A process that has waited in vain waits again only after this time. */
#define EXTENSION_REST_MS	60000

int
lock_limit_waits(int wait_ms)
{
	int			guc_level = NewGUCNestLevel();

	/* at least 1, because a lock_timeout of 0 means no limit */
	if (wait_ms < 0)
		role_set_for_now("lock_timeout", "0");
	else if (LockTimeout == 0 || LockTimeout > wait_ms)
		role_set_for_now("lock_timeout", psprintf("%d", Max(wait_ms, 1)));
	return guc_level;
}

void
lock_end_limit(int guc_level)
{
	AtEOXact_GUC(false, guc_level);
}

void
lock_nap(long ms, const char *event)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, compat_wait_event(event));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Returns the time, by time_monotonic_us(), that is `wait_ms` milliseconds from now. */
static int64
deadline_in(int wait_ms)
{
	return time_monotonic_us() + (int64) wait_ms * 1000;
}

/*
 * Waits for the end of the transaction `vxid`, or if that is NULL for a lock,
 * under a lock_timeout that ends at the deadline, unless the caller's own
 * lock_timeout ends earlier; with the deadline 0 only the latter is in force.
 * Returns false if the time is up.
 * The caller must then abort the transaction by an ERROR, because nothing was
 * cleaned up after the error that was caught.
 */
static bool
wait_bounded(int64 deadline, const VirtualTransactionId *vxid, const LOCKTAG *tag, LOCKMODE mode, bool session)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool in_time = true;
	int			guc_level = deadline == 0 ? NewGUCNestLevel()
	: lock_limit_waits((int) Max((deadline - time_monotonic_us()) / 1000, 0));

	PG_TRY();
	{
		if (vxid != NULL)
			(void) VirtualXactLock(*vxid, true);
		else
			(void) LockAcquire(tag, mode, session, false);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		FlushErrorState();
		in_time = false;
	}
	PG_END_TRY();
	lock_end_limit(guc_level);
	return in_time;
}

/*
 * Returns a sentence about the holder of a lock, for the detail of an error.
 * The holder may have ended already.
 */
static char *
describe_holder(VirtualTransactionId vxid)
{
	PGPROC	   *proc;

	if (!VirtualTransactionIdIsValid(vxid))
		return pstrdup("It has just been released.");
	if (VirtualTransactionIdIsRecoveredPreparedXact(vxid))
		return psprintf("Prepared transaction %u holds it.", vxid.localTransactionId);
	proc = compat_vxid_proc(vxid);
	if (proc == NULL || proc->pid == 0 || compat_proc_lxid(proc) != vxid.localTransactionId)
		return pstrdup("A prepared transaction, or one that has just ended, holds it.");
	return psprintf("Process %d holds it.", proc->pid);
}

static LOCKTAG
tag_of(const Extension *extension, LockName name)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension->oid, name);

	/*
	 * A process keeps these locks between transactions, and may be told to
	 * end between two transactions.  Then a lock of the ordinary method would
	 * be left behind.  A lock of the users' method is given back.  (Advisory
	 * locks are of that method, too, but have other tags.)
	 */
	if (name == LOCK_SENDING || name == LOCK_SENDING_NEXT)
		tag.locktag_lockmethodid = USER_LOCKMETHOD;
	return tag;
}

/* Takes the lock `name`.  Returns false if the lock is not free, and the caller does not want to wait. */
static bool
take(const Extension *extension, LockName name, LOCKMODE mode, bool session, bool wait)
{
	LOCKTAG		tag = tag_of(extension, name);

	return LockAcquire(&tag, mode, session, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Takes the lock that DROP EXTENSION takes first.  Any role may lock an
 * extension, by ALTER FUNCTION ... DEPENDS ON EXTENSION with a function that
 * the role owns, for any time.  So the wait has an end, and work goes on
 * without the lock: a DROP EXTENSION that is that slow can end in a deadlock,
 * which is an ERROR and does no harm.
 */
static void
lock_extension_for_now(const Extension *extension)
{
	static int64 rests_until = 0;
	bool		is_patient = time_monotonic_us() >= rests_until;
	int64		deadline = deadline_in(is_patient ? EXTENSION_WAIT_MS : 0);
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension->oid, 0);
	while (LockAcquire(&tag, AccessShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
	{
		if (time_monotonic_us() >= deadline)
		{
			rests_until = deadline_in(EXTENSION_REST_MS);
			ereport(is_patient ? LOG : DEBUG1,
					(errmsg("extension \"%s\" is locked by somebody else, and is used without a lock", EXTENSION_NAME),
					 errdetail_internal("%s", describe_holder(*GetLockConflicts(&tag, AccessShareLock, NULL)))));
			break;
		}
		lock_nap(EXTENSION_POLL_MS, "AudioCleanupExtensionLock");
	}
	AcceptInvalidationMessages();
}

bool
lock_extension(const Extension *extension)
{
	Extension  *now;

	lock_extension_for_now(extension);
	now = extension_lookup(true);
	return now != NULL && now->oid == extension->oid;
}

/* The caller must hold no lock that DROP EXTENSION waits for. */
void
lock_run(const Extension *extension, int wait_ms, bool session)
{
	LOCKTAG		tag = tag_of(extension, LOCK_RUN);

	if (!take(extension, LOCK_RUN, ExclusiveLock, session, false))
	{
		int64		deadline = deadline_in(wait_ms);
		char	   *holder = describe_holder(*GetLockConflicts(&tag, ExclusiveLock, NULL));

		if (wait_ms == 0 || !wait_bounded(deadline, NULL, &tag, ExclusiveLock, session))
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("another cleanup run is under way in this database"),
					 errdetail_internal("%s", holder),
					 errhint("Try again when its transaction has ended, or raise audio_cleanup.writer_wait to wait longer.")));
	}
	if (!lock_extension(extension))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" was dropped", EXTENSION_NAME)));
}

bool
lock_await_run(const Extension *extension)
{
	int			guc_level = lock_limit_waits(-1);

	/* the wait may take hours, in which VACUUM must be able to work */
	bool		laid_down = snapshot_lay_down();

	(void) take(extension, LOCK_RUN, ExclusiveLock, false, true);
	lock_end_limit(guc_level);
	snapshot_take_up(laid_down);
	return lock_extension(extension);
}

bool
lock_try(const Extension *extension, LockName name)
{
	return take(extension, name, ExclusiveLock, true, false);
}

/*
 * RowShareLock conflicts with the ExclusiveLock of lock_against_holds(), and
 * RowExclusiveLock also with the ShareLock of lock_let_holds().
 */
bool
lock_for_hold(const Extension *extension)
{
	(void) take(extension, LOCK_HOLDS, RowShareLock, false, true);
	return take(extension, LOCK_HOLDS, RowExclusiveLock, false, false);
}

bool
lock_against_holds(const Extension *extension)
{
	return take(extension, LOCK_HOLDS, ExclusiveLock, false, false);
}

void
lock_let_holds(const Extension *extension)
{
	LOCKTAG		tag = tag_of(extension, LOCK_HOLDS);

	(void) LockAcquire(&tag, ShareLock, false, false);
	(void) LockRelease(&tag, ExclusiveLock, false);
}

void
lock_release(const Extension *extension, LockName name)
{
	LOCKTAG		tag = tag_of(extension, name);

	/* an abort of the transaction has already given back session locks */
	if (compat_lock_is_held(&tag, ExclusiveLock))
		(void) LockRelease(&tag, ExclusiveLock, true);
}

void
lock_relation(Oid relid)
{
	LOCKTAG		tag;
	char	   *holder;

	if (ConditionalLockRelationOid(relid, AccessShareLock))
		return;
	SET_LOCKTAG_RELATION(tag, IsSharedRelation(relid) ? InvalidOid : MyDatabaseId, relid);
	holder = describe_holder(*GetLockConflicts(&tag, AccessShareLock, NULL));
	if (!wait_bounded(0, NULL, &tag, AccessShareLock, false))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("gave up waiting for a lock on \"%s\"", get_rel_name(relid)),
				 errdetail_internal("Nothing was deleted. %s", holder),
				 errhint("Try again when that transaction has ended, or raise audio_cleanup.writer_wait.")));
	AcceptInvalidationMessages();
}

/*
 * Returns whether the transaction is a lazy VACUUM.  Such a VACUUM holds a
 * lock that conflicts with ours for a long time, but inserts no reference.
 * The flags are read without a lock: a transaction that vacuums has the flag
 * from its beginning to its end.
 */
static bool
is_only_vacuum(VirtualTransactionId vxid)
{
	PGPROC	   *proc;

	if (VirtualTransactionIdIsRecoveredPreparedXact(vxid))
		return false;
	proc = compat_vxid_proc(vxid);
	return proc != NULL && compat_proc_lxid(proc) == vxid.localTransactionId &&
		(proc->statusFlags & PROC_IN_VACUUM) != 0;
}

/* The locks that a transaction needs to change rows. */
#define WRITERS_LOCKS \
	(LOCKBIT_ON(RowExclusiveLock) | LOCKBIT_ON(ShareRowExclusiveLock) | \
	 LOCKBIT_ON(ExclusiveLock) | LOCKBIT_ON(AccessExclusiveLock))

/*
 * Returns whether the lock is on a table of a user, or on a relation that
 * only the transaction itself can see yet.
 */
static bool
may_be_table(const LOCKTAG *tag)
{
	char		kind = get_rel_relkind(tag->locktag_field2);

	return tag->locktag_type == LOCKTAG_RELATION && tag->locktag_field1 == MyDatabaseId &&
		tag->locktag_field2 >= FirstNormalObjectId &&
		kind != RELKIND_INDEX && kind != RELKIND_PARTITIONED_INDEX;
}

/*
 * Returns whether the transaction may write rows of the relation.  ANALYZE and
 * CREATE INDEX CONCURRENTLY also hold a lock that conflicts with ours, but
 * change no row.  ALTER TABLE ... ATTACH PARTITION takes that lock on a parent
 * and adds the rows of another table.  Its transaction holds
 * AccessExclusiveLock on the other table, or waits for that lock.
 */
static bool
writes(VirtualTransactionId vxid, Oid relid, const LockData *locks)
{
	if (VirtualTransactionIdIsRecoveredPreparedXact(vxid))
		return true;
	for (int i = 0; i < locks->nelements; i++)
	{
		const LockInstanceData *lock = &locks->locks[i];
		LOCKMASK	mask = lock->locktag.locktag_field2 == relid ? WRITERS_LOCKS
		: LOCKBIT_ON(AccessExclusiveLock);

		if (compat_lock_is_held_by(lock, vxid) &&
			((lock->holdMask | LOCKBIT_ON(lock->waitLockMode)) & mask) != 0 &&
			may_be_table(&lock->locktag))
			return true;
	}
	return false;
}

static void
wait_for_writers_of(Oid relid, int64 deadline)
{
	VirtualTransactionId *others;
	LockData   *locks;
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	others = GetLockConflicts(&tag, ShareLock, NULL);
	if (!VirtualTransactionIdIsValid(*others))
		return;

	/*
	 * read the locks after the list: a transaction that has ended meanwhile
	 * is missing in the list or among the locks, and need not be waited for
	 */
	locks = GetLockStatusData();
	for (; VirtualTransactionIdIsValid(*others); others++)
	{
		char	   *holder;

		if (is_only_vacuum(*others) || !writes(*others, relid, locks))
			continue;
		holder = describe_holder(*others);
		if (!wait_bounded(deadline, others, NULL, NoLock, false))
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("gave up waiting for a transaction that writes to \"%s\"",
							get_rel_name(relid)),
					 errdetail_internal("Nothing was deleted, because a reference that is not committed yet could protect a file. %s", holder),
					 errhint("Try again when that transaction has ended, or raise audio_cleanup.writer_wait.")));
	}
}

void
lock_wait_for_writers(List *relation_oids, int wait_ms)
{
	int64		deadline = deadline_in(wait_ms);

	foreach_oid(relid, relation_oids)
		wait_for_writers_of(relid, deadline);
}
