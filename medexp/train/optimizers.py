"""Keras' and TensorFlow 1's forms of SGD, Adam and RMSprop, where PyTorch's differ.

With w a weight, g its gradient and lr the rate of this step:

SGD      v <- momentum v - lr g;  w <- w + v                     (PyTorch: lr outside of v)
Adam     w <- w - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)   (PyTorch: eps is added to
         the corrected root; here it is "epsilon hat" of Kingma and Ba 2015, before section 2.1)
RMSprop  w <- w - lr g / sqrt(s + eps)  or  lr g / (sqrt(s) + eps)     (PyTorch: the latter)

For all three: parameters are dense float32 or float64 tensors on one device, and one without a
gradient is skipped. `lr` is read from `param_groups` at each step: a number, or a 0-dim tensor on
the parameters' device that the caller changes in place. With a tensor, `step` can be captured in a
CUDA graph once one step outside of it has made the state. No step reads from the device. There is
no weight decay: Keras' L2 is a term of the loss. All raise ConfigError for a value out of range.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from medexp.errors import ConfigError


class SGD(Optimizer):
    """Keras' SGD: a velocity of past steps, so that a changed rate acts on new gradients only.

    The momentum of PyTorch and of TensorFlow 1 scales the whole velocity by the present rate; the
    forms agree while the rate is constant. Source: `keras.optimizers.SGD`.

    Args:
        lr: learning rate, >= 0.
        momentum: share of the velocity that is kept, in [0, 1].
        nesterov: w <- w + momentum v - lr g, with the v of this step.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        _require(float(lr) >= 0, "lr", lr, "must be 0 or more")
        _require(0 <= momentum <= 1, "momentum", momentum, "must be a number in [0, 1]")
        _require(
            momentum > 0 or not nesterov, "nesterov", nesterov, "must be false without a momentum"
        )
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update every parameter from its gradient; returns the value of `closure`, if given."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            params, grads = _with_gradient(group)
            if not params:
                continue
            steps = torch._foreach_mul(grads, group["lr"])
            if group["momentum"] > 0:
                velocity = _slot(self, params, "velocity")
                torch._foreach_mul_(velocity, group["momentum"])
                torch._foreach_sub_(velocity, steps)
                if group["nesterov"]:
                    torch._foreach_add_(params, velocity, alpha=group["momentum"])
                    torch._foreach_sub_(params, steps)
                else:
                    torch._foreach_add_(params, velocity)
            else:
                torch._foreach_sub_(params, steps)
        return loss


class Adam(Optimizer):
    """Keras' and TensorFlow 1's Adam, with epsilon hat. Source: `keras.optimizers.Adam`.

    m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2. As in Keras, t counts the
    optimizer's steps, also for a parameter that is thawed later (PyTorch: each parameter's own).

    Args:
        lr: learning rate, >= 0.
        beta1, beta2: shares of m and v that are kept, in [0, 1).
        eps: epsilon hat, >= 0. Keras: 1e-7; TensorFlow 1: 1e-8.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-7,
    ) -> None:
        _require(float(lr) >= 0, "lr", lr, "must be 0 or more")
        _require(0 <= beta1 < 1, "beta1", beta1, "must be a number in [0, 1)")
        _require(0 <= beta2 < 1, "beta2", beta2, "must be a number in [0, 1)")
        _require(eps >= 0, "eps", eps, "must be 0 or more")
        super().__init__(params, {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update every parameter from its gradient; returns the value of `closure`, if given."""
        loss = _evaluate(closure)
        count = self._next_count()
        for group in self.param_groups:
            params, grads = _with_gradient(group)
            if not params:
                continue
            m = _slot(self, params, "m")
            v = _slot(self, params, "v")
            torch._foreach_lerp_(m, grads, 1 - group["beta1"])
            torch._foreach_mul_(v, group["beta2"])
            torch._foreach_addcmul_(v, grads, grads, value=1 - group["beta2"])
            rate = _one_minus_power(group["beta2"], count).sqrt_() * group["lr"]
            rate.div_(_one_minus_power(group["beta1"], count))
            steps = torch._foreach_mul(m, rate)
            roots = torch._foreach_sqrt(v)
            torch._foreach_add_(roots, group["eps"])
            torch._foreach_addcdiv_(params, steps, roots, value=-1)
        return loss

    def _next_count(self) -> Tensor:
        """Steps including this one, float 0-dim on the parameters' device, advanced in place.

        It belongs to no parameter, so it has a key of its own in the state; PyTorch saves and
        restores such a key, but leaves its tensor on the device it was loaded to.
        """
        param = self.param_groups[0]["params"][0]
        state: dict[Any, Any] = self.state  # torch types its keys as tensors
        shared = state["shared"]
        count: Tensor = shared.get("count", torch.zeros(()))
        shared["count"] = count.to(param.device, param.dtype)
        advanced: Tensor = shared["count"].add_(1)
        return advanced


class RMSprop(Optimizer):
    """RMSprop as in Keras 3, Keras 2 and TensorFlow 1 (the files in conf/optimizer).

    s <- rho s + (1 - rho) g^2;  d = sqrt(s + eps) or sqrt(s) + eps;
    with momentum v <- momentum v + lr g / d and w <- w - v, else w <- w - lr g / d.
    Sources: `keras.optimizers.RMSprop`; `tf.compat.v1.train.RMSPropOptimizer`.

    Args:
        lr: learning rate, >= 0.
        rho: share of s that is kept, in [0, 1).
        momentum: share of the velocity that is kept, in [0, 1]; it holds scaled steps.
        eps: >= 0.
        eps_inside_root: d = sqrt(s + eps), else sqrt(s) + eps.
        initial: what s starts at, >= 0. Keras: 0; TensorFlow 1: 1.
        centered: s - mean(g)^2 in place of s under the root, with a mean like that of s.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        eps: float = 1e-7,
        eps_inside_root: bool = True,
        initial: float = 0.0,
        centered: bool = False,
    ) -> None:
        _require(float(lr) >= 0, "lr", lr, "must be 0 or more")
        _require(0 <= rho < 1, "rho", rho, "must be a number in [0, 1)")
        _require(0 <= momentum <= 1, "momentum", momentum, "must be a number in [0, 1]")
        _require(eps >= 0, "eps", eps, "must be 0 or more")
        _require(initial >= 0, "initial", initial, "must be 0 or more")
        defaults = {
            "lr": lr,
            "rho": rho,
            "momentum": momentum,
            "eps": eps,
            "eps_inside_root": eps_inside_root,
            "initial": initial,
            "centered": centered,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update every parameter from its gradient; returns the value of `closure`, if given."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            params, grads = _with_gradient(group)
            if not params:
                continue
            mean_square = _slot(self, params, "mean_square", group["initial"])
            torch._foreach_mul_(mean_square, group["rho"])
            torch._foreach_addcmul_(mean_square, grads, grads, value=1 - group["rho"])
            squares: list[Tensor] | tuple[Tensor, ...] = mean_square
            if group["centered"]:
                mean = _slot(self, params, "mean")
                torch._foreach_lerp_(mean, grads, 1 - group["rho"])
                squares = torch._foreach_sub(mean_square, torch._foreach_mul(mean, mean))
                # A variance near 0 can be rounded to below 0, and its root would be NaN.
                torch._foreach_clamp_min_(squares, 0.0)
            if group["eps_inside_root"]:
                roots = torch._foreach_add(squares, group["eps"])
                torch._foreach_sqrt_(roots)
            else:
                roots = torch._foreach_sqrt(squares)
                torch._foreach_add_(roots, group["eps"])
            steps = torch._foreach_mul(grads, group["lr"])
            torch._foreach_div_(steps, roots)
            if group["momentum"] > 0:
                velocity = _slot(self, params, "velocity")
                torch._foreach_mul_(velocity, group["momentum"])
                torch._foreach_add_(velocity, steps)
                torch._foreach_sub_(params, velocity)
            else:
                torch._foreach_sub_(params, steps)
        return loss


def _evaluate(closure: Callable[[], float] | None) -> float | None:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _with_gradient(group: dict[str, list[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """The group's parameters that have a gradient, and their gradients."""
    params = [p for p in group["params"] if p.grad is not None]
    return params, [p.grad for p in params if p.grad is not None]


def _slot(
    optimizer: Optimizer, params: list[Tensor], name: str, initial: float = 0.0
) -> list[Tensor]:
    """The state tensor `name` of each parameter, shaped like it and made at first use."""
    for p in params:
        if name not in optimizer.state[p]:
            optimizer.state[p][name] = torch.full_like(p, initial)
    return [optimizer.state[p][name] for p in params]


def _one_minus_power(beta: float, count: Tensor) -> Tensor:
    """1 - beta ** count, 0-dim. Through expm1: 1 - 0.999 in float32 is off by 5e-5 of itself."""
    return -torch.expm1(count * (math.log(beta) if beta > 0 else -math.inf))


def _require(ok: bool, key: str, value: object, remedy: str) -> None:
    if not ok:
        raise ConfigError(f"optimizer.{key}={value}: {remedy}")
