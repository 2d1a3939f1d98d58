# A row moves between two sources while both are read: at each moment some row
# refers to the file, so no look must miss it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_server('moving_rows', conf => "shared_preload_libraries = 'audio_cleanup'\n");
my $dir = upload_dir($node);

# Each gate is a source that takes a while to read, when the test wants that.  It tells by an advisory lock that it is
# being read: gate 1 before the queue is read, gate 2 between the queue and the archive.
sql(q{
	CREATE EXTENSION audio_cleanup;
	CREATE TABLE slow ();
	CREATE TABLE queue (file text);
	CREATE TABLE archive (file text);
	INSERT INTO queue VALUES ('queued.mp3'), ('moving.mp3');
	INSERT INTO archive VALUES ('archived.mp3');
	CREATE FUNCTION wait_at(gate int) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		IF EXISTS (SELECT FROM public.slow) THEN
			PERFORM pg_catalog.pg_advisory_xact_lock(gate);
			PERFORM pg_catalog.pg_sleep(1);
		END IF;
		RETURN 'a gate';
	END $$;
	CREATE VIEW gate1 AS SELECT wait_at(1) AS file;
	CREATE VIEW gate2 AS SELECT wait_at(2) AS file;
	SELECT cleanup_add_source('gate1', '{file}');
	SELECT cleanup_add_source('queue', '{file}');
	SELECT cleanup_add_source('gate2', '{file}');
	SELECT cleanup_add_source('archive', '{file}');
});
put_files($dir, 'queued.mp3', 'archived.mp3', 'moving.mp3');
sql('CALL cleanup_run()');
sql('INSERT INTO slow DEFAULT VALUES');

# Moves the row, in one transaction, into the archive while gate 1 is read, and back while gate 2 is read: a job that is
# tried again and again.  Returns the number of moves when $over->() is true.
my $mover = $node->background_psql('postgres');

sub move_until
{
	my ($over) = @_;
	my $at = '';
	my $moves = 0;

	until ($over->())
	{
		my $gate = $mover->query_safe(q{SELECT min(objid) FROM pg_locks WHERE locktype = 'advisory' AND granted});

		if ($gate ne '' && $gate ne $at)
		{
			my ($from, $to) = $gate == 1 ? ('queue', 'archive') : ('archive', 'queue');

			$mover->query_safe("WITH moved AS (DELETE FROM $from WHERE file = 'moving.mp3' RETURNING file)"
				. " INSERT INTO $to SELECT file FROM moved");
			$at = $gate;
			$moves++;
		}
		usleep(20_000);
	}
	return $moves;
}

# Makes a call in a session of its own, while the row moves.  Returns the number of moves.
sub call
{
	my ($call) = @_;
	my $session = $node->background_psql('postgres');

	$session->query_until(qr/begun/, "\\echo begun\n$call;\nINSERT INTO calls VALUES (1);\n");
	my $moves = move_until(sub { $mover->query_safe('SELECT count(*) FROM calls') > 0 });
	$session->quit;
	sql('TRUNCATE calls');
	return $moves;
}

sql('CREATE TABLE calls (n int)');

foreach my $case (
	[ 0, 'CALL cleanup_run()', 'a CALL' ],
	[ 0, 'SELECT cleanup_all()', 'a SELECT' ],
	[ 3, 'CALL cleanup_run()', 'a CALL with backup' ])
{
	my ($days, $call, $what) = @$case;

	set_setting($node, 'backup_retention_days', $days);
	put_file($dir, 'orphan.mp3');
	cmp_ok(call($call), '>=', 4, "$what: the row moves while the sources are read");
	# without a row that stays, a look of the worker could be the one that sees it
	move_until(sub { sql(q{SELECT count(*) FROM cleanup_runs WHERE status IN ('running', 'pending')}) == 0 });
	ok(wait_for_drain($node), "$what: the run is over");
	ok(-e "$dir/moving.mp3", "$what: the file to which the row refers is there");
	is(sql(q{SELECT count(*) FROM cleanup_files WHERE file = 'moving.mp3'}), '0', "$what: it was not condemned");
	ok(!-e "$dir/orphan.mp3", "$what: an orphan is not");
	put_file($dir, 'moving.mp3') unless -e "$dir/moving.mp3";
}

# ---- what a preview and cleanup_explain() tell

call(q{CREATE TABLE preview AS SELECT cleanup_all(dry_run => true) AS result});
is(sql(q{SELECT result #>> '{result,orphaned_files_count}' FROM preview}), '0', 'a preview does not call it an orphan');
call(q{CREATE TABLE explained AS SELECT cleanup_explain('moving.mp3') AS result});
is(sql(q{SELECT result ->> 'verdict' FROM explained}), 'kept', 'cleanup_explain() says that it is kept');

$mover->quit;
sql('TRUNCATE slow');
is(sql(q{SELECT count(*) FROM (TABLE queue UNION ALL TABLE archive) f WHERE file = 'moving.mp3'}), '1', 'the row was always there');
$node->stop;
done_testing();
