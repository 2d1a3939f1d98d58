/*-------------------------------------------------------------------------
 *
 * plan/unregistered.c
 *	  Looks for columns that nobody registered and that hold names of condemned files.
 *
 * The commonest way to lose files is a table that was forgotten.  The search
 * is advice for a person who looks before deleting, and a brake in an
 * unattended run.  The search looks for a sample of names in a sample of rows,
 * so a search that finds nothing proves nothing.
 *
 * Here a name must be the whole name of the file, or an id so long that nobody
 * writes it by accident.  A word in a letter to a customer would protect the
 * file of that name in a registered column, but is no warning here.
 *
 * A user learns of no table that the user may not read.  Because of row
 * security the user might not see the row that holds the name, so only users
 * who bypass row security learn of a table with policies.
 *
 * Each table is read as its owner, in a subtransaction of its own.  A table
 * that is locked, that its owner may not read, or that runs a function of
 * somebody who is no superuser, is passed over: no owner of a table can hold
 * up a run.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"

#include "src/names/file_key.h"
#include "src/pg/sql.h"
#include "src/pg/time.h"
#include "src/plan/private.h"
#include "src/sources/sources.h"

#define SAMPLED_NAMES	100
#define SEARCH_MS		1000	/* in all tables */
#define SEARCH_ALL_MS	10000	/* in all tables, with `everything` */
#define ID_MIN			12		/* bytes of an id that is no word */
#define SAMPLE_KEYS		32

/* A name of the sample, and the columns of the current table that hold the name. */
typedef struct Sample
{
	char	   *path;
	uint64		keys[SAMPLE_KEYS];
	int			n_keys;
	Bitmapset  *columns;
} Sample;

/* A table that can hold names. */
typedef struct Candidate
{
	Source		table;
	double		rows;
} Candidate;

typedef struct Search
{
	CleanupPlan *plan;
	int64		deadline;		/* by time_monotonic_us() */
	KeyScope	scope;
	int			n;
	Sample		samples[SAMPLED_NAMES];
	const Candidate *candidate; /* the table that is looked at now, */
	int			column;			/* and the column */
} Search;


/* ------------------------------------------------------------------ sample --- */

static void
add_key(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	Sample	   *sample = arg;

	if ((family & (KEY_PATH | KEY_TAIL)) == 0 && len < ID_MIN)
		return;
	if (sample->n_keys < lengthof(sample->keys))
		sample->keys[sample->n_keys++] = key;
}

static void
take_sample(Search *search)
{
	CleanupPlan *plan = search->plan;
	const KeyRules *rules = plan->context.settings->rules;
	int64		step = Max(plan->found.condemned->n_orphans / SAMPLED_NAMES, 1);
	int64		orphans = 0;
	CondemnedFile file;

	condemned_rewind(plan->found.condemned);
	while (search->n < SAMPLED_NAMES && condemned_next(plan->found.condemned, &file))
	{
		if (file.source == NULL && orphans++ % step == 0)
		{
			Sample	   *sample = &search->samples[search->n++];

			sample->path = pstrdup(file.path);
			key_widen_scope(rules, file.path, &search->scope);
			key_of_file(rules, file.path, KEY_ALL_FAMILIES, add_key, sample);
		}
		condemned_free_texts(&file);
	}
}


/* ------------------------------------------------------------------ search --- */

static void
note_columns(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	Search	   *search = arg;

	for (int i = 0; i < search->n; i++)
		for (int k = 0; k < search->samples[i].n_keys; k++)
			if (search->samples[i].keys[k] == key)
			{
				MemoryContext caller = MemoryContextSwitchTo(search->plan->memory);

				search->samples[i].columns = bms_add_member(search->samples[i].columns,
															search->column);
				MemoryContextSwitchTo(caller);
			}
}

static bool
search_row(const SourceRow *row, void *arg)
{
	Search	   *search = arg;

	CHECK_FOR_INTERRUPTS();
	for (int i = 0; i < row->source->n_columns; i++)
	{
		if (row->values[i] == NULL)
			continue;
		search->column = i;
		key_of_reference(search->plan->context.settings->rules, &search->scope,
						 row->values[i], row->lengths[i], note_columns, search);
	}
	return time_monotonic_us() < search->deadline;
}

static void
look_at_table(void *arg)
{
	Search	   *search = arg;
	const Source *table = &search->candidate->table;

	if (ConditionalLockRelationOid(table->relid, AccessShareLock))
		sources_sample(table, search->candidate->rows, search->deadline, search_row, search);
}

static List *
report_columns(Search *search, const Source *table, List *found)
{
	for (int c = 0; c < table->n_columns; c++)
	{
		int			n = 0;

		for (int i = 0; i < search->n; i++)
			n += bms_is_member(c, search->samples[i].columns) ? 1 : 0;
		if (n > 0)
			found = lappend(found, psprintf("column %s.%s holds %d of the %d sampled names",
											table->name, quote_identifier(table->columns[c]),
											n, search->n));
	}
	for (int i = 0; i < search->n; i++)
		search->samples[i].columns = NULL;
	return found;
}

/*
 * Returns the columns of ordinary tables that can hold names and are not
 * registered, small tables first.  Types that users have made are left out,
 * because their code would run, unless they are like text.
 */
static const char *const candidates_query =
"SELECT c.oid, c.relowner, format('%I.%I', s.nspname, c.relname),"
"  array_agg(a.attname::text ORDER BY a.attnum), c.reltuples::double precision"
" FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace"
" JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
" JOIN pg_type t ON t.oid = a.atttypid"
" WHERE c.relkind = 'r' AND c.relpersistence <> 't'"
"  AND (t.typcategory = 'S'"
"   OR coalesce(nullif(t.typbasetype, 0), t.oid) IN ('json'::regtype, 'jsonb'::regtype,"
"    'uuid'::regtype, 'xml'::regtype, 'text[]'::regtype, 'varchar[]'::regtype, 'bpchar[]'::regtype,"
"    'json[]'::regtype, 'jsonb[]'::regtype, 'uuid[]'::regtype))"
"  AND s.nspname <> 'information_schema' AND s.nspname !~ '^pg_'"
"  AND NOT EXISTS (SELECT FROM @extschema@.cleanup_sources r"
"   WHERE r.source = c.oid AND a.attname::text COLLATE \"C\" = ANY (r.file_columns))"
"  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass"
"   AND d.objid = c.oid AND d.deptype = 'e')"
 /* $1 everything, $2 and $3 the roles that ask, $4 the extension's owner */
"  AND ($1 OR NOT EXISTS (SELECT FROM pg_roles u WHERE u.oid IN ($2::oid, $3::oid)"
"   AND NOT u.rolsuper AND u.oid <> $4::oid"
"   AND NOT (has_schema_privilege(u.oid, s.oid, 'USAGE')"
"    AND has_column_privilege(u.oid, c.oid, a.attnum, 'SELECT')"
"    AND (NOT c.relrowsecurity OR u.rolbypassrls))))"
" GROUP BY c.oid, c.relowner, s.nspname, c.relname, c.reltuples, c.relpages"
" ORDER BY c.relpages, c.oid";

static List *
list_tables(const CleanupPlan *plan, bool everything)
{
	List	   *tables = NIL;
	int			n = owner_query(plan->context.extension,
								SQL_ARGS(SQL_BOOL(everything), SQL_INT8((int64) GetOuterUserId()), SQL_INT8((int64) GetUserId()),
										 SQL_INT8((int64) plan->context.extension->owner)), candidates_query);

	for (int i = 0; i < n; i++)
	{
		Candidate  *candidate = palloc0(sizeof(Candidate));

		candidate->table.relid = DatumGetObjectId(sql_value(i, 1));
		candidate->table.owner = DatumGetObjectId(sql_value(i, 2));
		candidate->table.name = sql_text(i, 3);
		candidate->rows = DatumGetFloat8(sql_value(i, 5));
		candidate->table.columns = sql_texts(sql_value(i, 4), &candidate->table.n_columns);
		tables = lappend(tables, candidate);
	}
	return tables;
}

List *
unregistered_search(CleanupPlan *plan, bool everything)
{
	Search	   *search = palloc0(sizeof(Search));
	List	   *found = NIL;

	search->plan = plan;
	search->scope.context = plan->memory;
	search->scope.keys_expected = SAMPLED_NAMES * SAMPLE_KEYS;
	search->deadline = time_monotonic_us() + (everything ? SEARCH_ALL_MS : SEARCH_MS) * INT64CONST(1000);
	if (plan->context.settings->search_unregistered && plan->found.condemned->n_orphans > 0)
	{
		take_sample(search);
		foreach_ptr(const Candidate, candidate, list_tables(plan, everything))
		{
			if (time_monotonic_us() >= search->deadline)
				break;

			/*
			 * an error of another owner's table must not end the run, and the
			 * locks of thousands of tables would leave no room for others'
			 */
			search->candidate = candidate;
			(void) sql_undo(look_at_table, search);
			found = report_columns(search, &candidate->table, found);
		}
	}
	return found;
}
