# The night is disturbed: no worker to be had, another run under way, shutdowns
# and kills, and a DBA who drops or alters things under the worker's feet.  He
# never has to wait for it, and no file gets lost.
#
# Slow: it waits for retries.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use File::Path qw(make_path);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# what a throttled run has to do, at ten files a second: longer than any test
my $many = 600;
my $nights = 0;
my $slowly = 'audio_cleanup.files_per_second';

my $conf = <<'END';
shared_preload_libraries = 'audio_cleanup'
audio_cleanup.timezone = 'UTC'
audio_cleanup.max_delete_percent = 100
END

# Its databases are copies of postgres, each with a directory of its own.
sub start_server
{
	my ($name, $databases, $more) = @_;
	my $node = new_server($name, start => 0, conf => $conf . ($more || ''));

	set_schedule_clock($node, '2027-03-01 02:50:00');
	$node->start;
	make_schema($node);
	foreach my $database (reverse split /, /, $databases)
	{
		make_path(directory($node, $database));
		put_files(directory($node, $database), 'wanted.mp3');
		$node->safe_psql('template1', ($database eq 'postgres' ? '' : "CREATE DATABASE $database TEMPLATE postgres;\n")
			  . "ALTER DATABASE $database SET audio_cleanup.upload_dir = '" . directory($node, $database) . q{'});
		$node->safe_psql($database, q{INSERT INTO sessions (audio_url) VALUES ('wanted.mp3')});
	}
	change_settings($node, 'audio_cleanup.databases' => $databases);
	launcher_says($node, 'sleeping until 2027-03-01 03:00:00+00') or die 'there is no launcher';
	return $node;
}

sub directory
{
	my ($node, $database) = @_;
	return upload_dir($node) . ($database eq 'postgres' ? '' : "_$database");
}

# Returns what violations() wants to know.
sub make_files
{
	my ($node, $database, $n) = @_;
	my $dir = directory($node, $database);

	$nights++;
	return { wanted => { 'wanted.mp3' => put_file($dir, 'wanted.mp3') },
		unwanted => { map { $_ => put_file($dir, $_) } map { sprintf 'night%d/%03d.mp3', $nights, $_ } 1 .. $n } };
}

sub processes
{
	my ($node, $type) = @_;
	return split /\n/, $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type ~ '$type'");
}

sub is_alive
{
	my ($pid) = @_;
	# what nobody has waited for yet has no command line
	return length(eval { slurp_file("/proc/$pid/cmdline") } // '');
}

# How often it stands in the log by now.
sub count_lines
{
	my ($node, $pattern) = @_;
	my @found = slurp_file($node->logfile) =~ /$pattern/g;
	return scalar @found;
}

# The hour comes, and the worker is in the middle of a run in that database; nobody who comes after it is slow.
sub begin_slow_night
{
	my ($node, $date, $database) = @_;
	my $files = make_files($node, $database, $many);

	$node->safe_psql('postgres', "ALTER DATABASE $database SET $slowly = 10");
	set_schedule_clock($node, "$date 02:50:00");
	ok(launcher_says($node, "sleeping until $date 03:00:00+00"), "$date");
	set_schedule_clock($node, "$date 03:00:00");
	ok($node->poll_query_until('postgres', "SELECT files_done > 0 FROM cleanup_progress JOIN pg_stat_activity USING (pid)"
			  . " WHERE backend_type = 'audio_cleanup worker'"), "$date: a worker is in the middle of its run");
	$node->safe_psql('postgres', "ALTER DATABASE $database RESET $slowly");
	return $files;
}

# All is as if nothing had happened, but that the run was cut short.
sub check_end
{
	my ($node, $name, $files) = @_;

	ok(wait_for_drain($node), "$name: it is drained");
	is_deeply(violations($node, directory($node, 'postgres'), { %$files, final => 1 }), [],
		"$name: every file is accounted for");
	is_deeply(visible_files(directory($node, 'postgres')), $files->{wanted}, "$name: the orphans are gone");
	return;
}

sub last_run
{
	my ($node, $database, $n) = @_;
	return runs($node, $database)->[ -($n || 1) ];
}

# ---- somebody else's run is under way when the hour comes ----

my $busy = start_server('busy', 'locked, other, postgres', <<'END');
audio_cleanup.writer_wait = '200ms'
log_min_messages = debug1
END
my %session;
foreach my $database ('postgres', 'other')
{
	make_files($busy, $database, $many);
	$session{$database} = $busy->background_psql($database, on_error_stop => 0, timeout => 3600);
	$session{$database}->query_until(qr/^begun$/m, "\\echo begun\nSET $slowly = 1;\nCALL cleanup_run();\n");
}
$session{locked} = $busy->background_psql('locked', on_error_stop => 0, timeout => 3600);
$session{locked}->query_safe('BEGIN; LOCK TABLE cleanup_runs');
ok($busy->poll_query_until('postgres', 'SELECT count(*) = 2 FROM cleanup_progress WHERE files_done > 0'),
	'two runs are under way');
set_schedule_clock($busy, '2027-03-01 03:00:00');
my %told = (
	busy => qr/LOG:  waiting to clean database "(?:other|postgres)": another cleanup run is under way/,
	locked => qr/LOG:  waiting to clean database "locked": /,
	slots => qr/waiting to clean database "postgres": no background worker is free\n[^\n]*HINT:  .*max_worker_processes/);
ok(wait_until(sub { count_lines($busy, $told{busy}) == 2 }), 'the launcher waits for them, and says so');
ok(launcher_says($busy, 'sleeping until 2027-03-02 03:00:00+00'), 'it does not stand in their way');
is(count_lines($busy, $told{locked}), 1, 'nor does it stop where somebody has locked its tables');
# other is taken off the list while it waits
change_settings($busy, 'audio_cleanup.databases' => 'locked, postgres');

# ---- there is no background worker when the hour comes ----

my $slots = start_server('slots', 'postgres', "max_worker_processes = 2\nmax_logical_replication_workers = 0\n");
ok($slots->poll_query_until('postgres', 'SELECT count(*) = 1 FROM cleanup_schedule'), 'one worker is free');
my $parallel = $slots->background_psql('postgres', on_error_stop => 0, timeout => 3600);
# the setting has the first name until 18, and the second since 16
$parallel->query_until(qr/^begun$/m,
	"\\echo begun\nSET force_parallel_mode = on;\nSET debug_parallel_query = on;\nSELECT pg_sleep(1000);\n");
ok(wait_until(sub { processes($slots, 'parallel worker') }), 'then none is');
set_schedule_clock($slots, '2027-03-01 03:00:00');
ok(wait_until(sub { count_lines($slots, $told{slots}) == 1 }),
	'the launcher waits for one, and says what can be done');
my $slots_since = time;

# ---- what others do in the middle of a run ----

my $node = start_server('trouble', 'postgres, second, third');
my ($rc, $stdout, $stderr, $worker, $files, $session);

$files = begin_slow_night($node, '2027-03-01', 'postgres');
ok(launcher_says($node, 'cleaning database "postgres"'), 'the launcher says what is being done');
is($node->safe_psql('postgres', q{SELECT query FROM pg_stat_activity WHERE backend_type = 'audio_cleanup worker'}),
	'cleanup run (schedule)', 'so does the worker');
($worker) = processes($node, 'audio_cleanup worker');
foreach (1 .. 3)
{
	my $done = $node->safe_psql('postgres',
		"SELECT pg_reload_conf();\nSELECT files_done FROM cleanup_progress WHERE pid = $worker") =~ s/^t\n//r;
	ok($node->poll_query_until('postgres', "SELECT files_done > $done FROM cleanup_progress WHERE pid = $worker"),
		'after a reload it goes on');
}
foreach my $statement ('ALTER EXTENSION audio_cleanup UPDATE', 'ALTER TABLE cleanup_runs ADD COLUMN note text',
	'ALTER TABLE cleanup_runs DROP COLUMN note', 'ALTER TABLE cleanup_files SET (fillfactor = 90)',
	'BEGIN; LOCK cleanup_runs, cleanup_files, sessions; COMMIT', 'ALTER TABLE sessions ADD COLUMN note text',
	'VACUUM FULL cleanup_files', q{SELECT cleanup_add_source('sessions', '{audio_url}')},
	'BEGIN; DROP EXTENSION audio_cleanup; ROLLBACK')
{
	($rc, $stdout, $stderr) = $node->psql('postgres', "SET lock_timeout = '2s';\n$statement");
	is($rc, 0, "$statement does not wait") or diag $stderr;
}
foreach (1 .. 5)
{
	($rc, $stdout, $stderr) = $node->psql('postgres', q{SET audio_cleanup.writer_wait = '300ms'; SELECT cleanup_all()});
	last if $stderr =~ /DETAIL:  Process/;
}
like($stderr, qr/ERROR:  another cleanup run is under way.*\nDETAIL:  Process $worker holds it\.\nHINT:/,
	'another run is refused, and told by whom');
$session = $node->background_psql('postgres');
$session->query_safe("SET audio_cleanup.writer_wait = '60s'");
$session->query_until(qr/^asked$/m, "\\echo asked\nSELECT cleanup_all() IS NOT NULL;\n");
ok($node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ '^SELECT cleanup_all' AND wait_event_type = 'Lock'}),
	'or waits if it is told to');
is_deeply([ processes($node, 'audio_cleanup worker') ], [$worker], 'the worker goes on');
is($node->safe_psql('postgres', "SELECT pg_cancel_backend($worker)"), 't', 'the worker can be cancelled');
like($session->query('SELECT 1'), qr/1$/, 'then it is the turn of who waits');
$session->quit;
check_end($node, 'cancel', $files);
is(last_run($node, 'postgres', 2), 'schedule 2027-03-01 interrupted', 'the run says so');
ok(launcher_says($node, 'sleeping until 2027-03-02 03:00:00+00'), 'the other databases had their turn');
is(last_run($node, $_), 'schedule 2027-03-01 done', "$_ is done") foreach 'second', 'third';

# ---- the worker is terminated, after the next hour ----

$files = begin_slow_night($node, '2027-03-02', 'postgres');
($worker) = processes($node, 'audio_cleanup worker');
set_schedule_clock($node, '2027-03-03 03:00:00');
ok($node->poll_query_until('postgres', q{SELECT next_run = '2027-03-04 03:00:00+00' FROM cleanup_next_run()}),
	'the next hour comes while the night is not over');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
ok(launcher_says($node, 'sleeping until 2027-03-04 03:00:00+00'), 'a worker is terminated');
is_deeply([ @{ runs($node, $_) }[ -2, -1 ] ], [ 'schedule 2027-03-02 done', 'schedule 2027-03-03 done' ],
	"$_ has had both its turns") foreach 'second', 'third';
check_end($node, 'terminate', $files);
is_deeply([ @{ runs($node) }[ -2, -1 ] ], [ 'schedule 2027-03-02 interrupted', 'schedule 2027-03-03 done' ],
	'what was cut short was finished by the next run');

# ---- the server is stopped ----

$files = begin_slow_night($node, '2027-03-04', 'postgres');
my $began = time;
$node->stop('fast');
cmp_ok(time - $began, '<', 3, 'a fast shutdown does not wait for the run');
$node->start;
ok(launcher_says($node, 'sleeping until 2027-03-05 03:00:00+00'), 'started again');
is(last_run($node, $_), 'catch-up 2027-03-04 done', "$_, whose turn had not come, is caught up")
  foreach 'second', 'third';
check_end($node, 'shutdown', $files);
is(last_run($node), 'schedule 2027-03-04 interrupted', 'that day does not run again');

# ---- the postmaster is killed ----

$files = begin_slow_night($node, '2027-03-05', 'postgres');
make_files($node, 'second', $many);
$session = $node->background_psql('second', on_error_stop => 0);
$session->query_until(qr/^begun$/m, "\\echo begun\nSET $slowly = 10;\nCALL cleanup_run();\n");
ok($node->poll_query_until('postgres', 'SELECT count(*) = 2 FROM cleanup_progress WHERE files_done > 0'),
	'a caller makes a run, too');
my @ours = split /\n/, $node->safe_psql('postgres',
	q{SELECT pid FROM pg_stat_activity WHERE backend_type ~ '^audio_cleanup' OR query ~ '^CALL'});
is(@ours, 3, 'with the launcher these are three processes');
my @all = (processes($node, ''), slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/);
$began = time;
$node->kill9;
wait_until(sub { !grep { is_alive($_) } @ours });
cmp_ok(time - $began, '<', 3, 'when the postmaster is killed they end');
$session->{run}->finish;
ok(wait_until(sub { !grep { kill 0, $_ } @all }), 'so do the others');
$node->start;
ok(launcher_says($node, 'sleeping until 2027-03-06 03:00:00+00'), 'the server is started again');
is(last_run($node, $_), 'catch-up 2027-03-05 done', "$_ is caught up") foreach 'second', 'third';
is(last_run($node, 'second', 2), 'sql interrupted', 'the run of the caller was drained');
check_end($node, 'kill', $files);
is(last_run($node), 'schedule 2027-03-05 interrupted', 'that day does not run again');

# ---- databases are dropped ----

$began = time;
$node->safe_psql('postgres', 'DROP DATABASE third');
cmp_ok(time - $began, '<', 4, 'a database can be dropped while the launcher waits');
begin_slow_night($node, '2027-03-06', 'second');
($worker) = processes($node, 'audio_cleanup worker');
($rc, $stdout, $stderr) = $node->psql('postgres', 'DROP DATABASE second WITH (FORCE)');
is($rc, 0, 'and by force while a worker is in it') or diag $stderr;
ok(wait_until(sub { !is_alive($worker) }), 'which is gone');
ok(launcher_says($node, 'sleeping until 2027-03-07 03:00:00+00'), 'the launcher goes on');
is(last_run($node), 'schedule 2027-03-06 done', 'the database before it was done');
is(count_lines($node, qr/FATAL:  database "third" does not exist/), 1,
	'what was dropped is named');

# ---- the extension is dropped ----

begin_slow_night($node, '2027-03-07', 'postgres');
($rc, $stdout, $stderr) = $node->psql('postgres', "SET lock_timeout = '2s';\nDROP EXTENSION audio_cleanup");
is($rc, 0, 'DROP EXTENSION does not wait for the run') or diag $stderr;
ok(wait_until(sub { !processes($node, 'audio_cleanup (worker|drain)') }), 'the worker ends');
ok(launcher_says($node, 'sleeping until 2027-03-08 03:00:00+00'), 'the launcher goes on');
is(count_lines($node, qr/ERROR:  extension "audio_cleanup" was dropped during a cleanup run/), 1, 'the log says why');
ok(-e directory($node, 'postgres') . '/wanted.mp3', 'what is wanted is there');
$node->stop;

# ---- those that wait since the beginning ----

# three when the server was started, three at the hour, two later
ok(wait_until(sub { count_lines($busy, qr/starting background worker process "audio_cleanup worker"/) >= 8 }),
	'the launcher tries again');
is(count_lines($busy, qr/$told{busy}|$told{locked}/), 3, 'it does not repeat itself');
is_deeply(runs($busy, $_), ['sql running'], "nothing has happened in $_ meanwhile") foreach 'postgres', 'other';
$session{locked}->query_safe('COMMIT');
$busy->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query ~ '^CALL'});
ok($busy->poll_query_until('postgres', q{SELECT status = 'done' FROM cleanup_runs WHERE trigger = 'schedule'}),
	'when the other run is over the database is cleaned');
is_deeply(runs($busy), [ 'sql interrupted', 'schedule 2027-03-01 done' ], 'for the same day');
ok(wait_until(sub { (runs($busy, 'locked')->[-1] // '') =~ /done$/ }), 'where the lock was given back, too') or diag explain runs($busy, 'locked');
ok(!(grep { /schedule/ } @{ runs($busy, 'other') }), 'what was taken off the list meanwhile is not cleaned');
$_->quit foreach values %session;
$busy->stop;

ok(wait_until(sub { time > $slots_since + 12 }), 'one more try');
is(count_lines($slots, $told{slots}), 1, 'the launcher without workers does not repeat itself either');
is_deeply(runs($slots), [], 'nothing has happened there');
$slots->append_conf('postgresql.conf', 'max_worker_processes = 8');
$slots->restart;
$parallel->{run}->finish;
ok(launcher_says($slots, 'sleeping until 2027-03-02 03:00:00+00'), 'with more workers');
is_deeply(runs($slots), ['catch-up 2027-03-01 done'], 'it is caught up');
$slots->stop;

unlike(slurp_file($_->logfile), qr/PANIC:|TRAP:|signal \d+/, 'no process has died') foreach $node, $busy, $slots;
done_testing();
