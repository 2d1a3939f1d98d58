/*-------------------------------------------------------------------------
 *
 * sources/sources.c
 *	  Loads the registered sources, and checks whether each source can be
 *	  relied on.
 *
 * The hazard is a source that shows fewer rows than it has.  sources_check()
 * and sources_tables() refuse relations that are known to lack rows: relations
 * that lose rows at a crash (unlogged), that lie elsewhere (foreign, but see
 * remote.c), that only one session sees (temporary), that are not up to date
 * (materialized views), or whose rows a policy hides.  Any other failure is an
 * ERROR of the query itself, and ends the run.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "src/pg/compat.h"
#include "src/pg/lock.h"
#include "src/pg/role.h"
#include "src/pg/sql.h"
#include "src/sources/query.h"
#include "src/sources/sources.h"

const char *const source_hint_readd =
"Correct the source, or register it anew with cleanup_add_source(), or forget it with cleanup_drop_source().";


/* ------------------------------------------------------------------ load --- */

const char *
sources_name(Oid relid)
{
	char	   *name = get_rel_name(relid);
	char	   *schema = get_namespace_name(get_rel_namespace(relid));
	const char *quoted;
	int			guc_level;

	if (name == NULL || schema == NULL)
		return psprintf("%u", relid);
	/* the name is stored and compared, and so must not depend on a setting */
	guc_level = NewGUCNestLevel();
	role_set_for_now("quote_all_identifiers", "off");
	quoted = quote_qualified_identifier(schema, name);
	AtEOXact_GUC(false, guc_level);
	return quoted;
}

static Source *
source_of_row(int row)
{
	Source	   *source = palloc0(sizeof(Source));
	ArrayType  *numbers = sql_is_null(row, 10) ? NULL : DatumGetArrayTypeP(sql_array(row, 10));

	source->number = row;
	source->relid = DatumGetObjectId(sql_value(row, 1));
	source->name = sources_name(source->relid);
	source->columns = sql_texts(sql_value(row, 2), &source->n_columns);
	source->id_column = sql_text(row, 3);
	source->failed_statuses = sql_array(row, 5);
	source->failed_at_column = sql_text(row, 6);
	if (source->id_column != NULL && source->failed_at_column != NULL)
		source->status_column = sql_text(row, 4);
	source->timezone = sql_text(row, 7);
	source->clear = strcmp(sql_text(row, 8), "clear") == 0;
	source->registered_name = sql_text(row, 9);
	source->last_rows = DatumGetInt64(sql_value(row, 11));
	source->last_files = DatumGetInt64(sql_value(row, 12));
	/* the numbers that the columns had when they were seen last */
	if (numbers != NULL && !ARR_HASNULL(numbers) &&
		ArrayGetNItems(ARR_NDIM(numbers), ARR_DIMS(numbers)) == source->n_columns)
		source->numbers = (const int16 *) ARR_DATA_PTR(numbers);
	return source;
}

List *
sources_load(const Extension *extension)
{
	List	   *sources = NIL;
	int			n;

	n = owner_query(extension, 0, NULL,
					"SELECT c.source, c.file_columns, c.id_column::text, c.status_column::text,"
					" c.failed_statuses, c.failed_at_column::text, c.timezone, c.on_failed, c.source_name, s.column_numbers,"
					" s.source_rows, s.source_files"
					" FROM @extschema@.cleanup_sources c LEFT JOIN @extschema@.cleanup_seen s ON s.source = c.source"
					" ORDER BY c.added_at, c.source::pg_catalog.oid");
	for (int i = 0; i < n; i++)
		sources = lappend(sources, source_of_row(i));
	return sources;
}


/* ----------------------------------------------------------------- check --- */

Brake *
source_brake(int sqlstate, char *message, char *detail)
{
	return brake_make("source", sqlstate, message, detail,
					  sqlstate != ERRCODE_LOCK_NOT_AVAILABLE ? source_hint_readd :
					  "Somebody has locked it. Try again when that transaction has ended, or raise audio_cleanup.writer_wait.");
}

static Brake *
check_kind(const Source *source, Relation rel)
{
	char		kind = rel->rd_rel->relkind;

	if (strcmp(source->name, source->registered_name) != 0)
		return source_brake(ERRCODE_UNDEFINED_TABLE,
							psprintf("source %s was registered as %s", source->name,
									 source->registered_name),
							"It was renamed or moved since, perhaps to make room for another table of that name.");
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		return source_brake(ERRCODE_WRONG_OBJECT_TYPE,
							psprintf("source %s is temporary", source->name),
							"Other sessions, the background worker among them, do not see its rows.");
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		return source_brake(ERRCODE_WRONG_OBJECT_TYPE,
							psprintf("source %s is unlogged", source->name),
							"After a crash it is empty, and every file would look like an orphan.");
	if (kind == RELKIND_FOREIGN_TABLE && !remote_can_ask(source->relid))
		return source_brake(ERRCODE_WRONG_OBJECT_TYPE,
							psprintf("source %s is a foreign table", source->name),
							"Its transactions cannot be waited for.");
	if (kind == RELKIND_MATVIEW)
		return source_brake(ERRCODE_WRONG_OBJECT_TYPE,
							psprintf("source %s is a materialized view", source->name),
							"It does not show what was written since it was refreshed.");
	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE && kind != RELKIND_VIEW &&
		kind != RELKIND_FOREIGN_TABLE)
		return source_brake(ERRCODE_WRONG_OBJECT_TYPE,
							psprintf("source %s is not a table or view", source->name), NULL);
	return NULL;
}

/* Returns the type of a column, the base type for a domain; InvalidOid if there is no such column. */
static Oid
column_type(Oid relid, const char *column)
{
	AttrNumber	attnum = get_attnum(relid, column);

	if (attnum <= 0)
		return InvalidOid;
	return getBaseType(get_atttype(relid, attnum));
}

static bool
is_text_like(Oid type)
{
	char		category;
	bool		preferred;

	if (!OidIsValid(type))
		return false;
	get_type_category_preferred(type, &category, &preferred);
	return category == TYPCATEGORY_STRING && type != CHAROID;
}

static Brake *
check_column(const Source *source, const char *column)
{
	AttrNumber	attnum = get_attnum(source->relid, column);

	if (attnum <= 0)
		return source_brake(ERRCODE_UNDEFINED_COLUMN,
							psprintf("column \"%s\" of source %s does not exist", column, source->name),
							"It was dropped or renamed after the source was registered.");
	if (pg_class_aclcheck(source->relid, source->owner, ACL_SELECT) != ACLCHECK_OK &&
		pg_attribute_aclcheck(source->relid, attnum, source->owner, ACL_SELECT) != ACLCHECK_OK)
		return source_brake(ERRCODE_INSUFFICIENT_PRIVILEGE,
							psprintf("the owner of source %s may not read its column \"%s\"", source->name, column),
							psprintf("Role \"%s\" lacks the SELECT privilege.", GetUserNameFromId(source->owner, true)));
	return NULL;
}

/*
 * Returns a brake if the column was renamed, and another column has got its
 * name: the values of the renamed column may still be needed.  A dropped
 * column has no values any more.
 */
static Brake *
check_unswapped(const Source *source, int column)
{
	const char *name = source->columns[column];
	AttrNumber	number = source->numbers != NULL ? source->numbers[column] : InvalidAttrNumber;
	HeapTuple	tuple = number == get_attnum(source->relid, name) ? NULL : SearchSysCacheAttNum(source->relid, number);
	Brake	   *brake;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	brake = source_brake(ERRCODE_UNDEFINED_COLUMN,
						 psprintf("column \"%s\" of source %s is another one than before", name, source->name),
						 psprintf("The one that was read before is called \"%s\" now, and its values may refer to files.",
								  NameStr(((Form_pg_attribute) GETSTRUCT(tuple))->attname)));
	ReleaseSysCache(tuple);
	return brake;
}

static Brake *
check_file_column(const Source *source, int number)
{
	const char *column = source->columns[number];
	Brake	   *brake = check_column(source, column);

	if (brake == NULL)
		brake = check_unswapped(source, number);
	if (brake == NULL && !is_text_like(column_type(source->relid, column)))
		return source_brake(ERRCODE_DATATYPE_MISMATCH,
							psprintf("column \"%s\" of source %s does not hold text", column, source->name),
							psprintf("It is of type %s. A view can turn it into text.",
									 format_type_be(get_atttype(source->relid, get_attnum(source->relid, column)))));
	return brake;
}

static Brake *
check_failed_columns(Source *source)
{
	Brake	   *brake;

	if (source->id_column && (brake = check_column(source, source->id_column)) != NULL)
		return brake;
	if (source->status_column == NULL)
		return NULL;
	if ((brake = check_column(source, source->status_column)) != NULL ||
		(brake = check_column(source, source->failed_at_column)) != NULL)
		return brake;
	source->failed_at_type = column_type(source->relid, source->failed_at_column);
	if (source->failed_at_type != TIMESTAMPOID && source->failed_at_type != TIMESTAMPTZOID &&
		source->failed_at_type != DATEOID)
		return source_brake(ERRCODE_DATATYPE_MISMATCH,
							psprintf("column \"%s\" of source %s is not a time",
									 source->failed_at_column, source->name),
							"It must be a timestamp, with or without time zone, or a date.");
	return NULL;
}

static Brake *
check_owner(const Source *source)
{
	if (!compat_may_use_schema(get_rel_namespace(source->relid), source->owner))
		return source_brake(ERRCODE_INSUFFICIENT_PRIVILEGE,
							psprintf("the owner of source %s may not use its schema", source->name),
							psprintf("Role \"%s\" lacks the USAGE privilege.", GetUserNameFromId(source->owner, true)));
	if (check_enable_rls(source->relid, source->owner, true) == RLS_ENABLED)
		return source_brake(ERRCODE_INSUFFICIENT_PRIVILEGE,
							psprintf("row-level security hides rows of source %s from its own owner", source->name),
							"A hidden row could refer to a file. The table is set to FORCE ROW LEVEL SECURITY.");
	return NULL;
}

bool
sources_hide_rows(const Source *source, ErrorData *error, bool to_record)
{
	bool		may_know = OidIsValid(source->owner) && has_privs_of_role(GetOuterUserId(), source->owner);

	if (!sql_tells_of_rows(error) || (may_know && !to_record))
		return false;
	ereport(may_know ? WARNING : LOG_SERVER_ONLY,
			(errcode(error->sqlerrcode),
			 errmsg("error in source %s: %s", source->name, error->message),
			 error->detail ? errdetail("%s", error->detail) : 0,
			 error->context ? errcontext("%s", error->context) : 0));
	sql_hide_rows(error);
	return true;
}

static bool
may_read(Oid role, const Source *source, const char *column)
{
	return compat_may_use_schema(get_rel_namespace(source->relid), role) &&
		(pg_class_aclcheck(source->relid, role, ACL_SELECT) == ACLCHECK_OK ||
		 pg_attribute_aclcheck(source->relid, get_attnum(source->relid, column), role, ACL_SELECT) == ACLCHECK_OK) &&
		check_enable_rls(source->relid, role, true) != RLS_ENABLED;
}

const bool *
sources_columns_to_show(const Source *source)
{
	bool	   *columns = palloc(sizeof(bool) * Max(source->n_columns, 1));

	for (int i = 0; i < source->n_columns; i++)
		columns[i] = may_read(GetOuterUserId(), source, source->columns[i]) &&
			may_read(GetUserId(), source, source->columns[i]);
	return columns;
}

static void
lock_source(void *arg)
{
	lock_relation(((Source *) arg)->relid);
}

/*
 * Locks the source.  Returns a brake if the source cannot be locked in time,
 * because an ERROR would end a look at many sources.
 */
static Brake *
lock_or_brake(Source *source)
{
	ErrorData  *error;

	if (ConditionalLockRelationOid(source->relid, AccessShareLock))
		return NULL;
	error = sql_try(lock_source, source);
	return error == NULL ? NULL
		: brake_make("source", error->sqlerrcode, error->message, error->detail, error->hint);
}

Brake *
sources_check(Source *source)
{
	Relation	rel;
	Brake	   *brake = lock_or_brake(source);

	if (brake != NULL)
		return brake;
	rel = try_relation_open(source->relid, NoLock);
	if (rel == NULL)
		return source_brake(ERRCODE_UNDEFINED_TABLE,
							psprintf("source with OID %u no longer exists", source->relid),
							psprintf("%s was dropped after it was registered. A new relation of that name is another source; "
									 "SELECT cleanup_drop_source(%u) forgets the old one.", source->registered_name, source->relid));
	source->owner = rel->rd_rel->relowner;
	brake = check_kind(source, rel);
	relation_close(rel, NoLock);

	if (brake == NULL)
		brake = check_owner(source);
	for (int i = 0; brake == NULL && i < source->n_columns; i++)
		brake = check_file_column(source, i);
	if (brake == NULL)
		brake = check_failed_columns(source);
	return brake;
}

List *
sources_check_all(List *sources)
{
	List	   *brakes = NIL;

	if (sources == NIL)
		return list_make1(brake_make("no_source", ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
									 "no source is registered",
									 "Without one, every file would look like an orphan.",
									 "Register the tables that refer to files: SELECT cleanup_add_source('sessions');"));
	foreach_ptr(Source, source, sources)
	{
		Brake	   *brake = sources_check(source);

		if (brake != NULL)
			brakes = lappend(brakes, brake);
	}
	return brakes;
}
