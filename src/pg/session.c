/*-------------------------------------------------------------------------
 *
 * pg/session.c
 *	  The settings of the server, where the session has other settings; and
 *	  tables and types that only the session has.
 *
 * What a view shows may depend on settings that anybody may set: on TimeZone
 * and DateStyle where the view makes a text of a time, or on a setting of the
 * application's.  Two sessions would then see different references, and one
 * session would delete a file that the other session needs.  So a view is read
 * with the settings that the server has for the database, whatever role calls.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
#include "utils/portal.h"

#include "src/pg/compat.h"
#include "src/pg/role.h"
#include "src/pg/session.h"
#include "src/pg/sql.h"

/*
 * names (char *) of settings that only the session has: copies, because a
 * library that defines such a setting frees the name
 */
static List *own_settings = NIL;

/* Returns whether the setting changes the rows of a view that does not ask for its value. */
static bool
shows_in_texts(const struct config_generic *setting)
{
	static const char *const others[] = {
		"bytea_output", "xmlbinary", "xmloption", "transform_null_equals", "gin_fuzzy_search_limit"
	};

	/*
	 * such a setting is about what is sent to the client, and changes no row
	 */
	if (strcmp(setting->name, "client_encoding") == 0)
		return false;
	if (setting->group == CLIENT_CONN_LOCALE || setting->group == COMPAT_OPTIONS_PREVIOUS ||
		setting->group == CUSTOM_OPTIONS)
		return true;
	for (int i = 0; i < lengthof(others); i++)
		if (strcmp(setting->name, others[i]) == 0)
			return true;
	return false;
}

/*
 * Returns the value that the server has for this database: of ALTER DATABASE,
 * ALTER ROLE ALL, the configuration files, or its own.
 */
static char *
value_of_server(const char *name)
{
	char	   *value = NULL;
	ActingAs	saved;

	/* not every role may read the configuration files */
	role_act_as(BOOTSTRAP_SUPERUSERID, &saved);
	if (sql_query_latest(SQL_ARGS(SQL_TEXT(name), SQL_OID(OIDOID, MyDatabaseId)),
						 "SELECT coalesce((SELECT substr(s, strpos(s, '=') + 1)"
						 "  FROM pg_catalog.pg_db_role_setting r, pg_catalog.unnest(r.setconfig) s"
						 "  WHERE r.setrole = 0 AND r.setdatabase IN (0, $2) AND lower(split_part(s, '=', 1)) = lower($1)"
						 "  ORDER BY r.setdatabase DESC LIMIT 1),"
						 " (SELECT f.setting FROM pg_catalog.pg_show_all_file_settings() f"
						 "  WHERE f.error IS NULL AND lower(f.name) = lower($1) ORDER BY f.seqno DESC LIMIT 1),"
						 " (SELECT b.boot_val FROM pg_catalog.pg_show_all_settings() b WHERE lower(b.name) = lower($1)))") > 0)
		value = sql_text(0, 1);
	role_stop_acting(&saved);
	return value;
}

/*
 * Gives the setting the value that the server has.  A setting that nobody has
 * defined stays in the session when it is reset, or set in a transaction only.
 * The sources from PGC_S_USER on are the role, the client and the session itself.
 */
static void
use_server_setting(const struct config_generic *setting)
{
	bool		is_undefined = (setting->flags & GUC_CUSTOM_PLACEHOLDER) != 0;
	const char *value;

	if (setting->context != PGC_USERSET || !shows_in_texts(setting) ||
		!(setting->source >= PGC_S_USER || (is_undefined && setting->source == PGC_S_DEFAULT)))
		return;
	value = is_undefined || setting->reset_source >= PGC_S_USER ? value_of_server(setting->name)
		: GetConfigOptionResetString(setting->name);
	if (value == NULL && is_undefined)
	{
		MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);

		own_settings = lappend(own_settings, pstrdup(setting->name));
		MemoryContextSwitchTo(caller);
	}
	role_set_for_now(setting->name, value != NULL ? value : "");
}

void
session_use_server_settings(void)
{
	int			n;
	struct config_generic **settings = compat_get_guc_variables(&n);

	list_free_deep(own_settings);
	own_settings = NIL;
	for (int i = 0; i < n; i++)
		use_server_setting(settings[i]);
}

const char *
session_own_setting(const char *name, size_t len)
{
	foreach_ptr(const char, own, own_settings)
		if (name == NULL || (strlen(own) == len && pg_strncasecmp(own, name, len) == 0))
		return own;
	return NULL;
}

bool
session_may_set(const char *name, const char *value)
{
	return set_config_option(name, value, PGC_SIGHUP, PGC_S_TEST, GUC_ACTION_SET, false, DEBUG5, false) != 0;
}

const char *
session_find_unusable(const char *prefix)
{
	const char *unusable = NULL;
	ActingAs	saved;
	int			n;

	role_act_as(BOOTSTRAP_SUPERUSERID, &saved);
	n = sql_query_latest(SQL_ARGS(SQL_TEXT(prefix), SQL_OID(OIDOID, MyDatabaseId), SQL_OID(OIDOID, GetAuthenticatedUserId())),
						 "SELECT split_part(s, '=', 1), substr(s, strpos(s, '=') + 1)"
						 "  FROM pg_catalog.pg_db_role_setting r, pg_catalog.unnest(r.setconfig) s"
						 "  WHERE r.setdatabase IN (0, $2) AND r.setrole IN (0, $3) AND starts_with(lower(s), $1)"
						 " UNION ALL SELECT f.name, f.setting FROM pg_catalog.pg_show_all_file_settings() f"
						 "  WHERE (f.applied OR f.error IS NOT NULL) AND starts_with(lower(f.name), $1)");
	for (int i = 0; i < n && unusable == NULL; i++)
		if (!session_may_set(sql_text(i, 1), sql_text(i, 2)))
			unusable = sql_text(i, 1);
	role_stop_acting(&saved);
	return unusable;
}

bool
session_refuse_value(const char *detail, const char *hint)
{
	GUC_check_errdetail("%s", detail);
	if (hint != NULL)
		GUC_check_errhint("%s", hint);
	return false;
}

void
session_find_shadow(Shadow *shadow)
{
	Oid			schema;
	Oid			toast_schema;

	*shadow->name = '\0';
	GetTempNamespaceState(&schema, &toast_schema);
	if (!OidIsValid(schema))
		return;
	if (sql_query_latest(SQL_ARGS(SQL_OID(OIDOID, schema)),
						 "WITH names(name, schema, is_table) AS"
						 " (SELECT c.relname, c.relnamespace, true FROM pg_catalog.pg_class c"
						 "  UNION ALL SELECT t.typname, t.typnamespace, false FROM pg_catalog.pg_type t)"
						 " SELECT s.name::text, s.is_table FROM names s JOIN names o ON o.name = s.name"
						 " WHERE s.schema = $1 AND o.schema <> $1 AND NOT pg_catalog.pg_is_other_temp_schema(o.schema)"
						 " ORDER BY s.is_table DESC LIMIT 1") > 0)
	{
		strlcpy(shadow->name, sql_text(0, 1), sizeof(shadow->name));
		shadow->is_table = DatumGetBool(sql_value(0, 2));
	}
}


/* ---------------------------------------------------------------- cursors --- */

List *
session_list_cursors(void)
{
	List	   *cursors = NIL;
	int			n = sql_query(0, NULL, "SELECT c.name FROM pg_catalog.pg_cursors c");

	for (int i = 0; i < n; i++)
	{
		Portal		portal = GetPortalByName(sql_text(i, 1));

		if (PortalIsValid(portal) && portal->status == PORTAL_READY)
			cursors = lappend(cursors, sql_text(i, 1));
	}
	return cursors;
}

/* The server lets nobody use, and nobody close, a cursor that is being used. */
void
session_shut_cursors(List *cursors, bool shut)
{
	foreach_ptr(const char, name, cursors)
	{
		Portal		portal = GetPortalByName(name);

		if (PortalIsValid(portal))
			portal->status = shut ? PORTAL_ACTIVE : PORTAL_READY;
	}
}
