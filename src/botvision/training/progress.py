"""What a person sees while a run goes on: one bar for the running epoch, one line for each that is done."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
from tqdm.auto import tqdm

BARS_PER_SECOND = 5


def say(text: str) -> None:
    """Writes a line to the error stream, above a bar where there is one."""
    tqdm.write(text, file=sys.stderr)


def epoch_line(row: Mapping[str, float], found: str, epochs: int, best: bool) -> str:
    """Returns the line of a finished epoch: its row of metrics.csv, and what the validation found."""
    width = len(str(epochs))
    return (
        f"epoch {row['epoch']:>{width}}/{epochs}  loss {row['train_loss']:.4f}  {found}  "
        f"{row['seconds']:.1f} s" + ("  best" if best else "")
    )


class EpochBar(pl.Callback):
    """A bar that counts the batches of the epoch, and vanishes with it; silent where the stream is no
    terminal.

    Args:
        epochs: of the whole run.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._bar: tqdm[Any] | None = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Moves the bar."""
        bar = self._bar
        if bar is None:
            bar = self._open(trainer, "train", int(trainer.num_training_batches))
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        bar.update(done - bar.n)
        meter: Any = pl_module.meter
        if meter.images:
            bar.set_postfix_str(f"loss {meter.mean():.4f}", refresh=False)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Changes to a bar of the validation."""
        self._close()
        self._open(trainer, "val", int(sum(trainer.num_val_batches)))

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the bar away."""
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Takes the bar away before an error is shown."""
        self._close()

    def _open(self, trainer: pl.Trainer, what: str, total: int) -> "tqdm[Any]":
        label = f"epoch {trainer.current_epoch + 1}/{self._epochs} {what}"
        self._bar = tqdm(
            total=total,
            desc=label,
            leave=False,
            disable=None,
            mininterval=1 / BARS_PER_SECOND,
            dynamic_ncols=True,
        )
        return self._bar

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Lightning's tips and notices off the terminal, and leaves loggers and filters as they were."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        warnings.filterwarnings("ignore", message=r".*LeafSpec.*")
        warnings.filterwarnings("ignore", message=r".*set_vital.*")  # torchdata against a newer torch
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
