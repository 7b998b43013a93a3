"Scores against hand-computed cases, and the loop around the network."
import math
import re

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import CTCLoss
from torch.nn import functional as F

from crnn_nb.shapes import CTCInputError
from crnn_nb.evaluate import EvaluationError, by_length, char_error_rate, edit_distance, evaluate, one_less_ned, score, wilson
from crnn_nb.model import CRNN

labels = st.lists(st.integers(1, 3), max_size=7)
loss_sum = CTCLoss(reduction='sum')


def by_rows(a, b):
    "Levenshtein's table, in full."
    d = [[i + j if not i*j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i][j] = min(d[i-1][j] + 1, d[i][j-1] + 1, d[i-1][j-1] + (a[i-1] != b[j-1]))
    return d[-1][-1]


# numbers

@settings(deadline=None)
@given(labels, labels)
def test_edit_distance_is_levenshteins(a, b):
    assert edit_distance(a, b) == by_rows(a, b) == edit_distance(torch.tensor(a), b) == edit_distance(''.join(map(str, a)), ''.join(map(str, b)))


def test_texts_and_labels_do_not_mix():
    with pytest.raises(EvaluationError, match='one is a text, the other a list of labels'): edit_distance('cat', [3, 1, 20])


def test_rates_by_hand():
    pairs = [('cat', 'cat'), ('horse', 'hrse'), ('to', 'tooo'), ('', 'a')]
    assert score(pairs)['acc'] == 1/4
    assert char_error_rate(pairs) == pytest.approx((0 + 1 + 2 + 1)/(3 + 5 + 2 + 0))
    assert one_less_ned(pairs) == pytest.approx(1 - (0 + 1/5 + 2/4 + 1/1)/4)
    assert by_length(pairs) == {0: dict(acc=0, count=1), 2: dict(acc=0, count=1), 3: dict(acc=1, count=1), 5: dict(acc=0, count=1)}


def test_empty_texts():
    assert char_error_rate([('', '')]) == 0 and char_error_rate([('', 'a')]) == 1 and one_less_ned([('', '')]) == 1
    for f in (score, one_less_ned):
        with pytest.raises(EvaluationError, match='no words to score'): f([])


@settings(deadline=None)
@given(st.lists(st.tuples(labels, labels), min_size=1, max_size=9))
def test_scores_hang_together(pairs):
    s = score(iter(pairs))
    assert s == score(pairs)
    assert s['count'] == len(pairs) == sum(v['count'] for v in s['by_length'].values())
    assert s['acc'] == pytest.approx(sum(v['acc']*v['count'] for v in s['by_length'].values())/len(pairs))
    assert 0 <= s['interval'][0] <= s['acc'] <= s['interval'][1] <= 1 and s['acc'] <= s['ned'] + 1e-12 <= 1 + 1e-9
    assert (s['acc'] == 1) == (s['cer'] == 0) == (s['ned'] == 1)


@pytest.mark.parametrize('right, count, low, high', [(0, 10, 0, .2775), (5, 10, .2366, .7634), (10, 10, .7225, 1), (81, 263, .2553, .3662)])
def test_wilson_by_published_values(right, count, low, high):
    "Newcombe 1998 (81 of 263: 0.2553 to 0.3662); the others by the formula, worked out by hand."
    assert wilson(right, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize('right, count', [(-1, 3), (4, 3), (0, 0)])
def test_wilson_refuses(right, count):
    with pytest.raises(EvaluationError, match=f'right={right} of count={count}'): wilson(right, count)


# the loop

class Says(nn.Module):
    "A network that says the given log-probabilities (T, N, C), batch after batch."
    def __init__(self, log_probs, stride=4):
        super().__init__()
        self.log_probs, self.at, self.modes, self.widths = log_probs, 0, [], []
        self.norm = nn.BatchNorm2d(1)
    def forward(self, images, widths=None):
        self.modes.append((self.training, self.norm.training))
        self.widths.append(widths)
        self.at += len(images)
        return self.log_probs[:, self.at - len(images):self.at]
    def input_lengths(self, widths): return widths//4 - 1


def paths(*rows, classes=4, sure=.9):
    "Log-probabilities whose best paths are `rows`."
    p = torch.full((len(rows[0]), len(rows), classes), (1 - sure)/(classes - 1))
    for n, row in enumerate(rows):
        for t, c in enumerate(row): p[t, n, c] = sure
    return p.log()


def batch(*words, width=16):
    return torch.zeros(len(words), 1, 32, width), torch.tensor([l for w in words for l in w], dtype=torch.long), torch.tensor([[len(w)] for w in words])


WORDS, PATHS = ([1], [2, 2], [3, 1]), paths([0, 1, 0], [2, 0, 2], [3, 2, 2])


@pytest.mark.parametrize('method', ['greedy', 'beam_search', 'prefix_beam_search'])
def test_numbers_of_a_hand_made_network(method):
    result = evaluate(Says(PATHS), [batch(*WORDS)], loss_sum, decode_method=method, progress=False)
    assert result['wrong_cases'] == [([3, 1], [3, 2])]
    assert result['acc'] == pytest.approx(2/3) and result['cer'] == pytest.approx(1/5) and result['ned'] == pytest.approx(1 - (1/2)/3)
    assert result['by_length'] == {1: dict(acc=1, count=1), 2: dict(acc=.5, count=2)}
    want = loss_sum(PATHS, torch.tensor([1, 2, 2, 3, 1]), torch.tensor([3]*3), torch.tensor([1, 2, 2]))/3
    assert result['loss'] == pytest.approx(want.item(), rel=1e-5)
    assert (result['count'], result['skipped'], result['too_long']) == (3, 0, 0)
    assert {'loss', 'acc', 'wrong_cases', 'interval', 'cer', 'ned', 'count', 'by_length', 'too_long', 'skipped'} == set(result)


def seeds_loop(net, loader, criterion):
    "The seed's evaluation, with the greedy reading written out."
    count = right = loss = 0
    for images, targets, lengths in loader:
        log_probs = F.log_softmax(net(images), 2)
        loss += criterion(log_probs, targets, torch.LongTensor([len(log_probs)]*len(images)), lengths.flatten()).item()
        reals = [t.tolist() for t in targets.split(lengths.flatten().tolist())]
        for n, real in enumerate(reals):
            best = torch.unique_consecutive(log_probs[:, n].argmax(1))
            right += best[best != 0].tolist() == real
        count += len(images)
    return loss/count, right/count


def test_equals_the_seeds_loop():
    torch.manual_seed(0)
    net = CRNN(1, 32, 32, 5, 8, 8, width=.05).eval()
    with torch.no_grad(): net.dense.weight *= 30
    loader = [(torch.randn(n, 1, 32, 32), torch.randint(1, 5, (n,)), torch.ones(n, 1, dtype=torch.long)) for n in (4, 4, 3)]
    with torch.no_grad(): loss, acc = seeds_loop(net, loader, loss_sum)
    result = evaluate(net, loader, loss_sum, decode_method='greedy', progress=False)
    assert (result['loss'], result['acc']) == (pytest.approx(loss, rel=1e-5), acc)


@pytest.mark.parametrize('sizes', [(3,), (1, 2), (2, 1), (1, 1, 1)])
def test_batches_do_not_matter(sizes):
    words, loader = list(WORDS), []
    for n in sizes: loader.append(batch(*(words.pop(0) for _ in range(n))))
    result = evaluate(Says(PATHS), iter(loader), loss_sum, progress=False)
    whole = evaluate(Says(PATHS), [batch(*WORDS)], loss_sum, progress=False)
    assert result['loss'] == pytest.approx(whole.pop('loss')) and {k: v for k, v in result.items() if k != 'loss'} == whole


def test_padded_targets():
    images, _, lengths = batch(*WORDS)
    padded = images, torch.tensor([[1, 0], [2, 2], [3, 1]]), lengths.flatten()
    assert evaluate(Says(PATHS), [padded], loss_sum, progress=False) == evaluate(Says(PATHS), [batch(*WORDS)], loss_sum, progress=False)


@pytest.mark.parametrize('reduction', ['sum', 'mean', 'none'])
def test_loss_by_reduction(reduction):
    each = CTCLoss(reduction='none')(PATHS, torch.tensor([1, 2, 2, 3, 1]), torch.tensor([3]*3), torch.tensor([1, 2, 2]))
    want = (each/torch.tensor([1., 2, 2])).mean() if reduction == 'mean' else each.mean()
    loader = [batch(*WORDS[:2]), batch(*WORDS[2:])]
    assert evaluate(Says(PATHS), loader, CTCLoss(reduction=reduction), progress=False)['loss'] == pytest.approx(want.item(), rel=1e-5)


def test_widths_are_used():
    "The second word has two frames of its own; what the network says in the third is padding."
    images, targets, lengths = batch([1], [2], width=16)
    net = Says(paths([0, 1, 0], [2, 2, 3]))
    result = evaluate(net, [(images, targets, lengths, torch.tensor([16, 12]))], loss_sum, progress=False)
    assert result['acc'] == 1 and net.widths[0].tolist() == [16, 12]
    want = loss_sum(net.log_probs, torch.tensor([1, 2]), torch.tensor([3, 2]), torch.tensor([1, 1]))/2
    assert result['loss'] == pytest.approx(want.item(), rel=1e-5)
    net.at = 0
    assert evaluate(net, [(images, targets, lengths)], loss_sum, progress=False)['acc'] == .5


def test_a_padded_batch_scores_as_its_words_alone():
    torch.manual_seed(1)
    net = CRNN(1, 32, 100, 5, 8, 8, width=.05, batch_norm='all').eval()
    with torch.no_grad(): net.dense.weight *= 30
    widths, words = [60, 33, 20, 58], [[1, 2], [3], [4, 4], [2, 1, 2]]
    images = [torch.randn(1, 1, 32, w) for w in widths]
    together = torch.cat([F.pad(i, (0, 60 - w)) for i, w in zip(images, widths)]), *batch(*words)[1:], torch.tensor(widths)
    alone = [(i, torch.tensor(w), torch.tensor([[len(w)]])) for i, w in zip(images, words)]
    a, b = (evaluate(net, l, loss_sum, progress=False) for l in ([together], alone))
    assert a.pop('loss') == pytest.approx(b.pop('loss'), rel=1e-4) and a == b


def test_words_that_cannot_fit_are_counted_apart():
    result = evaluate(Says(PATHS), [batch([1], [2, 2, 2], [3, 1])], loss_sum, progress=False)
    assert result['too_long'] == 1 and result['count'] == 3 and math.isfinite(result['loss'])
    want = loss_sum(PATHS[:, [0, 2]], torch.tensor([1, 3, 1]), torch.tensor([3, 3]), torch.tensor([1, 2]))/2
    assert result['loss'] == pytest.approx(want.item(), rel=1e-5)
    assert evaluate(Says(PATHS), [batch([1]*4)], loss_sum, progress=False)['loss'] == math.inf


@pytest.mark.parametrize('max_iter, count', [(1, 2), (2, 3), (9, 3), (None, 3)])
def test_max_iter(max_iter, count):
    loader = [batch(*WORDS[:2]), batch(*WORDS[2:])]
    assert evaluate(Says(PATHS), loader, loss_sum, max_iter, progress=False)['count'] == count


def test_max_iter_takes_no_batch_more():
    taken = []
    def endless():
        while True:
            taken.append(1)
            yield batch([1])
    class Same(Says):
        def forward(self, images): return self.log_probs[:, :1]
    assert evaluate(Same(PATHS), endless(), loss_sum, 3, progress=False)['count'] == 3
    assert len(taken) == 3


def test_modes_are_put_back():
    net = Says(PATHS).train()
    net.norm.eval()
    evaluate(net, [batch(*WORDS)], loss_sum, progress=False)
    assert net.modes == [(False, False)] and net.training and not net.norm.training
    class Breaks(Says):
        def forward(self, images): raise RuntimeError('no')
    net = Breaks(PATHS).train()
    with pytest.raises(RuntimeError, match='no'): evaluate(net, [batch(*WORDS)], loss_sum, progress=False)
    assert net.training and net.norm.training
    net = Says(PATHS).eval()
    evaluate(net, [batch(*WORDS)], loss_sum, progress=False)
    assert not net.training


def test_gradients_stay_off_and_weights_usable():
    net = CRNN(1, 32, 32, 5, 8, 8, width=.05).train()
    loader = [(torch.randn(2, 1, 32, 32), torch.tensor([1, 2]), torch.tensor([1, 1]))]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    evaluate(net, loader, loss_sum, progress=False)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    net(loader[0][0]).sum().backward()


class Loader(list):
    def __init__(self, batches, dataset): super().__init__(batches); self.dataset = dataset


class Words:
    def skipped(self): return [(0, 'a.jpg', 'empty'), (4, 'b.jpg', 'missing')]


class Part:
    def __init__(self, dataset): self.dataset = dataset


def test_skipped_samples_are_reported():
    for dataset in (Words(), Part(Words()), Part(Part(Words()))):
        assert evaluate(Says(PATHS), Loader([batch(*WORDS)], dataset), loss_sum, progress=False)['skipped'] == 2
    assert evaluate(Says(PATHS), Loader([batch(*WORDS)], object()), loss_sum, progress=False)['skipped'] == 0


def test_nothing_to_score():
    with pytest.raises(EvaluationError, match='the loader gave none$'): evaluate(Says(PATHS), [], loss_sum, progress=False)
    empty = torch.zeros(0, 1, 32, 16), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    with pytest.raises(EvaluationError, match=re.escape("a.jpg")): evaluate(Says(PATHS), Loader([empty], Words()), loss_sum, progress=False)
    assert evaluate(Says(PATHS), [empty, batch(*WORDS)], loss_sum, progress=False)['count'] == 3


def test_lengths_of_another_batch():
    images, targets, lengths = batch(*WORDS)
    with pytest.raises(CTCInputError, match='targets holds 4 labels, but target_lengths adds up to 5'): evaluate(Says(PATHS), [(images, targets[1:], lengths)], loss_sum, progress=False)


def test_pictures_of_wrong_words():
    images, *rest = batch([1], [2], [1])
    images += torch.arange(3.)[:, None, None, None]
    result = evaluate(Says(PATHS), [(images, *rest)], loss_sum, keep=1, progress=False)
    assert [i.mean().item() for i in result['wrong_images']] == [1.] and result['wrong_cases'][0] == ([2], [2, 2])
    assert len(evaluate(Says(PATHS), [(images, *rest)], loss_sum, keep=9, progress=False)['wrong_images']) == 2


def test_a_wrapped_network():
    class Wrapped(nn.Module):
        def __init__(self, module): super().__init__(); self.module = module
        def forward(self, *args): return self.module(*args)
    data = (*batch([1], [2, 2], [3, 1]), torch.tensor([16, 16, 16]))
    assert evaluate(Wrapped(Says(PATHS)), [data], loss_sum, progress=False) == evaluate(Says(PATHS), [data], loss_sum, progress=False)


def test_the_progress_bar_can_be_left_out(capsys):
    evaluate(Says(PATHS), [batch(*WORDS)], loss_sum, progress=False)
    assert capsys.readouterr().err == ''
    evaluate(Says(PATHS), [batch(*WORDS)], loss_sum)
    assert 'Evaluate: 100%' in capsys.readouterr().err


@pytest.mark.parametrize('change, message', [
    (lambda i, t, n: (i, t, torch.cat([n[:-1], n[-1:] - 1, torch.ones_like(n[:1])])), 'target_lengths has 4 numbers'),
    (lambda i, t, n: (i, torch.full_like(t, 99), n), 'label 0 is 99, but the classes are'),
    (lambda i, t, n: (i, torch.zeros_like(t), n), 'the blank, which is no character'),
    (lambda i, t, n: (i, t.float(), n), 'targets has dtype torch.float32'),
    (lambda i, t, n: (i, t), 'a batch is 2 parts'), (lambda i, t, n: i, 'a batch is a Tensor')])
def test_batches_that_are_not_of_one_piece(change, message):
    with pytest.raises(ValueError, match=re.escape(message)): evaluate(Says(PATHS), [change(*batch(*WORDS))], loss_sum, progress=False)


def test_max_iter_must_be_a_count():
    with pytest.raises(EvaluationError, match='max_iter=-1'): evaluate(Says(PATHS), [batch(*WORDS)], loss_sum, max_iter=-1, progress=False)


def test_skipped_samples_of_parts_of_datasets():
    from torch.utils.data import ConcatDataset, Subset

    from crnn_nb.data import WordDataset
    words = WordDataset(['nowhere.jpg', 'either.jpg'], ['a', 'b'])
    words.check()
    for dataset, count in ((words, 2), (Subset(words, [1]), 1), (Subset(ConcatDataset([words, words]), [0, 3, 2]), 3)):
        assert evaluate(Says(PATHS), Loader([batch(*WORDS)], dataset), loss_sum, progress=False)['skipped'] == count
