/*-------------------------------------------------------------------------
 *
 * night/pg_cron.c
 *	  Finds jobs of pg_cron that clean, if pg_cron is installed in this database.
 *
 * The table of jobs is looked up as a member of the extension pg_cron: if
 * pg_cron is not installed, anybody may create a schema of that name.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/lsyscache.h"

#include "src/night/pg_cron.h"
#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/settings.h"

/* for use in E'', which has one meaning under any standard_conforming_strings */
#define OUR_CALLS "\\\\mcleanup_(run|all|orphaned_files|failed_sessions)\\\\M"

typedef struct CronSearch
{
	Oid			extension;		/* OID of pg_cron */
	Oid			table;
	List	   *databases;
	List	   *jobs;
	MemoryContext context;
} CronSearch;

static bool
find_cron_table(CronSearch *search)
{
	bool		found;

	found = sql_query(0, NULL,
					  "SELECT e.oid, c.oid FROM pg_catalog.pg_extension e"
					  " JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass"
					  "  AND d.refobjid = e.oid AND d.deptype = 'e'"
					  "  AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
					  " JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'r'"
					  " WHERE e.extname = 'pg_cron' AND c.relname = 'job'") > 0;
	if (found)
	{
		search->extension = DatumGetObjectId(sql_value(0, 1));
		search->table = DatumGetObjectId(sql_value(0, 2));
	}
	SPI_freetuptable(SPI_tuptable);
	return found;
}

static void
read_jobs(void *arg)
{
	CronSearch *search = arg;
	MemoryContext caller;
	int			n;

	n = sql_query_members(search->extension, 0, NULL,
						  psprintf("SELECT jobid, schedule, database, database OPERATOR(pg_catalog.=) pg_catalog.current_database()"
								   " FROM %s WHERE active AND command OPERATOR(pg_catalog.~*) E'" OUR_CALLS "' ORDER BY jobid",
								   quote_qualified_identifier(get_namespace_name(get_rel_namespace(search->table)),
															  get_rel_name(search->table))));
	caller = MemoryContextSwitchTo(search->context);
	for (int i = 0; i < n; i++)
	{
		CronJob    *job = palloc(sizeof(CronJob));

		job->id = DatumGetInt64(sql_value(i, 1));
		job->schedule = sql_text(i, 2);
		job->database = sql_text(i, 3);
		job->is_here = DatumGetBool(sql_value(i, 4));
		job->is_listed = settings_is_listed(search->databases, job->database);
		if (job->is_here || job->is_listed)
			search->jobs = lappend(search->jobs, job);
	}
	MemoryContextSwitchTo(caller);
	SPI_freetuptable(SPI_tuptable);
}

/* Returns no jobs if the table may not be read, or has other columns because of its version. */
List *
cron_jobs(const Extension *extension, List *databases)
{
	CronSearch	search = {.databases = databases,.context = CurrentMemoryContext};
	ActingAs	saved;

	role_act_as(extension->owner, &saved);
	if (find_cron_table(&search))
		(void) sql_try(read_jobs, &search);
	role_stop_acting(&saved);
	return search.jobs;
}
