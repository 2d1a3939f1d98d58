--
-- What every regression test begins with: \i test/fixture.sql
--
-- A new extension (so the first run is run 1), an empty upload directory, the
-- sessions table of a real application, and the functions of schema t, which
-- touch the upload directory with the server's own hands.
--
\set ECHO none
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS audio_cleanup CASCADE;
DROP SCHEMA IF EXISTS t CASCADE;
DROP TABLE IF EXISTS sessions CASCADE;
CREATE EXTENSION audio_cleanup;

CREATE TABLE sessions (
	id uuid PRIMARY KEY,
	patient_id uuid,
	therapist_id uuid,
	session_date timestamp NOT NULL,
	duration_seconds int,
	audio_filename varchar(255),
	audio_url text,
	transcript_text text,
	transcript_segments jsonb,
	status varchar(50) DEFAULT 'pending',
	error_message text,
	created_at timestamp,
	updated_at timestamp,
	processed_at timestamp
);
CREATE INDEX ON sessions (status);

CREATE SCHEMA t;
GRANT USAGE ON SCHEMA t TO PUBLIC;

-- the upload directory of this session
CREATE FUNCTION t.dir() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$
	SELECT CASE WHEN d ~ '^/' THEN d ELSE current_setting('data_directory') || '/' || d END
	FROM current_setting('audio_cleanup.upload_dir') d
$$;

-- a text as one word of the shell
CREATE FUNCTION t.word(word text) RETURNS text LANGUAGE sql AS $$
	SELECT '''' || replace(word, '''', '''\''''') || ''''
$$;

-- run a shell command in the upload directory
CREATE FUNCTION t.sh(command text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	EXECUTE format('COPY (SELECT WHERE false) TO PROGRAM %L',
				   'cd ' || t.word(t.dir()) || ' && ' || command);
END $$;

-- the same, for what it prints
CREATE FUNCTION t.lines(command text) RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	CREATE TEMPORARY TABLE t_lines (n serial, line text);
	EXECUTE format('COPY t_lines (line) FROM PROGRAM %L (FORMAT csv, DELIMITER E''\x01'', QUOTE E''\x02'', ESCAPE E''\x02'')',
				   'cd ' || t.word(t.dir()) || ' && ' || command);
	RETURN QUERY SELECT line FROM t_lines ORDER BY n;
	DROP TABLE t_lines;
END $$;

-- an empty upload directory; the extension's own folder in it stays
CREATE FUNCTION t.reset() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('COPY (SELECT WHERE false) TO PROGRAM %L',
				   format('mkdir -p %1$s && cd %1$s && find . -name .audio_cleanup -prune -o -type d ! -perm -u+rwx -exec chmod u+rwx {} \;'
						  ' && find . -mindepth 1 -maxdepth 1 ! -name .audio_cleanup -exec rm -rf {} +', t.word(t.dir())));
END $$;

-- a file: so many hours old, its content "audio of <path>" or so many bytes
CREATE FUNCTION t.file(path text, hours numeric DEFAULT 48, bytes bigint DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
	SELECT t.sh(format('f=./%s; mkdir -p -- "$(dirname -- "$f")" && %s > "$f" && touch -d "%s minutes ago" -- "$f"',
					   t.word(path),
					   CASE WHEN bytes IS NULL THEN 'echo "audio of $f"' ELSE format('head -c %s /dev/zero', bytes) END,
					   round(hours * 60)))
$$;

-- n files 001.mp3, 002.mp3, ..., 48 hours old
CREATE FUNCTION t.files(n int, suffix text DEFAULT '.mp3') RETURNS void LANGUAGE sql AS $$
	SELECT t.sh(format('for i in $(seq -w 001 %s); do echo "audio of $i" > "$i"%s; touch -d "-48 hours" "$i"%2$s; done',
					   lpad(n::text, 3, '0'), t.word(suffix)))
$$;

-- what an application sees in the upload directory: type, size, name
CREATE FUNCTION t.tree() RETURNS TABLE (entry text) LANGUAGE sql AS $$
	SELECT t.lines('find . -mindepth 1 ! -name .audio_cleanup ! -path "./.audio_cleanup/*" -printf "%P\0"'
				   ' | LC_ALL=C sort -z | LC_ALL=C QUOTING_STYLE=c-maybe xargs -0 -r stat -c "%A %s %N" --'
				   ' | sed "s/^\(.\)[^ ]* /\1 /; s/^d [0-9]*/d/; s/^l [0-9]*/l/"')
$$;

-- names only, in one line
CREATE FUNCTION t.names() RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(n, ' ' ORDER BY n COLLATE "C"), '(none)')
	FROM t.lines('find . -type f ! -path "./.audio_cleanup/*" -printf "%P\n"') n
$$;

-- one checksum over all that there is: names, types, modes, inodes, links,
-- sizes, times and contents, the extension's own directory included
CREATE FUNCTION t.fingerprint() RETURNS text LANGUAGE sql AS $$
	SELECT t.lines('{ find . -printf "%P %y %m %i %n %s %T@ %l\0"; find . -type f -exec md5sum {} +; } | LC_ALL=C sort | md5sum')
$$;

CREATE FUNCTION t.hide_paths(message text) RETURNS text LANGUAGE sql SECURITY DEFINER AS $$
	SELECT regexp_replace(replace(message, current_setting('data_directory'), '$PGDATA'), 'pg_temp_\d+', 'pg_temp')
$$;

-- wait until nothing is left to do, and no worker is at work any more: one that was asked for may not have begun
CREATE FUNCTION t.wait_for_quiet() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	FOR i IN 1..3000 LOOP
		PERFORM pg_sleep(0.02), pg_stat_clear_snapshot();
		PERFORM 1 FROM cleanup_files WHERE state IN ('pending', 'restoring')
		UNION ALL SELECT 1 FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain';
		IF NOT FOUND THEN
			RETURN;
		END IF;
	END LOOP;
	RAISE EXCEPTION 'a worker is still at work after a minute';
END $$;

-- what an error says, and that nothing was touched
CREATE FUNCTION t.refused(statement text, OUT code text, OUT message text, OUT detail text, OUT hint text, OUT tree text)
LANGUAGE plpgsql AS $$
DECLARE
	before text;
BEGIN
	PERFORM t.wait_for_quiet();
	before := CASE WHEN to_regprocedure('t.fingerprint()') IS NOT NULL
		AND (pg_stat_file(t.dir(), true)).isdir THEN t.fingerprint() END;
	BEGIN
		EXECUTE statement;
		message := 'IT WAS NOT REFUSED';
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
			detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	END;
	message := t.hide_paths(message);
	detail := t.hide_paths(detail);
	hint := t.hide_paths(hint);
	tree := CASE WHEN before IS NULL THEN 'none' WHEN before = t.fingerprint() THEN 'untouched' ELSE 'CHANGED' END;
END $$;

-- in one line
CREATE FUNCTION t.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || t.hide_paths(SQLERRM);
END $$;

-- the id of session number n, and its row; days: since it was updated
CREATE FUNCTION t.id(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
	SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid
$$;
CREATE FUNCTION t.session(n int, status text, days numeric, audio_url text, audio_filename text DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
	INSERT INTO sessions (id, session_date, status, audio_url, audio_filename, created_at, updated_at)
	SELECT t.id(n), failed_at, status, audio_url, audio_filename, failed_at, failed_at
	FROM (SELECT now() AT TIME ZONE 'UTC' - days * interval '1 day') f(failed_at)
$$;

-- wait until the worker has dealt with all committed runs
CREATE FUNCTION t.wait_for_worker() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..3000 LOOP
		PERFORM 1 FROM cleanup_runs WHERE status IN ('pending', 'running');
		IF NOT FOUND THEN
			RETURN;
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
	RAISE EXCEPTION 'the worker has not finished within a minute';
END $$;

CREATE FUNCTION t.wait_for_restore() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	-- a worker that was asked for may not be there yet
	PERFORM pg_sleep(0.05);
	FOR i IN 1..3000 LOOP
		PERFORM pg_stat_clear_snapshot();
		PERFORM 1 FROM cleanup_files WHERE state IN ('pending', 'restoring') OR state = 'trashed' AND due_at <= now()
		UNION ALL SELECT 1 FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain';
		IF NOT FOUND THEN
			RETURN;
		END IF;
		PERFORM pg_sleep(0.02);
	END LOOP;
	RAISE EXCEPTION 'the worker has not finished within a minute';
END $$;

-- ages as ls -l shows them: the change time of a file cannot be set
SET audio_cleanup.file_age = 'mtime';
DO $$ BEGIN PERFORM t.reset(), t.sh('rm -rf .audio_cleanup'); END $$;
RESET client_min_messages;
\set ECHO all
