# One database has a source that takes for ever to read, and another one a
# source whose code does not even let itself be cancelled.  The nights of other
# databases come all the same, the log says who was cut short, and the server
# can be stopped.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('sleeps', conf => "max_worker_processes = 16\n");
my $top = upload_dir($node);

$node->safe_psql('postgres', 'CREATE ROLE app LOGIN');
foreach my $database ('a_sleeps', 'b_stubborn', 'c_works', 'd_works')
{
	my $dir = "$top/$database";
	put_files($dir, 'wanted.mp3', 'orphan.mp3');
	$node->safe_psql('postgres', "CREATE DATABASE $database OWNER app; ALTER DATABASE $database SET audio_cleanup.upload_dir = '$dir'");
	$node->safe_psql($database, q{
		CREATE EXTENSION audio_cleanup;
		GRANT ALL ON SCHEMA public TO app;
		SET ROLE app;
		CREATE TABLE files (id int PRIMARY KEY, audio_url text);
		INSERT INTO files VALUES (1, 'wanted.mp3');
		CREATE VIEW v AS SELECT id, audio_url FROM files;
		RESET ROLE;
		SELECT cleanup_add_source('v');
	});
}
$node->safe_psql('postgres', "ALTER DATABASE $_ SET audio_cleanup.source_timeout = '3s'") foreach 'a_sleeps', 'b_stubborn';
$node->safe_psql('a_sleeps', 'SET ROLE app; CREATE OR REPLACE VIEW v AS SELECT id, audio_url FROM files WHERE pg_sleep(100000) IS NOT NULL');
$node->safe_psql('b_stubborn', q{
	SET ROLE app;
	CREATE FUNCTION stubborn() RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		LOOP
			BEGIN
				PERFORM pg_sleep(100000);
			EXCEPTION WHEN OTHERS OR query_canceled THEN NULL;
			END;
		END LOOP;
	END $$;
	CREATE OR REPLACE VIEW v AS SELECT id, audio_url FROM files WHERE stubborn();
});
$node->stop;
change_settings($node,
	'shared_preload_libraries' => 'audio_cleanup',
	'audio_cleanup.databases' => 'a_sleeps, b_stubborn, c_works, d_works',
	'audio_cleanup.auto_cleanup_on_startup' => 'on');
my $position = log_position($node);
$node->start;

foreach my $database ('c_works', 'd_works')
{
	ok(wait_until(sub { !-e "$top/$database/orphan.mp3" }), "$database is not kept waiting");
	ok(-e "$top/$database/wanted.mp3", "$database: what is wanted is kept");
}
ok(wait_until(sub { log_since($node, $position) =~ /(?:ERROR|WARNING|LOG): .*source public\.v.*a_sleeps/s }), 'the log says which source of which database was cut short')
  or diag(log_since($node, $position));
ok(-e "$top/a_sleeps/orphan.mp3" && -e "$top/b_stubborn/orphan.mp3", 'where a source could not be read nothing is deleted');

# Nobody else's call waits for them either.
is($node->safe_psql('c_works', q{SELECT cleanup_status() ->> 'success'}), 'true', 'a call in another database goes its usual way');
my ($rc, $stdout, $stderr) = $node->psql('a_sleeps', "\\set VERBOSITY verbose\nSET statement_timeout = '2s'; SELECT cleanup_status()");
like($stderr, qr/ERROR:  57014: /, 'a call in that database can be cut short by who calls');

# ---- a trigger that sleeps while its rows are cleared costs its own source, and the run goes on ----

put_files("$top/c_works", 'failed.mp3', 'orphan.mp3');
$node->safe_psql('postgres', q{ALTER DATABASE c_works SET audio_cleanup.source_timeout = '3s'});
$node->safe_psql('c_works', q{
	SET ROLE app;
	CREATE TABLE sessions (id int PRIMARY KEY, audio_url text, status text, updated_at timestamptz);
	INSERT INTO sessions VALUES (1, 'failed.mp3', 'failed', now() - interval '1 year');
	CREATE FUNCTION sleeps() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(100000); RETURN NEW; END$$;
	CREATE TRIGGER sleeps BEFORE UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION sleeps();
	RESET ROLE;
	SELECT cleanup_add_source('sessions', on_failed => 'clear');
});
like($node->safe_psql('c_works', q{SET application_name = 'pg_cron'; CALL cleanup_run()}),
	qr/sessions of source public\.sessions are left alone.*gave up clearing source public\.sessions: the time for it is up/, 'the run says so');
ok(!-e "$top/c_works/orphan.mp3", 'and deletes what is to be deleted');
ok(-e "$top/c_works/failed.mp3", 'but the file of that session');

$node->stop('fast');
unlike(slurp_file($node->logfile), qr/PANIC: |TRAP: |terminated by signal/, 'the server stops, and no process has died');
done_testing();
