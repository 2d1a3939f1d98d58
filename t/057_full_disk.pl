# An upload directory on a disk that is full to its last block and inode, so
# that not even a folder for the trash can be made.  Without backups cleaning
# helps; with backups nothing is destroyed that was promised to be kept.
#
# Needs: a small file system, which script/test mounts.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $disk = $ENV{AUDIO_CLEANUP_SMALL_DISK};

plan skip_all => 'mounting a small file system is not permitted here' unless $disk;

my $dir = "$disk/uploads";
mkdir $dir or die "$dir: $!";
my $node = new_server('full', conf => "audio_cleanup.max_delete_percent = 100\naudio_cleanup.upload_dir = '$dir'\n");
make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));
$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'the directory is claimed');

# Leaves neither a block nor an inode.
sub fill_disk
{
	my $n = 0;

	open(my $filler, '>', "$disk/filler") or die $!;
	1 while syswrite($filler, 'x' x 4096);
	close($filler);
	$n++ while open(my $file, '>', sprintf '%s/filler%05d', $disk, $n);
	return $n;
}

sub empty_disk
{
	unlink glob("$disk/filler*");
	return;
}

sub states
{
	my ($run) = @_;
	return $node->safe_psql('postgres',
		"SELECT state, count(*) FROM cleanup_files WHERE run_id = $run GROUP BY state ORDER BY state") =~ s/\n/ /gr;
}

sub clean
{
	my ($settings, $call) = @_;
	my ($rc, $stdout, $stderr) = $node->psql('postgres', "$settings;\n" . ($call || q{SELECT cleanup_all() -> 'run_id'}));

	is($rc, 0, 'a run on a full disk') or diag $stderr;
	return $node->safe_psql('postgres', 'SELECT max(run_id) FROM cleanup_runs');
}

# ---- without backups ----

foreach my $call ('SELECT cleanup_all()', 'CALL cleanup_run()')
{
	my $run;

	put_files($dir, map { "2024/$_.mp3" } 1 .. 20);
	cmp_ok(fill_disk(), '>', 1, 'the disk is full');
	ok(!mkdir("$dir/new"), 'there is no room for a folder');
	$run = clean('SET audio_cleanup.backup_retention_days = 0', $call);
	ok(wait_for_drain($node), "$call: it is drained");
	is(states($run), 'deleted|20', "$call: all are deleted");
	is_deeply([ keys %{ visible_files($dir) } ], ['wanted.mp3'], "$call: and gone");
	empty_disk();
}

# ---- with backups ----

my $kept = { map { ("2024/$_.mp3" => put_file($dir, "2024/$_.mp3")) } 1 .. 20 };
my $wanted = visible_files($dir);
my $run;

fill_disk();
$run = clean('SET audio_cleanup.backup_retention_days = 7');
ok(wait_until(sub { slurp_file($node->logfile) =~ /could not back up file "2024\/1\.mp3": [^\n]*No space left/ }),
	'a file that cannot be backed up is reported');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain'}),
	'the worker gives up for now');
is(states($run), 'pending|20', 'what cannot be backed up stays pending');
is_deeply(visible_files($dir), $wanted, 'and where it is');
like($node->safe_psql('postgres', "SELECT DISTINCT error FROM cleanup_files WHERE run_id = $run"), qr/^could not [^\n]*No space left on device$/,
	'its row has the reason');
is($node->safe_psql('postgres', "SELECT finished_at IS NULL FROM cleanup_runs WHERE run_id = $run"), 't',
	'the run is not said to be finished');
$node->safe_psql('postgres', 'SET audio_cleanup.backup_retention_days = 7; SELECT cleanup_purge_backups()');
is(states($run), 'pending|20', 'nor does a purge destroy it');
is_deeply(visible_files($dir), $wanted, 'it is all there');

empty_disk();
$node->safe_psql('postgres', 'SET audio_cleanup.backup_retention_days = 7; SELECT cleanup_all()');
ok($node->poll_query_until('postgres', "SELECT count(*) = 20 FROM cleanup_files WHERE run_id = $run AND state = 'trashed'"),
	'with room again they are backed up');
is_deeply([ keys %{ visible_files($dir) } ], ['wanted.mp3'], 'and out of the way');

# ---- to restore takes no room, but for folders that are gone ----

fill_disk();
is($node->safe_psql('postgres', "SELECT cleanup_restore($run) #> '{result,files_count}'"), '20', 'restored on a full disk');
ok($node->poll_query_until('postgres', "SELECT count(*) = 20 FROM cleanup_files WHERE run_id = $run AND state = 'restored'"),
	'every row says so');
is_deeply(visible_files($dir), $wanted, 'they are as they were');

$node->stop;
unlike(slurp_file($node->logfile), qr/PANIC:|TRAP:|signal \d+/, 'no process has died');
done_testing();
