"What importing a module costs, and what it must not bring."
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(p.stem for p in (ROOT/'crnn_nb').glob('*.py') if not p.stem.startswith('_'))


def python(code):
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONDONTWRITEBYTECODE'} # else each process compiles the package anew
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=env).stdout.strip()


@pytest.mark.parametrize('name', MODULES)
def test_import_brings_neither_plots_nor_compilers(name):
    loaded = python(f'import sys, crnn_nb.{name}; print(*sys.modules)').split()
    assert not {'matplotlib', 'numba', 'ipywidgets', 'IPython', 'nbdev'} & set(loaded)


@pytest.mark.parametrize('name', MODULES)
def test_import_is_quick_beside_torch(name):
    "Processor time after torch, as a share of torch's own in the same process, the least of three: 0.4 is under half a second where torch takes 1.2."
    code = f'import time; a = time.process_time(); import torch; b = time.process_time(); import crnn_nb.{name}; c = time.process_time(); print((c - b)/(b - a))'
    assert any(float(python(code)) <= .4 for _ in range(3))
