"""Downloads against a server of our own: broken, slow, wrong, full disks, proxies, no network."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from difftumor.weights import downloads
from difftumor.weights.downloads import Fetched, discard, exclusive, fetch, part_of
from difftumor.weights.models import ModelError
from Testing.engine.weights.model_server import ModelServer, serving

CONTENT = random.Random(1).randbytes(3_000_000)


class Stop(Exception):
    """What a person's cancel raises."""


@pytest.fixture(autouse=True)
def plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in downloads.OFFLINE_VARIABLES:
            monkeypatch.delenv(name)


@pytest.fixture
def server():
    with serving(ModelServer(CONTENT)) as running:
        yield running


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return part_of(tmp_path / "folder" / "model.pt")


def get(server: ModelServer, part: Path, callback=None, **options) -> Fetched:
    return fetch(
        f"{server.url}/repo/model.pt",
        part,
        callback,
        **{"pause_s": 0.01, "timeout_s": 60} | options,
    )


def test_a_file_arrives_with_progress(server: ModelServer, part: Path):
    steps = []
    found = get(server, part, lambda done, total: steps.append((done, total)))
    assert found == Fetched(len(CONTENT), None)
    assert part.read_bytes() == CONTENT
    assert steps[0] == (0, len(CONTENT))
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert len(steps) > 5
    assert steps == sorted(steps)
    discard(part)
    assert not list(part.parent.iterdir())


def test_a_broken_connection_goes_on_where_it_stopped(server: ModelServer, part: Path):
    server.breaks = [1_000_000, 500_000, 10]
    get(server, part)
    assert part.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [
        "",
        "bytes=1000000-",
        "bytes=1500000-",
        "bytes=1500010-",
    ]


def test_a_cancelled_download_keeps_what_came_and_goes_on_later(server: ModelServer, part: Path):
    def cancel(done: int, _total: int) -> None:
        if done > 1_000_000:
            raise Stop

    with pytest.raises(Stop):
        get(server, part, cancel)
    kept = part.stat().st_size
    assert kept > 1_000_000
    get(server, part)
    assert part.read_bytes() == CONTENT
    assert server.requests[-1][1] == f"bytes={kept}-"


def test_a_cancel_is_noticed_while_waiting_for_the_server(server: ModelServer, part: Path):
    server.statuses = [503] * 9

    def cancel(_done: int, _total: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        get(server, part, cancel, pause_s=60)


def test_a_complete_part_needs_no_second_transfer(server: ModelServer, part: Path):
    server.announce()
    server.redirect = True
    first = get(server, part)
    asked = len(server.requests)
    assert get(server, part) == first
    assert len(server.requests) == asked


def test_another_version_on_the_server_is_not_appended(server: ModelServer, part: Path):
    server.breaks = [1_000_000]
    with pytest.raises(Stop):
        get(server, part, lambda done, _: stop_at(done, 1_000_000))
    server.content, server.etag, server.breaks = CONTENT[::-1], '"two"', []
    get(server, part)
    assert part.read_bytes() == CONTENT[::-1]


def stop_at(done: int, limit: int) -> None:
    if done >= limit:
        raise Stop


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_mark_of_the_version_it_starts_again(server, part: Path, etag: str):
    server.etag = etag
    server.breaks = [1_000_000]
    get(server, part)
    assert part.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == ["", ""]


def test_a_server_without_ranges_starts_again(server: ModelServer, part: Path):
    server.ranges = False
    server.breaks = [1_000_000]
    get(server, part)
    assert part.read_bytes() == CONTENT


def test_a_part_that_is_too_long_starts_again(server: ModelServer, part: Path):
    get(server, part)
    with part.open("ab") as file:
        file.write(b"more")
    get(server, part)
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("memory", ["", "[]", "{}", '{"url": 3}'])
def test_a_part_of_unknown_origin_starts_again(server: ModelServer, part: Path, memory: str):
    part.parent.mkdir()
    part.write_bytes(b"something else")
    part.with_name(part.name + ".json").write_text(memory)
    get(server, part)
    assert part.read_bytes() == CONTENT


def test_a_server_that_says_no_length_uses_the_expected_one(server: ModelServer, part: Path):
    server.length = False
    steps = []
    found = get(server, part, lambda *step: steps.append(step), expected_bytes=5_000_000)
    assert found.size == len(CONTENT)
    assert steps[0] == (0, 5_000_000)


def test_the_announced_checksum_is_taken_from_the_redirection(server: ModelServer, part: Path):
    server.announce()
    server.redirect = True
    assert get(server, part).sha256 == server.announced
    assert [path for path, _ in server.requests] == ["/repo/model.pt", "/store/file?signature=1"]


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x"]
)  # fmt: skip
def test_a_redirection_to_something_unsafe_is_not_followed(server, part: Path, address: str):
    server.redirect = address
    with pytest.raises(ModelError, match=r"unsafe address|not allowed"):
        get(server, part)


@pytest.mark.parametrize("code", [500, 502, 503, 429])
def test_a_passing_fault_of_the_server_is_tried_again(server: ModelServer, part: Path, code: int):
    server.statuses = [code]
    get(server, part)
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (404, "does not have the file"),
        (403, "refuses access"),
        (401, "asks for a login"),
        (407, "HTTPS_PROXY"),
        (418, "answered 418"),
    ],
)
def test_a_refusal_is_explained_at_once(server: ModelServer, part: Path, code: int, words: str):
    server.statuses = [code] * 9
    with pytest.raises(ModelError) as caught:
        get(server, part)
    assert words in str(caught.value)
    assert "difftumor models import" in str(caught.value)
    assert len(server.requests) == 1


def test_a_server_that_stays_broken_is_given_up_with_what_came_kept(server, part: Path):
    server.breaks = [100_000] + [0] * 9
    with pytest.raises(ModelError, match=r"ended after 100000 of 3000000 bytes.*0\.1 MB are kept"):
        get(server, part)
    assert part.stat().st_size == 100_000
    assert len(server.requests) == 4


def test_a_login_page_instead_of_the_file_is_noticed(server: ModelServer, part: Path):
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(ModelError, match=r"web page instead of model\.pt"):
        get(server, part)
    assert not part.exists()


def test_no_network_is_said_with_the_remedy(part: Path):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/model.pt"
        with pytest.raises(ModelError, match="Check the network and the proxy") as caught:
            fetch(url, part, pause_s=0.01)
    assert "refused" in str(caught.value)
    with pytest.raises(ModelError, match="name was not found"):
        fetch("http://models.invalid/model.pt", part, pause_s=0.01)


def test_a_silent_server_is_given_up(part: Path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/model.pt"
        with pytest.raises(ModelError, match="no answer in time"):
            fetch(url, part, pause_s=0.01, timeout_s=0.1)


@pytest.mark.parametrize("name", downloads.OFFLINE_VARIABLES)
def test_the_offline_switch_is_obeyed(server, part: Path, monkeypatch, name: str):
    monkeypatch.setenv(name, "1")
    with pytest.raises(ModelError, match=f"{name} is set"):
        get(server, part)
    monkeypatch.setenv(name, "0")
    get(server, part)
    assert len(server.requests) == 1


def test_the_proxy_of_the_environment_is_used(server: ModelServer, part: Path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    fetch("http://models.invalid/repo/model.pt", part)
    assert part.read_bytes() == CONTENT
    assert server.requests == [("http://models.invalid/repo/model.pt", "")]


def test_no_proxy_is_obeyed(server: ModelServer, part: Path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    get(server, part)
    assert part.read_bytes() == CONTENT


def test_a_disk_without_room_is_noticed_before_the_transfer(server, part: Path, monkeypatch):
    usage = downloads.shutil.disk_usage("/")._replace(free=1_000_000)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelError, match="3 MB are needed, 1 MB are free"):
        get(server, part)
    assert not part.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs /dev/full or a file size limit")
def test_a_disk_that_fills_up_keeps_what_has_arrived(server: ModelServer, part: Path):
    program = f"""
import errno, resource, signal, sys
from pathlib import Path
from difftumor.weights.downloads import fetch
from difftumor.weights.models import ModelError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    fetch({server.url + "/repo/model.pt"!r}, Path({str(part)!r}))
except ModelError as error:
    sys.exit("cannot be written" not in str(error))
sys.exit(3)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(downloads.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert done.returncode == 0
    assert part.stat().st_size == 1_000_000
    get(server, part)
    assert part.read_bytes() == CONTENT
    assert server.requests[-1][1] == "bytes=1000000-"


def test_a_full_disk_is_called_full(part: Path):
    error = downloads._explained(OSError(28, "No space left on device"), part)
    assert "is full" in str(error)
    assert "DIFFTUMOR_HOME" in str(error)


def test_a_lock_keeps_a_second_program_out_and_goes_with_its_owner(tmp_path: Path):
    lock = tmp_path / "folder" / ".lock"
    program = (
        "import sys; from pathlib import Path; from difftumor.weights.downloads import exclusive\n"
        f"with exclusive(Path({str(lock)!r})):\n    print('held', flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(downloads.__file__).parents[2])}
    command = [sys.executable, "-c", program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, **pipes) as owner:
        assert owner.stdout.readline() == b"held\n"
        with pytest.raises(ModelError, match="Another program is installing"), exclusive(lock):
            pass
        owner.kill()
    with exclusive(lock):
        pass
