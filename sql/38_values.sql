--
-- Viewers see names of files, and which rows refer to them; the values of columns that they may not read stay hidden
--
\i test/fixture.sql
CREATE ROLE values_viewer;
CREATE ROLE values_reader;
SELECT cleanup_grant_access('values_viewer'), cleanup_grant_access('values_reader');
CREATE TABLE t.notes (id int PRIMARY KEY, url text, note text);
SELECT cleanup_add_source('t.notes', '{url,note}');
INSERT INTO t.notes VALUES
	(1, 'https://joe:secret@h/d/kept.mp3?sig=secret', 'the secret of kept.mp3 is 42'),
	(2, 'https://joe:secret@h/d/gone.mp3?sig=secret', 'password=secret'),
	(3, 'secret', 'secret.mp3;secret'),
	(4, repeat('é', 300) || '.mp3', repeat('long ', 4000) || 'kept.mp3');
SELECT t.file('kept.mp3');
CREATE VIEW t.explained AS
	SELECT r ->> 'column' AS column, r ->> 'session' AS id, left(r ->> 'value', 45) AS value, length(r ->> 'value') AS length
	FROM jsonb_array_elements(cleanup_explain('kept.mp3') -> 'references') r;
CREATE VIEW t.probed AS SELECT e ->> 'reference_count' AS rows, count(r -> 'value') FILTER (WHERE r ->> 'value' <> '') AS values
	FROM cleanup_explain('secret') e, jsonb_array_elements(e -> 'references') r GROUP BY 1;
ALTER VIEW t.explained SET (security_invoker = on);
ALTER VIEW t.probed SET (security_invoker = on);
GRANT SELECT ON t.explained, t.probed TO PUBLIC;

SET ROLE values_viewer;
TABLE t.explained;
TABLE t.probed;
SELECT source, missing, unnest(examples) AS example FROM cleanup_missing_files() WHERE source = 't.notes';
RESET ROLE;

-- a right to a column shows that column, unless row-level security could hide a row
GRANT SELECT (url) ON t.notes TO values_reader;
SET ROLE values_reader;
TABLE t.explained;
SELECT source, missing, left(unnest(examples), 60) AS example FROM cleanup_missing_files() WHERE source = 't.notes';
RESET ROLE;
ALTER TABLE t.notes ENABLE ROW LEVEL SECURITY;
SET ROLE values_reader;
TABLE t.explained;
RESET ROLE;
ALTER ROLE values_reader BYPASSRLS;
SET ROLE values_reader;
TABLE t.explained;
RESET ROLE;

-- whoever reaches it by a function of somebody else sees no more
CREATE FUNCTION t.explained_by_owner() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = public AS $$
	SELECT count(r ->> 'value') FROM jsonb_array_elements(cleanup_explain('kept.mp3') -> 'references') r $$;
SELECT t.explained_by_owner();
SET ROLE values_viewer;
SELECT t.explained_by_owner();
RESET ROLE;

-- nor does an error tell a value, whatever SQLSTATE its code has chosen, and where a value is taken for a name
ALTER TABLE t.notes DISABLE ROW LEVEL SECURITY;
CREATE FUNCTION t.tell(value text, code text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'found %', value USING ERRCODE = code; END $$;
CREATE VIEW t.told AS SELECT t.tell(note, 'P0001') AS url FROM t.notes WHERE id = 2;
SELECT cleanup_add_source('t.told', '{url}');
SET ROLE values_viewer;
SELECT cleanup_status() IS NULL AS told;
RESET ROLE;
CREATE OR REPLACE VIEW t.told AS SELECT t.tell(note, 'AP001') AS url FROM t.notes WHERE id = 2;
SET ROLE values_viewer;
SELECT cleanup_status() IS NULL AS told;
RESET ROLE;
CREATE OR REPLACE VIEW t.told AS SELECT t.tell(note, 'insufficient_privilege') AS url FROM t.notes WHERE id = 2;
SET ROLE values_viewer;
SELECT cleanup_status() IS NULL AS told;
RESET ROLE;
CREATE OR REPLACE VIEW t.told AS SELECT t.tell(note, 'unique_violation') AS url FROM t.notes WHERE id = 2;
SET ROLE values_viewer;
SELECT cleanup_status() IS NULL AS told;
RESET ROLE;
CREATE OR REPLACE VIEW t.told AS SELECT note::regclass::text AS url FROM t.notes WHERE id = 2;
SET ROLE values_viewer;
SELECT cleanup_status() IS NULL AS told;
RESET ROLE;
CREATE FUNCTION t.notice(value text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'found %', value; RAISE WARNING 'found %', value; RETURN value; END $$;
CREATE OR REPLACE VIEW t.told AS SELECT t.notice(note) AS url FROM t.notes WHERE id = 2;
SET ROLE values_viewer;
SELECT cleanup_status() IS NULL AS told;
RESET ROLE;
SELECT cleanup_drop_source('t.told');

SELECT cleanup_drop_source('t.notes');
SELECT cleanup_revoke_access('values_viewer'), cleanup_revoke_access('values_reader');
DROP OWNED BY values_viewer, values_reader;
DROP ROLE values_viewer, values_reader;
