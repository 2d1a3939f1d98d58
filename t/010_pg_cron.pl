# pg_cron calls cleanup_run(), by a connection and by a background worker of
# its own.  It knows minutes only, so this takes up to one.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my %nodes;
foreach my $way ('connection', 'worker')
{
	my $node = new_server("cron_$way", start => 0, conf => "shared_preload_libraries = 'pg_cron'\n"
		  . "cron.use_background_workers = " . ($way eq 'worker' ? 'on' : 'off') . "\n");
	my $dir = upload_dir($node);

	$node->append_conf('postgresql.conf', "cron.host = '" . $node->host . "'");
	$node->start;
	make_schema($node);
	add_rows($node, put_files($dir, 'wanted.mp3'));
	put_files($dir, map { "orphan$_.mp3" } 1 .. 5);
	$node->safe_psql('postgres', q{
		CREATE EXTENSION pg_cron;
		ALTER DATABASE postgres SET audio_cleanup.batch_size = 2;
		SELECT cron.schedule('clean', '* * * * *', 'CALL cleanup_run()');
	});
	$nodes{$way} = $node;
}

foreach my $way (sort keys %nodes)
{
	my $node = $nodes{$way};
	my $dir = upload_dir($node);
	my $result = '';

	foreach (1 .. 750)
	{
		$result = $node->safe_psql('postgres',
			q{SELECT status, return_message FROM cron.job_run_details WHERE status IN ('succeeded', 'failed') LIMIT 1});
		last if $result ne '';
		usleep(100_000);
	}
	like($result, qr/^succeeded\|/, "$way: pg_cron ran it");
	is_deeply([ keys %{ visible_files($dir) } ], ['wanted.mp3'], "$way: the orphans are gone");
	is($node->safe_psql('postgres', 'SELECT status, files, deleted FROM cleanup_runs ORDER BY run_id LIMIT 1'), 'done|5|5',
		"$way: in several batches");
	ok(!-e "$dir/.audio_cleanup/trash", "$way: nothing is left to do");
	$node->stop;
	is(log_lines($node, qr/PANIC:|signal \d+/), '', "$way: no process has died");
}

done_testing();
