/*-------------------------------------------------------------------------
 *
 * pg/role.c
 *	  Acting as another role.
 *
 * Every SQL statement of this extension runs either as the owner of the
 * extension (on its own tables) or as the owner of a source (to read the
 * source).  No statement runs as the caller, and every statement has a
 * search_path of pg_catalog.  So a function in the caller's search_path, or
 * in an index expression of a table's owner, cannot run with the rights of
 * somebody else.  The functions cannot be SECURITY DEFINER because
 * cleanup_run() commits.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/guc.h"

#include "src/pg/role.h"

#define PLAIN_PATH	"pg_catalog, pg_temp"

void
role_set_for_now(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
role_search_plainly(void)
{
	if (strcmp(namespace_search_path, PLAIN_PATH) != 0)
		role_set_for_now("search_path", PLAIN_PATH);
}

void
role_act_as(Oid role, ActingAs *saved)
{
	GetUserIdAndSecContext(&saved->user, &saved->security_context);
	SetUserIdAndSecContext(role, saved->security_context |
						   SECURITY_RESTRICTED_OPERATION |
						   SECURITY_LOCAL_USERID_CHANGE);
	saved->guc_level = NewGUCNestLevel();
	role_search_plainly();
	/* our statements are too short for compiling to pay */
	role_set_for_now("jit", "off");
}

void
role_keep_quiet(void)
{
	if (!has_privs_of_role(GetOuterUserId(), GetUserId()))
		role_set_for_now("client_min_messages", "error");
}

void
role_join_by_hash(void)
{
	/* the planner knows only the size of the working sets that are joined */
	role_set_for_now("enable_nestloop", "off");
	role_set_for_now("enable_mergejoin", "off");

	/*
	 * "off" only adds a cost, which has no effect if all kinds of join are
	 * off
	 */
	role_set_for_now("enable_hashjoin", "on");
}

void
role_read_strictly(void)
{
	/* a policy that would hide rows is an error, not an orphan */
	role_set_for_now("row_security", "off");
	/* a damaged page is an error, not a page without rows */
	role_set_for_now("zero_damaged_pages", "off");
	role_set_for_now("ignore_checksum_failure", "off");
	role_join_by_hash();
	role_set_for_now("max_parallel_workers_per_gather", "0");
}

void
role_read_without_indexes(void)
{
	role_read_strictly();
	role_set_for_now("enable_seqscan", "on");
	role_set_for_now("enable_indexscan", "off");
	role_set_for_now("enable_indexonlyscan", "off");
	role_set_for_now("enable_bitmapscan", "off");
	role_set_for_now("enable_tidscan", "off");
}

void
role_stop_acting(const ActingAs *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->user, saved->security_context);
}
