--
-- Who may do what: nobody anything, a viewer look, an operator clean
--
\i test/fixture.sql
CREATE ROLE regress_nobody;
CREATE ROLE regress_viewer;
CREATE ROLE regress_operator;
SELECT cleanup_add_source('sessions');
SELECT cleanup_grant_access('regress_viewer');
SELECT cleanup_grant_access('regress_operator', 'operator');

-- a call for each routine of the extension, its arguments NULL or harmless
CREATE VIEW t.calls AS
SELECT p.proname AS name, p.prokind,
	(CASE WHEN p.prokind = 'p' THEN 'CALL ' ELSE 'SELECT ' END) || p.oid::regproc || '(' ||
	coalesce((SELECT string_agg(CASE WHEN a.type = 'boolean'::regtype THEN 'true'
									 ELSE 'NULL::' || a.type::regtype END, ', ' ORDER BY a.n)
			  FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY a(type, n)), '') || ')' AS statement
FROM pg_proc p
JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refobjid = e.oid AND e.extname = 'audio_cleanup';
CREATE VIEW t.relations AS
SELECT c.relname AS name, c.oid::regclass::text AS relation
FROM pg_class c
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refobjid = e.oid AND e.extname = 'audio_cleanup'
WHERE c.relkind IN ('r', 'v', 'S');
GRANT SELECT ON t.calls, t.relations TO PUBLIC;

-- nobody: denied, by every routine and every relation
SET ROLE regress_nobody;
SELECT name, t.try(statement) FROM t.calls ORDER BY name COLLATE "C", statement COLLATE "C";
SELECT name, t.try('SELECT * FROM ' || relation) FROM t.relations ORDER BY name COLLATE "C";
RESET ROLE;

-- a viewer looks (dry runs are the operator's)
SET ROLE regress_viewer;
SELECT name, t.try(statement) FROM t.calls ORDER BY name COLLATE "C", statement COLLATE "C";
SELECT name, t.try('SELECT * FROM ' || relation) FROM t.relations ORDER BY name COLLATE "C";
SELECT t.try('INSERT INTO cleanup_sources (source, file_columns) VALUES (''sessions'', ''{audio_url}'')');
SELECT t.try('DELETE FROM cleanup_files');
SELECT t.try('UPDATE cleanup_runs SET status = ''done''');
RESET ROLE;

-- an operator cleans as well, and decides neither what nor who
SET ROLE regress_operator;
SELECT name, t.try(statement) FROM t.calls ORDER BY name COLLATE "C", statement COLLATE "C";
SELECT name, t.try('SELECT * FROM ' || relation) FROM t.relations ORDER BY name COLLATE "C";
SELECT t.try('DELETE FROM cleanup_files');
SET audio_cleanup.orphaned_file_retention_hours = 0;
SET audio_cleanup.upload_dir = '/tmp';
RESET ROLE;

-- he need have no right on the sources: they are read as their owner
SELECT t.session(1, 'processed', 1, 'uploads/audio/wanted.mp3'), t.file('wanted.mp3'), t.file('orphan.mp3');
SET ROLE regress_operator;
SELECT count(*) FROM sessions;
SELECT cleanup_orphaned_files() #> '{result,orphaned_files_deleted}' AS deleted;
RESET ROLE;
SELECT t.names();

-- less again: the level replaces the former one
SELECT cleanup_grant_access('regress_operator', 'viewer');
SET ROLE regress_operator;
SELECT t.try('SELECT cleanup_status()'), t.try('SELECT cleanup_all(true)');
RESET ROLE;
SELECT cleanup_revoke_access('regress_operator');
SELECT cleanup_revoke_access('regress_viewer');
SELECT cleanup_revoke_access('regress_nobody');		-- who has nothing loses nothing
SET ROLE regress_viewer;
SELECT t.try('SELECT cleanup_status()'), t.try('SELECT * FROM cleanup_runs');
RESET ROLE;

-- bad levels and roles
SELECT * FROM t.refused($$SELECT cleanup_grant_access('regress_viewer', 'admin')$$) \gx
SELECT t.try($$SELECT cleanup_grant_access('regress_viewer', NULL)$$);
SELECT t.try($$SELECT cleanup_grant_access(NULL)$$);
SELECT t.try($$SELECT cleanup_revoke_access(NULL)$$);
SELECT t.try($$SELECT cleanup_grant_access('regress_no_such_role')$$);

-- who was given this function alone cannot pass on what he does not have
GRANT EXECUTE ON FUNCTION cleanup_grant_access(regrole, text) TO regress_viewer;
SET ROLE regress_viewer;
SELECT t.try($$SELECT cleanup_grant_access('regress_nobody')$$);
RESET ROLE;
SELECT has_function_privilege('regress_nobody', 'cleanup_status()', 'EXECUTE') AS nobody_may;
REVOKE EXECUTE ON FUNCTION cleanup_grant_access(regrole, text) FROM regress_viewer;

-- what was revoked leaves nothing behind that keeps a role from being dropped
DROP ROLE regress_nobody;
DROP ROLE regress_viewer;
DROP ROLE regress_operator;

--
-- USAGE on the schema is taken back only from whom it was given to
--
CREATE SCHEMA regress_place;
SET client_min_messages = warning;
DROP EXTENSION audio_cleanup CASCADE;
CREATE EXTENSION audio_cleanup SCHEMA regress_place;
RESET client_min_messages;
CREATE ROLE regress_viewer;
CREATE ROLE regress_member;
CREATE FUNCTION t.usage(OUT viewer boolean, OUT member boolean, OUT noted text) LANGUAGE sql AS $$
	SELECT has_schema_privilege('regress_viewer', 'regress_place', 'USAGE'),
		has_schema_privilege('regress_member', 'regress_place', 'USAGE'),
		(SELECT string_agg(role::text, ' ') FROM regress_place.cleanup_access)
$$;
GRANT USAGE ON SCHEMA regress_place TO regress_viewer;
SELECT regress_place.cleanup_grant_access('regress_viewer', 'operator');
SELECT regress_place.cleanup_grant_access('regress_member');
SELECT * FROM t.usage();
SELECT regress_place.cleanup_revoke_access('regress_viewer');
SELECT regress_place.cleanup_revoke_access('regress_member');
SELECT * FROM t.usage();
-- twice, to another level, and never granted at all
SELECT regress_place.cleanup_grant_access('regress_member', 'operator');
SELECT regress_place.cleanup_grant_access('regress_member', 'viewer');
SELECT * FROM t.usage();
SELECT regress_place.cleanup_revoke_access('regress_member');
SELECT regress_place.cleanup_revoke_access('regress_member');
SELECT regress_place.cleanup_revoke_access('regress_viewer');
SELECT * FROM t.usage();
-- a role of the same name is another one
SELECT regress_place.cleanup_grant_access('regress_member');
DROP OWNED BY regress_member;
DROP ROLE regress_member;
CREATE ROLE regress_member;
GRANT USAGE ON SCHEMA regress_place TO regress_member;
SELECT regress_place.cleanup_revoke_access('regress_member');
SELECT viewer, member FROM t.usage();
DROP OWNED BY regress_member, regress_viewer;
DROP ROLE regress_member, regress_viewer;
