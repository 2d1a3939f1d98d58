--
-- Under which names a file may be put back: an operator writes no code
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SET audio_cleanup.backup_retention_days = 7;
SET audio_cleanup.max_delete_percent = 100;
CREATE ROLE regress_restorer;
SELECT cleanup_grant_access('regress_restorer', 'operator');
GRANT USAGE, CREATE ON SCHEMA t TO regress_restorer;

-- ok, or why not
CREATE FUNCTION t.restore_as(file text, name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	PERFORM cleanup_restore(file, name);
	RAISE EXCEPTION 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN CASE WHEN SQLERRM = 'ok' THEN 'ok' ELSE SQLSTATE || ' ' || coalesce(nullif(detail, ''), t.hide_paths(SQLERRM)) END;
END $$;

SELECT t.file('a.mp3'), t.file('folder/b.MP3'), t.file('wanted.mp3'), t.session(1, 'processed', 8, 'wanted.mp3');
SELECT cleanup_all() -> 'success' AS success;
SELECT t.wait_for_worker();

-- how wide a letter is that nobody sees depends on psql's version
\pset format unaligned
SET ROLE regress_restorer;
SELECT name, t.restore_as('a.mp3', name) FROM (VALUES
	('b.mp3'), ('folder/c.wav'), ('new/folder/a.mp3'), ('A.MP3'), ('x.php.mp3'), ('två–ö.mp3'), ('a b (2), "c".flac'),
	('shell.php'), ('a.mp3.php'), ('a.mp3/shell.php'), ('.htaccess'), ('.mp3'), ('folder/.user.ini'), ('.hidden/a.mp3'),
	('noextension'), ('a.'), ('a.mp3.'), ('a.mp3 '), ('a.mp3/'), (' a.mp3'), ('folder /a.mp3'), ('folder./a.mp3'),
	('../a.mp3'), ('folder/../../a.mp3'), ('/etc/a.mp3'), ('folder/..'), (''), ('/'),
	('.audio_cleanup/trash/a.mp3'), ('.AUDIO_CLEANUP/claim'), ('.Audio_Cleanup/trash/1/a.mp3'), ('./.audio_cleanup/a.mp3'),
	('AUDIO_~1/trash/a.mp3'), (E'\u200c.audio_cleanup/a.mp3'), (E'.\u200caudio_cleanup/a.mp3'), (E'\uff0eaudio_cleanup/a.mp3'),
	(E'a\u202e3pm.mp3'), (E'a\u00a0.mp3'), (E'a.mp3\u00a0'), (E'a.mp3\u3000'), (E'shell.php\n.mp3'), (E'a\t.mp3'), (E'a\u0085.mp3'),
	('shell.php:a.mp3'), ('folder\shell.mp3'), ('shell.php::$DATA'), ('web.config'), ('a.mp3~'), ('a.phtml'), ('a.svg'), ('a.html')) v(name);
\pset format aligned
-- any extension may be cleaned, but an upload becomes nothing else by it
RESET ROLE;
SET audio_cleanup.audio_extensions = '*';
SET ROLE regress_restorer;
SELECT name, t.restore_as('a.mp3', name) FROM (VALUES ('b.mp3'), ('b.wav'), ('b.php'), ('b')) v(name);
RESET ROLE;
RESET audio_cleanup.audio_extensions;

-- what has failed has changed nothing, and the own name needs no permission
SET ROLE regress_restorer;
SELECT cleanup_restore('a.mp3', 'folder/A (2).mp3') #> '{result,files_restored}' AS restored;
SELECT cleanup_restore('folder/b.MP3') #> '{result,files_restored}' AS restored;
RESET ROLE;
SELECT t.wait_for_restore();
SELECT t.names();
SELECT file, state, restore_as FROM cleanup_files ORDER BY file;

-- a file whose extension is cleaned no more keeps it
SET audio_cleanup.audio_extensions = 'php, mp3';
SELECT t.file('old.php');
SELECT cleanup_all() #> '{result,orphaned_files_deleted}' AS deleted;
SELECT t.wait_for_worker();
RESET audio_cleanup.audio_extensions;
SELECT name, t.restore_as('old.php', name) FROM (VALUES ('older.php'), ('old.php'), ('old.mp3'), ('old.php5')) v(name);

-- what leads out of the directory is no folder of it, and a file is none
SELECT t.file('z.mp3');
SELECT cleanup_all() #> '{result,orphaned_files_deleted}' AS deleted;
SELECT t.wait_for_worker();
SELECT t.sh('mkdir ../elsewhere && ln -s ../elsewhere link && ln -s nowhere broken && echo x > taken.mp3');
\pset format unaligned
SELECT cleanup_restore('z.mp3', 'link/z.mp3') #>> '{result,errors,0}' AS error;
SELECT cleanup_restore('z.mp3', 'link/new/z.mp3') #>> '{result,errors,0}' AS error;
SELECT cleanup_restore('z.mp3', 'broken/z.mp3') #>> '{result,errors,0}' AS error;
SELECT cleanup_restore('z.mp3', 'taken.mp3/z.mp3') #>> '{result,errors,0}' AS error;
\pset format aligned
SELECT file, state FROM cleanup_files WHERE file = 'z.mp3';
SELECT cleanup_restore('z.mp3', 'folder/z.mp3') #> '{result,files_restored}' AS restored;
SELECT t.wait_for_restore();
SELECT t.sh('rmdir ../elsewhere && rm link broken taken.mp3');
SELECT t.names();

DROP OWNED BY regress_restorer;
DROP ROLE regress_restorer;
