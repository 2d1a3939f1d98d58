--
-- An id is anybody's text: whatever it looks like, it does not say which row is meant
--
\i test/fixture.sql
SET audio_cleanup.max_delete_percent = 100;
CREATE TABLE t.victim (id int PRIMARY KEY, url text);
INSERT INTO t.victim VALUES (1, 'victim.mp3');
CREATE VIEW t.glass AS SELECT 1 AS one;
CREATE INDEX victim_url ON t.victim (url);
CREATE TABLE t.jobs (id text PRIMARY KEY, url text, status text, updated_at timestamptz);

-- the place of a row stands behind its id as OID, block and number, with a control character before each place
CREATE VIEW t.ids AS SELECT row_number() OVER ()::int AS n, id FROM (
	SELECT unnest(ARRAY['plain', chr(1), 'x' || chr(1) || '1/2', 'x' || chr(1) || '12', 'x' || chr(1) || '99999999999999999999', chr(1) || '0/0/0',
		'x' || chr(1) || '4294967295/0/1', chr(1) || '1/1' || chr(1) || '/' || chr(1) || '3'])
	UNION ALL SELECT p.prefix || chr(1) || r::oid || '/0/1' || p.suffix
	FROM unnest('{t.victim,t.glass,t.victim_url,t.jobs,pg_catalog.pg_authid,cleanup_runs}'::regclass[]) r,
		(VALUES ('', ''), ('x', ''), ('x', chr(1) || '0'), ('x', chr(1) || '1'), ('1/2', '/')) p(prefix, suffix)) i(id);
INSERT INTO t.jobs SELECT id, 'job' || n || '.mp3', 'failed', now() - interval '30 days' FROM t.ids;
SELECT count(t.file('job' || n || '.mp3'::text)) AS files FROM t.ids;
SELECT t.file('victim.mp3');
SELECT cleanup_add_source('t.victim', '{url}');
SELECT cleanup_add_source('t.jobs', '{url}', 'id', 'status', '{failed}', 'updated_at', on_failed => 'clear');

SELECT count(*) AS ids FROM t.ids;
CREATE FUNCTION t.same_ids(answer jsonb) RETURNS bool LANGUAGE sql AS $$
	SELECT array_agg(id ORDER BY id COLLATE "C") = (SELECT array_agg(id ORDER BY id COLLATE "C") FROM t.ids)
	FROM jsonb_array_elements_text(answer #> '{result,failed_sessions_cleaned}') id
$$;
SELECT t.same_ids(cleanup_failed_sessions(true)) AS preview;
SET audio_cleanup.backup_retention_days = 7;
SELECT t.same_ids(cleanup_failed_sessions()) AS cleaned;
SELECT t.wait_for_worker();
TABLE t.victim;
SELECT count(*) AS rows, count(url) AS not_cleared FROM t.jobs;
SELECT array_agg(session_id ORDER BY session_id COLLATE "C") = (SELECT array_agg(id ORDER BY id COLLATE "C") FROM t.ids) AS recorded FROM cleanup_files;
SELECT t.names();

-- and back
SELECT cleanup_restore(max(run_id)) #>> '{result,sessions_count}' AS restored FROM cleanup_runs;
SELECT t.wait_for_restore();
SELECT count(*) AS rows, count(*) FILTER (WHERE url = 'job' || n || '.mp3') AS as_before FROM t.jobs JOIN t.ids USING (id);
TABLE t.victim;
