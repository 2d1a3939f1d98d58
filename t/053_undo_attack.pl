# Somebody wants a wanted file to be lost, or the server to fall, and has
# transactions, a second session, and a slow or a failing disk to do it with.

use strict;
use warnings;

use Errno qw(EIO);
use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;
use Undo;

start_round_one('undo_attack');

# ---- transactions ----

{
	my ($run, @names) = back_up();

	sql("BEGIN; SELECT cleanup_restore($run); ROLLBACK;");
	is(states(), 'trashed|2', 'ROLLBACK of a restore: the rows');
	is_deeply(in_trash(), \@names, 'and the files stay where they were');

	sql("BEGIN; SELECT cleanup_restore('$names[0]'); SAVEPOINT s; SELECT cleanup_restore('$names[1]');",
		'ROLLBACK TO s; COMMIT;');
	ok(wait_for_drain($node), 'drained');
	is(states(), "restored|1\ntrashed|1", 'ROLLBACK TO SAVEPOINT keeps what was before');
	is_deeply(in_trash(), [ $names[1] ], 'of the files too');
	drained('savepoint');
}

# a restore, and something that drains, in the same transaction
foreach my $then ('SELECT cleanup_purge_backups()', 'SELECT cleanup_all()')
{
	my ($run, @names) = back_up();

	sql("BEGIN; SELECT cleanup_restore($run); $then; ROLLBACK;");
	is(states(), 'trashed|2', "restore, $then, ROLLBACK: the rows");
	is_deeply(in_trash(), \@names, "restore, $then, ROLLBACK: the files");
	sql("BEGIN; SELECT cleanup_restore($run); $then; COMMIT;");
	drained("restore, $then, COMMIT");
	is(states(), 'restored|2', "restore, $then, COMMIT: they are back");
	is(read_file("$dir/$names[0]"), $all{ $names[0] }, 'indeed');
}

# a run, and its restore, in the same transaction: the commit of the one would undo the other
{
	my ($run, @names) = back_up();

	$round++;
	$all{"r$round/$_.mp3"} = put_file($dir, "r$round/$_.mp3") foreach 1, 2;
	refused('run and restore in one', 'BEGIN; SELECT cleanup_all(); SELECT cleanup_restore(max(run_id)) FROM cleanup_runs; COMMIT;',
		qr/the commit of this transaction will clean or purge files of run \d+.*HINT/s);
	is(states(), '', 'run and restore in one: nothing has happened');
	sql('BEGIN; SAVEPOINT s; SELECT cleanup_all(); ROLLBACK TO s; SELECT cleanup_restore(max(run_id)) FROM cleanup_runs; COMMIT;');
	drained('rolled back and restored');
	is(read_file("$dir/r$round/1.mp3"), $all{"r$round/1.mp3"}, 'what was rolled back, was not condemned');
	is(read_file("$dir/$names[0]"), $all{ $names[0] }, 'and the earlier run was restored');

	($run, @names) = back_up();
	sql("UPDATE cleanup_files SET due_at = now() WHERE run_id = $run");
	refused('purge and restore in one', "BEGIN; SELECT cleanup_purge_backups(); SELECT cleanup_restore($run); COMMIT;",
		qr/the commit of this transaction will clean or purge files of run \d+/);
	sql("SELECT cleanup_restore($run)");
	drained('due and restored');
	is(states(), 'restored|2', 'what is due can be restored as long as it is there');
}

# two-phase commit
foreach my $end ('COMMIT', 'ROLLBACK')
{
	my ($run, @names) = back_up();

	sql("BEGIN; SELECT cleanup_restore($run); PREPARE TRANSACTION 'undo';");
	is_deeply(in_trash(), \@names, "PREPARE, $end: nothing has happened");
	refused("PREPARE, $end", 'SELECT cleanup_purge_backups()', qr/ERROR:.*another cleanup/);
	sql("$end PREPARED 'undo'");
	drained("$end PREPARED of a restore");
	is(states(), $end eq 'COMMIT' ? 'restored|2' : 'trashed|2', "$end PREPARED: the rows");

	($run, @names) = back_up();
	sql("UPDATE cleanup_files SET due_at = now() WHERE run_id = $run");
	sql("BEGIN; SELECT cleanup_purge_backups(); PREPARE TRANSACTION 'undo';");
	is_deeply(in_trash(), \@names, "PREPARE of a purge, $end: nothing has happened");
	sql("$end PREPARED 'undo'");
	drained("$end PREPARED of a purge");
	is(states(), 'deleted|2', "$end PREPARED of a purge: what is due is due");
}

# an exception block
{
	my ($run, @names) = back_up();

	sql(qq{DO \$\$ BEGIN
		PERFORM cleanup_restore($run);
		RAISE EXCEPTION 'no';
	EXCEPTION WHEN raise_exception THEN NULL; END \$\$});
	is(states(), 'trashed|2', 'a restore in a block that failed has not been');
	is_deeply(in_trash(), \@names, 'nor have files moved');
	sql(qq{DO \$\$ BEGIN FOR i IN 1 .. 50 LOOP
		BEGIN PERFORM cleanup_restore('$names[0]'); RAISE EXCEPTION 'no'; EXCEPTION WHEN raise_exception THEN NULL; END;
	END LOOP; PERFORM cleanup_restore('$names[0]'); END \$\$});
	drained('exception block');
	is(states(), "restored|1\ntrashed|1", 'the one that did not fail counts');
}

# the extension is dropped in the same transaction
{
	my ($run, @names) = back_up();

	sql("BEGIN; SELECT cleanup_restore($run); DROP EXTENSION audio_cleanup; ROLLBACK;");
	is(states(), 'trashed|2', 'DROP EXTENSION, ROLLBACK');
	refused('REPEATABLE READ', "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT cleanup_restore($run);", qr/REPEATABLE READ/);
	refused('READ ONLY', "BEGIN READ ONLY; SELECT cleanup_restore($run);", qr/read-only/);
	refused('READ ONLY purge', 'BEGIN READ ONLY; SELECT cleanup_purge_backups();', qr/read-only/);
	refused('READ ONLY hold', "BEGIN READ ONLY; SELECT cleanup_hold('x.mp3');", qr/read-only/);
	drained('refused');
}

# ---- two sessions ----

{
	my ($run, @names) = back_up();
	my $first = $node->background_psql('postgres');
	my ($rc, $out, $err);

	$first->query_safe("BEGIN; SELECT cleanup_restore('$names[0]');");
	refused('two sessions', "SELECT cleanup_restore('$names[0]')", qr/another cleanup run is under way/);
	refused('a run meanwhile', 'SELECT cleanup_all()', qr/another cleanup run is under way/);
	$first->query_safe('COMMIT;');
	$first->quit;
	ok(wait_for_drain($node), 'drained');
	is(sql_json($node, "SELECT cleanup_restore($run)")->{result}{files_count}, 1, 'a second restore takes the rest');
	is(sql_json($node, "SELECT cleanup_restore($run)")->{result}{files_count}, 0, 'a third nothing');
	drained('two sessions');
	is(states(), 'restored|2', 'both are back');
}

# the name is taken between the call and the commit
{
	my ($run, @names) = back_up();
	my $session = $node->background_psql('postgres');

	$session->query_safe("BEGIN; SELECT cleanup_restore('$names[0]');");
	put_file($dir, $names[0], content => 'somebody else');
	$session->query_safe('COMMIT;');
	$session->quit;
	ok(wait_for_drain($node), 'drained');
	is(read_file("$dir/$names[0]"), 'somebody else', 'a name that was taken meanwhile is not overwritten');
	is(states(), 'trashed|2', 'and the backup stays');
	like(sql("SELECT error FROM cleanup_files WHERE run_id = $run AND file = '$names[0]'"), qr/its name is taken.*restore_as/, 'the row says so');
	like(sql_json($node, "SELECT cleanup_restore('$names[0]')")->{result}{errors}[0], qr/is taken/, 'a second call at once');
	is(sql_json($node, "SELECT cleanup_restore('$names[0]', 'r$round/again.mp3')")->{result}{files_count}, 1, 'another name is free');
	drained('name taken', as => { $names[0] => "r$round/again.mp3" });
	is(read_file("$dir/r$round/again.mp3"), $all{ $names[0] }, 'there it is');
}

# ---- a file that is being destroyed ----

# the worker has looked for the last time, and takes its time to destroy
foreach my $rescue ('restore', 'restore_as', 'hold')
{
	my ($run, @names) = back_up(30);
	# of this round, the one that is destroyed last
	my $wanted = sql("SELECT file FROM cleanup_files WHERE run_id = $run AND file LIKE 'r$round/%' ORDER BY file_id DESC LIMIT 1");

	$node->append_conf('postgresql.conf', "audio_cleanup.files_per_second = 4\n") if $rescue eq 'restore';
	sql('SELECT pg_reload_conf()');
	sql("UPDATE cleanup_runs SET settings = settings || '{\"files_per_second\": 4}' WHERE run_id = $run",
		"UPDATE cleanup_files SET due_at = now() WHERE run_id = $run");
	sql('SELECT cleanup_purge_backups()');
	ok($node->poll_query_until('postgres', "SELECT count(*) > 3 FROM cleanup_files WHERE run_id = $run AND state = 'deleted'"),
		"$rescue: the worker is destroying slowly");
	sql($rescue eq 'restore' ? "SELECT cleanup_restore('$wanted')" :
		  $rescue eq 'hold' ? "SELECT cleanup_hold('$wanted')" : "SELECT cleanup_restore('$wanted', 'r$round/saved.mp3')");
	ok(wait_for_drain($node), "$rescue: drained");
	is(read_file($rescue eq 'restore_as' ? "$dir/r$round/saved.mp3" : "$dir/$wanted"), $all{$wanted}, "$rescue: the file is saved");
	drained("$rescue while it is destroyed", as => { $wanted => "r$round/saved.mp3" });
	is(sql("SELECT state FROM cleanup_files WHERE run_id = $run AND file = '$wanted'"), 'restored', "$rescue: and its row says so");
}
$node->append_conf('postgresql.conf', "audio_cleanup.files_per_second = 0\n");
sql('SELECT pg_reload_conf()');

# destroyed, but the server was killed before that was recorded
{
	my ($run, @names) = back_up();
	my $position = log_position($node);

	sql("UPDATE cleanup_files SET due_at = now() WHERE run_id = $run");
	# only that name counts: other files of our own are unlinked, too
	my $last = sql("SELECT substring(file from '[^/]*\$') FROM cleanup_files WHERE run_id = $run ORDER BY file_id DESC LIMIT 1");
	set_fault($node, "unlinkat killafter 1 0 $last");
	$node->psql('postgres', 'SELECT cleanup_purge_backups()');
	ok(comes_back_after($node, $position), 'killed');
	clear_fault($node);
	my $answer = sql_json($node, "SELECT cleanup_restore($run)");
	is($answer->{result}{files_count}, 0, 'what is destroyed cannot be restored');
	drained('destroyed');
	is(states(), 'deleted|2', 'and is recorded as deleted, not as failed');
}

# ---- what is recorded is durable ----

{
	my ($run, @names) = back_up();
	my $position = log_position($node);

	set_fault($node, 'renameat2 killafter 2');
	$node->psql('postgres', "SELECT cleanup_restore($run)");
	ok(comes_back_after($node, $position), 'killed when all is back');
	is(states(), 'restoring|2', 'nothing is recorded');
	set_fault($node, 'fsync errno 0 ' . EIO);
	refused('fsync', 'SELECT cleanup_purge_backups()', qr/could not fsync/);
	$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain'});
	is(states(), 'restoring|2', 'nor is it before the directory is on disk');
	drained('fsync', clear_fault($node));
	is(states(), 'restored|2', 'then it is');
}

end_of_rounds();
