/*-------------------------------------------------------------------------
 *
 * sources/register.c
 *	  Registers a source, and works out the arguments that were left out.
 *
 * Only a column whose name leaves no doubt is chosen, and a NOTICE shows the
 * choice.  A column too many keeps files too long; a column too few would
 * condemn files that are needed.  So every column whose name looks like a
 * reference to audio is taken.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "src/pg/compat.h"
#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/sources/citus.h"
#include "src/sources/query.h"
#include "src/sources/sources.h"

/*
 * Names of columns that refer to audio: a word for audio, mostly with a word
 * such as "path" or "url"; or only words for a file.
 */
#define FILE_COLUMN_PATTERN \
	"^((original_|stored_|processed_|raw_)?" \
	"(audio|recording|sound|voice|voicemail|media|track|clip|upload|uploaded)" \
	"(_?(file|recording|media|object|storage))?" \
	"_?(file|filename|file_name|filepath|file_path|path|name|url|uri|key|location|object)?s?" \
	"|(file|filename|file_name|filepath|file_path|file_url|file_key|storage_path|storage_key|object_key|key|path|url|uri))$"

/*
 * A column's name in the spelling of the patterns and lists here: audioUrl is
 * audio_url.  E'' has one meaning under any standard_conforming_strings.
 */
#define SPELLED(name) \
	"lower(regexp_replace(" name "::text, '([a-z0-9])([A-Z])', E'\\\\1_\\\\2', 'g')) COLLATE \"C\""

/*
 * The first of the candidates in $n that is the name of a column with a type
 * of the pattern.
 */
#define CHOSEN(n, types) \
	" (SELECT c.attname FROM columns c JOIN unnest($" n "::text[]) WITH ORDINALITY w(name, n) ON w.name = c.spelled" \
	" WHERE c.type ~ " types " ORDER BY w.n LIMIT 1)"

#define STATUS_COLUMNS		"{status,processing_status,session_status,state}"
#define FAILED_AT_COLUMNS	"{failed_at,status_changed_at,updated_at,modified_at,last_modified,updated,modified,processed_at,created_at}"
#define ID_COLUMNS			"{id,session_id,uuid}"

/* Finds out the purpose of the columns of relation $1 by their names and types. */
static const char *const choose_query =
"WITH RECURSIVE below(oid) AS (SELECT $1 UNION SELECT x.oid FROM below b CROSS JOIN LATERAL"
"  (SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = b.oid UNION ALL"
"   SELECT d.refobjid FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid"
"    AND d.refclassid = 'pg_class'::regclass WHERE w.ev_class = b.oid) x(oid)),"
" columns AS (SELECT a.attname::text, a.attnum, t.typcategory, " SPELLED("a.attname") " AS spelled,"
"  format_type(CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END, NULL) AS type"
"  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
"  WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped)"
" SELECT (SELECT array_agg(attname ORDER BY attnum) FROM columns WHERE typcategory = 'S' AND spelled ~ $2),"
 /* the column of a primary key of one column, else a usual name */
"  coalesce((SELECT c.attname FROM pg_index i JOIN columns c ON c.attnum = i.indkey[0]"
"   WHERE i.indrelid = $1 AND i.indisprimary AND i.indnkeyatts = 1)," CHOSEN("3", "'.'") "),"
CHOSEN("4", "'.'") "," CHOSEN("5", "'^(timestamp|date)'") ","

/*
 * Failed sessions are judged under a row lock.  The rows of a view that groups
 * rows cannot be locked, nor a row on another server.  So such a source has no
 * failed sessions, unless the caller names the columns.
 */
"  (SELECT relkind <> 'v' OR pg_relation_is_updatable(oid, true) & 4 <> 0 FROM pg_class WHERE oid = $1)"
"   AND NOT EXISTS (SELECT FROM below b JOIN pg_class c USING (oid) WHERE c.relkind = 'f' OR c.oid = ANY ($6))";

/* Works out the arguments that were left out. */
static void
choose_columns(SourceRegistration *registration, const char *name)
{
	List	   *unlockable = citus_can_lock_rows(registration->relid) ? NIL : citus_list_tables();

	sql_query(SQL_ARGS(SQL_OID(OIDOID, registration->relid), SQL_TEXT(FILE_COLUMN_PATTERN), SQL_TEXT(ID_COLUMNS),
					   SQL_TEXT(STATUS_COLUMNS), SQL_TEXT(FAILED_AT_COLUMNS),
					   SQL_OIDS(unlockable)), choose_query);
	if (registration->file_columns == 0 && sql_is_null(0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("no column of %s looks as if it referred to audio files", name),
				 errhint("Name them: cleanup_add_source('%s', file_columns => '{...}').", name)));
	if (registration->file_columns == 0)
		registration->file_columns = sql_array(0, 1);
	if (registration->id_column == NULL)
		registration->id_column = sql_text(0, 2);
	if (registration->failed_at_column == NULL)
		registration->failed_at_column = sql_text(0, 4);
	if (registration->status_column == NULL && registration->id_column != NULL &&
		registration->failed_at_column != NULL && DatumGetBool(sql_value(0, 5)))
		registration->status_column = sql_text(0, 3);
}

static void
check_arguments(const SourceRegistration *registration, const char *name)
{
	if (strcmp(registration->on_failed, "keep") != 0 && strcmp(registration->on_failed, "clear") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized value for on_failed: \"%s\"", registration->on_failed),
				 errhint("It is \"keep\" or \"clear\".")));
	if (pg_tzset(registration->timezone) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" not recognized", registration->timezone)));
	if (!compat_is_relation_owner(registration->relid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of %s", name),
				 errdetail("A source is read, and with on_failed => 'clear' written, as its owner.")));
}

/* Raises an ERROR unless the argument, a text[] of names, has a name, and no NULL. */
static void
require_names(Datum array, const char *argument, const char *what)
{
	ArrayType  *names = DatumGetArrayTypeP(array);

	if (ARR_NDIM(names) != 1 || array_contains_nulls(names))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must name at least one %s, and no NULL", argument, what)));
}

/* Raises an ERROR if a column is NULL without which no failed session of the source is found. */
static void
require_column(const char *column, const char *name, const char *argument, const char *hint)
{
	if (column == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("source %s has a status_column but no %s", name, argument),
				 errhint("%s", hint)));
}

/* Checks what choose_columns() has left or chosen. */
static void
check_columns(const SourceRegistration *registration, const char *name)
{
	require_names(registration->file_columns, "file_columns", "column");
	require_names(registration->failed_statuses, "failed_statuses", "status");
	if (registration->status_column == NULL)
		return;
	require_column(registration->id_column, name, "id_column",
				   "Name the column by which a session is told from others.");
	require_column(registration->failed_at_column, name, "failed_at_column",
				   "Name the column with the time since which a session counts as failed.");
}

static void
insert_source(const Extension *extension, const SourceRegistration *registration)
{
	owner_query(extension,
				SQL_ARGS(SQL_OID(REGCLASSOID, registration->relid), SQL_VALUE(TEXTARRAYOID, registration->file_columns),
						 SQL_TEXT(registration->id_column), SQL_TEXT(registration->status_column),
						 SQL_VALUE(TEXTARRAYOID, registration->failed_statuses),
						 SQL_TEXT(registration->failed_at_column), SQL_TEXT(registration->timezone),
						 SQL_TEXT(registration->on_failed),
						 SQL_TEXT(GetUserNameFromId(GetOuterUserId(), false)),
						 SQL_TEXT(sources_name(registration->relid))),
				"INSERT INTO @extschema@.cleanup_sources (source, file_columns, id_column, status_column,"
				"  failed_statuses, failed_at_column, timezone, on_failed, added_by, source_name)"
				" VALUES ($1, $2, $3::name, $4::name, $5, $6::name, $7, $8, $9::name, $10)"
				" ON CONFLICT (source) DO UPDATE SET source_name = excluded.source_name,"
				"  file_columns = excluded.file_columns,"
				"  id_column = excluded.id_column, status_column = excluded.status_column,"
				"  failed_statuses = excluded.failed_statuses, failed_at_column = excluded.failed_at_column,"
				"  timezone = excluded.timezone, on_failed = excluded.on_failed,"
				"  added_by = excluded.added_by, added_at = excluded.added_at");
	owner_query(extension, SQL_ARGS(SQL_OID(REGCLASSOID, registration->relid)),
				"INSERT INTO @extschema@.cleanup_seen (source, column_numbers) VALUES ($1, " SOURCES_COLUMN_NUMBERS ")"
				" ON CONFLICT (source) DO UPDATE SET column_numbers = excluded.column_numbers");
}

static char *
join_texts(Datum array)
{
	return text_to_cstring(DatumGetTextPP(OidFunctionCall2(F_ARRAY_TO_STRING_ANYARRAY_TEXT, array,
														   CStringGetTextDatum(", "))));
}

static void
tell_choice(const Source *source, const SourceRegistration *registration)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "file columns %s", join_texts(registration->file_columns));
	if (source->id_column)
		appendStringInfo(&text, "; id column %s", source->id_column);
	if (source->status_column)
		appendStringInfo(&text, "; failed when %s is %s, since %s (%s)", source->status_column,
						 join_texts(registration->failed_statuses),
						 source->failed_at_column, source->timezone);
	else
		appendStringInfoString(&text, "; no failed sessions");
	ereport(NOTICE,
			(errmsg("source %s: %s", source->name, text.data)));
}

/*
 * Raises the brake without the general hint, which is for a source that is
 * registered already.
 */
static void
refuse_registration(Brake *brake)
{
	if (brake->hint == source_hint_readd)
		brake->hint = NULL;
	if (brake->sqlstate == ERRCODE_UNDEFINED_COLUMN)
		brake->detail = NULL;
	brake_raise(brake);
}

/* milliseconds in which the registration looks for statuses that no row has */
#define STATUS_SEARCH_MS	5000

/*
 * Reads the registration, checks the source as a run does, and tells the
 * findings in NOTICEs.  A brake is an ERROR.
 */
static void
verify_registration(const Extension *extension, const SourceRegistration *registration)
{
	foreach_ptr(Source, source, sources_load(extension))
	{
		Brake	   *brake;

		if (source->relid != registration->relid)
			continue;
		if ((brake = sources_check(source)) != NULL || (brake = sources_probe(source, NULL)) != NULL)
			refuse_registration(brake);
		sources_try_locking(source);
		if ((brake = sources_check_clearing(source)) != NULL)
			refuse_registration(brake);
		tell_choice(source, registration);
		foreach_ptr(const char, strange, sources_strange_statuses(source, STATUS_SEARCH_MS))
			ereport(NOTICE,
					(errmsg_internal("%s", strange)));
	}
}

void
sources_register(const Extension *extension, SourceRegistration *registration)
{
	const char *name;
	ActingAs	saved;

	if (get_rel_name(registration->relid) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", registration->relid)));
	name = sources_name(registration->relid);
	check_arguments(registration, name);

	role_act_as(extension->owner, &saved);
	choose_columns(registration, name);
	role_stop_acting(&saved);
	check_columns(registration, name);

	insert_source(extension, registration);
	verify_registration(extension, registration);
}

void
sources_drop(const Extension *extension, Oid relid)
{
	int			n;

	if (get_rel_name(relid) != NULL && !compat_is_relation_owner(relid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of %s", sources_name(relid)),
				 errdetail("Its rows would no longer protect their files.")));
	n = owner_query(extension, SQL_ARGS(SQL_OID(REGCLASSOID, relid)),
					"WITH seen AS (DELETE FROM @extschema@.cleanup_seen WHERE source = $1)"
					" DELETE FROM @extschema@.cleanup_sources WHERE source = $1");
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("%s is not registered as a source", sources_name(relid)),
				 errhint("SELECT source FROM cleanup_sources; shows those that are.")));
}
