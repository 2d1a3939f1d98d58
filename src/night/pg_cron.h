/*-------------------------------------------------------------------------
 *
 * night/pg_cron.h
 *	  Finds jobs of pg_cron that clean, if pg_cron is installed in this database.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_PG_CRON_H
#define AUDIO_CLEANUP_PG_CRON_H

#include "nodes/pg_list.h"

#include "src/pg/extension.h"

typedef struct CronJob
{
	int64		id;
	const char *schedule;		/* schedule, as in "0 3 * * *" */
	const char *database;
	bool		is_here;		/* the job cleans this database */
	bool		is_listed;		/* the job cleans one of the databases asked
								 * for */
} CronJob;

/*
 * Returns the active jobs (CronJob *) that clean this database or one of
 * `databases` (char *), if the owner of the extension may see them.  The list
 * is allocated in the current memory context; NIL without pg_cron.  Needs
 * SPI; a failure to read is no ERROR.
 */
extern List *cron_jobs(const Extension *extension, List *databases);

#endif							/* AUDIO_CLEANUP_PG_CRON_H */
