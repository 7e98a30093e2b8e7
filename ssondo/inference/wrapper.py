"""The interface of the published package: its models and classifiers by name, ready to use.

model = get_ssondo("matpac-mobilenetv3")                 # downloads the published weights
embeddings = model.get_embeddings(waveforms)             # (batch, samples) at 32 kHz -> (batch, 960)

No rule of the workflow imports this module, so an edit of it makes no job run again.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from torch import Tensor, nn

from ssondo.errors import SsondoError, TransientError
from ssondo.storage.weights import load_strictly, load_weights
from ssondo.students.backbone import Backbone
from ssondo.students.checkpoint import load_student
from ssondo.students.student import Student
from ssondo.system.device import resolve_device
from ssondo.system.registry import did_you_mean

_HUB = "mohammedali2501/ssondo"
_TEACHERS = {"matpac": "MATPAC++", "m2d": "M2D"}
_STUDENTS = {"mobilenetv3": "MobileNetV3", "dymn": "DyMN", "eres2net": "ERes2Net"}
# Description and number of classes of each classifier; the key is also the name of its file under heads/.
_HEADS = {
    "esc50": ("environmental sounds (ESC-50)", 50),
    "us8k": ("urban sounds (UrbanSound8K)", 10),
    "fsd50k": ("sound events (FSD50K)", 200),
    "gtzan": ("music genres (GTZAN)", 10),
    "openmic": ("instruments in music (OpenMIC-2018)", 20),
    "nsynth": ("instrument families (NSynth)", 11),
    "magna-tag-a-tune": ("music tags (MagnaTagATune)", 50),
}


def list_models() -> dict[str, str]:
    """Return the names of the published models for `get_ssondo`, each with a description."""
    return {
        f"{teacher}-{student}": f"{student_name} distilled from {teacher_name}"
        for teacher, teacher_name in _TEACHERS.items()
        for student, student_name in _STUDENTS.items()
    }


def list_heads() -> dict[str, str]:
    """Return the names of the published classifiers for `get_ssondo(head=...)`, each with a description."""
    return {name: f"{description}, {n_classes} classes" for name, (description, n_classes) in _HEADS.items()}


def _from_hub(file: str, argument: str) -> Path:
    """Return the path of a file of the published repository, from the local cache or after a download."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    url = f"https://huggingface.co/{_HUB}/resolve/main/{file}"
    try:
        return Path(hf_hub_download(_HUB, file))
    except LocalEntryNotFoundError:
        raise TransientError(
            f"{file} is not in the local cache and {_HUB} on the Hugging Face hub cannot be reached; download {url} on "
            f"another machine, copy it here and pass its path: get_ssondo({argument}='path/to/{Path(file).name}')"
        ) from None
    except EntryNotFoundError:
        raise SsondoError(f"{url}: this file is not published; pass the path of a local checkpoint instead") from None
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TransientError(
            f"{url}: cannot be downloaded ({reason}); try again later, or download the file otherwise and pass its "
            f"path: get_ssondo({argument}='path/to/{Path(file).name}')"
        ) from None


def _checkpoint_path(checkpoint: str | PathLike[str]) -> Path:
    """Return the path of a local file, or of the published model of that name."""
    path = Path(checkpoint)
    if path.is_file():
        return path
    name = str(checkpoint)
    if name not in list_models():
        raise SsondoError(
            f"{name!r} is neither a file nor a published model; the published models are {', '.join(list_models())}"
            f"{did_you_mean(name, list_models())}"
        )
    return _from_hub(f"{name.replace('-', '_')}.ckpt", "checkpoint")


def _published_head(head: str, embedding_dim: int, trust_checkpoint: bool) -> nn.Linear:
    path = Path(head)
    if not path.is_file():
        if head not in _HEADS:
            raise SsondoError(
                f"head {head!r} is neither 'linear', 'mlp', a file, nor one of {', '.join(_HEADS)}"
                f"{did_you_mean(head, _HEADS)}"
            )
        path = _from_hub(f"heads/{head}.pth", "head")
    state = load_weights(path, trust_checkpoint)
    prefix = "probe.linear_probe."
    try:
        weights = {name: state[prefix + name] for name in ("weight", "bias")}
    except (KeyError, TypeError, IndexError):
        raise SsondoError(
            f"{path}: this file is not a classifier; it has no {prefix}weight or no {prefix}bias"
        ) from None
    layer = nn.Linear(embedding_dim, len(weights["bias"]))
    load_strictly(path, layer, weights, f"a classifier of {embedding_dim}-dimensional embeddings")
    return layer


def _build_head(
    head: str, embedding_dim: int, n_classes: int | None, hidden_sizes: Sequence[int] | None, trust_checkpoint: bool
) -> nn.Module:
    if head not in ("linear", "mlp"):
        return _published_head(head, embedding_dim, trust_checkpoint)
    if n_classes is None:
        raise ValueError(f"n_classes is required with head={head!r}")
    if head == "linear":
        return nn.Linear(embedding_dim, n_classes)
    layers: list[nn.Module] = []
    width = embedding_dim
    for hidden in hidden_sizes or [512]:
        layers += [nn.Linear(width, hidden), nn.ReLU()]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, n_classes))


def _check_waveforms(waveforms: Tensor) -> Tensor:
    """Return floating-point waveforms of shape (batch, samples); int16 samples would be 32,768 times too loud."""
    if not isinstance(waveforms, Tensor):
        name = f"{type(waveforms).__module__}.{type(waveforms).__name__}".removeprefix("builtins.")
        raise SsondoError(f"the waveforms are of type {name}; give a tensor: torch.as_tensor(waveforms)")
    if not waveforms.is_floating_point():
        raise SsondoError(
            f"the waveforms are of {waveforms.dtype}; give floating point from -1 to 1 (int16 divided by 32768)"
        )
    if waveforms.dim() not in (1, 2) or waveforms.shape[-1] == 0:
        raise SsondoError(
            f"the waveforms have shape {tuple(waveforms.shape)}; they must be mono, of shape (batch, samples) or "
            "(samples,), and not empty"
        )
    return waveforms[None] if waveforms.dim() == 1 else waveforms


class SsondoWrapper(nn.Module):
    """A student with the interface of the published package, from waveforms to embeddings or logits.

    Args:
        student_model: The student.
        return_logits: Whether `forward` returns logits and embeddings; see there.
        head: Classifier of embeddings, (batch, embedding_dim) -> (batch, n_classes).
    """

    def __init__(self, student_model: Student, return_logits: bool = False, head: nn.Module | None = None) -> None:
        super().__init__()
        self.student_model = student_model
        self.return_logits = return_logits
        self.head = head

    @property
    def embedding_dim(self) -> int:
        """Size of an embedding."""
        return self.student_model.embedding_dim

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveforms in Hz."""
        return self.student_model.sample_rate

    @property
    def backbone(self) -> Backbone:
        """The student without its mapping head."""
        return self.student_model.model

    def freeze_backbone(self) -> None:
        """Exclude the student, with its batch statistics, from training; a head remains trainable."""
        self._set_trainable(False)

    def unfreeze_backbone(self) -> None:
        """Undo `freeze_backbone`."""
        self._set_trainable(True)

    def _set_trainable(self, trainable: bool) -> None:
        self.student_model.requires_grad_(trainable)
        self.train(self.training)

    def train(self, mode: bool = True) -> "SsondoWrapper":
        """Set the mode; a frozen student stays in evaluation mode, so that its embeddings do not change."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.student_model.parameters()):
            self.student_model.eval()
        return self

    def preprocess(self, x: Tensor) -> Tensor:
        """Compute log-mels, (batch, windows, mels, frames), of waveforms, (batch, samples) or (samples,).

        Raises:
            SsondoError: if `x` is not a tensor, has another shape, is empty or is not floating point.
        """
        return self.student_model.log_mel(_check_waveforms(x))

    def get_embeddings(self, x: Tensor) -> Tensor:
        """Embed waveforms, shape (batch, samples) or (samples,), averaged over windows: (batch, embedding_dim)."""
        return self.student_model.embed_windows(self.preprocess(x)).mean(1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Run the model on mono audio of any length.

        Args:
            x: Waveforms at `sample_rate`, floating point, shape (batch, samples) or (samples,).

        Returns:
            Without a head: the embeddings of the windows, (batch, windows, embedding_dim); with `return_logits` a pair
            of these and the outputs of the mapping head averaged over windows, (batch, n_outputs).
            With a head: logits, (batch, n_classes); with `return_logits` a pair of these and the embeddings averaged
            over windows, (batch, embedding_dim).
        """
        if self.head is not None:
            embeddings = self.get_embeddings(x)
            logits = self.head(embeddings)
            return (logits, embeddings) if self.return_logits else logits
        embeddings = self.student_model.embed_windows(self.preprocess(x))
        if self.return_logits:
            return embeddings, self.student_model.classification_head(embeddings)
        return embeddings


def get_ssondo(
    checkpoint: str | PathLike[str] = "matpac-mobilenetv3",
    head: str | None = None,
    n_classes: int | None = None,
    hidden_sizes: Sequence[int] | None = None,
    return_logits: bool = False,
    device: str = "cpu",
    trust_checkpoint: bool = False,
) -> SsondoWrapper:
    """Load a trained student, with the interface of the published package.

    Args:
        checkpoint: Name of a published model (see `list_models`), which is downloaded from the Hugging Face hub and
            cached there; or the path of a checkpoint, published or written by `save_student`.
        head: Classifier of the embeddings: "linear" or "mlp" with random weights, the name of a published classifier
            (see `list_heads`), or the path of its file. None for no classifier.
        n_classes: Number of classes of a "linear" or "mlp" head.
        hidden_sizes: Widths of the hidden layers of an "mlp" head; None for one layer of 512.
        return_logits: See `SsondoWrapper.forward`.
        device: A torch device, or "auto" for a GPU if there is one.
        trust_checkpoint: See `ssondo.storage.weights.load_weights`.

    Returns:
        The model in evaluation mode.

    Raises:
        SsondoError: if a file cannot be downloaded or read, or the device cannot be used.
        ValueError: if `n_classes` is missing.

    Example:
        >>> model = get_ssondo(head="esc50")
        >>> model(torch.zeros(1, 320_000)).shape
        torch.Size([1, 50])
    """
    torch_device = resolve_device(device)
    student = load_student(_checkpoint_path(checkpoint), trust_checkpoint=trust_checkpoint)
    classifier = (
        None if head is None else _build_head(head, student.embedding_dim, n_classes, hidden_sizes, trust_checkpoint)
    )
    return SsondoWrapper(student, return_logits, classifier).to(torch_device).eval()
