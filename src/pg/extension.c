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
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "src/pg/extension.h"
#include "src/pg/sql.h"

Extension *
extension_lookup(bool missing_ok)
{
	Extension  *extension = NULL;
	int			n;

	n = sql_query(0, NULL, "SELECT e.oid, e.extowner, e.extnamespace"
				  " FROM pg_catalog.pg_extension e"
				  " WHERE e.extname OPERATOR(pg_catalog.=) '" EXTENSION_NAME "'");
	if (n > 0)
	{
		extension = palloc(sizeof(Extension));
		extension->oid = DatumGetObjectId(sql_value(0, 1));
		extension->owner = DatumGetObjectId(sql_value(0, 2));
		extension->namespace_oid = DatumGetObjectId(sql_value(0, 3));
	}
	SPI_freetuptable(SPI_tuptable);
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
