# Many files of a bucket at a time: they go by requests of many keys, and what happens to one of them is told of
# that one; keys that XML cannot hold, files replaced in between, lost answers, a busy server, a worker that is killed.

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
my $proxy = start_proxy($gateway);
my ($node) = start_bucket($gateway, 'bucket_many', proxy => $proxy, conf => "audio_cleanup.max_delete_percent = 100\naudio_cleanup.s3_timeout = '120s'\n");

sub put { return put_objects($gateway, 'audio/up', @_) }

sub names
{
	my ($folder, $n) = @_;
	return map { sprintf "$folder/%04d.mp3", $_ } 1 .. $n;
}

# What is left below a folder: name => kinds, newest first.
sub kinds
{
	my ($folder) = @_;
	my $versions = versions_of($gateway, 'audio', "up/$folder/");
	return { map { my $name = $_; $name => join ' ', map { $_->[1] eq 'marker' ? 'marker' : 'file' } @{ $versions->{$name} } } keys %$versions };
}

sub states
{
	my ($folder) = @_;
	return sql("SELECT string_agg(state || ' ' || n, ', ' ORDER BY state)"
		. " FROM (SELECT state, count(*) AS n FROM cleanup_files WHERE file LIKE '$folder/%' GROUP BY state) s");
}

# Requests that the proxy has seen since the last call, by method and kind.
my $seen = 0;

sub requests
{
	my ($pattern) = @_;
	my @lines = split /\n/, slurp_file("$PostgreSQL::Test::Utils::log_path/s3_proxy.log");
	return scalar grep { /$pattern/ } @lines[ $seen .. $#lines ];
}

sub begin_counting
{
	$seen = () = slurp_file("$PostgreSQL::Test::Utils::log_path/s3_proxy.log") =~ /\n/g;
	return;
}

put('wanted.mp3');


# ---- few requests, whatever the names

my @odd = map { encode_utf8($_) } map { "odd/$_.mp3" } "new\nline", "re\rturn", "tab\t", "bell\a", "del\x7f", 'a&amp;b', '<i>', q{"'}, "\x{1F3A7}",
	"e\x{301}", '100%', 'a+b', ' ', 'per%20cent', "\x{FFFD}";
put(names('first', 300), @odd, 'first/0100.mp3.bak', 'firstborn.mp3', 'first/0100.mp', map { "between/$_.txt" } 1 .. 40);
add_rows($node, 'firstborn.mp3');
begin_counting();
sql('CALL cleanup_run()');
is(states('first'), 'deleted 300', '300 files go by one call');
is_deeply(kinds('first'), { '0100.mp3.bak' => 'file', '0100.mp' => 'file' }, 'with all of their versions and markers; what only begins like them stays');
is(states('odd'), 'deleted ' . @odd, 'names of every kind are among them');
is_deeply(kinds('odd'), {}, 'and nothing is left of these');
cmp_ok(requests('^POST /audio/\?delete='), '>', 2, 'several keys go by one request');
cmp_ok(requests('.'), '<', 300, 'all in all by fewer requests than there are files') or diag requests('.');
is_deeply(kinds('between'), { map { ("$_.txt" => 'file') } 1 .. 40 }, 'other files are untouched');

# some servers (AWS, MinIO) write a blank as a plus
put('blank/a b.mp3', 'blank/a+b.mp3', 'blank/two  blanks + more.mp3', 'blank folder/x.mp3', 'blank folder/wanted too.mp3');
add_rows($node, 'blank folder/wanted too.mp3');
rewrite($proxy, [ '%20', '+' ]);
sql('CALL cleanup_run()');
is(sql(q{SELECT count(*) FROM cleanup_missing_files(), unnest(examples) e WHERE e LIKE '%wanted too%'}), '0', 'a name with a blank is not missing');
rewrite($proxy);
is(states('blank') . ', ' . states('blank folder'), 'deleted 3, deleted 1', 'names with a blank go');
is_deeply([ kinds('blank'), kinds('blank folder') ], [ {}, { 'wanted too.mp3' => 'file' } ], 'and no others');

# few among many, some with many versions
put(map { sprintf 'sparse/%04d%s', $_, $_ % 150 == 0 ? '.mp3' : '.txt' } 1 .. 900);
put_object($gateway, 'audio/up/sparse/0450.mp3', "version $_") foreach 1 .. 30;
sleep 2;
sql('CALL cleanup_run()');
is(states('sparse'), 'deleted 6', 'files that lie far apart are found');
is(kinds('sparse')->{'0450.mp3'}, join(' ', 'marker', ('file') x 30), 'of many versions the one that was condemned goes; it stays hidden what was hidden');


# ---- more than one portion: none waits for the last request of another one

put(names('wide', 1000));
begin_counting();
set_rule($proxy, match => '^POST /audio/\?delete=', do => 'hold', times => 1);
sql('SELECT cleanup_all()');
ok(is_held($proxy), 'some markers of a portion are not made yet');
# 980 files go by 16 requests of 62, 20 by 10 of 2; the smaller portion may be the quicker one
ok(wait_until(sub { requests('^POST /audio/\?delete=') == 26 }), 'those of the other portion are asked for') or diag requests('^POST /audio/\?delete=');
ok(wait_until(sub { (grep { $_ eq 'file' } values %{ kinds('wide') }) =~ /^(62|2)$/ }), 'and made, all but those of the request that is held')
  or diag scalar grep { $_ eq 'file' } values %{ kinds('wide') };
release($proxy);
ok(wait_for_drain($node), 'the run is over');
is(states('wide'), 'deleted 1000', 'all files go');
is_deeply(kinds('wide'), {}, 'with all of their versions and markers');
# on a machine that is so busy that the lease had to be renewed, some more
cmp_ok(requests('^GET .*key-marker=.*versions='), '<=', 14, 'and few pages of versions are read') or diag requests('key-marker=');
cmp_ok(requests('^POST /audio/\?delete='), '<=', 26 * 3 + 10, 'each file goes three times: a marker is made, the version goes, and the marker')
  or diag requests('^POST /audio/\?delete=');


# ---- replaced between the look and the marker

put(names('race', 100));
set_rule($proxy, match => '^POST /audio/\?delete=', do => 'hold');
sql('SELECT cleanup_all()');
ok(is_held($proxy), 'the worker is about to make markers');
put_object($gateway, "audio/up/race/$_.mp3", 'a new upload') foreach '0001', '0050', '0100';
release($proxy);
ok(wait_for_drain($node), 'the run is over');
is(states('race'), 'deleted 97, skipped 3', 'what was replaced meanwhile is skipped, and all else goes');
is(s3($gateway, 'GET', "audio/up/race/$_.mp3")->{content}, 'a new upload', "race/$_.mp3 is there") foreach '0001', '0050', '0100';
is_deeply(kinds('race'), { '0001.mp3' => 'file file', '0050.mp3' => 'file file', '0100.mp3' => 'file file' },
	'without a marker of ours');
add_rows($node, map { "race/$_.mp3" } '0001', '0050', '0100');


# ---- lost answers, and a busy server

set_setting($node, 'backup_retention_days', 7);
foreach my $rule (
	{ do => 'cut_after', times => 3 }, { do => 'cut', times => 3 }, { do => 'refuse', times => 5 },
	{ do => 'refuse', code => 500, times => 5 }, { do => 'lie', times => 2 })
{
	my $folder = join '_', 'lost', map { $rule->{$_} } sort keys %$rule;

	put(names($folder, 80));
	set_rule($proxy, match => '^POST /audio/\?delete=', %$rule);
	$node->psql('postgres', 'CALL cleanup_run()');
	is(-s "$proxy->{rules}/used", $rule->{times}, "$folder: it has happened");
	clear_rules($proxy);
	$node->psql('postgres', 'CALL cleanup_run()') foreach 1 .. 2;
	ok(wait_for_drain($node), "$folder: the next run goes on");
	is(states($folder), 'trashed 80', "$folder: all are in the trash");
	is_deeply(kinds($folder), { map { (s{.*/}{}r => 'marker file') } names($folder, 80) }, "$folder: below one marker each");
}

begin_counting();
sql("UPDATE cleanup_files SET due_at = now() WHERE state = 'trashed'");
set_rule($proxy, match => '^POST /audio/\?delete=', do => 'cut_after', times => 3);
sql('SELECT cleanup_purge_backups()');
ok(wait_for_drain($node), 'a purge whose answers are lost');
clear_rules($proxy);
$node->psql('postgres', 'CALL cleanup_run()') foreach 1 .. 2;
is(sql("SELECT count(*) FROM cleanup_files WHERE file LIKE 'lost%' AND state <> 'deleted'"), '0', 'ends in the end');
is_deeply([ grep { m{^lost} } keys %{ versions_of($gateway, 'audio', 'up/') } ], [], 'nothing is left');
set_setting($node, 'backup_retention_days', 0);


# ---- put back: many at a time, too

set_setting($node, 'backup_retention_days', 7);
put(names('returned', 64));
my $before = versions_of($gateway, 'audio', 'up/returned/');
sql('CALL cleanup_run()');
is(states('returned'), 'trashed 64', '64 files are in the trash');
begin_counting();
set_rule($proxy, match => '^POST /audio/\?delete=', do => 'hold', times => 1);
is(sql_json($node, 'SELECT cleanup_restore((SELECT max(run_id) FROM cleanup_runs))')->{result}{files_count}, 64, 'all of them are to be restored');
cmp_ok(requests('.'), '<', 16, 'which is found out by few requests') or diag requests('.');
ok(is_held($proxy), 'one request waits for its answer');
ok(wait_until(sub { requests('^POST /audio/\?delete=') == 16 }), 'the other ones do not wait for that');
ok(wait_until(sub { (grep { $_ eq 'file' } values %{ kinds('returned') }) == 60 }), 'and put their files back');
release($proxy);
ok(wait_for_drain($node), 'all are put back');
is(states('returned'), 'restored 64', 'and recorded');
is_deeply(versions_of($gateway, 'audio', 'up/returned/'), $before, 'the same versions, without a marker');
cmp_ok(requests('.'), '<', 64, 'by fewer requests than there are files') or diag requests('.');

# one is taken, one was hidden twice, one is gone, and the markers of two are not removed at once
sql("UPDATE cleanup_files SET finished_at = finished_at - interval '1 day'");
sql('CALL cleanup_run()');
put_object($gateway, 'audio/up/returned/0001.mp3', 'a new upload');
s3($gateway, 'DELETE', 'audio/up/returned/0002.mp3');
expect(s3($gateway, 'DELETE', 'audio/up/returned/0003.mp3', query => { versionId => $before->{'0003.mp3'}[0][0] }));
set_rule($proxy, match => '^POST /audio/\?delete=', do => 'refuse', times => 2);
add_rows($node, map { "returned/$_.mp3" } map { sprintf '%04d', $_ } 1 .. 64);
begin_counting();
$node->psql('postgres', 'CALL cleanup_run()');
ok(wait_for_drain($node), 'a run heals');
cmp_ok(requests('.'), '<', 100, 'many at a time') or diag requests('.');
clear_rules($proxy);
is(sql("SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM cleanup_files"
		. " WHERE run_id = (SELECT max(run_id) FROM cleanup_files WHERE file LIKE 'returned/%') GROUP BY state) s"),
	'failed 1, restored 62, trashed 1', 'what is needed again is back');
is_deeply(kinds('returned'), { '0001.mp3' => 'file marker file', '0003.mp3' => 'marker', map { (sprintf('%04d.mp3', $_) => 'file') } 2, 4 .. 64 },
	'each with its own version, whatever lay above it');
sql("UPDATE cleanup_files SET due_at = now() WHERE state = 'trashed'");
set_setting($node, 'backup_retention_days', 0);
$node->psql('postgres', 'CALL cleanup_run()');


# ---- an error of one key

my $policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":["s3:DeleteObjectVersion"],'
  . '"Resource":["arn:aws:s3:::audio/up/denied/0007.mp3"]}]}';
is(s3($gateway, 'PUT', 'audio', query => { policy => '' }, body => $policy)->{success}, 1, 'one file may not be deleted');
put(names('denied', 50));
$node->psql('postgres', 'CALL cleanup_run()');
is_deeply(kinds('denied'), { '0007.mp3' => 'marker file' }, 'the others go, and that one stays in the trash');
is(sql("SELECT count(*) FROM cleanup_files WHERE file LIKE 'denied/%' AND state = 'deleted'"), '49', 'each row says what became of its file');
like(log_since($node, 0), qr{could not delete file "denied/0007.mp3" .*AccessDenied}, 'the log says why');
s3($gateway, 'DELETE', 'audio', query => { policy => '' });
sql('CALL cleanup_run()');
ok(wait_for_drain($node), 'when it may be deleted');
is(states('denied'), 'deleted 50', 'it goes');
is_deeply(kinds('denied'), {}, 'for good');


# ---- killed, and cancelled

my $n = 0;
foreach my $step ([ 'hold', 1, 'before the markers' ], [ 'hold_after', 1, 'behind some markers' ],
	[ 'hold', 17, 'before versions are deleted' ], [ 'hold_after', 17, 'behind some versions' ])
{
	my ($do, $skip, $when) = @$step;
	my $folder = 'killed' . ++$n;

	put(names($folder, 64));
	# of 64 files four go by each request: 16 make the markers
	set_rule($proxy, match => '^POST /audio/\?delete=', do => $do, skip => $skip - 1);
	sql('SELECT cleanup_all()');
	ok(is_held($proxy), "the worker is held $when");
	kill_worker($node, $proxy);
	$node->psql('postgres', 'CALL cleanup_run()') foreach 1 .. 2;
	ok(wait_for_drain($node), 'the next run goes on');
	is_deeply(kinds($folder), {}, "killed $when, all go with the next run");
	is(states($folder), 'deleted 64', 'and the rows say so');
	is(s3($gateway, 'GET', 'audio/up/wanted.mp3')->{status}, 200, 'what is wanted is there');
}

put(names('cancelled', 100));
set_rule($proxy, match => '^POST /audio/\?delete=', do => 'hold');
my $began = time;
my ($status, $out, $error) = $node->psql('postgres', "SET statement_timeout = '3s'; CALL cleanup_run()");
like($error, qr/statement timeout/, 'a call that waits for many answers can be cancelled');
cmp_ok(time - $began, '<', 60, 'without waiting for them');
release($proxy);
$node->psql('postgres', 'CALL cleanup_run()') foreach 1 .. 2;
ok(wait_for_drain($node), 'and the next one ends it');
is(states('cancelled'), 'deleted 100', 'all are deleted');
is_deeply(kinds('cancelled'), {}, 'with nothing left');


# ---- one at a time

set_setting($node, 's3_requests', 1);
put(names('narrow', 60), map { "deep/a/$_/x.mp3" } 1 .. 20);
sql('CALL cleanup_run()');
is(states('narrow') . ', ' . states('deep'), 'deleted 60, deleted 20', 'one request at a time does the same');

# a walk of several folders side by side sees each file once
set_setting($node, 's3_requests', undef);
my @tree = map { my $folder = $_; map { "tree/$folder/$_.mp3" } 1 .. 30 } 'a', 'a-b', 'a.b', 'b', 'é', 'z', '~';
put(map { encode_utf8($_) } @tree);
my $found = sql_json($node, 'SELECT cleanup_all(dry_run => true)')->{result};
is($found->{orphaned_files_count}, scalar @tree, 'a walk sees each file once');
sql('CALL cleanup_run()');
is_deeply(kinds('tree'), {}, 'and all of them go');

done_testing();
