/*-------------------------------------------------------------------------
 *
 * night/launcher.c
 *	  The background worker that knows the schedule, and starts night workers.
 *
 * The launcher is connected to no database, so that any database can be
 * dropped.  When the schedule fires, the launcher starts a night worker for
 * each database of audio_cleanup.databases, one after the other, and sleeps
 * until the worker ends.  If a database takes long, the launcher begins the
 * next database after some seconds, and uses up to half of the server's
 * workers.  The launcher stores nothing: the databases know what has run.
 *
 * The launcher looks at the clock once a minute, because nobody tells a
 * process that the clock was set, and once a second while a database waits.
 * Otherwise only signals and the scheduled hour wake the launcher.
 *
 * Copyright (c) 2026, audio_cleanup contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "src/night/launcher.h"
#include "src/night/timetable.h"
#include "src/pg/compat.h"
#include "src/pg/shmem.h"
#include "src/pg/time.h"
#include "src/pg/worker.h"

#define RECHECK_MS		60000
#define WAITING_MS		1000
#define RETRY_MS		10000
#define RESTART_SECONDS	60

/*
 * after this time the next database is begun beside a database that is being
 * cleaned
 */
#define ALONE_MS		10000

/* limit for databases that are cleaned at once; half of max_worker_processes is another limit */
#define MAX_AT_ONCE		16

typedef struct Job
{
	NightJob	night;
	/* times by time_monotonic_us(): the server's clock may be set back */
	int64		not_before;
	int64		started_at;		/* set while the job is under way */
	BackgroundWorkerHandle *worker;
} Job;

/* The state of the launcher's process, which lives in the memory context that is always current. */
typedef struct Launcher
{
	Schedule   *schedule;		/* in a memory context of its own */
	Firing		firing;			/* the last firing that was seen */
	List	   *jobs;			/* jobs (Job *) that wait */
	List	   *running;		/* jobs (Job *) that are under way */
	int64		last_number;
} Launcher;

/* in shared memory: for each slot, the highest number of a job that is to be tried again */
static pg_atomic_uint64 *busy = NULL;


/* ----------------------------------------------------------- shared memory --- */

static void
attach_busy(void *memory, bool is_new)
{
	busy = memory;
	for (int i = 0; is_new && i < MAX_AT_ONCE; i++)
		pg_atomic_init_u64(&busy[i], 0);
}

/*
 * A worker of an earlier launcher may still use a slot that this launcher has
 * given to another job.  The number of such a worker is lower than the number
 * of the other job.
 */
void
launcher_report_busy(const NightJob *job)
{
	uint64		known = pg_atomic_read_u64(&busy[job->slot]);

	while (known < job->number &&
		   !pg_atomic_compare_exchange_u64(&busy[job->slot], &known, job->number))
		;
}

void
launcher_init(void)
{
	BackgroundWorker worker;

	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	shmem_request("audio_cleanup launcher", sizeof(*busy) * MAX_AT_ONCE, attach_busy);
	worker_describe(&worker, "cleanup_launcher_main", "audio_cleanup launcher");
	worker.bgw_restart_time = RESTART_SECONDS;
	RegisterBackgroundWorker(&worker);
}


/* -------------------------------------------------------------------- jobs --- */

/* Adds a job for each database of the schedule that is not in the list `except`. */
static void
add_jobs(Launcher *launcher, List *except, bool first_look, bool server_started)
{
	foreach_ptr(char, database, launcher->schedule->databases)
	{
		Job		   *job;

		if (settings_is_listed(except, database))
			continue;
		job = palloc0(sizeof(Job));
		job->night.firing = launcher->firing;
		job->night.first_look = first_look;
		job->night.server_started = server_started;
		strlcpy(job->night.database, database, NAMEDATALEN);
		launcher->jobs = lappend(launcher->jobs, job);
	}
}

/*
 * Puts a job that was busy back on the list, for some seconds later.  Its
 * worker has written the reason to the log.
 */
static void
delay_job(Launcher *launcher, Job *job)
{
	job->night.delay_told = true;
	job->not_before = time_monotonic_us() + RETRY_MS * 1000;
	launcher->jobs = lappend(launcher->jobs, job);
}

static int
find_free_slot(const Launcher *launcher)
{
	bool		taken[MAX_AT_ONCE] = {false};
	int			slot = 0;

	foreach_ptr(const Job, job, launcher->running)
		taken[job->night.slot] = true;
	while (taken[slot])
		slot++;
	return slot;
}

static bool
is_running(const Launcher *launcher, const char *database)
{
	foreach_ptr(const Job, job, launcher->running)
		if (strcmp(job->night.database, database) == 0)
		return true;
	return false;
}

/* Returns whether one more worker may be started now. */
static bool
may_start(const Launcher *launcher)
{
	int			n = list_length(launcher->running);

	/* the server's other users need workers, too */
	return n == 0 || (n < Min(Max(max_worker_processes / 2, 1), MAX_AT_ONCE) &&
					  ((const Job *) llast(launcher->running))->started_at + ALONE_MS * 1000 <= time_monotonic_us());
}

static bool
start_night_worker(Launcher *launcher, Job *job)
{
	BackgroundWorker worker;

	/*
	 * a new number for each try: a slot accepts no report with a lower number
	 * than the last report
	 */
	job->night.number = ++launcher->last_number;
	job->night.slot = find_free_slot(launcher);
	worker_describe(&worker, "cleanup_night_worker_main", "audio_cleanup worker");
	memcpy(worker.bgw_extra, &job->night, sizeof(job->night));
	worker.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&worker, &job->worker))
		return false;
	job->started_at = time_monotonic_us();
	launcher->running = lappend(launcher->running, job);
	return true;
}

/*
 * Takes a job whose time has come off the list, and the jobs before it whose
 * databases are not to be cleaned any more.  Returns NULL if no job's time has
 * come.
 */
static Job *
take_next_job(Launcher *launcher)
{
	int64		now = time_monotonic_us();
	ListCell   *lc;

	foreach(lc, launcher->jobs)
	{
		Job		   *job = lfirst(lc);

		if (job->not_before > now || is_running(launcher, job->night.database))
			continue;
		launcher->jobs = foreach_delete_current(launcher->jobs, lc);
		if (settings_is_listed(launcher->schedule->databases, job->night.database))
			return job;
		pfree(job);
	}
	return NULL;
}

static void
start_next_job(Launcher *launcher)
{
	Job		   *job = may_start(launcher) ? take_next_job(launcher) : NULL;
	const Job  *before = launcher->running == NIL ? NULL : llast(launcher->running);

	if (job == NULL)
		return;
	if (!start_night_worker(launcher, job))
	{
		if (!job->night.delay_told)
			ereport(LOG,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("waiting to clean database \"%s\": no background worker is free", job->night.database),
					 errhint("You might need to increase max_worker_processes.")));
		delay_job(launcher, job);
	}
	else if (before != NULL)
		ereport(LOG,
				(errmsg("cleaning database \"%s\" while database \"%s\" is still being cleaned",
						job->night.database, before->night.database),
				 errdetail("The latter takes longer than %d seconds.", ALONE_MS / 1000)));
}

/* Takes workers that have ended off the list, and delays their jobs if they were busy. */
static void
look_after_workers(Launcher *launcher)
{
	ListCell   *lc;

	foreach(lc, launcher->running)
	{
		Job		   *job = lfirst(lc);
		pid_t		pid;

		if (GetBackgroundWorkerPid(job->worker, &pid) != BGWH_STOPPED)
			continue;
		launcher->running = foreach_delete_current(launcher->running, lc);
		pfree(job->worker);
		if (pg_atomic_read_u64(&busy[job->night.slot]) == job->night.number)
			delay_job(launcher, job);
		else
			pfree(job);
	}
}


/* ---------------------------------------------------------------- schedule --- */

static void
show_activity(const Launcher *launcher)
{
	const Schedule *schedule = launcher->schedule;
	const Firing next = timetable_next(schedule, settings_now(schedule));
	char		activity[128 + NAMEDATALEN];

	if (list_length(launcher->running) > 1)
		snprintf(activity, sizeof(activity), "cleaning database \"%s\" and %d more",
				 ((Job *) llast(launcher->running))->night.database,
				 list_length(launcher->running) - 1);
	else if (launcher->running != NIL)
		snprintf(activity, sizeof(activity), "cleaning database \"%s\"",
				 ((Job *) linitial(launcher->running))->night.database);
	else if (schedule->databases == NIL)
		snprintf(activity, sizeof(activity), "idle: audio_cleanup.databases is empty");
	else if (TIMESTAMP_IS_NOEND(next.at))
		snprintf(activity, sizeof(activity), "idle: audio_cleanup.cleanup_schedule_hour is -1");
	else
		snprintf(activity, sizeof(activity), "sleeping until %s",
				 timestamptz_to_str(next.at));
	pgstat_report_activity(STATE_IDLE, activity);
}

/* Marks the last firing as seen, so that this launcher does not act on it. */
static void
adopt_firing(Launcher *launcher)
{
	launcher->firing = timetable_last(launcher->schedule, settings_now(launcher->schedule));
}

static void
load_schedule(Launcher *launcher)
{
	MemoryContext caller = MemoryContextSwitchTo(AllocSetContextCreate(CurrentMemoryContext, "audio_cleanup schedule",
																	   ALLOCSET_SMALL_SIZES));

	launcher->schedule = settings_schedule();
	MemoryContextSwitchTo(caller);
}

/*
 * Reads the configuration again.  Adds a first look at databases that are new,
 * or at all databases if the hour or the time zone is new.  These databases
 * record since when the schedule is in force.
 */
static void
reload(Launcher *launcher)
{
	Schedule   *before = launcher->schedule;
	bool		changed;

	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	load_schedule(launcher);
	changed = launcher->schedule->hour != before->hour ||
		strcmp(launcher->schedule->zone_name, before->zone_name) != 0;
	if (changed)
		adopt_firing(launcher);
	add_jobs(launcher, changed ? NIL : before->databases, true, false);
	MemoryContextDelete(GetMemoryChunkContext(before));
}

/* Returns the milliseconds until there is something to do; -1 if only a signal can bring work. */
static long
time_to_sleep(const Launcher *launcher)
{
	TimestampTz now = settings_now(launcher->schedule);
	TimestampTz next = timetable_next(launcher->schedule, now).at;

	/* a worker that ends sets the latch */
	foreach_ptr(const Job, job, launcher->jobs)
		if (!is_running(launcher, job->night.database))
		return WAITING_MS;
	if (launcher->schedule->databases == NIL || TIMESTAMP_IS_NOEND(next))
		return -1;
	return Min(RECHECK_MS, TimestampDifferenceMilliseconds(now, next));
}


/* -------------------------------------------------------------------- main --- */

static void
work(Launcher *launcher)
{
	TimestampTz before;

	/*
	 * As with the logical replication launcher, exit status 1 makes the
	 * postmaster start the launcher again, unless the server is shutting
	 * down.
	 */
	if (ShutdownRequestPending)
		proc_exit(1);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
		reload(launcher);

	/*
	 * if the clock was set back, the schedule has fired before, and fires
	 * again later
	 */
	before = launcher->firing.at;
	adopt_firing(launcher);
	if (launcher->firing.at > before)
		add_jobs(launcher, NIL, false, false);
	look_after_workers(launcher);
	start_next_job(launcher);
	show_activity(launcher);
}

void
cleanup_launcher_main(Datum unused)
{
	Launcher	launcher = {0};
	long		ms;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	MemoryContextSwitchTo(AllocSetContextCreate(TopMemoryContext, "audio_cleanup launcher",
												ALLOCSET_DEFAULT_SIZES));

	/*
	 * a worker of an earlier launcher may still be running with a lower
	 * number
	 */
	launcher.last_number = time_monotonic_us();
	load_schedule(&launcher);
	adopt_firing(&launcher);
	add_jobs(&launcher, NIL, true, true);
	for (;;)
	{
		work(&launcher);
		ms = time_to_sleep(&launcher);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (ms >= 0 ? WL_TIMEOUT : 0),
						 ms, compat_wait_event("AudioCleanupLauncherMain"));
		ResetLatch(MyLatch);
	}
}
