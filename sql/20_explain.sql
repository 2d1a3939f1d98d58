--
-- cleanup_explain(): kept or condemned, and why
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SELECT t.file('wanted.mp3'), t.file('orphan.mp3'), t.file('young.mp3', 1), t.file('failed.mp3'), t.file('shared.mp3'), t.file('notes.txt'),
	t.file('nested/wanted_processed.mp3');
SELECT t.session(1, 'processed', 1, '/srv/uploads/audio/wanted.mp3', 'Wanted.MP3'), t.session(2, 'failed', 8, 'failed.mp3'),
	t.session(3, 'failed', 8, 'shared.mp3'), t.session(4, 'pending', 8, 'shared.mp3');

-- what changes from day to day aside
CREATE FUNCTION t.explain(file text) RETURNS text LANGUAGE sql AS $$
	SELECT jsonb_pretty(e - 'dated' - 'age_hours') FROM cleanup_explain(file) e
$$;
SELECT t.explain('wanted.mp3');
SELECT t.explain('orphan.mp3');
SELECT t.explain('failed.mp3');
SELECT t.explain('shared.mp3');
SELECT file, e ->> 'verdict' AS verdict, e ->> 'reason' AS reason, e ->> 'reference_count' AS refs
FROM unnest('{young.mp3,notes.txt,nested/wanted_processed.mp3,nested/orphan.mp3,no_such.mp3,nested}'::text[]) WITH ORDINALITY f(file, n),
	cleanup_explain(file) e ORDER BY n;
SELECT (e ->> 'age_hours')::numeric BETWEEN 47.9 AND 48.1 AS age, (e ->> 'dated')::timestamptz BETWEEN now() - interval '49 hours' AND now() - interval '47 hours' AS dated
FROM cleanup_explain('orphan.mp3') e;

-- named by its whole path; doubled slashes
SELECT cleanup_explain(t.dir() || '/orphan.mp3') ->> 'verdict' AS verdict, cleanup_explain(t.dir() || '/orphan.mp3') ->> 'file' AS file;

-- a verdict is what a run does
SELECT file, e ->> 'verdict' AS verdict, file IN (SELECT jsonb_array_elements_text(cleanup_orphaned_files(true) #> '{result,orphaned_files_deleted}')) AS orphan
FROM unnest('{wanted.mp3,orphan.mp3,young.mp3,failed.mp3,shared.mp3,notes.txt,nested/wanted_processed.mp3}'::text[]) file, cleanup_explain(file) e
ORDER BY file COLLATE "C";

-- condemned, not yet committed
BEGIN;
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_deleted}' AS deleted;
SELECT cleanup_explain('orphan.mp3') ->> 'reason' AS reason;
ROLLBACK;

-- many rows: ten are shown, all are counted
SELECT t.session(n, 'processed', 1, 'wanted.mp3') FROM generate_series(11, 30) n;
SELECT jsonb_array_length(e -> 'references') AS shown, e -> 'reference_count' AS count FROM cleanup_explain('wanted.mp3') e;

-- what is no file of the directory
SELECT * FROM t.refused($$SELECT cleanup_explain('/etc/passwd')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_explain('../outside.mp3')$$) \gx
SELECT t.try($$SELECT cleanup_explain('nested/../../outside.mp3')$$);
SELECT t.try($$SELECT cleanup_explain(t.dir() || '_other/x.mp3')$$);
SELECT t.try($$SELECT cleanup_explain('')$$);
SELECT t.try($$SELECT cleanup_explain(NULL)$$);
SELECT t.try($$SELECT cleanup_explain(repeat('x', 5000))$$);
SELECT cleanup_explain('two..dots.mp3') ->> 'reason' AS reason;
SELECT t.sh('ln -s orphan.mp3 link.mp3');
SELECT cleanup_explain('link.mp3') ->> 'reason' AS reason;

-- trouble
SELECT cleanup_drop_source('sessions');
SELECT t.try($$SELECT cleanup_explain('orphan.mp3')$$);
