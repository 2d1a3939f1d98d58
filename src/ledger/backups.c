/*-------------------------------------------------------------------------
 *
 * ledger/backups.c
 *	  What is known of the files in the trash.
 *
 * A backup is a row of cleanup_files in state trashed that was not due at once.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "src/ledger/backups.h"
#include "src/pg/sql.h"

/* rows that are read at a time */
#define SCAN_ROWS	1000

/* a file that was found without its row, and could not be put back */
#define FOUND_DAYS	30

/* the sequence of the numbers of runs */
#define RUN_NUMBERS	"cleanup_runs_run_id_seq"

#define IS_BACKUP	"f.state = 'trashed' AND f.due_at > f.condemned_at"

Backup *
backup_find(const Extension *extension, const char *claim, const char *path)
{
	const SqlParameter parameters[] = {SQL_TEXT(claim), SQL_TEXT(path)};
	Backup	   *backup = NULL;

	if (owner_query(extension, lengthof(parameters), parameters,
					"SELECT f.file_id, f.run_id, f.due_at FROM @extschema@.cleanup_files f"
					" JOIN @extschema@.cleanup_runs r ON r.run_id = f.run_id"
					" WHERE f.file = $2 COLLATE \"C\" AND f.state IN ('trashed', 'pending') AND r.claim = $1::uuid"
					" ORDER BY f.run_id DESC, f.file_id DESC LIMIT 1") > 0)
	{
		backup = palloc(sizeof(Backup));
		backup->file_id = DatumGetInt64(sql_value(0, 1));
		backup->run_id = DatumGetInt64(sql_value(0, 2));
		backup->expires_at = DatumGetTimestampTz(sql_value(0, 3));
	}
	SPI_freetuptable(SPI_tuptable);
	return backup;
}

/* Of a run the rows that are pending are found by the run, those of backups by the file: so there are two branches. */
bool
backup_has_newer(const Extension *extension, const char *claim, int64 run_id, const char *path)
{
	const SqlParameter parameters[] = {SQL_TEXT(claim), SQL_TEXT(path), SQL_INT8(run_id)};
	bool		newer;

	newer = owner_query(extension, lengthof(parameters), parameters,
						"SELECT FROM (SELECT run_id FROM @extschema@.cleanup_files WHERE state = 'trashed' AND file = $2"
						"  UNION ALL SELECT run_id FROM @extschema@.cleanup_files WHERE state = 'pending' AND run_id > $3 AND file = $2 COLLATE \"C\""
						"  UNION ALL SELECT run_id FROM @extschema@.cleanup_files WHERE state = 'restoring' AND run_id > $3 AND file = $2 COLLATE \"C\") f"
						" JOIN @extschema@.cleanup_runs r ON r.run_id = f.run_id"
						" WHERE r.run_id > $3 AND r.claim = $1::uuid LIMIT 1") > 0;
	SPI_freetuptable(SPI_tuptable);
	return newer;
}

bool
backup_exist(const Extension *extension, const char *claim)
{
	const SqlParameter parameters[] = {SQL_TEXT(claim)};
	bool		exist;

	exist = owner_query(extension, lengthof(parameters), parameters,
						"SELECT FROM @extschema@.cleanup_files f JOIN @extschema@.cleanup_runs r ON r.run_id = f.run_id"
						" WHERE " IS_BACKUP " AND r.claim = $1::uuid LIMIT 1") > 0;
	SPI_freetuptable(SPI_tuptable);
	return exist;
}

/* Returns false when there are no more rows after *file_id. */
static bool
scan_some(const Extension *extension, const char *claim, int64 *file_id,
		  BackupSink sink, void *arg)
{
	const SqlParameter parameters[] = {SQL_TEXT(claim), SQL_INT8(*file_id)};
	int			n;
	int			i;

	n = owner_query(extension, lengthof(parameters), parameters,
					"SELECT f.file_id, f.file FROM @extschema@.cleanup_files f"
					" JOIN @extschema@.cleanup_runs r ON r.run_id = f.run_id"
					" WHERE " IS_BACKUP " AND r.claim = $1::uuid AND f.file_id > $2"
					" ORDER BY f.file_id LIMIT " CppAsString2(SCAN_ROWS));
	for (i = 0; i < n; i++)
	{
		char	   *path = sql_text(i, 2);

		*file_id = DatumGetInt64(sql_value(i, 1));
		sink(*file_id, path, arg);
		pfree(path);
	}
	SPI_freetuptable(SPI_tuptable);
	return n > 0;
}

void
backup_scan(const Extension *extension, const char *claim, BackupSink sink, void *arg)
{
	int64		file_id = 0;

	while (scan_some(extension, claim, &file_id, sink, arg))
		CHECK_FOR_INTERRUPTS();
}

static Datum
make_array(const int64 *values, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));
	int			i;

	for (i = 0; i < n; i++)
		elements[i] = Int64GetDatum(values[i]);
	return PointerGetDatum(construct_array(elements, n, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

int
backup_newest(const Extension *extension, const int64 *file_ids, int n, BackupFile **files)
{
	const SqlParameter parameters[] = {{INT8ARRAYOID, make_array(file_ids, n), false}};
	int			newest;
	int			i;

	newest = owner_query(extension, lengthof(parameters), parameters,
						 "SELECT DISTINCT ON (file) file_id, file FROM @extschema@.cleanup_files"
						 " WHERE file_id = ANY ($1) AND state = 'trashed' ORDER BY file, run_id DESC, file_id DESC");
	*files = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(BackupFile) * Max(newest, 1));
	for (i = 0; i < newest; i++)
	{
		(*files)[i].file_id = DatumGetInt64(sql_value(i, 1));
		(*files)[i].path = sql_text(i, 2);
	}
	SPI_freetuptable(SPI_tuptable);
	return newest;
}

int64
backup_mark_restoring(const Extension *extension, const int64 *file_ids, int n, const char *reason)
{
	const SqlParameter parameters[] = {
		{INT8ARRAYOID, make_array(file_ids, n), false}, SQL_TEXT(reason)
	};
	int64		marked;

	marked = owner_query(extension, lengthof(parameters), parameters,
						 "UPDATE @extschema@.cleanup_files f SET state = 'restoring', error = $2,"
						 " due_at = CASE WHEN f.due_at <= now() THEN f.due_at ELSE greatest(f.due_at, now() + '1 day') END"
						 " WHERE f.file_id = ANY ($1) AND f.state = 'trashed'");
	return marked;
}


/* --------------------------------------------------- what the rows do not tell --- */

List *
backup_places(const Extension *extension, const char *claim)
{
	const SqlParameter parameters[] = {SQL_TEXT(claim)};
	List	   *places = NIL;
	int			n;
	int			i;

	n = owner_query(extension, lengthof(parameters), parameters,
					"SELECT DISTINCT ON (settings ->> 'backup_dir', settings ->> 'backup_owner') settings"
					" FROM @extschema@.cleanup_runs WHERE claim = $1::uuid"
					" AND settings ->> 'backup_dir' <> '' AND settings ? 'backup_owner'");
	for (i = 0; i < n; i++)
		places = lappend(places, DatumGetJsonbPCopy(sql_value(i, 1)));
	SPI_freetuptable(SPI_tuptable);
	return places;
}

int
backup_unknown_runs(const Extension *extension, int64 *runs, int n)
{
	const SqlParameter parameters[] = {{INT8ARRAYOID, make_array(runs, n), false}};
	int			unknown;
	int			i;

	unknown = owner_query(extension, lengthof(parameters), parameters,
						  "SELECT u FROM pg_catalog.unnest($1) u"
						  " WHERE NOT EXISTS (SELECT FROM @extschema@.cleanup_runs r WHERE r.run_id = u) ORDER BY u");
	for (i = 0; i < unknown; i++)
		runs[i] = DatumGetInt64(sql_value(i, 1));
	SPI_freetuptable(SPI_tuptable);
	return unknown;
}

int
backup_runs_elsewhere(const Extension *extension, const char *claim, int64 *runs, int n)
{
	const SqlParameter parameters[] = {
		{INT8ARRAYOID, make_array(runs, n), false}, SQL_TEXT(claim)
	};
	int			elsewhere;
	int			i;

	elsewhere = owner_query(extension, lengthof(parameters), parameters,
							"SELECT run_id FROM @extschema@.cleanup_runs WHERE run_id = ANY ($1) AND claim IS DISTINCT FROM $2::uuid"
							" ORDER BY run_id");
	for (i = 0; i < elsewhere; i++)
		runs[i] = DatumGetInt64(sql_value(i, 1));
	SPI_freetuptable(SPI_tuptable);
	return elsewhere;
}

int64
backup_new_run(const Extension *extension)
{
	const SqlParameter parameters[] = {
		{REGCLASSOID, ObjectIdGetDatum(extension_relation(extension, RUN_NUMBERS)), false}
	};
	int64		run_id;

	owner_query(extension, lengthof(parameters), parameters, "SELECT pg_catalog.nextval($1)");
	run_id = DatumGetInt64(sql_value(0, 1));
	SPI_freetuptable(SPI_tuptable);
	return run_id;
}

/* A copy has another inode. */
bool
backup_is_recorded(const Extension *extension, int64 run_id, const char *path,
				   const FileIdentity *identity)
{
	const SqlParameter parameters[] = {
		SQL_INT8(run_id), SQL_TEXT(path), SQL_INT8(identity->size), SQL_INT8(identity->mtime_ns)
	};
	bool		recorded;

	recorded = owner_query(extension, lengthof(parameters), parameters,
						   "SELECT FROM @extschema@.cleanup_files WHERE run_id = $1 AND file = $2 COLLATE \"C\""
						   " AND state IN ('pending', 'trashed', 'restoring') AND size = $3 AND mtime_ns = $4 LIMIT 1") > 0;
	SPI_freetuptable(SPI_tuptable);
	return recorded;
}

void
backup_record_run(const Extension *extension, int64 run_id, const Settings *settings, Jsonb *recorded)
{
	const SqlParameter parameters[] = {
		SQL_INT8(run_id), SQL_TEXT(GetUserNameFromId(GetOuterUserId(), false)),
		SQL_TEXT(settings->upload_dir), {JSONBOID, JsonbPGetDatum(recorded), false},
		SQL_TEXT(settings->claim), {REGCLASSOID, ObjectIdGetDatum(extension_relation(extension, RUN_NUMBERS)), false}
	};

	owner_query(extension, 5, parameters,
				"INSERT INTO @extschema@.cleanup_runs (run_id, what, status, message, requested_by, upload_dir,"
				"  settings, claim, finished_at)"
				" VALUES ($1, 'all', 'interrupted', 'this database does not know the run; its files were found in the trash',"
				"  $2, $3, $4, $5::uuid, pg_catalog.clock_timestamp())");
	owner_query(extension, lengthof(parameters), parameters,
				"SELECT pg_catalog.setval($6, $1) FROM @extschema@.cleanup_runs_run_id_seq"
				" WHERE last_value < $1 OR last_value = $1 AND NOT is_called");
	SPI_freetuptable(SPI_tuptable);
}

void
backup_record_file(const Extension *extension, int64 run_id, const char *path,
				   const FileIdentity *identity, const char *state, const char *error)
{
	const SqlParameter parameters[] = {
		SQL_INT8(run_id), SQL_TEXT(path), SQL_TEXT(state),
		SQL_TEXT(error), SQL_INT8(identity->size), SQL_INT8((int64) identity->inode),
		SQL_INT8(identity->mtime_ns), SQL_INT8(identity->ctime_ns), SQL_INT8(identity->btime_ns),
		SQL_INT8(store_space_of(identity))
	};

	owner_query(extension, lengthof(parameters), parameters,
				"INSERT INTO @extschema@.cleanup_files (run_id, file, reason, state, error, size, modified_at, due_at,"
				"  finished_at, inode, mtime_ns, ctime_ns, btime_ns, space)"
				" VALUES ($1, $2, 'unknown', $3, $4, $5, pg_catalog.to_timestamp($7 / 1e9),"
				"  now() + '" CppAsString2(FOUND_DAYS) " days',"
				"  CASE WHEN $3 <> 'restoring' THEN pg_catalog.clock_timestamp() END, $6, $7, $8, $9, $10)");
	owner_query(extension, 1, parameters,
				"UPDATE @extschema@.cleanup_runs SET files = files + 1 WHERE run_id = $1");
}
