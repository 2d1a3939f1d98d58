/*-------------------------------------------------------------------------
 *
 * pg/at_end.h
 *	  What is to be done when the current transaction ends.
 *
 * A module that has something to do then owns a list, and adds entries to it.
 * An entry belongs to the subtransaction that added it: ROLLBACK TO SAVEPOINT
 * forgets the entry, RELEASE hands it to the parent.  ROLLBACK and PREPARE
 * TRANSACTION forget all entries.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_AT_END_H
#define AUDIO_CLEANUP_AT_END_H

#include "lib/ilist.h"

/*
 * An entry is a member of a struct of the list's owner, who also provides its
 * memory: zeroed when the entry is added, and there until the entry is
 * forgotten.  TopTransactionContext lasts long enough.
 */
typedef struct AtEnd
{
	dlist_node	node;
	SubTransactionId subxact;	/* InvalidSubTransactionId: in no list */
} AtEnd;

/*
 * A list, to be defined as a static variable.  Functions that are NULL are not
 * called.  Lists must not depend on each other: their order is not defined.
 * The entries of a list stand in the order in which they were added.
 */
typedef struct AtEndList
{
	/*
	 * called if there are entries, just before the commit; may do all that a
	 * transaction may do, and its ERROR rolls the transaction back
	 */
	void		(*before_commit) (void);

	/*
	 * called if there are entries, when the commit is on disk: must not
	 * allocate memory, raise an ERROR, or use SPI; else the server PANICs
	 */
	void		(*at_commit) (void);

	/*
	 * called for each entry that was taken off the list, after at_commit() or
	 * instead of it: gives back what the entry holds, under the same rule
	 */
	void		(*forget) (AtEnd *entry);

	/* the owner may read these, and at_end_forget() what is to go */
	dlist_head	entries;
	slist_node	node;
	bool		is_known;
} AtEndList;

/*
 * Adds `entry` to `list`, for the current subtransaction.  An entry that is in
 * the list already stays as it is.
 */
extern void at_end_add(AtEndList *list, AtEnd *entry);

/* Takes `entry` off `list` and forgets it.  Allocates nothing. */
extern void at_end_forget(AtEndList *list, AtEnd *entry);

#endif							/* AUDIO_CLEANUP_AT_END_H */
