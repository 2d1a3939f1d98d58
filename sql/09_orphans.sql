--
-- Orphaned files: no row refers to them, and they are old enough
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SELECT t.session(1, 'processed', 1, 'uploads/audio/wanted.mp3');
SELECT t.file('wanted.mp3');

CREATE FUNCTION t.orphans() RETURNS jsonb LANGUAGE sql AS $$
	SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_deleted}'
$$;

-- age: younger than the retention stays
SELECT t.file('one_hour.mp3', 1), t.file('almost.mp3', 23.9), t.file('just.mp3', 24.1), t.file('a_year.mp3', 8760),
	t.file('tomorrow.mp3', -24);
SELECT t.orphans();
SET audio_cleanup.orphaned_file_retention_hours = 0;
SELECT t.orphans();
SET audio_cleanup.orphaned_file_retention_hours = 8761;
SELECT t.orphans();
SET audio_cleanup.orphaned_file_retention_hours = 876000;
SELECT t.orphans();
RESET audio_cleanup.orphaned_file_retention_hours;

-- newest: a file that was copied with its old time, moved, or restored from a
-- backup is as young as its inode
SET audio_cleanup.file_age = 'newest';
SELECT t.orphans();
SET audio_cleanup.orphaned_file_retention_hours = 0;
SELECT t.orphans();		-- tomorrow's is not of today, whatever is looked at
RESET audio_cleanup.orphaned_file_retention_hours;
SET audio_cleanup.file_age = 'mtime';

-- the real run takes those
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_deleted}' AS deleted;
SELECT * FROM t.tree();
-- they are not condemned twice
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_count}' AS again;

-- only audio is touched, by its extension in any case; everything where that is wanted
SELECT t.reset();
SELECT t.file(f) FROM unnest('{a.mp3,b.WAV,c.Opus,d.m4a,e.webm,f.txt,g.mp3.part,h.pdf,i,j.mp3~,k.tar.ogg,mp3,wanted.mp3}'::text[]) f;
SELECT t.orphans();
SET audio_cleanup.audio_extensions = 'pdf, .txt';
SELECT t.orphans();
SET audio_cleanup.audio_extensions = '*';
SELECT t.orphans();
RESET audio_cleanup.audio_extensions;

-- subdirectories, unless told otherwise; a directory is never removed
SELECT t.reset();
SELECT t.file('2024/05/a.mp3'), t.file('2024/b.mp3'), t.file('c.mp3'), t.file('wanted.mp3');
SET audio_cleanup.recurse = off;
SELECT t.orphans();
RESET audio_cleanup.recurse;
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_deleted}' AS deleted;
SELECT * FROM t.tree();

-- another upload directory; a relative one is below the data directory
SELECT t.file('there.mp3'), t.file('here.mp3');
SELECT t.sh('mkdir -p ../other && mv there.mp3 ../other');
SET audio_cleanup.upload_dir = 'uploads/other';
SELECT t.orphans();
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_deleted}' AS deleted;
SELECT t.names();
SELECT t.wait_for_worker();
SELECT t.sh('rm -rf ../other');
RESET audio_cleanup.upload_dir;
SELECT t.names();

-- a row that is committed after the preview protects; one that is gone does not
SELECT t.session(2, 'uploading', 0, 'here.mp3');
SELECT t.orphans();
DELETE FROM sessions WHERE id = t.id(2);
SELECT t.orphans();

-- rows of this very transaction count, those rolled back do not
BEGIN;
SELECT t.session(2, 'uploading', 0, 'here.mp3');
SELECT t.orphans();
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_count}' AS count;
ROLLBACK;
SELECT t.orphans();

-- any source protects
CREATE TABLE voicemails (voicemail_file text);
SELECT cleanup_add_source('voicemails');
INSERT INTO voicemails VALUES ('here.mp3');
SELECT t.orphans();
SELECT cleanup_drop_source('voicemails');
DROP TABLE voicemails;
