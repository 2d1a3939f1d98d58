--
-- Registering sources: what is worked out, and what is told
--
\i test/fixture.sql

-- the schema of a real application, without another argument
SELECT cleanup_add_source('sessions');
SELECT source, file_columns, id_column, status_column, failed_statuses, failed_at_column, timezone, on_failed,
	added_by = current_user AS added_by_me, added_at <= now() AS added_at
FROM cleanup_sources \gx

-- again: the last word counts, there is one row for a source
SELECT cleanup_add_source('sessions', '{audio_url}', failed_statuses => '{failed,cancelled}',
	timezone => 'Europe/Berlin', on_failed => 'clear');
SELECT source, file_columns, failed_statuses, timezone, on_failed FROM cleanup_sources;

-- every argument given
CREATE TABLE "Calls" ("Call id" int, "Sound file" text, "State" text, "When" timestamptz, note text);
SELECT cleanup_add_source('"Calls"', '{"Sound file"}', 'Call id', 'State', '{dropped}', 'When', 'Asia/Tokyo', 'keep');

-- no status: protects files, has no failed sessions
CREATE TABLE voicemails (voicemail_file text, greeting_url varchar, mood text, duration int);
SELECT cleanup_add_source('voicemails');
CREATE TABLE attachments (id int, file_path text, file_url text, status text);	-- no time
SELECT cleanup_add_source('attachments');

-- several file columns; types that hold text
CREATE DOMAIN path_name AS text;
CREATE TABLE takes (take_id int PRIMARY KEY, audio_path path_name, recording_url varchar(40), media_key char(20),
	track_name name, audio_length int, audio_data bytea, status int, failed_at date);
SELECT cleanup_add_source('takes');

-- as object-relational mappers spell them
CREATE TYPE upload_state AS ENUM ('ready', 'failed');
CREATE DOMAIN moment AS timestamptz;
CREATE TABLE "Recordings" ("recordingId" int PRIMARY KEY, "audioUrl" text, "filePath" text, "fileUrl" text, "displayName" text,
	"processingStatus" upload_state, "updatedAt" moment, "failedAt" moment);
SELECT cleanup_add_source('"Recordings"');
CREATE TABLE active_storage_blobs (id bigint PRIMARY KEY, key varchar, filename varchar, content_type varchar, created_at timestamp);
SELECT cleanup_add_source('active_storage_blobs');

-- statuses that cannot be, or that no row has
SELECT cleanup_add_source('"Recordings"', failed_statuses => '{failed,FAILED,error}');
INSERT INTO "Recordings" VALUES (1, 'a.mp3', NULL, NULL, NULL, 'ready', now(), now());
SELECT cleanup_add_source('"Recordings"', failed_statuses => '{failed,ready}');
SELECT t.session(1, 'Failed', 1, 'a.mp3');
SELECT cleanup_add_source('sessions', failed_statuses => '{failed,Failed,error}');
TRUNCATE sessions;
SELECT cleanup_add_source('sessions', '{audio_url}', failed_statuses => '{failed,cancelled}', timezone => 'Europe/Berlin', on_failed => 'clear');
SELECT cleanup_drop_source('"Recordings"'), cleanup_drop_source('active_storage_blobs');
DROP TABLE "Recordings", active_storage_blobs;
DROP TYPE upload_state;
DROP DOMAIN moment;

-- a view, a partitioned table
CREATE VIEW session_files AS
SELECT id, lower(audio_url) AS audio_url, status, updated_at FROM sessions;
SELECT cleanup_add_source('session_files');
CREATE TABLE tracks (id int, track_file text) PARTITION BY RANGE (id);
CREATE TABLE tracks_1 PARTITION OF tracks FOR VALUES FROM (1) TO (100);
SELECT cleanup_add_source('tracks');

SELECT source, file_columns, id_column, status_column, failed_statuses, failed_at_column, timezone
FROM cleanup_sources ORDER BY source::text COLLATE "C";

-- the owner of a table registers it, if he was given the function
CREATE ROLE regress_app;
GRANT CREATE ON SCHEMA public TO regress_app;
GRANT EXECUTE ON FUNCTION cleanup_add_source, cleanup_drop_source TO regress_app;
SET ROLE regress_app;
CREATE TABLE app_sessions (id int PRIMARY KEY, audio_url text);
SELECT cleanup_add_source('app_sessions');
RESET ROLE;
SELECT source, added_by FROM cleanup_sources WHERE source = 'app_sessions'::regclass;
SET ROLE regress_app;
SELECT cleanup_add_source('sessions');
SELECT cleanup_drop_source('app_sessions');
RESET ROLE;

-- forget
SELECT cleanup_drop_source('voicemails');
SELECT cleanup_drop_source('voicemails');
SELECT cleanup_drop_source(NULL);
SELECT count(*) FROM cleanup_sources WHERE source = 'voicemails'::regclass;

-- whatever the session has set, the same columns are found
CREATE TABLE camels (id int PRIMARY KEY, audio_url text, "audioFile" text);
DO $$
BEGIN
	SET standard_conforming_strings = off;
EXCEPTION
	WHEN feature_not_supported THEN NULL;	-- the server has no other strings than standard ones
END
$$;
SELECT cleanup_add_source('camels');
RESET standard_conforming_strings;
SELECT cleanup_drop_source('camels');

-- a registration that is rolled back is none
SELECT count(*) AS sources FROM cleanup_sources \gset
BEGIN;
SELECT cleanup_add_source('voicemails');
ROLLBACK;
SELECT count(*) = :sources AS as_before FROM cleanup_sources;

DROP TABLE "Calls", voicemails, attachments, takes, tracks, camels, app_sessions;
DROP VIEW session_files;
DROP DOMAIN path_name;
REVOKE ALL ON SCHEMA public FROM regress_app;
REVOKE ALL ON FUNCTION cleanup_add_source, cleanup_drop_source FROM regress_app;
DROP ROLE regress_app;
