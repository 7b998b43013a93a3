"""Alphabet: vectors from public test suites, properties over random characters, and a message for every mistake."""
import doctest
import json
import pickle
import string
import subprocess
import sys
from itertools import product
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from crnn_nb import alphabet as module
from crnn_nb.alphabet import CHARS, Alphabet, AlphabetError, collapse

settings.register_profile('book', deadline=None)
settings.load_profile('book')

CJK = [chr(c) for c in range(0x4E00, 0x4E20)]
MIXED = list(CHARS + 'ABCÄÖÉéèßŁłΣσςİıſK µμ -\'"\t') + CJK
paths = st.lists(st.integers(0, 5), max_size=30)
charsets = st.lists(st.sampled_from(MIXED), min_size=1, max_size=40, unique=True)


def folded(chars):
    "`chars` without those that are another one's small or capital form."
    seen = {}
    for c in chars: seen.setdefault(c.lower() if len(c.lower()) == 1 else c, c)
    return ''.join(seen.values())


# Vectors, retyped from public test suites ------------------------------------------------------------------------------

# pytorch/audio test/torchaudio_unittest/models/decoder/ctc_decoder_test.py::test_get_timesteps, test_get_tokens_and_idxs
def test_torchaudio_tokens():
    path = [2, 2, 0, 3, 3, 3, 0, 3]
    assert collapse(path) == [2, 3, 3]
    assert [t for t, k in enumerate(path) if k and (t == 0 or path[t - 1] != k)] == [0, 3, 7]


# hw_asr template test_text_encoder::test_ctc_decode
def test_hw_asr_sentence():
    path = 'i^^ ^w^i^sss^hhh^   i ^^^s^t^aaaar^teee^d dddddd^oooo^in^g tttttttth^iiiis h^^^^^^^^w^ e^a^r^li^er'
    text = 'i wish i started doing this hw earlier'
    assert ''.join(collapse(path, blank='^')) == text
    a = Alphabet(string.ascii_lowercase + ' ')
    assert a.read([0 if c == '^' else a.char2label[c] for c in path]) == text


# tensorflow ctc_loss_op_test.py::testCollapseRepeated merges runs in labels, and drops no blank: -1 stands for none here
@pytest.mark.parametrize('row, length, merged', [([1, 3, 3, 3, 0], 4, [1, 3]), ([1, 4, 4, 4, 0], 5, [1, 4, 0]), ([4, 2, 2, 9, 4], 5, [4, 2, 9, 4])])
def test_tensorflow_collapse_repeated(row, length, merged):
    assert collapse(row[:length], blank=-1) == merged


# meijieru/crnn.pytorch test/test_utils.py::checkConverter
def test_meijieru_converter():
    a = Alphabet('abcdefghijklmnopqrstuvwxyz')
    assert a.encode('efa') == [5, 6, 1] and a.encode('ab') == [1, 2]
    assert a.read([5, 5, 0, 1]) == 'ea' and a.read([5, 6, 1]) == 'efa'


# githubharald/CTCDecoder, and the examples of bgshih/crnn#77 and meijieru/crnn.pytorch#56
@pytest.mark.parametrize('path, text', [('aa', 'a'), ('a-a', 'aa'), ('-l-e-t-ee-r-s', 'leters'), ('a-----v--a-i-l-a-bb-l-ee--', 'available')])
def test_ctcdecoder_texts(path, text):
    assert ''.join(collapse(path, blank='-')) == text


# Collapse --------------------------------------------------------------------------------------------------------------

@given(paths, st.integers(0, 5))
def test_collapse_is_merge_then_drop(path, blank):
    merged = [k for i, k in enumerate(path) if i == 0 or path[i - 1] != k]
    assert collapse(path, blank) == [k for k in merged if k != blank]


@given(paths)
def test_collapse_takes_every_container(path):
    expected = collapse(path)
    for given_ in (tuple(path), np.array(path, int), torch.tensor(path, dtype=torch.long), torch.tensor(path, dtype=torch.int32), iter(path)):
        got = collapse(given_)
        assert got == expected and all(type(k) is int for k in got)


@given(paths, st.data())
def test_repeating_a_frame_changes_nothing(path, data):
    if not path: return
    t = data.draw(st.integers(0, len(path) - 1))
    assert collapse(path[:t] + [path[t]] + path[t:]) == collapse(path)


@given(st.lists(st.integers(1, 5), max_size=12))
def test_a_blank_between_all_labels_writes_them(labels):
    assert collapse([k for label in labels for k in (label, 0)]) == labels
    if all(a != b for a, b in zip(labels, labels[1:])): assert collapse(labels) == labels


def test_number_of_paths():
    for n in range(4):
        for text in product([1, 2], repeat=n):
            r = sum(a == b for a, b in zip(text, text[1:]))
            for T in range(1, 7):
                assert sum(collapse(p) == list(text) for p in product(range(3), repeat=T)) == comb(T + n - r, 2*n)


def test_collapse_refuses():
    for bad in (np.zeros((3, 2)), torch.zeros(3, 2), torch.tensor(3), None, 5):
        with pytest.raises(AlphabetError, match='path'): collapse(bad)


# Alphabet --------------------------------------------------------------------------------------------------------------

def test_default_is_the_seeds():
    a = Alphabet()
    assert (a.chars, a.blank, a.num_class, a.case_sensitive) == (CHARS, 0, 37, False) and len(a.label2char) == 36
    assert a.char2label['0'] == 1 and a.char2label['a'] == 11 and a.label2char[36] == 'z' and 0 not in a.label2char
    assert a.encode('Bat') == [12, 11, 30] and a.encode('') == [] and a.decode([]) == '' and a.read([]) == ''


@given(charsets, st.data())
def test_round_trip(chars, data):
    a = Alphabet(chars, case_sensitive=True)
    text = ''.join(data.draw(st.lists(st.sampled_from(chars), max_size=20)))
    labels = a.encode(text)
    assert a.decode(labels) == text and all(1 <= k < a.num_class for k in labels)
    assert a.read([k for label in labels for k in (label, label, 0)]) == text
    assert a.missing(text) == []


@given(st.lists(st.sampled_from(MIXED), min_size=1, max_size=40), st.text(st.sampled_from(MIXED), max_size=20))
def test_folding(chars, text):
    a = Alphabet(folded(chars))
    normal = a.normalize(text)
    assert len(normal) == len(text) and a.normalize(normal) == normal
    assert a.missing(text) == a.missing(normal)
    if not a.missing(text): assert a.decode(a.encode(text)) == normal and a.encode(text) == a.encode(normal)
    for i, c in a.missing(text): assert text[i] == c and c not in a.chars


@given(st.text(max_size=20))
def test_any_text_makes_its_alphabet(text):
    for case_sensitive in (False, True):
        if not text:
            with pytest.raises(AlphabetError, match='empty'): Alphabet.from_texts([text], case_sensitive)
            continue
        a = Alphabet.from_texts([text], case_sensitive)
        assert a.decode(a.encode(text)) == a.normalize(text)
        if case_sensitive: assert a.normalize(text) == text


@given(charsets)
def test_kept_and_compared(chars):
    a = Alphabet(chars, case_sensitive=True)
    for b in (Alphabet.from_dict(json.loads(json.dumps(a.to_dict()))), pickle.loads(pickle.dumps(a)), eval(repr(a))):
        assert a == b and hash(a) == hash(b) and a.char2label == b.char2label
    assert a != Alphabet(chars + ['☃'], case_sensitive=True) and a != a.chars and (Alphabet('a') != Alphabet('a', case_sensitive=True))


@given(st.text(st.sampled_from(CHARS + CHARS.upper()), max_size=10), st.sampled_from('☃!ß é中'), st.text(max_size=5))
def test_the_first_unknown_character_is_named(before, char, after):
    a = Alphabet()
    with pytest.raises(AlphabetError) as e: a.encode(before + char + after)
    assert f'character {char!r}' in str(e.value) and f'position {len(before)} of {before + char + after!r}' in str(e.value)


def test_combining_accents_get_a_hint():
    a = Alphabet('cafeé')
    with pytest.raises(AlphabetError, match='NFC'): a.encode('cafe\u0301')
    with pytest.raises(AlphabetError, match='Add it to chars'): a.encode('cafe\u0300')


def test_case_surprises():
    assert Alphabet('i').missing('İ') == [(0, 'İ')]
    assert Alphabet('İ').encode('İ') == [1]
    assert Alphabet('σς').encode('ΣΑ'[:1] + 'ς') == [1, 2]
    assert Alphabet('ABC').normalize('abc') == 'ABC'
    with pytest.raises(AlphabetError, match='one character when case does not count'): Alphabet('kK')
    assert Alphabet('kK', case_sensitive=True).num_class == 3


@pytest.mark.parametrize('chars, message', [
    ('', 'chars is empty'), ([], 'chars is empty'), (None, 'chars=None'), (5, 'chars=5'), ('aba', "'a' twice, at 0 and at 2"), ('aA', "'a' at 0 and 'A' at 1"),
    (['a', ''], r"chars\[1\] is ''"), (['a', 'bc'], r"chars\[1\] is 'bc'"), (['a', 3], r'chars\[1\] is 3'), (['-', '<blank>'], '<blank>')])
def test_bad_characters(chars, message):
    with pytest.raises(AlphabetError, match=message): Alphabet(chars)


@pytest.mark.parametrize('labels, message', [
    ([1, 0], r'labels\[1\] is 0, the blank'), ([4], r'labels\[0\] is 4, but the classes of this alphabet are 1 to 3'), ([-1], r'labels\[0\] is -1'), ([1.5], r'labels\[0\] is 1.5'),
    (['a'], r"labels\[0\] is 'a'"), ([None], r'labels\[0\] is None'), (np.zeros((2, 2), int), r'labels has shape \(2, 2\)'), (torch.tensor([1., 2.]), r'labels\[0\] is 1.0')])
def test_bad_labels(labels, message):
    with pytest.raises(AlphabetError, match=message): Alphabet('abc').decode(labels)


@pytest.mark.parametrize('text', [None, 3, b'abc', ['a'], torch.tensor([1])])
def test_texts_must_be_str(text):
    for method in (Alphabet().encode, Alphabet().normalize, Alphabet().missing):
        with pytest.raises(AlphabetError, match='must be a str'): method(text)


@pytest.mark.parametrize('d', [{}, {'characters': 'a'}, {'chars': 'a', 'blank': 0}, 'abc', None])
def test_bad_dictionaries(d):
    with pytest.raises(AlphabetError, match='an alphabet is stored as'): Alphabet.from_dict(d)


def test_class_names():
    a = Alphabet('a b')
    assert a.classes == ['–', 'a', '␣', 'b'] and len(a.classes) == a.num_class


def test_examples_of_class_methods():
    "pytest's doctests do not find methods that are added to a class as class methods."
    for method in (Alphabet.from_texts, Alphabet.from_dict):
        test = doctest.DocTestParser().get_doctest(method.__doc__, vars(module), 'method', None, None)
        assert test.examples and doctest.DocTestRunner().run(test).failed == 0


def test_import_is_light():
    code = 'import sys, crnn_nb.alphabet; print([m for m in ("torch", "numpy", "matplotlib", "IPython", "numba") if m in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'


@pytest.mark.parametrize('call, message', [
    (lambda: collapse([1, .5, 0]), 'path[1] is 0.5'),
    (lambda: collapse([[1, 1], [2]]), 'path[0] is [1, 1]'),
    (lambda: collapse(torch.tensor([1., 2.])), 'path[0] is 1.0'),
    (lambda: Alphabet(set('abc')), 'use sorted(chars)'),
    (lambda: Alphabet('abc').decode(None), 'labels is None'),
    (lambda: Alphabet.from_texts(['a', None]), 'texts[1] is None'),
    (lambda: Alphabet.from_texts(5), 'texts is 5')])
def test_what_is_no_path_or_no_text_is_named(call, message):
    with pytest.raises(AlphabetError) as e: call()
    assert message in str(e.value)


def test_a_list_of_tensors_is_a_path_of_integers():
    path = list(torch.tensor([1, 1, 0, 2]))
    assert collapse(path) == [1, 2] and all(type(k) is int for k in collapse(path)) and len(path) == 4
    assert collapse(path) == collapse(tuple(path)) == collapse(iter(path))
