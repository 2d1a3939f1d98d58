# A transaction that has been open for days cleans: the days of its backups begin
# with the condemnation, and not with the transaction.  A worker that waits for
# such a transaction keeps VACUUM from nothing.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('long_transaction', start => 0, conf => <<'END');
audio_cleanup.max_delete_percent = 100
audio_cleanup.backup_retention_days = 1
audio_cleanup.writer_wait = '60s'
END
my $dir = upload_dir($node);
my $ahead = start_with_clock($node);

make_schema($node);
put_files($dir, 'wanted.mp3');
add_rows($node, 'wanted.mp3');
$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'the directory is claimed');

# the clocks of files and server agree in the end
my $content = put_file($dir, 'backup.mp3', hours => 200);
set_clock($ahead, -2 * 86400, 0);
my $session = $node->background_psql('postgres');
is(int($session->query_safe('BEGIN; SELECT extract(epoch FROM now())') / 86400 + 0.5) - int(time / 86400 + 0.5), -2, 'two days ago a transaction begins');
set_clock($ahead, 0, 0);
$session->query_safe('SELECT cleanup_all(force => true)');
$session->query_safe('COMMIT');
$session->quit;
ok(wait_for_drain($node), 'a transaction of two days cleans');
is($node->safe_psql('postgres', q{SELECT state, due_at - condemned_at FROM cleanup_files WHERE file = 'backup.mp3'}),
	'trashed|1 day', 'its file is a backup, for a day');
is($node->safe_psql('postgres', q{SELECT cleanup_restore('backup.mp3') #>> '{result,files_restored,0}'}), 'backup.mp3', 'it can be restored');
ok(wait_for_drain($node), 'that comes to its end');
is(read_file("$dir/backup.mp3"), $content, 'the file is back');

# ---- a worker that waits ----

put_file($dir, 'late.mp3');
my $first = $node->background_psql('postgres');
$first->query_safe('BEGIN; SELECT cleanup_all(force => true)');
my $second = $node->background_psql('postgres');
$second->query_until(qr/begun/, "\\echo begun\nBEGIN; SELECT 'over' FROM cleanup_all(force => true);\n");
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query ~ 'cleanup_all' AND wait_event_type = 'Lock'}),
	'a second transaction waits for the first');
$first->query_safe('COMMIT');
$first->quit;
$second->query_until(qr/over/, '');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain' AND wait_event_type = 'Lock'}),
	'the worker of the first waits for the second');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain' AND backend_xmin IS NOT NULL}), 0,
	'it has no snapshot');
$second->query_safe('COMMIT');
$second->quit;
ok(wait_for_drain($node), 'then it works');

$node->stop;
done_testing();
