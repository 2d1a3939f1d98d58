# Killed at any point of a backup, a restore, a purge or a heal, the server
# comes back to a state in which every file is in exactly one of its place, the
# backup, or a row that says that it is deleted; and the next drain finishes it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $n = 6;

my $node = new_server('undo_crash', start => 0, conf => <<'END');
audio_cleanup.backup_retention_days = 3
audio_cleanup.max_delete_percent = 100
END
my $dir = upload_dir($node);
start_with_faults($node);
claim_directory($node, 'wanted.mp3');

my $round = 0;

sub make_files
{
	my %files;

	$round++;
	put_file($dir, 'wanted.mp3');
	foreach my $i (1 .. $n)
	{
		my $name = sprintf 'r%d/%s/%02d.mp3', $round, $i % 2 ? 'odd' : 'even', $i;
		$files{$name} = put_file($dir, $name);
	}
	return \%files;
}

sub last_run
{
	return $node->safe_psql('postgres', 'SELECT max(run_id) FROM cleanup_runs');
}

sub states
{
	return $node->safe_psql('postgres',
		"SELECT state, count(*) FROM cleanup_files WHERE file LIKE 'r$round/%' GROUP BY 1 ORDER BY 1");
}

# Files, all of them in the trash of one run; and its number.
sub back_up
{
	my $files = make_files();

	$node->safe_psql('postgres', 'SELECT cleanup_all()');
	wait_for_drain($node) or die 'no drain';
	states() eq "trashed|$n" or die states();
	# their folders are to be made again
	rmdir "$dir/r$round/$_" foreach 'odd', 'even', '';
	return ($files, last_run());
}

# [statement, files, number of the run, and as => {...}] of an operation that is about to be killed
my %operations = (
	backup => sub {
		return ('SELECT cleanup_all()', make_files());
	},
	restore => sub {
		my ($files, $run) = back_up();
		return ("SELECT cleanup_restore($run)", $files);
	},
	'restore of one file' => sub {
		my ($files) = back_up();
		return ("SELECT cleanup_restore('r$round/odd/01.mp3')", $files);
	},
	'restore as' => sub {
		my ($files) = back_up();
		return ("SELECT cleanup_restore('r$round/odd/01.mp3', 'r$round/new/again.mp3')", $files,
			{ "r$round/odd/01.mp3" => "r$round/new/again.mp3" });
	},
	purge => sub {
		my ($files) = back_up();
		$node->safe_psql('postgres', "UPDATE cleanup_files SET due_at = now() WHERE file LIKE 'r$round/%'");
		return ('SELECT cleanup_purge_backups()', $files);
	},
	heal => sub {
		my ($files) = back_up();
		add_rows($node, sort keys %$files);
		return ('SELECT cleanup_purge_backups()', $files);
	},
	'heal of what is due' => sub {
		my ($files) = back_up();
		add_rows($node, sort keys %$files);
		$node->safe_psql('postgres', "UPDATE cleanup_files SET due_at = now() WHERE file LIKE 'r$round/%'");
		return ('SELECT cleanup_purge_backups()', $files);
	},
	'heal before a run' => sub {
		my ($files) = back_up();
		add_rows($node, sort keys %$files);
		return ('CALL cleanup_run()', $files);
	},
	# its run is forgotten
	'heal of strays' => sub {
		my ($files, $run) = back_up();
		$node->safe_psql('postgres', "DELETE FROM cleanup_files WHERE run_id = $run; DELETE FROM cleanup_runs WHERE run_id = $run");
		return ('SELECT cleanup_purge_backups()', $files);
	});

my %end = (
	backup => "trashed|$n",
	restore => "restored|$n",
	'restore of one file' => 'restored|1' . "\ntrashed|" . ($n - 1),
	'restore as' => 'restored|1' . "\ntrashed|" . ($n - 1),
	purge => "deleted|$n",
	heal => "restored|$n",
	'heal of what is due' => "restored|$n",
	'heal before a run' => "restored|$n");

sub finish_and_check
{
	my ($name, $operation, $expected, $rolled_back) = @_;

	clear_fault($node);
	$node->safe_psql('postgres', 'SELECT cleanup_purge_backups()');
	ok(wait_for_drain($node), "$name: the next call drains");
	is_deeply(undo_violations($node, $dir, { %$expected, final => 1 }), [], "$name: then all is well");
	is(states(), $end{$operation}, "$name: the rows say so") if defined $end{$operation} && !$rolled_back;
	return;
}

foreach my $case (
	[ 'backup', 'renameat2 kill 1' ],
	[ 'backup', "renameat2 killafter $n" ],
	[ 'backup', 'mkdirat kill 3' ],
	[ 'backup', 'fsync kill 1' ],
	[ 'backup', 'fsync killafter 2' ],
	[ 'restore', 'renameat2 kill 1' ],
	[ 'restore', 'renameat2 killafter 1' ],
	[ 'restore', 'renameat2 kill ' . $n / 2 ],
	[ 'restore', "renameat2 killafter $n" ],
	[ 'restore', 'mkdirat kill 1' ],
	[ 'restore', 'mkdirat killafter 2' ],
	[ 'restore', 'fsync kill 1', 'rolled back' ],
	[ 'restore', 'rmdir kill 1' ],
	[ 'restore of one file', 'renameat2 kill 1' ],
	[ 'restore of one file', 'renameat2 killafter 1' ],
	[ 'restore as', 'renameat2 kill 1' ],
	[ 'restore as', 'renameat2 killafter 1' ],
	[ 'restore as', 'mkdirat killafter 2' ],
	[ 'purge', 'unlinkat kill 1' ],
	[ 'purge', 'unlinkat killafter 1' ],
	[ 'purge', 'unlinkat kill ' . $n / 2 ],
	[ 'purge', "unlinkat killafter $n" ],
	[ 'purge', 'fsync kill 1' ],
	[ 'purge', 'rmdir kill 1' ],
	[ 'heal', 'renameat2 kill 1' ],
	[ 'heal', 'renameat2 killafter ' . $n / 2 ],
	[ 'heal', 'fsync kill 1' ],
	[ 'heal of what is due', 'renameat2 killafter ' . $n / 2, 'rolled back' ],
	[ 'heal before a run', 'renameat2 kill ' . $n / 2 ],
	[ 'heal of strays', 'renameat2 kill 1' ],
	[ 'heal of strays', 'renameat2 killafter ' . $n / 2 ],
	[ 'heal of strays', "renameat2 killafter $n" ])
{
	my ($operation, $fault, $rolled_back) = @$case;
	my ($statement, $files, $as) = $operations{$operation}->();
	my $position = log_position($node);
	my $name = "$operation, $fault";
	my $expected = { files => { %$files, 'wanted.mp3' => read_file("$dir/wanted.mp3") }, as => $as };

	set_fault($node, $fault);
	$node->psql('postgres', $statement);
	ok(wait_for_crash($node, $position), "killed: $name");
	is_deeply(undo_violations($node, $dir, $expected), [], "$name: every file is accounted for")
	  unless $operation eq 'heal of strays';
	finish_and_check($name, $operation, $expected, $rolled_back);
}

# ---- the whole server, at once ----

foreach my $case (
	[ 'restore', 'renameat2 hold ' . $n / 2 ],
	[ 'restore', 'fsync hold 1', 'rolled back' ],
	[ 'purge', 'unlinkat hold ' . $n / 2 ],
	[ 'heal', 'renameat2 hold ' . $n / 2 ])
{
	my ($operation, $fault, $rolled_back) = @$case;
	my ($statement, $files, $as) = $operations{$operation}->();
	my $name = "$operation, immediate shutdown at $fault";
	my $expected = { files => $files, as => $as };
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	set_fault($node, $fault);
	$session->query_until(qr/^begun$/m, "\\echo begun\n$statement;\n");
	ok(wait_until(sub { fault_fired($node) }), "held: $name");
	$node->stop('immediate');
	$session->{run}->finish;
	clear_fault($node);
	start_with_faults($node);
	is_deeply(undo_violations($node, $dir, $expected), [], "$name: every file is accounted for");
	finish_and_check($name, $operation, $expected, $rolled_back);
}

$node->stop;
is(log_lines($node, qr/PANIC:|signal 11|signal 6/), '', 'nothing but what we killed has died');
done_testing();
