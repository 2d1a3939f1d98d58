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

/* What a role gets: the right, the kind of object, and its name. */
typedef struct Grant
{
	const char *right;
	const char *kind;
	const char *object;
} Grant;

static const Grant viewer[] = {
	{"SELECT", "TABLE", "cleanup_sources"},
	{"SELECT", "TABLE", "cleanup_runs"},
	{"SELECT", "TABLE", "cleanup_files"},
	{"SELECT", "TABLE", "cleanup_progress"},
	{"SELECT", "TABLE", "cleanup_backups"},
	{"SELECT", "TABLE", "cleanup_holds"},
	{"SELECT", "TABLE", "cleanup_metrics"},
	{"SELECT", "TABLE", "cleanup_mail"},
	{"EXECUTE", "ROUTINE", "cleanup_config()"},
	{"EXECUTE", "ROUTINE", "cleanup_status()"},
	{"EXECUTE", "ROUTINE", "cleanup_explain(text)"},
	{"EXECUTE", "ROUTINE", "cleanup_check()"},
	{"EXECUTE", "ROUTINE", "cleanup_next_run()"},
	{"EXECUTE", "ROUTINE", "cleanup_progress()"},
	{"EXECUTE", "ROUTINE", "cleanup_dashboard()"},
	{"EXECUTE", "ROUTINE", "cleanup_report(interval)"},
	{"EXECUTE", "ROUTINE", "cleanup_missing_files()"},
	{"EXECUTE", "ROUTINE", "cleanup_metrics()"}
};

static const Grant operator[] = {
	{"EXECUTE", "ROUTINE", "cleanup_orphaned_files(boolean, boolean)"},
	{"EXECUTE", "ROUTINE", "cleanup_failed_sessions(boolean, boolean)"},
	{"EXECUTE", "ROUTINE", "cleanup_all(boolean, boolean)"},
	{"EXECUTE", "ROUTINE", "cleanup_run(boolean, boolean, jsonb)"},
	{"EXECUTE", "ROUTINE", "cleanup_restore(bigint)"},
	{"EXECUTE", "ROUTINE", "cleanup_restore(text)"},
	{"EXECUTE", "ROUTINE", "cleanup_restore(text, text)"},
	{"EXECUTE", "ROUTINE", "cleanup_purge_backups()"},
	{"EXECUTE", "ROUTINE", "cleanup_hold(text, text)"},
	{"EXECUTE", "ROUTINE", "cleanup_release(text)"},
	{"EXECUTE", "ROUTINE", "cleanup_send_test_mail()"}
};

static const char *
role_name(Oid role)
{
	return quote_identifier(GetUserNameFromId(role, false));
}

/* As whoever called, who must have the right to grant. */
static void
grant_all(const Extension *extension, Oid role, const Grant *grants, int n)
{
	for (int i = 0; i < n; i++)
		sql_query(0, NULL, psprintf("GRANT %s ON %s %s.%s TO %s", grants[i].right, grants[i].kind,
									extension_schema(extension), grants[i].object, role_name(role)));
}

static void
revoke_all(const Extension *extension, Oid role, const Grant *grants, int n)
{
	for (int i = 0; i < n; i++)
		sql_query(0, NULL, psprintf("REVOKE ALL ON %s %s.%s FROM %s", grants[i].kind,
									extension_schema(extension), grants[i].object, role_name(role)));
}

/* After the GRANT, which fails if the caller may not give it. */
static void
grant_schema(const Extension *extension, Oid role)
{
	if (compat_may_use_schema(extension->namespace_oid, role))
		return;
	sql_query(0, NULL, psprintf("GRANT USAGE ON SCHEMA %s TO %s",
								extension_schema(extension), role_name(role)));
	owner_query(extension, SQL_ARGS(SQL_OID(REGROLEOID, role)),
				"INSERT INTO @extschema@.cleanup_access (role) VALUES ($1) ON CONFLICT DO NOTHING");
}

static void
revoke_schema(const Extension *extension, Oid role)
{
	if (owner_query(extension, SQL_ARGS(SQL_OID(REGROLEOID, role)),
					"DELETE FROM @extschema@.cleanup_access WHERE role = $1") > 0)
		sql_query(0, NULL, psprintf("REVOKE USAGE ON SCHEMA %s FROM %s",
									extension_schema(extension), role_name(role)));
}

void
access_grant(const Extension *extension, Oid role, const char *level)
{
	bool		is_operator = strcmp(level, "operator") == 0;

	if (!is_operator && strcmp(level, "viewer") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized access level \"%s\"", level),
				 errhint("The levels are \"viewer\" and \"operator\".")));
	access_revoke(extension, role);
	grant_schema(extension, role);
	grant_all(extension, role, viewer, lengthof(viewer));
	if (is_operator)
		grant_all(extension, role, operator, lengthof(operator));
}

void
access_revoke(const Extension *extension, Oid role)
{
	revoke_all(extension, role, viewer, lengthof(viewer));
	revoke_all(extension, role, operator, lengthof(operator));
	revoke_schema(extension, role);
}
