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

/* so many of the doomed files are at hand */
#define DRAIN_NEXT	10000

typedef struct FileIds FileIds;

struct Drain
{
	MemoryContext memory;		/* lasts as long as the drain */
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
								 * failed */
	const char *no_more_uploads;	/* why no further upload can be ended; or
									 * NULL */
	Pace		pace;
	int64		restored_up_to; /* files to be put back were seen up to this
								 * file_id, */
	int64		ended_up_to;	/* uploads to be ended up to this, */
	int64		captured_up_to; /* pending ones up to this, */
	int64		looked_at_up_to;	/* and due ones up to this */
	bool		may_capture;	/* pending files need no look before they are
								 * moved */
	bool		looked;			/* all that the run has captured was looked at
								 * afterwards */
	int64		look_us;		/* how long reading the sources took last */
	TimestampTz looked_at;		/* when that was */
	FileIds    *doomed;			/* due, and nobody needs them; or NULL */
	int64		next[DRAIN_NEXT];	/* the first of these that are left */
	int			n_next;
	int64		sync_us;		/* how long making the last step durable took */
	int			portion;		/* files destroyed by the last step */
	int			read_ahead;		/* doomed files whose rows are read together */
};

/*
 * The steps of a drain: put back what is to be restored, end uploads, capture
 * what is pending, destroy what is due.  Each looks at no more than `limit` files, and
 * returns at how many; 0 if there are none left.
 */
extern int	drain_restore_step(Drain *drain, int limit);
extern int	drain_uploads_step(Drain *drain, int limit);
extern int	drain_capture_step(Drain *drain, int limit);
extern int	drain_destroy_step(Drain *drain, int limit);

/* Has a step that began to work on files at `began` worked long enough? */
extern bool drain_is_step_over(const Drain *drain, TimestampTz began);

/* Sets what is to be recorded of the file; `error` may be NULL. */
extern void drain_set_state(LedgerFile *file, const char *state, const char *error);
extern void drain_set_failed(Drain *drain, LedgerFile *file, FileResult result);
extern void drain_set_destroyed(LedgerFile *file, int64 freed);

/* Returns "could not ...: ..." for a result that is a failure. */
extern char *drain_failure_text(const Drain *drain, FileResult result);

/*
 * Looks again at files of this kind, beginning after the file_id *up_to, at
 * `limit` of them at most: waits for writers, and reads the sources once.
 * *up_to becomes the file_id of the last one.
 * Passes those that somebody needs by now to `sink`, up to store_together() at a
 * time, with the reason for each, and records the state that it sets.  The others that are due become the doomed ones of the drain, unless
 * the kind is LEDGER_PENDING; those of an earlier look are forgotten.  Returns
 * how many files there were; or -1 if it cannot be told who needs them: they
 * are left as they are, with a WARNING.
 */
typedef void (*NeededSink) (Drain *drain, LedgerFile *files, const char *const *why, int n);
extern int64 drain_look(Drain *drain, LedgerKind kind, int64 *up_to, int64 limit, NeededSink sink);

/*
 * Puts the file_ids of the next doomed files, at most `limit`, into
 * drain->next, and returns how many there are.
 */
extern int	drain_next_doomed(Drain *drain, int limit);

/* The first n of drain->next are dealt with. */
extern void drain_pass_doomed(Drain *drain, int n);

extern void drain_forget_doomed(Drain *drain);

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

/* so many files are destroyed at a time, or store_together(): between them an interrupt is taken, and the step may end */
#define DRAIN_TOGETHER	64

/*
 * Destroys `n` captured files, or finds out what has become
 * of them.  In somebody's transaction they are unlinked when that commits.
 */
extern void drain_destroy_files(Drain *drain, LedgerFile *files, int n);

/* Finds out what has become of a file that the trash does not have. */
extern void drain_settle_missing(Drain *drain, LedgerFile *file);

/* Returns whether anything lies in the trash in the name of the file; if that cannot be told, true. */
extern bool drain_lies_in_trash(Drain *drain, const LedgerFile *file);

/* Puts captured files back to their places, because somebody needs them: why[i]. */
extern void drain_heal_files(Drain *drain, LedgerFile *files, const char *const *why, int n);

#endif							/* AUDIO_CLEANUP_DRAIN_PRIVATE_H */
