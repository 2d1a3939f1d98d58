# A call that is cancelled, times out or is terminated ends at any moment with
# an error of its own, and the server goes on: no process dies of it.  Hundreds
# of names that are no text, and a source that is slow to read, make those
# moments that hold the most of what an error may point into.

# Slow: hundreds of calls are cut short.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $rounds = $ENV{CANCEL_ROUNDS} || 20;

my $node = new_server('cancel', conf => <<'END');
audio_cleanup.max_delete_percent = 100
audio_cleanup.batch_size = 5
log_error_verbosity = verbose
END
my $dir = upload_dir($node);
put_files($dir, 'wanted.mp3');
put_file($dir, sprintf "b\xff%0120d.mp3", $_) foreach 1 .. 1500;
$node->safe_psql('postgres', q{
	CREATE ROLE viewer LOGIN; CREATE ROLE operator LOGIN; CREATE ROLE app LOGIN;
	CREATE SCHEMA app AUTHORIZATION app;
	CREATE EXTENSION audio_cleanup;
	SELECT cleanup_grant_access('viewer'); SELECT cleanup_grant_access('operator', 'operator');
	SET ROLE app;
	CREATE TABLE app.files (id int PRIMARY KEY, audio_url text);
	INSERT INTO app.files SELECT i, 'wanted.mp3' FROM generate_series(1, 20) i;
	CREATE VIEW app.slow AS SELECT id, audio_url FROM app.files WHERE pg_sleep(0.01) IS NOT NULL;
	CREATE TABLE app.unregistered AS SELECT repeat(md5(i::text) || ',', 30) AS a, 'x' || i || '.mp3' AS b FROM generate_series(1, 5000) i;
	ANALYZE app.unregistered;
	RESET ROLE;
	SELECT cleanup_add_source('app.slow');
});
my $position = log_position($node);
my $more = 0;

sub no_crash
{
	my ($name) = @_;
	my ($log) = log_since($node, $position) =~ /^(.*(?:PANIC: |TRAP: |terminated by signal|terminating any other).*)$/m;
	is($log // '', '', "$name: no process has died");
	return;
}

# How long a call takes when it is left alone, and that it may succeed.
sub duration
{
	my ($role, $call) = @_;
	my $begin = time;
	my ($rc, $stdout, $stderr) = $node->psql('postgres', $call, extra_params => [ '-U', $role ]);

	is($rc, 0, "$role: $call succeeds when it is let alone") or diag($stderr);
	return time - $begin;
}

my %calls = (
	viewer => [ 'SELECT cleanup_status()', q{SELECT cleanup_explain('wanted.mp3')}, 'SELECT count(*) FROM cleanup_check()',
		'SELECT length(cleanup_dashboard())', 'SELECT count(*) FROM cleanup_missing_files()' ],
	operator => [ 'CALL cleanup_run()', 'SELECT cleanup_all()', 'SELECT cleanup_orphaned_files(true)', 'SELECT cleanup_purge_backups()' ]);

# ---- statement_timeout, from at once to when it is nearly done ----

foreach my $role (sort keys %calls)
{
	foreach my $call (@{ $calls{$role} })
	{
		my $milliseconds = 1000 * duration($role, $call);
		my %ended = (done => 0, cancelled => 0, otherwise => 0);

		foreach my $round (1 .. $rounds)
		{
			# the first limit of 1 ms ends any call, also where the call that was timed was slow
			my $limit = 1 + int($milliseconds * ($round - 1) / ($rounds - 1));
			my ($rc, $stdout, $stderr);

			put_files($dir, map { 'orphan' . $more++ . '.mp3' } 1 .. 12) if $role eq 'operator';
			($rc, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\nSET statement_timeout = $limit;\n$call",
				extra_params => [ '-U', $role ]);
			$ended{ !$rc ? 'done' : $stderr =~ /^(psql:\S+ )?ERROR:  57014: .*^LOCATION:  \w+, postgres\.c:\d+$/ms ? 'cancelled' : 'otherwise' }++;
			diag($stderr) if $ended{otherwise} == 1 && $rc && $stderr !~ /57014/;
		}
		note("$role: $call: " . join ', ', map { "$ended{$_} $_" } sort keys %ended);
		cmp_ok($ended{cancelled}, '>', 0, "$role: $call was cancelled");
		is($ended{otherwise}, 0, "$role: $call has no other error than that it was cancelled");
		no_crash("$role: $call that times out");
	}
}

# ---- cancelled and terminated by somebody else, at random ----

foreach my $how ('pg_cancel_backend', 'pg_terminate_backend')
{
	my $struck = 0;
	my $until = time + ($ENV{PG_TEST_TIMEOUT_DEFAULT} || 180);
	my $driver = $node->basedir . '/over';

	unlink $driver;
	my @pids = map {
		my $pid = fork;
		die "could not fork: $!" unless defined $pid;
		if (!$pid)
		{
			my $n = 0;
			while (!-e $driver)
			{
				put_files($dir, map { "o$$." . $n++ . '.mp3' } 1 .. 12);
				$node->psql('postgres', 'CALL cleanup_run(); CALL cleanup_run()', extra_params => [ '-U', 'operator' ]);
			}
			POSIX::_exit(0);
		}
		$pid } 1 .. 2;
	while ($struck < 3 * $rounds && time < $until)
	{
		usleep(rand 60_000);
		my ($rc, $stdout) = $node->psql('postgres', "SELECT count($how(pid)) FROM pg_stat_activity WHERE usename = 'operator' AND state = 'active'");
		$struck += $stdout if !$rc && $stdout =~ /^\d+$/;
	}
	append_to_file($driver, '');
	waitpid $_, 0 foreach @pids;
	cmp_ok($struck, '>=', 3 * $rounds, "$how has struck a run often");
	no_crash($how);
}

# ---- afterwards ----

is($node->safe_psql('postgres', 'SET audio_cleanup.batch_size = 10000; CALL cleanup_run()') ne '', 1, 'a run goes its usual way');
ok(wait_for_drain($node), 'and comes to its end');
is_deeply([ grep { !/^b\xff/ } sort keys %{ visible_files($dir) } ], ['wanted.mp3'], 'with all orphans, and nothing else');
is(scalar(grep { /^b\xff/ } keys %{ visible_files($dir) }), 1500, 'names that are no text are let alone');
$node->stop;
no_crash('all in all');
done_testing();
