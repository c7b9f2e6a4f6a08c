"""`python -m tests.parity DIR`: every case file of a folder, one line each; exit code 1 if one is off."""

from __future__ import annotations

import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

from .cases import Case, CaseError, network_of

NETWORKS = {
    "bisenet": "bisenet",
    "ffhq_align": "ffhq_align",
    "mat": "mat",
    "mat.tiny": "mat",
    "stylegan2": "stylegan2",
    "stylegan2.small": "stylegan2",
    "e4e_encoder": "e4e",
    "e4e_encoder.small": "e4e",
    "hfgi_residue": "hfgi",
    "hfgi_aligner": "hfgi",
    "hfgi": "hfgi",
    "styleclip_mapper": "styleclip",
    "styleclip_mapper.single": "styleclip",
    "styleclip_global": "styleclip",
    "gpen": "gpen",
    "gpen.small": "gpen",
    "gpen_post": "gpen",
    "realesrnet": "gpen",
    "facevid2vid": "facevid2vid",
    "e4s_align": "e4s",
    "e4s_post": "e4s",
    "e4s_styleswap": "e4s",
    "e4s_net3": "e4s_net3",
    "e4s_net3.small": "e4s_net3",
    "e4s_pipeline": "e4s_pipeline",
}
"""Networks that there are, by the first part of their case files' names: the module here that runs such a case."""


def say(line: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Runs all cases.

    Returns:
        0 if all are within their tolerances, 1 if not, 2 if there is nothing to run.
    """
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        say(f"parity wants one folder of case files, got {' '.join(arguments) or 'none'}: make parity REFERENCE=DIR")
        return 2
    paths = sorted(Path(arguments[0]).glob("*.case-*.npz"))
    if not paths:
        say(f"{arguments[0]} has no case file (<network>.case-<number>.npz)")
        return 2
    known = [path for path in paths if network_of(path) in NETWORKS]
    width = max((len(path.name) for path in known), default=0)
    failed = sum(not _run(path, width) for path in known)
    for network, cases in Counter(network_of(path) for path in paths if path not in known).items():
        say(f"{network}: no network for it yet ({cases} case{'s' if cases > 1 else ''})")
    say(f"{len(known) - failed} of {len(known)} cases within tolerance, {len(paths) - len(known)} not run")
    return 1 if failed else 0


def _run(path: Path, width: int) -> bool:
    """Runs one case and prints its line, and one more for each output that is off."""
    start = time.perf_counter()
    try:
        checks = import_module(f".{NETWORKS[network_of(path)]}", __package__).run(Case.load(path))
    except Exception as error:  # whatever a foreign file leads a network into, the other cases still run
        kind = "" if isinstance(error, CaseError) else f"{type(error).__name__}: "
        say(f"{path.name:<{width}}  cannot be run: {kind}{error}")
        return False
    seconds = time.perf_counter() - start
    worst = max(checks, key=lambda check: (not check.ok, check.error))
    good = all(check.ok for check in checks)
    say(
        f"{path.name:<{width}}  max error {worst.error:8.2e} ({worst.what} of {len(checks)} outputs), "
        f"tolerance {worst.tolerance:.0e}  {'ok' if good else 'FAIL'}  {seconds:5.1f} s"
    )
    for check in checks:
        if not check.ok:
            say(f"  {check.what}: {check.error:.3e}, tolerance {check.tolerance:.0e}")
    return good


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
