--
-- The history is forgotten after its retention, and reported by day
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3');

-- no run, no day
SELECT * FROM cleanup_report();

-- what a run, an earlier day, a backup and a brake add to it
SELECT t.file('a.mp3', 48, 1048576), t.file('b.mp3', 48, 524288), t.session(2, 'failed', 8, 'c.mp3', 'd.mp3'), t.file('c.mp3', 48, 262144), t.file('d.mp3', 48, 0);
CALL cleanup_run() \gset
SELECT day = current_date AS today, runs, files, freed_mb, failed_sessions, errors, restored, blocked FROM cleanup_report();
UPDATE cleanup_runs SET started_at = started_at - interval '3 days', finished_at = finished_at - interval '3 days';
UPDATE cleanup_files SET condemned_at = condemned_at - interval '3 days', finished_at = finished_at - interval '3 days';
SET audio_cleanup.backup_retention_days = 7;
SELECT t.file('e.mp3', 48, 1000);
CALL cleanup_run() \gset
RESET audio_cleanup.backup_retention_days;
DELETE FROM sessions;
SELECT t.file('f.mp3');
CALL cleanup_run();
SELECT current_date - day AS days_ago, runs, files, freed_mb, failed_sessions, errors, restored, blocked FROM cleanup_report();
SELECT current_date - day AS days_ago, runs, blocked FROM cleanup_report('1 day');
SELECT current_date - day AS days_ago, runs, blocked FROM cleanup_report(since => '0 days');
SELECT count(*) FROM cleanup_report(NULL);
-- put back, failed; what lies in the future is no day yet
UPDATE cleanup_files SET state = 'restored', finished_at = now() WHERE file = 'e.mp3';
UPDATE cleanup_files SET state = 'failed', error = 'could not rename file: Permission denied' WHERE file = 'a.mp3';
SELECT current_date - day AS days_ago, files, errors, restored FROM cleanup_report();
SELECT t.session(1, 'processed', 1, 'wanted.mp3');
CALL cleanup_run() \gset

-- forgotten: what is older than the retention, by the end of a run in batches; not by a preview, not by a run in a transaction
SELECT run_id, status, files, now() - finished_at > interval '3 days' AS old FROM cleanup_runs ORDER BY run_id;
SET audio_cleanup.history_retention_days = 2;
SELECT cleanup_all(true) -> 'success' AS success, cleanup_all() -> 'success' AS success;
CALL cleanup_run(dry_run => true) \gset
SELECT count(*) FROM cleanup_runs WHERE run_id = 1;
CALL cleanup_run() \gset
SELECT count(*) FROM cleanup_runs WHERE run_id = 1;
SELECT count(*) FROM cleanup_files WHERE run_id = 1;
SELECT array_agg(run_id ORDER BY run_id) FROM cleanup_runs;

-- never: what is not finished, held as a backup, failed and not tried since, in the trash unknown to anybody, a day of
-- the schedule, this server's start, the newest that was done
CREATE TABLE t.old (run_id bigint, what text);
CREATE FUNCTION t.make_run(what text, finished boolean, state text, error text, trigger text, scheduled_for date, status text DEFAULT 'done', message text DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
	WITH r AS (INSERT INTO cleanup_runs (started_at, finished_at, what, trigger, scheduled_for, status, message, requested_by, upload_dir, settings, files)
		SELECT now() - interval '100 days', CASE WHEN finished THEN now() - interval '100 days' END, 'all', trigger, scheduled_for, status, message, 'me', '/nowhere', '{}', 2
		RETURNING run_id),
	f AS (INSERT INTO cleanup_files (run_id, file, reason, state, error, size, modified_at, due_at, inode, mtime_ns, ctime_ns, btime_ns)
		SELECT run_id, name, 'orphan', s, error, 1, now(), now() + interval '1 day', 1, 1, 1, 1 FROM r, (VALUES ('x', 'deleted'), ('y', state)) s(name, s))
	INSERT INTO t.old SELECT run_id, what FROM r
$$;
SELECT t.make_run('deleted', true, 'deleted', NULL, 'sql', NULL),
	t.make_run('skipped', true, 'skipped', 'it vanished', 'sql', NULL),
	t.make_run('restored', true, 'restored', NULL, 'sql', NULL),
	t.make_run('blocked', true, 'deleted', NULL, 'sql', NULL, 'blocked', 'a brake'),
	t.make_run('failed, then tried again', true, 'failed', 'could not rename file', 'sql', NULL),
	t.make_run('not finished', false, 'deleted', NULL, 'sql', NULL, 'interrupted'),
	t.make_run('pending', true, 'pending', NULL, 'sql', NULL),
	t.make_run('backup', true, 'trashed', NULL, 'sql', NULL),
	t.make_run('in the trash', true, 'failed', 'it is referred to again, but its name is taken; it lies in .audio_cleanup/trash/7', 'sql', NULL),
	t.make_run('last month', true, 'deleted', NULL, 'schedule', current_date - 31),
	t.make_run('this week', true, 'deleted', NULL, 'schedule', current_date - 7),
	t.make_run('start before', true, 'deleted', NULL, 'startup', NULL);
UPDATE cleanup_runs SET started_at = now(), trigger = 'startup' WHERE run_id = (SELECT run_id FROM t.old WHERE what = 'deleted');
UPDATE t.old SET what = 'start of this server' WHERE what = 'deleted';
UPDATE cleanup_files SET finished_at = now() - interval '90 days' WHERE run_id IN (SELECT run_id FROM t.old WHERE what = 'restored');
SELECT t.make_run('restored of late', true, 'restored', NULL, 'sql', NULL), t.make_run('backup until of late', true, 'deleted', NULL, 'sql', NULL),
	t.make_run('backup until long ago', true, 'deleted', NULL, 'sql', NULL);
UPDATE cleanup_files SET finished_at = now() - interval '6 days' WHERE run_id IN (SELECT run_id FROM t.old WHERE what = 'restored of late');
UPDATE cleanup_runs SET settings = '{"backup_retention_days": 99}' WHERE run_id IN (SELECT run_id FROM t.old WHERE what = 'backup until of late');
UPDATE cleanup_runs SET settings = '{"backup_retention_days": 90}' WHERE run_id IN (SELECT run_id FROM t.old WHERE what = 'backup until long ago');
SELECT t.make_run('tried again, in vain', true, 'failed', 'could not rename file', 'sql', NULL, 'failed'),
	t.make_run('ended too early to try again', true, 'deleted', NULL, 'sql', NULL, 'failed', 'out of memory');
SELECT t.make_run('tried, with other errors', true, 'failed', 'could not rename file', 'sql', NULL),
	t.make_run('had other errors', true, 'deleted', NULL, 'sql', NULL, 'failed', 'a source could not be cleared');
UPDATE cleanup_runs SET upload_dir = '/elsewhere', other_errors = (status = 'failed')::int WHERE run_id IN (SELECT run_id FROM t.old WHERE what ~ 'other errors');
CALL cleanup_run() \gset
SELECT o.what, count(r.run_id) AS kept, (SELECT count(*) FROM cleanup_files f WHERE f.run_id = o.run_id) AS files
FROM t.old o LEFT JOIN cleanup_runs r USING (run_id) GROUP BY o.run_id, o.what ORDER BY o.run_id;
SELECT count(*) AS files_without_run FROM cleanup_files WHERE run_id NOT IN (SELECT run_id FROM cleanup_runs);

-- 0: for ever
SET audio_cleanup.history_retention_days = 0;
SELECT t.sh('rm -rf .audio_cleanup/trash');	-- or it would be put back
DELETE FROM cleanup_files;
DELETE FROM cleanup_runs;
SELECT t.make_run('deleted', true, 'deleted', NULL, 'sql', NULL) FROM generate_series(1, 3);
CALL cleanup_run() \gset
SELECT count(*) FROM cleanup_runs;
SET audio_cleanup.history_retention_days = -1;

-- a run that was refused leaves it to the night worker; the default is a year
RESET audio_cleanup.history_retention_days;
DELETE FROM sessions;
CALL cleanup_run();
CALL cleanup_run(force => true) \gset
SELECT count(*) FROM cleanup_runs;
UPDATE cleanup_runs SET finished_at = now() - interval '366 days' WHERE run_id = (SELECT min(run_id) FROM cleanup_runs);
CALL cleanup_run(force => true) \gset
SELECT count(*) FROM cleanup_runs WHERE upload_dir = '/nowhere';
-- many files, and more than one transaction
INSERT INTO cleanup_files (run_id, file, reason, state, size, modified_at, due_at, inode, mtime_ns, ctime_ns, btime_ns)
SELECT (SELECT min(run_id) FROM cleanup_runs), n, 'orphan', 'deleted', 1, now(), now(), 1, 1, 1, 1 FROM generate_series(1, 25000) n;
SET audio_cleanup.history_retention_days = 50;
CALL cleanup_run(force => true) \gset
SELECT count(*) FILTER (WHERE upload_dir = '/nowhere') AS old, count(*) AS runs, (SELECT count(*) FROM cleanup_files WHERE file ~ '^\d+$') AS files
FROM cleanup_runs;
