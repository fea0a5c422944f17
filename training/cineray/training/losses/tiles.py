"""Contrastive loss over all rows of all ranks, one tile of the similarity matrix at a time.

Rows are this rank's brains; columns, the stimuli of all ranks, travel once around the ring of ranks. No rank ever
holds more than one tile of the matrix and one other rank's columns, and nothing is recomputed twice. The gradient is
worked out in the forward pass, so the backward pass communicates nothing and cannot collide with the collectives
that DDP, FSDP or ZeRO issue there.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from cineray.training.world import World

__all__ = ["SoftTargets", "StimulusTargets", "Targets", "contrastive", "travel"]

TILE = 1024
"""Rows and columns of a tile: 4 MB in fp32, within a CPU's cache; the loss needs a handful of them."""

Visit = Callable[[list[Tensor]], None]


class Targets(Protocol):
    """Which columns a row should choose, and which rows a column."""

    columns: list[Tensor]
    """What must travel with this rank's columns, first axis columns."""

    def tile(self, rows: slice, keys: Tensor, columns: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Two (rows, columns) tables of weights: of columns within each row, and of rows within each column."""
        ...


def contrastive(
    queries: Tensor, keys: Tensor, targets: Targets, temperature: float, world: World, tile: int = TILE
) -> Tensor:
    """This rank's share of the **sum** over rows of the mean of both directions' cross-entropies.

    With S = queries keysᵀ / temperature over all ranks, W and V the targets' weights: rows give
    logsumexp_j S_ij - Σ_j W_ij S_ij, columns m_j logsumexp_i S_ij - Σ_i V_ij S_ij with m_j = Σ_i V_ij.

    Args:
        queries: (rows, dim) of this rank; ranks may have different numbers of rows, or none.
        keys: (rows, dim), row i belonging to query i.
        targets: the weights.
        temperature: divides the products.
        world: the ranks.
        tile: rows and columns at a time.

    The gradient is that of the sum of all ranks' shares; every rank must scale its share by the same factor.
    """
    return _Contrastive.apply(queries, keys, targets, temperature, world, tile)  # type: ignore[return-value]


class _Contrastive(torch.autograd.Function):
    @staticmethod
    def forward(ctx, queries, keys, targets, temperature, world, tile):
        """Both passes; the gradients wait in ``ctx``."""
        problem = _Problem(queries, keys, targets, temperature, world, tile)
        loss = problem.loss()
        if any(ctx.needs_input_grad[:2]):
            ctx.save_for_backward(*problem.gradients(of_keys=ctx.needs_input_grad[1]))
        return loss

    @staticmethod
    def backward(ctx, grad):
        """Scale what the forward pass found."""
        grad_queries, grad_keys = ctx.saved_tensors
        return grad * grad_queries, None if grad_keys is None else grad * grad_keys, None, None, None, None


class _Problem:
    """One evaluation: the logsumexps of the first pass are what the second needs."""

    def __init__(
        self, queries: Tensor, keys: Tensor, targets: Targets, temperature: float, world: World, tile: int
    ) -> None:
        self.queries, self.keys, self.targets, self.world, self.tile = queries, keys, targets, world, tile
        self.temperature = temperature
        self.row_lse = queries.new_full((len(queries),), -torch.inf)

    def loss(self) -> Tensor:
        """First pass: logsumexp of each row and column, and the weighted sum of S."""
        agreement = self.queries.new_zeros(())

        def visit(payload: list[Tensor]) -> None:
            col_lse, mass, keys, *extra = payload
            for rows, cols in self._tiles(len(keys)):
                logits = (self.queries[rows] @ keys[cols].T).div_(self.temperature)
                within_row, within_col = self.targets.tile(rows, keys[cols], [x[cols] for x in extra])
                self.row_lse[rows] = torch.logaddexp(self.row_lse[rows], logits.logsumexp(1))
                col_lse[cols] = torch.logaddexp(col_lse[cols], logits.logsumexp(0))
                mass[cols] += within_col.sum(0)
                agreement.add_(((within_row + within_col) * logits).sum())

        start = [torch.full_like(self.row_lse, -torch.inf), torch.zeros_like(self.row_lse)]
        self.col_lse, self.mass = travel(start, [self.keys, *self.targets.columns], visit, self.world)
        # A rank without rows has empty sums here; its columns' share is its own.
        return (self.row_lse.sum() + (self.mass * self.col_lse).sum() - agreement) / 2

    def gradients(self, *, of_keys: bool) -> tuple[Tensor, Tensor | None]:
        """Second pass: dL/dS a tile at a time, carried to the queries and, where they learn, to the keys."""
        grad_queries = torch.zeros_like(self.queries)
        start = [torch.zeros_like(self.keys)] if of_keys else []
        half = 0.5 / self.temperature  # of each direction, with respect to the products

        def visit(payload: list[Tensor]) -> None:
            grad_keys, (col_lse, mass, keys, *extra) = payload[: len(start)], payload[len(start) :]
            for rows, cols in self._tiles(len(keys)):
                logits = (self.queries[rows] @ keys[cols].T).div_(self.temperature)
                within_row, within_col = self.targets.tile(rows, keys[cols], [x[cols] for x in extra])
                slope = (logits - self.row_lse[rows, None]).exp_()
                slope += (logits - col_lse[cols]).exp_() * mass[cols]
                slope -= within_row
                slope -= within_col
                grad_queries[rows].addmm_(slope, keys[cols], alpha=half)
                for grad in grad_keys:
                    grad[cols].addmm_(slope.T, self.queries[rows], alpha=half)

        home = travel(start, [self.col_lse, self.mass, self.keys, *self.targets.columns], visit, self.world)
        return grad_queries, home[0] if of_keys else None

    def _tiles(self, num_columns: int) -> Iterator[tuple[slice, slice]]:
        for row in range(0, len(self.queries), self.tile):
            for col in range(0, num_columns, self.tile):
                yield slice(row, row + self.tile), slice(col, col + self.tile)


class StimulusTargets:
    """Hard targets: the columns that show a row's stimulus, in equal parts (several rows may have seen the same).

    A mixed row (`cineray.training.mixing`) gives ``share`` to its own stimulus and the rest to its partner's. The
    weights of columns are the same table: the "transposed target" of BiMixCo.
    """

    def __init__(self, stimulus: Tensor, partner: Tensor, share: Tensor, world: World, tile: int = TILE) -> None:
        """All (rows,): stimulus numbers (equal means the same, over all ranks), the partners', and the shares."""
        self.columns = [stimulus]
        self.own = stimulus
        self.partner = partner
        counts = torch.zeros(2, len(stimulus), dtype=share.dtype, device=share.device)

        def visit(payload: list[Tensor]) -> None:
            for row in range(0, len(stimulus), tile):
                rows = slice(row, row + tile)
                for part in payload[0].split(tile):
                    counts[0, rows] += (stimulus[rows, None] == part).sum(1)
                    counts[1, rows] += (partner[rows, None] == part).sum(1)

        travel([], [stimulus], visit, world)
        self.own_weight = share / counts[0]
        self.partner_weight = (1 - share) / counts[1]

    def tile(self, rows: slice, keys: Tensor, columns: list[Tensor]) -> tuple[Tensor, Tensor]:
        """See `Targets`."""
        weights = (self.own[rows, None] == columns[0]) * self.own_weight[rows, None]
        weights += (self.partner[rows, None] == columns[0]) * self.partner_weight[rows, None]
        return weights, weights


class SoftTargets:
    """Soft targets: softmax(keys keysᵀ / temperature), the stimuli's own likeness."""

    def __init__(self, keys: Tensor, temperature: float, world: World, tile: int = TILE) -> None:
        self.keys = keys.detach() / temperature
        lse = keys.new_full((len(keys),), -torch.inf)

        def visit(payload: list[Tensor]) -> None:
            for row in range(0, len(keys), tile):
                rows = slice(row, row + tile)
                for part in payload[0].split(tile):
                    lse[rows] = torch.logaddexp(lse[rows], (self.keys[rows] @ part.T).logsumexp(1))

        travel([], [keys.detach()], visit, world)
        self.columns = [lse]

    def tile(self, rows: slice, keys: Tensor, columns: list[Tensor]) -> tuple[Tensor, Tensor]:
        """See `Targets`."""
        likeness = self.keys[rows] @ keys.T
        return (likeness - self.columns[0][rows, None]).exp_(), (likeness - columns[0]).exp_()


def travel(sums: list[Tensor], columns: list[Tensor], visit: Visit, world: World) -> list[Tensor]:
    """Show every rank's payload, ``sums`` and then ``columns``, to every rank.

    What ``visit`` adds to the sums in place comes home with them; the columns, which do not change, stay where they
    went last. All have one first axis; its length may differ between ranks.
    """
    lengths = world.lengths(len(columns[0]))
    payload = [x.contiguous() for x in (*sums, *columns)]
    for hop in range(world.size):
        visit(payload)
        last = hop == world.size - 1
        payload = _pass_on(
            payload[: len(sums)] if last else payload, lengths[(world.rank + hop + 1) % world.size], world
        )
    return payload


def _pass_on(payload: list[Tensor], incoming_rows: int, world: World) -> list[Tensor]:
    """Hand the payload to the rank before and take that of the rank behind."""
    if world.size == 1:
        return payload
    incoming = [x.new_empty((incoming_rows, *x.shape[1:])) for x in payload]
    before, behind = (world.rank - 1) % world.size, (world.rank + 1) % world.size
    sends = [dist.P2POp(dist.isend, x, before) for x in payload if x.numel()]
    receives = [dist.P2POp(dist.irecv, x, behind) for x in incoming if x.numel()]
    for work in dist.batch_isend_irecv(sends + receives) if sends or receives else []:
        work.wait()
    return incoming
