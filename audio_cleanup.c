/*-------------------------------------------------------------------------
 *
 * audio_cleanup.c
 *	  Keeps a directory of uploaded audio in step with the database.
 *
 * The server calls the functions of this file.  Each function only checks its
 * arguments and calls the module that does the work.  The way of a file leads
 * through src/ in this order:
 *
 *	store/walk.c			walk the directory, by descriptors
 *	plan/match.c			find the files that no row refers to, by the rules of names/
 *	plan/judge.c, condemn.c	judge, apply the brakes, insert a row for each file
 *	drain/at_commit.c		COMMIT, and only then: capture into the trash, verify
 *	drain/drain.c			record, destroy; after a crash: find out and go on
 *	run/drain_worker.c		drain when the caller has gone
 *	night/launcher.c		clean by night, with night_worker.c
 *
 * No file is touched before the commit of the transaction that condemned it.
 *
 * Process model: everything runs in the backend that calls, except the drain
 * worker, which a transaction starts at its commit.  If the library is
 * preloaded, a launcher runs as well, and starts a night worker for each
 * database in turn.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/array.h"
#include "utils/jsonb.h"

#include "src/drain/at_commit.h"
#include "src/guard/hold.h"
#include "src/guard/location.h"
#include "src/mail/compose.h"
#include "src/names/file_key.h"
#include "src/night/launcher.h"
#include "src/night/timetable.h"
#include "src/pg/access.h"
#include "src/pg/compat.h"
#include "src/pg/progress.h"
#include "src/pg/sql.h"
#include "src/run/run.h"
#include "src/settings.h"
#include "src/show/show.h"
#include "src/sources/sources.h"

COMPAT_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(cleanup_config);
PG_FUNCTION_INFO_V1(cleanup_status);
PG_FUNCTION_INFO_V1(cleanup_explain);
PG_FUNCTION_INFO_V1(cleanup_next_run);
PG_FUNCTION_INFO_V1(cleanup_progress);
PG_FUNCTION_INFO_V1(cleanup_check);
PG_FUNCTION_INFO_V1(cleanup_dashboard);
PG_FUNCTION_INFO_V1(cleanup_missing_files);
PG_FUNCTION_INFO_V1(cleanup_metrics);
PG_FUNCTION_INFO_V1(cleanup_count_files);
PG_FUNCTION_INFO_V1(cleanup_count_runs);
PG_FUNCTION_INFO_V1(cleanup_send_test_mail);
PG_FUNCTION_INFO_V1(cleanup_orphaned_files);
PG_FUNCTION_INFO_V1(cleanup_failed_sessions);
PG_FUNCTION_INFO_V1(cleanup_all);
PG_FUNCTION_INFO_V1(cleanup_run);
PG_FUNCTION_INFO_V1(cleanup_restore_run);
PG_FUNCTION_INFO_V1(cleanup_restore_file);
PG_FUNCTION_INFO_V1(cleanup_purge_backups);
PG_FUNCTION_INFO_V1(cleanup_hold);
PG_FUNCTION_INFO_V1(cleanup_release);
PG_FUNCTION_INFO_V1(cleanup_add_source);
PG_FUNCTION_INFO_V1(cleanup_drop_source);
PG_FUNCTION_INFO_V1(cleanup_claim_upload_dir);
PG_FUNCTION_INFO_V1(cleanup_grant_access);
PG_FUNCTION_INFO_V1(cleanup_revoke_access);

/* Lets a cancel end the search of a long value. */
static void
pause_for_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
}

/*
 * An ERROR here leaves the library in memory, and the next call comes here
 * again: hooks that were installed twice would call themselves for ever.  So
 * what may be refused comes first.
 */
void
_PG_init(void)
{
	settings_define();
	key_pause = pause_for_interrupts;
	sources_init();
	sql_init();
	progress_init();
	launcher_init();
}


/* -------------------------------------------------------------- arguments --- */

static void
require_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

/* Gets the two arguments that every cleaning call has. */
static void
get_flags(FunctionCallInfo fcinfo, bool *dry_run, bool *force)
{
	require_argument(fcinfo, 0, "dry_run");
	require_argument(fcinfo, 1, "force");
	*dry_run = PG_GETARG_BOOL(0);
	*force = PG_GETARG_BOOL(1);
}

static const char *
get_name_or_null(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : NameStr(*PG_GETARG_NAME(n));
}


/* ------------------------------------------------------------------ to look --- */

/* cleanup_config() returns jsonb: the settings in force in this session. */
Datum
cleanup_config(PG_FUNCTION_ARGS)
{
	PG_RETURN_JSONB_P(settings_to_jsonb());
}

/* cleanup_status() returns jsonb: what a run would do now. */
Datum
cleanup_status(PG_FUNCTION_ARGS)
{
	PG_RETURN_JSONB_P(run_preview(CLEAN_ALL, false, PREVIEW_OF_STATUS));
}

/* cleanup_explain(file text) returns jsonb: why a file is kept or condemned. */
Datum
cleanup_explain(PG_FUNCTION_ARGS)
{
	require_argument(fcinfo, 0, "file");
	PG_RETURN_JSONB_P(explain_file(text_to_cstring(PG_GETARG_TEXT_PP(0))));
}

/* Makes `put` put the rows of the result of the call. */
static Datum
return_rows(FunctionCallInfo fcinfo, void (*put) (Tuplestorestate *rows, TupleDesc desc))
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	put(rsinfo->setResult, rsinfo->setDesc);
	PG_RETURN_NULL();
}

/*
 * cleanup_check() returns a row (check_name, status, detail, hint) for each
 * finding.
 */
Datum
cleanup_check(PG_FUNCTION_ARGS)
{
	return return_rows(fcinfo, doctor_examine);
}

/*
 * cleanup_missing_files() returns a row (source, status, file_references,
 * missing, examples) for each source and status.
 */
Datum
cleanup_missing_files(PG_FUNCTION_ARGS)
{
	return return_rows(fcinfo, missing_files);
}

/*
 * cleanup_metrics() returns a row (name, labels, value, help, type) for each
 * figure.
 */
Datum
cleanup_metrics(PG_FUNCTION_ARGS)
{
	return return_rows(fcinfo, metrics_collect);
}

/*
 * cleanup_count_files() and cleanup_count_runs() are triggers AFTER UPDATE,
 * for each statement, with transition tables cleanup_old and cleanup_new.
 */
Datum
cleanup_count_files(PG_FUNCTION_ARGS)
{
	metrics_count_files(fcinfo);
	return PointerGetDatum(NULL);
}

Datum
cleanup_count_runs(PG_FUNCTION_ARGS)
{
	metrics_count_runs(fcinfo);
	return PointerGetDatum(NULL);
}

/* Returns a row of the result type of the call. */
static Datum
make_row(FunctionCallInfo fcinfo, const Datum *values, const bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), unconstify(Datum *, values), unconstify(bool *, nulls)));
}

/*
 * cleanup_next_run() returns (next_run timestamptz, reason text, timezone
 * text): when the built-in schedule cleans this database next.  next_run is
 * NULL if the schedule never cleans this database; the reason says why.
 */
Datum
cleanup_next_run(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	NextRun		next;
	Datum		values[3];
	bool		nulls[3] = {false, false, false};
	Datum		row;

	SPI_connect();
	next = timetable_next_run(extension_lookup(false));
	nulls[0] = !next.is_known;
	values[0] = TimestampTzGetDatum(next.at);
	values[1] = CStringGetTextDatum(next.reason);
	values[2] = CStringGetTextDatum(next.zone_name);
	MemoryContextSwitchTo(caller);
	row = make_row(fcinfo, values, nulls);
	SPI_finish();
	return row;
}

/* cleanup_progress() returns a row for each run under way in the cluster. */
Datum
cleanup_progress(PG_FUNCTION_ARGS)
{
	return return_rows(fcinfo, progress_look);
}

/* cleanup_dashboard() returns text: one self-contained page of HTML. */
Datum
cleanup_dashboard(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(dashboard_page()));
}

/* cleanup_send_test_mail() returns text: what the mail server did. */
Datum
cleanup_send_test_mail(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(mail_report_send_test()));
}


/* ----------------------------------------------------------------- to clean --- */

static Datum
clean(FunctionCallInfo fcinfo, CleanWhat what)
{
	bool		dry_run;
	bool		force;

	get_flags(fcinfo, &dry_run, &force);
	if (dry_run)
		PG_RETURN_JSONB_P(run_preview(what, force, PREVIEW_OF_CALL));
	PG_RETURN_JSONB_P(run_in_transaction(what, force));
}

/* cleanup_orphaned_files(dry_run boolean, force boolean) returns jsonb */
Datum
cleanup_orphaned_files(PG_FUNCTION_ARGS)
{
	return clean(fcinfo, CLEAN_ORPHANS);
}

/* cleanup_failed_sessions(dry_run boolean, force boolean) returns jsonb */
Datum
cleanup_failed_sessions(PG_FUNCTION_ARGS)
{
	return clean(fcinfo, CLEAN_FAILED);
}

/* cleanup_all(dry_run boolean, force boolean) returns jsonb */
Datum
cleanup_all(PG_FUNCTION_ARGS)
{
	return clean(fcinfo, CLEAN_ALL);
}

/* CALL cleanup_run(dry_run boolean, force boolean, INOUT result jsonb) */
Datum
cleanup_run(PG_FUNCTION_ARGS)
{
	bool		atomic = !(fcinfo->context && IsA(fcinfo->context, CallContext)) ||
	castNode(CallContext, fcinfo->context)->atomic;
	bool		isnull = false;
	bool		dry_run;
	bool		force;
	Datum		result;

	get_flags(fcinfo, &dry_run, &force);
	if (!atomic)
		run_take_read_committed();
	if (atomic && !dry_run)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("cleanup_run() cannot be called in a transaction block or from a function, because it commits"),
				 errhint("Call cleanup_all() there.")));
	result = JsonbPGetDatum(dry_run ? run_preview(CLEAN_ALL, force, PREVIEW_OF_RUN) : run_procedure(force));
	return make_row(fcinfo, &result, &isnull);
}


/* ------------------------------------------------------------------ to undo --- */

/* cleanup_restore(run_id bigint) returns jsonb: what is put back. */
Datum
cleanup_restore_run(PG_FUNCTION_ARGS)
{
	require_argument(fcinfo, 0, "run_id");
	PG_RETURN_JSONB_P(restore_run(PG_GETARG_INT64(0)));
}

/* cleanup_restore(file text [, restore_as text]) returns jsonb */
Datum
cleanup_restore_file(PG_FUNCTION_ARGS)
{
	const char *restore_as = NULL;

	require_argument(fcinfo, 0, "file");
	if (PG_NARGS() > 1)
	{
		require_argument(fcinfo, 1, "restore_as");
		restore_as = text_to_cstring(PG_GETARG_TEXT_PP(1));
	}
	PG_RETURN_JSONB_P(restore_file(text_to_cstring(PG_GETARG_TEXT_PP(0)), restore_as));
}

/* cleanup_purge_backups() returns jsonb: what has expired and is destroyed. */
Datum
cleanup_purge_backups(PG_FUNCTION_ARGS)
{
	PG_RETURN_JSONB_P(purge_backups());
}

/*
 * cleanup_hold(file text, reason text): no run cleans the file after the
 * commit.
 */
Datum
cleanup_hold(PG_FUNCTION_ARGS)
{
	const char *reason = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	const Settings *settings;
	const Extension *extension;
	const char *path;

	require_argument(fcinfo, 0, "file");
	SPI_connect();
	extension = extension_lookup(false);
	settings = settings_snapshot();
	path = location_relative(settings, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	/* the hold would be valid from the commit on, which destroys the file */
	if (at_commit_destroys(path))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the commit of this transaction will purge the backup of file \"%s\"", path),
				 errhint("Hold the file in an earlier transaction.")));
	hold_add(extension, settings, path, reason);
	SPI_finish();
	PG_RETURN_VOID();
}

/* cleanup_release(file text) returns boolean: false if the file was not held. */
Datum
cleanup_release(PG_FUNCTION_ARGS)
{
	bool		removed;

	require_argument(fcinfo, 0, "file");
	SPI_connect();
	removed = hold_remove(extension_lookup(false),
						  location_relative(settings_snapshot(),
											text_to_cstring(PG_GETARG_TEXT_PP(0))));
	SPI_finish();
	PG_RETURN_BOOL(removed);
}


/* ---------------------------------------------------------------- to set up --- */

/*
 * cleanup_add_source(source regclass, file_columns text[], id_column name,
 *	status_column name, failed_statuses text[], failed_at_column name,
 *	timezone text, on_failed text)
 */
Datum
cleanup_add_source(PG_FUNCTION_ARGS)
{
	SourceRegistration registration;

	require_argument(fcinfo, 0, "source");
	require_argument(fcinfo, 4, "failed_statuses");
	require_argument(fcinfo, 6, "timezone");
	require_argument(fcinfo, 7, "on_failed");
	registration.relid = PG_GETARG_OID(0);
	registration.file_columns = PG_ARGISNULL(1) ? (Datum) 0 :
		PointerGetDatum(PG_GETARG_ARRAYTYPE_P(1));
	registration.id_column = get_name_or_null(fcinfo, 2);
	registration.status_column = get_name_or_null(fcinfo, 3);
	registration.failed_statuses = PointerGetDatum(PG_GETARG_ARRAYTYPE_P(4));
	registration.failed_at_column = get_name_or_null(fcinfo, 5);
	registration.timezone = text_to_cstring(PG_GETARG_TEXT_PP(6));
	registration.on_failed = text_to_cstring(PG_GETARG_TEXT_PP(7));

	SPI_connect();
	sources_register(extension_lookup(false), &registration);
	SPI_finish();
	PG_RETURN_VOID();
}

/* cleanup_drop_source(source regclass) */
Datum
cleanup_drop_source(PG_FUNCTION_ARGS)
{
	require_argument(fcinfo, 0, "source");
	SPI_connect();
	sources_drop(extension_lookup(false), PG_GETARG_OID(0));
	SPI_finish();
	PG_RETURN_VOID();
}

/* cleanup_claim_upload_dir() */
Datum
cleanup_claim_upload_dir(PG_FUNCTION_ARGS)
{
	run_take_over();
	PG_RETURN_VOID();
}

/* cleanup_grant_access(role regrole, level text) */
Datum
cleanup_grant_access(PG_FUNCTION_ARGS)
{
	require_argument(fcinfo, 0, "role");
	require_argument(fcinfo, 1, "level");
	SPI_connect();
	access_grant(extension_lookup(false), PG_GETARG_OID(0),
				 text_to_cstring(PG_GETARG_TEXT_PP(1)));
	SPI_finish();
	PG_RETURN_VOID();
}

/* cleanup_revoke_access(role regrole) */
Datum
cleanup_revoke_access(PG_FUNCTION_ARGS)
{
	require_argument(fcinfo, 0, "role");
	SPI_connect();
	access_revoke(extension_lookup(false), PG_GETARG_OID(0));
	SPI_finish();
	PG_RETURN_VOID();
}
