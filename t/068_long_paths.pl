# Paths as long as they can be, of letters that nothing compresses, in every state: they hold up no other file.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('long_paths', conf => "audio_cleanup.max_delete_percent = 100\n");
my $dir = upload_dir($node);
make_schema($node);
add_rows($node, 'wanted.mp3');
srand 20261128;

# a path below the upload directory, of so many bytes, which the test can still name from its root
sub long_path
{
	my ($bytes) = @_;
	my @letters = ('a' .. 'z', 'A' .. 'Z', 0 .. 9, '_', '-');
	my $path = '';

	$path .= ($path ne '' && length($path) % 200 == 0 ? '/' : $letters[ rand @letters ]) while length $path < $bytes - 4;
	return "$path.mp3";
}

my $longest = 4095 - length("$dir/.audio_cleanup/trash/12345678/");
my @long = map { long_path($_) } 2600, 2750, 3500, $longest;

sub counts
{
	return $node->safe_psql('postgres', q{SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM
		(SELECT state, count(*) AS n FROM cleanup_files WHERE run_id = (SELECT max(run_id) FROM cleanup_runs) GROUP BY state) s});
}

foreach my $days (0, 7)
{
	put_files($dir, 'wanted.mp3', 'orphan.mp3', @long);
	my ($rc, undef, $stderr) = $node->psql('postgres', "SET audio_cleanup.backup_retention_days = $days; CALL cleanup_run()");
	is($rc, 0, "$days days: the run ends") or diag(substr $stderr, 0, 1000);
	ok(wait_for_drain($node), "$days days: nothing is left to do");
	is_deeply([ keys %{ visible_files($dir) } ], ['wanted.mp3'], "$days days: what is wanted is left");
	is(counts(), ($days ? 'trashed' : 'deleted') . ' ' . (1 + @long), "$days days: each has its row");
}
$node->safe_psql('postgres', 'SELECT cleanup_restore(max(run_id)) FROM cleanup_runs');
ok(wait_for_drain($node), 'all are put back');
is(scalar keys %{ visible_files($dir) }, 2 + @long, 'each to its place');

# a folder in which nothing can be removed: the state "failed"
my ($folder) = $long[-1] =~ m{^(.*)/};
SKIP:
{
	skip 'root may remove everything', 3 if $> == 0;
	unlink "$dir/orphan.mp3" or die;
	put_file($dir, 'orphan.mp3');
	chmod 0555, "$dir/$folder" or die;
	foreach (1 .. 2)
	{
		$node->psql('postgres', "SET audio_cleanup.orphaned_file_retention_hours = 0; SELECT cleanup_claim_upload_dir(); CALL cleanup_run(force => true)");
		ok(wait_for_drain($node), "a closed folder: run $_ ends");
	}
	is($node->safe_psql('postgres', q{SELECT count(*) FROM cleanup_files WHERE state = 'failed' AND length(file) > 3000}), 1, 'a long path that could not be removed has its row');
	chmod 0755, "$dir/$folder" or die;
}
$node->stop;
done_testing();
