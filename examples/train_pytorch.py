"""Train a network of your own on several streams in plain PyTorch: ``python train_pytorch.py features/ scores.csv``.

The network is a linear function of the mean segment of each stream. Every fifth video is held out.
"""

import csv
import sys

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

import arabesque

EPOCHS = 50


class MeanRegression(nn.Module):
    """Batches of `collate_padded` to scores ``[n]``."""

    def __init__(self, dims: dict[str, int]) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({stream: nn.LayerNorm(dim) for stream, dim in dims.items()})
        self.head = nn.Linear(sum(dims.values()), 1)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        means = []
        for stream, norm in self.norms.items():
            mask = batch["masks"][stream][..., None]  # [n, time, 1]; False for padding and missing streams
            mean = (batch[stream] * mask).sum(1) / mask.sum(1).clamp(min=1)
            means.append(norm(mean))
        return self.head(torch.cat(means, dim=1))[:, 0]


store_path, labels_path = sys.argv[1:]
with open(labels_path, newline="") as file:
    labels = {row["video_id"]: float(row["score"]) for row in csv.DictReader(file)}
store = arabesque.open_store(store_path)
dataset = arabesque.AlignedDataset(store, list(store.streams), labels=labels, in_memory=True)
training = Subset(dataset, [index for index in range(len(dataset)) if index % 5])
held_out = Subset(dataset, range(0, len(dataset), 5))
loader = DataLoader(training, batch_size=8, shuffle=True, collate_fn=arabesque.collate_padded)

torch.manual_seed(0)
model = MeanRegression({stream: dataset[0][stream].shape[1] for stream in dataset.streams})
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for epoch in range(EPOCHS):
    total = 0.0
    for batch in loader:
        loss = nn.functional.mse_loss(model(batch), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch["label"])
    if epoch % 10 == 9:
        print(f"epoch {epoch + 1}: mean squared error {total / len(training):.3f}")

model.eval()
with torch.inference_mode():
    batch = arabesque.collate_padded([held_out[index] for index in range(len(held_out))])
    for video_id, score, label in zip(batch["video_id"], model(batch).tolist(), batch["label"].tolist(), strict=True):
        print(f"{video_id}: predicted {score:.2f}, label {label:.2f}")
