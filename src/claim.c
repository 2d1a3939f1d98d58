/*-------------------------------------------------------------------------
 *
 * claim.c
 *	  Whose directory is this?
 *
 * People lose files when a second database works on the directory of the
 * first: a test clone, a restored dump, a standby that was promoted.  To all
 * of them the owner's new files look like orphans.  So the directory carries
 * a claim, and a database that is not its owner deletes nothing.
 *
 * What tells the owner from a copy of it:
 *
 *	system identifier	another cluster
 *	database OID		another database of the cluster, CREATE DATABASE TEMPLATE
 *	UUID				has a twin in cleanup_claims, whose content pg_dump does
 *						not carry: a restored dump has none
 *	timeline			promotion, point-in-time recovery
 *	data directory		(its inode) a file-level copy that was just started
 *
 * The other way round, a database that once claimed the directory and does
 * not find its claim there is on the wrong disk.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "src/claim.h"
#include "src/compat.h"
#include "src/sql.h"

#define CLAIM_HEADER	"audio_cleanup claim 1\n"

#define LOCK_POLL_MS	100

static const char *const hint_take =
"If this database is the one whose rows describe these files, take the directory over: SELECT cleanup_claim_upload_dir();";

/* What a claim says. */
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

/* Does not change while a primary runs; a standby has no say. */
static uint32
current_timeline(void)
{
	return RecoveryInProgress() ? 0 : (uint32) GetWALInsertionTimeLine();
}

/* The database's name is for people; one with a newline would break a line. */
static char *
printable_database_name(void)
{
	char	   *name = get_database_name(MyDatabaseId);
	char	   *p;

	for (p = name; *p != '\0'; p++)
		if (iscntrl((unsigned char) *p) || isspace((unsigned char) *p))
			*p = '_';
	return name;
}

char *
claim_text(const char *uuid)
{
	return psprintf(CLAIM_HEADER
					"system_identifier=" UINT64_FORMAT "\n"
					"database=%u\n"
					"timeline=%u\n"
					"data_directory_inode=" UINT64_FORMAT "\n"
					"uuid=%s\n"
					"database_name=%s\n",
					GetSystemIdentifier(), MyDatabaseId, current_timeline(),
					data_directory_inode(), uuid, printable_database_name());
}

static bool
parse_claim(const char *text, ClaimText *claim)
{
	memset(claim, 0, sizeof(*claim));
	if (strncmp(text, CLAIM_HEADER, strlen(CLAIM_HEADER)) != 0)
		return false;
	return sscanf(text + strlen(CLAIM_HEADER),
				  "system_identifier=" UINT64_FORMAT "\n"
				  "database=%u\n"
				  "timeline=%u\n"
				  "data_directory_inode=" UINT64_FORMAT "\n"
				  "uuid=%63s\n"
				  "database_name=%63s",
				  &claim->system_identifier, &claim->database, &claim->timeline,
				  &claim->data_directory, claim->uuid, claim->database_name) == 6;
}


/* ------------------------------------------------------------------- check --- */

static Brake *
foreign(const char *upload_dir, char *detail)
{
	return brake_make("claim", ERRCODE_OBJECT_IN_USE,
					  psprintf("upload directory \"%s\" does not belong to this database", upload_dir),
					  detail, (char *) hint_take);
}

/* Why the claim is not ours; NULL if nothing speaks against it. */
static char *
difference(const ClaimText *claim)
{
	if (claim->system_identifier != GetSystemIdentifier())
		return psprintf("Database \"%s\" of another cluster (system identifier " UINT64_FORMAT ") has claimed it.",
						claim->database_name, claim->system_identifier);
	if (claim->database != MyDatabaseId)
		return psprintf("Database \"%s\" (OID %u) of this cluster has claimed it.",
						claim->database_name, claim->database);
	/* a standby differs from its primary in the rest, and only looks */
	if (RecoveryInProgress())
		return NULL;
	if (claim->timeline != current_timeline())
		return psprintf("It was claimed on timeline %u, and the server is on timeline %u: "
						"it was promoted, or recovered to a point in time.",
						claim->timeline, current_timeline());
	if (claim->data_directory != data_directory_inode())
		return psprintf("The data directory \"%s\" is a copy of the one that claimed it.", DataDir);
	return NULL;
}

/* The twin by UUID, or else by directory: fills the claim, false without. */
static bool
find_twin(const Extension *extension, const char *condition, const char *value, Claim *claim)
{
	const SqlParameter parameters[] = {SQL_TEXT(value)};
	bool		found;

	found = owner_query(extension, lengthof(parameters), parameters,
						psprintf("SELECT uuid::text, grace_from, confirmed FROM @extschema@.cleanup_claims"
								 " WHERE %s ORDER BY claimed_at DESC LIMIT 1", condition)) > 0;
	if (found)
	{
		claim->uuid = sql_text(0, 1);
		claim->confirmed = DatumGetBool(sql_value(0, 3));
		claim->grace_from = sql_is_null(0, 2) ? 0 : DatumGetTimestampTz(sql_value(0, 2));
	}
	SPI_freetuptable(SPI_tuptable);
	return found;
}

static void
check_missing(const Extension *extension, const char *upload_dir, Claim *claim)
{
	if (find_twin(extension, "upload_dir = $1 AND confirmed", upload_dir, claim))
	{
		claim->state = CLAIM_FOREIGN;
		claim->brake = foreign(upload_dir,
							   "This database has claimed it before, but the claim is gone: "
							   "another disk may be mounted there, or none.");
	}
	else if (find_twin(extension, "upload_dir = $1", upload_dir, claim))
		claim->state = CLAIM_UNWRITTEN;
	else
		claim->state = CLAIM_FREE;
}

static void
check_text(const char *text, const Extension *extension, const char *upload_dir, Claim *claim)
{
	ClaimText	found;
	char	   *detail;

	if (!parse_claim(text, &found))
		detail = "The claim in it cannot be read.";
	else if ((detail = difference(&found)) == NULL &&
			 !find_twin(extension, "uuid::text = $1", found.uuid, claim))
		detail = "The database was restored from a dump, or the extension was created anew, since it was claimed.";
	/* it names a folder of the backup directory */
	if (detail != NULL && parse_claim(text, &found) &&
		strspn(found.uuid, "0123456789abcdef-") == strlen(found.uuid))
		claim->found = pstrdup(found.uuid);
	claim->state = detail ? CLAIM_FOREIGN : CLAIM_OURS;
	if (detail)
		claim->brake = foreign(upload_dir, detail);
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
		claim->brake = brake_make("claim", ERRCODE_IO_ERROR,
								  psprintf("could not %s in upload directory \"%s\": %s",
										   result.action, upload_dir, strerror(result.errnum)),
								  NULL,
								  "The folder " STORE_PRIVATE_DIR " in it must belong to the server's operating system user, and nobody else may write to it.");
	}
	return claim;
}


/* -------------------------------------------------------------------- lock --- */

static Brake *
busy_brake(FileStore *store, const char *upload_dir)
{
	int			holder = store_lock_holder(store);

	return brake_make("directory_lock", ERRCODE_LOCK_NOT_AVAILABLE,
					  psprintf("another cleanup run is under way in upload directory \"%s\"", upload_dir),
					  holder > 0 ? psprintf("Process %d holds the lock of its claim.", holder) :
					  "A process on another host or in another container holds the lock of its claim.",
					  "Try again when it has ended, or raise audio_cleanup.writer_wait to wait longer.");
}

static Brake *
lock_brake(FileResult result, const char *upload_dir)
{
	return brake_make("directory_lock", ERRCODE_IO_ERROR,
					  psprintf("could not %s in upload directory \"%s\": %s",
							   result.action, upload_dir, strerror(result.errnum)),
					  NULL,
					  "The claim in its folder " STORE_PRIVATE_DIR " must be a file of the server's operating system user.");
}

Brake *
claim_lock(FileStore *store, const char *upload_dir, int wait_ms)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait_ms);
	FileResult	result;

	while ((result = store_lock(store)).outcome == FILE_OCCUPIED &&
		   GetCurrentTimestamp() < deadline)
	{
		/* nobody wakes us up when it is given back */
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOCK_POLL_MS, compat_wait_event("AudioCleanupDirectoryLock"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	if (result.outcome == FILE_OCCUPIED)
		return busy_brake(store, upload_dir);
	if (result.outcome == FILE_OK || result.outcome == FILE_VANISHED)
		return NULL;
	return lock_brake(result, upload_dir);
}


/* -------------------------------------------------------------------- take --- */

void
claim_confirm(const Extension *extension, const Claim *claim, const char *upload_dir)
{
	const SqlParameter parameters[] = {SQL_TEXT(claim->uuid), SQL_TEXT(upload_dir)};

	if (claim->confirmed)
		return;
	owner_query(extension, lengthof(parameters), parameters,
				"UPDATE @extschema@.cleanup_claims SET confirmed = true, upload_dir = $2"
				" WHERE uuid::text = $1 AND NOT confirmed");
}

char *
claim_take(const Extension *extension, const char *upload_dir, bool grace, const char **uuid)
{
	const SqlParameter parameters[] = {SQL_TEXT(upload_dir), SQL_BOOL(grace)};

	owner_query(extension, 1, parameters, "DELETE FROM @extschema@.cleanup_claims WHERE upload_dir = $1");
	owner_query(extension, lengthof(parameters), parameters,
				"INSERT INTO @extschema@.cleanup_claims (uuid, upload_dir, grace_from)"
				" VALUES (gen_random_uuid(), $1, CASE WHEN $2 THEN clock_timestamp() END)"
				" RETURNING uuid::text");
	*uuid = sql_text(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return claim_text(*uuid);
}

static void
confirm_directory(const Extension *extension, const char *upload_dir)
{
	FileStore  *store = store_open(upload_dir);
	Claim	   *claim;

	if (store == NULL)
		return;
	PG_TRY();
	{
		claim = claim_check(store, extension, upload_dir);
		if (claim->state == CLAIM_OURS)
			claim_confirm(extension, claim, upload_dir);
	}
	PG_FINALLY();
	{
		store_close(store);
	}
	PG_END_TRY();
}

void
claim_confirm_all(const Extension *extension)
{
	List	   *directories = NIL;
	ListCell   *lc;
	int			n;
	int			i;

	n = owner_query(extension, 0, NULL, "SELECT upload_dir FROM @extschema@.cleanup_claims WHERE NOT confirmed");
	for (i = 0; i < n; i++)
		directories = lappend(directories, sql_text(i, 1));
	SPI_freetuptable(SPI_tuptable);
	foreach(lc, directories)
		confirm_directory(extension, lfirst(lc));
}
