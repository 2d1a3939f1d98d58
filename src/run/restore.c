/*-------------------------------------------------------------------------
 *
 * run/restore.c
 *	  Undo: cleanup_restore() and cleanup_purge_backups().
 *
 * Both are the machine that deletes, run backwards or to its end.  To restore
 * is to mark rows; with the commit the files are put back, and the drain
 * records it, or goes on after a crash.  To purge is to let the drain look
 * after what is due.  A name that is taken is told at once, as far as it is
 * known by then; nothing is ever overwritten.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "src/drain/at_commit.h"
#include "src/drain/drain.h"
#include "src/drain/heal.h"
#include "src/guard/claim.h"
#include "src/guard/location.h"
#include "src/ledger/backups.h"
#include "src/ledger/ledger.h"
#include "src/pg/lock.h"
#include "src/pg/sql.h"
#include "src/plan/plan.h"
#include "src/run/restore.h"
#include "src/sources/cleared.h"
#include "src/text/json_build.h"

/* rows that are looked at together */
#define RESTORE_BATCH	1000

/* What a call has done so far. */
typedef struct Restoring
{
	CleanupPlan *plan;
	Drain	   *drain;			/* of the run whose files are looked at */
	Batch	   *batch;			/* what is put back by the commit itself */
	int			in_batch;
	List	   *files;			/* char *, at most report_limit */
	int64		n_files;
	double		bytes;
	List	   *sessions;		/* char *: whose columns were restored */
	int64		n_sessions;
	List	   *errors;			/* char *, at most report_limit */
	int64		n_errors;
} Restoring;

static List *
append_limited(const Restoring *restoring, List *list, const char *text)
{
	if (list_length(list) < restoring->plan->settings->report_limit)
		list = lappend(list, MemoryContextStrdup(restoring->plan->context, text));
	return list;
}

static void
add_error(Restoring *restoring, const char *path, const char *text)
{
	restoring->errors = append_limited(restoring, restoring->errors,
									   psprintf("%s: %s", path, text));
	restoring->n_errors++;
}


/* ------------------------------------------------------------------- files --- */

static const char *
target_of(const LedgerFile *file)
{
	return file->restore_as ? file->restore_as : file->path;
}

/* Is the name free?  Sets an error if not. */
static bool
is_name_free(Restoring *restoring, const LedgerFile *file)
{
	FileIdentity found;
	FileResult	result = store_identify(restoring->drain->store, target_of(file), &found);

	if (result.outcome == FILE_VANISHED)
		return true;
	if (result.outcome == FILE_FAILED)
		add_error(restoring, file->path,
				  psprintf("could not %s: %s", result.action, strerror(result.errnum)));
	else
		add_error(restoring, file->path,
				  psprintf("the name \"%s\" is taken; the backup lies in %s, and cleanup_restore(file, restore_as) puts it back under another name",
						   target_of(file),
						   drain_trash_path(restoring->drain->settings, restoring->drain->run_id)));
	return false;
}

static void
mark_file(Restoring *restoring, LedgerFile *file)
{
	file->new_state = "restoring";
	restoring->files = append_limited(restoring, restoring->files, target_of(file));
	restoring->n_files++;
	restoring->bytes += file->identity.size;
	if (store_is_quick(restoring->drain->store) && restoring->in_batch < AT_COMMIT_FILES)
	{
		at_commit_add_as(restoring->batch, file->path, target_of(file), &file->identity);
		restoring->in_batch++;
	}
}

/* Not captured yet; or somebody was quicker, with mv. */
static void
note_in_place(Restoring *restoring, LedgerFile *file)
{
	file->new_state = "restored";
	file->error = "it was in its place";
	file->restore_as = NULL;
	restoring->files = append_limited(restoring, restoring->files, file->path);
	restoring->n_files++;
	restoring->bytes += file->identity.size;
}

static void
judge_file(Restoring *restoring, LedgerFile *file)
{
	int			errnum;

	switch (store_locate(restoring->drain->store, restoring->drain->run_id, file->path,
						 &file->identity, false, &errnum))
	{
		case PLACE_TRASH:
			if (is_name_free(restoring, file))
				mark_file(restoring, file);
			break;
		case PLACE_UPLOAD:
			note_in_place(restoring, file);
			break;
		case PLACE_NOWHERE:
		case PLACE_OTHER:
			if (drain_is_found_at(restoring->drain, file->path, file))
			{
				note_in_place(restoring, file);
				break;
			}

			/*
			 * what becomes of others, the drain finds out: we may have
			 * destroyed it
			 */
			if (!file->unsettled)
				file->new_state = "failed";
			file->error = "its backup is gone";
			add_error(restoring, file->path, file->error);
			break;
		case PLACE_UNFINISHED:
			add_error(restoring, file->path, "its capture was interrupted, and is mended in the background; try again in a moment");
			break;
		case PLACE_UNKNOWN:
			add_error(restoring, file->path, psprintf("could not find its backup: %s", strerror(errnum)));
			break;
	}
}

static void
add_sessions(Restoring *restoring, List *sessions)
{
	ListCell   *lc;

	foreach(lc, sessions)
	{
		restoring->sessions = append_limited(restoring, restoring->sessions, lfirst(lc));
		restoring->n_sessions++;
	}
}

/* The columns of failed sessions whose audio comes back, where they were cleared. */
static void
restore_sessions(Restoring *restoring, const LedgerFile *files, int n)
{
	add_sessions(restoring, cleared_restore(restoring->plan->extension, restoring->drain->settings->rules,
											restoring->drain->run_id,
											files, n, restoring->plan->settings->writer_wait,
											&restoring->errors, &restoring->n_errors));
}

/* Those of a call that could not write them, perhaps. */
static void
retry_sessions(Restoring *restoring)
{
	add_sessions(restoring, cleared_retry(restoring->plan->extension, restoring->drain->settings->rules,
										  restoring->drain->run_id,
										  restoring->plan->settings->writer_wait,
										  &restoring->errors, &restoring->n_errors));
}

static void
judge_files(Restoring *restoring, LedgerFile *files, int n)
{
	int			i;

	for (i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		judge_file(restoring, &files[i]);
	}
	ledger_record(restoring->plan->extension, files, n);
	restore_sessions(restoring, files, n);
}

/* All backups of the run, or the one file; `as` may be NULL. */
static void
judge_run(Restoring *restoring, int64 only_file, const char *as)
{
	int64		after = only_file > 0 ? only_file - 1 : 0;
	LedgerFile *files;
	int			n;

	restoring->batch = at_commit_begin(restoring->drain->settings, restoring->drain->run_id,
									   AT_COMMIT_PUT_BACK);
	do
	{
		files = ledger_files(restoring->plan->extension, restoring->drain->run_id, LEDGER_RESTORABLE,
							 after, only_file > 0 ? 1 : RESTORE_BATCH, &n);
		if (n == 0 || (only_file > 0 && files[0].file_id != only_file))
			break;
		after = files[n - 1].file_id;
		files[0].restore_as = as ? as : files[0].restore_as;
		judge_files(restoring, files, n);
	} while (n == RESTORE_BATCH);
	at_commit_end(restoring->batch);
}

/* Needs the run lock. */
static void
restore_backups(Restoring *restoring, int64 run_id, int64 only_file, const char *as)
{
	const Extension *extension = restoring->plan->extension;
	LedgerWork *work = ledger_run(extension, run_id);
	Brake	   *brake;

	if (work == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("there is no run %lld", (long long) run_id),
				 errhint("See cleanup_runs and cleanup_backups.")));
	/* its commit would take away again what is put back, or says so */
	if (at_commit_takes_from(run_id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this transaction has files of run %lld to deal with when it commits",
						(long long) run_id),
				 errhint("Restore them in a transaction of its own.")));
	restoring->drain = drain_open(extension, work, true, &brake);
	if (restoring->drain == NULL)
		brake_raise(brake);
	PG_TRY();
	{
		brake = claim_lock(restoring->drain->store, work->upload_dir,
						   restoring->plan->settings->writer_wait);
		if (brake != NULL)
			brake_raise(brake);
		if (only_file == 0)
			retry_sessions(restoring);
		judge_run(restoring, only_file, as);
	}
	PG_FINALLY();
	{
		drain_end(restoring->drain);
	}
	PG_END_TRY();
	at_commit_start_worker();
}


/* ------------------------------------------------------------------ report --- */

static void
add_list(JsonBuilder *json, const char *key, const List *list)
{
	ListCell   *lc;

	json_begin_array(json, key);
	foreach(lc, list)
		json_add_element(json, lfirst(lc));
	json_end_array(json);
}

static Jsonb *
make_result(const Restoring *restoring)
{
	JsonBuilder json;

	json_begin(&json);
	add_list(&json, "files_restored", restoring->files);
	json_add_integer(&json, "files_count", restoring->n_files);
	json_add_decimal(&json, "total_size_mb", restoring->bytes / (1024 * 1024), 2);
	add_list(&json, "sessions_restored", restoring->sessions);
	json_add_integer(&json, "sessions_count", restoring->n_sessions);
	add_list(&json, "errors", restoring->errors);
	json_add_integer(&json, "error_count", restoring->n_errors);
	return json_end(&json);
}

static Jsonb *
make_report(const Restoring *restoring, int64 run_id)
{
	JsonBuilder json;

	json_begin(&json);
	json_add_boolean(&json, "success", restoring->n_errors == 0);
	json_add_text(&json, "message", restoring->n_files > 0 ? "Restore completed" : "Nothing was restored");
	json_add_jsonb(&json, "result", make_result(restoring));
	json_add_integer(&json, "run_id", run_id);
	if (restoring->n_files > list_length(restoring->files) ||
		restoring->n_errors > list_length(restoring->errors) ||
		restoring->n_sessions > list_length(restoring->sessions))
		json_add_boolean(&json, "lists_truncated", true);
	return json_end(&json);
}


/* ------------------------------------------------------------------- calls --- */

typedef Jsonb *(*Work) (CleanupPlan *plan, void *arg);

/* SPI, a plan, the run lock: what they have in common. */
static Jsonb *
carry_out(Work work, void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	Jsonb	   *volatile result = NULL;
	CleanupPlan *plan;

	SPI_connect();
	plan = plan_begin(CLEAN_ALL, false, false);
	PG_TRY();
	{
		Jsonb	   *report;

		MemoryContextSwitchTo(plan->context);
		plan_check_transaction(plan);
		lock_run(plan->extension, plan->settings->writer_wait, false);
		report = work(plan, arg);
		result = MemoryContextAlloc(caller, VARSIZE(report));
		memcpy(result, report, VARSIZE(report));
	}
	PG_FINALLY();
	{
		MemoryContextSwitchTo(caller);
		plan_end(plan);
	}
	PG_END_TRY();
	SPI_finish();
	return result;
}

/*
 * Note where the upload directory is now: it may have been moved since the
 * run.  Returns its claim, or NULL without one; ERROR if it is not ours.
 */
static const char *
find_directory(CleanupPlan *plan)
{
	Brake	   *brake;
	const char *claim = claim_find(plan->extension, plan->settings->upload_dir, &brake);

	if (brake != NULL)
		brake_raise(brake);
	return claim;
}

static Jsonb *
do_restore_run(CleanupPlan *plan, void *arg)
{
	Restoring	restoring = {plan};
	int64		run_id = *(int64 *) arg;
	Brake	   *ignored;

	/* the run may have been made in another directory */
	(void) claim_find(plan->extension, plan->settings->upload_dir, &ignored);
	restore_backups(&restoring, run_id, 0, NULL);
	return make_report(&restoring, run_id);
}

Jsonb *
restore_run(int64 run_id)
{
	return carry_out(do_restore_run, &run_id);
}

typedef struct FileRequest
{
	const char *file;
	const char *as;
} FileRequest;

static Jsonb *
do_restore_file(CleanupPlan *plan, void *arg)
{
	Restoring	restoring = {plan};
	const FileRequest *request = arg;
	const char *path = location_relative(plan->settings, request->file);
	const char *as = request->as ? location_relative(plan->settings, request->as) : NULL;
	Backup	   *backup = backup_find(plan->extension, find_directory(plan), path);

	if (backup == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("there is no backup of file \"%s\"", path),
				 errhint("See cleanup_backups.")));
	if (as != NULL)
		location_check_restored(plan->settings, path, as);
	restore_backups(&restoring, backup->run_id, backup->file_id, as);
	return make_report(&restoring, backup->run_id);
}

Jsonb *
restore_file(const char *file, const char *as)
{
	FileRequest request = {file, as};

	return carry_out(do_restore_file, &request);
}


/* ------------------------------------------------------------------- purge --- */

static Jsonb *
report_purge(const LedgerExpired *expired, int64 healed)
{
	JsonBuilder result;
	JsonBuilder json;

	json_begin(&result);
	add_list(&result, "backups_purged", expired->files);
	json_add_integer(&result, "backups_count", expired->n_files);
	json_add_decimal(&result, "total_space_freed_mb", (double) expired->bytes / (1024 * 1024), 2);
	json_begin(&json);
	json_add_boolean(&json, "success", true);
	json_add_text(&json, "message", "Expired backups purged");
	json_add_jsonb(&json, "result", json_end(&result));
	json_add_integer(&json, "healed", healed);
	if (expired->n_files > list_length(expired->files))
		json_add_boolean(&json, "lists_truncated", true);
	return json_end(&json);
}

/*
 * Rows that are due are the intent already, committed days ago.  What of them
 * is needed again, the drain finds out, and puts back; first of all others.
 */
static Jsonb *
do_purge(CleanupPlan *plan, void *arg)
{
	LedgerExpired expired;
	int64		healed;

	plan_open_directory(plan);
	if (plan->claim != NULL && plan->claim->brake != NULL)
		brake_raise(plan->claim->brake);
	plan_hold_directory(plan);
	healed = heal_directory(plan->extension, plan->settings);
	ledger_expired(plan->extension, plan->settings->report_limit, &expired);
	drain_in_transaction(plan->extension);
	at_commit_start_worker();
	return report_purge(&expired, healed);
}

Jsonb *
restore_purge(void)
{
	return carry_out(do_purge, NULL);
}
