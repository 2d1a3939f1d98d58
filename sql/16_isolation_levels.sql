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
SELECT cleanup_all(true) #> '{result,errors}' AS errors;
SELECT cleanup_explain('orphan.mp3') ->> 'verdict' AS explain;
SELECT count(*) FILTER (WHERE status = 'error') AS errors FROM cleanup_check();
SELECT cleanup_config() ? 'upload_dir' AS config;
ROLLBACK;

-- as a default of the session; cleanup_run() owns its transactions, and takes READ COMMITTED
SET default_transaction_isolation = 'repeatable read';
SELECT t.try('SELECT cleanup_all()');
CALL cleanup_run(dry_run => true);
BEGIN;
CALL cleanup_run();
ROLLBACK;
SELECT t.file('orphan1.mp3');
CALL cleanup_run();
SHOW transaction_isolation;
SET default_transaction_isolation = 'serializable';
SELECT t.file('orphan2.mp3');
DO $$ DECLARE r jsonb; BEGIN CALL cleanup_run(result => r); END $$;
SELECT t.names(), current_setting('transaction_isolation');
SELECT t.file('orphan.mp3');
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
