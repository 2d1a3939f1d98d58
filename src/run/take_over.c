/*-------------------------------------------------------------------------
 *
 * run/take_over.c
 *	  cleanup_claim_upload_dir(): makes this database the directory's owner.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "src/drain/at_commit.h"
#include "src/drain/heal.h"
#include "src/pg/lock.h"
#include "src/run/private.h"

/*
 * Writes the claim of a bucket before the commit, because the commit must not
 * wait for a network.  If the commit fails then, the UUID in the bucket
 * belongs to no database, and cleanup_claim_upload_dir() must be called
 * again.
 */
static void
write_now(FileStore *store, const char *upload_dir, const char *text, bool replace)
{
	FileResult	result = store_write_claim(store, text, replace);

	CHECK_FOR_INTERRUPTS();
	if (result.outcome == FILE_OK)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("the claim of upload directory \"%s\" could not be written", upload_dir),
			 result.outcome == FILE_OCCUPIED ? errdetail("Another database has just claimed it.") :
			 errdetail("%s.", store_error_text(store, result.errnum))));
}

/*
 * Takes the directory over.  The files of a directory that belonged to another
 * database are new to this database.  A claim that cannot be read because of
 * an I/O error cannot be written either.
 */
static Jsonb *
take_over(CleanupPlan *plan, void *arg)
{
	const Context *context = plan_context(plan);
	const Place place = location_place(context->settings, NULL);
	const Claim *claim;
	const char *uuid;
	char	   *text;
	bool		foreign;

	plan_check_transaction(plan);
	lock_run(context->extension, context->settings->writer_wait, false);
	plan_open_directory(plan);
	claim = plan_findings(plan)->claim;
	foreign = claim->state == CLAIM_FOREIGN;
	if (claim->state == CLAIM_OURS)
	{
		claim_confirm(context->extension, claim, place.upload_dir);
		ereport(NOTICE,
				(errmsg("upload directory \"%s\" belongs to this database already",
						place.upload_dir)));
		return NULL;
	}
	if (foreign && claim->brake->sqlstate == ERRCODE_IO_ERROR)
		brake_raise(claim->brake);
	brake_raise_if(claim_check_above(place.upload_dir, ""));
	/* wait for the end of a run of another database */
	plan_lock_directory(plan);
	text = claim_take(context->extension, place.upload_dir, claim->found, foreign, &uuid);
	if (store_acts_at_commit(plan_findings(plan)->store))
		at_commit_claim(&place, text, foreign);
	else
		write_now(plan_findings(plan)->store, place.upload_dir, text, foreign);

	/*
	 * put back the files that the former owner, or this database on an
	 * earlier timeline, had in the trash
	 */
	if (foreign)
		(void) strays_put_back(context, uuid, claim->found, true);
	return NULL;
}

void
run_take_over(void)
{
	(void) plan_call(CLEAN_ALL, false, false, take_over, NULL);
}
