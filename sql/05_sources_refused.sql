--
-- What is refused as a source, each with its own error
--
\i test/fixture.sql

-- kinds of relations whose rows cannot be relied on
CREATE TEMPORARY TABLE temporary_sessions (id int, audio_url text);
SELECT * FROM t.refused($$SELECT cleanup_add_source('temporary_sessions')$$) \gx
CREATE UNLOGGED TABLE unlogged_sessions (id int, audio_url text);
SELECT * FROM t.refused($$SELECT cleanup_add_source('unlogged_sessions')$$) \gx
CREATE FOREIGN DATA WRAPPER regress_wrapper;
CREATE SERVER regress_server FOREIGN DATA WRAPPER regress_wrapper;
CREATE FOREIGN TABLE foreign_sessions (id int, audio_url text) SERVER regress_server;
SELECT * FROM t.refused($$SELECT cleanup_add_source('foreign_sessions')$$) \gx
CREATE MATERIALIZED VIEW stale_sessions AS SELECT id, audio_url FROM sessions;
SELECT * FROM t.refused($$SELECT cleanup_add_source('stale_sessions')$$) \gx
CREATE SEQUENCE audio_seq;
SELECT * FROM t.refused($$SELECT cleanup_add_source('audio_seq', '{last_value}')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions_pkey', '{id}')$$) \gx
SELECT t.try($$SELECT cleanup_add_source('no_such_table')$$);
SELECT t.try($$SELECT cleanup_add_source(4000000000::oid::regclass)$$);
SELECT t.try($$SELECT cleanup_add_source(NULL)$$);

-- the same below a view or a partitioned table
CREATE VIEW over_unlogged AS SELECT id, audio_url FROM unlogged_sessions;
SELECT * FROM t.refused($$SELECT cleanup_add_source('over_unlogged')$$) \gx
CREATE VIEW over_stale AS SELECT s.id, v.audio_url FROM sessions s JOIN stale_sessions v USING (id);
SELECT * FROM t.refused($$SELECT cleanup_add_source('over_stale')$$) \gx
CREATE TABLE parted (id int, audio_url text) PARTITION BY LIST (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE UNLOGGED TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
SELECT * FROM t.refused($$SELECT cleanup_add_source('parted')$$) \gx

-- columns
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', '{audio_ulr}')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', '{audio_url,duration_seconds}')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', '{transcript_segments}')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', '{id}')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', '{}')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', '{audio_url,NULL}')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', '{{audio_url},{audio_filename}}')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', '{ctid}')$$) \gx
CREATE TABLE arrays (id int, audio_urls text[], audio_oid oid, "audio_c" "char");
SELECT * FROM t.refused($$SELECT cleanup_add_source('arrays')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_add_source('arrays', '{audio_urls}')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_add_source('arrays', '{audio_c}')$$) \gx
CREATE TABLE people (id int, name text);
SELECT * FROM t.refused($$SELECT cleanup_add_source('people')$$) \gx

-- failed sessions
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', id_column => 'session_id')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', status_column => 'state')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', failed_at_column => 'failed_at')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', failed_at_column => 'status')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', failed_statuses => '{}')$$) \gx
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', failed_statuses => '{failed,NULL}')$$) \gx
SELECT t.try($$SELECT cleanup_add_source('sessions', failed_statuses => NULL)$$);
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', timezone => 'Mars/Olympus')$$) \gx
SELECT t.try($$SELECT cleanup_add_source('sessions', timezone => NULL)$$);
SELECT * FROM t.refused($$SELECT cleanup_add_source('sessions', on_failed => 'delete')$$) \gx
SELECT t.try($$SELECT cleanup_add_source('sessions', on_failed => NULL)$$);
CREATE TABLE no_id (audio_url text, status text, updated_at timestamp);
SELECT * FROM t.refused($$SELECT cleanup_add_source('no_id', status_column => 'status')$$) \gx
CREATE TABLE no_time (id int, audio_url text, status text);
SELECT * FROM t.refused($$SELECT cleanup_add_source('no_time', status_column => 'status')$$) \gx
CREATE TABLE not_null (id int, audio_url text NOT NULL, status text, updated_at timestamp);
SELECT * FROM t.refused($$SELECT cleanup_add_source('not_null', on_failed => 'clear')$$) \gx

-- a view whose rows cannot be locked can have no failed sessions, but protects files
CREATE VIEW grouped AS
SELECT min(id::text) AS id, audio_url, min(status) AS status, max(updated_at) AS updated_at FROM sessions GROUP BY audio_url;
SELECT cleanup_add_source('grouped');
SELECT cleanup_drop_source('grouped');
SELECT * FROM t.refused($$SELECT cleanup_add_source('grouped', status_column => 'status')$$) \gx
CREATE VIEW grouped_files AS SELECT audio_url FROM sessions GROUP BY audio_url;
SELECT t.try($$SELECT cleanup_add_source('grouped_files')$$);
SELECT cleanup_drop_source('grouped_files');

-- owners: somebody else's table; one whose owner cannot read it; a policy that hides rows from him
CREATE ROLE regress_app;
GRANT CREATE ON SCHEMA public TO regress_app;
GRANT EXECUTE ON FUNCTION cleanup_add_source TO regress_app;
SET ROLE regress_app;
SELECT t.try($$SELECT cleanup_add_source('sessions')$$);
CREATE TABLE hidden (id int, audio_url text);
REVOKE SELECT ON hidden FROM regress_app;
RESET ROLE;
SELECT * FROM t.refused($$SELECT cleanup_add_source('hidden')$$) \gx
GRANT SELECT ON hidden TO regress_app;
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT * FROM t.refused($$SELECT cleanup_add_source('hidden')$$) \gx
ALTER TABLE hidden NO FORCE ROW LEVEL SECURITY;
SELECT t.try($$SELECT cleanup_add_source('hidden')$$);	-- does not hide from the owner
SELECT cleanup_drop_source('hidden');

-- nothing of all this was registered
SELECT source FROM cleanup_sources;

DROP VIEW grouped, grouped_files, over_stale, over_unlogged;
DROP MATERIALIZED VIEW stale_sessions;
DROP FOREIGN DATA WRAPPER regress_wrapper CASCADE;
DROP TABLE unlogged_sessions, parted, arrays, people, no_id, no_time, not_null, hidden;
DROP SEQUENCE audio_seq;
REVOKE ALL ON SCHEMA public FROM regress_app;
REVOKE ALL ON FUNCTION cleanup_add_source FROM regress_app;
DROP ROLE regress_app;
