"""Figures: what they hold, that they read well on both pages, that updating equals drawing anew, and what they refuse."""
import io
import subprocess
import sys
from itertools import product

import matplotlib
matplotlib.use('agg')
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from crnn_nb import draw
from crnn_nb.alphabet import Alphabet, collapse
from crnn_nb.draw import (COLORS, INKS, DrawError, confusions, contrast, differences, film, on_pages, set_theme, show_bars, show_confusion, show_curves,
                          show_frames, show_image, show_lattice, show_path, show_spans, show_targets, show_words, show_wrong, theme, update)

settings.register_profile('book', deadline=None)
settings.load_profile('book')

PAGES = '#ffffff', '#1e1e1e', '#111111'
PATH = [2, 2, 0, 3, 3, 3, 0, 3]
PROBS = np.full((8, 4), .04)
PROBS[range(8), PATH] = .88
WORD = np.tile(np.linspace(0, 255, 100).astype(np.uint8), (32, 1))
SMALL = Alphabet('abc')
EMISSION = np.random.default_rng(0).dirichlet(np.full(37, .1), 24)
EVERY = {
    'image': lambda: show_image(WORD, 'title'),
    'words': lambda: show_words([WORD]*3, ['a', 'b', 'c'], ['a', 'x', 'c'], columns=2),
    'frames': lambda: show_frames(PROBS, SMALL, image=WORD, path=PATH, title='title'),
    'emission': lambda: show_frames(EMISSION, Alphabet(), image=WORD, stride=4, offset=3.5),
    'path': lambda: show_path(PATH, SMALL, image=WORD, title='title'),
    'lattice': lambda: show_lattice(PROBS[:, [0, 2, 0, 3, 0, 3, 0]], list('–b–c–c–'), path=[1, 1, 2, 3, 3, 3, 4, 5], image=WORD, title='title'),
    'spans': lambda: show_spans(WORD, [(0, 30, .9), (30, 60, .5)], 'ab', title='title'),
    'targets': lambda: show_targets([[1, 2], [], [3]], SMALL, title='title'),
    'wrong': lambda: show_wrong([WORD]*2, ['letters', 'in'], ['leters', 'in']),
    'confusion': lambda: show_confusion([('letters', 'leters'), ('in', 'ini'), ('a b', 'ab')]),
    'curves': lambda: show_curves({f'curve {k}': np.arange(30.)*k for k in range(1, 7)}, 'x', 'y', levels={'level': 3}, title='title'),
    'bars': lambda: show_bars({'one': 1, 'two': 2}, 'seconds', title='title'),
}


@pytest.fixture(autouse=True)
def closed():
    set_theme('auto')
    yield
    plt.close('all')
    set_theme('auto')
    matplotlib.rcdefaults()
    matplotlib.use('agg')


def pixels(ax):
    fig = ax if isinstance(ax, plt.Figure) else ax.figure
    return np.asarray(draw._render(fig))


# Legible on both pages -------------------------------------------------------------------------------------------------

def test_ink_and_colours_stand_out():
    for c in [INKS['auto'], *COLORS]:
        for page in PAGES: assert contrast(c, page) >= 3, (c, page)
    assert contrast(INKS['light'], '#ffffff') > 7 and contrast(INKS['dark'], '#1e1e1e') > 7
    assert contrast('white', 'black') == 21 and contrast('red', 'red') == 1


@pytest.mark.parametrize('name', EVERY)
def test_every_figure_is_legible_on_both_pages(name):
    out = EVERY[name]()
    fig = out if isinstance(out, plt.Figure) else out.figure
    assert fig.get_facecolor()[3] == 0
    picture = pixels(out)
    assert (picture[..., 3] == 0).mean() > .02
    on_colour = {id(t) for ax in fig.axes for t in ax.texts if t.get_color() in ('black', 'white')}
    inked = [t for t in fig.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible() and id(t) not in on_colour]
    assert inked or name == 'words'
    for t in inked:
        for page in PAGES: assert contrast(t.get_color(), page) >= 3, (t.get_text(), t.get_color())


@pytest.mark.parametrize('name', EVERY)
@pytest.mark.parametrize('mode', ['light', 'dark'])
def test_themes_change_the_page(name, mode):
    set_theme(mode)
    page = np.asarray(matplotlib.colors.to_rgb(theme()['figure.facecolor']))*255
    assert np.allclose(pixels(EVERY[name]())[0, 0, :3], page, atol=1)


def test_settings_are_left_alone():
    matplotlib.rcdefaults()
    plt.rcParams['text.color'] = 'red'
    before = dict(plt.rcParams)
    for f in EVERY.values(): f()
    with pytest.raises(DrawError): show_frames(-PROBS)
    assert dict(plt.rcParams) == before


def test_no_colour_alone():
    ax = EVERY['curves']()
    assert len({str(line._dash_pattern) for line in list(ax.parts['curves'].values())}) == 6
    fig = EVERY['words']()
    right, wrong = fig.axes[0], fig.axes[1]
    assert right.get_title() == '✓ a' and wrong.get_title() == '✗ x\n(b)'
    assert [ax.spines['top'].get_linestyle() for ax in (right, wrong)] == ['solid', '--']


def test_on_pages():
    fig, ax = plt.subplots(figsize=(2, 1), dpi=50, facecolor='none')
    ax.axis('off')
    out = on_pages(ax, ('#ff0000', '#00ff00', '#0000ff'))
    assert out.size == (300, 50) and [out.getpixel((x, 5)) for x in (5, 105, 205)] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert not plt.get_fignums()


def test_files_are_small_and_whole():
    buffer = io.BytesIO()
    EVERY['emission']().figure.savefig(buffer)
    assert len(buffer.getvalue()) < 80_000


# What the figures hold -------------------------------------------------------------------------------------------------

def test_frames_run_right_and_classes_down():
    ax = show_frames(PROBS, SMALL)
    assert np.array_equal(ax.parts['heat'].get_array(), PROBS.T)
    assert [t.get_text() for t in ax.get_yticklabels()] == ['–', 'a', 'b', 'c'] and ax.get_ylim()[0] > ax.get_ylim()[1]
    assert [t.get_text() for t in ax.parts['numbers']][:3] == ['0.04', '0.04', '0.88']


@given(st.integers(1, 30), st.integers(2, 40), st.integers(1, 40), st.integers(0, 10**6))
@settings(max_examples=50)
def test_rows(T, C, top, seed):
    rng = np.random.default_rng(seed)
    p, path = rng.random((T, C)), rng.integers(0, C, T)
    rows = draw._rows(p, top, path)
    assert rows == sorted(set(rows)) and set(path) <= set(rows) and all(0 <= k < C for k in rows)
    if C > top: assert 0 in rows and len(rows) <= max(top, len(set(path) | {0}))
    free = draw._rows(p, top, None)
    if C > top:
        left = [k for k in range(1, C) if k not in free]
        assert all(p[:, k].max() >= p[:, j].max() for k in free if k for j in left)


def test_the_image_is_over_its_frames():
    "Pixel `offset + stride*t` is above the centre of frame t."
    ax = show_frames(EMISSION, image=WORD, stride=4, offset=3.5)
    left, right, _, _ = ax.parts['picture'].get_extent()
    for t in (0, 11, 23):
        pixel = 3.5 + 4*t
        assert abs(left + (pixel + .5)*(right - left)/100 - t) < 1e-9
    ax = show_frames(EMISSION, image=WORD)
    assert ax.parts['picture'].get_extent()[:2] == [-.5, 23.5]


@pytest.mark.parametrize('values', [PROBS, torch.tensor(PROBS), torch.tensor(PROBS, requires_grad=True), PROBS.tolist(), PROBS.astype(np.float32)])
def test_arrays_of_any_origin(values):
    assert np.allclose(show_frames(values).parts['heat'].get_array(), PROBS.T)


def test_logarithms():
    with np.errstate(divide='ignore'): logs = np.log(np.eye(4)[PATH])
    assert np.array_equal(show_frames(logs, log=True).parts['heat'].get_array(), np.eye(4)[PATH].T)


@pytest.mark.parametrize('image', [WORD, np.stack([WORD]*3, -1), np.stack([WORD]*3), torch.tensor(WORD)[None], WORD/255, WORD/127.5 - 1, torch.tensor(WORD/127.5 - 1)[None].float()])
def test_images_of_any_layout(image):
    shown = np.asarray(show_image(image).parts['picture'].get_array())
    grey = shown.mean(-1) if shown.ndim == 3 else shown
    assert np.allclose(grey, WORD/255, atol=1e-6)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20))
@settings(max_examples=15)
def test_path_shows_its_text(path):
    ax = show_path(path, SMALL)
    below = [t.get_text() for t in ax.texts if t.get_position()[1] == .5]
    assert ''.join(below) == SMALL.read(path) and len([t for t in ax.texts if t.get_position()[1] == 1.5]) == len(path)
    plt.close('all')


@given(st.lists(st.integers(1, 2), max_size=3), st.integers(1, 6))
@settings(max_examples=60)
def test_states_of_the_lattice_against_all_paths(labels, T):
    "A circle is drawn where some path that collapses to the labels passes."
    states = [0] + [k for label in labels for k in (label, 0)]
    names = ['–' if k == 0 else 'ab'[k - 1] for k in states]
    on, steps = np.zeros((T, len(states)), bool), set(draw._steps(names))
    for walk in product(range(len(states)), repeat=T):
        if walk[0] < 2 and walk[-1] >= len(states) - 2 and all(s in steps for s in zip(walk, walk[1:])):
            assert collapse([states[s] for s in walk]) == labels
            on[range(T), walk] = True
    assert np.array_equal(draw._useful(T, len(states), draw._steps(names)), on)
    written = {p for p in product(range(3), repeat=T) if collapse(p) == labels} if T <= 5 else None
    if written is not None: assert bool(written) == on.any()


texts = st.text(st.sampled_from('abc'), max_size=8)


@given(texts, texts)
def test_differences(truth, reading):
    pairs = differences(truth, reading)
    assert ''.join(a for a, _ in pairs if a is not None) == truth and ''.join(b for _, b in pairs if b is not None) == reading
    row = list(range(len(reading) + 1))
    for i, a in enumerate(truth, 1):
        row, last = [i] + row[1:], row
        for j, b in enumerate(reading, 1): row[j] = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
    assert sum(a != b for a, b in pairs) == row[-1]
    assert confusions([(truth, reading)]).total() == row[-1]
    assert [(a, b) for a, b in differences(list(truth), list(reading))] == pairs


def test_confusion_counts():
    ax = show_confusion([('ab', 'ax'), ('b', 'x'), ('c', '')])
    assert sorted(t.get_text() for t in ax.texts) == ['1', '2']
    assert show_confusion([('ab', 'ab')]).texts[0].get_text() == 'no errors'
    assert show_confusion([([1, 2], [1, 3])]).get_yticklabels()[0].get_text() == '2'


def test_targets_layout():
    ax = show_targets([[1, 2], [], [3]], SMALL)
    table, strip = [t for t in ax.texts if t.get_position()[1] < 3], [t for t in ax.texts if t.get_position()[1] > 3]
    assert [(t.get_text(), int(t.get_position()[0]), int(t.get_position()[1])) for t in table] == [('a', 0, 0), ('b', 1, 0), ('c', 0, 2)]
    assert [t.get_text() for t in sorted(strip, key=lambda t: t.get_position()[0])] == ['a', 'b', 'c']


# Changing --------------------------------------------------------------------------------------------------------------

NEW = np.roll(PROBS, 1, axis=1)
UPDATES = {
    'frames': (lambda **k: show_frames(**(dict(probs=PROBS, classes=SMALL, image=WORD, path=PATH, title='old') | k)), dict(probs=NEW, path=PATH[::-1], image=255 - WORD, title='new')),
    'many': (lambda **k: show_frames(**(dict(probs=EMISSION, top=[0, 1, 2], path=[0]*24) | k)), dict(probs=EMISSION[::-1], path=[0, 1, 2]*8)),
    'lattice': (lambda **k: show_lattice(**(dict(values=PROBS[:, :3], labels='–a–', numbers=True, path=[0]*7 + [1], title='old') | k)), dict(values=NEW[:, :3], path=[0]*6 + [1]*2, title='new')),
    'path': (lambda **k: show_path(**(dict(path=PATH, classes=SMALL, image=WORD) | k)), dict(path=PATH[::-1], image=255 - WORD)),
    'spans': (lambda **k: show_spans(**(dict(image=WORD, spans=[(0, 30)], text='a') | k)), dict(spans=[(10, 50, .5), (60, 90, .25)], text='bc')),
}


@pytest.mark.parametrize('name', UPDATES)
def test_update_equals_drawing_anew(name):
    make, new = UPDATES[name]
    ax = make()
    pixels(ax)
    assert update(ax, **new) is ax
    fresh = make(**new)
    pixels(fresh) # the layout settles at the second drawing
    assert np.abs(pixels(ax).astype(int) - pixels(fresh).astype(int)).max() <= 2


def test_update_with_logarithms():
    ax = show_frames(PROBS)
    assert np.allclose(update(ax, probs=np.log(NEW), log=True).parts['heat'].get_array(), NEW.T)


@pytest.mark.parametrize('make, new, message', [
    (lambda: show_frames(PROBS), dict(probs=PROBS[:4]), r'shape \(4, 4\), the figure \(8, 4\)'),
    (lambda: show_frames(PROBS), dict(path=PATH), 'path of a figure of kind frames cannot change'),
    (lambda: show_frames(PROBS), dict(image=WORD), 'image of a figure of kind frames cannot change'),
    (lambda: show_frames(PROBS), dict(values=PROBS), 'values of a figure of kind frames cannot change'),
    (lambda: show_frames(PROBS), dict(colour='red'), 'colour of a figure'),
    (lambda: show_frames(EMISSION, top=[0, 1], path=[0]*24), dict(path=[2]*24), 'class 2 of the path is not among the rows'),
    (lambda: show_frames(PROBS, path=PATH), dict(path=[0]), 'path has 1 frames'),
    (lambda: show_frames(PROBS), dict(probs=-PROBS), 'log=True'),
    (lambda: plt.subplots()[1], dict(probs=PROBS), 'hold no figure of this module'),
    (lambda: show_image(WORD), dict(image=WORD), 'hold no figure of this module')])
def test_update_refuses(make, new, message):
    with pytest.raises(DrawError, match=message): update(make(), **new)


def test_film(tmp_path):
    ax = show_frames(np.ones((3, 2))/2, title='start')
    f = film(ax, lambda k: update(ax, probs=np.full((3, 2), k/4)), range(5), seconds=.1, hold=1)
    assert f.steps == 5 and not plt.get_fignums() and f._repr_png_() == f.png
    f.save(tmp_path/'film.png')
    with Image.open(tmp_path/'film.png') as im:
        assert im.size == f.size and im.n_frames == 6
        still = np.asarray(im.convert('RGBA'))
        im.seek(5)
        assert im.info['duration'] == 1000 and np.array_equal(np.asarray(im.convert('RGBA')), still)
    with pytest.raises(DrawError, match='steps is empty'): film(show_image(WORD), print, [])


# Refusals --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('call, message', [
    (lambda: show_frames(np.log(PROBS)), 'Pass log=True'),
    (lambda: show_frames(np.ones((2, 3, 4))), r'probs has shape \(2, 3, 4\)'),
    (lambda: show_frames(np.ones((0, 4))), 'nothing to draw'),
    (lambda: show_frames(PROBS.T, SMALL), '4 names for 8 classes'),
    (lambda: show_frames(PROBS, 'abc'), '3 names for 4 classes: classes must name the blank'),
    (lambda: show_frames(PROBS, path=[1, 2]), 'path has 2 frames, but there are 8'),
    (lambda: show_frames(PROBS, path=[9]*8, top=3), 'class 9 was asked for'),
    (lambda: show_frames(PROBS, top=[0, 7]), 'class 7 was asked for'),
    (lambda: show_frames(np.where(PROBS > .5, np.nan, PROBS)), r'probs\[0, 2\] is nan'),
    (lambda: show_path([]), 'path is empty'),
    (lambda: show_path([4], SMALL), 'path holds class 4'),
    (lambda: show_path([-1]), 'path holds class -1'),
    (lambda: show_path([[1, 2]]), r'path has shape \(1, 2\)'),
    (lambda: show_lattice(PROBS, '–a–b'), '4 states, but n labels make 2n'),
    (lambda: show_lattice(PROBS[:, :3], '–a'), '2 labels for 3 states'),
    (lambda: show_lattice(PROBS[:, :3], '–a–', path=[0]), 'path has 1 frames'),
    (lambda: show_words([]), 'images is empty'),
    (lambda: show_words([WORD], ['a', 'b']), '1 images but 2 texts'),
    (lambda: show_wrong([WORD], ['a'], []), '1 images but 0 readings'),
    (lambda: show_wrong([], [], []), 'images is empty'),
    (lambda: show_image(np.zeros((3, 4, 5, 6))), r'image has shape \(3, 4, 5, 6\)'),
    (lambda: show_image(np.zeros((4, 5, 4))), r'image has shape \(4, 5, 4\)'),
    (lambda: show_image(np.zeros((0, 5))), r'image has shape \(0, 5\)'),
    (lambda: show_image(WORD.astype(float)), 'image holds 255'),
    (lambda: show_spans(WORD, [(1, 2)], 'ab'), "2 characters in 'ab' for 1 spans"),
    (lambda: show_targets([[], []]), 'no label'),
    (lambda: show_curves({}), 'curves is empty'),
    (lambda: show_curves({'loss': ([1, 2], [1, 2, 3])}), 'loss: 2 values of x, 3 of y'),
    (lambda: show_bars({}), 'values is empty'),
    (lambda: set_theme('sepia'), "mode='sepia' is no theme")])
def test_refuses(call, message):
    with pytest.raises(DrawError, match=message): call()
    assert issubclass(DrawError, ValueError)


def test_import_leaves_widgets_out():
    code = 'import sys, crnn_nb.draw; print([m for m in ("torch", "IPython", "ipywidgets", "numba", "cv2") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'


@pytest.mark.parametrize('call, message', [
    (lambda: show_frames(PROBS*9), 'no probability is above 1'),
    (lambda: show_frames([[.1], [.2, .3]]), 'rows of different lengths'),
    (lambda: show_frames(PROBS, path=[-1]*8), 'path holds class -1'),
    (lambda: show_frames(PROBS, path=[.5]*8), 'path holds class 0.5'),
    (lambda: show_frames(PROBS, 4), 'names no classes'),
    (lambda: show_frames(PROBS, top=[]), 'top names no class'),
    (lambda: show_frames(PROBS, image=WORD, stride=0), 'stride=0'),
    (lambda: show_path([np.nan, 1]), 'path holds class nan'),
    (lambda: show_lattice(PROBS[:, :3], None), '0 labels for 3 states'),
    (lambda: show_lattice(PROBS[:, :3], '–a–', path=[9]*8), 'path holds state 9'),
    (lambda: show_image(np.full((3, 4), np.nan)), 'which is no grey value'),
    (lambda: show_image(np.full((3, 4), 3000)), 'whole numbers go from 0 to 255'),
    (lambda: show_words(None), 'must be lists'),
    (lambda: show_spans(WORD, [5]), 'a span is 5'),
    (lambda: show_spans(WORD, [(0, np.nan)]), 'in numbers'),
    (lambda: show_targets([[9]], SMALL), '4 classes have names'),
    (lambda: show_targets([[-1]], SMALL), 'labels[0] holds class -1'),
    (lambda: show_curves([1, 2]), 'each curve has a name'),
    (lambda: show_bars([1, 2]), 'each bar has a name'),
    (lambda: update(show_path([1, 2]), nonsense=3), 'nonsense is no argument')])
def test_what_cannot_be_drawn_is_named(call, message):
    with pytest.raises(DrawError) as e: call()
    plt.close('all')
    assert message in str(e.value)


def test_tensors_of_classes_are_compared_by_value():
    truth, reading = torch.tensor([1, 2, 3]), torch.tensor([1, 4, 3])
    for a, b in product((truth, list(truth), truth.numpy(), truth.tolist()), (reading, list(reading), reading.tolist())):
        assert differences(a, b) == [(1, 1), (2, 4), (3, 3)]


def test_half_precision_is_drawn():
    show_frames(torch.full((3, 3), .25).bfloat16())
    show_image(torch.zeros(1, 32, 100).bfloat16())
    show_words((WORD for _ in range(2)), iter('ab'))
    plt.close('all')
