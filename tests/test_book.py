"The book's promises about itself: outputs of one run, exported package, links, settings."
import ast
import json
import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from crnn_nb import book

ROOT = Path(__file__).parent.parent
NOTEBOOKS = book.notebooks(ROOT)
ids = [p.relative_to(ROOT/'nbs').as_posix() for p in NOTEBOOKS]


def cells(path, kind): return [''.join(c['source']) for c in json.loads(path.read_text())['cells'] if c['cell_type'] == kind]


def test_there_are_notebooks(): assert len(NOTEBOOKS) >= 12


@pytest.mark.parametrize('path', NOTEBOOKS, ids=ids)
def test_outputs_are_of_one_run(path): assert book.check(path) == []


def test_package_is_what_notebooks_export(): assert book.exported(ROOT) == []


@pytest.mark.parametrize('path', NOTEBOOKS, ids=ids)
def test_links_between_chapters_resolve(path):
    for text in cells(path, 'markdown'):
        for target in re.findall(r'\]\(([^)\s]+?)(?:#[^)]*)?\)', text):
            if re.match(r'[a-z]+:|#', target) or not target: continue
            assert (path.parent/target).exists(), f'{path.name} links to {target}'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=ids)
def test_prose_is_free_of_the_workplace(path):
    text = '\n'.join(cells(path, 'markdown') + cells(path, 'code'))
    for word in ('/work/', '/root/', '../shared', 'helper-'): assert word not in text, word


def test_reading_order_is_import_order():
    order = [p.stem.split('_', 1)[1] for p in NOTEBOOKS if re.match(r'\d\d_', p.name)]
    for i, name in enumerate(order):
        for node in ast.walk(ast.parse((ROOT/f'crnn_nb/{name}.py').read_text())):
            module = getattr(node, 'module', None) or ''
            if isinstance(node, ast.ImportFrom) and (module.startswith('crnn_nb.') or node.level):
                other = module.rsplit('.', 1)[-1]
                if other in order: assert order.index(other) < i, f'{name} imports {other}, a later chapter'


def test_sidebar_lists_every_notebook():
    text = (ROOT/'_quarto.yml').read_text()
    for i in ids: assert i in text, f'{i} is not in _quarto.yml'
    for i in re.findall(r'[\w/]+\.ipynb', text): assert (ROOT/'nbs'/i).exists(), f'_quarto.yml names {i}'


def test_constraints_satisfy_settings():
    from packaging.requirements import Requirement
    cfg = ConfigParser(delimiters=['='], interpolation=None)
    cfg.read(ROOT/'settings.ini')
    pins = dict(line.split(';')[0].strip().lower().replace('_', '-').split('==') for line in (ROOT/'constraints.txt').read_text().splitlines()
                if '==' in line and not line.startswith('#'))
    for key in ('requirements', 'dev_requirements'):
        for req in map(Requirement, cfg['DEFAULT'][key].split()):
            name = req.name.lower().replace('_', '-')
            assert name in pins, f'{name} is not in constraints.txt'
            assert req.specifier.contains(pins[name]), f'{name} {pins[name]} against {req.specifier}'


def test_digest_sees_code_and_output():
    nb = {'cells': [{'cell_type': 'code', 'source': ['1+1'], 'outputs': [{'output_type': 'stream', 'name': 'stdout', 'text': ['2']}]}]}
    first = book.digest(nb)
    nb['cells'][0]['outputs'][0]['text'] = '2'
    assert book.digest(nb) == first
    nb['cells'][0]['outputs'][0]['text'] = '3'
    second = book.digest(nb)
    nb['cells'][0]['source'] = '1+2'
    assert len({first, second, book.digest(nb)}) == 3


def test_failed_run_leaves_the_file(tmp_path):
    import nbformat
    from nbclient.exceptions import CellExecutionError
    path = tmp_path/'bad.ipynb'
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('1/0')]), path)
    before = path.read_bytes()
    with pytest.raises(CellExecutionError): book.execute(path)
    assert path.read_bytes() == before


def test_check_names_paths_and_errors(tmp_path):
    import nbformat
    cell = nbformat.v4.new_code_cell('x', outputs=[nbformat.v4.new_output('stream', text='see /home/someone/file'),
                                                   nbformat.v4.new_output('error', ename='ValueError', evalue='', traceback=[])])
    path = tmp_path/'bad.ipynb'
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    said = ' '.join(book.check(path))
    assert 'ValueError' in said and 'path of the machine' in said and 'never executed' in said


def test_what_execute_stores_is_clean_and_check_sees_what_is_not(tmp_path):
    import nbformat
    from nbdev.clean import clean_nb
    path = tmp_path/'small.ipynb'
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('object()', metadata={'scrolled': True, 'tags': ['a']}), nbformat.v4.new_markdown_cell('')])
    nb.metadata = {'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'}, 'language_info': {'name': 'python'}}
    nbformat.write(nb, path)
    book.execute(path)
    stored = path.read_text()
    nb = json.loads(stored)
    clean_nb(nb, allowed_metadata_keys=['executed'])
    assert nb == json.loads(stored) and '<object>' in stored and book.check(path) == []
    for old, new in (('"display_name": "python3"', '"display_name": "Python 3"'), ('"metadata": {},', '"metadata": {"scrolled": true},'), ('<object>', '<object at 0x7f00>')):
        assert old in stored
        path.write_text(stored.replace(old, new, 1))
        assert [w for w in book.check(path) if 'not clean' in w] == ['small.ipynb: not clean, a commit would change it; run `nbdev_clean`']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=ids)
def test_imports_stand_alone(path):
    "As nbdev asks: a cell imports, or it does something."
    for text in cells(path, 'code'):
        try: body = ast.parse(re.sub(r'^\s*[%!].*$', '', text, flags=re.M)).body
        except SyntaxError: continue
        kinds = {isinstance(n, (ast.Import, ast.ImportFrom)) for n in body}
        assert kinds != {True, False}, f'{path.name}: imports and other code in one cell:\n{text}'


MODULES = sorted(p.stem for p in (ROOT/'crnn_nb').glob('*.py') if not p.stem.startswith('_'))
SHOWN_BY_THEIR_CELLS = { # classes of `widgets` whose methods draw, or answer a hand: the explorer's own cell shows what they do
    'Scene', 'ShapesScene', 'EmissionsScene', 'LatticeScene', 'DecodersScene', 'ReadingScene', 'TrainingScene', 'Explorer',
    'Training', # its methods start, pause and end a thread that trains
}
OVERRIDES = {'forward'} # methods that a library calls, and documents


def without_example(source):
    "Exported functions and classes, and their public methods, whose docstring has no `>>>`; exceptions need none."
    tree, missing, described = ast.parse(source), [], {}
    exported = next(ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == '__all__')
    def look(node, owner=None):
        if owner and (owner.startswith('_') or owner in SHOWN_BY_THEIR_CELLS or node.name.startswith('_') or node.name in OVERRIDES): return
        if '>>>' not in (ast.get_docstring(node) or ''): missing.append(f'{owner}.{node.name}' if owner else node.name)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            patched = any('patch' in (d.id if isinstance(d, ast.Name) else getattr(getattr(d, 'func', None), 'id', '')) for d in node.decorator_list)
            if patched: look(node, ast.unparse(node.args.args[0].annotation))
            elif node.name in exported: look(node)
        elif isinstance(node, ast.ClassDef) and node.name in exported:
            bases, methods = [ast.unparse(b) for b in node.bases], [m for m in node.body if isinstance(m, ast.FunctionDef)]
            if any(b.endswith(('Error', 'Exception', 'Warning')) for b in bases): continue
            look(node)
            described[node.name] = {m.name for m in methods}.union(*(described.get(b, set()) for b in bases))
            for m in methods:
                if not any(m.name in described.get(b, ()) for b in bases): look(m, node.name) # else the docstring is inherited
    return missing


@pytest.mark.parametrize('name', MODULES)
def test_public_names_have_an_example(name):
    missing = without_example((ROOT/f'crnn_nb/{name}.py').read_text(encoding='utf-8'))
    assert not missing, f'give each of these an example (>>>) in its docstring: {", ".join(missing)}'


def test_missing_examples_are_found():
    source = '''__all__ = ['f', 'C', 'D', 'E', 'Scene']
def f(): "No example."
def _g(): "Private."
class E(ValueError): "An exception."
class C:
    """>>> 1"""
    def __len__(self): return 0
    def forward(self): "A library's."
    def of_its_own(self): pass
class D(C):
    """>>> 1"""
    def of_its_own(self): pass
class Scene:
    """>>> 1"""
    def draw(self): pass
@patch(as_prop=True)
def patched(self:C): "No example."
@patch
def fine(self:C): """>>> 1"""
@patch
def lines(self:Scene): pass
'''
    assert without_example(source) == ['f', 'C.of_its_own', 'C.patched']


def test_readme_is_generated_from_the_first_page(tmp_path):
    import shutil
    (tmp_path/'nbs').mkdir()
    shutil.copy(ROOT/'nbs/index.ipynb', tmp_path/'nbs')
    assert book.readme(tmp_path).read_text() == (ROOT/'README.md').read_text(), 'run `make book`'
    for name in re.findall(r'\]\(((?!https?:|#)[^)\s]+)\)', (ROOT/'README.md').read_text()): assert (ROOT/name).exists(), name


# The parts of the site


def doubled(x:int, # A number
            times:int=2 # How often
           )->int: # The product
    """Multiply.

    >>> doubled(2)
    4
    """
    return x*times


def test_listing_leaves_out_the_docstring_and_sets_parameters_below_one_another():
    assert book.listing(doubled).splitlines() == ['def doubled(', '    x:int, # A number', '    times:int=2 # How often', ')->int: # The product', '    return x*times']
    assert book.listing(len) == ''
    assert 'class ShowCode' in book.listing(book.ShowCode) and 'Processor of nbdev' not in book.listing(book.ShowCode)


def test_renderer_keeps_errors_and_sets_examples_as_code():
    from crnn_nb import loss
    text = book.DocRenderer(loss.ctc_loss)._repr_markdown_()
    assert text.startswith('### ctc_loss') and '```python\n>>> ' in text and 'def ctc_loss(' in text and 'Raises `' in text


def page_of(*cells):
    "A notebook as nbdev's processors see it, through the one of this book."
    from execnb.nbio import mk_cell
    from fastcore.basics import AttrDict
    out = []
    for kind, source, marks in cells:
        c = mk_cell(source, kind)
        c.directives_ = {m: [] for m in marks}
        out.append(c)
    nb = AttrDict(cells=out)
    book.ShowCode(nb).begin()
    shown = [o['data']['text/markdown'] for c in nb.cells for o in c.get('outputs', [])]
    assert all(t.startswith('### ') and '```{.python .listing}' in t for t in shown)
    return [c.source for c in nb.cells]


def test_helpers_stay_and_documented_code_goes():
    documented = '#| output: asis\n#| echo: false\nshow_doc(collapse)'
    assert page_of(('code', 'def collapse(): pass', ['export']), ('code', documented, []), ('code', 'def _g(): pass', ['exporti']), ('code', 'secret', ['hide'])) == [None, documented, 'def _g(): pass', None]
    assert page_of(('markdown', '## Forward', []), ('code', '#| echo: false\nshow_doc(forward)', []))[0] == '## Forward {#on-forward}'


def test_names_that_differ_in_capitals_lead_apart():
    names = book._names(ROOT)
    assert names['film'].endswith('draw.html#film') and names['Film'].endswith('draw.html#Film') and names['CTCLoss'].endswith('loss.html#ctcloss')


def test_equations_have_one_number_each(tmp_path):
    import nbformat
    (tmp_path/'nbs').mkdir()
    for name in ('00_a', '01_b'): nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(r'$$x \tag{1.1}$$ and `\tag{9.9}`')]), tmp_path/f'nbs/{name}.ipynb')
    with pytest.raises(ValueError, match=r'\(1\.1\).*00_a\.ipynb.*01_b\.ipynb'): book.equations(tmp_path)
    (tmp_path/'nbs/01_b.ipynb').unlink()
    assert book.equations(tmp_path) == {'1.1': '00_a.ipynb'}


def test_equation_links_leave_code_and_mathematics_alone():
    known = {'3.1': '03_loss.ipynb'}
    same = '`f(3.1)` and $(3.1)$ and [here (3.1)](x.html) and (9.9) and g(3.1)\n```\n(3.1)\n```'
    assert book.link_equations(same.replace('[here (3.1)](x.html)', ''), known, 'a.ipynb') == same.replace('[here (3.1)](x.html)', '')
    assert book.link_equations('by (3.1).', known, '03_loss.ipynb') == 'by [(3.1)](#equation-3.1).'
    text = book.link_equations('so\n\n$$a\n= b \\tag{3.1}$$\n\nend', known, '03_loss.ipynb')
    assert '::: {#equation-3.1 .equation}\n$$\na\n= b \\qquad\\text{(3.1)}\n$$\n:::' in text
    page = book.mathml(r'<span class="math display">\[a = b \qquad\text{(3.1)}\]</span>')
    assert '<span class="eq-number">(3.1)</span>' in page and 'qquad' not in page and '<math' in page


@pytest.mark.parametrize('link,where,want', [('/loss.html#f', 'index.html', '03_loss.html#f'), ('/crnn_nb/loss.html', 'appendix/book.html', '../03_loss.html'), ('03_loss.ipynb#x', 'a/b.html', '../03_loss.html#x'),
    ('https://elsewhere.org/loss.html', 'index.html', 'https://elsewhere.org/loss.html'), ('https://me.org/docs/loss.html#f', 'a/b.html', '../03_loss.html#f'), ('#here', 'index.html', '#here'),
    ('/notebooks/loss.ipynb', 'a/b.html', '../notebooks/03_loss.ipynb'), ('unknown.html', 'index.html', 'unknown.html')])
def test_links_become_relative(link, where, want):
    pages = ['index.html', '03_loss.html', 'a/b.html', 'appendix/book.html', 'notebooks/03_loss.ipynb']
    assert book.relative_links(f'<a class="x" href="{link}">', where, pages, 'https://me.org/docs/') == f'<a class="x" href="{want}">'


def test_names_in_code_are_linked_where_they_mean_the_package():
    code = '<pre class="sourceCode python"><code>from crnn_nb.loss import f\nf(x)\na.f(1)\ng(f=2)\n<span class="st">f</span>\nh()</code></pre>'
    linked = book.link_names(code, {'f': 'loss.html#f', 'h': 'other.html#h'})
    assert linked.count('<a class="code-name"') == 2 and 'a.f(1)' in linked and 'g(f=2)' in linked and '>f</span>' in linked and 'h()' in linked
    assert book.link_names('<pre class="sourceCode python"><code>f(1)</code></pre>', {'f': 'loss.html#f'}).count('<a ') == 0


@pytest.mark.parametrize('size,mode', [((40, 20), 'RGBA'), ((3, 5), 'RGB'), ((17, 9), 'L')])
def test_pictures_keep_every_pixel(tmp_path, size, mode):
    import base64, io
    import numpy as np
    from PIL import Image
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image, buffer = Image.fromarray(pixels, 'RGBA').convert(mode), io.BytesIO()
    image.save(buffer, 'PNG')
    page = book.extract_pictures(f'<img class="c" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}" alt="a">', 'x/y.html', tmp_path)
    path = re.search(r'src="\.\./(pictures/[^"]+)"', page)[1]
    assert np.array_equal(np.asarray(Image.open(tmp_path/path).convert('RGBA')), np.asarray(image.convert('RGBA')))
    assert f'width="{size[0]}" height="{size[1]}"' in page and page.count('alt=') == 1
    assert book.extract_pictures(page, 'x/y.html', tmp_path) == page


def quarto_page(title): return f'''<html><head><link rel="stylesheet" href="https://fonts.example/x.css"></head><body class="nav-sidebar quarto-light"><main>
<header id="title-block-header"><h1>{title}</h1></header><a href="/loss.html#ctc_loss"><code>ctc_loss</code></a><a href="./index.html">home</a><img class="img-fluid" src="r.svg" alt="A reading"></main></body></html>'''


@pytest.mark.parametrize('host', ['', 'https://me.org'])
def test_finishing_a_site_of_quarto(tmp_path, host):
    "Quarto names pages as nbdev tells it, without the chapter's number."
    import shutil
    (tmp_path/'nbs').mkdir()
    for name in ('index', '03_loss'): shutil.copy(ROOT/f'nbs/{name}.ipynb', tmp_path/'nbs')
    shutil.copytree(ROOT/'nbs/images', tmp_path/'nbs/images')
    (tmp_path/'settings.ini').write_text(f'[DEFAULT]\ndoc_host = {host}\ndoc_baseurl = /book/\ngit_url =\n')
    site = tmp_path/'_docs'
    (site/'site_libs').mkdir(parents=True)
    (site/'site_libs/theme.css').write_text('@import url("https://fonts.example/css?family=X");body{color:red}')
    for name in ('index', 'loss', '404'): (site/f'{name}.html').write_text(quarto_page(name))
    (site/'r.svg').write_text(book.reading_svg([[1., .5]], [[.2, .8]], ['–', 'a']))
    book.finish(site, tmp_path)
    for name in ('index', 'loss'):
        text = (site/f'{name}.html').read_text()
        assert 'href="loss.html#ctc_loss"' in text and 'fonts.example' not in text and 'og:image' in text
        assert '<svg role="img" aria-label="A reading"' in text and 'r.svg' not in text
        assert re.search(r'class="page-links"><a href="notebooks/(03_)?' + name, text)
    assert (site/'site_libs/theme.css').read_text() == 'body{color:red}'
    assert f'<loc>{host}/book/loss.html</loc>' in (site/'sitemap.xml').read_text() if host else '<loc>loss.html</loc>' in (site/'sitemap.xml').read_text()
    assert f'href="{host}/book/index.html"' in (site/'404.html').read_text() if host else 'href="index.html"' in (site/'404.html').read_text()
    before = {p: p.read_bytes() for p in site.rglob('*') if p.is_file()}
    book.finish(site, tmp_path)
    assert before == {p: p.read_bytes() for p in site.rglob('*') if p.is_file()}


def test_reading_in_motion_is_one_valid_picture():
    import numpy as np
    from xml.etree import ElementTree
    probs = np.eye(3)[[0, 1, 1, 0, 1, 2]]
    svg = ElementTree.fromstring(book.reading_svg(np.ones((8, 24)), probs, ['–', 'a', '<'], top=3))
    texts = [t.text for t in svg.iter('{http://www.w3.org/2000/svg}text')]
    assert ''.join(texts[-3:]) == 'aa<' # the text: two a with a blank between, and what XML must escape
    for a in svg.iter('{http://www.w3.org/2000/svg}animate'):
        times = [float(t) for t in a.get('keyTimes').split(';')]
        assert len(times) == len(a.get('values').split(';')) and times == sorted(times) and times[0] == 0 and times[-1] <= 1
        if a.get('calcMode') == 'linear': assert times[-1] == 1
    with pytest.raises(ValueError, match='3 columns'): book.reading_svg(np.ones((8, 24)), probs, ['–'])


def test_social_picture_needs_the_figure(tmp_path):
    import nbformat
    (tmp_path/'nbs').mkdir()
    nbformat.write(nbformat.v4.new_notebook(), tmp_path/'nbs/index.ipynb')
    with pytest.raises(LookupError, match='fig-frames'): book.social(tmp_path)


def test_social_picture_is_of_the_first_page(tmp_path):
    from PIL import Image, ImageChops
    ours, kept = Image.open(book.social(ROOT, out=tmp_path/'s.png')), Image.open(ROOT/'nbs/images/social.png')
    assert ours.size == kept.size == (1200, 630)
    assert ImageChops.difference(ours.convert('L'), kept.convert('L')).getextrema()[1] < 60, 'run `python -m crnn_nb.book social`'
