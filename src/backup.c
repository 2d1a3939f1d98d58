/*-------------------------------------------------------------------------
 *
 * backup.c
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

#include "src/backup.h"
#include "src/sql.h"

/* rows that are read at a time */
#define SCAN_ROWS	1000

/* a file that was found without its row, and could not be put back */
#define FOUND_DAYS	30

#define IS_BACKUP	"f.state = 'trashed' AND f.due_at > f.condemned_at"

Backup *
backup_find(const Extension *extension, const char *upload_dir, const char *path)
{
	const SqlParameter parameters[] = {SQL_TEXT(upload_dir), SQL_TEXT(path)};
	Backup	   *backup = NULL;
	ActingAs	saved;

	extension_act_as(extension->owner, &saved);
	if (sql_query(lengthof(parameters), parameters,
				  "SELECT f.file_id, f.run_id, f.due_at FROM %1$s.cleanup_files f"
				  " JOIN %1$s.cleanup_runs r ON r.run_id = f.run_id"
				  " WHERE f.file = $2 COLLATE \"C\" AND f.state IN ('trashed', 'pending') AND r.upload_dir = $1"
				  " ORDER BY f.run_id DESC, f.file_id DESC LIMIT 1", extension->schema) > 0)
	{
		backup = palloc(sizeof(Backup));
		backup->file_id = DatumGetInt64(sql_value(0, 1));
		backup->run_id = DatumGetInt64(sql_value(0, 2));
		backup->expires_at = DatumGetTimestampTz(sql_value(0, 3));
	}
	SPI_freetuptable(SPI_tuptable);
	extension_stop_acting(&saved);
	return backup;
}

bool
backup_exist(const Extension *extension, const char *upload_dir)
{
	const SqlParameter parameters[] = {SQL_TEXT(upload_dir)};
	ActingAs	saved;
	bool		exist;

	extension_act_as(extension->owner, &saved);
	exist = sql_query(lengthof(parameters), parameters,
					  "SELECT FROM %1$s.cleanup_files f JOIN %1$s.cleanup_runs r ON r.run_id = f.run_id"
					  " WHERE " IS_BACKUP " AND r.upload_dir = $1 LIMIT 1", extension->schema) > 0;
	SPI_freetuptable(SPI_tuptable);
	extension_stop_acting(&saved);
	return exist;
}

/* Returns false when there are no more rows after *file_id. */
static bool
scan_some(const Extension *extension, const char *upload_dir, int64 *file_id,
		  BackupSink sink, void *arg)
{
	const SqlParameter parameters[] = {SQL_TEXT(upload_dir), SQL_INT8(*file_id)};
	ActingAs	saved;
	int			n;
	int			i;

	extension_act_as(extension->owner, &saved);
	n = sql_query(lengthof(parameters), parameters,
				  "SELECT f.file_id, f.file FROM %1$s.cleanup_files f"
				  " JOIN %1$s.cleanup_runs r ON r.run_id = f.run_id"
				  " WHERE " IS_BACKUP " AND r.upload_dir = $1 AND f.file_id > $2"
				  "  AND NOT EXISTS (SELECT FROM %1$s.cleanup_files g JOIN %1$s.cleanup_runs s ON s.run_id = g.run_id"
				  "   WHERE g.file = f.file AND g.state = 'trashed' AND g.file_id > f.file_id AND s.upload_dir = $1)"
				  " ORDER BY f.file_id LIMIT " CppAsString2(SCAN_ROWS), extension->schema);
	extension_stop_acting(&saved);
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
backup_scan(const Extension *extension, const char *upload_dir, BackupSink sink, void *arg)
{
	int64		file_id = 0;

	while (scan_some(extension, upload_dir, &file_id, sink, arg))
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

int64
backup_mark_restoring(const Extension *extension, const int64 *file_ids, int n, const char *reason)
{
	const SqlParameter parameters[] = {
		{INT8ARRAYOID, make_array(file_ids, n), false}, SQL_TEXT(reason)
	};
	ActingAs	saved;
	int64		marked;

	extension_act_as(extension->owner, &saved);
	marked = sql_query(lengthof(parameters), parameters,
					   "UPDATE %s.cleanup_files f SET state = 'restoring', error = $2,"
					   " due_at = greatest(f.due_at, now() + '1 day')"
					   " WHERE f.file_id = ANY ($1) AND f.state = 'trashed'", extension->schema);
	extension_stop_acting(&saved);
	return marked;
}


/* --------------------------------------------------- what the rows do not tell --- */

List *
backup_places(const Extension *extension, const char *upload_dir)
{
	const SqlParameter parameters[] = {SQL_TEXT(upload_dir)};
	List	   *places = NIL;
	ActingAs	saved;
	int			n;
	int			i;

	extension_act_as(extension->owner, &saved);
	n = sql_query(lengthof(parameters), parameters,
				  "SELECT DISTINCT ON (settings ->> 'backup_dir', settings ->> 'backup_owner') settings"
				  " FROM %s.cleanup_runs WHERE upload_dir = $1"
				  " AND settings ->> 'backup_dir' <> '' AND settings ? 'backup_owner'",
				  extension->schema);
	for (i = 0; i < n; i++)
	{
		BackupPlace *place = palloc(sizeof(BackupPlace));

		place->upload_dir = upload_dir;
		place->settings = DatumGetJsonbPCopy(sql_value(i, 1));
		places = lappend(places, place);
	}
	SPI_freetuptable(SPI_tuptable);
	extension_stop_acting(&saved);
	return places;
}

int
backup_unknown_runs(const Extension *extension, int64 *runs, int n)
{
	const SqlParameter parameters[] = {{INT8ARRAYOID, make_array(runs, n), false}};
	ActingAs	saved;
	int			unknown;
	int			i;

	extension_act_as(extension->owner, &saved);
	unknown = sql_query(lengthof(parameters), parameters,
						"SELECT u FROM pg_catalog.unnest($1) u"
						" WHERE NOT EXISTS (SELECT FROM %s.cleanup_runs r WHERE r.run_id = u) ORDER BY u",
						extension->schema);
	for (i = 0; i < unknown; i++)
		runs[i] = DatumGetInt64(sql_value(i, 1));
	SPI_freetuptable(SPI_tuptable);
	extension_stop_acting(&saved);
	return unknown;
}

bool
backup_is_recorded(const Extension *extension, int64 run_id, const char *path)
{
	const SqlParameter parameters[] = {SQL_INT8(run_id), SQL_TEXT(path)};
	ActingAs	saved;
	bool		recorded;

	extension_act_as(extension->owner, &saved);
	recorded = sql_query(lengthof(parameters), parameters,
						 "SELECT FROM %s.cleanup_files WHERE run_id = $1 AND file = $2 COLLATE \"C\" LIMIT 1",
						 extension->schema) > 0;
	SPI_freetuptable(SPI_tuptable);
	extension_stop_acting(&saved);
	return recorded;
}

void
backup_record_run(const Extension *extension, int64 run_id, const char *upload_dir, Jsonb *settings)
{
	const SqlParameter parameters[] = {
		SQL_INT8(run_id), SQL_TEXT(GetUserNameFromId(GetOuterUserId(), false)),
		SQL_TEXT(upload_dir), {JSONBOID, JsonbPGetDatum(settings), false}
	};
	ActingAs	saved;

	extension_act_as(extension->owner, &saved);
	sql_query(lengthof(parameters), parameters,
			  "INSERT INTO %s.cleanup_runs (run_id, what, status, message, requested_by, upload_dir,"
			  "  settings, finished_at)"
			  " VALUES ($1, 'all', 'interrupted', 'this database does not know the run; its files were found in the trash',"
			  "  $2, $3, $4, pg_catalog.clock_timestamp())", extension->schema);
	sql_query(1, parameters,
			  "SELECT pg_catalog.setval('%1$s.cleanup_runs_run_id_seq', $1) FROM %1$s.cleanup_runs_run_id_seq"
			  " WHERE last_value < $1 OR last_value = $1 AND NOT is_called", extension->schema);
	SPI_freetuptable(SPI_tuptable);
	extension_stop_acting(&saved);
}

void
backup_record_file(const Extension *extension, int64 run_id, const char *path,
				   const FileIdentity *identity, bool restored, const char *error)
{
	const SqlParameter parameters[] = {
		SQL_INT8(run_id), SQL_TEXT(path), SQL_TEXT(restored ? "restored" : "trashed"),
		SQL_TEXT(error), SQL_INT8(identity->size), SQL_INT8((int64) identity->inode),
		SQL_INT8(identity->mtime_ns), SQL_INT8(identity->ctime_ns), SQL_INT8(identity->btime_ns)
	};
	ActingAs	saved;

	extension_act_as(extension->owner, &saved);
	sql_query(lengthof(parameters), parameters,
			  "INSERT INTO %s.cleanup_files (run_id, file, reason, state, error, size, modified_at, due_at,"
			  "  finished_at, inode, mtime_ns, ctime_ns, btime_ns)"
			  " VALUES ($1, $2, 'unknown', $3, $4, $5, pg_catalog.to_timestamp($7 / 1e9),"
			  "  now() + '" CppAsString2(FOUND_DAYS) " days',"
			  "  CASE WHEN $3 = 'restored' THEN pg_catalog.clock_timestamp() END, $6, $7, $8, $9)",
			  extension->schema);
	sql_query(1, parameters,
			  "UPDATE %s.cleanup_runs SET files = files + 1 WHERE run_id = $1", extension->schema);
	extension_stop_acting(&saved);
}
