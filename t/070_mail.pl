#
# Mail: a real run, a real mail server, and what arrives there
#
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use AudioCleanup;
use Mail;

my $node = new_server('mail', conf => "shared_preload_libraries = 'audio_cleanup'\n");
my $dir = upload_dir($node);
make_schema($node);
add_rows($node, 'wanted.mp3');
put_files($dir, 'wanted.mp3');

my $server = start_mail_server();
change_settings($node,
	'audio_cleanup.smtp_url' => "smtp://localhost:$server->{port}",
	'audio_cleanup.smtp_tls' => 'off',
	'audio_cleanup.mail_from' => 'postgres@db1.test',
	'audio_cleanup.mail_to' => 'dba@example.com, boss@example.com',
	'audio_cleanup.mail_on' => 'always');

put_files($dir, 'orphan.mp3');
$node->safe_psql('postgres', 'CALL cleanup_run()');
my ($mail) = wait_for_mails($server, 1);
ok($mail, 'a run, and a mail');
note explain $mail;
note $node->safe_psql('postgres', 'SELECT * FROM cleanup_mail');
note $node->safe_psql('postgres', 'SELECT cleanup_send_test_mail()');
note log_lines($node, qr/mail|ERROR|WARN/);
done_testing();
