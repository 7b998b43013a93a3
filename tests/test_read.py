"The reader and the command line: inputs of each kind, good and bad; a floor for the shipped weights."
import hashlib
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from crnn_nb.data import DataError
from crnn_nb.decode import CharLM
from crnn_nb.model import ModelError
from crnn_nb.read import Reader, app, list_images, shipped, shipped_lm, to_grey
from crnn_nb.runs import run_words
from crnn_nb.synth import HARD, Style, SynthWords, draw_word, lexicon, split_of


@pytest.fixture(scope='module')
def reader(): return Reader()


@pytest.fixture(scope='module')
def word(): return draw_word('hello', Style(size=26))


@pytest.fixture
def folder(tmp_path, word):
    for name in ('b.png', 'a.jpg'): Image.fromarray(word).save(tmp_path/name)
    (tmp_path/'notes.txt').write_text('no picture')
    return tmp_path


def run(*args):
    from typer.testing import CliRunner
    return CliRunner().invoke(app, [str(a) for a in args])


def png(word):
    f = io.BytesIO()
    Image.fromarray(word).save(f, 'PNG')
    return f.getvalue()


def test_shipped_weights_read_unseen_words(reader):
    words = SynthWords('test', 60, seed=11)
    readings = reader.read([words[i][0] for i in range(60)])
    assert sum(r.text == words.text(i).lower() for i, r in enumerate(readings)) >= 51


def test_every_kind_of_input_reads_the_same(reader, word, folder):
    kinds = [word, word[..., 0], word[..., :1], word/255, torch.from_numpy(word), np.moveaxis(word, 2, 0), Image.fromarray(word),
             Image.fromarray(word).convert('RGBA'), png(word), io.BytesIO(png(word)), folder/'b.png', str(folder/'b.png')]
    readings = reader.read(kinds)
    assert [r.text for r in readings] == ['hello']*len(kinds)
    assert np.ptp([r.confidence for r in readings]) < 1e-3


def test_one_and_many_and_order(reader, word):
    other = draw_word('world', Style(size=26))
    assert [r.text for r in reader.read([word, other, word])] == ['hello', 'world', 'hello']
    assert [r.text for r in reader.read(word)] == ['hello']
    assert reader.read([]) == []
    assert [r.text for r in reader.read(np.stack([word, word]))] == ['hello', 'hello']


def test_batch_size_changes_nothing(word):
    words = [SynthWords('test', 9, seed=2)[i][0] for i in range(9)]
    one, many = Reader(batch_size=1).read(words), Reader(batch_size=9).read(words)
    assert [r.text for r in one] == [r.text for r in many]
    assert np.allclose([r.confidence for r in one], [r.confidence for r in many], atol=1e-4)


def test_folder_in_order_of_names(reader, folder):
    assert [Path(r.source).name for r in reader.read(folder)] == ['a.jpg', 'b.png']
    assert [p.name for p in list_images(folder)] == ['a.jpg', 'b.png']


@pytest.mark.parametrize('bad, says', [
    (b'', 'empty'), (b'hello', 'not an image'), ('no/such.png', 'missing'), (np.zeros((0, 3)), 'shape'), (np.zeros(5), 'shape'),
    (np.full((4, 4), np.nan), 'NaN'), (np.full((4, 4), -7), 'values from'), (None, 'NoneType'), (7, 'int')])
def test_bad_input_is_named_and_the_rest_is_read(reader, word, bad, says):
    good, wrong, again = reader.read([word, bad, word])
    assert good.text == again.text == 'hello'
    assert wrong.text == '' and wrong.confidence == 0 and says in wrong.error


def shut(image):
    image.close()
    return image


def closed_file(word):
    with io.BytesIO(png(word)) as f: return f


@pytest.mark.parametrize('make, says', [
    (lambda w: Image.open(io.BytesIO(png(w)[:-200])), 'breaks off or is damaged'), (lambda w: shut(Image.open(io.BytesIO(png(w)))), 'was closed'),
    (lambda w: Image.new('LAB', (9, 9)), 'of mode LAB'), (lambda w: Image.new('L', (0, 0)), '0 x 0 pixels'), (lambda w: Image.fromarray(w[..., 0]*np.float32(9)), 'values from'),
    (closed_file, "closed file. Pass a file that is open, with mode 'rb'"), (lambda w: io.StringIO('hello'), "gives str, not bytes: open the file with mode 'rb'"),
    (lambda w: io.BytesIO(b'hello'), 'is not an image'), (lambda w: torch.eye(4).to_sparse(), 'pass a dense one'), (lambda w: torch.zeros(4, 4, device='meta'), 'pass a dense one')])
def test_bad_objects_are_named_and_the_rest_is_read(reader, word, make, says):
    good, wrong, again = reader.read([word, make(word), word])
    assert good.text == again.text == 'hello'
    assert wrong.text == '' and says in wrong.error and wrong.error.startswith('image 1')


def test_floats_integers_and_bfloat16_read_the_same(reader, word, tmp_path):
    grey = to_grey(word)
    kinds = [Image.fromarray(grey.astype(np.float32)), Image.fromarray(grey.astype(np.float32)/255), Image.fromarray(grey.astype(np.int32)), Image.fromarray(grey.astype(np.int32)*257),
             grey/255, grey.astype(np.int64), torch.tensor(grey/255).half()]
    for image in kinds: assert abs(to_grey(image).astype(int) - grey).max() <= 1
    assert abs(to_grey(torch.tensor(grey/255).bfloat16()).astype(int) - grey).max() <= 2
    assert [r.text for r in reader.read([*kinds, torch.tensor(word/255).bfloat16()])] == ['hello']*8


def test_a_film_is_not_read(reader, word, tmp_path):
    with open(tmp_path/'film.png', 'wb') as f: f.truncate(50*2**30) # no byte of it is on the disk
    wrong, good = reader.read([tmp_path/'film.png', word])
    assert 'film.png has 53,687,091,200 bytes' in wrong.error and good.text == 'hello'
    with open(tmp_path/'film.png', 'rb') as f: assert 'more than MAX_BYTES' in reader.read(f)[0].error


def test_truncated_file(reader, word, tmp_path):
    (tmp_path/'half.png').write_bytes(png(word)[:300])
    r, = reader.read(tmp_path/'half.png')
    assert r.error and 'half.png' in r.error


def test_empty_folder(reader, tmp_path):
    r, = reader.read(tmp_path)
    assert 'holds no pictures' in r.error


def test_confidence_is_the_exact_probability(reader, word):
    r, = reader.read(word)
    assert r.nbest[0] == (r.text, r.confidence) and sum(p for _, p in r.nbest) <= 1 + 1e-6
    assert [p for _, p in r.nbest] == sorted((p for _, p in r.nbest), reverse=True)


def test_boxes_lie_in_the_picture_in_order(reader, word):
    wide = np.asarray(Image.fromarray(word).resize((word.shape[1]*3, word.shape[0])))
    r, = reader.read(wide)
    assert ''.join(c for c, *_ in r.boxes) == r.text
    edges = [x for _, a, b, _ in r.boxes for x in (a, b)]
    assert edges == sorted(edges) and edges[0] >= 0 and edges[-1] <= wide.shape[1] and edges[-1] > wide.shape[1]/2


def test_to_grey_refuses_lists(): pytest.raises(DataError, to_grey, [[1, 2]])


def test_weights_that_are_none(tmp_path):
    with pytest.raises((ModelError, OSError), match='nothing.safetensors'): Reader(tmp_path/'nothing.safetensors')
    (tmp_path/'bad.safetensors').write_bytes(b'not weights at all')
    with pytest.raises(ModelError, match='bad.safetensors'): Reader(tmp_path/'bad.safetensors')


def test_settings_out_of_range():
    for kw in (dict(beam_size=0), dict(n_best=0), dict(batch_size=0)): pytest.raises(ValueError, Reader, **kw)


def test_weights_are_small_and_say_what_they_are(reader):
    assert shipped().stat().st_size < 8e6
    assert 'Apache-2.0' in json.dumps(reader.meta)


def test_command_reads_and_names_the_broken(folder, word):
    (folder/'c.png').write_bytes(b'')
    out = run('read', folder, '--json')
    rows = [json.loads(line) for line in out.stdout.splitlines()]
    assert [r['text'] for r in rows] == ['hello', 'hello', ''] and 'empty' in rows[2]['error'] and out.exit_code == 1
    out = run('read', folder)
    assert len(out.stdout.splitlines()) == 2 and len(out.stderr.splitlines()) == 1 and out.exit_code == 1


def test_commands_say_what_is_wrong_without_a_traceback(tmp_path):
    (tmp_path/'full').mkdir()
    (tmp_path/'full'/'x').write_text('x')
    for args, says in [(('read', 'no/such.png'), 'no/such.png'), (('read', 'x.png', '--weights', 'no.safetensors'), 'no.safetensors'),
                       (('synth', tmp_path/'full'), 'not empty'), (('evaluate', tmp_path/'none'), 'none'), (('evaluate', tmp_path/'full'), 'full'),
                       (('read', 'x.png', '--threshold', '3'), 'threshold'), (('read', '--nonsense'), 'nonsense'), (('nonsense',), 'nonsense')]:
        out = run(*args)
        assert out.exit_code in (1, 2) and says in out.stderr, (args, out.stderr)
        assert 'Traceback' not in out.stderr and (out.exception is None or isinstance(out.exception, SystemExit)), args


def test_synth_evaluate_read_together(tmp_path):
    assert run('synth', tmp_path/'words', '--train', 1, '--val', 1, '--test', 30, '--workers', 1).exit_code == 0
    out = run('evaluate', tmp_path/'words', '--json')
    scores = json.loads(out.stdout)
    assert out.exit_code == 0 and scores['count'] == 30 and scores['acc'] > .8
    assert run('read', tmp_path/'words').exit_code == 0


def test_the_command_is_installed():
    out = subprocess.run([sys.executable, '-c', 'from crnn_nb.read import main; main()', '--help'], capture_output=True, text=True)
    assert out.returncode == 0 and all(word in out.stdout for word in ('train', 'evaluate', 'read', 'synth'))


def test_help_of_each_command():
    for name in ('train', 'evaluate', 'read', 'synth'):
        out = run(name, '--help')
        assert out.exit_code == 0 and len(out.stdout) > 300


# -- the language model that comes with the package ------------------------------------------------------------------------------------

def test_the_model_is_the_recorded_one():
    about = json.loads((Path(__file__).parent.parent/'nbs'/'runs'/'words.json').read_text())['about']
    path = shipped().with_name('words.npz')
    assert hashlib.sha256(path.read_bytes()).hexdigest() == about['sha256'] and len(shipped_lm().next) == about['contexts']
    lm = shipped_lm()
    assert lm.log_prob('street') > lm.log_prob('stneet') and lm.log_prob('') > lm.log_prob('xq')


def test_the_model_learns_from_words_to_train_on_and_from_no_others(tmp_path):
    words = lexicon()[::200]
    mine = [w for w in words if split_of(w) == 'train']
    assert 0 < len(mine) < len(words)
    found = [run_words(tmp_path, {}, dict.fromkeys(given, 1), tmp_path/f'{i}.npz')['sha256'] for i, given in enumerate((words, mine))]
    assert found[0] == found[1]


def test_when_the_model_is_used():
    assert Reader().guides['lm'] is shipped_lm() and Reader().guides['length_bonus'] == .6
    for alone in (Reader(lm=None), Reader(shipped()), Reader(lexicon=['yes', 'no'])): assert alone.guides['lm'] is None and alone.guides['length_bonus'] == 0
    own = CharLM(['yes', 'no'])
    assert Reader(shipped(), lm=own, lm_weight=.2).guides['length_bonus'] == .4 and Reader(lm=own, length_bonus=0.).guides['length_bonus'] == 0
    with pytest.raises(ValueError, match="a CharLM, None, or 'shipped'"): Reader(lm='english')


def test_an_empty_path_is_no_folder():
    reading, = Reader().read('')
    assert reading.error and not reading.text


def test_the_model_reads_no_letters_out_of_blank_pictures():
    assert [r.text for r in Reader().read([np.full((32, 100), grey, np.uint8) for grey in (0, 128, 255)])] == ['', '', '']


def test_the_command_reads_and_scores_with_and_without_the_model(tmp_path):
    words = SynthWords('test', 12, seed=5, ranges=replace(HARD, digits=0., codes=0.))
    rows = [(f'{i}.png', *words[i]) for i in range(len(words))]
    for name, image, _ in rows: Image.fromarray(image).save(tmp_path/name)
    (tmp_path/'labels.tsv').write_text(''.join(f'{name}\t{text}\n' for name, _, text in rows))
    images = [image for _, image, _ in rows]
    for flag, reader in ((['--no-lm'], Reader(lm=None)), ([], Reader())):
        said = CliRunner().invoke(app, ['read', *flag, *(str(tmp_path/name) for name, *_ in rows)])
        texts = [r.text for r in reader.read(images)]
        assert said.exit_code == 0 and [line.split('\t')[1] for line in said.stdout.splitlines()] == texts
        scored = CliRunner().invoke(app, ['evaluate', str(tmp_path), *flag, '--json'])
        found = json.loads(scored.stdout)
        assert scored.exit_code == 0 and found['lm'] is not bool(flag)
        assert found['acc'] == pytest.approx(np.mean([a == t.lower() for a, (_, _, t) in zip(texts, rows)]))


# -- mistakes at the command line ------------------------------------------------------------------------------------------------------

def one_line(out, *says):
    assert out.exit_code == 2 and out.stdout == '' and len(out.stderr.splitlines()) == 1, (out.stdout, out.stderr)
    assert 'Traceback' not in out.stderr and isinstance(out.exception, SystemExit)
    for s in says: assert s in out.stderr, (s, out.stderr)


@pytest.mark.parametrize('args, says', [
    (['--set', 'lr=abc'], "lr='abc'"), (['--set', 'lr=abc', '--show-config'], "lr='abc'"), (['--set', 'foo=1'], "no key 'foo'"), (['--set', 'foo=1', '--show-config'], "no key 'foo'"),
    (['--set', 'chars=aab'], 'twice'), (['--set', 'max_images=5'], 'max_images=5'), (['--set', 'data_dir=words'], 'data_dir'), (['--set', 'checkpoints_dir=x'], '--checkpoints-dir'),
    (['--resume', 'nowhere'], 'does not exist'), (['--resume', 'nowhere', '--show-config'], 'exclude each other'), (['--resume', 'nowhere', '--set', 'lr=1'], 'belongs to the run')])
def test_mistakes_in_the_shipped_recipe_are_refused_before_anything_starts(tmp_path, monkeypatch, args, says):
    from crnn_nb import ship
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ship, 'train_shipped', lambda *a, **k: pytest.fail('training was started'))
    one_line(run('train', '--preset', 'shipped', *args), says)
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_recipe_with_changes_is_shown_whole():
    from crnn_nb.ship import shipped_config
    out = run('train', '--preset', 'shipped', '--set', 'lr=0.001', '--show-config')
    assert out.exit_code == 0 and 'lr=0.001' in out.stdout.splitlines() and [l.split('=')[0] for l in out.stdout.splitlines()] == list(shipped_config)


def test_a_running_checkpoint_is_no_weights_and_the_advice_names_those_beside_it(tmp_path, folder):
    from crnn_nb.model import CRNN
    net = CRNN(1, 32, 100, 37, width=.125).state_dict()
    kept = dict.fromkeys(('config', 'alphabet', 'scheduler', 'rng'), {})
    for name, found in dict(last=kept | dict(state={}, crnn=net, optimizer={}), average=dict(state=net, n=1, step=2)).items():
        place = tmp_path/f'run {name}'
        place.mkdir()
        torch.save(found, place/f'{name}.pt')
        for args in ('read', folder), ('evaluate', folder), ('export', tmp_path/'x.onnx'):
            one_line(run(*args, '--weights', place/f'{name}.pt'), f'{name}.pt is the running checkpoint', 'crnn-nb train --resume', 'come beside it')
        for weights in 'best.safetensors', 'crnn.safetensors': (place/weights).write_bytes(b'')
        one_line(run('read', folder, '--weights', place/f'{name}.pt'), str(place/'best.safetensors'), 'are beside it')
    torch.save(dict(a=torch.zeros(1)), tmp_path/'other.pt')
    assert 'running checkpoint' not in run('read', folder, '--weights', tmp_path/'other.pt').stderr


@pytest.mark.parametrize('path', ['', ' '])
def test_an_empty_path_is_not_the_current_folder(folder, monkeypatch, path):
    monkeypatch.chdir(folder)
    one_line(run('read', path), 'empty')
    one_line(run('read', 'a.jpg', path), 'empty')
    one_line(run('evaluate', path), 'empty')
    assert run('read', '.').exit_code == 0
