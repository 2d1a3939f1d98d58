--
-- A publication for all tables: each of ours has a key, so nothing fails
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SET audio_cleanup.backup_retention_days = 7;
SET audio_cleanup.max_delete_percent = 100;
SET client_min_messages = error;
CREATE PUBLICATION regress_all FOR ALL TABLES;
RESET client_min_messages;

-- nothing is left to be done for a worker
CREATE FUNCTION t.settled() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..3000 LOOP
		IF NOT EXISTS (SELECT FROM cleanup_files WHERE state IN ('pending', 'restoring') OR state = 'trashed' AND due_at <= now()) THEN
			RETURN;
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
	RAISE EXCEPTION 'the worker has not finished within a minute';
END $$;

SELECT c.relname AS "without a primary key"
FROM pg_class c
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refobjid = e.oid AND e.extname = 'audio_cleanup'
WHERE c.relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
ORDER BY c.relname;

SELECT t.file('a.mp3'), t.file('b.mp3'), t.file(t.id(1) || '.mp3'), t.file('wanted.mp3');
SELECT t.session(1, 'failed', 8, t.id(1) || '.mp3'), t.session(2, 'processed', 8, 'wanted.mp3');
SELECT cleanup_all() -> 'success' AS success;
SELECT t.wait_for_worker();
SELECT cleanup_hold('wanted.mp3', 'a reason');
SELECT cleanup_hold('wanted.mp3', 'another');
SELECT cleanup_release('wanted.mp3');
SELECT cleanup_restore('a.mp3') -> 'success' AS success;
SELECT t.settled();
CALL cleanup_run() \gset
SELECT :'result'::jsonb -> 'success' AS success;
UPDATE cleanup_files SET due_at = condemned_at WHERE state = 'trashed';
SELECT cleanup_purge_backups() -> 'success' AS success;
SELECT t.settled();
SELECT file, state FROM cleanup_files ORDER BY file;
SET audio_cleanup.history_retention_days = 1;
UPDATE cleanup_runs SET started_at = started_at - interval '400 days', finished_at = finished_at - interval '400 days';
CALL cleanup_run() \gset
SELECT count(*) AS runs FROM cleanup_runs;
SELECT cleanup_drop_source('sessions');
DROP PUBLICATION regress_all;
