"""The loss against enumeration, against PyTorch, against the numbers of other projects' test suites, and where scaled probabilities end."""
import math
import os
import subprocess
import sys
from itertools import groupby, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings, strategies as st

from crnn_nb.loss import (CTCLoss, CTCLossError, backward, can_skip, class_posterior, ctc_loss, enumerate_paths, extend, forward,
                          log_prob, log_prob_enumerated, over_batch, posterior)
from crnn_nb.shapes import CTCInputError, concat_targets, min_frames, pad_targets

REDUCTIONS = ['none', 'sum', 'mean']
quick = settings(deadline=None, derandomize=True, max_examples=200)
thorough = settings(deadline=None, derandomize=True, max_examples=600)


# What the tests share ----------------------------------------------------------------------------------------------------

def torch_ctc(log_probs, targets, input_lengths, target_lengths, **kwargs):
    "PyTorch's loss; it wants both lengths of one kind."
    return F.ctc_loss(log_probs, targets, torch.as_tensor(input_lengths), torch.as_tensor(target_lengths), **kwargs)


def probability_of_each_text(log_probs, blank):
    "The referee, written apart from the package: every path is tried, and its probability goes to the text it collapses to."
    T, C = log_probs.shape
    texts = {}
    for path in product(range(C), repeat=T):
        text = tuple(k for k, _ in groupby(path) if k != blank)
        texts[text] = texts.get(text, 0.) + math.exp(sum(log_probs[t, k] for t, k in enumerate(path)))
    return texts


def random_log_probs(*shape, seed=0, scale=1., dtype=torch.float64):
    return (scale*torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).log_softmax(-1).to(dtype)


def random_logits(*shape, seed=0, scale=1.): return scale*torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value_and_grad(loss, logits, targets, input_lengths, target_lengths, weights=None, **kwargs):
    "The loss, and its gradient with respect to the logits; `weights` for the losses of the samples with reduction none."
    leaf = logits.clone().requires_grad_()
    value = loss(leaf.log_softmax(-1), targets, input_lengths, target_lengths, **kwargs)
    (value.sum() if weights is None else (value*weights).sum()).backward()
    return value.detach(), leaf.grad


def assert_same(ours, theirs, tolerance):
    "Equal values with infinities and nan in the same places; the tolerance counts from the size of the value, at least 1."
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert torch.equal(a.isnan(), b.isnan()) and torch.equal(a.isinf(), b.isinf())
        a, b = (torch.where(x.isfinite(), x, 0).double() for x in (a, b))
        assert ((a - b).abs() <= tolerance*b.abs().clamp(min=1)).all(), (a - b).abs().max()


def texts_that_fit(rng, N, T, C, blank, repeats=.3):
    "Labels of N samples that fit into T frames, with many equal neighbours."
    classes = [k for k in range(C) if k != blank]
    texts = []
    for _ in range(N):
        text = rng.choice(classes, rng.integers(0, T + 1)).tolist()
        for i in range(1, len(text)):
            if rng.random() < repeats: text[i] = text[i-1]
        while min_frames(text) > T: text.pop()
        texts.append(text)
    return texts


# Other projects' numbers -------------------------------------------------------------------------------------------------

# tensorflow/tensorflow, tensorflow/python/kernel_tests/nn_ops/ctc_loss_op_test.py, CTCLossTest.testBasic (Apache-2.0); the numbers are Alex Graves's, and
# baidu-research/warp-ctc, tests/test_cpu.cpp, options_test has the same ones. Rows are frames, the blank is class 5. Its tables of alpha and beta leave out states
# that cannot reach the end, or be reached, so they are compared where they hold a number; so are gradients, which are those of the logits.
_ = -math.inf
GRAVES = [dict(
    probs=[[0.633766, 0.221185, 0.0917319, 0.0129757, 0.0142857, 0.0260553],
           [0.111121, 0.588392, 0.278779, 0.0055756, 0.00569609, 0.010436],
           [0.0357786, 0.633813, 0.321418, 0.00249248, 0.00272882, 0.0037688],
           [0.0663296, 0.643849, 0.280111, 0.00283995, 0.0035545, 0.00331533],
           [0.458235, 0.396634, 0.123377, 0.00648837, 0.00903441, 0.00623107]],
    target=[0, 1, 2, 1, 0], loss=3.34211,
    alpha=[[-3.64753, -0.456075, _, _, _, _, _, _, _, _, _],
           [_, _, _, -0.986437, _, _, _, _, _, _, _],
           [_, _, _, _, _, -2.12145, _, _, _, _, _],
           [_, _, _, _, _, _, _, -2.56174, _, _, _],
           [_, _, _, _, _, _, _, _, _, -3.34211, _]],
    beta=[[_, -2.88604, _, _, _, _, _, _, _, _, _],
          [_, _, _, -2.35568, _, _, _, _, _, _, _],
          [_, _, _, _, _, -1.22066, _, _, _, _, _],
          [_, _, _, _, _, _, _, -0.780373, _, _, _],
          [_, _, _, _, _, _, _, _, _, 0, 0]],
    grad=[[-0.366234, 0.221185, 0.0917319, 0.0129757, 0.0142857, 0.0260553],
          [0.111121, -0.411608, 0.278779, 0.0055756, 0.00569609, 0.010436],
          [0.0357786, 0.633813, -0.678582, 0.00249248, 0.00272882, 0.0037688],
          [0.0663296, -0.356151, 0.280111, 0.00283995, 0.0035545, 0.00331533],
          [-0.541765, 0.396634, 0.123377, 0.00648837, 0.00903441, 0.00623107]]
), dict(
    probs=[[0.30176, 0.28562, 0.0831517, 0.0862751, 0.0816851, 0.161508],
           [0.24082, 0.397533, 0.0557226, 0.0546814, 0.0557528, 0.19549],
           [0.230246, 0.450868, 0.0389607, 0.038309, 0.0391602, 0.202456],
           [0.280884, 0.429522, 0.0326593, 0.0339046, 0.0326856, 0.190345],
           [0.423286, 0.315517, 0.0338439, 0.0393744, 0.0339315, 0.154046]],
    target=[0, 1, 1, 0], loss=5.42262,
    alpha=[[-1.8232, -1.19812, _, _, _, _, _, _, _],
           [_, -2.19315, -2.83037, -2.1206, _, _, _, _, _],
           [_, _, _, -2.03268, -3.71783, _, _, _, _],
           [_, _, _, _, _, -4.56292, _, _, _],
           [_, _, _, _, _, _, _, -5.42262, _]],
    beta=[[_, -4.2245, _, _, _, _, _, _, _],
          [_, _, _, -3.30202, _, _, _, _, _],
          [_, _, _, _, -1.70479, -0.856738, _, _, _],
          [_, _, _, _, _, -0.859706, -0.859706, -0.549337, _],
          [_, _, _, _, _, _, _, 0, 0]],
    grad=[[-0.69824, 0.28562, 0.0831517, 0.0862751, 0.0816851, 0.161508],
          [0.24082, -0.602467, 0.0557226, 0.0546814, 0.0557528, 0.19549],
          [0.230246, 0.450868, 0.0389607, 0.038309, 0.0391602, -0.797544],
          [0.280884, -0.570478, 0.0326593, 0.0339046, 0.0326856, 0.190345],
          [-0.576714, 0.315517, 0.0338439, 0.0393744, 0.0339315, 0.154046]])]


@pytest.mark.parametrize('case', GRAVES)
def test_graves_alpha_beta_and_loss(case):
    y = np.log(case['probs'])
    alpha, beta = forward(y, case['target'], blank=5), backward(y, case['target'], blank=5)
    for ours, theirs in ((alpha, np.array(case['alpha'])), (beta, np.array(case['beta']))):
        there = np.isfinite(theirs)
        assert there.sum() > 4
        assert ours[there] == pytest.approx(theirs[there], abs=1e-5)
    assert np.logaddexp.reduce(alpha + beta, axis=1) == pytest.approx(np.full(5, -case['loss']), abs=1e-5)
    # alpha + beta, unlike each of them, is in their tables for every state that a complete path can pass
    assert (alpha + beta)[np.isfinite(case['alpha']) & np.isfinite(case['beta'])] == pytest.approx(
        (np.array(case['alpha']) + case['beta'])[np.isfinite(case['alpha']) & np.isfinite(case['beta'])], abs=2e-5)


@pytest.mark.parametrize('case', GRAVES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_graves_loss_and_gradient(case, dtype):
    loss, grad = value_and_grad(ctc_loss, torch.tensor(case['probs'], dtype=dtype).log()[:, None], torch.tensor(case['target']), (5,), (len(case['target']),),
                                blank=5, reduction='sum')
    assert loss.item() == pytest.approx(case['loss'], abs=1e-5)
    assert grad[:, 0].numpy() == pytest.approx(np.array(case['grad']), abs=2e-6)


def test_graves_batch_of_both():
    "Both in one batch, as in warp-ctc's options_test: the sum of the losses, concatenated labels of different lengths."
    logits = torch.tensor([case['probs'] for case in GRAVES]).log().transpose(0, 1)
    targets, lengths = concat_targets([case['target'] for case in GRAVES])
    loss, grad = value_and_grad(ctc_loss, logits, targets.int(), torch.tensor([5, 5], dtype=torch.int32), lengths.int(), blank=5, reduction='sum')
    assert loss.item() == pytest.approx(sum(case['loss'] for case in GRAVES), abs=1e-5)
    for n, case in enumerate(GRAVES): assert grad[:, n].numpy() == pytest.approx(np.array(case['grad']), abs=2e-6)


# baidu-research/warp-ctc, tests/test_cpu.cpp, small_test (Apache-2.0): two frames and two labels, so one path.
def test_warpctc_small():
    logits = torch.tensor([[.1, .6, .1, .1, .1], [.1, .1, .6, .1, .1]], dtype=torch.float64)
    said = logits.softmax(1)
    loss, grad = value_and_grad(ctc_loss, logits[:, None], torch.tensor([1, 2], dtype=torch.int32), torch.tensor([2]), torch.tensor([2]), reduction='sum')
    assert math.exp(-loss.item()) == pytest.approx((said[0, 1]*said[1, 2]).item(), abs=1e-12)
    assert grad[:, 0].numpy() == pytest.approx((said - F.one_hot(torch.tensor([1, 2]), 5)).numpy(), abs=1e-12)


# The ctc_loss test of flax's users (init2winit, losses_test.py, test_ctc_loss): logits, blank 0.
def test_flax_ctc():
    logits = torch.tensor([[.1, .8, .1], [.1, .1, .8]])
    assert ctc_loss(logits.log_softmax(1), torch.tensor([1, 2]), (2,), (2,), reduction='sum').item() == pytest.approx(1.379453, abs=1e-6)


# google-deepmind/optax, optax/losses/_classification_test.py, CTCTest.test_repeat_with_one_to_one_alignment (Apache-2.0):
# in as many frames as a text needs there is one path, and one frame less is too few.
ONE_PATH = [([1, 2, 2, 3], [1, 2, 0, 2, 3]), ([2, 3, 4, 4], [2, 3, 4, 0, 4]), ([1, 1, 1, 1], [1, 0, 1, 0, 1, 0, 1]),
            ([1, 1, 2, 3], [1, 0, 1, 2, 3]), ([1, 1, 1, 2], [1, 0, 1, 0, 1, 2])]

@pytest.mark.parametrize('labels, only', ONE_PATH)
def test_optax_one_path_where_the_text_fills_the_frames(labels, only):
    y = random_log_probs(len(only), 5)
    by_hand = y[range(len(only)), only].sum().item()
    assert log_prob(y, labels) == pytest.approx(by_hand, abs=1e-12)
    assert -ctc_loss(y, torch.tensor(labels), (len(only),), (len(labels),), reduction='sum').item() == pytest.approx(by_hand, abs=1e-12)
    assert posterior(y, labels).sum() == pytest.approx(len(only))
    assert log_prob(y[1:], labels) == -math.inf
    assert ctc_loss(y[1:], torch.tensor(labels), (len(only) - 1,), (len(labels),)).item() == math.inf


def test_optax_batch_of_all():
    "The five texts in one batch, each over the frames it needs, the rest of the frames padding."
    frames = torch.tensor([len(only) for _, only in ONE_PATH])
    y = random_log_probs(7, 5, 5)
    targets, lengths = pad_targets([labels for labels, _ in ONE_PATH])
    losses = ctc_loss(y, targets, frames, lengths, reduction='none')
    assert losses.tolist() == pytest.approx([-y[range(len(only)), n, only].sum().item() for n, (_, only) in enumerate(ONE_PATH)])
    assert ctc_loss(y, targets, frames - 1, lengths, reduction='none').tolist() == [math.inf]*5


# pylstm, test_error_functions.py, CTCTest: tables [state][frame] in probabilities, blank 0. They too hold 0 where a state cannot reach the end or be reached.
PYLSTM = [[.1, .7, .2], [.8, .1, .1], [.3, .3, .4], [.7, .1, .2]]
PYLSTM_CASES = [
    ([1, 2], [[.1, .08, 0, 0], [.7, .08, .048, 0], [0, .56, .192, 0], [0, .07, .284, .1048], [0, 0, .021, .2135]],
             [[.096, .06, 0, 0], [.441, .48, .2, 0], [0, .42, .2, 0], [0, .57, .9, 1], [0, 0, .7, 1]]),
    ([1, 1], [[.1, .08, 0, 0], [.7, .08, .048, 0], [0, .56, .192, 0], [0, 0, .168, .036], [0, 0, 0, .1176]],
             [[.003, 0, 0, 0], [.219, .03, 0, 0], [0, .27, .1, 0], [0, .45, .8, 1], [0, 0, .7, 1]])]

@pytest.mark.parametrize('labels, alpha, beta', PYLSTM_CASES)
def test_pylstm_alpha_and_beta(labels, alpha, beta):
    alpha, beta, y = np.array(alpha).T, np.array(beta).T, np.log(PYLSTM)
    ours, ours_back = np.exp(forward(y, labels)), np.exp(backward(y, labels))
    assert ours[alpha > 0] == pytest.approx(alpha[alpha > 0], abs=1e-9)
    assert ours_back[beta > 0] == pytest.approx(beta[beta > 0], abs=1e-9)
    assert (ours*ours_back) == pytest.approx(alpha*beta, abs=1e-9) # in every state: where a table holds 0, no complete path passes
    assert (ours*ours_back).sum(1) == pytest.approx(np.full(4, alpha[-1, -2:].sum()), abs=1e-9)


# githubharald/CTCDecoder, tests/test_mini_example.py and issue 26 (MIT): the blank is the last class.
def test_ctcdecoder_mini_example():
    with np.errstate(divide='ignore'): y = np.log([[.4, 0, .6], [.4, 0, .6]])
    assert math.exp(log_prob(y, [0], blank=2)) == pytest.approx(.64)
    assert ctc_loss(torch.tensor(y), torch.tensor([0]), (2,), (1,), blank=2, reduction='sum').item() == pytest.approx(0.446287102628, abs=1e-12)


# Test of the text encoder in a public course's speech template (hw_asr, test_text_encoder.py): all texts of two frames, blank last.
@pytest.mark.parametrize('labels, prob', [([0], .42), ([], .3), ([1], .19), ([0, 1], .06), ([1, 0], .03)])
def test_all_texts_of_two_frames(labels, prob):
    y = np.log([[.3, .1, .6], [.3, .2, .5]])
    assert math.exp(log_prob(y, labels, blank=2)) == pytest.approx(prob)
    assert math.exp(log_prob_enumerated(y, labels, blank=2)) == pytest.approx(prob)


# tensorflow, ctc_decoder_ops_test.py, testCTCDecoderBeamSearch (Apache-2.0): numbers are logits, blank 5. A beam of two finds some of the paths of a text,
# so its log-probability may not exceed the text's own.
TF_BEAM = [[0.30999, 0.309938, 0.0679938, 0.0673362, 0.0708352, 0.173908], [0.215136, 0.439699, 0.0370931, 0.0393967, 0.0381581, 0.230517],
           [0.199959, 0.489485, 0.0233221, 0.0251417, 0.0233289, 0.238763], [0.279611, 0.452966, 0.0204795, 0.0209126, 0.0194803, 0.20655],
           [0.51286, 0.288951, 0.0243026, 0.0220788, 0.0219297, 0.129878]]

@pytest.mark.parametrize('labels, of_the_beam', [([1, 0], -5.811451), ([1], -6.63339)])
def test_tensorflow_beam_is_below_the_text(labels, of_the_beam):
    y = torch.tensor(TF_BEAM, dtype=torch.float64).log_softmax(1)
    exact = probability_of_each_text(y.numpy(), 5)[tuple(labels)]
    assert log_prob(y, labels, blank=5) == pytest.approx(math.log(exact), abs=1e-12)
    assert log_prob(y, labels, blank=5) > of_the_beam


# PyTorch's documented edge cases: pytorch/pytorch, test/test_nn.py, TestNN.test_CTCLoss_*, and torch/testing/_internal/common_nn.py, ctcloss_reference -----------

def test_pytorch_zero_lengths():
    "No frames and no labels: loss 0, gradient 0."
    leaf = random_log_probs(1, 3, 200).requires_grad_()
    zeros = torch.tensor([0, 0, 0])
    losses = ctc_loss(leaf, torch.randint(1, 200, (3, 0)), zeros, zeros, reduction='none')
    assert losses.tolist() == [0., 0., 0.]
    losses.sum().backward()
    assert (leaf.grad == 0).all()


def test_pytorch_zero_input_lengths_with_labels():
    "No frames for a label: infinite, or 0 with zero_infinity; no frame has a gradient either way."
    zeros, ones, targets = torch.tensor([0, 0, 0]), torch.tensor([1, 1, 1]), torch.tensor([[5], [6], [7]])
    for zero_infinity, want in ((False, math.inf), (True, 0.)):
        leaf = random_log_probs(1, 3, 200).requires_grad_()
        losses = ctc_loss(leaf, targets, zeros, ones, reduction='none', zero_infinity=zero_infinity)
        assert losses.tolist() == [want]*3
        losses.sum().backward()
        assert (leaf.grad == 0).all()


def test_pytorch_zero_infinity():
    "Sixty labels in fifty frames beside two texts that fit: counted as 0, its gradient 0, the others as they are alone."
    targets, input_lengths, lengths = torch.randint(1, 15, (60 + 25 + 20,)), torch.tensor([50, 50, 50]), torch.tensor([60, 25, 20])
    logits = random_logits(50, 3, 15)
    loss, grad = value_and_grad(ctc_loss, logits, targets, input_lengths, lengths, reduction='sum', zero_infinity=True)
    _, apart = value_and_grad(ctc_loss, logits[:, 1:], targets[60:], input_lengths[1:], lengths[1:], reduction='sum')
    assert not grad.isnan().any() and (grad[:, 0] == 0).all() and torch.equal(grad[:, 1:], apart)
    assert loss.item() == pytest.approx(value_and_grad(torch_ctc, logits, targets, input_lengths, lengths, reduction='sum', zero_infinity=True)[0].item())
    _, spoilt = value_and_grad(ctc_loss, logits, targets, input_lengths, lengths, reduction='sum')
    assert spoilt[:, 0].isnan().all() and torch.equal(spoilt[:, 1:], apart) # as PyTorch's: the sample is spoilt, not its neighbours


def test_pytorch_critical_target_length():
    "256 labels over 500 frames, where cuDNN's version fails (pytorch#53505)."
    logits, targets = random_logits(500, 1, 10), torch.randint(1, 10, (256,), generator=torch.Generator().manual_seed(1))
    args = targets, (500,), (256,)
    assert min_frames(targets.tolist()) <= 500
    assert_same(value_and_grad(ctc_loss, logits, *args, reduction='sum'), value_and_grad(torch_ctc, logits, *args, reduction='sum'), 1e-9)


@pytest.mark.parametrize('lengths, shape', [((30, 25, 20), (3, 29)), ((-1, -1, -1), (3, 29)), ((-1, -1, -1), (0,)), ((30, 25, 20), (74,))])
def test_pytorch_length_checks(lengths, shape):
    "Labels that do not hold what the lengths promise, and lengths below zero: a RuntimeError, as there."
    y, targets, frames = random_log_probs(50, 3, 15), torch.randint(1, 15, shape), torch.tensor([50, 50, 50])
    for loss in (torch_ctc, ctc_loss):
        with pytest.raises(RuntimeError): loss(y, targets, frames, torch.tensor(lengths))


@pytest.mark.parametrize('which', [1, 2])
def test_pytorch_type_checks(which):
    y, args = random_log_probs(50, 3, 15), [torch.randint(1, 15, (75,)), torch.tensor([50, 50, 50]), torch.tensor([30, 25, 20])]
    args[which] = args[which].float()
    for loss in (torch_ctc, ctc_loss):
        with pytest.raises(RuntimeError): loss(y, *args)


def in_probabilities(y, targets, input_lengths, target_lengths, blank, reduction):
    "The recursion in probabilities, a frame at a time, differentiable: what PyTorch's own tests hold it against."
    losses = []
    for n, (T, length) in enumerate(zip(input_lengths, target_lengths)):
        states = torch.tensor([blank] + [k for label in targets[n, :length].tolist() for k in (label, blank)])
        probs, skip = y[:T, n, states].exp(), F.pad(states[2:] != states[:-2], (2, 0))
        alpha = torch.cat([probs[0, :2], probs.new_zeros(len(states))])[:len(states)]
        for t in range(1, T):
            before = F.pad(alpha, (2, 0))
            alpha = (before[2:] + before[1:-1] + before[:-2]*skip)*probs[t]
        losses.append(-alpha[-2:].sum().log())
    losses = torch.stack(losses)
    if reduction == 'mean': return (losses/torch.tensor(target_lengths).clamp(min=1)).mean()
    return losses.sum() if reduction == 'sum' else losses


@pytest.mark.parametrize('reduction', REDUCTIONS)
@pytest.mark.parametrize('input_lengths', [(50, 50, 50), (50, 45, 40)])
def test_pytorch_reference(reduction, input_lengths):
    "Fifty frames, fifteen classes, labels of 30, 25 and 20."
    logits, targets = random_logits(50, 3, 15), torch.randint(1, 15, (3, 30), generator=torch.Generator().manual_seed(2))
    args = targets, input_lengths, (28, 25, 20)
    assert_same(value_and_grad(ctc_loss, logits, *args, reduction=reduction), value_and_grad(lambda *a, **k: in_probabilities(*a, 0, **k), logits, *args, reduction=reduction), 1e-8)


def test_pytorch_long_targets():
    "4000 frames and up to 1200 labels of two classes; gradcheck there is too slow to be useful here, so along random directions."
    generator = torch.Generator().manual_seed(3)
    targets, lengths = torch.randint(1, 3, (4, 1200), generator=generator), torch.tensor([1200, 900, 1, 0])
    logits, args = random_logits(4000, 4, 3), (targets, (4000,)*4, lengths)
    ours, theirs = (value_and_grad(loss, logits, *args, reduction='none') for loss in (ctc_loss, torch_ctc))
    assert_same(ours, theirs, 1e-6)
    for seed in range(3):
        direction = random_logits(4000, 4, 3, seed=9 + seed)
        up, down = (ctc_loss((logits + eps*direction).log_softmax(2), *args, reduction='sum') for eps in (1e-5, -1e-5))
        assert ((up - down)/2e-5).item() == pytest.approx((ours[1]*direction).sum().item(), rel=1e-5)


# The arguments in all their forms -----------------------------------------------------------------------------------------

@st.composite
def batches(draw, most_frames=14):
    "A batch that PyTorch takes: mixed lengths, empty texts, frames to spare or none, any blank, sometimes a text that does not fit."
    N, C, T = draw(st.integers(1, 4)), draw(st.integers(2, 6)), draw(st.integers(1, most_frames))
    blank, seed = draw(st.integers(0, C - 1)), draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    frames = rng.integers(draw(st.sampled_from([1, T])), T + 1, N)
    texts = [texts_that_fit(rng, 1, int(t) + draw(st.sampled_from([0, 0, 0, 2])), C, blank)[0] for t in frames]
    return random_logits(T, N, C, seed=seed, scale=draw(st.sampled_from([.1, 1., 5., 30.]))), texts, frames.tolist(), blank


forms = st.tuples(st.booleans(), st.sampled_from([torch.int32, torch.int64]), st.sampled_from([torch.int32, torch.int64, tuple, list]))

@thorough
@given(batches(), forms, st.sampled_from(REDUCTIONS), st.booleans())
def test_equals_pytorch(batch, form, reduction, zero_infinity):
    "Value and gradient, in float64 to 1e-6: both layouts of the targets, both integer types, lengths as tensors or sequences."
    logits, texts, frames, blank = batch
    padded, dtype, kind = form
    targets, lengths = pad_targets(texts, blank) if padded else concat_targets(texts)
    def as_form(x): return x.to(kind) if isinstance(kind, torch.dtype) else kind(x.tolist())
    args = targets.to(dtype), as_form(torch.tensor(frames)), as_form(lengths)
    kwargs = dict(blank=blank, reduction=reduction, zero_infinity=zero_infinity)
    weights = torch.linspace(.5, 2, len(texts), dtype=torch.float64) if reduction == 'none' else None
    ours, theirs = (value_and_grad(loss, logits, *args, weights=weights, **kwargs) for loss in (ctc_loss, torch_ctc))
    fits = [min_frames(text) <= t for text, t in zip(texts, frames)]
    if zero_infinity or all(fits): assert_same(ours, theirs, 1e-6)
    else: # infinite; a frame's gradient is then nan through log_softmax, or not even that where log_softmax made no use of it
        assert_same(ours[:1], theirs[:1], 1e-6)
        assert_same([ours[1][:, fits]], [theirs[1][:, fits]], 1e-6)
        for n, (fit, t) in enumerate(zip(fits, frames)):
            if not fit: assert ours[1][:t, n].isnan().all() and theirs[1][:t, n].isnan().all() and (ours[1][t:, n] == 0).all()


@quick
@given(batches(), st.booleans())
def test_float32_is_within_1e_4_of_the_exact_value(batch, padded):
    "Held against PyTorch in float64 on the same rounded log-probabilities."
    logits, texts, frames, blank = batch
    texts = [text if min_frames(text) <= t else [] for text, t in zip(texts, frames)]
    targets, lengths = pad_targets(texts, blank) if padded else concat_targets(texts)
    rounded, out = logits.float().log_softmax(2), []
    for y, loss in ((rounded, ctc_loss), (rounded.double(), torch_ctc)):
        leaf = y.clone().requires_grad_()
        losses = loss(leaf, targets, frames, lengths, blank=blank, reduction='none')
        losses.sum().backward()
        out.append((losses.detach(), leaf.grad))
    (loss, grad), (exact, exact_grad) = out
    assert loss.dtype == grad.dtype == torch.float32
    assert ((loss - exact).abs() <= 1e-4*exact.abs() + 1e-6).all()
    assert ((grad - exact_grad).abs() <= 1e-4*exact_grad.abs() + 1e-6).all()


@pytest.mark.parametrize('T', [1, 2, 3, 4, 5, 7, 24, 371, 1000, 4000])
@pytest.mark.parametrize('scale', [1., 8.])
def test_from_one_frame_to_four_thousand(T, scale):
    rng = np.random.default_rng(T)
    texts = [t[:1200] for t in texts_that_fit(rng, 2, T, 7, 3)]
    targets, lengths = concat_targets(texts)
    logits = random_logits(T, 2, 7, seed=T, scale=scale)
    args, kwargs = (targets, (T, T), lengths), dict(blank=3, reduction='sum')
    theirs = value_and_grad(torch_ctc, logits, *args, **kwargs)
    assert_same(value_and_grad(ctc_loss, logits, *args, **kwargs), theirs, 1e-6)
    loss, grad = value_and_grad(ctc_loss, logits.float(), *args, **kwargs)
    assert loss.item() == pytest.approx(theirs[0].item(), rel=1e-4)
    assert (grad - theirs[1]).norm() <= 1e-4*max(theirs[1].norm(), 1e-2*T**.5)


@pytest.mark.parametrize('reduction', REDUCTIONS)
@pytest.mark.parametrize('as_row', [False, True])
@pytest.mark.parametrize('lengths', [(torch.tensor(9), torch.tensor(3)), (torch.tensor([9]), torch.tensor([3])), ((9,), (3,))])
def test_unbatched(reduction, as_row, lengths):
    y, targets = random_log_probs(9, 5), torch.tensor([2, 2, 4])
    args = (targets[None] if as_row else targets, *lengths)
    ours, theirs = ctc_loss(y, *args, reduction=reduction), torch_ctc(y, *args, reduction=reduction)
    assert ours.shape == theirs.shape == () and ours.item() == pytest.approx(theirs.item(), abs=1e-9)
    assert ours.item() == pytest.approx(ctc_loss(y[:, None], targets, (9,), (3,), reduction='sum').item()/(3 if reduction == 'mean' else 1))
    leaf = y.clone().requires_grad_()
    ctc_loss(leaf, *args, reduction=reduction).backward()
    assert leaf.grad.shape == (9, 5)


def test_all_texts_empty():
    y, frames = random_log_probs(6, 2, 4), (6, 3)
    want = [-y[:6, 0, 0].sum().item(), -y[:3, 1, 0].sum().item()]
    for targets in (torch.zeros(2, 0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.full((2, 3), 99)):
        assert ctc_loss(y, targets, frames, (0, 0), reduction='none').tolist() == pytest.approx(want)
    assert ctc_loss(y, torch.zeros(0), frames, (0, 0)).item() == pytest.approx(torch_ctc(y, torch.zeros(0), frames, (0, 0)).item())


def test_what_lies_behind_a_text_is_ignored():
    "Padding of the targets may hold anything; frames behind a sample's last may hold anything, nan included."
    y, frames, lengths = random_log_probs(8, 2, 4), (8, 5), (2, 1)
    want = value_and_grad(ctc_loss, y, torch.tensor([[1, 2, 0], [3, 0, 0]]), frames, lengths, reduction='sum')
    assert_same(value_and_grad(ctc_loss, y, torch.tensor([[1, 2, -7], [3, 99, 0]]), frames, lengths, reduction='sum'), want, 0)
    spoilt = y.clone()
    spoilt[5:, 1] = math.nan
    leaf = spoilt.requires_grad_()
    loss = ctc_loss(leaf, torch.tensor([[1, 2], [3, 0]]), frames, lengths, reduction='sum')
    loss.backward()
    assert loss.item() == want[0].item() and (leaf.grad[5:, 1] == 0).all() and not leaf.grad.isnan().any()


@pytest.mark.parametrize('layout', ['transposed', 'sliced', 'expanded'])
def test_not_contiguous(layout):
    y = random_log_probs(4, 9, 5)
    y = {'transposed': y.transpose(0, 1), 'sliced': random_log_probs(18, 8, 5)[::2, ::2], 'expanded': random_log_probs(9, 1, 5).expand(-1, 4, -1)}[layout]
    wide = torch.tensor([[1, 9, 2, 9], [3, 9, 3, 9], [2, 9, 1, 9], [4, 9, 4, 9]])[:, ::2]
    args = wide, (9,)*4, (2, 2, 1, 0)
    assert_same(value_and_grad(ctc_loss, y, *args), value_and_grad(ctc_loss, y.contiguous(), wide.contiguous(), *args[1:]), 0)
    assert_same(value_and_grad(ctc_loss, y, *args), value_and_grad(torch_ctc, y, *args), 1e-9)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    "Not there in PyTorch on the CPU. Ours computes as in float64 and gives the gradient in the input's type."
    y, args = random_log_probs(9, 2, 5), (torch.tensor([[1, 1], [2, 3]]), (9, 9), (2, 2))
    leaf = y.to(dtype).requires_grad_()
    loss = ctc_loss(leaf, *args)
    loss.backward()
    assert loss.dtype == torch.float32 and leaf.grad.dtype == dtype
    assert loss.item() == pytest.approx(torch_ctc(leaf.detach().float(), *args).item(), rel=1e-5)


def test_numbers_that_are_no_probabilities():
    "Logits that nobody normalised: the value and gradient that PyTorch gives for them."
    raw = random_logits(9, 3, 5, scale=3.)
    out = []
    for loss in (ctc_loss, torch_ctc):
        leaf = raw.clone().requires_grad_()
        value = loss(leaf, torch.tensor([[1, 1], [2, 3], [4, 0]]), (9, 9, 7), (2, 2, 1), reduction='none')
        value.sum().backward()
        out.append((value.detach(), leaf.grad))
    assert (out[0][0] < 0).any()
    assert_same(*out, 1e-9)


def test_numbers_far_above_one():
    "The best path begins with a number that a float64 probability cannot hold and makes up for it in the next frame."
    y = torch.full((4, 3), -60., dtype=torch.float64)
    y[0], y[1, 2], y[2, 2], y[3, 0] = torch.tensor([0., -750., -60.]), 705., 0., 0.
    args = torch.tensor([1, 2]), (4,), (2,)
    loss = ctc_loss(y, *args, reduction='sum')
    assert loss.item() == pytest.approx(F.ctc_loss(y, *args, reduction='sum').item(), abs=1e-9)
    assert loss.item() == pytest.approx(-log_prob_enumerated(y, [1, 2]), abs=1e-9) and loss.item() < 46


@pytest.mark.parametrize('reduction', REDUCTIONS)
@pytest.mark.parametrize('zero_infinity', [False, True])
def test_module(reduction, zero_infinity):
    criterion, theirs = (kind(blank=2, reduction=reduction, zero_infinity=zero_infinity) for kind in (CTCLoss, torch.nn.CTCLoss))
    args = random_log_probs(5, 2, 4), torch.tensor([[1, 1, 1, 1], [3, 0, 2, 2]]), (5, 5), (4, 2)
    assert isinstance(criterion, torch.nn.CTCLoss) and repr(criterion) == repr(theirs)
    assert torch.allclose(criterion(*args), theirs(*args), equal_nan=True)
    assert not list(criterion.parameters()) and criterion.to('cpu').state_dict() == {}


# Derivatives --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('reduction', REDUCTIONS)
@pytest.mark.parametrize('padded', [False, True])
def test_gradcheck(reduction, padded):
    texts = [[1, 1, 3], [2], [], [3, 2, 3]]
    targets, lengths = pad_targets(texts) if padded else concat_targets(texts)
    logits = random_logits(6, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: ctc_loss(z.log_softmax(2), targets, (6, 4, 3, 5), lengths, reduction=reduction), logits)


def test_gradient_may_be_asked_for_twice_but_not_derived():
    leaf = random_log_probs(5, 1, 3).requires_grad_()
    loss = ctc_loss(leaf, torch.tensor([1, 2]), (5,), (2,))
    loss.backward(retain_graph=True)
    once = leaf.grad.clone()
    loss.backward()
    assert torch.equal(leaf.grad, 2*once)
    with pytest.raises(RuntimeError):
        grad, = torch.autograd.grad(ctc_loss(leaf, torch.tensor([1, 2]), (5,), (2,)), leaf, create_graph=True)
        grad.sum().backward()


def test_no_gradient_where_none_is_wanted():
    y, args = random_log_probs(5, 1, 3), (torch.tensor([1, 2]), (5,), (2,))
    assert not ctc_loss(y, *args).requires_grad
    with torch.no_grad(): assert not ctc_loss(y.clone().requires_grad_(), *args).requires_grad
    before = y.clone()
    ctc_loss(y.requires_grad_(), *args).backward()
    assert torch.equal(y, before)


# Properties, against enumeration --------------------------------------------------------------------------------------------

@st.composite
def matrices(draw):
    "Log-probabilities (T, C) small enough to try every path, some classes impossible, and a blank."
    T, C = draw(st.sampled_from([(1, 2), (1, 6), (2, 4), (3, 3), (4, 2), (4, 3), (5, 3), (6, 2), (3, 5)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    probs = rng.dirichlet(np.full(C, draw(st.sampled_from([.05, 1., 20.]))), T)
    if draw(st.booleans()): probs = np.where(rng.random((T, C)) < .2, 0, probs)
    with np.errstate(divide='ignore'): return np.log(probs), draw(st.integers(0, C - 1))


@quick
@given(matrices(), st.booleans())
def test_every_text_of_a_matrix(case, padded):
    "All texts of a few frames, thousands in all: one by one, as a batch of either layout, and the sum of them; then texts with no path."
    y, blank = case
    T, C = y.shape
    exact = probability_of_each_text(y, blank)
    texts = list(exact)
    want = np.array(list(exact.values()))
    assert np.exp([log_prob(y, text, blank) for text in texts]) == pytest.approx(want, abs=1e-12)
    targets, lengths = pad_targets(texts, blank) if padded else concat_targets(texts)
    batch = torch.tensor(y)[:, None].expand(-1, len(texts), -1)
    losses = ctc_loss(batch, targets, (T,)*len(texts), lengths, blank=blank, reduction='none')
    assert (-losses).exp().numpy() == pytest.approx(want, abs=1e-12)
    assert want.sum() == pytest.approx(np.exp(y).sum(1).prod(), abs=1e-12)
    letter = (blank + 1) % C
    assert log_prob(y, [letter]*(T//2 + 2), blank) == -math.inf


@quick
@given(matrices(), st.data())
def test_definition_and_lattice_agree_on_paths(case, data):
    y, blank = case
    T, C = y.shape
    text = data.draw(st.lists(st.integers(0, C - 1).filter(lambda k: k != blank), max_size=T))
    paths = enumerate_paths(text, T, C, blank)
    assert len(paths) == round(math.exp(log_prob(np.zeros((T, C)), text, blank)))
    assert bool(paths) == (min_frames(text) <= T)
    assert math.exp(log_prob_enumerated(y, text, blank)) == pytest.approx(math.exp(log_prob(y, text, blank)), abs=1e-12)


@quick
@given(matrices(), st.data())
def test_posterior_is_that_of_the_paths(case, data):
    "Each state's posterior from the list of all paths; the sum over alpha times beta the same in all frames."
    y, blank = case
    T, C = y.shape
    possible = [t for t, p in probability_of_each_text(y, blank).items() if p > 0]
    assume(possible)
    text = data.draw(st.sampled_from(possible))
    paths = enumerate_paths(text, T, C, blank)
    share = np.exp([sum(y[t, k] for t, k in enumerate(path)) for path in paths])
    want = np.zeros((T, C))
    for path, p in zip(paths, share):
        for t, k in enumerate(path): want[t, k] += p/share.sum()
    assert class_posterior(y, text, blank) == pytest.approx(want, abs=1e-9)
    gamma = posterior(y, text, blank)
    assert gamma.sum(1) == pytest.approx(np.ones(T)) and gamma.shape == (T, 2*len(text) + 1)
    total = np.logaddexp.reduce(forward(y, text, blank) + backward(y, text, blank), axis=1)
    assert total == pytest.approx(np.full(T, log_prob(y, text, blank)), abs=1e-9)


@quick
@given(batches(most_frames=40))
def test_gradient_is_what_was_said_minus_the_posterior(batch):
    logits, texts, frames, blank = batch
    texts = [text if min_frames(text) <= t else [] for text, t in zip(texts, frames)]
    targets, lengths = concat_targets(texts)
    _, grad = value_and_grad(ctc_loss, logits, targets, frames, lengths, blank=blank, reduction='sum')
    for n, (text, t) in enumerate(zip(texts, frames)):
        y = logits[:t, n].log_softmax(1)
        assert grad[:t, n].numpy() == pytest.approx(y.exp().numpy() - class_posterior(y, text, blank), abs=1e-9)
        assert (grad[t:, n] == 0).all()
    assert grad.sum(2).abs().max() < 1e-9


@quick
@given(batches(), st.randoms(use_true_random=False))
def test_order_of_samples_and_names_of_classes_do_not_matter(batch, random):
    logits, texts, frames, blank = batch
    N, C = logits.shape[1:]
    targets, lengths = concat_targets(texts)
    losses = ctc_loss(logits.log_softmax(2), targets, frames, lengths, blank=blank, reduction='none')
    order, names = random.sample(range(N), N), random.sample(range(C), C)
    renamed = torch.empty_like(logits)
    renamed[:, :, names] = logits
    targets, lengths = concat_targets([[names[k] for k in texts[n]] for n in order])
    again = ctc_loss(renamed[:, order].log_softmax(2), targets, [frames[n] for n in order], lengths, blank=names[blank], reduction='none')
    assert torch.allclose(losses[order], again, atol=1e-9)


def test_states():
    for text, blank in (([], 0), ([3], 0), ([3, 3, 5], 1), ([0, 1, 0], 2)):
        states = extend(text, blank)
        assert states.tolist() == [blank] + [k for label in text for k in (label, blank)]
        assert can_skip(states).tolist() == [s > 2 and s % 2 == 1 and states[s] != states[s-2] for s in range(len(states))]


# Where scaled probabilities end ----------------------------------------------------------------------------------------------

def exactly(y, text, blank=0):
    "Loss and gradient with respect to log-probabilities' logits, from the passes in log space alone."
    return -log_prob(y, text, blank), np.exp(y) - class_posterior(y, text, blank)


@pytest.mark.parametrize('scale', [10, 100, 300, 1000, 3000])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_frames_that_contradict_one_another(scale, dtype):
    "Log-probabilities down to -10,000, far below what a float64 probability can hold."
    rng = np.random.default_rng(scale)
    for T in (1, 5, 20, 60):
        y = random_log_probs(T, 4, 5, seed=scale + T, scale=scale, dtype=dtype)
        texts = texts_that_fit(rng, 4, T, 5, 0)
        targets, lengths = concat_targets(texts)
        leaf = y.clone().requires_grad_()
        losses = ctc_loss(leaf, targets, (T,)*4, lengths, reduction='none')
        losses.sum().backward()
        for n, text in enumerate(texts):
            loss, grad = exactly(y[:, n].double().numpy(), text)
            assert losses[n].item() == pytest.approx(loss, rel=1e-6 if dtype == torch.float32 else 1e-12, abs=1e-6)
            assert leaf.grad[:, n].numpy() == pytest.approx(grad, abs=1e-6)


def test_a_path_that_recovers():
    "States that fall 10^350 behind the best, and are the only ones left at the end."
    y = np.full((40, 3), -800.)
    y[:20, 0] = y[20:, 1] = 0 # blanks, then the first letter; the second letter is never likely
    y[10, 1] = -805
    for text in ([1, 2], [1, 2, 1], [2, 1], [1, 1], [2]):
        leaf = torch.tensor(y)[:, None].requires_grad_()
        loss = ctc_loss(leaf, torch.tensor(text), (40,), (len(text),), reduction='sum')
        loss.backward()
        want, grad = exactly(y, text)
        assert loss.item() == pytest.approx(want, rel=1e-12)
        assert leaf.grad[:, 0].numpy() == pytest.approx(grad, abs=1e-9)


def test_classes_of_probability_zero():
    "Masked classes: the value of enumeration and a gradient of 0 there, where PyTorch's is nan."
    rng = np.random.default_rng(0)
    checked = 0
    for _ in range(200):
        probs = np.where(rng.random((5, 3)) < .3, 0, rng.dirichlet(np.ones(3), 5))
        with np.errstate(divide='ignore'): y = np.log(probs)
        for text in ([], [1], [1, 2], [2, 2]):
            want = log_prob_enumerated(y, text)
            leaf = torch.tensor(y)[:, None].requires_grad_()
            loss = ctc_loss(leaf, torch.tensor(text, dtype=torch.long), (5,), (len(text),), reduction='sum')
            assert loss.item() == pytest.approx(-want, abs=1e-12)
            loss.backward()
            if want == -math.inf: continue
            checked += 1
            assert not leaf.grad.isnan().any() and (leaf.grad[:, 0].numpy()[probs == 0] == 0).all()
    assert checked > 200


def test_impossible_text_is_infinite_like_pytorch():
    y = torch.full((5, 2, 3), -math.inf)
    y[..., 0] = 0
    losses = [loss(y, torch.tensor([[1], [2]]), (5, 5), (1, 0), reduction='none').tolist() for loss in (ctc_loss, torch_ctc)]
    assert losses == [[math.inf, 0.], [math.inf, 0.]]


def test_nan_stays_in_its_sample():
    y = random_log_probs(5, 3, 4)
    y[2, 1] = math.nan
    leaf = y.requires_grad_()
    losses = ctc_loss(leaf, torch.tensor([[1], [2], [3]]), (5, 5, 5), (1, 1, 1), reduction='none')
    losses[[0, 2]].sum().backward()
    assert losses.isnan().tolist() == [False, True, False]
    assert not leaf.grad[:, [0, 2]].isnan().any()


def test_4000_frames_of_certainty():
    "Every frame sure of one path: loss 0. Every frame sure of another text: the loss of each mistake, added up."
    path = np.tile([0, 1, 0, 2], 1000)
    y = np.full((4000, 3), -50.)
    y[np.arange(4000), path] = np.log1p(-2*math.exp(-50))
    text = np.tile([1, 2], 1000)
    assert ctc_loss(torch.tensor(y), torch.tensor(text), (4000,), (2000,), reduction='sum').item() == pytest.approx(0, abs=1e-9)
    assert ctc_loss(torch.tensor(y), torch.zeros(0, dtype=torch.long), (4000,), (0,), reduction='sum').item() == pytest.approx(2000*50)


# Threads, processes, compiling -----------------------------------------------------------------------------------------------

def test_threads_do_not_change_a_bit():
    rng, threads = np.random.default_rng(0), torch.get_num_threads()
    texts = texts_that_fit(rng, 33, 40, 12, 0)
    targets, lengths = concat_targets(texts)
    args = random_logits(60, 33, 12), targets, (60,)*33, lengths
    try:
        results = []
        for k in (1, 2, 3, 64):
            torch.set_num_threads(k)
            results.append(value_and_grad(ctc_loss, *args))
    finally: torch.set_num_threads(threads)
    for loss, grad in results[1:]: assert torch.equal(loss, results[0][0]) and torch.equal(grad, results[0][1])


@pytest.mark.parametrize('size, threads', [(0, 3), (1, 3), (5, 2), (5, 5), (7, 3), (2, 8)])
def test_over_batch_gives_every_sample_once(size, threads):
    seen = np.zeros(size, int)
    def kernel(start, stop, out): out[start:stop] += 1
    over_batch(kernel, size, seen, threads=threads)
    assert (seen == 1).all()


def test_over_batch_passes_errors_on():
    def kernel(start, stop):
        if start: raise ValueError('in a thread')
    with pytest.raises(ValueError, match='in a thread'): over_batch(kernel, 4, threads=2)


def python(code, **env):
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ, **env}, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork')
def test_works_in_a_forked_process():
    "The parent has used its threads, which the child does not inherit; PyTorch's own do not survive either, so the child has one of those."
    code = '''
import os, signal
import numpy as np, torch
from crnn_nb.loss import ctc_loss, over_batch
def kernel(start, stop, out): out[start:stop] = stop - start
torch.set_num_threads(2)
y = torch.zeros(60, 64, 8).log_softmax(2)
args = y, torch.ones(64, 12, dtype=torch.long), (60,)*64, (12,)*64
before = ctc_loss(*args).item()
over_batch(kernel, 4, np.zeros(4), threads=2)
child = os.fork()
if child == 0:
    signal.alarm(60)
    torch.set_num_threads(1)
    out = np.zeros(4)
    over_batch(kernel, 4, out, threads=2)
    os._exit(0 if ctc_loss(*args).item() == before and (out == 2).all() else 1)
print(os.waitpid(child, 0)[1])
'''
    assert python(code) == ['0']


def test_machine_code_is_kept_on_disk(tmp_path):
    "The second process compiles nothing: all it calls comes from the cache, which the first one wrote."
    code = '''
import sys, torch
import crnn_nb.loss as loss
before = 'numba' in sys.modules
loss.ctc_loss(torch.zeros(5, 1, 3).log_softmax(2).requires_grad_(), torch.tensor([1]), (5,), (1,)).backward()
stats = loss._batch.jitted.stats
print(before, sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
'''
    assert python(code, NUMBA_CACHE_DIR=str(tmp_path)) == ['False', '0', '1']
    assert python(code, NUMBA_CACHE_DIR=str(tmp_path)) == ['False', '1', '0']


# What is refused, and how ------------------------------------------------------------------------------------------------------

Y = random_log_probs(5, 2, 4)
PAIR = torch.tensor([[1, 2], [3, 1]])

@pytest.mark.parametrize('call, match', [
    (lambda: ctc_loss(Y, torch.tensor([[1, 2], [4, 1]]), (5, 5), (2, 2)), 'label 0 of sample 1 is 4'),
    (lambda: ctc_loss(Y, torch.tensor([[1, -1], [3, 1]]), (5, 5), (2, 2)), 'label 1 of sample 0 is -1'),
    (lambda: ctc_loss(Y, torch.tensor([[1, 0], [3, 1]]), (5, 5), (2, 2)), 'other than the blank, 0'),
    (lambda: ctc_loss(Y, PAIR, (5, 5), (2, 2), blank=3), 'label 0 of sample 1 is 3'),
    (lambda: ctc_loss(Y, torch.tensor([1, 2, 3, 0]), (5, 5), (2, 1)), 'add up to 3'),
    (lambda: ctc_loss(Y, PAIR, (5,), (2, 2)), 'input_lengths: must be of size batch_size'),
    (lambda: ctc_loss(Y, PAIR, (5, 5), (2, 2, 2)), 'target_lengths: must be of size batch_size'),
    (lambda: ctc_loss(Y, PAIR, (5, 6), (2, 2)), r'input_lengths\[1\]: 6'),
    (lambda: ctc_loss(Y, PAIR, (-1, 5), (2, 2)), r'input_lengths\[0\]: -1'),
    (lambda: ctc_loss(Y, PAIR, (5, 5), (2, 3)), r'target_lengths\[1\]: 3'),
    (lambda: ctc_loss(Y, PAIR, torch.tensor([5., 5.]), (2, 2)), r'input_lengths\.long\(\)'),
    (lambda: ctc_loss(Y, PAIR, (5, 5), torch.tensor([True, True])), 'expected integers'),
    (lambda: ctc_loss(Y, PAIR + .5, (5, 5), (2, 2)), r'targets\.long\(\)'),
    (lambda: ctc_loss(Y, PAIR[None], (5, 5), (2, 2)), 'got shape'),
    (lambda: ctc_loss(Y, PAIR[:1], (5, 5), (2, 2)), '1 rows'),
    (lambda: ctc_loss(Y, PAIR, (5, 5), (2, 2), blank=4), 'blank: 4'),
    (lambda: ctc_loss(Y, PAIR, (5, 5), (2, 2), blank=-1), 'blank: -1'),
    (lambda: ctc_loss(Y.numpy(), PAIR, (5, 5), (2, 2)), 'expected a tensor'),
    (lambda: ctc_loss(Y.long(), PAIR, (5, 5), (2, 2)), 'expected floats'),
    (lambda: ctc_loss(Y[None], PAIR, (5, 5), (2, 2)), 'expected floats'),
    (lambda: ctc_loss(Y[:0], PAIR, (0, 0), (0, 0)), 'not empty'),
    (lambda: forward(Y, [1]), r'log_probs\[:, n\]'),
    (lambda: forward(Y[:0, 0], [1]), 'not empty'),
    (lambda: backward(Y[:, 0], [1, 4]), r'labels\[1\]: 4'),
    (lambda: log_prob(Y[:, 0], [1, 0]), r'labels\[1\]: 0'),
    (lambda: log_prob(Y[:, 0], [1], blank=9), 'blank: 9'),
    (lambda: posterior(Y[:, 0], [1, 1, 1, 1]), 'no path'),
    (lambda: class_posterior(Y[:, 0]*math.nan, [1]), 'no path'),
])
def test_refused_by_name(call, match):
    with pytest.raises(CTCLossError, match=match) as error: call()
    assert isinstance(error.value, CTCInputError) and isinstance(error.value, RuntimeError) and isinstance(error.value, ValueError)


def test_unknown_reduction():
    for loss in (ctc_loss, torch_ctc):
        with pytest.raises(ValueError, match='not a valid value for reduction'): loss(Y, PAIR, (5, 5), (2, 2), reduction='average')


@pytest.mark.parametrize('call, message', [
    (lambda: ctc_loss(Y, [[1, 2], [3]], (5, 5), (2, 1)), 'padded by pad_targets'),
    (lambda: ctc_loss(Y, PAIR, (5, 5), (1, 1), blank=.5), 'blank: 0.5 is no integer'),
    (lambda: forward(Y[:, 0], [1.5]), 'labels: expected integers'),
    (lambda: forward(Y[:, 0], 'ab'), 'Alphabet().encode'),
    (lambda: forward(Y[:, 0], [[1], [2]]), 'one class for each character of one text'),
    (lambda: forward([[.1], [.2, .3]], [1]), 'a table of numbers (T, C)')])
def test_what_has_no_lattice_is_named(call, message):
    with pytest.raises(CTCLossError) as e: call()
    assert message in str(e.value)


def test_a_second_derivative_is_refused_rather_than_wrong():
    x = torch.randn(6, 2, 4, dtype=torch.float64, requires_grad=True)
    loss = ctc_loss(x.log_softmax(2), torch.tensor([1, 2]), (6, 6), (1, 1))
    grad, = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(CTCLossError, match='no second derivative'): grad.square().sum().backward()


def test_blank_and_precision_of_other_types():
    y, args = torch.randn(6, 2, 4).log_softmax(2), (torch.tensor([1, 2]), (6, 6), (1, 1))
    assert ctc_loss(y, *args, blank=torch.tensor(0)) == ctc_loss(y, *args, blank=np.int64(0)) == ctc_loss(y, *args)
    assert forward(y[:, 0].bfloat16(), [1]).shape == (6, 3)
