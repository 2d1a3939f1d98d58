# A bucket in trouble: files that are replaced under the hands of a run, a
# worker that is killed at each step, a server that is busy, cuts connections
# or lies, rights that are missing, and a second database that wants the bucket.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Bucket;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $gateway = start_gateway();
my $proxy = start_proxy($gateway);
my ($node, $credentials) = start_bucket($gateway, 'bucket_trouble', proxy => $proxy);

sub put { return put_objects($gateway, 'audio/up', @_) }
sub visible { return keys_of($gateway, 'audio', 'up/') }
sub kinds { return [ map { $_->[1] } @{ versions_of($gateway, 'audio', 'up/')->{ $_[0] } // [] } ] }
sub state_of { return sql("SELECT state FROM cleanup_files WHERE file = '$_[0]' ORDER BY file_id DESC LIMIT 1") }

put('wanted.mp3', 'first.mp3');
sql('CALL cleanup_run()');
is_deeply(visible(), ['wanted.mp3'], 'a first run through the proxy');


# ---- a date whose nanoseconds no bigint holds

put('far.mp3');
rewrite($proxy, [ '<LastModified>[^<]*', '<LastModified>2560-01-01T00:00:00.000Z' ]);
is(sql("SELECT cleanup_all(dry_run => true) #>> '{result,orphaned_files_count}'"), '0', 'a file of the far future is not old');
rewrite($proxy);
sql('CALL cleanup_run()');
is_deeply(visible(), ['wanted.mp3'], 'with its own date it goes');


# ---- dates that cannot be read, or that are told in another zone, are not those of an old file

set_setting($node, 'orphaned_file_retention_hours', 24);
put_object($gateway, 'audio/up/young.mp3');
foreach my $case (
	[ 'in another form', '<LastModified>[^<]*', '<LastModified>Sat, 28 Nov 2026 10:00:00 GMT' ],
	[ 'in another zone', '(<LastModified>[^<]*)Z</LastModified>', '\g<1>+05:00</LastModified>' ],
	[ 'missing', '<LastModified>[^<]*</LastModified>', '' ])
{
	my ($how, @pair) = @$case;

	rewrite($proxy, \@pair);
	like(sql_error($node, 'CALL cleanup_run()'), qr/an entry of the answer has no date, or one that cannot be read/, "a date $how ends a run");
	rewrite($proxy);
	ok((grep { $_ eq 'young.mp3' } @{ visible() }), '... and the young file stays');
}
rewrite($proxy, [ '(<LastModified>[^<]*)Z</LastModified>', '\g<1>+00:00</LastModified>' ]);
is(sql("SELECT cleanup_all(dry_run => true) #>> '{result,error_count}'"), '0', 'UTC may be written as an offset');
rewrite($proxy);
sql('CALL cleanup_run()');
ok((grep { $_ eq 'young.mp3' } @{ visible() }), 'a young file is let alone');
set_setting($node, 'orphaned_file_retention_hours', undef);
sleep 2;
sql('CALL cleanup_run()');
is_deeply(visible(), ['wanted.mp3'], 'it goes when it is old');


# ---- the file is replaced between the last look and the marker

put('new.mp3');
set_rule($proxy, match => '^DELETE /audio/up/new\.mp3$', do => 'hold');
sql('SELECT cleanup_all()');
ok(is_held($proxy), 'the worker is about to make a marker');
my $version = put_object($gateway, 'audio/up/new.mp3', 'a new upload');
release($proxy);
ok(wait_for_drain($node), 'the run is over');
is(state_of('new.mp3'), 'skipped', 'a file that was replaced is skipped');
is(s3($gateway, 'GET', 'audio/up/new.mp3')->{headers}{'x-amz-version-id'}, $version, 'the new one is there');
is_deeply(kinds('new.mp3'), [ 12, 26 ], 'and the old one below it, without a marker') or diag explain kinds('new.mp3');
add_rows($node, 'new.mp3');


# ---- a worker is killed at each step

my $n = 0;
foreach my $step (
	[ 'PUT /audio/up/\.audio_cleanup/lease', 'hold', 'before it takes the lease' ],
	[ 'PUT /audio/up/\.audio_cleanup/lease', 'hold_after', 'when it has taken the lease' ],
	[ 'DELETE /audio/up/kN\.mp3$', 'hold', 'before the marker' ],
	[ 'DELETE /audio/up/kN\.mp3$', 'hold_after', 'behind the marker' ],
	[ 'DELETE /audio/up/kN\.mp3\?versionId', 'hold', 'before the version is deleted' ],
	[ 'DELETE /audio/up/kN\.mp3\?versionId', 'hold_after', 'when the version is deleted' ])
{
	my ($match, $do, $when) = @$step;
	my $name = 'k' . ++$n . '.mp3';

	put($name);
	set_rule($proxy, match => $match =~ s/kN/k$n/r, do => $do);
	sql('SELECT cleanup_all()');
	ok(is_held($proxy), "the worker is held $when");
	kill_worker($node, $proxy);
	sql('CALL cleanup_run()');
	ok(wait_for_drain($node), 'the next run goes on');
	is_deeply(kinds($name), [], "killed $when, the file goes with the next run");
	is(state_of($name), 'deleted', 'and its row says so');
	is_deeply(visible(), [ 'new.mp3', 'wanted.mp3' ], 'what is wanted is there');
}

# the marker of a worker that was killed hides a file that is not the one that was condemned
put('hidden.mp3');
set_rule($proxy, match => '^DELETE /audio/up/hidden\.mp3$', do => 'hold');
sql('SELECT cleanup_all()');
ok(is_held($proxy), 'the worker is about to make a marker');
put_object($gateway, 'audio/up/hidden.mp3', 'wanted by now');
kill_worker($node, $proxy);
ok(wait_until(sub { kinds('hidden.mp3')->[0] eq 'marker' }), 'the marker comes late');
add_rows($node, 'hidden.mp3');
$node->psql('postgres', 'CALL cleanup_run()');
ok(wait_for_drain($node), 'the next run mends it');
is(s3($gateway, 'GET', 'audio/up/hidden.mp3')->{content}, 'wanted by now', 'the new file is seen again');
is(state_of('hidden.mp3'), 'skipped', 'the row says that it was replaced');


# ---- a busy server, and cut connections

put('busy.mp3');
set_rule($proxy, match => '.', do => 'refuse', times => 3);
sql('CALL cleanup_run()');
is(state_of('busy.mp3'), 'deleted', 'a server that is busy is asked again');

put('refused.mp3');
set_rule($proxy, match => '^DELETE /audio/up/refused\.mp3$', do => 'refuse', code => 500, times => 2);
sql('CALL cleanup_run()');
is(state_of('refused.mp3'), 'deleted', 'a marker that was not made is tried again');
is_deeply(kinds('refused.mp3'), [], 'and there was one');

put('slow.mp3');
set_rule($proxy, match => '.', do => 'refuse');
like(sql_error($node, 'CALL cleanup_run()'), qr/could not reach upload directory .*503.*SlowDown/s, 'but not for ever');
clear_rules($proxy);

foreach my $do (qw(cut cut_after lie))
{
	put("$do.mp3");
	set_rule($proxy, match => "^DELETE /audio/up/$do|versions=|list-type", do => $do, times => 2);
	$node->psql('postgres', 'CALL cleanup_run()');
	clear_rules($proxy);
	$node->psql('postgres', 'CALL cleanup_run()') foreach 1 .. 2;
	ok(wait_for_drain($node), "connections break: $do");
	is_deeply(kinds("$do.mp3"), [], "$do: the file goes in the end");
	is_deeply(visible(), [ 'hidden.mp3', 'new.mp3', 'wanted.mp3' ], "$do: and nothing else");
}

put('once.mp3');
set_rule($proxy, match => '^DELETE /audio/up/once\.mp3$', do => 'cut_after', times => 1);
sql('CALL cleanup_run()');
is(scalar(grep { m{^DELETE /audio/up/once\.mp3$} } split /\n/, AudioCleanup::read_file("$PostgreSQL::Test::Utils::log_path/s3_proxy.log")),
	1, 'a marker whose answer was lost is not asked for again');
is_deeply(kinds('once.mp3'), [], 'but found');
is(state_of('once.mp3'), 'deleted', 'and the file goes');

# a gateway in between gives up, and the server makes the marker later: between the list and a second attempt, if there were one
sub deletes_of { return scalar grep { m{^DELETE /audio/up/\Q$_[0]\E$} } split /\n/, AudioCleanup::read_file("$PostgreSQL::Test::Utils::log_path/s3_proxy.log") }

foreach my $code (504, 502, 500, 503)
{
	my $name = "gateway$code.mp3";

	put($name);
	set_rule($proxy, match => "^DELETE /audio/up/$name\$", do => 'late', code => $code, after => "$code.*versions=", times => 1);
	$node->psql('postgres', 'CALL cleanup_run()');
	clear_rules($proxy);
	is(deletes_of($name), 1, "$code of a gateway: a marker that may come late is not asked for again");
	sql('CALL cleanup_run()');
	ok(wait_for_drain($node), '... but found when it has come');
	is_deeply(kinds($name), [], '... so that the file goes');
	is(state_of($name), 'deleted', '... and its row says so');
}

# nor does its page tell that a version is gone
put('still.mp3');
set_rule($proxy, match => '^DELETE /audio/up/still\.mp3\?versionId=', do => 'page', code => 404);
$node->psql('postgres', 'CALL cleanup_run()');
clear_rules($proxy);
isnt(state_of('still.mp3'), 'deleted', 'a status 404 alone does not tell that a version is gone');
is_deeply(kinds('still.mp3'), [ 'marker', 28 ], 'it is there');
sql('CALL cleanup_run()');
ok(wait_for_drain($node), 'the next run deletes it');
is_deeply(kinds('still.mp3'), [], 'for good');
is(state_of('still.mp3'), 'deleted', 'and its row says so');

set_rule($proxy, match => 'list-type', do => 'lie');
put('half.mp3');
like(sql_error($node, 'CALL cleanup_run()'), qr/could not list/, 'half a list is none');
ok((grep { $_ eq 'half.mp3' } @{ visible() }), 'nothing was deleted');
clear_rules($proxy);

# a list without an end
set_rule($proxy, match => 'list-type', do => 'repeat');
like(sql_error($node, "SET statement_timeout = '60s'; CALL cleanup_run()"), qr/could not list.*the list cannot be continued/s, 'a list that goes on at the same place for ever is none');
ok((grep { $_ eq 'half.mp3' } @{ visible() }), 'nothing was deleted');
clear_rules($proxy);

# a hanging server
set_rule($proxy, match => 'list-type', do => 'hold');
my $began = time;
like(sql_error($node, "SET statement_timeout = '1s'; SELECT cleanup_all(dry_run => true)"), qr/statement timeout/, 'a call that waits for a server can be cancelled');
ok(time - $began < 20, 'at once');
clear_rules($proxy);

set_rule($proxy, match => '.', do => 'skew');
like(sql_error($node, 'SELECT cleanup_all()'), qr/clock of the upload directory/, 'a clock that is an hour off is a brake');
clear_rules($proxy);
sql('CALL cleanup_run()');
is_deeply(visible(), [ 'hidden.mp3', 'new.mp3', 'wanted.mp3' ], 'then all is well again');


# ---- rights

my $reader = add_user($gateway, 'reader');
my $policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam:::user/reader"]},'
  . '"Action":["s3:ListBucket","s3:ListBucketVersions","s3:GetBucketVersioning","s3:GetObject","s3:GetObjectVersion"],'
  . '"Resource":["arn:aws:s3:::audio","arn:aws:s3:::audio/*"]}]}';
is(s3($gateway, 'PUT', 'audio', query => { policy => '' }, body => $policy)->{success}, 1, 'a user that may only read');
write_credentials($reader, $credentials);
put('kept.mp3');
is(sql_json($node, 'SELECT cleanup_all(dry_run => true)')->{result}{orphaned_files_count}, 1, 'it can make a preview');
$node->psql('postgres', 'CALL cleanup_run()');
ok((grep { $_ eq 'kept.mp3' } @{ visible() }), 'and delete nothing');
is(sql("SELECT count(*) FROM cleanup_files WHERE file = 'kept.mp3' AND state IN ('deleted', 'trashed')"), '0', 'no row says so');
like(log_since($node, 0), qr/AccessDenied/, 'the log says why');
write_credentials($gateway, $credentials);
sql('CALL cleanup_run()');
sql('CALL cleanup_run()');
is_deeply(kinds('kept.mp3'), [], 'with the right keys it goes');


# ---- a bucket that keeps versions no more

put('late.mp3');
set_rule($proxy, match => '^PUT /audio/up/\.audio_cleanup/lease', do => 'hold');
sql('SELECT cleanup_all()');
ok(is_held($proxy), 'a run is about to begin its work');
$version = put_object($gateway, 'audio/up/other.mp3');
make_bucket($gateway, 'audio', versioning => 'Suspended', exists => 1);
release($proxy);
ok(wait_until(sub { sql("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain')") eq 't' }), 'the worker gives up');
like(sql_error($node, 'SELECT cleanup_all()'), qr/keeps no versions/, 'no run begins in it');
make_bucket($gateway, 'audio', exists => 1);
is_deeply([ grep { $_ eq 'wanted.mp3' } @{ visible() } ], ['wanted.mp3'], 'what is wanted is there');
sql('CALL cleanup_run()');
ok(wait_for_drain($node), 'when it keeps versions again, the run goes on');
is_deeply(kinds('late.mp3'), [], 'the file is gone');


# ---- a bucket without versions, if the gateway honours If-Match

make_bucket($gateway, 'plain', versioning => '');
if (honours_if_match($gateway, 'plain'))
{
	put_objects($gateway, 'plain', 'wanted.mp3', 'renewed.mp3', 'gone.mp3');
	set_setting($node, 'upload_dir', q{'s3://plain'});
	set_rule($proxy, match => '^DELETE /plain/renewed\.mp3$', do => 'hold');
	sql('SELECT cleanup_all()');
	ok(is_held($proxy), 'the worker is about to delete a file');
	put_object($gateway, 'plain/renewed.mp3', 'a new upload');
	release($proxy);
	ok(wait_for_drain($node), 'the run is over');
	is(states_of($node), 'gone.mp3 deleted, renewed.mp3 skipped', 'what was replaced is skipped');
	is(s3($gateway, 'GET', 'plain/renewed.mp3')->{content}, 'a new upload', 'and is there');
	is_deeply(keys_of($gateway, 'plain', ''), [ 'renewed.mp3', 'wanted.mp3' ], 'and nothing else went');
	put_objects($gateway, 'plain', 'still.mp3');
	add_rows($node, 'renewed.mp3');
	set_rule($proxy, match => '^DELETE /plain/still\.mp3$', do => 'page', code => 404);
	$node->psql('postgres', 'CALL cleanup_run()');
	clear_rules($proxy);
	isnt(states_of($node), 'still.mp3 deleted', 'a status 404 alone does not tell that a file is gone');
	sql('CALL cleanup_run()');
	is_deeply(keys_of($gateway, 'plain', ''), [ 'renewed.mp3', 'wanted.mp3' ], 'the next run deletes it');
	set_setting($node, 'upload_dir', q{'s3://audio/up'});
}
else
{
	like(sql_error($node, "SET audio_cleanup.upload_dir = 's3://plain'; SELECT cleanup_all()"), qr/keeps no versions/,
		'a bucket without versions is refused, as the gateway ignores If-Match');
}


# ---- what others put among our own objects, and a server that lists what it was not asked for

my $last = sql('SELECT max(run_id) FROM cleanup_runs');
put_object($gateway, "audio/up/.audio_cleanup/trash/$_/x") foreach '9223372036854775807', '9000000000000000';
my (undef, undef, $warning) = $node->psql('postgres', 'CALL cleanup_run()');
like($warning, qr/WARNING:  files are left in .*\nDETAIL:  No run of this database can have had this number/, 'a run with a number that we cannot have is left alone');
is(sql("SELECT max(run_id) - $last FROM cleanup_runs"), '1', 'and the next run has the next number');

my $lost = $last + 5;
my $killed = log_lines($node, qr/terminated by signal/);
put_object($gateway, "audio/up/.audio_cleanup/trash/$lost/1-2");
foreach my $key ('x', 'audio/up/wanted.mp3')
{
	rewrite($proxy, [ "<Key>[^<]*trash(%2F|/)$lost(%2F|/)1-2</Key>", "<Key>$key</Key>" ]);
	$node->psql('postgres', 'CALL cleanup_run()');
	rewrite($proxy);
	is(log_lines($node, qr/terminated by signal/), $killed, "a key that was not asked for, $key, ends no process");
	ok((grep { $_ eq 'wanted.mp3' } @{ visible() }), 'nor is it read');
}


# ---- two databases

put('mine.mp3');
$node->safe_psql('postgres', 'CREATE DATABASE other');
make_schema($node, 'other');
$node->safe_psql('other', "INSERT INTO sessions (audio_url) VALUES ('wanted.mp3')");
my ($status, $out, $error) = $node->psql('other', 'SELECT cleanup_all()');
like($error, qr/does not belong to this database/, 'another database has no say');
my (undef, undef, $refused) = $node->psql('other', 'SELECT cleanup_claim_upload_dir()');
like($refused, qr{ERROR:  could not list "\.audio_cleanup/trash/$lost": .*cannot be read \(1-2\)}, 'what looks like a manifest and is none ends a take-over, which says so');
expect(s3($gateway, 'DELETE', "audio/up/.audio_cleanup/trash/$lost/1-2"));
$node->safe_psql('other', 'SELECT cleanup_claim_upload_dir()');
like(sql_error($node, 'SELECT cleanup_all()'), qr/does not belong to this database/, 'unless it takes the bucket over');
sql('SELECT cleanup_claim_upload_dir()');
like($node->safe_psql('other', 'SELECT cleanup_all(dry_run => true)'), qr/"claim: /, 'which can be taken back');
make_bucket($gateway, 'race');
put_object($gateway, 'race/x.mp3');
sleep 2;
foreach my $database ('postgres', 'other')
{
	$node->safe_psql($database, "ALTER DATABASE $database SET audio_cleanup.upload_dir = 's3://race'");
}
set_rule($proxy, match => '^PUT /race/\.audio_cleanup/claim', do => 'hold');
my @racers = map { $node->background_psql($_, on_error_stop => 0) } 'postgres', 'other';
$_->query_until(qr/begun/, "\\echo begun\nCALL cleanup_run(force => true);\n") foreach @racers;
ok(wait_until(sub { (-s "$proxy->{rules}/used" // 0) >= 2 }), 'both are about to write the claim');
release($proxy);
$_->quit foreach @racers;
ok(wait_until(sub { sql("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'CALL cleanup_run%')") eq 't' }), 'both have ended');
my $owners = grep { $node->safe_psql($_, "SELECT count(*) FROM cleanup_files WHERE state = 'deleted' AND file = 'x.mp3'") > 0 } 'postgres', 'other';
is($owners, 1, 'of two databases that race for a bucket, one has it');

done_testing();
