# A bucket of 100,000 keys on a real gateway (script/test --all; else of 2,500): a preview sees each of them, a part
# goes into the trash, comes back, and goes for good.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Bucket;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# one in ten is an orphan; folders of 1000, so that pages end in the middle of them
my $n = $ENV{AUDIO_CLEANUP_ALL} ? 100_000 : 2_500;
my $orphans = $n / 10;
my @names = map { sprintf '%03d/%s%06d.mp3', $_ / 1000, $_ % 10 ? 'w' : 'o', $_ } 0 .. $n - 1;

my $gateway = start_gateway();
my ($node) = start_bucket($gateway, 'bucket_large', conf => "audio_cleanup.backup_retention_days = 7\n");

sub preview { return sql_json($node, 'SELECT cleanup_all(dry_run => true)')->{result} }
sub states { return sql("SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM cleanup_files GROUP BY state) s") }

# How many names of each kind are seen, and hidden: "o visible, w visible, o hidden, w hidden"
sub seen
{
	my $versions = versions_of($gateway, 'audio', 'up/');
	my %count = map { $_ => 0 } qw(o w O W);
	foreach my $name (keys %$versions)
	{
		next unless $name =~ m{/([ow])};
		$count{ $versions->{$name}[0][1] eq 'marker' ? uc $1 : $1 }++;
	}
	return join ', ', @count{qw(o w O W)};
}

my $began = time;
fill_bucket($gateway, 'audio/up', @names);
note "$n keys after " . (time - $began) . ' s';
put_object($gateway, 'audio/up/wanted.mp3');
sql("INSERT INTO sessions (audio_url) SELECT to_char(i / 1000, 'FM000') || '/w' || to_char(i, 'FM000000') || '.mp3' FROM generate_series(0, $n - 1) i WHERE i % 10 <> 0");

$began = time;
my $found = preview();
note 'a preview after ' . (time - $began) . ' s';
is($found->{orphaned_files_count}, $orphans, "of $n keys a preview finds each orphan");
is($found->{error_count}, 0, 'without an error');
is(sql('SELECT (cleanup_status() #>> \'{potential_cleanup,orphaned_files_count}\')'), $orphans, 'so does cleanup_status()');
is(sql('SELECT sum(missing) FROM cleanup_missing_files()'), '0', 'no row misses its file');
is(seen(), join(', ', $orphans, $n - $orphans, 0, 0), 'nothing has moved');

$began = time;
sql('CALL cleanup_run()');
note 'into the trash after ' . (time - $began) . ' s';
is(states(), "trashed $orphans", 'a run takes these, and no other one');
is(seen(), join(', ', 0, $n - $orphans, $orphans, 0), 'they are hidden');
is(preview()->{orphaned_files_count}, 0, 'a preview finds none after that');

$began = time;
is(sql_json($node, 'SELECT cleanup_restore((SELECT max(run_id) FROM cleanup_runs))')->{result}{files_count}, $orphans, 'all of them can be restored');
ok(wait_for_drain($node), 'and are');
note 'restored after ' . (time - $began) . ' s';
is(states(), "restored $orphans", 'their rows say so');
is(seen(), join(', ', $orphans, $n - $orphans, 0, 0), 'they are seen again');

$began = time;
sql("UPDATE cleanup_files SET finished_at = finished_at - interval '1 day'");
set_setting($node, 'backup_retention_days', 0);
sql('CALL cleanup_run()');
note 'deleted after ' . (time - $began) . ' s';
is(sql("SELECT count(*) FROM cleanup_files WHERE state = 'deleted'"), $orphans, 'another run deletes them for good');
is(seen(), join(', ', 0, $n - $orphans, 0, 0), 'nothing is left of them, and all else is there');
my $left = expect(s3($gateway, 'GET', 'audio', query => { versions => '', prefix => 'up/.audio_cleanup/' }))->{content};
# of which there are two versions where the server ignores If-None-Match
is_deeply([ keys %{ { map { $_ => 1 } $left =~ m{<Key>(.*?)</Key>}g } } ], ['up/.audio_cleanup/claim'], 'of ours only the claim is left');
done_testing();
