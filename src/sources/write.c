/*-------------------------------------------------------------------------
 *
 * sources/write.c
 *	  Sets the file columns of failed sessions to NULL, and fills such columns
 *	  again.
 *
 * Rows are written in the table that stores them, even if the source is a
 * view, and are found by their place or key.  The statement runs as the owner
 * of that table, because triggers, constraints and expressions of indexes
 * belong to that owner: they must not run with the rights of a view's owner.
 * No trigger or constraint is left to the commit, where it would run with the
 * rights of the role that commits.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "lib/qunique.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "src/pg/compat.h"
#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/sources/citus.h"
#include "src/sources/query.h"
#include "src/sources/sources.h"

#define TID_ARRAY_OID	1010

/* rows of a source that a preview tries to clear */
#define MAX_TRIED_ROWS	10

static const char *const hint_slow = "Look at what its triggers and constraints do.";
static const char *const hint_slow_node = "Find out why a node of Citus is slow.";
static const char *const hint_keep = "Correct that, or register the source with on_failed => 'keep'.";


/* ---------------------------------------------------------------- target --- */

/*
 * The table that holds the file columns of a source, under the name in the
 * query: a parent may stand for its children.
 */
typedef struct Target
{
	const Source *source;
	Oid			table;
	int			place;			/* number of the table's place in a session */
	List	   *columns;		/* names (char *) of the file columns there */
	List	   *key;			/* names (char *) of the columns of the key by
								 * which rows are found; NIL: rows are found
								 * by their place */
} Target;

static Brake *
cannot_clear(const Source *source, int sqlstate, char *why)
{
	return brake_make("source", sqlstate, psprintf("source %s cannot be cleared", source->name), why, hint_keep);
}

/* Returns a brake unless the owner of a view has the privilege to update the columns. */
static Brake *
check_privileges(const Target *target)
{
	const Source *source = target->source;

	if (target->table == source->relid ||
		pg_class_aclcheck(target->table, source->owner, ACL_UPDATE) == ACLCHECK_OK)
		return NULL;
	foreach_ptr(const char, name, target->columns)
		if (pg_attribute_aclcheck(target->table, get_attnum(target->table, name), source->owner, ACL_UPDATE) != ACLCHECK_OK)
		return cannot_clear(source, ERRCODE_INSUFFICIENT_PRIVILEGE,
							psprintf("Its owner may not update column \"%s\" of %s.", name, sources_name(target->table)));
	return NULL;
}

/* Finds the table that the owner of the source may update.  Returns a brake if there is no such table. */
static Brake *
find_target(const Source *source, Target *target)
{
	const SourceQuery *query = source_build_query(source, true, NULL);

	*target = (Target)
	{
		.source = source,.key = query->key
	};
	for (int i = 0; i < source->n_columns; i++)
	{
		AttrNumber	attnum;
		int			place;

		if (!query_find_column(query, i + 1, &place, &attnum))
			return cannot_clear(source, ERRCODE_FEATURE_NOT_SUPPORTED,
								psprintf("Column \"%s\" is not a column of a table.", source->columns[i]));
		if (i > 0 && place != target->place)
			return cannot_clear(source, ERRCODE_FEATURE_NOT_SUPPORTED,
								"Its file columns are those of several tables.");
		target->place = place;
		target->table = list_nth_oid(query->bases, place);
		target->columns = lappend(target->columns, get_attname(target->table, attnum, false));
	}
	return check_privileges(target);
}


/* ------------------------------------------------------------------- key --- */

static Brake *
no_key(const Source *source, Oid table)
{
	return brake_make("source", ERRCODE_UNDEFINED_OBJECT, psprintf("source %s cannot be cleared", source->name),
					  psprintf("Table %s has no key that names one row.", sources_name(table)),
					  "Give it a primary key, or a unique index on columns that are NOT NULL; or register the source with on_failed => 'keep'.");
}

/*
 * Returns the key by which a row of `table` is remembered.  The key of the
 * target holds for its partitions, but not for tables that inherit from it.
 */
static List *
require_row_key(const Target *target, Oid table)
{
	bool		is_own = table == target->table || get_rel_relkind(target->table) == RELKIND_PARTITIONED_TABLE;
	List	   *key = key_find(is_own ? target->table : table);

	if (key == NIL)
		brake_raise(no_key(target->source, table));
	return key;
}


/* ----------------------------------------------------------------- checks --- */

/* Returns a brake if a column, or a domain that its type is made of, is NOT NULL, or if the column is generated. */
static Brake *
check_nullable(const Target *target)
{
	if (sql_query_latest(SQL_ARGS(SQL_OID(OIDOID, target->table), SQL_TEXTS(target->columns)),
						 "SELECT a.attname::text FROM pg_catalog.pg_attribute a"
						 " WHERE a.attrelid = $1 AND a.attname::text COLLATE \"C\" = ANY ($2) AND (a.attnotnull OR a.attgenerated <> ''"
						 "  OR EXISTS (WITH RECURSIVE types(oid) AS (SELECT a.atttypid"
						 "    UNION SELECT d.typbasetype FROM types t JOIN pg_catalog.pg_type d ON d.oid = t.oid AND d.typtype = 'd')"
						 "   SELECT FROM types t JOIN pg_catalog.pg_type d ON d.oid = t.oid AND d.typnotnull))"
						 " ORDER BY pg_catalog.array_position($2, a.attname::text) LIMIT 1") == 0)
		return NULL;
	return cannot_clear(target->source, ERRCODE_INVALID_TABLE_DEFINITION,
						psprintf("Column \"%s\" of %s cannot be set to NULL.", sql_text(0, 1), sources_name(target->table)));
}

/*
 * Returns a brake if a foreign key carries a change of the columns on to the
 * rows that refer by it.  Nobody has judged these rows: their files would
 * become orphans.  A generated column may be made of the columns, and then
 * changes with them.
 */
static Brake *
check_not_carried_on(const Target *target)
{
	if (sql_query_latest(SQL_ARGS(SQL_OIDS(find_all_inheritors(target->table, NoLock, NULL)), SQL_TEXTS(target->columns)),
						 "SELECT c.conname::text, c.conrelid FROM pg_catalog.pg_constraint c"
						 " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = ANY (c.confkey)"
						 " WHERE c.contype = 'f' AND c.confupdtype IN ('c', 'n', 'd') AND c.confrelid = ANY ($1)"
						 "  AND (a.attname::text COLLATE \"C\" = ANY ($2) OR a.attgenerated <> '') LIMIT 1") == 0)
		return NULL;
	return cannot_clear(target->source, ERRCODE_FEATURE_NOT_SUPPORTED,
						psprintf("Constraint \"%s\" would change rows of %s, too, which refer to the same files.",
								 sql_text(0, 1), sources_name(DatumGetObjectId(sql_value(0, 2)))));
}

/*
 * Returns a brake unless rows on other nodes and rows of this server are
 * committed together or not at all: see clear_keyed().
 */
static Brake *
check_clearing_together(const Target *target)
{
	int			n;

	if (!citus_commits_together(target->table))
		return cannot_clear(target->source, ERRCODE_FEATURE_NOT_SUPPORTED,
							"All of its rows lie in one shard on another node, and Citus commits there before it commits here.");
	n = sql_query_latest(SQL_ARGS(SQL_OID(OIDOID, target->table)),
						 "SELECT FROM pg_catalog.pg_constraint c WHERE c.condeferrable AND $1 IN (c.conrelid, c.confrelid)");
	return n == 0 ? NULL :
		cannot_clear(target->source, ERRCODE_FEATURE_NOT_SUPPORTED,
					 "A constraint of it is deferrable, and would be checked on another node as late as at the commit.");
}

Brake *
sources_check_clearing(const Source *source)
{
	Target		target;
	Brake	   *brake;

	if (!source->clear || source->status_column == NULL)
		return NULL;
	if ((brake = find_target(source, &target)) != NULL ||
		(brake = check_nullable(&target)) != NULL ||
		(brake = check_not_carried_on(&target)) != NULL ||
		(brake = trust_check_update(source, target.table, trust_owner(target.table))) != NULL)
		return brake;
	/* an empty parent need not have a key, but its children must */
	if (key_find(target.table) == NIL)
		return no_key(source, target.table);
	return target.key != NIL ? check_clearing_together(&target) : NULL;
}


/* --------------------------------------------------------------- deferred --- */

/*
 * Makes all constraints for which the condition is true deferred or immediate,
 * except constraints of other sessions' temporary tables.  Acts as a
 * superuser, because the caller may not use the schemas of all constraints.
 */
static void
set_constraints(const char *condition, bool deferred)
{
	ConstraintsSetStmt *statement = makeNode(ConstraintsSetStmt);
	ActingAs	saved;
	int			n = sql_query(0, NULL, psprintf("SELECT n.nspname::text, c.conname::text FROM pg_catalog.pg_constraint c"
												" JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace"
												" WHERE %s AND NOT pg_catalog.pg_is_other_temp_schema(n.oid)",
												condition));

	/* an empty list would mean all constraints */
	if (n == 0)
		return;
	for (int i = 0; i < n; i++)
		statement->constraints = lappend(statement->constraints, makeRangeVar(sql_text(i, 1), sql_text(i, 2), -1));
	statement->deferred = deferred;
	role_act_as(BOOTSTRAP_SUPERUSERID, &saved);
	AfterTriggerSetState(statement);
	role_stop_acting(&saved);
}

/*
 * At the commit, deferred triggers would run with the rights of the role that
 * commits, and their failure would fail that role's transaction.  PostgreSQL
 * refuses to leave a deferred trigger behind in a security-restricted
 * operation.  So all constraints are made immediate before rows are written.
 * This function raises an ERROR if the transaction has deferred triggers
 * already, because these must not run now.
 */
static void
begin_undeferred(void)
{
	int			n = sql_query(0, NULL, "SELECT DISTINCT t.tgrelid FROM pg_catalog.pg_trigger t WHERE t.tgdeferrable");

	for (int i = 0; i < n; i++)
		if (AfterTriggerPendingOnRel(DatumGetObjectId(sql_value(i, 1))))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("deferred constraints of %s are still to be checked in this transaction",
							sources_name(DatumGetObjectId(sql_value(i, 1)))),
					 errhint("Commit first, or SET CONSTRAINTS ALL IMMEDIATE.")));
	set_constraints("c.condeferrable", false);
}

static void
end_undeferred(void)
{
	set_constraints("c.condeferred", true);
}


/* ----------------------------------------------------------------- update --- */

static void
act_as_table_owner(const Target *target, Oid table, ActingAs *saved)
{
	Oid			owner;

	/*
	 * with this lock, a session that adds a trigger has committed, or waits
	 * for this transaction
	 */
	LockRelationOid(table, RowExclusiveLock);
	owner = trust_owner(table);
	if (!OidIsValid(owner))
		elog(ERROR, "table with OID %u is gone", table);
	brake_raise_if(trust_check_update(target->source, table, owner));
	role_act_as(owner, saved);
	trust_look_for_shadow();
	citus_prepare();
	if (target->key != NIL)
		key_write_plainly();
}

typedef struct Update
{
	Oid			table;
	int			n;
	SqlParameter *parameters;
	const char *sql;
	const char *input;			/* text of the first parameter, or NULL */
	int32		typmod;			/* of its type */
	int			rows;			/* result: number of rows */
} Update;

static void
run_update(void *arg)
{
	Update	   *update = arg;
	Oid			function;
	Oid			ioparam;

	if (update->input != NULL)
	{
		getTypeInputInfo(update->parameters[0].type, &function, &ioparam);
		update->parameters[0].value = OidInputFunctionCall(function, unconstify(char *, update->input),
														   ioparam, update->typmod);
	}
	update->rows = sql_query_on(update->table, update->n, update->parameters, update->sql);
	if (compiled_found_outdated())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a trigger has caught that a function must be compiled anew")));
}

/*
 * Runs the update as the current role.  Code of a role without the rights of
 * the current role is an ERROR: a name in a trigger may lead to a domain that
 * the caller has put into pg_temp.  A use of a temporary table is an ERROR,
 * too.
 */
static void
update_by_rules(void *arg)
{
	const TrustRules rules = {.role = GetUserId()};

	trust_run(&rules, run_update, arg);
}

/*
 * Runs the statement on `table` as the current role, the table's owner; again if
 * a function of a trigger had to be compiled anew.  `input`, unless NULL, is the
 * text of the parameter $1, a value of the file column; the `n` parameters
 * `others` come behind it.  Returns the number of rows.
 */
static int
run_on_table(const Target *target, Oid table, const char *sql, const char *input, int n, const SqlParameter *others)
{
	int			first = input != NULL ? 1 : 0;
	Update		update = {table, first + n, palloc0(sizeof(SqlParameter) * (n + 1)), sql, input};
	Oid			collation;
	ErrorData  *error;

	for (int i = 0; i < n; i++)
		update.parameters[first + i] = others[i];
	if (input != NULL)
		get_atttypetypmodcoll(table, get_attnum(table, linitial(target->columns)),
							  &update.parameters[0].type, &update.typmod, &collation);
	role_keep_quiet();
	do
	{
		CHECK_FOR_INTERRUPTS();
		error = sql_try(update_by_rules, &update);
	} while (error != NULL && compiled_found_outdated());
	if (error != NULL)
		sql_rethrow(error);
	return update.rows;
}

/* Does the work of run_on_table() for the row with this key; the values of the key are the last parameters. */
static int
run_by_key(const Target *target, List *key_columns, const char *key, const char *sql, const char *input)
{
	return run_on_table(target, target->table, sql, input, list_length(key_columns),
						key_parameters(target->table, key_columns, key));
}

static char *
clearing_statement(const Target *target, Oid table, const char *condition)
{
	StringInfoData sql;
	StringInfoData cleared;

	initStringInfo(&sql);
	initStringInfo(&cleared);
	appendStringInfo(&sql, "UPDATE %s%s AS s SET ", target->key == NIL ? "ONLY " : "", sources_name(table));
	foreach_ptr(const char, name, target->columns)
	{
		appendStringInfo(&sql, "%s%s = NULL", cleared.len > 0 ? ", " : "", quote_identifier(name));
		appendStringInfo(&cleared, "%ss.%s IS NULL", cleared.len > 0 ? " AND " : "", quote_identifier(name));
	}
	appendStringInfo(&sql, " WHERE %s RETURNING %s", condition, cleared.data);
	return sql.data;
}

/*
 * Raises an ERROR unless all `n` rows were cleared: a trigger may have kept
 * the old values of a row.
 */
static void
check_cleared(const Source *source, int n, int n_updated)
{
	int			n_cleared = 0;

	for (int i = 0; i < n_updated; i++)
		n_cleared += DatumGetBool(sql_value(i, 1)) ? 1 : 0;
	if (n_cleared < n)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("%d of %d rows of source %s could not be cleared", n - n_cleared, n, source->name),
				 errdetail("A trigger, a rule or a policy has kept them as they were.")));
}

static void
clear_table(const Target *target, Oid table, Datum *tids, int n)
{
	char	   *sql = clearing_statement(target, table, "s.ctid OPERATOR(pg_catalog.=) ANY ($1)");
	ArrayType  *array = construct_array(tids, n, TIDOID, sizeof(ItemPointerData), false, TYPALIGN_SHORT);
	ActingAs	saved;

	act_as_table_owner(target, table, &saved);
	check_cleared(target->source, n, run_on_table(target, table, sql, NULL, SQL_ARGS(SQL_VALUE(TID_ARRAY_OID, PointerGetDatum(array)))));
	role_stop_acting(&saved);
}

/*
 * Makes Citus commit in two phases, and so together with the rows of this
 * server: Citus does so after a statement that writes to several shards.  The
 * statement here finds no row in any shard.
 */
static void
commit_in_two_phases(const Target *target)
{
	char	   *sql = psprintf("UPDATE %s AS s SET %s = NULL WHERE s.ctid OPERATOR(pg_catalog.=) '(0,0)'::pg_catalog.tid",
							   sources_name(target->table), quote_identifier(linitial(target->columns)));

	(void) run_on_table(target, target->table, sql, NULL, 0, NULL);
}

/* The rows to be cleared. */
typedef struct ToClear
{
	const Target *target;
	List	   *sessions;		/* sessions (char *) */
	SourcePlace *places;		/* their places sorted by table, if rows are
								 * found by their place, */
	int			n;				/* and the number of places */
} ToClear;

static void
clear_keyed(void *arg)
{
	const ToClear *rows = arg;
	const Target *target = rows->target;
	char	   *sql = clearing_statement(target, target->table, key_condition(target->key, 1));
	ActingAs	saved;

	brake_raise_if(check_clearing_together(target));
	act_as_table_owner(target, target->table, &saved);
	commit_in_two_phases(target);
	foreach_ptr(const char, session, rows->sessions)
	{
		CHECK_FOR_INTERRUPTS();
		check_cleared(target->source, 1, run_by_key(target, target->key, place_key(session), sql, NULL));
	}
	role_stop_acting(&saved);
}

static void
get_place(const Target *target, const char *session, SourcePlace *place)
{
	if (!place_of_session(session, target->place, place))
		elog(ERROR, "session \"%s\" of source %s has no place", session, target->source->name);
}

/* Compares two places, or structs that begin with a place. */
static int
compare_places(const void *a, const void *b)
{
	const SourcePlace *x = a;
	const SourcePlace *y = b;

	if (x->table != y->table)
		return x->table < y->table ? -1 : 1;
	return ItemPointerCompare(unconstify(ItemPointerData *, &x->tid), unconstify(ItemPointerData *, &y->tid));
}

/* Sets the places of the sessions in the target, each once. */
static void
list_places(ToClear *rows)
{
	SourcePlace *places = palloc(sizeof(SourcePlace) * Max(list_length(rows->sessions), 1));
	int			n = 0;

	foreach_ptr(const char, session, rows->sessions)
		get_place(rows->target, session, &places[n++]);
	qsort(places, n, sizeof(SourcePlace), compare_places);
	rows->n = (int) qunique(places, n, sizeof(SourcePlace), compare_places);
	rows->places = places;
}

static void
clear_places(void *arg)
{
	const ToClear *rows = arg;
	const Target *target = rows->target;
	SourcePlace *places = rows->places;
	int			n = rows->n;
	Datum	   *tids;
	int			i;

	begin_undeferred();
	tids = palloc(sizeof(Datum) * Max(n, 1));
	for (int first = 0; first < n; first = i)
	{
		for (i = first; i < n && places[i].table == places[first].table; i++)
			tids[i - first] = PointerGetDatum(&places[i].tid);
		(void) require_row_key(target, places[first].table);
		clear_table(target, places[first].table, tids, i - first);
	}
	end_undeferred();
}

/* Locks the first rows that can be locked at once, and keeps these in the list. */
static void
lock_some(ToClear *rows)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int			locked = 0;

	for (int i = 0; i < rows->n && locked < MAX_TRIED_ROWS; i++)
		if (place_lock(&rows->places[i], snapshot))
			rows->places[locked++] = rows->places[i];
	rows->n = locked;
	UnregisterSnapshot(snapshot);
}

void
sources_clear(const Source *source, List *sessions, bool only_try)
{
	Target		target;
	ToClear		rows = {&target, sessions};

	brake_raise_if(find_target(source, &target));
	brake_raise_if(check_not_carried_on(&target));
	if (only_try && target.key != NIL)
	{
		/*
		 * a try would make other nodes prepare a transaction that is rolled
		 * back anyway
		 */
		brake_raise_if(sources_check_clearing(source));
		return;
	}
	if (target.key == NIL)
		list_places(&rows);
	if (only_try)
		lock_some(&rows);

	/*
	 * triggers and constraints of the tables run, so the time for reading
	 * sources is the limit
	 */
	query_limit_time(source, 0, "gave up clearing source %s: the time for it is up", hint_slow,
					 target.key != NIL ? clear_keyed : clear_places, &rows);
}


/* ------------------------------------------------------------------- copy --- */

/* Returns the text of a column of the row in the slot, or NULL. */
static char *
column_text(TupleTableSlot *slot, Relation rel, const char *name)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(rel), name);
	ValueWriter writer;
	const char *text;
	size_t		length;
	bool		isnull;
	Datum		value;

	if (attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("table %s has no column \"%s\"", sources_name(RelationGetRelid(rel)), name)));
	value = slot_getattr(slot, attnum, &isnull);
	if (isnull)
		return NULL;
	value_begin(&writer, TupleDescAttr(slot->tts_tupleDescriptor, attnum - 1)->atttypid);
	text = value_text(&writer, value, &length);
	return pnstrdup(text, length);
}

/* The sessions whose file columns are copied into a store. */
typedef struct Copy
{
	const Target *target;
	List	   *sessions;		/* of char * */
	Tuplestorestate *store;
	TupleDesc	desc;
	Oid			table;			/* the last table of which a row was copied, */
	List	   *key;			/* and its key */
} Copy;

/* Adds the contents (char *, or NULL) of the file columns of one row to the store. */
static void
put_columns(const Copy *copy, const char *session, List *key, List *key_values, List *contents)
{
	Datum		values[5] = {CStringGetTextDatum(sources_session_id(session)), sql_text_array(key),
	CStringGetTextDatum(key_text(key_values))};
	bool		nulls[5] = {false};

	for (int i = 0; i < list_length(contents); i++)
	{
		const char *content = list_nth(contents, i);

		if (content == NULL)
			continue;
		values[3] = CStringGetTextDatum(copy->target->source->columns[i]);
		values[4] = CStringGetTextDatum(content);
		tuplestore_putvalues(copy->store, copy->desc, values, nulls);
	}
}

static void
copy_session(Copy *copy, const char *session, Snapshot snapshot)
{
	const Target *target = copy->target;
	List	   *key_values = NIL;
	List	   *contents = NIL;
	SourcePlace place;
	Relation	rel;
	TupleTableSlot *slot;

	get_place(target, session, &place);
	rel = table_open(place.table, AccessShareLock);
	slot = table_slot_create(rel, NULL);
	if (!table_tuple_fetch_row_version(rel, &place.tid, snapshot, slot))
		elog(ERROR, "a row of source %s that was locked is gone", target->source->name);
	if (copy->table != place.table)
		copy->key = require_row_key(target, place.table);
	copy->table = place.table;
	foreach_ptr(const char, column, copy->key)
		key_values = lappend(key_values, column_text(slot, rel, column));
	foreach_ptr(const char, column, target->columns)
		contents = lappend(contents, column_text(slot, rel, column));
	put_columns(copy, session, copy->key, key_values, contents);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
}

/* Copies rows on other nodes. */
static void
copy_keyed(void *arg)
{
	const Copy *copy = arg;
	const Target *target = copy->target;
	int			n_columns = list_length(target->columns);
	int			n = n_columns + list_length(target->key);
	StringInfoData sql;
	ActingAs	saved;

	initStringInfo(&sql);
	foreach_ptr(const char, name, list_concat_copy(target->columns, target->key))
		appendStringInfo(&sql, "%ss.%s", sql.len > 0 ? ", " : "SELECT ", quote_identifier(name));
	appendStringInfo(&sql, " FROM %s AS s WHERE %s", sources_name(target->table), key_condition(target->key, 1));
	act_as_table_owner(target, target->table, &saved);
	foreach_ptr(const char, session, copy->sessions)
	{
		List	   *contents = NIL;
		List	   *key_values = NIL;

		CHECK_FOR_INTERRUPTS();
		if (run_by_key(target, target->key, place_key(session), sql.data, NULL) != 1)
			elog(ERROR, "a row of source %s that was locked is gone", target->source->name);
		for (int i = 0; i < n_columns; i++)
			contents = lappend(contents, sql_text(0, i + 1));
		for (int i = n_columns; i < n; i++)
			key_values = lappend(key_values, sql_text(0, i + 1));
		put_columns(copy, session, target->key, key_values, contents);
	}
	role_stop_acting(&saved);
}

Tuplestorestate *
sources_copy_columns(const Source *source, List *sessions, TupleDesc *desc)
{
	static const SqlColumn columns[] = {
		{"session_id", TEXTOID}, {"key_columns", TEXTARRAYOID}, {"row_key", TEXTOID},
		{"column_name", TEXTOID}, {"value", TEXTOID}
	};
	Target		target;
	Copy		copy = {&target, sessions, tuplestore_begin_heap(true, false, work_mem)};
	Snapshot	snapshot;
	int			guc_level = NewGUCNestLevel();

	copy.desc = *desc = sql_row_desc(lengthof(columns), columns);
	brake_raise_if(find_target(source, &target));
	key_write_plainly();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (target.key != NIL)
		query_limit_time(source, 0, "gave up copying columns of source %s: the time for it is up", hint_slow_node,
						 copy_keyed, &copy);
	else
		foreach_ptr(const char, session, sessions)
			copy_session(&copy, session, snapshot);
	UnregisterSnapshot(snapshot);
	AtEOXact_GUC(false, guc_level);
	return copy.store;
}


/* ----------------------------------------------------------------- refill --- */

/* A row to be found by its key. */
typedef struct WantedRow
{
	SourcePlace place;			/* first member: see compare_places() */
	const char *key;
	const char *value;			/* value for the column */
	char	   *id;				/* what the caller calls the value */
	int			n_found;
} WantedRow;

typedef struct Refilling
{
	const Target *target;
	Datum		key_columns;	/* text[] */
	WantedRow  *rows;			/* sorted by key */
	int			n;
	List	   *written;		/* the ids of the values that were written */
} Refilling;

static int
compare_keys(const void *a, const void *b)
{
	return strcmp(((const WantedRow *) a)->key, ((const WantedRow *) b)->key);
}

static bool
look_for_key(const SourceRow *row, void *arg)
{
	Refilling  *refilling = arg;
	WantedRow	wanted;
	WantedRow  *found;
	List	   *values = NIL;

	for (int i = 0; i < row->source->n_columns; i++)
	{
		if (row->values[i] == NULL)
			return true;
		values = lappend(values, pnstrdup(row->values[i], row->lengths[i]));
	}
	wanted.key = key_text(values);
	found = bsearch(&wanted, refilling->rows, refilling->n, sizeof(WantedRow), compare_keys);
	if (found != NULL)
	{
		found->n_found++;
		if (!place_of_session(row->session, 0, &found->place))
			elog(ERROR, "a row of source %s has no place", row->source->name);
	}
	return true;
}

/* Finds the places of the rows by one reading of the table as its owner, and sorts the rows by them. */
static void
find_rows(Refilling *refilling)
{
	Oid			table = refilling->target->table;
	Source		key = {.relid = table,.name = sources_name(table),.owner = trust_owner(table)};

	key.columns = sql_texts(refilling->key_columns, &key.n_columns);
	sources_read(InvalidSnapshot, &key, SCAN_PLACES, 0, look_for_key, refilling);
	/* rows that were not found have no place, and come first */
	qsort(refilling->rows, refilling->n, sizeof(WantedRow), compare_places);
}

/*
 * Writes the value to the row of the table if the column still is NULL.  The
 * current role is the owner of the table.  Returns the number of rows.
 */
static int
refill_row(const Refilling *refilling, Oid table, const WantedRow *row)
{
	const Target *target = refilling->target;
	bool		is_keyed = target->key != NIL;
	List	   *columns = key_names(refilling->key_columns);
	char	   *sql = psprintf("UPDATE %1$s%2$s AS s SET %3$s = $1 WHERE %4$s AND s.%3$s IS NULL",
							   is_keyed ? "" : "ONLY ", sources_name(table), quote_identifier(linitial(target->columns)),
							   is_keyed ? key_condition(columns, 2) : "s.ctid OPERATOR(pg_catalog.=) $2");

	return is_keyed ? run_by_key(target, columns, row->key, sql, row->value) :
		run_on_table(target, table, sql, row->value, SQL_ARGS(SQL_VALUE(TIDOID, PointerGetDatum(&row->place.tid))));
}

/*
 * Raises an ERROR if `n`, the number of rows with the key, is greater than
 * one.
 */
static void
check_single(const Source *source, const char *key, int n)
{
	if (n > 1)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("several rows of source %s have the key %s", source->name, key)));
}

static void
refill_rows(void *arg)
{
	Refilling  *refilling = arg;
	const Target *target = refilling->target;
	Oid			acting = InvalidOid;
	ActingAs	saved;

	for (int i = 0; i < refilling->n; i++)
	{
		const WantedRow *row = &refilling->rows[i];
		Oid			table = target->key != NIL ? target->table : row->place.table;
		int			n;

		CHECK_FOR_INTERRUPTS();
		check_single(target->source, row->key, row->n_found);
		/* a row that was not found has no place */
		if (!OidIsValid(table))
			continue;
		if (table != acting)
		{
			if (OidIsValid(acting))
				role_stop_acting(&saved);
			act_as_table_owner(target, table, &saved);
			if (target->key != NIL)
				commit_in_two_phases(target);
		}
		acting = table;
		n = refill_row(refilling, table, row);
		check_single(target->source, row->key, n);
		if (n > 0)
			refilling->written = lappend(refilling->written, row->id);
	}
	if (OidIsValid(acting))
		role_stop_acting(&saved);
}

List *
sources_refill(const Source *source, const char *column, Datum key_columns, Datum row_keys, Datum values, Datum ids)
{
	Source		one = *source;
	Target		target;
	Refilling	refilling = {&target, key_columns};
	const char **keys = sql_texts(row_keys, &refilling.n);
	const char **texts = sql_texts(values, &refilling.n);
	const char **names = sql_texts(ids, &refilling.n);

	one.columns = &column;
	one.n_columns = 1;
	brake_raise_if(find_target(&one, &target));
	refilling.rows = palloc0(sizeof(WantedRow) * Max(refilling.n, 1));
	for (int i = 0; i < refilling.n; i++)
		refilling.rows[i] = (WantedRow)
	{
		.key = keys[i],.value = texts[i],.id = unconstify(char *, names[i])
	};
	qsort(refilling.rows, refilling.n, sizeof(WantedRow), compare_keys);
	if (target.key == NIL)
	{
		find_rows(&refilling);
		begin_undeferred();
	}
	query_limit_time(source, 0, "gave up filling columns of source %s: the time for it is up",
					 target.key != NIL ? hint_slow_node : hint_slow, refill_rows, &refilling);
	if (target.key == NIL)
		end_undeferred();
	return refilling.written;
}
