/*-------------------------------------------------------------------------
 *
 * drain/put_back.c
 *	  Puts captured files back, because a source needs the files or because a
 *	  person has asked for them.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"


#include "src/drain/private.h"
#include "src/ledger/backups.h"
#include "src/pg/progress.h"
#include "src/pg/time.h"

const char	drain_name_taken[] = "its name is taken";
const char	drain_changed_in_trash[] = "it was changed in the trash";
static const char newer_file[] = "a newer file of that name is in the trash";

/* Tells people that the file is back in its place, and why. */
static void
tell_back(int elevel, const LedgerFile *file, const char *why)
{
	ereport(elevel,
			(errcode(ERRCODE_WARNING),
			 errmsg("put file \"%s\" back: %s", file->path, why)));
}

void
drain_keep_backup(Drain *drain, LedgerFile *file, const char *why, const char *obstacle)
{
	drain_set_state(file, "trashed",
					psprintf("%s, but %s; it lies in %s, and cleanup_restore(file, restore_as) puts it back under another name",
							 why, obstacle, drain_trash_path(&drain->place, drain->run_id)));
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("could not put file \"%s\" back: %s", file->path, file->error)));
}

FileResult
drain_put_changed_back(Drain *drain, const StoreFile *returned, const char **why)
{
	FileIdentity found;
	FileResult	result;

	if (returned->result.outcome != FILE_REPLACED || !store_acts_at_commit(drain->store) ||
		store_identify_captured(drain->store, drain->run_id, returned->path, &found).outcome != FILE_OK)
		return returned->result;
	found.captured = true;
	result = store_put_back_as(drain->store, drain->run_id, returned->path, returned->as, &found);
	if (result.outcome == FILE_OK)
		*why = *why ? psprintf("%s, and %s", *why, drain_changed_in_trash) : drain_changed_in_trash;
	return result;
}

bool
drain_is_written(Drain *drain, const LedgerFile *file, FileResult result)
{
	return result.outcome == FILE_REPLACED && drain_is_changed(drain, file);
}

bool
drain_return_changed(Drain *drain, LedgerFile *file)
{
	const StoreFile returned = {file->path, file->path, &file->identity,.result = {FILE_REPLACED}};
	const char *why = NULL;
	FileResult	result;

	if (drain->at_commit)
		return drain_is_changed(drain, file);
	result = drain_put_changed_back(drain, &returned, &why);
	if (result.outcome == FILE_OK)
	{
		drain_set_state(file, "skipped", why);
		tell_back(WARNING, file, why);
	}
	else if (result.outcome == FILE_OCCUPIED)
		drain_keep_backup(drain, file, drain_changed_in_trash, drain_name_taken);
	return result.outcome == FILE_OK || result.outcome == FILE_OCCUPIED;
}

/* Returns whether the file is a backup in the trash whose days are over. */
static bool
is_expired(const LedgerFile *file)
{
	return file->is_backup && file->identity.captured && file->unsettled;
}

/* Sets the state of a file that is needed, by the result of putting the file back. */
static void
settle_healed(Drain *drain, LedgerFile *file, const char *why, const StoreFile *returned)
{
	FileResult	result = drain_put_changed_back(drain, returned, &why);

	if (result.outcome == FILE_VANISHED)
		drain_settle_missing(drain, file);
	else if (result.outcome == FILE_OK)
	{
		drain_set_state(file, "restored", why);
		tell_back(WARNING, file, why);
	}
	else if (result.outcome == FILE_OCCUPIED && is_expired(file))
	{
		/*
		 * its retention is over, and the rows that refer to the name get the
		 * other file
		 */
		drain_destroy_files(drain, file, 1);
	}
	else if (result.outcome == FILE_OCCUPIED)
		drain_keep_backup(drain, file, why, drain_name_taken);
	else
		drain_set_failed(drain, file, result);
}

/*
 * Sets the state "restored".  A note says why the file is needed; there is no
 * note if a person has asked for the file.  In the transaction of a caller the
 * message goes to the server log: the caller has nothing to do with the file.
 */
static void
set_restored(const Drain *drain, LedgerFile *file)
{
	drain_set_state(file, "restored", file->note);
	if (file->note != NULL)
		tell_back(drain->at_commit ? LOG : WARNING, file, file->note);
}

/*
 * Returns whether a drain that was killed has put the file back under another
 * name, by a copy with a date of its own, as in a bucket.  The trash loses the
 * file only after its copy was verified.
 */
static bool
is_copied(const Drain *drain, const LedgerFile *file)
{
	FileIdentity found;

	return file->restore_as != NULL && !store_acts_at_commit(drain->store) &&
		store_identify(drain->store, file->restore_as, true, &found).outcome == FILE_OK &&
		found.size == file->identity.size && found.mtime_ns >= file->identity.mtime_ns;
}

/* Sets the state of a file that was to be put back, and that the trash does not have. */
static void
settle_restored(Drain *drain, LedgerFile *file)
{
	if (drain_is_found_at(drain, ledger_target(file), file) || is_copied(drain, file))
		set_restored(drain, file);
	else if (drain_is_found_at(drain, file->path, file))
	{
		/* a person has already moved the file there */
		set_restored(drain, file);
		file->restore_as = NULL;
	}
	else if (file->unsettled)

		/*
		 * the file was due, and a drain was killed between the destruction
		 * and the record of the destruction
		 */
		drain_set_state(file, "deleted", "it had been destroyed when it was wanted again");
	else
		drain_set_state(file, "failed", "its backup is gone");
}

/*
 * Makes the commit put the file back, because the transaction may be rolled
 * back.  The next drain records the outcome.
 */
static void
put_back_at_commit(Drain *drain, LedgerFile *file)
{
	int			errnum;
	FilePlace	place = store_locate(drain->store, drain->run_id, file->path, &file->identity, false,
									 &errnum);

	if (place == PLACE_TRASH)
		at_commit_add(&drain->place, drain->run_id, AT_COMMIT_PUT_BACK, file->path, ledger_target(file), &file->identity);
	else if (place == PLACE_UPLOAD || ((place == PLACE_NOWHERE || place == PLACE_OTHER) && !drain_is_changed(drain, file)))
		settle_restored(drain, file);
}

/* Sets the state of a file by the result of putting it back. */
static void
settle_returned(Drain *drain, LedgerFile *file, const StoreFile *returned)
{
	FileResult	result = drain_put_changed_back(drain, returned, &file->note);

	if (result.outcome == FILE_OK)
		set_restored(drain, file);
	else if (result.outcome == FILE_OCCUPIED)
	{
		drain_keep_backup(drain, file, file->note ? file->note : "it was to be restored", drain_name_taken);
		file->restore_as = NULL;
	}
	else if (!drain_is_written(drain, file, result) &&
			 (result.outcome == FILE_VANISHED || result.outcome == FILE_REPLACED))
		settle_restored(drain, file);
	else
	{
		drain_set_failed(drain, file, result);
		/* the file is safe in the trash */
		file->new_state = "trashed";
		file->restore_as = NULL;
	}
}

/*
 * Returns whether the file stays in the trash, although it is needed (`why`, a
 * text for people, or NULL), because the trash has a newer file of the same
 * name: the newer file is needed, and the older file must not be put in its
 * place.  Sets the state of the file.  A file that is not in the trash is to be
 * put back nevertheless if it was `asked_for`.
 */
static bool
is_outdated(Drain *drain, LedgerFile *file, const char *why, bool asked_for)
{
	if (why == NULL || !backup_has_newer(drain->context.extension, drain->claim, drain->run_id, file->path))
		return false;
	if (drain_lies_in_trash(drain, file))
		drain_keep_backup(drain, file, why, newer_file);
	else if (!asked_for)
		drain_settle_missing(drain, file);
	else
		return false;
	return true;
}

void
drain_heal_files(Drain *drain, LedgerFile *files, const char *const *why, int n)
{
	StoreFile  *returned = palloc(sizeof(StoreFile) * n);
	int		   *numbers = palloc(sizeof(int) * n);
	int			n_returned = 0;

	for (int i = 0; i < n; i++)
	{
		LedgerFile *file = &files[i];

		if (is_outdated(drain, file, why ? why[i] : file->note, why == NULL))
			continue;
		if (!drain->at_commit)
		{
			numbers[n_returned] = i;
			returned[n_returned++] = (StoreFile)
			{
				file->path, why ? file->path : ledger_target(file), &file->identity
			};
		}
		else if (why)
		{
			/* the commit puts the file back */
			file->identity.captured = true;
			drain_set_state(file, "restoring", why[i]);
			at_commit_add(&drain->place, drain->run_id, AT_COMMIT_PUT_BACK, file->path, file->path, &file->identity);
		}
		else
			put_back_at_commit(drain, file);
	}
	store_put_back_many(drain->store, drain->run_id, returned, n_returned);
	for (int i = 0; i < n_returned; i++)
		if (why)
			settle_healed(drain, &files[numbers[i]], why[numbers[i]], &returned[i]);
		else
			settle_returned(drain, &files[numbers[i]], &returned[i]);
	pfree(returned);
	pfree(numbers);
}

int
drain_restore_step(Drain *drain, int limit)
{
	int64		began = time_monotonic_us();
	LedgerFile *files;
	int			n;
	int			i;

	files = ledger_files(drain->context.extension, drain->run_id, LEDGER_RESTORING,
						 drain->restored_up_to, limit, &n);
	for (i = 0; i < n && !drain_is_step_over(drain, began);)
	{
		int			together = Min(n - i, store_together(drain->store));

		progress_tick();
		drain_heal_files(drain, &files[i], NULL, together);
		i += together;
		drain->restored_up_to = files[i - 1].file_id;
	}
	if (i > 0)
	{
		drain_make_durable(drain);
		drain_record(drain, files, i);
	}
	return i;
}
