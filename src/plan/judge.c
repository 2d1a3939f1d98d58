/*-------------------------------------------------------------------------
 *
 * plan/judge.c
 *	  Judges the files that no row, or only failed sessions, refer to.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "src/plan/private.h"
#include "src/sources/sources.h"

/* A file that waits until there are enough files to look at together. */
typedef struct WaitingFile
{
	int64		number;
	const char *path;
	const Source *source;		/* NULL: an orphan */
	const char *session;
	bool		strict;
} WaitingFile;

typedef struct Judgement
{
	CleanupPlan *plan;
	Match	   *match;
	Condemned  *condemned;
	bool		in_survey;
	bool		again;			/* errors about these files were reported
								 * before */
	bool		may_look;		/* a look at a file asks no network */
	MemoryContext scratch;		/* reset for each file */
	WaitingFile *waiting;
	int			n_waiting;
	int			most_waiting;	/* 1: files do not wait */
	MemoryContext waiting_context;	/* has the texts of the waiting files */
	int			last_source;	/* source of the last session: sessions come
								 * sorted */
	char	   *last_session;
	bool		has_own;		/* a file came with the last session as its
								 * first, */
	bool		has_shared;		/* and another file with an earlier session */
} Judgement;

/*
 * Sets *identity to the identity that the survey has seen of the file with this
 * number.  A look is not repeated while other transactions may wait for locks of
 * ours: the capture finds out whether the file still is the one that was seen.
 */
static void
read_seen(BufFile *seen, int64 number, FileIdentity *identity)
{
	if (BufFileSeek(seen, 0, (off_t) (number * sizeof(FileIdentity)), SEEK_SET) != 0 ||
		BufFileRead(seen, identity, sizeof(FileIdentity)) != sizeof(FileIdentity))
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read from a temporary file of files that were seen: %m")));
}

/*
 * Sets *identity to the identity of the file.  Returns false if there is no
 * such regular file.  `look` says that an identity that the survey has seen is
 * not enough.
 */
static bool
identify(Judgement *judgement, int64 number, const char *path, bool look, FileIdentity *identity)
{
	FileResult	result;

	if (judgement->plan->seen != NULL && !look)
	{
		read_seen(judgement->plan->seen, number, identity);
		return true;
	}
	result = store_identify(judgement->plan->found.store, path, false, identity);
	if (result.outcome == FILE_FAILED && !judgement->again)
		plan_add_error(judgement->plan,
					   psprintf("%s \"%s\": %s", result.failure, path,
								store_error_text(judgement->plan->found.store, result.errnum)), NULL);
	return result.outcome == FILE_OK;
}

/* Reports a folder from which no file can be removed: one error for all of its files. */
static void
report_closed(CleanupPlan *plan, const char *path, int errnum)
{
	const char *slash = strrchr(path, '/');
	char	   *folder = pnstrdup(slash ? path : ".", slash ? slash - path : 1);

	if (settings_is_listed(plan->closed_folders, folder))
		return;
	if (list_length(plan->closed_folders) < plan->context.settings->report_limit)
	{
		MemoryContext caller = MemoryContextSwitchTo(plan->memory);

		plan->closed_folders = lcons(pstrdup(folder), plan->closed_folders);
		MemoryContextSwitchTo(caller);
	}
	plan_add_error(plan, psprintf("no file can be removed from folder \"%s\": %s", folder, strerror(errnum)), NULL);
}

/*
 * Returns whether the file can be removed; only a preview asks, because a run
 * tries to remove the file, and the file's row says why that fails.
 */
static bool
is_removable(Judgement *judgement, const char *path)
{
	CleanupPlan *plan = judgement->plan;
	int			errnum = plan->dry_run && !XactReadOnly ? store_check_folder(plan->found.store, path) : 0;

	if (errnum != 0)
		report_closed(plan, path, errnum);
	return errnum == 0;
}

bool
judge_deferred(CleanupPlan *plan, const char *source, const char *session, HASHACTION action)
{
	uint64		key = hash_bytes_extended((const unsigned char *) session, (int) strlen(session),
										  hash_bytes_extended((const unsigned char *) source, (int) strlen(source), 0));
	bool		found;

	if (plan->deferred == NULL)
	{
		HASHCTL		control = {.keysize = sizeof(uint64),.entrysize = sizeof(uint64),.hcxt = plan->memory};

		plan->deferred = hash_create("audio_cleanup sessions", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	(void) hash_search(plan->deferred, &key, action, &found);
	return found;
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
	 * the current context belongs to a query, which may end before the text
	 * is used
	 */
	judgement->last_session = MemoryContextStrdup(judgement->plan->memory, session);
	condemned_add_session(judgement->condemned, source->number, session);
}

/* Condemns a file with its failed session. */
static void
condemn_failed(Judgement *judgement, const WaitingFile *file, const CondemnedFile *condemned)
{
	bool		is_own = match_mark(judgement->match, file->number);

	if (is_own)
		condemned_add_file(judgement->condemned, condemned);
	note_session(judgement, file->source, file->session);
	judgement->has_own |= is_own;
	judgement->has_shared |= !is_own;
	if (judgement->in_survey && judgement->has_own && judgement->has_shared)
		(void) judge_deferred(judgement->plan, condemned->source, condemned->session, HASH_ENTER);
}

/*
 * Judges a file.  The reference of a failed session protects every file that it
 * may mean, but condemns only a file that it names to the letter (`strict`).
 * A file that the reference matches otherwise, by a bare name in some
 * subdirectory for example, may be an upload of this minute: such a file must
 * also have the age of an orphan.
 *
 * The file of a session is looked at once more where that takes no time: the row
 * of a session that was uploaded again since the survey must not be cleared.
 *
 * A file that has changed since the match began is not the file that was
 * matched: a row that refers to the file may have come after the snapshot.
 */
static void
judge_file(Judgement *judgement, const WaitingFile *file)
{
	MemoryContext caller = MemoryContextSwitchTo(judgement->scratch);
	bool		is_orphan = file->source == NULL;
	CondemnedFile condemned = {file->path, is_orphan ? NULL : file->source->name,
	is_orphan ? NULL : sources_session_id(file->session)};

	if (identify(judgement, file->number, file->path, !is_orphan && judgement->may_look, &condemned.identity) &&
		condemned.identity.ctime_ns <= judgement->plan->looked_at_ns &&
		(file->strict || plan_is_old(judgement->plan, &condemned.identity)) &&
		is_removable(judgement, file->path))
	{
		if (is_orphan)
			condemned_add_file(judgement->condemned, &condemned);
		else
			condemn_failed(judgement, file, &condemned);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(judgement->scratch);
}


/* ---------------------------------------------------------------- together --- */

/*
 * Judges the files that wait, after one call of the store has looked at all
 * these files.
 */
static void
judge_waiting(Judgement *judgement)
{
	FileStore  *store = judgement->plan->found.store;
	const char **paths;

	if (judgement->n_waiting == 0)
		return;
	paths = palloc(sizeof(char *) * judgement->n_waiting);
	for (int i = 0; i < judgement->n_waiting; i++)
		paths[i] = judgement->waiting[i].path;
	store_expect(store, paths, judgement->n_waiting);
	CHECK_FOR_INTERRUPTS();
	for (int i = 0; i < judgement->n_waiting; i++)
		judge_file(judgement, &judgement->waiting[i]);
	store_expect(store, NULL, 0);
	pfree(paths);
	judgement->n_waiting = 0;
	MemoryContextReset(judgement->waiting_context);
}

/* Judges a file, or lets it wait.  A sink of match_failed() and match_unreferenced(). */
static void
add_file(int64 number, const char *path, const Source *source, const char *session, bool strict, void *arg)
{
	Judgement  *judgement = arg;
	WaitingFile file = {number, path, source, session, strict};

	if (judgement->most_waiting == 1)
	{
		judge_file(judgement, &file);
		return;
	}
	file.path = MemoryContextStrdup(judgement->waiting_context, path);
	if (session != NULL)
		file.session = MemoryContextStrdup(judgement->waiting_context, session);
	judgement->waiting[judgement->n_waiting++] = file;
	if (judgement->n_waiting == judgement->most_waiting)
		judge_waiting(judgement);
}

/* Reports files that are kept because their names say too little. */
static void
report_vague(CleanupPlan *plan, const Match *match, bool again)
{
	int64		n = match_count_vague(match);

	if (n > 0 && !again)
		plan_add_error(plan, psprintf("%lld files are kept, because too many failed sessions share their names with too many files",
									  (long long) n), NULL);
}

void
judge_files(CleanupPlan *plan, Match *match, Condemned *condemned, bool in_survey, bool again)
{
	Judgement	judgement = {
		.plan = plan,
		.match = match,
		.condemned = condemned,
		.in_survey = in_survey,
		.again = again,
		.may_look = store_acts_at_commit(plan->found.store),
		.last_source = -1,
		.most_waiting = plan->seen != NULL ? 1 : store_together(plan->found.store),
	};

	judgement.scratch = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup file",
											  ALLOCSET_SMALL_SIZES);
	judgement.waiting = palloc(sizeof(WaitingFile) * judgement.most_waiting);
	judgement.waiting_context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup waiting files",
													  ALLOCSET_DEFAULT_SIZES);
	if ((plan->what & CLEAN_FAILED) != 0)
	{
		match_failed(match, plan->context.extension, add_file, &judgement);
		report_vague(plan, match, again);
	}
	/* the files of failed sessions come before the orphans */
	judge_waiting(&judgement);
	if ((plan->what & CLEAN_ORPHANS) != 0)
		match_unreferenced(match, add_file, &judgement);
	judge_waiting(&judgement);
	pfree(judgement.waiting);
	MemoryContextDelete(judgement.waiting_context);
	MemoryContextDelete(judgement.scratch);
}
