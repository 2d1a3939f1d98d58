# Errors and cancellations that a PL/pgSQL block catches around our calls: its
# work is rolled back, all of it and nothing more.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('caught');
my $dir = upload_dir($node);
make_schema($node);
put_files($dir, 'keep.mp3', 'orphan.mp3');
add_rows($node, 'keep.mp3');
$node->safe_psql('postgres', q{
	CREATE TABLE base (file text);
	CREATE VIEW above AS SELECT file AS audio_url FROM base;
	SELECT cleanup_add_source('above', '{audio_url}');
	CREATE TABLE marker (x int);
});
my $files = visible_files($dir);

# A run that waits below the view is cancelled there, or gives up.
my $blocker = begin_session($node, 'LOCK TABLE base');
foreach my $call ('cleanup_status()', 'cleanup_all()', q{cleanup_explain('orphan.mp3')})
{
	foreach my $limit (q{statement_timeout = '300ms'}, q{lock_timeout = '300ms'})
	{
		my ($rc, $stdout, $stderr) = $node->psql('postgres', qq{
			SET $limit;
			DO \$\$
			BEGIN
				BEGIN
					INSERT INTO marker VALUES (1);
					PERFORM $call;
					RAISE 'not cancelled';
				EXCEPTION WHEN OTHERS OR query_canceled THEN
					NULL;
				END;
				INSERT INTO marker VALUES (2);
			END \$\$;
			RESET statement_timeout;
			RESET lock_timeout;
			SELECT current_user, pg_current_xact_id_if_assigned() IS NULL;
		});
		is($rc, 0, "$call under $limit: the session lives");
		like($stdout, qr/^postgres\|t$|^\w+\|t$/m, "$call under $limit: no transaction is left open");
		is($node->safe_psql('postgres', 'SELECT x FROM marker; TRUNCATE marker'), '2',
			"$call under $limit: the block was rolled back, and only that");
	}
}
$blocker->quit;
is_deeply(visible_files($dir), $files, 'no file was touched');

# Condemned in a block that fails, several times.
$node->safe_psql('postgres', q{
	DO $$
	BEGIN
		FOR i IN 1 .. 3 LOOP
			BEGIN
				PERFORM cleanup_all();
				PERFORM 1 / 0;
			EXCEPTION WHEN division_by_zero THEN
				NULL;
			END;
		END LOOP;
	END $$;
});
ok(wait_for_drain($node), 'nothing is left to do');
is_deeply(visible_files($dir), $files, 'a block that fails leaves no trace in the directory');

# A CALL that is cancelled between its batches leaves no temporary files behind.
put_files($dir, map { sprintf 'a_long_name_that_fills_work_mem_soon_%04d.mp3', $_ } 1 .. 1500);
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query(q{SET work_mem = '64kB'; SET audio_cleanup.batch_size = 10; SET audio_cleanup.writer_wait = '200ms'});
$node->safe_psql('postgres', q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN IF new.file LIKE '%_1%' THEN RAISE 'refused'; END IF; RETURN new; END $$;
	CREATE TRIGGER refuse BEFORE INSERT ON cleanup_files FOR EACH ROW EXECUTE FUNCTION refuse();
});
$session->query('CALL cleanup_run(force => true)') foreach 1 .. 3;
like($session->query('SELECT count(*) FROM pg_ls_tmpdir()'), qr/^0$/m, 'a failed CALL leaks no temporary file');
$session->quit;

unlike(log_lines($node, qr/TRAP|PANIC|terminated by signal/), qr/./, 'the server has not crashed');
$node->stop;
done_testing();
