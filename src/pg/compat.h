/*-------------------------------------------------------------------------
 *
 * pg/compat.h
 *	  The differences between PostgreSQL's versions.
 *
 * Supported are versions 15 to 19.  No other file knows a version: all other
 * code is written for the newest version, and this file translates names that
 * an older server spells differently.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef AUDIO_CLEANUP_COMPAT_H
#define AUDIO_CLEANUP_COMPAT_H

#include "catalog/pg_class.h"
#include "nodes/pg_list.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "audio_cleanup needs PostgreSQL 15 or later"
#endif

/* 16: the server declares what it looks for in a library, and not only in plpgsql.h */
#if PG_VERSION_NUM < 160000
/* NOLINTNEXTLINE(readability-redundant-declaration) */
extern PGDLLEXPORT void _PG_init(void);
#endif

/* 16: one object_ownercheck() for all kinds of objects */
#if PG_VERSION_NUM < 160000
#define compat_is_relation_owner(relid, roleid) pg_class_ownercheck((relid), (roleid))
#define compat_may_use_schema(nspid, roleid) \
	(pg_namespace_aclcheck((nspid), (roleid), ACL_USAGE) == ACLCHECK_OK)
#else
#include "catalog/pg_namespace.h"
#define compat_is_relation_owner(relid, roleid) \
	object_ownercheck(RelationRelationId, (relid), (roleid))
#define compat_may_use_schema(nspid, roleid) \
	(object_aclcheck(NamespaceRelationId, (nspid), (roleid), ACL_USAGE) == ACLCHECK_OK)
#endif

/* 16: the permissions of a query are a list of their own */
#if PG_VERSION_NUM < 160000
#define compat_set_permissions(query, pstate) ((void) 0)
#else
#define compat_set_permissions(query, pstate) \
	((query)->rteperminfos = (pstate)->p_rteperminfos)
#endif

/* 16: that list also has the role with whose rights a relation is read */
#if PG_VERSION_NUM < 160000
#define compat_check_as_user(query, rte) ((void) (query), (rte)->checkAsUser)
#else
#define compat_check_as_user(query, rte) \
	((rte)->perminfoindex == 0 ? InvalidOid : getRTEPermissionInfo((query)->rteperminfos, (rte))->checkAsUser)
#endif

/* 17: a lock names its holder by the virtual transaction */
#if PG_VERSION_NUM < 170000
#define compat_lock_is_held_by(instance, vxid_) \
	((instance)->backend == (vxid_).backendId && (instance)->lxid == (vxid_).localTransactionId)
#else
#define compat_lock_is_held_by(instance, vxid_) \
	VirtualTransactionIdEquals((instance)->vxid, (vxid_))
#endif

/* 18: what all languages keep of a compiled function is a struct of its own */
#if PG_VERSION_NUM < 180000
#define compat_function_xmin(function) ((function)->fn_xmin)
#else
#define compat_function_xmin(function) ((function)->cfunc.fn_xmin)
#endif

/* 18: ExecutorRun() always runs a query once */
#if PG_VERSION_NUM < 180000
#define compat_executor_run(desc) ExecutorRun((desc), ForwardScanDirection, 0, true)
#else
#define compat_executor_run(desc) ExecutorRun((desc), ForwardScanDirection, 0)
#endif

/* 19: pg_plan_query() has an argument for EXPLAIN */
#if PG_VERSION_NUM < 190000
#define compat_plan_query(query, text) pg_plan_query((query), (text), 0, NULL)
#else
#define compat_plan_query(query, text) pg_plan_query((query), (text), 0, NULL, NULL)
#endif

/* 16: get_guc_variables() returns the number of settings, too */
#if PG_VERSION_NUM < 160000
#define compat_get_guc_variables(n) (*(n) = GetNumConfigOptions(), get_guc_variables())
#else
#define compat_get_guc_variables(n) get_guc_variables(n)
#endif

/* 17: backend ids became proc numbers */
#if PG_VERSION_NUM < 170000
#include "storage/sinvaladt.h"
#define compat_vxid_proc(vxid) BackendIdGetProc((vxid).backendId)
#define compat_proc_lxid(proc) ((proc)->lxid)
#else
#include "storage/procarray.h"
#define compat_vxid_proc(vxid) ProcNumberGetProc((vxid).procNumber)
#define compat_proc_lxid(proc) ((proc)->vxid.lxid)
#endif

/* 17: LockHeldByMe() can also find stronger locks */
#if PG_VERSION_NUM < 170000
#define compat_lock_is_held(tag, mode) LockHeldByMe((tag), (mode))
#else
#define compat_lock_is_held(tag, mode) LockHeldByMe((tag), (mode), false)
#endif

/*
 * 17: there is a transaction_timeout; the macro is an entry of a list of
 * settings
 */
#if PG_VERSION_NUM < 170000
#define COMPAT_TRANSACTION_TIMEOUT_OFF
#else
#define COMPAT_TRANSACTION_TIMEOUT_OFF {"transaction_timeout", "0"},
#endif

/* 17: an extension's wait events have names */
#if PG_VERSION_NUM < 170000
#define compat_wait_event(name) PG_WAIT_EXTENSION
#else
#define compat_wait_event(name) WaitEventExtensionNew(name)
#endif

/* 19: post_parse_analyze_hook may not change the jumble state */
#if PG_VERSION_NUM < 190000
#define COMPAT_JUMBLE_STATE JumbleState
#else
#define COMPAT_JUMBLE_STATE const JumbleState
#endif

/* 18: pg_get_loaded_modules() shows the name of a module */
#if PG_VERSION_NUM < 180000
#define COMPAT_MODULE_MAGIC PG_MODULE_MAGIC
#else
#define COMPAT_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "audio_cleanup")
#endif

/* 18: the attribute of a function that does not return stands before the function */
#ifndef pg_noreturn
#define pg_noreturn pg_attribute_noreturn()
#endif

/* 19: get_database_name() moved */
#if PG_VERSION_NUM < 190000
#include "commands/dbcommands.h"
#else
#include "utils/lsyscache.h"
#endif

/* 19: the descriptor of a row must be finished, or else reading the row crashes */
#if PG_VERSION_NUM < 190000
#define compat_finish_row_desc(desc) ((void) (desc))
#else
#define compat_finish_row_desc(desc) TupleDescFinalize(desc)
#endif

/* 19: a scan has flags */
#if PG_VERSION_NUM < 190000
#define compat_table_beginscan(rel, snapshot) table_beginscan((rel), (snapshot), 0, NULL)
#else
#define compat_table_beginscan(rel, snapshot) table_beginscan((rel), (snapshot), 0, NULL, SO_NONE)
#endif

/* 17: a loop over a list of pointers, or of OIDs, declares its variable */
#if PG_VERSION_NUM < 170000
#define foreach_ptr(type, var, list) \
	for (type *var = NULL, *var##_list = (type *) (list); var##_list != NULL; var##_list = NULL) \
		for (int var##_n = 0; var##_n < list_length((List *) var##_list) && \
			 (var = list_nth((List *) var##_list, var##_n), true); var##_n++)
#define foreach_oid(var, list) \
	for (const List *var##_list = (list); var##_list != NULL; var##_list = NULL) \
		for (Oid var = InvalidOid, var##_n = 0; var##_n < (Oid) list_length(var##_list) && \
			 (var = list_nth_oid(var##_list, (int) var##_n), true); var##_n++)
#endif

#endif							/* AUDIO_CLEANUP_COMPAT_H */
