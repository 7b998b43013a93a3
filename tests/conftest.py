"What the tests share: where the repository is, and a headless Chromium."
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHROMIUM = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome']


def pytest_report_header():
    folder = os.environ.get('CRNN_NB_SYNTH90K')
    return f'real Synth90k images: {folder}' if folder else 'real Synth90k images: none (set CRNN_NB_SYNTH90K to a folder in its layout)'


@pytest.fixture(scope='session')
def browser():
    from playwright.sync_api import sync_playwright
    path = next((p for p in map(shutil.which, CHROMIUM) if p), None)
    assert path, 'no Chromium found; on Debian: sudo apt-get install chromium'
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args=['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-quic'])
        yield b
        b.close()
