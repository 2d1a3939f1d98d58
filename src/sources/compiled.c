/*-------------------------------------------------------------------------
 *
 * sources/compiled.c
 *	  Functions in PL/pgSQL that the session has compiled before a reading.
 *
 * PL/pgSQL looks up the types of a function's variables when it compiles the
 * function, by the search_path of that moment, and keeps these types until the
 * session ends.  A caller may have compiled a function of a view by a
 * search_path that leads to a type of the caller: then `text` may be any type,
 * and the view shows other names in the caller's session than in all other
 * sessions.  So a function that was compiled outside of the box of a reading
 * is compiled anew in the box.
 *
 * A plug-in of PL/pgSQL, installed only while a source is read, sees each
 * function that is about to run.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "fmgr.h"
#include "lib/ilist.h"
#include "plpgsql.h"
#include "utils/memutils.h"

#include "src/pg/compat.h"
#include "src/sources/query.h"

/*
 * PL/pgSQL's header sets the text domain of PL/pgSQL, to which the messages of
 * this file do not belong
 */
#undef TEXTDOMAIN
#define TEXTDOMAIN NULL

static void refuse_outdated(PLpgSQL_execstate *estate, PLpgSQL_function *function);

static PLpgSQL_plugin mine = {.func_setup = refuse_outdated};
static PLpgSQL_plugin *others = NULL;
static PLpgSQL_plugin **plugin = NULL;
static bool is_watching = false;
static bool any_outdated = false;
static Oid	reader = InvalidOid;	/* role as which the box reads */


/* ----------------------------------------------------------------- marks --- */

/*
 * The mark of a function.  The memory context of the function has the mark, and
 * a callback of that context takes the mark off the list: the address of the
 * context may be used again.
 */
typedef struct Mark
{
	MemoryContextCallback callback;
	dlist_node	node;
	PLpgSQL_function *function; /* NULL: it was compiled outside of a box */
	Oid			reader;
} Mark;

static dlist_head marks = DLIST_STATIC_INIT(marks);

static void
forget_mark(void *arg)
{
	dlist_delete(&((Mark *) arg)->node);
}

static const Mark *
find_mark(MemoryContext context)
{
	const MemoryContextCallback *callback = context->reset_cbs;

	while (callback != NULL && callback->func != forget_mark)
		callback = callback->next;
	return callback != NULL ? callback->arg : NULL;
}

static void
add_mark(MemoryContext context, PLpgSQL_function *function)
{
	Mark	   *mark = MemoryContextAllocZero(context, sizeof(Mark));

	mark->function = function;
	mark->reader = reader;
	mark->callback.func = forget_mark;
	mark->callback.arg = mark;
	MemoryContextRegisterResetCallback(context, &mark->callback);
	dlist_push_head(&marks, &mark->node);
}

/* Marks the functions below `parent` that were not compiled in the box of an earlier reading. */
static void
mark_functions(MemoryContext parent)
{
	for (MemoryContext context = parent->firstchild; context != NULL; context = context->nextchild)
	{
		if (strcmp(context->name, "PL/pgSQL function") == 0 && find_mark(context) == NULL)
			add_mark(context, NULL);
		mark_functions(context);
	}
}

/*
 * Makes the next call compile anew each function that was compiled while code
 * of another role was running: the other role may have set a search_path for
 * the compilation.
 */
static void
outdate_functions(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &marks)
	{
		const Mark *mark = dlist_container(Mark, node, iter.cur);

		if (mark->function != NULL && mark->reader != reader)
			compat_function_xmin(mark->function) = InvalidTransactionId;
	}
}


/* --------------------------------------------------------------- plug-in --- */

/*
 * Raises an ERROR if the function was compiled outside of a box.  Then the
 * next call compiles the function anew.
 */
static void
refuse_outdated(PLpgSQL_execstate *estate, PLpgSQL_function *function)
{
	const Mark *mark = find_mark(function->fn_cxt);

	/*
	 * a library that was loaded in the box may have kept this plug-in for
	 * longer
	 */
	if (!is_watching || (mark != NULL && mark->function != NULL))
		return;
	if (mark == NULL)
	{
		add_mark(function->fn_cxt, function);
		return;
	}
	compat_function_xmin(function) = InvalidTransactionId;
	any_outdated = true;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("function %s was compiled by this session before", function->fn_signature),
			 errdetail("It may have taken types of the session for those that it means."),
			 errhint("Call again: it is compiled anew.")));
}

void
compiled_init(void)
{
	plugin = (PLpgSQL_plugin **) find_rendezvous_variable("PLpgSQL_plugin");
}

void
compiled_begin(Oid role)
{
	any_outdated = false;
	reader = role;
	mark_functions(TopMemoryContext);
	outdate_functions();
}

void
compiled_watch(bool on)
{
	is_watching = on;
	if (on && *plugin != &mine)
	{
		others = *plugin;
		*plugin = &mine;
	}
	else if (!on && *plugin == &mine)
		*plugin = others;
}

bool
compiled_found_outdated(void)
{
	return any_outdated;
}
