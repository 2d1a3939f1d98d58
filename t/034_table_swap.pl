# A table is swapped for a new one of the same name, as many migrations do: the
# old one must not go on telling alone which files are wanted.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('table_swap');
my $dir = upload_dir($node);
make_schema($node);
put_files($dir, 'keep.mp3', 'after_the_swap.mp3');
add_rows($node, 'keep.mp3');
$node->safe_psql('postgres', q{
	BEGIN;
	CREATE TABLE sessions_new (LIKE sessions INCLUDING ALL);
	INSERT INTO sessions_new SELECT * FROM sessions;
	ALTER TABLE sessions RENAME TO sessions_old;
	ALTER TABLE sessions_new RENAME TO sessions;
	COMMIT;
	INSERT INTO sessions (audio_url) VALUES ('after_the_swap.mp3');
});
my $files = visible_files($dir);

my ($rc, $stdout, $stderr) = $node->psql('postgres', 'SELECT cleanup_all()');
isnt($rc, 0, 'a run is refused');
like($stderr, qr/sessions_old/, 'and says which source has changed its name');
is_deeply(sql_json($node, 'SELECT cleanup_status()')->{blocked_by}, ['source'], 'so says cleanup_status()');

$node->safe_psql('postgres', q{SELECT cleanup_add_source('sessions')});
$node->psql('postgres', q{SELECT cleanup_drop_source('sessions_old')});
$node->safe_psql('postgres', 'SELECT cleanup_all()');
ok(wait_for_drain($node), 'with the new table registered it can go on');
is_deeply(visible_files($dir), $files, 'the files of the new table are kept');

$node->stop;
done_testing();
