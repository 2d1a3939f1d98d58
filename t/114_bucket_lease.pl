# The lease on a bucket bounds the requests that are made under it: a server that was cut off does nothing in a bucket
# that another server has taken over meanwhile.

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
my ($node, $credentials) = start_bucket($gateway, 'bucket_lease', proxy => $proxy, conf => "audio_cleanup.s3_timeout = '10min'\n"
	. "audio_cleanup.max_delete_percent = 100\n");

sub put { return put_objects($gateway, 'audio/up', @_) }
sub visible { return keys_of($gateway, 'audio', 'up/') }
sub state_of { return sql("SELECT state FROM cleanup_files WHERE file = '$_[0]' ORDER BY file_id DESC LIMIT 1") }

sub leases_taken
{
	my @lines = split /\n/, slurp_file("$PostgreSQL::Test::Utils::log_path/s3_proxy.log");
	return scalar grep { m{^PUT /audio/up/\.audio_cleanup/lease} } @lines;
}

put('wanted.mp3', 'first.mp3');
sql('CALL cleanup_run()');
is_deeply(visible(), ['wanted.mp3'], 'a first run');


# ---- work that takes longer than a lease: the lease is renewed

put('long.mp3');
set_rule($proxy, match => '^PUT /audio/up/\.audio_cleanup/lease', do => 'hold');
sql('SELECT cleanup_all()');
ok(is_held($proxy), 'a worker is about to take the lease');
set_rule($proxy, match => '^GET .*key-marker=.*versions=', do => 'hold');
ok(is_held($proxy), 'and has it, and looks at its file');
my $taken = leases_taken();
sleep 45;
release($proxy);
ok(wait_for_drain($node), 'a slow server: the run is over');
is(state_of('long.mp3'), 'deleted', 'the file goes');
cmp_ok(leases_taken(), '>', $taken, 'under a lease that was renewed before the file was hidden');


# ---- a server that is cut off while it deletes for good

put('back.mp3');
my $version = versions_of($gateway, 'audio', 'up/')->{'back.mp3'}[0][0];
set_rule($proxy, match => '^DELETE /audio/up/back\.mp3\?versionId', do => 'hang', all => 1);
sql('SELECT cleanup_all()');
ok(is_held($proxy), 'the version is about to be deleted, and then no request gets through');
is(versions_of($gateway, 'audio', 'up/')->{'back.mp3'}[1][0], $version, 'it is in the trash');

my $other = new_server('other', conf => bucket_conf('s3://audio/up', $gateway->{endpoint}, $credentials) . "audio_cleanup.writer_wait = '1s'\n");
make_schema($other);
add_rows($other, 'wanted.mp3', 'back.mp3');
ok(wait_until(sub {
	$other->psql('postgres', $_) foreach 'SELECT cleanup_claim_upload_dir()', 'CALL cleanup_run()';
	return scalar grep { $_ eq 'back.mp3' } @{ visible() };
}), 'another server takes the bucket over when the lease has ended, and puts the file back');
ok(wait_for_drain($other), 'it has done its work');
release($proxy);
ok($node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain')"),
	'the first server can go on');
is_deeply(visible(), [ 'back.mp3', 'wanted.mp3' ], 'but does not delete what is not its own any more');
is(versions_of($gateway, 'audio', 'up/')->{'back.mp3'}[0][0], $version, 'the file is the one that was put back');
is(state_of('back.mp3'), 'trashed', 'nor does its row say so');
like(log_since($node, 0), qr/could not delete file "back\.mp3" .*lease/, 'the log says why');
like(sql_error($node, 'SELECT cleanup_all()'), qr/does not belong to this database/, 'and no run begins');
is(log_lines($_, qr/PANIC:|TRAP:|terminated by signal/), '', $_->name . ': no process has died') foreach $node, $other;

done_testing();
