/*-------------------------------------------------------------------------
 *
 * pg/at_end.c
 *	  Lists of work to be done when the current transaction ends.
 *
 * The server's callbacks are registered once, with the first entry.  A
 * session that has nothing to do has no callbacks.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"

#include "src/pg/at_end.h"

static slist_head lists = SLIST_STATIC_INIT(lists);

void
at_end_forget(AtEndList *list, AtEnd *entry)
{
	/*
	 * take the entry off the list first: no error may make its work run twice
	 */
	dlist_delete(&entry->node);
	entry->subxact = InvalidSubTransactionId;
	if (list->forget)
		list->forget(entry);
}

static void
at_transaction_event(XactEvent event, void *arg)
{
	slist_iter	iter;

	slist_foreach(iter, &lists)
	{
		AtEndList  *list = slist_container(AtEndList, node, iter.cur);

		if (dlist_is_empty(&list->entries))
			continue;
		if (event == XACT_EVENT_PRE_COMMIT && list->before_commit)
			list->before_commit();
		if (event == XACT_EVENT_COMMIT && list->at_commit)
			list->at_commit();
		if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
			while (!dlist_is_empty(&list->entries))
				at_end_forget(list, dlist_head_element(AtEnd, node, &list->entries));
	}
}

static void
at_subtransaction_event(SubXactEvent event, SubTransactionId subxact,
						SubTransactionId parent, void *arg)
{
	slist_iter	outer;
	dlist_mutable_iter iter;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	slist_foreach(outer, &lists)
	{
		AtEndList  *list = slist_container(AtEndList, node, outer.cur);

		dlist_foreach_modify(iter, &list->entries)
		{
			AtEnd	   *entry = dlist_container(AtEnd, node, iter.cur);

			if (entry->subxact != subxact)
				continue;
			if (event == SUBXACT_EVENT_COMMIT_SUB)
				entry->subxact = parent;
			else
				at_end_forget(list, entry);
		}
	}
}

void
at_end_add(AtEndList *list, AtEnd *entry)
{
	static bool is_registered = false;

	if (!is_registered)
	{
		RegisterXactCallback(at_transaction_event, NULL);
		RegisterSubXactCallback(at_subtransaction_event, NULL);
		is_registered = true;
	}
	if (!list->is_known)
		slist_push_head(&lists, &list->node);
	list->is_known = true;
	if (entry->subxact != InvalidSubTransactionId)
		return;
	entry->subxact = GetCurrentSubTransactionId();
	dlist_push_tail(&list->entries, &entry->node);
}
