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

/* doomed files whose rows are read together at first */
#define DRAIN_READ	10000

/* files that a drain destroys together at first */
#define DRAIN_TOGETHER	64

struct Drain
{
	MemoryContext memory;		/* lasts as long as the drain */
	Context		context;		/* the run's settings */
	Place		place;			/* place of the run's files */
	int64		run_id;
	const char *run_claim;		/* the claim that the directory must have; or
								 * NULL */
	FileStore  *store;
	const char *claim;			/* claim of the directory, a UUID */
	TimestampTz taken_over;		/* files that were condemned before this time
								 * are let live, because the directory was not
								 * ours; 0: the directory was always ours */
	bool		at_commit;		/* the drain is in the transaction of a
								 * caller: only its commit touches files */
	bool		put_off;		/* files wait for a writer to end */
	char	   *warned_of;		/* folder and reason of the last file that
								 * failed */
	const char *no_more_uploads;	/* why no further upload can be ended; or
									 * NULL */
	Pace		pace;
	int64		restored_up_to; /* file_id up to which files to be put back
								 * were dealt with, */
	int64		ended_up_to;	/* uploads to be ended, */
	int64		captured_up_to; /* pending files, */
	int64		looked_at_up_to;	/* and due files */
	bool		may_capture;	/* pending files may be moved without a
								 * further look */
	bool		looked_at_pending;	/* all pending files were looked at */
	bool		in_place;		/* files that cannot be moved are to be
								 * deleted in their places */
	bool		may_unlink;		/* such files may be deleted in this step */
	bool		waiting;		/* such files wait for the next step */
	bool		looked;			/* all files that the run has captured were
								 * looked at after their capture */
	int64		look_us;		/* microseconds that the last reading of the
								 * sources took */
	int64		looked_at;		/* time of the last look, by
								 * time_monotonic_us() */
	struct IntegerSet *doomed;	/* file_ids of files that were due when the
								 * sources were read, and that nobody needs */
	int64		doomed_up_to;	/* the last of these file_ids, */
	int64		destroyed_up_to;	/* and that of the last file that was
									 * dealt with */
	int64		sync_us;		/* microseconds that the last fsync of a step
								 * took */
	int			portion;		/* files that the last step has destroyed */
	int			read_ahead;		/* doomed files whose rows are read together */
	int			together;		/* files that are destroyed together, or
								 * store_together() */
};

/*
 * The steps of a drain: put files back that are to be restored, end uploads,
 * capture pending files, destroy due files.  Each step deals with at most
 * `limit` files.  A step returns 0 if no such file is left, else a number
 * greater than 0.
 */
extern int	drain_restore_step(Drain *drain, int limit);
extern int	drain_uploads_step(Drain *drain, int limit);
extern int	drain_capture_step(Drain *drain, int limit);
extern int	drain_destroy_step(Drain *drain, int limit);

/* Returns whether a step that began to work on files at `began`, by time_monotonic_us(), has worked long enough. */
extern bool drain_is_step_over(const Drain *drain, int64 began);

/*
 * These functions set the state and the error of the file, which
 * drain_record() records.  `error` may be NULL.  `freed` is in bytes.
 * drain_set_failed() is for a failure, and tells the failure as a WARNING.
 */
extern void drain_set_state(LedgerFile *file, const char *state, const char *error);
extern void drain_set_failed(Drain *drain, LedgerFile *file, FileResult result);
extern void drain_set_destroyed(LedgerFile *file, int64 freed);

/* Returns "could not ...: ..." for a result that is a failure, palloc'd. */
extern char *drain_failure_text(const Drain *drain, FileResult result);

/*
 * Looks again at files of the run of this kind, at most `limit` of them, after
 * the file_id *up_to: waits for writers, and reads the sources once.  Sets
 * *up_to to the file_id of the last of these files.  Passes the files that are
 * needed now to sink(drain, files, why, n), up to store_together() at a time,
 * why[i] for files[i], and records the states that the sink sets.  The other
 * files that are due become the doomed files of the drain, in place of earlier
 * doomed files, unless the kind is LEDGER_PENDING.  Returns the number of
 * files; or -1 if the needed files cannot be told: then the files do not
 * change, and a WARNING says so.
 */
typedef void (*NeededSink) (Drain *drain, LedgerFile *files, const char *const *why, int n);
extern int64 drain_look(Drain *drain, LedgerKind kind, int64 *up_to, int64 limit, NeededSink sink);

/*
 * Makes renames and unlinks durable, before rows say that these have happened.
 * A failure is an ERROR.
 */
extern void drain_make_durable(Drain *drain);

/* Records the files that have a new state. */
extern void drain_record(Drain *drain, const LedgerFile *files, int n);

/*
 * Destroys `n` captured files, and sets their states.  In the transaction of a
 * caller, the commit unlinks the files.
 */
extern void drain_destroy_files(Drain *drain, LedgerFile *files, int n);

/* Finds out what has happened to a file that the trash does not have, and sets its state. */
extern void drain_settle_missing(Drain *drain, LedgerFile *file);

/*
 * Returns whether the trash has anything under the name of the file; true if
 * the trash cannot be searched.
 */
extern bool drain_lies_in_trash(Drain *drain, const LedgerFile *file);

/*
 * Returns whether the file, which is no backup, lives because it was condemned
 * before the directory was taken over; drain_why_let_live says so to people.
 */
extern bool drain_lets_live(const Drain *drain, const LedgerFile *file);
extern const char drain_why_let_live[];

/*
 * Puts a captured file back that is not the file of its row (FILE_REPLACED), as
 * it is now.  Only we make names in the trash, so somebody has written into the
 * file: a process that had the file open since before its capture, or that
 * knows another hard link.  Adds that somebody has written to *why, a text for
 * people, or NULL.  Returns the result of putting the file back, or any other
 * result of `returned` as it is.
 */
extern FileResult drain_put_changed_back(Drain *drain, const StoreFile *returned, const char **why);
extern const char drain_changed_in_trash[];

/*
 * Returns whether `result` of drain_put_changed_back() says that somebody is
 * writing into the file in this moment: the next drain tries again.
 */
extern bool drain_is_written(Drain *drain, const LedgerFile *file, FileResult result);

/*
 * Puts a file back that nobody needs, and that somebody has written into in the
 * trash: the file is no longer the condemned file.  Sets the state "skipped", or
 * "trashed" if the name is taken; in the transaction of a caller the row does not
 * change.  Returns false, and does nothing, if the trash has no such file, or
 * the file cannot be put back for another reason.
 */
extern bool drain_return_changed(Drain *drain, LedgerFile *file);

/*
 * Leaves the file in the trash, as a backup: `why` says why the file should be
 * put back, and `obstacle` why this is not possible.
 */
extern void drain_keep_backup(Drain *drain, LedgerFile *file, const char *why, const char *obstacle);

/* An obstacle: another file has the name of the file. */
extern const char drain_name_taken[];

/*
 * Puts captured files back, and sets their states: each to its place, because
 * it is needed (why[i], a text for people); or, if `why` is NULL, each to the
 * name under which it is to be restored.
 */
extern void drain_heal_files(Drain *drain, LedgerFile *files, const char *const *why, int n);

#endif							/* AUDIO_CLEANUP_DRAIN_PRIVATE_H */
