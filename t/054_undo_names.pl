# Undo with names: taken ones, hostile ones, ones that cannot be written; and with
# rows that were edited.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;
use Undo;

start_round_one('undo_names');

# ---- a name that is in use again ----

# a row refers to the file that has the name now: its older backups wait for their day in silence
{
	my ($run, @names) = back_up(1);
	my ($due, $position, $second);

	$all{"$names[0]"} = put_file($dir, $names[0], content => 'the second');
	sql('SELECT cleanup_all()');
	wait_for_drain($node);
	$second = sql('SELECT max(run_id) FROM cleanup_runs');
	put_file($dir, $names[0], content => 'the third');
	add_rows($node, $names[0]);
	$due = sql("SELECT string_agg(due_at::text, ' ' ORDER BY run_id) FROM cleanup_files WHERE file = '$names[0]'");
	$position = log_position($node);
	sql('SELECT cleanup_all()'), wait_for_drain($node) foreach 1 .. 3;
	is(read_file("$dir/$names[0]"), 'the third', 'a name in use again: the file stays');
	is(sql("SELECT string_agg(due_at::text, ' ' ORDER BY run_id) FROM cleanup_files WHERE file = '$names[0]'"), $due,
		'the backups do not live longer because of it');
	unlike(log_since($node, $position), qr/WARNING/, 'and nobody is told every night');

	# and when it has gone, the newest is wanted
	unlink "$dir/$names[0]" or die $!;
	sql('SELECT cleanup_purge_backups()');
	wait_for_drain($node);
	is(read_file("$dir/$names[0]"), 'the second', 'the newest backup takes its place');
	is(sql("SELECT state FROM cleanup_files WHERE run_id = $run"), 'trashed', 'and not the older one');
	sql("DELETE FROM sessions WHERE audio_url = '$names[0]'");
}

# numbers of rows are handed out to sessions by the hundred: they do not tell which backup is the newest
{
	my $first = $node->background_psql('postgres');
	my $second = $node->background_psql('postgres');

	$round++;
	foreach my $case ([ $first, 'zero' ], [ $second, 'one' ], [ $first, 'two' ])
	{
		my ($session, $content) = @$case;
		put_file($dir, "r$round/x.mp3", content => $content);
		$session->query_safe('SELECT cleanup_all();');
		wait_for_drain($node);
	}
	$_->quit foreach $first, $second;
	is(sql("SELECT count(*) FROM cleanup_files WHERE file = 'r$round/x.mp3' AND state = 'trashed'"), 3, 'three backups of one name');
	foreach my $content ('two', 'one', 'zero')
	{
		sql("SELECT cleanup_restore('r$round/x.mp3', 'r$round/$content.mp3')");
		wait_for_drain($node);
		is(read_file("$dir/r$round/$content.mp3"), $content, "the newest is restored: $content");
	}
}

# ---- names ----

{
	my ($run, @names) = back_up(1);

	mkdir "$dir/r$round/folder" or die $!;
	mkdir "$dir/elsewhere" or die $!;
	symlink "$dir/elsewhere", "$dir/r$round/link" or die $!;
	symlink "$dir/nowhere.mp3", "$dir/r$round/dangling.mp3" or die $!;
	refused("as '$_->[0]'", "SELECT cleanup_restore('$names[0]', '$_->[0]')", $_->[1]) foreach (
		[ '../x.mp3', qr/is not below the upload directory/ ], [ 'a/../../x.mp3', qr/is not below/ ],
		[ '/etc/x.mp3', qr/is not below/ ], [ '', qr/must have 1 to/ ], [ '/', qr/is not below/ ], [ '.', qr/must have 1 to/ ],
		[ 'x' x 5000, qr/must have 1 to/ ]);
	foreach my $as (".audio_cleanup/claim", "./.audio_cleanup//claim", ".audio_cleanup", "r$round/folder", "r$round/link/x.mp3",
		"r$round/dangling.mp3", "wanted.mp3", "wanted.mp3/x.mp3", 'y' x 300)
	{
		my ($rc, $out, $err) = $node->psql('postgres', "SELECT cleanup_restore('$names[0]', '$as')");
		ok(wait_for_drain($node), 'drained');
		is_deeply(in_trash(), \@names, 'as ' . substr($as, 0, 30) . ': the backup stays');
		is(states(), 'trashed|1', 'and its row') or diag "as $as: $out$err";
	}
	is(read_file("$dir/wanted.mp3"), "audio of wanted.mp3\n", 'nothing was overwritten');
	is_deeply([ glob "$dir/elsewhere/*" ], [], 'nor put beyond a symbolic link');
	ok(!-e "$dir/nowhere.mp3" && -l "$dir/r$round/dangling.mp3", 'nor through one');
	rmdir "$dir/elsewhere";
	sql("SELECT cleanup_restore('$names[0]', 'r$round/new \"line'' [1].mp3')");
	ok(wait_for_drain($node), 'drained');
	is(read_file("$dir/r$round/new \"line' [1].mp3"), $all{ $names[0] }, 'a name may have strange letters');
}

# something is in the way of the put-back, or permissions are taken away
{
	my ($run, @names) = back_up();

	rmdir "$dir/r$round";
	mkdir "$dir/elsewhere";
	symlink "$dir/elsewhere", "$dir/r$round" or die $!;
	$node->psql('postgres', "SELECT cleanup_restore($run)");
	ok(wait_for_drain($node), 'drained');
	is_deeply([ glob "$dir/elsewhere/*" ], [], 'a symbolic link in the place of a folder is not followed');
	is_deeply([in_trash(), states()], [\@names, 'trashed|2'], 'the backups stay');
	unlink "$dir/r$round" or die $!;
	mkdir "$dir/r$round" or die $!;
	chmod 0555, "$dir/r$round" or die $!;
	$node->psql('postgres', "SELECT cleanup_restore($run)");
	ok(wait_for_drain($node), 'drained');
	is_deeply([in_trash(), states()], [\@names, 'trashed|2'], 'so they do if the folder cannot be written to');
	chmod 0755, "$dir/r$round" or die $!;
	sql("SELECT cleanup_restore($run)");
	drained('mended');
	is(states(), 'restored|2', 'and can be restored when that is mended');
	rmdir "$dir/elsewhere";
}

# How many runs were interrupted, and how many such files were put back or not, as the counters say.
sub counted
{
	return split / /, sql(q{SELECT concat_ws(' ', sum(value) FILTER (WHERE name = 'runs'), sum(value) FILTER (WHERE name = 'files_restored'),
		sum(value) FILTER (WHERE name = 'files_failed')) FROM (VALUES ('runs', 'interrupted'), ('files_restored', 'unknown'), ('files_failed', 'unknown')) v(name, label)
		LEFT JOIN LATERAL (SELECT coalesce(sum(value), 0) AS value FROM cleanup_totals t WHERE t.name = v.name AND t.label = v.label) t ON true});
}

# names that the database cannot write, in the trash of a run that it does not know
{
	my $trash = "$dir/.audio_cleanup/trash";
	my $lost = sql(q{SELECT nextval('cleanup_runs_run_id_seq') + 7});
	my $next;

	my @before = counted();

	mkdir $trash, 0700;
	mkdir "$trash/$lost", 0700 or die $!;
	put_file("$trash/$lost", $_, content => "stray $_") foreach "bad\xff.mp3", "taken\xfe.mp3", 'good.mp3', '$(x).mp3';
	put_file($dir, "taken\xfe.mp3", content => 'taken');
	sql('SELECT cleanup_purge_backups()');
	wait_for_drain($node);
	is(read_file("$dir/bad\xff.mp3"), "stray bad\xff.mp3", 'a stray of an unreadable name goes back');
	is(read_file("$dir/good.mp3"), 'stray good.mp3', 'others as well');
	is(read_file("$dir/taken\xfe.mp3"), 'taken', 'unless the name is taken');
	is(read_file("$trash/$lost/taken\xfe.mp3"), "stray taken\xfe.mp3", 'then it stays');
	is(sql("SELECT string_agg(file || ' ' || state, ', ' ORDER BY file) FROM cleanup_files WHERE run_id = $lost"),
		'$(x).mp3 restored, bad\xFF.mp3 restored, good.mp3 restored, taken\xFE.mp3 failed', 'they have rows, escaped');
	cmp_ok(sql(q{SELECT nextval('cleanup_runs_run_id_seq')}), '>', $lost, 'and the number is taken');
	my @after = counted();
	is_deeply([ map { $after[$_] - $before[$_] } 0 .. 2 ], [ 1, 3, 1 ], 'the run and each of them are counted');
	unlink "$trash/$lost/taken\xfe.mp3", "$dir/taken\xfe.mp3", "$dir/bad\xff.mp3";
}

# a sequence that was set far ahead and not used is not set back
{
	my $trash = "$dir/.audio_cleanup/trash";
	my $lost = sql(q{SELECT nextval('cleanup_runs_run_id_seq') + 2});

	sql("SELECT setval('cleanup_runs_run_id_seq', $lost + 100, false)");
	mkdir $trash, 0700;
	mkdir "$trash/$lost", 0700 or die $!;
	put_file("$trash/$lost", 'ahead.mp3');
	sql('SELECT cleanup_purge_backups()');
	is(sql(q{SELECT nextval('cleanup_runs_run_id_seq')}), $lost + 100, 'the sequence goes forward only');
}

# ---- rows that somebody edits ----

{
	my ($run, @names) = back_up();

	sql("UPDATE cleanup_files SET file = '../../outside.mp3' WHERE file = '$names[0]'");
	$node->psql('postgres', "SELECT cleanup_restore($run)");
	ok(wait_for_drain($node), 'drained');
	ok(!-e "$dir/../../outside.mp3", 'a row does not lead out of the directory');
	sql("UPDATE cleanup_files SET file = '$names[0]', restore_as = '../x.mp3', state = 'restoring' WHERE file = '../../outside.mp3'");
	sql('SELECT cleanup_purge_backups()');
	$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain'});
	ok(!-e "$dir/../x.mp3", 'nor does its restore_as');
	is_deeply(in_trash(), [ $names[0] ], 'the backup stays');
	sql("UPDATE cleanup_files SET restore_as = NULL, state = 'trashed', inode = 1 WHERE file = '$names[0]'");
	$node->psql('postgres', "SELECT cleanup_restore('$names[0]')");
	wait_for_drain($node);
	is(read_file("$dir/$names[0]"), $all{ $names[0] }, 'a file of another identity than its row tells of goes back to its place');

	($run, @names) = back_up();
	sql("DELETE FROM cleanup_files WHERE run_id = $run; DELETE FROM cleanup_runs WHERE run_id = $run; SELECT cleanup_purge_backups()");
	wait_for_drain($node);
	is(read_file("$dir/$names[0]"), $all{ $names[0] }, 'and a file without a row goes back');
}

end_of_rounds();
