# The library refuses to be loaded in a session whose client has sent our
# settings.  The server then calls its _PG_init() once more with each call of
# that session: the session goes on, and so does the server.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('refused_at_load');
make_schema($node);
$node->safe_psql('postgres', q{CREATE ROLE viewer LOGIN; SELECT cleanup_grant_access('viewer')});

my $timed_out;
my ($rc, $stdout, $stderr);
{
	local $ENV{PGOPTIONS} = '-c audio_cleanup.upload_dir=/tmp';
	($rc, $stdout, $stderr) = $node->psql('postgres', "SELECT cleanup_config();\n" x 4 . "SELECT count(*) || ' roles' FROM pg_roles WHERE rolname = 'viewer'",
		extra_params => [ '-U', 'viewer' ], on_error_stop => 0, timeout => 60, timed_out => \$timed_out);
}
ok(!$timed_out, 'no call hangs');
is(() = $stderr =~ /ERROR:  parameter "audio_cleanup.upload_dir" cannot be set by the client/g, 4, 'each call is refused')
  or diag($stderr);
is($stdout, '1 roles', 'the session works on');
unlike(log_lines($node, qr/TRAP|PANIC|terminated by signal/), qr/./, 'the server has not crashed');
$node->stop($timed_out ? 'immediate' : 'fast');
done_testing();
