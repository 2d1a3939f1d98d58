# The owner of a database keeps it locked, in a transaction that does not end:
# nobody can connect to it, and neither can a worker; or the tables of the
# extension are locked in the middle of a run.  The nights of other databases
# come all the same.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::BackgroundPsql;
use PostgreSQL::Test::Utils;
use Test::More;

# one worker besides the launcher: who keeps it keeps all others from cleaning
my $node = new_server('locked_database', conf => "max_worker_processes = 2\nmax_logical_replication_workers = 0\n");
my $top = upload_dir($node);

$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN CREATEDB');
foreach my $database ('a_locked', 'b_works')
{
	put_files("$top/$database", 'wanted.mp3', 'orphan.mp3');
	$node->safe_psql('postgres', "CREATE DATABASE $database OWNER owner; ALTER DATABASE $database SET audio_cleanup.upload_dir = '$top/$database'");
	$node->safe_psql($database, q{
		CREATE EXTENSION audio_cleanup;
		CREATE TABLE files (file text);
		INSERT INTO files VALUES ('wanted.mp3');
		SELECT cleanup_add_source('files')});
}
$node->stop;
change_settings($node,
	'shared_preload_libraries' => 'audio_cleanup',
	'audio_cleanup.databases' => 'a_locked, b_works',
	'audio_cleanup.cleanup_schedule_hour' => '3',
	'audio_cleanup.timezone' => 'UTC',
	'audio_cleanup.source_timeout' => '20s');
set_schedule_clock($node, '2027-03-04 02:50:00');
$node->start;
ok(launcher_says($node, 'sleeping until 2027-03-04 03:00:00+00'), 'before the night');

my $owner = $node->background_psql('postgres', extra_params => [ '-U', 'owner' ]);
$owner->query_safe('BEGIN');
$owner->query_safe('ALTER DATABASE a_locked RENAME TO a_renamed');
my $position = log_position($node);
set_schedule_clock($node, '2027-03-04 03:00:00');
ok(wait_until(sub { !-e "$top/b_works/orphan.mp3" }), 'the other database is cleaned') or diag(log_since($node, $position));
like(log_since($node, $position), qr/lock timeout.*a_locked/s, 'the log says which database could not be cleaned');
ok(-e "$top/a_locked/orphan.mp3", 'that one is not');
end_session($owner, 'ROLLBACK');

# the next night: the owner's view is slow, and the owner drops our tables meanwhile
$node->safe_psql('a_locked', q{
	CREATE SCHEMA o AUTHORIZATION owner;
	SET ROLE owner;
	CREATE VIEW o.slow AS SELECT 'wanted.mp3'::text AS file WHERE pg_sleep(3) IS NOT NULL;
	RESET ROLE;
	SELECT cleanup_add_source('o.slow')});
put_file("$top/b_works", 'orphan.mp3');
$owner = $node->background_psql('a_locked', extra_params => [ '-U', 'owner' ]);
$owner->query_safe('BEGIN');
set_schedule_clock($node, '2027-03-05 03:00:00');
ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity
	WHERE datname = 'a_locked' AND backend_type = 'audio_cleanup worker' AND wait_event = 'PgSleep'}), 'a run reads the slow view');
$owner->query('DROP SCHEMA public CASCADE');
ok(wait_until(sub { !-e "$top/b_works/orphan.mp3" }), 'the other database is cleaned');
$owner->query('ROLLBACK');
$owner->quit;
is($node->safe_psql('a_locked', 'SELECT status FROM cleanup_runs ORDER BY run_id DESC LIMIT 1') =~ /blocked|running|failed/ ? 'cut short' : 'done', 'cut short',
	'the run of the locked one has ended without its files');
$node->stop;
done_testing();
