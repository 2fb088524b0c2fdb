"""Question to answer under one release: engines, in processes of their own or in this one.

An answer comes from exactly one release, pinned when the question begins. Which release that is, the caller says.
"""

from relens.serving.core import Engine, InProcess
from relens.serving.descriptions import Description
from relens.serving.front import Engines
from relens.serving.process import serve
from relens.serving.questions import Answer, Answerer, Question

__all__ = ["Answer", "Answerer", "Description", "Engine", "Engines", "InProcess", "Question", "serve"]
