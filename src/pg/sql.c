/*-------------------------------------------------------------------------
 *
 * pg/sql.c
 *	  Runs a statement of our own through SPI, in one call.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parsetree.h"
#include "utils/array.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "src/pg/compat.h"
#include "src/pg/role.h"
#include "src/pg/sql.h"

/* ----------------------------------------------------------------- guard --- */

/*
 * The relations and functions that the statement being analyzed may name.
 * The hook knows the statement by its text: a statement that a function runs
 * meanwhile has another text.
 */
typedef struct Guard
{
	const char *sql;
	Oid			member_of;		/* OID of an extension, or InvalidOid */
	Oid			relation;		/* OID of a relation, or InvalidOid */
	bool		latest;			/* read under the latest snapshot, in every
								 * isolation level */
	bool		checked;
	SqlKept    *kept;			/* NULL: the plan is not kept */
	struct Guard *outer;
} Guard;

static Guard *guard = NULL;
static post_parse_analyze_hook_type next_hook = NULL;

static bool
is_member(Oid class, Oid object, const Guard *allowed)
{
	return OidIsValid(allowed->member_of) &&
		getExtensionOfObject(class, object) == allowed->member_of;
}

/*
 * Returns whether the function is missing, or belongs to a role that is not a
 * superuser.  A callback of check_functions_in_node().
 */
static bool
is_others_function(Oid function, void *arg)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		result = !HeapTupleIsValid(tuple) || !superuser_arg(((Form_pg_proc) GETSTRUCT(tuple))->proowner);

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

/* Returns whether the expression may call functions of a role that is not a superuser; a domain has its own. */
static bool
may_call_others(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	if (IsA(node, CoerceToDomain) || check_functions_in_node(node, is_others_function, NULL))
		return true;
	return expression_tree_walker(node, may_call_others, arg);
}

/*
 * Returns whether the trigger may run code of a role that is not a superuser:
 * its function, its condition, or by a foreign key of another table the triggers
 * of that table.
 */
static bool
may_run_others(const Trigger *trigger, const Guard *allowed)
{
	return trigger->tgenabled != TRIGGER_DISABLED &&
		(is_others_function(trigger->tgfoid, NULL) ||
		 (trigger->tgqual != NULL && may_call_others(stringToNode(trigger->tgqual), NULL)) ||
		 (OidIsValid(trigger->tgconstrrelid) && !is_member(RelationRelationId, trigger->tgconstrrelid, allowed)));
}

/*
 * Refuses to write to a table of the extension that has such a trigger.  A role
 * with the privilege TRIGGER or REFERENCES, which GRANT ALL and default
 * privileges include, may have added the trigger, which would run with the
 * rights of the extension's owner.
 */
static void
check_triggers(Oid relation, const Guard *allowed)
{
	Relation	rel = relation_open(relation, NoLock);

	/* a copy, because a look into the catalogs may replace the descriptor */
	const TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);

	relation_close(rel, NoLock);
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (may_run_others(&triggers->triggers[i], allowed))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("trigger \"%s\" on table \"%s\" may run code of a role that is not a superuser",
							triggers->triggers[i].tgname, get_rel_name(relation)),
					 errdetail("The code would run with the rights of the owner of extension \"%s\".", EXTENSION_NAME),
					 errhint("Drop the trigger, or the foreign key that refers to the table, and revoke the privileges TRIGGER and REFERENCES on the table from other roles than its owner.")));
}

static void
check_member(Oid relation, const Guard *allowed)
{
	if (relation == allowed->relation ||
		get_rel_namespace(relation) == PG_CATALOG_NAMESPACE ||
		is_member(RelationRelationId, relation, allowed))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("relation \"%s\" with OID %u is not the expected one",
					get_rel_name(relation), relation),
			 errdetail("A schema or relation was renamed, and another one was put in its place."),
			 errhint("Find out who did that before you try again.")));
}

/*
 * Returns whether the function belongs neither to pg_catalog nor to the
 * extension.  A callback of check_functions_in_node().
 */
static bool
is_foreign_function(Oid function, void *arg)
{
	return get_func_namespace(function) != PG_CATALOG_NAMESPACE &&
		!is_member(ProcedureRelationId, function, arg);
}

static bool
check_node(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		if (castNode(RangeTblEntry, node)->rtekind == RTE_RELATION)
			check_member(castNode(RangeTblEntry, node)->relid, arg);
		return false;
	}
	if (check_functions_in_node(node, is_foreign_function, arg))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("a function is not the expected one"),
				 errdetail("A schema or function was renamed, and another one was put in its place."),
				 errhint("Find out who did that before you try again.")));
	if (IsA(node, Query))
	{
		const Query *query = (const Query *) node;
		Oid			target = query->resultRelation == 0 ? InvalidOid : rt_fetch(query->resultRelation, query->rtable)->relid;

		if (OidIsValid(target) && is_member(RelationRelationId, target, arg))
			check_triggers(target, arg);
		return query_tree_walker((Query *) node, check_node, arg, QTW_EXAMINE_RTES_BEFORE);
	}
	return expression_tree_walker(node, check_node, arg);
}

static void
check_statement(ParseState *pstate, Query *query, COMPAT_JUMBLE_STATE * jumble)
{
	if (guard != NULL && strcmp(pstate->p_sourcetext, guard->sql) == 0)
	{
		(void) check_node((Node *) query, guard);
		guard->checked = true;
	}
	if (next_hook)
		next_hook(pstate, query, jumble);
}

void
sql_init(void)
{
	next_hook = post_parse_analyze_hook;
	post_parse_analyze_hook = check_statement;
}

/*
 * Prepares the statement of the guard, unless its plan is kept.  The guard
 * stays in force while the plan runs, because an invalidated plan is made from
 * its text again.
 */
static SPIPlanPtr
prepare_guarded(Guard *mine, int n, const SqlParameter *parameters)
{
	Oid		   *types = palloc(sizeof(Oid) * Max(n, 1));
	SPIPlanPtr	plan;

	if (mine->kept != NULL && mine->kept->plan != NULL)
		return mine->kept->plan;
	for (int i = 0; i < n; i++)
		types[i] = parameters[i].type;
	plan = SPI_prepare_cursor(mine->sql, n, types, mine->kept != NULL ? CURSOR_OPT_GENERIC_PLAN : 0);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", mine->sql, SPI_result_code_string(SPI_result));
	if (!mine->checked)
		elog(ERROR, "a statement was not checked: another library has taken post_parse_analyze_hook away");
	if (mine->kept != NULL)
	{
		(void) SPI_keepplan(plan);
		mine->kept->plan = plan;
	}
	return plan;
}


/* ------------------------------------------------------------- statements --- */

/*
 * Returns NULL if there are no parameters: Citus 13 copies every list, and
 * crashes if the list is empty.
 */
static ParamListInfo
values_of(int n, const SqlParameter *parameters)
{
	ParamListInfo list;

	if (n == 0)
		return NULL;
	list = makeParamList(n);
	for (int i = 0; i < n; i++)
	{
		list->params[i].ptype = parameters[i].type;
		list->params[i].value = parameters[i].value;
		list->params[i].isnull = parameters[i].isnull;
		list->params[i].pflags = PARAM_FLAG_CONST;
	}
	return list;
}

/*
 * Runs the statement of the guard, frees the rows of the statement before, and
 * restores the memory context of the caller, which SPI changes.  No name in the
 * statement, of a type for example, is looked up by the caller's search_path.
 */
static int
query_guarded(Guard *mine, int n, const SqlParameter *parameters, DestReceiver *receiver)
{
	MemoryContext caller = CurrentMemoryContext;
	SPITupleTable *before = SPI_tuptable;
	int			guc_level = NewGUCNestLevel();

	role_search_plainly();
	mine->outer = guard;
	guard = mine;
	PG_TRY();
	{
		SPIPlanPtr	plan = prepare_guarded(mine, n, parameters);

		/* with read_only, SPI takes the active snapshot */
		SPIExecuteOptions options = {.params = values_of(n, parameters),.dest = receiver,.read_only = mine->latest};
		int			rc;

		if (mine->latest)
			PushActiveSnapshot(GetLatestSnapshot());
		rc = SPI_execute_plan_extended(plan, &options);
		if (rc < 0)
			elog(ERROR, "could not execute a statement: %s", SPI_result_code_string(rc));
		if (mine->latest)
			PopActiveSnapshot();
		if (mine->kept == NULL)
			SPI_freeplan(plan);
	}
	PG_FINALLY();
	{
		guard = mine->outer;
	}
	PG_END_TRY();
	SPI_freetuptable(before);
	AtEOXact_GUC(false, guc_level);
	MemoryContextSwitchTo(caller);
	return (int) SPI_processed;
}

int
sql_query_members(Oid member_of, int n, const SqlParameter *parameters, const char *sql)
{
	Guard		mine = {.sql = sql,.member_of = member_of};

	return query_guarded(&mine, n, parameters, NULL);
}

int
sql_query(int n, const SqlParameter *parameters, const char *sql)
{
	return sql_query_members(InvalidOid, n, parameters, sql);
}

int
sql_query_latest(int n, const SqlParameter *parameters, const char *sql)
{
	Guard		mine = {.sql = sql,.latest = true};

	CommandCounterIncrement();
	return query_guarded(&mine, n, parameters, NULL);
}

int
sql_query_kept(SqlKept *kept, int n, const SqlParameter *parameters)
{
	Guard		mine = {.sql = kept->sql,.latest = true,.kept = kept};

	CommandCounterIncrement();
	return query_guarded(&mine, n, parameters, NULL);
}

char *
sql_replace(const char *sql, const char *mark, const char *name)
{
	return TextDatumGetCString(DirectFunctionCall3Coll(replace_text, C_COLLATION_OID, CStringGetTextDatum(sql),
													   CStringGetTextDatum(mark), CStringGetTextDatum(name)));
}

char *
sql_name_schema(const Extension *extension, const char *sql)
{
	return sql_replace(sql, "@extschema@", extension_schema(extension));
}

/* With `guide`, which may be NULL, the planner is guided by settings that the function sets. */
static int
query_as_owner(const Extension *extension, int n, const SqlParameter *parameters,
			   const char *sql, DestReceiver *receiver, void (*guide) (void))
{
	Guard		mine = {.sql = sql_name_schema(extension, sql),.member_of = extension->oid};
	ActingAs	saved;
	int			rows;

	role_act_as(extension->owner, &saved);
	if (guide != NULL)
		guide();
	rows = query_guarded(&mine, n, parameters, receiver);
	role_stop_acting(&saved);
	return rows;
}

int
owner_query(const Extension *extension, int n, const SqlParameter *parameters, const char *sql)
{
	return query_as_owner(extension, n, parameters, sql, NULL, NULL);
}

int
owner_query_by_hash(const Extension *extension, int n, const SqlParameter *parameters, const char *sql)
{
	return query_as_owner(extension, n, parameters, sql, NULL, role_join_by_hash);
}

void
owner_query_into(const Extension *extension, int n, const SqlParameter *parameters,
				 const char *sql, DestReceiver *receiver)
{
	(void) query_as_owner(extension, n, parameters, sql, receiver, NULL);
}

/*
 * The planner believes that a scan of a table comes to a first row soon.  If
 * there is no row, that scan reads the whole history.
 */
static void
use_indexes(void)
{
	role_set_for_now("enable_seqscan", "off");
}

static void
do_not_sort(void)
{
	role_set_for_now("enable_sort", "off");
}

int
owner_query_in_order(const Extension *extension, int n, const SqlParameter *parameters, const char *sql)
{
	return query_as_owner(extension, n, parameters, sql, NULL, do_not_sort);
}

bool
owner_finds(const Extension *extension, int n, const SqlParameter *parameters, const char *sql)
{
	return query_as_owner(extension, n, parameters, sql, NULL, use_indexes) > 0;
}

Datum
owner_value(const Extension *extension, int n, const SqlParameter *parameters, const char *sql)
{
	Form_pg_attribute column;

	if (owner_query(extension, n, parameters, sql) == 0 || sql_is_null(0, 1))
		return 0;
	column = TupleDescAttr(SPI_tuptable->tupdesc, 0);
	return datumCopy(sql_value(0, 1), column->attbyval, column->attlen);
}

List *
owner_texts(const Extension *extension, int n, const SqlParameter *parameters, const char *sql)
{
	int			rows = owner_query(extension, n, parameters, sql);
	List	   *texts = NIL;

	for (int i = 0; i < rows; i++)
		texts = lappend(texts, sql_text(i, 1));
	return texts;
}

int
sql_query_on(Oid relation, int n, const SqlParameter *parameters, const char *sql)
{
	Guard		mine = {.sql = sql,.relation = relation};

	return query_guarded(&mine, n, parameters, NULL);
}


/* ------------------------------------------------------------------- rows --- */

TupleDesc
sql_row_desc(int n, const SqlColumn *columns)
{
	TupleDesc	desc = CreateTemplateTupleDesc(n);

	for (int i = 0; i < n; i++)
		TupleDescInitEntry(desc, i + 1, columns[i].name, columns[i].type, -1, 0);
	compat_finish_row_desc(desc);
	return desc;
}


Datum
sql_int8_array(const int64 *values, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(values[i]);
	return PointerGetDatum(construct_array(elements, n, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

Datum
sql_oid_array(const List *oids)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(list_length(oids), 1));
	int			n = 0;

	foreach_oid(oid, oids)
		elements[n++] = ObjectIdGetDatum(oid);
	return PointerGetDatum(construct_array(elements, n, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}

Datum
sql_text_array(const List *texts)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(list_length(texts), 1));
	int			n = 0;

	foreach_ptr(const char, text, texts)
		elements[n++] = CStringGetTextDatum(text);
	return PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT));
}

const char **
sql_texts(Datum array, int *n)
{
	Datum	   *elements;
	const char **texts;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, n);
	texts = palloc(sizeof(char *) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		texts[i] = TextDatumGetCString(elements[i]);
	return texts;
}


/* ----------------------------------------------------------------- errors --- */

ErrorData *
sql_catch(MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	return error;
}

/*
 * Returns a copy of the text that lasts as long as the process.  Each text is
 * copied once, so there are at most as many copies as places in the source
 * code that raise errors.
 */
static const char *
keep(const char *text)
{
	static List *kept = NIL;
	MemoryContext caller;

	if (text == NULL)
		return NULL;
	foreach_ptr(char, known, kept)
		if (strcmp(known, text) == 0)
		return known;
	caller = MemoryContextSwitchTo(TopMemoryContext);
	kept = lappend(kept, pstrdup(text));
	MemoryContextSwitchTo(caller);
	return llast(kept);
}

/*
 * ReThrowError() copies the texts that were made for the error, but not
 * constants of the source code.  In a copied error, these constants are in the
 * memory context of the copy.
 */
void
sql_rethrow(ErrorData *error)
{
	error->filename = keep(error->filename);
	error->funcname = keep(error->funcname);
	error->domain = keep(error->domain);
	error->context_domain = keep(error->context_domain);
	error->message_id = keep(error->message_id);
	ReThrowError(error);
}

/* Returns whether a function in a procedural language has raised the error: its SQLSTATE and texts may be any. */
static bool
is_raised_by_code(const ErrorData *error)
{
	return error->domain != NULL && strncmp(error->domain, "postgres", strlen("postgres")) != 0;
}

bool
sql_tells_of_rows(const ErrorData *error)
{
	if (is_raised_by_code(error))
		return true;
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_DATA_EXCEPTION:
			return error->sqlerrcode != ERRCODE_DIVISION_BY_ZERO;	/* its text never has a
																	 * value */
		case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:
		case ERRCODE_PLPGSQL_ERROR:
		case ERRCODE_CONNECTION_EXCEPTION:	/* of a user mapping */
			return true;
		case ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION:
			/* a value may be taken for a name, as by a cast to regclass */
			return error->sqlerrcode != ERRCODE_INSUFFICIENT_PRIVILEGE;
	}
	return false;
}

void
sql_hide_rows(ErrorData *error)
{
	/*
	 * the message of a violated constraint has the name of the constraint,
	 * and the detail has the row; the detail of a connection's error has the
	 * host and the role of the connection
	 */
	if (is_raised_by_code(error) ||
		(ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION &&
		 ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_CONNECTION_EXCEPTION))
		error->message = psprintf("error %s", unpack_sql_state(error->sqlerrcode));
	error->detail = pstrdup("The server log has the whole text.");
	error->hint = NULL;
	error->context = NULL;
}

bool
sql_is_of_statement(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return false;
	}
	return true;
}

/*
 * Does the work in a subtransaction, which is kept only if `keep` and without
 * an ERROR.  Returns the ERROR, or NULL.
 */
static ErrorData *
work_in_subtransaction(void (*work) (void *arg), void *arg, bool keep)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	volatile bool kept = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		work(arg);
		if (keep)
		{
			ReleaseCurrentSubTransaction();
			kept = true;
		}
	}
	PG_CATCH();
	{
		error = sql_catch(caller);
	}
	PG_END_TRY();
	if (!kept)
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	return error;
}

/* Raises the error again if the statement has not caused it; else returns `error`. */
static ErrorData *
pass_on(ErrorData *error)
{
	if (error != NULL && !sql_is_of_statement(error))
		sql_rethrow(error);
	return error;
}

ErrorData *
sql_try(void (*work) (void *arg), void *arg)
{
	return pass_on(work_in_subtransaction(work, arg, true));
}

ErrorData *
sql_try_all(void (*work) (void *arg), void *arg)
{
	return work_in_subtransaction(work, arg, true);
}

ErrorData *
sql_undo(void (*work) (void *arg), void *arg)
{
	return pass_on(work_in_subtransaction(work, arg, false));
}

Datum
sql_value(int row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? (Datum) 0 : value;
}

bool
sql_is_null(int row, int column)
{
	bool		isnull;

	(void) SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);
	return isnull;
}

char *
sql_text(int row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

Datum
sql_array(int row, int column)
{
	return PointerGetDatum(DatumGetArrayTypePCopy(sql_value(row, column)));
}

void
sql_show_tuplestore(const char *name, Tuplestorestate *store, TupleDesc desc)
{
	EphemeralNamedRelation relation = SPI_palloc(sizeof(EphemeralNamedRelationData));
	MemoryContext caller;
	int			rc;

	/*
	 * SPI keeps its list of relations in the current context, which must last
	 */
	caller = MemoryContextSwitchTo(GetMemoryChunkContext(relation));
	memset(relation, 0, sizeof(*relation));
	relation->md.name = pstrdup(name);
	relation->md.reliddesc = InvalidOid;
	relation->md.tupdesc = desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = tuplestore_tuple_count(store);
	relation->reldata = store;

	/*
	 * one of the same name may be left, also of a call that an ERROR has
	 * ended
	 */
	(void) SPI_unregister_relation(name);
	rc = SPI_register_relation(relation);
	if (rc != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register \"%s\": %s", name, SPI_result_code_string(rc));
	MemoryContextSwitchTo(caller);
}
