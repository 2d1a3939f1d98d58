
# While other sessions write, a drain without a limit deletes at a calm pace; on a quiet server, at full speed.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use IPC::Run;
use Test::More;
use Time::HiRes qw(time);

my $conf = <<'END';
audio_cleanup.max_delete_percent = 100
audio_cleanup.batch_size = 100
autovacuum = off
log_min_messages = debug1
END
my $node = new_server('calm_pace', conf => $conf);
my $dir = upload_dir($node);
my %wanted = %{ claim_directory($node, 'keep.mp3') };
my $n = 10000;
my $calm = qr/deleting at most 1000 files a second: other sessions write/;
my $quick = qr/deleting files at full speed again/;

# writers in another database, each with a transaction of its own for each row
$node->safe_psql('postgres', 'CREATE DATABASE application');
$node->safe_psql('application', 'CREATE TABLE visits (at timestamptz)');
my $visits = 'DO $$ BEGIN LOOP INSERT INTO visits VALUES (clock_timestamp()); COMMIT; PERFORM pg_sleep(0.001); END LOOP; END $$';

my @writers;

sub start_writers
{
	@writers = map {
		IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('application'), '-c', 'SET synchronous_commit = off', '-c', $visits ],
			'<', \undef, '>', \my $out, '2>', \my $err)
	} 1 .. 3;
	ok(wait_until(sub { $node->safe_psql('application', 'TRUNCATE visits; SELECT pg_sleep(0.1); SELECT count(*) > 10 FROM visits') eq "\nt" }), 'others write');
}

sub stop_writers
{
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'application'});
	$_->finish() foreach @writers;
}

sub new_orphans
{
	put_files($dir, map { "orphan$_.mp3" } 1 .. $n);
}

new_orphans();
start_writers();
my $position = log_position($node);

my $since = time;
sql('SELECT cleanup_all(force => true)');
is_deeply(deleted_early($dir, files => $n, since => $since, until => $n / 5, per_second => 1000, at_once => 200),
	[], 'files are deleted, no more of them than the calm pace allows until then');
my $log = log_since($node, $position);
like($log, $calm, 'the log says why');
unlike($log, $quick, '... and the pace stays calm as long as others write');

stop_writers();
ok(wait_for_drain($node), 'the run comes to its end');
like(log_since($node, $position), $quick, '... at full speed, when nobody writes any more');
is(sql('SELECT max(deleted) FROM cleanup_runs'), $n, '... and has deleted all files');

# on a quiet server no file is held back
new_orphans();
$position = log_position($node);
sql('SELECT cleanup_all(force => true)');
ok(wait_for_drain($node), 'a run on a quiet server comes to its end');
unlike(log_since($node, $position), $calm, '... at full speed');

# a limit of the DBA counts as it is, whoever writes
new_orphans();
start_writers();
$node->append_conf('postgresql.conf', "audio_cleanup.files_per_second = 1000000\n");
$node->reload;
ok(wait_until(sub { sql('SELECT cleanup_status()', 'SHOW audio_cleanup.files_per_second') =~ /^1000000$/m }), 'a limit is set');
$position = log_position($node);
sql('SELECT cleanup_all(force => true)');
ok(wait_for_drain($node), '... and a run comes to its end');
unlike(log_since($node, $position), $calm, '... without a calm pace');
stop_writers();

is_deeply([ sort keys %{ visible_files($dir) } ], [ sort keys %wanted ], 'nothing else has gone');
done_testing();
