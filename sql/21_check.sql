--
-- cleanup_check(): what is wrong with this installation
--
\i test/fixture.sql
CREATE FUNCTION t.findings() RETURNS TABLE (check_name text, status text, detail text, hint text) LANGUAGE sql AS $$
	SELECT check_name, status, t.hide_paths(detail), hint FROM cleanup_check()
	WHERE check_name <> 'workers' AND (check_name, status) <> ('settings', 'warning')
$$;

-- a fresh installation: no source yet
SELECT check_name, status, detail, hint FROM t.findings() WHERE status = 'error' \gx

-- all is well
SELECT cleanup_add_source('sessions');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3'), t.file('orphan.mp3');
SELECT cleanup_all() -> 'success' AS success;
SELECT t.wait_for_worker();
SELECT check_name, status, detail FROM t.findings();
SELECT status FROM cleanup_check() WHERE check_name = 'workers';

-- risky settings
SET audio_cleanup.orphaned_file_retention_hours = 0;
SELECT detail, hint FROM cleanup_check() WHERE check_name = 'settings' ORDER BY detail COLLATE "C" \gx
RESET audio_cleanup.file_age;
RESET audio_cleanup.orphaned_file_retention_hours;
SELECT count(*) AS risky_settings FROM cleanup_check() WHERE check_name = 'settings' AND status <> 'ok';
SET audio_cleanup.file_age = 'mtime';

-- rows that refer to none of the files
SELECT t.reset(), t.file('stranger.mp3');
SELECT check_name, status, detail, hint FROM t.findings() WHERE status <> 'ok' \gx

-- what would stop a run
SELECT t.reset();
DELETE FROM sessions;
SELECT t.file('orphan.mp3');
SELECT check_name, status, detail, hint FROM t.findings() WHERE status = 'error' \gx
ALTER TABLE sessions RENAME audio_url TO url_of_audio;
SELECT check_name, status, detail FROM t.findings() WHERE status = 'error' \gx
ALTER TABLE sessions RENAME url_of_audio TO audio_url;
SET audio_cleanup.upload_dir = 'uploads/missing';
SELECT check_name, status, detail, hint FROM t.findings() WHERE status = 'error' \gx
RESET audio_cleanup.upload_dir;

-- a name that cannot be judged
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3');
SELECT t.sh($$touch "$(printf '\377.mp3')"$$);
SELECT check_name, status, detail, hint FROM t.findings() WHERE check_name = 'file' \gx

-- a table that was forgotten: its names are among the files that would go
SELECT t.reset();
CREATE TABLE forgotten (id int, comment text, voice_memo text);
INSERT INTO forgotten SELECT n, 'nothing', 'https://host/' || lpad(n::text, 3, '0') || '.mp3' FROM generate_series(1, 5) n;
SELECT t.file('wanted.mp3'), t.files(5);
SELECT check_name, status, detail, hint FROM t.findings() WHERE check_name = 'unregistered' \gx
SELECT cleanup_status() -> 'success' AS success, cleanup_status() -> 'warnings' AS warnings;
SET audio_cleanup.search_unregistered = off;
SELECT cleanup_status() ? 'warnings' AS warnings;
RESET audio_cleanup.search_unregistered;
SELECT cleanup_add_source('forgotten', '{voice_memo}');
SELECT cleanup_status() ? 'warnings' AS warnings, cleanup_status() #> '{potential_cleanup,orphaned_files_count}' AS orphans;
SELECT cleanup_drop_source('forgotten');
DROP TABLE forgotten;

-- of whatever type its columns are; who may not read them does not hear of them
CREATE TABLE forgotten (id int, doc jsonb, old json, tags text[], hidden text);
INSERT INTO forgotten SELECT n, jsonb_build_object('memos', jsonb_build_array('x, ' || f, f)), json_build_object('u', 'https://h/' || f),
	ARRAY['a', f], f FROM (SELECT n, lpad(n::text, 3, '0') || '.mp3' AS f FROM generate_series(1, 5) n) u;
CREATE ROLE regress_ac_looker;
SELECT cleanup_grant_access('regress_ac_looker');
SELECT cleanup_status() -> 'warnings' AS warnings;
SET ROLE regress_ac_looker;
SELECT cleanup_status() -> 'warnings' AS warnings;
RESET ROLE;
GRANT SELECT (id, doc) ON forgotten TO regress_ac_looker;
SET ROLE regress_ac_looker;
SELECT cleanup_status() -> 'warnings' AS warnings;
RESET ROLE;
-- nor where he would see other rows than the one that holds the name
GRANT SELECT ON forgotten TO regress_ac_looker;
ALTER TABLE forgotten ENABLE ROW LEVEL SECURITY;
SET ROLE regress_ac_looker;
SELECT cleanup_status() -> 'warnings' AS warnings;
RESET ROLE;
SELECT cleanup_revoke_access('regress_ac_looker');
DROP TABLE forgotten;
DROP ROLE regress_ac_looker;
