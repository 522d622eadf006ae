"""Every dataset that raymc knows: counts, where its files belong, what they are when they are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from raymc.config import nearest
from raymc.datasets import synthetic
from raymc.datasets.base import Dataset, data_root
from raymc.datasets.cifar import read_cifar, read_imbalanced
from raymc.datasets.folders import VIEWS, read_coil, read_image_folder, read_stl10
from raymc.datasets.idx import read_full, read_split, read_test
from raymc.datasets.source import Source
from raymc.datasets.tiny_imagenet import read_tiny_imagenet
from raymc.datasets.vectors import read_har, read_libsvm, read_pendigits, read_reuters, read_usps
from raymc.errors import InputError

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
MNIST = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
FASHION_MNIST = (
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)
# The md5 sums by which torchvision knows these files.
CIFAR10 = {
    "cifar-10-batches-py/data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
    "cifar-10-batches-py/data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
    "cifar-10-batches-py/data_batch_4": "md5:634d18415352ddfa80567beed471001a",
    "cifar-10-batches-py/data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
    "cifar-10-batches-py/test_batch": "md5:40351d587109b95175f43aff81a1287e",
}
CIFAR100 = {
    "cifar-100-python/train": "md5:16019d7e3df5f24257cddd939b257f8d",
    "cifar-100-python/test": "md5:f0ef6b0ae62326f3e7ffdfab6717acfc",
    "cifar100/labels.npz": "sha256:c6d5ab9bdfcd54318a17ac69828aa2292342de7f24db045ed62f0eb4d790bd67",
}
STL10 = {
    "stl10_binary/train_X.bin": "md5:918c2871b30a85fa023e0c44e0bee87f",
    "stl10_binary/train_y.bin": "md5:5a34089d4802c674881badbb80307741",
    "stl10_binary/test_X.bin": "md5:7f263ba9f9e0b06b93213547f721ac82",
    "stl10_binary/test_y.bin": "md5:36f9794fa4beb8a2c72628de14fa638e",
}
USPS = {"usps/usps.npz": "sha256:b6f3a9ac58d371fb49e9b67a3fe26d175a600062a4a9c13a8bb54f3e37b47da0"}
LIBSVM = {"usps.bz2": "md5:ec16c51db3855ca6c91edd34d0e9b197", "usps.t.bz2": "md5:8ea070ee2aca1ac39742fdd1ef5ed118"}
LIBSVM_PLACES = ("usps_libsvm", "usps", ".")  # torchvision puts the files into whatever folder it is given
PENDIGITS = {
    "pendigits/pendigits.tra": "sha256:e2b9eb9f0d0467e2b64a4816a3420edf2b8043447576f4b84337aba44a9f97d3",
    "pendigits/pendigits.tes": "sha256:8bd03229c5c5291fefe43e45465dd948d2645bf23328b9d993e0b777666b2015",
}
COIL_PIXELS = {
    "coil-20-proc (128x128 grey)": "995a3092878f333a42b3774c3fd44abe780893ee939e2cdb5834cf8de498e080",
    "coil-100 (64x64 grey)": "57ad7cee7ec17ff1439fdee79b9e00eaf09405e6b90b9174142807d97057579f",
}
UCI = "https://archive.ics.uci.edu/dataset/"
IMAGENET = "https://image-net.org (ILSVRC-2012, train part: the folders of its classes)"
COLUMBIA = "https://www.cs.columbia.edu/CAVE/software/softlib/"


def _drawn(name: str, dim: int, draw: Callable[[Any, str], Dataset], setting: float) -> Source:
    n = 2 * synthetic.SPHERE_POINTS if draw is synthetic.sphere else synthetic.EVALUATION_POINTS
    return Source(name, (n,), 2, (dim,), lambda source, root: draw(setting, source.name))


def _coil(n: int, folder: str, page: str) -> Source:
    obtain, counts = COLUMBIA + page, (VIEWS * n,)
    return Source(f"coil{n}", counts, n, (1, 64, 64), read_coil, (folder,), obtain=obtain, pixels=COIL_PIXELS)


def _mnist(name: str, samples: tuple[int, ...]) -> Source:
    own = "FashionMNIST" if name == "fashion_mnist" else "MNIST"
    sums = FASHION_MNIST if name == "fashion_mnist" else MNIST
    digests = {f"{own}/raw/{file}": f"sha256:{known}" for file, known in zip(IDX_FILES, sums, strict=True)}
    reader = {"mnist_test": read_test, "mnist_split": read_split}.get(name, read_full)
    in_files = (60000, 10000) if name == "mnist_split" else ()
    return Source(name, samples, 10, (1, 28, 28), reader, (f"{own}/raw",), own, digests=digests, in_files=in_files)


def _cifar(name: str, classes: int) -> Source:
    folders = ("cifar-10-batches-py", "cifar10") if classes == 10 else ("cifar-100-python", "cifar100")
    return Source(
        name,
        (50000, 10000),
        classes,
        (3, 32, 32),
        read_cifar,
        folders,
        "CIFAR10" if classes == 10 else "CIFAR100",
        digests=CIFAR10 if classes == 10 else CIFAR100,
        pixels={"cifar100": "68d7556bea71aa8b5640490a16de13afd8f9a835cf2f531f83cc2f145c197196"},
    )


def _imbalanced(whole: Source) -> Source:
    return replace(
        whole,
        name=f"imb_{whole.name}",
        samples=(37500, 7500),
        reader=read_imbalanced,
        pixels={"cifar100": "86fa773b03b3ee268e0489f0516012189b0e4b126b1040b52503d84cbfe3a224"},
        in_files=whole.samples,
    )


SOURCES = {
    source.name: source
    for source in (
        _drawn("double_spiral", 2, synthetic.double_spiral, 0.1),
        _drawn("double_spiral_paper", 2, synthetic.double_spiral, 0.05),
        _drawn("manifolds", synthetic.AMBIENT, synthetic.manifolds, True),
        _drawn("manifolds_unidentifiable", synthetic.AMBIENT, synthetic.manifolds, False),
        _drawn("sphere", 3, synthetic.sphere, 0.05**0.5),
        _drawn("sphere_sd05", 3, synthetic.sphere, 0.05),
        Source("digits", (1437, 360), 10, (1, 8, 8), lambda source, root: synthetic.digits()),
        _coil(20, "coil-20-proc", "coil-20.php (processed)"),
        _coil(100, "coil-100", "coil-100.php"),
        _cifar("cifar10", 10),
        _cifar("cifar20", 20),
        _cifar("cifar100", 100),
        _imbalanced(_cifar("cifar10", 10)),
        _imbalanced(_cifar("cifar100", 100)),
        Source("stl10", (5000, 8000), 10, (3, 96, 96), read_stl10, ("stl10_binary",), "STL10", digests=STL10),
        _mnist("mnist", (60000, 10000)),
        _mnist("mnist_test", (10000,)),
        _mnist("mnist_split", (50000, 20000)),
        _mnist("fashion_mnist", (60000, 10000)),
        Source(
            "usps",
            (9298,),
            10,
            (256,),
            read_usps,
            ("usps",),
            obtain="https://github.com/FlorentF9/DESOM (data/usps, as usps.npz with x and y)",
            digests=USPS,
            marks=("usps.npz",),
        ),
        Source(
            "usps_libsvm",
            (7291, 2007),
            10,
            (256,),
            read_libsvm,
            LIBSVM_PLACES,
            "USPS",
            digests={f"{place}/{file}": known for place in LIBSVM_PLACES for file, known in LIBSVM.items()},
            marks=("usps.bz2",),
        ),
        Source(
            "reuters10k",
            (10000,),
            4,
            (2000,),
            read_reuters,
            ("reuters10k", "reuters", "."),
            obtain="the code of DEC or IDEC, which makes reutersidf10k.npy from RCV1",
            marks=("reutersidf10k.npy", "reuters10k.npz"),
        ),
        Source(
            "har",
            (7352, 2947),
            6,
            (561,),
            read_har,
            ("UCI HAR Dataset", "har"),
            obtain=UCI + "240 (Human Activity Recognition Using Smartphones)",
        ),
        Source(
            "pendigits",
            (7494, 3498),
            10,
            (16,),
            read_pendigits,
            ("pendigits",),
            obtain=UCI + "81 (Pen-Based Recognition of Handwritten Digits)",
            digests=PENDIGITS,
        ),
        Source("imagenet10", (13000,), 10, (3, 96, 96), read_image_folder, ("imagenet10",), obtain=IMAGENET),
        Source("imagenet_dogs", (19500,), 15, (3, 96, 96), read_image_folder, ("imagenet_dogs",), obtain=IMAGENET),
        Source(
            "tiny_imagenet",
            (100000, 10000),
            200,
            (3, 64, 64),
            read_tiny_imagenet,
            ("tiny-imagenet-200",),
            obtain="https://cs231n.stanford.edu/tiny-imagenet-200.zip",
        ),
    )
}
NAMES = tuple(SOURCES)


def source_of(name: str) -> Source:
    """What is known of the dataset `name`; raises InputError for an unknown name, with the nearest known one."""
    if name not in SOURCES:
        raise InputError(f"unknown dataset {name}{nearest(name, NAMES)} (known: {', '.join(NAMES)})")
    return SOURCES[name]


def load(name: str, root: str | None = None) -> Dataset:
    """The dataset `name` from the folder `root` (None: RAYMC_DATA, else the user's cache folder).

    Raises InputError for an unknown name, and for files that are missing, torn or not what they should be.
    """
    return source_of(name).load(data_root(root))
