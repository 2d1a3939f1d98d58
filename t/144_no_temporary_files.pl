# The server's own disk is full, and no temporary file can be written: with a
# few files one may look, and what is due is destroyed, which makes room.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Test::More;

my $node = new_server('no_temporary_files', conf => "audio_cleanup.max_delete_percent = 100\n");
my $dir = upload_dir($node);
my %wanted = %{ claim_directory($node, 'keep.mp3') };
my @orphans = map { "orphan$_.mp3" } 1 .. 20;

put_file($dir, $_) foreach @orphans;
sql('SET audio_cleanup.backup_retention_days = 7; SELECT cleanup_all(force => true)');
ok(wait_for_drain($node), 'there are backups');
is(sql(q{SELECT count(*) FROM cleanup_files WHERE state = 'trashed'}), scalar @orphans, '... of all orphans');
put_file($dir, 'later.mp3');

$node->safe_psql('postgres', 'ALTER SYSTEM SET temp_file_limit = 0');
$node->reload;
ok(wait_until(sub { sql('SHOW temp_file_limit') eq '0' }), 'the server has room for nothing');
like(sql_error($node, 'SET work_mem = 64; SELECT count(*) FROM (SELECT n FROM generate_series(1, 100000) n ORDER BY random()) s'),
	qr/temporary file size exceeds/, 'no temporary file can be written');
is(sql(q{SELECT cleanup_status() -> 'potential_cleanup' ->> 'orphaned_files_count'}), 1, 'a preview');
is(sql(q{SELECT cleanup_explain('later.mp3') ->> 'verdict'}), 'condemned', 'an explanation');
sql('UPDATE cleanup_files SET due_at = condemned_at', 'SELECT cleanup_purge_backups()');
ok(wait_until(sub { sql(q{SELECT count(*) FROM cleanup_files WHERE state = 'deleted'}) == @orphans }), 'all that is due is destroyed');
is_deeply(trashed_files($dir), {}, '... there is room again');
is_deeply([ sort keys %{ visible_files($dir) } ], [ sort 'later.mp3', keys %wanted ], '... and nothing else has gone');
is(log_lines($node, qr/PANIC:|TRAP:|signal \d+/), '', 'no process has died');
done_testing();
