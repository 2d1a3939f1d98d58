# The library is not preloaded: a client that sends our settings when it
# connects must not get the built-in defaults instead of the administrator's.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('client_settings', conf => "audio_cleanup.orphaned_file_retention_hours = 720\n");
my $dir = upload_dir($node);
make_schema($node);
put_file($dir, 'keep.mp3');
put_file($dir, 'three_days_old.mp3', hours => 72);
add_rows($node, 'keep.mp3');
$node->safe_psql('postgres', q{
	CREATE ROLE worker LOGIN;
	SELECT cleanup_grant_access('worker', 'operator');
	ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = 30;
});
my $files = visible_files($dir);

foreach my $options (
	'-c audio_cleanup.orphaned_file_retention_hours=1',
	'-c audio_cleanup.orphaned_file_retention_hours=1 -c audio_cleanup.backup_retention_days=0',
	'-c AUDIO_CLEANUP.Orphaned_File_Retention_Hours=1',
	'-c AUDIO_CLEANUP.Backup_Retention_Days=0',
	'-c audio_cleanup.upload_dir=/tmp', '-c audio_cleanup.file_age=newest')
{
	local $ENV{PGOPTIONS} = $options;
	my ($rc, $stdout, $stderr) = $node->psql('postgres', q{
		SELECT c->>'orphaned_file_retention_hours', c->>'backup_retention_days', c->>'file_age', c->>'upload_dir'
		FROM cleanup_config() c}, extra_params => [ '-U', 'worker' ]);
	ok($rc != 0 || $stdout eq "720|30|mtime|$dir", "$options: refused, or without effect")
	  or diag($stdout);
	$node->psql('postgres', 'SELECT cleanup_all()', extra_params => [ '-U', 'worker' ]);
}

# the same within the session, before the library is loaded
my ($rc, $stdout, $stderr) = $node->psql('postgres', q{
	SET audio_cleanup.orphaned_file_retention_hours = 1;
	SELECT cleanup_config()->>'orphaned_file_retention_hours';
	RESET ALL;
	SELECT cleanup_config()->>'orphaned_file_retention_hours';
	SELECT cleanup_all();
}, extra_params => [ '-U', 'worker' ]);
unlike($stdout, qr/^(1|24)$/m, 'SET before the library is loaded has no effect');

ok(wait_for_drain($node), 'all runs are done');
is_deeply(visible_files($dir), $files, 'no file was touched that the administrator keeps for 30 days');
$node->stop;
done_testing();
