/*-------------------------------------------------------------------------
 *
 * pg/extension.c
 *	  The extension as the server knows it; acting as a role; locks.
 *
 * Every SQL statement of this extension runs either as the owner of the
 * extension (on its own tables) or as the owner of a source (reading it),
 * never as whoever called, and always with a search_path of pg_catalog: what
 * a caller has in his search_path, or what a table's owner put into an index
 * expression, must not run with rights that are not his own.  The functions
 * cannot simply be SECURITY DEFINER because cleanup_run() commits.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "src/pg/compat.h"
#include "src/pg/extension.h"
#include "src/pg/sql.h"

/* objsubids of our locks on the extension; DROP EXTENSION takes 0 */
#define RUN_LOCK_SUBID		1
#define QUEUE_LOCK_SUBID	2
#define MAIL_LOCK_SUBID		3	/* and 4, see MailLock */

/* Another version has other tables, and nothing may be done with them. */
static void
require_known_version(const char *version)
{
	if (strcmp(version, AUDIO_CLEANUP_VERSION) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("extension \"%s\" has version %s in this database, and its library has version %s",
					EXTENSION_NAME, version, AUDIO_CLEANUP_VERSION),
			 strverscmp(version, AUDIO_CLEANUP_VERSION) < 0
			 ? errhint("Run ALTER EXTENSION %s UPDATE.", EXTENSION_NAME)
			 : errhint("Install the library of version %s, and restart the server.", version)));
}

/* Returns the extension of this database, or NULL; ERROR if it has another version than this library. */
static Extension *
read_extension(void)
{
	Extension  *extension = NULL;
	int			n;

	n = sql_query(0, NULL, "SELECT e.oid, e.extowner, e.extnamespace, e.extversion"
				  " FROM pg_catalog.pg_extension e"
				  " WHERE e.extname OPERATOR(pg_catalog.=) '" EXTENSION_NAME "'");
	if (n > 0)
	{
		extension = palloc(sizeof(Extension));
		extension->oid = DatumGetObjectId(sql_value(0, 1));
		extension->owner = DatumGetObjectId(sql_value(0, 2));
		extension->namespace_oid = DatumGetObjectId(sql_value(0, 3));
		require_known_version(sql_text(0, 4));
	}
	SPI_freetuptable(SPI_tuptable);
	return extension;
}

Extension *
extension_lookup(bool missing_ok)
{
	Extension  *extension = read_extension();

	if (extension == NULL && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database", EXTENSION_NAME),
				 errhint("Run CREATE EXTENSION %s.", EXTENSION_NAME)));
	return extension;
}

const char *
extension_schema(const Extension *extension)
{
	const char *name = get_namespace_name(extension->namespace_oid);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" was dropped", EXTENSION_NAME)));
	return quote_identifier(name);
}

Oid
extension_relation(const Extension *extension, const char *name)
{
	Oid			relation = get_relname_relid(name, extension->namespace_oid);

	if (!OidIsValid(relation) ||
		getExtensionOfObject(RelationRelationId, relation) != extension->oid)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s\" of extension \"%s\" does not exist", name, EXTENSION_NAME)));
	return relation;
}


/* --------------------------------------------------------------- acting --- */

static void
set_for_now(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
extension_act_as(Oid role, ActingAs *saved)
{
	GetUserIdAndSecContext(&saved->user, &saved->security_context);
	SetUserIdAndSecContext(role, saved->security_context |
						   SECURITY_RESTRICTED_OPERATION |
						   SECURITY_LOCAL_USERID_CHANGE);
	saved->guc_level = NewGUCNestLevel();
	set_for_now("search_path", "pg_catalog, pg_temp");
	/* compiling takes longer than any statement of ours is worth */
	set_for_now("jit", "off");
}

void
extension_join_by_hash(void)
{
	/* joins of working sets of which the planner knows only the size */
	set_for_now("enable_nestloop", "off");
	set_for_now("enable_mergejoin", "off");
	/* "off" is but a price: it decides nothing where all have to pay it */
	set_for_now("enable_hashjoin", "on");
}

void
extension_read_carefully(void)
{
	/* a policy that would hide rows is an error, not an orphan */
	set_for_now("row_security", "off");
	/* a damaged page is an error, not a page without rows */
	set_for_now("zero_damaged_pages", "off");
	set_for_now("ignore_checksum_failure", "off");
	/* a corrupt text index must not hide a row either */
	set_for_now("enable_seqscan", "on");
	set_for_now("enable_indexscan", "off");
	set_for_now("enable_indexonlyscan", "off");
	set_for_now("enable_bitmapscan", "off");
	set_for_now("enable_tidscan", "off");
	extension_join_by_hash();
	set_for_now("max_parallel_workers_per_gather", "0");
}

int
extension_limit_lock_waits(int wait_ms)
{
	int			guc_level = NewGUCNestLevel();

	if (LockTimeout == 0 || LockTimeout > wait_ms)
		set_for_now("lock_timeout", psprintf("%d", Max(wait_ms, 1)));
	return guc_level;
}

void
extension_end_limit(int guc_level)
{
	AtEOXact_GUC(false, guc_level);
}

void
extension_stop_acting(const ActingAs *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->user, saved->security_context);
}


/* ---------------------------------------------------------------- locks --- */

typedef struct Deadline
{
	bool		bounded;
	TimestampTz at;
} Deadline;

static Deadline
deadline_in(int wait_ms)
{
	Deadline	deadline = {wait_ms >= 0, 0};

	if (deadline.bounded)
		deadline.at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait_ms);
	return deadline;
}

/* Milliseconds left, at least 1, because a lock_timeout of 0 is none. */
static int
milliseconds_left(const Deadline *deadline)
{
	return (int) Max(1, TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
														deadline->at));
}

/*
 * Call `wait` under a lock_timeout, unless the caller's own is shorter.
 * Returns false if the time was up; then the transaction must be aborted by
 * an ERROR, because nothing was cleaned up after the one that was caught.
 */
static bool
wait_bounded(const Deadline *deadline, void (*wait) (void *), void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool in_time = true;
	int			guc_level;
	int			limit;

	if (!deadline->bounded)
	{
		wait(arg);
		return true;
	}
	limit = milliseconds_left(deadline);
	if (LockTimeout > 0)
		limit = Min(limit, LockTimeout);
	guc_level = NewGUCNestLevel();
	set_for_now("lock_timeout", psprintf("%d", limit));
	PG_TRY();
	{
		wait(arg);
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
	AtEOXact_GUC(false, guc_level);
	return in_time;
}

/* Who has it?  For the reader of an error only: he may be gone already. */
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

static void
set_lock_tag(LOCKTAG *tag, const Extension *extension, uint16 subid)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, ExtensionRelationId, extension->oid, subid);
}

/* An abort of the transaction has given back session locks already. */
static void
release_session_lock(const LOCKTAG *tag)
{
	if (compat_lock_is_held(tag, ExclusiveLock))
		(void) LockRelease(tag, ExclusiveLock, true);
}

typedef struct RunLock
{
	LOCKTAG		tag;
	bool		session;
} RunLock;

static void
acquire_run_lock(void *arg)
{
	RunLock    *lock = arg;

	(void) LockAcquire(&lock->tag, ExclusiveLock, lock->session, false);
}

bool
extension_guard(const Extension *extension)
{
	Extension  *now;

	LockDatabaseObject(ExtensionRelationId, extension->oid, 0, AccessShareLock);
	now = read_extension();
	return now != NULL && now->oid == extension->oid;
}

static void
wait_for_run_lock(RunLock *lock, int wait_ms)
{
	Deadline	deadline = deadline_in(wait_ms);
	char	   *holder = describe_holder(*GetLockConflicts(&lock->tag, ExclusiveLock, NULL));

	if (wait_ms == 0 || !wait_bounded(&deadline, acquire_run_lock, lock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("another cleanup run is under way in this database"),
				 errdetail_internal("%s", holder),
				 errhint("Try again when its transaction has ended, or raise audio_cleanup.writer_wait to wait longer.")));
}

/* Whoever waits here must hold no lock that DROP EXTENSION waits for. */
void
extension_lock_run(const Extension *extension, int wait_ms, bool session)
{
	RunLock		lock;

	set_lock_tag(&lock.tag, extension, RUN_LOCK_SUBID);
	lock.session = session;
	if (LockAcquire(&lock.tag, ExclusiveLock, session, true) == LOCKACQUIRE_NOT_AVAIL)
		wait_for_run_lock(&lock, wait_ms);
	if (!extension_guard(extension))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" was dropped", EXTENSION_NAME)));
}

bool
extension_await_run(const Extension *extension)
{
	RunLock		lock;

	set_lock_tag(&lock.tag, extension, RUN_LOCK_SUBID);
	lock.session = false;
	/* hours, perhaps, in which VACUUM must not be kept from its work */
	PopActiveSnapshot();
	acquire_run_lock(&lock);
	PushActiveSnapshot(GetTransactionSnapshot());
	return extension_guard(extension);
}

void
extension_unlock_run(const Extension *extension)
{
	LOCKTAG		tag;

	set_lock_tag(&tag, extension, RUN_LOCK_SUBID);
	release_session_lock(&tag);
}

bool
extension_queue_up(const Extension *extension)
{
	LOCKTAG		tag;

	set_lock_tag(&tag, extension, QUEUE_LOCK_SUBID);
	return LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

void
extension_leave_queue(const Extension *extension)
{
	LOCKTAG		tag;

	set_lock_tag(&tag, extension, QUEUE_LOCK_SUBID);
	release_session_lock(&tag);
}

/*
 * Kept between transactions by a process that may be told to end there: a
 * lock of the ordinary method would then be left behind, one of the users'
 * method (that of advisory locks, which have other tags) is given back.
 */
static void
set_mail_tag(LOCKTAG *tag, const Extension *extension, MailLock which)
{
	set_lock_tag(tag, extension, MAIL_LOCK_SUBID + which);
	tag->locktag_lockmethodid = USER_LOCKMETHOD;
}

bool
extension_try_mail_lock(const Extension *extension, MailLock which)
{
	LOCKTAG		tag;

	set_mail_tag(&tag, extension, which);
	return LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

void
extension_release_mail_lock(const Extension *extension, MailLock which)
{
	LOCKTAG		tag;

	set_mail_tag(&tag, extension, which);
	(void) LockRelease(&tag, ExclusiveLock, true);
}

static void
lock_relation(void *arg)
{
	LockRelationOid(*(Oid *) arg, AccessShareLock);
}

void
extension_lock_relation(Oid relid)
{
	Deadline	deadline = deadline_in(LockTimeout > 0 ? LockTimeout : -1);
	LOCKTAG		tag;
	char	   *holder;

	if (ConditionalLockRelationOid(relid, AccessShareLock))
		return;
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	holder = describe_holder(*GetLockConflicts(&tag, AccessShareLock, NULL));
	if (wait_bounded(&deadline, lock_relation, &relid))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("gave up waiting for a lock on \"%s\"; nothing was deleted", get_rel_name(relid)),
			 errdetail_internal("%s", holder),
			 errhint("Try again when that transaction has ended, or raise audio_cleanup.writer_wait.")));
}

static void
wait_for_transaction(void *arg)
{
	(void) VirtualXactLock(*(VirtualTransactionId *) arg, true);
}

/*
 * A lazy VACUUM holds a lock that conflicts with ours for as long as it
 * takes, but inserts no reference.  The flags are read without a lock: a
 * transaction that vacuums does so from its beginning to its end.
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

/* Locks of those who change rows. */
#define WRITERS_LOCKS \
	(LOCKBIT_ON(RowExclusiveLock) | LOCKBIT_ON(ShareRowExclusiveLock) | \
	 LOCKBIT_ON(ExclusiveLock) | LOCKBIT_ON(AccessExclusiveLock))

/* A table of somebody's, or one that nobody else can see yet. */
static bool
may_be_table(const LOCKTAG *tag)
{
	char		kind = get_rel_relkind(tag->locktag_field2);

	return tag->locktag_type == LOCKTAG_RELATION && tag->locktag_field1 == MyDatabaseId &&
		tag->locktag_field2 >= FirstNormalObjectId &&
		kind != RELKIND_INDEX && kind != RELKIND_PARTITIONED_INDEX;
}

/*
 * ANALYZE and CREATE INDEX CONCURRENTLY hold a lock that conflicts with ours,
 * too, and change no row.  ALTER TABLE holds that lock on a parent to which it
 * attaches a table with its rows, but locks that table against everybody, or
 * waits to do so.
 */
static bool
writes(VirtualTransactionId vxid, Oid relid, const LockData *locks)
{
	int			i;

	if (VirtualTransactionIdIsRecoveredPreparedXact(vxid))
		return true;
	for (i = 0; i < locks->nelements; i++)
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
wait_for_writer(VirtualTransactionId *writer, Oid relid, const Deadline *deadline)
{
	char	   *holder = describe_holder(*writer);

	if (!wait_bounded(deadline, wait_for_transaction, writer))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("gave up waiting for a transaction that writes to \"%s\"; nothing was deleted",
						get_rel_name(relid)),
				 errdetail_internal("A reference that is not committed yet could protect a file. %s", holder),
				 errhint("Try again when that transaction has ended, or raise audio_cleanup.writer_wait.")));
}

static void
wait_for_writers_of(Oid relid, const Deadline *deadline)
{
	VirtualTransactionId *others;
	LockData   *locks;
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	others = GetLockConflicts(&tag, ShareLock, NULL);
	if (!VirtualTransactionIdIsValid(*others))
		return;

	/*
	 * after that list: who has ended meanwhile is in neither, and need not be
	 * waited for
	 */
	locks = GetLockStatusData();
	for (; VirtualTransactionIdIsValid(*others); others++)
		if (!is_only_vacuum(*others) && writes(*others, relid, locks))
			wait_for_writer(others, relid, deadline);
}

void
extension_wait_for_writers(List *relation_oids, int wait_ms)
{
	Deadline	deadline = deadline_in(wait_ms);
	ListCell   *lc;

	foreach(lc, relation_oids)
		wait_for_writers_of(lfirst_oid(lc), &deadline);
}
