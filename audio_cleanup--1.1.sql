/* audio_cleanup--1.1.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION audio_cleanup" to load this file. \quit

-- the schema of the extension may hold anybody's objects: none of them is to
-- be taken for one of the server's
SET LOCAL search_path = pg_catalog, pg_temp;

-- an unknown setting here: the server still has the library of version 1.0 in
-- its memory, and must be restarted first
LOAD 'MODULE_PATHNAME';
SHOW audio_cleanup.source_timeout;

--
-- Configuration: which rows refer to files
--

CREATE TABLE @extschema@.cleanup_sources (
	source regclass PRIMARY KEY,
	source_name text NOT NULL,
	file_columns text[] NOT NULL CHECK (pg_catalog.cardinality(file_columns) > 0),
	id_column name,
	status_column name,
	failed_statuses text[] NOT NULL DEFAULT '{failed}',
	failed_at_column name,
	timezone text NOT NULL DEFAULT 'UTC',
	on_failed text NOT NULL DEFAULT 'keep' CHECK (on_failed IN ('keep', 'clear')),
	added_by name NOT NULL DEFAULT CURRENT_USER,
	added_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE @extschema@.cleanup_sources IS
'tables and views whose rows refer to files; maintained by cleanup_add_source() and cleanup_drop_source()';
COMMENT ON COLUMN @extschema@.cleanup_sources.source IS 'the table or view';
COMMENT ON COLUMN @extschema@.cleanup_sources.failed_statuses IS 'values of status_column that mean a failed session';
COMMENT ON COLUMN @extschema@.cleanup_sources.added_by IS 'the role that registered the source';
COMMENT ON COLUMN @extschema@.cleanup_sources.added_at IS 'when the source was registered';
COMMENT ON COLUMN @extschema@.cleanup_sources.source_name IS
'name of the source when it was registered; a table that was renamed may have made room for another table of this name';
COMMENT ON COLUMN @extschema@.cleanup_sources.file_columns IS 'columns that hold names, paths or URLs of files';
COMMENT ON COLUMN @extschema@.cleanup_sources.id_column IS 'column by which a session is named in reports';
COMMENT ON COLUMN @extschema@.cleanup_sources.status_column IS 'NULL: this source has no failed sessions';
COMMENT ON COLUMN @extschema@.cleanup_sources.failed_at_column IS 'the time since which a session counts as failed';
COMMENT ON COLUMN @extschema@.cleanup_sources.timezone IS 'how a failed_at_column without time zone is read';
COMMENT ON COLUMN @extschema@.cleanup_sources.on_failed IS 'keep: the row of a cleaned session stays as it is; clear: its file columns become NULL';

CREATE TABLE @extschema@.cleanup_seen (
	source regclass PRIMARY KEY,
	source_rows bigint NOT NULL DEFAULT 0,
	source_files bigint NOT NULL DEFAULT 0,
	column_numbers int2[] NOT NULL,
	seen_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE @extschema@.cleanup_seen IS
'what the registration or the last run has seen of each source: one that is empty all of a sudden, or has other columns of the same names, stops a run; not carried by pg_dump';
COMMENT ON COLUMN @extschema@.cleanup_seen.source IS 'the table or view';
COMMENT ON COLUMN @extschema@.cleanup_seen.source_rows IS 'rows that the source had';
COMMENT ON COLUMN @extschema@.cleanup_seen.column_numbers IS
'numbers (attnum) of the file columns; a column that was renamed may have made room for another column of its name';
COMMENT ON COLUMN @extschema@.cleanup_seen.seen_at IS 'when the run looked';
COMMENT ON COLUMN @extschema@.cleanup_seen.source_files IS 'files in the upload directory that the rows of the source protected';

CREATE TABLE @extschema@.cleanup_access (
	role name PRIMARY KEY,
	role_oid oid NOT NULL,
	granted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE @extschema@.cleanup_access IS
'roles that cleanup_grant_access() has given USAGE on the schema of the extension, because they lacked it: cleanup_revoke_access() takes it back from these alone';
COMMENT ON COLUMN @extschema@.cleanup_access.role IS 'name of the role that was given USAGE: a dump can be restored where there is no such role';
COMMENT ON COLUMN @extschema@.cleanup_access.role_oid IS 'OID of the role at that time; a later role of this name is another role';
COMMENT ON COLUMN @extschema@.cleanup_access.granted_at IS 'when the role was given USAGE';

--
-- History: runs and the audit trail of files
--

CREATE SEQUENCE @extschema@.cleanup_runs_run_id_seq;

CREATE TABLE @extschema@.cleanup_runs (
	run_id bigint PRIMARY KEY DEFAULT pg_catalog.nextval('@extschema@.cleanup_runs_run_id_seq'),
	started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	trigger text NOT NULL DEFAULT 'sql' CHECK (trigger IN ('sql', 'schedule', 'startup', 'catch-up')),
	what text NOT NULL CHECK (what IN ('orphaned_files', 'failed_sessions', 'all')),
	status text NOT NULL DEFAULT 'pending' CHECK (status IN ('running', 'pending', 'done', 'failed', 'interrupted', 'blocked')),
	files bigint NOT NULL DEFAULT 0,
	deleted bigint NOT NULL DEFAULT 0,
	skipped bigint NOT NULL DEFAULT 0,
	errors bigint NOT NULL DEFAULT 0,
	bytes bigint NOT NULL DEFAULT 0,
	orphaned_files bigint NOT NULL DEFAULT 0,
	failed_sessions bigint NOT NULL DEFAULT 0,
	requested_by name NOT NULL,
	finished_at timestamptz,
	scheduled_for date,
	message text,
	upload_dir text NOT NULL,
	settings jsonb NOT NULL,
	claim uuid,
	last_look_at timestamptz,
	captured_up_to bigint,
	other_errors bigint NOT NULL DEFAULT 0
);
ALTER SEQUENCE @extschema@.cleanup_runs_run_id_seq OWNED BY @extschema@.cleanup_runs.run_id;
CREATE UNIQUE INDEX cleanup_runs_scheduled_for ON @extschema@.cleanup_runs (scheduled_for) WHERE scheduled_for IS NOT NULL;
CREATE INDEX cleanup_runs_started ON @extschema@.cleanup_runs (started_at);
CREATE INDEX cleanup_runs_unfinished ON @extschema@.cleanup_runs (run_id) WHERE finished_at IS NULL;
COMMENT ON TABLE @extschema@.cleanup_runs IS 'history: one row for each real run';
COMMENT ON COLUMN @extschema@.cleanup_runs.run_id IS 'number of the run';
COMMENT ON COLUMN @extschema@.cleanup_runs.started_at IS 'when the run began';
COMMENT ON COLUMN @extschema@.cleanup_runs.what IS 'what the run looked for: orphaned_files, failed_sessions or all';
COMMENT ON COLUMN @extschema@.cleanup_runs.errors IS 'files that could not be dealt with';
COMMENT ON COLUMN @extschema@.cleanup_runs.orphaned_files IS 'of the files condemned, those that no row referred to';
COMMENT ON COLUMN @extschema@.cleanup_runs.failed_sessions IS 'failed sessions whose audio was condemned';
COMMENT ON COLUMN @extschema@.cleanup_runs.finished_at IS 'when the last file of the run was dealt with';
COMMENT ON COLUMN @extschema@.cleanup_runs.trigger IS
'sql: somebody called, pg_cron included; schedule, startup, catch-up: the background worker';
COMMENT ON COLUMN @extschema@.cleanup_runs.scheduled_for IS
'day of the schedule for which the run was started, at most one run for each day; NULL: the schedule has not started the run';
COMMENT ON COLUMN @extschema@.cleanup_runs.status IS
'running: being planned in batches; pending: committed, files being dealt with; done; failed: ended with errors; interrupted: cut short, what it did is kept; blocked: a brake has refused it, or it has waited too long, nothing was deleted';
COMMENT ON COLUMN @extschema@.cleanup_runs.message IS 'why the run did not come to its end; or the first of its other_errors';
COMMENT ON COLUMN @extschema@.cleanup_runs.requested_by IS 'role that asked for the run; if a SECURITY DEFINER function made the call, the role that called the function';
COMMENT ON COLUMN @extschema@.cleanup_runs.files IS 'files condemned';
COMMENT ON COLUMN @extschema@.cleanup_runs.deleted IS 'files destroyed';
COMMENT ON COLUMN @extschema@.cleanup_runs.skipped IS 'files let live: replaced, vanished, or referred to again (and put back)';
COMMENT ON COLUMN @extschema@.cleanup_runs.bytes IS 'bytes given back to the file system';
COMMENT ON COLUMN @extschema@.cleanup_runs.upload_dir IS 'name of the upload directory at the time of the run';
COMMENT ON COLUMN @extschema@.cleanup_runs.claim IS
'the claim of the upload directory to which the files belong: see cleanup_claims, which knows where the directory is now; NULL: the run did not come so far';
COMMENT ON COLUMN @extschema@.cleanup_runs.captured_up_to IS
'files of the run in state pending, without an error, and with a file_id up to this are in the trash; NULL: not known of any';
COMMENT ON COLUMN @extschema@.cleanup_runs.other_errors IS
'errors that are about none of its files: a source that could not be cleared, a name that is not valid, a file that could not be looked at; the server log has them if nobody has called';
COMMENT ON COLUMN @extschema@.cleanup_runs.last_look_at IS
'when the sources were read a last time for all files that it had moved aside; what a row referred to by then was put back; NULL: not yet';
COMMENT ON COLUMN @extschema@.cleanup_runs.settings IS 'the settings in force for the run, as cleanup_config() shows them; backup_owner: the folder of its files in backup_dir';

CREATE SEQUENCE @extschema@.cleanup_files_file_id_seq CACHE 100;

-- No foreign key on run_id: its trigger would look the run up once for each
-- file, and a run that condemns a million would pay for a million look-ups of
-- a row that the same transaction has inserted.  history.c deletes the files
-- before their run.  A file without backup is inserted and updated once, and
-- that costs two entries in indexes, of the key and of what is pending, and
-- then one of the key.  The update finds room beside the old version of the
-- row (fillfactor), and so only what has changed is logged.

CREATE TABLE @extschema@.cleanup_files (
	file_id bigint NOT NULL DEFAULT pg_catalog.nextval('@extschema@.cleanup_files_file_id_seq'),
	run_id bigint NOT NULL,
	state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'trashed', 'deleted', 'restoring', 'restored', 'skipped', 'failed')),
	reason text NOT NULL CHECK (reason IN ('orphan', 'failed_session', 'unknown', 'unfinished_upload')),
	size bigint NOT NULL,
	freed bigint,
	file text COLLATE "C" NOT NULL,
	error text,
	source text,
	session_id text,
	condemned_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	due_at timestamptz NOT NULL,
	finished_at timestamptz,
	modified_at timestamptz NOT NULL,
	restore_as text,
	inode bigint NOT NULL,
	mtime_ns bigint NOT NULL,
	ctime_ns bigint NOT NULL,
	btime_ns bigint NOT NULL,
	space bigint NOT NULL DEFAULT 0,
	upload_id text,
	PRIMARY KEY (run_id, file_id)
) WITH (fillfactor = 50);
ALTER SEQUENCE @extschema@.cleanup_files_file_id_seq OWNED BY @extschema@.cleanup_files.file_id;
CREATE INDEX cleanup_files_pending ON @extschema@.cleanup_files (run_id, file_id) WHERE state = 'pending';
CREATE INDEX cleanup_files_due ON @extschema@.cleanup_files (due_at) INCLUDE (size) WHERE state = 'trashed';
-- a path may be too long for a btree
CREATE INDEX cleanup_files_backup ON @extschema@.cleanup_files USING hash (file) WHERE state = 'trashed';
CREATE INDEX cleanup_files_trashed ON @extschema@.cleanup_files (file_id) WHERE state = 'trashed';
CREATE INDEX cleanup_files_restoring ON @extschema@.cleanup_files (run_id, file_id) WHERE state IN ('restoring', 'restored');
CREATE INDEX cleanup_files_failed ON @extschema@.cleanup_files (finished_at, file_id) WHERE state = 'failed';
CREATE INDEX cleanup_files_failed_file ON @extschema@.cleanup_files USING hash (file) WHERE state = 'failed';
CREATE INDEX cleanup_files_not_over ON @extschema@.cleanup_files (run_id) WHERE state NOT IN ('deleted', 'skipped', 'pending');
CREATE INDEX cleanup_files_times ON @extschema@.cleanup_files USING brin (condemned_at, finished_at);
COMMENT ON TABLE @extschema@.cleanup_files IS 'audit trail: one row for each file that a real run condemned';
COMMENT ON COLUMN @extschema@.cleanup_files.file_id IS 'number of the row';
COMMENT ON COLUMN @extschema@.cleanup_files.run_id IS 'the run that condemned the file; see cleanup_runs';
COMMENT ON COLUMN @extschema@.cleanup_files.error IS 'why the file failed, was skipped, or is put back; NULL: nothing to say';
COMMENT ON COLUMN @extschema@.cleanup_files.source IS 'name of the source of the failed session, schema-qualified and quoted; NULL: an orphan';
COMMENT ON COLUMN @extschema@.cleanup_files.session_id IS 'the failed session; NULL: an orphan';
COMMENT ON COLUMN @extschema@.cleanup_files.condemned_at IS 'when the run condemned the file';
COMMENT ON COLUMN @extschema@.cleanup_files.finished_at IS 'when the file was destroyed, put back, skipped, or failed; NULL: not yet';
COMMENT ON COLUMN @extschema@.cleanup_files.modified_at IS 'modification time of the file';
COMMENT ON COLUMN @extschema@.cleanup_files.mtime_ns IS 'modification time, in nanoseconds since 1970';
COMMENT ON COLUMN @extschema@.cleanup_files.ctime_ns IS 'time of the last change of the inode, in nanoseconds since 1970';
COMMENT ON COLUMN @extschema@.cleanup_files.btime_ns IS 'birth time, in nanoseconds since 1970; 0: the file system does not tell';
COMMENT ON COLUMN @extschema@.cleanup_files.file IS 'path relative to the upload directory';
COMMENT ON COLUMN @extschema@.cleanup_files.reason IS
'orphan: no row referred to it; failed_session: only a failed one did; unknown: it was found in the trash, without the row of its run; unfinished_upload: it was no file yet, but an upload that was begun and never completed: see upload_id';
COMMENT ON COLUMN @extschema@.cleanup_files.state IS
'pending: condemned, and moved aside if cleanup_runs.captured_up_to says so; trashed: moved aside; deleted; restoring: to be put back; restored; skipped: it was replaced, vanished or is referred to again; failed: see error, the next run tries again';
COMMENT ON COLUMN @extschema@.cleanup_files.restore_as IS 'name under which the file is put back; NULL: its own name';
COMMENT ON COLUMN @extschema@.cleanup_files.size IS 'size of the file in bytes';
COMMENT ON COLUMN @extschema@.cleanup_files.space IS 'bytes that the file takes on the disk, at most its size; 0 while it has another hard link';
COMMENT ON COLUMN @extschema@.cleanup_files.due_at IS 'when the trashed file is destroyed';
COMMENT ON COLUMN @extschema@.cleanup_files.freed IS 'bytes given back to the file system: 0 while another hard link stands';
COMMENT ON COLUMN @extschema@.cleanup_files.upload_id IS 'the number that the server of a bucket has given to an upload; modified_at is when it was begun, size the bytes of its parts once it is ended; NULL: the row is about a file';
COMMENT ON COLUMN @extschema@.cleanup_files.inode IS 'with size, mtime_ns, ctime_ns and btime_ns the identity of the file: another file of the same name is never touched';

CREATE TABLE @extschema@.cleanup_cleared (
	run_id bigint NOT NULL,
	source text NOT NULL,
	session_id text NOT NULL,
	column_name name NOT NULL,
	value text NOT NULL,
	cleared_id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
	key_columns text[],
	row_key text
);
CREATE INDEX cleanup_cleared_run_id ON @extschema@.cleanup_cleared (run_id);
COMMENT ON TABLE @extschema@.cleanup_cleared IS
'what stood in the file columns of failed sessions before on_failed => ''clear'' made them NULL; kept as long as the backup of their audio';
COMMENT ON COLUMN @extschema@.cleanup_cleared.cleared_id IS 'names the row';
COMMENT ON COLUMN @extschema@.cleanup_cleared.run_id IS 'the run that cleared the session; see cleanup_runs';
COMMENT ON COLUMN @extschema@.cleanup_cleared.session_id IS 'the failed session';
COMMENT ON COLUMN @extschema@.cleanup_cleared.column_name IS 'the file column that was made NULL';
COMMENT ON COLUMN @extschema@.cleanup_cleared.value IS 'what stood in the column before';
COMMENT ON COLUMN @extschema@.cleanup_cleared.source IS 'name of the source, schema-qualified and quoted';
COMMENT ON COLUMN @extschema@.cleanup_cleared.key_columns IS 'columns of the table that name one row: its primary key, or those of a unique index; NULL: version 1.0 has cleared it, the id_column of the source names the row';
COMMENT ON COLUMN @extschema@.cleanup_cleared.row_key IS 'values of key_columns, as the text of an array: only this row is filled again';

--
-- Claims: the twin of the file in the upload directory.  Its content is not
-- dumped on purpose: a restored dump must not pass for the owner.
--

CREATE TABLE @extschema@.cleanup_claims (
	uuid uuid PRIMARY KEY,
	upload_dir text NOT NULL,
	claimed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	grace_from timestamptz,
	confirmed boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE @extschema@.cleanup_claims IS 'upload directories that belong to this database; not carried by pg_dump';
COMMENT ON COLUMN @extschema@.cleanup_claims.uuid IS 'the UUID that the claim in the directory bears';
COMMENT ON COLUMN @extschema@.cleanup_claims.claimed_at IS 'when this database claimed the directory';
COMMENT ON COLUMN @extschema@.cleanup_claims.upload_dir IS 'where the directory was seen last';
COMMENT ON COLUMN @extschema@.cleanup_claims.grace_from IS 'no file counts as older than this time; NULL: each file has its own age';
COMMENT ON COLUMN @extschema@.cleanup_claims.confirmed IS 'the claim has been seen in the directory';

--
-- Holds: files that are never cleaned
--

CREATE TABLE @extschema@.cleanup_holds (
	file text COLLATE "C" PRIMARY KEY,
	reason text,
	held_by name NOT NULL,
	held_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE @extschema@.cleanup_holds IS
'files that are never cleaned, whoever asks; maintained by cleanup_hold() and cleanup_release()';
COMMENT ON COLUMN @extschema@.cleanup_holds.reason IS 'why the file is held, in the words of the role that holds the file; NULL: the role gave no reason';
COMMENT ON COLUMN @extschema@.cleanup_holds.held_by IS 'the role that holds the file';
COMMENT ON COLUMN @extschema@.cleanup_holds.held_at IS 'when the hold was made';
COMMENT ON COLUMN @extschema@.cleanup_holds.file IS 'path relative to the upload directory';

CREATE VIEW @extschema@.cleanup_backups AS
SELECT f.file, f.run_id, f.condemned_at AS trashed_at, f.size, f.reason, f.session_id, f.due_at AS expires_at,
	CASE WHEN coalesce(c.upload_dir, r.upload_dir) LIKE 's3://%'
		THEN coalesce(c.upload_dir, r.upload_dir)
		WHEN r.settings ->> 'backup_owner' IS NULL OR r.settings ->> 'backup_dir' = ''
		THEN coalesce(c.upload_dir, r.upload_dir) || '/.audio_cleanup/trash/' || f.run_id
		ELSE (r.settings ->> 'backup_dir') || '/' || (r.settings ->> 'backup_owner') || '/' || f.run_id
	END || '/' || f.file AS path,
	pg_catalog.sum(f.size) OVER () AS total_size
FROM @extschema@.cleanup_files f JOIN @extschema@.cleanup_runs r ON r.run_id = f.run_id
	LEFT JOIN @extschema@.cleanup_claims c ON c.uuid = r.claim
WHERE (f.state = 'pending' OR f.state = 'trashed') AND f.due_at > f.condemned_at;
COMMENT ON VIEW @extschema@.cleanup_backups IS
'cleaned files that are still kept aside: cleanup_restore() puts them back';
COMMENT ON COLUMN @extschema@.cleanup_backups.run_id IS 'the run that cleaned the file';
COMMENT ON COLUMN @extschema@.cleanup_backups.trashed_at IS 'when the file was condemned (condemned_at in cleanup_files); some moments later the file was in the trash';
COMMENT ON COLUMN @extschema@.cleanup_backups.reason IS 'orphan, failed_session or unknown, as in cleanup_files';
COMMENT ON COLUMN @extschema@.cleanup_backups.session_id IS 'the failed session; NULL: an orphan';
COMMENT ON COLUMN @extschema@.cleanup_backups.expires_at IS 'when the backup is due to be destroyed (due_at in cleanup_files)';
COMMENT ON COLUMN @extschema@.cleanup_backups.file IS 'path relative to the upload directory';
COMMENT ON COLUMN @extschema@.cleanup_backups.size IS 'size of the file in bytes';
COMMENT ON COLUMN @extschema@.cleanup_backups.path IS
'where the file lies, for a person who has to do without the database; in a bucket: its key, below a delete marker';
COMMENT ON COLUMN @extschema@.cleanup_backups.total_size IS 'bytes of all backups';

--
-- Figures that only grow, whatever of the history is forgotten
--

CREATE TABLE @extschema@.cleanup_totals (
	name text COLLATE "C",
	label text COLLATE "C",
	value numeric NOT NULL,
	PRIMARY KEY (name, label)
);
COMMENT ON TABLE @extschema@.cleanup_totals IS
'the counters of cleanup_metrics, since the extension was created; maintained by triggers on cleanup_files and cleanup_runs';
COMMENT ON COLUMN @extschema@.cleanup_totals.name IS 'name of the figure, without the prefix that cleanup_metrics gives it';
COMMENT ON COLUMN @extschema@.cleanup_totals.value IS 'files, runs or bytes, as the name says';
COMMENT ON COLUMN @extschema@.cleanup_totals.label IS 'reason or status that is counted; empty: the figure has no label';

CREATE FUNCTION @extschema@.cleanup_count_files() RETURNS trigger
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_count_files() IS
'trigger: adds files that have come to their end to cleanup_totals';
CREATE FUNCTION @extschema@.cleanup_count_runs() RETURNS trigger
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_count_runs() IS
'trigger: adds runs that have come to their end to cleanup_totals';

CREATE TRIGGER cleanup_count_files AFTER UPDATE ON @extschema@.cleanup_files
	REFERENCING OLD TABLE AS cleanup_old NEW TABLE AS cleanup_new
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.cleanup_count_files();
CREATE TRIGGER cleanup_count_runs AFTER UPDATE ON @extschema@.cleanup_runs
	REFERENCING OLD TABLE AS cleanup_old NEW TABLE AS cleanup_new
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.cleanup_count_runs();
COMMENT ON TRIGGER cleanup_count_files ON @extschema@.cleanup_files IS 'keeps cleanup_totals';
COMMENT ON TRIGGER cleanup_count_runs ON @extschema@.cleanup_runs IS 'keeps cleanup_totals';

--
-- The built-in schedule, as it was last seen; not dumped either
--

CREATE TABLE @extschema@.cleanup_schedule (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	schedule_hour int NOT NULL,
	timezone text NOT NULL,
	since timestamptz NOT NULL
);
COMMENT ON TABLE @extschema@.cleanup_schedule IS
'since when the built-in schedule is in force in this database: what was missed before is not caught up; maintained by the background worker; not carried by pg_dump';
COMMENT ON COLUMN @extschema@.cleanup_schedule.only_row IS 'always true: the table has one row';
COMMENT ON COLUMN @extschema@.cleanup_schedule.schedule_hour IS 'audio_cleanup.cleanup_schedule_hour';
COMMENT ON COLUMN @extschema@.cleanup_schedule.timezone IS 'name of the time zone of the hour';
COMMENT ON COLUMN @extschema@.cleanup_schedule.since IS 'since when schedule_hour and timezone have been in force';

--
-- Mails to be sent, about runs that have ended; not dumped: a restored
-- database has nothing to tell
--

CREATE TABLE @extschema@.cleanup_mail (
	run_id bigint PRIMARY KEY,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	next_try_at timestamptz DEFAULT pg_catalog.clock_timestamp(),
	tries int NOT NULL DEFAULT 0,
	sent_at timestamptz,
	sent_to text[] NOT NULL DEFAULT '{}',
	error text
);
CREATE INDEX cleanup_mail_waiting ON @extschema@.cleanup_mail (next_try_at) WHERE next_try_at IS NOT NULL;
COMMENT ON TABLE @extschema@.cleanup_mail IS
'the outbox: one row for each run that mail is sent about; maintained by a background worker; rows are forgotten after 30 days; not carried by pg_dump';
COMMENT ON COLUMN @extschema@.cleanup_mail.run_id IS 'the run that the mail is about';
COMMENT ON COLUMN @extschema@.cleanup_mail.created_at IS 'when the run ended';
COMMENT ON COLUMN @extschema@.cleanup_mail.tries IS 'number of tries to send the mail';
COMMENT ON COLUMN @extschema@.cleanup_mail.next_try_at IS 'NULL: sent, or if sent_at is NULL too, given up after two days';
COMMENT ON COLUMN @extschema@.cleanup_mail.sent_at IS 'when all receivers had got the mail';
COMMENT ON COLUMN @extschema@.cleanup_mail.sent_to IS 'addresses for which the mail server has taken the mail';
COMMENT ON COLUMN @extschema@.cleanup_mail.error IS 'what went wrong at the last try, in the words of the mail server';

--
-- To look
--

CREATE FUNCTION @extschema@.cleanup_config() RETURNS jsonb
LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_config() IS
'returns the settings in force in this session, by name';

CREATE FUNCTION @extschema@.cleanup_status() RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_status() IS
'returns what a run would do now; deletes nothing; works on a standby; what would stop a run is in "errors" and is no ERROR';

CREATE FUNCTION @extschema@.cleanup_explain(file text) RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_explain(text) IS
'file: path relative to the upload directory; returns whether the file would be kept or condemned, and why; ERROR if the path leads out of the upload directory, or if the directory or a source cannot be used';

CREATE FUNCTION @extschema@.cleanup_next_run(OUT next_run timestamptz, OUT reason text, OUT timezone text)
LANGUAGE C STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_next_run() IS
'when the built-in schedule cleans this database next (NULL: never), why then or why never, and in which time zone its hour is';

CREATE FUNCTION @extschema@.cleanup_progress(
	OUT pid int, OUT datname name, OUT run_id bigint, OUT trigger text, OUT dry_run boolean, OUT phase text,
	OUT files_walked bigint, OUT files_matched bigint, OUT files_condemned bigint, OUT files_done bigint,
	OUT bytes_freed bigint, OUT started_at timestamptz, OUT elapsed interval, OUT remaining interval)
RETURNS SETOF record
LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_progress() IS 'what the view of this name shows';

CREATE VIEW @extschema@.cleanup_progress AS SELECT * FROM @extschema@.cleanup_progress();
COMMENT ON VIEW @extschema@.cleanup_progress IS
'a row for each run under way in the cluster, in any session; empty unless audio_cleanup is in shared_preload_libraries';
COMMENT ON COLUMN @extschema@.cleanup_progress.pid IS 'process that makes the run';
COMMENT ON COLUMN @extschema@.cleanup_progress.datname IS 'database of the run';
COMMENT ON COLUMN @extschema@.cleanup_progress.trigger IS 'sql, schedule, startup or catch-up, as in cleanup_runs';
COMMENT ON COLUMN @extschema@.cleanup_progress.dry_run IS 'true: nothing is deleted';
COMMENT ON COLUMN @extschema@.cleanup_progress.bytes_freed IS 'bytes given back to the file system';
COMMENT ON COLUMN @extschema@.cleanup_progress.started_at IS 'when the run began';
COMMENT ON COLUMN @extschema@.cleanup_progress.elapsed IS 'time since started_at';
COMMENT ON COLUMN @extschema@.cleanup_progress.run_id IS 'number of the run; NULL while the run is not recorded: a dry run, or before the files are known';
COMMENT ON COLUMN @extschema@.cleanup_progress.phase IS
'starting, walking, matching, judging, waiting for writers, condemning, capturing, deleting';
COMMENT ON COLUMN @extschema@.cleanup_progress.files_walked IS 'audio files seen in the upload directory';
COMMENT ON COLUMN @extschema@.cleanup_progress.files_matched IS 'of these, referred to by a row';
COMMENT ON COLUMN @extschema@.cleanup_progress.files_condemned IS 'files to be dealt with';
COMMENT ON COLUMN @extschema@.cleanup_progress.files_done IS 'of these, dealt with by this process';
COMMENT ON COLUMN @extschema@.cleanup_progress.remaining IS 'estimate of the time that is left; NULL while there is nothing to go by';

CREATE FUNCTION @extschema@.cleanup_check(OUT check_name text, OUT status text, OUT detail text, OUT hint text)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_check() IS
'a doctor for the installation: a row for each thing looked at; status is ok, warning or error; what is wrong is a row and no ERROR';

CREATE FUNCTION @extschema@.cleanup_check_rows(
	backup_days int, sends_mail boolean, OUT check_name text, OUT status text, OUT detail text, OUT hint text)
RETURNS SETOF record
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	WITH settings AS (
		SELECT current_setting('audio_cleanup.orphaned_file_retention_hours')::int AS hours,
			current_setting('audio_cleanup.file_age') AS file_age,
			current_setting('max_worker_processes')::int AS workers),
	-- backups that have expired wait for the next night
	outstanding AS (
		SELECT count(*) FILTER (WHERE f.state <> 'trashed') AS pending,
			count(*) FILTER (WHERE f.state = 'trashed' AND f.due_at <= clock_timestamp()
				- CASE WHEN f.due_at > f.condemned_at THEN interval '25 hours' ELSE interval '0' END) AS due
		FROM @extschema@.cleanup_files f
		WHERE (f.state = 'pending' OR f.state = 'restoring' OR f.state = 'trashed') AND f.condemned_at < now() - interval '1 minute'),
	backups AS (
		SELECT count(*) AS files, count(f.error) AS stuck, round(coalesce(sum(f.size), 0) / 1048576, 2) AS mib
		FROM @extschema@.cleanup_files f WHERE f.state = 'trashed' AND f.due_at > f.condemned_at),
	mails AS (
		SELECT count(*) FILTER (WHERE m.next_try_at IS NOT NULL) AS waiting,
			count(*) FILTER (WHERE m.next_try_at IS NULL AND m.created_at > now() - interval '9 days') AS given_up,
			(array_agg(m.error ORDER BY m.created_at DESC) FILTER (WHERE m.error IS NOT NULL))[1] AS error
		FROM @extschema@.cleanup_mail m WHERE m.sent_at IS NULL AND m.tries > 0),
	writers AS (
		SELECT string_agg(DISTINCT coalesce(quote_ident(r.rolname), 'PUBLIC'), ', ') AS roles
		FROM pg_extension e
			JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
			JOIN pg_class c ON c.oid = d.objid
			CROSS JOIN LATERAL aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
		WHERE e.extname = 'audio_cleanup' AND a.grantee <> c.relowner AND a.privilege_type <> 'SELECT')
	SELECT c.check_name, c.status, c.detail, c.hint
	FROM settings s, outstanding o, backups b, mails m, writers w, LATERAL (VALUES
		(1, s.hours = 0, 'settings', 'warning',
			'orphaned_file_retention_hours is 0: a file is an orphan as soon as it is uploaded',
			'Leave the application the time that it needs to commit its row.'),
		(2, s.file_age = 'mtime', 'settings', 'warning',
			'file_age is mtime: a file that was copied with its old time stamp is old at once',
			'The default, newest, gives restored and moved files their grace period.'),
		(3, o.pending + o.due > 0, 'outstanding', 'warning',
			format('%s files are still to be captured or restored and %s to be deleted since more than a minute', o.pending, o.due),
			'The next run takes them up. If they stay, see the server log.'),
		(4, o.pending + o.due = 0, 'outstanding', 'ok', 'no file of an earlier run is waiting', NULL),
		(5, b.stuck > 0, 'backups', 'warning',
			format('%s backed-up files are needed again, and could not be put back', b.stuck),
			'See cleanup_files, column error; cleanup_restore(file, restore_as) puts one back under another name.'),
		(6, b.stuck = 0 AND (b.files > 0 OR cleanup_check_rows.backup_days > 0), 'backups', 'ok',
			format('%s backed-up files hold %s MiB; new ones are kept for %s days', b.files, b.mib, cleanup_check_rows.backup_days), NULL),
		(7, cleanup_check_rows.sends_mail AND m.waiting + m.given_up > 0, 'mail', 'warning',
			format('mails that wait to be sent again: %s, that were given up: %s; %s', m.waiting, m.given_up,
				coalesce(m.error, 'the process that sent them was ended')),
			'SELECT cleanup_send_test_mail() tries it now; cleanup_mail has a row for each.'),
		(8, s.workers = 0, 'workers', 'warning',
			'max_worker_processes is 0: deleted files give back their space only with the next call',
			'Raise max_worker_processes.'),
		(9, s.workers > 0, 'workers', 'ok',
			format('max_worker_processes is %s; one is needed for a moment after a run', s.workers), NULL),
		(10, w.roles IS NOT NULL, 'rights', 'warning', format('tables of the extension can be written to by: %s', w.roles),
			'Who writes to them decides which files go: REVOKE that, and see ALTER DEFAULT PRIVILEGES.')
	) c(number, applies, check_name, status, detail, hint)
	WHERE c.applies ORDER BY c.number;
END;
COMMENT ON FUNCTION @extschema@.cleanup_check_rows(int, boolean) IS
'what cleanup_check() says of the settings and of the extension''s own tables; backup_days: for how long new backups are kept; sends_mail: whether mails that were not delivered are worth a row';

CREATE FUNCTION @extschema@.cleanup_check_findings(
	look jsonb, OUT check_name text, OUT status text, OUT detail text, OUT hint text)
RETURNS SETOF record
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	WITH seen AS (
		SELECT l.brakes, l.surveyed, l.upload_dir, l.is_ours, l.errors, l.sources, l.files_seen, l.files_referenced, l.rows_seen, l.condemned,
			l.unmatched, l.warnings, l.uploads, l.uploads_error, l.oldest_upload, l.uploads_to_end, l.uploads_forgotten,
			l.mail_off, l.mail_error, l.mail_addresses, l.next_run, l.next_run_reason, l.timezone,
			current_setting('audio_cleanup.s3_abort_uploads_after_days')::int > 0 AS ends_uploads,
			l.files_seen > 0 AND l.files_referenced = 0 AND l.rows_seen > 0 AS useless
		FROM jsonb_to_record(cleanup_check_findings.look) l(brakes jsonb, surveyed boolean, upload_dir text, is_ours boolean, errors jsonb, sources jsonb,
			files_seen bigint, files_referenced bigint, rows_seen bigint, condemned bigint, unmatched text, warnings jsonb,
			uploads bigint, uploads_error text, oldest_upload text, uploads_to_end bigint, uploads_forgotten boolean,
			mail_off text, mail_error text, mail_addresses int, next_run text, next_run_reason text, timezone text))
	-- part: the place of the row in the result
	SELECT c.check_name, c.status, c.detail, c.hint
	FROM (
		SELECT 1 AS part, b.n, b.value ->> 'name' AS check_name, 'error' AS status,
			concat_ws('. ', b.value ->> 'message', b.value ->> 'detail') AS detail, b.value ->> 'hint' AS hint
		FROM seen l, jsonb_array_elements(l.brakes) WITH ORDINALITY b(value, n)
		UNION ALL
		SELECT 2, e.n, 'file', 'warning', e.text, 'Rename or remove the file by hand.'
		FROM seen l, jsonb_array_elements_text(l.errors) WITH ORDINALITY e(text, n)
		UNION ALL
		SELECT v.part, s.n * 1000000 + v.n, v.check_name, v.status, v.detail, v.hint
		FROM seen l, jsonb_array_elements(l.sources) WITH ORDINALITY s(value, n), LATERAL (
			SELECT 5, 0, 'source', 'ok', format('%s can be read as its owner', s.value ->> 'name'), NULL
			WHERE NOT l.brakes @@ '$[*].name == "source" || $[*].name == "no_source"'
			UNION ALL
			SELECT 7, 0, 'source_references', 'ok',
				format('%s has %s rows and refers to %s of the files', s.value ->> 'name', s.value ->> 'rows', s.value ->> 'files'), NULL
			WHERE l.surveyed
			UNION ALL
			SELECT 8, t.n, 'failed_statuses', 'warning', t.text, 'Register the source anew with the statuses that mean failure.'
			FROM jsonb_array_elements_text(s.value -> 'statuses') WITH ORDINALITY t(text, n)) v(part, n, check_name, status, detail, hint)
		UNION ALL
		SELECT 10, w.n, 'unregistered', 'warning', w.text, 'If it refers to files, register it with cleanup_add_source().'
		FROM seen l, jsonb_array_elements_text(l.warnings) WITH ORDINALITY w(text, n)
		UNION ALL
		SELECT v.part, 0, v.check_name, v.status, v.detail, v.hint
		FROM seen l, LATERAL (VALUES
			(3, NOT l.brakes @@ '$[*].name == "upload_dir"', 'upload_dir', 'ok', format('"%s" can be read and written', l.upload_dir), NULL),
			(4, l.is_ours IS NOT NULL, 'claim', 'ok', CASE WHEN l.is_ours THEN 'the upload directory belongs to this database'
				ELSE 'nobody has claimed the upload directory; the first run will' END, NULL),
			(6, l.surveyed, 'references', CASE WHEN l.useless THEN 'warning' ELSE 'ok' END,
				format('%s of %s audio files are referred to by %s rows; a run would delete %s', l.files_referenced, l.files_seen, l.rows_seen, l.condemned),
				CASE WHEN l.useless THEN
					'Check that the registered columns hold the names of these files; cleanup_explain() shows what it finds for one file.' END),
			(9, l.surveyed AND l.files_seen > l.files_referenced, 'unmatched', 'ok',
				format('%s of the files match in no source%s', l.files_seen - l.files_referenced, l.unmatched), NULL),
			(11, l.uploads_error IS NOT NULL, 'uploads', CASE WHEN l.ends_uploads THEN 'error' ELSE 'warning' END,
				l.uploads_error, 'The user of the bucket needs the rights of docs/buckets.md.'),
			(12, l.uploads = 0 AND l.uploads_error IS NULL, 'uploads', 'ok', 'no upload waits to be completed', NULL),
			(13, l.uploads > 0 AND l.uploads_error IS NULL, 'uploads', CASE WHEN l.uploads_forgotten THEN 'warning' ELSE 'ok' END,
				format('%s uploads were begun and are not completed, the oldest at %s; a run would end %s', l.uploads, l.oldest_upload, l.uploads_to_end),
				CASE WHEN NOT l.ends_uploads THEN 'audio_cleanup.s3_abort_uploads_after_days ends those that are older.' END),
			(14, l.mail_off IS NOT NULL, 'mail', 'ok', format('no mail is sent: %s', l.mail_off), NULL),
			(15, l.mail_error IS NOT NULL, 'mail', 'error', format('no mail can be sent: %s', l.mail_error),
				'A mail waits for two days; SELECT cleanup_send_test_mail() shows whether mail can be sent.'),
			(16, l.mail_off IS NULL AND l.mail_error IS NULL, 'mail', 'ok', format('mail about %s goes to %s address%s by %s',
				CASE current_setting('audio_cleanup.mail_on') WHEN 'problems' THEN 'problems' WHEN 'changes' THEN 'problems and changes' ELSE 'every run' END,
				l.mail_addresses, CASE WHEN l.mail_addresses <> 1 THEN 'es' END, current_setting('audio_cleanup.smtp_url')), NULL),
			(18, true, 'preload', 'ok', CASE WHEN position('audio_cleanup' IN current_setting('shared_preload_libraries')) > 0 THEN 'the library is preloaded'
				ELSE 'the library is not preloaded: there is no built-in schedule and no cleanup_progress' END, NULL),
			(19, true, 'schedule', 'ok', CASE WHEN l.next_run IS NOT NULL
				THEN format('the built-in schedule cleans this database next at %s (%s, %s)', l.next_run, l.next_run_reason, l.timezone)
				ELSE format('the built-in schedule does not clean this database: %s', l.next_run_reason) END, NULL)
		) v(part, applies, check_name, status, detail, hint)
		WHERE v.applies
		UNION ALL
		SELECT 17, r.n, r.check_name, r.status, r.detail, r.hint
		FROM seen l, @extschema@.cleanup_check_rows(current_setting('audio_cleanup.backup_retention_days')::int, l.mail_off IS NULL AND l.mail_error IS NULL)
			WITH ORDINALITY r(check_name, status, detail, hint, n)
	) c
	ORDER BY c.part, c.n;
END;
COMMENT ON FUNCTION @extschema@.cleanup_check_findings(jsonb) IS
'the rows of cleanup_check(), except those of the server of a bucket and of pg_cron; look: what cleanup_check() has just seen of the upload directory, the sources, mail and the schedule';

CREATE FUNCTION @extschema@.cleanup_dashboard() RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_dashboard() IS
'returns how the cleaning goes, as one self-contained page of HTML in ASCII; looks at the upload directory as cleanup_status() does; works on a standby';
CREATE FUNCTION @extschema@.cleanup_report(
	since interval DEFAULT '30 days',
	OUT day date, OUT runs bigint, OUT files bigint, OUT freed_mb numeric, OUT failed_sessions bigint,
	OUT errors bigint, OUT restored bigint, OUT blocked bigint)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	WITH limits AS (
		SELECT greatest(current_date - since, min(r.started_at)::date)::date AS first
		FROM @extschema@.cleanup_runs r HAVING count(*) > 0),
	days AS (
		SELECT (l.first + n) AS day FROM limits l, LATERAL generate_series(0, current_date - l.first) n),
	runs AS (
		SELECT r.started_at::date AS day, count(*) AS runs,
			count(*) FILTER (WHERE r.status = 'blocked') AS blocked,
			count(*) FILTER (WHERE r.status = 'failed' AND r.errors = 0) AS errors
		FROM @extschema@.cleanup_runs r
		WHERE r.started_at >= (SELECT l.first FROM limits l)
		GROUP BY 1),
	condemned AS (
		SELECT f.condemned_at::date AS day, count(*) AS files,
			count(DISTINCT (f.run_id, f.source, f.session_id)) FILTER (WHERE f.reason = 'failed_session') AS failed_sessions
		FROM @extschema@.cleanup_files f JOIN @extschema@.cleanup_runs r ON r.run_id = f.run_id
		WHERE f.condemned_at >= (SELECT l.first FROM limits l)
			AND (f.state IN ('trashed', 'deleted') OR f.state = 'pending' AND f.error IS NULL AND f.file_id <= r.captured_up_to)
		GROUP BY 1),
	ended AS (
		SELECT f.finished_at::date AS day, sum(f.freed) AS freed,
			count(*) FILTER (WHERE f.state = 'failed') AS errors,
			count(*) FILTER (WHERE f.state = 'restored') AS restored
		FROM @extschema@.cleanup_files f
		WHERE f.finished_at >= (SELECT l.first FROM limits l)
		GROUP BY 1)
	SELECT d.day, coalesce(r.runs, 0), coalesce(c.files, 0), round(coalesce(e.freed, 0) / 1048576, 2),
		coalesce(c.failed_sessions, 0), coalesce(r.errors, 0) + coalesce(e.errors, 0), coalesce(e.restored, 0),
		coalesce(r.blocked, 0)
	FROM days d LEFT JOIN runs r USING (day) LEFT JOIN condemned c USING (day) LEFT JOIN ended e USING (day)
	ORDER BY d.day;
END;
COMMENT ON FUNCTION @extschema@.cleanup_report(interval) IS
'since: how far to look back; a row for each day of the session''s time zone, from the first run in that time until today: runs begun; files cleaned (deleted or in the trash) and failed sessions cleaned, by the day on which they were condemned; MiB given back to the file system, errors and files put back, by the day on which that happened; runs that a brake has refused';

CREATE FUNCTION @extschema@.cleanup_missing_files(
	OUT source text, OUT status text, OUT file_references bigint, OUT missing bigint, OUT examples text[])
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_missing_files() IS
'a row for each source and each status in it: how many values of its file columns refer to a file, how many of these files are not there, and the first three of them; walks the directory and reads the sources, changes nothing, works on a standby; ERROR if the directory or a source cannot be read';

CREATE FUNCTION @extschema@.cleanup_metrics(
	OUT name text, OUT labels jsonb, OUT value double precision, OUT help text, OUT type text)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_metrics() IS 'what the view of this name shows';

CREATE VIEW @extschema@.cleanup_metrics AS SELECT * FROM @extschema@.cleanup_metrics();
COMMENT ON VIEW @extschema@.cleanup_metrics IS
'figures for a monitoring system, by the names of Prometheus; cheap to read: no directory is walked and no source is read';
COMMENT ON COLUMN @extschema@.cleanup_metrics.name IS 'name of the figure';
COMMENT ON COLUMN @extschema@.cleanup_metrics.help IS 'what the figure says';
COMMENT ON COLUMN @extschema@.cleanup_metrics.labels IS 'such as {"reason": "orphan"}; {} if the figure has no label';
COMMENT ON COLUMN @extschema@.cleanup_metrics.value IS 'bytes, seconds, seconds since 1970, or a number of things, as the name says';
COMMENT ON COLUMN @extschema@.cleanup_metrics.type IS 'counter: only ever grows; gauge: goes up and down';

CREATE FUNCTION @extschema@.cleanup_send_test_mail() RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_send_test_mail() IS
'sends a mail to audio_cleanup.mail_to now, and waits for the mail server; returns who has got it; ERROR with the words of the mail server if nobody has, or if the settings lack something';

--
-- What the C code asks for figures.  Their bodies are bound to the objects, not
-- to names: nobody puts others in their place by renaming a schema.
--

CREATE FUNCTION @extschema@.cleanup_metrics_rows(
	is_up boolean, free_bytes bigint, size_bytes bigint, uploads bigint,
	OUT name text, OUT labels jsonb, OUT value double precision, OUT help text, OUT type text)
RETURNS SETOF record
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	WITH counters(position, name, label, label_values, help) AS (VALUES
		(1, 'runs', 'status', '{done,failed,interrupted,blocked}'::text[], 'Runs that have ended.'),
		(2, 'failed_sessions', NULL, '{""}', 'Failed sessions whose audio was condemned.'),
		(3, 'files_deleted', 'reason', '{orphan,failed_session,unknown,unfinished_upload}', 'Files destroyed.'),
		(4, 'bytes_freed', 'reason', '{orphan,failed_session,unknown,unfinished_upload}', 'Bytes given back to the file system.'),
		(5, 'files_skipped', 'reason', '{orphan,failed_session,unknown,unfinished_upload}', 'Condemned files that were let live: replaced, vanished, or referred to again.'),
		(6, 'files_restored', 'reason', '{orphan,failed_session,unknown,unfinished_upload}', 'Files put back from the trash.'),
		(7, 'files_failed', 'reason', '{orphan,failed_session,unknown,unfinished_upload}', 'Files that could not be dealt with.')
	),
	counted AS (
		SELECT c.position, c.name || '_total' AS name, jsonb_strip_nulls(jsonb_build_object(coalesce(c.label, ''), nullif(v.label, ''))) AS labels,
			coalesce(t.value, 0)::float8 AS value, c.help, 'counter' AS type
		FROM counters c CROSS JOIN unnest(c.label_values) v(label)
			LEFT JOIN @extschema@.cleanup_totals t ON t.name = c.name AND t.label = v.label
	),
	waiting AS (
		SELECT f.condemned_at AS since FROM @extschema@.cleanup_files f WHERE f.state = 'pending'
		UNION ALL
		SELECT f.due_at FROM @extschema@.cleanup_files f WHERE f.state = 'trashed' AND f.due_at <= clock_timestamp()
	),
	pending AS (
		SELECT count(*) AS files, min(w.since) AS since FROM waiting w
	),
	backup AS (
		SELECT count(*) AS files, coalesce(sum(f.size), 0) AS bytes FROM @extschema@.cleanup_files f
		WHERE f.state = 'trashed' AND f.due_at > clock_timestamp()
	),
	success AS (
		SELECT max(r.finished_at) AS at FROM @extschema@.cleanup_runs r
		WHERE r.run_id = (SELECT max(d.run_id) FROM @extschema@.cleanup_runs d WHERE d.status = 'done')
	),
	last AS (
		SELECT r.status, r.started_at, r.finished_at, r.errors FROM @extschema@.cleanup_runs r
		WHERE r.finished_at IS NOT NULL ORDER BY r.run_id DESC LIMIT 1
	),
	gauges AS (
		SELECT g.* FROM pending p, backup b, success s, @extschema@.cleanup_next_run() n LEFT JOIN last l ON true,
			LATERAL (VALUES
				(11, 'sources', '{}'::jsonb, (SELECT count(*) FROM @extschema@.cleanup_sources)::float8, 'Registered sources.'),
				(12, 'pending_files', '{}', p.files, 'Files that are condemned, or due to be destroyed, and not dealt with yet.'),
				(13, 'oldest_pending_timestamp_seconds', '{}', extract(epoch FROM p.since), 'Since when the oldest of these waits.'),
				(14, 'backup_files', '{}', b.files, 'Files in the trash that can be restored.'),
				(15, 'backup_bytes', '{}', b.bytes, 'Bytes of these files.'),
				(16, 'unfinished_runs', '{}', (SELECT count(*) FROM @extschema@.cleanup_runs r WHERE r.finished_at IS NULL),
					'Runs that are under way, or have files that are not dealt with yet.'),
				(17, 'last_success_timestamp_seconds', '{}', coalesce(extract(epoch FROM s.at), 0),
					'When the last run that was done without an error ended; 0 if there was none.'),
				(18, 'blocked', '{}', (l.status IS NOT DISTINCT FROM 'blocked')::int, '1 if the last run was refused by a brake, else 0.'),
				(19, 'last_run_timestamp_seconds', '{}', extract(epoch FROM l.started_at), 'When the last run that has ended began.'),
				(20, 'last_run_duration_seconds', '{}', extract(epoch FROM l.finished_at - l.started_at), 'How long it took.'),
				(21, 'last_run_errors', '{}', l.errors, 'Files that it could not deal with.'),
				(22, 'last_run_status', '{"status": "done"}', (l.status = 'done')::int, '1 for the status of the last run that has ended, else 0.'),
				(22, 'last_run_status', '{"status": "failed"}', (l.status = 'failed')::int, '1 for the status of the last run that has ended, else 0.'),
				(22, 'last_run_status', '{"status": "interrupted"}', (l.status = 'interrupted')::int, '1 for the status of the last run that has ended, else 0.'),
				(22, 'last_run_status', '{"status": "blocked"}', (l.status = 'blocked')::int, '1 for the status of the last run that has ended, else 0.'),
				(23, 'schedule_enabled', '{}', (n.next_run IS NOT NULL)::int, '1 if the built-in schedule will clean this database, else 0.'),
				(24, 'next_run_timestamp_seconds', '{}', extract(epoch FROM n.next_run), 'When the built-in schedule cleans this database next.'),
				(25, 'upload_dir_up', '{}', is_up::int, '1 if the upload directory can be opened, else 0.'),
				(26, 'upload_dir_free_bytes', '{}', free_bytes, 'Bytes free in the file system of the upload directory.'),
				(27, 'upload_dir_size_bytes', '{}', size_bytes, 'Size of the file system of the upload directory in bytes.'),
				(28, 'unfinished_uploads', '{}', uploads, 'Uploads to the bucket that were begun and are not completed.')
			) g(position, name, labels, value, help)
		WHERE g.value IS NOT NULL
	)
	SELECT 'audio_cleanup_' || m.name, m.labels, m.value, m.help, m.type
	FROM (SELECT * FROM counted UNION ALL SELECT g.position, g.name, g.labels, g.value, g.help, 'gauge' FROM gauges g) m
	ORDER BY m.position, m.name;
END;
COMMENT ON FUNCTION @extschema@.cleanup_metrics_rows(boolean, bigint, bigint, bigint) IS
'the rows of cleanup_metrics; is_up: the upload directory can be opened; free_bytes and size_bytes: of its file system, NULL if they are not known; uploads: that were begun and are not completed, NULL if that is not known';

CREATE FUNCTION @extschema@.cleanup_dashboard_figures(look jsonb) RETURNS jsonb
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	-- No list has more than shown.n entries; what is counted beyond that is read by an index or in one pass.
	WITH
	shown AS (
		SELECT 10 AS n, 5 AS few, 30 AS days, 'FMDD Mon YYYY, HH24:MI' AS stamp, 'FMDD Mon, HH24:MI' AS short_stamp,
			moment, moment::date AS today
		FROM clock_timestamp() AS moment
	),
	view AS (
		SELECT cleanup_dashboard_figures.look AS taken, outcome, report,
			jsonb_path_query_array(report, '$.orphaned_files_deleted[0 to 9]') AS names,
			jsonb_path_query_array(report, '$.failed_sessions_cleaned[0 to 9]') AS ids
		FROM (SELECT cleanup_dashboard_figures.look -> 'outcome' AS outcome, cleanup_dashboard_figures.look #> '{outcome,report,potential_cleanup}' AS report) l
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
			view.outcome IS NULL AS is_broken,
			view.outcome -> 'brakes' <> '[]' AS is_blocked
		FROM view CROSS JOIN next_run n LEFT JOIN last_run l ON true
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
		'look', view.taken - 'outcome' || jsonb_build_object(
			'surveyed', view.outcome -> 'surveyed',
			'files_seen', view.outcome -> 'files_seen',
			'files_referenced', view.outcome -> 'files_referenced',
			'brakes', view.outcome -> 'brakes',
			'bytes', view.outcome -> 'bytes',
			'orphans', view.report -> 'orphaned_files_count',
			'sessions', view.report -> 'failed_sessions_count',
			'names', view.names,
			'more_names', (view.report -> 'orphaned_files_count')::bigint - jsonb_array_length(view.names),
			'ids', view.ids,
			'more_ids', (view.report -> 'failed_sessions_count')::bigint - jsonb_array_length(view.ids),
			'warnings', jsonb_path_query_array(view.outcome, '$.report.warnings[0 to 9]')),
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
	FROM shown, facts, view;
END;
COMMENT ON FUNCTION @extschema@.cleanup_dashboard_figures(jsonb) IS
'the figures of cleanup_dashboard() as one object; look: what cleanup_dashboard() has just seen of the upload directory; days are those of the session''s time zone';

CREATE FUNCTION @extschema@.cleanup_mail_figures(run_id bigint, server text) RETURNS jsonb
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	WITH
	shown AS (
		SELECT 20 AS n
	),
	files AS (
		SELECT count(*) FILTER (WHERE f.state <> 'failed') AS kept,
			count(*) FILTER (WHERE f.state = 'failed') AS failed
		FROM @extschema@.cleanup_files f JOIN @extschema@.cleanup_runs r ON r.run_id = f.run_id
		WHERE f.run_id = cleanup_mail_figures.run_id AND (f.state IN ('trashed', 'failed')
			OR f.state = 'pending' AND f.error IS NULL AND f.file_id <= r.captured_up_to)
	),
	failures AS (
		SELECT jsonb_agg(jsonb_build_object('file', left(f.file, 500), 'error', left(f.error, 500)) ORDER BY f.file) AS list
		FROM (SELECT f.file, f.error FROM @extschema@.cleanup_files f
			WHERE f.run_id = cleanup_mail_figures.run_id AND f.state = 'failed'
			ORDER BY f.file LIMIT (SELECT n FROM shown)) f
	)
	SELECT jsonb_build_object(
		'host', cleanup_mail_figures.server,
		'database', current_database(),
		'schema', (SELECT e.extnamespace::regnamespace FROM pg_extension e WHERE e.extname = 'audio_cleanup'),
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
	WHERE r.run_id = cleanup_mail_figures.run_id;
END;
COMMENT ON FUNCTION @extschema@.cleanup_mail_figures(bigint, text) IS
'the figures of the mail about a run as one object, NULL if there is no run of this run_id; server: what the mail calls the server';

--
-- To clean
--

CREATE FUNCTION @extschema@.cleanup_orphaned_files(dry_run boolean DEFAULT false, force boolean DEFAULT false) RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_orphaned_files(boolean, boolean) IS
'condemns files that no row refers to and that are older than the retention; the files go with COMMIT; dry_run: only tell what a run would do; force: override the brakes that count, once; returns what is cleaned; ERROR if a brake refuses the run';

CREATE FUNCTION @extschema@.cleanup_failed_sessions(dry_run boolean DEFAULT false, force boolean DEFAULT false) RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_failed_sessions(boolean, boolean) IS
'condemns the audio of sessions that failed longer ago than the retention; the audio goes with COMMIT; dry_run: only tell what a run would do; force: override the brakes that count, once; returns what is cleaned; ERROR if a brake refuses the run';

CREATE FUNCTION @extschema@.cleanup_all(dry_run boolean DEFAULT false, force boolean DEFAULT false) RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_all(boolean, boolean) IS
'cleanup_orphaned_files() and cleanup_failed_sessions() in one run; dry_run: only tell what a run would do; force: override the brakes that count, once; returns what is cleaned; ERROR if a brake refuses the run';

CREATE PROCEDURE @extschema@.cleanup_run(dry_run boolean DEFAULT false, force boolean DEFAULT false, INOUT result jsonb DEFAULT NULL)
LANGUAGE C AS 'MODULE_PATHNAME';
COMMENT ON PROCEDURE @extschema@.cleanup_run(boolean, boolean, jsonb) IS
'cleanup_all() for schedulers: commits in batches and can be cancelled between files; dry_run: only tell what a run would do; force: override the brakes that count, once; result: the final outcome; ERROR if a brake refuses the run, or in a transaction block unless it is a dry run';

--
-- To undo
--

CREATE FUNCTION @extschema@.cleanup_restore(run_id bigint) RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'cleanup_restore_run';
COMMENT ON FUNCTION @extschema@.cleanup_restore(bigint) IS
'run_id: a run of cleanup_runs; puts back with COMMIT what the run has cleaned, as far as there are backups; never overwrites a file; returns what is put back; ERROR if there is no such run';

CREATE FUNCTION @extschema@.cleanup_restore(file text) RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'cleanup_restore_file';
COMMENT ON FUNCTION @extschema@.cleanup_restore(text) IS
'file: path relative to the upload directory; puts the newest backup of the file back with COMMIT; never overwrites a file; returns what is put back; ERROR if there is no backup';

CREATE FUNCTION @extschema@.cleanup_restore(file text, restore_as text) RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'cleanup_restore_file';
COMMENT ON FUNCTION @extschema@.cleanup_restore(text, text) IS
'file: path relative to the upload directory; restore_as: the path under which the newest backup of the file is put back with COMMIT; never overwrites a file; returns what is put back; ERROR if there is no backup, or if restore_as is not a plain name of an audio file';

CREATE FUNCTION @extschema@.cleanup_purge_backups() RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_purge_backups() IS
'destroys with COMMIT the backups that have expired, and puts back those that a row refers to again; returns what is destroyed';

CREATE FUNCTION @extschema@.cleanup_hold(file text, reason text DEFAULT NULL) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_hold(text, text) IS
'file: path relative to the upload directory; reason: a text for people, may be NULL; from COMMIT on the file is never cleaned, until it is released; a NOTICE tells if there is no such file, a WARNING if a server may be deleting it right now';

CREATE FUNCTION @extschema@.cleanup_release(file text) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_release(text) IS
'file: path relative to the upload directory; takes the hold on the file back; returns false if there was none';

--
-- To set up
--

CREATE FUNCTION @extschema@.cleanup_add_source(
	source regclass,
	file_columns text[] DEFAULT NULL,
	id_column name DEFAULT NULL,
	status_column name DEFAULT NULL,
	failed_statuses text[] DEFAULT '{failed}',
	failed_at_column name DEFAULT NULL,
	timezone text DEFAULT 'UTC',
	on_failed text DEFAULT 'keep') RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_add_source(regclass, text[], name, name, text[], name, text, text) IS
'source: a table or view whose rows refer to files; file_columns, id_column, status_column, failed_at_column: NULL is worked out from the usual column names; failed_statuses: what a failed session has in status_column; timezone: of a failed_at_column without time zone; on_failed: keep or clear; ERROR if the source or a column cannot be used, or if the caller does not own the source';

CREATE FUNCTION @extschema@.cleanup_drop_source(source regclass) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_drop_source(regclass) IS
'source: a table or view; its rows protect no file any more; ERROR if it is not registered, or if the caller does not own it';

CREATE FUNCTION @extschema@.cleanup_claim_upload_dir() RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_claim_upload_dir() IS
'makes this database the owner of the upload directory; if another owner had it, its files get a new grace period; a NOTICE tells if the directory belongs to this database already; ERROR if the directory cannot be used';

CREATE FUNCTION @extschema@.cleanup_grant_access(role regrole, level text DEFAULT 'viewer') RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_grant_access(regrole, text) IS
'role: who may call from now on; level: viewer may look, operator may clean as well; ERROR if the caller may not grant';

CREATE FUNCTION @extschema@.cleanup_revoke_access(role regrole) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME';
COMMENT ON FUNCTION @extschema@.cleanup_revoke_access(regrole) IS
'role: takes back from this role what cleanup_grant_access() gave';

--
-- What must survive a dump
--

SELECT pg_catalog.pg_extension_config_dump('@extschema@.cleanup_sources', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.cleanup_access', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.cleanup_runs', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.cleanup_runs_run_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.cleanup_files', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.cleanup_files_file_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.cleanup_cleared', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.cleanup_holds', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.cleanup_totals', '');

--
-- Nobody but those who are granted access
--

REVOKE ALL ON @extschema@.cleanup_sources, @extschema@.cleanup_runs, @extschema@.cleanup_files,
	@extschema@.cleanup_cleared, @extschema@.cleanup_holds, @extschema@.cleanup_backups,
	@extschema@.cleanup_access, @extschema@.cleanup_seen, @extschema@.cleanup_claims, @extschema@.cleanup_schedule, @extschema@.cleanup_progress,
	@extschema@.cleanup_totals, @extschema@.cleanup_metrics, @extschema@.cleanup_mail FROM PUBLIC;
REVOKE ALL ON SEQUENCE @extschema@.cleanup_runs_run_id_seq, @extschema@.cleanup_files_file_id_seq FROM PUBLIC;
REVOKE ALL ON FUNCTION
	@extschema@.cleanup_config(),
	@extschema@.cleanup_status(),
	@extschema@.cleanup_explain(text),
	@extschema@.cleanup_next_run(),
	@extschema@.cleanup_progress(),
	@extschema@.cleanup_check(),
	@extschema@.cleanup_dashboard(),
	@extschema@.cleanup_report(interval),
	@extschema@.cleanup_missing_files(),
	@extschema@.cleanup_metrics(),
	@extschema@.cleanup_check_rows(int, boolean),
	@extschema@.cleanup_check_findings(jsonb),
	@extschema@.cleanup_metrics_rows(boolean, bigint, bigint, bigint),
	@extschema@.cleanup_dashboard_figures(jsonb),
	@extschema@.cleanup_mail_figures(bigint, text),
	@extschema@.cleanup_send_test_mail(),
	@extschema@.cleanup_count_files(),
	@extschema@.cleanup_count_runs(),
	@extschema@.cleanup_orphaned_files(boolean, boolean),
	@extschema@.cleanup_failed_sessions(boolean, boolean),
	@extschema@.cleanup_all(boolean, boolean),
	@extschema@.cleanup_restore(bigint),
	@extschema@.cleanup_restore(text),
	@extschema@.cleanup_restore(text, text),
	@extschema@.cleanup_purge_backups(),
	@extschema@.cleanup_hold(text, text),
	@extschema@.cleanup_release(text),
	@extschema@.cleanup_add_source(regclass, text[], name, name, text[], name, text, text),
	@extschema@.cleanup_drop_source(regclass),
	@extschema@.cleanup_claim_upload_dir(),
	@extschema@.cleanup_grant_access(regrole, text),
	@extschema@.cleanup_revoke_access(regrole)
FROM PUBLIC;
REVOKE ALL ON PROCEDURE @extschema@.cleanup_run(boolean, boolean, jsonb) FROM PUBLIC;
