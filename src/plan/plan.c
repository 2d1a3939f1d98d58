/*-------------------------------------------------------------------------
 *
 * plan/plan.c
 *	  Begins and ends a plan, applies its brakes, and answers questions about it.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "common/string.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "src/names/rules.h"
#include "src/pg/lock.h"
#include "src/pg/sql.h"
#include "src/pg/time.h"
#include "src/plan/private.h"

/* errors of a run, at most, that the server log tells one by one */
#define MOST_LOGGED		100


/* -------------------------------------------------------------- beginning --- */

/*
 * Closes the store of a plan, and ends the plan's limit of time, when the plan
 * ends, also by an ERROR.
 */
static void
give_back(void *arg)
{
	sources_set_deadline(0);
	store_close(((CleanupPlan *) arg)->found.store);
}

CleanupPlan *
plan_begin(CleanWhat what, bool dry_run, bool force)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup plan",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	CleanupPlan *plan = palloc0(sizeof(CleanupPlan));

	plan->memory = context;
	plan->what = what;
	plan->dry_run = dry_run;
	plan->force = force;
	plan->context.settings = settings_snapshot();
	plan->context.extension = extension_lookup(false);
	plan->found.n_uploads = -1;

	/* a call that is refused must not end the limit of the call around it */
	callback->func = give_back;
	callback->arg = plan;
	MemoryContextRegisterResetCallback(context, callback);
	MemoryContextSwitchTo(caller);
	return plan;
}

void
plan_end(CleanupPlan *plan)
{
	if (plan->found.condemned != NULL)
		condemned_end(plan->found.condemned);
	MemoryContextDelete(plan->memory);
}

/* A call and its result. */
typedef struct PlanCall
{
	CleanWhat	what;
	bool		dry_run;
	bool		force;
	PlanWork	work;
	void	   *arg;
	MemoryContext caller;		/* of the result */
	Jsonb	   *result;
} PlanCall;

static void
make_call(void *arg)
{
	PlanCall   *call = arg;
	CleanupPlan *plan;

	SPI_connect();
	plan = plan_begin(call->what, call->dry_run, call->force);
	PG_TRY();
	{
		Jsonb	   *result;

		MemoryContextSwitchTo(plan->memory);
		result = call->work(plan, call->arg);
		MemoryContextSwitchTo(call->caller);
		if (result != NULL)
			call->result = DatumGetJsonbPCopy(JsonbPGetDatum(result));
	}
	PG_FINALLY();
	{
		MemoryContextSwitchTo(call->caller);
		plan_end(plan);
	}
	PG_END_TRY();
	SPI_finish();
}

/*
 * A preview keeps no lock.  The caller may have no right to the tables that
 * the preview has read, and may leave the transaction open: a lock would hold
 * up each session that changes such a table, and all sessions that wait behind
 * that session.
 */
Jsonb *
plan_call(CleanWhat what, bool dry_run, bool force, PlanWork work, void *arg)
{
	PlanCall	call = {what, dry_run, force, work, arg, CurrentMemoryContext, NULL};
	ErrorData  *error;

	if (!dry_run)
		make_call(&call);
	else if ((error = sql_undo(make_call, &call)) != NULL)
		sql_rethrow(error);
	return call.result;
}


/* ------------------------------------------------------- what others may ask --- */

const PlanFindings *
plan_findings(const CleanupPlan *plan)
{
	return &plan->found;
}

const Context *
plan_context(const CleanupPlan *plan)
{
	return &plan->context;
}

CleanWhat
plan_what(const CleanupPlan *plan)
{
	return plan->what;
}

bool
plan_is_preview(const CleanupPlan *plan)
{
	return plan->dry_run;
}

const char *
plan_claim(const CleanupPlan *plan)
{
	return plan->found.claim != NULL ? plan->found.claim->uuid : NULL;
}

const char *
plan_what_text(CleanWhat what)
{
	static const char *const texts[] = {
		[CLEAN_ORPHANS] = "orphaned_files",
		[CLEAN_FAILED] = "failed_sessions",
		[CLEAN_ALL] = "all"
	};

	return texts[what];
}


/* ---------------------------------------------------------- brakes and errors --- */

void
plan_apply_brake(CleanupPlan *plan, Brake *brake)
{
	if (brake == NULL)
		return;
	plan->found.blocked = true;
	if (!plan->dry_run)
		brake_raise(brake);
	plan->found.brakes = lappend(plan->found.brakes, brake);
}

/*
 * In a process that nobody looks at, the server log tells the first errors; and
 * always an error that the history does not tell as a whole.
 */
void
plan_add_error(CleanupPlan *plan, const char *text, const char *to_record)
{
	MemoryContext caller = MemoryContextSwitchTo(plan->memory);

	if (plan->found.n_errors++ < plan->context.settings->report_limit)
		plan->found.errors = lappend(plan->found.errors, pstrdup(text));
	if (plan->found.first_error == NULL)
		plan->found.first_error = pstrdup(to_record ? to_record : text);
	MemoryContextSwitchTo(caller);
	if (!plan->dry_run && (to_record != NULL || (plan_is_unattended() && plan->found.n_errors <= MOST_LOGGED)))
		ereport(LOG_SERVER_ONLY,
				(errmsg("error in a cleanup run: %s", text),
				 errhidestmt(true), errhidecontext(true)));
}

void
plan_add_warning(CleanupPlan *plan, const char *text)
{
	plan->found.warnings = lappend(plan->found.warnings, pstrdup(text));
}

void
plan_advise(CleanupPlan *plan)
{
	plan->found.warnings = unregistered_search(plan, false);
}

/*
 * Raises the brake in a real run; a preview notes the brake apart from the
 * other brakes, and goes on.
 */
static void
note_brake(CleanupPlan *plan, Brake *found)
{
	if (!plan->dry_run)
		brake_raise_if(found);
	if (found != NULL)
		plan->found.notes = lappend(plan->found.notes, found);
}

void
plan_check_transaction(CleanupPlan *plan)
{
	Brake	   *found = NULL;

	if (RecoveryInProgress())
		found = brake_make("recovery", ERRCODE_READ_ONLY_SQL_TRANSACTION,
						   "cannot clean up while the server is in recovery", NULL,
						   "Run it on the primary; cleanup_status() and dry runs work here.");
	else if (XactReadOnly)
		found = brake_make("read_only", ERRCODE_READ_ONLY_SQL_TRANSACTION,
						   "cannot clean up in a read-only transaction", NULL,
						   "cleanup_status() and dry runs work here.");
	else if (IsolationUsesXactSnapshot())
		found = brake_make("isolation", ERRCODE_ACTIVE_SQL_TRANSACTION,
						   "cannot clean up in a REPEATABLE READ or SERIALIZABLE transaction",
						   "Its snapshot may be older than rows that refer to files.",
						   "Use a READ COMMITTED transaction.");
	note_brake(plan, found);
}

typedef struct NodesCheck
{
	List	   *sources;
	Brake	   *subscribed;
	bool		are_remote;
} NodesCheck;

static void
try_checking_nodes(void *arg)
{
	NodesCheck *check = arg;

	check->subscribed = sources_check_subscriptions(check->sources, &check->are_remote);
}

void
plan_check_nodes(CleanupPlan *plan, bool own_transaction)
{
	NodesCheck	check = {sources_load(plan->context.extension)};
	int			limit = lock_limit_waits(plan->context.settings->writer_wait);

	/* the survey reports what is wrong with a source itself */
	if (sources_check_all(check.sources) == NIL && sql_try(try_checking_nodes, &check) == NULL)
	{
		plan->replica = check.subscribed != NULL;
		note_brake(plan, check.subscribed);
		if (!own_transaction && check.are_remote)
			note_brake(plan, brake_make("isolation", ERRCODE_ACTIVE_SQL_TRANSACTION,
										"cannot clean up in one transaction where rows lie on another server",
										"It could see them as they were earlier, or take for others' writing what it has written there itself.",
										"CALL cleanup_run() in its place."));
	}
	lock_end_limit(limit);
}

void
plan_limit_reading(const Settings *settings, bool in_batches)
{
	int64		seconds = plan_is_unattended() ? settings->source_timeout : 0;
	int64		run_seconds = in_batches || plan_is_unattended() ? (int64) settings->max_run_minutes * SECS_PER_MINUTE : 0;

	if (run_seconds > 0 && (seconds == 0 || run_seconds <= seconds))
		seconds = run_seconds;
	sources_set_deadline(seconds == 0 ? 0 : time_monotonic_us() + seconds * USECS_PER_SEC);
}

bool
plan_is_unattended(void)
{
	/*
	 * by default pg_cron connects as a client of this name; any other client
	 * of this name is only stopped more often
	 */
	return MyBackendType == B_BG_WORKER ||
		(application_name != NULL && strcmp(application_name, "pg_cron") == 0);
}


/* ------------------------------------------------------------------- ages --- */

int64
plan_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64) now.tv_sec * NS_PER_SECOND + now.tv_nsec;
}

TimestampTz
plan_age_begins(const CleanupPlan *plan, TimestampTz at)
{
	const Claim *claim = plan->found.claim;

	return claim != NULL && claim->grace_from != 0 ? Max(at, claim->grace_from) : at;
}

TimestampTz
plan_file_time(const CleanupPlan *plan, const FileIdentity *identity)
{
	int64		newest = identity->mtime_ns;

	if (plan->context.settings->file_age == FILE_AGE_NEWEST)
		newest = Max(newest, Max(identity->ctime_ns, identity->btime_ns));
	return plan_age_begins(plan, time_from_unix_ns(newest));
}

bool
plan_is_old(const CleanupPlan *plan, const FileIdentity *identity)
{
	return plan_file_time(plan, identity) <= GetCurrentTimestamp() -
		(TimestampTz) plan->context.settings->orphaned_file_retention_hours * USECS_PER_HOUR;
}

TimestampTz
plan_failed_before(const Settings *settings)
{
	return GetCurrentTimestamp() -
		(TimestampTz) settings->failed_session_retention_days * USECS_PER_DAY;
}


/* ------------------------------------------------------------------- names --- */

bool
plan_is_readable_name(const Settings *settings, const char *path)
{
	return settings->rules->utf8 ? pg_verify_mbstr(PG_UTF8, path, (int) strlen(path), true) : pg_is_ascii(path);
}

char *
plan_escape_name(const char *name)
{
	StringInfoData escaped;

	initStringInfo(&escaped);
	for (; *name != '\0'; name++)
	{
		unsigned char c = (unsigned char) *name;

		if (c < 0x20 || c >= 0x7F || c == '\\')
			appendStringInfo(&escaped, "\\x%02X", c);
		else
			appendStringInfoChar(&escaped, (char) c);
	}
	return escaped.data;
}
