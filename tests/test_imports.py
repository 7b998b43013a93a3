"What importing a module costs, and what it must not bring."
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(p.stem for p in (ROOT/'crnn_nb').glob('*.py') if not p.stem.startswith('_'))
DRAWS = {'draw', 'widgets'}


def python(code): return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize('name', MODULES)
def test_import_brings_neither_plots_nor_compilers(name):
    heavy = {'numba', 'ipywidgets', 'IPython', 'nbdev'} | (set() if name in DRAWS else {'matplotlib'})
    loaded = python(f'import sys, crnn_nb.{name}; print(*sys.modules)').split()
    assert not heavy & set(loaded)


def test_import_is_quick_beside_torch():
    "Every module together, against torch, in one process: half a second on a quiet machine is a quarter of torch's own time."
    code = 'import time; a = time.process_time(); import torch; b = time.process_time(); ' + \
           ''.join(f'import crnn_nb.{m}; ' for m in MODULES if m not in DRAWS) + 'c = time.process_time(); print((c - b)/(b - a))'
    assert min(float(python(code)) for _ in range(3)) < 1
