"""The training loop: configuration, checkpoints, kill and resume, several processes, errors."""
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from crnn_nb import train as T
from crnn_nb.alphabet import Alphabet
from crnn_nb.data import Synth90kDataset, synth90k_collate_fn
from crnn_nb.model import CRNN, load_crnn
from crnn_nb.synth import write_synth90k

KILLS = 200 if os.environ.get('CRNN_NB_SOAK') else 10


@pytest.fixture(scope='module')
def words(tmp_path_factory):
    return write_synth90k(tmp_path_factory.mktemp('data')/'words', 48, 12, 12, progress=False)


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(words, folder, **changes):
    return T.complete(T.default_config | dict(
        data_dir=str(words), checkpoints_dir=str(folder), width=.125, rnn_hidden=8, map_to_seq_hidden=8, train_batch_size=8, eval_batch_size=12,
        epochs=3, show_interval=2, valid_interval=5, save_interval=3, warmup=4, dropout=.1, mixed_precision='no', threads=1) | changes)


def weights(run): return {k: v.clone() for k, v in run.net.state_dict().items()}


def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def rows(folder): return [{k: v for k, v in r.items() if k != 'seconds'} for r in T.read_log(Path(folder)/'log.csv')]


# ---- configuration

def test_train_config_has_the_keys_of_the_seed():
    assert {k: v for k, v in T.train_config.items() if k != 'data_dir'} == dict(
        epochs=10000, train_batch_size=32, eval_batch_size=512, lr=0.0005, show_interval=10, valid_interval=500, save_interval=2000,
        cpu_workers=4, reload_checkpoint=None, valid_max_iter=100, decode_method='greedy', beam_size=10, checkpoints_dir='checkpoints/',
        img_width=100, img_height=32, map_to_seq_hidden=64, rnn_hidden=256, leaky_relu=False)
    assert type(T.train_config) is dict


def test_what_the_seed_leaves_out_is_as_in_the_seed():
    c = T.complete(T.train_config)
    crnn = T.make_crnn(c, Alphabet())
    assert sum(p.numel() for p in crnn.parameters()) == 7_839_077
    assert type(T.make_optimizer(crnn, c)) is torch.optim.RMSprop and c['clip'] == 0 and c['jitter'] == 0 and c['shortcut'] == 0


@pytest.mark.parametrize('key', list(T.train_config | T.seed_choices))
def test_a_misspelt_key_is_named_with_the_nearest(key):
    wrong = key[:-1] + '_' if len(key) > 3 else key + 's'
    with pytest.raises(T.TrainError, match=wrong) as e: T.complete({wrong: 1})
    assert 'did you mean' in str(e.value) or len(key) < 4


@pytest.mark.parametrize('wrong', [dict(optimizer='adam'), dict(schedule='step'), dict(lr=0), dict(epochs=-1), dict(train_batch_size='8'),
                                   dict(batch_norm=True), dict(mixed_precision='half'), dict(decode_method='best'), dict(epochs=1.5), dict(epochs=True),
                                   dict(lr=math.nan), dict(lr='fast'), dict(dropout=1.), dict(seed=-1), dict(cache='yes'), dict(chars=36), dict(clip=None),
                                   dict(valid_max_iter=0), dict(reload_checkpoint=3)])
def test_values_that_cannot_work(wrong):
    with pytest.raises(T.TrainError, match=next(iter(wrong))): T.complete(wrong)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.integers(0, 50), st.sampled_from(['constant', 'cosine']))
def test_schedule_stays_between_0_and_1(steps, warmup, schedule):
    f = [T.lr_factor(s, steps, warmup, schedule) for s in range(steps + 1)]
    assert all(0 <= x <= 1 for x in f)
    assert all(a <= b for a, b in zip(f[:warmup], f[1:warmup])) and all(a >= b for a, b in zip(f[warmup:], f[warmup + 1:]))


# ---- one step

@pytest.mark.parametrize('widths', [None, [100, 60, 36]])
def test_train_batch_takes_batches_with_and_without_widths(widths):
    torch.manual_seed(0)
    crnn = CRNN(1, 32, 100, 37, width=.125, rnn_hidden=8)
    data = (torch.rand(3, 1, 32, 100), torch.tensor([1, 2, 3, 4]), torch.tensor([[2], [1], [1]]))
    if widths: data += (torch.tensor(widths),)
    before = [p.clone() for p in crnn.parameters()]
    loss = T.train_batch(crnn, data, torch.optim.SGD(crnn.parameters(), .1), nn.CTCLoss(reduction='sum'), torch.device('cpu'))
    assert isinstance(loss, float) and loss > 0 and crnn.training
    assert not all(torch.equal(a, b) for a, b in zip(before, crnn.parameters()))


def test_clipping_bounds_the_step():
    torch.manual_seed(0)
    crnn = CRNN(1, 32, 100, 37, width=.125, rnn_hidden=8)
    data = torch.rand(2, 1, 32, 100), torch.tensor([1, 2, 3]), torch.tensor([2, 1])
    before, notes = [p.detach().clone() for p in crnn.parameters()], {}
    T.train_batch(crnn, data, torch.optim.SGD(crnn.parameters(), 1.), nn.CTCLoss(reduction='sum'), 'cpu', clip=.5, notes=notes)
    moved = math.sqrt(sum(float(((a - b).detach()**2).sum()) for a, b in zip(before, crnn.parameters())))
    assert notes['grad_norm'] > .5 and moved == pytest.approx(.5, rel=1e-3)


def test_loss_that_is_not_finite_names_the_sample_and_leaves_the_weights():
    crnn = CRNN(1, 32, 100, 37, width=.125, rnn_hidden=8)
    before = weights_of(crnn)
    data = torch.rand(2, 1, 32, 100), torch.cat([torch.tensor([1]), torch.full((20,), 7)]), torch.tensor([1, 20])
    with pytest.raises(T.TrainError, match='1.*39|39.*1'): T.train_batch(crnn, data, torch.optim.SGD(crnn.parameters(), 1.), nn.CTCLoss(reduction='sum'), 'cpu')
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(crnn)))
    with torch.no_grad(): crnn.dense.bias[3] = math.nan
    with pytest.raises(T.TrainError, match='lr'):
        T.train_batch(crnn, (data[0], torch.tensor([1, 2]), torch.tensor([1, 1])), torch.optim.SGD(crnn.parameters(), 1.), nn.CTCLoss(reduction='sum'), 'cpu')


@pytest.mark.parametrize('widths', [None, torch.zeros(0, dtype=torch.long)])
def test_an_empty_batch_is_named(widths):
    crnn = CRNN(1, 32, 100, 37, width=.125, rnn_hidden=8)
    data = torch.zeros(0, 1, 32, 100), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    if widths is not None: data += (widths,)
    with pytest.raises(T.TrainError, match='no sample .N = 0.'): T.train_batch(crnn, data, torch.optim.SGD(crnn.parameters(), 1.), nn.CTCLoss(), 'cpu')


def parameters(crnn): return [p for _, p in crnn.named_parameters()]
def weights_of(crnn): return [p.detach().clone() for p in parameters(crnn)]


def test_jitter_keeps_shape_and_range():
    torch.manual_seed(0)
    x = torch.rand(16, 1, 32, 100)*2 - 1
    y = T.jitter(x)
    assert y.shape == x.shape and y.min() >= -1 and y.max() <= 1 and not torch.equal(x, y)


def test_one_batch_is_learnt_by_heart(words):
    torch.manual_seed(0)
    data = Synth90kDataset(words, 'train')
    batch = synth90k_collate_fn([data[i] for i in range(4)])
    c = T.complete(dict(width=.125, rnn_hidden=48, batch_norm='all', optimizer='adamw', lr=4e-3))
    crnn = T.make_crnn(c, Alphabet())
    optimizer = T.make_optimizer(crnn, c)
    for _ in range(260): loss = T.train_batch(crnn, batch, optimizer, nn.CTCLoss(reduction='sum'), 'cpu', clip=5., per_image=True)/4
    assert loss < 1
    _, texts, readings = T.read_some(crnn, data, Alphabet(), 4)
    assert texts == readings


# ---- files

def test_write_whole_keeps_the_old_file_when_writing_fails(tmp_path):
    path = T.write_whole(tmp_path/'a', lambda f: f.write(b'old'))
    def fails(f):
        f.write(b'n')
        raise OSError('disk full')
    with pytest.raises(OSError, match='disk full'): T.write_whole(path, fails)
    assert path.read_bytes() == b'old' and [p.name for p in tmp_path.iterdir()] == ['a']


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e6, 1e6, allow_nan=False)), max_size=8), st.integers(0, 8))
def test_log_is_cut_where_the_checkpoint_stood(tmp_path_factory, found, keep):
    path = tmp_path_factory.mktemp('log')/'log.csv'
    log, lengths = T.RunLog(path), []
    for step, loss in found:
        lengths.append(log.tell())
        log.add(step=step, loss=loss)
    lengths.append(log.tell())
    keep = min(keep, len(found))
    kept = T.read_log(T.RunLog(path, keep=lengths[keep]).path)
    assert [r['step'] for r in kept] == [s for s, _ in found[:keep]]
    assert all(r['loss'] == pytest.approx(loss, rel=1e-5, abs=1e-9) for r, (_, loss) in zip(kept, found))


class Evil:
    def __reduce__(self): return os.system, ('touch executed',)


def test_checkpoints_execute_nothing_and_bad_files_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state=Evil()), 'evil.pt')
    Path('cut.pt').write_bytes(Path('evil.pt').read_bytes()[:100])
    torch.save(dict(a=torch.zeros(1)), 'weights.pt')
    for name in 'evil.pt', 'cut.pt', 'weights.pt', 'absent.pt':
        with pytest.raises(T.TrainError, match=name): T.load_checkpoint(name)
    assert not Path('executed').exists()


# ---- the run

@pytest.fixture(scope='module')
def whole(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    run = T.train(tiny(words, folder), progress=False)
    return run, weights(run), folder


def test_a_run_leaves_log_checkpoint_and_weights(whole):
    run, state, folder = whole
    assert run.reason == 'finished' and run.state.step == 18 and run.state.images == 144
    assert {p.name for p in folder.iterdir()} >= {'log.csv', 'last.pt', 'crnn.safetensors', 'best.safetensors'}
    crnn, alphabet, meta = load_crnn(folder/'crnn.safetensors')
    assert same(crnn.state_dict(), state) and alphabet == Alphabet()
    assert [r['step'] for r in rows(folder)] == sorted({*range(2, 19, 2), 5, 10, 15, 18})


def test_the_same_seed_gives_the_same_weights(words, whole, tmp_path):
    assert same(weights(T.train(tiny(words, tmp_path), progress=False)), whole[1])
    assert not same(weights(T.train(tiny(words, tmp_path, seed=1), progress=False)), whole[1])


@pytest.mark.parametrize('stops', [[6], [12], [1, 2, 17], [5, 6, 7], [18]])
def test_stopped_and_resumed_is_unbroken(words, whole, tmp_path, stops):
    run = None
    for stop in stops:
        stopped = [lambda run, row: run.state.step == stop]
        run = T.train(tiny(words, tmp_path), callbacks=stopped, progress=False) if run is None else T.resume(tmp_path, callbacks=stopped, progress=False)
        assert run.state.step == stop
        torch.rand(3), random.random(), np.random.rand()
    run = T.resume(tmp_path, progress=False)
    assert run.reason == 'finished' and same(weights(run), whole[1])
    assert rows(tmp_path) == rows(whole[2])


def test_ctrl_c_leaves_a_good_checkpoint(words, whole, tmp_path):
    def press(run, row):
        if run.state.step == 8: signal.raise_signal(signal.SIGINT)
    before = signal.getsignal(signal.SIGINT) # ignored where a shell runs the tests in the background
    run = T.train(tiny(words, tmp_path), callbacks=[press], progress=False)
    assert run.reason == 'interrupted' and run.state.step == 8
    assert same(weights(T.resume(tmp_path, progress=False)), whole[1])
    assert signal.getsignal(signal.SIGINT) is before


def test_worker_processes_change_nothing(words, whole, tmp_path):
    assert same(weights(T.train(tiny(words, tmp_path, cpu_workers=1, cache=False), progress=False)), whole[1])


def test_intervals(words, tmp_path):
    seen = []
    def look(run, row): seen.append((run.state.step, T.load_checkpoint(tmp_path/'last.pt')['state']['step'] if (tmp_path/'last.pt').exists() else 0, row and 'valid_acc' in row))
    T.train(tiny(words, tmp_path, epochs=2, show_interval=4, valid_interval=6, save_interval=5), callbacks=[look], progress=False)
    assert [saved for _, saved, _ in seen] == [0, 0, 0, 0, 5, 5, 5, 5, 5, 10, 10, 12]
    assert [(step, valid) for step, _, valid in seen if valid is not None] == [(4, False), (6, True), (8, False), (12, True)]


def test_progress_bar_shows_the_loss(words, tmp_path, capsys):
    T.train(tiny(words, tmp_path/'a', epochs=1), progress=False)
    assert capsys.readouterr().err == ''
    T.train(tiny(words, tmp_path/'b', epochs=1), progress=True)
    bar = capsys.readouterr().err
    assert '6/6' in bar and 'loss=' in bar and 'step' in bar


def test_live_loss_redraws_and_draws_the_end(words, tmp_path, monkeypatch):
    import IPython.display
    import matplotlib
    drawn = []
    class Handle:
        def update(self, figure): drawn.append(len(figure.axes[0].lines[0].get_xdata()))
    def display(figure, display_id):
        drawn.append(len(figure.axes[0].lines[0].get_xdata()))
        return Handle()
    monkeypatch.setattr(IPython.display, 'display', display)
    with matplotlib.rc_context({'backend': 'agg'}):
        run = T.train(tiny(words, tmp_path), callbacks=[T.LiveLoss(every=1e9)], progress=False)
        assert drawn == [1, len(run.history)] # the first row, and the end
        T.train(tiny(words, tmp_path/'live', epochs=1), live=True, progress=False)
    assert len(drawn) == 4


def test_tensorboard_holds_what_the_log_holds(words, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    T.train(tiny(words, tmp_path, epochs=1, tensorboard=True), progress=False)
    events, log = EventAccumulator(str(tmp_path)).Reload(), T.read_log(tmp_path/'log.csv')
    for name in 'loss', 'lr', 'valid_acc', 'valid_cer':
        assert [(e.step, pytest.approx(e.value, rel=1e-4)) for e in events.Scalars(name)] == [(r['images'], r[name]) for r in log if name in r]


def test_channels_last_moves_numbers_and_changes_none(words, tmp_path):
    runs = [T.train(tiny(words, tmp_path/str(last), epochs=1, dropout=0., channels_last=last), progress=False, callbacks=[lambda run, row: True]) for last in (True, False)]
    last, plain = [run.net.cnn.conv3.weight for run in runs]
    assert last.is_contiguous(memory_format=torch.channels_last) and not last.is_contiguous() and plain.is_contiguous()
    a, b = [run.state.loss_sum for run in runs]
    assert a == pytest.approx(b, rel=1e-4)


def test_half_precision_on_the_cpu_and_back(words, whole, tmp_path):
    half = T.train(tiny(words, tmp_path/'half', mixed_precision='bf16'), progress=False)
    assert half.accelerator.mixed_precision == 'bf16' and half.net.dense.weight.dtype == torch.float32
    assert half.history[-1]['loss'] == pytest.approx(whole[0].history[-1]['loss'], rel=.05)
    T.resume(tmp_path/'half', progress=False)
    assert same(weights(T.train(tiny(words, tmp_path/'full'), progress=False)), whole[1])
    if not torch.cuda.is_available():
        with pytest.raises(T.TrainError, match='fp16'): T.train(tiny(words, tmp_path, mixed_precision='fp16'), progress=False)


def test_keep_ratio_trains_and_resumes(words, tmp_path):
    whole = T.train(tiny(words, tmp_path/'a', keep_ratio=True, epochs=1), progress=False)
    T.train(tiny(words, tmp_path/'b', keep_ratio=True, epochs=1), callbacks=[lambda run, row: run.state.step == 2], progress=False)
    assert same(weights(T.resume(tmp_path/'b', progress=False)), weights(whole))


def test_broken_files_are_left_out_and_counted(words, tmp_path):
    import shutil
    broken = shutil.copytree(words, tmp_path/'words')
    victims = sorted(broken.rglob('*.jpg'))[:3]
    for v in victims: v.write_bytes(b'')
    run = T.train(tiny(broken, tmp_path/'run', epochs=1), progress=False)
    assert run.state.step == 6 and run.state.images == 48 - len(run.train_words.skipped())


def test_resume_refuses_another_run(words, whole, tmp_path):
    with pytest.raises(T.TrainError, match='lr'): T.resume(whole[2], lr=1.)
    with pytest.raises(T.TrainError, match='does not exist'): T.resume(tmp_path)


def test_empty_data_and_too_few_words(words, tmp_path):
    with pytest.raises(T.TrainError, match='48 words'): T.train(tiny(words, tmp_path, train_batch_size=64), progress=False)
    (tmp_path/'nothing').mkdir()
    with pytest.raises(ValueError, match='nothing'): T.train(tiny(tmp_path/'nothing', tmp_path/'run'), progress=False)


def test_no_words_to_validate_on(words, tmp_path):
    import shutil
    bare = shutil.copytree(words, tmp_path/'words')
    (bare/'annotation_val.txt').write_text('')
    with pytest.raises(T.TrainError, match='annotation_val'): T.train(tiny(bare, tmp_path/'run'), progress=False)


def test_not_one_picture_that_can_be_read(words, tmp_path):
    import shutil
    broken = shutil.copytree(words, tmp_path/'words')
    for line in (broken/'annotation_train.txt').read_text().splitlines(): (broken/line.split()[0]).write_bytes(b'')
    with pytest.raises(T.TrainError, match='not one picture.*48 empty'): T.train(tiny(broken, tmp_path/'run', epochs=1, valid_interval=100), progress=False)


def test_words_that_cannot_fit_are_left_out_and_counted(words, tmp_path):
    crnn = CRNN(1, 32, 100, 37, width=.125)
    train_words, valid_words = T.open_words(tiny(words, tmp_path, img_width=32))
    assert [train_words.frames(w) for w in range(8, 300)] == crnn.input_lengths(range(8, 300)).tolist() and valid_words.frames is None
    run = T.train(tiny(words, tmp_path, epochs=1, img_width=32), progress=False)
    texts = [train_words.text(i).lower() for i in range(48)]
    too_long = sum(len(t) + sum(a == b for a, b in zip(t, t[1:])) > 7 for t in texts)
    assert 0 < too_long < 48 and run.train_words.skipped().counts == {'too long': too_long} and run.state.images == 48 - too_long


def test_another_alphabet_keeps_all_but_the_last_layer(words, whole, tmp_path):
    letters = Alphabet('abcdefghijklmnopqrstuvwxyz')
    run = T.Run(tiny(words, tmp_path, chars=letters.chars, reload_checkpoint=str(whole[2]/'crnn.safetensors')))
    new, old = weights(run), whole[1]
    assert run.net.dense.out_features == 27
    assert all(torch.equal(new[k], v) for k, v in old.items() if not k.startswith('dense'))
    for c in 'az': assert torch.equal(new['dense.weight'][letters.char2label[c]], old['dense.weight'][Alphabet().char2label[c]])
    assert torch.equal(new['dense.bias'][0], old['dense.bias'][0])
    assert T.train(tiny(words, tmp_path, chars=letters.chars, reload_checkpoint=str(whole[2]/'last.pt'), epochs=1), progress=False).reason == 'finished'


def test_trained_weights_of_each_kind(words, whole, tmp_path):
    torch.save(whole[1], tmp_path/'plain.pt')
    for source in whole[2]/'crnn.safetensors', whole[2]/'last.pt', tmp_path/'plain.pt':
        assert same(weights(T.Run(tiny(words, tmp_path, reload_checkpoint=str(source)))), whole[1])
    assert T.trained_crnn(tmp_path/'plain.pt', Alphabet('abc')).dense.out_features == 4
    (tmp_path/'bad.safetensors').write_bytes(b'no weights')
    torch.save(dict(a=torch.zeros(1)), tmp_path/'other.pt')
    torch.save(dict(state=Evil()), tmp_path/'evil.pt')
    for name in 'bad.safetensors', 'other.pt', 'evil.pt', 'absent.pt', '.':
        with pytest.raises(T.TrainError, match='reload_checkpoint|evil'): T.trained_crnn(tmp_path/name, Alphabet())


def test_a_run_that_began_with_weights_is_resumed_without_them(words, whole, tmp_path):
    import shutil
    start = shutil.copy(whole[2]/'crnn.safetensors', tmp_path/'start.safetensors')
    config = tiny(words, tmp_path/'a', reload_checkpoint=str(start), epochs=1)
    expected = weights(T.train(config, progress=False))
    T.train(config | dict(checkpoints_dir=str(tmp_path/'b')), callbacks=[lambda run, row: run.state.step == 2], progress=False)
    Path(start).unlink()
    assert same(weights(T.resume(tmp_path/'b', progress=False)), expected)


def test_another_architecture_is_named(words, whole, tmp_path):
    for changes in dict(rnn_hidden=12), dict(batch_norm='seed'), dict(width=.25):
        with pytest.raises(T.TrainError, match=f'architecture: {next(iter(changes))}='):
            T.Run(tiny(words, tmp_path, reload_checkpoint=str(whole[2]/'crnn.safetensors'), **changes))


def test_main_job_ends_with_its_accuracy(words, tmp_path, capsys):
    found = T.main_job(tiny(words, tmp_path, epochs=1), progress=False)
    printed = capsys.readouterr().out.strip().splitlines()
    assert printed[-1].startswith(f"accuracy={found['acc']:.4f}") and (tmp_path/'readings.png').stat().st_size > 1000
    assert found['count'] == 12


def test_main_job_goes_on_with_an_interrupted_run(words, tmp_path, capsys):
    def press(run, row):
        if run.state.step == 4: signal.raise_signal(signal.SIGINT)
    unbroken = T.main_job(tiny(words, tmp_path/'a', epochs=1), progress=False)
    capsys.readouterr()
    assert T.main_job(tiny(words, tmp_path/'b', epochs=1), callbacks=[press], progress=False)['run'].reason == 'interrupted'
    assert capsys.readouterr().out.splitlines()[-1] == f'go on with: crnn-nb train --resume {tmp_path/"b"}'
    found = T.main_job(resume_from=tmp_path/'b', progress=False)
    assert [found[k] for k in ('acc', 'cer', 'loss', 'count')] == [unbroken[k] for k in ('acc', 'cer', 'loss', 'count')]
    assert capsys.readouterr().out.splitlines()[-1].startswith('accuracy=0.')


# ---- recorded

def test_recorded_runs_hold_what_the_book_says_of_them():
    runs = Path(__file__).parent.parent/'nbs'/'runs'
    ours, about = T.read_run(runs/'ours.json')
    assert about['test']['accuracy'] >= .95 and about['test']['words'] >= 1000 and about['test']['seconds'] <= 240
    seconds = next(r['seconds'] for r in ours if r.get('valid_acc', 0) >= .85)
    seed, about = T.read_run(runs/'seed.json')
    assert next((r['seconds'] for r in seed if r.get('valid_acc', 0) >= .85), about['bound']) >= 19.99*seconds
    plateau, _ = T.read_run(runs/'plateau.json')
    assert plateau[-1]['images'] == 16_000 and max(r.get('valid_acc', 0) for r in plateau) == 0 and plateau[-1]['loss'] > 20


# ---- killed

def _train_or_resume(config):
    torch.set_num_threads(1)
    if (Path(config['checkpoints_dir'])/'last.pt').exists(): T.resume(config['checkpoints_dir'], progress=False)
    else: T.train(config, progress=False)


def test_killed_at_random_moments(words, tmp_path):
    "SIGKILL at random moments, then resume: weights and log of an unbroken run. Killed ten times, 200 times in `make soak`."
    if sys.platform == 'win32': pytest.skip('no SIGKILL')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['crnn_nb.train', 'accelerate', 'rapidfuzz'])
    config = dict(epochs=8, save_interval=2)
    def start(folder):
        p = context.Process(target=_train_or_resume, args=(tiny(words, folder, **config),))
        p.start()
        return p
    def finish(folder):
        began = time.monotonic()
        p = start(folder)
        p.join(120)
        assert p.exitcode == 0
        return time.monotonic() - began
    finish(tmp_path/'warm')
    takes = finish(tmp_path/'whole')
    expected, log = load_crnn(tmp_path/'whole'/'crnn.safetensors')[0].state_dict(), rows(tmp_path/'whole')
    rng, kills, n = random.Random(time.time_ns()), 0, 0
    def reached(folder): return T.load_checkpoint(folder/'last.pt')['state']['step'] if (folder/'last.pt').exists() else 0
    while kills < KILLS:
        folder, n, longer = tmp_path/f'run{n}', n + 1, 1.
        while not (folder/'crnn.safetensors').exists() and kills < KILLS + 20:
            before, p = reached(folder), start(folder)
            time.sleep(rng.uniform(0, 1.1*takes*longer))
            if p.is_alive():
                os.kill(p.pid, signal.SIGKILL)
                kills += 1
            p.join()
            assert p.exitcode in (0, -signal.SIGKILL)
            longer = 1. if reached(folder) > before else 1.3*longer # a machine that has become slower: kills before the first step prove little
        finish(folder)
        assert not [p.name for p in folder.iterdir() if p.name.startswith('.')], 'a killed run left half-written files, and its resumption did not remove them'
        assert same(load_crnn(folder/'crnn.safetensors')[0].state_dict(), expected), f'killed run {n} differs'
        assert rows(folder) == log


# ---- from the shell

def shell(*args, **kwargs):
    "`crnn-nb` in a process of its own."
    return subprocess.Popen([sys.executable, '-c', 'from crnn_nb.read import main; main()', *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=os.environ | dict(OMP_NUM_THREADS='1', PYTHONUTF8='1'), **kwargs)


def test_killed_and_resumed_from_the_shell(words, tmp_path):
    "Killed by SIGKILL, resumed, interrupted by SIGINT, resumed: the accuracy line of an unbroken run."
    if sys.platform == 'win32': pytest.skip('no SIGKILL')
    options = ['--set=' + s for s in ('width=.125', 'rnn_hidden=8', 'map_to_seq_hidden=8', 'train_batch_size=8', 'valid_interval=20', 'save_interval=3', 'threads=1')]
    def start(folder): return shell('train', '--data-dir', words, '--checkpoints-dir', folder, '--epochs', 10, *options)
    def line(process):
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        return out.splitlines()[-1].split(' in ')[0]
    def stop(process, folder, sign, after):
        ended = time.monotonic() + 120
        at = lambda: T.load_checkpoint(folder/'last.pt')['state']['step'] if (folder/'last.pt').exists() else 0
        while at() < after and process.poll() is None and time.monotonic() < ended: time.sleep(.05)
        process.send_signal(sign)
        return process.communicate(timeout=60)[0]
    whole = line(start(tmp_path/'whole'))
    assert whole.startswith('accuracy=0.') and '12 words never seen' in whole and 'after 480 images' in whole
    folder = tmp_path/'broken'
    first = start(folder)
    stop(first, folder, signal.SIGKILL, 6)
    assert first.returncode == -signal.SIGKILL
    second = shell('train', '--resume', folder)
    out = stop(second, folder, signal.SIGINT, 30)
    assert second.returncode == 130 and f'crnn-nb train --resume {folder}' in out
    assert line(shell('train', '--resume', folder)) == whole
    a, b = [load_crnn(f/'crnn.safetensors')[0].state_dict() for f in (tmp_path/'whole', folder)]
    assert same(a, b) and rows(folder) == rows(tmp_path/'whole')


@pytest.mark.parametrize('args, says', [
    (['--set', 'learning=3'], "no key 'learning'"), (['--set', 'lr'], 'KEY=VALUE'), (['--set', 'lr=fast'], "lr='fast'"), (['--epochs', '0'], 'epochs'),
    (['--set', 'train_batch_size=500'], 'only 48 words'), (['--set', 'chars=aa'], 'twice'), (['--set', 'img_height=20'], 'multiple of 16'),
    (['--set', 'reload_checkpoint=no.pt'], 'no.pt'), (['--resume', 'nowhere'], 'nowhere'), (['--resume', 'nowhere', '--original'], '--original'),
    (['--set', 'width=0.125', '--set', 'shortcut=0', '--set', 'lr=1e9', '--set', 'train_batch_size=8'], 'lr')])
def test_mistakes_at_the_shell_are_one_line(words, tmp_path, monkeypatch, args, says):
    from typer.testing import CliRunner
    from crnn_nb.read import app
    monkeypatch.chdir(tmp_path)
    out = CliRunner().invoke(app, ['train', '--data-dir', str(words), *args])
    assert out.exit_code == 2 and isinstance(out.exception, SystemExit) and says in out.stderr.splitlines()[-1], out.stderr
    assert 'Traceback' not in out.stderr


@pytest.mark.parametrize('verb', ['train', 'evaluate', 'read', 'synth'])
def test_help_has_an_example_and_a_line_for_every_option(verb):
    from typer.testing import CliRunner
    from crnn_nb.read import app
    out = CliRunner().invoke(app, [verb, '--help']).stdout
    assert out.count(f'crnn-nb {verb} ') >= 2
    for line in out.split('Options:')[1].splitlines():
        if line.lstrip().startswith('--'): assert len(line.split()) > 2 or line.split()[0] == '--help', line


# ---- several processes

def test_two_processes_have_the_gradients_of_one(words, tmp_path):
    torch.manual_seed(0)
    config = tiny(words, tmp_path, dropout=0.)
    data = Synth90kDataset(words, 'train')
    parts = [synth90k_collate_fn([data[i] for i in part]) for part in (range(8), range(8, 16))]
    torch.save(dict(config=config, crnn=T.make_crnn(config, Alphabet()).state_dict(), parts=parts), tmp_path/'parts.pt')
    T.gradient_job(tmp_path)
    T.launch(T.gradient_job, (tmp_path,), 2)
    one, two = [torch.load(tmp_path/f'grads-{n}.pt', weights_only=True) for n in (1, 2)]
    assert one.keys() == two.keys() and any(g.abs().max() > 0 for g in one.values())
    for k in one: torch.testing.assert_close(one[k], two[k], rtol=1e-4, atol=1e-5*float(one[k].abs().max()) + 1e-9)


def _stop_at_4(config):
    torch.set_num_threads(1)
    T.train(config, callbacks=[lambda run, row: run.state.step == 4], progress=False)


def test_two_processes_run_the_loop(words, tmp_path):
    T.launch(_train_or_resume, (tiny(words, tmp_path, epochs=1),), 2)
    assert [r['images'] for r in rows(tmp_path)][-1] == 48 and (tmp_path/'crnn.safetensors').exists()


@pytest.mark.skipif(not os.environ.get('CRNN_NB_SOAK'), reason='three times two processes: make soak')
def test_two_processes_resume_bit_for_bit(words, tmp_path):
    T.launch(_train_or_resume, (tiny(words, tmp_path/'whole', epochs=1),), 2)
    T.launch(_stop_at_4, (tiny(words, tmp_path/'part', epochs=1),), 2)
    assert T.load_checkpoint(tmp_path/'part'/'last.pt')['state']['step'] == 4
    T.launch(_train_or_resume, (tiny(words, tmp_path/'part', epochs=1),), 2)
    assert rows(tmp_path/'part') == rows(tmp_path/'whole')
    a, b = [load_crnn(tmp_path/f/'crnn.safetensors')[0].state_dict() for f in ('whole', 'part')]
    assert same(a, b)


# ---- mistakes that must not pass in silence

@pytest.mark.parametrize('label', [37, 40, -1, 0])
def test_a_label_that_is_no_class_or_is_the_blank_leaves_the_weights(label):
    crnn = CRNN(1, 32, 100, 37, width=.125, rnn_hidden=8)
    before, optimizer = weights_of(crnn), torch.optim.SGD(crnn.parameters(), .1)
    for targets in torch.tensor([1, 2, label]), torch.tensor([[1, 2], [label, 0]]):
        with pytest.raises(T.TrainError, match=f'sample 1: label 0 is {label}'):
            T.train_batch(crnn, (torch.rand(2, 1, 32, 100), targets, torch.tensor([2, 1])), optimizer, nn.CTCLoss(reduction='sum'), 'cpu')
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(crnn)))


def test_the_check_of_targets_knows_another_blank_and_lets_empty_and_impossible_words_pass():
    crnn = CRNN(1, 32, 100, 37, width=.125, rnn_hidden=8)
    optimizer = torch.optim.SGD(crnn.parameters(), 1e-4)
    step = lambda targets, lengths, **options: T.train_batch(crnn, (torch.rand(2, 1, 32, 100), torch.tensor(targets), torch.tensor(lengths)), optimizer,
                                                             nn.CTCLoss(reduction='sum', **options), 'cpu')
    assert step([0, 1, 2], [2, 1], blank=36) > 0
    with pytest.raises(T.TrainError, match='is 36, the blank'): step([0, 36, 2], [2, 1], blank=36)
    assert step([1, 2], [2, 0]) > 0
    assert step([5]*20 + [1], [20, 1], zero_infinity=True) > 0


def test_the_check_of_targets_costs_little():
    from crnn_nb.shapes import check_ctc
    config = T.default_config
    crnn, data = T.make_crnn(config, Alphabet()), (torch.rand(32, 1, 32, 100), torch.randint(1, 37, (32*7,)), torch.full((32,), 7))
    optimizer, log_probs = T.make_optimizer(crnn, config), torch.zeros(24, 32, 37).log_softmax(2)
    def shortest(f, n):
        times = []
        for _ in range(n):
            began = time.process_time()
            f()
            times.append(time.process_time() - began)
        return min(times)
    step = shortest(lambda: T.train_batch(crnn, data, optimizer, nn.CTCLoss(reduction='sum'), 'cpu'), 3)
    assert shortest(lambda: check_ctc(log_probs, data[1], torch.full((32,), 24), data[2], allow_empty=True, allow_infeasible=True, values=False), 30) < .01*step


@pytest.mark.parametrize('wrong, says', [(dict(chars='aab'), 'twice'), (dict(chars=''), 'empty'), (dict(chars='aA'), 'case_sensitive'),
                                         (dict(max_images=31), 'max_images=31.*train_batch_size=32')])
def test_alphabets_that_are_none_and_runs_without_a_step(wrong, says):
    with pytest.raises(T.TrainError, match=says): T.complete(wrong)


def test_the_least_run_has_one_step(words, tmp_path):
    assert T.complete(dict(chars='aA', case_sensitive=True))['chars'] == 'aA'
    run = T.train(tiny(words, tmp_path, max_images=8), progress=False)
    assert run.state.step == 1 and run.state.images == 8


def test_no_words_to_test_on_is_said_before_training(words, tmp_path):
    import shutil
    bare = shutil.copytree(words, tmp_path/'words')
    config = tiny(bare, tmp_path/'run', epochs=1)
    T.train(config, callbacks=[lambda run, row: run.state.step == 2], progress=False)
    (bare/'annotation_test.txt').write_text('')
    with pytest.raises(T.TrainError, match="annotation_test.txt .mode 'test'. is empty"): T.main_job(config | dict(checkpoints_dir=str(tmp_path/'new')), progress=False)
    assert not (tmp_path/'new').exists()
    with pytest.raises(T.TrainError, match='annotation_test.txt'): T.main_job(resume_from=tmp_path/'run', progress=False)
    assert T.load_checkpoint(tmp_path/'run'/'last.pt')['state']['step'] == 2


@pytest.fixture(scope='module')
def part(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp('part')
    T.train(tiny(words, folder), callbacks=[lambda run, row: run.state.step == 7], progress=False)
    return folder


def without(d, *keys): return {k: v for k, v in d.items() if k not in keys}


BROKEN = dict(
    parts=(lambda c: without(c, 'crnn', 'rng'), 'lacks crnn, rng'), only_state=(lambda c: dict(state=c['state']), 'lacks config, alphabet, crnn'),
    average=(lambda c: dict(state=c['crnn'], n=3, step=7), 'lacks config'), nothing=(lambda c: [1, 2], 'no run'),
    config=(lambda c: c | dict(config=[1]), 'config is of type list'), optimizer=(lambda c: c | dict(optimizer=None), 'optimizer is of type NoneType'),
    words=(lambda c: c | dict(words=48), 'words is of type int'), state=(lambda c: c | dict(state=without(c['state'], 'step', 'log_bytes')), 'state lacks step, log_bytes'),
    more=(lambda c: c | dict(state=c['state'] | dict(mood=1)), "state has 'mood'"), count=(lambda c: c | dict(state=c['state'] | dict(step='7')), "step='7'"),
    key=(lambda c: c | dict(config=c['config'] | dict(lrr=1)), "no key 'lrr'"), value=(lambda c: c | dict(config=c['config'] | dict(lr='fast')), "lr='fast'"),
    number=(lambda c: c | dict(config={1: 2}), 'config is wrong'), rng=(lambda c: c | dict(rng={}), 'rng holds no state'),
    rng_types=(lambda c: c | dict(rng=dict(python=1, numpy=2, torch=3, cuda=4)), 'rng holds no state'),
    shape=(lambda c: c | dict(crnn=c['crnn'] | {'dense.bias': torch.zeros(3)}), 'crnn does not fit'), empty=(lambda c: c | dict(optimizer={}), 'optimizer does not fit'),
    shortcut=(lambda c: c | dict(shortcut=None), 'shortcut does not fit'), scheduler=(lambda c: c | dict(scheduler={}), 'scheduler does not fit'))


@pytest.mark.parametrize('name', BROKEN)
def test_broken_checkpoints_are_named_with_what_they_lack(part, tmp_path, name):
    import shutil
    damage, says = BROKEN[name]
    shutil.copy(part/'log.csv', tmp_path)
    torch.save(damage(torch.load(part/'last.pt', weights_only=True)), tmp_path/'last.pt')
    before = torch.get_rng_state()
    with pytest.raises(T.TrainError, match=says) as e: T.resume(tmp_path, progress=False)
    assert str(tmp_path/'last.pt') in str(e.value) and '\n' not in str(e.value)
    if 'does not fit' not in says: assert torch.equal(before, torch.get_rng_state())


def test_a_sound_checkpoint_moves_no_generator_and_one_without_words_is_resumed(words, whole, part, tmp_path):
    import shutil
    for name in 'last.pt', 'log.csv': shutil.copy(part/name, tmp_path)
    before = T.rng_state()
    found = T.load_checkpoint(tmp_path/'last.pt')
    after = T.rng_state()
    assert torch.equal(before['torch'], after['torch']) and before['python'] == after['python'] and torch.equal(before['numpy'][1], after['numpy'][1])
    assert found['words']['count'] == 48 and len(found['words']['digest']) == 16 and found['path'] == str(tmp_path/'last.pt')
    torch.save(without(found, 'words', 'path'), tmp_path/'last.pt')
    assert same(weights(T.resume(tmp_path, progress=False)), whole[1]) and rows(tmp_path) == rows(whole[2])


def test_an_average_is_no_start_but_says_so(part, tmp_path):
    torch.save(dict(state=torch.load(part/'last.pt', weights_only=True)['crnn'], n=3, step=7), tmp_path/'average.pt')
    with pytest.raises(T.TrainError, match='average.pt'): T.trained_crnn(tmp_path/'average.pt', Alphabet())
    torch.save(dict(alphabet=dict(chars='aa'), crnn={}), tmp_path/'twice.pt')
    with pytest.raises(T.TrainError, match='twice'): T.trained_crnn(tmp_path/'twice.pt', Alphabet())


def test_a_lost_log_is_named_and_the_run_goes_on(words, whole, part, tmp_path, recwarn):
    import shutil
    for kind in 'missing', 'cut':
        folder = shutil.copytree(part, tmp_path/kind)
        if kind == 'missing': (folder/'log.csv').unlink()
        else: (folder/'log.csv').write_bytes((folder/'log.csv').read_bytes().splitlines(True)[0])
        with pytest.warns(UserWarning, match='log.csv is missing' if kind == 'missing' else 'log.csv has lost its end'): run = T.resume(folder, progress=False)
        assert same(weights(run), whole[1]) and rows(folder) == [r for r in rows(whole[2]) if r['step'] > 7]
    recwarn.clear()
    T.resume(shutil.copytree(part, tmp_path/'whole'), progress=False)
    assert not [w for w in recwarn if 'log.csv' in str(w.message)]


def test_resume_takes_moved_words_and_no_others(words, whole, part, tmp_path):
    import shutil
    moved = shutil.copytree(words, tmp_path/'moved')
    (moved/'annotation_train.txt').write_bytes((moved/'annotation_train.txt').read_bytes().replace(b'\n', b'\r\n'))
    assert same(weights(T.resume(shutil.copytree(part, tmp_path/'a'), data_dir=moved, progress=False)), whole[1])
    more = write_synth90k(tmp_path/'more', 56, 12, 12, progress=False)
    lines = (moved/'annotation_train.txt').read_text().splitlines()
    swapped = shutil.copytree(words, tmp_path/'swapped')
    (swapped/'annotation_train.txt').write_text('\n'.join([lines[1], lines[0], *lines[2:]]) + '\n')
    for other, count in (more, 56), (swapped, 48):
        folder = shutil.copytree(part, tmp_path/f'b{count}')
        with pytest.raises(T.TrainError, match=f'over 48 words of .*here are {count} words of .*{other.name}'): T.resume(folder, data_dir=other, progress=False)
        assert rows(folder) == rows(part)


def test_words_without_texts_are_counted(part, tmp_path):
    import shutil
    counted = T._words_of([0]*7)
    assert counted == dict(count=7, digest=None)
    data = T.open_words(T.load_checkpoint(part/'last.pt')['config'])
    plain = [data[0][i] for i in range(47)], data[1]
    with pytest.raises(T.TrainError, match='here are 47 words'): T.resume(shutil.copytree(part, tmp_path/'a'), datasets=plain, progress=False)
    plain = [data[0][i] for i in range(48)], data[1]
    assert T.resume(shutil.copytree(part, tmp_path/'b'), datasets=plain, progress=False).reason == 'finished'
