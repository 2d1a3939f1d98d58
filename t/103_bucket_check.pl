# cleanup_check() on a bucket: it says how far one comes, and stops with a hint
# where one comes no further.  No key is in any of it.

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
my ($node, $credentials) = start_bucket($gateway, 'bucket_check', proxy => $proxy);
make_bucket($gateway, 'plain', versioning => '');
make_bucket($gateway, 'suspended');
make_bucket($gateway, 'suspended', versioning => 'Suspended', exists => 1);
put_object($gateway, 'audio/up/wanted.mp3');

my @steps = qw(s3_credentials s3_name s3_tls s3_signature s3_clock s3_bucket s3_versioning s3_list s3_claim s3_delete s3_names);
my $seen = '';

# All rows about the bucket, with these settings for the session.
sub check
{
	my (@settings) = @_;
	my $set = join '', map { "SET audio_cleanup.$_;" } @settings;
	my $rows = $node->safe_psql('postgres', "LOAD 'audio_cleanup'; $set SELECT check_name, status, detail, hint FROM cleanup_check() WHERE check_name LIKE 's3%'");
	$seen .= $rows;
	return map { [ split /\|/ ] } split /\n/, $rows;
}

# stops_at(STEP, REGEX of its detail, NAME, SETTING ...)
sub stops_at
{
	my ($step, $detail, $name, @settings) = @_;
	my @rows = check(@settings);
	my @expected = map { "$_ ok" } @steps;
	my ($n) = grep { $steps[$_] eq $step } 0 .. $#steps;

	$#expected = $n;
	$expected[$n] = "$step error";
	is_deeply([ map { "$_->[0] $_->[1]" } @rows ], \@expected, "$name: it stops there");
	like($rows[-1][2], $detail, '... in words');
	isnt($rows[-1][3] // '', '', '... with a hint');
	return;
}

my @rows = check();
is_deeply([ map { "$_->[0] $_->[1]" } @rows ], [ map { "$_ ok" } @steps ], 'all is well, step by step');
is_deeply([ grep { defined $_->[3] && $_->[3] ne '' } @rows ], [], 'and no hint is needed');
is(s3($gateway, 'GET', 'audio', query => { versions => '', prefix => 'up/.audio_cleanup/' })->{content} =~ /canary/, '', 'nothing is left of the canary');

stops_at('s3_name', qr/nowhere\.invalid is not known: .*resolve/i, 'a name that is not known', "s3_endpoint = 'https://nowhere.invalid'");
stops_at('s3_tls', qr/does not answer: .*connect/i, 'nobody listens', "s3_endpoint = 'http://localhost:1'");
stops_at('s3_tls', qr/no safe connection: .*(?:SSL|TLS)/i, 'a server that does not speak TLS', "s3_endpoint = 'https://localhost:$gateway->{port}'");
set_rule($proxy, match => 'versioning', do => 'hold');
stops_at('s3_tls', qr/does not answer: .*timed out/i, 'a server that is silent', "s3_timeout = '500ms'");
clear_rules($proxy);

write_credentials({ access_key => $gateway->{access_key}, secret_key => 'wrong-secret-of-nobody' }, $credentials);
stops_at('s3_signature', qr/SignatureDoesNotMatch/, 'a wrong secret');
write_credentials({ access_key => 'AKNOBODY', secret_key => 'wrong-secret-of-nobody' }, $credentials);
stops_at('s3_signature', qr/InvalidAccessKeyId/, 'a key that nobody has');
write_credentials($gateway, $credentials);
foreach my $code ([ 'ExpiredToken', 400 ], [ 'AuthorizationHeaderMalformed', 400 ])
{
	set_rule($proxy, match => '.', do => 'refuse', error => $code->[0], code => $code->[1]);
	stops_at('s3_signature', qr/$code->[0]/, "refused as $code->[0]");
}

set_rule($proxy, match => '.', do => 'refuse', error => 'RequestTimeTooSkewed', code => 403);
stops_at('s3_clock', qr/RequestTimeTooSkewed/, 'the server finds our clock wrong');
set_rule($proxy, match => '.', do => 'skew');
stops_at('s3_clock', qr/differs by -3[56]\d\d seconds/, 'its clock is an hour off');
clear_rules($proxy);

foreach my $code ([ 'PermanentRedirect', 301 ], [ 'TemporaryRedirect', 307 ])
{
	set_rule($proxy, match => '.', do => 'refuse', error => $code->[0], code => $code->[1]);
	stops_at('s3_bucket', qr/HTTP status $code->[1], $code->[0]/, "$code->[0]: no redirect is followed");
	like((check())[-1][3], qr/s3_region or s3_endpoint/, '... the hint says what to correct');
}
clear_rules($proxy);

stops_at('s3_bucket', qr/there is no bucket "nosuchbucket": .*NoSuchBucket/, 'no such bucket', "upload_dir = 's3://nosuchbucket'");
if (honours_if_match($gateway, 'plain'))
{
	@rows = check("upload_dir = 's3://plain'");
	is_deeply([ map { "$_->[0] $_->[1]" } @rows ], [ map { "$_ ok" } @steps ], 'a bucket without versions, whose server honours If-Match: all is well');
	like($rows[-2][2], qr/only if it has the ETag that is meant/, '... in words');
	is($rows[-1][3] // '', '', '... and no hint is needed');
}
else
{
	stops_at('s3_delete', qr/whatever its ETag is/, 'a bucket without versions, whose server ignores If-Match', "upload_dir = 's3://plain'");
}
stops_at('s3_versioning', qr/no more/, 'a bucket that kept versions once', "upload_dir = 's3://suspended'");


# ---- servers encode a blank and a plus in different ways

rewrite($proxy, [ '%20', '+' ]);
is_deeply([ map { "$_->[0] $_->[1]" } check() ], [ map { "$_ ok" } @steps ], 'a server that writes a blank as a plus');
rewrite($proxy, [ '%2B', '+' ]);
stops_at('s3_names', qr/not listed as it is: the list has another name than the object/, 'one that writes a plus as it is');
rewrite($proxy);
is(s3($gateway, 'GET', 'audio', query => { versions => '', prefix => 'up/.audio_cleanup/' })->{content} =~ /canary/, '', 'nothing is left of the canary');


# ---- rights, one more each time

my $other = add_user($gateway, 'other');
write_credentials($other, $credentials);

my @rights = ('GetObjectTagging');
foreach my $case (
	[ 's3_bucket', qr/versions: .*AccessDenied/, 'GetBucketVersioning' ],
	[ 's3_list', qr/^files cannot be listed: .*AccessDenied/, 'ListBucket' ],
	[ 's3_list', qr/^versions of files cannot be listed: .*AccessDenied/, 'ListBucketVersions' ],
	[ 's3_delete', qr/could not be written: .*AccessDenied/, 'PutObject', 'GetObject' ],
	[ 's3_delete', qr/could not be deleted: .*AccessDenied/, 'DeleteObject' ],
	[ 's3_delete', qr/could not be deleted for good: .*AccessDenied/, 'DeleteObjectVersion', 'GetObjectVersion' ])
{
	my ($step, $detail, @missing) = @$case;

	let_user($gateway, 'other', @rights);
	stops_at($step, $detail, "without $missing[0]");
	push @rights, @missing;
}

# those that could not be deleted are removed by who can, when they are a minute old
sub canaries
{
	return () = s3($gateway, 'GET', 'audio', query => { versions => '', prefix => 'up/.audio_cleanup/canary' })->{content} =~ /<VersionId>/g;
}
my $left = canaries();
cmp_ok($left, '>', 0, 'who may write and not delete leaves canaries');
let_user($gateway, 'other', @rights);
rewrite($proxy, [ '<LastModified>[^<]*', '<LastModified>2026-01-02T03:04:05.000Z' ]);
@rows = check();
is("$rows[-1][0] $rows[-1][1]", 's3_names ok', 'with all rights all is well');
rewrite($proxy);
is(canaries(), 0, 'and they are removed');
let_user($gateway, 'other', grep { $_ ne 'DeleteObjectVersion' } @rights);
check();
$left = canaries();
rewrite($proxy, [ '<LastModified>[^<]*', '<LastModified>2026-01-02T03:04:05.000Z' ]);
stops_at('s3_delete', qr/could not be deleted for good/, 'without the right to delete versions, a second time');
is(canaries(), $left, 'there is no further canary');
rewrite($proxy);
let_user($gateway, 'other', @rights);
write_credentials($gateway, $credentials);


# ---- where nothing is to be written

my $puts = sub { scalar grep { /^(?:PUT|DELETE)/ } split /\n/, AudioCleanup::read_file("$PostgreSQL::Test::Utils::log_path/s3_proxy.log") };
my $before = $puts->();
my $rows = $node->safe_psql('postgres', "BEGIN READ ONLY; SELECT string_agg(check_name || ' ' || status, ' ') FROM cleanup_check() WHERE check_name LIKE 's3%'");
is($rows, join(' ', map { "$_ ok" } grep { !/^s3_(?:delete|names)$/ } @steps), 'in a read-only transaction there is no canary');
is($puts->(), $before, 'and nothing is written');
$node->safe_psql('postgres', 'SELECT cleanup_claim_upload_dir(); CREATE DATABASE other');
make_schema($node, 'other');
$before = $puts->();
$rows = $node->safe_psql('other', "SELECT string_agg(check_name || ' ' || status, ' ') FROM cleanup_check() WHERE check_name LIKE 's3%' OR check_name = 'claim'");
is($rows, join(' ', (map { "$_ ok" } grep { !/^s3_(?:delete|names)$/ } @steps), 'claim error'), 'nor in a bucket of another database');
is($puts->(), $before, 'nothing was written');
write_credentials($other, $credentials);
let_user($gateway, 'other', grep { $_ !~ /^GetObject/ } @rights);
stops_at('s3_claim', qr/cannot be read: .*AccessDenied/, 'without the right to read the claim');
unlink $credentials;
@rows = check();
is("@{[ map { qq($_->[0] $_->[1]) } @rows ]}", 's3_credentials error', 'without keys nothing is asked');
like($rows[0][2], qr/s3_credentials_file cannot be used/, '... in words');
is($node->safe_psql('postgres', "SET audio_cleanup.upload_dir = '/tmp'; SELECT count(*) FROM cleanup_check() WHERE check_name LIKE 's3%'"), '0', 'a directory has none of these rows');

unlike($seen . log_since($node, 0), qr/wrong-secret-of-nobody|\Q$gateway->{secret_key}\E|\Q$other->{secret_key}\E/, 'no key is told');

done_testing();
