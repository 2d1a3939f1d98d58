# The dashboard in a browser: it is shown, asks nobody for anything, says what
# the tables say, fits a phone, can be read, and takes names for names.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use AudioCleanup;
use Browser;
use IPC::Run;
use JSON::PP qw(decode_json encode_json);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $img = '<img src=x onerror=document.title=1>.mp3';
my $node = new_server('dashboard', conf => <<'END');
shared_preload_libraries = 'audio_cleanup'
audio_cleanup.databases = 'postgres'
audio_cleanup.timezone = 'UTC'
END
my $dir = upload_dir($node);
my $browser = Browser->start(PostgreSQL::Test::Utils::tempdir_short(), "$PostgreSQL::Test::Utils::log_path/chromium.log");

# As the README says.  Returns the name of the file.
sub save_page
{
	my ($name, $database) = @_;
	my $file = "$PostgreSQL::Test::Utils::tmp_check/$name.html";
	my ($page, $stderr) = run_command([ 'psql', '-qAtX', '-d', $node->connstr($database || 'postgres'), '-c', 'select cleanup_dashboard()' ]);

	is($stderr, '', "$name: psql returns the page");
	append_to_file($file, "$page\n");
	return $file;
}

sub text_of
{
	my ($selector) = @_;
	return $browser->js("document.querySelector('$selector').textContent.replace(/\\s+/g, ' ').trim()");
}

sub values_of
{
	my ($selector) = @_;
	return $browser->js("[...document.querySelectorAll('$selector data')].map(d => d.value).join(' ')");
}

# Nobody is asked for anything, and nothing complains.
sub is_quiet
{
	my ($name) = @_;
	is_deeply($browser->complaints, [], "$name: nothing in the console");
	is_deeply($browser->requests, [], "$name: nothing is asked for");
	return;
}

# Texts that are too faint on what they stand on (WCAG AA), and elements that leave the window.
my $faint = q{(() => {
	const channels = colour => colour.match(/[\d.]+/g).map(Number);
	const light = colour => channels(colour).slice(0, 3).map(c => c / 255)
		.map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
		.reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
	const ground = e => { for (; e; e = e.parentElement) {
		const c = getComputedStyle(e).backgroundColor;
		if ((channels(c)[3] ?? 1) == 1) return c; } return 'rgb(255, 255, 255)'; };
	const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
	const found = [];
	for (const e of document.querySelectorAll('body *')) {
		const drawn = e instanceof SVGElement, style = getComputedStyle(e);
		if (drawn ? !['text', 'rect'].includes(e.tagName) : ![...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())) continue;
		const r = ratio(light(drawn ? style.fill : style.color), light(ground(e)));
		if (r < (e.tagName == 'rect' ? 3 : 4.5)) found.push(`${e.tagName} ${r.toFixed(2)} ${e.textContent.slice(0, 30)}`);
	}
	return found;
})()};
my $wide = q{[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 0.5
	|| e.getBoundingClientRect().left < -0.5 || e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)
	.map(e => e.tagName + ' ' + e.textContent.slice(0, 30))};

# ---- this browser would see it if something were wrong ----

my $bad = "$PostgreSQL::Test::Utils::tmp_check/bad.html";
append_to_file($bad, q{<p style="width: 3000px; color: #999; background: #fff">wide, and faint</p><img src="file:///nowhere.png">}
	  . q{<script>console.log('run')</script>});
$browser->show($bad);
isnt(scalar @{ $browser->complaints }, 0, 'a script is noticed');
is_deeply($browser->requests, ['file:///nowhere.png'], 'so is what a page asks for');
cmp_ok(scalar @{ $browser->js($wide) }, '>', 0, 'and what is too wide');
is_deeply($browser->js($faint), ['P 2.85 wide, and faint'], 'and what is too faint');

# ---- an empty history ----

$node->safe_psql('postgres', 'CREATE EXTENSION audio_cleanup; DROP EXTENSION audio_cleanup');
make_schema($node);
$browser->show(save_page('empty'));
is_quiet('an empty history');
is($browser->js('document.title'), 'Ready: audio_cleanup in postgres', 'title');
like(text_of('#begin'), qr/SELECT cleanup_all\(\);/, 'it says how to begin');
is($browser->js(q{document.querySelector('#schedule')}), undef, 'not how to schedule: it is');
like(text_of('#next_run'), qr/^Next run: \d+ \w+ \d{4}, 03:00, every day at 03:00\.$/, 'when the next run is');

# ---- a month ----

my @names = ($img, "line\nbreak.mp3", "\x{e9}t\x{e9} \"quoted\" & more.mp3", "\e]0;title\a.mp3");
utf8::encode($_) foreach @names;
put_files($dir, @names, 'wanted.mp3');
add_rows($node, 'wanted.mp3');
$node->safe_psql('postgres', q{
	INSERT INTO cleanup_runs (run_id, started_at, finished_at, what, trigger, status, message, errors, requested_by, upload_dir, settings)
	SELECT n, at, at + n * interval '7 s', 'all', 'schedule', CASE n WHEN 38 THEN 'failed' WHEN 20 THEN 'blocked' ELSE 'done' END,
		CASE n WHEN 20 THEN 'more than 50 percent <script>document.title = 2</script>' END, CASE n WHEN 38 THEN 2 ELSE 0 END, 'postgres', '/', '{}'
	FROM generate_series(1, 40) n, LATERAL (SELECT date_trunc('day', now()) - (40 - n) * interval '1 day' AS at) a;
	INSERT INTO cleanup_files (run_id, file, reason, state, size, freed, error, modified_at, condemned_at, due_at, finished_at, inode, mtime_ns, ctime_ns, btime_ns)
	SELECT r.run_id, 'file ' || n, CASE WHEN n % 3 = 0 THEN 'failed_session' ELSE 'orphan' END, state, size, CASE state WHEN 'deleted' THEN size END,
		CASE state WHEN 'failed' THEN 'Read-only file system <img src=y onerror=document.title=3> ' || repeat('long', 60) END,
		r.started_at, CASE state WHEN 'pending' THEN now() ELSE r.started_at END, CASE state WHEN 'trashed' THEN now() + interval '9 days' ELSE r.started_at END,
		CASE WHEN state IN ('deleted', 'failed') THEN r.started_at END, 1, 1, 1, 1
	FROM cleanup_runs r, generate_series(1, 5 + r.run_id::int % 9) n, LATERAL (SELECT 100000 * n * r.run_id AS size,
		CASE WHEN r.run_id = 38 AND n <= 2 THEN 'failed' WHEN r.run_id > 30 AND n = 3 THEN 'trashed' WHEN r.run_id = 40 AND n = 4 THEN 'pending' ELSE 'deleted' END AS state) s
	WHERE r.status <> 'blocked';
});
my $page = save_page('month');
my $days = decode_json($node->safe_psql('postgres', q{
	SELECT json_agg(d ORDER BY day DESC) FROM (
		SELECT finished_at::date AS day, sum(freed) AS bytes, count(*) AS files,
			count(*) FILTER (WHERE reason = 'orphan') AS orphans, count(*) FILTER (WHERE reason = 'failed_session') AS failed
		FROM cleanup_files WHERE state = 'deleted' AND finished_at >= current_date - 29 GROUP BY 1) d}));

foreach my $look ([ 1180, 'light' ], [ 1180, 'dark' ], [ 390, 'light' ], [ 390, 'dark' ], [ 320, 'light' ])
{
	my ($width, $scheme) = @$look;
	my $name = "$width pixels, $scheme";

	$browser->show($page, width => $width, scheme => $scheme);
	is_quiet($name);
	is_deeply($browser->js($wide), [], "$name: nothing leaves the window");
	is($browser->js('document.documentElement.scrollWidth'), $width, "$name: no scrolling sideways");
	is_deeply($browser->js($faint), [], "$name: everything can be read");
	cmp_ok($browser->screenshot("$PostgreSQL::Test::Utils::log_path/dashboard_${width}_$scheme.png"), '>', 10000, "$name: there is something to see");
	$browser->js(q{document.querySelectorAll('details').forEach(d => d.open = true)});
	is_deeply($browser->js($wide), [], "$name: nothing does with all tables open");
	is_deeply($browser->js($faint), [], "$name: they can be read, too");
}

# ---- it says what the tables say ----

is(values_of('#space'), join(' ', map { $_->{bytes} } @$days), 'space freed, day by day');
is($browser->js(q{[...document.querySelectorAll('#nights tbody tr')].map(r => [...r.cells].slice(1).map(c => c.textContent).join('+')).join(' ')}),
	join(' ', map { "$_->{orphans}+$_->{failed}" } @$days), 'files by reason, night by night');
is(values_of("#$_->[0]"), $node->safe_psql('postgres', "SELECT sum($_->[1]) FROM cleanup_files WHERE $_->[2]") =~ s/\n/ /gr, $_->[0]) foreach
  [ 'freed_recently', 'freed', q{finished_at >= current_date - 29} ], [ 'freed', 'freed', 'true' ],
  [ 'kept', 'size', q{state = 'trashed'} ], [ 'backups', 'size', q{state = 'trashed' GROUP BY run_id ORDER BY run_id} ];
is(values_of('#would_free'), length join('', map { "audio of $_\n" } @names), 'what a run would free');
like(text_of('#waiting'), qr/^Waiting1file to be dealt with, the oldest for /, 'the oldest pending');
like(text_of('#look'), qr/5 audio files seen, 1 of them referred to/, 'the look');
like($browser->js(q{[...document.querySelectorAll('#slowest tbody th')].map(h => h.firstChild.data).join(' ')}), qr/^40 39 38 37 36$/, 'slowest runs');
is($browser->js(q{[...document.querySelectorAll('#unlucky tbody th')].map(h => h.firstChild.data).join(' ')}), '38 20', 'runs that did not go through');
is($browser->js(q{document.querySelectorAll('#errors tbody tr').length}), 2, 'errors');

# The bars are as high as the figures: pixels over the value of the highest line.
my $top = $browser->js(q{document.querySelectorAll('#space svg line').length});
my $bars = $browser->js(q{[...document.querySelectorAll('#space rect')].map(r => r.getBoundingClientRect().height)});
my $highest = (sort { $b <=> $a } map { $_->{bytes} } @$days)[0];
my $tallest = (sort { $b <=> $a } @$bars)[0];
is(scalar @$bars, scalar @$days, 'a bar for each day on which something was freed');
is(scalar(grep { abs($bars->[ $#$bars - $_ ] / $tallest - $days->[$_]{bytes} / $highest) > 0.02 } 0 .. $#$days), 0, 'as high as its figure');
my $unit = $browser->js(q{(() => { const line = [...document.querySelectorAll('#space svg line')].map(l => l.getBoundingClientRect().top);
	const text = [...document.querySelectorAll('#space svg text')][1].textContent.split(' ');
	return text[0] * 1024 ** ['B', 'KiB', 'MiB', 'GiB'].indexOf(text[1]) / (line[0] - line[1]) })()});
cmp_ok(abs($tallest * $unit / $highest - 1), '<', 0.03, 'by the scale of the axis');
cmp_ok($top, '>=', 3, 'which has lines enough');

# ---- names are names, errors are text ----

is($browser->js(q{document.querySelectorAll('img, script, iframe, object, embed, link, a, form, input, button').length}), 0, 'no element that should not be there');
is($browser->js('document.title'), 'Fine: audio_cleanup in postgres', 'nothing has run');
is_deeply($browser->js(q{[...document.querySelectorAll('#names li')].map(l => l.textContent)}),
	[ '\\x1b]0;title\\x07.mp3', $img, 'line\\nbreak.mp3', "\x{e9}t\x{e9} \"quoted\" & more.mp3" ], 'names as they are, what cannot be seen escaped');
like(text_of('#errors'), qr/Read-only file system <img src=y onerror=document\.title=3>/, 'errors as they are');
like(text_of('#unlucky'), qr/more than 50 percent <script>document\.title = 2<\/script>/, 'messages as they are');

# and if something did slip in, it could do nothing
my $slipped = "$PostgreSQL::Test::Utils::tmp_check/slipped.html";
append_to_file($slipped, slurp_file($page) =~ s{</main>}{<script>document.title = 4</script>
	<img src="http://127.0.0.1:9/x" onerror="document.title = 5"><form action="http://127.0.0.1:9/"></form></main>}r);
$browser->show($slipped);
is($browser->js('document.title'), 'Fine: audio_cleanup in postgres', 'its policy lets nothing run');
cmp_ok(scalar(grep { /Content Security Policy/ } @{ $browser->complaints }), '>=', 2, 'neither the script nor the picture');

# ---- for those who do not see it ----

$browser->show($page);
is($browser->js('document.documentElement.lang'), 'en', 'language');
is($browser->js(q{['header', 'main', 'footer'].map(n => document.querySelectorAll('body > ' + n).length).join('')}), '111', 'landmarks');
is($browser->js(q{[...document.querySelectorAll('section')].filter(s => !document.getElementById(s.getAttribute('aria-labelledby'))).length}), 0, 'each section has a name');
is($browser->js(q{[...document.querySelectorAll('svg')].filter(s => s.getAttribute('role') != 'img' || !document.getElementById(s.getAttribute('aria-labelledby')) ||
	!s.closest('section').querySelector('details table')).length}), 0, 'each chart has a name, and a table behind it');
is($browser->js(q{[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1]).filter((l, i, all) => i == 0 ? l != 1 : l > all[i - 1] + 1).length}), 0, 'headings are in order');
is($browser->js(q{[...document.querySelectorAll('th')].filter(t => !t.scope).length}), 0, 'each heading of a table says of what');
is($browser->js(q{(ids => ids.length - new Set(ids).size)([...document.querySelectorAll('[id]')].map(e => e.id))}), 0, 'no id twice');

# ---- it was to run, and did not; it is running ----

$node->safe_psql('postgres', q{
	DELETE FROM cleanup_runs;
	UPDATE cleanup_files SET state = 'skipped' WHERE state = 'pending';
	INSERT INTO cleanup_schedule (schedule_hour, timezone, since) VALUES (3, 'UTC', now() - interval '3 days')
	ON CONFLICT (only_row) DO UPDATE SET since = excluded.since;
});
$browser->show(save_page('overdue'));
like(text_of('#state'), qr/^Overdue\. It should run every day/, 'a schedule that has stopped is no reason to call it fine');

put_files($dir, map { "more $_.mp3" } 1 .. 60);
my ($out, $err) = ('', '');
my $run = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'SET audio_cleanup.files_per_second = 2', '-c', 'CALL cleanup_run()' ],
	'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(180));
ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM cleanup_progress WHERE files_done > 0}), 'a run is under way');
$browser->show(save_page('running'));
like(text_of('#state'), qr/A run is under way: deleting, \d+ of 64 files done, for /, 'and the page says so');
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM cleanup_progress});
$run->finish;

# ---- in any encoding ----

foreach my $encoding ('latin1', 'sql_ascii')
{
	$node->safe_psql('postgres', "CREATE DATABASE $encoding ENCODING $encoding TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
	$node->safe_psql($encoding, q{CREATE EXTENSION audio_cleanup; CREATE TABLE sessions (id int PRIMARY KEY, audio_url text);
		SELECT cleanup_add_source('sessions');
		INSERT INTO cleanup_runs (run_id, what, status, finished_at, requested_by, upload_dir, settings) VALUES (1, 'all', 'done', now(), 'x', '/', '{}');
		INSERT INTO cleanup_files (run_id, file, reason, state, size, modified_at, due_at, inode, mtime_ns, ctime_ns, btime_ns)
		SELECT 1, convert_from('\x6580e9c3a9'::bytea, current_setting('server_encoding')) || '.mp3', 'orphan', 'pending', 1, now(), now(), 1, 1, 1, 1;});
	$browser->show(save_page($encoding, $encoding));
	is($browser->js(q{document.querySelector('#oldest th[scope=row]').firstChild.data}),
		$encoding eq 'latin1' ? "e\\u0080\x{e9}\x{c3}\x{a9}.mp3" : "e\\x80\\xe9\x{e9}.mp3", "$encoding: names as far as they can be told");
}

$browser->stop;
$node->stop;
is(log_lines($node, qr/PANIC:|signal \d+/), '', 'no process has died');
done_testing();
