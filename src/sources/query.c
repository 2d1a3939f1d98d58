/*-------------------------------------------------------------------------
 *
 * sources/query.c
 *	  The query that reads a source, and the box that the query runs in.
 *
 * A source may be a view, and a view runs code of its author.  So the query is
 * built as a tree, from the OID of the source: no name is looked up, and
 * nobody can put another relation in the place of the source.  The query
 * yields the columns without any expression, so that no cast or operator of a
 * user's type runs.  Code that runs nevertheless, in a view, runs as the owner
 * of the source, in a security-restricted operation, and in a read-only
 * subtransaction that is always rolled back: no DDL, row, setting,
 * notification or lock of that code outlives the reading.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/sysattr.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "src/pg/compat.h"
#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/pg/time.h"
#include "src/sources/citus.h"
#include "src/sources/query.h"

/* between the id of a session and its places */
#define PLACES_BEGIN	'\001'


/* ---------------------------------------------------------------- places --- */

void
place_append(StringInfo session, Oid table, const ItemPointerData *tid)
{
	appendStringInfo(session, "%c%u/%u/%u", PLACES_BEGIN, table,
					 ItemPointerGetBlockNumberNoCheck(tid), ItemPointerGetOffsetNumberNoCheck(tid));
}

void
place_append_key(StringInfo session, const char *key)
{
	appendStringInfo(session, "%c%s", PLACES_BEGIN, key);
}

void
place_end(StringInfo session, size_t id_length)
{
	appendStringInfo(session, "%c%zu", PLACES_BEGIN, id_length);
}

/*
 * Returns where the places of a session begin.  The length of the id stands at the
 * end of the session: so the author of an id cannot choose where the places begin.
 */
static const char *
find_places(const char *session)
{
	const char *end = strrchr(session, PLACES_BEGIN);

	if (end == NULL)
		elog(ERROR, "a session has no end");
	return session + strtoul(end + 1, NULL, 10);
}

bool
place_of_session(const char *session, int number, SourcePlace *place)
{
	const char *text = find_places(session);
	unsigned int block;
	unsigned int offset;

	for (; *text != '\0' && number > 0; number--)
		text += strcspn(text + 1, "\001") + 1;
	if (*text == '\0' || sscanf(text + 1, "%u/%u/%u", &place->table, &block, &offset) != 3)
		return false;
	ItemPointerSet(&place->tid, block, (OffsetNumber) offset);
	return true;
}

char *
place_key(const char *session)
{
	const char *text = find_places(session) + 1;

	/*
	 * a key_text() begins with a brace, and ends where the end of the session
	 * begins
	 */
	if (*text != '{')
		elog(ERROR, "a session has no key");
	return pnstrdup(text, strrchr(text, PLACES_BEGIN) - text);
}

char *
sources_session_id(const char *session)
{
	return pnstrdup(session, find_places(session) - session);
}

bool
place_lock(const SourcePlace *place, Snapshot snapshot)
{
	Relation	rel = relation_open(place->table, RowShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	ItemPointerData tid = place->tid;
	TM_FailureData failure;
	TM_Result	result;

	result = table_tuple_lock(rel, &tid, snapshot, slot, GetCurrentCommandId(true),
							  LockTupleExclusive, LockWaitSkip, 0, &failure);
	ExecDropSingleTupleTableSlot(slot);
	relation_close(rel, NoLock);
	return result == TM_Ok;
}


/* ---------------------------------------------------------------- values --- */

void
value_begin(ValueWriter *writer, Oid type)
{
	Oid			function;
	bool		is_varlena;

	getTypeOutputInfo(type, &function, &is_varlena);
	fmgr_info(function, &writer->output);
	writer->is_padded = function == F_BPCHAROUT;
	writer->is_text = writer->is_padded || function == F_TEXTOUT || function == F_VARCHAROUT;
}

const char *
value_text(ValueWriter *writer, Datum value, size_t *length)
{
	char	   *written;
	text	   *stored;

	if (!writer->is_text)
	{
		written = OutputFunctionCall(&writer->output, value);
		*length = strlen(written);
		return written;
	}
	stored = DatumGetTextPP(value);
	*length = VARSIZE_ANY_EXHDR(stored);
	if (writer->is_padded)
		*length = bpchartruelen(VARDATA_ANY(stored), (int) *length);
	return VARDATA_ANY(stored);
}


/* ----------------------------------------------------------------- build --- */

static void
add_target(Query *query, Expr *expr, const char *name)
{
	query->targetList = lappend(query->targetList,
								makeTargetEntry(expr, list_length(query->targetList) + 1,
												pstrdup(name), false));
}

static Query *
make_select(Relation rel, const char *const *columns, int n)
{
	ParseState *pstate = make_parsestate(NULL);
	ParseNamespaceItem *item = addRangeTableEntryForRelation(pstate, rel, AccessShareLock,
															 makeAlias("s", NIL), true, true);
	Query	   *query = makeNode(Query);

	addNSItemToQuery(pstate, item, true, true, true);
	query->commandType = CMD_SELECT;
	query->querySource = QSRC_ORIGINAL;
	query->canSetTag = true;
	for (int i = 0; i < n; i++)
	{
		Node	   *var = scanNSItemForColumn(pstate, item, 0, columns[i], -1);

		if (var == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of source %s does not exist", columns[i],
							sources_name(RelationGetRelid(rel)))));
		add_target(query, (Expr *) var, columns[i]);
	}
	query->rtable = pstate->p_rtable;
	compat_set_permissions(query, pstate);
	query->jointree = makeFromExpr(pstate->p_joinlist, NULL);
	free_parsestate(pstate);
	return query;
}

static Query *
rewrite(Query *query)
{
	List	   *queries = pg_rewrite_query(query);

	if (list_length(queries) != 1 || linitial_node(Query, queries)->commandType != CMD_SELECT)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("a source must be read by one query")));
	return linitial_node(Query, queries);
}

/*
 * Returns whether each row of this level of a query comes from one row of each
 * table, so that these rows can be locked.
 */
static bool
has_own_rows(const Query *query)
{
	return query->commandType == CMD_SELECT && !query->hasAggs && !query->hasWindowFuncs &&
		!query->hasTargetSRFs && query->groupClause == NIL && query->groupingSets == NIL &&
		query->havingQual == NULL && query->distinctClause == NIL && query->setOperations == NULL &&
		query->cteList == NIL && query->limitOffset == NULL && query->limitCount == NULL &&
		query->jointree != NULL && query->jointree->fromlist != NIL;
}

static bool expose_places(Query *query, List **bases);

/*
 * Adds the places of one item of FROM to the targets.  Returns false if the
 * rows of the item have no places.
 */
static bool
expose_item(Query *query, int number, List **bases)
{
	RangeTblEntry *rte = rt_fetch(number, query->rtable);

	if (rte->rtekind == RTE_RELATION && rte->tablesample == NULL &&
		(rte->relkind == RELKIND_RELATION || rte->relkind == RELKIND_PARTITIONED_TABLE))
	{
		add_target(query, (Expr *) makeVar(number, TableOidAttributeNumber, OIDOID, -1, InvalidOid, 0),
				   "tableoid");
		add_target(query, (Expr *) makeVar(number, SelfItemPointerAttributeNumber, TIDOID, -1, InvalidOid, 0),
				   "ctid");
		*bases = lappend_oid(*bases, rte->relid);
		return true;
	}
	if (rte->rtekind == RTE_SUBQUERY && has_own_rows(rte->subquery))
	{
		int			before = list_length(rte->subquery->targetList);
		ListCell   *lc;

		if (!expose_places(rte->subquery, bases))
			return false;
		for_each_from(lc, rte->subquery->targetList, before)
		{
			TargetEntry *target = lfirst(lc);

			rte->eref->colnames = lappend(rte->eref->colnames, makeString(pstrdup(target->resname)));
			add_target(query, (Expr *) makeVarFromTargetEntry(number, target), target->resname);
		}
		return true;
	}
	return false;
}

/* Adds the places of a node of FROM.  In an outer join, one side may have no row, and so no place. */
static bool
expose_node(Query *query, Node *node, List **bases)
{
	if (IsA(node, RangeTblRef))
		return expose_item(query, castNode(RangeTblRef, node)->rtindex, bases);
	if (IsA(node, JoinExpr))
		return castNode(JoinExpr, node)->jointype == JOIN_INNER &&
			expose_node(query, castNode(JoinExpr, node)->larg, bases) &&
			expose_node(query, castNode(JoinExpr, node)->rarg, bases);
	return false;
}

static bool
expose_places(Query *query, List **bases)
{
	if (!has_own_rows(query))
		return false;
	foreach_ptr(Node, node, query->jointree->fromlist)
		if (!expose_node(query, node, bases))
		return false;
	return true;
}

/*
 * Adds a relation, with its children, to the relations that the query reads.
 * Below a view, a foreign table is read with the rights of the view's owner.
 */
static void
note_relation(SourceQuery *result, const Query *query, RangeTblEntry *rte)
{
	List	   *relations = rte->inh && has_subclass(rte->relid) ? find_all_inheritors(rte->relid, AccessShareLock, NULL)
	: list_make1_oid(rte->relid);

	result->tables = list_concat_unique_oid(result->tables, relations);
	foreach_oid(relid, relations)
	{
		RemoteTable *table;
		Oid			role;

		if (get_rel_relkind(relid) != RELKIND_FOREIGN_TABLE)
			continue;
		role = compat_check_as_user(query, rte);
		table = palloc0(sizeof(RemoteTable));
		table->source = result->source;
		table->relid = relid;
		table->server = GetForeignTable(relid)->serverid;
		table->role = OidIsValid(role) ? role : result->source->owner;
		result->foreign = lappend(result->foreign, table);
	}
}

/* Collects the relations of the query.  Until PostgreSQL 16, a view is among the relations of its own query. */
static bool
collect_relations(Node *node, void *arg)
{
	SourceQuery *result = arg;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, collect_relations, arg);
	foreach_ptr(RangeTblEntry, rte, ((Query *) node)->rtable)
	{
		if (!OidIsValid(rte->relid) || (rte->rtekind != RTE_RELATION && rte->rtekind != RTE_SUBQUERY))
			continue;
		if (get_rel_relkind(rte->relid) == RELKIND_VIEW)
			result->views = list_append_unique_oid(result->views, rte->relid);
		else
			note_relation(result, (Query *) node, rte);
	}
	return query_tree_walker((Query *) node, collect_relations, arg, 0);
}

SourceQuery *
query_build(const Source *source, const char *const *columns, int n, bool with_places)
{
	SourceQuery *result = palloc0(sizeof(SourceQuery));
	Relation	rel = relation_open(source->relid, AccessShareLock);
	const char **all;
	int			n_all = n;

	result->source = source;
	result->n_columns = n;
	if (with_places && citus_has_any(list_make1_oid(source->relid)))
		result->key = key_find(source->relid);
	all = palloc(sizeof(char *) * (n + list_length(result->key) + 1));
	memcpy(all, columns, sizeof(char *) * n);
	foreach_ptr(const char, name, result->key)
		all[n_all++] = name;
	result->query = rewrite(make_select(rel, all, n_all));
	relation_close(rel, NoLock);
	(void) collect_relations((Node *) result->query, result);
	if (result->key != NIL)
		result->bases = list_make1_oid(source->relid);
	/* a row on another server cannot be locked from here */
	else if (with_places && result->foreign == NIL && !citus_has_any(result->tables))
	{
		Query	   *plain = copyObject(result->query);

		if (!expose_places(result->query, &result->bases))
		{
			result->query = plain;
			result->bases = NIL;
		}
	}
	return result;
}

void
query_sample(SourceQuery *query, float4 percent)
{
	RangeTblEntry *rte = linitial_node(RangeTblEntry, query->query->rtable);

	rte->inh = false;
	if (percent < 100)
	{
		rte->tablesample = makeNode(TableSampleClause);
		rte->tablesample->tsmhandler = F_SYSTEM;
		rte->tablesample->args = list_make1(makeConst(FLOAT4OID, -1, InvalidOid, sizeof(float4),
													  Float4GetDatum(percent), false, true));
	}
}


/* ---------------------------------------------------------- find a column --- */

/*
 * Returns the number of the target of `query` that is the tableoid of the
 * table of which `expr` is a column, and sets *attnum to that column; 0 if
 * `expr` is no column of a table.  expose_places() has put the targets of
 * places behind all other targets.
 */
static int
find_table(const Query *query, Node *expr, AttrNumber *attnum)
{
	Var		   *var = (Var *) expr;
	RangeTblEntry *rte;
	int			wanted = TableOidAttributeNumber;

	if (!IsA(expr, Var) || var->varlevelsup != 0 || var->varattno <= 0)
		return 0;
	rte = rt_fetch(var->varno, query->rtable);
	if (rte->rtekind == RTE_JOIN)
		return find_table(query, list_nth(rte->joinaliasvars, var->varattno - 1), attnum);
	*attnum = var->varattno;
	if (rte->rtekind == RTE_SUBQUERY)
		wanted = find_table(rte->subquery,
							(Node *) list_nth_node(TargetEntry, rte->subquery->targetList, var->varattno - 1)->expr,
							attnum);
	for (int i = list_length(query->targetList); wanted != 0 && i > 0; i--)
	{
		Var		   *place = (Var *) list_nth_node(TargetEntry, query->targetList, i - 1)->expr;

		if (IsA(place, Var) && place->varlevelsup == 0 && place->varno == var->varno && place->varattno == wanted)
			return i;
	}
	return 0;
}

bool
query_find_column(const SourceQuery *query, int column, int *place, AttrNumber *attnum)
{
	Node	   *expr = (Node *) list_nth_node(TargetEntry, query->query->targetList, column - 1)->expr;
	int			target;

	*place = 0;
	if (query->key != NIL)
	{
		*attnum = IsA(expr, Var) ? ((Var *) expr)->varattno : InvalidAttrNumber;
		return IsA(expr, Var);
	}
	target = query->bases == NIL ? 0 : find_table(query->query, expr, attnum);
	*place = (target - 1 - query->n_columns) / 2;
	return target > 0;
}


/* ------------------------------------------------------------------- run --- */

/*
 * Returns whether a plan only scans one table, without a condition, for
 * columns of the table: then no function of a user can run in the plan.
 */
static bool
is_bare_scan(const PlanState *state)
{
	if (!IsA(state, SeqScanState) || state->qual != NULL)
		return false;
	foreach_ptr(const TargetEntry, target, state->plan->targetlist)
	{
		const Var  *var = (Var *) target->expr;

		if (!IsA(var, Var) || var->varattno == InvalidAttrNumber ||
			(var->varattno < 0 && var->varattno != TableOidAttributeNumber &&
			 var->varattno != SelfItemPointerAttributeNumber))
			return false;
	}
	return true;
}

/* Fills and returns `row`, which gets the columns `attributes` of a tuple. */
static TupleTableSlot *
pick_columns(TupleTableSlot *tuple, const AttrNumber *attributes, TupleTableSlot *row)
{
	int			n = row->tts_tupleDescriptor->natts;

	for (int i = 0; i < n; i++)
	{
		AttrNumber	attribute = attributes[i];

		row->tts_isnull[i] = attribute > 0 && tuple->tts_isnull[attribute - 1];
		row->tts_values[i] = attribute > 0 ? tuple->tts_values[attribute - 1] :
			attribute == TableOidAttributeNumber ? ObjectIdGetDatum(tuple->tts_tableOid) :
			PointerGetDatum(&tuple->tts_tid);
	}
	return row;
}

/* Runs a bare scan without the executor, which would do more with each row. */
static void
run_bare_scan(QueryDesc *desc)
{
	Relation	rel = ((ScanState *) desc->planstate)->ss_currentRelation;
	AttrNumber *attributes = palloc(sizeof(AttrNumber) * Max(desc->tupDesc->natts, 1));
	TupleTableSlot *tuple = table_slot_create(rel, NULL);
	TupleTableSlot *row = MakeSingleTupleTableSlot(desc->tupDesc, &TTSOpsVirtual);
	TableScanDesc scan = compat_table_beginscan(rel, desc->snapshot);
	int			last = 0;
	int			n = 0;

	foreach_ptr(const TargetEntry, target, desc->planstate->plan->targetlist)
	{
		attributes[n] = ((Var *) target->expr)->varattno;
		last = Max(last, attributes[n]);
		n++;
	}
	desc->dest->rStartup(desc->dest, CMD_SELECT, desc->tupDesc);
	ExecStoreAllNullTuple(row);
	while (table_scan_getnextslot(scan, ForwardScanDirection, tuple))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getsomeattrs(tuple, last);
		if (!desc->dest->receiveSlot(pick_columns(tuple, attributes, row), desc->dest))
			break;
	}
	desc->dest->rShutdown(desc->dest);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	ExecDropSingleTupleTableSlot(tuple);
}

void
query_run(SourceQuery *query, Snapshot snapshot, DestReceiver *receiver)
{
	const char *text = psprintf("audio_cleanup reads %s", query->source->name);
	PlannedStmt *plan;
	QueryDesc  *desc;

	PushActiveSnapshot(snapshot);
	/* the planner changes a query, which may be planned once more */
	plan = compat_plan_query(copyObject(query->query), text);
	desc = CreateQueryDesc(plan, text, GetActiveSnapshot(), InvalidSnapshot,
						   receiver ? receiver : None_Receiver, NULL, NULL, 0);
	ExecutorStart(desc, 0);
	if (receiver != NULL && is_bare_scan(desc->planstate))
		run_bare_scan(desc);
	else if (receiver != NULL)
		compat_executor_run(desc);
	ExecutorFinish(desc);
	ExecutorEnd(desc);
	FreeQueryDesc(desc);
	PopActiveSnapshot();
}


/* ------------------------------------------------------------- time limit --- */

/*
 * number of cancels, one each second, for code that catches cancels; after
 * that the process is ended
 */
#define PATIENCE	10

static int64 reading_deadline = 0;
static bool clock_runs = false;
static volatile sig_atomic_t n_cancels = 0;

/*
 * true: a cancel from elsewhere than the clock is pending, or has raised an
 * ERROR
 */
static volatile sig_atomic_t others_cancel = false;

void
sources_set_deadline(int64 at)
{
	reading_deadline = at;
}

static void
cancel_reading(void)
{
	n_cancels++;
	/* an earlier cancel has raised its ERROR */
	if (!QueryCancelPending)
		others_cancel = false;
	if (n_cancels > PATIENCE)
		ProcDiePending = true;
	else
		QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

/*
 * Handles SIGINT while the clock runs: does the work of
 * StatementCancelHandler(), and notes that the cancel does not come from the
 * clock.
 */
static void
note_cancel(SIGNAL_ARGS)
{
	int			save_errno = errno;

	others_cancel = true;
	QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

static TimeoutId
deadline_timeout(void)
{
	static TimeoutId id = MAX_TIMEOUTS;

	if (id == MAX_TIMEOUTS)
		id = RegisterTimeout(USER_TIMEOUT, cancel_reading);
	return id;
}

/* Starts the clock, which is up at `until` or at the time of sources_set_deadline(), whichever is first (0: never). */
static void
start_clock(int64 until)
{
	if (until == 0 || (reading_deadline != 0 && reading_deadline < until))
		until = reading_deadline;
	n_cancels = 0;
	others_cancel = false;
	clock_runs = until != 0;
	if (!clock_runs)
		return;
	pqsignal(SIGINT, note_cancel);
	enable_timeout_every(deadline_timeout(),
						 GetCurrentTimestamp() + Max(until - time_monotonic_us(), 1), 1000);
}

/*
 * Takes back a pending cancel of the clock.  A cancel from elsewhere that
 * comes at that moment stays.
 */
static void
take_cancel_back(void)
{
	bool		before = others_cancel;

	QueryCancelPending = false;
	if (others_cancel && !before)
		QueryCancelPending = true;
}

/*
 * Returns whether the time was up, and no other cancel came.  `error` is the
 * error with which the reading has ended, or NULL.  A cancel from elsewhere is
 * not lost: such a cancel is that error, or stays pending.
 */
static bool
stop_clock(const ErrorData *error)
{
	if (!clock_runs)
		return false;
	clock_runs = false;
	disable_timeout(deadline_timeout(), false);
	if (n_cancels > 0 && (!others_cancel || (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED)))
		take_cancel_back();
	pqsignal(SIGINT, StatementCancelHandler);
	return n_cancels > 0 && !others_cancel;
}

/* Calls work(arg) while the clock runs, and sets *late as stop_clock() does.  Returns the ERROR that came, or NULL. */
static ErrorData *
work_by_clock(int64 until, void (*work) (void *arg), void *arg, bool *late)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		start_clock(until);
		work(arg);
	}
	PG_CATCH();
	{
		error = sql_catch(caller);
	}
	PG_END_TRY();
	*late = stop_clock(error);
	return error;
}

void
query_limit_time(const Source *source, int64 until, const char *message, const char *hint,
				 void (*work) (void *arg), void *arg)
{
	bool		late;
	ErrorData  *error = work_by_clock(until, work, arg, &late);

	if (error == NULL)
		return;
	if (late && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg(message, source->name),
				 errhint("%s", hint)));
	sql_rethrow(error);
}


/* ------------------------------------------------------------------- box --- */

/* The work in a box, and what is known of its errors. */
typedef struct Box
{
	const Source *source;
	void		(*work) (void *arg);
	void	   *arg;
	int			caught;			/* SQLSTATE of the last error that code of
								 * users must not catch, or 0 */
} Box;

/*
 * Returns whether an error tells of the moment, and not of what the source is: a
 * lock that is not to be had, a cancel, a full disk, a stack that the callers
 * have used up.  A function that catches such an error shows fewer rows than it
 * does otherwise.
 */
static bool
is_of_moment(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return true;
	}
	return false;
}

/* Notes an error, which code of users may catch, and adds the name of the source to the error. */
static void
note_error(void *arg)
{
	Box		   *box = arg;

	if (trust_has_refused() || is_of_moment(geterrcode()))
		box->caught = geterrcode();
	errcontext("reading source %s as its owner", box->source->name);
}

#define GAVE_UP	"gave up reading source %s: the time for it is up"

bool
sources_gave_up(const ErrorData *error)
{
	return error->message_id != NULL && strcmp(error->message_id, GAVE_UP) == 0;
}

static void
report_timeout(const Source *source)
{
	ereport(ERROR,
			(errcode(source->sampled > 0 ? ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE : ERRCODE_QUERY_CANCELED),
			 errmsg(GAVE_UP, source->name),
			 errdetail("Nothing was deleted on account of this reading."),
			 errhint("Look at what the source does; a view that waits or calls slow functions is no good source.")));
}

void
query_raise(const Source *source, ErrorData *error)
{
	if (sources_hide_rows(source, error, true))
		error->message = psprintf("could not read source %s: %s", source->name, error->message);
	sql_rethrow(error);
}

static void
work_by_rules(void *arg)
{
	const Box  *box = arg;
	const TrustRules rules = {
		.role = box->source->owner,
		.superusers_only = box->source->sampled > 0,
		.same_for_all = get_rel_relkind(box->source->relid) == RELKIND_VIEW,
	};

	trust_run(&rules, box->work, box->arg);
}

bool
query_run_in_box(const Source *source, int64 until, void (*work) (void *arg), void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *error;
	Box			box = {source, work, arg};
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = note_error,
		.arg = &box,
	};
	bool		late;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);

	/* the end of the subtransaction, also by an ERROR, resets XactReadOnly */
	XactReadOnly = true;
	role_keep_quiet();
	(void) trust_has_refused();
	error_context_stack = &callback;
	error = work_by_clock(until, work_by_rules, &box, &late);
	error_context_stack = callback.previous;
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	if (late && (error == NULL || error->sqlerrcode == ERRCODE_QUERY_CANCELED))
		report_timeout(source);
	if (compiled_found_outdated() &&
		(error == NULL || error->sqlerrcode == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE))
		return false;
	if (error != NULL)
		query_raise(source, error);
	if (box.caught != 0)
		ereport(ERROR,
				(errcode(box.caught),
				 errmsg("source %s has caught error %s", source->name, unpack_sql_state(box.caught)),
				 errdetail("So it may have shown fewer rows than there are. Nothing was deleted on account of this reading."),
				 errhint("Let its functions catch certain conditions only, and not OTHERS.")));
	return true;
}
