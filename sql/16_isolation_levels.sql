--
-- A real run needs the newest rows, and a transaction that may write;
-- a preview works in any
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3'), t.file('orphan.mp3');
CREATE FUNCTION t.preview(OUT success boolean, OUT blocked_by jsonb, OUT orphans jsonb) LANGUAGE sql AS $$
	SELECT (p -> 'success')::boolean, p -> 'blocked_by', p #> '{result,orphaned_files_deleted}' FROM cleanup_all(true) p
$$;

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM t.refused('SELECT cleanup_orphaned_files()') \gx
SELECT t.try('SELECT cleanup_failed_sessions()');
SELECT t.try('SELECT cleanup_all(force => true)');
SELECT * FROM t.preview();
SELECT cleanup_status() -> 'success' AS status;
COMMIT;

BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT * FROM t.refused('SELECT cleanup_all()') \gx
SELECT * FROM t.preview();
COMMIT;

BEGIN READ ONLY;
SELECT t.try('SELECT cleanup_orphaned_files()');
SELECT t.try('SELECT cleanup_failed_sessions()');
SELECT t.try('SELECT cleanup_all(force => true)');
SELECT * FROM t.preview();
SELECT cleanup_explain('orphan.mp3') ->> 'verdict' AS explain;
SELECT count(*) FILTER (WHERE status = 'error') AS errors FROM cleanup_check();
SELECT cleanup_config() ? 'upload_dir' AS config;
ROLLBACK;

-- as a default of the session, cleanup_run() too
SET default_transaction_isolation = 'repeatable read';
SELECT t.try('SELECT cleanup_all()');
CALL cleanup_run();
RESET default_transaction_isolation;
SET default_transaction_read_only = on;
SELECT cleanup_all();
CALL cleanup_run();
RESET default_transaction_read_only;
SELECT t.names();

-- READ UNCOMMITTED is READ COMMITTED
BEGIN ISOLATION LEVEL READ UNCOMMITTED;
SELECT cleanup_all() #> '{result,orphaned_files_deleted}' AS deleted;
COMMIT;
SELECT t.names();
