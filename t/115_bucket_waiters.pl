# Nobody waits for the server of a bucket but who has called: no row of an application and no hold is locked meanwhile.

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
my ($node) = start_bucket($gateway, 'bucket_waiters', proxy => $proxy, conf => "audio_cleanup.s3_timeout = '10min'\n"
	. "audio_cleanup.max_delete_percent = 100\naudio_cleanup.failed_session_retention_days = 0\n");

sub put { return put_objects($gateway, 'audio/up', @_) }
sub visible { return keys_of($gateway, 'audio', 'up/') }

sub pages_of_versions
{
	my @lines = split /\n/, slurp_file("$PostgreSQL::Test::Utils::log_path/s3_proxy.log");
	return scalar grep { /^GET .*key-marker=.*versions=/ } @lines;
}

put('wanted.mp3');


# ---- a hold, whose caller waits for the server

put('gone.mp3', 'other.mp3');
set_rule($proxy, match => '^GET .*prefix=up%2Fgone\.mp3&versions=', do => 'hold_after', times => 1);
my $holder = $node->background_psql('postgres', on_error_stop => 0);
$holder->query_until(qr/begun/, "\\echo begun\nSELECT cleanup_hold('gone.mp3');\n\\echo over\n");
ok(is_held($proxy), 'the server is asked for a file that is to be held');
$node->psql('postgres', 'CALL cleanup_run()');
is(states_of($node), 'gone.mp3 deleted, other.mp3 deleted', 'a run destroys files meanwhile, as there is no hold yet');
is(sql('SELECT count(*) FROM cleanup_holds'), '0', 'indeed');
release($proxy);
$holder->query_until(qr/over/, '');
is(sql('SELECT file FROM cleanup_holds'), 'gone.mp3', 'then the hold is made');
like($holder->{stderr}, qr/NOTICE:.*there is no file "gone\.mp3"/, 'and says that the file has gone');
$holder->{stderr} = '';
put('here.mp3');
$holder->query("SELECT cleanup_hold('here.mp3')");
is($holder->{stderr}, '', 'of a file that is there it says nothing');
$holder->quit;


# ---- a hold while the server deletes files

put('kept.mp3', 'doomed.mp3');
sql("SELECT cleanup_hold('kept.mp3')");
set_rule($proxy, match => '^DELETE /audio/up/doomed\.mp3\?versionId', do => 'hold', times => 1);
my $runner = $node->background_psql('postgres', on_error_stop => 0);
$runner->query_until(qr/begun/, "\\echo begun\nCALL cleanup_run();\n\\echo over\n");
ok(is_held($proxy), 'the server is to delete files for good');
foreach my $case ([ 'doomed.mp3', qr/WARNING:.*may be too late for the file "doomed\.mp3"/ ], [ 'here.mp3', qr/^$/ ], [ 'none.mp3', qr/NOTICE:.*no file/ ])
{
	my ($file, $answer) = @$case;
	my ($rc, undef, $told) = $node->psql('postgres', "SET statement_timeout = '20s'; SELECT cleanup_hold('$file')");
	is($rc, 0, "$file: a hold does not wait for the server");
	like($told, $answer, "$file: and says what is true");
}
release($proxy);
$runner->query_until(qr/over/, '');
$runner->quit;
is(sql("SELECT state FROM cleanup_files WHERE file = 'doomed.mp3'"), 'deleted', 'it was too late');
put('doomed.mp3');
sql('CALL cleanup_run()');
is_deeply(visible(), [ 'doomed.mp3', 'here.mp3', 'kept.mp3', 'wanted.mp3' ], 'the hold keeps a later file of that name');
sql("SELECT cleanup_release('kept.mp3')");
add_rows($node, 'kept.mp3', 'doomed.mp3');


# ---- a hold that is not committed yet, when a worker is to delete files

put('left.mp3');
my $holding = begin_session($node, "SELECT cleanup_hold('kept.mp3')");
my $cleaning = begin_session($node, "SET audio_cleanup.writer_wait = '1s'");
end_session($holding, 'ROLLBACK');
$cleaning->query_safe('SELECT cleanup_all()');
$holding = begin_session($node, "SELECT cleanup_hold('kept.mp3')");
my $from = log_position($node);
end_session($cleaning);
ok(wait_until(sub { log_since($node, $from) =~ /condemned files are left as they are/ }), 'the worker leaves the files');
is_deeply(visible(), [ 'doomed.mp3', 'here.mp3', 'kept.mp3', 'left.mp3', 'wanted.mp3' ], 'where they are');
end_session($holding);
ok(wait_for_drain($node), 'and tries again');
is_deeply(visible(), [ 'doomed.mp3', 'here.mp3', 'kept.mp3', 'wanted.mp3' ], 'when the hold is made, it deletes them');
sql("SELECT cleanup_release('kept.mp3')");


# ---- a restore of more files than are looked at together, whose caller waits for the server

my @names = map { sprintf 'audio%04d.mp3', $_ } 1 .. 1010;
sql(q{SELECT cleanup_drop_source('sessions'); SELECT cleanup_add_source('sessions', on_failed => 'clear')});
fill_bucket($gateway, 'audio/up', @names);
sql("INSERT INTO sessions (audio_url, status, updated_at) SELECT format('audio%s.mp3', lpad(i::text, 4, '0')), 'failed', now() - interval '1 day'"
	. ' FROM generate_series(1, 1010) i');
set_setting($node, 'backup_retention_days', 7);
sql('CALL cleanup_run()');
my $run = sql('SELECT max(run_id) FROM cleanup_runs');
is(sql("SELECT count(*) FROM cleanup_files WHERE run_id = $run AND state = 'trashed'"), '1010', 'the files of failed sessions are in the trash');
is(sql("SELECT count(*) FROM sessions WHERE status = 'failed' AND audio_url IS NULL"), '1010', 'and their columns are cleared');

my $pages = pages_of_versions();
sql("BEGIN; SELECT cleanup_restore($run); ROLLBACK");
$pages = pages_of_versions() - $pages;
cmp_ok($pages, '>', 2, 'a restore reads some pages of versions');
set_rule($proxy, match => '^GET .*key-marker=.*versions=', do => 'hold', skip => $pages - 1);
my $restorer = $node->background_psql('postgres', on_error_stop => 0);
$restorer->query_until(qr/begun/, "\\echo begun\nSELECT cleanup_restore($run) #>> '{result,sessions_count}';\n\\echo over\n");
ok(is_held($proxy), 'it waits for the last of these');
my (undef, undef, $error) = $node->psql('postgres', "SET lock_timeout = '5s'; UPDATE sessions SET error_message = 'written meanwhile'");
is($error, '', 'all rows of the application can be written meanwhile');
release($proxy);
like($restorer->query_until(qr/over/, ''), qr/^1010$/m, 'then the columns are filled again');
$restorer->quit;
is(sql("SELECT count(*) FROM sessions WHERE audio_url LIKE 'audio%' AND error_message = 'written meanwhile'"), '1010', 'each of them');
ok(wait_for_drain($node), 'the files are put back');
is(scalar(grep { /^audio/ } @{ visible() }), 1010, 'all of them');
is(log_lines($node, qr/PANIC:|TRAP:|terminated by signal/), '', 'no process has died');

done_testing();
