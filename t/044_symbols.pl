# Libraries share one table of names in a server.  Another one that is loaded
# first and has functions of our names is not called, and of ours nothing is to
# be seen but what the server calls.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my ($libdir) = run_command([ 'pg_config', '--pkglibdir' ]);
my ($cc) = run_command([ 'pg_config', '--cc' ]);
my ($include) = run_command([ 'pg_config', '--includedir-server' ]);
my $entry = qr/^(Pg_magic_func|_PG_init|(pg_finfo_)?cleanup_\w+|audio_cleanup_(mail|bucket)_library_\d+_\d+)$/;

# ---- what is to be seen ----

foreach my $library (glob("$libdir/audio_cleanup*.so"))
{
	my ($symbols) = run_command([ 'nm', '-D', '--defined-only', $library ]);
	my @names = map { (split)[2] } split /\n/, $symbols;

	ok(@names > 1, "$library shows something");
	is_deeply([ grep { $_ !~ $entry } @names ], [], "... but only entry points");
}

# ---- all functions of our headers, in a library that came first ----

my %names;
foreach my $header (glob("$FindBin::RealBin/../src/*.h $FindBin::RealBin/../src/*/*.h"))
{
	my $text = slurp_file($header);
	$names{$1} = 1 while $text =~ /^extern\s[^;(]*?(\w+)\(/mg;
}
delete @names{ grep { $_ =~ $entry } keys %names };
ok(exists $names{$_}, "$_ is one of our names") foreach 'json_begin', 'store_open', 'mail_begin', 'walk_next', 'plan_survey';

my $base = "$PostgreSQL::Test::Utils::tmp_check/namesakes";
append_to_file("$base.c", join("\n", '#include "postgres.h"', '#include "fmgr.h"', 'PG_MODULE_MAGIC;',
	map { "extern PGDLLEXPORT void $_(void); void $_(void) { elog(FATAL, \"namesake $_ was called\"); }" } sort keys %names)
	  . "\n");
system_or_bail(split(' ', $cc), '-shared', '-fPIC', "-I$include", '-o', "$base.so", "$base.c");

# ---- and all goes well ----

my $node = new_server('symbols', conf => "shared_preload_libraries = '$base, audio_cleanup'\n");
my $dir = upload_dir($node);

make_schema($node);
put_files($dir, 'keep.mp3', 'orphan.mp3', 'restored.mp3');
add_rows($node, 'keep.mp3');
$node->safe_psql('postgres', q{ALTER DATABASE postgres SET audio_cleanup.backup_retention_days = 30});
$node->safe_psql('postgres', $_)
  foreach 'SELECT cleanup_status()', 'SELECT * FROM cleanup_check()', 'SELECT cleanup_dashboard()', 'CALL cleanup_run()',
  q{SELECT cleanup_restore('restored.mp3')}, q{SELECT cleanup_explain('keep.mp3')}, 'SELECT * FROM cleanup_missing_files()';
is_deeply([ sort keys %{ visible_files($dir) } ], [ 'keep.mp3', 'restored.mp3' ], 'a run and its undoing work');

# the second library
$node->safe_psql('postgres', q{
	ALTER DATABASE postgres SET audio_cleanup.smtp_url = 'smtp://localhost:1';
	ALTER DATABASE postgres SET audio_cleanup.mail_from = 'a@example.org';
	ALTER DATABASE postgres SET audio_cleanup.mail_to = 'b@example.org'});
my ($rc, $stdout, $stderr) = $node->psql('postgres', 'SELECT cleanup_send_test_mail()');
unlike("$stdout$stderr", qr/namesake/, 'a mail is sent by our own functions');
is(log_lines($node, qr/namesake|PANIC|terminated by signal/), '', 'no namesake was called');
$node->stop;

done_testing();
