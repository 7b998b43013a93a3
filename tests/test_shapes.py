"""Packing and the check: vectors from public test suites, properties over random batches, and every classic mistake."""
import math
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from crnn_nb.alphabet import Alphabet, collapse
from crnn_nb.shapes import CTCInputError, check_ctc, concat_targets, frames_needed, min_frames, pad_targets, split_targets, to_concat, to_padded

settings.register_profile('book', deadline=None)
settings.load_profile('book')

labels_list = st.lists(st.lists(st.integers(1, 4), max_size=6), max_size=6)
dtypes = st.sampled_from([torch.int64, torch.int32, torch.int16, torch.uint8])


def log_probs_of(T, N, C, seed=0, dtype=torch.float32):
    return torch.randn(T, N, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).log_softmax(2).to(dtype)


@st.composite
def batches(draw, least=1):
    "A batch that CTC can take: log_probs, labels of each sample, input_lengths, blank."
    N, C, blank = draw(st.integers(1, 5)), draw(st.integers(2, 6)), 0
    blank = draw(st.integers(0, C - 1))
    classes = st.integers(0, C - 1).filter(lambda k: k != blank)
    labels = [draw(st.lists(classes, min_size=least, max_size=6)) for _ in range(N)]
    lengths = [draw(st.integers(max(1, min_frames(row)), max(1, min_frames(row)) + 4)) for row in labels]
    T = max(lengths) + draw(st.integers(0, 2))
    return log_probs_of(T, N, C, draw(st.integers(0, 99))), labels, torch.tensor(lengths), blank


# Packing ---------------------------------------------------------------------------------------------------------------

@given(labels_list, dtypes, st.integers(0, 9))
def test_packing_round_trips(labels, dtype, pad):
    flat, lengths = concat_targets(labels)
    rows, same = pad_targets(labels, pad)
    assert flat.dtype == rows.dtype == lengths.dtype == torch.int64 and torch.equal(lengths, same)
    assert flat.tolist() == [k for row in labels for k in row] and lengths.tolist() == [len(row) for row in labels]
    assert rows.tolist() == [row + [pad]*(rows.shape[1] - len(row)) for row in labels] and rows.shape == (len(labels), max(map(len, labels), default=0))
    for t in (flat, rows, flat.to(dtype)):
        for n in (lengths, lengths.to(dtype), lengths.tolist(), tuple(lengths.tolist()), lengths.numpy()):
            if t.ndim == 2 and not len(t): continue
            assert [x.tolist() for x in split_targets(t, n)] == labels
            assert torch.equal(to_concat(t, n).long(), flat) and torch.equal(to_padded(t, n, pad).long(), rows)
            assert to_concat(t, n).dtype == t.dtype and to_padded(t, n).dtype == t.dtype


@given(labels_list, st.integers(0, 3))
def test_rows_may_be_wider_than_needed(labels, extra):
    if not labels: return
    rows, lengths = pad_targets(labels)
    wide = F.pad(rows, (0, extra), value=7)
    assert [x.tolist() for x in split_targets(wide, lengths)] == labels and torch.equal(to_padded(wide, lengths), rows)


def test_containers_of_labels():
    expected = concat_targets([[1, 2], [3]])[0]
    for row in ([torch.tensor([1, 2]), torch.tensor([3])], [np.array([1, 2]), np.array([3])], ((1, 2), (3,)), [range(1, 3), [3]]):
        assert torch.equal(concat_targets([list(r) if isinstance(r, range) else r for r in row])[0], expected)
    targets, lengths = concat_targets([])
    assert targets.shape == lengths.shape == (0,) and split_targets(targets, lengths) == []


@pytest.mark.parametrize('call, message', [
    (lambda: concat_targets([[1.5]]), r'labels\[0\] has dtype torch.float32'),
    (lambda: concat_targets([[1], [[2]]]), r'labels\[1\] has shape \(1, 1\)'),
    (lambda: concat_targets([3, 4]), r'labels\[0\] has shape \(\)'),
    (lambda: pad_targets([['a']]), r"labels\[0\] is \['a'\], which makes no tensor"),
    (lambda: pad_targets([[True]]), 'torch.bool'),
    (lambda: split_targets([1, 2, 3], [1, 1]), 'targets holds 3 labels, but target_lengths adds up to 2'),
    (lambda: split_targets([1, 2, 3], [4, -1]), r'target_lengths\[0\] is 4'),
    (lambda: split_targets([1, 2, 3], [[1, 2]]), r'use torch.flatten\(target_lengths\)'),
    (lambda: split_targets([[1, 2], [3, 0]], [2, 3]), r'target_lengths\[1\] is 3, but sample 1 has from 0 to 2 labels'),
    (lambda: split_targets([[1, 2], [3, 0]], [2]), 'targets has shape .* so 2 rows, but target_lengths is of 1 samples'),
    (lambda: split_targets([[1, 2], [3, 0], [1, 1]], [2, 1]), 'use targets.T'),
    (lambda: to_padded([[[1]]], [1]), r'targets has shape \(1, 1, 1\)'),
    (lambda: to_concat(None, [1]), 'targets is None, which makes no tensor'),
    (lambda: to_concat([[1], [2, 3]], [1, 2]), 'makes no tensor'),
    (lambda: min_frames(np.zeros((2, 2), int)), r'labels has shape \(2, 2\)')])
def test_packing_refuses(call, message):
    with pytest.raises(CTCInputError, match=message): call()
    assert issubclass(CTCInputError, ValueError)


# Frames needed ---------------------------------------------------------------------------------------------------------

def test_min_frames_against_all_paths():
    for T in range(6):
        written = {tuple(collapse(p)) for p in product(range(3), repeat=T)}
        for text in [t for n in range(T + 2) for t in product([1, 2], repeat=n)]: assert (text in written) == (T >= min_frames(text))


@given(labels_list)
def test_frames_needed_is_min_frames(labels):
    for pack in (concat_targets, pad_targets):
        targets, lengths = pack(labels)
        if targets.ndim == 2 and not len(targets): continue
        assert frames_needed(targets, lengths).tolist() == [min_frames(row) for row in labels]


@given(st.lists(st.integers(1, 2), min_size=1, max_size=5), st.integers(1, 9))
def test_loss_is_infinite_below_the_frames_needed(labels, T):
    loss = F.ctc_loss(log_probs_of(T, 1, 3), torch.tensor([labels]), torch.tensor([T]), torch.tensor([len(labels)]))
    assert math.isinf(loss) == (T < min_frames(labels))


# google-deepmind/optax optax/losses/_classification_test.py::CTCTest.test_repeat_with_one_to_one_alignment
@pytest.mark.parametrize('labels, alignment', [
    ([1, 2, 2, 3], [1, 2, 0, 2, 3]), ([2, 3, 4, 4], [2, 3, 4, 0, 4]), ([1, 1, 1, 1], [1, 0, 1, 0, 1, 0, 1]), ([1, 1, 2, 3], [1, 0, 1, 2, 3]), ([1, 1, 1, 2], [1, 0, 1, 0, 1, 2])])
def test_optax_repeats(labels, alignment):
    T = len(alignment)
    assert min_frames(labels) == T and collapse(alignment) == labels
    log_probs = log_probs_of(T, 1, 5, dtype=torch.float64)
    args = torch.tensor([labels]), torch.tensor([T]), torch.tensor([len(labels)])
    check_ctc(log_probs, *args)
    assert F.ctc_loss(log_probs, *args, reduction='sum').item() == pytest.approx(-sum(log_probs[t, 0, k].item() for t, k in enumerate(alignment)), abs=1e-9)
    short = torch.tensor([labels]), torch.tensor([T - 1]), torch.tensor([len(labels)])
    with pytest.raises(CTCInputError, match=f'needs {T} frames .* but has {T - 1}'): check_ctc(log_probs, *short)
    assert math.isinf(F.ctc_loss(log_probs, *short))


# pytorch/pytorch test/test_nn.py, TestNN.test_CTCLoss_* ----------------------------------------------------------------

def pytorch_case(T, N, C, target_lengths, S=None, input_lengths=None):
    g = torch.Generator().manual_seed(0)
    S = max(target_lengths) if S is None else S
    return log_probs_of(T, N, C), torch.randint(1, C, (N, S), generator=g), torch.tensor(input_lengths or [T]*N), torch.tensor(target_lengths)


def test_pytorch_zero_lengths():
    "T = 1, N = 3, C = 200, no frames and no labels: loss and gradient 0."
    log_probs, targets, il, tl = pytorch_case(1, 3, 200, [0, 0, 0], S=1, input_lengths=[0, 0, 0])
    with pytest.raises(CTCInputError, match='sample 0 has an empty target.* Likewise samples 1, 2'): check_ctc(log_probs, targets, il, tl)
    check_ctc(log_probs, targets, il, tl, allow_empty=True)
    x = log_probs.requires_grad_()
    loss = F.ctc_loss(x, targets, il, tl, reduction='sum')
    loss.backward()
    assert loss == 0 and x.grad.abs().sum() == 0


def test_pytorch_zero_input_length_and_a_target():
    log_probs, targets, il, tl = pytorch_case(1, 3, 200, [1, 1, 1], input_lengths=[0, 0, 0])
    with pytest.raises(CTCInputError, match='sample 0 needs 1 frames .* but has 0'): check_ctc(log_probs, targets, il, tl)
    check_ctc(log_probs, targets, il, tl, allow_infeasible=True)
    assert F.ctc_loss(log_probs, targets, il, tl, reduction='none').isinf().all()


def test_pytorch_zero_infinity():
    log_probs, targets, il, tl = pytorch_case(50, 3, 15, [60, 25, 20])
    with pytest.raises(CTCInputError, match=r'sample 0 needs \d+ frames \(labels: 60, repeats: \d+\), but has 50'): check_ctc(log_probs, targets, il, tl)
    check_ctc(log_probs, targets, il, tl, allow_infeasible=True)
    x = log_probs.requires_grad_()
    loss = F.ctc_loss(x, targets, il, tl, zero_infinity=True, reduction='none')
    loss.sum().backward()
    assert loss[0] == 0 and loss[1:].isfinite().all() and not x.grad.isnan().any()


@pytest.mark.parametrize('T, N, C, target_lengths', [(500, 1, 10, [256]), (4000, 4, 3, [1200]*4), (50, 3, 15, [30, 25, 20])])
def test_pytorch_sizes_pass(T, N, C, target_lengths):
    log_probs, targets, il, tl = pytorch_case(T, N, C, target_lengths)
    for t in (targets, to_concat(targets, tl)): check_ctc(log_probs, t, il, tl)


@pytest.mark.parametrize('bad, message', [([30, 25, 20], r'target_lengths\[0\] is 30, but sample 0 has from 0 to 29 labels'), ([-1, -1, -1], r'target_lengths\[0\] is -1')])
def test_pytorch_lengthchecks(bad, message):
    log_probs, targets, il, tl = pytorch_case(50, 3, 15, bad, S=29)
    with pytest.raises(CTCInputError, match=message): check_ctc(log_probs, targets, il, tl)
    with pytest.raises(RuntimeError): F.ctc_loss(log_probs, targets, il, tl)


# The check against PyTorch ---------------------------------------------------------------------------------------------

@given(batches(least=0))
def test_what_passes_has_a_finite_loss_and_gradient(batch):
    log_probs, labels, input_lengths, blank = batch
    before = log_probs.clone()
    for targets, lengths in (concat_targets(labels), pad_targets(labels)):
        check_ctc(log_probs, targets, input_lengths, lengths, blank, allow_empty=True)
        x = log_probs.clone().requires_grad_()
        loss = F.ctc_loss(x, targets, input_lengths, lengths, blank, reduction='sum')
        loss.backward()
        assert loss.isfinite() and x.grad.isfinite().all()
    assert torch.equal(log_probs, before)


@given(batches(), st.data())
@settings(max_examples=200)
def test_one_mistake_is_found_and_its_sample_named(batch, data):
    log_probs, labels, il, blank = batch
    T, N, C = log_probs.shape
    n = data.draw(st.integers(0, N - 1))
    s = data.draw(st.integers(0, len(labels[n]) - 1))
    kind = data.draw(st.sampled_from(['blank', 'above', 'below', 'short', 'beyond', 'negative', 'empty', 'nan', 'logits', 'impossible', 'more', 'fewer']))
    labels, il, log_probs = [list(row) for row in labels], il.clone(), log_probs.clone()
    t = data.draw(st.integers(0, int(il[n]) - 1))
    expected = f'sample {n}\\b'
    if kind == 'blank': labels[n][s], expected = blank, f'sample {n}: label {s} is {blank}, the blank'
    if kind == 'above': labels[n][s], expected = C + data.draw(st.integers(0, 10**9)), f'sample {n}: label {s} is \\d+, but the classes are 0 to {C - 1}'
    if kind == 'below': labels[n][s], expected = -1 - data.draw(st.integers(0, 9)), f'sample {n}: label {s} is -\\d+, but the classes'
    if kind == 'short': il[n], expected = min_frames(labels[n]) - 1, f'sample {n} needs {min_frames(labels[n])} frames .* but has {min_frames(labels[n]) - 1}'
    if kind == 'beyond': il[n], expected = T + 1, f'input_lengths\\[{n}\\] is {T + 1}, but sample {n} has from 0 to {T} frames'
    if kind == 'negative': il[n], expected = -3, f'input_lengths\\[{n}\\] is -3'
    if kind == 'empty': labels[n], expected = [], f'sample {n} has an empty target'
    if kind == 'nan': log_probs[t, n, data.draw(st.integers(0, C - 1))], expected = float('nan'), f'log_probs is nan at frame {t} of sample {n}'
    if kind == 'logits': log_probs[t, n], expected = log_probs[t, n] + 1, f'frame {t} of sample {n} add up to 2.718'
    if kind == 'impossible': log_probs[t, n], expected = -float('inf'), f'frame {t} of sample {n} add up to 0, not 1. Every class is impossible'
    for pack in (concat_targets, pad_targets):
        targets, lengths = pack(labels)
        if kind == 'more': lengths[n], expected = 99, f'target_lengths\\[{n}\\] is 99, but sample {n}'
        if kind == 'fewer':
            if targets.ndim == 2: continue
            lengths[n], expected = lengths[n] - 1, 'targets holds'
        with pytest.raises(CTCInputError, match=expected): check_ctc(log_probs, targets, il, lengths, blank)


@given(batches(), st.data())
def test_frames_behind_the_lengths_may_hold_anything(batch, data):
    log_probs, labels, il, blank = batch
    behind = torch.arange(log_probs.shape[0])[:, None] >= il
    dirty = log_probs.masked_fill(behind[..., None], data.draw(st.sampled_from([0., float('nan'), float('inf'), -float('inf')])))
    check_ctc(dirty, *(lambda t, n: (t, il, n))(*concat_targets(labels)), blank)


# The classic mistakes --------------------------------------------------------------------------------------------------

LOGITS = torch.randn(12, 3, 6, generator=torch.Generator().manual_seed(1))
LP = LOGITS.log_softmax(2)
PADDED, TL = pad_targets([Alphabet('abcde').encode(w) for w in ('abcd', 'bbc', 'ea')])
TARGETS, IL = to_concat(PADDED, TL), torch.tensor([12, 12, 12])


def changed(x, index, value):
    x = x.clone()
    x[index] = value
    return x


MISTAKES = {
    'axes': (LP.transpose(0, 1), TARGETS, IL, TL, 'It looks like .N, T, C.: use log_probs.transpose'),
    'classes first': (LP.permute(2, 1, 0)[:, :2], TARGETS, IL, TL, 'Frames come first, then samples'),
    'logits': (LOGITS + 3, TARGETS, IL, TL, 'logits.log_softmax'),
    'probabilities': (LP.exp(), TARGETS, IL, TL, 'use log_softmax instead of softmax'),
    'over frames': (LOGITS.log_softmax(0), TARGETS, IL, TL, 'along another dimension'),
    'over samples': (LOGITS.log_softmax(1), TARGETS, IL, TL, 'along another dimension'),
    'one length': (LP, TARGETS, torch.tensor(12), TL, 'input_lengths has 1 numbers'),
    'a number': (LP, TARGETS, 12, TL, 'input_lengths has 1 numbers'),
    'lengths of frames': (LP, TARGETS, torch.full((12,), 3), TL, 'input_lengths has 12 numbers'),
    'column of input lengths': (LP, TARGETS, IL[:, None], TL, r'use torch.flatten\(input_lengths\)'),
    'column of target lengths': (LP, TARGETS, IL, TL[:, None], r'use torch.flatten\(target_lengths\)'),
    'few target lengths': (LP, TARGETS, IL, TL[:2], 'target_lengths has 2 numbers'),
    'pixels': (LP, TARGETS, torch.tensor([12, 100, 100]), TL, r'input_lengths\[1\] is 100, but sample 1 has from 0 to 12 frames. Likewise sample 2'),
    'swapped lengths': (LP, PADDED, TL, IL, r'target_lengths\[0\] is 12'),
    'from zero': (LP, TARGETS - 1, IL, TL, r"sample 0 \('·abc'\): label 0 is 0, the blank"),
    'counted padding': (LP, PADDED, IL, torch.tensor([4, 4, 4]), r"sample 1 \('bbc·'\): label 3 is 0"),
    'class too many': (LP, changed(TARGETS, 3, 6), IL, TL, r"sample 0 \('abc·'\): label 3 is 6, but the classes are 0 to 5"),
    'class far out': (LP, changed(TARGETS, 3, 10**10), IL, TL, 'label 3 is 10000000000'),
    'does not fit': (LP, TARGETS, torch.tensor([12, 3, 12]), TL, r"sample 1 \('bbc'\) needs 4 frames \(labels: 3, repeats: 1\), but has 3"),
    'empty': (LP, torch.tensor([1, 2, 3, 4, 5, 1]), IL, torch.tensor([4, 0, 2]), 'sample 1 has an empty target'),
    'float targets': (LP, TARGETS + .9, IL, TL, r'use targets.long\(\)'),
    'float lengths': (LP, TARGETS, IL.float(), TL, r'use input_lengths.long\(\)'),
    'half': (LP.half(), TARGETS, IL, TL, r'use log_probs.float\(\)'),
    'integers': (LP.long(), TARGETS, IL, TL, r'use log_probs.float\(\)'),
    'nan': (changed(LP, (7, 1, 5), float('nan')), TARGETS, IL, TL, 'nan at frame 7 of sample 1, class 5'),
    'masked': (changed(LP, (9, 2), -float('inf')), TARGETS, IL, TL, 'shorten input_lengths instead'),
    'total': (LP, TARGETS[:-1], IL, TL, 'targets holds 8 labels, but target_lengths adds up to 9'),
    'transposed targets': (LP, PADDED.T, IL, TL, 'use targets.T'),
    'no frames': (LP[:0], TARGETS, IL, TL, 'there is nothing in it'),
    'no samples': (LP[:, :0], TARGETS, IL, TL, 'there is nothing in it'),
    'four dimensions': (LP[None], TARGETS, IL, TL, r'log_probs has shape \(1, 12, 3, 6\), but it must be \(T, N, C\)'),
    'two dimensions': (LP[:, 0], TARGETS, IL, TL, r'log_probs has shape \(12, 6\)'),
    'no tensor': ('log_probs', TARGETS, IL, TL, 'log_probs is a str'),
    'lists of strings': (LP, ['abcd', 'bbc', 'ea'], IL, TL, 'targets is .* which makes no tensor'),
}


@pytest.mark.parametrize('name', MISTAKES)
def test_mistakes(name):
    *args, message = MISTAKES[name]
    with pytest.raises(CTCInputError, match=message): check_ctc(*args, chars='abcde')


def test_the_batch_of_the_mistakes_is_right():
    for targets in (TARGETS, PADDED, TARGETS.int(), TARGETS.numpy(), TARGETS.tolist()):
        for make in (torch.tensor, np.array, list, tuple): check_ctc(LP, targets, make(IL.tolist()), make(TL.tolist()), chars='abcde')
    check_ctc(LP.double().requires_grad_(), PADDED, IL, TL)
    check_ctc(LP.numpy(), PADDED, IL, TL)


def test_the_unseen_mistakes_are_as_the_chapter_says():
    "Frames and samples of equal number, and lengths in another order, cannot be found."
    square = torch.randn(12, 12, 6).log_softmax(2)
    check_ctc(square.transpose(0, 1), torch.ones(12, 1).long(), torch.full((12,), 12), torch.ones(12).long())
    check_ctc(LP, TARGETS, IL, TL.flip(0))


def test_one_sample_without_a_batch():
    for il, tl in ((12, 3), ([12], [3]), (torch.tensor(12), torch.tensor([3]))): check_ctc(LP[:, 0], [1, 2, 3], il, tl)
    with pytest.raises(CTCInputError, match='sample 0 needs 3 frames'): check_ctc(LP[:, 0], [1, 2, 3], 2, 3)


def test_switches():
    check_ctc(LP, TARGETS, [12, 3, 12], TL, allow_infeasible=True)
    check_ctc(LP, [1, 2, 3, 4, 5, 1], IL, [4, 0, 2], allow_empty=True)
    check_ctc(LOGITS, TARGETS, IL, TL, values=False)


def test_blank_and_characters():
    for blank in (6, -1, True, None, 1.0):
        with pytest.raises(CTCInputError, match=f'blank is {blank}'): check_ctc(LP, TARGETS, IL, TL, blank=blank)
    with pytest.raises(CTCInputError, match='log_probs has 6 classes, but 36 characters and the blank make 37'): check_ctc(LP, TARGETS, IL, TL, chars=Alphabet())
    with pytest.raises(CTCInputError, match=r"sample 1 \('bbc'\) needs 4"): check_ctc(LP, TARGETS - 1, [12, 3, 12], TL, blank=5, chars=Alphabet('abcde'))
    check_ctc(LP, TARGETS, IL, TL, chars=Alphabet('abcde'))
    with pytest.raises(CTCInputError, match='the only class is the blank'): check_ctc(torch.zeros(4, 1, 1), [], [4], [0])


def test_values_survive_a_rounded_softmax():
    "A log-softmax that went through bfloat16 is not taken for logits."
    for dtype in (torch.bfloat16, torch.float16):
        rough = torch.randn(24, 1000, 37, generator=torch.Generator().manual_seed(0)).to(dtype).log_softmax(2).float()
        check_ctc(rough, torch.ones(1000, 1).long(), torch.full((1000,), 24), torch.ones(1000).long())
    with pytest.raises(CTCInputError, match='add up to 1.03'): check_ctc(LP + .03, TARGETS, IL, TL)


def test_out_of_range_classes_end_a_process():
    "What the chapter says of PyTorch: a class far outside is read from memory that is not there."
    code = ('import torch, torch.nn.functional as F; F.ctc_loss(torch.zeros(12, 1, 6).log_softmax(2), torch.tensor([10**10]), '
            'torch.tensor([12]), torch.tensor([1]))')
    assert subprocess.run([sys.executable, '-c', code], capture_output=True).returncode != 0


def test_import_is_light():
    code = 'import sys, torch; before = set(sys.modules); import crnn_nb.shapes; print([m for m in ("matplotlib", "IPython", "numba", "rapidfuzz") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'


def test_blank_of_numpy_and_torch_is_a_class():
    y = torch.zeros(6, 1, 4).log_softmax(2)
    for blank in (0, np.int64(0), torch.tensor(0)): check_ctc(y, [1, 2], [6], [2], blank=blank)
    for blank in (True, '–', .5, None, 4):
        with pytest.raises(CTCInputError, match='blank is'): check_ctc(y, [1, 2], [6], [2], blank=blank)


@pytest.mark.parametrize('call, message', [
    (lambda: concat_targets(None), 'list of the labels of N texts'),
    (lambda: concat_targets('ab'), 'list of the labels of N texts'),
    (lambda: min_frames(None), 'a sequence (S,)'),
    (lambda: check_ctc(torch.zeros(6, 1, 4).log_softmax(2), [1], [6], [1], chars=3), 'chars is 3')])
def test_what_is_no_list_is_named(call, message):
    with pytest.raises(CTCInputError) as e: call()
    assert message in str(e.value)


@pytest.mark.parametrize('dtype', [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64], ids=str)
def test_integers_of_every_dtype(dtype):
    C = 300
    log_probs, targets, lengths = log_probs_of(9, 2, C), torch.tensor([3, 1, 2, 2, 5]).to(dtype), torch.tensor([2, 3]).to(dtype)
    check_ctc(log_probs, targets, torch.tensor([9, 9]).to(dtype), lengths)
    check_ctc(log_probs, to_padded(targets, lengths), torch.tensor([9, 9]).to(dtype), lengths)
    assert to_padded(targets, lengths).tolist() == [[3, 1, 0], [2, 2, 5]] and to_concat(to_padded(targets, lengths), lengths).tolist() == targets.tolist()
    assert [x.tolist() for x in split_targets(targets, lengths)] == [[3, 1], [2, 2, 5]] and frames_needed(targets, lengths).tolist() == [2, 4]
    with pytest.raises(CTCInputError, match='adds up to 6'): check_ctc(log_probs, targets, [9, 9], torch.tensor([2, 4]).to(dtype))
    with pytest.raises(CTCInputError, match='label 0 is 0, the blank'): check_ctc(log_probs, torch.tensor([0, 1]).to(dtype), [9, 9], [1, 1])
    with pytest.raises(CTCInputError, match='label 0 is 5, but the classes'): check_ctc(log_probs_of(9, 1, 4), torch.tensor([5]).to(dtype), [9], [1])
