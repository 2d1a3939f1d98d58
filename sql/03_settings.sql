--
-- The settings: defaults, bounds, who may change them
--
LOAD 'audio_cleanup';
SELECT name, boot_val, unit, context, vartype, min_val, max_val
FROM pg_settings
WHERE name LIKE 'audio\_cleanup.%' AND name <> 'audio_cleanup.audio_extensions'
ORDER BY name;
SHOW audio_cleanup.audio_extensions;
-- every one of them says what it is for
SELECT count(*) AS undescribed FROM pg_settings
WHERE name LIKE 'audio\_cleanup.%' AND coalesce(short_desc, '') = '';

-- bounds
SET audio_cleanup.orphaned_file_retention_hours = -1;
SET audio_cleanup.orphaned_file_retention_hours = 876001;
SET audio_cleanup.orphaned_file_retention_hours = 99999999999;
SET audio_cleanup.orphaned_file_retention_hours = 'soon';
-- a syntax error until 18
DO $$
BEGIN
	EXECUTE 'SET audio_cleanup.orphaned_file_retention_hours = NULL';
EXCEPTION WHEN syntax_error OR invalid_parameter_value THEN
	RAISE WARNING 'refused';
END $$;
SET audio_cleanup.failed_session_retention_days = -1;
SET audio_cleanup.failed_session_retention_days = 36501;
SET audio_cleanup.max_delete_percent = 101;
SET audio_cleanup.max_delete_percent = -1;
SET audio_cleanup.report_limit = -1;
SET audio_cleanup.batch_size = 0;
SET audio_cleanup.backup_retention_days = -1;
SET audio_cleanup.history_retention_days = -1;
SET audio_cleanup.file_age = 'oldest';
SET audio_cleanup.upload_dir = '';
SET audio_cleanup.backup_dir = 'backups';
\set VERBOSITY sqlstate
SET audio_cleanup.writer_wait = '-1s';
SELECT set_config('audio_cleanup.upload_dir', repeat('x', 1024), false);
\set VERBOSITY default
SET audio_cleanup.audio_extensions = '';
SET audio_cleanup.audio_extensions = ' , ';
SET audio_cleanup.audio_extensions = 'mp3, a/b';
SET audio_cleanup.derived_suffixes = '_a/b';

-- what they allow
SET audio_cleanup.orphaned_file_retention_hours = 0;
SET audio_cleanup.orphaned_file_retention_hours = 876000;
SET audio_cleanup.failed_session_retention_days = 0;
SET audio_cleanup.writer_wait = '2min';
SHOW audio_cleanup.writer_wait;
SET audio_cleanup.file_age = 'MTIME';
SET audio_cleanup.audio_extensions = '*';
SET audio_cleanup.derived_suffixes = '';
SET audio_cleanup.backup_dir = '/srv/backups';
SET audio_cleanup.backup_dir = '';
RESET ALL;

-- the launcher's are those of the configuration file
SET audio_cleanup.cleanup_schedule_hour = 4;
SET audio_cleanup.auto_cleanup_on_startup = on;
SET audio_cleanup.databases = 'postgres';
SET audio_cleanup.timezone = 'Europe/Berlin';

-- a typing error is one
SET audio_cleanup.orphan_retention = 5;

-- an ordinary user changes none of the policy
CREATE ROLE regress_user;
SET ROLE regress_user;
SET audio_cleanup.orphaned_file_retention_hours = 0;
SET audio_cleanup.failed_session_retention_days = 0;
SET audio_cleanup.upload_dir = '/';
SET audio_cleanup.max_delete_percent = 100;
SET audio_cleanup.file_age = 'mtime';
SET audio_cleanup.audio_extensions = '*';
SET audio_cleanup.writer_wait = 0;
RESET ROLE;
DROP ROLE regress_user;

-- a database has its own
ALTER DATABASE :"DBNAME" SET audio_cleanup.orphaned_file_retention_hours = 48;
ALTER DATABASE :"DBNAME" SET audio_cleanup.failed_session_retention_days = -3;
\c -
SHOW audio_cleanup.orphaned_file_retention_hours;
LOAD 'audio_cleanup';
SHOW audio_cleanup.orphaned_file_retention_hours;
ALTER DATABASE :"DBNAME" RESET audio_cleanup.orphaned_file_retention_hours;
