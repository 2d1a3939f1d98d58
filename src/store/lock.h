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
 * Take the directory's lock for this store, until store_unlock() or
 * store_close(): an flock() on the claim, so that processes of other clusters
 * are kept out as well, and a process that dies gives it back.  Never waits
 * for it.  Within one process it is shared: several open stores may have it at
 * once, and the last one gives it back.
 *
 * For a store that has it already, nothing changes; unless the claim has been
 * replaced since, when the lock on the old one guards nothing any more: that
 * is given up, and the new one's asked for.  Whoever replaces a claim should
 * therefore have the lock, and be done with it.
 *
 * FILE_OK; FILE_VANISHED: there is no claim, and so nothing to lock;
 * FILE_OCCUPIED: another process has it; FILE_FAILED, with EMFILE if this
 * process has too many of them, EPERM ("trust claim") if what is there is not
 * a regular file of ours.  But for FILE_OK, the store then has no lock, not
 * even the old one.  Commit-safe.
 *
 * FILE_OK without any lock where the file system has none (ENOLCK, EOPNOTSUPP,
 * ENOSYS), or one that keeps everybody from reading the claim, as SMB's does:
 * there the extension works as if it were alone, rather than not at all.
 */
extern FileResult store_lock(FileStore *store);

/* Gives the lock back, if the store has it.  Commit-safe. */
extern void store_unlock(FileStore *store);

/*
 * After FILE_OCCUPIED: returns the process id of the process that has the
 * lock, as this system shows it in /proc/locks; 0 where that cannot be told,
 * for example of a process on another host or in a container beside ours.
 * Good for a message, not for a kill().  Allocates memory by malloc(), so it
 * is not commit-safe.
 */
extern int	store_lock_holder(FileStore *store);

#endif							/* AUDIO_CLEANUP_STORE_LOCK_H */
