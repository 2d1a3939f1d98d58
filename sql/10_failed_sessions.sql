--
-- Failed sessions: their audio goes when they failed long enough ago
--
\i test/fixture.sql
-- neither the server's nor the session's time zone matters to naive UTC columns
SET TimeZone = 'Asia/Tokyo';
SELECT cleanup_add_source('sessions');

CREATE FUNCTION t.failed() RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(right(id, 2), ' ' ORDER BY id), '(none)')
	FROM jsonb_array_elements_text(cleanup_failed_sessions(true) #> '{result,failed_sessions_cleaned}') id
$$;

-- all of the statuses: of eight days ago, only "failed" is
SELECT t.session(n::int, status, 8, 'uploads/audio/' || t.id(n::int) || '.mp3'), t.file(t.id(n::int) || '.mp3')
FROM unnest('{pending,uploading,transcribing,transcribed,extracting_notes,processed,failed}'::text[])
	WITH ORDINALITY s(status, n);
SELECT t.session(8, NULL, 8, t.id(8) || '.mp3'), t.file(t.id(8) || '.mp3');
SELECT t.session(9, 'FAILED', 8, t.id(9) || '.mp3'), t.file(t.id(9) || '.mp3');
SELECT t.failed();
SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_count}' AS orphans;

-- the retention, to the hour, in UTC (Tokyo is nine hours ahead)
SELECT t.session(20, 'failed', 7.1, t.id(20) || '.mp3'), t.file(t.id(20) || '.mp3');
SELECT t.session(21, 'failed', 6.9, t.id(21) || '.mp3'), t.file(t.id(21) || '.mp3');
SELECT t.session(22, 'failed', -1, t.id(22) || '.mp3'), t.file(t.id(22) || '.mp3');
SELECT t.session(23, 'failed', 8, t.id(23) || '.mp3'), t.file(t.id(23) || '.mp3');
UPDATE sessions SET updated_at = NULL WHERE id = t.id(23);	-- since when is not known
SELECT t.failed();
SET TimeZone = 'America/Los_Angeles';
SELECT t.failed();
SET TimeZone = 'Asia/Tokyo';
SET audio_cleanup.failed_session_retention_days = 0;
SELECT t.failed();
SET audio_cleanup.failed_session_retention_days = 36500;
SELECT t.failed();
RESET audio_cleanup.failed_session_retention_days;
-- a column that is written in local time
SELECT cleanup_add_source('sessions', timezone => 'Pacific/Kiritimati');	-- 14 hours ahead: failed earlier
SELECT t.failed();
SELECT cleanup_add_source('sessions', timezone => 'Etc/GMT+12');			-- 12 hours behind: failed later
SELECT t.failed();
SELECT cleanup_add_source('sessions');

-- keep: the rows stay as they are; a second run reports nothing
SELECT cleanup_failed_sessions() #> '{result,failed_sessions_cleaned}' AS cleaned;
SELECT right(id::text, 2) AS id, status, audio_url FROM sessions WHERE id IN (t.id(7), t.id(20)) ORDER BY id;
SELECT cleanup_failed_sessions() -> 'result' AS second_run;
SELECT count(*) AS left FROM t.tree();
-- nor does it when the worker has finished, or when all is cleaned
SELECT t.wait_for_worker();
SELECT t.failed();
SELECT cleanup_all() #> '{result,failed_sessions_count}' AS third_run;

-- failed sessions without audio on disk are not reported
SELECT t.session(30, 'failed', 30, 'uploads/audio/long_gone.mp3'), t.session(31, 'failed', 30, NULL), t.session(32, 'failed', 30, '');
SELECT t.failed();

-- clear: the file columns become NULL with the same commit, and nothing else changes
DELETE FROM sessions;
SELECT t.reset();
SELECT cleanup_add_source('sessions', on_failed => 'clear');
SELECT t.session(1, 'failed', 8, 'one.mp3', 'my recording.mp3'), t.file('one.mp3'),
	t.session(2, 'failed', 8, 'gone.mp3', 'your recording.mp3'),
	t.session(3, 'processed', 8, 'three.mp3', 'three.mp3'), t.file('three.mp3');
SELECT cleanup_failed_sessions(true) #> '{result,failed_sessions_count}' AS dry_run;
BEGIN;
SELECT cleanup_failed_sessions() #> '{result,failed_sessions_count}' AS rolled_back;
SELECT right(id::text, 2) AS id, status, audio_filename, audio_url FROM sessions ORDER BY id;
ROLLBACK;
SELECT right(id::text, 2) AS id, status, audio_filename, audio_url FROM sessions ORDER BY id;
SELECT t.names();
SELECT updated_at AS before FROM sessions WHERE id = t.id(1) \gset
SELECT cleanup_failed_sessions() #> '{result,failed_sessions_count}' AS cleaned;
SELECT right(id::text, 2) AS id, status, audio_filename, audio_url FROM sessions ORDER BY id;
SELECT updated_at = :'before' AS untouched FROM sessions WHERE id = t.id(1);
SELECT t.names();
SELECT cleanup_add_source('sessions');

-- all files of a session go together: the client's name, {id}{ext}, the derived one
DELETE FROM sessions;
SELECT t.reset();
SELECT t.session(1, 'failed', 8, '/srv/uploads/audio/' || t.id(1) || '.wav', 'interview.wav');
SELECT t.file(t.id(1) || '.wav'), t.file(t.id(1) || '_processed.mp3'), t.file('interview.wav'),
	t.file('wanted.mp3'), t.session(2, 'processed', 1, 'wanted.mp3');
SELECT cleanup_failed_sessions() -> 'result' AS result;
SELECT t.names();

-- shared with a session that lives: kept, until that one is gone
DELETE FROM sessions;
SELECT t.reset();
SELECT t.file('shared.mp3'), t.file('own.mp3');
SELECT t.session(1, 'failed', 8, 'shared.mp3'), t.session(2, 'failed', 8, 'own.mp3'), t.session(3, 'transcribing', 8, 'shared.mp3');
SELECT t.failed();
UPDATE sessions SET status = 'failed', updated_at = now() AT TIME ZONE 'UTC' WHERE id = t.id(3);
SELECT t.failed();		-- failed too, but not long enough ago
UPDATE sessions SET updated_at = now() AT TIME ZONE 'UTC' - interval '8 days' WHERE id = t.id(3);
SELECT t.failed();
SELECT cleanup_all() -> 'result' AS result;		-- no file twice
SELECT count(*), count(DISTINCT file) AS files FROM cleanup_files JOIN cleanup_runs r USING (run_id) WHERE r.what = 'all';

-- another source needs it
DELETE FROM sessions;
SELECT t.reset();
SELECT t.wait_for_worker();
CREATE TABLE voicemails (voicemail_file text);
SELECT cleanup_add_source('voicemails');
INSERT INTO voicemails VALUES ('https://cdn.example.org/shared.mp3?sig=x');
SELECT t.file('shared.mp3'), t.session(1, 'failed', 8, 'shared.mp3');
SELECT t.failed();
SELECT cleanup_drop_source('voicemails');
SELECT t.failed();
DROP TABLE voicemails;

-- a failed session protects its audio from being an orphan, due or not
DELETE FROM sessions;
SELECT t.session(1, 'failed', 8, 'shared.mp3');
SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_count}' AS orphans;

-- what a row names outside of the directory is nobody's business
SELECT t.reset();
SELECT t.file('wanted.mp3'), t.session(5, 'processed', 1, 'wanted.mp3');
SELECT t.sh('echo outside > ../outside.mp3; mkdir -p ../elsewhere; echo outside > ../elsewhere/deep.mp3');
DELETE FROM sessions WHERE id = t.id(1);
SELECT t.session(1, 'failed', 8, '../outside.mp3'), t.session(2, 'failed', 8, '../elsewhere/deep.mp3'),
	t.session(3, 'failed', 8, current_setting('data_directory') || '/uploads/outside.mp3'),
	t.session(4, 'failed', 8, 'x/../../elsewhere/../outside.mp3');
SELECT cleanup_all(force => true) -> 'result' AS result;
SELECT * FROM t.lines('cat ../outside.mp3 ../elsewhere/deep.mp3');
SELECT t.sh('rm -r ../outside.mp3 ../elsewhere');

-- a failed row condemns only the file that it names; what it matches loosely
-- (a bare name, in a subdirectory) may be somebody's upload of this minute
DELETE FROM sessions;
SELECT t.reset();
SELECT t.session(1, 'failed', 8, 'recording.mp3'), t.file('recording.mp3', 0.1), t.file('patients/42/recording.mp3', 0.1),
	t.file('patients/43/recording.mp3', 48);
SELECT cleanup_failed_sessions() -> 'result' AS result;
SELECT t.names();

-- several statuses; timestamptz and date columns
CREATE TABLE calls (call_id int PRIMARY KEY, audio_path text, state text, failed_at timestamptz);
CREATE TABLE days (id int PRIMARY KEY, audio_path text, status text, failed_at date);
SELECT cleanup_drop_source('sessions');
SELECT t.reset();
SELECT t.file(f || '.mp3') FROM unnest('{c1,c2,c3,c4,d1,d2}'::text[]) f;
INSERT INTO calls VALUES (1, 'c1.mp3', 'failed', now() - interval '7 days 1 hour'), (2, 'c2.mp3', 'failed', now() - interval '6 days 23 hours'),
	(3, 'c3.mp3', 'cancelled', now() - interval '8 days'), (4, 'c4.mp3', 'done', now() - interval '8 days');
INSERT INTO days VALUES (1, 'd1.mp3', 'failed', current_date - 9), (2, 'd2.mp3', 'failed', current_date - 6);
SELECT cleanup_add_source('calls', failed_statuses => '{failed,cancelled}');
SELECT cleanup_add_source('days');
SELECT cleanup_failed_sessions() #> '{result,failed_sessions_cleaned}' AS cleaned;
SELECT t.names();
DROP TABLE calls, days;

-- a source without failed sessions
DELETE FROM cleanup_sources;
CREATE TABLE voicemails (voicemail_file text);
SELECT cleanup_add_source('voicemails');
SELECT cleanup_failed_sessions() -> 'result' AS result;
DROP TABLE voicemails;
