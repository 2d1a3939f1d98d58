/*-------------------------------------------------------------------------
 *
 * guard/claim.c
 *	  The claim of a database on its upload directory.
 *
 * People lose files when a second database works on the directory of the
 * first: a test clone, a restored dump, a standby that was promoted.  To each
 * of these databases the owner's new files look like orphans.  So the
 * directory carries a claim, and a database that is not its owner deletes
 * nothing.
 *
 * These marks tell the owner from a copy of the owner:
 *
 *	system identifier	another cluster; or, with the twin, this cluster before
 *						pg_upgrade
 *	database OID		another database of the cluster, CREATE DATABASE TEMPLATE
 *	UUID				has a twin in cleanup_claims, whose content pg_dump does
 *						not carry: a restored dump has no twin
 *	timeline			promotion, point-in-time recovery
 *	data directory		(its inode) a file-level copy that was just started
 *
 * A database that has claimed the directory once, and does not find its claim
 * there, is on the wrong disk.
 *
 * All records belong to the UUID, and not to a name of the directory: a
 * directory may be moved, or be reached by a symlink.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <sys/stat.h>

#include "access/xlog.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "src/guard/claim.h"
#include "src/guard/location.h"
#include "src/pg/lock.h"
#include "src/pg/sql.h"
#include "src/pg/time.h"

#define CLAIM_HEADER	"audio_cleanup claim 1\n"

#define LOCK_POLL_MS	100

static const char *const hint_take =
"If this database is the one whose rows describe these files, take the directory over: SELECT cleanup_claim_upload_dir();";

static const char *const hint_upgrade =
"If the old cluster will not be started again, take the directory over: SELECT cleanup_claim_upload_dir();";

/* The content of a claim. */
typedef struct ClaimText
{
	uint64		system_identifier;
	Oid			database;
	uint32		timeline;
	uint64		data_directory;
	char		uuid[64];
	char		database_name[NAMEDATALEN];
} ClaimText;


/* -------------------------------------------------------------------- text --- */

static uint64
data_directory_inode(void)
{
	struct stat st;

	return stat(DataDir, &st) == 0 ? (uint64) st.st_ino : 0;
}

/*
 * Returns the timeline, which does not change while a primary runs; 0 on a
 * standby, which has no say.
 */
static uint32
current_timeline(void)
{
	return RecoveryInProgress() ? 0 : (uint32) GetWALInsertionTimeLine();
}

char *
claim_text(const char *uuid)
{
	char	   *name = get_database_name(MyDatabaseId);

	/* a newline in the name would break a line of the claim */
	for (char *p = name; *p != '\0'; p++)
		if (iscntrl((unsigned char) *p) || isspace((unsigned char) *p))
			*p = '_';
	return psprintf(CLAIM_HEADER
					"system_identifier=" UINT64_FORMAT "\n"
					"database=%u\n"
					"timeline=%u\n"
					"data_directory_inode=" UINT64_FORMAT "\n"
					"uuid=%s\n"
					"database_name=%s\n",
					GetSystemIdentifier(), MyDatabaseId, current_timeline(),
					data_directory_inode(), uuid, name);
}

/* Parses a claim, which may come from anybody who may write into the directory. */
static bool
parse_claim(const char *text, ClaimText *claim)
{
	bool		valid;

	memset(claim, 0, sizeof(*claim));
	if (strncmp(text, CLAIM_HEADER, strlen(CLAIM_HEADER)) != 0 ||
		sscanf(text + strlen(CLAIM_HEADER),
			   "system_identifier=" UINT64_FORMAT "\n"
			   "database=%u\n"
			   "timeline=%u\n"
			   "data_directory_inode=" UINT64_FORMAT "\n"
			   "uuid=%63s\n"
			   "database_name=%63s",
			   &claim->system_identifier, &claim->database, &claim->timeline,
			   &claim->data_directory, claim->uuid, claim->database_name) != 6)
		return false;
	valid = pg_verifymbstr(claim->database_name, (int) strlen(claim->database_name), true);
	for (char *p = claim->database_name; *p != '\0'; p++)
		if (iscntrl((unsigned char) *p) || (IS_HIGHBIT_SET(*p) && !valid))
			*p = '?';
	return strspn(claim->uuid, "0123456789abcdefABCDEF-") == strlen(claim->uuid);
}


/* ------------------------------------------------------------------- check --- */

static Brake *
foreign(const char *upload_dir, const char *detail, const char *hint)
{
	return brake_make("claim", ERRCODE_OBJECT_IN_USE,
					  psprintf("upload directory \"%s\" does not belong to this database", upload_dir),
					  detail, hint);
}

static Brake *
system_brake(FileStore *store, const char *name, FileResult result, const char *upload_dir, const char *hint)
{
	CHECK_FOR_INTERRUPTS();
	return brake_make(name, ERRCODE_IO_ERROR,
					  psprintf("%s in upload directory \"%s\": %s",
							   result.failure, upload_dir, store_error_text(store, result.errnum)),
					  NULL, hint);
}

/* Returns a sentence that says why the claim is not ours, or NULL if all marks agree. */
static char *
difference(const ClaimText *claim, bool has_twin)
{
	if (claim->system_identifier != GetSystemIdentifier() && has_twin)
		return psprintf("This database has claimed it in another cluster (system identifier " UINT64_FORMAT
						"), of which this one was made since, by pg_upgrade for example.",
						claim->system_identifier);
	if (claim->system_identifier != GetSystemIdentifier())
		return psprintf("Database \"%s\" of another cluster (system identifier " UINT64_FORMAT ") has claimed it.",
						claim->database_name, claim->system_identifier);
	if (claim->database != MyDatabaseId)
		return psprintf("Database \"%s\" (OID %u) of this cluster has claimed it.",
						claim->database_name, claim->database);

	/*
	 * on a standby these two marks differ from its primary's; a standby only
	 * looks
	 */
	if (!RecoveryInProgress() && claim->timeline != current_timeline())
		return psprintf("It was claimed on timeline %u, and the server is on timeline %u: "
						"it was promoted, or recovered to a point in time.",
						claim->timeline, current_timeline());
	if (!RecoveryInProgress() && claim->data_directory != data_directory_inode())
		return psprintf("The data directory \"%s\" is a copy of the one that claimed it.", DataDir);
	if (!has_twin)
		return pstrdup("The database was restored from a dump, or the extension was created anew, since it was claimed.");
	return NULL;
}

/*
 * Returns the rows of cleanup_claims with the UUID `uuid`, or all rows if
 * `uuid` is NULL: a List of Claim, newest first.
 */
static List *
load_twins(const Extension *extension, const char *uuid)
{
	List	   *twins = NIL;
	int			n;

	n = owner_query(extension, SQL_ARGS(SQL_TEXT(uuid)),
					"SELECT uuid::text, grace_from, confirmed, upload_dir, uuid IS NOT DISTINCT FROM"
					" (SELECT claim FROM @extschema@.cleanup_runs WHERE claim IS NOT NULL ORDER BY run_id DESC LIMIT 1)"
					" FROM @extschema@.cleanup_claims WHERE $1 IS NULL OR uuid::text = $1 ORDER BY claimed_at DESC");
	for (int i = 0; i < n; i++)
	{
		Claim	   *twin = palloc0(sizeof(Claim));

		twin->uuid = sql_text(i, 1);
		twin->grace_from = sql_is_null(i, 2) ? 0 : DatumGetTimestampTz(sql_value(i, 2));
		twin->confirmed = DatumGetBool(sql_value(i, 3));
		twin->recorded_dir = sql_text(i, 4);
		twin->is_latest = DatumGetBool(sql_value(i, 5));
		twins = lappend(twins, twin);
	}
	return twins;
}

/* Returns whether `a` and `b` are one directory, by name, symlink or bind mount. */
static bool
is_same_directory(const char *a, const char *b)
{
	struct stat st_a;
	struct stat st_b;

	if (strcmp(a, b) == 0)
		return true;
	return stat(a, &st_a) == 0 && stat(b, &st_b) == 0 &&
		st_a.st_dev == st_b.st_dev && st_a.st_ino == st_b.st_ino;
}

/* Returns whether the directory has the claim at the path where the claim was seen last. */
static bool
is_in_its_place(const Claim *twin)
{
	FileStore  *store = store_open(twin->recorded_dir);
	char		text[STORE_CLAIM_MAX];
	ClaimText	found;
	bool		there;

	if (store == NULL)
		return false;
	there = store_read_claim(store, text).outcome == FILE_OK && parse_claim(text, &found) &&
		strcmp(found.uuid, twin->uuid) == 0;
	store_close(store);
	return there;
}

/*
 * Sets the state of a directory that has no claim.  The directory may have had
 * a claim, or should have one.  If the claim of the latest run is nowhere, the
 * directory may be the claimed directory under another name, or another disk
 * may be mounted.
 */
static void
check_missing(const Extension *extension, const char *upload_dir, Claim *claim)
{
	const char *lost = NULL;

	claim->state = CLAIM_FREE;
	foreach_ptr(const Claim, twin, load_twins(extension, NULL))
	{
		if (!is_same_directory(twin->recorded_dir, upload_dir))
		{
			if (twin->confirmed && twin->is_latest && !is_in_its_place(twin))
				lost = twin->recorded_dir;
			continue;
		}
		if (claim->state == CLAIM_FOREIGN || (claim->state == CLAIM_UNWRITTEN && !twin->confirmed))
			continue;
		*claim = *twin;
		claim->state = twin->confirmed ? CLAIM_FOREIGN : CLAIM_UNWRITTEN;
	}
	if (claim->state == CLAIM_FOREIGN)
		claim->brake = foreign(upload_dir,
							   "This database has claimed it before, but the claim is gone: "
							   "another disk may be mounted there, or none.", hint_take);
	else if (claim->state == CLAIM_FREE && lost != NULL)
	{
		claim->state = CLAIM_FOREIGN;
		claim->brake = foreign(upload_dir,
							   psprintf("This database has claimed \"%s\" before, and that claim is not there any more: "
										"the directory may have been moved without it.", lost), hint_take);
	}
}

static void
check_text(const char *text, const Extension *extension, const char *upload_dir, Claim *claim)
{
	ClaimText	found;
	bool		readable = parse_claim(text, &found);
	List	   *twins = readable ? load_twins(extension, found.uuid) : NIL;
	const char *detail = readable ? difference(&found, twins != NIL) : "The claim in it cannot be read.";

	if (twins != NIL)
		*claim = *(const Claim *) linitial(twins);
	/* the UUID becomes the name of a folder in the backup directory */
	if (readable && strspn(found.uuid, "0123456789abcdef-") == strlen(found.uuid))
		claim->found = pstrdup(found.uuid);
	claim->state = detail ? CLAIM_FOREIGN : CLAIM_OURS;
	if (detail)
		claim->brake = foreign(upload_dir, detail,
							   twins != NIL && found.system_identifier != GetSystemIdentifier() ?
							   hint_upgrade : hint_take);
}

Claim *
claim_check(FileStore *store, const Extension *extension, const char *upload_dir)
{
	Claim	   *claim = palloc0(sizeof(Claim));
	char		text[STORE_CLAIM_MAX];
	FileResult	result = store_read_claim(store, text);

	if (result.outcome == FILE_OK)
		check_text(text, extension, upload_dir, claim);
	else if (result.outcome == FILE_VANISHED)
		check_missing(extension, upload_dir, claim);
	else
	{
		claim->state = CLAIM_FOREIGN;
		claim->brake = system_brake(store, "claim", result, upload_dir,
									"The folder " STORE_PRIVATE_DIR " in it must belong to the server's operating system user, and nobody else may write to it.");
	}
	return claim;
}


/* ----------------------------------------------------------------- overlap --- */

static const char *const hint_overlap =
"Let one database clean the whole, or give each its own directory. If no database cleans that one any more, remove its folder " STORE_PRIVATE_DIR ".";

/*
 * Returns a sentence about the claim in the directory `path`, or NULL if
 * nobody else has claimed it.  With `may_be_closed`, the directory, or the
 * server of a bucket, may refuse to tell.
 */
static char *
find_other_owner(const char *path, bool may_be_closed)
{
	FileStore  *store = store_open(path);
	char		text[STORE_CLAIM_MAX];
	FileResult	result;
	ClaimText	found;

	if (store == NULL)
		return errno == ENOENT || (may_be_closed && errno == EACCES) ? NULL :
			psprintf("Whether somebody has claimed \"%s\" cannot be told: %m.", path);
	result = store_read_claim(store, text);
	store_close(store);
	CHECK_FOR_INTERRUPTS();
	if (result.outcome == FILE_VANISHED || (result.outcome != FILE_OK && result.errnum == EACCES && may_be_closed && !store_is_local(path)))
		return NULL;
	if (result.outcome != FILE_OK || !parse_claim(text, &found))
		return psprintf("\"%s\" has a claim that cannot be read.", path);

	/*
	 * these marks decide alone: a database that now cleans a part, or more,
	 * of its former upload directory knows the files of both directories
	 */
	if (found.system_identifier == GetSystemIdentifier() && found.database == MyDatabaseId &&
		found.data_directory == data_directory_inode())
		return NULL;
	if (found.system_identifier == GetSystemIdentifier())
		return psprintf("Database \"%s\" (OID %u) of this cluster, or a copy of it, has claimed \"%s\".",
						found.database_name, found.database, path);
	return psprintf("Database \"%s\" of another cluster (system identifier " UINT64_FORMAT ") has claimed \"%s\".",
					found.database_name, found.system_identifier, path);
}

/* Cuts the last component of a path or of the name of a bucket.  Returns false at the top. */
static bool
go_up(char *path)
{
	char	   *begin = store_is_local(path) ? path : strstr(path, "//") + 2;
	char	   *slash = strrchr(begin, '/');

	if (slash == NULL || slash[1] == '\0')
		return false;
	slash[slash == path ? 1 : 0] = '\0';
	return true;
}

/* Returns a sentence about a claim of somebody else in a directory above `dir`, or NULL. */
static char *
find_owner_above(const char *dir)
{
	char		path[PATH_MAX];
	char	   *owner = NULL;

	if (!store_is_local(dir))
		strlcpy(path, dir, sizeof(path));
	else if (realpath(dir, path) == NULL)
		return NULL;
	while (owner == NULL && go_up(path))
		owner = find_other_owner(path, true);
	return owner;
}

Brake *
claim_check_above(const char *upload_dir, const char *backup_dir)
{
	char	   *owner = find_owner_above(upload_dir);

	if (owner != NULL)
		return brake_make("claim", ERRCODE_OBJECT_IN_USE,
						  psprintf("upload directory \"%s\" lies in the upload directory of another database", upload_dir),
						  owner, hint_overlap);
	if (*backup_dir == '\0' || (owner = find_owner_above(backup_dir)) == NULL)
		return NULL;
	return brake_make("backup_dir", ERRCODE_OBJECT_IN_USE,
					  psprintf("backup directory \"%s\" lies in the upload directory of another database", backup_dir),
					  owner, "Set audio_cleanup.backup_dir to a directory in which nobody cleans.");
}

Brake *
claim_check_below(const char *upload_dir, const char *folder)
{
	char	   *owner = find_other_owner(psprintf("%s/%s", upload_dir, folder), false);

	return owner == NULL ? NULL :
		brake_make("claim", ERRCODE_OBJECT_IN_USE,
				   psprintf("upload directory \"%s\" contains the upload directory of another database", upload_dir),
				   owner, hint_overlap);
}


/* -------------------------------------------------------------------- lock --- */

Brake *
claim_lock(FileStore *store, const char *upload_dir, int wait_ms)
{
	int64		deadline = time_monotonic_us() + (int64) wait_ms * 1000;
	FileResult	result;

	while ((result = store_lock(store)).outcome == FILE_OCCUPIED &&
		   time_monotonic_us() < deadline)
	{
		/* poll, because a process that gives back the lock wakes nobody */
		lock_nap(LOCK_POLL_MS, "AudioCleanupDirectoryLock");
	}
	if (result.outcome == FILE_OCCUPIED)
	{
		int			holder = store_lock_holder(store);

		return brake_make("directory_lock", ERRCODE_LOCK_NOT_AVAILABLE,
						  psprintf("another cleanup run is under way in upload directory \"%s\"", upload_dir),
						  holder > 0 ? psprintf("Process %d holds the lock of its claim.", holder) :
						  "A process on another host or in another container holds the lock of its claim.",
						  "Try again when it has ended, or raise audio_cleanup.writer_wait to wait longer.");
	}
	if (result.outcome == FILE_OK || result.outcome == FILE_VANISHED)
		return NULL;
	return system_brake(store, "directory_lock", result, upload_dir,
						"The claim in its folder " STORE_PRIVATE_DIR " must be a file of the server's operating system user.");
}


/* -------------------------------------------------------------------- take --- */

void
claim_confirm(const Extension *extension, const Claim *claim, const char *upload_dir)
{
	const SqlParameter parameters[] = {SQL_TEXT(claim->uuid), SQL_TEXT(upload_dir)};

	if (claim->confirmed && strcmp(claim->recorded_dir, upload_dir) == 0)
		return;
	owner_query(extension, lengthof(parameters), parameters,
				"UPDATE @extschema@.cleanup_claims SET confirmed = true, upload_dir = $2"
				" WHERE uuid::text = $1 AND NOT (confirmed AND upload_dir = $2)");

	/*
	 * version 1.0 recorded no claim of a run, and the directory was moved
	 * after the run
	 */
	owner_query(extension, lengthof(parameters), parameters,
				"UPDATE @extschema@.cleanup_runs SET claim = $1::uuid WHERE claim IS NULL AND upload_dir = $2");
}

/*
 * Gives the runs of all claims that this database has had in the directory to
 * the claim `uuid`, and deletes the other claims.
 */
static void
inherit(const Extension *extension, const char *upload_dir, const char *found, const char *uuid)
{
	foreach_ptr(const Claim, twin, load_twins(extension, NULL))
	{
		const SqlParameter parameters[] = {SQL_TEXT(uuid), SQL_TEXT(twin->uuid)};

		if (strcmp(twin->uuid, uuid) == 0 ||
			!((found != NULL && strcmp(twin->uuid, found) == 0) ||
			  is_same_directory(twin->recorded_dir, upload_dir)))
			continue;
		owner_query(extension, lengthof(parameters), parameters,
					"UPDATE @extschema@.cleanup_runs SET claim = $1::uuid WHERE claim = $2::uuid");
		owner_query(extension, lengthof(parameters), parameters,
					"DELETE FROM @extschema@.cleanup_claims WHERE uuid = $2::uuid AND $1 IS NOT NULL");
	}
	/* runs that came with a dump: their claim has no twin */
	owner_query(extension, SQL_ARGS(SQL_TEXT(uuid), SQL_TEXT(upload_dir), SQL_TEXT(found)),
				"UPDATE @extschema@.cleanup_runs r SET claim = $1::uuid"
				" WHERE (r.claim::text = $3 OR r.upload_dir = $2)"
				"  AND NOT EXISTS (SELECT FROM @extschema@.cleanup_claims c WHERE c.uuid = r.claim)");
}

char *
claim_take(const Extension *extension, const char *upload_dir, const char *found, bool grace,
		   const char **uuid)
{
	*uuid = TextDatumGetCString(owner_value(extension, SQL_ARGS(SQL_TEXT(upload_dir), SQL_BOOL(grace)),
											"INSERT INTO @extschema@.cleanup_claims (uuid, upload_dir, grace_from)"
											" VALUES (gen_random_uuid(), $1, CASE WHEN $2 THEN clock_timestamp() END)"
											" RETURNING uuid::text"));
	inherit(extension, upload_dir, found, *uuid);

	/*
	 * Make the files that were condemned so far older than the take-over, as
	 * they are: the clock may have been set back since, or may be that of
	 * another machine, from which this cluster was replicated.  Files that
	 * are no backup are due when they are condemned.
	 */
	if (grace)
		owner_query(extension, SQL_ARGS(SQL_TEXT(*uuid)),
					"UPDATE @extschema@.cleanup_files f SET condemned_at = c.grace_from - interval '1 microsecond',"
					"  due_at = CASE WHEN f.due_at > f.condemned_at THEN f.due_at ELSE c.grace_from - interval '1 microsecond' END"
					" FROM @extschema@.cleanup_claims c WHERE c.uuid = $1::uuid"
					"  AND f.state IN ('pending', 'trashed', 'restoring') AND f.condemned_at >= c.grace_from");
	return claim_text(*uuid);
}

const char *
claim_find(const Extension *extension, const char *upload_dir, bool may_write, Brake **brake)
{
	FileStore  *store;
	const char *volatile uuid = NULL;

	*brake = location_open(upload_dir, &store);
	if (*brake != NULL)
		return NULL;
	PG_TRY();
	{
		Claim	   *claim = claim_check(store, extension, upload_dir);

		if (may_write && claim->state == CLAIM_UNWRITTEN && !store_acts_at_commit(store))
		{
			(void) store_write_claim(store, claim_text(claim->uuid), false);
			claim = claim_check(store, extension, upload_dir);
		}
		*brake = claim->brake;
		if (claim->state == CLAIM_OURS)
			claim_confirm(extension, claim, upload_dir);
		if (claim->brake == NULL)
			uuid = claim->uuid;
	}
	PG_FINALLY();
	{
		store_close(store);
	}
	PG_END_TRY();
	return uuid;
}

void
claim_confirm_all(const Extension *extension)
{
	foreach_ptr(const Claim, twin, load_twins(extension, NULL))
	{
		Brake	   *ignored;

		if (!twin->confirmed)
			(void) claim_find(extension, twin->recorded_dir, true, &ignored);
	}
}
