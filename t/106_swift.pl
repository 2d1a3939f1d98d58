# OpenStack Swift (s3api) as another opinion of what a bucket is: with versions all is as on the gateway of Ceph,
# though its claim knows no If-None-Match; without versions a file is deleted if it still is the one that was
# condemned, and a gateway that ignores If-Match is refused.

use strict;
use warnings;
use utf8;

use Encode qw(encode_utf8);
use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Bucket;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $swift = start_swift();
my $proxy = start_proxy($swift);
my ($node, $credentials) = start_bucket($swift, 'swift', proxy => $proxy, conf => "audio_cleanup.max_delete_percent = 100\n");
make_bucket($swift, 'plain', versioning => '');

sub put { my ($bucket, @names) = @_; return put_objects($swift, "$bucket/up", @names) }
sub change { return set_setting($node, @_) }
sub kinds { return [ map { $_->[1] } @{ versions_of($swift, $_[0], 'up/')->{ $_[1] } // [] } ] }
sub visible { return keys_of($swift, $_[0], 'up/') }

# All that is ours in a bucket.
sub ours
{
	my ($bucket) = @_;
	my $page = expect(s3($swift, 'GET', $bucket, query => { prefix => 'up/.audio_cleanup/', 'list-type' => 2 }))->{content};
	return [ sort $page =~ m{<Key>up/\.audio_cleanup/(.*?)</Key>}g ];
}


# ---- with versions

put('audio', 'wanted.mp3', 'a.mp3', 'sub/b.mp3', 'notes.txt');
is_deeply(sql_json($node, 'SELECT cleanup_all(dry_run => true)')->{result}{orphaned_files_deleted}, [ 'a.mp3', 'sub/b.mp3' ], 'a preview');
sql('CALL cleanup_run()');
is(states_of($node), 'a.mp3 deleted, sub/b.mp3 deleted', 'a run');
is_deeply(visible('audio'), [ 'notes.txt', 'wanted.mp3' ], 'the orphans are gone');
is_deeply(kinds('audio', 'a.mp3'), [], 'with all of their versions');
like(s3($swift, 'GET', 'audio/up/.audio_cleanup/claim')->{content}, qr/^audio_cleanup claim 1\n/, 'the bucket is claimed');

change('backup_retention_days', 7);
put('audio', map { sprintf 'many/%03d.mp3', $_ } 1 .. 60);
sql('CALL cleanup_run()');
is(sql("SELECT count(*) FROM cleanup_files WHERE file LIKE 'many/%' AND state = 'trashed'"), '60', 'many at a time are kept as backups');
my $version = versions_of($swift, 'audio', 'up/')->{'many/030.mp3'};
is_deeply([ map { $_->[1] } @$version ], [ 'marker', 31 ], 'below a marker each');
sql("SELECT cleanup_restore('many/030.mp3')");
ok(wait_for_drain($node), 'one is restored');
is(s3($swift, 'GET', 'audio/up/many/030.mp3')->{content}, "audio of audio/up/many/030.mp3\n", 'and is seen again');
is(versions_of($swift, 'audio', 'up/')->{'many/030.mp3'}[0][0], $version->[1][0], 'the same version');
sql("SELECT cleanup_restore('many/031.mp3', 'again.mp3')");
ok(wait_for_drain($node), 'another one under another name');
is(s3($swift, 'GET', 'audio/up/again.mp3')->{content}, "audio of audio/up/many/031.mp3\n", 'with its content');
add_rows($node, 'again.mp3', 'many/030.mp3');
sql("UPDATE cleanup_files SET due_at = now() WHERE state = 'trashed'; SELECT cleanup_purge_backups()");
ok(wait_for_drain($node), 'the others are purged');
is_deeply([ grep { m{^many/} } keys %{ versions_of($swift, 'audio', 'up/') } ], ['many/030.mp3'], 'nothing is left of them');
change('backup_retention_days', 0);

my @odd = map { encode_utf8("odd/$_.mp3") } "new\nline", "re\rturn", "bell\a", 'a&amp;b', '<i>', q{"'}, "\x{1F3A7}", "e\x{301}", '100%', 'a+b', ' ';
put('audio', @odd);
sql('CALL cleanup_run()');
is_deeply([ grep { m{^odd/} } keys %{ versions_of($swift, 'audio', 'up/') } ], [], 'names of every kind');

put('audio', 'replaced.mp3');
set_rule($proxy, match => '^DELETE /audio/up/replaced\.mp3$', do => 'hold');
sql('SELECT cleanup_all()');
ok(is_held($proxy), 'the worker is about to make a marker');
put_object($swift, 'audio/up/replaced.mp3', 'a new upload');
release($proxy);
ok(wait_for_drain($node), 'the run is over');
is(states_of($node), 'replaced.mp3 skipped', 'a file that was replaced is skipped');
is(s3($swift, 'GET', 'audio/up/replaced.mp3')->{content}, 'a new upload', 'and is there');
put('audio', map { "race/$_.mp3" } 1 .. 40);
set_rule($proxy, match => '^POST /audio/\?delete=', do => 'hold');
sql('SELECT cleanup_all()');
ok(is_held($proxy), 'the worker is about to make many markers');
put_object($swift, 'audio/up/race/7.mp3', 'a new upload');
release($proxy);
ok(wait_for_drain($node), 'the run is over');
is(sql("SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM cleanup_files WHERE file LIKE 'race/%' GROUP BY state) s"),
	'deleted 39, skipped 1', 'of many, the one that was replaced is skipped');
is(s3($swift, 'GET', 'audio/up/race/7.mp3')->{content}, 'a new upload', 'and is seen');
add_rows($node, 'replaced.mp3', 'race/7.mp3');


# ---- without versions

change('upload_dir', q{'s3://plain/up'});
put('plain', 'wanted.mp3', 'x.mp3', map { sprintf 'crowd/%03d.mp3', $_ } 1 .. 40);
is(sql_json($node, 'SELECT cleanup_all(dry_run => true)')->{success}, JSON::PP::true, 'a preview is not refused: the server proves that it honours If-Match');
is_deeply(ours('plain'), [], 'nothing is left of what it was proved with');
is(sql("SELECT string_agg(check_name || ' ' || status, ', ') FROM cleanup_check() WHERE check_name IN ('s3_versioning', 's3_list', 's3_delete', 's3_names')"),
	's3_versioning ok, s3_list ok, s3_delete ok, s3_names ok', 'cleanup_check() is content with it');
change('backup_retention_days', 7);
my ($status, $out, $error) = $node->psql('postgres', 'SELECT cleanup_all()');
like($error, qr/keeps no versions of its files.*cannot be put back.*backup_retention_days/s, 'a backup cannot be promised: that is refused, with a hint');
like(sql('SELECT cleanup_all(dry_run => true)'), qr/"unversioned/, 'and a preview says so');
is_deeply(scalar @{ visible('plain') }, 42, 'nothing went');
change('backup_retention_days', 0);

sql('CALL cleanup_run()');
is_deeply(visible('plain'), ['wanted.mp3'], 'a run deletes the orphans');
is(sql("SELECT count(*) FROM cleanup_files WHERE state = 'deleted' AND run_id = (SELECT max(run_id) FROM cleanup_files)"), '41', 'and records it');
is(sql('SELECT sum(freed) > 800 FROM cleanup_files WHERE run_id = (SELECT max(run_id) FROM cleanup_files)'), 't', 'with the bytes');
is_deeply(ours('plain'), [ 'claim', 'lease' ], 'there is a claim, and a lease that will end');

# the page of a proxy does not tell that a file is gone
put('plain', 'still.mp3');
set_rule($proxy, match => '^DELETE /plain/up/still\.mp3$', do => 'page', code => 404);
$node->psql('postgres', 'CALL cleanup_run()');
cmp_ok(-s "$proxy->{rules}/used" // 0, '>', 0, 'a status 404 without a code');
clear_rules($proxy);
isnt(states_of($node), 'still.mp3 deleted', 'is not taken for a success');
is_deeply(visible('plain'), [ 'still.mp3', 'wanted.mp3' ], 'the file is there');
sql('CALL cleanup_run()');
is_deeply(visible('plain'), ['wanted.mp3'], 'and the next run deletes it');

# a hold that comes while files are being deleted
put('plain', 'late.mp3', 'other.mp3');
set_rule($proxy, match => '^DELETE /plain/up/late\.mp3', do => 'hold', times => 1);
my $run = $node->background_psql('postgres', on_error_stop => 0);
$run->query_until(qr/begun/, "\\echo begun\nCALL cleanup_run();\n\\echo over\n");
ok(is_held($proxy), 'a file is being deleted');
foreach my $level ('READ COMMITTED', 'REPEATABLE READ')
{
	my ($rc, undef, $told) = $node->psql('postgres', "SET statement_timeout = '20s'; BEGIN ISOLATION LEVEL $level; SELECT cleanup_hold('late.mp3'); COMMIT");
	is($rc, 0, "$level: a hold does not wait for the server");
	like($told, qr/WARNING:.*may be too late for the file "late\.mp3"/, "$level: and says that it may be too late");
}
release($proxy);
$run->query_until(qr/over/, '');
$run->quit;
is_deeply(visible('plain'), ['wanted.mp3'], 'it was too late');
sql("SELECT cleanup_release('late.mp3')");

foreach my $content ('a new upload', undef)
{
	my $name = defined $content ? 'new.mp3' : 'same.mp3';

	put('plain', $name, 'other.mp3');
	set_rule($proxy, match => "^DELETE /plain/up/$name", do => 'hold');
	sql('SELECT cleanup_all()');
	ok(is_held($proxy), "$name: the worker is about to delete it");
	sleep 2;
	put_object($swift, "plain/up/$name", $content);
	release($proxy);
	ok(wait_for_drain($node), "$name: the run is over");
	is(states_of($node), join(', ', sort "$name skipped", 'other.mp3 deleted'),
		"$name: what was replaced" . (defined $content ? '' : ' by the same bytes') . ' is skipped');
	is(s3($swift, 'GET', "plain/up/$name")->{status}, 200, "$name: and is there");
	add_rows($node, $name);
}

# somebody needs it after all, before it went
put('plain', 'needed.mp3');
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN');
$session->query_safe('SELECT cleanup_all()');
sql(q{INSERT INTO sessions (audio_url) VALUES ('needed.mp3')});
end_session($session);
ok(wait_for_drain($node), 'a run, and a row that came before its commit');
is(s3($swift, 'GET', 'plain/up/needed.mp3')->{status}, 200, 'the file is looked at once more before it goes');

# killed
put('plain', map { "killed/$_.mp3" } 1 .. 20);
set_rule($proxy, match => '^DELETE /plain/up/killed/', do => 'hold_after');
sql('SELECT cleanup_all()');
ok(is_held($proxy), 'some files are deleted, and the worker does not know it yet');
kill_worker($node, $proxy);
$node->psql('postgres', 'CALL cleanup_run()');
ok(wait_for_drain($node), 'the next run goes on');
is_deeply([ grep { m{^killed/} } @{ visible('plain') } ], [], 'all of them are gone');
is(sql("SELECT string_agg(DISTINCT state, ',') FROM cleanup_files WHERE file LIKE 'killed/%' AND state NOT IN ('deleted', 'skipped')"), '', 'and no row is open');


# ---- two databases that want a bucket of a server without If-None-Match

sql('CREATE DATABASE other');
make_schema($node, 'other');
make_bucket($swift, 'race', versioning => '');
put_object($swift, 'race/raced.mp3');
sleep 2;
$node->safe_psql($_, "ALTER DATABASE $_ SET audio_cleanup.upload_dir = 's3://race'") foreach 'postgres', 'other';
change('upload_dir', q{'s3://race'});
set_rule($proxy, match => '^PUT /race/\.audio_cleanup/claim', do => 'hold');
my @racers = map { $node->background_psql($_, on_error_stop => 0) } 'postgres', 'other';
$_->query_until(qr/begun/, "\\echo begun\nCALL cleanup_run(force => true);\n") foreach @racers;
ok(wait_until(sub { (-s "$proxy->{rules}/used" // 0) >= 2 }), 'both are about to write the claim');
release($proxy);
$_->quit foreach @racers;
ok(wait_until(sub { sql("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'CALL cleanup_run%')") eq 't' }), 'both have ended');
my $owners = grep { $node->safe_psql($_, "SELECT count(*) FROM cleanup_files WHERE state = 'deleted' AND file = 'raced.mp3'") > 0 } 'postgres', 'other';
cmp_ok($owners, '<=', 1, 'of two databases that race for it, no two have it');
$node->psql($_, 'CALL cleanup_run(force => true)') foreach 'postgres', 'other';
my $claim = s3($swift, 'GET', 'race/.audio_cleanup/claim')->{content};
is(scalar(grep { index($claim, $node->safe_psql($_, "SELECT uuid FROM cleanup_claims WHERE upload_dir = 's3://race'")) >= 0 } 'postgres', 'other'), 1,
	'the claim is of one of them');

done_testing();
