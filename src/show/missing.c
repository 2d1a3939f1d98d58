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
	Tuplestorestate *references;	/* id, source, status, value, what is
									 * shown (NULL: the value) */
	Tuplestorestate *reference_keys;	/* id, key */
	Tuplestorestate *file_keys; /* key */
	TupleDesc	references_desc;
	TupleDesc	reference_keys_desc;
	TupleDesc	file_keys_desc;
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
	tuplestore_putvalues(search->references, search->references_desc, values, nulls);
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
		sources_read(source, SCAN_STATUS, 0, look_for_missing, search);
	}
}

static void
write_reference_key(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	MissingSearch *search = arg;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	values[0] = Int64GetDatum(search->id);
	values[1] = Int64GetDatum((int64) key);
	tuplestore_putvalues(search->reference_keys, search->reference_keys_desc, values, nulls);
}

/*
 * Writes the keys of the references.  Must run when all files are known,
 * because the files limit how long a path can be.
 */
static void
write_reference_keys(MissingSearch *search)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(search->references_desc, &TTSOpsMinimalTuple);

	tuplestore_rescan(search->references);
	while (tuplestore_gettupleslot(search->references, true, false, slot))
	{
		bool		isnull;
		text	   *value = DatumGetTextPP(slot_getattr(slot, 4, &isnull));

		progress_tick();
		search->id = DatumGetInt64(slot_getattr(slot, 1, &isnull));
		key_of_reference(search->rules, &search->scope, VARDATA_ANY(value),
						 VARSIZE_ANY_EXHDR(value), write_reference_key, search);
	}
	ExecDropSingleTupleTableSlot(slot);
}


/* ------------------------------------------------------------------- files --- */

static void
write_key_of_file(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	MissingSearch *search = arg;
	Datum		value = Int64GetDatum((int64) key);
	bool		isnull = false;

	tuplestore_putvalues(search->file_keys, search->file_keys_desc, &value, &isnull);
}

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
				write_key_of_file, search);
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
		Datum		values[5];
		bool		nulls[5];

		for (int column = 0; column < 5; column++)
		{
			values[column] = sql_value(row, column + 1);
			nulls[column] = sql_is_null(row, column + 1);
		}
		values[4] = explain_examples(search, values[4]);
		tuplestore_putvalues(search->result, search->result_desc, values, nulls);
	}
}

static void
find_differences(MissingSearch *search)
{
	sql_show_tuplestore("cleanup_references", search->references, search->references_desc);
	sql_show_tuplestore("cleanup_reference_keys", search->reference_keys, search->reference_keys_desc);
	sql_show_tuplestore("cleanup_file_keys", search->file_keys, search->file_keys_desc);
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
}

static void
begin_search(MissingSearch *search, const CleanupPlan *plan)
{
	static const SqlColumn references[] = {
		{"id", INT8OID}, {"source", TEXTOID}, {"status", TEXTOID}, {"value", TEXTOID}, {"shown", TEXTOID}
	};
	static const SqlColumn reference_keys[] = {{"id", INT8OID}, {"key", INT8OID}};
	static const SqlColumn file_keys[] = {{"key", INT8OID}};

	search->context = plan_context(plan);
	search->store = plan_findings(plan)->store;
	search->rules = search->context->settings->rules;
	search->scope.context = CurrentMemoryContext;

	/*
	 * a filter is enough, because find_differences() joins the keys
	 * themselves
	 */
	search->scope.keys_expected = SIZE_MAX;
	search->references = tuplestore_begin_heap(true, false, work_mem);
	search->reference_keys = tuplestore_begin_heap(true, false, work_mem);
	search->file_keys = tuplestore_begin_heap(true, false, work_mem);

	search->references_desc = sql_row_desc(lengthof(references), references);
	search->reference_keys_desc = sql_row_desc(lengthof(reference_keys), reference_keys);
	search->file_keys_desc = sql_row_desc(lengthof(file_keys), file_keys);
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
	tuplestore_end(search->references);
	tuplestore_end(search->reference_keys);
	tuplestore_end(search->file_keys);
	lock_end_limit(limit);
	return NULL;
}

void
missing_files(Tuplestorestate *rows, TupleDesc desc)
{
	MissingSearch search = {rows, desc};

	(void) plan_call(CLEAN_ALL, true, false, find_missing, &search);
}
