"""Reading words: every picture with its own text, every broken file dropped, counted and named.

Set CRNN_NB_SYNTH90K to a folder in the Synth90k layout to read real pictures too; set CRNN_NB_SOAK for 7.2 million annotation lines.
"""
import copy
import io
import os
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings, strategies as st
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, RandomSampler, Subset

from crnn_nb import data as D
from crnn_nb.alphabet import CHARS, Alphabet
from crnn_nb.data import (DataError, ICDARDataset, LMDBDataset, Skipped, Synth90kDataset, Texts, TSVDataset, WidthBatchSampler, WordDataset,
                          decode_image, fit_width, image_size, load_image, open_dataset, parse_line, read_annotation, read_lexicon, resize,
                          skipped, synth90k_collate_fn, to_tensor)

settings.register_profile('data', deadline=None, max_examples=60, derandomize=True)
settings.load_profile('data')
WORKERS = {'fork': 2, 'spawn': 1} # a spawned worker imports PyTorch anew
WORDS = ['flora', 'Lube', 'MIDYEAR', 'ump', 'randoms', 'tethered', 'bolts', 'stony', 'down', 'q']


def encoded(image, format='jpeg', **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(k, width=60, height=31, **options):
    "A JPEG whose grey level says which one it is."
    return encoded(Image.new('L', (width, height), 20*k % 240), **options)


def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png_bomb(width=100_000, height=100_000):
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0))
            + chunk(b'IDAT', zlib.compress(bytes(9))) + chunk(b'IEND', b''))


def jpeg_bomb():
    data = bytearray(picture(1))
    at = data.find(b'\xff\xc0')
    data[at + 5:at + 9] = b'\xff\xff\xff\xff'
    return bytes(data)


BROKEN = {'empty': b'', 'truncated': picture(3)[:-40], 'not an image': b'<html>404</html>', 'too large': png_bomb()}


@pytest.fixture
def root(tmp_path):
    "Ten words in the Synth90k layout, all modes alike, the widths between 40 and 85."
    (tmp_path/'7/1').mkdir(parents=True)
    lines = []
    for k, word in enumerate(WORDS):
        (tmp_path/f'7/1/{k}_{word}_{k}.jpg').write_bytes(picture(k, 40 + 5*k))
        lines.append(f'./7/1/{k}_{word}_{k}.jpg {k}\n')
    for mode in D.MODES.values(): (tmp_path/mode).write_text(''.join(lines))
    (tmp_path/'lexicon.txt').write_text('\n'.join(WORDS).lower() + '\n')
    return tmp_path


def path_of(root, k): return root/f'7/1/{k}_{WORDS[k]}_{k}.jpg'


def spelled(batches):
    "The words of batches, from targets and lengths."
    return [Alphabet().decode(w.tolist()) for _, targets, lengths, *_ in batches for w in targets.split(lengths.tolist())]


def pairs(batches):
    "`(picture's number, word)` of every sample in batches: the number comes from the grey level."
    numbers = [round((float(i.flatten()[0]) + 1)*127.5/20) for images, *_ in batches for i in images]
    return list(zip(numbers, spelled(batches)))


# ---- one picture

@given(st.integers(1, 70), st.integers(1, 90), st.sampled_from(['L', 'RGB', 'RGBA', '1', 'P', 'LA', 'CMYK']),
       st.sampled_from(['jpeg', 'png', 'bmp', 'webp']), st.integers(0, 2**32 - 1))
def test_decodes_as_pillow(h, w, mode, format, seed):
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)).convert(mode)
    try: data = encoded(image, format)
    except OSError: assume(False)
    stored = Image.open(io.BytesIO(data))
    if format == 'jpeg': stored.draft('L', None) # the luminance as stored
    if stored.mode in ('RGBA', 'LA', 'PA') or 'transparency' in stored.info:
        stored = stored.convert('RGBA')
        stored = Image.alpha_composite(Image.new('RGBA', stored.size, 'white'), stored)
    grey = np.asarray(stored.convert('L'))
    np.testing.assert_array_equal(decode_image(data), grey)
    assert image_size(data) == (w, h)
    want = np.asarray(Image.fromarray(grey).resize((100, 32), Image.BILINEAR))
    np.testing.assert_array_equal(load_image(data).numpy()[0], ((want/127.5) - 1.0).astype(np.float32))


@pytest.mark.parametrize('options', [dict(progressive=True), dict(quality=30), dict(optimize=True), dict(subsampling=2), dict(keep_rgb=True)])
def test_kinds_of_jpeg(options):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 83, 3), np.uint8))
    data = encoded(image, **options)
    stored = Image.open(io.BytesIO(data))
    stored.draft('L', None)
    np.testing.assert_array_equal(decode_image(data), np.asarray(stored))
    np.testing.assert_array_equal(D._decode_pillow(data, '', D.MAX_PIXELS), np.asarray(stored))


def test_colour_as_by_way_of_rgb():
    "Pillow's convert('L') without draft differs by rounding where no colour is clipped."
    ramp = np.stack([*np.meshgrid(np.linspace(60, 190, 90), np.linspace(60, 190, 40)), np.full((40, 90), 120.)], -1).astype(np.uint8)
    data = encoded(Image.fromarray(ramp))
    by_rgb = np.asarray(Image.open(io.BytesIO(data)).convert('L')).astype(int)
    assert abs(decode_image(data) - by_rgb).max() <= 1


@pytest.mark.parametrize('turn', range(1, 9))
@pytest.mark.parametrize('format', ['jpeg', 'png'])
def test_turned_by_the_camera(turn, format):
    exif = Image.Exif()
    exif[0x0112] = turn
    image = np.zeros((40, 80), np.uint8)
    image[:16, :32] = 240
    data = encoded(Image.fromarray(image), format, exif=exif)
    want = np.asarray(__import__('PIL.ImageOps').ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(decode_image(data), want)
    assert want.shape == ((40, 80) if turn < 5 else (80, 40))


def test_sixteen_bits():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(1, -1)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(ramp), 'png')), np.arange(256)[None])


def test_transparent_is_white():
    image = Image.new('RGBA', (4, 4), (0, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 0, 255))
    assert decode_image(encoded(image, 'png')).tolist()[0] == [0, 255, 255, 255]


def test_bytes_after_the_end_do_no_harm():
    np.testing.assert_array_equal(decode_image(picture(5) + b'\0\0\0'), decode_image(picture(5)))


@pytest.mark.parametrize('format', ['jpeg', 'png'])
def test_every_cut_is_noticed(format):
    rng = np.random.default_rng(1)
    data = encoded(Image.fromarray(rng.integers(0, 256, (12, 20), np.uint8)), format)
    whole = decode_image(data)
    for n in range(len(data)):
        try: got = decode_image(data[:n])
        except DataError as e: assert e.reason in ('empty', 'truncated', 'not an image')
        else: np.testing.assert_array_equal(got, whole) # only what follows the pixels is missing
    with pytest.raises(DataError): decode_image(data[:len(data)*9//10])


@given(st.binary(max_size=200), st.sampled_from([b'', b'\xff\xd8', b'\xff\xd8\xff\xe0\x00\x10JFIF', b'\x89PNG\r\n\x1a\n', b'GIF89a', b'BM', b'RIFF1234WEBP']),
       st.sampled_from([b'', b'\xff\xd9']))
def test_junk_is_a_data_error(junk, head, tail):
    try: grey = decode_image(head + junk + tail)
    except DataError as e: assert e.reason in D.REASONS[2:]
    else: assert grey.dtype == np.uint8 and grey.ndim == 2


@given(st.data())
def test_flipped_bytes(data):
    good = bytearray(picture(4, 30, 20) if data.draw(st.booleans()) else encoded(Image.new('L', (30, 20), 9), 'png'))
    for _ in range(3): good[data.draw(st.integers(2, len(good) - 3))] = data.draw(st.integers(0, 255))
    try: assert decode_image(bytes(good), max_pixels=10**6).ndim == 2
    except DataError as e: assert e.reason in D.REASONS[2:]


@pytest.mark.parametrize('bomb', [png_bomb(), png_bomb(5000, 5000), jpeg_bomb(), encoded(Image.new('L', (5000, 4000)), 'gif')])
def test_bombs_are_refused_before_decoding(bomb, monkeypatch):
    monkeypatch.setattr(D.cv2, 'imdecode', lambda *a: pytest.fail('decoded'))
    monkeypatch.setattr(Image.Image, 'convert', lambda *a: pytest.fail('decoded'))
    with pytest.raises(DataError, match='max_pixels=16,777,216') as e: decode_image(bomb, 'word.png')
    assert e.value.reason == 'too large' and 'word.png' in str(e.value)


def test_limit_is_an_argument():
    assert decode_image(picture(1, 100, 10), max_pixels=1000).shape == (10, 100)
    with pytest.raises(DataError): decode_image(picture(1, 101, 10), max_pixels=1000)
    with pytest.raises(DataError): load_image(np.zeros((101, 10), np.uint8), max_pixels=1000)


def test_load_image_takes_what_holds_a_picture(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (20, 50), np.uint8)
    (tmp_path/'a.png').write_bytes(encoded(Image.fromarray(grey), 'png'))
    want = to_tensor(resize(grey, 32, 100))
    rgb = np.repeat(grey[..., None], 3, 2)
    for image in (tmp_path/'a.png', str(tmp_path/'a.png'), (tmp_path/'a.png').read_bytes(), grey, grey[..., None], Image.fromarray(grey), rgb[:, ::-1][:, ::-1]):
        assert torch.equal(load_image(image), want)
    assert load_image(grey, img_width=None).shape == (1, 32, 80)
    assert load_image(grey, img_width=None, max_width=60).shape == (1, 32, 60)


@pytest.mark.parametrize('bad', [np.zeros((3, 4)), np.zeros((2, 3, 5), np.uint8), np.zeros((0, 5), np.uint8), np.zeros(5, np.uint8), np.zeros((1, 2, 3, 3), np.uint8), 7, None])
def test_load_image_refuses(bad):
    with pytest.raises(DataError, match='must be uint8'): load_image(bad)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_fit_width(w, h):
    got = fit_width(w, h)
    assert 16 <= got <= 512
    if 16 < got < 512: assert abs(got - w*32/h) <= .5


# ---- annotations

def slow_reader(data, lexicon):
    "`parse_line` on each line, as `read_annotation` must be."
    out = []
    for n, line in enumerate(data.split(b'\n'), 1):
        if line.strip(b' \t\r'): out.append(parse_line(line.decode(), lexicon, f'FILE, line {n}'))
    return out


def quick_reader(tmp, data, lexicon, block_size):
    file = Path(tmp)/'FILE'
    file.write_bytes(data)
    paths, words = read_annotation(file, lexicon, block_size)
    return [(paths[i], words[i]) for i in range(len(paths))]


LEXICON = Texts.from_list(['flora', 'a', '', 'straße', 'x_y', '42', 'a.b'])
PIECE = st.sampled_from(['flora', 'FLORA', 'Flora', 'a', 'A', '', 'straße', 'STRASSE', 'x_y', 'X_Y', '42', 'a.b', '_', '/', './', '../', '..', '.', ' ', '\t', '.jpg', '.png',
                         '0', '1', '2', '3', '4', '5', '6', '7', '00', '0000000001', '\\', 'C:', '\r', '\0', 'é'])
TIDY = st.tuples(st.sampled_from(['./1/2/9_', '9_', 'dir one/3_', ' 9_', '/9_', '9']), st.integers(0, 7), st.sampled_from([0, 0, 0, 1]), st.sampled_from(['.jpg', '', '.tar.gz']),
                 st.sampled_from([' ', '  ', '\t']), st.sampled_from(['', '\r', ' '])
                 ).map(lambda t: f'{t[0]}{LEXICON[min(t[1], 6)].upper() if t[1] % 2 else LEXICON[min(t[1], 6)]}_{t[1]}{t[3]}{t[4]}{t[1] + t[2]}{t[5]}')


@settings(max_examples=400)
@given(st.lists(st.one_of(TIDY, TIDY, st.lists(PIECE, max_size=7).map(''.join)), max_size=8), st.booleans(), st.sampled_from([1, 7, 40, 2**22]), st.booleans())
@example(['9_flora_0.jpg 0', '', 'a/../9_flora_0.jpg 0'], True, 2**22, False)
@example(['\t'], False, 1, True)
@example([' 9_flora_0.jpg 0'], True, 2**22, True)
@example(['', '9_flora_0.jpg 0 '], True, 2**22, False)
def test_all_at_once_is_line_by_line(tmp_path_factory, lines, use_lexicon, block_size, last_newline):
    data = ('\n'.join(lines) + '\n'*last_newline).encode()
    lexicon = LEXICON if use_lexicon else None
    tmp = tmp_path_factory.getbasetemp()
    try: want = slow_reader(data, lexicon)
    except DataError as e:
        with pytest.raises(DataError) as got: quick_reader(tmp, data, lexicon, block_size)
        assert str(got.value).replace(str(tmp) + os.sep, '') == str(e)
    else: assert quick_reader(tmp, data, lexicon, block_size) == want


@settings(max_examples=200)
@given(st.lists(TIDY, max_size=8), st.booleans())
def test_good_lines_only(tmp_path_factory, lines, use_lexicon):
    "As above, but with the bad lines left out, so that whole files pass."
    lexicon = LEXICON if use_lexicon else None
    def good(line):
        try: parse_line(line, lexicon)
        except DataError: return False
        return True
    data = '\n'.join(filter(good, lines)).encode()
    assert quick_reader(tmp_path_factory.getbasetemp(), data, lexicon, 50) == slow_reader(data, lexicon)


@pytest.mark.parametrize('line, message', [
    ('./7/1/1_Lube_1.jpg', 'is not "path index"'), ('./7/1/1_Lube_1.jpg x', 'is not "path index"'), ('./7/1/1_Lube_1.jpg -1', 'is not "path index"'),
    ('17', 'is not "path index"'), ('./7/1/1_Lube_2.jpg 1', 'the annotation says index 1'), ('./7/1/1_Lube_99.jpg 99', 'beyond the 10 words'),
    ('./7/1/1_lobe_1.jpg 1', "'lobe', word 1 of lexicon.txt is 'lube'"), ('/7/1/1_Lube_1.jpg 1', 'leaves the root'), ('../7/1/1_Lube_1.jpg 1', 'leaves the root'),
    ('7/../../1_Lube_1.jpg 1', 'leaves the root'), ('C:/1_Lube_1.jpg 1', 'leaves the root'), ('..\\1_Lube_1.jpg 1', 'leaves the root'), ('7/\0/1_Lube_1.jpg 1', 'leaves the root')])
def test_bad_lines_name_file_and_line(root, line, message):
    file = root/'annotation_val.txt'
    good = file.read_text().splitlines()
    file.write_text('\n'.join(good[:4] + [line] + good[4:]))
    with pytest.raises(DataError) as e: Synth90kDataset(root, 'dev')
    assert f'{file}, line 5: ' in str(e.value) and message in str(e.value) and e.value.reason is None


def test_not_utf8(root):
    (root/'annotation_val.txt').write_bytes(b'./7/1/0_flora_0.jpg 0\n./7/1/\xff_Lube_1.jpg 1\n')
    with pytest.raises(DataError, match='line 2: .* is not UTF-8'): Synth90kDataset(root, 'dev')


@pytest.mark.parametrize('change', [lambda t: t.replace('\n', '\r\n'), lambda t: '\ufeff' + t, lambda t: t.rstrip(), lambda t: t.replace('\n', '\n\n'), lambda t: t.replace('\n', '  \n')])
def test_line_ends_and_marks(root, change):
    want = [Synth90kDataset(root, 'train').text(i) for i in range(10)]
    file = root/'annotation_train.txt'
    file.write_bytes(change(file.read_text()).encode())
    (root/'lexicon.txt').write_bytes(change((root/'lexicon.txt').read_text()).replace('\n\n', '\n').encode())
    train = Synth90kDataset(root, 'train')
    assert [train.text(i) for i in range(len(train))] == want and train[3][1].tolist() == Alphabet().encode('ump')


def test_without_lexicon_and_with_other_names(root):
    (root/'lexicon.txt').unlink()
    assert Synth90kDataset(root, 'test').text(2) == 'MIDYEAR'
    (root/'7/1/x.jpg').write_bytes(picture(1))
    (root/'annotation_test.txt').write_text('./7/1/x.jpg 1\n')
    with pytest.raises(DataError, match='no lexicon.txt to look up 1'): Synth90kDataset(root, 'test')
    (root/'lexicon.txt').write_text('a\nword\n')
    assert Synth90kDataset(root, 'test').text(0) == 'word'


def write_many(file, n, words=2000):
    with open(file, 'w') as f:
        for k in range(n): f.write(f'./{k//3500 + 1}/{k//500%7 + 1}/{k%500}_{"Word" if k%2 else "WORD"}{k%words}_{k%words}.jpg {k%words}\n')
    file.with_name('lexicon.txt').write_text(''.join(f'word{k}\n' for k in range(words)))


OPEN = '''
import resource, sys, time
from crnn_nb.data import read_annotation, read_lexicon
before, t = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
paths, words = read_annotation(sys.argv[1], read_lexicon(sys.argv[2]))
unit = 2**30 if sys.platform == 'darwin' else 2**20
print(len(paths), words[len(paths) - 1], time.process_time() - t, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)/unit, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/unit)
'''


@pytest.mark.parametrize('n', [300_000, pytest.param(7_200_000, marks=pytest.mark.skipif(not os.environ.get('CRNN_NB_SOAK'), reason='set CRNN_NB_SOAK'))])
def test_millions_of_lines(tmp_path, n):
    "Seconds of processor time, and well below 2 GB at 7.2 million lines: at most 230 bytes a line beside the package itself."
    write_many(tmp_path/'annotation_train.txt', n)
    out = subprocess.run([sys.executable, '-c', OPEN, tmp_path/'annotation_train.txt', tmp_path/'lexicon.txt'], capture_output=True, text=True, check=True).stdout.split()
    assert out[:2] == [str(n), f'{"Word" if (n - 1) % 2 else "WORD"}{(n - 1) % 2000}']
    assert float(out[2]) < 4e-6*n + 2, f'{out[2]} s'
    assert float(out[3]) < 230e-9*n + .05 and float(out[4]) < 2, f'{out[3:]} GB'


# ---- datasets and batches

def test_as_in_the_seed(root):
    assert Synth90kDataset.CHARS == CHARS and Synth90kDataset.CHAR2LABEL['0'] == 1 and Synth90kDataset.LABEL2CHAR[36] == 'z' and len(Synth90kDataset.LABEL2CHAR) == 36
    for mode in ('train', 'dev', 'test'):
        dataset = Synth90kDataset(root_dir=str(root), mode=mode, img_height=32, img_width=100)
        image, target, length = dataset[1]
        assert image.shape == (1, 32, 100) and image.dtype == torch.float32 and target.dtype == length.dtype == torch.int64
        assert torch.allclose(image, torch.full_like(image, 20/127.5 - 1)) and target.tolist() == Alphabet().encode('lube') and length.tolist() == [4]
    images, targets, lengths = next(iter(DataLoader(dataset, batch_size=10, collate_fn=synth90k_collate_fn)))
    assert images.shape == (10, 1, 32, 100) and targets.shape == (lengths.sum(),) and lengths.shape == (10,)


def test_modes_read_their_files(root):
    lines = (root/'annotation_val.txt').read_text().splitlines()
    (root/'annotation_val.txt').write_text('\n'.join(lines[:3]))
    (root/'annotation_test.txt').write_text('\n'.join(lines[3:5]))
    assert [len(Synth90kDataset(root, m)) for m in ('train', 'dev', 'test')] == [10, 3, 2]


@pytest.mark.parametrize('reason', [*BROKEN, 'missing', 'unreadable'])
def test_each_broken_kind(root, reason):
    path_of(root, 3).unlink()
    if reason == 'unreadable': path_of(root, 3).mkdir()
    elif reason != 'missing': path_of(root, 3).write_bytes(BROKEN[reason])
    dataset = Synth90kDataset(root, 'train')
    assert isinstance(dataset[3], Skipped) and dataset[3].reason == reason
    batches = list(DataLoader(dataset, batch_size=4, collate_fn=synth90k_collate_fn))
    assert [len(b[0]) for b in batches] == [3, 4, 2]
    assert pairs(batches) == [(k, w.lower()) for k, w in enumerate(WORDS) if k != 3]
    assert dataset.skipped() == [(3, './7/1/3_ump_3.jpg', reason)]
    assert repr(dataset.skipped()) == f'1 of 10 samples read were skipped: 1 {reason} (./7/1/3_ump_3.jpg)'
    with pytest.raises(DataError, match='3_ump_3.jpg'): Synth90kDataset(root, 'train', broken='raise')[3]


@given(st.sets(st.integers(0, 9)), st.integers(1, 11), st.booleans(), st.integers(0, 1000))
def test_no_label_ever_moves(tmp_path_factory, bad, batch_size, keep_ratio, seed):
    folder = tmp_path_factory.mktemp('words')
    for k in range(10): (folder/f'{k}.jpg').write_bytes(list(BROKEN.values())[k % 4] if k in bad else picture(k, 40 + 5*k))
    dataset = WordDataset([f'{k}.jpg' for k in range(10)], WORDS, folder, keep_ratio=keep_ratio)
    sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(seed))
    batches = list(DataLoader(dataset, batch_size=batch_size, sampler=sampler, collate_fn=synth90k_collate_fn))
    assert sorted(pairs(batches)) == [(k, w.lower()) for k, w in enumerate(WORDS) if k not in bad]
    assert all(len(b) == 3 + keep_ratio and b[0].shape[1:3] == (1, 32) for b in batches)
    assert [i for i, _, _ in dataset.skipped()] == sorted(bad) and dataset.skipped().seen == 10
    if keep_ratio:
        for images, _, _, widths in batches:
            for i, w in zip(images, widths.tolist()): assert (i[..., w:] == 0).all() and (i[..., :w] != 0).all()


@pytest.mark.parametrize('method', ['fork', 'spawn'])
@pytest.mark.skipif(sys.platform == 'win32', reason='no fork')
def test_worker_processes(root, method):
    for k, bad in zip((0, 4, 9), BROKEN.values()): path_of(root, k).write_bytes(bad)
    dataset = Synth90kDataset(root, 'train', keep_ratio=True)
    loader = DataLoader(dataset, batch_size=3, num_workers=WORKERS[method], collate_fn=synth90k_collate_fn, multiprocessing_context=method)
    assert pairs(loader) == [(k, w.lower()) for k, w in enumerate(WORDS) if k not in (0, 4, 9)]
    assert [(i, r) for i, _, r in dataset.skipped()] == [(0, 'empty'), (4, 'truncated'), (9, 'not an image')] and dataset.skipped().seen == 10


def test_an_error_in_a_worker_keeps_its_kind(root):
    path_of(root, 0).write_bytes(b'')
    loader = DataLoader(Synth90kDataset(paths=[path_of(root, 0)]), num_workers=1)
    with pytest.raises(DataError, match='0_flora_0.jpg is empty'): next(iter(loader))


@pytest.mark.parametrize('keep_ratio, labelled', [(False, False), (False, True), (True, False), (True, True)])
def test_a_batch_without_samples(tmp_path, keep_ratio, labelled):
    dataset = WordDataset(['a.jpg', 'b.jpg'], ['a', 'b'] if labelled else None, tmp_path, 16, 50, keep_ratio, broken='skip')
    batch = synth90k_collate_fn([dataset[0], dataset[1]])
    if not labelled and not keep_ratio: batch = (batch,)
    assert len(batch) == 1 + keep_ratio + 2*labelled
    assert batch[0].shape == (0, 1, 16, 16 if keep_ratio else 50) and all(b.shape == (0,) and b.dtype == torch.int64 for b in batch[1:])


def test_pictures_alone(root):
    files = [path_of(root, k) for k in range(3)]
    dataset = Synth90kDataset(paths=files, img_height=32, img_width=100)
    assert dataset[2].shape == (1, 32, 100) and synth90k_collate_fn([dataset[0], dataset[1]]).shape == (2, 1, 32, 100)
    assert next(iter(DataLoader(dataset, batch_size=3))).shape == (3, 1, 32, 100) # PyTorch's own collate function serves as well
    images, widths = synth90k_collate_fn([Synth90kDataset(paths=files, keep_ratio=True)[k] for k in range(3)])
    assert widths.tolist() == [fit_width(40 + 5*k, 31) for k in range(3)] and images.shape == (3, 1, 32, widths.max())


@pytest.mark.parametrize('arguments, message', [
    (dict(paths='a.jpg'), 'is one path'), (dict(paths=Path('a.jpg')), 'is one path'), (dict(paths=['a'], mode='train'), 'not both'), (dict(mode='val'), "mode='val'"),
    (dict(), 'mode=None'), (dict(paths=['a'], unknown='keep'), "unknown='keep'"), (dict(paths=['a'], broken='no'), "broken='no'"), (dict(paths=['a'], img_width=0), 'img_width=0')])
def test_arguments(arguments, message):
    with pytest.raises(DataError, match=message): Synth90kDataset(**arguments)


def test_index(root):
    dataset = Synth90kDataset(root, 'train')
    assert torch.equal(dataset[-1][0], dataset[np.int64(9)][0])
    for bad in (10, -11):
        with pytest.raises(IndexError, match='of 10'): dataset[bad]
    with pytest.raises(TypeError): dataset[1:3]
    with pytest.raises(DataError, match='2 paths but 1 texts'): WordDataset(['a', 'b'], ['a'])


def test_texts_that_do_not_fit(root):
    files = [str(path_of(root, k)) for k in range(4)]
    dataset = WordDataset(files, ["Joe's", '', '!?', 'Käse'])
    dataset.check()
    assert [r for *_, r in dataset.skipped()] == ['outside alphabet', 'no text', 'no text' if dataset.unknown == 'strip' else 'outside alphabet', 'outside alphabet']
    stripped = WordDataset(files, ["Joe's", '', '!?', 'Käse'], unknown='strip')
    assert spelled([synth90k_collate_fn([stripped[i] for i in range(4)])]) == ['joes', 'kse'] and stripped.skipped().counts == {'no text': 2}
    cased = WordDataset(files[:1], ['KaKa'], alphabet=Alphabet('aKk', case_sensitive=True))
    assert cased[0][1].tolist() == [2, 1, 2, 1]


def test_frames(root):
    files = [str(path_of(root, k)) for k in range(3)]
    texts = ['abc', 'aab', 'aaaa'] # 3, 4 and 7 frames
    assert [isinstance(WordDataset(files, texts, frames=4)[i], Skipped) for i in range(3)] == [False, False, True]
    dataset = WordDataset(files, texts, keep_ratio=True, frames=lambda width: width//16) # widths 41, 46, 52: 2, 2, 3 frames
    assert dataset.check().counts == {'too long': 3}


def test_cache_and_transform(root):
    dataset = Synth90kDataset(root, 'train', cache=True, transform=lambda grey: 255 - grey)
    assert len(dataset.check()) == 0
    plain = Synth90kDataset(root, 'train')
    for k in range(10): path_of(root, k).unlink()
    assert torch.allclose(dataset[4][0], -torch.full((1, 32, 100), 80/127.5 - 1), atol=1e-6) and torch.equal(dataset[4][0], dataset[4][0])
    assert isinstance(plain[4], Skipped)
    assert [s[2] for s in plain.check(workers=2)] == ['missing']*10 and plain.usable() == []


def test_check_collects_even_where_errors_are_raised(root):
    path_of(root, 2).write_bytes(b'')
    dataset = Synth90kDataset(root, 'train', broken='raise')
    assert dataset.check().counts == {'empty': 1} and dataset.broken == 'raise' and dataset.usable() == [0, 1, *range(3, 10)]


def test_pickle_and_copy(root):
    path_of(root, 0).write_bytes(b'')
    dataset = Synth90kDataset(root, 'train', keep_ratio=True, alphabet=Alphabet('abflor'))
    dataset[0]
    for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert other.skipped() == dataset.skipped() and other.status.is_shared() and other.alphabet == dataset.alphabet
        other[1]
        assert dataset.skipped().seen == 1 # a copy keeps its own report


def test_without_shared_memory(root, monkeypatch):
    def refuse(self): raise RuntimeError('unable to open shared memory object')
    monkeypatch.setattr(torch.Tensor, 'share_memory_', refuse)
    path_of(root, 0).write_bytes(b'')
    dataset = Synth90kDataset(root, 'train')
    assert len(pickle.loads(pickle.dumps(dataset)).check()) == len(dataset.check()) == 1


def test_report_through_wrappers(root):
    for k in (2, 7): path_of(root, k).write_bytes(b'')
    dataset = Synth90kDataset(root, 'train')
    dataset.check()
    half = Subset(dataset, [7, 8, 9])
    assert [i for i, *_ in skipped(half)] == [7] and skipped(half).seen == 3
    assert [i for i, *_ in skipped(Subset(half, [1, 2]))] == [] and [i for i, *_ in skipped(Subset(half, [0]))] == [7]
    assert len(skipped(ConcatDataset([dataset, half]))) == 3
    assert len(skipped(DataLoader(dataset))) == 2 and skipped([1, 2]) == []


def test_report_names_a_few_and_counts_all():
    report = D.SkipReport([(i, f'{i}.jpg', 'missing' if i % 2 else 'empty') for i in range(100)], seen=1000)
    assert repr(report) == '100 of 1000 samples read were skipped: 50 missing (1.jpg, 3.jpg, 5.jpg, …); 50 empty (0.jpg, 2.jpg, 4.jpg, …)'


def test_collate_refuses_what_it_cannot_mark():
    one = lambda h, w: (torch.zeros(1, h, w), torch.tensor([1]), torch.tensor([1]))
    with pytest.raises(DataError, match='keep_ratio=True'): synth90k_collate_fn([one(32, 100), one(32, 90)])
    with pytest.raises(DataError, match='same img_height'): synth90k_collate_fn([one(32, 100), one(30, 100)])


# ---- folders

def test_folder_that_holds_nothing(tmp_path):
    for folder in (tmp_path/'new', tmp_path):
        with pytest.raises(DataError, match='crnn-nb synth'): Synth90kDataset(folder, 'train')
        with pytest.raises(DataError, match='crnn-nb synth'): open_dataset(folder)
    (tmp_path/'readme.txt').write_text('x')
    with pytest.raises(DataError, match='holds no annotation_train.txt'): Synth90kDataset(tmp_path, 'train')
    with pytest.raises(DataError, match='is a file'): Synth90kDataset(tmp_path/'readme.txt', 'train')


def test_archive_not_unpacked(root):
    for k in range(10): path_of(root, k).unlink()
    with pytest.raises(DataError, match='not one of 10 pictures looked for exists'): Synth90kDataset(root, 'train')


@pytest.mark.parametrize('how', [lambda: Synth90kDataset(mode='dev'), lambda: Synth90kDataset(D.default_data_dir(), 'dev'), lambda: open_dataset(mode='dev')])
def test_default_folder_is_drawn(tmp_path, monkeypatch, how):
    from crnn_nb.synth import write_synth90k
    monkeypatch.setenv('CRNN_NB_DATA', str(tmp_path))
    monkeypatch.setattr(D, 'ensure_words', lambda folder: write_synth90k(folder, 2, 3, 1, progress=False))
    dataset = how()
    assert len(dataset) == 3 and dataset.root_dir == D.default_data_dir() and len(dataset.check()) == 0


def test_tsv(root):
    (root/'labels.tsv').write_text("7/1/0_flora_0.jpg\tFlora's\n\n7/1/1_Lube_1.jpg\ttwo words \r\n", newline='')
    dataset = TSVDataset(root, unknown='strip')
    assert [dataset.text(i) for i in range(2)] == ["Flora's", 'two words '] and spelled([synth90k_collate_fn([dataset[0], dataset[1]])]) == ['floras', 'twowords']
    for line, message in (('7/1/0_flora_0.jpg Flora', 'line 2: .* no tab'), ('../x.jpg\tx', 'line 2: .* leaves the root'), ('/x.jpg\tx', 'line 2'), ('\tx', 'line 2: the path is empty')):
        (root/'labels.tsv').write_text(f'a.jpg\ta\n{line}\n')
        with pytest.raises(DataError, match=message): TSVDataset(root)
    with pytest.raises(DataError, match='cannot be read'): TSVDataset(root/'none.tsv')


def test_icdar(root, tmp_path):
    lines = ['a.png, "Genaxis Theatre"', 'a.png, "62-,03"', r'a.png, "\"READ\" \\"', 'a.png, "19" tv"', 'a.png, ""', 'a.png,"tight"', 'a.png, plain, too']
    (root/'gt').mkdir()
    (root/'a.png').write_bytes(picture(1))
    file = root/'gt/gt.txt'
    file.write_bytes(b'\xef\xbb\xbf' + '\r\n'.join(lines).encode() + b'\r\n')
    dataset = ICDARDataset(file, image_dir=root, unknown='strip')
    assert [dataset.text(i) for i in range(7)] == ['Genaxis Theatre', '62-,03', '"READ" \\', '19" tv', '', 'tight', 'plain, too']
    assert dataset.check().counts == {'no text': 1}
    for line, message in (('a.png "x"', 'is not `word_1.png'), ('a.png, "x', 'not closed'), ('../a.png, "x"', 'leaves the root'), ('a.png, "', 'not closed')):
        file.write_text(f'a.png, "a"\n\n{line}\n')
        with pytest.raises(DataError, match=f'gt.txt, line 3: .*{message}'): ICDARDataset(file, image_dir=root)


def write_lmdb(path, samples, count=None, images=True):
    with lmdb.open(str(path), map_size=2**24) as env, env.begin(write=True) as txn:
        for k, (data, text) in enumerate(samples, 1):
            if data is not None: txn.put(b'image-%09d' % k, data)
            txn.put(b'label-%09d' % k, text if isinstance(text, bytes) else text.encode())
        if count is not False: txn.put(b'num-samples', str(len(samples) if count is None else count).encode())
    return path


def test_lmdb(tmp_path):
    path = write_lmdb(tmp_path/'mdb', [(picture(k), w) for k, w in enumerate(WORDS)] + [(None, 'gone'), (b'', 'empty'), (picture(1), b'\xff\xfe')])
    dataset = LMDBDataset(path)
    assert len(dataset) == 13 and dataset.text(2) == 'MIDYEAR' and dataset.name(2) == 'image-000000003'
    assert pairs(DataLoader(dataset, batch_size=5, collate_fn=synth90k_collate_fn)) == [(k, w.lower()) for k, w in enumerate(WORDS)]
    assert [(n, r) for _, n, r in dataset.skipped()] == [('image-000000011', 'missing'), ('image-000000012', 'empty'), ('image-000000013', 'outside alphabet')]
    second = LMDBDataset(path, keep_ratio=True) # beside the first, which is open
    assert len(second[0]) == 4 and torch.equal(dataset[0][1], second[0][1])
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3][0], dataset[3][0])


@pytest.mark.parametrize('method', ['fork', 'spawn'])
@pytest.mark.skipif(sys.platform == 'win32', reason='no fork')
def test_lmdb_in_workers(tmp_path, method):
    dataset = LMDBDataset(write_lmdb(tmp_path/'mdb', [(BROKEN['truncated'] if k == 4 else picture(k), w) for k, w in enumerate(WORDS)]))
    other = LMDBDataset(tmp_path/'mdb')
    both = ConcatDataset([dataset, other])
    both[0], both[10] # the environment is open before the workers start
    loader = DataLoader(both, batch_size=3, num_workers=WORKERS[method], collate_fn=synth90k_collate_fn, multiprocessing_context=method)
    want = [(k, w.lower()) for k, w in enumerate(WORDS) if k != 4]
    assert pairs(loader) == want + want
    if method == 'fork': assert pairs(loader) == want + want
    assert dataset[5][1].tolist() == Alphabet().encode('tethered') # and still is afterwards
    assert len(skipped(loader)) == 2 and skipped(loader).seen == 20


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork')
def test_no_process_uses_the_environment_of_another(tmp_path):
    dataset = LMDBDataset(write_lmdb(tmp_path/'mdb', [(picture(1), 'a')]))
    assert dataset.text(0) == 'a' and dataset._held.pid == os.getpid()
    child = os.fork()
    if not child:
        good = dataset.text(0) == 'a' and dataset._held.pid == os.getpid() and LMDBDataset(tmp_path/'mdb')._held is dataset._held
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0 and dataset.text(0) == 'a'


def test_lmdb_that_is_none(tmp_path):
    with pytest.raises(DataError, match='holds no data.mdb'): LMDBDataset(tmp_path)
    (tmp_path/'junk').mkdir()
    (tmp_path/'junk/data.mdb').write_bytes(b'junk'*2000)
    with pytest.raises(DataError, match='does not open as an LMDB'): LMDBDataset(tmp_path/'junk')
    for count, message in ((False, 'num-samples is None'), ('ten', 'num-samples is')):
        with pytest.raises(DataError, match=message): LMDBDataset(write_lmdb(tmp_path/f'{count}', [], count))
    assert LMDBDataset(write_lmdb(tmp_path/'more', [(picture(1), 'a')], 3)).check().counts == {'no text': 2}


def test_open_dataset(root, tmp_path):
    assert isinstance(open_dataset(root), Synth90kDataset) and len(open_dataset(str(root), 'test', img_width=50)) == 10
    assert isinstance(open_dataset(root/'annotation_val.txt'), Synth90kDataset)
    for name, text, kind in (('labels.tsv', 'x.jpg\tx', TSVDataset), ('gt.txt', '\ufeffx.jpg, "x"', ICDARDataset)):
        folder = root/name.partition('.')[0]
        folder.mkdir()
        (folder/'x.jpg').write_bytes(picture(1))
        (folder/name).write_text(text, encoding='utf-8')
        (folder/f'other_{name}').write_text(text, encoding='utf-8')
        for path in (folder, folder/name, folder/f'other_{name}'): assert type(open_dataset(path)) is kind
    write_lmdb(root/'deep/mdb', []) if (root/'deep').mkdir() is None else None
    assert type(open_dataset(root/'deep/mdb')) is type(open_dataset(root/'deep/mdb/data.mdb')) is LMDBDataset
    with pytest.raises(DataError, match='LMDBs are in mdb'): open_dataset(root/'deep')
    (root/'list.txt').write_text('a b c')
    with pytest.raises(DataError, match='is neither'): open_dataset(root/'list.txt')
    with pytest.raises(DataError, match='does not exist'): open_dataset(root/'nowhere')


# ---- widths

@given(st.lists(st.integers(1, 500), max_size=60), st.integers(1, 9), st.booleans(), st.booleans(), st.integers(1, 4), st.integers(0, 5))
def test_width_batches(widths, batch_size, shuffle, drop_last, pool, seed):
    make = lambda: WidthBatchSampler(widths, batch_size, shuffle, seed, drop_last, pool)
    sampler = make()
    first, second = list(sampler), list(sampler)
    assert len(first) == len(sampler) and all(len(b) == batch_size for b in first[:-1] if not shuffle or drop_last)
    flat = sorted(sum(first, []))
    if not drop_last: assert flat == list(range(len(widths)))
    assert len(set(flat)) == len(flat) and all(len(b) <= batch_size for b in first)
    again = make()
    assert list(again) == first and list(again) == second
    again.set_epoch(0)
    assert list(again) == first
    if not shuffle: assert first == second


def test_like_widths_save_padding():
    widths = np.random.default_rng(0).gamma(6, 18, 5000).astype(int) + 1
    cost = lambda batches: sum(len(b)*widths[b].max() for b in batches)
    shuffled = np.random.default_rng(1).permutation(4992).reshape(-1, 64).tolist()
    sampler = WidthBatchSampler(widths[:4992], 64)
    assert cost(list(sampler)) - widths[:4992].sum() < .25*(cost(shuffled) - widths[:4992].sum())
    first, second = list(sampler), list(sampler)
    assert first != second


def test_widths_from_headers(root):
    path_of(root, 4).write_bytes(b'')
    path_of(root, 5).write_bytes(encoded(Image.new('L', (70, 35)), 'png'))
    dataset = Synth90kDataset(root, 'train', keep_ratio=True)
    widths = dataset.widths()
    assert [widths[i] for i in range(10) if i != 4] == [dataset[i][0].shape[2] for i in range(10) if i != 4] and widths[5] == 64
    assert Synth90kDataset(root, 'train').widths().tolist() == [100]*10


# ---- real pictures

@pytest.mark.skipif(not os.environ.get('CRNN_NB_SYNTH90K'), reason='set CRNN_NB_SYNTH90K to a folder in the Synth90k layout')
@pytest.mark.parametrize('mode', ['train', 'dev', 'test'])
def test_real_synth90k(mode):
    dataset = open_dataset(os.environ['CRNN_NB_SYNTH90K'], mode)
    rows = range(0, len(dataset), max(1, len(dataset)//500))
    for i in rows:
        want = np.asarray(Image.open(os.path.join(dataset.root_dir, dataset.paths[i])).convert('L').resize((100, 32), Image.BILINEAR))/127.5 - 1
        assert np.abs(dataset[i][0][0].numpy() - want).max() < .05
        assert Alphabet().decode(dataset[i][1].tolist()) == dataset.name(i).split('_')[1].lower()
    assert len(dataset.skipped()) == 0


@pytest.mark.parametrize('wrong, message', [
    (lambda: load_image(np.zeros((9, 9), np.uint8), 0), 'img_height=0: a whole number'),
    (lambda: load_image(np.zeros((9, 9), np.uint8), 32, 100.), 'img_width=100.0: a whole number'),
    (lambda: load_image(np.zeros((9, 9), np.uint8), img_width=None, min_width=90, max_width=50), 'min_width at most max_width'),
    (lambda: decode_image('word.jpg'), 'the bytes of a file are needed'),
    (lambda: to_tensor(np.zeros((3, 3))), 'grey levels are float64 of shape (3, 3)'),
    (lambda: WordDataset(['a.jpg'], [None]), 'texts[0] is None: a str is needed'),
    (lambda: WordDataset([7], ['a']), 'paths[0] is 7: a str is needed'),
    (lambda: WordDataset(['a.jpg'], ['a'], alphabet='abc'), "alphabet='abc': give an Alphabet"),
    (lambda: WordDataset(['a.jpg'], ['a'], img_height='32'), "img_height='32'"),
    (lambda: WordDataset(['a.jpg'], ['a'], frames='24'), "frames='24'"),
    (lambda: WordDataset(['a.jpg'], ['a'], min_width=90, max_width=50), 'min_width=90 is more than max_width=50'),
    (lambda: synth90k_collate_fn([]), 'a batch of no samples'),
    (lambda: D.DrawnWords('blocks', size=0), 'size=0'),
    (lambda: D.DrawnWords('blocks', turns=0), 'turns=0'),
    (lambda: D.DrawnWords(__file__), 'is a file; name a folder')])
def test_arguments_of_the_wrong_kind_are_named(wrong, message):
    with pytest.raises(DataError) as e: wrong()
    assert message in str(e.value)


def test_skipped_looks_through_parts_of_several_datasets(tmp_path):
    (tmp_path/'0.jpg').write_bytes(picture(0))
    parts = [WordDataset(['0.jpg', f'{k}x.jpg', '0.jpg'], list('abc'), tmp_path) for k in range(3)]
    whole = ConcatDataset(parts)
    for i in range(9): whole[i]
    assert [name for _, name, _ in skipped(whole)] == ['0x.jpg', '1x.jpg', '2x.jpg']
    for rows in ([0, 4, 5], [7], [8, 6], [], [1, 4, 7]):
        report = skipped(DataLoader(Subset(Subset(whole, list(range(9))), rows)))
        assert [name for _, name, _ in report] == [f'{i//3}x.jpg' for i in rows if i % 3 == 1] and report.seen == len(rows)


# ---- files, images and lists that are damaged or of another kind

def test_file_of_too_many_bytes_is_not_read(tmp_path, monkeypatch):
    with open(tmp_path/'film.jpg', 'wb') as f: f.truncate(50*2**30) # no byte of it is on the disk
    for use in (load_image, lambda p: WordDataset([str(p)], broken='raise')[0]):
        with pytest.raises(DataError, match='film.jpg has 53,687,091,200 bytes, more than MAX_BYTES=200,000,000') as e: use(tmp_path/'film.jpg')
        assert e.value.reason == 'too large'
    assert WordDataset(['film.jpg'], ['film'], tmp_path)[0].reason == 'too large' and WordDataset(['film.jpg'], ['film'], tmp_path, keep_ratio=True).widths().tolist() == [100]
    with open(tmp_path/'film.jpg', 'rb') as f, pytest.raises(DataError, match='more than MAX_BYTES') as e:
        monkeypatch.setattr(D, 'MAX_BYTES', 1000)
        load_image(f)
    assert e.value.reason == 'too large'
    (tmp_path/'fits.jpg').write_bytes(picture(3).ljust(1000, b'\0'))
    assert load_image(tmp_path/'fits.jpg').shape == (1, 32, 100)
    (tmp_path/'fits.jpg').write_bytes(picture(3).ljust(1001, b'\0'))
    with pytest.raises(DataError, match='1,001 bytes|more than MAX_BYTES'): load_image(tmp_path/'fits.jpg')


@pytest.mark.skipif(sys.platform == 'win32', reason='no such device')
def test_endless_file_is_not_read(monkeypatch):
    monkeypatch.setattr(D, 'MAX_BYTES', 10**5)
    with pytest.raises(DataError, match='more than MAX_BYTES=100,000') as e: load_image('/dev/zero')
    assert e.value.reason == 'too large'
    with pytest.raises(DataError) as e: load_image('/dev/null')
    assert e.value.reason == 'empty'


def test_pipe_is_read():
    r, w = os.pipe()
    os.write(w, picture(5))
    os.close(w)
    with open(r, 'rb', buffering=0) as f: assert torch.equal(load_image(f), load_image(picture(5)))


OPEN_LMDB = "import sys\nfrom crnn_nb.data import DataError, open_dataset\ntry: open_dataset(sys.argv[1]).check()\nexcept DataError as e: print('DataError:', e)"


@pytest.mark.parametrize('part', [0, .001, .01, .3, .5, .99])
def test_lmdb_cut_short(tmp_path, part):
    "In a process of its own: to look beyond the end of a mapped file ends the process."
    path = write_lmdb(tmp_path/'mdb', [(picture(k, 400, 100, quality=95), w) for k, w in enumerate(WORDS*20)])
    whole = (path/'data.mdb').read_bytes()
    (path/'data.mdb').write_bytes(whole[:int(part*len(whole))])
    out = subprocess.run([sys.executable, '-c', OPEN_LMDB, path], capture_output=True, text=True)
    assert out.returncode == 0 and f'{path/"data.mdb"} is cut short: it has {int(part*len(whole)):,} bytes' in out.stdout, out


def test_lmdb_without_unused_pages_at_its_end(tmp_path):
    "LMDB does not write pages at the end that were freed before they were filled: such a file is whole."
    path = write_lmdb(tmp_path/'mdb', [(picture(k), w) for k, w in enumerate(WORDS)])
    data = bytearray((path/'data.mdb').read_bytes())
    size, root, last = D._mdb_header(data)
    newer = max((0, size), key=lambda at: struct.unpack_from('=Q', data, at + 144))
    struct.pack_into('=Q', data, newer + 136, last + 7)
    (path/'data.mdb').write_bytes(data)
    assert D._mdb_header(data) == (size, root, last + 7) and len(LMDBDataset(path).check()) == 0
    assert max(D._mdb_pages(data, size, root)) <= last


@pytest.mark.parametrize('depth', [1, 40])
def test_lmdb_pages_as_lmdb_counts_them(tmp_path, depth):
    path = write_lmdb(tmp_path/'mdb', [(bytes(k*700 % 9000), w) for k, w in enumerate(WORDS*depth)])
    data = (path/'data.mdb').read_bytes()
    size, root, last = D._mdb_header(data)
    with lmdb.open(str(path), readonly=True, lock=False) as env: info, stat = env.info(), env.stat()
    pages = list(D._mdb_pages(data, size, root))
    assert size == stat['psize'] and last == info['last_pgno'] and len(pages) >= stat['leaf_pages'] + stat['branch_pages'] and max(pages) <= last


@pytest.mark.parametrize('count', [8, 10**6, 10**15, '9'*30, '9'*5000])
def test_lmdb_that_promises_too_much(tmp_path, count):
    with pytest.raises(DataError, match='num-samples is .*, but the LMDB has 7 entries in all'): LMDBDataset(write_lmdb(tmp_path/'mdb', [(picture(1), 'a')]*3, count))


def closed(path):
    with Image.open(path) as image: pass
    return image


RAMP = np.linspace(0, 255, 52, dtype=np.float32).round().reshape(4, 13)
IMAGES = {'cut': (lambda p: Image.open(io.BytesIO(p.read_bytes()[:-300])), 'truncated', 'breaks off or is damaged'), 'closed': (closed, 'unreadable', 'was closed'),
          'closed after use': (lambda p: [i := Image.open(p), i.load(), i.close()][0], 'unreadable', 'was closed'),
          'its file closed': (lambda p: [i := Image.open(p), i.fp.close()][0], 'unreadable', 'was closed'),
          'LAB': (lambda p: Image.new('LAB', (9, 9)), 'unreadable', 'of mode LAB, which Pillow does not convert to grey: pass it as RGB'),
          'no pixels': (lambda p: Image.new('L', (0, 0)), 'empty', '0 x 0 pixels'), 'no rows': (lambda p: Image.new('RGB', (5, 0)), 'empty', '5 x 0 pixels'),
          'negative': (lambda p: Image.fromarray(RAMP - 300), 'not an image', 'values from -300 to -45'), 'NaN': (lambda p: Image.fromarray(RAMP*np.nan), 'not an image', 'holds NaN'),
          'large': (lambda p: Image.fromarray((RAMP*1000).astype(np.int32)), 'not an image', 'values from 0 to 255000')}


@pytest.mark.parametrize('kind', IMAGES)
def test_pillow_images_that_are_none(tmp_path, kind):
    make, reason, message = IMAGES[kind]
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 64), np.uint8)).save(tmp_path/'a.png')
    with pytest.raises(DataError, match=message) as e: load_image(make(tmp_path/'a.png'))
    assert e.value.reason == reason


@pytest.mark.parametrize('image', [Image.fromarray(RAMP), Image.fromarray(RAMP/255), Image.fromarray(RAMP/127.5 - 1), Image.fromarray(RAMP.astype(np.int32)),
                                   Image.fromarray((RAMP*257).astype(np.int32)), Image.fromarray((RAMP*257).astype(np.uint16))], ids='F F1 F-1 I I16 I;16'.split())
def test_grey_levels_of_floats_and_integers(image):
    want = RAMP.astype(np.uint8)
    np.testing.assert_array_equal(D._to_grey(image), want)
    np.testing.assert_array_equal(decode_image(encoded(image, 'tiff')), want)


def test_lab_file_says_its_mode():
    with pytest.raises(DataError, match='word.tif is of mode LAB') as e: decode_image(encoded(Image.new('LAB', (9, 9)), 'tiff'), 'word.tif')
    assert e.value.reason == 'unreadable'


def test_load_image_takes_files_and_tensors(tmp_path):
    (tmp_path/'a.jpg').write_bytes(picture(5))
    want = load_image(picture(5))
    with open(tmp_path/'a.jpg', 'rb') as f: assert torch.equal(load_image(f), want)
    assert torch.equal(load_image(io.BytesIO(picture(5))), want) and torch.equal(load_image(torch.tensor(decode_image(picture(5)))), want)
    with pytest.raises(DataError, match="cannot be read: .*closed file. Pass a file that is open, with mode 'rb'"): load_image(f)
    with open(__file__) as text, pytest.raises(DataError, match="test_data.py gives str, not bytes: open the file with mode 'rb'"): load_image(text)
    with pytest.raises(DataError, match='gives str'): load_image(io.StringIO('a word'))
    with open(__file__, 'rb') as code, pytest.raises(DataError, match='test_data.py is not an image'): load_image(code)
    for tensor in (torch.eye(4).to_sparse(), torch.zeros(4, 4, device='meta')):
        with pytest.raises(DataError, match='pass a dense one, on the cpu'): load_image(tensor)
    with pytest.raises(DataError, match='must be uint8'): load_image(torch.rand(4, 4).bfloat16())
    assert D._to_array(torch.tensor([.5]).bfloat16(), 'a').tolist() == [.5] and D._to_array(torch.zeros(2).half(), 'a').dtype == np.float16


@pytest.mark.parametrize('name', ['labels.tsv', 'gt.txt'])
@pytest.mark.parametrize('text', ['', '\n', '\ufeff', ' \r\n\t\r\n'])
def test_lists_of_nothing(tmp_path, name, text):
    (tmp_path/name).write_bytes(text.encode())
    for use in (open_dataset, {'labels.tsv': TSVDataset, 'gt.txt': ICDARDataset}[name]):
        for path in (tmp_path, tmp_path/name):
            with pytest.raises(DataError, match=f'{name} holds no line'): use(path)


@pytest.mark.parametrize('name, text, message', [
    ('labels.tsv', 'a.png\ta\na.png\ta\tb\n', 'labels.tsv, line 2: .* has 2 tabs, where one is needed'), ('labels.tsv', 'a.png\ta\n\na.png\ta\t\n', 'labels.tsv, line 3: .* has 2 tabs'),
    ('labels.tsv', 'a.png\ta\na.png\ta\rb\n', 'labels.tsv, line 2: .* holds a carriage return'), ('labels.tsv', 'a.png\ta\ra.png\tb\r', 'line 1: .* holds a carriage return'),
    ('gt.txt', 'a.png, "a"\na.png, "a\rb"\n', 'gt.txt, line 2: .* holds a carriage return'), ('gt.txt', 'a.png, "a"\na.png, "a\tb"\n', 'gt.txt, line 2: .* holds a tab'),
    ('gt.txt', 'a.png, "a"\na.png\ta, b\n', 'gt.txt, line 2: .* holds a tab. Lines of path, tab, text are read by TSVDataset'), ('gt.txt', 'a,b.png\ta\n', 'line 1: .* holds a tab'),
    ('gt.txt', 'a.png, "a"\na.png\ta\n', 'line 2: .* is not `word_1.png'), ('gt.txt', 'a.png\ta\na.png, "a"\n', 'gt.txt, line 2: .* is not|gt.txt, line 1: .* is not')])
def test_lines_that_are_not_what_they_seem(tmp_path, name, text, message):
    (tmp_path/'a.png').write_bytes(picture(1))
    (tmp_path/name).write_bytes(text.encode())
    for path in (tmp_path, tmp_path/name):
        with pytest.raises(DataError, match=message): open_dataset(path)


@pytest.mark.parametrize('name, text, kind', [
    ('gt.txt', 'a.png, "one, two"\na.png, plain\na.png,"three"\n', ICDARDataset), ('gt.txt', 'a.png, plain\r\na.png, plain\r\n', ICDARDataset), ('gt.txt', 'a.png,\t"one"\n', ICDARDataset),
    ('gt.txt', 'a.png,\tone\n', ICDARDataset), ('gt.txt', 'a.png\tone\na.png\ttwo, three\n', TSVDataset), ('list.txt', 'a.png, "one"\na.png, plain\n', ICDARDataset),
    ('list.txt', 'a.png,\t"one"\n', ICDARDataset), ('list.txt', 'a.png\t"one, two"\n', TSVDataset), ('labels.tsv', 'a.png\tone\r\na.png\ttwo\r\n', TSVDataset)])
def test_layout_of_a_list(tmp_path, name, text, kind):
    (tmp_path/'a.png').write_bytes(picture(1))
    (tmp_path/name).write_bytes(text.encode())
    for path in (tmp_path/name, *[tmp_path]*(name != 'list.txt')):
        dataset = open_dataset(path, unknown='strip')
        assert type(dataset) is kind and len(dataset.check()) == 0 and {dataset.name(i) for i in range(len(dataset))} == {'a.png'}
        assert not any(c in dataset.text(i) for i in range(len(dataset)) for c in '\t\r')


def test_lists_in_no_layout(tmp_path):
    for text in ('a.png,\tplain\n', 'a.png, plain\n', '"a.png","one"\n', 'a.png\tone\na.png, "two"\n'):
        (tmp_path/'list.txt').write_text(text)
        with pytest.raises(DataError, match='list.txt is neither path, tab, text'): open_dataset(tmp_path/'list.txt')


def test_missing_annotation_and_lexicon(tmp_path):
    for path, why in ((tmp_path/'none.txt', 'No such file'), (tmp_path, 'Is a directory')):
        with pytest.raises(DataError) as e: read_annotation(path)
        assert str(path) in str(e.value) and why in str(e.value) and 'lines of "path index", is expected there' in str(e.value)
        with pytest.raises(DataError) as e: read_lexicon(path)
        assert str(path) in str(e.value) and why in str(e.value) and 'a word a line, is expected there' in str(e.value)


@pytest.mark.parametrize('widths', [[60.9], [60.], [True], ['60'], [[60, 70]], [60, 0], [np.nan], 60])
def test_widths_that_are_none(widths):
    with pytest.raises(DataError, match='widths=.*: whole numbers of pixels are needed'): WidthBatchSampler(widths, 2)


def test_widths_of_any_integers():
    for widths in ([9, 3], np.array([9, 3], np.uint8), torch.tensor([9, 3])): assert list(WidthBatchSampler(widths, 1, shuffle=False)) == [[1], [0]]
    assert list(WidthBatchSampler([], 1)) == []
    for wrong in (dict(batch_size=1.5), dict(batch_size=0), dict(batch_size=1, pool=0)): pytest.raises(DataError, WidthBatchSampler, [9], **wrong)
