--
-- A source that breaks after it was registered: nothing is deleted, loudly
--
\i test/fixture.sql
SELECT t.file('wanted.mp3'), t.file('orphan.mp3');
SELECT t.session(1, 'processed', 1, 'uploads/audio/wanted.mp3');
CREATE ROLE regress_app;
GRANT USAGE, CREATE ON SCHEMA public TO regress_app;

-- how each trouble shows: to a preview, and to a run (forced, to no avail)
CREATE FUNCTION t.trouble(OUT success boolean, OUT blocked_by jsonb, OUT candidates jsonb, OUT run text, OUT names text)
LANGUAGE plpgsql AS $$
DECLARE
	preview jsonb := cleanup_status();
BEGIN
	success := preview -> 'success';
	blocked_by := preview -> 'blocked_by';
	candidates := preview #> '{potential_cleanup,orphaned_files_deleted}';
	run := regexp_replace(t.try('SELECT cleanup_all(force => true)'), 'OID \d+', 'OID ...');
	names := t.names();
END $$;

-- none at all
SELECT * FROM t.trouble();
SELECT * FROM t.refused('SELECT cleanup_orphaned_files()') \gx
SELECT * FROM t.refused('SELECT cleanup_failed_sessions()') \gx
SELECT * FROM t.refused('SELECT cleanup_all(force => true)') \gx
SELECT jsonb_array_elements_text(cleanup_status() #> '{potential_cleanup,errors}') AS error;

SELECT cleanup_add_source('sessions', '{audio_url,audio_filename}');

-- a column renamed or dropped
ALTER TABLE sessions RENAME audio_filename TO client_filename;
SELECT * FROM t.trouble();
SELECT * FROM t.refused('SELECT cleanup_all(force => true)') \gx
ALTER TABLE sessions RENAME client_filename TO audio_filename;
BEGIN;
ALTER TABLE sessions DROP audio_filename;
SELECT * FROM t.trouble();
ROLLBACK;
BEGIN;
ALTER TABLE sessions DROP status;
SELECT * FROM t.trouble();
ROLLBACK;

-- a column that holds text no longer
BEGIN;
ALTER TABLE sessions ALTER audio_filename TYPE bytea USING audio_filename::bytea;
SELECT * FROM t.trouble();
ROLLBACK;
BEGIN;
ALTER TABLE sessions ALTER updated_at TYPE text;
SELECT * FROM t.trouble();
ROLLBACK;

-- a table that loses its rows at a crash
BEGIN;
ALTER TABLE sessions SET UNLOGGED;
SELECT * FROM t.trouble();
ROLLBACK;

-- the owner lacks a right, or a policy hides rows from him
BEGIN;
ALTER TABLE sessions OWNER TO regress_app;
SELECT cleanup_status() -> 'success' AS success;
REVOKE SELECT ON sessions FROM regress_app;
SELECT * FROM t.trouble();
ROLLBACK;
BEGIN;
ALTER TABLE sessions OWNER TO regress_app;
REVOKE USAGE, CREATE ON SCHEMA public FROM regress_app, PUBLIC;
SELECT * FROM t.trouble();
ROLLBACK;
BEGIN;
ALTER TABLE sessions OWNER TO regress_app;
ALTER TABLE sessions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT * FROM t.trouble();
ROLLBACK;

-- a view of which the query fails, or that reads with its owner's rights a
-- table that he may not read, or that a policy filters
CREATE VIEW files AS SELECT id, (1 / (id <> t.id(1))::int)::text AS audio_path FROM sessions;
SELECT cleanup_add_source('files');
SELECT * FROM t.refused('SELECT cleanup_all(force => true)') \gx
SELECT * FROM t.refused('SELECT cleanup_status()') \gx
DROP VIEW files;
SELECT * FROM t.trouble();
DELETE FROM cleanup_sources WHERE source <> 'sessions'::regclass;
CREATE VIEW files AS SELECT id, audio_url FROM sessions;
SELECT cleanup_add_source('files');
ALTER VIEW files OWNER TO regress_app;
SELECT * FROM t.trouble();
SELECT cleanup_add_source('files');
GRANT SELECT ON sessions TO regress_app;
ALTER TABLE sessions ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON sessions TO regress_app USING (status = 'failed');
SELECT * FROM t.trouble();
ALTER TABLE sessions DISABLE ROW LEVEL SECURITY;
DROP POLICY p ON sessions;
SELECT cleanup_drop_source('files');
DROP VIEW files;

-- the table is dropped
CREATE TABLE calls (audio_url text);
SELECT cleanup_add_source('calls');
DROP TABLE calls;
SELECT * FROM t.trouble();

-- and all is well again once it is forgotten
DELETE FROM cleanup_sources WHERE source <> 'sessions'::regclass;
SELECT success, blocked_by, candidates, run FROM t.trouble();
SELECT t.names();
REVOKE ALL ON sessions FROM regress_app;
REVOKE ALL ON SCHEMA public FROM regress_app;
DROP ROLE regress_app;
