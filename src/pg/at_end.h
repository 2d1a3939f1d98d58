/*-------------------------------------------------------------------------
 *
 * pg/at_end.h
 *	  Lists of work to be done when the current transaction ends.
 *
 * A module that has work to do at the end of a transaction owns a list, and
 * adds entries to that list.  An entry belongs to the subtransaction that
 * added it: ROLLBACK TO SAVEPOINT forgets the entry, RELEASE hands the entry
 * to the parent.  ROLLBACK and PREPARE TRANSACTION forget all entries.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_AT_END_H
#define AUDIO_CLEANUP_AT_END_H

#include "lib/ilist.h"

/*
 * An entry is a member of a struct of the list's owner.  The owner provides
 * the memory of the struct: zeroed when the entry is added, and valid until
 * the entry is forgotten.  TopTransactionContext lasts long enough.
 */
typedef struct AtEnd
{
	dlist_node	node;
	SubTransactionId subxact;	/* InvalidSubTransactionId: in no list */
} AtEnd;

/*
 * A list is a static variable of its owner.  A function that is NULL is not
 * called.  Lists must not depend on each other: their order is not defined.
 * The entries of a list stand in the order in which they were added.
 */
typedef struct AtEndList
{
	/*
	 * Called just before the commit if there are entries.  May do all that a
	 * transaction may do.  An ERROR rolls the transaction back.
	 */
	void		(*before_commit) (void);

	/*
	 * Called when the commit is on disk if there are entries.  Must not
	 * allocate memory, raise an ERROR, or use SPI: otherwise the server
	 * PANICs.
	 */
	void		(*at_commit) (void);

	/*
	 * Called for each entry that was taken off the list, after at_commit() or
	 * instead of it.  Gives back what the entry holds, under the rule of
	 * at_commit().
	 */
	void		(*forget) (AtEnd *entry);

	/*
	 * the owner may read the entries, and may remove an entry by
	 * at_end_forget()
	 */
	dlist_head	entries;
	slist_node	node;
	bool		is_known;
} AtEndList;

/*
 * Adds `entry` to `list`, for the current subtransaction.  An entry that is
 * already in the list stays as it is.  Needs a transaction, but not SPI.  May
 * raise an ERROR when it registers the server's callbacks.
 */
extern void at_end_add(AtEndList *list, AtEnd *entry);

/*
 * Takes `entry` off `list` and calls the list's forget().  Allocates nothing,
 * and never raises an ERROR.  Does not need SPI.
 */
extern void at_end_forget(AtEndList *list, AtEnd *entry);

#endif							/* AUDIO_CLEANUP_AT_END_H */
