# One real run at a time in an upload directory, whoever makes it: a run locks
# the claim, and keeps the lock until its COMMIT is carried out.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Fcntl qw(:flock);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('lock');
my $dir = upload_dir($node);
my $claim = "$dir/.audio_cleanup/claim";

make_schema($node);
put_files($dir, 'wanted.mp3', 'first.mp3');
add_rows($node, 'wanted.mp3');
$node->safe_psql('postgres', 'CALL cleanup_run()');
ok(-e $claim && !-e "$dir/first.mp3", 'the first run has claimed the directory');
ok(wait_for_drain($node), 'and is over');

# As another server would.
sub try_lock
{
	open my $handle, '<', $claim or die "could not open $claim: $!";
	return flock($handle, LOCK_EX | LOCK_NB) ? $handle : undef;
}

sub take_lock
{
	my $handle;
	wait_until(sub { $handle = try_lock() }) or die 'the lock was not given back';
	return $handle;
}

# ---- somebody else has it ----

put_files($dir, 'orphan.mp3');
my $foreign = take_lock();
my ($rc, $stdout, $stderr);
foreach my $call ('SELECT cleanup_all()', 'CALL cleanup_run()')
{
	($rc, $stdout, $stderr) =
	  $node->psql('postgres', "\\set VERBOSITY verbose\nSET audio_cleanup.writer_wait = '300ms';\n$call");
	isnt($rc, 0, "$call is refused");
	like($stderr, qr/ERROR:  55P03: another cleanup run is under way in upload directory "\Q$dir\E"/, 'it says so');
	like($stderr, qr/DETAIL:  Process $$ holds the lock of its claim\./, 'and who it is');
	like($stderr, qr/HINT:  .*writer_wait/, 'with a hint');
}
ok(-e "$dir/orphan.mp3", 'nothing was touched');
is($node->safe_psql('postgres', q{SELECT status, message ~ 'under way' FROM cleanup_runs ORDER BY run_id DESC LIMIT 1}),
	'blocked|t', 'the run in batches is on record');
is(sql_json($node, 'SELECT cleanup_all(true)')->{result}{orphaned_files_count}, 1, 'a dry run does not ask for it');
ok(sql_json($node, 'SELECT cleanup_status()')->{success}, 'nor does the status');

# ---- waiting is asked for ----

my $session = $node->background_psql('postgres');
$session->query_until(qr/^asked$/m, "\\echo asked\nSET audio_cleanup.writer_wait = '60s'; SELECT cleanup_all();\n");
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
	WHERE query ~ 'cleanup_all' AND wait_event_type = 'Extension'}), 'a run waits for the directory');
ok(-e "$dir/orphan.mp3", 'and does nothing meanwhile');
close $foreign;
$session->quit;
ok(!-e "$dir/orphan.mp3", 'when the lock is given back it goes on');
ok(wait_for_drain($node), 'to its end');

# ---- who waits can be cancelled ----

put_files($dir, 'orphan.mp3');
$foreign = take_lock();
($rc, $stdout, $stderr) = $node->psql('postgres',
	q{SET audio_cleanup.writer_wait = '60s'; SET statement_timeout = '300ms'; SELECT cleanup_all()});
like($stderr, qr/canceling statement due to statement timeout/, 'waiting takes a cancel');

# ---- a take-over is not made in the middle of a run ----

write_foreign_claim();
($rc, $stdout, $stderr) =
  $node->psql('postgres', q{SET audio_cleanup.writer_wait = '300ms'; SELECT cleanup_claim_upload_dir()});
isnt($rc, 0, 'a take-over is refused while a run is under way');
like($stderr, qr/another cleanup run is under way/, 'it says so');
close $foreign;
$node->safe_psql('postgres', 'SELECT cleanup_claim_upload_dir()');
like(read_file($claim), qr/^audio_cleanup claim/, 'then it can be made');
is(sql_json($node, 'SELECT cleanup_all(true)')->{result}{orphaned_files_count}, 0, 'and the files are new to the owner');

# The same file, so that it stays locked.
sub write_foreign_claim
{
	open my $handle, '+<', $claim or die $!;
	local $/;
	my $text = <$handle>;
	$text =~ s/^(system[^\d]*)(\d)/$1 . ($2 eq '9' ? 1 : $2 + 1)/em or die "no system identifier in $text";
	seek $handle, 0, 0;
	print $handle $text;
	close $handle or die $!;
	return;
}

# ---- the lock is kept until the commit is carried out ----

put_files($dir, 'late.mp3');
ok(wait_for_drain($node), 'idle');
my $free = take_lock();
close $free;
$session = $node->background_psql('postgres');
$session->query_safe('SET audio_cleanup.orphaned_file_retention_hours = 0; BEGIN; SELECT cleanup_all()');
ok(!try_lock(), 'a transaction that has condemned files has the lock');
# in the same transaction again: it is not in its own way
$session->query_safe('SELECT cleanup_all(); SAVEPOINT s; SELECT cleanup_all(); ROLLBACK TO s');
ok(!try_lock(), 'after a savepoint too');
ok(-e "$dir/late.mp3", 'nothing has happened yet');
$session->query_safe('COMMIT');
ok(!-e "$dir/late.mp3", 'the files go with COMMIT');
ok(take_lock(), 'then the lock is free');
put_files($dir, 'late.mp3');
$session->query_safe('BEGIN; SELECT cleanup_all(); ROLLBACK');
ok(-e "$dir/late.mp3", 'ROLLBACK keeps them');
ok(take_lock(), 'and gives the lock back');
$session->quit;

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|signal \d+/, 'no process has died');
done_testing();
