# What others see of a run under way, and that it can be slowed down, cancelled
# and stopped in time without being in anybody's way.
#
# Slow: it slows runs down.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $size = 1000;    # of each orphan
my $round = 0;

# Statements that take their time, in a session of their own; end_of() waits for it.
sub begin_sql
{
	my ($node, $sql, $database) = @_;
	my %call = (stdout => '', stderr => '');

	# nothing is fed into it, because nobody pumps meanwhile
	$call{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database || 'postgres'),
			map { ('-c', $_) } split /;\s*/, $sql ],
		'<', \undef, '>', \$call{stdout}, '2>', \$call{stderr}, IPC::Run::timeout(180));
	return \%call;
}

sub end_of
{
	my ($call) = @_;
	$call->{run}->finish;
	return $call;
}

# Files that no row refers to; returns path => content.
sub put_orphans
{
	my ($dir, $n) = @_;
	my %files;

	$round++;
	foreach my $i (1 .. $n)
	{
		my $name = sprintf 'round%d/%02d.mp3', $round, $i;
		$files{$name} = put_file($dir, $name, content => sprintf("%-*s", $size, $name));
	}
	return \%files;
}

# ---- without preloading: begun now, looked at when the rest is done ----

my $bare = new_server('bare', conf => "audio_cleanup.files_per_second = 4\n");
make_schema($bare);
add_rows($bare, put_files(upload_dir($bare), map { "wanted$_.mp3" } 1 .. 3));
put_orphans(upload_dir($bare), 44);
my $told = begin_sql($bare, 'CALL cleanup_run()');

# ---- preloaded ----

my $node = new_server('progress', conf => "shared_preload_libraries = 'audio_cleanup'\n");
my $dir = upload_dir($node);
make_schema($node);
my %wanted = map { $_ => put_file($dir, $_) } map { "wanted$_.mp3" } 1 .. 5;
add_rows($node, sort keys %wanted);
$node->safe_psql('postgres', 'CALL cleanup_run()');
ok(wait_for_drain($node), 'the directory is claimed');

my $watch = $node->background_psql('postgres');

# The rows of the view, with what the activity view knows of these processes.
sub look
{
	return @{ JSON::PP::decode_json($watch->query_safe(q{
		SELECT coalesce(json_agg(s), '[]') FROM (
			SELECT p.*, extract(epoch FROM p.elapsed) AS seconds, extract(epoch FROM p.remaining) AS seconds_left,
				extract(epoch FROM clock_timestamp() - a.xact_start) AS transaction_age, a.backend_xmin, a.backend_type
			FROM cleanup_progress p JOIN pg_stat_activity a USING (pid) ORDER BY p.started_at) s})) };
}

sub find_row
{
	my ($matches) = @_;
	my ($row) = grep { $matches->() } look();
	return $row;
}

# Bounded; the first row that is like that.
sub wait_for_row
{
	my ($matches) = @_;
	my $row;

	wait_until(sub { ($row) = grep { $matches->() } look(); $row });
	return $row || {};
}

sub is_gone
{
	my ($name, @still) = @_;
	is_deeply([ map { "$_->{datname} $_->{phase}" } look() ], [@still], $name);
	return;
}

# All rows of a process, until it has none any more.
sub follow
{
	my ($pid) = @_;
	my @samples;

	while (my $row = find_row(sub { $_->{pid} == $pid }))
	{
		push @samples, $row;
		usleep(50_000);
	}
	return @samples;
}

# As the samples say: begun anew at most every half second, and two at a time.
sub pace_is_kept
{
	my ($name, $per_second, @samples) = @_;
	my @too_fast;

	foreach my $i (0 .. $#samples)
	{
		foreach my $later (@samples[ $i + 1 .. $#samples ])
		{
			my $seconds = $later->{seconds} - $samples[$i]{seconds};
			my $files = $later->{files_done} - $samples[$i]{files_done};
			push @too_fast, sprintf('%d files in %.2f seconds', $files, $seconds) if $files > $per_second * ($seconds + 1);
		}
	}
	is_deeply(\@too_fast, [], "$name: the pace is kept");
	return;
}

sub nobody_waits
{
	my ($name, @samples) = @_;
	my ($oldest) = sort { $b <=> $a } map { $_->{transaction_age} // 0 } @samples;

	cmp_ok(scalar @samples, '>', 10, "$name: it was looked at " . @samples . ' times');
	cmp_ok($oldest, '<', 1.5, "$name: no transaction is kept open");
	cmp_ok(scalar(grep { !defined $_->{backend_xmin} } @samples), '>', @samples / 4, "$name: resting, it keeps VACUUM from nothing");
	return;
}

my $slowly = 'SET audio_cleanup.files_per_second = 4;';
is_gone('nobody cleans');

# ---- a writer in flight, waited for: the figures of the survey ----

my $orphans = put_orphans($dir, 30);
my $writer = $node->background_psql('postgres');
$writer->query_safe(q{BEGIN; INSERT INTO sessions (audio_url) VALUES ('nothing.mp3')});
my $call = begin_sql($node, "$slowly SET audio_cleanup.writer_wait = '100s'; SET application_name = 'slow'; CALL cleanup_run()");
my $row = wait_for_row(sub { $_->{phase} eq 'waiting for writers' });
is_deeply([ @{$row}{qw(datname trigger dry_run files_walked files_matched files_condemned files_done bytes_freed seconds_left)} ],
	[ 'postgres', 'sql', JSON::PP::false, 35, 5, 30, 0, 0, undef ], 'a run that waits for a writer');
is($row->{pid}, $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE application_name = 'slow'}), 'its process');
is($row->{run_id}, $node->safe_psql('postgres', q{SELECT max(run_id) FROM cleanup_runs WHERE status = 'running'}), 'its run');
cmp_ok($row->{seconds}, '<', 180, 'since when');
$writer->query_safe('COMMIT');

# ---- deleting, slowly ----

my $pid = $row->{pid};
$row = wait_for_row(sub { $_->{phase} eq 'deleting' && $_->{files_done} > 0 });
is($row->{pid}, $pid, 'the same process deletes');

# meanwhile others work
my $before = time;
$node->safe_psql('postgres', q{SET lock_timeout = '10s'; BEGIN; ALTER TABLE cleanup_files ADD COLUMN comment text; ROLLBACK});
cmp_ok(time - $before, '<', 2, 'ALTER TABLE gets its lock between two portions');
my @samples = ($row);
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE');
my $preview = begin_sql($node, 'SELECT cleanup_all(true)');
my $dry = wait_for_row(sub { $_->{dry_run} });
isnt($dry->{pid}, $pid, 'a dry run at the same time has a row of its own');
is_deeply([ @{$dry}{qw(datname run_id trigger phase files_walked files_done)} ], [ 'postgres', undef, 'sql', 'starting', 0, 0 ],
	'which tells that it is one, and waits');
is(scalar(look()), 2, 'so there are two');
$locker->query_safe('COMMIT');
like(end_of($preview)->{stdout}, qr/"success": true/, 'it ends');

push @samples, follow($pid);
is_deeply([ map { $_->{phase} } grep { $_->{phase} ne 'deleting' } @samples ], [], 'it deletes until it is done');
is_deeply([ map { "$samples[$_-1]{files_done} $samples[$_]{files_done}" }
		grep { $samples[$_]{files_done} < $samples[ $_ - 1 ]{files_done} } 1 .. $#samples ], [], 'files_done grows');
is_deeply([ grep { $_ != 30 } map { $_->{files_condemned} } @samples ], [], 'up to files_condemned');
cmp_ok($samples[-1]{files_done}, '>=', 26, 'and nearly reaches it before the end');
is_deeply([ map { "$_->{files_done}: $_->{bytes_freed}" } grep { abs($_->{bytes_freed} - $_->{files_done} * $size) > 2 * $size } @samples ],
	[], 'the bytes are those of the files');
my @estimates = grep { $_->{files_done} >= 6 && $_->{files_done} < 30 } @samples;
cmp_ok(scalar @estimates, '>', 5, 'there are estimates');
my $end = $samples[-1]{seconds};
is_deeply([ map { "$_->{seconds_left} of " . ($end - $_->{seconds}) }
		grep { abs($_->{seconds_left} - ($end - $_->{seconds})) > 2.5 + $end / 4 } @estimates ], [], 'of how long it still takes');
pace_is_kept('CALL', 4, @samples);
nobody_waits('CALL', @samples);
like(end_of($call)->{stdout}, qr/"orphaned_files_count": 30/, 'the run is done');
is($call->{stderr}, '', 'its client was told nothing');
is_gone('and gone from the view');
is($node->safe_psql('postgres', 'SELECT status, trigger, deleted, bytes, message FROM cleanup_runs ORDER BY run_id DESC LIMIT 1'),
	'done|sql|30|' . 30 * $size . '|', 'history agrees with the view');
is_deeply(violations($node, $dir, { wanted => \%wanted, unwanted => $orphans, final => 1 }), [], 'all is well');

# ---- cancelled: at once, and a worker finishes ----

$orphans = put_orphans($dir, 30);
$call = begin_sql($node, "$slowly CALL cleanup_run()");
$row = wait_for_row(sub { $_->{files_done} > 0 });
$before = time;
$node->safe_psql('postgres', "SELECT pg_cancel_backend($row->{pid})");
end_of($call);
cmp_ok(time - $before, '<', 1, 'a cancel is obeyed at once');
like($call->{stderr}, qr/^ERROR:  canceling statement due to user request/m, 'with the usual words');
ok(wait_until(sub { !find_row(sub { $_->{pid} == $row->{pid} }) }), 'it is gone from the view');
ok(wait_for_drain($node), 'a worker takes over');
is($node->safe_psql('postgres', "SELECT status, files, deleted FROM cleanup_runs WHERE run_id = $row->{run_id}"),
	'interrupted|30|30', 'and finishes');
is_deeply(violations($node, $dir, { wanted => \%wanted, unwanted => $orphans, final => 1 }), [], 'all is well');

# ---- ended by an error ----

sub brake { return q{SET audio_cleanup.orphaned_file_retention_hours = 0; SET audio_cleanup.audio_extensions = 'xyz'; } }
put_files($dir, map { "unknown$_.xyz" } 1 .. 12);
foreach my $statement ('CALL cleanup_run()', 'SELECT cleanup_all()', 'BEGIN; SAVEPOINT s; SELECT cleanup_all()',
	'BEGIN; SELECT cleanup_all()', 'DO $$ BEGIN PERFORM cleanup_all(); EXCEPTION WHEN others THEN RAISE WARNING $x$%$x$, SQLERRM; END $$')
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->query(brake() . $statement);
	like($session->{stderr}, qr/no file in the upload directory is referred to by any row/, "refused: $statement");
	is_gone('a run that is refused is gone from the view');
	my ($rc, $stdout, $stderr) = $node->psql('postgres', q{SET audio_cleanup.writer_wait = '100ms'; CALL cleanup_run()});
	is($stderr, '', 'and in nobody\'s way');
	$session->quit;
}
unlink map { "$dir/unknown$_.xyz" } 1 .. 12;

# ---- in a transaction: gone after the statement; then its worker is seen ----

$node->safe_psql('postgres', q{CREATE DATABASE other});
my $other_dir = $node->basedir . '/others';
mkdir $other_dir or die $!;
$node->safe_psql('postgres', qq{
	ALTER DATABASE postgres SET audio_cleanup.files_per_second = 4;
	ALTER DATABASE other SET audio_cleanup.files_per_second = 4;
	ALTER DATABASE other SET audio_cleanup.upload_dir = '$other_dir'});
make_schema($node, 'other');
put_files($other_dir, 'wanted1.mp3');
$node->safe_psql('other', q{INSERT INTO sessions (audio_url) VALUES ('wanted1.mp3')});
put_orphans($other_dir, 12);
$orphans = put_orphans($dir, 20);

my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN; SELECT cleanup_all()');
is_gone('a transaction that has condemned files is not a run under way');
my $other_call = begin_sql($node, 'CALL cleanup_run()', 'other');
$session->query_safe('COMMIT');
my $run_id = $node->safe_psql('postgres', 'SELECT max(run_id) FROM cleanup_runs');
$row = wait_for_row(sub { $_->{datname} eq 'postgres' && $_->{files_done} > 0 });
is_deeply([ @{$row}{qw(backend_type run_id trigger dry_run phase files_condemned)} ],
	[ 'audio_cleanup drain', $run_id, 'sql', JSON::PP::false, 'deleting', 20 ], 'the worker that deletes is seen');
$row = wait_for_row(sub { $_->{datname} eq 'other' && $_->{files_done} > 0 });
is_deeply([ @{$row}{qw(backend_type trigger files_walked files_matched files_condemned)} ], [ 'client backend', 'sql', 13, 1, 12 ],
	'so is a run in another database');
is(join(' ', sort map { $_->{datname} } look()), 'other postgres', 'at the same time');
($row) = grep { $_->{datname} eq 'postgres' } look();
@samples = follow($row->{pid});
pace_is_kept('worker', 4, @samples);
nobody_waits('worker', @samples);
is_deeply([ grep { defined $_->{seconds_left} && $_->{seconds_left} > 60 } @samples ], [], 'worker: with estimates');
$session->quit;
ok(wait_for_drain($node), 'it comes to its end');
cmp_ok($node->safe_psql('postgres', "SELECT extract(epoch FROM finished_at - started_at) FROM cleanup_runs WHERE run_id = $run_id"), '>', 4.5,
	'which takes 20 files their time');
is_deeply(violations($node, $dir, { wanted => \%wanted, unwanted => $orphans, final => 1 }), [], 'all is well');
like(end_of($other_call)->{stdout}, qr/"orphaned_files_count": 12/, 'in the other database, too');
is(join(' ', sort keys %{ visible_files($other_dir) }), 'wanted1.mp3', 'its orphans are gone');

# ---- while a worker rests: another call, a new row, another owner ----

$orphans = put_orphans($dir, 26);
$node->safe_psql('postgres', 'SELECT cleanup_all()');
wait_for_row(sub { $_->{files_done} > 0 });
$before = time;
my $in_trash = keys %{ trashed_files($dir) };
$node->safe_psql('postgres', 'SELECT cleanup_all()');
cmp_ok($in_trash - keys %{ trashed_files($dir) }, '<=', 4 * (time - $before + 1), "a second call keeps the pace: there were $in_trash in the trash");
my $last = $node->safe_psql('postgres', 'SELECT file FROM cleanup_files ORDER BY run_id DESC, file_id DESC LIMIT 1');
add_rows($node, $last);
$wanted{$last} = delete $orphans->{$last};
ok(wait_for_drain($node), 'the worker finishes');
is($node->safe_psql('postgres', "SELECT state FROM cleanup_files WHERE file = '$last'"), 'restored', 'what is referred to seconds before its turn is put back');
is_deeply(violations($node, $dir, { wanted => \%wanted, unwanted => $orphans, final => 1 }), [], 'all is well');

put_orphans($other_dir, 60);
$node->safe_psql('other', 'SELECT cleanup_all()');
ok(wait_for_row(sub { $_->{files_done} > 0 })->{pid}, 'a worker deletes');
$node->safe_psql('postgres', "SET audio_cleanup.upload_dir = '$other_dir'; SELECT cleanup_claim_upload_dir()");
my $in_place = keys %{ visible_files($other_dir) };
ok(wait_until(sub { !look() }), 'the directory is taken over: it ends');
is(scalar(keys %{ visible_files($other_dir) }), $in_place, 'without touching what is not ours any more');
ok($in_place > 0, 'which is in its place again');
is_deeply(trashed_files($other_dir), {}, 'all of it');
like(log_lines($node, qr/WARNING|DETAIL/), qr/run \d+ is left unfinished\n.*"\Q$other_dir\E" does not belong to this database/, 'and tells why');

# ---- a view as a source that takes long to read ----

$node->safe_psql('postgres', q{
	ALTER DATABASE postgres RESET audio_cleanup.files_per_second;
	CREATE VIEW gated AS SELECT audio_url, pg_advisory_xact_lock_shared(1) IS NULL AS is_open FROM sessions;
	CREATE VIEW slow_source AS SELECT audio_url FROM gated WHERE NOT is_open;
	SELECT cleanup_add_source('slow_source')});
$locker->query_safe('SELECT pg_advisory_lock(1)');
$preview = begin_sql($node, q{SET audio_cleanup.writer_wait = '100s'; SELECT cleanup_status()});
$row = wait_for_row(sub { $_->{phase} eq 'matching' });
is_deeply([ @{$row}{qw(dry_run files_walked)} ], [ JSON::PP::true, scalar keys %wanted ], 'cleanup_status() is seen matching');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($row->{pid})");
like(end_of($preview)->{stderr}, qr/canceling statement due to user request/, 'it can be cancelled');
is_gone('and is gone then');
$locker->query_safe('SELECT pg_advisory_unlock(1)');
$node->safe_psql('postgres', q{SELECT cleanup_drop_source('slow_source')});

# ---- who may look ----

$node->safe_psql('postgres', q{CREATE ROLE viewer; CREATE ROLE nobody; SELECT cleanup_grant_access('viewer')});
is($node->safe_psql('postgres', 'SET ROLE viewer; SELECT count(*) FROM cleanup_progress'), 0, 'a viewer may look');
is($node->safe_psql('postgres', 'SET ROLE viewer; SELECT count(*) FROM cleanup_progress()'), 0, 'by the function, too');
foreach my $name ('cleanup_progress', 'cleanup_progress()')
{
	my ($rc, $stdout, $stderr) = $node->psql('postgres', "SET ROLE nobody; SELECT * FROM $name");
	like($stderr, qr/permission denied for (view|function) cleanup_progress/, "nobody else: $name");
}
$node->safe_psql('postgres', q{SELECT cleanup_revoke_access('viewer')});
my ($rc, $stdout, $stderr) = $node->psql('postgres', 'SET ROLE viewer; SELECT * FROM cleanup_progress');
like($stderr, qr/permission denied for view cleanup_progress/, 'nor a viewer whose access was taken back');

# ---- terminated, and killed ----

$orphans = put_orphans($dir, 30);
$call = begin_sql($node, "$slowly CALL cleanup_run()");
$row = wait_for_row(sub { $_->{files_done} > 0 });
$node->safe_psql('postgres', "SELECT pg_terminate_backend($row->{pid}, 60000)");
like(end_of($call)->{stderr}, qr/terminating connection due to administrator command/, 'a run is terminated');
is_gone('it is gone from the view');
my $terminated = $row->{run_id};

$call = begin_sql($node, "$slowly CALL cleanup_run()");
$row = wait_for_row(sub { $_->{phase} eq 'deleting' });
is(scalar(look()), 1, 'the next one has a row again');
my $position = log_position($node);
kill 'KILL', $row->{pid} or die "could not kill $row->{pid}: $!";
end_of($call);
ok(wait_until(sub { log_since($node, $position) =~ /terminated by signal 9.*ready to accept connections/s }), 'killed, the server starts anew');
$_->{run}->finish foreach $watch, $locker, $writer;
$watch = $node->background_psql('postgres');
is_gone('then the view is empty');
$node->safe_psql('postgres', 'CALL cleanup_run()');
ok(wait_for_drain($node), 'the next run finishes');
is($node->safe_psql('postgres', "SELECT run_id, status, deleted FROM cleanup_runs WHERE run_id IN ($terminated, $row->{run_id}) ORDER BY run_id"),
	"$terminated|interrupted|30\n$row->{run_id}|interrupted|0", 'what both have left');
is_deeply(violations($node, $dir, { wanted => \%wanted, unwanted => $orphans, final => 1 }), [], 'all is well');
is_gone('nobody cleans any more');
$watch->quit;
$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|signal (?!9\b)\d+/, 'no process has died but the one that was killed');

# ---- max_run_minutes ----

my $late = new_server('late', start => 0, conf => "shared_preload_libraries = 'audio_cleanup'\naudio_cleanup.max_run_minutes = 1\naudio_cleanup.files_per_second = 4\n");
my $late_dir = upload_dir($late);
my $ahead = start_with_clock($late);
make_schema($late);
%wanted = map { $_ => put_file($late_dir, $_) } 'wanted.mp3';
add_rows($late, sort keys %wanted);
$late->safe_psql('postgres', 'CALL cleanup_run()');
ok(wait_for_drain($late), 'the directory is claimed');

my $minutes = 0;
foreach my $batch_size (1, 10000)
{
	my $name = "max_run_minutes, batch_size $batch_size";
	my $unwanted = put_orphans($late_dir, 16);
	my $deleted;

	$run_id = $late->safe_psql('postgres', 'SELECT max(run_id) FROM cleanup_runs') + 1;
	$call = begin_sql($late, "SET audio_cleanup.batch_size = $batch_size; CALL cleanup_run()");
	ok($late->poll_query_until('postgres', "SELECT count(*) >= 3 FROM cleanup_files WHERE run_id = $run_id AND state = 'deleted'"), "$name: a run has begun");
	set_clock($ahead, 0, 61 * ++$minutes);
	end_of($call);
	is($call->{stderr}, '', "$name: it ends by itself");
	like($call->{stdout}, qr/"warnings": \["stopped after 1 minutes/, "$name: it says so");
	is($late->safe_psql('postgres', "SELECT status, message FROM cleanup_runs WHERE run_id = $run_id"),
		'interrupted|stopped after 1 minutes (audio_cleanup.max_run_minutes); the next run goes on', "$name: history says why");
	$deleted = $late->safe_psql('postgres', "SELECT count(*) FROM cleanup_files WHERE run_id = $run_id AND state = 'deleted'");
	cmp_ok($deleted, '>=', 3, "$name: what it did is kept");
	cmp_ok($deleted, '<', 16, "$name: it did not do all");
	is_deeply(violations($late, $late_dir, { wanted => \%wanted, unwanted => $unwanted }), [], "$name: every file is accounted for");
	like($late->safe_psql('postgres', 'SET audio_cleanup.files_per_second = 0; CALL cleanup_run()'), qr/"success": true/, "$name: the next run goes on");
	ok(wait_for_drain($late), "$name: to the end");
	is_deeply(violations($late, $late_dir, { wanted => \%wanted, unwanted => $unwanted, final => 1 }), [], "$name: all is well");
	is_deeply(visible_files($late_dir), \%wanted, "$name: the orphans are gone");
	is($late->safe_psql('postgres', "SELECT status FROM cleanup_runs WHERE run_id >= $run_id ORDER BY run_id"), "interrupted\ndone", "$name: both runs are at their ends");
}
$late->stop;
unlike(slurp_file($late->logfile), qr/PANIC:|TRAP:|signal \d+/, 'no process has died');

# ---- without preloading ----

end_of($told);
my $line = 'INFO:  cleanup run is in phase "deleting": 47 files walked, 3 matched, 44 condemned, \d+ done, 0\.\d\d MiB freed';
my @lines = split /\n/, $told->{stderr};
my $seconds = $bare->safe_psql('postgres', q{SELECT extract(epoch FROM finished_at - started_at) FROM cleanup_runs});
is_deeply([ grep { !/^$line$/ } @lines ], [], 'not preloaded: the client of a long run is told how far it is');
cmp_ok(scalar @lines, '>=', 2, "not preloaded: in $seconds seconds more than once") or diag($told->{stderr});
cmp_ok(scalar @lines, '<=', $seconds / 5, 'not preloaded: every five seconds');
is($bare->safe_psql('postgres', 'SELECT status, deleted FROM cleanup_runs'), 'done|44', 'not preloaded: it is done');
is(join(' ', grep { !/wanted/ } keys %{ visible_files(upload_dir($bare)) }), '', 'not preloaded: the files are gone');

put_orphans(upload_dir($bare), 4);
$call = begin_sql($bare, 'CALL cleanup_run()');
ok($bare->poll_query_until('postgres', q{SELECT count(*) > 0 FROM cleanup_runs WHERE status = 'running'}), 'a short run');
is($bare->safe_psql('postgres', 'SELECT count(*) FROM cleanup_progress'), 0, 'not preloaded: the view is empty');
is(end_of($call)->{stderr}, '', 'not preloaded: of a short run nobody is told');
put_orphans(upload_dir($bare), 4);
is(end_of(begin_sql($bare, 'SELECT cleanup_all()'))->{stderr}, '', 'not preloaded: nor of cleanup_all()');
ok(wait_for_drain($bare), 'not preloaded: which is done, too');

# ---- a server that shuts down waits for nobody who rests ----

put_orphans(upload_dir($bare), 40);
$bare->safe_psql('postgres', 'SELECT cleanup_all()');
ok($bare->poll_query_until('postgres', q{SELECT count(*) > 0 FROM cleanup_files WHERE file LIKE 'round%' AND state = 'deleted' AND run_id = (SELECT max(run_id) FROM cleanup_runs)}),
	'a worker deletes slowly');
$before = time;
$bare->stop('fast');
cmp_ok(time - $before, '<', 5, 'it ends when the server does');
$bare->start;
$bare->safe_psql('postgres', 'SET audio_cleanup.files_per_second = 0; CALL cleanup_run()');
ok(wait_for_drain($bare), 'and the next run finishes');
is(join(' ', grep { !/wanted/ } keys %{ visible_files(upload_dir($bare)) }), '', 'the files are gone');
$bare->stop;
unlike(slurp_file($bare->logfile), qr/PANIC:|TRAP:|signal \d+/, 'no process has died');
done_testing();
