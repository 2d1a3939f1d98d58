--
-- Two-phase commit: the rows are prepared, the files are the next run's
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3'), t.file('orphan.mp3'), t.file('second.mp3');
SELECT t.fingerprint() AS before \gset

-- ROLLBACK PREPARED, of the first run in this directory
BEGIN;
SELECT cleanup_all() #> '{result,orphaned_files_count}' AS orphans;
PREPARE TRANSACTION 'regress_cleanup';
SELECT t.fingerprint() = :'before' AS untouched, (SELECT count(*) FROM cleanup_files) AS files;
-- it holds the run lock, wherever it came from
SET audio_cleanup.writer_wait = '100ms';
SELECT code, message, hint FROM t.refused('SELECT cleanup_all()') \gx
RESET audio_cleanup.writer_wait;
SELECT cleanup_status() #> '{potential_cleanup,orphaned_files_count}' AS preview_works;
ROLLBACK PREPARED 'regress_cleanup';
SELECT t.fingerprint() = :'before' AS untouched, (SELECT count(*) FROM cleanup_files) AS files;

-- COMMIT PREPARED: pending
BEGIN;
SELECT cleanup_all() #> '{result,orphaned_files_count}' AS orphans;
PREPARE TRANSACTION 'regress_cleanup';
COMMIT PREPARED 'regress_cleanup';
SELECT t.fingerprint() = :'before' AS untouched;
SELECT file, state FROM cleanup_files ORDER BY file;
SELECT status, files FROM cleanup_runs;

-- not condemned twice, not previewed either
SELECT cleanup_status() #> '{potential_cleanup,orphaned_files_count}' AS orphans;

-- one of them is referred to again before it is dealt with: it lives
SELECT t.session(2, 'uploading', 0, 'second.mp3');

-- the next run takes them up; what it drains it does not report as its own
SELECT cleanup_all() #> '{result,orphaned_files_count}' AS own;
SELECT t.wait_for_worker();
SELECT t.names();
SELECT file, state, error FROM cleanup_files ORDER BY file;
SELECT run_id = min(run_id) OVER () AS first_run, status, files, deleted, skipped, errors FROM cleanup_runs ORDER BY run_id;

-- CALL cleanup_run() drains as well
SELECT t.file('orphan.mp3');
BEGIN;
SELECT cleanup_all() #> '{result,orphaned_files_count}' AS orphans;
PREPARE TRANSACTION 'regress_cleanup';
COMMIT PREPARED 'regress_cleanup';
SELECT t.names();
CALL cleanup_run() \gset
SELECT :'result'::jsonb #> '{result,orphaned_files_count}' AS own, t.names();
SELECT file, state FROM cleanup_files ORDER BY file_id DESC LIMIT 1;

-- a writer that is prepared, not yet committed: a run gives up, the file lives
SELECT t.file('in_flight.mp3');
BEGIN;
SELECT t.session(3, 'uploading', 0, 'in_flight.mp3');
PREPARE TRANSACTION 'regress_writer';
SELECT t.wait_for_worker();
SET audio_cleanup.writer_wait = '100ms';
SELECT code, message, hint, tree FROM t.refused('SELECT cleanup_all()') \gx
CALL cleanup_run();
SELECT t.names();
RESET audio_cleanup.writer_wait;
COMMIT PREPARED 'regress_writer';
SELECT cleanup_all() #> '{result,orphaned_files_count}' AS orphans, t.names();
-- nothing was left behind by the run that had given up between its batches
SELECT t.wait_for_worker();
SELECT status, files FROM cleanup_runs ORDER BY run_id;
