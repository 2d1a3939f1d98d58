# The work of a call grows with the number of files and rows, and not with its
# square, although the planner knows nothing about our tables yet: no ANALYZE
# has run since their rows came.

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
	is($node->safe_psql($database, "SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM cleanup_files GROUP BY state) s"),
		sprintf('deleted %d, failed %d, restored %d, skipped %d', 2 * $n, $n, 3 * $n, $n), "$database: all is as expected");
	chmod 0755, "$dir/shut";
}
foreach my $i (0 .. $#steps)
{
	my ($small, $large) = map { $work{$_}[$i] } @sizes;
	note sprintf "%9d %9d %6.2f %s", $small, $large, $large / $small, $steps[$i];
	cmp_ok($large, '<=', $most * $small, "$steps[$i]: $small with $sizes[0], $large with $sizes[1]");
}

# ---- a long history, of which only the dashboard shows sums ----

my @looks = (
	'SELECT cleanup_all(dry_run => true)',
	'CALL cleanup_run()',
	'SELECT cleanup_status()',
	'SELECT cleanup_config()',
	'SELECT * FROM cleanup_check()',
	'SELECT * FROM cleanup_metrics()',
	q{SELECT cleanup_explain('orphan1.mp3')},
	'SELECT * FROM cleanup_progress()',
	'SELECT * FROM cleanup_next_run()',
	'SELECT count(*) FROM cleanup_backups',
	'SELECT cleanup_restore(3)',
	q{DO $$ BEGIN PERFORM cleanup_restore('failed1.mp3'); EXCEPTION WHEN no_data_found THEN END $$},
	'SELECT cleanup_purge_backups()');
my $database = "of_$sizes[0]";
my @short = map { work_of($database, $_) } @looks;

$node->safe_psql($database, q{
	INSERT INTO cleanup_runs (run_id, started_at, what, status, files, deleted, requested_by, finished_at, upload_dir, settings, claim)
	  SELECT -i, now() - i * interval '1 hour', 'all', 'done', 10, 10, 'postgres', now() - i * interval '1 hour', upload_dir, settings, claim
	  FROM cleanup_runs, generate_series(1, 5000) i WHERE run_id = 1;
	INSERT INTO cleanup_files (run_id, file_id, file, reason, state, size, condemned_at, modified_at, due_at, finished_at, inode, mtime_ns, ctime_ns, btime_ns)
	  SELECT run_id, -10 * run_id + i, 'old' || run_id || '.' || i || '.mp3', 'orphan', 'deleted', 1, started_at, started_at, started_at, started_at, i, 1, 1, 1
	  FROM cleanup_runs, generate_series(1, 10) i WHERE run_id < 0;
	ANALYZE});
foreach my $i (0 .. $#looks)
{
	my $long = work_of($database, $looks[$i]);
	note sprintf "%9d %9d %6.2f %s", $short[$i], $long, $long / $short[$i], $looks[$i];
	cmp_ok($long, '<', $short[$i] + 10_000, "$looks[$i]: $short[$i], $long with a long history");
}
$node->stop;
done_testing();
