"""The Linux programs that are run in VMs and on the host with the same input, as tables.

docs/compatibility.md has a line for each; test_programs.py runs them. Only input that can be made
again from nothing is used, so that a difference means the same everywhere.
"""

import bz2
import dataclasses
import gzip
import io
import json
import lzma
import os
import pathlib
import random
import shutil
import subprocess
import tarfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUSYBOX = "/bin/busybox"
PHP = "/usr/bin/php-cgi"
PYTHON = "/usr/bin/python3.11"
DATABASE = f"/tmp/unid-compat-{os.getpid()}.db"  # of a program, in its VM and on the host
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi".split()


def text(lines, seed=1):
    """Lines of a number and some words."""
    rng = random.Random(seed)
    made = (
        f"{rng.randrange(10**6)} {' '.join(rng.choices(WORDS, k=rng.randrange(1, 9)))}" for _ in range(lines)
    )
    return ("\n".join(made) + "\n").encode()


def records(count, seed=2):
    """A JSON array of objects."""
    rng = random.Random(seed)
    return json.dumps(
        [
            {
                "id": i,
                "name": rng.choice(WORDS),
                "score": rng.random() * 1e3,
                "tags": rng.choices(WORDS, k=3),
                "nested": {"deep": [None, True, "\u00e9\u4e2d"]},
            }
            for i in range(count)
        ]
    ).encode()


def pixels(width=320, height=200):
    """A PPM picture of gradients."""
    body = bytes(
        v for y in range(height) for x in range(width) for v in (x & 255, y & 255, (x * y >> 6) & 255)
    )
    return b"P6\n%d %d\n255\n" % (width, height) + body


def host(command, data=b"", env=None):
    """Standard output of the program on the host, in the time zone that a VM has; the file that it may have made there
    is removed."""
    env = {"TZ": "UTC", **(env or {})}
    done = subprocess.run(command, input=data, capture_output=True, timeout=200, env=env, check=False)
    pathlib.Path(DATABASE).unlink(missing_ok=True)
    assert done.returncode == 0, (command, done.returncode, done.stderr[-500:])
    return done.stdout


def tar_of(files):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1700000000
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def jpeg():
    return host(["/usr/bin/cjpeg", "-quality", "80"], pixels())


def webp():
    return host(["/usr/bin/cwebp", "-quiet", "-o", "-", "--", "-"], pixels())


@dataclasses.dataclass
class Filter:
    """A program that reads standard input and writes standard output."""

    name: str
    command: list
    data: object = b""  # bytes, or a function that makes them
    options: tuple = ()  # of unictl deploy
    env: dict = dataclasses.field(default_factory=dict)

    def input(self):
        return self.data() if callable(self.data) else self.data


def busybox(name, *words, data):
    return Filter(f"busybox-{name}", [BUSYBOX, *words], data)


def random_bytes():
    return random.Random(3).randbytes(700_000) + bytes(1 << 20)


AWK = 'BEGIN { OFS = "\\t" } { n[$2]++; s[$2] += $1 } END { for (k in n) print k, n[k], s[k] / n[k] }'
GAWK = (
    'BEGIN { PROCINFO["sorted_in"] = "@ind_str_asc" } { n[toupper($2)]++; gsub(/a+/, "<&>"); l += length($0) } '
    'END { for (k in n) printf "%s %d %.3f\\n", k, n[k], n[k] / NR; print l, strftime("%Y", 0, 1) }'
)
LUA = (
    "local n, out = 0, {} for line in io.lines() do for w in line:gmatch('%a+') do n = n + #w out[w] = (out[w] or 0) + 1 end end "
    "local keys = {} for k in pairs(out) do keys[#keys + 1] = k end table.sort(keys) "
    "for _, k in ipairs(keys) do io.write(k, ' ', out[k], ' ', string.format('%.6f', math.sin(out[k])), '\\n') end "
    "print(n, 2^53 | 0, pcall(error, 'x'))"
)
PERL = (
    "use strict; use List::Util qw(sum); use Data::Dumper; $Data::Dumper::Sortkeys = 1; my %n; my @v; "
    "while (<STDIN>) { chomp; my ($i, @w) = split / /; push @v, $i; $n{lc $_}++ for grep { /^[a-m]/ } @w } "
    "print Dumper(\\%n), sum(@v), ' ', (sprintf '%.9g', sqrt sum @v), \"\\n\"; print join ',', map { sprintf '%x', $_ } sort { $a <=> $b } @v[0 .. 9];"
)
SQL = (
    b"create table t(id integer primary key, name text, score real);\n"
    b"with recursive c(x) as (select 1 union all select x + 1 from c where x < 20000)\n"
    b"insert into t select x, 'n' || (x * 7919 % 101), x * 0.37 from c;\n"
    b"create index i on t(name);\n"
    b"select name, count(*), round(avg(score), 3) from t group by name order by 2 desc, 1 limit 7;\n"
    b"select json_group_array(id) from t where name = 'n5' and id < 2000;\n"
    b"select * from pragma_integrity_check;\n"
)
BC = b"scale=200\n4*a(1)\ne(1)\n2^1000\ndefine f(n){ if (n<2) return 1; return n*f(n-1) }\nf(100)\nsqrt(2)\n"
NODE = (
    "const d = JSON.parse(require('fs').readFileSync(0)); let n = {}; for (const r of d) n[r.name] = (n[r.name] || 0) + r.score; "
    "let s = 0; for (let i = 0; i < 3e7; i++) s = (s * 31 + i) | 0; "
    "console.log(JSON.stringify(n), s, require('crypto').createHash('sha256').update(JSON.stringify(d)).digest('hex'))"
)
PYTHON_C = (
    "import sys; d = sys.stdin.buffer.read(); print(len(d), sum(d), sorted(set(d))[:5], 2**200, f'{1/3!r}'); "
    "print([x * x for x in range(10)], sys.version_info[:3], sys.flags.isolated)"
)
PYTHON_SCRIPT = '''\
#!/usr/bin/python3.11
import collections
import hashlib
import json
import re
import struct
import sys
import zlib

data = sys.stdin.buffer.read()
rows = json.loads(data)
names = collections.Counter(row["name"] for row in rows)
print(json.dumps(names.most_common(5)), len(re.findall(rb"a+", data)))
for kind in ("md5", "sha1", "sha256", "sha3_256", "blake2b"):
    print(kind, hashlib.new(kind, data).hexdigest())
packed = zlib.compress(data, 9)
print(len(packed), zlib.crc32(packed), zlib.decompress(packed) == data)
print(struct.pack("<IdQ", 1, 0.5, 2**60).hex(), sum(row["score"] for row in rows))
'''

RUBY = (
    "require 'json'; require 'digest'; d = STDIN.read; n = Hash.new(0); d.each_line { |l| l.split.each { |x| n[x] += 1 } }; "
    "puts JSON.generate(n.sort.to_h), Digest::SHA256.hexdigest(d), 2**200, d.scan(/al\\w+ (?=b)/).size; "
    "p (1..4).map { |i| Thread.new { i * i } }.map(&:value), Fiber.new { 7 }.resume, Time.at(0).utc"
)
# Its event loop is a thread, which it ends by pthread_exit().
TCL = b"""\
set n 0
foreach w [split [string repeat "alpha beta " 5000]] { if {[string match a* $w]} { incr n } }
puts "$n [expr {2**100}] [lsort -integer {3 1 2}] [clock format 0 -gmt 1 -format %Y]"
after 10 {set x 1}
vwait x
puts [encoding convertfrom utf-8 [encoding convertto utf-8 \\u4e2d]]
"""
# Its compiled modules are mapped for reading and then made writable.
GUILE = (
    "(use-modules (ice-9 rdelim) (srfi srfi-1)) (let loop ((n 0) (l (read-line))) (if (eof-object? l) "
    "(begin (display n) (newline)) (loop (+ n (string-length l)) (read-line)))) (display (expt 2 200)) "
    "(newline) (display (fold + 0 (iota 100))) (display (sort '(3 1 2) <)) (newline)"
)
LUAJIT = (
    "local n, s = 0, 0 for l in io.lines() do n = n + #l end for i = 1, 1e7 do s = (s * 31 + i) % 65521 end "
    "print(n, s, require('ffi').abi('64bit'), jit.status())"
)
XML = b"<r>%s</r>" % b"".join(b'<i id="%d"><n>w%d</n></i>' % (i, i * 7919 % 101) for i in range(500))
XPATH = ["sel", "-t", "-m", "//i[n='w5']", "-s", "D:N:-", "@id", "-v", "concat(@id, ' ', n)", "-n"]


def along(*paths):
    return [word for path in paths for word in ("--with", path)]


FILTERS = [
    busybox("stat", "stat", "-c", "%U %G %a", BUSYBOX, data=b""),
    busybox("gzip", "gzip", "-c", data=random_bytes),
    busybox("gunzip", "gunzip", "-c", data=lambda: gzip.compress(random_bytes(), mtime=0)),
    busybox("md5sum", "md5sum", data=random_bytes),
    busybox("sha256sum", "sha256sum", data=random_bytes),
    busybox("sort", "sort", "-k2", "-k1n", data=lambda: text(20000)),
    busybox("awk", "awk", AWK, data=lambda: text(20000)),
    busybox("sed", "sed", "-E", "s/([a-z]+) ([a-z]+)/\\2-\\1/g; /zeta/d; 900q", data=lambda: text(1000)),
    busybox("grep", "grep", "-nE", "^[0-9]{4,5} .*(mu|pi)$", data=lambda: text(20000)),
    busybox("tar", "tar", "-tvf", "-", data=lambda: tar_of({"a/b": b"x" * 3000, "c": text(10)})),
    busybox("tar-extract", "tar", "-xOf", "-", data=lambda: tar_of({"a/b": b"x" * 3000, "c": text(10)})),
    busybox("wc", "wc", data=lambda: text(20000)),
    busybox("bc", "bc", "-l", data=BC),
    busybox("base64", "base64", data=random_bytes),
    Filter(
        "jq",
        [
            "/usr/bin/jq",
            "-S",
            "group_by(.name) | map({n: .[0].name, c: length, s: (map(.score) | add), t: (map(.tags) | add | unique)})",
        ],
        lambda: records(3000),
    ),
    Filter("sqlite3", ["/usr/bin/sqlite3"], SQL),
    Filter(
        "sqlite3-file",
        ["/usr/bin/sqlite3", DATABASE],
        b".bail on\ndrop table if exists t;\n" + SQL,
    ),
    Filter("gawk", ["/usr/bin/gawk", GAWK], lambda: text(20000)),
    Filter("lua5.4", ["/usr/bin/lua5.4", "-e", LUA], lambda: text(20000)),
    Filter("xz", ["/usr/bin/xz", "-c", "-6"], lambda: text(20000) + random_bytes()),
    Filter("xz-decompress", ["/usr/bin/xz", "-dc"], lambda: lzma.compress(random_bytes())),
    Filter(
        "zstd", ["/usr/bin/zstd", "-q", "-c", "--single-thread", "-9"], lambda: text(20000) + random_bytes()
    ),
    Filter("zstd-threads", ["/usr/bin/zstd", "-q", "-c", "-T2", "-3"], lambda: text(20000) + random_bytes()),
    Filter("bc", ["/usr/bin/bc", "-l", "-q"], BC),
    Filter("bzip2", ["/bin/bzip2", "-c"], lambda: text(20000)),
    Filter("bunzip2", ["/bin/bzip2", "-dc"], lambda: bz2.compress(text(20000))),
    Filter("cjpeg", ["/usr/bin/cjpeg", "-quality", "80", "-progressive"], pixels),
    Filter("djpeg", ["/usr/bin/djpeg", "-scale", "1/4", "-ppm"], jpeg),
    Filter(
        "perl",
        ["/usr/bin/perl", "-e", PERL],
        lambda: text(5000),
        (
            "--with",
            "/usr/share/perl",
            "--with",
            "/usr/lib/x86_64-linux-gnu/perl",
            "--with",
            "/usr/lib/x86_64-linux-gnu/perl-base",
        ),
    ),
    Filter("grep-P", ["/bin/grep", "-P", r"^(?=.*mu)\d{4,5} (?!pi)(\w+) .*\1"], lambda: text(20000)),
    Filter("node", ["/usr/bin/node", "-e", NODE], lambda: records(3000)),
    Filter("python3-c", [PYTHON, "-c", PYTHON_C], random_bytes, ("--with", "/usr/lib/python3.11")),
]

FILTERS += [
    Filter("brotli", ["/usr/bin/brotli", "-c", "-q", "6"], lambda: text(20000)),
    Filter(
        "tclsh",
        ["/usr/bin/tclsh"],
        TCL,
        along("/usr/share/tcltk"),
    ),
    Filter("luajit", ["/usr/bin/luajit", "-e", LUAJIT], lambda: text(3000)),
    Filter("xmlstarlet", ["/usr/bin/xmlstarlet", *XPATH], XML),
    Filter("gm", ["/usr/bin/gm", "convert", "ppm:-", "-resize", "50%", "-blur", "0x1", "ppm:-"], pixels),
    Filter(
        "openssl-dgst", ["/usr/bin/openssl", "dgst", "-sha3-256"], random_bytes, along("/etc/ssl/openssl.cnf")
    ),
    Filter(
        "openssl-enc",
        ["/usr/bin/openssl", "enc", "-aes-256-cbc", "-K", "5a" * 32, "-iv", "07" * 16],
        random_bytes,
        along("/etc/ssl/openssl.cnf"),
    ),
    Filter(
        "ruby",
        ["/usr/bin/ruby", "-e", RUBY],
        lambda: text(5000),
        along("/usr/lib/ruby", "/usr/lib/x86_64-linux-gnu/ruby"),
    ),
    Filter(
        "guile",
        ["/usr/bin/guile", "--no-auto-compile", "-c", GUILE],
        lambda: text(3000),
        along("/usr/share/guile", "/usr/lib/x86_64-linux-gnu/guile", "/usr/lib/x86_64-linux-gnu/gconv"),
    ),
    Filter("rg", ["/usr/bin/rg", "-n", "-o", r"al\w+ (\w+)", "-r", "$1"], lambda: text(20000)),
    Filter(
        "mlr",
        ["/usr/bin/mlr", "--ijson", "--ocsv", "stats1", "-a", "mean,p50,count", "-f", "score", "-g", "name"],
        lambda: records(3000),
    ),
    Filter("cwebp", ["/usr/bin/cwebp", "-quiet", "-q", "60", "-o", "-", "--", "-"], pixels),
    Filter(  # the scaler's dither differs by the number of slices, which is that of CPUs
        "ffmpeg",
        ["/usr/bin/ffmpeg", "-loglevel", "error", "-f", "ppm_pipe", "-i", "pipe:0"]
        + ["-vf", "scale=160:-1:threads=1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        pixels,
    ),
]

MARKDOWN = b"# Title\n\nSome *text*, `code` and a [link](http://x.y/z).\n\n" + b"".join(
    b"* item %d **bold**\n" % i for i in range(300)
)
POSTSCRIPT = b"%!\n/Helvetica findfont 20 scalefont setfont 100 100 moveto (Page of text) show 9 99 moveto 300 300 lineto stroke showpage\n"
DRAWING = b"%!\n9 99 moveto 300 300 lineto stroke 0.5 setgray 200 200 50 0 360 arc fill showpage\n"
GRAPH = b"digraph { a -> b -> c -> a; a -> d [label = x]; subgraph cluster_1 { e -> f } c -> e }"

FILTERS += [
    Filter(  # code with tables between, by Haskell's compiler
        "pandoc",
        ["/usr/bin/pandoc", "-f", "markdown", "-t", "html"],
        MARKDOWN,
        along("/usr/share/pandoc/data"),
    ),
    Filter(
        "gs",
        ["/usr/bin/gs", "-q", "-sDEVICE=ppmraw", "-r30", "-sPAPERSIZE=a4", "-o", "-", "-"],
        DRAWING,
        along("/usr/share/ghostscript", "/usr/share/color/icc/ghostscript"),
    ),
    Filter(
        "pdftotext",
        ["/usr/bin/pdftotext", "-layout", "-", "-"],
        lambda: host(["/usr/bin/gs", "-q", "-sDEVICE=pdfwrite", "-o", "-", "-"], POSTSCRIPT),
    ),
    Filter(
        "dot",
        ["/usr/bin/dot", "-Tplain"],
        GRAPH,
        along("/usr/lib/x86_64-linux-gnu/graphviz", "/etc/fonts", "/usr/share/fonts/truetype/dejavu"),
    ),
    Filter("dwebp", ["/usr/bin/dwebp", "-quiet", "-ppm", "-o", "-", "--", "-"], webp),
    Filter(
        "sox",
        ["/usr/bin/sox", "-D", "-t", "raw", "-r", "8000", "-e", "signed", "-b", "16", "-c", "1", "-"]
        + ["-t", "wav", "-", "rate", "16000"],
        random_bytes,
        along("/usr/lib/x86_64-linux-gnu/sox"),
    ),
    Filter("xmllint", ["/usr/bin/xmllint", "--format", "-"], XML),
    Filter("pigz", ["/usr/bin/pigz", "-c", "-n", "-p", "3"], lambda: text(20000) + random_bytes()),
    Filter("lz4", ["/usr/bin/lz4", "-c", "-9"], lambda: text(20000)),
    Filter("git", ["/usr/bin/git", "hash-object", "--stdin"], lambda: text(20000)),
]

SCRIPT_WITH = ("--with", "/usr/lib/python3.11")

# A C program that is compiled here in several ways: the C library's own parts are what is looked at.
C_SOURCE = r"""
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static __thread int mine = 7;
static jmp_buf back;

static int by_value(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

int main(int argc, char **argv)
{
    static int count[256], v[1000];
    time_t then = 1700000000;
    struct stat st;
    char line[256], name[64];
    double sum = 0;
    FILE *f;
    int c, n = 0;

    while ((c = getchar()) != EOF) {
        count[tolower(c)]++;
        v[n++ % 1000] += c;
    }
    qsort(v, 1000, sizeof *v, by_value);
    for (int i = 0; i < 1000; i++) {
        sum += sqrt(v[i]) * sin(i);
    }
    snprintf(name, sizeof name, "/tmp/unid-compat-c-%d", (int)getpid());
    f = fopen(name, "w+");
    for (int i = 'a'; i <= 'z'; i++) {
        fprintf(f, "%c %d\n", i, count[i]);
    }
    rewind(f);
    while (fgets(line, sizeof line, f)) {
        fputs(line, stdout);
    }
    fclose(f);
    n = stat(name, &st);
    printf("%d %d\n", n, (int)st.st_size);
    unlink(name);
    n = stat(name, &st);
    printf("%d %s\n", n, strerror(errno));
    if (setjmp(back) == 0) {
        longjmp(back, ++mine);
    }
    strftime(line, sizeof line, "%F %T %Z", gmtime(&then));
    printf("%s %d %d %s %.12g %a %lld\n", line, mine, argc, argv[1], sum, 0.1, atoll("-9000000000"));
    return 0;
}
"""

RUST_SOURCE = r"""
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::mpsc;
use std::thread;

fn main() {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).unwrap();
    let (tx, rx) = mpsc::channel();
    let half = text.len() / 2;
    let parts = [text[..half].to_string(), text[half..].to_string()];
    let threads: Vec<_> = Vec::from(parts)
        .into_iter()
        .map(|part| {
            let tx = tx.clone();
            thread::spawn(move || {
                let mut n: BTreeMap<String, usize> = BTreeMap::new();
                for word in part.split_whitespace().filter(|w| w.len() > 2) {
                    *n.entry(word.to_string()).or_insert(0) += 1;
                }
                tx.send(n).unwrap();
            })
        })
        .collect();
    drop(tx);
    let mut all: BTreeMap<String, usize> = BTreeMap::new();
    for part in rx {
        for (word, count) in part {
            *all.entry(word).or_insert(0) += count;
        }
    }
    for t in threads {
        t.join().unwrap();
    }
    let caught = std::panic::catch_unwind(|| { let v: Vec<u8> = Vec::new(); v[1] });
    let mut out = io::stdout().lock();
    for (word, count) in all.iter().filter(|(w, _)| w.chars().all(char::is_alphabetic)) {
        writeln!(out, "{word} {count}").unwrap();
    }
    writeln!(out, "{} {:?}", caught.is_err(), std::env::args().skip(1).collect::<Vec<_>>()).unwrap();
}
"""

GO_SOURCE = r"""
package main

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strings"
	"sync"
)

func count(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), 500)
		return
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	n := map[string]int{}
	for _, line := range strings.Split(string(body), "\n") {
		wg.Add(1)
		go func(line string) {
			defer wg.Done()
			for _, word := range strings.Fields(line) {
				mu.Lock()
				n[word]++
				mu.Unlock()
			}
		}(line)
	}
	wg.Wait()
	words := make([]string, 0, len(n))
	for word := range n {
		words = append(words, word)
	}
	sort.Strings(words)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]interface{}{
		"method": r.Method, "path": r.URL.Path, "query": r.URL.Query(), "words": len(words),
		"some": words, "sum": fmt.Sprintf("%x", sha256.Sum256(body)),
	})
}

func main() {
	http.HandleFunc("/count", count)
	http.HandleFunc("/gzip", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.Copy(z, r.Body)
		z.Close()
	})
	if err := http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
"""


@dataclasses.dataclass
class Compiled:
    """A program made here from `source`; `{out}` and `{source}` in the compiler's words are files."""

    name: str
    compiler: str
    words: list
    suffix: str
    source: str

    def make(self, directory):
        """The program's path, or None when its compiler is not here."""
        compiler = shutil.which(self.compiler)
        if not compiler:
            return None
        source, out = directory / f"{self.name}{self.suffix}", directory / self.name
        source.write_text(self.source)
        words = [w.format(out=out, source=source) for w in self.words]
        env = {**os.environ, "CGO_ENABLED": "0", "GOCACHE": str(directory / "go"), "GO111MODULE": "off"}
        done = subprocess.run([compiler, *words], capture_output=True, timeout=250, env=env, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return out


C_WORDS = ["-O2", "-o", "{out}", "{source}", "-lm"]
COMPILED = [
    Compiled("c-glibc-static", "gcc", ["-static", *C_WORDS], ".c", C_SOURCE),
    Compiled("c-glibc-static-pie", "gcc", ["-static-pie", *C_WORDS], ".c", C_SOURCE),
    Compiled("c-glibc-dynamic", "gcc", C_WORDS, ".c", C_SOURCE),
    Compiled("c-musl-static", "musl-gcc", ["-static", *C_WORDS], ".c", C_SOURCE),
    Compiled(
        "rust-glibc-static",
        "rustc",
        ["-O", "-C", "target-feature=+crt-static", "-o", "{out}", "{source}"],
        ".rs",
        RUST_SOURCE,
    ),
]
GO = Compiled("go-http", "go", ["build", "-o", "{out}", "{source}"], ".go", GO_SOURCE)

# --- servers --------------------------------------------------------------------------------------

NGINX_CONF = """\
daemon off;
master_process off;
pid {tmp}/nginx.pid;
error_log stderr;
user root;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {tmp}/body;
    proxy_temp_path {tmp}/proxy;
    fastcgi_temp_path {tmp}/fastcgi;
    uwsgi_temp_path {tmp}/uwsgi;
    scgi_temp_path {tmp}/scgi;
    types {{ text/html html; text/plain txt; }}
    gzip on;
    gzip_min_length 100;
    gzip_types text/plain;
    server {{ listen 127.0.0.1:{port}; root {site}; }}
}}
"""

LIGHTTPD_CONF = """\
server.document-root = "{site}"
server.port = {port}
server.bind = "127.0.0.1"
index-file.names = ("index.html")
static-file.etags = "disable"
mimetype.assign = (".html" => "text/html", ".txt" => "text/plain")
"""

OPCACHES = [[], sorted(map(str, pathlib.Path("/usr/lib/php").glob("*/opcache.so")))[-1:] or ["/opcache.so"]]
PHP_PAGE = """\
<?php
header('X-Page: yes');
header('Content-Type: text/plain');
$cache = function_exists('opcache_get_status') ? opcache_get_status() : null;
header('X-Cached: ' . ($cache ? $cache['opcache_statistics']['num_cached_scripts'] : 'none'));
echo $_SERVER['REQUEST_METHOD'], ' ', $_SERVER['SCRIPT_FILENAME'] === __FILE__ ? 'file' : 'no file', "\\n";
echo json_encode([$_GET, $_POST, PHP_VERSION, hash('sha256', file_get_contents('php://input'))]), "\\n";
echo preg_replace('/(\\w+) (\\w+)/', '$2 $1', 'hello world'), strrev(serialize([1, 2.5, 'x' => null])), "\\n";
$list = range(1, 5);
usort($list, fn($a, $b) => $b <=> $a);
echo implode(',', $list), "\\n";
$d = new DateTime('2024-02-29T12:00:00Z');
echo $d->modify('+1 year')->format(DATE_ATOM), ' ', number_format(sqrt(2), 10), "\\n";
"""


def site(directory):
    """A folder to be served."""
    directory.mkdir()
    (directory / "index.html").write_bytes(b"<h1>hello</h1>\n" * 300)
    (directory / "words.txt").write_bytes(text(3000))
    (directory / "big.bin").write_bytes(random_bytes())
    return directory


# --- programs that cannot run whole ---------------------------------------------------------------


@dataclasses.dataclass
class Missing:
    """A program that needs what is not there: the calls that the 502 names."""

    name: str
    command: list
    data: bytes
    calls: set
    options: tuple = ()


MISSING = [
    Missing(
        "sh-substitution", [BUSYBOX, "sh", "-c", "read a; b=$(echo $a) || exit 1; echo $b"], b"x\n", {"clone"}
    ),
    Missing("sh-pipe", [BUSYBOX, "sh", "-c", "read a; echo $a | wc -c"], b"x\n", {"clone"}),
    Missing("xargs", [BUSYBOX, "xargs", "/bin/cat"], b"a b\n", {"vfork"}),
    Missing(
        "perl-fork",
        ["/usr/bin/perl", "-e", "<STDIN>; defined(my $p = fork) or die 'no fork'; exit 0 unless $p; wait"],
        b"x\n",
        {"clone"},
    ),
    Missing(
        "python3-subprocess",
        [PYTHON, "-c", "import sys, subprocess; sys.stdin.read(); print(subprocess.run(['/bin/true']))"],
        b"x\n",
        {"vfork", "clone"},
        SCRIPT_WITH,
    ),
    Missing(
        "gawk-system", ["/usr/bin/gawk", '{ if (system("true") != 0) exit 1 }'], b"x\n", {"clone3", "clone"}
    ),
]
