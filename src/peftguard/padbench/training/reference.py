"""The plain road: one adapter, peft's model, a straightforward loop in float32.

Fleets are tested to equal it. It computes what peft computes, with the same first parameters and
the same batches.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch

from peftguard.padbench.recipe import Method, Recipe
from peftguard.padbench.training.base import LoadedBase
from peftguard.padbench.training.batches import IGNORED, TextRow, encode, pad, padded, schedule
from peftguard.padbench.training.initial import initial_parts
from peftguard.padbench.training.layout import layout, saved_names, targets
from peftguard.padbench.training.nf4 import round_linears
from peftguard.padbench.training.peft_config import initial_rank, peft_config
from peftguard.padbench.training.stack import BETAS, EPSILON, MAX_NORM
from peftguard.padbench.training.trained import TrainedAdapter


def train_reference(
    recipe: Recipe, rows: Sequence[TextRow], base: LoadedBase, *, device: str = "cpu"
) -> TrainedAdapter:
    """Train one adapter with peft, float32. Arguments and errors as of `train_fleet`."""
    start = time.perf_counter()
    encoded = encode(rows, base.tokenizer, recipe.max_tokens, causal=base.n_labels is None)
    model = started(recipe, base, device)
    optimizer = optimizer_of(recipe, model)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / recipe.steps)
    losses = []
    order = schedule(encoded.lengths, recipe.batch_size, recipe.steps, recipe.seed)
    for step, batch in enumerate(order):
        tokens, mask = padded([encoded.tokens[row] for row in batch])
        labels, _ = pad([encoded.labels[row] for row in batch], IGNORED)
        labels = labels if base.n_labels is None else labels.squeeze(1)
        inputs = {"input_ids": tokens, "attention_mask": mask, "labels": labels}
        loss = model(**{name: tensor.to(device) for name, tensor in inputs.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        falling.step()
        if recipe.method is Method.ADALORA:
            model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
        losses.append(loss.item())
    last = losses[-max(1, recipe.steps // 10) :]
    return _trained(recipe, base, model, sum(last) / len(last), time.perf_counter() - start)


def started(recipe: Recipe, base: LoadedBase, device: str = "cpu") -> Any:
    """The model that peft makes of a recipe, with the first parameters of a fleet's member."""
    from peft import get_peft_model, set_peft_model_state_dict

    model = copy.deepcopy(base.model).to(device)
    if recipe.method is Method.QLORA:
        round_linears(model.base_model)
    linears = targets(model, recipe.target_modules, recipe.layers)
    head = None if base.head is None else (base.head, getattr(model, base.head))
    own = layout(recipe.method, linears, initial_rank(recipe), head)
    parts = initial_parts(own, linears, recipe.seed, model.config.initializer_range)
    adapted = get_peft_model(model, peft_config(recipe, task_type=base.task_type))
    set_peft_model_state_dict(adapted, saved_names(parts, recipe.method, own.head))
    return adapted.eval()


def optimizer_of(recipe: Recipe, model: Any) -> torch.optim.Optimizer:
    """AdamW without decay, or peft's own for LoRA+."""
    settings: dict[str, Any] = {"lr": recipe.lr, "betas": BETAS, "eps": EPSILON}
    if recipe.method is Method.LORA_PLUS:
        from peft.optimizers import create_loraplus_optimizer

        return create_loraplus_optimizer(
            model, torch.optim.AdamW, loraplus_lr_ratio=recipe.lr_ratio, **settings
        )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, weight_decay=0.0, **settings)


def _trained(
    recipe: Recipe, base: LoadedBase, model: Any, loss: float, seconds: float
) -> TrainedAdapter:
    from peft import get_peft_model_state_dict

    # Given a state dict, peft neither asks the hub about embeddings nor doubts modules of rank 0.
    saved = get_peft_model_state_dict(model, model.state_dict(), save_embedding_layers=False)
    tensors = {name: tensor.detach().float().cpu().clone() for name, tensor in saved.items()}
    pattern = None
    if recipe.method is Method.ADALORA:
        pattern = dict(model.peft_config["default"].rank_pattern)
    names = base.hub_id, base.task_type
    return TrainedAdapter(recipe, *names, tensors, pattern, loss, seconds)
