# A database with thousands of tables that nobody registered: a run looks into
# each of them, and leaves room in the server's table of locks.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

# there is room for some hundred locks
my $node = new_server('many_tables', conf => "max_locks_per_transaction = 10\nmax_connections = 10\nmax_wal_senders = 0\naudio_cleanup.max_delete_percent = 100\n");
my $dir = upload_dir($node);
make_schema($node);
add_rows($node, put_files($dir, 'wanted.mp3'));
put_file($dir, 'orphan.mp3');
foreach my $part (0 .. 14)
{
	$node->safe_psql('postgres', join "\n", map { "CREATE TABLE tenant_$_ (name text);" } 100 * $part .. 100 * $part + 99);
}

# nobody looks at a run of pg_cron, so it looks into all tables
{
	local $ENV{PGAPPNAME} = 'pg_cron';
	my ($rc, $stdout, $stderr) = $node->psql('postgres', 'CALL cleanup_run()');
	unlike($stderr, qr/ERROR|WARNING/, 'a run finds room for its locks');
}
ok(wait_for_drain($node), 'it comes to its end');
is_deeply([ keys %{ visible_files($dir) } ], ['wanted.mp3'], 'files go');

put_file($dir, 'orphan.mp3');
is(sql("BEGIN; SELECT cleanup_status() ->> 'success'; SELECT count(*) < 100 FROM pg_locks; COMMIT"), "true\nt", 'a look keeps no locks');
unlike(log_lines($node, qr/out of shared memory/), qr/./, 'nobody is left without locks');
$node->stop;
done_testing();
