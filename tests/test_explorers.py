"Each explorer in a real JupyterLab started by `make lab`: opened in a browser, moved by a hand, and its change seen."
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

import pytest
from conftest import ROOT

CHAPTER = '12_widgets.ipynb'
EXPLORERS = ['explore_shapes', 'explore_lattice', 'explore_decoders', 'explore_drawing', 'explore_training(recorded', 'explore_training(Training', 'explore_picture']


def source(cell): return ''.join(cell['source'])


def short_notebook():
    "The chapter's cells that show an explorer, after one import: what a reader opens, without the rest."
    chapter = json.loads((ROOT/'nbs'/CHAPTER).read_text(encoding='utf-8'))
    shown = {name: next(source(c) for c in chapter['cells'] if c['cell_type'] == 'code' and source(c).splitlines()[-1].startswith(name)) for name in EXPLORERS}
    words = next(source(c) for c in chapter['cells'] if c['cell_type'] == 'code' and source(c).splitlines()[-1].startswith('quick = '))
    code = ['import tempfile\nfrom pathlib import Path\nfrom crnn_nb.synth import write_synth90k\nfrom crnn_nb.widgets import *\n' + words] + list(shown.values())
    return dict(nbformat=4, nbformat_minor=5, metadata=dict(kernelspec=dict(display_name='Python 3', language='python', name='python3')),
                cells=[dict(id=f'c{i}', cell_type='code', metadata={}, outputs=[], execution_count=None, source=s) for i, s in enumerate(code)])


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "The address of a JupyterLab that `make lab` started on a copy of the notebooks."
    folder = tmp_path_factory.mktemp('lab')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    clone = folder/'clone'
    clone.mkdir()
    for name in ('Makefile', 'settings.ini', 'setup.py', 'constraints.txt'): shutil.copy2(ROOT/name, clone/name)
    shutil.copytree(ROOT/'.ci', clone/'.ci')
    for p in clone.rglob('*'): os.utime(p, (0, 0)) # older than the environment, which must not be made anew from the copy
    (clone/'nbs').mkdir()
    (clone/'nbs'/CHAPTER).write_text(json.dumps(short_notebook()), encoding='utf-8')
    shutil.copy2(ROOT/'nbs'/'00_alphabet.ipynb', clone/'nbs')
    shutil.copytree(ROOT/'nbs'/'runs', clone/'nbs'/'runs')
    (clone/'.venv').symlink_to(ROOT/'.venv')
    args = f'--no-browser --port={port} --IdentityProvider.token=test --LabApp.expose_app_in_browser=True --LabApp.workspaces_dir={folder} --ServerApp.root_dir={clone}'
    log = open(folder/'lab.log', 'w')
    server = subprocess.Popen(['make', 'lab', f'ARGS={args}'], cwd=clone, stdout=log, stderr=log, start_new_session=True,
                              env={k: v for k, v in os.environ.items() if k != 'CRNN_NB_BOOK'} | {'JUPYTER_CONFIG_DIR': str(folder/'config')})
    try:
        for _ in range(120):
            try: urllib.request.urlopen(f'http://127.0.0.1:{port}/api?token=test', timeout=1); break
            except OSError: time.sleep(0.5)
            assert server.poll() is None, (folder/'lab.log').read_text()[-2000:]
        else: raise AssertionError((folder/'lab.log').read_text()[-2000:])
        yield f'http://127.0.0.1:{port}/lab/tree/nbs/{CHAPTER}?token=test'
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
        log.close()


@pytest.fixture(scope='module')
def notebook(browser, lab):
    "The notebook, open and run."
    page = browser.new_page(viewport={'width': 1500, 'height': 1200})
    page.asked, page.said = [], []
    page.on('request', lambda r: page.asked.append(r.url) if not r.url.startswith(('http://127.0.0.1', 'ws://127.0.0.1', 'data:', 'blob:')) else None)
    page.on('pageerror', lambda e: page.said.append(str(e)))
    page.goto(lab, wait_until='domcontentloaded', timeout=120_000)
    page.wait_for_selector('.jp-Notebook .jp-Cell', timeout=60_000)
    page.wait_for_function('() => {' + PANEL + "return panel && panel.sessionContext.session?.kernel?.status === 'idle'}", timeout=60_000)
    page.click('text="Run"')
    page.click('.lm-Menu-itemLabel:text-is("Run All Cells")')
    deadline = time.time() + 180
    while time.time() < deadline:
        got = page.evaluate('() => {' + PANEL + '''
            const code = panel.content.widgets.map(w => w.model);
            return {run: code.filter(m => m.executionCount).length, all: code.length,
                    errors: code.flatMap(m => m.outputs.toJSON().filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue))};}''')
        if got['run'] == got['all'] or got['errors']: break
        time.sleep(.5)
    assert got['errors'] == [] and got['run'] == got['all'], got
    yield page
    page.close()


PANEL = "const panel = [...window.jupyterapp.shell.widgets('main')].find(w => w.sessionContext);"


class Hand:
    "One explorer in the notebook, and what a hand can do with it."
    def __init__(self, page, name):
        self.page, i = page, EXPLORERS.index(name) + 1
        page.evaluate('i => {' + PANEL + 'panel.content.activeCellIndex = i; return panel.content.scrollToItem(i, "start")}', i)
        self.cell = page.locator(f'.jp-Notebook .jp-CodeCell[data-windowed-list-index="{i}"]')
        self.picture.wait_for(timeout=30_000)

    @property
    def picture(self): return self.cell.locator('.jp-OutputArea-output img').first
    def words(self): return self.cell.locator('.jp-OutputArea-output').inner_text()
    def control(self, label): return self.cell.locator('.widget-inline-hbox', has=self.page.locator(f'label:text-is("{label}"), .widget-label:text-is("{label}")'))
    def pixels(self):
        "The picture that is shown: it must have been loaded, and have a size."
        return self.picture.evaluate('''async img => { try { await img.decode() } catch { return "" }; const c = document.createElement("canvas"); c.width = img.naturalWidth; c.height = img.naturalHeight;
                                        c.getContext("2d").drawImage(img, 0, 0); return img.getBoundingClientRect().width > 100 ? c.toDataURL() : "" }''')
    def settled(self, timeout=20):
        "The picture, once it has come to rest."
        deadline, last = time.time() + timeout, None
        while time.time() < deadline:
            now = self.pixels()
            if now and now == last: return now
            last = now
            time.sleep(.3)
        raise AssertionError('the picture does not come to rest')
    def type(self, label, text):
        box = self.control(label).locator('input[type=text], textarea').first
        box.fill(text)
        box.press('Enter')
        box.blur()
    def press(self, label, key, times=1):
        "Keys on a slider's handle."
        handle = self.control(label).locator('.noUi-handle').first
        for _ in range(times): handle.press(key)
    def choose(self, label, option): self.control(label).locator('select').select_option(label=option)
    def click(self, label): self.cell.locator(f'button:has-text("{label}")').first.click()
    def tick(self, label): self.cell.locator('.widget-checkbox', has_text=label).locator('input').click()
    def drag(self, start, stop):
        "Press on the picture, move, release; places in shares of width and height."
        self.picture.scroll_into_view_if_needed()
        r = self.picture.bounding_box()
        at = lambda p: (r['x'] + p[0]*r['width'], r['y'] + p[1]*r['height'])
        self.page.mouse.move(*at(start))
        self.page.mouse.down()
        self.page.mouse.move(*at(stop), steps=4)
        self.page.mouse.up()

    def changes(self, act, says=None, timeout=20):
        "Do something; the picture must change, and the words must come to hold `says`."
        before = self.settled()
        act()
        deadline = time.time() + timeout
        while time.time() < deadline:
            now = self.pixels()
            if now and now != before and (says is None or says in self.words()): return
            time.sleep(.1)
        raise AssertionError(f'picture changed: {self.pixels() != before}; looked for {says!r} in {self.words()!r}')


@pytest.fixture
def hand(notebook, request):
    h = Hand(notebook, request.param)
    yield h
    folder = os.environ.get('CRNN_NB_SCREENSHOTS')
    if not folder: return
    for theme in 'Light', 'Dark':
        notebook.evaluate(f"() => window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})")
        notebook.wait_for_timeout(1500)
        h = Hand(notebook, request.param)
        notebook.screenshot(path=f'{folder}/{request.param.replace("(", "-")}-{theme.lower()}.png')
    notebook.evaluate("() => window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})")
    notebook.wait_for_timeout(1000)


def with_hand(name): return pytest.mark.parametrize('hand', [name], indirect=True)


@with_hand('explore_shapes')
def test_shapes(hand):
    hand.changes(lambda: hand.type('word', 'llama'), "'llama' needs 6")
    hand.changes(lambda: hand.press('img_width', 'ArrowLeft', 10), "needs 6 frames, the picture has 5")
    hand.changes(lambda: hand.press('img_height', 'ArrowRight'), 'do not halve')


@with_hand('explore_lattice')
def test_lattice(hand):
    hand.changes(lambda: hand.type('word', 'aab'), 'between equal letters cannot be skipped')
    hand.changes(lambda: hand.choose('probabilities', 'even'), '3,003 alignments of \'aab\' over 12 frames')
    hand.changes(lambda: hand.click('forward'), 'Look at the front')
    hand.changes(lambda: hand.press('frame', 'ArrowRight', 2))
    hand.changes(lambda: hand.drag((.5, .05), (.5, .01)))
    before = hand.words()
    hand.changes(lambda: hand.click('as it was'))
    assert hand.words() != before
    hand.changes(lambda: hand.press('frames T', 'ArrowLeft', 9), 'its loss is infinite')


@with_hand('explore_decoders')
def test_decoders(hand):
    hand.changes(lambda: hand.choose('emissions', 'ha or hah'), 'the most probable text is ha')
    hand.changes(lambda: hand.press('frame', 'ArrowLeft'))
    hand.changes(lambda: hand.press('beam_size', 'ArrowLeft', 2), 'of the prefix beam')
    hand.changes(lambda: hand.press('beam_size', 'ArrowRight', 3))
    hand.changes(lambda: hand.drag((.5, .05), (.5, .0)))
    hand.tick('lexicon')
    hand.changes(lambda: hand.type('words', 'ahh'), 'ahh')


@with_hand('explore_drawing')
def test_drawing(hand):
    hand.changes(lambda: hand.type('text', 'letters'))
    hand.changes(lambda: hand.press('tilt', 'ArrowRight', 30))
    hand.cell.locator('.lm-TabBar-tab:has-text("camera")').click()
    hand.changes(lambda: hand.press('blur', 'ArrowRight', 60))
    hand.changes(lambda: hand.click('plain'), 'letters')
    hand.click('what breaks it?')
    hand.cell.locator('text=of its way').first.wait_for(timeout=60_000)
    hand.changes(lambda: hand.click('by chance, hard'))


@with_hand('explore_training(recorded')
def test_training_again(hand):
    hand.changes(lambda: hand.press('images seen', 'Home'), 'after 0 images')
    hand.changes(lambda: hand.press('images seen', 'PageUp'))
    hand.changes(lambda: hand.click(''), 'images')


@with_hand('explore_training(Training')
def test_training_live(hand):
    assert 'not started' in hand.words()
    hand.changes(lambda: hand.click('start'), 'running', timeout=120)
    hand.click('pause')
    hand.cell.locator('text=paused').first.wait_for(timeout=60_000)
    still = hand.settled()
    time.sleep(2)
    assert hand.pixels() == still
    hand.changes(lambda: hand.click('start'), 'running', timeout=60)
    hand.click('stop')
    hand.cell.locator('text=stopped, with a checkpoint').first.wait_for(timeout=60_000)


@with_hand('explore_picture')
def test_picture(hand, tmp_path):
    import cv2
    from crnn_nb.synth import draw_word
    hand.changes(lambda: hand.choose('a drawn one', 'drawn 2'))
    cv2.imwrite(str(tmp_path/'upload.png'), draw_word('upload', size=26))
    def choose_file():
        with hand.page.expect_file_chooser() as chooser: hand.click('a file')
        chooser.value.set_files(tmp_path/'upload.png')
    hand.changes(choose_file, 'upload')
    paper = hand.cell.locator('canvas')
    paper.scroll_into_view_if_needed()
    def write():
        "A capital L and I, twice, with the mouse."
        r = paper.bounding_box()
        for stroke in ([(.1, .2), (.1, .8), (.25, .8)], [(.35, .2), (.35, .8)], [(.5, .2), (.5, .8), (.65, .8)], [(.75, .2), (.75, .8)]):
            points = [(r['x'] + x*r['width'], r['y'] + y*r['height']) for x, y in stroke]
            hand.page.mouse.move(*points[0])
            hand.page.mouse.down()
            for p in points[1:]: hand.page.mouse.move(*p, steps=5)
            hand.page.mouse.up()
    hand.changes(write)
    drop = """async (canvas, code) => {
        const bytes = Uint8Array.from(atob(code), c => c.charCodeAt(0)), data = new DataTransfer();
        data.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
        canvas.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})); }"""
    code = base64.b64encode(cv2.imencode('.png', draw_word('dropped', size=26))[1].tobytes()).decode()
    hand.changes(lambda: paper.evaluate(drop, code), 'dropped')
    broken = base64.b64encode(b'dear diary').decode()
    paper.evaluate(drop, broken)
    hand.cell.locator('text=dropped.png').first.wait_for(timeout=20_000)


def test_nothing_was_asked_of_another_host_and_nothing_failed(notebook):
    assert notebook.asked == [] and notebook.said == []


def test_a_player_moves_on_a_page_without_a_kernel(browser):
    from crnn_nb.widgets import ShapesScene, player, shapes_view
    page = browser.new_page()
    page.set_content(str(player(ShapesScene(), [shapes_view(img_width=x) for x in (40, 60, 100)], ['forty', 'sixty', 'a hundred'], 'shapes'))*2)
    first = page.locator('.crnn-player').first
    assert first.locator('img:visible').get_attribute('title') == 'forty' and first.locator('output').inner_text() == 'forty'
    first.locator('input').press('ArrowRight')
    assert first.locator('img:visible').get_attribute('title') == 'sixty' and first.locator('output').inner_text() == 'sixty'
    first.locator('button').click()
    first.locator('img[title="a hundred"]:visible').wait_for(timeout=10_000)
    first.locator('button').click()
    assert page.locator('.crnn-player').nth(1).locator('img:visible').get_attribute('title') == 'forty' # each by itself
    page.close()
