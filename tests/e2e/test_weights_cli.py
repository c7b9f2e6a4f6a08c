"""`mmtt weights` as a user meets it: in a process of its own, with exit codes and messages."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

NAME = "styleclip-directions"


class Mmtt:
    """Runs `mmtt weights ...` with a weights folder and caches of its own."""

    def __init__(self, home: Path) -> None:
        self.cache = home / "cache" / "mmtt" / "weights"
        self.environment = {
            **os.environ, "XDG_CACHE_HOME": str(home / "cache"), "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.environment.pop("MMTT_WEIGHTS", None)
        self.home = home

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("mmtt")), "weights", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, env=self.environment, cwd=self.home,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip


@pytest.fixture
def mmtt(tmp_path: Path) -> Mmtt:
    return Mmtt(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.save(tmp_path / "fs3.npy", np.zeros((5376, 512), np.float16))
    return tmp_path / "fs3.npy"


@pytest.mark.parametrize("command", ["", "add"])
def test_the_commands_explain_themselves(mmtt: Mmtt, command: str) -> None:
    result = mmtt(*command.split(), "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: mmtt weights")


def test_from_missing_to_ready(mmtt: Mmtt, file: Path) -> None:
    listed = mmtt("list").stdout
    assert f"{NAME}      " in listed
    assert "bisenet                   MIT                    missing" in listed
    added = mmtt("add", NAME, file)
    assert added.returncode == 0, added.stderr
    assert str(mmtt.cache / NAME / "fs3.npy") in added.stdout
    assert f"terms not accepted yet: mmtt weights accept {NAME}" in added.stdout
    asked = mmtt("accept", NAME)
    assert (asked.returncode, "NVIDIA Source Code License-NC" in asked.stdout) == (1, True)
    assert f"TermsNotAccepted: '{NAME}': nobody is there to ask\n  -> mmtt weights accept {NAME} --yes" in asked.stderr
    assert "accepted, noted in" in mmtt("accept", NAME, "--yes").stdout
    assert "accepted already" in mmtt("accept", NAME).stdout
    shown = mmtt("show", NAME).stdout
    assert "  state         ready\n" in shown
    assert mmtt("list", NAME).stdout == shown
    checked = mmtt("check")
    assert (checked.returncode, checked.stdout) == (0, f"{NAME}: fine, {mmtt.cache / NAME / 'fs3.npy'}\n")


def test_a_damaged_one_fails_the_check(mmtt: Mmtt, file: Path) -> None:
    assert mmtt("add", NAME, file, "--accept-terms").returncode == 0
    inside = mmtt.cache / NAME / "fs3.npy"
    data = bytearray(inside.read_bytes())
    data[9000] ^= 1
    inside.write_bytes(data)
    result = mmtt("check")
    assert result.returncode == 1
    assert f"changed since it was added: {inside}\n  sha256 then " in result.stderr
    assert "1 of 1 checkpoints cannot be used" in result.stderr
    assert "changed" in next(line for line in mmtt("list").stdout.splitlines() if line.startswith(NAME))


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("show", "bisnet"), 2, "did you mean bisenet?"),
        (("add", "bisenet", "no/such.pth"), 2, "such.pth does not exist; 'bisenet' is a file"),
        (("check", "bisenet"), 1, "WeightsMissing: 'bisenet' (19-class face parser) is in none of: "),
        (("fetch", "bisenet"), 1, "get parsing_bisenet.pth from https://github.com/xinntao/facexlib"),
        (("fetch", "flux-fill"), 1, "TermsNotAccepted: 'flux-fill'"),
        (("fetch", "flux-schnell"), 1, "WeightsError: could not fetch black-forest-labs/FLUX.1-schnell"),
        (("fetch", "flux-dev", "--accept-terms"), 1, "log in with `hf auth login`, fetch again; or, with a copy"),
        (("list", "--weights-dir", "nowhere"), 2, "--weights-dir nowhere is not a folder"),
    ],
)
def test_what_goes_wrong_is_one_message(mmtt: Mmtt, arguments: tuple[str, ...], code: int, told: str) -> None:
    result = mmtt(*arguments)
    assert result.returncode == code, result.stderr
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_a_web_page_and_a_pickle_with_code_are_refused(mmtt: Mmtt, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    page, evil, made = tmp_path / "79999_iter.pth", tmp_path / "evil.pth", tmp_path / "made"
    page.write_text("<!DOCTYPE html><html>Google Drive can't scan this file for viruses")
    result = mmtt("add", "bisenet", page)
    assert (result.returncode, "is a web page, not a checkpoint" in result.stderr) == (1, True)

    class Creates:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(made),)

    torch.save({"cp": Creates()}, evil)
    result = mmtt("add", "bisenet", evil)
    assert (result.returncode, "loading it would call posix.mkdir. Nothing was run" in result.stderr) == (1, True)
    assert not made.exists()
    assert not mmtt.cache.exists()


def test_listing_loads_no_numerics(mmtt: Mmtt) -> None:
    code = (
        "import sys; sys.argv = ['mmtt', 'weights', 'list']\n"
        "from mmtt_build.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'diffusers', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=mmtt.environment)
    assert result.returncode == 0, result.stderr


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address and folder of a server that speaks enough of the hub's protocol for its real client.

    Below the folder lie repositories: `<owner>/<name>/<file>`.
    """
    root = tmp_path / "served"

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            head = {"X-Repo-Commit": COMMIT}
            repository, _, name = self.path.partition("/resolve/main/")
            file = root / repository.strip("/") / name
            body, code = (file.read_bytes(), 200) if file.is_file() else (b"", 404)
            head["ETag"] = f'"{hashlib.sha256(body).hexdigest()}"'
            self.send_response(code)
            for key, value in {**head, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", root
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetching_from_a_hub(mmtt: Mmtt, hub: tuple[str, Path]) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    address, served = hub
    mmtt.environment |= {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    repository, name = served / "latent-consistency/lcm-lora-sdxl", "lcm-lora-sdxl"
    repository.mkdir(parents=True)
    pair = {"q.lora_down.weight": torch.zeros(2, 8), "q.lora_up.weight": torch.zeros(8, 2)}
    save_file(pair, repository / "pytorch_lora_weights.safetensors")
    assert "openrail++) comes first" in mmtt("fetch", name).stderr
    result = mmtt("fetch", name, "--accept-terms")
    assert result.returncode == 0, result.stderr
    assert f"{name} is fetched and what it should be: {mmtt.home / 'hf'}" in result.stdout
    shown = mmtt("show", name).stdout
    assert f"hub:latent-consistency/lcm-lora-sdxl@{COMMIT}" in shown
    assert "ready\n" in shown
