"The first chapter, opened in JupyterLab by `make lab` and run there, as a reader would."
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

from conftest import ROOT


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def test_first_chapter_runs_in_jupyterlab(browser, tmp_path):
    port = free_port()
    args = f'--no-browser --port={port} --IdentityProvider.token=test --LabApp.expose_app_in_browser=True --LabApp.workspaces_dir={tmp_path} --ServerApp.root_dir={tmp_path}/clone'
    clone = tmp_path/'clone'  # JupyterLab saves what it runs: let it save into a copy
    clone.mkdir()
    for name in ('Makefile', 'settings.ini', 'setup.py', 'constraints.txt', '.ci', 'nbs'):
        (shutil.copytree if (ROOT/name).is_dir() else shutil.copy2)(ROOT/name, clone/name)
    (clone/'.venv').symlink_to(ROOT/'.venv')
    log = open(tmp_path/'lab.log', 'w')
    server = subprocess.Popen(['make', 'lab', f'ARGS={args}'], cwd=clone, stdout=log, stderr=log, start_new_session=True,
                              env={**os.environ, 'JUPYTER_CONFIG_DIR': str(tmp_path/'config')})
    try:
        base = f'http://127.0.0.1:{port}'
        for _ in range(120):
            try: urllib.request.urlopen(f'{base}/api?token=test', timeout=1); break
            except OSError: time.sleep(0.5)
        else: raise AssertionError((tmp_path/'lab.log').read_text()[-2000:])
        page = browser.new_page(viewport={'width': 1300, 'height': 900})
        page.goto(f'{base}/lab/tree/nbs/00_alphabet.ipynb?token=test', wait_until='domcontentloaded', timeout=120_000)
        page.wait_for_selector('.jp-Notebook .jp-Cell', timeout=60_000)
        find = """const panel = [...window.jupyterapp.shell.widgets('main')].find(w => w.sessionContext);"""
        page.wait_for_function('() => {' + find + "return panel && panel.sessionContext.session?.kernel?.status === 'idle'}", timeout=60_000)
        page.click('text="Run"')
        page.click('.lm-Menu-itemLabel:text-is("Run All Cells")')
        # Cells out of sight are not in the page: the notebook's own model knows all of them.
        state = '() => {' + find + '''
            const code = panel.content.widgets.map(w => w.model).filter(m => m.type === 'code' && m.sharedModel.source.trim());
            return {run: code.filter(m => m.executionCount).length, all: code.length,
                    errors: code.flatMap(m => m.outputs.toJSON().filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue))};
        }'''
        deadline = time.time() + 180
        while time.time() < deadline:
            got = page.evaluate(state)
            if got['run'] == got['all'] or got['errors']: break
            time.sleep(1)
        page.screenshot(path=tmp_path/'lab.png')
        assert got['errors'] == [] and got['run'] == got['all'] > 10, got
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
        log.close()
