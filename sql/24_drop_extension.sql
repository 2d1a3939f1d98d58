--
-- DROP EXTENSION: nothing of ours is left, nothing of yours is touched
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3'), t.file('orphan.mp3');
CREATE ROLE regress_viewer;
SELECT cleanup_grant_access('regress_viewer');

-- in the transaction of a run: the run goes with its history, the files stay
SELECT t.fingerprint() AS before \gset
BEGIN;
SELECT cleanup_all() #> '{result,orphaned_files_count}' AS orphans;
DROP EXTENSION audio_cleanup;
COMMIT;
SELECT t.fingerprint() = :'before' AS untouched;
SELECT count(*) FROM sessions;
SELECT count(*) AS left_behind FROM pg_class WHERE relname LIKE 'cleanup\_%';
SELECT count(*) AS left_behind FROM pg_proc WHERE proname LIKE 'cleanup\_%';
DROP ROLE regress_viewer;

-- a session that has worked with it goes on, and may create it again
\set VERBOSITY sqlstate
SELECT cleanup_status();
\set VERBOSITY default
CREATE EXTENSION audio_cleanup;
SELECT count(*) FROM cleanup_sources;
SELECT cleanup_status() -> 'blocked_by' AS blocked_by;

-- right after a commit, while the worker may be busy
SELECT cleanup_add_source('sessions');
SELECT t.files(200);
SELECT cleanup_all(force => true) #> '{result,orphaned_files_count}' AS orphans;
DROP EXTENSION audio_cleanup;
SELECT * FROM t.tree();

SET client_min_messages = warning;
DROP SCHEMA t CASCADE;
DROP TABLE sessions;
