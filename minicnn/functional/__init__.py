"""The functions a network is made of. Each file is a lesson: the equation, the derivation of its
gradient, and the code.

In every lesson x are the inputs, y is the output, and dx means dL/dx, the gradient of x:
backward(dy) returns dx. Where dy is itself an input, because a derivative is differentiated again,
the gradient of the output is called g.

What comes first is examples/engine.py, forty lines that run without this package, and then
`minicnn.autograd`. Read the lessons in this order:

1. `minicnn.functional.linear`, `minicnn.functional.activation`
2. `minicnn.functional.softmax`, `minicnn.functional.loss`, `minicnn.functional.elementwise_loss`
3. `minicnn.functional.windows`, `minicnn.functional.conv`, `minicnn.functional.conv_transpose`
4. `minicnn.functional.pooling`, `minicnn.functional.average_pooling`,
   `minicnn.functional.adaptive_pooling`
5. `minicnn.functional.lrn`, `minicnn.functional.dropout`, `minicnn.functional.standardize`,
   `minicnn.functional.batch_norm`
6. `minicnn.functional.fused`, for two layers at once, and `minicnn.functional.exchange`, for a
   network in several processes

A public function takes and returns Tensors; the functions beside it that take arrays, marked
@kernel, do the work. (A forward that only calls one NumPy function, such as tanh, has no kernel.)
If a backend (minicnn/backends) has a faster version of a kernel, that version runs in its place.
The __all__ of a lesson lists its public names, and is the only list of them.
"""

from .activation import *
from .adaptive_pooling import *
from .average_pooling import *
from .batch_norm import *
from .conv import *
from .conv_transpose import *
from .dropout import *
from .elementwise_loss import *
from .exchange import *
from .fused import *
from .linear import *
from .loss import *
from .lrn import *
from .pooling import *
from .shapes import *
from .softmax import *
from .standardize import *

# the public names of all lessons
__all__ = [name for name, thing in list(globals().items()) if callable(thing)]
