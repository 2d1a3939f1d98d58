--
-- File work follows the transaction: ROLLBACK leaves the directory as it was,
-- to the byte and the inode; COMMIT lets the files go
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions', on_failed => 'clear');
SELECT t.file('wanted.mp3'), t.file('orphan.mp3'), t.file('nested/orphan.mp3'), t.file('failed.mp3'), t.file('notes.txt');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.session(2, 'failed', 8, 'failed.mp3');
SELECT * FROM t.tree();
SELECT t.fingerprint() AS before \gset

-- nothing leaves the directory before the commit
BEGIN;
SELECT cleanup_all() -> 'result' AS result;
SELECT t.fingerprint() = :'before' AS untouched;
SELECT file, state FROM cleanup_files ORDER BY file COLLATE "C";
ROLLBACK;
SELECT t.fingerprint() = :'before' AS untouched;
SELECT (SELECT count(*) FROM cleanup_runs) AS runs, (SELECT count(*) FROM cleanup_files) AS files,
	(SELECT audio_url FROM sessions WHERE id = t.id(2)) AS audio_url;

-- several runs in one transaction: the later ones leave the earlier ones' files alone
BEGIN;
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_deleted}' AS orphans;
SELECT t.fingerprint() = :'before' AS untouched;
SELECT cleanup_failed_sessions() #> '{result,failed_sessions_count}' AS failed;
SELECT t.fingerprint() = :'before' AS untouched;
SELECT cleanup_all() -> 'result' AS nothing_left;
SELECT t.fingerprint() = :'before' AS untouched;
SELECT run_id, file, state FROM cleanup_files ORDER BY run_id, file COLLATE "C";
ROLLBACK;
SELECT t.fingerprint() = :'before' AS untouched;

-- ROLLBACK TO SAVEPOINT undoes what came after it
BEGIN;
SAVEPOINT a;
SELECT cleanup_all() #> '{result,orphaned_files_count}' AS orphans;
ROLLBACK TO a;
SELECT t.fingerprint() = :'before' AS untouched, (SELECT count(*) FROM cleanup_files) AS files;
COMMIT;
SELECT t.fingerprint() = :'before' AS untouched;

-- ... however often, and at whatever depth
BEGIN;
SAVEPOINT a;
SAVEPOINT b;
SELECT cleanup_all() #> '{result,orphaned_files_count}' AS orphans;
RELEASE b;
ROLLBACK TO a;
SELECT cleanup_all() #> '{result,orphaned_files_count}' AS orphans;
ROLLBACK TO a;
RELEASE a;
COMMIT;
SELECT t.fingerprint() = :'before' AS untouched;

-- an exception block
DO $$
BEGIN
	PERFORM cleanup_all();
	RAISE EXCEPTION 'something went wrong';
EXCEPTION WHEN raise_exception THEN
	RAISE NOTICE 'caught: %', SQLERRM;
END $$;
SELECT t.fingerprint() = :'before' AS untouched, (SELECT count(*) FROM cleanup_files) AS files;

-- an error later in the statement, or in the transaction
SELECT cleanup_all(), 1 / (count(*) - count(*)) FROM sessions;
SELECT t.fingerprint() = :'before' AS untouched;
BEGIN;
SELECT cleanup_all() -> 'success' AS success;
SELECT 1 / 0;
COMMIT;
SELECT t.fingerprint() = :'before' AS untouched;

-- an error at COMMIT itself
CREATE TABLE late (id int PRIMARY KEY, parent int REFERENCES late DEFERRABLE INITIALLY DEFERRED);
BEGIN;
SELECT cleanup_all() -> 'success' AS success;
INSERT INTO late VALUES (1, 2);
COMMIT;
SELECT t.fingerprint() = :'before' AS untouched, (SELECT count(*) FROM cleanup_files) AS files;
DROP TABLE late;

-- a cursor that is never read
BEGIN;
DECLARE c CURSOR FOR SELECT cleanup_all() -> 'success' AS success;
COMMIT;
SELECT t.fingerprint() = :'before' AS untouched;

-- part of a transaction: what was rolled back stays, what was not goes
BEGIN;
SAVEPOINT a;
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_count}' AS orphans;
ROLLBACK TO a;
SAVEPOINT b;
SELECT cleanup_failed_sessions() #> '{result,failed_sessions_count}' AS failed;
RELEASE b;
SELECT t.fingerprint() = :'before' AS untouched;
COMMIT;
SELECT * FROM t.tree();
SELECT t.wait_for_worker();
SELECT file, reason, state FROM cleanup_files ORDER BY file COLLATE "C";

-- COMMIT: they are out of the directory when it returns, and destroyed by and by
BEGIN;
SELECT cleanup_all() #> '{result,orphaned_files_deleted}' AS orphans;
SELECT t.names();
COMMIT;
SELECT * FROM t.tree();
SELECT t.wait_for_worker();
SELECT file, reason, state FROM cleanup_files ORDER BY file COLLATE "C";
SELECT * FROM t.lines('find .audio_cleanup -type f ! -name claim');
