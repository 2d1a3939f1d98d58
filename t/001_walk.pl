# The plain way from psql to the disk: files leave with COMMIT, their space
# comes back soon, and the server log tells the story.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('walk', conf => "log_min_messages = debug1\n");
my $dir = upload_dir($node);
make_schema($node);

# ---- a few files ----

my @wanted = put_files($dir, map { "wanted$_.mp3" } 1 .. 5);
my @orphans = put_files($dir, 'a.mp3', 'b.wav', '2024/05/c.ogg');
put_file($dir, 'young.mp3', hours => 1);
add_rows($node, @wanted);

my $position = log_position($node);
my $answer = sql_json($node, 'SELECT cleanup_all()');

# as soon as psql has returned
is_deeply([ sort keys %{ visible_files($dir) } ], [ sort @wanted, 'young.mp3' ],
	'the orphans are out of the directory when psql returns');
is_deeply([ sort @{ $answer->{result}{orphaned_files_deleted} } ], [ sort @orphans ],
	'the answer names them');
is($answer->{result}{orphaned_files_count}, 3, 'and counts them');
ok($answer->{run_id} > 0, 'and gives the number of the run');

ok(wait_for_drain($node), 'the worker has dealt with the rest');
ok(!-e "$dir/.audio_cleanup/trash", 'the trash is gone, its folders too');
is($node->safe_psql('postgres', 'SELECT state, count(*) FROM cleanup_files GROUP BY state'),
	'deleted|3', 'every file has a row');
is($node->safe_psql('postgres', q{
	SELECT status, files, deleted, skipped, errors, requested_by, bytes > 0, finished_at >= started_at
	FROM cleanup_runs}),
	'done|3|3|0|0|' . $node->safe_psql('postgres', 'SELECT current_user') . '|t|t',
	'the run has its row');

my $log = log_since($node, $position);
my $user = $node->safe_psql('postgres', 'SELECT current_user');
my @lines = $log =~ /(LOG:  cleanup run .*)/g;
is(scalar @lines, 1, 'one line in the server log for the run');
like($lines[0],
	qr/^LOG:  cleanup run $answer->{run_id} by "\Q$user\E": 3 files condemned, 3 deleted, 0 kept as backup, 0 skipped, 0 failed, \d+\.\d\d MiB freed, \d+\.\d+ s$/,
	'it says who, how many, how much and how long');
foreach my $file (@orphans)
{
	my $size = length "audio of $file\n";
	like($log, qr/DEBUG:  deleted file "\Q$file\E", $size bytes freed/, "and a DEBUG1 line for $file");
}
unlike($log, qr/(WARNING|ERROR|FATAL|PANIC):/, 'nothing else is complained about');

$answer = sql_json($node, 'SELECT cleanup_all()');
is($answer->{result}{orphaned_files_count}, 0, 'a second run finds nothing');
ok(wait_for_drain($node), 'and is done');

# ---- more than the commit callback takes ----

my $many = 10_500;
put_files($dir, map { sprintf 'many/%02d/%05d.mp3', $_ % 20, $_ } 1 .. $many);
$answer = sql_json($node, 'SELECT cleanup_orphaned_files(force => true)');
is($answer->{result}{orphaned_files_count}, $many, "$many files are condemned");
is(scalar @{ $answer->{result}{orphaned_files_deleted} }, 10_000, 'the list is cut');
ok($answer->{lists_truncated}, 'which the answer says');

my $left = scalar(grep { /^many/ } keys %{ visible_files($dir) });
cmp_ok($left, '<=', $many - 10_000, 'ten thousand are out of the directory when psql returns');
ok(wait_for_drain($node), 'the worker deals with those beyond');
is_deeply([ sort keys %{ visible_files($dir) } ], [ sort @wanted, 'young.mp3' ], 'all are gone');
ok(!-e "$dir/.audio_cleanup/trash", 'the trash is gone');
is($node->safe_psql('postgres', "SELECT status, files, deleted FROM cleanup_runs WHERE run_id = $answer->{run_id}"),
	"done|$many|$many", 'and the run says so');

# ---- cleanup_run() knows the end ----

put_files($dir, map { "call$_.mp3" } 1 .. 7);
$node->safe_psql('postgres', 'ALTER DATABASE postgres SET audio_cleanup.batch_size = 3');
$answer = sql_json($node, 'CALL cleanup_run()');
is($answer->{result}{orphaned_files_count}, 7, 'CALL cleanup_run() deletes in several batches');
ok(!-e "$dir/.audio_cleanup/trash", 'and when it returns nothing is left in the trash');
is($node->safe_psql('postgres', "SELECT status, deleted FROM cleanup_runs WHERE run_id = $answer->{run_id}"),
	'done|7', 'nor to be recorded');

$node->stop;
done_testing();
