/*-------------------------------------------------------------------------
 *
 * sources/query.h
 *	  The query that reads a source, and the box that the query runs in.
 *
 * For the files of sources/ only.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_SOURCE_QUERY_H
#define AUDIO_CLEANUP_SOURCE_QUERY_H

#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "storage/itemptr.h"
#include "tcop/dest.h"
#include "utils/snapshot.h"

#include "src/guard/brake.h"
#include "src/pg/sql.h"
#include "src/sources/sources.h"

/*
 * A foreign table, and the role whose user mapping reads the table; or the
 * part of a distributed table on one node, a shard or the relation of the
 * table's own name, and the role that is known there.
 */
typedef struct RemoteTable
{
	const Source *source;
	Oid			relid;
	Oid			role;
	Oid			server;			/* foreign server; InvalidOid: a node of Citus */
	const char *host;			/* of that node */
	int			port;
	int64		placement;		/* id of the shard's placement, which changes
								 * when the shard moves; or the negative
								 * number of the node */
	const char *name;			/* name of the relation there, qualified and
								 * quoted; for a foreign table NULL until its
								 * server is asked */
} RemoteTable;

/*
 * A query on a relation, made from its OID and not from a text.  The query
 * yields columns of the relation, and then a pair (tableoid, ctid) for each
 * table that contributes to the row.
 */
typedef struct SourceQuery
{
	const Source *source;
	Query	   *query;			/* analyzed and rewritten */
	int			n_columns;
	List	   *tables;			/* OIDs of the relations that the query reads:
								 * tables, partitions ... */
	List	   *views;			/* ... and views */
	List	   *foreign;		/* of RemoteTable: the foreign tables */
	List	   *bases;			/* OIDs: for each place, the table as the
								 * query names it; NIL: the rows cannot be
								 * locked */
	List	   *key;			/* names (char *) of the columns of a key;
								 * NIL: rows have places.  Rows that are
								 * stored on other nodes have a key instead of
								 * a place */
} SourceQuery;

/* Where a row is stored. */
typedef struct SourcePlace
{
	Oid			table;
	ItemPointerData tid;
} SourcePlace;

/*
 * Builds the query that reads `n` columns of the checked source, and locks
 * every relation below the source until the end of the transaction.  With
 * `with_places`, adds the places, or the key, of each row if rows can be
 * locked.  Runs no code of users.  The caller must act as the source's owner.
 */
extern SourceQuery *query_build(const Source *source, const char *const *columns, int n,
								bool with_places);

/* Makes the query read about this percentage of the table's pages, and no child of the table. */
extern void query_sample(SourceQuery *query, float4 percent);

/*
 * Plans and executes the query under the snapshot, and sends its rows to
 * `receiver`.  If `receiver` is NULL, the execution is only begun, which checks
 * the privileges.  The caller must act as the source's owner, in the box of
 * query_run_in_box().
 */
extern void query_run(SourceQuery *query, Snapshot snapshot, DestReceiver *receiver);

/*
 * Calls work(arg) in a read-only subtransaction that is always rolled back, so
 * that code of users in that subtransaction leaves nothing behind.  Passes on
 * an ERROR by query_raise().  Raises an ERROR at the time of
 * sources_set_deadline(), or at `until` (by time_monotonic_us(); 0: no such
 * time), and if code of users has caught an error that it must not catch.  Returns false if the session had compiled a function before, which
 * the next call compiles anew: then the rows that have come are not all, and may
 * be wrong.
 */
extern bool query_run_in_box(const Source *source, int64 until, void (*work) (void *arg), void *arg);

/*
 * Raises an error that came while the source was read.  Leaves out texts that
 * may show the content of the source's rows: see sources_hide_rows().
 */
pg_noreturn extern void query_raise(const Source *source, ErrorData *error);

/*
 * Calls work(arg), and ends the call at the time of sources_set_deadline(), or
 * at `until` (by time_monotonic_us(); 0: no such time), with an ERROR that
 * concerns this source alone.  `message` is the message, with %s for the name
 * of the source, and `hint` is the hint.  Must be called in a subtransaction,
 * which any ERROR ends.
 */
extern void query_limit_time(const Source *source, int64 until, const char *message, const char *hint,
							 void (*work) (void *arg), void *arg);

/*
 * Sets *place to the number of the place (from 0), and *attnum to the column of
 * the table there, that the column `column` (from 1) of the query shows.
 * Returns false if the column of the query is an expression.
 */
extern bool query_find_column(const SourceQuery *query, int column, int *place, AttrNumber *attnum);

/* Returns the OID of the owner of a relation; InvalidOid if the relation is gone. */
extern Oid	trust_owner(Oid relid);

/*
 * Returns a brake if the relations of the query cannot be relied on, or its
 * functions must not run with the rights of the source's owner; else NULL.
 * Needs SPI.
 */
extern Brake *trust_check_query(const SourceQuery *query);

/*
 * Returns a brake if an UPDATE of `table` for `source` must not run with the
 * rights of `role`, the owner of the table; else NULL.  If `role` is a
 * superuser, no code that is attached to the table may belong to another role;
 * else no trigger may.  Needs SPI.
 */
extern Brake *trust_check_update(const Source *source, Oid table, Oid role);

/*
 * The rules for code that runs while a source is read or written.  Code that
 * breaks a rule is an ERROR.  With a role, no function may run, either, that the
 * session has compiled outside of a box (see compiled_watch()), and no statement
 * may use a temporary table, unless only functions of superusers may run.  All
 * zero: no rule is in force.
 */
typedef struct TrustRules
{
	Oid			role;			/* a function that runs as this role must
								 * belong to a role that has its rights;
								 * InvalidOid: no such rule */
	bool		superusers_only;	/* such a function must even belong to a
									 * superuser */
	bool		same_for_all;	/* no function may ask for the caller, by
								 * session_user for example: the rows of a
								 * view must not depend on the caller */
} TrustRules;

/*
 * Calls work(arg) under these rules: code of others that runs meanwhile must
 * keep them, and cannot use the open cursors of the session.  Needs SPI.
 */
extern void trust_run(const TrustRules *rules, void (*work) (void *arg), void *arg);

/*
 * Notes for these rules whether the session has a shadow: a table
 * or type in pg_temp that hides another table or type.  Needs SPI.
 */
extern void trust_look_for_shadow(void);

/*
 * Returns whether a rule has raised an ERROR since the last call of this
 * function or of trust_run(): code of users may have caught that ERROR.
 */
extern bool trust_has_refused(void);

/* Must be called once, when the library is loaded. */
extern void compiled_init(void);

/*
 * Marks the functions that the session has compiled by now.  Functions that were
 * compiled in a box of another role are compiled anew.  For trust_run() only,
 * before the rules come into force; `role` is the role as which the box reads.
 */
extern void compiled_begin(Oid role);

/*
 * With true, a call of a marked function is an ERROR, and the next call of
 * that function compiles the function anew.  For trust_run() only.
 */
extern void compiled_watch(bool on);

/*
 * Returns whether compiled_watch() has raised an ERROR since compiled_begin():
 * code of users may have caught that ERROR.
 */
extern bool compiled_found_outdated(void);


/* The hint of a brake "source": advice for a source that was registered and cannot be used. */
extern const char *const source_hint_readd;

/*
 * Returns a brake "source" with that hint, in the current memory context.
 * `sqlstate` is its error code.  `detail` may be NULL.  The texts are not
 * copied.
 */
extern Brake *source_brake(int sqlstate, char *message, char *detail);

/*
 * Builds, as the owner of the source, the query that reads the columns of files:
 * see query_build().  If *brake is NULL, sets *brake as trust_check_query()
 * does.  If `brake` is NULL, the query is built only to look at its columns.
 */
extern SourceQuery *source_build_query(const Source *source, bool with_places, Brake **brake);

/*
 * Returns whether the server of the foreign table `relid` can be asked for the
 * writers of the table: postgres_fdw must read the table.
 */
extern bool remote_can_ask(Oid relid);

/*
 * Returns a brake that says what is missing for asking the server of such a
 * foreign table, or NULL.
 */
extern Brake *remote_check_table(const Source *source, Oid relid);

/*
 * Returns a brake if the query reads, as a superuser, a table on a foreign
 * server whose owner does not have the rights of that superuser; else NULL.
 */
extern Brake *remote_check_owners(const SourceQuery *query);

/*
 * Asks the servers of the query's foreign tables, and the nodes of its
 * distributed tables, about these tables.  Returns a brake if one of the
 * tables cannot be relied on there, else NULL.  Needs SPI.
 */
extern Brake *remote_examine(const SourceQuery *query);

/*
 * Notes that the query reads foreign tables in this transaction.  Must be
 * called before the query is planned.  postgres_fdw has one snapshot for a
 * whole transaction, of the time when it first reads there: after this call
 * sources_wait_remotely() refuses a wait, which would be in vain.
 */
extern void remote_note_reading(const SourceQuery *query);

/*
 * A session is a text that names a row: the id of the row, and its places or
 * its key.  A place tells where the row, or a row that contributes to it, is
 * stored.  Places are valid while the row is locked, or in the snapshot with
 * which the row was read.
 */

/* Appends a place to a session. */
extern void place_append(StringInfo session, Oid table, const ItemPointerData *tid);

/* Appends the key of a row, a key_text(), to a session, instead of places. */
extern void place_append_key(StringInfo session, const char *key);

/* Ends a session, whose id has `id_length` bytes.  Must be called last. */
extern void place_end(StringInfo session, size_t id_length);

/* Sets *place to the place with this number (from 0) of a session.  Returns false if there is no such place. */
extern bool place_of_session(const char *session, int number, SourcePlace *place);

/* Returns the key_text() of a session, palloc'd.  ERROR if the session has no key. */
extern char *place_key(const char *session);

/*
 * Locks the version of a row that the snapshot sees, FOR UPDATE.  Returns
 * false if another transaction has locked or changed the row.
 */
extern bool place_lock(const SourcePlace *place, Snapshot snapshot);

/* Returns the elements of a text[] as a List of char *. */
extern List *key_names(Datum array);

/*
 * Returns the names (char *) of the columns of a key that identifies a row of
 * the table: the columns of the primary key, else of a unique index on columns
 * that are NOT NULL.  NIL if there is no such key.  Needs SPI.
 */
extern List *key_find(Oid table);

/*
 * Sets settings, until the GUC nest level of the caller ends, so that the text
 * of a value has one meaning on every day and in every session.
 */
extern void key_write_plainly(void);

/* Writes the values (char *) of a key as one text. */
extern char *key_text(List *values);

/*
 * Returns the condition that a row of the relation s has a key with these
 * columns (char *).  The values of the key are parameters numbered from `first`.
 */
extern char *key_condition(List *columns, int first);

/*
 * Returns parameters, one for each of the columns `columns` (char *) of the
 * table, with the values of `key`, a key_text().  ERROR if the table does not
 * have these columns.
 */
extern SqlParameter *key_parameters(Oid table, List *columns, const char *key);

/* The way in which a value of a type is written. */
typedef struct ValueWriter
{
	bool		is_text;		/* a value is stored as its text, */
	bool		is_padded;		/* with blanks at its end */
	FmgrInfo	output;
} ValueWriter;

/* Prepares *writer for values of `type`, in the current memory context. */
extern void value_begin(ValueWriter *writer, Oid type);

/*
 * Returns the text that the output function of the value's type writes, and
 * sets *length to the number of its bytes.  The text need not be
 * NUL-terminated, and may point into the value.
 */
extern const char *value_text(ValueWriter *writer, Datum value, size_t *length);

#endif							/* AUDIO_CLEANUP_SOURCE_QUERY_H */
