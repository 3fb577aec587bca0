"""One file over HTTP: with progress, cancel, resume, proxies, and an offline switch.  No torch here.

The standard library does it, because huggingface_hub cannot keep all of these promises at once (its Xet
transfers ignore an exception from the progress callback) and because Slicer's own Python has nothing
else for sure.  Proxies are those of the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY) or of the
system; certificates those of Python, SSL_CERT_FILE, REQUESTS_CA_BUNDLE, and certifi where present.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from difftumor.locks import try_lock
from difftumor.remedies import Remedy, with_remedy
from difftumor.weights.cards import ModelError, read_json, write_json

Callback = Callable[[int, int], None]

OFFLINE_VARIABLES = ("DIFFTUMOR_OFFLINE", "HF_HUB_OFFLINE")
CHUNK = 1 << 18
TIMEOUT_S = 20.0
FRUITLESS_ATTEMPTS = 3  # in a row without a single new byte
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
SPARE_BYTES = 32 << 20  # left free on the disk


@dataclass(frozen=True)
class Fetched:
    """A complete download.

    Attributes:
        size: bytes.
        sha256: what the server says about the content (Hugging Face does), or None.
    """

    size: int
    sha256: str | None


class _Broken(Exception):
    """The connection failed in a way that a new attempt may mend."""


def is_offline() -> str | None:
    """Name of the variable that forbids the network, or None."""
    for name in OFFLINE_VARIABLES:
        if os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on"):
            return name
    return None


def part_of(target: Path) -> Path:
    """Where the unfinished download of a file lies."""
    return target.with_name(target.name + ".part")


def _memory_of(part: Path) -> Path:
    """What the unfinished file is a part of."""
    return part.with_name(part.name + ".json")


def discard(part: Path) -> None:
    """Throw an unfinished download away."""
    part.unlink(missing_ok=True)
    _memory_of(part).unlink(missing_ok=True)


def fetch(
    url: str,
    part: Path,
    callback: Callback | None = None,
    *,
    expected_bytes: int = 0,
    pause_s: float = 0.5,
    timeout_s: float = TIMEOUT_S,
) -> Fetched:
    """Download into `part`, going on where an earlier download of the same file stopped.

    Args:
        url: http or https; a redirection from https to http is refused.
        part: the unfinished file; beside it `<part>.json` remembers which file on the server it is.
            Both stay when the download is cancelled or fails.
        callback: callback(done, total) in bytes, several times a second; may raise, which cancels.
        expected_bytes: the total to report, and to keep free on the disk, where the server tells none.
        pause_s: before the second attempt; doubles with each fruitless one.
        timeout_s: of a connection that gives nothing.

    Raises:
        ModelError: offline, no network, refused, not found, a web page instead of the file, disk full; each
            with the remedy.
    """
    variable = is_offline()
    if variable:
        raise with_remedy(
            ModelError(f"Nothing is downloaded: {variable} is set, so the network is off."),
            Remedy("network_on"),
        )
    report = callback or (lambda *_: None)
    fruitless = 0
    while True:
        before = _size(part)
        try:
            return _transfer(url, part, report, expected_bytes, timeout_s)
        except _Broken as error:
            fruitless = fruitless + 1 if _size(part) <= before else 0
            if fruitless >= FRUITLESS_ATTEMPTS:
                kept = _size(part)
                rest = f" {kept / 1e6:.1f} MB are kept; it goes on from there." if kept else ""
                raise with_remedy(
                    ModelError(f"The download of {_file_name(url)} stopped: {error}.{rest}"),
                    Remedy("check_network"),
                ) from error
            total = _remembered(_memory_of(part), url).get("total") or expected_bytes
            _wait(pause_s * 2**fruitless, partial(report, _size(part), total))
        except OSError as error:
            raise _explained(error, part) from error


def _transfer(
    url: str, part: Path, report: Callback, expected_bytes: int, timeout_s: float
) -> Fetched:
    """One attempt."""
    part.parent.mkdir(parents=True, exist_ok=True)
    known = _remembered(_memory_of(part), url) if part.exists() else {}
    have = _size(part) if known else 0
    if have and have == known.get("total"):
        return Fetched(have, known.get("sha256"))
    headers = {"User-Agent": "difftumor", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        # Another version of the file must not be appended to this one.
        headers["If-Range"] = known["validator"]
    response, linked_sha256 = _open(url, headers, timeout_s)
    if response is None:  # 416: what we have is longer than the file
        part.unlink(missing_ok=True)
        raise _Broken("the server has another version of the file now")
    with response:
        kind = response.headers.get_content_type()
        if kind in ("text/html", "application/xhtml+xml"):
            raise ModelError(
                f"The server answered with a web page instead of {_file_name(url)}. A network that asks "
                "for a login, a proxy, or a moved file does this: open the address in a browser "
                f"({url}), and import the file from disk if that works."
            )
        start, total = _extent(response, have)
        if start not in (0, have) or (start and total not in (0, known.get("total"))):
            part.unlink(missing_ok=True)
            raise _Broken("the server sent another part of the file than was asked for")
        _check_space(part, (total or expected_bytes) - start)
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        known = {"url": url, "total": total, "sha256": linked_sha256}
        # A weak ETag (W/) does not promise equal bytes.
        known["validator"] = "" if validator.startswith("W/") else validator
        if not start:
            part.unlink(missing_ok=True)
        write_json(_memory_of(part), known)
        with part.open("ab") as file:
            done = _copy(response, file, start, lambda done: report(done, total or expected_bytes))
    if total and done < total:
        raise _Broken(f"the connection ended after {done} of {total} bytes")
    if total and done > total:
        part.unlink(missing_ok=True)
        raise _Broken("the server sent more than it announced")
    return Fetched(done, linked_sha256)


def _copy(
    response: http.client.HTTPResponse, file: BinaryIO, done: int, report: Callable[[int], None]
) -> int:
    """Append what arrives, and return the file's size."""
    report(done)
    while True:
        try:
            block = response.read1(CHUNK)
        except (http.client.HTTPException, OSError) as error:
            raise _Broken(_reason(error)) from error
        if not block:
            break
        file.write(block)
        done += len(block)
        report(done)
    file.flush()
    os.fsync(file.fileno())
    return done


def _open(
    url: str, headers: dict[str, str], timeout_s: float
) -> tuple[http.client.HTTPResponse | None, str | None]:
    """Send the request; None is the answer 416 (nothing beyond the range).

    Returns also the SHA-256 that Hugging Face gives for its large files, on the way to their store.
    """
    redirections = _Redirections()
    opener = urllib.request.build_opener(
        redirections, urllib.request.HTTPSHandler(context=_certificates())
    )
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                return None, redirections.sha256
            if error.code in TRANSIENT_STATUS:
                raise _Broken(f"the server answered {error.code} ({error.reason})") from error
            raise _refused(url, error.code, str(error.reason)) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise with_remedy(
                ModelError(
                    "The identity of the server could not be checked "
                    f"({error.reason.verify_message})."
                ),
                Remedy("certificate"),
            ) from error
        raise _Broken(_reason(error.reason)) from error
    except (http.client.HTTPException, OSError) as error:
        raise _Broken(_reason(error)) from error
    redirections.look_at(response.headers)
    return response, redirections.sha256


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not out of TLS, and reads what Hugging Face says about the file."""

    sha256: str | None = None

    def look_at(self, headers: http.client.HTTPMessage) -> None:
        """Keep the SHA-256 of the content if these headers have it."""
        value = headers.get("X-Linked-ETag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", value):
            self.sha256 = value

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Called by urllib for each step."""
        self.look_at(headers)
        secure = req.full_url.lower().startswith("https:")
        if not newurl.lower().startswith("https:" if secure else ("http:", "https:")):
            raise ModelError(f"The server sends us to an unsafe address ({newurl[:100]}). Stopped.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refused(url: str, code: int, reason: str) -> ModelError:
    """A final answer of the server, for a person."""
    meaning = {
        401: "asks for a login",
        403: "refuses access (a license to accept on its page, or a blocked network)",
        404: "does not have the file (any more)",
        407: "is behind a proxy that asks for a login",
        410: "has removed the file",
        451: "may not give the file here",
    }.get(code, f"answered {code} ({reason})")
    return with_remedy(
        ModelError(f"{_file_name(url)} was not downloaded: the server {meaning}."),
        Remedy("proxy_login" if code == 407 else "open_in_browser", {"url": url}),
    )


def _explained(error: OSError, part: Path) -> ModelError:
    """A fault of the disk, for a person."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return with_remedy(
            ModelError(f"The disk of {part.parent} is full; what has arrived is kept."),
            Remedy("models_disk"),
        )
    return with_remedy(
        ModelError(f"{part} cannot be written ({error.strerror or error})."),
        Remedy("models_folder"),
    )


def _check_space(part: Path, wanted: int) -> None:
    """Better no download than half of one.  Raises: ModelError."""
    free = shutil.disk_usage(part.parent).free
    if wanted + SPARE_BYTES > free:
        raise with_remedy(
            ModelError(
                f"The disk of {part.parent} is too full: {max(wanted, 0) / 1e6:.0f} MB are needed, "
                f"{free / 1e6:.0f} MB are free."
            ),
            Remedy("models_disk"),
        )


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int]:
    """First byte that the answer brings, and size of the whole file (0 if the server does not say)."""
    length = int(response.headers.get("Content-Length") or 0)
    if response.status != 206:
        return 0, length
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if not found:
        return have, have + length if length else 0
    return int(found[1]), 0 if found[2] == "*" else int(found[2])


def _remembered(memory: Path, url: str) -> dict[str, Any]:
    """What is known of the unfinished file; {} if it cannot be continued safely."""
    with contextlib.suppress(ModelError, AttributeError):
        known: dict[str, Any] = read_json(memory)
        if known.get("url") == url and known.get("validator"):
            return known
    return {}


def _certificates() -> ssl.SSLContext:
    """Trusted certificates: Python's, the person's, and certifi's."""
    context = ssl.create_default_context()
    named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    with contextlib.suppress(OSError):
        if named and Path(named).is_file():
            context.load_verify_locations(named)
    with contextlib.suppress(ImportError, OSError):
        import certifi  # some Pythons on macOS have no certificates of their own

        context.load_verify_locations(certifi.where())
    return context


def _wait(seconds: float, tick: Callable[[], None]) -> None:
    """Sleep, but notice a cancel."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        tick()
        time.sleep(min(left, 0.2))


def _reason(error: Any) -> str:
    """A short reason for a failed connection."""
    if isinstance(error, socket.gaierror):
        return "the server's name was not found (no network?)"
    if isinstance(error, TimeoutError):
        return "the server gave no answer in time"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _file_name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextlib.contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold a lock file while a model is installed; the system drops it with the process.

    Raises:
        ModelError: another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+b") as file:
        # Some network disks have no locks: the checksum and the rename still protect the result.
        if try_lock(file.fileno()) is False:
            raise ModelError(
                f"Another program is installing a model into {lock.parent} right now. Wait until it is "
                "done, or stop it, and try again."
            )
        yield
