/*-------------------------------------------------------------------------
 *
 * sources/trust.c
 *	  Checks whose code runs, and with whose rights, when a source is read or
 *	  written.
 *
 * PostgreSQL runs the functions below a view, at any depth, as the role that
 * reads the view: here, the source's owner.  So each of these functions must
 * belong to a role that has the owner's rights anyway, because the owner of a
 * function can replace it at any time.  A superuser's source must not even read
 * a relation of a lesser role, which could add its own code there, in the
 * expression of an index or by turning a table into a view.
 *
 * The checks look at the very query that is run next, with its relations
 * locked, and not at the registration of the source.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/dependency.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_language.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/proclang.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "src/pg/compat.h"
#include "src/pg/extension.h"
#include "src/pg/session.h"
#include "src/pg/sql.h"
#include "src/sources/citus.h"
#include "src/sources/query.h"
#include "src/sources/sources.h"


/* ---------------------------------------------------------------- owners --- */

Oid
trust_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
	}
	return owner;
}

static Oid
function_owner(Oid function, Oid *language)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Oid			owner = InvalidOid;

	*language = InvalidOid;
	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
		*language = ((Form_pg_proc) GETSTRUCT(tuple))->prolang;
		ReleaseSysCache(tuple);
	}
	return owner;
}

/* Returns whether role `other` has the rights of `role` anyway. */
static bool
is_trusted(Oid other, Oid role)
{
	return OidIsValid(other) && has_privs_of_role(other, role);
}

static char *
function_text(Oid function)
{
	return format_procedure_extended(function, FORMAT_PROC_FORCE_QUALIFY | FORMAT_PROC_INVALID_AS_NULL);
}

static Brake *
refuse_role(const Source *source, char *what, Oid role, Oid other)
{
	char	   *owner = GetUserNameFromId(role, true);
	char	   *name = GetUserNameFromId(other, true);

	return brake_make("source", ERRCODE_INSUFFICIENT_PRIVILEGE,
					  psprintf("source %s of role \"%s\" %s, which belongs to role \"%s\"", source->name, owner, what, name),
					  psprintf("Code of role \"%s\" could run with the rights of role \"%s\".", name, owner),
					  psprintf("Give the source to that role: ALTER %s %s OWNER TO %s.",
							   get_rel_relkind(source->relid) == RELKIND_VIEW ? "VIEW" : "TABLE",
							   source->name, quote_identifier(name ? name : "...")));
}


/* ------------------------------------------------------------ the role that reads --- */

/*
 * the setting that was asked for, if only the session has that setting; NULL:
 * another property of the caller was asked for
 */
static const char *own_setting_asked = NULL;

/* Returns the detail of the error after one of the functions below has returned true. */
static char *
what_is_asked(void)
{
	if (own_setting_asked == NULL)
		return pstrdup("It asks for session_user, or for something else that is that of whoever calls.");
	return psprintf("It asks for setting %s, which this session has, and other sessions have not.", own_setting_asked);
}

/*
 * Returns the hint of that error, or `hint` if the error needs no special
 * hint.
 */
static const char *
hint_for_asked(const char *hint)
{
	if (own_setting_asked == NULL)
		return hint;
	return psprintf("Call in a new session, or give all sessions a value: ALTER DATABASE %s SET %s = '...'.",
					quote_identifier(get_database_name(MyDatabaseId)), own_setting_asked);
}

/*
 * Returns the brake of a view that asks for the caller.  Reading the view as
 * its owner does not help: the view still sees the role that has connected.
 */
static Brake *
asks_who_reads(const Source *source)
{
	return brake_make("source", ERRCODE_FEATURE_NOT_SUPPORTED,
					  psprintf("source %s shows other rows to others", source->name),
					  what_is_asked(), hint_for_asked(source_hint_readd));
}

/* settings that session_use_server_settings() cannot give the server's values */
static const char *const settings_of_caller[] = {"role", "session_authorization", "is_superuser", "application_name"};
static const char *const functions_of_caller[] = {
	"session_user", "system_user", "inet_client_addr", "inet_client_port",

	/*
	 * what the session has said, and has open; the last two are also below
	 * views of the server
	 */
	"current_query", "pg_cursor", "pg_prepared_statement"
};

/*
 * Returns whether the first `len` bytes of `name` are the name of a setting of
 * the caller; with NULL, for a name that only the running code knows, whether
 * it may be one.
 */
static bool
is_setting_of_caller(const char *name, size_t len)
{
	own_setting_asked = NULL;
	for (int i = 0; i < lengthof(settings_of_caller); i++)
		if (len == strlen(settings_of_caller[i]) && pg_strncasecmp(name, settings_of_caller[i], len) == 0)
			return true;
	own_setting_asked = session_own_setting(name, len);
	return own_setting_asked != NULL;
}

static bool
names_setting_of_caller(const Node *argument)
{
	const Const *constant = (const Const *) argument;
	char	   *name;

	if (!IsA(argument, Const) || constant->consttype != TEXTOID || constant->constisnull)
		return is_setting_of_caller(NULL, 0);
	name = TextDatumGetCString(constant->constvalue);
	return is_setting_of_caller(name, strlen(name));
}

static bool
is_call_about_caller(const FuncExpr *call)
{
	const char *name = get_func_namespace(call->funcid) == PG_CATALOG_NAMESPACE ? get_func_name(call->funcid) : NULL;

	if (name == NULL)
		return false;
	if (strcmp(name, "current_setting") == 0)
		return names_setting_of_caller(linitial(call->args));
	for (int i = 0; i < lengthof(functions_of_caller); i++)
		if (strcmp(name, functions_of_caller[i]) == 0)
			return true;
	return false;
}

static bool
asks_for_caller(const Node *node)
{
	own_setting_asked = NULL;
	return (IsA(node, SQLValueFunction) && ((const SQLValueFunction *) node)->op == SVFOP_SESSION_USER) ||
		(IsA(node, FuncExpr) && is_call_about_caller((const FuncExpr *) node));
}

static bool
asks_below(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	if (asks_for_caller(node))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, asks_below, arg, 0);
	return expression_tree_walker(node, asks_below, arg);
}

/*
 * Returns whether the arguments of current_setting() at `text` name a setting
 * of the caller, or may name such a setting.
 */
static bool
arguments_ask(const char *text)
{
	const char *name = text + strspn(text, " \t\r\n('");
	size_t		len = strcspn(name, "'");
	const char *rest = name + len;

	rest += strspn(rest, "' \t\r\n");
	if (is_setting_of_caller(name, len))
		return true;
	/* the name may be an expression */
	return (name == text || name[-1] != '\'' || (*rest != ',' && *rest != ')')) && is_setting_of_caller(NULL, 0);
}

/*
 * Returns whether the text of a body asks for the caller.  Looks for words,
 * because a function may be in any language.
 */
static bool
text_asks(const char *text)
{
	own_setting_asked = NULL;
	for (int i = 0; i < lengthof(functions_of_caller); i++)
		if (strcasestr(text, functions_of_caller[i]) != NULL)
			return true;
	while ((text = strcasestr(text, "current_setting")) != NULL)
	{
		text += strlen("current_setting");
		if (arguments_ask(text))
			return true;
	}
	return false;
}

/* Returns whether the body of the function asks for a property of the caller. */
static bool
function_asks_who_reads(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		asks;
	bool		isnull;
	Datum		body;

	if (!HeapTupleIsValid(tuple))
		return false;
	body = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosqlbody, &isnull);
	if (!isnull)
		asks = asks_below(stringToNode(TextDatumGetCString(body)), NULL);
	else
	{
		char	   *code = TextDatumGetCString(SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull));

		asks = text_asks(code);
		pfree(code);
	}
	ReleaseSysCache(tuple);
	return asks;
}


/* ----------------------------------------------------------------- watch --- */

/*
 * A check before the query is not enough.  An index, statistics, or a
 * constraint of a domain may be added after the check, without a lock that
 * conflicts with ours.  And a query does not show every function that it leads
 * to, such as the negator of an operator.  So a hook checks each function that
 * is not built in when the server looks the function up to run it.
 */
static TrustRules in_force = {InvalidOid};
static bool has_refused = false;
static Shadow shadow = {""};
static needs_fmgr_hook_type next_needs_hook = NULL;
static fmgr_hook_type next_hook = NULL;
static ExecutorStart_hook_type next_start_hook = NULL;
static object_access_hook_type next_access_hook = NULL;

/* Returns the ERROR level, and notes that an error of the watch is raised, because code of users may catch it. */
static int
refused(void)
{
	has_refused = true;
	return ERROR;
}

static const char only_permanent[] = "What a source shows or does must not depend on the session.";

/*
 * Raises an ERROR if the names in a function's text may lead to a table or
 * type in pg_temp.  Functions in C have no such text.
 */
static void
refuse_shadow(Oid function, Oid owner, Oid language)
{
	if (in_force.superusers_only || *shadow.name == '\0' || language == INTERNALlanguageId || language == ClanguageId ||
		(owner == BOOTSTRAP_SUPERUSERID && get_func_namespace(function) == PG_CATALOG_NAMESPACE))
		return;
	ereport(refused(),
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 shadow.is_table ? errmsg("table \"%s\" is temporary", shadow.name) :
			 errmsg("type \"%s\" is temporary", shadow.name),
			 errdetail("%s", only_permanent),
			 errhint("DISCARD TEMP, or call in another session: function %s may need another one of that name.",
					 function_text(function))));
}

static const char *const cannot_wait_there =
"A transaction that writes through another server cannot be waited for: a file could be deleted to which a row of it refers.";

/*
 * Returns whether the function reads other servers: a function of dblink, or
 * in the language plproxy.
 */
static bool
is_remote_function(Oid function, Oid language)
{
	Oid			dblink;

	if (language != ClanguageId)
		return language == get_language_oid("plproxy", true);
	dblink = get_extension_oid("dblink", true);
	return OidIsValid(dblink) && getExtensionOfObject(ProcedureRelationId, function) == dblink;
}

static void
refuse_function(Oid function)
{
	Oid			role = in_force.role;
	Oid			language;
	Oid			owner;

	if (in_force.same_for_all && function_asks_who_reads(function))
		ereport(refused(),
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("function %s returns other values to others", function_text(function)),
				 errdetail_internal("%s", what_is_asked()),
				 own_setting_asked != NULL ? errhint("%s", hint_for_asked(NULL)) : 0));
	if (!OidIsValid(role))
		return;
	owner = function_owner(function, &language);
	if (OidIsValid(owner) && GetUserId() == role &&
		!is_trusted(owner, in_force.superusers_only ? BOOTSTRAP_SUPERUSERID : role))
		ereport(refused(),
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("function %s belongs to role \"%s\"", function_text(function), GetUserNameFromId(owner, true)),
				 errdetail("It would run with the rights of role \"%s\".", GetUserNameFromId(role, true))));
	/* trust_check_query() sees only what the query itself calls */
	if (in_force.same_for_all && is_remote_function(function, language))
		ereport(refused(),
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("function %s reads another server", function_text(function)),
				 errdetail("%s", cannot_wait_there)));
	refuse_shadow(function, owner, language);
}

static bool
needs_watch(Oid function)
{
	refuse_function(function);
	return next_needs_hook != NULL && next_needs_hook(function);
}

/* Checks a function that has settings of its own: for such a function the server does not call needs_watch(). */
static void
watch_function(FmgrHookEventType event, FmgrInfo *function, Datum *arg)
{
	if (event == FHET_START)
		refuse_function(function->fn_oid);
	if (next_hook != NULL)
		next_hook(event, function, arg);
}

/*
 * Returns whether the function of the server takes or gives back locks of the
 * session, which no rollback undoes.
 */
static bool
locks_session(Oid function)
{
	static const char *const beginnings[] = {"pg_advisory_lock", "pg_try_advisory_lock", "pg_advisory_unlock"};
	char	   *name = get_func_namespace(function) == PG_CATALOG_NAMESPACE ? get_func_name(function) : NULL;

	for (int i = 0; name != NULL && i < lengthof(beginnings); i++)
		if (strncmp(name, beginnings[i], strlen(beginnings[i])) == 0)
			return true;
	return false;
}

/*
 * Keeps functions of a view or trigger from the advisory locks of the caller's
 * session: such a lock would stay, and a lock of the caller's own could be
 * given back.  The server does not call needs_watch() for its own functions.
 */
static void
watch_execution(ObjectAccessType access, Oid class, Oid object, int sub, void *arg)
{
	if (access == OAT_FUNCTION_EXECUTE && OidIsValid(in_force.role) && locks_session(object))
		ereport(refused(),
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("function %s may not change the locks of the session", function_text(object)),
				 errdetail("The session is that of whoever calls, and no rollback takes such a change back."),
				 errhint("A lock of pg_advisory_xact_lock() ends with the statement.")));
	if (next_access_hook != NULL)
		next_access_hook(access, class, object, sub, arg);
}

/* The hook is there only while a rule is in force, because the server calls it often. */
static void
watch_executions(bool on)
{
	if (on && object_access_hook != watch_execution)
	{
		next_access_hook = object_access_hook;
		object_access_hook = watch_execution;
	}
	else if (!on && object_access_hook == watch_execution)
		object_access_hook = next_access_hook;
}

/*
 * Keeps functions of a view or trigger from using a temporary table of the
 * caller.  Unless their search_path names pg_temp, pg_temp comes first, where
 * the caller can put a table of any name.  A view would then show rows of the
 * caller's choice, and a trigger could write rows into that table that the
 * caller may not read.
 */
static void
watch_query(QueryDesc *desc, int flags)
{
	if (OidIsValid(in_force.role) && !in_force.superusers_only)
		foreach_ptr(const RangeTblEntry, rte, desc->plannedstmt->rtable)
			if (OidIsValid(rte->relid) && get_rel_persistence(rte->relid) == RELPERSISTENCE_TEMP)
			ereport(refused(),
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("table \"%s\" is temporary", get_rel_name(rte->relid)),
					 errdetail("%s", only_permanent)));
	if (next_start_hook != NULL)
		next_start_hook(desc, flags);
	else
		standard_ExecutorStart(desc, flags);
}

void
sources_init(void)
{
	compiled_init();
	next_start_hook = ExecutorStart_hook;
	ExecutorStart_hook = watch_query;
	next_needs_hook = needs_fmgr_hook;
	needs_fmgr_hook = needs_watch;
	next_hook = fmgr_hook;
	fmgr_hook = watch_function;
}

/* Puts the rules into force.  Never raises an ERROR. */
static void
enforce(const TrustRules *rules)
{
	/*
	 * an expression that PL/pgSQL has evaluated in this transaction keeps the
	 * functions that it has looked up, and would run these functions without
	 * a look-up
	 */
	if (OidIsValid(rules->role))
		ResetPlanCache();
	in_force = *rules;
	compiled_watch(OidIsValid(in_force.role));
	extension_calls_others(OidIsValid(in_force.role));
	watch_executions(OidIsValid(in_force.role));
}

void
trust_run(const TrustRules *rules, void (*work) (void *arg), void *arg)
{
	TrustRules	before = in_force;
	List	   *cursors;

	compiled_begin(rules->role);
	cursors = session_list_cursors();
	has_refused = false;
	/* no ERROR from here on, so that the rules are set back */
	enforce(rules);
	session_shut_cursors(cursors, true);
	PG_TRY();
	{
		work(arg);
	}
	PG_FINALLY();
	{
		session_shut_cursors(cursors, false);
		enforce(&before);
	}
	PG_END_TRY();
}

bool
trust_has_refused(void)
{
	bool		before = has_refused;

	has_refused = false;
	return before;
}

void
trust_look_for_shadow(void)
{
	session_find_shadow(&shadow);
}


/* ---------------------------------------------------- functions of a query --- */

/* A search for the code that a statement runs, and the objects whose code it may run.  Each list has OIDs. */
typedef struct CodeSearch
{
	const Source *source;
	Brake	   *brake;
	List	   *functions;		/* functions that are not the server's own,
								 * and may consist of other functions, as an
								 * aggregate does */
	List	   *types;			/* domains that values are converted to, and
								 * types of operands; with their base and
								 * element types */
	List	   *relations;		/* relations with all attached objects */
	List	   *columns;		/* relations of which only the virtual columns
								 * count */
	bool		writing;		/* the statement writes to the relations */
} CodeSearch;

static Brake *
remote_brake(const Source *source, char *how)
{
	return source_brake(ERRCODE_FEATURE_NOT_SUPPORTED, psprintf("source %s %s", source->name, how),
						pstrdup(cannot_wait_there));
}

/* Returns the brake of a function that would run with the rights of `role`, which its owner lacks; NULL for InvalidOid. */
static Brake *
refuse_code(const Source *source, Oid function, Oid role)
{
	Oid			language;

	if (!OidIsValid(function))
		return NULL;
	return refuse_role(source, psprintf("runs function %s", function_text(function)), role,
					   function_owner(function, &language));
}

/* Judges a function of the query, for check_functions_in_node().  Returns true, which ends the search, with a brake. */
static bool
look_at_function(Oid function, void *arg)
{
	CodeSearch *search = arg;
	Oid			language;
	Oid			owner = function_owner(function, &language);

	if (get_func_namespace(function) == PG_CATALOG_NAMESPACE && owner == BOOTSTRAP_SUPERUSERID)
		return false;
	search->functions = list_append_unique_oid(search->functions, function);
	if (!is_trusted(owner, search->source->owner))
		search->brake = refuse_code(search->source, function, search->source->owner);
	else if (get_rel_relkind(search->source->relid) == RELKIND_VIEW && function_asks_who_reads(function))
		search->brake = asks_who_reads(search->source);
	else if (is_remote_function(function, language))
		search->brake = remote_brake(search->source,
									 psprintf("calls %s, which reads another server", function_text(function)));
	return search->brake != NULL;
}

static bool
look_at_operators(const SortGroupClause *clause, CodeSearch *search)
{
	return (OidIsValid(clause->eqop) && look_at_function(get_opcode(clause->eqop), search)) ||
		(OidIsValid(clause->sortop) && look_at_function(get_opcode(clause->sortop), search));
}

/*
 * Notes the types of operands: to estimate how many ranges match, the planner
 * calls the difference of their subtype.
 */
static void
note_operands(List *operands, CodeSearch *search)
{
	foreach_ptr(Node, operand, operands)
		search->types = list_append_unique_oid(search->types, exprType(operand));
}


/* ---------------------------------------------------- views of others --- */

/*
 * Returns whether the function of the server runs the query, or reads the
 * relation, that its argument names, and is not volatile: volatile functions
 * are refused anyway.
 */
static bool
runs_queries(Oid function, void *arg)
{
	char	   *name = get_func_name(function);

	return get_func_namespace(function) == PG_CATALOG_NAMESPACE && name != NULL && strstr(name, "_to_xml") != NULL;
}

static bool
has_query_runner(Node *node, void *arg)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, runs_queries, arg))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, has_query_runner, arg, 0);
	return expression_tree_walker(node, has_query_runner, arg);
}

/*
 * Refuses volatile functions in a view of another role, because they run with
 * the rights of the source's owner.  Even functions of the server may misuse
 * these rights: end the owner's sessions, read files, run a text.  Returns true
 * with a brake.
 */
static bool
check_view_code(Oid view, Query *query, CodeSearch *search)
{
	const Source *source = search->source;
	Oid			owner = trust_owner(view);

	if (get_rel_relkind(view) != RELKIND_VIEW || view == source->relid || is_trusted(owner, source->owner))
		return false;
	if (contain_volatile_functions((Node *) query) || has_query_runner((Node *) query, NULL))
		search->brake = refuse_role(source, psprintf("calls volatile functions in %s", sources_name(view)),
									source->owner, owner);
	return search->brake != NULL;
}

/* Looks at the views in FROM.  Until PostgreSQL 16, a view is among the relations of its own query. */
static bool
look_at_views(Query *query, CodeSearch *search)
{
	foreach_ptr(RangeTblEntry, rte, query->rtable)
	{
		if (OidIsValid(rte->relid) &&
			((rte->rtekind == RTE_RELATION && check_view_code(rte->relid, query, search)) ||
			 (rte->rtekind == RTE_SUBQUERY && check_view_code(rte->relid, rte->subquery, search))))
			return true;
	}
	return false;
}


/* -------------------------------------------------------- all of a query --- */

static bool
look_for_code(Node *node, void *arg)
{
	CodeSearch *search = arg;

	if (node == NULL)
		return false;
	if (check_functions_in_node(node, look_at_function, arg))
		return true;
	if (asks_for_caller(node))
		search->brake = asks_who_reads(search->source);
	if (search->brake != NULL)
		return true;
	if (IsA(node, SortGroupClause) && look_at_operators(castNode(SortGroupClause, node), arg))
		return true;
	if (IsA(node, SetOperationStmt) &&
		look_for_code((Node *) castNode(SetOperationStmt, node)->groupClauses, arg))
		return true;
	if (IsA(node, CoerceToDomain))
		search->types = list_append_unique_oid(search->types, castNode(CoerceToDomain, node)->resulttype);
	if (IsA(node, OpExpr))
		note_operands(castNode(OpExpr, node)->args, search);
	if (IsA(node, ScalarArrayOpExpr))
		note_operands(castNode(ScalarArrayOpExpr, node)->args, search);
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, look_for_code, arg, QTW_EXAMINE_SORTGROUP) ||
			look_at_views((Query *) node, search);
	return expression_tree_walker(node, look_for_code, arg);
}


/* -------------------------------------------------- functions of relations --- */

/*
 * Finds a function that an object of a CodeSearch depends on, and whose owner does
 * not have the rights of role $2.  The plan is kept, because a call asks
 * several times.
 */
static SqlKept attached_code_query = {
	"WITH RECURSIVE types(oid) AS ("
	"  (SELECT t FROM pg_catalog.unnest($4) t UNION SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE $3 AND a.attrelid = ANY ($1) AND NOT a.attisdropped)"
	"  UNION SELECT CASE t.typtype WHEN 'd' THEN t.typbasetype"
	"   WHEN 'm' THEN (SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngmultitypid = t.oid) ELSE t.typelem END"
	"   FROM types d JOIN pg_catalog.pg_type t ON t.oid = d.oid),"
	" objects(classid, objid) AS ("
	"  SELECT 'pg_catalog.pg_class'::regclass, r FROM pg_catalog.unnest($1) r"
	"  UNION ALL SELECT 'pg_catalog.pg_class'::regclass, i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid = ANY ($1)"
	"  UNION ALL SELECT 'pg_catalog.pg_constraint'::regclass, c.oid FROM pg_catalog.pg_constraint c"
	"   WHERE c.conrelid = ANY ($1) OR c.contypid IN (SELECT oid FROM types WHERE oid <> 0)"
	"  UNION ALL SELECT 'pg_catalog.pg_type'::regclass, oid FROM types WHERE oid <> 0"
	"  UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::regclass, s.oid FROM pg_catalog.pg_statistic_ext s WHERE s.stxrelid = ANY ($1)"
	"  UNION ALL SELECT 'pg_catalog.pg_attrdef'::regclass, d.oid FROM pg_catalog.pg_attrdef d"
	"   JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum"
	"   WHERE d.adrelid = ANY ($1) AND a.attgenerated <> '' OR d.adrelid = ANY ($6) AND a.attgenerated = 'v'"
	"  UNION ALL SELECT 'pg_catalog.pg_proc'::regclass, f FROM pg_catalog.unnest($5) f"
	"  UNION ALL SELECT 'pg_catalog.pg_trigger'::regclass, t.oid FROM pg_catalog.pg_trigger t WHERE $3 AND t.tgrelid = ANY ($1)"
	"  UNION ALL SELECT 'pg_catalog.pg_rewrite'::regclass, w.oid FROM pg_catalog.pg_rewrite w"
	"   WHERE $3 AND w.ev_class = ANY ($1) AND w.ev_type <> '1')"
	" SELECT p.oid FROM objects o"
	" JOIN pg_catalog.pg_depend d ON d.classid = o.classid AND d.objid = o.objid"
	" LEFT JOIN pg_catalog.pg_operator f ON d.refclassid = 'pg_catalog.pg_operator'::regclass AND f.oid = d.refobjid"
	" JOIN pg_catalog.pg_proc p ON p.oid = CASE WHEN d.refclassid = 'pg_catalog.pg_proc'::regclass THEN d.refobjid"
	"  ELSE f.oprcode END"
	" WHERE NOT pg_catalog.pg_has_role(p.proowner, $2, 'USAGE') LIMIT 1",
NULL};

/*
 * Returns the OID of a function that the objects depend on, directly or by an
 * operator, and whose owner does not have the rights of `role`; else InvalidOid.
 *
 * Code that is attached to a relation runs when a query on the relation is
 * planned and run (expressions of indexes, statistics and generated columns,
 * constraints), or only when the relation is written (triggers, rules,
 * constraints of its domains).  Only catalogs are read, because the server's
 * own caches would compute constant expressions.
 */
static Oid
find_attached_code(const CodeSearch *search, Oid role)
{
	if (search->relations == NIL && search->columns == NIL && search->types == NIL && search->functions == NIL)
		return InvalidOid;
	if (sql_query_kept(&attached_code_query,
					   SQL_ARGS(SQL_OIDS(search->relations), SQL_OID(OIDOID, role), SQL_BOOL(search->writing),
								SQL_OIDS(search->types), SQL_OIDS(search->functions), SQL_OIDS(search->columns))) == 0)
		return InvalidOid;
	return DatumGetObjectId(sql_value(0, 1));
}


/* ------------------------------------------------------------- relations --- */

static Brake *
check_relation_below(const Source *source, Oid relid, List *distributed)
{
	char		persistence = get_rel_persistence(relid);
	char		kind = get_rel_relkind(relid);
	Oid			owner = trust_owner(relid);
	bool		is_source = relid == source->relid;
	Brake	   *brake = NULL;

	if (list_member_oid(distributed, relid))
		brake = citus_can_ask() ? citus_check_table(source, relid) :
			remote_brake(source, is_source ? pstrdup("is distributed over several servers") :
						 psprintf("reads %s, which is distributed over several servers", sources_name(relid)));
	if (brake != NULL)
		return brake;
	if (kind == RELKIND_FOREIGN_TABLE && remote_can_ask(relid))
		brake = remote_check_table(source, relid);
	else if (!is_source &&
			 (persistence != RELPERSISTENCE_PERMANENT || kind == RELKIND_FOREIGN_TABLE || kind == RELKIND_MATVIEW))
		brake = source_brake(ERRCODE_WRONG_OBJECT_TYPE,
							 psprintf("source %s reads %s, which cannot be relied on",
									  source->name, sources_name(relid)),
							 "Unlogged and temporary tables, foreign tables and materialized views may lack rows.");
	if (brake != NULL)
		return brake;
	if (superuser_arg(source->owner) && !is_trusted(owner, source->owner))
		return refuse_role(source, psprintf("reads %s", sources_name(relid)), source->owner, owner);
	return NULL;
}

static SqlKept detached_query = {
	"SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhdetachpending AND i.inhparent = ANY ($1) LIMIT 1",
NULL};

/*
 * Returns a brake if a partition is being detached: DETACH PARTITION ...
 * CONCURRENTLY hides its rows at once, and may be cut short.
 */
static Brake *
check_detached(const SourceQuery *query)
{
	List	   *parents = NIL;
	const char *partition;
	const char *parent;

	foreach_oid(relid, query->tables)
		if (get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
		parents = lappend_oid(parents, relid);
	if (parents == NIL || sql_query_kept(&detached_query, SQL_ARGS(SQL_OIDS(parents))) == 0)
		return NULL;
	partition = sources_name(DatumGetObjectId(sql_value(0, 1)));
	parent = sources_name(DatumGetObjectId(sql_value(0, 2)));
	return brake_make("source", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
					  psprintf("source %s lacks partition %s, which is being detached", query->source->name, partition),
					  "Its rows cannot be read through the source, and may refer to files.",
					  psprintf("Register the partition itself, if its rows are to protect files; then wait for the end of the command, or ALTER TABLE %s DETACH PARTITION %s FINALIZE.",
							   parent, partition));
}

/*
 * Returns the relations whose attached code needs a look: for a superuser's
 * source all, else the relations of other roles.
 */
static List *
relations_with_code(const Source *source, List *relations)
{
	List	   *others = NIL;

	foreach_oid(relid, relations)
		if (get_rel_namespace(relid) != PG_CATALOG_NAMESPACE &&
			(superuser_arg(source->owner) || !is_trusted(trust_owner(relid), source->owner)))
		others = lappend_oid(others, relid);
	return others;
}

/* Returns the relations that have a column which is computed when it is read. */
static List *
relations_with_virtual_columns(List *relations)
{
	List	   *found = NIL;

	foreach_oid(relid, relations)
	{
		Relation	rel = relation_open(relid, NoLock);

		for (int i = 0; i < RelationGetNumberOfAttributes(rel); i++)
			if (TupleDescAttr(RelationGetDescr(rel), i)->attgenerated == 'v')
				found = list_append_unique_oid(found, relid);
		relation_close(rel, NoLock);
	}
	return found;
}

Brake *
trust_check_query(const SourceQuery *query)
{
	CodeSearch	search = {.source = query->source};
	Oid			owner = query->source->owner;
	List	   *relations = list_concat_copy(query->tables, query->views);
	List	   *distributed = citus_list_tables();

	foreach_oid(relid, relations)
	{
		Brake	   *brake = check_relation_below(query->source, relid, distributed);

		if (brake != NULL)
			return brake;
	}
	if (look_for_code((Node *) query->query, &search))
		return search.brake;
	if ((search.brake = remote_check_owners(query)) != NULL ||
		(search.brake = check_detached(query)) != NULL)
		return search.brake;
	if (search.functions != NIL && citus_has_any(relations))
		return source_brake(ERRCODE_FEATURE_NOT_SUPPORTED,
							psprintf("source %s reads distributed tables and calls %s", query->source->name,
									 function_text(linitial_oid(search.functions))),
							"On another node the function of that name may be that of somebody else.");
	search.relations = relations_with_code(query->source, relations);
	search.columns = relations_with_virtual_columns(relations);
	return refuse_code(query->source, find_attached_code(&search, owner), owner);
}

/*
 * Returns the OID of a function that a trigger for UPDATE calls, and whose
 * owner does not have the rights of `role`; else InvalidOid.  A role with the
 * TRIGGER privilege may have added the trigger.  The owner of the table has
 * not asked for our UPDATE, so the UPDATE must not run functions of other
 * roles as the owner.
 */
static Oid
find_trigger_function(Oid table, Oid role)
{
	if (sql_query_latest(SQL_ARGS(SQL_OID(OIDOID, table), SQL_OID(OIDOID, role)),
						 "SELECT p.oid FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid"
						 " WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 16 <> 0"
						 " AND NOT pg_catalog.pg_has_role(p.proowner, $2, 'USAGE') LIMIT 1") == 0)
		return InvalidOid;
	return DatumGetObjectId(sql_value(0, 1));
}

Brake *
trust_check_update(const Source *source, Oid table, Oid role)
{
	const CodeSearch search = {.relations = list_make1_oid(table),.writing = true};
	Oid			function = superuser_arg(role) ? find_attached_code(&search, role) : find_trigger_function(table, role);
	Brake	   *brake = refuse_code(source, function, role);

	if (brake != NULL)
		brake->hint = psprintf("Give the function to that role, drop what calls it, or register the source with on_failed => 'keep': ALTER FUNCTION %s OWNER TO %s.",
							   function_text(function), quote_identifier(GetUserNameFromId(role, false)));
	return brake;
}
