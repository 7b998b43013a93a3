"The site, built without Quarto: complete, on its own, and fit to be looked at."
import ast
import html
import http.server
import io
import json
import os
import re
import runpy
import subprocess
import sys
import threading
import time
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest
from conftest import ROOT

from crnn_nb import book
from crnn_nb.book import notebooks

PHONE, DESK = (390, 844), (1280, 900)
AA = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']
KINDS = ['index.html', '00_alphabet.html', '05_align.html', '12_widgets.html', 'appendix/runs.html', 'tutorials/walkthrough.html', '404.html']


@pytest.fixture(scope='module')
def site():
    "Built afresh, or the site in the folder that CRNN_NB_SITE names."
    if os.environ.get('CRNN_NB_SITE'): return Path(os.environ['CRNN_NB_SITE']).absolute()
    subprocess.run([sys.executable, '-m', 'crnn_nb.book', 'docs'], cwd=ROOT, check=True)
    return ROOT/'_docs'


@pytest.fixture(scope='module')
def served(site):
    "The site below a folder, as on a host that gives each project one: an absolute link would miss it."
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
        def send_error(self, code, *args, **kwargs):
            if code != 404: return super().send_error(code, *args, **kwargs)
            page = (site/'404.html').read_bytes()
            self.send_response(404)
            self.send_header('Content-Type', 'text/html')
            self.send_header('Content-Length', str(len(page)))
            self.end_headers()
            self.wfile.write(page)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=site.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/{site.name}'
    server.shutdown()


class Page(HTMLParser):
    "Links, loaded files, anchors and pictures of a page, and the text of its headings."
    def __init__(self, text):
        super().__init__()
        self.text, self.links, self.loads, self.ids, self.pictures, self.main = text, [], [], set(), [], False
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids |= {v for k, v in attrs if k in ('id', 'name') and v}
        if tag == 'main': self.main = True
        if tag == 'a' and a.get('href'): self.links.append(a['href'])
        if tag in ('script', 'img', 'source', 'iframe') and a.get('src'): self.loads.append(a['src'])
        if tag == 'img' and self.main: self.pictures.append(a)
        if tag == 'link' and a.get('href') and a.get('rel') not in ('canonical', 'next', 'prev'): self.loads.append(a['href'])
    def handle_endtag(self, tag):
        if tag == 'main': self.main = False


@pytest.fixture(scope='module')
def pages(site):
    return {p.relative_to(site).as_posix(): Page(p.read_text(encoding='utf-8')) for p in site.rglob('*.html')}


@pytest.fixture(scope='module')
def desk(browser, served):
    context = browser.new_context(viewport=dict(zip(('width', 'height'), DESK)), permissions=['clipboard-read', 'clipboard-write'])
    yield context.new_page()
    context.close()


# What the files say


def test_every_notebook_has_a_page(site, pages):
    for p in notebooks(ROOT): assert p.relative_to(ROOT/'nbs').with_suffix('.html').as_posix() in pages


def test_links_inside_the_site_lead_somewhere(site, pages):
    bad = []
    for name, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc or link == '#': continue
            target = (site/name).parent/unquote(url.path) if url.path else site/name
            if target.is_dir(): target = target/'index.html'
            path = Path(target).resolve()
            if not path.exists(): bad.append(f'{name}: {link}')
            elif url.fragment and path.suffix == '.html':
                other = pages[path.relative_to(site.resolve()).as_posix()]
                if unquote(url.fragment) not in other.ids: bad.append(f'{name}: {link} has no such anchor')
            if url.path.startswith('/'): bad.append(f'{name}: {link} is not relative')
    assert not bad, '\n'.join(sorted(set(bad))[:30])


def test_what_a_page_loads_is_in_the_site(site, pages):
    bad = [f'{name}: {src[:80]}' for name, page in pages.items() for src in page.loads
           if not src.startswith('data:') and (re.match(r'[a-z]+:|//', src) or not ((site/name).parent/unquote(urlsplit(src).path)).exists())]
    assert not bad, bad
    for css in site.rglob('*.css'): assert not re.search(r'(@import|url\()\s*[\'"]?https?:', css.read_text()), css


def test_no_latex_is_left_raw(site):
    for p in site.rglob('*.html'):
        text = re.sub(r'(?s)<(pre|code|script|math|annotation)\b.*?</\1>', '', p.read_text(encoding='utf-8'))
        assert not re.search(r'\$\$|\\frac|\\sum|\\mathbf|\{#eq-|\\tag|\\qquad', text), p.name


def test_no_widget_is_left_as_text(pages):
    for name, page in pages.items(): assert not re.search(r'<pre><code>(interactive|VBox|HBox|Output|GridBox|Tab|AppLayout)\(', page.text), name


def test_size(site):
    assert sum(p.stat().st_size for p in site.rglob('*') if p.is_file()) < 25e6


def test_every_picture_has_an_alternative_text_and_its_size(pages):
    bad = [f'{name}: {p["src"]}' for name, page in pages.items() for p in page.pictures if not p.get('alt') or not p.get('width') or not p.get('height')]
    assert not bad, '\n'.join(bad)
    for path in notebooks(ROOT): # a solution's picture is told by its exercise
        for c in json.loads(path.read_text())['cells']:
            source = ''.join(c['source'])
            if c['cell_type'] == 'code' and any(k.startswith('image/') for o in c.get('outputs', []) for k in o.get('data', {})) and 'code-summary: "Solution"' not in source:
                assert re.search(r'^#\| fig-alt: "', source, re.M) and re.search(r'^#\| fig-cap: "', source, re.M), f'{path.name}: {source[:200]}'


def test_pictures_are_those_of_the_notebooks(site):
    "Made smaller, but pixel by pixel the same."
    import base64, hashlib
    import numpy as np
    from PIL import Image
    path = next(p for p in notebooks(ROOT) if p.stem == '06_synth')
    seen = 0
    for c in json.loads(path.read_text())['cells']:
        for o in c.get('outputs', []):
            if 'image/png' not in o.get('data', {}) or re.search(r'^#\| *hide', ''.join(c['source']), re.M): continue
            data = base64.b64decode(''.join(o['data']['image/png']))
            a = Image.open(io.BytesIO(data))
            if getattr(a, 'n_frames', 1) > 1 or seen == 3: continue
            b = Image.open(next((site/'pictures').glob(hashlib.sha256(data).hexdigest()[:16] + '.*')))
            assert np.array_equal(np.asarray(a.convert('RGBA')), np.asarray(b.convert('RGBA')))
            seen += 1
    assert seen == 3
    total = sum(p.stat().st_size for p in (site/'pictures').iterdir() if p.suffix == '.webp')
    assert total < 25e6


def symbols():
    "Public functions and classes: name, anchor, the node in the module."
    out = []
    for module, names in runpy.run_path(str(ROOT/'crnn_nb/_modidx.py'))['d']['syms'].items():
        if not names: continue
        tree = ast.parse((ROOT/(module.replace('.', '/') + '.py')).read_text())
        public = next((ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == '__all__'), [])
        nodes = {n.name: n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        for name, (anchor, _) in names.items():
            short = name.removeprefix(module + '.')
            if short in public and short in nodes: out.append((short, anchor, nodes[short]))
    return out


def test_each_public_function_is_documented_where_it_is_defined(site, pages):
    bad, plain, all_names = [], {re.sub(r'(^|/)\d+_', r'\1', p): p for p in pages}, symbols()
    for name, anchor, node in all_names:
        path, _, fragment = anchor.partition('#')
        if name != name.lower() and any(n == name.lower() and a == anchor for n, a, _ in all_names): fragment = name # Film beside film
        page = pages.get(plain.get(path, path))
        if page is None or fragment not in page.ids:
            bad.append(f'{name}: no anchor {anchor}')
            continue
        part = re.search(rf'<h\d id="{re.escape(fragment)}".*?(?=<h\d |</section>)', page.text, re.S)
        if part is None:
            bad.append(f'{name}: {anchor} is no heading of its own')
            continue
        part = part[0]
        text = html.unescape(re.sub(r'<[^>]+>', '', part))
        if not re.search(rf'(def|class) {name}\b', text): bad.append(f'{name}: its code is not shown')
        if 'class="source-link"' not in part: bad.append(f'{name}: no link to its source')
        doc = ast.get_docstring(node) or ''
        code = html.unescape(re.sub(r'<[^>]+>', '', ' '.join(re.findall(r'<pre.*?</pre>', part, re.S))))
        for line in re.findall(r'^>>> (.*)', doc, re.M):
            if re.sub(r'\s+', '', line) not in re.sub(r'\s+', '', code): bad.append(f'{name}: its example is not set as code')
        raises = re.search(r'Raises `(\w+)`', doc)
        if raises and raises[1] not in text: bad.append(f'{name}: what it raises is not said')
    assert not bad, '\n'.join(bad[:30])


def test_names_in_prose_and_code_lead_to_their_documentation(pages):
    prose = [n for n, p in pages.items() if n != '03_loss.html' and re.search(r'<a href="[./]*03_loss\.html#ctc_loss"><code>ctc_loss</code>', p.text)]
    assert prose
    code = [n for n, p in pages.items() if n != '03_loss.html' and re.search(r'<a class="code-name" href="[./]*03_loss\.html#ctc_loss">', p.text)]
    assert code
    for n, p in pages.items(): assert not re.search(r'<pre class="sourceCode.*?\]\(/\w+\.html', p.text), f'{n}: a link left in code'


def test_equations_are_numbered_and_referred_to(pages):
    known = book.equations(ROOT)
    assert len(known) >= 10
    referred = set()
    for number, where in known.items():
        page = pages[re.sub(r'\.ipynb$', '.html', where)]
        assert f'equation-{number}' in page.ids and f'<span class="eq-number">({number})</span>' in page.text, number
    for p in pages.values(): referred |= set(re.findall(r'#equation-([\w.]+)"', p.text))
    assert len(referred & set(known)) >= 5, referred


def test_sitemap_llms_and_social_picture(site, pages):
    from PIL import Image
    named = {e.text for e in ElementTree.parse(site/'sitemap.xml').iter('{http://www.sitemaps.org/schemas/sitemap/0.9}loc')}
    for name in set(pages) - {'404.html'}: assert any(url.endswith(name) for url in named), name
    listed = re.findall(r'\]\(([^)]+)\)', (site/'llms.txt').read_text())
    assert len(listed) >= len(notebooks(ROOT))
    for path in listed:
        text = (site/path).read_text()
        for target in re.findall(r'!\[[^\]]*\]\(([^)\s]+)\)', text):
            assert target.startswith('data:') or ((site/path).parent/target).exists(), f'{path}: {target}'
    for name, page in pages.items():
        image = re.search(r'<meta property="og:image" content="([^"]+)"', page.text)
        assert image and Image.open((site/name).parent/image[1]).size == (1200, 630), name


def test_finishing_twice_changes_nothing(site, tmp_path):
    import shutil
    copy = tmp_path/'_docs'
    copy.mkdir()
    for name in ('index.html', '03_loss.html', 'site_libs', 'pictures'):
        (shutil.copytree if (site/name).is_dir() else shutil.copy)(site/name, copy/name)
    book.finish(copy, ROOT)
    names = [p for p in re.findall(r'href="([^"#]+)', (site/'03_loss.html').read_text())]
    assert names and (copy/'index.html').read_text() == (site/'index.html').read_text()
    assert 'src="pictures/' in (copy/'03_loss.html').read_text()


# What a browser shows


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('size', [PHONE, DESK], ids=['phone', 'desk'])
def test_pages_in_a_browser(browser, served, pages, size, scheme):
    context = browser.new_context(viewport=dict(zip(('width', 'height'), size)), color_scheme=scheme)
    page = context.new_page()
    said, elsewhere, missing, sideways, wrong = [], [], [], [], []
    page.on('console', lambda m: said.append(f'{page.url}: {m.text}') if m.type == 'error' else None)
    page.on('pageerror', lambda e: said.append(f'{page.url}: {e}'))
    page.on('request', lambda r: elsewhere.append(r.url) if not r.url.startswith((served, 'data:', 'blob:')) else None)
    page.on('response', lambda r: missing.append(r.url) if r.status >= 400 else None)
    for name in sorted(pages):
        page.goto(f'{served}/{name}', wait_until='load')
        if page.evaluate('document.documentElement.scrollWidth > window.innerWidth'): sideways.append(name)
        light = page.evaluate('getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)')
        if (light > 380) != (scheme == 'light'): wrong.append(name)
    context.close()
    assert not said and not elsewhere and not missing and not sideways and not wrong, (said[:5], elsewhere[:5], missing[:5], sideways, wrong)


def test_first_page_is_light(browser, served):
    page = browser.new_page()
    got = []
    page.on('response', lambda r: got.append(r))
    page.goto(f'{served}/index.html', wait_until='networkidle')
    assert sum(len(r.body()) for r in got) < 1.5e6
    page.close()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_accessibility(browser, served, pages, scheme):
    from axe_playwright_python.sync_playwright import Axe
    found = {}
    for size in (DESK, PHONE):
        context = browser.new_context(viewport=dict(zip(('width', 'height'), size)), color_scheme=scheme, reduced_motion='reduce')
        page = context.new_page()
        for name in KINDS if size == DESK else KINDS[:1]:
            page.goto(f'{served}/{name}', wait_until='load')
            page.wait_for_timeout(200)
            code = {} if name == '00_alphabet.html' else {'exclude': [['pre.sourceCode']]} # coloured word by word and alike everywhere: one page is enough
            result = Axe().run(page, context=code or None, options={'runOnly': {'type': 'tag', 'values': AA}, 'resultTypes': ['violations'], 'elementRef': False})
            for v in result.response['violations']:
                for n in v['nodes'][:3]: found.setdefault(f"{v['id']} ({v['help']})", []).append((name, size[0], n['target'], n['html'][:160], n.get('failureSummary', '')[:220]))
        context.close()
    assert not found, '\n'.join(f'{k}: {len(v)}, e.g. {v[:2]}' for k, v in found.items())


def search(page, served, words, at='index.html'):
    page.goto(f'{served}/{at}', wait_until='load')
    page.fill('#quarto-search input', words)
    page.wait_for_selector('.smalldocs-search-results.show .search-result', timeout=10_000)
    return page.locator('.search-result')


def test_search_finds_names_and_prose(desk, served):
    hits = search(desk, served, 'ctc_loss')
    links = hits.evaluate_all('all => all.map(a => a.getAttribute("href"))')
    assert any(link.endswith('03_loss.html#ctc_loss') for link in links[:3]), links
    hits.nth(next(i for i, link in enumerate(links) if link.endswith('#ctc_loss'))).click()
    desk.wait_for_url('**/03_loss.html#ctc_loss')
    desk.wait_for_function(f'(y => y >= 0 && y < {DESK[1]})(document.getElementById("ctc_loss").getBoundingClientRect().y)')
    hits = search(desk, served, 'blank plateau', at='appendix/book.html')
    links = hits.evaluate_all('all => all.map(a => a.getAttribute("href"))')
    assert any('10_train.html' in link for link in links[:5]), links
    desk.press('#quarto-search input', 'Enter')
    desk.wait_for_url(lambda url: 'book.html' not in url)
    assert 'plateau' in desk.inner_text('main').lower()


def test_search_on_a_phone(browser, served):
    page = browser.new_page(viewport=dict(zip(('width', 'height'), PHONE)))
    page.goto(f'{served}/index.html', wait_until='load')
    page.click('.navbar-toggler')
    page.wait_for_selector('#quarto-search input', state='visible')
    page.wait_for_timeout(400)
    page.fill('#quarto-search input', 'prefix beam')
    page.wait_for_selector('.search-result', timeout=10_000)
    box = page.locator('.smalldocs-search-results').bounding_box()
    assert box['x'] >= 0 and box['x'] + box['width'] <= PHONE[0]
    page.locator('.search-result').first.click()
    page.wait_for_url(lambda url: 'index.html' not in url)
    page.close()


def test_dark_mode_is_kept(desk, served):
    desk.goto(f'{served}/03_loss.html', wait_until='load')
    dark = 'document.documentElement.classList.contains("quarto-dark")'
    assert not desk.evaluate(dark)
    desk.click('.quarto-color-scheme-toggle')
    desk.wait_for_function(dark)
    desk.goto(f'{served}/05_align.html', wait_until='load')
    desk.wait_for_function(dark)
    desk.click('.quarto-color-scheme-toggle')
    desk.wait_for_function(f'!{dark}')


def test_copy_button_copies_the_code(desk, served):
    desk.goto(f'{served}/00_alphabet.html', wait_until='load')
    cell = desk.locator('.cell .code-copy-outer-scaffold').nth(1)
    cell.hover()
    cell.locator('.code-copy-button').click()
    desk.wait_for_selector('.code-copy-button-checked')
    assert desk.evaluate('navigator.clipboard.readText()').strip() == cell.locator('pre code').inner_text().strip() != ''


def test_notebook_opens(desk, served, pages):
    for name in ('03_loss.html', 'appendix/book.html'):
        desk.goto(f'{served}/{name}', wait_until='load')
        link = desk.locator('.page-links a').first
        with desk.expect_download() as got: link.click()
        nb = json.loads(Path(got.value.path()).read_text())
        sources = lambda nb: [(c['cell_type'], c['source']) for c in nb['cells']]
        assert sources(nb) == sources(json.loads((ROOT/'nbs'/name).with_suffix('.ipynb').read_text()))


def test_next_leads_through_the_book(desk, served):
    order = re.findall(r'^\s*- ([\w/]+)\.ipynb', (ROOT/'_quarto.yml').read_text(), re.M)
    desk.goto(f'{served}/index.html', wait_until='load')
    seen = ['index']
    while (link := desk.locator('.nav-page-next a')).count():
        link.click()
        desk.wait_for_load_state('load')
        seen.append(desk.url.removeprefix(f'{served}/').removesuffix('.html'))
        assert len(seen) <= len(order), seen
    assert seen == order
    desk.click('.nav-page-previous a')
    desk.wait_for_load_state('load')
    assert desk.url == f'{served}/{order[-2]}.html'


def test_headings_and_functions_can_be_linked_to(desk, served):
    desk.goto(f'{served}/03_loss.html', wait_until='load')
    missing = desk.evaluate('[...document.querySelectorAll("main h2, main h3, main h4")].filter(h => !h.closest("nav") && h.id !== "toc-title" && !h.querySelector("a.anchorjs-link")).map(h => h.textContent)')
    assert missing == []


def test_missing_address_shows_the_way_back(desk, served):
    desk.goto(f'{served}/404.html', wait_until='load')
    assert 'does not exist' in desk.inner_text('h1')
    desk.click('main a:has-text("first chapter")')
    desk.wait_for_url('**/00_alphabet.html')


def test_the_first_page_moves_and_stops(desk, served):
    desk.goto(f'{served}/index.html', wait_until='load')
    now = 'document.querySelector("svg.reading").getCurrentTime()'
    a = desk.evaluate(now)
    desk.wait_for_timeout(400)
    assert desk.evaluate(now) > a
    desk.click('.reading-controls button')
    assert desk.inner_text('.reading-controls button') == 'Play'
    a = desk.evaluate(now)
    desk.wait_for_timeout(300)
    assert desk.evaluate(now) == a
    seen = 'getComputedStyle(document.querySelectorAll("svg.reading circle")[%d]).opacity'
    desk.locator('.reading-controls input').fill('5')
    assert '6 of' in desk.inner_text('.reading-controls output')
    desk.wait_for_timeout(100)
    assert desk.evaluate(seen % 5) == '1' and desk.evaluate(seen % 12) == '0'
    desk.locator('.reading-controls input').fill('24')
    desk.wait_for_timeout(100)
    assert desk.inner_text('.reading-controls output') == 'the text' and desk.evaluate(seen % 23) == '1'


def test_films_can_be_stopped(desk, served, pages):
    name = next(n for n, p in pages.items() if any('data-still' in a for a in p.pictures))
    desk.goto(f'{served}/{name}', wait_until='load')
    button, film = desk.locator('.film-button').first, desk.locator('main img[data-still]').first
    button.scroll_into_view_if_needed()
    moving = film.get_attribute('src')
    assert button.inner_text() == 'Stop'
    button.click()
    assert button.inner_text() == 'Play' and film.get_attribute('src') == film.get_attribute('data-still') != moving
    desk.wait_for_function('document.querySelector("main img[data-still]").naturalWidth > 0')
    button.click()
    assert film.get_attribute('src') == moving


def test_reduced_motion_shows_the_end(browser, served):
    page = browser.new_page(reduced_motion='reduce')
    page.goto(f'{served}/index.html', wait_until='load')
    assert page.evaluate('document.querySelector("svg.reading").animationsPaused()')
    assert page.inner_text('.reading-controls output') == 'the text'
    page.close()
