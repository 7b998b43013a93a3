"""The code cells of the notebook that this book grows from, run against the package.

They are typed as they stand there, under the numbers that they carry there (cell 2 asked for a docstring and cell 33 is not in it). Two things
differ: the import cell takes the names from the package and shortens folders and intervals, and `epochs` is 2. The shapes asked for are those
that the notebook prints.

The words are drawn into a temporary folder. Set CRNN_NB_SYNTH90K to a folder in the Synth90k layout to run the same cells on real images too.
"""
import ast
import io
import math
import os
import re
from contextlib import redirect_stdout

import pytest
import torch

IMPORTS = '''
import os

import cv2
import torch
from torch.utils.data import DataLoader
import torch.optim as optim
from torch.nn import CTCLoss

from crnn_nb.data import Synth90kDataset, synth90k_collate_fn
from crnn_nb.model import CRNN
from crnn_nb.evaluate import evaluate
from crnn_nb.train import train_config
config = {**train_config, **overrides}
'''

CELLS = {
3: '''
T = 50      # Input sequence length
C = 20      # Number of classes (including blank)
N = 16      # Batch size
S = 30      # Target sequence length of longest target in batch (padding length)
S_min = 10  # Minimum target length, for demonstration purposes
''',
4: '''
input = torch.randn(T, N, C).log_softmax(2).detach().requires_grad_()
input.shape
''',
5: '''
input[:,0,:][0] ## the first sample and the first time sequence
''',
6: '''
target = torch.randint(low=1, high=C, size=(N, S), dtype=torch.long)
target.shape 
''',
7: '''
input_lengths = torch.full(size=(N,), fill_value=T, dtype=torch.long)
''',
8: '''
target_lengths = torch.randint(low=S_min, high=S, size=(N,), dtype=torch.long)
''',
9: '''
target_lengths
''',
10: '''
ctc_loss = CTCLoss()
loss = ctc_loss(input, target, input_lengths, target_lengths)
''',
11: '''
loss
''',
12: '''
loss.backward()
''',
13: '''
epochs = config['epochs']
train_batch_size = config['train_batch_size']
eval_batch_size = config['eval_batch_size']
lr = config['lr']
show_interval = config['show_interval']
valid_interval = config['valid_interval']
save_interval = config['save_interval']
cpu_workers = config['cpu_workers']
reload_checkpoint = config['reload_checkpoint']
valid_max_iter = config['valid_max_iter']

img_width = config['img_width']
img_height = config['img_height']
data_dir = config['data_dir']

num_class = len(Synth90kDataset.LABEL2CHAR) + 1

cpu_workers = 0
''',
14: '''
device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
print(f'device: {device}')
''',
15: '''
train_dataset = Synth90kDataset(root_dir=data_dir, mode='train',
                                    img_height=img_height, img_width=img_width)
valid_dataset = Synth90kDataset(root_dir=data_dir, mode='dev',
                                img_height=img_height, img_width=img_width)

train_loader = DataLoader(
    dataset=train_dataset,
    batch_size=train_batch_size,
    shuffle=True,
    num_workers=cpu_workers,
    collate_fn=synth90k_collate_fn)
valid_loader = DataLoader(
    dataset=valid_dataset,
    batch_size=eval_batch_size,
    shuffle=True,
    num_workers=cpu_workers,
    collate_fn=synth90k_collate_fn)
''',
16: '''
crnn = CRNN(1, img_height, img_width, num_class,
            map_to_seq_hidden=config['map_to_seq_hidden'],
            rnn_hidden=config['rnn_hidden'],
            leaky_relu=config['leaky_relu'])
if reload_checkpoint:
    crnn.load_state_dict(torch.load(reload_checkpoint, map_location=device))
crnn.to(device)
''',
17: '''
optimizer = optim.RMSprop(crnn.parameters(), lr=lr)
criterion = CTCLoss(reduction='sum')
criterion.to(device)
''',
18: '''
assert save_interval % valid_interval == 0
''',
19: '''
## testing
i = 0
for train_data in train_loader:
    sample_train_data = train_data
    i+=1
    if i==1:
        break
''',
20: '''
_ = crnn.train()
''',
21: '''
images, targets, target_lengths = [d.to(device) for d in sample_train_data]
''',
22: '''
logits = crnn(images)
''',
23: '''
logits.shape # (T, N, C)
''',
24: '''
log_probs = torch.nn.functional.log_softmax(logits, dim=2) # softmax
''',
25: '''
log_probs[:,0,:][0]
''',
26: '''
batch_size = images.size(0)
''',
27: '''
input_lengths = torch.LongTensor([logits.size(0)] * batch_size)
''',
28: '''
input_lengths
''',
29: '''
target_lengths = torch.flatten(target_lengths)
''',
30: '''
target_lengths 
''',
31: '''
loss = criterion(log_probs, targets, input_lengths, target_lengths)
''',
32: '''
loss
''',
34: '''
_ = crnn.eval()
''',
35: '''
def train_batch(crnn, data, optimizer, criterion, device):
    crnn.train()
    images, targets, target_lengths = [d.to(device) for d in data]

    logits = crnn(images)
    log_probs = torch.nn.functional.log_softmax(logits, dim=2)

    batch_size = images.size(0)
    input_lengths = torch.LongTensor([logits.size(0)] * batch_size)
    target_lengths = torch.flatten(target_lengths)

    loss = criterion(log_probs, targets, input_lengths, target_lengths)

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
''',
36: '''
epochs
''',
37: '''
epochs = 10
''',
38: '''
for epoch in range(1, epochs + 1):
    print(f'epoch: {epoch}')
    tot_train_loss = 0.
    tot_train_count = 0
    for train_data in train_loader:
        loss = train_batch(crnn, train_data, optimizer, criterion, device)
        train_size = train_data[0].size(0)

        tot_train_loss += loss
        tot_train_count += train_size
        if i % show_interval == 0:
            print('train_batch_loss[', i, ']: ', loss / train_size)

        if i % valid_interval == 0:
            evaluation = evaluate(crnn, valid_loader, criterion,
                                  decode_method=config['decode_method'],
                                  beam_size=config['beam_size'])
            # only once evey elements of sequences is correct, this same can be deemed as correct.  
            print('valid_evaluation: loss={loss}, acc={acc}'.format(**evaluation))

        if i % save_interval == 0:
            prefix = 'crnn'
            loss = evaluation['loss']
            save_model_path = os.path.join(config['checkpoints_dir'],
                                           f'{prefix}_{i:06}_loss{loss}.pt')
            torch.save(crnn.state_dict(), save_model_path)
            print('save model at ', save_model_path)

        i += 1

    print('train_loss: ', tot_train_loss / tot_train_count)
''',
}

# The lines that cell 16 prints, as far as they are kept there.
NETWORK = '''
CRNN(
  (cnn): Sequential(
    (conv0): Conv2d(1, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (relu0): ReLU(inplace=True)
    (pooling0): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
    (conv1): Conv2d(64, 128, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (relu1): ReLU(inplace=True)
    (pooling1): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
    (conv2): Conv2d(128, 256, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (relu2): ReLU(inplace=True)
    (conv3): Conv2d(256, 256, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (relu3): ReLU(inplace=True)
    (pooling2): MaxPool2d(kernel_size=(2, 1), stride=(2, 1), padding=0, dilation=1, ceil_mode=False)
    (conv4): Conv2d(256, 512, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (batchnorm4): BatchNorm2d(512, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)
    (relu4): ReLU(inplace=True)
    (conv5): Conv2d(512, 512, '''.lstrip('\n')


def run_cell(source, namespace):
    "Run a cell as a notebook does: the value of its last expression, and what it printed."
    *body, last = ast.parse(source).body
    value, printed = None, io.StringIO()
    with redirect_stdout(printed):
        if not isinstance(last, ast.Expr): body.append(last)
        exec(compile(ast.Module(body, []), '<cell>', 'exec'), namespace)
        if isinstance(last, ast.Expr): value = eval(compile(ast.Expression(last.value), '<cell>', 'eval'), namespace)
    return value, printed.getvalue()


def run_notebook(overrides, epochs=2):
    "Values, printed lines and the namespace that the cells leave, with the import cell and `epochs` changed."
    torch.manual_seed(0)
    space, values, printed = {'overrides': overrides}, {}, {}
    run_cell(IMPORTS, space)
    for number, source in CELLS.items():
        if number == 37: source = f'epochs = {epochs}'
        values[number], printed[number] = run_cell(source, space)
        if number == 21: space['sizes'] = [tuple(space[k].shape) for k in ('images', 'targets', 'target_lengths')]
    return values, printed, space


@pytest.fixture(scope='module', params=['drawn', 'real'])
def ran(request, tmp_path_factory):
    "The notebook after two epochs, on drawn words and, where CRNN_NB_SYNTH90K names them, on real ones."
    folder = tmp_path_factory.mktemp('seed')
    if request.param == 'real':
        data_dir = os.environ.get('CRNN_NB_SYNTH90K')
        if not data_dir: pytest.skip('CRNN_NB_SYNTH90K is not set: set it to a folder in the Synth90k layout to run the cells on real images too')
        with open(os.path.join(data_dir, 'annotation_train.txt')) as f: batches = -(-sum(1 for _ in f)//32)
    else:
        from crnn_nb.synth import write_synth90k
        data_dir, batches = str(folder/'words'), 2
        write_synth90k(data_dir, n_train=48, n_val=8, n_test=4, seed=0)
    checkpoints = folder/'checkpoints'
    checkpoints.mkdir()
    overrides = dict(data_dir=data_dir, checkpoints_dir=str(checkpoints), show_interval=max(1, batches//2),
                     valid_interval=batches, save_interval=2*batches)
    return (*run_notebook(overrides), checkpoints, batches)


def test_every_cell_is_here():
    assert [n for n in range(3, 39) if n not in CELLS] == [33]
    for source in CELLS.values(): ast.parse(source)


def test_shapes_of_the_docstring_example(ran):
    values, _, space, *_ = ran
    assert values[4] == torch.Size([50, 16, 20])
    assert values[5].shape == (20,)
    assert values[6] == torch.Size([16, 30])
    assert values[9].shape == (16,) and 10 <= values[9].min() and values[9].max() < 30
    assert values[11].shape == () and math.isfinite(values[11].item())
    assert space['input'].grad.shape == (50, 16, 20)


def test_configuration(ran):
    values, printed, space, *_ = ran
    assert space['num_class'] == 37
    assert values[36] == 10000
    assert (space['train_batch_size'], space['eval_batch_size'], space['lr']) == (32, 512, 0.0005)
    assert (space['img_height'], space['img_width']) == (32, 100)
    assert printed[14].startswith('device: ')


def test_network(ran):
    values, *_ = ran
    assert repr(values[16]).replace('affine=True, bias=True,', 'affine=True,').startswith(NETWORK) # newer releases of PyTorch print more
    assert sum(p.numel() for p in values[16].parameters()) == 7_839_077


def test_shapes_of_a_batch(ran):
    values, _, space, *_ = ran
    images, targets, target_lengths = space['sizes']
    assert images == (32, 1, 32, 100)
    assert targets == (int(values[30].sum()),)
    assert math.prod(target_lengths) == 32
    assert values[23] == torch.Size([24, 32, 37])
    assert values[25].shape == (37,)
    assert abs(values[25].exp().sum() - 1) < 1e-5
    assert values[28].tolist() == [24]*32
    assert values[30].shape == (32,)
    assert values[32].shape == () and math.isfinite(values[32].item())


def test_training_prints_what_the_notebook_prints(ran):
    _, printed, space, checkpoints, batches = ran
    lines = printed[38].splitlines()
    assert [line for line in lines if line.startswith('epoch')] == ['epoch: 1', 'epoch: 2']
    number = r'(nan|inf|\d+\.\d+(e-?\d+)?)'
    shown = [line for line in lines if re.fullmatch(rf'train_batch_loss\[ \d+ \]:  {number}', line)]
    assert len(shown) == 2*batches//space['show_interval']
    valid = [line for line in lines if re.fullmatch(rf'valid_evaluation: loss={number}, acc={number}', line)]
    assert len(valid) == 2
    means = [float(line.split()[-1]) for line in lines if line.startswith('train_loss: ')]
    assert len(means) == 2 and all(math.isfinite(m) and m > 0 for m in means)
    assert space['i'] == 2*batches + 1


def test_evaluation(ran):
    evaluation = ran[2]['evaluation']
    assert {'loss', 'acc', 'wrong_cases'} <= set(evaluation)
    assert 0 <= evaluation['acc'] <= 1 and math.isfinite(evaluation['loss'])


def test_checkpoint_loads_into_a_new_network(ran):
    _, printed, space, checkpoints, batches = ran
    saved = list(checkpoints.glob('crnn_*_loss*.pt'))
    assert [p.name.startswith(f'crnn_{2*batches:06}_loss') for p in saved] == [True]
    assert f'save model at  {saved[0]}' in printed[38]
    crnn = space['CRNN'](1, 32, 100, 37)
    crnn.load_state_dict(torch.load(saved[0], weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(crnn.state_dict().values(), space['crnn'].state_dict().values()))
