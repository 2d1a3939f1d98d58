# A bucket whose server is reached by TLS, and by names of its own; and keys
# of a session that end in the middle of a run.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Bucket;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $gateway = start_gateway(sessions => 1);
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $credentials = "$dir/credentials";

make_authority($dir, $_) foreach 'authority', 'stranger';
my $front = start_proxy($gateway, make_certificate($dir, 'authority', 'good', [ 'localhost', 'audio.localhost' ]));
write_credentials($gateway, $credentials);
make_bucket($gateway, 'audio');

my $node = new_server('bucket_tls', conf => bucket_conf('s3://audio/up', $front->{endpoint}, $credentials) . <<"END");
audio_cleanup.s3_ca_file = '$dir/authority.pem'
audio_cleanup.s3_timeout = '60s'
END
make_schema($node);
add_rows($node, 'wanted.mp3');
put_object($gateway, 'audio/up/wanted.mp3');

sub visible { return keys_of($gateway, 'audio', 'up/') }

sub put { return put_objects($gateway, 'audio/up', @_) }

# What cleanup_check() says of TLS, with these settings for the session.
sub tls_row
{
	my (@settings) = @_;
	my $set = join '', map { "SET audio_cleanup.$_;" } @settings;
	return sql("LOAD 'audio_cleanup'; $set SELECT status || ': ' || detail FROM cleanup_check() WHERE check_name = 's3_tls'");
}

# A real run with these settings is refused, in these words, and deletes nothing.
sub refused
{
	my ($says, $name, @settings) = @_;
	my $set = join '', map { "SET audio_cleanup.$_;" } @settings;
	my ($status, $out, $error) = $node->psql('postgres', "LOAD 'audio_cleanup'; $set SELECT cleanup_all()");

	like($error, qr/could not reach upload directory.*$says/s, "$name: no run is made");
	like(tls_row(@settings), qr/^error: there is no safe connection: .*$says/, '... cleanup_check() says why');
	return;
}


# ---- certificates

is(tls_row(), 'ok: the certificate of the server is accepted', 'a good certificate is accepted');
put('a.mp3');
sql('CALL cleanup_run()');
is_deeply(visible(), ['wanted.mp3'], 'and a file goes');

put('b.mp3');
my %expired = (from => '200101000000Z', to => '210101000000Z');
my %fronts = (
	wrong_name => start_proxy($gateway, make_certificate($dir, 'authority', 'wrong_name', ['elsewhere.example'])),
	expired => start_proxy($gateway, make_certificate($dir, 'authority', 'expired', ['localhost'], %expired)),
	early => start_proxy($gateway, make_certificate($dir, 'authority', 'early', ['localhost'], from => '480101000000Z', to => '490101000000Z')),
	stranger => start_proxy($gateway, make_certificate($dir, 'stranger', 'strange', ['localhost'])));
refused(qr/subject name.*localhost/, 'a certificate of another name', "s3_endpoint = '$fronts{wrong_name}{endpoint}'");
refused(qr/has expired/, 'one that has expired', "s3_endpoint = '$fronts{expired}{endpoint}'");
refused(qr/not yet valid/, 'one of the future', "s3_endpoint = '$fronts{early}{endpoint}'");
refused(qr/unable to get local issuer certificate/, 'one that a stranger has signed', "s3_endpoint = '$fronts{stranger}{endpoint}'");
refused(qr/unable to get local issuer certificate/, 'the good one, for the authorities of the system', "s3_ca_file = ''");
refused(qr/$dir\/none/, 'a file of authorities that does not exist', "s3_ca_file = '$dir/none'");
refused(qr/(?:SSL|TLS|packet)/i, 'a server without TLS', "s3_endpoint = 'https://localhost:$gateway->{port}'");
unlike(AudioCleanup::read_file("$PostgreSQL::Test::Utils::log_path/s3_proxy.log"), qr/b\.mp3/, 'no request for it came through');
is_deeply(visible(), [ 'b.mp3', 'wanted.mp3' ], 'nothing went');


# ---- the bucket in the name of the host

foreach my $case ([ 'with TLS', $front->{endpoint} ], [ 'without', $gateway->{endpoint} ])
{
	my ($how, $endpoint) = @$case;

	sql("ALTER SYSTEM SET audio_cleanup.s3_endpoint = '$endpoint'");
	sql('ALTER SYSTEM SET audio_cleanup.s3_path_style = off');
	$node->reload;
	sql('SELECT pg_sleep(0.2)');
	put("plus+ and %20 $how.mp3");
	like(sql("SELECT string_agg(detail, ', ') FROM cleanup_check() WHERE check_name = 's3_name' AND status = 'ok'"), qr/audio\.localhost:\d+ is known/,
		"the bucket in the name of the host, $how TLS");
	is(sql("SELECT string_agg(check_name, ' ') FROM cleanup_check() WHERE check_name LIKE 's3%' AND status <> 'ok'"), '', 'all is well');
	sql('SET audio_cleanup.backup_retention_days = 1; CALL cleanup_run()');
	is_deeply(visible(), ['wanted.mp3'], 'a file goes');
	sql("SELECT cleanup_restore('plus+ and %20 $how.mp3', 'again $how.mp3')");
	ok(wait_for_drain($node), 'it comes back under another name');
	is_deeply(visible(), [ "again $how.mp3", 'wanted.mp3' ], 'which the server has copied');
	s3($gateway, 'DELETE', "audio/up/again $how.mp3");
}
like(sql("SET audio_cleanup.s3_endpoint = '$front->{endpoint}'; SET audio_cleanup.upload_dir = 's3://other/up'; SELECT detail FROM cleanup_check() WHERE check_name = 's3_tls'"),
	qr/no safe connection: .*other\.localhost/, 'a certificate that does not name the bucket is none for it');
sql("ALTER SYSTEM RESET audio_cleanup.s3_path_style");
sql("ALTER SYSTEM SET audio_cleanup.s3_endpoint = '$front->{endpoint}'");
$node->reload;


# ---- keys of a session that end

add_role($gateway, 'writer');
put('c.mp3');
write_credentials(session_keys($gateway, 'writer', 20), $credentials);
set_rule($front, match => '^PUT /audio/up/\.audio_cleanup/lease', do => 'hold');
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_until(qr/begun/, "\\echo begun\nCALL cleanup_run();\n\\echo over\n");
ok(is_held($front), 'a run is about to begin its work');
sleep 21;
release($front);
$session->query_until(qr/over/, '');
$session->quit;
ok((grep { $_ eq 'c.mp3' } @{ visible() }), 'its keys end, and nothing goes');
is(sql("SELECT count(*) FROM cleanup_files WHERE file = 'c.mp3' AND state IN ('trashed', 'deleted')"), '0', 'no row says so');
my ($status, $out, $error) = $node->psql('postgres', 'CALL cleanup_run()');
like($error, qr/AccessDenied|ExpiredToken/, 'nor is another run made');
write_credentials(session_keys($gateway, 'writer', 900), $credentials);
sql('CALL cleanup_run()');
ok(wait_for_drain($node), 'with new keys in the file');
sql('CALL cleanup_run()');
is_deeply(visible(), ['wanted.mp3'], 'the file goes');
is(sql("SELECT state FROM cleanup_files WHERE file = 'c.mp3' ORDER BY file_id DESC LIMIT 1"), 'deleted', 'and its row says so');

done_testing();
