-- The figures of cleanup_dashboard(): one row, one object, whose members are
-- the names in dashboard.html.  $1 is the look at the upload directory that
-- dashboard.c has just taken.  Runs with search_path = pg_catalog, pg_temp.
--
-- Bounded: no list has more than shown.n entries, and what is counted beyond
-- that is read by an index or in one pass.  Days are those of the time zone of
-- whoever looks.
WITH
shown AS (
	SELECT 10 AS n, 5 AS few, 30 AS days, 'FMDD Mon YYYY, HH24:MI' AS stamp, 'FMDD Mon, HH24:MI' AS short_stamp,
		moment, moment::date AS today
	FROM clock_timestamp() AS moment
),
look AS (
	SELECT $1 AS taken, outcome, report,
		jsonb_path_query_array(report, '$.orphaned_files_deleted[0 to 9]') AS names,
		jsonb_path_query_array(report, '$.failed_sessions_cleaned[0 to 9]') AS ids
	FROM (SELECT $1 -> 'outcome' AS outcome, $1 #> '{outcome,report,potential_cleanup}' AS report) l
),

-- ---- runs ----

recent AS (
	SELECT r.run_id, r.started_at, r.finished_at, r.trigger, r.status, r.message, r.files, r.errors, r.bytes,
		extract(epoch FROM r.finished_at - r.started_at) AS seconds,
		to_char(r.started_at, short_stamp) AS started
	FROM @extschema@.cleanup_runs r, shown
	WHERE r.started_at >= today - (days - 1)
),
last_run AS (
	SELECT r.run_id, r.status, r.message, r.files, r.errors, r.bytes, r.started_at, to_char(r.started_at, stamp) AS started,
		extract(epoch FROM moment - r.finished_at) AS seconds_ago
	FROM @extschema@.cleanup_runs r, shown
	WHERE r.finished_at IS NOT NULL
	ORDER BY r.run_id DESC LIMIT 1
),
slowest AS (
	SELECT r.* FROM recent r WHERE r.seconds IS NOT NULL
	ORDER BY r.seconds DESC, r.run_id DESC LIMIT (SELECT few FROM shown)
),
unlucky AS (
	SELECT r.run_id, r.started, r.trigger, r.status, r.errors, left(r.message, 500) AS message
	FROM recent r WHERE r.status IN ('failed', 'blocked', 'interrupted')
	ORDER BY r.run_id DESC LIMIT (SELECT n FROM shown)
),

-- ---- files ----

deleted AS MATERIALIZED (
	SELECT f.finished_at::date AS day, f.reason, count(*) AS files, sum(f.freed) AS bytes
	FROM @extschema@.cleanup_files f WHERE f.state = 'deleted' GROUP BY 1, 2
),
totals AS (
	SELECT coalesce(sum(bytes), 0) AS bytes, coalesce(sum(files), 0) AS files, to_char(min(day), 'FMDD Mon YYYY') AS since,
		coalesce(sum(bytes) FILTER (WHERE day > today - days), 0) AS recent_bytes,
		coalesce(sum(files) FILTER (WHERE day > today - days), 0) AS recent_files
	FROM deleted, shown
),
calendar AS (
	SELECT d.n - 1 AS n, d.day::date, to_char(d.day, 'FMDD Mon') AS label,
		coalesce(sum(bytes), 0) AS bytes,
		coalesce(sum(files), 0) AS files,
		coalesce(sum(files) FILTER (WHERE reason = 'orphan'), 0) AS orphans,
		coalesce(sum(files) FILTER (WHERE reason = 'failed_session'), 0) AS failed
	FROM shown, generate_series(today - (days - 1), today, interval '1 day') WITH ORDINALITY AS d(day, n)
	LEFT JOIN deleted ON deleted.day = d.day::date
	GROUP BY d.n, d.day
),
errors AS (
	SELECT f.file_id, f.finished_at, f.file, f.run_id, left(f.error, 500) AS error, to_char(f.finished_at, stamp) AS at
	FROM @extschema@.cleanup_files f, shown WHERE f.state = 'failed'
	ORDER BY f.finished_at DESC, f.file_id DESC LIMIT (SELECT n FROM shown)
),
backups AS (
	SELECT f.run_id, count(*) AS files, sum(f.size) AS bytes, min(f.due_at) AS due
	FROM @extschema@.cleanup_files f WHERE f.state = 'trashed' AND f.due_at > (SELECT moment FROM shown) GROUP BY f.run_id
),
next_backups AS (
	SELECT b.*, to_char(b.due, stamp) AS expires
	FROM backups b, shown ORDER BY b.due, b.run_id LIMIT (SELECT n FROM shown)
),
pending AS (
	SELECT count(*) AS files, coalesce(sum(f.size), 0) AS bytes, extract(epoch FROM (SELECT moment FROM shown) - min(f.condemned_at)) AS seconds
	FROM @extschema@.cleanup_files f WHERE f.state = 'pending'
),
oldest AS (
	SELECT f.file_id, f.condemned_at, f.file, f.run_id, f.size, to_char(f.condemned_at, stamp) AS condemned
	FROM @extschema@.cleanup_files f, shown WHERE f.state = 'pending'
	ORDER BY f.condemned_at, f.file_id LIMIT (SELECT n FROM shown)
),

-- ---- charts: x and width in % of the drawing, y and height in pixels ----

peaks(chart, base, peak) AS (
	SELECT 'space', power(1024, floor(log(1024, greatest(max(bytes), 1)))), max(bytes) FROM calendar
	UNION ALL
	SELECT 'files', 1, max(files) FROM calendar
),
magnitudes AS (
	SELECT chart, base, peak, greatest(peak, 1) / base / 4 AS quarter,
		power(10, floor(log(greatest(peak, 1) / base / 4))) AS tenth
	FROM peaks
),
steps AS (
	SELECT chart, peak, base * greatest(tenth * CASE WHEN quarter <= tenth THEN 1 WHEN quarter <= 2 * tenth THEN 2
		WHEN quarter <= 2.5 * tenth AND tenth >= 10 THEN 2.5 WHEN quarter <= 5 * tenth THEN 5 ELSE 10 END, CASE base WHEN 1 THEN 1 ELSE 0 END) AS step
	FROM magnitudes
),
scales AS (
	SELECT chart, step, step * ceil(peak / step) AS top FROM steps WHERE peak > 0
),
axes AS (
	SELECT chart, jsonb_agg(jsonb_build_object(
			'value', i * step, 'y', round(180 - 160 * i * step / top, 1),
			'text_y', round(176 - 160 * i * step / top, 1)) ORDER BY i) AS ticks
	FROM scales, generate_series(0, round(top / step)) i
	GROUP BY chart
),
columns AS (
	SELECT d.*, s.chart, s.top,
		round(17 + 78.0 / days * d.n, 2) AS x, round(78.0 / days * 0.76, 2) AS width,
		round(17 + 78.0 / days * (d.n + 0.38), 2) AS middle
	FROM scales s, calendar d, shown
),
drawings AS (
	SELECT c.chart, jsonb_build_object(
		'ticks', a.ticks,
		'labels', jsonb_agg(jsonb_build_object('label', c.label, 'x', c.middle) ORDER BY c.n)
			FILTER (WHERE (days - 1 - c.n) % 7 = 0),
		'bars', jsonb_agg(jsonb_build_object(
				'label', c.label, 'bytes', c.bytes, 'files', c.files, 'orphans', c.orphans, 'failed', c.failed,
				'x', c.x, 'width', c.width,
				'space_y', round(180 - 160 * c.bytes / c.top, 2), 'space_height', round(160 * c.bytes / c.top, 2),
				'orphans_y', round(180 - 160 * c.orphans / c.top, 2), 'orphans_height', round(160 * c.orphans / c.top, 2),
				'failed_y', round(180 - 160 * c.files / c.top, 2), 'failed_height', round(160 * c.failed / c.top, 2))
			ORDER BY c.n) FILTER (WHERE c.files > 0)) AS drawing
	FROM columns c JOIN axes a USING (chart), shown
	GROUP BY c.chart, a.ticks
),

-- ---- how is it? ----

next_run AS (
	SELECT to_char(n.next_run, stamp) AS at, n.reason, n.next_run IS NOT NULL AS is_known
	FROM @extschema@.cleanup_next_run() n, shown
),
facts AS (
	SELECT (SELECT count(*) FROM @extschema@.cleanup_sources) AS sources,
		l.status, l.started_at, n.is_known AS is_scheduled,
		(SELECT since FROM @extschema@.cleanup_schedule) AS scheduled_since,
		(SELECT seconds FROM pending) AS pending_seconds,
		(SELECT count(*) FROM @extschema@.cleanup_files f WHERE f.state = 'failed') AS failed,
		look.outcome IS NULL AS is_broken,
		look.outcome -> 'brakes' <> '[]' AS is_blocked
	FROM look CROSS JOIN next_run n LEFT JOIN last_run l ON true
),
state(name) AS (
	SELECT CASE
		WHEN sources = 0 THEN 'unregistered'
		WHEN is_broken THEN 'broken'
		WHEN is_blocked THEN 'blocked'
		WHEN status IN ('failed', 'blocked') THEN 'failing'
		WHEN pending_seconds > 3600 THEN 'stuck'
		WHEN is_scheduled AND moment - greatest(started_at, scheduled_since) > interval '26 hours' THEN 'overdue'
		WHEN status = 'interrupted' THEN 'cut_short'
		WHEN status IS NULL THEN 'new'
		ELSE 'fine' END
	FROM facts, shown
)
SELECT jsonb_build_object(
	'database', current_database(),
	'database_listed', quote_literal(quote_ident(current_database())),
	'cluster', current_setting('cluster_name'),
	'upload_dir', current_setting('audio_cleanup.upload_dir'),
	'is_standby', pg_is_in_recovery(),
	'version', (SELECT extversion FROM pg_extension WHERE extname = 'audio_cleanup'),
	'taken_at', to_char(moment, stamp),
	'taken_iso', to_char(moment, 'YYYY-MM-DD"T"HH24:MI:SSTZH:TZM'),
	'zone', current_setting('timezone'),
	'days', days,
	'state', (SELECT jsonb_build_object(name, true, 'colour', CASE WHEN name IN ('fine', 'new') THEN 'good'
		WHEN name IN ('broken', 'blocked', 'failing') THEN 'bad' ELSE 'doubtful' END) FROM state),
	'next_run', (SELECT to_jsonb(next_run) FROM next_run),
	'last_run', (SELECT to_jsonb(last_run) FROM last_run),
	'under_way', (SELECT jsonb_agg(to_jsonb(p)) FROM (
		SELECT p.phase, p.files_condemned, p.files_done, extract(epoch FROM p.elapsed) AS seconds
		FROM @extschema@.cleanup_progress() p WHERE NOT p.dry_run AND p.datname = current_database()) p),
	'has_history', (SELECT count(*) FROM last_run) > 0,
	'has_sources', sources > 0,
	'look', look.taken - 'outcome' || jsonb_build_object(
		'surveyed', look.outcome -> 'surveyed',
		'files_seen', look.outcome -> 'files_seen',
		'files_referenced', look.outcome -> 'files_referenced',
		'brakes', look.outcome -> 'brakes',
		'bytes', look.outcome -> 'bytes',
		'orphans', look.report -> 'orphaned_files_count',
		'sessions', look.report -> 'failed_sessions_count',
		'names', look.names,
		'more_names', (look.report -> 'orphaned_files_count')::bigint - jsonb_array_length(look.names),
		'ids', look.ids,
		'more_ids', (look.report -> 'failed_sessions_count')::bigint - jsonb_array_length(look.ids),
		'warnings', jsonb_path_query_array(look.outcome, '$.report.warnings[0 to 9]')),
	'totals', (SELECT to_jsonb(totals) FROM totals),
	'space', (SELECT drawing FROM drawings WHERE chart = 'space'),
	'nights', (SELECT drawing FROM drawings WHERE chart = 'files'),
	'table_days', (SELECT jsonb_agg(jsonb_build_object('day', to_char(day, 'FMDD Mon YYYY'), 'bytes', bytes, 'files', files,
		'orphans', orphans, 'failed', failed) ORDER BY day DESC) FROM calendar WHERE files > 0),
	'slowest', (SELECT jsonb_build_object('rows', jsonb_agg(to_jsonb(s) ORDER BY seconds DESC, run_id DESC),
		'more', (SELECT count(*) FROM recent WHERE seconds IS NOT NULL) - count(*)) FROM slowest s HAVING count(*) > 0),
	'unlucky', (SELECT jsonb_build_object('rows', jsonb_agg(to_jsonb(u) ORDER BY run_id DESC),
		'more', (SELECT count(*) FROM recent WHERE status IN ('failed', 'blocked', 'interrupted')) - count(*)) FROM unlucky u HAVING count(*) > 0),
	'errors', (SELECT jsonb_build_object('rows', jsonb_agg(to_jsonb(e) ORDER BY finished_at DESC, file_id DESC),
		'more', failed - count(*)) FROM errors e HAVING count(*) > 0),
	'backups', (SELECT jsonb_build_object('rows', jsonb_agg(to_jsonb(b) ORDER BY due, run_id),
		'more', (SELECT count(*) FROM backups) - count(*)) FROM next_backups b HAVING count(*) > 0),
	'oldest', (SELECT jsonb_build_object('rows', jsonb_agg(to_jsonb(o) ORDER BY condemned_at, file_id),
		'more', (SELECT files FROM pending) - count(*)) FROM oldest o HAVING count(*) > 0),
	'error_count', failed,
	'backup_sum', (SELECT jsonb_build_object('files', coalesce(sum(files), 0), 'bytes', coalesce(sum(bytes), 0),
		'next', to_char(min(due), short_stamp)) FROM backups),
	'pending', (SELECT to_jsonb(pending) FROM pending))
FROM shown, facts, look
