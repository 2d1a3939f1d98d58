/*-------------------------------------------------------------------------
 *
 * ledger/outcome.c
 *	  The outcome of a run's files, for its report.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"


#include "src/ledger/ledger.h"
#include "src/pg/sql.h"

/*
 * A condition that is true for the files of run $1 that have gone.  An upload
 * that was never completed is no file.
 */
#define GONE \
	"(upload_id IS NULL AND (state IN ('deleted', 'trashed') OR state = 'pending' AND error IS NULL" \
	" AND file_id <= (SELECT r.captured_up_to FROM @extschema@.cleanup_runs r WHERE r.run_id = $1)))"

/* A condition that is true for files that could not be dealt with: those that are pending are tried again. */
#define IN_ERROR	"(state = 'failed' OR state = 'pending' AND upload_id IS NULL AND error IS NOT NULL)"

/* The folder of a file.  All files of a folder that fail for one reason make one error. */
#define FOLDER	"pg_catalog.regexp_replace(file, '[^/]*$', '')"

List *
ledger_folders(const Extension *extension, int64 run_id)
{
	return owner_texts(extension, SQL_ARGS(SQL_INT8(run_id)),
					   "SELECT DISTINCT pg_catalog.regexp_replace(file, '/[^/]*$', '') AS folder"
					   " FROM @extschema@.cleanup_files WHERE run_id = $1 AND " GONE
					   "  AND pg_catalog.strpos(file, '/') > 0 ORDER BY folder DESC");
}

void
ledger_outcome(const Extension *extension, int64 run_id, LedgerOutcome *outcome)
{
	const SqlParameter parameters[] = {SQL_INT8(run_id), SQL_INT4(outcome->limit)};

	owner_query(extension, 1, parameters,
				"SELECT pg_catalog.count(*) FILTER (WHERE source IS NULL AND " GONE "),"
				" pg_catalog.count(DISTINCT (source, session_id)) FILTER (WHERE source IS NOT NULL AND " GONE "),"
				" pg_catalog.count(DISTINCT (" FOLDER ", error)) FILTER (WHERE " IN_ERROR "),"
				" " LEDGER_SUM_OF("freed") ","
				" pg_catalog.count(*) FILTER (WHERE upload_id IS NOT NULL AND state = 'deleted')"
				" FROM @extschema@.cleanup_files WHERE run_id = $1");
	outcome->n_orphans = DatumGetInt64(sql_value(0, 1));
	outcome->n_sessions = DatumGetInt64(sql_value(0, 2));
	outcome->n_errors = DatumGetInt64(sql_value(0, 3));
	outcome->bytes = DatumGetInt64(sql_value(0, 4));
	outcome->n_uploads = DatumGetInt64(sql_value(0, 5));

	outcome->orphans = owner_texts(extension, lengthof(parameters), parameters,
								   "SELECT file FROM @extschema@.cleanup_files WHERE run_id = $1"
								   " AND source IS NULL AND " GONE " ORDER BY file LIMIT $2");
	outcome->sessions = owner_texts(extension, lengthof(parameters), parameters,
									"SELECT session_id FROM @extschema@.cleanup_files WHERE run_id = $1"
									" AND source IS NOT NULL AND " GONE " GROUP BY source, session_id"
									" ORDER BY source, session_id COLLATE \"C\" LIMIT $2");
	outcome->errors = owner_texts(extension, lengthof(parameters), parameters,
								  "SELECT min(file) || ': ' || error || CASE WHEN count(*) > 1"
								  "  THEN ' (and so for ' || count(*) - 1 || ' more in its folder)' ELSE '' END"
								  " FROM @extschema@.cleanup_files WHERE run_id = $1 AND " IN_ERROR
								  " GROUP BY " FOLDER ", error ORDER BY min(file) LIMIT $2");
}
