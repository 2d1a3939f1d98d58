--
-- Who looks keeps no lock on a table, and leaves nothing else in the transaction
--
\i test/fixture.sql
CREATE ROLE locks_viewer;
CREATE ROLE locks_operator;
SELECT cleanup_grant_access('locks_viewer'), cleanup_grant_access('locks_operator', 'operator');
INSERT INTO sessions (id, session_date, audio_url) VALUES (gen_random_uuid(), now(), 'wanted.mp3');
CREATE TABLE t.forgotten AS SELECT 'orphan.mp3'::text AS url;
CREATE VIEW t.shown AS SELECT audio_url FROM sessions;
SELECT cleanup_add_source('sessions', '{audio_url}'), cleanup_add_source('t.shown', '{audio_url}');
SELECT t.file('wanted.mp3'), t.file('orphan.mp3');
CREATE FUNCTION t.locked() RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(DISTINCT relation::regclass::text, ' ' ORDER BY relation::regclass::text), '(none)') FROM pg_locks
	WHERE pid = pg_backend_pid() AND relation IN ('sessions'::regclass, 't.forgotten'::regclass, 't.shown'::regclass, 'cleanup_files'::regclass)
$$;

SET ROLE locks_viewer;
BEGIN;
SELECT cleanup_status() -> 'success' AS success, t.locked();
SELECT cleanup_explain('wanted.mp3') -> 'verdict' AS verdict, t.locked();
SELECT count(*) > 5 AS checked FROM cleanup_check();
SELECT t.locked();
SELECT count(*) AS sources FROM cleanup_missing_files();
SELECT t.locked();
COMMIT;
RESET ROLE;
SET ROLE locks_operator;
BEGIN;
SELECT cleanup_all(true) -> 'success' AS success, t.locked();
CALL cleanup_run(true, false, NULL);
COMMIT;
RESET ROLE;

-- an error within a look is the error of the look, and the levels of the transaction are right
CREATE TABLE t.written (n int);
BEGIN;
INSERT INTO t.written VALUES (1);
DO $$
BEGIN
	INSERT INTO t.written VALUES (2);
	BEGIN
		INSERT INTO t.written VALUES (99);
		PERFORM cleanup_explain('../x');
	EXCEPTION WHEN invalid_parameter_value THEN
		INSERT INTO t.written VALUES (3);
	END;
	BEGIN
		INSERT INTO t.written VALUES (4);
		PERFORM cleanup_status();
	END;
	INSERT INTO t.written VALUES (5);
END $$;
SAVEPOINT a;
\set VERBOSITY sqlstate
SELECT cleanup_explain('../x');
\set VERBOSITY default
ROLLBACK TO a;
SELECT cleanup_explain('orphan.mp3') -> 'verdict' AS verdict;
INSERT INTO t.written VALUES (6);
COMMIT;
SELECT array_agg(n ORDER BY n) FROM t.written;

-- what the transaction has written itself is seen
BEGIN;
INSERT INTO sessions (id, session_date, audio_url) VALUES (gen_random_uuid(), now(), 'orphan.mp3');
SELECT cleanup_status() #> '{potential_cleanup,orphaned_files_count}' AS orphans;
SAVEPOINT a;
DELETE FROM sessions;
SELECT cleanup_explain('orphan.mp3') -> 'reference_count' AS references;
ROLLBACK TO a;
SELECT cleanup_explain('orphan.mp3') -> 'reference_count' AS references;
ROLLBACK;
SELECT t.names();

SELECT cleanup_revoke_access('locks_viewer'), cleanup_revoke_access('locks_operator');
DROP OWNED BY locks_viewer, locks_operator;
DROP ROLE locks_viewer, locks_operator;
