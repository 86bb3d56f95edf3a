"""From what the user has to what the network takes: fitted on the training rows, exported inside the graph.

    module = fit(data, train)         # a torch module: forward(*tensors) → float32 [N, *input_shape]
    module.encode(data.inputs)        # arrays of the data set → those tensors
    module.names, module.inputs       # the graph's inputs in order, and their lines of the signature
    module.vocabularies, glue(module, onnx_model)    # text columns: the LabelEncoders before the exported graph

It knows data sets and torch, no network and no loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from training.data.rows import Data, Indices
from training.preprocess.image import ImagePreprocess
from training.preprocess.image import fit as fit_image
from training.preprocess.tabular import ColumnsPreprocess, FeaturesPreprocess, fit_columns, fit_features

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["Preprocess", "fit", "glue"]

Preprocess: TypeAlias = ImagePreprocess | FeaturesPreprocess | ColumnsPreprocess


def fit(data: Data, train: Indices) -> Preprocess:
    """Statistics of the rows `train` only."""
    if data.modality == "image":
        return fit_image(data, train)
    if data.inputs.keys() == {"features"} and data.input_columns[0].shape is not None:
        return fit_features(data, train)
    return fit_columns(data, train)


def glue(module: Preprocess, model: ModelProto) -> ModelProto:
    """The exported graph with what torch cannot do before it: the numbering of texts."""
    from training.preprocess.labels import glue as glue_labels

    return glue_labels(model, module.vocabularies)
