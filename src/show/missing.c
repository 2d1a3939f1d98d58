/*-------------------------------------------------------------------------
 *
 * show/missing.c
 *	  cleanup_missing_files(): finds rows that refer to files that do not exist.
 *
 * The search is the opposite of a run, and reads a reference by the rules of
 * a run.  Its result is for people only.  The rows are read before the
 * directory, so that a file that is uploaded meanwhile is not reported as
 * missing.
 *
 * A run is generous when it decides whether a reference protects a file.  Here
 * a reference means exactly one file: a file that was derived from that file
 * does not count, and a name without an extension means an audio file.
 *
 * The search needs a few times work_mem of memory: references, and the keys
 * of both sides, are in tuplestores that go to disk.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/tuptable.h"
#include "miscadmin.h"

#include "src/names/rules.h"
#include "src/names/file_key.h"
#include "src/pg/lock.h"
#include "src/pg/progress.h"
#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/plan/plan.h"
#include "src/show/show.h"
#include "src/sources/sources.h"
#include "src/store/walk.h"

#define EXAMPLES		3
#define EXAMPLE_LENGTH	200		/* characters */
#define NOT_SHOWN		"(a value that you may not read)"

#define OWN_FAMILIES	(KEY_PATH | KEY_TAIL)
#define AUDIO_FAMILIES	(OWN_FAMILIES | KEY_STEM | KEY_STEM_TAIL)

/* The rows that find_differences() joins. */
enum
{
	REFERENCES, REFERENCE_KEYS, FILE_KEYS, STORES
};

static const struct
{
	const char *name;
	int			n_columns;
	SqlColumn	columns[5];
}			stores[STORES] = {

	/* shown: NULL: the value */
	{"cleanup_references", 5, {{"id", INT8OID}, {"source", TEXTOID}, {"status", TEXTOID}, {"value", TEXTOID}, {"shown", TEXTOID}}},
	{"cleanup_reference_keys", 2, {{"key", INT8OID}, {"id", INT8OID}}},
	{"cleanup_file_keys", 1, {{"key", INT8OID}}}
};

typedef struct MissingSearch
{
	Tuplestorestate *result;
	TupleDesc	result_desc;
	const Context *context;
	FileStore  *store;
	const KeyRules *rules;
	KeyScope	scope;
	int64		n;				/* number of references */
	int64		id;				/* the reference whose keys are being made */
	int			keys_to;		/* the one of `rows` that gets keys */
	Tuplestorestate *rows[STORES];
	TupleDesc	descs[STORES];
	const bool *may_show;		/* for each column of the source that is being
								 * read, whether the caller may read it */
} MissingSearch;


/* -------------------------------------------------------------- references --- */

/*
 * Returns whether the value can be judged.  If the encoding of the database is
 * not UTF-8, a name on disk and a value are known to have the same bytes only
 * if both are ASCII.
 */
static bool
can_be_judged(const MissingSearch *search, const char *value, size_t len)
{
	for (size_t i = 0; !search->rules->utf8 && i < len; i++)
		if (IS_HIGHBIT_SET(value[i]))
			return false;
	return true;
}

/*
 * Returns the part of a value that is shown to a caller who may not read the
 * value: the name of a file, without host, folders and query, if the value is
 * nothing more.
 */
static const char *
name_alone(const MissingSearch *search, const char *value, size_t len)
{
	char	   *name;
	char	   *slash;

	if (len > EXAMPLE_LENGTH)
		return NOT_SHOWN;
	name = pnstrdup(value, len);
	name[strcspn(name, "?#")] = '\0';
	slash = strrchr(name, '/');
	if (slash != NULL)
		name = slash + 1;
	return strpbrk(name, " \t\r\n\"'{}[]<>,;=&%\\") == NULL && key_is_audio(search->rules, name) ? name : NOT_SHOWN;
}

static void
add_reference(MissingSearch *search, const SourceRow *row, const char *value, size_t len, bool may_show)
{
	Datum		values[5];
	bool		nulls[5] = {false, false, row->session == NULL, false, may_show};

	values[0] = Int64GetDatum(search->n++);
	values[1] = CStringGetTextDatum(row->source->name);
	values[2] = row->session ? CStringGetTextDatum(row->session) : (Datum) 0;
	values[3] = PointerGetDatum(cstring_to_text_with_len(value, (int) len));
	values[4] = may_show ? (Datum) 0 : CStringGetTextDatum(name_alone(search, value, len));
	tuplestore_putvalues(search->rows[REFERENCES], search->descs[REFERENCES], values, nulls);
}

static bool
look_for_missing(const SourceRow *row, void *arg)
{
	MissingSearch *search = arg;

	progress_tick();
	for (int i = 0; i < row->source->n_columns; i++)
		if (row->values[i] != NULL &&
			key_may_refer(search->rules, row->values[i], row->lengths[i]) &&
			can_be_judged(search, row->values[i], row->lengths[i]))
			add_reference(search, row, row->values[i], row->lengths[i], search->may_show[i]);
	return true;
}

static void
read_sources(MissingSearch *search)
{
	List	   *sources = sources_load(search->context->extension);
	List	   *brakes = sources_check_all(sources);

	brake_raise_if(brakes == NIL ? NULL : linitial(brakes));
	progress_set_phase(PHASE_MATCHING);
	foreach_ptr(const Source, source, sources)
	{
		search->may_show = sources_columns_to_show(source);
		sources_read(InvalidSnapshot, source, SCAN_STATUS, 0, look_for_missing, search);
	}
}

static void
write_key(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	MissingSearch *search = arg;
	Datum		values[] = {Int64GetDatum((int64) key), Int64GetDatum(search->id)};
	bool		nulls[] = {false, false};

	tuplestore_putvalues(search->rows[search->keys_to], search->descs[search->keys_to], values, nulls);
}

/*
 * Writes the keys of the references.  Must run when all files are known,
 * because the files limit how long a path can be.
 */
static void
write_reference_keys(MissingSearch *search)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(search->descs[REFERENCES], &TTSOpsMinimalTuple);

	search->keys_to = REFERENCE_KEYS;
	tuplestore_rescan(search->rows[REFERENCES]);
	while (tuplestore_gettupleslot(search->rows[REFERENCES], true, false, slot))
	{
		bool		isnull;
		text	   *value = DatumGetTextPP(slot_getattr(slot, 4, &isnull));

		progress_tick();
		search->id = DatumGetInt64(slot_getattr(slot, 1, &isnull));
		key_of_reference(search->rules, &search->scope, VARDATA_ANY(value),
						 VARSIZE_ANY_EXHDR(value), write_key, search);
	}
	ExecDropSingleTupleTableSlot(slot);
}


/* ------------------------------------------------------------------- files --- */

static void
look_at_file(const char *path, void *arg)
{
	MissingSearch *search = arg;

	progress_add(PROGRESS_WALKED, 1);
	if (!plan_is_readable_name(search->context->settings, path))
		return;
	key_widen_scope(search->rules, path, &search->scope);
	key_of_file(search->rules, path,
				key_is_audio(search->rules, path) ? AUDIO_FAMILIES : OWN_FAMILIES,
				write_key, search);
}


/* ------------------------------------------------------------------ result --- */

/*
 * Returns why no walk reaches the file that `value` may mean, or NULL.  The
 * value is a path, or a URL in which the path may begin at any slash.
 */
static const char *
why_not_walked(const MissingSearch *search, const char *value)
{
	const char *path = value;

	for (; path != NULL; path = strchr(path, '/'))
	{
		size_t		len;
		WalkReason	reason;

		path += strspn(path, "/");
		if (*path == '\0' || strlen(path) >= STORE_PATH_MAX)
			continue;
		reason = walk_why_not(search->store, path, search->context->settings->recurse, &len);
		if (reason == WALK_SYMLINK || reason == WALK_MOUNT || reason == WALK_SUBVOLUME)
			return walk_reason_text(reason);
	}
	return NULL;
}

/* Returns the examples, each with the reason if its file may lie in a place that is not walked. */
static Datum
explain_examples(const MissingSearch *search, Datum array)
{
	int			n;
	const char **examples = sql_texts(array, &n);
	List	   *explained = NIL;

	for (int i = 0; i < n; i++)
	{
		const char *reason = why_not_walked(search, examples[i]);

		explained = lappend(explained, reason == NULL ? unconstify(char *, examples[i]) :
							psprintf("%s (not looked into: %s)", examples[i], reason));
	}
	return sql_text_array(explained);
}

static void
put_result(const MissingSearch *search, int n)
{
	for (int row = 0; row < n; row++)
	{
		Datum		values[] = {
			sql_value(row, 1), sql_value(row, 2), sql_value(row, 3), sql_value(row, 4),
			explain_examples(search, sql_value(row, 5))
		};
		bool		nulls[] = {false, sql_is_null(row, 2), false, false, false};

		tuplestore_putvalues(search->result, search->result_desc, values, nulls);
	}
}

static void
find_differences(MissingSearch *search)
{
	for (int i = 0; i < STORES; i++)
		sql_show_tuplestore(stores[i].name, search->rows[i], search->descs[i]);
	put_result(search, owner_query_by_hash(search->context->extension,
										   SQL_ARGS(SQL_INT4(EXAMPLES), SQL_INT4(EXAMPLE_LENGTH)),
										   "SELECT m.source, m.status, count(*), count(*) FILTER (WHERE m.missing),"
										   " coalesce(array_agg(DISTINCT left(m.shown, $2) COLLATE \"C\")"
										   "  FILTER (WHERE m.missing AND m.n <= $1), '{}')"
										   " FROM (SELECT j.*, dense_rank() OVER (PARTITION BY j.source, j.status, j.missing"
										   "   ORDER BY j.value COLLATE \"C\") AS n"
										   "  FROM (SELECT r.source, r.status, r.value, coalesce(r.shown, r.value) AS shown, t.id IS NULL AS missing"
										   "   FROM cleanup_references r LEFT JOIN (SELECT DISTINCT h.id"
										   "    FROM cleanup_reference_keys h WHERE EXISTS (SELECT FROM cleanup_file_keys f WHERE f.key = h.key)) t"
										   "   ON t.id = r.id) j) m"
										   " GROUP BY m.source, m.status"
										   " ORDER BY m.source COLLATE \"C\", m.status COLLATE \"C\""));
	for (int i = 0; i < STORES; i++)
		tuplestore_end(search->rows[i]);
}

static void
begin_search(MissingSearch *search, const CleanupPlan *plan)
{
	search->context = plan_context(plan);
	search->store = plan_findings(plan)->store;
	search->rules = search->context->settings->rules;
	search->scope.context = CurrentMemoryContext;

	/*
	 * a filter is enough, because find_differences() joins the keys
	 * themselves
	 */
	search->scope.keys_expected = SIZE_MAX;
	for (int i = 0; i < STORES; i++)
	{
		search->rows[i] = tuplestore_begin_heap(true, false, work_mem);
		search->descs[i] = sql_row_desc(stores[i].n_columns, stores[i].columns);
	}
	search->keys_to = FILE_KEYS;
}

static Jsonb *
find_missing(CleanupPlan *plan, void *arg)
{
	MissingSearch *search = arg;
	int			limit = lock_limit_waits(plan_context(plan)->settings->writer_wait);

	progress_begin("sql", true, false);
	plan_open_directory(plan);
	if (plan_findings(plan)->store == NULL)
		brake_raise_if(linitial(plan_findings(plan)->brakes));
	begin_search(search, plan);
	read_sources(search);
	plan_walk(plan, look_at_file, search);
	write_reference_keys(search);
	find_differences(search);
	lock_end_limit(limit);
	return NULL;
}

void
missing_files(Tuplestorestate *rows, TupleDesc desc)
{
	MissingSearch search = {rows, desc};

	(void) plan_call(CLEAN_ALL, true, false, find_missing, &search);
}
