--
-- Holds: a held file is never cleaned, whoever asks
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SET audio_cleanup.max_delete_percent = 100;
SELECT t.file('a.mp3'), t.file('b.mp3'), t.file('c d/e.mp3'), t.file(t.id(1) || '.mp3');
SELECT t.session(1, 'failed', 8, t.id(1) || '.mp3'), t.session(2, 'processed', 0, 'w.mp3'), t.file('w.mp3');

SELECT cleanup_hold('a.mp3', 'case 4711'), cleanup_hold('./c d//e.mp3'), cleanup_hold(t.dir() || '/' || t.id(1) || '.mp3', 'appeal');
SELECT replace(file, t.id(1)::text, 'ID') AS file, reason, held_by = current_user AS mine FROM cleanup_holds ORDER BY file;
SELECT cleanup_explain('a.mp3') ->> 'verdict' AS verdict, replace(cleanup_explain('a.mp3') ->> 'reason', current_user, 'ME') AS reason;

SELECT cleanup_all(true, true) #> '{result,orphaned_files_deleted}' AS orphans, cleanup_all(true, true) #> '{result,failed_sessions_count}' AS sessions;
SELECT cleanup_all(false, true) #> '{result,orphaned_files_deleted}' AS orphans;
SELECT t.wait_for_worker();
SELECT replace(t.names(), t.id(1)::text, 'ID') AS names;

-- held again, with another reason; and released
SELECT cleanup_hold('a.mp3', 'case 4712');
SELECT reason FROM cleanup_holds WHERE file = 'a.mp3';
SELECT cleanup_release('a.mp3') AS released, cleanup_release('a.mp3') AS again, cleanup_release('nosuch.mp3') AS never;
SELECT cleanup_all(true, true) #> '{result,orphaned_files_deleted}' AS orphans;

-- it follows the transaction, and names one file to the letter
BEGIN;
SELECT cleanup_hold('a.mp3');
SELECT cleanup_all(true, true) #> '{result,orphaned_files_count}' AS orphans;
ROLLBACK;
SELECT cleanup_hold('A.mp3'), cleanup_hold('e.mp3');
SELECT cleanup_all(true, true) #> '{result,orphaned_files_deleted}' AS orphans;
SELECT cleanup_release('A.mp3'), cleanup_release('e.mp3');

-- a held file that was cleaned already comes back
SET audio_cleanup.backup_retention_days = 7;
SELECT cleanup_all(false, true) #> '{result,orphaned_files_deleted}' AS orphans;
SELECT t.wait_for_worker();
SELECT cleanup_hold('a.mp3', 'too late?');
SELECT cleanup_purge_backups() -> 'healed' AS healed;
SELECT replace(t.names(), t.id(1)::text, 'ID') AS names;
SELECT file, state IN ('restoring', 'restored') AS put_back, error FROM cleanup_files WHERE file = 'a.mp3';
SELECT cleanup_all(false, true) #> '{result,orphaned_files_count}' AS orphans;

SELECT * FROM t.refused($$SELECT cleanup_hold('../a.mp3')$$);
SELECT * FROM t.refused($$SELECT cleanup_hold('')$$);
SELECT * FROM t.refused($$SELECT cleanup_hold(NULL)$$);
BEGIN TRANSACTION READ ONLY;
SELECT t.try($$SELECT cleanup_hold('a.mp3')$$);
ROLLBACK;
