/*-------------------------------------------------------------------------
 *
 * sources/sources.h
 *	  The registered sources: tables and views whose rows refer to files.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SOURCES_H
#define AUDIO_CLEANUP_SOURCES_H

#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/tuplestore.h"

#include "src/guard/brake.h"
#include "src/pg/extension.h"

typedef struct Source
{
	int			number;			/* position in the list, from 0 */
	Oid			relid;
	const char *name;			/* schema-qualified and quoted; of a relation
								 * that is gone, its OID */
	const char *registered_name;	/* the name at its registration */
	int			n_columns;
	const char **columns;
	const char *id_column;		/* the rest may be NULL */
	const char *status_column;	/* NULL: no failed sessions here */
	Datum		failed_statuses;	/* text[] */
	const char *failed_at_column;
	const char *timezone;
	bool		clear;			/* on_failed = 'clear' */
	bool		is_sampled;		/* no source: see sources_sample() */

	/* filled in by sources_check() */
	Oid			owner;
	Oid			failed_at_type;
} Source;

/* One row as it is read.  Everything is valid only during the call. */
typedef struct SourceRow
{
	const Source *source;
	const char *session;		/* names the row, see sources_session_id();
								 * NULL unless asked for, see SourceScan */
	const char **values;		/* text of each file column or NULL ... */
	size_t	   *lengths;		/* ... not NUL-terminated, of this length */
} SourceRow;

/* Installs the hooks that watch whose functions run; once, when the library is loaded. */
extern void sources_init(void);

/* Returns false to stop reading. */
typedef bool (*SourceSink) (const SourceRow *row, void *arg);

typedef enum SourceScan
{
	SCAN_REFERENCES,			/* all rows, no session */
	SCAN_JUDGING,				/* all rows; session set for failed ones */
	SCAN_NAMING,				/* all rows, session set for all */
	SCAN_STATUS,				/* all rows, session is the status, if there
								 * is one */
	SCAN_LOCKING_FAILED,		/* by sources_lock_failed() only */
	SCAN_PLACES					/* all rows, session without an id */
} SourceScan;

/* Returns the schema-qualified and quoted name of a relation, or its OID as text if it is gone. */
extern const char *sources_name(Oid relid);

/* Returns the registered sources (Source) in the order of their registration.  Needs SPI. */
extern List *sources_load(const Extension *extension);

/*
 * Checks whether the source can be read, and whole.  Returns a brake if not,
 * else NULL; then the source is locked against changes of its definition until
 * the end of the transaction.  That it cannot be locked in time (see
 * lock_timeout) is a brake too.  Needs SPI.
 */
extern Brake *sources_check(Source *source);

/*
 * Returns the brakes (Brake) of all of `sources`, as sources_check() finds
 * them.  No source at all is a brake too.  Needs SPI.
 */
extern List *sources_check_all(List *sources);

/*
 * Takes out of an error that was met with a source what may tell what stands
 * in its rows.  The server log has it, and whoever has called as well, if he
 * has the rights of the source's owner; that one keeps the error as it is,
 * unless it is to be recorded where others read it, and gets a WARNING then.
 * Returns whether anything was taken out.
 */
extern bool sources_hide_rows(const Source *source, ErrorData *error, bool to_record);

/*
 * Returns for each column of files whether its values may be shown to whoever
 * calls: whether the caller, and the current role, might read the column in all
 * rows without the extension.  Allocated in the current memory context.
 */
extern const bool *sources_columns_to_show(const Source *source);

/*
 * Try to read no row of a checked source.  Returns the brake if that fails,
 * as for a view whose owner may not read the table below, else NULL.  Needs
 * SPI.
 */
extern Brake *sources_probe(const Source *source);

/*
 * Sets the time at which the reading of a source is cut short by an ERROR
 * query_canceled that names the source; 0 for none.  Holds in this process
 * until it is set again: whoever sets it sets it back, after an ERROR too.
 */
extern void sources_set_deadline(TimestampTz at);

/*
 * Reads a checked source as its owner, under a snapshot of this instant, and
 * passes its rows to `sink`.  A row is failed if its status is one of the
 * failed ones since before `failed_before`.  Needs SPI.
 */
extern void sources_read(const Source *source, SourceScan scan,
						 TimestampTz failed_before, SourceSink sink, void *arg);

/*
 * Reads a checked source as sources_read() does, but failed rows only, and
 * locks them FOR UPDATE SKIP LOCKED before they are passed to `sink`; session
 * is set.  A row on another node, where a lock costs a question, is locked if
 * is_wanted(row, arg) says so.  Needs SPI.
 */
extern void sources_lock_failed(const Source *source, TimestampTz failed_before,
								SourceSink is_wanted, SourceSink sink, void *arg);

/*
 * Returns the OIDs of the tables that reading the source reads (itself, its
 * partitions, what is below a view).  *brake is set where one of them must not
 * be relied on.  Needs SPI.
 */
extern List *sources_tables(const Source *source, Brake **brake);

/* Do rows of one of the checked sources lie on other servers?  Needs SPI. */
extern bool sources_are_remote(List *sources);

/*
 * Waits until every transaction on another server that may write to a table of
 * the checked sources, as of now, has ended: at most `wait_ms` milliseconds,
 * then ERROR lock_not_available.  What is read after that in this transaction
 * shows what they have written.  Returns a brake where that is not so: a server
 * cannot be relied on, or the transaction has read there before, or may have:
 * it is not an `own_transaction`, which the extension has begun.  Needs SPI.
 */
extern Brake *sources_wait_remotely(List *sources, bool own_transaction, int wait_ms);

/* Returns the brake if one of the checked sources is filled by a subscription, or NULL: its writers are on the publisher. */
extern Brake *sources_check_subscriptions(List *sources);

/* Returns the text of the id column of the row that a session names, in the current memory context. */
extern char *sources_session_id(const char *session);

/*
 * Sets the file columns of these sessions (text[]; they were locked in this
 * transaction) to NULL, as the owner of the table that holds the rows.
 * Triggers and constraints, deferred ones too, have run when it returns.
 * ERROR if a row cannot be cleared; call it in a subtransaction.  Needs SPI.
 */
extern void sources_clear(const Source *source, Datum sessions);

/*
 * Does as sources_clear(), but only with rows that can be locked at once, and
 * of these not more than max_rows: to see whether it works, and to be rolled
 * back.
 */
extern void sources_try_clearing(const Source *source, Datum sessions, int max_rows);

/*
 * Returns what stands in those columns: session_id text, key_columns text[],
 * row_key text, column_name text, value text; one row for each that is not
 * NULL.  ERROR if a table has no key.  Needs SPI.
 */
extern Tuplestorestate *sources_copy_columns(const Source *source, Datum sessions, TupleDesc *desc);

/*
 * Writes a column of the rows that have these keys in `key_columns` (text[])
 * where it is NULL; row_keys and values are text[] of the same length.
 * Returns for each whether it was written.  ERROR as in sources_clear(), and
 * if a key is that of several rows.  Needs SPI.
 */
extern bool *sources_refill(const Source *source, const char *column, Datum key_columns,
							Datum row_keys, Datum values);

/*
 * Returns why the file columns of a source with on_failed => 'clear' cannot be
 * set to NULL, as far as that can be told beforehand; else NULL.
 */
extern Brake *sources_check_clearing(const Source *source);

/*
 * Returns what is strange about failed_statuses (char *): those that the enum
 * lacks, and those that no row has, if all can be read in that time.  Needs SPI.
 */
extern List *sources_strange_statuses(const Source *source, int max_ms);

/*
 * Raises an ERROR if failed sessions are judged and rows of the source cannot
 * be locked, as for a view with GROUP BY.  Needs SPI.
 */
extern void sources_try_locking(const Source *source);

/*
 * Reads a part of any table as its owner, like sources_read(SCAN_REFERENCES),
 * but only values of at most `max_bytes` as they are stored, and of a large
 * table only a sample of its pages, about `max_rows`; of a table on several
 * servers nothing.  Nobody has registered the table, so its owner must not
 * hold up anybody: no function of his runs, and at `deadline` the reading ends
 * with an ERROR that sql_try() takes.  Needs SPI.
 */
extern void sources_sample(const Source *table, double rows, int64 max_rows, int max_bytes, TimestampTz deadline,
						   SourceSink sink, void *arg);

/* The arguments of cleanup_add_source(). */
typedef struct SourceRegistration
{
	Oid			relid;
	Datum		file_columns;	/* text[], or 0: work them out */
	const char *id_column;		/* NULL: work it out */
	const char *status_column;
	Datum		failed_statuses;	/* text[] */
	const char *failed_at_column;
	const char *timezone;
	const char *on_failed;
} SourceRegistration;

/*
 * Registers a source, and works out what is NULL in `registration`.  ERROR if
 * the source cannot be used or the caller does not own it.  Needs SPI.
 */
extern void sources_register(const Extension *extension, SourceRegistration *registration);

/* Forgets the source `relid`.  ERROR if it is none, or the caller does not own it.  Needs SPI. */
extern void sources_drop(const Extension *extension, Oid relid);

#endif							/* AUDIO_CLEANUP_SOURCES_H */
