"""The errors a user can meet. Each names the thing, the value found and the way out."""


class MmttError(Exception):
    """Base of every error that is the user's to mend; the CLI prints it without a traceback and exits 1.

    Args:
        message: what is wrong, with the thing and the value.
        remedy: what to do about it, as a command where there is one.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message}\n  -> {remedy}" if remedy else message)


class ConfigError(MmttError):
    """The recipe (mmtt.toml) or a command-line value cannot be used."""

    exit_code = 2


class SourceError(MmttError):
    """A source dataset as a whole is not what its adapter expects."""


class BadImage(MmttError):
    """One image or part map cannot be used; becomes a row with this reason, the run goes on."""


class ContractBroken(MmttError):
    """A forgery breaks the mask contract; becomes a rejected row with this reason."""


class StoreError(MmttError):
    """A table or a stored image is damaged or missing."""


class ReleaseError(MmttError):
    """A release is not what its manifest says."""


class WeightsMissing(MmttError):
    """A checkpoint that a method needs is not where weights are looked for; the remedy says how to obtain it."""


class WeightsError(MmttError):
    """A checkpoint is there and cannot be used: damaged, changed, unsafe, or another network's."""


class TermsNotAccepted(MmttError):
    """A checkpoint is there, and nobody has accepted its licence yet."""


class ServerError(MmttError):
    """A Label Studio server does not run, does not answer, or does not accept our token."""
