/*-------------------------------------------------------------------------
 *
 * guard/claim.h
 *	  Whose directory is this?
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
	CLAIM_FREE,					/* the directory is claimed by nobody */
	CLAIM_UNWRITTEN,			/* claimed in the database, but the server
								 * died before it was written to the directory */
	CLAIM_FOREIGN				/* not ours, or not to be read: see the brake */
} ClaimState;

typedef struct Claim
{
	ClaimState	state;
	Brake	   *brake;			/* for CLAIM_FOREIGN, else NULL */
	TimestampTz grace_from;		/* no file counts as older than that; 0: none */
	char	   *uuid;			/* CLAIM_OURS, CLAIM_UNWRITTEN */
	char	   *found;			/* the UUID in the directory, ours or not; or
								 * NULL */
	bool		confirmed;		/* see claim_confirm() */
	const char *recorded_dir;	/* where the directory was seen last; NULL if
								 * there is no twin */
	bool		is_latest;		/* the latest run was in this directory */
} Claim;

/*
 * Compares the claim in the directory with this database.  Changes nothing.
 * Needs SPI; the result is allocated in the current memory context.
 */
extern Claim *claim_check(FileStore *store, const Extension *extension, const char *upload_dir);

/*
 * Claims the directory for this database, in the current transaction: inserts
 * the twin.  Returns the text that store_write_claim() is to write after the
 * commit; *uuid becomes its UUID.  Runs that this database has made in the
 * directory under a claim it had before, the one that was `found` there (or
 * NULL) included, belong to the new claim.  With `grace` every file counts as
 * new from now on.  Needs SPI.
 */
extern char *claim_take(const Extension *extension, const char *upload_dir, const char *found,
						bool grace, const char **uuid);

/*
 * Records that the claim has been seen in the directory: from now on the claim
 * must be there, and `upload_dir` is where the directory is.  All that belongs
 * to the claim is looked for there, whatever the directory was called before.
 */
extern void claim_confirm(const Extension *extension, const Claim *claim, const char *upload_dir);

/*
 * Does the work of claim_check() and claim_confirm() for a directory that need
 * not be open: returns the UUID of its claim, or NULL with *brake (allocated
 * like the result) if the directory cannot be opened or is not ours.  UUID and
 * brake are NULL for a directory without a claim.
 */
extern const char *claim_find(const Extension *extension, const char *upload_dir, Brake **brake);

/*
 * Looks for the claims of this database that were not confirmed yet, and
 * confirms those that are in their directories.  Needs SPI.
 */
extern void claim_confirm_all(const Extension *extension);

/*
 * Takes the directory's lock for this store, waiting at most `wait_ms`
 * milliseconds: one run at a time, also of other servers.  Without a claim
 * there is nothing to lock.  Returns NULL, or a brake if the lock could not be
 * had.
 */
extern Brake *claim_lock(FileStore *store, const char *upload_dir, int wait_ms);

/* Returns the text that belongs to a claim that is CLAIM_UNWRITTEN. */
extern char *claim_text(const char *uuid);

#endif							/* AUDIO_CLEANUP_CLAIM_H */
