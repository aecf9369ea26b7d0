"""What runs a pipeline's U-Net and autoencoder: PyTorch as it is, with channels last, compiled, or OpenVINO.

An engine changes no picture but in its last bits, and these are the same for the same row, whatever it is
drawn with.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import did_you_mean
from ...core.packages import missing
from ..errors import DecoderError

__all__ = ["ENGINES", "ChannelsLast", "Compiled", "Engine", "OpenVino", "make_engine"]

SHAPES = 64  # of a block's inputs, at most; PyTorch compiles anew for each and gives up after eight
COMPILERS = ("c++", "g++", "clang++", "cl")


class Engine:
    """A pipeline's networks on a device, operation by operation.

    `multiplies_in` is the type of float32 networks' matrix products, where it is another one.
    """

    differentiable = True

    def __init__(self, pipeline: Any, device: torch.device, multiplies_in: torch.dtype | None = None) -> None:
        self.unet, self.vae = pipeline.unet, pipeline.vae
        self.device, self.multiplies_in = device, multiplies_in

    @property
    def side_by_side(self) -> bool:
        """Whether several threads may call it at once, and gain by it."""
        return self.device.type == "cpu"

    def running(self) -> AbstractContextManager[object]:
        """Within the block all calls share what is prepared for them, as weights in another type."""
        if self.multiplies_in is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.multiplies_in)

    def predict(self, latents_BFHW: Tensor, time: Tensor, states_BLD: Tensor, **more: Any) -> Tensor:
        """What the U-Net predicts for latents of one time, under prompts; `more` are its other arguments."""
        with self.running():
            prediction: Tensor = self.unet(
                latents_BFHW, time, encoder_hidden_states=states_BLD, **more
            ).sample
        return prediction

    def encode(self, images_B3HW: Tensor) -> Tensor:
        """The autoencoder's latents of images in [-1, 1]: a VAE's mean, and a tiny autoencoder's own."""
        with self.running():
            output = self.vae.encode(images_B3HW)
        latents: Tensor = output.latent_dist.mean if hasattr(output, "latent_dist") else output.latents
        return latents

    def decode(self, latents_BFHW: Tensor) -> Tensor:
        """Images of the autoencoder's latents, about [-1, 1]."""
        with self.running():
            images: Tensor = self.vae.decode(latents_BFHW).sample
        return images


class ChannelsLast(Engine):
    """Convolutions with a pixel's channels beside each other in memory, as tensor cores take them."""

    def __init__(self, pipeline: Any, device: torch.device, multiplies_in: torch.dtype | None = None) -> None:
        super().__init__(pipeline, device, multiplies_in)
        for network in (self.unet, self.vae):
            network.to(memory_format=torch.channels_last)


class Compiled(ChannelsLast):
    """Channels last, and the U-Net's repeated blocks compiled: once for each shape, when it is first met."""

    def __init__(self, pipeline: Any, device: torch.device, multiplies_in: torch.dtype | None = None) -> None:
        if device.type == "cuda" and find_spec("triton") is None:
            raise DecoderError("The engine 'compiled' needs triton on CUDA, which is not installed.")
        if not any(map(shutil.which, COMPILERS)):
            raise DecoderError(
                "The engine 'compiled' needs a C++ compiler, and none is found. Install one, or draw with "
                "another engine."
            )
        super().__init__(pipeline, device, multiplies_in)
        self.unet.compile_repeated_blocks(dynamic=False)

    def predict(self, latents_BFHW: Tensor, time: Tensor, states_BLD: Tensor, **more: Any) -> Tensor:
        with torch._dynamo.config.patch(recompile_limit=SHAPES):
            return super().predict(latents_BFHW, time, states_BLD, **more)

    @property
    def side_by_side(self) -> bool:
        return False


class OpenVino(Engine):
    """OpenVINO on a CPU. Each network is converted when it is first called, and made ready for each shape."""

    differentiable = False

    def __init__(self, pipeline: Any, device: torch.device, multiplies_in: torch.dtype | None = None) -> None:
        if device.type != "cpu":
            raise DecoderError(f"The engine 'openvino' draws on a CPU, not on {device}.")
        if find_spec("openvino") is None:
            raise DecoderError(missing("The engine 'openvino'", "openvino", "openvino"))
        super().__init__(pipeline, device, multiplies_in)
        self._converted: dict[str, Any] = {}
        self._ready: dict[tuple[str, tuple[torch.Size, ...]], Any] = {}

    @property
    def side_by_side(self) -> bool:
        return False

    def running(self) -> AbstractContextManager[object]:
        return nullcontext()

    def predict(self, latents_BFHW: Tensor, time: Tensor, states_BLD: Tensor, **more: Any) -> Tensor:
        added = more.pop("added_cond_kwargs", None) or {}
        if "timestep_cond" in more:
            raise DecoderError("The engine 'openvino' does not draw with a U-Net that is told its guidance.")

        def unet(latents: Tensor, time: Tensor, states: Tensor, *values: Tensor) -> Tensor:
            named = dict(zip(added, values, strict=True)) or None
            output: Tensor = self.unet(
                latents, time, encoder_hidden_states=states, added_cond_kwargs=named, return_dict=False
            )[0]
            return output

        return self._run(self.unet, "U-Net", unet, latents_BFHW, time, states_BLD, *added.values())

    def encode(self, images_B3HW: Tensor) -> Tensor:
        return self._run(self.vae, "encoder", super().encode, images_B3HW)

    def decode(self, latents_BFHW: Tensor) -> Tensor:
        return self._run(self.vae, "decoder", super().decode, latents_BFHW)

    def _run(self, network: nn.Module, part: str, work: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        key = part, tuple(x.shape for x in inputs)
        if key not in self._ready:
            self._ready[key] = self._made_ready(part, _Traced(network, work), inputs)
        outputs = self._ready[key]([x.contiguous().numpy() for x in inputs], share_inputs=True)
        return torch.from_numpy(outputs[0])

    def _made_ready(self, part: str, traced: _Traced, inputs: tuple[Tensor, ...]) -> Any:
        import openvino

        if part not in self._converted:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # tracing warns of sizes, which are fixed here
                self._converted[part] = openvino.convert_model(traced, example_input=inputs)
        model = self._converted[part]
        model.reshape(dict(enumerate(list(x.shape) for x in inputs)))
        options = {
            "INFERENCE_PRECISION_HINT": "f32" if self.multiplies_in is None else "bf16",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        return openvino.Core().compile_model(model, "CPU", options)


class _Traced(nn.Module):
    """What a network does to tensors, as a module, which OpenVINO converts."""

    def __init__(self, network: nn.Module, work: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network, self.work = network, work

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.work(*inputs)


ENGINES: dict[str, type[Engine]] = {
    "eager": Engine,
    "channels_last": ChannelsLast,
    "compiled": Compiled,
    "openvino": OpenVino,
}


def make_engine(
    name: str, pipeline: Any, device: torch.device, multiplies_in: torch.dtype | None = None
) -> Engine:
    """The engine called `name`.

    Raises DecoderError for one that is not there, with the nearest name, or that the machine cannot run.
    """
    if name not in ENGINES:
        raise DecoderError(
            f"No engine is called {name!r}.{did_you_mean(name, ENGINES)} There are: {', '.join(ENGINES)}."
        )
    return ENGINES[name](pipeline, device, multiplies_in)
