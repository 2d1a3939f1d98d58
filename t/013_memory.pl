# One session that cleans all day long: its memory and its descriptors do not
# grow, whether runs succeed, fail, or are rolled back.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('memory', conf => "log_statement = none\n");
my $dir = upload_dir($node);
claim_directory($node, map { "wanted$_.mp3" } 1 .. 200);

my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query('SET client_min_messages = fatal');
my $pid = $session->query('SELECT pg_backend_pid()');

# bytes of all memory contexts, resident bytes, descriptors
sub measure
{
	my $contexts = $session->query('SELECT sum(total_bytes) FROM pg_backend_memory_contexts');
	my $status = slurp_file("/proc/$pid/status");
	my ($resident) = $status =~ /^RssAnon:\s+(\d+) kB/m;
	my @descriptors = grep { !/^\.\.?$/ } slurp_dir("/proc/$pid/fd");
	return ($contexts, $resident * 1024, scalar @descriptors);
}

my $round = 0;
my %work = (
	status => sub { $session->query('SELECT cleanup_status() IS NULL'); },
	explain => sub { $session->query(q{SELECT cleanup_explain('wanted1.mp3') IS NULL}); },
	check => sub { $session->query('SELECT count(*) FROM cleanup_check()'); },
	run => sub {
		put_files($dir, map { "round$round/$_.mp3" } 1 .. 20);
		$session->query('SELECT cleanup_all() IS NULL');
	},
	batches => sub {
		put_files($dir, map { "batch$round/$_.mp3" } 1 .. 20);
		$session->query('CALL cleanup_run()');
	},
	rollback => sub {
		put_files($dir, map { "rollback/$_.mp3" } 1 .. 20);
		$session->query('BEGIN; SELECT cleanup_all() IS NULL; SAVEPOINT s; SELECT cleanup_all() IS NULL; ROLLBACK TO s; ROLLBACK;');
	},
	error => sub { $session->query(q{
		BEGIN; SELECT cleanup_all() IS NULL; SELECT 1 / 0; ROLLBACK;
		SELECT cleanup_all(NULL);
		SET audio_cleanup.upload_dir = '/nowhere'; SELECT cleanup_all(); RESET audio_cleanup.upload_dir;}); });

foreach my $case ([ 'status', 200 ], [ 'explain', 50 ], [ 'check', 30 ], [ 'run', 50 ], [ 'batches', 30 ], [ 'rollback', 40 ], [ 'error', 40 ])
{
	my ($what, $times) = @$case;

	foreach (1 .. 10) { $round++; $work{$what}->(); }
	my ($contexts, $resident, $descriptors);
	my ($contexts_after, $resident_after, $descriptors_after) = measure();
	# A cache gets a larger block once, when a slow worker leaves other work to
	# the session; what leaks grows each time.
	foreach my $attempt (1 .. 3)
	{
		($contexts, $resident, $descriptors) = ($contexts_after, $resident_after, $descriptors_after);
		foreach (1 .. $times) { $round++; $work{$what}->(); }
		($contexts_after, $resident_after, $descriptors_after) = measure();
		note(sprintf '%s: %d -> %d bytes, %d -> %d kB resident, %d -> %d descriptors', $what, $contexts, $contexts_after,
			$resident / 1024, $resident_after / 1024, $descriptors, $descriptors_after);
		last if $contexts_after - $contexts < 512 * $times;
	}

	cmp_ok($contexts_after - $contexts, '<', 512 * $times, "$times times $what: memory contexts do not grow");
	cmp_ok($resident_after - $resident, '<', 2 * 1024 * 1024, "$times times $what: nor does the process");
	# segments of tables and indexes are opened as they are needed
	cmp_ok($descriptors_after - $descriptors, '<=', 4, "$times times $what: nor its descriptors");
}
is($session->query(q{SELECT count(*) FROM pg_backend_memory_contexts WHERE name LIKE 'audio_cleanup%'}), 0,
	'no memory context of ours is left between calls');
my @held = grep { /^\Q$dir\E/ } map { readlink("/proc/$pid/fd/$_") // '' } slurp_dir("/proc/$pid/fd");
is_deeply(\@held, [], 'nor a descriptor below the upload directory');

$session->quit;
ok(wait_for_drain($node), 'the workers are done');
is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_runs WHERE status <> 'done'}), 0, 'and all runs too');
$node->stop;
is(log_lines($node, qr/PANIC:|signal \d+|WARNING:.*leak/), '', 'nothing was leaked, no process has died');
done_testing();
