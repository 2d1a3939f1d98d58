/*-------------------------------------------------------------------------
 *
 * drain/private.h
 *	  A run that is being drained, for the files of this room.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_DRAIN_PRIVATE_H
#define AUDIO_CLEANUP_DRAIN_PRIVATE_H

#include "src/drain/at_commit.h"
#include "src/drain/drain.h"
#include "src/drain/pace.h"

struct Drain
{
	Context		context;		/* the run's settings */
	Place		place;			/* of the run's files */
	int64		run_id;
	const char *run_claim;		/* the claim that the directory must have; or
								 * NULL */
	FileStore  *store;
	const char *claim;			/* of the directory, as a UUID */
	TimestampTz taken_over;		/* files condemned before are let live,
								 * because the directory was not ours then; 0:
								 * it was */
	bool		at_commit;		/* in somebody's transaction: files are
								 * touched only when that commits */
	Batch	   *batches[AT_COMMIT_ACTIONS]; /* the next step */
	bool		put_off;		/* files wait for a writer to end */
	char	   *warned_of;		/* folder and reason of the last file that
								 * failed, in doomed_context's parent */
	Pace		pace;
	int64		restored_up_to; /* files to be put back were seen up to this
								 * file_id, */
	int64		captured_up_to; /* pending ones up to this, */
	int64		looked_at_up_to;	/* and due ones up to this */
	int64		look_us;		/* how long reading the sources took last */
	MemoryContext doomed_context;
	TimestampTz doomed_at;
	LedgerFile *doomed;			/* due, and nobody needs them */
	int			n_doomed;
	int			n_destroyed;	/* of these */
	int			portion;		/* files destroyed by the last step */
};

/*
 * The steps of a drain: put back what is to be restored, capture what is
 * pending, destroy what is due.  Each looks at no more than `limit` files, and
 * returns at how many; 0 if there are none left.
 */
extern int	drain_restore_step(Drain *drain, int limit);
extern int	drain_capture_step(Drain *drain, int limit);
extern int	drain_destroy_step(Drain *drain, int limit);

/* Has a step that began to work on files at `began` worked long enough? */
extern bool drain_is_step_over(const Drain *drain, TimestampTz began);

/* Sets what is to be recorded of the file; `error` may be NULL. */
extern void drain_set_state(LedgerFile *file, const char *state, const char *error);
extern void drain_set_failed(Drain *drain, LedgerFile *file, FileResult result);
extern void drain_set_destroyed(LedgerFile *file, int64 freed);

/* Returns "could not ...: ..." for a result that is a failure. */
extern char *drain_failure_text(FileResult result);

/*
 * Returns for each of the files why somebody needs it by now, or NULL; and
 * NULL for all if that cannot be told: they are left as they are, with a
 * WARNING.
 */
extern const char **drain_recheck(Drain *drain, LedgerFile **files, int n);

/* Makes renames and unlinks durable, before a row says that they have happened; ERROR if that fails. */
extern void drain_make_durable(Drain *drain);

/* Records the files that have a new state. */
extern void drain_record(Drain *drain, const LedgerFile *files, int n);

/*
 * Has this done to the file `path` when somebody's transaction commits. `as`
 * is the name under which it is put back, or NULL.
 */
extern void drain_do_at_commit(Drain *drain, AtCommitAction action, const char *path, const char *as,
							   const FileIdentity *identity);

/* Unlinks a captured file, or finds out what has become of it. */
extern void drain_destroy_file(Drain *drain, LedgerFile *file);

/* Finds out what has become of a file that the trash does not have. */
extern void drain_settle_missing(Drain *drain, LedgerFile *file);

/* Puts a captured file back to its place, because somebody needs it: `why`. */
extern void drain_heal_file(Drain *drain, LedgerFile *file, const char *why);

#endif							/* AUDIO_CLEANUP_DRAIN_PRIVATE_H */
