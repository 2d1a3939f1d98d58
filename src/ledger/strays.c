/*-------------------------------------------------------------------------
 *
 * ledger/strays.c
 *	  Inserts rows for files in the trash that have no row.  Declared in
 *	  backups.h.
 *
 * A row that has come to its end is inserted as a row that has not, and is
 * updated in the same transaction: triggers AFTER UPDATE count what has come to
 * its end.  INSERT counts nothing, because the restore of a dump inserts, too.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "src/ledger/backups.h"
#include "src/pg/sql.h"

/* days that a file without a row stays in the trash, if it could not be put back */
#define FOUND_DAYS	30

/* the sequence of the numbers of runs */
#define RUN_NUMBERS	"cleanup_runs_run_id_seq"

/* The run r has files in the trash, by their rows; the first condition is that of an index. */
#define HAS_BACKUPS \
	"EXISTS (SELECT FROM @extschema@.cleanup_files f WHERE f.run_id = r.run_id" \
	" AND f.state NOT IN ('deleted', 'skipped', 'pending') AND f.state IN ('trashed', 'restoring'))"

List *
backup_places(const Extension *extension, const char *claim, bool in_use)
{
	List	   *places = NIL;
	int			n;

	n = owner_query(extension, SQL_ARGS(SQL_TEXT(claim), SQL_BOOL(in_use)),
					"SELECT DISTINCT ON (r.settings ->> 'backup_dir', r.settings ->> 'backup_owner') r.settings"
					" FROM @extschema@.cleanup_runs r WHERE r.claim = $1::uuid"
					" AND r.settings ->> 'backup_dir' <> '' AND r.settings ? 'backup_owner'"
					" AND (NOT $2 OR " HAS_BACKUPS ")");
	for (int i = 0; i < n; i++)
		places = lappend(places, DatumGetJsonbPCopy(sql_value(i, 1)));
	return places;
}

bool
backup_exist_at(const Extension *extension, const char *backup_dir, const char *owner)
{
	return owner_finds(extension, SQL_ARGS(SQL_TEXT(backup_dir), SQL_TEXT(owner)),
					   "SELECT FROM @extschema@.cleanup_runs r"
					   " WHERE r.settings ->> 'backup_dir' = $1 AND r.settings ->> 'backup_owner' = $2"
					   " AND " HAS_BACKUPS " LIMIT 1");
}

static const char *const pick_queries[] = {
	[RUNS_UNKNOWN] = "SELECT u FROM pg_catalog.unnest($1) u"
	" WHERE NOT EXISTS (SELECT FROM @extschema@.cleanup_runs r WHERE r.run_id = u) ORDER BY u",
	[RUNS_ELSEWHERE] = "SELECT run_id FROM @extschema@.cleanup_runs"
	" WHERE run_id = ANY ($1) AND claim IS DISTINCT FROM $2::uuid ORDER BY run_id",
	[RUNS_SETTLED] = "SELECT r.run_id FROM @extschema@.cleanup_runs r WHERE r.run_id = ANY ($1) AND r.claim = $2::uuid"
	" AND NOT EXISTS (SELECT FROM @extschema@.cleanup_files f WHERE f.run_id = r.run_id AND f.state = 'pending')"
	" AND NOT " HAS_BACKUPS " ORDER BY r.run_id",
};

int64 *
backup_pick_runs(const Extension *extension, BackupRuns which, const char *claim, const int64 *runs, int *n)
{
	int64	   *picked = palloc(sizeof(int64) * Max(*n, 1));

	*n = *n == 0 ? 0 : owner_query(extension, SQL_ARGS(SQL_INT8S(runs, *n), SQL_TEXT(claim)), pick_queries[which]);
	for (int i = 0; i < *n; i++)
		picked[i] = DatumGetInt64(sql_value(i, 1));
	return picked;
}

int64
backup_new_run(const Extension *extension)
{
	return DatumGetInt64(owner_value(extension,
									 SQL_ARGS(SQL_OID(REGCLASSOID, extension_relation(extension, RUN_NUMBERS))),
									 "SELECT pg_catalog.nextval($1)"));
}

int64
backup_last_run(const Extension *extension)
{
	return DatumGetInt64(owner_value(extension, 0, NULL, "SELECT last_value FROM @extschema@." RUN_NUMBERS));
}

/*
 * The inode is not compared, because a copy has another inode; and a copy may
 * have lost the part of a second: see store_same_copy().
 */
bool
backup_is_recorded(const Extension *extension, int64 run_id, const char *path,
				   const FileIdentity *identity)
{
	return owner_finds(extension,
					   SQL_ARGS(SQL_INT8(run_id), SQL_TEXT(path), SQL_INT8(identity->size), SQL_INT8(identity->mtime_ns)),
					   "SELECT FROM @extschema@.cleanup_files WHERE run_id = $1 AND file = $2 COLLATE \"C\""
					   " AND state IN ('pending', 'trashed', 'restoring') AND size = $3"
					   " AND (mtime_ns = $4 OR $4 % 1000000000 = 0 AND mtime_ns / 1000000000 = $4 / 1000000000) LIMIT 1");
}

void
backup_record_run(const Extension *extension, int64 run_id, const char *upload_dir,
				  const char *claim, Jsonb *recorded)
{
	const SqlParameter parameters[] = {
		SQL_INT8(run_id), SQL_TEXT(GetUserNameFromId(GetOuterUserId(), false)),
		SQL_TEXT(upload_dir), SQL_VALUE(JSONBOID, JsonbPGetDatum(recorded)),
		SQL_TEXT(claim), SQL_OID(REGCLASSOID, extension_relation(extension, RUN_NUMBERS))
	};

	owner_query(extension, 5, parameters,
				"INSERT INTO @extschema@.cleanup_runs (run_id, what, message, requested_by, upload_dir, settings, claim)"
				" VALUES ($1, 'all', 'this database does not know the run; its files were found in the trash',"
				"  $2, $3, $4, $5::uuid)");
	owner_query(extension, 1, parameters,
				"UPDATE @extschema@.cleanup_runs SET status = 'interrupted', finished_at = pg_catalog.clock_timestamp()"
				" WHERE run_id = $1");
	owner_query(extension, lengthof(parameters), parameters,
				"SELECT pg_catalog.setval($6, $1) FROM @extschema@." RUN_NUMBERS
				" WHERE last_value < $1 OR last_value = $1 AND NOT is_called");
}

void
backup_record_file(const Extension *extension, int64 run_id, const char *path,
				   const FileIdentity *identity, const char *state, const char *error)
{
	const SqlParameter parameters[] = {
		SQL_INT8(run_id), SQL_TEXT(path), SQL_TEXT(error), SQL_INT8(identity->size), SQL_INT8((int64) identity->inode),
		SQL_INT8(identity->mtime_ns), SQL_INT8(identity->ctime_ns), SQL_INT8(identity->btime_ns),
		SQL_INT8(store_space_of(identity))
	};
	int64		file_id;

	file_id = DatumGetInt64(owner_value(extension, lengthof(parameters), parameters,
										"INSERT INTO @extschema@.cleanup_files (run_id, file, reason, state, error, size, modified_at, due_at,"
										"  inode, mtime_ns, ctime_ns, btime_ns, space)"
										" VALUES ($1, $2, 'unknown', 'restoring', $3, $4, pg_catalog.to_timestamp($6 / 1e9),"
										"  now() + '" CppAsString2(FOUND_DAYS) " days', $5, $6, $7, $8, $9)"
										" RETURNING file_id"));
	if (strcmp(state, "restoring") != 0)
		owner_query(extension, SQL_ARGS(SQL_INT8(run_id), SQL_INT8(file_id), SQL_TEXT(state)),
					"UPDATE @extschema@.cleanup_files SET state = $3, finished_at = pg_catalog.clock_timestamp()"
					" WHERE run_id = $1 AND file_id = $2");
	owner_query(extension, 1, parameters,
				"UPDATE @extschema@.cleanup_runs SET files = files + 1 WHERE run_id = $1");
}
