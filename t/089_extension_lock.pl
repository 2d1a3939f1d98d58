# Anybody may lock an extension, with a function of his own that depends on it, and for as long as he likes.  Runs go on.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::BackgroundPsql;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('extension_lock', conf => "shared_preload_libraries = 'audio_cleanup'\naudio_cleanup.databases = 'postgres'\n"
	. "audio_cleanup.max_delete_percent = 100\n");
my $dir = upload_dir($node);
make_schema($node);
add_rows($node, 'wanted.mp3');
$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN');

my $nobody = $node->background_psql('postgres', extra_params => [ '-U', 'nobody' ]);
$nobody->query_safe(q{CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'});
$nobody->query_safe('BEGIN');
$nobody->query_safe('ALTER FUNCTION pg_temp.f() DEPENDS ON EXTENSION audio_cleanup');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE classid = 'pg_extension'::regclass AND mode = 'AccessExclusiveLock' AND granted}),
	1, 'nobody has locked the extension');

foreach my $statement ('SELECT cleanup_all()', 'CALL cleanup_run()',
	'SET audio_cleanup.backup_retention_days = 1; SELECT cleanup_all(); SELECT cleanup_restore(max(run_id)) FROM cleanup_runs')
{
	put_files($dir, 'wanted.mp3', 'orphan.mp3');
	$node->safe_psql('postgres', $statement);
	ok(wait_for_drain($node), "$statement: it ends");
	is_deeply([ sort keys %{ visible_files($dir) } ], $statement =~ /restore/ ? [ 'orphan.mp3', 'wanted.mp3' ] : ['wanted.mp3'],
		"$statement: what is left");
}
like(log_lines($node, qr/is locked by somebody else/), qr/LOG:  extension "audio_cleanup" is locked by somebody else, and is used without a lock/,
	'the server log says so');

# by night, too
$node->safe_psql('postgres', 'ALTER SYSTEM SET audio_cleanup.auto_cleanup_on_startup = on');
end_session($nobody, 'ROLLBACK');
put_file($dir, 'night.mp3');
$node->restart;
$nobody = $node->background_psql('postgres', extra_params => [ '-U', 'nobody' ]);
$nobody->query_safe(q{CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'});
$nobody->query_safe('BEGIN');
$nobody->query_safe('ALTER FUNCTION pg_temp.f() DEPENDS ON EXTENSION audio_cleanup');
ok(wait_until(sub { !-e "$dir/night.mp3" }), 'a worker cleans, too');
end_session($nobody, 'ROLLBACK');

# who lets go is not overtaken
$node->safe_psql('postgres', 'DROP EXTENSION audio_cleanup');
pass('and DROP EXTENSION works');
$node->stop;
done_testing();
