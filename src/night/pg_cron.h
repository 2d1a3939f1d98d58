/*-------------------------------------------------------------------------
 *
 * night/pg_cron.h
 *	  What pg_cron would run of ours, if it is installed in this database.
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
	const char *schedule;		/* as in "0 3 * * *" */
	const char *database;
	bool		is_here;		/* of this database */
	bool		is_listed;		/* of one of those asked for */
} CronJob;

/*
 * Returns the active jobs (of CronJob) that clean this database or one of
 * `databases` (of char *), as far as the owner of the extension may see them.
 * NIL where there is no pg_cron.  Needs SPI.
 */
extern List *cron_jobs(const Extension *extension, List *databases);

#endif							/* AUDIO_CLEANUP_PG_CRON_H */
