/*-------------------------------------------------------------------------
 *
 * sources/remote.c
 *	  Waits for writers on other servers, reached by postgres_fdw or Citus.
 *
 * The rows of such a source are read through postgres_fdw or Citus like the
 * rows of any table.  But the locks of its writers are on the other server.
 * So that server is asked for the transactions that have locks, and is asked
 * again until these transactions have ended.  Only then are the rows read.
 *
 * The nodes of Citus are asked through Citus: see citus.c.  Other servers are
 * asked through dblink, for three reasons.  A question must not use the
 * connection of postgres_fdw, which has one snapshot for the whole local
 * transaction: the answer would be as old as the first question.  dblink
 * connects with the user mapping of the role that may read the table anyway,
 * so this code sees no password, and no role gains a right.  And dblink can
 * send a question without waiting, so a server that does not answer can be
 * given up.
 *
 * Because of the one snapshot of that connection, rows are read for a decision
 * only once in a transaction, and only in a transaction that the extension has
 * begun: see remote_note_reading().
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "src/pg/compat.h"
#include "src/pg/lock.h"
#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/pg/time.h"
#include "src/sources/citus.h"
#include "src/sources/query.h"
#include "src/sources/sources.h"

/*
 * milliseconds between two looks at an answer that is still to come, and at
 * writers that still work
 */
#define ANSWER_POLL_MS	5
#define WRITER_POLL_MS	50

/* name of the wait event in between */
#define REMOTE_WAIT		"AudioCleanupRemoteWait"

/*
 * for writers on a node of Citus, to which each question connects anew, the
 * time doubles up to this limit
 */
#define WRITER_POLL_MAX_MS	800

/* milliseconds that a server has for an answer, at least */
#define ANSWER_MS		5000

/* milliseconds that a node of Citus has for the connection and the answer, at least */
#define NODE_ANSWER_MS	15000

/* largest connect_timeout in seconds: a connection that is being made cannot be cancelled everywhere */
#define CONNECT_SECONDS_MAX	60


/* ---------------------------------------------------------------- tables --- */

/* Returns the value of an option, or NULL. */
static const char *
find_option(List *options, const char *name)
{
	foreach_ptr(DefElem, option, options)
		if (strcmp(option->defname, name) == 0)
		return defGetString(option);
	return NULL;
}

/* Returns the name of the foreign table on its server, in the spelling of postgres_fdw. */
static const char *
remote_name(Oid relid)
{
	List	   *options = GetForeignTable(relid)->options;
	const char *schema = find_option(options, "schema_name");
	const char *name = find_option(options, "table_name");

	return quote_qualified_identifier(schema ? schema : get_namespace_name(get_rel_namespace(relid)),
									  name ? name : get_rel_name(relid));
}

/* Returns the foreign tables of the query, and the placements of each relation that Citus distributes. */
static List *
find_tables(const SourceQuery *query)
{
	foreach_ptr(RemoteTable, table, query->foreign)
		table->name = remote_name(table->relid);
	return list_concat_copy(query->foreign, citus_find_placements(query));
}


/* ----------------------------------------------------------------- checks --- */

bool
remote_can_ask(Oid relid)
{
	Oid			extension = get_extension_oid("postgres_fdw", true);

	return OidIsValid(extension) &&
		getExtensionOfObject(ForeignDataWrapperRelationId,
							 GetForeignServer(GetForeignTable(relid)->serverid)->fdwid) == extension;
}

static Brake *
cannot_ask(const Source *source, Oid relid, char *why, const char *hint)
{
	return brake_make("source", ERRCODE_FEATURE_NOT_SUPPORTED,
					  psprintf("source %s reads %s on server \"%s\", which cannot be asked who writes there",
							   source->name, sources_name(relid),
							   GetForeignServer(GetForeignTable(relid)->serverid)->servername),
					  why, hint);
}

/* Returns the number of items, separated by commas, of an option; 1 without the option. */
static int
count_items(List *options, const char *name)
{
	int			n = 1;

	for (const char *c = find_option(options, name); c != NULL && *c != '\0'; c++)
		n += *c == ',' ? 1 : 0;
	return n;
}

/*
 * Returns whether the time to connect is limited.  connect_timeout holds for
 * each host of a list; 0 and less means no limit.
 */
static bool
is_connecting_limited(List *options)
{
	int			hosts = Max(count_items(options, "host"), count_items(options, "hostaddr"));
	long		seconds = strtol(find_option(options, "connect_timeout"), NULL, 10);

	return seconds > 0 && seconds <= CONNECT_SECONDS_MAX / hosts;
}

Brake *
remote_check_table(const Source *source, Oid relid)
{
	ForeignServer *server = GetForeignServer(GetForeignTable(relid)->serverid);
	bool		has_timeout = find_option(server->options, "connect_timeout") != NULL;

	if (!OidIsValid(get_extension_oid("dblink", true)))
		return cannot_ask(source, relid, "The extension dblink is not installed in this database.",
						  "Install it: CREATE EXTENSION dblink;");
	if (!has_timeout || !is_connecting_limited(server->options))
		return cannot_ask(source, relid,
						  !has_timeout ? pstrdup("The server has no connect_timeout: a run could wait for it for minutes, and could not be cancelled.") :
						  psprintf("Its connect_timeout is no limit: it must be from 1 to %d seconds, for all hosts together.",
								   CONNECT_SECONDS_MAX),
						  psprintf("Set it: ALTER SERVER %s OPTIONS (%s connect_timeout '5');",
								   quote_identifier(server->servername), has_timeout ? "SET" : "ADD"));
	if (source->status_column == NULL)
		return NULL;
	return brake_make("source", ERRCODE_FEATURE_NOT_SUPPORTED,
					  psprintf("source %s has failed sessions and reads %s, which lies on another server",
							   source->name, sources_name(relid)),
					  "Failed sessions are judged under a lock, which cannot be held on another server until the files are gone.",
					  "Register a view that has no such status column; tables that lie here may be sources of their own.");
}

/*
 * A superuser must not read a table on a server that a lesser role owns.  The
 * owner of a server sets the address and the user mappings of the server.  For
 * a superuser, postgres_fdw connects without a password, for example to this
 * very server: so code of the owner could run as a superuser.
 */
Brake *
remote_check_owners(const SourceQuery *query)
{
	foreach_ptr(const RemoteTable, table, query->foreign)
	{
		const ForeignServer *server = GetForeignServer(table->server);

		if (superuser_arg(table->role) && !has_privs_of_role(server->owner, table->role))
			return brake_make("source", ERRCODE_INSUFFICIENT_PRIVILEGE,
							  psprintf("source %s reads %s as superuser \"%s\" on server \"%s\", which belongs to role \"%s\"",
									   query->source->name, sources_name(table->relid), GetUserNameFromId(table->role, true),
									   server->servername, GetUserNameFromId(server->owner, true)),
							  "Who owns a server says where it is, and with which user mapping it is read.",
							  psprintf("Give the server to a superuser: ALTER SERVER %s OWNER TO CURRENT_USER; or the source to another role.",
									   quote_identifier(server->servername)));
	}
	return NULL;
}


/* ------------------------------------------------------------------- link --- */

/* A server, or a node of Citus, with the tables on it that are read as one role. */
typedef struct RemoteServer
{
	const RemoteTable *first;	/* of `tables` */
	const char *name;			/* NULL: a node */
	const char *what;			/* kind and name, for a message */
	List	   *tables;			/* of RemoteTable */

	/* set while the server is asked */
	const char *link;			/* name of the connection */
	FmgrInfo	list_links;		/* dblink_get_connections() */
	FmgrInfo	hang_up;		/* dblink_disconnect(text) */
	const char *question;		/* question to a node of Citus, */
	List	   *answer;			/* and its answer, of RemoteRow */
	bool		wait;			/* wait for writers, */
	int64		until;			/* until then, by time_monotonic_us() */
	Brake	   *brake;			/* what is wrong with a table there */
} RemoteServer;

#define LINK(server)	SQL_TEXT((server)->link)

/* Runs a statement that calls functions of dblink.  The text says @dblink@ for the schema of dblink. */
static int
call_dblink(const RemoteServer *server, int n, const SqlParameter *parameters, const char *sql)
{
	/* waiting for a server repeats this call, which must not add up memory */
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup dblink",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);

	/*
	 * if the extension was made anew meanwhile, this function is gone, and
	 * the statement fails
	 */
	const char *schema = get_namespace_name(get_func_namespace(server->hang_up.fn_oid));
	int			rows = sql_query_members(get_extension_oid("dblink", false), n, parameters,
										 sql_replace(sql, "@dblink@", quote_identifier(schema ? schema : "")));

	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return rows;
}

/* With exit_on_error, an attempt to close a connection that is not there would end the session. */
static bool
is_connected(RemoteServer *server)
{
	LOCAL_FCINFO(call, 0);
	Datum		array;

	InitFunctionCallInfoData(*call, &server->list_links, 0, InvalidOid, NULL, NULL);
	array = FunctionCallInvoke(call);
	if (call->isnull)
		return false;
	foreach_ptr(const char, link, key_names(array))
		if (strcmp(link, server->link) == 0)
		return true;
	return false;
}

/*
 * Closes the connection, whatever happens: the user of this session could use
 * a connection that stays open, without the rights of its role.  So no cancel,
 * no revoked right, and no renamed schema may stop the closing; if the closing
 * fails, the session ends.
 */
static void
disconnect(RemoteServer *server)
{
	HOLD_INTERRUPTS();
	PG_TRY();
	{
		if (is_connected(server))
			(void) FunctionCall1(&server->hang_up, CStringGetTextDatum(server->link));
	}
	PG_CATCH();
	{
		ereport(FATAL,
				(errcode(ERRCODE_CONNECTION_EXCEPTION),
				 errmsg("could not close the connection to server \"%s\"", server->name)));
	}
	PG_END_TRY();
	RESUME_INTERRUPTS();
}

/*
 * Makes a new connection.  An old connection, left by an ERROR, is closed,
 * because it may lead to another server.
 */
static void
connect(RemoteServer *server)
{
	disconnect(server);
	call_dblink(server, SQL_ARGS(LINK(server), SQL_TEXT(server->name)), "SELECT @dblink@.dblink_connect($1, $2)");
	/* dblink gets the name of a server, which another server may have by now */
	if (get_foreign_server_oid(server->name, true) != server->first->server)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("server \"%s\" has been renamed or replaced meanwhile", server->name)));
}

List *
remote_take_rows(int n)
{
	List	   *rows = NIL;

	for (int i = 0; i < n; i++)
	{
		RemoteRow  *row = palloc(sizeof(RemoteRow));

		row->first = sql_is_null(i, 1) ? "" : sql_text(i, 1);
		row->second = sql_text(i, 2);
		rows = lappend(rows, row);
	}
	return rows;
}

static void
await_answer(const RemoteServer *server)
{
	int64		until = Max(server->until, time_monotonic_us() + ANSWER_MS * INT64CONST(1000));

	for (;;)
	{
		call_dblink(server, SQL_ARGS(LINK(server)), "SELECT @dblink@.dblink_is_busy($1) <> 0");
		if (!DatumGetBool(sql_value(0, 1)))
			break;
		if (time_monotonic_us() > until)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("gave up waiting for an answer of server \"%s\"", server->name),
					 errdetail("Nothing was deleted, because it was asked who writes there."),
					 errhint("Find out why it is slow, or raise audio_cleanup.writer_wait.")));
		lock_nap(ANSWER_POLL_MS, REMOTE_WAIT);
	}
}

/*
 * Returns the rows (RemoteRow) of the next result, NIL after the last result.
 */
static List *
fetch_answer(const RemoteServer *server)
{
	await_answer(server);
	return remote_take_rows(call_dblink(server, SQL_ARGS(LINK(server)),
										"SELECT r.a, r.b FROM @dblink@.dblink_get_result($1) AS r(a pg_catalog.text, b pg_catalog.text)"));
}

static void
put_question(void *arg)
{
	RemoteServer *server = arg;

	server->answer = citus_ask(server->first, server->question);
}

/* Asks a node, with a limit of time, because Citus waits for an answer as long as the connection is open. */
static List *
ask_node(RemoteServer *server, const char *question)
{
	int64		until = Max(server->until, time_monotonic_us() + NODE_ANSWER_MS * INT64CONST(1000));

	server->question = question;
	query_limit_time(server->first->source, until, "gave up asking the nodes of source %s: the time for it is up",
					 "Find out why a node of Citus is slow.", put_question, server);
	return server->answer;
}

/* Runs a query whose rows have two columns of text on the server or node.  Returns its rows (RemoteRow). */
static List *
ask_there(RemoteServer *server, const char *question)
{
	List	   *rows;

	if (server->name == NULL)
		return ask_node(server, question);
	call_dblink(server, SQL_ARGS(LINK(server), SQL_TEXT(question)), "SELECT @dblink@.dblink_send_query($1, $2)");
	rows = fetch_answer(server);
	/* after an empty result the connection is free again */
	(void) fetch_answer(server);
	return rows;
}


/* -------------------------------------------------------------- questions --- */

/*
 * Returns a query on that server, made of `body`, which may use `wanted`, the
 * names of our tables there, and `tree`, the OIDs of these tables and their
 * children.  All names in the query are qualified, because the role's
 * search_path there is not known.
 */
static char *
make_question(const RemoteServer *server, const char *body)
{
	StringInfoData text;

	initStringInfo(&text);
	foreach_ptr(const RemoteTable, table, server->tables)
		appendStringInfo(&text, "%s(%s)", text.len > 0 ? ", " : "", quote_literal_cstr(table->name));
	return psprintf("WITH RECURSIVE wanted(name) AS (VALUES %s), tree(name, relid) AS ("
					" SELECT w.name, pg_catalog.to_regclass(w.name)::pg_catalog.oid FROM wanted w"
					" UNION SELECT t.name, i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.relid) %s",
					text.data, body);
}

/*
 * Returns the tables on the server that cannot be relied on, each with the
 * reason.
 */
static const char *const objections =
"SELECT ''::pg_catalog.text, 'The server is a standby: those who write are connected to another one.' WHERE pg_catalog.pg_is_in_recovery()"
" UNION ALL SELECT t.name, 'There is no such table there.' FROM tree t WHERE t.relid IS NULL"
" UNION ALL SELECT w.name, pg_catalog.format('Role \"%s\" may not read it there.', CURRENT_USER)"
"  FROM wanted w WHERE NOT pg_catalog.has_any_column_privilege(pg_catalog.to_regclass(w.name)::pg_catalog.oid, 'SELECT')"
" UNION ALL SELECT w.name, pg_catalog.format('Row-level security hides rows there from role \"%s\".', CURRENT_USER)"
"  FROM wanted w WHERE pg_catalog.row_security_active(pg_catalog.to_regclass(w.name)::pg_catalog.oid)"
" UNION ALL SELECT t.name, pg_catalog.format('%s is %s there.', c.oid::pg_catalog.regclass,"
"  CASE WHEN c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) 'v' THEN 'a view'"
"   WHEN c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) 'm' THEN 'a materialized view'"
"   WHEN c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) 'f' THEN 'a foreign table'"
"   ELSE 'no permanent table' END)"
"  FROM tree t JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relid"
"  WHERE c.relkind::pg_catalog.text OPERATOR(pg_catalog.<>) ALL (ARRAY['r', 'p']) OR c.relpersistence::pg_catalog.text OPERATOR(pg_catalog.<>) 'p'"
" UNION ALL SELECT t.name, pg_catalog.format('%s is filled by a subscription there.', s.srrelid::pg_catalog.regclass)"
"  FROM tree t JOIN pg_catalog.pg_subscription_rel s ON s.srrelid OPERATOR(pg_catalog.=) t.relid"
"   OR EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(t.relid) a WHERE a.relid OPERATOR(pg_catalog.=) s.srrelid)";

/* One more objection: a foreign server that has Citus does not tell us its nodes. */
static const char *const citus_objection =
" UNION ALL SELECT '', 'The server has Citus: those who write may be connected to its other nodes.'"
"  WHERE EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extname::pg_catalog.text OPERATOR(pg_catalog.=) 'citus')";

/*
 * Returns the virtual transactions that may write, and their processes, as
 * lock_wait_for_writers() knows them.
 */
static const char *const writers =
"SELECT DISTINCT l.virtualtransaction, l.pid::pg_catalog.text FROM pg_catalog.pg_locks l"
" WHERE l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.granted"
"  AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())"
"  AND l.relation OPERATOR(pg_catalog.=) ANY (SELECT t.relid FROM tree t)"
"  AND (l.mode OPERATOR(pg_catalog.=) ANY (ARRAY['RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'])"
"   OR l.mode OPERATOR(pg_catalog.=) 'ShareUpdateExclusiveLock' AND EXISTS (SELECT FROM pg_catalog.pg_locks x"
"    WHERE x.virtualtransaction OPERATOR(pg_catalog.=) l.virtualtransaction AND x.locktype OPERATOR(pg_catalog.=) 'relation'"
"     AND x.mode OPERATOR(pg_catalog.=) 'AccessExclusiveLock' AND x.relation OPERATOR(pg_catalog.>=) %u))";

static const RemoteTable *
table_by_name(const RemoteServer *server, const char *name)
{
	foreach_ptr(const RemoteTable, table, server->tables)
		if (strcmp(table->name, name) == 0)
		return table;
	return server->first;
}

static Brake *
look_for_objections(RemoteServer *server)
{
	List	   *rows = ask_there(server, make_question(server, psprintf("%s%s", objections,
																		server->name != NULL ? citus_objection : "")));
	const RemoteRow *first;
	const RemoteTable *table;

	if (rows == NIL)
		return NULL;
	first = linitial(rows);
	table = table_by_name(server, first->first);
	return source_brake(ERRCODE_FEATURE_NOT_SUPPORTED,
						psprintf("source %s reads %s on %s, which cannot be relied on",
								 table->source->name, sources_name(table->relid), server->what),
						pstrdup(first->second ? first->second : ""));
}

/*
 * Returns whether the writer is a prepared transaction, which has no process.
 * The name of the transaction changes when it is prepared.
 */
static bool
is_prepared(const RemoteRow *writer)
{
	return writer->second == NULL;
}

/*
 * Returns a writer of `now` that is also in `before`, or is prepared; else
 * NULL.
 */
static const RemoteRow *
find_writer(List *now, List *before)
{
	foreach_ptr(const RemoteRow, row, now)
	{
		if (is_prepared(row))
			return row;
		foreach_ptr(const RemoteRow, other, before)
			if (strcmp(other->first, row->first) == 0)
			return row;
	}
	return NULL;
}

static void
wait_for_writers(RemoteServer *server)
{
	char	   *question = make_question(server, psprintf(writers, FirstNormalObjectId));
	List	   *before = ask_there(server, question);
	const RemoteRow *writer = find_writer(before, before);
	long		ms = WRITER_POLL_MS;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup answer",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(scratch);

	while (writer != NULL)
	{
		if (time_monotonic_us() > server->until)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("gave up waiting for a transaction that writes on %s", server->what),
					 errdetail("Nothing was deleted, because a reference that is not committed yet could protect a file. %s",
							   is_prepared(writer) ? "A prepared transaction holds the lock there." :
							   psprintf("Process %s holds the lock there.", writer->second)),
					 errhint("Try again when that transaction has ended, or raise audio_cleanup.writer_wait.")));
		lock_nap(ms, REMOTE_WAIT);
		if (server->name == NULL)
			ms = Min(ms * 2, WRITER_POLL_MAX_MS);
		MemoryContextReset(scratch);
		writer = find_writer(ask_there(server, question), before);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
}


/* ------------------------------------------------------------- conversation --- */

static void
talk(void *arg)
{
	RemoteServer *server = arg;

	if (server->name != NULL)
		connect(server);
	server->brake = look_for_objections(server);
	if (server->brake == NULL && server->wait)
		wait_for_writers(server);
}

/* Sets *found to the function of dblink with this name and number of parameters. */
static void
find_function(const char *name, int n_parameters, FmgrInfo *found)
{
	if (sql_query_latest(SQL_ARGS(SQL_OID(OIDOID, get_extension_oid("dblink", false)), SQL_TEXT(name), SQL_INT4(n_parameters)),
						 "SELECT p.oid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.objid"
						 " WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.deptype = 'e'"
						 "  AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = $1"
						 "  AND p.proname::text = $2 AND p.pronargs = $3") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("extension \"dblink\" lacks its function %s()", name)));
	fmgr_info(DatumGetObjectId(sql_value(0, 1)), found);
}

/* Asks the server as the role that reads its tables, and always closes the connection.  Returns a brake or NULL. */
static Brake *
ask_server(RemoteServer *server)
{
	ErrorData  *error;
	ActingAs	saved;

	if (server->name != NULL)
	{
		server->link = psprintf("audio_cleanup %d", MyProcPid);
		find_function("dblink_get_connections", 0, &server->list_links);
		find_function("dblink_disconnect", 1, &server->hang_up);
	}
	role_act_as(server->first->role, &saved);
	error = sql_try_all(talk, server);
	if (server->name != NULL)
		disconnect(server);
	role_stop_acting(&saved);
	if (error != NULL)
	{
		/*
		 * the texts may show the user mapping, so only a caller with the
		 * rights of the role of that mapping gets the texts
		 */
		Source		source = *server->first->source;

		source.owner = server->first->role;
		query_raise(&source, error);
	}
	return server->brake;
}

static bool
is_of_server(const RemoteTable *table, const RemoteServer *server)
{
	const RemoteTable *first = server->first;

	return table->role == first->role && table->server == first->server &&
		(OidIsValid(table->server) || citus_is_same_node(table, first));
}

/* Moves the tables of the server, which is that of the first table, from *tables to the server. */
static void
take_server(List **tables, RemoteServer *server)
{
	List	   *others = NIL;

	server->first = linitial(*tables);
	foreach_ptr(RemoteTable, table, *tables)
	{
		if (is_of_server(table, server))
			server->tables = lappend(server->tables, table);
		else
			others = lappend(others, table);
	}
	*tables = others;
	if (OidIsValid(server->first->server))
	{
		server->name = GetForeignServer(server->first->server)->servername;
		server->what = psprintf("server \"%s\"", server->name);
	}
	else
		server->what = psprintf("node \"%s:%d\"", server->first->host, server->first->port);
}

static Brake *
ask_servers(List *tables, bool wait, int ms)
{
	int64		until = time_monotonic_us() + (int64) ms * 1000;
	Brake	   *brake = NULL;

	while (brake == NULL && tables != NIL)
	{
		RemoteServer server = {.wait = wait,.until = until};

		take_server(&tables, &server);
		brake = ask_server(&server);
	}
	return brake;
}

Brake *
remote_examine(const SourceQuery *query)
{
	return ask_servers(find_tables(query), false, 0);
}


/* --------------------------------------------------------------- snapshots --- */

/* The transaction in which a foreign table was read last. */
static LocalTransactionId reading_in = InvalidLocalTransactionId;

void
remote_note_reading(const SourceQuery *query)
{
	if (query->foreign != NIL)
		reading_in = compat_proc_lxid(MyProc);
}

static Brake *
not_now(const char *message, const char *detail)
{
	return brake_make("writers", ERRCODE_LOCK_NOT_AVAILABLE, message, detail,
					  "The next transaction of the extension does it.");
}


/* --------------------------------------------------------------- interface --- */

/*
 * Looks at the queries of the sources.  Returns a brake if a subscription fills a
 * table.  Sets *tables to the tables on other servers, and *untrusted to a brake
 * if a table cannot be relied on.
 */
static Brake *
look_at_tables(List *sources, List **tables, Brake **untrusted)
{
	Brake	   *subscribed = NULL;

	*tables = NIL;
	*untrusted = NULL;
	foreach_ptr(const Source, source, sources)
	{
		SourceQuery *query = source_build_query(source, false, untrusted);
		int			n = sql_query_latest(SQL_ARGS(SQL_OIDS(query->tables)),
										 "SELECT FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid = ANY ($1) OR EXISTS"
										 " (SELECT FROM pg_catalog.unnest($1) t, pg_catalog.pg_partition_ancestors(t) a WHERE a.relid = s.srrelid)");

		if (n > 0 && subscribed == NULL)
			subscribed = brake_make("replica", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
									psprintf("cannot clean up where source %s is filled by a subscription", source->name),
									"Transactions that write on the publisher cannot be waited for.",
									"Run it on the publisher; cleanup_status() and dry runs work here.");
		*tables = list_concat(*tables, find_tables(query));
	}
	return subscribed;
}

Brake *
sources_check_subscriptions(List *sources, bool *are_remote)
{
	List	   *tables;
	Brake	   *untrusted;
	Brake	   *subscribed = look_at_tables(sources, &tables, &untrusted);

	*are_remote = tables != NIL;
	return subscribed;
}

Brake *
sources_wait_remotely(List *sources, bool own_transaction, int wait_ms)
{
	List	   *tables;
	Brake	   *untrusted;
	Brake	   *subscribed = look_at_tables(sources, &tables, &untrusted);

	if (subscribed != NULL || untrusted != NULL)
		return subscribed != NULL ? subscribed : untrusted;
	citus_note_asked(tables);
	if (tables == NIL)
		return NULL;
	if (reading_in == compat_proc_lxid(MyProc))
		return not_now("rows on another server were read in this transaction before",
					   "They would be seen again as they were then.");
	if (!own_transaction)
		return not_now("rows lie on another server, and the transaction is not the extension's own",
					   "What it has written there looks like what others write.");
	return ask_servers(tables, true, wait_ms);
}
