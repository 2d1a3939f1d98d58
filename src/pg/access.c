/*-------------------------------------------------------------------------
 *
 * pg/access.c
 *	  Grants in two levels: viewers may look, operators may clean.
 *
 * The levels are ordinary GRANTs and REVOKEs on the objects of the extension:
 * \dp and pg_dump show these GRANTs.  The caller's role executes the GRANTs
 * and REVOKEs.
 *
 * A role may have USAGE on the schema for other reasons.  So USAGE is granted
 * only to a role that lacks it.  The grant is recorded, and USAGE is taken
 * back only from a role that has such a record.  The record has the role's
 * name, because the role may be missing where a dump is restored, and its OID,
 * because a later role of that name is another one.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"

#include "src/pg/access.h"
#include "src/pg/compat.h"
#include "src/pg/sql.h"

#define S	"@extschema@."

/*
 * The rights of the levels.  Each entry is a right, a kind of objects, and
 * the objects.  The last entry is for operators only.
 */
static const char *const levels[][3] = {
	{"SELECT", "TABLE", S "cleanup_sources, " S "cleanup_runs, " S "cleanup_files, " S "cleanup_progress, "
	S "cleanup_backups, " S "cleanup_holds, " S "cleanup_metrics, " S "cleanup_mail"},
	{"EXECUTE", "ROUTINE", S "cleanup_config(), " S "cleanup_status(), " S "cleanup_explain(text), "
		S "cleanup_check(), " S "cleanup_next_run(), " S "cleanup_progress(), " S "cleanup_dashboard(), "
	S "cleanup_report(interval), " S "cleanup_missing_files(), " S "cleanup_metrics()"},
	{"EXECUTE", "ROUTINE", S "cleanup_orphaned_files(boolean, boolean), " S "cleanup_failed_sessions(boolean, boolean), "
		S "cleanup_all(boolean, boolean), " S "cleanup_run(boolean, boolean, jsonb), " S "cleanup_restore(bigint), "
		S "cleanup_restore(text), " S "cleanup_restore(text, text), " S "cleanup_purge_backups(), "
	S "cleanup_hold(text, text), " S "cleanup_release(text), " S "cleanup_send_test_mail()"}
};

static const char *
role_name(Oid role)
{
	return quote_identifier(GetUserNameFromId(role, false));
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
	if (!compat_may_use_schema(extension->namespace_oid, role))
	{
		/*
		 * first as the caller: the GRANT fails if the caller may not give the
		 * right
		 */
		sql_query(0, NULL, psprintf("GRANT USAGE ON SCHEMA %s TO %s", extension_schema(extension), role_name(role)));
		owner_query(extension, SQL_ARGS(SQL_TEXT(GetUserNameFromId(role, false)), SQL_OID(OIDOID, role)),
					"INSERT INTO @extschema@.cleanup_access (role, role_oid) VALUES ($1, $2)"
					" ON CONFLICT (role) DO UPDATE SET role_oid = $2, granted_at = DEFAULT");
	}
	for (int i = 0; i < lengthof(levels) - (is_operator ? 0 : 1); i++)
		sql_query(0, NULL, psprintf("GRANT %s ON %s %s TO %s", levels[i][0], levels[i][1],
									sql_name_schema(extension, levels[i][2]), role_name(role)));
}

void
access_revoke(const Extension *extension, Oid role)
{
	for (int i = 0; i < lengthof(levels); i++)
		sql_query(0, NULL, psprintf("REVOKE ALL ON %s %s FROM %s", levels[i][1],
									sql_name_schema(extension, levels[i][2]), role_name(role)));
	if (owner_query(extension, SQL_ARGS(SQL_TEXT(GetUserNameFromId(role, false)), SQL_OID(OIDOID, role)),
					"DELETE FROM @extschema@.cleanup_access WHERE role = $1 AND role_oid = $2") > 0)
		sql_query(0, NULL, psprintf("REVOKE USAGE ON SCHEMA %s FROM %s", extension_schema(extension), role_name(role)));
}
