# A logical replica: one may look there, so that the primary is spared, and
# nothing else, because those who write are connected to the publisher.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $publisher = new_server('publisher', init => [ allows_streaming => 'logical' ]);
my $replica = new_server('replica');
my $dir = upload_dir($publisher);
make_schema($publisher);
$publisher->safe_psql('postgres', 'CREATE PUBLICATION audio FOR TABLE sessions');
put_files($dir, 'wanted.mp3', 'orphan.mp3');
add_rows($publisher, 'wanted.mp3');
$publisher->safe_psql('postgres', 'SET audio_cleanup.orphaned_file_retention_hours = 100; SELECT cleanup_all();');
ok(wait_for_drain($publisher), 'the publisher has claimed the directory');

make_schema($replica);
my $connection = $publisher->connstr . ' dbname=postgres';
$replica->safe_psql('postgres', "ALTER SYSTEM SET audio_cleanup.upload_dir = '$dir'; SELECT pg_reload_conf();");
$replica->safe_psql('postgres', "CREATE SUBSCRIPTION audio CONNECTION '$connection' PUBLICATION audio");
$replica->wait_for_subscription_sync($publisher, 'audio');
put_file($dir, 'late.mp3');
add_rows($publisher, 'late.mp3');
$publisher->wait_for_catchup('audio');
my $all_files = visible_files($dir);

my $status = sql_json($replica, 'SELECT cleanup_status()');
ok(!$status->{success}, 'a preview on the replica promises no success');
is_deeply($status->{blocked_by}, [ 'replica', 'claim' ], '... and says why');
is_deeply($status->{potential_cleanup}{orphaned_files_deleted}, ['orphan.mp3'], '... and lists what the publisher would delete, by the rows that were replicated');
is_deeply(sql_json($publisher, 'SELECT cleanup_status()')->{potential_cleanup}{orphaned_files_deleted}, ['orphan.mp3'], 'as the publisher does');
is(sql_json($replica, 'CALL cleanup_run(dry_run => true)')->{result}{orphaned_files_count}, 1, 'CALL cleanup_run(dry_run) works');

foreach my $statement ('SELECT cleanup_all()', 'SELECT cleanup_all(force => true)', 'CALL cleanup_run()')
{
	my (undef, undef, $stderr) = $replica->psql('postgres', "\\set VERBOSITY verbose\n$statement");
	like($stderr, qr/ERROR:  55000: cannot clean up where source public\.sessions is filled by a subscription.*HINT:  Run it on the publisher/s, "$statement is refused");
}
is_deeply(visible_files($dir), $all_files, 'nothing was touched');

# ---- a source is a partition, and the table above it is filled ----

$publisher->safe_psql('postgres', 'CREATE TABLE takes (day int, file text); INSERT INTO takes VALUES (1, \'wanted.mp3\'); CREATE PUBLICATION takes FOR TABLE takes');
$replica->safe_psql('postgres', q{
	CREATE TABLE takes (day int, file text) PARTITION BY RANGE (day);
	CREATE TABLE takes_of_year PARTITION OF takes FOR VALUES FROM (0) TO (365) PARTITION BY RANGE (day);
	CREATE TABLE takes_of_month PARTITION OF takes_of_year FOR VALUES FROM (0) TO (31);
	SELECT cleanup_drop_source('sessions'); SELECT cleanup_add_source('takes_of_month', '{file}')});
$replica->safe_psql('postgres', "CREATE SUBSCRIPTION takes CONNECTION '$connection' PUBLICATION takes");
$replica->wait_for_subscription_sync($publisher, 'takes');
is_deeply(sql_json($replica, 'SELECT cleanup_status()')->{blocked_by}, [ 'replica', 'claim' ], 'a partition is filled as the table above it');
like(sql_error($replica, 'SELECT cleanup_all(force => true)'), qr/source public\.takes_of_month is filled by a subscription/, '... and a run is refused');
$replica->safe_psql('postgres', 'DROP SUBSCRIPTION takes');
is_deeply(sql_json($replica, 'SELECT cleanup_status()')->{blocked_by}, ['claim'], 'without the subscription it is not');
$replica->safe_psql('postgres', q{SELECT cleanup_drop_source('takes_of_month'); SELECT cleanup_add_source('sessions')});

# ---- it becomes a primary of its own ----

$publisher->stop;
$replica->safe_psql('postgres', q{ALTER SUBSCRIPTION audio DISABLE; ALTER SUBSCRIPTION audio SET (slot_name = NONE); DROP SUBSCRIPTION audio;});
is_deeply(sql_json($replica, 'SELECT cleanup_status()')->{blocked_by}, ['claim'], 'without the subscription only the claim is in the way');
$replica->safe_psql('postgres', 'SELECT cleanup_claim_upload_dir()');
$replica->safe_psql('postgres', 'SET audio_cleanup.orphaned_file_retention_hours = 0; SELECT cleanup_all();');
ok(wait_for_drain($replica), 'when it has taken the directory over, it cleans');
is_deeply([ sort keys %{ visible_files($dir) } ], [ 'late.mp3', 'wanted.mp3' ], '... what is to be cleaned');

$replica->stop;
done_testing();
