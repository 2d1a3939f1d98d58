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

#include "src/night/pg_cron.h"
#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/settings.h"

/* for use in E'', which has one meaning under any standard_conforming_strings */
#define OUR_CALLS "\\\\mcleanup_(run|all|orphaned_files|failed_sessions)\\\\M"

typedef struct CronSearch
{
	List	   *databases;
	List	   *jobs;
	MemoryContext context;
} CronSearch;

static void
read_jobs(void *arg)
{
	CronSearch *search = arg;
	MemoryContext caller;
	Oid			pg_cron;
	int			n;

	if (sql_query(0, NULL,
				  "SELECT e.oid, pg_catalog.format('%I.job', n.nspname) FROM pg_catalog.pg_extension e"
				  " JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass"
				  "  AND d.refobjid = e.oid AND d.deptype = 'e'"
				  "  AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
				  " JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'r'"
				  " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
				  " WHERE e.extname = 'pg_cron' AND c.relname = 'job'") == 0)
		return;
	pg_cron = DatumGetObjectId(sql_value(0, 1));
	n = sql_query_members(pg_cron, 0, NULL,
						  psprintf("SELECT jobid, schedule, database, database OPERATOR(pg_catalog.=) pg_catalog.current_database()"
								   " FROM %s WHERE active AND command OPERATOR(pg_catalog.~*) E'" OUR_CALLS "' ORDER BY jobid",
								   sql_text(0, 2)));
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
}

/* Returns no jobs if the table may not be read, or has other columns because of its version. */
List *
cron_jobs(const Extension *extension, List *databases)
{
	CronSearch	search = {.databases = databases,.context = CurrentMemoryContext};
	ActingAs	saved;

	role_act_as(extension->owner, &saved);
	(void) sql_try(read_jobs, &search);
	role_stop_acting(&saved);
	return search.jobs;
}
