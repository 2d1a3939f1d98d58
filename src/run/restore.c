/*-------------------------------------------------------------------------
 *
 * run/restore.c
 *	  cleanup_restore(): puts backups back.
 *
 * cleanup_restore() looks at all files, and marks their rows; then it restores
 * the columns of sessions, in rows that others may wait for.  The commit puts
 * the files back, and the drain records the outcome, or goes on after a crash.
 * If a name is taken already, the result of the call says so.  A name may also
 * be taken later: nothing is ever overwritten.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "src/drain/at_commit.h"
#include "src/drain/drain.h"
#include "src/guard/claim.h"
#include "src/guard/location.h"
#include "src/ledger/backups.h"
#include "src/ledger/ledger.h"
#include "src/pg/lock.h"
#include "src/plan/plan.h"
#include "src/run/report.h"
#include "src/run/restore.h"
#include "src/sources/cleared.h"
#include "src/store/walk.h"
#include "src/text/json_build.h"

/* rows that are looked at together */
#define RESTORE_BATCH	1000

/* The outcome of a call so far. */
typedef struct Restoring
{
	const Context *context;
	int64		run_id;			/* the run whose files are looked at */
	Drain	   *drain;
	Batch	   *batch;			/* files that the commit itself puts back */
	int			in_batch;
	List	   *files;			/* paths (char *), at most report_limit */
	int64		n_files;
	double		bytes;
	List	   *sessions;		/* ids (char *) of sessions whose columns were
								 * restored */
	int64		n_sessions;
	List	   *errors;			/* errors (char *), at most report_limit */
	int64		n_errors;
} Restoring;

static void
add_error(Restoring *restoring, const char *path, const char *text)
{
	restoring->errors = report_append(restoring->errors, restoring->context->settings->report_limit,
									  psprintf("%s: %s", path, text));
	restoring->n_errors++;
}


/* ------------------------------------------------------------------- files --- */

/* Returns the length of the part of `target` that names a file instead of a folder, or 0. */
static size_t
length_of_file(FileStore *store, const char *target)
{
	for (const char *slash = strchr(target, '/'); slash != NULL; slash = strchr(slash + 1, '/'))
	{
		char	   *folder = pnstrdup(target, slash - target);
		FileIdentity found;
		bool		is_file = store_identify(store, folder, &found).outcome == FILE_OK;

		pfree(folder);
		if (is_file)
			return slash - target;
	}
	return 0;
}

/*
 * Returns whether the file can be put back under its name.  A missing folder
 * is created later, but no file is put behind a symlink, a mount or a file.
 */
static bool
is_within_directory(Restoring *restoring, const LedgerFile *file)
{
	FileStore  *store = drain_store(restoring->drain);
	const char *target = ledger_target(file);
	size_t		len;
	WalkReason	reason = walk_why_not(store, target, true, &len);

	if (reason != WALK_SYMLINK && reason != WALK_MOUNT && reason != WALK_SUBVOLUME)
		len = store_has_folders(store) ? length_of_file(store, target) : 0;
	if (len == 0)
		return true;
	add_error(restoring, file->path,
			  psprintf("\"%.*s\" is not a folder of the upload directory but a symlink, another file system or a file; the backup lies in %s, and cleanup_restore(file, restore_as) puts it back under another name",
					   (int) len, target,
					   drain_trash_path(drain_place(restoring->drain), restoring->run_id)));
	return false;
}

/* Returns whether the name is free.  Adds an error if the name is taken. */
static bool
is_name_free(Restoring *restoring, const LedgerFile *file)
{
	FileIdentity found;
	FileResult	result = store_identify(drain_store(restoring->drain), ledger_target(file), &found);

	if (result.outcome == FILE_VANISHED)
		return is_within_directory(restoring, file);
	if (result.outcome == FILE_FAILED)
		add_error(restoring, file->path,
				  psprintf("%s: %s", result.failure,
						   store_error_text(drain_store(restoring->drain), result.errnum)));
	else
		add_error(restoring, file->path,
				  psprintf("the name \"%s\" is taken; the backup lies in %s, and cleanup_restore(file, restore_as) puts it back under another name",
						   ledger_target(file),
						   drain_trash_path(drain_place(restoring->drain), restoring->run_id)));
	return false;
}

/* Counts a file that is at `path` again, now or after the commit. */
static void
add_to_batch(Restoring *restoring, LedgerFile *file, const char *state, const char *path)
{
	file->new_state = state;
	restoring->files = report_append(restoring->files, restoring->context->settings->report_limit, path);
	restoring->n_files++;
	restoring->bytes += file->identity.size;
}

static void
mark_file(Restoring *restoring, LedgerFile *file)
{
	add_to_batch(restoring, file, "restoring", ledger_target(file));
	if (store_is_quick(drain_store(restoring->drain)) && restoring->in_batch++ < AT_COMMIT_FILES)
		at_commit_add(restoring->batch, file->path, ledger_target(file), &file->identity);
}

/*
 * Marks a file that is in its place: the file was not captured yet, or
 * somebody has moved the file back by hand.
 */
static void
note_in_place(Restoring *restoring, LedgerFile *file)
{
	add_to_batch(restoring, file, "restored", file->path);
	file->error = "it was in its place";
	file->restore_as = NULL;
}

/* Returns whether somebody has written into the file in the trash. */
static bool
is_changed(const Restoring *restoring, const LedgerFile *file, FilePlace place)
{
	return file->identity.captured &&
		(place == PLACE_NOWHERE || place == PLACE_OTHER || place == PLACE_UNFINISHED) &&
		drain_is_changed(restoring->drain, file);
}

static void
judge_captured(Restoring *restoring, LedgerFile *file, const StoreFile *located)
{
	if (is_changed(restoring, file, located->place))
	{
		/* the commit does not move such a file: a drain puts it back */
		if (is_name_free(restoring, file))
			add_to_batch(restoring, file, "restoring", ledger_target(file));
		return;
	}
	switch (located->place)
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
			 * the drain finds out about an unsettled file, which may have
			 * been destroyed by a drain
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
			add_error(restoring, file->path, psprintf("could not find its backup: %s",
													  store_error_text(drain_store(restoring->drain), located->result.errnum)));
			break;
	}
}

static void
add_sessions(Restoring *restoring, List *sessions)
{
	foreach_ptr(const char, session, sessions)
		restoring->sessions = report_append(restoring->sessions, restoring->context->settings->report_limit, session);
	restoring->n_sessions += list_length(sessions);
}

/*
 * Tells the store that the names of files that lie in the trash will be asked
 * for.
 */
static void
expect_names(Restoring *restoring, const LedgerFile *files, const StoreFile *located, int n)
{
	const char **names = palloc(sizeof(char *) * n);
	int			n_names = 0;

	for (int i = 0; i < n; i++)
		if (located[i].place == PLACE_TRASH)
			names[n_names++] = ledger_target(&files[i]);
	store_expect(drain_store(restoring->drain), names, n_names);
}

static void
judge_all_captured(Restoring *restoring, LedgerFile *files, int n)
{
	StoreFile  *located = palloc(sizeof(StoreFile) * n);

	for (int i = 0; i < n; i++)
		located[i] = (StoreFile)
	{
		.path = files[i].path,.expected = &files[i].identity
	};
	store_locate_many(drain_store(restoring->drain), restoring->run_id, located, n);
	CHECK_FOR_INTERRUPTS();
	expect_names(restoring, files, located, n);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		judge_captured(restoring, &files[i], &located[i]);
	}
	store_expect(drain_store(restoring->drain), NULL, 0);
	ledger_record(restoring->context->extension, restoring->run_id, files, n);
}

/*
 * Looks at all backups of the run, or only at the file `only_file` (0: all).
 * `as` may be NULL.
 */
static void
judge_run(Restoring *restoring, int64 only_file, const char *as)
{
	int64		after = only_file > 0 ? only_file - 1 : 0;
	LedgerFile *files;
	int			n;

	restoring->batch = at_commit_begin(drain_place(restoring->drain), restoring->run_id,
									   AT_COMMIT_PUT_BACK);
	do
	{
		files = ledger_files(restoring->context->extension, restoring->run_id, LEDGER_RESTORABLE,
							 after, only_file > 0 ? 1 : RESTORE_BATCH, &n);
		if (n == 0 || (only_file > 0 && files[0].file_id != only_file))
			break;
		after = files[n - 1].file_id;
		files[0].restore_as = as ? as : files[0].restore_as;
		judge_all_captured(restoring, files, n);
	} while (n == RESTORE_BATCH);
	at_commit_end(restoring->batch);
}

/*
 * Restores the cleared columns of the failed sessions whose audio comes back, or
 * has come back by an earlier call that could not write these columns.
 * `only_file`: see judge_run().  The rows of these sessions stay locked until the
 * transaction ends, and others may wait for them; so nothing may wait for the
 * server of a bucket afterwards.
 */
static void
restore_sessions(Restoring *restoring, int64 only_file)
{
	int64		after = only_file > 0 ? only_file - 1 : 0;
	LedgerFile *files;
	int			n;

	do
	{
		files = ledger_files(restoring->context->extension, restoring->run_id, LEDGER_RETURNING,
							 after, only_file > 0 ? 1 : RESTORE_BATCH, &n);
		if (n == 0 || (only_file > 0 && files[0].file_id != only_file))
			break;
		after = files[n - 1].file_id;
		add_sessions(restoring, cleared_restore(restoring->context->extension, drain_rules(restoring->drain), restoring->run_id,
												files, n, restoring->context->settings->writer_wait,
												&restoring->errors, &restoring->n_errors));
	} while (n == RESTORE_BATCH);
}

/* Puts backups of the run back.  Needs the run lock. */
static void
restore_backups(Restoring *restoring, int64 run_id, int64 only_file, const char *as)
{
	const Extension *extension = restoring->context->extension;
	LedgerWork *work = ledger_run(extension, run_id);
	Brake	   *brake;

	if (work == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("there is no run %lld", (long long) run_id),
				 errhint("See cleanup_runs and cleanup_backups.")));
	/* the commit would take the restored files away again */
	if (at_commit_takes_from(run_id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the commit of this transaction will clean or purge files of run %lld",
						(long long) run_id),
				 errhint("Restore them in another transaction, after this one has committed.")));
	restoring->run_id = run_id;
	restoring->drain = drain_open(extension, work, &brake);
	if (restoring->drain == NULL)
		brake_raise(brake);
	PG_TRY();
	{
		brake_raise_if(claim_lock(drain_store(restoring->drain), work->upload_dir,
								  restoring->context->settings->writer_wait));
		judge_run(restoring, only_file, as);
		restore_sessions(restoring, only_file);
	}
	PG_FINALLY();
	{
		drain_end(restoring->drain);
	}
	PG_END_TRY();
	at_commit_start_worker();
}


/* ------------------------------------------------------------------ report --- */

static Jsonb *
make_result(const Restoring *restoring)
{
	JsonBuilder json;

	json_begin(&json);
	json_add_list(&json, "files_restored", restoring->files);
	json_add_integer(&json, "files_count", restoring->n_files);
	json_add_decimal(&json, "total_size_mb", restoring->bytes / (1024 * 1024), 2);
	json_add_list(&json, "sessions_restored", restoring->sessions);
	json_add_integer(&json, "sessions_count", restoring->n_sessions);
	json_add_list(&json, "errors", restoring->errors);
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

/* Begins a call under the run lock. */
static const Context *
begin_restoring(CleanupPlan *plan)
{
	const Context *context = plan_context(plan);

	plan_check_transaction(plan);
	lock_run(context->extension, context->settings->writer_wait, false);
	return context;
}

/*
 * Records the path that the upload directory has now, because the directory
 * may have been moved since the run.  Returns the claim of the directory, or
 * NULL if the directory has no claim.  Raises an ERROR if another database has
 * claimed the directory.
 */
static const char *
find_directory(const Context *context)
{
	Brake	   *brake;
	const char *claim = claim_find(context->extension, context->settings->upload_dir, &brake);

	brake_raise_if(brake);
	return claim;
}

static Jsonb *
do_restore_run(CleanupPlan *plan, void *arg)
{
	const Context *context = begin_restoring(plan);
	Restoring	restoring = {context};
	int64		run_id = *(int64 *) arg;
	Brake	   *ignored;

	/* the run may have been made in another directory */
	(void) claim_find(context->extension, context->settings->upload_dir, &ignored);
	restore_backups(&restoring, run_id, 0, NULL);
	return make_report(&restoring, run_id);
}

Jsonb *
restore_run(int64 run_id)
{
	return plan_call(CLEAN_ALL, false, false, do_restore_run, &run_id);
}

typedef struct FileRequest
{
	const char *file;
	const char *as;
} FileRequest;

static Jsonb *
do_restore_file(CleanupPlan *plan, void *arg)
{
	const Context *context = begin_restoring(plan);
	const Settings *settings = context->settings;
	Restoring	restoring = {context};
	const FileRequest *request = arg;
	const char *path = location_relative(settings, request->file);
	const char *as = request->as ? location_relative(settings, request->as) : NULL;
	Backup	   *backup = backup_find(context->extension, find_directory(context), path);

	if (backup == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("there is no backup of file \"%s\"", path),
				 errhint("See cleanup_backups.")));
	if (as != NULL)
		location_check_restored(settings, path, as);
	restore_backups(&restoring, backup->run_id, backup->file_id, as);
	return make_report(&restoring, backup->run_id);
}

Jsonb *
restore_file(const char *file, const char *as)
{
	FileRequest request = {file, as};

	return plan_call(CLEAN_ALL, false, false, do_restore_file, &request);
}
