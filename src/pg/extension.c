/*-------------------------------------------------------------------------
 *
 * pg/extension.c
 *	  The extension as the server knows it.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"

#include "src/pg/extension.h"
#include "src/pg/sql.h"

/*
 * Refuses another version of the extension, because the tables of that version
 * are not known here.
 */
static void
require_known_version(const char *version)
{
	if (strcmp(version, AUDIO_CLEANUP_VERSION) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("extension \"%s\" has version %s in this database, and its library has version %s",
					EXTENSION_NAME, version, AUDIO_CLEANUP_VERSION),
			 strverscmp(version, AUDIO_CLEANUP_VERSION) < 0
			 ? errhint("Run ALTER EXTENSION %s UPDATE.", EXTENSION_NAME)
			 : errhint("Install the library of version %s, and restart the server.", version)));
}

/* The owner may have been a superuser when the extension was created. */
static void
require_superuser(Oid owner)
{
	if (superuser_arg(owner))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("owner \"%s\" of extension \"%s\" is not a superuser",
					GetUserNameFromId(owner, true), EXTENSION_NAME),
			 errdetail("Whoever owns the tables of the extension says which files are deleted."),
			 errhint("Let a superuser own the extension (REASSIGN OWNED), or make its owner a superuser.")));
}

static bool calls_others = false;

void
extension_calls_others(bool calls)
{
	calls_others = calls;
}

Extension *
extension_lookup(bool missing_ok)
{
	Extension  *extension = NULL;

	if (calls_others)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("extension \"%s\" cannot be called while it reads a source or clears a row", EXTENSION_NAME),
				 errhint("Call no function of the extension in a view that is a source, or in a trigger of its tables.")));
	if (sql_query(0, NULL, "SELECT e.oid, e.extowner, e.extnamespace, e.extversion"
				  " FROM pg_catalog.pg_extension e"
				  " WHERE e.extname OPERATOR(pg_catalog.=) '" EXTENSION_NAME "'") > 0)
	{
		extension = palloc(sizeof(Extension));
		extension->oid = DatumGetObjectId(sql_value(0, 1));
		extension->owner = DatumGetObjectId(sql_value(0, 2));
		extension->namespace_oid = DatumGetObjectId(sql_value(0, 3));
		require_known_version(sql_text(0, 4));
		require_superuser(extension->owner);
	}
	if (extension == NULL && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database", EXTENSION_NAME),
				 errhint("Run CREATE EXTENSION %s.", EXTENSION_NAME)));
	return extension;
}

const char *
extension_schema(const Extension *extension)
{
	const char *name = get_namespace_name(extension->namespace_oid);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" was dropped", EXTENSION_NAME)));
	return quote_identifier(name);
}

Oid
extension_relation(const Extension *extension, const char *name)
{
	Oid			relation = get_relname_relid(name, extension->namespace_oid);

	if (!OidIsValid(relation) ||
		getExtensionOfObject(RelationRelationId, relation) != extension->oid)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s\" of extension \"%s\" does not exist", name, EXTENSION_NAME)));
	return relation;
}
