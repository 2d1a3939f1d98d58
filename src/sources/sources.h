/*-------------------------------------------------------------------------
 *
 * sources/sources.h
 *	  The registered sources: tables and views of others, read with the
 *	  rights of their owners.
 *
 * A source is a table or a view whose rows refer to files.
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
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

#include "src/guard/brake.h"
#include "src/pg/extension.h"

typedef struct Source
{
	int			number;			/* position in the list, from 0 */
	Oid			relid;
	const char *name;			/* schema-qualified and quoted; the OID if the
								 * relation is gone */
	const char *registered_name;	/* the name at the registration */
	int			n_columns;
	const char **columns;
	const int16 *numbers;		/* last known attnums of the columns; NULL:
								 * not known */
	int64		last_rows;		/* rows at the last run, and the files that */
	int64		last_files;		/* they protected; 0: not known */
	const char *id_column;		/* each of the columns below may be NULL */
	const char *status_column;	/* NULL: the source has no failed sessions */
	Datum		failed_statuses;	/* text[] */
	const char *failed_at_column;
	const char *timezone;
	bool		clear;			/* on_failed = 'clear' */
	float4		sampled;		/* > 0: no source, but a table of which this
								 * percentage of the pages is read: see
								 * sources_sample() */

	/* set by sources_check() */
	Oid			owner;
	Oid			failed_at_type;
} Source;

/*
 * A row of a reading.  All members are valid only during the call of the sink.
 */
typedef struct SourceRow
{
	const Source *source;
	const char *session;		/* a text that names the row, see
								 * sources_session_id(); or NULL, see
								 * SourceScan */
	const char **values;		/* text of each file column, or NULL; */
	size_t	   *lengths;		/* bytes of each text, which is not
								 * NUL-terminated */
} SourceRow;

/* Installs the hooks that watch whose functions run.  _PG_init() calls this once. */
extern void sources_init(void);

/* Gets a row.  Returns false to stop the reading. */
typedef bool (*SourceSink) (const SourceRow *row, void *arg);

/*
 * The content of `session` of a row.  Each scan except SCAN_LOCKING_FAILED
 * passes on all rows.
 */
typedef enum SourceScan
{
	SCAN_REFERENCES,			/* NULL */
	SCAN_JUDGING,				/* the session of a failed row, else NULL */
	SCAN_NAMING,				/* the session; NULL if the row has no id */
	SCAN_STATUS,				/* the status, or NULL */
	SCAN_LOCKING_FAILED,		/* for sources_lock_failed() only */
	SCAN_PLACES					/* a session without an id */
} SourceScan;

/*
 * Returns the schema-qualified and quoted name of a relation, or its OID as
 * text if the relation is gone.
 */
extern const char *sources_name(Oid relid);

/* Returns the registered sources (Source) in the order of their registration.  Needs SPI. */
extern List *sources_load(const Extension *extension);

/* SQL for the numbers (int2[]) that the file columns of source $1 have now, in the order of their registration. */
#define SOURCES_COLUMN_NUMBERS \
	"ARRAY (SELECT a.attnum FROM @extschema@.cleanup_sources c" \
	" CROSS JOIN LATERAL pg_catalog.unnest(c.file_columns) WITH ORDINALITY f(name, n)" \
	" JOIN pg_catalog.pg_attribute a ON a.attrelid = c.source AND a.attname = f.name::name" \
	" WHERE c.source = $1 ORDER BY f.n)"

/*
 * Checks whether all rows of the source can be read.  Returns NULL if so; then
 * the source is locked against changes of its definition until the end of the
 * transaction.  Else returns a brake, also if the source cannot be locked in
 * time (see lock_timeout).  Needs SPI.
 */
extern Brake *sources_check(Source *source);

/*
 * Returns the brakes (Brake) that sources_check() finds for all `sources`.  An
 * empty list of sources is a brake, too.  Needs SPI.
 */
extern List *sources_check_all(List *sources);

/*
 * Takes the texts out of an error of this source that may show the content of
 * its rows, and writes these texts to the server log.  Returns whether
 * anything was taken out.  If the caller's role has the rights of the source's
 * owner, the error does not change.  But with `to_record`, for an error that
 * other roles may read later, the texts are taken out, and the caller gets the
 * texts as a WARNING.  Does not need SPI.
 */
extern bool sources_hide_rows(const Source *source, ErrorData *error, bool to_record);

/*
 * Returns for each column of files whether its values may be shown to the
 * caller: whether the caller, and the current role, might read the column in
 * all rows without the extension.  Allocated in the current memory context.
 */
extern const bool *sources_columns_to_show(const Source *source);

/*
 * Begins to read a checked source, and stops before the first row.  Returns a
 * brake if the reading fails, as for a view whose owner may not read the table
 * below, or if a table cannot be relied on; else NULL.  Sets *tables, unless
 * `tables` is NULL, to the OIDs of the tables that a reading reads (the source
 * itself, its partitions, the tables below a view).  Needs SPI.
 */
extern Brake *sources_probe(const Source *source, List **tables);

/*
 * Sets the time, by time_monotonic_us(), at which an ERROR query_canceled, which names the source, ends
 * the reading of a source; 0: no such time.  The time holds in this process
 * until the next call: the caller sets the time back, also after an ERROR.
 */
extern void sources_set_deadline(int64 at);

/*
 * Returns whether `error` has ended a reading because that time was up, and not
 * because somebody has asked for a cancel.  Does not need SPI.
 */
extern bool sources_gave_up(const ErrorData *error);

/*
 * Reads a checked source as its owner under the snapshot, or with
 * InvalidSnapshot under a snapshot of this instant, and calls sink(row, arg)
 * for its rows.  A row is failed if its status is one of the failed statuses,
 * and its time is before `failed_before`.  Any failure is an ERROR.  Needs SPI.
 */
extern void sources_read(Snapshot snapshot, const Source *source, SourceScan scan,
						 TimestampTz failed_before, SourceSink sink, void *arg);

/*
 * Returns a snapshot of this instant, which the caller unregisters by
 * UnregisterSnapshot().  Several sources must be read under one snapshot if
 * the question is whether any of them refers to a file: otherwise a row that
 * moves from a source that is yet to be read to a source that was read is seen
 * in neither.  Rows on other servers are not subject to the snapshot.
 */
extern Snapshot sources_take_snapshot(void);

/*
 * Returns how many transactions that had written something have ended on this
 * server.  As long as the number is the same, each new snapshot shows of other
 * transactions what the snapshot before showed, by which the server itself
 * reuses its snapshots.
 */
extern uint64 sources_transactions_ended(void);

/*
 * Returns whether only a transaction of this server can change what a reading of
 * the checked sources shows: all are tables whose rows, partitions included, are
 * stored here, in heaps.  A view may have functions that answer anew each time, and
 * another table access method may have transactions of its own.
 */
extern bool sources_are_stored_here(List *sources);

/*
 * Reads a checked source as sources_read() does, but failed rows only for
 * which is_wanted(row, arg) returns true, with their sessions, and locks each
 * row FOR UPDATE SKIP LOCKED before passing the row to `sink`.  Needs SPI.
 */
extern void sources_lock_failed(const Source *source, TimestampTz failed_before,
								SourceSink is_wanted, SourceSink sink, void *arg);

/*
 * Waits until every transaction on another server that may write now to a
 * table of the checked sources has ended: at most `wait_ms` milliseconds, then
 * ERROR lock_not_available.  A later reading in this transaction shows what
 * those transactions have written.  Returns NULL, or a brake if a later
 * reading may not show these rows: a server cannot be relied on; or this
 * transaction has read there before, or may have, because it is not an
 * `own_transaction`, which the extension itself has begun.  Needs SPI.
 */
extern Brake *sources_wait_remotely(List *sources, bool own_transaction, int wait_ms);

/*
 * Returns a brake if a subscription fills one of the checked sources, whose
 * writers then are on the publisher; else NULL.  Sets *are_remote to whether
 * rows of one of the sources lie on other servers.  Needs SPI.
 */
extern Brake *sources_check_subscriptions(List *sources, bool *are_remote);

/* Returns the text of the id column of the row that a session names, palloc'd. */
extern char *sources_session_id(const char *session);

/*
 * Sets the file columns of these sessions (char *; locked in this transaction)
 * to NULL, as the owner of the table that holds the rows.  When the call
 * returns, triggers and constraints have run, also deferred triggers.  ERROR
 * if a row cannot be cleared: must be called in a subtransaction.  With
 * `only_try`, the sessions need not be locked, and at most ten rows that can
 * be locked at once are cleared, to see whether the rows can be cleared: the
 * caller rolls that back.  Needs SPI.
 */
extern void sources_clear(const Source *source, List *sessions, bool only_try);

/*
 * Returns the content of the file columns of these sessions (char *; locked in
 * this transaction), one row for each value that is not NULL: session_id text,
 * key_columns text[], row_key text, column_name text, value text.  Sets *desc
 * to their descriptor.  ERROR if a table has no key.  Needs SPI.
 */
extern Tuplestorestate *sources_copy_columns(const Source *source, List *sessions, TupleDesc *desc);

/*
 * Writes the file column `column` of rows in which the column is NULL.
 * `row_keys` (text[]) has the keys of the rows, in the columns `key_columns`
 * (text[]), and `values` and `ids` (text[]) the value for each and what the
 * caller calls that value.  Returns the ids (char *) of the values that were
 * written.  ERROR as in sources_clear(), and if several rows have one key.
 * Needs SPI.
 */
extern List *sources_refill(const Source *source, const char *column, Datum key_columns,
							Datum row_keys, Datum values, Datum ids);

/*
 * Returns a brake if the file columns of a checked source with on_failed =>
 * 'clear' cannot be set to NULL, as far as this is known without a try; else
 * NULL.  Needs SPI.
 */
extern Brake *sources_check_clearing(const Source *source);

/*
 * Returns texts for people (char *) about failed statuses of the source that
 * its enum lacks, and about statuses that no row has, if all rows can be read
 * in `max_ms` milliseconds.  Needs SPI.
 */
extern List *sources_strange_statuses(const Source *source, int max_ms);

/*
 * Raises an ERROR if the source has failed sessions and its rows cannot be
 * locked, as the rows of a view with GROUP BY.  Needs SPI.
 */
extern void sources_try_locking(const Source *source);

/*
 * Reads a part of any table as its owner, as sources_read(SCAN_REFERENCES)
 * does: only values that take at most 64 kB in the table, and at most 20,000
 * rows.  If the table has more rows (`rows`, by the statistics), a sample of
 * its pages is read; a table on several servers is not read.  Nobody has
 * registered the table, so its owner must not be able to hold up a run: no
 * function of the owner runs, and at `deadline` (by time_monotonic_us()) the
 * reading ends with an ERROR that sql_try() takes.  Needs SPI.
 */
extern void sources_sample(const Source *table, double rows, int64 deadline, SourceSink sink, void *arg);

/* The arguments of cleanup_add_source(). */
typedef struct SourceRegistration
{
	Oid			relid;
	Datum		file_columns;	/* text[], or 0: to be chosen */
	const char *id_column;		/* NULL: to be chosen */
	const char *status_column;	/* NULL: to be chosen */
	Datum		failed_statuses;	/* text[] */
	const char *failed_at_column;	/* NULL: to be chosen */
	const char *timezone;
	const char *on_failed;
} SourceRegistration;

/*
 * Registers a source, and chooses the columns that are NULL in `registration`
 * by the names of columns.  A NOTICE tells the choice.  ERROR if the source
 * cannot be used or the caller does not own the source.  Needs SPI.
 */
extern void sources_register(const Extension *extension, SourceRegistration *registration);

/*
 * Forgets the source with OID `relid`.  ERROR if the relation is no source, or
 * the caller does not own the relation.  Needs SPI.
 */
extern void sources_drop(const Extension *extension, Oid relid);

#endif							/* AUDIO_CLEANUP_SOURCES_H */
