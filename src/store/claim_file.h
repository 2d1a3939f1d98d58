/*-------------------------------------------------------------------------
 *
 * store/claim_file.h
 *	  The claim in the private directory, and the lock on the claim.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_CLAIM_FILE_H
#define AUDIO_CLEANUP_CLAIM_FILE_H

#include "src/store/store.h"

/* longest text of a claim */
#define STORE_CLAIM_MAX	1024

/*
 * The claim is a small file, or an object of a bucket, in the private folder
 * that names the owner of the upload directory.  Sets `text` to the text of
 * the claim, NUL-terminated, and "" if there is no claim.  FILE_OK,
 * FILE_VANISHED (there is no claim), FILE_FAILED.  Commit-safe.
 */
extern FileResult store_read_claim(FileStore *store, char text[STORE_CLAIM_MAX]);

/*
 * Writes the claim `text`, durably.  Without `replace`, an existing claim is
 * left alone: FILE_OCCUPIED.  FILE_OK; FILE_OCCUPIED, FILE_NO_SPACE or
 * FILE_FAILED, and then the old claim, if any, is still there.  Commit-safe.
 */
extern FileResult store_write_claim(FileStore *store, const char *text, bool replace);

/*
 * Takes the lock of the upload directory for this store, until store_unlock()
 * or store_close().  Never waits for the lock.
 *
 * In a directory of this machine the lock is an flock() on the claim.  So the
 * lock also keeps out the processes of other clusters, and a process that dies
 * gives the lock back.  Within one process the lock is shared: several open
 * stores may have the lock at once, and the last store gives the lock back.
 * If the store has the lock already, nothing changes, unless the claim has
 * been replaced.  Then the lock on the old claim guards nothing any more: the
 * old lock is given up, and the lock of the new claim is taken.  So only a
 * process that has the lock, and no longer needs the lock, should replace a
 * claim.
 *
 * FILE_OK; FILE_VANISHED: there is no claim, and so nothing to lock;
 * FILE_OCCUPIED: another process has the lock; FILE_FAILED, with EMFILE if
 * this process has too many such locks, EPERM ("could not trust claim") if the
 * claim is not a regular file of ours.  Unless the outcome is FILE_OK, the
 * store has no lock after the call, not even the old lock.  Commit-safe.
 *
 * FILE_OK without any lock where the file system has no locks (ENOLCK,
 * EOPNOTSUPP, ENOSYS), or has locks that keep everybody from reading the
 * claim, as SMB has.  On such a file system the extension works as if no other
 * process cleaned the directory.
 *
 * In a bucket the call only looks whether another process has the lease of the
 * bucket: FILE_OK, FILE_OCCUPIED, FILE_FAILED.  The first change takes the
 * lease: see bucket/lease.c.
 */
extern FileResult store_lock(FileStore *store);

/*
 * Gives back the lock, or the lease, that the store has, if any.  Commit-safe.
 */
extern void store_unlock(FileStore *store);

/*
 * Returns, after FILE_OCCUPIED, the id of the process that has the lock, as
 * this system shows the process in /proc/locks.  Returns 0 if the process
 * cannot be told: for a bucket, or if the process is on another host or in a
 * container beside ours.  The id is for a message, not for a kill().
 * Allocates memory by malloc(), so the function is not commit-safe.
 */
extern int	store_lock_holder(FileStore *store);

#endif							/* AUDIO_CLEANUP_CLAIM_FILE_H */
