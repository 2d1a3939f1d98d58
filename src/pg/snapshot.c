/*-------------------------------------------------------------------------
 *
 * pg/snapshot.c
 *	  The snapshot of a transaction of ours.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "tcop/pquery.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "src/pg/snapshot.h"

/* the snapshot of the worker's transaction */
static Snapshot worker_snapshot = NULL;

/* Is a CALL under way that commits in steps? */
static bool in_call = false;

void
snapshot_begin(void)
{
	PushActiveSnapshotWithLevel(GetTransactionSnapshot(), 1);
	worker_snapshot = GetActiveSnapshot();
}

void
snapshot_set_call(bool begins)
{
	in_call = begins;
}

bool
snapshot_lay_down(void)
{
	bool		ours = false;

	/*
	 * The snapshot of a worker's transaction belongs to the transaction, and
	 * not to a subtransaction, as does that of a CALL, which the server keeps
	 * with the portal.  If a query is being executed, its own snapshot is the
	 * active one.
	 */
	if (ActiveSnapshotSet() && !IsolationUsesXactSnapshot())
		ours = GetActiveSnapshot() == (in_call ? ActivePortal->portalSnapshot : worker_snapshot);
	if (ours)
		PopActiveSnapshot();
	if (ours && in_call)
		ActivePortal->portalSnapshot = NULL;
	/* does nothing while there is another snapshot */
	InvalidateCatalogSnapshotConditionally();
	return ours;
}

void
snapshot_take_up(bool laid_down)
{
	if (laid_down && in_call)
		EnsurePortalSnapshotExists();
	else if (laid_down)
		snapshot_begin();
}
