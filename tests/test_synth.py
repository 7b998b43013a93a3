"""Words drawn by the book: repeatable, labelled rightly, split by word, written whole."""
import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from crnn_nb import synth
from crnn_nb.synth import (DEFAULT, HARD, WILD, LETTERS, ORDER, SPLITS, Dial, Ranges, Style, SynthError, SynthWords, char_boxes, default_data_dir,
                           draw_word, ensure_words, font_problem, fonts, lexicon, random_style, random_text, split_of, write_synth90k)

settings.register_profile('synth', deadline=None, max_examples=20, derandomize=True)
settings.load_profile('synth')

DIALS = {f.name: (f.default, f.metadata['low'], f.metadata['high']) for f in fields(Style) if f.metadata}
QUIET = ('shadow_angle', 'shadow_blur', 'shading_angle', 'motion_angle') # they turn something that another dial switches on
words = st.text(LETTERS, min_size=1, max_size=12)


def python(code, **env):
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=os.environ | env)


# -- drawing ------------------------------------------------------------------------------------------------------------------------

@given(words, st.lists(st.tuples(st.sampled_from(sorted(DIALS)), st.floats(0, 1)), max_size=6), st.sampled_from((16, 32, 48)), st.integers(0, 21))
def test_any_text_in_any_style_is_a_picture(text, turned, height, face):
    dials = {name: DIALS[name][1] + t*(DIALS[name][2] - DIALS[name][1]) for name, t in turned}
    style = Style(font=fonts()[face], height=height, **dials)
    img = draw_word(text, style)
    assert img.dtype == np.uint8 and img.ndim == 3 and img.shape[0] == height and img.shape[2] == 3 and img.shape[1] >= 4
    assert np.array_equal(img, draw_word(text, style))


@pytest.mark.parametrize('name', sorted(set(DIALS) - set(QUIET)))
@pytest.mark.parametrize('end', (1, 2))
def test_each_dial_changes_the_picture_and_only_when_turned(name, end):
    neutral, value = DIALS[name][0], DIALS[name][end]
    style = Style(bg=(220, 200, 180), left=.5, right=.5, top=.4, bottom=.4, seed=5)
    rest = draw_word('Harbour', style)
    same = draw_word('Harbour', style, **({name: neutral} if name not in ('left', 'right', 'top', 'bottom') else {}))
    assert np.array_equal(rest, same)
    if value == neutral: return
    img = draw_word('Harbour', style, **{name: value})
    assert img.shape != rest.shape or abs(img.astype(int) - rest).max() > 8


@pytest.mark.parametrize('name, on', [('shadow_angle', dict(shadow=.2)), ('shadow_blur', dict(shadow=.2)), ('shading_angle', dict(shading=.8)), ('motion_angle', dict(motion=.3))])
def test_a_quiet_dial_needs_the_other(name, on):
    value = DIALS[name][2] if name == 'shadow_blur' else 100
    assert np.array_equal(draw_word('Harbour', **{name: value}), draw_word('Harbour'))
    assert not np.array_equal(draw_word('Harbour', **{name: value}, **on), draw_word('Harbour', **on))


def test_every_step_is_there_and_every_dial_has_an_effect():
    assert set(synth.STEPS) == set(ORDER)
    geometry = {'stretch', 'spacing', 'slant', 'tilt', 'perspective', 'pitch', 'curve', 'left', 'right', 'top', 'bottom', 'caps', 'unrest', 'wave'}
    assert set(DIALS) == geometry | set(QUIET) | (set(ORDER) - {'ground', 'letters', 'pixels'})


def test_one_dial_leaves_the_chance_of_another_alone():
    grain = lambda **d: draw_word('a', Style(bg=(128, 128, 128), fg=(128, 128, 128), noise=20, seed=3), **d).astype(int)
    assert np.array_equal(grain(), grain(wear=.5)) and np.array_equal(grain(), grain(neighbours=.2))
    assert not np.array_equal(grain(), grain(seed=4))


def test_colours_and_size():
    img = draw_word('IIIII', Style(fg=(200, 10, 30), bg=(20, 60, 240), font=fonts()[1], height=64))
    assert (img[0, 0] == (20, 60, 240)).all()
    assert abs(img.reshape(-1, 3).astype(int) - (200, 10, 30)).sum(1).min() == 0
    ink = np.nonzero((draw_word('Hm', size=20, height=40) < 128).any((1, 2)))[0]
    assert abs(np.ptp(ink) + 1 - 20) <= 1 and abs(ink.mean() - 19.5) <= 1.5


def test_lengths_are_in_letter_heights():
    style = Style(border=.06, border_color=(90, 90, 90), shadow=.15, blur=.05, tilt=6, curve=20, spacing=.1)
    small, large = draw_word('Harbour', style), draw_word('Harbour', style, height=128)
    shrunk = cv2.resize(large, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert abs(shrunk.astype(float) - small).mean() < 255*.06


@given(words, st.floats(-15, 15), st.floats(-60, 60), st.floats(-.4, .4), st.floats(-.4, .4), st.floats(.7, 1.5))
def test_boxes_hold_the_ink_and_nothing_else_does(text, tilt, curve, perspective, pitch, stretch):
    style = Style(tilt=tilt, curve=curve, perspective=perspective, pitch=pitch, stretch=stretch, height=64, left=.3, right=.3, top=.3, bottom=.3)
    ink, boxes = draw_word(text, style)[..., 0] < 100, char_boxes(text, style)
    assert boxes.shape == (len(text), 4) and (boxes[:, 2] > boxes[:, 0]).all() and (boxes[:, 3] > boxes[:, 1]).all()
    outside = ink.copy()
    for left, top, right, bottom in boxes:
        part = np.s_[max(0, int(top) - 2):int(bottom) + 3, max(0, int(left) - 2):int(right) + 3]
        assert ink[part].any()
        outside[part] = False
    assert not outside.any()
    assert (np.diff(boxes[:, [0, 2]].mean(1)) > 0).all() or abs(curve) > 30


@given(st.floats(.5, 50), st.booleans(), st.lists(st.floats(-1, 1), min_size=1, max_size=8))
def test_straightening_undoes_bending(r, down, points):
    r = -r if down else r
    x, y = np.array(points)*abs(r)*.9, np.array(points[::-1])*min(1, abs(r)*.7)
    assert np.allclose(synth._straighten(*synth._bend(x, y, r), r), (x, y), atol=1e-7)


def test_a_mild_style_in_numbers():
    plain = draw_word('Harbour')
    assert plain.shape == draw_word('Harbour', fade=.5).shape
    assert np.ptp(draw_word('Harbour', fade=.5)) < .55*np.ptp(plain)
    assert draw_word('Harbour', shading=.9)[:, -5:].mean() < .4*draw_word('Harbour', shading=.9)[:, :5].mean()
    assert draw_word('Harbour', shading=.9, shading_angle=90)[-3:].mean() < .4*draw_word('Harbour', shading=.9, shading_angle=90)[:3].mean()
    assert (draw_word('Harbour', weight=.05) < 128).sum() > (plain < 128).sum() > (draw_word('Harbour', weight=-.02) < 128).sum()
    assert draw_word('Harbour', spacing=.3).shape[1] > plain.shape[1] > draw_word('Harbour', stretch=.7).shape[1]
    leaning = lambda **d: np.polyfit(*np.nonzero(draw_word('llllllll', height=96, **d)[..., 0] < 100)[::-1], 1)[0]
    assert leaning(tilt=10) < -.1 < leaning() < .1 < leaning(tilt=-10)
    columns = lambda **d: [(draw_word('HHHHHHH', height=96, **d)[:, s, 0] < 100).any(1).sum() for s in (np.s_[:60], np.s_[-60:])]
    assert columns(perspective=.5)[0] < columns(perspective=.5)[1]


# -- errors -------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', sorted(DIALS))
@pytest.mark.parametrize('beyond', ('low', 'high', 'nan', 'text'))
def test_a_dial_out_of_range_names_itself_and_its_range(name, beyond):
    _, low, high = DIALS[name]
    value = dict(low=low - 1, high=high + 1, nan=float('nan'), text='much')[beyond]
    with pytest.raises(SynthError, match=rf'{name}=.* is out of range: a number from {low:g} to {high:g}'): Style(**{name: value})


@pytest.mark.parametrize('kwargs, message', [
    (dict(height=4), 'height=4 is out of range'), (dict(size=2), 'size=2 is out of range'), (dict(fg=(0, 0)), r'fg=\(0, 0\) is no colour'),
    (dict(bg=(0, 0, 256)), 'bg=.* is no colour')])
def test_other_fields_out_of_range(kwargs, message):
    with pytest.raises(SynthError, match=message): Style(**kwargs)


@pytest.mark.parametrize('text, message', [
    ('', 'at least one visible character'), ('   ', 'at least one visible character'), (None, 'got None'), ('木x', "no glyph for '木'"),
    ('a\tb', r"no glyph for '\\t'"), ('a'*3000, 'at most 16000 can be drawn')])
def test_texts_that_cannot_be_drawn(text, message):
    with pytest.raises(SynthError, match=message): draw_word(text)


def test_spaces_and_accents_can_be_drawn():
    assert draw_word('a b').shape[1] > draw_word('ab').shape[1]
    assert char_boxes('a b').shape == (3, 4)
    draw_word('Café£9.99')


def test_unreadable_fonts(tmp_path):
    whole = Path(fonts()[0]).read_bytes()
    for name, data in ('empty.ttf', b''), ('text.ttf', b'not a font'), ('cut.ttf', whole[:3000]):
        (tmp_path/name).write_bytes(data)
        with pytest.raises(SynthError, match=f'cannot read .*{name}.* as a font file'): draw_word('word', font=str(tmp_path/name))
        assert font_problem(str(tmp_path/name)) == 'cannot be read'
    with pytest.raises(SynthError, match='no-such.ttf'): draw_word('word', font='no-such.ttf')


def test_fonts():
    assert len(fonts()) == len(set(fonts())) == 22 and not any(map(font_problem, fonts()))
    assert fonts(every=True)[:22] == fonts() and len(fonts(every=True)) > 60
    more = fonts(system=True)
    assert more[:22] == fonts() and not any(map(font_problem, more[22:]))
    folder = Path(fonts()[0]).parent
    assert 'something other than letters' in font_problem(str(folder/'LastResortHE-Regular.ttf'))
    assert 'something other than letters' in font_problem(str(folder/'cmsy10.ttf'))
    assert 'no glyph' in font_problem(str(folder/'STIXSizOneSymReg.ttf'))


def test_a_missing_font_package_is_named(monkeypatch):
    synth._bundled.cache_clear()
    find = synth.importlib.util.find_spec
    monkeypatch.setattr(synth.importlib.util, 'find_spec', lambda name: None if name == 'font_lato' else find(name))
    try:
        with pytest.raises(SynthError, match='pip install font-lato'): fonts()
    finally: synth._bundled.cache_clear()


# -- distributions ------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('ranges', (DEFAULT, HARD), ids=('DEFAULT', 'HARD'))
def test_styles_stay_in_their_ranges(ranges):
    seen = {name: [] for name in DIALS}
    for i in range(400):
        style = random_style(np.random.default_rng(i), ranges)
        for name in DIALS: seen[name].append(getattr(style, name))
        luma = lambda c: sum(k*v for k, v in zip((.299, .587, .114), c))/255
        ground = style.plaque_color if style.plaque else style.bg
        ink = style.border_color if style.fg == ground else style.fg
        assert abs(luma(ink) - luma(ground)) > .5*ranges.contrast[0] - .02
    for name, values in seen.items():
        values, neutral = np.array(values), DIALS[name][0]
        on = values[values != neutral]
        if name not in ranges.dials: assert not len(on) or name == 'border'
        else:
            d = ranges.dials[name]
            assert abs(len(on)/len(values) - d.p) < .1 and (name == 'border' or on.max() <= d.high)
            assert on.min() >= d.low or name in ('noise', 'texture', 'stripes', 'border')


def test_ranges_survive_json_and_scale():
    for r in (DEFAULT, HARD, WILD, Ranges()): assert Ranges.from_dict(json.loads(json.dumps(r.to_dict()))) == r
    easy = HARD.scaled(0)
    style = random_style(np.random.default_rng(0), replace(easy, hollow=0.))
    assert all(getattr(style, n) == DIALS[n][0] for n in DIALS if n not in ('noise', 'texture', 'stripes'))
    for name, d in HARD.scaled(1).dials.items(): assert (d.p, d.low, d.high) == pytest.approx((HARD.dials[name].p, HARD.dials[name].low, HARD.dials[name].high))
    assert HARD.scaled(.5).dials['stretch'].low == pytest.approx((1 + HARD.dials['stretch'].low)/2)


def test_ranges_refuse_what_no_style_takes():
    with pytest.raises(SynthError, match="'titl' is no dial"): Ranges(dials=dict(titl=Dial(1, 0, 1)))
    with pytest.raises(SynthError, match='leaves its limits'): Ranges(dials=dict(tilt=Dial(1, 0, 90)))
    with pytest.raises(SynthError, match='leaves its limits'): Ranges(dials=dict(tilt=Dial(1, 5, -5)))
    with pytest.raises(SynthError, match='lengths'): Ranges(lengths=(5, 3))


# -- words --------------------------------------------------------------------------------------------------------------------------

GOLDEN = {'harbour': 'train', 'tides': 'train', '1984': 'train', 'abatis': 'val', 'creese': 'val', 'heteronym': 'val', 'aam': 'test',
          'corneule': 'test', 'groundsill': 'test'}


def test_splits_are_told_by_the_word_alone_and_for_ever():
    assert {w: split_of(w) for w in GOLDEN} == GOLDEN
    sets = {s: set(lexicon(s)) for s in SPLITS}
    assert not sets['train'] & sets['val'] and not sets['train'] & sets['test'] and not sets['val'] & sets['test']
    assert sorted(set().union(*sets.values())) == lexicon()
    for s in ('val', 'test'): assert .04 < len(sets[s])/len(lexicon()) < .06
    with pytest.raises(SynthError, match="split='dev'"): lexicon('dev')


def test_words_fit_the_network():
    for w in lexicon():
        assert re.fullmatch('[a-z]{3,12}', w)
        assert len(w) + sum(a == b for a, b in zip(w, w[1:])) <= 24


@given(st.integers(0, 10**6), st.sampled_from(SPLITS), st.sampled_from((DEFAULT, HARD)))
def test_a_text_belongs_to_its_split(seed, split, ranges):
    text = random_text(np.random.default_rng(seed), split, ranges)
    assert split_of(text) == split and set(text) <= set(LETTERS) and min(3, ranges.lengths[0]) <= len(text) <= ranges.lengths[1]


def test_what_is_written_follows_the_shares():
    texts = [SynthWords('train').text(i) for i in range(1500)]
    digits = [t for t in texts if t.isdigit()]
    letters = [t for t in texts if t.isalpha()]
    assert len(digits) + len(letters) == len(texts) and abs(len(digits)/len(texts) - DEFAULT.digits) < .03
    for share, kind in zip(DEFAULT.cases, (str.islower, str.isupper, str.istitle)): assert abs(sum(map(kind, letters))/len(letters) - share) < .05


# -- the sequence -------------------------------------------------------------------------------------------------------------------

def test_a_word_depends_on_seed_and_index_alone():
    a, b = SynthWords('train', 100, seed=3), SynthWords('train', 50, seed=3)
    want = a[7]
    for i in (0, 9, 3): b[i]
    assert b[7][1] == want[1] == a.text(7) and np.array_equal(b[7][0], want[0])
    assert a[-93][1] == want[1]
    assert a.plan(7) != SynthWords('train', 100, seed=4).plan(7)
    assert a.plan(7)[1] != SynthWords('val', 100, seed=3).plan(7)[1]
    assert np.array_equal(draw_word(*a.plan(7)), want[0])


def test_another_process_draws_the_same():
    code = "import hashlib; from crnn_nb.synth import *; w = SynthWords('test', seed=2, ranges=HARD); " \
           "print(hashlib.sha256(b''.join(w[i][0].tobytes() for i in (5, 90, 2))).hexdigest())"
    w = SynthWords('test', seed=2, ranges=HARD)
    here = hashlib.sha256(b''.join(w[i][0].tobytes() for i in (5, 90, 2))).hexdigest()
    assert python(code, PYTHONHASHSEED='7').stdout.strip() == here


def test_it_ends_like_a_list():
    w = SynthWords('val', 3)
    assert len(list(w)) == len(w) == 3
    with pytest.raises(IndexError, match='word 3 of 3'): w[3]
    with pytest.raises(SynthError, match="split='dev'"): SynthWords('dev')
    with pytest.raises(SynthError, match='negative'): SynthWords(seed=-1)


# -- the folder ---------------------------------------------------------------------------------------------------------------------

FEW = dict(n_train=23, n_val=4, n_test=5, progress=False)
LINE = re.compile(r'\./((\d+)/(\d+)/(\d+)_([^_/]+)_(\d+)\.jpg) (\d+)')


def digest(root): return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob('*') if p.is_file()}


@pytest.fixture(scope='module')
def folder(tmp_path_factory): return write_synth90k(tmp_path_factory.mktemp('synth')/'words', **FEW)


def check_layout(root, counts):
    words = (root/'lexicon.txt').read_text().splitlines()
    for (split, n) in counts.items():
        lines = (root/f'annotation_{split}.txt').read_text().splitlines()
        assert len(lines) == n
        for line in lines:
            path, a, b, k, text, index, again = LINE.fullmatch(line).groups()
            assert index == again and words[int(index)] == text.lower()
            yield split, text, root/path


def test_the_layout_is_that_of_synth90k(folder):
    drawn = {s: SynthWords(s, n) for s, n in zip(SPLITS, (23, 4, 5))}
    pictures = list(check_layout(folder, dict(train=23, val=4, test=5)))
    for split in SPLITS: assert [t for s, t, _ in pictures if s == split] == [t for _, t in drawn[split]]
    for split, text, path in pictures:
        assert cv2.imread(str(path)).shape[0] == 32 and split_of(text) == split
    first = cv2.imread(str(pictures[0][2]))[..., ::-1]
    assert abs(first.astype(int) - drawn['train'][0][0]).mean() < 6


@pytest.mark.skipif('CRNN_NB_SYNTH90K' not in os.environ, reason='CRNN_NB_SYNTH90K names no folder of genuine Synth90k images')
def test_the_genuine_layout_passes_the_same_check():
    root = Path(os.environ['CRNN_NB_SYNTH90K'])
    counts = {s: len((root/f'annotation_{s}.txt').read_text().splitlines()) for s in SPLITS}
    assert list(check_layout(root, counts))


@pytest.mark.parametrize('workers', (1, 3))
def test_the_same_files_from_any_number_of_workers(folder, tmp_path, workers):
    assert digest(write_synth90k(tmp_path/'again', workers=workers, **FEW)) == digest(folder)


def test_seed_and_ranges_make_other_files(folder, tmp_path):
    for i, other in enumerate((dict(seed=1), dict(ranges=HARD))): assert digest(write_synth90k(tmp_path/str(i), **FEW, **other)) != digest(folder)


def test_numbered_folders_hold_500_pictures_each():
    places = synth._plan((7000, 500, 1), 0, DEFAULT, 32)[1]
    assert places[0][2:] == ('1/1', 1) and places[499][2:] == ('1/1', 500) and places[500][2:] == ('1/2', 1)
    assert places[3500][2:] == ('2/1', 1) and places[7000][:2] == ('val', 0) and places[7500][:2] == ('test', 0)
    assert len({p[2:] for p in places}) == 7501


def test_a_folder_that_holds_something_is_not_touched(folder, tmp_path):
    before = digest(folder)
    with pytest.raises(SynthError, match='not empty; name a new folder'): write_synth90k(folder, **FEW)
    assert digest(folder) == before
    (tmp_path/'file').write_text('mine')
    with pytest.raises(SynthError, match='not empty'): write_synth90k(tmp_path/'file', **FEW)
    assert (tmp_path/'file').read_text() == 'mine'
    (tmp_path/'empty').mkdir()
    assert len(digest(write_synth90k(tmp_path/'empty', **FEW))) == len(before)


@pytest.mark.parametrize('error', (KeyboardInterrupt, OSError('disk full')))
def test_stopped_half_way_it_leaves_nothing(tmp_path, monkeypatch, error):
    def stops(**job):
        yield from list(synth_draw_part(**job))[:5]
        raise error
    synth_draw_part = synth._draw_part
    monkeypatch.setattr(synth, '_draw_part', stops)
    with pytest.raises((KeyboardInterrupt, OSError)): write_synth90k(tmp_path/'words', **FEW)
    assert not list(tmp_path.iterdir())


def test_a_worker_that_fails_says_why_and_leaves_nothing(tmp_path):
    with pytest.raises(SynthError, match="drawing process failed.*cannot read 'no-such.ttf'"):
        write_synth90k(tmp_path/'words', **FEW, workers=2, ranges=Ranges(faces=('no-such.ttf',)))
    assert not list(tmp_path.iterdir())


def test_a_place_taken_meanwhile_stays_as_it_is(tmp_path, monkeypatch):
    whole = synth._draw_all
    def slow(*args):
        whole(*args)
        (tmp_path/'words').mkdir()
        (tmp_path/'words'/'mine').touch()
    monkeypatch.setattr(synth, '_draw_all', slow)
    with pytest.raises(SynthError, match='cannot be put in place'): write_synth90k(tmp_path/'words', **FEW)
    assert [p.name for p in tmp_path.iterdir()] == ['words'] and [p.name for p in (tmp_path/'words').iterdir()] == ['mine']


# -- the embedded default -----------------------------------------------------------------------------------------------------------

def test_ensure_words_draws_once_and_leaves_words_alone(tmp_path, capsys):
    few = FEW | dict(progress=True)
    root = ensure_words(tmp_path/'new'/'words', workers=1, **few)
    assert 'drawing them' in capsys.readouterr().err
    (root/'annotation_val.txt').unlink()
    before = digest(root)
    assert ensure_words(root, **few) == root and digest(root) == before and not capsys.readouterr().err
    assert [p.name for p in root.parent.iterdir()] == ['words']


def test_ensure_words_refuses_a_folder_of_other_things(tmp_path):
    (tmp_path/'beach.jpg').touch()
    with pytest.raises(SynthError, match='holds files but no annotation_train.txt'): ensure_words(tmp_path, **FEW)
    assert [p.name for p in tmp_path.iterdir()] == ['beach.jpg']


@pytest.mark.parametrize('locks', (True, False))
def test_two_processes_at_once_draw_one_folder(tmp_path, locks):
    code = f"""if 1:
        import contextlib, sys
        from crnn_nb import synth
        if not {locks}: synth._alone = lambda root: contextlib.nullcontext()
        print(synth.ensure_words({str(tmp_path/'words')!r}, n_train=60, n_val=2, n_test=2, workers=1))"""
    both = [subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outs = [p.communicate() for p in both]
    assert [p.returncode for p in both] == [0, 0], outs
    if locks: assert sum('drawing them' in err for _, err in outs) == 1
    assert len(list(check_layout(tmp_path/'words', dict(train=60, val=2, test=2)))) == 64
    assert [p.name for p in tmp_path.iterdir()] == ['words']


def test_the_default_folder_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv('CRNN_NB_DATA', str(tmp_path))
    assert default_data_dir().parent == tmp_path
    before = default_data_dir()
    monkeypatch.setattr(synth, 'DEFAULT', replace(DEFAULT, digits=.2))
    assert default_data_dir() != before
    monkeypatch.delenv('CRNN_NB_DATA')
    assert default_data_dir().parent.name in ('crnn_nb', 'Cache')


def test_importing_it_pulls_nothing_heavy():
    out = python("import sys, crnn_nb.synth; print(sorted({'torch', 'matplotlib', 'tqdm', 'english_words', 'numba', 'IPython'} & set(sys.modules)))")
    assert out.stdout.strip() == '[]', out.stderr


# -- the distribution of the shipped weights ------------------------------------------------------------------------------------------

WILD_HERE = replace(WILD, recorded=False)


def test_the_default_has_the_pixels_it_always_had():
    w = SynthWords('test', seed=2)
    digest = hashlib.sha256(b''.join(w[i][0].tobytes() for i in range(40))).hexdigest()[:16]
    assert digest == '72d6ea1caad59551' and default_data_dir().name == 'words-3-c9d40b'


def test_wild_words_are_drawn_in_any_order_and_their_labels_fit_the_frames():
    pytest.importorskip('wordfreq')
    w = SynthWords('train', seed=7, ranges=WILD_HERE)
    first = [w[i] for i in range(60)]
    for i in (59, 3, 31): assert np.array_equal(first[i][0], w[i][0]) and first[i][1] == w[i][1] == w.text(i)
    labels = [synth.label_of(t) for _, t in first]
    assert all(labels) and all(synth.min_columns(l) <= 24 for l in labels)
    assert any(l != t for l, (_, t) in zip(labels, first)), 'no punctuation in 60 words'
    assert {synth.split_of(l) for l in labels} == {'train'}


def test_no_wild_label_is_in_two_splits():
    pytest.importorskip('wordfreq')
    seen = {s: {synth.label_of(synth.random_text(np.random.default_rng([i, k]), s, WILD_HERE)).lower() for i in range(1500)} for k, s in enumerate(SPLITS)}
    assert not seen['train'] & seen['test'] and not seen['train'] & seen['val'] and not seen['val'] & seen['test']


def test_wild_words_can_be_written_as_a_folder(tmp_path):
    pytest.importorskip('wordfreq')
    from crnn_nb.data import Synth90kDataset
    root = write_synth90k(tmp_path/'wild', 12, 3, 3, seed=3, ranges=WILD_HERE, progress=False)
    words = Synth90kDataset(root, 'train')
    assert len(words) == 12 and all(len(words[i]) == 3 for i in range(12))


def test_missing_faces_say_how_to_install_them(monkeypatch):
    monkeypatch.setattr(synth, 'recorded_faces', lambda: [('/no/such/face.ttf', 1., '0'*12)])
    synth._recorded.cache_clear()
    try:
        with pytest.raises(SynthError, match='(?s)1 of the 1 faces.*face.ttf.*apt-get install'): synth.random_style(np.random.default_rng(0), WILD)
    finally: synth._recorded.cache_clear()


def test_the_faces_on_record_are_named_whole():
    faces = synth.recorded_faces()
    assert len(faces) > 300 and len({p for p, _, _ in faces}) == len(faces) and all(w > 0 and len(d) == 12 for _, w, d in faces)
    assert synth.install_command().startswith('apt-get install') and 'fonts-liberation' in synth.install_command()


@pytest.mark.parametrize('wrong, message', [
    (lambda: Style(height='32'), "height='32' is out of range"), (lambda: Style(height=32.5), 'height=32.5 is out of range'),
    (lambda: Style(size='big'), "size='big' is out of range"), (lambda: Style(fg='red'), "fg='red' is no colour"),
    (lambda: Style(bg=5), 'bg=5 is no colour'), (lambda: Style(fg=('a', 'b', 'c')), 'is no colour'), (lambda: Style(seed=-1), 'seed=-1'),
    (lambda: Style(seed='x'), "seed='x'"), (lambda: SynthWords(ranges='hard'), "ranges='hard': give a Ranges"),
    (lambda: SynthWords(seed=1.5), 'seed=1.5'), (lambda: SynthWords(length='5'), "length='5'"),
    (lambda: Ranges(dials=dict(tilt=Dial(50, 0, 1))), 'tilt is on with p=50'),
    (lambda: write_synth90k(Path(__file__)/'words', 1, 1, 1, progress=False), 'is a file, not a folder'),
    (lambda: ensure_words(Path(__file__)/'words', progress=False), 'is a file, not a folder')])
def test_arguments_of_the_wrong_kind_are_named(wrong, message):
    with pytest.raises(SynthError) as e: wrong()
    assert message in str(e.value)


def test_an_index_is_a_whole_number():
    words = SynthWords('train', 5, seed=2)
    assert np.array_equal(words[np.int64(3)][0], words[3][0]) and words[-2][1] == words[3][1]
    with pytest.raises(TypeError): words[1.5]
