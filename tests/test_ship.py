"The shipped recipe repeats and resumes bit for bit; blocks of drawn words; ONNX equals PyTorch; calibration."
import re
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from crnn_nb.data import DataError, DrawnWords
from crnn_nb.model import ModelError, load_crnn
from crnn_nb.read import shipped
from crnn_nb.ship import (calibration_error, export_onnx, hold_then_fall, model_card, reliability, shipped_again, shipped_config, threshold_for, train_shipped)
from crnn_nb.synth import DEFAULT, HARD, SynthWords, label_of
from crnn_nb.train import TrainError, resume

SMALL = dict(again=False, ranges=DEFAULT, words=dict(size=24, blocks=2), ahead=False, progress=False, train_batch_size=8, max_images=40, warmup=1, valid_interval=2, save_interval=2,
             width=.125, rnn_hidden=16, reload_checkpoint=None)


# -- blocks ---------------------------------------------------------------------------------------------------------------------------

def test_a_block_holds_the_words_of_its_place(tmp_path):
    words, source = DrawnWords(tmp_path, HARD, size=5, blocks=3, seed=4), SynthWords('train', seed=4, ranges=HARD)
    for epoch in (2, 0):
        words.set_epoch(epoch)
        assert words.labels == [label_of(source.text(epoch*5 + k)) for k in range(5)]
    again = DrawnWords(tmp_path/'again', HARD, size=5, blocks=3, seed=4)
    again.set_epoch(2)
    words.set_epoch(5)
    assert np.array_equal(words.images, again.images)


def test_blocks_are_gone_through_in_groups(tmp_path):
    words, order = DrawnWords(tmp_path, DEFAULT, size=1, blocks=6, group=2, turns=2), []
    for epoch in range(14):
        words.set_epoch(epoch)
        order.append(words.block)
    assert order == [0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 0, 1]


def test_blocks_of_other_words_have_other_files(tmp_path):
    paths = {DrawnWords(tmp_path, r, size=n, blocks=3, seed=s, easy=e).path(b) for r in (DEFAULT, HARD) for n in (2, 3) for s in (0, 1) for e in (0, 1) for b in (0, 1)}
    assert len(paths) == 2*2*2*3 # the second block of either `easy` is the same


def test_a_broken_block_is_named(tmp_path):
    words = DrawnWords(tmp_path, DEFAULT, size=2, blocks=1)
    words.draw(0).write_bytes(b'cut short')
    with pytest.raises(DataError, match='-0000.npz cannot be read .*remove it'): words.set_epoch(0)


# -- the recipe -----------------------------------------------------------------------------------------------------------------------

@given(st.integers(1, 5000), st.integers(0, 50), st.floats(.01, .9))
@settings(deadline=None, max_examples=50)
def test_the_rate_is_held_then_falls_to_nothing(steps, warmup, fall):
    factors = [hold_then_fall(s, steps, min(warmup, steps//3), fall) for s in range(steps + 1)]
    assert 0 <= min(factors) and max(factors) <= 1 and factors[-1] == 0
    top = factors.index(max(factors))
    assert all(a >= b for a, b in zip(factors[top:], factors[top + 1:]))


def test_first_steps_repeat_and_a_killed_run_goes_on(tmp_path):
    same = lambda a, b: all(torch.equal(a[k], b[k]) for k in a)
    average = lambda name: load_crnn(tmp_path/name/'average.safetensors')[0].state_dict()
    for name in ('a', 'b'): train_shipped(tmp_path/name, **SMALL)
    train_shipped(tmp_path/'c', callbacks=[lambda run, row: run.state.step == 3], **SMALL)
    keep = {k: SMALL[k] for k in ('ranges', 'words', 'ahead', 'progress', 'again')}
    run = train_shipped(tmp_path/'c', resume=True, **keep)
    assert run.state.step == 5 and same(average('a'), average('b')) and same(average('a'), average('c'))
    with pytest.raises(TrainError, match='lr belongs to the run'): train_shipped(tmp_path/'c', resume=True, lr=.1, **keep)


def test_the_second_round_starts_from_the_average_and_goes_on_where_it_was_killed(tmp_path):
    two = SMALL | dict(again=True)
    run = train_shipped(tmp_path/'a', **two)
    assert run.folder == tmp_path/'a'/'again' and run.config['reload_checkpoint'] == str(tmp_path/'a'/'average.safetensors')
    own = {k: v for k, v in SMALL.items() if k in shipped_config}
    assert {k: run.config[k] for k in shipped_config if k not in ('checkpoints_dir', 'reload_checkpoint')} == \
           {k: (shipped_config | shipped_again | own)[k] for k in shipped_config if k not in ('checkpoints_dir', 'reload_checkpoint')}
    half = train_shipped(tmp_path/'b', callbacks=[lambda run, row: run.folder.name == 'again' and run.state.step == 3], **two)
    assert half.state.step == 3 and half.folder.name == 'again'
    run = train_shipped(tmp_path/'b'/'again', resume=True, **{k: two[k] for k in ('ranges', 'words', 'ahead', 'progress')})
    a, b = (load_crnn(tmp_path/n/'again'/'average.safetensors')[0].state_dict() for n in 'ab')
    assert run.reason == 'finished' and all(torch.equal(a[k], b[k]) for k in a)
    first = load_crnn(tmp_path/'a'/'average.safetensors')[0].state_dict()
    assert any(not torch.equal(first[k], a[k]) for k in a)


# -- confidence -----------------------------------------------------------------------------------------------------------------------

def test_a_calibrated_reader_is_found_calibrated():
    rng = np.random.default_rng(0)
    c = rng.random(20_000)
    rows = reliability(c, rng.random(20_000) < c)
    assert calibration_error(rows) < .02 and sum(r['count'] for r in rows) == 20_000
    assert sum(r['low'] <= r['confidence'] <= r['high'] for r in rows) >= 8
    assert calibration_error(reliability(np.ones(100), np.arange(100) < 60)) == pytest.approx(.4)


@given(st.lists(st.tuples(st.sampled_from((.1, .4, .7, .9)), st.booleans()), min_size=1, max_size=30), st.floats(.1, 1))
@settings(deadline=None)
def test_the_threshold_is_the_lowest_that_holds(pairs, precision):
    c, r = np.array([p for p, _ in pairs]), np.array([ok for _, ok in pairs])
    limit, kept = threshold_for(c, r, precision)
    good = [t for t in sorted(set(c)) if r[c >= t].mean() >= precision]
    if good: assert limit == good[0] and kept == pytest.approx((c >= limit).mean())
    else: assert kept == 0


# -- files ----------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('int8', (False, True))
def test_onnx_reads_like_pytorch(tmp_path, int8):
    ort = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnx')
    path = export_onnx(tmp_path/'crnn.onnx', int8=int8)
    session, (crnn, alphabet, _) = ort.InferenceSession(str(path), providers=['CPUExecutionProvider']), load_crnn(shipped())
    meta = session.get_modelmeta().custom_metadata_map
    assert meta['chars'] == alphabet.chars and meta['blank'] == '0'
    rng = torch.Generator().manual_seed(1)
    for n, w in ((1, 100), (9, 100), (2, 9), (3, 64), (1, 401)):
        images = torch.rand(n, 1, 32, w, generator=rng)*2 - 1
        with torch.inference_mode(): expected = crnn(images).numpy()
        got = session.run(None, dict(images=images.numpy()))[0]
        assert got.shape == expected.shape
        if not int8: assert abs(got - expected).max() < 1e-4
    if int8: assert path.stat().st_size < .8*export_onnx(tmp_path/'whole.onnx').stat().st_size
    assert [p.name for p in tmp_path.glob('.*')] == []


def test_export_says_what_is_wrong(tmp_path):
    with pytest.raises(ModelError, match='must end in .onnx'): export_onnx(tmp_path/'a.pt')


def test_the_card_has_what_a_stranger_must_know():
    card = model_card()
    for need in ('parameters', 'MB', 'Apache-2.0', 'data', 'command'): assert need in card
    assert shipped().stat().st_size < 8e6 and re.search(r'[0-9a-f]{64}', card)
