/*-------------------------------------------------------------------------
 *
 * sources/citus.h
 *	  Tables that are spread over several servers, by Citus.
 *
 * For the files of sources/ only.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_CITUS_H
#define AUDIO_CLEANUP_CITUS_H

#include "nodes/pg_list.h"

#include "src/guard/brake.h"
#include "src/sources/query.h"

/*
 * A row of an answer.  The server may belong to anybody, and answer anything.
 */
typedef struct RemoteRow
{
	const char *first;			/* "" for NULL */
	const char *second;			/* or NULL */
} RemoteRow;

/*
 * Returns the `n` rows of SPI_tuptable, which have two columns of text, as a
 * List of RemoteRow.
 */
extern List *remote_take_rows(int n);

/*
 * Returns the OIDs of the distributed tables: the tables that the catalog of
 * Citus, or of a similar extension, lists as spread over several servers.
 */
extern List *citus_list_tables(void);

/* Returns whether one of the relations (OIDs) is a distributed table. */
extern bool citus_has_any(List *relations);

/* Returns whether that catalog belongs to the extension citus itself, whose nodes can be asked. */
extern bool citus_can_ask(void);

/* Returns a brake if the distributed table `relid` cannot be read for this source, or NULL.  Needs SPI. */
extern Brake *citus_check_table(const Source *source, Oid relid);

/* Returns whether the relation is a distributed table whose rows can be locked one by one.  Needs SPI. */
extern bool citus_can_lock_rows(Oid relation);

/*
 * Returns whether Citus commits writes to this table in two phases, after a
 * statement on all shards of the table.  Such writes are committed together
 * with the writes on this server, or not at all.  Needs SPI.
 */
extern bool citus_commits_together(Oid table);

/*
 * Returns the placements (RemoteTable) that the tables of the query have now; a
 * table that is not distributed has no placement.  Citus reads the placements
 * as the role that executes the query.  ERROR if a shard is on no active node.
 * Needs SPI.
 */
extern List *citus_find_placements(const SourceQuery *query);

/* Returns whether two placements are on the same node. */
extern bool citus_is_same_node(const RemoteTable *a, const RemoteTable *b);

/*
 * Runs the query `question`, whose rows have two columns of text, on the node of
 * the placement as the current role.  Returns its rows (RemoteRow).  ERROR
 * connection_failure without an answer.  Needs SPI.
 */
extern List *citus_ask(const RemoteTable *node, const char *question);

/*
 * Notes the placements among `tables` (RemoteTable), which are the tables of all
 * sources, for citus_check_unmoved().  Must be called before their nodes are
 * asked for writers.
 */
extern void citus_note_asked(List *tables);

/*
 * Makes sure that the next statement on distributed tables is planned with the
 * places that the shards have now.  The caller must act as a role: see
 * role_set_for_now().
 */
extern void citus_prepare(void);

/*
 * Raises an ERROR if nodes were asked in this transaction, and one of the
 * query's shards has moved after that: the writers of the shard may be on
 * another node.  Must be called after the query was read.  Needs SPI.
 */
extern void citus_check_unmoved(const SourceQuery *query);

#endif							/* AUDIO_CLEANUP_CITUS_H */
