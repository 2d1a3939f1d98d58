/*-------------------------------------------------------------------------
 *
 * plan/plan.c
 *	  walk -> match -> brakes -> condemn: what a run decides.
 *
 * The order is the safety of it.  The walk comes before the snapshot that
 * reads the references, so a row committed in between protects its file.
 * What looks like an orphan then is looked at twice: plan_condemn() waits
 * until every transaction that was writing to a source has ended, and matches
 * the few again under a snapshot taken after that, so a row that was in
 * flight protects its file too.  No file is touched here.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "src/plan/counts.h"
#include "src/guard/location.h"
#include "src/names/file_key.h"
#include "src/names/rules.h"
#include "src/pg/lock.h"
#include "src/pg/progress.h"
#include "src/pg/sql.h"
#include "src/plan/match.h"
#include "src/plan/plan.h"
#include "src/sources/cleared.h"
#include "src/sources/sources.h"
#include "src/store/walk.h"

/* so many rows a preview tries to clear of each source */
#define MAX_TRIED_ROWS			10

#define NS_PER_SECOND	INT64CONST(1000000000)

/* so far the clocks of the server and of the file system may differ */
#define MAX_CLOCK_SKEW_SECONDS	300


/* -------------------------------------------------------------- beginning --- */

/* When the plan ends, or an ERROR ends it. */
static void
give_back(void *arg)
{
	sources_set_deadline(0);
	store_close(((CleanupPlan *) arg)->store);
}

CleanupPlan *
plan_begin(CleanWhat what, bool dry_run, bool force)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup plan",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	CleanupPlan *plan = palloc0(sizeof(CleanupPlan));

	callback->func = give_back;
	callback->arg = plan;
	MemoryContextRegisterResetCallback(context, callback);

	plan->context = context;
	plan->what = what;
	plan->dry_run = dry_run;
	plan->force = force;
	plan->settings = settings_snapshot();
	plan->extension = extension_lookup(false);
	MemoryContextSwitchTo(caller);
	return plan;
}

void
plan_end(CleanupPlan *plan)
{
	if (plan->condemned != NULL)
		condemned_end(plan->condemned);
	MemoryContextDelete(plan->context);
}

const char *
plan_what_text(CleanWhat what)
{
	switch (what)
	{
		case CLEAN_ORPHANS:
			return "orphaned_files";
		case CLEAN_FAILED:
			return "failed_sessions";
		case CLEAN_ALL:
			break;
	}
	return "all";
}


/* ------------------------------------------------------- brakes and errors --- */

/* A real run ends here; a dry run remembers. */
static void
apply_brake(CleanupPlan *plan, Brake *brake)
{
	plan->blocked = true;
	if (!plan->dry_run)
		brake_raise(brake);
	plan->brakes = lappend(plan->brakes, brake);
}

static void
apply_all(CleanupPlan *plan, List *brakes)
{
	ListCell   *lc;

	foreach(lc, brakes)
		apply_brake(plan, lfirst(lc));
}

/* Takes a text that was allocated in any context. */
static void
add_error(CleanupPlan *plan, const char *text)
{
	plan->error_count++;
	if (list_length(plan->errors) < plan->settings->report_limit)
	{
		MemoryContext caller = MemoryContextSwitchTo(plan->context);

		plan->errors = lappend(plan->errors, pstrdup(text));
		MemoryContextSwitchTo(caller);
	}
}

/* A preview looks nevertheless: these are told apart from the brakes. */
void
plan_check_transaction(CleanupPlan *plan)
{
	MemoryContext caller = MemoryContextSwitchTo(plan->context);
	Brake	   *found = NULL;

	if (RecoveryInProgress())
		found = brake_make("recovery", ERRCODE_READ_ONLY_SQL_TRANSACTION,
						   "cannot clean up while the server is in recovery", NULL,
						   "Run it on the primary; cleanup_status() and dry runs work here.");
	else if (XactReadOnly)
		found = brake_make("read_only", ERRCODE_READ_ONLY_SQL_TRANSACTION,
						   "cannot clean up in a read-only transaction", NULL,
						   "cleanup_status() and dry runs work here.");
	else if (IsolationUsesXactSnapshot())
		found = brake_make("isolation", ERRCODE_ACTIVE_SQL_TRANSACTION,
						   "cannot clean up in a REPEATABLE READ or SERIALIZABLE transaction",
						   "Its snapshot may be older than rows that refer to files.",
						   "Use a READ COMMITTED transaction.");
	if (found != NULL && !plan->dry_run)
		brake_raise(found);
	if (found != NULL)
		plan->notes = lappend(plan->notes, found);
	MemoryContextSwitchTo(caller);
}

void
plan_limit_reading(const Settings *settings, bool in_batches)
{
	int			seconds = plan_is_unattended() ? settings->source_timeout : 0;
	int			run_minutes = in_batches || plan_is_unattended() ? settings->max_run_minutes : 0;

	if (run_minutes > 0 && (seconds == 0 || run_minutes <= seconds / SECS_PER_MINUTE))
		seconds = run_minutes * SECS_PER_MINUTE;
	sources_set_deadline(seconds == 0 ? 0 :
						 GetCurrentTimestamp() + (TimestampTz) seconds * USECS_PER_SEC);
}

bool
plan_is_unattended(void)
{
	/*
	 * pg_cron comes as a client by default, with this name; who takes it is
	 * only stopped more often
	 */
	return MyBackendType == B_BG_WORKER ||
		(application_name != NULL && strcmp(application_name, "pg_cron") == 0);
}

static void
check_directory(CleanupPlan *plan)
{
	const char *path = plan->settings->upload_dir;
	Brake	   *found = location_check(path);
	int			errnum;

	if (found == NULL && (plan->store = store_open(path)) == NULL)
		found = location_brake(path, "open upload directory", errno);
	if (found == NULL && !XactReadOnly &&
		(errnum = store_check_writable(plan->store)) != 0)
		found = location_brake(path, "write to upload directory", errnum);
	if (found == NULL)
		found = location_check_backup_dir(plan->settings, !XactReadOnly);
	if (found != NULL)
		apply_brake(plan, found);
}

static int64
now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64) now.tv_sec * NS_PER_SECOND + now.tv_nsec;
}

/* Ages are told by the server's clock and the file system's stamps. */
static void
check_clock(CleanupPlan *plan)
{
	int64		file_system_ns;
	int64		skew;

	/* where it cannot be asked, the file system is usually the server's own */
	if (XactReadOnly || store_clock(plan->store, &file_system_ns).outcome != FILE_OK)
		return;
	skew = (file_system_ns - now_ns()) / NS_PER_SECOND;
	if (llabs((long long) skew) > MAX_CLOCK_SKEW_SECONDS)
		apply_brake(plan, brake_make("clock", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
									 "the clock of the upload directory's file system cannot be trusted",
									 psprintf("It differs from the server's by %lld seconds.", (long long) skew),
									 "Synchronize the clocks of the server and of the file server."));
}

static void
read_claim(CleanupPlan *plan)
{
	plan->claim = claim_check(plan->store, plan->extension, plan->settings->upload_dir);
	plan->settings->claim = plan->claim->uuid;
	if (plan->claim->grace_from != 0)
		plan->settings->grace_from_ns =
			(plan->claim->grace_from +
			 (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY) * 1000;
}

static void
check_sources(CleanupPlan *plan)
{
	ListCell   *lc;

	plan->sources = sources_load(plan->extension);
	apply_all(plan, sources_check_all(plan->sources));
	if (plan->brakes != NIL)
		return;
	foreach(lc, plan->sources)
	{
		Brake	   *found = sources_probe(lfirst(lc));

		if (found == NULL)
			(void) sources_tables(lfirst(lc), &found);
		if (found != NULL)
			apply_brake(plan, found);
	}
}


/* -------------------------------------------------------------------- walk --- */

bool
plan_is_readable_name(const Settings *settings, const char *path)
{
	size_t		len = strlen(path);
	size_t		i;

	if (settings->rules->utf8)
		return pg_verify_mbstr(PG_UTF8, path, (int) len, true);
	for (i = 0; i < len; i++)
		if (IS_HIGHBIT_SET(path[i]))
			return false;
	return true;
}

char *
plan_escape_name(const char *name)
{
	StringInfoData escaped;

	initStringInfo(&escaped);
	for (; *name != '\0'; name++)
	{
		unsigned char c = (unsigned char) *name;

		if (c < 0x20 || c >= 0x7F || c == '\\')
			appendStringInfo(&escaped, "\\x%02X", c);
		else
			appendStringInfoChar(&escaped, (char) c);
	}
	return escaped.data;
}

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

	if (!key_is_audio(plan->settings->rules, path))
		return;
	plan->files_seen++;
	progress_add(PROGRESS_WALKED, 1);
	if (plan_is_readable_name(plan->settings, path))
		match_add(walked->match, path);
	else if ((plan->what & CLEAN_ORPHANS) != 0)
		add_error(plan, psprintf("file name \"%s\" is not valid in encoding \"%s\"; the file is left alone",
								 plan_escape_name(path), GetDatabaseEncodingName()));
}

static void
walk_into(CleanupPlan *plan, TreeWalk *walk, PlanWalkSink sink, void *arg)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup walk",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);
	const char *path;
	const char *action;
	int			errnum;
	WalkStep	step;

	while ((step = walk_next(walk, &path)) == WALK_FILE)
	{
		progress_tick();
		sink(path, arg);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);

	if (step == WALK_FAILED)
	{
		path = walk_failure(walk, &errnum, &action);
		apply_brake(plan, location_brake(psprintf("%s/%s", plan->settings->upload_dir,
												  plan_escape_name(path)),
										 action, errnum));
	}
}

static void
walk_directory(CleanupPlan *plan, PlanWalkSink sink, void *arg)
{
	TreeWalk   *walk = walk_begin(plan->store, plan->settings->recurse);

	PG_TRY();
	{
		walk_into(plan, walk, sink, arg);
	}
	PG_FINALLY();
	{
		walk_end(walk);
	}
	PG_END_TRY();
}

typedef struct ReadableFiles
{
	CleanupPlan *plan;
	PlanWalkSink sink;
	void	   *arg;
} ReadableFiles;

static void
pass_readable(const char *path, void *arg)
{
	ReadableFiles *files = arg;

	progress_add(PROGRESS_WALKED, 1);
	if (plan_is_readable_name(files->plan->settings, path))
		files->sink(path, files->arg);
}

void
plan_walk(CleanupPlan *plan, PlanWalkSink sink, void *arg)
{
	ReadableFiles files = {plan, sink, arg};

	/* what stands in the way of a deletion is no matter here */
	plan->brakes = NIL;
	progress_set_phase(PHASE_WALKING);
	walk_directory(plan, pass_readable, &files);
	if (plan->brakes != NIL)
		brake_raise(llast(plan->brakes));
}


/* ------------------------------------------------------------------- judge --- */

int64
plan_file_time(const Settings *settings, const FileIdentity *identity)
{
	int64		newest = identity->mtime_ns;

	if (settings->file_age == FILE_AGE_NEWEST)
		newest = Max(newest, Max(identity->ctime_ns, identity->btime_ns));
	return Max(newest, settings->grace_from_ns);
}

bool
plan_is_old(const Settings *settings, const FileIdentity *identity)
{
	int64		retention = (int64) settings->orphaned_file_retention_hours * 3600 * NS_PER_SECOND;

	/*
	 * a time stamp may be the first or the last that there is: the rest does
	 * not overflow
	 */
	return plan_file_time(settings, identity) <= now_ns() - retention;
}

TimestampTz
plan_failed_before(const Settings *settings)
{
	return GetCurrentTimestamp() -
		(TimestampTz) settings->failed_session_retention_days * USECS_PER_DAY;
}

static Match *
begin_match(const Settings *settings)
{
	Match	   *match = match_begin(settings->rules);

	match_set_grace(match, settings->orphaned_file_retention_hours,
					settings->failed_session_retention_days);
	match_set_claim(match, settings->claim);
	return match;
}

typedef struct Judgement
{
	CleanupPlan *plan;
	Match	   *match;
	Condemned  *condemned;
	bool		in_survey;
	MemoryContext scratch;		/* reset for each file */
	int			last_source;	/* failed sessions come sorted */
	char	   *last_session;
	bool		has_own;		/* a file of that came with it ... */
	bool		has_shared;		/* ... and one with a session before */
} Judgement;

/* Look at the file itself; false if it is not there or no regular file. */
static bool
identify(Judgement *judgement, const char *path, FileIdentity *identity)
{
	FileResult	result = store_identify(judgement->plan->store, path, identity);

	if (result.outcome == FILE_FAILED)
		add_error(judgement->plan,
				  psprintf("could not %s \"%s\": %s", result.action, path, strerror(result.errnum)));
	return result.outcome == FILE_OK;
}

/*
 * A file that has changed since the match began is not the one that was
 * matched: the row that refers to it may have come after the snapshot.
 */
static bool
is_unchanged(const CleanupPlan *plan, const FileIdentity *identity)
{
	return identity->ctime_ns <= plan->looked_at_ns;
}

/* Each folder is an error, whatever the number of its files. */
static void
report_closed(CleanupPlan *plan, const char *path, int errnum)
{
	const char *slash = strrchr(path, '/');
	char	   *folder = pnstrdup(slash ? path : ".", slash ? slash - path : 1);
	ListCell   *lc;

	foreach(lc, plan->closed_folders)
		if (strcmp(lfirst(lc), folder) == 0)
		return;
	if (list_length(plan->closed_folders) < plan->settings->report_limit)
	{
		MemoryContext caller = MemoryContextSwitchTo(plan->context);

		plan->closed_folders = lcons(pstrdup(folder), plan->closed_folders);
		MemoryContextSwitchTo(caller);
	}
	add_error(plan, psprintf("no file can be removed from folder \"%s\": %s", folder, strerror(errnum)));
}

/* A preview tells what would fail; a run tries it, and its row says why. */
static bool
is_removable(Judgement *judgement, const char *path)
{
	CleanupPlan *plan = judgement->plan;
	int			errnum = plan->dry_run && !XactReadOnly ? store_check_folder(plan->store, path) : 0;

	if (errnum != 0)
		report_closed(plan, path, errnum);
	return errnum == 0;
}

static void
judge_orphan(int64 number, const char *path, void *arg)
{
	Judgement  *judgement = arg;
	MemoryContext caller = MemoryContextSwitchTo(judgement->scratch);
	CondemnedFile file = {path, NULL, NULL};

	if (identify(judgement, path, &file.identity) &&
		is_unchanged(judgement->plan, &file.identity) &&
		plan_is_old(judgement->plan->settings, &file.identity) &&
		is_removable(judgement, path))
		condemned_add_file(judgement->condemned, &file);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(judgement->scratch);
}

/* Tells a session by the file rows that are to come: a hash of its source and id. */
static uint64
session_key(const char *source, const char *session)
{
	return hash_bytes_extended((const unsigned char *) session, (int) strlen(session),
							   hash_bytes_extended((const unsigned char *) source, (int) strlen(source), 0));
}

/*
 * The survey has a file that several sessions refer to once, with the first of
 * them.  Where the file comes in an earlier batch than other files of the
 * session, the session must not be cleared before those have come.
 */
static void
defer_session(CleanupPlan *plan, const char *source, const char *session)
{
	uint64		key = session_key(source, session);

	if (plan->deferred == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(uint64),.entrysize = sizeof(uint64),.hcxt = plan->context};

		plan->deferred = hash_create("audio_cleanup sessions", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	(void) hash_search(plan->deferred, &key, HASH_ENTER, NULL);
}

static bool
is_deferred(const CleanupPlan *plan, const char *source, const char *session)
{
	uint64		key = session_key(source, session);

	return plan->deferred != NULL && hash_search(plan->deferred, &key, HASH_FIND, NULL) != NULL;
}

/* The files of the session come now. */
static void
stop_deferring(const CleanupPlan *plan, const CondemnedFile *file)
{
	uint64		key;

	if (plan->deferred == NULL || file->session == NULL)
		return;
	key = session_key(file->source, file->session);
	(void) hash_search(plan->deferred, &key, HASH_REMOVE, NULL);
}

static void
note_session(Judgement *judgement, const Source *source, const char *session)
{
	if (judgement->last_session != NULL && judgement->last_source == source->number &&
		strcmp(judgement->last_session, session) == 0)
		return;
	if (judgement->last_session != NULL)
		pfree(judgement->last_session);
	judgement->last_source = source->number;
	judgement->has_own = judgement->has_shared = false;

	/*
	 * the current context is that of a query, which may end before the
	 * judging
	 */
	judgement->last_session = MemoryContextStrdup(judgement->plan->context, session);
	condemned_add_session(judgement->condemned, source->number, session);
}

/*
 * A reference protects generously, but it condemns only the file that it
 * names to the letter.  What it matches otherwise (a bare name in some
 * subdirectory) may be somebody's upload of this minute: that one must have
 * the age of an orphan too.
 */
static void
judge_failed(int64 number, const char *path, const Source *source, const char *session,
			 bool strict, void *arg)
{
	Judgement  *judgement = arg;
	MemoryContext caller = MemoryContextSwitchTo(judgement->scratch);
	CondemnedFile file = {path, source->name, sources_session_id(session)};
	bool		condemn;

	condemn = identify(judgement, path, &file.identity) &&
		is_unchanged(judgement->plan, &file.identity) &&
		(strict ||
		 plan_is_old(judgement->plan->settings, &file.identity)) &&
		is_removable(judgement, path);
	if (condemn)
	{
		bool		is_own = match_mark(judgement->match, number);

		if (is_own)
			condemned_add_file(judgement->condemned, &file);
		note_session(judgement, source, session);
		judgement->has_own |= is_own;
		judgement->has_shared |= !is_own;
		if (judgement->in_survey && judgement->has_own && judgement->has_shared)
			defer_session(judgement->plan, file.source, file.session);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(judgement->scratch);
}

static void
judge(CleanupPlan *plan, Match *match, Condemned *condemned, bool in_survey)
{
	Judgement	judgement = {.plan = plan,.match = match,.condemned = condemned,.in_survey = in_survey,.last_source = -1};

	judgement.scratch = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup file",
											  ALLOCSET_SMALL_SIZES);
	if ((plan->what & CLEAN_FAILED) != 0)
		match_failed(match, plan->extension, judge_failed, &judgement);
	if ((plan->what & CLEAN_ORPHANS) != 0)
		match_unreferenced(match, judge_orphan, &judgement);
	MemoryContextDelete(judgement.scratch);
}


/* ------------------------------------------------------------------- clear --- */

/* Gathers the sessions of one source that may be cleared now. */
typedef struct Clearing
{
	const CleanupPlan *plan;
	const Source *source;
	ArrayBuildState *sessions;
} Clearing;

static void
gather_session(int source, const char *session, void *arg)
{
	Clearing   *clearing = arg;

	if (source == clearing->source->number &&
		!is_deferred(clearing->plan, clearing->source->name, sources_session_id(session)))
		clearing->sessions = accumArrayResult(clearing->sessions, CStringGetTextDatum(session),
											  false, TEXTOID, CurrentMemoryContext);
}

/* A try to clear the sessions of all sources. */
typedef struct ClearingTry
{
	CleanupPlan *plan;
	Condemned  *condemned;
	List	   *sources;
	const Source *source;		/* whose turn it is */
	bool		cleared;
} ClearingTry;

/* As long as the audio can come back, so can what refers to it. */
static void
clear_source(const CleanupPlan *plan, const Source *source, Datum sessions)
{
	if (plan->dry_run)
	{
		sources_try_clearing(source, sessions, MAX_TRIED_ROWS);
		return;
	}
	if (plan->settings->backup_retention_days > 0)
		cleared_remember(plan->extension, plan->run_id, source, sessions);
	sources_clear(source, sessions);
}

static void
clear_all(void *arg)
{
	ClearingTry *try = arg;
	ListCell   *lc;

	foreach(lc, try->sources)
	{
		Clearing	clearing = {try->plan, lfirst(lc), NULL};

		try->source = clearing.source;
		if (try->source->clear)
			condemned_scan_sessions(try->condemned, gather_session, &clearing);
		if (clearing.sessions != NULL)
			clear_source(try->plan, try->source, makeArrayResult(clearing.sessions, CurrentMemoryContext));
	}
	try->cleared = true;
	if (try->plan->dry_run)
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_ROLLBACK), errmsg("a dry run takes back what it tries")));
}

/* Says once in a run that a source cannot be cleared, and why. */
static void
note_unclearable(CleanupPlan *plan, const Source *source, const char *message, const char *detail,
				 const char *hint)
{
	MemoryContext caller;
	const char *advice = hint && strstr(hint, "on_failed") ? "" : "Correct that, or register the source with on_failed => 'keep'.";

	add_error(plan, psprintf("the failed sessions of source %s are left alone, because they cannot be cleared: %s%s%s (%s%s%s)",
							 source->name, message, detail ? ": " : "", detail ? detail : "",
							 hint ? hint : "", hint && advice[0] != '\0' ? " " : "", advice));
	caller = MemoryContextSwitchTo(plan->context);
	plan->unclearable = lappend_oid(plan->unclearable, source->relid);
	MemoryContextSwitchTo(caller);
}

static bool
can_try_clearing(void)
{
	return !XactReadOnly && !RecoveryInProgress() && !IsolationUsesXactSnapshot();
}

/* Where it cannot be tried, something can be told all the same. */
static bool
look_at_clearing(CleanupPlan *plan, List *sources)
{
	bool		can_clear = true;
	ListCell   *lc;

	foreach(lc, sources)
	{
		Brake	   *brake = sources_check_clearing(lfirst(lc));

		if (brake != NULL)
			note_unclearable(plan, lfirst(lc), brake->message, brake->detail, brake->hint);
		can_clear &= brake == NULL;
	}
	return can_clear;
}

/*
 * Clears the sessions, of all sources or of none: a file that one source's
 * session keeps must not lose the row of another source.  In a subtransaction:
 * constraints and triggers of a table may object, and that is an error of its
 * source alone.  A dry run tries, and takes it back.  Returns false if a
 * source could not be cleared; then the files are to be judged again.
 */
static bool
clear_sessions(CleanupPlan *plan, Condemned *condemned, List *sources)
{
	ClearingTry try = {plan, condemned, sources, NULL, false};
	ErrorData  *error;

	if (condemned->n_sessions == 0)
		return true;
	if (plan->dry_run && !can_try_clearing())
		return look_at_clearing(plan, sources);
	error = sql_try(clear_all, &try);
	if (!try.cleared)
		note_unclearable(plan, try.source, error->message, error->detail, error->hint);
	return try.cleared;
}

/* Rows of a source that could not be cleared protect their files from then on, whatever their status. */
static void
forget_unclearable(const CleanupPlan *plan, List *sources)
{
	ListCell   *lc;

	foreach(lc, sources)
		if (list_member_oid(plan->unclearable, ((Source *) lfirst(lc))->relid))
		((Source *) lfirst(lc))->status_column = NULL;
}

/*
 * Runs the match and judges its files, with `clear` until all sessions could
 * be cleared.  *match may become another one.
 */
static Condemned *
match_and_judge(CleanupPlan *plan, Match **match, List *sources, MatchMode mode,
				TimestampTz failed_before, bool interxact, bool clear)
{
	for (;;)
	{
		Condemned  *condemned;

		forget_unclearable(plan, sources);
		match_run(*match, plan->extension, sources,
				  (plan->what & CLEAN_FAILED) != 0 ? mode : MATCH_PROTECT, failed_before, false);
		condemned = condemned_begin(interxact);
		progress_set_phase(mode == MATCH_JUDGE ? PHASE_JUDGING : PHASE_CONDEMNING);
		judge(plan, *match, condemned, mode == MATCH_JUDGE && !plan->dry_run);
		if (!clear || clear_sessions(plan, condemned, sources))
			return condemned;
		condemned_end(condemned);
		*match = match_begin_again(*match);
	}
}


/* ------------------------------------------------------------------ survey --- */

static void
count_sources(CleanupPlan *plan, const Match *match)
{
	ListCell   *lc;

	plan->counts = palloc(sizeof(MatchCounts) * Max(list_length(plan->sources), 1));
	foreach(lc, plan->sources)
	{
		int			number = ((const Source *) lfirst(lc))->number;

		match_count_source(match, number, &plan->counts[number]);
	}
}

static void
survey_files(CleanupPlan *plan, bool interxact)
{
	Match	   *match = begin_match(plan->settings);
	WalkedFiles walked = {plan, match};

	plan->looked_at_ns = now_ns();
	progress_set_phase(PHASE_WALKING);
	walk_directory(plan, add_walked_file, &walked);
	if (plan->brakes == NIL)
	{
		plan->surveyed = true;
		progress_set_phase(PHASE_MATCHING);
		condemned_end(plan->condemned);
		/* a real run clears when it condemns */
		plan->condemned = match_and_judge(plan, &match, plan->sources, MATCH_JUDGE,
										  plan_failed_before(plan->settings), interxact, plan->dry_run);
		plan->files_referenced = match_count_referenced(match);
		plan->rows_seen = match_count_rows(match);
		count_sources(plan, match);
		progress_set(PROGRESS_MATCHED, plan->files_referenced);
		progress_set(PROGRESS_CONDEMNED, plan->condemned->n_files);
		apply_all(plan, counts_check(plan));
	}
	match_end(match);
}

void
plan_open_directory(CleanupPlan *plan)
{
	MemoryContext caller = MemoryContextSwitchTo(plan->context);

	check_directory(plan);
	if (plan->brakes == NIL)
	{
		check_clock(plan);
		read_claim(plan);
	}
	MemoryContextSwitchTo(caller);
}

void
plan_lock_directory(CleanupPlan *plan)
{
	MemoryContext caller = MemoryContextSwitchTo(plan->context);
	Brake	   *brake = claim_lock(plan->store, plan->settings->upload_dir,
								   plan->settings->writer_wait);

	if (brake != NULL)
		apply_brake(plan, brake);
	MemoryContextSwitchTo(caller);
}

/* Who had the lock before may have been taking the directory over. */
void
plan_hold_directory(CleanupPlan *plan)
{
	MemoryContext caller = MemoryContextSwitchTo(plan->context);

	plan_lock_directory(plan);
	read_claim(plan);
	if (plan->claim->brake != NULL)
		apply_brake(plan, plan->claim->brake);
	MemoryContextSwitchTo(caller);
}

void
plan_open(CleanupPlan *plan)
{
	MemoryContext caller = MemoryContextSwitchTo(plan->context);

	plan_open_directory(plan);
	if (plan->claim != NULL && plan->claim->brake != NULL)
		apply_brake(plan, plan->claim->brake);
	if (!plan->dry_run)
		plan_hold_directory(plan);
	check_sources(plan);
	MemoryContextSwitchTo(caller);
}

void
plan_survey(CleanupPlan *plan, bool interxact)
{
	MemoryContext caller = MemoryContextSwitchTo(plan->context);
	int			limit = lock_limit_waits(plan->settings->writer_wait);

	plan->condemned = condemned_begin(interxact);
	plan_limit_reading(plan->settings, interxact);
	plan_open(plan);
	if (plan->brakes == NIL)
		survey_files(plan, interxact);
	if (!plan->dry_run)
		counts_remember(plan);
	condemned_rewind(plan->condemned);
	lock_end_limit(limit);
	MemoryContextSwitchTo(caller);
}


/* ----------------------------------------------------------------- condemn --- */

static bool
is_same_session(const CondemnedFile *a, const CondemnedFile *b)
{
	return a->session != NULL && b->session != NULL &&
		strcmp(a->session, b->session) == 0 && strcmp(a->source, b->source) == 0;
}

/*
 * Feed the next files of the survey into a match; false if there are none.
 * A session's files stay together, because its columns may be cleared.
 */
static bool
take_next(CleanupPlan *plan, int64 limit, Match *match)
{
	CondemnedFile last = {NULL, NULL, NULL};

	if (!plan->has_next)
		plan->has_next = condemned_next(plan->condemned, &plan->next);
	while (plan->has_next &&
		   (match_count(match) < limit || is_same_session(&last, &plan->next)))
	{
		CHECK_FOR_INTERRUPTS();
		match_add(match, plan->next.path);
		stop_deferring(plan, &plan->next);
		condemned_free_texts(&last);
		last = plan->next;
		plan->has_next = condemned_next(plan->condemned, &plan->next);
	}
	condemned_free_texts(&last);
	return match_count(match) > 0;
}

/* Load the sources once more: the last look may be a transaction ago. */
static List *
load_checked_sources(const Extension *extension, Brake **found)
{
	List	   *sources = sources_load(extension);
	List	   *brakes = sources_check_all(sources);

	*found = brakes == NIL ? NULL : linitial(brakes);
	return sources;
}

/* Who holds a file writes, too. */
static void
wait_for_writers(const Extension *extension, List *sources, int writer_wait, Brake **found)
{
	List	   *tables = list_make1_oid(extension_relation(extension, "cleanup_holds"));
	ListCell   *lc;

	foreach(lc, sources)
	{
		if (*found == NULL)
			*found = sources_probe(lfirst(lc));
		if (*found == NULL)
			tables = list_concat_unique_oid(tables, sources_tables(lfirst(lc), found));
	}
	if (*found == NULL)
		lock_wait_for_writers(tables, writer_wait);
}

Condemned *
plan_condemn(CleanupPlan *plan, int64 limit)
{
	MemoryContext caller = MemoryContextSwitchTo(plan->context);
	TimestampTz failed_before = plan_failed_before(plan->settings);
	int			guc_level = lock_limit_waits(plan->settings->writer_wait);
	Match	   *match = begin_match(plan->settings);
	Condemned  *condemned = NULL;
	Brake	   *found;

	plan_limit_reading(plan->settings, limit != PG_INT64_MAX);
	if (take_next(plan, limit, match))
	{
		List	   *sources = load_checked_sources(plan->extension, &found);

		plan->looked_at_ns = now_ns();
		progress_set_phase(PHASE_WAITING);
		if (found == NULL)
			wait_for_writers(plan->extension, sources, plan->settings->writer_wait, &found);
		if (found != NULL)
			apply_brake(plan, found);
		progress_set_phase(PHASE_CONDEMNING);
		condemned = match_and_judge(plan, &match, sources, MATCH_JUDGE_LOCKED, failed_before, false, true);

		/*
		 * the survey's count, without those that did not stand the second
		 * look
		 */
		progress_add(PROGRESS_CONDEMNED, condemned->n_files - match_count(match));
	}
	match_end(match);
	lock_end_limit(guc_level);
	MemoryContextSwitchTo(caller);
	return condemned;
}

typedef struct Waiting
{
	const Extension *extension;
	int			writer_wait;
	List	   *sources;
	Brake	   *brake;
} Waiting;

static void
try_waiting(void *arg)
{
	Waiting    *waiting = arg;
	int			limit = lock_limit_waits(waiting->writer_wait);

	waiting->sources = load_checked_sources(waiting->extension, &waiting->brake);
	if (waiting->brake == NULL)
		wait_for_writers(waiting->extension, waiting->sources, waiting->writer_wait, &waiting->brake);
	lock_end_limit(limit);
}

/* Giving up is no ERROR here: other files can be dealt with. */
static List *
wait_or_brake(const Extension *extension, int writer_wait, Brake **found)
{
	Waiting		waiting = {extension, writer_wait, NIL, NULL};
	ErrorData  *error = sql_try(try_waiting, &waiting);

	*found = waiting.brake;
	if (error != NULL)
		*found = brake_make("writers", error->sqlerrcode, error->message, error->detail, error->hint);
	return waiting.sources;
}

const char **
plan_recheck(const Settings *settings, const Extension *extension,
			 const char *const *paths, int n, Brake **found, int64 *match_us)
{
	const char **why = palloc0(sizeof(char *) * n);
	List	   *sources;
	TimestampTz began;
	Match	   *match;
	int			i;

	plan_limit_reading(settings, true);
	sources = wait_or_brake(extension, settings->writer_wait, found);
	*match_us = 0;
	if (*found != NULL)
		return why;
	began = GetCurrentTimestamp();
	match = begin_match(settings);
	for (i = 0; i < n; i++)
		match_add(match, paths[i]);
	match_run(match, extension, sources, MATCH_JUDGE_LOCKED,
			  plan_failed_before(settings), true);
	for (i = 0; i < n; i++)
		why[i] = match_why_needed(match, i);
	match_end(match);
	*match_us = GetCurrentTimestamp() - began;
	return why;
}
