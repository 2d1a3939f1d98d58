# A bucket as upload directory, on a Ceph object gateway: what is cleaned can be
# restored, and nothing that is wanted goes, whatever its name.

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

my $gateway = start_gateway();
my ($node, $credentials) = start_bucket($gateway, 'bucket');

sub put { return put_objects($gateway, 'audio/up', @_) }
sub visible { return keys_of($gateway, 'audio', 'up/') }
sub versions { return versions_of($gateway, 'audio', 'up/') }

sub set { return set_setting($node, @_) }


# ---- the name of a bucket, and what belongs to it

like(sql_error($node, "LOAD 'audio_cleanup'; SET audio_cleanup.upload_dir = 's3://Audio/up'"), qr/3 to 63 small letters/, 'a bucket has small letters');
like(sql_error($node, "LOAD 'audio_cleanup'; SET audio_cleanup.upload_dir = 's3://audio/up/'"), qr/must not be empty/, 'a prefix does not end with a slash');
like(sql_error($node, "LOAD 'audio_cleanup'; SET audio_cleanup.upload_dir = 's3://audio/../up'"), qr/nor begin with a dot/, 'nor has it a part ".."');
like(sql_error($node, "LOAD 'audio_cleanup'; SET audio_cleanup.s3_endpoint = 'http://example.com'"), qr/without TLS/, 'plain HTTP leads to this machine only');
like(sql_error($node, "LOAD 'audio_cleanup'; SET audio_cleanup.s3_endpoint = 'http://localhost.example.com'"), qr/without TLS/, 'and not to what begins like it');
like(sql_error($node, "LOAD 'audio_cleanup'; SET audio_cleanup.s3_endpoint = 'https://u:p\@host'"), qr/must be written as/, 'an endpoint holds no password');


# ---- first look, first run

put('wanted.mp3', 'sub/wanted.mp3', 'a.mp3', 'sub/b.mp3', '.hidden.mp3', 'notes.txt');
add_rows($node, 'sub/wanted.mp3');
is_deeply(sql_json($node, 'SELECT cleanup_all(dry_run => true)')->{result}{orphaned_files_deleted}, [ 'a.mp3', 'sub/b.mp3' ],
	'a preview tells what would go');
is_deeply(visible(), [ sort '.hidden.mp3', 'a.mp3', 'notes.txt', 'sub/b.mp3', 'sub/wanted.mp3', 'wanted.mp3' ], 'and nothing goes');
is(sql('SELECT count(*) FROM cleanup_claims'), '0', 'nor is the bucket claimed');

$node->psql('postgres', 'BEGIN; SELECT cleanup_all(); ROLLBACK');
is(scalar @{ visible() }, 6, 'a run that is rolled back does nothing');
is(s3($gateway, 'GET', 'audio/up/.audio_cleanup/claim')->{status}, 404, 'and claims nothing');

is(sql_json($node, 'SELECT cleanup_all()')->{pending}, 2, 'the answer of a run says what is still to be done');
ok(wait_for_drain($node), 'the worker does what was committed');
is_deeply(versions(), { map { $_ => versions()->{$_} } '.hidden.mp3', 'notes.txt', 'sub/wanted.mp3', 'wanted.mp3' },
	'the orphans are gone, with every version and marker');
is(states_of($node), 'a.mp3 deleted, sub/b.mp3 deleted', 'and the history says so');
is(sql('SELECT sum(freed) FROM cleanup_files'), '52', 'with the bytes');
like(s3($gateway, 'GET', 'audio/up/.audio_cleanup/claim')->{content}, qr/^audio_cleanup claim 1\n/, 'the bucket is claimed');
is(scalar(grep { $_->{success} } s3($gateway, 'GET', 'audio/up/.audio_cleanup/lease')), 0, 'the lease is given back');
is(sql("SELECT string_agg(status, ',') FROM cleanup_check() WHERE check_name IN ('upload_dir', 'claim')"), 'ok,ok', 'cleanup_check() is content');
is(sql("SELECT value FROM cleanup_metrics WHERE name LIKE '%upload_dir_up'"), '1', 'metrics say that it can be reached');


# ---- undo

set('backup_retention_days', 7);
put('a.mp3', 'c.mp3', 'held.mp3');
my $original = versions()->{'a.mp3'}[0][0];
sql("SELECT cleanup_hold('held.mp3')");
sql('CALL cleanup_run()');
is(states_of($node), 'a.mp3 trashed, c.mp3 trashed', 'with a retention they are kept; what is held is left alone');
is_deeply([ map { $_->[1] } @{ versions()->{'a.mp3'} } ], [ 'marker', 24 ], 'below a marker, not copied');
is(sql('SELECT count(*) FROM cleanup_backups'), '2', 'they are backups');

sql("SELECT cleanup_restore('a.mp3')");
ok(wait_for_drain($node), 'one is restored');
is_deeply(versions()->{'a.mp3'}, [ [ $original, 24 ] ], 'it is the same version as before');
is(states_of($node), 'a.mp3 restored, c.mp3 trashed', 'the row says so');

put_object($gateway, 'audio/up/c.mp3', 'another c');
like(sql("SELECT cleanup_restore('c.mp3')"), qr/the name \\"c.mp3\\" is taken/, 'a name that is taken is not overwritten');
sql("SELECT cleanup_restore('c.mp3', 'again/c.mp3')");
ok(wait_for_drain($node), 'it can come back under another name');
is(s3($gateway, 'GET', 'audio/up/again/c.mp3')->{content}, "audio of audio/up/c.mp3\n", 'with its content');
is(s3($gateway, 'GET', 'audio/up/c.mp3')->{content}, 'another c', 'and the other one stays');
is(states_of($node), 'a.mp3 restored, c.mp3 restored', 'the row says that it is back');
is(sql('SELECT count(*) FROM cleanup_backups'), '0', 'and it is no backup any more');
is_deeply([ map { $_->[1] } @{ versions()->{'c.mp3'} } ], [9], 'its old version is gone');

# needed again: the next run puts it back
add_rows($node, 'again/c.mp3', 'c.mp3', 'a.mp3');
put('d.mp3');
sql('CALL cleanup_run()');
is(states_of($node), 'd.mp3 trashed', 'one more backup');
add_rows($node, 'd.mp3');
$node->psql('postgres', 'CALL cleanup_run()');
ok(wait_for_drain($node), 'a run heals');
ok((grep { $_ eq 'd.mp3' } @{ visible() }), 'what is referred to again is put back');
is(sql("SELECT state FROM cleanup_files WHERE file = 'd.mp3'"), 'restored', 'and recorded');

# purge
put('e.mp3');
sql('CALL cleanup_run()');
is(states_of($node), 'e.mp3 trashed', 'a backup to be purged');
sql("UPDATE cleanup_files SET due_at = now() WHERE state = 'trashed'; SELECT cleanup_purge_backups()");
ok(wait_for_drain($node), 'it is purged');
is(versions()->{'e.mp3'}, undef, 'nothing is left of it');

# what the application deleted and wrote itself
put('f.mp3');
sql('CALL cleanup_run()');
put_object($gateway, 'audio/up/f.mp3', 'second f');
s3($gateway, 'DELETE', 'audio/up/f.mp3');
sql("UPDATE cleanup_files SET due_at = now() WHERE state = 'trashed'; SELECT cleanup_purge_backups()");
ok(wait_for_drain($node), 'a backup with newer versions is purged');
is_deeply([ map { $_->[1] } @{ versions()->{'f.mp3'} } ], [ 'marker', 8 ], 'its own version goes, and no other');
set('backup_retention_days', 0);


# ---- names

my @names = ("new\nline.mp3", "tab\t.mp3", "bell\a.mp3", 'plus+plus.mp3', 'per%20cent.mp3', 'per cent.mp3', '100%.mp3', 'a&b=c?d#e.mp3',
	q{quo"te's.mp3}, '<b>.mp3', '~tilde.mp3', "\x{1F3A7}.mp3", "é.mp3", "e\x{301}.mp3", ' lead.mp3', 'back\\slash.mp3', 'x' x 900 . '.mp3', 'y' x 1017 . '.mp3');
is(length "up/$names[-1]", 1024, 'a key of 1024 bytes is the longest');
my @left = ('double//slash.mp3', '../up.mp3', './dot.mp3', 'folder.mp3/', '/lead.mp3');
put(map { encode_utf8($_) } @names, @left);
is(sql("SELECT cleanup_all(dry_run => true)->'result'->>'error_count'"), '0', 'names of every kind can be listed');
sql('CALL cleanup_run()');
my $versions = versions();
is_deeply([ grep { exists $versions->{ encode_utf8($_) } } @names ], [], 'each of them can go');
is_deeply([ grep { !exists $versions->{$_} } @left ], [], 'but what could be no path of a directory stays');
is(sql("SELECT count(*) FROM cleanup_files WHERE state <> 'deleted' AND run_id = (SELECT max(run_id) FROM cleanup_files)"), '0', 'no file failed');
like(sql("SELECT cleanup_explain('double//slash.mp3')"), qr/there is no such file|is not looked into/, 'cleanup_explain() does not promise otherwise');
add_rows($node, 'two words+more.mp3');
put('two words+more.mp3', 'two+words more.mp3');
sql('CALL cleanup_run()');
$versions = versions();
ok(exists $versions->{'two words+more.mp3'} && !exists $versions->{'two+words more.mp3'}, 'a plus is a plus and a blank is a blank');


# ---- failed sessions, and what is missing

put('failed.mp3');
sql(q{INSERT INTO sessions (audio_url, status, updated_at) VALUES ('failed.mp3', 'failed', now() - interval '30 days'), ('lost.mp3', 'done', now())});
sql('CALL cleanup_run()');
is(versions()->{'failed.mp3'}, undef, 'the audio of a failed session goes');
like(sql('SELECT * FROM cleanup_missing_files()'), qr/lost\.mp3/, 'a row without its file is told');


# ---- more than a page

put_object($gateway, sprintf 'audio/up/many/%04d.mp3', $_) foreach 1 .. 1203;
sql(q{INSERT INTO sessions (audio_url) SELECT 'many/' || to_char(n, 'FM0000') || '.mp3' FROM generate_series(1, 1200) n});
sleep 2;
sql('CALL cleanup_run()');
is_deeply([ grep { m{^many/} } @{ visible() } ], [ map { sprintf 'many/%04d.mp3', $_ } 1 .. 1200 ], 'of 1203 files those that are referred to stay');


# ---- a first run that deletes nothing

sql('CREATE DATABASE calm');
sql(q{ALTER DATABASE calm SET audio_cleanup.upload_dir = 's3://audio/calm'});
make_schema($node, 'calm');
put_object($gateway, 'audio/calm/wanted.mp3');
$node->safe_psql('calm', q{INSERT INTO sessions (audio_filename) VALUES ('wanted.mp3')});
like($node->safe_psql('calm', 'SELECT cleanup_all()'), qr/"orphaned_files_count": 0/, 'a first run that deletes nothing');
ok(wait_until(sub { s3($gateway, 'GET', 'audio/calm/.audio_cleanup/claim')->{status} == 200 }), 'claims the bucket');
ok($node->poll_query_until('calm', 'SELECT count(*) = 1 AND bool_and(confirmed) FROM cleanup_claims'), 'and knows that it has');


# ---- refused

like(sql_error($node, "LOAD 'audio_cleanup'; SET audio_cleanup.backup_retention_days = 1; SET audio_cleanup.backup_dir = '/nowhere'; SELECT cleanup_all()"),
	qr/cannot have a backup directory/, 'a bucket has no backup directory');
make_bucket($gateway, 'plain', versioning => '');
put_objects($gateway, 'plain', 'wanted.mp3', 'x.mp3');
my $in_plain = "LOAD 'audio_cleanup'; SET audio_cleanup.upload_dir = 's3://plain';";
my $honours = honours_if_match($gateway, 'plain');
note('the gateway ' . ($honours ? 'honours' : 'ignores') . ' If-Match of a DELETE');
my $preview = sql("$in_plain SELECT cleanup_all(dry_run => true)");
if ($honours)
{
	unlike($preview, qr/"unversioned/, 'a bucket without versions, whose gateway honours If-Match, has no brake');
	like($preview, qr/"orphaned_files_deleted": \["x\.mp3"\]/, 'a preview tells what would go');
}
else
{
	like(sql_error($node, "$in_plain SELECT cleanup_all()"), qr/keeps no versions/, 'a bucket without versions is refused');
	like($preview, qr/"unversioned/, 'a preview names that brake');
}
is_deeply(keys_of($gateway, 'plain', ''), [ 'wanted.mp3', 'x.mp3' ], 'and nothing went');
my $page = s3($gateway, 'GET', 'plain', query => { 'list-type' => 2 })->{content};
is_deeply([ $page =~ m{<Key>(.*?)</Key>}g ], [ 'wanted.mp3', 'x.mp3' ],
	'nor is anything left of the object by which the gateway has shown what it does with If-Match');
if ($honours)
{
	sql("$in_plain CALL cleanup_run()");
	is_deeply(keys_of($gateway, 'plain', ''), ['wanted.mp3'], 'a run deletes in it');
	is(states_of($node), 'x.mp3 deleted', 'and records it');
}
like(sql_error($node, "LOAD 'audio_cleanup'; SET audio_cleanup.upload_dir = 's3://nosuchbucket'; SELECT cleanup_all()"), qr/NoSuchBucket/, 'one that does not exist is told');
make_bucket($gateway, 'suspended');
put_object($gateway, 'suspended/x.mp3');
make_bucket($gateway, 'suspended', versioning => 'Suspended', exists => 1);
like(sql_error($node, "LOAD 'audio_cleanup'; SET audio_cleanup.upload_dir = 's3://suspended'; SELECT cleanup_all()"), qr/keeps no versions/, 'versions that are kept no more are none');

chmod 0644, $credentials;
like(sql_error($node, 'SELECT cleanup_all()'), qr/s3_credentials_file cannot be used: its group or others have rights/, 'a file of keys is nobody else\'s to read');
chmod 0600, $credentials;
write_credentials({ access_key => $gateway->{access_key}, secret_key => 'wrong-secret-of-nobody' }, $credentials);
like(sql_error($node, 'SELECT cleanup_all()'), qr/SignatureDoesNotMatch/, 'a wrong key is refused by the server');
write_credentials($gateway, $credentials);
unlike(log_since($node, 0), qr/wrong-secret-of-nobody|\Q$gateway->{secret_key}\E/, 'no key is in the log');
unlike(sql('SELECT cleanup_config()::text || string_agg(s::text, \'\') FROM cleanup_runs s'), qr/\Q$gateway->{secret_key}\E/, 'nor in a row');

done_testing();
