"""``wsgicgi-dev compress``: what is written beside the files of a directory, renewed, removed and left alone."""

from __future__ import annotations

import gzip
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import brotli
import pytest
from sites import Site

from wsgicgi import compress, create_app

TEXT = b"body { color: black }\n" * 400


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command as users run it."""
    return subprocess.run(
        [sys.executable, "-m", "wsgicgi", "compress", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **variables},
    )


def unpacked(file: Path) -> bytes:
    data = file.read_bytes()
    if file.suffix == ".gz":
        return gzip.decompress(data)
    if file.suffix == ".br":
        return brotli.decompress(data)
    if importlib.util.find_spec("compression"):
        from compression import zstd

        return zstd.decompress(data)
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def siblings(directory: Path) -> set[str]:
    found = (str(file.relative_to(directory)) for file in directory.rglob("*"))
    return {name for name in found if name.endswith((".br", ".gz", ".zst"))}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path / "site")
    site.file("site.css", TEXT, mode=0o640)
    return site


def test_siblings_have_the_bytes_the_time_and_the_mode_of_their_file(site: Site) -> None:
    """One in each coding, smaller, found by the server at once; a second run has nothing to do."""
    file = site.directory / "site.css"
    os.utime(file, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    result = run(site.directory)
    assert (result.returncode, result.stderr) == (0, "")
    assert siblings(site.directory) >= {"site.css.br", "site.css.gz", "site.css.zst"}
    for suffix in (".br", ".gz", ".zst"):
        sibling = site.directory / f"site.css{suffix}"
        assert unpacked(sibling) == TEXT
        assert sibling.stat().st_mtime_ns == file.stat().st_mtime_ns
        assert sibling.stat().st_mode & 0o777 == 0o640
        assert sibling.stat().st_size < len(TEXT) / 10
    from werkzeug.test import Client

    response = Client(create_app(site.directory)).get("/site.css", headers={"Accept-Encoding": "gzip, br"})
    assert response.headers["Content-Encoding"] == "br"
    response.close()
    before = {name: (site.directory / name).stat().st_ino for name in siblings(site.directory)}
    result = run(site.directory)
    assert result.stdout == f"0 written, 0 removed, {len(before)} as they were\n"
    assert {name: (site.directory / name).stat().st_ino for name in siblings(site.directory)} == before


def test_a_changed_file_gets_new_siblings_or_none(site: Site) -> None:
    """What is older than its file is written anew; where that saves nothing any more, it goes."""
    run(site.directory)
    site.file("site.css", TEXT + b"more")
    run(site.directory)
    assert unpacked(site.directory / "site.css.gz") == TEXT + b"more"
    site.file("site.css", os.urandom(5000))
    result = run(site.directory)
    assert "site.css.gz: removed" in result.stdout
    assert not {name for name in siblings(site.directory) if name.startswith("site.css")}


def test_what_saves_nothing_or_is_no_clients_has_no_sibling(site: Site, tmp_path: Path) -> None:
    """Small, random and packed files, hidden ones, scripts, and what links lead to."""
    site.file("small.txt", "x" * 100)
    site.file("random.bin", os.urandom(5000))
    site.file("photo.JPG", TEXT)
    site.file(".hidden/x.txt", TEXT)
    site.file("page.txt~", TEXT)
    site.file("run.cgi", TEXT)
    site.script("big.py", TEXT)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/x.txt").write_bytes(TEXT)
    (site.directory / "out").symlink_to(tmp_path / "outside")
    (site.directory / "link.txt").symlink_to(tmp_path / "outside/x.txt")
    (site.directory / "inside.txt").symlink_to("site.css")
    os.mkfifo(site.directory / "fifo")
    result = run(site.directory, "--coding", "gzip", WSGICGI_CGI_EXTENSIONS=".cgi")
    assert (result.returncode, siblings(site.directory)) == (0, {"site.css.gz"})
    assert siblings(tmp_path / "outside") == set()


def test_a_packed_file_of_its_own_is_left_alone(site: Site) -> None:
    """An archive without an original beside it, and what stands where a sibling would and is no file."""
    archive = site.file("data.tar.gz", gzip.compress(TEXT))
    (site.directory / "site.css.gz").symlink_to("data.tar.gz")
    before = archive.read_bytes()
    result = run(site.directory, "--coding", "gzip", "-q")
    assert (result.returncode, archive.read_bytes()) == (1, before)
    assert "site.css.gz: is no plain file" in result.stderr
    assert (site.directory / "site.css.gz").is_symlink()


def test_a_file_that_changes_meanwhile_gets_no_sibling(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the old and half of the new would be nobody's text; nothing is left behind."""
    file = site.directory / "site.css"
    make = compress._COMPRESSORS["gzip"]

    def changing() -> compress.Compressor:
        file.write_bytes(TEXT + b"changed")
        return make()

    monkeypatch.setitem(compress._COMPRESSORS, "gzip", changing)  # type: ignore[arg-type]
    assert compress.main([str(site.directory), "--coding", "gzip"]) == 1
    assert {file.name for file in site.directory.iterdir() if "site.css" in file.name or "~" in file.name} == {
        "site.css"
    }


def test_wrong_usage_and_missing_modules_are_told(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With status 2, and what to install."""
    assert run(tmp_path / "nope").returncode == 2
    assert run(site.directory, "--coding", "deflate").returncode == 2
    assert (
        "compress DIR"
        in subprocess.run(
            [sys.executable, "-m", "wsgicgi", "--help"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
    )
    blocked = "import sys; sys.modules['brotli'] = None; sys.argv[1:] = %r; from wsgicgi.devserver import main; main()"
    words = ["compress", str(site.directory), "--coding", "br"]
    result = subprocess.run([sys.executable, "-c", blocked % words], capture_output=True, text=True, timeout=30)
    assert "pip install 'wsgicgi[compress]'" in result.stderr
    result = subprocess.run([sys.executable, "-c", blocked % words[:2]], capture_output=True, text=True, timeout=30)
    assert "left out: br" in result.stderr
    assert "site.css.gz" in siblings(site.directory)
