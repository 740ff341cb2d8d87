"""Every error that a user can cause. Each message names the value at fault and the fix."""

from __future__ import annotations


class TilewrightError(Exception):
    """Base of all errors that Tilewright raises on purpose."""


# --------------------------------------------------------------------------- writing a tile program
class LanguageError(TilewrightError):
    """A tile program that is not meaningful; the message points at the author's line."""


class ShapeError(LanguageError):
    """Axes or sizes that do not fit each other."""


class DTypeError(LanguageError):
    """An element type that is unknown, or that the operation does not take."""


class UndefinedDimError(LanguageError):
    """A dimension or axis that no parameter declares."""


class RaceError(LanguageError):
    """Two iterations, or two statements, that store to the same place."""


class CarriedTypeError(LanguageError):
    """A loop-carried tile whose type would change from one iteration to the next."""


class ParseError(LanguageError):
    """Text that is not a tile program."""


class VerifyError(LanguageError):
    """A program that breaks rules of the IR; lists each with its reason."""


# ------------------------------------------------------------------------- designing and compiling
class MachineError(TilewrightError):
    """A machine that is unknown, or that lacks what was asked of it."""


class IllegalDesign(TilewrightError):
    """A design that the operator, the shape or the machine does not allow; carries the reasons."""


class CompileError(TilewrightError):
    """Text that the machine's compiler refused: a defect of Tilewright, with the stage to look at."""


class CacheWarning(UserWarning):
    """The cache of binaries is damaged or cannot be written; the kernel was compiled again."""


class BookWarning(UserWarning):
    """The book of designs, or an entry of it, is damaged or cannot be used; what it would have told is found again."""


class BookError(TilewrightError):
    """A book, a file of one, or a key of it that cannot be used as asked."""


# ------------------------------------------------------------------------------------ calling kernels
class ArgumentError(TilewrightError):
    """An operand, size or option of a call that the operator does not take."""


class TraceError(TilewrightError):
    """A trace of shapes that cannot be read, written or replayed; names the entry at fault."""


class LaunchError(TilewrightError):
    """A GPU, its driver or its memory that refused a kernel."""


class OutOfDeviceMemory(LaunchError):
    """A GPU with too little memory for what was asked of it."""


class AccumulatorOverflow(TilewrightError):
    """An integer sum that does not fit the accumulators of a simulated machine: flagged, never wrapped."""


class VerificationError(TilewrightError):
    """A kernel whose output is outside its bound of the float64 reference."""


# -------------------------------------------------------------------------------------------- models
class ModelError(TilewrightError):
    """A model folder that cannot be used as it is."""


class UnsupportedModel(ModelError):
    """An architecture or option that Tilewright does not run."""


class WeightsError(ModelError):
    """Weights that are missing, truncated, or do not fit the configuration."""


class SamplingError(TilewrightError):
    """A sampling parameter outside its range."""


class ContextError(TilewrightError):
    """A prompt or a length that does not fit the model's context."""


class EngineFailure(TilewrightError):
    """A request that the engine gave up, because a step that it took part in failed."""


class ServerBusy(TilewrightError):
    """A server that takes no more requests for now: its queue is full, or it is shutting down."""


class KnobError(TilewrightError):
    """An environment setting that cannot be understood."""


class MissingPackage(TilewrightError):
    """An optional package that is not installed; the message holds the command that installs it."""


# -------------------------------------------------------------------------------------------- messages
def in_words(error: BaseException) -> str:
    """What an exception says to a reader: of a system's error its words, without the number and the path."""
    return getattr(error, "strerror", None) or str(error)
