--
-- When does a row refer to a file?
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');

CREATE TABLE t.cases (n serial, reference text, file text, note text);

-- one row, one old file: does the row protect it?
CREATE FUNCTION t.protects(reference text, file text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	result jsonb;
BEGIN
	DELETE FROM sessions;
	PERFORM t.reset(), t.session(1, 'processed', 1, reference), t.file(file);
	result := cleanup_orphaned_files(dry_run => true, force => true);
	IF NOT (result -> 'success')::boolean THEN
		RAISE EXCEPTION '%', result;
	END IF;
	RETURN result #> '{result,orphaned_files_count}' = '0';
END $$;

--
-- References that protect a file
--
INSERT INTO t.cases (reference, file, note) VALUES
	('abc.mp3', 'abc.mp3', 'bare name'),
	('abc.mp3', '2024/05/abc.mp3', 'bare name, in a subdirectory'),
	('2024/05/abc.mp3', '2024/05/abc.mp3', 'relative path'),
	('05/abc.mp3', '2024/05/abc.mp3', 'relative path from further down'),
	('uploads/audio/abc.mp3', 'abc.mp3', 'relative path from further up'),
	('./uploads/audio/abc.mp3', 'abc.mp3', '"./"'),
	('/srv/app/uploads/audio/abc.mp3', 'abc.mp3', 'absolute path'),
	('/srv/app/uploads/audio/2024/05/abc.mp3', '2024/05/abc.mp3', 'absolute path'),
	('/abc.mp3', 'abc.mp3', 'leading slash'),
	('//abc.mp3', 'abc.mp3', 'two of them'),
	('file:///srv/uploads/abc.mp3', 'abc.mp3', 'file:// URL'),
	('file:/srv/uploads/abc.mp3', 'abc.mp3', 'file: URL'),
	('https://cdn.example.org/abc.mp3', 'abc.mp3', 'URL'),
	('https://cdn.example.org/x/abc.mp3?sig=a%2Fb&exp=1#t=10', 'abc.mp3', 'signed URL with a fragment'),
	('https://cdn.example.org/abc.mp3#t=10', 'abc.mp3', 'URL with a fragment'),
	('https://cdn.example.org:8443/2024/abc.mp3', '2024/abc.mp3', 'URL with a port'),
	('HTTPS://user:pw@host/2024/abc.mp3', '2024/abc.mp3', 'URL with a user'),
	('//cdn.example.org/2024/abc.mp3', '2024/abc.mp3', 'URL without a scheme'),
	('s3://bucket/2024/05/abc.mp3', '2024/05/abc.mp3', 's3://'),
	('gs://bucket/abc.mp3', 'abc.mp3', 'gs://'),
	('my%20talk.mp3', 'my talk.mp3', 'percent-encoded space'),
	('2024%2F05%2Fabc.mp3', '2024/05/abc.mp3', 'percent-encoded slashes'),
	('https://h/caf%C3%A9.mp3', 'café.mp3', 'percent-encoded UTF-8'),
	('100%.mp3', '100%.mp3', 'a percent sign that encodes nothing'),
	('my%20talk.mp3', 'my%20talk.mp3', 'a name that looks encoded'),
	('what?.mp3', 'what?.mp3', 'a question mark in the name'),
	('take #2.mp3', 'take #2.mp3', 'a number sign in the name'),
	('2024//05/./abc.mp3', '2024/05/abc.mp3', 'doubled slash, "./"'),
	('2024/06/../05/abc.mp3', '2024/05/abc.mp3', '".." inside'),
	('../audio/abc.mp3', 'abc.mp3', '".." in front'),
	('C:\uploads\2024\abc.mp3', '2024/abc.mp3', 'backslashes'),
	('2024\abc.mp3', '2024/abc.mp3', 'backslash'),
	('ABC.MP3', 'abc.mp3', 'upper case'),
	('abc.mp3', '2024/Abc.Mp3', 'upper case on disk'),
	('ÉTÉ.mp3', 'été.mp3', 'upper case beyond ASCII'),
	(U&'caf\00E9.mp3', U&'cafe\0301.mp3', 'NFC refers to NFD'),
	(U&'cafe\0301.mp3', U&'caf\00E9.mp3', 'NFD refers to NFC'),
	('abc.mp3  ', 'abc.mp3', 'trailing spaces'),
	(E' \tabc.mp3\r\n', 'abc.mp3', 'white space around it'),
	(' abc.mp3', ' abc.mp3', 'a name that begins with a space'),
	('5f0c7a52-71d4-4b3f-9d6c-0e3b0b7a4a11', '5f0c7a52-71d4-4b3f-9d6c-0e3b0b7a4a11.mp3', 'named by id'),
	('5F0C7A52-71D4-4B3F-9D6C-0E3B0B7A4A11', '2024/5f0c7a52-71d4-4b3f-9d6c-0e3b0b7a4a11.webm', 'named by id, in a subdirectory'),
	('2024/abc', '2024/abc.mp3', 'path without extension'),
	('dr. who', 'dr. who.mp3', 'a dot, but no audio extension'),
	('abc.mp3', 'abc_processed.mp3', 'derived file'),
	('abc.wav', 'abc_processed.mp3', 'derived file of another kind'),
	('abc', '2024/abc_processed.mp3', 'derived, by id'),
	('2024/abc.wav', '2024/abc_processed.mp3', 'derived, by path'),
	('ABC.WAV', 'abc_PROCESSED.mp3', 'derived, upper case'),
	('abc_processed.mp3', 'abc_processed.mp3', 'derived file, by its own name'),
	('2024/05/17/audio.mp3', '2024/05/17/audio.mp3', 'the same name in every directory'),
	('audio.mp3', '2024/05/17/audio.mp3', 'the same, without directory: all of them');
SELECT note, reference, file, t.protects(reference, file) FROM t.cases ORDER BY n;

--
-- References that do not
--
TRUNCATE t.cases;
INSERT INTO t.cases (reference, file, note) VALUES
	('abc.wav', 'abc.mp3', 'another extension'),
	('abc.mp3', 'xabc.mp3', 'the end of a name'),
	('abc.mp3', 'abc.mp3.mp3', 'the beginning of a name'),
	('bc', 'abc.mp3', 'the end of an id'),
	('ab', 'abc.mp3', 'the beginning of an id'),
	('2023/abc.mp3', '2024/abc.mp3', 'another directory'),
	('/srv/uploads/audio/2023/abc.mp3', '2024/abc.mp3', 'another directory, absolute'),
	('2024/05/18/audio.mp3', '2024/05/17/audio.mp3', 'the same name in another directory'),
	('2023/abc', '2024/abc.mp3', 'another directory, no extension'),
	('2023/abc.wav', '2024/abc_processed.mp3', 'derived, in another directory'),
	('4/abc.mp3', '2024/abc.mp3', 'the end of a directory name'),
	('abc_processed.mp3', 'abc.mp3', 'the derived file does not stand for its original'),
	('abc.mp3', 'abc_other.mp3', 'no derived suffix'),
	('abc_processed.mp3', 'abc_processed_processed.wav.mp3', 'twice derived of something else'),
	('', 'abc.mp3', 'nothing'),
	('   ', 'abc.mp3', 'spaces'),
	('/', 'abc.mp3', 'a slash'),
	('..', 'abc.mp3', 'a directory'),
	('2024/', '2024/abc.mp3', 'the directory it is in'),
	('2024', '2024/abc.mp3', 'the same'),
	('.mp3', 'abc.mp3', 'an extension'),
	('%', 'abc.mp3', 'a pattern'),
	('*.mp3', 'abc.mp3', 'a pattern'),
	('_bc.mp3', 'abc.mp3', 'a pattern'),
	(NULL, 'abc.mp3', 'NULL'),
	(repeat('x', 100000) || '/abd.mp3', 'abc.mp3', 'a very long one');
SELECT note, left(reference, 40) AS reference, file, t.protects(reference, file) FROM t.cases ORDER BY n;
SELECT t.protects(repeat('x/', 50000) || 'abc.mp3', 'abc.mp3') AS a_very_long_path;
SELECT t.protects('https://h/abc.mp3?token=' || repeat('x', 100000), 'abc.mp3') AS a_very_long_query;

--
-- Names are found in a value, whatever is around them and whatever is in them
--
TRUNCATE t.cases;
INSERT INTO t.cases (reference, file, note) VALUES
	('["Smith, Joseph.mp3"]', 'Smith, Joseph.mp3', 'a comma in JSON'),
	('[x](/u/abc.mp3)', 'abc.mp3', 'Markdown'),
	(E'a.mp3\nabc.mp3', 'abc.mp3', 'lines'),
	('a.mp3%0Aabc.mp3%0Ab.mp3', 'abc.mp3', 'lines, encoded'),
	(E'1\tabc.mp3\t2', 'abc.mp3', 'tabs'),
	(E'files:\n  - my abc.mp3\n', 'my abc.mp3', 'YAML'),
	('a:1:{i:0;s:9:"it"s.mp3";}', 'it"s.mp3', 'PHP'),
	('<audio src=/u/abc.mp3 controls>', 'abc.mp3', 'HTML without quotes'),
	('<a href="/u/R&amp;B.mp3">', 'R&B.mp3', 'HTML with an entity'),
	('{"f": "caf\u00e9.mp3"}', 'café.mp3', 'JSON in ASCII'),
	('{"p": "{\"f\": \"caf\\u00e9 \\\"1\\\".mp3\"}"}', 'café "1".mp3', 'JSON in JSON'),
	('Bitte „Probe [2] #1; neu.mp3“ löschen!', 'Probe [2] #1; neu.mp3', 'a sentence'),
	('これはabc.mp3です', 'abc.mp3', 'a sentence without blanks'),
	(U&'\FEFFabc.mp3\00A0', 'abc.mp3', 'a BOM and a no-break space'),
	('mv ''it''\''''s.mp3'' x', 'it''s.mp3', 'the shell'),
	('{"x","a\"b,c.mp3"}', 'a"b,c.mp3', 'an array'),
	('see abc.', 'abc.mp3', 'an id in a sentence'),
	('{"file": "2024/05/abc.mp3"}', '2024/05/abc.mp3', 'a path'),
	('{"file": "abc.mp3"}', '2024/05/abc.mp3', 'a bare name'),
	(repeat('lorem ipsum ', 90000) || '"a, b.mp3"' || repeat(' dolor', 90000), 'a, b.mp3', 'in the middle of a megabyte');
-- psql 16 and later know that the BOM is as wide as nothing
SELECT note, replace(left(reference, 50), U&'\FEFF', '<BOM>') AS reference, file, t.protects(reference, file) FROM t.cases ORDER BY n;

TRUNCATE t.cases;
INSERT INTO t.cases (reference, file, note) VALUES
	('["Smith, Joseph.mp3"]', 'Smith; Joseph.mp3', 'another letter'),
	('["xabc.mp3", "abc.mp3x", "abc.mp33", "abc2.mp3"]', 'abc.mp3', 'longer names'),
	('["my-abc.mp3", "my_abc.mp3", "abc-2.mp3", "abc_2.mp3"]', 'abc.mp3', 'longer names'),
	('["abc.mp3.bak", "abc.wav", "abc.mp", "abc.json"]', 'abc.mp3', 'other extensions'),
	('["2023/abc.mp3"]', '2024/abc.mp3', 'another folder'),
	('{"u":"https:\/\/h\/2023\/abc.mp3"}', '2024/abc.mp3', 'another folder in JSON'),
	('[x](/u/2023/abc.mp3)', '2024/abc.mp3', 'another folder in Markdown'),
	('["abc/take.mp3"]', 'abc.mp3', 'the name of a folder'),
	('この録音.mp3です', '録音.mp3', 'a longer name of the same letters'),
	(repeat('lorem ipsum ', 90000) || 'a-b.mp3' || repeat(' dolor', 90000), 'b.mp3', 'in the middle of a megabyte');
SELECT note, left(reference, 50) AS reference, file, t.protects(reference, file) FROM t.cases ORDER BY n;

-- a list of any length
DELETE FROM sessions;
SELECT t.reset();
SELECT t.sh('for i in $(seq 1000 2099); do : > "take, $i.mp3"; done; : > "take, 3000.mp3"; touch -d "2 days ago" *.mp3');
INSERT INTO sessions (id, session_date, audio_url) SELECT t.id(1), now(), json_agg('take, ' || n || '.mp3') FROM generate_series(1000, 2099) n;
SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_deleted}' AS orphans;

-- what is merely found protects, and condemns nothing without its age
DELETE FROM sessions;
SELECT t.reset();
SELECT t.session(1, 'failed', 10, '["abc.mp3"]'), t.file('abc.mp3', 1);
SELECT cleanup_all(true) #> '{result,failed_sessions_count}' AS failed, cleanup_all(true) #> '{result,orphaned_files_count}' AS orphans;

--
-- Two files that differ in case only are both kept
--
DELETE FROM sessions;
SELECT t.reset();
SELECT t.file('abc.mp3'), t.file('ABC.mp3'), t.file(U&'caf\00E9.mp3'), t.file(U&'cafe\0301.mp3'), t.file('other.mp3');
SELECT t.session(1, 'processed', 1, 'Abc.mp3', 'CAFÉ.mp3');
SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_deleted}' AS orphans;

--
-- The application's own habit: the client's file name in one column, the file
-- on disk named by the session's id in the other, a derived file beside it
--
DELETE FROM sessions;
SELECT t.reset();
SELECT t.session(1, 'processed', 1, '/app/uploads/audio/' || t.id(1) || '.webm', 'my interview.m4a');
SELECT t.file(t.id(1) || '.webm'), t.file(t.id(1) || '_processed.mp3'), t.file(t.id(2) || '.webm'), t.file(t.id(2) || '_processed.mp3');
SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_deleted}' AS orphans;

--
-- Other suffixes of derived files
--
SELECT t.reset();
SELECT t.file(t.id(1) || '.webm'), t.file(t.id(1) || '_processed.mp3'), t.file(t.id(1) || '-clean.mp3'), t.file(t.id(1) || '.norm.wav');
SET audio_cleanup.derived_suffixes = '-clean, .norm';
SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_deleted}' AS orphans;
SET audio_cleanup.derived_suffixes = '';
SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_deleted}' AS orphans;
RESET audio_cleanup.derived_suffixes;

--
-- Prefixes of derived files, and folders that belong to an id or a manifest
--
SET audio_cleanup.audio_extensions = 'mp3, ts, m3u8, json';
SELECT t.reset();
SELECT t.file(f) FROM unnest(ARRAY['abc.mp3', 'thumb_abc.mp3', 'preview_abc.mp3', 'abc/seg1.ts', 'abc/wave/1.json', 'abc_hls/seg1.ts',
	'live/7/index.m3u8', 'live/7/seg1.ts', 'live/8/index.m3u8', 'live/8/seg1.ts', 'thumb_other.mp3', 'other/seg1.ts']) f;
DELETE FROM sessions;
SELECT t.session(1, 'processed', 1, 'abc.mp3', 'https://h/live/7/index.m3u8?x=1');
SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_deleted}' AS orphans;
SET audio_cleanup.derived_prefixes = 'thumb_, preview_';
SET audio_cleanup.derived_folders = 'index.m3u8, _hls';
SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_deleted}' AS orphans;
-- they die with it, too
DELETE FROM sessions;
SELECT t.session(1, 'failed', 10, 'abc.mp3'), t.session(2, 'processed', 1, 'live/7/index.m3u8');
SELECT t.sh('find . -path ./.audio_cleanup -prune -o -type f -exec touch -d "1 hour ago" {} +');
SELECT t.file('live/8/seg1.ts');
SELECT cleanup_all() #> '{result,failed_sessions_count}' AS failed;
SELECT t.wait_for_worker();
SELECT t.names();
RESET audio_cleanup.audio_extensions;
RESET audio_cleanup.derived_prefixes;
RESET audio_cleanup.derived_folders;

--
-- Many files and rows at once, with work_mem at its smallest: each its own
--
DELETE FROM sessions;
SELECT t.reset();
SELECT t.sh('for d in a b c d e; do mkdir $d; for i in $(seq 1 200); do : > $d/$i.mp3; done; done; touch -d "2 days ago" */*.mp3');
INSERT INTO sessions (id, session_date, audio_url)
SELECT t.id(n), now(), format('https://host/%s/%s.mp3?sig=%s', substr('abcde', n % 5 + 1, 1), n, md5(n::text))
FROM generate_series(1, 20000) n;
SET work_mem = '64kB';
SELECT cleanup_orphaned_files(true, true) #> '{result,orphaned_files_count}' AS orphans;
RESET work_mem;
SELECT cleanup_orphaned_files(true, true) #> '{result,orphaned_files_count}' AS orphans;
