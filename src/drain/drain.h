/*-------------------------------------------------------------------------
 *
 * drain/drain.h
 *	  Carrying out, and recording, what committed runs have condemned.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_DRAIN_H
#define AUDIO_CLEANUP_DRAIN_H

#include "utils/jsonb.h"

#include "src/drain/pace.h"
#include "src/guard/brake.h"
#include "src/ledger/ledger.h"
#include "src/pg/extension.h"
#include "src/settings.h"
#include "src/store/store.h"

typedef struct Drain
{
	const Extension *extension;
	int64		run_id;
	Settings   *settings;		/* the run's */
	FileStore  *store;
	bool		at_commit;		/* in somebody's transaction: files are
								 * touched only when that commits */
	TimestampTz taken_over;		/* what was condemned before is let live: the
								 * directory was not ours then; 0: it was */
	const char *claim;			/* of the run: its directory must have it; or
								 * NULL */
	bool		put_off;		/* files wait for a writer to end */
	struct Batch *healing;		/* at_commit: what this step puts back; NULL:
								 * nothing yet */
	char	   *warned_of;		/* folder and reason of the last file that
								 * failed, in cleared_context's parent */
	Pace		pace;			/* from now on, or the caller's */
	int64		restored;		/* file_id up to which files to be put back
								 * were seen */
	int64		captured;		/* file_id up to which pending files were seen */
	int64		looked_at;		/* the same of due files */
	int64		look_us;		/* how long reading the sources took last */
	MemoryContext cleared_context;
	TimestampTz cleared_at;
	LedgerFile *cleared;		/* due, and nobody needs them: to be destroyed */
	int			n_cleared;
	int			n_destroyed;	/* of these */
	int			portion;		/* files destroyed by the last step */
} Drain;

/*
 * drain_begin() for who says himself what is wrong: NULL, and *brake.
 */
extern Drain *drain_open(const Extension *extension, const LedgerWork *work, bool at_commit,
						 Brake **brake);

/*
 * Is there a file of its size and mtime at this path?  For what is in the
 * trash no more; the answer will be durable.
 */
extern bool drain_is_found_at(Drain *drain, const char *path, const LedgerFile *file);

/* For people: where the run's captured files lie, below the upload directory or not. */
extern const char *drain_trash_path(const Settings *settings, int64 run_id);

/*
 * Begin draining a run in the current memory context.  Returns NULL, with a
 * WARNING, if its directory cannot be opened, or is not ours: its rows stay as
 * they are.  With at_commit see drain_in_transaction().
 */
extern Drain *drain_begin(const Extension *extension, const LedgerWork *work, bool at_commit);
extern void drain_end(Drain *drain);

/*
 * Deal with the next files of the run, for no longer than about half a second
 * besides reading the sources: whoever waits for a lock of ours, gets it.
 * Must be called under the run lock,
 * with SPI, and the transaction must be committed before the next step:
 * nothing is destroyed that was not recorded as trashed by a commit before;
 * and drain_rest() called after that.  With `finish` false the run itself is not marked as done.  Returns false
 * when there is nothing left to do.
 */
extern bool drain_step(Drain *drain, bool finish);

/* Sleep as long as the pace demands after a step.  Outside of its transaction. */
extern void drain_rest(Drain *drain, TimestampTz began);

/*
 * Mark a run as done, and write its line into the server log, if none of its
 * files is left to be dealt with.  Returns whether this call did so.  Needs
 * SPI.
 */
extern bool drain_finish_run(const Extension *extension, int64 run_id);

/*
 * Before a run in somebody's transaction: bring forward what earlier,
 * committed runs have left undone.  What has happened is recorded; what is
 * still to be done to files is done when the transaction commits, because
 * its own changes, which may be rolled back, decide about them too.  Needs
 * SPI and the run lock.
 */
extern void drain_in_transaction(const Extension *extension);

#endif							/* AUDIO_CLEANUP_DRAIN_H */
