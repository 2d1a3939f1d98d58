/*-------------------------------------------------------------------------
 *
 * plan/survey.c
 *	  Opens the directory, walks the directory, and matches its files.
 *
 * The order makes the survey safe.  The walk comes before the snapshot that
 * reads the references, so a row that is committed in between protects its
 * file.  plan_condemn() looks again at a file that looks like an orphan here.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "src/names/file_key.h"
#include "src/guard/location.h"
#include "src/ledger/backups.h"
#include "src/pg/lock.h"
#include "src/pg/progress.h"
#include "src/pg/time.h"
#include "src/plan/private.h"
#include "src/sources/sources.h"
#include "src/store/walk.h"


/* -------------------------------------------------------------- directory --- */

static void
check_directory(CleanupPlan *plan)
{
	const Place place = location_place(plan->context.settings, NULL);
	Brake	   *found = location_check(place.upload_dir);
	int			errnum;

	if (found == NULL)
		found = location_open(place.upload_dir, &plan->found.store);
	if (found == NULL)
		found = location_reach(plan->found.store, place.upload_dir);
	if (found == NULL && !XactReadOnly &&
		(errnum = store_check_writable(plan->found.store)) != 0)
		found = location_brake(place.upload_dir, "could not write to upload directory", errnum);
	if (found == NULL)
		found = location_check_backup_dir(&place, !XactReadOnly);
	plan_apply_brake(plan, found);
}

/* Applies a brake if the clocks differ: a file's age is counted from the file system's time to the server's. */
static void
check_clock(CleanupPlan *plan)
{
	int64		file_system_ns;
	int64		skew;

	/*
	 * a file system that does not tell its time usually has the time of the
	 * server
	 */
	if (XactReadOnly || store_clock(plan->found.store, &file_system_ns).outcome != FILE_OK)
		return;
	skew = (file_system_ns - plan_now_ns()) / NS_PER_SECOND;
	if (llabs((long long) skew) > STORE_MAX_SKEW_SECONDS)
		plan_apply_brake(plan, brake_make("clock", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
										  "the clock of the upload directory's file system cannot be trusted",
										  psprintf("It differs from the server's by %lld seconds.", (long long) skew),
										  "Synchronize the clocks of the server and of the file server."));
}

static void
read_claim(CleanupPlan *plan)
{
	plan->found.claim = claim_check(plan->found.store, plan->context.extension,
									plan->context.settings->upload_dir);
}

/*
 * Applies a brake if the present backup directory should have backups, and has
 * none: what is backed up now would lie on the wrong disk, and make that disk
 * look like the right one.
 */
static void
check_backups(CleanupPlan *plan)
{
	const Settings *settings = plan->context.settings;

	if (plan->found.claim->uuid == NULL || *settings->backup_dir == '\0')
		return;
	foreach_ptr(Jsonb, recorded, backup_places(plan->context.extension, plan->found.claim->uuid, true))
	{
		const Place place = location_of_run(settings->upload_dir, recorded);

		if (strcmp(place.backup_dir, settings->backup_dir) == 0)
			plan_apply_brake(plan, location_check_backups(&place));
	}
}

/*
 * Returns a brake if a setting cannot be used, else NULL.  The default would be
 * in force in its place: a shorter retention, no backups, other files.  The
 * brake does not tell the value, which may be a secret: viewers see the text.
 */
static Brake *
check_settings(void)
{
	const char *name = settings_find_unusable();

	return name == NULL ? NULL :
		brake_make("settings", ERRCODE_INVALID_PARAMETER_VALUE,
				   psprintf("parameter \"%s\" cannot be set as it is", name),
				   "The configuration file, ALTER DATABASE, ALTER ROLE or the environment sets a parameter that does not exist, or a value that is not valid, and the default is in force instead.",
				   "Correct the name or the value, and connect again. Days and hours are written without the unit.");
}

/*
 * Applies the brake of the claim.  A replica only notes the brake, because a
 * replica looks at the directory of the database that it replicates.
 */
static void
require_own_claim(CleanupPlan *plan)
{
	if (plan->found.claim == NULL || plan->found.claim->brake == NULL)
		return;
	if (plan->replica)
		plan->found.notes = lappend(plan->found.notes, plan->found.claim->brake);
	else
		plan_apply_brake(plan, plan->found.claim->brake);
}

void
plan_open_directory(CleanupPlan *plan)
{
	check_directory(plan);
	if (plan->found.brakes != NIL)
		return;
	read_claim(plan);

	/*
	 * nothing is tried in the directory of another database: no run is made
	 * there
	 */
	if (plan->found.claim->brake != NULL)
		return;
	check_clock(plan);
	plan_apply_brake(plan, location_check_undo(plan->found.store, plan->context.settings, !XactReadOnly));
	check_backups(plan);
}

void
plan_lock_directory(CleanupPlan *plan)
{
	plan_apply_brake(plan, claim_lock(plan->found.store, plan->context.settings->upload_dir,
									  plan->context.settings->writer_wait));
}

/* Looks at the claim again: the holder of the lock before may have taken the directory over. */
void
plan_lock_own_directory(CleanupPlan *plan)
{
	plan_lock_directory(plan);
	read_claim(plan);
	require_own_claim(plan);
}

void
plan_open(CleanupPlan *plan)
{
	Brake	   *unusable = check_settings();

	/*
	 * a preview has this brake first, too, but looks at all else as if there
	 * were none
	 */
	if (!plan->dry_run)
		plan_apply_brake(plan, unusable);
	plan_open_directory(plan);
	require_own_claim(plan);
	/* the files of a directory belong to one database */
	if (plan->found.store != NULL)
		plan_apply_brake(plan, claim_check_above(plan->context.settings->upload_dir, plan->context.settings->backup_dir));
	if (!plan->dry_run)
		plan_lock_own_directory(plan);
	plan->found.sources = sources_load(plan->context.extension);
	foreach_ptr(Brake, brake, sources_check_all(plan->found.sources))
		plan_apply_brake(plan, brake);
	if (plan->found.brakes == NIL)
		foreach_ptr(const Source, source, plan->found.sources)
			plan_apply_brake(plan, sources_probe(source, NULL));
	if (plan->dry_run && unusable != NULL)
	{
		plan->found.blocked = true;
		plan->found.brakes = lcons(unusable, plan->found.brakes);
	}
}


/* -------------------------------------------------------------------- walk --- */

typedef struct WalkedFiles
{
	CleanupPlan *plan;
	Match	   *match;
} WalkedFiles;

static void
add_walked_file(const char *path, void *arg)
{
	WalkedFiles *walked = arg;
	CleanupPlan *plan = walked->plan;

	if (!key_is_audio(plan->context.settings->rules, path))
		return;
	plan->found.files_seen++;
	progress_add(PROGRESS_WALKED, 1);
	if (plan_is_readable_name(plan->context.settings, path))
		match_add(walked->match, path);
	else if ((plan->what & CLEAN_ORPHANS) != 0)
		plan_add_error(plan, psprintf("file name \"%s\" is not valid in encoding \"%s\"; the file is left alone",
									  plan_escape_name(path), GetDatabaseEncodingName()), NULL);
}

/*
 * Applies a brake for a folder in which another database cleans; the files of
 * the folder are seen all the same.
 */
static void
check_below(CleanupPlan *plan, const char *folder)
{
	MemoryContext caller = MemoryContextSwitchTo(plan->memory);

	plan_apply_brake(plan, claim_check_below(plan->context.settings->upload_dir, folder));
	MemoryContextSwitchTo(caller);
}

static void
walk_into(CleanupPlan *plan, TreeWalk *walk, bool to_delete, PlanWalkSink sink, void *arg)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup walk",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);
	const char *path;
	const char *failure;
	int			errnum;
	WalkStep	step;

	while ((step = walk_next(walk, &path)) == WALK_FILE || step == WALK_CLAIMED)
	{
		progress_tick();
		if (step == WALK_FILE)
			sink(path, arg);
		else if (to_delete && plan->found.brakes == NIL)
			check_below(plan, path);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
	plan->has_links = walk_has_links(walk);

	if (step == WALK_FAILED)
	{
		path = walk_failure(walk, &errnum, &failure);
		plan_apply_brake(plan, location_store_brake(plan->found.store,
													psprintf("%s/%s", plan->context.settings->upload_dir,
															 plan_escape_name(path)),
													failure, errnum));
	}
}

static void
walk_directory(CleanupPlan *plan, bool to_delete, PlanWalkSink sink, void *arg)
{
	TreeWalk   *walk = walk_begin(plan->found.store, plan->context.settings->recurse, 0);

	PG_TRY();
	{
		walk_into(plan, walk, to_delete, sink, arg);
	}
	PG_FINALLY();
	{
		walk_end(walk);
	}
	PG_END_TRY();
}

void
plan_walk(CleanupPlan *plan, PlanWalkSink sink, void *arg)
{
	/* nothing is deleted here, so no brake matters */
	plan->found.brakes = NIL;
	progress_set_phase(PHASE_WALKING);
	walk_directory(plan, false, sink, arg);
	if (plan->found.brakes != NIL)
		brake_raise(llast(plan->found.brakes));
}


/* ------------------------------------------------------------------ survey --- */

static void
survey_files(CleanupPlan *plan)
{
	Match	   *match = match_begin(plan->context.settings, plan_claim(plan));
	WalkedFiles walked = {plan, match};

	plan->looked_at_ns = plan_now_ns();
	progress_set_phase(PHASE_WALKING);
	walk_directory(plan, true, add_walked_file, &walked);
	match_any_folder(match, plan->has_links);
	if (plan->found.brakes == NIL)
		uploads_survey(plan);
	if (plan->found.brakes == NIL)
	{
		plan->found.surveyed = true;
		progress_set_phase(PHASE_MATCHING);
		condemn_matched(plan, &match, plan->found.sources, MATCH_JUDGE, &plan->found.condemned);
		plan->found.transactions_ended = match_transactions_ended(match);
		plan->found.files_referenced = match_count_referenced(match);
		plan->found.counts = palloc(sizeof(MatchCounts) * Max(list_length(plan->found.sources), 1));
		foreach_ptr(const Source, source, plan->found.sources)
		{
			match_count_source(match, source->number, &plan->found.counts[source->number]);
			plan->found.rows_seen += plan->found.counts[source->number].rows;
		}
		progress_set(PROGRESS_MATCHED, plan->found.files_referenced);
		progress_set(PROGRESS_CONDEMNED, plan->found.condemned->n_files);
		counts_check(plan);
	}
	match_end(match);
}

void
plan_survey(CleanupPlan *plan, bool interxact)
{
	int			limit = lock_limit_waits(plan->context.settings->writer_wait);

	plan->found.condemned = condemned_begin(interxact, plan->dry_run);
	plan->in_batches = interxact;
	plan_limit_reading(plan->context.settings, plan->in_batches);
	plan_open(plan);
	if (plan->found.brakes == NIL)
		survey_files(plan);
	if (!plan->dry_run)
		counts_remember(plan);
	condemned_rewind(plan->found.condemned);
	lock_end_limit(limit);
}
