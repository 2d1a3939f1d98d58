# A disk that fails: what could not be done is said in the row and in the
# server log, nothing else suffers, and the next run tries again.
#
# Slow: it waits for retries.

use strict;
use warnings;

use Errno qw(EACCES EIO ENOSPC EROFS);
use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $n = 4;
my @wanted = map { "wanted$_.mp3" } 1 .. 3;

my $node = new_server('faults', start => 0);
my $dir = upload_dir($node);
start_with_faults($node);
claim_directory($node, @wanted);

my $round = 0;

sub make_files
{
	my (%wanted, %unwanted);

	$round++;
	empty_directory($dir);
	$wanted{$_} = put_file($dir, $_) foreach @wanted;
	$unwanted{$_} = put_file($dir, $_) foreach map { "r$round/$_.mp3" } 1 .. $n;
	return { wanted => \%wanted, unwanted => \%unwanted };
}

# A run, and what the worker makes of it.
sub run
{
	my ($condition) = @_;
	$node->safe_psql('postgres', 'SELECT cleanup_all()');
	ok($condition ? $node->poll_query_until('postgres', $condition) : wait_for_drain($node), 'the run is over');
	return $node->safe_psql('postgres', 'SELECT max(run_id) FROM cleanup_runs');
}

sub outcome
{
	my ($run) = @_;
	return $node->safe_psql('postgres',
		"SELECT state, error, count(*) FROM cleanup_files WHERE run_id = $run GROUP BY 1, 2 ORDER BY 1, 2");
}

sub run_again_and_check
{
	my ($name, $files) = @_;

	clear_fault($node);
	my $run = run();
	is_deeply(violations($node, $dir, { %$files, final => 1 }), [], "$name: after the next run all is well");
	is_deeply(visible_files($dir), $files->{wanted}, "$name: the orphans are gone");
	return $run;
}

# ---- a rename that fails ----

foreach my $case (
	[ 'EACCES', EACCES, 'could not rename file: Permission denied' ],
	[ 'EIO', EIO, 'could not rename file: Input/output error' ],
	[ 'EROFS', EROFS, 'could not rename file: Read-only file system' ])
{
	my ($name, $errno, $text) = @$case;
	my $files = make_files();
	my $position = log_position($node);
	my $run;

	set_fault($node, "renameat2 errno 0 $errno");
	$run = run();
	cmp_ok(fault_fired($node), '>=', $n, "$name at every rename");
	is_deeply(visible_files($dir), { %{ $files->{wanted} }, %{ $files->{unwanted} } }, "$name: the files stay");
	is_deeply(violations($node, $dir, $files), [], "$name: every file is accounted for");
	is(outcome($run), "failed|$text|$n", "$name: the rows say why");
	is($node->safe_psql('postgres', "SELECT status, errors, deleted FROM cleanup_runs WHERE run_id = $run"),
		"failed|$n|0", "$name: so does the run");
	my @told = log_since($node, $position) =~ m{WARNING:  left file "r$round/\d.mp3" where it is: \Q$text\E}g;
	is(scalar @told, 1, "$name: and the server log, once for the folder");

	my $second = run();
	is(outcome($second), "failed|$text|$n", "$name: the next run fails as well");
	is($node->safe_psql('postgres', "SELECT count(*) FROM cleanup_files WHERE file LIKE 'r$round/%'"), $n,
		"$name: it adds no rows");

	$run = run_again_and_check($name, $files);
	is(outcome($run), "deleted||$n", "$name: they went with the next run");
}

# only one file of many
{
	my $files = make_files();
	my $run;

	set_fault($node, 'renameat2 errno 0 ' . EIO . ' 2.mp3');
	$run = run();
	is(outcome($run), 'deleted||' . ($n - 1) . "\nfailed|could not rename file: Input/output error|1",
		'one file fails, the others go');
	is_deeply(violations($node, $dir, $files), [], 'every file is accounted for');
	run_again_and_check('one file', $files);
}

# cleanup_run() tells the caller
{
	my $files = make_files();
	my $answer;

	set_fault($node, 'renameat2 errno 0 ' . EIO . ' 2.mp3');
	$answer = sql_json($node, 'CALL cleanup_run()');
	ok(!$answer->{success}, 'cleanup_run() did not succeed');
	is($answer->{result}{error_count}, 1, 'one error');
	is_deeply($answer->{result}{errors}, ["r$round/2.mp3: could not rename file: Input/output error"],
		'cleanup_run() names the file and the reason');
	is($answer->{result}{orphaned_files_count}, $n - 1, 'and counts only what is gone');
	run_again_and_check('cleanup_run()', $files);
}

# ---- a disk too full for a rename ----

foreach my $fault ('renameat2 errno 0 ' . ENOSPC, 'mkdirat errno 0 ' . ENOSPC)
{
	my $files = make_files();
	my $run;

	set_fault($node, $fault);
	$run = run();
	cmp_ok(fault_fired($node), '>=', $n, "no space for $fault");
	is(outcome($run), "deleted||$n", 'without backup the files are deleted where they are');
	is_deeply(visible_files($dir), $files->{wanted}, 'only the orphans');
	clear_fault($node);
	is_deeply(violations($node, $dir, { %$files, final => 1 }), [], 'and nothing is left to do');
}

{
	my $files = make_files();
	my $position = log_position($node);
	my $run;

	$node->safe_psql('postgres', 'ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = 3');
	set_fault($node, 'renameat2 errno 0 ' . ENOSPC);
	$run = run("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain')");
	ok(wait_until(sub { log_since($node, $position) =~ qr{WARNING:  could not back up file "r$round/$n.mp3": .*No space left} }),
		'with backup it is reported');
	is(outcome($run), "pending|could not rename file: No space left on device|$n", 'and the files stay condemned, with the reason');
	is_deeply(violations($node, $dir, $files), [], 'every file is accounted for');
	is_deeply(visible_files($dir), { %{ $files->{wanted} }, %{ $files->{unwanted} } }, 'none is deleted');

	clear_fault($node);
	run();
	is($node->safe_psql('postgres', qq{
		SELECT state, due_at > now() + interval '2 days', count(*) FROM cleanup_files
		WHERE run_id = $run GROUP BY 1, 2}), "trashed|t|$n", 'with space again they are backed up');
	is_deeply([ sort keys %{ trashed_files($dir) } ], [ sort keys %{ $files->{unwanted} } ],
		'the backups are there');
	is_deeply(violations($node, $dir, $files), [], 'every file is accounted for');
	$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET audio_cleanup.backup_retention_days');
	$node->safe_psql('postgres', 'UPDATE cleanup_files SET due_at = now()');
	run_again_and_check('backups that are due', $files);
}

# ---- what cannot be looked at ----

{
	my $files = make_files();
	my $answer;

	set_fault($node, 'statx errno 0 ' . EIO . ' 3.mp3');
	$answer = sql_json($node, 'SELECT cleanup_all(dry_run => true)');
	is_deeply($answer->{result}{errors}, [qq{could not stat file "r$round/3.mp3": Input/output error}],
		'a file that cannot be looked at is an error of its own');
	ok(!$answer->{success}, 'a dry run says that it did not see all');
	is($answer->{result}{orphaned_files_count}, $n - 1, 'the others are found');
	is(sql_json($node, 'SELECT cleanup_all()')->{result}{error_count}, 1, 'a real run says so too');
	ok(wait_for_drain($node), 'drained');
	is($node->safe_psql('postgres', 'SELECT status, errors, other_errors, message FROM cleanup_runs ORDER BY run_id DESC LIMIT 1'),
		qq{failed|0|1|could not stat file "r$round/3.mp3": Input/output error}, 'and so does the history');
	is_deeply([ grep { /^r/ } keys %{ visible_files($dir) } ], ["r$round/3.mp3"], 'and leaves that one alone');
	run_again_and_check('a file that could not be looked at', $files);
}

# it is said once, also where the files are judged again because a source cannot be cleared
{
	my $files = make_files();

	put_file($dir, 'stays.mp3');
	$node->safe_psql('postgres', q{
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'never'; END$$;
		CREATE TABLE kept (id int PRIMARY KEY, audio_url text, status text, failed_at timestamptz);
		INSERT INTO kept VALUES (1, 'stays.mp3', 'failed', now() - interval '1 year');
		CREATE TRIGGER refuse BEFORE UPDATE ON kept FOR EACH ROW EXECUTE FUNCTION refuse();
		SELECT cleanup_add_source('kept', on_failed => 'clear')});
	set_fault($node, 'statx errno 0 ' . EIO . ' 3.mp3');
	foreach my $call ('cleanup_all(true)', 'cleanup_status()', 'cleanup_all()')
	{
		my $answer = sql_json($node, "SELECT $call");
		my @errors = sort @{ ($answer->{result} || $answer->{potential_cleanup})->{errors} };

		is(scalar(@errors), 2, "$call: each error is there once");
		like($errors[0], qr{^could not stat file "r$round/3.mp3"}, "$call: of the file");
		like($errors[1], qr{^the failed sessions of source public.kept are left alone.*never}, "$call: and of the source");
	}
	ok(wait_for_drain($node), 'drained');
	like($node->safe_psql('postgres', 'SELECT status, errors, other_errors, message FROM cleanup_runs ORDER BY run_id DESC LIMIT 1'),
		qr/^failed\|0\|2\|.* \(and 1 more error\)$/, 'the history has the first');
	clear_fault($node);
	$node->safe_psql('postgres', q{SELECT cleanup_drop_source('kept'); DROP TABLE kept});
	unlink "$dir/stays.mp3" or die $!;
	run_again_and_check('a file that could not be looked at, and a source that could not be cleared', $files);
}

# ---- an fsync that fails: nothing may be recorded ----

{
	my $files = make_files();
	my $position = log_position($node);
	my $run;

	set_fault($node, 'fsync errno 1 ' . EIO);
	$run = run("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain')");
	ok(wait_until(sub { log_since($node, $position) =~ qr{ERROR:  could not fsync below upload directory "\Q$dir\E": Input/output error} }),
		'a failing fsync is an error');
	is(outcome($run), "pending||$n", 'after which nothing is recorded');
	is_deeply(violations($node, $dir, $files), [], 'every file is accounted for');
	run_again_and_check('fsync', $files);
	is(outcome($run), "deleted||$n", 'the rows of that run were brought to their end');
}

# ---- an unlink that fails ----

{
	my $files = make_files();
	my $position = log_position($node);
	my $run;

	set_fault($node, 'unlinkat errno 0 ' . EIO . ' 1.mp3');
	$run = run("SELECT count(*) = $n - 1 FROM cleanup_files WHERE state = 'deleted' AND file LIKE 'r$round/%'");
	ok(wait_until(sub { log_since($node, $position) =~ qr{WARNING:  could not delete file "r$round/1.mp3" from the trash of run $run: could not remove file: Input/output error} }),
		'a file that cannot be destroyed is reported');
	is(outcome($run), 'deleted||' . ($n - 1) . "\ntrashed||1", 'and stays recorded as trashed');
	is_deeply(violations($node, $dir, $files), [], 'every file is accounted for');
	run_again_and_check('unlink', $files);
}

# ---- real permissions ----

{
	my $files = make_files();
	my $run;

	put_file($dir, 'top.mp3');
	chmod 0555, "$dir/r$round" or die $!;
	$run = run();
	is(outcome($run), "deleted||1\nfailed|could not rename file: Permission denied|$n",
		'a subdirectory that is not writable keeps its files, others go');
	is_deeply(violations($node, $dir, $files), [], 'every file is accounted for');
	chmod 0755, "$dir/r$round" or die $!;
	run_again_and_check('unwritable subdirectory', $files);
}

# a slow disk has others to serve
{
	my $files = make_files();
	my $position = log_position($node);

	$node->safe_psql('postgres', q{ALTER SYSTEM SET log_min_messages = 'debug2'});
	$node->reload;
	set_fault($node, 'unlinkat slow 0 50');
	run();
	like(log_since($node, $position), qr/resting for [1-9]\d* ms: the disk is slow or busy/, 'a slow disk is given a rest');
	is_deeply(violations($node, $dir, $files), [], 'every file is accounted for');
	clear_fault($node);
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET log_min_messages');
	$node->reload;
}

# somebody else may write to the trash: it is not trusted, and nothing believed
{
	my $files = make_files();
	my $run;

	set_fault($node, 'unlinkat hold 1');
	$node->safe_psql('postgres', 'SELECT cleanup_all()');
	ok(wait_until(sub { fault_fired($node) }), 'the worker is held before it destroys');
	chmod 0770, "$dir/.audio_cleanup" or die $!;
	$run = $node->safe_psql('postgres', 'SELECT max(run_id) FROM cleanup_runs');
	$node->safe_psql('postgres', q{
		SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain'});
	clear_fault($node);
	ok(wait_until(sub { $node->safe_psql('postgres', q{
		SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain'}) eq '0' }), 'the worker has ended');
	is_deeply(violations($node, $dir, $files), [], 'every file is accounted for');

	$node->psql('postgres', 'SELECT cleanup_all()');
	ok($node->poll_query_until('postgres', q{
		SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain'}), 'another worker has seen it');
	is_deeply(violations($node, $dir, $files), [], 'a trash that is not trusted is not taken for an empty one');
	chmod 0700, "$dir/.audio_cleanup" or die $!;
	run_again_and_check('trash of doubtful ownership', $files);
}

$node->stop;
is(log_lines($node, qr/PANIC:|signal \d+/), '', 'no process has died');
done_testing();
