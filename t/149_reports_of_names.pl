# What trackers of similar tools report about names: how an application writes
# a name, and where.  Each situation is a file, a value, and what becomes of the
# file; the comment says where it was reported.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('reports_of_names', conf => "audio_cleanup.max_delete_percent = 100\n");
my $dir = upload_dir($node);
my $e = "\xc3\xa9";    # U+00E9

$node->safe_psql('postgres', q{
	CREATE EXTENSION audio_cleanup;
	CREATE TABLE uploads (value text);
	SELECT cleanup_add_source('uploads', '{value}')});

# check(SETTINGS, [FILE, VALUE or undef, WHAT] ...): the files without a value, and those whose name begins with "lost", are orphans
sub check
{
	my ($settings, @cases) = @_;
	my @values = map { s/'/''/gr } grep { defined } map { $_->[1] } @cases;
	my ($result, %gone);

	put_files($dir, map { $_->[0] } @cases);
	$node->safe_psql('postgres', "DELETE FROM uploads; INSERT INTO uploads VALUES " . join ', ', map { "('$_')" } @values);
	$result = sql_json($node, "$settings SELECT cleanup_all(true)")->{result};
	is_deeply($result->{errors}, [], 'a preview without an error');
	%gone = map { utf8::encode(my $name = $_); ($name => 1) } @{ $result->{orphaned_files_deleted} };
	is($gone{ $_->[0] } // 0, !defined $_->[1] || $_->[2] =~ /^lost:/ ? 1 : 0, $_->[2]) foreach @cases;
	empty_directory($dir);
	return;
}

check('',
	# ---- texts that a program has made ----
	[ "caf$e 1.mp3", q($VAR1 = { 'file' => "caf\x{e9} 1.mp3" };), q(Perl's Data::Dumper, B::perlstring) ],
	[ "caf$e 2.mp3", q(#<Upload file="caf\u{e9} 2.mp3">), q(Ruby's inspect) ],
	[ "caf$e 3.mp3", qq(--- !ruby/object:Upload\nfile: "caf\\xC3\\xA9 3.mp3"\n), 'YAML with escapes of bytes' ],
	[ "caf$e 4.mp3", q(b'caf\xc3\xa9 4.mp3'), 'bytes of Python' ],
	[ 'posix.mp3', q({'file': PosixPath('/media/posix.mp3')}), 'a path of Python' ],
	[ "caf$e 5.mp3", q(attachment; filename="cafe.mp3"; filename*=UTF-8''caf%C3%A9%205.mp3), 'Content-Disposition' ],
	[ 'store/shrine.mp3', '{"id":"shrine.mp3","storage":"store","derivatives":{"small":{"id":"small-17.mp3"}}}', 'Shrine' ],
	[ "it's 6.mp3", q(file 'it'\\''s 6.mp3'), 'a list of ffmpeg' ],
	[ 'music/Artist/01 - Song.mp3', "#EXTM3U\n#EXTINF:123,Artist - Song\n../music/Artist/01 - Song.mp3\n", 'M3U' ],
	[ 'Album.flac', qq(FILE "Album.flac" WAVE\r\n  TRACK 01 AUDIO\r\n), 'a cue sheet' ],

	# ---- texts that an encoding has passed through: multer takes names for Latin-1 (GrottoCenter/grottocenter-api#1503) ----
	[ "Entr${e}e.mp3", "Entr\xc3\x83\xc2\xa9e.mp3", 'UTF-8 taken for Latin-1' ],
	[ "\xc3\x89t$e.mp3", "\xc3\x83\xe2\x80\xb0t\xc3\x83\xc2\xa9.mp3", 'UTF-8 taken for Windows-1252' ],
	[ "\xe4\xbc\x9a.mp3", "/u/\xc3\xa4\xc2\xbc\xc5\xa1.mp3", '... a letter of three bytes' ],
	[ "\xc3\x83\xc2\xa9.mp3", "\xc3\x83\xc2\xa9.mp3", '... and a file of such a name' ],
	[ "Para\xcc\x81sos.FLAC", "Par\xc3\xa1sos.flac", 'NFD and NFC (StuffAnThings/qbit_manage#1370)' ] ,
	[ "Memo at 1.01.11\xe2\x80\xafAM.m4a", 'Memo at 1.01.11 AM.m4a', 'the blank of macOS before AM (cline/cline#10691)' ],

	# ---- paths and URLs ----
	[ '2024-05/drupal.mp3', 'public://2024-05/drupal.mp3', 'Drupal' ],
	[ 'moodle talk.mp3', '<audio src="@@PLUGINFILE@@/moodle%20talk.mp3?time=17"></audio>', 'Moodle' ],
	[ 'brace.ogg', '/media/brace.{mp3,ogg}', 'a list of extensions' ],
	[ 'oss.mp3', 'https://b.oss.example.com/oss.mp3!small', 'a style behind the name' ],
	[ 'plain.mp3', 'https://img/insecure/plain/local:///plain.mp3@mp4', 'imgproxy' ],
	[ 'signed.mp3', 'https://h/s/signed.mp3?X-Amz-Signature=1&response-content-disposition=attachment%3B%20filename%3D%22other.mp3%22', 'a signed URL' ],
	[ 'sub/dict.mp3', q({'path': '.\\\\sub\\\\dict.mp3'}), 'a path of Windows in Python' ],
	[ 'env.mp3', '${UPLOADS}/env.mp3', 'a variable of the shell' ],
	[ 'winenv.mp3', '%UPLOADS%\\winenv.mp3', 'a variable of Windows' ],
	[ 'jsession.mp3', '/dl/jsession.mp3;jsessionid=17', 'a session in the path' ],
	[ '2024-05-01T10:30:00.mp3', '2024-05-01T10:30:00.mp3', 'a time as a name' ],

	# ---- a bare name, and a folder that the application computes (CarrierWave, Paperclip): docs/references.md ----
	[ 'session/audio/17/recording.wav', 'recording.wav', 'a bare name keeps its file' ],

	# ---- what protects nothing: docs/references.md ----
	[ 'local_content/Aa/Bb/CcDdEeFf.mp3', 'AaBbCcDdEeFf', 'lost: an id that is cut into folders (synapse, Gitea LFS)' ],
	[ '5e551014000040008000000000000077.mp3', '5e551014-0000-4000-8000-000000000077', 'lost: an id without its hyphens' ],
	[ 'archive/2024/05/moved.mp3', '/uploads/2024/05/moved.mp3', 'lost: a folder that was moved' ],
	[ "caf$e 7.mp3", '=?UTF-8?Q?caf=C3=A9_7.mp3?=', 'lost: quoted-printable' ]);

# the view that docs/references.md shows
$node->safe_psql('postgres', q{
	CREATE TABLE recordings (id text);
	INSERT INTO recordings VALUES ('aabbccddeeff');
	CREATE VIEW paths AS SELECT left(id, 2) || '/' || substr(id, 3) || '.mp3' AS file FROM recordings;
	SELECT cleanup_add_source('paths', '{file}')});
check('', [ 'aa/bbccddeeff.mp3', 'x', 'a view makes the path' ], [ 'bb/bbccddeeff.mp3', undef, '... and no other' ]);

# ---- folders, and what is made from a file ----

my $digest = '9ffc951204ce7ea0e4612bc566e264f874eea8a71e5919d353ca670e72a561fd';
my $uuid = '016addc4-1112-4926-8a35-afcd8930a531';
check(q{SET audio_cleanup.audio_extensions = '*'; SET audio_cleanup.derived_folders = '_hls'; SET audio_cleanup.derived_suffixes = '.waveform, -240';},
	[ '24e533e02ec3bc40c387f1a0e460e216', '24e533e02ec3bc40c387f1a0e460e216', 'an upload by tus' ],
	[ '24e533e02ec3bc40c387f1a0e460e216.info', 'x', '... with what tusd writes beside it (tus/tusd#1076)' ],
	[ "blobs/sha256/9f/$digest/data", "sha256:$digest", 'the layout of a registry (distribution/distribution)' ],
	[ 'Author/Title/01.mp3', '/audiobooks/Author/Title', 'the path of a folder (Audiobookshelf)' ],
	[ 'Author/Title/CD 2/01.mp3', 'x', '... and what is below' ],
	[ 'Author/Other/01.mp3', '/audiobooks/Author/Other/', '... with a slash' ],
	[ 'Author/Third/01.mp3', undef, '... and no other' ],
	[ "$uuid-240.mp4", $uuid, 'a resolution (PeerTube)' ],
	[ 'wave.mp3.waveform.json', 'wave.mp3', 'a waveform' ],
	[ 'index.html', undef, 'any extension: also that of a page' ],
	[ '.htaccess', 'x', '... but no name with a dot before it' ]);

# ---- a table that nobody has registered: theme settings (discourse/discourse#12326), designs (gitlab-org/gitlab 244848) ----

put_files($dir, 'wanted.mp3', "$uuid.wav", 'feed.mp3', 'setting.mp3');
$node->safe_psql('postgres', qq{
	DELETE FROM uploads; INSERT INTO uploads VALUES ('wanted.mp3');
	CREATE TABLE sessions (id uuid); INSERT INTO sessions VALUES ('$uuid');
	CREATE TABLE playlists (items uuid[]); INSERT INTO playlists VALUES ('{$uuid}');
	CREATE TABLE feeds (body xml); INSERT INTO feeds VALUES ('<rss><enclosure url="https://h/feed.mp3"/></rss>');
	CREATE TABLE settings (value jsonb); INSERT INTO settings VALUES ('{"jingle": "https://h/setting.mp3"}')});
is_deeply([ sort @{ sql_json($node, 'SELECT cleanup_status()')->{warnings} } ],
	[ map { "column public.$_ holds 1 of the 3 sampled names" } 'feeds.body', 'playlists.items', 'sessions.id', 'settings.value' ],
	'columns of ids, XML and JSON are searched');
like(sql_error($node, q{SET application_name = 'pg_cron'; SELECT cleanup_all()}), qr/ERROR:  55000:/, '... and stop a run that nobody attends');

$node->stop;
is(log_lines($node, qr/PANIC:|TRAP:|signal \d+/), '', 'no process has died');
done_testing();
