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

/* What there is of a table on one node: a shard, or the table's own name. */
typedef struct CitusPlacement
{
	Oid			table;
	int64		placement;		/* another one after the shard was moved; of
								 * the name: the node, negative */
	const char *host;
	int			port;
	const char *name;			/* of the relation there, qualified and quoted */
} CitusPlacement;

/* A row of an answer.  A server is anybody's, and may answer what it likes. */
typedef struct RemoteRow
{
	const char *first;			/* "" for NULL */
	const char *second;			/* or NULL */
} RemoteRow;

/* Returns the OIDs of the relations that are spread over several servers, as Citus, or its like, lists them. */
extern List *citus_list_tables(void);

/* Returns whether one of the relations (OIDs) is in that list. */
extern bool citus_has_any(List *relations);

/* Returns whether the list above is that of the extension citus itself, so that its nodes can be asked. */
extern bool citus_can_ask(void);

/* Returns why a table of that list cannot be read for this source, or NULL.  Needs SPI. */
extern Brake *citus_check_table(const Source *source, Oid relid);

/* Returns whether it is a table of that list of which rows can be locked one by one.  Needs SPI. */
extern bool citus_can_lock_rows(Oid relation);

/*
 * Returns whether Citus commits in two phases what is written to this table
 * after a statement on all of its shards: then it is committed together with
 * what is written here, or not at all.  Needs SPI.
 */
extern bool citus_commits_together(Oid table);

/*
 * Returns the placements (CitusPlacement) of those of the tables (OIDs) that
 * are spread, as they are now; none for other tables.  ERROR where a shard
 * has no node that is active.  Needs SPI.
 */
extern List *citus_find_placements(List *tables);

/* Returns whether two placements are on the same node. */
extern bool citus_is_same_node(const CitusPlacement *a, const CitusPlacement *b);

/*
 * Asks the node of the placement a question of which each row has two columns
 * of text, as the current role.  Returns the rows (RemoteRow).  ERROR
 * connection_failure without an answer.  Needs SPI.
 */
extern List *citus_ask(const CitusPlacement *node, const char *question);

/*
 * To be called with all placements of the sources, before their nodes are
 * asked for writers: what is read afterwards in this transaction must lie in
 * these, see citus_check_unmoved().
 */
extern void citus_note_asked(List *placements);

/*
 * To be called before a statement on spread tables, while acting as somebody:
 * sees to it that it is planned with the places that the shards have now.
 */
extern void citus_prepare(void);

/*
 * To be called after the query was read.  ERROR if nodes were asked in this
 * transaction, and one of the query's shards has moved since: its writers may
 * be on another node.  Needs SPI.
 */
extern void citus_check_unmoved(const SourceQuery *query);

#endif							/* AUDIO_CLEANUP_CITUS_H */
