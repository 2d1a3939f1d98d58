--
-- The JSON that applications pass through: keys, types, messages
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');

-- key, type and, where it is no list, value
CREATE FUNCTION t.shape(object jsonb) RETURNS TABLE (key text, type text, value jsonb) LANGUAGE sql AS $$
	SELECT key, jsonb_typeof(value), CASE WHEN jsonb_typeof(value) <> 'object' THEN value END
	FROM jsonb_each(object) ORDER BY key COLLATE "C"
$$;

-- cleanup_config(): five keys of old, and more
SELECT * FROM t.shape(cleanup_config()) WHERE key IN ('failed_session_retention_days',
	'orphaned_file_retention_hours', 'upload_dir', 'auto_cleanup_on_startup', 'cleanup_schedule_hour');
SELECT key, type FROM t.shape(cleanup_config());
-- the rest of them follow the session
SET audio_cleanup.orphaned_file_retention_hours = 12;
SET audio_cleanup.writer_wait = '3s';
SET audio_cleanup.upload_dir = 'uploads//audio/./';
SELECT c ->> 'orphaned_file_retention_hours' AS hours, c ->> 'writer_wait_ms' AS writer_wait_ms,
	c ->> 'upload_dir' AS upload_dir, t.hide_paths(c ->> 'upload_dir_absolute') AS upload_dir_absolute
FROM cleanup_config() c;
RESET audio_cleanup.orphaned_file_retention_hours;
RESET audio_cleanup.writer_wait;
RESET audio_cleanup.upload_dir;

-- an empty directory
SELECT * FROM t.shape(cleanup_status());
SELECT * FROM t.shape(cleanup_status() -> 'potential_cleanup');
SELECT * FROM t.shape(cleanup_orphaned_files(true));
SELECT * FROM t.shape(cleanup_orphaned_files(true) -> 'result');

-- something to do: 1.5 MiB of an orphan, 0.25 MiB of a failed session
SELECT t.file('nested/orphan.mp3', 48, 1572864), t.file('failed.wav', 48, 262144), t.file('wanted.mp3');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.session(2, 'failed', 8, 'failed.wav');
SELECT jsonb_pretty(cleanup_status());
SELECT jsonb_pretty(cleanup_orphaned_files(dry_run => true));
SELECT jsonb_pretty(cleanup_failed_sessions(dry_run => true));
SELECT jsonb_pretty(cleanup_all(dry_run => true));
CALL cleanup_run(dry_run => true) \gset
SELECT :'result'::jsonb = cleanup_all(dry_run => true) AS same;
BEGIN;
SELECT jsonb_pretty(cleanup_orphaned_files());
ROLLBACK;
BEGIN;
SELECT jsonb_pretty(cleanup_failed_sessions());
ROLLBACK;
SELECT jsonb_pretty(cleanup_all());
CALL cleanup_run() \gset
SELECT jsonb_pretty(:'result'::jsonb);

-- eight keys, no more, in whatever comes back
SELECT array_agg(key ORDER BY key COLLATE "C") AS keys, count(*)
FROM jsonb_object_keys(cleanup_all() -> 'result') key;

-- trouble: a dry run says so
SELECT cleanup_drop_source('sessions');
SELECT jsonb_pretty(cleanup_status());
SELECT jsonb_pretty(cleanup_all(dry_run => true) - 'result');
SELECT cleanup_add_source('sessions');

-- lists are cut, counts are not
SELECT t.files(7);
SELECT t.session(n, 'failed', 8, n || '.wav'), t.file(n || '.wav') FROM generate_series(11, 14) n;
SET audio_cleanup.report_limit = 3;
SELECT jsonb_pretty(cleanup_all(dry_run => true));
SET audio_cleanup.report_limit = 0;
SELECT s ->> 'lists_truncated' AS lists_truncated, s -> 'potential_cleanup' AS potential_cleanup FROM cleanup_status() s;
SET audio_cleanup.report_limit = 7;
SELECT cleanup_status() ? 'lists_truncated' AS lists_truncated;
SET audio_cleanup.report_limit = 3;
CALL cleanup_run() \gset
SELECT jsonb_pretty(:'result'::jsonb);
RESET audio_cleanup.report_limit;
SELECT t.names();

-- NULL is no answer to "dry run?"
SELECT * FROM t.refused('SELECT cleanup_orphaned_files(NULL)') \gx
SELECT t.try('SELECT cleanup_orphaned_files(true, NULL)');
SELECT t.try('SELECT cleanup_failed_sessions(NULL)');
SELECT t.try('SELECT cleanup_failed_sessions(false, NULL)');
SELECT t.try('SELECT cleanup_all(NULL)');
SELECT t.try('SELECT cleanup_all(false, NULL)');
CALL cleanup_run(NULL);
CALL cleanup_run(false, NULL);
