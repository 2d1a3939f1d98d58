# A run reads the sources as often for many files as for few.  Its last look
# comes when all of its files are captured: whatever way a row becomes a
# reference until then, its file comes back.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_server('last_look', start => 0,
	conf => "max_prepared_transactions = 10\nmax_worker_processes = 16\nautovacuum = off\naudio_cleanup.max_delete_percent = 100\n");
my $dir = upload_dir($node);
start_with_faults($node);
my %wanted = %{ claim_directory($node, 'keep.mp3') };

# ---- so often, however many files ----

sub scans
{
	sql('SELECT pg_stat_force_next_flush()');
	return sql(q{SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'sessions'});
}

# How often a run of $n files reads the table.
sub readings
{
	my ($call, $n, $days) = @_;
	my $before = scans();

	put_file($dir, sprintf 'many/%05d.mp3', $_) foreach 1 .. $n;
	sql("SET audio_cleanup.batch_size = 10; SET audio_cleanup.backup_retention_days = $days; $call");
	ok(wait_for_drain($node), "$call: $n files have gone");
	is(sql("SELECT count(*) FROM cleanup_files WHERE state = '" . ($days ? 'trashed' : 'deleted') . q{' AND run_id = (SELECT max(run_id) FROM cleanup_runs)}),
		$n, '... all of them');
	is_deeply(visible_files($dir), \%wanted, '... and nothing else');
	sql(q{UPDATE cleanup_files SET due_at = condemned_at WHERE state = 'trashed'; SELECT cleanup_purge_backups()}) if $days;
	ok(wait_for_drain($node), '... at last');
	return scans() - $before;
}

foreach my $call ('SELECT cleanup_all(force => true)', 'CALL cleanup_run(force => true)')
{
	foreach my $days (0, 7)
	{
		my $few = readings($call, 3, $days);
		my $many = readings($call, 150, $days);
		cmp_ok($few, '>', 0, "$call, $days days: the table is read $few times for few files");
		is($many, $few, "$call, $days days: as often for many");
	}
}

# ---- the ways in which a row becomes a reference ----

sql(q{CREATE TABLE parts (file text) PARTITION BY LIST (file)},
	q{CREATE TABLE parts_default PARTITION OF parts DEFAULT},
	q{CREATE TABLE changed (id int PRIMARY KEY, file text, note text)},
	q{INSERT INTO changed SELECT n, 'nothing' FROM generate_series(1, 20) n},
	map { "SELECT cleanup_add_source('$_', '{file}')" } 'parts', 'changed');

my %ways = (
	'INSERT' => sub { "INSERT INTO sessions (audio_url) VALUES ('$_[0]')" },
	'UPDATE' => sub { "UPDATE changed SET file = '$_[0]' WHERE id = 1" },
	'a second UPDATE' => sub { "UPDATE changed SET note = 'x' WHERE id = 2; UPDATE changed SET file = '$_[0]' WHERE id = 2" },
	'a subtransaction' => sub { "SAVEPOINT s; INSERT INTO sessions (audio_url) VALUES ('$_[0]'); RELEASE SAVEPOINT s" },
	'a subtransaction after one that failed' => sub { "SAVEPOINT s; DELETE FROM changed; ROLLBACK TO SAVEPOINT s; UPDATE changed SET file = '$_[0]' WHERE id = 3" },
	'ON CONFLICT' => sub { "INSERT INTO changed VALUES (4) ON CONFLICT (id) DO UPDATE SET file = '$_[0]'" },
	'COPY' => sub { "COPY changed FROM PROGRAM 'echo \"" . (100 + int rand 1e8) . ",$_[0],\"' CSV" },
	'a partition that is attached' => sub { my $p = 'p_' . $_[0] =~ s/\W/_/gr; "CREATE TABLE $p (file text); INSERT INTO $p VALUES ('$_[0]'); ALTER TABLE parts ATTACH PARTITION $p FOR VALUES IN ('$_[0]')" },
	'a row of another partition' => sub { "INSERT INTO parts VALUES ('$_[0]')" },
	'a row of a table that is rewritten' => sub { "UPDATE changed SET file = '$_[0]' WHERE id = 5; ALTER TABLE changed ALTER note TYPE varchar(" . (100 + length $_[0]) . ")" },
	'a table that is emptied and filled again' => sub { "CREATE TEMP TABLE kept AS TABLE changed; TRUNCATE changed; INSERT INTO changed SELECT * FROM kept; INSERT INTO changed VALUES (nextval('n'), '$_[0]'); DROP TABLE kept" },
);
sql('CREATE SEQUENCE n START 1000');

# Captured are all, and the worker is about to say so.
my $round = 0;
sub capture
{
	my @files = map { "r$round/$_.mp3" } 'needed', 'orphan';
	$round++;
	put_file($dir, $_) foreach @files;
	set_fault($node, 'fsync hold 1');
	sql('SELECT cleanup_all(force => true)');
	ok(wait_until(sub { fault_fired($node) }), 'the worker is held');
	is_deeply(visible_files($dir), \%wanted, 'when the files are captured');
	return @files;
}

sub check_end
{
	my ($name, $needed, $orphan) = @_;
	ok(wait_for_drain($node), "$name: the run ends");
	$wanted{$needed} = read_file("$dir/$needed");
	is_deeply([ sort keys %{ visible_files($dir) } ], [ sort keys %wanted ], "$name: the file is back, the other one is gone");
	is(sql("SELECT state, error FROM cleanup_files WHERE file = '$needed'"), 'restored|it is referred to again', "$name: its row says so");
	is(sql("SELECT state FROM cleanup_files WHERE file = '$orphan'"), 'deleted', "$name: so does that of the other one");
	return;
}

foreach my $way (sort keys %ways)
{
	my ($needed, $orphan) = capture();
	sql('BEGIN', $ways{$way}->($needed), 'COMMIT');
	clear_fault($node);
	check_end("$way, committed", $needed, $orphan);

	($needed, $orphan) = capture();
	my $session = $node->background_psql('postgres');
	$session->query_safe('BEGIN;' . $ways{$way}->($needed) . ';');
	clear_fault($node);
	usleep(300_000);
	end_session($session);
	check_end("$way, in flight", $needed, $orphan);
}

# a prepared transaction has no process
{
	my ($needed, $orphan) = capture();
	sql('BEGIN', $ways{UPDATE}->($needed), q{PREPARE TRANSACTION 'p'});
	clear_fault($node);
	usleep(300_000);
	sql(q{COMMIT PREPARED 'p'});
	check_end('a prepared transaction', $needed, $orphan);
}

# rewritten without a change of its rows, which VACUUM FULL freezes
{
	my ($needed, $orphan) = capture();
	sql($ways{INSERT}->($needed));
	$node->safe_psql('postgres', $_) foreach 'VACUUM (FULL, FREEZE) sessions', 'VACUUM (FREEZE) sessions';
	clear_fault($node);
	check_end('VACUUM FULL', $needed, $orphan);
}

# what is rolled back protects nothing
{
	my ($needed, $orphan) = capture();
	sql('BEGIN', $ways{INSERT}->($orphan), 'ROLLBACK');
	sql('BEGIN', 'SAVEPOINT s', $ways{INSERT}->($orphan), 'ROLLBACK TO SAVEPOINT s', $ways{INSERT}->($needed), 'COMMIT');
	clear_fault($node);
	check_end('a subtransaction that was rolled back', $needed, $orphan);
}

# ---- the second look reads what can have changed ----

# The moment between the two looks of a run: the file is judged, and the transaction is about to wait for writers.
# Returns how often the run has read the sources before its COMMIT.
sub between_the_looks
{
	my ($file, $do) = @_;
	my $before = scans();
	my $caller = $node->background_psql('postgres');

	set_fault($node, 'statx hold 1 0 ' . $file =~ s{.*/}{}r);
	$caller->{stdin} .= "BEGIN; SELECT cleanup_orphaned_files(force => true); SELECT pg_stat_force_next_flush(); COMMIT;\n\\echo done\n";
	$caller->{run}->pump_nb;
	ok(wait_until(sub { fault_fired($node) }), "$file: the survey has read the sources");
	$do->();
	clear_fault($node);
	ok(pump_until($caller->{run}, $caller->{timeout}, \$caller->{stdout}, qr/^done$/m), '... the call ends');
	$caller->quit;
	return scans() - $before;
}

{
	my $orphan = "s$round/orphan.mp3";

	put_file($dir, $orphan);
	my $quiet = between_the_looks($orphan, sub { });
	ok(wait_for_drain($node), 'nobody has written: the file goes');
	is_deeply([ sort keys %{ visible_files($dir) } ], [ sort keys %wanted ], '... and nothing else');

	put_file($dir, $orphan);
	my $busy = between_the_looks($orphan, sub { sql('CREATE TABLE of_no_matter()', 'DROP TABLE of_no_matter') });
	ok(wait_for_drain($node), 'somebody has written elsewhere: the file goes');
	cmp_ok($busy, '>', $quiet, "... and the sources were read more often ($busy) than before ($quiet)");
}

sub stays_between
{
	my ($name, $make) = @_;
	my ($needed, $orphan) = map { "s$round/$_.mp3" } 'needed', 'orphan';

	$round++;
	put_file($dir, $_) foreach $needed, $orphan;
	between_the_looks($orphan, sub { $make->($needed) });
	ok(wait_for_drain($node), "$name: the run ends");
	is(sql("SELECT count(*) FROM cleanup_files WHERE file = '$needed'"), 0, "$name: the file that is needed by now was not condemned");
	is_deeply([ sort keys %{ visible_files($dir) } ], [ sort keys %wanted, $needed ], "$name: it is there, the other one is gone");

	# another way may change the same row
	unlink "$dir/$needed";
	return;
}

sql(q{CREATE TABLE slices (file text) PARTITION BY LIST (file)}, q{SELECT cleanup_add_source('slices', '{file}')});
foreach my $way ((grep { !/rewritten|emptied|attached/ } sort keys %ways), 'a partition')
{
	my $do = $ways{$way} // sub { $ways{'a partition that is attached'}->($_[0]) =~ s/TABLE parts/TABLE slices/r };

	stays_between("$way between the looks", sub { sql('BEGIN', $do->($_[0]), 'COMMIT') });
	next if $way eq 'a partition';
	my $session = begin_session($node, $do->("s$round/needed.mp3"));
	stays_between("$way, begun before the first look", sub { end_session($session) });
}

{
	sql('BEGIN', $ways{UPDATE}->("s$round/needed.mp3"), q{PREPARE TRANSACTION 'p'});
	stays_between('a prepared transaction between the looks', sub { sql(q{COMMIT PREPARED 'p'}) });
}

# a view may have another answer although nobody has written
{
	my $holder = $node->background_psql('postgres');
	sql(q{CREATE VIEW locked AS SELECT 'lock' || objid || '.mp3' AS file FROM pg_locks WHERE locktype = 'advisory'},
		q{SELECT cleanup_add_source('locked', '{file}')});
	put_file($dir, $_) foreach 'lock77.mp3', 'unlocked.mp3';
	between_the_looks('unlocked.mp3', sub { $holder->query_safe('SELECT pg_advisory_lock(77)') });
	ok(wait_for_drain($node), 'a view that changes by itself: the run ends');
	is(sql(q{SELECT string_agg(file, ' ') FROM cleanup_files WHERE file IN ('lock77.mp3', 'unlocked.mp3')}), 'unlocked.mp3', '... and has not condemned what the view names now');
	$holder->quit;
	sql(q{SELECT cleanup_drop_source('locked')});
	unlink "$dir/lock77.mp3";
}

# ---- killed in the middle of the last look ----

foreach my $fault ('renameat2 kill 1', 'renameat2 killafter 1', 'fsync kill 1', 'unlinkat kill 1')
{
	my ($needed, $orphan) = capture();
	my $position = log_position($node);
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->query_safe('BEGIN;' . $ways{INSERT}->($needed) . ';');
	clear_fault($node);
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain' AND wait_event = 'virtualxid'}),
		"$fault: the last look waits for a writer");
	set_fault($node, $fault);
	$session->{stdin} .= "COMMIT;\n";
	$session->{run}->pump_nb;
	ok(wait_until(sub { log_since($node, $position) =~ /terminated by signal 9.*ready to accept connections/s }), "$fault: killed");
	eval { $session->{run}->finish };
	clear_fault($node);
	ok(-e "$dir/$needed" || trashed_files($dir)->{$needed}, "$fault: the needed file is there");
	ok(trashed_files($dir)->{$orphan}, "$fault: so is the other one: nothing was destroyed");
	sql('SELECT cleanup_all(force => true)');
	ok(wait_for_drain($node), "$fault: the next run ends it");
	$wanted{$needed} = read_file("$dir/$needed");
	is_deeply([ sort keys %{ visible_files($dir) } ], [ sort keys %wanted ], "$fault: the needed file is in its place, the other one gone");
}

# ---- what is said once for all files of a run is not said of one that nobody can find ----

{
	my ($lost, $orphan) = map { "e$round/$_.mp3" } 'lost', 'orphan';
	my $position = log_position($node);

	put_file($dir, $_) foreach $lost, $orphan;
	set_fault($node, 'fsync kill 1');
	sql('SELECT cleanup_all(force => true)');
	ok(wait_until(sub { log_since($node, $position) =~ /terminated by signal 9.*ready to accept connections/s }), 'killed when all are captured');
	set_fault($node, 'statx errno 0 5 lost.mp3');
	sql('SELECT cleanup_all(force => true)');
	ok($node->poll_query_until('postgres', "SELECT state = 'deleted' FROM cleanup_files WHERE file = '$orphan'"), 'a disk that fails for one file: the other one is destroyed');
	like(sql("SELECT state || ': ' || error FROM cleanup_files WHERE file = '$lost'"), qr/^pending: could not .*: Input\/output error$/, '... and that one is pending, with the reason');
	ok(trashed_files($dir)->{$lost}, '... where it is');
	is(sql("SELECT f.file_id <= r.captured_up_to, r.finished_at IS NULL FROM cleanup_files f JOIN cleanup_runs r USING (run_id) WHERE file = '$lost'"), 't|t',
		'... although the run says that it has captured all without an error');
	clear_fault($node);
	sql($ways{INSERT}->($lost), 'SELECT cleanup_all(force => true)');
	ok(wait_for_drain($node), 'with a disk that works the next run goes on');
	$wanted{$lost} = read_file("$dir/$lost");
	is_deeply([ sort keys %{ visible_files($dir) } ], [ sort keys %wanted ], '... and looks at it first: it is needed');
}

is_deeply(violations($node, $dir, { wanted => \%wanted, final => 1 }), [], 'all is well');
$node->stop;
done_testing();
