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

#include "src/guard/hold.h"
#include "src/pg/lock.h"
#include "src/pg/sql.h"
#include "src/store/store.h"

Hold *
hold_find(const Extension *extension, const char *path)
{
	Hold	   *hold = NULL;

	if (owner_query(extension, SQL_ARGS(SQL_TEXT(path)),
					"SELECT held_by, reason FROM @extschema@.cleanup_holds WHERE file = $1 COLLATE \"C\"") > 0)
	{
		hold = palloc(sizeof(Hold));
		hold->held_by = sql_text(0, 1);
		hold->reason = sql_text(0, 2);
	}
	SPI_freetuptable(SPI_tuptable);
	return hold;
}

/* Tells the caller if no file has that name: the name was probably mistyped. */
static void
tell_if_missing(const Settings *settings, const char *path)
{
	FileStore  *store = store_open(settings->upload_dir);
	FileIdentity found;
	FileOutcome outcome;

	if (store == NULL)
		return;
	outcome = store_identify(store, path, &found).outcome;
	store_close(store);
	if (outcome == FILE_VANISHED || outcome == FILE_NOT_REGULAR)
		ereport(NOTICE,
				(errcode(ERRCODE_UNDEFINED_FILE),
				 errmsg("there is no file \"%s\" in the upload directory now", path),
				 errhint("A hold names exactly one file, by its path relative to the upload directory.")));
}

void
hold_add(const Extension *extension, const Settings *settings, const char *path, const char *reason)
{
	lock_for_hold(extension);
	owner_query(extension,
				SQL_ARGS(SQL_TEXT(path), SQL_TEXT(reason), SQL_TEXT(GetUserNameFromId(GetOuterUserId(), false))),
				"INSERT INTO @extschema@.cleanup_holds AS h (file, reason, held_by) VALUES ($1, $2, $3)"
				" ON CONFLICT (file) DO UPDATE SET reason = $2, held_by = $3, held_at = DEFAULT");
	tell_if_missing(settings, path);
}

bool
hold_remove(const Extension *extension, const char *path)
{
	return owner_query(extension, SQL_ARGS(SQL_TEXT(path)),
					   "DELETE FROM @extschema@.cleanup_holds WHERE file = $1 COLLATE \"C\"") > 0;
}
