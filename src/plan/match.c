/*-------------------------------------------------------------------------
 *
 * plan/match.c
 *	  Finds out which files the registered sources refer to.
 *
 * The files are known first, and then the references are read one by one:
 *
 *	1.	match_add(): each path goes into the list `names`.
 *	2.	The keys of all names go into the KeyScope, which gets the size that
 *		they need.
 *	3.	Every row of every source is searched for names of the scope, and each
 *		key that is found is marked there, with its source.
 *	4.	A file with a marked key is referred to.  If several files have a marked
 *		key, the names are read once more.
 *
 * If the keys are too many for the memory of the scope, then the scope is a
 * filter.  The keys of references that pass the filter go into the tuplestore
 * `hits`, and the executor joins them with the keys of the files: a hash join of
 * 64-bit integers whose sizes the planner knows.
 *
 * Rows of failed sessions are kept apart, with their session and their text:
 * all such rows in `failed`, and the rows that condemn in `judged`.  A failed
 * row that does not condemn, because another transaction has the row locked,
 * protects like any other.  These rows are always joined.
 *
 * A match takes two thirds of maintenance_work_mem, a few times work_mem, and a
 * few bits for each file and each source.
 *
 * If a reference matches by mistake (a collision of hashes), a file is kept.
 * Where a match condemns, in match_failed(), the texts are compared.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "src/names/file_key.h"
#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/pg/texts.h"
#include "src/plan/match.h"
#include "src/sources/sources.h"

/*
 * Slots for the last hits.  A name that every row has ("recording.mp3") would
 * put as many hits into the join as there are rows.  So a hit that is equal to
 * the last hit of its slot is left out.
 */
#define RECENT_HITS		8192

/*
 * Largest filter of a KeyScope, which takes at most a quarter of work_mem.  With
 * 200,000 files a filter of 1 MB passes one in twenty references, which the index
 * of the keys then drops.  A larger filter does not fit into the processor's
 * cache.
 */
#define FILTER_MAX_BYTES	(UINT64CONST(64) * 1024 * 1024)

#define KEYS_MAX_BYTES		((Size) maintenance_work_mem * 1024 / 3 * 2)

typedef uint8 *Bits;			/* one bit a file, or a key of the scope */

/*
 * The last hit of a slot.  The key is kept whole: a user who chooses a name
 * can choose its hash, and a hit with another key and an equal hash would be a
 * lost reference.
 */
typedef struct RecentHit
{
	uint64		key;			/* 0: the slot is empty */
	int			source;
} RecentHit;

/* The tuplestores of a match. */
typedef enum MatchStore
{
	STORE_NAMES,				/* id, path; of files whose names statements
								 * need: see show_name() */
	STORE_KEYS,					/* id, key */
	STORE_HITS,					/* key, source */
	STORE_FAILED,				/* key, source, session, value (NULL if long) */
	STORE_JUDGED,				/* key, source, session, value (NULL if long) */
	N_STORES
} MatchStore;

/* The files that one source refers to.  A set that is NULL is empty. */
typedef struct SourceFiles
{
	int64		rows;
	Bits		keys;			/* keys in its rows without a session */
	Bits		protected_files;
	Bits		referenced;
} SourceFiles;

struct Match
{
	MemoryContext context;
	const Settings *settings;
	const char *claim;
	KeyScope	scope;
	List	   *sources;
	TextList   *names;
	int64		count;
	uint64		transactions_ended; /* see match_transactions_ended() */
	uint64		none_referred_at;	/* see match_none_referred() */
	int			families_hit;
	Bits		session_keys;	/* keys in rows with a session */
	RecentHit  *recent;

	Tuplestorestate *stores[N_STORES];
	TupleDesc	descs[N_STORES];

	Bits		protected_files;	/* files that a row of no judged session
									 * refers to */
	Bits		referenced;		/* files that any row refers to */
	Bits		held;			/* files that cleanup_hold() holds */
	Bits		pending;		/* files that are condemned already */
	Bits		restored;		/* files that were restored lately, or are
								 * about to be restored */
	Bits		vague;			/* files that share a name with too many files
								 * and rows of failed sessions */
	Bits		marked;			/* files that match_mark() has marked */
	Bits		shown;			/* files that are in STORE_NAMES */
	SourceFiles *of_source;		/* sets of each source, by its number */
};


/* ---------------------------------------------------------------- memory --- */

static void
make_stores(Match *match)
{
	static const SqlColumn columns[N_STORES][4] = {
		{{"id", INT8OID}, {"path", TEXTOID}},
		{{"id", INT8OID}, {"key", INT8OID}},
		{{"key", INT8OID}, {"source", INT4OID}},
		{{"key", INT8OID}, {"source", INT4OID}, {"session", TEXTOID}, {"value", TEXTOID}},
		{{"key", INT8OID}, {"source", INT4OID}, {"session", TEXTOID}, {"value", TEXTOID}}
	};

	for (int i = 0; i < N_STORES; i++)
	{
		match->stores[i] = tuplestore_begin_heap(true, false, work_mem);
		match->descs[i] = sql_row_desc(i < STORE_FAILED ? 2 : 4, columns[i]);
	}
}

/* Adds a row to a tuplestore.  Only its last column may be NULL. */
static void
put_row(Match *match, MatchStore store, Datum *values, bool last_is_null)
{
	bool		nulls[4] = {false, false, false, last_is_null};

	tuplestore_putvalues(match->stores[store], match->descs[store], values, nulls);
}

static Bits
make_set(Match *match, int64 members)
{
	return MemoryContextAllocExtended(match->context, members / 8 + 1, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
}

static inline void
add_to_set(Bits set, int64 member)
{
	set[member / 8] |= 1 << (member % 8);
}

static inline bool
is_in_set(const Bits set, int64 member)
{
	return (set[member / 8] & (1 << (member % 8))) != 0;
}

/* Returns the number of files in a set.  Counts at most a GB of the set at once, because pg_popcount() takes an int. */
static int64
count_set(const Match *match, const Bits set)
{
	Size		bytes = match->count / 8 + 1;
	int64		n = 0;

	for (Size i = 0; i < bytes; i += Min(bytes - i, (Size) MaxAllocSize))
		n += pg_popcount((const char *) set + i, (int) Min(bytes - i, (Size) MaxAllocSize));
	return n;
}

Match *
match_begin(const Settings *settings, const char *claim)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup match",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Match	   *match = palloc0(sizeof(Match));

	match->context = context;
	match->settings = settings;
	match->claim = claim;
	match->scope.context = context;
	match->scope.filter_max = Min((uint64) work_mem * 1024 / 4, FILTER_MAX_BYTES);
	match->scope.keys_max = KEYS_MAX_BYTES;
	match->scope.seed = pg_prng_uint64(&pg_global_prng_state);
	match->recent = palloc0(sizeof(RecentHit) * RECENT_HITS);
	match->names = texts_begin(work_mem);
	make_stores(match);
	MemoryContextSwitchTo(caller);
	return match;
}

void
match_end(Match *match)
{
	for (int i = 0; i < N_STORES; i++)
		tuplestore_end(match->stores[i]);
	texts_end(match->names);
	MemoryContextDelete(match->context);
}


/* ----------------------------------------------------------------- files --- */

void
match_add(Match *match, const char *path)
{
	match->scope.keys_expected += key_count_most(match->settings->rules, path);
	texts_add(match->names, path);
	match->count++;
}

void
match_any_folder(Match *match, bool any_folder)
{
	match->scope.any_folder = any_folder;
}

uint64
match_transactions_ended(const Match *match)
{
	return match->transactions_ended;
}

void
match_none_referred(Match *match, uint64 transactions_ended)
{
	match->none_referred_at = transactions_ended;
}

int64
match_count(const Match *match)
{
	return match->count;
}

/* Returns the path of the file, which is 0 or the next one after that of the last call; NULL at the end. */
static const char *
path_of_next(Match *match, int64 file)
{
	CHECK_FOR_INTERRUPTS();
	if (file == 0)
		texts_rewind(match->names);
	return texts_next(match->names);
}

/* Adds the name of a file to STORE_NAMES, once. */
static void
show_name(Match *match, int64 file, const char *path)
{
	Datum		values[] = {Int64GetDatum(file), CStringGetTextDatum(path)};

	if (is_in_set(match->shown, file))
		return;
	add_to_set(match->shown, file);
	put_row(match, STORE_NAMES, values, false);
	pfree(DatumGetPointer(values[1]));
}

static void
show_all_names(Match *match)
{
	const char *path;

	for (int64 file = 0; (path = path_of_next(match, file)) != NULL; file++)
		show_name(match, file, path);
}

static void
write_key(Match *match, int64 file, uint64 key)
{
	Datum		values[] = {Int64GetDatum(file), Int64GetDatum((int64) key)};

	put_row(match, STORE_KEYS, values, false);
}

Match *
match_begin_again(Match *match)
{
	Match	   *again = match_begin(match->settings, match->claim);
	const char *path;

	match_any_folder(again, match->scope.any_folder);
	while ((path = path_of_next(match, again->count)) != NULL)
		match_add(again, path);
	match_end(match);
	return again;
}


/* ------------------------------------------------------------ references --- */

typedef struct HitWriter
{
	Match	   *match;
	MatchStore	store;			/* where rows with a session go */
	const Source *source;
	const char *session;
	const char *value;
	size_t		value_len;
} HitWriter;

static void
write_failed_hit(HitWriter *writer, uint64 key)
{
	bool		is_long = writer->value_len > KEY_STRICT_MAX;
	Datum		values[] = {
		Int64GetDatum((int64) key), Int32GetDatum(writer->source->number), CStringGetTextDatum(writer->session),
		is_long ? (Datum) 0 : PointerGetDatum(cstring_to_text_with_len(writer->value, (int) writer->value_len))
	};

	put_row(writer->match, writer->store, values, is_long);
}

static void
write_hit(HitWriter *writer, uint64 key)
{
	int			source = writer->source->number;
	RecentHit  *recent = &writer->match->recent[(key + source) % RECENT_HITS];
	Datum		values[] = {Int64GetDatum((int64) key), Int32GetDatum(source)};

	if (recent->key == key && recent->source == source)
		return;
	recent->key = key;
	recent->source = source;
	put_row(writer->match, STORE_HITS, values, false);
}

static void
consider_key(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	HitWriter  *writer = arg;
	Match	   *match = writer->match;
	Bits	   *marked = writer->session != NULL ? &match->session_keys : &match->of_source[writer->source->number].keys;
	int64		number = key_number(&match->scope, key);

	match->families_hit |= family;
	if (writer->session != NULL)
		write_failed_hit(writer, key);
	else if (number < 0)
		write_hit(writer, key);
	if (number < 0)
		return;
	if (*marked == NULL)
		*marked = make_set(match, match->scope.n_places);
	add_to_set(*marked, number);
}

static bool
consider_row(const SourceRow *row, void *arg)
{
	HitWriter  *writer = arg;
	Match	   *match = writer->match;

	/* a hit of a session must be written at once, with its session */
	bool		at_once = row->session != NULL;

	CHECK_FOR_INTERRUPTS();
	match->of_source[row->source->number].rows++;
	writer->source = row->source;
	writer->session = row->session;
	for (int i = 0; i < row->source->n_columns; i++)
	{
		if (row->values[i] == NULL)
			continue;
		writer->value = row->values[i];
		writer->value_len = row->lengths[i];
		(at_once ? key_of_reference : key_of_many)
			(match->settings->rules, &match->scope, writer->value, writer->value_len, consider_key, writer);
	}
	return true;
}

/* Returns whether the row refers to a file of this match. */
static bool
refers_to_file(const SourceRow *row, void *arg)
{
	Match	   *match = ((HitWriter *) arg)->match;
	bool		found = false;

	CHECK_FOR_INTERRUPTS();
	for (int i = 0; !found && i < row->source->n_columns; i++)
		if (row->values[i] != NULL)
			found = key_refers(match->settings->rules, &match->scope, row->values[i], row->lengths[i]);
	return found;
}

/* Reads a source under the snapshot; with SCAN_LOCKING_FAILED, under a snapshot of its own. */
static void
read_one_source(HitWriter *writer, const Source *source, SourceScan scan, TimestampTz failed_before, Snapshot snapshot)
{
	if (scan == SCAN_LOCKING_FAILED)
		sources_lock_failed(source, failed_before, refers_to_file, consider_row, writer);
	else
		sources_read(snapshot, source, scan, failed_before, consider_row, writer);
	writer->source = source;
	writer->session = NULL;
	key_of_many_end(&writer->match->scope, consider_key, writer);
}

static void
read_references(Match *match, List *sources, MatchMode mode, TimestampTz failed_before)
{
	HitWriter	writer = {.match = match};
	Snapshot	snapshot;

	match->transactions_ended = sources_transactions_ended();
	if (match->transactions_ended != 0 && match->transactions_ended == match->none_referred_at && sources_are_stored_here(sources))
		return;

	/* rows are locked before the snapshot that shows the other references */
	if (mode == MATCH_JUDGE_LOCKED)
	{
		writer.store = STORE_JUDGED;
		foreach_ptr(const Source, source, sources)
		{
			read_one_source(&writer, source, SCAN_LOCKING_FAILED, failed_before, InvalidSnapshot);
			match->of_source[source->number].rows = 0;
		}
	}
	writer.store = mode == MATCH_JUDGE_LOCKED ? STORE_FAILED : STORE_JUDGED;

	/* one snapshot for all sources, between which a row may move */
	snapshot = sources_take_snapshot();
	foreach_ptr(const Source, source, sources)
		read_one_source(&writer, source, mode == MATCH_PROTECT ? SCAN_REFERENCES : SCAN_JUDGING,
						failed_before, snapshot);
	UnregisterSnapshot(snapshot);
}


/* --------------------------------------------------------------- marking --- */

/* Notes that a row of the source refers to the file; `protects` says that the row is no judged failed session. */
static void
refer_to(Match *match, int64 file, int source, bool protects)
{
	SourceFiles *of_source = &match->of_source[source];

	if (of_source->referenced == NULL)
	{
		of_source->referenced = make_set(match, match->count);
		of_source->protected_files = make_set(match, match->count);
	}
	add_to_set(match->referenced, file);
	add_to_set(of_source->referenced, file);
	if (!protects)
		return;
	add_to_set(match->protected_files, file);
	add_to_set(of_source->protected_files, file);
}

/*
 * Notes the sources that refer to a file by this key.  Returns whether there
 * is such a source.
 */
static bool
refer_by_key(Match *match, int64 number, int64 file)
{
	int			n = list_length(match->sources);
	bool		any = false;

	for (int i = 0; i < n; i++)
		if (match->of_source[i].keys != NULL && is_in_set(match->of_source[i].keys, number))
		{
			refer_to(match, file, i, true);
			any = true;
		}
	return any;
}

/* The marks of a match, on the way from keys to files. */
typedef struct Marks
{
	Match	   *match;
	int64		file;
	const char *path;
	bool		by_names;		/* the names must be read once more */
} Marks;

static void
look_at_number(int64 number, int64 file, bool is_shared, void *arg)
{
	Marks	   *marks = arg;

	CHECK_FOR_INTERRUPTS();
	if (refer_by_key(marks->match, number, file))
		marks->by_names |= is_shared;
}

static void
look_at_key(KeyFamily family, uint64 key, const char *text, size_t len, void *arg)
{
	Marks	   *marks = arg;
	Match	   *match = marks->match;
	int64		number = key_number(&match->scope, key);

	if (match->scope.too_many)
		write_key(match, marks->file, key);
	if (number < 0)
		return;
	if (match->session_keys != NULL && is_in_set(match->session_keys, number))
	{
		write_key(match, marks->file, key);
		show_name(match, marks->file, marks->path);
	}
	(void) refer_by_key(match, number, marks->file);
}

static void
follow_marks(Match *match)
{
	Marks		marks = {.match = match,.by_names = match->scope.too_many || match->session_keys != NULL};

	key_each_number(&match->scope, look_at_number, &marks);
	if (!marks.by_names)
		return;
	for (; (marks.path = path_of_next(match, marks.file)) != NULL; marks.file++)
		key_of_file(match->settings->rules, marks.path, match->families_hit, look_at_key, &marks);
}


/* --------------------------------------------------------------- joining --- */

static const char *const store_names[N_STORES] = {
	"cleanup_names", "cleanup_keys", "cleanup_hits", "cleanup_failed", "cleanup_judged"
};

static void
show_tuplestores(Match *match)
{
	for (int i = 0; i < N_STORES; i++)
		sql_show_tuplestore(store_names[i], match->stores[i], match->descs[i]);
}

/*
 * Receives files.  Adds the files to `set`; or, without a set, notes that the
 * source in the second column refers to the files.
 */
typedef struct FileReceiver
{
	DestReceiver pub;
	Match	   *match;
	Bits		set;
	bool		protects;
} FileReceiver;

static bool
receive_file(TupleTableSlot *slot, DestReceiver *self)
{
	FileReceiver *receiver = (FileReceiver *) self;
	bool		isnull;
	int64		file = DatumGetInt64(slot_getattr(slot, 1, &isnull));

	if (receiver->set != NULL)
		add_to_set(receiver->set, file);
	else
		refer_to(receiver->match, file, DatumGetInt32(slot_getattr(slot, 2, &isnull)), receiver->protects);
	return true;
}

static void
collect_files(Match *match, const Extension *extension, const char *sql, Bits set, bool protects)
{
	FileReceiver receiver = {*None_Receiver, match, set, protects};

	receiver.pub.receiveSlot = receive_file;
	owner_query_into(extension, 0, NULL, sql, &receiver.pub);
}

/*
 * Keys that many files share, and many rows of judged failed sessions: each
 * such file would be compared with each such row.  A million comparisons take
 * about ten seconds.
 */
#define VAGUE_KEYS \
	"(SELECT k.key FROM (SELECT key, count(*) AS n FROM cleanup_keys GROUP BY key) k" \
	" JOIN (SELECT key, count(*) AS n FROM cleanup_judged GROUP BY key) j ON j.key = k.key WHERE k.n::float8 * j.n > 1e6)"

/*
 * Joins hits that are not marked in the scope with the keys of the files.  As
 * a rule there are no such hits.  Each key comes once for a source: the name of
 * many files may stand in many rows.
 */
static void
collect_references(Match *match, const Extension *extension)
{
	if (tuplestore_tuple_count(match->stores[STORE_HITS]) > 0)
		collect_files(match, extension, "SELECT k.id, h.source FROM cleanup_keys k"
					  " JOIN (SELECT DISTINCT key, source FROM cleanup_hits) h ON h.key = k.key",
					  NULL, true);
	if (tuplestore_tuple_count(match->stores[STORE_FAILED]) > 0)
		collect_files(match, extension, "SELECT k.id, f.source FROM cleanup_keys k"
					  " JOIN (SELECT DISTINCT f.key, f.source FROM cleanup_failed f"
					  "  WHERE NOT EXISTS (SELECT FROM cleanup_judged j WHERE j.key = f.key"
					  "  AND j.source = f.source AND j.session = f.session COLLATE \"C\")) f ON f.key = k.key",
					  NULL, true);
	if (tuplestore_tuple_count(match->stores[STORE_JUDGED]) == 0)
		return;
	collect_files(match, extension, "SELECT k.id, j.source FROM cleanup_keys k"
				  " JOIN (SELECT DISTINCT key, source FROM cleanup_judged) j ON j.key = k.key",
				  NULL, false);
	collect_files(match, extension, "SELECT k.id FROM cleanup_keys k JOIN " VAGUE_KEYS " v ON v.key = k.key",
				  match->vague, false);
}

static void
collect_named(Match *match, const Extension *extension, const char *file, const char *condition,
			  Bits set)
{
	collect_files(match, extension,
				  psprintf("SELECT n.id FROM cleanup_names n JOIN @extschema@.cleanup_files f"
						   " ON %s = n.path COLLATE \"C\""
						   " JOIN @extschema@.cleanup_runs r ON r.run_id = f.run_id"
						   " WHERE %s AND r.claim::text = %s",
						   file, condition,
						   match->claim != NULL ? quote_literal_cstr(match->claim) : "NULL"),
				  set, false);
}

/* The condition on a row f of cleanup_files: the file is being restored, or was restored lately. */
static char *
restored_lately(const Match *match)
{
	return psprintf("(f.state = 'restoring' OR f.state = 'restored'"
					" AND f.finished_at > clock_timestamp() - CASE f.reason WHEN 'failed_session'"
					"  THEN pg_catalog.make_interval(days => %d)"
					"  ELSE pg_catalog.make_interval(hours => %d) END)",
					match->settings->failed_session_retention_days, match->settings->orphaned_file_retention_hours);
}

/*
 * Returns whether our own tables have any row that may be about one of these
 * files.  As a rule there is no such row.  The history may be long, so partial
 * indexes have the same conditions.
 */
static bool
any_named(const Match *match, const Extension *extension, bool with_spoken_for)
{
	/* holds are read without an index, which may be broken */
	return owner_query(extension, 0, NULL, "SELECT FROM @extschema@.cleanup_holds LIMIT 1") > 0 ||
		(!with_spoken_for &&
		 (owner_finds(extension, 0, NULL, "SELECT FROM @extschema@.cleanup_files WHERE state = 'pending' LIMIT 1") ||
		  owner_finds(extension, 0, NULL, psprintf("SELECT FROM @extschema@.cleanup_files f WHERE %s LIMIT 1",
												   restored_lately(match)))));
}

static void
join_all(Match *match, const Extension *extension, bool named, bool with_spoken_for)
{
	show_tuplestores(match);
	collect_references(match, extension);
	if (named)
		collect_files(match, extension, "SELECT n.id FROM cleanup_names n JOIN @extschema@.cleanup_holds h"
					  " ON h.file = n.path COLLATE \"C\"", match->held, false);
	if (named && !with_spoken_for)
	{
		collect_named(match, extension, "f.file", "f.state = 'pending' AND f.upload_id IS NULL", match->pending);
		collect_named(match, extension, "coalesce(f.restore_as, f.file)", restored_lately(match), match->restored);
	}
}

void
match_run(Match *match, const Extension *extension, List *sources, MatchMode mode,
		  TimestampTz failed_before, bool with_spoken_for)
{
	MemoryContext caller = MemoryContextSwitchTo(match->context);
	ActingAs	saved;
	bool		named;
	const char *path;

	match->sources = sources;
	match->of_source = palloc0(sizeof(SourceFiles) * (list_length(sources) + 1));
	for (int64 file = 0; (path = path_of_next(match, file)) != NULL; file++)
		key_widen_scope(match->settings->rules, path, &match->scope);
	read_references(match, sources, mode, failed_before);

	match->protected_files = make_set(match, match->count);
	match->referenced = make_set(match, match->count);
	match->held = make_set(match, match->count);
	match->pending = make_set(match, match->count);
	match->restored = make_set(match, match->count);
	match->vague = make_set(match, match->count);
	match->marked = make_set(match, match->count);
	match->shown = make_set(match, match->count);
	follow_marks(match);

	role_act_as(extension->owner, &saved);
	role_read_strictly();
	named = any_named(match, extension, with_spoken_for);
	if (named)
		show_all_names(match);
	join_all(match, extension, named, with_spoken_for);
	role_stop_acting(&saved);
	MemoryContextSwitchTo(caller);
}


/* ---------------------------------------------------------------- asking --- */

int64
match_count_referenced(const Match *match)
{
	return count_set(match, match->referenced);
}

void
match_count_source(const Match *match, int number, MatchCounts *counts)
{
	const SourceFiles *of_source = &match->of_source[number];

	counts->rows = of_source->rows;
	counts->files = of_source->referenced ? count_set(match, of_source->referenced) : 0;
	counts->protected_files = of_source->referenced ? count_set(match, of_source->protected_files) : 0;
}

const char *
match_why_kept(const Match *match, int64 file)
{
	if (is_in_set(match->held, file))
		return "it is held";
	if (is_in_set(match->vague, file))
		return "too many files and failed sessions share its name";
	return is_in_set(match->restored, file) ? "it was restored lately" : NULL;
}

int64
match_count_vague(const Match *match)
{
	return count_set(match, match->vague);
}

bool
match_is_pending(const Match *match, int64 file)
{
	return is_in_set(match->pending, file);
}

static bool
is_candidate(const Match *match, int64 file)
{
	return !match_is_pending(match, file) && match_why_kept(match, file) == NULL;
}

const char *
match_why_needed(const Match *match, int64 file)
{
	if (is_in_set(match->protected_files, file))
		return "it is referred to again";
	return is_in_set(match->held, file) ? "it is held" : NULL;
}

bool
match_mark(Match *match, int64 file)
{
	bool		first = !is_in_set(match->marked, file);

	add_to_set(match->marked, file);
	return first;
}

void
match_unreferenced(Match *match, MatchSink sink, void *arg)
{
	const char *path;

	for (int64 file = 0; (path = path_of_next(match, file)) != NULL; file++)
		if (!is_in_set(match->referenced, file) && is_candidate(match, file))
			sink(file, path, NULL, NULL, false, arg);
}

/*
 * Gathers the rows of one file and session, and passes on one call for all
 * these rows.
 */
typedef struct FailedReceiver
{
	DestReceiver pub;
	Match	   *match;
	MatchSink	sink;
	void	   *arg;
	MemoryContext row_context;
	MemoryContext context;		/* has session and path */
	int64		file;
	int			source;
	char	   *session;		/* NULL: no rows are gathered */
	char	   *path;
	KeyMatch	strength;
} FailedReceiver;

static void
pass_failed(FailedReceiver *receiver)
{
	if (receiver->session != NULL && receiver->strength != KEY_NO_MATCH)
		receiver->sink(receiver->file, receiver->path,
					   list_nth(receiver->match->sources, receiver->source),
					   receiver->session, receiver->strength == KEY_STRICT_MATCH, receiver->arg);
	receiver->session = NULL;
	MemoryContextReset(receiver->context);
}

static void
gather_failed(FailedReceiver *receiver, int64 file, TupleTableSlot *slot)
{
	Match	   *match = receiver->match;
	bool		isnull;
	int			source = DatumGetInt32(slot_getattr(slot, 3, &isnull));
	char	   *session = TextDatumGetCString(slot_getattr(slot, 4, &isnull));
	Datum		value = slot_getattr(slot, 5, &isnull);
	KeyMatch	strength = KEY_LOOSE_MATCH; /* a long value, which is not kept */

	if (receiver->session != NULL &&
		(receiver->file != file || receiver->source != source ||
		 strcmp(receiver->session, session) != 0))
		pass_failed(receiver);
	if (receiver->session == NULL)
	{
		char	   *path = TextDatumGetCString(slot_getattr(slot, 2, &isnull));

		receiver->file = file;
		receiver->source = source;
		receiver->session = MemoryContextStrdup(receiver->context, session);
		receiver->path = MemoryContextStrdup(receiver->context, path);
		receiver->strength = KEY_NO_MATCH;
	}
	if (DatumGetPointer(value) != NULL)
		strength = key_compare(match->settings->rules, VARDATA_ANY(DatumGetTextPP(value)),
							   VARSIZE_ANY_EXHDR(DatumGetTextPP(value)), receiver->path);
	/* a value that goes by a symlink names the file by another path */
	if (match->scope.any_folder)
		strength = Max(strength, KEY_LOOSE_MATCH);
	receiver->strength = Max(receiver->strength, strength);
}

static bool
receive_failed(TupleTableSlot *slot, DestReceiver *self)
{
	FailedReceiver *receiver = (FailedReceiver *) self;
	Match	   *match = receiver->match;
	bool		isnull;
	int64		file = DatumGetInt64(slot_getattr(slot, 1, &isnull));
	MemoryContext caller = MemoryContextSwitchTo(receiver->row_context);

	CHECK_FOR_INTERRUPTS();
	if (!is_in_set(match->protected_files, file) && is_candidate(match, file))
		gather_failed(receiver, file, slot);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(receiver->row_context);
	return true;
}

void
match_failed(Match *match, const Extension *extension, MatchSink sink, void *arg)
{
	FailedReceiver receiver = {.pub = *None_Receiver,.match = match,.sink = sink,.arg = arg};
	ActingAs	saved;

	if (tuplestore_tuple_count(match->stores[STORE_JUDGED]) == 0)
		return;
	receiver.pub.receiveSlot = receive_failed;
	receiver.context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup failed session",
											 ALLOCSET_SMALL_SIZES);
	receiver.row_context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup row",
												 ALLOCSET_SMALL_SIZES);
	role_act_as(extension->owner, &saved);
	role_read_strictly();
	if (match->scope.too_many)
		show_all_names(match);
	show_tuplestores(match);
	owner_query_into(extension, 0, NULL,
					 psprintf("SELECT n.id, n.path, j.source, j.session, j.value"
							  " FROM cleanup_keys k JOIN cleanup_judged j ON j.key = k.key"
							  " JOIN cleanup_names n ON n.id = k.id %s"
							  " ORDER BY j.source, j.session COLLATE \"C\", n.path COLLATE \"C\"",
							  match_count_vague(match) > 0 ?
							  "WHERE NOT EXISTS (SELECT FROM " VAGUE_KEYS " v WHERE v.key = j.key)" : ""),
					 &receiver.pub);
	pass_failed(&receiver);
	role_stop_acting(&saved);
	MemoryContextDelete(receiver.context);
	MemoryContextDelete(receiver.row_context);
}
