# Undo with the columns of failed sessions, holds, and patience: nothing is
# lost, nothing is said to be done that is not, nothing leaks.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;
use Undo;

start_round_one('undo_sessions');

# ---- columns that were cleared ----

sql(q{CREATE EXTENSION citext; CREATE DOMAIN audio_name AS text CHECK (VALUE ~ 'mp3$');
	CREATE TABLE talks (id int PRIMARY KEY, status text, failed_at timestamp, file_char char(40), file_varchar varchar(40),
		file_citext citext, file_domain audio_name, note text);
	SELECT cleanup_add_source('talks', '{file_char,file_varchar,file_citext,file_domain}', 'id', 'status',
		'{failed}', 'failed_at', 'UTC', 'clear')});

my $row = q{SELECT to_jsonb(t) - 'id' FROM talks t WHERE id = };

# A failed session with a file for each kind of column; returns the run that has cleared it.
sub fail_session
{
	my ($id) = @_;

	$round++;
	$all{"r$round/$_.mp3"} = put_file($dir, "r$round/$_.mp3", hours => 240) foreach 'c', 'v', 'ci', 'd';
	sql(qq{INSERT INTO talks VALUES ($id, 'failed', now() - interval '9 days', 'r$round/c.mp3', 'r$round/v.mp3',
		'r$round/ci.mp3', 'r$round/d.mp3', 'it''s')});
	my $before = sql("$row $id");
	sql('SELECT cleanup_all()');
	wait_for_drain($node);
	return (sql('SELECT max(run_id) FROM cleanup_runs'), $before);
}

{
	my ($run, $before) = fail_session(1);
	my $answer;

	like(sql("$row 1"), qr/"file_char": null.*"file_citext": null/, 'columns are cleared');
	sql("SELECT cleanup_restore($run)");
	wait_for_drain($node);
	is(sql("$row 1"), $before, 'columns of any type come back as they were');
	is(sql("SELECT count(*) FROM cleanup_cleared WHERE run_id = $run"), 0, 'and are forgotten');

	# what somebody has written meanwhile stays
	($run, $before) = fail_session(2);
	sql("UPDATE talks SET file_varchar = 'new.mp3' WHERE id = 2");
	sql("SELECT cleanup_restore($run)");
	wait_for_drain($node);
	like(sql("$row 2"), qr/"file_char": "r$round.*"file_varchar": "new.mp3"/, 'a column that is not NULL any more stays as it is');

	# rolled back
	($run, $before) = fail_session(3);
	sql("BEGIN; SELECT cleanup_restore($run); ROLLBACK");
	like(sql("$row 3"), qr/"file_char": null/, 'ROLLBACK of a restore: the columns');
	isnt(sql("SELECT count(*) FROM cleanup_cleared WHERE run_id = $run"), 0, 'and what is remembered of them');

	# a trigger that raises, and one that lets nothing through
	sql(q{CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
		CREATE TRIGGER raise BEFORE UPDATE ON talks FOR EACH ROW EXECUTE FUNCTION raise()});
	$answer = sql_json($node, "SELECT cleanup_restore('r$round/c.mp3')");
	like(join(' ', @{ $answer->{result}{errors} }), qr/was not restored: not today/, 'a trigger that raises is reported');
	is($answer->{result}{files_count}, 1, 'the file is restored all the same');
	wait_for_drain($node);
	is(read_file("$dir/r$round/c.mp3"), $all{"r$round/c.mp3"}, 'indeed');
	isnt(sql("SELECT count(*) FROM cleanup_cleared WHERE run_id = $run"), 0, 'what the columns were is not forgotten');
	sql(q{CREATE OR REPLACE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$});
	$answer = sql_json($node, "SELECT cleanup_restore('r$round/v.mp3')");
	is($answer->{result}{sessions_count}, 0, 'a trigger that lets no update through: nothing is said to be restored');
	isnt(sql("SELECT count(*) FROM cleanup_cleared WHERE run_id = $run"), 0, 'nor is anything forgotten');
	sql('DROP TRIGGER raise ON talks');
	sql("SELECT cleanup_restore($run)");
	wait_for_drain($node);
	is(sql("$row 3"), $before, 'without it all come back');

	# somebody has the row locked
	($run, $before) = fail_session(4);
	my $writer = begin_session($node, 'SELECT FROM talks WHERE id = 4 FOR UPDATE');
	$answer = sql_json($node, "SET audio_cleanup.writer_wait = '200ms'; SELECT cleanup_restore('r$round/c.mp3')");
	like(join(' ', @{ $answer->{result}{errors} }), qr/was not restored: .*lock/, 'a locked row is not waited for for ever');
	$writer->quit;
	sql("SELECT cleanup_restore($run)");
	wait_for_drain($node);
	is(sql("$row 4"), $before, 'later it is restored');

	# row level security that hides it from its owner
	($run, $before) = fail_session(5);
	sql('ALTER TABLE talks OWNER TO CURRENT_USER; CREATE ROLE owner_of_talks; ALTER TABLE talks OWNER TO owner_of_talks;',
		'ALTER TABLE talks ENABLE ROW LEVEL SECURITY; ALTER TABLE talks FORCE ROW LEVEL SECURITY');
	$answer = sql_json($node, "SELECT cleanup_restore('r$round/c.mp3')");
	is($answer->{result}{sessions_count}, 0, 'rows that are hidden: nothing is said to be restored');
	isnt(sql("SELECT count(*) FROM cleanup_cleared WHERE run_id = $run"), 0, 'nor is anything forgotten');
	sql('ALTER TABLE talks NO FORCE ROW LEVEL SECURITY');
	sql("SELECT cleanup_restore($run)");
	wait_for_drain($node);
	is(sql("$row 5"), $before, 'later it is restored');

	# the source, or the column, or the row, has gone
	($run, $before) = fail_session(6);
	sql("ALTER TABLE talks DROP COLUMN note; DELETE FROM talks WHERE id = 6");
	$answer = sql_json($node, "SELECT cleanup_restore('r$round/c.mp3')");
	is($answer->{result}{files_count}, 1, 'without the row the file comes back');
	is($answer->{result}{sessions_count}, 0, 'and no session');
	sql(q{SELECT cleanup_drop_source('talks')});
	$answer = sql_json($node, "SELECT cleanup_restore($run)");
	is($answer->{result}{files_count}, 3, 'without the source so do the others');
	like(join(' ', @{ $answer->{result}{errors} }), qr/is not registered any more/, 'and it is said') if $answer->{result}{error_count};
	drained('the source has gone');
	sql('DROP TABLE talks');
	sql('SELECT cleanup_purge_backups()');
}

# ---- holds ----

{
	my $holder = $node->background_psql('postgres');

	$round++;
	$all{"r$round/$_.mp3"} = put_file($dir, "r$round/$_.mp3") foreach 1, 2;
	$holder->query_safe("BEGIN; SELECT cleanup_hold('r$round/1.mp3');");
	$node->psql('postgres', 'SELECT cleanup_all()');
	$holder->query_safe('COMMIT;');
	$holder->quit;
	sql('SELECT cleanup_all()');
	wait_for_drain($node);
	is(read_file("$dir/r$round/1.mp3"), $all{"r$round/1.mp3"}, 'a hold that was in flight counts');
	is_deeply(in_trash(), ["r$round/2.mp3"], 'the other file goes');
	sql("SELECT cleanup_hold('r$round/2.mp3')");
	sql('SELECT cleanup_purge_backups()');
	wait_for_drain($node);
	is(read_file("$dir/r$round/2.mp3"), $all{"r$round/2.mp3"}, 'a backup that is held comes back');
	refused('hold', "SELECT cleanup_hold('$_')", qr/is not below|must have/) foreach '../x.mp3', '/etc/passwd', '';
	is(sql("SELECT cleanup_release('r$round/1.mp3'), cleanup_release('r$round/1.mp3')"), 't|f', 'released once');
}

# ---- for hours ----

{
	my $session = $node->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid();');
	my $cycle = q{
		SELECT count(cleanup_all(force => true)) FROM (SELECT) s;
		SELECT count(cleanup_restore('cycle/1.mp3'));
		SELECT count(cleanup_purge_backups());
		BEGIN; SELECT count(cleanup_restore((SELECT max(run_id) FROM cleanup_runs))); ROLLBACK;
	};
	# autovacuum gives tables new forks, which the server keeps open
	my $figures = sub {
		return ($session->query_safe(q{SELECT sum(used_bytes) FROM pg_backend_memory_contexts}),
			scalar(grep { !m{/(?:base|global|pg_wal)/} } map { readlink($_) // () } glob "/proc/$pid/fd/*"));
	};

	sql(q{SELECT cleanup_purge_backups()});
	$session->query_safe("SET audio_cleanup.orphaned_file_retention_hours = 0; SET audio_cleanup.file_age = 'mtime'; SET client_min_messages = error;");
	put_file($dir, 'cycle/1.mp3');
	# it has just been restored: that must not keep it
	my $again = q{UPDATE cleanup_files SET finished_at = '2020-01-01' WHERE file = 'cycle/1.mp3';};
	$session->query_safe($cycle . $again) foreach 1 .. 10;
	my ($memory, $files) = $figures->();
	$session->query_safe($cycle . $again) foreach 1 .. 150;
	my ($memory_then, $files_then) = $figures->();
	cmp_ok($memory_then, '<', $memory + 200_000, "memory of one session: $memory bytes, and $memory_then after 150 cycles");
	cmp_ok($files_then, '<=', $files, "descriptors, without those of tables: $files, and $files_then");
	cmp_ok(sql(q{SELECT count(*) FROM cleanup_files WHERE file = 'cycle/1.mp3' AND state = 'restored'}), '>', 100, 'it was restored all the time');
	ok(defined read_file("$dir/cycle/1.mp3") || trashed_files($dir)->{'cycle/1.mp3'}, 'and is not lost');
	$session->quit;
}

end_of_rounds();
