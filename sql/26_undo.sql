--
-- Undo: with backup_retention_days a cleaned file can be had back until it expires
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions', on_failed => 'clear');
SET audio_cleanup.backup_retention_days = 7;
SET audio_cleanup.max_delete_percent = 100;

-- what a report says, without what differs from run to run
CREATE FUNCTION t.outcome(report jsonb, OUT success boolean, OUT message text, OUT files text, OUT sessions bigint, OUT errors text)
LANGUAGE sql AS $$
	SELECT (report -> 'success')::boolean, report ->> 'message',
		(SELECT string_agg(f, ' ' ORDER BY f COLLATE "C") FROM jsonb_array_elements_text(report #> '{result,files_restored}') f),
		(report #> '{result,sessions_count}')::bigint,
		(SELECT string_agg(t.hide_paths(e), E'\n' ORDER BY e COLLATE "C") FROM jsonb_array_elements_text(report #> '{result,errors}') e)
$$;

SELECT t.file('o1.mp3'), t.file('o2.mp3'), t.file('2024/05/o3.mp3'), t.file('wanted.mp3'), t.file(t.id(1) || '.mp3');
SELECT t.session(1, 'failed', 8, 'uploads/audio/' || t.id(1) || '.mp3', 'my recording.mp3'), t.session(2, 'processed', 8, 'wanted.mp3');
SELECT t.sh('chmod 750 2024/05; chmod 640 o1.mp3');
CREATE TABLE t.before AS SELECT t.lines('find . -type f ! -path "./.audio_cleanup/*" -printf "%P %m %i %s %T@\n" | LC_ALL=C sort') AS file;

-- cleaned, and kept
SELECT cleanup_all() -> 'success' AS success;
SELECT t.names();
SELECT file, run_id, size, reason, right(session_id, 2) AS session, expires_at > now() + '6 days' AS in_a_week,
	replace(path, t.dir(), 'DIR') AS path, total_size
FROM cleanup_backups ORDER BY file;
SELECT t.wait_for_worker();
SELECT count(*) AS backups FROM cleanup_backups;
SELECT status, deleted, skipped, bytes FROM cleanup_runs;
SELECT audio_url, audio_filename FROM sessions WHERE id = t.id(1);
-- it lies where its path says, for who has to do without the database
SELECT count(*) AS there FROM cleanup_backups b WHERE (pg_stat_file(b.path)).size = b.size;

-- restoring follows the transaction
BEGIN;
SELECT * FROM t.outcome(cleanup_restore(1));
SELECT t.names();
ROLLBACK;
SELECT t.names();
SELECT count(*) AS backups FROM cleanup_backups;
BEGIN;
SAVEPOINT s;
SELECT * FROM t.outcome(cleanup_restore('o1.mp3'));
ROLLBACK TO s;
SELECT * FROM t.outcome(cleanup_restore('o2.mp3'));
COMMIT;
SELECT t.names();
SELECT t.wait_for_restore();
SELECT file, state FROM cleanup_files ORDER BY file COLLATE "C";

-- folders that are gone are made again, as they were; so are the columns of a session
SELECT t.sh('rmdir -p 2024/05');
SELECT * FROM t.outcome(cleanup_restore(1));
SELECT t.lines('stat -c "%a %n" 2024/05') AS folder;
SELECT replace(audio_url, t.id(1)::text, 'ID') AS audio_url, audio_filename FROM sessions WHERE id = t.id(1);
SELECT t.lines('find . -type f ! -path "./.audio_cleanup/*" -printf "%P %m %i %s %T@\n" | LC_ALL=C sort')
EXCEPT SELECT file FROM t.before;
SELECT t.wait_for_restore();
SELECT state, count(*) FROM cleanup_files GROUP BY state;
SELECT count(*) AS remembered FROM cleanup_cleared;
SELECT count(*) AS backups FROM cleanup_backups;
SELECT status, deleted, skipped FROM cleanup_runs WHERE run_id = 1;
-- once more is harmless
SELECT * FROM t.outcome(cleanup_restore(1));
SELECT t.wait_for_restore();
SELECT * FROM t.refused($$SELECT cleanup_restore('o1.mp3')$$);
SELECT * FROM t.refused($$SELECT cleanup_restore(4711)$$);
SELECT * FROM t.refused($$SELECT cleanup_restore('../o1.mp3')$$);

-- what was restored has its grace period again, orphans and failed sessions alike
SET audio_cleanup.file_age = 'mtime';
SELECT cleanup_all(true) #> '{result,orphaned_files_count}' AS orphans, cleanup_all(true) #> '{result,failed_sessions_count}' AS sessions;
SELECT cleanup_explain('o1.mp3') ->> 'reason' AS reason;
UPDATE cleanup_files SET finished_at = now() - interval '25 hours';
SELECT cleanup_all(true) #> '{result,orphaned_files_count}' AS orphans, cleanup_all(true) #> '{result,failed_sessions_count}' AS sessions;
UPDATE cleanup_files SET finished_at = now() - interval '8 days';
SELECT cleanup_all(true) #> '{result,orphaned_files_count}' AS orphans, cleanup_all(true) #> '{result,failed_sessions_count}' AS sessions;

-- a name that is taken again: never overwritten, and how to go on is said
SELECT (cleanup_orphaned_files() -> 'run_id')::int AS run_id \gset
SELECT t.wait_for_worker();
SELECT t.sh('echo new > o1.mp3; mkdir o2.mp3');
SELECT success, files, replace(errors, 'trash/' || :run_id, 'trash/N') AS errors FROM t.outcome(cleanup_restore(:run_id));
SELECT t.lines('cat o1.mp3') AS content;
SELECT * FROM t.outcome(cleanup_restore('o1.mp3', 'old/o1 (restored).mp3'));
SELECT t.wait_for_restore();
SELECT * FROM t.refused($$SELECT cleanup_restore('o2.mp3', '../o2.mp3')$$);
SELECT * FROM t.refused($$SELECT cleanup_restore('o2.mp3', NULL)$$);
SELECT success, errors IS NOT NULL AS has_error FROM t.outcome(cleanup_restore('o2.mp3', 'old/o1 (restored).mp3'));
SELECT success, errors FROM t.outcome(cleanup_restore('o2.mp3', '.audio_cleanup/claim'));
SELECT t.lines($$cat 'old/o1 (restored).mp3'$$) AS content;
SELECT t.wait_for_restore();
SELECT file, state, restore_as FROM cleanup_files WHERE run_id = :run_id ORDER BY file COLLATE "C";
SELECT cleanup_explain('o2.mp3') -> 'backup' -> 'run_id' = to_jsonb(:run_id) AS explained;

-- the newest of several backups
SELECT t.sh('rmdir o2.mp3'), t.file('o2.mp3', 400, 17);
SELECT cleanup_orphaned_files(false, true) -> 'success' AS success;
SELECT * FROM t.outcome(cleanup_restore('./o2.mp3'));
SELECT t.lines('stat -c %s o2.mp3') AS size;
SELECT t.wait_for_restore();

-- heal: a row refers to it again, so the next run puts it back
SELECT t.session(3, 'processed', 0, 'https://host/uploads/audio/o2.mp3?x=1');
SELECT t.sh('mv o2.mp3 kept.mp3');
INSERT INTO sessions (id, session_date, audio_url) VALUES (t.id(4), now(), 'kept.mp3');
SELECT cleanup_all() -> 'healed' AS healed;
SELECT t.wait_for_restore();
SELECT t.lines('stat -c %s o2.mp3') AS size;
SELECT state, error FROM cleanup_files WHERE file = 'o2.mp3' ORDER BY file_id;

-- purge: nothing before its time; then it is gone, unless it is needed
SELECT t.file('p1.mp3', 400, 1048576), t.file('p2.mp3', 400), t.file('p3.mp3', 400);
SELECT (cleanup_orphaned_files(false, true) -> 'run_id')::int AS run_id \gset
SELECT t.wait_for_worker();
SELECT cleanup_purge_backups() -> 'result' AS purged;
-- counts are complete where the list is cut; what lies in a directory that cannot be reached is not told as purged
BEGIN;
UPDATE cleanup_files SET due_at = now() WHERE run_id = :run_id;
SET LOCAL audio_cleanup.report_limit = 0;
SELECT cleanup_purge_backups() AS purged;
ROLLBACK;
BEGIN;
UPDATE cleanup_files SET due_at = now() WHERE run_id = :run_id;
UPDATE cleanup_runs SET claim = gen_random_uuid(), upload_dir = '/nonexistent' WHERE run_id = :run_id;
SET LOCAL client_min_messages = error;
SELECT cleanup_purge_backups() -> 'result' AS purged;
ROLLBACK;
SELECT t.session(5, 'processed', 0, 'p2.mp3');
BEGIN;
UPDATE cleanup_files SET due_at = now() WHERE run_id = :run_id AND file <> 'p3.mp3';
SELECT cleanup_purge_backups() #> '{result,backups_purged}' AS purged;
ROLLBACK;
SELECT t.names();
SELECT count(*) AS there FROM cleanup_backups b WHERE run_id = :run_id AND (pg_stat_file(b.path)).size = b.size;
BEGIN;
UPDATE cleanup_files SET due_at = now() WHERE run_id = :run_id AND file <> 'p3.mp3';
SELECT cleanup_purge_backups() AS purged;
COMMIT;
SELECT t.wait_for_restore();
SELECT file, state, freed, error FROM cleanup_files WHERE run_id = :run_id ORDER BY file COLLATE "C";
SELECT deleted, skipped, bytes FROM cleanup_runs WHERE run_id = :run_id;
SELECT t.names();

-- a backup that is gone is told, not found
SELECT t.sh(format('rm .audio_cleanup/trash/%s/p3.mp3', :run_id));
SELECT * FROM t.outcome(cleanup_restore(:run_id));
SELECT state, error FROM cleanup_files WHERE file = 'p3.mp3';

-- without backups there is nothing to restore
RESET audio_cleanup.backup_retention_days;
SELECT t.wait_for_restore();
SELECT t.file('q.mp3', 400);
SELECT (cleanup_orphaned_files(false, true) -> 'run_id')::int AS run_id \gset
SELECT t.wait_for_worker();
SELECT t.wait_for_restore();
SELECT count(*) FROM cleanup_backups WHERE file = 'q.mp3';
SELECT * FROM t.refused($$SELECT cleanup_restore('q.mp3')$$);

-- where nothing may be changed, nothing is
BEGIN TRANSACTION READ ONLY;
SELECT t.try('SELECT cleanup_purge_backups()');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM t.refused('SELECT cleanup_restore(1)');
ROLLBACK;
