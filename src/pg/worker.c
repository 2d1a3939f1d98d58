/*-------------------------------------------------------------------------
 *
 * pg/worker.c
 *	  Functions that all our background workers use.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "src/pg/compat.h"
#include "src/pg/extension.h"
#include "src/pg/progress.h"
#include "src/pg/snapshot.h"
#include "src/pg/worker.h"

/* how long a worker waits for a lock that its connection needs: the owner of a database can lock the database */
#define CONNECT_WAIT	"10s"

void
worker_describe(BackgroundWorker *worker, const char *main, const char *type)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker->bgw_library_name, EXTENSION_NAME, sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, main, sizeof(worker->bgw_function_name));
	strlcpy(worker->bgw_name, type, sizeof(worker->bgw_name));
	strlcpy(worker->bgw_type, type, sizeof(worker->bgw_type));
}

/*
 * Settings that a DBA made for the sessions of users, with ALTER DATABASE or
 * in postgresql.conf, must not stop our workers.  Autovacuum overrides these
 * settings, too.
 */
static void
override_settings(void)
{
	static const char *const settings[][2] = {
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_deferrable", "off"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"session_replication_role", "origin"},
		COMPAT_TRANSACTION_TIMEOUT_OFF
		{"exit_on_error", "off"},
		{"role", "none"}
	};

	/* the owner of the database may have set session_authorization, too */
	SetSessionAuthorization(BOOTSTRAP_SUPERUSERID, true);
	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);

	/*
	 * the owner of the database can lock our tables (DROP SCHEMA ... CASCADE
	 * in an open transaction) for as long as a view of theirs can sleep: the
	 * setting, which settings.c defines, is in seconds
	 */
	SetConfigOption("lock_timeout", psprintf("%ss", GetConfigOption(EXTENSION_NAME ".source_timeout", false, false)),
					PGC_SUSET, PGC_S_OVERRIDE);
}

void
worker_connect(const char *name, Oid database)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	SetConfigOption("lock_timeout", CONNECT_WAIT, PGC_SUSET, PGC_S_OVERRIDE);
	if (name != NULL)
		BackgroundWorkerInitializeConnection(name, NULL, 0);
	else
		BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	override_settings();
}

void
worker_begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	snapshot_begin();
}

Extension *
worker_begin_in(MemoryContext context)
{
	MemoryContext caller;
	Extension  *extension;

	worker_begin();
	caller = MemoryContextSwitchTo(context ? context : CurrentMemoryContext);
	extension = extension_lookup(true);
	MemoryContextSwitchTo(caller);
	return extension;
}

void
worker_commit(void)
{
	PopActiveSnapshot();
	SPI_finish();
	CommitTransactionCommand();
	pgstat_report_stat(false);
}

void
worker_give_up(MemoryContext context)
{
	MemoryContextSwitchTo(context);
	EmitErrorReport();
	FlushErrorState();
	AbortCurrentTransaction();
}

void
worker_look_up(void)
{
	progress_tick();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}
