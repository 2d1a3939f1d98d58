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
#include "src/ledger/backups.h"
#include "src/pg/lock.h"
#include "src/run/report.h"
#include "src/run/run.h"
#include "src/sources/cleared.h"
#include "src/store/walk.h"

/*
 * rows that are looked at together; for each batch of the second kind, all
 * cleared values of the run are read
 */
#define RESTORE_BATCH	1000
#define RETURN_BATCH	10000

/* The outcome of a call so far. */
typedef struct Restoring
{
	const Context *context;
	int64		run_id;			/* the run whose files are looked at */
	int64		only_file;		/* the file that is looked at; 0: all files */
	Drain	   *drain;
	FileStore  *store;
	const Settings *settings;	/* of the run */
	Place		place;
	int			at_commit;		/* files that the commit itself puts back */
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
		bool		is_file = store_identify(store, folder, false, &found).outcome == FILE_OK;

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
	FileStore  *store = restoring->store;
	const char *target = ledger_target(file);
	size_t		len;
	WalkReason	reason = walk_why_not(store, target, true, &len);

	if (reason != WALK_SYMLINK && reason != WALK_MOUNT && reason != WALK_SUBVOLUME)
		/* a bucket has no folders, so no file has the name of a folder */
		len = store_acts_at_commit(store) ? length_of_file(store, target) : 0;
	if (len == 0)
		return true;
	add_error(restoring, file->path,
			  psprintf("\"%.*s\" is not a folder of the upload directory but a symlink, another file system or a file; the backup lies in %s, and cleanup_restore(file, restore_as) puts it back under another name",
					   (int) len, target,
					   drain_trash_path(&restoring->place, restoring->run_id)));
	return false;
}

/* Returns whether the name is free.  Adds an error if the name is taken. */
static bool
is_name_free(Restoring *restoring, const LedgerFile *file)
{
	FileIdentity found;
	FileResult	result = store_identify(restoring->store, ledger_target(file), false, &found);

	if (result.outcome == FILE_VANISHED)
		return is_within_directory(restoring, file);
	if (result.outcome == FILE_FAILED)
		add_error(restoring, file->path,
				  psprintf("%s: %s", result.failure,
						   store_error_text(restoring->store, result.errnum)));
	else
		add_error(restoring, file->path,
				  psprintf("the name \"%s\" is taken; the backup lies in %s, and cleanup_restore(file, restore_as) puts it back under another name",
						   ledger_target(file),
						   drain_trash_path(&restoring->place, restoring->run_id)));
	return false;
}

/* Counts a file that is at `path` again, now or after the commit. */
static void
count_file(Restoring *restoring, LedgerFile *file, const char *state, const char *path)
{
	file->new_state = state;
	restoring->files = report_append(restoring->files, restoring->context->settings->report_limit, path);
	restoring->n_files++;
	restoring->bytes += file->identity.size;
}

/*
 * Marks a file that is in its place: the file was not captured yet, or
 * somebody has moved the file back by hand.
 */
static void
note_in_place(Restoring *restoring, LedgerFile *file)
{
	count_file(restoring, file, "restored", file->path);
	file->error = "it was in its place";
	file->restore_as = NULL;
}

static void
judge_captured(Restoring *restoring, LedgerFile *file, const StoreFile *located)
{
	FilePlace	place = located->place;

	/* somebody has written into the file in the trash */
	bool		is_changed = file->identity.captured &&
	(place == PLACE_NOWHERE || place == PLACE_OTHER || place == PLACE_UNFINISHED) &&
	drain_is_changed(restoring->drain, file);

	switch (is_changed ? PLACE_TRASH : place)
	{
		case PLACE_TRASH:
			if (!is_name_free(restoring, file))
				break;
			count_file(restoring, file, "restoring", ledger_target(file));
			/* the commit does not move a changed file: a drain puts it back */
			if (!is_changed && store_is_quick(restoring->store) && restoring->at_commit++ < AT_COMMIT_FILES)
				at_commit_add(&restoring->place, restoring->run_id, AT_COMMIT_PUT_BACK, file->path, ledger_target(file),
							  &file->identity);
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
													  store_error_text(restoring->store, located->result.errnum)));
			break;
	}
}

static void
judge_all_captured(Restoring *restoring, LedgerFile *files, int n)
{
	FileStore  *store = restoring->store;
	StoreFile  *located = palloc(sizeof(StoreFile) * n);
	const char **names = palloc(sizeof(char *) * n);
	int			n_names = 0;

	for (int i = 0; i < n; i++)
		located[i] = (StoreFile)
	{
		.path = files[i].path,.expected = &files[i].identity
	};
	store_locate_many(store, restoring->run_id, located, n);
	CHECK_FOR_INTERRUPTS();

	/*
	 * is_name_free() will ask for the names of the files that lie in the
	 * trash
	 */
	for (int i = 0; i < n; i++)
		if (located[i].place == PLACE_TRASH)
			names[n_names++] = ledger_target(&files[i]);
	store_expect(store, names, n_names);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		judge_captured(restoring, &files[i], &located[i]);
	}
	store_expect(store, NULL, 0);
	ledger_record(restoring->context->extension, restoring->run_id, files, n);
}

/*
 * Returns the next files of this kind, an array, and sets *n to their number,
 * and *after to the last file_id; NULL at the end.
 */
static LedgerFile *
next_page(const Restoring *restoring, LedgerKind kind, int64 *after, int *n)
{
	int64		only = restoring->only_file;
	LedgerFile *files;

	/* after the one file there is no other */
	if (only > 0 && *after >= only)
		return NULL;
	files = ledger_files(restoring->context->extension, restoring->run_id, kind,
						 only > 0 ? only - 1 : *after, only > 0 ? 1 : kind == LEDGER_RETURNING ? RETURN_BATCH : RESTORE_BATCH, n);
	if (*n == 0 || (only > 0 && files[0].file_id != only))
		return NULL;
	*after = files[*n - 1].file_id;
	return files;
}

/* Looks at all backups of the run, or at the one that is put back as `as` (NULL: under its own name). */
static void
judge_run(Restoring *restoring, const char *as)
{
	int64		after = 0;
	LedgerFile *files;
	int			n;

	while ((files = next_page(restoring, LEDGER_RESTORABLE, &after, &n)) != NULL)
	{
		files[0].restore_as = as ? as : files[0].restore_as;
		judge_all_captured(restoring, files, n);
	}
}

/*
 * Restores the cleared columns of the failed sessions whose audio comes back, or
 * has come back by an earlier call that could not write these columns.  The rows
 * of these sessions stay locked until the transaction ends, and others may wait
 * for them; so nothing may wait for the server of a bucket afterwards.
 */
static void
restore_sessions(Restoring *restoring)
{
	const Context *context = restoring->context;
	int64		after = 0;
	LedgerFile *files;
	int			n;

	while ((files = next_page(restoring, LEDGER_RETURNING, &after, &n)) != NULL)
	{
		foreach_ptr(const char, session, cleared_restore(context->extension, restoring->settings->rules, restoring->run_id,
														 files, n, context->settings->writer_wait,
														 &restoring->errors, &restoring->n_errors))
		{
			restoring->sessions = report_append(restoring->sessions, context->settings->report_limit, session);
			restoring->n_sessions++;
		}
	}
}

/* Puts backups of the run back.  Needs the run lock. */
static void
restore_backups(Restoring *restoring, int64 run_id, const char *as)
{
	const Extension *extension = restoring->context->extension;
	LedgerWork *work = ledger_run(extension, run_id);

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
	restoring->settings = settings_of_run(work->upload_dir, work->settings);
	restoring->place = location_place(restoring->settings, settings_backup_owner(work->settings));
	restoring->drain = drain_make(extension, work, true);
	PG_TRY();
	{
		brake_raise_if(drain_open(restoring->drain));
		restoring->store = drain_store(restoring->drain);
		brake_raise_if(claim_lock(restoring->store, work->upload_dir,
								  restoring->context->settings->writer_wait));
		judge_run(restoring, as);
		restore_sessions(restoring);
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
make_restored_result(const Restoring *restoring)
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
make_restore_report(const Restoring *restoring, int64 run_id)
{
	JsonBuilder json;

	json_begin(&json);
	json_add_boolean(&json, "success", restoring->n_errors == 0);
	json_add_text(&json, "message", restoring->n_files > 0 ? "Restore completed" : "Nothing was restored");
	json_add_jsonb(&json, "result", make_restored_result(restoring));
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

static Jsonb *
do_restore_run(CleanupPlan *plan, void *arg)
{
	const Context *context = begin_restoring(plan);
	Restoring	restoring = {context};
	int64		run_id = *(int64 *) arg;
	Brake	   *ignored;

	/* the run may have been made in another directory */
	(void) claim_find(context->extension, context->settings->upload_dir, false, &ignored);
	restore_backups(&restoring, run_id, NULL);
	return make_restore_report(&restoring, run_id);
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
	Brake	   *brake;
	const char *claim = claim_find(context->extension, settings->upload_dir, false, &brake);
	Backup	   *backup;

	brake_raise_if(brake);
	backup = backup_find(context->extension, claim, path);
	if (backup == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("there is no backup of file \"%s\"", path),
				 errhint("See cleanup_backups.")));
	if (as != NULL)
		location_check_restored(settings, path, as);
	restoring.only_file = backup->file_id;
	restore_backups(&restoring, backup->run_id, as);
	return make_restore_report(&restoring, backup->run_id);
}

Jsonb *
restore_file(const char *file, const char *as)
{
	FileRequest request = {file, as};

	return plan_call(CLEAN_ALL, false, false, do_restore_file, &request);
}
