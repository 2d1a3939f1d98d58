--
-- Figures that do not fit, dates that cannot be, folders that come and go
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SET audio_cleanup.max_delete_percent = 100;

-- two files that claim to have given back 5 EiB each
SELECT t.file('a.mp3'), t.file('wanted.mp3'), t.session(1, 'processed', 8, 'wanted.mp3');
SELECT cleanup_all() -> 'success' AS success;
SELECT t.wait_for_worker();
INSERT INTO cleanup_files (run_id, file, reason, state, size, space, modified_at, due_at, inode, mtime_ns, ctime_ns, btime_ns)
SELECT 1, 'large' || n, 'orphan', s, 5::bigint << 60, 5::bigint << 60, now(), now() + d, n, n, n, n
FROM (VALUES ('pending', interval '1 day'), ('trashed', '1 day'), ('trashed', '0')) v(s, d), generate_series(1, 2) n;
UPDATE cleanup_runs SET finished_at = NULL, status = 'pending';
UPDATE cleanup_files SET state = 'deleted', freed = size, finished_at = now() WHERE state = 'pending';
SELECT t.file('b.mp3');
CALL cleanup_run() \gset
SELECT :'result'::jsonb #> '{result,orphaned_files_deleted}' AS deleted;
SELECT t.wait_for_quiet();
SELECT run_id, status, bytes FROM cleanup_runs ORDER BY run_id;
SELECT freed_mb FROM cleanup_report('1 day');
SELECT value FROM cleanup_metrics WHERE name = 'audio_cleanup_bytes_freed_total' AND labels ->> 'reason' = 'orphan';
SELECT value FROM cleanup_totals WHERE name = 'bytes_freed' AND label = 'orphan';
SELECT total_size FROM cleanup_backups LIMIT 1;
SELECT cleanup_purge_backups() -> 'success' AS success;
SELECT cleanup_dashboard() LIKE '<%' AS dashboard, count(*) > 0 AS checks FROM cleanup_check();
SELECT cleanup_status() -> 'success' AS success;
DELETE FROM cleanup_files WHERE file ~ '^large';

-- a sparse file gives back what it takes, and no more than its size
SELECT t.sh('truncate -s 100M sparse.mp3; touch -d "-48 hours" sparse.mp3'), t.file('plain.mp3', bytes => 1048576);
SELECT cleanup_status() #> '{potential_cleanup,total_space_freed_mb}' AS mb;
CALL cleanup_run() \gset
SELECT :'result'::jsonb #> '{result,total_space_freed_mb}' AS mb;
SELECT file, size, freed < 65536 AS little FROM cleanup_files WHERE file ~ 'sparse|plain' ORDER BY file;

-- dates beyond what a number of nanoseconds can say: old is old, and the future is no age
SELECT t.file('past.mp3'), t.file('future.mp3');
SELECT t.sh('touch -d "1800-01-01" past.mp3; touch -d "2400-01-01" future.mp3');
SET audio_cleanup.file_age = 'mtime';
SELECT cleanup_status() #> '{potential_cleanup,orphaned_files_deleted}' AS orphans;
CALL cleanup_run() \gset
SELECT :'result'::jsonb #> '{result,orphaned_files_deleted}' AS deleted;
SELECT t.names();
SELECT t.sh('rm future.mp3');

-- folders that a run has emptied, and no others
SET audio_cleanup.remove_empty_dirs = on;
SELECT t.file('x/y/z/a.mp3'), t.file('x/b.mp3'), t.file('x/keep/c.mp3'), t.file('p/d.mp3'), t.file('p/note.txt');
SELECT t.sh('mkdir -p x/y/empty bare/empty; touch -d "1 hour ago" x/keep/c.mp3; chmod 2750 x/y; ln -s x link'), t.file('s/t/e.mp3');
CALL cleanup_run() \gset
SELECT :'result'::jsonb #> '{result,orphaned_files_deleted}' AS deleted;
SELECT t.lines('find . -mindepth 1 -name ".*" -prune -o -printf "%P\n" | LC_ALL=C sort');
-- with a backup they come again with their files; what is rolled back has removed none
SET audio_cleanup.backup_retention_days = 7;
SELECT t.file('u/v/f.mp3');
SELECT t.sh('chmod 750 u/v');
BEGIN;
SELECT cleanup_all() #> '{result,orphaned_files_deleted}' AS deleted;
ROLLBACK;
SELECT t.lines('find u');
SELECT cleanup_all() #> '{result,orphaned_files_deleted}' AS deleted;
SELECT t.wait_for_worker();
SELECT t.lines('find . -name u');
SELECT cleanup_restore('u/v/f.mp3') -> 'success' AS success;
SELECT t.wait_for_quiet();
SELECT t.lines('find u -printf "%P %m\n"');

-- a folder in which nothing can be removed: one error a run, and no new rows
RESET audio_cleanup.backup_retention_days;
SELECT t.file('closed/' || n || '.mp3') FROM generate_series(1, 3) n;
SELECT t.sh('chmod 555 closed');
SELECT cleanup_status() #> '{potential_cleanup,errors}' AS errors;
-- it is a matter of the directory's order which file is named
SET client_min_messages = error;
CALL cleanup_run() \gset
SELECT :'result'::jsonb -> 'success' AS success, :'result'::jsonb #> '{result,errors}' AS errors;
CALL cleanup_run() \gset
RESET client_min_messages;
SELECT file, state, run_id = (SELECT max(run_id) FROM cleanup_runs) AS of_last_run FROM cleanup_files WHERE file ~ '^closed' ORDER BY file;
SELECT status, errors, message FROM cleanup_runs ORDER BY run_id DESC LIMIT 1;
SELECT t.sh('chmod 755 closed');
CALL cleanup_run() \gset
SELECT :'result'::jsonb -> 'success' AS success, :'result'::jsonb #> '{result,orphaned_files_deleted}' AS deleted;
