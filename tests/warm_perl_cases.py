"""Perl scripts that look at all that they can see of how they were started; all end alike however that was.

Each has a name and a text, which comes below ``#!/usr/bin/perl`` if it has no first line of its own.
"""

# ruff: noqa: E501  # scripts of one line

from __future__ import annotations

CASES: dict[str, str] = {
    "hello": 'print "Content-Type: text/plain\\n\\nhello\\n";',
    "nothing at all": "",
    "places": 'print join "|", __FILE__, __LINE__, __PACKAGE__, $0, "\\n"; warn "here"; die "there";',
    "line directive": '# line 200 "other.pl"\nwarn "here"; print __FILE__, __LINE__;',
    "caller": 'print defined caller() ? "called" : "main"; sub f { print join "|", caller(0), "\\n" } f(1); '
    'print "[", join("|", map { $_ // "u" } caller(0)), "]"; main() unless caller; sub main { print "ran" }',
    "arguments": 'print scalar @ARGV, join("|", @ARGV), "\\n"; print shift, "\\n";',
    "environment": 'print map { "$_=$ENV{$_}\\n" } sort keys %ENV; print `env`; $ENV{NEW} = 1; print `env`;',
    "directory": 'use Cwd; print getcwd(), "\\n"; print -e "sibling.pm" ? "here" : "not here"; print -e "./no" || 0;',
    "include path": 'print "$_\\n" for @INC; print "dot" if grep { $_ eq "." } @INC;',
    "special variables": r'no warnings; print join("|", map { $_ // "undef" } $/, $\, $,, $;, $", $^W, $^F, $^O, $^V, $^X,'
    r" $], $:, $^L, $^A, $^S, ${^TAINT}, ${^UNICODE}, ${^UTF8LOCALE}, ${^OPEN}, $^P, $^H, $^D, $^C, $^R, $^N, $&,"
    r' $+, $., $_, $@, $!+0, $?, $|, ${^GLOBAL_PHASE}, $-, $=, $^, $~, $^E+0, $[, @_), "\n";',
    "hints": 'BEGIN { print "$^H|${^WARNING_BITS}|", join(",", %^H), "|" } print((caller(0))[8] // "none"); '
    'sub f { print join "|", map { defined ? unpack("H*", $_) : "u" } (caller 0)[8, 9] } f();',
    "hints of strict": "use strict; use warnings; BEGIN { print $^H, unpack 'H*', ${^WARNING_BITS} }",
    "no strict at first": '$x = 1; @y = (1); $name = "x"; print $$name, "\\n"; print undef . "quiet";',
    "no warnings at first": 'my $x; print "a" . $x; print 1 + "b"; my @a = (1); print "$a[3]";',
    "use version": 'use v5.12; $x = 1; print "never";',
    "feature": 'use v5.10; say "said"; state $x = 1; say $x;',
    "no feature at first": 'eval q{say "x"; 1} or print $@; eval q{state $x = 1; 1} or print $@;',
    "time of start": 'print abs(time - $^T) < 20 ? "now" : "then", -M $0 < 1 ? "new" : "old";',
    "process": "print getpgrp == $$ ? 'leads' : 'follows', getppid > 1 ? 'has a parent' : 'has none', "
    "open my $f, '<', '/proc/self/stat'; print +(split ' ', <$f>)[5] == $$ ? 'own session' : 'other';",
    "name of the process": 'open my $f, "<", "/proc/self/comm"; print <$f>; local $0 = "renamed"; print $0;',
    "descriptors": 'opendir my $d, "/proc/self/fd"; my @open = sort { $a <=> $b } grep { /\\d/ } readdir $d; '
    'print "@open"; open my $f, "<", "/dev/null"; print fileno $f; print `ls /proc/self/fd`; '
    'BEGIN { opendir my $e, "/proc/self/fd"; print join ",", sort { $a <=> $b } grep { /\\d/ } readdir $e }',
    "signals": 'print map { "$_=" . ($SIG{$_} // "undef") . "\\n" } sort keys %SIG; '
    'open my $f, "<", "/proc/self/status"; print grep { /^Sig(Blk|Cgt|Pnd)/ } <$f>;',
    "handled signal": '$SIG{USR1} = sub { print "got $_[0]\\n" }; kill USR1 => $$; $SIG{ALRM} = sub { die "alarm\\n" }; '
    "use Time::HiRes qw(ualarm); ualarm 50_000; eval { sleep 10 }; print $@;",
    "killed": "$| = 1; print 'before'; kill 9, $$; sleep 10;",
    "terminated": "$| = 1; print 'before'; kill TERM => $$; sleep 10; print 'after';",
    "aborted": "require POSIX; print 'lost in the buffer'; POSIX::abort();",
    "broken pipe": "$| = 1; close STDIN; pipe my $r, my $w; close $r; syswrite $w, 'x'; print 'after';",
    "exit 0": 'print "a"; exit; print "b";',
    "exit 3": 'print "a"; exit 3; print "b";',
    "exit in BEGIN": 'BEGIN { print "a"; exit 4 } print "b";',
    "exit in a function in eval": 'sub f { exit 5 } eval { f() }; print "b";',
    "exit of END": "END { print 'end', $?; $? = 7 } exit 2;",
    "exit by POSIX": 'require POSIX; $| = 1; print "a"; END { print "end" } POSIX::_exit(6);',
    "die": 'die "reason";',
    "die with a line end": 'die "reason\\n";',
    "die with errno": '$! = 2; die "reason";',
    "die with a child's status": "system 'exit 9'; $! = 0; die 'reason';",
    "die with nothing": "die;",
    "die after eval": 'eval { die "first\\n" }; die;',
    "die with an object": 'package E { use overload q{""} => sub { "object of E\\n" } } die bless {}, "E";',
    "die with a reference": "my $x = eval { die [1] }; print ref $@; die { code => 1 } if 0; die 42;",
    "die in BEGIN": 'print "no"; BEGIN { die "early" }',
    "die in a module": 'use lib "."; use dying;',
    "die in END": 'END { print "end\\n"; die "late" } print "body\\n";',
    "die in DESTROY": 'package D { sub DESTROY { die "in destroy" } } { my $x = bless [], "D"; } print "on\\n";',
    "die handler": '$SIG{__DIE__} = sub { print "handler: $_[0]" }; die "reason\\n";',
    "die handler in BEGIN": 'BEGIN { print defined $SIG{__DIE__} ? "set" : "unset"; '
    '$SIG{__DIE__} = sub { print "handler: $_[0]" } } use strict; $x = 1;',
    "warn handler": '$SIG{__WARN__} = sub { print "handler: $_[0]" }; warn "reason"; my $x = "a" + 1; '
    'use warnings; $x = "a" + 1;',
    "croak": 'use Carp; sub f { croak "bad argument" } f(1, "two");',
    "confess": 'use Carp; sub f { confess "bad argument" } sub g { f(1, "two") } g([]) if 0; g(3);',
    "syntax error": 'print "a";\nprint "b"\nprint "c";\n}',
    "unclosed brace": "if (1) {\n print 1;\n",
    "unclosed string": 'print "abc;\n\n',
    "strict error": "use strict;\nmy $good = 1;\n$bad = 2;\n@worse = ($good);\n",
    "many errors": "use strict;\n" + "".join(f"$x{number} = 1;\n" for number in range(15)),
    "bareword": "use strict; my $x = bareword;",
    "unknown function": "print 'a'; no_such_function(1);",
    "unknown method": "print 'a'; main->no_such_method;",
    "missing module": "use No::Such::Module;",
    "missing module at run time": "print 'a'; require No::Such::Module;",
    "error in BEGIN after errors": "use strict; $x = 1; BEGIN { print 'begun' } use Cwd;",
    "blocks": "".join(
        f'{block} {{ print "{block} 1 ${{^GLOBAL_PHASE}}\\n" }}\n'
        for block in ("END", "INIT", "CHECK", "BEGIN", "UNITCHECK")
    )
    + 'print "main ${^GLOBAL_PHASE}\\n";'
    + "".join(
        f'{block} {{ print "{block} 2 ${{^GLOBAL_PHASE}}\\n" }}\n'
        for block in ("END", "INIT", "CHECK", "BEGIN", "UNITCHECK")
    ),
    "global destruction": 'package D { sub new { bless [$_[1]] } sub DESTROY { print "$_[0][0] ${^GLOBAL_PHASE}\\n" } } '
    'our $global = D->new("global"); my $lexical = D->new("lexical"); print "end\\n";',
    "data": 'print "at ", tell(DATA), "\\n"; while (<DATA>) { print "$.: $_" } warn "after"; seek DATA, 0, 0; '
    "print scalar <DATA>; print -s DATA;\n__DATA__\none\ntwo\nlast without end",
    "data after __END__": "print <DATA>; print fileno DATA;\n__END__\none\ntwo\n=pod\n\nx\n",
    "data of a package": "package Other; print <Other::DATA>; print <main::DATA>;\n__DATA__\none\n",
    "data read in INIT": "INIT { print scalar <DATA> } print <DATA>;\n__END__\none\ntwo\n",
    "data as source of itself": "seek DATA, 0, 0; print <DATA>;\n__DATA__\nx\n",
    "no data": "print defined fileno(DATA) ? 'open' : 'closed'; print <DATA>;",
    "end of file character": "print 'a';\n\x04 this is not read",
    "pod": 'print "a";\n\n=head1 X\n\nprint "no";\n\n=cut\n\nprint "b", __LINE__;',
    "here document": 'print <<A, <<"B";\nin a\nA\nin b @{[1 + 1]}\nB\nprint __LINE__;',
    "format": "our ($n, $t) = ('name', 1.5);\nformat STDOUT_TOP =\nName Total\n.\nformat STDOUT =\n@<<<< @##.##\n$n, $t\n.\n"
    "write; $n = 'x'; write; print $-, $=, $^, $~;",
    "tied": "package T { sub TIESCALAR { bless [] } sub FETCH { 'fetched ' . ++$_[0][0] } } tie my $x, 'T'; print $x, $x;",
    "tied output": "package T { sub TIEHANDLE { bless [] } sub PRINT { shift; push @T::said, @_; 1 } } tie *STDOUT, 'T'; "
    "print 'a', 'b'; untie *STDOUT; print uc for @T::said;",
    "utf8": 'use utf8; binmode STDOUT, ":utf8"; my $naïve = "\u00e9\u4e16"; print length $naïve, $naïve;',
    "no utf8 at first": 'my $x = "\u00e9\u4e16"; print length $x, $x;',
    "wide character": "use warnings; print chr 0x4e16;",
    "open pragma": 'use open qw(:std :utf8); print chr 0xe9; print join ",", PerlIO::get_layers(STDOUT);',
    "layers": 'print join ",", map { PerlIO::get_layers($_) } *STDIN, *STDOUT, *STDERR;',
    "crlf layer": 'binmode STDOUT, ":crlf"; print "a\\nb\\n";',
    "text of a scalar": 'open my $f, "<", \\"one\\ntwo\\n"; print <$f>; open my $o, ">", \\my $t; print $o "x"; print $t;',
    "locale": 'use POSIX; print setlocale(LC_ALL) , "\\n"; printf "%.2f\\n", 1.5; $! = 2; print "$!";',
    "time zone": "print scalar localtime 0; local $ENV{TZ} = 'Asia/Tokyo'; require POSIX; POSIX::tzset(); "
    "print scalar localtime 0;",
    "source filter": 'package F; BEGIN { $INC{"F.pm"} = 1 } sub import { require Filter::Util::Call; '
    "Filter::Util::Call::filter_add(sub { my $s = Filter::Util::Call::filter_read(); s/shout/print uc/; $s }) }\n"
    'package main;\nuse F;\nshout "hello\\n"; warn "here";\n',
    "source filter module": "use Filter::Simple; BEGIN { print 'loaded' }\nprint 'on', __LINE__;\n",
    "auto loaded function": "sub AUTOLOAD { our $AUTOLOAD; print qq{$AUTOLOAD(@_)\\n} } one(1); Two->two(2);",
    "prototype and constants": "use constant { A => 1, B => [1, 2] }; sub m(&@) { my $c = shift; $c->(@_) } print A, B->[1];",
    "overridden built-in": "BEGIN { *CORE::GLOBAL::time = sub { 42 } } print time;",
    "string eval": 'my $x = 1; print eval q{$x + 1}, __LINE__; eval "die"; print $@; eval "}"; print $@;',
    "do a file": 'print do "./sibling.pl"; print $@; print join ",", caller;',
    "require a sibling": 'require "./sibling.pm"; print sibling::f(), $INC{"./sibling.pm"};',
    "use a sibling": "use lib '.'; use sibling; print sibling::f(), $INC{'sibling.pm'};",
    "no sibling without lib": "eval { require sibling } or print $@;",
    "FindBin": "use FindBin; print $FindBin::Bin, $FindBin::Script, $FindBin::RealBin; use lib $FindBin::Bin; use sibling;",
    "rest of the program": 'print "a"; exec "echo", "b" or die;',
    "exec flushes": 'print "a"; system "echo b"; print "c"; exec "echo d";',
    "fork": '$| = 1; my $p = fork; if (!$p) { print "child\\n"; exit 3 } waitpid $p, 0; print $? >> 8; print "parent\\n"; '
    "END { print 'end' }",
    "fork with a full buffer": 'print "twice\\n"; my $p = fork // die; waitpid $p, 0 if $p; print $p ? "p" : "c";',
    "backticks": "print `echo out; echo err >&2; exit 3`, $? >> 8; print qx{cat}; system 'false'; print $?;",
    "pipe open": 'open my $p, "-|", "echo a" or die; print <$p>; open my $q, "|-", "cat" or die; print $q "b"; close $q;',
    "fork open": 'my $p = open my $f, "-|"; if (!$p) { print "from the child"; exit } print <$f>;',
    "sockets": "use Socket; socketpair my $a, my $b, AF_UNIX, SOCK_STREAM, 0; syswrite $a, 'x'; sysread $b, $_, 1; print;",
    "input": "print ref \\*STDIN, eof STDIN ? 'empty' : 'full'; print tell STDIN; local $/; print length <STDIN>;",
    "input by lines": "while (<>) { print qq{$.: $_} } print eof() ? 1 : 0; warn 'after';",
    "input by read": "read STDIN, my $x, 5; print $x; sysread STDIN, my $y, 5; print length $y;",
    "input by a child": "system 'cat'; print 'after';",
    "closed output": "close STDOUT or die; print 'lost' or warn 'not printed'; warn 'here';",
    "closed input": "close STDIN; open my $f, '<', '/dev/null'; print fileno $f;",
    "output to a duplicate": "open my $o, '>&', \\*STDOUT; print $o 'a'; print 'b'; close $o; print fileno $o // 'closed';",
    "output redirected": "open my $save, '>&', \\*STDOUT; close STDOUT; open STDOUT, '>', \\my $t; print 'x'; close STDOUT; "
    "open STDOUT, '>&', $save; print 'got ', $t;",
    "unbuffered": "print 'a'; syswrite STDOUT, 'b'; print STDERR 'c'; $| = 1; print 'd'; syswrite STDOUT, 'e';",
    "selected": "select STDERR; print 'err'; $| = 1; select STDOUT; print $|;",
    "local of special variables": "{ local $| = 1; local $, = '-'; local $\\ = qq{!\\n}; print 1, 2; } print 3, 4;",
    "randomness": "print rand() < 1 ? 'ok' : 'no', srand(42); print int rand 1000;",
    "sort and hash": "my %h = map { $_ => 1 } 1 .. 100; print join ',', sort { $a <=> $b } keys %h; print scalar %h;",
    "threads are told of": "use Config; print $Config{useithreads} ? 'threads' : 'none', $Config{archname};",
    "threads": "use threads; print threads->create(sub { 'from thread ' . threads->tid })->join; print threads->list(0) + 0;",
    "umask and niceness": "printf '%04o', umask; print getpriority 0, 0; umask 077;",
    "identity": "print qq{$<|$>|$(|$)};",
    "times": "my @t = times; print $t[0] + $t[1] < 5 ? 'young' : 'old'; sub r { $_[0] ? 1 + r($_[0] - 1) : 0 } print r(1000);",
    "sprintf and pack": 'printf "%s %05.1f %x %vd %%\\n", "a", 1.25, 255, "1.22.333"; print unpack "H*", pack "nNvV", 1 .. 4;',
    "local in recursion": "our $d = 0; sub f { local $d = $d + 1; $d < 50 ? f() : print $d } f(); print $d;",
    "regex state": "print defined $1 ? 'set' : 'unset'; 'abc' =~ /(b)/; print $1, $`, $', $&, pos // 'none';",
    "symbol table": "print join ',', grep { defined &{\"main::$_\"} } sort keys %main::; no strict; print defined *x{CODE};",
    "DATA and warn": "use warnings; my $x = <DATA>; my $y = 1 + undef; chomp $x; $x + 1; warn;\n__END__\n5 x\n",
    "deprecated things": "use warnings; my @a = (1); my $r = \\@a; print $#{$r}, $$r[0]; my %h = (1); print length undef;",
    "once": "use warnings; $main::once = 1;",
    "redefined": "use warnings; sub f { 1 } sub f { 2 } print f(); my $x; my $x;",
    "flag w": "#!/usr/bin/perl -w\nmy $x; print 'a' . $x; print $^W; $once = 1; sub f { 1 } sub f { 2 }",
    "flag W": "#!/usr/bin/perl -W\nno warnings; my $x; print 'a' . $x; print $^W;",
    "flag X": "#!/usr/bin/perl -X\nuse warnings; my $x; print 'a' . $x; print $^W;",
    "flags together": "#! /usr/bin/perl -w -w \nprint $^W; print __LINE__; die;",
    "flag w by env": "#!/usr/bin/env perl\nprint $^W, $^X; die;",
    "flag w of a program elsewhere": "#!/usr/bin/env -S perl -w\nprint $^W; my $x; print 'a' . $x;",
    "flag T": "#!/usr/bin/perl -T\nprint ${^TAINT}; system 'echo x';",
    "flag t": "#!/usr/bin/perl -t\nprint ${^TAINT}; system 'echo x';",
    "flag n": "#!/usr/bin/perl -n\nprint qq{$.: $_};",
    "flag l": "#!/usr/bin/perl -l\nprint for 1, 2;",
    "flag s": "#!/usr/bin/perl -s\nprint $one // 'none';",
    "flag C": "#!/usr/bin/perl -CS\nprint chr 0xe9;",
    "flag M": "#!/usr/bin/perl -MCwd\nprint 1;",
    "flag x": "#!/usr/bin/perl -x\n#!/usr/bin/perl\nprint __LINE__;",
    "carriage returns": 'print "a";\r\nprint "b";\r\nprint __LINE__;\r\n',
    "CGI parameters": "use strict; use warnings; use CGI; my $q = CGI->new; print $q->header, "
    "map { my @v = $q->multi_param($_); qq{$_=@v\\n} } sort $q->param; print $q->request_method, $q->url, $q->self_url;",
    "CGI functions": "use CGI qw(:standard); print header(-type => 'text/plain', -charset => 'utf-8'), "
    "scalar param('name') // 'none', start_html('x'), h1('y'), end_html;",
    "CGI object and Carp": "use CGI; use CGI::Carp qw(fatalsToBrowser); print 'x'; die 'reason';",
    "CGI::Carp in BEGIN": "use CGI::Carp qw(fatalsToBrowser); use strict; $x = 1;",
    "CGI::Carp to log": "use CGI::Carp; warn 'plain';",
    "CGI settings": "use CGI; print join '|', map { $_ // 'u' } $CGI::POST_MAX, $CGI::DISABLE_UPLOADS, $CGI::XHTML, "
    "$CGI::Q, $CGI::NPH; print scalar %CGI::EXPORT; $CGI::POST_MAX = 10; $CGI::DISABLE_UPLOADS = 1;",
    "usual modules": "use strict; use warnings; use POSIX qw(strftime); use File::Spec; use File::Temp; use Data::Dumper; "
    "use List::Util qw(sum); use Time::HiRes; use Encode; use Storable; use MIME::Base64; use Digest::MD5 qw(md5_hex); "
    "print strftime('%Y', gmtime 0), sum(1 .. 3), md5_hex('x'), encode_base64('y'), Dumper([1]), encode('UTF-8', chr 233);",
    "JSON": "use JSON::PP; print JSON::PP->new->canonical->encode({ a => [1, 'x', undef], b => JSON::PP::true });",
}
