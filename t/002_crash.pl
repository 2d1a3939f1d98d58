# Killed at any point, the server comes back to a state in which every file is
# accounted for, and the next run brings everything to its end.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $n = 12;
my @wanted = map { "wanted$_.mp3" } 1 .. 5;

my $node = new_server('crash', start => 0);
my $dir = upload_dir($node);
start_with_faults($node);
claim_directory($node, @wanted);

my $round = 0;

# Fresh files; returns what violations() wants to know.
sub make_files
{
	my (%wanted, %unwanted);

	$round++;
	empty_directory($dir);
	$wanted{$_} = put_file($dir, $_) foreach @wanted;
	foreach my $i (1 .. $n)
	{
		my $name = sprintf '%s/r%d-%02d.mp3', $i % 2 ? 'odd' : 'even', $round, $i;
		$unwanted{$name} = put_file($dir, $name);
	}
	return { wanted => \%wanted, unwanted => \%unwanted };
}

# The next run, and the end of everything.
sub finish_and_check
{
	my ($name, $files) = @_;

	clear_fault($node);
	$node->safe_psql('postgres', 'SELECT cleanup_all()');
	ok(wait_for_drain($node), "$name: the next run drains");
	is_deeply(violations($node, $dir, { %$files, final => 1 }), [], "$name: then all is well");
	is_deeply(visible_files($dir), $files->{wanted}, "$name: the orphans are gone");
	return;
}

# [where, fault, rows recorded as trashed at that time, statement]
my $all = 'SELECT cleanup_all()';
foreach my $case (
	[ 'at the first rename', 'renameat2 kill 1' ],
	[ 'after the first rename', 'renameat2 killafter 1' ],
	[ 'in the middle of renaming', "renameat2 kill " . $n / 2 ],
	[ 'at the last rename', "renameat2 kill $n" ],
	[ 'after the last rename', "renameat2 killafter $n" ],
	[ 'when the trash is made', 'mkdirat kill 2' ],
	[ 'in the worker, at the first fsync', 'fsync kill 1' ],
	[ 'in the worker, at the last fsync before recording', 'fsync kill 3' ],
	[ 'in the worker, trashed but not destroyed', 'unlinkat kill 1', $n ],
	[ 'in the worker, in the middle of destroying', 'unlinkat killafter ' . $n / 2, $n ],
	[ 'in the worker, all destroyed but not recorded', "unlinkat killafter $n", $n ],
	[ 'in the worker, while it tidies', 'rmdir kill 1' ],
	[ 'in cleanup_run(), in the middle of renaming', 'renameat2 kill ' . $n / 2, undef, 'CALL cleanup_run()' ],
	[ 'in cleanup_run(), in the middle of destroying', 'unlinkat kill ' . $n / 2, $n, 'CALL cleanup_run()' ])
{
	my ($name, $fault, $trashed, $statement) = @$case;
	my $files = make_files();
	my $position = log_position($node);
	my $run;

	set_fault($node, $fault);
	$node->psql('postgres', $statement || $all);
	ok(wait_for_crash($node, $position), "killed $name");
	is_deeply(violations($node, $dir, $files), [], "$name: every file is accounted for");
	$run = $node->safe_psql('postgres', 'SELECT max(run_id) FROM cleanup_runs');
	is($node->safe_psql('postgres',
			"SELECT count(*) FROM cleanup_files f WHERE run_id = $run AND " . state_sql() . " = 'trashed'"),
		$trashed, "$name: the rows say how far it came") if defined $trashed;
	finish_and_check($name, $files);
	is($node->safe_psql('postgres', "SELECT status FROM cleanup_runs WHERE run_id = $run"), 'interrupted',
		"$name: that run is told from a complete one") if $statement;
}

# ---- before the directory has a claim ----

foreach my $fault ('mkdirat kill 1', 'mkdirat killafter 1', 'renameat2 kill 1', 'renameat2 killafter 1', 'fsync kill 1')
{
	my $position = log_position($node);
	my $files;

	rename $dir, "$dir.old$round" or die $!;
	mkdir $dir or die $!;
	$node->safe_psql('postgres', 'DROP EXTENSION audio_cleanup; CREATE EXTENSION audio_cleanup;'
		  . q{SELECT cleanup_add_source('sessions')});
	$files = make_files();
	set_fault($node, $fault);
	$node->psql('postgres', $all);
	ok(wait_for_crash($node, $position), "first run in a directory, killed by $fault");
	is_deeply(violations($node, $dir, $files), [], "first run, $fault: every file is accounted for");
	finish_and_check("first run, $fault", $files);
}

# ---- the whole server, at once ----

foreach my $case (
	[ 'while the worker is about to record', 'fsync hold 1' ],
	[ 'while the worker is destroying', 'unlinkat hold ' . $n / 2 ],
	[ 'while the backend is renaming', 'renameat2 hold ' . $n / 2 ])
{
	my ($name, $fault) = @$case;
	my $files = make_files();
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	set_fault($node, $fault);
	$session->query_until(qr/^begun$/m, "\\echo begun\n$all;\n");
	ok(wait_until(sub { fault_fired($node) }), "held $name");
	$node->stop('immediate');
	$session->{run}->finish;
	clear_fault($node);
	start_with_faults($node);
	is_deeply(violations($node, $dir, $files), [],
		"immediate shutdown $name: every file is accounted for");
	finish_and_check("immediate shutdown $name", $files);
}

# ---- the world has moved on before the drain ----

{
	my $files = make_files();
	my $position = log_position($node);
	my ($saved) = sort keys %{ $files->{unwanted} };

	set_fault($node, 'renameat2 kill 1');
	$node->psql('postgres', $all);
	ok(wait_for_crash($node, $position), 'killed between commit and capture');
	is($node->safe_psql('postgres', "SELECT count(*) FROM cleanup_files WHERE state = 'pending'"), $n,
		'the rows are committed');
	is(scalar keys %{ visible_files($dir) }, $n + @wanted, 'no file was touched');

	$node->safe_psql('postgres', "INSERT INTO sessions (audio_url) VALUES ('$saved')");
	$files->{wanted}{$saved} = delete $files->{unwanted}{$saved};
	finish_and_check('referred to again', $files);
	is($node->safe_psql('postgres', "SELECT state, error FROM cleanup_files WHERE file = '$saved'"),
		'skipped|it is referred to again', 'the row says why the file lives');
	$node->safe_psql('postgres', "DELETE FROM sessions WHERE audio_url = '$saved'");
}

{
	my $files = make_files();
	my $position = log_position($node);
	my ($replaced, $removed) = sort keys %{ $files->{unwanted} };

	set_fault($node, 'renameat2 kill 1');
	$node->psql('postgres', $all);
	ok(wait_for_crash($node, $position), 'killed between commit and capture');

	# another file takes the name of one, another one vanishes
	unlink "$dir/$replaced", "$dir/$removed";
	put_file($dir, "$replaced.new", content => 'a new recording', hours => 0);
	rename "$dir/$replaced.new", "$dir/$replaced" or die $!;
	delete $files->{unwanted}{$removed};
	delete $files->{unwanted}{$replaced};
	$files->{wanted}{$replaced} = 'a new recording';
	finish_and_check('replaced and vanished', $files);
	is($node->safe_psql('postgres',
			"SELECT state, error FROM cleanup_files WHERE file IN ('$replaced', '$removed') ORDER BY file"),
		"skipped|it was replaced or changed\nskipped|it vanished before it was captured",
		'the rows say what happened');
}

$node->stop;
is(log_lines($node, qr/PANIC:|signal 11|signal 6/), '', 'nothing but what we killed has died');
done_testing();
