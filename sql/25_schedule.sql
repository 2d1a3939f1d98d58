--
-- The built-in schedule as a session sees it where the library is not preloaded
--
\i test/fixture.sql

-- who does not preload has no schedule, and is told so
SELECT * FROM cleanup_next_run();
SELECT count(*) FROM cleanup_progress;

-- the launcher's settings are the administrator's
SET audio_cleanup.cleanup_schedule_hour = 4;
SET audio_cleanup.databases = 'app';
SET audio_cleanup.timezone = 'Europe/Berlin';
SET audio_cleanup.auto_cleanup_on_startup = on;
ALTER DATABASE :"DBNAME" SET audio_cleanup.databases = 'app';
ALTER SYSTEM SET audio_cleanup.cleanup_schedule_hour = 24;
ALTER SYSTEM SET audio_cleanup.timezone = 'Europe/Nowhere';
ALTER SYSTEM SET audio_cleanup.databases = 'app, "half quoted';
ALTER SYSTEM SET audio_cleanup.databases = 'app,,b';
SELECT format('ALTER SYSTEM SET audio_cleanup.databases = %L', repeat('b', 64)) \gexec
ALTER SYSTEM SET audio_cleanup.databases = 'app, "My App", my-app, app';
ALTER SYSTEM RESET audio_cleanup.databases;

-- how fast, how long
SET audio_cleanup.files_per_second = -1;
-- the server's words for the range have units since 17
\set VERBOSITY sqlstate
SET audio_cleanup.max_run_minutes = -1;
\set VERBOSITY default
SET audio_cleanup.max_run_minutes = '2h';
SHOW audio_cleanup.max_run_minutes;
RESET audio_cleanup.max_run_minutes;

-- at two files a second, eight take at least three seconds, in any kind of run
SELECT cleanup_add_source('sessions');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3'), t.files(8);
SET audio_cleanup.files_per_second = 2;
SELECT clock_timestamp() AS began \gset
CALL cleanup_run() \gset
SELECT :'result'::jsonb #> '{result,orphaned_files_count}' AS deleted,
	clock_timestamp() - :'began'::timestamptz BETWEEN '3 s' AND '10 s' AS at_that_pace;
SELECT t.names();
RESET audio_cleanup.files_per_second;

-- what was refused is on record, and does not count as a run of a day
DELETE FROM sessions;
SELECT t.file('orphan.mp3');
CALL cleanup_run();
SELECT run_id, trigger, scheduled_for, status, message, files, finished_at IS NOT NULL AS finished FROM cleanup_runs ORDER BY run_id;
SELECT count(*) FROM cleanup_schedule;

-- a day of the schedule has one run
INSERT INTO cleanup_runs (what, trigger, scheduled_for, requested_by, upload_dir, settings) VALUES ('all', 'schedule', '2026-01-01', 'x', '/', '{}');
INSERT INTO cleanup_runs (what, trigger, scheduled_for, requested_by, upload_dir, settings) VALUES ('all', 'catch-up', '2026-01-01', 'x', '/', '{}');
\set VERBOSITY sqlstate
INSERT INTO cleanup_runs (what, trigger, requested_by, upload_dir, settings) VALUES ('all', 'cron', 'x', '/', '{}');
