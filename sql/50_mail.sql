--
-- Mail: the settings, and which runs it is about.  Nothing is sent here: what
-- is set in this session the worker does not know of.
--
\i test/fixture.sql
SELECT cleanup_add_source('sessions');
SELECT t.session(1, 'processed', 1, 'wanted.mp3'), t.file('wanted.mp3');
CREATE FUNCTION t.mails() RETURNS TABLE (run_id bigint, status text, deleted bigint, tries int, waits boolean)
LANGUAGE sql AS $$
	SELECT m.run_id, r.status, r.deleted, m.tries, m.next_try_at <= clock_timestamp()
	FROM cleanup_mail m LEFT JOIN cleanup_runs r USING (run_id) ORDER BY m.run_id
$$;

-- what is no address, no list of them, and no server
SET audio_cleanup.mail_to = 'dba';
SET audio_cleanup.mail_to = 'dba@example.com; boss@example.com';
SET audio_cleanup.mail_to = 'The Boss <boss@example.com>';
\set VERBOSITY sqlstate
SET audio_cleanup.mail_to = E'dba@example.com\r\nBcc: spy@example.com';
SET audio_cleanup.mail_to = E'dba@example.com, \nspy@example.com\x01';
SET audio_cleanup.mail_from = E'me@example.com\nBcc: spy@example.com';
SET audio_cleanup.mail_from = 'me@example.com, you@example.com';
SET audio_cleanup.smtp_url = E'smtp://localhost/\r\nMAIL';
SET audio_cleanup.smtp_user = E'me\r\nMAIL';
\set VERBOSITY default
SET audio_cleanup.smtp_url = 'http://localhost/';
SET audio_cleanup.smtp_url = 'localhost:25';
SET audio_cleanup.smtp_url = 'smtp://me:secret@localhost';
SET audio_cleanup.smtp_password_file = 'secret';
SET audio_cleanup.mail_on = 'sometimes';

-- what is
SET audio_cleanup.mail_to = ' dba@example.com ,boss@example.com, dba@example.com,';
SET audio_cleanup.mail_from = 'postgres+db1@localhost';
SET audio_cleanup.smtp_url = 'SMTPS://mail.example.com:465/db1';
SELECT key, value FROM jsonb_each(cleanup_config()) WHERE key ~ 'mail|smtp' ORDER BY key COLLATE "C";
RESET ALL;
SET audio_cleanup.file_age = 'mtime';

-- ordinary users neither change it nor see how the server is logged in to
CREATE ROLE regress_user;
SET ROLE regress_user;
SET audio_cleanup.mail_to = 'spy@example.com';
-- the server's words differ since 16
\set VERBOSITY sqlstate
SHOW audio_cleanup.smtp_password_file;
\set VERBOSITY default
SELECT name FROM pg_settings WHERE name ~ '^audio_cleanup.*(mail|smtp)' ORDER BY name;
RESET ROLE;
DROP ROLE regress_user;

-- without an address there is no mail
SET audio_cleanup.mail_on = 'always';
SELECT cleanup_all() -> 'success' AS success;
SELECT * FROM t.mails();

-- never
SET audio_cleanup.mail_to = 'dba@example.com';
SET audio_cleanup.mail_on = 'never';
SELECT t.file('never.mp3');
CALL cleanup_run() \gset
SELECT * FROM t.mails();

-- problems, which is the default: not what goes well
RESET audio_cleanup.mail_on;
SELECT t.file('problems.mp3');
CALL cleanup_run() \gset
SELECT * FROM t.mails();
-- what a brake has stopped
DELETE FROM sessions;
CALL cleanup_run();
SELECT * FROM t.mails();
SELECT t.session(1, 'processed', 1, 'wanted.mp3');
TRUNCATE cleanup_mail;

-- changes: a file that went, or that is kept as a backup
SET audio_cleanup.mail_on = 'changes';
CALL cleanup_run() \gset
SELECT * FROM t.mails();
SELECT t.file('changes.mp3');
CALL cleanup_run() \gset
SET audio_cleanup.backup_retention_days = 1;
SELECT t.file('backup.mp3');
CALL cleanup_run() \gset
RESET audio_cleanup.backup_retention_days;
SELECT * FROM t.mails();
TRUNCATE cleanup_mail;

-- always; in a transaction the mail goes with it
SET audio_cleanup.mail_on = 'always';
CALL cleanup_run() \gset
BEGIN;
SELECT cleanup_all() -> 'success' AS success;
SELECT count(*) FROM t.mails();
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT cleanup_all() -> 'success' AS success;
ROLLBACK TO s;
COMMIT;
SELECT status, deleted, tries, waits FROM t.mails();
TRUNCATE cleanup_mail;
BEGIN;
SELECT cleanup_all() -> 'success' AS success;
PREPARE TRANSACTION 'mail';
SELECT count(*) FROM t.mails();
COMMIT PREPARED 'mail';
SELECT status, deleted, tries, waits FROM t.mails();

-- what is missing is said, one thing at a time
SELECT cleanup_send_test_mail();
SET audio_cleanup.smtp_url = 'smtp://localhost:1';
SELECT cleanup_send_test_mail();
SET audio_cleanup.mail_from = 'postgres@example.com';
SET audio_cleanup.smtp_user = 'me';
SELECT cleanup_send_test_mail();
SET audio_cleanup.smtp_password_file = '/nowhere/password';
SET audio_cleanup.smtp_tls = off;
SELECT cleanup_send_test_mail();
SET audio_cleanup.smtp_tls = on;
SELECT cleanup_send_test_mail();
SET audio_cleanup.mail_to = '';
SELECT cleanup_send_test_mail();

-- and by the doctor
SELECT status, detail FROM cleanup_check() WHERE check_name = 'mail';
SET audio_cleanup.mail_to = 'dba@example.com, boss@example.com';
SELECT status, detail, hint FROM cleanup_check() WHERE check_name = 'mail' \gx
RESET audio_cleanup.smtp_url;
SELECT status, detail FROM cleanup_check() WHERE check_name = 'mail';
SET audio_cleanup.smtp_url = 'smtp://localhost:1';
RESET audio_cleanup.smtp_user;
SELECT status, detail FROM cleanup_check() WHERE check_name = 'mail';
SET audio_cleanup.mail_on = 'never';
SELECT status, detail FROM cleanup_check() WHERE check_name = 'mail';

-- mails that did not go
RESET audio_cleanup.mail_on;
TRUNCATE cleanup_mail;
INSERT INTO cleanup_mail (run_id, tries, next_try_at, error) VALUES
	(1, 3, now() + interval '1 hour', 'the mail server is on fire'), (2, 0, now(), NULL);
INSERT INTO cleanup_mail (run_id, tries, next_try_at, created_at, error) VALUES
	(3, 12, NULL, now() - interval '3 days', 'it has been burning for long'), (4, 12, NULL, now() - interval '20 days', 'forgotten');
INSERT INTO cleanup_mail (run_id, tries, next_try_at, sent_at) VALUES (5, 1, NULL, now());
SELECT status, detail, hint FROM cleanup_check() WHERE check_name = 'mail' AND status <> 'ok' \gx
TRUNCATE cleanup_mail;
