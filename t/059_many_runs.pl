# Backups of many runs are needed again, and no worker is free: a call has the
# directory open once, and not once for each of them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $n = 70;
my $node = new_server('many_runs', conf => <<'END');
audio_cleanup.backup_retention_days = 3
audio_cleanup.max_delete_percent = 100
max_worker_processes = 0
client_min_messages = error
END
my $dir = upload_dir($node);
my %all = ('wanted.mp3' => put_file($dir, 'wanted.mp3'));

make_schema($node);
add_rows($node, 'wanted.mp3');

# A call records what the one before it has done.
foreach my $i (1 .. $n)
{
	$all{"f$i.mp3"} = put_file($dir, "f$i.mp3");
	sql('SELECT cleanup_all()');
}
sql('SELECT cleanup_all()');
is(scalar keys %{ trashed_files($dir) }, $n, 'many runs have a file in the trash');

# half of them are due
sql("UPDATE cleanup_files SET due_at = condemned_at WHERE file_id % 2 = 0 AND state = 'trashed'");
add_rows($node, grep { $_ ne 'wanted.mp3' } sort keys %all);
my ($rc, undef, $stderr) = $node->psql('postgres', 'SELECT cleanup_all()');
is($rc, 0, 'a call succeeds') or diag $stderr;
unlike($stderr, qr/too many|open files/i, '... and has descriptors enough');
sql('SELECT cleanup_all()') foreach 1 .. 3;
is_deeply(visible_files($dir), \%all, 'all files are back');
is(sql("SELECT string_agg(DISTINCT state, ' ') FROM cleanup_files"), 'restored', '... and recorded');
is_deeply(trashed_files($dir), {}, 'the trash is empty');
is(sql("SELECT count(*) FROM cleanup_runs WHERE finished_at IS NULL"), '0', 'no run is left unfinished');

# a folder that is emptied goes with a commit, too
$node->append_conf('postgresql.conf', "audio_cleanup.remove_empty_dirs = on\n");
sql('SELECT pg_reload_conf()');
put_file($dir, 'deep/down/f.mp3');
sql('SELECT cleanup_all()');
sql('BEGIN', 'SELECT cleanup_all()', 'ROLLBACK');
ok(-d "$dir/deep/down", 'a call that is rolled back removes no folder');
sql('SELECT cleanup_all()');
ok(!-e "$dir/deep", '... one that commits does');

$node->stop;
done_testing();
