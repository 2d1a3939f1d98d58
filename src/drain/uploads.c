/*-------------------------------------------------------------------------
 *
 * drain/uploads.c
 *	  Ends the uploads that a run has condemned because they were never
 *	  completed.
 *
 * Right before an upload is ended, the server is asked whether new parts have
 * come: a client that still sends is not disturbed.  An upload that was
 * completed in the meantime has become a file, and is skipped.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "src/drain/private.h"
#include "src/pg/progress.h"
#include "src/pg/time.h"

/*
 * Number of uploads that are ended before their states are recorded.  If the
 * process is killed in between, the next drain cannot tell who has ended these
 * uploads.
 */
#define UPLOADS_AT_A_TIME	100

/*
 * Sets the state "failed", with a WARNING.  Unless the failure is a missing right to
 * this one upload, the server is not asked for other uploads.
 */
static void
set_upload_failed(Drain *drain, LedgerFile *upload, FileResult result)
{
	/* the drain was asked to stop, and the upload has not changed */
	if (result.errnum == EINTR)
		CHECK_FOR_INTERRUPTS();
	drain_set_state(upload, "failed", drain_failure_text(drain, result));
	if (result.errnum != EACCES)
		drain->no_more_uploads = MemoryContextStrdup(drain->memory, upload->error);
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("left upload of \"%s\" as it is: %s", upload->path, upload->error)));
}

static void
end_upload(Drain *drain, LedgerFile *upload)
{
	/* no part of the upload may have come since this time */
	TimestampTz quiet_since = GetCurrentTimestamp() -
	(TimestampTz) drain->context.settings->abort_uploads_after_days * USECS_PER_DAY;
	FileResult	result;

	if (drain->no_more_uploads != NULL)
	{
		drain_set_state(upload, "failed", drain->no_more_uploads);
		return;
	}
	if (upload->condemned_at < drain->taken_over)
	{
		drain_set_state(upload, "skipped", drain_why_let_live);
		return;
	}
	if (upload->is_held)
	{
		drain_set_state(upload, "skipped", "its name is held");
		return;
	}
	result = store_end_upload(drain->store, upload->path, upload->upload_id, time_to_unix_us(quiet_since) * 1000, &upload->freed);
	switch (result.outcome)
	{
		case FILE_OK:
			drain_set_state(upload, "deleted", NULL);
			break;
		case FILE_VANISHED:
			drain_set_state(upload, "skipped", "it is not under way any more: it was completed, or ended");
			break;
		case FILE_REPLACED:
			drain_set_state(upload, "skipped", "parts of it still come");
			break;
		default:
			set_upload_failed(drain, upload, result);
			break;
	}
}

int
drain_uploads_step(Drain *drain, int limit)
{
	int64		began = time_monotonic_us();
	LedgerFile *uploads;
	int			n = 0;
	int			i;

	/*
	 * an upload directory on a disk has no uploads; and the run gets no
	 * further uploads before the next drain
	 */
	if (store_acts_at_commit(drain->store) || drain->ended_up_to == PG_INT64_MAX)
		return 0;
	uploads = ledger_files(drain->context.extension, drain->run_id, LEDGER_UPLOADS, drain->ended_up_to,
						   Min(limit, UPLOADS_AT_A_TIME), &n);
	for (i = 0; i < n && !drain_is_step_over(drain, began); i++)
	{
		progress_tick();
		end_upload(drain, &uploads[i]);
		drain->ended_up_to = uploads[i].file_id;
	}
	if (n == 0)
		drain->ended_up_to = PG_INT64_MAX;
	ledger_record(drain->context.extension, drain->run_id, uploads, i);
	return n;
}
