# Bucket.pm: a Ceph object gateway, or OpenStack Swift, on loopback for the TAP tests, a client for it, and a proxy in between.

package Bucket;

use strict;
use warnings;
use feature 'state';

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
use Test::More import => ['plan'];

use AudioCleanup qw(add_rows make_schema new_server read_file wait_until);

our @EXPORT = qw(
  start_bucket put_objects fill_bucket kill_worker states_of let_user
  start_gateway start_swift stop_gateway add_user add_role session_keys write_credentials bucket_conf
  make_bucket s3 expect put_object honours_if_match versions_of keys_of begin_upload put_part complete_upload uploads_of start_pages start_proxy set_rule clear_rules is_held release rewrite
  start_key_service give_out make_authority make_certificate
);

my %running;

# ---- the server ----

# Skips the test if a program is missing.
sub needs
{
	my (@programs) = @_;
	foreach my $program (@programs)
	{
		plan skip_all => "there is no $program" unless grep { -x "$_/$program" } split /:/, $ENV{PATH};
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

# start_gateway(sessions => BOOL): one monitor, one store in memory, one gateway; {port, endpoint, dir, access_key, secret_key}.
# One that gives out keys of sessions refuses wrong keys without saying why.  Skips the test where there is no Ceph.
sub start_gateway
{
	my (%options) = @_;
	needs(qw(ceph-mon ceph-osd radosgw radosgw-admin ceph-authtool monmaptool uuidgen));
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my ($monitor_port, $port) = (PostgreSQL::Test::Cluster::get_free_port(), PostgreSQL::Test::Cluster::get_free_port());
	my $pid = run_in_background('gateway', dirname(__FILE__) . '/../script/gateway', $dir, $monitor_port, $port,
		$options{sessions} ? '--sessions' : ());

	wait_until(sub { -e "$dir/ready" || waitpid($pid, WNOHANG) }) && -e "$dir/ready"
	  or die 'the gateway has not started: ' . read_file("$dir/log");
	return { dir => $dir, port => $port, endpoint => "http://localhost:$port", access_key => 'AKAUDIO', secret_key => 'SKaudio/' . 'x' x 20 };
}

# One server of each kind, and s3api in the proxy; as start_gateway()
sub start_swift
{
	needs(qw(memcached swift-ring-builder swift-account-server swift-container-server swift-object-server swift-proxy-server));
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my %port = map { $_ => PostgreSQL::Test::Cluster::get_free_port() } qw(account container object cache proxy);
	my $user = getpwuid $>;

	make_path("$dir/devices/d1");
	append_to_file("$dir/swift.conf", <<"END");
[swift-hash]
swift_hash_path_prefix = before
swift_hash_path_suffix = after
[storage-policy:0]
name = only
default = yes
END
	foreach my $kind (qw(account container object))
	{
		append_to_file("$dir/$kind.conf", <<"END");
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $port{$kind}
swift_dir = $dir
devices = $dir/devices
mount_check = false
disable_fallocate = true
user = $user
workers = 0
conn_timeout = 30
node_timeout = 60
[pipeline:main]
pipeline = $kind-server
[app:$kind-server]
use = egg:swift#$kind
END
		system_or_bail("swift-ring-builder $dir/$kind.builder $_ >>$PostgreSQL::Test::Utils::log_path/swift.log")
		  foreach 'create 4 1 1', "add r1z1-127.0.0.1:$port{$kind}/d1 1", 'rebalance';
	}
	append_to_file("$dir/proxy.conf", <<"END");
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = $port{proxy}
swift_dir = $dir
user = $user
workers = 0
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats bulk s3api tempauth slo dlo versioned_writes symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
conn_timeout = 30
node_timeout = 60
allow_account_management = true
account_autocreate = true
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:$port{cache}
[filter:tempauth]
use = egg:swift#tempauth
user_audio_audio = SKaudio .admin
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
location = us-east-1
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
END
	append_to_file("$dir/proxy.conf", "[filter:$_]\nuse = egg:swift#$_\n")
	  foreach qw(catch_errors gatekeeper listing_formats bulk slo dlo symlink);
	run_in_background('swift_cache', 'memcached', '-l', '127.0.0.1', '-p', $port{cache}, '-m', '16');
	run_in_background("swift_$_", "swift-$_-server", "$dir/$_.conf") foreach qw(account container object proxy);
	foreach my $kind (qw(account container object proxy))
	{
		wait_until(sub { is_listening($port{$kind}) }) or die "Swift has not started: see swift_$kind.log";
	}
	return { dir => $dir, port => $port{proxy}, endpoint => "http://localhost:$port{proxy}",
		access_key => 'audio:audio', secret_key => 'SKaudio' };
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

# add_role(SERVER, NAME): a role that the user of SERVER may assume, and that may do all with buckets
sub add_role
{
	my ($server, $name) = @_;
	my $do = "radosgw-admin -c $server->{dir}/ceph.conf -n client.rgw";
	my $trust = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam:::user/audio"]},"Action":["sts:AssumeRole"]}]}';
	my $all = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":"arn:aws:s3:::*"}]}';
	my $log = ">>$PostgreSQL::Test::Utils::log_path/ceph.log 2>&1";

	system_or_bail("$do role create --role-name=$name --assume-role-policy-doc='$trust' $log");
	system_or_bail("$do role-policy put --role-name=$name --policy-name=all --policy-doc='$all' $log");
	return;
}

# session_keys(SERVER, ROLE, SECONDS): the same server with keys of a session that ends then
sub session_keys
{
	my ($server, $role, $seconds) = @_;
	my $answer = expect(s3($server, 'POST', '', service => 'sts', headers => { 'content-type' => 'application/x-www-form-urlencoded' },
			body => "Action=AssumeRole&DurationSeconds=$seconds&RoleArn=arn%3Aaws%3Aiam%3A%3A%3Arole%2F$role&RoleSessionName=test&Version=2011-06-15"))->{content};
	my %session = map { $_ => $answer =~ m{<$_>(.*?)</$_>} } qw(AccessKeyId SecretAccessKey SessionToken Expiration);

	return { %$server, access_key => $session{AccessKeyId}, secret_key => $session{SecretAccessKey}, token => $session{SessionToken},
		expires => $session{Expiration} };
}

# write_credentials(SERVER, FILE): as audio_cleanup.s3_credentials_file
sub write_credentials
{
	my ($server, $file) = @_;

	unlink $file;
	append_to_file($file, "[default]\naws_access_key_id = $server->{access_key}\naws_secret_access_key = $server->{secret_key}\n"
		. ($server->{token} ? "aws_session_token = $server->{token}\n" : ''));
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

# s3(SERVER, METHOD, 'bucket/key', query => {}, headers => {}, body => BYTES, service => 's3', agent => an HTTP::Tiny that
# keeps its connection); the response of HTTP::Tiny
sub s3
{
	my ($server, $method, $path, %options) = @_;
	my $body = $options{body} // '';
	my $date = strftime('%Y%m%dT%H%M%SZ', gmtime);
	my $scope = substr($date, 0, 8) . '/us-east-1/' . ($options{service} // 's3') . '/aws4_request';
	my $query = join '&', map { encode($_, '') . '=' . encode($options{query}{$_}, '') } sort keys %{ $options{query} // {} };
	my $uri = '/' . encode($path, '/');
	# HTTP::Tiny names the type of a body, and a type that is not signed is refused
	my %headers = ($body ne '' ? ('content-type' => 'application/octet-stream') : (), %{ $options{headers} // {} },
		'x-amz-date' => $date, 'x-amz-content-sha256' => sha256_hex($body));
	my %signed = (%headers, host => "localhost:$server->{port}");
	my $names = join ';', sort keys %signed;
	my $canonical = join "\n", $method, $uri, $query, (map { "$_:$signed{$_}" } sort keys %signed), '', $names, sha256_hex($body);
	my $key = "AWS4$server->{secret_key}";

	$key = hmac_sha256($_, $key) foreach split m{/}, $scope;
	$headers{authorization} = "AWS4-HMAC-SHA256 Credential=$server->{access_key}/$scope, SignedHeaders=$names, Signature="
	  . hmac_sha256_hex(join("\n", 'AWS4-HMAC-SHA256', $date, $scope, sha256_hex($canonical)), $key);
	return ($options{agent} // HTTP::Tiny->new)->request($method, "http://localhost:$server->{port}$uri" . ($query ne '' ? "?$query" : ''),
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

# honours_if_match(SERVER, BUCKET without versions): whether the server refuses to delete an object that is not the one that is
# meant.  It is asked what it does with an object of the test's own, which is removed.
sub honours_if_match
{
	my ($server, $bucket) = @_;
	my $canary = "$bucket/canary of the test";
	my ($status, $is_there);

	put_object($server, $canary);
	$status = s3($server, 'DELETE', $canary, headers => { 'if-match' => '"' . '0' x 32 . '"' })->{status};
	$is_there = s3($server, 'GET', $canary)->{status} == 200;
	die "a DELETE with another ETag has status $status, and the object is " . ($is_there ? 'there' : 'gone')
	  unless $is_there ? $status == 412 : $status == 204;
	expect(s3($server, 'DELETE', $canary));
	return $is_there;
}

# fill_bucket(SERVER, 'bucket/prefix', NAME ...): as put_objects(), for very many: by four processes, of a few bytes each
sub fill_bucket
{
	my ($server, $prefix, @names) = @_;
	my @children;

	foreach my $part (0 .. 3)
	{
		my $pid = fork // die "could not fork: $!";
		if ($pid == 0)
		{
			my $agent = HTTP::Tiny->new(keep_alive => 1);
			my $done = eval {
				for (my $i = $part; $i < @names; $i += 4)
				{
					expect(s3($server, 'PUT', "$prefix/$names[$i]", body => 'audio', agent => $agent));
				}
				1;
			};
			warn $@ unless $done;
			# no END of ours, which would end the gateway
			POSIX::_exit($done ? 0 : 1);
		}
		push @children, $pid;
	}
	foreach my $pid (@children)
	{
		waitpid $pid, 0;
		die 'the bucket could not be filled' if $? != 0;
	}
	sleep 2;	# times are in whole seconds
	return;
}

# put_objects(SERVER, 'bucket/prefix', NAME ...): each is old when this is over
sub put_objects
{
	my ($server, $prefix, @names) = @_;
	put_object($server, "$prefix/$_") foreach @names;
	sleep 2;	# times are in whole seconds
	return;
}

sub decode
{
	my ($text) = @_;
	return $text =~ s/%([0-9A-F]{2})/chr hex $1/ger;
}

# start_bucket(SERVER, NAME, proxy => that of start_proxy(), conf => TEXT): the bucket "audio", in which wanted.mp3 is wanted,
# and a database server that has it; {node, credentials}
sub start_bucket
{
	my ($server, $name, %options) = @_;
	my $credentials = PostgreSQL::Test::Utils::tempdir_short() . '/credentials';
	my $node;

	write_credentials($server, $credentials);
	make_bucket($server, 'audio');
	$node = new_server($name, conf => bucket_conf('s3://audio/up', ($options{proxy} || $server)->{endpoint}, $credentials)
		. "audio_cleanup.file_age = 'newest'\n" . ($options{conf} || ''));
	make_schema($node);
	add_rows($node, 'wanted.mp3');
	return ($node, $credentials);
}

# let_user(SERVER, USER, ACTION ...): what the user may do in the bucket "audio", and nothing else
sub let_user
{
	my ($server, $user, @actions) = @_;
	expect(s3($server, 'PUT', 'audio', query => { policy => '' }, body => encode_json({ Version => '2012-10-17', Statement => [ {
		Effect => 'Allow', Principal => { AWS => [ "arn:aws:iam:::user/$user" ] }, Action => [ map { "s3:$_" } @actions ],
		Resource => [ 'arn:aws:s3:::audio', 'arn:aws:s3:::audio/*' ] } ] })));
	return;
}

# kill_worker(NODE, PROXY that holds it): kills it, and waits until the server is back
sub kill_worker
{
	my ($node, $proxy) = @_;
	my $pid = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain'");

	kill 'KILL', $pid;
	die "process $pid does not end" unless wait_until(sub { !kill 0, $pid });
	release($proxy);
	die 'the server does not come back' unless $node->poll_query_until('postgres', 'SELECT true');
	return;
}

# states_of(NODE): what has become of the files of the last run
sub states_of
{
	my ($node) = @_;
	return $node->safe_psql('postgres', q{SELECT string_agg(file || ' ' || state, ', ' ORDER BY file, file_id) FROM cleanup_files
		WHERE run_id = (SELECT max(run_id) FROM cleanup_files)});
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

# begin_upload(SERVER, 'bucket/key', CONTENT of its first part ...); returns the id of the upload
sub begin_upload
{
	my ($server, $path, @parts) = @_;
	my ($id) = expect(s3($server, 'POST', $path, query => { uploads => '' }))->{content} =~ m{<UploadId>(.*?)</UploadId>};
	my $n = 0;

	put_part($server, $path, $id, ++$n, $_) foreach @parts;
	return $id;
}

sub put_part
{
	my ($server, $path, $id, $number, $content) = @_;
	return expect(s3($server, 'PUT', $path, query => { partNumber => $number, uploadId => $id }, body => $content))->{headers}{etag};
}

# Completes an upload that has one part.
sub complete_upload
{
	my ($server, $path, $id) = @_;
	my ($etag) = expect(s3($server, 'GET', $path, query => { uploadId => $id }))->{content} =~ m{<ETag>(.*?)</ETag>};
	expect(s3($server, 'POST', $path, query => { uploadId => $id },
			body => "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>$etag</ETag></Part></CompleteMultipartUpload>"));
	return;
}

# The keys of the uploads that are under way, sorted.
sub uploads_of
{
	my ($server, $bucket, $prefix) = @_;
	my $page = expect(s3($server, 'GET', $bucket, query => { uploads => '', prefix => $prefix, 'encoding-type' => 'url' }))->{content};
	my @keys = map { substr decode($_), length $prefix } $page =~ m{<Key>(.*?)</Key>}g;
	return [ sort @keys ];
}


# ---- certificates ----

# make_authority(DIR, NAME): who signs certificates; its own is DIR/NAME.pem
sub make_authority
{
	my ($dir, $name) = @_;

	run_openssl($dir, "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=$name -keyout $dir/$name.key -out $dir/$name.pem");
	return;
}

# make_certificate(DIR, AUTHORITY, NAME, [HOST, ...], from => 'YYMMDDhhmmssZ', to => ...): with its key in DIR/NAME.pem, which is returned
sub make_certificate
{
	my ($dir, $authority, $name, $hosts, %time) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir_short();
	my $from = $time{from} // strftime('%y%m%d%H%M%SZ', gmtime time - 3600);
	my $to = $time{to} // strftime('%y%m%d%H%M%SZ', gmtime time + 86400);

	append_to_file("$folder/index", '');
	append_to_file("$folder/conf", <<"END");
[ca]
default_ca = authority
[authority]
database = $folder/index
new_certs_dir = $folder
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = extensions
[any]
commonName = supplied
[extensions]
subjectAltName = @{[ join ', ', map { "DNS:$_" } @$hosts ]}
END
	run_openssl($dir, "req -newkey rsa:2048 -nodes -subj /CN=$hosts->[0] -keyout $dir/$name.key -out $dir/$name.csr");
	run_openssl($dir, "ca -batch -config $folder/conf -cert $dir/$authority.pem -keyfile $dir/$authority.key"
		. " -startdate $from -enddate $to -notext -in $dir/$name.csr -out $dir/$name.pem");
	append_to_file("$dir/$name.pem", read_file("$dir/$name.key"));
	return "$dir/$name.pem";
}

sub run_openssl
{
	my ($dir, $command) = @_;
	system_or_bail("openssl $command 2>>$dir/openssl.log");
	return;
}


# ---- a bucket that is made up ----

# start_pages(PROGRAM, KEYS, ORPHANS): the port of a server of so many keys; see bench/pages.py
sub start_pages
{
	my ($program, $keys, $orphans) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();

	run_in_background('pages', '/usr/bin/python3', $program, $port, $keys, $orphans);
	wait_until(sub { is_listening($port) }) or die 'pages.py has not started: see pages.log';
	return $port;
}


# ---- a proxy ----

# start_proxy(SERVER, CERTIFICATE): the same server by another port, with rules for what it does to requests
sub start_proxy
{
	my ($server, $certificate) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $dir = PostgreSQL::Test::Utils::tempdir_short();

	run_in_background('s3_proxy', '/usr/bin/python3', dirname(__FILE__) . '/s3_proxy.py', $port, $server->{port}, $dir, $certificate // ());
	wait_until(sub { is_listening($port) }) or die 'the proxy has not started: see s3_proxy.log';
	return { %$server, port => $port, endpoint => ($certificate ? 'https' : 'http') . "://localhost:$port", rules => $dir };
}

# set_rule(PROXY, match => REGEX of "METHOD URI", do => as s3_proxy.py says, times => N, skip => N)
sub set_rule
{
	my ($proxy, %rule) = @_;
	state $id = 0;
	clear_rules($proxy);
	append_to_file("$proxy->{rules}/new", encode_json({ times => 1_000_000, id => ++$id, %rule }));
	rename "$proxy->{rules}/new", "$proxy->{rules}/rule" or die "could not set a rule: $!";
	return;
}

sub clear_rules
{
	my ($proxy) = @_;
	unlink map { "$proxy->{rules}/$_" } qw(rule held used);
	return;
}

# rewrite(PROXY, [REGEX, TEXT], ...): in each answer from now on; with no pair, answers are passed on as they are
sub rewrite
{
	my ($proxy, @pairs) = @_;
	append_to_file("$proxy->{rules}/new", encode_json(\@pairs));
	rename "$proxy->{rules}/new", "$proxy->{rules}/rewrite" or die "could not rewrite answers: $!";
	return;
}

# start_key_service(): a service that gives out keys, in each of the ways that key_service.py has; {port, url, dir, log}
sub start_key_service
{
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $dir = PostgreSQL::Test::Utils::tempdir_short();

	run_in_background('key_service', '/usr/bin/python3', dirname(__FILE__) . '/key_service.py', $port, $dir);
	wait_until(sub { is_listening($port) }) or die 'the key service has not started: see key_service.log';
	return { port => $port, url => "http://127.0.0.1:$port", dir => $dir, log => "$PostgreSQL::Test::Utils::log_path/key_service.log" };
}

# give_out(SERVICE, SERVER, how => WORD): from now on the service gives out the keys of SERVER, in the way of key_service.py
sub give_out
{
	my ($service, $server, %options) = @_;

	append_to_file("$service->{dir}/new", encode_json({ how => '', %options, map { $_ => $server->{$_} } qw(access_key secret_key token expires) }));
	rename "$service->{dir}/new", "$service->{dir}/keys" or die "could not give out keys: $!";
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
	# the gateway ends what it has started
	kill 'TERM', keys %running if %running;
	waitpid $_, 0 foreach keys %running;
	$? = $status;
}

1;
