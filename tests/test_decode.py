"""The decoders: right on other people's numbers, against all paths of small random matrices, and on input at the edges."""
import json
import math
import pickle
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from english_words import get_english_words_set
from hypothesis import given, settings, strategies as st

from crnn_nb.align import forced_align, spans
from crnn_nb.alphabet import Alphabet, AlphabetError, collapse
from crnn_nb.decode import (CharLM, DecodeError, Hotwords, Lexicon, _room, beam_search, confidence, ctc_decode, exhaustive, frame_confidence, greedy,
                            prefix_beam_search)
from crnn_nb.loss import log_prob

SEARCHES = beam_search, prefix_beam_search
either = pytest.mark.parametrize('search', SEARCHES)


def log(probs):
    with np.errstate(divide='ignore'): return np.log(np.asarray(probs, float))


def text(labels, names): return ''.join(names[c] for c in labels)


# ---- other people's numbers -------------------------------------------------------------------------------------------

# (flashlight/text, bindings/python/test/test_decoder.py, does not carry over: its criterion is ASG and its model KenLM's, over words.)

# nanoporetech/fast-ctc-decode (MIT): src/search.rs, tests/fast_ctc_wasm.test.js, tests/test_decode.py; blank 0
TEN = [[0., .4, .6], [0., .3, .7], [.3, .3, .4], [.4, .3, .3], [.4, .3, .3], [.3, .3, .4], [.1, .4, .5], [.1, .5, .4], [.8, .1, .1], [.1, .1, .8]]
FAST_CTC_DECODE = [
    ('NAG', TEN, 'GGAG', 'GAGAG'),
    ('NAG', [[.6, .2, .2], [.6, .2, .2]] + TEN + [[.4, .3, .3]], 'GGAG', 'GAGAG'),
    ('NAB', [[.7, .1, .2], [.7, .1, .2], [.2, .3, .5], [.2, .2, .6], [.3, .3, .4], [.2, .2, .6], [.2, .3, .5], [.7, .1, .2], [.7, .1, .2]], 'B', 'BAB'),
    ('NAB', [[.01, .98, .01], [.01, .34, .65], [.01, .98, .01], [.01, .01, .98]], None, 'ABAB'),
]


@pytest.mark.parametrize('names, probs, viterbi, beam', FAST_CTC_DECODE)
def test_fast_ctc_decode(names, probs, viterbi, beam):
    if viterbi: assert text(greedy(log(probs)), names) == viterbi
    assert text(prefix_beam_search(log(probs), 5)[0][0], names) == beam
    assert text(beam_search(log(probs), 10)[0][0], names) == beam


@pytest.mark.parametrize('case, starts', [(0, [0, 5, 7, 9]), (1, [2, 7, 9, 11])])
def test_fast_ctc_decode_where_letters_start(case, starts):
    names, probs, viterbi, _ = FAST_CTC_DECODE[case]
    aligned, _ = forced_align(log(probs), [names.index(c) for c in viterbi])
    for p in aligned, log(probs).argmax(1): assert [s.start for s in spans(p, log(probs))] == starts


def test_fast_ctc_decode_repeated_letter():
    probs = np.zeros((20, 5))
    probs[:, 0] = .5
    probs[[6, 13, 18], :2] = 0, 1
    assert greedy(log(probs)) == [1, 1, 1]
    for search in SEARCHES: assert search(log(probs), 5)[0][0] == [1, 1, 1]


def test_plain_path_beam_is_wrong_where_ours_is_right():
    beam = [((), 1.)]
    for frame in TEN: beam = sorted(((p + (c,), s*y) for p, s in beam for c, y in enumerate(frame)), key=lambda b: -b[1])[:5]
    sums = {}
    for p, s in beam: sums[tuple(collapse(p))] = sums.get(tuple(collapse(p)), 0) + s
    assert text(max(sums, key=sums.get), 'NAG') == 'GGAG'
    for search in SEARCHES: assert text(search(log(TEN), 5)[0][0], 'NAG') == 'GAGAG'


# githubharald/CTCDecoder (MIT): tests/test_mini_example.py, issue #26, tensorflow#21051; the blank is the last class
@either
def test_ctcdecoder_mini_example(search):
    probs = log([[.4, 0, .6], [.4, 0, .6]])
    assert greedy(probs, blank=2) == []
    (best, p), *_ = search(probs, 25, blank=2, n_best=3)
    assert best == [0] and p == pytest.approx(math.log(.64)) and -p == pytest.approx(.446287102628)
    assert confidence(probs, [0], blank=2) == pytest.approx(.64)
    words = Lexicon(['a', 'b', 'ab', 'ba'], Alphabet('ab'))
    assert search(np.roll(probs, 1, 1), 25, lexicon=words)[0][0] == [1]


def test_ctcdecoder_issue_26():
    probs = log([[.8, 0, .2], [.4, 0, .6], [.8, 0, .2]])
    assert greedy(probs, blank=2) == [0, 0]
    assert prefix_beam_search(probs, 1, blank=2)[0][0] == [0]


# hw_asr, test_text_encoder.py variants; the blank is the last class
def test_student_beam():
    probs = log([[.3, .1, .6], [.3, .2, .5]])
    said = lambda found: {text(l, 'ab'): pytest.approx(math.exp(p)) for l, p in found}
    assert said(exhaustive(probs, blank=2)) == {'a': .42, '': .3, 'b': .19, 'ab': .06, 'ba': .03}
    assert said(prefix_beam_search(probs, 3, blank=2, n_best=3)) == {'a': .42, '': .3, 'b': .19}
    assert said(prefix_beam_search(probs, 2, blank=2, n_best=2)) == {'a': .42, '': .3}


# tensorflow (Apache-2.0): ctc_decoder_ops_test.py, testCTCGreedyDecoder; blank 3
@pytest.mark.parametrize('probs, labels, loss', [
    ([[1, 0, 0, 0], [0, 0, .4, .6], [0, 0, .4, .6], [0, .9, .1, 0]], [0, 1], 1.1270117631898078),
    ([[.1, .9, 0, 0], [0, .9, .1, 0], [0, 0, .1, .9], [0, .9, .1, .1], [.9, .1, 0, 0]], [1, 1, 0], .5268025782891315)])
def test_tensorflow_greedy(probs, labels, loss):
    assert greedy(log(probs), blank=3) == labels
    assert -np.log(frame_confidence(log(probs))).sum() == pytest.approx(loss, rel=1e-6)


# tensorflow (Apache-2.0): ctc_decoder_ops_test.py, testCTCDecoderBeamSearch; logits, blank 5. Its search finds -5.811451 for [1, 0] in a
# beam of 2; the exact log-probability is -4.71703, and every beam's is at most that
@either
def test_tensorflow_beam(search):
    logits = torch.tensor([[.30999, .309938, .0679938, .0673362, .0708352, .173908], [.215136, .439699, .0370931, .0393967, .0381581, .230517],
                           [.199959, .489485, .0233221, .0251417, .0233289, .238763], [.279611, .452966, .0204795, .0209126, .0194803, .20655],
                           [.51286, .288951, .0243026, .0220788, .0219297, .129878]], dtype=torch.float64)
    log_probs = (logits + 2).log_softmax(1)
    exact = log_prob(log_probs, [1, 0], blank=5)
    assert exact == pytest.approx(-4.71703, abs=1e-5)
    found = dict((tuple(l), p) for l, p in search(log_probs, 2, blank=5, n_best=2))
    assert all(p <= log_prob(log_probs, l, blank=5) + 1e-9 for l, p in found.items())
    wide = search(log_probs, 100_000, blank=5, n_best=3000)
    assert dict((tuple(l), p) for l, p in wide)[1, 0] == pytest.approx(exact)


# pytorch/audio, ctc_decoder_test.py; meijieru/crnn.pytorch, test_utils.py; githubharald/CTCDecoder; distill.pub
@pytest.mark.parametrize('path, labels', [([2, 2, 0, 3, 3, 3, 0, 3], [2, 3, 3]), ([5, 5, 0, 1], [5, 1]), ([5, 6, 1], [5, 6, 1]), ([1, 1], [1]), ([1, 0, 1], [1, 1])])
def test_collapsing_vectors(path, labels):
    frames = log(np.eye(7)[path])
    assert greedy(frames) == labels
    for search in SEARCHES: assert search(frames, n_best=5) == [(labels, 0.)]


def test_collapsing_words():
    names = Alphabet('abcdefghijklmnopqrstuvwxyz')
    for path, word in ('-l-e-t-ee-r-s', 'leters'), ('-a-----v--a-i-l-a-bb-l-ee--', 'available'), ('-l-e-t-t-e-r-s', 'letters'):
        frames = log(np.eye(27)[[0 if c == '-' else names.encode(c)[0] for c in path]])
        assert ''.join(ctc_decode(frames[:, None], names.label2char)[0]) == word


# kensho-technologies/pyctcdecode (Apache-2.0): tests/test_decoder.py; the blank is the last class. Its word language model does not carry over
BUNNY = np.zeros((13, 8))
for t, spots in enumerate([{1: 1}, {5: 1}, {2: .49, 3: .51}, {4: .49, 7: .51}, {3: .51, 7: .49}, {6: .51, 7: .49}, {0: 1}, {1: 1}, {5: 1}, {3: 1}, {7: 1}, {3: 1}, {6: 1}]):
    for c, p in spots.items(): BUNNY[t, c] = p
PETS = Alphabet(' bgnsuy')


@either
def test_pyctcdecode_bugs_bunny(search):
    probs = np.roll(log(BUNNY), 1, 1)
    found = search(probs, 100, n_best=100)
    assert PETS.decode(found[0][0]) == 'bunny bunny' and found[0][1] == pytest.approx(-2.6933782130551505, abs=1e-6)
    assert len(found) == 16 and PETS.decode(found[-1][0]) == 'bugs bunny' and found[-1][1] == pytest.approx(-2.853399551509947, abs=1e-6)
    hot = lambda *words, bonus, whole=True: PETS.decode(search(probs, 100, hotwords=Hotwords(words, bonus, PETS, whole))[0][0])
    assert hot('bugs', bonus=1) == 'bugs bunny'
    assert hot('bunny', bonus=20) == 'bunny bunny'
    assert hot('bugs', bonus=1, whole=False) == 'bugsny bunny'


# the same file, the matrix of its stateful language model; without a model
@either
def test_pyctcdecode_bugs_bugs(search):
    probs = np.zeros((11, 8))
    for t, spots in enumerate([{1: 1}, {5: 1}, {2: 1}, {4: 1}, {0: 1}, {1: 1}, {5: 1}, {2: .51, 3: .49}, {4: .51, 7: .49}, {3: .51, 7: .49}, {6: .49, 7: .51}]):
        for c, p in spots.items(): probs[t, c] = p
    labels, p = search(np.roll(log(probs), 1, 1), 100, hotwords=Hotwords(['bugs'], 1., PETS, whole=True))[0]
    assert PETS.decode(labels) == 'bugs bugs'
    exact = {PETS.decode(l): math.exp(p) for l, p in search(np.roll(log(probs), 1, 1), 100, n_best=100)}
    assert sum(exact.values()) == pytest.approx(1)
    assert exact['bugs bugs'] == pytest.approx(.51*.51*.49*.51) and exact['bugs bunny'] == pytest.approx(.49*.49*.51*.49)


def test_pyctcdecode_stretched():
    path = [' ', '', 'b', 'u', 'n', '', 'n', 'n', 'y', '', ' ', ' ']
    frames = log(np.eye(8)[[0 if not c else PETS.encode(c)[0] for c in path]])
    for search in SEARCHES: assert PETS.decode(search(frames)[0][0]).strip() == 'bunny'


# ---- against all paths ------------------------------------------------------------------------------------------------

def matrices(rng, count, frames=5, classes=4, zeros=.2):
    for _ in range(count):
        T, C = rng.integers(0, frames + 1), rng.integers(1, classes + 1)
        p = rng.dirichlet(np.full(C, rng.choice([.3, 1., 3.])), size=T)*(rng.random((T, C)) >= (zeros if rng.random() < .5 else 0))
        yield log(p), int(rng.integers(0, C))


def test_two_thousand_matrices():
    "Wide beams find every text with its exact log-probability; narrow ones never claim more than that, and no text twice."
    rng = np.random.default_rng(0)
    for x, blank in matrices(rng, 2000, frames=4):
        exact = {tuple(labels): p for labels, p in exhaustive(x, blank)}
        for search in SEARCHES:
            found = search(x, 10_000, blank, n_best=10_000)
            assert {tuple(labels) for labels, _ in found} == set(exact)
            assert all(abs(p - exact[tuple(labels)]) < 1e-9 for labels, p in found)
            for size in 1, 2, 3:
                found = search(x, size, blank, n_best=3)
                assert len({tuple(labels) for labels, _ in found}) == len(found) <= size
                assert all(p <= exact[tuple(labels)] + 1e-9 for labels, p in found)
                assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)
        assert greedy(x, blank) == collapse([blank if f[blank] == f.max() else int(f.argmax()) for f in x], blank)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1))
def test_longer_frames_against_the_forward_pass(seed):
    "Too many paths to list: what a beam reports is at most what the forward pass says, and with `exact` equals it."
    rng = np.random.default_rng(seed)
    T, C = int(rng.integers(5, 40)), int(rng.integers(2, 40))
    x, blank = log(rng.dirichlet(np.full(C, .1) + 1e-3, size=T)), int(rng.integers(0, C))
    for search in SEARCHES:
        found, again = search(x, 8, blank, n_best=8), search(x, 8, blank, n_best=8, exact=True)
        assert {tuple(l) for l, _ in found} == {tuple(l) for l, _ in again}
        for labels, p in found: assert p <= log_prob(x, labels, blank) + 1e-9
        for labels, p in again: assert p == pytest.approx(log_prob(x, labels, blank), abs=1e-9)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_guides_against_all_paths(seed):
    "Lexicon, language model, length bonus and hotwords, alone and together: the order is that of the formula over all texts."
    rng = np.random.default_rng(seed)
    abc = Alphabet(str(rng.choice(['ab', 'a '])))
    x = log(rng.dirichlet([1, 1, 1], size=rng.integers(0, 6)))
    word = lambda most: ''.join(rng.choice(list(abc.chars), size=rng.integers(1, most + 1)))
    lexicon = Lexicon([word(4) for _ in range(6)], abc) if rng.random() < .6 else None
    lm = CharLM([word(5) for _ in range(4)], abc, order=int(rng.integers(1, 5))) if rng.random() < .6 else None
    hot = [word(3) for _ in range(2)] if rng.random() < .6 else None
    weight, bonus, each, whole = rng.choice([.3, 1., 2., -.5]), rng.choice([0., .5, -1.]), rng.choice([1.5, -1.]), bool(rng.random() < .5)
    wanted = {}
    for labels, p in exhaustive(x):
        t = abc.decode(labels)
        if lexicon is not None and t not in lexicon: continue
        score = p + bonus*len(t) + (weight*lm.log_prob(t) if lm is not None else 0)
        if hot: score += each*sum(len(h) for h in set(hot) for i in range(len(t)) if t[i:i + len(h)] == h and
                                  (not whole or (f' {t} '[i] == ' ' == f' {t} '[i + len(h) + 1])))
        wanted[t] = p, score
    for search in SEARCHES:
        found = search(x, 1000, n_best=1000, lexicon=lexicon, lm=lm, lm_weight=weight, length_bonus=bonus, hotwords=Hotwords(hot, each, abc, whole) if hot else None, scores=True)
        assert {abc.decode(l): (pytest.approx(p), pytest.approx(s, abs=1e-4)) for l, p, s in found} == wanted
        assert [s for *_, s in found] == sorted((s for *_, s in found), reverse=True)
        for labels, p in search(x, 2, n_best=2, lexicon=lexicon, lm=lm, lm_weight=weight): assert p <= wanted[abc.decode(labels)][0] + 1e-9


def test_pruned_searches_claim_no_more():
    rng = np.random.default_rng(1)
    for x, blank in matrices(rng, 1000, frames=4):
        exact = {tuple(labels): p for labels, p in exhaustive(x, blank)}
        for search, options in product(SEARCHES, ({'min_prob': .3}, {'threshold': .5}, {'min_prob': .05, 'threshold': 2.})):
            found = search(x, 5, blank, n_best=5, **options)
            assert found or not exact
            for labels, p in found: assert p <= exact[tuple(labels)] + 1e-9


def test_guided_searches_claim_no_more():
    "A thousand narrow beams with all guides at once: the log-probability stays CTC's own, and at most the exact one."
    rng, abc = np.random.default_rng(2), Alphabet('ab')
    guides = dict(lexicon=Lexicon(['a', 'ab', 'aab', 'bab', 'bb'], abc), lm=CharLM(['ab', 'ba', 'bab'], abc, 3), hotwords=Hotwords(['ab', 'bb'], 2., abc))
    for k in range(1000):
        x = log(rng.dirichlet([.5]*3, size=rng.integers(1, 5)))
        exact = {tuple(labels): p for labels, p in exhaustive(x)}
        some = {name: guide for name, guide in guides.items() if rng.random() < .7}
        for search in SEARCHES:
            for labels, p in search(x, int(rng.integers(1, 5)), n_best=4, length_bonus=float(rng.normal()), **some): assert p <= exact[tuple(labels)] + 1e-9


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_min_prob_is_a_search_without_the_classes_below_it(seed):
    "Frames with one class left, which go another way, among frames with more: texts and log-probabilities are those of frames where the rest is zero."
    rng = np.random.default_rng(seed)
    T, C = int(rng.integers(0, 30)), int(rng.integers(1, 6))
    x, blank, cut = log(rng.dirichlet(np.full(C, rng.choice([.03, .1, .3])) + 1e-3, size=T)), int(rng.integers(0, C)), float(rng.choice([.001, .05, .6]))
    kept = np.where((x >= math.log(cut)) | (x == x.max(1, keepdims=True, initial=-math.inf)), x, -math.inf)
    abc = Alphabet('abcdefgh'[:C - 1]) if C > 1 else None
    guides = dict(lm=CharLM(['ab'[:C - 1], 'a'], abc, 2), hotwords=Hotwords(['a'], 1., abc), length_bonus=.5) if abc and blank == 0 and rng.random() < .5 else {}
    for search, size in product(SEARCHES, (1, 3, 1000)):
        found, wanted = search(x, size, blank, n_best=size, min_prob=cut, scores=True, **guides), search(kept, size, blank, n_best=size, scores=True, **guides)
        assert [s for *_, s in found] == pytest.approx([s for *_, s in wanted])
        if size == 1000: assert {tuple(l): pytest.approx(p) for l, p, _ in found} == {tuple(l): p for l, p, _ in wanted}
    if T <= 6:
        found = prefix_beam_search(x, 1000, blank, n_best=1000, min_prob=cut)
        assert {tuple(l): pytest.approx(p) for l, p in found} == {tuple(l): p for l, p in exhaustive(kept, blank)}


@either
def test_min_prob_leaves_a_lexicon_what_it_needs(search):
    "After the word the frames are sure of a letter that does not follow; the word stays by a blank far below `min_prob`."
    x, words = log([[.05, .05, .9]] + [[1e-5, 1 - 2e-5, 1e-5]]*3), Lexicon(['b'], Alphabet('ab'))
    assert search(x, min_prob=.001)[0][0] == [2, 1]
    assert search(x, lexicon=words, min_prob=.001) == [([2], pytest.approx(search(x, lexicon=words)[0][1]))]


def least_seconds(x, *options, turns=9):
    "Time that one thread needs to search a trained network's frames, for each of `options`: the least of some turns of five."
    def seconds(given):
        start = time.thread_time()
        for _ in range(5): prefix_beam_search(x, **given)
        return time.thread_time() - start
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try: return [min(seconds(given) for _ in range(turns)) for given in options]
    finally: torch.set_num_threads(threads)


def test_sure_frames_are_cheap():
    "Aim: with nothing below a thousandth, a sixth of the time of the whole search of a trained network's frames; the bound leaves room for other processors."
    x = np.load(Path(__file__).parent.parent/'nbs'/'runs'/'emissions.npz')['log_probs'][-1]
    whole, cut = least_seconds(x, {}, dict(min_prob=.001, threshold=-math.log(.001)))
    assert prefix_beam_search(x, min_prob=.001, n_best=1)[0][0][0] == prefix_beam_search(x)[0][0][0]
    assert cut < whole/4


def test_room_is_what_a_loop_counts():
    for T, C, size in product(range(9), (1, 2, 3, 37), (1, 2, 5, 10, 27, 1000)):
        new = [min(C**t, size) for t in range(1, T + 1)]
        for t in range(1, T): new[t] = min(new[t - 1]*C, size)
        assert _room(T, C, size, -1) == 1 + sum(new) and _room(T, C, size, 3) == min(4, 1 + sum(new))


# ---- batches ----------------------------------------------------------------------------------------------------------

@either
def test_batch_lengths_threads_and_layouts(search):
    x = torch.randn(12, 20, 9, generator=torch.Generator().manual_seed(0)).log_softmax(2)
    lengths = torch.arange(20) % 13
    alone = [search(x[:t, n].double(), n_best=3) for n, t in enumerate(lengths.tolist())]
    threads = torch.get_num_threads()
    try:
        for k in 1, 2, 3:
            torch.set_num_threads(k)
            together = search(x, n_best=3, input_lengths=lengths)
            assert [[l for l, _ in f] for f in together] == [[l for l, _ in f] for f in alone]
            assert greedy(x, input_lengths=lengths) == [greedy(x[:t, n]) for n, t in enumerate(lengths.tolist())]
    finally: torch.set_num_threads(threads)
    strided = x.permute(1, 0, 2).contiguous().permute(1, 0, 2)
    assert search(strided) == search(x) and greedy(strided) == greedy(x)
    assert search(x.requires_grad_()) == search(x.detach().numpy())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    x = torch.randn(12, 4, 9, generator=torch.Generator().manual_seed(0)).log_softmax(2).to(dtype)
    assert greedy(x) == [collapse(p) for p in x.argmax(2).T]
    assert ctc_decode(x) == [f[0][0] for f in beam_search(x)]


@pytest.mark.parametrize('dtype, bits', [(np.float32, np.int32), (np.float64, np.int64)])
def test_greedy_orders_floats_of_all_kinds(dtype, bits):
    "Logits of any sign and size, ties, infinities: the class that `argmax` names, the blank among equals. NaN of both signs is found wherever it is."
    rng = np.random.default_rng(0)
    scale = 10.**rng.integers(-38, 38, size=(5, 4000, 1))
    x = np.where(rng.random((5, 4000, 9)) < .3, rng.choice([-np.inf, np.inf, 0., 1., -1., 2.5], size=(5, 4000, 9)), rng.normal(size=(5, 4000, 9))*scale).astype(dtype)
    for blank in 0, 4, 8:
        best = np.where(x[:, :, blank] == x.max(2), blank, x.argmax(2))
        assert greedy(x, blank) == [collapse(p, blank) for p in best.T]
    for sign in 1, -1:
        for c in range(9):
            y = x[:, :3].copy()
            y[3, 1, c] = np.copysign(np.nan, sign)
            assert (y.view(bits)[3, 1, c] < 0) == (sign < 0)
            with pytest.raises(DecodeError, match=rf'log_probs\[3, 1, {c}\] \(frame, sample, class\) is NaN'): greedy(y)


def test_ctc_decode_names_and_methods():
    x = log([[.6, .4], [.6, .4]])[:, None]
    assert ctc_decode(x, method='greedy') == [[]]
    assert ctc_decode(x, {1: 'a'}) == ctc_decode(x, {1: 'a'}, method='prefix_beam_search', beam_size=3) == ctc_decode(x, '-a') == [['a']]
    assert ctc_decode(torch.zeros(5, 0, 4)) == ctc_decode(torch.zeros(5, 0, 4), method='greedy') == []


# ---- edges ------------------------------------------------------------------------------------------------------------

def test_no_frames_one_class_and_more_places_than_texts():
    for search in SEARCHES:
        assert search(np.zeros((0, 5)), n_best=9) == [([], 0.)]
        assert search(np.zeros((3, 1)), 10**9, n_best=10**9) == [([], 0.)]
        assert len(search(log([[.5, .5]]*3), 10**6, n_best=10**6)) == 3
        assert search(torch.zeros(0, 2, 5)) == [[([], 0.)]]*2
    assert greedy(np.zeros((0, 5))) == [] and greedy(np.zeros((0, 2, 5))) == [[], []] and greedy(np.zeros((3, 1))) == []
    assert confidence(np.zeros((0, 5))) == 1. and confidence(np.zeros((0, 5)), [1]) == 0.


def test_uniform_frames():
    x = np.full((6, 4), -math.log(4))
    assert greedy(x) == greedy(x, blank=3) == []
    for search in SEARCHES:
        labels, p = search(x, 10_000)[0]
        assert p == pytest.approx(exhaustive(x)[0][1])


@either
def test_impossible_frames(search):
    impossible = np.full((3, 4), -math.inf)
    assert search(impossible, n_best=5) == [] and ctc_decode(impossible[:, None]) == [[]] and exhaustive(impossible) == []
    one_way = np.full((3, 4), -math.inf)
    one_way[[0, 1, 2], [2, 2, 0]] = 0.
    assert search(one_way, n_best=5) == [([2], 0.)] and greedy(one_way) == [2]
    assert confidence(one_way, [3]) == 0. and confidence(one_way, [2]) == 1.


@either
def test_far_beyond_the_range_of_doubles(search):
    "Two thousand frames, log-probabilities near -1000 a frame: their product is far below the least double."
    x = np.full((2000, 5), -1000.)
    x[:, 3] = -900.
    assert search(x)[0] == ([3], pytest.approx(-900.*2000))
    x = torch.randn(4000, 30, generator=torch.Generator().manual_seed(0)).log_softmax(1).double()
    labels, p = search(x, 4)[0]
    assert p <= log_prob(x, labels) + 1e-6


def test_large_alphabet():
    x = torch.randn(10, 2, 7000, generator=torch.Generator().manual_seed(0)).mul(4).log_softmax(2)
    for found, n in zip(prefix_beam_search(x, n_best=3), range(2)):
        for labels, p in found: assert p <= log_prob(x[:, n], labels) + 1e-4


@either
def test_nan_is_named(search):
    x = torch.zeros(4, 3, 5).log_softmax(2)
    x[2, 1, 4] = math.nan
    for call in search, greedy, ctc_decode, confidence:
        with pytest.raises(DecodeError, match=r'log_probs\[2, 1, 4\] \(frame, sample, class\) is NaN'): call(x)
        call(x, input_lengths=[4, 2, 4])
    for c in range(5):
        x = torch.randn(3, 1, 5).log_softmax(2)
        x[0, 0, c] = math.nan
        with pytest.raises(DecodeError, match='NaN'): greedy(x)


def test_tables_that_do_not_fit():
    x = torch.randn(4, 1, 9).log_softmax(2)
    with pytest.raises(DecodeError, match='at most 1073741 places'): prefix_beam_search(torch.randn(2000, 37).log_softmax(1), 10**8)
    assert len(prefix_beam_search(x, 10**6, n_best=2)[0]) == 2


def test_frame_confidence():
    x = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)).log_softmax(2)
    x[4, 1] = math.nan
    with pytest.raises(DecodeError, match=r'log_probs\[4, 1, 0\]'): frame_confidence(x)
    sure = frame_confidence(x, [5, 3, 4])
    assert sure.shape == (5, 3) and (sure[[3, 4, 4], [1, 1, 2]] == 0).all()
    assert sure[:3] == pytest.approx(x[:3].exp().amax(2).numpy()) and (frame_confidence(x[:, 0]) == sure[:, 0]).all()


@either
def test_refused(search):
    x = log([[.5, .5]]*3)
    for bad, message in [(dict(beam_size=0), 'beam_size is 0'), (dict(n_best=0), 'n_best is 0'), (dict(min_prob=1.), 'min_prob is 1'), (dict(threshold=0.), 'threshold is 0'),
                         (dict(length_bonus=math.nan), 'length_bonus is nan'), (dict(lm_weight=math.inf), 'lm_weight is inf'), (dict(threshold=math.nan), 'threshold is nan'), (dict(min_prob=math.nan), 'min_prob is nan'),
                         (dict(blank=2), 'blank is 2, but log_probs has the classes 0 to 1'), (dict(blank=-1), 'blank is -1'),
                         (dict(input_lengths=[1, 2]), 'holds 2 lengths for 1 samples'), (dict(input_lengths=[4]), r'input_lengths\[0\] is 4'),
                         (dict(input_lengths=[-1]), r'input_lengths\[0\] is -1'), (dict(lexicon=Lexicon(['a'])), 'lexicon has 37 classes, log_probs has 2'),
                         (dict(lm=CharLM(['a'], Alphabet('a')), blank=1), r'roll\(1, -1\)')]:
        with pytest.raises(DecodeError, match=message): search(x, **bad)
    with pytest.raises(DecodeError, match='log_softmax'): search(np.exp(x))
    for shape in (3,), (1, 2, 3, 4):
        with pytest.raises(DecodeError, match='log_probs has shape'): search(np.zeros(shape))
        with pytest.raises(DecodeError, match='log_probs has shape'): greedy(np.zeros(shape))
    with pytest.raises(DecodeError, match='method is'): ctc_decode(x[:, None], method='best')
    with pytest.raises(DecodeError, match='takes no such option'): ctc_decode(x[:, None], method='greedy', n_best=2)
    with pytest.raises(DecodeError, match='no character for label 1'): ctc_decode(x[:, None], {2: 'a'})
    with pytest.raises(DecodeError, match='more than limit'): exhaustive(np.zeros((30, 30)) - 4)
    with pytest.raises(DecodeError, match='texts holds 1 texts for 2 samples'): confidence(np.zeros((3, 2, 2)) - 1, [[1]])


# ---- lexicon, language model, hotwords --------------------------------------------------------------------------------

@settings(deadline=None, max_examples=100)
@given(st.lists(st.text('abc', max_size=6), max_size=30), st.lists(st.text('abc', max_size=6), max_size=10))
def test_lexicon_holds_its_words(words, others):
    lexicon = Lexicon(words, Alphabet('abc'))
    assert len(lexicon) == len(set(words)) and all(w in lexicon for w in words)
    assert all((w in lexicon) == (w in set(words)) for w in others)
    assert len(lexicon.ends) == len({w[:i] for w in words for i in range(len(w) + 1)} | {''})


def test_ninety_thousand_words_cost_about_as_much_as_none():
    "Aim: at most twice the free search, on frames of a trained network; the bound leaves room for other processors."
    words = sorted(w for w in get_english_words_set(['web2'], lower=True, alpha=True) if len(w) <= 10)
    lexicon = Lexicon([words[k] for k in np.random.default_rng(0).permutation(len(words))[:90_000]])
    x = np.load(Path(__file__).parent.parent/'nbs'/'runs'/'emissions.npz')['log_probs'][-1]
    free, listed = least_seconds(x, {}, dict(lexicon=lexicon), turns=5)
    assert listed < 2.5*free


@either
def test_lexicon_widens_until_it_finds_a_word(search):
    "All but the last frame speak against the only word."
    words = [a + b + c + 'q' for a in 'abcdefgh' for b in 'abcdefgh' for c in 'abcdefgh'] + ['wxyz']
    x = np.full((6, 37), math.log(1e-9))
    x[:, 0] = math.log(1 - 36e-9)
    x[5] = -math.inf
    x[5, 36] = 0.
    (labels, p), = search(x, 1, lexicon=Lexicon(words))
    assert Alphabet().decode(labels) == 'wxyz' and p <= log_prob(x, labels) + 1e-9


def test_lexicon_that_does_not_fit():
    x = np.full((3, 2, 37), -math.log(37))
    assert ctc_decode(x, lexicon=Lexicon(['letter'])) == [[], []]
    assert ctc_decode(x, lexicon=Lexicon(['ll']), input_lengths=[3, 2]) == [[22, 22], []]
    assert ctc_decode(x, lexicon=Lexicon([])) == [[], []]
    assert prefix_beam_search(x[:, 0], lexicon=Lexicon(['']))[0][0] == []
    with pytest.raises(AlphabetError, match="don't"): Lexicon(["don't"])
    with pytest.raises(DecodeError, match='label 0'): Lexicon([[0, 1]])


def witten_bell(words, order, alphabet):
    "p(symbol | history) by its formula, from counts in dictionaries; ^ begins and $ ends a word."
    marked = [('^' + w, w + '$') for w in words]
    def p(c, history):
        if len(history) >= order: history = history[len(history) - order + 1:]
        def level(h):
            seen = [n for past, nexts in marked for i, n in enumerate(nexts) if past[:i + 1].endswith(h)] if h is not None else []
            below = 1/(len(alphabet) + 1) if h == '' else level(h[1:])
            return below if not seen else (seen.count(c) + len(set(seen))*below)/(len(seen) + len(set(seen)))
        return level(history)
    return p


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text('ab', max_size=5), min_size=1, max_size=6), st.integers(1, 4), st.text('ab', max_size=6))
def test_language_model_is_its_formula(words, order, word):
    lm, p = CharLM(words, Alphabet('ab'), order), witten_bell(words, order, 'ab')
    wanted = sum(math.log(p(c, ('^' + word)[:i + 1])) for i, c in enumerate(word + '$'))
    assert lm.log_prob(word) == pytest.approx(wanted, abs=1e-4)
    assert np.exp(lm.score.astype(float)).sum(1) == pytest.approx(np.ones(len(lm.score)), abs=1e-5)


def test_language_model_weights_and_refusals():
    abc = Alphabet('ab')
    assert CharLM(['ab', 'ba'], abc, weights=[3, 1]).log_prob('ba') == pytest.approx(CharLM(['ab']*3 + ['ba'], abc).log_prob('ba'), abs=1e-5)
    for order in 0, 60:
        with pytest.raises(DecodeError, match=f'order is {order}'): CharLM(['ab'], abc, order)
    with pytest.raises(AlphabetError, match='x'): CharLM(['x'], abc)
    with pytest.raises(DecodeError, match='words is empty'): CharLM([], abc)


def test_language_model_saved(tmp_path):
    lm = CharLM(['aha', 'haha'], Alphabet('ah'), 3)
    lm.save(tmp_path/'lm')
    loaded = CharLM.load(tmp_path/'lm')
    assert loaded.alphabet == lm.alphabet and loaded.order == 3 and loaded.start == lm.start
    assert (loaded.score == lm.score).all() and (loaded.next == lm.next).all()
    whole = (tmp_path/'lm').read_bytes()
    (tmp_path/'short').write_bytes(whole[:len(whole)//2])
    (tmp_path/'text').write_text('aha')
    (tmp_path/'pickle').write_bytes(pickle.dumps(lm))
    np.savez(tmp_path/'other.npz', order=3)
    with open(tmp_path/'object', 'wb') as f: np.savez(f, order=np.array([{}], object), alphabet='{}')
    with np.load(tmp_path/'lm') as f: parts = dict(f)
    for name, bad in ('uneven', {'times1': parts['times1'][:-1]}), ('nan', {'times0': parts['times0']*np.nan}), ('gone', {'order': 9}), ('alphabet', {'alphabet': '{"chars": 3}'}), ('negative', {'times1': -9*parts['times1']}):
        with open(tmp_path/name, 'wb') as f: np.savez(f, **parts | bad)
    for name in 'short', 'text', 'pickle', 'other.npz', 'object', 'uneven', 'nan', 'gone', 'alphabet', 'negative':
        with pytest.raises(DecodeError, match=f'{name} holds no language model'): CharLM.load(tmp_path/name)
    with pytest.raises(FileNotFoundError): CharLM.load(tmp_path/'none')


def test_hotwords():
    with pytest.raises(DecodeError, match='empty'): Hotwords([''])
    with pytest.raises(AlphabetError): Hotwords(['ä'])
    with pytest.raises(DecodeError, match='bonus is nan'): Hotwords(['a'], math.nan)
    x = np.full((4, 37), -math.log(37))
    assert Alphabet().decode(prefix_beam_search(x, hotwords=Hotwords(['wolf'], 3.))[0][0]) == 'wolf'
    assert prefix_beam_search(x, hotwords=Hotwords([]))[0] == prefix_beam_search(x)[0]


def test_whole_hotwords():
    abc = Alphabet('ab ')
    hot = Hotwords(['a', 'b a', 'a a'], 1., abc, whole=True)
    def bonus(text):
        state, total = hot.start, 0.
        for c in abc.encode(text) + [abc.num_class]: total, state = total + hot.score[state, c], hot.next[state, c]
        return total
    assert [bonus(t) for t in ('a', 'aa', 'b', 'b a', 'ab a', 'a a', 'a a a', '', ' a ')] == [1, 0, 0, 4, 1, 5, 9, 0, 1]
    assert Hotwords([], whole=True).start == 0


def test_guides_pickle():
    for guide in Lexicon(['ah']), CharLM(['ah']), Hotwords(['ah']):
        again = pickle.loads(pickle.dumps(guide))
        assert again.alphabet == guide.alphabet and type(again) is type(guide)


# ---- confidence -------------------------------------------------------------------------------------------------------

def test_confidence_is_the_exact_probability():
    rng = np.random.default_rng(0)
    for x, blank in matrices(rng, 100):
        exact = {tuple(l): math.exp(p) for l, p in exhaustive(x, blank)}
        assert confidence(x, blank=blank) == pytest.approx(exact.get(tuple(greedy(x, blank)), 0.), abs=1e-9)
    batch = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0)).log_softmax(2)
    texts = [f[0][0] for f in beam_search(batch, input_lengths=[6, 5, 4, 3, 0])]
    together = confidence(batch, texts, input_lengths=[6, 5, 4, 3, 0])
    assert together == pytest.approx([confidence(batch[:t, n], texts[n]) for n, t in enumerate([6, 5, 4, 3, 0])])


# ---- compiled code ----------------------------------------------------------------------------------------------------

def test_second_start_compiles_nothing():
    code = """
import sys, numpy as np
from crnn_nb import decode
assert 'numba' not in sys.modules
x = np.log(np.full((4, 2, 3), 1/3, np.float32))
decode.greedy(x), decode.prefix_beam_search(x), decode.beam_search(x)
misses = [stats for f in (decode._best_paths, decode._searches) for stats in [f.jitted.stats]]
print(sum(sum(s.cache_hits.values()) for s in misses), sum(sum(s.cache_misses.values()) for s in misses))
"""
    run = lambda: subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert run() == ['2', '0'] or run() == ['2', '0']
