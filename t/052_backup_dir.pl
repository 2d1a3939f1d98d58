# Backups on another file system: copied, compared, and only then removed; what
# cannot be copied stays; what was put there is found there, whatever the
# setting says by then.

use strict;
use warnings;

use Errno qw(EIO ENOSPC);
use File::Find qw(find);
use File::Temp qw(tempdir);
use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => '/dev/shm is not permitted here' unless -d '/dev/shm' && -w _;

my $backup = tempdir('audio_cleanup_XXXXXX', DIR => '/dev/shm', CLEANUP => 1);
my $node = new_server('backup_dir', start => 0, conf => <<"END");
audio_cleanup.backup_retention_days = 1
audio_cleanup.backup_dir = '$backup'
END
my $dir = upload_dir($node);
my @wanted = map { "wanted$_.mp3" } 1 .. 3;

plan skip_all => '/dev/shm as another file system is not permitted here' if (stat $backup)[0] == (stat $dir)[0];

start_with_faults($node);
claim_directory($node, @wanted);

my ($owner) = read_file("$dir/.audio_cleanup/claim") =~ /^uuid=(\S+)$/m;
my $round = 0;

# path => content of the copies, with their runs in the path
sub backups
{
	my ($of) = @_;
	my $top = ($of || $backup) . "/$owner";
	my %files;

	find({ no_chdir => 1, wanted => sub { $files{ substr $_, length($top) + 1 } = read_file($_) if !-d } }, $top)
	  if -d $top;
	return \%files;
}

sub make_files
{
	my (%wanted, %unwanted);

	$round++;
	empty_directory($dir);
	$node->safe_psql('postgres', q{UPDATE cleanup_files SET due_at = now() WHERE state = 'trashed'});
	run('SELECT true');
	ok(wait_for_drain($node), "round $round: earlier backups are gone");
	$wanted{$_} = put_file($dir, $_) foreach @wanted;
	$unwanted{"r$round/$_.mp3"} = put_file($dir, "r$round/$_.mp3", content => "audio $_ " x (50_000 * $_)) foreach 1 .. 4;
	return { wanted => \%wanted, unwanted => \%unwanted };
}

# A run, and what the worker makes of it.
sub run
{
	my ($condition) = @_;
	$node->safe_psql('postgres', 'SELECT cleanup_all()');
	ok($condition ? $node->poll_query_until('postgres', $condition) : wait_for_drain($node), 'the run is over');
	return last_run();
}

sub last_run
{
	return $node->safe_psql('postgres', 'SELECT max(run_id) FROM cleanup_runs');
}

sub states
{
	my ($run) = @_;
	return $node->safe_psql('postgres',
		"SELECT state, error, count(*) FROM cleanup_files WHERE run_id = $run GROUP BY 1, 2 ORDER BY 1, 2");
}

sub in_run
{
	my ($run, $files) = @_;
	return { map { ("$run/$_" => $files->{$_}) } keys %$files };
}

my $worker_gone = q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain')};

# ---- there ----

{
	my $files = make_files();
	my $run;
	my %before;

	chmod 0640, "$dir/r$round/2.mp3" or die $!;
	$before{$_} = [ (stat "$dir/$_")[ 2, 4, 5, 7, 9 ] ] foreach keys %{ $files->{unwanted} };
	$run = run();
	is(states($run), 'trashed||4', 'four files have gone');
	is_deeply(visible_files($dir), $files->{wanted}, 'from the directory');
	is_deeply(backups(), in_run($run, $files->{unwanted}), 'and are in the backup directory, byte by byte');
	is_deeply({ map { ($_ => [ (stat "$backup/$owner/$run/$_")[ 2, 4, 5, 7, 9 ] ]) } keys %before }, \%before,
		'with mode, owner and time');
	is(sprintf('%o', (stat "$backup/$owner")[2] & 07777), '700', 'in a folder that nobody else reads');
	is_deeply(trashed_files($dir), {}, 'nothing is left in the upload directory');
	ok(!-e "$dir/.audio_cleanup/trash", 'nor a trash');
	is($node->safe_psql('postgres', "SELECT settings ->> 'backup_dir', settings ->> 'backup_owner' FROM cleanup_runs WHERE run_id = $run"),
		"$backup|$owner", 'the run knows where it has put them');

	# ---- and back ----

	my $name = "r$round/2.mp3";
	add_rows($node, $name);
	$node->safe_psql('postgres', q{UPDATE cleanup_files SET due_at = now() WHERE state = 'trashed'});
	run();
	is(states($run), "deleted||3\nrestored|it is referred to again|1", 'what is referred to again is put back');
	is(read_file("$dir/$name"), $files->{unwanted}{$name}, 'byte by byte');
	is_deeply([ (stat "$dir/$name")[ 2, 4, 5, 7, 9 ] ], $before{$name}, 'with mode, owner and time');
	is_deeply(backups(), {}, 'the others are deleted when their day has come');
	$node->safe_psql('postgres', "DELETE FROM sessions WHERE audio_url = '$name'");
}

# ---- a run in batches ----

{
	my $files = make_files();
	my $answer = sql_json($node, 'CALL cleanup_run()');

	ok($answer->{success}, 'cleanup_run() succeeds');
	is($answer->{result}{orphaned_files_count}, 4, 'and counts what has gone');
	is_deeply(backups(), in_run(last_run(), $files->{unwanted}), 'to the backup directory, by itself');
	is_deeply(visible_files($dir), $files->{wanted}, 'all of it');
}

# ---- a copy that takes long holds nobody else up ----

# drops_a_database(NAME): while each piece of a copy takes a second, and there are 128 of these
sub drops_a_database
{
	my ($name) = @_;

	ok(wait_until(sub { fault_fired($node) > 1 }), "$name: a copy is under way");
	$node->safe_psql('postgres', 'CREATE DATABASE unrelated');
	my ($code, $out, $err) = $node->psql('postgres', "SET statement_timeout = '60s';\nDROP DATABASE unrelated");
	is($err, '', "$name: a database can be dropped meanwhile");
	return;
}

{
	my $files = make_files();
	my $large = "r$round/large.mp3";
	my $run;

	# between two files a worker serves all others
	unlink map { "$dir/$_" } keys %{ $files->{unwanted} };
	$files->{unwanted} = { $large => put_file($dir, $large, content => 'audio of some length\n' x (32 * 1024 * 1024 / 21)) };
	set_fault($node, 'pwrite slow 0 1000');
	$node->safe_psql('postgres', 'SELECT cleanup_all()');
	drops_a_database('a backup');
	$run = last_run();
	ok(exists visible_files($dir)->{$large}, 'a backup: before the copy is made');
	clear_fault($node);
	ok(wait_for_drain($node), 'a backup: then all goes on');
	is(states($run), 'trashed||1', 'a backup: and is backed up');
	set_fault($node, 'pwrite slow 0 1000');
	$node->safe_psql('postgres', "SELECT cleanup_restore('$large')");
	drops_a_database('a restore');
	ok(!exists visible_files($dir)->{$large}, 'a restore: before the file is back');
	clear_fault($node);
	ok(wait_for_drain($node), 'a restore: then all goes on');
	ok(read_file("$dir/$large") eq $files->{unwanted}{$large}, 'a restore: and the file is back, byte by byte');
}

# ---- no room ----

foreach my $call ('copy_file_range', 'pwrite')
{
	my $files = make_files();
	my $position = log_position($node);
	my $run;

	set_fault($node, "$call errno 0 " . ENOSPC);
	if ($call eq 'pwrite')
	{
		my $result = sql_json($node, 'CALL cleanup_run()');
		ok(!$result->{success}, "$call: a CALL is no success");
		is($result->{result}{error_count}, 1, "$call: ... and counts the error of the folder");
		like($result->{result}{errors}[0], qr{^r$round/1.mp3: could not .*No space left on device \(and so for 3 more in its folder\)$},
			"$call: ... and names it");
	}
	else
	{
		run($worker_gone);
	}
	$run = last_run();
	ok(wait_until(sub { log_since($node, $position) =~ qr{WARNING:  could not back up file "r$round/4.mp3": .*No space left} }),
		"$call: a full backup disk is reported");
	like(states($run), qr/^pending\|could not [^|]*No space left on device\|4$/, "$call: the files stay condemned, and the rows have the reason");
	is_deeply(visible_files($dir), { %{ $files->{wanted} }, %{ $files->{unwanted} } }, "$call: none is deleted");
	is_deeply(backups(), {}, "$call: nothing half done is left");
	clear_fault($node);
	run();
	is(states($run), 'trashed||4', "$call: with space again they go");
	is_deeply(backups(), in_run($run, $files->{unwanted}), "$call: to the backup directory");
}

# ---- a copy that fails ----

{
	my $files = make_files();
	my $position = log_position($node);
	my $run;

	set_fault($node, 'fsync errno 2 ' . EIO);
	run($worker_gone);
	$run = last_run();
	is_deeply({ %{ visible_files($dir) }, map { s{^\d+/}{}r => backups()->{$_} } keys %{ backups() } },
		{ %{ $files->{wanted} }, %{ $files->{unwanted} } }, 'an fsync that fails loses nothing');
	clear_fault($node);
	run();
	is_deeply(visible_files($dir), $files->{wanted}, 'and all of them go in the end');
}

# ---- killed ----

foreach my $fault (
	'copy_file_range kill 1', 'copy_file_range killafter 2', 'pwrite kill 3', 'fsync kill 1', 'fsync killafter 2',
	'renameat2 kill 1', 'renameat2 killafter 1', 'renameat2 kill 2', 'renameat2 killafter 2',
	'unlinkat kill 1', 'unlinkat killafter 1', 'unlinkat kill 3', 'mkdirat kill 2')
{
	my $files = make_files();
	my $position = log_position($node);
	my ($run, %seen);

	set_fault($node, $fault);
	$node->psql('postgres', 'SELECT cleanup_all()');
	ok(wait_until(sub { fault_fired($node) })
		  && wait_until(sub { log_since($node, $position) =~ /terminated by signal 9.*ready to accept connections/s }),
		"killed by $fault");
	clear_fault($node);
	$run = last_run();
	foreach my $name (keys %{ $files->{unwanted} })
	{
		my $passed = read_file("$dir/.audio_cleanup/trash/$run/$name");
		$seen{$name} = grep { defined && $_ eq $files->{unwanted}{$name} }
		  read_file("$dir/$name"), read_file("$backup/$owner/$run/$name"), $passed;
	}
	is_deeply([ grep { !$seen{$_} } sort keys %seen ], [], "$fault: every file is somewhere, whole");
	run();
	is(states($run), 'trashed||4', "$fault: the next run finishes it");
	is_deeply(backups(), in_run($run, $files->{unwanted}), "$fault: all is in the backup directory");
	is_deeply(visible_files($dir), $files->{wanted}, "$fault: and nowhere else");
	is_deeply(trashed_files($dir), {}, "$fault: nor on the way");
}

# killed when the copy is made, and then the file is wanted after all
{
	my $files = make_files();
	my $position = log_position($node);
	my $run;

	set_fault($node, 'renameat2 killafter 1');
	$node->psql('postgres', 'SELECT cleanup_all()');
	ok(wait_until(sub { log_since($node, $position) =~ /terminated by signal 9.*ready to accept connections/s }), 'killed');
	clear_fault($node);
	my ($copied) = map { s{^\d+/}{}r } keys %{ backups() };
	add_rows($node, $copied);
	run();
	is(read_file("$dir/$copied"), $files->{unwanted}{$copied}, 'it stays');
	is((grep { m{/\Q$copied\E$} } keys %{ backups() }), 0, 'and its copy goes');
	$node->safe_psql('postgres', "DELETE FROM sessions WHERE audio_url = '$copied'");
}

# ---- a directory that is not usable is a brake ----

sub refused
{
	my ($name, $message, $files) = @_;
	my ($code, $out, $err) = $node->psql('postgres', 'SELECT cleanup_all()');
	my $preview = sql_json($node, 'SELECT cleanup_all(dry_run => true)');

	isnt($code, 0, "$name: a run is refused");
	like($err, $message, "$name: and says why");
	like($err, qr/HINT:/, "$name: and what to do");
	is_deeply($preview->{blocked_by}, ['backup_dir'], "$name: a dry run says so too");
	is_deeply(visible_files($dir), $files, "$name: nothing is deleted");
	like($node->safe_psql('postgres', 'SELECT detail FROM cleanup_check() WHERE check_name = \'backup_dir\''),
		qr/backup directory/, "$name: nor is it hidden from cleanup_check()");
	return;
}

sub set_backup_dir
{
	my ($path) = @_;
	$node->safe_psql('postgres', "ALTER DATABASE postgres SET audio_cleanup.backup_dir = '$path'");
	return;
}

{
	my $files = make_files();
	my $run = run();
	my $position = log_position($node);
	my %kept = %{ backups() };
	my $all;

	put_file($dir, "r$round/later.mp3");
	$all = visible_files($dir);
	$node->safe_psql('postgres', q{UPDATE cleanup_files SET due_at = now() WHERE state = 'trashed'});
	rename $backup, "$backup.away" or die $!;
	refused('missing', qr/ERROR:  backup directory "\Q$backup\E" does not exist/, $all);
	$node->psql('postgres', 'CALL cleanup_run()');
	is(states($run), 'trashed||4', 'missing: nothing is recorded of what cannot be seen');
	mkdir $backup, 0755 or die $!;
	chmod 0777, $backup or die $!;
	refused('writable by others', qr/ERROR:  backup directory "\Q$backup\E" cannot be trusted/, $all);
	rmdir $backup or die $!;

	# what is not on this disk is not gone, and nothing is backed up there
	mkdir $backup, 0700 or die $!;
	refused('another disk', qr/ERROR:  backup directory "\Q$backup\E" does not have the backups of this database/, $all);
	foreach my $call ("SELECT cleanup_restore($run)", "SELECT cleanup_restore('r$round/1.mp3')", 'SELECT cleanup_purge_backups()', 'CALL cleanup_run()')
	{
		my ($code, $out, $err) = $node->psql('postgres', $call);
		isnt($code, 0, "another disk: $call is refused");
	}
	is(states($run), 'trashed||4', 'another disk: nothing is recorded of what is elsewhere');
	is_deeply([glob "$backup/*"], [], 'another disk: nothing is written there');
	rmdir $backup or die $!;
	rename "$backup.away", $backup or die $!;
	is_deeply(backups(), \%kept, 'another disk: the backups are where they were');

	mkdir "$dir/backups" or die $!;
	set_backup_dir("$dir/backups");
	refused('in the upload directory', qr/is not a place to keep backups.*It lies in the upload directory/s, $all);
	rmdir "$dir/backups" or die $!;
	set_backup_dir($node->data_dir . '/base');
	refused('in the data directory', qr/is not a place to keep backups.*It belongs to PostgreSQL/s, $all);
	set_backup_dir('/');
	refused('everywhere', qr/is the root of the file system/, $all);

	# ---- the run of then, and the setting of now ----

	set_backup_dir('');
	is_deeply(backups(), \%kept, 'the backups are still there');
	my $next = run();
	is(states($run), 'deleted||4', 'those of the earlier run are deleted where they are');
	is_deeply(backups(), {}, 'they are gone');
	is(states($next), 'trashed||1', 'those of the next');
	is_deeply(trashed_files($dir), { "r$round/later.mp3" => [$next] }, 'are in the upload directory');

	$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET audio_cleanup.backup_dir');
	$node->safe_psql('postgres', q{UPDATE cleanup_files SET due_at = now() WHERE state = 'trashed'});
	$node->safe_psql('postgres', 'ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = 0');
	put_file($dir, "r$round/latest.mp3");
	is(states(run()), 'deleted||1', 'without backups');
	is_deeply(backups(), {}, 'nothing goes there');
	is(states($next), 'deleted||1', 'and what was kept in the upload directory is found there');
}

$node->stop;
is(log_lines($node, qr/PANIC:|signal 11|signal 6/), '', 'nothing but what we killed has died');
done_testing();
