"""Alignment against a search through every path, and against alignments that are known by construction."""
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from crnn_nb.align import Span, forced_align, forced_align_batch, spans, to_pixels, widen
from crnn_nb.alphabet import collapse
from crnn_nb.loss import extend
from crnn_nb.shapes import CTCInputError, concat_targets, min_frames, pad_targets

settings.register_profile('book', deadline=None, max_examples=60, derandomize=True)
settings.load_profile('book')


def best_of_all_paths(log_probs, labels, blank):
    "The referee: every path is tried."
    T, C = log_probs.shape
    scores = {p: sum(log_probs[t, k] for t, k in enumerate(p)) for p in product(range(C), repeat=T) if collapse(p, blank) == labels}
    path = max(scores, key=scores.get)
    return path, scores[path]


@st.composite
def words(draw, max_frames=5, max_classes=4):
    "`(log_probs, labels, blank)` of a random text that fits into random frames."
    C, T = draw(st.integers(2, max_classes)), draw(st.integers(1, max_frames))
    blank = draw(st.integers(0, C - 1))
    characters = [k for k in range(C) if k != blank]
    labels = draw(st.lists(st.sampled_from(characters), max_size=T).filter(lambda l: min_frames(l) <= T))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return np.log(rng.dirichlet(np.full(C, draw(st.sampled_from([.1, 1., 10.]))), T) + 1e-12), labels, blank


def batch_of(rng, N=6, T=12, C=5):
    "A batch with mixed lengths, every text fitting."
    log_probs = torch.tensor(rng.normal(size=(T, N, C))).log_softmax(2)
    lengths = rng.integers(4, T + 1, N)
    labels = []
    for n in lengths:
        word = rng.integers(1, C, rng.integers(0, n + 1)).tolist()
        while min_frames(word) > n: word = word[:-1]
        labels.append(word)
    return log_probs, labels, torch.tensor(lengths)


# forced_align ----------------------------------------------------------------------------------------------------------

@given(words())
def test_equals_search_through_all_paths(word):
    log_probs, labels, blank = word
    path, log_prob = forced_align(log_probs, labels, blank)
    referee, score = best_of_all_paths(log_probs, labels, blank)
    assert path.tolist() == list(referee)
    assert log_prob == pytest.approx(score, abs=1e-9)


@given(words(max_frames=30, max_classes=12))
def test_path_writes_the_text_and_adds_up(word):
    log_probs, labels, blank = word
    path, log_prob = forced_align(log_probs, labels, blank)
    assert path.shape == (len(log_probs),) and path.dtype == np.int64
    assert collapse(path, blank) == labels
    assert log_prob == pytest.approx(log_probs[np.arange(len(path)), path].sum(), abs=1e-9)


@given(words(max_frames=12, max_classes=5))
def test_never_above_the_loss(word):
    log_probs, labels, blank = word
    y = torch.tensor(log_probs)[:, None].log_softmax(2)
    loss = torch.nn.functional.ctc_loss(y, torch.tensor([labels], dtype=torch.long).reshape(1, -1), torch.tensor([len(y)]), torch.tensor([len(labels)]),
                                        blank, reduction='none')
    assert forced_align(y[:, 0], labels, blank)[1] <= -loss.item() + 1e-9


@given(words(max_frames=5, max_classes=3), st.data())
def test_of_equal_paths_the_farthest_along(word, data):
    log_probs, labels, blank = word
    T, C = log_probs.shape
    quarters = data.draw(st.lists(st.integers(-3, 0), min_size=T*C, max_size=T*C))
    log_probs = np.array(quarters).reshape(T, C)/4 # sums of quarters are exact, so ties are ties
    from crnn_nb.align import best_lattice, trace_back
    states = np.array(extend(labels, blank), np.int64)
    walks = [w for w in product(range(len(states)), repeat=T) if w[0] < 2 and w[-1] >= len(states) - 2 and allowed(w, states)]
    scores = [log_probs[np.arange(T), states[list(w)]].sum() for w in walks]
    farthest = np.max([w for w, s in zip(walks, scores) if s == max(scores)], 0)
    assert trace_back(*best_lattice(log_probs, states)).tolist() == farthest.tolist()


def allowed(walk, states):
    "May a path take this walk through the lattice?"
    for a, b in zip(walk, walk[1:]):
        if not 0 <= b - a <= 2 or (b - a == 2 and states[a] == states[b]): return False
    return True


# google-deepmind/optax, optax/losses/_classification_test.py, CTCTest.test_repeat_with_one_to_one_alignment (Apache-2.0):
# in as many frames as a text needs, one path alone writes it.
ONE_PATH = [([1, 2, 2, 3], [1, 2, 0, 2, 3]), ([2, 3, 4, 4], [2, 3, 4, 0, 4]), ([1, 1, 1, 1], [1, 0, 1, 0, 1, 0, 1]),
            ([1, 1, 2, 3], [1, 0, 1, 2, 3]), ([1, 1, 1, 2], [1, 0, 1, 0, 1, 2])]

@pytest.mark.parametrize('labels, only', ONE_PATH)
def test_one_path_where_the_text_fills_the_frames(labels, only):
    log_probs = np.log(np.random.default_rng(0).dirichlet(np.ones(5), len(only)))
    path, log_prob = forced_align(log_probs, labels)
    assert path.tolist() == only
    assert log_prob == pytest.approx(sum(log_probs[t, k] for t, k in enumerate(only)))
    with pytest.raises(CTCInputError): forced_align(log_probs[1:], labels)


# pylstm, test_error_functions.py, CTCTest: four frames; of the paths of "1 2" the best has .7 * .8 * .4 * .7, of "1 1" .7 * .8 * .3 * .7.
PYLSTM = np.array([[.1, .7, .2], [.8, .1, .1], [.3, .3, .4], [.7, .1, .2]])

@pytest.mark.parametrize('labels, best, prob', [([1, 2], [1, 0, 2, 0], .1568), ([1, 1], [1, 0, 1, 0], .1176), ([], [0, 0, 0, 0], .0168)])
def test_four_frames(labels, best, prob):
    path, log_prob = forced_align(np.log(PYLSTM), labels)
    assert path.tolist() == best
    assert np.exp(log_prob) == pytest.approx(prob)


@pytest.mark.parametrize('T', [1, 2, 1000, 4000])
def test_long_and_short(T):
    rng = np.random.default_rng(T)
    labels = rng.integers(1, 30, T//3).tolist()
    y = torch.tensor(rng.normal(size=(T, 30))).log_softmax(1)
    path, log_prob = forced_align(y, labels)
    assert collapse(path) == labels and np.isfinite(log_prob)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_types_and_gradients_are_taken(dtype):
    y = torch.randn(9, 5).log_softmax(1).to(dtype).requires_grad_()
    path, log_prob = forced_align(y, torch.tensor([1, 2, 2], dtype=torch.int32))
    assert collapse(path) == [1, 2, 2] and isinstance(log_prob, float)
    assert path.tolist() == forced_align(y.detach().float().numpy(), [1, 2, 2])[0].tolist()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype):
    "Rounded to half precision, the probabilities of a frame no longer add up to one."
    with pytest.raises(CTCInputError, match='dtype'): forced_align(torch.randn(9, 5).log_softmax(1).to(dtype), [1, 2])


def test_not_contiguous():
    y = torch.randn(9, 4, 5).log_softmax(2)
    test = forced_align(y[:, 2], [1, 3])
    assert test[0].tolist() == forced_align(y[:, 2].clone(), [1, 3])[0].tolist()


def test_some_classes_impossible():
    with np.errstate(divide='ignore'): y = np.log(np.array([[0, 1, 0], [.4, .6, 0], [0, 0, 1]]))
    assert forced_align(y, [1, 2])[0].tolist() == [1, 1, 2]
    with pytest.raises(CTCInputError, match='probability 0'): forced_align(y, [2, 1])


y = torch.randn(6, 4).log_softmax(1)

@pytest.mark.parametrize('bad, match', [
    (lambda: forced_align(y, [1, 2, 3, 1, 2, 3, 1]), '7'),
    (lambda: forced_align(y, [1, 1, 1, 1]), '7'),
    (lambda: forced_align(y, [1, 0]), 'blank'),
    (lambda: forced_align(y, [1, 4]), '4'),
    (lambda: forced_align(y, [-1]), '-1'),
    (lambda: forced_align(y, 'ab'), 'encode'),
    (lambda: forced_align(y, [1., 2.]), 'integers'),
    (lambda: forced_align(y, [[1, 2]]), 'labels has shape'),
    (lambda: forced_align(y.exp(), [1, 2]), 'log'),
    (lambda: forced_align(y*float('nan'), [1, 2]), '(?i)nan'),
    (lambda: forced_align(y[None], [1, 2]), 'forced_align_batch'),
    (lambda: forced_align(y, [1], blank=7), 'blank'),
])
def test_bad_input_is_refused(bad, match):
    with pytest.raises(CTCInputError, match=match): bad()


# a batch ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('seed', range(5))
def test_batch_equals_one_by_one(seed):
    log_probs, labels, input_lengths = batch_of(np.random.default_rng(seed))
    alone = [forced_align(log_probs[:t, n], labels[n]) for n, t in enumerate(input_lengths)]
    padded, concatenated = pad_targets(labels), concat_targets(labels)
    for targets, lengths in [(labels, None), (padded[0], padded[1]), (concatenated[0], concatenated[1])]:
        together = forced_align_batch(log_probs, targets, input_lengths, lengths)
        for (path, log_prob), (path1, log_prob1) in zip(together, alone, strict=True):
            assert path.tolist() == path1.tolist() and log_prob == pytest.approx(log_prob1)


def test_batch_names_the_sample():
    log_probs, _, _ = batch_of(np.random.default_rng(0), N=3, T=5)
    with pytest.raises(CTCInputError, match='2'): forced_align_batch(log_probs, [[1], [2], [1, 1, 1, 1]])
    with pytest.raises(CTCInputError): forced_align_batch(log_probs[:, 0], [[1]])
    with pytest.raises(CTCInputError): forced_align_batch(log_probs, [[1], [2]])


def test_batch_of_all_frames_is_the_default():
    log_probs, _, _ = batch_of(np.random.default_rng(1), N=2, T=5)
    assert [len(path) for path, _ in forced_align_batch(log_probs, [[1], [2, 2]])] == [5, 5]


# spans and pixels --------------------------------------------------------------------------------------------------------

@given(words(max_frames=30, max_classes=6))
def test_spans_are_the_characters(word):
    log_probs, labels, blank = word
    path, log_prob = forced_align(log_probs, labels, blank)
    found = spans(path, log_probs, blank)
    assert [s.label for s in found] == labels
    again = np.full(len(path), blank)
    for s in found:
        assert s.start < s.stop
        again[s.start:s.stop] = s.label
    assert again.tolist() == path.tolist()
    blanks = log_probs[path == blank, blank].sum()
    assert sum(s.log_prob for s in found) + blanks == pytest.approx(log_prob, abs=1e-9)
    for s in found:
        probs = np.exp(log_probs[s.start:s.stop, s.label])
        assert probs.min() - 1e-12 <= s.confidence <= probs.max() + 1e-12


def test_spans_of_a_greedy_path():
    log_probs = np.log(PYLSTM)
    found = spans(PYLSTM.argmax(1), log_probs)
    assert [(s.label, s.start, s.stop) for s in found] == [(1, 0, 1), (2, 2, 3)]
    assert [s.confidence for s in found] == pytest.approx([.7, .4])


def test_equal_neighbours_are_two_spans_only_with_a_blank_between():
    log_probs = np.log(np.full((5, 3), 1/3))
    assert len(spans([1, 1, 1, 1, 1], log_probs)) == 1
    assert len(spans([1, 1, 0, 1, 1], log_probs)) == 2
    assert spans([0]*5, log_probs) == [] and spans([], log_probs[:0]) == []


@pytest.mark.parametrize('path', [[1, 2], [[1], [2], [0], [0]], [1, 2, 0, 3], [1, -1, 0, 0]])
def test_spans_refuse_a_path_of_another_word(path):
    with pytest.raises(CTCInputError): spans(path, np.log(PYLSTM))


def span(start, stop, label=1): return Span(label, start, stop, -1., .5)

def edges_of(found): return [(s.start, s.stop) for s in found]


def test_pixels_of_frames():
    found = to_pixels([span(0, 1), span(2, 5, label=3)], stride=4, offset=3.5)
    assert edges_of(found) == [(2, 6), (10, 22)]
    assert [(s.label, s.log_prob, s.confidence) for s in found] == [(1, -1., .5), (3, -1., .5)]
    assert to_pixels([], stride=4, offset=3.5) == []


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(1, 8), st.integers(-4, 8), st.integers(20, 200), st.integers(1, 1000))
def test_pixels_stay_in_the_picture_and_in_order(widths, stride, offset, width, size):
    edges = np.cumsum([0, *widths])
    frames = [span(int(a), int(b)) for a, b in zip(edges, edges[1:])]
    boxes = np.array(edges_of(to_pixels(frames, stride, offset, size=size, width=width)))
    assert 0 <= boxes.min() and boxes.max() <= size + 1e-9
    assert (np.diff(boxes.ravel()) >= -1e-9).all()
    plain = np.array(edges_of(to_pixels(frames, stride, offset)))
    assert boxes == pytest.approx(plain.clip(0, width)*size/width)


def test_pixels_are_those_that_the_network_looks_at():
    "The middle of a frame's columns is the middle of what the gradient says that the convolutions see."
    from crnn_nb.model import CRNN
    crnn = CRNN(1, 32, 100, 37, width=0.125, batch_norm='none').eval()
    image = torch.rand(1, 1, 32, 100, requires_grad=True)
    features = crnn.cnn(image) # (1, C, 1, 24)
    for t in (8, 12, 15): # frames that see no edge of the picture
        seen = torch.autograd.grad(features[..., t].sum(), image, retain_graph=True)[0].abs().sum((0, 1, 2)).nonzero().flatten()
        [found] = to_pixels([span(t, t + 1)], stride=4, offset=3.5)
        assert abs((seen.min() + seen.max() + 1)/2 - (found.start + found.stop)/2) <= 1


@pytest.mark.parametrize('arguments', [dict(stride=0, offset=3.5), dict(stride=-4, offset=3.5), dict(stride=4, offset=3.5, size=50),
                                       dict(stride=4, offset=3.5, width=0), dict(stride=4, offset=3.5, size=-1, width=100)])
def test_pixels_refuse_what_cannot_be(arguments):
    with pytest.raises(CTCInputError): to_pixels([span(0, 1)], **arguments)


# widen -------------------------------------------------------------------------------------------------------------------

def test_widen_shares_the_blanks():
    found = [span(1, 2), span(4, 5), span(5, 6), span(15, 16)]
    assert edges_of(widen(found, 20, reach=2)) == [(0, 3), (3, 5), (5, 8), (13, 18)]
    assert edges_of(widen(found, 20, reach=0)) == edges_of(found)
    assert edges_of(widen(found, 20, reach=100)) == [(0, 3), (3, 5), (5, 10.5), (10.5, 20)]
    assert widen([], 20) == []


@given(words(max_frames=30, max_classes=6), st.floats(0, 5))
def test_widen_keeps_order_and_what_was_there(word, reach):
    log_probs, labels, blank = word
    found = spans(forced_align(log_probs, labels, blank)[0], log_probs, blank)
    wide = widen(found, len(log_probs), reach)
    assert [(s.label, s.log_prob, s.confidence) for s in wide] == [(s.label, s.log_prob, s.confidence) for s in found]
    for a, b in zip(found, wide): assert max(0, a.start - reach) <= b.start <= a.start and a.stop <= b.stop <= min(len(log_probs), a.stop + reach)
    for a, b in zip(wide, wide[1:]): assert a.stop <= b.start


def test_widen_refuses_what_cannot_be():
    with pytest.raises(CTCInputError): widen([span(0, 3)], 2)
    with pytest.raises(CTCInputError): widen([span(0, 3)], 5, reach=-1)


@pytest.mark.parametrize('call, message', [
    (lambda y: forced_align(None, [1]), 'makes no tensor'),
    (lambda y: forced_align(y, [[1], [1, 2]]), 'use forced_align_batch'),
    (lambda y: forced_align(y, torch.tensor([1.], requires_grad=True)), 'one class a character'),
    (lambda y: forced_align_batch(y[:, None], None), 'without target_lengths it is a list of 1 lists'),
    (lambda y: forced_align_batch(y[:, None], [[1], [2, 3]], [6], [1, 2]), 'which makes no tensor'),
    (lambda y: forced_align_batch(y[:, None], [[1]], 'six'), 'input_lengths'),
    (lambda y: spans([0, 1.5, 1.5, 0, 0, 0], y), 'a path is one class a frame: integers'),
    (lambda y: to_pixels([], 4, float('nan')), 'offset=nan'),
    (lambda y: widen([], 6, float('nan')), 'reach=nan'),
    (lambda y: widen(spans([0, 1, 1, 0, 2, 2], y)[::-1], 6), 'not in the order of the frames')])
def test_what_is_no_word_is_named(call, message):
    y = torch.zeros(6, 4).log_softmax(1)
    with pytest.raises(CTCInputError) as e: call(y)
    assert message in str(e.value)
