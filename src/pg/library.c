/*-------------------------------------------------------------------------
 *
 * pg/library.c
 *	  Libraries of ours that are loaded only where they are needed.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/procsignal.h"

#include "src/pg/library.h"

typedef const void *(*TableFunction) (void);

const void *
library_load(const char *name, const char *function, const char **error)
{
	MemoryContext caller = CurrentMemoryContext;
	const void *volatile table = NULL;

	PG_TRY();
	{
		table = ((TableFunction) load_external_function(name, function, true, NULL)) ();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		*error = CopyErrorData()->message;
		FlushErrorState();
	}
	PG_END_TRY();
	return table;
}

bool
library_should_stop(void)
{
	MemoryContext caller = CurrentMemoryContext;

	if (ProcSignalBarrierPending)
	{
		PG_TRY();
		{
			ProcessProcSignalBarrier();
		}
		PG_CATCH();
		{
			/*
			 * the barrier stays pending, and its error comes again where an
			 * error can be raised
			 */
			MemoryContextSwitchTo(caller);
			FlushErrorState();
		}
		PG_END_TRY();
	}
	return QueryCancelPending || ProcDiePending;
}
