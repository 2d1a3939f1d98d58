--
-- Files that are hard to name, and things that are no files
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3');
SET audio_cleanup.max_delete_percent = 100;

-- any valid name goes like any other, and is told as it is
SELECT t.file(E'line\nbreak.mp3'), t.file('it''s "quoted".mp3'), t.file('back\slash.mp3'), t.file('-rf.mp3'), t.file('--help.mp3'),
	t.file('$(touch pwned).mp3'), t.file('a;b&c|d.mp3'), t.file('two  spaces .mp3'), t.file('%s%n.mp3'), t.file('日本語.mp3'),
	t.file(E'tab\there.mp3'), t.file(repeat('n', 251) || '.mp3'), t.file('deep/er/and/deep/er/still/there.mp3');
SELECT name FROM jsonb_array_elements_text(cleanup_orphaned_files(true) #> '{result,orphaned_files_deleted}')
	WITH ORDINALITY o(name, n) ORDER BY n;
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_count}' AS deleted;
SELECT * FROM t.tree();
SELECT t.wait_for_worker();
SELECT file, state FROM cleanup_files ORDER BY file;

-- a file that a row names so is kept
SELECT t.reset();
INSERT INTO sessions (id, session_date, audio_url) SELECT t.id(10 + n::int), now(), name FROM unnest(ARRAY[
	E'line\nbreak.mp3', 'it''s "quoted".mp3', 'back\slash.mp3', '-rf.mp3', '日本語.mp3', repeat('n', 251) || '.mp3']) WITH ORDINALITY u(name, n);
SELECT t.file(audio_url) FROM sessions ORDER BY id;
SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_deleted}' AS orphans;
DELETE FROM sessions WHERE id <> t.id(1);

-- names that are not valid in the encoding are reported and never deleted
SELECT t.reset();
SELECT t.file('wanted.mp3'), t.file('orphan.mp3');
SELECT t.sh($$for f in "$(printf 'latin1-\351.mp3')" "$(printf 'cut-\303.mp3')" "$(printf 'back\\slash-\377.mp3')" "$(printf 'no-audio-\377.txt')"; do echo x > "$f"; touch -d '2 days ago' "$f"; done$$);
SELECT success, result -> 'orphaned_files_deleted' AS orphans, result -> 'error_count' AS error_count
FROM jsonb_to_record(cleanup_orphaned_files(true)) r(success boolean, result jsonb);
SELECT error FROM jsonb_array_elements_text(cleanup_status() #> '{potential_cleanup,errors}') error ORDER BY error COLLATE "C";
-- (they are orphans' business, if they are any)
SELECT cleanup_failed_sessions(true) #> '{result,error_count}' AS error_count;
SELECT success, result -> 'orphaned_files_deleted' AS orphans, result -> 'error_count' AS error_count
FROM jsonb_to_record(cleanup_orphaned_files()) r(success boolean, result jsonb);
SELECT * FROM t.tree();

-- what is no regular file stays, and nothing behind it is touched
SELECT t.reset();
SELECT t.file('wanted.mp3'), t.file('directory.mp3/inside.mp3'), t.file('plain.mp3');
SELECT t.sh('mkdir ../outside && echo outside > ../outside/target.mp3 && touch -d "2 days ago" ../outside/target.mp3');
SELECT t.sh('mkfifo pipe.mp3 && ln -s plain.mp3 link.mp3 && ln -s nowhere.mp3 dangling.mp3 && ln -s ../outside/target.mp3 out.mp3'
			' && ln -s ../outside linked_directory && touch -h -d "2 days ago" *.mp3');
SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_deleted}' AS orphans;
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_deleted}' AS deleted;
SELECT * FROM t.tree();
SELECT * FROM t.lines('cat ../outside/target.mp3');
SELECT t.wait_for_worker();
SELECT * FROM t.tree();
SELECT t.sh('rm -r ../outside');

-- hidden files and directories are somebody's own
SELECT t.reset();
SELECT t.file('wanted.mp3'), t.file('.hidden.mp3'), t.file('.hidden/file.mp3'), t.file('open/.hidden.mp3'), t.file('open/file.mp3');
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_deleted}' AS deleted;
SELECT * FROM t.tree();

-- so are the folders of a NAS, a synchroniser or an operating system
SELECT t.reset();
SELECT t.file('wanted.mp3'), t.file('open/file.mp3');
SELECT t.file(f || '/x.mp3') FROM unnest(ARRAY['#recycle', '@eaDir', 'open/@EADIR', '$RECYCLE.BIN', 'System Volume Information', '.stversions',
	'.Trash-1000', '.snapshot', 'lost+found']) f;
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_deleted}' AS deleted;
SELECT t.names();

-- a hard link frees nothing while another one stands
SELECT t.reset();
SELECT t.file('wanted.mp3'), t.file('linked.mp3', 48, 2097152), t.file('single.mp3', 48, 1048576);
SELECT t.sh('ln linked.mp3 keep.dat');
SELECT cleanup_orphaned_files(true) #> '{result,total_space_freed_mb}' AS mb;
CALL cleanup_run() \gset
SELECT :'result'::jsonb #> '{result,orphaned_files_deleted}' AS deleted, :'result'::jsonb #> '{result,total_space_freed_mb}' AS mb;
SELECT * FROM t.tree();
SELECT file, size, freed FROM cleanup_files WHERE run_id = (:'result'::jsonb ->> 'run_id')::bigint ORDER BY file;

-- two names of one file, both orphans: counted once, when the last is gone
SELECT t.reset();
SELECT t.file('wanted.mp3'), t.file('one.mp3', 48, 1048576);
SELECT t.sh('ln one.mp3 two.mp3');
CALL cleanup_run() \gset
SELECT :'result'::jsonb #> '{result,orphaned_files_deleted}' AS deleted, :'result'::jsonb #> '{result,total_space_freed_mb}' AS mb;
SELECT t.names();
