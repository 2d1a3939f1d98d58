--
-- The dashboard: states, figures, escaping, bounds, roles.  How it looks in a
-- browser is in t/065_dashboard.pl.
--
\i test/fixture.sql

-- an element, found by its id; and its text, without times
CREATE FUNCTION t.element(id text, element text, page text DEFAULT cleanup_dashboard()) RETURNS text LANGUAGE sql AS $$
	SELECT split_part(split_part(page, ' id="' || id || '"', 2), '</' || element || '>', 1)
$$;
CREATE FUNCTION t.part(id text, element text DEFAULT 'section', page text DEFAULT cleanup_dashboard()) RETURNS text LANGUAGE sql AS $$
	SELECT t.hide_paths(trim(regexp_replace(regexp_replace(regexp_replace('<' || t.element(id, element, page), '<[^>]*>', ' ', 'g'),
			'\m\d+ (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)( \d{4})?(, \d\d:\d\d)?', '(date)', 'g'),
			'\m[\d.]+ (ms|min|s|h)\M( \d+ (min|s))?|\s+', ' ', 'g')))
$$;
CREATE FUNCTION t.state(page text DEFAULT cleanup_dashboard()) RETURNS text LANGUAGE sql AS $$
	SELECT substring(page FROM '<title>(.*?):') || ' [' || substring(page FROM 'class="state (\w+)"') || '] ' ||
		replace(t.part('state', 'div', page), 'The built-in schedule does not run here: audio_cleanup is not in shared_preload_libraries.', '(by hand)')
$$;
CREATE FUNCTION t.figure(id text, page text DEFAULT cleanup_dashboard()) RETURNS text LANGUAGE sql AS $$
	SELECT substring(t.element(id, 'div', page) FROM '<data value="(\d+)"')
$$;

-- nothing is registered: how to begin
SELECT t.part('state', 'div');
SELECT t.state();
SELECT t.part('begin');
SELECT t.part('schedule');
SELECT t.part('would_free', 'div');

-- registered, and never run
SELECT cleanup_add_source('sessions');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3');
SELECT t.session(2, 'failed', 8, 'failed.mp3'), t.file('failed.mp3', 49, 1000), t.file('orphan.mp3', 50, 2500);
SELECT t.state();
SELECT t.part('begin');
SELECT t.part('would_free', 'div'), t.figure('would_free');
SELECT t.part('look');
SET audio_cleanup.report_limit = 0;
SELECT t.part('look');
RESET audio_cleanup.report_limit;

-- names and errors are text, whatever they are
SELECT t.file('<img src=x onerror=alert(1)>.mp3'), t.file('"quotes" & ''more''.mp3'), t.file(E'line\nbreak\ttab\x1b[31m.mp3'),
	t.file(U&'right\202Eto left, \00e9\4e2d.mp3'), t.file('{{database}}.mp3');
SELECT t.part('names', 'ul');
SELECT page ~ '<img' AS img, page ~ '[^\t\n -~]' AS beyond_ascii, page ~* '<script|javascript:| on\w+="' AS script,
	page ~ 'https?://|src=|href=|url\(' AS address
FROM (SELECT replace(cleanup_dashboard(), '&#60;img src=x onerror=alert(1)&#62;', '') AS page) p;

-- after a run: the figures are those of the tables
SELECT cleanup_all() -> 'success' AS success;
SELECT t.wait_for_worker();
SELECT t.state();
SELECT t.part('slowest');
SELECT t.figure('freed', page)::bigint = freed AS freed, t.figure('freed_recently', page)::bigint = freed AS freed_recently,
	freed, t.figure('would_free', page) AS would_free, t.part('freed', 'div', page) AS in_words
FROM (SELECT cleanup_dashboard() AS page) p, (SELECT sum(freed) AS freed FROM cleanup_files) f;
SELECT t.part('space') AS space, t.part('nights') AS nights;
SELECT t.part('unlucky') AS unlucky, t.part('errors') AS errors, t.part('backups') AS backups, t.part('oldest') AS oldest;

-- what failed, waits, and is kept
UPDATE cleanup_files SET state = 'failed', freed = NULL, error = E'could not remove </td><script>alert(2)</script>:\nRead-only file system' WHERE file = 'orphan.mp3';
UPDATE cleanup_files SET state = 'pending', freed = NULL, finished_at = NULL WHERE file ~ 'img';
UPDATE cleanup_files SET state = 'trashed', freed = NULL, finished_at = NULL, due_at = now() + interval '30 days' WHERE file ~ 'quotes|failed';
UPDATE cleanup_runs SET status = 'failed', message = '<b>bold</b>', errors = 1;
SELECT t.state();
SELECT t.part('unlucky') AS unlucky;
SELECT t.part('errors') AS errors;
SELECT t.part('backups') AS backups, t.figure('kept')::bigint = (SELECT sum(size) FROM cleanup_files WHERE state = 'trashed') AS kept;
SELECT t.part('oldest') AS oldest, t.part('waiting', 'div') AS waiting;
SELECT cleanup_dashboard() ~ '<(script|b)>' AS markup;

-- the other states
UPDATE cleanup_runs SET status = 'interrupted', message = 'stopped after 30 minutes', errors = 0;
SELECT t.state();
UPDATE cleanup_runs SET status = 'done', message = NULL;
SELECT t.state();
UPDATE cleanup_files SET condemned_at = now() - interval '2 hours' WHERE state = 'pending';
SELECT t.state();
UPDATE cleanup_files SET state = 'skipped', finished_at = now() WHERE state = 'pending';
BEGIN;
DELETE FROM sessions;
SELECT t.file('orphan.mp3');
SELECT t.state();
ROLLBACK;
BEGIN;
SET LOCAL audio_cleanup.upload_dir = '/nowhere/to/be <i>found</i>';
SELECT t.state();
SELECT t.part('would_free', 'div'), t.figure('freed')::bigint = (SELECT sum(freed) FROM cleanup_files) AS freed;
ROLLBACK;

-- what breaks the look stands in the page, and breaks nothing else
CREATE FUNCTION t.broken(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'no luck' USING ERRCODE = 'object_not_in_prerequisite_state'; END $$;
CREATE VIEW t."no <u>luck</u>" AS SELECT id, t.broken(audio_url) AS file FROM sessions;
BEGIN;
SELECT cleanup_add_source('t."no <u>luck</u>"', '{file}');
SELECT t.state();
SELECT count(*) FROM sessions;
ROLLBACK;

-- in transactions in which nothing can be cleaned
BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT t.state();
COMMIT;

-- bounded, and says so
INSERT INTO cleanup_files (run_id, file, reason, state, size, modified_at, due_at, finished_at, error, inode, mtime_ns, ctime_ns, btime_ns)
SELECT 1, 'file ' || lpad(n::text, 6, '0'), 'orphan', s, 1, now(), now() + interval '1 day', CASE s WHEN 'failed' THEN now() END, CASE s WHEN 'failed' THEN repeat('error ', 1000) END, n, n, n, n
FROM generate_series(1, 2000) n, unnest('{failed,pending,trashed}'::text[]) s;
INSERT INTO cleanup_runs (what, status, requested_by, finished_at, upload_dir, settings)
SELECT 'all', 'blocked', 'x', clock_timestamp(), '/', '{}' FROM generate_series(1, 30);
SELECT length(page) < 60000 AS bounded, id, (SELECT count(*) FROM regexp_matches(t.element(id, 'section', page), '<tr>', 'g')) - 1 AS rows,
	substring(t.part(id, 'section', page) FROM 'and .* more.*') AS more
FROM (SELECT cleanup_dashboard() AS page) p, unnest('{unlucky,slowest,errors,backups,oldest}'::text[]) id;
DELETE FROM cleanup_files WHERE file ~ '^file ';
DELETE FROM cleanup_runs WHERE requested_by = 'x';

-- a viewer may; objects that stand in for those of pg_catalog are not looked at
CREATE ROLE regress_dashboard;
SELECT cleanup_grant_access('regress_dashboard');
GRANT USAGE ON SCHEMA t TO regress_dashboard;
CREATE FUNCTION t.to_char(timestamptz, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
CREATE FUNCTION t.left(text, int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
CREATE FUNCTION t.current_setting(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
SELECT t.element('freed', 'div') AS owner_sees \gset
SET ROLE regress_dashboard;
SET search_path = t, pg_catalog, public;
SELECT t.element('freed', 'div', public.cleanup_dashboard()) = :'owner_sees' AS the_same;
RESET search_path;
RESET ROLE;
SELECT cleanup_revoke_access('regress_dashboard');
SET ROLE regress_dashboard;
SELECT t.try('SELECT cleanup_dashboard()');
RESET ROLE;
DROP OWNED BY regress_dashboard;
DROP ROLE regress_dashboard;
DROP FUNCTION t.to_char(timestamptz, text), t.left(text, int), t.current_setting(text);

-- it leaves the settings of the session alone
SET jit = on;
SELECT cleanup_dashboard() IS NOT NULL AS shown;
SHOW jit;
SHOW search_path;
