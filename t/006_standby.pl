# On a streaming standby one may look, and nothing else.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_server('primary', init => [ allows_streaming => 1 ]);
my $dir = upload_dir($primary);
make_schema($primary);
my @wanted = put_files($dir, 'wanted1.mp3', 'wanted2.mp3');
my @orphans = put_files($dir, 'orphan1.mp3', 'sub/orphan2.mp3');
add_rows($primary, @wanted);
$primary->safe_psql('postgres', 'SET audio_cleanup.orphaned_file_retention_hours = 100; SELECT cleanup_all();');
ok(wait_for_drain($primary), 'the primary has claimed the directory');

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
add_rows($primary, 'late.mp3');
put_file($dir, 'late.mp3');
$primary->wait_for_catchup($standby);

my $all_files = visible_files($dir);

# ---- to look ----

my $status = sql_json($standby, 'SELECT cleanup_status()');
ok(!$status->{success}, 'cleanup_status() answers on a standby, and does not promise that a run would succeed');
is_deeply([ sort @{ $status->{potential_cleanup}{orphaned_files_deleted} } ], [ sort @orphans ],
	'it sees the orphans, by the rows that were replicated');
is_deeply($status->{blocked_by}, ['recovery'], 'and says why a run would be refused');
foreach my $function ('cleanup_all', 'cleanup_orphaned_files', 'cleanup_failed_sessions')
{
	my $answer = sql_json($standby, "SELECT $function(dry_run => true)");
	ok(!$answer->{success}, "$function(dry_run) promises no success either");
	ok($answer->{result}{dry_run}, 'and says that it is one');
}
is(sql_json($standby, 'CALL cleanup_run(dry_run => true)')->{result}{orphaned_files_count}, 2,
	'CALL cleanup_run(dry_run) works');
is($standby->safe_psql('postgres', q{SELECT cleanup_config() ->> 'upload_dir'}), $dir, 'cleanup_config() works');
ok($standby->safe_psql('postgres', q{SELECT cleanup_explain('orphan1.mp3') IS NOT NULL}), 'cleanup_explain() works');
cmp_ok($standby->safe_psql('postgres', 'SELECT count(*) FROM cleanup_check()'), '>', 0, 'cleanup_check() works');
like($standby->safe_psql('postgres', 'SELECT cleanup_dashboard()'), qr/<strong>Fine\..*This server is a standby/s, 'cleanup_dashboard() works');

is($standby->safe_psql('postgres', 'SELECT file_references, missing FROM cleanup_missing_files()'), '3|0', 'cleanup_missing_files() works');
is($standby->safe_psql('postgres', 'SELECT sum(runs) FROM cleanup_report()'), 1, 'cleanup_report() works');
is($standby->safe_psql('postgres', q{SELECT string_agg(value::text, ' ' ORDER BY name) FROM cleanup_metrics
	WHERE name ~ 'upload_dir_up|runs_total' AND labels - 'status' = '{}' AND coalesce(labels ->> 'status', 'done') = 'done'}),
	'1 1', 'cleanup_metrics works');

# ---- each brake of the transaction: what the preview says is what the run says ----

sub error_of
{
	my ($node, $statement) = @_;
	my (undef, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");
	return $stderr =~ /ERROR:  (\w{5}): (.*)/ ? ($1, $2) : ('', $stderr);
}

foreach my $case ([ $standby, '', 'recovery', '25006' ], [ $primary, 'BEGIN READ ONLY;', 'read_only', '25006' ],
	[ $primary, 'BEGIN ISOLATION LEVEL REPEATABLE READ;', 'isolation', '25001' ],
	[ $primary, 'BEGIN ISOLATION LEVEL SERIALIZABLE;', 'isolation', '25001' ],
	[ $primary, q{SET audio_cleanup.upload_dir = '/nowhere/at/all';}, 'upload_dir', undef ],
	[ $primary, q{SET audio_cleanup.upload_dir = '/';}, 'upload_dir', undef ])
{
	my ($server, $before, $brake, $state) = @$case;

	foreach my $call ('cleanup_all', 'cleanup_orphaned_files')
	{
		my $preview = sql_json($server, "$before SELECT $call(true)");
		my ($found, $message) = error_of($server, "$before SELECT $call();");

		is_deeply($preview->{blocked_by}, [$brake], "$before $call(true) names $brake");
		ok(!$preview->{success}, '... and has no success');
		is($preview->{result}{error_count}, 1, '... and one error');
		like($preview->{result}{errors}[0], qr/\Q$message\E/, '... which is the message of the real run');
		defined $state ? is($found, $state, "... SQLSTATE $state") : isnt($found, '', '... which has a SQLSTATE');
	}
}
is_deeply(visible_files($dir), $all_files, 'nothing was touched');

# ---- and nothing else ----

sub refused
{
	my ($node, $statement, $state, $name) = @_;
	my ($rc, $stdout, $stderr) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");
	isnt($rc, 0, "$name: refused");
	like($stderr, qr/ERROR:  $state: /, "$name: with SQLSTATE $state");
	like($stderr, qr/HINT:/, "$name: with a hint") if $state eq '25006' && $statement =~ /cleanup_(all|orphaned|failed|run)/;
	return;
}

refused($standby, $_, '25006', $_) foreach
  'SELECT cleanup_all()', 'SELECT cleanup_orphaned_files()', 'SELECT cleanup_failed_sessions()',
  'SELECT cleanup_all(force => true)', 'CALL cleanup_run()',
  q{SELECT cleanup_add_source('sessions')}, q{SELECT cleanup_drop_source('sessions')};
is_deeply(visible_files($dir), $all_files, 'nothing was touched');
ok(!-e "$dir/.audio_cleanup/trash", 'no trash was made');

# the same in a read-only transaction of the primary
refused($primary, "BEGIN READ ONLY; $_; COMMIT", '25006', "read only: $_") foreach
  'SELECT cleanup_all()', 'SELECT cleanup_orphaned_files()';
refused($primary, 'SET default_transaction_read_only = on; CALL cleanup_run();', '25006', 'read only: CALL cleanup_run()');
is(sql_json($primary, 'SET default_transaction_read_only = on; SELECT cleanup_status()')->{blocked_by}[0], 'read_only',
	'there too one may look');
is_deeply(visible_files($dir), $all_files, 'nothing was touched');

# ---- after a promotion it is somebody else's directory, until it is taken over ----

$primary->stop;
$standby->promote;
refused($standby, 'SELECT cleanup_all(force => true)', '55006', 'promoted');
is(sql_json($standby, 'SELECT cleanup_status()')->{blocked_by}[0], 'claim', 'cleanup_status() tells of it');
is_deeply(visible_files($dir), $all_files, 'nothing was touched');
$standby->safe_psql('postgres', 'SELECT cleanup_claim_upload_dir()');
$standby->safe_psql('postgres', 'SET audio_cleanup.orphaned_file_retention_hours = 0; SELECT cleanup_all();');
ok(wait_for_drain($standby), 'the promoted standby cleans when told that the directory is its own');
is_deeply([ sort keys %{ visible_files($dir) } ], [ sort @wanted, 'late.mp3' ], 'what is to be cleaned');

$standby->stop;
is(log_lines($_, qr/PANIC:|signal \d+/), '', 'no process has died') foreach $primary, $standby;
done_testing();
