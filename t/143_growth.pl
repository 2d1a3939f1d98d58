# The work of a call grows with the number of files and rows, and not with its
# square, although the planner knows nothing about our tables yet: no ANALYZE
# has run since their rows came.  What does not fit into work_mem goes to disk.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my @sizes = (500, 2000);
# four times the rows, and sorts that grow a little faster
my $most = 6;

my $node = new_server('growth', conf => <<'END');
autovacuum = off
work_mem = 64kB
max_worker_processes = 0
audio_cleanup.max_delete_percent = 100
audio_cleanup.backup_retention_days = 30
END

# The blocks and rows that a statement has looked at.
sub work_of
{
	my ($database, $statement) = @_;
	my $blocks = "SELECT blks_hit + blks_read + tup_returned FROM pg_stat_database WHERE datname = '$database'";
	my $before = $node->safe_psql('postgres', $blocks);
	my ($rc, undef, $error) = $node->psql($database, "SET statement_timeout = '1min'; $statement");

	is($rc, 0, "$database: $statement") or diag($error);
	# a process adds its figures when it ends
	$node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '$database')");
	return $node->safe_psql('postgres', $blocks) - $before;
}

# Two failed sessions for each file, which are cleared, as many orphans, files
# that cannot be moved, and rows that refer to no file.
my $later = q{UPDATE cleanup_files SET finished_at = finished_at - interval '30 days'};
my @steps = (
	'SELECT cleanup_all(dry_run => true)',
	'SELECT cleanup_all()',
	'SELECT cleanup_status()',
	'SELECT cleanup_all()',
	'CALL cleanup_run()',
	'SELECT * FROM cleanup_missing_files()',
	'SELECT * FROM cleanup_check()',
	'SELECT * FROM cleanup_metrics()',
	'SELECT cleanup_dashboard()',
	q{SELECT cleanup_explain('orphan1.mp3')},
	'SELECT * FROM cleanup_backups',
	q{INSERT INTO sessions (audio_url) SELECT file FROM cleanup_backups WHERE reason = 'orphan'},
	'CALL cleanup_run()',
	q{DELETE FROM sessions WHERE audio_url ~ '^orphan'},
	'SELECT cleanup_restore(1)',
	$later,
	'SELECT cleanup_all()',
	q{INSERT INTO cleanup_holds (file, held_by) SELECT file, 'us' FROM cleanup_backups},
	'CALL cleanup_run()',
	'DELETE FROM cleanup_holds',
	$later,
	'SELECT cleanup_all()',
	'UPDATE cleanup_files SET due_at = condemned_at',
	'SELECT cleanup_purge_backups()',
	'CALL cleanup_run()');

my %work;
foreach my $n (@sizes)
{
	my $database = "of_$n";
	my $dir = upload_dir($node) . "_$n";

	mkdir $dir;
	system_or_bail('bash', '-c', "cd '$dir' && mkdir shut && printf '%s ' {failed,orphan,wanted,shut/no}{1..$n}.mp3 | xargs touch -d '10 days ago' && chmod 555 shut");
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql('postgres', "ALTER DATABASE $database SET audio_cleanup.upload_dir = '$dir'");
	make_schema($node, $database);
	$node->safe_psql($database, qq{
		SELECT cleanup_drop_source('sessions');
		SELECT cleanup_add_source('sessions', on_failed => 'clear');
		INSERT INTO sessions (audio_url, status, updated_at)
		  SELECT 'failed' || i || '.mp3', 'failed', now() - interval '9 days' FROM generate_series(1, $n) i, generate_series(1, 2);
		INSERT INTO sessions (audio_url) SELECT 'wanted' || i || '.mp3' FROM generate_series(1, $n) i;
		INSERT INTO sessions (audio_url) SELECT 'none' || i || '.mp3' FROM generate_series(1, $n) i});
	push @{ $work{$n} }, work_of($database, $_) foreach @steps;
	is($node->safe_psql($database, "SELECT string_agg(n || ' ' || state, ', ' ORDER BY state) FROM (SELECT state, count(*) / $n AS n FROM cleanup_files GROUP BY state) s"),
		'2 deleted, 1 failed, 3 restored, 1 skipped', "$database: all is as expected");
	chmod 0755, "$dir/shut";
}
foreach my $i (0 .. $#steps)
{
	my ($small, $large) = map { $work{$_}[$i] } @sizes;
	note sprintf "%9d %9d %6.2f %s", $small, $large, $large / $small, $steps[$i];
	cmp_ok($large, '<=', $most * $small, "$steps[$i]: $small with $sizes[0], $large with $sizes[1]");
}
$node->stop;
done_testing();
