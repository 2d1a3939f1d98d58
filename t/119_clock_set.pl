# Somebody sets the server's clock: nobody waits longer for that, and no run ends
# earlier.  A run whose time is over has been cut short only if it has left
# something.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Fcntl qw(:flock);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('clock_set', start => 0, conf => <<'END');
shared_preload_libraries = 'audio_cleanup'
audio_cleanup.timezone = 'UTC'
audio_cleanup.databases = 'postgres'
audio_cleanup.writer_wait = '200ms'
audio_cleanup.max_run_minutes = 1
END
my $dir = upload_dir($node);
set_schedule_clock($node, '2027-03-01 02:50:00');
my $ahead = start_with_clock($node);
make_schema($node);
put_files($dir, 'wanted.mp3');
add_rows($node, 'wanted.mp3');
$node->safe_psql('postgres', 'CALL cleanup_run()');
ok(wait_for_drain($node), 'the directory is claimed');

# Begins a CALL in a session of its own.
sub begin_call
{
	my ($wait) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->query_safe("SET audio_cleanup.writer_wait = '$wait'");
	$session->query_until(qr/^begun$/m, "\\echo begun\nCALL cleanup_run();\n");
	return $session;
}

# Whether the session with the CALL waits like that.
sub call_waits
{
	my ($type) = @_;
	return $node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity
		WHERE query ~ '^CALL' AND state = 'active' AND wait_event_type = '$type'");
}

sub call_is_over
{
	return wait_until(sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE query ~ '^CALL' AND state = 'active'}) == 0 });
}

# ---- the time of a run is over when it has done all ----

my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; SELECT cleanup_all()');
put_files($dir, 'orphan.mp3');
my $writer = $node->background_psql('postgres');
$writer->query_safe(q{BEGIN; INSERT INTO sessions (audio_url) VALUES ('orphan.mp3')});
my $caller = begin_call('100s');
ok(call_waits('Lock'), 'a run waits for another one, and its time begins');
set_clock($ahead, 0, 50);
$holder->query_safe('COMMIT');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM cleanup_progress WHERE phase = 'waiting for writers' AND files_condemned = 1}),
	'then it waits for the writer of the row of its only orphan');
set_clock($ahead, 0, 65);
$writer->query_safe('COMMIT');
ok(call_is_over(), 'it ends');
is($node->safe_psql('postgres', q{SELECT status, files, message, extract(epoch FROM finished_at - started_at) > 14 FROM cleanup_runs ORDER BY run_id DESC LIMIT 1}),
	'done|0||t', 'as a run that has done all, although it took longer than max_run_minutes');
ok(-e "$dir/orphan.mp3", 'what has a row now is there');
$_->quit foreach $caller, $writer;

# ---- ahead while a run deletes, slowly: its time is not over ----

foreach my $set (3600, 7200)
{
	my $run_id = $node->safe_psql('postgres', 'SELECT max(run_id) + 1 FROM cleanup_runs');
	put_files($dir, map { "slow$_.mp3" } 1 .. 10);

	$caller = $node->background_psql('postgres', on_error_stop => 0);
	$caller->query_safe('SET audio_cleanup.files_per_second = 4');
	$caller->query_until(qr/^begun$/m, "\\echo begun\nCALL cleanup_run();\n");
	ok($node->poll_query_until('postgres', "SELECT count(*) >= 2 FROM cleanup_files WHERE run_id = $run_id AND state = 'deleted'"), "a run deletes: $set");
	set_clock($ahead, $set, 65);
	ok(call_is_over(), 'it ends');
	is($node->safe_psql('postgres', "SELECT status, deleted FROM cleanup_runs WHERE run_id = $run_id"), 'done|10', 'when it has deleted all');
	set_clock($ahead, 0, 65);
	$caller->quit;
}

# ---- back: whoever waits for the directory ----

open my $claim, '<', "$dir/.audio_cleanup/claim" or die $!;
ok(flock($claim, LOCK_EX), 'somebody else has the directory');
$caller = begin_call('3s');
ok(call_waits('Extension'), 'a run waits for it');
# by less than the five minutes that a file may be off
set_clock($ahead, -235, 65);
ok(call_is_over(), 'not minutes longer when the clock is set back by as much');
like($node->safe_psql('postgres', q{SELECT status, message FROM cleanup_runs ORDER BY run_id DESC LIMIT 1}),
	qr/^blocked\|another cleanup run is under way in upload directory/, 'it has given up');
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query ~ '^CALL' AND state = 'active'});
$caller->quit;
close $claim;

# ---- back: a night that is to be tried again ----

set_clock($ahead, 0, 65);
ok(launcher_says($node, 'sleeping until 2027-03-01 03:00:00+00'), 'before the hour');
$holder->query_safe('BEGIN; SELECT cleanup_all()');
my $position = log_position($node);
set_schedule_clock($node, '2027-03-01 03:00:00');
ok(wait_until(sub { log_since($node, $position) =~ /waiting to clean database "postgres": another cleanup run is under way/ }),
	'the hour comes, and another run is under way');
set_clock($ahead, -3600, 65);
$holder->query_safe('COMMIT');
# by then the clocks of server and files differ, which is a brake
ok(wait_until(sub { (grep { /^schedule 2027-03-01 blocked/ } @{ runs($node) }) == 1 }), 'the night is tried again although the clock was set back')
  or diag explain runs($node);
set_clock($ahead, 0, 65);
$holder->quit;

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|signal \d+/, 'no process has died');
done_testing();
