--
-- Directories in which nothing may be deleted. force does not help
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3'), t.file('orphan.mp3');
SELECT current_setting('data_directory') AS data \gset

CREATE FUNCTION t.blocked(OUT success boolean, OUT blocked_by jsonb) LANGUAGE sql AS $$
	SELECT (s -> 'success')::boolean, s -> 'blocked_by' FROM cleanup_status() s
$$;

-- missing, not a directory
SET audio_cleanup.upload_dir = 'uploads/missing';
SELECT * FROM t.blocked();
SELECT * FROM t.refused('SELECT cleanup_all(force => true)') \gx
SET audio_cleanup.upload_dir = 'PG_VERSION';
SELECT * FROM t.blocked();
SELECT code, message, hint FROM t.refused('SELECT cleanup_all(force => true)') \gx
SET audio_cleanup.upload_dir = 'PG_VERSION/audio';
SELECT t.try('SELECT cleanup_all(force => true)');

-- the root, the data directory, what contains it, what PostgreSQL uses
SET audio_cleanup.upload_dir = '/';
SELECT * FROM t.blocked();
SELECT t.try('SELECT cleanup_all(force => true)');
SET audio_cleanup.upload_dir = '.';
SELECT t.try('SELECT cleanup_all(force => true)');
SET audio_cleanup.upload_dir = :'data';
SELECT t.try('SELECT cleanup_all(force => true)');
SELECT regexp_replace(:'data', '/[^/]*$', '') AS parent \gset
SET audio_cleanup.upload_dir = :'parent';
SELECT replace(t.try('SELECT cleanup_all(force => true)'), :'parent', '$PARENT');
SET audio_cleanup.upload_dir = 'base';
SELECT code, message, t.hide_paths(detail) AS detail, hint FROM t.refused('SELECT cleanup_all(force => true)') \gx
SET audio_cleanup.upload_dir = 'base/1';
SELECT t.try('SELECT cleanup_all(force => true)');
SET audio_cleanup.upload_dir = 'global';
SELECT t.try('SELECT cleanup_all(force => true)');
SET audio_cleanup.upload_dir = 'pg_wal';
SELECT t.try('SELECT cleanup_all(force => true)');
SET audio_cleanup.upload_dir = 'uploads/../pg_xact';
SELECT t.try('SELECT cleanup_all(force => true)');
-- through a symlink too
RESET audio_cleanup.upload_dir;
SELECT t.sh('ln -s "$PWD/../../base" ../link_to_base && ln -s "$PWD/../.." ../link_to_data');
SET audio_cleanup.upload_dir = 'uploads/link_to_base';
SELECT t.try('SELECT cleanup_all(force => true)');
SET audio_cleanup.upload_dir = 'uploads/link_to_data';
SELECT t.try('SELECT cleanup_all(force => true)');
-- a tablespace
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE regress_audio LOCATION '';
SELECT 'pg_tblspc/' || oid AS tablespace FROM pg_tablespace WHERE spcname = 'regress_audio' \gset
SET audio_cleanup.upload_dir = :'tablespace';
SELECT regexp_replace(t.try('SELECT cleanup_all(force => true)'), 'pg_tblspc/\d+', 'pg_tblspc/...');
RESET audio_cleanup.upload_dir;
DROP TABLESPACE regress_audio;
SELECT t.sh('rm ../link_to_base ../link_to_data');

-- an upload directory that is a symlink to a good place is good
SELECT t.sh('ln -s audio ../link_to_audio');
SET audio_cleanup.upload_dir = 'uploads/link_to_audio';
SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_deleted}' AS orphans;
RESET audio_cleanup.upload_dir;
SELECT t.sh('rm ../link_to_audio');

-- rights: not readable, not writable, a part of it not readable
SELECT t.sh('chmod 333 .');
SELECT * FROM t.blocked();
SELECT t.try('SELECT cleanup_all(force => true)');
SELECT t.sh('chmod 555 .');
SELECT * FROM t.blocked();
SELECT t.try('SELECT cleanup_all(force => true)');
SELECT t.sh('chmod 755 .');
SELECT t.file('nested/orphan.mp3'), t.file('readable/orphan.mp3');
SELECT t.sh('chmod 000 nested');
SELECT * FROM t.blocked();
SELECT t.try('SELECT cleanup_all(force => true)');
SELECT t.sh('chmod 755 nested');
SELECT * FROM t.blocked();
SELECT t.names();

-- nested deeper than is walked
SELECT t.sh('d=.; for i in $(seq 1 70); do d=$d/d; done; mkdir -p $d');
SELECT * FROM t.blocked();
SELECT regexp_replace(t.try('SELECT cleanup_all(force => true)'), '(/d)+', '/d/...');
SELECT t.sh('rm -r d');

-- nothing has happened to the files; now it may
SELECT t.names();
SELECT cleanup_all() #> '{result,orphaned_files_deleted}' AS deleted;

-- a directory below which one may not be written: that file is reported as
-- failed, the others go, and the next run tries again
SELECT t.reset();
SELECT t.file('wanted.mp3'), t.file('locked/one.mp3'), t.file('two.mp3');
SELECT t.sh('chmod 555 locked');
SELECT cleanup_all() #> '{result,orphaned_files_deleted}' AS deleted;
SELECT t.wait_for_worker();
SELECT file, state, error, freed FROM cleanup_files WHERE run_id = (SELECT max(run_id) FROM cleanup_runs) ORDER BY file;
SELECT status, files, deleted, skipped, errors FROM cleanup_runs ORDER BY run_id DESC LIMIT 1;
CALL cleanup_run() \gset
SELECT :'result'::jsonb -> 'success' AS success, :'result'::jsonb -> 'result' AS result;
SELECT t.sh('chmod 755 locked');
CALL cleanup_run() \gset
SELECT :'result'::jsonb -> 'success' AS success, :'result'::jsonb #> '{result,orphaned_files_deleted}' AS deleted;
SELECT t.names();
