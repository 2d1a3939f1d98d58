--
-- The counting brakes: numbers that speak of a mistake. force overrides them, once
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');

-- what a preview says, and a run
CREATE FUNCTION t.brake(OUT success boolean, OUT blocked_by jsonb, OUT error text, OUT orphans bigint, OUT forced jsonb) LANGUAGE plpgsql AS $$
DECLARE
	preview jsonb := cleanup_orphaned_files(true);
BEGIN
	success := preview -> 'success';
	blocked_by := preview -> 'blocked_by';
	error := preview #>> '{result,errors,0}';
	orphans := preview #> '{result,orphaned_files_count}';
	forced := cleanup_orphaned_files(true, true) -> 'success';
END $$;

--
-- Every source is empty: from the first file on
--
SELECT t.files(1);
SELECT * FROM t.brake() \gx
SELECT * FROM t.refused('SELECT cleanup_orphaned_files()') \gx
SELECT t.try('SELECT cleanup_all()');
CALL cleanup_run();
SELECT t.session(1, 'processed', 1, 'elsewhere.mp3');
SELECT * FROM t.brake() \gx
-- one of them is not
DELETE FROM sessions;
CREATE TABLE voicemails (voicemail_file text);
INSERT INTO voicemails VALUES ('elsewhere.mp3');
SELECT cleanup_add_source('voicemails');
SELECT * FROM t.brake() \gx
SELECT cleanup_drop_source('voicemails');
DROP TABLE voicemails;
-- nothing to delete, no brake
SELECT t.reset();
SELECT * FROM t.brake() \gx

--
-- None of ten files or more is referred to
--
SELECT t.session(1, 'processed', 1, 'elsewhere.mp3');
SELECT t.reset(), t.files(9);
SELECT * FROM t.brake() \gx
SELECT t.files(10);
SELECT * FROM t.brake() \gx
SELECT * FROM t.refused('SELECT cleanup_orphaned_files()') \gx
SELECT cleanup_orphaned_files(force => true) #> '{result,orphaned_files_count}' AS forced;
SELECT t.names();
-- force is for one call; what is pending is not condemned again
SELECT t.wait_for_worker();
SELECT t.files(10);
SELECT t.try('SELECT cleanup_orphaned_files()');
-- what is no audio does not count
SELECT t.reset(), t.files(9), t.files(9, '.txt');
SELECT success FROM t.brake();
-- young files count: it is the directory that is looked at
SELECT t.reset(), t.files(9), t.file('young.mp3', 0);
SELECT success, blocked_by FROM t.brake();
-- one is referred to
SELECT t.files(10);
SELECT t.session(2, 'processed', 1, '010.mp3');
SELECT success, orphans FROM t.brake();
-- failed sessions refer too
UPDATE sessions SET status = 'failed', updated_at = '2020-01-01' WHERE id = t.id(2);
SELECT success, orphans FROM t.brake();

--
-- More than max_delete_percent of a hundred files or more
--
SELECT t.wait_for_worker();
SELECT t.reset(), t.files(99);
DELETE FROM sessions;
SELECT t.session(1, 'processed', 1, '001.mp3');
SELECT success, orphans FROM t.brake();
SELECT t.files(100);
SELECT * FROM t.brake() \gx
SELECT * FROM t.refused('SELECT cleanup_all()') \gx
-- exactly so many are allowed
SELECT t.session(n, 'processed', 1, lpad(n::text, 3, '0') || '.mp3') FROM generate_series(2, 49) n;
SELECT blocked_by, orphans FROM t.brake();
SELECT t.session(50, 'processed', 1, '050.mp3');
SELECT blocked_by, orphans FROM t.brake();
SET audio_cleanup.max_delete_percent = 49;
SELECT blocked_by, orphans FROM t.brake();
SET audio_cleanup.max_delete_percent = 0;
SELECT blocked_by, orphans FROM t.brake();
SET audio_cleanup.max_delete_percent = 100;
DELETE FROM sessions WHERE id <> t.id(1);
SELECT blocked_by, orphans FROM t.brake();
RESET audio_cleanup.max_delete_percent;
-- failed sessions count as well
UPDATE sessions SET status = 'processed';
SELECT t.session(n, 'failed', 30, lpad(n::text, 3, '0') || '.mp3') FROM generate_series(2, 100) n;
SELECT cleanup_failed_sessions(true) -> 'blocked_by' AS blocked_by, cleanup_status() -> 'blocked_by' AS of_status;
SELECT t.try('SELECT cleanup_failed_sessions()');
SELECT cleanup_failed_sessions(force => true) #> '{result,failed_sessions_count}' AS forced;
SELECT t.names();

--
-- One of several sources is emptied, or protects nothing any more, since the last run
--
DELETE FROM sessions;
SELECT t.reset();
CREATE TABLE voicemails (id int PRIMARY KEY, voicemail_file text);
INSERT INTO voicemails VALUES (1, 'v1.mp3'), (2, 'v2.mp3');
SELECT cleanup_add_source('voicemails');
SELECT t.session(1, 'processed', 1, 's1.mp3'), t.file('s1.mp3'), t.file('v1.mp3'), t.file('v2.mp3'), t.file('o1.mp3');
SELECT cleanup_all() #> '{result,orphaned_files_deleted}' AS deleted;
SELECT t.wait_for_worker();
-- nobody reads it while it is loaded again
TRUNCATE voicemails;
SELECT * FROM t.brake() \gx
SELECT * FROM t.refused('SELECT cleanup_all()') \gx
SELECT t.try('SELECT cleanup_orphaned_files()');
CALL cleanup_run();
SELECT count(*) FROM cleanup_check() WHERE check_name = 'source_emptied' AND status = 'error';
-- loaded with something else: a column that means something else now
INSERT INTO voicemails VALUES (1, 'inbox'), (2, 'outbox'), (3, 'archive');
SELECT blocked_by, error FROM t.brake() \gx
SELECT t.try('SELECT cleanup_all()');
-- one that protects a single file is in order
INSERT INTO voicemails VALUES (4, 'v1.mp3');
SELECT blocked_by, orphans FROM t.brake();
-- with nothing to delete there is no brake
INSERT INTO voicemails VALUES (5, 'v2.mp3');
TRUNCATE voicemails;
INSERT INTO sessions (id, session_date, audio_url) VALUES (t.id(2), now(), 'v1.mp3'), (t.id(3), now(), 'v2.mp3');
SELECT blocked_by, orphans FROM t.brake();
DELETE FROM sessions WHERE id <> t.id(1);
SELECT blocked_by FROM t.brake();
-- it is right: once by force, and from then on that is how it is
SELECT cleanup_all(force => true) #> '{result,orphaned_files_count}' AS forced;
SELECT t.wait_for_worker();
SELECT t.file('o2.mp3');
SELECT blocked_by, orphans FROM t.brake();
-- or the source is registered anew: what was seen before is forgotten
INSERT INTO voicemails VALUES (1, 'v1.mp3');
SELECT t.file('v1.mp3');
SELECT cleanup_all() #> '{result,orphaned_files_deleted}' AS deleted;
SELECT t.wait_for_worker();
DELETE FROM voicemails;
SELECT blocked_by FROM t.brake();
SELECT cleanup_drop_source('voicemails');
SELECT cleanup_add_source('voicemails');
SELECT blocked_by, orphans FROM t.brake();
-- that failed sessions are cleaned is no reason
SELECT t.reset();
DELETE FROM sessions;
CREATE TABLE calls (id int PRIMARY KEY, audio_file text, status text, updated_at timestamptz);
INSERT INTO calls VALUES (1, 'c1.mp3', 'failed', '2020-01-01'), (2, 'none.mp3', 'done', '2020-01-01');
SELECT cleanup_add_source('calls');
SELECT t.session(1, 'processed', 1, 's1.mp3'), t.file('s1.mp3'), t.file('c1.mp3');
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_deleted}' AS deleted;
SELECT cleanup_failed_sessions() #> '{result,failed_sessions_cleaned}' AS cleaned;
SELECT t.wait_for_worker();
SELECT t.file('o3.mp3');
SELECT cleanup_all() #> '{result,orphaned_files_deleted}' AS deleted;
DROP TABLE calls;
-- a run by which no file would go does not make a source forgotten that is emptied
SELECT t.reset();
SELECT cleanup_drop_source(source) FROM cleanup_sources WHERE source <> 'sessions'::regclass;
DELETE FROM sessions;
CREATE TABLE notes (id int PRIMARY KEY, audio_file text);
INSERT INTO notes VALUES (1, 'n1.mp3'), (2, 'n2.mp3');
SELECT cleanup_add_source('notes');
SELECT t.session(1, 'processed', 1, 's1.mp3'), t.file('s1.mp3'), t.file('n1.mp3'), t.file('n2.mp3');
SELECT cleanup_all() -> 'success' AS success;
TRUNCATE notes;
SELECT blocked_by, orphans FROM t.brake();
SELECT cleanup_failed_sessions() -> 'success' AS success;
SELECT blocked_by, orphans FROM t.brake();
SELECT cleanup_all(force => true) #> '{result,orphaned_files_deleted}' AS deleted;
SELECT t.wait_for_worker();
SELECT t.file('o9.mp3');
SELECT blocked_by, orphans FROM t.brake();
SELECT cleanup_drop_source('notes');
DROP TABLE notes;
