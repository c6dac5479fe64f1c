"""The commands of `python -m neural`: words in, files and sentences out; numbers come from `neural.answers`."""

from .comparing import compare as compare
from .density import likelihood as likelihood
from .explaining import explain_command as explain_command
from .parsing import command_of as command_of
from .pretraining import pretrain as pretrain
from .sampling import draw as draw
from .showing import audit as audit
from .showing import report as report
from .studying import study as study
from .training import distill as distill
from .training import train as train
