"The explorers without a browser: what they compute, that pictures depend on the state alone, and what a hand does."
import base64
import json
import re
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from crnn_nb import widgets as w
from crnn_nb.alphabet import Alphabet, collapse
from crnn_nb.data import DataError
from crnn_nb.decode import CharLM, Lexicon, beam_search, prefix_beam_search
from crnn_nb.loss import enumerate_paths, log_prob
from crnn_nb.model import CRNN, layer_table
from crnn_nb.shapes import min_frames
from crnn_nb.synth import Style, draw_word, write_synth90k
from crnn_nb.train import load_checkpoint, train

ROWS = [dict(step=s, images=320*s, lr=.001*s, loss=30./s, blank=1/s, seconds=s, **(dict(valid_loss=31./s, valid_acc=1 - 1/s) if s % 2 else {})) for s in range(1, 12)]
RUN = w.Recording(ROWS, [(320*s, ['', 'a'*s]) for s in range(0, 12, 3)], [np.full((32, 100), 40*k, np.uint8) for k in range(2)], ['b', 'aaa'])

STATES = {
    w.ShapesScene: [w.shapes_view(), w.shapes_view(40, 100), w.shapes_view(32, 4), w.shapes_view(64, 400, 2., word='llama', frame=60), w.shapes_view(32, 28), w.shapes_view(word='')],
    w.LatticeScene: [w.lattice_view('tall'), w.lattice_view('aa', 3), w.lattice_view('aa', 2), w.lattice_view('tall', 12, 'network', 'forward', 5),
                     w.lattice_view('tall', 12, 'sharp', 'backward', 7), w.lattice_view('', 4), w.lattice_view('tall', pulls=(('tall', 12, 'even'), {(3, 0): .9}))],
    w.DecodersScene: [w.decoders_view('two frames', frame=1), w.decoders_view('ha or hah', beam_size=1, frame=3), w.decoders_view('random', seed=4, beam_size=8, frame=6),
                      w.decoders_view('network', seed=52, frame=20), w.decoders_view('ha or hah', lexicon=True, words='ha', frame=2)],
    w.ReadingScene: [w.drawing_view('hello'), w.drawing_view('Hello', heat=True, tilt=30., fg=(200, 0, 0)), w.drawing_view('a'), w.reading_view(np.full((20, 300), 255, np.uint8)), w.picture_view('hard 2')],
    w.TrainingScene: [w.training_view(RUN), w.training_view(RUN, 700), w.training_view(w.Recording()), w.training_view(w.Recording(ROWS[:2]), 0)]}


@pytest.mark.parametrize('kind', list(STATES))
def test_a_picture_depends_on_the_state_alone(kind):
    fresh = [kind().png(view) for view in STATES[kind]]
    assert len(set(fresh)) == len(fresh)
    scene, rng = kind(), np.random.default_rng(0)
    for i in rng.integers(len(fresh), size=4*len(fresh)): assert scene.png(STATES[kind][i]) == fresh[i]


@pytest.mark.parametrize('kind', list(STATES))
def test_nothing_is_written_outside_the_picture(kind):
    "Every text that is shown lies within the figure."
    for view in STATES[kind]:
        scene = kind()
        scene.png(view)
        width, height = scene.fig.canvas.get_width_height()
        renderer = scene.fig.canvas.get_renderer()
        for text in scene.fig.findobj(lambda a: hasattr(a, 'get_text') and a.get_visible() and a.get_text().strip()):
            if text.axes is None or not text.axes.get_visible(): continue
            box = text.get_window_extent(renderer)
            if box.x0 > width or box.x1 < 0: continue # ticks beyond the axes' limits, which are not drawn
            assert box.x0 > -3 and box.x1 < width + 3 and box.y0 > -3 and box.y1 < height + 3, (text.get_text(), box.bounds)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 8), st.integers(2, 60), st.sampled_from([.125, .25, .5]), st.sampled_from([16, 32]))
def test_layers_are_those_of_the_network(rows, columns, net, hidden):
    height, width = 16*rows + 16, 4*columns
    crnn = CRNN(1, height, width, 37, width=net, rnn_hidden=hidden)
    counted = w.layer_rows(height, width, net, hidden)
    assert not any(wrong for _, wrong in counted)
    assert [(r.name, r.shape, r.parameters) for r, _ in counted] == [(r.name, r.shape, r.parameters) for r in layer_table(crnn)]
    view = w.shapes_view(height, width, net, hidden, frame=columns//2)
    assert view['T'] == crnn.num_frames(width) and view['span'] == crnn.frame_span(view['frame'], width)


@pytest.mark.parametrize('size, layer', [((40, 100), 'pooling3'), ((24, 100), 'pooling3'), ((16, 100), 'conv6'), ((32, 4), 'conv6')])
def test_what_cannot_work_is_marked_where_it_breaks(size, layer):
    view = w.shapes_view(*size)
    assert [r.name for r, wrong in view['rows'] if wrong][0] == f'cnn.{layer}' and view['problems'] and view['T'] == 0
    assert '✗' in w.shapes_table(view)


def test_looking_at_shapes_draws_no_random_numbers():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    w.layer_rows(32, 100)
    assert torch.equal(before, torch.get_rng_state())


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 2), max_size=4), st.integers(1, 6))
def test_alignments_are_counted(labels, frames):
    assert w.count_alignments(labels, frames) == len(enumerate_paths(labels, frames, 3))


@settings(deadline=None, max_examples=40)
@given(st.text('abc', min_size=1, max_size=5), st.integers(1, 12), st.sampled_from(['even', 'sharp']), st.integers(0, 2**32 - 1))
def test_lattice_view(word, frames, source, seed):
    rng = np.random.default_rng(seed)
    pulls = {(int(rng.integers(frames)), int(rng.integers(1 + len(set(word))))): float(rng.random()) for _ in range(3)}
    view = w.lattice_view(word, frames, source, pulls=((word, frames, source), pulls))
    assert np.allclose(view['probs'].sum(1), 1)
    last = {t: (k, p) for (t, k), p in pulls.items()}
    for t, (k, p) in last.items(): assert np.isclose(view['probs'][t, k], p)
    with np.errstate(divide='ignore'): assert np.isclose(view['log_prob'], log_prob(np.log(view['probs']), view['labels']))
    assert (view['count'] > 0) == (frames >= min_frames(word))
    if view['log_prob'] > -np.inf: assert np.allclose(view['values'].sum(1), 1)
    assert len(view['needed_blanks']) == sum(a == b for a, b in zip(word, word[1:]))


def test_pulls_of_another_word_are_left_out():
    assert np.array_equal(w.lattice_view('ab', 3, pulls=(('abc', 3, 'even'), {(2, 3): 1.}))['probs'], w.lattice_view('ab', 3)['probs'])


@settings(deadline=None, max_examples=80)
@given(st.integers(2, 5), st.integers(1, 7), st.integers(1, 9), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_steps_end_where_the_library_ends(C, T, size, split, words, model, seed):
    rng, alphabet = np.random.default_rng(seed), Alphabet('abcd'[:C - 1])
    y = np.log(rng.dirichlet([.5]*C, size=T))
    known = list({''.join(rng.choice(list(alphabet.chars), rng.integers(1, 5))) for _ in range(6)})
    lm = CharLM(known, alphabet, order=3) if model else None
    bias, end = w.guide(alphabet, known if words else None, lm, .7)
    ours = w.best_texts(w.beam_steps(y, size, split, bias), size, end)
    search = beam_search if split else prefix_beam_search
    theirs = search(y, size, n_best=size, lexicon=Lexicon(known, alphabet) if words else None, lm=lm, lm_weight=.7, scores=True)
    if not ours: return # the library searches again, wider
    assert [list(t) for t, _, _ in ours] == [t for t, _, _ in theirs]
    assert np.allclose([p for _, p, _ in ours], [p for _, p, _ in theirs], atol=1e-6)
    assert np.allclose([s for _, _, s in ours], [s for _, _, s in theirs], atol=1e-4)


def test_steps_say_where_texts_come_from():
    y = np.log(np.random.default_rng(1).dirichlet([1]*3, size=6))
    for split in False, True:
        steps, beam = w.beam_steps(y, 3, split), [w.Hyp((), blank=0.)]
        for found in steps:
            assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
            for h in found:
                for place in h.came: assert beam[place].text in (h.text, h.text[:-1])
            beam = found[:3]


def test_exact_probability_is_at_least_that_of_the_beam():
    for seed in range(30):
        view = w.decoders_view('random', seed=seed, beam_size=2)
        for text, p in view['readings'].values(): assert p <= view['exact'][text] + 1e-4


def test_what_breaks_is_the_first_step_that_breaks():
    text, steps = 'hello', 3
    for (dial, value), share in w.what_breaks(text, steps=steps).items():
        end = value/share if dial not in ('stretch', 'left', 'right', 'top', 'bottom') else None
        if end is None: continue
        assert not w.drawing_view(text, **{dial: value})['right']
        for k in range(1, round(share*steps)): assert w.drawing_view(text, **{dial: round(end*k/steps, 3)})['right']


def test_where_it_looked_is_where_a_change_changes_the_answer():
    "A faint grey over the columns of most heat moves log p more than over those of least."
    grey = w.to_grey(draw_word('Explorers', noise=8.))
    reading, y, _ = w.reading_of(grey)
    heat = w.where_it_looked(grey, reading.text)
    assert heat.shape == grey.shape and 0 <= heat.min() and heat.max() <= 1.001
    labels, columns = Alphabet().encode(reading.text), heat.mean(0)
    def moved(at):
        other = grey.astype(int)
        other[:, at] += np.where(other[:, at] > 127, -40, 40)
        return abs(log_prob(w.reading_of(other.astype(np.uint8))[1], labels) - log_prob(y, labels))
    order = np.argsort(columns)
    assert moved(order[-8:]) > moved(order[:8])


@pytest.mark.parametrize('content', [b'', b'dear diary', b'\x89PNG\r\n\x1a\n but no more'])
def test_a_file_that_is_no_picture_is_refused_by_name(content):
    with pytest.raises(DataError, match='mine.png'): w.picture_view(given=('mine.png', content))
    explorer = w.explore_picture()
    before = explorer.surface.png
    explorer.take('mine.png', content)
    assert 'mine.png' in explorer.words.value and w.RED in explorer.words.value and explorer.surface.png == before
    explorer.move(given=None)
    assert w.RED not in explorer.words.value


def test_uploaded_and_dropped_and_written():
    import cv2
    explorer, picture = w.explore_picture(), draw_word('upload', size=26)
    code = cv2.imencode('.png', picture[..., ::-1])[1].tobytes()
    explorer.upload.value = [dict(name='up.png', type='image/png', size=len(code), content=memoryview(code), last_modified=__import__('datetime').datetime.now())]
    assert explorer.seen['reading'].text == 'upload' and explorer.seen['truth'] is None
    explorer.paper.file = dict(name='drop.png', content=memoryview(code), drawn=False)
    assert explorer.seen['reading'].source == 'drop.png'
    paper = np.full((120, 420, 3), 255, np.uint8)
    paper[40:40 + 32, 30:30 + picture.shape[1]] = picture
    explorer.paper.file = dict(name='hand', content=memoryview(cv2.imencode('.png', paper)[1].tobytes()), drawn=True)
    assert explorer.seen['reading'].text == 'upload' and explorer.seen['image'].shape[1] < 200
    explorer.controls['drawn'].value = 'drawn 2'
    assert explorer.seen['truth'] is not None


def all_explorers(): return [w.explore_shapes(), w.explore_lattice(), w.explore_decoders(), w.explore_drawing(), w.explore_picture(), w.explore_training(RUN)]


def test_an_explorer_is_a_widget_and_a_picture(monkeypatch):
    monkeypatch.delenv('CRNN_NB_BOOK', raising=False)
    for explorer in all_explorers():
        shown = explorer._repr_mimebundle_()
        assert shown['application/vnd.jupyter.widget-view+json']['model_id'] == explorer.box.model_id
        assert base64.b64decode(shown['image/png'])[1:4] == b'PNG' and explorer.surface.alt and 'font-weight:600">✗' not in explorer.words.value
    monkeypatch.setenv('CRNN_NB_BOOK', '1')
    assert set(explorer._repr_mimebundle_()) == {'text/plain', 'image/png'}


def test_one_answer_for_several_changes_and_words_for_mistakes():
    explorer = w.explore_shapes()
    n = len(explorer.times)
    explorer.move(img_width=60, img_height=48)
    assert len(explorer.times) == n + 1 and explorer.seen['size'] == (48, 60)
    def fails(**state): raise ZeroDivisionError('by nought')
    explorer.view = fails
    explorer.move(img_width=61)
    assert 'ZeroDivisionError: by nought' in explorer.words.value


@pytest.mark.parametrize('make', [w.explore_lattice, lambda: w.explore_decoders(source='random')])
def test_a_hand_pulls_a_cell(make):
    explorer = make()
    box = explorer.scene.above.get_position()
    x, y = box.x0 + .5*box.width, 1 - box.y1 + .05*box.height
    cell = explorer.scene.cell_at(x, y, explorer.seen)
    p = explorer.seen['probs'][cell]
    send = lambda now, press=1: setattr(explorer.surface, 'point', dict(start=[x, y], now=now, stage='drag', press=press))
    send([x, y])
    assert explorer.state['frame'] == cell[0] and explorer.seen['probs'][cell] == p
    send([x, y - .05])
    higher = explorer.seen['probs'][cell]
    assert higher > p and np.isclose(explorer.seen['probs'][cell[0]].sum(), 1)
    send([x, y + 2.])
    assert explorer.seen['probs'][cell] == 0
    send([x, 5.], 2)
    choice, slider, undo = [c for row in explorer.box.children for c in getattr(row, 'children', []) if getattr(c, 'description', '') in ('class', 'its probability', 'as it was')]
    assert slider.value == explorer.seen['probs'][cell[0], choice.value]
    slider.value = .5
    assert np.isclose(explorer.seen['probs'][cell[0], choice.value], .5)
    undo.click()
    assert explorer.seen['probs'][cell] == p


def test_a_player_needs_no_other_host():
    text = w.player(w.ShapesScene(), [w.shapes_view(img_width=x) for x in (40, 60)], ['<40>', '60'], 'a "word"')
    assert text.count('<img') == 2 and '&lt;40&gt;' in text and 'a &quot;word&quot;' in text
    assert not re.search(r'https?:|src="(?!data:)', text) and repr(text).startswith('Html of')


def test_the_chapters_players_are_small():
    from pathlib import Path
    nb = json.loads((Path(__file__).parent.parent/'nbs'/'12_widgets.ipynb').read_text(encoding='utf-8'))
    found = [sum(map(len, o['data']['text/html'])) for c in nb['cells'] if c['cell_type'] == 'code' for o in c['outputs'] if 'crnn-player' in ''.join(o.get('data', {}).get('text/html', ''))]
    assert len(found) >= 6 and max(found) < 600_000
    assert not any('widget-view' in k for c in nb['cells'] if c['cell_type'] == 'code' for o in c['outputs'] for k in o.get('data', {}))


@pytest.fixture(scope='module')
def quick(tmp_path_factory):
    words = write_synth90k(tmp_path_factory.mktemp('data')/'words', 128, 16, 8, workers=1, progress=False)
    return dict(data_dir=words, width=.125, rnn_hidden=8, map_to_seq_hidden=16, epochs=4, train_batch_size=16, show_interval=2, valid_interval=8, warmup=4, threads=1)


def until(true, seconds=120):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end: time.sleep(.01)
    return true()


def test_pause_and_stop_leave_checkpoints_and_the_run_ends_as_if_unbroken(quick, tmp_path):
    whole = train(**quick, checkpoints_dir=tmp_path/'whole', progress=False)
    run = w.Training(**quick, checkpoints_dir=tmp_path/'broken', every=0., words=8)
    steps = lambda: run.run.state.step if run.run else 0
    run.heard.append(lambda: run.pause() if run.status == 'running' and steps() == 3 else run.stop() if run.status == 'running' and steps() == 9 else None)
    run.start()
    assert until(lambda: run.status == 'paused'), run.problem
    assert steps() == 3 and load_checkpoint(tmp_path/'broken'/'last.pt')['state']['step'] == 3
    run.start()
    assert run.wait().status == 'stopped, with a checkpoint' and steps() == 9
    assert load_checkpoint(tmp_path/'broken'/'last.pt')['state']['step'] == 9
    run.start()
    assert run.wait().status == 'finished' and steps() == whole.state.step
    ours, theirs = run.run.net.state_dict(), whole.net.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    kept = w.watched(tmp_path/'broken')
    assert kept.shots == run.shots and kept.texts == run.texts and [r['step'] for r in kept.rows] == [r['step'] for r in run.rows]
    assert w.watched(tmp_path/'whole').shots == []


def test_a_live_run_is_shown_and_ends_in_the_explorer(quick, tmp_path):
    run = w.Training(**quick, checkpoints_dir=tmp_path/'run', every=0., words=8)
    explorer = w.explore_training(run)
    assert 'not started' in explorer.words.value
    start, pause, stop = explorer.box.children[1].children
    start.click()
    assert until(lambda: 'finished' in explorer.words.value)
    run.wait()
    assert explorer.controls['at'].max == run.images and 'of 8 sample words' in explorer.words.value


def test_a_run_that_cannot_start_says_why(quick, tmp_path):
    run = w.Training(**quick | dict(train_batch_size=999), checkpoints_dir=tmp_path/'run')
    explorer = w.explore_training(run)
    run.start()
    run.wait()
    assert run.status == 'failed' and 'train_batch_size=999' in explorer.words.value


def test_collapse_of_the_tokens_is_the_word():
    for word in 'letters', 'aaa', 'x':
        tokens = w.shapes_view(word=word)['tokens']
        assert ''.join(collapse(tokens, '–')) == word and len(tokens) == min_frames(word)
