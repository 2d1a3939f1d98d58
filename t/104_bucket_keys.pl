# Where the keys to a bucket come from: a file, the environment, a token
# service, the service for containers, the metadata service of the machine.
# They are renewed before they expire, and are nowhere to be seen.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Bucket;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

delete $ENV{$_} foreach grep { /^AWS_/ } keys %ENV;
my $gateway = start_gateway(sessions => 1);
my $proxy = start_proxy($gateway);
my $service = start_key_service();
my $folder = PostgreSQL::Test::Utils::tempdir_short();
my $credentials = "$folder/credentials";
make_bucket($gateway, 'audio');
add_role($gateway, 'writer');

my $node = new_server('bucket_keys', conf => bucket_conf('s3://audio/up', $proxy->{endpoint}, '') . "audio_cleanup.s3_timeout = '5s'\n");
make_schema($node);
add_rows($node, 'wanted.mp3');
put_object($gateway, 'audio/up/wanted.mp3');

my @secrets;

# Which keys the service gives out, for so many seconds.
sub session
{
	my ($seconds) = @_;
	my $session = session_keys($gateway, 'writer', $seconds);
	push @secrets, @{$session}{qw(secret_key token)};
	return $session;
}

# A server in an environment with these variables.
sub restart_with
{
	my (%variables) = @_;
	local %ENV = (%ENV, %variables);
	$node->restart;
	return;
}

sub set { return set_setting($node, @_) }

# What cleanup_check() says of the keys.
sub keys_row { return sql("SELECT status || ': ' || detail FROM cleanup_check() WHERE check_name = 's3_credentials'") }
sub preview { return sql_json($node, 'SELECT cleanup_all(dry_run => true)')->{result} }
sub asked { return scalar grep { /$_[0]/ } split /\n/, AudioCleanup::read_file($service->{log}) }

sub put { return put_objects($gateway, 'audio/up', @_) }


# ---- the metadata service of the machine

give_out($service, session(900));
restart_with(AWS_EC2_METADATA_SERVICE_ENDPOINT => $service->{url});
like(keys_row(), qr/^error: .*s3_metadata_service is off/, 'without keys the metadata service is not asked');
is(asked('.'), 0, 'indeed');
set('s3_metadata_service', 'on');
is(keys_row(), 'ok: the keys come from the metadata service of this machine', 'when it may be, it is');
is_deeply(preview()->{errors}, [], 'with these keys the bucket can be looked at');
put('a.mp3');
sql('SELECT cleanup_all()');
ok(wait_for_drain($node), 'a worker fetches keys of its own');
is_deeply(keys_of($gateway, 'audio', 'up/'), ['wanted.mp3'], 'and deletes with them');

my $before = asked('token');
my $session = $node->background_psql('postgres');
$session->query_safe('SELECT cleanup_status()') foreach 1 .. 3;
is(asked('token') - $before, 1, 'a process asks once for several calls');

# keys that end soon
give_out($service, session(20));
$before = asked('token');
my $short = $node->background_psql('postgres');
$short->query_safe('SELECT cleanup_status()');
give_out($service, session(900));
sleep 16;
like($short->query_safe('SELECT cleanup_status()'), qr/"error_count": 0/, 'keys are renewed before they expire');
is(asked('token') - $before, 2, 'not for each call');
$short->quit;

# keys whose time is over before it was told
give_out($service, { %{ session(3) }, expires => '2026-01-01T00:00:00Z' });
$short = $node->background_psql('postgres');
$short->query_safe('SELECT cleanup_status()');
sleep 4;
give_out($service, session(900));
like($short->query_safe('SELECT cleanup_status()'), qr/"error_count": 0/, 'nor does it matter that the service told a time that is past');
$short->quit;

# a server that finds them expired in the middle of a call
set_rule($proxy, match => 'list-type', do => 'refuse', error => 'ExpiredToken', code => 400, times => 1);
give_out($service, session(900));
like($session->query_safe('SELECT cleanup_status()'), qr/"error_count": 0/, 'keys that the server finds expired are renewed, and the request is repeated');
set_rule($proxy, match => 'list-type', do => 'refuse', error => 'ExpiredToken', code => 400, times => 1000);
like($session->query_safe('SELECT cleanup_status()'), qr/ExpiredToken/, 'but not for ever, if the service has no others');
is(AudioCleanup::read_file("$proxy->{rules}/used") =~ tr/x//, 1, 'the server is not asked again then');
clear_rules($proxy);

# keys that cannot be had for one request of a worker, and then can: nothing is captured that stands in no manifest
set('s3_requests', 1);
give_out($service, { %{ session(900) }, expires => '2026-01-01T00:00:00Z' });
put('unwritten.mp3');
set_rule($proxy, match => '^PUT /audio/up/\.audio_cleanup/lease', do => 'hold');
sql('SELECT cleanup_all()');
ok(is_held($proxy), 'a worker has keys');
set_rule($proxy, match => '^GET .*key-marker=.*versions=', do => 'hold');
ok(is_held($proxy), 'and looks at its file');
give_out($service, session(900), how => 'once');
release($proxy);
ok(wait_for_drain($node), 'the run is over');
like(sql("SELECT state || ': ' || error FROM cleanup_files WHERE file = 'unwritten.mp3'"),
	qr/^failed: could not write manifest: no keys from .*HTTP status 401/, 'a file that no manifest names is not captured');
is_deeply(keys_of($gateway, 'audio', 'up/'), [ 'unwritten.mp3', 'wanted.mp3' ], 'it is in its place');
sql('CALL cleanup_run()');
is_deeply(keys_of($gateway, 'audio', 'up/'), ['wanted.mp3'], 'and goes with the next run');
set('s3_requests');

# the service does not do what it should
$session->quit;
my $good = session(900);
foreach my $case ([ refuse => qr/HTTP status 401/ ], [ no_role => qr/this machine has no role/ ], [ garbage => qr/holds no keys/ ], [ cut => qr/holds no keys/ ],
	[ slow => qr/timed out/i ])
{
	my ($how, $says) = @$case;
	my $began = time;

	give_out($service, $good, how => $how);
	like(keys_row(), qr/^error: no keys from the metadata service of this machine: .*$says/i, "$how: it says so");
	cmp_ok(time - $began, '<', 30, '... without waiting long');
	unlike(join(' ', @{ preview()->{errors} }), qr/metadata-token/, '... and tells no token');
}
give_out($service, $good, how => 'decoy');
is_deeply(preview()->{errors}, [], 'the keys are those of the object itself, however they are written');
foreach my $how ('slow', 'slow_role')
{
	give_out($service, $good, how => $how);
	my $roles = asked('security-credentials/$');
	my (undef, undef, $error) = $node->psql('postgres', "SET statement_timeout = '500ms'; SELECT cleanup_status()");
	like($error, qr/statement timeout/, "$how: whoever waits can be cancelled");
	cmp_ok(asked('security-credentials/$'), '>', $roles, 'and had come to the name of the role') if $how eq 'slow_role';
}

# old keys that are still valid do, while new ones cannot be had
give_out($service, session(40));
$short = $node->background_psql('postgres');
$short->query_safe('SELECT cleanup_status()');
give_out($service, $good, how => 'refuse');
sleep 31;
like($short->query_safe('SELECT cleanup_status()'), qr/"error_count": 0/, 'keys that are still valid are used while there are no new ones');
sleep 10;
like($short->query_safe('SELECT cleanup_status()'), qr/HTTP status 401/, 'and no longer');
$short->quit;

# addresses that are not of this machine, or only look so
give_out($service, $good);
foreach my $url ('http://198.51.100.1', 'http://127.0.0.1.example.com', 'http://localhost:1', 'http://169.254.169.254@198.51.100.1',
	'http://[2001:db8::1]', 'http://127.0.0.1:1x', 'ftp://127.0.0.1', 'http://[::1]x')
{
	restart_with(AWS_EC2_METADATA_SERVICE_ENDPOINT => $url);
	like(keys_row(), qr/neither on this machine nor link-local/, "$url is not asked");
}
restart_with(AWS_EC2_METADATA_SERVICE_ENDPOINT => 'http://[::1]:1/');
like(keys_row(), qr/no keys from the metadata service of this machine: .*connect/i, 'but [::1] is');


# ---- the service for containers

my %container = (AWS_CONTAINER_CREDENTIALS_FULL_URI => "$service->{url}/container", AWS_CONTAINER_AUTHORIZATION_TOKEN => 'Bearer container-token');
restart_with(%container);
is(keys_row(), 'ok: the keys come from the service for containers that the environment names', 'a container has a service of its own');
is_deeply(preview()->{errors}, [], 'its keys do');
append_to_file("$folder/token", "Bearer container-token\n");
restart_with(%container, AWS_CONTAINER_AUTHORIZATION_TOKEN => 'Bearer wrong', AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE => "$folder/token");
is_deeply(preview()->{errors}, [], 'the token may come from a file');
restart_with(%container, AWS_CONTAINER_AUTHORIZATION_TOKEN => 'Bearer wrong');
like(keys_row(), qr/^error: no keys from the service for containers: HTTP status 403/, 'a wrong token is refused');
restart_with(AWS_CONTAINER_CREDENTIALS_FULL_URI => 'http://198.51.100.1/container');
like(keys_row(), qr/neither on this machine nor link-local/, 'no other machine is asked');


# ---- the token service

append_to_file("$folder/identity", "eyJhbGciOi.identity-of-nobody.c2ln\n");
append_to_file("$service->{dir}/identity", "eyJhbGciOi.identity-of-nobody.c2ln\n");
push @secrets, 'identity-of-nobody', 'container-token', 'metadata-token';
my %identity = (AWS_WEB_IDENTITY_TOKEN_FILE => "$folder/identity", AWS_ROLE_ARN => 'arn:aws:iam::1:role/writer', AWS_ENDPOINT_URL_STS => "http://127.0.0.1:$service->{port}");
restart_with(%container, %identity);
is(keys_row(), 'ok: the keys come from the token service, for the web identity that the environment names', 'a web identity goes before a container');
is_deeply(preview()->{errors}, [], 'its keys do');
put('b.mp3');
sql('CALL cleanup_run()');
is_deeply(keys_of($gateway, 'audio', 'up/'), ['wanted.mp3'], 'a file can be deleted with them');
foreach my $how (qw(garbage cut entity))
{
	give_out($service, $good, how => $how);
	like(keys_row(), qr/^error: no keys from the token service: its answer cannot be read/, "$how: an answer without keys is told");
}
give_out($service, $good, how => 'decoy');
is_deeply(preview()->{errors}, [], 'keys are those of the credentials, however they are written');
give_out($service, $good);
restart_with(%identity, AWS_ROLE_ARN => 'arn:aws:iam::1:role/other');
like(keys_row(), qr/^error: no keys from the token service: HTTP status 400, InvalidIdentityToken$/, 'what it refuses is told, and nothing else');
restart_with(%identity, AWS_WEB_IDENTITY_TOKEN_FILE => "$folder/none");
like(keys_row(), qr/AWS_WEB_IDENTITY_TOKEN_FILE cannot be read: No such file/, 'so is a missing file');
restart_with(%identity, AWS_ENDPOINT_URL_STS => 'http://sts.example.com');
like(keys_row(), qr/without TLS/, 'an identity is sent to no other machine without TLS');


# ---- environment, file

my %environment = (AWS_ACCESS_KEY_ID => $gateway->{access_key}, AWS_SECRET_ACCESS_KEY => $gateway->{secret_key});
push @secrets, $gateway->{secret_key};
restart_with(%container, %identity, %environment);
is(keys_row(), 'ok: the keys come from the environment of the server', 'keys in the environment go first');
is_deeply(preview()->{errors}, [], 'they do');
$session = session(900);
restart_with(AWS_ACCESS_KEY_ID => $session->{access_key}, AWS_SECRET_ACCESS_KEY => $session->{secret_key}, AWS_SESSION_TOKEN => $session->{token});
is_deeply(preview()->{errors}, [], 'so do those of a session');
write_credentials($gateway, $credentials);
set('s3_credentials_file', "'$credentials'");
is(keys_row(), 'ok: the keys come from audio_cleanup.s3_credentials_file', 'the file goes before all');
is_deeply(preview()->{errors}, [], 'its keys do');

# the file is written anew in the middle of a call
write_credentials(session(900), $credentials);
set_rule($proxy, match => 'versioning', do => 'hold');
my $reader = $node->background_psql('postgres');
$reader->query_until(qr/begun/, "\\echo begun\nSELECT cleanup_status();\n\\echo over\n");
ok(is_held($proxy), 'a call has read its keys');
write_credentials(session(900), $credentials);
set_rule($proxy, match => 'list-type', do => 'refuse', error => 'ExpiredToken', code => 400, times => 1);
like($reader->query_until(qr/over/, ''), qr/"error_count": 0/, 'when they have expired, the file is read again');
$reader->quit;
clear_rules($proxy);

my $told = join '', log_since($node, 0), sql('SELECT cleanup_config()'), sql("SELECT string_agg(s::text, '') FROM cleanup_runs s"),
  sql("SELECT string_agg(s::text, '') FROM pg_settings s");
is_deeply([ grep { index($told, $_) >= 0 } @secrets ], [], 'no key and no token is in a log, a row or a setting');

done_testing();
