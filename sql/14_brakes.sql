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
-- force is for one call
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
