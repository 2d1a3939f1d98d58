# One file system that does not rename from one folder into another, as with
# project quotas: without backups a file goes in its place, with them as a copy.

use strict;
use warnings;

use Errno qw(EXDEV);
use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('projects', start => 0, conf => "audio_cleanup.max_delete_percent = 100\n");
my $dir = upload_dir($node);

start_with_faults($node);
claim_directory($node, 'wanted.mp3');

sub state_of
{
	my ($file) = @_;
	return sql("SELECT string_agg(state, ' ' ORDER BY file_id) FROM cleanup_files WHERE file = '$file'");
}

# nothing of this name can be renamed
set_fault($node, 'renameat2 errno 0 ' . EXDEV . ' bound.mp3');
put_file($dir, 'p/bound.mp3');
sql('SELECT cleanup_all()');
ok(wait_for_drain($node), 'without backups: a run ends');
is(state_of('p/bound.mp3'), 'deleted', '... the file is deleted');
ok(!-e "$dir/p/bound.mp3", '... really');
is(sql("SELECT freed FROM cleanup_files WHERE file = 'p/bound.mp3'"), length("audio of p/bound.mp3\n"), '... and counted');

$node->append_conf('postgresql.conf', "audio_cleanup.backup_retention_days = 3\n");
sql('SELECT pg_reload_conf()');
my $content = put_file($dir, 'q/bound.mp3', content => 'sound ' x 100_000);
sql('SELECT cleanup_all()');
ok(wait_for_drain($node), 'with backups: a run ends');
is(state_of('q/bound.mp3'), 'trashed', '... the file is a backup');
ok(!-e "$dir/q/bound.mp3", '... and gone from its folder');
my $runs = trashed_files($dir)->{'q/bound.mp3'};
is(scalar @{ $runs || [] }, 1, '... it lies in the trash');
is(read_file("$dir/.audio_cleanup/trash/$runs->[0]/q/bound.mp3"), $content, '... whole');
is(sql("SELECT cleanup_restore('q/bound.mp3') #>> '{result,error_count}'"), '0', 'it is restored');
ok(wait_for_drain($node), '... in the background');
is(state_of('q/bound.mp3'), 'restored', '... recorded');
is(read_file("$dir/q/bound.mp3"), $content, '... whole');
is_deeply(trashed_files($dir), {}, 'the trash is empty');
ok(fault_fired($node) > 0, 'nothing of that was renamed');

# with a batch of its own
$content = put_file($dir, 'q/bound.mp3', content => 'more ' x 1000);
utime time - 200_000, time - 200_000, "$dir/q/bound.mp3";
sql("UPDATE cleanup_files SET finished_at = finished_at - interval '10 days'");
my $answer = sql_json($node, 'CALL cleanup_run()');
ok($answer->{success}, 'CALL cleanup_run() succeeds');
like(state_of('q/bound.mp3'), qr/trashed$/, '... and has a backup');
sql("UPDATE cleanup_files SET due_at = condemned_at WHERE state = 'trashed'", 'SELECT cleanup_purge_backups()');
ok(wait_for_drain($node), 'it expires');
is_deeply(trashed_files($dir), {}, '... and is gone');

clear_fault($node);
$node->stop;
done_testing();
