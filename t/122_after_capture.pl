# What happens to a file after it was captured: a process writes into it that had it open, its name is taken, the
# directory is taken over.  And a drain that cannot even begin leaves no descriptor open.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use File::Temp qw(tempdir);
use IO::Handle;
use PostgreSQL::Test::Utils;
use Test::More;

# without a worker, the next call goes on with the files of a call
my $node = new_server('after_capture', conf => <<'END_CONF');
max_worker_processes = 0
max_prepared_transactions = 5
audio_cleanup.max_delete_percent = 100
audio_cleanup.writer_wait = '20s'
END_CONF
my $dir = upload_dir($node);
make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));

sub keep_backups { return sql("ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = $_[0]"); }

sub state_of
{
	my ($file) = @_;
	return sql("SELECT string_agg(state || ': ' || coalesce(error, ''), ', ' ORDER BY file_id) FROM cleanup_files WHERE file = '$file'");
}

sub take_over
{
	unlink "$dir/.audio_cleanup/claim" or die "claim: $!\n";
	sql('SELECT cleanup_claim_upload_dir()');
	return;
}

# Returns a handle of a captured file, by which its writer goes on.
sub capture_open_file
{
	my ($name) = @_;
	put_file($dir, $name);
	open my $writer, '>>:raw', "$dir/$name" or die "could not open $name: $!";
	$writer->autoflush(1);
	sql('SELECT cleanup_all()');
	ok(exists trashed_files($dir)->{$name}, "$name: is captured");
	return $writer;
}

sql($_) foreach 'SELECT cleanup_all()', 'CALL cleanup_run()';


# ---- a writer that had the file open goes on, and then refers to the file ----

foreach my $days (0, 3)
{
	keep_backups($days);
	foreach my $call ('CALL cleanup_run()', 'SELECT cleanup_all()')
	{
		my $name = sprintf 'grows%d%s.mp3', $days, $call =~ /CALL/ ? 'run' : 'all';
		my $writer = capture_open_file($name);

		if ($days > 0)
		{
			# the capture, and the last look, are on record
			sql('CALL cleanup_run()') foreach 1 .. 2;
			is(state_of($name), 'trashed: ', "$name: is a backup");
		}
		print $writer "the end of the recording\n";
		close $writer;
		add_rows($node, $name);
		sql($_) foreach $call, 'CALL cleanup_run()';
		is(visible_files($dir)->{$name}, "audio of $name\nthe end of the recording\n", "$name: comes back, as it is now");
		like(state_of($name), $days > 0 ? qr/^restored: it is referred to again/ : qr/^skipped: it was replaced or changed/,
			"$name: and its row says so");
	}
}

# Makes it known that the file is captured, while the last look has to wait for a writer; then calls $after.
sub with_record_of
{
	my ($name, $after) = @_;
	my $writer = $node->background_psql('postgres');

	$writer->query_safe(q{BEGIN; INSERT INTO sessions (audio_url, status) VALUES ('other.mp3', 'processed')});
	$node->psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.writer_wait = '100ms'});
	$node->psql('postgres', 'CALL cleanup_run()');
	$node->psql('postgres', q{ALTER DATABASE postgres RESET audio_cleanup.writer_wait});
	is(sql(qq{SELECT count(*) FROM cleanup_files f JOIN cleanup_runs r USING (run_id)
		WHERE f.file = '$name' AND f.state = 'pending' AND f.file_id <= r.captured_up_to}), 1, "$name: its capture is on record");
	$after->();
	end_session($writer, 'ROLLBACK');
	return;
}

# without a backup, before the last look
keep_backups(0);
{
	my $name = 'recorded.mp3';
	my $writer = capture_open_file($name);

	with_record_of($name, sub {
			print $writer "the end of the recording\n";
			close $writer;
			add_rows($node, $name);
		});
	sql('CALL cleanup_run()');
	is(visible_files($dir)->{$name}, "audio of $name\nthe end of the recording\n", "$name: comes back, as it is now");
	like(state_of($name), qr/^restored: it is referred to again/, "$name: and its row says so");
	sql(q{DELETE FROM sessions WHERE audio_url = 'recorded.mp3'}, 'DELETE FROM cleanup_files');
	unlink "$dir/$name";
}

# nobody refers to it
{
	my $name = 'unwanted.mp3';
	my $writer = capture_open_file($name);

	with_record_of($name, sub {
			print $writer "the end of the recording\n";
			close $writer;
		});
	sql('CALL cleanup_run()');
	is(visible_files($dir)->{$name}, "audio of $name\nthe end of the recording\n", "$name: comes back, as it is now");
	is(state_of($name), 'skipped: it was changed in the trash', "$name: and its row says so");
	is(sql(q{SELECT count(*) FROM cleanup_runs WHERE finished_at IS NULL}), 0, "$name: and its run is done");
	unlink "$dir/$name";
}
keep_backups(3);

# a person asks for it
{
	my $name = 'grown.mp3';
	my $writer = capture_open_file($name);

	sql('CALL cleanup_run()') foreach 1 .. 2;
	print $writer "the end of the recording\n";
	close $writer;
	is(sql("SELECT cleanup_restore('$name') ->> 'success'"), 'true', "$name: is restored");
	sql('CALL cleanup_run()');
	is(visible_files($dir)->{$name}, "audio of $name\nthe end of the recording\n", "$name: comes back, as it is now");
	is(state_of($name), 'restored: it was changed in the trash', "$name: and its row says so");
	unlink "$dir/$name";

	# under another name
	$writer = capture_open_file($name = 'grown2.mp3');
	sql('CALL cleanup_run()') foreach 1 .. 2;
	print $writer "the end of the recording\n";
	close $writer;
	is(sql("SELECT cleanup_restore('$name', 'other.mp3') ->> 'success'"), 'true', "$name: is restored under another name");
	sql('CALL cleanup_run()');
	is(visible_files($dir)->{'other.mp3'}, "audio of $name\nthe end of the recording\n", "$name: is there, as it is now");
	ok(!-e "$dir/$name", "$name: and only there");
	unlink "$dir/other.mp3";
}
keep_backups(0);


# ---- a file that is let live, and whose name is taken ----

put_file($dir, 'taken.mp3');
sql('SELECT cleanup_all()');
ok(exists trashed_files($dir)->{'taken.mp3'}, 'a file is captured');
take_over();
put_file($dir, 'taken.mp3', content => "another\n");
sql('CALL cleanup_run()') foreach 1 .. 2;
is(visible_files($dir)->{'taken.mp3'}, "another\n", 'the newer file stays');
ok(exists trashed_files($dir)->{'taken.mp3'}, 'the older one is in the trash');
like(state_of('taken.mp3'), qr/^trashed: the directory was taken over .* its name is taken/, 'and its row says so');
is(sql(q{SELECT cleanup_restore('taken.mp3', 'older.mp3') ->> 'success'}), 'true', 'it can be restored');
sql('CALL cleanup_run()');
is(visible_files($dir)->{'older.mp3'}, "audio of taken.mp3\n", 'under another name');
unlink "$dir/older.mp3", "$dir/taken.mp3";
sql(q{DELETE FROM cleanup_files WHERE state NOT IN ('pending', 'trashed', 'restoring')}, 'UPDATE cleanup_claims SET grace_from = NULL');


# ---- the name of a new backup is taken, and referred to, before the last look: the backup keeps its days ----

keep_backups(3);
foreach my $call ('CALL cleanup_run()', 'SELECT cleanup_all()')
{
	put_file($dir, 'taken.mp3');
	sql('SELECT cleanup_all()');
	ok(exists trashed_files($dir)->{'taken.mp3'}, "$call: a file is captured");
	put_file($dir, 'taken.mp3', content => "another\n");
	add_rows($node, 'taken.mp3');
	sql($_) foreach $call, 'CALL cleanup_run()';
	is(visible_files($dir)->{'taken.mp3'}, "another\n", "$call: the newer file stays");
	like(state_of('taken.mp3'), qr/^trashed: it is referred to again, but its name is taken/, "$call: the older one is a backup");
	is(sql(q{SELECT cleanup_restore('taken.mp3', 'older.mp3') ->> 'success'}), 'true', "$call: it can be restored");
	sql('CALL cleanup_run()');
	is(visible_files($dir)->{'older.mp3'}, "audio of taken.mp3\n", "$call: as it was");
	sql(q{DELETE FROM sessions WHERE audio_url = 'taken.mp3'}, 'DELETE FROM cleanup_files');
	unlink "$dir/older.mp3", "$dir/taken.mp3";
}


# ---- somebody moves a file with two names from the trash to its place: it is not taken again ----

foreach my $how ('destroyed', 'needed')
{
	my $name = "moved_$how.mp3";

	put_file($dir, $name);
	mkdir "$dir/.links";
	link "$dir/$name", "$dir/.links/$name" or die "$name: $!\n";
	sql('SELECT cleanup_all()');
	sql('CALL cleanup_run()') foreach 1 .. 2;
	is(state_of($name), 'trashed: ', "$name: is a backup");
	my ($backup) = glob "$dir/.audio_cleanup/trash/*/$name";
	rename $backup, "$dir/$name" or die "$name: $!\n";
	sql(q{UPDATE cleanup_files SET due_at = now() WHERE state = 'trashed'});
	add_rows($node, $name) if $how eq 'needed';
	sql('CALL cleanup_run()') foreach 1 .. 3;
	is(visible_files($dir)->{$name}, "audio of $name\n", "$name: stays where somebody has put it");
	is(state_of($name), 'restored: it was in its place', "$name: and its row says so");
	sql("DELETE FROM sessions WHERE audio_url = '$name'", 'DELETE FROM cleanup_files');
	unlink "$dir/$name";
}
keep_backups(0);


# ---- a take-over whose claim is not written yet ----

put_file($dir, 'recorded.mp3');
sql('SELECT cleanup_all()');
with_record_of('recorded.mp3', sub {
		unlink "$dir/.audio_cleanup/claim" or die "claim: $!\n";
		sql('BEGIN', 'SELECT cleanup_claim_upload_dir()', q{PREPARE TRANSACTION 'taken'});
		sql(q{COMMIT PREPARED 'taken'});
	});
ok(!-e "$dir/.audio_cleanup/claim", 'the claim is not written');
sql('SELECT cleanup_all()') foreach 1 .. 2;
ok(exists visible_files($dir)->{'recorded.mp3'}, 'a file that was condemned before comes back');
is(state_of('recorded.mp3'), 'restored: the directory was taken over after it was condemned', 'and its row says why');
sql(q{DELETE FROM cleanup_files WHERE state NOT IN ('pending', 'trashed', 'restoring')}, 'UPDATE cleanup_claims SET grace_from = NULL');
unlink "$dir/recorded.mp3";


# ---- another disk at the place of the backups, between the decision and the move ----

SKIP:
{
	my $backup = '/dev/shm';

	skip '/dev/shm as another file system is not permitted here', 4
	  unless -d $backup && -w _ && (stat $backup)[0] != (stat $dir)[0];
	$backup = tempdir('audio_cleanup_XXXXXX', DIR => $backup, CLEANUP => 1);
	keep_backups(3);
	sql("ALTER DATABASE postgres SET audio_cleanup.backup_dir = '$backup'");
	put_file($dir, 'first.mp3');
	sql('SELECT cleanup_all()');
	sql('CALL cleanup_run()') foreach 1 .. 2;
	is(state_of('first.mp3'), 'trashed: ', 'a file is backed up');
	put_file($dir, 'second.mp3');
	sql('SELECT cleanup_all()');
	rename $backup, "$backup.away" or die "$backup: $!\n";
	mkdir $backup, 0700 or die "$backup: $!\n";
	$node->psql('postgres', 'CALL cleanup_run()');
	is_deeply([ glob "$backup/*" ], [], 'nothing is backed up on another disk');
	ok(-e "$dir/second.mp3", 'so that file stays');
	rmdir $backup or die "$backup: $!\n";
	rename "$backup.away", $backup or die "$backup: $!\n";
	sql('CALL cleanup_run()') foreach 1 .. 2;
	is(join('; ', map { state_of("$_.mp3") } qw(first second)), 'trashed: ; trashed: ', 'it is backed up when the right one is there');
	sql('ALTER DATABASE postgres RESET audio_cleanup.backup_dir', q{DELETE FROM cleanup_files WHERE file IN ('first.mp3', 'second.mp3')});
}
keep_backups(0);


# ---- a drain that is cancelled before it begins ----

sub open_folders
{
	my ($pid) = @_;
	return scalar grep { (readlink($_) // '') =~ m{^\Q$dir\E} } glob "/proc/$pid/fd/*";
}

my $session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query('SELECT pg_backend_pid()');
is(open_folders($pid), 0, 'a session has no folder open');
foreach my $time (1 .. 2)
{
	my $blocker = $node->background_psql('postgres');
	my $locker = $node->background_psql('postgres', on_error_stop => 0);
	my $locker_pid = $locker->query('SELECT pg_backend_pid()');

	# two runs are to be drained
	foreach my $name ("first$time.mp3", "second$time.mp3")
	{
		put_file($dir, $name);
		sql('SELECT cleanup_all()');
	}
	# the first drain waits at its end; who then locks the claims gets them before the second drain begins
	$blocker->query_safe(q{BEGIN; SELECT FROM cleanup_totals WHERE name = 'runs' FOR UPDATE});
	$session->query_until(qr/asked/, "\\echo asked\nCALL cleanup_run();\n");
	ok(wait_until(sub { sql("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $pid") eq 'Lock' }), 'a drain waits at its end');
	$locker->query_until(qr/asked/, "BEGIN;\n\\echo asked\nLOCK TABLE cleanup_claims IN ACCESS EXCLUSIVE MODE;\n");
	ok(wait_until(sub { sql("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $locker_pid") eq 'Lock' }), 'somebody locks the claims');
	end_session($blocker, 'ROLLBACK');
	ok(wait_until(sub { sql("SELECT count(*) FROM pg_locks WHERE pid = $pid AND NOT granted AND relation = 'cleanup_claims'::regclass") == 1 }),
		'the next drain waits for the claims');
	is(open_folders($pid), 1, 'with the directory open');
	sql("SELECT pg_cancel_backend($pid)");
	$locker->query('ROLLBACK');
	eval { $locker->quit };
	ok(wait_until(sub { sql("SELECT state FROM pg_stat_activity WHERE pid = $pid") eq 'idle' }), 'the run ends');
	is(open_folders($pid), 0, 'and no folder stays open');
}
eval { $session->quit };
sql('CALL cleanup_run()');
is_deeply([ grep { /^(first|second)/ } keys %{ visible_files($dir) }, keys %{ trashed_files($dir) } ], [], 'the next run goes on');
unlike(slurp_file($node->logfile), qr/PANIC|signal 11|signal 6/, 'the server did not crash');
$node->stop;


# ---- a commit that captures slowly holds up no other database ----

my $slow = new_server('slow', start => 0, conf => "audio_cleanup.max_delete_percent = 100\n");
my $slow_dir = upload_dir($slow);
my @names = map { "$_.mp3" } 1 .. 60;

start_with_faults($slow);
make_schema($slow);
$slow->safe_psql('postgres', 'CREATE DATABASE other');
put_files($slow_dir, 'wanted.mp3', @names);
add_rows($slow, 'wanted.mp3');
set_fault($slow, 'renameat2 slow 0 300');
{
	my $session = $slow->background_psql('postgres');

	$session->query_until(qr/asked/, "\\echo asked\nSELECT cleanup_all();\n");
	ok(wait_until(sub { %{ trashed_files($slow_dir) } }), 'a commit captures');
	$slow->safe_psql('postgres', 'DROP DATABASE other');
	cmp_ok(scalar keys %{ trashed_files($slow_dir) }, '<', scalar @names, 'and does not hold up DROP DATABASE until it has captured all');
	clear_fault($slow);
	$session->quit;
}
ok(wait_for_drain($slow), 'a worker goes on');
is($slow->safe_psql('postgres', 'SELECT state, count(*) FROM cleanup_files GROUP BY 1'), 'deleted|60', 'and deletes all');

done_testing();
