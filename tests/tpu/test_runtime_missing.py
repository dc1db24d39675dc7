"""Without the extra `tpu` everything else works, and what needs it says which command installs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ai_edge_litert", "tflite_runtime", "pycoral", "pymetis", "flatbuffers"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing())
"""
INSTALL = "pip install 'graph-diffusion-edge-serving[tpu]'"


def without_the_extra(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"{BLOCK}\nsys.path.insert(0, {str(ROOT / '.path')!r})\n{program}"],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
    )


def test_dgdm_runs() -> None:
    done = without_the_extra(
        "import dgdm\n"
        "g = dgdm.StreamingDGDM(features=1)\n"
        "g.add_node('a', [1.0]); g.add_edge('a', 'b')\n"
        "print(len(g.incremental_diffuse().updated), g.certify().holds)\n"
        "import dgdm.cli"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 True\n"


NEEDS = [
    "from dgdm.tpu.runtime import load_runtime\nload_runtime()",
    "from dgdm.tpu.network import preset\nfrom dgdm.tpu.files import float_file\nfloat_file(preset('DGDM-Small'))",
    "from dgdm.tpu.opcheck import check\ncheck(b'')",
]


@pytest.mark.parametrize("program", NEEDS)
def test_what_needs_it_names_the_command(program: str) -> None:
    done = without_the_extra(
        "from dgdm.tpu.errors import MissingRuntimeError\ntry:\n"
        + "".join(f"    {line}\n" for line in program.splitlines())
        + "except MissingRuntimeError as error:\n    print(error)"
    )
    assert done.returncode == 0, done.stderr
    assert INSTALL in done.stdout


SETTINGS = {
    "diffusion_backend='region'": "diffusion_backend = region: ",
    "head=__file__": "head = ",
    "encoder=__file__": "encoder = ",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_that_needs_it_names_the_command(setting: str, tmp_path: Path) -> None:
    file = tmp_path / "head.tflite"
    file.write_bytes(b"")
    done = without_the_extra(
        f"__file__ = {str(file)!r}\n"
        "from prometheus_client import CollectorRegistry\n"
        "from dgdm.models import Models\nfrom dgdm.settings import Settings\nimport dgdm.worker\n"
        "Models(Settings(), CollectorRegistry()).close()\n"
        f"try:\n    Models(Settings({setting}), CollectorRegistry())\n"
        "except ValueError as error:\n    print(error)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(SETTINGS[setting])
    assert INSTALL in done.stdout


def test_a_command_that_needs_it_names_the_command(tmp_path: Path) -> None:
    done = without_the_extra(
        "import sys\n"
        f"sys.argv = ['dgdm', 'model', 'build', 'DGDM-Small', '--out', {str(tmp_path / 'x.tflite')!r}]\n"
        "from dgdm.cli import main\nmain()"
    )
    assert done.returncode == 2
    assert INSTALL in done.stderr
    assert "Traceback" not in done.stderr
