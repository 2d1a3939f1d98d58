/*-------------------------------------------------------------------------
 *
 * ledger/condemned.h
 *	  The files that a run condemns, with their identity; and the sessions.
 *
 * The set is filled once and read any number of times.  A set that is larger
 * than work_mem goes to disk. No function needs SPI.  A failure to write a
 * temporary file is an ERROR.
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
	const char *source;			/* name of the source; NULL: the file is an
								 * orphan */
	const char *session;		/* id of the failed session, or NULL */
	FileIdentity identity;
} CondemnedFile;

typedef struct Condemned
{
	bool		interxact;
	TupleDesc	files_desc;		/* path, source, session, inode, size,
								 * mtime_ns, ctime_ns, btime_ns, links, space */
	TupleDesc	sessions_desc;	/* number of the source, session */
	struct TupleTableSlot *slot;	/* slot for reading files */
	Tuplestorestate *files;
	struct TextList *orphans;	/* of a preview: their paths, in place of
								 * `files`; else NULL */
	Tuplestorestate *sessions;
	int64		n_files;
	int64		n_orphans;
	int64		n_sessions;
	int64		bytes;			/* bytes that the destruction of the files
								 * gives back */
} Condemned;

/*
 * Returns an empty set in the current memory context.  With `interxact` the
 * set may be used beyond the end of the transaction.  The set of a preview has
 * only the paths of orphans: condemned_next() gives these files no identity,
 * and ledger_add_files() takes no such set.  condemned_end() frees the set and
 * its temporary files.
 */
extern Condemned *condemned_begin(bool interxact, bool is_preview);
extern void condemned_end(Condemned *condemned);

/* Adds a copy of `file` to the set. */
extern void condemned_add_file(Condemned *condemned, const CondemnedFile *file);

/*
 * Adds a failed session.  `source` is the number of its source, and `session`
 * the id of its row: see sources_session_id().
 */
extern void condemned_add_session(Condemned *condemned, int source, const char *session);

/* Makes condemned_next() begin at the first file again. */
extern void condemned_rewind(Condemned *condemned);

/*
 * Sets *file to the next file of the set, with texts allocated in the current
 * memory context.  Returns false at the end.
 */
extern bool condemned_next(Condemned *condemned, CondemnedFile *file);

/* Frees the texts that condemned_next() has allocated. */
extern void condemned_free_texts(CondemnedFile *file);

/* Calls sink(source, session, arg) for each failed session of the set. */
typedef void (*SessionSink) (int source, const char *session, void *arg);
extern void condemned_scan_sessions(Condemned *condemned, SessionSink sink, void *arg);

#endif							/* AUDIO_CLEANUP_CONDEMNED_H */
