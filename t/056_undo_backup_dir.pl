# Undo with backups on another file system, where to put back is to copy; and
# the folder of an owner whom nobody remembers.

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
my $node = new_server('undo_backup_dir', start => 0, conf => <<"END");
audio_cleanup.backup_retention_days = 1
audio_cleanup.max_delete_percent = 100
audio_cleanup.backup_dir = '$backup'
END
my $dir = upload_dir($node);

plan skip_all => '/dev/shm as another file system is not permitted here' if (stat $backup)[0] == (stat $dir)[0];

start_with_faults($node);
claim_directory($node, 'wanted.mp3');

my $round = 0;

# run/path => content, of all owners
sub backups
{
	my %files;
	find({ no_chdir => 1, wanted => sub {
		my ($name) = m{^\Q$backup\E/[^/]+/(.+)$}s;
		$files{$name} = read_file($_) unless -d;
	} }, $backup);
	return \%files;
}

sub back_up
{
	my %files;

	$round++;
	$files{"r$round/$_.mp3"} = put_file($dir, "r$round/$_.mp3", content => "audio $_ " x (40_000 * $_)) foreach 1 .. 3;
	sql('SELECT cleanup_all()');
	wait_for_drain($node) or die 'no drain';
	my $run = sql('SELECT max(run_id) FROM cleanup_runs');
	is(states($run), 'trashed|3', "round $round: backed up");
	return ($run, \%files);
}

sub states
{
	my ($run) = @_;
	return sql("SELECT state, count(*) FROM cleanup_files WHERE run_id = $run AND file LIKE 'r$round/%' GROUP BY 1 ORDER BY 1");
}

# Whole, and in one place only.
sub accounted_for
{
	my ($name, $run, $files, %as) = @_;
	my @wrong;

	foreach my $file (sort keys %$files)
	{
		my @places = grep { defined $_->[1] && $_->[1] eq $files->{$file} } (
			[ 'place', read_file("$dir/" . ($as{$file} // $file)) ], [ 'backup', backups()->{"$run/$file"} ],
			[ 'passage', read_file("$dir/.audio_cleanup/trash/$run/$file") ]);
		push @wrong, "$file: " . join ' ', map { $_->[0] } @places if @places != 1 && !($name =~ /killed/ && @places == 2);
	}
	is_deeply(\@wrong, [], "$name: every file is whole, and in one place");
	return;
}

# ---- back, under its own name and another ----

{
	my ($run, $files) = back_up();

	sql("BEGIN; SELECT cleanup_restore($run); ROLLBACK");
	accounted_for('rolled back', $run, $files);
	is(states($run), 'trashed|3', 'ROLLBACK');
	put_file($dir, "r$round/1.mp3", content => 'taken');
	sql("SELECT cleanup_restore($run)");
	wait_for_drain($node);
	is(states($run), "restored|2\ntrashed|1", 'what is free goes back');
	is(read_file("$dir/r$round/1.mp3"), 'taken', 'a name that is taken is not overwritten');
	sql("SELECT cleanup_restore('r$round/1.mp3', 'r$round/new/again.mp3')");
	wait_for_drain($node);
	accounted_for('restored', $run, $files, "r$round/1.mp3" => "r$round/new/again.mp3");
	is_deeply(backups(), {}, 'no copy is left');
}

# ---- purge and restore in one transaction: the copy is put back later, so it must not be destroyed ----

{
	my ($run, $files) = back_up();

	sql("UPDATE cleanup_files SET due_at = now() WHERE run_id = $run");
	$node->psql('postgres', "BEGIN; SELECT cleanup_purge_backups(); SELECT cleanup_restore($run); COMMIT;");
	accounted_for('purge and restore in one', $run, $files);
	sql("SELECT cleanup_restore($run)");
	wait_for_drain($node);
	is(states($run), 'restored|3', 'due, and restored');
	accounted_for('due, and restored', $run, $files);
}

# ---- killed, and full ----

foreach my $fault ('copy_file_range kill 1', 'copy_file_range killafter 2', 'pwrite killafter 2', 'fsync killafter 1',
	'renameat2 kill 1', 'renameat2 killafter 2', 'unlinkat kill 1', 'unlinkat killafter 2')
{
	my ($run, $files) = back_up();
	my $position = log_position($node);

	set_fault($node, $fault);
	$node->psql('postgres', "SELECT cleanup_restore($run)");
	ok(wait_until(sub { log_since($node, $position) =~ /terminated by signal 9.*ready to accept connections/s }), "killed by $fault");
	clear_fault($node);
	accounted_for("killed by $fault", $run, $files);
	sql('SELECT cleanup_purge_backups()');
	wait_for_drain($node);
	sql("SELECT cleanup_restore($run)");
	wait_for_drain($node);
	is(states($run), 'restored|3', "$fault: then restored");
	accounted_for("$fault, in the end", $run, $files);
	is_deeply(backups(), {}, "$fault: no copy is left");
}

foreach my $errno (ENOSPC, EIO)
{
	my ($run, $files) = back_up();

	set_fault($node, "copy_file_range errno 0 $errno");
	sql("SELECT cleanup_restore($run)");
	$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain'});
	clear_fault($node);
	accounted_for("errno $errno", $run, $files);
	sql("SELECT cleanup_restore($run)");
	wait_for_drain($node);
	is(states($run), 'restored|3', "errno $errno: then restored");
	accounted_for("errno $errno, mended", $run, $files);
}

# ---- a backup directory of an earlier run that is out of reach ----

{
	my ($run, $files) = back_up();
	my $purged = q{SELECT cleanup_purge_backups() -> 'result' -> 'backups_purged'};

	sql(q{ALTER DATABASE postgres SET audio_cleanup.backup_dir = ''});
	put_file($dir, 'here.mp3');
	sql('SELECT cleanup_all()');
	wait_for_drain($node);
	rename $backup, "$backup.away" or die "could not move $backup: $!";
	sql(q{UPDATE cleanup_files SET due_at = now() WHERE state = 'trashed'});
	is(sql($purged), '["here.mp3"]', 'what is out of reach is not reported as purged');
	ok($node->poll_query_until('postgres', q{SELECT state = 'deleted' FROM cleanup_files WHERE file = 'here.mp3'}), 'what is in reach is');
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain'}),
		'the worker has ended');
	is(states($run), 'trashed|3', 'and what is not stays');
	rename "$backup.away", $backup or die "could not move $backup back: $!";
	is(sql($purged), qq(["r$round/1.mp3", "r$round/2.mp3", "r$round/3.mp3"]), 'when it is back it is purged');
	wait_for_drain($node);
	is(states($run), 'deleted|3', 'and its rows say so');
	is_deeply(backups(), {}, 'and nothing is left');
	sql('ALTER DATABASE postgres RESET audio_cleanup.backup_dir');
}

# ---- an owner whom the database does not remember: neither his runs nor his claim ----

{
	my ($run, $files) = back_up();
	my ($owner) = read_file("$dir/.audio_cleanup/claim") =~ /^uuid=(\S+)$/m;

	ok(-d "$backup/$owner/$run", 'his folder is in the backup directory');
	sql('DROP EXTENSION audio_cleanup', 'CREATE EXTENSION audio_cleanup', q{SELECT cleanup_add_source('sessions')});
	put_file($dir, "r$round/1.mp3", content => 'taken');
	sql('SELECT cleanup_claim_upload_dir()');
	wait_for_drain($node);
	is(states($run), "restored|2\ntrashed|1", 'his files go back, but for a name that is taken');
	accounted_for('taken over', $run, $files);
	sql("SELECT cleanup_restore('r$round/1.mp3', 'r$round/again.mp3')");
	wait_for_drain($node);
	accounted_for('restored under another name', $run, $files, "r$round/1.mp3" => "r$round/again.mp3");
	is(states($run), 'restored|3', 'that one can be restored as well');
	ok(!-e "$backup/$owner/$run", 'his folder is empty');
}

$node->stop;
is(log_lines($node, qr/PANIC:|TRAP:|signal 11|signal 6/), '', 'nothing but what we killed has died');
done_testing();
