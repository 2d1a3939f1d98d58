-- The figures of a mail about a run: one row, one object, whose members are
-- the names in mail.txt and mail.html.  $1 is the run, $2 the name of the
-- server, $3 the schema, quoted.  Runs with search_path = pg_catalog, pg_temp.
WITH
shown AS (
	SELECT 20 AS n
),
files AS (
	SELECT count(*) FILTER (WHERE f.state = 'trashed') AS kept,
		count(*) FILTER (WHERE f.state = 'failed') AS failed
	FROM @extschema@.cleanup_files f
	WHERE f.run_id = $1 AND f.state IN ('trashed', 'failed')
),
failures AS (
	SELECT jsonb_agg(jsonb_build_object('file', left(f.file, 500), 'error', left(f.error, 500)) ORDER BY f.file) AS list
	FROM (SELECT f.file, f.error FROM @extschema@.cleanup_files f
		WHERE f.run_id = $1 AND f.state = 'failed'
		ORDER BY f.file LIMIT (SELECT n FROM shown)) f
)
SELECT jsonb_build_object(
	'host', $2::text,
	'database', current_database(),
	'schema', $3::text,
	'run_id', r.run_id,
	'status', r.status,
	'fine', r.status = 'done' AND r.errors = 0,
	'end', CASE WHEN r.status IN ('blocked', 'interrupted') OR r.status = 'failed' AND r.message IS NOT NULL
		THEN r.status END,
	'blocked', r.status = 'blocked',
	'message', left(r.message, 2000),
	'trigger', r.trigger,
	'scheduled_for', r.scheduled_for,
	'requested_by', r.requested_by,
	'started', to_char(r.started_at, 'YYYY-MM-DD HH24:MI:SS TZ'),
	'seconds', extract(epoch FROM r.finished_at - r.started_at),
	'upload_dir', r.upload_dir,
	'files', r.files,
	'orphaned_files', r.orphaned_files,
	'failed_sessions', r.failed_sessions,
	'gone', r.deleted + files.kept,
	'deleted', r.deleted,
	'kept', files.kept,
	'skipped', r.skipped,
	'errors', r.errors,
	'bytes', r.bytes,
	'failures', coalesce(failures.list, '[]'),
	'more', greatest(files.failed - (SELECT n FROM shown), 0))
FROM @extschema@.cleanup_runs r, files, failures
WHERE r.run_id = $1
