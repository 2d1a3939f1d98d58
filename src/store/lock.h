/*-------------------------------------------------------------------------
 *
 * store/lock.h
 *	  The lock on the claim.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_STORE_LOCK_H
#define AUDIO_CLEANUP_STORE_LOCK_H

#include "src/store/store.h"

/*
 * Takes the lock of the upload directory for this store, until store_unlock()
 * or store_close().  Never waits for the lock.
 *
 * In a directory of this machine the lock is an flock() on the claim.  So it
 * also keeps out the processes of other clusters, and a process that dies
 * gives the lock back.  Within one process the lock is shared: several open
 * stores may have it at once, and the last one gives it back.  If the store
 * has the lock already, nothing changes, unless the claim has been replaced
 * since.  Then the lock on the old claim guards nothing any more: it is given
 * up, and the lock of the new claim is taken.  So only a process that has the
 * lock, and needs it no longer, should replace a claim.
 *
 * FILE_OK; FILE_VANISHED: there is no claim, and so nothing to lock;
 * FILE_OCCUPIED: another process has the lock; FILE_FAILED, with EMFILE if
 * this process has too many such locks, EPERM ("could not trust claim") if the
 * claim is not a regular file of ours.  Unless the outcome is FILE_OK, the store
 * has no lock then, not even the old one.  Commit-safe.
 *
 * FILE_OK without any lock where the file system has no locks (ENOLCK,
 * EOPNOTSUPP, ENOSYS), or has locks that keep everybody from reading the
 * claim, as those of SMB.  There the extension works as if it were alone.
 *
 * In a bucket the call only looks whether somebody else has the lease of the
 * bucket: FILE_OK, FILE_OCCUPIED, FILE_FAILED.  The first change takes the
 * lease: see bucket/lease.c.
 */
extern FileResult store_lock(FileStore *store);

/* Gives the lock, or the lease, back if the store has it.  Commit-safe. */
extern void store_unlock(FileStore *store);

/*
 * Returns, after FILE_OCCUPIED, the id of the process that has the lock, as
 * this system shows it in /proc/locks.  Returns 0 where that cannot be told:
 * for a bucket, or if the process is on another host or in a container beside
 * ours.  The id is for a message, not for a kill().  Allocates memory by
 * malloc(), so the function is not commit-safe.
 */
extern int	store_lock_holder(FileStore *store);

#endif							/* AUDIO_CLEANUP_STORE_LOCK_H */
