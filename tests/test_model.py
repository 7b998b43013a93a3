"The network: shapes, padding, receptive field, files."
import copy
import os
import pickle
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from crnn_nb.alphabet import Alphabet
from crnn_nb.model import (CRNN, Field, ModelError, backbone, change_alphabet, channels, check_size, crnn_from_state, grow, hide, layer_table,
                           load_crnn, norm_own, out_size, receptive_field, save_crnn, seen_columns, windows)

few = settings(deadline=None, max_examples=15)


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope='module')
def full():
    torch.manual_seed(0)
    return CRNN(1, 32, 100, 37).eval()


def tiny(**kwargs):
    "A network of a few thousand parameters, in double precision, with batch statistics that are not neutral."
    torch.manual_seed(kwargs.pop('seed', 0))
    net = CRNN(**dict(img_channel=1, img_height=32, img_width=100, num_class=6, map_to_seq_hidden=5, rnn_hidden=4, width=0.05) | kwargs).double()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.running_mean, -1, 1), nn.init.uniform_(m.running_var, .5, 2), nn.init.uniform_(m.bias, -1, 1)
    return net.eval()


# the seed's network

def test_size_of_the_seed(full):
    assert sum(p.numel() for p in full.parameters()) == 7_839_077
    with torch.no_grad(): assert full(torch.zeros(3, 1, 32, 100)).shape == (24, 3, 37)


def test_names_of_the_seed(full):
    cnn = ['conv0', 'relu0', 'pooling0', 'conv1', 'relu1', 'pooling1', 'conv2', 'relu2', 'conv3', 'relu3', 'pooling2', 'conv4', 'batchnorm4', 'relu4',
           'conv5', 'batchnorm5', 'relu5', 'pooling3', 'conv6', 'relu6']
    assert [n for n, _ in full.cnn.named_children()] == cnn
    assert [n for n, _ in full.named_children()] == ['cnn', 'map_to_seq', 'rnn1', 'rnn2', 'dense']


def test_prints_what_the_seed_prints(full):
    for line in ['(conv0): Conv2d(1, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))', '(relu0): ReLU(inplace=True)',
                 '(pooling0): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)',
                 '(pooling2): MaxPool2d(kernel_size=(2, 1), stride=(2, 1), padding=0, dilation=1, ceil_mode=False)',
                 '(conv4): Conv2d(256, 512, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))',
                 '(conv6): Conv2d(512, 512, kernel_size=(2, 2), stride=(1, 1))', '(rnn2): LSTM(512, 256, bidirectional=True)']:
        assert line in repr(full)


def by_state(state, x, leaky=False):
    "The seed's network from its tensors alone, written with functions: the referee."
    act = (lambda v: F.leaky_relu(v, .2)) if leaky else F.relu
    for i in range(7):
        x = F.conv2d(x, state[f'cnn.conv{i}.weight'], state[f'cnn.conv{i}.bias'], padding=0 if i == 6 else 1)
        n = f'cnn.batchnorm{i}.'
        if n + 'weight' in state: x = F.batch_norm(x, *(state[n + k] for k in ('running_mean', 'running_var', 'weight', 'bias')))
        x = act(x)
        if i in (0, 1): x = F.max_pool2d(x, 2)
        if i in (3, 5): x = F.max_pool2d(x, (2, 1))
    n, c, h, w = x.shape
    x = F.linear(x.reshape(n, c*h, w).permute(2, 0, 1), state['map_to_seq.weight'], state['map_to_seq.bias'])
    for r in ('rnn1', 'rnn2'):
        own = {k.removeprefix(r + '.'): v for k, v in state.items() if k.startswith(r)}
        hidden = own['weight_hh_l0'].shape[1]
        both = []
        for end in ('', '_reverse'):
            a = b = x.new_zeros(n, hidden)
            out = []
            for t in (range(len(x)) if not end else reversed(range(len(x)))):
                gates = F.linear(x[t], own['weight_ih_l0' + end], own['bias_ih_l0' + end]) + F.linear(a, own['weight_hh_l0' + end], own['bias_hh_l0' + end])
                i, f, g, o = gates.chunk(4, 1)
                b = f.sigmoid()*b + i.sigmoid()*g.tanh()
                a = o.sigmoid()*b.tanh()
                out.append(a)
            both.append(torch.stack(out if not end else out[::-1]))
        x = torch.cat(both, 2)
    return F.linear(x, state['dense.weight'], state['dense.bias'])


@pytest.mark.parametrize('kwargs', [{}, dict(leaky_relu=True), dict(batch_norm='all'), dict(batch_norm='none'), dict(img_height=48), dict(img_channel=3)])
def test_equals_the_network_written_from_its_tensors(kwargs):
    net = tiny(**kwargs)
    x = torch.randn(3, net.config['img_channel'], net.config['img_height'], 57, dtype=torch.double)
    with torch.no_grad(): torch.testing.assert_close(net(x), by_state(net.state_dict(), x, net.config['leaky_relu']))


# sizes

@few
@given(st.integers(1, 130), st.integers(1, 40))
def test_sizes_are_refused_exactly_where_they_must_be(height, width):
    works = height >= 32 and height % 16 == 0 and width >= 8
    if works:
        check_size(height, width)
        assert backbone(1, [8]*7)(torch.zeros(1, 1, height, width)).shape[2:] == (height//16 - 1, width//4 - 1)
    else:
        with pytest.raises(ModelError) as e: check_size(height, width)
        assert re.match(rf'img_height={height}:' if height < 32 or height % 16 else rf'img_width={width}:', str(e.value))


@pytest.mark.parametrize('height, near', [(1, '32'), (31, '32'), (33, '32 and 48'), (40, '32 and 48'), (100, '96 and 112')])
def test_the_message_names_heights_that_work(height, near):
    with pytest.raises(ModelError, match=f'nearest that works: {near}$'): CRNN(1, height, 100, 37)


def test_frames_for_every_width():
    net = tiny()
    for w in range(8, 60):
        with torch.no_grad(): assert len(net(torch.zeros(1, 1, 32, w, dtype=torch.double))) == net.num_frames(w) == net.input_lengths([w]).item() == w//4 - 1


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2))
@settings(deadline=None)
def test_out_size_is_that_of_torch(n, kernel, stride, padding):
    if n + 2*padding < kernel: return
    assert out_size(n, kernel, stride, padding) == F.conv1d(torch.zeros(1, 1, n), torch.zeros(1, 1, kernel), stride=stride, padding=padding).shape[2]


@pytest.mark.parametrize('kwargs, message', [
    (dict(num_class=1), 'num_class=1'), (dict(img_channel=0), 'img_channel=0'), (dict(rnn_hidden=0), 'rnn_hidden=0'), (dict(map_to_seq_hidden=2.5), 'map_to_seq_hidden=2.5'),
    (dict(dropout=1), 'dropout=1'), (dict(dropout=-.1), 'dropout=-0.1'), (dict(width=0), 'width=0'), (dict(width=9), 'width=9'), (dict(batch_norm='yes'), "batch_norm='yes'"),
    (dict(img_width=7), 'img_width=7')])
def test_arguments_that_cannot_work(kwargs, message):
    with pytest.raises(ModelError, match=re.escape(message)): CRNN(**dict(img_channel=1, img_height=32, img_width=100, num_class=37) | kwargs)


def test_widths_multiply_the_channels():
    assert channels() == [64, 128, 256, 256, 512, 512, 512]
    assert channels(.5) == [c//2 for c in channels()]
    net = CRNN(1, 32, 100, 37, width=.25, batch_norm='all')
    assert [m.out_channels for m in net.cnn if isinstance(m, nn.Conv2d)] == channels(.25)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in net.cnn) == 7


@pytest.mark.parametrize('images, widths, message', [
    (torch.zeros(2, 3, 32, 100), None, 'images of shape (2, 3, 32, 100): this network takes (N, 1, 32, W)'),
    (torch.zeros(2, 1, 48, 100), None, '(N, 1, 32, W)'), (torch.zeros(1, 32, 100), None, '(N, 1, 32, W)'), (torch.zeros(2, 32, 100, 1), None, '(N, 1, 32, W)'),
    (torch.zeros(2, 1, 32, 100, dtype=torch.uint8), None, 'images of torch.uint8'), (torch.zeros(2, 1, 32, 7), None, 'img_width=7'),
    (torch.zeros(2, 1, 32, 100), [100], '1 widths for 2 images'), (torch.zeros(2, 1, 32, 100), [100, 7], 'widths[1]=7'),
    (torch.zeros(2, 1, 32, 100), torch.tensor([101, 100]), 'widths[0]=101: the images are only 100 pixels wide')])
def test_input_that_cannot_work(images, widths, message):
    with pytest.raises(ModelError, match=re.escape(message)): tiny().float()(images, widths)


# padding

nets = {key: tiny(batch_norm=key[0], leaky_relu=key[1], img_height=key[2]) for key in [('seed', False, 32), ('all', False, 32), ('none', True, 32), ('all', True, 48)]}


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(nets)), st.lists(st.integers(8, 70), min_size=1, max_size=5), st.integers(0, 30), st.sampled_from([0., 3., float('nan'), float('inf')]))
def test_a_padded_word_is_what_it_is_alone(key, widths, more, filler):
    net, widths = nets[key], torch.tensor(widths)
    words = [torch.randn(1, 1, key[2], w, dtype=torch.double, generator=torch.Generator().manual_seed(int(w))) for w in widths]
    total = int(widths.max()) + more
    batch = torch.cat([F.pad(w, (0, total - w.shape[3]), value=filler) for w in words])
    with torch.no_grad(): together, alone = net(batch, widths), [net(w)[:, 0] for w in words]
    assert net.input_lengths(widths).tolist() == [len(a) for a in alone]
    for i, a in enumerate(alone):
        torch.testing.assert_close(together[:len(a), i], a, rtol=0, atol=1e-10)
        assert (together[len(a):, i].argmax(1) == 0).all()


def test_padding_leaks_where_it_is_not_masked():
    net = nets['all', False, 32]
    word = torch.randn(1, 1, 32, 41, dtype=torch.double)
    with torch.no_grad(): assert (net(F.pad(word, (0, 30)))[:9] - net(word)).abs().max() > 1e-4


def test_the_full_network_in_single_precision(full):
    widths = torch.tensor([100, 99, 42, 9])
    batch = torch.randn(4, 1, 32, 130)
    with torch.no_grad():
        together = full(batch, widths)
        for i, w in enumerate(widths):
            alone = full(batch[i:i+1, :, :, :w])[:, 0]
            torch.testing.assert_close(together[:len(alone), i], alone, rtol=0, atol=1e-5)


def test_no_gradient_reaches_the_padding():
    net, x = nets['seed', False, 32], torch.randn(2, 1, 32, 50, dtype=torch.double, requires_grad=True)
    net(x, [50, 23]).sum().backward()
    assert not x.grad[1, :, :, 23:].any() and x.grad[1, :, :, :23].any()


def test_training_does_not_depend_on_the_padding():
    short, long = tiny(batch_norm='all').train(), tiny(batch_norm='all').train()
    x, widths = torch.randn(3, 1, 32, 60, dtype=torch.double), torch.tensor([60, 33, 12])
    a, b = short(x, widths), long(F.pad(x, (0, 57), value=5.), widths)
    torch.testing.assert_close(b[:len(a)], a)
    for (name, p), (_, q) in zip(short.named_buffers(), long.named_buffers()): torch.testing.assert_close(p, q, msg=name)
    a.sum().backward(), b[:len(a)].sum().backward()
    for (name, p), (_, q) in zip(short.named_parameters(), long.named_parameters()): torch.testing.assert_close(p.grad, q.grad, msg=name)


@few
@given(st.lists(st.integers(1, 9), min_size=2, max_size=4))
def test_norm_own_is_batch_norm_of_the_words_side_by_side(widths):
    a, b = nn.BatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    x = torch.randn(len(widths), 3, 4, max(widths) + 2, dtype=torch.double)
    got = norm_own(a, x, torch.tensor(widths))
    side = b(torch.cat([x[i, :, :, :w] for i, w in enumerate(widths)], 2)[None])
    torch.testing.assert_close(torch.cat([got[i, :, :, :w] for i, w in enumerate(widths)], 2)[None], side)
    torch.testing.assert_close((a.running_mean, a.running_var), (b.running_mean, b.running_var))


def test_equal_widths_change_nothing(full):
    x = torch.randn(2, 1, 32, 40)
    with torch.no_grad(): assert torch.equal(full(x, [40, 40]), full(x))


def test_other_memory_format_and_precision(full):
    x = torch.randn(2, 1, 32, 60)
    with torch.no_grad():
        want = full(x, [60, 31])
        last = copy.deepcopy(full).to(memory_format=torch.channels_last)
        torch.testing.assert_close(last(x.to(memory_format=torch.channels_last), [60, 31]), want, rtol=0, atol=1e-5)
        with torch.autocast('cpu', torch.bfloat16): half = full(x, [60, 31])
    assert half.isfinite().all() and (half.float() - want).abs().max() < .1


def test_dropout_only_while_training():
    net, x = tiny(dropout=.5), torch.randn(2, 1, 32, 40, dtype=torch.double)
    assert torch.equal(net(x), net(x)) and not torch.equal(net.train()(x), net(x))
    assert net.state_dict().keys() == tiny().state_dict().keys()


# what a frame sees

@pytest.mark.parametrize('t', [0, 3, 12, 22])
def test_receptive_field_is_where_the_gradient_is(t):
    net = CRNN(1, 32, 100, 5, 4, 4, leaky_relu=True, width=.1).double().eval()
    x = torch.randn(16, 1, 32, 100, dtype=torch.double, requires_grad=True, generator=torch.Generator().manual_seed(1))
    columns = seen_columns(net.cnn(x)[..., t], x).nonzero().flatten().tolist()
    start, stop = net.frame_span(t, 100)
    assert columns == list(range(start, stop))


def test_receptive_field_of_another_pooling():
    net = tiny(leaky_relu=True)
    net.cnn.pooling1 = nn.MaxPool2d((2, 1), (2, 1))
    x = torch.randn(16, 1, 32, 60, dtype=torch.double, requires_grad=True)
    maps = net.cnn(x)
    assert net.num_frames(60) == maps.shape[3] == 29 and net.stride == 2
    columns = seen_columns(maps[..., 14], x).nonzero().flatten()
    assert (columns[0].item(), columns[-1].item() + 1) == net.frame_span(14)


def test_field_by_hand():
    assert grow(Field(4, 2, -1), 3, 1, 1) == Field(8, 2, -3)
    net = tiny()
    assert receptive_field(net) == Field(46, 4, -19) and receptive_field(net, 0) == Field(86, 16, -27)
    assert (net.stride, net.offset, net.frame_span(5)) == (4, 3.5, (1, 47))
    assert [w[0] for w in windows(net.cnn)] == ['conv0', 'pooling0', 'conv1', 'pooling1', 'conv2', 'conv3', 'pooling2', 'conv4', 'conv5', 'pooling3', 'conv6']
    for t, width in [(-1, None), (24, 100)]:
        with pytest.raises(ModelError, match=f't={t}: '): net.frame_span(t, width)


def test_layer_table_adds_up(full):
    table = layer_table(full)
    assert sum(l.parameters for l in table) == 7_839_077
    assert {l.name: l.shape for l in table}['cnn.conv6'] == (512, 1, 24) and table[-1].shape == (24, 37)
    assert {l.name: l.mults for l in table}['cnn.conv1'] == 128*16*50*64*9
    assert layer_table(full, 160)[-1].shape == (39, 37)
    assert '7,839,077' in repr(table)
    net = CRNN(1, 32, 100, 37, width=.1).train()
    before = copy.deepcopy(net.state_dict())
    layer_table(net)
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


# files

@pytest.fixture
def saved(tmp_path):
    net = tiny(batch_norm='all', img_height=48, leaky_relu=True, dropout=.1, num_class=11).float()
    return net, save_crnn(tmp_path/'net.safetensors', net, Alphabet('0123456789'), accuracy=.9, note='ä', steps=[1, 2])


def test_a_file_gives_back_what_was_saved(saved):
    net, path = saved
    again, alphabet, meta = load_crnn(path)
    assert again.config == net.config and not again.training
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), net.state_dict().values()))
    assert alphabet == Alphabet('0123456789') and meta == dict(accuracy=.9, note='ä', steps=[1, 2])
    assert os.listdir(path.parent) == [path.name]


def test_saving_fails_whole(saved):
    net, path = saved
    before = path.read_bytes()
    for name, alphabet, meta, message in [('net.pt', Alphabet('0123456789'), {}, 'net.pt: the name must end in .safetensors'),
                                          ('net.safetensors', Alphabet(), {}, 'alphabet has 37 classes, the network 11'),
                                          ('net.safetensors', Alphabet('0123456789'), dict(a=object()), 'meta: ')]:
        with pytest.raises(ModelError, match=re.escape(message)): save_crnn(path.with_name(name), net, alphabet, **meta)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_every_cut_is_noticed(saved):
    _, path = saved
    raw = path.read_bytes()
    for n in [0, 1, 7, 8, 9, 50, 1000, len(raw)//2, len(raw) - 1]:
        path.write_bytes(raw[:n])
        with pytest.raises(ModelError, match='^net.safetensors: '): load_crnn(path)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_changed_byte_is_noticed_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp('flip')
    net = tiny(width=.02, rnn_hidden=1, map_to_seq_hidden=1).float()
    path = save_crnn(folder/'a.safetensors', net, Alphabet('01234'), accuracy=.5)
    raw = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(raw[:8], 'little')
    raw[data.draw(st.integers(0, header - 1) | st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    try: again, alphabet, meta = load_crnn(path)
    except ModelError: return
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), net.state_dict().values()))
    assert (alphabet, meta, again.config) == (Alphabet('01234'), dict(accuracy=.5), net.config)


def test_other_kinds_of_file(saved, tmp_path):
    net, path = saved
    torch.save(net.state_dict(), tmp_path/'zip.safetensors')
    torch.save(net.state_dict(), tmp_path/'old.safetensors', _use_new_zipfile_serialization=False)
    (tmp_path/'pickle.safetensors').write_bytes(pickle.dumps({'a': 1}))
    for name in ('zip', 'old', 'pickle'):
        with pytest.raises(ModelError, match=f'^{name}.safetensors: this is a file of torch.save'): load_crnn(tmp_path/f'{name}.safetensors')
    save_file({'a': torch.zeros(2)}, tmp_path/'other.safetensors')
    with pytest.raises(ModelError, match='not one of save_crnn'): load_crnn(tmp_path/'other.safetensors')
    (tmp_path/'text.safetensors').write_text('hello, this is no network')
    with pytest.raises(ModelError, match='not a whole safetensors file'): load_crnn(tmp_path/'text.safetensors')
    with pytest.raises(FileNotFoundError): load_crnn(tmp_path/'nothing.safetensors')


def test_tensors_that_do_not_fit(saved, tmp_path):
    from crnn_nb.model import _digest, _read_tensors
    _, path = saved
    head, state = _read_tensors(path)
    for change, message in [(lambda s: s.pop('dense.bias'), 'dense.bias is missing'), (lambda s: s.update(extra=torch.zeros(1)), 'extra is unknown'),
                            (lambda s: s.update({'dense.bias': torch.zeros(3)}), 'dense.bias is (3,), not (11,)')]:
        other = dict(state)
        change(other)
        save_file(other, tmp_path/'x.safetensors', metadata=head | dict(digest=_digest(other)))
        with pytest.raises(ModelError, match=re.escape(message)): load_crnn(tmp_path/'x.safetensors')
    for key in ('config', 'alphabet', 'meta'):
        save_file(state, tmp_path/'x.safetensors', metadata={k: v for k, v in head.items() if k not in (key, 'seal')})
        with pytest.raises(ModelError, match='header is damaged'): load_crnn(tmp_path/'x.safetensors')


class Bomb:
    def __reduce__(self): return os.mkdir, (str(Bomb.target),)


def test_nothing_is_executed(tmp_path):
    Bomb.target = tmp_path/'executed'
    torch.save({'cnn.conv0.weight': Bomb()}, tmp_path/'bomb.pt')
    with pytest.raises(ModelError, match='it would|would execute code'): load_crnn(tmp_path/'bomb.pt')
    (tmp_path/'bomb.safetensors').write_bytes((tmp_path/'bomb.pt').read_bytes())
    with pytest.raises(ModelError): load_crnn(tmp_path/'bomb.safetensors')
    assert not Bomb.target.exists()


def test_seed_style_weights(full, tmp_path):
    torch.save(full.state_dict(), tmp_path/'seed.pt')
    net, alphabet, meta = load_crnn(tmp_path/'seed.pt')
    x = torch.randn(2, 1, 32, 100)
    with torch.no_grad(): assert torch.equal(net(x), full(x))
    assert alphabet == Alphabet() and meta == {}
    raw = (tmp_path/'seed.pt').read_bytes()
    for n in (0, 100, len(raw)//2):
        (tmp_path/'cut.pt').write_bytes(raw[:n])
        with pytest.raises(ModelError, match='^cut.pt: '): load_crnn(tmp_path/'cut.pt')
    torch.save(torch.zeros(3), tmp_path/'tensor.pt')
    with pytest.raises(ModelError, match='holds a Tensor, not a state_dict'): load_crnn(tmp_path/'tensor.pt')
    torch.save({'epoch': 1}, tmp_path/'epoch.pt')
    with pytest.raises(ModelError, match='epoch.pt: no state of a CRNN'): load_crnn(tmp_path/'epoch.pt')


@few
@given(st.floats(.01, .3), st.sampled_from(['seed', 'all', 'none']), st.sampled_from([32, 64]), st.integers(2, 40), st.integers(1, 3), st.integers(1, 9), st.booleans())
def test_a_state_tells_the_architecture(width, batch_norm, height, num_class, img_channel, hidden, parallel):
    net = CRNN(img_channel, height, 100, num_class, hidden, hidden + 1, width=width, batch_norm=batch_norm)
    again = crnn_from_state({('module.' if parallel else '') + k: v for k, v in net.state_dict().items()})
    assert {k: v for k, v in again.config.items() if k != 'width'} == {k: v for k, v in net.config.items() if k != 'width'}
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), net.state_dict().values()))


def test_other_classes_need_their_alphabet(tmp_path):
    net = tiny(num_class=11).float()
    torch.save(net.state_dict(), tmp_path/'digits.pt')
    with pytest.raises(ModelError, match='digits.pt: a network of 11 classes; give load_crnn its alphabet'): load_crnn(tmp_path/'digits.pt')
    assert load_crnn(tmp_path/'digits.pt', Alphabet('0123456789'))[1] == Alphabet('0123456789')


def test_another_alphabet_keeps_all_but_the_last_layer():
    old, new = Alphabet('abcde'), Alphabet('xecé')
    net = tiny(num_class=old.num_class).train()
    changed = change_alphabet(net, new, old)
    a, b = net.state_dict(), changed.state_dict()
    assert [k for k in a if not torch.equal(a[k], b[k])] == ['dense.weight', 'dense.bias']
    for mine, theirs in [(0, 0), (new.char2label['e'], old.char2label['e']), (new.char2label['c'], old.char2label['c'])]:
        assert torch.equal(b['dense.weight'][mine], a['dense.weight'][theirs]) and b['dense.bias'][mine] == a['dense.bias'][theirs]
    assert changed.training and changed.config['num_class'] == 5 and changed.dense.weight.dtype == torch.double
    assert changed(torch.zeros(1, 1, 32, 40, dtype=torch.double)).shape == (9, 1, 5) and net.config['num_class'] == 6
    with torch.no_grad(): changed.cnn.conv0.weight += 1
    assert not torch.equal(changed.cnn.conv0.weight, net.cnn.conv0.weight)
    assert change_alphabet(net, new).dense.out_features == 5
    with pytest.raises(ModelError, match='old has 37 classes, the network 6'): change_alphabet(net, new, Alphabet())


def test_a_network_can_be_pickled_and_copied():
    net = tiny()
    x = torch.randn(1, 1, 32, 30, dtype=torch.double)
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net), CRNN(**net.config).double().eval()):
        other.load_state_dict(net.state_dict())
        assert other.config == net.config
        with torch.no_grad(): assert torch.equal(other(x), net(x))


@pytest.mark.parametrize('arguments, message', [
    ((1, '32', 100, 37), "img_height='32': a whole number of pixels"), ((1, 32, None, 37), 'img_width=None'), ((1, 32.0, 100, 37), 'img_height=32.0'),
    ((1, float('nan'), 100, 37), 'img_height=nan'), ((1, 32, 100, '37'), "num_class='37': a whole number"), ((1, 32, 100, 37.0), 'num_class=37.0')])
def test_sizes_that_are_no_whole_numbers(arguments, message):
    with pytest.raises(ModelError, match=re.escape(message)): CRNN(*arguments, width=.125)


@pytest.mark.parametrize('option, message', [(dict(width='x'), "width='x'"), (dict(batch_norm=['all']), "batch_norm=['all']"), (dict(dropout=None), 'dropout=None')])
def test_options_of_the_wrong_kind(option, message):
    with pytest.raises(ModelError, match=re.escape(message)): CRNN(1, 32, 100, 37, **dict(width=.125) | option)


def test_numpy_integers_are_sizes_and_can_be_saved(tmp_path):
    import numpy as np
    net = CRNN(np.int64(1), np.int64(32), np.int64(100), np.int64(37), width=.125)
    assert load_crnn(save_crnn(tmp_path/'a.safetensors', net, Alphabet()))[0].config == net.config


def test_states_that_are_none(tmp_path):
    net = CRNN(1, 32, 100, 37, width=.125)
    with pytest.raises(ModelError, match="Its 'state_dict' is a dict"): crnn_from_state({'epoch': 1, 'state_dict': net.state_dict()})
    with pytest.raises(ModelError, match='has shape'): crnn_from_state(net.state_dict() | {'cnn.conv0.weight': torch.zeros(3)})
    with pytest.raises(ModelError, match='not a NoneType'): crnn_from_state(None)
    (tmp_path/'junk.pt').write_text('junk junk')
    with pytest.raises(ModelError, match='junk.pt: not a whole file'): load_crnn(tmp_path/'junk.pt')
    for wrong in (lambda: change_alphabet(net, 'abc'), lambda: save_crnn(tmp_path/'a.safetensors', net, 'abc')):
        with pytest.raises(ModelError, match='give an Alphabet'): wrong()
