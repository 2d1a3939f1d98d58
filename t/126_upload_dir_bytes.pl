# An upload or backup directory whose path is not valid in the encoding of the
# database: nothing is cleaned there, because no dump of its rows could be
# restored, and what says so can be restored.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('bytes', conf => "audio_cleanup.max_delete_percent = 100\n", init => [ extra => [ '--encoding=UTF8', '--locale=C' ] ]);
my $plain = upload_dir($node);
my $dir = $node->basedir . "/gr\xF6\xDFe";

rename $plain, $dir or die "could not rename $plain: $!";
$node->append_conf('postgresql.conf', "audio_cleanup.upload_dir = '$dir'\n");
$node->reload;
make_schema($node);
put_files($dir, 'wanted.mp3', 'orphan.mp3');
add_rows($node, 'wanted.mp3');

like(sql_error($node, 'SELECT cleanup_all()'), qr/ERROR:  22021: upload directory ".*gr\\xF6\\xDFe" is not a place to clean\nDETAIL:  Its name is not valid in the encoding "UTF8"/,
	'a call is refused');
like(sql_error($node, 'CALL cleanup_run()'), qr/ERROR:  22021/, 'a CALL, too');
is_deeply(sql_json($node, 'SELECT cleanup_status()')->{blocked_by}, ['upload_dir'], 'a preview says so');
is($node->safe_psql('postgres', q{SELECT status FROM cleanup_check() WHERE check_name = 'upload_dir'}), 'error', 'the doctor, too');
is($node->safe_psql('postgres', 'SELECT status FROM cleanup_runs'), 'blocked', 'the history has the refusal');
is_deeply([ sort keys %{ visible_files($dir) } ], [ 'orphan.mp3', 'wanted.mp3' ], 'nothing is deleted');

# by a symlink all is well
symlink $dir, $plain or die "could not link $plain: $!";
$node->append_conf('postgresql.conf', "audio_cleanup.upload_dir = '$plain'\naudio_cleanup.backup_retention_days = 7\naudio_cleanup.backup_dir = '" . $node->basedir . "/b\xE4ck'\n");
mkdir $node->basedir . "/b\xE4ck", 0700;
$node->reload;
ok($node->poll_query_until('postgres', "SELECT current_setting('audio_cleanup.upload_dir') = '$plain'"), 'the directory has another name');
like(sql_error($node, 'SELECT cleanup_all()'), qr/ERROR:  22021: backup directory ".*b\\xE4ck" is not a place to keep backups/, 'a backup directory is judged alike');
$node->append_conf('postgresql.conf', "audio_cleanup.backup_dir = ''\n");
$node->reload;
ok($node->poll_query_until('postgres', "SELECT current_setting('audio_cleanup.backup_dir') = ''"), 'there is none any more');
$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'by a symlink the directory is cleaned');
is_deeply([ sort keys %{ visible_files($dir) } ], ['wanted.mp3'], 'the orphan is gone');

$node->safe_psql('postgres', 'CREATE DATABASE restored');
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '--file', $dump, '--dbname', $node->connstr('postgres') ], 'a dump is made');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '--file', $dump, '--dbname', $node->connstr('restored') ], 'and is restored');
is($node->safe_psql('restored', 'SELECT count(*) FROM cleanup_runs'), $node->safe_psql('postgres', 'SELECT count(*) FROM cleanup_runs'), 'with all runs');

$node->stop;
done_testing();
