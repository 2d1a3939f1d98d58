--
-- CREATE EXTENSION: what is there, and where
--
CREATE EXTENSION audio_cleanup;

-- the default version is what was installed, and it cannot be moved
SELECT e.extversion = a.default_version AS default_version, e.extrelocatable, n.nspname
FROM pg_extension e
JOIN pg_available_extensions a ON a.name = e.extname
JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'audio_cleanup';

-- what an application may call and look at
SELECT p.prokind AS kind, p.oid::regprocedure AS routine, p.prorettype::regtype AS returns
FROM pg_depend d
JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
JOIN pg_extension e ON d.refobjid = e.oid AND d.deptype = 'e'
WHERE e.extname = 'audio_cleanup'
ORDER BY p.proname COLLATE "C", p.oid::regprocedure::text COLLATE "C";
SELECT c.relkind AS kind, c.relname
FROM pg_depend d
JOIN pg_class c ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
JOIN pg_extension e ON d.refobjid = e.oid AND d.deptype = 'e'
WHERE e.extname = 'audio_cleanup'
ORDER BY c.relname COLLATE "C";

-- every object begins with cleanup_ and is commented (sequences belong to their tables)
SELECT pg_describe_object(classid, objid, 0) AS badly_named_or_uncommented
FROM pg_depend d
JOIN pg_extension e ON d.refobjid = e.oid AND d.deptype = 'e'
CROSS JOIN LATERAL pg_identify_object(classid, objid, 0) i
WHERE e.extname = 'audio_cleanup' AND i.type NOT IN ('type', 'sequence')
AND (i.identity !~ '^(public\.)?cleanup_' OR obj_description(objid, classid::regclass::name) IS NULL);

-- nothing is granted to PUBLIC
SELECT p.oid::regprocedure AS granted_to_public
FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
WHERE p.proname LIKE 'cleanup\_%' AND a.grantee = 0;
SELECT c.relname AS granted_to_public
FROM pg_class c, aclexplode(c.relacl) a
WHERE c.relname LIKE 'cleanup\_%' AND a.grantee = 0;

-- it lives where CREATE EXTENSION put it, whatever the search_path
DROP EXTENSION audio_cleanup;
CREATE SCHEMA "Odd schema";
CREATE EXTENSION audio_cleanup SCHEMA "Odd schema";
CREATE TABLE calls (recording_path text);
SELECT "Odd schema".cleanup_add_source('calls');
SELECT source, file_columns FROM "Odd schema".cleanup_sources;
SELECT "Odd schema".cleanup_drop_source('calls');
DROP EXTENSION audio_cleanup;
DROP TABLE calls;
DROP SCHEMA "Odd schema";

-- without the extension the library says so
CREATE FUNCTION cleanup_config() RETURNS jsonb LANGUAGE c AS 'audio_cleanup';
CREATE FUNCTION cleanup_status() RETURNS jsonb LANGUAGE c AS 'audio_cleanup';
SELECT cleanup_config() ? 'upload_dir' AS config;
SELECT cleanup_status();
DROP FUNCTION cleanup_config(), cleanup_status();
