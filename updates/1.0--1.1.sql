/* audio_cleanup--1.0--1.1.sql */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION audio_cleanup UPDATE" to load this file. \quit

ALTER TABLE @extschema@.cleanup_runs
	ADD COLUMN claim uuid,
	ADD COLUMN last_look_at timestamptz,
	ADD COLUMN captured_up_to bigint,
	ADD COLUMN other_errors bigint NOT NULL DEFAULT 0;
ALTER TABLE @extschema@.cleanup_files
	ADD COLUMN space bigint NOT NULL DEFAULT 0,
	ADD COLUMN upload_id text,
	DROP CONSTRAINT cleanup_files_reason_check,
	ADD CONSTRAINT cleanup_files_reason_check CHECK (reason OPERATOR(pg_catalog.=) ANY (ARRAY['orphan', 'failed_session', 'unknown', 'unfinished_upload'])),
	SET (fillfactor = 50);
ALTER TABLE @extschema@.cleanup_cleared
	ADD COLUMN cleared_id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
	ADD COLUMN key_columns text[],
	ADD COLUMN row_key text;
ALTER TABLE @extschema@.cleanup_totals ALTER COLUMN value TYPE numeric;

-- triggers that other roles may have added do not run with our rights
SET LOCAL session_replication_role = replica;

-- runs belong to the claim of the directory, no more to its name
UPDATE @extschema@.cleanup_runs r SET claim = c.uuid
FROM @extschema@.cleanup_claims c WHERE c.upload_dir OPERATOR(pg_catalog.=) r.upload_dir;
UPDATE @extschema@.cleanup_files SET space = size
WHERE state OPERATOR(pg_catalog.<>) ALL ('{deleted,skipped}'::pg_catalog.text[]);

SET LOCAL session_replication_role = origin;

ALTER TABLE @extschema@.cleanup_files
	DROP CONSTRAINT cleanup_files_pkey, ADD PRIMARY KEY (run_id, file_id);
DROP INDEX @extschema@.cleanup_files_run_id, @extschema@.cleanup_files_restoring, @extschema@.cleanup_files_not_over,
	@extschema@.cleanup_files_backup;

-- made again, for the runs of the schedule only
DROP INDEX @extschema@.cleanup_runs_scheduled_for;
