--
-- Rows that refer to files which are not there
--
\i test/fixture.sql

-- without a source, or a directory, it cannot be told
SELECT * FROM t.refused('SELECT * FROM cleanup_missing_files()') \gx
SELECT cleanup_add_source('sessions');
SELECT set_config('audio_cleanup.upload_dir', '/nonexistent', false);
SELECT t.try('SELECT * FROM cleanup_missing_files()');
RESET audio_cleanup.upload_dir;

-- nothing refers, nothing is missing
SELECT * FROM cleanup_missing_files();

-- by source and status; what is there is there by the rules of a reference
SELECT t.file('here.mp3'), t.file('My Talk.MP3'), t.file('2024/05/deep.mp3'), t.file('5e551014.wav'), t.file('notes.txt'), t.file('letter.json'), t.file('young.mp3', 0), t.file('b.mp3');
SELECT t.session(1, 'processed', 1, 'here.mp3'), t.session(2, 'processed', 1, '/uploads/my%20talk.mp3?x=1'),
	t.session(3, 'processed', 1, 'https://host/2024/05/deep.mp3'), t.session(4, 'processed', 1, '5e551014'),
	t.session(5, 'processed', 1, 'notes.txt'), t.session(6, 'processed', 1, '["a.mp3","b.mp3"]'), t.session(7, 'processed', 1, 'young.mp3'),
	t.session(8, 'processed', 1, 'deep.mp3');
SELECT * FROM cleanup_missing_files();

-- and what is not: another directory, another extension, only a file that was made from it, only a file that is no audio
SELECT t.file('made_processed.mp3');
SELECT t.session(10, 'processed', 1, '2024/06/deep.mp3'), t.session(11, 'failed', 1, 'here.wav'), t.session(12, 'failed', 1, 'made.wav'),
	t.session(13, 'failed', 1, 'letter'), t.session(14, NULL, 1, 'a.mp3', 'here.mp3'), t.session(15, 'failed', 1, ''), t.session(16, 'failed', 1, NULL);
SELECT * FROM cleanup_missing_files();

-- a file in the trash is not there
SET audio_cleanup.failed_session_retention_days = 0;
SET audio_cleanup.backup_retention_days = 7;
SELECT t.file('gone.mp3'), t.session(20, 'failed', 1, 'gone.mp3');
SELECT status, file_references, missing FROM cleanup_missing_files() WHERE status = 'failed';
CALL cleanup_run() \gset
SELECT status, file_references, missing FROM cleanup_missing_files() WHERE status = 'failed';
RESET audio_cleanup.backup_retention_days;
RESET audio_cleanup.failed_session_retention_days;

-- three examples, each once, and not longer than can be read; a name that is hostile is a name
DELETE FROM sessions;
SELECT t.session(n, 'processed', 1, 'missing' || n / 2 || '.mp3') FROM generate_series(2, 20) n;
SELECT t.session(30, '''; DROP TABLE sessions; --', 1, repeat('x', 5000) || '.mp3'), t.session(31, '''; DROP TABLE sessions; --', 1, E'<img src=x onerror=alert(1)>\n%s.mp3');
SELECT status, file_references, missing, (SELECT array_agg(left(e, 40) || CASE WHEN length(e) > 40 THEN '... ' || length(e) ELSE '' END) FROM unnest(examples) e) AS examples
FROM cleanup_missing_files();

-- several sources, one of them without a status; read as their owner, by a viewer who may not read them
CREATE TABLE calls (recording_path text);
INSERT INTO calls VALUES ('here.mp3'), ('lost.mp3'), (NULL);
CREATE VIEW letters AS SELECT 1 AS id, 'letters/1.wav'::text AS file_path, now() AS failed_at, 'sent'::text AS status;
SELECT cleanup_add_source('calls'), cleanup_add_source('letters');
CREATE ROLE regress_viewer;
SELECT cleanup_grant_access('regress_viewer');
SET ROLE regress_viewer;
SELECT t.try('SELECT FROM calls');
SELECT source, status, file_references, missing, cardinality(examples) AS examples FROM cleanup_missing_files();
RESET ROLE;
SELECT cleanup_revoke_access('regress_viewer');
DROP ROLE regress_viewer;

-- it changes nothing, also where nothing may be changed, and needs no claim
SELECT t.fingerprint() AS before \gset
BEGIN READ ONLY;
SELECT count(*) FROM cleanup_missing_files();
SELECT pg_current_xact_id_if_assigned() IS NULL AS wrote_nothing;
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM cleanup_missing_files();
COMMIT;
SELECT t.fingerprint() = :'before' AS untouched;
SELECT t.sh('mv .audio_cleanup/claim .audio_cleanup/claim.away; echo other > .audio_cleanup/claim');
SELECT count(*) FROM cleanup_missing_files();
SELECT t.sh('mv .audio_cleanup/claim.away .audio_cleanup/claim');

-- in little memory: more files and more rows than fit into it
SET work_mem = '64kB';
DELETE FROM sessions;
SELECT t.sh('mkdir many; cd many; seq -f %g.mp3 1 5000 | xargs touch');
INSERT INTO sessions (id, session_date, status, audio_url) SELECT t.id(n), now(), 'processed', 'many/' || n || '.mp3' FROM generate_series(1, 7000) n;
SELECT source, status, file_references, missing, examples FROM cleanup_missing_files() WHERE source = 'public.sessions';
RESET work_mem;

-- a source that cannot be read whole, a directory that cannot: an error, not a smaller number
ALTER TABLE calls SET UNLOGGED;
SELECT * FROM t.refused('SELECT * FROM cleanup_missing_files()') \gx
DROP TABLE calls;
SELECT t.try('SELECT * FROM cleanup_missing_files()') ~ 'no longer exists' AS refused;
DROP VIEW letters;
-- a file may be there, in a place that is not looked into
SELECT t.reset();
SELECT cleanup_drop_source(source) FROM cleanup_sources WHERE source <> 'sessions'::regclass;
DELETE FROM sessions;
SELECT t.sh('mkdir real && ln -s real linked');
SELECT t.session(1, 'processed', 1, 'https://example.org/u/linked/there.mp3'), t.session(2, 'processed', 1, 'real/gone.mp3');
SELECT status, missing, examples FROM cleanup_missing_files();
-- and cleanup_explain() says so of a file that is there
SELECT t.sh('touch -d "2020-01-01" real/a.mp3; mkdir "#recycle" .hidden deep; touch -d "2020-01-01" "#recycle/b.mp3" .hidden/c.mp3 deep/d.mp3; ln -s a.mp3 real/link.mp3');
SELECT f.file, cleanup_explain(f.file) ->> 'verdict' AS verdict, cleanup_explain(f.file) ->> 'reason' AS reason
FROM (VALUES ('linked/a.mp3'), ('#recycle/b.mp3'), ('.hidden/c.mp3'), ('real/link.mp3'), ('real/none.mp3')) f (file);
SET audio_cleanup.recurse = off;
SELECT cleanup_explain('deep/d.mp3') ->> 'reason' AS reason;
RESET audio_cleanup.recurse;
