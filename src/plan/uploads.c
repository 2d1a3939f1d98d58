/*-------------------------------------------------------------------------
 *
 * plan/uploads.c
 *	  Counts the uploads that were begun and not completed, and finds the
 *	  uploads that are old enough to be ended.
 *
 * Uploads are not counted if a walk would pass over their file: names without
 * an audio extension, hidden names, and names that are not valid in the
 * database's encoding.  A row that refers to the name does not protect such an
 * upload: there is no file that the row could need, and there never was such a
 * file.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "src/names/file_key.h"
#include "src/pg/time.h"
#include "src/plan/private.h"
#include "src/store/walk.h"

/* uploads that one run ends at most; the next run goes on */
#define MAX_OLD_UPLOADS 10000

typedef struct UploadCount
{
	FileStore  *store;
	const Settings *settings;
	CleanupPlan *plan;			/* plan that needs more than the number, or
								 * NULL */
	TimestampTz begun_before;	/* older uploads are to be ended */
	int64		n;
} UploadCount;

static bool
is_of_file(const UploadCount *count, const StoreUpload *upload)
{
	size_t		len;

	return key_is_audio(count->settings->rules, upload->path) &&
		plan_is_readable_name(count->settings, upload->path) &&
		walk_why_not(count->store, upload->path, count->settings->recurse, &len) == WALK_REACHED;
}

static void
look_at(CleanupPlan *plan, const UploadCount *count, const StoreUpload *upload)
{
	TimestampTz begun = time_from_unix_ns(upload->begun_ns);
	StoreUpload *old;

	if (count->n == 1 || begun < plan->found.oldest_upload)
		plan->found.oldest_upload = begun;
	if (plan_age_begins(plan, begun) >= count->begun_before || list_length(plan->found.old_uploads) >= MAX_OLD_UPLOADS)
		return;
	old = palloc(sizeof(StoreUpload));
	*old = (StoreUpload)
	{
		pstrdup(upload->path), pstrdup(upload->id), upload->begun_ns
	};
	plan->found.old_uploads = lappend(plan->found.old_uploads, old);
}

static void
count_upload(const StoreUpload *upload, void *arg)
{
	UploadCount *count = arg;

	CHECK_FOR_INTERRUPTS();
	if (!is_of_file(count, upload))
		return;
	count->n++;
	if (count->plan != NULL)
		look_at(count->plan, count, upload);
}

bool
plan_count_uploads(FileStore *store, const Settings *settings, int64 *n)
{
	UploadCount count = {store, settings};
	int			errnum = store_list_uploads(store, count_upload, &count);

	CHECK_FOR_INTERRUPTS();
	*n = count.n;
	return errnum == 0;
}

static void
note_failure(CleanupPlan *plan, int errnum)
{
	char	   *text;

	CHECK_FOR_INTERRUPTS();
	text = psprintf("could not list the uploads that were not completed: %s",
					store_error_text(plan->found.store, errnum));
	plan->found.uploads_error = text;
	plan->found.n_uploads = -1;
	list_free(plan->found.old_uploads);
	plan->found.old_uploads = NIL;
	/* an error, because the settings want old uploads to be ended */
	if (plan->context.settings->abort_uploads_after_days > 0)
		plan_add_error(plan, text, NULL);
}

void
uploads_survey(CleanupPlan *plan)
{
	int			days = plan->context.settings->abort_uploads_after_days;
	UploadCount count = {plan->found.store, plan->context.settings, plan};
	int			errnum;

	if ((plan->what & CLEAN_ORPHANS) == 0 || (days < 0 && !plan->dry_run))
		return;
	count.begun_before = days < 0 ? PG_INT64_MIN : GetCurrentTimestamp() - (TimestampTz) days * USECS_PER_DAY;
	errnum = store_list_uploads(plan->found.store, count_upload, &count);
	if (errnum == 0)
		plan->found.n_uploads = count.n;
	else if (errnum != ENOTSUP)
		note_failure(plan, errnum);
}
