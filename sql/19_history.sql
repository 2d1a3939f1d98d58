--
-- The history: a row for each run and for each file that was touched
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3');
SELECT t.session(2, 'failed', 8, 'failed.mp3'), t.file('failed.mp3', 49, 1000), t.file('nested/orphan.mp3', 50, 2000), t.file('notes.txt');

-- while it is under way
BEGIN;
SELECT cleanup_all() #> '{run_id}' AS run_id;
SELECT run_id, what, trigger, status, requested_by = current_user AS by_me, orphaned_files, failed_sessions, files, deleted,
	finished_at IS NULL AS unfinished, started_at <= clock_timestamp() AND started_at >= now() AS started,
	t.hide_paths(upload_dir) AS upload_dir, settings = cleanup_config() AS settings
FROM cleanup_runs \gx
SELECT run_id, file, reason, source, session_id, state, size,
	age(date_trunc('minute', condemned_at), date_trunc('minute', modified_at)) >= interval '48 hours' AS modified_before,
	due_at <= clock_timestamp() AS due, finished_at, freed, error
FROM cleanup_files ORDER BY file_id \gx
COMMIT;

-- and when the worker has finished
SELECT t.wait_for_worker();
SELECT run_id, what, trigger, status, orphaned_files, failed_sessions, files, deleted, skipped, errors, bytes,
	finished_at >= started_at AS finished
FROM cleanup_runs \gx
SELECT file, state, size, freed, error, finished_at >= condemned_at AS finished FROM cleanup_files ORDER BY file_id;

-- a run that finds nothing is recorded, done at once; a preview and a refused run are not
SELECT cleanup_orphaned_files() -> 'run_id' AS run_id;
SELECT cleanup_failed_sessions() -> 'run_id' AS run_id;
SELECT cleanup_orphaned_files(true) ? 'run_id' AS run_id, cleanup_status() ? 'run_id' AS of_status;
SELECT t.try('SELECT cleanup_all(NULL)');
SELECT run_id, what, status, files, finished_at IS NOT NULL AS finished FROM cleanup_runs ORDER BY run_id;

-- between the condemnation and the commit: a file that vanished, one that was
-- replaced (it stays), one that was written to (it stays), one that was only read
SELECT t.file(f || '.mp3') FROM unnest('{vanished,replaced,appended,chmodded,read,moved_away}'::text[]) f;
BEGIN;
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_count}' AS orphans;
SELECT t.sh('rm vanished.mp3; echo new > new; mv new replaced.mp3; echo more >> appended.mp3; chmod 600 chmodded.mp3; cat read.mp3 > /dev/null; mv moved_away.mp3 moved_here.mp3');
COMMIT;
SELECT * FROM t.tree();
SELECT t.wait_for_worker();
SELECT file, state, freed, error FROM cleanup_files WHERE run_id = 4 ORDER BY file;
SELECT status, files, deleted, skipped, errors FROM cleanup_runs WHERE run_id = 4;
SELECT * FROM t.lines('cat replaced.mp3 appended.mp3');
SELECT t.reset(), t.file('wanted.mp3');

-- a file that is condemned already is not condemned twice
SELECT t.file('orphan.mp3');
BEGIN;
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_count}' AS first;
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_count}' AS second;
SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_count}' AS preview;
COMMIT;
SELECT t.wait_for_worker();
SELECT file, count(*) FROM cleanup_files WHERE run_id > 4 GROUP BY file;

-- the same name comes back and goes again: two rows
SELECT t.file('orphan.mp3');
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_count}' AS orphans;
SELECT t.wait_for_worker();
SELECT file, state, count(*) FROM cleanup_files WHERE file = 'orphan.mp3' GROUP BY file, state;

-- the settings are those of the run
SELECT settings ->> 'file_age' AS file_age, settings ->> 'orphaned_file_retention_hours' AS hours FROM cleanup_runs WHERE run_id = 1;
SET audio_cleanup.orphaned_file_retention_hours = 30;
SELECT cleanup_orphaned_files() -> 'success' AS success;
SELECT settings ->> 'orphaned_file_retention_hours' AS hours FROM cleanup_runs ORDER BY run_id DESC LIMIT 1;
RESET audio_cleanup.orphaned_file_retention_hours;

-- nothing is left behind in the trash
SELECT * FROM t.lines('find .audio_cleanup -type f ! -name claim');
SELECT status, count(*) FROM cleanup_runs GROUP BY status;
