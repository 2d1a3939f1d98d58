--
-- CALL cleanup_run(): commits in batches, returns what has become of the files
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions', on_failed => 'clear');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3');

-- in one batch: done when it returns, no worker needed
SELECT t.file('orphan.mp3', 48, 1048576), t.file('failed.mp3', 48, 524288), t.session(2, 'failed', 8, 'failed.mp3');
CALL cleanup_run() \gset
SELECT jsonb_pretty(:'result'::jsonb);
SELECT t.names();
SELECT file, state, freed FROM cleanup_files ORDER BY file_id;
SELECT what, trigger, status, finished_at IS NOT NULL AS finished, files, deleted, orphaned_files, failed_sessions, bytes FROM cleanup_runs;
SELECT audio_url IS NULL AS cleared FROM sessions WHERE id = t.id(2);

-- nothing to do is a run too
CALL cleanup_run() \gset
SELECT :'result'::jsonb -> 'result' AS result;
SELECT status, files, finished_at IS NOT NULL AS finished FROM cleanup_runs ORDER BY run_id;

-- ten files, dealt with by three: four transactions
SET audio_cleanup.batch_size = 3;
SELECT t.files(10);
CALL cleanup_run() \gset
SELECT :'result'::jsonb #> '{result,orphaned_files_count}' AS deleted, :'result'::jsonb #> '{result,orphaned_files_deleted}' AS files;
SELECT count(*), count(DISTINCT xmin::text) AS transactions, min(state) AS state FROM cleanup_files WHERE run_id = 3;
SELECT status, files, deleted FROM cleanup_runs WHERE run_id = 3;
SELECT t.names();
-- sessions that are cleared, one by one; the files of a session stay together
SET audio_cleanup.batch_size = 1;
SELECT t.session(3, 'failed', 8, 'x.wav', 'y.wav'), t.file('x.wav'), t.file('x_processed.mp3'), t.file('y.wav');
SELECT t.session(4, 'failed', 8, 'z.wav'), t.file('z.wav');
CALL cleanup_run() \gset
SELECT :'result'::jsonb #> '{result,failed_sessions_cleaned}' AS cleaned;
SELECT session_id, count(*) AS files, count(DISTINCT due_at) AS transactions FROM cleanup_files WHERE run_id = 4 GROUP BY session_id ORDER BY session_id;
SELECT count(*) AS not_cleared FROM sessions WHERE status = 'failed' AND audio_url IS NOT NULL;
SELECT t.names();
RESET audio_cleanup.batch_size;

-- it commits, so it is nothing for a transaction block or a function
SELECT t.file('orphan.mp3');
BEGIN;
CALL cleanup_run();
ROLLBACK;
CREATE FUNCTION t.call_it() RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	result jsonb;
BEGIN
	CALL cleanup_run(result => result);
	RETURN result;
END $$;
SELECT * FROM t.refused('SELECT t.call_it()') \gx
SELECT t.names();
-- a preview commits nothing
BEGIN;
CALL cleanup_run(dry_run => true) \gset
SELECT :'result'::jsonb #> '{result,orphaned_files_deleted}' AS orphans;
COMMIT;
-- a DO block or a procedure that may commit is right
DO $$
DECLARE
	result jsonb;
BEGIN
	CALL cleanup_run(result => result);
	RAISE NOTICE '%', result #> '{result,orphaned_files_deleted}';
END $$;
SELECT t.names();

-- the brakes hold it, and force does what it does elsewhere
DELETE FROM sessions;
CALL cleanup_run();
CALL cleanup_run(force => true) \gset
SELECT :'result'::jsonb #> '{result,orphaned_files_deleted}' AS deleted;
SELECT t.names();
SELECT status, message, files, finished_at IS NOT NULL AS finished FROM cleanup_runs WHERE status <> 'done';

-- the longest time that can be set
SET audio_cleanup.max_run_minutes = 52560000;
CALL cleanup_run(force => true) \gset
SELECT :'result'::jsonb -> 'success' AS success;
