--
-- What is said in several places is the same in all of them: the members of
-- the extension (pg_depend), their comments, who may use them, and the reference
--
\set reference `cat docs/reference.md`
\i test/fixture.sql
SET client_min_messages = warning;
CREATE ROLE regress_looks;
CREATE ROLE regress_cleans;
SELECT cleanup_grant_access('regress_looks');
SELECT cleanup_grant_access('regress_cleans', 'operator');

-- a member is for those to whom it was granted: viewers, operators, or superusers alone
CREATE TEMP VIEW members AS
SELECT p.proname AS name, p.oid::regprocedure::text AS member, 'function' AS kind,
	CASE WHEN has_function_privilege('regress_looks', p.oid, 'EXECUTE') THEN 'viewer'
		 WHEN has_function_privilege('regress_cleans', p.oid, 'EXECUTE') THEN 'operator' ELSE 'superuser' END AS level
FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
WHERE e.extname = 'audio_cleanup' AND p.prorettype <> 'trigger'::regtype
UNION ALL
SELECT c.relname, c.oid::regclass::text, 'relation',
	CASE WHEN has_table_privilege('regress_looks', c.oid, 'SELECT') THEN 'viewer'
		 WHEN has_table_privilege('regress_cleans', c.oid, 'SELECT') THEN 'operator' ELSE 'superuser' END
FROM pg_depend d JOIN pg_class c ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
WHERE e.extname = 'audio_cleanup' AND c.relkind IN ('r', 'v');
SELECT level, kind, count(*) > 0 AS some FROM members GROUP BY level, kind ORDER BY level, kind;

-- the lines of the reference: | viewer | functions | relations |
CREATE TEMP TABLE documented AS
SELECT m[1] AS level, k.kind, n[1] AS name
FROM regexp_matches(:'reference', '^\| (viewer|operator|superuser) \| ([^|]*) \| ([^|]*) \|$', 'gn') m,
	LATERAL (VALUES ('function', m[2]), ('relation', m[3])) k(kind, names),
	LATERAL regexp_matches(k.names, '`(cleanup_\w+)`', 'g') n;
SELECT coalesce(m.member, d.name) AS badly_documented, m.level AS granted_to, d.level AS documented_for
FROM members m FULL JOIN documented d ON d.name = m.name AND d.kind = m.kind AND d.level = m.level
WHERE (m.name IS NULL OR d.name IS NULL) AND NOT (m.kind = 'relation' AND m.level = 'superuser') IS TRUE
ORDER BY 1, 2, 3;

-- each member has a line of its own in the reference
SELECT member AS not_in_the_reference FROM members
WHERE :'reference' !~ ('(?n)^\| .*' || name || CASE kind WHEN 'function' THEN '\W' ELSE '`' END)
ORDER BY 1;

-- whoever is granted a function can look at the view that is made of it, and the other way round
SELECT f.member AS of_two_minds FROM members f JOIN members r ON r.name = f.name AND r.kind <> f.kind WHERE r.level <> f.level;

-- no column is without a comment
SELECT a.attrelid::regclass AS relation, a.attname AS column_without_comment
FROM pg_depend d JOIN pg_attribute a ON d.classid = 'pg_class'::regclass AND a.attrelid = d.objid
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
WHERE e.extname = 'audio_cleanup' AND c.relkind IN ('r', 'v') AND a.attnum > 0 AND NOT a.attisdropped
AND col_description(a.attrelid, a.attnum) IS NULL
ORDER BY a.attrelid::regclass::text, a.attnum;

-- the comment on a function names each of its parameters
SELECT p.oid::regprocedure AS routine, a.name AS parameter_without_comment
FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e',
	LATERAL unnest(p.proargnames) WITH ORDINALITY a(name, n)
WHERE e.extname = 'audio_cleanup' AND coalesce(p.proargmodes[a.n] IN ('i', 'b'), true)
AND obj_description(p.oid, 'pg_proc') !~ ('\m' || a.name || '\M')
ORDER BY p.oid::regprocedure::text, a.n;

-- no function is created in place of somebody's, or finds somebody's objects by search_path
SELECT p.oid::regprocedure AS sql_without_search_path
FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
JOIN pg_language l ON l.oid = p.prolang
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
WHERE e.extname = 'audio_cleanup' AND l.lanname NOT IN ('c')
AND NOT coalesce(p.proconfig::text LIKE '%search_path=%pg_catalog, pg_temp%', false);

DROP EXTENSION audio_cleanup CASCADE;

-- nor are somebody's operators taken, though they would suit better than the server's
CREATE SCHEMA trap;
CREATE FUNCTION trap.join_text(text, bigint) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
CREATE OPERATOR trap.|| (LEFTARG = text, RIGHTARG = bigint, FUNCTION = trap.join_text);
CREATE FUNCTION trap.divide(numeric, int) RETURNS numeric LANGUAGE sql AS 'SELECT NULL::numeric';
CREATE OPERATOR trap./ (LEFTARG = numeric, RIGHTARG = int, FUNCTION = trap.divide);
SET search_path = trap, public;
CREATE EXTENSION audio_cleanup SCHEMA trap;
RESET search_path;
SELECT pg_describe_object(d.classid, d.objid, 0) AS trapped
FROM pg_depend d JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND d.refobjid = o.oid
WHERE o.oprnamespace = 'trap'::regnamespace;
DROP EXTENSION audio_cleanup CASCADE;
DROP SCHEMA trap CASCADE;
DROP ROLE regress_looks, regress_cleans;
