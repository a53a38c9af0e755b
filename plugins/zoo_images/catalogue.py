"""What is known of each published set before a byte of it is read."""

from __future__ import annotations

import dataclasses

from zoo.api import ImageInput

GREY_28 = ImageInput(channels=1, height=28, width=28)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A published set: `torchvision` is its class there, whose folder layout we share.

    `files` map a path below the data folder to (bytes, digest): SHA-256 of 64 digits, MD5 of 32,
    or "" where only the size is known. `train` and `test` are the files each split reads.
    """

    name: str
    summary: str
    torchvision: str
    input: ImageInput
    classes: tuple[str, ...]
    train: dict[str, tuple[int, str]]
    test: dict[str, tuple[int, str]]

    @property
    def files(self) -> dict[str, tuple[int, str]]:
        return self.train | self.test


def _idx(
    folder: str, split: str, count: int, images: str = "", labels: str = ""
) -> dict[str, tuple[int, str]]:
    return {
        f"{folder}/raw/{split}-images-idx3-ubyte": (16 + 784 * count, images),
        f"{folder}/raw/{split}-labels-idx1-ubyte": (8 + count, labels),
    }


# The SHA-256 sums are of the uncompressed files, as torchvision unpacks them.
MNIST = Published(
    name="mnist",
    summary="70,000 handwritten digits, 28×28 grey, 10 classes",
    torchvision="MNIST",
    input=GREY_28,
    classes=tuple("0123456789"),
    train=_idx(
        "MNIST",
        "train",
        60_000,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    test=_idx(
        "MNIST",
        "t10k",
        10_000,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
FASHION_MNIST = Published(
    name="fashion-mnist",
    summary="70,000 pieces of clothing, 28×28 grey, 10 classes",
    torchvision="FashionMNIST",
    input=GREY_28,
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    train=_idx(
        "FashionMNIST",
        "train",
        60_000,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    test=_idx(
        "FashionMNIST",
        "t10k",
        10_000,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)
KMNIST = Published(
    name="kmnist",
    summary="70,000 cursive hiragana, 28×28 grey, 10 classes",
    torchvision="KMNIST",
    input=GREY_28,
    classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    train=_idx("KMNIST", "train", 60_000),
    test=_idx("KMNIST", "t10k", 10_000),
)
EMNIST_LETTERS = Published(
    name="emnist-letters",
    summary="145,600 handwritten letters, 28×28 grey, 26 classes, upright",
    torchvision="EMNIST",
    input=GREY_28,
    classes=tuple("abcdefghijklmnopqrstuvwxyz"),
    train=_idx("EMNIST", "emnist-letters-train", 124_800),
    test=_idx("EMNIST", "emnist-letters-test", 20_800),
)
_BATCHES = "cifar-10-batches-py"
CIFAR10 = Published(
    name="cifar10",
    summary="60,000 photographs, 32×32 colour, 10 classes",
    torchvision="CIFAR10",
    input=ImageInput(channels=3, height=32, width=32),
    classes=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    # The published MD5 sums; torchvision checks them too, before it reads a batch.
    train={
        f"{_BATCHES}/data_batch_1": (0, "c99cafc152244af753f735de768cd75f"),
        f"{_BATCHES}/data_batch_2": (0, "d4bba439e000b95fd0a9bffe97cbabec"),
        f"{_BATCHES}/data_batch_3": (0, "54ebc095f3ab1f0389bbae665268c751"),
        f"{_BATCHES}/data_batch_4": (0, "634d18415352ddfa80567beed471001a"),
        f"{_BATCHES}/data_batch_5": (0, "482c414d41f54cd18b22e5b47cb7c3cb"),
        f"{_BATCHES}/batches.meta": (0, "5ff9c542aee3614f3951f8cda6e48888"),
    },
    test={
        f"{_BATCHES}/test_batch": (0, "40351d587109b95175f43aff81a1287e"),
        f"{_BATCHES}/batches.meta": (0, "5ff9c542aee3614f3951f8cda6e48888"),
    },
)
PUBLISHED = (MNIST, FASHION_MNIST, KMNIST, EMNIST_LETTERS, CIFAR10)
