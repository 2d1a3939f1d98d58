--
-- The claim: an upload directory belongs to one database
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3'), t.file('orphan.mp3');
CREATE FUNCTION t.claimed() RETURNS boolean LANGUAGE sql AS $$
	SELECT EXISTS (SELECT FROM t.lines('find .audio_cleanup -name claim 2>/dev/null || true'))
$$;
CREATE FUNCTION t.preview(OUT success boolean, OUT blocked_by jsonb, OUT orphans jsonb) LANGUAGE sql AS $$
	SELECT (p -> 'success')::boolean, p -> 'blocked_by', p #> '{result,orphaned_files_deleted}' FROM cleanup_all(true) p
$$;

-- a preview claims nothing, a run that is rolled back neither; the first run that commits does
SELECT * FROM t.preview();
SELECT t.claimed();
BEGIN;
SELECT cleanup_all() -> 'success' AS success;
ROLLBACK;
SELECT t.claimed(), (SELECT count(*) FROM cleanup_claims) AS claims;
SELECT cleanup_all() -> 'success' AS success;
SELECT t.claimed(), (SELECT count(*) FROM cleanup_claims) AS claims;
SELECT t.names();
SELECT t.wait_for_worker();

-- the extension anew: the twin of the claim is gone, as after a restore from a dump
SET client_min_messages = warning;
DROP EXTENSION audio_cleanup;
CREATE EXTENSION audio_cleanup;
RESET client_min_messages;
SELECT cleanup_add_source('sessions');
SELECT t.file('orphan.mp3');
SELECT * FROM t.preview();
SELECT * FROM t.refused('SELECT cleanup_all()') \gx
SELECT t.try('SELECT cleanup_all(force => true)');
\set VERBOSITY sqlstate
CALL cleanup_run(force => true);
\set VERBOSITY default
SELECT t.names();

-- to take it over restarts the grace period: what was there before is no
-- orphan until it is one retention older
BEGIN;
SELECT cleanup_claim_upload_dir();
ROLLBACK;
SELECT t.try('SELECT cleanup_all()');
SELECT cleanup_claim_upload_dir();
SELECT * FROM t.preview();
SELECT cleanup_all() #> '{result,orphaned_files_count}' AS orphans, t.names();
SET audio_cleanup.orphaned_file_retention_hours = 0;
SELECT * FROM t.preview();
RESET audio_cleanup.orphaned_file_retention_hours;

-- another disk, or none: the claim is missing where it was before
SELECT t.sh('mv .audio_cleanup ../moved_away');
SELECT * FROM t.preview();
SELECT * FROM t.refused('SELECT cleanup_all(force => true)') \gx
SELECT t.sh('mv ../moved_away .audio_cleanup');
SELECT * FROM t.preview();

-- a claim that cannot be read, or that is somebody else's
CREATE FUNCTION t.forged(forgery text, OUT blocked_by jsonb, OUT code text, OUT detail text, OUT tree text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM t.sh('cp .audio_cleanup/claim ../claim && sed ' || t.word(forgery) || ' ../claim > .audio_cleanup/claim');
	SELECT p.blocked_by INTO blocked_by FROM t.preview() p;
	SELECT r.code, r.detail, r.tree INTO code, detail, tree FROM t.refused('SELECT cleanup_all(force => true)') r;
	PERFORM t.sh('cat ../claim > .audio_cleanup/claim && rm ../claim');
END $$;
SELECT * FROM t.forged('s/.*/rubbish/') \gx
SELECT * FROM t.forged('d') \gx
SELECT * FROM t.forged('s/^system_identifier=.*/system_identifier=1/') \gx
SELECT * FROM t.forged('s/^database=.*/database=1/; s/^database_name=.*/database_name=template1/') \gx
SELECT * FROM t.forged('s/^timeline=.*/timeline=99/') \gx
SELECT * FROM t.forged('s/^data_directory_inode=.*/data_directory_inode=1/') \gx
SELECT * FROM t.forged('s/^uuid=.*/uuid=00000000-0000-4000-8000-000000000000/') \gx
SELECT * FROM t.forged('') \gx
SELECT * FROM t.preview();
-- what belongs to us need not be claimed
\set VERBOSITY sqlstate
SELECT cleanup_claim_upload_dir();
\set VERBOSITY default

-- read-only transactions and recovery claim nothing
BEGIN READ ONLY;
SELECT t.try('SELECT cleanup_claim_upload_dir()');
ROLLBACK;

-- a directory in which nothing may be deleted cannot be claimed
SET audio_cleanup.upload_dir = '/';
SELECT t.try('SELECT cleanup_claim_upload_dir()');
SET audio_cleanup.upload_dir = 'uploads/missing';
SELECT t.try('SELECT cleanup_claim_upload_dir()');
RESET audio_cleanup.upload_dir;
