"""What a training or a preparation shows: a live bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from alexnet.claims.grid import GridProgress
    from alexnet.data.prepare import Progress
    from alexnet.evaluation import Evaluation
    from alexnet.training.monitor import Event, Progressed

LINE_EVERY = 10.0  # seconds between plain lines


class Console:
    """Shows progress on standard error and says results on standard output."""

    def __init__(self, log: Callable[[str], None] = lambda text: None) -> None:
        self._log = log
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._printed = time.monotonic()
        self._epoch = -1

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            self._bar = Progress(
                *columns, console=Console(stderr=True), transient=True, redirect_stdout=False
            )
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one, and log it."""
        self._log(text)
        if self._bar is not None and sys.stdout.isatty():  # one terminal shows both
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def prepared(self, progress: "Progress") -> None:
        """Show how far a preparation is."""
        left = progress.seconds_left
        text = (
            f"prepared {progress.done:,} of {progress.total:,} images, "
            f"{progress.images_per_second:,.0f}/s, {left // 60:.0f}:{left % 60:02.0f} left, "
            f"{progress.skipped:,} skipped, {progress.repaired:,} repaired"
        )
        self._show(text, progress.done, progress.total, last=progress.done == progress.total)

    def fetched(self, file: str, done: int, total: int) -> None:
        """Show how far a download is."""
        of = f" of {total / 1e6:,.0f}" if total else ""
        text = f"downloading {file}: {done / 1e6:,.0f}{of} MB"
        self._show(text, done, total or done, last=done == total)

    def verified(self, done: int, total: int) -> None:
        """Show how far a verification is."""
        self._show(f"verified {done:,} of {total:,} images", done, total, last=done == total)

    def extracted(self, done: int, total: int) -> None:
        """Show how far an extraction of features is."""
        self._show(f"features of {done:,} of {total:,} images", done, total, last=done == total)

    def drawn(self, done: int, total: int) -> None:
        """Show how far pictures of units or maps are."""
        self._show(f"drew {done:,} of {total:,}", done, total, last=done == total)

    def grid(self, progress: "GridProgress") -> None:
        """Show how far a grid of runs is."""
        left = progress.seconds_left
        time_left = "" if left == float("inf") else f", {left / 60:,.0f} minutes left"
        running = "".join(f"; {text}" for text in progress.running)
        text = (
            f"{progress.finished:,} of {progress.runs:,} runs, {progress.share:.0%} of the work"
            f"{time_left}{running}"
        )
        self._show(text, progress.share, 1.0, last=False)

    def event(self, event: "Event") -> None:
        """Show what a training did."""
        from alexnet.training import monitor as events

        match event:
            case events.Notice(text=text):
                self.say(text)
            case events.Progressed():
                self._progressed(event)
            case events.Validated(step, epoch, split, result, best):
                self.say(
                    f"epoch {epoch:.0f}, step {step:,}: {split} top-1 {result.top1:.3f} "
                    f"(best {best:.3f}), top-5 {result.top5:.3f}, one view"
                )
            case events.Tested(split, result):
                self.say(format_evaluation(split, result))
            case events.Stopped(step):
                self.say(f"Stopped and saved after step {step:,}; the same command goes on.")

    def _progressed(self, event: "Progressed") -> None:
        number, steps_an_epoch = event.step.number, event.step.number / event.epoch
        text = (
            f"epoch {event.epoch:5.1f}  step {number:,}/{event.total:,}  loss {event.step.loss:.3f}"
        )
        if rate := event.images_per_second:
            left = (event.total - number) * event.images_per_step / rate
            text += f"  {rate:.0f} images/s  {left // 60:.0f}:{left % 60:02.0f} left"
        epoch = int((number - 1) / steps_an_epoch)
        if self._bar is not None and epoch != self._epoch:
            self._clear()
            self._epoch = epoch
        within = number - epoch * steps_an_epoch
        self._show(text, within, steps_an_epoch, last=number == event.total)

    def _show(self, text: str, done: float, total: float, *, last: bool) -> None:
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(text, total=total)
            self._bar.update(self._task, description=text, completed=done)
        elif last or time.monotonic() - self._printed >= LINE_EVERY:
            self._printed = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None


def format_evaluation(split: str, result: "Evaluation") -> str:
    """Return a test result with its class names, a line a class."""
    from alexnet.data.imagenet import describe_classes
    from alexnet.evaluation import VIEWS

    names = describe_classes(result.classes)
    width = max(map(len, names))
    lines = [
        f"{split}, {result.images:,} images, {VIEWS[result.crops]}: top-1 {result.top1:.4f}, "
        f"top-5 {result.top5:.4f} (the largest class alone: {result.majority:.4f})"
    ]
    for label, (_, images, share) in enumerate(result.by_class()):
        if not images:
            continue
        row = result.confusion[label]
        wrong = {names[i]: n for i, n in enumerate(row) if n and i != label}
        most = sorted(wrong.items(), key=lambda pair: -pair[1])[:2]
        taken = ", ".join(f"{n} as {other}" for other, n in most)
        taken = f"  ({taken})" if taken else ""
        lines.append(f"  {names[label]:{width}} {share:6.3f} of {images:4}{taken}")
    return "\n".join(lines)
