--
-- Figures for a monitoring system
--
\i test/fixture.sql

-- all there is, before anything has happened; names and types as Prometheus wants them
SELECT name, labels, type, help FROM cleanup_metrics ORDER BY name COLLATE "C", labels::text COLLATE "C";
SELECT name, labels FROM cleanup_metrics WHERE name !~ '^audio_cleanup_[a-z_]+$' OR (type = 'counter') <> (name ~ '_total$')
	OR type NOT IN ('counter', 'gauge') OR help !~ '^[A-Z0-9].*\.$' OR jsonb_typeof(labels) <> 'object' OR value IS NULL;
SELECT name, count(*) FROM cleanup_metrics GROUP BY name, labels HAVING count(*) > 1;
CREATE VIEW t.metrics AS
SELECT regexp_replace(name, '^audio_cleanup_', '') || coalesce((SELECT '{' || string_agg(key || '=' || value, ',') || '}' FROM jsonb_each_text(labels) HAVING count(*) > 0), '') AS metric, value
FROM cleanup_metrics;
SELECT * FROM t.metrics WHERE value <> 0 AND metric !~ '^upload_dir' ORDER BY metric COLLATE "C";
SELECT array_agg(metric ORDER BY metric COLLATE "C") AS present FROM t.metrics WHERE metric ~ 'upload_dir|next_run|last_run_timestamp';

-- with the history
SELECT cleanup_add_source('sessions');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3'), t.session(2, 'failed', 8, 'failed1.mp3', 'failed2.mp3'), t.file('failed1.mp3', 48, 10), t.file('failed2.mp3', 48, 20),
	t.file('a.mp3', 48, 1000), t.file('b.mp3', 48, 2000), t.file('replaced.mp3');
BEGIN;
SELECT cleanup_all() -> 'success' AS success;
SELECT t.sh('echo new > new; mv new replaced.mp3; touch -d "-49 hours" replaced.mp3');
-- not committed yet
SELECT * FROM t.metrics WHERE metric IN ('pending_files', 'unfinished_runs', 'runs_total{status=done}', 'files_deleted_total{reason=orphan}') ORDER BY metric;
SELECT value = (SELECT extract(epoch FROM min(condemned_at)) FROM cleanup_files)::float8 AS oldest FROM t.metrics WHERE metric = 'oldest_pending_timestamp_seconds';
COMMIT;
SELECT t.wait_for_worker();
SELECT * FROM t.metrics WHERE value <> 0 AND metric !~ 'upload_dir|seconds' ORDER BY metric COLLATE "C";
SELECT abs(value - extract(epoch FROM finished_at)) < 0.001 AS success FROM t.metrics, cleanup_runs WHERE metric = 'last_success_timestamp_seconds';
SELECT abs(value - extract(epoch FROM started_at)) < 0.001 AS began FROM t.metrics, cleanup_runs WHERE metric = 'last_run_timestamp_seconds';
SELECT abs(value - extract(epoch FROM finished_at - started_at)) < 0.001 AS duration FROM t.metrics, cleanup_runs WHERE metric = 'last_run_duration_seconds';

-- a backup; it is deleted when it is due, and counted when that happens
SET audio_cleanup.backup_retention_days = 1;
SELECT t.file('c.mp3', 48, 5000);
CALL cleanup_run() \gset
SELECT * FROM t.metrics WHERE metric ~ 'backup|pending|bytes_freed_total|files_deleted' ORDER BY metric COLLATE "C";
UPDATE cleanup_files SET due_at = now() WHERE file = 'c.mp3';
SELECT * FROM t.metrics WHERE metric ~ 'backup|pending_files' ORDER BY metric COLLATE "C";
SELECT now() - to_timestamp(value) < interval '1 minute' AS since FROM t.metrics WHERE metric = 'oldest_pending_timestamp_seconds';
CALL cleanup_run() \gset
SELECT * FROM t.metrics WHERE metric ~ 'backup|pending|bytes_freed_total|files_deleted|runs_total.*done' ORDER BY metric COLLATE "C";
RESET audio_cleanup.backup_retention_days;

-- refused
DELETE FROM sessions;
CALL cleanup_run();
SELECT * FROM t.metrics WHERE value <> 0 AND metric ~ 'blocked|last_run_status' ORDER BY metric COLLATE "C";
SELECT value > 0 AS still_known FROM t.metrics WHERE metric = 'last_success_timestamp_seconds';

-- what is rolled back is not counted, and what is forgotten is not taken away
CREATE TABLE t.before AS SELECT * FROM t.metrics WHERE metric ~ '_total';
BEGIN;
UPDATE cleanup_files SET state = 'deleted' WHERE state = 'skipped';
SELECT metric, m.value - b.value AS more FROM t.metrics m JOIN t.before b USING (metric) WHERE m.value <> b.value;
ROLLBACK;
SELECT metric, m.value - b.value AS more FROM t.metrics m JOIN t.before b USING (metric) WHERE m.value <> b.value;
UPDATE cleanup_runs SET finished_at = finished_at - interval '400 days';
UPDATE cleanup_files SET error = NULL;
CALL cleanup_run(force => true) \gset
SELECT count(*) FROM cleanup_runs;
SELECT metric, m.value - b.value AS more FROM t.metrics m JOIN t.before b USING (metric) WHERE m.value <> b.value ORDER BY metric COLLATE "C";
-- several runs at once, in any order
INSERT INTO cleanup_runs (what, requested_by, upload_dir, settings, failed_sessions) SELECT 'all', 'me', '/', '{}', 2 FROM generate_series(1, 5);
UPDATE cleanup_runs SET status = 'interrupted', finished_at = now() WHERE upload_dir = '/';
SELECT * FROM t.metrics WHERE metric ~ 'interrupted|failed_sessions' ORDER BY metric COLLATE "C";

-- without the directory there is no figure of it, and no error
SELECT set_config('audio_cleanup.upload_dir', '/nonexistent', false);
SELECT * FROM t.metrics WHERE metric ~ 'upload_dir';
RESET audio_cleanup.upload_dir;
SELECT metric, value > 0 AS positive FROM t.metrics WHERE metric ~ 'upload_dir' ORDER BY metric COLLATE "C";

-- for a viewer, in a read-only transaction, without a lock on a source
SELECT count(*) AS metrics FROM cleanup_metrics \gset
CREATE ROLE regress_viewer;
SELECT cleanup_grant_access('regress_viewer');
SET ROLE regress_viewer;
BEGIN READ ONLY;
SELECT count(*) = :metrics AS all_of_them FROM cleanup_metrics;
SELECT count(*) FROM pg_locks WHERE relation = 'sessions'::regclass AND pid = pg_backend_pid();
COMMIT;
SELECT t.try('SELECT * FROM cleanup_totals'), t.try('UPDATE cleanup_totals SET value = 0');
RESET ROLE;
SELECT cleanup_revoke_access('regress_viewer');
DROP ROLE regress_viewer;
SELECT t.try('SELECT cleanup_count_files()'), t.try('SELECT cleanup_count_runs()');
