--
-- A preview changes nothing, and a run does what it said
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SELECT t.file('orphan.mp3'), t.file('young.mp3', 23), t.file('wanted.mp3'), t.file('failed.mp3'), t.file('notes.txt');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.session(2, 'failed', 8, 'failed.mp3');

-- the tree, the history, the transaction: as before
SELECT t.fingerprint() AS before \gset
BEGIN;
SELECT cleanup_status() #> '{potential_cleanup,orphaned_files_deleted}' AS orphans,
	cleanup_status() #> '{potential_cleanup,failed_sessions_cleaned}' AS failed;
SELECT cleanup_orphaned_files(true) #> '{result,orphaned_files_deleted}' AS orphans,
	cleanup_failed_sessions(true) #> '{result,failed_sessions_cleaned}' AS failed,
	cleanup_all(true) #> '{result,orphaned_files_deleted}' AS orphans_of_all;
CALL cleanup_run(dry_run => true) \gset
SELECT :'result'::jsonb #> '{result,orphaned_files_deleted}' AS orphans;
SELECT cleanup_explain('orphan.mp3') ->> 'verdict' AS verdict;
SELECT count(*) > 0 AS checked FROM cleanup_check();
SELECT pg_current_xact_id_if_assigned() IS NULL AS wrote_nothing;
COMMIT;
SELECT t.fingerprint() = :'before' AS untouched;
SELECT (SELECT count(*) FROM cleanup_runs) AS runs, (SELECT count(*) FROM cleanup_files) AS files;

-- each call previews its own part
SELECT cleanup_orphaned_files(true) #> '{result,failed_sessions_count}' AS failed,
	cleanup_failed_sessions(true) #> '{result,orphaned_files_count}' AS orphans;

-- what was previewed is what goes
SELECT cleanup_status() -> 'potential_cleanup' AS preview \gset
SELECT cleanup_all() -> 'result' AS result \gset
SELECT :'preview'::jsonb - 'dry_run' = :'result'::jsonb - 'dry_run' AS as_previewed, :'result'::jsonb -> 'dry_run' AS dry_run;
SELECT t.names();

-- a run with nothing to do, and a preview of it
SELECT cleanup_all(true) -> 'result' AS preview, cleanup_all() -> 'result' AS result \gx

-- the server's JIT takes functions into its own code, and does not find what is hidden: so it must not take ours
SET jit = on;
SET jit_above_cost = 0;
SET jit_inline_above_cost = 0;
SELECT cleanup_status() IS NULL AS none;
SELECT cleanup_all(dry_run => true) IS NULL AS none;
SELECT cleanup_dashboard() IS NULL AS none;
