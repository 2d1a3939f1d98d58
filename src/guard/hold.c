/*-------------------------------------------------------------------------
 *
 * guard/hold.c
 *	  Files that are never cleaned.
 *
 * A hold is a row, and a run treats the row as a reference: the run waits for
 * a transaction that is about to commit a hold.  A hold names one file
 * exactly.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "src/guard/hold.h"
#include "src/pg/lock.h"
#include "src/pg/sql.h"
#include "src/store/store.h"

const char *
hold_find(const Extension *extension, const char *path)
{
	const char *reason;

	if (owner_query(extension, SQL_ARGS(SQL_TEXT(path)),
					"SELECT held_by, reason FROM @extschema@.cleanup_holds WHERE file = $1 COLLATE \"C\"") == 0)
		return NULL;
	reason = sql_text(0, 2);
	return psprintf("it is held by \"%s\"%s%s", sql_text(0, 1), reason ? ": " : "", reason ? reason : "");
}

/*
 * Returns whether no file has that name: the name was probably mistyped.  Looks
 * only if the store acts at commit, or with `waits` only if the store does not,
 * because a look then waits for a network.
 */
static bool
is_missing(const Settings *settings, const char *path, bool waits)
{
	FileStore  *store = store_open(settings->upload_dir);
	FileIdentity found;
	FileOutcome outcome = FILE_OK;

	if (store == NULL)
		return false;
	if (store_acts_at_commit(store) != waits)
		outcome = store_identify(store, path, false, &found).outcome;
	store_close(store);
	return outcome == FILE_VANISHED || outcome == FILE_NOT_REGULAR;
}

/* Returns whether a step that destroys files now may be destroying the file `path`. */
static bool
is_doomed(const Extension *extension, const char *path)
{
	return owner_finds(extension, SQL_ARGS(SQL_TEXT(path)),
					   "SELECT FROM @extschema@.cleanup_files f WHERE f.file = $1 COLLATE \"C\" AND f.upload_id IS NULL"
					   " AND f.due_at <= pg_catalog.clock_timestamp() AND (f.state = 'trashed' OR f.state = 'pending')");
}

/*
 * No step of a run can begin to destroy files while the lock is held.  So the
 * server of a bucket is asked before, and afterwards only the rows.
 */
void
hold_add(const Extension *extension, const Settings *settings, const char *path, const char *reason)
{
	TimestampTz looked = GetCurrentTimestamp();
	bool		missing = is_missing(settings, path, true);
	bool		in_time;

	CHECK_FOR_INTERRUPTS();
	in_time = lock_for_hold(extension);
	owner_query(extension,
				SQL_ARGS(SQL_TEXT(path), SQL_TEXT(reason), SQL_TEXT(GetUserNameFromId(GetOuterUserId(), false))),
				"INSERT INTO @extschema@.cleanup_holds AS h (file, reason, held_by) VALUES ($1, $2, $3)"
				" ON CONFLICT (file) DO UPDATE SET reason = $2, held_by = $3, held_at = DEFAULT");
	/* an old snapshot does not show what a run has condemned since */
	if (!in_time && (IsolationUsesXactSnapshot() || is_doomed(extension, path)))
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the hold may be too late for the file \"%s\"", path),
				 errdetail("Files that a run has condemned are being deleted for good now."),
				 errhint("cleanup_explain() says what has become of the file.")));
	/* a run may have deleted the file since */
	else if (missing ||
			 owner_finds(extension, SQL_ARGS(SQL_TEXT(path), SQL_VALUE(TIMESTAMPTZOID, TimestampTzGetDatum(looked))),
						 "SELECT FROM @extschema@.cleanup_files"
						 " WHERE file = $1 COLLATE \"C\" AND state = 'deleted' AND finished_at >= $2") ||
			 is_missing(settings, path, false))
		ereport(NOTICE,
				(errcode(ERRCODE_UNDEFINED_FILE),
				 errmsg("there is no file \"%s\" in the upload directory now", path),
				 errhint("A hold names exactly one file, by its path relative to the upload directory.")));
}

bool
hold_remove(const Extension *extension, const char *path)
{
	return owner_query(extension, SQL_ARGS(SQL_TEXT(path)),
					   "DELETE FROM @extschema@.cleanup_holds WHERE file = $1 COLLATE \"C\"") > 0;
}
