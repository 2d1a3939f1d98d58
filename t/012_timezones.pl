# Columns without time zone are UTC, wherever the server and the user are.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('timezones');
my $dir = upload_dir($node);
make_schema($node);

# As the application writes them: naive UTC.  A session is named by its age.
my @ages = ('6 days 20 hours', '6 days 23 hours', '7 days 1 hour', '7 days 4 hours');
$node->safe_psql('postgres', q{
	CREATE TABLE tokyo (id text PRIMARY KEY, file text, status text, failed_at timestamp);
	CREATE TABLE aware (id text PRIMARY KEY, file text, status text, failed_at timestamptz);
	ALTER TABLE sessions ADD name text;
	SELECT cleanup_add_source('tokyo', '{file}', timezone => 'Asia/Tokyo');
	SELECT cleanup_add_source('aware', '{file}');
	SELECT cleanup_add_source('sessions', '{audio_url}', id_column => 'name');
});
foreach my $age (@ages)
{
	my $name = $age =~ s/ //gr;
	put_file($dir, "$_$name.mp3", hours => 0) foreach 'naive', 'tokyo', 'aware';
	$node->safe_psql('postgres', qq{
		INSERT INTO sessions (name, audio_url, status, updated_at, created_at)
		VALUES ('naive$name', '/audio/naive$name.mp3', 'failed', (now() AT TIME ZONE 'UTC') - interval '$age',
			(now() AT TIME ZONE 'UTC') - interval '30 days');
		INSERT INTO tokyo VALUES ('tokyo$name', 'tokyo$name.mp3', 'failed', (now() AT TIME ZONE 'Asia/Tokyo') - interval '$age');
		INSERT INTO aware VALUES ('aware$name', 'aware$name.mp3', 'failed', now() - interval '$age');
	});
}
add_rows($node, put_files($dir, 'wanted.mp3'));

my @old = map { $_ . '7days1hour', $_ . '7days4hours' } 'naive', 'tokyo', 'aware';

# zones far from UTC on either side, and one of half an hour
foreach my $zone ('Asia/Tokyo', 'America/Los_Angeles', 'Asia/Kolkata', 'UTC')
{
	$node->append_conf('postgresql.conf', "timezone = '$zone'\nlog_timezone = '$zone'\n");
	$node->reload;
	ok($node->poll_query_until('postgres', "SELECT current_setting('timezone') = '$zone'"), "the server is in $zone");
	is_deeply([ sort @{ sql_json($node, 'SELECT cleanup_failed_sessions(dry_run => true)')->{result}{failed_sessions_cleaned} } ],
		[ sort @old ], "server in $zone: what failed more than seven days ago, and nothing else");
	is_deeply([ sort @{ sql_json($node, "SET timezone = 'Asia/Tokyo'; SELECT cleanup_status()")->{potential_cleanup}{failed_sessions_cleaned} } ],
		[ sort @old ], "server in $zone, session in Asia/Tokyo: the same");
}

# a real run, in Tokyo
$node->append_conf('postgresql.conf', "timezone = 'Asia/Tokyo'\nlog_timezone = 'Asia/Tokyo'\n");
$node->reload;
ok($node->poll_query_until('postgres', q{SELECT current_setting('timezone') = 'Asia/Tokyo'}), 'the server is in Tokyo');
$node->safe_psql('postgres', q{SET timezone = 'Asia/Tokyo'; SELECT cleanup_all();});
ok(wait_for_drain($node), 'a real run there');
my %gone = map { $_ => 1 } @old;
is_deeply([ sort keys %{ visible_files($dir) } ],
	[ sort 'wanted.mp3', grep { !$gone{ s/\.mp3$//r } }
	  map { my $age = s/ //gr; map { "$_$age.mp3" } 'naive', 'tokyo', 'aware' } @ages ],
	'what failed 6 d 20 h ago is kept, what failed 7 d 4 h ago is gone');

# the ages of files know no zones
put_file($dir, 'old.mp3', hours => 25);
put_file($dir, 'young.mp3', hours => 23);
is_deeply(sql_json($node, q{SET timezone = 'Asia/Tokyo'; SELECT cleanup_orphaned_files();})->{result}{orphaned_files_deleted},
	['old.mp3'], 'an orphan of 25 hours goes, one of 23 stays');
ok(wait_for_drain($node), 'and is done');

$node->stop;
done_testing();
