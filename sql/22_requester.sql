--
-- Who asked: the run row names the outer user, seen through the application's
-- own functions
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3'), t.file('orphan.mp3');
CREATE ROLE regress_app;		-- the owner of the application's functions
CREATE ROLE regress_web;		-- who calls them
SELECT cleanup_grant_access('regress_app', 'operator');
GRANT CREATE ON SCHEMA t TO regress_app;
SET ROLE regress_app;
CREATE FUNCTION t.clean_audio() RETURNS jsonb LANGUAGE sql SECURITY DEFINER AS 'SELECT public.cleanup_all()';
CREATE FUNCTION t.clean_audio_deeper() RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN t.clean_audio(); END';
RESET ROLE;

SET ROLE regress_web;
SELECT t.try('SELECT cleanup_all()');
SELECT t.clean_audio() #> '{result,orphaned_files_deleted}' AS deleted;
SELECT t.clean_audio_deeper() -> 'success' AS success;
RESET ROLE;
SET SESSION AUTHORIZATION regress_web;
SELECT t.clean_audio() -> 'success' AS success;
RESET SESSION AUTHORIZATION;
SET ROLE regress_app;
SELECT cleanup_all() -> 'success' AS success;
CALL cleanup_run() \gset
RESET ROLE;
SELECT t.wait_for_worker();
SELECT run_id, requested_by, status, deleted FROM cleanup_runs ORDER BY run_id;
SELECT t.names();

-- the caller's own settings do not reach into it: search_path, row_security,
-- a table of the same name
CREATE SCHEMA regress_evil;
GRANT USAGE, CREATE ON SCHEMA regress_evil TO regress_web;
SET ROLE regress_web;
CREATE TABLE regress_evil.cleanup_sources (source regclass, file_columns text[]);
CREATE TABLE regress_evil.sessions (id uuid, audio_url text, audio_filename text);
CREATE FUNCTION regress_evil.evil(text, text) RETURNS boolean LANGUAGE plpgsql AS
	$$ BEGIN RAISE EXCEPTION 'evil called as %', current_user; END $$;
CREATE OPERATOR regress_evil.= (FUNCTION = regress_evil.evil, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR regress_evil.~ (FUNCTION = regress_evil.evil, LEFTARG = text, RIGHTARG = text);
CREATE TEMPORARY TABLE cleanup_files (file text);
SET search_path = regress_evil, pg_temp, public, pg_catalog;
SELECT t.clean_audio() -> 'success' AS success;
RESET search_path;
DROP TABLE pg_temp.cleanup_files;
RESET ROLE;

-- the trap of an owner: an expression in his own table runs with his own rights
GRANT CREATE ON SCHEMA public TO regress_web;
SET ROLE regress_web;
CREATE FUNCTION regress_evil.trap(text) RETURNS text LANGUAGE plpgsql AS
	$$ BEGIN RAISE NOTICE 'read by %', current_user; RETURN $1; END $$;
CREATE TABLE public.trapped (id int, audio_url text);
INSERT INTO public.trapped VALUES (1, 'trapped.mp3');
CREATE VIEW public.trap AS SELECT id, regress_evil.trap(audio_url) AS audio_url FROM public.trapped;
RESET ROLE;
SELECT cleanup_add_source('trap');
SELECT t.file('trapped.mp3');
SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_count}' AS orphans;
SELECT cleanup_drop_source('trap');

SELECT cleanup_revoke_access('regress_app');
DROP SCHEMA regress_evil CASCADE;
DROP VIEW IF EXISTS trap;
DROP TABLE trapped;
DROP FUNCTION t.clean_audio, t.clean_audio_deeper;
REVOKE ALL ON SCHEMA public FROM regress_web;
REVOKE ALL ON SCHEMA t FROM regress_app;
DROP ROLE regress_app, regress_web;
