/*-------------------------------------------------------------------------
 *
 * pg/access.c
 *	  Who may look and who may clean: grants in two levels.
 *
 * Ordinary GRANTs and REVOKEs on the objects of the extension: \dp and
 * pg_dump show them as such.  They are executed as whoever calls.
 *
 * USAGE on the schema may be a role's for other reasons.  It is given only to
 * a role that lacks it, which is noted, and taken back only from such a role.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "src/pg/access.h"
#include "src/pg/compat.h"
#include "src/pg/sql.h"

static const char *const viewer_functions[] = {
	"cleanup_config()", "cleanup_status()", "cleanup_explain(text)", "cleanup_check()",
	"cleanup_next_run()", "cleanup_progress()", "cleanup_dashboard()",
	"cleanup_report(interval)", "cleanup_missing_files()", "cleanup_metrics()"
};

static const char *const operator_functions[] = {
	"cleanup_orphaned_files(boolean, boolean)", "cleanup_failed_sessions(boolean, boolean)",
	"cleanup_all(boolean, boolean)", "cleanup_run(boolean, boolean, jsonb)",
	"cleanup_restore(bigint)", "cleanup_restore(text)", "cleanup_restore(text, text)",
	"cleanup_purge_backups()", "cleanup_hold(text, text)", "cleanup_release(text)",
	"cleanup_send_test_mail()"
};

static const char *const viewer_tables[] = {
	"cleanup_sources", "cleanup_runs", "cleanup_files", "cleanup_progress",
	"cleanup_backups", "cleanup_holds", "cleanup_metrics", "cleanup_mail"
};

static const char *
role_name(Oid role)
{
	return quote_identifier(GetUserNameFromId(role, false));
}

/* As whoever called, who must have the right to grant. */
static void execute(const char *format,...) pg_attribute_printf(1, 2);

static void
execute(const char *format,...)
{
	StringInfoData sql;
	va_list		args;
	int			needed;

	initStringInfo(&sql);
	do
	{
		va_start(args, format);
		needed = appendStringInfoVA(&sql, format, args);
		va_end(args);
		if (needed > 0)
			enlargeStringInfo(&sql, needed);
	} while (needed > 0);
	sql_query(0, NULL, sql.data);
}

static void
grant_functions(const Extension *extension, Oid role, const char *const *functions, int n)
{
	int			i;

	for (i = 0; i < n; i++)
		execute("GRANT EXECUTE ON ROUTINE %s.%s TO %s",
				extension_schema(extension), functions[i], role_name(role));
}

static void
revoke_functions(const Extension *extension, Oid role, const char *const *functions, int n)
{
	int			i;

	for (i = 0; i < n; i++)
		execute("REVOKE ALL ON ROUTINE %s.%s FROM %s",
				extension_schema(extension), functions[i], role_name(role));
}

/* After the GRANT, which fails if the caller may not give it. */
static void
grant_schema(const Extension *extension, Oid role)
{
	const SqlParameter parameters[] = {{REGROLEOID, ObjectIdGetDatum(role), false}};

	if (compat_may_use_schema(extension->namespace_oid, role))
		return;
	execute("GRANT USAGE ON SCHEMA %s TO %s", extension_schema(extension), role_name(role));
	owner_query(extension, lengthof(parameters), parameters,
				"INSERT INTO @extschema@.cleanup_access (role) VALUES ($1) ON CONFLICT DO NOTHING");
}

static void
revoke_schema(const Extension *extension, Oid role)
{
	const SqlParameter parameters[] = {{REGROLEOID, ObjectIdGetDatum(role), false}};

	if (owner_query(extension, lengthof(parameters), parameters,
					"DELETE FROM @extschema@.cleanup_access WHERE role = $1") > 0)
		execute("REVOKE USAGE ON SCHEMA %s FROM %s", extension_schema(extension), role_name(role));
}

void
access_grant(const Extension *extension, Oid role, const char *level)
{
	bool		operator = strcmp(level, "operator") == 0;
	int			i;

	if (!operator && strcmp(level, "viewer") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized access level \"%s\"", level),
				 errhint("The levels are \"viewer\" and \"operator\".")));
	access_revoke(extension, role);
	grant_schema(extension, role);
	for (i = 0; i < lengthof(viewer_tables); i++)
		execute("GRANT SELECT ON %s.%s TO %s",
				extension_schema(extension), viewer_tables[i], role_name(role));
	grant_functions(extension, role, viewer_functions, lengthof(viewer_functions));
	if (operator)
		grant_functions(extension, role, operator_functions, lengthof(operator_functions));
}

void
access_revoke(const Extension *extension, Oid role)
{
	int			i;

	for (i = 0; i < lengthof(viewer_tables); i++)
		execute("REVOKE ALL ON %s.%s FROM %s",
				extension_schema(extension), viewer_tables[i], role_name(role));
	revoke_functions(extension, role, viewer_functions, lengthof(viewer_functions));
	revoke_functions(extension, role, operator_functions, lengthof(operator_functions));
	revoke_schema(extension, role);
}
