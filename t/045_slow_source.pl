# A source whose owner's view sleeps, or is endless, costs its own database the
# night and nobody else's: reading is under a limit of time, other databases
# are begun meanwhile, the log says what was cut short, and the run is on record.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use File::Path qw(make_path);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('slow_source', start => 0, conf => <<'END');
shared_preload_libraries = 'audio_cleanup'
audio_cleanup.timezone = 'UTC'
END
set_schedule_clock($node, '2027-03-01 02:50:00');
$node->start;

my @databases = ('first', 'second', 'third');
foreach my $name (@databases)
{
	my $dir = directory($name);

	make_path($dir);
	put_files($dir, 'wanted.mp3', 'orphan.mp3');
	$node->safe_psql('postgres', qq{CREATE DATABASE $name});
	$node->safe_psql('postgres', qq{ALTER DATABASE $name SET audio_cleanup.upload_dir = '$dir'});
	make_schema($node, $name);
	$node->safe_psql($name, q{INSERT INTO sessions (audio_url) VALUES ('wanted.mp3')});
}

sub directory
{
	my ($database) = @_;
	return upload_dir($node) . " of $database";
}

sub last_run
{
	my ($database) = @_;
	return $node->safe_psql($database, q{SELECT status, message FROM cleanup_runs ORDER BY run_id DESC LIMIT 1});
}

sub active
{
	my ($database) = @_;
	return $node->safe_psql('postgres', qq{SELECT count(*) FROM pg_stat_activity
		WHERE datname = '$database' AND backend_type = 'audio_cleanup worker'});
}

# ---- two of them sleep for ever ----

foreach my $name ('first', 'second')
{
	$node->safe_psql($name, qq{
		CREATE ROLE app_$name;
		GRANT CREATE ON SCHEMA public TO app_$name;
		SET ROLE app_$name;
		CREATE VIEW slow AS SELECT 1 AS id, 'x.mp3'::text AS file_name WHERE pg_sleep(100000) IS NOT NULL;
		RESET ROLE;
		SELECT cleanup_add_source('slow')});
}
my $position = log_position($node);
change_settings($node, 'audio_cleanup.databases' => 'first, second, third');
set_schedule_clock($node, '2027-03-01 02:59:58');
$node->reload;
ok(wait_until(sub { -e directory('third') . '/wanted.mp3' && !-e directory('third') . '/orphan.mp3' }),
	'the third database is cleaned');
is(active($_), 1, "... while the view of the $_ sleeps") foreach 'first', 'second';
ok(wait_until(sub { last_run('third') =~ /^done/ }), '... to its end');
like(log_since($node, $position), qr/cleaning database "$_->[0]" while database "$_->[1]" is still being cleaned/,
	"the log tells of $_->[1]") foreach [ 'second', 'first' ], [ 'third', 'second' ];

# ---- the limit of time ----

$node->safe_psql('postgres', qq{
	SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'audio_cleanup worker'});
ok(wait_until(sub { active('first') + active('second') == 0 }), 'workers can be ended');
$node->safe_psql('postgres', qq{ALTER DATABASE first SET audio_cleanup.source_timeout = '2s'});
$node->safe_psql('second', q{DROP VIEW slow CASCADE; SELECT cleanup_drop_source(source) FROM cleanup_sources WHERE source_name = 'public.slow'});
$position = log_position($node);
set_schedule_clock($node, '2027-03-02 02:59:58');
$node->reload;
ok(wait_until(sub { last_run('first') =~ /^interrupted\|gave up reading source public\.slow/ }),
	'a run that was cut short is on record') or diag(last_run('first'));
like(log_since($node, $position), qr/gave up reading source public\.slow/, 'the log says what was cut short');
like(log_since($node, $position), qr/cleaning database "first" by the schedule/, '... and where');
ok(-e directory('first') . "/$_.mp3", "$_.mp3 is there") foreach 'wanted', 'orphan';
ok(wait_until(sub { !-e directory('second') . '/orphan.mp3' }), 'the other database is cleaned');
ok(wait_until(sub { active('first') == 0 }), 'the worker has ended');
is($node->safe_psql('first', q{SELECT count(*) FROM cleanup_runs WHERE status = 'running'}), 0, 'no run is left running');

# ---- whoever calls himself has max_run_minutes, his own limit, or none ----

my ($rc, $stdout, $stderr) = $node->psql('first', q{SET statement_timeout = '1s'; SELECT cleanup_status()});
like($stderr, qr/canceling statement due to statement timeout/, 'a client has limits of his own');

# ---- a cancel in the very instant in which the time is up ----
# A function hears the clock's cancel, cancels its own session, and has ended before anybody hears of that.

foreach my $case ([ 'ends well', 'true' ], [ 'ends in an error', '1 / (pg_backend_pid() - pg_backend_pid()) > 0' ])
{
	my ($name, $then) = @$case;

	$node->safe_psql('first', qq{
		DELETE FROM cleanup_sources WHERE source_name = 'public.slow';
		DROP VIEW IF EXISTS slow, instant;
		CREATE OR REPLACE FUNCTION hears() RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS \$\$
		BEGIN
			PERFORM pg_sleep(100000);
		EXCEPTION WHEN query_canceled THEN RETURN pg_cancel_backend(pg_backend_pid()) AND $then;
		END \$\$;
		CREATE VIEW instant AS SELECT 1 AS id, 'x.mp3'::text AS file_name;
		DELETE FROM cleanup_sources WHERE source_name = 'public.instant';
		SELECT cleanup_add_source('instant');
		CREATE OR REPLACE VIEW instant AS SELECT 1 AS id, 'x.mp3'::text AS file_name WHERE hears()});
	($rc, $stdout, $stderr) = $node->psql('first', q{SET application_name = 'pg_cron'; SELECT cleanup_status()});
	isnt($rc, 0, "reading $name when it is cut short: the preview is cancelled");
	like($stderr, qr/canceling statement due to user request/, '... as somebody has asked');
	is($node->safe_psql('first', 'SELECT 7'), 7, '... and nothing else is');
}

$node->stop;
done_testing();
