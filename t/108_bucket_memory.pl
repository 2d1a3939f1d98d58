# A bucket of many keys, which bench/pages.py makes up: a preview and a run see each of them, and their memory does
# not grow with their number.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Bucket;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $pages = "$FindBin::RealBin/../bench/pages.py";
plan skip_all => 'there is no bench/pages.py' unless -e $pages;

my $credentials = PostgreSQL::Test::Utils::tempdir_short() . '/credentials';
write_credentials({ access_key => 'anybody', secret_key => 'anything' }, $credentials);
my $node = new_server('bucket_memory', conf => bucket_conf('s3://unset', 'http://localhost:1', $credentials) . <<'END');
audio_cleanup.file_age = 'newest'
work_mem = '1MB'
maintenance_work_mem = '1MB'
END
make_schema($node);

# The most anonymous memory of a backend while it does this, in KiB; and what it says.
sub most_memory
{
	my ($sql) = @_;
	my $session = $node->background_psql('postgres');
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	my $most = 0;

	$session->query_safe('SELECT cleanup_config()');
	my $state = sub { return $node->safe_psql('postgres', "SELECT state FROM pg_stat_activity WHERE pid = $pid") };

	$session->query_until(qr/begun/, "\\echo begun\n$sql;\n\\echo over\n");
	ok(wait_until(sub { $state->() eq 'active' }), 'it has begun');
	ok(wait_until(sub {
		my ($now) = (read_file("/proc/$pid/status") // '') =~ /RssAnon:\s+(\d+)/;
		$most = $now if ($now // 0) > $most;
		return $state->() eq 'idle';
	}), 'and ends');
	$session->query_until(qr/over/, '');
	$session->quit;
	return $most;
}

my %memory;
foreach my $keys (2_000, 100_000)
{
	my $port = start_pages($pages, $keys, $keys / 10);

	$node->safe_psql('postgres', "TRUNCATE sessions; DELETE FROM cleanup_runs; DELETE FROM cleanup_claims;"
		. " ALTER SYSTEM SET audio_cleanup.s3_endpoint = 'http://localhost:$port'");
	$node->safe_psql('postgres', "ALTER SYSTEM SET audio_cleanup.upload_dir = 's3://keys$keys/up'");
	$node->reload;
	$node->safe_psql('postgres', 'INSERT INTO sessions (audio_url) SELECT to_char(i / 1000, \'FM000000\') || \'/w\' || to_char(i, \'FM000000000\') || \'.mp3\''
		. " FROM generate_series(0, $keys - 1) i WHERE i % 10 <> 0; SELECT pg_sleep(0.2)");
	is(sql_json($node, 'SELECT cleanup_all(dry_run => true)')->{result}{orphaned_files_count}, $keys / 10, "of $keys keys each orphan is found");
	$memory{preview}{$keys} = most_memory('SELECT cleanup_all(dry_run => true)');
	$memory{run}{$keys} = most_memory('CALL cleanup_run()');
	is($node->safe_psql('postgres', "SELECT count(*) FROM cleanup_files WHERE state = 'deleted'"), $keys / 10, 'and deleted');
	is(sql_json($node, 'SELECT cleanup_all(dry_run => true)')->{result}{orphaned_files_count}, 0, 'and none is left');
	$node->safe_psql('postgres', 'TRUNCATE cleanup_files');
}

# the lists that are reported have their limit; so have batches of rows
foreach my $what (sort keys %memory)
{
	my ($few, $many) = @{ $memory{$what} }{ 2_000, 100_000 };
	cmp_ok($many, '<', $few + 16 * 1024, "$what: fifty times as many keys take less than 16 MiB more") or diag "$few, $many KiB";
}

done_testing();
