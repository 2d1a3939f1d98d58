/*-------------------------------------------------------------------------
 *
 * ledger/condemned.h
 *	  The files that a run condemns, with their identity; and the sessions.
 *
 * A set on disk beyond work_mem, filled once and read any number of times.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_CONDEMNED_H
#define AUDIO_CLEANUP_CONDEMNED_H

#include "nodes/pg_list.h"
#include "utils/tuplestore.h"

#include "src/store/store.h"

typedef struct CondemnedFile
{
	const char *path;
	const char *source;			/* NULL: an orphan; else name of the source */
	const char *session;		/* of the failed session */
	FileIdentity identity;
} CondemnedFile;

typedef struct Condemned
{
	MemoryContext context;
	bool		interxact;
	TupleDesc	files_desc;		/* path, source, session, inode, size,
								 * mtime_ns, ctime_ns, btime_ns, links, space */
	TupleDesc	sessions_desc;	/* source number, session */
	struct TupleTableSlot *slot;	/* for reading files */
	Tuplestorestate *files;
	struct TextList *orphans;	/* of a preview: their paths, in place of
								 * `files`; else NULL */
	Tuplestorestate *sessions;
	int64		n_files;
	int64		n_orphans;
	int64		n_sessions;
	int64		bytes;			/* to be given back by their destruction */
} Condemned;

/*
 * Returns an empty set in the current memory context.  With `interxact` it may
 * be used beyond the end of the transaction.  A preview's set knows of orphans
 * no more than their paths: condemned_next() tells no identity of them, and
 * ledger_add_files() takes no such set.
 */
extern Condemned *condemned_begin(bool interxact, bool is_preview);
extern void condemned_end(Condemned *condemned);

extern void condemned_add_file(Condemned *condemned, const CondemnedFile *file);

/* `session` names the row, see sources_session_id(). */
extern void condemned_add_session(Condemned *condemned, int source, const char *session);

/* Lets condemned_next() begin at the first file again. */
extern void condemned_rewind(Condemned *condemned);

/*
 * Sets *file to the next file, allocated in the current memory context;
 * returns false at the end.
 */
extern bool condemned_next(Condemned *condemned, CondemnedFile *file);

/* Frees the texts that condemned_next() has allocated. */
extern void condemned_free_texts(CondemnedFile *file);

typedef void (*SessionSink) (int source, const char *session, void *arg);
extern void condemned_scan_sessions(Condemned *condemned, SessionSink sink, void *arg);

#endif							/* AUDIO_CLEANUP_CONDEMNED_H */
