# What the server of a bucket says can be misread, and rights can reach half way: an error with the status of a success, the
# page of a proxy in place of a list or of our own objects, a file that was deleted while another one of its name lay in the
# trash, versions that a bucket keeps no more.  No row becomes untrue, and nothing is lost, shown or hidden by that.

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
my ($node, $credentials) = start_bucket($gateway, 'bucket_doubt', proxy => $proxy,
	conf => "audio_cleanup.max_delete_percent = 100\naudio_cleanup.writer_wait = '1s'\n");

sub set { return set_setting($node, @_) }
sub put { return put_objects($gateway, 'audio/up', @_) }
sub content { return s3($gateway, 'GET', "audio/up/$_[0]")->{content} }
sub kinds { return join ' ', map { $_->[1] } @{ versions_of($gateway, 'audio', 'up/')->{ $_[0] } // [] } }
sub state_of { return sql("SELECT state FROM cleanup_files WHERE file = '$_[0]' ORDER BY file_id DESC LIMIT 1") }

# The number of versions and markers of an object of ours.
sub leases
{
	return scalar(() = s3($gateway, 'GET', 'audio', query => { versions => '', prefix => 'up/.audio_cleanup/lease' })->{content} =~ /<VersionId>/g);
}

# The number of such requests to the proxy.
sub requests
{
	my ($match) = @_;
	return scalar grep { /$match/ } split /\n/, slurp_file("$PostgreSQL::Test::Utils::log_path/s3_proxy.log");
}

# How often the rule of the proxy was used.
sub used { return -s "$proxy->{rules}/used" // 0 }

put('wanted.mp3', 'first.mp3');
sql('CALL cleanup_run()');
is(state_of('first.mp3'), 'deleted', 'a first run');


# ---- an error with the status of a success, and pages that are no list

set('backup_retention_days', 7);
my %page = (
	'an error' => '<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please try again.</Message></Error>',
	'a page of a proxy' => '<?xml version="1.0"?><html><body><p>Please log in.</p></body></html>',
	'nothing' => '');
foreach my $what (sort keys %page)
{
	my $name = $what =~ s/ /_/gr . '.mp3';

	put($name);
	rewrite($proxy, [ '.*<ListBucketResult.*', $page{$what} ]);
	like(sql_error($node, 'CALL cleanup_run()'), qr/could not list/, "$what in place of a list is no empty list");
	rewrite($proxy, [ ".*<ListVersionsResult.*$name.*", $page{$what} ]);
	$node->psql('postgres', 'CALL cleanup_run()');
	rewrite($proxy);
	is(state_of($name), '', '... nor does it tell anything of a file');
	sql('CALL cleanup_run()');
	is(state_of($name), 'trashed', '... it goes with the next run');

	# the row must not say that the backup is gone
	rewrite($proxy, [ ".*<ListVersionsResult.*$name.*", $page{$what} ]);
	$node->psql('postgres', "SELECT cleanup_restore('$name')");
	ok($node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain')"), '... a restore ends');
	rewrite($proxy);
	is(state_of($name), 'trashed', '... and its backup is not called gone');
	sql("SELECT cleanup_restore('$name')");
	ok(wait_for_drain($node), '... then it is restored');
	is(state_of($name), 'restored', '... and its row says so');
	like(content($name), qr/^audio of/, '... and it is there');
	add_rows($node, $name);
}

# the answer to many deletions
put(map { "several/$_.mp3" } 1 .. 40);
rewrite($proxy, [ '.*<DeleteResult.*', $page{'an error'} ]);
$node->psql('postgres', 'CALL cleanup_run()');
rewrite($proxy);
is(sql("SELECT count(*) FROM cleanup_files WHERE file LIKE 'several/%' AND state IN ('deleted', 'restored')"), '0', 'an error in place of the outcomes of deletions is none of them');
$node->psql('postgres', 'CALL cleanup_run()');
ok(wait_for_drain($node), '... the next run goes on');
is(sql("SELECT string_agg(DISTINCT state, ' ') FROM cleanup_files WHERE file LIKE 'several/%'"), 'trashed', '... all are in the trash');
is(kinds("several/$_.mp3") =~ tr/m//, 1, "... below one marker: $_") foreach 1, 40;


# ---- the application has deleted a file while an older one of its name lies in the trash

put('buried.mp3', 'needed.mp3');
sql('CALL cleanup_run()');
foreach my $name ('buried.mp3', 'needed.mp3')
{
	put_object($gateway, "audio/up/$name", 'secret, deleted by its user');
	expect(s3($gateway, 'DELETE', "audio/up/$name"));
	is(kinds($name), 'marker 27 marker ' . length "audio of audio/up/$name\n", "$name is in the trash, and another one of its name was deleted");
}
sql("SELECT cleanup_restore('buried.mp3')");
ok(wait_for_drain($node), 'it is restored');
is(state_of('buried.mp3'), 'restored', '... its row says so');
is(content('buried.mp3'), "audio of audio/up/buried.mp3\n", '... and it is the one that was in the trash');
is(kinds('buried.mp3'), '29 marker 27', '... the other one stays deleted');
add_rows($node, 'buried.mp3', 'needed.mp3');
$node->psql('postgres', 'CALL cleanup_run()');
ok(wait_for_drain($node), 'what is needed again');
is(content('needed.mp3'), "audio of audio/up/needed.mp3\n", '... comes back, and not the other one');


# ---- killed while a file comes back

my $n = 0;
foreach my $step (
	[ '^DELETE /audio/up/rN\.mp3\?versionId', 'hold', '', 'before the marker is removed' ],
	[ '^DELETE /audio/up/rN\.mp3\?versionId', 'hold_after', '', 'when the marker is removed' ],
	[ '^PUT /audio/up/as/rN\.mp3', 'hold', 'as/', 'before it is copied' ],
	[ '^DELETE /audio/up/rN\.mp3\?versionId', 'hold', 'as/', 'when it is copied' ],
	[ '^DELETE /audio/up/rN\.mp3\?versionId', 'hold_after', 'as/', 'when the old version is deleted' ])
{
	my ($match, $do, $folder, $when) = @$step;
	my $name = 'r' . ++$n . '.mp3';
	my $target = "$folder$name";

	put($name);
	sql('CALL cleanup_run()');
	is(state_of($name), 'trashed', "$when: a backup");
	set_rule($proxy, match => $match =~ s/rN/r$n/r, do => $do);
	sql("SELECT cleanup_restore('$name', '$target')");
	ok(is_held($proxy), '... its worker is held');
	# it is to stay when it is back
	add_rows($node, $target);
	kill_worker($node, $proxy);
	$node->psql('postgres', 'CALL cleanup_run()');
	ok(wait_for_drain($node), '... and killed, and the next run goes on');
	is(content($target), "audio of audio/up/$name\n", '... it is back') or diag state_of($name) . ': ' . kinds($name);
	# a copy that comes late has the name, and then the backup stays
	like(state_of($name), $when =~ /it is copied/ ? qr/^(?:restored|trashed)$/ : qr/^restored$/, '... and its row says so')
	  or diag sql("SELECT error FROM cleanup_files WHERE file = '$name'");
}


# ---- who may make markers, and not remove them, hides nothing

my $half = add_user($gateway, 'half');
my @rights = qw(ListBucket ListBucketVersions GetBucketVersioning GetObject GetObjectVersion PutObject DeleteObject);
let_user($gateway, 'half', @rights);
write_credentials($half, $credentials);
put('half.mp3');
$node->psql('postgres', 'CALL cleanup_run()') foreach 1 .. 4;
is(kinds('half.mp3'), '27', 'without the right to remove a marker, none is made');
unlike(state_of('half.mp3'), qr/^(?:trashed|deleted)$/, '... and the row does not say so');
like(log_since($node, 0), qr/could not remove a version of the lease: .*AccessDenied/, '... the log says why');
cmp_ok(leases(), '<=', 2, '... and tries do not fill the bucket');
let_user($gateway, 'half', @rights, 'DeleteObjectVersion');
sql('CALL cleanup_run()');
ok(wait_for_drain($node), 'with all rights');
is(state_of('half.mp3'), 'trashed', '... it goes');
is(leases(), 0, '... and no lease is left');
write_credentials($gateway, $credentials);


# ---- a status 404 without a code of S3 does not tell that an object of ours is not there

put('page.mp3');
set_rule($proxy, match => '^GET /audio/up/\.audio_cleanup/claim$', do => 'page', code => 404);
like(sql_error($node, 'CALL cleanup_run()'), qr/could not read claim/, 'a page in place of the claim');
cmp_ok(used(), '>', 0, '... which has come');
set_rule($proxy, match => '^GET /audio/\.audio_cleanup/claim$', do => 'refuse');
like(sql_error($node, 'CALL cleanup_run()'), qr/lies in the upload directory of another database.*"s3:..audio" has a claim that cannot be read/s,
	'a busy server does not tell that nobody has claimed the whole');
clear_rules($proxy);
put_object($gateway, 'audio/up/.audio_cleanup/lease', '1-1');
set_rule($proxy, match => '^GET /audio/up/\.audio_cleanup/lease\?versionId=', do => 'page', code => 404);
$node->psql('postgres', 'CALL cleanup_run()');
cmp_ok(used(), '>', 0, 'a page in place of the lease of another server');
is(leases(), 1, '... which keeps it');
is(kinds('page.mp3'), '27', '... and nothing goes');
clear_rules($proxy);
my $lease = s3($gateway, 'GET', 'audio/up/.audio_cleanup/lease')->{headers}{'x-amz-version-id'};
expect(s3($gateway, 'DELETE', 'audio/up/.audio_cleanup/lease', query => { versionId => $lease }));
sql('CALL cleanup_run()');
is(state_of('page.mp3'), 'trashed', 'when it has given the lease back, all goes on');


# ---- a server that ignores If-None-Match: it is the last to write that has the bucket

make_bucket($gateway, 'ignored');
put_objects($gateway, 'ignored', 'x.mp3');
my $before = requests('^PUT /ignored/\.audio_cleanup/claim');
is($before, 0, 'nobody has claimed this bucket');
set_rule($proxy, match => '^PUT /ignored/\.audio_cleanup/claim', do => 'accept', skip => 1, times => 1);
my $claimer = $node->background_psql('postgres', on_error_stop => 0);
$claimer->query_until(qr/begun/, "\\echo begun\nSET audio_cleanup.upload_dir = 's3://ignored'; CALL cleanup_run(force => true);\n");
ok(wait_until(sub { used() == 1 }), 'the claim is written, and the server accepts a second one');
set_rule($proxy, match => '^GET /ignored/\.audio_cleanup/claim', do => 'hold');
ok(is_held($proxy), '... so the claim is written once more, and read again');
is(requests('^PUT /ignored/\.audio_cleanup/claim'), 3, '... indeed');
put_object($gateway, 'ignored/.audio_cleanup/claim', s3($gateway, 'GET', 'ignored/.audio_cleanup/claim')->{content} =~ s/[0-9a-f]{8}-[0-9a-f]{4}/00000000-0000/r);
release($proxy);
$claimer->quit;
is(s3($gateway, 'GET', 'ignored/x.mp3')->{status}, 200, '... when somebody else was the last to write, nothing goes');
is(sql("SELECT count(*) FROM cleanup_files WHERE file = 'x.mp3' AND state IN ('deleted', 'trashed')"), '0', '... and no row says so');


# ---- a hold comes before the deletion, or after it

set('backup_retention_days', 0);
put('going.mp3');
set_rule($proxy, match => '^DELETE /audio/up/going\.mp3\?versionId', do => 'hold');
sql('SELECT cleanup_all()');
ok(is_held($proxy), 'a file is about to be deleted for good');
note('snapshot of the worker: ' . sql("SELECT coalesce(backend_xmin::text, 'none') FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain'"));
like(sql_error($node, "SET lock_timeout = '1s'; BEGIN; SELECT cleanup_hold('going.mp3'); ROLLBACK"), qr/WARNING:  55006: the hold may be too late/,
	'a hold does not wait for that, and says that it may be too late');
release($proxy);
ok(wait_for_drain($node), '... the file goes');
set('backup_retention_days', 7);


# ---- a list that goes on to have what was removed, as from a cache

put('cached.mp3');
put_object($gateway, 'audio/up/.audio_cleanup/lease', '1-1');
rewrite($proxy, [ '(lease</Key>(?:(?!</Version>).)*?<LastModified>)[^<]*', '\g<1>2026-01-02T03:04:05.000Z' ]);
set_rule($proxy, match => '^DELETE /audio/up/\.audio_cleanup/lease\?versionId=', do => 'accept');
$node->psql('postgres', "SET statement_timeout = '120s'; CALL cleanup_run()");
cmp_ok(used(), '>', 1, 'a lease that was removed, and is still listed, is removed again');
cmp_ok(used(), '<', 40, '... but not for ever');
like(log_since($node, 0), qr/could not look at the lease: the server still lists a version that it has removed/, '... the log says why');
is(kinds('cached.mp3'), '29', '... and nothing goes');
clear_rules($proxy);
sql('CALL cleanup_run()');
rewrite($proxy);
is(state_of('cached.mp3'), 'trashed', '... until the list is true');


# ---- files that are older than the versions of their bucket, and versioning that ends at the worst moment

make_bucket($gateway, 'old', versioning => '');
put_objects($gateway, 'old', 'x.mp3', 'wanted.mp3');
make_bucket($gateway, 'old', exists => 1);
set('upload_dir', q{'s3://old'});
sql('CALL cleanup_run()');
is(state_of('x.mp3'), 'trashed', 'a file without a version id of its own is in the trash');
sql("UPDATE cleanup_files SET due_at = now() WHERE file = 'x.mp3' AND state = 'trashed'");
set_rule($proxy, match => '^GET /old/\?.*key-marker=.*versions=', do => 'hold_after');
my $purge = $node->background_psql('postgres', on_error_stop => 0);
$purge->query_until(qr/begun/, "\\echo begun\nSELECT cleanup_purge_backups();\n");
ok(is_held($proxy), 'its versions have been listed, and it is about to be deleted for good');
make_bucket($gateway, 'old', versioning => 'Suspended', exists => 1);
put_object($gateway, 'old/x.mp3', 'a new upload');
release($proxy);
$purge->quit;
ok($node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain')"), 'the worker ends');
is(s3($gateway, 'GET', 'old/x.mp3')->{content}, 'a new upload', 'what has taken its version in the meantime is there');
make_bucket($gateway, 'old', exists => 1);

# the id "null" of the marker that was made is that of the next upload, too
make_bucket($gateway, 'ended');
put_objects($gateway, 'ended', 'y.mp3', 'wanted.mp3');
set('upload_dir', q{'s3://ended'});
set_rule($proxy, match => '^PUT /ended/\.audio_cleanup/trash/', do => 'hold', times => 1);
my $run = $node->background_psql('postgres', on_error_stop => 0);
$run->query_until(qr/begun/, "\\echo begun\nCALL cleanup_run();\n");
ok(is_held($proxy), 'the versions of a file have been listed, and it is about to be hidden');
make_bucket($gateway, 'ended', versioning => 'Suspended', exists => 1);
set_rule($proxy, match => '^(DELETE /ended/y|POST /ended/?\?delete)', do => 'hold_after', times => 1);
ok(is_held($proxy), 'it has been hidden without a version');
put_object($gateway, 'ended/y.mp3', 'a new upload');
release($proxy);
$run->quit;
ok($node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'audio_cleanup drain')"), 'the worker ends');
is(s3($gateway, 'GET', 'ended/y.mp3')->{content}, 'a new upload', 'what has taken the id of the marker is there');
isnt(state_of('y.mp3'), 'trashed', '... and no row says that it is in the trash');
make_bucket($gateway, 'ended', exists => 1);

is(log_lines($node, qr/PANIC:|TRAP:|terminated by signal (?!9:)/), '', 'no process has died but those that were killed');
done_testing();
