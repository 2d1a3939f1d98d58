/*-------------------------------------------------------------------------
 *
 * ledger/backups.c
 *	  Rows of the files in the trash.
 *
 * A backup is a row of cleanup_files in state trashed that was not due at once.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "src/ledger/backups.h"
#include "src/pg/sql.h"

/* rows that one statement reads */
#define SCAN_ROWS	1000

#define IS_BACKUP	"f.state = 'trashed' AND f.due_at > f.condemned_at"

/* Reads a row with the columns file_id, file, run_id and due_at. */
static void
read_backup(int row, Backup *backup)
{
	backup->file_id = DatumGetInt64(sql_value(row, 1));
	backup->path = sql_text(row, 2);
	backup->run_id = DatumGetInt64(sql_value(row, 3));
	backup->expires_at = DatumGetTimestampTz(sql_value(row, 4));
}

Backup *
backup_find(const Extension *extension, const char *claim, const char *path)
{
	Backup	   *backup;

	if (owner_query(extension, SQL_ARGS(SQL_TEXT(claim), SQL_TEXT(path)),
					"SELECT f.file_id, f.file, f.run_id, f.due_at FROM @extschema@.cleanup_files f"
					" JOIN @extschema@.cleanup_runs r ON r.run_id = f.run_id"
					" WHERE f.file = $2 COLLATE \"C\" AND (f.state = 'trashed' OR f.state = 'pending') AND f.upload_id IS NULL AND r.claim = $1::uuid"
					" ORDER BY f.run_id DESC, f.file_id DESC LIMIT 1") == 0)
		return NULL;
	backup = palloc(sizeof(Backup));
	read_backup(0, backup);
	return backup;
}

/*
 * An expression that is true if a later run has a newer file of that name in
 * the trash or on its way.  Each state has an index of its own, so there is a
 * branch for each state.
 */
#define NEWER_FILE(run_id, file_name, uuid) \
	"EXISTS (SELECT FROM (SELECT n.run_id FROM @extschema@.cleanup_files n WHERE n.state = 'trashed' AND n.file = " file_name \
	"  UNION ALL SELECT n.run_id FROM @extschema@.cleanup_files n" \
	"   WHERE n.state = 'pending' AND n.upload_id IS NULL AND n.run_id > " run_id " AND n.file = " file_name " COLLATE \"C\"" \
	"  UNION ALL SELECT n.run_id FROM @extschema@.cleanup_files n" \
	"   WHERE n.state = 'restoring' AND n.run_id > " run_id " AND n.file = " file_name " COLLATE \"C\") newer" \
	" JOIN @extschema@.cleanup_runs nr ON nr.run_id = newer.run_id" \
	" WHERE nr.run_id > " run_id " AND nr.claim = " uuid ")"

bool
backup_has_newer(const Extension *extension, const char *claim, int64 run_id, const char *path)
{
	return owner_finds(extension, SQL_ARGS(SQL_TEXT(claim), SQL_TEXT(path), SQL_INT8(run_id)),
					   "SELECT WHERE " NEWER_FILE("$3", "$2", "$1::uuid"));
}

bool
backup_exist(const Extension *extension, const char *claim)
{
	return owner_finds(extension, SQL_ARGS(SQL_TEXT(claim)),
					   "SELECT FROM @extschema@.cleanup_files f JOIN @extschema@.cleanup_runs r ON r.run_id = f.run_id"
					   " WHERE " IS_BACKUP " AND ($1 IS NULL OR r.claim = $1::uuid) LIMIT 1");
}

void
backup_scan(const Extension *extension, const char *claim, BackupSink sink, void *arg)
{
	int64		file_id = 0;
	int			n;

	do
	{
		CHECK_FOR_INTERRUPTS();
		n = owner_query(extension, SQL_ARGS(SQL_TEXT(claim), SQL_INT8(file_id)),
						"SELECT f.file_id, f.file FROM @extschema@.cleanup_files f"
						" JOIN @extschema@.cleanup_runs r ON r.run_id = f.run_id"
						" WHERE " IS_BACKUP " AND r.claim = $1::uuid AND f.file_id > $2"
						" ORDER BY f.file_id LIMIT " CppAsString2(SCAN_ROWS));
		for (int i = 0; i < n; i++)
		{
			char	   *path = sql_text(i, 2);

			file_id = DatumGetInt64(sql_value(i, 1));
			sink(file_id, path, arg);
			pfree(path);
		}
	} while (n > 0);
}

int
backup_newest(const Extension *extension, const int64 *file_ids, int n, Backup **files)
{
	int			newest;

	newest = owner_query(extension, SQL_ARGS(SQL_INT8S(file_ids, n)),
						 "SELECT f.file_id, f.file, f.run_id, f.due_at FROM @extschema@.cleanup_files f"
						 " JOIN @extschema@.cleanup_runs r ON r.run_id = f.run_id"
						 " WHERE f.file_id = ANY ($1) AND f.state = 'trashed' AND NOT " NEWER_FILE("f.run_id", "f.file", "r.claim"));
	*files = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Backup) * Max(newest, 1));
	for (int i = 0; i < newest; i++)
		read_backup(i, &(*files)[i]);
	return newest;
}

int64
backup_mark_restoring(const Extension *extension, const int64 *file_ids, int n, const char *reason)
{
	return owner_query(extension,
					   SQL_ARGS(SQL_INT8S(file_ids, n), SQL_TEXT(reason)),
					   "UPDATE @extschema@.cleanup_files f SET state = 'restoring', error = $2,"
					   " due_at = CASE WHEN f.due_at <= now() THEN f.due_at ELSE greatest(f.due_at, now() + '1 day') END"
					   " WHERE f.file_id = ANY ($1) AND f.state = 'trashed'");
}
