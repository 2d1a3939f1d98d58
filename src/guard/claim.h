/*-------------------------------------------------------------------------
 *
 * guard/claim.h
 *	  The claim of a database on its upload directory.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_CLAIM_H
#define AUDIO_CLEANUP_CLAIM_H

#include "datatype/timestamp.h"

#include "src/guard/brake.h"
#include "src/pg/extension.h"
#include "src/store/claim_file.h"

typedef enum ClaimState
{
	CLAIM_OURS,
	CLAIM_FREE,					/* nobody claims the directory */
	CLAIM_UNWRITTEN,			/* the database has a claim, but the server
								 * died before the claim was written to the
								 * directory */
	CLAIM_FOREIGN				/* another database has the claim, or the
								 * claim cannot be read: see the brake */
} ClaimState;

typedef struct Claim
{
	ClaimState	state;
	Brake	   *brake;			/* for CLAIM_FOREIGN, else NULL */
	TimestampTz grace_from;		/* no file counts as older than this time; 0:
								 * no such time */
	char	   *uuid;			/* UUID of our claim, for CLAIM_OURS and
								 * CLAIM_UNWRITTEN */
	char	   *found;			/* UUID of the claim in the directory, ours or
								 * not; or NULL */
	bool		confirmed;		/* claim_confirm() has been called for this
								 * claim */
	const char *recorded_dir;	/* path at which the directory was seen last;
								 * NULL if the claim has no twin */
	bool		is_latest;		/* whether the latest run was under this claim */
} Claim;

/*
 * Compares the claim in the directory `upload_dir`, open as `store`, with the
 * claims of this database.  Returns the result, allocated in the current
 * memory context.  Changes nothing.  Needs SPI.
 */
extern Claim *claim_check(FileStore *store, const Extension *extension, const char *upload_dir);

/*
 * Claims the directory `upload_dir` for this database, in the current
 * transaction: inserts the twin.  Returns the text that store_write_claim()
 * is to write after the commit, palloc'd, and sets *uuid to the UUID of the
 * claim.  The new claim takes over the runs that this database has made in
 * the directory under earlier claims, and under `found`, the UUID that was in
 * the directory (or NULL).  With `grace` every file counts as new from now
 * on.  Needs SPI.
 */
extern char *claim_take(const Extension *extension, const char *upload_dir, const char *found,
						bool grace, const char **uuid);

/*
 * Records that the claim has been seen in the directory: from now on the claim
 * must be there.  Records also that `upload_dir` is the path of the directory,
 * where the backups of the claim's runs are looked for.  Needs SPI.
 */
extern void claim_confirm(const Extension *extension, const Claim *claim, const char *upload_dir);

/*
 * Opens the directory `upload_dir`, calls claim_check() and claim_confirm(),
 * and closes the directory.  Returns the UUID of its claim, or NULL.  *brake
 * tells why the directory cannot be opened or is not ours.  UUID and brake are
 * NULL for a directory without a claim, and are allocated in the current
 * memory context.  With `may_write`, writes the claim of the twin where the
 * commit that has made the twin could not: to a bucket.  Needs SPI.
 */
extern const char *claim_find(const Extension *extension, const char *upload_dir, bool may_write, Brake **brake);

/*
 * Looks for the claims of this database that were not confirmed yet, and
 * confirms the claims that are in their directories.  Writes the claims of
 * buckets, which a commit cannot write.  Needs SPI.
 */
extern void claim_confirm_all(const Extension *extension);

/*
 * Returns a brake if another database has claimed a directory that contains
 * `upload_dir`, or `backup_dir` ("": no backup directory), or NULL: of two
 * databases that clean the same files, each deletes the files that only the
 * other database refers to, or keeps as a backup.  In a bucket, each shorter
 * prefix counts as a directory.  Does not need SPI.
 */
extern Brake *claim_check_above(const char *upload_dir, const char *backup_dir);

/*
 * Returns a brake if another database has claimed `folder`, a path relative to
 * `upload_dir`, or NULL.  walk_next() has passed on this folder as
 * WALK_CLAIMED.  Does not need SPI.
 */
extern Brake *claim_check_below(const char *upload_dir, const char *folder);

/*
 * Takes the lock of the claim for `store`: one run at a time works in a
 * directory, also if the runs are of different servers.  Waits at most
 * `wait_ms` milliseconds; takes interrupts meanwhile.  A directory without a
 * claim has no lock.  Returns NULL, or a brake if the lock could not be
 * taken.  Does not need SPI.
 */
extern Brake *claim_lock(FileStore *store, const char *upload_dir, int wait_ms);

/*
 * Returns the text that belongs to the CLAIM_UNWRITTEN claim `uuid`,
 * palloc'd.  Does not need SPI.
 */
extern char *claim_text(const char *uuid);

#endif							/* AUDIO_CLEANUP_CLAIM_H */
