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
#include "src/drain/strays.h"
#include "src/pg/lock.h"
#include "src/run/private.h"

/*
 * A claim of a bucket is written before the commit, which must not wait for a
 * network.  If that fails to come, the bucket is claimed by nobody's UUID, and
 * this is to be called again.
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
			 result.outcome == FILE_OCCUPIED ? errdetail("Somebody else has claimed it in this moment.") :
			 errdetail("%s.", store_error_text(store, result.errnum))));
}

/*
 * Taken over from somebody, the directory holds files that this database has
 * not seen before: they are new to it.  A claim that cannot be read could not
 * be written either.
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
	/* not in the middle of somebody's run */
	plan_lock_directory(plan);
	text = claim_take(context->extension, place.upload_dir, claim->found, foreign, &uuid);
	if (store_acts_at_commit(plan_findings(plan)->store))
		at_commit_claim(&place, text, foreign);
	else
		write_now(plan_findings(plan)->store, place.upload_dir, text, foreign);
	/* what they had in the trash, or we on a timeline that has ended */
	if (foreign)
		(void) strays_put_back(context, uuid, claim->found, true);
	return NULL;
}

void
run_take_over(void)
{
	(void) plan_call(CLEAN_ALL, false, false, take_over, NULL);
}
