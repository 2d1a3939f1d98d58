# Bucket.pm: a Ceph object gateway on loopback for the TAP tests, a client for it, and a proxy in between.

package Bucket;

use strict;
use warnings;

use Digest::SHA qw(hmac_sha256 hmac_sha256_hex sha256_hex);
use Exporter qw(import);
use File::Basename qw(dirname);
use File::Path qw(make_path);
use HTTP::Tiny;
use IO::Socket::INET;
use JSON::PP qw(decode_json encode_json);
use POSIX qw(WNOHANG strftime);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

use AudioCleanup qw(read_file wait_until);

our @EXPORT = qw(
  lacks_gateway start_gateway stop_gateway add_user write_credentials bucket_conf
  make_bucket s3 put_object versions_of keys_of start_proxy set_rule clear_rules is_held release
);

my %running;

# ---- the server ----

# What is missing for a gateway, or nothing.
sub lacks_gateway
{
	foreach my $program (qw(ceph-mon ceph-osd radosgw radosgw-admin ceph-authtool monmaptool uuidgen))
	{
		return $program unless grep { -x "$_/$program" } split /:/, $ENV{PATH};
	}
	return;
}

sub run_in_background
{
	my ($log, @command) = @_;
	my $pid = fork // die "could not fork: $!";

	if ($pid == 0)
	{
		open STDERR, '>>', "$PostgreSQL::Test::Utils::log_path/$log.log";
		open STDOUT, '>&', \*STDERR;
		exec(@command) or POSIX::_exit(127);
	}
	$running{$pid} = 1;
	return $pid;
}

sub is_listening
{
	my ($port) = @_;
	return defined IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 1);
}

# One monitor, one store in memory, one gateway; {port, endpoint, dir, access_key, secret_key}
sub start_gateway
{
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my ($monitor_port, $port) = (PostgreSQL::Test::Cluster::get_free_port(), PostgreSQL::Test::Cluster::get_free_port());
	my $conf = "$dir/ceph.conf";
	my $log = "$PostgreSQL::Test::Utils::log_path/ceph.log";
	chomp(my ($fsid, $osd) = (scalar `uuidgen`, scalar `uuidgen`));
	my $do = sub { system_or_bail("$_ >>$log 2>&1") foreach @_ };

	make_path("$dir/mon", "$dir/osd", "$dir/rgw", "$dir/run");
	append_to_file($conf, <<"END");
[global]
fsid = $fsid
mon host = v1:127.0.0.1:$monitor_port
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $dir/keyring
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 4294967296
mon max pg per osd = 1000
run dir = $dir/run
log file = $dir/\$name.log
admin socket = $dir/run/\$name.asok
ms bind ipv6 = false
ms bind msgr2 = false
osd class default list = *
osd class load list = *
[mon.a]
host = localhost
mon addr = v1:127.0.0.1:$monitor_port
mon data = $dir/mon
[osd.0]
osd data = $dir/osd
host = localhost
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw data = $dir/rgw
rgw dns name = localhost
rgw enable usage log = false
rgw run sync thread = false
rgw override bucket index max shards = 1
rgw thread pool size = 32
END
	$do->("ceph-authtool --create-keyring $dir/keyring --gen-key -n mon. --cap mon 'allow *'",
		"ceph-authtool $dir/keyring --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'",
		"ceph-authtool $dir/keyring --gen-key -n client.rgw --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'",
		"ceph-authtool $dir/keyring --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *' --cap mgr 'allow profile osd'",
		"monmaptool --create --addv a '[v1:127.0.0.1:$monitor_port]' --fsid $fsid $dir/monmap",
		"ceph-mon -c $conf --mkfs -i a --monmap $dir/monmap --keyring $dir/keyring");
	run_in_background('ceph_mon', 'ceph-mon', '-c', $conf, '-f', '-i', 'a');
	$do->("timeout 120 ceph -c $conf osd new $osd",
		"timeout 120 ceph -c $conf auth add osd.0 -i $dir/keyring",
		"ceph-osd -c $conf -i 0 --mkfs --osd-uuid $osd");
	run_in_background('ceph_osd', 'ceph-osd', '-c', $conf, '-f', '-i', '0');
	run_in_background('radosgw', 'radosgw', '-c', $conf, '-f', '-n', 'client.rgw');
	wait_until(sub { is_listening($port) }) or die 'the gateway has not started: see radosgw.log';

	my $server = { dir => $dir, port => $port, endpoint => "http://localhost:$port" };
	return add_user($server, 'audio');
}

# add_user(SERVER, NAME): the same server with this user's keys
sub add_user
{
	my ($server, $name) = @_;
	my ($access_key, $secret_key) = (uc "AK$name", "SK$name/" . 'x' x 20);

	system_or_bail("radosgw-admin -c $server->{dir}/ceph.conf -n client.rgw user create --uid=$name --display-name=$name"
		. " --access-key=$access_key --secret-key=$secret_key >>$PostgreSQL::Test::Utils::log_path/ceph.log 2>&1");
	return { %$server, access_key => $access_key, secret_key => $secret_key };
}

# write_credentials(SERVER, FILE): as audio_cleanup.s3_credentials_file
sub write_credentials
{
	my ($server, $file) = @_;

	unlink $file;
	append_to_file($file, "[default]\naws_access_key_id = $server->{access_key}\naws_secret_access_key = $server->{secret_key}\n");
	chmod 0600, $file;
	return;
}

# What a server needs in its configuration.
sub bucket_conf
{
	my ($url, $endpoint, $credentials) = @_;
	return <<"END";
audio_cleanup.upload_dir = '$url'
audio_cleanup.s3_endpoint = '$endpoint'
audio_cleanup.s3_credentials_file = '$credentials'
audio_cleanup.orphaned_file_retention_hours = 0
shared_preload_libraries = 'audio_cleanup'
END
}


# ---- a client ----

sub encode
{
	my ($text, $plain) = @_;
	return $text =~ s/([^A-Za-z0-9._~$plain-])/sprintf '%%%02X', ord $1/ger;
}

# s3(SERVER, METHOD, 'bucket/key', query => {}, headers => {}, body => BYTES); the response of HTTP::Tiny
sub s3
{
	my ($server, $method, $path, %options) = @_;
	my $body = $options{body} // '';
	my $date = strftime('%Y%m%dT%H%M%SZ', gmtime);
	my $scope = substr($date, 0, 8) . '/us-east-1/s3/aws4_request';
	my $query = join '&', map { encode($_, '') . '=' . encode($options{query}{$_}, '') } sort keys %{ $options{query} // {} };
	my $uri = '/' . encode($path, '/');
	my %headers = (%{ $options{headers} // {} }, 'x-amz-date' => $date, 'x-amz-content-sha256' => sha256_hex($body));
	my %signed = (%headers, host => "localhost:$server->{port}");
	my $names = join ';', sort keys %signed;
	my $canonical = join "\n", $method, $uri, $query, (map { "$_:$signed{$_}" } sort keys %signed), '', $names, sha256_hex($body);
	my $key = "AWS4$server->{secret_key}";

	$key = hmac_sha256($_, $key) foreach split m{/}, $scope;
	$headers{authorization} = "AWS4-HMAC-SHA256 Credential=$server->{access_key}/$scope, SignedHeaders=$names, Signature="
	  . hmac_sha256_hex(join("\n", 'AWS4-HMAC-SHA256', $date, $scope, sha256_hex($canonical)), $key);
	return HTTP::Tiny->new->request($method, "http://localhost:$server->{port}$uri" . ($query ne '' ? "?$query" : ''),
		{ headers => \%headers, content => $body });
}

sub expect
{
	my ($response) = @_;
	die "the gateway said $response->{status}: $response->{content}" unless $response->{success};
	return $response;
}

# make_bucket(SERVER, NAME, versioning => 'Enabled')
sub make_bucket
{
	my ($server, $bucket, %options) = @_;
	my $status = $options{versioning} // 'Enabled';

	expect(s3($server, 'PUT', $bucket)) unless $options{exists};
	expect(s3($server, 'PUT', $bucket, query => { versioning => '' },
			body => "<VersioningConfiguration><Status>$status</Status></VersioningConfiguration>"))
	  if $status ne '';
	return;
}

# put_object(SERVER, 'bucket/key', CONTENT); returns the version id
sub put_object
{
	my ($server, $path, $content) = @_;
	return expect(s3($server, 'PUT', $path, body => $content // "audio of $path\n"))->{headers}{'x-amz-version-id'};
}

sub decode
{
	my ($text) = @_;
	return $text =~ s/%([0-9A-F]{2})/chr hex $1/ger;
}

# versions_of(SERVER, BUCKET, PREFIX): key => [[version id, 'marker' or size], ...], newest first; not what is ours
sub versions_of
{
	my ($server, $bucket, $prefix) = @_;
	my ($key_marker, $version_marker, %versions) = ('', '');

	while (1)
	{
		my $page = expect(s3($server, 'GET', $bucket, query => { versions => '', prefix => $prefix, 'encoding-type' => 'url',
					$key_marker ne '' ? ('key-marker' => $key_marker, 'version-id-marker' => $version_marker) : () }))->{content};
		while ($page =~ m{<(Version|DeleteMarker)>(.*?)</\1>}gs)
		{
			my ($kind, $entry) = ($1, $2);
			my ($key) = $entry =~ m{<Key>(.*?)</Key>};
			my ($id) = $entry =~ m{<VersionId>(.*?)</VersionId>};
			my ($size) = $entry =~ m{<Size>(\d+)};
			$key = substr decode($key), length $prefix;
			push @{ $versions{$key} }, [ $id, $kind eq 'Version' ? $size : 'marker' ] unless $key =~ m{^\.audio_cleanup/};
		}
		last unless $page =~ m{<IsTruncated>true};
		($key_marker) = map { decode($_) } $page =~ m{<NextKeyMarker>(.*?)</NextKeyMarker>};
		($version_marker) = $page =~ m{<NextVersionIdMarker>(.*?)</NextVersionIdMarker>};
	}
	return \%versions;
}

# The names that are seen, sorted; not what is ours.
sub keys_of
{
	my ($server, $bucket, $prefix) = @_;
	my $versions = versions_of($server, $bucket, $prefix);
	return [ sort grep { $versions->{$_}[0][1] ne 'marker' } keys %$versions ];
}


# ---- a proxy ----

# start_proxy(SERVER): the same server by another port, with rules for what it does to requests
sub start_proxy
{
	my ($server) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $dir = PostgreSQL::Test::Utils::tempdir_short();

	run_in_background('s3_proxy', '/usr/bin/python3', dirname(__FILE__) . '/s3_proxy.py', $port, $server->{port}, $dir);
	wait_until(sub { is_listening($port) }) or die 'the proxy has not started: see s3_proxy.log';
	return { %$server, port => $port, endpoint => "http://localhost:$port", rules => $dir };
}

# set_rule(PROXY, match => REGEX of "METHOD URI", do => hold, hold_after, refuse, cut, cut_after, lie, repeat or skew, times => N)
sub set_rule
{
	my ($proxy, %rule) = @_;
	clear_rules($proxy);
	append_to_file("$proxy->{rules}/new", encode_json({ times => 1_000_000, %rule }));
	rename "$proxy->{rules}/new", "$proxy->{rules}/rule" or die "could not set a rule: $!";
	return;
}

sub clear_rules
{
	my ($proxy) = @_;
	unlink map { "$proxy->{rules}/$_" } qw(rule held used);
	return;
}

# Does a request wait in the proxy?
sub is_held
{
	my ($proxy) = @_;
	return wait_until(sub { -e "$proxy->{rules}/held" });
}

# Lets it pass, and all that come after it.
sub release
{
	my ($proxy) = @_;
	clear_rules($proxy);
	return;
}

END
{
	my $status = $?;
	kill 'KILL', keys %running if %running;
	waitpid $_, 0 foreach keys %running;
	$? = $status;
}

1;
