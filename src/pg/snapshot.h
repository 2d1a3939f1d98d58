/*-------------------------------------------------------------------------
 *
 * pg/snapshot.h
 *	  The snapshot of a transaction of ours.
 *
 * VACUUM keeps all rows that died since the oldest snapshot was taken.  So a
 * worker, or a CALL that commits in steps, lays its snapshot down while it
 * waits for a lock or for a network.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SNAPSHOT_H
#define AUDIO_CLEANUP_SNAPSHOT_H

/* Takes the snapshot of a worker's transaction, which has just begun. */
extern void snapshot_begin(void);

/*
 * A CALL that commits in steps begins, or ends.  The server takes the
 * snapshots of a CALL.
 */
extern void snapshot_set_call(bool begins);

/*
 * Lays the snapshot down if the transaction is ours, and no query is being
 * executed.  Returns whether the snapshot was laid down: then the caller must
 * call snapshot_take_up() before anything is read.
 */
extern bool snapshot_lay_down(void);

/* Takes a new snapshot if `laid_down` is true. */
extern void snapshot_take_up(bool laid_down);

#endif							/* AUDIO_CLEANUP_SNAPSHOT_H */
