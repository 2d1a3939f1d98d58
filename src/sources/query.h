/*-------------------------------------------------------------------------
 *
 * sources/query.h
 *	  The query that reads a source, and the box it runs in.
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
 * A query on a relation, made of its OID and not of a text: columns of it,
 * then a pair (tableoid, ctid) for each table whose row a row comes from.
 */
typedef struct SourceQuery
{
	const Source *source;
	Query	   *query;			/* analyzed and rewritten */
	int			n_columns;
	List	   *tables;			/* OIDs that it reads: tables, partitions ... */
	List	   *views;			/* ... and views */
	bool		has_places;		/* each row comes from rows that can be locked */
	List	   *bases;			/* OIDs: for each place, the table as it is
								 * named */
	List	   *key;			/* names of columns that stand in place of the
								 * place, where it means nothing here; or NIL */
} SourceQuery;

/* Where a row is stored. */
typedef struct SourcePlace
{
	Oid			table;
	ItemPointerData tid;
} SourcePlace;

/*
 * Builds the query that reads `n` columns of the checked source, and locks
 * every relation below it until the end of the transaction.  With
 * `with_places` the places are added where there are some.  Runs no code of
 * anybody.  Call it while acting as the source's owner.
 */
extern SourceQuery *query_build(const Source *source, const char *const *columns, int n,
								bool with_places);

/* Lets the query read about this percentage of the table's pages, and of no child of it. */
extern void query_sample(SourceQuery *query, float4 percent);

/*
 * Plans and executes the query while acting as the source's owner, in the box
 * (see query_run_in_box), its rows going to `receiver`.  With `receiver` NULL
 * the execution is only begun, which checks the privileges.
 */
extern void query_run(SourceQuery *query, Snapshot snapshot, DestReceiver *receiver);

/*
 * Calls work(arg) in a read-only subtransaction that is rolled back whatever
 * happens: somebody's code that runs there leaves nothing behind.  An ERROR is
 * passed on.  Cut short at the time of sources_set_deadline().
 */
extern void query_run_in_box(const Source *source, void (*work) (void *arg), void *arg);

/*
 * Raises an error that came while the source was read, without what may stand
 * in its rows if the caller has not the rights of the source's owner.
 */
pg_noreturn extern void query_raise(const Source *source, ErrorData *error);

/*
 * Calls work(arg), and cuts it short at the time of sources_set_deadline(),
 * with an ERROR that is the source's alone: "gave up", `doing`, and the name
 * of the source.  To be called in a subtransaction, which any ERROR ends.
 */
extern void query_limit_time(const Source *source, const char *doing, const char *hint,
							 void (*work) (void *arg), void *arg);

/* Returns the time of sources_set_deadline(), 0 for none. */
extern TimestampTz query_deadline(void);

/*
 * Finds the place and the column that a column (from 1) of the query shows.
 * Returns false where that is an expression.
 */
extern bool query_find_column(const SourceQuery *query, int column, int *place, AttrNumber *attnum);

/* Returns the OID of the owner of a relation; InvalidOid if the relation is gone. */
extern Oid	trust_owner(Oid relid);

/*
 * Returns why the relations and functions of the query must not be relied on,
 * or must not be run with the rights of the source's owner; else NULL.
 */
extern Brake *trust_check_query(const SourceQuery *query);

/*
 * Returns why an UPDATE of `table` for `source` must not be run with the rights
 * of `role`, the owner of the table, or NULL.  Of a superuser's table nothing
 * that is attached may be of another role; of others, no trigger.
 */
extern Brake *trust_check_update(const Source *source, Oid table, Oid role);

/*
 * Keeps functions whose owner lacks the rights of `role` from being run with
 * these rights, whatever leads to them, from now on; with InvalidOid none.
 * Returns the role of the call before.
 */
extern Oid	trust_watch(Oid role);

/*
 * With true, trust_watch() keeps functions of all but superusers from being
 * run, also those of the watched role.  Returns the value of the call before.
 */
extern bool trust_superusers_only(bool only);


/* The hint of a brake "source": what to do with a source that was registered and cannot be used. */
extern const char *const source_hint_readd;

/* Returns such a brake, in the current memory context, for that error code; `detail` may be NULL. */
extern Brake *source_brake(int sqlstate, char *message, char *detail);

/* Builds the query that reads the columns of files, as the owner; sets *brake, if that is NULL, as trust_check_query(). */
extern SourceQuery *source_build_query(const Source *source, bool with_places, Brake **brake);

/* Can the server of this foreign table be asked who writes there?  It can where postgres_fdw reads the table. */
extern bool remote_can_ask(Oid relid);

/* Returns what is missing before the server of such a foreign table can be asked for this source, or NULL. */
extern Brake *remote_check_table(const Source *source, Oid relid);

/*
 * Returns a brake if the query reads, as a superuser, what lies on a foreign
 * server that belongs to nobody of his rights; else NULL.
 */
extern Brake *remote_check_owners(const SourceQuery *query);

/* Returns whether the query reads a foreign table, or a table that Citus distributes. */
extern bool remote_is_read_by(const SourceQuery *query);

/*
 * Asks the servers of the query's foreign tables, and the nodes of its
 * distributed tables, what these are there.  Returns the brake if that is no
 * good, else NULL.
 */
extern Brake *remote_examine(const SourceQuery *query);

/*
 * To be called before the query is planned.  postgres_fdw has one snapshot for
 * the whole of a transaction, of the time when it first reads there:
 * sources_wait_remotely() then refuses to wait in vain.
 */
extern void remote_note_reading(const SourceQuery *query);

/*
 * Appends a place to a session, the text that names a row: its id, and where
 * the row is stored.  The text is valid as long as the row is locked, or in
 * the snapshot that it was read with.
 */
extern void place_append(StringInfo session, const SourcePlace *place);

/* Ends a session, whose id has so many bytes, behind its places. */
extern void place_end(StringInfo session, size_t id_length);

/* Reads the place with this number (from 0) of a session; false if it has no such. */
extern bool place_of_session(const char *session, int number, SourcePlace *place);

/*
 * Returns the names of the columns of a key that tells a row of the table from
 * all others; NIL without any.
 */
extern List *key_find(Oid table);

/* Returns whether the types of the columns are enums or the server's own, and no domains. */
extern bool key_is_plain(Oid table, List *columns);

/*
 * Lets values be written, and read, as texts that mean the same on another day
 * and in another session, until the GUC nest level of the caller ends.
 */
extern void key_write_plainly(void);

/* Returns the values (char *) of a key in one text, and reads such a text. */
extern char *key_text(List *values);
extern const char **key_values(const char *key, int *n);

/* Returns the text of a key as digits, and reads such digits up to the first character that is none. */
extern char *key_to_digits(const char *key);
extern char *key_from_digits(const char *digits);

/* Returns the condition that a row s has a key: the parameters of its values are numbered from `first`. */
extern char *key_condition(List *columns, int first);

/* Sets these parameters to the values of a key_text().  ERROR if the table has not these columns. */
extern void key_parameters(Oid table, List *columns, const char *key, SqlParameter *parameters);

/* Appends the key of a row to a session, in place of its places. */
extern void place_append_key(StringInfo session, Oid table, const char *key);

/* Returns the key_text() of a session.  ERROR if the session has none. */
extern char *place_key(const char *session);

/* Locks a row FOR UPDATE as it is in the snapshot.  Returns false if it is locked or changed by others. */
extern bool place_lock(const SourcePlace *place, Snapshot snapshot);

/* How a value of a type is written. */
typedef struct ValueWriter
{
	bool		is_text;		/* stored as it is written */
	bool		is_padded;		/* ... with blanks at its end */
	FmgrInfo	output;
} ValueWriter;

/* Prepares the writing of values of `type`, in the current memory context. */
extern void value_begin(ValueWriter *writer, Oid type);

/* Returns the text of a value by the output function of its type; it need not be NUL-terminated. */
extern const char *value_text(ValueWriter *writer, Datum value, size_t *length);

#endif							/* AUDIO_CLEANUP_SOURCE_QUERY_H */
