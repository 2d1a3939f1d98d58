/*-------------------------------------------------------------------------
 *
 * sources/citus.c
 *	  Tables that are spread over several servers, by Citus.
 *
 * Citus plans and reads a query on such a table by itself, whatever node has
 * the rows.  Citus has no snapshot of all nodes: each shard is read at a time
 * of its own.  A snapshot of each shard is enough.  Every node is asked for
 * the transactions that write to its shards, and these transactions end before
 * the shard is read.  A row lies in one shard.  So either its writer was
 * waited for, or its writer began later, and then the last look sees the row.
 *
 * If a shard moves meanwhile, the shard may be read in one place and written
 * in another.  So the places are noted before a node is asked, and compared
 * after the reading.
 *
 * Nothing of Citus is linked: its catalogs and one of its functions are used
 * by SQL.  Nodes are asked through that function, and not through dblink,
 * because Citus knows how to connect to its nodes.  Citus connects as the
 * current role, which is the owner of the source.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "src/pg/compat.h"
#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/sources/citus.h"


/* ---------------------------------------------------------------- tables --- */

List *
citus_list_tables(void)
{
	Oid			catalog = get_relname_relid("pg_dist_partition", PG_CATALOG_NAMESPACE);
	AttrNumber	attnum = OidIsValid(catalog) ? get_attnum(catalog, "logicalrelid") : InvalidAttrNumber;
	Relation	rel;
	TupleTableSlot *slot;
	Snapshot	snapshot;
	TableScanDesc scan;
	List	   *tables = NIL;
	bool		isnull;

	if (attnum <= 0 || get_rel_relkind(catalog) != RELKIND_RELATION)
		return NIL;
	rel = table_open(catalog, AccessShareLock);
	slot = table_slot_create(rel, NULL);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = compat_table_beginscan(rel, snapshot);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		tables = lappend_oid(tables, DatumGetObjectId(slot_getattr(slot, attnum, &isnull)));
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return tables;
}

bool
citus_has_any(List *relations)
{
	List	   *tables = citus_list_tables();

	foreach_oid(relid, relations)
		if (list_member_oid(tables, relid))
		return true;
	return false;
}

bool
citus_can_ask(void)
{
	Oid			citus = get_extension_oid("citus", true);
	Oid			catalog = OidIsValid(citus) ? get_relname_relid("pg_dist_partition", PG_CATALOG_NAMESPACE) : InvalidOid;

	return OidIsValid(catalog) && getExtensionOfObject(RelationRelationId, catalog) == citus;
}


/* ----------------------------------------------------------------- checks --- */

static Brake *
cannot_read(const Source *source, Oid relid, char *why)
{
	return source_brake(ERRCODE_FEATURE_NOT_SUPPORTED,
						psprintf("source %s reads %s, which Citus distributes and which cannot be relied on",
								 source->name, sources_name(relid)), why);
}

/*
 * Returns whether the condition is true for the way in which a distributed table
 * is stored: `spread`, whether rows are spread by a hash or all rows are in one
 * shard; the numbers of `shards` and `placements`; `here`, whether a placement
 * is on this node.  False for a table that does not exist any more.
 */
static bool
is_stored(Oid table, const char *condition)
{
	return sql_query_latest(SQL_ARGS(SQL_OID(OIDOID, table)),
							psprintf("SELECT FROM (SELECT d.partmethod IN ('h', 'n') AS spread, pg_catalog.count(DISTINCT s.shardid) AS shards,"
									 "  pg_catalog.count(p.placementid) AS placements,"
									 "  pg_catalog.bool_or(p.groupid = (SELECT l.groupid FROM pg_catalog.pg_dist_local_group l)) AS here"
									 " FROM pg_catalog.pg_dist_partition d JOIN pg_catalog.pg_dist_shard s ON s.logicalrelid = d.logicalrelid"
									 " JOIN pg_catalog.pg_dist_placement p ON p.shardid = s.shardid"
									 " WHERE d.logicalrelid = $1 GROUP BY 1) t WHERE %s", condition)) == 1;
}

/*
 * Returns whether the types of the columns (char *) are enums or the server's
 * own, and no domains: with a value of a domain's base type, Citus looks for the
 * row in the wrong shard.
 */
static bool
is_plain_key(Oid table, List *columns)
{
	foreach_ptr(const char, column, columns)
	{
		Oid			type = get_atttype(table, get_attnum(table, column));

		if (!type_is_enum(type) && (type >= FirstNormalObjectId || type_is_rowtype(type)))
			return false;
	}
	return columns != NIL;
}

/* Returns a sentence that says why rows of the table cannot be locked one by one, or NULL. */
static char *
why_not_lockable(Oid relid)
{
	if (!is_stored(relid, "spread AND placements = shards"))
		return "Failed sessions are judged under a lock, and a row that is stored in several places cannot be locked without keeping others from writing.";
	if (!is_plain_key(relid, key_find(relid)))
		return "Failed sessions are judged under a lock, for which a row is found by its key: a primary key, or a unique index on columns that are NOT NULL, of types of the server's own that are no domains.";
	return NULL;
}

bool
citus_can_lock_rows(Oid relation)
{
	return citus_can_ask() && citus_has_any(list_make1_oid(relation)) && why_not_lockable(relation) == NULL;
}

bool
citus_commits_together(Oid table)
{
	return is_stored(table, "shards > 1 OR placements = 1 AND here");
}

Brake *
citus_check_table(const Source *source, Oid relid)
{
	const char *secondaries = GetConfigOption("citus.use_secondary_nodes", true, false);
	char	   *why;

	if (get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE)
		return cannot_read(source, relid, "It is a foreign table.");
	if (secondaries == NULL)
		return cannot_read(source, relid, "The library of Citus is not loaded: the table would look empty.");
	if (strcmp(secondaries, "never") != 0)
		return cannot_read(source, relid, "Rows are read from secondary nodes (citus.use_secondary_nodes), which may lag behind.");
	if (source->status_column == NULL)
		return NULL;

	/*
	 * the partitions of a distributed table are read and locked together with
	 * the table
	 */
	why = citus_has_any(list_make1_oid(source->relid)) ? why_not_lockable(source->relid) :
		"Failed sessions are judged under a lock, and rows on other nodes cannot be locked through a view.";
	return why == NULL ? NULL :
		brake_make("source", ERRCODE_FEATURE_NOT_SUPPORTED,
				   psprintf("source %s has failed sessions and reads %s, which Citus distributes",
							source->name, sources_name(relid)),
				   why, "Register a view that has no such status column.");
}


/* ------------------------------------------------------------- placements --- */

/* Raises an ERROR if the placement of this row of the result is on no active node. */
static void
require_node(int row, Oid table)
{
	if (!sql_is_null(row, 3))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a shard of %s is on no node that is active", sources_name(table)),
			 errdetail("Shard %s cannot be read, and nobody can be asked who writes to it.", sql_text(row, 6)),
			 errhint("SELECT * FROM pg_dist_node; shows the nodes.")));
}

/*
 * Besides its shards, a table has a relation of its own name on each node that
 * clients may connect to.  A transaction with a lock on that relation is about
 * to write, although the transaction has not reached a shard yet.
 *
 * shard_name() omits the schema "public", also if the search_path of the node
 * lacks that schema.
 */
List *
citus_find_placements(const SourceQuery *query)
{
	List	   *placements = NIL;
	int			n;

	if (!citus_can_ask() || !citus_has_any(query->tables))
		return NIL;
	n = sql_query_latest(SQL_ARGS(SQL_OIDS(query->tables)),
						 "SELECT s.logicalrelid::oid, p.placementid::int8, n.nodename::text, n.nodeport::int4,"
						 "  CASE WHEN c.nspname = 'public' AND NOT pg_catalog.starts_with(s.name, 'public.') THEN 'public.' || s.name ELSE s.name END,"
						 "  s.shardid::text"
						 " FROM (SELECT d.logicalrelid, d.shardid, pg_catalog.shard_name(d.logicalrelid, d.shardid) AS name"
						 "  FROM pg_catalog.pg_dist_shard d WHERE d.logicalrelid = ANY ($1)) s"
						 " JOIN pg_catalog.pg_class r ON r.oid = s.logicalrelid"
						 " JOIN pg_catalog.pg_namespace c ON c.oid = r.relnamespace"
						 " LEFT JOIN pg_catalog.pg_dist_placement p ON p.shardid = s.shardid AND p.shardstate = 1"
						 " LEFT JOIN pg_catalog.pg_dist_node n ON n.groupid = p.groupid AND n.noderole::text = 'primary' AND n.isactive"
						 " UNION ALL SELECT d.logicalrelid::oid, -n.nodeid, n.nodename::text, n.nodeport::int4, pg_catalog.format('%I.%I', c.nspname, r.relname), NULL"
						 "  FROM pg_catalog.pg_dist_partition d JOIN pg_catalog.pg_class r ON r.oid = d.logicalrelid"
						 "  JOIN pg_catalog.pg_namespace c ON c.oid = r.relnamespace"
						 "  JOIN pg_catalog.pg_dist_node n ON n.noderole::text = 'primary' AND n.isactive AND n.hasmetadata"
						 "  WHERE d.logicalrelid = ANY ($1)"
						 " ORDER BY 1, 2");
	for (int i = 0; i < n; i++)
	{
		RemoteTable *placement = palloc0(sizeof(RemoteTable));

		placement->source = query->source;
		placement->role = query->source->owner;
		placement->relid = DatumGetObjectId(sql_value(i, 1));
		require_node(i, placement->relid);
		placement->placement = DatumGetInt64(sql_value(i, 2));
		placement->host = sql_text(i, 3);
		placement->port = DatumGetInt32(sql_value(i, 4));
		placement->name = sql_text(i, 5);
		placements = lappend(placements, placement);
	}
	return placements;
}

bool
citus_is_same_node(const RemoteTable *a, const RemoteTable *b)
{
	return a->port == b->port && strcmp(a->host, b->host) == 0;
}


/* -------------------------------------------------------------- questions --- */

List *
citus_ask(const RemoteTable *node, const char *question)
{
	char	   *command = psprintf("SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(q.a, q.b))::pg_catalog.text, '[]')"
								   " FROM (%s) q(a, b)", question);
	char	   *answer = NULL;
	bool		success = false;

	if (sql_query(SQL_ARGS(SQL_TEXT(node->host), SQL_INT4(node->port), SQL_TEXT(command)),
				  "SELECT r.success, r.result FROM pg_catalog.master_run_on_worker(ARRAY[$1], ARRAY[$2], ARRAY[$3], false) r") == 1)
	{
		success = DatumGetBool(sql_value(0, 1));
		answer = sql_text(0, 2);
	}
	if (!success)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("node \"%s:%d\" could not be asked who writes there", node->host, node->port),
				 answer ? errdetail_internal("%s", answer) : 0,
				 errhint("The owner of the source must be able to connect to each node, as Citus does for the queries of that role.")));
	return remote_take_rows(sql_query(SQL_ARGS(SQL_TEXT(answer)),
									  "SELECT e.value ->> 0, e.value ->> 1 FROM pg_catalog.json_array_elements($1::pg_catalog.json) e"));
}


/* ----------------------------------------------------------------- moving --- */

/* The placements whose nodes were asked, and the transaction that has asked. */
static LocalTransactionId asked_in = InvalidLocalTransactionId;
static List *asked = NIL;

static bool
has_placement(const RemoteTable *wanted, List *placements)
{
	foreach_ptr(const RemoteTable, placement, placements)
		if (placement->relid == wanted->relid && placement->placement == wanted->placement &&
			citus_is_same_node(placement, wanted))
		return true;
	return false;
}

void
citus_note_asked(List *tables)
{
	MemoryContext caller = MemoryContextSwitchTo(TopTransactionContext);

	asked = NIL;
	foreach_ptr(const RemoteTable, table, tables)
	{
		RemoteTable *copy;

		/* several sources may read one table */
		if (OidIsValid(table->server) || has_placement(table, asked))
			continue;
		copy = palloc0(sizeof(RemoteTable));
		copy->relid = table->relid;
		copy->placement = table->placement;
		copy->host = pstrdup(table->host);
		copy->port = table->port;
		asked = lappend(asked, copy);
	}
	asked_in = compat_proc_lxid(MyProc);
	MemoryContextSwitchTo(caller);
}

/*
 * Citus remembers where shards are until an invalidation message tells of a
 * change.  A process that moves a shard sends the message before anybody can
 * write in the new place.  With local execution, Citus reads the shards of
 * this node in this transaction, and not in another transaction through a
 * connection to this server.
 */
void
citus_prepare(void)
{
	static const char *const local_execution = "citus.enable_local_execution";

	AcceptInvalidationMessages();
	if (GetConfigOption(local_execution, true, false) != NULL)
		role_set_for_now(local_execution, "on");
}

void
citus_check_unmoved(const SourceQuery *query)
{
	List	   *now;
	bool		same = true;
	int			n = 0;

	if (asked_in != compat_proc_lxid(MyProc))
		return;
	now = citus_find_placements(query);
	foreach_ptr(const RemoteTable, placement, now)
		same = same && has_placement(placement, asked);
	foreach_ptr(const RemoteTable, placement, asked)
		n += list_member_oid(query->tables, placement->relid) ? 1 : 0;
	same = same && n == list_length(now);
	if (!same)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("shards of source %s have moved while it was read", query->source->name),
				 errdetail("Nothing was deleted on account of this reading: somebody could write where nobody was asked."),
				 errhint("Try again when the shards stay where they are.")));
}
